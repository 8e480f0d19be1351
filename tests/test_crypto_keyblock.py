"""Key blocks: the refuse list, row by row, on blocks whose MAC is right; damage; round trips; one sentence for all.

The blocks of the refuse list are forged (forging.py): their MAC is right.
"""

import string
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.crypto import mac, wrapping
from agent.crypto.kcv import Kcv
from agent.crypto.keyblock import Header, KeyBlock, OptionalBlock, Policy
from agent.crypto.secret import Secret
from agent.errors import BlockRefused, CryptoError, KeyRefused, NotAuthentic
from tests.forging import KBPK, KEY, content, forge

AES_KBPK = Secret(bytes.fromhex("88E1AB2A2E3DD38C1FA039A536500CC8A87AB9D62DC92C01058FA79F44657DE6"))
PUBLIC = Secret(bytes.fromhex("00112233445566778899AABBCCDDEEFF"))
TRIPLE = KEY + bytes.fromhex("C1D0F8FB4958670D")
SAMPLE = "B0080P0TE00E000094B420079CC80BA3461F86FE26EFC4A3B8E4FA4C5F5341176EED7B727B8A248E"
LAX = Policy(versions="ABCDE", contexts="012", any_mode=True, single=True, test_keys=True, weak_wrapping=True)


def opened(text: str, policy: Policy = wrapping.STRICT, kbpk: Secret = KBPK) -> Secret:
    return wrapping.unwrap(KeyBlock.parse(text), kbpk, policy)


def test_what_the_forger_makes_is_taken_when_nothing_is_wrong_with_it() -> None:
    assert opened(forge("P0TE00E0000")).reveal() == KEY
    assert opened(forge("P0TE00N0000", content(TRIPLE)), Policy(weak_wrapping=True)).reveal() == TRIPLE
    assert opened(forge("P0TE00E0100", optional="KS1800604B120F9292800000")).reveal() == KEY


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (forge("Q0TE00E0000"), "key usage"),
        (forge("P0QE00E0000"), "algorithm"),
        (forge("P0TQ00E0000"), "mode of use"),
        (forge("P0TE00Q0000"), "exportability"),
        (forge("P0TE00E0030"), "key context"),
        (forge("P0TE00E0009"), "reserved"),
        (forge("P0TE!0E0000"), "key version"),
        (forge("P0TEc!E0000"), "key version"),
        (forge("P0TX00E0000"), "does not fit its key usage"),
        (forge("M3TE00E0000"), "does not fit its key usage"),
        (forge("P0TE00E0010"), "for storage"),
        (forge("P0TEc1E0000"), "carries a component"),
        (forge("P0DE00E0000", content(KEY[:8])), "legacy order"),
        (forge("D0AB00E0000"), "under a 3DES key"),
        (forge("P0TE00E0X00"), "not decimal"),
        (SAMPLE[:-1], "names"),
        (SAMPLE + "00", "names"),
        (SAMPLE + " ", "names"),
        (SAMPLE + "\n", "printed"),
        (SAMPLE.replace("B0080", "B 080"), "not decimal"),
        (SAMPLE.replace("B0080", "B0088"), "names"),
        (SAMPLE.replace("B0080", "B٠٠80"), "printed"),
        (SAMPLE.replace("B0080", "B0084") + "0000", "fit its version"),
        (SAMPLE.replace("B0080", "F0080"), "version"),
        (SAMPLE[:16] + SAMPLE[16:].lower(), "upper-case"),
        (SAMPLE[:-1] + "G", "upper-case"),
        ("B0032P0TE00E0000" + "0" * 16, "whole blocks"),
        ("B0040P0TE00E0000" + "0" * 24, "whole blocks"),
        ("B0016P0TE00E0000", "wrong length"),
        ("", "wrong length"),
        ("B" + "0" * 9999, "wrong length"),
    ],
)
def test_a_header_that_breaks_a_rule_is_refused_without_any_key(text: str, reason: str) -> None:
    def read() -> None:
        Policy().check(KeyBlock.parse(text).header)

    for refuse in (read, lambda: opened(text)):
        with pytest.raises(BlockRefused, match=reason):
            refuse()


