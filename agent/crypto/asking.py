"""This file knows what a ceremony has asked of the EPP, and what may be believed of an answer.

Each question has an id that is unique for ever: the order's, and a number that goes on after a restart.
"""

from dataclasses import dataclass, field, replace

from agent.crypto.kcv import Kcv, Method
from agent.crypto.steps import Answer, Ask, State
from agent.errors import CryptoError
from agent.pasted import is_name, like_a_key

CHANGING = frozenset({"key_enter", "key_complete", "key_import", "key_delete"})
PATIENCE, ENTRY_PATIENCE = 120.0, 420.0
"""Seconds for the outcome of one question; the device's driver has its own, shorter ones."""
LONGEST_RAW = 64
STATES = ("loaded", "missing", "construct")
ENDED = frozenset({State.CLOSED, State.ABORTED})
QUIET = ENDED | {State.IDLE, State.DESTROY, State.RECEIPT}
"""States in which nothing is asked of the EPP, so its slots may be looked at: people may take long to sign, and
after a restart nobody is served before a look."""
WAITING = frozenset(
    {State.LOOKING, State.CLEARING, State.ENTERING, State.LOADING, State.ACTIVE, State.ERASING, State.ABORTING}
)
"""States in which people have nothing to do but to wait for the EPP."""


@dataclass(slots=True)
class Asking:
    """The questions of one order. touched: something was asked that can change a slot. alone: when the newest
    question was asked, everything before it had ended."""

    order: str
    asked: int = 0
    touched: bool = False
    alone: bool = True
    current: str = ""
    _until: dict[str, float] = field(default_factory=dict)

    @property
    def pending(self) -> bool:
        """Whether something is not answered."""
        return bool(self._until)

    @property
    def waiting(self) -> bool:
        """Whether the newest question is not answered."""
        return self.current in self._until

    def awaits(self, id: str) -> bool:
        """Whether this question is not answered."""
        return id in self._until

    def ask(self, verb: str, arguments: dict[str, str | int], now: float, block: str = "") -> Ask:
        """The next question."""
        self.asked += 1
        self.touched = self.touched or verb in CHANGING
        self.alone, self.current = not self._until, f"{self.order}.{self.asked}"
        self._until[self.current] = now + (ENTRY_PATIENCE if verb == "key_enter" else PATIENCE)
        return Ask(self.current, verb, arguments, block)

    def resume(self, verb: str) -> None:
        """Count a question of an earlier life of the agent; nobody waits for its answer any more."""
        self.asked += 1
        self.touched = self.touched or verb in CHANGING

    def give_up(self) -> None:
        """Wait for no answer any more."""
        self._until.clear()

    def settle(self, id: str) -> bool:
        """An answer has come; whether it was waited for."""
        return self._until.pop(id, None) is not None

    def overdue(self, now: float) -> list[Answer]:
        """An answer in the name of each question that was not answered in time."""
        return [Answer(id, "unanswered") for id, until in self._until.items() if now >= until]


def believed(answer: Answer) -> Answer:
    """An answer without whatever does not belong there: a device, or its driver, may say more than it should."""
    facts = dict(answer.facts)
    kept: dict[str, str | int] = {}
    if facts.get("state") in STATES:
        kept["state"] = facts["state"]
    if type(facts.get("digits")) is int:
        kept["digits"] = facts["digits"]
    if isinstance(facts.get("usage"), str) and is_name(facts["usage"]):
        kept["usage"] = facts["usage"]
    if isinstance(facts.get("kcv"), str) and any(parsed(facts["kcv"], method) for method in ("zero", "cmac")):
        kept["kcv"] = "".join(facts["kcv"].split()).upper()
    raw = answer.raw[:LONGEST_RAW]
    return replace(answer, raw="withheld" if like_a_key(answer.raw) else raw, facts=kept)


def parsed(text: object, method: Method | str) -> Kcv | None:
    """A check value that a device told; None when it is none."""
    try:
        return Kcv.parse(text, "cmac" if method == "cmac" else "zero") if isinstance(text, str) else None
    except CryptoError:
        return None
