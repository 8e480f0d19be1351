"""Terminals that take pushes, in real processes, and a centre that sends what it should, and what it should not."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from agent.crypto.signing import COMMAND, CONFIGURATION
from agent.messages import topic
from agent.pushing.reports import digest_of
from hwsim.subscriber import Account
from tests.pushing import DAY, KEYS, TRUSTED, command, configuration, sealed
from tests.whole import BIN, Site, answers, site, wait

Json = dict[str, Any]
ORG = "coop"
DESIRED, ORDER, SIGNERS = "config/desired", "command", "trust/desired"
PROBATION = 10
UPLINK = "[uplink]\nretry = 0.2\nlinger = 0.0\n"
STOLEN = KEYS["robbed"].public.id


def now() -> int:
    return time.time_ns() // 1_000_000


def signers() -> str:
    """The file of those who sign for the centre, which knows of a key that was stolen."""
    people = [
        f'[[signer]]\nname = "{one.name}"\nroles = {json.dumps(sorted(one.roles))}\nkey = """{one.key.pem}"""\n'
        for one in TRUSTED.signers
    ]
    return f'revoked = ["{STOLEN}"]\n' + "".join(people)


def ups(port: object, **more: object) -> str:
    return _device("ups1", "ups", port, poll=0.1, **more)


def printer(port: object, **more: object) -> str:
    return _device("printer1", "printer", port, poll=0.1, **more)


def tap(port: object) -> str:
    """A dispenser that another program asks."""
    return _device("dispenser1", "dispenser", port, access="listen")


def _device(name: str, kind: str, port: object, **more: object) -> str:
    told = "".join(f"{key} = {json.dumps(value)}\n" for key, value in more.items())
    return f'[devices.{name}]\nkind = "{kind}"\nport = "{port}"\n{told}'


@dataclass
class Centre(Account):
    """A stranger who remembers every report and every session."""

    reports: list[tuple[str, Json]] = field(default_factory=list)
    sessions: list[tuple[str, Json]] = field(default_factory=list)

    def take(self, topic: str, payload: bytes, now: float) -> list[str]:
        terminal = topic.split("/")[3]
        if topic.endswith("/config/reported"):
            self.reports.append((terminal, json.loads(payload)))
        if topic.endswith("/session"):
            self.sessions.append((terminal, json.loads(payload)))
        return super().take(topic, payload, now)


class Till:
    """One terminal. `path` is its folder, one of its own unless it is given."""

    def __init__(self, ground: "Ground", name: str, path: Path | None = None) -> None:
        self.ground, self.name, self.path = ground, name, path or ground.folder / name
        self.path.mkdir(exist_ok=True)
        self.centre, self.own = ground.account, ""
        self.times = {"not_before": now() - 600_000, "expires": now() + DAY, "target": {"terminals": [name]}}
        (self.path / "signers.toml").write_text(signers())

    def configure(self, devices: str, broker: str = "") -> str:
        """Write the terminal's own file; returns what a push of the same would be."""
        tables = self.own = (broker or self.ground.broker()) + UPLINK + devices
        (self.path / "terminal.toml").write_text(
            f'[terminal]\norg = "{ORG}"\nid = "{self.name}"\ndata = "data"\ngroups = ["north"]\n'
            f'[control]\nsocket = "tw.sock"\n[push]\nsigners = "signers.toml"\nprobation = {PROBATION}\n{tables}'
        )
        return tables

    # --- what the centre sends ---

    def signed(self, *names: str, **fields: Any) -> bytes:
        """A configuration for this terminal that holds today, signed by ann and bo, or by these."""
        return sealed(CONFIGURATION, configuration(**self.times | fields), *(names or ("ann", "bo")))

    def ordered(self, *names: str, **fields: Any) -> bytes:
        """A command for this terminal."""
        return sealed(COMMAND, command(arguments={}) | self.times | fields, *(names or ("bo", "cy")))

    def send(self, payload: bytes, kind: str = DESIRED) -> str:
        """Send it, retained unless it is a command; returns the digest of what was signed."""
        self.ground.publish(topic(ORG, self.name, kind), payload, retain=kind != ORDER)
        return digest_of(payload)

    def push(self, version: int, config: str, **fields: Any) -> str:
        return self.send(self.signed(version=version, config=config, **fields))

    # --- what the terminal says ---

    def rows(self, event: str = "", **fields: Any) -> list[Json]:
        """The rows about pushes."""
        found = [
            row
            for (terminal, _, _), row in list(self.centre.rows.items())
            if terminal == self.name and row["kind"] == "push"
        ]
        wanted = fields | ({"event": event} if event else {})
        return [row for row in found if wanted.items() <= row.items()]

    def reports(self, **fields: Any) -> list[Json]:
        found = [report for terminal, report in list(self.centre.reports) if terminal == self.name]
        return [report for report in found if fields.items() <= report.items()]

    def reported(self, **fields: Any) -> Json:
        """Wait for such a report; the first one."""
        found: list[Json] = wait(f"{self.name} to report {fields}", lambda: self.reports(**fields))
        return found[0]

    def row(self, event: str, after: int = 0, **fields: Any) -> Json:
        """Wait for such a row, after so many of them; the first one."""
        found: list[Json] = wait(f"a row {event} {fields}", lambda: self.rows(event, **fields)[after:])
        return found[0]

    def results(self, **fields: Any) -> list[Json]:
        found = [result for terminal, result in list(self.centre.results) if terminal == self.name]
        return [result for result in found if fields.items() <= result.items()]

    def answered(self, part: str) -> None:
        """Wait for a result that says this."""
        wait(f"a result: {part}", lambda: [one for one in self.results() if part in one["detail"]])

    def sessions(self) -> int:
        """How often it connected; while it is, it may say more than once what is in force."""
        return len({said["session"] for one, said in list(self.centre.sessions) if one == self.name})

    def next(self) -> int:
        """A version that was not used yet, with one to spare before it."""
        return max((int(row["version"]) for row in self.rows("applying")), default=0) + 2

    def published(self, device: str, point: str) -> Any:
        """What the retained state says of a point; None when unknown or never seen."""
        state = self.centre.states.get(f"{self.name}/{device}", {"points": {}})["points"].get(point)
        return None if state is None or state.get("unknown") else state["value"]

    def up(self, *devices: str) -> bool:
        return all(self.published(device, "link.state") == "up" for device in devices)

    def ready(self, *devices: str) -> None:
        """Wait for the agent, and for its devices to answer."""
        wait(f"{self.name} and its {devices}", lambda: self.centre.online.get(self.name) and self.up(*devices))

    def ask(self, **request: Any) -> Json:
        """What a technician's command is answered; empty when the agent dies over it."""
        with suppress(ValueError, OSError), socket.socket(socket.AF_UNIX) as line:
            line.settimeout(20.0)
            line.connect(str(self.path / "tw.sock"))
            line.sendall(json.dumps(request).encode() + b"\n")
            answer: Json = json.loads(line.makefile("rb").readline())
            return answer
        return {}

    def opened(self, device: str) -> int:
        """How often the port of a device was opened, by the agent's log."""
        return self.log().count(f"INFO {device}: the port ")

    def log(self) -> str:
        return (self.path / "agent.log").read_text(errors="replace")

    def tillwire(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """A technician's command."""
        command = [str(BIN / "tillwire"), *arguments]
        environment = {**os.environ, "TILLWIRE_SOCKET": str(self.path / "tw.sock"), "LANG": "C.UTF-8"}
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)

    def kill(self) -> None:
        """kill -9, for one that tests.dying keeps."""
        os.kill(int((self.path / "pid").read_text()), signal.SIGKILL)


