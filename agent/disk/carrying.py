"""This file knows how the rows that are read at every start (`kept`) come from a store that was set aside into the
new one: a key ceremony must not be forgotten because a disk has a bad block, nor a false copy become a true one.

What can be read of them is taken, one by one; the first that cannot ends it. A row whose place is still in the old
ledger must be what that has, or, should that one be rotten, fit its hashes; of one that was pruned, or was carried
over before, there is nothing but the copy. Where the ledger cannot be read at all the copy is taken, and said to be
unchecked: it is all that is left.

They keep their own numbers inside, and the epoch and hash of their place in the old chain; their keys in the table
are far below zero, so that they come before the rows of the new chain, and those of an older store before those of
a newer one.
"""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from agent.disk.reading import KEPT
from agent.ledger import link

FAR = 10**15
_Row = tuple[int, bytes, bytes | None, str]


def carry(old: Path, terminal: str, epoch: str, db: sqlite3.Connection) -> str:
    """Copy the kept rows of a store file of this terminal, whose chain is `epoch`, in the caller's transaction.
    Returns what came of it, as a sentence; empty when there was none."""
    rows: list[_Row] = []
    left: list[int] = []
    unchecked = 0
    broken = ""
    try:
        with closing(sqlite3.connect(f"file:{old}?mode=ro", uri=True)) as source:
            meta = dict(source.execute("SELECT key, value FROM meta").fetchall())
            if meta.get("terminal", terminal) != terminal:
                return ""
            anchor = str(meta.get("anchor_seq", ""))
            for row in source.execute("SELECT seq, CAST(row AS BLOB), hash, epoch FROM kept ORDER BY seq"):
                verdict = _verdict(source, row, int(anchor) if anchor.isdecimal() else 0)
                unchecked += verdict == "unchecked"
                if "terminal" not in meta or verdict == "false":
                    left.append(row[0])
                else:
                    seq, copy, digest, of = row
                    rows.append((seq, copy, None if verdict == "placeless" else digest, of))
    except sqlite3.Error as error:
        broken = f", and then no more could be read ({error}): what the ledger knew of keys may be lost"
    db.executemany(
        "INSERT OR IGNORE INTO kept VALUES (?, ?, ?, ?)", [(s - FAR, r, h, e or epoch) for s, r, h, e in rows]
    )
    if not (rows or left or broken):
        return ""
    beside = f", {unchecked} of them unchecked because the ledger beside them cannot be read" if unchecked else ""
    false = f", not those of {', '.join(map(str, left))}: they are not what the ledger has" if left else ""
    return f"{len(rows)} rows of ceremonies were carried over{beside}{false}{broken}"


def _verdict(source: sqlite3.Connection, row: _Row, anchor: int) -> str:
    """Whether a copy is what the ledger has: "true", "placeless" when its hash is not, "false", or "unchecked"."""
    seq, copy, digest, _ = row
    try:
        content = json.loads(copy)
        if content["kind"] not in KEPT or (seq > 0 and content["seq"] != seq):
            return "false"
    except (ValueError, TypeError, KeyError, RecursionError):
        return "false"
    if seq <= anchor:
        return "true"
    try:
        one, two = (
            "SELECT hash FROM ledger WHERE seq = ?",
            "SELECT CAST(row AS BLOB), hash FROM ledger WHERE seq = ?",
        )
        before, found = source.execute(one, (seq - 1,)).fetchone(), source.execute(two, (seq,)).fetchone()
    except sqlite3.Error:
        return "unchecked"
    if found is None or (found[0] != copy and not (before and link(before[0], copy) == found[1])):
        return "false"
    return "true" if digest == found[1] else "placeless"
