"""This file knows Ed25519 keys (RFC 8032): which public keys may be trusted, and where private ones are kept.

A key's id is the SHA-256 of its SubjectPublicKeyInfo, in URL-safe base64. Anybody can compute it:

    openssl pkey -pubin -in key.pem -outform DER | openssl dgst -sha256 -binary | basenc --base64url
"""

import base64
import hashlib
from typing import NoReturn

from Crypto.PublicKey import ECC
from Crypto.Signature import eddsa

from agent.crypto.secret import Secret, wipe
from agent.errors import KeyRefused

P = 2**255 - 19
# The y of the eight points whose order divides 8; a key there makes one signature hold for every message.
_Y_OF_ORDER_8 = 2707385501144840649318225287225658788936804267575313519463743609750303402022
SMALL_ORDER = frozenset({0, 1, P - 1, _Y_OF_ORDER_8, P - _Y_OF_ORDER_8})


class PublicKey:
    """An Ed25519 public key that may be trusted with signatures; `raw` is its 32 bytes (RFC 8032 5.1.2).

    Raises KeyRefused for another length, a number that stands for no point, a second spelling of a point, and the
    eight points of small order.
    """

    __slots__ = ("_key", "id", "raw")

    def __init__(self, raw: bytes) -> None:
        y = int.from_bytes(raw, "little") & (2**255 - 1)
        if len(raw) != 32:
            raise KeyRefused("an Ed25519 public key has 32 bytes")
        if y >= P:
            raise KeyRefused("this public key is not written in the one allowed way: its number is too large")
        if y in SMALL_ORDER:
            raise KeyRefused(
                "this public key has a small order, so anybody could sign for it: do not trust its source"
            )
        try:
            self._key = eddsa.import_public_key(raw)
        except ValueError:
            raise KeyRefused("this public key is not a point of Ed25519") from None
        self.raw = bytes(raw)
        digest = hashlib.sha256(self._key.export_key(format="DER")).digest()
        self.id = base64.urlsafe_b64encode(digest).decode()

    @classmethod
    def from_pem(cls, text: str) -> "PublicKey":
        """From a PEM file with a SubjectPublicKeyInfo (RFC 8410 4). Raises KeyRefused."""
        return cls(_ed25519(text, None, private=False).export_key(format="raw"))

    @property
    def pem(self) -> str:
        """The key as a PEM file; `openssl pkey -pubin` reads it."""
        return str(self._key.export_key(format="PEM")) + "\n"

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether the signature (64 bytes) is by this key, over exactly this message."""
        try:
            # It raises instead of telling; it also refuses S beyond the group's order, a second spelling.
            eddsa.new(self._key, "rfc8032").verify(message, signature)
        except ValueError:
            return False
        return True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and self.raw == other.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"<PublicKey {self.id}>"


class SigningKey:
    """A private Ed25519 key; no repr, pickle or copy shows it. What Secret says of memory holds here as well."""

    __slots__ = ("_key", "public")

    def __init__(self, seed: Secret) -> None:
        """From its 32 bytes (RFC 8032 5.1.5). Raises KeyRefused."""
        if len(seed) != 32:
            raise KeyRefused("an Ed25519 private key has 32 bytes")
        self._key = eddsa.import_private_key(bytes(seed.reveal()))
        self.public = PublicKey(self._key.public_key().export_key(format="raw"))

    @classmethod
    def generate(cls) -> "SigningKey":
        """A new key."""
        return cls(Secret(ECC.generate(curve="Ed25519").seed))

    @classmethod
    def from_pem(cls, text: str, passphrase: Secret | None = None) -> "SigningKey":
        """From a PKCS#8 file, encrypted or not. Raises KeyRefused, also for a wrong passphrase."""
        return cls(Secret(_ed25519(text, passphrase, private=True).seed))

    def pem(self, passphrase: Secret) -> str:
        """The key as a PKCS#8 file under a passphrase (scrypt, AES-256); `openssl pkey` reads it."""
        text = self._key.export_key(
            format="PEM",
            passphrase=bytes(passphrase.reveal()),
            protection="scryptAndAES256-CBC",
            # 16 MiB of memory: OpenSSL refuses a file that asks for 32 or more.
            prot_params={"iteration_count": 16384, "block_size": 8, "parallelization": 1},
        )
        return str(text) + "\n"

    def seed(self) -> Secret:
        """The 32 bytes, for sealing.py."""
        return Secret(self._key.seed)

    def sign(self, message: bytes) -> bytes:
        """A signature, 64 bytes."""
        return bytes(eddsa.new(self._key, "rfc8032").sign(message))

    def __repr__(self) -> str:
        return f"<SigningKey {self.public.id}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SigningKey can be neither pickled nor copied")


def _ed25519(text: str, passphrase: Secret | None, *, private: bool) -> ECC.EccKey:
    words = bytearray() if passphrase is None else bytearray(passphrase.reveal())
    try:
        key = ECC.import_key(text, bytes(words) if words else None)
        if key.curve == "Ed25519" and key.has_private() is private:
            return key
    except (ValueError, IndexError, TypeError):
        pass  # whatever the library says may repeat what it read
    finally:
        wipe(words)
    if private:
        raise KeyRefused("this is not an Ed25519 private key, or the passphrase is wrong")
    raise KeyRefused("this is not an Ed25519 public key: give its whole file, as it was made")
