"""A ceremony step by step: what is asked of whom, what is refused, and how each failure ends."""

from dataclasses import replace
from typing import Any

import pytest

from agent.crypto import holdings, steps
from agent.crypto.holdings import Slot
from agent.crypto.kcv import Kcv
from agent.crypto.orders import Order
from agent.crypto.steps import Ask, Forget, State
from tests.ceremonies import (
    BLOCK,
    DIGEST,
    FIT,
    HEADER,
    KEY_PARTS,
    PEOPLE,
    WALL,
    Epp,
    Terminal,
    block_order,
    destroy_order,
    kcv,
    order,
    whole,
)

TMK = Slot("loaded", Kcv.parse("A1B2C3"), "K0", "T", 32, 1)
UNFIT = replace(FIT, maintenance=False)
BEFORE_PROOF = [State.CONFIRM, State.VERIFIED]
TROUBLES: list[Any] = [
    *(steps.Trouble(cause) for cause in ("device_lost", "tamper")),
    *(steps.Trouble(cause, "li") for cause in ("abandoned", "exposed")),
    replace(FIT, service_stopped=False),
    replace(FIT, doors_as_ordered=False),
    UNFIT,
    steps.Opened(order(id="ORD-2"), ("a", "b"), DIGEST, WALL, WALL),
]


def begun(until: State, what: Order | None = None, **given: Any) -> Terminal:
    terminal = Terminal(**given)
    terminal.load(what or order(), until)
    return terminal


def with_tmk() -> Terminal:
    """A terminal whose TMK was loaded by an earlier ceremony."""
    return begun(State.CLOSED).again()


def aborts(terminal: Terminal, actions: list[steps.Action], cause: str) -> None:
    """The ceremony has ended, and before anything else the slot was deleted."""
    first = actions[0]
    assert isinstance(first, Ask)
    assert (first.verb, first.arguments) == ("key_delete", {"slot": terminal.ceremony.order.slot})
    assert terminal.state() is State.ABORTED
    assert terminal.ceremony.cause == terminal.ended()["cause"] == cause
    assert terminal.epp.state() == "missing"
    assert terminal.rows[-1]["event"] == "aborted"


@pytest.mark.parametrize("people", [2, 3])
def test_components_become_a_key_that_the_host_has_proved(people: int) -> None:
    terminal = begun(State.CLOSED, order(count=people))
    assert terminal.epp.slots == {"TMK": ("loaded", whole(people))}
    held = holdings.fold(terminal.rows)
    assert held.slots["TMK"].kcv == Kcv.parse(kcv(whole(people)))
    assert held.envelopes == {f"ENV-{n + 1}" for n in range(people)}
    assert not held.running
    assert not terminal.alarms()
    entries = [action for action in terminal.actions if isinstance(action, Ask) and action.verb == "key_enter"]
    assert [entry.arguments["expect"] for entry in entries] == [kcv(part) for part in KEY_PARTS[:people]]
    told = [row.get("envelope", row.get("verb")) for row in terminal.rows if row["event"] in ("envelope", "asked")]
    assert told[1:-1] == [word for n in range(people) for word in (f"ENV-{n + 1}", "key_enter")], "who, then what"
    assert len({ask.id for ask in terminal.actions if isinstance(ask, Ask)}) == 2 + people


def test_a_block_is_relayed_once_and_then_forgotten() -> None:
    terminal = with_tmk()
    terminal.epp.block = 99
    terminal.load(block_order(kcv=kcv(99)))
    asked = [action for action in terminal.actions if isinstance(action, Ask) and action.verb == "key_import"]
    assert [ask.block for ask in asked] == [BLOCK]
    assert asked[0].arguments == {"slot": "TPK", "usage": "P0", "under": "TMK", "form": "tr31"}
    assert Forget(BLOCK) in terminal.actions
    assert holdings.fold(terminal.rows).slots["TPK"].under == "TMK"


def test_destruction_needs_a_second_person_and_the_word_of_the_device() -> None:
    terminal = with_tmk()
    terminal.load(destroy_order(), State.CONFIRM)
    terminal.confirm("li")
    assert terminal.reason() == "not_second"
    assert terminal.epp.state() == "loaded"
    terminal.confirm("wang")
    assert terminal.epp.state() == "missing"
    held = holdings.fold(terminal.rows)
    assert held.slots["TMK"] == Slot("missing")
    assert held.destroyed == {order().kcv}


