"""This file knows the wall clock of a terminal: how good it is, when it was set, and when a row was really made.

A row carries `at` (wall clock), `up` (monotonic clock) and `boot`. Nobody can set the monotonic clock, so within
one boot the offset `at - up` stands still, also while the clock is being disciplined (which moves both), and moves
only when somebody sets the wall clock or the machine sleeps. Whatever lasts is counted in `up`; `at` is for people,
for papers with dates, and for what must outlive the machine.

How good the wall clock is:

    synced   the kernel says that it follows a time source
    free     it runs on its own, and nothing speaks against it
    unset    it stands before 2024, or before a row that was already written by a good clock

`unset` ends when the clock has passed that row, is synced, or the agent is started again after it was set.
Pure: who asks the machine for the time is agent/timepiece.py.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Quality = Literal["synced", "free", "unset"]
Row = Mapping[str, Any]

STEP = 2000
"""Milliseconds by which the offset may wander from the last one that a row names."""
TOLERANCE = 2 * STEP + 1000
"""The same for who has only the rows: an agent that was just started measures from the last row it finds."""
SANE = 1_704_067_200_000
"""2024-01-01 UTC, ms: no terminal of ours ran before it."""
_BETTER = {"unset": 0, "free": 1, "synced": 2}


@dataclass(frozen=True, slots=True)
class Instant:
    """One look at the clocks: monotonic seconds, wall clock in ms, and whether that one follows a source."""

    now: float
    wall_ms: int
    synced: bool = False


class Clock:
    """The wall clock as the core sees it. rows: the newest rows of the ledger, oldest first; the clock may have
    been set while no agent ran, and then they tell."""

    def __init__(self, boot: str, rows: Iterable[Row] = ()) -> None:
        self.quality: Quality | None = None
        self._offset: int | None = None
        self._floor = 0
        """The newest row of an earlier boot, by a good clock (wall clock, ms)."""
        self._low: int | None = None
        """The lowest offset of this boot that was good; a clock that is set ahead does not become the measure."""
        self._last = 0
        """The newest row of this boot (monotonic ms)."""
        good, of = True, ""
        for row in rows:
            if said(row) or row["boot"] != of:
                good, of = said(row) != "unset", row["boot"]
            if of == boot:
                self._offset, self._last = row["at"] - row["up"], row["up"]
                if good:
                    self._low = min(self._offset, self._offset if self._low is None else self._low)
            elif good:
                self._floor = row["at"]

    def look(self, now_ms: int, wall_ms: int, synced: bool) -> dict[str, Any] | None:
        """What a row `clock` says now, or None when the clock is as the last row tells."""
        offset = wall_ms - now_ms
        before, was = self.quality, offset if self._offset is None else self._offset
        self.quality = quality = self._judged(offset, wall_ms, synced)
        jump = offset - was
        if abs(jump) <= STEP and quality == (before or quality):
            # Not taken over: many small steps must not add up to a large one that no row tells.
            self._offset = was
            return None
        self._offset = offset
        return {"was": wall_ms - jump, "now": wall_ms, "jump_ms": jump, "quality": quality}

    @property
    def known(self) -> int:
        """The latest time that it is known to have been (wall clock, ms). Of a boot in which the clock was set
        ahead for a while it is not the measure; after that boot, it is."""
        return max(SANE, self._floor, 0 if self._low is None else self._last + self._low)

    def wrote(self, now_ms: int) -> None:
        """Rows were made at this time (monotonic ms)."""
        self._last = now_ms

    def _judged(self, offset: int, wall_ms: int, synced: bool) -> Quality:
        if wall_ms < SANE:
            return "unset"
        if synced:
            self._low, self._floor = offset, 0
            return "synced"
        if wall_ms < self.known:
            return "unset"
        self._low = offset if self._low is None else min(self._low, offset)
        return "free"


class Offsets:
    """The last good offset of each boot, gathered from rows in their order."""

    def __init__(self) -> None:
        self._of: dict[str, tuple[int, int]] = {}

    def take(self, row: Row) -> None:
        """Note what a row says of the clock; most say nothing. A synced clock counts more than a free one, and of
        equals the later one: it was set because the earlier one was wrong."""
        rank = _BETTER.get(said(row), 0)
        if rank and rank >= self._of.get(row["boot"], (0, 0))[0]:
            self._of[row["boot"]] = rank, row["at"] - row["up"]

    def redated(self, row: Row) -> int:
        """When a row was made, by its boot's last good offset (wall clock, ms); without one, as the row says."""
        found = self._of.get(row["boot"])
        return row["up"] + found[1] if found else int(row["at"])


def said(row: Row) -> str:
    """The quality of the clock that a row states, empty when it states none."""
    match row:
        case {"kind": "clock", "quality": str(quality)} | {"kind": "start" | "store", "clock": str(quality)}:
            return quality
        case {"kind": "start"}:
            return "free"  # of an older version
    return ""


class Trail:
    """Follows the clock through rows in their order, as a stranger does, and finds what no row tells."""

    def __init__(self) -> None:
        self._boot, self._at, self._offset = "", 0, 0

    def take(self, row: Row) -> tuple[str, int]:
        """What became of the clock before this row, and by how many ms it jumped: "told" by a `clock` row, "untold"
        by any, set back in a "restart" of the machine and untold, or "" for nothing."""
        offset, found = row["at"] - row["up"], ("", 0)
        jump = offset - self._offset
        if row["boot"] != self._boot:
            back = row["at"] - self._at
            if self._boot and back < -TOLERANCE and said(row) != "unset":
                found = "restart", back
            self._offset = offset
        elif row["kind"] == "clock":
            found = ("told", jump) if abs(jump) > STEP else found
            self._offset = offset
        elif abs(jump) > TOLERANCE:
            found, self._offset = ("untold", jump), offset
        elif said(row):
            self._offset = offset
        self._boot, self._at = row["boot"], row["at"]
        return found
