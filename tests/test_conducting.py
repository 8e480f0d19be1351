"""The conductor: what is asked when, what an abort does although the core is stuck, and how it begins again."""

import time
from typing import Any

import pytest

from agent.crypto import steps
from agent.crypto.steps import State
from agent.errors import ControlError
from agent.keys.conducting import BY
from agent.keys.guard import PREFIX
from agent.keys.surveying import HOURLY
from agent.model import Heard, Note, Operation, Outcome, Reading
from tests.ceremonies import BLOCK, DIGEST, HEADER, KEY_PARTS, SITE, Epp, block_order, kcv, whole
from tests.conductor import COUNTERS, Stage, begun, destroy_today, fresh, today

KEY = b"B0096P0TE00N0000 and so on"


def notes(stage: Stage, kind: str) -> list[Note]:
    return [item for _, item in stage.gone if isinstance(item, Note) and item.kind == kind]


def test_a_whole_ceremony_and_every_question_follows_its_row() -> None:
    stage = begun(State.CLOSED)
    assert stage.epp.slots == {"TMK": ("loaded", whole(2))}
    assert stage.verbs("put") == ["key_check", "key_enter", "key_enter", "key_complete"]
    assert stage.verbs("now") == []
    asked: set[object] = set()
    for _, item in stage.gone:
        if isinstance(item, Note) and item.fields.get("event") == "asked":
            asked.add(item.fields["id"])
        elif isinstance(item, Operation) and item.by == BY:
            assert item.id in asked
    assert [note.fields["event"] for note in notes(stage, "ceremony")] == stage.events()
    assert all(row["kind"] == "ceremony" and row["at"] for row in stage.conducting.rows)


def test_the_cash_counters_are_written_when_all_is_ready_and_not_asked_before() -> None:
    stage = Stage()
    stage.hear(link_state="up", device_serial=SITE.epp_serial)
    stage.turn()
    stage.panel(switch="run")
    stage.turn()
    assert stage.counted == 0
    stage.panel()
    stage.load(today(), State.PART)
    assert next(row for row in stage.conducting.rows if row["event"] == "ready")["counters"] == COUNTERS
    counted = stage.counted
    stage.turn()
    assert stage.counted == counted


@pytest.mark.parametrize("until", [State.PART, State.CONFIRM, State.VERIFIED])
def test_the_deletion_of_an_abort_goes_out_at_once_although_the_core_is_stuck(until: State) -> None:
    stage = begun(until)
    if until is State.PART:
        stage.do(steps.PartBegun(stage.login("li")))
    stage.core, before = False, len(stage.gone)
    stage.do(steps.Trouble("abandoned", "li"))
    how, first = stage.gone[before]
    assert isinstance(first, Operation)
    assert (how, first.verb, first.arguments) == ("now", "key_delete", {"slot": "TMK"})
    assert stage.state() is State.ABORTED
    assert stage.epp.state() == "missing"
    told = [item.fields for _, item in stage.gone[before:] if isinstance(item, Note)]
    assert {"device": "epp1", "id": first.id, "verb": "key_delete", "by": BY, "arguments": {"slot": "TMK"}} in told
    assert stage.events()[-1] == "aborted"


def test_answers_to_looks_are_not_passed_on_and_all_else_is() -> None:
    stage = Stage()
    look, ours = Outcome(f"{PREFIX}1.TMK", "done", "", 1.0), Outcome("ORD-1.1", "done", "", 1.0)
    reading = Reading("link.state", "up", 1.0)
    assert stage.conducting.heard(Heard("epp1", (look, reading, ours, look))) == Heard("epp1", (reading, ours))
    strange = Heard("ups1", (look, reading))
    assert stage.conducting.heard(strange) is strange