def test_the_new_key_works_before_the_old_one_in_another_slot_goes() -> None:
    terminal = begun(State.VERIFIED, order(replaces="OLD"), epp=Epp({"OLD": ("loaded", 5)}))
    assert terminal.epp.state("OLD") == "loaded"
    terminal.prove()
    assert terminal.events().index("active") < terminal.events().index("erased", 9)
    assert terminal.epp.slots == {"TMK": ("loaded", whole(2))}


def test_the_old_key_in_the_same_slot_goes_first_and_only_by_order() -> None:
    terminal = with_tmk()
    parts = [{"envelope": f"NEW-{n}", "kcv": kcv(n + 50), "group": f"G{n + 1}"} for n in range(2)]
    terminal.epp.typed = {0: 50, 1: 51}
    second = order(id="ORD-2", version=2, kcv=kcv(50 ^ 51), parts=parts, replaces="TMK")
    terminal.load(second)
    assert terminal.epp.slots["TMK"] == ("loaded", 50 ^ 51)
    assert order().kcv in holdings.fold(terminal.rows).destroyed


def test_after_a_compromise_all_suspected_keys_go_before_anything_is_loaded() -> None:
    epp = Epp({"TMK": ("loaded", 5), "TPK": ("loaded", 6)})
    terminal = begun(State.PART, order(kind="compromise", compromised=["TPK", "TMK"]), epp=epp)
    assert not terminal.epp.slots
    asked = [action.arguments["slot"] for action in terminal.actions if isinstance(action, Ask)]
    assert asked == ["TMK", "TMK", "TPK"]


@pytest.mark.parametrize(
    ("who", "changes", "word"),
    [
        ("li", {}, "same_person"),
        ("wang", {"credential": "key-li"}, "same_credential"),
        ("wang", {"group": "G1"}, "same_group"),
        ("wang", {"group": "G7"}, "wrong_group"),
        ("wang", {"role": "key-manager"}, "role_missing"),
        ("wang", {"role": "guest"}, "role_missing"),
        ("wang", {"session": "s-li"}, "session_of_other"),
        ("wang", {"terminal": "ATM-0002"}, "wrong_terminal"),
        ("wang", {"person": "0123456789ABCDEF"}, "malformed_login"),
        ("wang", {"credential": "0123456789ABCDEF"}, "malformed_login"),
        ("wang", {"credential": ""}, "malformed_login"),
    ],
)
def test_a_second_person_who_is_none_is_refused(who: str, changes: dict[str, Any], word: str) -> None:
    terminal = Terminal()
    terminal.open(order())
    terminal.do(steps.Joined(terminal.login("li")))
    terminal.do(steps.Joined(terminal.login(who, **changes)))
    assert terminal.state() is State.OPENED
    assert terminal.reason() == word
    assert "0123456789ABCDEF" not in str(terminal.rows)


def test_a_login_serves_for_one_step() -> None:
    terminal = Terminal()
    terminal.open(order())
    login = terminal.login("li")
    terminal.do(steps.Joined(login))
    terminal.do(steps.Joined(terminal.login("wang")))
    terminal.do(FIT)
    terminal.do(steps.PartBegun(login))
    assert terminal.reason() == "login_reused"
    terminal.part("li")
    assert terminal.state() is State.PART
    terminal = begun(State.DESTROY)
    terminal.restart()
    terminal.do(steps.Signed(replace(PEOPLE["li"], login="login-3"), order().envelopes, DIGEST))
    assert terminal.reason() == "login_reused", "a restart does not make it fresh again"


def test_an_envelope_is_opened_only_by_its_own_holder_and_one_person_never_sees_two() -> None:
    terminal = begun(State.PART)
    terminal.part("wang")
    assert terminal.reason() == "wrong_group"
    terminal.part("zhao")
    assert terminal.reason() == "not_crew"
    terminal.do(steps.PartBegun(terminal.login("li", group="G2")))
    assert terminal.reason() == "changed"
    terminal.part("li")
    terminal.part("li")
    assert terminal.reason() == "wrong_group"


def test_who_saw_the_other_component_of_this_key_years_ago_is_refused() -> None:
    terminal = begun(State.CONFIRM)
    terminal.do(steps.Trouble("abandoned", "li"))
    terminal = terminal.again()
    swapped = [{**part, "group": f"G{3 - n}"} for n, part in enumerate(order(id="O2").document()["parts"], 1)]
    fresh = [{**part, "envelope": f"NEW-{n}"} for n, part in enumerate(swapped)]
    terminal.open(order(id="ORD-2", parts=fresh))
    terminal.crew()
    terminal.part("wang")
    assert terminal.reason() == "holds_too_much"


