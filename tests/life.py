"""What customers, the branch and bad luck do to the simulated ATM and POS, and what must be true afterwards.

    python -m tests.life --minutes 60 [--seed 1] [--folder DIR]

The long form, which is run by hand; tests/test_cooperative.py runs the short one. It ends with a table, and with 1
when something that was shown or published was not true.
"""

import argparse
import json
import random
import re
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from agent.points import lookup
from tests.cooperative import ATM, LINES, POS, Cooperative, cooperative
from tests.whole import wait

BAD_LUCK = {
    "noise": 8.0,
    "damage": 0.1,
    "half": 0.1,
    "bytewise": None,
    "merge": 0.05,
    "delay": 0.1,
    "silent": None,
}
SERIAL = [line for line in LINES if line.partition("/")[2] not in ("vendor", "upsd")]
DARK = 22.0
"""Seconds in which a value may still be believed after its cable was pulled: its max_age of 15, and the wire."""
EXPLAINED = re.compile(
    r"[\w-]+: the port \S+ is open"
    r"|[\w-]+: the port \S+ was lost "
    r"\((device reports readiness|read failed|every connection was closed|\[Errno).*\)"
    r"|[\w-]+: \S+ is not there: is the cable in, and is the adapter found by the system\?"
    r"|[\w-]+: socket://\S+ refuses the connection: is the device on, and is the address right\?"
    r"|[\w-]+: ws://\S+: no publisher answers; does its service run\?"
    r"|[\w-]+: \S+ is lost as soon as it is open \(.*\): does another program or client have it\?"
    r"|uplink: (connected to|127\.0\.0\.1:\d+ cannot be reached|the connection was lost|the agent has stopped).*"
)
"""Every line that an agent may log here: a port that comes or goes, and the broker."""


@dataclass
class Life:
    """What was done so far, and what follows from it: {device: {point: value}}."""

    both: Cooperative
    rng: random.Random
    begun: dict[str, dict[str, Any]] = field(default_factory=dict)
    expected: dict[str, dict[str, Any]] = field(default_factory=dict)
    acts: int = 0
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.begun = self.both.shown("atm") | self.both.shown("pos")

    def expect(self, device: str, point: str, value: Any) -> None:
        self.expected.setdefault(device, {})[point] = value

    def add(self, device: str, point: str, number: int) -> None:
        """A counted point is `number` more than before."""
        before = self.expected.get(device, {}).get(point, self.begun[device].get(point, 0))
        self.expect(device, point, before + number)

    def something(self) -> None:
        """One thing that happens on an ordinary day."""
        self.acts += 1
        self.rng.choice(
            [self.withdraw, self.withdraw, self.deposit, self.insert, self.paper, self.door, self.climate]
        )()

    def withdraw(self) -> None:
        unit, count = self.rng.randint(1, 4), self.rng.randint(1, 10)
        self.both.act("vendor", set={"dispense": f"{unit}:{count}"})
        self.add("dispenser1", f"cassette.unit{unit}.count", -count)

    def deposit(self) -> None:
        count = self.rng.randint(1, 5)
        self.both.act("vendor", set={"deposit": f"unit5:{count}"})
        self.add("acceptor1", "cassette.unit5.count", count)

    def insert(self) -> None:
        """A note at the POS; its acceptor takes one at a time."""
        channel = self.rng.randint(1, 4)
        point = f"acceptor.channel.{channel}.accepted"
        before = self.both.shown("pos")["acceptor"].get(point)
        if before is None or not self.both.up("acceptor"):
            return
        self.both.act("pos1/acceptor", set={"insert": channel})
        self.add("acceptor", point, 1)
        wait("the credit", lambda: (self.both.shown("pos")["acceptor"].get(point) or 0) > before, 40.0)

    def paper(self) -> None:
        word = self.rng.choice(["full", "low", "out"])
        where, device, point = self.rng.choice(
            [
                ("atm1/receipt", "receipt", "paper.receipt"),
                ("atm1/journal", "journal", "paper.journal"),
                ("pos1/printer", "printer", "paper.receipt"),
            ]
        )
        self.both.act(where, set={"paper": word})
        self.expect(device, point, word)

    def door(self) -> None:
        point, words = self.rng.choice([("safe_door", ("open", "closed")), ("tamper", ("on", "off"))])
        word = self.rng.choice(words)
        self.both.act("panel", set={point: word})
        self.expect("panel1", point, word)

    def climate(self) -> None:
        degrees = float(self.rng.randint(15, 35))
        self.both.act("climate", set={"temperature": degrees})
        self.expect("climate1", "ambient.temperature", degrees)

    def trouble(self, seconds: float) -> None:
        """A serial line is bad for a while. A tap that misses a result cannot know it, so that line is left out."""
        line = self.rng.choice([line for line in SERIAL if line != "atm1/dispenser2"])
        word = self.rng.choice(list(BAD_LUCK))
        self.both.act(line, line=word, value=BAD_LUCK[word])
        time.sleep(seconds)
        self.both.act(line, line="good")

    def settle(self, patience: float = 60.0) -> None:
        """Wait until what is shown and published is what it must be; what is not by then is noted as wrong."""
        end = time.monotonic() + patience
        while (wrong := self.untrue()) and time.monotonic() < end:
            time.sleep(0.2)
        self.wrong += wrong

    def untrue(self) -> list[str]:
        """Every expected value that is not shown, or not published."""
        shown = self.both.shown("atm") | self.both.shown("pos")
        found = []
        for device in (*ATM, *POS):
            published = self.both.published(device)
            for point, value in {"link.state": "up", **self.expected.get(device, {})}.items():
                for where, has in (("shown", shown[device].get(point)), ("published", published.get(point))):
                    close = isinstance(value, float) and isinstance(has, float) and abs(has - value) <= 1.0
                    if has != value and not close:
                        found.append(f"{device} {point}: {has} is {where}, and {value} is true")
        return found

    def pull(self, line: str) -> None:
        self.both.act(line, line="unplug")

    def dark(self, line: str) -> None:
        """Wait until every value behind a pulled cable is unknown; what is not by then is noted as wrong."""
        end = time.monotonic() + DARK
        while (wrong := self.still_believed(line)) and time.monotonic() < end:
            time.sleep(0.2)
        self.wrong += wrong

    def still_believed(self, line: str) -> list[str]:
        shown = self.both.shown("atm") | self.both.shown("pos")
        found = []
        for device in LINES[line]:
            for where, points in (("shown", shown[device]), ("published", self.both.published(device))):
                found += [
                    f"{device} {point}: {value} is {where}, and its cable is out"
                    for point, value in points.items()
                    if value is not None and not point.startswith("link.") and lookup(point).max_age < DARK
                ]
                if points.get("link.state") in (None, "up"):
                    found.append(f"{device}: {points.get('link.state')} is {where}, and its cable is out")
        return found

    def put_back(self, line: str) -> None:
        self.both.act(line, line="replug")


