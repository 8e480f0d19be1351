"""After ceremonies in real processes nothing of a component or a key is anywhere on the terminal's computer.

The keys are made anew for this run, so what is found can only have come over the pad or out of the key block. The
pad is another device: its process and its slots file are not looked at.
"""

import json
import secrets
import subprocess
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest

from agent.mqtt.posting import LEVEL, REACH
from tests.keysite import KeySite, block_of, good, keysite
from tests.scanning import Find, Piece, Search, carried, core, files, forms, memory
from tests.secure import KBPK, xored
from tests.whole import BIN, wait

pytestmark = [pytest.mark.peer("mosquitto"), pytest.mark.timeout(120)]
PLACES = ("memory during entry", "memory", "core", "files", "traffic", "commands", "trace")
CONTROLLED = PLACES[:-1]
"""Where the digest of the key block must be found: it is public, is told everywhere, and looks like a key."""


@dataclass
class Run:
    """What was there to be looked at, and what must not be in it."""

    secrets: dict[str, str]
    block: bytes
    passwords: list[str] = field(default_factory=list)
    places: dict[str, list[Piece]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._search = Search({**self.secrets, "digest": sha256(self.block).hexdigest()})

    def found(self, place: str) -> list[Find]:
        """What is found in a place. Skips the test when there is no such place here."""
        if place == "core" and not self.places[place]:
            pytest.skip("gdb is not installed, and core dumps of this machine go to another program")
        return self.search(self.places[place])

    def search(self, pieces: Iterable[Piece]) -> list[Find]:
        return self._search.finds(pieces)


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Three ceremonies: a key from two components, a key block under it, and one that is stopped halfway."""
    with tempfile.TemporaryDirectory(prefix="ks") as name, keysite(Path(name), lab=True, record=True) as site:
        yield ceremonies(site)


def ceremonies(site: KeySite) -> Run:
    one, two, stopped, pin = (secrets.token_hex(16).upper() for _ in range(4))
    whole = xored((one, two))
    block = block_of(pin, whole, version=2)
    told = {"component 1": one, "component 2": two, "whole key": whole, "component 3": stopped, "PIN key": pin}
    run = Run(told, block, [person.password for person in site.people.values()])

    site.load(site.order((one, two), **{name: KBPK[name] for name in ("slot", "usage", "mode")}), (one, two))
    site.load(site.block_order(block, pin), block=block)

    halfway = site.order((stopped, secrets.token_hex(16)))
    site.receive(halfway)
    site.join(halfway)
    site.li.begin("part")
    site.wait_for_entry(site.li)
    trace = probing(site)
    site.hands(press=stopped)
    run.places["memory during entry"] = memory(site.process("agent"))
    site.hands(key="enter")
    good(site.li.rest())
    site.wang.does("abort")
    wait("the slot to be deleted", lambda: "TMK" not in site.slots())
    run.places["trace"] = [("trace", trace.communicate(timeout=30)[0])]
    assert b"completion KeyManagement" in run.places["trace"][0][1]

    said = [("diagnose", "--json"), ("diagnose",), ("devices", "--json"), ("ledger", "tail", "--json")]
    said.append(("ledger", "export"))
    run.places["commands"] = [(" ".join(words), site.tillwire(*words).stdout.encode()) for words in said]
    for order in ("KO-1", "KO-2", halfway["id"]):
        run.places["commands"].append((f"receipt {order}", site.receipt(order).encode()))
    wait("all rows to be delivered", site.delivered)
    run.places["memory"] = memory(site.process("agent"))
    assert any(where == "file store.db-wal" and data for where, data in files(site.data)), "a store with its WAL"
    run.places["files"] = list(kept(site))
    run.places["traffic"] = list(site.capture.pieces()) if site.capture else []
    run.places["pad"] = memory(site.process("epp"))
    dump = core(site.process("agent"), site.folder, partial(site.end, "agent"))
    run.places["core"] = list(files(dump)) if dump else []
    return run


def probing(site: KeySite) -> "subprocess.Popen[bytes]":
    """A technician who looks at the EPP's line with --trace, during the entry."""
    words = ["probe", f"ws://127.0.0.1:{site.publisher}", "xfs4iot", "--set", "service=SimEncryptor"]
    return subprocess.Popen(
        [str(BIN / "tillwire"), *words, "--trace", "--seconds", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def kept(site: KeySite) -> Iterator[Piece]:
    """Every file of this site, but for those of the pad."""
    for path in sorted(site.folder.iterdir()):
        if path.name not in ("slots.json", "epp.log"):
            yield from files(path)


@pytest.mark.parametrize("place", PLACES)
def test_nothing_of_a_component_or_a_key_is_there(run: Run, place: str) -> None:
    found = [find for find in run.found(place) if find.name != "digest"]
    assert sum(len(data) for _, data in run.places[place]) > 100
    assert found == []


@pytest.mark.parametrize("place", CONTROLLED)
def test_what_is_public_is_found_there_by_the_same_search(run: Run, place: str) -> None:
    assert "digest" in {find.name for find in run.found(place)}


def test_the_keys_are_found_in_the_memory_of_the_pad(run: Run) -> None:
    assert {find.name for find in run.found("pad")} >= {"whole key", "PIN key"}


def test_the_digest_is_found_in_the_store_in_its_copy_and_in_what_was_sent(run: Run) -> None:
    assert "ledger export" in {find.where for find in run.found("commands")}
    assert "file store.db-wal" in {find.where for find in run.found("files")}
    assert {find.where for find in run.found("traffic")} == {"traffic sent"}


@pytest.mark.parametrize("place", PLACES)
def test_a_planted_component_is_found_there(run: Run, place: str) -> None:
    run.found(place)
    where, data = run.places[place][-1]
    at = len(data) // 2
    for form in ("raw", "odd raw", "HEX", "hex utf-16-le", "Base64 1"):
        planted = data[:at] + forms(run.secrets["component 1"])[form] + data[at:]
        assert "component 1" in {find.name for find in run.search([(where, planted)])}


def test_a_component_in_rows_that_were_deflated_is_found_too() -> None:
    secret = secrets.token_hex(16)
    rows = json.dumps(
        [{"seq": seq, "kind": "ceremony", "kcv": secret if seq == 7 else "0A8245"} for seq in range(9)]
    )
    sent = b"\x32\x99\x01" + zlib.compress(rows.encode(), LEVEL, wbits=REACH) + b"\x30"
    assert {find.name for find in Search({"component": secret}).finds(carried("sent", sent))} == {"component"}


@pytest.mark.parametrize("place", ["files", "traffic", "commands", "trace"])
def test_no_password_and_no_key_block_is_kept_or_sent(run: Run, place: str) -> None:
    block = Search({"block": run.block[16:].decode()})
    assert block.finds([("here", forms(run.block[16:].decode())["Base64 of HEX 1"])])
    assert block.finds(run.places[place]) == []
    for _, data in run.places[place]:
        for password in run.passwords:
            assert password.encode() not in data
