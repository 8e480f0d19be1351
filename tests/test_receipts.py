"""What a receipt says: the facts that a ceremony's rows add up to, and one page of them."""

import re
import unicodedata

import pytest

from agent.crypto import receipts, steps
from agent.crypto.receipt_words import LABELS, REFUSALS
from agent.crypto.steps import State
from agent.errors import EnvelopeRefused
from agent.pasted import like_a_key
from tests.ceremonies import DIGEST, PEOPLE, SITE, WALL, Terminal, block_order, destroy_order, order
from tests.receipted import CASES, HOUR, KEY, by_components, facts, facts_of, issued, kept


def width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


# What the facts are.


def test_a_loaded_key_with_all_that_an_examiner_asks() -> None:
    found = facts("components")
    document = order().document()
    for name in ("slot", "usage", "algorithm", "digits", "version", "kcv", "kind", "method"):
        assert found[name] == document[name]
    assert (found["result"], found["cause"], found["test"]) == ("loaded", {}, False)
    assert (found["terminal"], found["serial"]) == (SITE.terminal, SITE.epp_serial)
    assert found["order"]["signers"] == ["hq1", "hq2"]
    assert (found["order"]["id"], found["order"]["digest"]) == ("ORD-1", DIGEST)
    people = [PEOPLE[name] for name in ("li", "wang")]
    assert found["people"] == [{"person": p.person, "role": p.role, "group": p.group} for p in people]
    assert [(part["envelope"], part["opened_by"], part["spoiled"]) for part in found["parts"]] == [
        ("ENV-1", "li", False),
        ("ENV-2", "wang", False),
    ]
    assert [part["kcv"] for part in found["parts"]] == [part["kcv"] for part in document["parts"]]
    assert found["verified"][0]["kcv"] == document["kcv"]
    assert (found["proof"]["method"], found["proof"]["reference"]) == ("echo", "R1")
    assert [who["person"] for who in found["signed"]] == ["li", "wang"]
    assert [(one["slot"], one["deleted"]) for one in found["erased"]] == [("TMK", False)]
    assert found["ledger"] == {"epoch": "0123456789abcdef", "seq": 422, "hash": "5e" * 32}
    assert found["software"] == "0.1.0"
    told = " ".join(step["event"] for step in found["steps"])
    assert told.startswith("received opened joined joined ready empty envelope part envelope part ")
    assert told.endswith(" confirmed verified active signed signed")


def test_a_key_block() -> None:
    found = facts("block")
    assert (found["result"], found["method"], found["parts"]) == ("loaded", "block", [])
    assert (found["block"]["digest"], found["block"]["under"], found["block"]["header"]) == (
        block_order().block,
        "TMK",
        "B P0 T E 01",
    )


def test_a_destroyed_key() -> None:
    found = facts("destroyed")
    assert (found["result"], found["kind"], found["proof"]) == ("destroyed", "destroy", {})
    assert found["clocks"] == {"applied": {}, "installed": {}}
    assert [(one["slot"], one["deleted"]) for one in found["erased"]] == [("TMK", True)]
    assert found["kcv"] == destroy_order().document()["kcv"]
    assert len(found["signed"]) == 2


def test_a_stop_tells_its_cause_who_stopped_it_and_which_envelopes_are_spoiled() -> None:
    found = facts("aborted")
    assert (found["result"], found["cause"]["word"], found["cause"]["by"]) == ("aborted", "abandoned", "wang")
    assert found["cause"]["en"] == "a person stopped it"
    assert found["cause"]["zh"] == "操作人员中止"
    assert [(part["spoiled"], part["entered"]) for part in found["parts"]] == [(True, True)] * 2 + [(False, False)]
    assert found["proof"] == {}
    assert found["clocks"]["installed"]["within"] == "not_done"
    assert [one["deleted"] for one in found["erased"]] == [False, True]


def test_a_stop_by_a_restart() -> None:
    found = facts("restarted")
    assert (found["result"], found["cause"]["word"]) == ("aborted", "agent_restarted")
    assert [step["event"] for step in found["steps"]][-4:] == ["trouble", "aborting", "erased", "aborted"]


