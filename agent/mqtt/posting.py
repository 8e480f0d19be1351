"""This file knows what MQTT 5 adds to a publish (a content type, a topic alias), which limits the broker sets, and
how many bytes a connection has taken from the line.

    content type    application/json+deflate: the JSON, deflated as RFC 1950 says (zlib), where that pays. MQTT
                    3.1.1 has no place to say so, and what cannot be said is not done.
    topic alias     a number of two bytes instead of the topic, from its second message on; as many as the broker
                    offers, given out in the order in which topics come. Nothing is taken from an earlier topic.

The bytes are those of the kernel (Linux: TCP_INFO), with TLS, acknowledgements and repeats, and OVERHEAD for each
segment. What the kernel does not tell is estimated.
"""

import socket
import ssl
import struct
import threading
import zlib
from typing import Any

from agent.config import Broker
from agent.errors import UplinkError
from agent.messages import DEFLATED
from agent.mqtt.brokers import Address
from agent.mqtt.connection import CONNECT_PATIENCE, Connection, ReasonCode

DEFLATE_FROM = 600
"""Bytes from which a batch of rows is deflated. A row alone stays readable with any MQTT client."""
LEVEL = 6
"""Of zlib. Level 3 takes half the time and a fifth more bytes; the bytes are what a thin line has least of."""
REACH = 13
"""Of zlib: a repeat is sought in the last 2**REACH bytes. Rows are like those just before them: with zlib's 15 they
take a tenth longer, and 2 % more bytes, because longer distances have longer codes."""
LARGEST = 268_435_455
"""Bytes of the largest packet that MQTT knows."""
FRAME = 64
"""Bytes of a PUBLISH beside topic and payload, at most: fixed header, lengths, packet id and our properties."""
OVERHEAD = 52
"""Bytes of a TCP segment beside its payload: IPv4 20, TCP 20, timestamps 12."""
RECORD = 22
"""Bytes that TLS 1.3 adds to a record."""
HANDSHAKE = (3_000, 5_000)
"""Up and down, about: a TLS handshake with two certificates."""


class Post(Connection):
    """A connection that spends few bytes.

    largest   bytes of the largest packet that the broker takes
    hurries   the kernel is to confirm at once what has come, though that costs segments: a broker may hold back an
              acknowledgement of ours until then (Nagle), and Linux waits 40 ms for company
    """

    def __init__(
        self,
        broker: Broker,
        address: Address,
        name: str,
        tls: ssl.SSLContext | None,
        will: tuple[str, bytes] | None = None,
    ) -> None:
        super().__init__(broker, address, name, tls, will)
        self.largest = LARGEST
        self._tls = tls is not None
        self._offered = 0
        self._aliases: dict[str, int] = {}
        self.hurries = False
        self._kernel: tuple[int, int] | None = None
        self._guess = (0, 0)
        self._taken = (0, 0)
        self._client.on_socket_close = lambda c, u, line: self._measure(line)

    def _answered(self, code: ReasonCode, properties: Any) -> None:
        self.largest = getattr(properties, "MaximumPacketSize", LARGEST)
        self._offered = getattr(properties, "TopicAliasMaximum", 0)
        super()._answered(code, properties)

    def open(self, stop: threading.Event, patience: float = CONNECT_PATIENCE) -> None:
        """As Connection does; a handshake that fails is paid for, too."""
        try:
            super().open(stop, patience)
        except UplinkError as error:
            if isinstance(error.__cause__, ssl.SSLError):
                self._guess = HANDSHAKE
            raise
        self._guess = HANDSHAKE if self._tls else (0, 0)

    def packed(self, payload: bytes) -> tuple[bytes, str]:
        """A payload of rows as small as it may be, and its content type. For any thread."""
        if self._five and len(payload) >= DEFLATE_FROM:
            smaller = zlib.compress(payload, LEVEL, wbits=REACH)
            if len(smaller) + len(DEFLATED) + 3 < len(payload):
                return smaller, DEFLATED
        return payload, ""

    def post(self, topic: str, payload: bytes, retain: bool, content_type: str = "") -> int:
        """Hand over one message of QoS 1; returns the id of its acknowledgement.

        Raises UplinkError when the connection is lost, or when the broker takes no packet as large as this.
        """
        alias = None
        if self._five:
            topic, alias = self._aliased(topic)
        if FRAME + len(topic) + len(payload) > self.largest:
            raise UplinkError(f"{self.where} takes no packet of {len(payload)} bytes, only of {self.largest}")
        self._guessed(OVERHEAD + 7 + len(topic) + len(payload), 2 * OVERHEAD + 4)
        return self.publish(topic, payload, retain, content_type=content_type, alias=alias)

    def turn(self, patience: float, ear: socket.socket | None = None) -> None:
        """As Connection does, and look at what the line has taken."""
        super().turn(patience, ear)
        line = self._client.socket()
        if self.hurries and isinstance(line, socket.socket) and hasattr(socket, "TCP_QUICKACK"):
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        self._measure(line)

    def used(self) -> tuple[int, int]:
        """Bytes (up, down) since the last time that this was asked."""
        up, down = self._kernel or self._guess
        before, self._taken = self._taken, (up, down)
        return max(0, up - before[0]), max(0, down - before[1])

    def _aliased(self, topic: str) -> tuple[str, int | None]:
        """The topic as it is to be sent, nothing when the broker knows its alias already; and the alias."""
        known = topic in self._aliases
        if not known and len(self._aliases) < self._offered:
            self._aliases[topic] = len(self._aliases) + 1
        return "" if known else topic, self._aliases.get(topic)

    def _guessed(self, up: int, down: int) -> None:
        records = RECORD if self._tls else 0
        self._guess = self._guess[0] + up + records, self._guess[1] + down + records

    def _measure(self, line: Any) -> None:
        if isinstance(line, socket.socket):
            self._kernel = of_kernel(line) or self._kernel


def of_kernel(line: socket.socket) -> tuple[int, int] | None:
    """Bytes (up, down) that a TCP connection has taken from the line until now; None where nobody tells."""
    if not hasattr(socket, "TCP_INFO"):
        return None
    try:
        return of_tcp_info(line.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 208))
    except OSError:
        return None


def of_tcp_info(told: bytes) -> tuple[int, int] | None:
    """The same from Linux's struct tcp_info (linux/tcp.h); a kernel before 4.19 has no bytes_sent in it."""
    if len(told) < 208:
        return None
    (received,) = struct.unpack_from("=Q", told, 128)
    segments_out, segments_in = struct.unpack_from("=II", told, 136)
    (sent,) = struct.unpack_from("=Q", told, 200)
    return sent + OVERHEAD * segments_out, received + OVERHEAD * segments_in
