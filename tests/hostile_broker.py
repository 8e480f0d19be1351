"""A small MQTT broker on a raw socket, 3.1.1 and 5, that does to a client whatever a test says.

It knows the standard's bytes only, and shares no code with the agent or with paho. `arrived` takes every message as
it comes; `kept` has the rows of those that were acknowledged with success, which are all that a broker vouches for.
"""

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from hwsim.subscriber import Account, opened

CONNECT, CONNACK, PUBLISH, PUBACK, PINGREQ, PINGRESP, DISCONNECT = 1, 2, 3, 4, 12, 13, 14
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK = 8, 9, 10, 11
RECEIVE_MAXIMUM, TOPIC_ALIAS, TOPIC_ALIAS_MAXIMUM, CONTENT_TYPE = 0x21, 0x23, 0x22, 0x03
SERVER_KEEP_ALIVE, MAXIMUM_PACKET_SIZE = 0x13, 0x27
WIDTHS = {RECEIVE_MAXIMUM: ">H", TOPIC_ALIAS: ">H", TOPIC_ALIAS_MAXIMUM: ">H", SERVER_KEEP_ALIVE: ">H"}
WIDTHS |= {MAXIMUM_PACKET_SIZE: ">I"}
PATIENCE = 20.0


@dataclass
class Message:
    """A PUBLISH of QoS 1: `size` is that of the whole packet."""

    topic: str
    payload: bytes
    mid: int
    size: int
    content_type: str = ""
    aliased: bool = False
    retain: bool = False

    @property
    def rows(self) -> list[tuple[str, int]]:
        """(epoch, seq) of the ledger rows in it."""
        if not self.topic.endswith("/ledger"):
            return []
        batch = json.loads(opened(self.payload, self.content_type))
        return [(batch["epoch"], row["seq"]) for row in batch["rows"]]


@dataclass
class Session:
    """One connection. `number`: from 0, since the broker began; `waiting`: what is not acknowledged; `offered`: the
    properties of our CONNACK; `limit`: the largest packet that the client takes, if it said so; `listens`: its
    subscriptions; `answered`: how many of our messages it has acknowledged."""

    broker: "HostileBroker"
    line: socket.socket
    number: int
    five: bool = False
    offered: dict[str, int] = field(default_factory=dict)
    waiting: list[Message] = field(default_factory=list)
    topics: dict[int, str] = field(default_factory=dict)
    limit: int = 0
    listens: set[str] = field(default_factory=set)
    answered: int = 0
    whole: threading.Lock = field(default_factory=threading.Lock)  # of several threads, each packet

    def accept(self, code: int = 0, **properties: int) -> None:
        """CONNACK; properties by their names above, in lower case. Only version 5 has them."""
        self.offered = properties
        packed = b"".join(
            bytes([number]) + struct.pack(WIDTHS[number], value)
            for name, value in properties.items()
            for number in (globals()[name.upper()],)
        )
        self.send(_packet(CONNACK, bytes([0, code]) + (bytes([len(packed)]) + packed if self.five else b"")))
        if code:
            self.cut()

    def ack(self, message: Message, code: int = 0) -> None:
        """PUBACK. With a success the broker vouches for the message from now on."""
        self.waiting.remove(message)
        if code < 0x80:
            self.broker.kept.update(message.rows)
        body = struct.pack(">H", message.mid)
        self.send(_packet(PUBACK, body + (bytes([code]) if code else b"")))

    def grant(self, mid: int, topics: list[str], code: int = 0) -> None:
        """SUBACK: each topic granted, or refused with `code`; a granted one is heard from now on."""
        if code < 0x80:
            self.listens.update(topics)
        self.send(_packet(SUBACK, struct.pack(">H", mid) + self.nothing + bytes([code] * len(topics))))

    def say(self, topic: str, payload: bytes, *, mid: int = 1, qos: int = 1, retain: bool = False) -> None:
        """PUBLISH, whether the client has asked for the topic or not."""
        spelled = topic.encode()
        head = struct.pack(">H", len(spelled)) + spelled + (struct.pack(">H", mid) if qos else b"")
        self.send(_packet(PUBLISH, head + self.nothing + payload, 2 * qos + retain))

    @property
    def nothing(self) -> bytes:
        """No properties."""
        return b"\0" if self.five else b""

    def bye(self, code: int) -> None:
        """DISCONNECT with a reason, as only version 5 can."""
        self.send(_packet(DISCONNECT, bytes([code, 0])))
        self.cut()

    def send(self, data: bytes) -> None:
        try:
            with self.whole:
                self.line.sendall(data)
        except OSError:
            return

    def cut(self) -> None:
        """The line breaks."""
        try:
            self.line.shutdown(socket.SHUT_RDWR)
        except OSError:
            return


Greet = Callable[[Session], None]
Behave = Callable[[Session, Message], None]
Grant = Callable[[Session, int, list[str]], None]


