"""A `hwsim serve` process with the echo devices, for tests: its run folder, and what one can ask it."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import serial

from hwsim.control import ask

FLEET = """
[terminals.atm1.devices.e1]
kind = "echo"
[terminals.atm1.devices.e2]
kind = "echo"
set = { colour = "green" }
[terminals.atm1.devices.net]
kind = "echo"
tcp = 0
[terminals.atm1.devices.tap]
kind = "echo"
tapped = true
[terminals.atm2.devices.e1]
kind = "shout"
"""


class Running:
    """A serving process and its run folder."""

    def __init__(self, folder: Path, fleet: str, *options: str) -> None:
        self.file, self.run = folder / "fleet.toml", folder / "run"
        self.file.write_text(fleet)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.echo", "serve", str(self.file), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if line.startswith("READY"):
                return
        raise AssertionError(f"not ready: {self.process.communicate()[1]}")

    def ask(self, **request: Any) -> list[dict[str, Any]]:
        return list(ask(self.run, request))

    def act(self, device: str, **act: Any) -> dict[str, Any]:
        [record] = self.ask(do="act", act={"device": device, **act})
        return record

    def shown(self, device: str) -> dict[str, Any]:
        [shown] = self.ask(do="show", device=device)
        return shown

    def open(self, name: str, baud: int = 9600) -> serial.Serial:
        return serial.Serial(str(self.run / name), baud, timeout=3)


@contextmanager
def running(folder: Path, fleet: str = FLEET, *options: str) -> Iterator[Running]:
    server = Running(folder, fleet, *options)
    try:
        yield server
    finally:
        server.process.terminate()
        try:
            _, errors = server.process.communicate(timeout=10)
        finally:
            server.process.kill()
        assert "Traceback" not in errors, errors


def wait_for(what: Callable[[], Any], seconds: float = 5.0) -> Any:
    """The first true value of `what` before the deadline."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)
    return found
