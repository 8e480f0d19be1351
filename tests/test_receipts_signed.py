"""A receipt holds with the terminal's public key alone, and nobody changes a character of it unnoticed."""

import base64
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.crypto import receipts
from agent.crypto.ed25519 import SigningKey
from agent.crypto.receipt_words import REFUSALS
from agent.crypto.signing import COMMAND, RECEIPT, Envelope
from agent.errors import EnvelopeRefused
from agent.ledger import canonical
from tests.receipted import CASES, KEY, OTHER, facts, issued
from tests.strangers import run_peer

GOLDEN = Path(__file__).parent / "vectors/receipt.txt"
PEER = """
import base64, hashlib, json, sys
from cryptography.hazmat.primitives import serialization

text, pem = (open(name, "rb").read() for name in sys.argv[1:])
block = text.split(b"-----BEGIN TILLWIRE RECEIPT-----")[1].split(b"-----END TILLWIRE RECEIPT-----")[0]
envelope = json.loads(base64.b64decode(block))
payload, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"].encode()
signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
public = serialization.load_pem_public_key(pem)
(signature,) = envelope["signatures"]
public.verify(base64.b64decode(signature["sig"]), signed)
der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
assert base64.urlsafe_b64encode(hashlib.sha256(der).digest()).decode() == signature["keyid"]
print(payload.decode())
"""


def refused(text: str, key: SigningKey = KEY) -> str:
    with pytest.raises(EnvelopeRefused) as caught:
        receipts.read(text, key.public)
    assert str(caught.value) == REFUSALS[caught.value.reason].en
    return caught.value.reason


def with_block(text: str, sealed: bytes) -> str:
    """A receipt with other bytes in its block."""
    block = base64.b64encode(sealed).decode()
    lines = "\n".join(block[at : at + 76] for at in range(0, len(block), 76))
    return text.partition(receipts.BEGIN)[0] + f"{receipts.BEGIN}\n{lines}\n{receipts.END}\n"


def sealed_in(text: str) -> bytes:
    return base64.b64decode(text.partition(receipts.BEGIN)[2].partition(receipts.END)[0])


@pytest.mark.parametrize("name", CASES)
def test_what_is_issued_is_read_again(name: str) -> None:
    checked = receipts.read(issued(name), KEY.public)
    assert checked.facts == facts(name)
    assert issued(name).startswith(checked.page + "\n\n")
    envelope = Envelope.read(sealed_in(issued(name)))
    assert (envelope.kind, envelope.unverified) == (RECEIPT, canonical(facts(name)))


def test_the_receipt_of_the_golden_page() -> None:
    assert issued() == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", " \n"),
        lambda text: text.replace("\n", "\t \r\n"),
        lambda text: text + "\n \r\n\n",
        lambda text: text.rstrip("\n"),
    ],
)
def test_what_a_mail_programme_does_to_ends_of_lines_changes_nothing(change: Callable[[str], str]) -> None:
    assert receipts.read(change(issued()), KEY.public) == receipts.read(issued(), KEY.public)


@pytest.mark.parametrize("odd", ["\u00a0", "\u3000", "\u2028", "\x0b", "\x0c", "\x85", "\u200b", "\ufeff"])
def test_no_other_blank_passes_for_the_end_of_a_line(odd: str) -> None:
    for text in (
        issued().replace("\n", odd + "\n"),
        issued().replace("\n", odd, 1),
        issued() + odd,
        odd + issued(),
    ):
        assert refused(text) in ("page_changed", "not_valid")


@given(
    at=st.integers(0, len(issued()) - 1),
    how=st.sampled_from(["flip", "drop", "double", "swap", "blank", "cut"]),
    other=st.sampled_from(["\n", "\r", " ", "\u00a0", "\u2028", "\x0b", "0", "A", "=", "\ufeff", "，", "\u0301"]),
)
def test_a_changed_character_anywhere_is_found(at: int, how: str, other: str) -> None:
    text = issued()
    edits = {
        "flip": text[:at] + other + text[at + 1 :],
        "drop": text[:at] + text[at + 1 :],
        "double": text[:at] + text[at] + text[at:],
        "swap": text[:at] + text[at : at + 2][::-1] + text[at + 2 :],
        "blank": text[:at] + other + text[at:],
        "cut": text[:at],
    }
    edited = edits[how]
    if re.sub(r"[ \t\r]*(\n|\Z)", r"\1", edited).rstrip("\n") == text.rstrip("\n"):
        receipts.read(edited, KEY.public)
    else:
        assert refused(edited) in REFUSALS


