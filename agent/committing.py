"""This file knows how batches become durable, however long that takes, and what is kept and said meanwhile.

    the disk is nearly full     rows are stored; `trouble` and a row `disk` say so
    it is full                  the same, with the reserve given up and delivered rows pruned (agent/store.py)
    nothing can be stored       batches wait in memory, as one, and are tried again each RETRY seconds. Points and
                                faults are told from there: they are true, and no old value passes for a new one.
                                Rows are delivered, and operations performed, only once they are stored
    MANY rows wait              nothing more is taken off the queue; values become unknown by their age
    the queue is full           readings are dropped, and counted
    the file was deleted or     it is written again from what is still open
    exchanged
    it is damaged               it is set aside, and the first row of a new chain names the old one

What was mended is a row `disk`, which tells how long nothing was stored, why, and how much was dropped.
"""

import logging
import time
from collections.abc import Callable

from agent.errors import StoreCorrupt, StoreError, StoreFull
from agent.model import Batch, Fault, Note
from agent.store import Store

RETRY = 1.0
MANY = 20_000

log = logging.getLogger(__name__)


class Committing:
    """For the core's thread alone; `dropped` and `trouble` are for any.

    step   what a note becomes now, as the core says it
    put    puts a note on the core's queue
    renew  called when a new chain has begun and has its first rows: all else is to be read afresh
    """

    def __init__(
        self,
        store: Store,
        step: Callable[[Note], Batch],
        put: Callable[[Note], None],
        renew: Callable[[], None],
    ) -> None:
        self._store, self._step, self._put, self._renew = store, step, put, renew
        self._waiting = Batch()
        self._why: StoreError | None = None
        self._since = self._again = 0.0
        self._failed = self._warned = self._damage = ""
        self._is_full = self._is_new = False
        self.dropped = 0
        """Items that could not be taken up; whoever drops one counts it here."""

    @property
    def trouble(self) -> str:
        """What is wrong with the disk, as a sentence; empty when nothing is."""
        return self._failed or self._store.warning

    @property
    def waits(self) -> bool:
        """Whether something is not stored yet."""
        return bool(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether so much waits that no more may be taken up."""
        return len(self._waiting.rows) >= MANY

    def take(self, batch: Batch, *, now: bool = False) -> bool:
        """Store a batch, after what waits; True when all is stored. now: try even if the last try was just now."""
        add(self._waiting, batch)
        if self._waiting and (now or time.monotonic() >= self._again):
            is_news = self._why is None
            if not self._stored() and is_news and not self._is_full:
                self._stored()  # now with what mends: a file that was deleted is written again at once
        if self._waiting and batch:
            self._store.hold(self._waiting, batch)
        self._warn()
        return not self._waiting

    def flush(self) -> None:
        """Write the cursor of delivery, and look at the disk."""
        if not self._waiting:
            try:
                self._store.flush()
            except StoreError as error:
                log.error("%s", error)
            self._warn()

    def _stored(self) -> bool:
        """Try once."""
        try:
            self._store_it()
        except StoreError as error:
            self._wait(error)
            return False
        return True

    def _store_it(self) -> None:
        is_second = False
        while self._waiting:
            try:
                if self._why and not self._is_full and not self._damage:
                    del self._waiting.rows[: self._store.mend()]
                if self._damage:
                    self._begin_anew()
                self._commit()
            except StoreCorrupt as error:
                if is_second:
                    raise
                log.error("%s", error)
                self._damage, is_second = str(error), True
        if self._is_new:
            self._is_new = False
            self._renew()
        if self._why:
            seconds = round(time.monotonic() - self._since)
            self._put(Note("disk", {"event": "stored again", "why": str(self._why), **self._cost(seconds)}))
            log.info("rows are stored again, after %d s", seconds)
            self._why, self._failed, self._again = None, "", 0.0

    def _commit(self) -> None:
        """Whatever ends this in another way than the disk must not have its batch come again."""
        waiting, self._waiting = self._waiting, Batch()
        try:
            self._store.commit(waiting)
        except StoreError:
            self._waiting = waiting
            raise

    def _cost(self, seconds: int) -> dict[str, int]:
        dropped, self.dropped = self.dropped, 0
        return {"seconds": seconds, "dropped": dropped}

    def _wait(self, error: StoreError) -> None:
        now = time.monotonic()
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
        self._store.set_aside(self._damage)
        self._damage, self._is_new = "", True
        facts = {"event": self._store.found, "previous": self._store.previous}
        carried = {"carried": self._store.carried} if self._store.carried else {}
        waiting, self._waiting = self._waiting, self._step(Note("store", {**facts, **carried}))
        add(self._waiting, waiting)

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
