"""What anybody can do at the agent's socket without a login, as often as they like: it fills no disk."""

import base64
from contextlib import suppress

import pytest

from agent.crypto.steps import State
from agent.errors import ControlError
from tests.ceremonies import BLOCK, KEY_PARTS, block_order, kcv
from tests.conductor import Stage, begun, fresh
from tests.keydesks import keydesk

OFTEN = 20
PASTED = "0123456789ABCDEFFEDCBA9876543210"
OTHER = base64.b64encode(b"B0096P0TE00N0000" + b"0" * 80).decode()


@pytest.mark.parametrize("until", [State.CLOSED, State.DESTROY])
def test_a_component_that_is_pasted_again_and_again_is_one_row_and_one_alarm_where_it_ends_nothing(
    until: State,
) -> None:
    with keydesk(begun(until)) as desk:
        for _ in range(OFTEN):
            desk.ask("exposed", where="prompt")
            with pytest.raises(ControlError, match="spoiled"):
                desk.ask("begin", "li", order=PASTED)
        assert [row["person"] for row in desk.rows("trouble")] == ["prompt", "socket"]
        assert [row["word"] for row in desk.rows("alarm")] == ["exposed", "exposed"]
        desk.stage.conducting.call(desk.stage.conducting.part)
        assert [row.get("count") for row in desk.rows("trouble")] == [None, None, OFTEN - 1, OFTEN - 1]


def test_in_a_ceremony_it_ends_it_however_often_it_was_told_just_now() -> None:
    with keydesk(begun(State.CLOSED)) as desk:
        desk.ask("exposed", where="prompt")
        desk.ask("exposed", where="prompt")
    stage = begun(State.PART)
    stage.conducting.repeats = desk.stage.conducting.repeats
    with keydesk(stage) as desk:
        desk.ask("exposed", where="prompt")
        assert desk.stage.conducting.ceremony.cause == "exposed"
        assert desk.rows("aborted")[0]["spoiled"] == ["ENV-1"]


def test_who_stops_what_cannot_be_stopped_is_one_row() -> None:
    with keydesk(begun(State.DESTROY)) as desk:
        for _ in range(OFTEN):
            desk.ask("abort")
        assert [row["cause"] for row in desk.rows("trouble")] == ["abandoned"]
        assert desk.stage.state() is State.DESTROY


def test_names_that_nobody_has_are_one_row_and_lock_nobody() -> None:
    with keydesk(begun(State.CLOSED)) as desk:
        for n in range(OFTEN):
            with pytest.raises(ControlError, match="name or password is wrong"):
                desk.ask("begin", f"nobody{n}", order="ORD-2")
        assert [(row["person"], row["result"]) for row in desk.rows("login")] == [("withheld", "wrong")]
        assert not desk.rows("alarm")


def test_blocks_that_are_not_the_orders_are_one_row_and_each_is_refused() -> None:
    stage = begun(State.CLOSED)
    stage.load(fresh(block_order(kcv=kcv(KEY_PARTS[0]))), State.BLOCK)
    with keydesk(stage) as desk:
        for _ in range(OFTEN):
            told = desk.ask("block", data=OTHER)
            assert [line["tell"]["word"] for line in told if "tell" in line] == ["other_block"]
        assert [row["reason"] for row in desk.rows("refused")] == ["other_block"]
        assert desk.stage.state() is State.BLOCK
        assert BLOCK not in desk.stage.conducting._blocks


def test_a_ceremony_that_was_never_begun_is_not_stopped() -> None:
    with keydesk(Stage()) as desk:
        for _ in range(OFTEN):
            with suppress(ControlError):
                desk.ask("abort")
        assert not desk.stage.conducting.rows