def unexplained(log: str) -> list[str]:
    """The lines of an agent's log that nobody can explain."""
    lines = [line for line in log.splitlines() if line.strip()]
    return [line for line in lines if not EXPLAINED.fullmatch(re.sub(r"^\S+ \S+ (INFO|WARNING) ", "", line))]


def main() -> int:
    """Run the long form. Returns 0 when everything that was shown was true."""
    parser = argparse.ArgumentParser(prog="python -m tests.life", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=None)
    chosen = parser.parse_args()
    folder = chosen.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    with cooperative(folder) as both:
        life = Life(both, random.Random(chosen.seed))
        agents = {name: psutil.Process(both.processes[name].pid) for name in ("atm", "pos")}
        begun = time.monotonic()
        end = begun + chosen.minutes * 60
        pulled = list(LINES)
        each = (chosen.minutes * 60 * 0.9) / len(pulled)
        next_pull = begun + each / 2
        said = begun
        while time.monotonic() < end:
            life.something()
            time.sleep(life.rng.uniform(0.2, 4.0))
            if life.rng.random() < 0.08:
                life.trouble(life.rng.uniform(1.0, 8.0))
                life.settle()
            if pulled and time.monotonic() > next_pull:
                line = pulled.pop(0)
                next_pull += each
                life.settle()
                life.pull(line)
                life.dark(line)
                life.put_back(line)
                life.settle()
            if time.monotonic() - said > 60:
                said = time.monotonic()
                print(f"{(said - begun) / 60:.0f} min: {life.acts} acts, {len(life.wrong)} wrong", flush=True)
        life.settle()
        took = time.monotonic() - begun
        report: dict[str, Any] = {"minutes": round(took / 60, 1), "acts": life.acts, "wrong": life.wrong}
        for name, agent in agents.items():
            times, memory = agent.cpu_times(), agent.memory_full_info()
            report[f"{name} RSS MB"] = round(memory.rss / 1e6, 1)
            report[f"{name} PSS MB"] = round(memory.pss / 1e6, 1)
            report[f"{name} CPU s/min"] = round((times.user + times.system) / took * 60, 2)
            report[f"{name} verified"] = both.tillwire(name, "ledger", "verify").get("verified")
            both.end(name)
            report[f"{name} unexplained log lines"] = unexplained(both.log(name))
        wait("the last rows", lambda: len(both.rows("stop")) == 2)
        report["rows"] = len(both.account.rows)
        report["faults raised"] = len(both.rows("fault.raised"))
        report["never pulled"] = pulled
        report["broken promises"] = both.account.mistakes
        report["doubled"] = both.account.twins()
    print(json.dumps(report, indent=1))
    bad = [report["wrong"], report["broken promises"], report["doubled"], pulled]
    bad += [report[f"{name} unexplained log lines"] or not report[f"{name} verified"] for name in agents]
    return 1 if any(bad) else 0


if __name__ == "__main__":
    sys.exit(main())
