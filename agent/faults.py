"""This file knows when faults are raised and cleared: changes in, what becomes of the faults out.

A fault is raised when a point has shown one of its words for `after` seconds, and cleared when the point shows
another word. While a point is unknown its faults stay as they are: not seeing is not the same as being well.
Cleared is not closed: closing wants a cause and a person.

A point that flaps (agent/flapping.py) has one fault that stays open: the worst that it shows. It is raised at once,
whatever `after` says, and cleared when the point has come to rest on a harmless word.

The faults that a lost supply explains (agent/outage.py) are not raised, and taken back if they were raised just
before; they are raised after all when their device is still dark long after the supply is back.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from agent.catalogue import UNKNOWN, Catalogue, Rule, Severity
from agent.model import Change, Fault
from agent.outage import NEVER, Key, Outages

Kind = Literal["raised", "cleared", "flapping", "steady", "explained"]
_FLAPPING = "flapping, "


@dataclass(frozen=True, slots=True)
class FaultEvent:
    """What became of a fault; each is a ledger row `fault.<kind>`.

    raised      it is open
    cleared     it is over; `count`: how often the point had changed while it flapped, 0 if it did not
    flapping    it is open (raised now, if it was not) and stays so, however often the point comes and goes
    steady      it flapped, now stands still, and is open; `count` as above
    explained   it is not open (taken back, if it was): device `by` reports a lost supply
    """

    kind: Kind
    fault: Fault
    count: int = 0
    by: str = ""


@dataclass(slots=True)
class _Open:
    """An open fault; `change` raised it, None if that was in an earlier run. `count`: see FaultEvent."""

    fault: Fault
    rule: Rule
    change: Change | None = None
    count: int = 0


@dataclass(slots=True)
class _Waiting:
    """A word that is a fault if it lasts until `due`; or, with `by`, one that this supply's loss explains."""

    due: float
    change: Change
    rule: Rule
    count: int = 0
    by: Key | None = None


class Faults:
    """The open faults of a terminal, those that wait for their `after`, and those that are explained."""

    def __init__(self, catalogue: Catalogue, open_faults: Iterable[Fault] = ()) -> None:
        self._catalogue = catalogue
        self._open = {(f.device, f.point): _Open(f, catalogue.by_code(f.code)) for f in open_faults}
        self._waiting: dict[Key, _Waiting] = {}
        self._explained: dict[Key, _Waiting] = {}
        self._outages = Outages()
        self._told: dict[Key, tuple[Key, float]] = {}

    def take(self, change: Change, now: float, flaps: int = 0) -> list[FaultEvent]:
        """What a change ends. What it begins comes from `due`, at once where `after` is 0.

        flaps   how often the point has changed since it began to flap, 0 when it does not
        """
        key = (change.device, change.point)
        rule = self._catalogue.rule(change.point, change.value)
        events = self._taken_back(now) if self._outages.take(change, bool(rule and rule.explains)) else []
        held = self._open.get(key)
        self._waiting.pop(key, None)
        if rule is None and change.value is None:
            return events
        dark = self._explained.pop(key, None)
        if dark and rule and rule.explained:
            change = replace(change, at=dark.change.at)  # another word for the same darkness
        if held and flaps and not (rule and rule.badness > held.rule.badness):
            return events + _flapping(held, flaps)
        if held and rule and rule.same(held.fault, change.value):
            return events + _steady(held, change)
        if rule:
            self._waiting[key] = _Waiting(now if flaps else now + rule.after, change, rule, flaps)
        if held:
            del self._open[key]
            events.append(FaultEvent("cleared", held.fault, held.count))
        return events

    def due(self, now: float, wall_ms: int) -> list[FaultEvent]:
        """What begins by `now`; `wall_ms` is the wall clock at `now`."""
        for key, dark in list(self._explained.items()):
            if dark.by and self._outages.over(dark.by) <= now:
                self._waiting[key] = self._explained.pop(key)
        events = []
        for key, word in [(k, w) for k, w in self._waiting.items() if w.due <= now]:
            del self._waiting[key]
            change = word.change
            since = wall_ms - round((now - change.at) * 1000)
            value = UNKNOWN if change.value is None else change.value
            fault = Fault(change.device, change.point, word.rule.code, value, since, change.raw)
            word.by = self._explaining(change, word.rule, now)
            if word.by:
                self._explained[key] = word
                # A link that comes and goes while the supply is lost is explained once, not each time.
                if self._told.get(key) != (loss := (word.by, self._outages.begun(word.by))):
                    self._told[key] = loss
                    events.append(FaultEvent("explained", fault, by=word.by[0]))
                continue
            self._open[key] = held = _Open(fault, word.rule, change)
            events += _flapping(held, word.count) if word.count else [FaultEvent("raised", fault)]
        return events

    def forget(self, device: str) -> list[Fault]:
        """Stop watching a device. Returns its open faults, which nothing else would ever end."""
        gone = [held.fault for key, held in self._open.items() if key[0] == device]
        self._open = {key: held for key, held in self._open.items() if key[0] != device}
        self._waiting = {key: word for key, word in self._waiting.items() if key[0] != device}
        self._explained = {key: word for key, word in self._explained.items() if key[0] != device}
        self._told = {key: told for key, told in self._told.items() if key[0] != device}
        self._outages.forget(device)
        return gone

    def deadline(self) -> float:
        """When `due` will next have something to say."""
        waiting = min((w.due for w in self._waiting.values()), default=NEVER)
        return min([waiting, *(self._outages.over(w.by) for w in self._explained.values() if w.by)])

    def severity(self, fault: Fault) -> Severity:
        """How bad a fault is, by the catalogue."""
        return self._catalogue.by_code(fault.code).severity

    def guarded(self, change: Change) -> bool:
        """Whether every single change of this sort is recorded: doors, tamper, what security owns."""
        return self._catalogue.guarded(change)

    def open(self) -> list[Fault]:
        """Every open fault, oldest first."""
        return sorted((held.fault for held in self._open.values()), key=lambda f: f.since)

    def _explaining(self, change: Change, rule: Rule, now: float) -> Key | None:
        return self._outages.explaining(change.device, change.at, now) if rule.explained else None

    def _taken_back(self, now: float) -> list[FaultEvent]:
        """A supply is lost: the open faults that it explains are no faults of their own."""
        events = []
        for key, held in list(self._open.items()):
            by = held.change and self._explaining(held.change, held.rule, now)
            if held.change and by:
                del self._open[key]
                self._explained[key] = _Waiting(now, held.change, held.rule, by=by)
                self._told[key] = by, self._outages.begun(by)
                events.append(FaultEvent("explained", held.fault, held.count, by[0]))
        return events


def flaps(fault: Fault) -> bool:
    """Whether an open fault comes and goes. Its `raw` says so too, which is how the store keeps it."""
    return fault.raw.startswith(_FLAPPING)


def _flapping(held: _Open, count: int) -> list[FaultEvent]:
    """Keep a fault open while its point flaps; an event only when that begins."""
    held.count = count
    if flaps(held.fault):
        return []
    held.fault = replace(held.fault, raw=f"{_FLAPPING}{count} changes")
    return [FaultEvent("flapping", held.fault, count)]


def _steady(held: _Open, change: Change) -> list[FaultEvent]:
    """The fault goes on; an event only if it flapped until now."""
    if not flaps(held.fault):
        return []
    held.fault = replace(held.fault, raw=change.raw)
    count, held.count = held.count, 0
    return [FaultEvent("steady", held.fault, count)]
