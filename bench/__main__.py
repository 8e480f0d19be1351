"""The figures that README quotes: python -m bench [--quick] [--write]. Each stands beside another of the same run.

Benchmarks, not tests: nothing here passes or fails. `--write` puts the table into the first section of
bench/RESULTS.md; what follows is written by hand and stays.
"""

import argparse
import os
import platform
import pty
import select
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import tty
from collections.abc import Callable
from pathlib import Path

import paho.mqtt.client as mqtt
import psutil
from paho.mqtt.enums import CallbackAPIVersion

from bench import drain, fleet, line, neighbours, push, pushcost, pushed, storing
from hwsim.modbus import Modbus
from tests.cooperative import cooperative
from tests.whole import Site, wait

HERE = Path(__file__).parent
IMPORTS = "import serial, paho.mqtt.client, pydantic, tenacity, sqlite3, ssl, tomllib, time"
ONE_MODEL = "class Model(pydantic.BaseModel):\n    x: int\nModel(x=1)"
"""What pydantic loads only when its first model is made; every agent that uses it at all pays this."""
SLEEP = "time.sleep(600)"
ONE_PANEL = """
[lines.rs485]
kind = "modbus"
port = "./pty"
[devices.panel1]
line = "rs485"
address = 1
poll = 0.05
[devices.panel1.inputs]
safe_door = { at = 0 }
"""
"""A door, because doors are never folded into one flapping row, however fast they go."""
THREE_POLLED = """
[devices.ups1]
kind = "ups"
port = "./atm1/ups1"
poll = 1.0
[devices.printer1]
kind = "printer"
port = "./atm1/printer1"
poll = 1.0
[devices.dispenser1]
kind = "dispenser"
port = "./atm1/dispenser1"
poll = 1.0
"""
THREE = """
run_dir = "."
[terminals.atm1.devices.ups1]
kind = "ups"
[terminals.atm1.devices.printer1]
kind = "printer"
[terminals.atm1.devices.dispenser1]
kind = "dispenser"
"""
DOOR = ONE_PANEL.replace("./pty", "./atm1/rs485").replace("poll = 0.05", "poll = 0.1")
LINGER = "linger = 1.0"
"""As where a line costs nothing: deploy/terminal.toml."""
PANEL = '[terminals.atm1.devices.panel1]\nkind = "modbus"\nline = "rs485"\n'
Row = tuple[str, str, str, str]


class PtyPanel:
    """A simulated panel on a pty of this process, so that a change can be timed from its first byte."""

    def __init__(self, link: Path) -> None:
        self._master, slave = pty.openpty()
        tty.setraw(slave)
        link.symlink_to(os.ttyname(slave))
        self._slave = slave
        self._panel = Modbus()
        self._told = threading.Event()
        self._told_at = 0.0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def push(self, door: str) -> float:
        """Move the door; returns when the first byte of the answer that tells it was written (perf_counter)."""
        self._told.clear()
        self._panel.safe_door = door
        self._told.wait(5.0)
        return self._told_at

    def _serve(self) -> None:
        while not self._end.is_set():
            if select.select([self._master], [], [], 0.1)[0]:
                answer = self._panel.receive(os.read(self._master, 4096))
                begun = time.perf_counter()
                os.write(self._master, answer)
                if answer and not self._told.is_set():
                    self._told_at = begun
                    self._told.set()

    def close(self) -> None:
        self._end.set()
        self._thread.join()
        os.close(self._slave)
        os.close(self._master)


class Listener:
    """A subscriber that only notes when a ledger message arrived."""

    def __init__(self, port: int, topic: str) -> None:
        self.arrived: list[float] = []
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        self._client.on_message = lambda *_: self.arrived.append(time.perf_counter())
        ready = threading.Event()
        self._client.on_subscribe = lambda *_: ready.set()
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._client.subscribe(topic, qos=1)
        ready.wait(5.0)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def one_way(listener: Listener, send: Callable[[int], float], count: int) -> list[float]:
    """Milliseconds from each send to its arrival, one at a time."""
    taken = []
    for number in range(count):
        have = len(listener.arrived)
        begun = send(number)
        end = time.perf_counter() + 5.0
        while len(listener.arrived) == have and time.perf_counter() < end:
            time.sleep(0.0002)
        if len(listener.arrived) > have:
            taken.append((listener.arrived[have] - begun) * 1000)
        time.sleep(0.03)
    return taken


