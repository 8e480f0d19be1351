"""A whole ceremony by its commands, typed by two people in shells of their own, at the real agent and pad."""

import json
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.keysite import KeySite, block_of, keysite
from tests.secure import KBPK, TWO
from tests.typing_people import Seat
from tests.whole import wait

pytestmark = [pytest.mark.peer("mosquitto"), pytest.mark.timeout(120)]

PIN = "13579BDF02468ACE0F1E2D3C4B5A6978"
OTHERS = ("89ABCDEF01234567" * 2, "1032547698BADCFE" * 2)


@dataclass
class Room:
    """The terminal, and the two people before it: `li` manages keys, `wang` is the technician."""

    site: KeySite
    li: Seat
    wang: Seat

    def give(self, components: Sequence[str] = TWO, **changes: Any) -> str:
        """A signed order as a file; its id."""
        order = self.site.order(components, **changes)
        (self.site.folder / f"{order['id']}.order").write_text(self.site.signed(order))
        return str(order["id"])

    def password(self, name: str) -> tuple[str, str]:
        return f"Password of {name}:", self.site.people[name].password

    def enter(self, name: str, component: str) -> tuple[int, str]:
        """A person logs in to type a component, and types it at the pad."""
        seat: Seat = getattr(self, name)
        seat.begin(f"tillwire keys part --person {name}", self.password(name))
        wait("the pad to wait", lambda: self.site.hands(look=True)["typing"])
        self.site.type(component)
        return seat.end()


@pytest.fixture(scope="module")
def room() -> Iterator[Room]:
    with tempfile.TemporaryDirectory(prefix="ks") as name, keysite(Path(name), lab=True) as site:
        seats = [Seat(site.folder, TILLWIRE_SOCKET=str(site.folder / "tw.sock"), COLUMNS="160") for _ in range(2)]
        yield Room(site, *seats)
        for seat in seats:
            seat.close()


def ok(ended: tuple[int, str], *shown: str) -> None:
    code, screen = ended
    assert code == 0, screen
    for text in shown:
        assert text in screen, screen


def test_from_order_to_receipt(room: Room) -> None:
    li, wang, order = room.li, room.wang, room.give()
    ok(li.run(f"tillwire keys order {order}.order"), "ENV-1-1", f"tillwire keys begin {order}")
    ok(li.run(f"tillwire keys begin {order}", ("Your name:", "li"), room.password("li")), "tillwire keys begin")
    code, screen = li.run("tillwire keys begin --person li", room.password("li"))
    assert code == 1
    assert "a second person is needed" in screen
    ok(wang.run("tillwire keys begin --person wang", room.password("wang")), "next: component 1 of 2", "keys part")
    ok(room.enter("li", TWO[0]), "type component 1 at the EPP", "next: component 2 of 2")
    ok(room.enter("wang", TWO[1]), "next: the second person", "tillwire keys complete")
    ok(wang.run("tillwire keys status"), "confirm", "li, key-manager", order)
    proof = [
        ("[yes/no/later]", "yes"),
        ("[echo/sign_on/mac]", "echo"),
        ("longer):", "RRN-1"),
        room.password("wang"),
    ]
    ok(wang.run("tillwire keys complete --person wang", room.password("wang"), *proof), "next: shred")
    ok(li.run("tillwire keys destroy --person li", room.password("li"), ("[yes/no]", "yes")), "Signed: li")
    ok(wang.run("tillwire keys destroy --person wang", room.password("wang"), ("[yes/no]", "yes")), "keys receipt")
    ok(li.run(f"tillwire keys receipt --to {order}.receipt"), order, "next: done", "tillwire keys")
    ok(li.run("tillwire keys status"), "TMK", "08 D7 B4", "closed")
    ok(li.run("tillwire keys status --public-key > atm.pem"))


def test_the_receipt_is_checked_with_the_public_key_alone(room: Room) -> None:
    """Of the order of the first test."""
    check = "TILLWIRE_SOCKET=none tillwire keys receipt --check KO-1.receipt --key atm.pem"
    ok(room.wang.run(check), "KO-1", "the receipt holds", "tillwire ledger show")
    receipt = room.site.folder / "KO-1.receipt"
    receipt.write_text(receipt.read_text().replace("KO-1", "KO-2", 1))
    code, screen = room.wang.run(check)
    assert code == 1
    assert "tillwire: " in screen


