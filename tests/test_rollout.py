"""A rollout in virtual time: its stages, who is waited for, what stops it, and what is kept of it."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.centre.rollout import Answer, Ask, Done, Offline, Rollout, Send, Stop, loaded, staged

COMMITTED = Answer("committed")
PATIENCE = 10.0


def rollout(*stages: str, offline: Offline = "wait", online: str = "ABCDEFGH", most: int = 50) -> Rollout:
    """Terminals are letters."""
    one = Rollout(stages, PATIENCE, offline, most)
    for name in online:
        one.seen(name, True)
    return one


def sends(one: Rollout, now: float = 0.0) -> str:
    return "".join(action.terminal for action in one.advance(now) if isinstance(action, Send))


def test_a_stage_begins_when_everybody_before_has_committed() -> None:
    one = rollout("A", "BC", "D")
    assert sends(one) == "A"
    assert one.advance(1.0) == []
    one.heard("A", COMMITTED, 2.0)
    assert sends(one, 2.0) == "BC"
    one.heard("B", COMMITTED, 3.0)
    assert one.advance(3.0) == []
    one.heard("C", COMMITTED, 4.0)
    assert sends(one, 4.0) == "D"
    one.heard("D", COMMITTED, 5.0)
    assert one.advance(5.0) == [Done()]
    assert one.count("committed") == 4


@pytest.mark.parametrize("word", ["rolled_back", "refused", "failed", "overtaken"])
def test_the_first_that_goes_wrong_stops_it(word: str) -> None:
    one = rollout("A", "BC", "D")
    sends(one)
    one.heard("A", COMMITTED, 0.0)
    sends(one)
    one.heard("B", COMMITTED, 0.0)
    one.heard("C", Answer(word, "silent", "ups1"), 0.0)
    assert one.advance(0.0) == [Stop(("C",))]
    one.heard("C", COMMITTED, 1.0)
    assert one.advance(1.0) == [Stop(("C",))], "it does not go on by itself"
    assert one.places["C"].answer == Answer(word, "silent", "ups1")
    assert one.places["D"].state == "later"


def test_silence_is_told_with_what_was_last_known() -> None:
    one = rollout("ABC", online="AB")
    assert sends(one, 100.0) == "ABC"
    one.heard("A", Answer("waiting", "frozen", "until tomorrow"), 101.0)
    assert one.advance(109.9) == []
    assert one.advance(110.0) == [Stop(("A", "B", "C"))]
    said = {name: (place.answer.word, place.answer.reason) for name, place in one.places.items()}
    assert said == {"A": ("silent", "frozen"), "B": ("silent", "silent"), "C": ("silent", "offline")}
    assert one.places["A"].answer.detail == "until tomorrow"


def test_who_applies_has_the_whole_patience_once_more_and_no_more() -> None:
    one = rollout("A")
    sends(one)
    one.heard("A", Answer("applying"), 9.0)
    assert one.advance(18.9) == []
    one.heard("A", Answer("waiting", "busy"), 18.9)
    one.heard("A", Answer("applying"), 18.9)
    assert one.advance(19.0) == [Stop(("A",))]


def test_who_has_it_already_is_not_sent_to() -> None:
    one = rollout("A", "BC")
    one.heard("A", COMMITTED, 0.0)
    one.heard("B", COMMITTED, 0.0)
    assert sends(one) == "C"


def test_who_has_rolled_it_back_before_stops_it_before_anybody_is_sent_to() -> None:
    one = rollout("A", "BC")
    one.heard("C", Answer("rolled_back"), 0.0)
    assert one.advance(0.0) == [Stop(("C",))]


def test_a_refusal_of_an_earlier_envelope_does_not_count_until_it_comes_again() -> None:
    """The same content with one signature was refused before; now it has two."""
    one, before = rollout("A"), Answer("refused", "too_few", at=1000, lasts=False)
    one.heard("A", before, 0.0)
    assert sends(one) == "A"
    one.heard("A", before, 1.0)  # retained, and heard again
    assert one.advance(1.0) == []
    one.heard("A", Answer("refused", "too_few", at=2000, lasts=False), 2.0)
    assert one.advance(2.0) == [Stop(("A",))]


def test_a_way_back_after_the_commit_stops_it_too() -> None:
    one = rollout("A", "B", "C")
    sends(one)
    one.heard("A", COMMITTED, 0.0)
    sends(one)
    one.heard("A", Answer("overtaken"), 0.0)
    assert one.places["A"].state == "committed", "a newer push does not make this one doubtful"
    one.heard("A", Answer("rolled_back", "technician"), 0.0)
    assert one.advance(0.0) == [Stop(("A",))]


def test_offline_ones_are_skipped_when_that_is_wanted() -> None:
    one = rollout("A", "BC", "D", offline="send", online="AB")
    assert sends(one) == "A"
    one.heard("A", COMMITTED, 0.0)
    assert sends(one) == "BC", "the broker keeps it for C"
    one.heard("B", COMMITTED, 0.0)
    assert sends(one) == "D"
    assert one.advance(0.0) == [Done()]
    assert [name for name, place in one.places.items() if place.state == "skipped"] == ["C", "D"]


def test_a_command_goes_to_nobody_who_is_offline() -> None:
    one = rollout("A", "BC", offline="leave", online="AB")
    assert sends(one) == "A"
    one.heard("A", COMMITTED, 0.0)
    assert sends(one) == "B"


def test_while_nobody_has_shown_that_it_does_no_harm_no_second_stage_begins() -> None:
    one = rollout("A", "BC", offline="send", online="")
    assert sends(one) == "A"
    assert one.advance(0.0) == [Stop(("A",))]
    assert one.places["A"].answer.reason == "unproven"
    assert one.places["B"].state == "later"


def test_a_skipped_one_that_rolls_back_later_stops_it() -> None:
    one = rollout("A", "B", "C", offline="send", online="AC")
    sends(one)
    one.heard("A", COMMITTED, 0.0)
    assert sends(one) == "B"
    assert sends(one) == "C"
    one.heard("B", Answer("rolled_back"), 0.0)
    assert one.advance(0.0) == [Stop(("B",))]


def test_a_person_is_asked_before_a_large_stage() -> None:
    one = rollout("A", "BCD", "EFGH", most=3)
    sends(one)
    one.heard("A", COMMITTED, 0.0)
    assert sends(one) == "BCD"
    for name in "BCD":
        one.heard(name, COMMITTED, 0.0)
    assert one.advance(0.0) == [Ask(3, 4)]
    assert one.advance(1.0) == [Ask(3, 4)]
    one.allow()
    assert sends(one) == "EFGH"


def test_who_was_not_reached_in_the_end_is_said_to_be_so() -> None:
    one = rollout("ABC")
    sends(one)
    one.withdraw(["C"])
    assert [place.state for place in one.places.values()] == ["sent", "sent", "later"]


def test_a_kept_rollout_goes_on_where_it_was() -> None:
    one = rollout("A", "BC", "D")
    sends(one)
    one.heard("A", COMMITTED, 0.0)
    sends(one)
    one.heard("B", COMMITTED, 0.0)
    one.advance(PATIENCE)
    kept = json.loads(json.dumps(one.saved()))
    assert kept["failed"] == {"C": {"word": "silent", "reason": "silent", "detail": ""}}
    stages, committed = loaded(kept)
    again = rollout(*map("".join, stages))
    again.resume(committed)
    assert sends(again, 500.0) == "C"
    again.heard("C", COMMITTED, 501.0)
    assert sends(again, 501.0) == "D"
    again.heard("D", COMMITTED, 502.0)
    assert again.advance(502.0) == [Done()]


@pytest.mark.parametrize(
    "found", [{}, {"stages": [["A"]]}, {"stages": "A", "committed": []}, {"stages": [[1]], "committed": []}]
)
def test_what_is_no_kept_rollout_is_not_taken_for_one(found: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no stages"):
        loaded(found)


@pytest.mark.parametrize(
    ("plan", "many", "sizes"),
    [
        ("1,5,rest", 20, [1, 5, 14]),
        ("1,5,rest", 6, [1, 5]),
        ("1,5,rest", 3, [1, 2]),
        ("1, 10%, rest", 25, [1, 3, 21]),
        ("1%,50%,rest", 4, [1, 2, 1]),
        ("100%,rest", 7, [7]),
        ("rest", 2, [2]),
        ("1,rest", 0, []),
    ],
)
def test_plans(plan: str, many: int, sizes: list[int]) -> None:
    names = [f"T{number}" for number in range(many)]
    stages = staged(names, plan)
    assert [len(stage) for stage in stages] == sizes
    assert [name for stage in stages for name in stage] == names


@pytest.mark.parametrize(
    "plan", ["", "1,5", "0,rest", "-1,rest", "101%,rest", "rest,rest", "1,,rest", "1.5,rest", "٣,rest"]
)
def test_plans_that_are_none(plan: str) -> None:
    with pytest.raises(ValueError, match="rest"):
        staged(["A"], plan)


def test_nobody_stands_in_two_stages() -> None:
    with pytest.raises(ValueError, match="one stage"):
        Rollout(["AB", "B"])


WORDS = ("committed", "applying", "waiting", "rolled_back", "refused", "failed", "overtaken")
ANSWERS = st.builds(
    Answer, st.sampled_from(WORDS), st.sampled_from(["", "frozen"]), at=st.integers(0, 2), lasts=st.booleans()
)
EVENTS = st.one_of(
    st.tuples(st.just("heard"), st.sampled_from("ABCDEFGHX"), ANSWERS),
    st.tuples(st.just("online"), st.sampled_from("ABCDEFGHX"), st.booleans()),
    st.tuples(st.just("later"), st.just(""), st.floats(0.0, 6.0)),
)
SIZES = st.lists(st.integers(1, 2), min_size=2, max_size=4)


@settings(max_examples=150)
@given(
    SIZES,
    st.sampled_from(["wait", "send", "leave"]),
    st.lists(EVENTS, max_size=40),
    st.integers(1, 4),
    st.booleans(),
)
def test_whatever_happens_nobody_is_sent_to_too_early_and_every_run_ends(
    sizes: list[int], offline: Offline, events: list[tuple[str, str, Any]], most: int, well: bool
) -> None:
    """`well`: who has been sent to commits in the end, so that later stages are reached."""
    names = iter("ABCDEFGH")
    one = Rollout([[next(names) for _ in range(size)] for size in sizes], PATIENCE, offline, most)
    now, was_sent = 0.0, set[str]()

    def go_on() -> None:
        for action in one.advance(now):
            match action:
                case Send(terminal=name, stage=stage):
                    before = [place for place in one.places.values() if place.stage < stage]
                    assert all(place.state in ("committed", "skipped") for place in before)
                    assert stage == 1 or any(place.state == "committed" for place in one.places.values())
                    assert offline != "wait" or all(place.state == "committed" for place in before)
                    assert offline != "leave" or one.places[name].online
                    assert name not in was_sent, "nobody is sent to twice in one run"
                    was_sent.add(name)
                case Ask():
                    one.allow()

    for what, name, content in events:
        go_on()
        if what == "heard":
            one.heard(name, content, now)
        elif what == "online":
            one.seen(name, content)
        else:
            now += content
    for _ in range(3 * len(sizes) + 3):
        go_on()
        go_on()
        for name in was_sent if well else ():
            one.heard(name, COMMITTED, now)
        now += PATIENCE
    assert one.ended
    if one.ended == Done():
        assert all(place.state in ("committed", "skipped") for place in one.places.values())
    else:
        assert one.ended.terminals  # type: ignore[union-attr]
    assert loaded(json.loads(json.dumps(one.saved())))[0] == [list(stage) for stage in one.stages]
