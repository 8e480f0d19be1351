"""Ceremonies that are interrupted or over: restarts, papers, locks, the table, and no secret anywhere."""

import json
import re
from dataclasses import fields, replace
from pathlib import Path

import pytest

from agent.crypto import conduct, crew, orders, steps
from agent.crypto.ceremony import Ceremony
from agent.crypto.holdings import Slot, fold
from agent.crypto.keyblock import Header
from agent.crypto.orders import Order, Site
from agent.crypto.steps import TABLE, Ask, State, picture
from tests.ceremonies import (
    BLOCK,
    DIGEST,
    FIT,
    HEADER,
    SITE,
    Epp,
    Terminal,
    block_order,
    destroy_order,
    order,
)

TYPED = "0123456789ABCDEFFEDCBA9876543210"


NEW_PARTS = [{**part, "envelope": f"NEW-{n}"} for n, part in enumerate(order().document()["parts"])]


def until(state: State, what: Order | None = None, epp: Epp | None = None) -> Terminal:
    terminal = Terminal(epp or Epp())
    terminal.load(what or order(), state)
    return terminal


def first_ask(actions: list[steps.Action]) -> tuple[str, str]:
    assert isinstance(actions[0], Ask)
    return actions[0].verb, str(actions[0].arguments["slot"])


@pytest.mark.parametrize("step", [State.CONFIRM, State.VERIFIED])
def test_after_a_restart_the_slot_is_deleted_before_anything_else(step: State) -> None:
    terminal = until(step)
    assert first_ask(terminal.restart()) == ("key_delete", "TMK")
    assert terminal.state() is State.ABORTED
    assert terminal.ceremony.cause == "agent_restarted"
    assert terminal.epp.state() == "missing"
    assert terminal.ended()["spoiled"] == ["ENV-1", "ENV-2"]
    assert not fold(terminal.rows).running


def test_a_restart_while_a_component_is_typed_deletes_the_slot() -> None:
    terminal = until(State.PART)
    terminal.answer = False
    terminal.part("li")
    terminal.epp.perform(terminal.waiting[0])
    terminal.answer = True
    assert first_ask(terminal.restart()) == ("key_delete", "TMK")
    assert terminal.epp.state() == "missing"


def test_a_restart_in_the_middle_of_a_deletion_goes_on_with_it_under_a_new_number() -> None:
    terminal = until(State.VERIFIED)
    terminal.epp.fails["key_delete"] = ("unanswered", "")
    terminal.prove(ok=False)
    asked = [action.id for action in terminal.actions if isinstance(action, Ask)]
    terminal.restart()
    assert terminal.state() is State.ABORTING
    assert terminal.ceremony.cause == "proof_failed"
    asked += [action.id for action in terminal.last if isinstance(action, Ask)]
    assert len(asked) == len(set(asked))
    terminal.epp.fails.clear()
    terminal.later(10.0)
    assert terminal.state() is State.ABORTED


@pytest.mark.parametrize("step", [State.OPENED, State.CONFIRM])
def test_a_restart_before_the_slot_was_touched_deletes_nothing_and_uses_up_the_order(step: State) -> None:
    terminal = until(State.CLOSED).again()
    terminal.load(destroy_order(), step)
    terminal.restart()
    assert terminal.state() is State.ABORTED
    assert terminal.epp.state() == "loaded"
    assert "ORD-D" in fold(terminal.rows).orders


def test_a_key_that_the_host_has_proved_survives_a_restart_and_the_papers_are_still_due() -> None:
    terminal = until(State.DESTROY)
    terminal.sign("li", order())
    terminal.restart()
    assert terminal.state() is State.DESTROY
    assert terminal.ceremony.active
    assert terminal.epp.state() == "loaded"
    terminal.sign("li", order())
    assert terminal.reason() == "signed_before"
    terminal.sign("wang", order())
    terminal.restart()
    assert terminal.state() is State.RECEIPT
    terminal.do(steps.ReceiptMade(DIGEST))
    assert terminal.state() is State.CLOSED


def test_a_destruction_goes_on_after_a_restart() -> None:
    terminal = until(State.CLOSED).again()
    terminal.epp.fails["key_delete"] = ("unanswered", "")
    terminal.load(destroy_order(), State.CONFIRM)
    terminal.confirm()
    terminal.restart()
    assert terminal.state() is State.ERASING
    terminal.epp.fails.clear()
    terminal.later(10.0)
    assert terminal.state() is State.DESTROY
    terminal.restart()
    assert terminal.state() is State.DESTROY


