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
import threading
import time
from collections.abc import Callable
from pathlib import Path

from agent.config import Config, parse
from agent.model import Heard, Reading
from agent.mqtt.posting import of_kernel
from agent.pushing.inforce import Begun
from agent.service import Service
from tests.authority import Authority
from tests.unplugged import DEVICES, UNITS, lived
from tests.uplinks import Mosquitto
from tests.whole import wait

Row = tuple[str, str, str, str]
FASTER = 60
"""An hour is a minute."""
DEFAULT: dict[str, float] = {}
FREE = {"linger": 1.0, "refresh": 60.0, "keepalive": 60.0}
"""Where a byte costs nothing: seconds of the real day, before they are shortened."""
CHATTY = "linger = 1\nrefresh = 60\n"


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
                    data = _received(side)
                    if not data:
                        self.agent.close()
                        return
                    both[side].sendall(data)


def _received(side: socket.socket) -> bytes:
    try:
        return side.recv(65536)
    except ConnectionResetError:  # the agent cuts it when it stops
        return b""


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
[broker.tls]
ca = "{authority.ca}"
certificate = "{authority.folder}/atm.pem"
key = "{authority.folder}/atm.key"
[control]
socket = "s"
{tables}
"""
    found = parse(text.encode(), folder)
    assert found.broker
    all_ = {"linger": found.uplink.linger, "refresh": found.uplink.refresh, "keepalive": found.broker.keepalive}
    short = {name: value / FASTER for name, value in (all_ | seconds).items()}
    broker = found.broker.model_copy(update={"keepalive": max(1, round(short.pop("keepalive")))})
    return found.model_copy(update={"broker": broker, "uplink": found.uplink.model_copy(update=short)})


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
    service = Service(Begun(configured(folder, authority, toll.port, seconds), Path(), b""))
    # The devices speak through `feed`: a port that is not there is a fault, and makes each state twice as large.
    service._links.end_all()
    thread = threading.Thread(target=service.run, daemon=True)
    chance = random.Random(3)
    counts = {(d, u): 0 for d in range(1, DEVICES + 1) for u in range(1, UNITS + 1)}

    def feed() -> None:
        now = time.monotonic()
        for device in range(1, DEVICES + 1):
            said = tuple(
                Reading(f"cassette.{unit}.{point}", counts[device, unit], now) for unit in range(1, UNITS + 1)
            )
            said += (Reading("link.state", "up", now),)
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


def budget(folder: Path, hours: float) -> list[Row]:
    """What a monthly budget makes of a day, in virtual time, by the agent's own account (`line` shows that it is
    the kernel's): the first day of a month, and the days after it."""
    found = []
    for number, (what, uplink, urgent) in enumerate(
        (
            ("not urgent, as it is by default", "", False),
            ("not urgent, linger 1 s, refresh 60 s", CHATTY, False),
            ("of cash, each at once", "", True),
        )
    ):
        days = {}
        for megabytes in (0, 15, 10):
            more = f"{uplink}budget = {megabytes}\n"
            days[megabytes] = lived(folder / f"{number}-{megabytes}", 2, more, urgent=urgent, hours=hours).days
        shown = ", ".join(
            f"{size} MB a month: {told[0] / 1e6:.2f} MB, then {told[-1] / 1e6:.2f}"
            for size, told in days.items()
            if size
        )
        found.append(
            (
                f"line, 2 changes/min {what}",
                shown,
                f"no budget: {days[0][0] / 1e6:.2f} MB",
                f"{days[15][-1] / days[0][-1]:.2f} x",
            )
        )
    return found


def _own(service: Service) -> int:
    assert service.uplink
    return sum(service.uplink.traffic()["day"])


def line(folder: Path, hours: float) -> list[Row]:
    """Bytes of a day."""
    found = []
    cases = (
        ("nothing changes", 0.0, DEFAULT, "count"),
        ("2 changes/min that are not urgent", 2.0, DEFAULT, "count"),
        ("2 changes/min of cash, each at once", 2.0, DEFAULT, "dispensed"),
        ("nothing changes, where a byte costs nothing", 0.0, FREE, "count"),
        ("2 changes/min, where a byte costs nothing", 2.0, FREE, "count"),
    )
    for number, (what, changes, seconds, point) in enumerate(cases):
        place = folder / str(number)
        place.mkdir()
        told = day(place, int(hours), changes, seconds, point)
        total = told["up"] + told["down"]
        text = ", ".join(f"{name} {value:g} s" for name, value in seconds.items()) or "as it is by default"
        found.append(
            (
                f"line, TLS, a day: {what}",
                f"{total / 1e6:.2f} MB ({told['up'] / 1e6:.2f} up), and {told['once'] / 1e3:.0f} kB a connection",
                f"{text}; the agent's own account {told['own'] / 1e6:.2f} MB",
                f"{told['own'] / total:.2f} x",
            )
        )
    return found


GROW = """
import gc, os, sys, tempfile
from pathlib import Path
from agent import catalogue
from importlib import resources
from agent.core import Core
from agent.mqtt.delivery import Delivery
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
    (budget, 72, 48),
    (memory, 24, 2),
)
