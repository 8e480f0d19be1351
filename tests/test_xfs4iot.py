"""The XFS4IoT driver: discovery, the two recorded sessions, silence, and what every driver of a line keeps."""

from collections import deque
from itertools import pairwise
from typing import Any

import pytest

from agent.drivers.framing import record
from agent.drivers.xfs_connection import COMMANDS
from agent.points import lookup
from tests.recorded import (
    GENERATIONS,
    PUBLISHER,
    Host,
    alone,
    answer,
    driver,
    event,
    publisher,
    replayed,
    scripted,
    unsolicited,
    uri,
)
from tests.test_drivers import check

ONLINE = {"common": {"device": "online"}}
ALL = {name: scripted(Common_Status=ONLINE) for name in ("One", "Two", "Three")}
READ: dict[str, dict[str, Any]] = {
    "card": {"card.media": "notPresent", "reader.chip": "ok", "retain.state": "ok", "retain.capacity": 50},
    "dispenser": {
        "dispenser.state": "ok",
        "dispenser.stacker": "empty",
        "position.outCenter.shutter": "closed",
        "position.outDefault.items": "empty",
        "exchange": "inactive",
        "cassette.unit1.type": "reject",
        "cassette.unit5.note": "EUR 20",
        "cassette.unit5.capacity": 1500,
        "cassette.unit5.serial": "sn90376878-0230",
    },
    "acceptor": {"acceptor.reader": "ok", "acceptor.stacker": "empty", "position.inCenter.transport": "ok"},
    "epp": {
        "epp.state": "initialized",
        "epp.certificate": "primary",
        "key.MASTERKEY.state": "loaded",
        "key.MASTERKEY.usage": "K0",
    },
    "printer": {"paper.upper": "full", "printer.media": "notPresent"},
    "sensors": {"safe_door": "bolted", "tamper": "off", "seismic": "off", "operator_switch": "run", "mains": "ok"},
    "vendor": {"vendor_mode.service": "inactive", "vendor_mode.device": "online"},
}
EVERYWHERE = {
    "link.state": "up",
    "link.bad_frames": 0,
    "device.state": "online",
    "device.error": "none",
    "device.position": "inPosition",
    "device.model": "Simulator",
    "device.serial": "123456-78900001",
}
MAY_SEND = {
    "ServicePublisher.GetServices",
    "Common.Capabilities",
    "Common.Status",
    "Storage.GetStorage",
    "KeyManagement.GetKeyDetail",
    "Auxiliaries.Register",
}


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_recorded_session_is_read_service_by_service(generation: str) -> None:
    host = replayed(generation)
    for device, wanted in READ.items():
        points = host.points(device)
        assert {name: points.get(name) for name in wanted} == wanted, device
        assert {name: points.get(name) for name in EVERYWHERE} == EVERYWHERE, device
    check([reading for _, reading in host.of])
    assert host.hung_up == []


@pytest.mark.parametrize("generation", GENERATIONS)
def test_the_recorded_events_are_read(generation: str) -> None:
    host = replayed(generation)
    for service, message in unsolicited(host.services):
        host.say(service, message)
    assert host.value("sensors", "safe_door") == "open"
    assert host.value("sensors", "tamper") == "on"
    assert (host.value("sensors", "mains"), host.value("sensors", "battery")) == ("lost", "low")
    assert host.value("card", "device.state") == "offline"
    assert host.value("printer", "paper.upper") == "low"
    assert host.value("dispenser", "device.error") == "hardware"
    assert host.last("dispenser", "device.error").raw == "action: clear, note jam in transport"
    assert "active" in host.values("vendor", "vendor_mode.service")
    assert host.value("vendor", "vendor_mode.service") == "inactive"
    check([reading for _, reading in host.of])


