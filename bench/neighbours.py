"""What others make of the same backlog: ThingsBoard's gateway and Node-RED, where they are installed.

    python3 -m venv .venv-tb/venv && .venv-tb/venv/bin/pip install thingsboard-gateway==3.8.5
    npm install --prefix .venv-tb/node node-red@4.1.0
    python -m bench --only neighbours

So many values are made while the broker is away; it comes back, and a subscriber counts. Then the harder case:
there never was a broker, and the program is killed when the values are made. Each speaks its own messages, so the
rates say how it drains, not how it would carry our rows. The mosquitto bridge stands in bench/drain.py.
"""

import json
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from bench.drain import _answers, broker
from tests.whole import free_port, wait

Row = tuple[str, str, str, str]
PLACE = Path(__file__).parent.parent / ".venv-tb"
GATEWAY = PLACE / "venv/bin/python"
NODE_RED = PLACE / "node/node_modules/node-red/red.js"
PATIENCE = 75.0
"""Seconds for the first value after the broker's return: ThingsBoard's gateway tries again after up to a minute."""
QUIET = 5.0
"""Seconds without a value after which no more are expected."""

START = """
import sys
from thingsboard_gateway.tb_utility.tb_loader import TBModuleLoader
TBModuleLoader.find_paths()
TBModuleLoader.PATHS.append(sys.argv[1] + "/extensions")
from thingsboard_gateway.gateway.tb_gateway_service import TBGatewayService
TBGatewayService(sys.argv[1] + "/tb_gateway.json")
"""
CONNECTOR = """
import time
from pathlib import Path
from threading import Thread
from thingsboard_gateway.connectors.connector import Connector
from thingsboard_gateway.gateway.entities.converted_data import ConvertedData
from thingsboard_gateway.gateway.entities.datapoint_key import DatapointKey
from thingsboard_gateway.gateway.entities.telemetry_entry import TelemetryEntry
class Backlog(Thread, Connector):
    def __init__(self, gateway, config, connector_type):
        super().__init__(daemon=True)
        self._gateway, self._config, self._type = gateway, config, connector_type
        self.name = config.get("name", "backlog")
    def open(self): self.start()
    def close(self): pass
    def get_id(self): return self._config.get("id")
    def get_name(self): return self.name
    def get_type(self): return self._type
    def get_config(self): return self._config
    def is_connected(self): return True
    def is_stopped(self): return False
    def on_attributes_update(self, content): pass
    def server_side_rpc_handler(self, content): pass
    def run(self):
        Path("ready").touch()
        while not Path("go").exists():
            time.sleep(0.01)
        Path("go").unlink()
        begun = int(time.time() * 1000)
        for number in range(self._config["count"]):
            data = ConvertedData("ATM-0001")
            data.add_to_telemetry(TelemetryEntry({DatapointKey("seq"): number, DatapointKey("count"): number % 97},
                                                 ts=begun + number))
            self._gateway.send_to_storage(self.name, self.get_id(), data)
        Path("done").touch()
"""


