"""What the agent says of pushes to a technician: what counts, what is tried or waits, what a rollback would bring.

The push is accepted and kept for real, on a disk.
"""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.config import parse
from agent.crypto.signing import CONFIGURATION, TRUST, Accepted
from agent.crypto.trust import Trust
from agent.errors import ControlError
from agent.messages import Reported
from agent.people.peer import Peer
from agent.pushes import REASONS as SENTENCES
from agent.pushes import Push, read
from agent.pushing.inforce import Begun, Pushed
from agent.pushing.remembered import Decision, Decisions, Freeze
from agent.pushing.shelf import Shelf
from agent.pushing.view import Seen, shown, without
from tests.pushing import NOW, TRUSTED, configuration, payload, person, rotation, sealed
from tests.test_cli_config import FOUND, PENDING, WAITING

Json = dict[str, Any]
OWN = """
[terminal]
org = "coop"
id = "ATM-0001"
data = "data"
groups = ["atm", "north"]
[push]
signers = "signers.toml"
probation = 90
[broker]
host = "127.0.0.1"
[devices.ups1]
kind = "ups"
port = "/dev/ttyS0"
"""
AFTER = """
[broker]
host = "127.0.0.1"
[devices.ups1]
kind = "ups"
port = "/dev/ttyS{port}"
"""


