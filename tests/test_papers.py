"""Papers that nobody signs for in time: the next order passes them, and they stay due until two have signed."""

from dataclasses import replace
from typing import Any, cast

import pytest

from agent.crypto import guards, steps
from agent.crypto.conduct import WHOLE
from agent.crypto.holdings import fold
from agent.crypto.orders import Order
from agent.crypto.steps import State
from agent.errors import ControlError
from tests.ceremonies import DIGEST, KEY_PARTS, SITE, WALL, Terminal, destroy_order, kcv, order
from tests.conductor import Stage, begun, today
from tests.keydesks import keydesk

ENVELOPES = order().envelopes
MINUTES_30 = 30 * 60_000


def signed(stage: Stage, name: str) -> steps.Signed:
    return steps.Signed(stage.login(name), ENVELOPES, DIGEST)


def second(**changes: Any) -> Order:
    """An order for another slot, with envelopes of its own."""
    parts = [
        {"envelope": f"NEW-{n}", "kcv": kcv(part), "group": f"G{n}"} for n, part in enumerate(KEY_PARTS[:2], 1)
    ]
    return replace(today(id="ORD-2", slot="TMK2", parts=parts), **changes)


def late(names: tuple[str, ...] = ("li",)) -> Stage:
    """A key works, and only some have signed within half an hour."""
    stage = begun(State.DESTROY)
    for name in names:
        stage.do(signed(stage, name))
    stage.conducting.ceremony._since -= WHOLE
    stage.turn()
    return stage


def test_within_half_an_hour_papers_come_first() -> None:
    stage = begun(State.DESTROY)
    assert not stage.conducting.free
    stage.open(second())
    assert stage.state() is State.DESTROY
    assert "ORD-2" not in stage.conducting.held().orders


@pytest.mark.parametrize("names", [(), ("li",)])
def test_who_never_signs_keeps_no_other_order_waiting_and_can_still_sign(names: tuple[str, ...]) -> None:
    stage = late(names)
    assert stage.conducting.free
    stage.load(second(), State.DESTROY)
    held = stage.conducting.held()
    assert (list(held.owed), list(held.papers)) == (["ORD-1"], ["ORD-1", "ORD-2"])
    assert held.slots["TMK"].state == "loaded", "the key that the host has proved is not undone"
    for name in ("li", "wang"):
        if name not in names:
            ceremony, _ = stage.conducting.afterwards("ORD-1", signed(stage, name))
    assert ceremony.state is State.RECEIPT
    assert list(stage.conducting.held().papers) == ["ORD-2"]
    stage.conducting.afterwards("ORD-1", steps.ReceiptMade(DIGEST))
    assert not stage.conducting.held().owed
    assert stage.state() is State.DESTROY, "of the other one nothing has changed"
    assert stage.conducting.held().running[0]["order"] == "ORD-2"


def test_papers_are_due_visibly_also_when_the_order_that_passes_them_is_refused() -> None:
    stage = late()
    for row in stage.conducting.rows:
        cast("dict[str, Any]", row)["at"] -= MINUTES_30
    stage.open(second(not_before=1, not_after=2))
    stage.turn()
    assert stage.state() is State.IDLE
    assert [found.word for found in stage.conducting.guard.findings] == ["papers_late"]
    assert list(stage.conducting.held().papers) == ["ORD-1"]


def test_each_signs_once_and_only_who_took_part() -> None:
    stage = late()
    stage.open(second())
    for name, word in (("li", "signed_before"), ("zhao", "not_crew")):
        ceremony, tells = stage.conducting.afterwards("ORD-1", signed(stage, name))
        assert ([tell.word for tell in tells], ceremony.state) == ([word], State.DESTROY)
    again = stage.login("wang")
    stage.conducting.afterwards("ORD-1", steps.Signed(again, ("ENV-1",), DIGEST))
    assert stage.conducting.rows[-1]["reason"] == "wrong_statement"
    assert "destruction_overdue" not in [row.get("word") for row in stage.conducting.rows[-3:]], "that was told"


def test_a_signature_for_an_order_that_was_passed_is_none_for_the_one_that_is_carried_out() -> None:
    stage = late()
    stage.load(second(), State.DESTROY)
    stage.conducting.afterwards("ORD-1", signed(stage, "wang"))
    again = stage.restarted()
    assert again.conducting.resuming
    again.hear(link_state="up", device_serial=SITE.epp_serial)
    again.turn()
    assert (again.state(), again.conducting.ceremony.order.id) == (State.DESTROY, "ORD-2")
    assert again.conducting.next_step().en.endswith("Signed: -")
    assert list(again.conducting.held().owed) == ["ORD-1"], "its receipt is not made yet"


def test_a_start_between_two_orders_cleans_nothing_up_and_forgets_no_papers() -> None:
    stage = late()
    stage.load(second(), State.CLOSED)
    again = stage.restarted()
    assert not again.conducting.resuming
    assert list(again.conducting.held().papers) == ["ORD-1"]
    assert again.epp.state("TMK") == "loaded"


def test_papers_are_found_late_by_the_clock_of_the_wall_until_two_have_signed() -> None:
    for what in (order(), destroy_order()):
        terminal = Terminal()
        terminal.load(order())
        terminal = terminal.again()
        if what.loads:
            terminal = Terminal()
        terminal.load(what, State.DESTROY)
        now = WALL + int(terminal.now * 1000)
        assert guards.papers(fold(terminal.rows), now + MINUTES_30 - 1) == []
        terminal.sign("li", what)
        (found,) = guards.papers(fold(terminal.rows), now + MINUTES_30)
        assert (found.word, found.facts, found.critical) == ("papers_late", {"order": what.id}, False)
        assert f"tillwire keys destroy {what.id}" in found.en
        assert f"tillwire keys destroy {what.id}" in found.zh
        terminal.sign("wang", what)
        assert guards.papers(fold(terminal.rows), now + MINUTES_30) == []


def test_they_are_signed_for_by_name_at_the_desk_and_then_there_is_a_receipt() -> None:
    with keydesk(late()) as desk:
        stage = desk.stage
        with pytest.raises(ControlError, match="not the time to sign"):
            desk.ask("sign", "wang", order="ORD-2")
        stage.conducting.call(lambda: stage.conducting.open(second(), ("hq1", "hq2"), DIGEST, 0))
        desk.ask("receipt", order="ORD-1")  # of a ceremony that was stopped there would be one
        assert list(stage.conducting.held().owed) == ["ORD-1"]
        told = desk.ask("sign", "wang")
        assert [line["end"] for line in told if "end" in line] == ["receipt"]
        assert told[-1]["step"]["word"] == "receipt"
        assert stage.state() is State.OPENED
        with pytest.raises(ControlError, match="not the time to sign"):
            desk.ask("sign", "wang", order="ORD-1")
        desk.ask("receipt", order="ORD-1")
        assert [(row["order"], row["receipt"]) for row in desk.rows("closed")] == [("ORD-1", DIGEST)]
        assert stage.state() is State.OPENED
