"""What XFS4IoT's status and events become: the tables of the protocol page, row by row."""

from typing import Any

import pytest

from agent.drivers.xfs_messages import Names
from agent.drivers.xfs_status import STATES, readings, told
from agent.model import Reading
from tests.recorded import alone, answer, event, scripted
from tests.test_drivers import check

# Release 2024-3, Common.Status: the values of each property that becomes a point. `unknown` is a reading nowhere.
DOOR = "closed open locked bolted tampered"
TABLE = {
    "common.device": "online offline powerOff noDevice hardwareError userError deviceBusy fraudAttempt"
    " potentialFraud starting",
    "common.devicePosition": "inPosition notInPosition",
    "common.antiFraudModule": "ok inoperable deviceDetected",
    "common.exchange": "active inactive",
    "cardReader.media": "present notPresent jammed entering latched",
    "cardReader.security": "notReady open",
    "cardReader.chipPower": "online busy poweredOff noDevice hardwareError noCard",
    "cardReader.chipModule": "ok inoperable",
    "cardReader.magWriteModule": "ok inoperable",
    "cashDispenser.intermediateStacker": "empty notEmpty notEmptyCustomer notEmptyUnknown",
    "cashManagement.dispenser": "ok attention stop",
    "cashManagement.acceptor": "ok attention stop",
    "cashAcceptor.intermediateStacker": "empty notEmpty full",
    "cashAcceptor.banknoteReader": "ok inoperable",
    "printer.media": "present notPresent jammed entering retracted",
    "printer.toner": "full low out",
    "printer.ink": "full low out",
    "printer.lamp": "ok fading inop",
    "keyManagement.encryptionState": "ready notReady notInitialized busy undefined initialized",
    "keyManagement.certificateState": "primary secondary notReady",
    "vendorMode.device": "online offline",
    "vendorMode.service": "enterPending active exitPending inactive",
    "powerManagement.info.powerInStatus": "powering noPower",
    "powerManagement.info.powerOutStatus": "powering noPower",
    "powerManagement.info.batteryStatus": "full low operational critical failure",
    "powerManagement.info.batteryChargingStatus": "charging discharging notCharging",
    "banknoteNeutralization.state.mode": "fault armed disarmed neutralizationTriggered",
    "banknoteNeutralization.gas": "fault notDetected partialWarningLevel warningLevel partialCriticalLevel"
    " criticalLevel",
    "auxiliaries.operatorSwitch": "run maintenance supervisor",
    "auxiliaries.tamperSensor": "on off",
    "auxiliaries.internalTamperSensor": "on off",
    "auxiliaries.seismicSensor": "on off",
    "auxiliaries.heatSensor": "on off",
    "auxiliaries.proximitySensor": "present notPresent",
    "auxiliaries.bootSwitchSensor": "off on",
    "auxiliaries.operatorCallButtonSensor": "off on",
    "auxiliaries.safeDoor": DOOR,
    "auxiliaries.cabinetDoor": DOOR,
    "auxiliaries.cabinetFrontDoor": DOOR,
    "auxiliaries.cabinetRearDoor": DOOR,
    "auxiliaries.cabinetLeftDoor": DOOR,
    "auxiliaries.cabinetRightDoor": DOOR,
    "auxiliaries.vandalShield": "closed open locked service keyboard partiallyOpen jammed tampered",
    "auxiliaries.openClosedIndicator": "closed open",
    "auxiliaries.audibleAlarm": "on off",
}
POSITION = {
    "shutter": ("shutter", "closed open jammedOpen jammedPartiallyOpen jammedClosed jammedUnknown jammed"),
    "positionStatus": ("items", "empty notEmpty foreignItems"),
    "transport": ("transport", "ok inoperative"),
    "transportStatus": ("transport_items", "empty notEmpty notEmptyCustomer"),
}
TRANSLATED = [
    ("cashManagement.safeDoor", "doorOpen", "safe_door", "open"),
    ("cashManagement.safeDoor", "doorClosed", "safe_door", "closed"),
    ("banknoteNeutralization.safeDoor", "doorOpened", "safe_door", "open"),
    ("banknoteNeutralization.tilt", "tilted", "tilt", "on"),
    ("banknoteNeutralization.tilt", "notTilted", "tilt", "off"),
    ("banknoteNeutralization.seismic", "warningLevel", "seismic", "on"),
    ("banknoteNeutralization.seismic", "notDetected", "seismic", "off"),
    ("banknoteNeutralization.temperature", "tooHot", "heat", "on"),
    ("banknoteNeutralization.temperature", "ok", "heat", "off"),
    ("auxiliaries.vandalShield", "ajar", "vandal_shield", "partiallyOpen"),
]


