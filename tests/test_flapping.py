"""When a point flaps and when it has come to rest, in virtual time."""

from agent.flapping import CHANGES, STEADY, WINDOW, Flapping
from agent.model import Change, Value


def change(value: Value | None, was: Value | None, at: float, point: str = "printer.cover") -> Change:
    return Change("p", point, value, was, at)


def chatter(flapping: Flapping, times: int, begin: float, gap: float) -> list[int]:
    words = ["open", "closed"]
    return [flapping.take(change(words[n % 2], words[1 - n % 2], begin + n * gap)) for n in range(times)]


def test_three_times_there_and_back_within_a_minute_is_flapping() -> None:
    assert chatter(Flapping(), 9, 0.0, 10.0) == [0] * (CHANGES - 1) + [6, 7, 8, 9]


def test_as_often_in_more_than_a_minute_is_not() -> None:
    assert chatter(Flapping(), 20, 0.0, WINDOW / (CHANGES - 1) + 0.1) == [0] * 20


def test_other_words_of_the_point_do_not_count_and_are_not_hidden() -> None:
    flapping = Flapping()
    for n in range(20):
        value, was = ("deviceBusy", "online") if n % 2 else ("online", "deviceBusy")
        flapping.take(change(value, was, n * 1.0, "device.state"))
    assert flapping.take(change("hardwareError", "deviceBusy", 20.0, "device.state")) == 0


def test_unknown_and_known_again_is_no_change() -> None:
    flapping = Flapping()
    for n in range(20):
        assert flapping.take(change("open" if n % 2 else None, None if n % 2 else "open", n * 1.0)) == 0


def test_counters_that_step_do_not_flap() -> None:
    flapping = Flapping()
    assert {flapping.take(change(n % 2, 1 - n % 2, n * 0.1, "cassette.1.dispensed")) for n in range(50)} == {0}


def test_it_has_come_to_rest_after_a_minute_without_that_change() -> None:
    flapping = Flapping()
    chatter(flapping, 8, 0.0, 1.0)
    assert flapping.rested(7.0 + STEADY - 0.1) == []
    assert flapping.deadline() == 7.0 + STEADY
    assert flapping.rested(7.0 + STEADY) == [(change("closed", "open", 7.0), 8)]
    assert flapping.deadline() == float("inf")
    assert chatter(flapping, 1, 100.0, 1.0) == [0], "and begins anew"


def test_a_point_that_went_elsewhere_has_said_so_itself() -> None:
    flapping = Flapping()
    chatter(flapping, 8, 0.0, 1.0)
    flapping.take(change(None, "closed", 20.0))
    assert flapping.rested(7.0 + STEADY) == []


def test_what_never_flapped_is_forgotten_in_silence() -> None:
    flapping = Flapping()
    chatter(flapping, 3, 0.0, 1.0)
    assert flapping.rested(1000.0) == []
    assert flapping.deadline() == float("inf")
