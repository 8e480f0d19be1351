"""This file knows key blocks from the outside: TR-31:2018 and ANSI X9.143:2021 headers, and which we refuse.

No key is needed here and no cipher is imported, so the agent, the technician's command line and the key room all
read a block with the same eyes. What is inside a block is for wrapping.py, in the key room or in the pad.

    offset  0 version A-E                5 key usage       8 mode of use      11 exportability     14 key context
            1 whole length, 4 decimals   7 algorithm       9 key version, 2   12 optional blocks, 2   15 reserved, 0
           16 optional blocks, each: id 2, length 2 hex (id and length included), data; when the data is long:
              id 2, `00`, `04` for four digits of length, length 4 hex, data (X9.143:2021 6.2, examples 8.5, 8.6)
    then      encrypted payload and MAC, upper-case hex only: one block has one spelling, and one fingerprint

A block that breaks the format is refused by `KeyBlock.parse`; one that breaks the rules of the house by `Policy`.
The second list is stricter than the known libraries: they leave usage, mode and versions to the caller.
"""

import hashlib
from dataclasses import dataclass, field
from typing import NoReturn

from agent.crypto.kcv import Kcv, Method
from agent.errors import BlockRefused, CryptoError

HEADER = 16
LONGEST = 9999
LONGEST_SHORT = 0xFF
EXTENDED = "0004"
MAC_DIGITS = {"A": 8, "B": 16, "C": 8, "D": 32, "E": 32}
CIPHER_BLOCK = {"A": 8, "B": 8, "C": 8, "D": 16, "E": 16}
ALGORITHMS = "ADEHRST"
MODES = "BCDEGNSTVXY"
EXPORTABILITY = "ENS"
CONTEXTS = "012"
# Key usage -> the modes of use that fit it, as TR-31:2018 lists them and by analogy for the later codes. N fits
# every usage: it means no restriction beyond the usage itself.
_MODES_OF_USAGE = {
    "X": "B0 B1 B2 B3 E0 E1 E2 E3 E4 E5 E6",
    "CGV": "C0 M0 M1 M2 M3 M4 M5 M6 M7 M8 V0 V1 V2 V3 V4 V5",
    "BDE": "D0 D1 D2 D3 K0 K1 K2 K4 P0",
    "BDEX": "K3",
    "SV": "S0 S1",
    "SVTBDE": "S2",
    "": "I0",
    MODES: "E7 P1",
}
MODES_OF_USAGE = {usage: modes + "N" for modes, usages in _MODES_OF_USAGE.items() for usage in usages.split()}
_HEX = frozenset("0123456789ABCDEF")
_HEX_DATA = {"AL", "BI", "HM", "IK", "KC", "KP", "KS", "PK"}
_CHECK_VALUES: dict[str, Method] = {"00": "zero", "01": "cmac"}
_TIME_LENGTHS = {15, 17, 20, 23}


def _refuse(sentence: str) -> NoReturn:
    raise BlockRefused(sentence)


@dataclass(frozen=True, slots=True)
class OptionalBlock:
    """One optional block; `data` is without id and length. Raises BlockRefused when it does not fit the id."""

    id: str
    data: str

    def __post_init__(self) -> None:
        if len(self.id) != 2 or not (self.id.isascii() and self.id.isalnum() and self.id.upper() == self.id):
            _refuse("an optional block's id is not two letters or digits")
        if not _printable(self.data):
            _refuse("an optional block holds characters that cannot be printed")
        if self.id in _HEX_DATA and (not self.data or len(self.data) % 2 or not _HEX.issuperset(self.data)):
            _refuse(f"optional block {self.id} is not made of pairs of upper-case hex digits")
        if self.id in ("KC", "KP"):
            self.check_value()
        if self.id in ("TC", "TS") and (len(self.data) not in _TIME_LENGTHS or self.data[-1] != "Z"):
            _refuse(f"optional block {self.id} is not a time in UTC")

    def check_value(self) -> Kcv:
        """The check value in a KC or KP block: two digits of method, then the value."""
        method = _CHECK_VALUES.get(self.data[:2])
        try:
            if method is not None:
                return Kcv(bytes.fromhex(self.data[2:]), method)
        except (CryptoError, ValueError):
            pass
        _refuse(f"optional block {self.id} holds no check value")

    @property
    def text(self) -> str:
        """As it stands in the header, in the extended form when its length needs more than two digits."""
        length = len(self.data) + 4
        if length <= LONGEST_SHORT:
            return f"{self.id}{length:02X}{self.data}"
        return f"{self.id}{EXTENDED}{length + len(EXTENDED) + 2:04X}{self.data}"


