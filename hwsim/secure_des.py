"""This file knows DES, 3DES and AES as the simulated secure device computes them. It shares no code with agent/.

Everything is put together here from the bare block ciphers of pycryptodome: EDE, CBC, CMAC, check values. Sources:
FIPS 46-3, FIPS 197, NIST SP 800-67 (EDE, weak keys), SP 800-38B (CMAC). A key is bytes, its algorithm a letter:
D DES (8 bytes), T triple DES (16 or 24), A AES (16, 24 or 32). The lowest bit of a DES byte is parity and takes no
part in the encryption.
"""

from collections.abc import Callable
from itertools import pairwise

from Crypto.Cipher import AES, DES

LENGTHS = {"D": (8,), "T": (16, 24), "A": (16, 24, 32)}
"""Algorithm -> how many bytes a key of it can have."""
_WEAK = """
    0101010101010101 FEFEFEFEFEFEFEFE E0E0E0E0F1F1F1F1 1F1F1F1F0E0E0E0E
    011F011F010E010E 1F011F010E010E01 01E001E001F101F1 E001E001F101F101 01FE01FE01FE01FE FE01FE01FE01FE01
    1FE01FE00EF10EF1 E01FE01FF10EF10E 1FFE1FFE0EFE0EFE FE1FFE1FFE0EFE0E E0FEE0FEF1FEF1FE FEE0FEE0FEF1FEF1
"""
_REDUCE = {8: 0x1B, 16: 0x87}
"""The low byte of the polynomial that CMAC doubles with, by block length."""

Step = Callable[[bytes], bytes]


def _bare(key: bytes) -> bytes:
    """A key without its parity bits, for comparing."""
    return bytes(byte & 0xFE for byte in key)


WEAK = frozenset(_bare(bytes.fromhex(word)) for word in _WEAK.split())


def xor(left: bytes, right: bytes) -> bytes:
    """Two byte strings of one length, added bit by bit."""
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def odd(key: bytes) -> bytes:
    """The same DES key with odd parity in every byte."""
    return bytes((byte & 0xFE) | (1 - (byte & 0xFE).bit_count() % 2) for byte in key)


def parts(key: bytes) -> list[bytes]:
    """The 8-byte parts of a DES key."""
    return [key[at : at + 8] for at in range(0, len(key), 8)]


def strength(algorithm: str, key: bytes) -> int:
    """What a key is worth in bits: DES 56, two keys 80, three 112, AES its length (SP 800-57-1 rev. 4, table 2)."""
    if algorithm == "A":
        return len(key) * 8
    return (56, 80, 112)[len(set(parts(_bare(key)))) - 1]


def unsound(algorithm: str, key: bytes) -> str:
    """Why a key may not be used, as the end of a sentence ("it has ..."); empty when it is sound."""
    if len(key) not in LENGTHS[algorithm]:
        return "it has a wrong length"
    if algorithm == "A":
        return "all its bytes are the same" if len(set(key)) == 1 else ""
    found = parts(_bare(key))
    if any(one == next_one for one, next_one in pairwise(found)):
        return "two of its parts are the same, so it is worth a single DES key"
    if any(part in WEAK for part in found):
        return "a part of it is a weak DES key"
    return ""


class Cipher:
    """One key, ready to work. `size` is the block length in bytes."""

    def __init__(self, algorithm: str, key: bytes) -> None:
        self.size = 16 if algorithm == "A" else 8
        if algorithm == "A":
            whole = AES.new(key, AES.MODE_ECB)
            self._forth: list[Step] = [whole.encrypt]
            self._back: list[Step] = [whole.decrypt]
            return
        # Encrypt, decrypt, encrypt; the third key of a double-length key is its first.
        keys = parts(key)
        keys = keys if len(keys) != 2 else [*keys, keys[0]]
        single = [DES.new(part, DES.MODE_ECB) for part in keys]  # noqa: S304 - the subject
        self._forth = [c.decrypt if n % 2 else c.encrypt for n, c in enumerate(single)]
        self._back = [c.encrypt if n % 2 else c.decrypt for n, c in reversed(list(enumerate(single)))]

    def encrypt(self, block: bytes) -> bytes:
        """One block."""
        for step in self._forth:
            block = step(block)
        return block

    def decrypt(self, block: bytes) -> bytes:
        """One block."""
        for step in self._back:
            block = step(block)
        return block

    def blocks(self, data: bytes) -> list[bytes]:
        """Data cut into blocks. Raises ValueError when the last one is not whole."""
        if len(data) % self.size:
            raise ValueError("not whole blocks")
        return [data[at : at + self.size] for at in range(0, len(data), self.size)]

    def ecb_decrypt(self, data: bytes) -> bytes:
        """Whole blocks, each alone."""
        return b"".join(self.decrypt(block) for block in self.blocks(data))

    def cbc_decrypt(self, iv: bytes, data: bytes) -> bytes:
        """Whole blocks, chained."""
        blocks = self.blocks(data)
        return b"".join(
            xor(self.decrypt(block), before) for block, before in zip(blocks, [iv, *blocks], strict=False)
        )

    def cbc_mac(self, data: bytes) -> bytes:
        """The last block of a CBC encryption that begins with zeros."""
        last = bytes(self.size)
        for block in self.blocks(data):
            last = self.encrypt(xor(last, block))
        return last

    def cmac(self, data: bytes) -> bytes:
        """SP 800-38B."""
        whole = bool(data) and len(data) % self.size == 0
        mask = self._doubled(self.encrypt(bytes(self.size)))
        if not whole:
            mask = self._doubled(mask)
            data += b"\x80" + bytes(-(len(data) + 1) % self.size)
        return self.cbc_mac(data[: -self.size] + xor(data[-self.size :], mask))

    def _doubled(self, block: bytes) -> bytes:
        number = int.from_bytes(block) << 1
        if number >> (8 * self.size):
            number ^= 1 << (8 * self.size) | _REDUCE[self.size]
        return number.to_bytes(self.size)


def check_value(algorithm: str, key: bytes, method: str = "zero") -> str:
    """The public check value in hex: 3 bytes, with CMAC 5. AES has CMAC only, cut to 3 bytes for "zero" and "self".

    zero: of a block of zeros; self: of the key's own first 8 bytes; cmac: CMAC of a block of zeros.
    """
    cipher = Cipher(algorithm, key)
    if method == "cmac" or algorithm == "A":  # PCI PIN 15-1: nothing else is allowed for AES
        return cipher.cmac(bytes(cipher.size))[: 5 if method == "cmac" else 3].hex().upper()
    return cipher.encrypt(key[:8] if method == "self" else bytes(8))[:3].hex().upper()