def test_no_character_of_the_page_can_be_dropped() -> None:
    """All of them, by the page alone: the signature was verified before and does not look at it."""
    page = receipts.page(facts("simulator"))
    text = issued("simulator")
    for at in range(0, len(page), 5):
        if page[at] not in " \n":
            assert refused(text[:at] + text[at + 1 :]) == "page_changed"


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("page_changed", lambda text: text.replace("LOADED", "ABORTED", 1)),
        ("page_changed", lambda text: text.replace("22:15:00", "22:15:01", 1)),
        ("page_changed", lambda text: "See below.\n" + text),
        ("page_changed", lambda text: text.replace("\n\n-----BEGIN", "\n-----BEGIN")),
        ("page_changed", lambda text: text.replace(" ", "\u00a0", 1)),
        ("page_changed", lambda text: issued("aborted").partition(receipts.BEGIN)[0] + _block(text)),
        ("not_valid", lambda text: text + "PS: it is all right.\n"),
        ("not_valid", lambda text: text + _block(text)),
        ("not_valid", lambda text: text.partition(receipts.BEGIN)[0]),
        ("not_valid", lambda text: text.replace(receipts.BEGIN, "-----BEGIN RECEIPT-----")),
        ("not_valid", lambda text: with_block(text, b"{}")),
        ("not_valid", lambda text: with_block(text, sealed_in(text)[:-1])),
        ("not_valid", lambda text: with_block(text, Envelope(RECEIPT, b"{}").text)),
        ("not_valid", lambda text: with_block(text, Envelope.read(sealed_in(text)).signed(OTHER).text)),
        ("not_valid", lambda text: ""),
        ("page_changed", lambda text: with_block(text, sealed_in(text).replace(b'":"', b'": "', 1))),
        ("page_changed", lambda text: text.replace("\n" + _block(text).split("\n")[1], "\n" + _broken(text))),
        ("wrong_type", lambda text: with_block(text, Envelope(COMMAND, b"{}").signed(KEY).text)),
        ("unknown_key", lambda text: with_block(text, Envelope(RECEIPT, b"{}").signed(OTHER).text)),
        ("other_format", lambda text: with_block(text, Envelope(RECEIPT, b'{"format":"x/2"}').signed(KEY).text)),
        ("not_valid", lambda text: with_block(text, Envelope(RECEIPT, b'{"a":1,"a":2}').signed(KEY).text)),
        ("bad_signature", lambda text: with_block(text, _other_payload(text))),
        ("too_large", lambda text: text + "\n" * receipts.LONGEST),
    ],
)
def test_each_refusal_has_its_word_and_a_sentence(reason: str, change: Callable[[str], str]) -> None:
    assert refused(change(issued())) == reason


def _block(text: str) -> str:
    return receipts.BEGIN + text.partition(receipts.BEGIN)[2]


def _broken(text: str) -> str:
    """The first line of the block on two lines: the same bytes."""
    line = _block(text).split("\n")[1]
    return line[:40] + "\n" + line[40:]


def _other_payload(text: str) -> bytes:
    envelope = Envelope.read(sealed_in(text))
    return replace(envelope, unverified=envelope.unverified.replace(b'"slot":"TMK"', b'"slot":"TPK"', 1)).text


def test_another_terminal_s_key_does_not_vouch_for_it() -> None:
    assert refused(issued(), OTHER) == "unknown_key"
    assert receipts.read(receipts.issue(facts("components"), OTHER), OTHER.public).facts == facts("components")


@pytest.mark.peer(".venv-peers")
@pytest.mark.parametrize("name", CASES)
def test_a_library_that_others_wrote_verifies_the_block_with_the_public_key_alone(
    name: str, tmp_path: Path
) -> None:
    receipt, pem = tmp_path / "receipt", tmp_path / "terminal.pem"
    receipt.write_text(issued(name), encoding="utf-8")
    pem.write_text(KEY.public.pem)
    assert json.loads(run_peer(PEER, str(receipt), str(pem))) == facts(name)
