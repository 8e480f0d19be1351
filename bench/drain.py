"""How fast a backlog leaves, beside raw paho and a mosquitto bridge."""

import random
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from agent.ledger import canonical
from agent.messages import DEFLATED, DeviceState
from agent.model import Batch
from agent.store import Store
from agent.uplink import Uplink
from hwsim.subscriber import Account, opened
from tests.uplinks import settings
from tests.whole import MOSQUITTO, free_port, wait

Row = tuple[str, str, str, str]
INFLIGHT = 20
"""Messages that raw paho may have in flight: its best, by the table of others' figures."""


def rows(count: int) -> list[dict[str, object]]:
    """Rows as a busy ATM has them, without seq."""
    chance = random.Random(1)
    return [
        {
            "kind": "change",
            "at": 1_795_614_343_000 + 60 * number + chance.randint(0, 50),
            "up": 16_527_056 + 60 * number,
            "boot": "a9f1b0a2-5a5e-4a55-9e0f-64d1b8a4bb3e",
            "device": f"dispenser{chance.randint(1, 3)}",
            "point": f"cassette.{chance.randint(1, 4)}.count",
            "value": chance.randint(0, 2500),
            "was": chance.randint(0, 2500),
            "raw": f"{chance.randint(0, 255):02X} {chance.randint(0, 255):02X}",
        }
        for number in range(count)
    ]


@contextmanager
def broker(folder: Path, name: str, port: int, more: str = "") -> Iterator["subprocess.Popen[bytes]"]:
    """A mosquitto without limits."""
    path = folder / f"{name}.conf"
    path.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n"
        f"max_inflight_messages 100\nlog_type none\n{more}\n"
    )
    process = subprocess.Popen([MOSQUITTO, "-c", str(path)], stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


class Counter:
    """A subscriber that keeps every payload with its time."""

    def __init__(self, port: int, topic: str, name: str = "") -> None:
        self.heard: list[tuple[float, bytes, str]] = []
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=mqtt.MQTTv5)
        ready = threading.Event()
        self._client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
        self._client.on_subscribe = lambda *_: ready.set()
        self._client.on_message = self._take
        wait("a broker", lambda: _answers(port))
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert ready.wait(10)

    def _take(self, client: object, userdata: object, message: mqtt.MQTTMessage) -> None:
        kind = getattr(message.properties, "ContentType", "")
        self.heard.append((time.perf_counter(), bytes(message.payload), kind))

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def ours(
    folder: Path, port: int, count: int, heard: Counter | None = None
) -> tuple[float, list[tuple[str, bytes, bool]]]:
    """Seconds from CONNECT to the last row's PUBACK, and what was published: (topic, payload, deflated)."""
    sent: list[tuple[str, bytes, bool]] = []
    with tempfile.TemporaryDirectory(dir=folder) as name:
        config = settings(Path(name), port)
        config = config.model_copy(update={"uplink": config.uplink.model_copy(update={"catch_up": 0})})
        store = Store(config.terminal.data, config.terminal.id)
        backlog = rows(count)
        for begin in range(0, count, 100):
            store.commit(Batch(rows=backlog[begin : begin + 100]))
        stop = threading.Event()
        uplink = Uplink(config, store, [], _no_device, "boot", "bench", stop)
        thread = threading.Thread(target=uplink.run, daemon=True)
        begun = time.perf_counter()
        thread.start()
        while store.acked < store.head:
            time.sleep(0.0002)
        took = time.perf_counter() - begun
        if heard:
            wait("the rows", lambda: len(_account(heard).rows) == count)
            assert _account(heard).mistakes == []
            sent = [("drain/batches", payload, kind == DEFLATED) for _, payload, kind in heard.heard]
        stop.set()
        uplink.poke(True)
        thread.join()
        store.close()
    return took, sent


def _account(heard: Counter) -> Account:
    account = Account()
    for at, payload, kind in list(heard.heard):
        account.take("tillwire/v1/coop/ATM-0001/ledger", opened(payload, kind), at)
    return account


def _no_device(*_: object) -> DeviceState:
    raise AssertionError


