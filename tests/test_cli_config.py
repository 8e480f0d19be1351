"""`tillwire config` at a terminal: how pushes stand, in both languages, and what a technician can do about them.

A clerk at the socket answers as the agent does: tests/test_pushview.py compares the two.
"""

import copy
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

import agent.cli
from agent.cli import wording
from agent.cli.configtexts import REASONS, TEXTS
from agent.pushes import REASONS as SENTENCES
from agent.pushing.probation import Probation
from tests.clerk import Clerk
from tests.pushing import NOW
from tests.pushsite import tillwire
from tests.typing_people import Typist

Json = dict[str, Any]
FOUND: Json = {
    "taken": True,
    "terminal": "ATM-0001",
    "org": "coop",
    "groups": ["atm", "north"],
    "in_force": {
        **{"version": 7, "id": "C-0007", "signers": ["ann", "bo"], "digest": "3fa2" * 16, "pushed": True},
        **{"file": "/etc/tillwire/terminal.toml", "file_digest": "77c0" * 16, "file_changed": False},
    },
    "pending": None,
    "waiting": None,
    "last": {"version": 7, "outcome": "committed", "reason": "", "detail": "", "at": NOW},
    "freeze": None,
    "trust": {
        "version": 0,
        "signers": [
            {"name": "ann", "roles": ["config", "trust"], "key": "a="},
            {"name": "bo", "roles": ["config"], "key": "b="},
            {"name": "bo", "roles": ["trust"], "key": "c="},
        ],
        "revoked": [],
    },
    "troubles": [],
    "probation": 90,
    "history": [
        {"digest": "d8", "version": 8, "outcome": "rolled_back", "reason": "silent", "detail": "ups1 …", "at": NOW},
        {"digest": "d7", "version": 7, "outcome": "committed", "reason": "", "detail": "", "at": NOW - 9},
        {"digest": "dt", "version": 0, "outcome": "committed", "reason": "", "detail": "", "at": 0},
    ],
    "differences": {
        "own": [{"where": "devices.ups1.port", "old": "/dev/ttyS0", "new": "/dev/ttyS7"}],
        "pending": [{"where": "uplink.linger", "old": "1.0", "new": "2.5"}],
    },
    "rollback": {
        **{"gone": 7, "then": 0},
        "difference": [{"where": "devices.ups1.port", "old": "/dev/ttyS7", "new": "/dev/ttyS0"}],
    },
}
PENDING: Json = {
    **{"version": 8, "id": "C-0008", "digest": "d8", "signers": [], "word": "probation", "left": 93.2},
    "silent": ["printer1", "ups1"],
}
WAITING: Json = {
    **{"kind": "configuration", "version": 8, "id": "C-0008", "not_before": NOW, "reason": "frozen"},
    **{"sentence": "the technician holds pushes back", "objection": ""},
}


@pytest.fixture
def clerk(tmp_path: Path) -> Iterator[Clerk]:
    found = Clerk(tmp_path / "s", {"show": [FOUND]})
    yield found
    found.close()


def config(clerk: Clerk, *words: str, typed: str = "", **changes: Any) -> tuple[int, str, str]:
    """`tillwire config` with an answer of the agent, some of it changed."""
    if changes:
        clerk.answers["show"] = [{**copy.deepcopy(FOUND), **changes}]
    return tillwire("config", *words, "--socket", str(clerk.path), typed=typed)


# what a technician sees


def test_show_when_all_is_well(clerk: Clerk) -> None:
    code, out, err = config(clerk, "show", "--lang", "en")
    assert (code, err) == (0, "")
    lines = [line.strip() for line in out.splitlines()]
    assert lines[0] == "ATM-0001 of coop   groups atm, north"
    assert "in force   version 7 (C-0007), pushed by the centre; the local tables are those of" in out
    assert "→ tillwire config diff" in out
    assert f"version 7: committed   {wording.clock(NOW)}" in out
    assert "bo: config, trust" in lines, "a person with two keys is one person"
    assert lines[-1] == "all is well"
    code, out, _ = config(clerk, "show", "--lang", "zh")
    assert code == 0
    assert "当前生效" in out
    assert "一切正常" in out
    assert "in force" not in out


def test_what_is_tried_is_shown_with_the_time_that_is_left_and_who_is_silent(clerk: Clerk) -> None:
    code, out, _ = config(clerk, "show", "--lang", "en", pending=PENDING)
    assert code == 0, "it needs nobody yet"
    assert "all is well" not in out
    assert "version 8 (C-0008): 93 s left" in out
    assert "printer1, ups1" in out
    assert "→ tillwire config rollback" in out
    assert "broker" in config(clerk, "show", "--lang", "en", pending={**PENDING, "silent": []})[1]
    assert "剩余93秒" in config(clerk, "show", "--lang", "zh")[1]


