"""At every step of every kind of ceremony, between any two things that happen: the agent is killed, the EPP is lost
and comes back with half a key in it, or both; what it was asked last is done or is not.

In virtual time, so that no step is left out. test_key_interruptions.py does it in real processes, at some of them.
"""

from collections.abc import Callable
from copy import deepcopy

import pytest

from agent.crypto import holdings, steps
from agent.crypto.asking import CHANGING, ENDED
from agent.crypto.orders import Order
from agent.crypto.steps import Answer, State
from tests.ceremonies import (
    BLOCK,
    DIGEST,
    FIT,
    HEADER,
    PEOPLE,
    Epp,
    Terminal,
    block_order,
    destroy_order,
    kcv,
    order,
)

OLD = ("loaded", 0x77)
CEREMONIES: dict[str, tuple[Order, dict[str, tuple[str, int]]]] = {
    "components": (order(count=3), {}),
    "instead of a key": (order(replaces="TMK"), {"TMK": OLD}),
    "instead of one elsewhere": (order(replaces="OLD"), {"OLD": OLD}),
    "compromise": (order(kind="compromise", compromised=["TMK", "TPK"]), {"TMK": OLD, "TPK": OLD}),
    "block": (block_order(under="KEK", exceptions=["unrecorded_kek"]), {"KEK": OLD}),
    "destruction": (destroy_order(kcv=kcv(OLD[1])), {"TMK": OLD}),
}


def moments(which: str) -> list[Terminal]:
    """The terminal after each single thing, from the opening of the order to the last signature."""
    what, slots = CEREMONIES[which]
    terminal, people = Terminal(Epp(dict(slots)), answer=False), list(PEOPLE)
    acts: dict[State, Callable[[], object]] = {
        State.IDLE: lambda: terminal.open(what),
        State.OPENED: lambda: terminal.do(steps.Joined(terminal.login(people[terminal.events().count("joined")]))),
        State.CREWED: lambda: terminal.do(FIT),
        State.PART: lambda: terminal.part(people[terminal.events().count("part")]),
        State.BLOCK: lambda: terminal.do(steps.BlockOffered(BLOCK, HEADER)),
        State.CONFIRM: terminal.confirm,
        State.VERIFIED: terminal.prove,
        State.DESTROY: lambda: terminal.sign(people[terminal.events().count("signed")], what),
        State.RECEIPT: lambda: terminal.do(steps.ReceiptMade(DIGEST)),
    }
    found = []
    while terminal.state() is not State.CLOSED:
        if terminal.waiting:
            terminal.do(terminal.epp.perform(terminal.waiting.pop(0)))
        else:
            acts[terminal.state()]()
        found.append(deepcopy(terminal))
    return found[:-1]


def killed(terminal: Terminal) -> None:
    if holdings.fold(terminal.rows).running:
        terminal.restart()


def lost(terminal: Terminal) -> None:
    """No question is answered: not those that were asked, and not what is asked for the loss."""
    terminal.do(steps.Trouble("device_lost"))
    for ask in [*terminal.waiting]:
        terminal.do(Answer(ask.id, "unanswered"))
    terminal.waiting.clear()


def both(terminal: Terminal) -> None:
    lost(terminal)
    killed(terminal)


def killed_again(terminal: Terminal) -> None:
    """And before the EPP has said that the slot is empty, once more."""
    killed(terminal)
    killed(terminal)


@pytest.mark.parametrize("done", [False, True], ids=["not done", "done"])
@pytest.mark.parametrize("blow", [killed, lost, both, killed_again])
@pytest.mark.parametrize("which", CEREMONIES)
def test_no_slot_stays_half_built_and_the_ledger_tells(
    which: str, blow: Callable[[Terminal], None], done: bool
) -> None:
    what = CEREMONIES[which][0]
    for terminal in moments(which):
        told = terminal.events()
        asked = {ask.verb for ask in terminal.waiting} | {row.get("verb") for row in terminal.rows}
        kept = ("active" if what.loads else "confirmed") in told
        if done and terminal.waiting:
            terminal.epp.perform(terminal.waiting[0])
        before = dict(terminal.epp.slots)
        blow(terminal)
        stopped, touched = not kept, bool(asked & CHANGING)
        assert terminal.ceremony.out_of_service or not (stopped and touched), "until the EPP has said it is empty"
        terminal.answer = True
        terminal.flush()
        terminal.later(11.0)
        terminal.later(21.0)
        held, slot = holdings.fold(terminal.rows), terminal.epp.state(what.slot)
        assert "construct" not in {state for state, _ in terminal.epp.slots.values()}
        assert not {key.state for key in held.slots.values()} & {"construct", "unknown"}
        assert "trouble" in terminal.events()
        assert what.id in held.orders
        if stopped:
            assert terminal.state() is State.ABORTED
            assert not held.running
            assert terminal.ended()["spoiled"] == [
                row["envelope"] for row in terminal.rows if row["event"] == "envelope"
            ]
            assert slot == held.slots[what.slot].state == "missing" if touched else terminal.epp.slots == before
        else:
            assert terminal.state() not in ENDED
            assert slot == ("loaded" if what.loads else "missing")
            assert not what.replaces or what.replaces == what.slot or terminal.epp.state(what.replaces) == "missing"


def test_these_are_all_the_steps() -> None:
    seen = {terminal.state() for which in CEREMONIES for terminal in moments(which)}
    assert seen == set(State) - {State.IDLE, State.ABORTING, *ENDED}
