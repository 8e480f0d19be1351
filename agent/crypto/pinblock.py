"""This file knows the PIN blocks of ISO 9564-1: formats 0 to 3 for 3DES, format 4 for AES. For the key room only.

    0  `0 L PIN F..F`       XOR `0000` + the 12 digits of the card number before its check digit
    1  `1 L PIN random`     without a card number
    2  `2 L PIN F..F`       without a card number; to a chip card only, never on a network
    3  `3 L PIN random A-F` XOR the card number as in format 0
    4  `4 L PIN A..A` + 8 random bytes, AES encrypted, XOR card number field, AES encrypted again

PIN and card number are `Secret`s of ASCII digits, and so is what comes out. A block that does not decode gets one
sentence whatever the reason: whoever may try blocks must not learn from the answer.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from Crypto.Cipher import AES
from Crypto.Random import get_random_bytes

from agent.crypto.secret import Secret, wipe, xor_into
from agent.errors import CryptoError, KeyRefused, NotAuthentic

if TYPE_CHECKING:
    from Crypto.Cipher._mode_ecb import EcbMode

SHORTEST, LONGEST = 4, 12
LONGEST_PAN = 19
Random = Callable[[int], bytes]


def encode(form: int, pin: Secret, pan: Secret | None = None, random: Random = get_random_bytes) -> Secret:
    """The clear block of format 0, 1, 2 or 3: 8 bytes, to be encrypted at once. Raises CryptoError.

    random: gives n random bytes; only tests give another one than the operating system's.
    """
    _digits(pin, SHORTEST, LONGEST, "a PIN has 4 to 12 digits")
    missing = 14 - len(pin)
    match form:
        case 0 | 2:
            fill = bytearray(b"\x0f" * missing)
        case 1:
            fill = _unpack(random((missing + 1) // 2))[:missing]
        case 3:
            fill = _letters(missing, random)
        case _:
            raise CryptoError("a PIN block has format 0, 1, 2 or 3; format 4 needs its key: use encipher")
    block = _field(form, pin, fill)
    if form in (0, 3):
        xor_into(block, _account(pan))
    return Secret.taking(block)


def decode(form: int, block: Secret, pan: Secret | None = None) -> Secret:
    """The PIN in a clear block of format 0, 1, 2 or 3.

    Raises NotAuthentic when there is none in it, CryptoError for misuse.
    """
    fills = {0: b"\x0f", 1: bytes(range(16)), 2: b"\x0f", 3: bytes(range(10, 16))}
    if form not in fills:
        raise CryptoError("a PIN block has format 0, 1, 2 or 3; format 4 needs its key: use decipher")
    if len(block) != 8:
        raise NotAuthentic
    clear = bytearray(block.reveal())
    if form in (0, 3):
        xor_into(clear, _account(pan))
    return _pin_in(clear, form, fills[form])


def encipher(key: Secret, pin: Secret, pan: Secret, random: Random = get_random_bytes) -> bytes:
    """The encrypted block of format 4: 16 bytes. Raises CryptoError for a PIN, card number or key that is none."""
    cipher = _aes(key)
    with pin_field(pin, random) as clear, pan_field(pan) as account:
        middle = bytearray(cipher.encrypt(clear.reveal()))
        xor_into(middle, account.reveal())
        return bytes(cipher.encrypt(middle))


def decipher(key: Secret, data: bytes, pan: Secret) -> Secret:
    """The PIN in an encrypted block of format 4. Raises NotAuthentic when there is none, CryptoError for misuse."""
    cipher = _aes(key)
    with pan_field(pan) as account:
        if len(data) != 16:
            raise NotAuthentic
        middle = bytearray(cipher.decrypt(data))
        xor_into(middle, account.reveal())
        clear = bytearray(16)
        cipher.decrypt(middle, output=clear)
        return _pin_in(clear[:8], 4, b"\x0a")


def pin_field(pin: Secret, random: Random = get_random_bytes) -> Secret:
    """The clear PIN field of format 4: 16 bytes, the last 8 random. Raises CryptoError."""
    _digits(pin, SHORTEST, LONGEST, "a PIN has 4 to 12 digits")
    field = _field(4, pin, bytearray(b"\x0a" * (14 - len(pin))))
    return Secret.taking(field + random(8))


def pan_field(pan: Secret) -> Secret:
    """The card number field of format 4: 16 bytes. The first digit counts the digits beyond twelve."""
    _digits(pan, 1, LONGEST_PAN, "a card number has up to 19 digits")
    digits = bytearray(max(0, 12 - len(pan))) + _values(pan)
    return Secret.taking(_pack(bytearray([len(digits) - 12]) + digits + bytes(31 - len(digits))))


def _aes(key: Secret) -> "EcbMode":
    if len(key) not in AES.key_size:
        raise KeyRefused("an AES key has 16, 24 or 32 bytes")
    return AES.new(bytes(key.reveal()), AES.MODE_ECB)


def _field(form: int, pin: Secret, fill: bytearray) -> bytearray:
    return _pack(bytearray([form, len(pin)]) + _values(pin) + fill)


def _account(pan: Secret | None) -> bytearray:
    if pan is None:
        raise CryptoError("this PIN block format needs the card number")
    _digits(pan, 13, LONGEST_PAN, "a card number has 13 to 19 digits")
    return _pack(bytearray(4) + _values(pan)[-13:-1])


def _pin_in(clear: bytearray, form: int, fill: bytes) -> Secret:
    """The PIN of a clear field of 8 bytes, which is overwritten; every fault is looked for before one is told."""
    nibbles = _unpack(clear)
    wipe(clear)
    length = min(max(nibbles[1], SHORTEST), LONGEST)
    pin, rest = nibbles[2 : 2 + length], nibbles[2 + length :]
    faults = [nibbles[0] != form, nibbles[1] != length, max(pin) > 9, not set(rest) <= set(fill)]
    found = Secret.taking(bytearray(ord("0") + digit for digit in pin))
    for buffer in (nibbles, pin, rest):
        wipe(buffer)
    if any(faults):
        found.wipe()
        raise NotAuthentic
    return found


def _digits(secret: Secret, shortest: int, longest: int, sentence: str) -> None:
    if not shortest <= len(secret) <= longest or set(secret.reveal()) - set(b"0123456789"):
        raise CryptoError(sentence)


def _values(digits: Secret) -> bytearray:
    return bytearray(byte - ord("0") for byte in digits.reveal())


def _letters(count: int, random: Random) -> bytearray:
    """Random nibbles from A to F, each as likely as the others: bytes over 251 are drawn again."""
    found = bytearray()
    while len(found) < count:
        found += bytes(10 + byte % 6 for byte in random(count) if byte < 252)
    return found[:count]


def _pack(nibbles: bytearray) -> bytearray:
    return bytearray(high << 4 | low for high, low in zip(nibbles[::2], nibbles[1::2], strict=True))


def _unpack(packed: bytes | bytearray) -> bytearray:
    return bytearray(nibble for byte in packed for nibble in (byte >> 4, byte & 0x0F))
