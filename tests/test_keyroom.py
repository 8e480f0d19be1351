"""What two people at a key room's table can and cannot do: the real command, on a terminal of its own."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from functools import reduce
from operator import xor
from pathlib import Path

import pytest
from Crypto.Cipher import DES3

from agent.crypto import des, keyroom, mac, wrapping
from agent.crypto.kcv import Kcv
from agent.crypto.keyblock import Header, KeyBlock, Policy
from agent.crypto.secret import Secret
from agent.errors import BlockRefused, KeyRefused, KeyRoomClosed
from tests.custody import MAY_LOCK, QUESTIONS, TYPED, YES, Custodians, found_in, memory_of
from tests.strangers import run_peer

pytestmark = [MAY_LOCK]
TEST_PARTS = ("0452DDB661F7DCDC1046C2F044CAAAD5", "057198D1E85C1133EE9A7868329E98C5")
PARTS = ("3D1F4C8A92E657B0C4D93B6E810F7A25", "7AE5D03C18F92B64915EC7A2F4680BD3", "91C3AE570D8B62F4E83B15C97D20A64F")
AES_PARTS = ("5C0E93A1D47B28F6E1905D3C7A84B62F", "A7F16D3088C24E5B1D96E07FC3A5B814")


def xored(*parts: str) -> bytes:
    return bytes(reduce(xor, column) for column in zip(*map(bytes.fromhex, parts), strict=True))


def kcv(key: bytes) -> str:
    return str(des.zero_kcv(Secret(key)))


@pytest.fixture
def in_memory() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir="/dev/shm", prefix="keyroom-test-"))
    yield folder
    shutil.rmtree(folder)


def served(folder: Path, *words: str, typed: tuple[str, ...] = (), code: int = 0) -> Custodians:
    """A whole session in which everybody says yes."""
    room = Custodians(folder, *words)
    room.serve(*typed)
    assert room.close() == code, room.shown
    return room


# components


@pytest.mark.parametrize("count", [2, 3])
def test_components_give_the_check_values_on_paper(tmp_path: Path, count: int) -> None:
    parts = PARTS[:count]
    room = served(tmp_path, "combine", "--parts", str(count), "--json", typed=parts)
    told = room.record["the key"]
    assert told["components"] == [kcv(bytes.fromhex(part)) for part in parts]
    assert told["kcv"] == kcv(xored(*parts))
    assert told["custodians"] == ["Ann", "Bo", "Cy"][:count]
    assert room.record["act"] == "combine"


def test_what_is_typed_is_shown_as_stars_only_and_in_no_file(tmp_path: Path) -> None:
    room = Custodians(tmp_path, "combine", environment={"HOME": str(tmp_path), "TMPDIR": str(tmp_path)})
    room.serve(*PARTS[:2])
    assert room.close() == 0
    everything = room.shown.encode() + b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    for secret in (*map(bytes.fromhex, PARTS), xored(*PARTS[:2])):
        assert not found_in(everything, secret)
    assert "**** **** ****" in room.shown


def test_one_component_alone_is_checked_against_the_order(tmp_path: Path) -> None:
    value = kcv(bytes.fromhex(PARTS[0]))
    assert served(tmp_path, "check", "--expect", value, "--json", typed=PARTS[:1]).record["kcv"] == value
    other = served(tmp_path, "check", "--expect", "08D7B4", typed=PARTS[:1], code=1)
    assert "envelope numbers" in other.shown
    assert not other.stdout


def test_typing_can_be_corrected(tmp_path: Path) -> None:
    digits = PARTS[0]
    room = Custodians(tmp_path, "check", "--json")
    room.answer("name:", "Ann\n")
    room.answer("name:", "Bo\n")
    room.answer(TYPED, f"FFF\x15{digits[:9]}77\x7f\x7f \x07x{digits[9:].lower()}99\r")
    room.answer("once more:", "-".join(digits[i : i + 4] for i in range(0, 32, 4)) + "\r")
    assert room.close() == 0
    assert room.record["kcv"] == kcv(bytes.fromhex(digits))


def test_a_component_that_cannot_be_typed_twice_ends_the_session(tmp_path: Path) -> None:
    room = Custodians(tmp_path, "check")
    room.answer("name:", "Ann\n")
    room.answer("name:", "Bo\n")
    for again in (PARTS[1], PARTS[0][:-1], PARTS[2]):
        room.types(PARTS[0], again)
    assert room.close() == 1
    assert room.shown.count("the two differ") == 3
    assert not room.stdout


def test_one_person_cannot_be_two_custodians(tmp_path: Path) -> None:
    room = Custodians(tmp_path, "combine")
    room.answer("name:", "Ann  Lee\n")
    room.answer("name:", "ann lee\n")
    assert room.close() == 1
    assert "another custodian" in room.shown
    assert not re.search(TYPED, room.shown)


def test_a_check_value_that_is_not_on_paper_ends_the_session_before_the_next_component(tmp_path: Path) -> None:
    room = Custodians(tmp_path, "combine")
    room.answer("name:", "Ann\n")
    room.answer("name:", "Bo\n")
    room.types(PARTS[0])
    room.answer(YES, "n\n")
    assert room.close() == 1
    assert "report their numbers" in room.shown
    assert "component 2" not in room.shown
    assert not room.stdout


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        (TEST_PARTS, "published test key"),
        ((PARTS[0], PARTS[0]), "given before"),
        ((PARTS[0], xored(PARTS[0], "11" * 16).hex().upper()), "only as strong as single DES"),
    ],
)
def test_a_key_that_nobody_should_load_is_refused(tmp_path: Path, parts: tuple[str, str], why: str) -> None:
    room = served(tmp_path, "combine", typed=parts, code=1)
    assert why in room.shown
    assert not room.stdout


def test_a_drill_takes_test_keys_and_says_so(tmp_path: Path) -> None:
    room = served(tmp_path, "combine", "--drill", "--expect", "08D7B4", "--json", typed=TEST_PARTS)
    assert room.record["drill"] is True
    assert "Careful" in room.shown
    assert "This is a drill" in room.shown


# new components on paper


def pages_in(folder: Path) -> dict[str, str]:
    return {path.name: path.read_bytes().decode() for path in folder.iterdir()}


def component_on(page: str) -> str:
    return "".join(re.findall(r"^ {6}([0-9A-F ]+)\r$", page, re.M)).replace(" ", "")


@pytest.mark.parametrize(("digits", "count"), [(32, 2), (48, 3)])
def test_new_components_are_printed_each_on_its_page(
    tmp_path: Path, in_memory: Path, digits: int, count: int
) -> None:
    envelopes = [f"A00{i}" for i in range(count)]
    words = [word for number in envelopes for word in ("--envelope", number)]
    place = ("--terminal", "ATM-0001", "--slot", "TMK", "--to", str(in_memory), "--digits", str(digits))
    room = served(tmp_path, "make", *place, *words, "--json")
    pages = [pages_in(in_memory)[f"{number}.txt"] for number in envelopes]
    parts = [component_on(page) for page in pages]
    assert [len(part) for part in parts] == [digits] * count
    key = xored(*parts)
    assert room.record["kcv"] == kcv(key)
    assert [part["envelope"] for part in room.record["parts"]] == envelopes
    for number, page, part, said in zip(envelopes, pages, parts, room.record["parts"], strict=True):
        assert f"Envelope      {number}\r\n" in page
        assert f"Check value   {kcv(bytes.fromhex(part))}\r\n" in page
        assert said["kcv"] == kcv(bytes.fromhex(part))
        assert page.endswith("\f")
        assert page.isascii()
        assert des.has_odd_parity(Secret(bytes.fromhex(part)))
        assert stat_mode(in_memory / f"{number}.txt") == 0o600
    everything = room.shown.encode() + room.stdout.encode()
    assert not any(found_in(everything, secret) for secret in (key, *map(bytes.fromhex, parts)))
    des.refuse_unsound(Secret(key))


def stat_mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_page_looks_like_this() -> None:
    page = keyroom.Page("A000123", "ATM-0001", "TMK", 1, 2, "2026-11-25", Kcv.parse("4D8439"), drill=True)
    with page.around(Secret(bytes.fromhex(TEST_PARTS[0]))) as text:
        assert text.reveal().decode().replace("\r\n", "\n") == (
            "TILLWIRE KEY COMPONENT   DRILL - NOT FOR A REAL TERMINAL\n\n"
            "Envelope      A000123\nTerminal      ATM-0001\nKey           TMK\nComponent     1 of 2\n"
            "Made on       2026-11-25\n\n\n      0452 DDB6 61F7 DCDC\n      1046 C2F0 44CA AAD5\n\n"
            "Check value   4D 84 39\n\nFor one custodian only. Nobody else may read this page, at any time.\n"
            "Type it at the keypad of the secure device, never on a computer's keyboard.\n"
            "Then shred it before a witness; both sign.\n\f"
        )


def test_a_printer_gets_the_second_page_only_when_the_first_is_sealed(tmp_path: Path) -> None:
    printer, device = os.openpty()
    try:
        words = ("make", "--terminal", "ATM-0001", "--slot", "TMK", "--envelope", "A1", "--envelope", "A2")
        room = Custodians(tmp_path, *words, "--to", os.ttyname(device))
        room.serve(until=r"Enter when it is closed: ")
        first = os.read(printer, 4096).decode()
        assert "Envelope      A1" in first
        assert "Envelope      A2" not in first
        room.says("\n")
        room.serve()
        assert room.close() == 0
        assert "no order can be made of it" in room.shown
        assert "Envelope      A2" in os.read(printer, 4096).decode()
    finally:
        os.close(printer)
        os.close(device)


def test_who_would_have_no_record_for_an_order_hears_it_before_anything_is_made(
    tmp_path: Path, in_memory: Path
) -> None:
    words = ("make", "--terminal", "ATM-0001", "--slot", "TMK", "--envelope", "A1", "--envelope", "A2")
    room = Custodians(tmp_path, *words, "--to", str(in_memory))
    assert room.until(QUESTIONS) == "[y/n] ", "and before anybody is asked for a name"
    room.says("n\n")
    assert room.close() == 1
    assert "begin again with --json" in room.shown
    assert (pages_in(in_memory), room.stdout) == ({}, "")


def test_a_component_goes_neither_to_a_disk_nor_to_a_screen_nor_over_another(
    tmp_path: Path, in_memory: Path
) -> None:
    words = ("make", "--terminal", "ATM-0001", "--slot", "TMK", "--envelope", "A1", "--envelope", "A2", "--to")
    if tmp_path.stat().st_dev != in_memory.stat().st_dev:
        assert "on a disk" in served(tmp_path, *words, str(tmp_path), code=3).shown
    assert "is a screen" in served(tmp_path, *words, "/dev/tty", code=3).shown
    assert "neither" in served(tmp_path, *words, "/etc/hostname", code=3).shown
    (in_memory / "A1.txt").write_text("another")
    assert "File exists" in served(tmp_path, *words, str(in_memory), code=3).shown
    assert pages_in(in_memory) == {"A1.txt": "another"}


# wrapped keys


def test_a_new_key_is_wrapped_and_nobody_sees_it(tmp_path: Path) -> None:
    place = ("--terminal", "ATM-0001", "--slot", "TPK", "--under", "TMK", "--usage", "P0", "--mode", "E")
    room = served(tmp_path, "wrap", *place, "--key-version", "07", "--new", "--json", typed=PARTS[:2])
    block = KeyBlock.parse(room.record["block"])
    key = wrapping.unwrap(block, Secret(des.odd_parity(Secret(xored(*PARTS[:2]))).reveal()))
    assert (block.header.usage, block.header.mode, block.header.key_version) == ("P0", "E", "07")
    assert room.record["kcv"] == str(des.zero_kcv(key))
    assert room.record["the protection key"]["kcv"] == kcv(xored(*PARTS[:2]))
    assert room.record["sha256"] == block.fingerprint
    assert not found_in(room.shown.encode() + room.stdout.encode(), bytes(key.reveal()))


@pytest.mark.peer(".venv-peers")
def test_psec_opens_what_custodians_wrapped(tmp_path: Path) -> None:
    script = "import sys, warnings; warnings.simplefilter('ignore'); from psec import tr31\n"
    script += "print(tr31.unwrap(bytes.fromhex(sys.argv[1]), sys.argv[2])[1].hex())"
    place = ("wrap", "--terminal", "A", "--slot", "K", "--under", "TMK", "--usage", "P0", "--mode", "B", "--json")
    key = bytes(des.odd_parity(Secret(xored(PARTS[2], PARTS[0]))).reveal())
    under = {"B": PARTS[:2], "D": AES_PARTS, "C": PARTS[:2]}
    for version, kek in under.items():
        legacy = ("--legacy",) if version == "C" else ()
        room = served(tmp_path, *place, "--version", version, *legacy, typed=(*kek, PARTS[2], PARTS[0]))
        protection = xored(*kek)
        if version != "D":
            protection = bytes(des.odd_parity(Secret(protection)).reveal())
        assert bytes.fromhex(run_peer(script, protection.hex(), room.record["block"])) == key
        assert room.record["kcv"] == kcv(key)


def test_the_check_values_of_an_aes_key_are_by_cmac(tmp_path: Path) -> None:
    place = ("--terminal", "A", "--slot", "K", "--under", "TMK", "--usage", "D0", "--mode", "B", "--version", "D")
    room = served(tmp_path, "wrap", *place, "--aes", "--new", "--json", typed=AES_PARTS)
    kek = Secret(xored(*AES_PARTS))
    told = room.record["the protection key"]
    assert told["kcv"] == str(mac.aes_kcv(kek))
    assert told["components"] == [str(mac.aes_kcv(Secret(bytes.fromhex(part)))) for part in AES_PARTS]
    key = wrapping.unwrap(KeyBlock.parse(room.record["block"]), kek, Policy())
    assert room.record["kcv"] == str(mac.aes_kcv(key))


def test_a_stronger_key_is_not_wrapped_under_a_weaker_one(tmp_path: Path) -> None:
    place = ("--terminal", "A", "--slot", "K", "--under", "TMK", "--usage", "K0", "--mode", "B", "--digits", "48")
    assert "stronger" in served(tmp_path, "wrap", *place, "--new", typed=PARTS[:2], code=1).shown
    legacy = ("--legacy", "--digits", "48", "--new")
    assert "stronger" in served(tmp_path, "cryptogram", *legacy, typed=PARTS[:2], code=1).shown


def test_a_legacy_cryptogram_is_the_key_under_the_master_key(tmp_path: Path) -> None:
    room = served(tmp_path, "cryptogram", "--legacy", "--json", typed=(*PARTS[:2], PARTS[2], PARTS[0]))
    sealed = bytes.fromhex(room.record["cryptogram"])
    key = DES3.new(xored(*PARTS[:2]), DES3.MODE_ECB).decrypt(sealed)
    assert key == bytes(des.odd_parity(Secret(xored(PARTS[2], PARTS[0]))).reveal())
    assert room.record["kcv"] == kcv(key)


@pytest.mark.parametrize(
    "words",
    [
        ("cryptogram", "--new"),
        ("inject", "/dev/null", "epp", "--slot", "00"),
        (
            "wrap",
            "--terminal",
            "A",
            "--slot",
            "K",
            "--under",
            "M",
            "--usage",
            "P0",
            "--mode",
            "E",
            "--version",
            "A",
        ),
    ],
)
def test_the_old_ways_need_the_word_legacy(tmp_path: Path, words: tuple[str, ...]) -> None:
    assert "--legacy" in served(tmp_path, *words, code=2).shown


@pytest.mark.parametrize(
    "words",
    [
        ("check", "--digits", "16"),
        ("check", "--digits", "31"),
        ("check", "--expect", "08D7"),
        ("combine", "--parts", "4"),
        ("make", "--terminal", "A", "--slot", "K", "--to", "/dev/null", "--envelope", "A1"),
        ("make", "--terminal", "A", "--slot", "K", "--to", "/dev/null", "--envelope", "A1", "--envelope", "A1"),
        ("make", "--terminal", "../A", "--slot", "K", "--to", "/dev/null", "--envelope", "A1", "--envelope", "A2"),
        ("wrap", "--terminal", "A", "--slot", "K", "--under", "M", "--usage", "Z9", "--mode", "E"),
        ("inject", "/dev/null", "pin_pad", "--slot", "10", "--legacy"),
    ],
)
def test_usage_is_2_before_anybody_types(tmp_path: Path, words: tuple[str, ...]) -> None:
    room = served(tmp_path, *words, code=2)
    assert "name:" not in room.shown


# what no process is needed for


def test_a_new_key_has_components_of_its_own_that_are_wiped() -> None:
    with keyroom.draw(3, 16) as drawn:
        parts = [bytes(component.reveal()) for component in drawn.components]
        assert [str(value) for value in drawn.values] == [kcv(part) for part in parts]
        assert str(drawn.kcv) == kcv(bytes(a ^ b ^ c for a, b, c in zip(*parts, strict=True)))
    assert all("wiped" in repr(component) for component in drawn.components)


def test_a_draw_that_is_not_sound_is_refused_and_wiped() -> None:
    with pytest.raises(KeyRefused):
        keyroom.draw(2, 16, random=lambda size: bytes(range(1, 9)) * 2)
    with pytest.raises(KeyRefused):
        keyroom.new_key(16, random=lambda size: bytes(8) * 2)


def test_versions_a_and_c_are_wrapped_for_a_legacy_order_only() -> None:
    key, kek = keyroom.new_key(16), keyroom.new_key(16)
    for version in ("A", "C"):
        header = Header(version, "P0", "T", "E")
        with pytest.raises(BlockRefused):
            keyroom.wrap(header, key, kek)
        assert wrapping.unwrap(keyroom.wrap(header, key, kek, legacy=True), kek, Policy(versions=version)) == key


def test_a_table_at_which_nobody_types_is_left() -> None:
    from agent.cli.custodians import Table

    person, tty = os.openpty()
    try:
        table = Table(tty, patience=0.05)
        for ask in (table.line, table.hidden):
            with pytest.raises(KeyRoomClosed, match="nobody typed"):
                ask("digits:")
    finally:
        os.close(person)
        os.close(tty)


# memory


def test_what_was_typed_is_not_in_memory_any_more(tmp_path: Path) -> None:
    first, second, key = bytes.fromhex(PARTS[0]), bytes.fromhex(PARTS[1]), xored(*PARTS[:2])
    room = Custodians(tmp_path, "combine")
    room.answer("name:", "Ann\n")
    room.answer("name:", "Bo\n")
    room.types(PARTS[0])
    room.until(YES)
    # One component is also the sum of all so far: that one buffer is the only place.
    assert memory_of(room.pid).count(first) == 1
    assert not {"hex", "HEX", "half in HEX", "odd parity", "without parity"} & set(
        found_in(memory_of(room.pid), first)
    )
    room.says("y\n")
    room.types(PARTS[1])
    room.answer(YES, "y\n")
    room.until(rf"of the key is {kcv(key)}\. Is it")
    left = memory_of(room.pid)
    assert len(left) > 10_000_000
    for secret in (first, second, key):
        assert not found_in(left, secret)
    room.answer(YES, "y\n")
    assert room.close() == 0
