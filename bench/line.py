"""What a day costs: bytes on the line with TLS, bytes on the disk, and whether memory grows.

The day is shortened: everything that the uplink waits for (linger, refresh, keep-alive) and the changes themselves
come FASTER times as fast, and the bytes of a few such hours are scaled to 24. What does not scale is said apart:
the TLS handshake and the birth, once a connection.
"""

import random
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from agent import publishing
from agent.config import Config, parse
from agent.model import Heard, Reading
from agent.posting import of_kernel
from agent.service import Service
from tests.authority import Authority
from tests.uplinks import Mosquitto
from tests.whole import wait

Row = tuple[str, str, str, str]
FASTER = 60
"""An hour is a minute."""
DEVICES, UNITS = 6, 7
"""42 values."""
THIN = {"linger": 60.0, "refresh": 3600.0, "calm": 60.0, "keepalive": 300.0}
SAVING = {"linger": 300.0, "refresh": 3600.0, "calm": 1800.0, "keepalive": 300.0}
"""Seconds of the real day, before they are shortened."""


class Toll:
    """A proxy in front of the broker that counts what passes, apart from the agent's own account: payload and
    segments of the side that faces the agent, as the kernel saw them."""

    def __init__(self, broker: int) -> None:
        self._broker = broker
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self.agent: socket.socket | None = None
        threading.Thread(target=self._carry, daemon=True).start()

    def taken(self) -> tuple[int, int]:
        """Bytes (up, down) until now, seen from the agent."""
        assert self.agent is not None
        down, up = of_kernel(self.agent) or (0, 0)
        return up, down

    def _carry(self) -> None:
        self.agent, _ = self._server.accept()
        with socket.create_connection(("127.0.0.1", self._broker)) as there:
            both = {self.agent: there, there: self.agent}
            while True:
                for side in select.select(list(both), [], [])[0]:
                    data = side.recv(65536)
                    if not data:
                        self.agent.close()
                        return
                    both[side].sendall(data)


def configured(folder: Path, authority: Authority, port: int, seconds: dict[str, float]) -> Config:
    tables = "\n".join(
        f'[devices.dispenser{n}]\nkind = "dispenser"\nport = "./none{n}"' for n in range(1, DEVICES + 1)
    )
    text = f"""
[terminal]
org = "coop"
id = "ATM-0001"
data = "data"
[broker]
host = "127.0.0.1"
port = {port}
keepalive = {round(seconds["keepalive"] / FASTER)}
[broker.tls]
ca = "{authority.ca}"
certificate = "{authority.folder}/atm.pem"
key = "{authority.folder}/atm.key"
[uplink]
linger = {seconds["linger"] / FASTER}
refresh = {seconds["refresh"] / FASTER}
[control]
socket = "s"
{tables}
"""
    return parse(text.encode(), folder)


