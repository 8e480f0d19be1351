"""This file knows the driver contract: what the link may ask of every driver, and what every driver keeps.

A driver does no I/O. Bytes come in through `receive`, readings go out, time is a parameter (monotonic
seconds, never backwards). One driver object serves one opening of one line: after a lost line the link makes
a new one, so no half-frame and no half-dialogue survives an unplugged cable.

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

from agent.model import Operation, Outcome, Reading

Access = Literal["own", "listen"]


@dataclass(frozen=True, slots=True)
class Line:
    """Line settings of a device as it leaves the factory; a config may override `baud`."""

    baud: int = 9600
    bits: int = 8
    parity: Literal["N", "E", "O"] = "N"
    stop: int = 1
    dtr: bool = True
    rts: bool = True


class Driver(Protocol):
    """One device on one opening of its line.

    line        factory settings of the serial line
    access      what the driver can do: "own" (it is the only master), "listen" (it decodes a passive tap of
                both directions and never writes)
    why_not     for each access that is missing above, one sentence that tells the reason
    operations  verb -> one sentence of help; the verbs that `perform` understands
    Options     a frozen dataclass of the settings under the device's table in the config; every field has a
                default, and a docstring tells its meaning. `poll` (seconds) is always one of them.
    """

    line: ClassVar[Line]
    access: ClassVar[frozenset[Access]]
    why_not: ClassVar[Mapping[Access, str]]
    operations: ClassVar[Mapping[str, str]]
    Options: ClassVar[type[Any]]

    def __init__(self, options: Any, access: Access = "own") -> None: ...

    def receive(self, data: bytes, now: float) -> list[Reading | Outcome]:
        """What these bytes mean, together with those before them."""

    def tick(self, now: float) -> list[Reading | Outcome]:
        """What the passing of time means: polls due, replies overdue."""

    def outgoing(self) -> bytes:
        """Bytes to send since the last call. With access "listen" always empty."""

    def perform(self, operation: Operation, now: float) -> None:
        """Begin an operation. Its Outcome comes from a later `receive` or `tick`, exactly one for each."""


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
