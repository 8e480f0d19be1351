"""This file knows one MQTT connection: CONNECT with its last will, publishing, acknowledgements as events, and why
it ended. The only user of paho.

Each attempt is a new paho client: what it holds when a line breaks is thrown away with it.
"""

import select
import socket
import ssl
import threading
import time
from collections import deque
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode as ReasonCode

from agent.brokers import Address
from agent.config import Broker
from agent.errors import UplinkError, UplinkRefused
from agent.refusals import Refusal, of_alert, of_certificate, of_code
from agent.tls import Line

WINDOW = 16
"""Most messages in flight: a reconnected client would repeat all that it had handed over."""
CONNECT_PATIENCE = 10.0
VERDICT_PATIENCE = 1.0
"""Seconds to wait after the TLS handshake for the broker to refuse our certificate."""


class Connection:
    """One connection, from CONNECT to its end.

    events   what has come, oldest first: ("ack", (mid, ReasonCode)) or ("lost", ReasonCode)
    window   most messages in flight that the broker takes
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
        self.window = WINDOW
        self._keepalive = broker.keepalive
        self._address = address
        self.where = f"{address[0]}:{address[1]}"
        self._client = client = mqtt.Client(
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
        try:
            self._client.connect(*self._address, self._keepalive)
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
        watched = [line] if ear is None else [line, ear]
        readable, writable, _ = select.select(watched, [line] if client.want_write() else [], [], wait)
        if ear in readable and ear is not None:
            ear.recv(4096)
        code = client.loop_read() if buffered or line in readable else mqtt.MQTT_ERR_SUCCESS
        if code == mqtt.MQTT_ERR_SUCCESS and writable:
            code = client.loop_write()
        if code == mqtt.MQTT_ERR_SUCCESS:
            code = client.loop_misc()
        self._check_verdict()
        if code != mqtt.MQTT_ERR_SUCCESS and not self.events:
            raise UplinkError(f"the connection was lost ({mqtt.error_string(code)})")

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
