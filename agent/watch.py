"""This file knows which readings are news: last value, deadband, tallies, and when a value has become unknown.

Every outcome is a Change, and its two ends tell what it is:

    was is a value, value is a value     the point has changed
    was is None,    value is a value     the point is known (again), and is what it last was, or is new
    was is a value, value is None        the point is unknown: older than its max_age (`at`: when last seen)
"""

from collections.abc import Mapping
from dataclasses import dataclass

from agent.model import Change, Reading, Value
from agent.points import lookup

EAGER = 0.2
"""Once a silent device's first point is stale, those within this share of their max_age go with it: one row
for the ledger instead of one for each question that the driver used to ask."""


@dataclass(slots=True)
class _Held:
    """The last value of a point, kept also while it is unknown."""

    value: Value
    known: bool
    seen: float


class Watch:
    """Readings in, changes out. `last` holds the values of an earlier run, {(device, point): value}: they are
    unknown until read again, but a difference to them is a change."""

    def __init__(self, last: Mapping[tuple[str, str], Value]) -> None:
        self._held: dict[str, dict[str, _Held]] = {}
        self._look_at = float("inf")
        self.learn(last)

    def learn(self, last: Mapping[tuple[str, str], Value]) -> None:
        """Hold the values of an earlier run also of devices that are configured only now."""
        for (device, point), value in last.items():
            self._held.setdefault(device, {}).setdefault(point, _Held(value, False, 0.0))

    def take(self, device: str, reading: Reading) -> Change | None:
        """What a reading means, or None when it only says that all is as before."""
        points = self._held.setdefault(device, {})
        held = points.get(reading.point)
        if held is None or not held.known:
            self._look_at = min(self._look_at, reading.at + lookup(reading.point).max_age)
        value = self._total(held, reading)
        if held is None:
            points[reading.point] = _Held(value, True, reading.at)
            return self._change(device, reading, value, None)
        was, was_known = held.value, held.known
        held.seen, held.known = reading.at, True
        if self._differs(reading.point, was, value):
            held.value = value
            return self._change(device, reading, value, was)
        return None if was_known else self._change(device, reading, was, None)

    def expire(self, now: float) -> list[Change]:
        """The points that have become unknown by `now`."""
        if now <= self._look_at:
            return []
        changes = []
        for device, points in self._held.items():
            if not any(h.known and now - h.seen > lookup(p).max_age for p, h in points.items()):
                continue
            link = points.get("link.state")
            slack = 0.0 if link and link.known and link.value == "up" else EAGER
            for point, held in points.items():
                if (
                    held.known
                    and now - held.seen > lookup(point).max_age * (1 - slack)
                    and (point != "link.state" or now - held.seen > lookup(point).max_age)
                ):
                    held.known = False
                    changes.append(Change(device, point, None, held.value, held.seen))
        self._look_at = min(
            (h.seen + lookup(p).max_age for points in self._held.values() for p, h in points.items() if h.known),
            default=float("inf"),
        )
        return changes

    def deadline(self) -> float:
        """When to call `expire` next. A reading only puts a point's end off, so this is not found anew for each."""
        return self._look_at

    def forget(self, device: str) -> list[Change]:
        """Stop watching a device that is no longer in the config. Returns what becomes unknown by that."""
        points = self._held.pop(device, {})
        return [Change(device, point, None, h.value, h.seen) for point, h in points.items() if h.known]

    @staticmethod
    def _total(held: _Held | None, reading: Reading) -> Value:
        if lookup(reading.point).kind != "tally" or not held:
            return reading.value
        return int(held.value) + int(reading.value)

    @staticmethod
    def _differs(point: str, was: Value, value: Value) -> bool:
        entry = lookup(point)
        if entry.kind == "measure" and entry.deadband:
            return abs(float(value) - float(was)) > entry.deadband
        return value != was

    @staticmethod
    def _change(device: str, reading: Reading, value: Value, was: Value | None) -> Change:
        return Change(device, reading.point, value, was, reading.at, reading.raw, reading.inferred)