def nested(path: str, value: Any) -> Any:
    for part in reversed(path.split(".")):
        value = {part: value}
    return value


def read(tree: Any, paper: dict[str, str] | None = None) -> dict[str, object]:
    said = readings(tree, Names(64), paper or {}, 5.0)
    check([*said])
    return {reading.point: reading.value for reading in said}


@pytest.mark.parametrize("path", TABLE)
def test_every_value_of_a_status_property_is_a_word_of_its_point(path: str) -> None:
    for value in TABLE[path].split():
        assert list(read(nested(path, value)).values()) == [value]
    nothing: Any
    for nothing in ("unknown", "notSupported", "notAvailable", "doorNotSupported", "", None, 5, True, [], {}):
        assert read(nested(path, nothing)) == {}


def test_every_property_that_is_read_is_in_a_table_above() -> None:
    assert {path.lower() for path in TABLE} | {row[0].lower() for row in TRANSLATED} == STATES.keys()


@pytest.mark.parametrize(("path", "value", "point", "word"), TRANSLATED)
def test_words_that_mean_one_of_ours_are_translated(path: str, value: str, point: str, word: str) -> None:
    (reading,) = readings(nested(path, value), Names(64), {}, 5.0)
    assert reading == Reading(point, word, 5.0, raw=value)


@pytest.mark.parametrize("interface", ["cashDispenser", "cashAcceptor"])
@pytest.mark.parametrize("name", POSITION)
def test_positions_are_read_by_their_name(interface: str, name: str) -> None:
    end, words = POSITION[name]
    for word in words.split():
        tree = {
            interface: {"positions": [{"position": "outRear", name: word}, {"position": "inLeft", name: "unknown"}]}
        }
        assert read(tree) == {f"position.outRear.{end}": word}


def test_paper_keeps_its_source_s_name_unless_it_is_given_another() -> None:
    tree = {"printer": {"paper": {"upper": "low", "aux2": "jammed", "lower": None, "Special": "out"}}}
    assert read(tree) == {"paper.upper": "low", "paper.aux2": "jammed", "paper.special": "out"}
    assert read(tree, {"upper": "receipt"})["paper.receipt"] == "low"
    host = alone(scripted(Common_Status=tree), {"Upper": "receipt"})
    assert host.value("d", "paper.receipt") == "low"


def test_the_ups_bits_powering_is_mains_lost_and_engaged_alone_is_not() -> None:
    bits = {"low": False, "engaged": True, "powering": False, "recovered": False}
    assert read({"auxiliaries": {"ups": bits}}) == {"mains": "ok", "battery": "ok"}
    assert read({"auxiliaries": {"UPS": {"powering": True}}}) == {"mains": "lost"}
    assert read({"auxiliaries": {"ups": {"low": True}}}) == {"battery": "low"}
    assert read({"auxiliaries": {"ups": {"low": "yes", "powering": 1}}}) == {}


def test_the_sensors_interface_knows_a_door_better_than_the_cash_interface() -> None:
    for order in (1, -1):
        both = [("cashManagement", {"safeDoor": "doorClosed"}), ("auxiliaries", {"safeDoor": "bolted"})][::order]
        assert read(dict(both)) == {"safe_door": "bolted"}


def test_the_retract_bins_of_generation_v1() -> None:
    bins = [{"state": "high", "count": 7}, {"state": "unknown"}, {"state": "missing", "count": -1}]
    assert read({"printer": {"retractBins": bins}}) == {
        "cassette.retract1.state": "high",
        "cassette.retract1.count": 7,
        "cassette.retract3.state": "missing",
    }


