"""This file knows the encrypting PIN pad SZZT ZT588, as far as a monitor may: who it is, is it blank, what ails it.

    02 LEN(3 decimal digits) TEXT 03 CK(2 hex digits)     CK: XOR of LEN, TEXT and 03; 9600 8N1
    ask    "3"
    reply  status(1) user(50) scan codes(48) settings(20) function(8) model(6) hardware(3) software(3) made(4)
           number(4); settings are 10 bytes in hex, of the first of which bit 0 says blank (no initial key, IMK)
           and bit 1 that the keypad takes input
    error  a text that begins with E0 to EF

Source: the kiosk program smartkiosk/smartware, lib/smartware/drivers: pin_pad/zt588.rb (commands, fields, errors)
and common/szzt_connection.rb (frames), which served real pads. No text of the maker is public, so all of it is
unproven, the two ways to write hex (digits above 9 as A to F, or as 3A to 3F, "broken hex") above all.

Key presses arrive as single bytes outside the frames. They are PIN digits or may be, so each is forgotten at once:
nothing is kept, counted or said of them. Only a frame that lost its end could keep keys that are pressed behind
it, and such a frame is thrown away after WHOLE_WITHIN seconds. The scan code table and the user's area of the
reply are never read, so that frame stands in no transcript.

The protocol has no question for key slots: presence and check value of a key are told only in reply to loading it,
and this driver loads nothing. So the one slot that shows is key.imk, from the blank bit. That the pad was opened
is inferred: it held its initial key and is blank now, within one life of this driver and with the same serial
number; a wipe by its owner looks the same. A pad that was blank from the beginning tells nothing about tampering.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import ClassVar

from agent.drivers.contract import Access, Line
from agent.drivers.dialogue import Dialogue, Question
from agent.drivers.framing import BAD, MORE, Deframer, xor_of
from agent.drivers.hearing import BadFrames
from agent.drivers.transcript import Transcript
from agent.model import Operation, Outcome, Reading

STX, ETX = 0x02, 0x03
LIMIT = 207
INFO = b"\x020013\x0301"
INFO_WAIT, BYTE_GAP, WHOLE_WITHIN = 1.5, 0.2, 1.5  # at 1200 baud a reply takes 1.3 s

# Scan codes are the host's choice: characters, the four function keys, and what masks a PIN digit.
KEYS = frozenset(range(0x20, 0x7F)) | {0x07, 0x08, 0x0D, 0x1B, 0x80, 0xFF}

INFO_SIZE = 147
SETTINGS, MODEL, HARDWARE = slice(99, 101), slice(127, 133), slice(133, 136)
SOFTWARE, MADE, NUMBER = slice(136, 139), slice(139, 143), slice(143, 147)
BLANK, INPUT = 0x01, 0x02

LOW_BATTERY = 0xE0
ERRORS = {
    LOW_BATTERY: "low_battery",
    0xE1: "imk_required",
    0xE2: "tmk_required",
    0xE3: "key_size",
    0xE4: "key_not_found",
    0xE5: "incompatible",
    0xE6: "parity",
    0xE7: "not_valid",
    0xE8: "length",
    0xE9: "data",
    0xEB: "parameter",
    0xEC: "authorisation",
    0xED: "locked",
    0xEE: "timeout",
    0xEF: "general",
}


@dataclass(frozen=True, slots=True)
class EppOptions:
    """poll: seconds between two questions for its information, more than 0 and at most 5."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    poll: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.poll <= 5:
            raise ValueError("poll must be more than 0 and at most 5 seconds")


