"""This file knows what is on disk of pushes, and what is in force after whatever happened in between.

    in-force.json  before.json  staged.json     envelopes as they came: the one that counts, the one before it, and
                                                the one that is being tried. Without the first the local file counts
    step.json      how far the push is (agent/pushing/probation.py), and how the last one ended
    rejected/<version>-<digest>.json            envelopes that were tried and do not count: the last, and the newest
    and what agent/pushing/memory.py keeps

Each file is old or new as a whole (agent/disk/durable.py), and a push is decided by one write: step.json with the
word `committing`. Before it, a start finds the push interrupted and the last good configuration in force; after it,
a start finishes what was left. What follows that write is renaming, which needs no room; a disk that takes nothing
at all any more leaves it to the next push or start.

A damaged file never stops the agent. It is kept as <name>.damaged, a sentence tells it, and the safe side is taken:

    in-force  the one before it counts, else the local file          staged    the push is rolled back
    step      a push that was tried is rolled back                   before    next in turn is the local file
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from agent.crypto import strictjson
from agent.crypto.signing import Accepted, Envelope
from agent.disk import durable
from agent.disk.slips import Damaged, Slips
from agent.errors import EnvelopeRefused, StoreError
from agent.pushing.memory import Memory
from agent.pushing.probation import TRANSITIONS
from agent.pushing.remembered import Command, Decision

INTERRUPTED = (
    "the agent ended (a power cut, a crash, a restart) while this was being tried, and went back to what was in"
    " force before: have the same content signed with a greater version"
)
EVIDENCE = 5
"""Rejected envelopes that are kept."""
IN_FORCE, BEFORE, STAGED, STEP, REJECTED = "in-force.json", "before.json", "staged.json", "step.json", "rejected"


@dataclass(frozen=True, slots=True)
class Kept:
    """A configuration that was pushed. digest: `Accepted.digest`."""

    envelope: bytes = field(repr=False)
    digest: str
    version: int


@dataclass(frozen=True, slots=True)
class Step:
    """How far a push is, or (idle) how the last one ended. outcome: empty, committed, rolled_back or dropped; told:
    whether others know of it. facts: what the caller gave with a step. is_recall: it counted, and is taken back."""

    word: str = "idle"
    digest: str = ""
    version: int = 0
    outcome: str = ""
    reason: str = ""
    detail: str = ""
    told: bool = True
    is_recall: bool = False
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.word not in TRANSITIONS:
            raise ValueError(f"{self.word} is no step of a push")

    def decided(self, word: str, outcome: str, reason: str = "", detail: str = "") -> "Step":
        """The same, decided; nobody knows it yet."""
        new = replace(self, word=word, outcome=outcome, reason=reason, detail=detail, told=False)
        return replace(new, facts={}) if word == "idle" else new


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a start found. last: how the last push ended; it is news unless last.told. troubles: sentences about
    damaged files and a disk that takes nothing. unended: commands that were begun and of which no end is known."""

    in_force: Kept | None
    last: Step
    troubles: tuple[str, ...]
    unended: tuple[Command, ...]


