"""This file knows what one connection is given to carry: the terminal's birth, the states and rows that are due,
the account of the line, and a farewell; never more at a time than the broker's window.

What is due says agent/delivery.py; how it becomes small says agent/posting.py.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from agent import messages
from agent.byteaccount import ByteAccount, spent
from agent.config import Config
from agent.delivery import Delivery
from agent.errors import LedgerError, StoreCorrupt
from agent.posting import FRAME, Post
from agent.store import Reader, Store

ROWS, SIZE = 250, 60_000
"""Most rows and bytes of one message. Beyond it the drain gets no faster, and a message that a thin line breaks off
costs more: bench/RESULTS.md."""

StateOf = Callable[[Reader, str, str], messages.DeviceState]


@dataclass(slots=True)
class Publishing:
    """One connection's messages. `turn` hands over what is due, and is called until the connection ends.

    session   the id of this connection
    first     (topic below the terminal, payload) of what is retained and comes before all else
    devices   the names whose state is published
    """

    config: Config
    store: Store
    reader: Reader
    post: Post
    session: str
    account: ByteAccount
    state_of: StateOf
    devices: Iterable[str]
    first: deque[tuple[str, bytes]]
    delivery: Delivery = field(init=False)
    _tip: tuple[int, bytes] = field(init=False, default=(-1, b""))

    def __post_init__(self) -> None:
        uplink = self.config.uplink
        self.delivery = Delivery(self.store.acked, self.post.window, uplink.catch_up, uplink.linger, uplink.refresh)

    def turn(self, now: float) -> None:
        """Hand over what is due and fits into the window. Raises UplinkError."""
        wall = _wall()
        self.account.add(*self.post.used(), wall, now)
        self.delivery.spare(
            *spent(self.account.saving(wall), self.config.uplink.linger, self.config.uplink.refresh)
        )
        if not self._first():
            return
        # After an outage the present state comes first; once caught up, a change is news before it is state.
        steps = (self._rows, self._states, self._traffic)
        done = [step(now) for step in (steps if self.delivery.live else (steps[1], steps[0], steps[2]))]
        if all(done):
            self.delivery.idle(now)

    def farewell(self) -> int:
        """A planned stop is said by us; the broker would only say it of a lost connection. Returns the message's
        id; to be called when the window has room."""
        death = messages.Death(online=False, session=self.session, at=_wall(), reason="stopped")
        return self._publish("session", messages.compact(death), retain=True)

    def _first(self) -> bool:
        while self.first:
            if not self.delivery.room():
                return False
            suffix, payload = self.first.popleft()
            self._publish(suffix, payload, retain=True)
        return True

    def _states(self, now: float) -> bool:
        """Publish the states that are due; True when none is left."""
        revisions = {device: self.store.revision(device) for device in self.devices}
        for device in self.delivery.stale_states(revisions.items(), now):
            if not self.delivery.room():
                return False
            state = self.state_of(self.reader, device, self.session)
            self._publish(f"state/{device}", messages.compact(state), retain=True)
            self.delivery.published(device, revisions[device], now)
        self.delivery.told(now)
        return True

    def _rows(self, now: float) -> bool:
        """Publish the rows that are due; True when none is left."""
        delivery, reader = self.delivery, self.reader
        while delivery.taken < self.store.head:
            if not delivery.rows_due(now):
                return False
            try:
                before = self._tip[1] if self._tip[0] == delivery.taken else reader.hash_at(delivery.taken)
                rows = reader.batch(delivery.taken, ROWS, min(SIZE, self.post.largest - 2 * FRAME - 256))
            except LedgerError:
                rows = []
            if not rows or rows[0][0] > delivery.taken + 1:
                if reader.anchor <= delivery.taken:
                    raise StoreCorrupt(f"{reader.path} has no row {delivery.taken + 1}, which is not delivered yet")
                delivery.skip(reader.anchor)  # dropped at the cap (agent/pruning.py): a later row names them
                continue
            payload = messages.ledger_batch(reader.epoch, before, rows)
            self._tip = rows[-1][0], rows[-1][2]
            self._publish("ledger", payload, rows=len(rows))
        return True

    def _traffic(self, now: float) -> bool:
        """Publish the account of the last day that is over, once; True when there is nothing to tell."""
        wall = _wall()
        if not (day := self.account.untold(wall)):
            return True
        if not self.delivery.room():
            return False
        of_day, of_month = self.account.of_day(day), self.account.of_month(day)
        told = messages.Traffic(
            at=wall,
            day=day,
            day_up=of_day[0],
            day_down=of_day[1],
            up=of_month[0],
            down=of_month[1],
            budget=self.account.budget,
            saving=self.account.saving(wall),
        )
        self._publish("traffic", messages.compact(told), retain=True)
        self.account.told = day
        self.account.keep()
        return True

    def _publish(self, suffix: str, payload: bytes, *, retain: bool = False, rows: int = 0) -> int:
        topic = messages.topic(self.config.terminal.org, self.config.terminal.id, suffix)
        mid = self.post.post(topic, payload, retain, may_deflate=rows > 0)
        self.delivery.sent(mid, time.monotonic(), rows)
        return mid


def _wall() -> int:
    return time.time_ns() // 1_000_000
