"""The XFS4IoT driver and strange services: the traps that real ones set, by number, and hostile ones.

The numbers are those of the traps seen on the wire of KAL's framework and of a real dispenser's service.
"""

import json

import pytest

from agent.drivers.xfs_connection import versions_of
from agent.drivers.xfs_messages import parse
from agent.model import Reading
from tests.recorded import (
    ONLINE,
    PUBLISHER,
    UNIT,
    Host,
    Message,
    alone,
    answer,
    driver,
    event,
    publisher,
    scripted,
    uri,
)

# --- the traps ---


@pytest.mark.parametrize("kind", ["event", "unsolicited", "Event"])
@pytest.mark.parametrize("number", [None, 0])
def test_trap_1_an_unsolicited_event_may_be_marked_as_any_event(kind: str, number: int | None) -> None:
    host = alone(scripted(Common_Status=ONLINE))
    message = event("Common.StatusChangedEvent", {"common": {"device": "hardwareError"}}, kind)
    if number is not None:
        message["header"]["requestId"] = number
    host.say("One", message)
    assert host.value("d", "device.state") == "hardwareError"
    host.run(2)
    assert host.value("d", "link.bad_frames") == 0


def test_trap_2_interface_names_are_compared_without_their_case() -> None:
    status = {"Common": {"device": "online"}, "CASHDISPENSER": {"intermediateStacker": "empty"}}
    host = alone(scripted(Common_Status=status))
    assert (host.value("d", "device.state"), host.value("d", "dispenser.stacker")) == ("online", "empty")
    capabilities = {"interfaces": [{"name": "COMMON", "commands": {"common.status": {"versions": ["2.0"]}}}]}
    service = scripted(Common_Status=ONLINE)
    service.answers["Common.Capabilities"][0] = answer("Common.Capabilities", capabilities)
    assert alone(service).value("d", "device.state") == "online"


def test_trap_3_other_spellings_of_one_name_are_known_and_unknown_words_are_kept() -> None:
    for name in ("ups", "UPS"):
        host = alone(scripted(Common_Status={"auxiliaries": {name: {"low": True, "powering": True}}}))
        assert (host.value("d", "battery"), host.value("d", "mains")) == ("low", "lost")
    for unknown in ("unknown", "Unknown", "notSupported", "notAvailable", None):
        host = alone(scripted(Common_Status={"common": {"device": "online", "devicePosition": unknown}}))
        assert "device.position" not in host.points("d")
    host = alone(scripted(Common_Status={"common": {"device": "OnLine"}, "cardReader": {"media": "crushed / ¤"}}))
    assert host.value("d", "device.state") == "online"
    assert (host.value("d", "card.media"), host.last("d", "card.media").raw) == (
        "vendor.crushed____",
        "crushed / ¤",
    )
    for spelling in ("authorisationRequired", "authorizationRequired"):
        (_, done) = answer("Common.Status", code=spelling)
        message = parse(json.dumps(done).encode())
        assert message is not None
        assert message.code == "authorizationRequired"


def test_trap_4_what_breaks_the_schema_is_read_as_far_as_it_can_be() -> None:
    unit = {**UNIT, "capacity": 0, "serialNumber": "", "wrong": [{}], "cash": {**UNIT["cash"]}}
    unit["cash"]["configuration"] = {"currency": "", "value": 0, "lowThreshold": 0, "appLockIn": "no"}
    host = alone(scripted(Common_Status={**ONLINE, "novelty": 1}, Storage_GetStorage={"storage": {"unit1": unit}}))
    points = host.points("d")
    assert points["cassette.unit1.count"] == 152
    assert not {"cassette.unit1.note", "cassette.unit1.capacity", "cassette.unit1.serial"} & points.keys()
    assert points["link.bad_frames"] == 0


def test_trap_5_a_command_that_is_not_listed_is_never_sent() -> None:
    service = scripted(Common_Status=ONLINE)
    for name in ("Storage.GetStorage", "KeyManagement.GetKeyDetail"):  # it would answer, but does not list them
        service.answers[name] = scripted(**{name.replace(".", "_"): {}}).answers[name]
    host = alone(service)
    host.say("One", event("CashManagement.ItemsTakenEvent", {"position": "outCenter"}))
    host.say("One", event("KeyManagement.InitializedEvent"))
    host.run(60)
    assert set(host.names("One")) == {"Common.Capabilities", "Common.Status"}
    mute = alone(scripted())
    mute.run(60)
    assert set(mute.names("One")) == {"Common.Capabilities"}
    assert set(mute.values("d", "link.state")) == {"up"}


