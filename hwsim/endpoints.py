"""This file knows where a simulated device can be reached: a pty behind a stable name, or a TCP port.

Both live in one event loop and never block. Who does not read loses bytes, as on a serial line without flow
control. What a host sends goes to the `hear` that an endpoint is made with.
"""

import asyncio
import os
import socket
import termios
import tty
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from hwsim.errors import NOT_HERE, Refusal

Hear = Callable[[bytes], None]


class Endpoint(Protocol):
    """`address` is what a host opens. `speed` in baud is the host's setting; None: there is no such thing, 0: one
    that is not in the list of standard speeds."""

    @property
    def address(self) -> str: ...

    @property
    def speed(self) -> int | None: ...

    def write(self, data: bytes) -> None:
        """Send to whoever is there."""

    def close(self) -> None:
        """Pull the cable: the name and the connections vanish."""


SPEEDS = {
    getattr(termios, name): int(name[1:]) for name in dir(termios) if name.startswith("B") and name[1:].isdigit()
}


class Pty:
    """A pseudo-terminal in raw mode, at `baud` until a host sets another speed.

    We keep the slave end open too: else the master would fail with EIO each time the last host closes it.
    """

    def __init__(self, name: Path, baud: int, hear: Hear) -> None:
        self._name, self._hear = name, hear
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        settings = termios.tcgetattr(self._slave)
        settings[4] = settings[5] = getattr(termios, f"B{baud}")
        termios.tcsetattr(self._slave, termios.TCSANOW, settings)
        os.set_blocking(self._master, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._master, self._read)
        name.parent.mkdir(parents=True, exist_ok=True)
        fresh = name.with_name(f".{name.name}.new")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(os.ttyname(self._slave))
        fresh.replace(name)

    @property
    def address(self) -> str:
        return str(self._name)

    @property
    def speed(self) -> int | None:
        inwards, outwards = termios.tcgetattr(self._slave)[4:6]
        return SPEEDS.get(outwards, 0) if inwards == outwards else 0

    def write(self, data: bytes) -> None:
        with suppress(BlockingIOError):
            os.write(self._master, data)

    def close(self) -> None:
        self._name.unlink(missing_ok=True)
        self._loop.remove_reader(self._master)
        os.close(self._slave)
        os.close(self._master)

    def _read(self) -> None:
        with suppress(BlockingIOError):
            self._hear(os.read(self._master, 4096))


def listener(port: int) -> socket.socket:
    """A listening socket on 127.0.0.1 that does not block; `port` 0 is any free one. Raises Refusal."""
    try:
        found = socket.create_server(("127.0.0.1", port))
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise Refusal(
            f"port {port} cannot be served ({reason}); free it, or give another one in the fleet file", NOT_HERE
        ) from error
    found.setblocking(False)
    return found


class Tcp:
    """A port on 127.0.0.1; `port` 0 is any free one. Several hosts may connect; all of them hear the device."""

    def __init__(self, port: int, hear: Hear) -> None:
        self._hear = hear
        self._listener = listener(port)
        self.port: int = self._listener.getsockname()[1]
        self._hosts: dict[str, socket.socket] = {}
        self._count = 0
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._listener, self._accept)

    @property
    def address(self) -> str:
        return f"socket://127.0.0.1:{self.port}"

    @property
    def speed(self) -> int | None:
        return None

    def write(self, data: bytes) -> None:
        for channel in list(self._hosts):
            self._send(channel, data)

    def close(self) -> None:
        self._loop.remove_reader(self._listener)
        self._listener.close()
        for channel in list(self._hosts):
            self._drop(channel)

    def _tell(self, act: str, channel: str, data: bytes = b"") -> None:
        """What a host does: "o" it has come, "t" it says something, "c" it has left. A device only hears."""
        if act == "t":
            self._hear(data)

    def _accept(self) -> None:
        with suppress(BlockingIOError, ConnectionError):
            host, _ = self._listener.accept()
            host.setblocking(False)
            host.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._count += 1
            channel = str(self._count)
            self._hosts[channel] = host
            self._loop.add_reader(host, self._read, channel)
            self._tell("o", channel)

    def _read(self, channel: str) -> None:
        try:
            data = self._hosts[channel].recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._tell("t", channel, data)
        else:
            # A closed connection is readable for ever: leave it, or the loop spins.
            self._drop(channel)
            self._tell("c", channel)

    def _send(self, channel: str, data: bytes) -> None:
        try:
            self._hosts[channel].send(data)
        except BlockingIOError:
            pass  # who does not read loses what it is told
        except OSError:
            self._drop(channel)

    def _drop(self, channel: str) -> None:
        host = self._hosts.pop(channel)
        self._loop.remove_reader(host)
        host.close()
