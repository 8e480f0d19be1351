"""This file knows one MQTT connection: CONNECT with its last will, publishing, what comes as events, and why it
ended. The only user of paho.

Each attempt is a new paho client: what it holds when a line breaks is thrown away with it. What comes is bounded
before anybody looks at it: only topics that were subscribed to, LARGEST bytes, MOST waiting. The rest is dropped
and counted; a broker of MQTT 5 is told not to send larger ones.
"""

import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode as ReasonCode

from agent.config import Broker
from agent.errors import UplinkError, UplinkRefused
from agent.mqtt.brokers import Address
from agent.mqtt.refusals import Refusal, of_alert, of_certificate, of_code
from agent.tls import Line

WINDOW = 16
"""Most messages in flight: a reconnected client would repeat all that it had handed over."""
LARGEST, BESIDE = 128 * 1024, 1024
"""Bytes of the largest payload that is taken in, and room for a packet's topic and properties beside it."""
CHUNK = 16 * 1024
MOST = 32
"""Most messages that wait to be looked at."""
CONNECT_PATIENCE = 10.0
VERDICT_PATIENCE = 1.0
"""Seconds to wait after the TLS handshake for the broker to refuse our certificate."""


class _Bounded(mqtt.Client):
    """A paho client that a large packet cannot fill while it arrives: MQTT allows 256 MB, and a broker of 3.1.1
    cannot be asked for less. The packet's beginning stays, so that paho finds it well-formed; it is dropped when it
    is whole."""

    def _sock_recv(self, bufsize: int) -> bytes:
        del self._in_packet["packet"][LARGEST + BESIDE :]
        return super()._sock_recv(min(bufsize, CHUNK))

    @property
    def is_too_large(self) -> bool:
        """Whether the packet that is being handled is."""
        return self._in_packet["remaining_length"] > LARGEST + BESIDE

    @property
    def unreleased(self) -> int:
        """Messages of QoS 2, which nobody asked for, and which paho keeps until the broker releases them."""
        return len(self._in_messages)


