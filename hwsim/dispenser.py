"""This file knows a simulated cash dispenser: Puloon LCDM-4000 (9600 8N1).

Written from the framing and timing of the vendor's "LCDM-1000T Interface Specification V3.3" and the command
table of the LCDM-4000 as its public client libraries agree on it.

    host     04 30 02 CMD data 03 BCC        BCC: XOR of all before it; counts travel as value + 20h
    device   06 (ACK) or 15 (NAK), then 01 30 02 CMD data 03 BCC; after the host's ACK the device sends 04 (EOT)

The host's command is as long as its code says. A bad one is answered by NAK; NAK by the host repeats the
response, three times at the most. RESET (44) is answered by nothing at all.
"""

from collections.abc import Mapping
from string import hexdigits
from typing import ClassVar

from agent.drivers.framing import BAD, MORE, Deframer, xor_of
from hwsim.contract import Allowed

ACK, NAK, EOT = 0x06, 0x15, 0x04
UNIT = 0x30
RESET, STATUS, PURGE, DISPENSE, TEST, LAST = 0x44, 0x50, 0x51, 0x52, 0x53, 0x55
DATA_LENGTH = {RESET: 0, STATUS: 0, PURGE: 0, DISPENSE: 15, TEST: 15, LAST: 0}
GOOD, PICK_UP, NO_CASSETTE, NO_TRAY, BAD_COMMAND = 0x00, 0x01, 0x24, 0x26, 0x30
OPACITY, LENGTH = 0x60, 0x64
PRESENT, NEAR_END = 0x04, 0x08
EXIT_BLOCKED = 0x08
REPEATS = 3
MOST_NOTES, MOST_REJECTS = 100, 10
POSITIONS = range(1, 5)


def _measure(buffer: bytes) -> int:
    """A single ACK or NAK, or a whole command."""
    if not buffer:
        return MORE
    if buffer[0] in (ACK, NAK):
        return 1
    if buffer[0] != EOT:
        return BAD
    if buffer[1:3] != bytes((UNIT, 0x02))[: len(buffer) - 1]:
        return BAD
    if len(buffer) < 4:
        return MORE
    size = 6 + DATA_LENGTH.get(buffer[3], 0)
    if len(buffer) < size:
        return MORE
    return size if buffer[size - 2] == 0x03 else BAD


