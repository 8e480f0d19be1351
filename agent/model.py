"""This file knows the nouns: what travels between a driver, the core and the ledger. All are frozen.

Times named `at` are monotonic seconds of this process; wall-clock time is added where a row is written.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Value = bool | int | float | str
"""What a point can hold. Unknown is the absence of a value (None), never a special word."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a device said: one value of one point, seen at `at`.

    `raw` is the vendor's own code or words and always travels beside our word. `inferred` says that no
    device reported this: the driver concluded it, and `raw` tells from what.
    """

    point: str
    value: Value
    at: float
    raw: str = ""
    inferred: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """A reading that differs from the last one; None means unknown (on either side)."""

    device: str
    point: str
    value: Value | None
    was: Value | None
    at: float
    raw: str = ""
    inferred: bool = False


@dataclass(frozen=True, slots=True)
class Fault:
    """An interval in which something is not well. `since` is wall-clock milliseconds of the raising row."""

    device: str
    point: str
    code: str
    value: Value
    since: int
    raw: str = ""


@dataclass(frozen=True, slots=True)
class Operation:
    """Something a person or the centre asked a device to do. `id` is unique for ever; `by` says who asked. `opaque`
    is relayed to the device once (a key block), and is never ledgered, logged or kept."""

    id: str
    device: str
    verb: str
    by: str
    arguments: Mapping[str, Value] = field(default_factory=dict)
    opaque: bytes = field(default=b"", repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an operation ended: `result` is done, refused (by us, nothing was sent), failed (by the device)
    or unanswered. `detail` is one sentence for a person, `facts` what else may be known of it (a check value)."""

    operation: str
    result: str
    detail: str
    at: float
    raw: str = ""
    facts: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Heard:
    """What one link's driver made of some bytes or of some passing time; the main thing on the core's queue."""

    device: str
    items: tuple[Reading | Outcome, ...]


@dataclass(frozen=True, slots=True)
class Note:
    """Something about the agent itself that belongs into the ledger: a start, a thread that died. `kind` and
    `fields` are those of the ledger row."""

    kind: str
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fence:
    """A place on the core's queue: `reached` is called once everything before it is on disk."""

    reached: Callable[[], object]


@dataclass(frozen=True, slots=True)
class Turn:
    """Something that only the core's own thread may do: `do` is called once everything before it is taken up."""

    do: Callable[[], object]


@dataclass(frozen=True, slots=True)
class StoredPoint:
    """The last value of a point; `known` is False when it is older than its max_age. `at`: wall clock, ms."""

    device: str
    point: str
    value: Value
    known: bool
    at: int
    raw: str = ""
    inferred: bool = False


@dataclass(slots=True)
class Batch:
    """What one commit brings: ledger rows without their numbers, the points and the faults they leave behind."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    points: list[StoredPoint] = field(default_factory=list)
    raised: list[Fault] = field(default_factory=list)
    cleared: list[Fault] = field(default_factory=list)
    urgent: bool = False

    def __bool__(self) -> bool:
        return bool(self.rows or self.points or self.raised or self.cleared)
