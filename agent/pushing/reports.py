"""This file knows what the centre is told of pushes (`config/reported`): what became of the newest, what is in
force, who may sign, and until when a technician holds pushes back."""

from collections.abc import Callable
from typing import Literal, cast

from agent import messages
from agent.clock import Quality
from agent.crypto.signing import Accepted, Envelope
from agent.errors import EnvelopeRefused, PushRefused
from agent.pushes import Push, read
from agent.pushing.remembered import Decision, Freeze

Outcome = Literal["none", "committed", "rolled_back", "refused", "waiting", "applying"]


class Reports:
    """`now`: the last report. freeze, trust, digest, in_force: what holds when a report is made."""

    def __init__(
        self,
        groups: tuple[str, ...],
        clock: Callable[[], tuple[int, Quality]],
        freeze: Callable[[int], Freeze | None],
        trust: Callable[[], int],
        digest: Callable[[], str],
        in_force: Callable[[], int],
        tell: Callable[[str, bytes, bool], None],
    ) -> None:
        self._clock, self._freeze, self._trust, self._tell = clock, freeze, trust, tell
        self._digest, self._in_force = digest, in_force
        self.now = messages.Reported(at=0, outcome="none", config="", groups=groups)

    def tell(
        self,
        outcome: Outcome,
        push: Push | None = None,
        reason: str = "",
        detail: str = "",
        *,
        digest: str = "",
        version: int = 0,
    ) -> None:
        """Tell what became of a push; digest, version: of one whose envelope is not at hand."""
        self.now = self.now.model_copy(
            update={
                "outcome": outcome,
                "version": push.version if push else version,
                "id": push.id if push else "",
                "digest": push.digest if push else digest,
                "reason": reason,
                "detail": detail,
            }
        )
        self.again()

    def rotation(self, reason: str = "", detail: str = "", digest: str = "") -> None:
        """Tell why a rotation does not count, or not yet; without anything: there is none that does not."""
        update = {"trust_reason": reason, "trust_detail": detail, "trust_digest": digest}
        self.now = self.now.model_copy(update=update)
        self.again()

    def decided(self, decision: Decision, push: Push) -> None:
        """Tell what became of a push some time ago."""
        self.tell(cast(Outcome, decision.outcome), push, decision.reason, decision.detail)

    def again(self) -> None:
        """The same of that push, and what holds now."""
        wall, _ = self._clock()
        freeze = self._freeze(wall)
        update = {
            "at": wall,
            "config": self._digest(),
            "in_force": self._in_force(),
            "frozen_until": freeze.until if freeze else 0,
            "trust": self._trust(),
        }
        self.now = self.now.model_copy(update=update)
        self._tell("config/reported", messages.compact(self.now), True)


def digest_of(envelope: bytes) -> str:
    """What was signed, as its digest, whoever signed it; empty when it is no envelope."""
    try:
        found = Envelope.read(envelope)
    except EnvelopeRefused:
        return ""
    return Accepted(found.kind, found.unverified, ()).digest


def content_of(envelope: bytes) -> Push | None:
    """What an envelope says, whoever signed it; None when that cannot be read."""
    try:
        found = Envelope.read(envelope)
        return read(Accepted(found.kind, found.unverified, ()))
    except (EnvelopeRefused, PushRefused):
        return None