def test_who_opened_the_ceremony_cannot_complete_it_and_nobody_skips_a_step() -> None:
    terminal = begun(State.PART)
    for event in (
        steps.Confirmed(terminal.login("wang")),
        steps.Proof(PEOPLE["li"], True, "echo", "R"),
        steps.Signed(terminal.login("li"), order().envelopes, DIGEST),
        steps.ReceiptMade(DIGEST),
        steps.BlockOffered(BLOCK, HEADER),
        steps.Joined(terminal.login("zhao")),
    ):
        terminal.do(event)
        assert terminal.reason() == "not_now"
    assert terminal.state() is State.PART
    terminal.part("li")
    terminal.part("wang")
    terminal.confirm("li")
    assert terminal.reason() == "not_second"
    terminal.confirm("wang")
    assert terminal.state() is State.VERIFIED


def test_nothing_begins_before_switch_service_and_doors_are_as_ordered() -> None:
    terminal = Terminal()
    terminal.open(order())
    for name in ("li", "wang"):
        terminal.do(steps.Joined(terminal.login(name)))
    terminal.do(UNFIT)
    assert terminal.state() is State.CREWED
    assert not [action for action in terminal.actions if isinstance(action, Ask)]
    assert not terminal.ceremony.out_of_service
    terminal.do(FIT)
    assert terminal.state() is State.PART
    assert terminal.ceremony.out_of_service


def test_a_wrong_component_deletes_the_slot_and_all_are_typed_again_three_times_at_most() -> None:
    terminal = begun(State.PART)
    terminal.epp.typed[1] = 666
    for attempt in (1, 2):
        terminal.part("li")
        terminal.part("wang")
        assert terminal.epp.state() == "missing", attempt
        assert terminal.state() is State.PART
    terminal.part("li")
    terminal.part("wang")
    assert terminal.ceremony.cause == "wrong_part"
    assert terminal.epp.state() == "missing"
    assert holdings.fold(terminal.rows).envelopes == {"ENV-1", "ENV-2"}
    assert terminal.ended()["spoiled"] == ["ENV-1", "ENV-2"]


def test_a_component_of_another_length_is_a_wrong_one() -> None:
    terminal = begun(State.PART)
    terminal.answer = False
    terminal.part("li")
    facts = {"kcv": kcv(KEY_PARTS[0]), "digits": 16}
    terminal.do(steps.Answer(terminal.waiting.pop().id, "done", "", facts))
    assert "wrong" in terminal.events()
    assert [ask.verb for ask in terminal.waiting] == ["key_delete"]


def test_a_mistake_at_the_pad_can_be_made_good() -> None:
    terminal = begun(State.PART)
    terminal.epp.fails["key_enter"] = ("failed", "timeOut")
    terminal.part("li")
    del terminal.epp.fails["key_enter"]
    terminal.load(order(), State.PART)
    for name in ("li", "wang"):
        terminal.part(name)
    assert terminal.state() is State.CONFIRM


@pytest.mark.parametrize("until", BEFORE_PROOF)
@pytest.mark.parametrize("event", TROUBLES)
def test_whatever_happens_before_the_proof_deletes_the_slot_first(until: State, event: Any) -> None:
    terminal = begun(until)
    aborts(terminal, terminal.do(event), terminal.ceremony.cause)
    assert "aborted" in terminal.alarms()


@pytest.mark.parametrize("event", TROUBLES[:-4])
def test_before_the_slot_was_touched_a_failure_deletes_nothing(event: Any) -> None:
    terminal = with_tmk()
    terminal.load(destroy_order(), State.CONFIRM)
    terminal.do(event)
    assert terminal.state() is State.ABORTED
    assert terminal.epp.state() == "loaded"


@pytest.mark.parametrize(
    ("until", "seconds", "cause"),
    [(State.PART, 300, "part_time"), *((at, 1800, "ceremony_time") for at in BEFORE_PROOF)],
)
def test_time_runs_out(until: State, seconds: float, cause: str) -> None:
    terminal = begun(until)
    terminal.later(seconds - 0.1)
    assert terminal.state() is until
    terminal.later(0.1)
    assert terminal.ceremony.cause == cause


def test_a_pad_that_tells_of_digits_and_then_of_none_for_a_minute_ends_the_ceremony() -> None:
    terminal = begun(State.PART)
    terminal.answer = False
    terminal.part("li")
    terminal.later(200.0)
    assert terminal.state() is State.ENTERING
    terminal.do(steps.Digits())
    terminal.later(59.9)
    assert terminal.state() is State.ENTERING
    terminal.later(0.2)
    assert terminal.ceremony.cause == "idle"


