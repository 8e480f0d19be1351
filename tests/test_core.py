"""What one drain of the queue becomes, in virtual time: rows, points, faults, and no flood."""

from importlib import resources
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agent import catalogue, ledger
from agent.core import Core
from agent.faults import Faults
from agent.flapping import STEADY
from agent.model import Batch, Fault, Heard, Note, Operation, Outcome, Reading
from agent.watch import Watch

CATALOGUE = catalogue.parse(resources.files("agent").joinpath("faults.toml").read_text("utf-8"))
WALL = 1_700_000_000_000


class Terminal:
    """A core that is stepped by hand; keeps every row, and the open faults as a store would."""

    def __init__(self) -> None:
        self.faults = Faults(CATALOGUE)
        self.core = Core(Watch({}), self.faults, "boot1")
        self.now = 100.0
        self.rows: list[dict[str, Any]] = []
        self.batch = Batch()
        self.stored: dict[tuple[str, str, str], Fault] = {}

    def hear(self, device: str, **points: Any) -> list[dict[str, Any]]:
        readings = tuple(Reading(p.replace("__", "."), v, self.now) for p, v in points.items())
        return self.step(Heard(device, readings))

    def step(self, *items: Any) -> list[dict[str, Any]]:
        self.batch = batch = self.core.step(items, self.now, WALL + round(self.now * 1000))
        self.rows += batch.rows
        self.stored |= {(f.device, f.point, f.code): f for f in batch.raised}
        for f in batch.cleared:
            self.stored.pop((f.device, f.point, f.code), None)
        return batch.rows

    def chatter(
        self, device: str, point: str, words: list[str], times: int, gap: float = 1.0
    ) -> list[dict[str, Any]]:
        """The words in turn, `times` changes in all, `gap` seconds apart."""
        begun = len(self.rows)
        for n in range(times):
            self.now += gap
            self.hear(device, **{point.replace(".", "__"): words[n % len(words)]})
        return self.rows[begun:]

    def view(self, device: str, point: str) -> Any:
        """What a reader of the ledger alone takes the point for."""
        return ledger.view(self.rows)[device][point]

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
    reading = Reading("paper.receipt", "out", seen, raw="1E")
    terminal.now += 0.25
    (row, fault) = terminal.step(Heard("p", (reading,)))
    assert (row["value"], row["was"], row["raw"]) == ("out", "full", "1E")
    assert row["at"] == WALL + round(seen * 1000)
    assert row["up"] == round(seen * 1000)
    assert (fault["kind"], fault["code"]) == ("fault.raised", "paper.out")


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
    batch = terminal.core.finish(terminal.now, WALL + round(terminal.now * 1000), Note("stop", {"reason": "asked"}))
    assert sorted(kinds(batch.rows)) == ["known", "stop"]


def test_faults_and_doors_are_urgent_and_returns_are_not() -> None:
    terminal = Terminal()
    heard = Heard("p", (Reading("paper.receipt", "full", 100.0),))
    assert not terminal.core.step([heard], 100.0, WALL).urgent
    heard = Heard("p", (Reading("paper.receipt", "out", 101.0),))
    assert terminal.core.step([heard], 101.0, WALL).urgent


def test_a_chattering_input_is_one_fault_and_few_rows_and_its_count_is_kept() -> None:
    terminal = Terminal()
    terminal.hear("p", printer__cover="closed")
    terminal.pass_time(3)
    first = terminal.chatter("p", "printer.cover", ["open", "closed"], 5)
    assert kinds(first) == ["change", "fault.raised", "change", "fault.cleared"] * 2 + ["change", "fault.raised"]
    rest = terminal.chatter("p", "printer.cover", ["closed", "open"], 3600)
    assert kinds(rest) == ["flapping", "fault.flapping"]
    assert (rest[0]["value"], rest[0]["was"], rest[0]["count"], rest[1]["count"]) == ("closed", "open", 6, 6)
    assert [f.code for f in terminal.stored.values()] == ["printer.cover_open"]
    terminal.hear("p", printer__cover="closed")
    still = terminal.now
    end = []
    for _ in range(round(STEADY)):
        end += terminal.pass_time(1) + terminal.hear("p", printer__cover="closed")
    assert kinds(end) == ["steady", "fault.cleared"]
    assert (end[0]["value"], end[0]["count"], end[1]["count"]) == ("closed", 3606, 3606)
    assert end[0]["since"] == WALL + round(still * 1000)
    assert terminal.stored == {}


