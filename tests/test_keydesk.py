"""What people may not do in a key ceremony, end to end over the agent's socket. Real processes, one terminal."""

import base64
import json
import secrets
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from agent.crypto.ed25519 import SigningKey
from agent.crypto.signing import ORDER, Envelope
from agent.errors import ControlError
from agent.people.accounts import TRIES, Accounts, WrongPassword
from agent.people.accounts import WRONG as WRONG_LOGIN
from agent.timepiece import wall_ms
from tests.interrupting import ENDED, Terminal
from tests.keysite import block_of, good, running
from tests.people import Person
from tests.scanning import Search, files
from tests.secure import TWO
from tests.whole import wait

pytestmark = [pytest.mark.peer("mosquitto"), pytest.mark.timeout(120)]
Json = dict[str, Any]
FIRST, WRONG = "first-of-somebody", "not-the-password"
OTHERS = {
    "zhao": ("key-manager", "G2"),
    "sun": ("technician", "G3"),
    "qian": ("technician", "G2"),
    "zhou": ("operator", "G2"),
}


@pytest.fixture(scope="module")
def terminal() -> Iterator[Terminal]:
    with tempfile.TemporaryDirectory(prefix="kd") as name, running(Terminal(Path(name), lab=True)) as site:
        for person, (role, group) in OTHERS.items():
            site.account_for(person, role, group)
        yield site


@pytest.fixture
def site(terminal: Terminal) -> Terminal:
    """The terminal, ready for a ceremony."""
    terminal.act(device="panel", set={"heat": "on", "safe_door": "closed"})
    if terminal.state() not in ENDED:
        terminal.li.asks(do="keys", act="abort")
    wait("switch and door", lambda: not terminal.status()["lacking"])
    wait("the slots", lambda: terminal.status()["service"] == "ok")
    return terminal


def words(lines: list[Json]) -> list[str]:
    """What was told, and the error, of an answer."""
    return [line["tell"]["word"] if "tell" in line else line["error"] for line in lines if "end" not in line]


def received(site: Terminal, **changes: Any) -> Json:
    order = site.order(**{"version": 1, "slot": "TMK", **changes})
    site.receive(order)
    return order


def joined(site: Terminal, **changes: Any) -> Json:
    order = received(site, **changes)
    site.join(order)
    return order


def last(site: Terminal, event: str) -> Json:
    """The newest row of a kind, once it is on disk."""
    rows: list[Json] = wait(event, lambda: [row for row in site.ledger() if row["event"] == event])
    return rows[-1]


def ended(site: Terminal, order: Json, cause: str) -> None:
    """The order was stopped, and why."""
    ends = wait("the end", lambda: [r for r in site.ledger(order=order["id"]) if r["event"] == "aborted"])
    assert [end["cause"] for end in ends] == [cause]


# Who.


def test_two_people_in_one_terminal_session_are_one(site: Terminal) -> None:
    order = received(site)
    good(site.li.does("begin", order=order["id"]))
    wang = {"person": "wang", "password": site.wang.password}
    assert "session_of_other" in words(site.li.asks(do="keys", act="begin", order=order["id"], **wang))
    assert site.state() == "opened"
    good(site.wang.does("begin", order=order["id"]))
    assert "session_of_other" in words(site.li.asks(do="keys", act="part", **wang))


def test_one_person_is_not_two_and_a_seat_asks_for_role_and_group(site: Terminal) -> None:
    order = received(site)
    assert words(site.people["sun"].does("begin", order=order["id"])) == ["wrong_group"]
    assert site.state() in ENDED, "nor is the order used up by trying"
    good(site.li.does("begin", order=order["id"]))
    for person, word in (("li", "same_person"), ("zhao", "role_missing"), ("sun", "wrong_group")):
        assert words(site.people[person].does("begin", order=order["id"])) == [word]
    assert site.state() == "opened"
    good(site.wang.does("begin", order=order["id"]))
    assert words(site.people["qian"].does("part")) == ["not_crew"]
    assert words(site.wang.does("part")) == ["wrong_group"]
    assert site.state() == "part"