def latency(folder: Path, count: int) -> list[Row]:
    """Change on the wire -> subscriber, durable; beside a bare paho publish through the same broker."""
    site = Site(folder)
    site.configure(ONE_PANEL, LINGER)
    panel = PtyPanel(folder / "pty")
    site.start("broker")
    wait("the broker", site.broker_answers)
    listener = Listener(site.port, "tillwire/v1/+/+/ledger")
    site.start("agent")
    wait("first contact", lambda: site.shown("panel1", "safe_door") == "closed")
    wait("the first rows", lambda: site.ask(do="devices")["uplink"]["backlog"] == 0)
    time.sleep(4.0)
    ours = one_way(listener, lambda n: panel.push("closed" if n % 2 else "open"), count)
    listener.close()
    bare = Listener(site.port, "bare")
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    client.connect("127.0.0.1", site.port)
    client.loop_start()

    def publish(number: int) -> float:
        begun = time.perf_counter()
        client.publish("bare", b"x" * 240, qos=1)
        return begun

    theirs = one_way(bare, publish, count)
    client.disconnect()
    client.loop_stop()
    bare.close()
    site.close()
    panel.close()
    return [
        (
            f"change -> subscriber, durable, {share}",
            f"{_share(ours, n):.2f} ms",
            f"bare paho publish {_share(theirs, n):.2f} ms",
            f"{_share(ours, n) / _share(theirs, n):.1f} x",
        )
        for share, n in (("p50", 50), ("p99", 99))
    ]


def footprint(folder: Path, seconds: float) -> list[Row]:
    """Memory with three devices polled each second, and CPU at 5 events a second."""
    site = Site(folder, fleet=THREE)
    site.configure(THREE_POLLED, LINGER)
    site.start_all()
    wait("the devices", lambda: site.shown("ups1", "mains") and site.shown("dispenser1", "cassette.1.state"))
    bare = _interpreter(IMPORTS, SLEEP)
    model = _interpreter(IMPORTS, ONE_MODEL, SLEEP)
    agent = psutil.Process(site.process("agent"))
    time.sleep(seconds)
    ours = agent.memory_full_info()
    floor, with_model = (psutil.Process(p.pid).memory_full_info().rss for p in (bare, model))
    for process in (bare, model):
        process.kill()
        process.wait()
    idle = _cpu(agent, lambda: time.sleep(seconds))
    site.close()
    return [
        (
            "RSS, three devices polled each second",
            f"{ours.rss / 1e6:.1f} MB (PSS {ours.pss / 1e6:.1f})",
            f"bare interpreter that imports the same packages {floor / 1e6:.1f} MB,"
            f" with one pydantic model {with_model / 1e6:.1f} MB",
            f"{ours.rss / floor:.2f} x, {ours.rss / with_model:.2f} x",
        ),
        ("CPU while nothing changes", f"{idle:.2f} s/min", "", ""),
    ]


def events(folder: Path, seconds: float) -> list[Row]:
    """CPU at 5 events a second: a door beside the three devices. A word that went as fast would be folded."""
    site = Site(folder, fleet=THREE + PANEL)
    site.configure(THREE_POLLED + DOOR, LINGER)
    site.start_all()
    wait("the door", lambda: site.shown("panel1", "safe_door"))
    agent = psutil.Process(site.process("agent"))
    time.sleep(seconds / 4)
    idle = _cpu(agent, lambda: time.sleep(seconds / 2))
    changes = round(seconds * 5)

    def five_a_second() -> None:
        begun = time.monotonic()
        for number in range(changes):
            site.act(device="panel1", set={"safe_door": "closed" if number % 2 else "open"})
            time.sleep(max(0.0, begun + number * 0.2 - time.monotonic()))

    busy = _cpu(agent, five_a_second)
    site.close()
    what = f"the same polling and no change {idle:.2f} s/min; {changes} openings and closings of a door"
    return [("CPU at 5 events/s", f"{busy:.2f} s/min", what, f"{busy / idle:.1f} x")]