def test_an_old_key_that_cannot_be_deleted_keeps_the_terminal_out_of_service() -> None:
    terminal = until(State.VERIFIED, order(replaces="OLD"), epp=Epp({"OLD": ("loaded", 5)}))
    terminal.epp.fails["key_delete"] = ("failed", "hardwareError")
    terminal.prove()
    assert terminal.state() is State.ACTIVE
    assert terminal.ceremony.out_of_service
    terminal.restart()
    terminal.sign("li", order())
    assert terminal.reason() == "not_now"
    terminal.epp.fails.clear()
    terminal.later(10.0)
    assert terminal.state() is State.DESTROY
    assert not terminal.ceremony.out_of_service


def test_another_epp_found_after_a_restart_makes_all_slots_unknown() -> None:
    terminal = until(State.DESTROY)
    terminal.site = Site(SITE.terminal, "EPP-99")
    terminal.restart()
    assert terminal.ceremony.cause == "serial_changed"
    assert "serial_changed" in terminal.alarms()


@pytest.mark.parametrize("cause", ["device_lost", "exposed"])
def test_a_proved_key_stays_when_the_people_or_the_line_fail(cause: str) -> None:
    terminal = until(State.DESTROY)
    terminal.do(steps.Trouble(cause))
    terminal.do(replace(FIT, maintenance=False))
    terminal.do(steps.Opened(order(id="ORD-2"), ("a", "b"), DIGEST, 0, 0))
    terminal.later(10_000.0)
    assert terminal.state() is State.DESTROY
    assert terminal.alarms().count("destruction_overdue") == 1


def test_tampering_undoes_even_a_proved_key() -> None:
    terminal = until(State.DESTROY)
    assert first_ask(terminal.do(steps.Trouble("tamper"))) == ("key_delete", "TMK")
    assert not terminal.ceremony.active
    assert terminal.state() is State.ABORTED
    assert "tamper" in terminal.alarms()


@pytest.mark.parametrize("cause", ["tamper", "serial_changed"])
def test_after_tampering_the_other_slots_are_unknown_too(cause: str) -> None:
    terminal = until(State.CLOSED).again()
    terminal.load(block_order(), State.VERIFIED)
    terminal.do(steps.Trouble(cause))
    assert fold(terminal.rows).slots["TMK"].state == "unknown"


def test_what_was_in_another_epp_is_not_taken_to_be_in_this_one() -> None:
    terminal = until(State.CLOSED).again()
    terminal.site = Site(SITE.terminal, "EPP-99")
    terminal = terminal.again()
    terminal.open(order(id="ORD-2", epp_serial="EPP-99", slot="OTHER", version=2, parts=NEW_PARTS))
    assert terminal.state() is State.OPENED
    assert fold(terminal.rows).slots["TMK"].state == "unknown"


def test_papers_are_signed_for_by_two_people_of_the_crew_with_all_their_envelopes() -> None:
    terminal = until(State.DESTROY)
    terminal.do(steps.Signed(terminal.login("li"), ("ENV-1",), DIGEST))
    assert terminal.reason() == "wrong_statement"
    terminal.sign("zhao", order())
    assert terminal.reason() == "not_crew"
    terminal.sign("li", order())
    terminal.sign("li", order())
    assert terminal.reason() == "signed_before"
    assert terminal.state() is State.DESTROY


@pytest.mark.parametrize(
    ("found", "cause", "left"),
    [
        (("construct", 7), "left_construct", "missing"),
        (("loaded", 7), "unexpected_key", "loaded"),
    ],
)
def test_a_slot_that_no_order_explains_stops_the_ceremony(found: tuple[str, int], cause: str, left: str) -> None:
    terminal = Terminal(Epp({"TMK": found}))
    terminal.open(order())
    terminal.crew()
    assert terminal.ceremony.cause == cause
    assert terminal.epp.state() == left
    assert cause in terminal.alarms()


def test_a_device_that_cannot_tell_what_a_slot_holds_needs_an_order_that_says_so() -> None:
    for order_made, state in ((order(), State.ABORTED), (order(exceptions=["unread_slot"]), State.PART)):
        terminal = Terminal(Epp({"TMK": ("loaded", 7)}, {"key_check": ("refused", "")}))
        terminal.open(order_made)
        terminal.crew()
        assert terminal.state() is state
        assert terminal.epp.state() == "loaded"
    terminal.part("li")
    assert (terminal.state(), terminal.epp.state()) == (State.PART, "construct")
    terminal = Terminal(Epp({"TMK": ("loaded", 7)}, {"key_check": ("refused", "")}))
    terminal.load(destroy_order(exceptions=["unread_slot"]))
    assert terminal.epp.state() == "missing"


