"""psec, which others wrote over OpenSSL, beside our payment cryptography: both ways, and where the two disagree.

psec leaves policy to its caller; where it takes what we refuse, the sentence of the standard stands beside the row.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from agent.crypto import des, mac, pinblock, wrapping
from agent.crypto.kcv import Kcv
from agent.crypto.keyblock import Header, KeyBlock, OptionalBlock, Policy
from agent.crypto.secret import Secret
from agent.errors import CryptoError
from tests.forging import KBPK, KEY, content, forge
from tests.strangers import run_peer

pytestmark = [pytest.mark.peer(".venv-peers")]
ALL = Policy(versions="ABCD", single=True, test_keys=True, weak_wrapping=True)
SCRIPT = """
import json, sys, warnings
warnings.simplefilter("ignore")
import psec

def answer(case):
    name, *given = case
    given = [bytes.fromhex(value[1:]) if isinstance(value, str) and value[:1] == "=" else value for value in given]
    module, function = name.split(".")
    try:
        found = getattr(getattr(psec, module), function)(*given)
    except Exception as error:
        return {"error": type(error).__name__}
    if isinstance(found, tuple):
        return {"header": str(found[0]), "blocks": dict(found[0].blocks), "key": found[1].hex()}
    return found.hex() if isinstance(found, bytes) else found

with open(sys.argv[1]) as file:
    print(json.dumps([answer(case) for case in json.load(file)]))
"""


def psec(folder: Path, cases: list[list[Any]]) -> list[Any]:
    """Each case is a function of psec and its arguments; bytes are sent as `=` and hex. One process for all."""
    file = folder / "cases.json"
    file.write_text(json.dumps(cases, default=lambda value: f"={bytes(value).hex()}"))
    answers: list[Any] = json.loads(run_peer(SCRIPT, str(file)))
    return answers


def sound(draw: Random, size: int) -> bytes:
    """A random key that psec's library and ours both take."""
    return bytes(des.odd_parity(Secret(draw.randbytes(size))).reveal())


def blocks(draw: Random, count: int) -> Iterator[tuple[Header, bytes, bytes]]:
    """Random headers, each with a key and a protection key: versions A to D, DES to AES keys, optional blocks."""
    for _ in range(count):
        version = draw.choice("ABCD")
        kbpk = sound(draw, draw.choice([16, 24])) if version in "ABC" else draw.randbytes(draw.choice([16, 24, 32]))
        algorithm = draw.choice("TTD" if version in "ABC" else "TDAA")
        key = sound(draw, draw.choice({"T": [16, 24], "D": [8], "A": [16, 24, 32]}[algorithm]))
        usage, mode = draw.choice([("P0", "E"), ("K0", "B"), ("M3", "C"), ("D0", "N"), ("B0", "X")])
        optional = (
            OptionalBlock("KS", draw.randbytes(10).hex().upper()),
            OptionalBlock("LB", "Invented label"[: draw.randrange(1, 15)]),
            OptionalBlock("CT", "x" * draw.randrange(240, 252)),
        )[: draw.randrange(4)]
        yield (
            Header(
                version, usage, algorithm, mode, draw.choice(["00", "07", "A1"]), draw.choice("ENS"), "0", optional
            ),
            key,
            kbpk,
        )


def test_what_we_wrap_psec_unwraps(tmp_path: Path) -> None:
    drawn = list(blocks(Random(31), 300))
    ours = [wrapping.wrap(header, Secret(key), Secret(kbpk), ALL) for header, key, kbpk in drawn]
    cases = [["tr31.unwrap", kbpk, block.text] for block, (_, _, kbpk) in zip(ours, drawn, strict=True)]
    for (header, key, _), seen in zip(drawn, psec(tmp_path, cases), strict=True):
        assert seen["key"] == key.hex()
        assert seen["blocks"] == {block.id: block.data for block in header.optional}
        assert seen["header"][5:16] == header.text(0)[5:16]


def test_what_psec_wraps_we_unwrap(tmp_path: Path) -> None:
    drawn = list(blocks(Random(143), 300))
    cases = [["tr31.wrap", kbpk, header.text(0), key] for header, key, kbpk in drawn]
    for (header, key, kbpk), text in zip(drawn, psec(tmp_path, cases), strict=True):
        block = KeyBlock.parse(text)
        assert wrapping.unwrap(block, Secret(kbpk), ALL) == Secret(key)
        assert block.header.optional[: len(header.optional)] == header.optional