@pytest.mark.parametrize(
    ("changes", "sentence", "chinese", "typed"),
    [
        ({"waiting": WAITING}, "holds pushes back", REASONS["frozen"], "tillwire config thaw"),
        ({"waiting": {**WAITING, "reason": "clock_suspect"}}, "holds", REASONS["clock_suspect"], "timedatectl"),
        (
            {"waiting": {**WAITING, "objection": "no kind toaster"}},
            "no kind toaster",
            "与本机不符",
            "tillwire config thaw",
        ),
        ({"freeze": {"until": NOW, "by": "li"}}, "li said so", "li 设置", "tillwire config thaw"),
        (
            {"last": {"version": 8, "outcome": "rolled_back", "reason": "silent", "detail": "ups1 did not answer"}},
            "ups1 did not answer",
            "请检查推送中的端口与类型",
            "tillwire config history",
        ),
        (
            {"last": {"version": 0, "outcome": "refused", "reason": "too_few", "detail": "too few people"}},
            "too few people",
            "请补签",
            "tillwire config history",
        ),
        ({"trust": None, "troubles": ["no push is taken: gone"]}, "nobody", "不接收任何推送", "gone"),
        ({"in_force": {**FOUND["in_force"], "file_changed": True}}, "next start", "改动", "tillwire config check"),
    ],
)
def test_what_somebody_has_to_look_at_ends_with_1_and_says_what_to_type(
    clerk: Clerk, changes: Json, sentence: str, chinese: str, typed: str
) -> None:
    if "last" in changes:
        changes = {"last": {"at": 0, **changes["last"]}}
    code, out, _ = config(clerk, "show", "--lang", "en", **changes)
    assert code == 1
    assert sentence in out
    assert typed in out
    assert "somebody has to look" in out
    code, out, _ = config(clerk, "show", "--lang", "zh")
    assert code == 1
    assert chinese in out
    assert typed in out


def test_what_a_technician_took_back_needs_nobody(clerk: Clerk) -> None:
    last = {"version": 8, "outcome": "rolled_back", "reason": "technician", "detail": "li took it back", "at": 0}
    code, out, _ = config(clerk, "show", "--lang", "en", last=last)
    assert code == 0
    assert "rolled back (technician)" in out


def test_without_push_show_names_the_file_and_says_that_nothing_is_taken(clerk: Clerk) -> None:
    in_force = {**FOUND["in_force"], "version": 0, "id": "", "pushed": False}
    clerk.answers["show"] = [
        {**{k: FOUND[k] for k in ("terminal", "org", "groups")}, "taken": False, "in_force": in_force}
    ]
    code, out, _ = config(clerk, "show", "--lang", "en")
    assert code == 0
    assert "/etc/tillwire/terminal.toml" in out
    assert "no push is taken here" in out
    assert "3fa23fa2" in out
    assert config(clerk, "diff", "--lang", "en")[1] == "no difference\n"
    assert config(clerk, "diff", "--pending", "--lang", "en")[1] == "nothing is being tried, and nothing waits\n"
    assert "nothing was decided" in config(clerk, "history", "--lang", "en")[1]
    clerk.answers["rollback"] = [{"error": "no push is taken here", "status": 1}]
    assert config(clerk, "rollback", "--lang", "en")[0::2] == (1, "tillwire: no push is taken here\n")


def test_on_a_terminal_it_counts_down_until_it_is_decided(clerk: Clerk) -> None:
    clerk.answers["show"] = [{**FOUND, "pending": PENDING}]
    with Typist("config", "show", apart=False, TILLWIRE_SOCKET=str(clerk.path)) as typist:
        typist.until("93 s left")
        clerk.answers["show"] = [{**FOUND, "pending": {**PENDING, "left": 41.0, "silent": ["ups1"]}}]
        typist.until("41 s left")
        clerk.answers["show"] = [{**FOUND, "last": {**FOUND["last"], "version": 8}}]
        typist.until("version 8: committed")
        assert typist.rest()[0] == 0


def test_diff_shows_each_key_that_differs(clerk: Clerk) -> None:
    code, out, _ = config(clerk, "diff", "--lang", "en")
    assert code == 0
    assert [line.split() for line in out.splitlines()] == [
        ["key", "own", "file", "in", "force"],
        ["devices.ups1.port", "/dev/ttyS0", "/dev/ttyS7"],
    ]
    out = config(clerk, "diff", "--pending", "--json", pending=PENDING)[1]
    assert json.loads(out) == {"from": "in_force", "to": "pending", "rows": FOUND["differences"]["pending"]}
    assert "linger" not in config(clerk, "diff", "--pending", "--lang", "en", pending=None)[1]
    changed = {**FOUND["in_force"], "file_changed": True}
    assert "next start" in config(clerk, "diff", "--lang", "en", in_force=changed)[2]


