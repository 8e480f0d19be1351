"""This file knows the message authentication codes that pads and hosts around us use. For the key room only.

    X9.9, FIPS 113, ISO 9797-1 algorithm 1   CBC-MAC                                        `cbc_mac`
    X9.19, ISO 9797-1 algorithm 3            CBC-MAC with K1, then decrypt K2, encrypt K1    `retail_mac`
    NIST SP 800-38B, ISO 9797-1:2011 alg. 5  CMAC over 3DES or AES                           `cmac`, `aes_cmac`
    UnionPay POS                             ECB MAC: fold, write as hex, encrypt in two halves `unionpay_mac`

Each returns the whole block; hosts keep the left 4 bytes of the CBC ones. Compare with `hmac.compare_digest`.
Padding follows ISO 9797-1 section 6.3: 1 zeros up to a block (nothing when it fits), 2 a bit 1 and then zeros,
3 zeros behind and the length in bits in front.
"""

from collections.abc import Callable

from Crypto.Cipher import AES
from Crypto.Hash import CMAC

from agent.crypto import des
from agent.crypto.kcv import CMAC_BYTES, Kcv
from agent.crypto.secret import Secret, xor_into
from agent.errors import CryptoError, KeyRefused

AES_BLOCK = 16


def pad(data: bytes | bytearray, method: int, block: int = des.BLOCK) -> bytes:
    """Whole blocks by ISO 9797-1 padding method 1, 2 or 3. Raises CryptoError for any other method."""
    if method == 2:
        return bytes(data) + b"\x80" + bytes(-(len(data) + 1) % block)
    filled = bytes(data) + bytes(-len(data) % block) if data else bytes(block)
    if method == 3:
        return (len(data) * 8).to_bytes(block, "big") + filled
    if method != 1:
        raise CryptoError("padding is method 1, 2 or 3 of ISO 9797-1")
    return filled


def cbc_mac(key: Secret, data: bytes | bytearray, padding: int = 1) -> bytes:
    """X9.9 with a single-length key; ISO 16609 with a 3DES key. 8 bytes."""
    return des.encrypt(key, pad(data, padding), bytes(des.BLOCK))[-des.BLOCK :]


def retail_mac(key: Secret, data: bytes | bytearray, padding: int = 1) -> bytes:
    """X9.19 with a double-length key. 8 bytes. Raises KeyRefused for any other length."""
    if len(key) != 2 * des.BLOCK:
        raise KeyRefused("a retail MAC needs a key of 16 bytes")
    with Secret(key.reveal()[: des.BLOCK]) as left, Secret(key.reveal()[des.BLOCK :]) as right:
        middle = des.decrypt(right, cbc_mac(left, data, padding))
        return des.encrypt(left, middle.reveal())


def cmac(key: Secret, data: bytes | bytearray) -> bytes:
    """CMAC over 3DES. 8 bytes. Raises KeyRefused for a key of 8 bytes: CMAC over single DES has no use."""
    if len(key) == des.BLOCK:
        raise KeyRefused("CMAC needs a 3DES key")
    module, raw = des.engine(key)
    return CMAC.new(raw, msg=data, ciphermod=module).digest()


def aes_cmac(key: Secret, data: bytes | bytearray) -> bytes:
    """CMAC over AES. 16 bytes. Raises KeyRefused for a wrong length."""
    if len(key) not in AES.key_size:
        raise KeyRefused("an AES key has 16, 24 or 32 bytes")
    return CMAC.new(bytes(key.reveal()), msg=data, ciphermod=AES).digest()


def cmac_kcv(key: Secret) -> Kcv:
    """The 5-byte check value of a 3DES key by CMAC (ANSI X9.24-1:2017 Annex A)."""
    return Kcv(cmac(key, bytes(des.BLOCK))[:CMAC_BYTES], "cmac")


def aes_kcv(key: Secret) -> Kcv:
    """The 5-byte check value of an AES key; the zero method is not allowed for AES (PCI PIN 15-1)."""
    return Kcv(aes_cmac(key, bytes(AES_BLOCK))[:CMAC_BYTES], "cmac")


def fold(data: bytes | bytearray, block: int = des.BLOCK) -> bytes:
    """All blocks of the data, filled with zeros, XORed into one."""
    filled = pad(data, 1, block)
    total = bytearray(block)
    for start in range(0, len(filled), block):
        xor_into(total, filled[start : start + block])
    return bytes(total)


def ecb_mac(encrypt: Callable[[bytes], bytes], data: bytes | bytearray, block: int = des.BLOCK) -> bytes:
    """UnionPay's scheme over any block cipher: `encrypt` enciphers one block. Returns one block.

    Fold; write as upper-case hex, which is two blocks; encrypt the first; XOR the second into it; encrypt again.
    """
    digits = fold(data, block).hex().upper().encode()
    middle = bytearray(encrypt(digits[:block]))
    xor_into(middle, digits[block:])
    return encrypt(bytes(middle))


def unionpay_mac(key: Secret, data: bytes | bytearray) -> bytes:
    """Field 64 of a UnionPay POS message: the first 8 hex digits of the ECB MAC, as 8 ASCII bytes.

    A double-length MAK is used as 3DES in both steps, as most acquirers do: ask yours (the texts disagree).
    """
    return ecb_mac(lambda clear: des.encrypt(key, clear), data).hex().upper()[:8].encode()
