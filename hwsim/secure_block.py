"""This file knows TR-31 key blocks as the simulated secure device opens them. It shares no code with agent/.

Written from the layout that openemv/tr31 and psec print and from the published examples (TR-31:2018 A.7,
X9.143:2021 8.1 to 8.6):

    version A-D, length (4 decimals), usage (2), algorithm, mode, key version (2), exportability, number of optional
    blocks (2 decimals), context, "0"; optional blocks; payload in hex; MAC in hex
    A, C   keys = protection key xor 45.. and 4D..; CBC from the header's first 8 bytes; CBC-MAC of header and
           ciphertext, 4 bytes
    B, D   keys by CMAC counter derivation; CBC from the MAC; CMAC of header and clear payload, 8 or 16 bytes
    clear payload: length of the key in bits (2 bytes), key, random padding

Whatever is wrong behind the header is said in one sentence: who asks must not learn whether it was the MAC, the
length or the padding.
"""

import hmac
import re
from dataclasses import dataclass, field

from hwsim.secure_des import Cipher, xor

MAC_BYTES = {"A": 4, "B": 8, "C": 4, "D": 16}
MOST_PADDING = 32
USAGES = {
    *("B0", "B1", "B2", "B3", "C0", "D0", "D1", "D2", "D3", "E0", "E1", "E2", "E3", "E4", "E5", "E6", "E7", "I0"),
    *("K0", "K1", "K2", "K3", "K4", "M0", "M1", "M2", "M3", "M4", "M5", "M6", "M7", "M8", "P0", "P1"),
    *("S0", "S1", "S2", "V0", "V1", "V2", "V3", "V4", "V5"),
}
_HEADER = re.compile(
    r"[ABCD](?P<length>\d{4})(?P<usage>[A-Z]\d)(?P<algorithm>[ADEHRST])(?P<mode>[BCDEGNSTVXY])"
    r"(?P<version>[0-9A-Za-z]{2})(?P<exportability>[ENS])(?P<optional>\d\d)[012]0",
    re.ASCII,
)
_ID = re.compile(r"[A-Z][A-Z0-9]")
_HEX = re.compile(r"[0-9A-F]*")
DERIVE = {("T", 16): 0, ("T", 24): 1, ("A", 16): 2, ("A", 24): 3, ("A", 32): 4}
"""Protection key -> its algorithm number in the derivation input."""


class BlockError(Exception):
    """A block that is not opened. `code` is the XFS4IoT error word."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


@dataclass(frozen=True)
class Opened:
    """What was in a block."""

    usage: str
    algorithm: str
    mode: str
    version: str
    exportability: str
    key: bytes = field(repr=False)


def block_keys(version: str, algorithm: str, key: bytes) -> tuple[bytes, bytes]:
    """The encryption key and the MAC key of a block, from the protection key. Neither gets its parity fixed."""
    if version in "AC":
        return xor(key, b"\x45" * len(key)), xor(key, b"\x4d" * len(key))
    derive, bits = Cipher(algorithm, key), len(key) * 8

    def derived(use: int) -> bytes:
        made, counter = b"", 0
        while len(made) < len(key):
            counter += 1
            said = (counter, 0, use, 0, 0, DERIVE[algorithm, len(key)], bits >> 8, bits & 0xFF)
            made += derive.cmac(bytes(said))
        return made[: len(key)]

    return derived(0), derived(1)


def open_block(text: str, algorithm: str, key: bytes) -> Opened:
    """Check and decrypt a block with its protection key. Raises BlockError."""
    version = text[:1]
    if version not in MAC_BYTES:
        raise BlockError("formatNotSupported", "the key block has a version that this device does not know")
    if algorithm != ("A" if version == "D" else "T"):
        raise BlockError("algorithmNotSupported", "the protection key does not fit the version of the block")
    header = _HEADER.match(text)
    if not header or int(header["length"]) != len(text) or header["usage"] not in USAGES:
        raise BlockError("formatInvalid", "the header of the key block cannot be read")
    step, mac_digits = (16 if version == "D" else 8), 2 * MAC_BYTES[version]
    body = header.end() + _optional_blocks(text, header.end(), int(header["optional"]))
    payload, mac = text[body:-mac_digits], text[-mac_digits:]
    whole = body % step == 0 and len(payload) % (2 * step) == 0 and len(text) >= body + 2 * step + mac_digits
    if not whole or not _HEX.fullmatch(payload + mac):
        raise BlockError("formatInvalid", "the key block is not whole")
    head, sealed, tag = text[:body].encode("ascii"), bytes.fromhex(payload), bytes.fromhex(mac)
    kbek, kbmk = block_keys(version, algorithm, key)
    if version in "AC":
        good = hmac.compare_digest(Cipher(algorithm, kbmk).cbc_mac(head + sealed)[: len(tag)], tag)
        clear = Cipher(algorithm, kbek).cbc_decrypt(head[:8], sealed)
    else:
        clear = Cipher(algorithm, kbek).cbc_decrypt(tag, sealed)
        good = hmac.compare_digest(Cipher(algorithm, kbmk).cmac(head + clear), tag)
    bits = int.from_bytes(clear[:2]) if good else 0
    padding = len(clear) - 2 - bits // 8
    if bits == 0 or bits % 8 or not 0 <= padding <= MOST_PADDING:
        raise BlockError("contentInvalid", "the key block is not authentic")
    found = clear[2 : 2 + bits // 8]
    return Opened(
        header["usage"], header["algorithm"], header["mode"], header["version"], header["exportability"], found
    )


def _optional_blocks(text: str, at: int, count: int) -> int:
    """How many characters the optional blocks take. Raises BlockError."""
    begun, seen = at, list[str]()
    for _ in range(count):
        found = _ID.match(text, at)
        size = _hexadecimal(text[at + 2 : at + 4])
        body = 4
        if size == 0:  # extended: how many digits the length has, then the length
            digits = _hexadecimal(text[at + 4 : at + 6])
            size, body = _hexadecimal(text[at + 6 : at + 6 + digits]) if digits == 4 else -1, 6 + digits
        data = text[at + body : at + size]
        ends = size >= body and at + size <= len(text)
        if not found or not ends or found[0] in seen or "PB" in seen or not _printable(data):
            raise BlockError("formatInvalid", "an optional block of the key block cannot be read")
        seen.append(found[0])
        at += size
    return at - begun


def _hexadecimal(digits: str) -> int:
    return int(digits, 16) if digits and _HEX.fullmatch(digits) else -1


def _printable(text: str) -> bool:
    return all(" " <= letter <= "~" for letter in text)