def raw(port: int, messages: list[tuple[str, bytes, bool]], *, hurried: bool = False) -> float:
    """Seconds of raw paho from CONNECT to the last PUBACK: all handed over at once, its loop on a thread. hurried:
    it confirms at once what has come, as our uplink does with a backlog: else the broker's PUBACKs wait for that
    (Nagle), 40 ms each time."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    client.max_inflight_messages_set(INFLIGHT)
    client.max_queued_messages_set(0)
    left, connected = threading.Semaphore(0), threading.Event()

    def heard(*_: object) -> None:
        if hurried and isinstance(line := client.socket(), socket.socket):
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        left.release()

    client.on_publish = heard
    client.on_connect = lambda *_: connected.set()
    begun = time.perf_counter()
    client.connect("127.0.0.1", port)
    client.loop_start()
    connected.wait()
    for topic, payload, deflated in messages:
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if deflated:
            properties.ContentType = DEFLATED
        client.publish(topic, payload, qos=1, properties=properties)
    for _ in messages:
        left.acquire()
    took = time.perf_counter() - begun
    client.disconnect()
    client.loop_stop()
    return took


def bridge(folder: Path, count: int) -> tuple[float, int]:
    """(rows a second, rows that arrived) through a mosquitto bridge, its central broker away while they are made:
    from the first row's arrival to the last one's. Queue unlimited, which is not its default."""
    central, near = free_port(), free_port()
    link = (
        f"connection up\naddress 127.0.0.1:{central}\ntopic drain/# out 1\nrestart_timeout 1\ncleansession false\n"
        "bridge_protocol_version mqttv50\n"
    )
    with broker(folder, "near", near, link):
        wait("a broker", lambda: _answers(near))
        raw(near, [("drain/row", canonical(row), False) for row in rows(count)])
        with broker(folder, "central", central):
            counter = Counter(central, "drain/#")
            end = time.monotonic() + 60
            while len(counter.heard) < count and time.monotonic() < end:
                time.sleep(0.01)
            counter.close()
    times = [at for at, _, _ in counter.heard]
    return (len(times) / (times[-1] - times[0]), len(times)) if times else (0.0, 0)


def drain(folder: Path, count: float) -> list[Row]:
    """A backlog of `count` rows after an outage, beside raw paho and a bridge. In turns, the medians."""
    number, port = int(count), free_port()
    with broker(folder, "one", port):
        wait("a broker", lambda: _answers(port))
        heard = Counter(port, "tillwire/v1/+/+/ledger")
        _, batches = ours(folder, port, number, heard)
        heard.close()
        single = [("drain/row", canonical(row), False) for row in rows(number)]
        taken: dict[str, list[float]] = {"ours": [], "single": [], "batches": [], "hurried": []}
        for _ in range(7):
            taken["ours"].append(ours(folder, port, number)[0])
            taken["batches"].append(raw(port, batches))
            taken["hurried"].append(raw(port, batches, hurried=True))
            taken["single"].append(raw(port, single))
    rates = {name: number / statistics.median(values) for name, values in taken.items()}
    theirs, arrived = bridge(folder, number)
    size = sum(len(payload) for _, payload, _ in batches)
    ratio = rates["ours"] / rates["single"]
    return [
        (
            f"drain of {number:,} rows",
            f"{rates['ours']:,.0f} rows/s, {size / 1e3:.0f} kB in {len(batches)} messages",
            f"raw paho, a row a message {rates['single']:,.0f} rows/s",
            f"{ratio:.1f} x",
        ),
        (
            "the same, beside who only sends",
            f"{rates['ours']:,.0f} rows/s, read from the store, joined, deflated, acknowledged",
            f"raw paho with the same finished batches {rates['batches']:,.0f} rows/s",
            f"{rates['ours'] / rates['batches']:.2f} x",
        ),
        (
            "the same, whose acknowledgements do not wait for Nagle and Linux either",
            f"{rates['ours']:,.0f} rows/s",
            f"raw paho with the same finished batches and TCP_QUICKACK {rates['hurried']:,.0f} rows/s",
            f"{rates['ours'] / rates['hurried']:.2f} x",
        ),
        (
            "the same, beside a bridge",
            f"{rates['ours']:,.0f} rows/s, durable",
            f"mosquitto bridge, unlimited queue, in memory {theirs:,.0f} rows/s, {arrived:,} arrived",
            f"{rates['ours'] / theirs:.1f} x" if theirs else "",
        ),
    ]


def profile(folder: Path, count: float) -> list[Row]:
    """On what the time of a drain goes: the parts one by one, without a broker."""
    import zlib

    from agent import messages
    from agent.mqtt import posting, publishing

    with tempfile.TemporaryDirectory(dir=folder) as name:
        store = Store(Path(name) / "data", "ATM-0001")
        backlog = rows(int(count))
        for begin in range(0, len(backlog), 100):
            store.commit(Batch(rows=backlog[begin : begin + 100]))
        reader = store.reader()
        marks = [time.perf_counter()]
        taken, at = [], 0
        while at < store.head:
            taken.append(reader.batch(at, publishing.ROWS, publishing.SIZE))
            at = taken[-1][-1][0]
        marks.append(time.perf_counter())
        joined = [messages.ledger_batch(reader.epoch, bytes(32), batch) for batch in taken]
        marks.append(time.perf_counter())
        for payload in joined:
            zlib.compress(payload, posting.LEVEL, wbits=posting.REACH)
        marks.append(time.perf_counter())
        reader.close()
        store.close()
    parts = [f"{(b - a) * 1000:.0f}" for a, b in pairwise(marks)]
    text = (
        f"read {parts[0]} ms, join {parts[1]} ms, deflate {parts[2]} ms; the rest is paho, sockets and the broker"
    )
    return [(f"on what a drain of {len(backlog):,} rows spends its time", text, "", "")]


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


MEASURES: tuple[tuple[Callable[[Path, float], list[Row]], float, float], ...] = (
    (drain, 20_000, 2_000),
    (profile, 20_000, 2_000),
)
