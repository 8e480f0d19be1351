"""This file knows one look at all key slots of the EPP: which are asked, one at a time, and what was seen.

A question that is unanswered, or that was not asked, makes the look worthless: then nothing is judged, and it is
looked again. A slot of which this kind of device can never tell is left out, and its driver says so: the state is
UNTOLD. A look at nothing but such slots is good: there is nothing that it has missed.
"""

from collections.abc import Iterable

from agent.crypto.asking import believed, parsed
from agent.crypto.guards import Seen
from agent.crypto.steps import Answer
from agent.model import Outcome

HOURLY, AGAIN, PATIENCE = 3600.0, 60.0, 120.0
"""Seconds between two looks; at most before the next try after worthless ones; for one answer."""
SOON = 5.0
"""Seconds before the next try after one worthless look, twice as long after each further one: an EPP that was away
for a moment keeps the terminal out of service no longer than it must."""
UNTOLD = "untold"
"""The state that a driver tells of such a slot, when it refuses the question."""


class Survey:
    """One look. `name` makes its questions unique. cmac: slots of keys whose check values are by CMAC."""

    def __init__(self, name: str, slots: Iterable[str], cmac: Iterable[str] = ()) -> None:
        self.name = name
        self._cmac = frozenset(cmac)
        self._rest = sorted(set(slots))
        self._asked = ""
        self._until = 0.0
        self.seen: dict[str, Seen] = {}
        self.silent: list[str] = []
        """Slots of which the device can never tell."""
        self.failed = False

    @property
    def done(self) -> bool:
        """Whether every slot was asked, or the look is worthless."""
        return self.failed or not (self._rest or self._asked)

    @property
    def good(self) -> bool:
        """Whether it can be judged."""
        return self.done and not self.failed

    def next(self, now: float) -> str:
        """The slot that is to be asked now, or nothing; the question's id is `id_of` it."""
        if self._asked and now >= self._until:
            self.failed = True
        if self.done or self._asked:
            return ""
        self._asked, self._until = self._rest.pop(0), now + PATIENCE
        return self._asked

    def pending(self, now: float) -> bool:
        """Whether an answer is still to come."""
        return bool(self._asked) and now < self._until

    def id_of(self, slot: str) -> str:
        """The id of the question about a slot."""
        return f"{self.name}.{slot}"

    def take(self, outcome: Outcome) -> bool:
        """Take an answer; whether it was one to this look."""
        if not self._asked or outcome.operation != self.id_of(self._asked):
            return False
        slot, self._asked = self._asked, ""
        answer = believed(Answer(outcome.operation, outcome.result, outcome.raw, outcome.facts))
        state = answer.facts.get("state")
        if outcome.result == "done" and state:
            kcv = parsed(answer.facts.get("kcv"), "cmac" if slot in self._cmac else "zero")
            self.seen[slot] = Seen(state, kcv, str(answer.facts.get("usage", "")))
        elif outcome.result == "refused" and outcome.facts.get("state") == UNTOLD:
            self.silent.append(slot)
        else:
            self.failed = True
        return True
