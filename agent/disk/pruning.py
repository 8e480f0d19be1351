"""This file knows how a store stays below its size: what goes first, how far, and where the chain begins then.

    the file    at most `file` bytes; SQLite itself refuses a page more (max_page_count)
    its log     (-wal) a quarter of the cap; a commit that would not fit waits until the log was taken into the file
    beside it   -shm, 32 kB and less; stores that were set aside have bounds of their own (agent/disk/aside.py)

To look at both costs as much as a small commit, so it is done when what was committed since may have used up what
was to spare then.

Nothing goes while there is room. Then a share of the file is to go, from the oldest end, for the chain has no
holes:

    1. rows that the broker has, up to a row that a checkpoint covers: whoever had changed the hash that the chain
       then begins with could not meet that signature
    2. rows that the broker has, covered or not: an agent without a key signs nothing
    3. rows that nobody has. In the same transaction a row `dropped` says which, and the hash after them, so that
       receivers know the gap from a loss. Ranges that touch are one: such a row may itself become the oldest.

They go slice by slice, each a transaction of its own (agent/disk/room.py), because what a transaction deletes is
written to the log: on a full disk that has to fit into what was held in reserve.

Rows that are read again at every start are not lost with their place in the chain: `kept` has a copy and its hash.
"""

import json
import os
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import StoreError

SHARE = 16
"""One part in so many of the file goes when something has to: never a few rows with each commit."""
SLICE = 512 * 1024
"""Bytes of rows, and of free pages, that go in one transaction."""
LEAST_LOG = 256 * 1024
LOG = 1024 * 1024
"""Bytes of the log that are taken into the file: what the agent holds in reserve (agent/disk/datafolder.py) must
take them when the disk is full."""
MORE = 512 * 1024
"""Bytes by which the file may still grow into that reserve."""
ANEW = frozenset({"clock", "start", "store"})
"""Kinds of rows with which other clocks begin."""
BESIDE = 64
"""Bytes of the file that a row takes beside its own, about."""
COMMIT, ITEM = 64 * 1024, 8 * 1024
"""Bytes that a commit, and each point or fault of it, may write beside twice its rows: more than it ever does."""


