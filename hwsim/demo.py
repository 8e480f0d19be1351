"""This file knows the demonstration: broker, simulated ATM, agent and a stranger who subscribes, each a process.

    python -m hwsim.demo FOLDER [--serve]

FOLDER holds atm.toml (the devices), story.toml (what happens to them) and terminal.toml (the agent). The broker is
mosquitto where it is installed, otherwise the embedded one over MQTT 3.1.1. At the end a table says what was made
and what arrived; the exit code is 0 only if nothing was lost or doubled and the ledger verifies.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

OUTAGE = (20.0, 30.0)
"""When the broker is down, in seconds of the story."""
END = 42.0
UNHURRIED = ("known", "start", "stop", "clock", "checkpoint")
"""Kinds of rows that are no news of a moment: they wait for company, or for the first connection."""
MOSQUITTO = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


class Failed(Exception):
    """The demo cannot go on; one sentence."""


class Stage:
    """The processes of the demo. `run` is the folder where all they write goes."""

    def __init__(self, scenes: Path, run: Path, port: int) -> None:
        self.scenes, self.run, self.port = scenes, run, port
        self.protocol = "5" if MOSQUITTO else "3.1.1"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def prepare(self) -> None:
        """An empty folder, and the agent's configuration in it."""
        shutil.rmtree(self.run, ignore_errors=True)
        self.run.mkdir(parents=True)
        config = (self.scenes / "terminal.toml").read_text()
        config = config.replace("port = 18830", f"port = {self.port}")
        config = config.replace('protocol = "5"', f'protocol = "{self.protocol}"')
        (self.run / "terminal.toml").write_text(config)
        (self.run / "broker.conf").write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\n"
        )

    def start(self, name: str, *command: str, loud: bool = False) -> None:
        """Start one process; what it says goes to run/<name>.log, or with `loud` to the screen."""
        log = None if loud else (self.run / f"{name}.log").open("ab")
        self._processes[name] = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def stop(self, name: str) -> None:
        """Ask one process to end, and wait for it."""
        process = self._processes.pop(name, None)
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10.0)
        except subprocess.TimeoutExpired:
            process.kill()

    def stop_all(self) -> None:
        """End whatever still runs, last started first."""
        for name in reversed(list(self._processes)):
            self.stop(name)

    def check(self) -> None:
        """Raise Failed when a process has ended that should run."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                tail = (self.run / f"{name}.log").read_text(errors="replace").strip().splitlines()[-3:]
                raise Failed(f"{name} has ended: {' / '.join(tail) or 'it said nothing'}")

    def start_broker(self) -> None:
        """mosquitto where it is installed, else the embedded broker."""
        if MOSQUITTO:
            self.start("broker", MOSQUITTO, "-c", str(self.run / "broker.conf"))
        else:
            self.start("broker", sys.executable, "-m", "hwsim.broker", str(self.port))
        self.wait("the broker", lambda: _connects(self.port))

    def start_terminal(self) -> None:
        """The simulated devices, the stranger and the agent."""
        hwsim = (sys.executable, "-m", "hwsim.cli")
        acts = str(self.run / "acts.jsonl")
        self.start("hwsim", *hwsim, "serve", str(self.scenes / "atm.toml"), "--run", str(self.run), "--log", acts)
        self.wait("the simulator", lambda: (self.run / "atm1" / "ups1").exists())
        report = str(self.run / "arrived.json")
        stranger = ("-m", "hwsim.subscriber", "--port", str(self.port), "--protocol", self.protocol)
        self.start("subscriber", sys.executable, *stranger, "--report", report, loud=True)
        self.start("agent", sys.executable, "-m", "agent", "--config", str(self.run / "terminal.toml"))
        self.wait("the agent", lambda: len(self.devices_known()) == 3)

    def wait(self, what: str, ready: Callable[[], bool], patience: float = 15.0) -> None:
        """Wait until something is ready. Raises Failed."""
        end = time.monotonic() + patience
        while not ready():
            self.check()
            if time.monotonic() > end:
                raise Failed(f"{what} is not ready after {patience:.0f} s: see {self.run}/*.log")
            time.sleep(0.05)

    def devices(self) -> dict[str, Any]:
        """What the agent says of itself on its control socket."""
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(5.0)
            line.connect(str(self.run / "tillwire.sock"))
            line.sendall(b'{"do": "devices"}\n')
            answer: dict[str, Any] = json.loads(line.makefile("rb").readline())
            return answer

    def devices_known(self) -> list[str]:
        """The devices that have answered."""
        try:
            devices = self.devices()["devices"]
        except OSError:
            return []
        return [d["name"] for d in devices if any(not p["unknown"] for p in d["points"])]


def tell(stage: Stage) -> tuple[float, float]:
    """Play the story; returns the wall-clock times between which the broker was down."""
    began = time.monotonic()
    stage.start(
        "story",
        sys.executable,
        "-m",
        "hwsim.cli",
        "play",
        str(stage.scenes / "story.toml"),
        "--run",
        str(stage.run),
    )
    _until(began + OUTAGE[0])
    print("--------  the broker is stopped for 10 seconds", flush=True)
    stage.stop("broker")
    down = time.time()
    _until(began + OUTAGE[1])
    stage.start_broker()
    up = time.time()
    print("--------  the broker is back", flush=True)
    _until(began + END)
    stage.wait("delivery", lambda: stage.devices()["uplink"]["backlog"] == 0, patience=20.0)
    return down, up


def account(stage: Stage, down: float, up: float) -> bool:
    """Print the table; True when every promise was kept."""
    stage.stop("agent")  # first: when it stops it writes its last rows, and they are to be verified too
    verify = subprocess.run(
        [
            str(Path(sys.executable).with_name("tillwire")),
            "ledger",
            "verify",
            "--json",
            "--store",
            str(stage.run / "data"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    stage.stop("subscriber")
    stage.stop_all()
    arrived = json.loads((stage.run / "arrived.json").read_text())
    with sqlite3.connect(f"file:{stage.run}/data/store.db?mode=ro", uri=True) as store:
        made = store.execute("SELECT max(seq) FROM ledger").fetchone()[0]
    acts = [json.loads(line) for line in (stage.run / "acts.jsonl").read_text().splitlines()]
    delivered = len(arrived["rows"])
    live, held = list[float](), list[float]()
    for row in arrived["rows"]:
        if row["row"]["kind"] in UNHURRIED:
            continue
        seen = row["row"]["at"] / 1000
        (held if down - 0.1 <= seen <= up + 2.5 else live).append((row["arrived"] - seen) * 1000)
    good = verify.returncode == 0 and made == delivered and not arrived["twins"] and not arrived["mistakes"]
    lines = [
        ("acts on the simulated hardware", str(len(acts))),
        ("ledger rows made", str(made)),
        ("  delivered", str(delivered)),
        ("  lost", str(made - delivered)),
        ("  doubled", f"{arrived['twins']} ({arrived['repeats']} repeats were sent and dropped by epoch and seq)"),
        ("broken promises seen", "; ".join(arrived["mistakes"]) or "none"),
        ("change seen -> subscriber, live", f"median {_ms(live, 0.5)}, p99 {_ms(live, 0.99)} ({len(live)} rows)"),
        ("  around the broker's outage", f"median {_ms(held, 0.5)}, p99 {_ms(held, 0.99)} ({len(held)} rows)"),
        (
            "ledger",
            f"verified: {_verdict(verify)}" if verify.returncode == 0 else f"NOT VERIFIED: {_verdict(verify)}",
        ),
    ]
    print()
    for label, value in lines:
        print(f"  {label:<34} {value}")
    print(f"\n  {'All promises kept.' if good else 'A PROMISE WAS BROKEN.'}")
    return bool(good)


def serve(stage: Stage) -> None:
    """Leave everything running and say what to try."""
    run = os.path.relpath(stage.run)
    print(
        f"""
