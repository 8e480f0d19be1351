"""This file knows what an ITL note acceptor says: SSP frames, codes and events, and what they mean together.

Sources: the vendor's "SSP Protocol Manual" GA138 (NV9USB edition): transport layer, command and event tables; the
client library kybarg/ssp, which follows GA138 2.0.3, for the lengths of what payout units add.

    7F  flag+address  LEN  data  CRC low, high      CRC-16 8005, seed FFFF, from the flag to the data
    a 7F after the first is doubled; a lone 7F begins a new frame

Bit 7 of the second byte is the flag: it toggles with every new command, a reply carries its command's, and a
command said again with the same flag is not executed again: its reply is repeated.

E7 (stacker full) is said once only, so it is latched until the cashbox comes back (E4), a note is stacked, or the
unit restarts (F1). Before any of these is heard, nobody knows whether the cashbox is full, and nothing is said.
E9 (unsafe jam) and E0 (path open) are said as long as they last. Whether EA (safe jam) is, the manual does not say:
it lasts until a poll without it, where it was said twice; else until a note moves or the unit restarts.
"""

from agent.drivers.framing import BAD, MORE
from agent.model import Reading

STX, ENCRYPTED, OK = 0x7F, 0x7E, 0xF0
LIMIT, MOST_DATA, GREATEST_ADDRESS = 256, 200, 0x7D
RESET, INHIBITS, SETUP, VERSION, POLL, REJECT, DISABLE, ENABLE = 0x01, 0x02, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0A
SERIAL, SYNC, LAST_REJECT, FIRMWARE, COUNTERS = 0x0C, 0x11, 0x17, 0x20, 0x58
# Only what stands here is shown in a transcript: other commands carry keys and the codes of tickets.
COMMANDS = {
    RESET: "reset",
    INHIBITS: "set inhibits",
    SETUP: "setup?",
    VERSION: "host protocol version",
    POLL: "poll",
    REJECT: "reject the note",
    DISABLE: "disable",
    ENABLE: "enable",
    SERIAL: "serial number?",
    SYNC: "sync",
    LAST_REJECT: "last reject?",
    0x18: "hold the note",
    FIRMWARE: "firmware?",
    0x21: "dataset?",
    COUNTERS: "counters?",
}
STATUS = {
    OK: "ok",
    0xF2: "unknown command",
    0xF3: "wrong number of parameters",
    0xF4: "parameter out of range",
    0xF5: "cannot be done now",
    0xF6: "software error",
    0xF8: "failed",
    0xFA: "key not set: it speaks only encrypted",
}

F1, CREDIT, REJECTED, UNSAFE, SAFE, FULL, FRAUD = 0xF1, 0xEE, 0xEC, 0xE9, 0xEA, 0xE7, 0xE6
READ, DISABLED, REMOVED, REPLACED, OPEN, INHIBITED = 0xEF, 0xE8, 0xE3, 0xE4, 0xE0, 0xB5
# By what follows the code. "fraud" and the rest: a channel, or in a payout unit values; a count, and for each value
# 4 bytes and a currency of 3. "from 6": a value from that version of the protocol on, nothing before.
_EVENTS = {
    "": """F1 slave reset, ED rejecting, EC rejected, CC stacking, EB stacked, EA safe jam, E9 unsafe jam,
        E8 disabled, E7 stacker full, E5 ticket read, E4 cashbox back, E3 cashbox removed, E0 path open,
        D1 ticket taken, B5 all channels inhibited, B6 initialising, DB stored, B0 jam recovery, C2 emptying,
        C3 emptied, C6 payout out of service, C7 float removed, C8 float attached, CF device full""",
    "channel": "EF read, EE credit, E2 cleared to cashbox, E1 cleared at front",
    "fraud": "E6 fraud attempt",
    "values": """DA dispensing, D2 dispensed, D5 payout jammed, D6 halted, D7 floating, D8 floated, D9 timed out,
        DE cashbox paid, DF coin credit, B3 smart emptying, B4 smart emptied""",
    "pairs": "DC incomplete payout, DD incomplete float",
    "error": "B1 payout error",
    "from 6": "C9 moved to stacker, CD dispensed at power-up",
    "from 8": "CA stacked at power-up, CB stored at power-up, CE held in bezel",
}
EVENTS = {
    int(event[:2], 16): (shape, event[3:])
    for shape, events in _EVENTS.items()
    for event in " ".join(events.split()).split(", ")
}
STACKED = (0xEB, 0xE2)
MOVES = (F1, READ, CREDIT, REJECTED, 0xCC, 0xDB, 0xE1, *STACKED)
UNITS = {0x00: "note validator", 0x03: "SMART Hopper", 0x06: "SMART Payout", 0x07: "NV11"}
HOPPER, PAYOUT = 0x03, 0x06

