"""This file knows how the websockets of one machine become one port: records in, records out (framing.Records). The
only user of the websocket client.

A publisher of services gives each service a connection of its own; all of them are served by the one thread of
their line. The protocol is websockets' own, without its threads, so that a frame that claims too much is refused
at its head, before it is kept. Nothing is compressed, so nothing can swell.
"""

import logging
import select
import socket
import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidURI
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri

from agent.config import Tls
from agent.drivers.framing import Records, record
from agent.errors import LinkError

PORTS = (80, 443, *range(5846, 5857))
"""Where a publisher may be, in this order (XFS4IoT release 2021-1, service discovery); 443 with wss only."""
PATH = "/xfs4iot/v1.0"
LARGEST = 2 * 1024 * 1024
"""Bytes of one message: what the widest known service itself refuses to exceed."""
MOST = 40
"""Connections of one port."""
PATIENCE = 3.0
"""Seconds to connect, and to greet."""
SOON = 0.05
"""Seconds in which connections that break after another belong to the same loss."""
QUIET = logging.getLogger(f"{__name__}.quiet")
QUIET.setLevel(logging.WARNING)  # a message may name keys; websockets would log each at debug level


@dataclass(slots=True)
class _Connection:
    """One websocket. `parts` is a message that is not all there; the protocol bounds its size."""

    line: socket.socket
    protocol: ClientProtocol
    begun: float
    parts: bytearray = field(default_factory=bytearray)
    waiting: list[bytes] = field(default_factory=list)


