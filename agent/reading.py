"""This file knows how a store file is read, by any thread and any process, also while the agent writes it."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent import ledger
from agent.errors import LedgerError, StoreCorrupt, StoreError
from agent.model import Fault, StoredPoint

KEPT = frozenset({"ceremony", "sealed"})
"""Kinds of rows that are read again at every start, however old; a copy of them is found without reading all."""
CHUNK = 1000
"""Rows of one read while the whole chain is checked."""


@contextmanager
def border(path: Path) -> Iterator[None]:
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
        with border(path):
            self._db = sqlite3.connect(
                f"file:{path}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
            )
            self.epoch = self.meta("epoch")
            self.terminal = self.meta("terminal")

    def close(self) -> None:
        self._db.close()

    def meta(self, key: str) -> str:
        """A fact about the store: epoch, terminal, acked. Empty when it is not there."""
        with border(self.path):
            found = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return str(found[0]) if found else ""

    def head(self) -> tuple[int, bytes]:
        """(seq, hash) of the last row."""
        with border(self.path):
            found = self._db.execute("SELECT seq, hash FROM ledger ORDER BY seq DESC LIMIT 1").fetchone()
        return (int(found[0]), bytes(found[1])) if found else (0, ledger.genesis(self.terminal, self.epoch))

    @property
    def anchor(self) -> int:
        """The last row that was pruned, 0 when none was: the chain begins after it (agent/ledger.py)."""
        return int(self.meta("anchor_seq") or 0)

    def hash_at(self, seq: int) -> bytes:
        """The hash after row `seq`; of 0 it is the genesis hash. Raises LedgerError when the row is not there."""
        if seq in (0, self.anchor):
            return bytes.fromhex(self.meta("anchor_hash")) if seq else ledger.genesis(self.terminal, self.epoch)
        with border(self.path):
            found = self._db.execute("SELECT hash FROM ledger WHERE seq = ?", (seq,)).fetchone()
        if found is None:
            raise LedgerError(seq, f"there is no row {seq} in {self.path}")
        return bytes(found[0])

    def rows(self, after: int, limit: int) -> list[tuple[int, bytes, bytes]]:
        """Up to `limit` rows of (seq, canonical bytes, hash) that follow `after`."""
        with border(self.path):
            return self._db.execute(
                "SELECT seq, CAST(row AS BLOB), hash FROM ledger WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit)
            ).fetchall()

    def kept(self) -> list[dict[str, Any]]:
        """Every row whose kind is in KEPT, oldest first. Raises LedgerError when one is not as in the ledger."""
        with border(self.path):
            found = self._db.execute(
                "SELECT kept.seq, CAST(kept.row AS BLOB), CAST(ledger.row AS BLOB) FROM kept"
                " LEFT JOIN ledger USING (seq) ORDER BY kept.seq"
            ).fetchall()
        # Of those that were pruned there is nothing but the copy.
        anchor = self.anchor
        for seq, copy, row in found:
            if seq > anchor and copy != row:
                raise LedgerError(seq, f"the copy of row {seq} that tells of keys is not what the ledger has")
        try:
            rows = [json.loads(copy) for _, copy, _ in found]
        except (ValueError, RecursionError) as error:
            raise LedgerError(anchor, "a copy of a pruned row that tells of keys cannot be read") from error
        return rows

    def compare_kept(self) -> None:
        """Check that `kept` has every row of the chain that it should have, as the ledger has it. Reads the whole
        ledger: a second for a million rows. Raises LedgerError for one that is lost or changed."""
        self.kept()
        with border(self.path):
            found = self._db.execute(
                "SELECT seq, CAST(row AS BLOB) FROM ledger WHERE seq NOT IN (SELECT seq FROM kept)"
                " AND (instr(CAST(row AS BLOB), ?) OR instr(CAST(row AS BLOB), ?)) ORDER BY seq",
                [f'"kind":"{kind}"'.encode() for kind in sorted(KEPT)],
            ).fetchall()
        for seq, row in found:
            try:
                ours = json.loads(row)["kind"] in KEPT  # and not only something inside of it
            except (ValueError, TypeError, KeyError, RecursionError):
                ours = True
            if ours:
                raise LedgerError(seq, f"row {seq} tells of keys and is not among the copies read at a start")

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
        """Compute the whole chain again, and compare `kept` with it: {"progress": [done, total]} after each
        thousand rows, and at last {"verified": rows, "epoch", "head", "hash"} or {"broken": seq, "why": sentence}.
        """
        head, _ = self.head()
        seq, digest = self.anchor, self.hash_at(self.anchor)
        try:
            while rows := self.rows(seq, CHUNK):
                seq, digest = ledger.verify(rows, digest, seq)
                yield {"progress": [seq, head]}
            self.compare_kept()
        except LedgerError as error:
            yield {"broken": error.seq, "why": str(error)}
            return
        yield {"verified": seq, "epoch": self.epoch, "head": seq, "hash": digest.hex()}

    def points(self, device: str = "") -> list[StoredPoint]:
        """The last value of every point of a device (or of all devices), by name."""
        with border(self.path):
            found = self._db.execute(
                "SELECT device, point, value, known, at, raw, inferred FROM points WHERE ?1 IN ('', device)",
                (device,),
            ).fetchall()
        return [StoredPoint(d, p, json.loads(v), bool(k), at, raw, bool(i)) for d, p, v, k, at, raw, i in found]

    def faults(self) -> list[Fault]:
        """The open faults, oldest first."""
        with border(self.path):
            found = self._db.execute(
                "SELECT device, point, code, value, since, raw FROM faults ORDER BY since"
            ).fetchall()
        return [Fault(d, p, code, json.loads(v), since, raw) for d, p, code, v, since, raw in found]
