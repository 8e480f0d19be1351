"""This file knows the packets of a VeriFone PIN pad (IPP): how they are framed and sealed, and what they say.

    management packet   0F (SI) text 0E (SO) LRC      PIN packet   02 (STX) text 03 (ETX) LRC
    control             06 (ACK)  15 (NAK)  04 (EOT)  LRC: XOR of all bytes after SI up to and with SO

Source: VeriFone "MX800 Series Programmers Guide", appendix A "IPP MS and DUKPT Communications Packets": packet 01
p. 289, 06 p. 290-291, 09 and 14 p. 291-294, M04 p. 313, 04 p. 318-322. The rule for the LRC is not printed there;
it is the usual one, and unproven.

Nor are the line settings. These pads commonly run at 1200 7E1, from which a technician or an application may have
moved them. Seven bits with parity take the same ten bits on the line as eight without, so the parity bit is made
and checked here, and the line itself is opened with 8N1, which every adapter and serial server can do.

epp.state and epp.tamper are inferred from the slots that the config names. A pad that held keys, holds none in any
of them now, and is no other pad by its serial number, has erased them: somebody opened it, or it was switched to
another key management, which looks the same.
"""

from agent.drivers.framing import BAD, MORE, xor_of
from agent.drivers.handshake import ACK, EOT, NAK
from agent.model import Reading

SI, SO, STX, ETX = 0x0F, 0x0E, 0x02, 0x03
ENDS = {SI: SO, STX: ETX}
SEPARATORS = (0x1A, 0x1C)
LIMIT = 64
NO_BYTE = 0xFF  # stands for a byte whose parity is wrong; no packet has it

SERIAL, UNIT_SERIAL, CHECK_KEY, TEST = "06", "M04", "04", "01"
TEST_REPLY, LOOPBACK = "14", "09"
LOOPBACK_TEXT = LOOPBACK + "\x1aPROCESSING"

NAMES = {ACK: "taken", NAK: "say it again", EOT: "end"}
# Only packets that are named here are shown byte by byte in a transcript; a PIN block or a key is in none of them.
MEANINGS = {
    SERIAL: "serial number",
    UNIT_SERIAL: "unit serial number",
    CHECK_KEY: "key check",
    TEST: "self-test",
    TEST_REPLY: "result of the self-test",
    LOOPBACK: "loopback",
}


def packet(text: str) -> bytes:
    """A management packet."""
    body = text.encode("ascii") + bytes((SO,))
    return bytes((SI,)) + body + bytes((xor_of(body),))


def measure(data: bytes) -> int:
    """See framing.Measure."""
    if data[:1] in NAMES:
        return 1
    if (end := ENDS.get(data[0])) is None:
        return BAD
    for at, byte in enumerate(data[1:], 1):
        if byte == end:
            if len(data) < at + 2:
                return MORE
            return at + 2 if at > 1 and xor_of(data[1 : at + 2]) == 0 else BAD
        if not 0x20 <= byte < 0x7F and byte not in SEPARATORS:
            return BAD
    return MORE


def printable(text: str) -> str:
    """A text as it may be passed on: without the separators that a packet may hold."""
    return "".join(c for c in text if " " <= c <= "~").strip()


def meaning(frame: bytes) -> tuple[str, bytes]:
    """What a whole frame is, for a transcript, and its bytes where they hold nothing secret."""
    if len(frame) == 1:
        return NAMES[frame], frame
    if frame[0] == SI:
        text = frame[1:-2].decode("ascii")
        for kind, words in MEANINGS.items():
            if text.startswith(kind):
                return f"{words} {text.removeprefix(kind)!r}".removesuffix(" ''"), frame
        return "a packet that is not for a monitor", b""
    return "a PIN packet, which is not read", b""


def split(data: bytes) -> list[bytes]:
    """The frames that some outgoing bytes consist of."""
    frames = []
    while data and (size := measure(data)) > 0:
        frames.append(data[:size])
        data = data[size:]
    return frames


def parity_tables(parity: str) -> tuple[bytes, bytes]:
    """Tables for bytes.translate, to the wire and from it: "even", "odd", or "none" for a line with 8 data bits."""
    if parity == "none":
        return bytes(range(256)), bytes(range(256))
    odd = parity == "odd"
    to_wire = bytes(b & 0x7F | ((b & 0x7F).bit_count() + odd) % 2 << 7 for b in range(256))
    from_wire = bytes(b & 0x7F if b.bit_count() % 2 == odd else NO_BYTE for b in range(256))
    return to_wire, from_wire


class Picture:
    """What the replies say together: which pad it is, which of the watched slots are filled, and what became of it.

    suspected  its keys are gone; whether it is another pad is not known before its serial number is
    """

    def __init__(self, slots: tuple[int, ...]) -> None:
        self._slots = slots
        self._filled: dict[int, bool] = {}
        self._serial = ""
        self._held = self._tampered = False
        self.suspected = False

    def identity(self, serial: str, now: float) -> list[Reading]:
        """Readings of packet 06; sixteen zeros mean that no serial number is stored."""
        stored = serial.strip("0") != ""
        if stored and self._serial not in ("", serial):
            self._held = self._tampered = False  # another pad: its past is not known
        self._tampered = self._tampered or (self.suspected and self._held)
        self.suspected = False
        if not stored:
            return []
        self._serial = serial
        firmware = Reading("device.firmware", serial[:3], now, f"released {serial[3:9]}")
        return [Reading("device.serial", serial, now), firmware]

    def slot(self, slot: int, said: str, now: float) -> list[Reading]:
        """Readings of packet 04 on one slot: 0 or F, and perhaps the attributes of the key."""
        word = {"0": "missing", "F": "loaded"}.get(said[:1], f"vendor.{said[:1] or 'none'}")
        out = [Reading(f"key.{slot}.state", word, now, said)]
        if word.startswith("vendor."):
            return out
        self._filled[slot] = word == "loaded"
        if word == "loaded" and len(said) > 6:
            out.append(Reading(f"key.{slot}.usage", said[1:3], now, said))
        return [*out, *self._whole(now)] if len(self._filled) == len(self._slots) else out

    def _whole(self, now: float) -> list[Reading]:
        filled = [str(slot) for slot in self._slots if self._filled[slot]]
        if filled:
            self._held, self._tampered, self.suspected = True, False, False
            raw = f"keys in slots {', '.join(filled)}"
            return [
                Reading("epp.state", "ready", now, raw, inferred=True),
                Reading("epp.tamper", "ok", now, raw, inferred=True),
            ]
        self.suspected = self._held and not self._tampered
        raw = "no key in any slot that is watched"
        out = [Reading("epp.state", "notInitialized", now, raw, inferred=True)]
        if self._tampered:
            out.append(Reading("epp.tamper", "tampered", now, f"{raw}, where there were some", inferred=True))
        return out
