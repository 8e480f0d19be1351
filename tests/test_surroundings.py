"""What a terminal knows of switch, doors and EPP, and when it does not know any more. Time is a number."""

import pytest

from agent.keys.surroundings import GONE, SILENT, Watched
from agent.model import Heard, Outcome, Reading
from agent.points import lookup

CONDITIONS = {
    "maintenance": {("panel1", "operator_switch"): "maintenance"},
    "doors": {("panel1", "safe_door"): "closed", ("panel2", "cabinet_door"): "locked"},
    "stopped": {("epp1", "epp.state"): "ready"},
}


def watched(*readings: tuple[str, str, str], at: float = 100.0) -> Watched:
    """One that has heard this: (device, point, value)."""
    found = Watched("epp1", CONDITIONS)
    hear(found, *readings, at=at)
    return found


def hear(found: Watched, *readings: tuple[str, str, str], at: float = 100.0) -> None:
    for device, point, value in readings:
        found.take(Heard(device, (Reading(point, value, at), Outcome("o1", "done", "", at))))


UP = ("epp1", "link.state", "up")
SERIAL = ("epp1", "device.serial", "E-1")


def test_only_devices_of_a_condition_and_the_epp_matter() -> None:
    found = watched()
    assert [name for name in ("epp1", "panel1", "panel2", "panel3", "") if found.wants(name)] == [
        "epp1",
        "panel1",
        "panel2",
    ]


def test_a_group_stands_when_all_of_it_is_as_it_must_be() -> None:
    found = watched(("panel1", "safe_door", "closed"))
    assert not found.stands("doors", 100.0)
    hear(found, ("panel2", "cabinet_door", "locked"))
    assert found.stands("doors", 100.0)
    hear(found, ("panel1", "safe_door", "open"))
    assert not found.stands("doors", 100.0)
    assert not found.stands("maintenance", 100.0)


def test_a_door_that_was_not_heard_for_its_time_is_not_known_to_be_closed() -> None:
    found = watched(("panel1", "operator_switch", "maintenance"))
    lasts = lookup("operator_switch").max_age
    assert found.stands("maintenance", 100.0 + lasts)
    assert not found.stands("maintenance", 100.1 + lasts)
    lacking = [words.en for words in found.lacking(100.1 + lasts)]
    assert "panel1.operator_switch is unknown and must be maintenance" in lacking


def test_what_is_lacking_is_told_with_what_it_must_be() -> None:
    found = watched(("panel1", "safe_door", "open"), ("panel1", "operator_switch", "maintenance"))
    assert found.lacking(100.0) == [
        ("panel1.safe_door is open and must be closed", "panel1.safe_door现为open，须为closed"),
        ("panel2.cabinet_door is unknown and must be locked", "panel2.cabinet_door状态不明，须为locked"),
        ("epp1.epp.state is unknown and must be ready", "epp1.epp.state状态不明，须为ready"),
    ]


def test_another_devices_reading_of_the_same_name_counts_for_nothing() -> None:
    found = watched(("panel2", "safe_door", "closed"), ("panel1", "device.serial", "P-9"), ("panel2", *UP[1:]))
    assert not found.stands("doors", 100.0)
    assert found.serial == ""
    assert not found.answers(100.0)


def test_an_epp_that_never_spoke_does_not_answer() -> None:
    assert watched().trouble(0.0) == "device_lost"
    assert watched(("epp1", "device.serial", "E-1")).trouble(100.0) == "device_lost"


def test_an_epp_answers_as_long_as_its_line_is_up_and_something_comes() -> None:
    found = watched(UP, SERIAL)
    assert found.trouble(100.0 + SILENT) == ""
    assert found.trouble(100.1 + SILENT) == "device_lost"
    hear(found, ("epp1", "epp.battery", "ok"), at=150.0)
    assert found.trouble(150.0 + SILENT) == ""
    hear(found, ("epp1", "epp.battery", "ok"), at=150.1 + SILENT)
    assert found.trouble(150.1 + SILENT) == "device_lost"
    hear(found, SERIAL, at=150.1 + SILENT)
    assert found.trouble(150.1 + SILENT) == ""


@pytest.mark.parametrize("word", ["silent", "rubbish", "stale", "missing", "busy", "denied", "unusable"])
def test_an_epp_whose_line_is_not_up_is_lost_at_once(word: str) -> None:
    found = watched(UP, SERIAL, ("epp1", "link.state", word))
    assert found.trouble(100.0) == "device_lost"
    hear(found, UP)
    assert found.trouble(100.0) == "device_lost"  # it may be another one
    hear(found, SERIAL)
    assert found.trouble(100.0) == ""


@pytest.mark.parametrize("word", sorted(GONE))
def test_an_epp_that_its_service_does_not_reach_is_lost(word: str) -> None:
    assert word in lookup("device.state").words
    found = watched(UP, SERIAL, ("epp1", "device.state", word))
    assert found.trouble(100.0) == "device_lost"
    hear(found, ("epp1", "device.state", "online"))
    assert found.trouble(100.0) == "device_lost"
    hear(found, SERIAL)
    assert found.trouble(100.0) == ""


def test_tamper_comes_before_everything_else() -> None:
    found = watched(("epp1", "epp.tamper", "tampered"))
    assert found.trouble(100.0) == "tamper"
    assert watched(UP, SERIAL, ("epp1", "epp.tamper", "ok")).trouble(100.0) == ""


def test_what_was_said_too_long_ago_is_not_held_against_the_epp() -> None:
    for point, word in (("device.state", "offline"), ("epp.tamper", "tampered")):
        found = watched(("epp1", point, word))
        hear(found, UP, SERIAL, at=150.0)
        assert lookup(point).max_age < 50.0
        assert found.trouble(150.0) == ""


def test_the_serial_number_stays_known_and_another_one_is_another_epp() -> None:
    found = watched(UP, ("epp1", "device.serial", "E-1"), ("epp1", "link.state", "silent"))
    assert found.serial == "E-1"
    assert found.identity[:2] == ("E-1", False)
    hear(found, ("epp1", "device.serial", "E-2"))
    assert found.identity[:2] == ("E-2", False)


def test_a_pad_that_was_opened_stays_so_until_it_says_otherwise() -> None:
    found = watched(("epp1", "epp.tamper", "tampered"))
    hear(found, UP, at=1000.0)
    assert found.identity[:2] == ("", True)
    hear(found, ("epp1", "epp.tamper", "ok"), at=1000.0)
    assert found.identity[:2] == ("", False)


def test_slots_that_the_epp_tells_of_are_remembered() -> None:
    names = ("key.TMK.state", "key.zone.1.state", "key.TMK.kcv", "epp.state", "device.state")
    found = watched(*(("epp1", name, "loaded") for name in names), ("panel1", "key.X.state", "loaded"))
    assert found.slots == {"TMK", "zone.1"}