class Dispenser:
    """Four cassettes over one reject tray. `notes1` is what lies in the topmost cassette."""

    BAUD: ClassVar[int] = 9600
    SETTINGS: ClassVar[Mapping[str, Allowed]] = {
        **{f"notes{n}": int for n in POSITIONS},
        **{f"cassette{n}": ("in", "out") for n in POSITIONS},
        "near_end": int,
        "rejects": int,
        "tray": ("in", "out"),
        "path": ("clear", "blocked"),
        "next_error": str,
        "seconds_per_note": float,
    }

    def __init__(self) -> None:
        self.notes1 = self.notes2 = self.notes3 = self.notes4 = 1000
        self.cassette1 = self.cassette2 = self.cassette3 = self.cassette4 = "in"
        self.near_end, self.rejects, self.tray, self.path = 50, 0, "in", "clear"
        self._next_error, self.seconds_per_note = "", 0.0
        self.delivered = dict.fromkeys(POSITIONS, 0)
        self.rejected = dict.fromkeys(POSITIONS, 0)
        self._deframer = Deframer(_measure, 64, gap=0.2)
        self._now = 0.0
        self._error = GOOD
        self._last = bytes((STATUS, 0x20, 0x30)) + self._counts({}, {})
        self._response = b""
        self._repeats = 0
        self._later: tuple[float, bytes] | None = None

    @property
    def next_error(self) -> str:
        """The raw code, two hex digits, that the next movement ends with; empty: none."""
        return self._next_error

    @next_error.setter
    def next_error(self, text: str) -> None:
        # A code that does not fit its byte on the wire would stop the server at the next command.
        if text and not (len(text) == 2 and set(text) <= set(hexdigits) and 0 < int(text, 16) <= 0xDF):
            raise ValueError(f"next_error cannot be {text!r}; it can be 01 to DF, or empty")
        self._next_error = text

    def receive(self, data: bytes) -> bytes:
        """What the dispenser answers at once."""
        return b"".join(self._take(frame) for frame in self._deframer.feed(data, self._now))

    def tick(self, now: float) -> bytes:
        """The response of a movement that has ended."""
        self._now = now
        said = b"".join(self._take(frame) for frame in self._deframer.expire(now))
        if self._later and now >= self._later[0]:
            _, self._response = self._later
            self._later = None
            return said + self._response
        return said

    def _take(self, frame: bytes) -> bytes:
        if frame[0] == ACK:
            waiting, self._response = self._response, b""
            return bytes((EOT,)) if waiting else b""
        if frame[0] == NAK:
            self._repeats += 1
            return self._response if self._repeats <= REPEATS else b""
        if xor_of(frame):
            return bytes((NAK,))
        self._repeats = 0
        return self._obey(frame[3], frame[4:-2])

    def _obey(self, command: int, data: bytes) -> bytes:
        if command == RESET:
            self._error, self._response, self._later = GOOD, b"", None
            return b""
        notes = 0
        match command:
            case 0x50:
                content = bytes((0x20 + self._state(), self._sensors())) + self._cassettes()
            case 0x51:
                self._error = self._forced() or (NO_TRAY if self.tray == "out" else GOOD)
                self.path = "clear" if self._error == GOOD else self.path
                content = self._moved(command, {}, {})
            case 0x52 | 0x53:
                wanted = {n: max(0, min(data[n - 1] - 0x20, MOST_NOTES)) for n in POSITIONS}
                given, rejected = self._pick(wanted, testing=command == TEST)
                notes = sum(given.values()) + sum(rejected.values())
                content = self._moved(command, given, rejected) + b" " * 9
            case 0x55:
                content = self._last
            case _:
                content = bytes((0x20 + BAD_COMMAND,))
        head = bytes((0x01, UNIT, 0x02, command)) + content + b"\x03"
        response = head + bytes((xor_of(head),))
        if notes and self.seconds_per_note:
            self._response, self._later = b"", (self._now + notes * self.seconds_per_note, response)
            return bytes((ACK,))
        self._response = response
        return bytes((ACK,)) + response

    def _pick(self, wanted: Mapping[int, int], *, testing: bool) -> tuple[dict[int, int], dict[int, int]]:
        """Move notes; returns (delivered, rejected) by position and leaves the error."""
        given, rejected = dict[int, int](), dict[int, int]()
        self._error = self._forced() or self._blocked() or self._absent(wanted) or GOOD
        if self._error != GOOD:
            return given, rejected
        for position, count in wanted.items():
            have = max(0, getattr(self, f"notes{position}"))
            spoilt = min(max(0, self.rejects), MOST_REJECTS, max(0, have - count)) if count else 0
            moved = min(count, have)
            setattr(self, f"notes{position}", have - moved - spoilt)
            given[position], rejected[position] = (0, moved + spoilt) if testing else (moved, spoilt)
            self.delivered[position] += given[position]
            self.rejected[position] += rejected[position]
            if moved < count:
                self._error = PICK_UP
                break
        return given, rejected

    def _moved(self, command: int, given: Mapping[int, int], rejected: Mapping[int, int]) -> bytes:
        result = bytes((0x20 + self._error, 0x30)) + self._counts(given, rejected)
        self._last = bytes((command,)) + result
        return result

    def _counts(self, given: Mapping[int, int], rejected: Mapping[int, int]) -> bytes:
        return b"".join(
            bytes((0x20 + given.get(n, 0), 0x20 + rejected.get(n, 0), self._type(n))) for n in POSITIONS
        )

    def _cassettes(self) -> bytes:
        return b"".join(bytes((self._stat(n), self._type(n), OPACITY, LENGTH)) for n in POSITIONS)

    def _type(self, position: int) -> int:
        return 0x30 + position if self._in(position) else 0x30

    def _stat(self, position: int) -> int:
        if not self._in(position):
            return 0
        return PRESENT | (NEAR_END if getattr(self, f"notes{position}") < self.near_end else 0)

    def _in(self, position: int) -> bool:
        return bool(getattr(self, f"cassette{position}") == "in")

    def _sensors(self) -> int:
        return EXIT_BLOCKED if self.path == "blocked" else 0

    def _state(self) -> int:
        """The error that STATUS reports: a tray that is out now, else that of the last movement."""
        if self.tray == "out":
            return NO_TRAY
        return GOOD if self._error == NO_TRAY else self._error

    def _forced(self) -> int:
        code, self._next_error = self._next_error, ""
        return int(code, 16) if code else GOOD

    def _blocked(self) -> int:
        if self.tray == "out":
            return NO_TRAY
        return 0x0B if self.path == "blocked" else GOOD

    def _absent(self, wanted: Mapping[int, int]) -> int:
        return NO_CASSETTE if any(count and not self._in(n) for n, count in wanted.items()) else GOOD