class Epp:
    """A ZT588. At most 207 bytes are buffered. A pad that was set to another speed needs `baud` in the config; the
    maker's are 1200 to 115200."""

    line: ClassVar[Line] = Line(baud=9600)
    access: ClassVar[frozenset[Access]] = frozenset({"own"})
    why_not: ClassVar[Mapping[Access, str]] = {
        "listen": "key presses and PIN blocks travel on a PIN pad's line; nobody listens there"
    }
    operations: ClassVar[Mapping[str, str]] = {}
    moving: ClassVar[frozenset[str]] = frozenset()
    Options: ClassVar[type[EppOptions]] = EppOptions

    def __init__(self, options: EppOptions, access: Access = "own") -> None:
        self.transcript = Transcript()
        self._dialogue = Dialogue((Question("info", INFO, options.poll, INFO_WAIT),))
        self._deframer = Deframer(_measure, LIMIT, BYTE_GAP)
        self._unfinished_since = inf
        self._bad_frames = BadFrames()
        self._serial = ""
        self._held = False
        self._outgoing = b""

    def receive(self, data: bytes, now: float) -> list[Reading | Outcome]:
        """Readings of whole replies; key presses are forgotten. See the contract."""
        self._drop_what_never_ends(now)
        frames = self._deframer.feed(data, now)
        if not self._deframer.kept:
            self._unfinished_since = inf
        elif frames or self._unfinished_since == inf:
            self._unfinished_since = now
        return [*self._replies(frames, now), *self._dialogue.outcomes()]

    def tick(self, now: float) -> list[Reading | Outcome]:
        """Ask what is due, and judge silence."""
        self._drop_what_never_ends(now)
        out = self._replies(self._deframer.expire(now), now)
        if question := self._dialogue.next(now):
            self.transcript.sent("who are you, and how?", question)
            self._outgoing += question
        if self._dialogue.lapsed is not None:
            out += self._dialogue.link_state(now, self._deframer.skipped)
        return [*out, *self._bad_frames.report(self._deframer.bad, now), *self._dialogue.outcomes()]

    def outgoing(self) -> bytes:
        """Bytes to send since the last call."""
        data, self._outgoing = self._outgoing, b""
        return data

    def perform(self, operation: Operation, now: float) -> None:
        """Refuse: there is nothing that a monitor may have this pad do."""
        detail = f"this device has no operation {operation.verb}: the agent only reads this pad"
        self._dialogue.end(operation.id, "refused", detail, now)

    def _drop_what_never_ends(self, now: float) -> None:
        if now - self._unfinished_since > WHOLE_WITHIN:
            self._deframer.drop()
            self._unfinished_since = inf

    def _replies(self, frames: list[bytes], now: float) -> list[Reading]:
        return [reading for frame in frames if frame[0] == STX for reading in self._reply(frame, now)]

    def _reply(self, frame: bytes, now: float) -> list[Reading]:
        text = frame[4:-3]
        self._dialogue.answered()
        up = self._dialogue.link_state(now, self._deframer.skipped)
        if 0xE0 <= text[0] <= 0xEF:
            return up + self._error(text[0], now)
        settings = _octet(text[SETTINGS]) if len(text) >= INFO_SIZE else None
        if settings is None:
            self.transcript.heard("a reply that is not a ZT588's information")
            return [Reading("link.state", "up", now, raw="it answers, but not as a ZT588 does")]
        return up + self._information(text, settings, now)

    def _error(self, code: int, now: float) -> list[Reading]:
        word, raw = ERRORS.get(code, f"vendor.{code:02X}"), f"{code:02X}"
        self.transcript.heard(f"error {raw}, {word}")
        low = [Reading("epp.battery", "low", now, raw)] if code == LOW_BATTERY else []
        return [Reading("epp.error", word, now, raw), *low]

    def _information(self, text: bytes, settings: int, now: float) -> list[Reading]:
        blank, raw = bool(settings & BLANK), f"settings {settings:02X}"
        model, hardware, software = (_plain(text[field]) for field in (MODEL, HARDWARE, SOFTWARE))
        made, number = _plain(text[MADE]), _plain(text[NUMBER])
        serial = f"{made}-{number}".strip("-")  # four digits alone would not tell two pads apart
        known = (
            Reading("device.model", model, now, f"hardware {hardware}"),
            Reading("device.firmware", software, now),
            Reading("device.serial", serial, now, f"made {made}, number {number}"),
        )
        self.transcript.heard(f"{model} {serial}, {'blank' if blank else 'initial key loaded'}, {raw}")
        return [
            Reading("epp.state", "notInitialized" if blank else "initialized", now, raw),
            Reading("key.imk.state", "missing" if blank else "loaded", now, raw),
            Reading("epp.input", "on" if settings & INPUT else "off", now, raw),
            Reading("epp.error", "ok", now),
            Reading("epp.battery", "ok", now, "it answers without error E0", inferred=True),
            *self._tamper(blank, serial, now),
            *(reading for reading in known if reading.value),
        ]

    def _tamper(self, blank: bool, serial: str, now: float) -> list[Reading]:
        if serial != self._serial:
            self._serial, self._held = serial, False  # another pad: its past is not known
        self._held = self._held or not blank
        if not self._held:
            return []
        word, why = "ok", "it holds its initial key"
        if blank:
            word, why = "tampered", "it held its initial key and is blank now"
        return [Reading("epp.tamper", word, now, why, inferred=True)]


def _measure(data: bytes) -> int:
    """See framing.Measure. A key press is a frame of its own, so it neither stays in a buffer nor counts as bad."""
    if data[0] in KEYS:
        return 1
    digits = data[1:4]
    if data[0] != STX or (digits and not digits.isdigit()):
        return BAD
    if len(digits) < 3:
        return MORE
    size = 7 + int(digits)
    if not 8 <= size <= LIMIT:
        return BAD
    if len(data) < size:
        return MORE
    good = data[size - 3] == ETX and _octet(data[size - 2 : size]) == xor_of(data[1 : size - 2])
    return size if good else BAD


def _octet(pair: bytes) -> int | None:
    """The byte that two hex digits mean, in either way to write them; None if they are none."""
    high, low = (_nibble(digit) for digit in pair)
    return None if high is None or low is None else high << 4 | low


def _nibble(digit: int) -> int | None:
    if 0x30 <= digit <= 0x3F:
        return digit - 0x30
    return digit - 0x37 if 0x41 <= digit <= 0x46 else None


def _plain(field: bytes) -> str:
    """A field as text without its padding, or in hex when it is no text."""
    text = field.strip(b" \x00")
    return text.decode("ascii") if all(0x20 <= byte < 0x7F for byte in text) else field.hex().upper()
