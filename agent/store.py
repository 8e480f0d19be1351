"""This file knows all that must survive a power cut, in one SQLite file, and how to go on when it is damaged.

One writer (the core thread) commits; `synchronous=FULL` in WAL mode makes each commit durable before it returns.
The ledger is the outbox: delivery is the cursor `acked`, which moves only when the broker has acknowledged. The
cursor needs no fsync of its own (losing it only repeats rows, and receivers drop repeats), so it rides with the
next commit.

When a value was last *seen* lives in memory only: an agent that was just started has seen nothing yet.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from pathlib import Path

from agent import aside, ledger, pruning
from agent.carrying import carry
from agent.datafolder import Folder
from agent.errors import LedgerError, StoreCorrupt, StoreError, StoreFull
from agent.model import Batch
from agent.pruning import Cut, Size
from agent.reading import KEPT as KEPT
from agent.reading import Ahead as Ahead
from agent.reading import Reader as Reader
from agent.reading import border
from agent.schema import SCHEMA as SCHEMA
from agent.schema import connect, insert, remember, transaction

FILE = "store.db"
TAIL = 64
"""Rows whose chain is checked at every start: a start must not depend on the length of the ledger."""
CHECKPOINT = "checkpoint"
"""The kind of row that signs what is before it (agent/checkpoints.py)."""
Linked = tuple[int, bytes, bytes, str]
"""seq, canonical bytes, hash and kind of a row."""
CAP = 256 * 1024 * 1024


class Store:
    """The one writer. `found` says how the file was found: "new", "good", or why the old one was set aside;
    `carried` what became of its kept rows.

    cap   bytes that the file and its log may take (agent/pruning.py)

    on_commit(urgent) is called after each commit, outside the lock.
    """

    def __init__(
        self,
        folder: Path,
        terminal: str,
        on_commit: Callable[[bool], None] = lambda urgent: None,
        cap: int = CAP,
    ) -> None:
        self.path = folder / FILE
        self.terminal = terminal
        self.on_commit = on_commit
        self.size = Size(cap)
        self._lock = threading.Lock()
        self.epoch, self.head, self.head_hash = "unknown", 0, b""
        self._acked = self._acked_on_disk = 0
        self._tried: tuple[int, bytes, int] = (0, b"", 0)
        self._doubt = self.carried = ""
        self._ahead = Ahead()
        self._replaced: tuple[str, str] | None = None
        self._seen: dict[str, dict[str, int]] = {}
        self._revision: dict[str, int] = {}
        self.opened = 0
        self._db = sqlite3.connect(":memory:")  # until there is a file: a damaged one cannot even be opened
        self._folder = Folder(folder)
        self.found, self.previous = self._open()

    def reader(self) -> Reader:
        """A new read-only connection; each thread takes its own and renews it when `opened` changes."""
        return Reader(self.path, lambda: self._ahead)

    def doubt(self, error: StoreCorrupt) -> None:
        """A reader has met damage: the next commit says so, to the one who can set the file aside."""
        self._doubt = str(error)

    @property
    def warning(self) -> str:
        """What is wrong with the disk though commits still succeed, as a sentence; empty when nothing is."""
        return self._folder.warning

    def commit(self, batch: Batch) -> None:
        """Make everything in the batch durable, or nothing. Raises StoreError (try again, after `mend`), StoreFull
        or StoreCorrupt."""
        if self._doubt:
            raise StoreCorrupt(self._doubt)
        if not self._folder.has(self.path):
            raise StoreError(f"{self.path} was deleted or exchanged under the agent: it is written again")
        with self._lock:
            if self.warning:
                self._look()
            rows = self._chain(batch.rows)
            try:
                cut = self._write(batch, rows)
            except StoreFull:
                self._make_room()
                cut = self._write(batch, rows)
            if cut:
                with suppress(StoreError), border(self.path):
                    self.size.shrink(self._db)
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
                    self._write_again()
            old = self._db
            self._connect()
            with suppress(sqlite3.Error):
                old.close()
            return self._go_on()

    def forget_all(self) -> None:
        """Mark every point unknown: nothing was seen while the agent did not run."""
        with self._lock, border(self.path), transaction(self._db) as db:
            db.execute("UPDATE points SET known = 0")

    @property
    def acked(self) -> int:
        """The last row that the broker has acknowledged, with all before it."""
        return self._acked

    def settle(self, epoch: str, seq: int) -> None:
        """The broker has acknowledged all rows up to `seq` of `epoch`; of an epoch that is over this is void."""
        with self._lock:
            if epoch == self.epoch:
                self._acked = max(self._acked, min(seq, self.head))

    def flush(self) -> None:
        """Write the cursor, if it has moved since the last commit, and look at the disk."""
        self._look()
        if self._acked != self._acked_on_disk:
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

    def close(self) -> None:
        """Write the cursor and close the file."""
        try:
            self.flush()
        finally:
            self._db.close()
            self._folder.close()

    def set_aside(self, why: str) -> None:
        """Put the damaged file out of the way, whole, as evidence, and go on with a new epoch."""
        with self._lock:
            self._doubt = why  # until there is a new one: half of a new file must take no commit of the old chain
            self.found, self.previous = self._start_anew(why)
            self._doubt = ""

    def _chain(self, rows: Iterable[ledger.Row], after: tuple[int, bytes] | None = None) -> list[Linked]:
        """Rows as they follow the head, or another place of the chain."""
        seq, digest = after or (self.head, self.head_hash)
        linked = []
        for row in rows:
            seq += 1
            body = ledger.canonical({**row, "seq": seq})
            digest = ledger.link(digest, body)
            linked.append((seq, body, digest, row["kind"]))
        return linked

    def _write(self, batch: Batch, rows: list[Linked]) -> Cut | None:
        """One transaction; returns what was pruned in it."""
        more, has_rows = sum(len(body) for _, body, _, _ in rows), bool(rows)
        with border(self.path):
            self.size.empty_log(self._db, self.path, more)
            cut = pruning.due(self._db, self.size, more, self._acked, may_drop=has_rows)
        acked = self._acked
        if cut:
            acked = max(acked, cut.last)
            rows = rows + self._chain(pruning.told(cut, batch.rows), (rows[-1][0], rows[-1][2]) if rows else None)
        self._tried = (rows[-1][0], rows[-1][2], len(batch.rows)) if rows else (self.head, self.head_hash, 0)
        with border(self.path), transaction(self._db) as db:
            if cut:
                pruning.carry_out(db, cut)
            insert(db, [row[:3] for row in rows], batch)
            db.executemany("INSERT INTO kept VALUES (?, ?, ?, '')", [row[:3] for row in rows if row[3] in KEPT])
            if acked != self._acked_on_disk:
                remember(db, "acked", str(acked))
            for seq in [row[0] for row in rows if row[3] == CHECKPOINT][-1:]:
                remember(db, "signed", str(seq))
        self.head, self.head_hash = self._tried[:2]
        self._acked = self._acked_on_disk = acked
        return cut

    def _touch(self, batch: Batch) -> None:
        for device in {p.device for p in batch.points} | {f.device for f in (*batch.raised, *batch.cleared)}:
            self._revision[device] = self._revision.get(device, 0) + 1

    def _make_room(self) -> None:
        """The disk is full: what the agent holds in reserve is given up, and rows that the broker has make room."""
        self._folder.give_reserve()
        with border(self.path):
            self.size = self.size.hold(self._db)
            goal = pruning.used(self._db) * (pruning.SHARE - 1) // pruning.SHARE
            if cut := pruning.plan(self._db, goal, self._acked, may_drop=False):
                with transaction(self._db):
                    pruning.carry_out(self._db, cut)

    def _look(self) -> None:
        """See how the disk is, and use it again when it is not full any more."""
        self._folder.look()
        if self.size.held and self._folder.has_reserve:
            self.size = Size(self.size.cap)
            with suppress(StoreError), border(self.path):
                self.size.bound(self._db)

    def _open(self) -> tuple[str, str]:
        is_new = not self.path.exists()
        aside.finish(self.path)
        try:
            self._connect()
            if self._reader_checks():
                name, old = aside.last(self.path)
                if name and not self.head:
                    self._carry(name, old)
                    return f"new after {name}, which was set aside", old
                return ("new" if is_new else "good"), ""
        except (StoreCorrupt, LedgerError) as error:
            return self._start_anew(str(error))
        return self._start_anew(f"{self.path} belongs to another terminal")

    def _connect(self) -> None:
        with border(self.path):
            self._db = connect(self.path, self.terminal, self.size)
        self.opened += self._folder.opened(self.path)

    def _reader_checks(self) -> bool:
        """Whether the file is this terminal's; its tail is checked and its head taken over.

        Raises StoreCorrupt or LedgerError.
        """
        with closing(self.reader()) as reader:
            self.epoch = reader.epoch
            self.head, self.head_hash = reader.head()
            start = max(reader.anchor, self.head - TAIL)
            ledger.verify(reader.rows(start, TAIL), reader.hash_at(start), start)
            self._acked = self._acked_on_disk = int(reader.meta("acked") or 0)
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
            acked = int(reader.meta("acked") or 0)
        if (epoch, head, digest) == (self.epoch, self.head, self.head_hash):
            return 0
        if (epoch, head, digest) == self._end_tried():
            self.head, self.head_hash = head, digest
            self._acked, self._acked_on_disk = max(self._acked, acked), acked
            return self._tried[2]
        raise StoreCorrupt(
            f"{self.path} is not the chain that was written there: it ends with row {head} of {epoch}"
        )

    def _write_again(self) -> None:
        """Write what is still open to the disk again, under its name. Raises StoreError."""
        if self.path.exists():
            aside.put(self.path, "unknown", 0)
        try:
            with border(self.path), closing(sqlite3.connect(self.path)) as copy:
                self._db.backup(copy)
        except StoreError as error:
            self.path.unlink(missing_ok=True)
            if isinstance(error, StoreFull):
                raise
            raise StoreCorrupt(
                f"{self.path} was deleted, and cannot be written again from memory: {error}"
            ) from error

    def _start_anew(self, why: str) -> tuple[str, str]:
        self._db.close()
        if not self._replaced:
            old = f"{self.epoch}/{self.head}"
            self._replaced = aside.put(self.path, self.epoch, self.head), old
        # What failed from here on is gone on with the next time: the old store lies aside already.
        name, old = self._replaced
        self._connect()
        self._reader_checks()
        self._carry(name, old)
        self._replaced = None
        aside.bound(self.path, self.size.log)
        return f"{why}; it was set aside as {name}", old

    def _carry(self, name: str, old: str) -> None:
        with border(self.path), transaction(self._db) as db:
            self.carried = carry(self.path.with_name(name), self.terminal, old.partition("/")[0], db)
