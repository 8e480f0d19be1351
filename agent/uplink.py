"""This file knows how to keep one MQTT connection: birth, last will, publishing what delivery.py chooses, and the
cursor that moves only on PUBACK. The only user of paho.

Each connection is a new paho client, and it is given only a window of messages: what it holds when a line breaks is
thrown away with it and read again from the store. Reconnecting is ours: full jitter, also before the first retry,
and the waiting starts short again only after a connection that lasted.
"""

import logging
import secrets
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import closing
from random import SystemRandom
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode
from tenacity import RetryError, Retrying, retry_if_exception_type, sleep_using_event, stop_when_event_set
from tenacity.wait import wait_random_exponential

from agent import messages
from agent.config import Config, Tls
from agent.delivery import Delivery
from agent.errors import StoreCorrupt, UplinkError
from agent.store import Reader, Store

WINDOW = 16
ROWS = 100
SIZE = 16 * 1024
CONNECT_PATIENCE = 10.0
FAREWELL = 2.0
STABLE = 120.0
"""Seconds after which a connection counts as good, so that losing it is not another failed attempt."""
PATIENCE = 30.0
"""Seconds to wait for a PUBACK before the connection is taken for dead."""

NOBODY = 0x10
"""PUBACK reason "no matching subscribers" (MQTT 5.0, table 3-8): a success, but nobody has the message."""

log = logging.getLogger(__name__)

StateOf = Callable[[Reader, str, str], messages.DeviceState]


