"""This file knows how the websockets of one machine become one port: records in, records out (framing.Records). The
only user of the websocket client.

A publisher of services gives each service a connection of its own; all of them are served by the one thread of
their line, and none is ever waited for alone. The protocol is websockets' own, without its threads, so that a frame
that claims too much is refused at its head, before it is kept. Nothing is compressed, so nothing can swell.
"""

import logging
import os
import select
import socket
import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
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
from agent.lines.addresses import is_loopback
from agent.tls import context

PORTS = (80, 443, *range(5846, 5857))
"""Where a publisher may be, in this order (XFS4IoT release 2021-1, service discovery); 443 with wss only."""
PATH = "/xfs4iot/v1.0"
LARGEST = 2 * 1024 * 1024
"""Bytes of one message: what the widest known service itself refuses to exceed."""
MOST = 40
"""Connections of one port."""
PATIENCE = 3.0
"""Seconds from the first packet to the end of the greeting."""
LOOK = 30.0
"""Seconds between two looks for publishers that were not there yet: at a boot, vendors start in any order."""
SOON = 0.05
"""Seconds in which connections that break after another belong to the same loss."""
QUIET = logging.getLogger(f"{__name__}.quiet")
QUIET.setLevel(logging.WARNING)  # a message may name keys; websockets would log each at debug level
NOT_YET = (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError)


@dataclass(slots=True)
class _Connection:
    """One websocket, from its first packet on. `protocol` is there once TCP and TLS stand; `others` are addresses
    to try when this one fails, `waiting` messages for after the greeting. `parts`: a message that is not all there;
    the protocol bounds its size."""

    line: socket.socket
    begun: float
    others: list[Any]
    protocol: ClientProtocol | None = None
    shaking: bool = False
    waiting: list[bytes] = field(default_factory=list)
    parts: bytearray = field(default_factory=bytearray)

    @property
    def greeted(self) -> bool:
        return self.protocol is not None and self.protocol.state is not State.CONNECTING


