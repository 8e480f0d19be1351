"""This file knows DES and 3DES keys: parity, keys that must be refused, and encryption. For the key room only.

Nothing on the terminal's path imports this file: there the pad performs and the agent conducts.

A key is 8 bytes (single DES, legacy only), 16 (K1 K2 K1) or 24 (K1 K2 K3). The lowest bit of each byte is parity,
odd over the byte, and takes no part in the encryption: FIPS 46-3; NIST SP 800-67, which also lists the weak keys.
pycryptodome refuses a 3DES key with K1 = K2 or K2 = K3 and offers no way around. Such a key *is* single DES, so it
is computed as that: a component may well look so and still needs its check value. Whether a key may be *used* is
asked separately, of `refuse_unsound`.
"""

import hmac
from itertools import pairwise
from types import ModuleType

from Crypto.Cipher import DES, DES3

from agent.crypto.kcv import ZERO_BYTES, Kcv
from agent.crypto.secret import Secret
from agent.errors import CryptoError, KeyRefused

BLOCK = 8
_WEAK = """
    0101010101010101 FEFEFEFEFEFEFEFE E0E0E0E0F1F1F1F1 1F1F1F1F0E0E0E0E
    011F011F010E010E 1F011F010E010E01 01E001E001F101F1 E001E001F101F101
    01FE01FE01FE01FE FE01FE01FE01FE01 1FE01FE00EF10EF1 E01FE01FF10EF10E
    1FFE1FFE0EFE0EFE FE1FFE1FFE0EFE0E E0FEE0FEF1FEF1FE FEE0FEE0FEF1FEF1
"""
_PUBLIC = """
    0123456789ABCDEF 0123456789ABCDEFFEDCBA9876543210 FEDCBA98765432100123456789ABCDEF
    0123456789ABCDEF23456789ABCDEF01456789ABCDEF0123 00112233445566778899AABBCCDDEEFF
    1234567890ABCDEF 6AC292FAA1315B4D858AB3A3D7D5933A
"""


def _masked(key: bytes | bytearray | memoryview) -> bytearray:
    return bytearray(byte & 0xFE for byte in key)


WEAK_PARTS = tuple(_masked(bytes.fromhex(part)) for part in _WEAK.split())
PUBLIC_KEYS = tuple(_masked(bytes.fromhex(key)) for key in _PUBLIC.split())


def odd_parity(key: Secret) -> Secret:
    """The same key with odd parity in every byte; it encrypts the same and has the same check value."""
    return Secret.taking(bytearray(byte ^ (byte.bit_count() + 1) % 2 for byte in key.reveal()))


def has_odd_parity(key: Secret) -> bool:
    """Whether every byte of the key has odd parity."""
    return all(byte.bit_count() % 2 for byte in key.reveal())


def parts_of(key: Secret) -> list[bytearray]:
    """The masked 8-byte parts: one, two or three. Raises KeyRefused for any other length."""
    if len(key) not in (8, 16, 24):
        raise KeyRefused("a DES key has 8 bytes, a 3DES key 16 or 24")
    masked = _masked(key.reveal())
    return [masked[i : i + BLOCK] for i in range(0, len(masked), BLOCK)]


def strength(key: Secret) -> int:
    """How many independent 8-byte parts the key has: 24 bytes with K1 = K3 are a double-length key."""
    parts = parts_of(key)
    independent = len(parts) - (len(parts) == 3 and hmac.compare_digest(parts[0], parts[2]))
    return 1 if _collapses(parts) else independent


def _collapses(parts: list[bytearray]) -> bool:
    return any(hmac.compare_digest(first, second) for first, second in pairwise(parts))


def refuse_unsound(key: Secret, *, single: bool = False, test_keys: bool = False) -> None:
    """Raise KeyRefused unless the key may be loaded. Parity does not matter here.

    single: accept 8 bytes, for a signed legacy order. test_keys: accept the published ones, for drills and tests.
    """
    parts = parts_of(key)
    if len(parts) == 1 and not single:
        raise KeyRefused("a single-length DES key needs a signed legacy order: use 16 or 24 bytes")
    if _collapses(parts):
        raise KeyRefused("two neighbouring parts of the key are equal, so it is only as strong as single DES")
    if any(hmac.compare_digest(part, weak) for part in parts for weak in WEAK_PARTS):
        raise KeyRefused("a part of the key is a weak or semi-weak DES key")
    if not test_keys and is_public(key):
        raise KeyRefused("this is a published test key, or one that nobody drew at random")


def is_public(key: Secret) -> bool:
    """Whether everybody knows the key: a published test key, or one byte repeated. Parity is no disguise."""
    masked = _masked(key.reveal())
    for period in (2 * BLOCK, BLOCK):  # K1 K2 K1 is another spelling of K1 K2, and K1 K1 of K1
        if hmac.compare_digest(masked[period:], masked[:-period]):
            del masked[period:]
    return len(set(masked)) == 1 or any(hmac.compare_digest(masked, public) for public in PUBLIC_KEYS)


def engine(key: Secret) -> tuple[ModuleType, bytes]:
    """The pycryptodome module that computes with this key, and the bytes to give it.

    pycryptodome takes a copy in any case; here it is made short-lived. Raises KeyRefused for a wrong length.
    """
    parts, raw = parts_of(key), key.reveal()
    if len(parts) == 1:
        return DES, bytes(raw)
    if hmac.compare_digest(parts[0], parts[1]):
        return DES, bytes(raw[-BLOCK:])  # D undoes E; the last part is left, which is K1 again in 16 bytes
    if len(parts) == 3 and hmac.compare_digest(parts[1], parts[2]):
        return DES, bytes(raw[:BLOCK])
    return DES3, bytes(raw)


def encrypt(key: Secret, clear: bytes | bytearray, iv: bytes | None = None) -> bytes:
    """ECB, or CBC when an iv of 8 bytes is given; `clear` is whole blocks of 8. Raises CryptoError."""
    _whole_blocks(clear)
    module, raw = engine(key)
    cipher = module.new(raw, module.MODE_ECB) if iv is None else module.new(raw, module.MODE_CBC, iv=iv)
    return bytes(cipher.encrypt(clear))


def decrypt(key: Secret, data: bytes, iv: bytes | None = None) -> Secret:
    """The reverse; what comes out is secret. `data` is whole blocks of 8. Raises CryptoError."""
    _whole_blocks(data)
    module, raw = engine(key)
    cipher = module.new(raw, module.MODE_ECB) if iv is None else module.new(raw, module.MODE_CBC, iv=iv)
    clear = bytearray(len(data))
    cipher.decrypt(data, output=clear)
    return Secret.taking(clear)


def _whole_blocks(data: bytes | bytearray) -> None:
    if not data or len(data) % BLOCK:
        raise CryptoError("DES works on whole blocks of 8 bytes")


def zero_kcv(key: Secret) -> Kcv:
    """The usual check value: the first 3 bytes of an encrypted zero block (ANSI X9.24-1:2017 Annex A).

    For DES and 3DES keys and components, whatever their parity or soundness. An AES key has a CMAC value instead.
    """
    return Kcv(encrypt(key, bytes(BLOCK))[:ZERO_BYTES])
