"""This file knows how to read a store without writing: rows, points and faults, and whether the chain holds.

The chain of a store begins at its anchor: the last row that was pruned (agent/disk/pruning.py), or 0.
"""

import json
import os
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent import ledger
from agent.errors import LedgerError, StoreCorrupt, StoreError, StoreFull
from agent.model import Fault, StoredPoint

KEPT = frozenset({"ceremony", "sealed"})
"""Kinds of rows that are read again at every start, however old; a copy of them is found without reading all."""
CHUNK = 1000
"""Rows of one read while the whole chain is checked."""


_DAMAGED = re.compile("malformed|Could not decode")
NOTHING = 64 * 1024
"""Free bytes of a disk that are as good as none: less than what SQLite may need to open a store."""


def is_full(path: Path) -> bool:
    """Whether the disk of a file, or of a folder, is full."""
    try:
        found = os.statvfs(path.parent)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < NOTHING


@contextmanager
def border(path: Path) -> Iterator[None]:
    """Translate SQLite's errors: damage is StoreCorrupt, no room StoreFull, all else StoreError.

    What is stored and cannot be read as what it should be is damage, too; but not what is to be stored."""
    try:
        yield
    except UnicodeEncodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise StoreCorrupt(f"{path} is damaged (it holds a value that cannot be read: {error})") from error
    except sqlite3.DatabaseError as error:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")) or _DAMAGED.search(str(error)):
            raise StoreCorrupt(f"{path} is damaged ({error})") from error
        # SQLite says "disk I/O error" where a log or its index does not fit any more.
        if name == "SQLITE_FULL" or (name.startswith("SQLITE_IOERR") and is_full(path)):
            raise StoreFull(f"there is no room for {path} ({error}): make room on its disk") from error
        raise StoreError(f"{path} cannot be used ({error}): check the disk and the folder's owner") from error


@dataclass(frozen=True, slots=True)
class Ahead:
    """What could not be stored yet: the last value of points by (device, point); faults by (device, point, code),
    None where one has ended."""

    points: Mapping[tuple[str, str], StoredPoint] = field(default_factory=dict)
    faults: Mapping[tuple[str, str, str], Fault | None] = field(default_factory=dict)


