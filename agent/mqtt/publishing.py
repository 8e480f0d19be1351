"""This file knows what one connection is given to carry: the terminal's birth, reports and results, the states and
rows that are due, the account of the line, and a farewell; never more at a time than the broker's window.

What is due says agent/mqtt/delivery.py; how it becomes small says agent/mqtt/posting.py.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from agent import messages
from agent.config import Config
from agent.errors import LedgerError, StoreCorrupt, UplinkError
from agent.ledger import link
from agent.mqtt.byteaccount import ByteAccount, spent
from agent.mqtt.delivery import Delivery
from agent.mqtt.outbox import Outbox
from agent.mqtt.posting import FRAME, Post
from agent.mqtt.proof import SMALL, Proof
from agent.store import Reader, Store
from agent.timepiece import wall_ms

ROWS, SIZE = 250, 60_000
"""Most rows and bytes of one message. Beyond it the drain gets no faster, and a message that a thin line breaks off
costs more: bench/RESULTS.md."""

StateOf = Callable[[Reader, str, str], messages.DeviceState]


@dataclass(frozen=True, slots=True)
class _Piece:
    """The message of the rows that follow row `after`, up to `last`. packed: gives its payload and content type."""

    after: int
    last: int
    packed: Callable[[], tuple[bytes, str]]


@dataclass(slots=True)
class Publishing:
    """One connection's messages. `turn` hands over what is due, and is called until the connection ends; then
    `close`. Of a backlog one message is deflated ahead, on a thread of its own, while the one before it is sent.

    session   the id of this connection
    devices   the names whose state is published
    first     (topic below the terminal, payload) of what is retained and comes before all else
    proof     what is awaited before rows count, where the broker cannot refuse them (MQTT 3.1.1)
    proven    when the newest message was sent that the broker has taken, and could have refused
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
    outbox: Outbox
    proof: Proof | None
    proven: float = field(init=False, default=float("-inf"))
    delivery: Delivery = field(init=False)
    _tip: tuple[int, bytes] = field(init=False, default=(-1, b""))
    _ahead: _Piece | None = field(init=False, default=None)
    _deflating: ThreadPoolExecutor = field(init=False)

    def __post_init__(self) -> None:
        uplink = self.config.uplink
        self._deflating = ThreadPoolExecutor(1, "deflating")  # it has a thread once there is something to do
        self.delivery = Delivery(self.store.acked, self.post.window, uplink.catch_up, uplink.linger, uplink.refresh)
        self.delivery.is_barred = self.proof is not None
        self.outbox.begin()

    def turn(self, now: float) -> None:
        """Hand over what is due and fits into the window. Raises UplinkError."""
        wall = wall_ms()
        self.account.add(*self.post.used(), wall, now)
        self.delivery.spare(
            *spent(self.account.saving(wall), self.config.uplink.linger, self.config.uplink.refresh)
        )
        if not (self._first() and self._letters()):
            return
        # After an outage the present state comes first; once caught up, a change is news before it is state.
        steps = (self._rows, self._states, self._traffic)
        done = [step(now) for step in (steps if self.delivery.live else (steps[1], steps[0], steps[2]))]
        if all(done):
            self.delivery.idle(now)
        self.post.hurries = self.delivery.taken - self.delivery.acked > ROWS

    def close(self) -> None:
        """The connection has ended."""
        self._deflating.shutdown(cancel_futures=True)

    def check(self, now: float, patience: float) -> None:
        """Raises UplinkError when the broker leaves something unanswered for `patience` seconds."""
        waiting = self.delivery.taken < self.store.head
        if self.proof and (refusal := self.proof.overdue(now, patience, waiting)):
            raise refusal
        if self.delivery.overdue(now, patience):
            raise UplinkError(f"no PUBACK for {patience:.0f} s")

    def answered(self, mid: int, failures: Sequence[bool]) -> None:
        """The broker has answered a subscription. Raises UplinkRefused when it must not have our rows."""
        if self.proof:
            self.proof.answered(mid, failures)
            self.delivery.is_barred = self.proof.waits

    def puts_off(self, mid: int) -> bool:
        """Whether the broker's acknowledgement of this message does not count yet."""
        return self.proof is not None and self.proof.puts_off(mid)

    def came_back(self, topic: str, payload: bytes) -> int:
        """A message came; returns the id of ours whose acknowledgement counts because of it, or 0."""
        if self.proof is None or not self.proof.came_back(topic, payload):
            return 0
        self.post.unsubscribe(topic)
        self.delivery.is_barred = False
        return self.proof.mid if self.proof.counts_now else 0

    def refused(self, mid: int) -> str:
        """The broker does not take message `mid`; when that is a report or a result, it is given up, and its topic
        returned."""
        if suffix := self.outbox.refused(mid):
            self.delivery.acknowledged(mid)
        return suffix

    def acknowledged(self, mid: int) -> int:
        """The broker has message `mid`; returns where the cursor stands now."""
        self.outbox.taken(mid)
        if self.proof is None or self.proof.is_given:
            self.proven = max(self.proven, self.delivery.sent_at(mid))
        return self.delivery.acknowledged(mid)

    def farewell(self, parting: messages.Parting) -> int:
        """A planned end is said by us; the broker would only say it of a lost connection. Returns the message's id;
        to be called when the window has room."""
        death = messages.Death(online=False, session=self.session, at=wall_ms(), reason=parting)
        return self._publish("session", messages.compact(death), retain=True)

    def _first(self) -> bool:
        while self.first:
            if not self.delivery.room():
                return False
            suffix, payload = self.first.popleft()
            self._publish(suffix, payload, retain=True)
        return True

    def _letters(self) -> bool:
        while letter := self.outbox.next(self.post.largest - FRAME - 256):
            if not self.delivery.room():
                return False
            self.outbox.sent(letter, self._publish(letter.suffix, letter.payload, retain=letter.retain))
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
            is_made = self._ahead and self._ahead.after == delivery.taken
            piece = self._ahead if is_made else self._piece(delivery.taken)
            if piece is None:
                if reader.opened != self.store.opened:
                    return False  # the store has another file by now: the next connection reads that
                anchor = reader.anchor
                first, last = reader.dropped()
                if not first <= delivery.taken + 1 <= anchor <= last:
                    raise StoreCorrupt(f"{reader.path} has no row {delivery.taken + 1}, which is not delivered yet")
                delivery.skip(anchor)  # dropped at the cap (agent/disk/pruning.py): a later row names them
                continue
            # What is not a full message yet waits for the rows that may still come.
            is_more = self.store.head - piece.last >= ROWS
            self._ahead = self._piece(piece.last, ahead=True) if is_more else None
            payload, content_type = piece.packed()
            self._publish("ledger", payload, content_type=content_type, rows=piece.last - piece.after)
        return True

    def _piece(self, after: int, *, ahead: bool = False) -> _Piece | None:
        """The next message of rows; None when the first of them is not there."""
        reader = self.reader
        try:
            before = self._tip[1] if self._tip[0] == after else reader.hash_at(after)
            size = SMALL if self.proof and not self.proof.is_given and not ahead else SIZE
            rows = reader.batch(after, ROWS, min(size, self.post.largest - 2 * FRAME - 256))
        except LedgerError:
            rows = []
        if not rows or rows[0][0] > after + 1:
            return None
        payload = messages.ledger_batch(reader.epoch, before, rows)
        self._tip = rows[-1][0], rows[-1][2]
        pack = partial(self._packed, rows, before, payload)
        return _Piece(after, rows[-1][0], self._deflating.submit(pack).result if ahead else pack)

    def _packed(self, rows: list[tuple[int, bytes, bytes]], before: bytes, payload: bytes) -> tuple[bytes, str]:
        """The payload of rows, packed. Raises StoreCorrupt when one of them does not fit its hash: what is rotten
        must not count as delivered."""
        digest = before
        for _, row, _ in rows:
            digest = link(digest, row)
        if digest != rows[-1][2]:
            first, last = rows[0][0], rows[-1][0]
            raise StoreCorrupt(f"{self.reader.path} is damaged: a row from {first} to {last} does not fit its hash")
        return self.post.packed(payload)

    def _traffic(self, now: float) -> bool:
        """Publish the account of the last day that is over, once; True when there is nothing to tell."""
        wall = wall_ms()
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

    def _publish(
        self, suffix: str, payload: bytes, *, retain: bool = False, content_type: str = "", rows: int = 0
    ) -> int:
        topic = messages.topic(self.config.terminal.org, self.config.terminal.id, suffix)
        mid = self.post.post(topic, payload, retain, content_type)
        self.delivery.sent(mid, time.monotonic(), rows)
        if rows and self.proof:
            self.proof.sent(mid, payload)
            self.delivery.is_barred = self.proof.waits
        return mid
