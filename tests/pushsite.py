"""A centre for tests: a broker that forgets all, simulated terminals, and `tillwire push` in this process."""

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

import agent.cli
from agent.messages import topic
from tests.terminals import ORG, Terminals, signed
from tests.whole import MOSQUITTO, free_port, wait


class Broker:
    """A mosquitto that forgets all when it ends."""

    def __init__(self, folder: Path) -> None:
        self.port, self._file = free_port(), folder / "broker.conf"
        self._file.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nlog_type none\nset_tcp_nodelay true\n"
        )
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen([MOSQUITTO, "-c", str(self._file)], stderr=subprocess.DEVNULL)
        wait("the broker", self._answers)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def retained(self, suffix: str) -> dict[str, bytes]:
        """What stands at the broker, by terminal."""
        found: dict[str, bytes] = {}
        client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        ended: list[bool] = []
        client.on_message = lambda c, u, m: found.update({m.topic.split("/")[3]: bytes(m.payload)})
        # the broker answers in order: what comes after the second subscription comes after all that is retained
        client.on_subscribe = lambda c, u, mid, *_: ended.append(True)
        client.connect("127.0.0.1", self.port)
        client.loop_start()
        wait("the connection", client.is_connected)
        client.subscribe(topic(ORG, "+", suffix), qos=0)
        client.subscribe("nothing", qos=0)
        wait("the answer", lambda: len(ended) == 2)
        client.disconnect()
        client.loop_stop()
        return found

    def _answers(self) -> bool:
        line = mqtt.Client(CallbackAPIVersion.VERSION2)
        with contextlib.suppress(OSError):
            line.connect("127.0.0.1", self.port)
            line.disconnect()
            return True
        return False


@dataclass
class Site:
    """A broker, its terminals, and a centre in a folder."""

    broker: Broker
    terminals: Terminals
    folder: Path

    def envelope(self, target: dict[str, Any], name: str = "push.json", **fields: Any) -> Path:
        path = self.folder / name
        path.write_bytes(signed(target, **fields))
        return path

    def start(self, *words: str | Path) -> "subprocess.Popen[str]":
        """Send in a process of its own."""
        command = [str(Path(sys.executable).parent / "tillwire"), *self.words("send", *words)]
        return subprocess.Popen(command, stdout=-1, stderr=-1, text=True, env={**os.environ, "LANG": "C.UTF-8"})

    def words(self, command: str, *words: str | Path) -> list[str]:
        where = ["--broker", f"127.0.0.1:{self.broker.port}", "--gather", "0.1"]
        return ["push", command, *map(str, words), *where]

    def send(self, *words: str | Path, typed: str = "") -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        return tillwire(*self.words("send", *words), typed=typed)

    def events(self, *words: str | Path) -> tuple[int, list[dict[str, Any]]]:
        """Exit code, and the events of --json."""
        code, out, err = self.send(*words, "--json")
        assert not err
        return code, [json.loads(line) for line in out.splitlines()]

    def times(self) -> dict[str, int]:
        """How often each terminal was sent to."""
        return {name: len(one.heard) for name, one in self.terminals.all.items()}


def tillwire(*words: str, typed: str = "") -> tuple[int, str, str]:
    """Run a command in this process."""
    out, err, before = io.StringIO(), io.StringIO(), (sys.argv, sys.stdin)
    sys.argv, sys.stdin = ["tillwire", *words], io.StringIO(typed)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = agent.cli.run()
    finally:
        sys.argv, sys.stdin = before
    return code, out.getvalue(), err.getvalue()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    one = Broker(tmp_path)
    try:
        with Terminals(one.port) as terminals:
            yield Site(one, terminals, tmp_path)
    finally:
        one.stop()


def kept(site: Site, name: str = "push.json.rollout.json") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((site.folder / name).read_text())
    return found
