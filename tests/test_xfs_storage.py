"""What XFS4IoT's storage units and keys become."""

import json
from itertools import pairwise
from typing import Any

import pytest

from agent.drivers.xfs_keys import Keys
from agent.drivers.xfs_storage import Storage
from agent.model import Reading
from agent.points import lookup
from tests.recorded import alone, answer, event, scripted
from tests.test_drivers import check


def storage(**units: Any) -> dict[str, Reading]:
    said = Storage().replace(units, 5.0)
    check([*said])
    return {reading.point: reading for reading in said}


def cash(initial: Any = 0, out: Any = None, into: Any = None, **status: Any) -> dict[str, Any]:
    """A cash unit with these counts, whatever they are."""
    return {"status": "ok", "cash": {"status": {"initial": initial, "out": out or {}, "in": into or {}, **status}}}


def test_what_is_in_a_unit_is_initial_plus_in_minus_out_over_items_and_levels() -> None:
    unit = cash(
        {"unrecognized": 5, "typeEUR20": {"fit": 100, "unfit": 10, "suspect": 1}, "typeEUR50": {"fit": 20}},
        {
            "presented": {"typeEUR20": {"fit": 30}, "unrecognized": 1},
            "rejected": {"typeEUR50": {"unfit": 2}},
            "distributed": {"typeEUR50": {"fit": 1}},
            "unknown": {"unrecognized": 1},
            "stacked": {"typeEUR20": {"fit": 4}},
            "transport": {"typeEUR20": {"fit": 1}},
        },
        {
            "retractOperations": 1000,
            "deposited": {"typeEUR50": {"fit": 7}},
            "retracted": {"unrecognized": 3},
            "rejected": {"unrecognized": 2},
            "distributed": {"typeEUR20": {"fit": 1}},
            "transport": {"unrecognized": 50},
        },
    )
    said = storage(unit1=unit)
    assert said["cassette.unit1.count"].value == 136 + 13 - 35
    assert said["cassette.unit1.count"].raw == "initial 136 + in 13 - out 35, under way 5"
    assert said["cassette.unit1.initial"].value == 136
    assert said["cassette.unit1.presented"].value == 31
    assert said["cassette.unit1.retracted"].value == 3


def test_counts_that_cannot_be_are_no_reading() -> None:
    assert "cassette.unit1.count" not in storage(
        unit1=cash({"unrecognized": 2}, {"presented": {"unrecognized": 5}})
    )
    assert "cassette.unit1.count" not in storage(unit1=cash(None))
    assert "cassette.unit1.count" not in storage(
        unit1=cash({"typeEUR20": {"fit": "many", "unfit": True, "inked": 1.5}})
    )
    assert "cassette.unit1.count" not in storage(unit1=cash({"unrecognized": 10**12}))
    assert storage(unit1=cash({"unrecognized": 2}, count=9))["cassette.unit1.count"].value == 9


@pytest.mark.parametrize(
    ("status", "replenishment", "operation", "state"),
    [
        ("ok", "ok", None, "ok"),
        ("ok", "full", None, "full"),
        ("ok", "high", None, "high"),
        ("ok", "low", None, "low"),
        ("ok", "empty", None, "empty"),
        ("inoperative", "low", None, "inoperative"),
        ("missing", None, None, "missing"),
        ("notConfigured", "empty", None, "notConfigured"),
        ("manipulated", "ok", None, "manipulated"),
        ("ok", None, None, "ok"),
        (None, "low", None, "low"),
        ("ok", "ok", "dispenseInoperative", "inoperative"),
        ("missing", "ok", "depositInoperative", "missing"),
        ("burning", "ok", None, "vendor.burning"),
    ],
)
def test_a_unit_that_is_not_ok_is_that_however_full_it_is(
    status: str | None, replenishment: str | None, operation: str | None, state: str
) -> None:
    unit = {**cash({}, replenishmentStatus=replenishment, operationStatus=operation), "status": status}
    said = storage(unit1=unit)["cassette.unit1.state"]
    assert said.value == state
    assert f"status={status}" in said.raw or status is None


def test_what_a_unit_is_for() -> None:
    configuration = {
        "types": {"cashIn": True, "cashOut": True, "reject": False},
        "currency": "EUR",
        "value": 20.0,
        "appLockIn": False,
        "appLockOut": True,
    }
    unit = cash({"unrecognized": 1}, accuracy="inaccurate")
    unit["cash"]["configuration"] = configuration
    unit |= {"capacity": 1500, "serialNumber": "123456789012345", "banknoteNeutralization": {"protection": "armed"}}
    said = {point.removeprefix("cassette.unit1."): r.value for point, r in storage(unit1=unit).items()}
    assert {k: said[k] for k in ("type", "note", "lock", "capacity", "serial", "accuracy", "neutralization")} == {
        "type": "cashIn, cashOut",
        "note": "EUR 20",
        "lock": "out",
        "capacity": 1500,
        "serial": "123456789012345",
        "accuracy": "inaccurate",
        "neutralization": "armed",
    }
    for applock, word in (((True, True), "both"), ((True, None), "in"), ((False, False), "none")):
        unit["cash"]["configuration"] = {"appLockIn": applock[0], "appLockOut": applock[1]}
        assert storage(unit1=unit)["cassette.unit1.lock"].value == word