class Terminal:
    """A terminal's own file, and its pushes on a disk. `seen`: how all stands, with some of it changed."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "terminal.toml"
        self.file.write_text(OWN)
        self.shelf = Shelf(folder / "pushes")
        pushed = Pushed(self.shelf, self.shelf.recover(lambda _: True), TRUSTED, "", "", ())
        self.begun = Begun(parse(OWN.encode(), folder), self.file, OWN.encode(), None, pushed)
        self.now = Seen(
            begun=self.begun,
            config=self.begun.config,
            push=None,
            trying=None,
            left=0.0,
            silent=(),
            waiting=None,
            reason="",
            report=Reported(at=0, outcome="none", config=""),
            freeze=None,
            decisions=(),
            pushed=pushed,
        )

    def push(self, version: int, **other: Any) -> Push:
        """A configuration that was accepted, whose UPS is at the port of its version."""
        text = AFTER.format(port=version)
        content = configuration(version=version, id=f"C-{version:04}", config=text, **other)
        return read(Accepted(CONFIGURATION, payload(content), (person("ann"), person("bo"))))

    def commit(self, version: int) -> None:
        """Have it in force, on the disk too."""
        push = self.push(version)
        content = configuration(version=version, id=push.id, config=push.config)
        self.shelf.stage(sealed(CONFIGURATION, content, "ann", "bo"), version, push.digest)
        for word in ("applying", "probation"):
            self.shelf.step(word)
        self.shelf.commit()
        self.change(push=push, config=self.begun.with_push(push.config))

    def change(self, **facts: Any) -> None:
        self.now = replace(self.now, **facts)

    def shown(self, **facts: Any) -> Json:
        found = shown(replace(self.now, decisions=self.shelf.memory.decisions, **facts))
        json.dumps(found)
        return found


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path)


def test_without_a_push_the_own_file_counts(terminal: Terminal) -> None:
    found = terminal.shown()
    in_force = found["in_force"]
    assert (in_force["version"], in_force["pushed"], in_force["file_changed"]) == (0, False, False)
    assert in_force["digest"] == in_force["file_digest"] == terminal.begun.config.digest
    assert found["differences"] == {"own": [], "pending": []}
    assert (found["pending"], found["waiting"], found["last"], found["rollback"]) == (None, None, None, None)
    assert (found["terminal"], found["groups"], found["probation"]) == ("ATM-0001", ["atm", "north"], 90)


def test_the_clerks_answer_is_shaped_like_the_agents(terminal: Terminal) -> None:
    terminal.commit(7)
    terminal.shelf.memory.freeze(NOW, "li")
    trying = terminal.push(8)
    config = terminal.begun.with_push(trying.config)
    waiting = terminal.push(9)
    found = terminal.shown(freeze=Freeze(NOW, "li"), trying=trying, config=config, left=1.0, waiting=waiting)
    canned = {**FOUND, "pending": PENDING, "waiting": WAITING, "freeze": {"until": NOW, "by": "li"}}
    assert shape(found) == shape(canned)


def shape(found: Any) -> Any:
    """The keys of an answer, and of the first object of each list in it."""
    match found:
        case dict():
            return {key: shape(value) for key, value in found.items()}
        case [dict() as first, *_]:
            return [shape(first)]
    return None


def test_of_a_push_in_force_it_tells_what_it_changes_and_what_a_rollback_brings(terminal: Terminal) -> None:
    terminal.commit(7)
    found = terminal.shown()
    assert (found["in_force"]["version"], found["in_force"]["id"]) == (7, "C-0007")
    assert found["in_force"]["digest"] == terminal.now.config.digest != found["in_force"]["file_digest"]
    row = {"where": "devices.ups1.port", "old": "/dev/ttyS0", "new": "/dev/ttyS7"}
    assert found["differences"]["own"] == [row]
    assert found["rollback"] == {
        "gone": 7,
        "then": 0,
        "difference": [{**row, "old": row["new"], "new": row["old"]}],
    }
    terminal.commit(8)
    back = terminal.shown()["rollback"]
    assert (back["gone"], back["then"]) == (8, 7)
    assert (back["difference"][0]["old"], back["difference"][0]["new"]) == ("/dev/ttyS8", "/dev/ttyS7")
    assert [one["version"] for one in terminal.shown()["history"]] == [8, 7], "the newest first"


def test_what_is_on_probation_is_not_yet_in_force(terminal: Terminal) -> None:
    terminal.commit(7)
    was, trying = terminal.now.config, terminal.push(8)
    config = terminal.begun.with_push(trying.config)
    found = terminal.shown(trying=trying, config=config, left=92.84, silent=("ups1",))
    assert (found["in_force"]["version"], found["in_force"]["digest"]) == (7, was.digest)
    pending = found["pending"]
    assert (pending["version"], pending["word"], pending["left"]) == (8, "probation", 92.8)
    assert (pending["silent"], pending["signers"]) == (["ups1"], ["ann", "bo"])
    row = {"where": "devices.ups1.port", "old": "/dev/ttyS7", "new": "/dev/ttyS8"}
    assert found["differences"]["pending"] == [row]
    back = {**row, "old": row["new"], "new": row["old"]}
    assert found["rollback"] == {"gone": 8, "then": 7, "difference": [back]}
    first = terminal.shown(trying=trying, config=config, push=None)
    assert (first["in_force"]["digest"], first["rollback"]["then"]) == (terminal.begun.config.digest, 0)


def test_what_waits_is_told_with_its_reason_and_whether_it_would_fit(terminal: Terminal) -> None:
    push = terminal.push(8)
    found = terminal.shown(waiting=push, reason="frozen")
    assert (found["waiting"]["reason"], found["waiting"]["sentence"]) == ("frozen", SENTENCES["frozen"])
    assert found["differences"]["pending"][0]["new"] == "/dev/ttyS8"
    assert found["waiting"]["objection"] == ""
    # The desk's own sentence says more than that of the reason, while it is about the same push.
    report = Reported(at=0, outcome="waiting", config="", digest=push.digest, detail="the disk is full")
    assert terminal.shown(waiting=push, reason="busy", report=report)["waiting"]["sentence"] == "the disk is full"
    other = report.model_copy(update={"digest": "another"})
    assert terminal.shown(waiting=push, reason="busy", report=other)["waiting"]["sentence"] == SENTENCES["busy"]
    unfit = replace(push, config='[devices.ups1]\nkind = "toaster"\nport = "/dev/ttyS0"\n')
    found = terminal.shown(waiting=unfit, reason="frozen")
    assert "toaster" in found["waiting"]["objection"]
    assert found["differences"]["pending"] == []
    signers = read(Accepted(TRUST, payload(rotation(Trust(1, TRUSTED.signers))), ()))
    found = terminal.shown(waiting=signers, reason="not_yet")
    assert (found["waiting"]["kind"], found["waiting"]["version"]) == ("trust", 1)


def test_a_file_that_is_not_what_the_agent_began_with_is_told(terminal: Terminal) -> None:
    terminal.file.write_text(OWN.replace("ttyS0", "ttyS1"))
    found = terminal.shown()["in_force"]
    assert found["file_changed"]
    assert found["digest"] == terminal.begun.config.digest, "it does not count before the next start"
    terminal.file.unlink()
    assert terminal.shown()["in_force"]["file_changed"]


def test_the_last_push_is_what_was_told_last_with_the_time_that_is_remembered(terminal: Terminal) -> None:
    before = time.time_ns() // 1_000_000
    terminal.commit(7)
    terminal.shelf.memory.remember("a rotation of the signers", 0, "committed")
    last = terminal.shown()["last"]
    assert (last["version"], last["outcome"]) == (7, "committed")
    assert last["at"] >= before
    silent = Reported(
        at=5, outcome="rolled_back", config="", digest=terminal.push(7).digest, version=7, reason="silent"
    )
    assert terminal.shown(report=silent)["last"]["at"] == last["at"]
    forged = Reported(at=5, outcome="refused", config="", reason="bad_signature", detail="a signature …")
    last = terminal.shown(report=forged)["last"]
    assert (last["outcome"], last["reason"], last["at"]) == ("refused", "bad_signature", 0)
    waits = Reported(at=5, outcome="waiting", config="", digest="d8", version=8, reason="frozen")
    assert terminal.shown(report=waits)["last"]["version"] == 7, "what waits has not ended"


def test_who_may_sign_and_what_is_wrong_is_told(terminal: Terminal) -> None:
    trust = terminal.shown()["trust"]
    assert {"ann", "bo"} <= {signer["name"] for signer in trust["signers"]}
    assert len(trust["revoked"]) == 1
    pushed = replace(terminal.now.pushed, trust=None, distrust="no push is taken: gone", troubles=("a bad disk",))
    found = terminal.shown(pushed=pushed)
    assert (found["trust"], found["troubles"]) == (None, ["a bad disk", "no push is taken: gone"])


def test_a_terminal_that_takes_no_pushes_says_so_and_still_names_its_file(terminal: Terminal) -> None:
    answers, anybody = without(terminal.begun), Peer(0, "")
    [found] = answers({"do": "pushes", "act": "show"}, anybody)
    assert not found["taken"]
    assert found["in_force"]["file_digest"] == terminal.begun.config.digest
    with pytest.raises(ControlError, match="no push is taken here") as refused:
        list(answers({"do": "pushes", "act": "rollback"}, anybody))
    assert refused.value.status == 1


def test_when_it_was_decided_is_remembered_and_an_older_file_is_still_read(tmp_path: Path) -> None:
    before = time.time_ns() // 1_000_000
    shelf = Shelf(tmp_path)
    shelf.recover(lambda _: True)
    shelf.memory.remember("d7", 7, "committed")
    [first] = shelf.memory.decisions
    assert before <= first.at <= time.time_ns() // 1_000_000
    old = {"newest": 7, "all": [{"digest": "d7", "version": 7, "outcome": "committed"}]}
    assert Decisions.read(old).all == (Decision("d7", 7, "committed", at=0),)
    again = Shelf(tmp_path)
    again.recover(lambda _: True)
    assert again.memory.decisions == (first,)
    # A start does some of a decision once more: that is not when it was decided.
    again._slips.write("known.json", {**old, "all": [{**old["all"][0], "at": 5}]})  # type: ignore[index]
    again.recover(lambda _: True)
    again.memory.remember("d7", 7, "committed")
    assert [one.at for one in again.memory.decisions] == [5]
    again.memory.remember("d7", 7, "rolled_back")
    assert again.memory.decisions[0].at >= before
