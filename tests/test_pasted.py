"""What counts as a pasted key, component or part of one, and what does not: one rule for whatever comes in."""

import json
import re
from hashlib import sha256

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.pasted import holds_a_key, is_name, like_a_key, like_a_part, too_much_hex

KEY = "0123456789ABCDEFFEDCBA9876543210"
"""The public test key."""


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        KEY[:16].lower(),
        KEY + KEY[:16],
        f"x{KEY}y",
        f"key={KEY};",
        "0123 4567 89AB CDEF",
        "0123-4567-89AB-CDEF",
        "0123_4567_89AB_CDEF",
        "01:23:45:67:89:AB:CD:EF",
        "01,23,45,67,89,ab,cd,ef",
        "0 1 2 3 4 5 6 7 8 9 A B C D E F",
        "0x01 0x23 0x45 0x67 0x89 0xab 0xcd 0xef",
        "012345 6789AB CDEF",
        "0123456789/ABCDEF",
        "0123\n4567\n89AB\nCDEF",
        "part0123 4567 89ABCDEF",
        "part1:01 23 45 67 89 AB CD EFx",
        "0012 3456 789A BCDEx",
        "1234567890123456",
        "1234 5678 9012 3456",
        "12 34 56 78 90 12 34 56",
        "０１２３４５６７８９ＡＢＣＤＥＦ",
        "０１２３　４５６７　８９ａｂ　ｃｄｅｆ",
        f"\x1b[200~{KEY}\x1b[201~",
        sha256(b"lamp").hexdigest(),
    ],
)
def test_a_component_is_seen_and_is_no_name(text: str) -> None:
    assert like_a_key(text)
    assert like_a_part(text)
    assert too_much_hex(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "08D7B4",
        "08 D7 B4",
        "0A82458664",
        "KO-2026-1125-0001",
        "ENV-000123",
        "EPP 123456-78900001",
        "2411-0001",
        "/dev/ttyUSB0",
        "/var/lib/tillwire/orders/ko-17.order",
        "2026-11-25T10:22:33+08:00",
        "keys receipt KO-1 --to 2026-11-25.receipt",
        "accounts add ada --role technician --group b2",
        "keyroom make --terminal ATM-0001 --slot TMK --envelope A000123 --envelope A000124 --envelope A000125",
        "feed a bad cafe",
        "made 2026-11-25 10:22:33 before closing",
        "2026-11-25 10:22:33.123 +0800",
        "keys begin KO-20260115-093000-01",
        "EPP-V7-20230415-0012345",
        "hardwareError",
        "余额不足",
    ],
)
def test_names_dates_serial_numbers_and_check_values_are_none(text: str) -> None:
    assert not like_a_key(text)
    assert not like_a_part(text)
    assert not too_much_hex(text)


@pytest.mark.parametrize(("text", "part"), [("0123456789A", True), ("00A0B1C2D3E4", True), ("250101123456", False)])
def test_more_than_ten_in_a_row_are_too_much_and_spoil_something_unless_all_are_decimal(
    text: str, part: bool
) -> None:
    assert too_much_hex(text)
    assert like_a_part(text) is part
    assert not like_a_key(text)
    assert is_name(text), "a serial number may have them"


@given(
    st.text("0123456789abcdefABCDEF", min_size=16, max_size=48),
    st.lists(st.integers(1, 16), min_size=1),
    st.text(" -_:.,;/|\n\t", min_size=1, max_size=3),
    st.sampled_from(["", "TMK ", "part1:", "密钥 "]),
    st.sampled_from(["", " ok", "\r"]),
)
def test_no_way_to_group_a_key_hides_it(key: str, sizes: list[int], between: str, before: str, after: str) -> None:
    groups, at = list[str](), 0
    while at < len(key):
        size = sizes[len(groups) % len(sizes)]
        groups.append(key[at : at + size])
        at += size
    text = before + between.join(groups) + after
    assert like_a_key(text) or key.isdecimal(), "decimal digits in unequal groups are dates and counters"


NAMES_OF_0_1 = re.compile(
    r"[0-9A-F]{16,}|(?<![0-9A-F])(?:[0-9A-F](?:[\s:._-]+[0-9A-F]){15,}|[0-9A-F]{2}(?:[\s:._-]+[0-9A-F]{2}){7,}"
    r"|[0-9A-F]{4}(?:[\s:._-]+[0-9A-F]{4}){3,}|[0-9A-F]{8}(?:[\s:._-]+[0-9A-F]{8}){1,})",
    re.I,
)
"""What no name could hold in the first version. Orders and pushes from then are read again at every start."""


@given(st.from_regex(r"[A-Za-z0-9][A-Fa-f0-9._x-]{0,47}", fullmatch=True))
@example("KO-2026-ABCD-12345678")
@example("CFG-20260115-093000-01")
def test_what_was_a_name_once_is_one_for_ever(text: str) -> None:
    assert is_name(text) or NAMES_OF_0_1.search(text)


@pytest.mark.parametrize("value", [None, 7, ["0123456789ABCDEF"], b"0123456789ABCDEF"])
def test_what_is_no_text_is_none(value: object) -> None:
    assert not like_a_key(value)
    assert not like_a_part(value)
    assert not too_much_hex(value)


def test_an_order_that_nobody_signed_is_no_component_and_one_with_a_component_in_it_is() -> None:
    times = {"date": 1_764_100_000_000, "deadline": 1_766_600_000_000, "applied": 1_764_000_000_000}
    order = {"id": "KO-7", "block": sha256(b"lamp").hexdigest(), **times, "kcv": "08D7B4"}
    for indent in (None, 2):
        assert not holds_a_key(json.dumps(order, indent=indent))
        for component in (KEY, KEY[:16].lower(), "0123 4567 89AB CDEF"):
            assert holds_a_key(json.dumps({**order, "note": component}, indent=indent))
    assert holds_a_key(sha256(b"lamp").hexdigest().upper()), "a digest is in small letters"