def test_a_first_password_opens_no_ceremony(site: Terminal) -> None:
    site.must(do="accounts", act="add", name="wu", role="technician", group="G2", password=FIRST)
    fresh = Person(site.folder / "tw.sock", "wu", FIRST)
    try:
        order = received(site)
        (error,) = words(fresh.does("begin", order=order["id"]))
        assert "must be changed" in error
        assert site.state() in ENDED
    finally:
        fresh.close()


def test_a_password_that_is_typed_as_the_name_stands_nowhere(site: Terminal) -> None:
    joined(site)
    secret = site.li.password
    assert words(site.li.does("part", person=secret)) == [WRONG_LOGIN]
    assert last(site, "login")["person"] == "withheld"
    assert site.li.does("abort", person=secret)[-1]["end"] == "aborted"
    last(site, "aborted")
    held = [("log", site.log("agent").encode()), *files(site.data)]
    assert [name for name, what in held if secret.encode() in what] == []


def test_five_wrong_passwords_of_somebody_who_takes_part_end_the_ceremony_and_lock_for_the_day(
    site: Terminal,
) -> None:
    order = received(site)
    qian = site.people["qian"]
    good(site.li.does("begin", order=order["id"]))
    good(qian.does("begin", order=order["id"]))
    good(site.enter(site.li, TWO[0]))
    for n in range(5):
        assert site.state() == "part", n
        assert words(qian.does("part", password=WRONG)) == [WRONG_LOGIN]
    site.until("aborted")
    ended(site, order, "locked_out")
    assert [row["result"] for row in site.ledger(order=order["id"]) if row["event"] == "login"] == ["wrong"] * 4 + [
        "locked"
    ]
    (error,) = words(qian.does("begin", order=received(site)["id"]))
    assert "is locked for" in error
    assert "TMK" not in site.slots()
    order = received(site)
    good(site.li.does("begin", order=order["id"]))
    site.must(do="accounts", act="unlock", name="qian")
    assert "joined" not in {row["event"] for row in site.ledger(order=order["id"]) if row.get("person") == "qian"}
    good(qian.does("begin", order=order["id"]))
    assert site.state() == "part", "unlocked for ceremonies too"
    assert last(site, "login")["result"] == "unlocked"


# What, and when.


def test_only_the_next_step_is_done(site: Terminal) -> None:
    early = words(site.li.does("part"))
    assert early == ["not_now"]
    order = joined(site)
    assert words(site.wang.does("complete")) == ["not_now"]
    assert "now is not the time to sign" in words(site.wang.does("sign"))[0]
    assert words(site.wang.does("prove", ok=True, method="echo", reference="R")) == ["not_now"]
    assert "not the time for a key block" in words(site.wang.does("block", data="AAAA"))[0]
    assert "has not come to an end" in words(site.wang.does("receipt", order=order["id"]))[0]
    assert site.state() == "part"
    good(site.enter(site.li, TWO[0]))
    good(site.enter(site.wang, TWO[1]))
    assert words(site.li.does("complete")) == ["not_second"]
    assert site.state() == "confirm"


def test_whoever_is_refused_hears_so_at_once_and_nothing_of_what_others_do(site: Terminal) -> None:
    order = joined(site)
    site.li.begin("part")
    site.wait_for_entry(site.li)
    assert words(site.wang.does("complete")) == ["not_now"]
    assert site.state() == "entering"
    assert not site.li.answered
    site.people["sun"].asks(do="keys", act="abort")
    assert "aborted" in words(site.li.rest())
    ended(site, order, "abandoned")


def test_a_second_order_ends_both_and_opens_none(site: Terminal) -> None:
    order, second = joined(site), received(site)
    told = words(site.li.does("begin", order=second["id"]))
    assert told[0] == "busy"
    ended(site, order, "second_session")
    assert site.state() == "aborted"
    assert second["id"] in [waiting["order"] for waiting in site.status()["orders"]]


def test_whoever_is_here_may_stop_it_and_the_ledger_says_who(site: Terminal) -> None:
    assert "no ceremony is running" in words(site.li.does("abort"))[0]
    order = joined(site)
    good(site.enter(site.li, TWO[0]))
    assert site.people["sun"].asks(do="keys", act="abort", person="sun")[-1]["end"] == "aborted"
    ended(site, order, "abandoned")
    assert last(site, "trouble")["person"] == "sun"
    assert "TMK" not in site.slots()


