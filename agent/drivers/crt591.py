"""This file knows what CREATOR card readers say: their frames and codes, and what their responses mean together.

Sources: "CRT-591-M001 communication protocol" v1.0 (2013-07-02), sections 1.2 (frames), 2.1.2 (status), 2.2
(errors) and 3 (commands); the notes of a project that watched a CRT-591-(R02): a negative response begins with 4E,
not 45 as printed; "CRT-288 DLL Specification" V1.0 (2010-09-20), section 1, and its users for the status bytes.

    command    F2 ADDR LENH LENL "C" CM PM data 03 BCC            LEN: bytes from the head to the end of the data
    positive   F2 ADDR LENH LENL "P" CM PM st0 st1 st2 data 03 BCC
    negative   F2 ADDR LENH LENL "N" CM PM e1 e0 data 03 BCC      BCC: XOR of all bytes before it

A reader of chips and stripes carries card data on this line, and some answer even a good stripe reading with a
negative head. So only the commands in OPEN are ever understood; of all others nothing is kept but that they were.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from agent.drivers.framing import BAD, MORE, Measure, xor_of
from agent.model import Reading

STX, ETX = 0xF2, 0x03
COMMAND, POSITIVE, NEGATIVE = b"C", b"P", (b"N", b"E")
INIT, STATUS, MOVE, ENTRY, SERIAL, CONFIGURATION, VERSION, COUNTER = 0x30, 0x31, 0x32, 0x33, 0xA2, 0xA3, 0xA4, 0xA5
ASK, TO_BIN, SET_COUNTER = 0x30, 0x33, 0x31

OPEN: dict[int, str] = {
    INIT: "initialise",
    STATUS: "status",
    MOVE: "move card",
    ENTRY: "card entry",
    SERIAL: "serial number",
    CONFIGURATION: "configuration",
    VERSION: "version",
    COUNTER: "retained cards",
}
HIDDEN = "card data, not shown"
CONTROLS = {b"\x06": "acknowledged", b"\x15": "not understood, say it again", b"\x04": "cancelled"}

HIGHEST_ADDRESS = 0x0F
LONGEST, LONGEST_OPEN = 518, 96  # bytes of text: the document allows 512 of data; what is in OPEN says little
LIMIT = 4 + LONGEST + 2

_ERRORS = """00 undefined_command  01 parameter  02 sequence  03 not_supported  04 data  05 contact_not_released
    10 jam  12 sensor  13 too_long  14 too_short  41 magnet  43 cannot_reach_contact  51 motor  60 chip_short
    61 chip_activation  65 chip_not_activated  69 not_emv  B0 not_reset"""
_ERRORS_591 = f"""{_ERRORS}  40 cannot_recycle  45 moved_by_hand  50 counter_overflow  62 chip_not_supported
    66 chip_not_supported  67 chip_transmission  68 chip_timeout  A0 stacker_empty  A1 bin_full"""
_HOOK_AND_CARD = "00 notPresent 10 notPresent 01 entering 11 entering 02 latched 12 present"
NOT_KNOWN = ("undefined_command", "not_supported")
_MISTAKEN = (*NOT_KNOWN, "parameter", "sequence", "data")


def _table(text: str) -> dict[str, str]:
    words = text.split()
    return dict(zip(words[::2], words[1::2], strict=True))


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of the status: our point, the vendor's name, from which byte to which, our word for each code."""

    point: str
    name: str
    begin: int
    end: int
    words: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Dialect:
    """What differs between two families of the maker; a row of DIALECTS.

    addressed     whether an address byte follows F2
    leave, count  the parameter of INIT that leaves a card where it is, and the one that also counts retained cards
    status        what stands in the status bytes of a positive response
    errors        the words for e1 e0, as far as the documents give them
    """

    addressed: bool
    leave: int
    count: int
    status: tuple[Part, ...]
    errors: Mapping[str, str]

    @property
    def status_bytes(self) -> int:
        """How many status bytes a positive response has."""
        return self.status[-1].end

    @property
    def has_bin(self) -> bool:
        """Whether the reader can keep a card."""
        return any(part.point == "retain.state" for part in self.status)


DIALECTS: dict[str, Dialect] = {
    "crt591": Dialect(
        addressed=True,
        leave=0x33,
        count=0x37,
        status=(
            Part("card.media", "st0", 0, 1, {"0": "notPresent", "1": "entering", "2": "present"}),
            Part("card.stacker", "st1", 1, 2, {"0": "empty", "1": "low", "2": "ok"}),
            Part("retain.state", "st2", 2, 3, {"0": "ok", "1": "full"}),
        ),
        errors=_table(_ERRORS_591),
    ),
    # The first byte is the hook that locks a card in (0: locked), the second the card. Nothing takes a card away.
    "crt288": Dialect(
        addressed=False,
        leave=0x30,
        count=0x30,
        status=(Part("card.media", "st1 st0", 0, 2, _table(_HOOK_AND_CARD)),),
        errors=_table(_ERRORS),
    ),
}


@dataclass(frozen=True, slots=True)
class Telegram:
    """One frame. `body` is what follows PM, and is empty for a command that is not in OPEN: it may be card data."""

    address: int
    head: bytes
    command: int
    parameter: int
    body: bytes

    @property
    def hidden(self) -> bool:
        """Whether it may carry card data."""
        return self.command not in OPEN

    @property
    def code(self) -> str:
        """The vendor's code for the error of a negative response; empty for anything else."""
        return _code(self.body[:2]) if self.head in NEGATIVE else ""

    def error(self, dialect: Dialect) -> str:
        """Our word for that code."""
        return (dialect.errors.get(self.code) or f"vendor.{self.code}") if self.code else ""