def test_the_ledger_alone_never_gives_a_wrong_value_of_what_flaps() -> None:
    terminal = Terminal()
    terminal.hear("p", paper__receipt="full")
    terminal.pass_time(3)
    terminal.chatter("p", "paper.receipt", ["out", "full"], 20)
    assert terminal.view("p", "paper.receipt") is None, "the rows do not tell which of the two"
    terminal.hear("p", paper__receipt="jammed")
    assert terminal.view("p", "paper.receipt") == "jammed", "another change is a row of its own"
    assert [f.code for f in terminal.stored.values()] == ["paper.jammed"]
    terminal.hear("p", paper__receipt="full")
    assert terminal.view("p", "paper.receipt") == "full"
    terminal.chatter("p", "paper.receipt", ["out"], 1)
    assert terminal.view("p", "paper.receipt") is None, "it flaps again, and the ledger must not go on saying full"
    for _ in range(70):
        terminal.pass_time(1)
        terminal.hear("p", paper__receipt="out")
    assert terminal.view("p", "paper.receipt") == "out"
    assert [(f.code, f.raw) for f in terminal.stored.values()] == [("paper.out", "")]


def test_what_flaps_and_falls_silent_is_unknown_and_then_what_it_is() -> None:
    terminal = Terminal()
    terminal.hear("p", paper__receipt="full")
    terminal.chatter("p", "paper.receipt", ["out", "full"], 21)
    terminal.pass_time(200)
    assert terminal.view("p", "paper.receipt") is None
    assert [f.code for f in terminal.stored.values()] == ["paper.out"], "not seeing is not being well"
    terminal.hear("p", paper__receipt="full")
    terminal.pass_time(5)
    assert terminal.view("p", "paper.receipt") == "full"
    assert terminal.stored == {}


def test_what_is_known_again_while_it_flaps_is_not_taken_for_steady() -> None:
    terminal = Terminal()
    terminal.hear("p", paper__receipt="full")
    terminal.chatter("p", "paper.receipt", ["out", "full"], 20)
    terminal.pass_time(20)
    terminal.hear("p", paper__receipt="full")
    terminal.pass_time(3)
    assert terminal.view("p", "paper.receipt") == "full"
    terminal.chatter("p", "paper.receipt", ["out", "full"], 2)
    assert terminal.view("p", "paper.receipt") is None


def test_every_change_of_a_door_is_a_row_however_fast() -> None:
    terminal = Terminal()
    terminal.hear("panel", safe_door="closed", tamper="off")
    terminal.pass_time(3)
    rows = terminal.chatter("panel", "safe_door", ["open", "closed"], 200, 0.2)
    assert [r["value"] for r in rows if r["kind"] == "change"] == ["open", "closed"] * 100
    assert sum(r["kind"].startswith("fault.") for r in rows) == 6, "but its fault is one that flaps"
    assert terminal.batch.urgent
    assert terminal.view("panel", "safe_door") == "closed"
    assert [f.code for f in terminal.stored.values()] == ["door.safe_open"]
    for _ in range(70):
        terminal.pass_time(1)
        terminal.hear("panel", safe_door="closed")
    assert terminal.stored == {}
    assert terminal.rows[-1]["kind"] == "fault.cleared"
    assert terminal.rows[-1]["count"] == 200


def test_a_harmless_point_that_chatters_floods_nobody() -> None:
    terminal = Terminal()
    terminal.hear("p", printer__feed_button="released")
    terminal.pass_time(3)
    rows = terminal.chatter("p", "printer.feed_button", ["pressed", "released"], 1000, 0.5)
    assert kinds(rows) == ["change"] * 5 + ["flapping"]
    assert terminal.stored == {}