def test_only_the_named_key_is_destroyed() -> None:
    terminal = Terminal(Epp({"TMK": ("loaded", 7)}))
    terminal.open(destroy_order())
    terminal.crew()
    assert terminal.ceremony.cause == "unexpected_key"
    terminal = Terminal()
    terminal.open(destroy_order())
    terminal.crew()
    assert terminal.ceremony.cause == "slot_empty"
    assert fold(terminal.rows).slots["TMK"] == Slot("missing")


@pytest.mark.parametrize(
    "header",
    [
        replace(HEADER, usage="D0"),
        replace(HEADER, algorithm="A", version="D"),
        replace(HEADER, mode="B"),
        replace(HEADER, exportability="S"),
        replace(HEADER, key_version="00"),
        replace(HEADER, version="A"),
        replace(HEADER, context="1"),
        None,
    ],
)
def test_a_block_whose_header_is_not_the_ordered_one_is_not_relayed(header: Header | None) -> None:
    terminal = until(State.CLOSED).again()
    terminal.load(block_order(), State.BLOCK)
    terminal.do(steps.BlockOffered(BLOCK, header))
    assert terminal.reason() in ("block_refused", "other_block")
    terminal.do(steps.BlockOffered(DIGEST, HEADER))
    assert terminal.reason() == "other_block"
    assert terminal.state() is State.BLOCK
    terminal.do(steps.Trouble("abandoned"))
    assert steps.Forget(BLOCK) in terminal.last


def test_a_key_that_stands_in_another_slot_too_is_an_alarm() -> None:
    terminal = until(State.CLOSED).again()
    terminal.load(block_order(), State.VERIFIED)
    assert terminal.alarms() == ["same_kcv"]


def test_five_wrong_logins_lock_for_the_day_across_ceremonies() -> None:
    terminal = Terminal()
    for _ in range(4):
        terminal.do(steps.WrongLogin("wang"))
    terminal = terminal.again()
    terminal.load(order(count=3), State.OPENED)
    terminal.do(steps.WrongLogin("wang"))
    assert terminal.alarms() == ["locked"]
    assert terminal.state() is State.OPENED
    terminal.do(steps.Joined(terminal.login("wang")))
    assert terminal.reason() == "locked"
    terminal.do(steps.Trouble("abandoned"))
    terminal = terminal.again()
    terminal.open(order(id="ORD-2"))
    terminal.do(steps.Joined(terminal.login("wang")))
    assert terminal.reason() == "locked"
    later = Terminal(rows=terminal.rows, now=terminal.now + 86_400)
    later.logins = 50
    later.open(order(id="ORD-3", not_after=order().not_after + 86_400_000))
    later.do(steps.Joined(later.login("wang")))
    assert later.events()[-1] == "joined"


def test_who_was_locked_while_a_ceremony_ran_signs_its_papers_after_a_day_also_over_a_restart() -> None:
    terminal = until(State.DESTROY)
    for _ in range(5):
        terminal.do(steps.WrongLogin("wang"))
    terminal.now += 86_400 - 10
    terminal.restart()
    terminal.now = 100_000.0
    terminal.sign("wang", order())
    assert terminal.reason() == "locked"
    terminal.now += 86_400
    terminal.restart()
    terminal.sign("wang", order())
    assert terminal.events()[-1] == "signed"


def test_wrong_logins_of_another_day_do_not_count() -> None:
    rows: list[dict[str, object]] = []
    for day in range(5):
        terminal = Terminal(rows=rows, now=day * 43_201.0)
        terminal.do(steps.WrongLogin("wang"))
    assert "locked" not in [row.get("result") for row in rows]


def test_somebody_of_the_crew_who_is_locked_ends_the_ceremony() -> None:
    terminal = until(State.CONFIRM)
    for _ in range(5):
        terminal.do(steps.WrongLogin("li"))
    assert terminal.ceremony.cause == "locked_out"
    assert terminal.epp.state() == "missing"


def test_an_order_is_used_up_when_it_is_opened() -> None:
    terminal = until(State.OPENED)
    terminal.do(steps.Trouble("abandoned"))
    terminal = terminal.again()
    terminal.open(order())
    assert terminal.reason() == "used_before"
    assert terminal.state() is State.IDLE


