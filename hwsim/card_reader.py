"""This file knows a simulated card reader: CREATOR CRT-591-M001 or CRT-288 (9600 8N1).

Written from "CRT-591-M001 communication protocol" v1.0 (2013-07-02): frames of section 1.2, handshake of 1.4,
status and errors of 2, commands of 3; the frames of a CRT-288 from "CRT-288 DLL Specification" V1.0 (2010-09-20).

    host     F2 ADDR LENH LENL 43 CM PM data 03 BCC                       BCC: XOR of all before it
    reader   06 (ACK) or 15 (NAK), then F2 ADDR LENH LENL 50 CM PM st0 st1 st2 data 03 BCC
             or F2 ADDR LENH LENL 4E CM PM e1 e0 03 BCC

NAK by the host repeats the response; its ACK ends it. EOT cancels what goes on and is answered by EOT. A CRT-288
has no ADDR, two status bytes (hook, card), no stacker and no bin. What a reader says to a capture without a card is
in no document: here it is a sequence error.
"""

from collections.abc import Mapping
from typing import ClassVar

from agent.drivers.framing import BAD, MORE, Deframer, Measure, xor_of
from hwsim.contract import Allowed

ACK, NAK, EOT = b"\x06", b"\x15", b"\x04"
STX, ETX = 0xF2, 0x03
INIT, STATUS, MOVE, ENTRY, SERIAL, VERSION, COUNTER = 0x30, 0x31, 0x32, 0x33, 0xA2, 0xA4, 0xA5
UNDEFINED, PARAMETER, SEQUENCE, DATA = "00", "01", "02", "04"
OVERFLOW, NO_CARDS, BIN_FULL, NOT_RESET = "50", "A0", "A1", "B0"
MEDIA, STACKER = {"none": "0", "gate": "1", "inside": "2"}, {"empty": "0", "low": "1", "ok": "2"}
ADDRESS_AT = {"crt591": 1, "crt288": 0}  # bytes of address after STX
DRAW_IN_SECONDS = 1.0
MOST_COUNTED = 999
LIMIT = 1024


def _measure(framing: str) -> Measure:
    """A single control character, or a whole frame of the host, whatever its BCC."""
    begin = 3 + ADDRESS_AT[framing]

    def measure(buffer: bytes) -> int:
        if buffer[:1] in (ACK, NAK, EOT):
            return 1
        if buffer[0] != STX:
            return BAD
        if len(buffer) <= begin:
            return MORE
        size = begin + int.from_bytes(buffer[begin - 2 : begin], "big") + 2
        if size < begin + 5 or size > LIMIT or buffer[begin] != ord("C"):
            return BAD
        if len(buffer) < size:
            return MORE
        return size if buffer[size - 2] == ETX else BAD

    return measure


class Refused(Exception):
    """The reader answers negatively; the text is e1 e0."""


