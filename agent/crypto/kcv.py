"""This file knows check values: the public fingerprint of a key, and the ones that nobody wants to meet.

A check value is public, the key is not. It is 3 bytes of the encryption of a zero block (DES and 3DES only), or up
to 5 bytes of a CMAC over one zero block (AES must, 3DES may): PCI PIN 15-1, ANSI X9.24-1:2017 Annex A. The two
methods give different values for one key, so a `Kcv` carries its method. Nothing here needs a cipher, so everything
may import it; the values are computed in des.py and mac.py.

The list of known values was computed from the public test keys of the payment standards. A hit on a production
slot means a test key or a degenerate key; a random key hits it by chance once in more than a million (13 / 2^24).
"""

import hmac
from typing import Literal

from agent.errors import CryptoError

Method = Literal["zero", "cmac"]
ZERO_BYTES = 3
CMAC_BYTES = 5

KNOWN = {
    "8CA64D": "all bytes 00 or 01",
    "CAAAAF": "all bytes FF",
    "82E136": "all bytes 11",
    "00962B": "all bytes 22",
    "40826A": "all bytes 31, which is the ASCII digit 1",
    "ADC67D": "all bytes 33",
    "E2F243": "all bytes 44",
    "F9F4FB": "all bytes 88",
    "08D7B4": "the public test key 0123...3210",
    "D5D44F": "the public test key 0123...CDEF, once or twice",
    "FB0975": "the public test key 0011...EEFF",
    "7B8358": "the public test key FEDC...CDEF",
    "A50201": "the public test key 1234...CDEF twice",
}


class Kcv:
    """A check value: 3 bytes by the zero method, 3 to 5 by CMAC. Shown in pairs: `08 D7 B4`.

    Equal means the same method and the same bytes; a shorter value of the same key is not equal, it `agrees`.
    Both comparisons take constant time, out of habit. Raises CryptoError for any other length: fewer than six
    digits prove nothing, and more of a zero-method value would tell too much.
    """

    __slots__ = ("method", "value")

    def __init__(self, value: bytes, method: Method = "zero") -> None:
        longest = ZERO_BYTES if method == "zero" else CMAC_BYTES
        if not ZERO_BYTES <= len(value) <= longest:
            raise CryptoError(f"a check value by the {method} method has 6 to {2 * longest} hex digits")
        self.method: Method = method
        self.value = bytes(value)

    @classmethod
    def parse(cls, text: str, method: Method = "zero") -> "Kcv":
        """From hex digits as people and devices write them, spaces allowed. Raises CryptoError."""
        digits = "".join(text.split()) if len(text) <= 3 * CMAC_BYTES else ""
        if not digits or set(digits) - set("0123456789abcdefABCDEF") or len(digits) % 2:
            raise CryptoError("a check value is 6 hex digits (up to 10 for CMAC); nothing longer belongs here")
        return cls(bytes.fromhex(digits), method)

    def agrees(self, other: "Kcv") -> bool:
        """Whether both can be of one key: the same method, and the same first bytes as far as both go."""
        common = min(len(self.value), len(other.value))
        same = hmac.compare_digest(self.value[:common], other.value[:common])
        return same and self.method == other.method

    def known(self) -> str | None:
        """What is known against this value, in words; None when nothing is."""
        return KNOWN.get(self.value.hex().upper()) if self.method == "zero" else None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Kcv):
            return NotImplemented
        return hmac.compare_digest(self.value, other.value) and self.method == other.method

    def __hash__(self) -> int:
        return hash((self.method, self.value))

    def __str__(self) -> str:
        return self.value.hex(" ").upper()

    def __repr__(self) -> str:
        return f"<Kcv {self} {self.method}>"