class Uplink:
    """The connection of one terminal to its broker.

    store     read through a reader of this thread's own; only `settle` writes
    devices   the names whose state is published
    state_of  (reader, device, session) -> its present state
    removed   names that are not configured any more: their retained state is taken away
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        devices: Iterable[messages.SessionDevice],
        state_of: StateOf,
        boot: str,
        version: str,
        stop: threading.Event,
        removed: Iterable[str] = (),
    ) -> None:
        if config.broker is None:
            raise UplinkError("the configuration names no broker")
        self._config, self._broker = config, config.broker
        self._store, self._state_of = store, state_of
        self._devices, self._removed = tuple(devices), tuple(removed)
        self._boot, self._version = boot, version
        self._stop = stop
        self._news: deque[bool] = deque()
        self._ear, self._bell = socket.socketpair()
        self._ear.setblocking(False)
        self._bell.setblocking(False)
        self._events: deque[tuple[str, Any]] = deque()
        self._greeting = ""
        self._since = 0.0
        self.progress = time.monotonic()
        self.status = ("connecting", "not connected yet")

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted this terminal."""
        return self.status[0] == "connected"

    def poke(self, urgent: bool) -> None:
        """Tell the uplink that something was committed, or that it is time to look at `stop`.

        Without a connection nobody needs telling (a new one begins by reading the store), and a month of pokes
        must not pile up.
        """
        if self.connected:
            self._news.append(urgent)
            try:
                self._bell.send(b"!")
            except BlockingIOError:
                return  # it rings already

    def run(self) -> None:
        """Stay connected until `stop` is set."""
        while not self._stop.is_set():
            try:
                for attempt in Retrying(
                    wait=wait_random_exponential(multiplier=0.5, max=self._config.uplink.retry),
                    stop=stop_when_event_set(self._stop),
                    sleep=sleep_using_event(self._stop),
                    retry=retry_if_exception_type(UplinkError),
                ):
                    with attempt:
                        self._connection()
            except RetryError:
                break
            # A connection that lasted was lost: begin again, but not everybody in the same moment.
            self._stop.wait(SystemRandom().uniform(0.0, min(2.0, self._config.uplink.retry)))

    def _connection(self) -> None:
        """One connection from CONNECT to its end. Raises UplinkError unless it ended by our stop or after long."""
        session = secrets.token_hex(4)
        self._events.clear()
        client = None
        try:
            client = self._client(session)
            self._connect(client)
            with closing(self._store.reader()) as reader:
                self._serve(client, reader, session)
            self._farewell(client, session)
        except StoreCorrupt as error:
            self._store.doubt(error)
            raise UplinkError(str(error)) from error
        except UplinkError as error:
            self._say("down", str(error))
            if time.monotonic() - self._since < STABLE:
                raise
        finally:
            if client:
                client.disconnect()

    def _client(self, session: str) -> mqtt.Client:
        five = self._broker.protocol == "5"
        terminal = self._config.terminal
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"{terminal.org}-{terminal.id}",
            protocol=mqtt.MQTTv5 if five else mqtt.MQTTv311,
            clean_session=None if five else True,
            reconnect_on_failure=False,
        )
        client.max_inflight_messages_set(WINDOW + 4)
        events = self._events
        client.on_connect = lambda c, u, flags, code, props: events.append(("connected", (code, props)))
        client.on_disconnect = lambda c, u, flags, code, props: events.append(("lost", code))
        client.on_publish = lambda c, u, mid, code, props: events.append(("ack", (mid, code)))
        will = messages.Death(online=False, session=session, at=_wall(), reason="lost")
        client.will_set(self._topic("session"), messages.compact(will), qos=1, retain=True)
        if self._broker.tls:
            client.tls_set_context(_context(self._broker.tls))
        return client

    def _connect(self, client: mqtt.Client) -> None:
        host, port = self._broker.host, self._broker.port
        self._since = time.monotonic()
        self.progress = self._since
        try:
            client.connect(host, port, self._broker.keepalive)
        except ssl.SSLError as error:
            raise UplinkError(f"{host}:{port} did not pass the TLS check: {error}") from error
        except (OSError, ValueError) as error:
            raise UplinkError(f"{host}:{port} cannot be reached: {error}") from error
        end = time.monotonic() + CONNECT_PATIENCE
        while not self._events and time.monotonic() < end and not self._stop.is_set():
            self._turn(client, 0.5)
        silence: tuple[str, Any] = ("silent", "no answer to CONNECT")
        kind, content = self._events.popleft() if self._events else silence
        if kind != "connected":
            raise UplinkError(f"{host}:{port} does not accept the connection: {content}")
        code, properties = content
        if code.is_failure:
            raise UplinkError(f"{host}:{port} refuses this terminal: {code}")
        self._window = min(WINDOW, getattr(properties, "ReceiveMaximum", WINDOW))
        self._greeting = f"connected to {host}:{port} with MQTT {self._broker.protocol}"
        self._say("connected", self._greeting)

    def _serve(self, client: mqtt.Client, reader: Reader, session: str) -> None:
        """Publish until `stop` is set. Raises UplinkError when the connection is lost."""
        uplink = self._config.uplink
        delivery = Delivery(self._store.acked, self._window, uplink.catch_up, uplink.linger, uplink.refresh)
        self._publish(client, delivery, "session", self._birth(session), retain=True)
        for device in self._removed[: delivery.window // 2]:
            self._publish(client, delivery, f"state/{device}", b"", retain=True)
        delivery.news(True, time.monotonic())
        while not self._stop.is_set():
            now = self.progress = time.monotonic()
            if reader.epoch != self._store.epoch:
                raise UplinkError("the store was renewed: delivery begins anew")
            # After an outage the present state comes first; once caught up, a change is news before it is state.
            steps = (self._publish_rows, self._publish_states)
            done = [step(client, delivery, reader, session) for step in (steps if delivery.live else steps[::-1])]
            if all(done):
                delivery.idle(now)
            if delivery.overdue(now, PATIENCE):
                raise UplinkError(f"no PUBACK for {PATIENCE:.0f} s")
            self._turn(client, min(PATIENCE, delivery.deadline() - time.monotonic()))
            self._take_in(delivery, reader.epoch)

    def _publish_states(self, client: mqtt.Client, delivery: Delivery, reader: Reader, session: str) -> bool:
        """Publish the states that are due; True when none is left."""
        revisions = {d.name: self._store.revision(d.name) for d in self._devices}
        for device in delivery.stale_states(revisions.items(), time.monotonic()):
            if not delivery.room():
                return False
            state = self._state_of(reader, device, session)
            self._publish(client, delivery, f"state/{device}", messages.compact(state), retain=True)
            delivery.published(device, revisions[device], time.monotonic())
        return True

    def _publish_rows(self, client: mqtt.Client, delivery: Delivery, reader: Reader, _session: str) -> bool:
        """Publish the rows that are due; True when none is left."""
        while delivery.taken < self._store.head:
            if not delivery.rows_due(time.monotonic()):
                return False
            rows = reader.batch(delivery.taken, ROWS, SIZE)
            payload = messages.ledger_batch(reader.epoch, reader.hash_at(delivery.taken), rows)
            self._publish(client, delivery, "ledger", payload, rows=len(rows))
        return True

    def _publish(
        self,
        client: mqtt.Client,
        delivery: Delivery,
        suffix: str,
        payload: bytes,
        *,
        retain: bool = False,
        rows: int = 0,
    ) -> None:
        info = client.publish(self._topic(suffix), payload, qos=1, retain=retain)
        if info.rc != mqtt.MQTT_ERR_SUCCESS:
            raise UplinkError(f"the connection was lost while publishing ({mqtt.error_string(info.rc)})")
        delivery.sent(info.mid, time.monotonic(), rows)

    def _turn(self, client: mqtt.Client, patience: float) -> None:
        """Wait for the broker or for news, at most `patience` seconds, and let paho read and write.

        Everything of paho runs on this one thread: no lock of its is ever waited for, and what is published
        goes out in the same call.
        """
        line = client.socket()
        if line is None:
            raise UplinkError("the connection was lost")
        buffered = isinstance(line, ssl.SSLSocket) and line.pending() > 0
        wait = 0.0 if buffered else min(max(0.0, patience), self._broker.keepalive / 2)
        readable, writable, _ = select.select([line, self._ear], [line] if client.want_write() else [], [], wait)
        if self._ear in readable:
            self._ear.recv(4096)
        code = client.loop_read() if buffered or line in readable else mqtt.MQTT_ERR_SUCCESS
        if code == mqtt.MQTT_ERR_SUCCESS and writable:
            code = client.loop_write()
        if code == mqtt.MQTT_ERR_SUCCESS:
            code = client.loop_misc()
        if code != mqtt.MQTT_ERR_SUCCESS and not self._events:
            raise UplinkError(f"the connection was lost ({mqtt.error_string(code)})")

    def _take_in(self, delivery: Delivery, epoch: str) -> None:
        """Act on what has come: news of the store, acknowledgements, the end of the connection."""
        while self._news:
            delivery.news(self._news.popleft(), time.monotonic())
        while self._events:
            kind, content = self._events.popleft()
            if kind == "lost":
                raise UplinkError(f"the connection was lost ({content})")
            if kind == "ack":
                self._acknowledged(delivery, epoch, *content)

    def _acknowledged(self, delivery: Delivery, epoch: str, mid: int, code: ReasonCode) -> None:
        if code.is_failure:
            raise UplinkError(f"the broker does not take a message: {code}")
        if delivery.carries_rows(mid):
            unheard = self._config.uplink.wait_for_reader and code.value == NOBODY
            note = "nobody is subscribed to the ledger: it is kept here" if unheard else self._greeting
            self._say("connected", note)
            if unheard:
                delivery.hold(time.monotonic() + self._config.uplink.retry)
                return
        self._store.settle(epoch, delivery.acknowledged(mid))

    def _farewell(self, client: mqtt.Client, session: str) -> None:
        """A planned stop is said by us; the broker would only say it of a lost connection."""
        death = messages.Death(online=False, session=session, at=_wall(), reason="stopped")
        client.publish(self._topic("session"), messages.compact(death), qos=1, retain=True)
        self._events.clear()
        end = time.monotonic() + FAREWELL
        while not self._events and time.monotonic() < end:
            self._turn(client, FAREWELL)
        self._say("off", "the agent has stopped")

    def _birth(self, session: str) -> bytes:
        return messages.compact(
            messages.Birth(
                online=True,
                session=session,
                at=_wall(),
                boot=self._boot,
                version=self._version,
                config=self._config.digest,
                epoch=self._store.epoch,
                head=self._store.head,
                acked=self._store.acked,
                devices=self._devices,
            )
        )

    def _topic(self, suffix: str) -> str:
        return messages.topic(self._config.terminal.org, self._config.terminal.id, suffix)

    def _say(self, state: str, sentence: str) -> None:
        if self.status[0] != state:
            log.log(logging.WARNING if state == "down" else logging.INFO, "uplink: %s", sentence)
        self.status = (state, sentence)


def _wall() -> int:
    return time.time_ns() // 1_000_000


def _context(tls: Tls) -> ssl.SSLContext:
    """Verified TLS, always; there is no way here to switch verification off."""
    try:
        context = ssl.create_default_context(cafile=str(tls.ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if tls.certificate:
            context.load_cert_chain(str(tls.certificate), str(tls.key) if tls.key else None)
    except OSError as error:
        raise UplinkError(f"the certificates in [broker.tls] cannot be used: {error}") from error
    return context
