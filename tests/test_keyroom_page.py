"""docs/keyroom.md: two people follow it from the top, and every command on it does what it says."""

import json
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.crypto import wrapping
from agent.crypto.ed25519 import PublicKey
from agent.crypto.keyblock import KeyBlock
from agent.crypto.orders import Order
from agent.crypto.secret import Secret
from agent.crypto.signing import ORDER, Accepted, Envelope, Keyring, Rule, Signer, accept
from agent.errors import EnvelopeRefused
from tests.custody import MAY_LOCK, Custodians, found_in
from tests.test_injecting import Ipp, Zt588, ipp_message, plugged_in, zt588_message

pytestmark = [MAY_LOCK]
ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/keyroom.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.S) for line in block.strip().splitlines()]
DRILL = [re.sub(r"\s", "", row) for row in re.findall(r"^    ([0-9A-F ]{40,}?)     check value", PAGE, re.M)]
PARTS = ("3D1F4C8A92E657B0C4D93B6E810F7A25", "7AE5D03C18F92B64915EC7A2F4680BD3")
SINGLE = ("9E3B60D5147FA82C", "52C8A1F60BD4937E")
PHRASES = {"ann.pem": "nine green bottles", "bo.pem": "hanging on a wall"}
TWO = Rule(ORDER, ("maker", "checker"))


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Path]:
    """A folder with what the page assumes: a printer that is a folder in memory."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="keyroom-page-") as printer:
        (tmp_path / "printer").symlink_to(printer)
        yield tmp_path


def follow(folder: Path, line: str, port: str = "") -> Custodians:
    """Run one command of the page as two people would; what it says on stdout goes where the page sends it."""
    command, _, to = line.partition(" > ")
    words = shlex.split(command)
    assert words[:2] == ["tillwire", "keyroom"], line
    printer = {"/dev/usb/lp0": str(folder / "printer")}
    words = [printer.get(word, port if word.startswith("/dev/tty") else word) for word in words[2:]]
    typed = SINGLE if "--single" in words else tuple(DRILL) if "--drill" in words else PARTS
    if "check" in words:
        typed = typed[:1]
    phrase = next((PHRASES[word] for word in words if word in PHRASES), "")
    people = Custodians(folder, *words, before=lambda: os.chdir(folder))
    people.serve(*typed, phrase=phrase)
    assert people.close() == 0, f"{line}: {people.shown}"
    assert "next: " in people.shown, "those at the table are told what follows"
    if to:
        (folder / to.strip()).write_text(people.stdout)
    return people


def keyring(folder: Path) -> Keyring:
    public = {name: PublicKey.from_pem((folder / f"{name}.pub").read_text()) for name in ("ann", "bo")}
    return Keyring(
        [Signer("Ann", public["ann"], frozenset(("maker",))), Signer("Bo", public["bo"], frozenset(("checker",)))]
    )


def test_every_command_of_the_page_runs_and_a_terminal_would_take_the_orders(room: Path) -> None:
    shown = b""
    for line in COMMANDS:
        if "inject" not in line:
            people = follow(room, line)
            shown += people.shown.encode() + people.stdout.encode()
    assert not any(found_in(shown, bytes.fromhex(part)) for part in (*PARTS, *DRILL))

    accepted: Accepted = accept((room / "order.signed.json").read_bytes(), TWO, keyring(room))
    order, made = Order.parse(accepted.content()), json.loads((room / "made.json").read_text())
    assert (order.terminal, order.epp_serial, order.slot, order.usage) == ("ATM-0001", "EPP-7788", "TMK", "K0")
    assert [(str(part.envelope), str(part.kcv)) for part in order.parts] == [
        (part["envelope"], part["kcv"]) for part in made["parts"]
    ]
    assert [part.group for part in order.parts] == ["tellers", "audit"]
    assert str(order.kcv) == made["kcv"]
    assert order.hierarchy == "production"

    wrapped = json.loads((room / "wrapped.json").read_text())
    block_order = Order.parse(json.loads(Envelope.read((room / "block-order.json").read_bytes()).unverified))
    block = KeyBlock.parse(wrapped["block"])
    assert (block_order.block, block_order.form, block_order.under) == (block.fingerprint, "tr31", "TMK")
    assert block_order.version == int(block.header.key_version)
    kek = Secret(bytes(a ^ b for a, b in zip(*map(bytes.fromhex, PARTS), strict=True)))
    assert str(wrapping.check_value(wrapping.unwrap(block, kek), "T", "zero")) == str(block_order.kcv)


def test_the_legacy_pads_of_the_page_are_loaded(room: Path) -> None:
    lines = [line for line in COMMANDS if "inject" in line]
    assert len(lines) == 2
    zt588, ipp = Zt588(), Ipp()
    for line in lines:
        with plugged_in(zt588, zt588_message) if " epp " in line else plugged_in(ipp, ipp_message) as port:
            follow(room, line, port)
    assert set(zt588.keys) == {"00 2"}
    assert set(ipp.slots) == {"0"}


def test_the_components_of_the_drill_are_those_of_the_page() -> None:
    assert len(DRILL) == 2
    assert [len(part) for part in DRILL] == [32, 32]


def test_the_tests_that_the_page_names_exist() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(named) >= 5
    tests = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    assert not [name for name in named if f"def {name}(" not in tests]


# signing


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder after the page's first order was signed by Ann."""
    room = tmp_path_factory.mktemp("signed")
    (room / "printer").symlink_to(tempfile.mkdtemp(dir="/dev/shm", prefix="keyroom-page-"))
    for line in COMMANDS:
        if line.startswith(("tillwire keyroom make", "tillwire keyroom signer", "tillwire keyroom order made")):
            follow(room, line)
    follow(room, "tillwire keyroom sign order.json --key ann.pem > order.ann.json")
    yield room
    shutil.rmtree((room / "printer").resolve())


