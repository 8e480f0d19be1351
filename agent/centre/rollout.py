"""This file knows how a push reaches many terminals in stages: who gets it when, and when to go no further.

A stage begins when everybody of those before it has committed (a command: has done it). A terminal is

    later      not sent to yet
    sent       the push is on its way to it, and what becomes of it is awaited
    committed  it has the push in force, or has done the command
    skipped    it was offline when its stage began, and nobody waits for it
    failed     rolled back, refused, overtaken or silent: with the first of these the rollout stops

Pure: `now` is a parameter, in monotonic seconds. What it saves holds no time, so that it can be loaded on another
day: whoever had not committed then is sent to again, and has the whole patience again.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

State = Literal["later", "sent", "committed", "skipped", "failed"]
Offline = Literal["wait", "send", "leave"]
"""What is done with a terminal that is offline when its stage begins: sent to and waited for; sent to and skipped,
because the broker keeps what is retained; skipped without sending, because a command would be lost."""

PATIENCE = 300.0
MANY = 50
"""Terminals of one stage from which on a person is asked before it begins."""
FAILURES = ("rolled_back", "refused", "failed", "overtaken")
"""Words of an answer that end a rollout. A terminal's other words are committed, applying and waiting."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a terminal says of the push; reason: one word; detail: a sentence; at: when it says it, wall ms.
    lasts: whether it would say so again, if the push came again."""

    word: str
    reason: str = ""
    detail: str = ""
    at: int = 0
    lasts: bool = True


@dataclass(frozen=True, slots=True)
class Send:
    """Send it to this terminal. stage: from 1."""

    terminal: str
    stage: int


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask a person whether this stage may begin, then `allow` it or end. stage: from 1."""

    stage: int
    many: int


@dataclass(frozen=True, slots=True)
class Done:
    """Everybody has it, but those who were skipped."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Nobody else is sent to, because of these terminals: why stands in their places."""

    terminals: tuple[str, ...]


Action = Send | Ask | Done | Stop


@dataclass(slots=True)
class Place:
    """One terminal in a rollout. stage: from 1. answer: the last that it said of this push, or why it failed.
    stale: what it said before it was sent to, if that need not be true any more."""

    stage: int
    state: State = "later"
    answer: Answer = Answer("")
    stale: Answer | None = None
    online: bool = False
    until: float = math.inf
    begun: bool = False


