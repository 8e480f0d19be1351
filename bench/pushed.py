"""How long a push takes with terminals that run the agent's whole code, until it is committed or taken back, and
what the links notice that it leaves alone.

    python -m bench --only agents --only back --only links

A broker on loopback, `tillwire push send` as people use it, real signatures, probation and disk; simulated are the
devices only. 200 terminals share two cores and, as in bench/fleet.py, have their disks in memory; one has a disk.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

from bench import push
from bench.agents import Centre, Counted, alone, envelope, many, tables, up
from bench.drain import broker
from bench.fleet import FAST
from tests.whole import free_port, wait

Row = tuple[str, str, str, str]
BIN = Path(sys.executable).parent
TIMES = 3


def sent(port: int, file: Path, stages: str, code: int = 0) -> tuple[list[dict[str, Any]], float]:
    """What `tillwire push send` tells, and the seconds that it takes as a whole."""
    words = ["--broker", f"127.0.0.1:{port}", "--stages", stages, "--yes", "--json"]
    begun = time.monotonic()
    done = subprocess.run(
        [BIN / "tillwire", "push", "send", file, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], time.monotonic() - begun


def span(events: list[dict[str, Any]], end: str = "committed") -> float:
    """Seconds from the first sent to the last that was told so."""
    begun = min(event["at"] for event in events if event["event"] == "sent")
    told = (event["at"] for event in events if end in (event.get("word"), event.get("event")))
    return float(max(told) - begun) / 1000


def one_by_one(events: list[dict[str, Any]], word: str) -> list[float]:
    """Seconds from sent to what each terminal has told."""
    begun = {event["terminal"]: event["at"] for event in events if event["event"] == "sent"}
    return [(e["at"] - begun[e["terminal"]]) / 1000 for e in events if e.get("word") == word]


@contextmanager
def served(folder: Path) -> Iterator[int]:
    """A broker; its port."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    with broker(folder, "broker", port, "set_tcp_nodelay true\nmax_queued_messages 0"):
        wait("the broker", lambda: _answers(port))
        yield port


def agents(folder: Path, terminals: float) -> list[Row]:
    """Send -> all committed: one terminal, and many."""
    rows = []
    for number, stages in ((1, "rest"), (int(terminals), "1,5,rest")):
        place = folder / f"of{number}"
        fast = FAST if number > 1 and FAST.is_dir() else folder
        with served(place) as port, tempfile.TemporaryDirectory(dir=fast) as stores:
            with many(Path(stores), number, port) as pipes:
                started(pipes, number)
                spans, wholes, each, tried = list[float](), list[float](), list[float](), list[float]()
                for version in range(1, TIMES + 1):
                    file = place / f"{version}.json"
                    file.write_bytes(envelope(version, tables(port, poll=1.0 + version % 2)))
                    events, whole = sent(port, file, stages)
                    assert events[-1]["committed"] == number, events[-1]
                    spans.append(span(events))
                    wholes.append(whole)
                    each += one_by_one(events, "committed")
                    tried += one_by_one(events, "applying")
                load = os.getloadavg()[0]
                memory = up(pipes)[1] / number / 1e6
            bare = round_trips(port)
        took, until, _ = push.run(place, number, stages)
        middle = statistics.median(spans)
        disk = "stores in memory" if number > 1 else "store on disk"
        rows.append(
            (
                f"push: send -> committed, {number} whole agent{'s' * (number > 1)}, stages {stages}",
                f"{middle:.2f} s (of three {min(spans):.2f} to {max(spans):.2f}); a terminal {_quantiles(each)},"
                f" of which until it is tried {_quantiles(tried)};"
                f" the whole command {statistics.median(wholes):.2f} s",
                f"terminals that only answer {until * 1000:.0f} ms (command {took:.2f} s); retained publish ->"
                f" subscriber {bare * 1000:.1f} ms; {disk}, load {load:.1f}, {memory:.1f} MB a terminal",
                f"{middle / until:.0f} x",
            )
        )
    return rows


def started(pipes: list[Pipe], number: int) -> None:
    """Wait until all terminals are up; they are not disturbed by being asked often."""
    end = time.monotonic() + 600.0
    while (now := up(pipes)[0]) < number:
        assert time.monotonic() < end, f"{now} of {number} terminals are up"
        time.sleep(1.0)


def round_trips(port: int, count: int = 100) -> float:
    """Seconds from a retained publish to its subscriber, at the median, of the size of a push."""
    centre, payload, found = Centre(port), envelope(1, tables(port)), []
    for number in range(count):
        begun = centre.send(f"bare{number}", payload, "bare")
        wait("the message", partial(_came, centre, f"/bare{number}/"))
        found.append(centre.heard[-1][1] - begun)
    centre.close()
    return statistics.median(found)


