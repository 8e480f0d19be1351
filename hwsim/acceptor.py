"""This file knows a simulated note acceptor that speaks ITL SSP, without encryption (9600 8N2).

Written from the vendor's "SSP Protocol Manual" GA138, NV9USB edition: transport layer, command and event tables.

    7F  flag+address  LEN  data  CRC low, high     CRC-16 8005, seed FFFF, before the doubling of 7F
    command: code, parameters; reply: F0 (done) or F2..FA (why not), data

A frame with a wrong checksum or another address is met by silence. A command with the same flag as the last one is
not executed: the last reply is sent again. SYNC is always executed, and the next command has flag 0. A poll's reply
lists what is true now (a note is scanned, a jam, an open path) and, once each, what has happened.

A note: EF 00 while it is scanned, EF n while it waits for the next poll, which accepts it (ten seconds, then it is
given back), CC while it is stacked, then EE n and EB; or ED while it is given back, then EC.
"""

from collections.abc import Mapping
from string import hexdigits
from typing import ClassVar

from agent.drivers.framing import BAD, MORE, Deframer
from hwsim.contract import Allowed

STX, SYNC = 0x7F, 0x11
OK, UNKNOWN, PARAMETERS, NOT_NOW, FAIL = b"\xf0", b"\xf2", b"\xf3", b"\xf5", b"\xf8"
PATIENCE, RESTART = 10.0, 4.0
SHORT, UNRECOGNISED, INHIBITED, BY_HOST, TIMED_OUT, CANNOT_STACK = 0x1A, 0x02, 0x06, 0x08, 0x13, 0x1D
PARAMETER_COUNT = {0x02: (1, 2, 8), 0x06: (1,)}
REPEATABLE = {0xEE, 0xE6, 0xEA, 0xE8}
REPEATS = 3
"""How many polls a repeated EE or E6 lasts."""


def _crc(data: bytes) -> bytes:
    crc = 0xFFFF
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1) ^ 0x8005 if crc & 0x8000 else crc << 1
            crc &= 0xFFFF
    return bytes((crc & 0xFF, crc >> 8))


def _plain(buffer: bytes) -> tuple[bytes, int]:
    """What follows STX with doubled bytes made single, and how many bytes of the buffer that took; a lone 7F, which
    begins another frame, ends it."""
    out, at = bytearray(), 1
    while at < len(buffer):
        if buffer[at] == STX:
            if buffer[at + 1 : at + 2] != b"\x7f":
                break
            at += 1
        out.append(buffer[at])
        at += 1
        if len(out) > 1 and len(out) == out[1] + 4:
            break
    return bytes(out), at


def _measure(buffer: bytes) -> int:
    """A whole frame, good or not: its checksum is judged later."""
    if not buffer:
        return MORE
    if buffer[0] != STX:
        return BAD
    content, used = _plain(buffer)
    if len(content) > 1 and len(content) == content[1] + 4:
        return used
    return BAD if used + 1 < len(buffer) else MORE