@pytest.mark.parametrize(
    ("optional", "count", "reason"),
    [
        ("KS080060KS084B12", 2, "twice"),
        ("PB08ABCDKS1000604B120F92", 2, "not the last"),
        ("KS10ABCDEFGHIJKL", 1, "hex digits"),
        ("KS10abcdefabcdef", 1, "hex digits"),
        ("KS0FABCDEFABCDEPB09ABCDE", 2, "pairs"),
        ("KC0CFF57C409PB04", 2, "no check value"),
        ("KC0A0057C4PB0600", 2, "no check value"),
        ("KC0E0057C40957PB0A000000", 2, "no check value"),
        ("TS1320200818221218APB050", 2, "UTC"),
        ("TS11202008182212ZPB07ABC", 2, "UTC"),
        ("KS03ABCDEFABCDEF", 1, "shorter than its own head"),
        ("LBFFABCD", 1, "longer than the key block"),
        ("LB10ABCDEFGH\tJKL", 1, "printed"),
        ("L-10ABCDEFGHIJKL", 1, "id"),
        ("lb10ABCDEFGHIJKL", 1, "id"),
        ("LB1XABCDEFGHIJKL", 1, "upper-case hex"),
        ("CT00020018ABCDEFGHIJKLMN", 1, "X9.143"),  # psec's extended length
        ("CT00060000010018ABCDEFGH", 1, "X9.143"),
        ("CT00040008ABCDEFGHIJKLMN", 1, "shorter than its own head"),
    ],
)
def test_optional_blocks_that_break_a_rule_are_refused(optional: str, count: int, reason: str) -> None:
    text = forge(f"P0TE00E{count:02}00", optional=optional)
    with pytest.raises(BlockRefused, match=reason):
        KeyBlock.parse(text)


@pytest.mark.parametrize("name", ["TC", "TS"])
@pytest.mark.parametrize(
    "time", ["20200818221218Z", "2020081822121800Z", "2020-08-18T22:12:18Z", "2020-08-18T22:12:18.00Z"]
)
def test_a_time_has_one_of_four_lengths_and_is_in_utc(name: str, time: str) -> None:
    assert OptionalBlock(name, time).data == time
    for wrong in (time[:-1], time + "Z", "0" + time, time[:-1] + "A"):
        with pytest.raises(BlockRefused, match="UTC"):
            OptionalBlock(name, wrong)


def test_optional_blocks_are_filled_up_in_version_e_too() -> None:
    whole = wrapping.wrap(
        Header("E", "P0", "T", "E", optional=(OptionalBlock("LB", "x"),)), Secret(KEY), AES_KBPK, LAX
    ).text
    cut = whole.replace("PB0B0000000", "PB0A000000").replace("E0100", "E0099")
    with pytest.raises(BlockRefused, match="filled up"):
        KeyBlock.parse(cut)


@pytest.mark.parametrize(
    ("optional", "names"),
    [
        ("KS1800604B120F9292800000", ["KS"]),
        ("KC0C0057C409PB04", ["KC", "PB"]),
        ("LB10ABCDEFGH JKL", ["LB"]),
        ("TS1320200818221218ZPB050", ["TS", "PB"]),
        ("CT00040018ABCDEFGHIJKLMN", ["CT"]),  # X9.143's extended length, needed or not
        ("0110ABCDEFGHIJKL", ["01"]),  # a vendor's own
    ],
)
def test_optional_blocks_that_keep_the_rules_are_taken(optional: str, names: list[str]) -> None:
    block = KeyBlock.parse(forge(f"P0TE00E{len(names):02}00", optional=optional))
    assert [part.id for part in block.header.optional] == names
    assert wrapping.unwrap(block, KBPK) == Secret(KEY)