class Rollout:
    """One push on its way to `stages` of terminals.

    patience  seconds for a terminal to say what became of it; once more from when it says that it applies it
    offline   what is done with those who are offline when their stage begins
    most      terminals of a stage that needs no asking
    """

    def __init__(
        self,
        stages: Iterable[Iterable[str]],
        patience: float = PATIENCE,
        offline: Offline = "wait",
        most: int = MANY,
    ) -> None:
        self.stages = tuple(tuple(stage) for stage in stages)
        names = [name for stage in self.stages for name in stage]
        if len(set(names)) < len(names) or not all(self.stages):
            raise ValueError("each terminal stands in one stage, and no stage is empty")
        self.places = {name: Place(at) for at, stage in enumerate(self.stages, 1) for name in stage}
        self.stage = 0
        """The last stage that has begun, from 1."""
        self.ended: Done | Stop | None = None
        self._patience, self._offline, self._most = patience, offline, most
        self._allowed = 0

    def count(self, state: State) -> int:
        """How many terminals are in a state."""
        return sum(place.state == state for place in self.places.values())

    def seen(self, terminal: str, online: bool) -> None:
        """Whether a terminal is connected."""
        if place := self.places.get(terminal):
            place.online = online

    def heard(self, terminal: str, answer: Answer, now: float) -> bool:
        """What a terminal says of this push, also before it is sent to. Returns whether that was news."""
        place = self.places.get(terminal)
        if place is None or self.ended or answer in (place.answer, place.stale):
            return False
        if place.state == "later" and not answer.lasts:
            place.stale = answer
            return False
        if place.state == "committed" and answer.word != "rolled_back":
            return False  # what comes later is another push's affair; only a way back makes this one doubtful
        place.answer = answer
        if answer.word == "committed":
            place.state = "committed"
        elif answer.word in FAILURES:
            place.state = "failed"
        elif answer.word == "applying" and place.state == "sent" and not place.begun:
            place.begun, place.until = True, now + self._patience
        return True

    def withdraw(self, terminals: Iterable[str]) -> None:
        """These were to be sent to, and were not."""
        for name in terminals:
            if self.places[name].state in ("sent", "skipped"):
                self.places[name].state = "later"

    def allow(self) -> None:
        """A person wants the stage for which `advance` asked."""
        self._allowed = self.stage + 1

    def advance(self, now: float) -> list[Action]:
        """What is to be done now: nothing, a stage to send to, a question, or the end, which is told each time."""
        if self.ended is None:
            self._give_up(now)
        if self.ended is None and (failed := self._names("failed")):
            self.ended = Stop(failed)
        while self.ended is None and not self._names("sent"):
            if self.stage == len(self.stages):
                self.ended = Done()
                break
            due = [name for name in self.stages[self.stage] if self.places[name].state == "later"]
            if due and self.stage and not self._names("committed"):
                # everybody before was skipped: nothing shows yet that this push does no harm
                for name in (unproven := self._names("skipped")):
                    self.places[name].answer = Answer("silent", "unproven")
                self.ended = Stop(unproven)
                break
            if len(due) > self._most and self._allowed <= self.stage:
                return [Ask(self.stage + 1, len(due))]
            self.stage += 1
            if sends := self._begin(due, now):
                return sends
        return [self.ended] if self.ended else []

    def saved(self) -> dict[str, Any]:
        """As it is, for JSON."""
        return {
            "stages": [list(stage) for stage in self.stages],
            "committed": list(self._names("committed")),
            "sent": list(self._names("sent")),
            "skipped": list(self._names("skipped")),
            "failed": {
                name: {"word": place.answer.word, "reason": place.answer.reason, "detail": place.answer.detail}
                for name, place in self.places.items()
                if place.state == "failed"
            },
        }

    def resume(self, committed: Iterable[str]) -> None:
        """Begin with these as committed, as an earlier run had saved it. Others of that run begin anew: what they
        have said stands retained at the broker, and is heard again."""
        for name in committed:
            if place := self.places.get(name):
                place.state, place.answer = "committed", Answer("committed")

    def _begin(self, due: Sequence[str], now: float) -> list[Action]:
        sends: list[Action] = []
        for name in due:
            place = self.places[name]
            skipped = self._offline != "wait" and not place.online
            place.state = "skipped" if skipped else "sent"
            place.until = now + self._patience
            if not skipped or self._offline == "send":
                sends.append(Send(name, self.stage))
        return sends

    def _give_up(self, now: float) -> None:
        for place in self.places.values():
            if place.state == "sent" and now >= place.until:
                why = place.answer.reason or place.answer.word
                reason = "offline" if not place.online else why or "silent"
                place.state, place.answer = "failed", Answer("silent", reason, place.answer.detail)

    def _names(self, state: State) -> tuple[str, ...]:
        return tuple(name for name, place in self.places.items() if place.state == state)


def staged(terminals: Sequence[str], plan: str) -> list[list[str]]:
    """Terminals, in their order, in the stages of a plan like 1,5,rest or 1,10%,rest: so many terminals, so much of
    all of them (at least one), and those who are left. Stages for which nobody is left fall away.

    Raises ValueError with what would be right.
    """
    words = plan.replace(" ", "").split(",")
    if words.pop() != "rest":
        raise ValueError(f"the last stage of {plan!r} is not `rest`: write stages like 1,5,rest or 1,10%,rest")
    stages, at = [], 0
    for word in words:
        number = word.removesuffix("%")
        share = word.endswith("%")
        if not (number.isascii() and number.isdecimal() and 0 < int(number[:9]) <= (100 if share else 10**6)):
            raise ValueError(f"{word!r} is no stage: write a number like 5, a part like 10%, and `rest` at the end")
        size = math.ceil(len(terminals) * int(number) / 100) if share else int(number)
        stages.append(list(terminals[at : at + size]))
        at += size
    return [stage for stage in (*stages, list(terminals[at:])) if stage]


def loaded(saved: Mapping[str, Any]) -> tuple[list[list[str]], list[str]]:
    """The stages and the committed of what `saved` gave. Raises ValueError when it is something else."""
    stages, committed = saved.get("stages"), saved.get("committed")
    if (
        not isinstance(stages, list)
        or not all(_names_only(stage) for stage in stages)
        or not _names_only(committed)
    ):
        raise ValueError("these are no stages of a rollout")
    return stages, committed or []


def _names_only(found: Any) -> bool:
    return isinstance(found, list) and all(isinstance(name, str) for name in found)
