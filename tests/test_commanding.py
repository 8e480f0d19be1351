"""Commands of the centre: each runs once whatever happens in between, only as the terminal's own file lets it, and
its end is told."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.disk.slips import LARGEST as SLIP
from agent.disk.slips import Slips
from agent.errors import ControlError, EnvelopeRefused, PushRefused, StoreError
from agent.pushes import COMMANDS
from agent.pushing.commanding import A_MINUTE, KEPT_LETTERS, LONGEST, WAITS
from agent.pushing.errands import ERRANDS
from agent.pushing.memory import COMMANDS as FILE
from agent.pushing.remembered import COMMANDS as MOST
from agent.pushing.remembered import Command, Commands
from agent.ration import MINUTE, Ration
from agent.tables import Push as Table
from tests.commanded import ALL, PEOPLE, RIGHT, Till, fail, push, remembered
from tests.pushing import NOW
from tests.whole import wait

HOUR = 3600 * 1000


@pytest.fixture
def till(tmp_path: Path) -> Till:
    return Till(tmp_path / "pushes")


@pytest.fixture
def gate(till: Till) -> Iterator[threading.Event]:
    """What holds every `state` up until it is set."""
    opened = threading.Event()

    def hold() -> None:
        till.does("refresh")
        opened.wait(30)

    till.more["refresh"] = hold
    till.boot()
    yield opened
    opened.set()
    till.settle()


# Once.


def test_that_it_was_begun_and_its_row_are_on_disk_before_anything_is_done(till: Till) -> None:
    on_disk: list[Command] = []

    def look() -> None:
        till.does("refresh")
        on_disk.extend(remembered(till.folder).unended())

    till.more["refresh"] = look
    till.boot()
    till.run()
    assert till.did == ["row command", "keep", "refresh", "row command_ended", "tell"]
    assert [(one.id, one.command) for one in on_disk] == [("K-0001", "state")]
    begun, ended = till.rows
    assert begun["signers"] == list(PEOPLE)
    assert begun["digest"] == push().digest
    assert (ended["id"], ended["outcome"]) == ("K-0001", "done")
    assert remembered(till.folder).unended() == ()


def test_without_a_ledger_nothing_is_done(till: Till) -> None:
    till.keeps = False
    result = till.run()
    assert "refresh" not in till.did
    assert result.outcome == "failed"
    assert "ledger" in result.detail


def test_a_command_that_comes_again_is_told_and_not_done_also_after_a_start(till: Till) -> None:
    first = till.run()
    again = till.run()
    till.boot("boot-2")
    after = till.run()
    till.commanding.repeat("K-0001")
    assert first.outcome == "done"
    for result in (again, after, till.told[-1]):
        assert (result.id, result.outcome, result.command) == ("K-0001", "repeated", "state")
        assert result.was == "done"
        assert first.detail in result.detail
    assert till.did.count("refresh") == 1
    assert len(till.row("command")) == 1


def test_one_that_failed_says_so_when_it_comes_again(till: Till) -> None:
    assert till.run("journal").outcome == "failed"
    again = till.run("journal")
    assert (again.outcome, again.was) == ("repeated", "failed")


def test_another_command_under_the_same_id_is_refused(till: Till, gate: threading.Event) -> None:
    till.take(push())
    till.take(push("restart"))
    gate.set()
    till.settle()
    after = till.run("restart", "K-0001")
    assert till.outcomes() == ["refused", "done", "refused"]
    assert "another id" in after.detail
    assert {row["reason"] for row in till.row("refused")} == {"same_id"}
    assert "restart" not in till.did


def test_a_command_is_not_taken_for_one_that_was_forgotten_unless_it_is_told_so(till: Till) -> None:
    till.wall += 2 * HOUR
    till.run("state", "K-0001", expires=NOW + 3 * HOUR)
    till.wall += 2 * HOUR  # a clock that is ahead makes it forget, and is put right
    till.run("state", "K-0002", expires=NOW + 5 * HOUR)
    till.wall = NOW
    fresh = till.run("state", "K-0003", expires=NOW + HOUR)
    assert (fresh.outcome, fresh.id) == ("refused", "K-0003")
    assert "ending after" in fresh.detail
    assert till.run("state", "K-0004", expires=NOW + 4 * HOUR).outcome == "done"


def test_one_that_may_have_run_and_is_forgotten_is_not_done(till: Till) -> None:
    (till.folder / FILE).write_bytes(b"damaged")
    os.utime(till.folder / FILE, (NOW / 1000, NOW / 1000))
    till.boot()
    result = till.run()
    assert result.outcome == "refused"
    assert "another id, valid only after" in result.detail
    assert till.row("command") == []


def test_one_that_comes_again_while_it_is_under_way_waits_for_its_end(till: Till, gate: threading.Event) -> None:
    for _ in range(3):
        till.take(push())
        till.commanding.repeat("K-0001")
    assert till.told == []
    gate.set()
    till.settle()
    assert till.outcomes() == ["done"]


ONCE = """
import sys
from pathlib import Path
from tests.commanded import Till, push
till = Till(Path(sys.argv[1]))
def work():
    with (till.folder / "ran").open("a") as file:
        file.write("once ")
    print("at it", flush=True)
    sys.stdin.read()