def day(
    folder: Path, hours: int, changes: float, seconds: dict[str, float], point: str = "count"
) -> dict[str, float]:
    """Bytes of a day with so many changes a minute: {"up", "down", "once", "own"}; `once` is the connecting, `own`
    what the agent's account says of the same time."""
    (folder / "pki").mkdir()
    authority = Authority(folder / "pki")
    authority.sign("broker", "localhost", "DNS:localhost", "IP:127.0.0.1")
    authority.sign("atm", "ATM-0001")
    broker = Mosquitto(folder / "broker", authority)
    toll = Toll(broker.port)
    saved = tuple(seconds[name] / FASTER for name in ("linger", "refresh", "calm"))
    publishing.spent = lambda *_: saved  # type: ignore[assignment]
    service = Service(configured(folder, authority, toll.port, seconds))
    thread = threading.Thread(target=service.run, daemon=True)
    chance = random.Random(3)
    counts = {(d, u): 0 for d in range(1, DEVICES + 1) for u in range(1, UNITS + 1)}

    def feed() -> None:
        now = time.monotonic()
        for device in range(1, DEVICES + 1):
            said = tuple(
                Reading(f"cassette.{unit}.{point}", counts[device, unit], now) for unit in range(1, UNITS + 1)
            )
            if point == "dispensed":  # a tally: what is read is added
                counts.update({(device, unit): 0 for unit in range(1, UNITS + 1)})
            service._queue.put(Heard(f"dispenser{device}", said))

    thread.start()
    begun = time.monotonic()
    while time.monotonic() < begun + 8.0:
        feed()
        time.sleep(1.0)
    wait("the first rows", lambda: service._store.acked == service._store.head)
    once, mine = sum(toll.taken()), _own(service)
    before = toll.taken()
    end, next_feed = time.monotonic() + hours * 3600 / FASTER, 0.0
    due = time.monotonic()
    while (now := time.monotonic()) < end:
        if changes and now >= due:
            counts[chance.choice(list(counts))] += 1
            due += 60 / changes / FASTER
            feed()
        elif now >= next_feed:
            next_feed = now + 1.0
            feed()
        time.sleep(0.01)
    after, later = toll.taken(), _own(service)
    service.stop.set()
    thread.join(20.0)
    broker.stop()
    scale = 24 / hours
    return {
        "up": (after[0] - before[0]) * scale,
        "down": (after[1] - before[1]) * scale,
        "once": once,
        "own": (later - mine) * scale,
    }


def _own(service: Service) -> int:
    assert service._uplink
    return sum(service._uplink.traffic()["day"])


def line(folder: Path, hours: float) -> list[Row]:
    """Bytes of a day."""
    found = []
    cases = (
        ("nothing changes", 0.0, THIN, "count"),
        ("2 changes/min that are not urgent", 2.0, THIN, "count"),
        ("the same, when the budget is near", 2.0, SAVING, "count"),
        ("2 changes/min of cash, each at once", 2.0, SAVING, "dispensed"),
    )
    for number, (what, changes, seconds, point) in enumerate(cases):
        place = folder / str(number)
        place.mkdir()
        told = day(place, int(hours), changes, seconds, point)
        total = told["up"] + told["down"]
        text = ", ".join(f"{name} {value:g} s" for name, value in seconds.items())
        found.append(
            (
                f"line, TLS, a day: {what}",
                f"{total / 1e6:.2f} MB ({told['up'] / 1e6:.2f} up), and {told['once'] / 1e3:.0f} kB a connection",
                f"{text}; the agent's own account {told['own'] / 1e6:.2f} MB",
                f"{told['own'] / total:.2f} x",
            )
        )
    return found


DISK = """
import sys, time
from pathlib import Path
from agent.config import parse
from agent.model import Heard, Reading
from agent.service import Service
import threading
folder, events, gap = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
text = '[terminal]\\norg = "coop"\\nid = "ATM-0001"\\ndata = "data"\\n[control]\\nsocket = "s"\\n'
text += '[devices.dispenser1]\\nkind = "dispenser"\\nport = "./none"\\n'
service = Service(parse(text.encode(), folder))
threading.Thread(target=service.run, daemon=True).start()
def written():
    lines = dict(l.split(": ") for l in Path("/proc/self/io").read_text().splitlines())
    return int(lines["write_bytes"])
def say(n):
    service._queue.put(Heard("dispenser1", (Reading("cassette.1.count", n, time.monotonic()),)))
for _ in range(10):
    say(0); time.sleep(0.5)
first, begun = written(), time.monotonic()
head = service._store.head
for n in range(1, events + 1):
    say(n)
    time.sleep(gap)
print((written() - first) / max(1, service._store.head - head))
"""