def test_history_tells_what_was_decided_when_and_why(clerk: Clerk) -> None:
    code, out, _ = config(clerk, "history", "--lang", "en")
    assert code == 0
    lines = out.splitlines()
    assert lines[1].split() == ["8", "rolled", "back", *wording.clock(NOW).split(), "silent:", "ups1", "…"]
    assert lines[2].split() == ["7", "committed", *wording.clock(NOW - 9).split()]
    assert lines[3].split() == ["signers", "committed"], "a time that nobody knows is not told"
    assert len(json.loads(config(clerk, "history", "--tail", "1", "--json")[1])["history"]) == 1
    assert "已回退" in config(clerk, "history", "--lang", "zh")[1]


# what a technician does


def test_a_freeze_says_until_when_and_how_to_end_it(clerk: Clerk) -> None:
    clerk.answers["freeze"] = [{"frozen_until": NOW}]
    code, out, _ = config(clerk, "freeze", "--hours", "8", "--lang", "en")
    assert code == 0
    assert wording.clock(NOW) in out
    assert out.endswith("next: to end it now\n  tillwire config thaw\n")
    config(clerk, "freeze", "--minutes", "30")
    assert [request["minutes"] for request in clerk.asked("freeze")] == [480, 30]
    for wrong in ([], ["--hours", "1", "--minutes", "1"], ["--hours", "169"], ["--minutes", "10081"]):
        assert config(clerk, "freeze", *wrong)[0] == 2, wrong
    assert config(clerk, "freeze", "--hours", "168")[0] == 0
    assert len(clerk.asked("freeze")) == 3, "the agent was not asked for what cannot be"


def test_a_thaw_says_what_follows(clerk: Clerk) -> None:
    clerk.answers["thaw"] = [{"frozen_until": 0}]
    assert "pushes are taken again" in config(clerk, "thaw", "--lang", "en")[1]
    assert "已恢复接收推送" in config(clerk, "thaw", "--lang", "zh")[1]
    assert json.loads(config(clerk, "thaw", "--json")[1]) == {"frozen_until": 0}


def test_a_rollback_says_what_will_count_and_asks(clerk: Clerk) -> None:
    clerk.answers["rollback"] = [{"rolled_back": 7, "in_force": 0}]
    code, out, err = config(clerk, "rollback", "--lang", "en", typed="n\n")
    assert (code, out) == (3, "")
    assert "version 7 is taken back; then counts the terminal's own file" in err
    assert "/dev/ttyS0" in err
    assert config(clerk, "rollback", "--lang", "en")[0] == 3, "no answer is no yes"
    assert not clerk.asked("rollback")
    code, out, _ = config(clerk, "rollback", "--lang", "en", typed="y\n")
    assert code == 0
    assert out.startswith("version 7 was taken back; the terminal's own file counts\nnext: ")
    assert config(clerk, "rollback", "--force", "--json")[0] == 0
    assert [request["version"] for request in clerk.asked("rollback")] == [7, 7], "of what was shown"
    code, _, err = config(clerk, "rollback", "--force", "--lang", "zh", rollback={**FOUND["rollback"], "then": 6})
    assert "之后生效的是版本6" in err
    code, _, err = config(clerk, "rollback", "--force", rollback=None)
    assert code == 1
    assert len(clerk.asked("rollback")) == 3, "there was nothing to take back"


def test_what_the_agent_refuses_is_told_with_its_exit_code(clerk: Clerk) -> None:
    clerk.answers["freeze"] = [{"error": "user li may look but not act here: ask root", "status": 3}]
    code, out, err = config(clerk, "freeze", "--hours", "1")
    assert (code, out, err) == (3, "", "tillwire: user li may look but not act here: ask root\n")


def test_every_reason_has_a_sentence_in_chinese_and_no_text_lacks_a_language() -> None:
    probation = Probation(["ups1"], 0.0)
    probation.due(1.0)
    assert probation.reason in REASONS
    ends = {"silent", "unreachable", "not_applied", "not_stored", "interrupted", "damaged", "technician"}
    assert REASONS.keys() >= (SENTENCES.keys() | ends) - {"replayed"}
    assert all(words.en and words.zh for words in TEXTS.values())


def test_every_command_of_the_page_is_one_that_there_is() -> None:
    """Parsed only: what it does is another test's."""
    page = (Path(__file__).parent.parent / "docs/operations.md").read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"```sh\n(.*?)```", page, re.S) for line in block.splitlines()]
    assert len(lines) > 15
    for line in lines:
        program, *words = shlex.split(re.sub(r" >>? \S+$", "", line))
        if program == "cat":
            continue
        command: Any = typer.main.get_command(agent.cli.app)
        while hasattr(command, "commands"):
            assert words[0] in command.commands, line
            command = command.commands[words.pop(0)]
        command.make_context(line, words)
