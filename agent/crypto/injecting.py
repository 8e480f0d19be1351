"""This file knows how a legacy pad is given a clear key over its serial line. For the key room only.

VeriFone IPP (VeriFone "MX800 Series Programmers Guide", appendix A, packet 02 p. 313-317, 04 p. 318-319):

    room  0F "02" slot(0-9) key(16 hex digits) 0E LRC        LRC: XOR of all after 0F up to and with 0E
    pad   06 (ACK; 15 NAK: say it again; 04 EOT: no), then the same packet again
    room  06: right, and only now the pad keeps the key; 15: LRC wrong, say it again; 04: right LRC, wrong key
    pad   04
    room  0F "04" slot 0E LRC; the pad answers in the same way 04 and F (a key is there) or 0 (none)

    Single length only: longer keys travel there in GISKE blocks, whose content is in no public text. There is no
    check value. The rule for the LRC and the line's parity are unproven, as ipp.py tells.

SZZT ZT588, command 1 (the kiosk program smartkiosk/smartware, pin_pad/zt588.rb; no text of the maker is public):

    room  02 LEN(3 digits) "1" index(2 hex) type(1 digit) length(0 to 2) key(hex) 03 CK(2 hex)
    pad   02 LEN status check-value(hex) 03 CK, or a text that begins with E0 to EF

    The check value is the beginning of zeros under the key. Keys that are pressed stand outside the frames.

Each load is tried once: a person decides what follows a failure. Buffers with the key in them are wiped.
"""

import hmac
import time
from collections.abc import Callable
from functools import reduce
from operator import xor
from typing import Protocol

from agent.crypto import des
from agent.crypto.kcv import ZERO_BYTES
from agent.crypto.secret import Secret, wipe
from agent.errors import KeyRefused, LinkError

ACK, NAK, EOT, SI, SO, STX, ETX = 0x06, 0x15, 0x04, 0x0F, 0x0E, 0x02, 0x03
TRIES = 3
REPLY_WAIT = 3.0
LIMIT = 256
MORE, BAD = 0, -1
DIGITS = b"0123456789ABCDEF"
ZT588_ERRORS = {
    0xE0: "its battery is low",
    0xE1: "it wants the initial key (IMK) first",
    0xE2: "it wants the master key (TMK) first",
    0xE3: "it does not take a key of this length there",
    0xE5: "the key does not fit the key above it",
    0xE6: "it found a parity error",
    0xE7: "it does not take this key",
    0xEC: "it wants to be authorised first",
    0xED: "it is locked for some time after wrong authorisations",
}


class Wire(Protocol):
    """An open serial line; agent.lines.ports opens one."""

    def read(self) -> bytes: ...
    def write(self, data: bytes) -> None: ...


