"""Faults raised, cleared, kept open while they flap, and explained by a lost supply, in virtual time."""

from collections.abc import Iterable
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.catalogue import parse
from agent.clock import Instant
from agent.faults import FaultEvent, Faults, flaps
from agent.model import Change, Fault, Value
from agent.outage import AFTER, BEFORE, LATE, RETURN
from agent.state import published, shown

CATALOGUE = parse(resources.files("agent").joinpath("faults.toml").read_text("utf-8"))
Told = list[tuple[str, str]]


def change(point: str, value: Value | None, at: float, was: Value | None = None, device: str = "dev") -> Change:
    return Change(device, point, value, was, at, "raw")


def told(events: Iterable[FaultEvent]) -> Told:
    return [(event.kind, event.fault.code) for event in events]


class Terminal:
    """Faults stepped by hand, second by second; `say` is a change that is heard now."""

    def __init__(self) -> None:
        self.faults = Faults(CATALOGUE)
        self.now = 1000.0
        self.events: list[FaultEvent] = []

    def say(self, device: str, point: str, value: Value | None, flapping: int = 0) -> Told:
        begun = len(self.events)
        self.events += self.faults.take(change(point, value, self.now, device=device), self.now, flapping)
        self.events += self.faults.due(self.now, round(self.now * 1000))
        return told(self.events[begun:])

    def wait(self, seconds: float) -> Told:
        begun, end = len(self.events), self.now + seconds
        while self.faults.deadline() <= end:
            self.now = max(self.now, self.faults.deadline())
            self.events += self.faults.due(self.now, round(self.now * 1000))
        self.now = end
        return told(self.events[begun:])

    @property
    def open(self) -> list[str]:
        return [f.code for f in self.faults.open()]


# -- raised and cleared


def test_a_fault_is_raised_once_and_cleared_once() -> None:
    terminal = Terminal()
    assert terminal.say("p", "paper.receipt", "out") == [("raised", "paper.out")]
    assert terminal.wait(100.0) == []
    assert terminal.say("p", "paper.receipt", "full") == [("cleared", "paper.out")]
    assert terminal.open == []


def test_one_word_after_another_clears_the_one_and_raises_the_other() -> None:
    terminal = Terminal()
    terminal.say("p", "paper.receipt", "out")
    assert terminal.say("p", "paper.receipt", "jammed") == [("cleared", "paper.out"), ("raised", "paper.jammed")]


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
    assert faults.due(102.0, 5_000_000)[0].fault.since == 4_998_000


def test_not_seeing_is_not_being_well() -> None:
    terminal = Terminal()
    terminal.say("p", "paper.receipt", "out")
    assert terminal.say("p", "paper.receipt", None) == []
    assert terminal.open == ["paper.out"]
    assert terminal.say("p", "paper.receipt", "out") == [], "known again, and still the same fault"


def test_a_link_that_nobody_hears_of_is_a_fault() -> None:
    assert Terminal().say("p", "link.state", None) == [("raised", "link.stale")]


def test_each_unmapped_code_is_a_fault_of_its_own() -> None:
    terminal = Terminal()
    terminal.say("d", "dispenser.error", "vendor.5E")
    assert terminal.faults.open()[0].value == "vendor.5E"
    assert terminal.faults.open()[0].raw == "raw"
    assert terminal.say("d", "dispenser.error", "vendor.5F") == [("cleared", "unmapped"), ("raised", "unmapped")]
    assert terminal.faults.open()[0].value == "vendor.5F"


def test_open_faults_of_an_earlier_run_are_not_raised_again() -> None:
    before = Fault("dev", "paper.receipt", "paper.out", "out", 77)
    faults = Faults(CATALOGUE, [before])
    assert faults.take(change("paper.receipt", "out", 0.0), 0.0) == []
    assert faults.due(1.0, 0) == []
    assert faults.take(change("paper.receipt", "full", 2.0), 2.0) == [FaultEvent("cleared", before)]


@pytest.mark.parametrize(
    ("point", "word", "code"),
    [
        ("safe_door", "open", "door.safe_open"),
        ("cabinet_door.rear", "tampered", "door.tampered"),
        ("tamper", "on", "alarm.tamper"),
        ("seismic", "on", "alarm.seismic"),
        ("smoke", "on", "alarm.smoke"),
        ("acceptor.fraud", "attempt", "acceptor.fraud"),
        ("epp.tamper", "tampered", "epp.tampered"),
    ],
)
def test_doors_tamper_and_fraud_are_faults_at_once(point: str, word: str, code: str) -> None:
    assert Terminal().say("panel", point, word) == [("raised", code)]


# -- flapping: the caller (agent/core.py) says how often the point has changed


def test_a_fault_that_flaps_stays_open_and_keeps_its_count() -> None:
    terminal = Terminal()
    terminal.say("p", "printer.cover", "open")
    assert terminal.say("p", "printer.cover", "closed", 6) == [("flapping", "printer.cover_open")]
    for count in range(7, 40):
        assert terminal.say("p", "printer.cover", "open" if count % 2 else "closed", count) == []
    assert terminal.open == ["printer.cover_open"]
    assert flaps(terminal.faults.open()[0])
    assert terminal.say("p", "printer.cover", "closed") == [("cleared", "printer.cover_open")], (
        "it has come to rest"
    )
    assert terminal.events[-1].count == 39
    assert terminal.open == []