@dataclass(frozen=True, slots=True)
class Size:
    """How large a store may become, from its cap in bytes. held: bytes of the file that it may not outgrow now,
    because the disk is full; 0 when it is not."""

    cap: int
    held: int = 0

    @property
    def log(self) -> int:
        """Bytes of the log."""
        return max(LEAST_LOG, self.cap // 4)

    @property
    def file(self) -> int:
        """Bytes of the file."""
        most = self.cap - self.log
        return min(most, self.held) if self.held else most

    @property
    def slice(self) -> int:
        """Bytes that one transaction may delete."""
        return min(SLICE, self.log // 4)

    @property
    def full(self) -> int:
        """Bytes in use above which rows go: one commit and what else a row leaves behind still fit above them."""
        return self.file - self.file // SHARE

    def bound(self, db: sqlite3.Connection) -> None:
        """Hold a new connection to it. What is larger, because the cap was lowered, is for `shrink`."""
        page = _pragma(db, "page_size")
        db.execute(f"PRAGMA max_page_count = {self.file // page}").fetchone()
        db.execute(f"PRAGMA journal_size_limit = {self.log}").fetchone()
        db.execute(f"PRAGMA wal_autocheckpoint = {min(LOG, self.log // 4) // page}").fetchone()

    def hold(self, db: sqlite3.Connection) -> "Size":
        """The disk is full: from now on live within what the file has, and the last of the reserve. A log that
        cannot be taken into the file, because that cannot grow, could not even hold what makes room."""
        into_file(db)
        tight = self if self.held else Size(self.cap, _pragma(db, "page_count") * _pragma(db, "page_size") + MORE)
        tight.bound(db)
        return tight

    def is_passed(self, db: sqlite3.Connection) -> bool:
        """Whether the file is larger than it may be: the cap was lowered."""
        return _pragma(db, "page_count") > self.file // _pragma(db, "page_size")

    def shrink(self, db: sqlite3.Connection) -> bool:
        """Give back a slice of the free pages beyond the cap; returns whether that has to go on."""
        page, before = _pragma(db, "page_size"), _pragma(db, "page_count")
        pages = min(before - self.file // page, _pragma(db, "freelist_count"), self.slice // page)
        if pages > 0:
            db.executescript(f"PRAGMA incremental_vacuum({pages})")  # `execute` would end after the first of them
            into_file(db)
            self.bound(db)
        # A file that was made without auto_vacuum keeps its size, and uses its free pages again.
        return self.is_passed(db) and (pages <= 0 or _pragma(db, "page_count") < before)

    def room(self, db: sqlite3.Connection) -> int:
        """Bytes that the file can take."""
        page = _pragma(db, "page_size")
        return _pragma(db, "freelist_count") * page + max(0, self.file - _pragma(db, "page_count") * page)

    def spare(self, db: sqlite3.Connection, path: Path) -> int:
        """Bytes that may be written until this has to be looked at again."""
        return min(self.full - used(db), self.log - _log(path))

    def empty_log(self, db: sqlite3.Connection, path: Path, more: int) -> None:
        """See that `more` bytes of rows fit into the log: take it into the file. Raises StoreError while another
        program reads an old state of the store, which would let the log grow without end."""
        have = _log(path)
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
    """Bytes of the file that hold something."""
    return (_pragma(db, "page_count") - _pragma(db, "freelist_count")) * _pragma(db, "page_size")


def cost(more: int, items: int) -> int:
    """Bytes that a commit takes at most, of the log as of the file: of rows of `more` bytes, points and faults."""
    return 2 * more + COMMIT + ITEM * items


def due(db: sqlite3.Connection, size: Size, more: int, acked: int, *, may_drop: bool) -> Cut | None:
    """The cut that makes room for `more` bytes of rows; None when there is room, or nothing may go. may_drop: as in
    `plan`, but never for a full disk, because people can make room there."""
    if used(db) + 2 * more <= size.full:
        return None
    return plan(db, size.full - size.file // SHARE - 2 * more, acked, may_drop=may_drop and not size.held)


def plan(db: sqlite3.Connection, goal: int, acked: int, *, may_drop: bool) -> Cut | None:
    """The cut after which about `goal` bytes are in use; None when nothing may go or has to.

    acked     the broker has the rows up to this one
    may_drop  whether rows that nobody has may go
    """
    now = used(db)
    oldest, head = db.execute("SELECT (SELECT min(seq) FROM ledger), (SELECT max(seq) FROM ledger)").fetchone()
    if oldest is None or now <= goal:
        return None
    rows = head - oldest + 1
    wanted = oldest - 1 + -(-rows * (now - goal) // now)
    signed = int(meta(db, "signed") or 0) - 1
    for limit in (min(acked, signed), min(acked, head - 1), head - 1 if may_drop else 0):
        # A part of what is wanted is enough, but never a few rows with each commit.
        if min(wanted, limit) >= oldest + (wanted - oldest) // 4:
            return _cut(db, min(wanted, limit), acked)
    return None


def into_file(db: sqlite3.Connection) -> None:
    """Take the log into the file, as far as nobody reads what was before. It keeps its size: others would take what
    it gave back to a full disk."""
    db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def piece(db: sqlite3.Connection, cut: Cut, most: int, acked: int) -> Cut:
    """The first part of a cut: rows of at most `most` bytes, but at least one row."""
    last = taken = 0
    for seq, size in db.execute("SELECT seq, length(row) FROM ledger WHERE seq <= ? ORDER BY seq", (cut.last,)):
        taken += size + BESIDE
        if last and taken > most:
            break
        last = seq
    return _cut(db, last or cut.last, acked)


def carry_out(db: sqlite3.Connection, cut: Cut) -> None:
    """Delete the rows and move the anchor, in the caller's transaction."""
    db.execute("DELETE FROM ledger WHERE seq <= ?", (cut.last,))
    facts = [("anchor_seq", str(cut.last)), ("anchor_hash", cut.hash.hex())]
    if cut.first:
        facts.append(("dropped", f"{cut.first}-{cut.last}"))
    db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", facts)


def told(db: sqlite3.Connection, cut: Cut, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The row that says which rows go though nobody has them. It comes before `rows`, for which they go, and has
    the clocks of the first of these; or of the row before it, when they hold only from that first one on."""
    if not cut.first:
        return []
    clocked = rows[0]
    if clocked["kind"] in ANEW:
        (body,) = db.execute("SELECT CAST(row AS BLOB) FROM ledger ORDER BY seq DESC LIMIT 1").fetchone()
        clocked = json.loads(body)
    clocks = {key: clocked[key] for key in ("at", "up", "boot") if key in clocked}
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


def _log(path: Path) -> int:
    """Bytes of a store's log."""
    try:
        return os.stat(f"{path}-wal").st_size
    except FileNotFoundError:
        return 0


def _pragma(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])