def test_a_fault_that_ends_and_begins_again_in_one_step_is_still_stored() -> None:
    terminal = Terminal()
    terminal.hear("p", paper__receipt="out")
    readings = [Reading("paper.receipt", word, terminal.now) for word in ("full", "out")]
    rows = terminal.step(Heard("p", tuple(readings)))
    assert kinds(rows) == ["change", "fault.cleared", "change", "fault.raised"]
    assert [f.code for f in terminal.stored.values()] == ["paper.out"]
    assert not terminal.batch.cleared


def test_lost_mains_explains_the_silent_devices_in_the_ledger() -> None:
    terminal = Terminal()
    terminal.hear("p", link__state="up")
    terminal.hear("ups", link__state="up", mains="ok")
    terminal.hear("p", link__state="silent")
    terminal.now += 1.0
    rows = terminal.hear("ups", mains="lost")
    (row,) = [r for r in rows if r["kind"] == "fault.explained"]
    assert (row["device"], row["code"], row["by"]) == ("p", "link.silent", "ups")
    for _ in range(5):
        terminal.pass_time(1)
        terminal.hear("ups", link__state="up", mains="lost")
        terminal.hear("p", link__state="silent")
    assert [f.code for f in terminal.stored.values()] == ["power.mains_lost"]
    terminal.hear("ups", mains="ok")
    for _ in range(61):
        terminal.pass_time(1)
        terminal.hear("p", link__state="silent")
        terminal.hear("ups", link__state="up", mains="ok")
    assert [(f.device, f.code) for f in terminal.stored.values()] == [("p", "link.silent")]


SAID = {
    "p": {
        "paper.receipt": ["full", "low", "out"],
        "printer.cover": ["closed", "open"],
        "link.state": ["up", "silent"],
    },
    "ups": {"mains": ["ok", "lost"], "link.state": ["up", "silent"]},
    "panel": {"safe_door": ["closed", "open", "locked"]},
}
PHRASE = st.sampled_from([(d, p) for d, said in SAID.items() for p in said]).flatmap(
    lambda of: st.tuples(st.just(of), st.lists(st.sampled_from(SAID[of[0]][of[1]]), min_size=1, max_size=12))
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(PHRASE, st.sampled_from([0.2, 1.0, 4.0, 20.0])), max_size=12))
def test_at_rest_the_ledger_and_the_store_say_what_is_true(
    story: list[tuple[tuple[tuple[str, str], list[str]], float]],
) -> None:
    terminal = Terminal()
    truth: dict[tuple[str, str], str] = {}
    for (of, words), gap in story:
        terminal.chatter(of[0], of[1], words, len(words), gap)
        truth[of] = words[-1]
    for _ in range(400):
        terminal.pass_time(0.5)
        for (device, point), word in truth.items():
            terminal.hear(device, **{point.replace(".", "__"): word})
    for (device, point), word in truth.items():
        assert terminal.view(device, point) == word
    assert {k: f.since for k, f in terminal.stored.items()} == {
        (f.device, f.point, f.code): f.since for f in terminal.faults.open()
    }
    mains_lost = truth.get(("ups", "mains")) == "lost"
    for (device, point), word in truth.items():
        rule = CATALOGUE.rule(point, word)
        found = [f.code for f in terminal.stored.values() if (f.device, f.point) == (device, point)]
        if rule is None:
            assert found == []
        elif not (mains_lost and rule.explained):
            assert found == [rule.code]
    assert not any(f.raw.startswith("flapping") for f in terminal.stored.values())


def test_what_may_be_known_of_an_outcome_is_in_its_row_and_a_relayed_block_is_not() -> None:
    terminal = Terminal()
    order = Operation("op2", "epp1", "key_import", "root", {"slot": "TMK"}, opaque=b"D0112 no such block")
    asked = terminal.step(order)
    done = terminal.step(Heard("epp1", (Outcome("op2", "done", "loaded", 1001.0, facts={"kcv": "08D7B4"}),)))
    assert done[-1]["facts"] == {"kcv": "08D7B4"}
    assert "no such block" not in repr(order)
    assert "no such block" not in repr(asked)
