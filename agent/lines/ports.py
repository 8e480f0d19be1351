"""This file knows how a port is opened: a serial line, a serial server, or websockets. The only user of pyserial.

A port that cannot be opened is a LinkError with one word for the cause and a sentence a technician can act on.
"""

import errno
import logging
from typing import Protocol

import serial

from agent.config import Device, Line
from agent.drivers import driver_class
from agent.errors import LinkError
from agent.lines.addresses import without_login, without_logins
from agent.lines.nodes import not_serial

try:
    from termios import error as TermiosError
except ImportError:  # Windows has no termios, and raises nothing else than OSError
    TermiosError = OSError  # type: ignore[assignment, misc]

READ_TIMEOUT = 0.2
WRITE_TIMEOUT = 1.0
SOCKET_PIECE = 4096

UNREACHED = ("timed out", "unreachable", "No route", "service not known", "resolution", "No address")
"""How pyserial's sentences end where nobody answers; it hands on no error number."""

log = logging.getLogger(__name__)


class Port(Protocol):
    """An open port. `read` and `write` raise OSError when it was lost."""

    def read(self) -> bytes:
        """What came; waits at most READ_TIMEOUT seconds for the first of it."""

    def write(self, data: bytes) -> None:
        """Send, or let it go after WRITE_TIMEOUT seconds: a driver asks again."""

    def close(self) -> None:
        """Never raises."""


def open_port(line: Line | Device) -> Port:
    """Open the port of a line, alone. Raises LinkError with the cause and the next step."""
    if driver_class(line.kind).line.medium == "messages":
        # Loaded only where it is used: most terminals need no websockets, and all of them count memory.
        from agent.lines.sockets import Sockets

        return Sockets(line.port, line.tls if isinstance(line, Line) else None, READ_TIMEOUT, WRITE_TIMEOUT)
    return SerialPort(line)


class SerialPort:
    """A serial line, or what pyserial can reach as one: socket://, rfc2217://."""

    def __init__(self, line: Line | Device) -> None:
        if sentence := not_serial(line.port):
            raise LinkError("unusable", sentence)
        settings = driver_class(line.kind).line
        self._name = line.name
        self._whole = line.port.startswith("socket://")
        try:
            self._port = serial.serial_for_url(
                line.port,
                do_not_open=True,
                baudrate=line.baud or settings.baud,
                bytesize=settings.bits,
                parity=settings.parity,
                stopbits=settings.stop,
                timeout=READ_TIMEOUT,
                write_timeout=WRITE_TIMEOUT,
            )
            if "://" not in line.port:
                self._port.exclusive = True
                self._port.dtr, self._port.rts = settings.dtr, settings.rts
            self._port.open()
        except (OSError, TermiosError, ValueError) as error:
            raise _explained(without_login(line.port), error) from error

    def read(self) -> bytes:
        try:
            data: bytes = self._port.read(1)
            if data and self._whole:
                # pyserial cannot tell how much waits on a socket, only whether anything does
                self._port.timeout = 0
                data += self._port.read(SOCKET_PIECE)
                self._port.timeout = READ_TIMEOUT
            elif data:
                data += self._port.read(self._port.in_waiting)
        except TermiosError as error:
            raise OSError(str(error)) from error
        return data

    def write(self, data: bytes) -> None:
        try:
            self._port.write(data)
        except serial.SerialTimeoutException:
            log.debug("%s: the line takes no bytes", self._name)
        except TermiosError as error:
            raise OSError(str(error)) from error

    def close(self) -> None:
        try:
            self._port.close()
        except (OSError, TermiosError):
            log.debug("a lost port cannot even be closed")


def _explained(port: str, error: Exception) -> LinkError:
    number, told = getattr(error, "errno", None), without_logins(str(error))
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return LinkError(
            "missing", f"{port} is not there: is the cable in, and is the adapter found by the system?"
        )
    if number in (errno.EBUSY, errno.EAGAIN, errno.EWOULDBLOCK):
        return LinkError(
            "busy", f"{port} is in use by another program: close it, or give one of the two another port"
        )
    if number in (errno.EACCES, errno.EPERM):
        return LinkError(
            "denied", f"{port} may not be opened by this user: add the agent's user to the port's group"
        )
    if "://" in port and "refused" in str(error):
        return LinkError("missing", f"{port} refuses the connection: is the device on, and is the address right?")
    if "://" in port and any(word in str(error) for word in UNREACHED):
        return LinkError(
            "missing", f"{port} cannot be reached ({told}): are device and network on, is the name right?"
        )
    return LinkError("unusable", f"{port} cannot be used ({told}): is it a serial port?")
