"""MACs, PIN blocks and DUKPT beyond their vectors: round trips, borders, one answer for every wrong PIN block."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.crypto import des, dukpt, mac, pinblock
from agent.crypto.secret import Secret
from agent.errors import CryptoError, KeyRefused, NotAuthentic

KEY = Secret(bytes.fromhex("0123456789ABCDEFFEDCBA9876543210"))
PAN = Secret(b"4012345678909")
pins = st.text("0123456789", min_size=4, max_size=12).map(lambda digits: Secret(digits.encode()))
pans = st.text("0123456789", min_size=13, max_size=19).map(lambda digits: Secret(digits.encode()))


def test_padding_of_an_empty_and_of_a_full_message() -> None:
    full = b"12345678"
    assert mac.pad(b"", 1) == bytes(8)
    assert mac.pad(full, 1) == full
    assert mac.pad(full, 2) == full + b"\x80" + bytes(7)
    assert mac.pad(full, 3) == bytes(7) + b"\x40" + full
    assert mac.pad(b"1", 2, 16) == b"1\x80" + bytes(14)
    with pytest.raises(CryptoError):
        mac.pad(full, 4)


def test_the_unionpay_mac_of_the_published_handful() -> None:
    data = bytes.fromhex("1234567890ABCDEFABCDEF1234567890")
    assert mac.unionpay_mac(Secret(b"\x22" * 8), data) == b"E267B6E2"


@settings(deadline=None)
@given(st.sampled_from([0, 1, 2, 3]), pins, pans)
def test_a_pin_block_gives_the_pin_back(form: int, pin: Secret, pan: Secret) -> None:
    block = pinblock.encode(form, pin, pan)
    assert block.reveal()[0] == form << 4 | len(pin)
    assert pinblock.decode(form, block, pan) == pin


@settings(deadline=None)
@given(pins, st.text("0123456789", min_size=1, max_size=19), st.sampled_from([16, 24, 32]))
def test_an_aes_pin_block_gives_the_pin_back(pin: Secret, pan: str, size: int) -> None:
    key, account = Secret(bytes(range(size))), Secret(pan.encode())
    assert pinblock.decipher(key, pinblock.encipher(key, pin, account), account) == pin


def test_one_pin_has_many_blocks_where_the_format_has_a_random_part() -> None:
    for form in (1, 3):
        assert pinblock.encode(form, Secret(b"1234"), PAN) != pinblock.encode(form, Secret(b"1234"), PAN)
    sealed = [pinblock.encipher(KEY, Secret(b"1234"), PAN) for _ in range(2)]
    assert sealed[0] != sealed[1]


def test_the_filling_of_format_3_has_the_letters_only_and_all_of_them() -> None:
    blocks = [pinblock.encode(3, Secret(b"1234"), Secret(b"0" * 13)).reveal().hex()[6:] for _ in range(100)]
    assert set("".join(blocks)) == set("abcdef")
    # 256 is no multiple of six: the bytes beyond 251 would make four letters likelier than the others.
    drawn = iter([bytes(range(246, 256)), bytes([255] * 9 + [3]), b"\1" * 10])
    once = pinblock.encode(3, Secret(b"1234"), Secret(b"0" * 13), lambda n: next(drawn))
    assert once.reveal().hex() == "341234abcdefdbbb"


@settings(deadline=None)
@given(st.sampled_from([0, 2, 3]), st.binary(min_size=8, max_size=8))
def test_whatever_is_no_pin_block_gets_one_sentence(form: int, noise: bytes) -> None:
    told = str(NotAuthentic())
    try:
        found = pinblock.decode(form, Secret(noise), PAN)
    except CryptoError as error:
        told = str(error)
    else:
        assert 4 <= len(found) <= 12
        assert found.reveal().isdigit()
    assert told == str(NotAuthentic())


@pytest.mark.parametrize(
    ("form", "block"),
    [
        (2, "1412349999999999"),
        (2, "141234FFFFFFFFFF"),
        (2, "2312 34FF FFFF FFFF"),
        (2, "2D12345678901234"),
        (2, "24123AFFFFFFFFFF"),
        (2, "241234FFFFFFFFF0"),
        (2, "2412340FFFFFFFFF"),
        (2, "241234FFFFFFFF"),
        (3, "3412340123456789"),
    ],
)
def test_a_damaged_pin_block_is_refused(form: int, block: str) -> None:
    with pytest.raises(NotAuthentic):
        pinblock.decode(form, Secret(bytes.fromhex(block)), Secret(b"0" * 13))


def test_an_aes_pin_block_under_another_key_or_of_another_length_is_refused() -> None:
    sealed = pinblock.encipher(KEY, Secret(b"1234"), PAN)
    for key, data in ((Secret(bytes(16)), sealed), (KEY, sealed[:-1]), (KEY, bytes(16))):
        with pytest.raises(NotAuthentic):
            pinblock.decipher(key, data, PAN)


@pytest.mark.parametrize(
    ("form", "pin", "pan"),
    [
        (0, b"123", PAN),
        (0, b"1" * 13, PAN),
        (0, b"12a4", PAN),
        (0, b"1234", None),
        (3, b"1234", None),
        (0, b"1234", Secret(b"1" * 12)),
        (3, b"1234", Secret(b"1" * 20)),
        (4, b"1234", PAN),
        (5, b"1234", PAN),
    ],
)
def test_a_pin_or_card_number_that_is_none_is_refused(form: int, pin: bytes, pan: Secret | None) -> None:
    with pytest.raises(CryptoError):
        pinblock.encode(form, Secret(pin), pan)


@pytest.mark.parametrize(("pin", "pan"), [(b"123", b"1"), (b"1" * 13, b"1"), (b"1234", b""), (b"1234", b"1" * 20)])
def test_a_pin_or_card_number_that_is_none_is_refused_in_format_4(pin: bytes, pan: bytes) -> None:
    with pytest.raises(CryptoError):
        pinblock.encipher(KEY, Secret(pin), Secret(pan))


@pytest.mark.parametrize(
    ("pan", "field"), [(b"7", "0000000000007"), (b"1" * 12, "0" + "1" * 12), (b"1" * 13, "1" * 14)]
)
def test_the_first_digit_of_a_card_number_field_counts_the_digits_beyond_twelve(pan: bytes, field: str) -> None:
    assert pinblock.pan_field(Secret(pan)).reveal().hex() == f"{field:0<32}"


@pytest.mark.parametrize("size", [0, 8, 15, 33])
def test_format_4_is_for_an_aes_key(size: int) -> None:
    key = Secret(bytes(size))
    with pytest.raises(KeyRefused, match="AES"):
        pinblock.encipher(key, Secret(b"1234"), PAN)
    with pytest.raises(KeyRefused, match="AES"):
        pinblock.decipher(key, bytes(16), PAN)


def test_a_format_that_is_none_is_refused_on_the_way_back() -> None:
    with pytest.raises(CryptoError):
        pinblock.decode(4, Secret(bytes(8)), PAN)


def serial(counter: int) -> bytes:
    return (int.from_bytes(bytes.fromhex("FFFF9876543210E00000"), "big") + counter).to_bytes(10, "big")


def test_the_counters_of_a_device_are_those_with_at_most_ten_ones() -> None:
    counter, used = 0, []
    while counter < 0x4000:
        counter = dukpt.next_counter(counter)
        used.append(counter)
    assert used == [n for n in range(1, 0x4001) if n.bit_count() <= 10]
    assert dukpt.next_counter(0x7FE) == 0x800
    assert dukpt.next_counter(0x1FF7FE) > 0x1FF7FE
    with pytest.raises(CryptoError, match="used all"):
        dukpt.next_counter(0x1FF800)


@pytest.mark.parametrize("counter", [0, 0x7FF, 0x1FFFFF])
def test_a_counter_that_no_device_uses_is_refused(counter: int) -> None:
    with pytest.raises(CryptoError):
        dukpt.transaction_key(KEY, serial(counter))


def test_the_initial_key_does_not_depend_on_the_counter_and_every_purpose_has_its_own_key() -> None:
    initial = dukpt.initial_key(KEY, serial(5))
    assert initial == dukpt.initial_key(KEY, serial(0))
    transaction = dukpt.transaction_key(initial, serial(5))
    purposes: list[dukpt.Purpose] = ["pin", "mac request", "mac response", "data request", "data response"]
    working = [bytes(dukpt.working_key(transaction, purpose).reveal()) for purpose in purposes]
    assert len({*working, bytes(transaction.reveal())}) == 6
    assert working[2] == bytes(a ^ b for a, b in zip(transaction.reveal(), b"\0\0\0\0\xff\0\0\0" * 2, strict=True))


def test_the_data_key_is_the_variant_encrypted_under_itself() -> None:
    transaction = dukpt.transaction_key(KEY, serial(1))
    variant = bytes(a ^ b for a, b in zip(transaction.reveal(), b"\0\0\0\0\0\xff\0\0" * 2, strict=True))
    expected = des.encrypt(Secret(variant), variant)
    assert dukpt.working_key(transaction, "data request").reveal() == expected


def test_dukpt_takes_double_length_keys_and_serial_numbers_of_ten_bytes() -> None:
    for size in (8, 15, 24):
        key = Secret(bytes(range(size)))
        for derive in (dukpt.initial_key, dukpt.transaction_key):
            with pytest.raises(KeyRefused, match="16 bytes"):
                derive(key, serial(1))
        with pytest.raises(KeyRefused, match="16 bytes"):
            dukpt.working_key(key, "pin")
    with pytest.raises(CryptoError):
        dukpt.initial_key(KEY, serial(1)[2:])