@pytest.mark.parametrize("generation", GENERATIONS)
def test_the_counts_after_the_recorded_withdrawal_of_two_notes(generation: str) -> None:
    """Generation V1 goes on telling of the two notes as stacked after they were presented."""
    host = replayed(generation)
    host.run(30)
    assert host.value("dispenser", "cassette.unit5.count") == 150 - 2
    assert host.value("dispenser", "cassette.unit5.presented") == 2
    assert host.value("dispenser", "cassette.unit5.state") == "low"
    assert host.value("card", "retain.count") == 1


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_service_is_told_in_its_own_generation(generation: str) -> None:
    host = replayed(generation)
    command = next(c for c in host.commands("SimCashDispenser") if c["header"]["name"] == "Storage.GetStorage")
    if generation == "v1":
        assert command["payload"] == {"timeout": 8000}
        assert command["header"].keys() == {"type", "name", "requestId"}
        register = [c for c in host.commands("SimAuxiliaries") if c["header"]["name"] == "Auxiliaries.Register"]
        assert [c["payload"]["safeDoor"] for c in register] == ["register"]
        assert "heatSensor" not in register[0]["payload"], "the recorded device has none"
    else:
        assert "payload" not in command
        assert command["header"] == {
            "type": "command",
            "name": "Storage.GetStorage",
            "requestId": command["header"]["requestId"],
            "version": "2.0",
            "timeout": 8000,
        }
        assert "Auxiliaries.Register" not in host.names()


def test_a_hybrid_service_is_asked_with_versions_and_its_codes_are_read_from_the_payload() -> None:
    service = scripted("hybrid", Common_Status=ONLINE)
    host = alone(service)
    assert host.value("d", "device.state") == "online"
    assert all(c["header"]["version"] == "2.0" and "payload" not in c for c in host.commands("One"))
    service.answers["Common.Status"].extend([answer("Common.Status", ONLINE, "hybrid", "hardwareError")])
    host.run(12)
    assert host.last("d", "link.state").raw == "Common.Status: hardwareError"


def test_nothing_but_the_closed_list_of_commands_is_ever_sent() -> None:
    assert set(COMMANDS) == MAY_SEND
    payload = {"common": {"device": "hardwareError"}, "auxiliaries": {"safeDoor": "open"}}
    names = [*MAY_SEND, "Storage.StartExchange", "VendorMode.Register", "CashDispenser.Dispense", "Common.Cancel"]
    names += ["KeyManagement.ImportKey", "Storage.SetStorage", "Common.SetVersions", "CardReader.Reset"]
    everything: dict[str, Any] = {name.replace(".", "_"): payload for name in names if "Capabilities" not in name}
    host = alone(scripted(**everything))
    for name in ("Storage.StorageErrorEvent", "VendorMode.EnterModeRequestEvent", "Common.ErrorEvent"):
        host.say("One", event(name, {"eventId": "hardware", "action": "reset"}))
    host.run(300)
    for generation in GENERATIONS:
        host.sent += replayed(generation).sent
    assert set(host.names()) <= MAY_SEND
    assert host.driver.operations == {}


def test_the_timing_of_polls() -> None:
    host = alone(scripted(Common_Status=ONLINE, Storage_GetStorage={}, KeyManagement_GetKeyDetail={}))
    begun = len(host.sent)
    host.run(60)
    names = [c["header"]["name"] for _, c in host.sent[begun:]]
    assert {name: names.count(name) for name in set(names)} == {
        "Common.Status": 12,
        "Storage.GetStorage": 6,
        "KeyManagement.GetKeyDetail": 6,
    }
    assert [c["header"]["requestId"] for c in host.commands("One")] == list(range(1, len(host.commands("One")) + 1))
    assert max(b - a for a, b in pairwise(r.at for _, r in host.of if r.point == "device.state")) < 5.3


# --- discovery ---


