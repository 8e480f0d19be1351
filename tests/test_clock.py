"""The wall clock: what a clock that is set does to the rows, and what it must not do to anything that lasts."""

import json
import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent import state
from agent.cli import asking
from agent.clock import STEP, Clock, Instant, Offsets, Trail
from agent.core import Core
from agent.faults import Faults
from agent.model import Heard, Note, Reading, StoredPoint
from agent.pushing.inforce import begin
from agent.service import Service
from agent.timepiece import look
from agent.watch import Watch
from tests.strangers import FAKETIME
from tests.test_core import CATALOGUE
from tests.whole import wait

SECOND, HOUR, YEAR = 1000, 3_600_000, 365 * 86_400_000
WALL = 1_780_000_000_000


class Machine:
    """A core on a machine whose wall clock can be set; keeps the rows, as a store would."""

    def __init__(self, wall: int = WALL, boot: str = "b1", rows: tuple[dict[str, Any], ...] = ()) -> None:
        self.rows: list[dict[str, Any]] = list(rows)
        self.now, self.synced = 100.0, False
        self.boot(wall, boot)

    def boot(self, wall: int, boot: str) -> None:
        """The machine starts with a wall clock; the same boot: only the agent does."""
        self.offset = wall - round(self.now * 1000)
        clock = Clock(boot, self.rows[-64:])
        self.core = Core(Watch({}), Faults(CATALOGUE), boot, clock=clock)
        self.step(Note("start", {}))

    @property
    def wall(self) -> int:
        return self.offset + round(self.now * 1000)

    def set(self, by: int) -> None:
        self.offset += by

    def wait(self, seconds: float) -> list[dict[str, Any]]:
        """Time passes; a core looks every 5 seconds."""
        begun, end = len(self.rows), self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 5.0)
            self.step()
        return self.rows[begun:]

    def step(self, *items: Any) -> list[dict[str, Any]]:
        rows = self.core.step(items, self.now, self.wall, self.synced).rows
        self.rows += rows
        return rows

    def say(self, **points: Any) -> list[dict[str, Any]]:
        readings = tuple(Reading(p.replace("__", "."), v, self.now) for p, v in points.items())
        return self.step(Heard("p", readings))

    def clocks(self) -> list[tuple[int, str]]:
        return [(row["jump_ms"], row["quality"]) for row in self.rows if row["kind"] == "clock"]


def untold(rows: list[dict[str, Any]]) -> list[str]:
    """What a stranger finds who has only the rows."""
    trail = Trail()
    return [what for row in rows if (what := trail.take(row)[0]) not in ("", "told")]


