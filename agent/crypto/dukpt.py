"""This file knows DUKPT with 3DES: a key for each transaction, derived from a serial number. Key room only.

Source: ANSI X9.24-1:2009 Annex A (A.4 examples, A.6 initial key); X9.24-3:2017 Annex C.
The key serial number (KSN) is 10 bytes: key set and device id in the first 59 bits, a 21-bit counter at the end.
A counter with more than ten one-bits is never used, so a device has about a million transactions.
"""

from typing import Literal

from agent.crypto import des
from agent.crypto.secret import Secret, xor_into
from agent.errors import CryptoError, KeyRefused

COUNTER_BITS = 21
COUNTER = (1 << COUNTER_BITS) - 1
MOST_ONES = 10
KSN_BYTES = 10

Purpose = Literal["pin", "mac request", "mac response", "data request", "data response"]
_VARIANTS: dict[Purpose, bytes] = {
    "pin": bytes.fromhex("00000000000000FF") * 2,
    "mac request": bytes.fromhex("000000000000FF00") * 2,
    "mac response": bytes.fromhex("00000000FF000000") * 2,
    "data request": bytes.fromhex("0000000000FF0000") * 2,
    "data response": bytes.fromhex("000000FF00000000") * 2,
}
_RIGHT = bytes.fromhex("C0C0C0C000000000") * 2


def initial_key(bdk: Secret, ksn: bytes) -> Secret:
    """The key a device is loaded with (IPEK), from the base key; the counter in the KSN does not matter."""
    _double(bdk)
    top = (_number(ksn) & ~COUNTER).to_bytes(KSN_BYTES, "big")[: des.BLOCK]
    with _varied(bdk, _RIGHT) as right:
        return Secret.taking(bytearray(des.encrypt(bdk, top) + des.encrypt(right, top)))


def transaction_key(initial: Secret, ksn: bytes) -> Secret:
    """The key of one transaction, from the initial key. Not for use itself: take a `working_key` of it.

    Raises CryptoError for a counter of zero, or with more than ten one-bits: no device sends these.
    """
    _double(initial)
    number = _number(ksn)
    counter = number & COUNTER
    if not 0 < counter.bit_count() <= MOST_ONES:
        raise CryptoError("the counter of this key serial number is one that no device uses")
    key = Secret(initial.reveal())
    serial = number & ~COUNTER
    for place in reversed(range(COUNTER_BITS)):
        if counter >> place & 1:
            serial |= 1 << place
            with key as spent:
                key = _next(spent, serial.to_bytes(KSN_BYTES, "big")[-des.BLOCK :])
    return key


def working_key(transaction: Secret, purpose: Purpose) -> Secret:
    """The key for one purpose. Data keys go through one more step than the others."""
    _double(transaction)
    key = _varied(transaction, _VARIANTS[purpose])
    if purpose.startswith("data"):
        with key as variant:
            key = Secret.taking(bytearray(des.encrypt(variant, variant.reveal())))
    return key


def next_counter(counter: int) -> int:
    """The counter that a device uses after this one. Raises CryptoError after the last: the device is spent."""
    counter += 1
    while counter.bit_count() > MOST_ONES:
        # Adding the lowest one-bit skips the whole run of counters that have these bits and more.
        counter += counter & -counter
    if counter > COUNTER:
        raise CryptoError("this device has used all its keys: load a new initial key")
    return counter


def _next(key: Secret, serial: bytes) -> Secret:
    """The non-reversible key generation of Annex A: left half from the variant key, right half from the key."""
    with _varied(key, _RIGHT) as variant:
        return Secret.taking(_half(variant, serial) + _half(key, serial))


def _half(key: Secret, serial: bytes) -> bytearray:
    left, right = key.reveal()[: des.BLOCK], key.reveal()[des.BLOCK :]
    with Secret.taking(left) as single, Secret.taking(right) as mask:
        block = bytearray(serial)
        xor_into(block, mask.reveal())
        half = bytearray(des.encrypt(single, block))
        xor_into(half, mask.reveal())
        return half


def _varied(key: Secret, mask: bytes) -> Secret:
    varied = bytearray(key.reveal())
    xor_into(varied, mask)
    return Secret.taking(varied)


def _double(key: Secret) -> None:
    if len(key) != 2 * des.BLOCK:
        raise KeyRefused("DUKPT with 3DES works on keys of 16 bytes")


def _number(ksn: bytes) -> int:
    if len(ksn) != KSN_BYTES:
        raise CryptoError("a key serial number has 10 bytes; a shorter one is filled with FF in front")
    return int.from_bytes(ksn, "big")