def test_a_stop_by_the_device_tells_what_the_device_said_in_plain_characters() -> None:
    terminal = Terminal()
    terminal.epp.fails["key_complete"] = ("refused", "sequence\u202eError\n-----")
    terminal.load(order(), State.CONFIRM)
    terminal.confirm()
    found = facts_of(kept(terminal))
    assert found["cause"]["en"] == "the device refused: sequence?Error?-----"
    assert receipts.read(receipts.issue(found, KEY), KEY.public).facts == found


def test_troubles_on_the_way_are_told() -> None:
    found = facts("troubled")
    assert found["result"] == "loaded"
    assert found["refused"] == {"wrong_group": 1}
    assert [part["wrong"] for part in found["parts"]] == [0, 1, 0]
    assert [one["slot"] for one in found["erased"] if one["deleted"]] == ["TMK", "TPK", "TMK"]
    told = [step["event"] for step in found["steps"]]
    assert [told.count(event) for event in ("wrong", "login", "trouble", "signed")] == [1, 1, 1, 2]
    assert found["proof"]["person"] == "li"


@pytest.mark.parametrize(
    ("came", "offset", "within"),
    [(2 * HOUR, 480, "met"), (71 * HOUR, 480, "late"), (63 * HOUR, 480, "met"), (63 * HOUR, 0, "late")],
)
def test_the_two_days_are_whole_local_days(came: int, offset: int, within: str) -> None:
    rows = receipts.of_order(kept(by_components(), came), "ORD-1")
    found = receipts.facts(rows, receipts.Head("e", rows[-1]["seq"], "", "1", offset))
    clock = found["clocks"]["installed"]
    assert clock["within"] == within
    assert clock["from"] == WALL - came
    assert clock["done"] == found["proof"]["at"]
    assert (clock["due"] + offset * 60_000) % 86_400_000 == 0
    assert f"UTC+{offset // 60:02}:00" in receipts.page(found)


def test_the_five_days_are_told_when_the_ledger_or_the_order_knows_when_a_key_was_asked_for() -> None:
    assert facts("components")["clocks"]["applied"] == {}
    rows = kept(by_components())
    asked = {"kind": "ceremony", "event": "applied", "order": "ORD-1", "at": WALL - 24 * HOUR, "seq": 1}
    clock = facts_of([asked, *rows])["clocks"]["applied"]
    assert (clock["from"], clock["done"], clock["within"]) == (WALL - 24 * HOUR, WALL - 2 * HOUR, "met")
    terminal = Terminal()
    terminal.load(order(applied=WALL - 200 * HOUR))
    assert facts_of(kept(terminal))["clocks"]["applied"]["within"] == "late"


# Which rows count.


@pytest.mark.parametrize("name", CASES)
def test_what_is_written_after_the_end_changes_nothing(name: str) -> None:
    play, which = CASES[name]
    rows = kept(play())
    seq = rows[-1]["seq"]
    later = [
        {**rows[-1], "event": event, "seq": seq + n, "reason": "used_before", "receipt": DIGEST}
        for n, event in enumerate(("closed", "refused", "receipt"), 1)
    ]
    other = {**rows[0], "order": "ORD-9", "seq": seq + 9}
    mine = receipts.of_order([*rows, *later, other], which)
    assert mine[-1]["event"] in ("signed", "aborted")
    assert mine == receipts.of_order(mine, which)
    assert receipts.issue(facts_of([*rows, *later, other], which), KEY) == issued(name)


@pytest.mark.parametrize("until", [State.OPENED, State.PART, State.VERIFIED, State.DESTROY])
def test_an_order_that_has_not_ended_has_no_receipt(until: State) -> None:
    terminal = Terminal()
    terminal.load(order(), until)
    with pytest.raises(EnvelopeRefused) as caught:
        facts_of(kept(terminal))
    assert caught.value.reason == "not_ended"


def test_one_signature_is_not_an_end() -> None:
    terminal = Terminal()
    terminal.load(order(), State.DESTROY)
    terminal.sign("li", order())
    with pytest.raises(EnvelopeRefused, match="two people sign first"):
        facts_of(kept(terminal))


def test_a_key_that_is_undone_after_both_signatures_was_not_loaded() -> None:
    terminal = Terminal()
    terminal.load(order(), State.RECEIPT)
    assert facts_of(kept(terminal))["result"] == "loaded"
    terminal.epp.fails["key_delete"] = ("unanswered", "")
    terminal.do(steps.Trouble("tamper"))
    with pytest.raises(EnvelopeRefused, match="has not come to an end"):
        facts_of(kept(terminal))
    terminal.epp.fails.clear()
    terminal.later(10.0)
    found = facts_of(kept(terminal))
    assert (found["result"], found["cause"]["word"]) == ("aborted", "tamper")
    assert found["clocks"]["installed"]["within"] == "not_done"


