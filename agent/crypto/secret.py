"""This file knows how to hold bytes that nobody may read: keys, components, PINs, clear PIN blocks.

What a `Secret` promises: no repr, format, pickle or copy shows it; comparing takes constant time; `wipe` overwrites
its own buffer, and a wiped secret refuses to be used.
What it cannot promise: pycryptodome copies a key to `bytes` and frees its key schedule without wiping, a `bytes` or
`str` from which a secret was made stays until the allocator reuses it, and a page may have been swapped out. So a
secret belongs in a short-lived process that locks its memory and exits; wiping only shortens the time.
"""

import hmac
from typing import NoReturn

from agent.errors import CryptoError

HEX = frozenset(b"0123456789ABCDEFabcdef")
_VALUE_OF_DIGIT = {digit: int(chr(digit), 16) for digit in HEX}


class Secret:
    """Bytes of its own, copied from `data`; use it in a `with` to have it wiped at the end."""

    __slots__ = ("_buffer", "_wiped")

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._buffer = bytearray(data)
        self._wiped = False

    @classmethod
    def taking(cls, buffer: bytearray) -> "Secret":
        """The same, but moved: the given buffer is overwritten."""
        taken = cls(buffer)
        wipe(buffer)
        return taken

    @classmethod
    def from_hex(cls, digits: bytes | bytearray) -> "Secret":
        """From ASCII hex digits without spaces, digit by digit, so that no `bytes` of the value comes to be.

        A bytearray is overwritten afterwards. Raises CryptoError, which does not say where the digits are wrong.
        """
        try:
            if len(digits) % 2 or not HEX.issuperset(digits):
                raise CryptoError("expected an even number of hex digits and nothing else")
            pairs = zip(digits[::2], digits[1::2], strict=True)
            return cls.taking(bytearray(_VALUE_OF_DIGIT[high] << 4 | _VALUE_OF_DIGIT[low] for high, low in pairs))
        finally:
            if isinstance(digits, bytearray):
                wipe(digits)

    def reveal(self) -> bytearray:
        """The live buffer, not a copy: read it, hand it to a cipher, keep no reference. Raises CryptoError."""
        if self._wiped:
            raise CryptoError("this secret was wiped and cannot be used any more")
        return self._buffer

    def wipe(self) -> None:
        """Overwrite the buffer with zeros, for good; wiping twice is harmless."""
        wipe(self._buffer)
        self._wiped = True

    def __len__(self) -> int:
        return len(self._buffer)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self.reveal(), other.reveal())

    # A hash could be compared with a table of guesses, so there is none.
    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "<Secret wiped>" if self._wiped else f"<Secret of {len(self._buffer)} bytes>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret can be neither pickled nor copied")

    def __enter__(self) -> "Secret":
        return self

    def __exit__(self, *error: object) -> None:
        self.wipe()


def wipe(buffer: bytearray) -> None:
    """Overwrite a buffer with zeros, in place."""
    buffer[:] = bytes(len(buffer))


def xor_into(target: bytearray, other: bytes | bytearray | memoryview) -> None:
    """XOR `other` into `target` byte by byte, in place; both have the same length."""
    for i, byte in enumerate(other):
        target[i] ^= byte
