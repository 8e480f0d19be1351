"""This file knows when a point flaps: it goes there and back between the same two words, again and again.

A point flaps from its CHANGES-th change between two words within WINDOW seconds (a chattering alarm "raises and
clears three or more times in a minute"; Hexagon, "Fixing Chattering and Fleeting Alarms") until that change has not
come for STEADY seconds. Two words, not the point as a whole: a reader that goes idle, busy, idle all day must not
hide that it then reports a jam. A point that becomes unknown, or known again, has not changed.

What follows from it is decided elsewhere: agent/core.py writes counts instead of rows, except of doors and alarms;
agent/faults.py keeps one fault open instead of raising and clearing it. A restart begins with nothing flapping.
"""

from collections import deque
from dataclasses import dataclass, field

from agent.model import Change, Value
from agent.points import lookup

CHANGES, WINDOW, STEADY = 6, 60.0, 60.0

Edge = tuple[str, str, frozenset[Value]]
"""Device, point, and the two words between which it goes."""


@dataclass(slots=True)
class _Track:
    """The last changes over one edge; `count` is 0 until it flaps, then all changes since it began."""

    last: Change
    times: deque[float] = field(default_factory=lambda: deque(maxlen=CHANGES))
    count: int = 0

    def note(self, change: Change) -> int:
        self.last = change
        self.times.append(change.at)
        if self.count:
            self.count += 1
        elif len(self.times) == CHANGES and change.at - self.times[0] <= WINDOW:
            self.count = CHANGES
        return self.count

    @property
    def end(self) -> float:
        return self.times[-1] + STEADY


class Flapping:
    """Changes in; which of them are flapping, and what has come to rest, out. Holds only the last minute."""

    def __init__(self) -> None:
        self._tracks: dict[Edge, _Track] = {}
        self._last: dict[tuple[str, str], Change] = {}
        self._look_at = float("inf")

    def take(self, change: Change) -> int:
        """How often the point has changed since it began to flap this way; 0 when it does not flap."""
        if lookup(change.point).kind != "word":
            return 0
        self._last[change.device, change.point] = change
        if change.was is None or change.value is None:
            return 0
        edge = (change.device, change.point, frozenset((change.was, change.value)))
        track = self._tracks.setdefault(edge, _Track(change))
        count = track.note(change)
        self._look_at = min(self._look_at, track.end)
        return count

    def rested(self, now: float) -> list[tuple[Change, int]]:
        """What flapped and has come to rest by `now`: its last change, and how many there were. A point that has
        since gone elsewhere, or become unknown, has said so by that change and is not among them."""
        if now < self._look_at:
            return []
        over = [(edge, track) for edge, track in self._tracks.items() if track.end <= now]
        for edge, _ in over:
            del self._tracks[edge]
        self._look_at = min((track.end for track in self._tracks.values()), default=float("inf"))
        return [(t.last, t.count) for _, t in over if t.count and self._last[t.last.device, t.last.point] is t.last]

    def forget(self, device: str) -> None:
        """Nothing of this device is watched any more."""
        self._tracks = {edge: track for edge, track in self._tracks.items() if edge[0] != device}
        self._last = {key: change for key, change in self._last.items() if key[0] != device}

    def deadline(self) -> float:
        """When to call `rested` next (monotonic seconds)."""
        return self._look_at
