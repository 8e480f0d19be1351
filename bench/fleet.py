"""Many terminals with the agent's own uplink on one mosquitto, and the storm of their return after its restart.

    python -m bench.fleet --terminals 2000        (or: hwsim fleet --terminals 2000)

A terminal here is the real store, delivery, publishing and connection, with one thread and a folder of its own in
memory; devices and core are left out, one pacer for each process makes the rows. Several processes, because the
threads of one share a lock. What the broker saw is taken from its own log and from a subscriber.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

import psutil

from agent.config import parse
from agent.messages import DeviceState, PointState, SessionDevice
from agent.model import Batch, StoredPoint
from agent.store import Store
from agent.uplink import Uplink
from bench.drain import Counter as Subscriber
from bench.processes import open_files, processes, settle
from hwsim.subscriber import opened
from tests.whole import MOSQUITTO, free_port, wait

Row = tuple[str, str, str, str]
FAST = Path("/dev/shm")  # noqa: S108
"""Where there is memory for files: 2,000 stores on one disk would measure that disk."""
BAR = 60
EACH = 80
"""Terminals of one process, at most: each has eleven open files, and select() takes none beyond the 1024th."""


@dataclass
class Chosen:
    """What is run, in seconds: `every` one row of a terminal, `ramp` to switch them on, `work` in peace, and `away`
    for the broker."""

    terminals: int
    processes: int
    every: float
    retry: float
    ramp: float
    work: float
    away: float
    protocol: str = "5"


class Terminal:
    """The store and uplink of one terminal."""

    def __init__(self, folder: Path, number: int, port: int, chosen: Chosen) -> None:
        text = (
            f'[terminal]\norg = "coop"\nid = "T{number:05}"\ndata = "{number}"\n[broker]\nhost = "127.0.0.1"\n'
            f'port = {port}\nprotocol = "{chosen.protocol}"\nkeepalive = 300\n'
            f"[uplink]\nlinger = 1\nretry = {chosen.retry}\nrefresh = 3600\n"
        )
        config = parse(text.encode(), folder)
        self.store = Store(config.terminal.data, config.terminal.id)
        self.stop = threading.Event()
        device = SessionDevice(name="dispenser1", kind="dispenser", access="own")
        self.uplink = Uplink(config, self.store, [device], _state, "boot", "fleet", self.stop)
        self.store.on_commit = self.uplink.poke
        self.thread = threading.Thread(target=self.uplink.run, daemon=True)

    def count(self, number: int) -> None:
        """One change, as a dispenser makes it."""
        at, up = time.time_ns() // 1_000_000, round(time.monotonic() * 1000)
        row = {"kind": "change", "at": at, "up": up, "boot": "boot", "device": "dispenser1"}
        row |= {"point": "cassette.1.count", "value": 2000 - number, "was": 2001 - number}
        point = StoredPoint("dispenser1", "cassette.1.count", 2000 - number, True, at)
        self.store.commit(Batch(rows=[row], points=[point]))


def _state(reader: Any, device: str, session: str) -> DeviceState:
    points = {p.point: PointState(value=p.value, at=p.at) for p in reader.points(device)}
    return DeviceState(session=session, at=time.time_ns() // 1_000_000, points=points)


def work(pipe: Pipe, numbers: range, folder: Path, port: int, chosen: Chosen) -> None:
    """One process of terminals. It tells {"memory"}, then that and more whenever it is asked."""
    settle()
    pipe.send({"memory": psutil.Process().memory_full_info().uss})
    fleet, end = [Terminal(folder, number, port, chosen) for number in numbers], threading.Event()

    def begin() -> None:
        for one in fleet:
            one.thread.start()
            end.wait(chosen.ramp / len(fleet))

    def pace() -> None:
        number = 0
        while not end.is_set():
            number += 1
            for one in fleet:
                one.count(number)
                if end.wait(chosen.every / len(fleet)):
                    return

    threading.Thread(target=begin, daemon=True).start()
    pacer = threading.Thread(target=pace, daemon=True)
    pacer.start()
    while (asked := pipe.recv()) != "end":
        if asked == "still":
            end.set()
            pacer.join()
        pipe.send(
            {
                "up": sum(one.uplink.connected for one in fleet),
                "acked": sum(one.store.acked for one in fleet),
                "head": sum(one.store.head for one in fleet),
                "memory": psutil.Process().memory_full_info().uss,
                "cpu": sum(psutil.Process().cpu_times()[:2]),
            }
        )
    os._exit(0)


class Broker:
    """One mosquitto with a log."""

    def __init__(self, folder: Path) -> None:
        self.port, self._log = free_port(), folder / "broker.log"
        self._file = folder / "broker.conf"
        self._file.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n"
            f"max_inflight_messages 100\nlog_dest file {self._log}\nlog_type notice\nlog_type error\nuser root\n"
        )

    def start(self) -> None:
        self._process = subprocess.Popen([MOSQUITTO, "-c", str(self._file)], stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        self.kill()

    def memory(self) -> int:
        return int(psutil.Process(self._process.pid).memory_full_info().uss)

    def cpu(self) -> float:
        return float(sum(psutil.Process(self._process.pid).cpu_times()[:2]))

    def accepted(self, since: float) -> list[int]:
        """When a terminal was let in, wall clock in seconds, one for each time."""
        times = re.findall(r"^(\d+): New client connected from \S+ as coop-T", self._log.read_text(), re.M)
        return [int(at) for at in times if int(at) >= int(since)]


def asked(pipes: list[Pipe], what: str = "how") -> dict[str, float]:
    """What all processes tell, added up."""
    for pipe in pipes:
        pipe.send(what)
    total: Counter[str] = Counter()
    for pipe in pipes:
        total.update(pipe.recv())
    return dict(total)


def run(folder: Path, chosen: Chosen, say: Any = print) -> list[Row]:
    """Connect the fleet, let it work, restart the broker, and tell what the broker saw."""
    open_files()
    broker = Broker(folder)
    broker.start()
    subscriber = Subscriber(broker.port, "tillwire/v1/+/+/ledger", "centre")
    share = min(EACH, -(-chosen.terminals // chosen.processes))
    with (
        closing(broker),
        tempfile.TemporaryDirectory(dir=FAST if FAST.is_dir() else folder) as stores,
        processes(work, chosen.terminals, share, Path(stores), broker.port, chosen) as pipes,
    ):
        bare = sum(pipe.recv()["memory"] for pipe in pipes)  # what the processes take without a terminal
        wait("every terminal", lambda: asked(pipes)["up"] == chosen.terminals, chosen.ramp + 300)
        say(f"{chosen.terminals} terminals are connected; working for {chosen.work:g} s")
        first, cpu, begun = asked(pipes), broker.cpu(), time.monotonic()
        time.sleep(chosen.work)
        then, took = asked(pipes), time.monotonic() - begun
        busy, working = (broker.cpu() - cpu) / took, (then["cpu"] - first["cpu"]) / took
        size = broker.memory()
        rate = (then["acked"] - first["acked"]) / took
        say(f"{rate:.0f} rows/s; the broker dies, and is back after {chosen.away:g} s")
        broker.kill()
        time.sleep(chosen.away)
        back = time.time()
        broker.start()
        subscriber.close()
        subscriber = Subscriber(broker.port, "tillwire/v1/+/+/ledger", "centre")
        wait(
            "their return", lambda: len(set(broker.accepted(back))) and _all(pipes, chosen), 4 * chosen.retry + 120
        )
        times = [at - int(back) for at in broker.accepted(back)]
        asked(pipes, "still")
        wait("every row", lambda: (now := asked(pipes))["acked"] == now["head"], 120)
        last = asked(pipes)
        say(histogram(times))
    seconds = Counter(times)
    repeated = _rows(subscriber)
    return [
        (
            f"fleet: {chosen.terminals:,} terminals on one mosquitto",
            f"{rate:.0f} rows/s; {(then['memory'] - bare) / chosen.terminals / 1e3:.0f} kB a terminal"
            f" in the fleet, {size / chosen.terminals / 1e3:.1f} kB in the broker",
            f"CPU: broker {busy * 100:.0f} %, fleet {working * 100:.0f} % of a core",
            "",
        ),
        (
            "fleet: storm after the broker was restarted",
            f"{len(times):,} connections over {max(times)} s, at most {max(seconds.values())} in a second",
            f"were they even over retry = {chosen.retry:g} s: {chosen.terminals / chosen.retry:.0f} a second;"
            f" broker away for {chosen.away:g} s",
            f"{max(seconds.values()) / (chosen.terminals / chosen.retry):.1f} x",
        ),
        (
            "fleet: rows",
            f"{last['head']:,.0f} made, {last['acked']:,.0f} acknowledged",
            f"{repeated} came to the subscriber after the restart",
            "",
        ),
    ]


def _all(pipes: list[Pipe], chosen: Chosen) -> bool:
    time.sleep(0.5)
    return asked(pipes)["up"] == chosen.terminals


def _rows(subscriber: Subscriber) -> int:
    return sum(len(json.loads(opened(payload, kind))["rows"]) for _, payload, kind in list(subscriber.heard))


def histogram(times: list[int], step: int = 5) -> str:
    """Connections by the seconds after the broker was back, as bars."""
    found = Counter(at // step for at in times)
    most = max(found.values())
    lines = [
        f"{begin * step:4}-{begin * step + step - 1:<4} {found[begin]:5} {'#' * round(found[begin] / most * BAR)}"
        for begin in range(max(found) + 1)
    ]
    return "\n".join(["seconds  connections", *lines])


def fleet(folder: Path, terminals: float) -> list[Row]:
    """Many terminals, and their return."""
    chosen = Chosen(int(terminals), 4, 30.0, 60.0, 60.0, 60.0, 3.0)
    return run(folder, chosen, lambda text: print(text, file=sys.stderr, flush=True))


def main() -> int:
    """Run a fleet and print what became of it."""
    parser = argparse.ArgumentParser(prog="python -m bench.fleet", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--terminals", type=int, default=100)
    parser.add_argument(
        "--processes", type=int, default=4, help=f"processes that share them, at least; none has more than {EACH}"
    )
    parser.add_argument("--every", type=float, default=30.0, help="seconds between two rows of a terminal")
    parser.add_argument("--retry", type=float, default=60.0, help="[uplink] retry of each terminal, seconds")
    parser.add_argument("--ramp", type=float, default=60.0, help="seconds over which they are switched on")
    parser.add_argument("--work", type=float, default=60.0, help="seconds that they work in peace")
    parser.add_argument("--away", type=float, default=3.0, help="seconds for which the broker is away")
    parser.add_argument("--protocol", choices=["5", "3.1.1"], default="5")
    chosen = Chosen(**vars(parser.parse_args()))
    with tempfile.TemporaryDirectory() as folder:
        for row in run(Path(folder), chosen):
            print(" | ".join(part for part in row if part))
    return 0


MEASURES = ((fleet, 2000, 50),)

if __name__ == "__main__":
    sys.exit(main())