@dataclass
class Platform:
    """What stands behind the broker: it counts values by their number, and answers what a gateway asks first."""

    seen: dict[int, int] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)
    messages: int = 0

    @contextmanager
    def listening(self, port: int) -> Iterator[None]:
        client, ready = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="platform"), threading.Event()
        client.on_connect = lambda c, *_: c.subscribe("v1/#", qos=1)
        client.on_subscribe = lambda *_: ready.set()
        client.on_message = self._take
        client.connect("127.0.0.1", port)
        client.loop_start()
        ready.wait(10)
        try:
            yield
        finally:
            client.disconnect()
            client.loop_stop()

    def _take(self, client: mqtt.Client, userdata: object, message: mqtt.MQTTMessage) -> None:
        if "/rpc/request/" in message.topic:
            none = {"messages": "", "telemetryMessages": "", "telemetryDataPoints": ""}
            limits = {"maxPayloadSize": 65536, "maxInflightMessages": 100, "rateLimits": none}
            answer = json.dumps({**limits, "gatewayRateLimits": none})
            client.publish(message.topic.replace("request", "response"), answer, qos=1)
        elif message.topic == "v1/gateway/telemetry":
            told = [one for device in json.loads(message.payload).values() for one in device]
            if numbers := [one["values"]["seq"] for one in told if "seq" in one.get("values", {})]:
                self._count(numbers)
        elif message.topic == "v1/row":
            self._count([json.loads(message.payload)["seq"]])

    def _count(self, numbers: list[int]) -> None:
        self.messages += 1
        self.times.append(time.perf_counter())
        for number in numbers:
            self.seen[number] = self.seen.get(number, 0) + 1

    def wait(self, count: int) -> float:
        """Until all have come, or none comes any more; returns seconds to the first of them."""
        begun = time.perf_counter()
        while len(self.seen) < count:
            now = time.perf_counter()
            if (self.times and now - self.times[-1] > QUIET) or (not self.times and now - begun > PATIENCE):
                break
            time.sleep(0.01)
        return self.times[0] - begun if self.times else float("nan")

    def told(self, count: int, first: float) -> str:
        """In words."""
        arrived, twice = len(self.seen), sum(self.seen.values()) - len(self.seen)
        if not arrived:
            return f"**0 of {count:,}** arrived"
        span = self.times[-1] - self.times[0]
        rate = f", {arrived / span:,.0f} rows/s in {self.messages} messages" if span else ""
        share = f"{arrived:,}" if arrived == count else f"**{arrived:,} of {count:,}**"
        return f"{share} arrived{rate}, the first {first:.1f} s after the broker, {twice} twice"


class Gateway:
    """ThingsBoard's gateway with its SQLite store and one connector that makes the backlog."""

    name = "ThingsBoard gateway, sqlite store"

    def __init__(self, folder: Path, port: int, count: int) -> None:
        import_from = PLACE / "venv/lib"
        [shipped] = import_from.glob("python*/site-packages/thingsboard_gateway/config")
        table = json.loads((shipped / "tb_gateway.json").read_text())
        table["thingsboard"] |= {
            "host": "127.0.0.1",
            "port": port,
            "remoteConfiguration": False,
            "statistics": {"enable": False},
            "maxPayloadSizeBytes": 65536,
            "security": {"type": "accessToken", "accessToken": "none"},
        }
        table["storage"] = {
            "type": "sqlite",
            "data_file_path": "./stored/",
            "messages_ttl_in_days": 7,
            "max_read_records_count": 1000,
        }
        connector = {"name": "backlog", "type": "backlog", "class": "Backlog", "configuration": "backlog.json"}
        table["connectors"] = [connector]
        (folder / "extensions/backlog").mkdir(parents=True)
        (folder / "stored").mkdir()
        (folder / "logs").mkdir()
        (folder / "extensions/backlog/backlog.py").write_text(CONNECTOR)
        (folder / "backlog.json").write_text(json.dumps({"name": "backlog", "count": count}))
        (folder / "tb_gateway.json").write_text(json.dumps(table))
        shutil.copy(shipped / "logs.json", folder)
        self._folder = folder

    def start(self) -> "subprocess.Popen[bytes]":
        command = [str(GATEWAY), "-c", START, str(self._folder)]
        (self._folder / "ready").unlink(missing_ok=True)
        process = _launched(command, self._folder)
        wait("the gateway", (self._folder / "ready").exists, 60)
        return process

    def make(self) -> None:
        (self._folder / "go").touch()
        wait("its backlog", (self._folder / "done").exists, 120)