def test_it_is_looked_at_the_slots_only_while_the_pad_answers_and_no_ceremony_runs() -> None:
    stage = Stage([], Epp({"TMK": ("loaded", 5)}))
    stage.hear(device_serial=SITE.epp_serial, key_TMK_state="loaded")
    stage.turn()
    assert stage.reached() == []
    stage.hear(**{"key_TMK.state": "loaded", "link_state": "up"})
    stage.turn()
    assert [asked.id for asked in stage.reached()] == [f"{PREFIX}1.TMK"]
    assert [row["word"] for row in stage.conducting.rows] == ["unexpected_key"]
    assert stage.conducting.service()[0] == "stopped"
    stage.panel()
    stage.open(today(replaces="TMK"))
    stage.do(steps.Joined(stage.login("li")))
    asked = len(stage.reached())
    stage.conducting.guard.look()
    stage.turn()
    assert len(stage.reached()) == asked


def test_a_ceremony_asks_nothing_before_the_last_question_of_a_look_is_answered() -> None:
    stage = Stage([], Epp({"ZMK": ("missing", 0)}))
    stage.hear(link_state="up", device_serial=SITE.epp_serial, **{"key_ZMK.state": "missing"})
    stage.panel()
    stage.conducting.turn(time.monotonic())
    (look,) = stage.reached()
    stage.conducting.open(today(), ("hq1", "hq2"), DIGEST, 0)
    for name in ("li", "wang"):
        stage.conducting.handle(steps.Joined(stage.login(name)))
    stage.conducting.turn(time.monotonic())
    assert stage.state() is State.LOOKING
    assert stage.reached() == [look]
    stage.answer(look)
    assert [asked.verb for asked in stage.reached()] == ["key_check", "key_check"]
    stage.settle()
    assert stage.state() is State.PART


def test_a_look_that_began_before_a_ceremony_does_not_go_on_while_people_sign() -> None:
    stage = Stage()
    stage.hear(link_state="up", device_serial=SITE.epp_serial, **{"key_TMK.state": "missing"})
    stage.hear(**{"key_ZMK.state": "missing"})
    stage.panel()
    stage.conducting.turn(time.monotonic())
    (look,) = stage.reached()
    stage.answer(look)  # TMK: missing, and then it is loaded
    stage.load(today(), State.DESTROY)
    stage.turn()
    assert stage.conducting.service() == ("ok", ("", ""))
    assert stage.conducting.guard.findings == []
    assert stage.conducting.guard.seen is not None
    assert stage.conducting.guard.seen["TMK"].state == "loaded"


def test_after_a_ceremony_the_slots_are_looked_at() -> None:
    stage = begun(State.CLOSED)
    looks = [asked for asked in stage.reached() if asked.id.startswith(PREFIX)]
    stage.turn()
    assert len([asked for asked in stage.reached() if asked.id.startswith(PREFIX)]) == len(looks) + 1
    assert stage.conducting.service() == ("ok", ("", ""))


@pytest.mark.parametrize(
    "change", [{"device_serial": "EPP-78"}, {"epp_tamper": "tampered"}, {"key_TMK.state": "missing"}]
)
def test_another_pad_and_one_that_was_opened_are_looked_at_at_once(change: dict[str, str]) -> None:
    stage = begun(State.CLOSED)
    stage.turn()
    stage.epp.slots.clear()
    stage.turn()
    assert stage.conducting.service() == ("ok", ("", ""))
    stage.hear(**change)
    stage.turn()
    assert stage.conducting.service()[0] == "stopped"
    looks = len(stage.reached())
    stage.turn()
    assert len(stage.reached()) == looks


@pytest.mark.parametrize("until", [State.DESTROY, State.CLOSED])
def test_an_opened_pad_is_not_trusted_again_when_it_says_that_all_is_well(until: State) -> None:
    stage = begun(until)
    stage.turn()
    at = time.monotonic()
    # Both in one message of the link: nobody looks in between.
    both = tuple(Reading("epp.tamper", word, at) for word in ("tampered", "ok"))
    stage.conducting.heard(Heard("epp1", both))
    stage.conducting.drain()
    assert stage.conducting.service()[0] != "ok"
    stage.turn()
    assert stage.conducting.held().slots["TMK"].state in ("unknown", "missing")
    rows = [row for row in stage.conducting.rows if row["event"] == "tampered"]
    assert [row["cause"] for row in rows] == ["tamper"]
    alarms = [row["word"] for row in stage.conducting.rows if row["event"] == "alarm"]
    assert "tamper" in alarms
    if until is State.CLOSED:
        assert stage.conducting.service()[0] == "stopped"
        assert stage.conducting.guard.findings[0].word == "unknown_slot"


