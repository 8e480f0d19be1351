"""The simulated secure device and key blocks that are nearly right, also by somebody who has the protection key."""

from typing import Any

import pytest

from agent.crypto import wrapping
from agent.crypto.keyblock import Header, Policy
from agent.crypto.secret import Secret
from hwsim.secure_block import BlockError, open_block
from tests.secure import ANSI, BLOCK, BLOCK_KBPK, BLOCK_KCV, BLOCK_KEY, KBPK, Pad, split, wrapped

KEY = bytes.fromhex(BLOCK_KEY)
GOOD = b"\x00\x80" + KEY + bytes(6)
HEADER = "B????P0TE00E0000"


def answer(block: str, **options: Any) -> tuple[str, str]:
    """Word and sentence with which a block is refused, or "ok" and its check value."""
    pad = Pad(**options)
    pad.assembled(KBPK, split(BLOCK_KBPK))
    said = pad.desk.ask({"do": "block", "slot": "NEW", "under": "KBPK", "value": block})
    if "ok" in said:
        return "ok", said["ok"]["check_value"]
    assert list(pad.ask("state")["slots"]) == ["KBPK"]
    return said["refused"], said["why"]


NOT_AUTHENTIC = ("contentInvalid", "the key block is not authentic")


@pytest.mark.parametrize("version", ["A", "B"])
def test_a_block_of_our_own_is_opened(version: str) -> None:
    assert answer(wrapped(version + HEADER[1:], GOOD, BLOCK_KBPK)) == ("ok", BLOCK_KCV)
    even = b"\x00\x80" + bytes(byte ^ 1 for byte in KEY) + bytes(6)
    assert answer(wrapped(version + HEADER[1:], even, BLOCK_KBPK)) == ("ok", BLOCK_KCV), "parity is fixed"
    optional = version + HEADER[1:12] + "0200" + "KS1800604B120F9292800000PB08" + "0000"
    assert answer(wrapped(optional, GOOD, BLOCK_KBPK)) == ("ok", BLOCK_KCV)


@pytest.mark.parametrize("version", ["A", "B"])
@pytest.mark.parametrize(
    ("name", "clear"),
    [
        ("no key at all", b"\x00\x00" + bytes(22)),
        ("not whole bytes", b"\x00\x7f" + KEY + bytes(6)),
        ("more than there is", b"\x00\xc0" + KEY + bytes(6)),
        ("far too much padding", b"\x00\x80" + KEY + bytes(38)),
    ],
)
def test_a_length_that_cannot_be_is_told_as_a_wrong_mac_is(version: str, name: str, clear: bytes) -> None:
    assert answer(wrapped(version + HEADER[1:], clear, BLOCK_KBPK)) == NOT_AUTHENTIC, name
    good = wrapped(version + HEADER[1:], GOOD, BLOCK_KBPK)
    assert answer(good[:-1] + ("0" if good[-1] != "0" else "1")) == NOT_AUTHENTIC


@pytest.mark.parametrize(
    ("name", "header", "clear", "word"),
    [
        ("length", "B0088P0TE00E0000", GOOD, "formatInvalid"),
        ("usage", "B????Q0TE00E0000", GOOD, "formatInvalid"),
        ("lower case", "B????p0TE00E0000", GOOD, "formatInvalid"),
        ("duplicate optional block", "B????P0TE00E0200KS0800AAKS0800BB", GOOD, "formatInvalid"),
        ("padding block not last", "B????P0TE00E0200PB080000KS0800AA", GOOD, "formatInvalid"),
        ("optional block too short", "B????P0TE00E0100KS03AAAA", GOOD, "formatInvalid"),
        ("optional block beyond the end", "B????P0TE00E0100KSFEAAAA", GOOD, "formatInvalid"),
        ("optional blocks no whole number", "B????P0TE00E0100KS0600", GOOD, "formatInvalid"),
        ("length the way of psec", "B????P0TE00E0100KS00020010AAAAAA", GOOD, "formatInvalid"),
        ("long length beyond the end", "B????P0TE00E0100CT000401FFAAAAAA", GOOD, "formatInvalid"),
        ("long length shorter than its head", "B????P0TE00E0100CT00040008AAAAAA", GOOD, "formatInvalid"),
        ("optional block with no name", "B????P0TE00E0100ks0800AA", GOOD, "formatInvalid"),
        ("control character", "B????P0TE00E0100KS0800\x07A", GOOD, "formatInvalid"),
        ("a component", "B????P0TEc1E0000", GOOD, "useViolation"),
        ("a key of private pairs", "B????S0RS00E0000", GOOD, "algorithmNotSupported"),
        ("single length", HEADER, b"\x00\x40" + KEY[:8] + bytes(14), "invalidKeyLength"),
        ("single DES", "B????M3DC00E0000", b"\x00\x40" + KEY[:8] + bytes(14), "invalidKeyLength"),
        ("odd length", HEADER, b"\x00\x58" + KEY[:11] + bytes(11), "invalidKeyLength"),
        ("triple under double", HEADER, b"\x00\xc0" + KEY + bytes.fromhex(ANSI[:16]) + bytes(6), "useViolation"),
        ("AES under 3DES", "B????P0AE00E0000", GOOD, "useViolation"),
        ("zero key", HEADER, b"\x00\x80" + bytes(22), "contentInvalid"),
        ("equal halves", HEADER, b"\x00\x80" + KEY[:8] * 2 + bytes(6), "contentInvalid"),
    ],
)
def test_what_the_owner_of_the_protection_key_cannot_load_either(
    name: str, header: str, clear: bytes, word: str
) -> None:
    assert answer(wrapped(header, clear, BLOCK_KBPK), laboratory=True)[0] == word, name


