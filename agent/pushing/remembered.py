"""This file knows what a terminal must not forget of what the centre sent: what was decided, what ran, who froze.

All is immutable: agent/pushing/memory.py writes the new value to the disk and only then goes on with it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

DECISIONS = 200
COMMANDS = 500
APPLIED = ("committed", "rolled_back")
"""Outcomes of configurations that were in use, if only on probation."""
LONGEST_FREEZE_MS = 7 * 24 * 3600 * 1000
"""A person may freeze pushes for so long; a freeze whose end cannot be read any more lasts as long."""

SAME_MS = 2000
"""By so much the clocks may wander until the end of a freeze is told otherwise."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of one signed content. digest: `Accepted.digest`; reason: a word; detail: a sentence; at: when,
    wall clock in ms, 0 when that is not known."""

    digest: str
    version: int
    outcome: str
    reason: str = ""
    detail: str = ""
    at: int = 0


@dataclass(frozen=True, slots=True)
class Decisions:
    """The last DECISIONS of them, oldest first. newest: the newest version that was ever in use here.

    A refused version does not count as newest: somebody may have meant it for another terminal, or signs it anew.
    """

    newest: int = 0
    all: tuple[Decision, ...] = ()

    def find(self, digest: str) -> Decision | None:
        """What became of it; None when it was not decided, or long ago."""
        return next((one for one in self.all if one.digest == digest), None)

    def joined(self, decision: Decision) -> "Decisions":
        """One more, or a later one of the same content. Of too many a refused one goes first: whoever sends a
        thousand refusable ones does not make the terminal forget what it has."""
        kept = [one for one in self.all if one.digest != decision.digest]
        while len(kept) >= DECISIONS:
            kept.remove(next((one for one in kept if one.outcome not in APPLIED), kept[0]))
        used = decision.version if decision.outcome in APPLIED else 0
        return Decisions(max(self.newest, used), (*kept, decision))

    def content(self) -> dict[str, Any]:
        """As it is written."""
        return {"newest": self.newest, "all": [asdict(one) for one in self.all]}

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> "Decisions":
        """As it was written. Raises KeyError or TypeError."""
        return cls(content["newest"], tuple(Decision(**one) for one in content["all"]))


@dataclass(frozen=True, slots=True)
class Command:
    """A command that was begun. expires: wall clock in ms; outcome: empty until it ended. command: its word.
    digest: `Accepted.digest`. at, boot: when it was begun (wall clock in ms), and in which boot of the machine."""

    id: str
    expires: int
    outcome: str = ""
    detail: str = ""
    duration_ms: int = 0
    command: str = ""
    at: int = 0
    boot: str = ""
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Commands:
    """What has run, so that nothing runs twice, whatever the clock says.

    forgotten: the latest expiry of a command that was forgotten. One that expires then or earlier may be that
    command, and does not run: so a clock that was ahead for a while and is set back lets nothing run again.
    lost: begin of what may be known (wall clock in ms), when the file was damaged. A command that was valid before
    may have run; one that was signed later has not.
    """

    forgotten: int = 0
    lost: int = 0
    all: Mapping[str, Command] = field(default_factory=dict)

    def begun(self, command: Command, not_before: int, wall_ms: int) -> "Commands | None":
        """With one more; None when it has run, or may have."""
        if command.id in self.all or command.expires <= self.forgotten or not_before <= self.lost:
            return None
        by_end = sorted(self.all.values(), key=lambda one: one.expires)
        gone = [one for one in by_end if one.outcome and one.expires < wall_ms]
        gone = gone or by_end[: max(0, len(by_end) - COMMANDS + 1)]
        forgotten = max((self.forgotten, *(one.expires for one in gone)))
        kept = {one.id: one for one in self.all.values() if one not in gone}
        return Commands(forgotten, self.lost, {**kept, command.id: command})

    def ended(self, id: str, outcome: str, detail: str, duration_ms: int) -> "Commands":
        """With the outcome of one that was begun."""
        if id not in self.all:
            return self
        done = replace(self.all[id], outcome=outcome, detail=detail, duration_ms=duration_ms)
        return replace(self, all={**self.all, id: done})

    def content(self) -> dict[str, Any]:
        """As it is written."""
        return {"forgotten": self.forgotten, "lost": self.lost, "all": [asdict(one) for one in self.all.values()]}

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> "Commands":
        """As it was written. Raises KeyError or TypeError."""
        found = [Command(**one) for one in content["all"]]
        return cls(content["forgotten"], content["lost"], {one.id: one for one in found})


@dataclass(frozen=True, slots=True)
class Freeze:
    """Nothing is applied until then (wall clock in ms), because this person said so.

    boot, ends   in this boot of the machine it ends then at the latest (monotonic ms): nobody can set that clock
    is_of        whether it was made in that boot: then it ends just then, however the wall clock is set
    """

    until: int
    by: str
    boot: str = ""
    ends: int = 0
    is_of: bool = False

    def again(self, boot: str, up_ms: int) -> "Freeze":
        """The same in another boot, of which this is seen first: it lasts as long as any may, at the longest."""
        return replace(self, boot=boot, ends=up_ms + LONGEST_FREEZE_MS, is_of=False)

    def now(self, wall_ms: int, up_ms: int) -> "Freeze | None":
        """What is left of it, its end told by the wall clock as it is now; None when it is over."""
        left = self.ends - up_ms if self.is_of else self.until - wall_ms
        left = min(left, self.ends - up_ms) if self.boot else left
        until = wall_ms + left
        until = self.until if abs(until - self.until) <= SAME_MS else until
        return replace(self, until=until) if left > 0 else None
