"""A whole terminal in real processes: mosquitto, hwsim, the agent and a stranger who subscribes."""

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from hwsim.subscriber import Account, follow

BIN = Path(sys.executable).parent
MOSQUITTO = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin") or "mosquitto"
DEVICES = """
[devices.ups1]
kind = "ups"
port = "./atm1/ups1"

[devices.printer1]
kind = "printer"
port = "./atm1/printer1"

[devices.dispenser1]
kind = "dispenser"
port = "./atm1/dispenser1"
access = "listen"
"""
FLEET = """
run_dir = "."
[terminals.atm1.devices.ups1]
kind = "ups"
[terminals.atm1.devices.printer1]
kind = "printer"
[terminals.atm1.devices.dispenser1]
kind = "dispenser"
tapped = true
set = { notes1 = 130, notes2 = 900, notes3 = 900, notes4 = 900, near_end = 60 }
"""


def wait(what: str, ready: Callable[[], Any], patience: float = 30.0) -> Any:
    """Wait for a condition with a deadline; returns what it gave."""
    end = time.monotonic() + patience
    while True:
        found = ready()
        if found:
            return found
        assert time.monotonic() < end, f"waited {patience} s in vain for {what}"
        time.sleep(0.02)


def answers(path: Path) -> bool:
    """Whether somebody listens: a killed server leaves its socket's file behind."""
    with socket.socket(socket.AF_UNIX) as line:
        try:
            line.connect(str(path))
        except OSError:
            return False
    return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Site:
    """One terminal and its centre, below one folder. `account` is what the stranger has received."""

    def __init__(self, folder: Path, protocol: str = "5", devices: str = DEVICES, fleet: str = FLEET) -> None:
        self.folder, self.protocol = folder, protocol
        self.port = free_port()
        self.account = Account()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._stop = threading.Event()
        (folder / "fleet.toml").write_text(fleet)
        (folder / "broker.conf").write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\nmax_queued_messages 0\n"
        )
        self.configure(devices)

    def configure(self, devices: str = DEVICES, uplink: str = "linger = 0.1") -> Path:
        """Write the agent's configuration. What is not urgent comes soon, not after minutes."""
        path = self.folder / "terminal.toml"
        path.write_text(
            f'[terminal]\norg = "coop"\nid = "ATM-0001"\ndata = "data"\n'
            f'[broker]\nhost = "127.0.0.1"\nport = {self.port}\nprotocol = "{self.protocol}"\n'
            f"[uplink]\nretry = 0.5\nwait_for_reader = true\n{uplink}\n"
            f'[control]\nsocket = "tw.sock"\n{devices}'
        )
        return path

    def start(self, name: str) -> None:
        """Start broker, hwsim, agent or subscriber."""
        commands = {
            "broker": [MOSQUITTO, "-c", str(self.folder / "broker.conf")],
            "hwsim": [str(BIN / "hwsim"), "serve", str(self.folder / "fleet.toml")],
            "agent": [sys.executable, "-m", "agent", "--config", str(self.folder / "terminal.toml")],
        }
        if name == "subscriber":
            arguments = ("127.0.0.1", self.port, self.protocol, self.account, lambda line: None, self._stop)
            threading.Thread(target=follow, args=arguments, daemon=True).start()
            return
        self.launch(name, *commands[name])

    def launch(self, name: str, *command: str) -> None:
        """Start a process; what it prints goes to its log."""
        log = (self.folder / f"{name}.log").open("ab")
        self._processes[name] = subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.folder
        )

    def start_all(self) -> None:
        self.start("broker")
        wait("the broker", self.broker_answers)
        self.start("subscriber")
        self.start("hwsim")
        wait("hwsim", partial(answers, self.folder / "control.sock"))
        self.start("agent")

    def broker_answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def end(self, name: str, how: signal.Signals = signal.SIGTERM) -> int:
        """Signal one process and wait for its end; returns its exit code.

        Serial ports vanish with their hardware. A killed hwsim leaves their names behind, and the next program on
        this machine that opens a pseudo-terminal, another test's hwsim, would have our agent on its line.
        """
        if name == "hwsim":
            for port in self.folder.glob("*/*"):
                if port.is_symlink():
                    port.unlink()
        process = self._processes.pop(name)
        process.send_signal(how)
        return process.wait(15.0)

    def alive(self, name: str) -> bool:
        return name in self._processes and self._processes[name].poll() is None

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def act(self, **what: Any) -> None:
        """One act on a simulated device without the cost of a command line."""
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(10.0)
            line.connect(str(self.folder / "control.sock"))
            line.sendall(json.dumps({"do": "act", "act": what}).encode() + b"\n")
            for answer in line.makefile("rb"):
                assert b"refused" not in answer, answer

    def process(self, name: str) -> int:
        """The process id of a part."""
        return self._processes[name].pid

    def tillwire(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, "TILLWIRE_SOCKET": str(self.folder / "tw.sock"), "LANG": "C.UTF-8"}
        return subprocess.run(
            [str(BIN / "tillwire"), *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            timeout=60,
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """The first line of the control socket's answer."""
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(10.0)
            line.connect(str(self.folder / "tw.sock"))
            line.sendall(json.dumps(request).encode() + b"\n")
            answer: dict[str, Any] = json.loads(line.makefile("rb").readline())
            return answer

    def device(self, name: str) -> dict[str, Any]:
        return next(d for d in self.ask(do="devices")["devices"] if d["name"] == name)

    def shown(self, device: str, point: str) -> Any:
        """What the agent says of a point now: its value, None when unknown or never seen."""
        try:
            points = self.device(device)["points"]
        except OSError:
            return None
        return next((p["value"] for p in points if p["point"] == point), None)

    def published(self, device: str, point: str) -> Any:
        """What the retained state says of a point now: its value, None when unknown or never seen."""
        state = self.account.states.get(f"ATM-0001/{device}", {"points": {}})["points"].get(point)
        return None if state is None or state.get("unknown") else state["value"]

    def rows(self, kind: str = "", **fields: Any) -> list[dict[str, Any]]:
        """What the stranger has received, in order of epoch's arrival and seq."""
        rows = [row for row in self.account.rows.values() if not kind or row["kind"] == kind]
        return [r for r in rows if all(r.get(key) == value for key, value in fields.items())]

    def made(self) -> list[tuple[str, int]]:
        """(epoch, head) of the store, read behind the agent's back."""
        with sqlite3.connect(f"file:{self.folder}/data/store.db?mode=ro", uri=True) as db:
            epoch = db.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()[0]
            return [(epoch, db.execute("SELECT coalesce(max(seq), 0) FROM ledger").fetchone()[0])]

    def delivered(self) -> bool:
        """Whether the stranger has every row that there is."""
        arrived = {(epoch, seq) for _, epoch, seq in self.account.rows}
        return all((epoch, seq) in arrived for epoch, head in self.made() for seq in range(1, head + 1))

    def close(self) -> None:
        for name in reversed(list(self._processes)):
            process = self._processes.pop(name)
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10.0)
            except subprocess.TimeoutExpired:
                process.kill()
        self._stop.set()  # last: an agent whose rows nobody reads waits a little for somebody who does


@contextmanager
def site(folder: Path, **options: Any) -> Iterator[Site]:
    """A site that is cleaned up whatever happens; when the test fails, the logs are shown."""
    terminal = Site(folder, **options)
    try:
        yield terminal
    except BaseException:
        for name in ("agent", "hwsim", "broker"):
            if (folder / f"{name}.log").exists():
                print(f"---- {name}\n{terminal.log(name)[-3000:]}")
        raise
    finally:
        terminal.close()
