"""Readings in, changes out: deadband, tallies, and values that become unknown, in virtual time."""

from agent.model import Change, Reading
from agent.watch import Watch


def test_only_a_difference_is_news() -> None:
    watch = Watch({})
    assert watch.take("p", Reading("paper.receipt", "full", 1.0)) == Change("p", "paper.receipt", "full", None, 1.0)
    assert watch.take("p", Reading("paper.receipt", "full", 2.0)) is None
    change = watch.take("p", Reading("paper.receipt", "low", 3.0, raw="1E"))
    assert change == Change("p", "paper.receipt", "low", "full", 3.0, "1E")


def test_a_measure_moves_only_by_more_than_its_deadband() -> None:
    watch = Watch({})
    watch.take("u", Reading("input.voltage", 220.0, 1.0))
    assert watch.take("u", Reading("input.voltage", 223.0, 2.0)) is None
    assert watch.take("u", Reading("input.voltage", 223.1, 3.0)) is not None
    assert watch.take("u", Reading("input.voltage", 220.5, 4.0)) is None, "the band moves with the last news"


def test_a_tally_adds_up_also_over_a_restart() -> None:
    watch = Watch({("d", "cassette.1.dispensed"): 40})
    watch.take("d", Reading("cassette.1.dispensed", 0, 1.0))
    change = watch.take("d", Reading("cassette.1.dispensed", 5, 2.0))
    assert change is not None
    assert (change.value, change.was) == (45, 40)
    assert watch.take("d", Reading("cassette.1.dispensed", 0, 3.0)) is None


def test_an_unrepeated_value_becomes_unknown_once() -> None:
    watch = Watch({})
    watch.take("p", Reading("paper.receipt", "low", 100.0))
    assert watch.deadline() == 115.0
    assert watch.expire(115.0) == []
    assert watch.expire(115.1) == [Change("p", "paper.receipt", None, "low", 100.0)]
    assert watch.expire(200.0) == []
    assert watch.deadline() == float("inf")


def test_what_comes_back_unchanged_is_known_again_and_what_differs_has_changed() -> None:
    watch = Watch({})
    watch.take("p", Reading("paper.receipt", "low", 0.0))
    watch.take("p", Reading("printer.cover", "closed", 0.0))
    assert len(watch.expire(16.0)) == 2
    back = watch.take("p", Reading("paper.receipt", "low", 20.0))
    assert back is not None
    assert (back.value, back.was) == ("low", None)
    other = watch.take("p", Reading("printer.cover", "open", 20.0))
    assert other is not None
    assert (other.value, other.was) == ("open", "closed")


def test_values_of_an_earlier_run_are_unknown_until_read_but_still_compared() -> None:
    watch = Watch({("p", "printer.cover"): "closed"})
    assert watch.expire(1e9) == []
    change = watch.take("p", Reading("printer.cover", "open", 1.0))
    assert change is not None
    assert change.was == "closed"


def test_points_of_a_silent_device_go_together() -> None:
    watch = Watch({})
    watch.take("p", Reading("paper.receipt", "full", 0.0))
    watch.take("p", Reading("printer.cover", "closed", 2.0))
    watch.take("p", Reading("link.state", "silent", 14.0))
    assert [c.point for c in watch.expire(15.1)] == ["paper.receipt", "printer.cover"]
    watch.take("q", Reading("paper.receipt", "full", 100.0))
    watch.take("q", Reading("printer.cover", "closed", 102.0))
    watch.take("q", Reading("link.state", "up", 114.0))
    gone = [c.point for c in watch.expire(115.1) if c.device == "q"]
    assert gone == ["paper.receipt"], "a device that answers may yet answer this"
