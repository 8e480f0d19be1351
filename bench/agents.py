"""Terminals that run the agent's whole code, many in a process, each with two simulated UPSes of its own.

ups1 is the one that a push changes, ups2 is left as it is. Both are on ptys, whose names are the same in the folder
of each terminal, so that one push is right for all; alone, a terminal may have ups2 on a TCP port that counts who
comes.
"""

import json
import logging
import os
import pty
import selectors
import socket
import threading
import time
import tty
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import psutil
from paho.mqtt.enums import CallbackAPIVersion

from agent.crypto.signing import CONFIGURATION
from agent.messages import topic
from agent.pushing.inforce import begin
from agent.service import Service
from bench.processes import processes, settle
from hwsim.ups import Ups
from tests.pushing import DAY, TRUSTED, configuration, sealed
from tests.whole import wait

EACH = 25
"""Terminals of one process: each has about eight threads."""
SIGNERS = "".join(
    f"[[signer]]\nname = \"{s.name}\"\nroles = {json.dumps(sorted(s.roles))}\nkey = '''{s.key.pem}'''\n"
    for s in TRUSTED.signers
)
ORG = "coop"


@dataclass
class Counted:
    """One device: who opened it, and when it was asked for its status (monotonic seconds)."""

    port: int = 0
    opened: int = 0
    asked: list[float] = field(default_factory=list)


class Twins:
    """Simulated UPSes, served by one thread."""

    def __init__(self) -> None:
        self._watched = selectors.DefaultSelector()
        self._end = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def at_pty(self, name: Path) -> Counted:
        """A pty that this name leads to. Its slave end stays open here, so nobody sees it being opened."""
        master, slave = pty.openpty()
        tty.setraw(slave)
        name.symlink_to(os.ttyname(slave))
        found = Counted()
        self._watched.register(master, selectors.EVENT_READ, (None, Ups(), found))
        return found

    def at_port(self) -> Counted:
        server = socket.create_server(("127.0.0.1", 0))
        found = Counted(server.getsockname()[1])
        self._watched.register(server, selectors.EVENT_READ, (server, Ups(), found))
        return found

    def close(self) -> None:
        self._end = True
        self._thread.join(5.0)

    def _serve(self) -> None:
        while not self._end:
            for key, _ in self._watched.select(0.1):
                server, device, found = key.data
                if server is not None:
                    line, _ = server.accept()
                    found.opened += 1
                    self._watched.register(line, selectors.EVENT_READ, (None, device, found))
                    continue
                try:
                    data = os.read(key.fd, 4096)
                except OSError:
                    data = b""
                if not data:
                    self._watched.unregister(key.fileobj)
                    if isinstance(key.fileobj, socket.socket):
                        key.fileobj.close()
                    continue
                found.asked += [time.monotonic()] * data.count(b"Q1\r")
                os.write(key.fd, device.receive(data))