class Sockets:
    """A port. Raises LinkError "missing" when no publisher answers there, "unusable" for bad certificates."""

    def __init__(self, address: str, tls: Tls | None, read_timeout: float, write_timeout: float) -> None:
        self._host = urlsplit(address).hostname or ""
        self._read_timeout, self._write_timeout = read_timeout, write_timeout
        self._context = _context(tls) if tls else None
        self._orders = Records(LARGEST + 4096)
        self._open: dict[str, _Connection] = {}
        self._said: list[bytes] = []
        candidates = _candidates(address)
        self._connect(candidates)
        end = time.monotonic() + PATIENCE
        while self._greeting and time.monotonic() < end:
            self._turn(0.1)
        for uri in list(self._greeting):
            self._drop(uri, "it does not greet as a websocket")
        if not self._open:
            raise LinkError(
                "missing", f"{_shown(address, candidates)}: no publisher answers; does its service run?"
            )
        # What did not answer while the ports were tried is no news.
        self._said = [said for said in self._said if said[1:2] != b"c"]

    def read(self) -> bytes:
        """The records since the last call; waits as the others do. Raises OSError when no connection is left."""
        if not self._said:
            self._turn(self._read_timeout)
        for _ in range(MOST):
            # When one connection breaks, the others often do in the same moment: that is one loss, not many.
            if not any(said[1:2] == b"c" for said in self._said) or not self._turn(SOON):
                break
        if not self._open:
            raise OSError("every connection was closed")
        said, self._said = b"".join(self._said), []
        return said

    def write(self, data: bytes) -> None:
        """Act on records: send a message, after opening its connection if need be, or close one."""
        for act, uri, text in self._orders.feed(data):
            if act == "c":
                self._drop(uri, "closed by us")
                continue
            if uri not in self._open:
                self._connect([uri])
            if (connection := self._open.get(uri)) is None:
                continue
            if uri in self._greeting:
                connection.waiting.append(text)
            else:
                connection.protocol.send_text(text)
                self._flush(uri)

    def close(self) -> None:
        for uri in list(self._open):
            self._drop(uri, "the port is closed")

    @property
    def _greeting(self) -> list[str]:
        return [uri for uri, one in self._open.items() if one.protocol.state is State.CONNECTING]

    def _connect(self, uris: Iterable[str]) -> None:
        """Begin connections, all at once: a port list on a silent host must not cost its sum."""
        pending: dict[socket.socket, str] = {}
        for uri in uris:
            if why := self._refusal(uri):
                self._said.append(record("c", uri, why.encode()))
                continue
            parts = urlsplit(uri)
            port = parts.port or (443 if parts.scheme == "wss" else 80)
            try:
                found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
                line = socket.socket(found[0][0], socket.SOCK_STREAM)
                line.setblocking(False)
                line.connect_ex(found[0][4])
                pending[line] = uri
            except OSError as error:
                self._said.append(record("c", uri, str(error).encode()))
        end = time.monotonic() + PATIENCE
        while pending and (left := end - time.monotonic()) > 0:
            for line in select.select([], list(pending), [], left)[1]:
                self._reached(pending.pop(line), line)
        for line, uri in pending.items():
            line.close()
            self._said.append(record("c", uri, b"it cannot be reached"))

    def _refusal(self, uri: str) -> str:
        """Why a URI is not opened: a publisher's list may name anything."""
        try:
            parts = urlsplit(uri)
            parse_uri(uri)
        except (ValueError, InvalidURI):
            return "it is no websocket address"
        if parts.hostname != self._host:
            return "it names another machine than the line's port"
        if (parts.scheme == "wss") != (self._context is not None):
            return "it does not use TLS as the line's port does"
        return f"{MOST} connections are open already" if len(self._open) >= MOST else ""

    def _reached(self, uri: str, line: socket.socket) -> None:
        try:
            if (number := line.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)) != 0:
                raise OSError(number, "refused")
            line.settimeout(PATIENCE)
            if self._context:
                line = self._context.wrap_socket(line, server_hostname=self._host)
            line.settimeout(self._write_timeout)
        except OSError as error:
            line.close()
            self._said.append(record("c", uri, f"it cannot be reached: {error}".encode()))
            return
        protocol = ClientProtocol(parse_uri(uri), max_size=LARGEST, logger=QUIET)
        protocol.send_request(protocol.connect())
        self._open[uri] = _Connection(line, protocol, time.monotonic())
        self._flush(uri)

    def _turn(self, patience: float) -> bool:
        """Wait for something to come, at most `patience` seconds, and take it in. False when nothing came."""
        lines = {one.line: uri for uri, one in self._open.items()}
        ready: list[socket.socket] = [line for line in lines if isinstance(line, ssl.SSLSocket) and line.pending()]
        if not ready:
            ready = select.select(list(lines), [], [], patience)[0]
        for line in ready:
            self._take(lines[line])
        for uri in self._greeting:
            if time.monotonic() - self._open[uri].begun > PATIENCE:
                self._drop(uri, "it does not greet as a websocket")
        return bool(ready)

    def _take(self, uri: str) -> None:
        connection = self._open[uri]
        protocol = connection.protocol
        try:
            data = connection.line.recv(65536)
        except OSError as error:
            self._drop(uri, f"it was lost: {error}")
            return
        if data:
            protocol.receive_data(data)
        else:
            protocol.receive_eof()
        for event in protocol.events_received():
            if isinstance(event, Response):
                self._greeted(uri, connection)
            elif isinstance(event, Frame):
                self._frame(uri, connection, event)
        self._flush(uri)
        greeting = data and protocol.state is State.CONNECTING and protocol.handshake_exc is None
        if protocol.state is not State.OPEN and not greeting:
            why = protocol.handshake_exc or protocol.parser_exc or "the service has closed it"
            self._drop(uri, str(why))

    def _greeted(self, uri: str, connection: _Connection) -> None:
        if connection.protocol.state is not State.OPEN:
            return
        self._said.append(record("o", uri))
        for text in connection.waiting:
            connection.protocol.send_text(text)
        connection.waiting.clear()

    def _frame(self, uri: str, connection: _Connection, frame: Frame) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            connection.parts += frame.data
            if frame.fin:
                self._said.append(record("t", uri, bytes(connection.parts)))
                connection.parts = bytearray()

    def _flush(self, uri: str) -> None:
        connection = self._open[uri]
        try:
            for data in connection.protocol.data_to_send():
                if data:
                    connection.line.sendall(data)
        except OSError as error:
            self._drop(uri, f"it takes nothing: {error}")

    def _drop(self, uri: str, why: str) -> None:
        if (connection := self._open.pop(uri, None)) is not None:
            connection.line.close()
            self._said.append(record("c", uri, why.encode()))


def _candidates(address: str) -> list[str]:
    """The publisher addresses that a port means: itself, or without a port number the whole list."""
    parts = urlsplit(address)
    path = parts.path.rstrip("/") or PATH
    if parts.port is not None:
        return [f"{parts.scheme}://{parts.netloc}{path}"]
    without = 443 if parts.scheme == "ws" else 80
    return [f"{parts.scheme}://{parts.netloc}:{port}{path}" for port in PORTS if port != without]


def _shown(address: str, candidates: list[str]) -> str:
    return address if len(candidates) == 1 else f"{address} (ports {', '.join(str(p) for p in PORTS)})"


def _context(tls: Tls) -> ssl.SSLContext:
    """Verified TLS, always; there is no way here to switch verification off."""
    try:
        context = ssl.create_default_context(cafile=str(tls.ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if tls.certificate:
            context.load_cert_chain(str(tls.certificate), str(tls.key) if tls.key else None)
    except OSError as error:
        raise LinkError("unusable", f"the certificates of the line's tls table cannot be used: {error}") from error
    return context
