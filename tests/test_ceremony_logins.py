"""How long wrong logins count against a person, and who takes them back. Time is a number."""

import pytest

from agent.crypto import steps
from agent.crypto.holdings import DAY_MS, fold
from agent.crypto.steps import State
from tests.ceremonies import WALL, Terminal, order


@pytest.mark.parametrize(("days", "alarms"), [(0.5, ["locked"]), (1.0, [])])
@pytest.mark.parametrize("again", [False, True])
def test_wrong_logins_grow_old_although_nothing_happens_after_them(
    days: float, alarms: list[str], again: bool
) -> None:
    terminal = Terminal()
    for _ in range(4):
        terminal.do(steps.WrongLogin("wang", WALL))
    terminal.rows = [{**row, "at": WALL} for row in terminal.rows]
    terminal = Terminal(rows=terminal.rows) if again else terminal
    terminal.do(steps.WrongLogin("wang", WALL + int(days * DAY_MS)))
    assert terminal.alarms() == alarms


def test_a_person_who_is_unlocked_may_try_again_also_in_the_ceremony_under_way() -> None:
    terminal = Terminal()
    terminal.load(order(), State.OPENED)
    for _ in range(5):
        terminal.do(steps.WrongLogin("wang"))
    terminal.do(steps.Joined(terminal.login("wang")))
    assert terminal.reason() == "locked"
    terminal.ceremony.forgive("wang")
    terminal.do(steps.Joined(terminal.login("wang")))
    assert terminal.events()[-1] == "joined"


def test_the_ledger_knows_who_was_unlocked() -> None:
    tries = [
        {"kind": "ceremony", "event": "login", "person": "wang", "result": result, "at": WALL}
        for result in (*["wrong"] * 4, "locked", "unlocked")
    ]
    assert fold(tries[:5]).locked == {"wang": WALL}
    held = fold(tries)
    assert (held.locked, held.wrong) == ({}, {})
