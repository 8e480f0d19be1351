"""This file knows how batches become durable, however long that takes, and what is kept and said meanwhile.

    the disk is nearly full     rows are stored; `trouble` and a row `disk` say so
    it is full                  the same, with the reserve given up and delivered rows pruned (agent/store.py)
    nothing can be stored       batches wait in memory, in pieces of about PIECE rows, and the first piece is tried
                                again each RETRY seconds; what is too much at once is halved. Points and faults are
                                told from there: they are true, and no old value passes for a new one. Rows are
                                delivered, and operations performed, only once they are stored
    MANY rows wait              nothing more is taken off the queue; values become unknown by their age
    the queue is full           readings are dropped, and counted
    the file was deleted or     it is written again from what is still open
    exchanged
    it is damaged               it is set aside, and the first row of a new chain names the old one; after OFTEN
                                within an hour the next one waits, as if nothing could be stored
    a row cannot be spelled     it is dropped, and counted; all else is stored

A terminal at rest meets all of this as a busy one does: `flush` fails as a commit does.

What was mended is a row `disk`, which tells how long nothing was stored, why, and how much was dropped.
"""

import logging
import time
from collections.abc import Callable

from agent.disk.sifting import sift
from agent.errors import StoreCorrupt, StoreError, StoreFull
from agent.model import Batch, Fault, Note
from agent.store import Store

RETRY = 1.0
MANY = 20_000
PIECE = 1000
"""Rows of a piece of what waits: so many batches go into one."""
OFTEN, WITHIN = 3, 3600.0
"""So many stores are set aside within so many seconds: a disk that damages all would soon leave no evidence."""

log = logging.getLogger(__name__)


