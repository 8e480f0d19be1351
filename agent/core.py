"""This file knows what one drain of the queue becomes: the ledger rows, points and faults of one transaction.

Each change is a row, until its point flaps (agent/flapping.py): then one row `flapping` says so, the changes are
counted, and one row `steady` gives their number and the value at rest. Of doors, tamper and whatever security owns
every change is a row, however fast they come.

A wall clock that was set is a row too, and the first one of its step: every row has both clocks, and a reader must
know of the new offset before a row has it (agent/clock.py).

Pure: `step` takes the time and gives a Batch; the core thread (agent/service.py) commits it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.clock import Clock, Quality
from agent.faults import FaultEvent, Faults
from agent.flapping import Flapping
from agent.model import (
    Batch,
    Change,
    Fault,
    Fence,
    Heard,
    Note,
    Operation,
    Outcome,
    Reading,
    StoredPoint,
    Turn,
    Value,
)
from agent.points import lookup
from agent.watch import Watch

SETTLE = 2.0
"""Seconds in which points that come back after a silence are gathered into one `known` row."""

URGENT_KINDS = frozenset(
    {"operation", "outcome", "start", "stop", "thread", "store", "disk", "ceremony", "account", "push", "sealed"}
    | {f"fault.{kind}" for kind in ("raised", "cleared", "flapping", "steady", "explained")}
)

TELLS_CLOCK = frozenset({"start", "store"})
"""Rows that begin a run or a chain: they tell how good the clock is."""

Item = Heard | Operation | Note | Fence | Turn


@dataclass(slots=True)
class _Returning:
    """Points of one device that are known again, waiting to become one row."""

    since: float
    values: dict[str, Value] = field(default_factory=dict)


class Core:
    """Readings, operations and notes in, one Batch out.

    boot     an id of this boot of the machine: monotonic times are only comparable within one
    removed  open faults of devices that are not configured any more: nothing else would ever end them
    clock    what the ledger's rows tell of the clock
    """

    def __init__(
        self,
        watch: Watch,
        faults: Faults,
        boot: str,
        removed: Iterable[Fault] = (),
        clock: Clock | None = None,
    ) -> None:
        self._watch = watch
        self._faults = faults
        self._boot = boot
        self._clock = clock or Clock(boot)
        self._removed = list(removed)
        self._parting: list[Change] = []
        self._returning: dict[str, _Returning] = {}
        self._asked: dict[str, str] = {}
        self._flapping = Flapping()
        self._counted: set[tuple[str, str]] = set()
        """Points of which the ledger last said that they flap."""

    @property
    def quality(self) -> Quality:
        """How good the wall clock is; nobody can tell before the first step."""
        return self._clock.quality or "unset"

    @property
    def known(self) -> int:
        """The latest time that it is known to have been (wall clock, ms)."""
        return self._clock.known

    def step(self, items: Iterable[Item], now: float, wall_ms: int, synced: bool = False) -> Batch:
        """What `items` and the time since the last step become. now: monotonic seconds; wall_ms: at `now`, by a
        clock that follows a time source if `synced`."""
        moment = _Moment(now, wall_ms, self._boot, Batch())
        if moved := self._clock.look(round(now * 1000), wall_ms, synced):
            moment.row("clock", now, False, **moved)
        for item in items:
            match item:
                case Heard(device, said):
                    for word in said:
                        self._heard(device, word, moment)
                case Operation():
                    self._asked[item.id] = item.device
                    moment.row("operation", now, **_operation(item))
                case Note(kind, fields):
                    extra = {"clock": self._clock.quality} if kind in TELLS_CLOCK else {}
                    moment.row(kind, now, **{**fields, **extra})
        self._part(moment)
        for fault in self._removed:
            moment.fault(fault, is_open=False)
            moment.row("fault.cleared", now, **self._fault(fault), why="the device is not configured any more")
        self._removed.clear()
        self._age(moment)
        self._rest(moment)
        self._tell(self._faults.due(now, wall_ms), now, moment)
        self._settle(moment)
        if moment.batch.rows:
            self._clock.wrote(round(now * 1000))
        return moment.batch

    def deadline(self) -> float:
        """When a step is due even if nothing is heard (monotonic seconds)."""
        settle = min((r.since + SETTLE for r in self._returning.values()), default=float("inf"))
        return min(self._watch.deadline(), self._faults.deadline(), self._flapping.deadline(), settle)

    def finish(self, now: float, wall_ms: int, note: Note, synced: bool = False) -> Batch:
        """The last batch of a planned stop: nothing that was gathered is left behind."""
        for returning in self._returning.values():
            returning.since = float("-inf")
        return self.step([note], now, wall_ms, synced)

    def forget(self, devices: Iterable[str]) -> None:
        """These are not configured any more: the next step makes what is known of them unknown, and clears their
        faults."""
        for device in devices:
            self._parting += self._watch.forget(device)
            self._removed += self._faults.forget(device)
            self._flapping.forget(device)
            self._returning.pop(device, None)
            self._counted = {key for key in self._counted if key[0] != device}

    def learn(self, last: Mapping[tuple[str, str], Value]) -> None:
        """These values are what is stored of devices that are configured from now on."""
        self._watch.learn(last)

    def _heard(self, device: str, word: Reading | Outcome, moment: "_Moment") -> None:
        if isinstance(word, Outcome):
            extra: dict[str, Any] = {"facts": dict(word.facts)} if word.facts else {}
            asked = self._asked.pop(word.operation, device)
            moment.row(
                "outcome",
                word.at,
                device=asked,
                id=word.operation,
                result=word.result,
                detail=word.detail,
                raw=word.raw,
                **extra,
            )
            return
        change = self._watch.take(device, word)
        if change:
            self._changed(change, moment)

    def _changed(self, change: Change, moment: "_Moment") -> None:
        point = lookup(change.point)
        moment.keep(change)
        flaps = self._flapping.take(change)
        if point.ledgered and change.was is not None and change.value is not None:
            self._drop_returning(change)
            self._record(change, flaps, moment)
        elif point.ledgered and change.value is not None:
            returning = self._returning.setdefault(change.device, _Returning(moment.now))
            returning.values[change.point] = change.value
        self._tell(self._faults.take(change, moment.now, flaps), change.at, moment)

    def _record(self, change: Change, flaps: int, moment: "_Moment") -> None:
        """A change as a row of its own, or, of a point that flaps, only that it does."""
        key = (change.device, change.point)
        extra: dict[str, Any] = {"raw": change.raw} if change.raw else {}
        if change.inferred:
            extra["inferred"] = True
        kind = "change"
        if flaps and not self._faults.guarded(change):
            if key in self._counted:
                return
            kind, extra["count"] = "flapping", flaps
            self._counted.add(key)
        else:
            self._counted.discard(key)
        moment.row(
            kind,
            change.at,
            urgent=lookup(change.point).urgent,
            device=change.device,
            point=change.point,
            value=change.value,
            was=change.was,
            **extra,
        )

    def _rest(self, moment: "_Moment") -> None:
        """What flapped and has come to rest."""
        for change, count in self._flapping.rested(moment.now):
            key = (change.device, change.point)
            if key in self._counted:
                self._counted.discard(key)
                moment.row(
                    "steady",
                    moment.now,
                    urgent=lookup(change.point).urgent,
                    device=change.device,
                    point=change.point,
                    value=change.value,
                    since=moment.wall(change.at),
                    count=count,
                    raw=change.raw,
                )
            self._tell(self._faults.take(change, moment.now), moment.now, moment)

    def _tell(self, events: Iterable[FaultEvent], at: float, moment: "_Moment") -> None:
        """What became of faults, as rows and for the store."""
        for event in events:
            moment.fault(event.fault, is_open=event.kind not in ("cleared", "explained"))
            extra: dict[str, Any] = {"count": event.count} if event.count else {}
            if event.by:
                extra["by"] = event.by
            moment.row(f"fault.{event.kind}", at, **self._fault(event.fault), **extra)

    def _part(self, moment: "_Moment") -> None:
        """Nobody looks any more at what was known of devices that are forgotten."""
        for change in self._parting:
            moment.keep(change)
        self._unknown(self._parting, moment)
        self._parting.clear()

    def _age(self, moment: "_Moment") -> None:
        gone = self._watch.expire(moment.now)
        for change in gone:
            self._changed(change, moment)
            self._drop_returning(change)
            self._counted.discard((change.device, change.point))
        self._unknown(gone, moment)

    @staticmethod
    def _unknown(changes: Sequence[Change], moment: "_Moment") -> None:
        gone: dict[str, list[str]] = {}
        for change in changes:
            if lookup(change.point).ledgered:
                gone.setdefault(change.device, []).append(change.point)
        for device, points in gone.items():
            moment.row("unknown", moment.now, urgent=True, device=device, points=sorted(points))

    def _settle(self, moment: "_Moment") -> None:
        for device, returning in list(self._returning.items()):
            if returning.since + SETTLE <= moment.now:
                del self._returning[device]
                if returning.values:
                    moment.row("known", moment.now, urgent=False, device=device, values=returning.values)

    def _drop_returning(self, change: Change) -> None:
        """A point that has changed or is unknown by now must not be reported as known by an older value."""
        returning = self._returning.get(change.device)
        if returning:
            returning.values.pop(change.point, None)

    def _fault(self, fault: Fault) -> Mapping[str, Any]:
        return {
            "device": fault.device,
            "point": fault.point,
            "code": fault.code,
            "severity": self._faults.severity(fault),
            "value": fault.value,
            "raw": fault.raw,
            "since": fault.since,
        }


@dataclass(slots=True)
class _Moment:
    """One step's time and what it has gathered."""

    now: float
    wall_ms: int
    boot: str
    batch: Batch

    def wall(self, at: float) -> int:
        """The wall clock at `at`, ms: as far from its monotonic clock as now, to the millisecond."""
        return self.wall_ms - round(self.now * 1000) + round(at * 1000)

    def row(self, kind: str, at: float, urgent: bool | None = None, **fields: Any) -> None:
        """Add a ledger row about something that was seen at `at`."""
        self.batch.rows.append(
            {"at": self.wall(at), "up": round(at * 1000), "boot": self.boot, "kind": kind, **fields}
        )
        self.batch.urgent |= kind in URGENT_KINDS if urgent is None else urgent

    def fault(self, fault: Fault, *, is_open: bool) -> None:
        """Store a fault as this step leaves it: one that ended and began again in it is open, not gone."""
        batch, key = self.batch, (fault.device, fault.point, fault.code)
        for faults in (batch.raised, batch.cleared):
            faults[:] = [f for f in faults if (f.device, f.point, f.code) != key]
        (batch.raised if is_open else batch.cleared).append(fault)

    def keep(self, change: Change) -> None:
        """Store the point as the change leaves it: an unknown one keeps its last value and when it was seen."""
        value = change.was if change.value is None else change.value
        if value is None:
            return
        self.batch.points.append(
            StoredPoint(
                change.device,
                change.point,
                value,
                change.value is not None,
                self.wall(change.at),
                change.raw,
                change.inferred,
            )
        )


def _operation(operation: Operation) -> dict[str, Any]:
    return {
        "device": operation.device,
        "id": operation.id,
        "verb": operation.verb,
        "by": operation.by,
        "arguments": dict(operation.arguments),
    }
