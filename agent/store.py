"""This file knows all that must survive a power cut, in one SQLite file, and how to go on when it is damaged.

One writer (the core thread) commits; `synchronous=FULL` in WAL mode makes each commit durable before it returns.
The ledger is the outbox: delivery is the cursor `acked`, which moves only when the broker has acknowledged. It
needs no fsync of its own, nor a write with each commit (agent/disk/cursor.py).

When a value was last *seen* lives in memory only: an agent that was just started has seen nothing yet.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from agent.disk import aside
from agent.disk.carrying import carry
from agent.disk.cursor import AGE, Cursor
from agent.disk.datafolder import Folder
from agent.disk.opening import TAIL as TAIL
from agent.disk.opening import check
from agent.disk.pruning import Cut, carry_out, told
from agent.disk.reading import KEPT as KEPT
from agent.disk.reading import Ahead as Ahead
from agent.disk.reading import Reader as Reader
from agent.disk.reading import border
from agent.disk.room import Room
from agent.disk.schema import SCHEMA as SCHEMA
from agent.disk.schema import connect, insert, remember, transaction, write_again
from agent.errors import LedgerError, StoreCorrupt, StoreError, StoreFull
from agent.ledger import Linked, chained
from agent.model import Batch

FILE = "store.db"
CHECKPOINT = "checkpoint"
"""The kind of row that signs what is before it (agent/evidence/checkpoints.py)."""
CAP = 256 * 1024 * 1024
T = TypeVar("T")


class Store:
    """The one writer. `found` says how the file was found: "new", "good", or why the old one was set aside;
    `carried` what became of its kept rows, `deleted` which older stores went for it.

    cap     bytes that the file and its log may take (agent/disk/pruning.py); `room` keeps them below it
    locked  the folder, if this agent has it already; `close` lets another agent have it

    on_commit(urgent) is called after each commit, outside the lock.
    """

    def __init__(
        self,
        folder: Path,
        terminal: str,
        on_commit: Callable[[bool], None] = lambda urgent: None,
        cap: int = CAP,
        locked: Folder | None = None,
    ) -> None:
        self.path = folder / FILE
        self.terminal = terminal
        self.on_commit = on_commit
        self._lock = threading.Lock()
        self.epoch, self.head, self.head_hash = "unknown", 0, b""
        self._cursor = Cursor(0, 0)
        self._tried: tuple[int, bytes, int] = (0, b"", 0)
        self._doubt = self.carried = self.deleted = ""
        self._ahead = Ahead()
        self._replaced: tuple[str, str] | None = None
        self._seen: dict[str, dict[str, int]] = {}
        self._revision: dict[str, int] = {}
        self.opened = 0
        self._db = sqlite3.connect(":memory:")  # until there is a file: a damaged one cannot even be opened
        self._folder = locked or Folder(folder)
        self.room = Room(self.path, self._folder, cap)
        self.found, self.previous = self._open()

    def reader(self) -> Reader:
        """A new read-only connection; each thread takes its own and renews it when `opened` changes."""
        return Reader(self.path, lambda: self._ahead, self.opened)

    @contextmanager
    def reading(self) -> Iterator[Reader]:
        """A reader for a while; damage that it meets is doubted."""
        opened = self.opened
        try:
            with closing(self.reader()) as reader:
                yield reader
        except StoreCorrupt as error:
            self.doubt(error, opened)
            raise

    def doubt(self, error: StoreCorrupt, opened: int | None = None) -> None:
        """Somebody has met damage: the next commit says so, to the one who can set the file aside. Void when it is
        of a file that was `opened` before the present one: of a store that lies aside already."""
        with self._lock:
            if opened in (None, self.opened):
                self._doubt = str(error)

    def tip(self) -> tuple[str, int, bytes]:
        """(epoch, seq, hash) of the last row as this process has written it, whatever the file says now."""
        with self._lock:
            return self.epoch, self.head, self.head_hash

    @property
    def warning(self) -> str:
        """What is wrong with the disk though commits still succeed, as a sentence; empty when nothing is."""
        return self._folder.warning

    def commit(self, batch: Batch, *, is_last: bool = True) -> None:
        """Make everything in the batch durable, or nothing. Raises StoreError (try again, after `mend`), StoreFull
        or StoreCorrupt. is_last: nothing waits any more of what is held."""
        if self._doubt:
            raise StoreCorrupt(self._doubt)
        if not self._folder.has(self.path):
            raise StoreError(f"{self.path} was deleted or exchanged under the agent: it is written again")
        with self._lock:
            if self.warning:
                self.room.look(self._db)
            self._with_room(partial(self._write, batch))
            self.room.shrink(self._db)
            if is_last:
                self._ahead = Ahead()
            self._touch(batch)
        self.on_commit(batch.urgent)

    def hold(self, waiting: Batch, news: Batch) -> None:
        """Tell readers of all points and faults that could not be stored yet, and of what is new among them; the
        next commit is to bring them."""
        points = {(p.device, p.point): p for p in waiting.points}
        raised = {(f.device, f.point, f.code): f for f in waiting.raised}
        with self._lock:
            ended = dict.fromkeys((f.device, f.point, f.code) for f in waiting.cleared)
            self._ahead = Ahead(points, {**ended, **raised})
            self._touch(news)
        self.on_commit(news.urgent)

    def mend(self) -> int:
        """After a commit that failed: open the file again, or write it again where it was deleted or exchanged.
        Returns how many rows of that commit are there after all.

        Raises StoreError while it does not help, StoreCorrupt when what is there is another chain.
        """
        with self._lock:
            if not self._folder.has(self.path):
                self._folder.make()
                if self._folder.part(self.path) or not self._is_ours():
                    if self.path.exists():
                        aside.put(self.path, "unknown", 0, 0)
                    write_again(self._db, self.path)
            old = self._db
            self._with_reserve(self._connect)
            with suppress(sqlite3.Error):
                old.close()
            return self._go_on()

    def forget_all(self) -> None:
        """Mark every point unknown: nothing was seen while the agent did not run."""
        with self._lock:
            self._with_room(self._forget)

    @property
    def acked(self) -> int:
        """The last row that the broker has acknowledged, with all before it."""
        return self._cursor.at

    def settle(self, epoch: str, seq: int) -> None:
        """The broker has acknowledged all rows up to `seq` of `epoch`; of an epoch that is over this is void."""
        with self._lock:
            if epoch == self.epoch:
                self._cursor.at = max(self._cursor.at, min(seq, self.head))

    def flush(self, age: float = AGE) -> None:
        """Look at the disk and at the file, and write the cursor if that was `age` seconds ago and it has moved.
        Raises what a commit would."""
        with self._lock:
            self.room.look(self._db)
        is_whole = self._folder.has(self.path) and not self._doubt
        if not is_whole or self.room.is_passed or self._cursor.due(age):
            self.commit(Batch())

    def saw(self, device: str, points: Mapping[str, int]) -> None:
        """Note when points were last seen, {point: monotonic ms}; forgotten at the end of the process."""
        with self._lock:
            self._seen.setdefault(device, {}).update(points)

    def seen(self, device: str) -> dict[str, int]:
        """{point: monotonic ms} of what this process has seen of a device."""
        with self._lock:
            return dict(self._seen.get(device, {}))

    def revision(self, device: str) -> int:
        """A number that grows with each commit that touches the device."""
        return self._revision.get(device, 0)

    def fate(self) -> dict[str, str]:
        """What became of what was there before this store, for its first row."""
        return {key: told for key in ("carried", "deleted") if (told := getattr(self, key))}

    def close(self) -> None:
        """Write the cursor and close the file."""
        try:
            self.flush(0)
        finally:
            self._db.close()
            self._folder.close()

    def set_aside(self, why: str) -> None:
        """Put the damaged file out of the way, whole, as evidence, and go on with a new epoch."""
        with self._lock:
            self._doubt = why  # until there is a new one: half of a new file must take no commit of the old chain
            self.found, self.previous = self._with_reserve(partial(self._start_anew, why))
            self._doubt = ""

    def _write(self, batch: Batch) -> None:
        """What has to go for a batch, and then the batch."""
        rows = chained(batch.rows, self.head, self.head_hash)
        more, items = sum(len(row[1]) for row in rows), len(batch.points) + len(batch.raised) + len(batch.cleared)
        for cut in self.room.cuts(self._db, more, items, self._cursor.at, may_drop=bool(rows)):
            with border(self.path):
                gap = chained(told(self._db, cut, batch.rows), self.head, self.head_hash)
            self._put(gap, Batch(), max(self._cursor.at, cut.last), cut)
        if rows and rows[0][0] != self.head + 1:
            rows = chained(batch.rows, self.head, self.head_hash)
        is_due = not batch or self._cursor.due()
        self._put(rows, batch, self._cursor.at if is_due else self._cursor.on_disk)

    def _put(self, rows: list[Linked], batch: Batch, acked: int, cut: Cut | None = None) -> None:
        """One transaction."""
        self._tried = (rows[-1][0], rows[-1][2], len(batch.rows)) if rows else (self.head, self.head_hash, 0)
        with border(self.path), transaction(self._db) as db:
            if cut:
                carry_out(db, cut)
            insert(db, [row[:3] for row in rows], batch)
            if kept := [row[:3] for row in rows if row[3] in KEPT]:
                db.executemany("INSERT INTO kept VALUES (?, ?, ?, '')", kept)
            if acked != self._cursor.on_disk:
                remember(db, "acked", str(acked))
            for seq in [row[0] for row in rows if row[3] == CHECKPOINT][-1:]:
                remember(db, "signed", str(seq))
        self.head, self.head_hash = self._tried[:2]
        self._cursor.wrote(acked)

    def _forget(self) -> None:
        with border(self.path), transaction(self._db) as db:
            db.execute("UPDATE points SET known = 0")

    def _with_room(self, step: Callable[[], None]) -> None:
        """Do it; when there was no room for it, once more, with what a full disk has in reserve."""
        try:
            step()
        except StoreFull:
            self.room.make(self._db)
            step()

    def _with_reserve(self, step: Callable[[], T]) -> T:
        """The same for what is done while there is no store yet that could be held to its size."""
        try:
            return step()
        except StoreFull:
            self._folder.give_reserve()
            return step()

    def _touch(self, batch: Batch) -> None:
        for device in {p.device for p in batch.points} | {f.device for f in (*batch.raised, *batch.cleared)}:
            self._revision[device] = self._revision.get(device, 0) + 1

    def _open(self) -> tuple[str, str]:
        is_new, why = not self.path.exists(), f"{self.path} belongs to another terminal"
        aside.finish(self.path)
        try:
            self._with_reserve(self._connect)
            if self._reader_checks():
                name, old = aside.last(self.path)
                if name and not self.head:
                    self._with_reserve(partial(self._carry, name, old))
                    return f"new after {name}, which was set aside", old
                return ("new" if is_new else "good"), ""
        except (StoreCorrupt, LedgerError) as error:
            why = str(error)
        return self._with_reserve(partial(self._start_anew, why))

    def _connect(self) -> None:
        with border(self.path):
            self._db = connect(self.path, self.terminal, self.room.size)
        self.room.opened(self._db)
        self.opened += self._folder.opened(self.path)

    def _reader_checks(self) -> bool:
        """Whether the file is this terminal's; its tail is checked and its head taken over.

        Raises StoreCorrupt or LedgerError.
        """
        with closing(self.reader()) as reader:
            self.epoch = reader.epoch or "unknown"
            self.head, self.head_hash = reader.head()
            check(reader, self.head)
            acked = reader.number("acked")
            self._cursor = Cursor(acked, acked)
            return reader.terminal == self.terminal

    def _is_ours(self) -> bool:
        """Whether what is there now ends as this process left it: its disk may have been taken out and put back."""
        try:
            with closing(self.reader()) as reader:
                return (reader.epoch, *reader.head()) in (
                    (self.epoch, self.head, self.head_hash),
                    self._end_tried(),
                )
        except StoreError:
            return False

    def _end_tried(self) -> tuple[str, int, bytes]:
        return self.epoch, self._tried[0], self._tried[1]

    def _go_on(self) -> int:
        """Go on with the file; returns how many rows the commit that failed has left there."""
        with closing(self.reader()) as reader:
            epoch, (head, digest) = reader.epoch, reader.head()
            acked = reader.number("acked")
        if (epoch, head, digest) == (self.epoch, self.head, self.head_hash):
            return 0
        if (epoch, head, digest) == self._end_tried():
            self.head, self.head_hash = head, digest
            self._cursor = Cursor(max(self._cursor.at, acked), acked)
            return self._tried[2]
        raise StoreCorrupt(
            f"{self.path} is not the chain that was written there: it ends with row {head} of {epoch}"
        )

    def _start_anew(self, why: str) -> tuple[str, str]:
        self._db.close()
        if not self._replaced:
            old = f"{self.epoch}/{self.head}"
            self._replaced = aside.put(self.path, self.epoch, self.head, self._cursor.at), old
        # What failed from here on is gone on with the next time: the old store lies aside already.
        name, old = self._replaced
        self._connect()
        self._reader_checks()
        self._carry(name, old)
        self.deleted = aside.bound(self.path, self.room.size.log)
        self._replaced = None
        return f"{why}; it was set aside as {name}", old

    def _carry(self, name: str, old: str) -> None:
        with border(self.path), transaction(self._db) as db:
            self.carried = carry(self.path.with_name(name), self.terminal, old.partition("/")[0], db)