class Connection:
    """One connection, from CONNECT to its end.

    events    what has come, oldest first: ("ack", (mid, ReasonCode)), ("subscribed", (mid, [ReasonCode, ...])),
              ("message", (topic, payload, retained)) or ("lost", ReasonCode)
    window    most messages in flight that the broker takes
    dropped   how many messages came that nobody will look at: too large, too many, or of a stranger's topic
    """

    def __init__(
        self,
        broker: Broker,
        address: Address,
        name: str,
        tls: ssl.SSLContext | None,
        will: tuple[str, bytes] | None = None,
    ) -> None:
        self._five = broker.protocol == "5"
        self.events: deque[tuple[str, Any]] = deque()
        self.window, self.dropped = WINDOW, 0
        self._topics: set[str] = set()
        self._keepalive = broker.keepalive
        self._address = address
        self.where = f"{address[0]}:{address[1]}"
        self._client = client = _Bounded(
            CallbackAPIVersion.VERSION2,
            client_id=name,
            protocol=mqtt.MQTTv5 if self._five else mqtt.MQTTv311,
            clean_session=None if self._five else True,
            reconnect_on_failure=False,
        )
        client.max_inflight_messages_set(WINDOW + 4)
        events = self.events
        client.on_connect = lambda c, u, flags, code, props: self._answered(code, props)
        client.on_disconnect = lambda c, u, flags, code, props: events.append(("lost", code))
        client.on_publish = lambda c, u, mid, code, props: events.append(("ack", (mid, code)))
        client.on_subscribe = lambda c, u, mid, codes, props: events.append(("subscribed", (mid, codes)))
        client.on_message = lambda c, u, message: self._heard(message)
        if will:
            client.will_set(*will, qos=1, retain=True)
        self._line: Line | None = None
        if tls:
            client.tls_set_context(tls)
            client.on_socket_open = lambda c, u, line: self._shaken(line)

    @property
    def security(self) -> str:
        """The TLS version, or nothing."""
        return (self._line.version() or "") if self._line else ""

    def open(self, stop: threading.Event, patience: float = CONNECT_PATIENCE) -> None:
        """CONNECT, and wait `patience` seconds for the answer.

        Raises UplinkRefused when people have to act, else UplinkError.
        """
        properties: Any = Properties(PacketTypes.CONNECT) if self._five else None  # type: ignore[no-untyped-call]
        if self._five:
            properties.MaximumPacketSize = LARGEST + BESIDE
        try:
            self._client.connect(*self._address, self._keepalive, properties=properties)
        except ssl.SSLError as error:
            raise self._insecure(error) from error
        except (OSError, ValueError) as error:
            raise UplinkError(f"{self.where} cannot be reached: {error}") from error
        self._check_verdict()
        end = time.monotonic() + patience
        while not self.events and time.monotonic() < end and not stop.is_set():
            self.turn(0.5)
        silence: tuple[str, Any] = ("silent", "no answer to CONNECT")
        kind, content = self.events.popleft() if self.events else silence
        if kind != "connected":
            raise UplinkError(f"{self.where} does not accept the connection: {content}")
        code, properties = content
        if code.is_failure:
            raise refused(f"{self.where} refuses this terminal", code)
        self.window = min(WINDOW, getattr(properties, "ReceiveMaximum", WINDOW))

    def publish(
        self, topic: str, payload: bytes, retain: bool, *, content_type: str = "", alias: int | None = None
    ) -> int:
        """Hand over one message of QoS 1; returns the id that its acknowledgement will carry. content_type, alias:
        of MQTT 5 only."""
        properties: Any = Properties(PacketTypes.PUBLISH) if self._five else None  # type: ignore[no-untyped-call]
        if content_type:
            properties.ContentType = content_type
        if alias is not None:
            properties.TopicAlias = alias
        info = self._client.publish(topic, payload, qos=1, retain=retain, properties=properties)
        if info.rc != mqtt.MQTT_ERR_SUCCESS:
            raise UplinkError(f"the connection was lost while publishing ({mqtt.error_string(info.rc)})")
        return info.mid

    def subscribe(self, topics: Sequence[str], qos: int = 1) -> int:
        """Ask for these topics, which may have wildcards; returns the id that the answer will carry."""
        self._topics.update(topics)
        code, mid = self._client.subscribe([(topic, qos) for topic in topics])
        if code != mqtt.MQTT_ERR_SUCCESS or mid is None:
            raise UplinkError(f"the connection was lost while subscribing ({mqtt.error_string(code)})")
        return mid

    def unsubscribe(self, topic: str) -> None:
        """Hear this topic no longer."""
        self._topics.discard(topic)
        self._client.unsubscribe(topic)

    def turn(self, patience: float, ear: socket.socket | None = None) -> None:
        """Wait for the broker or for a byte at `ear`, at most `patience` seconds, and let paho read and write.

        Everything of paho runs on the caller's thread: no lock of its is ever waited for, and what is published
        goes out in the same call.
        """
        client = self._client
        line = client.socket()
        if line is None:
            raise UplinkError("the connection was lost")
        buffered = isinstance(line, ssl.SSLSocket) and line.pending() > 0
        wait = 0.0 if buffered else min(max(0.0, patience), self._keepalive / 2)
        found = self._wait(line.fileno(), wait, ear)
        code = client.loop_read() if buffered or found & ~select.POLLOUT else mqtt.MQTT_ERR_SUCCESS
        if client.unreleased > MOST:
            raise UplinkError(f"{self.where} sends with QoS 2, which it was not asked for")
        if code == mqtt.MQTT_ERR_SUCCESS and found & select.POLLOUT:
            code = client.loop_write()
        if code == mqtt.MQTT_ERR_SUCCESS:
            code = client.loop_misc()
        self._check_verdict()
        if code != mqtt.MQTT_ERR_SUCCESS and not self.events:
            raise UplinkError(f"the connection was lost ({mqtt.error_string(code)})")

    def _wait(self, line: int, patience: float, ear: socket.socket | None) -> int:
        """What the broker's line, a descriptor, is ready for. `select` would know none above 1023."""
        watch = select.poll()
        watch.register(line, select.POLLIN | (select.POLLOUT if self._client.want_write() else 0))
        if ear is not None:
            watch.register(ear, select.POLLIN)
        found = dict(watch.poll(patience * 1000))
        if ear is not None and found.get(ear.fileno()):
            ear.recv(4096)
        return found.get(line, 0)

    def _heard(self, message: mqtt.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""
        waiting = sum(kind == "message" for kind, _ in self.events)
        is_large = self._client.is_too_large or len(message.payload) > LARGEST
        is_ours = topic and any(mqtt.topic_matches_sub(wanted, topic) for wanted in self._topics)
        if not is_ours or is_large or message.qos > 1 or waiting >= MOST:
            self.dropped += 1
        else:
            self.events.append(("message", (topic, bytes(message.payload), bool(message.retain))))

    def close(self) -> None:
        """DISCONNECT: the broker forgets the last will."""
        self._client.disconnect()

    def cut(self) -> None:
        """End it as a broken line does, so that the broker publishes the last will: nobody else would say that
        this terminal is gone."""
        if line := self._client.socket():
            line.close()

    def _answered(self, code: ReasonCode, properties: Any) -> None:
        """The broker has answered CONNECT. Its word on the keep-alive counts more than ours, and `turn` must wake
        in time for paho's ping."""
        self._keepalive = getattr(properties, "ServerKeepAlive", 0) or self._keepalive
        self.events.append(("connected", (code, properties)))

    def _shaken(self, line: object) -> None:
        """The handshake is done, and CONNECT not sent yet."""
        if isinstance(line, Line):
            self._line = line
            line.await_verdict(VERDICT_PATIENCE)

    def _check_verdict(self) -> None:
        if self._line and self._line.refused:
            raise self._insecure(self._line.refused)

    def _insecure(self, error: ssl.SSLError) -> UplinkError:
        found: Refusal | None
        if isinstance(error, ssl.SSLCertVerificationError):
            found = of_certificate(error.verify_code, error.verify_message)
        else:
            found = of_alert(f"{error.reason} {error}")
        sentence = f"{self.where} did not pass the TLS check"
        return _with_next(sentence, found) if found else UplinkError(f"{sentence}: {error}")


def refused(sentence: str, code: ReasonCode) -> UplinkError:
    """The error for a reason code of the broker; UplinkRefused when people have to act."""
    found = of_code(code.value)
    return _with_next(sentence, found) if found else UplinkError(f"{sentence}: {code}")


def _with_next(sentence: str, found: Refusal) -> UplinkRefused:
    return UplinkRefused(f"{sentence}: {found.cause}", found.next)
