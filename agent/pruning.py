"""This file knows how a store stays below its size: what goes first, how far, and where the chain begins then.

    the file    at most `pages` of 4096 bytes; SQLite itself refuses one more (max_page_count)
    its log     (-wal) a quarter of the cap; a commit that would not fit waits until the log was taken into the file
    beside it   -shm, 32 kB and less; stores that were set aside have bounds of their own (agent/aside.py)

Nothing goes while there is room. Then a share of the file goes at once, from the oldest end, for the chain has no
holes:

    1. rows that the broker has, up to a row that a checkpoint covers: whoever had changed the hash that the chain
       then begins with could not meet that signature
    2. rows that the broker has, covered or not: an agent without a key signs nothing
    3. rows that nobody has. In the same commit a row `dropped` says which, and the hash after them, so that
       receivers know the gap from a loss. Ranges that touch are one: such a row may itself become the oldest.

Rows that are read again at every start are not lost with their place in the chain: `kept` has a copy and its hash.
"""

import os
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import StoreError

PAGE = 4096
SHARE = 16
"""One part in so many of the file goes at once: never a few rows with each commit."""
LEAST_LOG = 256 * 1024
LOG_PAGES = 256
"""Pages of the log that are taken into the file: what the agent holds in reserve (agent/datafolder.py) must take
them when the disk is full."""
MORE_PAGES = 128
"""Pages by which the file may still grow into that reserve."""


@dataclass(frozen=True, slots=True)
class Size:
    """How large a store may become, from its cap in bytes. held: pages of the file that it may not outgrow now,
    because the disk is full; 0 when it is not."""

    cap: int
    held: int = 0

    @property
    def log(self) -> int:
        """Bytes of the log."""
        return max(LEAST_LOG, self.cap // 4)

    @property
    def pages(self) -> int:
        """Pages of the file."""
        pages = (self.cap - self.log) // PAGE
        return min(pages, self.held) if self.held else pages

    @property
    def full(self) -> int:
        """Pages in use above which rows go: one commit and what else a row leaves behind still fit above them."""
        return self.pages - self.pages // SHARE

    def bound(self, db: sqlite3.Connection) -> None:
        """Hold a new connection to it. What is larger, because the cap was lowered, is for `shrink`."""
        db.execute(f"PRAGMA max_page_count = {self.pages}").fetchone()
        db.execute(f"PRAGMA journal_size_limit = {self.log}").fetchone()
        db.execute(f"PRAGMA wal_autocheckpoint = {min(LOG_PAGES, self.log // 4 // PAGE)}").fetchone()

    def hold(self, db: sqlite3.Connection) -> "Size":
        """The disk is full: from now on live within what the file has, and the last of the reserve. A log that
        cannot be taken into the file, because that cannot grow, could not even hold what makes room."""
        db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        tight = self if self.held else Size(self.cap, _pragma(db, "page_count") + MORE_PAGES)
        tight.bound(db)
        return tight

    def shrink(self, db: sqlite3.Connection) -> None:
        """Give back free pages beyond the cap, a share at a time so that the log stays small."""
        while (excess := min(_pragma(db, "page_count") - self.pages, _pragma(db, "freelist_count"))) > 0:
            before = _pragma(db, "page_count")
            db.execute(f"PRAGMA incremental_vacuum({min(excess, self.pages // SHARE)})").fetchall()
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            if _pragma(db, "page_count") == before:
                return  # a file that was made without auto_vacuum keeps its size, and uses its free pages again
        self.bound(db)

    def empty_log(self, db: sqlite3.Connection, path: Path, more: int) -> None:
        """See that `more` bytes of rows fit into the log: take it into the file. Raises StoreError while another
        program reads an old state of the store, which would let the log grow without end."""
        try:
            have = os.stat(f"{path}-wal").st_size
        except FileNotFoundError:
            return
        if not have or have + 2 * more <= self.log:
            return
        db.execute("PRAGMA busy_timeout = 0").fetchone()
        is_held = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        db.execute("PRAGMA busy_timeout = 5000").fetchone()
        if is_held:
            raise StoreError(
                f"a program has been reading {path} for so long that its log is full: end that program"
            )


@dataclass(frozen=True, slots=True)
class Cut:
    """Where rows go: all up to `last`, and the hash after that one. first: the first of them that nobody has, 0
    when the broker has them all."""

    last: int
    hash: bytes
    first: int = 0


def used(db: sqlite3.Connection) -> int:
    """Pages of the file that hold something."""
    return _pragma(db, "page_count") - _pragma(db, "freelist_count")


def due(db: sqlite3.Connection, size: Size, more: int, acked: int, *, may_drop: bool) -> Cut | None:
    """The cut that makes room for `more` bytes of rows; None when there is room, or nothing may go. may_drop: as in
    `plan`, but never for a full disk, because people can make room there."""
    pages = 2 * more // PAGE
    if used(db) + pages <= size.full:
        return None
    return plan(db, size.full - size.pages // SHARE - pages, acked, may_drop=may_drop and not size.held)


def plan(db: sqlite3.Connection, goal: int, acked: int, *, may_drop: bool) -> Cut | None:
    """The cut after which about `goal` pages are in use; None when nothing may go or has to.

    acked     the broker has the rows up to this one
    may_drop  whether rows that nobody has may go
    """
    pages = used(db)
    oldest, head = db.execute("SELECT (SELECT min(seq) FROM ledger), (SELECT max(seq) FROM ledger)").fetchone()
    if oldest is None or pages <= goal:
        return None
    rows = head - oldest + 1
    wanted = oldest - 1 + -(-rows * (pages - goal) // pages)
    signed = int(meta(db, "signed") or 0) - 1
    for limit in (min(acked, signed), min(acked, head - 1), head - 1 if may_drop else 0):
        # A part of what is wanted is enough, but never a few rows with each commit.
        if min(wanted, limit) >= oldest + (wanted - oldest) // 4:
            return _cut(db, min(wanted, limit), acked)
    return None


def carry_out(db: sqlite3.Connection, cut: Cut) -> None:
    """Delete the rows and move the anchor, in the caller's transaction."""
    db.execute("DELETE FROM ledger WHERE seq <= ?", (cut.last,))
    facts = [("anchor_seq", str(cut.last)), ("anchor_hash", cut.hash.hex())]
    if cut.first:
        facts.append(("dropped", f"{cut.first}-{cut.last}"))
    db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", facts)


def told(cut: Cut | None, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The row that says which rows go though nobody has them; its clocks are those of the last of `rows`, the
    batch that it goes with."""
    if cut is None or not cut.first:
        return []
    clocks = {key: rows[-1][key] for key in ("at", "up", "boot") if key in rows[-1]}
    return [{**clocks, "kind": "dropped", "first": cut.first, "last": cut.last, "hash": cut.hash.hex()}]


def meta(db: sqlite3.Connection, key: str) -> str:
    """A fact about the store; empty when it is not there."""
    found = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return str(found[0]) if found else ""


def _cut(db: sqlite3.Connection, last: int, acked: int) -> Cut:
    (digest,) = db.execute("SELECT hash FROM ledger WHERE seq = ?", (last,)).fetchone()
    if last <= acked:
        return Cut(last, digest)
    first, _, end = meta(db, "dropped").partition("-")
    return Cut(last, digest, int(first) if end == str(acked) else acked + 1)


def _pragma(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])
