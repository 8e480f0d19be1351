"""The story of the training drill: when a step is done, what counts as a mistake, and what is on the papers."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.crypto.holdings import Holdings
from agent.crypto.orders import Order, Site, check
from agent.crypto.phrases import CAUSES, REFUSALS
from agent.crypto.signing import ORDER, Rule, accept
from agent.keys.table import ROLES, keyring
from hwsim import drill_papers
from hwsim.drill_papers import GROUPS, PUBLISHED, Paper, mistyped
from hwsim.drill_story import Done, Seen, Step, load, mistake
from hwsim.secure_des import check_value
from hwsim.secure_rules import PUBLIC

DRILL = Path(__file__).parent.parent / "deploy/drill"
STORY = load(DRILL / "story.toml")
NAMES = {"order": "KO-1", "one": "ENV-1A", "two": "ENV-1B", "kcv": "08D7B4"}
OURS = {"wrong", "login", "paper_left", "other"}
"""Words of lessons that are the drill's own."""


def step(**done: Any) -> Step:
    return Step(do=(("A", "true"),), en="x", zh="x", done=Done(**done))  # type: ignore[arg-type]


def row(event: str, **fields: Any) -> dict[str, Any]:
    return {"kind": "ceremony", "event": event, "order": "KO-1", **fields}


def test_a_step_is_done_when_the_ledger_says_so_and_of_its_own_order_only(tmp_path: Path) -> None:
    seen = Seen(tmp_path)
    wanted = step(row={"event": "joined", "order": "{order}", "person": "li"})
    assert not seen.done(wanted, NAMES)
    seen.rows += [row("joined", person="wang"), {**row("joined", person="li"), "order": "KO-2"}]
    assert not seen.done(wanted, NAMES)
    seen.rows.append(row("joined", person="li"))
    assert seen.done(wanted, NAMES)


def test_a_step_is_done_when_files_came_and_went_and_people_and_switch_are_ready(tmp_path: Path) -> None:
    seen = Seen(tmp_path, fresh={"li"}, switch="run")
    paper = tmp_path / "ENV-1A.txt"
    paper.touch()
    wants = [
        step(file="{order}.receipt"),
        step(gone=("{one}.txt",)),
        step(changed="li"),
        step(switch="maintenance"),
        step(dark="{order}"),
    ]
    seen.dark.add("KO-2")
    assert [seen.done(want, NAMES) for want in wants] == [False] * 5
    (tmp_path / "KO-1.receipt").touch()
    paper.unlink()
    seen.fresh, seen.switch = set(), "maintenance"
    seen.dark.add("KO-1")
    assert [seen.done(want, NAMES) for want in wants] == [True] * 5


@pytest.mark.parametrize(
    ("found", "word"),
    [
        (row("refused", reason="not_second"), "not_second"),
        (row("login", person="li", result="wrong"), "login"),
        (row("login", person="li", result="locked"), "locked"),
        (row("wrong", number=1, tries=2), "wrong"),
        (row("aborted", cause="idle"), "idle"),
        (row("trouble", cause="exposed"), "exposed"),
        (row("aborted", cause="exposed"), ""),
        (row("joined", person="li"), ""),
    ],
)
def test_a_mistake_is_counted_once_by_its_word(found: dict[str, Any], word: str) -> None:
    assert mistake(found, []) == word


def test_what_the_exercise_wants_is_no_mistake_and_the_same_of_another_order_is() -> None:
    wanted: dict[str, str | int] = {"event": "wrong", "order": "{order}", "number": 1, "tries": 1}
    planned = [(wanted, NAMES)]
    assert not mistake(row("wrong", number=1, tries=1), planned)
    assert mistake(row("wrong", number=1, tries=2), planned) == "wrong"
    assert mistake({**row("wrong", number=1, tries=1), "order": "KO-2"}, planned) == "wrong"


def test_every_lesson_is_about_something_that_the_agent_says() -> None:
    assert set(STORY.lessons) - OURS <= set(REFUSALS) | set(CAUSES)
    assert STORY.lesson("never heard of") == STORY.lessons["other"]


def test_every_brace_of_the_story_can_be_filled() -> None:
    names = {**NAMES, "first_li": "x", "first_wang": "x"}
    for scene in STORY.scene:
        for one in scene.step:
            for text in (one.en, one.zh, one.done.file, one.done.dark, *one.done.gone, *(c.text for c in one.do)):
                text.format_map(names)


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Paper], dict[str, list[Paper]], Path]:
    signers = tmp_path_factory.mktemp("drill") / "signers.toml"
    loads, ends = drill_papers.make("ATM-0001", "2411-0001", DRILL, signers)
    return list(loads), {kcv: list(found) for kcv, found in ends.items()}, signers


def test_the_papers_make_published_keys_and_say_the_right_check_values(papers: Any, tmp_path: Path) -> None:
    for key, paper in zip(PUBLISHED, papers[0], strict=True):
        one, two = (int(component, 16) for component in paper.components)
        assert f"{one ^ two:032X}" == key
        assert "T" + paper.document["kcv"] in PUBLIC
        for part, component in zip(paper.document["parts"], paper.components, strict=True):
            assert part["kcv"] == check_value("T", bytes.fromhex(component))
            assert check_value("T", bytes.fromhex(mistyped(component))) != part["kcv"]
        paper.deliver(tmp_path, exercise=True)
        first = Paper.path(tmp_path, paper.envelopes[0])
        assert first.stat().st_mode & 0o077 == 0
        assert "TRAINING ONLY" in first.read_text()
        assert "EXERCISE" in first.read_text()
        assert "EXERCISE" not in Paper.path(tmp_path, paper.envelopes[1]).read_text()


def test_every_order_is_signed_by_two_and_is_taken_by_its_simulator_only(papers: Any) -> None:
    loads, ends, signers = papers
    known = keyring(signers)
    here = Site("ATM-0001", "2411-0001", simulated=True)
    for paper in [*loads, *(end for found in ends.values() for end in found)]:
        accepted = accept(paper.signed.encode(), Rule(ORDER, ROLES), known)
        order = Order.parse(accepted.content())
        now = order.not_before + 1
        check(order, [signer.name for signer in accepted.signers], here, Holdings(), now, now)
        assert order.hierarchy == "test"
        assert {part.group for part in order.parts} in (set(GROUPS), set())


def test_another_drill_has_other_signers_and_other_components(papers: Any, tmp_path: Path) -> None:
    loads, _ = drill_papers.make("ATM-0001", "2411-0001", DRILL, tmp_path / "signers.toml")
    assert (tmp_path / "signers.toml").read_text() != papers[2].read_text()
    assert all(now.components != before.components for now, before in zip(loads, papers[0], strict=True))


def test_the_signers_of_a_drill_sign_no_order_for_a_real_terminal(papers: Any, tmp_path: Path) -> None:
    real = [{**papers[0][0].document, "hierarchy": "production"}]
    command = [sys.executable, str(DRILL / "sign_orders.py"), str(tmp_path / "signers.toml")]
    done = subprocess.run(command, input=json.dumps(real), capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert not (tmp_path / "signers.toml").exists()


def test_no_key_of_the_signers_is_kept(papers: Any) -> None:
    text = papers[2].read_text()
    assert "PRIVATE" not in text
    assert text.count("BEGIN PUBLIC KEY") == len(ROLES)
