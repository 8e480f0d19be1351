"""The simulated ATM and POS of deploy/cooperative, each with its agent; a broker, and a stranger who listens."""

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hwsim.control import ask
from hwsim.subscriber import Account, follow
from tests.whole import BIN, MOSQUITTO, answers, free_port, wait

DEPLOYED = Path(__file__).parent.parent / "deploy/cooperative"
ATM = (
    "dispenser1",
    "acceptor1",
    "reader1",
    "epp1",
    "receipt",
    "journal",
    "dispenser2",
    "panel1",
    "climate1",
    "ups1",
)
POS = ("pad", "printer", "acceptor")
LINES = {
    "atm1/vendor": ("dispenser1", "acceptor1", "reader1", "epp1"),
    "atm1/receipt": ("receipt",),
    "atm1/journal": ("journal",),
    "atm1/dispenser2": ("dispenser2",),
    "atm1/rs485": ("panel1", "climate1"),
    "atm1/upsd": ("ups1",),
    "pos1/pad": ("pad",),
    "pos1/printer": ("printer",),
    "pos1/acceptor": ("acceptor",),
}
"""What is unplugged -> the devices that go dark with it."""


@dataclass
class Cooperative:
    """Both terminals below one folder. `account` is what the stranger has received; `linger` is as in [uplink]."""

    folder: Path
    linger: float = 1.0
    port: int = field(default_factory=free_port)
    account: Account = field(default_factory=Account)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)

    def prepare(self) -> None:
        """The files of deploy/cooperative, with this folder and free ports in them."""
        ports = {number: str(free_port()) for number in ("5851", "34931")}
        for path in DEPLOYED.glob("*.toml"):
            text = path.read_text().replace("../../run/cooperative", str(self.folder))
            text = text.replace('host = "127.0.0.1"', f'host = "127.0.0.1"\nport = {self.port}')
            if path.name != "fleet.toml":
                text += f"\n[uplink]\nretry = 0.5\nlinger = {self.linger}\nwait_for_reader = true\n"
            for number, free in ports.items():
                text = text.replace(number, free)
            (self.folder / path.name).write_text(text)
        (self.folder / "broker.conf").write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\nmax_queued_messages 0\n"
        )

    def start(self) -> None:
        self.launch("broker", MOSQUITTO, "-c", str(self.folder / "broker.conf"))
        wait("the broker", lambda: _connects(self.port))
        arguments = ("127.0.0.1", self.port, "5", self.account, lambda line: None, self.stop)
        threading.Thread(target=follow, args=arguments, daemon=True).start()
        self.launch("hwsim", str(BIN / "hwsim"), "serve", str(self.folder / "fleet.toml"))
        wait("hwsim", partial(answers, self.folder / "control.sock"))
        for name in ("atm", "pos"):
            self.launch(name, sys.executable, "-m", "agent", "--config", str(self.folder / f"{name}.toml"))

    def launch(self, name: str, *command: str) -> None:
        log = (self.folder / f"{name}.log").open("ab")
        self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def act(self, device: str, **act: Any) -> None:
        """One act on the simulated hardware."""
        list(ask(self.folder, {"do": "act", "act": {"device": device, **act}}))

    def tillwire(self, terminal: str, *arguments: str) -> dict[str, Any]:
        """A command of the technician at a terminal, as JSON."""
        command = [str(BIN / "tillwire"), *arguments, "--json", "--socket", str(self.folder / f"{terminal}.sock")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert "Traceback" not in done.stderr, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def shown(self, terminal: str) -> dict[str, dict[str, Any]]:
        """{device: {point: value, None when unknown}} as the control socket says."""
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(10.0)
            line.connect(str(self.folder / f"{terminal}.sock"))
            line.sendall(b'{"do": "devices"}\n')
            devices = json.loads(line.makefile("rb").readline())["devices"]
        return {d["name"]: {p["point"]: p["value"] for p in d["points"]} for d in devices}

    def published(self, device: str) -> dict[str, Any]:
        """{point: value, None when unknown} as the retained state says."""
        terminal = "POS-0001" if device in POS else "ATM-0001"
        points = self.account.states.get(f"{terminal}/{device}", {"points": {}})["points"]
        return {name: None if p.get("unknown") else p["value"] for name, p in points.items()}

    def up(self, device: str) -> bool:
        """Whether the retained state says that a device answers."""
        return self.published(device).get("link.state") == "up"

    def rows(self, kind: str, **fields: Any) -> list[dict[str, Any]]:
        rows = [row for row in self.account.rows.values() if row["kind"] == kind]
        return [r for r in rows if all(r.get(key) == value for key, value in fields.items())]

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def end(self, name: str) -> int:
        process = self.processes.pop(name)
        process.terminate()
        return process.wait(20.0)

    def close(self) -> None:
        for name in reversed(list(self.processes)):
            process = self.processes.pop(name)
            process.terminate()
            try:
                process.wait(10.0)
            except subprocess.TimeoutExpired:
                process.kill()
        self.stop.set()  # last: an agent whose rows nobody reads waits a little for somebody who does


@contextmanager
def cooperative(folder: Path, linger: float = 1.0) -> Iterator[Cooperative]:
    """Both terminals, up; cleaned up whatever happens, and when the test fails, the logs are shown."""
    both = Cooperative(folder, linger)
    both.prepare()
    try:
        both.start()
        for device in (*ATM, *POS):
            wait(f"{device} to answer", partial(both.up, device))
        yield both
    except BaseException:
        for path in sorted(folder.glob("*.log")):
            print(f"---- {path.name}\n{path.read_text(errors='replace')[-3000:]}")
        raise
    finally:
        both.close()


def _connects(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    with cooperative(Path(sys.argv[1])) as here:
        print(json.dumps(here.shown("atm") | here.shown("pos"), indent=1))
        time.sleep(float(sys.argv[2]) if len(sys.argv) > 2 else 0)
