"""This file knows a simulated PIN pad: VeriFone IPP, master/session (1200 7E1).

Written from VeriFone "MX800 Series Programmers Guide", appendix A, pages 289-322.

    host     0F text 0E LRC        LRC: XOR of all after 0F up to and with 0E (assumed: the guide does not print it)
    pad      06 (ACK) or 15 (NAK; 04 after three), then its reply in the same frame
    host     06; 15 has the reply said again, three times at the most; then the pad says 04 (EOT)

    06       vvv dddddd p bb nnnn; sixteen zeros when none is stored       M04   xxx-xxx-xxx
    04 n     0 no key in slot n, F a key; GISKE adds usage AN, mode N, version 00 and length 1 to 3
    01 01    14RAM TST BEGIN, then 14RAM TST OK or 14BAD RAM
    01 03    14 and the PROM checksum
    01 06    14 and the serial number
    01 07    09; the host then sends 09 1A PROCESSING and gets it back

Each byte carries its parity in bit 7, as on a line with 7 data bits; one with a wrong parity is lost. What the pad
does not know, or must not do here (load a key), it ends with EOT. This pad has no keys, only what it says of them.
"""

from collections.abc import Mapping
from typing import ClassVar

from agent.drivers.framing import BAD, MORE, Deframer, xor_of
from hwsim.contract import Allowed

ACK, NAK, EOT, SI, SO = 0x06, 0x15, 0x04, 0x0F, 0x0E
LONGEST = 160
TRIES = 3
LENGTHS = {"single": "1", "double": "2", "triple": "3"}


def _measure(buffer: bytes) -> int:
    """A single ACK, NAK or EOT, or a whole packet; its LRC is looked at later."""
    if buffer[0] in (ACK, NAK, EOT):
        return 1
    if buffer[0] != SI:
        return BAD
    end = buffer.find(SO)
    return MORE if end < 0 or len(buffer) < end + 2 else end + 2


class PinPad:
    """An IPP. `key0` to `key9` are its slots; `tamper` set to yes empties them all. `unit_serial` is empty on a pad
    that has none; `giske` is the mixed or 3DES mode."""

    BAUD: ClassVar[int] = 1200
    SETTINGS: ClassVar[Mapping[str, Allowed]] = {
        **{f"key{slot}": ("none", *LENGTHS) for slot in range(10)},
        "tamper": ("no", "yes"),
        "giske": ("no", "yes"),
        "serial": str,
        "unit_serial": str,
        "ram": ("ok", "bad"),
        "uart": ("ok", "bad"),
        "prom": str,
        "test_seconds": float,
        "parity": ("even", "odd", "none"),
    }

    def __init__(self) -> None:
        for slot in range(10):
            setattr(self, f"key{slot}", "single" if slot == 0 else "none")
        self._tamper, self.giske, self.parity = "no", "no", "even"
        self.serial, self.unit_serial = "246880401A001234", "200-123-456"
        self.ram, self.uart, self.prom, self.test_seconds = "ok", "ok", "5A", 2.0
        self._deframer = Deframer(_measure, LONGEST, gap=1.0)
        self._now = 0.0
        self._said = b""
        self._waiting: list[bytes] = []
        self._due: float | None = None
        self._looping = False
        self._bad = self._repeats = 0

    @property
    def tamper(self) -> str:
        """Whether somebody has opened the pad."""
        return self._tamper

    @tamper.setter
    def tamper(self, word: str) -> None:
        self._tamper = word
        if word == "yes":
            for slot in range(10):
                setattr(self, f"key{slot}", "none")

    def receive(self, data: bytes) -> bytes:
        """What the pad answers at once."""
        plain = bytes(b & 0x7F if self.parity != "none" else b for b in data if self._sealed(b & 0x7F) == b)
        return self._wire(b"".join(self._take(frame) for frame in self._deframer.feed(plain, self._now)))

    def tick(self, now: float) -> bytes:
        """The result of a test that takes its time."""
        self._now = now
        said = b"".join(self._take(frame) for frame in self._deframer.expire(now))
        if self._due is not None and now >= self._due:
            self._due = None
            said += self._next()
        return self._wire(said)

    def _take(self, frame: bytes) -> bytes:
        match frame[0]:
            case 0x06:
                return self._acknowledged()
            case 0x15:
                return self._again()
            case 0x04:
                self._forget()
                return b""
        if xor_of(frame[1:]):
            self._bad += 1
            if self._bad < TRIES:
                return bytes((NAK,))
            self._bad = 0
            return bytes((EOT,))
        self._bad = 0
        text = frame[1:-2].decode("latin-1")
        if self._looping and text.startswith("09"):
            self._looping = False
            self._waiting = [_packet(text if self.uart == "ok" else text[:3] + text[:2:-1])]
        else:
            self._forget()
            self._waiting = [_packet(reply) for reply in self._replies(text)]
        return bytes((ACK,)) + self._next()

    def _forget(self) -> None:
        self._said, self._waiting, self._due, self._looping, self._repeats = b"", [], None, False, 0

    def _next(self) -> bytes:
        """The next packet of an answer, or EOT after the last."""
        self._repeats = 0
        self._said = self._waiting.pop(0) if self._waiting else b""
        return self._said or bytes((EOT,))

    def _acknowledged(self) -> bytes:
        if not self._said or self._due is not None or self._looping:
            return b""
        if self._said == _packet("09"):
            self._looping = True
            return b""
        if self._waiting:
            self._due = self._now + self.test_seconds
            return b""
        return self._next()

    def _again(self) -> bytes:
        self._repeats += 1
        if self._repeats <= TRIES:
            return self._said
        self._forget()
        return bytes((EOT,))

    def _replies(self, text: str) -> list[str]:
        match text[:2], text[2:]:
            case "06", "":
                return ["06" + self._number()]
            case "M0", "4" if self.unit_serial:
                return ["M04" + self.unit_serial]
            case "04", slot if len(slot) == 1 and slot.isdigit():
                return ["04" + self._slot(slot)]
            case "01", "01":
                return ["14RAM TST BEGIN", "14RAM TST OK" if self.ram == "ok" else "14BAD RAM"]
            case "01", "03":
                return ["14" + self.prom]
            case "01", "06":
                return ["14" + self._number()]
            case "01", "07":
                return ["09"]
        return []

    def _number(self) -> str:
        return self.serial[:16].ljust(16, "0")

    def _slot(self, slot: str) -> str:
        key = getattr(self, f"key{slot}")
        if key == "none":
            return "0"
        return f"FANN00{LENGTHS[key]}" if self.giske == "yes" else "F"

    def _sealed(self, byte: int) -> int:
        """A byte as it is on the wire."""
        if self.parity == "none":
            return byte
        return byte | (byte.bit_count() + (self.parity == "odd")) % 2 << 7

    def _wire(self, data: bytes) -> bytes:
        return bytes(self._sealed(byte) for byte in data)


def _packet(text: str) -> bytes:
    body = text.encode("ascii", "replace") + bytes((SO,))
    return bytes((SI,)) + body + bytes((xor_of(body),))
