"""Check values, parity, soundness, components: what makes a key fit to be loaded."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from agent.crypto import des, mac
from agent.crypto.components import Assembly
from agent.crypto.kcv import KNOWN, Kcv
from agent.crypto.secret import Secret, xor_into
from agent.errors import CryptoError, KeyRefused

KEY = bytes.fromhex("3F419E1CB7079442AA37474C2EFBF8B8")
keys = st.sampled_from([8, 16, 24]).flatmap(lambda size: st.binary(min_size=size, max_size=size))


def test_a_check_value_is_written_in_pairs_and_read_as_people_write_it() -> None:
    assert str(Kcv.parse("08d7b4")) == str(Kcv.parse(" 08 D7 B4")) == "08 D7 B4"
    assert repr(Kcv.parse("0A82458664", "cmac")) == "<Kcv 0A 82 45 86 64 cmac>"


@pytest.mark.parametrize("text", ["", "08D7", "08D7B", "08D7B4AA", "08D7G4", "٠٨D7B4", "08D7B4" * 20])
def test_neither_fewer_nor_more_digits_than_a_check_value_has_are_taken(text: str) -> None:
    with pytest.raises(CryptoError):
        Kcv.parse(text)


@pytest.mark.parametrize("text", ["08D7", "0A8245866400"])
def test_a_cmac_check_value_has_six_to_ten_digits(text: str) -> None:
    with pytest.raises(CryptoError):
        Kcv.parse(text, "cmac")


def test_check_values_of_two_methods_never_match_and_a_shorter_one_agrees() -> None:
    whole, head = Kcv.parse("0A82458664", "cmac"), Kcv.parse("0A8245", "cmac")
    assert whole.agrees(head)
    assert head.agrees(whole)
    assert whole != head
    assert Kcv.parse("0A8245") != head
    assert not Kcv.parse("0A8245").agrees(head)
    assert not Kcv.parse("0A8246", "cmac").agrees(whole)
    assert len({whole, head, Kcv.parse("0A8245"), Kcv.parse("0a8245")}) == 3


def test_every_check_value_on_the_list_is_that_of_a_key_one_should_not_meet() -> None:
    repeated = [bytes([byte]) * 16 for byte in (0x00, 0x01, 0xFF, 0x11, 0x22, 0x31, 0x33, 0x44, 0x88)]
    named = ["0123456789ABCDEFFEDCBA9876543210", "0123456789ABCDEF", "00112233445566778899AABBCCDDEEFF"]
    named += ["0123456789ABCDEF" * 2, "FEDCBA98765432100123456789ABCDEF", "1234567890ABCDEF" * 2]
    met = {des.zero_kcv(Secret(key)) for key in [*repeated, *map(bytes.fromhex, named)]}
    assert met == {Kcv.parse(value) for value in KNOWN}
    assert all(kcv.known() for kcv in met)
    assert des.zero_kcv(Secret(KEY)).known() is None
    assert Kcv.parse("08D7B4", "cmac").known() is None


@settings(deadline=None)
@given(keys)
def test_parity_changes_neither_the_key_nor_its_check_value(key: bytes) -> None:
    adjusted = des.odd_parity(Secret(key))
    assert des.has_odd_parity(adjusted)
    assert all(before & 0xFE == after & 0xFE for before, after in zip(key, adjusted.reveal(), strict=True))
    assert des.zero_kcv(adjusted) == des.zero_kcv(Secret(key))
    assert des.odd_parity(adjusted) == adjusted


def test_a_key_of_even_parity_is_seen() -> None:
    assert not des.has_odd_parity(Secret(bytes(16)))


@settings(deadline=None)
@given(keys, st.binary(min_size=8, max_size=8), st.lists(st.binary(min_size=8, max_size=8), min_size=1, max_size=4))
def test_what_is_encrypted_comes_back(key: bytes, iv: bytes, blocks: list[bytes]) -> None:
    clear = b"".join(blocks)
    for start in (None, iv):
        assert des.decrypt(Secret(key), des.encrypt(Secret(key), clear, start), start).reveal() == clear


@settings(deadline=None)
@given(st.binary(min_size=8, max_size=8), st.binary(min_size=8, max_size=8))
def test_a_key_with_equal_parts_is_computed_as_the_single_des_that_it_is(first: bytes, other: bytes) -> None:
    clear = b"any text"
    cases = {first * 2: first, first * 3: first, first * 2 + other: other, first + other * 2: first}
    for key, single in cases.items():
        assert des.encrypt(Secret(key), clear) == des.encrypt(Secret(single), clear)


@pytest.mark.parametrize("size", [0, 7, 15, 17, 32])
def test_a_key_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(KeyRefused):
        des.encrypt(Secret(bytes(size)), bytes(8))
    with pytest.raises(KeyRefused):
        des.refuse_unsound(Secret(bytes(range(size))), single=True)


@pytest.mark.parametrize("size", [0, 7, 9])
def test_half_a_block_is_refused(size: int) -> None:
    with pytest.raises(CryptoError):
        des.encrypt(Secret(KEY), bytes(size))
    with pytest.raises(CryptoError):
        des.decrypt(Secret(KEY), bytes(size))


def test_single_length_and_public_keys_are_taken_only_when_asked_for_by_name() -> None:
    single, public = Secret(KEY[:8]), Secret(bytes.fromhex("0123456789ABCDEFFEDCBA9876543210"))
    with pytest.raises(KeyRefused, match="legacy"):
        des.refuse_unsound(single)
    des.refuse_unsound(single, single=True)
    for key in (public, Secret(bytes(byte ^ 1 for byte in public.reveal()))):
        with pytest.raises(KeyRefused, match="published"):
            des.refuse_unsound(key)
        des.refuse_unsound(key, test_keys=True)
    with pytest.raises(KeyRefused):
        des.refuse_unsound(Secret(bytes(16)), test_keys=True)


@pytest.mark.parametrize(
    "digits",
    [
        "0123456789ABCDEFFEDCBA98765432100123456789ABCDEF",  # K1 K2 K1 is K1 K2
        "0022446688AACCEEFFDDBB99775533110123456789ABCDEF",
        "0123456789ABCDEF",
        "1234567890ABCDEF",
        "31" * 8,
        "3031" * 4,
    ],
)
def test_a_key_that_everybody_knows_is_refused_however_it_is_spelled(digits: str) -> None:
    with pytest.raises(KeyRefused, match="published"):
        des.refuse_unsound(Secret(bytes.fromhex(digits)), single=True)


def test_strength_counts_the_independent_parts() -> None:
    one, two, three = KEY[:8], KEY[8:], bytes.fromhex("C1D0F8FB4958670D")
    assert des.strength(Secret(one + two + three)) == 3
    assert des.strength(Secret(one + two)) == des.strength(Secret(one + two + one)) == 2
    assert (
        des.strength(Secret(one)) == des.strength(Secret(one + one)) == des.strength(Secret(one + one + two)) == 1
    )


def test_cmac_is_not_computed_over_single_des() -> None:
    with pytest.raises(KeyRefused):
        mac.cmac(Secret(KEY[:8]), b"")


@settings(deadline=None)
@given(st.sampled_from([16, 24]), st.sampled_from([2, 3]), st.data())
def test_components_give_the_key_back_and_each_alone_is_nothing(size: int, count: int, data: st.DataObject) -> None:
    key = des.odd_parity(Secret((KEY + bytes.fromhex("C1D0F8FB4958670D"))[:size]))
    drawn = [data.draw(st.binary(min_size=size, max_size=size)) for _ in range(count - 1)]
    last = bytearray(key.reveal())
    for part in drawn:
        xor_into(last, part)
    parts = [*map(Secret, drawn), Secret(last)]
    assume(len({des.zero_kcv(part) for part in parts}) == count)  # the same component twice is refused
    assembly = Assembly(count, test_keys=True)
    for secret in data.draw(st.permutations(parts)):
        assembly.add(secret)
    assert assembly.complete() == key


@pytest.mark.parametrize(("size", "single"), [(8, True), (16, True), (24, True), (16, False), (24, False)])
def test_a_key_of_each_length_comes_from_components_of_that_length(size: int, single: bool) -> None:
    first, second = (KEY + KEY[3:11])[:size], (KEY[5:] + KEY[:13])[:size]
    assembly = Assembly(2, single=single)
    for part in (first, second):
        assembly.add(Secret(part))
    assert len(assembly.complete()) == size


@pytest.mark.parametrize("size", [16, 24, 32])
def test_an_aes_key_comes_from_components_as_it_is(size: int) -> None:
    first, second = bytes(range(size)), bytes(range(100, 100 + 2 * size, 2))
    assembly = Assembly(2, aes=True)
    assert [assembly.add(Secret(part)) for part in (first, second)] == [
        mac.aes_kcv(Secret(part)) for part in (first, second)
    ]
    assert assembly.complete().reveal() == bytes(a ^ b for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("part", [bytes(range(8)), bytes(range(12)), bytes(range(40)), bytes(16)])
def test_an_aes_component_of_another_length_or_that_everybody_knows_is_refused(part: bytes) -> None:
    with pytest.raises(KeyRefused):
        Assembly(2, aes=True).add(Secret(part))


def test_a_component_is_wiped_as_soon_as_it_is_combined_and_the_sum_when_it_is_complete() -> None:
    parts = [Secret(KEY), Secret(KEY[1:] + KEY[:1])]
    buffers = [part.reveal() for part in parts]
    assembly = Assembly(2)
    for part in parts:
        assembly.add(part)
    buffers.append(assembly._sum.reveal())
    assembly.complete()
    assert not any(map(any, buffers))
    with pytest.raises(KeyRefused, match="missing"):
        assembly.complete()


@pytest.mark.parametrize(
    ("given_parts", "reason"),
    [
        (["3F419E1CB7079442AA37474C2EFBF8B8"] * 2, "given before"),
        (["3F419E1CB7079442AA37474C2EFBF8B8", "00" * 24], "full length"),
        (["3F419E1CB7079442", "AA37474C2EFBF8B8"], "full length"),
        (["3F419E1CB7079442AA37474C2EFBF8B8"], "missing"),
        (["3F419E1CB7079442AA37474C2EFBF8B8", "651BC446ED5DCE18C1D0F8FB4958670D", "44" * 16], "too many"),
        (["3F419E1CB7079442AA37474C2EFBF8B8", "3E419E1CB7079442AA37474C2EFBF8B8"], "given before"),
        (["3F419E1CB7079442AA37474C2EFBF8B8", "651BC446ED5DCE18F06D1D1674A1A2E2"], "neighbouring"),
        (["3F419E1CB7079442AA37474C2EFBF8B8", "3E409F1DB606954354C9B9B2D0050646"], "weak"),
        (["3F419E1CB7079442AA37474C2EFBF8B8", "3E62DB7B3EAC59AD54EBFDD458AFCAA8"], "published"),
        (["3F419E1CB7079442AA37474C2EFBF8B8", "00" * 16], "one person"),
        (["0001" * 8, "3F419E1CB7079442AA37474C2EFBF8B8"], "one person"),
        (["0123456789ABCDEF" * 2, "3F419E1CB7079442AA37474C2EFBF8B8"], "one person"),
    ],
)
def test_wrong_parts_end_the_assembly_and_nothing_is_left_of_it(given_parts: list[str], reason: str) -> None:
    assembly = Assembly(2)

    def assemble() -> Secret:
        for part in given_parts:
            assembly.add(Secret(bytes.fromhex(part)))
        return assembly.complete()

    with pytest.raises(KeyRefused, match=reason):
        assemble()
    assert "0 of 2" in repr(assembly)
    with pytest.raises(KeyRefused, match="missing"):
        assembly.complete()


@pytest.mark.parametrize("count", [0, 1, 4])
def test_a_key_has_two_or_three_components(count: int) -> None:
    with pytest.raises(KeyRefused):
        Assembly(count)