class Committing:
    """For the core's thread alone; `dropped` and `trouble` are for any.

    step   what a note becomes now, as the core says it
    put    puts a note on the core's queue
    renew  called when a new chain has begun and has its first rows: all else is to be read afresh
    clock  tells monotonic seconds
    """

    def __init__(
        self,
        store: Store,
        step: Callable[[Note], Batch],
        put: Callable[[Note], None],
        renew: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._step, self._put, self._renew, self._clock = store, step, put, renew, clock
        self._waiting: list[Batch] = []
        self._ahead = Batch()
        self._why: StoreError | None = None
        self._since = self._again = 0.0
        self._failed = self._warned = self._damage = ""
        self._is_full = self._is_new = False
        self._begun: list[float] = []
        self._sifted = False
        self.dropped = 0
        """Items that could not be taken up; whoever drops one counts it here."""
        self.unspelled: set[str] = set()
        """Ids of operations whose row could not be spelled."""

    @property
    def trouble(self) -> str:
        """What is wrong with the disk, as a sentence; empty when nothing is."""
        return self._failed or self._store.warning

    @property
    def waits(self) -> bool:
        """Whether something is not stored yet."""
        return bool(self._waiting) or self._is_new or self._why is not None

    @property
    def is_full(self) -> bool:
        """Whether so much waits that no more may be taken up."""
        return sum(len(piece.rows) for piece in self._waiting) >= MANY

    def take(self, batch: Batch, *, now: bool = False) -> bool:
        """Store a batch, after what waits; True when all is stored. now: try even if the last try was just now."""
        self._enqueue(batch)
        before = len(self._waiting)
        if self.waits and (now or self._clock() >= self._again):
            is_news = self._why is None
            if not self._stored() and is_news and not self._is_full:
                self._stored()  # now with what mends: a file that was deleted is written again at once
        if self._waiting and (batch or len(self._waiting) != before):
            self._store.hold(self._ahead, batch)
        self._warn()
        return not self.waits

    def flush(self) -> None:
        """Write the cursor of delivery, and look at the disk and at the file."""
        if self.waits:
            return
        try:
            self._store.flush()
        except StoreCorrupt as error:
            log.error("%s", error)
            self._damage = str(error)
        except StoreError as error:
            self._wait(error)
        if self._damage or (self._why and not self._is_full):
            self._stored()
        self._warn()

    def _enqueue(self, batch: Batch) -> None:
        """Put a batch behind what waits, without what could never be stored."""
        lost = sift(batch)
        for what, ident, why in lost:
            self.dropped += 1
            self.unspelled |= {ident} if ident else set()
            if not self._sifted:
                log.error("%s cannot be stored, it is dropped: %s", what, why)
        self._sifted |= bool(lost)
        if not batch:
            return
        if not self._waiting:
            self._ahead = Batch()
        if not self._waiting or len(self._waiting[-1].rows) + len(batch.rows) > PIECE:
            self._waiting.append(Batch())
        add(self._waiting[-1], batch)
        add(self._ahead, Batch(points=batch.points, raised=batch.raised, cleared=batch.cleared))

    def _stored(self) -> bool:
        """Try once."""
        try:
            self._store_it()
        except StoreError as error:
            self._wait(error)
            return False
        return True

    def _store_it(self) -> None:
        is_first, is_second = True, False
        while is_first or self._waiting or self._damage:
            try:
                if is_first and self._why and not self._is_full and not self._damage:
                    there = self._store.mend()
                    for piece in self._waiting[:1]:
                        del piece.rows[:there]
                is_first = False
                if self._damage:
                    self._begin_anew()
                self._commit()
            except StoreFull:
                if not self._halve():
                    raise
            except StoreCorrupt as error:
                if is_second:
                    raise
                log.error("%s", error)
                self._damage, is_second = str(error), True
        if self._is_new:
            self._renew()
            self._is_new = False
        if self._why:
            seconds = round(self._clock() - self._since)
            self._put(Note("disk", {"event": "stored again", "why": str(self._why), **self._cost(seconds)}))
            log.info("rows are stored again, after %d s", seconds)
            self._why, self._failed, self._again = None, "", 0.0

    def _commit(self) -> None:
        """Whatever ends this in another way than the disk must not have its batch come again."""
        piece = self._waiting.pop(0) if self._waiting else Batch()
        try:
            self._store.commit(piece, is_last=not self._waiting)
        except StoreError:
            self._waiting[:0] = [piece] if piece else []
            raise

    def _halve(self) -> bool:
        """There was no room for the first piece: make two of it. What its rows leave behind goes with the last of
        them, so that a power cut between the two repeats changes, and hides none. False when it is one row."""
        for piece in self._waiting[:1]:
            if (half := len(piece.rows) // 2) > 0:
                self._waiting.insert(0, Batch(rows=piece.rows[:half], urgent=piece.urgent))
                del piece.rows[:half]
                return True
        return False

    def _cost(self, seconds: int) -> dict[str, int]:
        dropped, self.dropped = self.dropped, 0
        return {"seconds": seconds, "dropped": dropped}

    def _wait(self, error: StoreError) -> None:
        now = self._clock()
        self._again = now + RETRY
        if self._why is None:
            log.error("%s", error)
            self._since = now
            self._failed = f"since {time.strftime('%Y-%m-%d %H:%M:%S')} nothing can be stored: {error}"
            self._why = error
        self._is_full = isinstance(error, StoreFull)

    def _begin_anew(self) -> None:
        """Go on with a new store. Its first rows name the old chain: were others before them, a power cut could
        part the two."""
        now = self._clock()
        self._begun = [at for at in self._begun if now - at < WITHIN]
        if len(self._begun) >= OFTEN:
            raise StoreError(f"{self._damage}; {OFTEN} stores were set aside within an hour: exchange the disk")
        self._store.set_aside(self._damage)
        self._begun.append(now)
        self._damage, self._is_new = "", True
        facts = {"event": self._store.found, "previous": self._store.previous, **self._store.fate()}
        self._waiting.insert(0, self._step(Note("store", facts)))

    def _warn(self) -> None:
        if self._store.warning != self._warned:
            self._warned = self._store.warning
            log.warning("%s", self._warned or "there is room on the disk again")
            self._put(Note("disk", {"event": self._warned or "there is room again"}))


def add(batch: Batch, more: Batch) -> None:
    """Make one batch of two, as if the second were committed after the first."""
    batch.rows += more.rows
    points = {(p.device, p.point): p for p in (*batch.points, *more.points)}
    batch.points[:] = points.values()
    newer = {_key(fault) for fault in (*more.raised, *more.cleared)}
    for faults, added in ((batch.raised, more.raised), (batch.cleared, more.cleared)):
        faults[:] = [fault for fault in faults if _key(fault) not in newer] + added
    batch.urgent |= more.urgent


def _key(fault: Fault) -> tuple[str, str, str]:
    return fault.device, fault.point, fault.code
