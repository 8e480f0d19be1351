"""This file knows where a simulated server can be reached: TCP, or websockets.

Who asks matters to a server, so what travels between it and its endpoint are records (see framing.Records):

    ("o", channel)  a client has connected      channel: the connection's number, for a websocket followed by a
    ("t", channel, text)  it says something              space and the path that it asked for
    ("c", channel)  it has left; from the server: hang up
"""

import asyncio
from contextlib import suppress

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from agent.drivers.framing import Records, record
from hwsim.endpoints import Hear, Tcp, listener

LARGEST = 256 * 1024 * 1024
"""Bytes of a record: a hostile device of a drill may say something enormous."""


class TcpServer(Tcp):
    """A server on 127.0.0.1; `port` 0 is any free one. Each client is answered alone."""

    def __init__(self, port: int, hear: Hear) -> None:
        super().__init__(port, hear)
        self._said = Records(LARGEST)

    def write(self, data: bytes) -> None:
        for act, channel, text in self._said.feed(data):
            if channel not in self._hosts:
                continue
            if act == "t":
                self._send(channel, text)
            else:
                self._drop(channel)

    def _tell(self, act: str, channel: str, data: bytes = b"") -> None:
        self._hear(record(act, channel, data))


class WebSockets:
    """Websockets on 127.0.0.1, at any path; `port` 0 is any free one."""

    def __init__(self, port: int, hear: Hear) -> None:
        self._hear = hear
        self._listener = listener(port)
        self.port: int = self._listener.getsockname()[1]
        self._said = Records(LARGEST)
        self._clients: dict[str, ServerConnection] = {}
        self._count = 0
        self._sending: set[asyncio.Task[None]] = set()
        self._server: Server | None = None
        self._closed = False
        self._serving = asyncio.ensure_future(self._serve())

    @property
    def address(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def speed(self) -> int | None:
        return None

    def write(self, data: bytes) -> None:
        for act, channel, text in self._said.feed(data):
            if (client := self._clients.get(channel)) is not None:
                # Tasks begin in the order in which they were made, so messages stay in order.
                task = asyncio.ensure_future(_send(client, text) if act == "t" else client.close())
                self._sending.add(task)
                task.add_done_callback(self._sending.discard)

    def close(self) -> None:
        self._closed = True
        self._serving.cancel()
        for client in self._clients.values():
            client.transport.abort()  # a pulled cable says no goodbye
        if self._server:
            # asyncio's own close stops listening at once, so that the port can be served again in the same moment
            self._server.server.close()
            self._server.close(close_connections=False)
        else:
            self._listener.close()

    async def _serve(self) -> None:
        self._server = await serve(
            self._converse, sock=self._listener, compression=None, ping_interval=None, max_size=LARGEST
        )

    async def _converse(self, client: ServerConnection) -> None:
        self._count += 1
        channel = f"{self._count} {client.request.path if client.request else '/'}"
        self._clients[channel] = client
        self._hear(record("o", channel))
        try:
            async for message in client:
                self._hear(record("t", channel, message.encode() if isinstance(message, str) else message))
        except ConnectionClosed:
            pass  # it left without a goodbye
        finally:
            del self._clients[channel]
            if not self._closed:
                self._hear(record("c", channel))


async def _send(client: ServerConnection, text: bytes) -> None:
    with suppress(ConnectionClosed):
        await client.send(text, text=True)