def _came(centre: Centre, part: str) -> bool:
    return bool(centre.heard) and part in centre.heard[-1][0]


def back(folder: Path, times: float) -> list[Row]:
    """An uplink that is cut: from sent to the report that it was taken back; also with the default probation."""
    rows = []
    for name, cut in (("nobody listens at the port", _nobody), ("a broker that accepts and is silent", _mute)):
        cases = [(10, int(times))] + ([(120, 1)] if cut is _nobody and times > 1 else [])
        for probation, count in cases:
            place = folder / f"{name[0]}{probation}"
            with served(place) as port, cut() as dead, alone(place, port, probation) as agent:
                over = []
                for version in range(1, count + 1):
                    file = place / f"{version}.json"
                    file.write_bytes(envelope(version, tables(dead)))
                    events, _ = sent(port, file, "rest", code=1)
                    assert "rolled_back" in (event.get("word") for event in events), events
                    over.append(span(events, "failed") - probation)
                    wait("the old uplink", agent.up)
            figure = f"{probation} s + {statistics.median(over):.2f} s"
            what = f"push that cuts the uplink: sent -> reported rolled back, {name}"
            share = (probation + statistics.median(over)) / probation
            rows.append((what, figure, f"the probation alone {probation} s; {count} times", f"{share:.3f} x"))
    return rows


@contextmanager
def _nobody() -> Iterator[int]:
    yield free_port()


@contextmanager
def _mute() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def links(folder: Path, pushes: float) -> list[Row]:
    """What a device notices that no push changes, while another one beside it is exchanged again and again; every
    tenth push names a device that is not there, and is taken back. Beside it: as long without a push, and a restart
    of the agent."""
    lines = []
    with served(folder) as port, alone(folder, port, tcp=True) as agent:
        centre, kept, outcomes = Centre(port), agent.kept, []
        wait("the session", partial(_sessions, centre))
        begun, opened, sessions = time.monotonic(), kept.opened, _sessions(centre)
        for version in range(1, int(pushes) + 1):
            extra = "" if version % 10 else '[devices.none]\nkind = "ups"\nport = "./none"\n'
            text = tables(port, poll=1.0 + version % 2, kept=agent.where, more=extra)
            centre.send(agent.name, envelope(version, text))
            outcomes.append(centre.outcome(version)[0])
        took = time.monotonic() - begun
        rolled = outcomes.count("rolled_back")
        figure = _polls(kept, begun, took)
        cuts, again = kept.opened - opened, len(_sessions(centre) - sessions)
        lines.append(
            f"{cuts} reconnects of the device, {again} of the uplink (for a push with another device, and back);"
            f" {figure}"
        )
        quiet = time.monotonic()
        time.sleep(took)
        lines.append(f"as long without a push: {_polls(kept, quiet, took)}")
        before, gap = kept.opened, time.monotonic()
        agent.end()
        agent.begin()
        wait("the device", lambda: kept.opened > before and kept.asked[-1] > gap + 1.0)
        time.sleep(2.0)
        lines.append(f"a restart: {kept.opened - before} reconnect, longest {_longest(kept, gap - 2.0):.2f} s")
        centre.close()
    what = f"push: an unchanged link over {int(pushes)} pushes ({rolled} of them rolled back) in {took:.0f} s"
    return [(what, lines[0], "; ".join(lines[1:]), "")]


def _sessions(centre: Centre) -> set[str]:
    """Those of the uplink; one is made with each connection, also when a push has other devices in its birth."""
    told = (json.loads(payload) for name, _, payload in centre.heard if name.endswith("/session"))
    return {session["session"] for session in told}


def _polls(device: Counted, begun: float, seconds: float) -> str:
    asked = [at for at in device.asked if begun <= at < begun + seconds]
    return (
        f"{len(asked)} polls in {seconds:.0f} s, longest wait between two {_longest(device, begun, seconds):.2f} s"
    )


def _longest(device: Counted, begun: float, seconds: float = 1e9) -> float:
    asked = [at for at in device.asked if begun <= at < begun + seconds]
    return max(later - one for one, later in pairwise(asked))


def _quantiles(values: list[float]) -> str:
    if len(values) < 10:
        return f"{statistics.median(values):.2f} s"
    cuts = statistics.quantiles(values, n=20)
    return f"p50 {statistics.median(values):.2f} s, p95 {cuts[-1]:.2f} s"


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


MEASURES: tuple[tuple[Callable[[Path, float], list[Row]], float, float], ...] = (
    (agents, 200, 5),
    (back, 3, 1),
    (links, 20, 10),
)
