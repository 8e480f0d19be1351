"""The steps of a push are one closed table, and a probation ends: by all that is awaited, or by the deadline."""

import importlib.util
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from agent.pushing.probation import STATES, TRANSITIONS, Probation, awaited, picture

ROOT = Path(__file__).parent.parent
DEVICES = ("card1", "epp1", "panel1", "ups1")
LASTS = 120.0


def reached(start: str) -> set[str]:
    seen, todo = set(), [start]
    while todo:
        if (one := todo.pop()) not in seen:
            seen.add(one)
            todo += TRANSITIONS[one]
    return seen


@pytest.mark.parametrize("state", STATES)
def test_every_state_is_reached_and_leads_back_to_idle(state: str) -> None:
    assert state in reached("idle")
    assert "idle" in reached(state)
    assert TRANSITIONS[state], "no state without an exit"
    assert set(TRANSITIONS[state]) <= set(STATES)


def test_a_commit_comes_from_a_probation_only_and_is_not_undone() -> None:
    assert [state for state in STATES if "committing" in TRANSITIONS[state]] == ["probation"]
    assert set(TRANSITIONS["committing"]) == {"idle"}
    assert set(TRANSITIONS["rolling_back"]) == {"idle"}


def test_links_are_swapped_only_after_the_push_was_staged_and_ledgered() -> None:
    assert [state for state in STATES if "applying" in TRANSITIONS[state]] == ["staged"]
    assert [state for state in STATES if "probation" in TRANSITIONS[state]] == ["applying"]


def test_the_picture_on_the_page_is_the_table() -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    assert page == module.GENERATED["operations.md"](), "run `make docs`"
    assert picture() in page
    for state, arcs in TRANSITIONS.items():
        assert all(f"    {state} --> {to}: {when}\n" in picture() for to, when in arcs.items())


@pytest.mark.parametrize(
    ("configured", "added", "answering", "expected"),
    [
        ("ab", "", "ab", "ab"),
        ("ab", "b", "a", "ab"),  # a new one must answer
        ("ab", "", "a", "a"),  # one that was silent is not waited for
        ("a", "", "ab", "a"),  # one that is removed neither
        ("", "", "ab", ""),
    ],
)
def test_awaited_is_who_answered_before_or_is_new(
    configured: Iterable[str], added: Iterable[str], answering: Iterable[str], expected: str
) -> None:
    assert awaited(configured, added, answering) == frozenset(expected)


def test_nothing_is_committed_without_an_acknowledged_message_also_without_devices() -> None:
    probation = Probation((), LASTS)
    assert probation.due(0.0) == ""
    assert "no broker acknowledged" in probation.due(LASTS)
    assert probation.reason == "unreachable"


def test_the_sentence_names_the_silent_devices_and_only_those() -> None:
    probation = Probation(DEVICES, LASTS)
    probation.heard("epp1", 1.0)
    probation.acked(2.0)
    assert probation.due(LASTS - 0.001) == ""
    sentence = probation.due(LASTS)
    assert sentence.startswith("card1, panel1, ups1 did not answer: check")
    assert "epp1" not in sentence
    assert "broker" not in sentence
    assert probation.reason == "silent"


def test_many_silent_devices_are_counted() -> None:
    sentence = Probation([f"d{n:02}" for n in range(40)], LASTS).due(LASTS)
    assert sentence.startswith("d00, d01, d02, d03, d04 and 35 more did not answer")
    assert "no broker acknowledged anything" in sentence
    assert len(sentence) < 300


def test_an_answer_at_the_deadline_is_too_late_and_one_before_it_counts_whenever_it_is_asked() -> None:
    just = LASTS - 0.001
    for heard, acked, reason in ((just, just, ""), (LASTS, just, "silent"), (just, LASTS, "unreachable")):
        probation = Probation(("ups1",), LASTS)
        probation.heard("ups1", heard)
        probation.acked(acked)
        assert (probation.due(LASTS + 50) == "commit") == (reason == "")
        assert probation.reason == reason


def test_a_silence_once_decided_is_not_undone_by_a_late_word_of_an_earlier_time() -> None:
    probation = Probation(("ups1",), LASTS)
    why = probation.due(LASTS)
    probation.heard("ups1", 1.0)
    probation.acked(1.0)
    assert probation.due(LASTS + 1) == why


def test_a_broker_over_which_no_push_is_heard_is_not_kept() -> None:
    probation = Probation((), LASTS, "it has not answered")
    probation.acked(1.0)
    assert probation.due(1.0) == ""
    probation.listens("correct its access list", LASTS - 1)
    sentence = probation.due(LASTS)
    assert (probation.reason, "correct its access list" in sentence) == ("deaf", True)
    heard = Probation((), LASTS, "it has not answered")
    heard.acked(1.0)
    heard.listens("", 2.0)
    assert heard.due(LASTS + 1) == "commit"
    late = Probation((), LASTS, "it has not answered")
    late.acked(1.0)
    late.listens("", LASTS)
    assert late.due(LASTS) != "commit"


class AnyProbation(RuleBasedStateMachine):
    """Whatever is heard in whatever order."""

    @initialize(waiting=st.frozensets(st.sampled_from(DEVICES)), began=st.floats(0, 1e6))
    def begin(self, waiting: frozenset[str], began: float) -> None:
        self.now, self.deadline = began, began + LASTS
        self.waiting, self.heard_in_time, self.is_acked = waiting, set[str](), False
        self.probation = Probation(waiting, self.deadline)
        self.verdicts: list[str] = []

    @rule(device=st.sampled_from((*DEVICES, "stranger")))
    def heard(self, device: str) -> None:
        self.probation.heard(device, self.now)
        if self.now < self.deadline:
            self.heard_in_time.add(device)

    @rule()
    def acked(self) -> None:
        self.probation.acked(self.now)
        self.is_acked = self.is_acked or self.now < self.deadline

    @rule(seconds=st.floats(0, LASTS / 2))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def ask(self) -> None:
        self.verdicts.append(self.probation.due(self.now))

    @invariant()
    def committed_only_with_all_that_is_awaited(self) -> None:
        if "commit" in getattr(self, "verdicts", []):
            assert self.is_acked
            assert self.waiting <= self.heard_in_time

    @invariant()
    def decided_once(self) -> None:
        for before, after in pairwise(getattr(self, "verdicts", [])):
            assert before in ("", after)

    def teardown(self) -> None:
        if hasattr(self, "probation"):
            verdict = self.probation.due(max(self.now, self.deadline))
            assert verdict, "the deadline always ends it"
            assert (verdict == "commit") == (self.is_acked and self.waiting <= self.heard_in_time)


TestAnyProbation = AnyProbation.TestCase
TestAnyProbation.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
