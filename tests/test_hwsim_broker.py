"""The demo's broker, through an independent client over MQTT 3.1.1."""

import os
import queue
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion


@pytest.fixture(scope="module")
def broker() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "hwsim.broker", str(port)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == f"READY mqtt://127.0.0.1:{port}\n"
        yield port
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=15)
        assert process.returncode == 0
        assert errors == "", "a demo's screen belongs to the devices"


class Client:
    """A 3.1.1 client with its inbox."""

    def __init__(self, port: int, will: str = "") -> None:
        self.inbox: queue.Queue[tuple[str, bytes, bool]] = queue.Queue()
        self._up: queue.Queue[Any] = queue.Queue()
        self.mqtt = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv311)
        self.mqtt.on_message = lambda _c, _u, m: self.inbox.put((m.topic, bytes(m.payload), m.retain))
        self.mqtt.on_subscribe = lambda *_: self._up.put(True)
        self.mqtt.on_connect = lambda *_: self._up.put(True)
        if will:
            self.mqtt.will_set(will, b"died", qos=1, retain=True)
        self.mqtt.connect("127.0.0.1", port)
        self.mqtt.loop_start()
        self._up.get(timeout=5)

    def subscribe(self, topic: str) -> None:
        self.mqtt.subscribe(topic, qos=1)
        self._up.get(timeout=5)

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> None:
        sent = self.mqtt.publish(topic, payload, qos=1, retain=retain)
        sent.wait_for_publish(5)
        assert sent.is_published()

    def close(self) -> None:
        self.mqtt.disconnect()
        self.mqtt.loop_stop()


def test_the_broker_delivers_and_retains(broker: int) -> None:
    listener, speaker = Client(broker), Client(broker)
    listener.subscribe("demo/+/live")
    speaker.publish("demo/a/live", b"now")
    assert listener.inbox.get(timeout=5) == ("demo/a/live", b"now", False)
    speaker.publish("demo/a/state", b"kept", retain=True)
    late = Client(broker)
    late.subscribe("demo/a/state")
    assert late.inbox.get(timeout=5) == ("demo/a/state", b"kept", True)
    for client in (listener, speaker, late):
        client.close()


def test_the_broker_publishes_the_last_will_of_a_broken_connection(broker: int) -> None:
    listener = Client(broker)
    listener.subscribe("demo/session")
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import time; from tests.test_hwsim_broker import Client;"
            f" Client({broker}, 'demo/session'); print('up', flush=True); time.sleep(60)",
        ],
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"up\n"
    child.kill()
    child.wait()
    # amqtt also sends retained messages that nobody asked for: see the docstring of hwsim/broker.py.
    while (got := listener.inbox.get(timeout=5)[:2])[0] != "demo/session":
        pass
    assert got == ("demo/session", b"died")
    listener.close()


@pytest.mark.parametrize("words", [[], ["x"], ["70000"], ["1", "2"]])
def test_the_broker_wants_a_port(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hwsim.broker", *words], capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 2
    assert done.stderr.startswith("hwsim.broker: give one port")


def test_a_taken_port_and_a_missing_package_are_one_sentence(broker: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hwsim.broker", str(broker)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.returncode == 3
    assert done.stderr == f"hwsim.broker: port {broker} cannot be served; free it, or give another one\n"
    # An interpreter for which the package is not there: an empty stand-in folder comes first on its path.
    (tmp_path / "amqtt.py").write_text("raise ImportError('not installed')\n")
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=20, env={**os.environ, "PYTHONPATH": str(tmp_path)}
    )
    assert done.returncode == 3
    assert "pip install 'tillwire[demo]'" in done.stderr
    assert done.stderr.count("\n") == 1
