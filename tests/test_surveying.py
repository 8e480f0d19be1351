"""One look at the key slots: one question at a time, and what makes it worthless. Time is a number."""

from typing import Any

import pytest

from agent.crypto.guards import Seen
from agent.crypto.kcv import Kcv
from agent.keys.surveying import PATIENCE, Survey
from agent.model import Outcome


def answer(survey: Survey, result: str = "done", now: float = 0.0, **facts: Any) -> bool:
    """Ask what is next, and let the device answer so."""
    slot = survey.next(now)
    return survey.take(Outcome(survey.id_of(slot), result, "", now, facts=facts))


def test_slots_are_asked_one_after_the_other_each_once() -> None:
    survey = Survey("~look-1", ["TPK", "TMK", "TPK"])
    assert survey.next(0.0) == "TMK"
    assert survey.next(1.0) == ""
    assert survey.take(Outcome("~look-1.TMK", "done", "", 1.0, facts={"state": "missing"}))
    assert not survey.done
    assert survey.next(1.0) == "TPK"
    assert survey.take(Outcome("~look-1.TPK", "done", "", 1.0, facts={"state": "loaded", "kcv": "08D7B4"}))
    assert survey.done
    assert survey.good
    assert survey.next(2.0) == ""
    assert survey.seen == {"TMK": Seen("missing"), "TPK": Seen("loaded", Kcv.parse("08D7B4"))}


@pytest.mark.parametrize("id", ["~look-2.TMK", "~look-1.TPK", "TMK", "KO-1.1", ""])
def test_an_answer_to_something_else_is_not_taken(id: str) -> None:
    survey = Survey("~look-1", ["TMK", "TPK"])
    assert survey.next(0.0) == "TMK"
    assert not survey.take(Outcome(id, "done", "", 0.0, facts={"state": "loaded"}))
    assert not survey.seen
    assert survey.next(0.0) == ""


def test_an_answer_is_taken_once() -> None:
    survey = Survey("~look-1", ["TMK"])
    assert answer(survey, state="missing")
    assert not survey.take(Outcome("~look-1.TMK", "done", "", 0.0, facts={"state": "loaded"}))
    assert survey.seen == {"TMK": Seen("missing")}


def test_a_question_that_is_not_answered_in_time_makes_the_look_worthless() -> None:
    survey = Survey("~look-1", ["TMK", "TPK"])
    assert answer(survey, state="missing")
    survey.next(10.0)
    survey.next(9.9 + PATIENCE)
    assert not survey.done
    assert survey.next(10.0 + PATIENCE) == ""
    assert survey.done
    assert not survey.good


@pytest.mark.parametrize(
    ("result", "facts"),
    [
        ("unanswered", {}),
        ("failed", {"state": "loaded"}),
        ("done", {}),
        ("done", {"state": "0123456789ABCDEF"}),
        ("done", {"kcv": "08D7B4"}),
    ],
    ids=str,
)
def test_an_answer_that_tells_nothing_makes_the_look_worthless(result: str, facts: dict[str, Any]) -> None:
    survey = Survey("~look-1", ["TMK", "TPK"])
    answer(survey, result, **facts)
    assert survey.done
    assert not survey.good
    assert not survey.seen


def test_a_slot_of_which_the_device_does_not_speak_is_left_out() -> None:
    survey = Survey("~look-1", ["TMK", "TPK"])
    answer(survey, "refused", state="untold")
    assert not survey.done
    answer(survey, state="missing")
    assert survey.good
    assert survey.silent == ["TMK"]
    assert survey.seen == {"TPK": Seen("missing")}


def test_a_device_that_can_never_tell_of_any_slot_has_been_looked_at() -> None:
    survey = Survey("~look-1", ["TMK", "TPK"])
    answer(survey, "refused", state="untold")
    answer(survey, "refused", state="untold")
    assert survey.good
    assert survey.silent == ["TMK", "TPK"]
    assert not survey.seen


def test_a_question_that_was_not_asked_makes_the_look_worthless() -> None:
    survey = Survey("~look-1", ["TMK", "TPK"])
    answer(survey, state="missing")
    answer(survey, "refused")  # as a link does when its line is lost
    assert survey.done
    assert not survey.good


def test_a_look_at_nothing_is_good() -> None:
    survey = Survey("~look-1", [])
    assert survey.next(0.0) == ""
    assert survey.good


def test_a_check_value_is_of_the_method_of_its_key() -> None:
    survey = Survey("~look-1", ["AES", "TMK"], cmac=["AES"])
    answer(survey, state="loaded", kcv="08D7B4", usage="K0")
    answer(survey, state="loaded", kcv="08d7 b4", usage="P0")
    assert survey.seen == {
        "AES": Seen("loaded", Kcv.parse("08D7B4", "cmac"), "K0"),
        "TMK": Seen("loaded", Kcv.parse("08D7B4"), "P0"),
    }


def test_nothing_is_believed_that_does_not_belong_there() -> None:
    survey = Survey("~look-1", ["TMK"])
    answer(survey, state="loaded", kcv="0123456789ABCDEF0123456789ABCDEF", usage="0123456789ABCDEF")
    assert survey.seen == {"TMK": Seen("loaded")}