@dataclass(frozen=True, slots=True)
class Header:
    """What a block says about its key, in clear. Raises BlockRefused for a value that no standard has."""

    version: str
    usage: str
    algorithm: str
    mode: str
    key_version: str = "00"
    exportability: str = "N"
    context: str = "0"
    optional: tuple[OptionalBlock, ...] = ()

    def __post_init__(self) -> None:
        for name, value, known in (
            ("version", self.version, MAC_DIGITS),
            ("key usage", self.usage, MODES_OF_USAGE),
            ("algorithm", self.algorithm, tuple(ALGORITHMS)),
            ("mode of use", self.mode, tuple(MODES)),
            ("exportability", self.exportability, tuple(EXPORTABILITY)),
            ("key context", self.context, tuple(CONTEXTS)),
        ):
            if value not in known:
                _refuse(f"the block's {name} is not one that we know")
        number = self.key_version[1:] if self.key_version.startswith("c") else self.key_version
        if len(self.key_version) != 2 or not (number.isascii() and number.isalnum()):
            _refuse("the block's key version is not two letters or digits")
        ids = [block.id for block in self.optional]
        if len(ids) != len(set(ids)) or len(ids) > 99:
            _refuse("an optional block stands in the header twice")
        if "PB" in ids[:-1]:
            _refuse("the padding block PB is not the last optional block")

    @property
    def is_component(self) -> bool:
        """Whether the block carries a component and not a key (key version c0 to c9)."""
        return self.key_version.startswith("c")

    def find(self, name: str) -> OptionalBlock | None:
        """The optional block with this id; None when there is none."""
        return next((block for block in self.optional if block.id == name), None)

    def text(self, payload_bytes: int) -> str:
        """The whole header for a payload of that size; a padding block is added when the standard asks for one."""
        texts = [block.text for block in self.optional]
        missing = -sum(map(len, texts)) % CIPHER_BLOCK[self.version]
        if missing and self.find("PB") is None:
            # A padding block has at least its own four characters.
            length = missing if missing >= 4 else missing + CIPHER_BLOCK[self.version]
            texts.append(OptionalBlock("PB", "0" * (length - 4)).text)
        total = HEADER + sum(map(len, texts)) + 2 * payload_bytes + MAC_DIGITS[self.version]
        if total > LONGEST:
            _refuse("the block would be longer than 9999 characters")
        return (
            f"{self.version}{total:04}{self.usage}{self.algorithm}{self.mode}{self.key_version}"
            f"{self.exportability}{len(texts):02}{self.context}0{''.join(texts)}"
        )