class Ground:
    """Terminals, one hwsim, one broker: those of a site, which `begin` starts unless somebody else does."""

    def __init__(self, one: Site) -> None:
        self.site, self.folder = one, one.folder
        self.account = one.account = Centre()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)

    def begin(self) -> None:
        self.site.start("broker")
        self.site.start("hwsim")
        wait("the broker", self.site.broker_answers)
        self.site.start("subscriber")
        wait("hwsim", partial(answers, self.folder / "control.sock"))
        self.connect()

    def connect(self) -> None:
        """The centre connects."""
        self._client.connect("127.0.0.1", self.site.port)
        self._client.loop_start()

    def broker(self, port: int = 0, more: str = "") -> str:
        return f'[broker]\nhost = "127.0.0.1"\nport = {port or self.site.port}\n{more}'

    def port(self, name: str) -> Path:
        """The port of a simulated device."""
        return self.folder / "atm1" / name

    def publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        self._client.publish(topic, payload, 1, retain).wait_for_publish(20.0)

    def start(self, till: Till, environment: Mapping[str, str] | None = None) -> None:
        """Start a terminal's agent, as a technician would."""
        words = [f"{name}={value}" for name, value in (environment or {}).items()]
        command = [sys.executable, "-m", "agent", "--config", str(till.path / "terminal.toml")]
        shell = f'exec "$@" 2>> {till.path}/agent.log'
        self.site.launch(till.name, "/bin/sh", "-c", shell, "sh", "/usr/bin/env", *words, *command)

    def keep(self, *tills: Till) -> None:
        """Start agents that are started again when they are killed."""
        root = Path(__file__).parent.parent
        folders = [str(till.path) for till in tills]
        command = ["/usr/bin/env", f"PYTHONPATH={root}", sys.executable, "-m", "tests.dying", *folders]
        self.site.launch(f"keeper of {tills[0].name}", *command)

    def all_is_told(self) -> None:
        """Every row has arrived once, in its place, and nobody's thread has died."""
        assert self.account.mistakes == []
        assert self.account.missing() == []
        assert [row for row in list(self.account.rows.values()) if row["kind"] == "thread"] == []

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@contextmanager
def ground(folder: Path, twins: str, broker: str = "") -> Iterator[Ground]:
    """All of it, cleaned up whatever happens; when the test fails, the logs are shown."""
    fleet = f'run_dir = "."\n[terminals.atm1.devices]\n{twins}'
    with site(folder, fleet=fleet) as one:
        if broker:
            with (folder / "broker.conf").open("a") as conf:
                conf.write(broker)
        found = Ground(one)
        try:
            found.begin()
            yield found
        except BaseException:
            for log in folder.glob("*/agent.log"):
                print(f"---- {log.parent.name}\n{log.read_text(errors='replace')[-3000:]}")
            raise
        finally:
            found.close()