def test_the_retain_unit_is_the_reader_s_bin_and_other_units_are_units() -> None:
    retain = {"status": "ok", "capacity": 50, "card": {"capabilities": {"type": "retain"}}}
    retain["card"]["status"] = {"count": 3, "retainCount": 9, "replenishmentStatus": "high"}  # type: ignore[index]
    supply = {"card": {"capabilities": {"type": "dispense"}, "status": {"initialCount": 80, "count": 60}}}
    said = {point: r.value for point, r in storage(unitBIN1=retain, unitBIN2=retain, unitOUT=supply).items()}
    assert {k: v for k, v in said.items() if k.startswith("retain")} == {
        "retain.state": "high",
        "retain.count": 3,
        "retain.capacity": 50,
    }
    assert (said["cassette.unitBIN2.count"], said["cassette.unitBIN2.state"]) == (3, "high")
    assert (said["cassette.unitOUT.count"], said["cassette.unitOUT.initial"]) == (60, 80)


def test_units_of_printers_and_deposits() -> None:
    said = storage(
        unit1={"status": "ok", "printer": {"status": {"initial": 2, "in": 5, "replenishmentStatus": "high"}}},
        unit2={"status": "ok", "deposit": {"status": {"depContainer": "full", "numOfDeposits": 12}}},
    )
    assert (said["cassette.unit1.state"].value, said["cassette.unit1.count"].value) == ("high", 7)
    assert (said["cassette.unit2.state"].value, said["cassette.unit2.count"].value) == ("full", 12)


def test_an_event_about_a_unit_that_is_not_known_yet_is_no_reading() -> None:
    units = Storage()
    assert units.merge({"unit1": cash({"unrecognized": 5})}, 5.0) == []
    units.replace({"unit1": cash({"unrecognized": 5})}, 6.0)
    assert [r.value for r in units.merge({"unit1": {"status": "missing"}}, 7.0) if r.point.endswith("state")] == [
        "missing"
    ]
    units.replace({}, 7.0)
    assert [r.value for r in units.replace({"unit1": {"status": "ok"}}, 7.0)] == ["ok"]
    units.forget()
    assert units.merge({"unit1": {"status": "ok"}}, 8.0) == []


def test_keys_are_names_states_and_uses_and_one_that_is_gone_is_missing() -> None:
    keys = Keys()
    details = {
        "TMK": {"loaded": "yes", "keyBlockInfo": {"keyUsage": "K0", "restrictedKeyUsage": ""}},
        "TPK": {"loaded": "no"},
        "Half.Key": {"loaded": "construct"},
        "Who": {"loaded": "unknown", "keyBlockInfo": {"keyUsage": ["P0"]}},
        "Odd": {"loaded": "perhaps"},
        "Bad": "yes",
    }
    said = keys.readings(details, 5.0)
    check([*said])
    assert {r.point: r.value for r in said if not r.inferred} == {
        "key.TMK.state": "loaded",
        "key.TMK.usage": "K0",
        "key.TPK.state": "missing",
        "key.Half_Key.state": "construct",
        "key.Odd.state": "vendor.perhaps",
    }
    gone = [r for r in keys.readings({"TPK": {"loaded": "yes"}}, 6.0) if r.point == "key.TMK.state"]
    assert [(r.value, r.inferred) for r in gone] == [("missing", True)]
    assert keys.readings(None, 7.0) == []


def test_keys_are_read_again_at_once_after_they_were_cleared() -> None:
    service = scripted(Common_Status={}, KeyManagement_GetKeyDetail={"keyDetails": {"TMK": {"loaded": "yes"}}})
    host = alone(service)
    host.run(3)
    service.answers["KeyManagement.GetKeyDetail"][0] = answer("KeyManagement.GetKeyDetail", {"keyDetails": {}})
    host.say("One", event("KeyManagement.InitializedEvent"))
    host.run(1)
    assert host.value("d", "key.TMK.state") == "missing"


def test_a_device_that_is_back_is_asked_at_once_who_it_is() -> None:
    service = scripted(Common_Status={"common": {"device": "online"}})
    host = alone(service)
    host.run(10)
    host.say("One", event("Common.StatusChangedEvent", {"common": {"device": "noDevice"}}))
    asked = host.names("One").count("Common.Capabilities")
    host.run(10)
    assert host.value("d", "device.state") == "online"
    assert host.names("One").count("Common.Capabilities") == asked + 1


def test_unchanged_values_are_said_again_before_they_are_stale() -> None:
    unit = {"unit1": cash({"unrecognized": 5}, replenishmentStatus="ok")}
    status = {"auxiliaries": {"safeDoor": "closed"}, "common": {"device": "online"}}
    host = alone(scripted(Common_Status=status, Storage_GetStorage={"storage": json.loads(json.dumps(unit))}))
    host.run(60)
    for point in ("safe_door", "device.state", "device.error", "cassette.unit1.count", "cassette.unit1.state"):
        at = [r.at for _, r in host.of if r.point == point]
        assert max(b - a for a, b in pairwise(at)) < lookup(point).max_age - 3