class NodeRed:
    """Node-RED with a flow that makes the backlog when it is asked by HTTP, and publishes it with QoS 1."""

    name = "Node-RED, mqtt out, QoS 1"

    def __init__(self, folder: Path, port: int, count: int) -> None:
        self._folder, self._port = folder, free_port()
        emit = f"for (let n = 0; n < {count}; n++) node.send({{payload: {{seq: n, count: n % 97}}}});\nreturn null;"
        asked: dict[str, Any] = {"id": "asked", "type": "http in", "z": "t", "url": "/go", "method": "get"}
        flow: list[dict[str, Any]] = [
            {"id": "t", "type": "tab", "label": "t"},
            {"id": "b", "type": "mqtt-broker", "broker": "127.0.0.1", "port": str(port), "cleansession": False}
            | {"clientid": "backlog", "protocolVersion": "4", "keepalive": "60", "autoConnect": True},
            {**asked, "wires": [["emit", "answer"]]},
            {"id": "emit", "type": "function", "z": "t", "func": emit, "outputs": 1, "wires": [["out"]]},
            {"id": "out", "type": "mqtt out", "z": "t", "topic": "v1/row", "qos": "1", "broker": "b", "wires": []},
            {"id": "answer", "type": "http response", "z": "t", "wires": []},
        ]
        (folder / "flows.json").write_text(json.dumps(flow))
        (folder / "settings.js").write_text(
            f'module.exports = {{flowFile: "flows.json", uiPort: {self._port}, uiHost: "127.0.0.1",'
            " httpAdminRoot: false, logging: {console: {level: 'warn'}}};"
        )

    def start(self) -> "subprocess.Popen[bytes]":
        command = ["node", str(NODE_RED), "-u", str(self._folder), "-s", str(self._folder / "settings.js")]
        process = _launched(command, self._folder)
        wait("Node-RED", lambda: self._asked("/") is not None, 60)
        time.sleep(3.0)  # its flows start after its HTTP server
        return process

    def make(self) -> None:
        assert self._asked("/go") == 200
        time.sleep(2.0)

    def _asked(self, path: str) -> int | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=60) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None


def _launched(command: list[str], folder: Path) -> "subprocess.Popen[bytes]":
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL)


def _ended(process: "subprocess.Popen[bytes]", how: signal.Signals) -> None:
    process.send_signal(how)
    process.wait(30)


def lost_while_running(folder: Path, make: Callable[[Path, int, int], Gateway | NodeRed], count: int) -> str:
    """The broker goes away, the backlog is made, the broker comes back."""
    port, platform = free_port(), Platform()
    one = make(folder, port, count)
    with broker(folder, "first", port):
        wait("a broker", lambda: _answers(port))
        with platform.listening(port):
            process = one.start()
            time.sleep(5.0)
    try:
        one.make()
        with broker(folder, "second", port):
            wait("a broker", lambda: _answers(port))
            with platform.listening(port):
                return platform.told(count, platform.wait(count))
    finally:
        _ended(process, signal.SIGKILL)


def never_there(folder: Path, make: Callable[[Path, int, int], Gateway | NodeRed], count: int) -> str:
    """No broker at the first start; the backlog is made; kill -9; a broker comes, and it starts again."""
    port, platform = free_port(), Platform()
    one = make(folder, port, count)
    process = one.start()
    one.make()
    time.sleep(2.0)
    _ended(process, signal.SIGKILL)
    with broker(folder, "second", port):
        wait("a broker", lambda: _answers(port))
        with platform.listening(port):
            process = one.start()
            try:
                return platform.told(count, platform.wait(count))
            finally:
                _ended(process, signal.SIGKILL)


def neighbours(folder: Path, count: float) -> list[Row]:
    """The same backlog through others; one that is not installed is named and left out."""
    found = []
    for one, where in ((Gateway, GATEWAY), (NodeRed, NODE_RED)):
        if not where.exists() or (one is NodeRed and not shutil.which("node")):
            found.append(
                (f"backlog of {count:,.0f} through {one.name}", "", "not installed: see bench/neighbours.py", "")
            )
            continue
        for case, measure in (
            ("the broker lost while it runs", lost_while_running),
            ("no broker yet, kill -9", never_there),
        ):
            with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as name:
                told = measure(Path(name), one, int(count))
            found.append((f"backlog of {count:,.0f}, {case}", "", f"{one.name}: {told}", ""))
    return found


MEASURES: tuple[tuple[Callable[[Path, float], list[Row]], float, float], ...] = ((neighbours, 20_000, 1_000),)
