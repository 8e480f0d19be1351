"""This file knows how to ask one question at a time: interval, reply timeout, retries, when to say "silent".

A driver that is master of its line owns one Dialogue. It never gives up: a silent device is asked again at
every interval, and each unanswered round repeats that it is silent, so that silence itself is never stale.
It also sees that every operation ends exactly once.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from agent.drivers.hearing import no_answer
from agent.model import Outcome, Reading, Value

PROOF_TIME = 10.0  # seconds in which a device must give a sign after an operation that it answers by silence
SOON, SOON_TIMES = 3.0, 3
"""A rare question whose reply was lost (who are you?) is not put off for its whole interval, at first: seconds,
and how often. Then the device may well not know it."""


LONGEST, MARGIN, IN_VAIN = 8.0, 0.5, 3
"""Seconds for which a reply may be under way, at the most; by how much one may be later than the one before; and
how often one of several questions that are Alike is asked without an answer before all of them rest."""


@dataclass(frozen=True, slots=True)
class Question:
    """Bytes that want a reply. `every` is the interval in seconds (0: once, and whenever it is hurried);
    `name` is for people; `timeout` seconds to wait for the reply; a `mute` question counts no missing reply
    as silence, because for it silence is an answer (Megatec commands) or the device may not know it (GS I).
    `operation` is the id of the operation that it carries out, or empty. `reply`: where the device first
    acknowledges (Handshake), seconds from then to its reply; 0 when it neither acknowledges nor replies."""

    name: str
    data: bytes
    every: float = 0.0
    timeout: float = 1.0
    mute: bool = False
    operation: str = ""
    reply: float = 0.0


class Dialogue:
    """The schedule of one device. `retries` unanswered questions in a row mean silent.

    pending   the question that waits for its reply
    lapsed    the question whose time ran out in the last call of `next`
    held      names of scheduled questions that are not asked for now
    unproven  mute operations that were met by silence: consent only if the device proves to be alive
    """

    def __init__(self, questions: Sequence[Question], retries: int = 3) -> None:
        self._questions = tuple(questions)
        self._due = dict.fromkeys((q.name for q in questions), float("-inf"))
        self._wanted: deque[Question] = deque()
        self._retries = retries
        self._misses = 0
        self._deadline = 0.0
        self._pause_until = float("-inf")
        self._soon: dict[str, int] = {}
        self._skipped = 0
        self._outcomes: list[Outcome] = []
        self._prove_by = 0.0
        self.unproven: list[Question] = []
        self.pending: Question | None = None
        self.lapsed: Question | None = None
        self.held: Set[str] = frozenset()

    @property
    def silent(self) -> bool:
        """Whether the device has left `retries` questions in a row without an answer."""
        return self._misses >= self._retries

    def ask(self, question: Question) -> None:
        """Put a one-time question (an operation) before the scheduled ones."""
        self._wanted.append(question)

    def undertake(self, question: Question, refusal: str, now: float) -> None:
        """Ask the question of an operation, unless there is a reason to refuse it, or nobody to answer."""
        if refusal:
            self.end(question.operation, "refused", refusal, now)
        elif self.silent:
            self.end(question.operation, "unanswered", "the device does not answer, so nothing was sent", now)
        else:
            self.ask(question)

    def hurry(self, name: str, due: float = float("-inf")) -> None:
        """Make a scheduled question due before all others, or from the given time on."""
        self._due[name] = due

    def answered(self) -> Question | None:
        """The pending question has its reply; returns it, or None when nothing was pending."""
        question, self.pending = self.pending, None
        self._misses = 0
        return question

    def doubted(self) -> None:
        """The pending question got something that cannot be believed: for silence it counts as no reply."""
        self.pending = None
        self._misses += 1

    def heard(self) -> None:
        """The device said something good that is not the reply to the pending question."""
        self._misses = 0

    def wait(self, seconds: float, now: float) -> None:
        """Give the pending question `seconds` from now (the device has acknowledged it, or it was repeated)."""
        self._deadline = now + seconds

    def pause(self, seconds: float, now: float) -> None:
        """Ask nothing for `seconds`."""
        self._pause_until = now + seconds

    def next(self, now: float) -> bytes:
        """What to send now, if anything. A lapsed question fills one call, so that its driver can react first."""
        self.lapsed = None
        if self.pending is not None:
            if now >= self._deadline:
                self.lapsed, self.pending = self.pending, None
                self._misses += not self.lapsed.mute
                self._lapse(self.lapsed, now)
            return b""
        if self.unproven and now > self._prove_by:
            self._give_up(now)
        if now < self._pause_until:
            return b""
        self.pending = self._choose(now)
        if self.pending is None:
            return b""
        self._deadline = now + self.pending.timeout
        return self.pending.data

    def link_state(self, now: float, skipped: int = 0) -> list[Reading]:
        """What a driver says of its line after each answer and each lapsed question; nothing while in doubt.

        `skipped` is the number of unreadable bytes so far. Those since the last call tell noise from silence.
        """
        fresh, self._skipped = skipped - self._skipped, skipped
        if self.silent:
            return [no_answer(now, fresh)]
        return [] if self._misses else [Reading("link.state", "up", now)]

    def proven(self) -> list[Question]:
        """The unproven operations, once: the device gave the sign that settles them."""
        questions, self.unproven = self.unproven, []
        return questions

    def end(
        self,
        operation: str,
        result: str,
        detail: str,
        now: float,
        raw: str = "",
        facts: Mapping[str, Value] | None = None,
    ) -> None:
        """Conclude an operation; see model.Outcome."""
        self._outcomes.append(Outcome(operation, result, detail, now, raw, facts or {}))

    def outcomes(self) -> list[Outcome]:
        """What was concluded since the last call."""
        concluded, self._outcomes = self._outcomes, []
        return concluded

    def _lapse(self, lapsed: Question, now: float) -> None:
        if lapsed.operation and lapsed.mute:
            self.unproven.append(lapsed)
            self._prove_by = now + PROOF_TIME
        elif lapsed.operation:
            detail = "the device did not say what became of it; look before trying again"
            self.end(lapsed.operation, "unanswered", detail, now)
        elif lapsed.mute and lapsed.every > SOON and self._soon.get(lapsed.name, 0) < SOON_TIMES:
            self._soon[lapsed.name] = self._soon.get(lapsed.name, 0) + 1
            self._due[lapsed.name] = now + SOON
        if self.silent:
            self._give_up(now)

    def _give_up(self, now: float) -> None:
        for question in (*self.proven(), *self._wanted):
            self.end(question.operation, "unanswered", "the device does not answer", now)
        self._wanted.clear()

    def _choose(self, now: float) -> Question | None:
        if self._wanted:
            return self._wanted.popleft()
        waiting = [q for q in self._questions if now >= self._due[q.name] and q.name not in self.held]
        if not waiting:
            return None
        # The longest overdue first, so that a frequent question cannot starve a rare one.
        question = min(waiting, key=lambda q: self._due[q.name])
        self._due[question.name] = now + question.every if question.every else float("inf")
        return question


class Alike:
    """Questions whose replies look alike, so that a late one could be taken for that to another of them.

    A question that was not answered in time is asked again before any of the others: then a late reply is merely
    old. When it is answered, replies to what was asked in vain may still be under way: none of them is asked until
    these have come, or until they would have, had they been as late as the one that came. After IN_VAIN times none
    is asked until nothing can be under way. The replies must come in the order of the questions, within LONGEST.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)
        self._name = ""
        self._tries = 0
        self._asked: deque[float] = deque(maxlen=2 * IN_VAIN)
        self._free_at = float("inf")

    def idle(self, now: float) -> bool:
        """Whether no reply can be under way; to be asked only while none of them is pending."""
        if not self._asked or now >= self._free_at:
            self._asked.clear()
            self._tries = 0
        return not self._asked

    def held(self, now: float) -> frozenset[str]:
        """The names of those that must not be asked now; to be asked only while none of them is pending."""
        if self.idle(now) or len(self._names) == 1:
            return frozenset()
        return self._names - {self._name} if 0 < self._tries < IN_VAIN else self._names

    def asked(self, name: str, now: float) -> None:
        """One of them was put on the wire."""
        self._name = name
        self._tries += 1
        self._asked.append(now)
        self._free_at = now + LONGEST

    def came(self, now: float, answer: bool) -> None:
        """A reply came that looks like theirs; `answer`: and one of them was pending."""
        if not self._asked:
            return
        late = min(now - self._asked.popleft(), LONGEST)
        if answer and self._asked:
            self._tries, self._free_at = 0, self._asked[-1] + late + MARGIN

    def ended(self) -> None:
        """The device ended the pending one without a reply, on a line where nothing is late."""
        if len(self._asked) == 1:
            self._asked.clear()