_REJECTS = """accepted length validation validation validation validation channel_inhibited second_note host
    cross_channel rear_sensor too_long disabled_by_host slow_mechanism strimming . no_note validation validation
    escrow_timeout barcode no_cam slot slot oversample width short payout_note double unable_to_stack
    . credit_card"""
REJECTS = {code: word for code, word in enumerate(_REJECTS.split()) if word != "."}
COUNTER_NAMES = ("stacked", "stored", "dispensed", "moved", "rejected")


def crc(data: bytes) -> bytes:
    """CRC-16, polynomial 8005, seed FFFF, most significant bit first; sent low byte first."""
    value = 0xFFFF
    for byte in data:
        value ^= byte << 8
        for _ in range(8):
            value = (value << 1 ^ (0x8005 if value & 0x8000 else 0)) & 0xFFFF
    return value.to_bytes(2, "little")


def seal(address: int, flag: bool, data: bytes) -> bytes:
    """The frame of a command."""
    content = bytes((flag << 7 | address, len(data))) + data
    return b"\x7f" + (content + crc(content)).replace(b"\x7f", b"\x7f\x7f")


def unseal(frame: bytes) -> tuple[int, bool, bytes]:
    """Address, flag and data of a whole frame."""
    content = frame[1:].replace(b"\x7f\x7f", b"\x7f")
    return content[0] & 0x7F, bool(content[0] & 0x80), content[2:-2]


def measure(data: bytes) -> int:
    """See framing.Measure."""
    if data[0] != STX:
        return BAD
    content, at = bytearray(), 1
    while at < len(data):
        if data[at] == STX:
            if len(data) == at + 1:
                return MORE
            if data[at + 1] != STX:
                return BAD
            at += 1
        content.append(data[at])
        at += 1
        if len(content) == 1 and content[0] & 0x7F > GREATEST_ADDRESS:
            return BAD
        if len(content) == 2 and not 0 < content[1] <= MOST_DATA:
            return BAD
        if len(content) > 4 and len(content) == content[1] + 4:
            return at if crc(bytes(content[:-2])) == content[-2:] else BAD
    return MORE


def meaning(command: bytes, reply: bytes = b"") -> str:
    """What a command is, or the reply to it, for the transcript."""
    if not reply:
        return COMMANDS.get(command[0], f"command {command[0]:02X}")
    if reply[0] != OK or command[0] != POLL:
        return STATUS.get(reply[0], f"status {reply[0]:02X}")
    events, _ = split(reply[1:], None, None)
    return ", ".join(f"{_name(code)} {channel or ''}".strip() for code, channel in events) or "nothing new"


def split(data: bytes, version: int | None, unit: int | None) -> tuple[list[tuple[int, int]], bool]:
    """The events of a poll's reply, as code and channel (or 0), and whether all of it was understood.

    An unknown code ends the list, and so does one whose length depends on a `version` (of the protocol) or `unit`
    (type) that is not known: what stands behind it cannot be told from its data.
    """
    events: list[tuple[int, int]] = []
    at = 0
    while at < len(data):
        code = data[at]
        size = _size(code, data[at + 1 : at + 2], version, unit)
        if size is not None and at + 1 + size > len(data):
            return events, False
        events.append((code, data[at + 1] if size == 1 and EVENTS[code][0] in ("channel", "fraud") else 0))
        if size is None:
            return events, False
        at += 1 + size
    return events, True