till.more["refresh"] = work
till.boot()
till.commanding.greet(till.memory.unended())
till.take(push())
till.settle()
print([(one.id, one.outcome, one.detail) for one in till.told])
"""


def test_a_kill_between_begin_and_end_lets_nothing_run_twice(tmp_path: Path) -> None:
    folder = tmp_path / "pushes"
    script = [sys.executable, "-c", ONCE, str(folder)]
    first = subprocess.Popen(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert first.stdout
    assert first.stdout.readline() == b"at it\n"
    first.send_signal(signal.SIGKILL)
    first.communicate()
    second = subprocess.run(
        script, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=60
    )
    assert not second.stdout.startswith("at it")
    assert (folder / "ran").read_text() == "once "
    assert "('K-0001', 'failed', 'the agent ended while it was at it" in second.stdout
    assert "('K-0001', 'repeated'" in second.stdout


@pytest.mark.parametrize(
    ("word", "boot", "outcome"),
    [
        ("restart", "boot-1", "done"),
        ("restart", "boot-2", "done"),
        ("reboot", "boot-1", "failed"),
        ("reboot", "boot-2", "done"),
        ("state", "boot-2", "failed"),
    ],
)
def test_a_start_tells_the_end_of_what_was_under_way(till: Till, word: str, boot: str, outcome: str) -> None:
    till.memory.begun("K-0001", NOW - 5, NOW + 10**6, NOW, word, "boot-1")
    till.boot(boot)
    till.wall += 4200
    for _ in range(2):
        till.commanding.greet(till.memory.unended())
    (result,) = till.told
    assert (result.id, result.command, result.outcome, result.duration_ms) == ("K-0001", word, outcome, 4200)
    (row,) = till.row("command_ended")
    assert (row["id"], row["outcome"]) == ("K-0001", outcome)
    assert remembered(till.folder).unended() == ()


def test_what_runs_is_no_remains_of_another_start(till: Till, gate: threading.Event) -> None:
    till.take(push("state", "K-1"))
    till.take(push("state", "K-2"))
    till.commanding.greet(till.memory.unended())  # as when the desk's thread had died and was started again
    assert till.told == []
    gate.set()
    till.settle()
    assert till.outcomes() == ["done", "done"]


# The disk.


def test_what_cannot_be_remembered_is_not_begun(till: Till) -> None:
    (till.folder / FILE).mkdir()
    with pytest.raises(StoreError):
        till.take(push())
    till.settle()
    assert till.did == []
    (till.folder / FILE).rmdir()
    assert till.run().outcome == "done"


def test_an_end_that_the_disk_does_not_take_is_told_and_written_later(till: Till, gate: threading.Event) -> None:
    till.take(push())
    (till.folder / FILE).unlink()
    (till.folder / FILE).mkdir()
    gate.set()
    till.settle()
    assert till.outcomes() == ["done"]
    till.commanding.repeat("K-0001")
    assert till.outcomes() == ["done", "repeated"]
    (till.folder / FILE).rmdir()
    till.now += 60
    till.commanding.turn()
    found = remembered(till.folder).command("K-0001")
    assert found
    assert found.outcome == "done"


def test_all_that_is_remembered_fits_into_a_file_that_is_read_again(till: Till) -> None:
    long = Command("K", NOW + 10**6, "repeated", "钞" * KEPT_LETTERS, 10**6, "diagnostics", NOW, "b" * 12)
    every = {name: replace(long, id=name) for name in (f"K-{number:046}" for number in range(MOST))}
    slips = Slips(till.folder)
    slips.write(FILE, Commands(all=every).content())
    assert (till.folder / FILE).stat().st_size < SLIP
    assert remembered(till.folder).command(f"K-{0:046}") == every[f"K-{0:046}"]


def test_of_a_long_sentence_only_its_begin_is_remembered(till: Till) -> None:
    till.more["restart"] = lambda: fail(ControlError("钞" * 5000))
    till.boot()
    assert till.run("restart").outcome == "failed"
    known = till.memory.command("K-0001")
    assert known
    assert known.detail == "钞" * KEPT_LETTERS


# What the terminal's own file lets it do, and what it takes.


@pytest.mark.parametrize("word", sorted(COMMANDS))
def test_what_the_own_file_does_not_let_it_do_is_refused_and_not_begun(tmp_path: Path, word: str) -> None:
    table = Table(signers=Path("s"), commands=tuple(w for w in ALL.commands if w != word), reboot=word != "reboot")
    till = Till(tmp_path / "pushes", table)
    result = till.run(word)
    assert result.outcome == "refused"
    assert result.detail.endswith("(not_allowed)")
    assert "[push]" in result.detail
    assert [row["reason"] for row in till.rows] == ["not_allowed"]
    assert till.memory.command("K-0001") is None


def test_a_reboot_is_off_unless_the_own_file_lets_it(tmp_path: Path) -> None:
    till = Till(tmp_path / "pushes", Table(signers=Path("s")))
    assert till.run("reboot").detail.endswith("(not_allowed)")


WRONG: list[tuple[str, dict[str, Any]]] = [
    *((word, {"more": 1}) for word in sorted(COMMANDS)),
    ("self_test", {"device": 7}),
    ("counters", {"device": " "}),
    ("journal", {"from": "yesterday"}),
    ("journal", {"to": True}),
    ("maintenance", {"minutes": 30}),
    ("maintenance", {"reason": "belt"}),
    ("maintenance", {"minutes": 0, "reason": "belt"}),
    ("maintenance", {"minutes": 1441, "reason": "belt"}),
    ("maintenance", {"minutes": True, "reason": "belt"}),
    ("maintenance", {"minutes": 30, "reason": ""}),
    ("maintenance", {"minutes": 30, "reason": "\x1b[2Jbelt"}),
    ("maintenance", {"minutes": 30, "reason": "0123456789A"}),
    ("key_order", {}),
    ("key_order", {"order": 5}),
]


@pytest.mark.parametrize(("word", "arguments"), WRONG)
def test_wrong_arguments_are_refused_with_what_is_right(till: Till, word: str, arguments: dict[str, Any]) -> None:
    result = till.run(word, arguments=arguments)
    assert result.outcome == "refused"
    assert result.detail.endswith("(not_valid)")
    assert ERRANDS[word].says in result.detail
    assert till.memory.command("K-0001") is None
    assert "0123456789A" not in str(till.rows)


def test_every_command_of_the_envelope_has_its_errand_and_no_other() -> None:
    assert set(ERRANDS) == set(COMMANDS)
    assert all(ERRANDS[word].fits(RIGHT[word]) for word in COMMANDS)


# How many.


def test_they_run_one_after_the_other_and_what_is_too_much_may_come_again(
    till: Till, gate: threading.Event
) -> None:
    for number in range(WAITS + 3):
        till.take(push("state", f"K-{number}"))
    assert till.did.count("refresh") <= 1
    assert [one.id for one in till.told] == [f"K-{number}" for number in range(WAITS + 1, WAITS + 3)]
    assert all(one.detail.endswith("(busy)") for one in till.told)
    gate.set()
    till.settle()
    late = till.run("state", f"K-{WAITS + 1}")
    assert late.outcome == "done"
    done = [one.id for one in till.told if one.outcome == "done"]
    assert done == [f"K-{number}" for number in range(WAITS + 2)]
    assert till.did.count("refresh") == WAITS + 2


def test_one_whose_time_is_over_when_its_turn_comes_is_not_done(till: Till, gate: threading.Event) -> None:
    till.take(push("state", "K-1"))
    till.take(push("restart", "K-2"))
    till.wall = push().expires + 1
    gate.set()
    till.settle()
    assert [(one.id, one.outcome) for one in till.told] == [("K-1", "done"), ("K-2", "expired")]
    assert "restart" not in till.did


def test_one_that_does_not_end_has_failed_and_the_next_one_runs(till: Till, gate: threading.Event) -> None:
    till.take(push("state", "K-1"))
    till.take(push("restart", "K-2"))
    till.now += LONGEST - 1
    till.commanding.turn()
    assert till.told == []
    till.now += 1
    till.commanding.turn()
    (late,) = till.told
    assert (late.id, late.outcome, late.duration_ms) == ("K-1", "failed", LONGEST * 1000)
    wait("the next one", lambda: "restart" in till.did)
    gate.set()
    till.settle()
    assert till.outcomes() == ["failed"]


def test_a_flood_fills_neither_the_ledger_nor_the_line(till: Till) -> None:
    till.run()
    before = len(till.told)
    for number in range(1000):
        till.take(push("state", f"K-{number}", arguments={"more": 1}))
        till.commanding.refuse("d" * 64, EnvelopeRefused("unknown_key", "nobody here knows the key"))
        till.commanding.repeat("K-0001")
        till.commanding.turn()
    assert len(till.told) - before == 2 * A_MINUTE
    assert len(till.row("refused")) <= A_MINUTE
    till.now += MINUTE
    for _ in range(5):
        till.commanding.turn()
    assert till.row("refused")[-1] == {
        "event": "refused",
        "of": "command",
        "reason": "too_many",
        "count": 2000 - A_MINUTE,
    }
    assert till.run("counters", "K-2").outcome == "done"


@given(st.lists(st.tuples(st.floats(0, 50), st.integers(1, 30)), max_size=30), st.integers(1, 12))
def test_a_ration_is_never_exceeded_and_counts_the_rest(steps: list[tuple[float, int]], most: int) -> None:
    ration, now, told, counted, asked = Ration(most), 0.0, list[float](), 0, 0
    for pause, times in steps:
        now += pause
        counted += ration.passed(now)
        asked += times
        told += [now] * sum(ration.take(now) for _ in range(times))
    assert all(sum(begin <= at < begin + MINUTE for at in told) <= 2 * most for begin in told)
    assert counted + ration.passed(now + 2 * MINUTE) + len(told) == asked


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (PushRefused("expired", "its time is over"), "expired"),
        (PushRefused("wrong_target", "this is for another terminal"), "refused"),
        (EnvelopeRefused("too_few", "one signature is missing"), "refused"),
    ],
)
def test_a_refusal_is_told_with_its_reason(till: Till, error: PushRefused | EnvelopeRefused, outcome: str) -> None:
    assert till.commanding.refuse("d" * 64, error)
    assert till.commanding.refuse("d" * 64, error, push("restart", "K-7"))
    assert [(one.id, one.command) for one in till.told] == [("", ""), ("K-7", "restart")]
    assert {(one.outcome, one.detail) for one in till.told} == {(outcome, f"{error} ({error.reason})")}
    assert till.rows == []


def test_a_bug_ends_one_command_and_no_other(till: Till) -> None:
    till.more["restart"] = lambda: fail(ValueError("secret words"))
    till.boot()
    result = till.run("restart")
    assert result.outcome == "failed"
    assert "secret" not in result.detail
    assert till.run("state", "K-2").outcome == "done"
