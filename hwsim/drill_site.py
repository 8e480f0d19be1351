"""This file knows the processes of a training drill: the pad, the simulated ATM, the agent; and what they tell.

No broker: the agent keeps its rows, as a terminal does that is cut off. The pad is `hwsim epp` in a process of its
own, with its slots in a file.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from hwsim.demo import Failed, Stage
from hwsim.drill_story import Row, Seen
from hwsim.secure_link import say

TERMINAL, SERIAL = "ATM-0001", "2411-0001"
PEOPLE = {"li": ("key-manager", "managers"), "wang": ("technician", "technicians")}
"""Name -> role and group of the two who practise."""
PAGE = 1000
"""Rows of the ledger that are asked for at once."""
HERE = """\
# Read this in each of the terminals A, B and C:  . {run}/here.sh
cd '{run}'
export TILLWIRE_SOCKET='{run}/tillwire.sock' HWSIM_RUN='{run}' PATH='{bin}':"$PATH"
unset HISTFILE
"""


def first_password(name: str) -> str:
    """What a person is given at first, and must replace."""
    return f"first-visit-of-{name}"


class Site(Stage):
    """The terminal of a drill. `port` is that of the vendor's publisher."""

    def prepare(self) -> None:
        """An empty folder, with the configurations of this drill in it."""
        shutil.rmtree(self.run, ignore_errors=True)
        self.run.mkdir(parents=True, mode=0o700)
        for name in ("fleet.toml", "terminal.toml"):
            text = (self.scenes / name).read_text(encoding="utf-8").replace("58510", str(self.port))
            text = text.replace('"run/drill/', f'"{self.run}/')
            (self.run / name).write_text(text, encoding="utf-8")
        here = HERE.format(run=self.run, bin=Path(sys.executable).parent)
        (self.run / "here.sh").write_text(here, encoding="utf-8")
        self._seq = 0

    def start_all(self) -> None:
        """Start everything, and give the two people their accounts. Raises Failed."""
        hwsim = (sys.executable, "-m", "hwsim.cli")
        sockets = ("--socket", str(self.run / "device.sock"), "--keypad", str(self.keypad))
        kept = ("--slots", str(self.run / "slots.json"), "--serial", SERIAL)
        self.start("epp", *hwsim, "epp", *sockets, *kept)
        self.wait("the pad", self.keypad.exists)
        self.start("hwsim", *hwsim, "serve", str(self.run / "fleet.toml"), "--run", str(self.run))
        self.wait("the simulator", lambda: (self.run / "control.sock").exists())
        self.start("agent", sys.executable, "-m", "agent", "--config", str(self.run / "terminal.toml"))
        self.wait("the agent", lambda: len(self.devices_known()) == 2)
        for name, (role, group) in PEOPLE.items():
            given = {"name": name, "role": role, "group": group, "password": first_password(name)}
            self.ask({"do": "accounts", "act": "add", **given})

    @property
    def keypad(self) -> Path:
        return self.run / "keypad.sock"

    def ask(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """Every line of the agent's answer. Raises Failed when it refuses, or is not there."""
        try:
            with socket.socket(socket.AF_UNIX) as line:
                line.settimeout(10.0)
                line.connect(str(self.run / "tillwire.sock"))
                line.sendall(json.dumps(request).encode() + b"\n")
                answers = [json.loads(text) for text in line.makefile("rb")]
        except OSError as error:
            raise Failed(
                f"the agent does not answer ({error.strerror or error}): read {self.run}/agent.log"
            ) from error
        for answer in answers:
            if "error" in answer:
                raise Failed(f"the agent refuses {request['do']}: {answer['error']}")
        return answers

    def hands(self, **touch: Any) -> dict[str, Any]:
        """Do something at the pad; what somebody before it sees then. Raises OSError."""
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(5.0)
            line.connect(str(self.keypad))
            seen: dict[str, Any] = say(line, touch)["ok"]
            return seen

    def look(self, seen: Seen) -> list[Row]:
        """Bring what is known up to date; returns the new rows of ceremonies."""
        fresh: list[Row] = []
        for answer in self.ask({"do": "ledger", "after": self._seq, "limit": PAGE}):
            if "row" in answer:
                self._seq = answer["row"]["seq"]
                fresh += [answer["row"]] if answer["row"]["kind"] == "ceremony" else []
        seen.rows += fresh
        accounts = self.ask({"do": "accounts", "act": "list"})[0]["accounts"]
        seen.fresh = {account["name"] for account in accounts if account["fresh"]}
        panel = next(device for device in self.devices()["devices"] if device["name"] == "panel1")
        points = {point["point"]: point["value"] for point in panel["points"]}
        seen.switch = str(points.get("operator_switch", ""))
        return fresh

    def next_step(self) -> tuple[str, str]:
        """What the agent says is to be done, in English and Chinese."""
        step = self.ask({"do": "keys", "act": "status"})[0]["keys"]["step"]
        return step["en"], step["zh"]

    def tillwire(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run one of the technician's commands, without a terminal of its own."""
        command = [str(Path(sys.executable).with_name("tillwire")), *words]
        environment = {**os.environ, "TILLWIRE_SOCKET": str(self.run / "tillwire.sock")}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)
