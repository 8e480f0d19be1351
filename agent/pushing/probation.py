"""This file knows the steps of a push, and when a terminal that took another configuration may keep it.

`TRANSITIONS` is the whole of the steps; `picture` draws it for docs/operations.md, and agent/pushing/shelf.py goes
nowhere else. Each step is on disk before it is taken, so whoever starts after a crash or a power cut knows how far
it came:

    staged        nothing was changed yet: it is dropped, and judged again when the centre sends it again
    applying, probation, rolling_back      the configuration before is the last good one, and counts
    committing    it is decided: the new configuration counts

While a push is on probation every device that answered before it must answer again, and every new one must answer.
A device that was silent before is not waited for, also when its settings changed: the terminal is not worse than it
was. And the broker must have acknowledged something over the new configuration, and over a new uplink it must have
granted that pushes are heard: else nobody can mend it from afar.
"""

from collections.abc import Iterable, Mapping

TRANSITIONS: Mapping[str, Mapping[str, str]] = {
    "idle": {
        "staged": "a push is verified and on disk",
        "rolling_back": "a technician takes the last push back",
    },
    "staged": {
        "applying": "its difference is in the ledger",
        "idle": "it is dropped, also at a start",
    },
    "applying": {
        "probation": "the changed links are swapped",
        "rolling_back": "it cannot be applied, or a start",
    },
    "probation": {
        "committing": "all that is awaited answered in time",
        "rolling_back": "the time is up, a technician, or a start",
    },
    "committing": {"idle": "the files have their new names, also at a start"},
    "rolling_back": {"idle": "the links are as before and the push is kept as evidence, also at a start"},
}
"""Step -> the steps that may follow it -> when."""
STATES = tuple(TRANSITIONS)
NAMED = 5
"""Silent devices that a sentence names; of the others it tells how many."""


def picture() -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", "    [*] --> idle"]
    lines += [f"    {state} --> {to}: {when}" for state, arcs in TRANSITIONS.items() for to, when in arcs.items()]
    return "\n".join(lines) + "\n"


def awaited(configured: Iterable[str], added: Iterable[str], answering: Iterable[str]) -> frozenset[str]:
    """The devices that must be heard. configured: all of the new configuration; added: those of them that the old
    one had not; answering: those whose link was up just before the push."""
    return frozenset(configured) & (frozenset(added) | frozenset(answering))


class Probation:
    """One probation: it begins when the links were swapped, and ends at `deadline` (monotonic seconds) or before.

    `reason` is empty, or one word for why it failed: silent (devices), unreachable (no broker acknowledged), deaf
    (the broker lets no push be heard). `is_acked`: whether one did. `hindrance`: what keeps pushes from being
    heard, as a sentence; empty when nothing does, or nobody has to know.
    """

    def __init__(self, awaited: Iterable[str], deadline: float, hindrance: str = "") -> None:
        self.deadline, self.hindrance = deadline, hindrance
        self.reason = ""
        self._silent = set(awaited)
        self.is_acked = False
        self._verdict = ""

    @property
    def silent(self) -> tuple[str, ...]:
        """The devices that are still awaited, by name."""
        return tuple(sorted(self._silent))

    def awaits(self, device: str) -> bool:
        """Whether this one is still awaited. For any thread."""
        return device in self._silent

    def heard(self, device: str, now: float) -> None:
        """A device answered (its link.state is up), over the new configuration."""
        if now < self.deadline:
            self._silent.discard(device)

    def acked(self, now: float) -> None:
        """A PUBACK came over the new configuration."""
        self.is_acked = self.is_acked or now < self.deadline

    def listens(self, hindrance: str, now: float) -> None:
        """Whether pushes are heard over the new uplink, or why not."""
        if now < self.deadline:
            self.hindrance = hindrance

    def due(self, now: float) -> str:
        """Empty while nothing is decided; "commit"; or a sentence that says why to roll back. What was decided once
        stays decided."""
        if not self._verdict and self.is_acked and not self._silent and not self.hindrance:
            self._verdict = "commit"
        elif not self._verdict and now >= self.deadline:
            self.reason = "silent" if self._silent else "deaf" if self.is_acked else "unreachable"
            self._verdict = self._why()
        return self._verdict

    def _why(self) -> str:
        parts = []
        if self._silent:
            named = ", ".join(self.silent[:NAMED])
            more = f" and {len(self._silent) - NAMED} more" if len(self._silent) > NAMED else ""
            parts.append(f"{named}{more} did not answer: check the port and kind in the push")
        if not self.is_acked:
            parts.append(
                "no broker acknowledged anything: check the broker's address, certificates and rights in the push"
            )
        elif self.hindrance:
            parts.append(f"no push could be heard over it, {self.hindrance}")
        return "; ".join(parts)