@dataclass(frozen=True, slots=True)
class KeyBlock:
    """A whole block, read but not opened. Its repr shows the header's meaning and a fingerprint, no payload."""

    header: Header
    head: str = field(repr=False)
    payload: bytes = field(repr=False)
    mac: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> "KeyBlock":
        """Read a block. Raises BlockRefused; the sentence repeats nothing of what was read."""
        if not HEADER < len(text) <= LONGEST or not _printable(text):
            _refuse("this is not a key block: it has a wrong length or characters that cannot be printed")
        version = text[0] if text[0] in MAC_DIGITS else _refuse("the block's version is not one that we know")
        if _decimal(text[1:5]) != len(text):
            _refuse("the block's length is not the one that it names: it was cut, or something was added")
        if version != "E" and len(text) % CIPHER_BLOCK[version]:
            _refuse("the block's length does not fit its version")
        if text[15] != "0":
            _refuse("the block's reserved character is not 0")
        optional, end = _optional_blocks(text, _decimal(text[12:14]))
        if (end - HEADER) % CIPHER_BLOCK[version]:
            _refuse("the optional blocks are not filled up to the cipher's block")
        header = Header(version, text[5:7], text[7], text[8], text[9:11], text[11], text[14], optional)
        sealed = text[end:]
        if len(sealed) % 2 or not _HEX.issuperset(sealed):
            _refuse("payload and MAC are not all upper-case hex digits")
        payload, mac = sealed[: -MAC_DIGITS[version]], sealed[-MAC_DIGITS[version] :]
        if not payload or (version != "E" and len(payload) % (2 * CIPHER_BLOCK[version])):
            _refuse("the payload is not whole blocks of the cipher")
        return cls(header, text[:end], bytes.fromhex(payload), bytes.fromhex(mac))

    @property
    def text(self) -> str:
        """The block as it travels."""
        return f"{self.head}{(self.payload + self.mac).hex().upper()}"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the text, in hex: what may be kept when the block itself is deleted."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def __repr__(self) -> str:
        head = self.header
        words = f"{head.version} {head.usage} {head.algorithm} {head.mode} {head.key_version} {head.exportability}"
        return f"<KeyBlock {words} {self.fingerprint[:16]}>"


@dataclass(frozen=True, slots=True)
class Policy:
    """What an importer accepts. The defaults are the strict ones; an order relaxes single rules, by name.

    usages, algorithms: what the order names. newer_than: the key version of the key that is replaced.
    The last three need the key itself to see and are kept by wrapping.py, and by des.py for components.
    """

    versions: str = "BD"
    usages: frozenset[str] = frozenset(MODES_OF_USAGE)
    algorithms: str = ALGORITHMS
    contexts: str = "02"
    newer_than: str | None = None
    components: bool = False
    any_mode: bool = False
    single: bool = False
    test_keys: bool = False
    weak_wrapping: bool = False

    def check(self, header: Header) -> None:
        """Raise BlockRefused unless the header may pass."""
        if header.version not in self.versions:
            _refuse("this version of key block is not accepted: ask for version B or D")
        if header.usage not in self.usages or header.algorithm not in self.algorithms:
            _refuse("the block is not for the usage and algorithm of the order")
        if header.mode not in MODES_OF_USAGE[header.usage] and not self.any_mode:
            _refuse("the block's mode of use does not fit its key usage")
        if header.context not in self.contexts:
            _refuse("the block was made for storage and not for delivery")
        if header.is_component != self.components:
            _refuse(
                "the block carries a component, not a key" if header.is_component else "a component was expected"
            )
        if header.algorithm == "D" and not self.single:
            _refuse("single-length DES needs a signed legacy order")
        if header.algorithm == "A" and header.version in "ABC" and not self.weak_wrapping:
            _refuse("an AES key must not travel under a 3DES key: ask for version D")
        if self.newer_than is not None and not (
            header.key_version.isdigit() and header.key_version > self.newer_than
        ):
            _refuse("the block's key version is not newer than that of the loaded key")


def _printable(text: str) -> bool:
    return all(" " <= character <= "~" for character in text)


def _decimal(digits: str) -> int:
    return int(digits) if digits.isdigit() else _refuse("a number in the block's header is not decimal")


def _optional_blocks(text: str, count: int) -> tuple[tuple[OptionalBlock, ...], int]:
    """The optional blocks and the offset behind them. Whatever is announced must be there in full."""
    found, at = [], HEADER
    for _ in range(count):
        start = at + 4
        length = _hexadecimal(text[at + 2 : start])
        if length == 0:
            start += 6
            if text[at + 2 : at + 6] != EXTENDED:
                _refuse("an optional block's extended length is not written as X9.143 asks")
            length = _hexadecimal(text[at + 6 : start])
        if length < start - at or at + length > len(text):
            _refuse("an optional block is shorter than its own head, or longer than the key block")
        found.append(OptionalBlock(text[at : at + 2], text[start : at + length]))
        at += length
    return tuple(found), at


def _hexadecimal(digits: str) -> int:
    if len(digits) not in (2, 4) or not _HEX.issuperset(digits):
        _refuse("an optional block's length is not in upper-case hex")
    return int(digits, 16)
