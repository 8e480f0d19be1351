"""This file knows how a password is kept: as a scrypt hash with its own salt, compared in constant time.

    scrypt$<log2 N>$<r>$<p>$<salt, hex>$<hash, hex>       N = 2^15, r = 8, p = 1: 32 MiB a try

The parameters travel with the hash, so that they can grow without a flag day. Source: RFC 7914, sections 2 and 6.
"""

import hmac
import secrets

from Crypto.Protocol.KDF import scrypt

LOG_N, R, P = 15, 8, 1
SALT, LENGTH = 16, 32
LEAST = 10
"""Characters of a password at the least."""


def hashed(password: str) -> str:
    """The text to keep of a password. Raises ValueError with a sentence when it is too short."""
    if len(password) < LEAST:
        raise ValueError(f"a password has at least {LEAST} characters")
    salt = secrets.token_bytes(SALT)
    return f"scrypt${LOG_N}${R}${P}${salt.hex()}${_derive(password, salt, LOG_N, R, P).hex()}"


def fits(password: str, kept: str) -> bool:
    """Whether a password is the one that was hashed; false for a text that is no hash, after the same work."""
    try:
        name, log_n, r, p, salt, digest = kept.split("$")
        wanted = bytes.fromhex(digest)
        numbers = int(log_n), int(r), int(p)
        if name != "scrypt" or not (10 <= numbers[0] <= 20 and numbers[1] <= 16 and numbers[2] <= 4):
            raise ValueError(name)
        found = _derive(password, bytes.fromhex(salt), *numbers)
    except ValueError:
        found, wanted = _derive(password, bytes(SALT), LOG_N, R, P), b""
    return hmac.compare_digest(found, wanted)


def _derive(password: str, salt: bytes, log_n: int, r: int, p: int) -> bytes:
    derived = scrypt(password, salt.hex(), LENGTH, 2**log_n, r, p)
    return derived if isinstance(derived, bytes) else derived[0]  # a list only where several keys are asked for
