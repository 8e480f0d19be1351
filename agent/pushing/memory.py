"""This file knows where a terminal keeps what it must not forget of what the centre sent
(agent/pushing/remembered.py).

    known.json     what was decided of which content        commands.json  which commands have run
    freeze.json    who froze pushes, and until when         trust.json, trust.copy.json  the chain of trust

Of a damaged file the safe side is taken, and written in its place:

    known     built again from the envelopes that are kept, which have their versions in them
    commands  no command runs that was valid already when the newest file here was written: it may have run
    freeze    frozen for as long as anybody may freeze
    trust     its copy; without one `trust` refuses until a person has seen to it: what was revoked is not known
"""

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict

from agent.disk.slips import Damaged, Slips
from agent.errors import StoreError
from agent.pushing.remembered import LONGEST_FREEZE_MS, Command, Commands, Decision, Decisions, Freeze
from agent.timepiece import wall_ms

KNOWN, COMMANDS, FREEZE = "known.json", "commands.json", "freeze.json"
TRUST, TRUST_COPY = "trust.json", "trust.copy.json"
MARGIN_MS = 5 * 60 * 1000
"""A command may have run so long before it was valid, by clocks that differ."""


class Memory:
    """What is remembered; whatever writes raises StoreError, and then it is remembered as before the call."""

    def __init__(self, slips: Slips) -> None:
        self._slips = slips
        self._known: Decisions | None = None
        self._commands = Commands()
        self._freeze: Freeze | None = None

    def load(self) -> None:
        """Read all, at a start; `rebuild` and `mend` follow."""
        newest = self._slips.newest_ms()
        self._known = self._slips.found(KNOWN, Decisions.read)
        lost = Commands(lost=newest + MARGIN_MS)
        self._commands = self._slips.found(COMMANDS, Commands.read) or (
            lost if COMMANDS in self._slips.damaged else Commands()
        )
        self._freeze = self._slips.found(FREEZE, lambda content: Freeze(**content))
        if FREEZE in self._slips.damaged:
            self._freeze = Freeze(newest + LONGEST_FREEZE_MS, "unknown")

    def rebuild(self, decisions: Iterable[Decision]) -> None:
        """What the envelopes that are kept tell of decisions: it counts when nothing else does."""
        if self._known is None:
            self._known = Decisions()
            for decision in decisions:
                self._known = self._known.joined(decision)

    def mend(self) -> None:
        """Write what was taken in place of damaged files."""
        if KNOWN in self._slips.damaged:
            self._slips.write(KNOWN, self._all.content())
        if COMMANDS in self._slips.damaged:
            self._slips.write(COMMANDS, self._commands.content())
        if FREEZE in self._slips.damaged and self._freeze:
            self._slips.write(FREEZE, asdict(self._freeze))
        found = [self._slips.found(name, _text) for name in (TRUST, TRUST_COPY)]
        text = found[0] or found[1]
        for name, one in zip((TRUST, TRUST_COPY), found, strict=True):
            if text is not None and one != text:
                self._slips.write(name, {"text": text})

    @property
    def newest(self) -> int:
        """The newest version that was ever in use here."""
        return self._all.newest

    def known(self, digest: str) -> Decision | None:
        """What was decided of a content."""
        return self._all.find(digest)

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """What was decided, the last one last."""
        return self._all.all

    def last_committed(self) -> Decision | None:
        """The last configuration that was committed and not taken back; what is no configuration has no version."""
        found = (one for one in reversed(self.decisions) if one.outcome == "committed" and one.version)
        return next(found, None)

    def remember(self, digest: str, version: int, outcome: str, reason: str = "", detail: str = "") -> None:
        """Remember a decision, for instance a refusal that is final; the same once more keeps its time."""
        was = self._all.find(digest)
        at = was.at if was and was.outcome == outcome and was.at else wall_ms()
        known = self._all.joined(Decision(digest, version, outcome, reason, detail, at))
        self._slips.write(KNOWN, known.content())
        self._known = known

    def begun(
        self,
        id: str,
        not_before: int,
        expires: int,
        wall_ms: int,
        command: str = "",
        boot: str = "",
        digest: str = "",
    ) -> bool:
        """Whether a command may run now; when it may, that it was begun is on disk. All in ms, wall clock. command,
        digest, boot: its word, its content's digest, and the id of this boot of the machine."""
        one = Command(id, expires, command=command, at=wall_ms, boot=boot, digest=digest)
        commands = self._commands.begun(one, not_before, wall_ms)
        if commands is None:
            return False
        self._keep(commands)
        return True

    def ended(self, id: str, outcome: str, detail: str = "", duration_ms: int = 0) -> None:
        """How a command ended."""
        self._keep(self._commands.ended(id, outcome, detail, duration_ms))

    def command(self, id: str) -> Command | None:
        """What is known of a command; None although `begun` refuses it: it may have run; sign it anew."""
        return self._commands.all.get(id)

    @property
    def doubt(self) -> str:
        """When a command must begin and end so that `begun` can know that it has not run."""
        late, lost = self._commands.forgotten, self._commands.lost
        begins = f"valid only after {_utc(lost)}" if lost else ""
        ends = f"ending after {_utc(late)}" if late else ""
        return ", ".join(filter(None, (begins, ends)))

    def unended(self) -> tuple[Command, ...]:
        """Commands that were begun, and of which no end is known."""
        return tuple(one for one in self._commands.all.values() if not one.outcome)

    def freeze(self, until: int, by: str, boot: str = "", ends: int = 0) -> None:
        """Nothing is to be applied until then (wall clock in ms, at most LONGEST_FREEZE_MS from now); boot, ends:
        the same by the monotonic clock of this boot (ms)."""
        freeze = Freeze(until, by, boot, ends, bool(boot))
        self._slips.write(FREEZE, asdict(freeze))
        self._freeze = freeze

    def thaw(self) -> None:
        """Pushes are applied again."""
        self._slips.remove(FREEZE)
        self._freeze = None

    def frozen(self, wall_ms: int, boot: str = "", up_ms: int = 0) -> Freeze | None:
        """The freeze that holds now, by both clocks; without a boot by the wall clock alone."""
        if self._freeze and boot not in ("", self._freeze.boot):
            self._freeze = self._freeze.again(boot, up_ms)
            with suppress(StoreError):  # else it is counted from the next start of the agent
                self._slips.write(FREEZE, asdict(self._freeze))
        return self._freeze.now(wall_ms, up_ms) if self._freeze else None

    def trust(self) -> str | None:
        """The chain of trust as it was kept; None: there was no rotation yet. May be asked before `load`. Raises
        StoreError when nothing that is signed may be accepted."""
        why = ""
        for name in (TRUST, TRUST_COPY):
            try:
                if (text := self._slips.read(name, _text)) is not None:
                    return text
            except Damaged as error:
                why = str(error)
        if not why:
            return None
        raise StoreError(
            f"{self._slips.folder / TRUST} and its copy are damaged ({why}): write the signers who count today, "
            "and no revoked key, into this terminal's signers file, then move both away and restart the agent"
        )

    def keep_trust(self, text: str) -> None:
        """Keep a chain of trust, twice. The first file decides; a copy that could not be written is written at the
        next start."""
        self._slips.write(TRUST, {"text": text})
        with suppress(StoreError):
            self._slips.write(TRUST_COPY, {"text": text})

    @property
    def _all(self) -> Decisions:
        return self._known or Decisions()

    def _keep(self, commands: Commands) -> None:
        self._slips.write(COMMANDS, commands.content())
        self._commands = commands


def _utc(at: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at / 1000))


def _text(content: dict[str, str]) -> str:
    return content["text"]