def test_the_place_in_the_ledger_must_be_that_of_the_last_row() -> None:
    rows = receipts.of_order(kept(by_components()), "ORD-1")
    with pytest.raises(ValueError, match="last row"):
        receipts.facts(rows, receipts.Head("e", rows[-1]["seq"] + 1, "", "1"))


# The page.


@pytest.mark.parametrize("name", CASES)
def test_one_page_in_both_languages(name: str) -> None:
    found, page = facts(name), receipts.page(facts(name))
    lines = page.split("\n")
    assert len(lines) <= 66
    assert max(map(width, lines)) <= 88
    for text in (found["terminal"], found["serial"], found["slot"], found["order"]["id"], "hq1, hq2", "row 行 4"):
        assert text in page
    for text in (
        {"loaded": "已装载", "destroyed": "已销毁", "aborted": "已中止"}[found["result"]],
        "5e" * 32,
        DIGEST,
    ):
        assert text in page
    assert found["result"].upper() in lines[3 if not found["test"] else 7]
    assert not any(line != line.rstrip() for line in lines)


@pytest.mark.parametrize("name", CASES)
def test_a_simulator_s_receipt_says_so_in_big_and_no_other_does(name: str) -> None:
    said = [line for line in receipts.page(facts(name)).split("\n") if "SIMULATOR" in line and "模拟" in line]
    assert len(said) == (3 if name == "simulator" else 0)


def test_every_label_leaves_a_blank() -> None:
    assert all(width(" ".join(label)) < 24 for label in LABELS.values())


@pytest.mark.parametrize("name", CASES)
def test_no_line_looks_like_a_key_but_the_digests(name: str) -> None:
    named = [" ".join(LABELS[label]) for label in ("digest", "hash", "ledger", "block")]
    for line in receipts.page(facts(name)).split("\n"):
        if not any(line.startswith(label) for label in named):
            assert not re.search("[0-9A-Fa-f]{11}", line)
            assert not like_a_key(line)


def test_the_longest_names_and_hundreds_of_steps_stay_on_the_page() -> None:
    long = "Z" * 48
    found = facts("troubled")
    found |= {"terminal": long, "serial": long, "slot": long}
    found["order"] |= {"id": long, "signers": ["签发人" * 30] * 8}
    found["people"] = [{**who, "person": long, "group": long} for who in found["people"]]
    found["parts"] = [{**part, "envelope": long, "group": long, "opened_by": long} for part in found["parts"]]
    found["erased"] = found["erased"] * 30
    found["signed"] = [{**who, "person": long} for who in found["signed"]]
    found["refused"] = dict.fromkeys(REFUSALS, 12)
    found["proof"] |= {"reference": long, "person": long}
    found["cause"] = {"word": "x", "en": "many words " * 60, "zh": "中" * 300, "by": long}
    found["clocks"]["applied"] = found["clocks"]["installed"]
    found["test"] = True
    for repeated in (1, 40):
        found["steps"] = facts("troubled")["steps"] * repeated
        lines = receipts.page(found).split("\n")
        assert len(lines) <= 66
        assert max(map(width, lines)) <= 88
        assert any("more steps in the signed part" in line for line in lines)
        assert found["steps"][-1]["person"] in "".join(lines[-8:])


def test_a_ceremony_with_endless_rows_still_gives_a_receipt_that_can_be_read() -> None:
    rows = kept(by_components())
    wrong = [{**rows[5], "event": "login", "person": "li", "result": "wrong"}] * 5000
    found = facts_of([*rows[:5], *wrong, *rows[5:]])
    assert found["steps_left_out"] == 5000 + 15 - receipts.MOST_STEPS
    assert [step["event"] for step in found["steps"]][-2:] == ["signed", "signed"]
    assert receipts.read(receipts.issue(found, KEY), KEY.public).facts == found


def test_the_facts_too_large_for_a_receipt_are_not_signed() -> None:
    with pytest.raises(EnvelopeRefused) as caught:
        receipts.issue({**facts("components"), "software": "x" * receipts.LARGEST}, KEY)
    assert caught.value.reason == "too_large"