def test_trap_6_without_an_acknowledge_the_connection_is_closed_and_begun_anew() -> None:
    host = alone(scripted(Common_Status=ONLINE))
    host.run(10)
    host.silent.add(uri("One"))
    host.run(9)
    assert host.hung_up == [uri("One")]
    assert "not acknowledged within 3 s" in host.last("d", "link.state").raw
    host.silent.clear()
    begun = len(host.sent)
    host.run(4)
    again = [c["header"] for _, c in host.sent[begun:]]
    assert [(h["name"], h["requestId"]) for h in again[:2]] == [("Common.Capabilities", 1), ("Common.Status", 2)]
    assert host.value("d", "link.state") == "up"


@pytest.mark.parametrize(
    ("takes", "listed", "sent"),
    [
        (["2.0"], ["2.0"], ["2.0"]),
        (["1.0"], ["1.0"], ["2.0", "1.0"]),
        (["3.0"], ["3.1", "3.0", "junk", "03"], ["2.0", "1.0", "3.0"]),
    ],
)
def test_trap_7_the_version_is_tried_until_it_is_listed(
    takes: list[str], listed: list[str], sent: list[str]
) -> None:
    service = scripted(versions={"Common.Status": listed}, Common_Status=ONLINE)
    host = Host(driver(d="One"), {"": publisher("One")})

    def reply(address: str, command: Message) -> None:
        name, number = command["header"]["name"], command["header"]["requestId"]
        messages = service.answer(command)
        if name == "Common.Capabilities" and command["header"].get("version") not in takes:
            messages = answer(name, code="unsupportedCommand")
        if address == PUBLISHER:
            messages = host.services[""].answer(command)
        for message in messages:
            message["header"]["requestId"] = number
            host.deliver(b"\x1et" + address.encode() + b"\x1f" + json.dumps(message).encode() + b"\x1d")

    host.answer = reply  # type: ignore[method-assign]
    host.publish()
    host.run(5)
    headers = [c["header"] for c in host.commands("One")]
    assert [h["version"] for h in headers if h["name"] == "Common.Capabilities"] == sent
    assert {h["version"] for h in headers if h["name"] == "Common.Status"} == {versions_of({"versions": listed})[0]}
    assert host.value("d", "device.state") == "online"
    assert versions_of({"versions": ["3.0", "2.0", "1.0"]}) == ("2.0", "3.0", "1.0")


@pytest.mark.parametrize(
    "hint",
    [
        event("CashManagement.ItemsTakenEvent", {"position": "outCenter"}),
        event("Common.StatusChangedEvent", {"cashDispenser": {"intermediateStacker": "empty"}}),
        event("Common.StatusChangedEvent", {"common": {"exchange": "inactive"}}),
        {"header": {"name": "Common.StatusChangedEvent", "type": "event"}, "payload": {"exchange": "inactive"}},
    ],
)
def test_trap_8_a_withdrawal_that_raises_no_storage_event_is_read_within_a_second(hint: Message) -> None:
    host = alone(scripted(Common_Status=ONLINE, Storage_GetStorage={"storage": {"unit1": UNIT}}))
    host.run(3)
    later = json.loads(json.dumps(UNIT))
    later["cash"]["status"]["out"]["presented"]["typeEUR20"]["fit"] = 12
    host.services["One"].answers["Storage.GetStorage"][0] = answer(
        "Storage.GetStorage", {"storage": {"unit1": later}}
    )
    host.say("One", hint)
    host.run(1)
    assert host.value("d", "cassette.unit1.count") == 142


@pytest.mark.parametrize("name", ["Common.StatusChangedEvent", "CardReader.MediaRemovedEvent"])
def test_trap_9_a_retained_card_that_raises_no_storage_event_is_counted_within_a_second(name: str) -> None:
    unit = {"status": "ok", "card": {"capabilities": {"type": "retain"}, "status": {"count": 0}}}
    host = alone(scripted(Common_Status=ONLINE, Storage_GetStorage={"storage": {"unitBIN1": unit}}))
    host.run(3)
    unit["card"]["status"]["count"] = 1  # type: ignore[index]
    host.say("One", event(name, {"cardReader": {"media": "notPresent"}}))
    host.run(1)
    assert host.values("d", "retain.count")[-1] == 1