@pytest.mark.parametrize("change", [{"heat": "off"}, {"safe_door": "open"}], ids=["switch", "door"])
def test_turning_the_switch_or_opening_a_door_ends_it(site: Terminal, change: dict[str, str]) -> None:
    order = joined(site)
    good(site.enter(site.li, TWO[0]))
    site.act(device="panel", set=change)
    site.until("aborted")
    ended(site, order, "mode_changed")
    assert "TMK" not in site.slots()
    told = words(site.li.does("begin", order=received(site)["id"]))
    told += words(site.wang.does("begin"))
    assert "not_ready" in told
    assert site.state() in ("opened", "crewed")


def test_a_service_that_is_gone_ends_it(site: Terminal) -> None:
    order = joined(site)
    good(site.enter(site.li, TWO[0]))
    site.act(device="vendor", line="unplug")
    wait("the end to begin", lambda: site.state() == "aborting")
    assert site.status()["service"] == "ceremony"
    site.act(device="vendor", line="replug")
    site.until("aborted")
    ended(site, order, "device_lost")
    assert "TMK" not in site.slots()


# Orders.


def test_an_order_that_is_not_here_is_not_begun(site: Terminal) -> None:
    (error,) = words(site.li.does("begin", order="KO-999"))
    assert "has not come" in error


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"not_before": 1, "not_after": 2}, "expired"),
        ({"not_before": 4_000_000_000_000, "not_after": 4_000_000_000_001}, "too_early"),
        ({"epp_serial": "2411-0002"}, "wrong_target"),
        ({"hierarchy": "production"}, "wrong_hierarchy"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_order_that_is_not_for_here_and_now_is_refused(site: Terminal, changes: Json, word: str) -> None:
    order = received(site, **changes)
    assert words(site.li.does("begin", order=order["id"])) == [word]
    assert site.state() in ENDED
    assert last(site, "refused")["reason"] == word
    waits = order["id"] in [waiting["order"] for waiting in site.status()["orders"]]
    assert waits == (word != "expired"), "it is not used up, and what can never be opened does not wait"
    assert not [row for row in site.ledger(order=order["id"]) if row["event"] == "opened"]


def test_an_order_that_is_not_signed_as_it_must_be_does_not_come_in(site: Terminal) -> None:
    stranger = SigningKey.generate()
    order = site.order()
    whole = Envelope(ORDER, json.dumps(order).encode())
    one = whole.signed(site.signers["hq-maker"])
    twice = Envelope(ORDER, one.unverified, one.signatures * 2)
    changed = Envelope(
        ORDER, one.unverified.replace(b"KO-", b"K0-"), one.signed(site.signers["hq-checker"]).signatures
    )
    bad = [whole, one, twice, one.signed(stranger), changed]
    for envelope, reason in zip(
        bad, ("unsigned", "too_few", "same_signer", "unknown_key", "bad_signature"), strict=True
    ):
        assert "error" in site.ask(do="keys", act="order", text=envelope.text.decode())
        wait(reason, lambda: site.ledger_has("refused", reason=reason))  # noqa: B023 - asked at once
    other = site.signed(site.order(terminal="ATM-0002"))
    assert "another terminal" in site.ask(do="keys", act="order", text=other)["error"]
    assert order["id"] not in [waiting["order"] for waiting in site.status()["orders"]]


def test_an_order_is_used_once_however_often_it_is_handed_over(site: Terminal) -> None:
    order = joined(site)
    site.li.asks(do="keys", act="abort")
    assert site.must(do="keys", act="order", text=site.signed(order))["already"]
    for named in (order["id"], ""):
        (error,) = words(site.li.does("begin", order=order["id"]))
        assert "carried out already, or stopped" in error, named


# What is pasted.


@pytest.mark.parametrize("step", ["nothing", "part"])
def test_a_component_that_is_pasted_anywhere_is_spoiled_and_stands_nowhere(site: Terminal, step: str) -> None:
    pasted = secrets.token_hex(16).upper()
    search = Search({"pasted": pasted})
    fields = [
        ("begin", "person"),
        ("begin", "password"),
        ("begin", "order"),
        ("order", "text"),
        ("applied", "order"),
    ]
    fields += [("prove", "reference"), ("prove", "method"), ("receipt", "order"), ("abort", "person")]
    fields += [("exposed", "where"), ("block", "person")]
    before = site.ledger_has("trouble", cause="exposed")
    said = b""
    for act, field in fields if step == "nothing" else fields[1:2]:
        order = joined(site) if step == "part" else None
        text = " ".join(pasted[at : at + 4] for at in range(0, 32, 4)) if field == "password" else pasted
        answer = site.li.asks(do="keys", act=act, **{"person": "li", "password": site.li.password, field: text})
        assert "spoiled" in answer[0]["error"], (act, field)
        said += json.dumps(answer).encode()
        if order:
            ended(site, order, "exposed")
            end = last(site, "aborted")
            assert end["spoiled"] == [order["parts"][0]["envelope"]]
            again = received(site, parts=order["parts"], version=2)
            assert words(site.li.does("begin", order=again["id"])) == ["envelope_used"]
    for request in (
        {"do": pasted},
        {"do": "keys", "act": pasted},
        {"do": "perform", "device": pasted, "verb": pasted},
    ):
        said += json.dumps(site.ask(**request)).encode()
    # What ends a ceremony is a row each time, and else the first: the others are counted.
    rows = before + 1 if step == "part" else 1
    wait("the rows", lambda: site.ledger_has("trouble", cause="exposed") >= rows)
    looked = [("answers", said), ("log", site.log("agent").encode()), *files(site.data)]
    assert search.finds(looked) == []
    assert search.finds([("planted", pasted.encode())])


def test_a_block_that_is_not_the_orders_is_refused(site: Terminal) -> None:
    key, kbpk = site.a_key(), site.a_key()
    block, other = block_of(key, kbpk), block_of(site.a_key(), kbpk)
    order = site.block_order(block, key, version=1, exceptions=["unrecorded_kek"])
    site.receive(order)
    site.join(order)

    def offer(data: bytes) -> list[str]:
        return words(site.li.does("block", data=base64.b64encode(data).decode()))

    assert offer(other) == ["other_block"]
    assert "no key block of TR-31" in offer(block[:-3])[0]
    assert "did not arrive whole" in words(site.li.does("block", data="=damaged="))[0]
    assert site.state() == "block"
    good(site.li.does("block", data=base64.b64encode(block).decode()))
    site.li.asks(do="keys", act="abort")
    version2 = block_of(key, kbpk, version=2)
    order = site.block_order(version2, key, version=1, exceptions=["unrecorded_kek"])
    site.receive(order)
    site.join(order)
    assert offer(version2) == ["block_refused"]


# Clocks, receipts, accounts.


def test_that_a_key_was_asked_for_and_that_it_came_are_rows(site: Terminal) -> None:
    assert site.must(do="keys", act="applied", order="KO-77") == {"applied": "KO-77"}
    assert last(site, "applied")["order"] == "KO-77", "on disk before the answer"
    assert site.must(do="keys", act="applied", order="KO-77", withdrawn=True) == {"withdrawn": "KO-77"}
    assert last(site, "withdrawn")["order"] == "KO-77"
    (answer,) = site.li.asks(do="keys", act="applied", order="KO-77", withdrawn=True)
    assert "nobody waits for the key of KO-77" in answer["error"]
    order = received(site)
    assert [row["event"] for row in site.ledger(order=order["id"])] == ["received"]


def test_a_receipt_that_is_made_again_has_the_same_bytes(site: Terminal) -> None:
    order = joined(site)
    site.li.asks(do="keys", act="abort")
    first = site.receipt(order["id"])
    site.must(do="keys", act="applied", order="KO-78")
    assert site.receipt(order["id"]) == first


def test_guesses_that_are_made_at_once_are_counted_one_by_one(tmp_path: Path) -> None:
    accounts = Accounts(tmp_path / "accounts.json", wall_ms)
    accounts.add("li", "key-manager", "G1", FIRST)
    with ThreadPoolExecutor(8) as pool:
        guesses = [pool.submit(accounts.change, "li", WRONG, "another-one") for _ in range(8)]
    told = [type(guess.exception()) for guess in guesses]
    assert told.count(WrongPassword) == TRIES, told
    assert told.count(ControlError) == 8 - TRIES