@pytest.mark.parametrize(("verb", "state"), [("key_enter", State.PART), ("key_complete", State.CONFIRM)])
@pytest.mark.parametrize("failure", [("unanswered", ""), ("refused", "busy")])
def test_a_device_that_does_not_do_it_ends_the_ceremony(verb: str, state: State, failure: tuple[str, str]) -> None:
    terminal = begun(state)
    terminal.epp.fails[verb] = failure
    terminal.part("li") if state is State.PART else terminal.confirm()
    assert terminal.state() is State.ABORTED
    assert terminal.epp.state() == "missing"


@pytest.mark.parametrize(
    ("facts", "cause"),
    [
        ({"kcv": "ABCDEF", "state": "loaded"}, "wrong_key"),
        ({"kcv": "00", "state": "loaded"}, "wrong_key"),
        ({"state": "loaded"}, "wrong_key"),
        ({"kcv": kcv(whole(2)), "state": "construct"}, "wrong_key"),
        ({"kcv": kcv(whole(2)), "state": "loaded", "usage": "P0"}, "wrong_usage"),
    ],
)
def test_a_key_that_is_not_the_ordered_one_is_deleted(facts: dict[str, Any], cause: str) -> None:
    terminal = begun(State.CONFIRM)
    terminal.answer = False
    terminal.confirm()
    ask = terminal.waiting.pop()
    terminal.answer = True
    aborts(terminal, terminal.do(steps.Answer(ask.id, "done", "", facts)), cause)


def test_a_host_that_does_not_accept_the_key_ends_the_ceremony() -> None:
    terminal = begun(State.VERIFIED)
    aborts(terminal, terminal.prove(ok=False), "proof_failed")


@pytest.mark.parametrize("failure", [("failed", "hardwareError"), ("unanswered", ""), ("refused", "busy")])
def test_a_deletion_that_fails_is_tried_until_the_device_has_done_it(failure: tuple[str, str]) -> None:
    terminal = begun(State.CONFIRM)
    terminal.epp.fails["key_delete"] = failure
    terminal.do(steps.Trouble("abandoned", "li"))
    for _ in range(9):
        terminal.later(400.0)
    assert terminal.state() is State.ABORTING
    assert terminal.ceremony.stuck
    assert terminal.ceremony.out_of_service
    assert terminal.alarms().count("slot_unknown") == 1
    assert holdings.fold(terminal.rows).slots["TMK"].state == "unknown"
    assert terminal.events().count("asked") >= 12
    terminal.epp.fails.clear()
    terminal.later(400.0)
    assert terminal.state() is State.ABORTED
    assert not terminal.ceremony.out_of_service
    assert holdings.fold(terminal.rows).slots["TMK"].state == "missing"


@pytest.mark.parametrize("facts", [{}, {"state": "construct"}, {"state": "loaded"}, {"state": "gone"}])
def test_a_deletion_is_done_when_the_slot_was_read_back_empty_and_not_when_it_is_called_done(
    facts: dict[str, str],
) -> None:
    terminal = begun(State.CONFIRM)
    terminal.answer = False
    terminal.do(steps.Trouble("abandoned", "li"))
    terminal.do(steps.Answer(terminal.waiting.pop().id, "done", "", facts))
    assert terminal.state() is State.ABORTING
    terminal.later(10.0)
    terminal.do(steps.Answer(terminal.waiting.pop().id, "failed", "keyNotFound", {"state": "missing"}))
    assert terminal.state() is State.ABORTED


def test_a_component_that_is_typed_after_the_end_does_not_build_the_slot_again() -> None:
    terminal = begun(State.PART)
    terminal.answer = False
    terminal.part("li")
    entry = terminal.waiting.pop()
    terminal.do(UNFIT)
    terminal.flush()
    assert terminal.state() is State.ABORTING
    late = terminal.epp.perform(entry)
    assert terminal.epp.state() == "construct"
    terminal.do(late)
    terminal.flush()
    assert terminal.state() is State.ABORTED
    assert terminal.epp.state() == "missing"


def test_a_question_that_is_never_answered_counts_as_unanswered_in_the_end() -> None:
    terminal = begun(State.CONFIRM, answer=True)
    terminal.answer = False
    terminal.confirm()
    terminal.waiting.clear()
    terminal.later(120.0)
    assert terminal.ceremony.cause == "no_answer"


def test_answers_that_nobody_asked_for_change_nothing() -> None:
    terminal = begun(State.CONFIRM)
    before = len(terminal.rows)
    terminal.do(steps.Answer("ORD-1.99", "done", "", {"state": "loaded", "kcv": kcv(whole(2))}))
    terminal.do(steps.Answer("ORD-1.2", "done", "", {"kcv": kcv(1)}))
    assert (terminal.state(), len(terminal.rows)) == (State.CONFIRM, before)