@pytest.mark.parametrize(
    ("name", "payload", "points"),
    [
        ("Common.StatusChangedEvent", {"device": "offline"}, {"device.state": "offline"}),
        ("Common.StatusChangedEvent", {"common": {"device": "offline"}}, {"device.state": "offline"}),
        ("Auxiliaries.AuxiliaryStatusEvent", {"safeDoorState": "open"}, {"safe_door": "open"}),
        ("Auxiliaries.AuxiliaryStatusEvent", {"safeDoorState": {"safeDoorState": "open"}}, {"safe_door": "open"}),
        ("Auxiliaries.AuxiliaryStatusEvent", {"operatorSwitch": "supervisor"}, {"operator_switch": "supervisor"}),
        ("Auxiliaries.AuxiliaryStatusEvent", {"upsState": {"low": True}}, {"battery": "low"}),
        ("Auxiliaries.AuxiliaryStatusEvent", {"UPSState": {"powering": True}}, {"mains": "lost"}),
        ("CashManagement.SafeDoorOpenEvent", None, {"safe_door": "open"}),
        ("CashManagement.SafeDoorClosedEvent", {}, {"safe_door": "closed"}),
        (
            "CashManagement.ShutterStatusChangedEvent",
            {"position": "outFront", "shutter": "jammed"},
            {"position.outFront.shutter": "jammed"},
        ),
        ("Printer.PaperThresholdEvent", {"paperSource": "lower", "threshold": "out"}, {"paper.lower": "out"}),
        ("Printer.TonerThresholdEvent", {"state": "low"}, {"printer.toner": "low"}),
        ("Printer.InkThresholdEvent", {"state": "out"}, {"printer.ink": "out"}),
        ("Printer.LampThresholdEvent", {"state": "fading"}, {"printer.lamp": "fading"}),
        (
            "KeyManagement.CertificateChangeEvent",
            {"certificateChange": "secondary"},
            {"epp.certificate": "secondary"},
        ),
        ("VendorMode.EnterModeRequestEvent", {}, {"vendor_mode.service": "enterPending"}),
        ("VendorMode.ModeEnteredEvent", {}, {"vendor_mode.service": "active"}),
        ("VendorMode.ExitModeRequestEvent", {}, {"vendor_mode.service": "exitPending"}),
        ("VendorMode.ModeExitedEvent", {"connectedApplications": ["a"]}, {"vendor_mode.service": "inactive"}),
        (
            "KeyManagement.IllegalKeyAccessEvent",
            {"keyName": "K", "errorCode": "useViolation"},
            {"epp.illegal_access": 1},
        ),
        ("Common.ErrorEvent", {"eventId": "fraudAttempt", "action": None}, {"device.error": "fraudAttempt"}),
        ("Common.ErrorEvent", {}, {"device.error": "vendor.unknown"}),
        ("Common.PowerSaveChangeEvent", {"powerSaveRecoveryTime": 5}, {}),
        ("Deposit.NewThingEvent", {"device": "offline"}, {}),
    ],
)
def test_an_event_that_reports_a_change(name: str, payload: Any, points: dict[str, object]) -> None:
    host = alone(scripted(Common_Status={}))
    begun = len(host.of)
    host.say("One", event(name, payload))
    said = [reading for _, reading in host.of[begun:]]
    check([*said])
    assert {reading.point: reading.value for reading in said} == points
    assert told("common.unheardof", {"common": {"device": "offline"}}) == {}


def test_an_error_is_shown_until_the_device_is_online_again_or_for_ten_minutes() -> None:
    service = scripted(Common_Status={"common": {"device": "online"}})
    host = alone(service)
    assert host.last("d", "device.error").inferred
    host.say("One", event("Common.ErrorEvent", {"eventId": "hardware", "action": "reset"}))
    host.run(100)
    assert host.values("d", "device.error", since=host.now - 60).count("hardware") > 10, (
        "and is not stale meanwhile"
    )
    service.answers["Common.Status"][0] = answer("Common.Status", {"common": {"device": "hardwareError"}})
    host.run(100)
    assert host.value("d", "device.error") == "hardware", "as long as the device is not online"
    service.answers["Common.Status"][0] = answer("Common.Status", {"common": {"device": "online"}})
    host.run(6)
    assert host.value("d", "device.error") == "none"
    host.say("One", event("Common.StatusChangedEvent", {"common": {"device": "hardwareError"}}))
    service.answers["Common.Status"][0] = answer("Common.Status", {"common": {"device": "hardwareError"}})
    host.say("One", event("Common.ErrorEvent", {"eventId": "user"}))
    host.run(700)
    assert host.value("d", "device.error") == "user", "a device that is not well keeps its error for longer"
    host.say("One", event("Common.StatusChangedEvent", {"common": {"device": "online"}}))
    service.answers["Common.Status"][0] = answer("Common.Status", {"common": {"device": "online"}})
    host.run(6)
    assert host.value("d", "device.error") == "none"
    host.say("One", event("Common.ErrorEvent", {"eventId": "software"}))
    host.run(590)
    assert host.value("d", "device.error") == "software"
    host.run(20)
    assert host.value("d", "device.error") == "none"
