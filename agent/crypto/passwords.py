"""This file knows how a password is kept: as a scrypt hash with its own salt, compared in constant time.

    scrypt$<log2 N>$<r>$<p>$<salt, hex>$<hash, hex>       N = 2^15, r = 8, p = 1: 32 MiB a try

The parameters travel with the hash, so that they can grow without a flag day. What is hashed is the UTF-8 of the
password in composed form (NFC): two keyboards spell one character in two ways. Source: RFC 7914, sections 2 and 6;
RFC 8265, section 4.2.2.
"""

import hmac
import secrets
import unicodedata

from Crypto.Protocol.KDF import scrypt

LOG_N, R, P = 15, 8, 1
SALT, LENGTH = 16, 32
LEAST = 10
"""Characters of a password at the least."""


def hashed(password: str) -> str:
    """The text to keep of a password. Raises ValueError with a sentence when it is too short."""
    if len(unicodedata.normalize("NFC", password)) < LEAST:
        raise ValueError(f"a password has at least {LEAST} characters")
    salt = secrets.token_bytes(SALT)
    return f"scrypt${LOG_N}${R}${P}${salt.hex()}${_derive(password, salt, LOG_N, R, P).hex()}"


def fits(password: str, kept: str) -> bool:
    """Whether a password is the one that was hashed; false for a text that is no hash, after the same work."""
    try:
        name, log_n, r, p, salt, digest = kept.split("$")
        wanted = bytes.fromhex(digest)
        numbers = int(log_n), int(r), int(p)
        if name != "scrypt" or not (10 <= numbers[0] <= 20 and 1 <= numbers[1] <= 16 and 1 <= numbers[2] <= 4):
            raise ValueError(name)
        found = _derive(password, bytes.fromhex(salt), *numbers)
    except ValueError:
        found, wanted = _derive(password, bytes(SALT), LOG_N, R, P), b""
    return hmac.compare_digest(found, wanted)


def _derive(password: str, salt: bytes, log_n: int, r: int, p: int) -> bytes:
    # Half a character fits nothing, like any other wrong password.
    typed = unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")
    # Not hashlib's, which takes twice as long for the same: whoever logs in waits, and whoever guesses need not.
    return bytes(scrypt(typed, salt.hex().encode(), LENGTH, 2**log_n, r, p))
