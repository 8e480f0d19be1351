"""This file knows how a terminal makes sure that the broker takes its rows where MQTT cannot say no.

With 3.1.1 a broker acknowledges a message that its access list denies, and drops it (seen with Mosquitto and NATS):
the rows would count as delivered. So the terminal listens to its own `ledger` until its first batch of a connection
has come back to it; only then does an acknowledgement count. The batch is a small one, as it costs the line twice.
QoS 0 will do for the echo, and costs a broker nothing: NATS makes a stored consumer of each QoS 1 subscription.

Pure: the uplink (agent/uplink.py) talks to the broker; time is a parameter, in monotonic seconds.
"""

from collections.abc import Sequence

from agent.errors import UplinkRefused

SMALL = 2_000
"""Bytes of the first batch, about."""


class Proof:
    """Of one connection, begun at `now`: `asked` is the id of the subscription to `topic`.

    is_given   whether the first batch came back
    mid        the message id of that batch; 0 before it is sent
    """

    def __init__(self, topic: str, asked: int, now: float) -> None:
        self.topic = topic
        self.is_given = False
        self.mid = 0
        self._asked, self._since, self._listens = asked, now, False
        self._payload = b""
        self._acknowledged = False

    @property
    def waits(self) -> bool:
        """Whether no rows may be sent now."""
        return not self.is_given and (not self._listens or self.mid > 0)

    def answered(self, asked: int, failures: Sequence[bool]) -> None:
        """The broker has answered a subscription. Raises UplinkRefused when it was ours, and refused."""
        if asked == self._asked:
            if not failures or any(failures):
                raise self.refusal("does not let this terminal listen")
            self._listens = True

    def sent(self, mid: int, payload: bytes) -> None:
        """Rows are on their way; the first that are become the proof."""
        if not self.is_given and not self.mid:
            self.mid, self._payload = mid, payload

    def puts_off(self, mid: int) -> bool:
        """An acknowledgement came; whether it does not count yet."""
        if self.is_given or mid != self.mid:
            return False
        self._acknowledged = True
        return True

    def came_back(self, topic: str, payload: bytes) -> bool:
        """A message came; whether it is what we wait for."""
        if self.is_given or topic != self.topic or not self.mid or payload != self._payload:
            return False
        self.is_given, self._payload = True, b""
        return True

    @property
    def is_missed(self) -> bool:
        """Whether the first batch is acknowledged, and has not come back."""
        return self._acknowledged and not self.is_given

    @property
    def counts_now(self) -> bool:
        """Whether the acknowledgement that was put off counts at last."""
        return self.is_given and self._acknowledged

    def overdue(self, now: float, patience: float, has_rows: bool) -> UplinkRefused | None:
        """Why the broker is given up: it has not answered the subscription for `patience` seconds although there
        are rows to send."""
        if self._listens or not has_rows or now - self._since <= patience:
            return None
        return self.refusal("does not answer when this terminal wants to listen")

    def refusal(self, what: str = "acknowledges rows and does not pass them on") -> UplinkRefused:
        """The broker must not have the rows."""
        return UplinkRefused(
            f"the broker {what} to {self.topic}",
            "correct the broker's access list: with MQTT 3.1.1 a terminal must be able to write and to read there",
        )
