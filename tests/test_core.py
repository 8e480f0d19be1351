"""What one drain of the queue becomes, in virtual time: rows, points, faults, and no flood."""

from importlib import resources
from typing import Any

from agent import faults as fault_rules
from agent.core import Core
from agent.faults import Faults
from agent.model import Heard, Note, Operation, Outcome, Reading
from agent.watch import Watch

CATALOGUE = fault_rules.parse(resources.files("agent").joinpath("faults.toml").read_text("utf-8"))
WALL = 1_700_000_000_000


class Terminal:
    """A core that is stepped by hand; keeps every row."""

    def __init__(self) -> None:
        self.core = Core(Watch({}), Faults(CATALOGUE), "boot1")
        self.now = 100.0
        self.rows: list[dict[str, Any]] = []

    def hear(self, device: str, **points: Any) -> list[dict[str, Any]]:
        readings = tuple(Reading(p.replace("__", "."), v, self.now) for p, v in points.items())
        return self.step(Heard(device, readings))

    def step(self, *items: Any) -> list[dict[str, Any]]:
        batch = self.core.step(items, self.now, WALL + round(self.now * 1000))
        self.rows += batch.rows
        return batch.rows

    def pass_time(self, seconds: float) -> list[dict[str, Any]]:
        begun, end = len(self.rows), self.now + seconds
        while (due := self.core.deadline()) <= end:
            self.now = max(self.now, due) + 0.001
            self.step()
        self.now = end
        return self.rows[begun:]


def kinds(rows: list[dict[str, Any]]) -> list[str]:
    return [row["kind"] for row in rows]


def test_first_contact_is_one_row_for_all_points() -> None:
    terminal = Terminal()
    terminal.hear("p", link__state="up", paper__receipt="full")
    terminal.now += 0.5
    terminal.hear("p", printer__cover="closed")
    rows = terminal.pass_time(5)
    assert kinds(terminal.rows) == ["known"]
    assert rows[0]["values"] == {"link.state": "up", "paper.receipt": "full", "printer.cover": "closed"}


def test_a_change_is_a_row_at_the_time_it_was_seen() -> None:
    terminal = Terminal()
    terminal.hear("p", paper__receipt="full")
    seen = terminal.now
    reading = Reading("paper.receipt", "low", seen, raw="1E")
    terminal.now += 0.25
    (row, fault) = terminal.step(Heard("p", (reading,)))
    assert (row["value"], row["was"], row["raw"]) == ("low", "full", "1E")
    assert row["at"] == WALL + round(seen * 1000)
    assert row["up"] == round(seen * 1000)
    assert (fault["kind"], fault["code"]) == ("fault.raised", "paper.low")


def test_measures_never_reach_the_ledger() -> None:
    terminal = Terminal()
    terminal.hear("u", input__voltage=230.0)
    assert terminal.hear("u", input__voltage=180.0) == []
    assert terminal.pass_time(60) == []


def test_a_device_that_falls_silent_and_returns_costs_few_rows() -> None:
    terminal = Terminal()
    words = {f"cassette__{n}__state": "ok" for n in range(1, 5)} | {"dispenser__error": "ok"}
    terminal.hear("d", link__state="up", **words)
    terminal.pass_time(3)
    silent = []
    for _ in range(40):
        silent += terminal.hear("d", link__state="silent") + terminal.pass_time(1)
    assert kinds(silent) == ["change", "fault.raised", "unknown"]
    assert len(silent[-1]["points"]) == 5
    back = terminal.hear("d", link__state="up", **words) + terminal.pass_time(5)
    assert kinds(back) == ["change", "fault.cleared", "known"]
    assert len(back[-1]["values"]) == 5


def test_what_changed_while_it_was_away_is_a_change_not_a_return() -> None:
    terminal = Terminal()
    terminal.hear("p", paper__receipt="full", printer__cover="closed")
    terminal.pass_time(20)
    back = terminal.hear("p", paper__receipt="out", printer__cover="closed") + terminal.pass_time(5)
    changes = [r for r in back if r["kind"] == "change"]
    assert [(r["point"], r["value"], r["was"]) for r in changes] == [("paper.receipt", "out", "full")]
    assert [r["values"] for r in back if r["kind"] == "known"] == [{"printer.cover": "closed"}]


def test_a_point_that_changes_while_its_return_is_gathered_is_not_reported_with_the_old_value() -> None:
    terminal = Terminal()
    terminal.hear("p", paper__receipt="full", printer__cover="closed")
    terminal.hear("p", paper__receipt="low")
    known = [r for r in terminal.pass_time(5) if r["kind"] == "known"]
    assert known[0]["values"] == {"printer.cover": "closed"}


def test_a_dead_link_thread_is_one_fault() -> None:
    terminal = Terminal()
    terminal.hear("p", link__state="up", paper__receipt="full")
    terminal.pass_time(3)
    rows = terminal.pass_time(60)
    assert sorted(kinds(rows)) == ["fault.raised", "unknown"]
    assert next(r for r in rows if r["kind"] == "fault.raised")["code"] == "link.stale"


def test_an_operation_and_its_outcome_are_rows() -> None:
    terminal = Terminal()
    asked = terminal.step(Operation("id1", "u", "self_test", "root"))
    assert kinds(asked) == ["operation"]
    (row,) = terminal.step(Heard("u", (Outcome("id1", "done", "accepted", terminal.now),)))
    assert (row["kind"], row["id"], row["result"], row["device"]) == ("outcome", "id1", "done", "u")


def test_a_planned_stop_leaves_nothing_gathered_behind() -> None:
    terminal = Terminal()
    terminal.hear("p", paper__receipt="full")
    batch = terminal.core.finish(terminal.now, WALL, Note("stop", {"reason": "asked"}))
    assert sorted(kinds(batch.rows)) == ["known", "stop"]


def test_faults_and_doors_are_urgent_and_returns_are_not() -> None:
    terminal = Terminal()
    heard = Heard("p", (Reading("paper.receipt", "full", 100.0),))
    assert not terminal.core.step([heard], 100.0, WALL).urgent
    heard = Heard("p", (Reading("paper.receipt", "out", 101.0),))
    assert terminal.core.step([heard], 101.0, WALL).urgent
