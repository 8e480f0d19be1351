"""This file knows a simulated receipt printer: ESC/POS status (Epson TM-U220A manual, pages DLE EOT, GS a, GS I).

    10 04 n   real-time status n=1..4       -> 1 byte, 0xx1xx10
    10 05 n   recover from a cutter error
    1D 72 n   status of paper (1) or drawer (2), queued -> 1 byte
    1D 61 n   automatic status back: 4 bytes at once, then 4 bytes at every change of an enabled class
    1D 49 n   identity: 1, 2 -> 1 byte; 41h firmware, 42h maker, 43h model, 44h serial -> 5F text 00

Everything else is printed, which here means swallowed, with its parameters. Real printers look for real-time
commands also inside the parameters of others, and the manual warns of data that looks like one; this one obeys
them only between commands, so that a raster image cannot be taken for a question.
"""

from collections.abc import Mapping
from typing import ClassVar

from hwsim.contract import Allowed

DLE, ESC, GS = 0x10, 0x1B, 0x1D
DRAWER, ONLINE, ERROR, PAPER, PANEL = 0x01, 0x02, 0x04, 0x08, 0x40
"""Classes of GS a."""
MORE = 0
# Parameter bytes of common print commands; what is not here has none.
ESC_PARAMETERS = {b: 1 for b in b"!-3EGJMRtadV{\x06 $%&="} | {b: 2 for b in b"\\$c"} | {b: 3 for b in b"p"}
GS_PARAMETERS = {b: 1 for b in b"!hwHfBbraI"} | {b: 2 for b in b"LWP$\\"}
IDENTITY_NUMBERS = {1: 0x20, 2: 0x02}
"""GS I 1: a model number of our own; GS I 2: a cutter is fitted."""


def _size(data: bytes) -> int:
    """Length of the command or character at the start, MORE when it is not all there."""
    if data[0] not in (DLE, ESC, GS):
        return 1
    if len(data) < 2:
        return MORE
    if data[0] == DLE:
        size = 3 if data[1] in (0x04, 0x05) else 1
    elif data[0] == ESC:
        size = _escape(data)
    else:
        size = _group_separator(data)
    return size if len(data) >= size else MORE


def _escape(data: bytes) -> int:
    if data[1] != 0x2A:
        return 2 + ESC_PARAMETERS.get(data[1], 0)
    if len(data) < 5:  # ESC * m nL nH ...
        return 5
    return 5 + (data[3] + 256 * data[4]) * (3 if data[2] in (32, 33) else 1)


def _group_separator(data: bytes) -> int:
    match data[1]:
        case 0x56:  # GS V m, and n for the feeding cuts
            return 3 if len(data) < 3 else 3 + (data[2] in (65, 66))
        case 0x28:  # GS ( fn pL pH ...
            return 5 if len(data) < 5 else 5 + data[3] + 256 * data[4]
        case 0x76:  # GS v 0 m xL xH yL yH ...
            if len(data) < 8:
                return 8
            return 8 + (data[4] + 256 * data[5]) * (data[6] + 256 * data[7])
    return 2 + GS_PARAMETERS.get(data[1], 0)


