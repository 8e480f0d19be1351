"""A device that is taken out of a running terminal leaves nothing behind, and takes nothing of others with it."""

from agent.model import Reading
from tests.test_core import Terminal, kinds


def settled() -> Terminal:
    """A UPS without mains, and a printer without paper, both known and with an open fault."""
    terminal = Terminal()
    terminal.hear("u", link__state="up", mains="lost")
    terminal.hear("p", link__state="up", paper__receipt="out", printer__cover="closed")
    terminal.pass_time(5)
    assert {fault.device for fault in terminal.stored.values()} == {"u", "p"}
    terminal.rows.clear()
    return terminal


def test_what_is_known_becomes_unknown_and_open_faults_end() -> None:
    terminal = settled()
    terminal.core.forget(["p"])
    rows = terminal.step()
    assert [(row["kind"], row["device"]) for row in rows] == [("unknown", "p"), ("fault.cleared", "p")]
    assert rows[0]["points"] == ["link.state", "paper.receipt", "printer.cover"]
    assert rows[1]["why"] == "the device is not configured any more"
    assert {(p.device, p.point, p.known) for p in terminal.batch.points} == {
        ("p", point, False) for point in rows[0]["points"]
    }
    assert {fault.device for fault in terminal.stored.values()} == {"u"}
    terminal.hear("u", link__state="up", mains="lost")
    assert kinds(terminal.pass_time(8)) == [], "and it is told once; the other one goes on"


def test_what_was_about_to_be_said_of_it_is_not_said() -> None:
    terminal = Terminal()
    terminal.hear("p", link__state="up", paper__receipt="full")
    terminal.pass_time(5)
    terminal.chatter("p", "printer.cover", ["open", "closed"], 13)
    terminal.hear("p", link__state="silent", printer__error="other")
    terminal.rows.clear()
    terminal.core.forget(["p"])
    terminal.step()
    assert set(kinds(terminal.rows)) <= {"unknown", "fault.cleared"}
    assert terminal.stored == {}
    assert terminal.pass_time(3600) == []
    assert terminal.core.deadline() == float("inf")


def test_what_its_lost_supply_explained_is_a_fault_of_its_own_now() -> None:
    terminal = Terminal()
    terminal.hear("u", link__state="up", mains="ok")
    terminal.hear("p", link__state="up")
    terminal.pass_time(5)
    terminal.hear("u", mains="lost")
    terminal.now += 1
    rows = terminal.hear("p", link__state="silent") + terminal.step()
    assert [(row["code"], row["by"]) for row in rows if row["kind"] == "fault.explained"] == [("link.silent", "u")]
    terminal.core.forget(["u"])
    terminal.step()
    terminal.pass_time(1)
    assert [(f.device, f.code) for f in terminal.stored.values()] == [("p", "link.silent")]


def test_one_that_comes_back_goes_on_from_what_is_stored() -> None:
    terminal = Terminal()
    terminal.hear("d", cassette__1__dispensed=0, cassette__1__count=900)
    terminal.hear("d", cassette__1__dispensed=40, cassette__1__count=860)
    terminal.pass_time(5)
    terminal.core.forget(["d"])
    terminal.step()
    terminal.core.learn({("d", "cassette.1.dispensed"): 40, ("d", "cassette.1.count"): 860})
    terminal.now += 60
    assert terminal.step() == []
    terminal.hear("d", cassette__1__dispensed=0, cassette__1__count=850)
    terminal.hear("d", cassette__1__dispensed=5)
    terminal.pass_time(5)
    assert terminal.view("d", "cassette.1.dispensed") == 45
    assert terminal.view("d", "cassette.1.count") == 850


def test_what_is_learned_takes_nothing_from_what_is_known() -> None:
    terminal = settled()
    terminal.core.learn({("p", "paper.receipt"): "full", ("p", "device.model"): "old"})
    assert terminal.core._watch.take("p", Reading("paper.receipt", "out", terminal.now)) is None