@pytest.mark.parametrize(
    "clear",
    [
        content(bits=0),
        content(bits=127),
        content(bits=129),
        content(bits=8 * 31),
        content(bits=0xFFFF),
        content(size=96),  # filling far longer than needed
    ],
)
def test_a_right_mac_around_a_wrong_payload_has_the_same_sentence_as_a_wrong_mac(clear: bytes) -> None:
    damaged = SAMPLE[:-1] + "F"
    sentences = set()
    for text in (forge("P0TE00E0000", clear), damaged):
        with pytest.raises(NotAuthentic) as refused:
            opened(text, LAX)
        sentences.add(str(refused.value))
        assert refused.value.__cause__ is None
        assert refused.value.__context__ is None
    with pytest.raises(NotAuthentic) as refused:
        opened(SAMPLE, kbpk=Secret(KEY))
    assert sentences == {str(refused.value)}


@pytest.mark.parametrize(
    "key",
    [
        KEY[:8],  # single length in a T block
        bytes(16),
        KEY[:8] * 2,
        KEY[:8] + bytes(byte ^ 1 for byte in KEY[:8]),
        KEY + KEY[8:],
        bytes.fromhex("1FE01FE00EF10EF1") + KEY[8:],
        bytes.fromhex("0123456789ABCDEFFEDCBA9876543210"),
        TRIPLE,  # stronger than the protection key
        KEY[:12],
    ],
)
def test_a_key_that_must_not_be_used_is_refused_on_both_ways(key: bytes) -> None:
    with pytest.raises(KeyRefused):
        opened(forge("P0TE00E0000", content(key)))
    with pytest.raises(KeyRefused):
        wrapping.wrap(Header("B", "P0", "T", "E"), Secret(key), KBPK)


def test_even_parity_inside_is_accepted_and_left_for_the_importer_to_fix() -> None:
    even = bytes(byte ^ 1 for byte in KEY)
    assert opened(forge("P0TE00E0000", content(even))).reveal() == even


@pytest.mark.parametrize(
    ("version", "kbpk"),
    [("B", KEY[:8]), ("B", KEY[:8] * 2), ("B", bytes(16)), ("B", KEY * 2), ("D", KEY[:8]), ("D", b"\x41" * 32)],
)
def test_a_protection_key_that_must_not_be_used_is_refused(version: str, kbpk: bytes) -> None:
    header = Header(version, "P0", "T", "E")
    block = wrapping.wrap(header, Secret(KEY), AES_KBPK if version == "D" else KBPK)
    with pytest.raises(KeyRefused):
        wrapping.unwrap(block, Secret(kbpk))
    with pytest.raises(KeyRefused):
        wrapping.wrap(header, Secret(KEY), Secret(kbpk))


@pytest.mark.parametrize(("version", "size"), [("A", 8), ("B", 8), ("B", 32), ("D", 8)])
def test_no_order_makes_a_protection_key_of_a_wrong_length_usable(version: str, size: int) -> None:
    with pytest.raises(KeyRefused, match="protection key's length"):
        wrapping.wrap(Header(version, "P0", "T", "E"), Secret(KEY), Secret((KEY * 2)[:size]), LAX)


def test_an_order_relaxes_one_rule_by_name_and_no_other() -> None:
    assert opened(forge("P0DE00E0000", content(KEY[:8])), Policy(single=True)).reveal() == KEY[:8]
    assert opened(forge("P0TX00E0000"), Policy(any_mode=True)).reveal() == KEY
    assert opened(forge("P0TE00E0010"), Policy(contexts="1")).reveal() == KEY
    assert opened(forge("P0TE00E0000", content(TRIPLE)), Policy(weak_wrapping=True)).reveal() == TRIPLE
    component = forge("P0TEc1E0000", content(KEY[:8] * 2))
    assert opened(component, Policy(components=True)).reveal() == KEY[:8] * 2
    with pytest.raises(BlockRefused, match="component was expected"):
        opened(SAMPLE, Policy(components=True))


def test_a_component_has_the_length_of_a_key() -> None:
    component = forge("P0TEc1E0000", content(KEY[:8]))
    with pytest.raises(KeyRefused, match="length"):
        opened(component, Policy(components=True))
    assert opened(component, Policy(components=True, single=True)).reveal() == KEY[:8]