def test_a_fault_that_flaps_and_comes_to_rest_broken_goes_on() -> None:
    terminal = Terminal()
    terminal.say("p", "printer.cover", "open")
    terminal.say("p", "printer.cover", "closed", 6)
    terminal.say("p", "printer.cover", "open", 7)
    assert terminal.say("p", "printer.cover", "open") == [("steady", "printer.cover_open")]
    assert terminal.events[-1].count == 7
    assert not flaps(terminal.faults.open()[0])
    assert terminal.faults.open()[0].raw == "raw"


def test_what_flaps_faster_than_its_debounce_is_one_fault_all_the_same() -> None:
    terminal = Terminal()
    for _ in range(3):
        assert terminal.say("u", "mains", "lost") == []
        assert terminal.say("u", "mains", "ok") == []
    assert terminal.say("u", "mains", "lost", 7) == [("flapping", "power.mains_lost")]
    assert terminal.say("u", "mains", "ok", 8) == []
    assert terminal.open == ["power.mains_lost"]


def test_of_two_faults_that_take_turns_the_worse_one_stands() -> None:
    terminal = Terminal()
    terminal.say("p", "cassette.1.state", "low")
    terminal.say("p", "cassette.1.state", "low", 6)
    worse = terminal.say("p", "cassette.1.state", "empty", 7)
    assert worse == [("cleared", "cassette.low"), ("flapping", "cassette.empty")]
    assert terminal.say("p", "cassette.1.state", "low", 8) == []
    assert terminal.open == ["cassette.empty"]


def test_a_fault_that_flaps_says_so_on_the_wire_and_on_the_screen() -> None:
    for raw, flapping in (("flapping, 6 changes", True), ("7E", False)):
        fault = Fault("p", "printer.cover", "printer.cover_open", "open", 77, raw)
        (state,) = published([], {}, [fault], CATALOGUE, "s", Instant(0.0, 99)).faults
        (screen,) = shown([], {}, [fault], CATALOGUE, Instant(0.0, 99))["faults"]
        assert state.flapping is screen["flapping"] is flapping
        assert ("comes and goes" in screen["cause"]["en"]) is flapping
        assert ("时有时无" in screen["cause"]["zh"]) is flapping


def test_a_fault_that_flapped_in_an_earlier_run_begins_anew() -> None:
    before = Fault("dev", "printer.cover", "printer.cover_open", "open", 77, "flapping, 6 changes")
    faults = Faults(CATALOGUE, [before])
    assert told(faults.take(change("printer.cover", "open", 0.0), 0.0)) == [("steady", "printer.cover_open")]
    assert not flaps(faults.open()[0])


# -- a lost supply explains the devices that are dark


def test_lost_mains_is_one_fault_instead_of_ten() -> None:
    terminal = Terminal()
    terminal.say("ups", "mains", "lost")
    terminal.wait(10.0)
    for number, word in enumerate(["silent", "missing", "stale"] * 3):
        terminal.say(f"dev{number}", "link.state", word)
    terminal.say("dev9", "device.state", "powerOff")
    terminal.wait(3600.0)
    assert terminal.open == ["power.mains_lost"]
    explained = [e for e in terminal.events if e.kind == "explained"]
    assert {e.fault.device for e in explained} == {f"dev{n}" for n in range(10)}
    assert {e.by for e in explained} == {"ups"}
    assert len(explained) == 10


def test_a_silence_that_is_noticed_before_the_loss_is_taken_back() -> None:
    terminal = Terminal()
    assert terminal.say("p", "link.state", "silent") == [("raised", "link.silent")]
    terminal.wait(BEFORE - 1.0)
    assert terminal.say("ups", "mains", "lost") == [("explained", "link.silent")]
    terminal.wait(10.0)
    assert terminal.open == ["power.mains_lost"]


def test_a_loss_that_is_not_yet_sure_explains_already() -> None:
    terminal = Terminal()
    terminal.say("ups", "mains", "lost")
    assert terminal.say("p", "link.state", "silent") == [("explained", "link.silent")]


@pytest.mark.parametrize("early", [True, False])
def test_a_silence_outside_the_time_of_grace_has_its_own_cause(early: bool) -> None:
    terminal = Terminal()
    if early:
        terminal.say("p", "link.state", "silent")
        terminal.wait(BEFORE + 1.0)
        terminal.say("ups", "mains", "lost")
        terminal.wait(5.0)
    else:
        terminal.say("ups", "mains", "lost")
        terminal.wait(AFTER + 1.0)
        assert terminal.say("p", "link.state", "silent") == [("raised", "link.silent")]
    assert sorted(terminal.open) == ["link.silent", "power.mains_lost"]