def test_a_key_block_is_handed_over_as_a_file_and_its_key_destroyed_again(room: Room) -> None:
    li, wang, site = room.li, room.wang, room.site
    site.load(site.order(**{name: KBPK[name] for name in ("slot", "usage", "mode")}))
    block = block_of(PIN, version=9)
    (site.folder / "pin.tr31").write_bytes(block)
    for order in (site.block_order(block, PIN, version=9), site.destroy_order(PIN, "TPK")):
        (site.folder / "next.order").write_text(site.signed(order))
        ok(li.run("tillwire keys order next.order"))
        ok(li.run(f"tillwire keys begin {order['id']} --person li", room.password("li")))
        ok(wang.run("tillwire keys begin --person wang", room.password("wang")))
        if order["kind"] == "load":
            code, screen = li.run("tillwire keys part --block next.order")
            assert code == 1
            assert "not the block that the order names" in screen
            ok(li.run("tillwire keys part --block pin.tr31"), "tillwire keys complete")
        proof = [("[yes/no/later]", "yes"), ("[echo/sign_on/mac]", "mac"), ("longer):", ""), room.password("wang")]
        answers = [room.password("wang"), *(proof if order["kind"] == "load" else [])]
        ok(wang.run("tillwire keys complete --person wang", *answers), "tillwire keys destroy")
        for seat, name in ((li, "li"), (wang, "wang")):
            ok(seat.run(f"tillwire keys destroy --person {name}", room.password(name), ("[yes/no]", "yes")))
        ok(li.run("tillwire keys receipt"), order["id"], "tillwire keys")
    assert "TPK" not in site.slots()


def test_a_component_at_the_wrong_keyboard_stops_the_ceremony_and_is_nowhere(room: Room) -> None:
    li, wang, order = room.li, room.wang, room.give(OTHERS, replaces="TMK")
    ok(li.run(f"tillwire keys order {order}.order"))
    ok(li.run(f"tillwire keys begin {order} --person li", room.password("li")))
    ok(wang.run("tillwire keys begin --person wang", room.password("wang")))
    li.begin("tillwire keys part --person li", room.password("li"))
    wait("the pad to wait", lambda: room.site.hands(look=True)["typing"])
    li.type(OTHERS[0])
    code, screen = li.end()
    assert code == 1
    assert "not at this keyboard" in screen
    assert "The agent has noted it" in screen
    wait("the end", lambda: room.site.status()["state"] == "aborted")
    assert "a component was typed outside the EPP's keypad" in wang.run("tillwire keys status")[1]
    with sqlite3.connect(f"file:{room.site.folder}/data/store.db?mode=ro", uri=True) as db:
        rows = [json.loads(row) for (row,) in db.execute("SELECT row FROM ledger")]
    assert any(row.get("event") == "trouble" and row["cause"] == "exposed" for row in rows)
    assert OTHERS[0][7:17] not in json.dumps(rows) + screen + room.site.log("agent")


def test_a_component_on_a_command_line_is_told_to_the_agent(room: Room) -> None:
    code, screen = room.wang.run(f"tillwire keys part {OTHERS[0]}")
    assert code == 1
    assert "The agent has noted it" in screen
    typed, _, told = screen.partition("\r\n")
    assert OTHERS[0] in typed, "the shell itself shows what is typed to it"
    assert OTHERS[0][7:12] not in told


def test_people_are_added_and_change_their_passwords(room: Room) -> None:
    li = room.li
    new = [("or more:", "lantern-first"), ("once more:", "lantern-first")]
    ok(li.run("tillwire accounts add zhao --role technician --group G3", *new), "tillwire accounts password zhao")
    code, screen = li.run("tillwire keys begin --person zhao", ("Password of zhao:", "lantern-first"))
    assert code == 3
    assert "must be changed" in screen
    change = [("Password of zhao:", "lantern-first"), ("or more:", "lantern-own"), ("once more:", "lantern-own")]
    ok(li.run("tillwire accounts password zhao", *change), "zhao has a new password")
    ok(li.run("tillwire accounts list"), "zhao", "G3")
    ok(li.run("tillwire accounts unlock zhao"))
    ok(li.run("tillwire accounts remove zhao"))