Everything runs; Ctrl-C ends it. In another terminal, from this folder:

  .venv/bin/tillwire --socket {run}/tillwire.sock devices
  .venv/bin/tillwire --socket {run}/tillwire.sock watch
  .venv/bin/tillwire --socket {run}/tillwire.sock ledger tail
  .venv/bin/hwsim --run {run} set printer1 paper=out
  .venv/bin/hwsim --run {run} set ups1 mains=lost
  .venv/bin/hwsim --run {run} withdraw dispenser1 2 20
  .venv/bin/hwsim --run {run} line ups1 unplug
  .venv/bin/hwsim --run {run} line ups1 replug
  mosquitto_sub -p {stage.port} -v -t 'tillwire/v1/#'
""",
        flush=True,
    )
    while True:
        time.sleep(1.0)
        stage.check()


def main() -> int:
    """Run the demo. Exit code 0: all promises kept; 1: one was broken; 3: it cannot run here."""
    parser = argparse.ArgumentParser(prog="make demo ARGS=...", description="One simulated terminal, end to end.")
    parser.add_argument("scenes", type=Path, help="folder with atm.toml, story.toml and terminal.toml")
    parser.add_argument("--serve", action="store_true", help="leave everything running and say what to try")
    parser.add_argument("--run", type=Path, default=Path("run/demo"), help="where everything is written")
    parser.add_argument("--port", type=int, default=0, help="the broker's port (default: a free one)")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    stage = Stage(chosen.scenes, chosen.run.absolute(), chosen.port or free_port())
    print(
        f"broker: {'mosquitto' if MOSQUITTO else 'embedded (amqtt, MQTT 3.1.1)'}; files: {chosen.run}", flush=True
    )
    try:
        stage.prepare()
        stage.start_broker()
        stage.start_terminal()
        if chosen.serve:
            serve(stage)
        return 0 if account(stage, *tell(stage)) else 1
    except Failed as error:
        print(f"the demo cannot run: {error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        return 130
    finally:
        stage.stop_all()


def _until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


def _connects(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _ms(values: list[float], share: float) -> str:
    if len(values) < 2:
        return "-"
    return f"{statistics.quantiles(values, n=100, method='inclusive')[round(share * 100) - 1]:.1f} ms"


def _verdict(verify: subprocess.CompletedProcess[str]) -> str:
    try:
        answer = json.loads(verify.stdout)
    except ValueError:
        return verify.stderr.strip() or "no answer"
    return f"{answer['verified']} rows" if "verified" in answer else str(answer)


if __name__ == "__main__":
    sys.exit(main())