def _size(code: int, first: bytes, version: int | None, unit: int | None) -> int | None:
    """Bytes behind an event's code, `first` being the first of them; None when that cannot be told."""
    shape = EVENTS[code][0] if code in EVENTS else "unknown"
    valued = shape in ("values", "fraud")
    if shape in ("", "channel"):
        return int(shape == "channel")
    if shape == "fraud" and unit not in (None, HOPPER, PAYOUT):
        return 1
    if shape == "unknown" or version is None or (shape == "fraud" and unit is None):
        return None
    if shape in ("from 6", "from 8"):
        return 7 if version >= int(shape[-1]) else 0
    if version < (7 if shape == "error" else 6):
        return 4 if valued else 8 if shape == "pairs" else 1
    count = int.from_bytes(first, "big")
    return 1 + count * (11 if shape == "pairs" else 7) + (shape == "error")


def _name(code: int) -> str:
    return EVENTS[code][1] if code in EVENTS else f"event {code:02X}"


class Picture:
    """What the replies say together.

    codes    the events of the last poll
    enabled  whether the unit takes notes: "yes", "no", or empty while nobody has said so
    """

    FRAUD_SHOWN = 60.0

    def __init__(self) -> None:
        self.codes: tuple[int, ...] = ()
        self.enabled = ""
        self._version: int | None = None
        self._unit: int | None = None
        self._channels: set[int] = set()
        self._jam, self._jam_lasts, self._open = "none", False, False
        self._cashbox, self._cashbox_raw, self._enabled_raw = "", "", ""
        self._reject: int | None = None
        self._fraud_until = float("-inf")

    def reply(self, command: bytes, reply: bytes, now: float) -> list[Reading]:
        """Readings of the reply to a command."""
        code, status, data = command[0], reply[0], reply[1:]
        if status != OK:
            raw = f"{status:02X} {STATUS.get(status, '')}".strip()
            return [Reading("acceptor.state", f"vendor.{status:02X}", now, raw)] if code == POLL else []
        if code == POLL:
            return self._poll(data, now)
        if code == SETUP and len(data) >= 12:
            return self._setup(data, now)
        if code == VERSION and len(command) > 1:
            self._version = command[1]
        elif code in (ENABLE, DISABLE):
            self.enabled = "yes" if code == ENABLE else "no"
            self._enabled_raw = f"{code:02X} accepted"
        elif code == LAST_REJECT and data:
            self._reject = data[0]
        elif code == SERIAL and len(data) == 4:
            return [Reading("device.serial", str(int.from_bytes(data, "big")), now, data.hex().upper())]
        elif code == FIRMWARE and data:
            return [Reading("device.firmware", _text(data), now)]
        elif code == COUNTERS and len(data) >= 21:
            values = [int.from_bytes(data[at : at + 4], "little") for at in range(1, 21, 4)]
            named = zip(COUNTER_NAMES, values, strict=True)
            return [Reading(f"acceptor.counter.{name}", value, now) for name, value in named]
        return []

    def again(self, now: float) -> list[Reading]:
        """What is known, after a reply that was counted already."""
        return self._said([], "", now)

    def _setup(self, data: bytes, now: float) -> list[Reading]:
        """Unit type, firmware 4, country 3, multiplier 3, n, n values, n security levels, real multiplier 3,
        version; from version 6 on n currencies of 3 and n values of 4 bytes. A hopper's is another."""
        self._unit, count = data[0], data[11]
        out = [Reading("device.model", UNITS.get(data[0], f"unit type {data[0]:02X}"), now, f"{data[0]:02X}")]
        if data[0] == HOPPER or len(data) < 16 + 2 * count:
            return out
        version, more = data[15 + 2 * count], data[16 + 2 * count :]
        self._version = self._version or version
        multiplier = int.from_bytes(data[8:11], "big")
        self._channels = set()
        for n in range(count):
            value, currency = data[12 + n] * multiplier, data[5:8]
            if version >= 6 and len(more) >= 7 * count:
                at = 3 * count + 4 * n
                value, currency = int.from_bytes(more[at : at + 4], "little"), more[3 * n : 3 * n + 3]
            if value:
                self._channels.add(n + 1)
                out.append(Reading(f"acceptor.channel.{n + 1}.note", f"{value} {_text(currency)}", now))
        return out

    def _poll(self, data: bytes, now: float) -> list[Reading]:
        before = self.codes
        events, whole = split(data, self._version, self._unit)
        self.codes = tuple(code for code, _ in events)
        for code in self.codes:
            self._see(code, before)
        if FULL in self.codes:  # also where the note that filled it is called stacked after it
            self._cashbox, self._cashbox_raw = "full", "E7 stacker full"
        if whole:
            self._open = OPEN in self.codes
            if (self._jam == "unsafe" and UNSAFE not in self.codes) or (self._jam_lasts and SAFE not in self.codes):
                self._jam, self._jam_lasts = "none", False
        if FRAUD in self.codes:
            self._fraud_until = now + self.FRAUD_SHOWN
        if FRAUD in before:  # said again while it lasts: the manual leaves open whether it is
            events = [event for event in events if event[0] != FRAUD]
        unknown = next((f"{code:02X}" for code in self.codes if code not in EVENTS), "")
        return self._said(events, unknown, now)

    def _see(self, code: int, before: tuple[int, ...]) -> None:
        if code in (UNSAFE, SAFE):
            self._jam, self._jam_lasts = ("unsafe", False) if code == UNSAFE else ("safe", SAFE in before)
        elif code in MOVES:
            self._jam, self._jam_lasts = "none", False
        if code in (F1, REPLACED, *STACKED):
            self._cashbox, self._cashbox_raw = "ok", f"{code:02X} {_name(code)}"
        elif code == REMOVED:
            self._cashbox, self._cashbox_raw = "missing", "E3 cashbox removed"
        if code in (F1, READ, DISABLED, INHIBITED):
            self.enabled = {F1: "", READ: "yes"}.get(code, "no")
            self._enabled_raw = f"{code:02X} {_name(code)}"
        if code == F1:
            self._version = None  # the host and the unit agree anew
        if code == REJECTED:
            self._reject = None  # the reason of the one before is not that of this one

    def _said(self, events: list[tuple[int, int]], unknown: str, now: float) -> list[Reading]:
        """The words, and the tallies with their zeros: what was not said did not happen, and we know it."""
        fraud = now < self._fraud_until
        out = [
            Reading("acceptor.jam", self._jam, now, _JAM_RAW[self._jam], inferred=self._jam == "none"),
            Reading("acceptor.path", "open" if self._open else "closed", now, "E0" if self._open else "no E0"),
            Reading("acceptor.fraud", "attempt" if fraud else "none", now, "E6" if fraud else "no E6"),
            self._state(unknown, fraud, now),
        ]
        if self._cashbox:
            inferred = self._cashbox == "ok" and not self._cashbox_raw.startswith("E4")
            out.append(Reading("cashbox.state", self._cashbox, now, self._cashbox_raw, inferred))
        if self.enabled:
            out.append(Reading("acceptor.enabled", self.enabled, now, self._enabled_raw))
        if self._reject is not None:
            word = REJECTS.get(self._reject, f"vendor.{self._reject:02X}")
            out.append(Reading("acceptor.last_reject", word, now, f"{self._reject:02X}"))
        credits = [channel for code, channel in events if code == CREDIT]
        for channel in sorted(self._channels | set(credits)):
            self._channels.add(channel)
            raw = f"EE {channel:02X}" if channel in credits else ""
            out.append(Reading(f"acceptor.channel.{channel}.accepted", credits.count(channel), now, raw))
        for point, code in (("acceptor.rejected", REJECTED), ("acceptor.frauds", FRAUD)):
            counted = sum(code == event for event, _ in events)
            out.append(Reading(point, counted, now, f"{code:02X}" if counted else ""))
        return out

    def _state(self, unknown: str, fraud: bool, now: float) -> Reading:
        """Whether notes can be taken in; that the host has disabled the unit is no fault of it."""
        if unknown:
            return Reading("acceptor.state", f"vendor.{unknown}", now, f"event {unknown}")
        jam = f"{self._jam} jam" if self._jam != "none" else ""
        cashbox = f"cashbox {self._cashbox}" if self._cashbox in ("full", "missing") else ""
        causes = [cause for cause in (jam, cashbox, "path open" if self._open else "") if cause]
        word = "stop" if causes else "attention" if fraud else "ok"
        return Reading("acceptor.state", word, now, ", ".join(causes) or ("fraud attempt" if fraud else ""))


_JAM_RAW = {"none": "neither E9 nor EA", "unsafe": "E9 unsafe jam", "safe": "EA safe jam"}


def _text(data: bytes) -> str:
    """ASCII as the unit says it; anything that cannot be printed becomes a question mark."""
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else "?" for byte in data).strip()
