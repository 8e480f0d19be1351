"""A key that is replaced in its own slot: it stays until the new one is at hand."""

import pytest

from agent.crypto import steps
from agent.crypto.orders import Order
from agent.crypto.steps import Ask, State
from tests.ceremonies import BLOCK, HEADER, Epp, Terminal, block_order, order

OLD = ("loaded", 0x77)


def by_block() -> Order:
    return block_order(slot="TMK", under="KEK", replaces="TMK", exceptions=["unrecorded_kek"])


def begun(what: Order, until: State) -> Terminal:
    terminal = Terminal(Epp({"TMK": OLD, "KEK": ("loaded", 5)}))
    terminal.load(what, until)
    return terminal


def verbs(terminal: Terminal) -> list[str]:
    return [action.verb for action in terminal.actions if isinstance(action, Ask)]


@pytest.mark.parametrize(
    ("what", "state"),
    [(order(replaces="TMK"), State.PART), (by_block(), State.BLOCK), (by_block(), State.CONFIRM)],
)
@pytest.mark.parametrize("restart", [False, True])
def test_a_stop_before_the_new_key_is_at_hand_leaves_the_old_one(what: Order, state: State, restart: bool) -> None:
    terminal = begun(what, state)
    if restart:
        terminal.restart()
    else:
        terminal.do(steps.Trouble("abandoned", "li"))
    assert terminal.state() is State.ABORTED
    assert terminal.epp.slots["TMK"] == OLD
    assert verbs(terminal) == ["key_check"]


def test_the_old_key_goes_before_the_first_component_is_typed_and_only_then() -> None:
    terminal = begun(order(replaces="TMK"), State.PART)
    terminal.part("zhao")
    assert terminal.epp.slots["TMK"] == OLD
    terminal.answer = False
    terminal.part("li")
    assert terminal.state() is State.CLEARING
    terminal.answer = True
    terminal.flush()
    terminal.part("wang")
    terminal.confirm()
    assert terminal.state() is State.VERIFIED
    assert verbs(terminal) == ["key_check", "key_delete", "key_enter", "key_enter", "key_complete"]


def test_the_old_key_goes_before_the_block_is_handed_on() -> None:
    terminal = begun(by_block(), State.BLOCK)
    terminal.do(steps.BlockOffered(BLOCK, HEADER))
    assert verbs(terminal) == ["key_check"]
    terminal.confirm()
    assert terminal.state() is State.VERIFIED
    assert verbs(terminal) == ["key_check", "key_delete", "key_import"]


def test_an_old_key_that_cannot_be_deleted_is_followed_by_no_component() -> None:
    terminal = begun(order(replaces="TMK"), State.PART)
    terminal.epp.fails["key_delete"] = ("failed", "hardwareError")
    terminal.part("li")
    assert terminal.state() is State.ABORTING
    assert "key_enter" not in verbs(terminal)
