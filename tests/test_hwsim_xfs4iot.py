"""The simulated XFS4IoT host against recorded sessions and the words of the standard, never our driver."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hwsim.xfs4iot import Xfs4iot
from hwsim.xfs_machine import Machine
from tests.xfs_host import ROOT, Host, Message, named

SERVICES = (
    *("SimCardReader", "SimCashDispenser", "SimCashAcceptor", "SimEncryptor", "SimPrinter"),
    *("SimAuxiliaries", "SimVendorMode"),
)
KAL = {f"trap{n}": "on" for n in range(1, 11)}
"""The host that was recorded has every trap."""
SERVED = {"ServicePublisher.GetServices", "Common.Capabilities", "Common.Status", "Storage.GetStorage"}
SERVED |= {"KeyManagement.GetKeyDetail", "Auxiliaries.Register"}


def recorded(generation: str) -> list[Message]:
    file = Path(__file__).parent / "recordings" / f"generation-{generation}.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [line for line in lines if line["service"] in ("", *SERVICES)]


def asked(generation: str) -> Iterator[tuple[str, Message, list[Message]]]:
    """Every recorded command that the twin serves too, and its two answers: (service, command, answers)."""
    lines = recorded(generation)
    for line in lines:
        header = line["msg"]["header"]
        if line["dir"] == ">" and header["name"] in SERVED:
            answers = [
                other["msg"]
                for other in lines
                if other["dir"] == "<"
                and other["service"] == line["service"]
                and other["msg"]["header"].get("requestId") == header["requestId"]
            ]
            yield line["service"], line["msg"], answers


# Two answers of the recorded host that we do not repeat: lights, and the dispenser's word about an acceptor.
NOT_OURS = {"lights", "dispenser", "acceptor", "cabinetDoor", "cabinetFrontDoor"}


@pytest.mark.parametrize("generation", ["v1", "v2"])
def test_answers_have_the_recorded_form(generation: str) -> None:
    host = Host(generation=generation, **KAL)
    channels = {service: host.open(service) for service in ("", *SERVICES)}
    compared = 0
    for service, command, (acknowledge, completion) in asked(generation):
        ours = host.send(channels[service], json.dumps(command))
        assert ours[0] == acknowledge
        assert list(ours[1]["header"].items()) == list(completion["header"].items()), "also the order of the keys"
        theirs, payload = completion["payload"], ours[1]["payload"]
        ends = {"completionCode", "errorDescription"}
        assert theirs.keys() & {"completionCode"} == payload.keys() & {"completionCode"}
        if command["header"]["name"] == "Common.Status":
            assert payload.keys() - ends - NOT_OURS == theirs.keys() - ends - NOT_OURS
            for interface in payload.keys() - ends:
                absent = (theirs[interface].keys() ^ payload[interface].keys()) - NOT_OURS
                # optional in V2, where nothing is said of what is not there
                assert absent <= {"antiFraudModule", "audio", "paperType", "blackMarkMode"}, interface
        elif command["header"]["name"] == "Storage.GetStorage":
            unit, theirs_unit = next(iter(payload["storage"].values())), next(iter(theirs["storage"].values()))
            assert unit.keys() == theirs_unit.keys()
            kind = "cash" if "cash" in unit else "card"
            for part in ("configuration", "status"):
                absent = unit[kind][part].keys() ^ theirs_unit[kind][part].keys()
                assert absent <= {"accuracy"}, part
        compared += 1
    assert compared > 15
    assert not host.gone


EVENTS = [
    ({"safe_door": "open"}, "SimAuxiliaries", 0),
    ({"tamper": "on"}, "SimAuxiliaries", 1),
    ({"ups_low": "on", "ups_powering": "on"}, "SimAuxiliaries", 2),
    ({"card_reader_device": "offline"}, "SimCardReader", 0),
    ({"paper_upper": "low"}, "SimPrinter", 0),
    ({"error_event": "note jam in transport"}, "SimCashDispenser", 0),
    ({"vendor_mode": "enterPending"}, "SimVendorMode", 0),
]
EVENTS_V2 = [
    ({"exchange": "active"}, "SimCashDispenser", 1),
    ({"exchange": "inactive"}, "SimCashDispenser", 8),
    ({"vendor_mode": "enterPending"}, "SimVendorMode", 1),
    ({"vendor_mode": "active"}, "SimVendorMode", 2),
    ({"vendor_mode": "active"}, "SimVendorMode", 3),
    ({"vendor_mode": "exitPending"}, "SimVendorMode", 5),
]
EVENTS_V1 = [
    ({"vendor_mode": "active"}, "SimVendorMode", 1),
    ({"vendor_mode": "exitPending"}, "SimVendorMode", 2),
]


@pytest.mark.parametrize(
    ("generation", "act", "service", "nth"),
    [("v2", *e) for e in EVENTS + EVENTS_V2] + [("v1", *e) for e in EVENTS + EVENTS_V1],
)
def test_events_are_the_recorded_ones(generation: str, act: Message, service: str, nth: int) -> None:
    lines = [line["msg"] for line in recorded(generation) if line["service"] == service and line["dir"] == "<"]
    wanted = [m for m in lines if m["header"]["type"] == "event" and "requestId" not in m["header"]][nth]
    before = {"exchange": "active"} if act == {"exchange": "inactive"} else {}
    host = Host(generation=generation, **KAL, **before)
    channel = host.open(service)
    if service == "SimAuxiliaries" and generation == "v1":
        host.ask(channel, "Auxiliaries.Register", dict.fromkeys(("safeDoor", "tamperSensor", "ups"), "register"))
    assert wanted in host.set(**act)


@pytest.mark.parametrize("generation", ["v1", "v2"])
def test_a_payment_ends_as_recorded(generation: str) -> None:
    lines = [line["msg"] for line in recorded(generation) if line["service"] == "SimCashDispenser"]
    wanted = [m for m in lines if m["header"]["name"].startswith("CashManagement.Items")]
    host = Host(generation=generation, **KAL)
    host.open("SimCashDispenser")
    said = host.set(dispense="1:2")
    assert named(said)[-1] == "ItemsPresentedEvent"
    said = host.wait(3.0)
    assert said[-1:] == wanted, "ItemsTaken"
    told = host.payload("SimCashDispenser")["cashDispenser"]["positions"][0]
    assert (told["shutter"], told["positionStatus"]) == ("closed", "empty")


@pytest.mark.parametrize(
    ("generation", "where", "code_in"),
    [("v1", "payload", "payload"), ("v2", "header", "header"), ("hybrid", "header", "payload")],
)
def test_each_generation_has_its_places(generation: str, where: str, code_in: str) -> None:
    host = Host(generation=generation, command_seconds=60)
    channel = host.open("SimEncryptor")
    acknowledge, completion = host.ask(channel, "Common.Status")
    assert completion[code_in]["completionCode"] == "success"
    assert "completionCode" not in completion["header" if code_in == "payload" else "payload"]
    assert ("version" in completion["header"]) == (generation != "v1")
    assert acknowledge.get("payload") == ({"status": "ok"} if generation == "v1" else None)
    [refused] = host.ask(channel, "Common.Status", requestId=1)
    assert refused[where]["status"] == "invalidRequestID"
    # the timeout of the other generation is not one
    wrong = {"requestId": 3, "timeout": 200} if generation == "v1" else {"requestId": 3, "timeout": None}
    host.ask(channel, "KeyManagement.Reset", {"timeout": 0 if generation == "v1" else 200}, **wrong)
    right = {"timeout": 200} if generation == "v1" else None
    host.ask(channel, "KeyManagement.Reset", right, timeout=200)
    [ended] = host.wait(1.0)
    assert ended["header"]["requestId"] == 4
    assert ended[code_in]["completionCode"] == "timeOut"


DOOR = {"closed", "open", "locked", "bolted", "tampered"}
SWITCHED = {"on", "off"}
SHUTTERS = {
    *("closed", "open", "jammedOpen", "jammedPartiallyOpen", "jammedClosed", "jammedUnknown", "unknown"),
}
WORDS: dict[str, set[str]] = {
    "device": {
        *("online", "offline", "powerOff", "noDevice", "hardwareError", "userError", "deviceBusy"),
        *("fraudAttempt", "potentialFraud", "starting"),
    },
    "devicePosition": {"inPosition", "notInPosition", "unknown"},
    "antiFraudModule": {"ok", "inoperable", "deviceDetected", "unknown"},
    "exchange": {"active", "inactive"},
    "cardReader.media": {"unknown", "present", "notPresent", "jammed", "entering", "latched"},
    "chipPower": {"unknown", "online", "busy", "poweredOff", "noDevice", "hardwareError", "noCard"},
    "chipModule": {"ok", "inoperable", "unknown"},
    "magWriteModule": {"ok", "inoperable", "unknown"},
    "cashDispenser.intermediateStacker": {
        *("empty", "notEmpty", "notEmptyCustomer", "notEmptyUnknown", "unknown"),
    },
    "cashAcceptor.intermediateStacker": {"empty", "notEmpty", "full", "unknown"},
    "position": {"outCenter", "inCenter"},
    "shutter": SHUTTERS,
    "positionStatus": {"empty", "notEmpty", "unknown"},
    "transport": {"ok", "inoperative", "unknown"},
    "transportStatus": {"empty", "notEmpty", "notEmptyCustomer", "unknown"},
    "dispenser": {"ok", "attention", "stop", "unknown"},
    "acceptor": {"ok", "attention", "stop", "unknown"},
    "stackerItems": {"customerAccess", "noCustomerAccess", "accessUnknown", "noItems"},
    "banknoteReader": {"ok", "inoperable", "unknown"},
    "printer.media": {"unknown", "present", "notPresent", "jammed", "entering", "retracted"},
    "upper": {"unknown", "full", "low", "out", "jammed"},
    "lower": {"unknown", "full", "low", "out", "jammed"},
    "toner": {"unknown", "full", "low", "out"},
    "encryptionState": {"ready", "notReady", "notInitialized", "busy", "undefined", "initialized"},
    "certificateState": {"unknown", "primary", "secondary", "notReady"},
    "operatorSwitch": {"run", "maintenance", "supervisor"},
    "tamperSensor": SWITCHED,
    "seismicSensor": SWITCHED,
    "safeDoor": DOOR,
    "cabinetDoor": DOOR,
    "vendorMode.device": {"online", "offline"},
    "service": {"enterPending", "active", "exitPending", "inactive"},
    "status": {"ok", "inoperative", "missing", "notConfigured", "manipulated"},
    "replenishmentStatus": {"ok", "full", "high", "low", "empty"},
    "accuracy": {"accurate", "accurateSet", "inaccurate", "unknown"},
    "loaded": {"no", "yes", "unknown", "construct"},
}
"""Status, storage and keys of release 2024-3: the last name of a property (or its last two) -> its words."""
V1_WORDS = {"notSupported", "notAvailable", "Unknown", "doorOpen", "doorClosed", "doorUnknown"}
V1_ONLY = {
    *("security", "frontImageModule", "backImageModule", "ink", "lamp", "blackMarkMode", "vandalShield"),
    *("cabinetFrontDoor", "rate", "signal"),
}


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every text in a payload and the names above it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner, path)
    elif isinstance(value, str):
        yield path, value


@pytest.mark.parametrize("generation", ["v1", "v2"])
def test_every_word_of_every_state_is_one_of_the_tables(generation: str) -> None:
    seen: set[str] = set()
    free = {"serialNumber", "positionName", "id", "currency", "cashItems", "keyUsage", "algorithm", "modeOfUse"}
    free |= {"keyVersionNumber", "exportability", "type", "completionCode", "errorDescription"}
    for name, allowed in Machine.SETTINGS.items():
        for word in allowed if isinstance(allowed, tuple) else ():
            host = Host(**{"generation": generation, name: word})
            for service in SERVICES:
                asks = ["Common.Status"] + ["Storage.GetStorage"] * (service in SERVICES[:3])
                asks += ["KeyManagement.GetKeyDetail"] * (service == "SimEncryptor")
                for ask in asks:
                    for path, told in leaves(host.payload(service, ask)):
                        if path[-1] in free:
                            continue
                        words = WORDS.get(".".join(path[-2:])) or WORDS.get(path[-1], set())
                        ours = told in words or (generation == "v1" and (told in V1_WORDS or path[-1] in V1_ONLY))
                        assert ours, f"{'.'.join(path)} = {told}"
                        seen.add(path[-1])
    assert {name.rpartition(".")[2] for name in WORDS} - seen <= {"cabinetDoor"}, "the test sees every property"


def test_the_publisher_tells_the_services_where_it_was_reached() -> None:
    host = Host()
    host.twin.authority = "127.0.0.1:31001"
    for path in (ROOT, f"{ROOT}/"):
        _, completion = host.ask(host.open(path=path), "ServicePublisher.GetServices")
        uris = [service["serviceURI"] for service in completion["payload"]["services"]]
        assert uris == [f"ws://127.0.0.1:31001{ROOT}/{service}/" for service in SERVICES]
    for uri in uris:
        for path in (uri.partition("31001")[2], uri.partition("31001")[2].rstrip("/")):
            assert named(host.ask(host.open(path=path), "Common.Capabilities")) == ["Capabilities"] * 2
    assert not host.gone
    for path in ("/", "/XFS4IoT/v1.0", f"{ROOT}/SimFax", f"{ROOT}x"):
        assert host.open(path=path) == host.gone[-1]


@pytest.mark.parametrize("generation", ["v1", "v2"])
def test_the_capabilities_list_what_is_served_and_in_which_version(generation: str) -> None:
    host = Host(generation=generation)
    for service in SERVICES:
        told = host.payload(service, "Common.Capabilities")
        channel = host.open(service)
        for interface in told["interfaces"]:
            for name, listed in interface.get("commands", {}).items():
                [version] = listed["versions"]
                _, last = host.ask(channel, name, version=version if generation == "v2" else None)
                ended = last["payload" if generation == "v1" else "header"]["completionCode"]
                assert ended == "success", name
            counts = "Storage.CountsChangedEvent" in interface.get("events", {})
            assert counts == (interface["name"] == "Storage" and generation == "v2"), "it came in 2023-3"
        names = [interface["name"] for interface in told["interfaces"]]
        assert names[0] == "Common"
        assert all(name[0].isupper() for name in names)


def test_events_reach_every_connection_of_their_service_and_no_other() -> None:
    host = Host()
    for service in (*SERVICES, "SimPrinter"):
        host.open(service)
    host.set(paper_upper="out")
    assert [s for s, m in host.heard if m["header"]["name"] == "Printer.PaperThresholdEvent"] == ["SimPrinter"] * 2
    assert {s for s, _ in host.heard} == {"SimPrinter"}


def test_v1_auxiliaries_are_told_to_who_has_registered_and_for_what() -> None:
    host = Host(generation="v1")
    deaf, listener = host.open("SimAuxiliaries"), host.open("SimAuxiliaries")
    host.ask(
        listener, "Auxiliaries.Register", {"safeDoor": "register", "UPS": "register", "tamperSensor": "register"}
    )
    host.ask(listener, "Auxiliaries.Register", {"tamperSensor": "deregister"})
    said = host.set(safe_door="open", tamper="on", ups_engaged="on", cabinet_door="open")
    assert [m["payload"] for m in said] == [
        {"safeDoorState": "open"},
        {"upsState": {"low": False, "engaged": True, "powering": False, "recovered": False}},
    ]
    host.close(listener)
    assert host.set(safe_door="closed") == []
    assert host.ask(deaf, "Common.Status")[1]["payload"]["auxiliaries"]["cabinetFrontDoor"] == "open"


@pytest.mark.parametrize(
    ("door", "word"), [("locked", "doorClosed"), ("tampered", "doorUnknown"), ("open", "doorOpen")]
)
def test_v1_cash_modules_tell_the_safe_door(door: str, word: str) -> None:
    host = Host(generation="v1")
    host.open("SimCashDispenser")
    said = host.set(safe_door=door)
    assert host.payload("SimCashDispenser")["cashManagement"]["safeDoor"] == word
    assert named(said) == (["SafeDoorOpenEvent"] if door == "open" else [])
    if door == "open":
        assert named(host.set(safe_door="bolted")) == ["SafeDoorClosedEvent"]


def total(unit: Message) -> int:
    """A cash unit's total, which is not on the wire: initial + in - out."""

    def summed(counts: Message) -> int:
        return sum(sum(n.values()) if isinstance(n, dict) else int(n) for n in counts.values())

    status = unit["cash"]["status"]
    into = sum(summed(counts) for name, counts in status["in"].items() if name != "retractOperations")
    return summed(status["initial"]) + into - sum(summed(counts) for counts in status["out"].values())