class Shelf:
    """The folder; `recover` is called once before anything but `memory.trust`. One thread at a time.

    What writes raises StoreError when the disk does not take it. A step out of turn is a ValueError.
    """

    def __init__(self, folder: Path) -> None:
        self._slips = Slips(folder)
        self.memory = Memory(self._slips)
        self._in_force: Kept | None = None
        self._before: Kept | None = None
        self._tried: Kept | None = None
        self._step = Step()

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self._slips.folder

    @property
    def last(self) -> Step:
        """How far the push is, or how the last one ended."""
        return self._step

    def in_force(self) -> Kept | None:
        """The pushed configuration that counts; None: the local file does."""
        return self._in_force

    def before(self) -> Kept | None:
        """What counts when that one is taken back, or is damaged; None: the local file."""
        return self._before

    def stage(self, envelope: bytes, version: int, digest: str) -> None:
        """Begin with a push that was verified. Finishes first what the disk did not take of the last one."""
        self._finish()
        self._may("staged")
        self._slips.put(STAGED, envelope)
        try:
            self._take(Step("staged", digest, version))
        except StoreError:
            with suppress(StoreError):
                self._slips.remove(STAGED)
            raise
        self._tried = Kept(envelope, digest, version)

    def step(self, word: str, **facts: Any) -> None:
        """Persist a step before it is taken: applying, probation or rolling_back. When this raises StoreError the
        push is to be rolled back (or dropped, if nothing was applied yet), also when that cannot be written either.
        """
        if word not in ("applying", "probation", "rolling_back") or self._step.word == "idle":
            raise ValueError(f"{word} is no step that is taken by itself")
        if not word == self._step.word == "rolling_back":  # which may have been cut short
            self._may(word)
        self._take(replace(self._step, word=word, facts={**self._step.facts, **facts}))

    def drop(self) -> None:
        """Give up a staged push, which has changed nothing yet; it may come again. It counts also when this raises
        StoreError."""
        self._may("idle")
        self._step = self._step.decided("idle", "dropped")
        self._slips.remove(STAGED)
        self._take(self._step)

    def commit(self) -> None:
        """Decide for the push. When this raises StoreError nothing is decided, and it must be rolled back."""
        self._may("committing")
        if self._tried and self._data(STAGED) != self._tried.envelope:
            self._slips.put(STAGED, self._tried.envelope)  # somebody took it away, and a start would look for it
        self._take(self._step.decided("committing", "committed"))
        self._before, self._in_force = self._in_force, self._tried
        with suppress(StoreError):  # it is decided: what is left is done by the next push or start
            self._finish()

    def reject(self, reason: str, detail: str = "") -> None:
        """Keep the push as evidence; the links are as before. After StoreError the next push or start does it."""
        if self._step.word != "rolling_back":
            self._may("rolling_back")
        self._step = self._step.decided("rolling_back", "rolled_back", reason, detail)
        self._finish()

    def recall(self, reason: str, detail: str = "") -> None:
        """Take back what is in force, for what was before it: a person here decided so. Decided when this returns.
        Raises ValueError when nothing that was pushed is in force."""
        self._finish()
        if self._step.word != "idle":
            raise ValueError("a push is under way: reject it instead")
        gone = self._in_force
        if gone is None:
            raise ValueError("nothing that was pushed is in force")
        step = Step("rolling_back", gone.digest, gone.version, is_recall=True)
        self._take(step.decided("rolling_back", "rolled_back", reason, detail))
        self._tried, self._in_force, self._before = gone, self._before, None
        with suppress(StoreError):
            self._finish()

    def told(self) -> None:
        """Others know how the last push ended: a start need not tell it again."""
        if not self._step.told:
            self._take(replace(self._step, told=True))

    def recover(self, verify: Callable[[bytes], bool]) -> Recovered:
        """See what is there, at a start. Never raises; what the disk does not take is a sentence in `troubles`.

        verify: whether an envelope that was accepted once is still what was accepted. Give it the keys of that
        time: a key that was revoked since must not undo a configuration that works.
        """
        with self._troubled():
            self._slips.make()
        self.memory.load()
        step = self._slips.found(STEP, lambda content: Step(**content)) or Step()
        in_force, before, staged = (self._envelope(name, verify) for name in (IN_FORCE, BEFORE, STAGED))
        self.memory.rebuild(self._decided(in_force, before))
        was = step
        if STEP in self._slips.damaged and staged:
            step = Step("rolling_back", staged.digest, staged.version)
        self._decide(step, in_force, before, staged)
        with self._troubled():
            self._finish()
            self._arrange()
            if self._step != was or STEP in self._slips.damaged:
                self._take(self._step)
            self.memory.mend()
        return Recovered(self._in_force, self._step, tuple(self._slips.troubles), self.memory.unended())

    def _decide(self, step: Step, in_force: Kept | None, before: Kept | None, staged: Kept | None) -> None:
        """What counts, by what was found. Changes nothing on the disk."""
        is_staged = staged is not None and staged.digest == step.digest
        is_in_force = in_force is not None and in_force.digest == step.digest
        if step.word == "committing" and is_staged:
            in_force, before = staged, in_force or before
        elif step.word == "committing" and not is_in_force:
            step = step.decided("rolling_back", "rolled_back", "damaged", "the new configuration was damaged")
        elif step.word == "rolling_back" and step.is_recall:
            if is_in_force:
                self._tried, in_force, before = in_force, before, None
        elif step.word in ("applying", "probation", "rolling_back"):
            self._tried = staged if is_staged else None
            why = str(step.facts.get("detail", step.detail)) or INTERRUPTED
            step = step.decided("rolling_back", "rolled_back", "interrupted", why)
        elif step.word == "staged":
            step = step.decided("idle", "dropped", "interrupted")
        is_lost = IN_FORCE in self._slips.damaged or (in_force is None and before is not None)
        if in_force is None:
            in_force, before = before, None
        if is_lost and step.word == "idle":
            now = f"version {in_force.version}" if in_force else "the local file"
            last = self.memory.last_committed()
            lost = Step("idle", last.digest, last.version) if last else step
            step = lost.decided("idle", "rolled_back", "damaged", f"what was in force was damaged: {now} counts")
        self._in_force, self._before, self._step = in_force, before, step

    def _finish(self) -> None:
        """Bring the files to where a decided push leads; all of it may be done twice."""
        step = self._step
        if step.word == "idle" or not step.outcome:
            return
        if step.word == "rolling_back" and self._tried:
            self._keep_evidence(self._tried)
        self._arrange()
        self.memory.remember(step.digest, step.version, step.outcome, step.reason, step.detail)
        self._take(replace(step, word="idle", facts={}))
        self._tried = None

    def _arrange(self) -> None:
        """Give the envelopes the names that they have now."""
        wanted, there = (self._in_force.envelope if self._in_force else None), self._data(IN_FORCE)
        if wanted is None:
            self._slips.remove(IN_FORCE)
        elif there != wanted and self._data(BEFORE) == wanted:
            self._slips.move(BEFORE, IN_FORCE)
        elif there != wanted:
            if self._before and there == self._before.envelope:
                self._slips.move(IN_FORCE, BEFORE)
            if self._data(STAGED) == wanted:
                self._slips.move(STAGED, IN_FORCE)
            else:  # somebody took it away meanwhile: it is in hand
                self._slips.put(IN_FORCE, wanted)
        self._slips.remove(STAGED)

    def _keep_evidence(self, kept: Kept) -> None:
        rejected = Slips(self._slips.folder / REJECTED)
        rejected.make()
        name = f"{kept.version}-{kept.digest[:12]}.json"
        rejected.put(name, kept.envelope)
        others = [path.name for path in self._rejected() if path.name != name]
        for old in others[: max(0, len(others) - EVIDENCE + 1)]:
            rejected.remove(old)

    def _rejected(self) -> list[Path]:
        """The evidence, the newest version last."""
        found = [
            path for path in (self._slips.folder / REJECTED).glob("*-*.json") if path.name.split("-")[0].isdigit()
        ]
        return sorted(found, key=lambda path: (int(path.name.split("-")[0]), path.name))

    def _decided(self, in_force: Kept | None, before: Kept | None) -> Iterator[Decision]:
        """What the envelopes tell of what was decided."""
        for path in self._rejected():
            with suppress(Damaged, OSError):
                kept = _kept(path.read_bytes())
                yield Decision(kept.digest, kept.version, "rolled_back", "unknown")
        for one in filter(None, (before, in_force)):
            yield Decision(one.digest, one.version, "committed")

    def _envelope(self, name: str, verify: Callable[[bytes], bool]) -> Kept | None:
        try:
            data = self._slips.data(name)
            if data is None:
                return None
            if not verify(data):
                raise Damaged("its signatures do not hold")
            return _kept(data)
        except Damaged as error:
            self._slips.mourn(name, str(error))
            with suppress(OSError):
                durable.move(self._slips.folder / name, self._slips.folder / f"{name}.damaged")
            return None

    def _data(self, name: str) -> bytes | None:
        try:
            return self._slips.data(name)
        except Damaged:
            return b""

    def _may(self, word: str) -> None:
        if word not in TRANSITIONS[self._step.word]:
            raise ValueError(f"a push that is {self._step.word} cannot be {word} next")

    def _take(self, step: Step) -> None:
        self._slips.write(STEP, asdict(step))
        self._step = step

    @contextmanager
    def _troubled(self) -> Iterator[None]:
        try:
            yield
        except StoreError as error:
            self._slips.troubles.append(str(error))


def _kept(envelope: bytes) -> Kept:
    """What an envelope says of itself, whoever signed it. Raises Damaged."""
    try:
        read = Envelope.read(envelope)
        version = strictjson.read(read.unverified)["version"]
        if not isinstance(version, int):
            raise ValueError
    except (EnvelopeRefused, ValueError, KeyError):
        raise Damaged("it is no envelope of a configuration") from None
    return Kept(envelope, Accepted(read.kind, read.unverified, ()).digest, version)
