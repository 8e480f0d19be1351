"""This file knows all that must survive a power cut, in one SQLite file, and how to go on when it is damaged.

One writer (the core thread) commits; `synchronous=FULL` in WAL mode makes each commit durable before it returns.
The ledger is the outbox: delivery is the cursor `acked`, which moves only when the broker has acknowledged. The
cursor needs no fsync of its own (losing it only repeats rows, and receivers drop repeats), so it rides with the
next commit.

When a value was last *seen* lives in memory only: an agent that was just started has seen nothing yet.
"""

import fcntl
import json
import os
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from agent import aside, ledger
from agent.errors import LedgerError, StoreCorrupt, StoreError
from agent.model import Batch
from agent.reading import KEPT as KEPT
from agent.reading import Reader as Reader
from agent.reading import border

FILE = "store.db"
SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ledger (seq INTEGER PRIMARY KEY, row BLOB NOT NULL, hash BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS points (
    device TEXT, point TEXT, value TEXT NOT NULL, known INTEGER NOT NULL, at INTEGER NOT NULL,
    raw TEXT NOT NULL, inferred INTEGER NOT NULL, PRIMARY KEY (device, point)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS faults (
    device TEXT, point TEXT, code TEXT, value TEXT NOT NULL, since INTEGER NOT NULL, raw TEXT NOT NULL,
    PRIMARY KEY (device, point, code)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS kept (seq INTEGER PRIMARY KEY, row BLOB NOT NULL);
"""
TAIL = 64
"""Rows whose chain is checked at every start: a start must not depend on the length of the ledger."""


class Store:
    """The one writer. `found` says how the file was found: "new", "good", or why the old one was set aside.

    on_commit(urgent) is called after each commit, outside the lock.
    """

    def __init__(
        self, folder: Path, terminal: str, on_commit: Callable[[bool], None] = lambda urgent: None
    ) -> None:
        self.path = folder / FILE
        self.terminal = terminal
        self.on_commit = on_commit
        self._lock = threading.Lock()
        self.epoch, self.head, self.head_hash = "unknown", 0, b""
        self._acked = self._acked_on_disk = 0
        self._doubt = ""
        self._seen: dict[str, dict[str, int]] = {}
        self._revision: dict[str, int] = {}
        self._make_folder(folder)
        self.found, self.previous = self._open()

    def reader(self) -> Reader:
        """A new read-only connection; each thread takes its own and renews it when `epoch` has changed."""
        return Reader(self.path)

    def doubt(self, error: StoreCorrupt) -> None:
        """A reader has met damage: the next commit says so, to the one who can set the file aside."""
        self._doubt = str(error)

    def commit(self, batch: Batch) -> None:
        """Make everything in the batch durable, or nothing. Raises StoreError (try again) or StoreCorrupt."""
        if self._doubt:
            raise StoreCorrupt(self._doubt)
        seq, before = self.head, self.head_hash
        rows, kept = [], []
        for row in batch.rows:
            seq += 1
            body = ledger.canonical({**row, "seq": seq})
            before = ledger.link(before, body)
            rows.append((seq, body, before))
            if row["kind"] in KEPT:
                kept.append((seq, body))
        with self._lock:
            acked = self._acked
            with border(self.path), self._transaction() as db:
                db.executemany("INSERT INTO ledger VALUES (?, ?, ?)", rows)
                db.executemany("INSERT INTO kept VALUES (?, ?)", kept)
                db.executemany(
                    "INSERT OR REPLACE INTO points VALUES (?, ?, ?, ?, ?, ?, ?)",
                    [
                        (p.device, p.point, json.dumps(p.value), p.known, p.at, p.raw, p.inferred)
                        for p in batch.points
                    ],
                )
                db.executemany(
                    "INSERT OR REPLACE INTO faults VALUES (?, ?, ?, ?, ?, ?)",
                    [(f.device, f.point, f.code, json.dumps(f.value), f.since, f.raw) for f in batch.raised],
                )
                db.executemany(
                    "DELETE FROM faults WHERE device = ? AND point = ? AND code = ?",
                    [(f.device, f.point, f.code) for f in batch.cleared],
                )
                if acked != self._acked_on_disk:
                    db.execute("INSERT OR REPLACE INTO meta VALUES ('acked', ?)", (str(acked),))
            self.head, self.head_hash, self._acked_on_disk = seq, before, acked
            for device in {p.device for p in batch.points} | {f.device for f in (*batch.raised, *batch.cleared)}:
                self._revision[device] = self._revision.get(device, 0) + 1
        self.on_commit(batch.urgent)

    def forget_all(self) -> None:
        """Mark every point unknown: nothing was seen while the agent did not run."""
        with self._lock, border(self.path), self._transaction() as db:
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
        """Write the cursor, if it has moved since the last commit."""
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
            self._lock_file.close()

    def set_aside(self, why: str) -> None:
        """Put the damaged file out of the way, whole, as evidence, and go on with a new epoch."""
        with self._lock:
            self._doubt = why  # until there is a new one: half of a new file must take no commit of the old chain
            self.found, self.previous = self._start_anew(why)
            self._doubt = ""

    def _make_folder(self, folder: Path) -> None:
        aside.make_folder(folder)
        try:
            self._lock_file = (folder / "lock").open("w")
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreError(f"{folder} is in use by another agent: stop that one first") from error
        except OSError as error:
            raise StoreError(
                f"{folder} cannot be written ({error.strerror}): give it to the agent's user"
            ) from error

    def _open(self) -> tuple[str, str]:
        is_new = not self.path.exists()
        aside.finish(self.path)
        try:
            self._connect()
            if self._reader_checks():
                name, old = aside.last(self.path)
                if name and not self.head:
                    return f"new after {name}, which was set aside", old
                return ("new" if is_new else "good"), ""
        except (StoreCorrupt, LedgerError) as error:
            return self._start_anew(str(error))
        return self._start_anew(f"{self.path} belongs to another terminal")

    def _connect(self) -> None:
        with border(self.path):
            self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            os.chmod(self.path, 0o600)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA cache_size = -512")
            self._db.executescript(SCHEMA)
            with self._transaction() as db:
                db.execute("INSERT OR IGNORE INTO meta VALUES ('epoch', ?)", (secrets.token_hex(8),))
                db.execute("INSERT OR IGNORE INTO meta VALUES ('terminal', ?)", (self.terminal,))

    def _reader_checks(self) -> bool:
        """Whether the file is this terminal's; its tail is checked and its head taken over.

        Raises StoreCorrupt or LedgerError.
        """
        reader = self.reader()
        try:
            self.epoch = reader.epoch
            self.head, self.head_hash = reader.head()
            start = max(0, self.head - TAIL)
            first = reader.rows(0, 1)
            if first and start < first[0][0]:
                start = first[0][0] - 1
            ledger.verify(reader.rows(start, TAIL), reader.hash_at(start), start)
            self._acked = self._acked_on_disk = int(reader.meta("acked") or 0)
            return reader.terminal == self.terminal
        finally:
            reader.close()

    def _start_anew(self, why: str) -> tuple[str, str]:
        self._db.close()
        old = f"{self.epoch}/{self.head}"
        name = aside.put(self.path, self.epoch, self.head)
        self._connect()
        self._reader_checks()
        return f"{why}; it was set aside as {name}", old

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