def test_trap_10_partial_units_and_positions_are_merged() -> None:
    positions = [
        {"position": name, "shutter": "closed", "positionStatus": "empty"} for name in ("outLeft", "outRight")
    ]
    status = {**ONLINE, "cashDispenser": {"positions": positions}}
    host = alone(scripted(Common_Status=status, Storage_GetStorage={"storage": {"unit1": UNIT, "unit2": UNIT}}))
    host.say(
        "One", event("Storage.StorageChangedEvent", {"unit2": {"cash": {"status": {"replenishmentStatus": "low"}}}})
    )
    moved = {"cash": {"status": {"out": {"presented": {"typeEUR20": {"fit": 50}}}}}}
    host.say("One", event("Storage.CountsChangedEvent", {"unit2": moved}))
    assert (host.value("d", "cassette.unit2.state"), host.value("d", "cassette.unit2.count")) == ("low", 104)
    assert (host.value("d", "cassette.unit1.state"), host.value("d", "cassette.unit1.count")) == ("ok", 152)
    host.say("One", event("Storage.StorageChangedEvent", {"unit2": {"status": "missing"}}))
    assert host.value("d", "cassette.unit2.state") == "missing", "what is not ok wins, however full it is"
    change = {"cashDispenser": {"positions": [{"position": "outRight", "shutter": "open"}]}}
    host.say("One", event("Common.StatusChangedEvent", change))
    assert host.value("d", "position.outRight.shutter") == "open"
    assert host.value("d", "position.outRight.items") == "empty"
    assert host.value("d", "position.outLeft.shutter") == "closed"


def test_trap_11_completions_come_in_any_order_with_events_between() -> None:
    service = scripted(Common_Status=ONLINE, Storage_GetStorage={"storage": {"unit1": UNIT}})
    host = Host(driver(d="One"), {"": publisher("One")})
    held: list[Message] = []

    def reply(address: str, command: Message) -> None:
        messages = (host.services[""] if address == PUBLISHER else service).answer(command)
        prompt = command["header"]["name"] in ("ServicePublisher.GetServices", "Common.Capabilities")
        for message in messages if prompt else messages[:1]:
            host.deliver(b"\x1et" + address.encode() + b"\x1f" + json.dumps(message).encode() + b"\x1d")
        held.extend([] if prompt else messages[1:])

    host.answer = reply  # type: ignore[method-assign]
    host.publish()
    host.run(1)
    assert [m["header"]["name"] for m in held] == ["Common.Status", "Storage.GetStorage"]
    host.say(
        "One", held[1], event("Printer.PaperThresholdEvent", {"paperSource": "upper", "threshold": "low"}), held[0]
    )
    points = host.points("d")
    assert (points["device.state"], points["cassette.unit1.count"], points["paper.upper"]) == ("online", 152, "low")
    host.run(2)
    assert host.value("d", "link.bad_frames") == 0


def test_trap_12_no_check_value_is_asked_for_or_read_be_it_right_or_wrong() -> None:
    detail = {
        "loaded": "yes",
        "kcv": "BB315E",
        "keyBlockInfo": {"keyUsage": "K0"},
        "verificationData": "+wl1",
        "value": "ABEi",
    }
    host = alone(scripted(Common_Status=ONLINE, KeyManagement_GetKeyDetail={"keyDetails": {"TMK": detail}}))
    host.run(20)
    keys_said = {name: value for name, value in host.points("d").items() if name.startswith("key.")}
    assert keys_said == {"key.TMK.state": "loaded", "key.TMK.usage": "K0"}
    assert not [r for _, r in host.of for secret in ("BB315E", "wl1", "ABEi") if secret in f"{r.value} {r.raw}"]
    assert not {"KeyManagement.GenerateKCV", "KeyManagement.ImportKey"} & set(host.names())


def test_trap_13_error_descriptions_are_never_looked_at() -> None:
    service = scripted(versions={"Common.Status": ["2.0", "3.0"]}, Common_Status=ONLINE)
    host = alone(service)
    host.run(3)
    for description in ("version (3.0) is not supported", "device offline", {"deep": 1}, 7):
        ack, done = answer("Common.Status", code="hardwareError")
        done["header"]["errorDescription"] = description
        service.answers["Common.Status"][0] = [ack, done]
        host.run(5)
        assert host.last("d", "link.state") == Reading(
            "link.state", "up", host.last("d", "link.state").at, raw="Common.Status: hardwareError"
        )
    assert {c["header"]["version"] for c in host.commands("One")} == {"2.0"}