def whole(folder: Path, seconds: float) -> list[Row]:
    """Memory and CPU of the simulated ATM with ten devices, four of them behind one XFS4IoT publisher."""
    with cooperative(folder) as both:
        agent = psutil.Process(both.processes["atm"].pid)
        time.sleep(seconds / 4)
        idle = _cpu(agent, lambda: time.sleep(seconds))
        memory = agent.memory_full_info()
    return [
        ("RSS, ATM with ten devices", f"{memory.rss / 1e6:.1f} MB (PSS {memory.pss / 1e6:.1f})", "", ""),
        ("CPU, ATM with ten devices while nothing changes", f"{idle:.2f} s/min", "", ""),
    ]


def start(folder: Path, count: int) -> list[Row]:
    """Process start -> first published state; beside starting an interpreter that only imports the packages."""
    site = Site(folder)
    site.configure(ONE_PANEL, LINGER)
    panel = PtyPanel(folder / "pty")
    site.start("broker")
    wait("the broker", site.broker_answers)
    ours, theirs = [], []
    for _ in range(count):
        ours.append(_first_state(site))
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", IMPORTS], check=True)
        theirs.append((time.perf_counter() - begun) * 1000)
    site.close()
    panel.close()
    middle = statistics.median
    return [
        (
            "start -> first published state",
            f"{middle(ours):.0f} ms",
            f"interpreter that imports the packages and ends {middle(theirs):.0f} ms",
            f"{middle(ours) / middle(theirs):.1f} x",
        )
    ]


def main() -> int:
    """Measure everything and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer repeats, to see that it runs")
    parser.add_argument("--write", action="store_true", help="put the table into bench/RESULTS.md")
    parser.add_argument("--only", action="append", metavar="NAME", help="measure only this; may be given again")
    chosen = parser.parse_args()
    rows: list[Row] = []
    measures = (
        (latency, 300, 20),
        (footprint, 60.0, 5.0),
        (events, 60.0, 5.0),
        (whole, 60.0, 5.0),
        (start, 9, 2),
        *drain.MEASURES,
        *storing.MEASURES,
        *line.MEASURES,
        *fleet.MEASURES,
        *neighbours.MEASURES,
        *push.MEASURES,
        *pushed.MEASURES,
        *pushcost.MEASURES,
    )
    names = [measure.__name__ for measure, _, _ in measures]
    if chosen.write and chosen.only:
        parser.error("--write puts the whole table into the file: leave --only away")
    if unknown := set(chosen.only or ()) - set(names):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there is {', '.join(names)}")
    for measure, full, quick in measures:
        if chosen.only and measure.__name__ not in chosen.only:
            continue
        print(f"{measure.__name__} ...", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            rows += measure(Path(folder), quick if chosen.quick else full)  # type: ignore[arg-type]
    table = ["| figure | ours | beside it, same run | ratio |", "|---|---|---|---|"]
    table += [f"| {' | '.join(row)} |" for row in rows]
    print("\n".join(table))
    if chosen.write:
        file = HERE / "RESULTS.md"
        file.write_text(renewed(file.read_text(), table))
    return 0


def renewed(results: str, table: list[str]) -> str:
    """The text of RESULTS.md with this table in its first section. The sections after it are written by hand."""
    where = f"{platform.machine()}, {psutil.cpu_count()} cores, Python {platform.python_version()}"
    head = f"# Results\n\n`make bench ARGS=--write` on {where}, everything on loopback; medians.\n\n"
    _, mark, by_hand = results.partition("\n## ")
    return head + "\n".join(table) + "\n" + mark + by_hand


def _first_state(site: Site) -> float:
    """Milliseconds from the start of the agent's process to the first state that it publishes."""
    listener = Listener(site.port, "tillwire/v1/+/+/state/+")
    time.sleep(0.3)
    have = len(listener.arrived)
    begun = time.perf_counter()
    site.start("agent")
    wait("a state", lambda: len(listener.arrived) > have)
    site.end("agent")
    listener.close()
    return (listener.arrived[have] - begun) * 1000


def _share(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def _interpreter(*lines: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", "\n".join(lines)])


def _cpu(process: psutil.Process, run: Callable[[], None]) -> float:
    """CPU seconds a minute that a process takes while something runs."""
    before, begun = process.cpu_times(), time.monotonic()
    run()
    after, took = process.cpu_times(), time.monotonic() - begun
    return (after.user + after.system - before.user - before.system) / took * 60


if __name__ == "__main__":
    sys.exit(main())
