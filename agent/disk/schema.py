"""This file knows the tables of a store, how one is opened to write or written again, and what a batch leaves in
them."""

import json
import os
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from agent.disk.pruning import Size
from agent.disk.reading import border
from agent.errors import StoreCorrupt, StoreError, StoreFull
from agent.model import Batch

PAGE = 1024
"""Bytes of a page of a new store. A commit writes the pages that it changes, to the log and later to the file: with
SQLite's 4096 a change costs the disk three times as many bytes, with 512 large batches become slow
(bench/RESULTS.md). A store that has larger ones keeps them."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ledger (seq INTEGER PRIMARY KEY, row BLOB NOT NULL, hash BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS points (
    device TEXT, point TEXT, value TEXT NOT NULL, known INTEGER NOT NULL, at INTEGER NOT NULL,
    raw TEXT NOT NULL, inferred INTEGER NOT NULL, PRIMARY KEY (device, point)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS faults (
    device TEXT, point TEXT, code TEXT, value TEXT NOT NULL, since INTEGER NOT NULL, raw TEXT NOT NULL,
    PRIMARY KEY (device, point, code)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS kept (
    seq INTEGER PRIMARY KEY, row BLOB NOT NULL, hash BLOB, epoch TEXT NOT NULL DEFAULT '');
"""


def connect(path: Path, terminal: str, size: Size) -> sqlite3.Connection:
    """Open a store, or make one with a new epoch. Raises sqlite3.Error."""
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        with suppress(OSError):
            os.chmod(path, 0o600)  # it may be another user's file: diagnose tells
        if not db.execute("PRAGMA page_count").fetchone()[0]:
            db.execute(f"PRAGMA page_size = {PAGE}")
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA cache_size = -512")
        size.bound(db)
        db.executescript(SCHEMA)
        with transaction(db):
            # Only where nothing is yet: a store that has lost one of them is damaged.
            looks = ("SELECT 1 FROM meta LIMIT 1", "SELECT 1 FROM ledger LIMIT 1")
            if not any(db.execute(look).fetchone() for look in looks):
                names = [("epoch", secrets.token_hex(8)), ("terminal", terminal)]
                db.executemany("INSERT INTO meta VALUES (?, ?)", names)
    except BaseException:
        db.close()
        raise
    return db


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All that is done within it, or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def insert(db: sqlite3.Connection, rows: Sequence[tuple[int, bytes, bytes]], batch: Batch) -> None:
    """Ledger rows of (seq, canonical bytes, hash), and the points and faults that a batch leaves behind."""
    db.executemany("INSERT INTO ledger VALUES (?, ?, ?)", rows)
    if batch.points:
        db.executemany(
            "INSERT OR REPLACE INTO points VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(p.device, p.point, json.dumps(p.value), p.known, p.at, p.raw, p.inferred) for p in batch.points],
        )
    if batch.raised:
        db.executemany(
            "INSERT OR REPLACE INTO faults VALUES (?, ?, ?, ?, ?, ?)",
            [(f.device, f.point, f.code, json.dumps(f.value), f.since, f.raw) for f in batch.raised],
        )
    if batch.cleared:
        db.executemany(
            "DELETE FROM faults WHERE device = ? AND point = ? AND code = ?",
            [(f.device, f.point, f.code) for f in batch.cleared],
        )


def remember(db: sqlite3.Connection, key: str, value: str) -> None:
    """Write a fact about the store."""
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))


def write_again(db: sqlite3.Connection, path: Path) -> None:
    """Write a store that is still open, and lost its name, to the disk again. Raises StoreError."""
    try:
        with border(path), closing(sqlite3.connect(path)) as copy:
            db.backup(copy)
    except StoreError as error:
        path.unlink(missing_ok=True)
        if isinstance(error, StoreFull):
            raise
        raise StoreCorrupt(f"{path} was deleted, and cannot be written again from memory: {error}") from error