class Injector:
    """One pad on one line. parity: of the seven bits that an IPP sends, "even", "odd", or "none" for eight.

    Raises LinkError when the pad says nothing, KeyRefused when it says no; both tell what a person does next.
    clock: seconds that only go forward.
    """

    def __init__(self, wire: Wire, parity: str = "even", clock: Callable[[], float] = time.monotonic) -> None:
        self._wire = wire
        self._clock = clock
        self._heard = bytearray()
        table = range(256) if parity == "none" else [_with_parity(byte, parity) for byte in range(256)]
        self._table = bytes(table)
        self._mask = 0xFF if parity == "none" else 0x7F

    def ipp(self, key: Secret, slot: int) -> None:
        """Load a key of 8 bytes into slot 0 to 9 of a VeriFone IPP, and ask whether it is there."""
        if len(key) != des.BLOCK:
            raise KeyRefused("this pad takes only single-length keys in clear: 16 digits")
        with _hex(key) as digits, Secret.taking(_packet(b"02%d" % slot, digits.reveal())) as packet:
            echo = self._exchange(packet.reveal())
            same = hmac.compare_digest(echo, packet.reveal())
            wipe(echo)
            self._send(bytes((ACK if same else EOT,)))
            if not same:
                raise KeyRefused("the pad said another key than it was given: it keeps the old one; try again")
            self._until(_end)
        self._heard.clear()
        answer = self._exchange(_packet(b"04%d" % slot, b""))
        self._send(bytes((ACK,)))
        if answer[1:4] != b"04F":
            raise KeyRefused("the pad took the packet, but says that the slot is empty: take it out of service")

    def zt588(self, key: Secret, index: int, kind: int) -> None:
        """Load a key into a ZT588 as `index` (00 to FF) and type (1 IMK, 2 TMK, 3 TPK, 5 TAK ...).

        Done means that the pad told the key's check value.
        """
        head = b"1%02X%d%d" % (index, kind, len(key) // des.BLOCK - 1)
        with _hex(key) as digits, Secret.taking(bytearray(head) + digits.reveal()) as text:
            with Secret.taking(_frame(text.reveal())) as frame:
                self._send(frame.reveal())
            reply = self._until(_zt588_frame)[4:-3]
        if 0xE0 <= reply[0] <= 0xEF:
            why = ZT588_ERRORS.get(reply[0], "its maker knows what that means")
            raise KeyRefused(f"the pad refuses with {reply[0]:02X}: {why}")
        said = _octets(reply[1:])
        if said is None or not hmac.compare_digest(said[:ZERO_BYTES], des.zero_kcv(key).value):
            raise KeyRefused("the pad does not say the key's check value: erase the key there, and try again")

    def _exchange(self, packet: bytearray) -> bytearray:
        """Send an IPP packet; the packet that answers it, whose LRC is right."""
        for _ in range(TRIES):
            self._send(packet)
            byte = self._until(_control)[0]
            if byte == EOT:
                raise KeyRefused("the pad ended it: it may be in another mode, or not know the packet")
            if byte == ACK:
                break
        else:
            raise KeyRefused("the pad understands nothing: check the line's speed and parity")
        for _ in range(TRIES):
            answer = self._until(_ipp_packet)
            if _xor(answer[1:]) == 0:
                return answer
            wipe(answer)
            self._send(bytes((NAK,)))
        self._send(bytes((EOT,)))
        raise KeyRefused("what the pad says is damaged: check the cable")

    def _send(self, data: bytes | bytearray) -> None:
        self._wire.write(bytes(data).translate(self._table))

    def _until(self, measure: Callable[[bytearray], int]) -> bytearray:
        """What stands at the beginning of the bytes heard; what cannot begin it is skipped."""
        end = self._clock() + REPLY_WAIT
        while self._clock() < end:
            while self._heard and (size := measure(self._heard)) != MORE:
                if size > 0:
                    found, rest = self._heard[:size], self._heard[size:]
                    wipe(self._heard)
                    self._heard = rest
                    return found
                del self._heard[0]
            self._heard += bytes(byte & self._mask for byte in self._wire.read())
            del self._heard[:-LIMIT]
        wipe(self._heard)
        raise LinkError(
            "silent", "the pad says nothing: is it on and the cable in? Whether it kept a key is not known"
        )


def _control(heard: bytearray) -> int:
    return 1 if heard[0] in (ACK, NAK, EOT) else BAD


def _end(heard: bytearray) -> int:
    return 1 if heard[0] == EOT else BAD


def _ipp_packet(heard: bytearray) -> int:
    if heard[0] != SI:
        return BAD
    end = heard.find(SO)
    return MORE if end < 0 or len(heard) < end + 2 else end + 2


def _zt588_frame(heard: bytearray) -> int:
    if heard[0] != STX or not all(0x30 <= digit <= 0x39 for digit in heard[1:4]):
        return BAD
    if len(heard) < 4 or len(heard) < (size := int(heard[1:4]) + 7):
        return MORE
    good = (
        size > 7
        and heard[size - 3] == ETX
        and _octets(heard[size - 2 : size]) == bytes((_xor(heard[1 : size - 2]),))
    )
    return size if good else BAD


def _packet(head: bytes, digits: bytes | bytearray) -> bytearray:
    """An IPP management packet."""
    size = len(head) + len(digits)
    packet = bytearray(size + 3)
    packet[0], packet[1 : 1 + len(head)], packet[1 + len(head) : -2], packet[-2] = SI, head, digits, SO
    packet[-1] = _xor(packet[1:-1])
    return packet


def _frame(text: bytearray) -> bytearray:
    """A ZT588 frame."""
    frame = bytearray(len(text) + 7)
    frame[0], frame[1:4], frame[4:-3], frame[-3] = STX, b"%03d" % len(text), text, ETX
    frame[-2:] = b"%02X" % _xor(frame[1:-2])
    return frame


def _hex(key: Secret) -> Secret:
    return Secret.taking(bytearray(DIGITS[byte >> shift & 0x0F] for byte in key.reveal() for shift in (4, 0)))


def _octets(digits: bytes | bytearray) -> bytes | None:
    """The bytes that hex digits mean, also where 3A to 3F stand for A to F; None if they are none."""
    nibbles = [digit - 0x30 if digit <= 0x3F else digit - 0x37 for digit in digits]
    if len(nibbles) % 2 or not all(0 <= nibble <= 0x0F for nibble in nibbles):
        return None
    return bytes(high << 4 | low for high, low in zip(nibbles[::2], nibbles[1::2], strict=True))


def _xor(data: bytes | bytearray) -> int:
    return reduce(xor, data, 0)


def _with_parity(byte: int, parity: str) -> int:
    seven = byte & 0x7F
    return seven | (seven.bit_count() + (parity == "odd")) % 2 << 7
