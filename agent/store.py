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
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent import ledger
from agent.errors import LedgerError, StoreCorrupt, StoreError
from agent.model import Batch, Fault, StoredPoint

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
KEPT = frozenset({"ceremony", "sealed"})
"""Kinds of rows that are read again at every start, however old; a copy of them is found without reading all."""
TAIL = 64
"""Rows whose chain is checked at every start: a start must not depend on the length of the ledger."""
CHUNK = 1000
"""Rows of one read while the whole chain is checked."""


@contextmanager
def _border(path: Path) -> Iterator[None]:
    """Translate SQLite's errors: damage is StoreCorrupt, all else StoreError."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")) or "malformed" in str(error):
            raise StoreCorrupt(f"{path} is damaged ({error})") from error
        raise StoreError(f"{path} cannot be used ({error}): check the disk and the folder's owner") from error


class Reader:
    """A read-only view of a store file, for one thread. Sees each commit as a whole, never half of one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with _border(path):
            self._db = sqlite3.connect(
                f"file:{path}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
            )
            self.epoch = self.meta("epoch")
            self.terminal = self.meta("terminal")

    def close(self) -> None:
        self._db.close()

    def meta(self, key: str) -> str:
        """A fact about the store: epoch, terminal, acked. Empty when it is not there."""
        with _border(self.path):
            found = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return str(found[0]) if found else ""

    def head(self) -> tuple[int, bytes]:
        """(seq, hash) of the last row."""
        with _border(self.path):
            found = self._db.execute("SELECT seq, hash FROM ledger ORDER BY seq DESC LIMIT 1").fetchone()
        return (int(found[0]), bytes(found[1])) if found else (0, ledger.genesis(self.terminal, self.epoch))

    def hash_at(self, seq: int) -> bytes:
        """The hash after row `seq`; of 0 it is the genesis hash. Raises LedgerError when the row is not there."""
        if seq == 0:
            return ledger.genesis(self.terminal, self.epoch)
        with _border(self.path):
            found = self._db.execute("SELECT hash FROM ledger WHERE seq = ?", (seq,)).fetchone()
        if found is None:
            raise LedgerError(seq, f"there is no row {seq} in {self.path}")
        return bytes(found[0])

    def rows(self, after: int, limit: int) -> list[tuple[int, bytes, bytes]]:
        """Up to `limit` rows of (seq, canonical bytes, hash) that follow `after`."""
        with _border(self.path):
            return self._db.execute(
                "SELECT seq, CAST(row AS BLOB), hash FROM ledger WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit)
            ).fetchall()

    def kept(self) -> list[dict[str, Any]]:
        """Every row whose kind is in KEPT, oldest first."""
        with _border(self.path):
            found = self._db.execute("SELECT CAST(row AS BLOB) FROM kept ORDER BY seq").fetchall()
        return [json.loads(row) for (row,) in found]

    def batch(self, after: int, limit: int, size: int) -> list[tuple[int, bytes, bytes]]:
        """The next rows after `after`: at most `limit` of them and about `size` bytes, but at least one."""
        taken: list[tuple[int, bytes, bytes]] = []
        total = 0
        for row in self.rows(after, limit):
            total += len(row[1])
            if taken and total > size:
                break
            taken.append(row)
        return taken

    def verify(self) -> Iterator[dict[str, Any]]:
        """Compute the whole chain again: {"progress": [done, total]} after each thousand rows, and at last
        {"verified": rows, "epoch", "head", "hash"} or {"broken": seq, "why": sentence}."""
        head, _ = self.head()
        seq, digest = 0, self.hash_at(0)
        try:
            while rows := self.rows(seq, CHUNK):
                seq, digest = ledger.verify(rows, digest, seq)
                yield {"progress": [seq, head]}
        except LedgerError as error:
            yield {"broken": error.seq, "why": str(error)}
            return
        yield {"verified": seq, "epoch": self.epoch, "head": seq, "hash": digest.hex()}

    def points(self, device: str = "") -> list[StoredPoint]:
        """The last value of every point of a device (or of all devices), by name."""
        with _border(self.path):
            found = self._db.execute(
                "SELECT device, point, value, known, at, raw, inferred FROM points WHERE ?1 IN ('', device)",
                (device,),
            ).fetchall()
        return [StoredPoint(d, p, json.loads(v), bool(k), at, raw, bool(i)) for d, p, v, k, at, raw, i in found]

    def faults(self) -> list[Fault]:
        """The open faults, oldest first."""
        with _border(self.path):
            found = self._db.execute(
                "SELECT device, point, code, value, since, raw FROM faults ORDER BY since"
            ).fetchall()
        return [Fault(d, p, code, json.loads(v), since, raw) for d, p, code, v, since, raw in found]


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
        self.epoch, self.head, self.head_hash = "?", 0, b""
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
            with _border(self.path), self._transaction() as db:
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
        with self._lock, _border(self.path), self._transaction() as db:
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
        """Note when points were last seen, {point: wall clock in ms}; forgotten at the end of the process."""
        with self._lock:
            self._seen.setdefault(device, {}).update(points)

    def seen(self, device: str) -> dict[str, int]:
        """{point: wall clock in ms} of what this process has seen of a device."""
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
            self._doubt = ""
            self.found, self.previous = self._start_anew(why)

    def _make_folder(self, folder: Path) -> None:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"{folder} cannot be made ({error.strerror}): make it and give it to the agent"
            ) from error
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
        fresh = not self.path.exists()
        try:
            self._connect()
            if self._reader_checks():
                return ("new" if fresh else "good"), ""
        except (StoreCorrupt, LedgerError) as error:
            return self._start_anew(str(error))
        return self._start_anew(f"{self.path} belongs to another terminal")

    def _connect(self) -> None:
        with _border(self.path):
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
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        aside = self.path.with_name(f"{FILE}.aside-{stamp}-{secrets.token_hex(2)}")
        old = f"{self.epoch}/{self.head}"
        for suffix in ("", "-wal", "-shm"):
            part = self.path.with_name(self.path.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))
        self._connect()
        self._reader_checks()
        return f"{why}; it was set aside as {aside.name}", old

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