def test_psec_computes_the_same_check_values_macs_and_ciphertexts(tmp_path: Path) -> None:
    draw = Random(919)
    cases: list[list[Any]] = []
    ours: list[Any] = []
    for size in [16, 24] * 60:
        key, iv = sound(draw, size), draw.randbytes(8)
        data, message = draw.randbytes(8 * draw.randrange(1, 9)), draw.randbytes(draw.randrange(0, 70))
        padding, secret = draw.choice([1, 2, 3]), Secret(key)
        cases.append(["des.generate_kcv", key, 3])
        ours.append(des.zero_kcv(secret).value)
        cases.append(["des.adjust_key_parity", bytes(byte ^ draw.randrange(2) for byte in key)])
        ours.append(key)
        cases.append(["des.encrypt_tdes_ecb", key, data])
        ours.append(des.encrypt(secret, data))
        cases.append(["des.encrypt_tdes_cbc", key, iv, data])
        ours.append(des.encrypt(secret, data, iv))
        cases.append(["des.decrypt_tdes_cbc", key, iv, data])
        ours.append(bytes(des.decrypt(secret, data, iv).reveal()))
        cases.append(["mac.generate_cbc_mac", key, message, padding])
        ours.append(mac.cbc_mac(secret, message, padding))
        cases.append(["mac.generate_retail_mac", key[:8], key[8:16], message, padding])
        ours.append(mac.retail_mac(Secret(key[:16]), message, padding))
    assert psec(tmp_path, cases) == [value.hex() for value in ours]


def test_psec_reads_our_pin_blocks_and_we_read_those_of_psec(tmp_path: Path) -> None:
    draw = Random(9564)
    people = [
        (
            "".join(draw.choices("0123456789", k=draw.randrange(4, 13))),
            "".join(draw.choices("0123456789", k=draw.randrange(13, 20))),
        )
        for _ in range(60)
    ]
    key = sound(draw, 16)
    written: list[list[Any]] = []
    read: list[list[Any]] = []
    for pin, pan in people:
        mine = Secret(pin.encode()), Secret(pan.encode())
        for form in (0, 3):
            written.append([f"pinblock.encode_pinblock_iso_{form}", pin, pan])
            read.append([f"pinblock.decode_pinblock_iso_{form}", pinblock.encode(form, *mine).reveal(), pan])
        written.append(["pinblock.encode_pinblock_iso_2", pin])
        read.append(["pinblock.decode_pinblock_iso_2", pinblock.encode(2, mine[0]).reveal()])
        written.append(["pinblock.encipher_pinblock_iso_4", key, pin, pan])
        read.append(["pinblock.decipher_pinblock_iso_4", key, pinblock.encipher(Secret(key), *mine), pan])
    assert psec(tmp_path, read) == [pin for pin, _ in people for _ in range(4)]
    theirs = [bytes.fromhex(value) for value in psec(tmp_path, written)]
    for (pin, pan), found in zip(people, zip(*[iter(theirs)] * 4, strict=True), strict=True):
        account = Secret(pan.encode())
        decoded = [pinblock.decode(form, Secret(found[place]), account) for place, form in enumerate((0, 3, 2))]
        decoded.append(pinblock.decipher(Secret(key), found[3], account))
        assert decoded == [Secret(pin.encode())] * 4