def disk(folder: Path, events: float) -> list[Row]:
    """Bytes that the agent's process has written for each change, one commit each, checkpoints of the log included;
    beside bare SQLite with one row of the same size a commit."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        done = subprocess.run(
            [sys.executable, "-c", DISK, name, str(int(events)), "0.02"], capture_output=True, text=True, check=True
        )
    mine = float(done.stdout)
    bare = {size: _bare(folder, int(events), size) for size in (1, 4, 10)}
    beside = ", ".join(f"{size} a commit {value / 1000:.1f} kB" for size, value in bare.items())
    return [
        (
            "disk, a change, each durable at once",
            f"{mine / 1000:.1f} kB",
            f"bare SQLite (WAL, FULL) inserting a row: {beside}",
            f"{mine / bare[1]:.2f} x",
        )
    ]


def _bare(folder: Path, events: int, size: int) -> float:
    import sqlite3

    process = psutil.Process()
    with tempfile.TemporaryDirectory(dir=folder) as name:
        db = sqlite3.connect(Path(name) / "bare.db", isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("CREATE TABLE ledger (seq INTEGER PRIMARY KEY, row BLOB NOT NULL, hash BLOB NOT NULL)")
        before = process.io_counters().write_bytes
        for _ in range(events // size):
            db.execute("BEGIN IMMEDIATE")
            db.executemany("INSERT INTO ledger (row, hash) VALUES (?, ?)", [(bytes(230), bytes(32))] * size)
            db.execute("COMMIT")
        db.close()
        return (process.io_counters().write_bytes - before) / (events // size * size)


GROW = """
import gc, os, sys, tempfile
from pathlib import Path
from agent import catalogue
from importlib import resources
from agent.core import Core
from agent.delivery import Delivery
from agent.faults import Faults
from agent.model import Heard, Reading
from agent.store import Store
from agent.watch import Watch
from agent import messages
hours = float(sys.argv[2])
store = Store(Path(sys.argv[1]) / "data", "ATM-0001")
rules = catalogue.parse(resources.files("agent").joinpath("faults.toml").read_text("utf-8"))
core = Core(Watch({}), Faults(rules, []), "boot")
reader = store.reader()
delivery = Delivery(0, linger=60.0)
def rss():
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
step, counts, mid, told, rows = 5, [0] * 42, 0, [], 0
for second in range(0, int(hours * 3600) + 1, step):
    now = float(second)
    if second % 30 == 0:
        counts[second // 30 % 42] += 1
    said = [Heard(f"dispenser{d}", tuple(
        Reading(f"cassette.{u}.count", counts[d * 7 + u - 1], now) for u in range(1, 8))) for d in range(6)]
    batch = core.step(said, now, 1_795_614_343_000 + second * 1000)
    if batch:
        store.commit(batch)
        delivery.news(batch.urgent, now)
    for heard in said:
        store.saw(heard.device, {r.point: round(r.at * 1000) for r in heard.items})
    if delivery.rows_due(now) and delivery.taken < store.head:
        found = reader.batch(delivery.taken, 250, 60000)
        messages.ledger_batch(reader.epoch, reader.hash_at(delivery.taken), found)
        mid += 1
        delivery.sent(mid, now, len(found))
        store.settle(reader.epoch, delivery.acknowledged(mid))
    delivery.idle(now)
    if second % 3600 == 0:
        told.append(rss())
print(told[1], told[len(told) // 2], told[-1], store.head, store.acked)
"""


def memory(folder: Path, hours: float) -> list[Row]:
    """RSS over a virtual day: core, store and delivery with the time as a parameter; no threads, no sockets."""
    command = [sys.executable, "-c", GROW, str(folder), str(hours)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    first, middle, last, head, acked = done.stdout.split()
    return [
        (
            f"memory over {hours:g} virtual hours, 42 values, 2 changes/min",
            f"{float(first):.1f} MB after 1 h, {float(middle):.1f} at half, {float(last):.1f} at the end",
            f"{head} rows made, {acked} delivered",
            f"{float(last) / float(first):.2f} x",
        )
    ]


MEASURES: tuple[tuple[Callable[[Path, float], list[Row]], float, float], ...] = (
    (line, 2, 1),
    (disk, 300, 50),
    (memory, 24, 2),
)