def test_a_block_for_single_des_carries_eight_bytes() -> None:
    with pytest.raises(KeyRefused, match="length"):
        opened(forge("P0DE00E0000"), Policy(single=True))


def test_wrap_refuses_what_unwrap_would_refuse() -> None:
    for header in (Header("A", "P0", "T", "E"), Header("B", "P0", "T", "X"), Header("B", "P0", "D", "E")):
        with pytest.raises(BlockRefused):
            wrapping.wrap(header, Secret(KEY), KBPK)


def test_an_order_names_usage_and_algorithm() -> None:
    assert opened(SAMPLE, Policy(usages=frozenset({"P0"}), algorithms="T")).reveal() == KEY
    for policy in (Policy(usages=frozenset({"K0"})), Policy(algorithms="A")):
        with pytest.raises(BlockRefused, match="order"):
            opened(SAMPLE, policy)


@pytest.mark.parametrize(
    ("version", "taken"), [("02", False), ("03", False), ("04", True), ("00", False), ("A9", False)]
)
def test_an_old_key_is_not_injected_again(version: str, taken: bool) -> None:
    header, policy = Header("B", "P0", "T", "E", key_version=version), Policy(newer_than="03")
    block = wrapping.wrap(header, Secret(KEY), KBPK)
    if taken:
        assert wrapping.unwrap(block, KBPK, policy) == Secret(KEY)
    else:
        with pytest.raises(BlockRefused, match="not newer"):
            wrapping.unwrap(block, KBPK, policy)


@pytest.mark.parametrize("version", "ACE")
def test_old_versions_are_taken_by_a_named_order_only(version: str) -> None:
    kbpk = AES_KBPK if version == "E" else KBPK
    block = wrapping.wrap(Header(version, "P0", "T", "E"), Secret(KEY), kbpk, Policy(versions=version))
    assert wrapping.unwrap(block, kbpk, Policy(versions="ACE")) == Secret(KEY)
    with pytest.raises(BlockRefused, match="version"):
        wrapping.unwrap(block, kbpk)


@pytest.mark.parametrize("version", "ABCDE")
def test_every_character_of_a_block_is_protected(version: str) -> None:
    kbpk = AES_KBPK if version in "DE" else KBPK
    header = Header(version, "P0", "T", "E", optional=(OptionalBlock("LB", "Invented"),))
    block = wrapping.wrap(header, Secret(KEY), kbpk, LAX)
    assert wrapping.unwrap(block, kbpk, LAX) == Secret(KEY)
    for place, character in enumerate(block.text):
        for other in {"0", "1", "A", "E", "N", "X", "c"} - {character}:
            with pytest.raises(CryptoError):
                opened(block.text[:place] + other + block.text[place + 1 :], LAX, kbpk)


SIZES = {"D": [8], "T": [16, 24], "A": [16, 24, 32], "H": [1, 20, 64], "R": [1190]}


@settings(deadline=None)
@given(
    st.sampled_from("ABCDE"),
    st.sampled_from("DTAHR"),
    st.integers(0, 300),
    st.data(),
)
def test_what_is_wrapped_comes_back(version: str, algorithm: str, label: int, data: st.DataObject) -> None:
    size = data.draw(st.sampled_from(SIZES[algorithm]))
    key = Secret((TRIPLE * 60)[:size])
    optional = (OptionalBlock("LB", "x" * label),) if label else ()
    usage = {"H": "M7", "R": "S0"}.get(algorithm, "D0")
    mode = {"H": "C", "R": "S"}.get(algorithm, "B")
    header = Header(version, usage, algorithm, mode, optional=optional)
    kbpk = AES_KBPK if version in "DE" else KBPK
    block = wrapping.wrap(header, key, kbpk, LAX)
    assert KeyBlock.parse(block.text) == block
    assert wrapping.unwrap(block, kbpk, LAX) == key
    found = replace(block.header, optional=tuple(part for part in block.header.optional if part.id != "PB"))
    assert found == header