def test_a_pad_that_is_gone_is_not_known_to_hold_its_keys() -> None:
    stage = begun(State.CLOSED)
    stage.turn()
    assert stage.conducting.service() == ("ok", ("", ""))
    stage.hear(link_state="silent")
    assert stage.conducting.service()[0] == "unknown"


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda stage: stage.panel(switch="run"), "mode_changed"),
        (lambda stage: stage.panel(door="open"), "mode_changed"),
        (lambda stage: stage.hear(link_state="silent"), "device_lost"),
        (lambda stage: stage.hear(epp_tamper="tampered"), "tamper"),
        (lambda stage: stage.hear(device_serial="EPP-78"), "serial_changed"),
        (lambda stage: stage.open(today(id="ORD-2")), "second_session"),
    ],
    ids=["switch", "door", "lost", "tamper", "serial", "second"],
)
@pytest.mark.parametrize("until", [State.OPENED, State.PART, State.VERIFIED])
def test_whatever_changes_in_a_ceremony_ends_it(change: Any, cause: str, until: State) -> None:
    stage = begun(until)
    change(stage)
    stage.turn()
    if until is State.OPENED and cause == "mode_changed":
        assert stage.state() is State.OPENED  # the switch is looked at when both are there
        return
    assert stage.conducting.ceremony.cause == cause
    if cause == "device_lost":
        stage.hear(link_state="up", device_serial=SITE.epp_serial)
        stage.turn()
    assert stage.state() is State.ABORTED
    # In another pad nothing is deleted, and nothing was loaded: this one stands for both.
    assert stage.epp.state() == ("loaded" if cause == "serial_changed" and until is State.VERIFIED else "missing")
    assert not stage.conducting.held().running


def test_a_second_order_is_not_opened_by_ending_the_first() -> None:
    stage = begun(State.PART)
    stage.open(today(id="ORD-2"))
    assert "ORD-2" not in stage.conducting.held().orders
    assert stage.events().count("opened") == 1
    stage.turn()
    stage.load(
        today(
            id="ORD-2",
            parts=[
                {"envelope": f"N-{n}", "kcv": kcv(part), "group": f"G{n}"}
                for n, part in enumerate(KEY_PARTS[:2], 1)
            ],
        ),
        State.CONFIRM,
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [({"link_state": "silent"}, "connection to the device was lost"), ({"epp_tamper": "tampered"}, "tampering")],
)
def test_an_order_is_not_used_up_on_a_pad_that_is_lost_or_was_opened(change: dict[str, str], says: str) -> None:
    stage = Stage().ready()
    stage.hear(**change)
    with pytest.raises(ControlError, match=says):
        stage.open(today())
    assert "opened" not in stage.events()
    assert stage.state() is State.IDLE


def test_no_order_is_opened_while_a_push_is_tried() -> None:
    stage = Stage().ready()
    stage.tried = "a push is being tried"
    with pytest.raises(ControlError, match="no ceremony can begin: a push is being tried; wait for its end"):
        stage.open(today())
    assert "opened" not in stage.events()
    stage.tried = ""
    stage.open(today())
    assert "opened" in stage.events()


def test_a_pad_that_was_never_heard_is_not_another_terminals() -> None:
    with pytest.raises(ControlError, match="connection to the device was lost"):
        Stage().open(today())


def test_a_key_block_goes_along_once_and_is_wiped_when_it_is_not_needed() -> None:
    stage = begun(State.CLOSED)
    stage.epp.block = 99
    stage.load(fresh(block_order(kcv=kcv(99))), State.BLOCK)
    stage.conducting.offer(BLOCK, b"one that was refused")
    refused = stage.conducting._blocks[BLOCK]
    stage.conducting.offer(BLOCK, KEY)
    kept = stage.conducting._blocks[BLOCK]
    assert not any(refused)
    stage.do(steps.BlockOffered(BLOCK, HEADER))
    stage.do(steps.Confirmed(stage.login("wang")))
    assert stage.state() is State.VERIFIED
    assert [op.opaque for op in stage.reached() if op.opaque] == [KEY]
    assert len(kept) == len(KEY)
    assert not any(kept)
    assert KEY.decode() not in repr(stage.gone)