SAMPLE = forge("P0TE00E0000")
EXTENDED = OptionalBlock("CT", "x" * 254)
TAKEN, REFUSED = True, False
# What, the block, whether psec takes it. We refuse every row. The texts that we follow: X9.143:2021 6.2 and 6.3 for
# the header, 6.3.6 for optional blocks, X9.24-1 and PCI PIN 18-3 and 19 for what a key may be and be used for.
ROWS: list[tuple[str, str, bool]] = [
    ("wrong MAC", SAMPLE[:-1] + ("0" if SAMPLE[-1] != "0" else "1"), REFUSED),
    ("usage changed", SAMPLE.replace("P0TE", "D0TE"), REFUSED),
    ("relabelled version", "C" + SAMPLE[1:], REFUSED),
    ("wrong length field", SAMPLE.replace("B0096", "B0097"), REFUSED),
    ("trailing newline", SAMPLE + "\n", REFUSED),
    ("bit length not of whole bytes", forge("P0TE00E0000", content(bits=127)), REFUSED),
    ("bit length beyond the payload", forge("P0TE00E0000", content(bits=0xFFF8)), REFUSED),
    ("optional block too small", forge("P0TE00E0100", optional="KS03ABCDEFABCDEF"), REFUSED),
    ("lower-case payload", SAMPLE[:16] + SAMPLE[16:].lower(), TAKEN),  # hex is A-F: a second spelling of one block
    ("unknown usage", forge("Q0TE00E0000"), TAKEN),
    ("unknown mode", forge("P0TQ00E0000"), TAKEN),
    ("unknown exportability", forge("P0TE00Q0000"), TAKEN),
    ("unknown context", forge("P0TE00E0050"), TAKEN),
    ("mode that does not fit", forge("P0TX00E0000"), TAKEN),
    ("reserved character", forge("P0TE00E0009"), TAKEN),
    ("made for storage", forge("P0TE00E0010"), TAKEN),
    ("single length in a T block", forge("P0TE00E0000", content(KEY[:8])), TAKEN),
    ("single DES", forge("P0DE00E0000", content(KEY[:8])), TAKEN),
    ("zero key", forge("P0TE00E0000", content(bytes(16))), TAKEN),
    ("equal halves", forge("P0TE00E0000", content(KEY[:8] * 2)), TAKEN),
    ("triple under double", forge("P0TE00E0000", content(KEY + b"\x10\x20\x31\x40\x51\x61\x70\x80")), TAKEN),
    ("AES under 3DES", forge("D0AB00E0000"), TAKEN),
    ("no key", forge("P0TE00E0000", content(b"")), TAKEN),
    ("optional block twice", forge("P0TE00E0200", optional="KS080060KS084B12"), TAKEN),
    ("filling not last", forge("P0TE00E0200", optional="PB08ABCDKS1000604B120F92"), TAKEN),
    ("KS not hex", forge("P0TE00E0100", optional="KS10ABCDEFGHIJKL"), TAKEN),
    ("component", forge("P0TEc1E0000"), TAKEN),
    ("filling far too long", forge("P0TE00E0000", content(size=96)), TAKEN),
    ("version A", wrapping.wrap(Header("A", "P0", "T", "E"), Secret(KEY), KBPK, ALL).text, TAKEN),
    ("version C", wrapping.wrap(Header("C", "P0", "T", "E"), Secret(KEY), KBPK, ALL).text, TAKEN),
    ("length as psec writes it", forge("P0TE00E0100", optional="CT00020108" + "x" * 254), TAKEN),
]


def test_psec_and_we_disagree_where_it_is_written_down_and_nowhere_else(tmp_path: Path) -> None:
    seen = psec(tmp_path, [["tr31.unwrap", KBPK.reveal(), text] for _, text, _ in ROWS])
    assert {name: "error" not in answer for (name, _, _), answer in zip(ROWS, seen, strict=True)} == {
        name: taken for name, _, taken in ROWS
    }
    taken_by_us = []
    for name, text, _ in ROWS:
        try:
            wrapping.unwrap(KeyBlock.parse(text), KBPK)
        except CryptoError:
            continue
        taken_by_us.append(name)
    assert taken_by_us == []


def test_psec_refuses_the_extended_length_of_x9_143_which_we_write(tmp_path: Path) -> None:
    # X9.143:2021 8.5 prints `CT000405..`: four digits of length. psec reads that as four bytes, eight digits.
    block = wrapping.wrap(Header("B", "P0", "T", "E", optional=(EXTENDED,)), Secret(KEY), KBPK)
    assert wrapping.unwrap(KeyBlock.parse(block.text), KBPK) == Secret(KEY)
    assert "error" in psec(tmp_path, [["tr31.unwrap", KBPK.reveal(), block.text]])[0]


def test_psec_shortens_a_check_value_to_two_bytes_unless_told_otherwise(tmp_path: Path) -> None:
    short = bytes.fromhex(psec(tmp_path, [["des.generate_kcv", KEY]])[0])
    assert len(short) == 2
    with pytest.raises(CryptoError):
        Kcv(short)