def test_who_is_still_dark_a_minute_after_the_mains_is_back_has_a_fault_since_it_fell_silent() -> None:
    terminal = Terminal()
    terminal.say("ups", "mains", "lost")
    terminal.wait(10.0)
    dark = round(terminal.now * 1000)
    terminal.say("p", "link.state", "silent")
    terminal.say("q", "link.state", "silent")
    terminal.wait(600.0)
    terminal.say("ups", "mains", "ok")
    assert terminal.wait(RETURN - 1.0) == []
    terminal.say("q", "link.state", "up")
    assert terminal.wait(2.0) == [("raised", "link.silent")]
    assert [(f.device, f.since) for f in terminal.faults.open()] == [("p", dark)]


def test_a_link_that_comes_and_goes_while_the_mains_is_lost_is_explained_once() -> None:
    terminal = Terminal()
    terminal.say("ups", "mains", "lost")
    events = []
    for _ in range(10):
        events += terminal.say("p", "link.state", "silent")
        terminal.wait(3.0)
        events += terminal.say("p", "link.state", "up")
        terminal.wait(3.0)
    assert events == [("explained", "link.silent")]


def test_who_goes_dark_only_when_the_mains_is_back_has_a_fault_of_its_own() -> None:
    terminal = Terminal()
    terminal.say("ups", "mains", "lost")
    terminal.wait(5.0)
    terminal.say("ups", "mains", "ok")
    terminal.wait(LATE - 1.0)
    assert terminal.say("p", "link.state", "silent") == [("explained", "link.silent")]
    terminal.wait(2.0)
    assert terminal.say("q", "link.state", "silent") == [("raised", "link.silent")]


def test_another_word_for_the_same_darkness_stays_explained() -> None:
    terminal = Terminal()
    terminal.say("ups", "mains", "lost")
    terminal.say("p", "link.state", "silent")
    terminal.wait(AFTER + 60.0)
    terminal.say("p", "link.state", "missing")
    terminal.wait(60.0)
    assert terminal.open == ["power.mains_lost"]


def test_mains_that_fails_again_before_all_have_returned_goes_on_explaining() -> None:
    terminal = Terminal()
    terminal.say("ups", "mains", "lost")
    terminal.say("p", "link.state", "silent")
    terminal.wait(300.0)
    terminal.say("ups", "mains", "ok")
    terminal.wait(RETURN / 2)
    terminal.say("ups", "mains", "lost")
    terminal.say("p", "link.state", "missing")
    terminal.wait(600.0)
    assert terminal.open == ["power.mains_lost"]


def test_an_ups_that_falls_silent_itself_is_a_fault_and_its_last_word_counts() -> None:
    terminal = Terminal()
    terminal.say("ups", "mains", "lost")
    terminal.wait(5.0)
    assert terminal.say("ups", "link.state", "silent") == [("raised", "link.silent")], (
        "it reports; it is not behind"
    )
    terminal.say("ups", "mains", None)
    terminal.wait(RETURN)
    assert terminal.say("p", "link.state", "silent") == [("explained", "link.silent")]


@pytest.mark.parametrize("word", ["rubbish", "busy", "denied", "unusable", None])
def test_what_no_power_cut_does_is_not_explained(word: str | None) -> None:
    terminal = Terminal()
    terminal.say("ups", "mains", "lost")
    terminal.say("p", "link.state", word)
    terminal.wait(5.0)
    assert len(terminal.open) == 2


@pytest.mark.parametrize(
    ("point", "word"),
    [("safe_door", "open"), ("tamper", "on"), ("video", "lost"), ("device.state", "fraudAttempt")],
)
def test_doors_tamper_and_security_are_never_explained_away(point: str, word: str) -> None:
    terminal = Terminal()
    terminal.say("ups", "mains", "lost")
    assert [kind for kind, _ in terminal.say("panel", point, word)] == ["raised"]


# -- whatever is said, in any order


WORDS = [("paper.receipt", w) for w in ("full", "low", "out", "jammed", None)]
WORDS += [("link.state", w) for w in ("up", "silent", "missing", None)]
STORY = st.lists(
    st.tuples(
        st.one_of(
            st.tuples(st.sampled_from(["p", "q"]), st.sampled_from(WORDS)),
            st.tuples(st.just("ups"), st.sampled_from([("mains", w) for w in ("ok", "lost", None)])),
        ),
        st.integers(0, 3),
        st.floats(0.0, 90.0),
    ),
    max_size=40,
)


@given(STORY)
def test_what_is_told_and_what_is_open_always_agree(
    story: list[tuple[tuple[str, tuple[str, str | None]], int, float]],
) -> None:
    terminal = Terminal()
    for (device, (point, word)), flapping, pause in story:
        terminal.say(device, point, word, flapping if word else 0)
        terminal.wait(pause)
    open_now: dict[tuple[str, str], str] = {}
    for event in terminal.events:
        key = (event.fault.device, event.fault.point)
        if event.kind == "raised":
            assert key not in open_now
        if event.kind in ("cleared", "steady"):
            assert open_now[key] == event.fault.code
        if event.kind in ("raised", "flapping", "steady"):
            open_now[key] = event.fault.code
        else:
            open_now.pop(key, None)
    assert sorted(open_now.values()) == sorted(terminal.open)