class Printer:
    """A printer on a serial line or on TCP."""

    BAUD: ClassVar[int] = 9600
    SETTINGS: ClassVar[Mapping[str, Allowed]] = {
        "paper": ("full", "low", "out"),
        "cover": ("closed", "open"),
        "error": ("ok", "mechanical", "cutter", "unrecoverable", "head_hot"),
        "drawer": ("low", "high"),
        "feed_button": ("released", "pressed"),
        "power": ("on", "off"),
        "answers_with_cover_open": ("yes", "no"),
        "maker": str,
        "model": str,
        "serial": str,
        "firmware": str,
    }

    def __init__(self) -> None:
        self.paper, self.cover, self.error = "full", "closed", "ok"
        self.drawer, self.feed_button = "low", "released"
        self.power, self.answers_with_cover_open = "on", "yes"
        self.maker, self.model, self.serial, self.firmware = "EXAMPLE", "TM-SIM", "SIM0001", "1.00"
        self._enabled = 0
        self._pushed: dict[int, tuple[int, ...]] = {}
        self._buffer = b""

    def receive(self, data: bytes) -> bytes:
        """The answers to the commands that these bytes complete."""
        if self.power == "off":
            return b""
        self._buffer += data
        answers = b""
        while self._buffer and (size := _size(self._buffer)):
            command, self._buffer = self._buffer[:size], self._buffer[size:]
            answers += self._obey(command)
        return answers

    def tick(self, now: float) -> bytes:
        """What automatic status back pushes: four bytes when an enabled class has changed."""
        if self.power == "off":
            self._enabled, self._buffer = 0, b""
            return b""
        classes = self._classes()
        if classes == self._pushed:
            return b""
        changed = sum(bit for bit, value in classes.items() if self._pushed.get(bit) != value)
        self._pushed = classes
        return self._status_back() if changed & self._enabled else b""

    def _obey(self, command: bytes) -> bytes:
        match list(command[:2]):
            case [0x10, 0x04] if self.cover == "closed" or self.answers_with_cover_open == "yes":
                return self._real_time(command[2])
            case [0x10, 0x05] if self.error == "cutter" and command[2] in (1, 2):
                self.error = "ok"
            case [0x1D, 0x72]:
                return self._queued(command[2])
            case [0x1D, 0x61]:
                self._enabled, self._pushed = command[2], self._classes()
                return self._status_back() if self._enabled else b""
            case [0x1D, 0x49]:
                return self._identity(command[2])
        return b""

    def _real_time(self, number: int) -> bytes:
        low, out = self.paper in ("low", "out"), self.paper == "out"
        match number:
            case 1:
                return _bits(0x12, (0x04, self.drawer == "high"), (0x08, self._offline), (0x40, self._feeding))
            case 2:
                flags = (0x04, self.cover == "open"), (0x08, self._feeding), (0x20, out), (0x40, self.error != "ok")
                return _bits(0x12, *flags)
            case 3:
                return _bits(0x12, *self._error_bits)
            case 4:
                return _bits(0x12, (0x0C, low), (0x60, out))
        return b""

    def _queued(self, number: int) -> bytes:
        match number:
            case 0x01 | 0x31:
                return _bits(0, (0x03, self.paper in ("low", "out")), (0x0C, self.paper == "out"))
            case 0x02 | 0x32:
                return _bits(0, (0x01, self.drawer == "high"))
        return b""

    def _identity(self, number: int) -> bytes:
        if number in IDENTITY_NUMBERS:
            return bytes((IDENTITY_NUMBERS[number],))
        texts = {0x41: self.firmware, 0x42: self.maker, 0x43: self.model, 0x44: self.serial}
        return b"\x5f" + texts[number].encode("ascii", "replace") + b"\x00" if number in texts else b""

    def _status_back(self) -> bytes:
        first = _bits(
            0x10,
            (0x04, self.drawer == "high"),
            (0x08, self._offline),
            (0x20, self.cover == "open"),
            (0x40, self._feeding),
        )
        second = _bits(0, (0x02, self._feeding), *self._error_bits)
        third = self._queued(0x01)
        return first + second + third + b"\x00"

    def _classes(self) -> dict[int, tuple[int, ...]]:
        """The present value of each class that GS a can enable."""
        first, second, third, _ = self._status_back()
        return {
            DRAWER: (first & 0x04,),
            ONLINE: (first & 0x68,),
            ERROR: (second & 0x6C,),
            PAPER: (third,),
            PANEL: (second & 0x02,),
        }

    @property
    def _offline(self) -> bool:
        return self.paper == "out" or self.cover == "open" or self.error != "ok"

    @property
    def _feeding(self) -> bool:
        return self.feed_button == "pressed"

    @property
    def _error_bits(self) -> tuple[tuple[int, bool], ...]:
        return (
            (0x04, self.error == "mechanical"),
            (0x08, self.error == "cutter"),
            (0x20, self.error == "unrecoverable"),
            (0x40, self.error == "head_hot"),
        )


def _bits(fixed: int, *flags: tuple[int, bool]) -> bytes:
    """One byte: the fixed bits and those of the flags that are set."""
    return bytes((fixed | sum(bit for bit, on in flags if on),))