def test_services_of_several_publishers_are_found_in_any_case_and_never_built() -> None:
    host = Host(driver(one="one", two="TWO"), {**ALL, "": publisher("One")})
    other = "ws://127.0.0.1:5847/xfs4iot/v1.0"
    host.publish()
    host.run(1)
    assert host.value("one", "link.state") == "up"
    host.publish(other)
    listed = {"services": [{"serviceURI": uri("Two")}]}
    asked = [c for address, c in host.sent if address == other]
    for message in answer("ServicePublisher.GetServices", listed):
        message["header"]["requestId"] = asked[0]["header"]["requestId"]
        host.hear(record("t", other, str(message).replace("'", '"').replace("None", "null").encode()))
    host.run(1)
    assert host.value("two", "link.state") == "up"


def test_a_service_that_a_publisher_tells_of_later_is_found() -> None:
    host = Host(driver(one="One", two="Two", three="Never"), {**ALL, "": publisher("One")})
    host.publish()
    host.run(1)
    late = event("ServicePublisher.ServiceDetailEvent", {"services": [{"serviceURI": uri("Two")}]})
    host.say("", late)
    host.run(1)
    assert (host.value("one", "link.state"), host.value("two", "link.state")) == ("up", "up")
    host.run(6)
    assert host.last("three", "link.state").raw.endswith("the services here are One, Two"), "both lists are merged"


def test_a_service_that_nobody_lists_is_missing_and_the_reason_names_those_that_are_there() -> None:
    host = Host(driver(one="One", other="Printer9"), {**ALL, "": publisher("One", "Two")})
    host.publish()
    host.run(60)
    states = [r for name, r in host.of if (name, r.point) == ("other", "link.state")]
    assert {state.value for state in states} == {"missing"}
    assert states[-1].raw == "no publisher lists a service Printer9; the services here are One, Two"
    assert max(b.at - a.at for a, b in pairwise(states)) < lookup("link.state").max_age
    assert host.value("one", "link.state") == "up"
    host.services = {**ALL, "": publisher("One", "Printer9"), "Printer9": scripted(Common_Status=ONLINE)}
    host.run(35)
    assert host.value("other", "link.state") == "up", "it is asked for again"


def test_an_address_that_cannot_be_one_is_not_opened() -> None:
    addresses = ["http://127.0.0.1/One", "ws://a b/One", "ws://127.0.0.1/ü/One", f"ws://{'x' * 300}/One", PUBLISHER]
    for bad in (*({"serviceURI": address} for address in (*addresses, 5, None)), 7, "One"):
        host = Host(driver(d="One", p="v1.0"), {"": scripted(ServicePublisher_GetServices={"services": [bad]})})
        host.publish()
        host.run(10)
        assert {address for address, _ in host.sent} == {PUBLISHER}
        assert (host.value("d", "link.state"), host.value("p", "link.state")) == ("missing", "missing")


def test_a_publisher_behind_tls_leads_to_nothing_without() -> None:
    host = Host(driver(d="One"), {"": publisher("One")})
    host.open.add("wss://127.0.0.1:5846/xfs4iot/v1.0")
    host.driver.receive(record("o", "wss://127.0.0.1:5846/xfs4iot/v1.0"), host.now)
    host.driver.outgoing()
    reply = b'{"header":{"type":"completion","name":"ServicePublisher.GetServices","requestId":1},"payload":'
    host.hear(
        record(
            "t", "wss://127.0.0.1:5846/xfs4iot/v1.0", reply + b'{"services":[{"serviceURI":"ws://127.0.0.1/One"}]}}'
        )
    )
    host.run(1)
    assert not [address for address, _ in host.sent if address.endswith("One")]


# --- silence, and coming back ---


def test_a_mute_publisher_makes_every_device_silent_within_15_seconds_and_that_never_gets_stale() -> None:
    host = Host(driver(a="One", b="Two"))
    for _ in range(10):  # when no connection is left, the link opens all anew with a new driver
        host.publish()
        host.run(12)
    for device in ("a", "b"):
        at = [r.at for name, r in host.of if (name, r.point, r.value) == (device, "link.state", "silent")]
        assert at[0] - 1000 <= 15
        assert max(b - a for a, b in pairwise(at)) < lookup("link.state").max_age