class Reader:
    """A read-only view of a store file, for one thread. Sees each commit as a whole, never half of one.

    ahead    gives what the file does not have yet; points and faults are told with it, rows never are
    opened   which of the files is read that the store's name had one after another (Store.opened)"""

    def __init__(self, path: Path, ahead: Callable[[], Ahead] = Ahead, opened: int = 0) -> None:
        self.path, self._ahead, self.opened = path, ahead, opened
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

    def number(self, key: str) -> int:
        """A fact that is a number; 0 when it is not there."""
        with border(self.path):
            return int(self.meta(key) or 0)

    def head(self) -> tuple[int, bytes]:
        """(seq, hash) of the last row."""
        with border(self.path):
            found = self._db.execute(
                "SELECT seq, CAST(hash AS BLOB) FROM ledger ORDER BY seq DESC LIMIT 1"
            ).fetchone()
        return (int(found[0]), bytes(found[1])) if found else self._begin()

    @property
    def anchor(self) -> int:
        """The last row that was pruned, 0 when none was: the chain begins after it (agent/ledger.py)."""
        return self.number("anchor_seq")

    def dropped(self) -> tuple[int, int]:
        """The first and the last of the rows that went though nobody has them, as far as they go up to the anchor;
        (0, 0) when there were none."""
        with border(self.path):
            first, _, last = self.meta("dropped").partition("-")
            return int(first or 0), int(last or 0)

    def hash_at(self, seq: int) -> bytes:
        """The hash after row `seq`; of 0 it is the genesis hash. Raises LedgerError when the row is not there."""
        if seq == 0:
            return ledger.genesis(self.terminal, self.epoch)
        if seq == (begin := self._begin())[0]:
            return begin[1]
        with border(self.path):
            found = self._db.execute(
                "SELECT hash FROM ledger WHERE seq = ?1 UNION ALL SELECT hash FROM kept WHERE seq = ?1", (seq,)
            ).fetchone()
        if found is None or found[0] is None:
            raise LedgerError(seq, f"there is no row {seq} in {self.path}")
        return bytes(found[0])

    def _begin(self) -> tuple[int, bytes]:
        """The anchor and the hash after it, of one moment."""
        with border(self.path):
            found = dict(self._db.execute("SELECT key, value FROM meta WHERE key GLOB 'anchor_*'").fetchall())
            if not found:
                return 0, ledger.genesis(self.terminal, self.epoch)
            return int(str(found.get("anchor_seq"))), bytes.fromhex(str(found.get("anchor_hash")))

    def rows(self, after: int, limit: int) -> list[tuple[int, bytes, bytes]]:
        """Up to `limit` rows of (seq, canonical bytes, hash) that follow `after`."""
        with border(self.path):
            return self._db.execute(
                "SELECT seq, CAST(row AS BLOB), hash FROM ledger WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit)
            ).fetchall()

    def kept_place(self, row: Mapping[str, Any]) -> tuple[str, str]:
        """(epoch, hash) of a row of `kept`: which chain it is in, and that chain's hash (hex) after it. Raises
        LedgerError when it is not there."""
        with border(self.path):
            found = self._db.execute(
                "SELECT epoch, hash FROM kept WHERE CAST(row AS BLOB) = ?", (ledger.canonical(row),)
            ).fetchone()
        if found is None or found[1] is None:
            raise LedgerError(int(row["seq"]), f"the place of row {row['seq']} in its chain is not known any more")
        return found[0] or self.epoch, bytes(found[1]).hex()

    def kept(self) -> list[dict[str, Any]]:
        """Every row whose kind is in KEPT, oldest first; those of a store that was set aside come before.

        Raises LedgerError when one is not as in the ledger."""
        with border(self.path):
            found = self._db.execute(
                "SELECT kept.seq, CAST(kept.row AS BLOB), CAST(ledger.row AS BLOB) FROM kept"
                " LEFT JOIN ledger USING (seq) ORDER BY kept.seq"
            ).fetchall()
        # Of those that were pruned, or carried over, there is nothing but the copy.
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
        thousand rows, and at last {"verified": rows that were computed, "from": the first of them, "epoch", "head",
        "hash"} or {"broken": seq, "why": sentence}.
        """
        head, _ = self.head()
        seq, digest = self._begin()
        begin = seq
        while rows := self.rows(seq, CHUNK):
            try:
                seq, digest = ledger.verify(rows, digest, seq)
            except LedgerError as error:
                anchor, after = self._begin()
                if anchor <= seq:
                    yield {"broken": error.seq, "why": str(error)}
                    return
                begin, seq, digest = anchor, anchor, after  # these rows were pruned meanwhile
            yield {"progress": [seq, head]}
        try:
            self.check_begin()
            self.compare_kept()
        except LedgerError as error:
            yield {"broken": error.seq, "why": str(error)}
            return
        verified = {"verified": seq - begin, "from": begin + 1}
        yield {**verified, "epoch": self.epoch, "head": seq, "hash": digest.hex()}

    def check_begin(self) -> None:
        """Raises LedgerError when the rows do not begin right after the anchor: somebody has moved it, so that the
        rows before it are not looked at."""
        with border(self.path):
            anchor, first = self._db.execute(
                "SELECT (SELECT value FROM meta WHERE key = 'anchor_seq'), (SELECT min(seq) FROM ledger)"
            ).fetchone()  # in one statement: rows may be pruned meanwhile
            anchor = int(anchor or 0)
        if first is not None and first != anchor + 1:
            raise LedgerError(
                first, f"the chain is said to begin after row {anchor}, and the rows begin with {first}"
            )

    def points(self, device: str = "") -> list[StoredPoint]:
        """The last value of every point of a device (or of all devices), by name."""
        with border(self.path):
            found = self._db.execute(
                "SELECT device, point, value, known, at, raw, inferred FROM points WHERE ?1 IN ('', device)",
                (device,),
            ).fetchall()
            stored = {
                (d, p): StoredPoint(d, p, json.loads(v), bool(k), int(at), raw, bool(i))
                for d, p, v, k, at, raw, i in found
            }
        newer = {key: point for key, point in self._ahead().points.items() if device in ("", key[0])}
        return list((stored | newer).values())

    def faults(self) -> list[Fault]:
        """The open faults, oldest first."""
        with border(self.path):
            found = self._db.execute("SELECT device, point, code, value, since, raw FROM faults").fetchall()
            stored: dict[tuple[str, str, str], Fault | None] = {
                (d, p, code): Fault(d, p, code, json.loads(value), int(since), raw)
                for d, p, code, value, since, raw in found
            }
        both = (stored | dict(self._ahead().faults)).values()
        return sorted((fault for fault in both if fault), key=lambda fault: fault.since)