def test_a_key_of_a_version_that_was_loaded_before_is_not_loaded_again() -> None:
    terminal = until(State.CLOSED, order(version=2)).again()
    parts = [{**part, "envelope": f"NEW-{n}"} for n, part in enumerate(order().document()["parts"])]
    terminal.open(order(id="ORD-2", replaces="TMK", version=2, parts=parts))
    assert terminal.reason() == "older"


def test_a_component_that_is_typed_elsewhere_is_spoiled_and_its_value_is_nowhere() -> None:
    terminal = until(State.PART)
    terminal.do(steps.WrongLogin(TYPED))
    terminal.do(steps.Trouble("exposed", TYPED))
    assert terminal.ceremony.cause == "exposed"
    assert fold(terminal.rows).envelopes == {"ENV-1"}
    assert TYPED not in repr(terminal.actions) + json.dumps(terminal.rows)


def test_whatever_a_device_says_too_much_reaches_neither_ledger_nor_people() -> None:
    terminal = until(State.PART)
    terminal.answer = False
    terminal.part("li")
    facts = {"kcv": TYPED, "state": TYPED, "usage": TYPED, "digits": 32, "key": TYPED, "half": TYPED[:8]}
    terminal.do(steps.Answer(terminal.waiting.pop().id, "failed", f"at {TYPED}", facts))
    terminal.flush()
    terminal.answer = False
    terminal.part("li")
    terminal.do(steps.Answer(terminal.waiting.pop().id, "refused", f"at {TYPED}"))
    assert "withheld" in terminal.ceremony.next_step().en
    assert TYPED[:8] not in repr(terminal.actions) + repr(vars(terminal.ceremony)) + json.dumps(terminal.rows)


def test_every_long_hex_in_the_rows_is_a_digest_and_every_row_says_where() -> None:
    terminal = until(State.CLOSED)
    assert set(re.findall(r'(?<=")[0-9A-Fa-f]{11,}(?=")', json.dumps(terminal.rows))) == {DIGEST, FIT.counters}
    for row in terminal.rows:
        assert (row["terminal"], row["serial"], row["slot"]) == (SITE.terminal, SITE.epp_serial, "TMK")


def test_no_type_of_a_ceremony_can_hold_bytes() -> None:
    for module in (steps, orders, conduct, crew):
        source = Path(str(module.__file__)).read_text(encoding="utf-8")
        assert not re.search(r": (bytes|bytearray|memoryview|Secret)\b", source)
    assert {f.name for f in fields(steps.BlockOffered)} == {"digest", "header"}


def test_the_table_leads_everywhere_from_the_beginning_and_every_handler_exists() -> None:
    reached, todo = set(), [State.IDLE]
    while todo:
        state = todo.pop()
        if state not in reached:
            reached.add(state)
            for arc in TABLE[state].values():
                assert callable(getattr(Ceremony, arc.handler))
                todo += arc.leads_to
    assert reached == set(State)


def test_the_table_has_no_way_to_active_but_by_proof_and_out_of_a_touched_slot_but_by_the_epp_or_another() -> None:
    into_active = {
        (state, event)
        for state, arcs in TABLE.items()
        for event, arc in arcs.items()
        if State.ACTIVE in arc.leads_to - {state}
    }
    assert into_active == {(State.VERIFIED, steps.Proof)}
    assert {event for event, arc in TABLE[State.ABORTING].items() if State.ABORTED in arc.leads_to} == {
        steps.Answer,
        steps.Trouble,
    }


def test_the_picture_of_the_table_is_up_to_date() -> None:
    page = (Path(__file__).parent.parent / "docs/keys.md").read_text(encoding="utf-8")
    found = re.search(r"```mermaid\n(.*?)```", page, re.S)
    assert found
    assert found[1] == picture(), "run `make docs`"


def test_the_table_of_requirements_names_tests_that_exist() -> None:
    root = Path(__file__).parent.parent
    page = (root / "docs/keys.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (KL-\d\d) \|(.*)\|$", page, re.M))
    assert sorted(rows) == [f"KL-{n:02}" for n in range(1, 23)]
    for name, row in rows.items():
        for file, test in re.findall(r"`(tests/\w+\.py)::(\w+)`", row):
            assert f"def {test}(" in (root / file).read_text(encoding="utf-8"), (name, test)


def test_the_next_step_is_told_in_both_languages() -> None:
    terminal = until(State.PART)
    told = terminal.ceremony.next_step()
    assert "ENV-1" in told.en
    assert "ENV-1" in told.zh
    terminal.do(steps.Trouble("abandoned"))
    assert "a person stopped it" in terminal.ceremony.next_step().en
