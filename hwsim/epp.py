"""This file knows a simulated encrypting PIN pad: SZZT ZT588 (9600 8N1).

Written from the frame and command tables that the kiosk program smartkiosk/smartware uses on real pads (zt588.rb,
szzt_connection.rb); no text of the maker is public.

    02 LEN(3 digits) TEXT 03 CK(2 hex digits)     CK: XOR of LEN, TEXT and 03
    "3"          information: status 1, user 50, scan codes 48, settings 20, function 8, model 6, hardware 3,
                 software 3, made 4, number 4; settings byte 0: bit 0 blank, bit 1 input on, bit 2 sound on
    "50" + hex   control: 30 restart, 31 wipe, 32/33 input off/on, 34/35 sound off/on
    reply        status and data, or one byte E0 to EF

Assumed: the status of a good reply is "0", a frame with a bad checksum is answered by nothing, and a low battery by
E0 to everything. Keys pressed while input is on are sent as raw bytes outside the frames. This pad takes no keys,
whatever command comes (EC), and has none to send, unless `epp` names a secure device (`hwsim epp`): then commands 1
and 2, wiping, and whether the pad is blank are that device's (hwsim/zt588_keys.py), and without it the pad is dead.
"""

from collections.abc import Mapping
from typing import ClassVar

from agent.drivers.framing import BAD, MORE, Deframer, xor_of
from hwsim import zt588_keys
from hwsim.contract import Allowed, AskEpp, Json, Unreachable, no_epp

STX, ETX = 0x02, 0x03
SCAN_CODES = b"123\x1b456\x08789\x07.0#\rACEGBDFH"
LOW_BATTERY, DATA, PARAMETER, AUTHORISATION = 0xE0, 0xE9, 0xEB, 0xEC
LONGEST = 255


def _measure(buffer: bytes) -> int:
    if buffer[0] != STX:
        return BAD
    length = buffer[1:4]
    if length and not length.isdigit():
        return BAD
    if len(length) < 3:
        return MORE
    size = int(length) + 7
    if size > LONGEST:
        return BAD
    if len(buffer) < size:
        return MORE
    check = f"{xor_of(buffer[1 : size - 2]):02X}".encode()
    return size if buffer[size - 3] == ETX and buffer[size - 2 : size] == check else BAD


class Epp:
    """A ZT588. `tamper` set to yes opens it: its keys are gone, and setting it back does not bring them. `press` is
    what will be typed next, in scan codes; `error` the code that every command is answered with."""

    BAUD: ClassVar[int] = 9600
    SETTINGS: ClassVar[Mapping[str, Allowed]] = {
        "imk": ("loaded", "missing"),
        "tamper": ("no", "yes"),
        "battery": ("ok", "low"),
        "error": ("none", *(f"{code:02X}" for code in range(LOW_BATTERY, 0xF0))),
        "input": ("off", "on"),
        "sound": ("off", "on"),
        "press": str,
        "hex": ("plain", "broken"),
        "user": str,
        "model": str,
        "hardware": str,
        "software": str,
        "made": str,
        "number": str,
        "epp": str,
    }

    def __init__(self) -> None:
        self.imk, self.battery, self.input, self.sound, self.hex = "loaded", "ok", "off", "on", "plain"
        self.user, self.model, self.hardware, self.software = "EXAMPLE KIOSK", "ZT588", "V10", "V23"
        self.made, self.number = "1203", "0042"
        self.error, self.press, self._tamper = "none", "", "no"
        self.epp = ""
        self.ask_epp: AskEpp = no_epp
        self._deframer = Deframer(_measure, LONGEST, gap=1.0)
        self._now = 0.0

    @property
    def tamper(self) -> str:
        """Whether somebody has opened the pad."""
        return self._tamper

    @tamper.setter
    def tamper(self, word: str) -> None:
        self._tamper = word
        if word == "yes":
            self.imk = "missing"

    def receive(self, data: bytes) -> bytes:
        """The replies to every frame that these bytes complete."""
        return b"".join(self._reply(f[4:-3]) for f in self._deframer.feed(data, self._now))

    def tick(self, now: float) -> bytes:
        """What was typed since the last tick."""
        self._now = now
        said = b"".join(self._reply(f[4:-3]) for f in self._deframer.expire(now))
        typed, self.press = self.press.encode("latin-1", "replace"), ""
        return said + typed if self.input == "on" else said

    def _reply(self, text: bytes) -> bytes:
        try:
            if self.epp:
                self._look()
            return self._frame(self._answer(text))
        except Unreachable:
            return b""  # without its secure device there is no pad

    def _ask(self, request: Json) -> Json:
        return self.ask_epp(self.epp, request)

    def _look(self) -> None:
        """See in what the secure device is."""
        state = self._ask({"do": "state"})["ok"]
        self._tamper = "yes" if state["tampered"] else "no"
        self.imk = "missing" if zt588_keys.blank(state) else "loaded"
        self.made, _, self.number = state["serial"].rpartition("-")

    def _frame(self, text: bytes) -> bytes:
        body = f"{len(text):03d}".encode() + text + bytes((ETX,))
        return bytes((STX,)) + body + self._hex(bytes((xor_of(body),)))

    def _answer(self, text: bytes) -> bytes:
        if self.error != "none":
            return bytes((int(self.error, 16),))
        if self.battery == "low":
            return bytes((LOW_BATTERY,))
        match text[:1], text[1:]:
            case b"3", b"":
                return b"0" + self._information()
            case b"5", value if value[:1] == b"0":
                return self._control(value[1:])
            case ((b"1" | b"2"), _) if self.epp:
                return zt588_keys.load(self._ask, text)
            case ((b"1" | b"2"), _):
                return bytes((AUTHORISATION,))
            case _:
                return bytes((DATA,))

    def _control(self, value: bytes) -> bytes:
        match value:
            case b"30":
                self.press = ""
            case b"31":
                self.imk = "missing"
                if self.epp:
                    self._ask({"do": "wipe"})
            case b"32" | b"33":
                self.input = "on" if value == b"33" else "off"
            case b"34" | b"35":
                self.sound = "on" if value == b"35" else "off"
            case _:
                return bytes((PARAMETER,))
        return b"0"

    def _information(self) -> bytes:
        flags = (self.imk == "missing") | (self.input == "on") << 1 | (self.sound == "on") << 2
        settings = bytes((flags, 0, 30, 0xFF, 1, 16, 51, 0x30 if self.hex == "broken" else 0x37, 10, 0))
        texts = ((self.model, 6), (self.hardware, 3), (self.software, 3), (self.made, 4), (self.number, 4))
        return (
            _field(self.user, 50)
            + self._hex(SCAN_CODES)
            + self._hex(settings)
            + b"0" * 8
            + b"".join(_field(text, width) for text, width in texts)
        )

    def _hex(self, data: bytes) -> bytes:
        """Hex digits; "broken" ones above 9 follow 9 in the code table."""
        text = data.hex().upper().encode()
        return text.translate(bytes.maketrans(b"ABCDEF", b":;<=>?")) if self.hex == "broken" else text


def _field(text: str, width: int) -> bytes:
    return text[:width].ljust(width).encode("latin-1", "replace")