class Sockets:
    """A port. Raises LinkError "missing" when no publisher answers there, "unusable" when TLS refuses them all."""

    def __init__(self, address: str, tls: Tls | None, read_timeout: float, write_timeout: float) -> None:
        self._host = urlsplit(address).hostname or ""
        self._read_timeout, self._write_timeout = read_timeout, write_timeout
        self._context = _context(tls) if tls else None
        self._orders = Records(LARGEST + 4096)
        self._open: dict[str, _Connection] = {}
        self._said: list[bytes] = []
        self._refused = ""
        self._candidates = candidates = _candidates(address)
        self._look_at = time.monotonic() + LOOK
        try:
            self._addresses = socket.getaddrinfo(self._host, None, type=socket.SOCK_STREAM)
        except OSError as error:
            raise LinkError("missing", f"{self._host} is not found ({error}): is the name right?") from error
        self._connect(candidates)
        end = time.monotonic() + PATIENCE
        while any(not one.greeted for one in self._open.values()) and time.monotonic() < end:
            self._turn(0.1)
        for uri in [uri for uri, one in self._open.items() if not one.greeted]:
            self._drop(uri, "it does not greet as a websocket")
        if not self._open and self._refused:
            raise LinkError(
                "unusable", f"{address}: TLS refuses the service: {self._refused}; see the line's tls table"
            )
        if not self._open:
            raise LinkError(
                "missing", f"{_shown(address, candidates)}: no publisher answers; does its service run?"
            )

    def read(self) -> bytes:
        """The records since the last call; waits as the others do. Raises OSError when no connection is left."""
        if time.monotonic() >= self._look_at and len(self._candidates) > 1:
            self._look_at = time.monotonic() + LOOK
            self._connect([uri for uri in self._candidates if uri not in self._open])
        if not self._said:
            self._turn(self._read_timeout)
        for _ in range(MOST):
            # When one connection breaks, the others often do in the same moment: that is one loss, not many.
            if not any(said[1:2] == b"c" for said in self._said) or not self._turn(SOON):
                break
        if not any(one.greeted for one in self._open.values()):
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
            if connection.protocol is not None and connection.greeted:
                connection.protocol.send_text(text)
                self._flush(uri)
            else:
                connection.waiting.append(text)

    def close(self) -> None:
        for uri in list(self._open):
            self._drop(uri, "the port is closed")

    def _connect(self, uris: Iterable[str]) -> None:
        """Begin connections; `_turn` goes on with them, all at once."""
        for uri in uris:
            if why := self._refusal(uri):
                self._closed(uri, why)
            else:
                self._try(uri, list(self._addresses), [])

    def _try(self, uri: str, addresses: list[Any], waiting: list[bytes]) -> None:
        """Send the first packet to the first address that takes one."""
        parts = urlsplit(uri)
        port = parts.port or (443 if parts.scheme == "wss" else 80)
        why = "it cannot be reached"
        while addresses:
            family, *_, where = addresses.pop(0)
            line = socket.socket(family, socket.SOCK_STREAM)
            line.setblocking(False)
            try:
                line.connect((where[0], port, *where[2:]))
            except BlockingIOError:
                pass
            except OSError as error:
                line.close()
                why = str(error)
                continue
            self._open[uri] = _Connection(line, time.monotonic(), addresses, waiting=waiting)
            return
        self._closed(uri, why)

    def _refusal(self, uri: str) -> str:
        """Why a URI is not opened: a publisher's list may name anything."""
        try:
            parts = urlsplit(uri)
            parse_uri(uri)
        except (ValueError, InvalidURI):
            return "it is no websocket address"
        if parts.hostname != self._host and not (is_loopback(parts.hostname or "") and is_loopback(self._host)):
            return "it names another machine than the line's port"
        if (parts.scheme == "wss") != (self._context is not None):
            return "it does not use TLS as the line's port does"
        return f"{MOST} connections are open already" if len(self._open) >= MOST else ""

    def _turn(self, patience: float) -> bool:
        """Wait for something to come, at most `patience` seconds, and take it in. False when nothing came."""
        lines = {one.line: uri for uri, one in self._open.items()}
        ready: list[socket.socket] = [line for line in lines if isinstance(line, ssl.SSLSocket) and line.pending()]
        if not ready:
            watch = select.poll()  # `select` would know no descriptor above 1023
            for one in self._open.values():
                is_opening = one.protocol is None and not one.shaking
                watch.register(one.line, select.POLLIN | (select.POLLOUT if is_opening else 0))
            found = dict(watch.poll(patience * 1000))
            ready = [line for line in lines if found.get(line.fileno())]
        for line in ready:
            uri = lines[line]
            if self._open[uri].protocol is None:
                self._reached(uri)
            else:
                self._take(uri)
        for uri, one in list(self._open.items()):
            if not one.greeted and time.monotonic() - one.begun > PATIENCE:
                self._drop(uri, "it does not greet as a websocket" if one.protocol else "it cannot be reached")
        return bool(ready)

    def _reached(self, uri: str) -> None:
        """TCP stands, or does not, or TLS goes on."""
        connection = self._open[uri]
        try:
            if (number := connection.line.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)) != 0:
                raise OSError(number, os.strerror(number))
            if self._context and not connection.shaking:
                connection.line = self._context.wrap_socket(
                    connection.line, server_hostname=self._host, do_handshake_on_connect=False
                )
                connection.shaking = True
            if isinstance(connection.line, ssl.SSLSocket):
                connection.line.do_handshake()
        except NOT_YET:
            return
        except OSError as error:
            if isinstance(error, ssl.SSLError):
                self._refused = str(error)
            others, waiting = connection.others, connection.waiting
            connection.line.close()
            del self._open[uri]
            if others:
                self._try(uri, others, waiting)
            else:
                self._closed(uri, f"it cannot be reached: {_said(error)}", greeted=False)
            return
        connection.protocol = protocol = ClientProtocol(parse_uri(uri), max_size=LARGEST, logger=QUIET)
        protocol.send_request(protocol.connect())
        self._flush(uri)

    def _take(self, uri: str) -> None:
        connection = self._open[uri]
        protocol = connection.protocol
        if protocol is None:
            return
        try:
            data = connection.line.recv(65536)
        except NOT_YET:
            return
        except OSError as error:
            self._drop(uri, f"it was lost: {_said(error)}")
            return
        if data:
            protocol.receive_data(data)
        else:
            protocol.receive_eof()
        for event in protocol.events_received():
            if isinstance(event, Response):
                self._greeted(uri, connection, protocol)
            elif isinstance(event, Frame):
                self._frame(uri, connection, event)
        self._flush(uri)
        greeting = data and protocol.state is State.CONNECTING and protocol.handshake_exc is None
        if protocol.state is not State.OPEN and not greeting:
            why = protocol.handshake_exc or protocol.parser_exc or "the service has closed it"
            self._drop(uri, str(why))

    def _greeted(self, uri: str, connection: _Connection, protocol: ClientProtocol) -> None:
        if protocol.state is State.OPEN:
            self._said.append(record("o", uri))
            for text in connection.waiting:
                protocol.send_text(text)
            connection.waiting.clear()

    def _frame(self, uri: str, connection: _Connection, frame: Frame) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            connection.parts += frame.data
            if frame.fin:
                self._said.append(record("t", uri, bytes(connection.parts)))
                connection.parts = bytearray()

    def _flush(self, uri: str) -> None:
        connection = self._open[uri]
        if connection.protocol is None:
            return
        try:
            connection.line.settimeout(self._write_timeout)
            for data in connection.protocol.data_to_send():
                if data:
                    connection.line.sendall(data)
            connection.line.setblocking(False)
        except OSError as error:
            self._drop(uri, f"it takes nothing: {_said(error)}")

    def _drop(self, uri: str, why: str) -> None:
        if (connection := self._open.pop(uri, None)) is not None:
            if self._context and connection.protocol and not connection.greeted and "does not greet" not in why:
                # A server that wants a certificate says so only after the handshake, by hanging up.
                self._refused = self._refused or f"{why} (does it want a certificate of ours?)"
            connection.line.close()
            self._closed(uri, why, connection.greeted)

    def _closed(self, uri: str, why: str, greeted: bool = False) -> None:
        """Tell that a connection ended, or did not come about; of a port of the list the latter is no news."""
        if greeted or uri not in self._candidates:
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


def _said(error: OSError) -> str:
    return error.strerror or str(error)


def _context(tls: Tls) -> ssl.SSLContext:
    try:
        return context(tls)
    except OSError as error:
        raise LinkError("unusable", f"the certificates of the line's tls table cannot be used: {error}") from error
