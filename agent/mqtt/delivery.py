"""This file knows what to publish next: the present state of changed devices first, then the ledger in order, both
within a small window of unacknowledged messages, and where the cursor stands after each acknowledgement.

Pure: the uplink (agent/uplink.py) reads the store and talks to the broker; time is a parameter.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

AGAIN = 10.0
"""Seconds after which a device with urgent changes is told again, however long rows linger."""


@dataclass(slots=True)
class _Flight:
    """A message that waits for its PUBACK. `first`: its first ledger row, 0 when it carries none."""

    first: int
    sent: float


@dataclass(slots=True)
class Delivery:
    """The state of one connection: made anew for each, from the cursor in the store.

    acked     every row up to this one is acknowledged
    window    most messages in flight: a reconnected client would repeat all that it had handed over
    pace      rows a second while catching up, 0 for as fast as acknowledgements come
    linger    seconds that what is not urgent waits for company
    live      whether all that waited for this connection has been sent
    refresh   seconds after which an unchanged state is published again, with newer times
    calm      seconds that a state waits whose changes are not urgent, at least `linger`: its rows tell them
    is_barred whether no rows may be sent, until the broker has answered something (agent/mqtt/proof.py)
    """

    acked: int
    window: int = 16
    pace: int = 0
    linger: float = 1.0
    refresh: float = 60.0
    calm: float = 0.0
    is_barred: bool = field(init=False, default=False)
    taken: int = field(init=False)
    live: bool = field(init=False, default=False)
    _due: float = field(init=False, default=float("-inf"))
    _states_due: float = field(init=False, default=float("-inf"))
    _next_batch: float = field(init=False, default=float("-inf"))
    _held: float = field(init=False, default=float("inf"))
    _waiting: set[str] = field(init=False, default_factory=set)
    _flights: dict[int, _Flight] = field(init=False, default_factory=dict)
    _published: dict[str, tuple[int, float]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.taken = self.acked

    def news(self, urgent: bool, now: float, afresh: bool = False) -> None:
        """Something was committed. afresh: every state is wanted again, changed or not."""
        if afresh:
            self._published.clear()
        self._due = min(self._due, now if urgent else now + self.linger)
        self._states_due = min(self._states_due, now if urgent else now + max(self.linger, self.calm))

    def room(self) -> bool:
        """Whether one more message may be in flight."""
        return len(self._flights) < self.window

    def stale_states(self, revisions: Iterable[tuple[str, int]], now: float) -> list[str]:
        """The devices whose state is to be published now, of (device, revision of its state) for each.

        A device that was published a moment ago waits until `linger` has passed, but no longer than AGAIN: its rows
        have told the change, and a state is the larger message.
        """
        wanted, again = [], min(self.linger, AGAIN)
        self._held = float("inf")
        for device, revision in revisions:
            was, at = self._published.get(device, (-1, float("-inf")))
            if revision != was and (now >= self._states_due or device in self._waiting):
                if now - at >= again:
                    wanted.append(device)
                else:
                    self._waiting.add(device)
                    self._held = min(self._held, at + again)
            elif now - at >= self.refresh:
                wanted.append(device)
        return wanted

    def published(self, device: str, revision: int, now: float) -> None:
        """The state of a device, of that revision, was handed to the broker's connection."""
        self._published[device] = (revision, now)
        self._waiting.discard(device)

    def rows_due(self, now: float) -> bool:
        """Whether ledger rows may be sent now."""
        return self.room() and not self.is_barred and now >= self._due and now >= self._next_batch

    def sent(self, mid: int, now: float, rows: int = 0) -> None:
        """Message `mid` is in flight; it carries the next `rows` ledger rows."""
        self._flights[mid] = _Flight(self.taken + 1 if rows else 0, now)
        self.taken += rows
        if rows and self.pace:
            self._next_batch = max(self._next_batch, now - 1) + rows / self.pace

    def skip(self, seq: int) -> None:
        """Rows up to `seq` are not there any more: the store had no room for them."""
        self.taken = max(self.taken, seq)

    def idle(self, now: float) -> None:
        """All that was due by `now` has been sent: what lingers, or the next news, decides when to look again."""
        self.live = True
        if now >= self._due:
            self._due = float("inf")
        self.told(now)

    def told(self, now: float) -> None:
        """Every state that was due by `now` has been sent; rows may still wait."""
        if now >= self._states_due:
            self._states_due = float("inf")

    def acknowledged(self, mid: int) -> int:
        """The broker has message `mid`; returns where the cursor stands now.

        The cursor moves over rows whose message, and every message before it, is acknowledged.
        """
        self._flights.pop(mid, None)
        first = min((flight.first for flight in self._flights.values() if flight.first), default=self.taken + 1)
        self.acked = first - 1
        return self.acked

    def hold(self, until: float) -> None:
        """Nobody has the rows that are in flight: take them back, and send none before `until`.

        An acknowledgement that still comes for one of them is of no use; receivers drop the repeat.
        """
        self._flights = {mid: flight for mid, flight in self._flights.items() if not flight.first}
        self.taken = self.acked
        self._due = self._next_batch = until

    def spare(self, linger: float, refresh: float, calm: float) -> None:
        """From now on, rows wait so long for company, and states are told so seldom (seconds)."""
        self.linger, self.refresh, self.calm = linger, refresh, calm

    def sent_at(self, mid: int) -> float:
        """When message `mid`, which is still in flight, was sent; the distant past when it is not."""
        return self._flights[mid].sent if mid in self._flights else float("-inf")

    def awaits(self, mid: int) -> bool:
        """Whether message `mid` has no PUBACK yet."""
        return mid in self._flights

    def quiet(self) -> bool:
        """Whether nothing is under way: no backlog, and nothing in flight."""
        return self.live and not self._flights

    def carries_rows(self, mid: int) -> bool:
        """Whether message `mid`, still in flight, carries ledger rows."""
        return mid in self._flights and self._flights[mid].first > 0

    def overdue(self, now: float, patience: float) -> bool:
        """Whether a message has waited longer than `patience` seconds for its PUBACK."""
        return any(now - flight.sent > patience for flight in self._flights.values())

    def deadline(self) -> float:
        """When to look again, if nothing happens until then."""
        if not self.room():
            return float("inf")
        refresh = min((at + self.refresh for _, at in self._published.values()), default=float("inf"))
        rows = float("inf") if self.is_barred else max(self._due, self._next_batch)
        return min(rows, self._states_due, self._held, refresh)
