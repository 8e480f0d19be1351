"""This file knows the simulated-device contract.

A simulated device is written from the protocol document, never from the driver, and does no I/O. Its state is
plain attributes; `SETTINGS` says which of them a person may set, and to what. It answers in `receive`, and
gives in `tick` what it sends on its own or later (a pushed status, the end of a slow movement). `now` is any
clock in seconds that only goes forward; a device that needs time in `receive` uses that of the last tick.
The server ticks ten times a second, and at once after a setting was changed.

A device is on a serial line of its own, unless it says otherwise: MEDIUM "bus" may share a line, and hears all that
is said there; "server" and "websocket" have clients, and speak in records (hwsim/servers.py). A websocket server's
own address is put into its attribute `authority` (host:port) before the first client comes.

A pad whose keys lie in a simulated secure device (`hwsim epp`, a process of its own) has a setting `epp`, the path
of that device's socket, and an attribute `ask_epp`, into which who serves the pad puts a function that asks there.
"""

from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any, ClassVar, Protocol

MEDIA = ("serial", "bus", "server", "websocket")

Allowed = tuple[str, ...] | type[int] | type[float] | type[str]
Json = dict[str, Any]
AskEpp = Callable[[str, Json], Json]
"""(path, request) -> answer, both as in hwsim/secure_requests.py. Raises Unreachable."""


class Unreachable(Exception):
    """The secure device does not answer."""


def no_epp(path: str, request: Json) -> Json:
    """`ask_epp` where nobody has put one."""
    raise Unreachable(path)


class SimulatedDevice(Protocol):
    """One simulated device. `BAUD` is the speed its line is set to; at another speed it hears rubbish."""

    BAUD: ClassVar[int]
    SETTINGS: ClassVar[Mapping[str, Allowed]]

    def receive(self, data: bytes) -> bytes:
        """What the device answers at once to these bytes (any slicing of the stream)."""

    def tick(self, now: float) -> bytes:
        """What the device sends by itself by `now`."""


def medium(device: SimulatedDevice | type[SimulatedDevice]) -> str:
    """What a device is on, of MEDIA."""
    found: str = getattr(device, "MEDIUM", MEDIA[0])
    return found


def change_setting(device: Any, name: str, text: str) -> None:
    """Set one attribute of a simulated device from text, e.g. ("paper", "out").

    Raises ValueError with a sentence that names what is allowed.
    """
    allowed = device.SETTINGS.get(name)
    if allowed is None:
        raise ValueError(f"no setting {name!r}; there are: {', '.join(sorted(device.SETTINGS))}")
    if isinstance(allowed, tuple):
        if text not in allowed:
            raise ValueError(f"{name} cannot be {text!r}; it can be: {', '.join(allowed)}")
        setattr(device, name, text)
        return
    try:
        value = allowed(text)
    except ValueError:
        raise ValueError(f"{name} wants {allowed.__name__}, not {text!r}") from None
    if isinstance(value, float) and not isfinite(value):
        raise ValueError(f"{name} wants a number that is finite, not {text!r}")
    setattr(device, name, value)  # a device may refuse it with a sentence of its own