class CardReader:
    """A reader with a stacker of blank cards and a bin for retained ones. `captures` counts the begun captures."""

    BAUD: ClassVar[int] = 9600
    SETTINGS: ClassVar[Mapping[str, Allowed]] = {
        "framing": ("crt591", "crt288"),
        "address": tuple(str(number) for number in range(16)),
        "media": tuple(MEDIA),
        "customer": ("away", "inserts", "takes"),
        "stacker": tuple(STACKER),
        "bin_cards": int,
        "bin_capacity": int,
        "counter": int,
        "entry": ("enabled", "disabled"),
        "hook": ("locked", "released"),
        "initialised": ("yes", "no"),
        "next_error": str,
        "negative_head": ("4E", "45"),
        "capture_seconds": float,
        "model": str,
        "firmware": str,
        "serial": str,
    }

    def __init__(self) -> None:
        self.framing, self.address = "crt591", "0"
        self.media, self.customer, self.stacker = "none", "away", "ok"
        self.bin_cards, self.bin_capacity, self.counter = 0, 20, 0
        self.entry, self.hook, self.initialised = "enabled", "released", "yes"
        self.negative_head, self.capture_seconds = "4E", 2.0
        self.model, self.firmware, self.serial = "CRT-591-M001", "C591_SIM_A_260101", "SIM591-0001"
        self.captures = 0
        self._next_error = ""
        self._now = 0.0
        self._drawn_in_at: float | None = None
        self._response = b""
        self._ends: float | None = None
        self._deframers = {name: Deframer(_measure(name), LIMIT, gap=0.3) for name in ("crt591", "crt288")}

    @property
    def next_error(self) -> str:
        """The two characters e1 e0 that the next movement is refused with; empty: none."""
        return self._next_error

    @next_error.setter
    def next_error(self, text: str) -> None:
        if text and not (len(text) == 2 and text.isascii() and text.isalnum()):
            raise ValueError(f"next_error cannot be {text!r}; it can be two letters or digits, or empty")
        self._next_error = text

    def receive(self, data: bytes) -> bytes:
        """What the reader answers at once."""
        frames = self._deframers[self.framing].feed(data, self._now)
        return b"".join(self._take(frame) for frame in frames)

    def tick(self, now: float) -> bytes:
        """The response of a movement that has ended; and what the customer does."""
        self._now = now
        said = b"".join(self._take(frame) for frame in self._deframers[self.framing].expire(now))
        self._serve_customer()
        if self._ends is not None and now >= self._ends:
            self._ends = None
            self._keep_card()
            self._response = self._positive(MOVE, 0x33)
            said += self._response
        return said

    def _serve_customer(self) -> None:
        customer, self.customer = self.customer, "away"
        if customer == "takes" and self.media == "gate":
            self.media, self._drawn_in_at = "none", None
        elif customer == "inserts" and self.media == "none" and self.entry == "enabled":
            self.media, self._drawn_in_at = "gate", self._now + DRAW_IN_SECONDS
        elif self._drawn_in_at is not None and self._now >= self._drawn_in_at:
            self._drawn_in_at = None
            self.media = "inside" if self.media == "gate" else self.media

    def _take(self, frame: bytes) -> bytes:
        if frame == ACK:
            self._response = b""
            return b""
        if frame == NAK:
            return self._response
        if frame == EOT:
            self._response, self._ends = b"", None
            return EOT
        if xor_of(frame):
            return NAK
        if self.framing == "crt591" and frame[1] != int(self.address):
            return b""
        if self._ends is not None:
            return NAK  # it moves
        text = frame[3 + ADDRESS_AT[self.framing] : -2]
        command, parameter = text[1:3]
        try:
            data = self._obey(command, parameter, text[3:])
        except Refused as refusal:
            self._response = self._frame(
                bytes.fromhex(self.negative_head), command, parameter, str(refusal).encode()
            )
        else:
            self._response = b"" if self._ends is not None else self._positive(command, parameter, data)
        return ACK + self._response

    def _obey(self, command: int, parameter: int, data: bytes) -> bytes:
        """Do it; returns the data of the positive response. Raises Refused."""
        bare = self.framing == "crt288"
        if command == INIT:
            return self._initialise(parameter)
        if self.initialised == "no":
            raise Refused(NOT_RESET)
        match command:
            case 0x31 if parameter in (0x30, 0x31):
                return b"0" * 8 if parameter == 0x31 else b""
            case 0x32 if not bare:
                self._move(parameter)
            case 0x33 if not bare:
                self.entry = {0x30: "enabled", 0x31: "disabled"}.get(parameter, self.entry)
            case 0xA2 if parameter == 0x30:
                serial = _text(self.serial)[:18]
                return bytes((len(serial),)) + serial
            case 0xA4 if parameter == 0x30:
                return _text(self.firmware)
            case 0xA5 if parameter == 0x30 and not bare:
                return f"{min(max(0, self.counter), MOST_COUNTED):03}".encode()
            case 0xA5 if parameter == 0x31 and not bare:
                if len(data) != 3 or not data.isdigit():
                    raise Refused(DATA)
                self.counter = int(data)
            case _:
                raise Refused(PARAMETER if command in (STATUS, SERIAL, VERSION, COUNTER) else UNDEFINED)
        return b""

    def _initialise(self, parameter: int) -> bytes:
        bare = self.framing == "crt288"
        if parameter not in ((0x30, 0x31) if bare else (0x30, 0x31, 0x33, 0x34, 0x35, 0x37)):
            raise Refused(PARAMETER)
        self.initialised = "yes"
        if bare:
            self.hook = "released" if parameter == 0x31 else self.hook
        else:
            self.entry = "disabled"
            if self.media != "none" and parameter in (0x30, 0x34):
                self.media = "gate"
            elif self.media != "none" and parameter in (0x31, 0x35):
                self._keep_card()
        return _text(self.model)

    def _move(self, parameter: int) -> None:
        if self._next_error:
            code, self._next_error = self._next_error, ""
            raise Refused(code)
        if parameter == 0x33:
            self._begin_capture()
        elif parameter in (0x30, 0x31, 0x32, 0x39):
            if self.media == "none" and (self.stacker == "empty" or parameter == 0x39):
                raise Refused(SEQUENCE if parameter == 0x39 else NO_CARDS)
            self.media, self._drawn_in_at = "gate" if parameter in (0x30, 0x39) else "inside", None
        else:
            raise Refused(PARAMETER)

    def _begin_capture(self) -> None:
        if self.media == "none":
            raise Refused(SEQUENCE)
        if self.bin_cards >= self.bin_capacity:
            raise Refused(BIN_FULL)
        if self.counter >= MOST_COUNTED:
            raise Refused(OVERFLOW)
        self.captures += 1
        if self.capture_seconds > 0:
            self._ends = self._now + self.capture_seconds
        else:
            self._keep_card()

    def _keep_card(self) -> None:
        self.media, self._drawn_in_at = "none", None
        self.bin_cards += 1
        self.counter += 1

    def _positive(self, command: int, parameter: int, data: bytes = b"") -> bytes:
        if self.framing == "crt288":
            status = ("0" if self.hook == "locked" else "1") + MEDIA[self.media]
        else:
            status = (
                MEDIA[self.media] + STACKER[self.stacker] + ("1" if self.bin_cards >= self.bin_capacity else "0")
            )
        return self._frame(b"P", command, parameter, status.encode() + data)

    def _frame(self, head: bytes, command: int, parameter: int, data: bytes) -> bytes:
        text = head + bytes((command, parameter)) + data
        front = bytes((STX, int(self.address)))[: 1 + ADDRESS_AT[self.framing]]
        frame = front + len(text).to_bytes(2, "big") + text + bytes((ETX,))
        return frame + bytes((xor_of(frame),))


def _text(text: str) -> bytes:
    return text[:64].encode("ascii", "replace")
