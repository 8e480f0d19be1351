"""This file knows how the rows that are read at every start (`kept`) come from a store that was set aside into the
new one: a key ceremony must not be forgotten because a disk has a bad block.

What can be read of them is taken, one by one; the first that cannot ends it. They keep their own numbers inside,
and the epoch and hash of their place in the old chain; their keys in the table are far below zero, so that they
come before the rows of the new chain, and those of an older store before those of a newer one.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

FAR = 10**15


def carry(old: Path, terminal: str, epoch: str, db: sqlite3.Connection) -> str:
    """Copy the kept rows of a store file of this terminal, whose chain is `epoch`, in the caller's transaction.
    Returns what came of it, as a sentence; empty when there was none."""
    rows: list[tuple[int, bytes, bytes | None, str]] = []
    try:
        with closing(sqlite3.connect(f"file:{old}?mode=ro", uri=True)) as source:
            found = source.execute("SELECT value FROM meta WHERE key = 'terminal'").fetchone()
            if found != (terminal,):
                return ""
            for row in source.execute("SELECT seq, CAST(row AS BLOB), hash, epoch FROM kept ORDER BY seq"):
                rows.append(row)
        broken = ""
    except sqlite3.Error as error:
        broken = f", and then no more could be read ({error}): what the ledger knew of keys may be lost"
    db.executemany(
        "INSERT OR IGNORE INTO kept VALUES (?, ?, ?, ?)", [(s - FAR, r, h, e or epoch) for s, r, h, e in rows]
    )
    return f"{len(rows)} rows of ceremonies were carried over{broken}" if rows or broken else ""