def run(folder: Path, *words: str, phrase: str = "", yes: bool = True) -> Custodians:
    people = Custodians(folder, *words, before=lambda: os.chdir(folder))
    if yes:
        people.serve(phrase=phrase)
    else:
        people.answer(r"\[y/n\]", "n\n")
    return people


def test_one_signature_is_not_enough_and_nobody_signs_twice(signed: Path) -> None:
    with pytest.raises(EnvelopeRefused) as refused:
        accept((signed / "order.ann.json").read_bytes(), TWO, keyring(signed))
    assert refused.value.reason == "too_few"
    again = ("sign", "order.ann.json", "--key", "ann.pem", "--signed-by", "ann.pub")
    assert run(signed, *again, phrase=PHRASES["ann.pem"]).close() == 1


def test_the_second_signs_only_what_the_first_signed(signed: Path) -> None:
    words = ("--key", "bo.pem", "--signed-by")
    assert run(signed, "sign", "order.ann.json", *words, "bo.pub", phrase=PHRASES["bo.pem"]).close() == 1
    assert run(signed, "sign", "order.ann.json", "--key", "bo.pem").close() == 2
    changed = Envelope.read((signed / "order.ann.json").read_bytes())
    other = Envelope(changed.kind, changed.unverified.replace(b"ATM-0001", b"ATM-0002"), changed.signatures)
    (signed / "changed.json").write_bytes(other.text)
    people = run(signed, "sign", "changed.json", *words, "ann.pub", phrase=PHRASES["bo.pem"])
    assert people.close() == 1
    assert "passphrase" not in people.shown


def test_who_signs_sees_what_it_is_and_can_say_no(signed: Path) -> None:
    people = run(signed, "sign", "order.json", "--key", "ann.pem", yes=False)
    assert people.close() == 1
    for word in ("ATM-0001", "EPP-7788", "A000123", "tellers", "KO-0001"):
        assert word in people.shown
    assert re.search(r"not_after +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", people.shown), "a person reads it"
    assert not people.stdout


def test_a_wrong_passphrase_signs_nothing_and_a_private_key_is_never_in_clear(signed: Path) -> None:
    people = run(signed, "sign", "order.json", "--key", "ann.pem", phrase="another phrase entirely")
    assert people.close() == 1
    assert not people.stdout
    private = (signed / "ann.pem").read_text()
    assert private.startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert (signed / "ann.pem").stat().st_mode & 0o777 == 0o600
    assert PHRASES["ann.pem"] not in people.shown
    assert run(signed, "signer", "--to", "ann.pem", phrase="a new long phrase").close() == 3
    assert (signed / "ann.pem").read_text() == private
    assert run(signed, "signer", "--to", "cy.pem", phrase="short").close() == 2


@pytest.mark.parametrize(
    "words",
    [
        ("order", "order.json", "--id", "KO-1", "--epp-serial", "E"),
        ("order", "none.json", "--id", "KO-1", "--epp-serial", "E"),
        ("order", "made.json", "--id", "KO-1", "--epp-serial", "E", "--group", "a", "--usage", "K0", "--mode", "B"),
        ("order", "made.json", "--id", "KO 1", "--epp-serial", "E", "--group", "a", "--group", "b"),
        ("sign", "made.json", "--key", "ann.pem"),
    ],
)
def test_what_makes_no_order_is_told(signed: Path, words: tuple[str, ...]) -> None:
    people = run(signed, *words)
    assert people.close() in (1, 2), people.shown
    assert "Traceback" not in people.shown
    assert not people.stdout
