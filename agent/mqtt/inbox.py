"""This file knows what a terminal listens to at the broker, and when it hears nothing.

A broker that does not let it listen hinders pushes only: rows and states go on, and a person is told. Mosquitto 2
grants every subscription and then hands on nothing that its access list denies: there nobody can tell.
"""

import logging
from collections.abc import Callable, Sequence

from agent import messages
from agent.mqtt.refusals import Refusal, of_code

_READS = f"correct the broker's access list: this terminal reads {', '.join(messages.HEARD)} below its own topic"

UNASKED = "the broker has not answered yet what it lets be heard: see its log"

log = logging.getLogger(__name__)


class Inbox:
    """The topics of one terminal.

    hear   called with (kind, payload) for each message, kind being one of messages.HEARD, on the uplink's thread:
           it returns at once. What is retained comes again at each connection
    deaf   why nothing, or not everything, is heard now, as a sentence; empty when all is, as far as the broker says
    """

    def __init__(self, org: str, terminal: str, hear: Callable[[str, bytes], None]) -> None:
        self._kinds = {messages.topic(org, terminal, kind): kind for kind in messages.HEARD}
        self.deaf = UNASKED
        self._hear = hear
        self._asked = 0
        self._since = float("inf")

    @property
    def topics(self) -> Sequence[str]:
        """What to subscribe to."""
        return tuple(self._kinds)

    def asked(self, mid: int, now: float) -> None:
        """A new connection has sent the subscription with this id."""
        self._asked, self._since, self.deaf = mid, now, UNASKED

    def answered(self, mid: int, codes: Sequence[int]) -> Refusal | None:
        """The broker has answered a subscription; why it does not let us listen, if it was ours and it does not."""
        if mid != self._asked:
            return None
        self._since = float("inf")
        refused = [(kind, code) for kind, code in zip(self._kinds.values(), codes, strict=False) if code >= 0x80]
        if not refused:
            self.deaf = ""
            return None
        found = of_code(refused[0][1])
        why = found.cause if found else f"reason {refused[0][1]:#x}"
        kinds = ", ".join(kind for kind, _ in refused)
        return self._hindered(f"the broker does not let it hear {kinds} ({why})", _READS)

    def late(self, now: float, patience: float) -> Refusal | None:
        """Said once: why nothing is heard, when the broker has not answered within `patience` seconds."""
        if now - self._since <= patience:
            return None
        self._since = float("inf")
        cause = "the broker does not answer when it wants to hear pushes"
        return self._hindered(cause, "see the broker's log for why")

    def _hindered(self, cause: str, next_step: str) -> Refusal:
        self.deaf = f"{cause}: {next_step}"
        return Refusal(cause, next_step)

    def take(self, topic: str, payload: bytes) -> None:
        """A message came. Nothing that it may contain ends the connection."""
        if kind := self._kinds.get(topic):
            try:
                self._hear(kind, payload)
            except Exception:  # it is retained, perhaps, and would end the next connection, too
                log.exception("uplink: %s of %d bytes could not be taken in", kind, len(payload))