@pytest.mark.parametrize(
    ("version", "size"), [("A", 16), ("A", 24), ("B", 16), ("B", 24), ("C", 24), ("D", 16), ("D", 24), ("D", 32)]
)
def test_what_the_key_room_wraps_the_pad_opens(version: str, size: int) -> None:
    kbpk = bytes.fromhex("DD7515F2BFC17F85CE48F3CA25CB21F6C1D0F8FB4958670D88E1AB2A2E3DD38C")[:size]
    header = Header(version, "P0", "T", "E", key_version="07")
    block = wrapping.wrap(header, Secret(KEY), Secret(kbpk), Policy(versions=version, test_keys=True))
    opened = open_block(block.text, "A" if version == "D" else "T", kbpk)
    assert (opened.key, opened.usage, opened.version) == (KEY, "P0", "07")


def test_a_triple_key_travels_under_an_aes_key_of_128_bits() -> None:
    kbpk, key = "88E1AB2A2E3DD38C1FA039A536500CC8", KEY + bytes.fromhex("C1D0F8FB4958670D")
    block = wrapping.wrap(Header("D", "P0", "T", "E"), Secret(key), Secret(bytes.fromhex(kbpk)))
    pad = Pad(laboratory=True)
    pad.assembled(KBPK | {"algorithm": "A"}, split(kbpk))
    assert pad.ask("block", slot="NEW", under="KBPK", value=block.text)["bits"] == 192


def test_a_protection_key_fits_one_kind_of_block() -> None:
    with pytest.raises(BlockError, match="does not fit"):
        open_block(BLOCK, "A", bytes.fromhex(BLOCK_KBPK))
    with pytest.raises(BlockError, match="does not fit"):
        open_block("D" + BLOCK[1:], "T", bytes.fromhex(BLOCK_KBPK))


@pytest.mark.parametrize(
    ("name", "at", "by"),
    [
        ("lower case", 18, str.lower),
        ("another usage", 5, lambda _: "Z"),
        ("reserved", 15, lambda _: "9"),
        ("mode", 8, lambda _: "Q"),
        ("exportability", 11, lambda _: "X"),
        ("context", 14, lambda _: "7"),
        ("not hexadecimal", 30, lambda _: "G"),
        ("not ASCII", 2, lambda _: "٠"),
    ],
)
def test_a_block_that_is_not_exactly_one_is_refused(name: str, at: int, by: Any) -> None:
    pad = Pad()
    pad.assembled(KBPK, split(BLOCK_KBPK))
    bad = BLOCK[:at] + by(BLOCK[at]) + BLOCK[at + 1 :]
    assert bad != BLOCK
    assert pad.refused("block", slot="NEW", under="KBPK", value=bad) == "formatInvalid", name
    for bad in (BLOCK + " ", BLOCK + "\n", BLOCK[:-1], "", "B", "A" * 9000):
        assert pad.refused("block", slot="NEW", under="KBPK", value=bad) in ("formatInvalid", "formatNotSupported")


def test_who_asks_does_not_learn_what_is_wrong_inside_a_block() -> None:
    pad = Pad()
    pad.assembled(KBPK, split(BLOCK_KBPK))
    said = set()
    for at in range(16, len(BLOCK)):
        digit = "0" if BLOCK[at] != "0" else "1"
        answer = pad.desk.ask(
            {"do": "block", "slot": "NEW", "under": "KBPK", "value": BLOCK[:at] + digit + BLOCK[at + 1 :]}
        )
        said.add((answer["refused"], answer["why"]))
    assert len(said) == 1
