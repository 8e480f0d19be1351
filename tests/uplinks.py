"""A terminal's uplink in this process: a real store, a real broker, and a centre that listens."""

import json
import os
import pwd
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from agent.config import Config, Tls, parse
from agent.messages import DeviceState
from agent.model import Batch
from agent.mqtt.outbox import Outbox
from agent.store import Store
from agent.tls import context
from agent.uplink import Uplink
from tests.authority import Authority
from tests.whole import MOSQUITTO, free_port, wait

ROOT = Path(__file__).parent.parent
SHIPPED = ROOT / "deploy/brokers/mosquitto"


class Mosquitto:
    """The broker of deploy/brokers/mosquitto: those very files, with other folders, another port and an authority.

    `certificate` and `key` are the broker's; `acl` and `more` are for what is not shipped.
    """

    def __init__(
        self, folder: Path, authority: Authority, broker: str = "broker", acl: str = "", more: str = ""
    ) -> None:
        folder.mkdir()
        self.folder, self.port, self._probes = folder, free_port(), 0
        files = {
            "broker.pem": f"{broker}.pem",
            "broker.key": f"{broker}.key",
            "ca.pem": "ca.pem",
            "ca.crl": "ca.crl",
        }
        for name, source in files.items():
            (folder / name).symlink_to(authority.folder / source)
        (folder / "acl").write_text(acl or (SHIPPED / "acl").read_text().replace("example-coop", "coop"))
        text = (SHIPPED / "mosquitto.conf").read_text()
        for what, instead in (
            ("listener 8883", f"listener {self.port} 127.0.0.1"),
            ("/etc/mosquitto/tillwire", str(folder)),
            ("/var/lib/mosquitto", str(folder)),
        ):
            assert what in text, f"mosquitto.conf as shipped has {what}"
            text = text.replace(what, instead)
        user = pwd.getpwuid(os.getuid()).pw_name
        (folder / "mosquitto.conf").write_text(f"user {user}\n{text}{more}\n")
        self.start()

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            command = [MOSQUITTO, "-c", str(self.folder / "mosquitto.conf")]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        wait("the broker", self._answers, 10.0)
        self._probes += 1

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(10)

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def attempts(self) -> int:
        """How often somebody has connected since the first start."""
        return self.log().count("New connection from") - self._probes

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def settings(
    folder: Path, port: int, more: str = "", *, terminal: str = "ATM-0001", tls: str = "", push: str = ""
) -> Config:
    """A configuration; `more` goes into [broker], `tls` into [broker.tls]. It is pushed to with `push`."""
    where = "" if "host" in more else f'host = "127.0.0.1"\nport = {port}\n'
    text = (
        f'[terminal]\norg = "coop"\nid = "{terminal}"\ndata = "data"\n'
        f"[uplink]\nretry = 0.1\nrefused = 0.4\nlinger = 0.0\n[broker]\n{where}keepalive = 5\n{more}\n"
    )
    text += (f"[broker.tls]\n{tls}\n" if tls else "") + (f"[push]\n{push}\n" if push else "")
    return parse(text.encode(), folder)


class Terminal:
    """An uplink that runs on a thread, and its store with rows that are to be delivered."""

    def __init__(self, config: Config, rows: int = 3, outbox: Outbox | None = None) -> None:
        self.store = Store(config.terminal.data, config.terminal.id)
        self.stop = threading.Event()
        self.heard: list[tuple[str, bytes]] = []
        self.uplink = Uplink(
            config, self.store, [], no_device, "boot", "test", self.stop, hear=self._hear, outbox=outbox
        )
        self.store.on_commit = self.uplink.poke
        self.commit(rows)
        self._thread = threading.Thread(target=self.uplink.run, daemon=True)
        self._thread.start()

    def commit(self, rows: int) -> None:
        at, up = time.time_ns() // 1_000_000, round(time.monotonic() * 1000)
        row = {"kind": "thread", "error": "none", "at": at, "up": up, "boot": "boot"}
        self.store.commit(Batch(rows=[{**row, "name": f"row {number}"} for number in range(rows)]))

    def says(self, *parts: str) -> bool:
        return all(part in self.uplink.status[1] for part in parts)

    def delivered(self) -> bool:
        return self.store.acked == self.store.head

    def _hear(self, kind: str, payload: bytes) -> None:
        self.heard.append((kind, payload))

    def close(self) -> None:
        self.stop.set()
        self.uplink.poke(True)
        self._thread.join(15.0)
        assert not self._thread.is_alive(), "the uplink ends when it is told to"
        self.store.close()


@contextmanager
def terminal(config: Config, rows: int = 3) -> Iterator[Terminal]:
    """A terminal that is stopped whatever happens; when the test fails, what it last said is shown."""
    one = Terminal(config, rows)
    try:
        yield one
    except BaseException:
        print("uplink:", one.uplink.status)
        raise
    finally:
        one.close()


@contextmanager
def centre(broker: Mosquitto, authority: Authority) -> Iterator[list[tuple[str, Any]]]:
    """What the centre hears: (topic without the organisation, payload)."""
    heard: list[tuple[str, Any]] = []
    ready = threading.Event()
    certificate, key = authority.folder / "centre.pem", authority.folder / "centre.key"
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="centre", protocol=mqtt.MQTTv5)
    client.tls_set_context(context(Tls(ca=authority.ca, certificate=certificate, key=key)))
    client.on_connect = lambda c, *_: c.subscribe("tillwire/v1/#", qos=1)
    client.on_subscribe = lambda *_: ready.set()
    client.on_message = lambda c, u, m: heard.append((m.topic.partition("coop/")[2], json.loads(m.payload)))
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    assert ready.wait(10.0)
    try:
        yield heard
    finally:
        client.disconnect()
        client.loop_stop()


def no_device(*_: object) -> DeviceState:
    raise AssertionError("there is no device")
