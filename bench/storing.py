"""How fast rows are accepted and what that costs a disk, beside SQLite; whether a start depends on their number."""

import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from agent.ledger import canonical, link
from agent.model import Batch
from agent.store import SCHEMA, Store
from bench.drain import Row, rows


def accepted(folder: Path, count: float) -> list[Row]:
    """Rows made durable a second, beside bare SQLite inserting the same bytes in the same batches: finished ones,
    and such as it has to spell and to chain, too."""
    found = []
    for batch in (1, 10, 100):
        many = max(200, int(count) // (1 if batch > 1 else 5)) // batch * batch
        turns = [
            (_commit(folder, many, batch), _insert(folder, many, batch), _insert(folder, many, batch, chained=True))
            for _ in range(9)
        ]
        mine, bare, chained = (statistics.median(column) for column in zip(*turns, strict=True))
        to_bare, to_chained = (statistics.median(turn[n] / turn[0] for turn in turns) for n in (1, 2))
        found.append(
            (
                f"accepted, durable, {batch} a commit",
                f"{many / mine:,.0f} rows/s",
                f"bare SQLite (WAL, FULL), the same bytes {many / bare:,.0f} rows/s;"
                f" if it spells and chains them {many / chained:,.0f} rows/s",
                f"{to_bare:.2f} x; {to_chained:.2f} x",
            )
        )
    return found


def _commit(folder: Path, count: int, batch: int) -> float:
    backlog = rows(count)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        store = Store(Path(name) / "data", "ATM-0001")
        begun = time.perf_counter()
        for begin in range(0, count, batch):
            store.commit(Batch(rows=backlog[begin : begin + batch]))
        took = time.perf_counter() - begun
        store.close()
    return took


def _insert(folder: Path, count: int, batch: int, *, chained: bool = False) -> float:
    made = rows(count)
    bodies = [canonical({**row, "seq": seq}) for seq, row in enumerate(made, 1)]
    digest = bytes(32)

    def entry(seq: int) -> tuple[int, bytes, bytes]:
        nonlocal digest
        body = canonical({**made[seq - 1], "seq": seq}) if chained else bodies[seq - 1]
        digest = link(digest, body) if chained else digest
        return seq, body, digest

    with tempfile.TemporaryDirectory(dir=folder) as name:
        db = sqlite3.connect(Path(name) / "bare.db", isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.executescript(SCHEMA)
        begun = time.perf_counter()
        for begin in range(0, count, batch):
            db.execute("BEGIN IMMEDIATE")
            entries = [entry(seq) for seq in range(begin + 1, begin + batch + 1)]
            db.executemany("INSERT INTO ledger VALUES (?, ?, ?)", entries)
            db.execute("COMMIT")
        took = time.perf_counter() - begun
        db.close()
    return took


def backlog(folder: Path, count: float) -> list[Row]:
    """Agent process start -> its control socket answers, with a backlog of none, of a tenth, and of `count`, in
    turns: the medians, and the median of the ratios of a turn."""
    sizes = (0, int(count) // 10, int(count))
    for many in sizes:
        site = folder / str(many)
        site.mkdir()
        (site / "t.toml").write_text(
            '[terminal]\norg = "coop"\nid = "ATM-0001"\ndata = "data"\n[control]\nsocket = "s"\n'
        )
        store = Store(site / "data", "ATM-0001")
        made = rows(min(many, 10_000))
        for _ in range(many // 10_000):
            store.commit(Batch(rows=made))
        store.close()
    turns = [[_start(folder / str(many)) for many in sizes] for _ in range(9)]
    middle = [statistics.median(column) for column in zip(*turns, strict=True)]
    return [
        (
            f"start with {many:,} rows in the store",
            f"{middle[n]:.0f} ms ({(folder / str(many) / 'data/store.db').stat().st_size / 1e6:.0f} MB)",
            f"{middle[0]:.0f} ms with none, in turns",
            f"{statistics.median(turn[n] / turn[0] for turn in turns):.2f} x",
        )
        for n, many in enumerate(sizes)
        if many
    ]


def _start(site: Path) -> float:
    """ms from the start of an agent's process until it answers."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "agent", "--config", str(site / "t.toml")]
    agent = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not _told(site / "s"):
        time.sleep(0.001)
    took = (time.perf_counter() - begun) * 1000
    agent.terminate()
    agent.wait()
    return took


def _told(path: Path) -> bool:
    """Whether the agent answers at its control socket."""
    with socket.socket(socket.AF_UNIX) as line:
        try:
            line.connect(str(path))
            line.sendall(b'{"do": "devices"}\n')
            return bool(line.makefile("rb").readline())
        except OSError:
            return False


DISK = """
import sys, threading, time
from pathlib import Path
from agent.config import parse
from agent.pushing.inforce import Begun
from agent.model import Heard, Reading
from agent.service import Service
from bench.storing import written
folder, events = Path(sys.argv[1]), int(sys.argv[2])
text = '[terminal]\\norg = "coop"\\nid = "ATM-0001"\\ndata = "data"\\n[control]\\nsocket = "s"\\n'
text += '[devices.dispenser1]\\nkind = "dispenser"\\nport = "./none"\\n'
service = Service(Begun(parse(text.encode(), folder), Path(), b""))
threading.Thread(target=service.run, daemon=True).start()
store = service._store
def say(unit, n):
    service._queue.put(Heard("dispenser1", (Reading(f"cassette.{unit}.count", n, time.monotonic()),)))
for _ in range(10):
    for unit in range(1, 8):
        say(unit, 0)
    time.sleep(0.5)
first, head = written(), store.head
for n in range(1, events + 1):
    before = store.head
    say(n % 7 + 1, n)
    while store.head == before:
        time.sleep(0.001)
    store.settle(store.epoch, store.head)
    store.flush()
print(*((after - before) / (store.head - head) for before, after in zip(first, written())))
"""


def written() -> tuple[int, int]:
    """Bytes that this process has written: as its calls say, and as the kernel counts, in whole pages of 4096 that
    it has to write."""
    told = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(told["wchar"]), int(told["write_bytes"])


def disk(folder: Path, events: float) -> list[Row]:
    """Bytes that the agent writes for each change, each a commit and acknowledged, checkpoints of the log included;
    beside bare SQLite with rows of the same size."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        done = subprocess.run(
            [sys.executable, "-c", DISK, name, str(int(events))], capture_output=True, text=True, check=True
        )
    mine = [float(word) for word in done.stdout.split()]
    bare = {size: _bare(folder, int(events) // size * size, size) for size in (1, 4, 10)}
    return [
        (
            f"disk, a change, each durable at once, {what}",
            f"{mine[n] / 1000:.1f} kB",
            "bare SQLite (WAL, FULL) inserting a row: "
            + ", ".join(f"{size} a commit {value[n] / 1000:.1f} kB" for size, value in bare.items()),
            f"{mine[n] / bare[1][n]:.2f} x",
        )
        for n, what in enumerate(("by the write calls", "by the kernel, whole pages of 4 kB"))
    ]


def _bare(folder: Path, events: int, size: int) -> list[float]:
    with tempfile.TemporaryDirectory(dir=folder) as name:
        db = sqlite3.connect(Path(name) / "bare.db", isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("CREATE TABLE ledger (seq INTEGER PRIMARY KEY, row BLOB NOT NULL, hash BLOB NOT NULL)")
        first = written()
        for _ in range(events // size):
            db.execute("BEGIN IMMEDIATE")
            db.executemany("INSERT INTO ledger (row, hash) VALUES (?, ?)", [(bytes(230), bytes(32))] * size)
            db.execute("COMMIT")
        db.close()
        return [(after - before) / events for before, after in zip(first, written(), strict=True)]


MEASURES: tuple[tuple[Callable[[Path, float], list[Row]], float, float], ...] = (
    (accepted, 20_000, 1_000),
    (backlog, 1_000_000, 100_000),
    (disk, 600, 50),
)
