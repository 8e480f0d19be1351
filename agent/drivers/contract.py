"""This file knows the driver contract: what the link may ask of every driver, and what every driver keeps.

A driver does no I/O. Bytes come in through `receive`, readings go out, time is a parameter (monotonic
seconds, never backwards). One driver object serves one opening of one line: after a lost line the link makes
a new one, so no half-frame and no half-dialogue survives an unplugged cable.

There are two shapes. A `Driver` is alone on its line. A `Shared` driver speaks for several devices behind one
line (an RS-485 bus, a server, a publisher of services), so what it hears says of which device it is. Everything
else is the same for both.

Rules that every driver keeps (tests/test_drivers.py holds each against them):
- any slicing of the byte stream gives the same readings;
- buffers have a hard limit; bad bytes are counted (`link.bad_frames`), never raised;
- a damaged stream loses at most the damaged frame and the next (what follows rubbish within a second may be
  asked for again first);
- it says when the device is silent (`link.state`) and never gives up;
- every point name is in agent/points.py, every word in its list or `vendor.<code>`;
- the vendor's own code travels in `raw`; no key, PIN or card data ever does.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from agent.drivers.transcript import Transcript
from agent.model import Heard, Operation, Outcome, Reading

Access = Literal["own", "listen", "service"]
"""own: the agent is the only master of the device; listen: a passive tap, nothing is ever written; service: another
program owns the device, and tells its status to whoever asks."""

Medium = Literal["serial", "tcp", "messages"]
"""serial: a serial line, also behind socket:// or rfc2217://; tcp: a server, socket://host:port; messages:
websockets below ws:// or wss://, whose messages travel as records (framing.Records)."""


@dataclass(frozen=True, slots=True)
class Line:
    """What carries a device's bytes, and line settings as it leaves the factory; a config may override `baud`."""

    baud: int = 9600
    bits: int = 8
    parity: Literal["N", "E", "O"] = "N"
    stop: int = 1
    dtr: bool = True
    rts: bool = True
    medium: Medium = "serial"


class Driver(Protocol):
    """One device, alone on one opening of its line.

    line        factory settings of the line
    access      what the driver can do, of Access; what a config says when it says nothing is "own", or the only
                one there is
    why_not     for each of "own" and "listen" that is missing above, one sentence that tells the reason
    operations  verb -> one sentence of help; the verbs that `perform` understands
    moving      those of them that move notes or cards: a hand may be in the machine
    transcript  what the conversation was, for a technician who traces it; nothing secret ever stands in it
    Options     a frozen dataclass of the settings under the device's table in the config; every field has a
                default, and a docstring tells its meaning. `poll` (seconds) is always one of them. Where some of
                them make no sense with an access, a method `clash(access)` tells why, or gives nothing.
    """

    line: ClassVar[Line]
    access: ClassVar[frozenset[Access]]
    why_not: ClassVar[Mapping[Access, str]]
    operations: ClassVar[Mapping[str, str]]
    moving: ClassVar[frozenset[str]]
    Options: ClassVar[type[Any]]
    transcript: Transcript

    def __init__(self, options: Any, access: Access = "own") -> None: ...

    def receive(self, data: bytes, now: float) -> list[Reading | Outcome]:
        """What these bytes mean, together with those before them."""

    def tick(self, now: float) -> list[Reading | Outcome]:
        """What the passing of time means: polls due, replies overdue."""

    def outgoing(self) -> bytes:
        """Bytes to send since the last call. With access "listen" always empty."""

    def perform(self, operation: Operation, now: float) -> None:
        """Begin an operation. Its Outcome comes from a later `receive` or `tick`, exactly one for each."""


class Shared(Protocol):
    """Several devices behind one opening of one line. `link.state` is said of each of them.

    LineOptions  as Options, of the line's own table: [lines.<name>]
    Options      as Driver's, of each device's table; a field without a default must be given

    The rest is as in Driver.
    """

    line: ClassVar[Line]
    access: ClassVar[frozenset[Access]]
    why_not: ClassVar[Mapping[Access, str]]
    operations: ClassVar[Mapping[str, str]]
    moving: ClassVar[frozenset[str]]
    LineOptions: ClassVar[type[Any]]
    Options: ClassVar[type[Any]]
    transcript: Transcript

    def __init__(self, options: Any, devices: Mapping[str, Any]) -> None:
        """`devices`: name -> its Options. Raises ValueError with a sentence when they cannot share a line, e.g.
        two devices at one address."""

    def receive(self, data: bytes, now: float) -> list[Heard]:
        """What these bytes mean, together with those before them, by device."""

    def tick(self, now: float) -> list[Heard]:
        """What the passing of time means, by device."""

    def outgoing(self) -> bytes:
        """Bytes to send since the last call."""

    def perform(self, operation: Operation, now: float) -> None:
        """Begin an operation on `operation.device`."""


def refusal(operation: Operation, verbs: Collection[str], greatest: Mapping[str, int] | None = None) -> str:
    """Why an operation cannot be done, or nothing. `greatest`: argument -> its greatest number; 1 is the least."""
    if operation.verb not in verbs:
        return f"this device has no operation {operation.verb}; it has {', '.join(verbs)}"
    limits = greatest or {}
    for name, value in operation.arguments.items():
        if name not in limits:
            return f"{operation.verb} has no argument {name}"
        if type(value) is not int or not 1 <= value <= limits[name]:
            return f"{name} must be a whole number from 1 to {limits[name]}"
    return ""