def test_a_key_block_is_wiped_when_its_order_is_stopped() -> None:
    stage = begun(State.CLOSED)
    stage.load(fresh(block_order(kcv=kcv(99))), State.BLOCK)
    stage.conducting.offer(BLOCK, KEY)
    kept = stage.conducting._blocks[BLOCK]
    stage.do(steps.Trouble("abandoned", "li"))
    assert not any(kept)


@pytest.mark.parametrize("until", [State.PART, State.CONFIRM, State.VERIFIED])
def test_a_planned_stop_deletes_half_a_key_before_it_is_one(until: State) -> None:
    stage = begun(until)
    if until is State.PART:
        stage.do(steps.PartBegun(stage.login("li")))
    assert stage.epp.state() in ("construct", "loaded")
    stage.answers_at_once()
    stage.conducting.part()
    assert (stage.state(), stage.conducting.ceremony.cause) == (State.ABORTED, "agent_stopped")
    assert stage.epp.state() == "missing"
    assert stage.events()[-1] == "aborted"


def test_a_planned_stop_waits_for_no_pad_that_is_gone_and_undoes_no_key_that_works() -> None:
    stage = begun(State.CONFIRM)
    stage.hear(link_state="silent")
    stage.conducting.part()
    assert stage.conducting.ceremony.stuck
    assert stage.restarted().conducting.resuming
    stage = begun(State.DESTROY)
    stage.conducting.part()
    assert stage.epp.state() == "loaded"
    assert stage.state() is State.DESTROY


@pytest.mark.parametrize("until", [State.CLOSED, State.ABORTED])
def test_what_happens_after_the_end_of_a_ceremony_is_a_row(until: State) -> None:
    stage = begun(State.CLOSED if until is State.CLOSED else State.PART)
    if until is State.ABORTED:
        stage.do(steps.Trouble("abandoned", "li"))
    ended = len(stage.conducting.rows)
    stage.do(steps.Trouble("exposed", "prompt"))
    stage.do(steps.WrongLogin("zhao"))
    assert stage.events()[ended:] == ["trouble", "alarm", "login"]
    assert stage.state() is until
    assert stage.conducting.held().wrong["zhao"]


def test_steps_that_are_passed_at_once_are_one_and_numbers_only_grow() -> None:
    stage = Stage().ready()
    stage.open(today())
    stage.do(steps.Joined(stage.login("li")))
    last = stage.conducting.told.last
    stage.do(steps.Joined(stage.login("wang")))
    settled, told = stage.conducting.told.since(last, 0.0)
    assert settled
    assert [tell.word for _, tell in told] == ["looking", "part"]
    assert [number for number, _ in told] == [last + 1, last + 2]
    assert stage.conducting.told.since(told[-1][0], 0.0) == (True, [])


def test_as_long_as_the_epp_is_asked_nothing_is_settled() -> None:
    stage = begun(State.PART)
    stage.core = False
    stage.do(steps.PartBegun(stage.login("li")))
    assert not stage.conducting.settled
    assert stage.conducting.told.since(10_000, 0.0)[0] is False
    stage.core = True
    stage.settle()
    assert stage.conducting.settled


def test_a_row_of_no_ceremony_says_where_it_is_of() -> None:
    stage = Stage().ready()
    stage.conducting.record("applied", order="KO-1")
    fields = {"event": "applied", "terminal": SITE.terminal, "serial": SITE.epp_serial, "order": "KO-1"}
    assert stage.gone[-1] == ("put", Note("ceremony", fields))
    assert "KO-1" in stage.conducting.held().applied


def test_destruction_is_a_ceremony_and_leaves_the_terminal_as_the_ledger_says() -> None:
    stage = begun(State.CLOSED)
    stage.load(destroy_today(), State.CLOSED)
    stage.turn(HOURLY)
    assert stage.epp.state() == "missing"
    assert stage.conducting.service() == ("ok", ("", ""))