@pytest.mark.parametrize("jump", [YEAR, -HOUR, -10 * YEAR // 365, 3 * SECOND, -3 * SECOND])
def test_a_clock_that_is_set_is_a_row_before_any_row_has_the_new_time(jump: int) -> None:
    machine = Machine()
    machine.say(link__state="up", paper__receipt="full")
    machine.wait(20)
    machine.set(jump)
    rows = machine.say(paper__receipt="low")
    assert [row["kind"] for row in rows[:2]] == ["clock", "change"]
    told = rows[0]
    assert (told["was"] + jump, told["now"], told["jump_ms"]) == (machine.wall, machine.wall, jump)
    assert rows[1]["at"] == machine.wall
    assert untold(machine.rows) == []
    assert untold([row for row in machine.rows if row["kind"] != "clock"]) == (
        ["untold"] if abs(jump) > 5 * SECOND else []
    )


def test_it_is_a_row_also_when_nothing_else_happens_and_only_once() -> None:
    machine = Machine()
    machine.wait(60)
    machine.set(-HOUR)
    assert [row["kind"] for row in machine.wait(600)] == ["clock"]


def test_many_small_steps_are_told_like_the_large_one_that_they_make() -> None:
    machine = Machine()
    for _ in range(20):
        machine.set(-STEP // 2)
        machine.wait(5)
    assert sum(jump for jump, _ in machine.clocks()) == pytest.approx(-10 * STEP, abs=STEP)
    machine.step(Note("stop", {}))
    assert untold(machine.rows) == []


def test_what_lasts_does_not_come_from_the_wall_clock() -> None:
    """Faults, staleness and flapping take their time, whatever the wall clock says meanwhile."""
    histories = []
    for jumps in ((0, 0), (YEAR, -2 * YEAR), (-HOUR, YEAR)):
        machine = Machine()
        machine.say(link__state="up", printer__cover="closed")
        for jump in jumps:
            machine.set(jump)
            machine.wait(3)
            machine.say(link__state="up", printer__cover="open")
            machine.wait(3)
            machine.say(link__state="silent")
        machine.wait(90)
        histories.append([(r["kind"], r["up"], r.get("code")) for r in machine.rows if r["kind"] != "clock"])
    assert histories[0] == histories[1] == histories[2]
    assert {"fault.raised", "unknown"} <= {kind for kind, _, _ in histories[0]}


def test_the_age_of_a_value_is_counted_on_the_clock_that_nobody_can_set() -> None:
    point = StoredPoint("p", "paper.receipt", "low", True, WALL)
    for wall in (WALL, WALL + YEAR, WALL - HOUR):
        for passed, known in ((1.0, True), (60.0, False)):
            moment = Instant(500.0 + passed, wall)
            said = state.shown([point], {"paper.receipt": 500_000}, [], CATALOGUE, moment)["points"][0]
            assert (said["unknown"], said["age"]) == (not known, passed)
            published = state.published([point], {"paper.receipt": 500_000}, [], CATALOGUE, "s", moment)
            assert published.points["paper.receipt"].unknown is not known
            assert published.points["paper.receipt"].at == wall - passed * 1000


def test_the_clock_is_synced_free_or_unset() -> None:
    machine = Machine(wall=1_000_000)
    assert machine.rows[-1]["clock"] == "unset"
    machine.set(WALL)
    machine.wait(5)
    machine.synced = True
    machine.wait(5)
    machine.synced = False
    machine.wait(5)
    assert machine.clocks() == [(WALL, "free"), (0, "synced"), (0, "free")]


def test_a_clock_before_the_last_row_is_unset_until_it_has_passed_it() -> None:
    machine = Machine()
    machine.wait(600)
    machine.step(Note("account", {}))
    machine.set(-60 * SECOND)
    machine.wait(100)
    assert machine.clocks() == [(-60 * SECOND, "unset"), (0, "free")]
    moved = machine.rows[-1]["up"] - machine.rows[-2]["up"]
    assert 55 * SECOND <= moved <= 65 * SECOND


def test_a_clock_that_was_a_year_ahead_for_a_while_does_not_become_the_measure() -> None:
    machine = Machine()
    machine.set(YEAR)
    machine.wait(600)
    machine.step(Note("account", {}))
    machine.set(-YEAR)
    machine.wait(600)
    assert machine.clocks() == [(YEAR, "free"), (-YEAR, "free")]


def test_what_time_it_has_been_is_known_after_a_clock_was_set_back_and_after_a_detour_ahead_it_is_no_other() -> (
    None
):
    machine = Machine()
    machine.wait(600)
    machine.step(Note("account", {}))
    machine.set(-HOUR)
    machine.wait(5)
    assert machine.rows[-1]["at"] < machine.wall + SECOND, "the newest row has the time that was set"
    assert machine.wall < machine.core.known
    machine.synced = True
    machine.wait(5)
    assert machine.core.known <= machine.wall
    machine = Machine()
    machine.set(YEAR)
    machine.wait(600)
    machine.set(-YEAR)
    machine.wait(5)
    assert machine.core.known <= machine.wall


def test_a_clock_that_was_set_while_no_agent_ran_is_told_at_the_start() -> None:
    machine = Machine()
    machine.wait(60)
    machine.step(Note("stop", {}))
    machine.set(-HOUR)
    machine.boot(machine.wall, "b1")
    assert [row["kind"] for row in machine.rows[-2:]] == ["clock", "start"]
    assert machine.clocks() == [(-HOUR, "unset")]
    assert untold(machine.rows) == []


def test_a_machine_that_starts_before_its_last_row_says_that_its_clock_is_unset() -> None:
    machine = Machine()
    machine.wait(60)
    machine.step(Note("stop", {}))
    machine.now = 7.0
    machine.boot(machine.rows[-1]["at"] - YEAR, "b2")
    assert machine.rows[-1]["clock"] == "unset"
    assert untold(machine.rows) == []
    assert untold([row | {"clock": "free"} for row in machine.rows]) == ["restart"]


def test_rows_made_before_the_clock_was_right_are_dated_by_their_boot() -> None:
    machine = Machine(wall=2_000_000)
    machine.say(paper__receipt="full")
    machine.wait(10)
    before = machine.rows[-1]
    machine.set(WALL)
    machine.synced = True
    machine.wait(10)
    machine.now = 5.0
    machine.synced = False
    machine.boot(WALL + YEAR, "b2")
    machine.set(YEAR)
    machine.wait(5)
    offsets = Offsets()
    for row in machine.rows:
        offsets.take(row)
    assert before["at"] < WALL
    assert offsets.redated(before) == before["at"] + WALL
    assert offsets.redated(before | {"boot": "unheard"}) == before["at"]
    assert offsets.redated(machine.rows[-1]) == machine.rows[-1]["at"]


def test_a_synced_clock_counts_more_than_one_that_was_set_later() -> None:
    machine = Machine()
    machine.synced = True
    machine.wait(10)
    machine.synced = False
    machine.set(YEAR)
    machine.wait(10)
    offsets = Offsets()
    for row in machine.rows:
        offsets.take(row)
    assert offsets.redated(machine.rows[-1]) == machine.rows[-1]["at"] - YEAR


class FakeClock:
    """The clock of a service: the true monotonic one, and a wall clock that is moved by hand."""

    def __init__(self) -> None:
        self.moved = 0

    def __call__(self) -> Instant:
        true = look()
        return Instant(true.now, true.wall_ms + self.moved, False)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The rows of the store in an agent's folder, read behind its back."""
    with closing(sqlite3.connect(f"file:{folder}/data/store.db?mode=ro", uri=True)) as db:
        return [json.loads(row) for (row,) in db.execute("SELECT CAST(row AS BLOB) FROM ledger ORDER BY seq")]


def configured(folder: Path) -> Path:
    """The configuration of an agent whose only device is not there."""
    path = folder / "terminal.toml"
    path.write_text(
        '[terminal]\norg = "coop"\nid = "ATM-0001"\ndata = "data"\n[control]\nsocket = "tw.sock"\n'
        '[devices.ups1]\nkind = "ups"\nport = "./none"\n'
    )
    return path


def wake(folder: Path, name: str) -> None:
    """Have an agent write a row, about an account of that name."""
    add = {"do": "accounts", "act": "add", "name": name, "role": "technician", "password": "never used 1"}
    assert "done" in asking.ask_once(folder / "tw.sock", add)
    wait("its row", lambda: [row for row in rows_of(folder) if row.get("name") == name])


def test_an_agent_lives_through_a_clock_that_is_set_a_year_ahead_and_before_its_last_row(tmp_path: Path) -> None:
    clock = FakeClock()
    service = Service(begin(configured(tmp_path)), clock)
    running = threading.Thread(target=service.run)
    running.start()
    try:
        wait("the agent", lambda: rows_of(tmp_path))
        for name, jump in (("ann", YEAR), ("bob", -YEAR - HOUR)):
            clock.moved += jump
            wake(tmp_path, name)
        assert running.is_alive()
    finally:
        service.stop.set()
        running.join(15.0)
    rows = rows_of(tmp_path)
    told = [row for row in rows if row["kind"] == "clock"]
    assert [row["quality"] for row in told] == ["free", "unset"]
    assert [row["jump_ms"] for row in told] == pytest.approx([YEAR, -YEAR - HOUR], abs=200)
    assert untold(rows) == []
    assert rows[-1]["kind"] == "checkpoint"


@pytest.mark.peer("faketime")
def test_the_real_process_lives_through_it_too(tmp_path: Path) -> None:
    """Every wall clock of the process is set, by a library between it and the system; the monotonic one stays."""
    moved = tmp_path / "moved"
    moved.write_text("+0")
    fake = {"LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(moved), "FAKETIME_NO_CACHE": "1"}
    environment = {**os.environ, **fake, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    command = [sys.executable, "-m", "agent", "--config", str(configured(tmp_path))]
    with (tmp_path / "log").open("wb") as log:
        agent = subprocess.Popen(command, env=environment, stderr=log)
    try:
        wait("the agent", (tmp_path / "tw.sock").exists)
        wake(tmp_path, "ann")
        for name, when in (("bob", "+365d"), ("cho", "-1h")):
            moved.write_text(when)
            wake(tmp_path, name)
        agent.terminate()
        assert agent.wait(20.0) == 0
    finally:
        agent.kill()
    rows = rows_of(tmp_path)
    told = [(row["jump_ms"], row["quality"]) for row in rows if row["kind"] == "clock"]
    assert [quality for _, quality in told] == ["free", "unset"]
    assert [jump for jump, _ in told] == pytest.approx([YEAR, -YEAR - HOUR], abs=1000)
    assert untold(rows) == []
    assert "Traceback" not in (tmp_path / "log").read_text()
