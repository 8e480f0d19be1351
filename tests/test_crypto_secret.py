"""No secret shows: not in a repr, a format, a pickle, a copy or an error, whatever was pasted where."""

import copy
import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable

import pytest

from agent.crypto import components, des, dukpt, mac, pinblock, wrapping
from agent.crypto.kcv import Kcv
from agent.crypto.keyblock import Header, KeyBlock, OptionalBlock
from agent.crypto.secret import Secret
from agent.errors import CryptoError

DIGITS = "9B1D5E7F3A42C6D80F1E2D3C4B5A6978"
KEY = bytes.fromhex(DIGITS)


def shows(text: str) -> bool:
    """Whether four characters in a row of the key's digits, or its bytes, are in a text."""
    plain = text.upper().replace(" ", "").replace("\\X", "")
    return any(DIGITS[i : i + 4] in plain for i in range(len(DIGITS) - 3)) or repr(KEY)[2:-1] in text


@pytest.mark.parametrize("show", [repr, str, "{}".format, "{!r}".format, lambda secret: f"{[secret]}"])
def test_a_secret_shows_its_length_only(show: Callable[[Secret], str]) -> None:
    assert "16 bytes" in show(Secret(KEY))
    assert not shows(show(Secret(KEY)))


def test_a_secret_is_neither_pickled_nor_copied_nor_hashed() -> None:
    for keep in (pickle.dumps, copy.copy, copy.deepcopy, hash):
        with pytest.raises(TypeError):
            keep(Secret(KEY))


def test_wiping_overwrites_the_buffer_and_ends_the_secret() -> None:
    secret = Secret(KEY)
    buffer = secret.reveal()
    with secret:
        assert buffer == KEY
    assert buffer == bytes(16)
    with pytest.raises(CryptoError, match="wiped"):
        secret.reveal()
    assert repr(secret) == "<Secret wiped>"


def test_what_a_secret_was_taken_from_is_overwritten_also_when_it_is_refused() -> None:
    buffer, digits, wrong = bytearray(KEY), bytearray(DIGITS.encode()), bytearray(DIGITS[:-1].encode())
    assert Secret.taking(buffer) == Secret.from_hex(digits) == Secret(KEY)
    with pytest.raises(CryptoError):
        Secret.from_hex(wrong)
    assert not any(buffer)
    assert not any(digits)
    assert not any(wrong)


def test_secrets_are_equal_by_content() -> None:
    assert Secret(KEY) == Secret(KEY)
    assert Secret(KEY) != Secret(KEY[:-1] + b"\0")
    assert Secret(KEY) != KEY


@pytest.mark.parametrize(
    "misuse",
    [
        lambda: KeyBlock.parse(DIGITS),
        lambda: KeyBlock.parse(f"B0032{DIGITS[5:]}"),
        lambda: KeyBlock.parse(f"B0048P0TE00N0000{DIGITS.lower()}"),
        lambda: KeyBlock.parse(f"B0048{DIGITS}00000000000"),
        lambda: KeyBlock.parse(f"B0096P0TE00N0100KS{DIGITS * 3}"),
        lambda: Header("B", DIGITS, "T", "E"),
        lambda: OptionalBlock(DIGITS, DIGITS),
        lambda: OptionalBlock("KS", DIGITS.lower()),
        lambda: OptionalBlock("KC", DIGITS),
        lambda: Kcv.parse(DIGITS),
        lambda: Kcv(KEY),
        lambda: Secret.from_hex(DIGITS.encode() + b"x"),
        lambda: des.encrypt(Secret(KEY + b"\0"), KEY),
        lambda: des.decrypt(Secret(KEY), KEY[:-1]),
        lambda: des.refuse_unsound(Secret(KEY[:8] * 2)),
        lambda: mac.retail_mac(Secret(KEY * 2), KEY),
        lambda: mac.aes_cmac(Secret(KEY[:-1]), KEY),
        lambda: dukpt.initial_key(Secret(KEY), KEY),
        lambda: pinblock.encode(0, Secret(DIGITS.encode()), Secret(DIGITS.encode())),
        lambda: pinblock.decode(3, Secret(KEY[:8]), Secret(b"4012345678909")),
        lambda: pinblock.encipher(Secret(KEY), Secret(b"1234"), Secret(DIGITS.encode())),
        lambda: components.Assembly(2).add(Secret(KEY + b"\0")),
        lambda: wrapping.wrap(Header("B", "P0", "T", "E"), Secret(KEY * 2), Secret(KEY)),
        lambda: wrapping.check_value(Secret(KEY), "A", "zero"),
    ],
)
def test_no_error_repeats_what_it_was_given(misuse: Callable[[], object]) -> None:
    with pytest.raises(CryptoError) as refused:
        misuse()
    told = [str(refused.value), repr(refused.value), *traceback.format_exception(refused.value)]
    chained = [refused.value.__cause__, refused.value.__context__]
    assert not any(shows(text) for text in told if "DIGITS" not in text)
    assert not any(shows(str(error)) for error in chained)


def test_the_public_side_of_a_key_loads_no_cipher() -> None:
    script = """
import sys
import agent.crypto.keyblock, agent.crypto.kcv, agent.crypto.secret, agent.errors
print([name for name in sys.modules if name.partition(".")[0] == "Crypto"])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == "[]"