class HostileBroker:
    """greet(session) answers a CONNECT, behave(session, message) a PUBLISH, grant(session, mid, topics) a
    SUBSCRIBE. Before `behave`, a message goes to its sender if that listens to its topic and `echoes` is true.

    broken   what the client did that MQTT forbids; there should be nothing
    stalls   whether `behave` is to be slow, for tests that turn it on
    torn     after how many bytes of its own each connection is to break, by its number: {} for never
    """

    def __init__(self, greet: Greet = Session.accept, behave: Behave = Session.ack) -> None:
        self.greet, self.behave = greet, behave
        self.grant: Grant = Session.grant
        self.echoes = True
        self.arrived, self.kept, self.broken = Account(), set[tuple[str, int]](), list[str]()
        self.torn: Callable[[int], int | None] = lambda number: None
        self.sessions: list[Session] = []
        self.pings = 0
        self.stalls = False
        self._lock = threading.Lock()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for session in self.sessions:
            session.cut()

    def _accept(self) -> None:
        while True:
            try:
                line, _ = self._server.accept()
            except OSError:
                return
            line.settimeout(PATIENCE)
            session = Session(self, line, len(self.sessions))
            self.sessions.append(session)
            threading.Thread(target=self._serve, args=(session,), daemon=True).start()

    def _serve(self, session: Session) -> None:
        try:
            for kind, flags, body, size in _packets(session.line, self.torn(session.number)):
                with self._lock:
                    self._take(session, kind, flags, body, size)
        except OSError:
            pass
        finally:
            session.line.close()

    def _take(self, session: Session, kind: int, flags: int, body: bytes, size: int) -> None:
        if kind == CONNECT:
            session.five = body[6] == 5
            if session.five and body[11] == MAXIMUM_PACKET_SIZE:
                session.limit = struct.unpack_from(">I", body, 12)[0]
            self.greet(session)
        elif kind == PINGREQ:
            self.pings += 1
            session.send(_packet(PINGRESP, b""))
        elif kind == SUBSCRIBE:
            mid, topics = _asked(session, body, options=1)
            self.grant(session, mid, topics)
        elif kind == UNSUBSCRIBE:
            mid, topics = _asked(session, body, options=0)
            session.listens.difference_update(topics)
            codes = bytes(len(topics)) if session.five else b""
            session.send(_packet(UNSUBACK, struct.pack(">H", mid) + session.nothing + codes))
        elif kind == PUBACK:
            session.answered += 1
        elif kind == DISCONNECT:
            session.cut()
        elif kind == PUBLISH:
            message = self._message(session, flags, body, size)
            session.waiting.append(message)
            if len(session.waiting) > session.offered.get("receive_maximum", 65535):
                self.broken.append(f"{len(session.waiting)} messages wait for their PUBACK")
            if size > session.offered.get("maximum_packet_size", size):
                self.broken.append(f"a packet of {size} bytes")
            self.arrived.take(message.topic, opened(message.payload, message.content_type), time.time())
            if self.echoes and message.topic in session.listens:
                session.say(message.topic, message.payload, qos=0)
            self.behave(session, message)

    def _message(self, session: Session, flags: int, body: bytes, size: int) -> Message:
        assert flags & 0b0110 == 0b0010, "QoS 1"
        length = struct.unpack_from(">H", body)[0]
        topic, at = body[2 : 2 + length].decode(), 2 + length
        mid = struct.unpack_from(">H", body, at)[0]
        at += 2
        message = Message(topic, b"", mid, size, retain=bool(flags & 1))
        if session.five:
            end = at + 1 + body[at]
            at += 1
            while at < end:
                number, at = body[at], at + 1
                if number == CONTENT_TYPE:
                    length = struct.unpack_from(">H", body, at)[0]
                    message.content_type = body[at + 2 : at + 2 + length].decode()
                    at += 2 + length
                elif number == TOPIC_ALIAS:
                    self._alias(session, message, struct.unpack_from(">H", body, at)[0])
                    at += 2
                else:
                    self.broken.append(f"a property {number:#x}")
                    break
        message.payload = body[at:]
        return message

    def _alias(self, session: Session, message: Message, alias: int) -> None:
        if not 0 < alias <= session.offered.get("topic_alias_maximum", 0):
            self.broken.append(f"topic alias {alias} was not offered")
        if message.topic:
            session.topics[alias] = message.topic
        else:
            message.aliased = True
            message.topic = session.topics[alias]


@contextmanager
def hostile(greet: Greet = Session.accept, behave: Behave = Session.ack) -> Iterator[HostileBroker]:
    broker = HostileBroker(greet, behave)
    try:
        yield broker
    finally:
        broker.close()


def _packet(kind: int, body: bytes, flags: int = 0) -> bytes:
    length, left = bytearray(), len(body)
    while left > 0x7F:
        length.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes([kind << 4 | flags, *length, left]) + body


def _asked(session: Session, body: bytes, options: int) -> tuple[int, list[str]]:
    """(message id, topics) of a SUBSCRIBE or UNSUBSCRIBE without properties; `options`: bytes after each topic."""
    mid, at = struct.unpack_from(">H", body)[0], 3 if session.five else 2
    topics = []
    while at < len(body):
        end = at + 2 + int(struct.unpack_from(">H", body, at)[0])
        topics.append(body[at + 2 : end].decode())
        at = end + options
    return mid, topics


def _packets(line: socket.socket, torn: int | None) -> Iterator[tuple[int, int, bytes, int]]:
    """(kind, flags, body, size) of each packet, until the line ends, or after `torn` bytes."""
    data = b""
    while True:
        while found := _first(data):
            data = data[found[3] :]
            yield found
        more = line.recv(65536 if torn is None else min(65536, torn))
        if not more:
            return
        if torn is not None and (torn := torn - len(more)) <= 0:
            return
        data += more


def _first(data: bytes) -> tuple[int, int, bytes, int] | None:
    length = 0
    for at in range(1, 5):
        if at >= len(data):
            return None
        length |= (data[at] & 0x7F) << 7 * (at - 1)
        if not data[at] & 0x80:
            end = at + 1 + length
            return (data[0] >> 4, data[0] & 15, data[at + 1 : end], end) if len(data) >= end else None
    raise OSError("no packet")
