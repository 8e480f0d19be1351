"""Time lines, and one device on its line, in virtual time."""

import re
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hwsim import change_setting
from hwsim.line import LINE_FAULTS, Line
from hwsim.scenario import Act, Scenario, Step, in_time
from tests.echo import Echo, Payer


def step(at: float, device: str = "e1", **more: Any) -> Step:
    return Step(at=at, device=device, line="good", **more)


def test_steps_are_due_once_in_the_order_of_time_then_of_the_file() -> None:
    late, first, second = step(5.0, "late"), step(1.0, "first"), step(1.0, "second")
    scenario = Scenario([late, first, second])
    assert scenario.next == 1.0
    assert scenario.due(0.99) == []
    assert scenario.due(1.0) == [first, second]
    assert scenario.due(1.0) == []
    assert scenario.next == 5.0
    assert scenario.due(100.0) == [late]
    assert scenario.next is None
    assert in_time([late, first, second]) == [first, second, late]


def test_a_repeated_step_runs_so_often_and_keeps_its_beat() -> None:
    scenario = Scenario([step(1.0, repeat_every=0.1, times=4), step(1.15, "other")])
    names = [(now / 100, s.device) for now in range(0, 300, 5) for s in scenario.due(now / 100)]
    assert names == [(1.0, "e1"), (1.1, "e1"), (1.15, "other"), (1.2, "e1"), (1.3, "e1")]


def test_a_late_look_gives_every_run_that_was_missed() -> None:
    scenario = Scenario([step(0.0, repeat_every=1.0)])
    assert len(scenario.due(9.5)) == 10
    assert scenario.next == 10.0


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0.5, 9), st.integers(1, 9)), max_size=9), st.floats(0.1, 7))
def test_how_often_one_looks_makes_no_difference(plan: list[tuple[float, float, int]], pace: float) -> None:
    steps = [step(at, str(i), repeat_every=every, times=times) for i, (at, every, times) in enumerate(plan)]
    whole, bit, now = Scenario(steps).due(200.0), Scenario(steps), 0.0
    seen = []
    while bit.next is not None:
        now += pace
        seen += bit.due(now)
    assert seen == whole
    assert len(whole) == sum(times for _, _, times in plan)


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        ({}, "give exactly one of set, line, withdraw"),
        ({"line": "cut", "set": {"a": 1}}, "give exactly one of"),
        ({"line": "explode"}, "there is no line fault 'explode'; there are: unplug, replug"),
        ({"line": "delay"}, "delay wants a value in seconds"),
        ({"line": "delay", "value": -1}, "it can be 0 to 3600"),
        ({"line": "half", "value": 2}, "half cannot be 2; it can be 0 to 1"),
        ({"line": "cut", "value": 1}, "cut takes no value"),
        ({"set": {"a": 1}, "value": 1}, "value belongs to line"),
        ({"line": "unplug", "kind": "ups"}, "kind belongs to"),
        ({"withdraw": {"position": 0, "count": 1}}, "greater than or equal to 1"),
    ],
)
def test_an_act_that_makes_no_sense_is_refused_with_the_reason(act: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(sentence)):
        Act.model_validate({"device": "e1", **act})


def test_times_without_an_interval_is_refused() -> None:
    with pytest.raises(ValidationError, match="times needs repeat_every"):
        step(1.0, times=3)


def quiet_line(**faults: float | None) -> Line:
    line = Line(Echo(), Random(3))
    for word, value in faults.items():
        line.set_fault(word, value)
    return line


def test_a_good_line_answers_in_the_same_instant() -> None:
    line = quiet_line()
    line.hear(b"hello\n", 1.0)
    assert line.step(1.0) == [b"red:hello\n"]
    change_setting(line.device, "colour", "green")
    assert line.step(1.0) == [b"now green\n"]
    assert line.next_due is None