class Acceptor:
    """A note acceptor with up to 16 channels over one cashbox.

    insert   puts a note of that channel in; one that no channel knows comes back
    cheat    pulls a note of that channel
    reject   puts something in that comes back with this last-reject code, two hex digits
    event    an event of the maker's, in hex, that the next poll reports once
    repeat   which of EE, E6, EA and E8 this unit goes on reporting, in hex: EEE6
    says_b5  whether it reports that it was enabled with all channels inhibited
    seconds  how long scanning and stacking take, each
    """

    BAUD: ClassVar[int] = 9600
    SETTINGS: ClassVar[Mapping[str, Allowed]] = {
        "insert": int,
        "cheat": int,
        "reject": str,
        "event": str,
        "repeat": str,
        "jam": ("none", "safe", "unsafe"),
        "path": ("closed", "open"),
        "stacker": ("ok", "full"),
        "cashbox": ("in", "out"),
        "power": ("on", "off"),
        "enabled": ("no", "yes"),
        "says_b5": ("yes", "no"),
        "address": int,
        "protocol": int,
        "unit": int,
        "serial": int,
        "firmware": str,
        "dataset": str,
        "country": str,
        "values": str,
        "real_multiplier": int,
        "last_reject": int,
        "stacked": int,
        "stored": int,
        "dispensed": int,
        "moved": int,
        "rejected": int,
        "seconds": float,
    }

    def __init__(self) -> None:
        self.insert = self.cheat = 0
        self._reject = self._event = self._repeat = ""
        self.jam, self.path, self.stacker, self.cashbox, self.power = "none", "closed", "ok", "in", "on"
        self.enabled, self.says_b5, self.address, self.protocol, self.unit = "no", "yes", 0, 8, 0
        self.serial, self.firmware, self.dataset = 1873452, "NV02004141498000", "EUR01610"
        self.country, self.values, self.real_multiplier = "EUR", "5 10 20 50", 100
        self.last_reject = 0
        self.stacked = self.stored = self.dispensed = self.moved = self.rejected = 0
        self.seconds = 0.3
        self.version, self.inhibits = 6, 0
        self._deframer = Deframer(_measure, 520, gap=0.5)
        self._now = 0.0
        self._before = ("none", "ok", "in", "on")
        self._happened = [b"\xf1", b"\xe8"]
        self._again: dict[bytes, int] = {}
        self._stage, self._channel, self._until, self._shown = "", 0, 0.0, False
        self._deaf_until = 0.0
        self._flag, self._reply = -1, b""

    @property
    def reject(self) -> str:
        """The last-reject code, two hex digits, of what is put in next; empty: nothing."""
        return self._reject

    @reject.setter
    def reject(self, text: str) -> None:
        self._reject = _hex(text, "reject", 1)

    @property
    def event(self) -> str:
        """What the next poll also reports, in hex."""
        return self._event

    @event.setter
    def event(self, text: str) -> None:
        self._event = _hex(text, "event", 100)

    @property
    def repeat(self) -> str:
        """The codes that are reported more than once, in hex."""
        return self._repeat

    @repeat.setter
    def repeat(self, text: str) -> None:
        self._repeat = _hex(text, "repeat", len(REPEATABLE))

    def receive(self, data: bytes) -> bytes:
        """The replies to every command that these bytes complete."""
        return b"".join(self._take(frame) for frame in self._deframer.feed(data, self._now))

    def tick(self, now: float) -> bytes:
        """An acceptor never speaks unasked; notes move, and what was set takes effect."""
        self._now = now
        self._deframer.expire(now)
        self._notice()
        self._move()
        return b""

    def _take(self, frame: bytes) -> bytes:
        content, _ = _plain(frame)
        data = content[2:-2]
        deaf = self.power == "off" or self._now < self._deaf_until
        if deaf or not data or _crc(content[:-2]) != content[-2:] or content[0] & 0x7F != self.address & 0x7F:
            return b""
        flag = content[0] >> 7
        if flag == self._flag and data[0] != SYNC:
            return self._reply
        self._flag = 1 if data[0] == SYNC else flag
        answer = self._obey(data[0], data[1:])
        head = bytes((content[0], len(answer))) + answer
        self._reply = b"\x7f" + (head + _crc(head)).replace(b"\x7f", b"\x7f\x7f")
        return self._reply

    def _obey(self, command: int, data: bytes) -> bytes:
        if len(data) not in PARAMETER_COUNT.get(command, (len(data),)):
            return PARAMETERS
        match command:
            case 0x01:
                self._restart(RESTART)
            case 0x02:
                self.inhibits = int.from_bytes(data, "little")
            case 0x05:
                return OK + self._setup()
            case 0x06:
                if data[0] > self.protocol:
                    return FAIL
                self.version = data[0]
            case 0x07:
                return OK + self._poll()
            case 0x08 | 0x18:
                if self._stage != "escrow":
                    return NOT_NOW
                if command == 0x08:
                    self._give_back(BY_HOST)
                self._until = self._now + (self.seconds if command == 0x08 else PATIENCE)
            case 0x09:
                self._disable()
            case 0x0A:
                if self.jam != "none" or self.path == "open":
                    return NOT_NOW
                self.enabled = "yes"
                self._happened += [] if self.inhibits or self.says_b5 == "no" else [b"\xb5"]
            case 0x0C:
                return OK + (self.serial & 0xFFFFFFFF).to_bytes(4, "big")
            case 0x17:
                return OK + bytes((self.last_reject & 0xFF,))
            case 0x20 | 0x21:
                return OK + (self.firmware if command == 0x20 else self.dataset).encode("ascii", "replace")[:100]
            case 0x58:
                counters = (self.stacked, self.stored, self.dispensed, self.moved, self.rejected)
                return OK + b"\x05" + b"".join((n & 0xFFFFFFFF).to_bytes(4, "little") for n in counters)
            case 0x11 | 0x03 | 0x04:
                pass  # SYNC; the bezel's light
            case _:
                return UNKNOWN
        return OK

    def _channels(self) -> list[int]:
        return [int(text) & 0xFF for text in self.values.split() if text.isdecimal()][:16]

    def _setup(self) -> bytes:
        values = self._channels()
        count, country = len(values), self.country.encode("ascii", "replace")[:3].ljust(3)
        out = bytes((self.unit & 0xFF,)) + b"0100" + country + b"\x00\x00\x01" + bytes((count, *values))
        out += b"\x02" * count + (self.real_multiplier & 0xFFFFFF).to_bytes(3, "big") + bytes((self.version,))
        if self.version >= 6:
            out += country * count + b"".join(value.to_bytes(4, "little") for value in values)
        return out

    # what happens

    def _notice(self) -> None:
        """What a person has changed since the last tick."""
        jam, stacker, cashbox, power = self._before
        if self.power == "on" and power == "off":
            self._restart(0.0)
        if self.cashbox != cashbox:
            self._happened.append(b"\xe3" if self.cashbox == "out" else b"\xe4")
            self.stacker = "ok"
        elif self.stacker == "full" and stacker == "ok":
            self._happened.append(b"\xe7")
        if self.jam == "safe" and jam != "safe":
            self._happened.append(b"\xea")
        if self.cheat:
            self._happened.append(bytes((0xE6, self.cheat & 0xFF)))
        if self.event:
            self._happened.append(bytes.fromhex(self.event))
        self._before = (self.jam, self.stacker, self.cashbox, self.power)
        self.cheat, self._event = 0, ""
        wanted, self.insert = self.insert, 0
        code, self._reject = self._reject, ""
        if (wanted or code) and self.enabled == "yes" and self.power == "on" and not self._stage:
            self._stage, self._channel, self._until = "scanning", wanted, self._now + self.seconds
            if code:
                self._give_back(int(code, 16))

    def _move(self) -> None:
        """The note in the unit goes on when its time is over."""
        while self._stage and self._now >= self._until:
            if self._stage == "scanning":
                self._scanned()
            elif self._stage == "escrow":
                self._give_back(TIMED_OUT)
            elif self._stage == "stacking":
                self.stacked += 1
                self._happened += [bytes((0xEE, self._channel)), b"\xeb"]
                self._stage = ""
            else:
                self.rejected += 1
                self._happened.append(b"\xec")
                self._stage = ""

    def _scanned(self) -> None:
        if not 1 <= self._channel <= len(self._channels()):
            self._give_back(UNRECOGNISED)
        elif not self.inhibits >> (self._channel - 1) & 1:
            self._give_back(INHIBITED)
        elif self.stacker == "full" or self.cashbox == "out":
            self._give_back(CANNOT_STACK)
        else:
            self._stage, self._until, self._shown = "escrow", self._now + PATIENCE, False

    def _give_back(self, code: int) -> None:
        self.last_reject = code
        self._stage, self._until = "rejecting", self._now + self.seconds

    def _disable(self) -> None:
        if self.enabled == "yes":
            self._happened.append(b"\xe8")
        self.enabled = "no"

    def _restart(self, seconds: float) -> None:
        """Power-up: disabled, all channels inhibited, and no memory of the flag."""
        self.enabled, self.inhibits, self.version, self._stage = "no", 0, 6, ""
        self._happened, self._again, self._flag = [b"\xf1", b"\xe8"], {}, -1
        self._happened += [b"\xe7"] if self.stacker == "full" else []
        self._deaf_until = self._now + seconds

    def _poll(self) -> bytes:
        """Everything that happened since the last poll, each once, and all that lasts."""
        if self._stage == "escrow" and self._shown:
            self._stage, self._until = "stacking", self._now + self.seconds
        self._move()
        self._shown = self._stage == "escrow"
        repeat = bytes.fromhex(self._repeat)
        out = b"".join(self._happened)
        for event, left in list(self._again.items()):
            out += event
            self._again[event] = left - 1
        self._again |= {e: REPEATS - 1 for e in self._happened if e[0] in repeat and e[0] in (0xEE, 0xE6)}
        self._again = {event: left for event, left in self._again.items() if left > 0}
        lasting = (
            (self.jam == "unsafe", b"\xe9"),
            (self.jam == "safe" and 0xEA in repeat, b"\xea"),
            (self.path == "open", b"\xe0"),
            (self.enabled == "no" and 0xE8 in repeat, b"\xe8"),
            (self._stage == "scanning", b"\xef\x00"),
            (self._stage == "escrow", bytes((0xEF, self._channel & 0xFF))),
            (self._stage == "stacking", b"\xcc"),
            (self._stage == "rejecting", b"\xed"),
        )
        out += b"".join(event for true, event in lasting if true and event not in self._happened)
        self._happened = []
        return out[:200]


def _hex(text: str, name: str, most: int) -> str:
    """Whole bytes in hex, at most so many, or ValueError."""
    digits = text.replace(" ", "")
    if len(digits) % 2 or len(digits) > 2 * most or not set(digits) <= set(hexdigits):
        raise ValueError(f"{name} cannot be {text!r}; it can be up to {most} bytes in hex, or empty")
    return digits
