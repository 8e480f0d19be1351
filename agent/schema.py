"""This file knows the tables of a store, how one is opened to write, and what a batch leaves in them."""

import json
import os
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.model import Batch
from agent.pruning import Size

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
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA cache_size = -512")
        size.bound(db)
        db.executescript(SCHEMA)
        with transaction(db):
            db.execute("INSERT OR IGNORE INTO meta VALUES ('epoch', ?)", (secrets.token_hex(8),))
            db.execute("INSERT OR IGNORE INTO meta VALUES ('terminal', ?)", (terminal,))
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
    db.executemany(
        "INSERT OR REPLACE INTO points VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(p.device, p.point, json.dumps(p.value), p.known, p.at, p.raw, p.inferred) for p in batch.points],
    )
    db.executemany(
        "INSERT OR REPLACE INTO faults VALUES (?, ?, ?, ?, ?, ?)",
        [(f.device, f.point, f.code, json.dumps(f.value), f.since, f.raw) for f in batch.raised],
    )
    db.executemany(
        "DELETE FROM faults WHERE device = ? AND point = ? AND code = ?",
        [(f.device, f.point, f.code) for f in batch.cleared],
    )


def remember(db: sqlite3.Connection, key: str, value: str) -> None:
    """Write a fact about the store."""
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))