def test_a_silent_device_hears_and_says_nothing() -> None:
    line = quiet_line(silent=None)
    line.hear(b"hel", 1.0)
    assert line.step(1.0) == []
    line.set_fault("good")
    line.hear(b"lo\n", 2.0)
    assert line.step(2.0) == [b"red:hello\n"]


def test_faults_work_in_both_directions_and_add_up_until_good() -> None:
    line = quiet_line(delay=2.0, bytewise=None)
    assert line.faults == ["bytewise", "delay 2"]
    line.hear(b"a\n", 0.0)
    assert line.step(1.9) == []
    assert line.next_due == 2.0
    assert line.step(2.5) == []
    assert b"".join(line.step(4.6)) == b"red:a\n"
    line.set_fault("good")
    assert line.faults == []
    line.hear(b"b\n", 9.0)
    assert line.step(9.0) == [b"red:b\n"]


def test_a_cut_line_says_nothing_and_half_loses_the_end() -> None:
    line = quiet_line(cut=None)
    line.hear(b"a\n", 0.0)
    assert line.step(1.0) == []
    line = quiet_line(half=None)
    line.hear(b"a\nbc", 0.0)
    assert line.step(0.0) == [b"red"]


def test_damage_and_noise_reach_the_host() -> None:
    for word in ("damage", "noise"):
        line = quiet_line(**{word: None})
        change_setting(line.device, "colour", "green")
        assert b"".join(line.step(0.0)) != b"now green\n"


def test_messages_of_one_merge_window_arrive_as_one() -> None:
    line = quiet_line(merge=0.2)
    change_setting(line.device, "colour", "green")
    assert line.step(0.0) == []
    change_setting(line.device, "colour", "red")
    assert line.step(0.1) == []
    assert line.step(0.2) == [b"now green\nnow red\n"]


def test_every_fault_word_that_shapes_the_wire_shows_and_ends_with_good() -> None:
    for word, fault in LINE_FAULTS.items():
        if word in ("unplug", "replug", "good"):
            continue
        line = quiet_line(**{word: 1.0 if fault.most else None})
        assert [shown.split()[0] for shown in line.faults] == [word]
        line.set_fault("good")
        assert line.faults == []


def test_a_wrong_speed_is_rubbish_of_the_same_length() -> None:
    line = quiet_line()
    assert line.at_speed(b"hello", 9600) == b"hello"
    assert line.at_speed(b"hello", None) == b"hello"
    rubbish = line.at_speed(b"hello", 2400)
    assert rubbish != b"hello"
    assert len(rubbish) == 5
    assert quiet_line().at_speed(b"hello", 2400) == rubbish, "the same seed, the same rubbish"


def test_a_tap_shows_both_directions_in_order_and_ignores_writes() -> None:
    line = Line(Echo(), Random(0), master := Payer())
    assert line.step(0.0) == []
    master.withdraw(1, 5)
    assert line.step(0.1) == [b"pay 1 5\n", b"red:pay 1 5\n", b"thanks\n", b"red:thanks\n"]
    assert not master.busy
    line.hear(b"hello\n", 0.2)
    assert line.step(0.2) == []
    assert line.violations == 1


def test_a_bad_tap_does_not_disturb_the_master() -> None:
    line = Line(Echo(), Random(0), master := Payer())
    line.set_fault("cut")
    master.withdraw(1, 5)
    assert line.step(0.1) == []
    assert not master.busy


def test_a_device_that_is_silent_leaves_its_master_waiting() -> None:
    line = Line(Echo(), Random(0), master := Payer())
    line.set_fault("silent")
    master.withdraw(1, 5)
    assert line.step(0.1) == [b"pay 1 5\n"]
    assert master.busy


class Stubborn(Payer):
    """A master that never lets the other have the last word."""

    def receive(self, data: bytes) -> bytes:
        return b"again\n"


def test_two_ends_that_never_end_do_not_stop_the_others() -> None:
    line = Line(Echo(), Random(0), master := Stubborn())
    master.withdraw(1, 1)
    assert len(line.step(0.0)) < 200