def telegram(frame: bytes, dialect: Dialect) -> Telegram:
    """What a whole frame is made of."""
    begin = 4 if dialect.addressed else 3
    text = frame[begin:-2]
    body = text[3:] if text[1] in OPEN else b""
    return Telegram(frame[1] if dialect.addressed else 0, text[:1], text[1], text[2], body)


def frame_of(dialect: Dialect, address: int, command: int, parameter: int, data: bytes = b"") -> bytes:
    """A command of the host."""
    text = COMMAND + bytes((command, parameter)) + data
    front = bytes((STX, address)) if dialect.addressed else bytes((STX,))
    body = front + len(text).to_bytes(2, "big") + text + bytes((ETX,))
    return body + bytes((xor_of(body),))


def measure_for(dialect: Dialect) -> Measure:
    """See framing.Measure: a single ACK, NAK or EOT, or a whole frame of either side to or from any address."""
    begin = 4 if dialect.addressed else 3

    def measure(data: bytes) -> int:
        if data[:1] in CONTROLS:
            return 1
        if data[0] != STX or (dialect.addressed and len(data) > 1 and data[1] > HIGHEST_ADDRESS):
            return BAD
        if len(data) < begin:
            return MORE
        text, length = data[begin : begin + 2], int.from_bytes(data[begin - 2 : begin], "big")
        if text and text[:1] not in (COMMAND, POSITIVE, *NEGATIVE):
            return BAD
        longest = LONGEST_OPEN if len(text) == 2 and text[1] in OPEN else LONGEST
        least = 3 + dialect.status_bytes if text[:1] == POSITIVE else 5 if text[:1] in NEGATIVE else 3
        if not least <= length <= longest:
            return BAD
        size = begin + length + 2
        if len(data) < size:
            return MORE
        return size if data[size - 2] == ETX and xor_of(data[:size]) == 0 else BAD

    return measure


class Picture:
    """What the responses say together. `error` is the reader's last error, until something shows that it is over:
    the same command or INIT succeeds, or, of a reader that was not reset, anything."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._failed = 0
        self._code = ""
        self.error = ""

    def say(self, said: Telegram, now: float) -> list[Reading]:
        """Readings of one response."""
        if said.hidden or said.head == COMMAND:
            return []
        if said.head in NEGATIVE:
            return self._refused(said, now)
        out = []
        for part in self._dialect.status:
            code = _code(said.body[part.begin : part.end])
            out.append(Reading(part.point, part.words.get(code) or f"vendor.{code}", now, f"{part.name} {code}"))
        self._succeeded(said.command, {reading.point: reading.value for reading in out})
        out.append(Reading("reader.error", self.error, now, self._code))
        return out + self._data(said, now)

    def _refused(self, said: Telegram, now: float) -> list[Reading]:
        word = said.error(self._dialect)
        if said.command >= SERIAL and word in _MISTAKEN:
            return []  # it was asked what it cannot tell, which is no trouble of the reader's
        self.error, self._code, self._failed = word, said.code, said.command
        return [Reading("reader.error", word, now, said.code)]

    def _succeeded(self, command: int, words: Mapping[str, object]) -> None:
        over = command in (INIT, self._failed) or self.error in ("", "not_reset")
        over = over or (self.error == "bin_full" and words.get("retain.state") == "ok")
        over = over or (self.error == "stacker_empty" and words.get("card.stacker") in ("ok", "low"))
        if over:
            self.error, self._code, self._failed = "ok", "", 0

    def _data(self, said: Telegram, now: float) -> list[Reading]:
        data = said.body[self._dialect.status_bytes :]
        asked = (said.command, said.parameter)
        if asked == (COUNTER, ASK):
            return (
                [Reading("retain.count", int(data), now, data.decode())]
                if len(data) == 3 and data.isdigit()
                else []
            )
        if asked == (SERIAL, ASK):  # its length, then the text
            point, data = "device.serial", data[1:] if data and data[0] == len(data) - 1 else b""
        elif said.command == INIT:
            point = "device.model"
        elif asked == (VERSION, ASK):
            point = "device.firmware"
        else:
            return []
        text = data.decode("latin-1").strip()
        return [Reading(point, text, now)] if text and text.isascii() and text.isprintable() else []


def _code(data: bytes) -> str:
    """A vendor's code as text: ASCII characters as they are, anything else in hex."""
    text = data.decode("latin-1")
    return text if text.isascii() and text.isalnum() else data.hex().upper()


def described(frame: bytes, dialect: Dialect) -> tuple[str, bytes]:
    """What a whole frame means, for a person, and the frame, if it may be shown."""
    if frame in CONTROLS:
        return CONTROLS[frame], frame
    said = telegram(frame, dialect)
    if said.hidden:
        return HIDDEN, b""
    name = f"{OPEN[said.command]} {said.parameter:02X}"
    if said.head == COMMAND:
        return f"{name}?", frame
    words = [f"{reading.point} {reading.value}" for reading in Picture(dialect).say(said, 0.0)]
    return f"{name}: {', '.join(words) or 'error ' + said.code}", frame