@pytest.mark.parametrize(
    ("version", "algorithm", "total"),
    [("A", "T", 88), ("A", "D", 88), ("B", "T", 96), ("C", "T", 88), ("D", "T", 112), ("D", "A", 144)],
)
def test_the_length_of_a_block_does_not_tell_the_length_of_its_key(
    version: str, algorithm: str, total: int
) -> None:
    kbpk = AES_KBPK if version == "D" else KBPK
    for size in SIZES[algorithm]:
        block = wrapping.wrap(Header(version, "D0", algorithm, "B"), Secret((TRIPLE * 2)[:size]), kbpk, LAX)
        assert len(block.text) == total


def test_the_filling_is_drawn_anew_for_each_block() -> None:
    header = Header("B", "P0", "T", "E")
    assert wrapping.wrap(header, Secret(KEY), KBPK).text != wrapping.wrap(header, Secret(KEY), KBPK).text


def test_a_long_optional_block_is_written_the_x9_143_way() -> None:
    short, long = OptionalBlock("CT", "x" * 251), OptionalBlock("CT", "x" * 252)
    assert short.text[:6] == "CTFFxx"
    assert long.text[:12] == "CT00040106xx"


def test_a_block_of_more_than_9999_characters_is_refused() -> None:
    header = Header("B", "P0", "T", "E", optional=(OptionalBlock("LB", "x" * 9900),))
    with pytest.raises(BlockRefused, match="9999"):
        wrapping.wrap(header, Secret(KEY), KBPK)
    with pytest.raises(BlockRefused, match="9999"):
        wrapping.wrap(Header("B", "S0", "R", "S"), Secret(bytes(8192)), KBPK)


def test_a_block_without_a_key_is_refused() -> None:
    with pytest.raises(KeyRefused, match="length"):
        wrapping.wrap(Header("B", "M7", "H", "C"), Secret(b""), KBPK)


def test_the_check_values_that_a_header_names_must_be_those_of_its_keys() -> None:
    right = (OptionalBlock("KC", "0057C409"), OptionalBlock("KP", "01" + mac.cmac_kcv(KBPK).value.hex().upper()))
    block = wrapping.wrap(Header("B", "P0", "T", "E", optional=right), Secret(KEY), KBPK)
    named = block.header.find("KC")
    assert named is not None
    assert named.check_value() == Kcv.parse("57C409")
    assert wrapping.unwrap(block, KBPK) == Secret(KEY)
    for name in ("KC", "KP"):
        wrong = Header("B", "P0", "T", "E", optional=(OptionalBlock(name, "0057C408"),))
        with pytest.raises(KeyRefused, match=name):
            wrapping.wrap(wrong, Secret(KEY), KBPK)
        with pytest.raises(KeyRefused, match=name):
            opened(forge("P0TE00E0200", optional=f"{name}0C0057C408PB04"))


def test_an_aes_key_is_not_weaker_protected_nor_a_pattern() -> None:
    header = Header("D", "D0", "A", "B")
    half = Secret(AES_KBPK.reveal()[:16])
    assert wrapping.unwrap(wrapping.wrap(header, half, AES_KBPK), AES_KBPK) == half
    for key, kbpk in (
        (AES_KBPK, half),
        (Secret(bytes(16)), AES_KBPK),
        (Secret(KEY[:12]), AES_KBPK),
        (PUBLIC, AES_KBPK),
    ):
        with pytest.raises(KeyRefused):
            wrapping.wrap(header, key, kbpk)


def test_a_block_shows_its_meaning_and_a_fingerprint_and_no_payload() -> None:
    block = KeyBlock.parse(SAMPLE)
    assert repr(block).startswith("<KeyBlock B P0 T E 00 E ")
    assert not any(SAMPLE[i : i + 6] in repr(block) + str([block]) for i in range(16, len(SAMPLE) - 6))
    assert set(block.fingerprint) <= set(string.hexdigits)
    assert block.fingerprint != KeyBlock.parse(forge("P0TE00E0000")).fingerprint
