"""The catalogue, and faults raised and cleared in virtual time."""

from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import ConfigError
from agent.faults import Catalogue, Faults, parse
from agent.model import Change, Fault, Value

CATALOGUE = parse(resources.files("agent").joinpath("faults.toml").read_text("utf-8"))


def change(point: str, value: Value | None, at: float, was: Value | None = None) -> Change:
    return Change("dev", point, value, was, at, "raw")


def test_a_fault_is_raised_once_and_cleared_once() -> None:
    faults = Faults(CATALOGUE)
    assert faults.take(change("paper.receipt", "out", 10.0), 10.0) == []
    raised = faults.due(10.0, 1_000_000)
    assert [f.code for f in raised] == ["paper.out"]
    assert faults.due(11.0, 1_001_000) == []
    assert faults.take(change("paper.receipt", "full", 12.0), 12.0) == raised
    assert faults.open() == []


def test_one_word_after_another_clears_the_one_and_raises_the_other() -> None:
    faults = Faults(CATALOGUE)
    faults.take(change("paper.receipt", "low", 1.0), 1.0)
    faults.due(1.0, 0)
    assert [f.code for f in faults.take(change("paper.receipt", "out", 2.0), 2.0)] == ["paper.low"]
    assert [f.code for f in faults.due(2.0, 0)] == ["paper.out"]


def test_a_word_that_does_not_last_raises_nothing() -> None:
    faults = Faults(CATALOGUE)
    faults.take(change("mains", "lost", 0.0), 0.0)
    assert faults.deadline() == 2.0
    assert faults.due(1.9, 0) == []
    faults.take(change("mains", "ok", 1.95), 1.95)
    assert faults.due(10.0, 0) == []


def test_since_is_when_it_was_seen_not_when_it_was_sure() -> None:
    faults = Faults(CATALOGUE)
    faults.take(change("mains", "lost", 100.0), 100.0)
    assert faults.due(102.0, 5_000_000)[0].since == 4_998_000


def test_not_seeing_is_not_being_well() -> None:
    faults = Faults(CATALOGUE)
    faults.take(change("paper.receipt", "out", 0.0), 0.0)
    faults.due(0.0, 0)
    assert faults.take(change("paper.receipt", None, 20.0, "out"), 20.0) == []
    assert [f.code for f in faults.open()] == ["paper.out"]
    faults.take(change("paper.receipt", "out", 30.0), 30.0)
    assert faults.due(31.0, 0) == [], "known again, and still the same fault"


def test_a_link_that_nobody_hears_of_is_a_fault() -> None:
    faults = Faults(CATALOGUE)
    faults.take(change("link.state", None, 0.0, "up"), 0.0)
    assert [f.code for f in faults.due(0.0, 0)] == ["link.stale"]


def test_each_unmapped_code_is_a_fault_of_its_own() -> None:
    faults = Faults(CATALOGUE)
    faults.take(change("dispenser.error", "vendor.5E", 0.0), 0.0)
    assert [(f.code, f.value) for f in faults.due(0.0, 0)] == [("unmapped", "vendor.5E")]
    assert len(faults.take(change("dispenser.error", "vendor.5F", 1.0), 1.0)) == 1
    assert [(f.code, f.value) for f in faults.due(1.0, 0)] == [("unmapped", "vendor.5F")]


def test_open_faults_of_an_earlier_run_are_not_raised_again() -> None:
    before = Fault("dev", "paper.receipt", "paper.out", "out", 77)
    faults = Faults(CATALOGUE, [before])
    assert faults.take(change("paper.receipt", "out", 0.0), 0.0) == []
    assert faults.due(1.0, 0) == []
    assert faults.take(change("paper.receipt", "full", 2.0), 2.0) == [before]


@given(
    st.lists(st.tuples(st.sampled_from(["full", "low", "out", "jammed", None]), st.floats(0.0, 5.0)), max_size=30)
)
def test_raised_and_cleared_always_alternate(story: list[tuple[str | None, float]]) -> None:
    faults, now, open_codes = Faults(CATALOGUE), 0.0, list[str]()
    for word, pause in story:
        now += pause
        for fault in faults.take(change("paper.receipt", word, now), now):
            open_codes.remove(fault.code)
        open_codes += [f.code for f in faults.due(now, 0)]
        assert len(open_codes) <= 1
        assert sorted(open_codes) == sorted(f.code for f in faults.open())


def test_a_code_of_an_older_catalogue_still_has_a_text() -> None:
    assert "older version" in Catalogue(()).by_code("gone").cause.en


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('[[fault]]\ncode = "x"\npoint = "mains"\nwhen = ["lost"]\n', "cause_en"),
        (
            '[[fault]]\ncode = "x"\npoint = "mians"\nwhen = ["lost"]\nseverity = "major"\nowner = "power"\n'
            'cause_en = ""\ncause_zh = ""\nhint_en = ""\nhint_zh = ""\n',
            "mians",
        ),
    ],
)
def test_a_mistake_in_the_catalogue_is_named(text: str, names: str) -> None:
    with pytest.raises(ConfigError, match=names):
        parse(text)