def test_counts_are_told_as_initial_in_and_out() -> None:
    host = Host(rejects=2, dispense="1:5")
    host.set(dispense="unit3:7", deposit="unit5:3", retain=2)
    units = host.payload("SimCashDispenser", "Storage.GetStorage")["storage"]
    assert {name: total(unit) for name, unit in units.items()} == {
        **{"unit1": 1993, "unit2": 2000, "unit3": 1991, "unit4": 2000},
        "unit6": 4,
    }
    acceptor = host.payload("SimCashAcceptor", "Storage.GetStorage")["storage"]
    assert total(acceptor["unit5"]) == host.twin.unit5_count == 3  # type: ignore[attr-defined]
    bin_ = host.payload("SimCardReader", "Storage.GetStorage")["storage"]["unitBIN1"]["card"]
    assert (bin_["capabilities"]["type"], bin_["status"]["count"]) == ("retain", 2)
    host.set(unit1_initial=1500, unit3_count=40)
    units = host.payload("SimCashDispenser", "Storage.GetStorage")["storage"]
    assert (total(units["unit1"]), total(units["unit3"])) == (1500, 40)
    assert units["unit3"]["cash"]["status"]["replenishmentStatus"] == "low"


@pytest.mark.parametrize(
    ("settings", "unit", "level"),
    [
        ({"unit1_count": 0}, "unit1", "empty"),
        ({"unit1_count": -3}, "unit1", "empty"),
        ({"unit1_count": 199}, "unit1", "low"),
        ({"unit1_count": 200}, "unit1", "ok"),
        ({"unit1_low": 0, "unit1_count": 1}, "unit1", "ok"),
        ({"unit1_status": "missing"}, "unit1", None),
        ({"reject_count": 251}, "unit6", "high"),
        ({"reject_count": 300}, "unit6", "full"),
    ],
)
def test_the_thresholds_of_a_unit(settings: Message, unit: str, level: str | None) -> None:
    told = Host(**settings).payload("SimCashDispenser", "Storage.GetStorage")["storage"][unit]
    assert told["cash"]["status"].get("replenishmentStatus") == level


@pytest.mark.parametrize("text", ["unit9:1", "1:", "x", "1:-5", "unit5:5", "1:2:3"])
def test_a_payment_that_cannot_be_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match="dispense cannot be"):
        Xfs4iot().dispense = text


def test_keys_are_told_by_name_and_never_by_value() -> None:
    host = Host(key_tpk="construct", extra_key="no")
    host.open("SimEncryptor")
    details = host.payload("SimEncryptor", "KeyManagement.GetKeyDetail")["keyDetails"]
    assert {name: key["loaded"] for name, key in details.items()} == {
        **{"TMK": "yes", "TPK": "construct", "TAK": "yes"},
        "EXTRA": "no",
    }
    assert {field for key in details.values() for field in key} == {"loaded", "keyBlockInfo"}
    [event] = host.set(illegal_key_access="useViolation")
    assert event["payload"] == {"keyName": "EXTRA", "errorCode": "useViolation"}
    assert "EXTRA" not in Host().payload("SimEncryptor", "KeyManagement.GetKeyDetail")["keyDetails"]