@pytest.mark.parametrize("way", ["mute", "acknowledges only", "closes", "cannot be opened"])
def test_a_service_that_does_not_answer_is_silent_in_time_and_alone_and_comes_back(way: str) -> None:
    services = {name: scripted(Common_Status=ONLINE) for name in ("One", "Two")}
    host = Host(driver(one="One", two="Two"), {**services, "": publisher("One", "Two")})
    host.publish()
    host.run(20)
    answers, begun, before = services["One"].answers, host.now, len(host.of)
    last_up = [r.at for n, r in host.of if (n, r.point, r.value) == ("one", "link.state", "up")][-1]
    if way == "mute":
        host.silent.add(uri("One"))
    elif way == "acknowledges only":
        services["One"].answers = {name: deque([turns[0][:1]]) for name, turns in answers.items()}
    else:
        if way == "cannot be opened":
            host.refused.add(uri("One"))
        host.silent.add(uri("One"))
        host.lose("One")
    host.run(60)
    states = [r for n, r in host.of[before:] if (n, r.point) == ("one", "link.state")]
    assert {state.value for state in states} == {"silent"}
    assert all("One" in state.raw for state in states)
    if way == "closes":
        assert states[0].at - begun < 0.2
        assert states[0].raw.endswith("the service has closed it")
    elif way == "cannot be opened":
        assert states[-1].raw.endswith("it cannot be reached")
    assert states[0].at - last_up <= lookup("link.state").max_age, "said before the last word is stale"
    assert max(b.at - a.at for a, b in pairwise(states)) < lookup("link.state").max_age
    assert set(host.values("two", "link.state")) == {"up"}
    host.silent.clear()
    host.refused.clear()
    services["One"].answers = answers
    host.run(12)
    assert host.value("one", "link.state") == "up"
    numbers = [c["header"]["requestId"] for c in host.commands("One")]
    assert numbers.count(1) > 1, "each connection counts from 1"


def test_a_new_connection_asks_for_everything_at_once() -> None:
    host = alone(scripted(Common_Status=ONLINE, Storage_GetStorage={}, KeyManagement_GetKeyDetail={}))
    host.lose("One")
    before = len(host.sent)
    host.run(3.5)
    names = [command["header"]["name"] for _, command in host.sent[before:]]
    assert names == ["Common.Capabilities", "Common.Status", "Storage.GetStorage", "KeyManagement.GetKeyDetail"]


def test_a_service_of_which_only_rubbish_comes_is_rubbish() -> None:
    host = alone(scripted(Common_Status=ONLINE))
    host.silent.add(uri("One"))
    for _ in range(300):
        host.say("One", b"HTTP/1.1 400 Bad Request")
        host.run(0.1)
    assert host.value("d", "link.state") == "rubbish"
    assert "is it an XFS4IoT service?" in host.last("d", "link.state").raw
    assert int(str(host.value("d", "link.bad_frames"))) > 100


def test_a_question_that_waits_in_the_queue_of_a_busy_pad_is_not_silence_and_not_asked_twice() -> None:
    keys = {"keyDetails": {"TMK": {"loaded": "yes"}}}
    service = scripted(Common_Status=ONLINE, KeyManagement_GetKeyDetail=keys)
    host = alone(service)
    whole = service.answers["KeyManagement.GetKeyDetail"][0]
    service.answers["KeyManagement.GetKeyDetail"][0] = whole[:1]
    begun = len(host.sent)
    host.run(100)
    assert host.names("One")[begun - 1 :].count("KeyManagement.GetKeyDetail") == 1
    assert set(host.values("d", "link.state")) == {"up"}
    assert lookup("key.TMK.state").max_age > 100
