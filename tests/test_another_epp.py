"""Another EPP in the middle of a ceremony: nothing is deleted in it, and nothing it says counts for the old one."""

import time

import pytest

from agent.crypto import steps
from agent.crypto.holdings import fold
from agent.crypto.orders import Site
from agent.crypto.steps import Ask, Forget, State
from agent.model import Heard, Operation, Outcome, Reading
from tests.ceremonies import BLOCK, SITE, Epp, Terminal, block_order, destroy_order, order
from tests.conductor import Stage, begun

OTHER = "EPP-78"


def until(state: State, fails: bool = False) -> Terminal:
    """A ceremony that has come so far; one that deletes cannot."""
    terminal = Terminal()
    if state is State.ERASING:
        terminal.load(order())
        terminal = terminal.again()
        terminal.epp.fails["key_delete"] = ("unanswered", "")
        terminal.load(destroy_order(), State.CONFIRM)
        terminal.confirm()
    elif state is State.ABORTING:
        terminal.epp.fails["key_delete"] = ("unanswered", "")
        terminal.load(order(), State.CONFIRM)
        terminal.do(steps.Trouble("device_lost"))
    elif state is State.ACTIVE:
        terminal = Terminal(Epp({"OLD": ("loaded", 5)}, {"key_delete": ("unanswered", "")}))
        terminal.load(order(replaces="OLD"), State.VERIFIED)
        terminal.prove()
    elif state is State.ENTERING:
        terminal.load(order(), State.PART)
        terminal.answer = False
        terminal.part("li")
    else:
        terminal.load(order(), state)
    assert terminal.state() is state
    return terminal


TOUCHED = [
    *(State.ENTERING, State.CONFIRM, State.VERIFIED, State.ACTIVE),
    *(State.ERASING, State.DESTROY, State.RECEIPT, State.ABORTING),
]


@pytest.mark.parametrize("state", TOUCHED)
@pytest.mark.parametrize("restart", [False, True])
def test_another_epp_is_asked_nothing_and_the_slot_of_the_old_one_is_unknown(state: State, restart: bool) -> None:
    terminal = until(state)
    before, asked = len(terminal.rows), len([a for a in terminal.actions if isinstance(a, Ask)])
    if restart:
        terminal.site = Site(SITE.terminal, OTHER)
        terminal.restart()
    else:
        terminal.do(steps.Trouble("serial_changed"))
    terminal.later(1000.0)
    assert terminal.state() is State.ABORTED
    assert terminal.ended()["cause"] == "serial_changed"
    assert len([a for a in terminal.actions if isinstance(a, Ask)]) == asked
    rows = terminal.rows[before:]
    told = [row.get("word", row["event"]) for row in rows]
    assert (
        told.index("tampered") < told.index("serial_changed") < told.index("slot_unknown") < told.index("aborted")
    )
    assert "erased" not in told
    held = fold(terminal.rows)
    assert held.slots["TMK"].state == "unknown"
    assert not held.running
    assert not terminal.ceremony.active


def test_an_answer_of_the_old_epp_that_comes_late_changes_nothing() -> None:
    terminal = until(State.ENTERING)
    terminal.do(steps.Trouble("serial_changed"))
    rows = len(terminal.rows)
    assert not terminal.ceremony.awaits(terminal.waiting[0].id)
    terminal.flush()
    assert len(terminal.rows) == rows


def test_a_block_for_the_old_epp_is_forgotten() -> None:
    terminal = until(State.RECEIPT)
    terminal.do(steps.ReceiptMade("cd" * 32))
    terminal = terminal.again()
    terminal.load(block_order(), State.CONFIRM)
    terminal.answer = False
    terminal.confirm()
    assert Forget(BLOCK) in terminal.do(steps.Trouble("serial_changed"))


def operations(stage: Stage) -> list[Operation]:
    return [item for _, item in stage.gone if isinstance(item, Operation) and item.by == "ceremony"]


@pytest.mark.parametrize("until_state", [State.CONFIRM, State.VERIFIED])
def test_a_pad_that_comes_back_is_asked_nothing_before_it_has_told_who_it_is(until_state: State) -> None:
    stage = begun(until_state)
    asked = len(operations(stage))
    stage.hear(link_state="silent")
    stage.turn()
    assert stage.state() is State.ABORTING
    stage.hear(link_state="up")
    stage.turn(20.0)
    assert len(operations(stage)) == asked
    assert stage.conducting.ceremony.stuck
    stage.hear(device_serial=SITE.epp_serial)
    stage.turn()
    assert [asked.verb for asked in operations(stage)[asked:]] == ["key_delete"]
    assert stage.state() is State.ABORTED
    assert stage.epp.state() == "missing"


def test_another_pad_that_comes_instead_keeps_its_keys() -> None:
    stage = begun(State.VERIFIED)
    asked, key, rows = len(operations(stage)), stage.epp.slots["TMK"], len(stage.events())
    stage.hear(link_state="silent")
    stage.turn()
    stage.hear(link_state="up", device_serial=OTHER)
    stage.turn(20.0)
    stage.turn(2000.0)
    assert len(operations(stage)) == asked
    assert stage.epp.slots["TMK"] == key
    assert stage.state() is State.ABORTED
    assert "erased" not in stage.events()[rows:]
    assert stage.conducting.held().slots["TMK"].state == "unknown"
    assert stage.conducting.service()[0] != "ok"


def test_what_another_pad_answers_is_not_heard() -> None:
    stage = begun(State.CONFIRM)
    rows = len(stage.events())
    stage.conducting.handle(steps.Trouble("abandoned", "li"))
    deletion = operations(stage)[-1]
    at = time.monotonic()
    told = Outcome(deletion.id, "done", "", at, "", {"state": "missing"})
    stage.conducting.heard(Heard("epp1", (Reading("device.serial", OTHER, at), told)))
    stage.conducting.drain()
    assert stage.state() is State.ABORTED
    assert stage.conducting.ceremony.cause == "serial_changed"
    assert "erased" not in stage.events()[rows:]


def test_what_waited_for_its_row_does_not_reach_another_pad() -> None:
    stage = begun(State.PART)
    stage.core = False
    stage.do(steps.PartBegun(stage.login("li")))
    entry = stage.gone[-1][1]
    assert isinstance(entry, Operation)
    assert not stage.conducting.withdrawn(entry)
    stage.hear(link_state="silent")
    assert stage.conducting.withdrawn(entry)
    stage.hear(link_state="up", device_serial=OTHER)
    assert stage.conducting.withdrawn(entry)