class Agent:
    """One terminal, whole, in this process. tcp: whether ups2 is on a port; tls: the lines of [broker.tls]."""

    def __init__(
        self,
        folder: Path,
        number: int,
        twins: Twins,
        port: int,
        probation: int = 10,
        tls: str = "",
        tcp: bool = False,
    ) -> None:
        self.folder, self.name = folder / f"{number:04}", f"ATM-{number:04}"
        self.folder.mkdir()
        (self.folder / "signers.toml").write_text(SIGNERS)
        self.changed = twins.at_pty(self.folder / "ups1")
        self.kept = twins.at_port() if tcp else twins.at_pty(self.folder / "ups2")
        self.where = f"socket://127.0.0.1:{self.kept.port}" if tcp else "./ups2"
        self.file = self.folder / "terminal.toml"
        self.file.write_text(
            f'[terminal]\norg = "{ORG}"\nid = "{self.name}"\ndata = "data"\n[control]\nsocket = "s"\n'
            f'[push]\nsigners = "signers.toml"\nprobation = {probation}\n' + tables(port, kept=self.where, tls=tls)
        )
        self.begin()

    def begin(self) -> None:
        self.service = Service(begin(self.file))
        self._thread = threading.Thread(target=self.service.run, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self.service.stop.set()
        self._thread.join(20.0)

    def up(self) -> bool:
        uplink = self.service.uplink
        return bool(uplink and uplink.connected and min(len(self.changed.asked), len(self.kept.asked)) > 2)


@contextmanager
def alone(folder: Path, port: int, probation: int = 10, **other: Any) -> Iterator[Agent]:
    """One terminal in this process."""
    logging.disable()
    twins = Twins()
    agent = Agent(folder, 1, twins, port, probation, **other)
    wait("the terminal", agent.up)
    try:
        yield agent
    finally:
        agent.end()
        twins.close()


def tables(port: int, poll: float = 1.0, kept: str = "./ups2", tls: str = "", more: str = "") -> str:
    """The tables that a push replaces. poll: of ups1; kept: the port of ups2; more: at the end."""
    return (
        f'[broker]\nhost = "127.0.0.1"\nport = {port}\nkeepalive = 300\n'
        + (f"[broker.tls]\n{tls}" if tls else "")
        + "[uplink]\nretry = 1.0\nrefresh = 3600\nlinger = 1.0\n"
        + f'[devices.ups1]\nkind = "ups"\nport = "./ups1"\npoll = {poll}\n'
        + f'[devices.ups2]\nkind = "ups"\nport = "{kept}"\npoll = 1.0\n'
        + more
    )


def envelope(version: int, config: str, **other: Any) -> bytes:
    """What two people have signed, for all terminals."""
    now = time.time_ns() // 1_000_000
    times = {"not_before": now - DAY, "expires": now + DAY, "org": ORG, "target": {"all": True}}
    return sealed(CONFIGURATION, configuration(version=version, config=config, **{**times, **other}), "ann", "bo")


class Centre:
    """A paho client of nobody's code: it publishes retained, and hears what terminals report."""

    def __init__(self, port: int, *, tls: tuple[Path, Path, Path] | None = None) -> None:
        self.heard: list[tuple[str, float, bytes]] = []
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        self._client.on_message = lambda c, u, m: self.heard.append((m.topic, time.monotonic(), bytes(m.payload)))
        ready = threading.Event()
        self._client.on_subscribe = lambda *_: ready.set()
        if tls:
            ca, certificate, key = map(str, tls)
            self._client.tls_set(ca, certificate, key)
        self._client.connect("127.0.0.1", port)
        self._client.socket().setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # type: ignore[union-attr]
        self._client.loop_start()
        self._client.subscribe([(topic(ORG, "+", suffix), 1) for suffix in ("config/reported", "session", "bare")])
        ready.wait(5.0)

    def send(self, name: str, payload: bytes, suffix: str = "config/desired") -> float:
        """Publish; returns when that was begun."""
        begun = time.monotonic()
        self._client.publish(topic(ORG, name, suffix), payload, qos=1, retain=True)
        return begun

    def outcome(self, version: int, patience: float = 30.0) -> tuple[str, float]:
        """How a push ended, as reported, and when that was heard."""

        def found() -> tuple[str, float] | None:
            for name, at, payload in self.heard:
                if name.endswith("/reported") and payload:
                    told = json.loads(payload)
                    if told.get("version") == version and told["outcome"] not in ("applying", "none"):
                        return told["outcome"], at
            return None

        outcome: tuple[str, float] = wait(f"the end of version {version}", found, patience)
        return outcome

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def work(pipe: Pipe, numbers: range, folder: Path, port: int) -> None:
    """One process of terminals. It tells how many are up whenever it is asked."""
    settle()
    twins = Twins()
    agents = [Agent(folder, number, twins, port) for number in numbers]
    while pipe.recv() != "end":
        pipe.send((sum(agent.up() for agent in agents), psutil.Process().memory_full_info().uss))
    os._exit(0)


def many(folder: Path, terminals: int, port: int) -> AbstractContextManager[list[Pipe]]:
    """So many terminals in processes of EACH; a pipe to each."""
    return processes(work, terminals, EACH, folder, port)


def up(pipes: list[Pipe]) -> tuple[int, int]:
    """How many terminals are up, and the bytes of memory that they take."""
    for pipe in pipes:
        pipe.send("how")
    told = [pipe.recv() for pipe in pipes]
    return sum(many for many, _ in told), sum(size for _, size in told)
