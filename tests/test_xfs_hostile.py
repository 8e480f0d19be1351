"""The XFS4IoT driver and hostile services: strange values, foreign numbers, floods, secrets where none belong."""

import json
from random import Random
from typing import Any

import pytest

from agent.drivers.xfs_messages import Names, clean, leaves, segment
from tests.recorded import (
    GENERATIONS,
    SERVICES,
    Host,
    Message,
    alone,
    answer,
    driver,
    event,
    recordings,
    replayed,
    scripted,
    unsolicited,
    uri,
)
from tests.test_drivers import check

ONLINE = {"common": {"device": "online"}}
UNIT = {
    "status": "ok",
    "cash": {
        "status": {
            "initial": {"unrecognized": 0, "typeEUR20": {"fit": 150, "unfit": 3}},
            "out": {"presented": {"typeEUR20": {"fit": 2}}},
            "in": {"retractOperations": 9, "retracted": {"unrecognized": 1}},
            "replenishmentStatus": "ok",
        }
    },
}


def keys(**loaded: str) -> Message:
    return {"keyDetails": {name: {"loaded": state} for name, state in loaded.items()}}


STRANGE: list[Any] = [None, True, 0, -1, 1e999, 10**30, "", "x" * 5000, "\ud800\x00\x1b[2J", [], [[]], {}, {"": {}}]
STRANGE += [{"header": None}, {"header": {"name": "Common.Status"}}, ["header"], {"position": {"position": 1}}]


def spoil(tree: Any, rng: Random) -> Any:
    """The same JSON with something strange somewhere in it."""
    if not isinstance(tree, dict | list) or not tree or rng.random() < 0.1:
        return rng.choice(STRANGE)
    copy = tree.copy()
    at = rng.choice(list(tree)) if isinstance(tree, dict) else rng.randrange(len(tree))
    copy[at] = spoil(tree[at], rng)
    return copy


@pytest.mark.parametrize("seed", range(60))
def test_strange_values_anywhere_raise_nothing_and_leave_the_vocabulary_alone(seed: int) -> None:
    rng = Random(seed)
    services = recordings(rng.choice(GENERATIONS))
    for one in services.values():
        for turns in one.answers.values():
            for messages in turns:
                messages[-1:] = [{**m, "payload": spoil(m.get("payload"), rng)} for m in messages[-1:]]
    host = Host(driver(**SERVICES), services)
    host.publish()
    host.run(12, step=0.5)
    for service, message in unsolicited(services):
        host.say(service, json.dumps({**message, "payload": spoil(message.get("payload"), rng)}).encode())
        host.say(service, json.dumps(spoil(message, rng)).encode())
    host.run(12, step=0.5)
    check([reading for _, reading in host.of])
    repr(host.of).encode()
    for _, reading in host.of:
        json.dumps([reading.value, reading.raw], ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 10_000 + b"]" * 10_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b'{"header":{"type":"completion","name":"Common.Status","requestId":' + b"9" * 5000 + b"}}",
        b"\xff\xfe\x00",
        b"",
        b"null",
        b'{"header":{"type":"completion","name":"' + b"A" * 100_000 + b'.B","requestId":1}}',
        b'{"header":{"type":"event","name":"Common.StatusChangedEvent","requestId":false}}',
        b'{"header":{"type":"completion","name":"Common.Status","requestId":99}}',
        b'{"header":{"type":"acknowledge","name":"Common.Status","requestId":1}}',
        b'{"header":{"type":"event","name":"Common.StatusChangedEvent","requestId":99}}',
        b'{"header":{"type":"event","name":"Common.StatusChangedEvent"},"payload":[1]}',
    ],
)
def test_a_message_that_is_none_or_not_ours_is_counted_and_harms_nobody(text: bytes) -> None:
    host = replayed("v2")
    host.run(1)
    before = {name: host.points(name) for name in ("card", "printer")}
    host.say("SimCardReader", text)
    host.run(1.5)
    assert host.value("card", "link.bad_frames") == 1
    assert host.value("printer", "link.bad_frames") == 0
    assert {name: host.points(name) for name in before} == {
        "card": {**before["card"], "link.bad_frames": 1},
        "printer": before["printer"],
    }


def test_an_answer_of_another_name_is_not_the_answer() -> None:
    host = alone(scripted(Common_Status=ONLINE))
    host.run(3)
    host.silent.add(uri("One"))
    host.run(2.5)
    ack, done = answer("Storage.GetStorage", {"storage": {"unit1": UNIT}})
    number = host.commands("One")[-1]["header"]["requestId"]
    for message in (ack, done):
        host.say("One", {**message, "header": {**message["header"], "requestId": number}})
    host.run(5)
    assert "cassette.unit1.count" not in host.points("d")
    assert host.value("d", "link.bad_frames") == 2
    assert host.value("d", "link.state") == "rubbish"


def test_a_completion_before_its_acknowledge_is_used_and_doubles_are_only_counted() -> None:
    service = scripted(Common_Status=ONLINE)
    ack, done = service.answers["Common.Status"][0]
    service.answers["Common.Status"][0] = [done, ack, done, done]
    host = alone(service)
    host.run(2)
    assert host.value("d", "device.state") == "online"
    assert host.value("d", "link.bad_frames") == 4
    assert host.hung_up == []


def test_floods_of_names_make_no_flood_of_points() -> None:
    many = [f"n{i}" for i in range(5000)]
    status = {
        "printer": {"paper": dict.fromkeys(many, "low")},
        "cashDispenser": {"positions": [{"position": name, "shutter": "open"} for name in many]},
    }
    storage = {"storage": {name: UNIT for name in many}}
    listed = {"services": [{"serviceURI": uri(name)} for name in many] + [{"serviceURI": uri("One")}]}
    service = scripted(
        Common_Status=status,
        Storage_GetStorage=storage,
        KeyManagement_GetKeyDetail=keys(**dict.fromkeys(many, "yes")),
    )
    host = Host(
        driver(d="One", other="Nowhere"), {"": scripted(ServicePublisher_GetServices=listed), "One": service}
    )
    host.publish()
    for turn in range(3):
        host.say("One", event("Storage.StorageChangedEvent", {f"{turn}{name}": UNIT for name in many}))
        host.say("One", event("Printer.PaperThresholdEvent", {"paperSource": f"{turn}x", "threshold": "low"}))
        host.run(11)
    names = host.points("d")
    assert len({n.split(".")[1] for n in names if n.startswith("cassette.")}) == 64
    assert len({n.split(".")[1] for n in names if n.startswith("key.")}) == 64
    assert len({n.split(".")[1] for n in names if n.startswith(("paper.", "position."))}) == 64
    assert len(host.last("other", "link.state").raw) < 3000
    (one,) = vars(host.driver)["_publishers"].values()
    assert len(one.services) == 32
    assert len(vars(vars(vars(host.driver)["_services"]["d"])["_storage"])["_units"]) == 64
    for number in range(100):
        host.publish(f"ws://127.0.0.1:{number + 1}/xfs4iot/v1.0")
    assert len(vars(host.driver)["_publishers"]) == 16


def test_a_flood_of_events_makes_no_flood_of_commands_and_keeps_nothing() -> None:
    host = alone(scripted(Common_Status=ONLINE, Storage_GetStorage={"storage": {"unit1": UNIT}}))
    begun = len(host.sent)
    for turn in range(100):
        for name in ("CashManagement.ItemsTakenEvent", "Common.StatusChangedEvent", "Vendor.NewThing"):
            host.say("One", *[event(name, {"cashDispenser": {f"x{turn}": "y"}})] * 5)
        host.run(0.1)
    assert len(host.sent) - begun <= 2 * 11
    grown = {"cash": {"status": {"out": {"presented": {f"type{i}": {"fit": i} for i in range(3000)}}}}}
    for turn in range(10):
        renamed = json.loads(json.dumps(grown).replace("type", f"t{turn}type"))
        host.say("One", event("Storage.CountsChangedEvent", {"unit1": renamed}))
    (service,) = vars(host.driver)["_services"].values()
    assert sum(len(unit) for unit in vars(vars(service)["_storage"])["_units"].values()) <= 20_000
    assert len(leaves({str(i): i for i in range(50_000)})) == 20_000


def test_a_card_number_never_comes_through_whatever_field_it_hides_in() -> None:
    pan = "4929123456789012"
    host = alone(
        scripted(Common_Status={"common": {"device": pan}, "printer": {"paper": {pan: "low", "upper": pan}}})
    )
    host.driver.transcript.on = True
    error = {"eventId": pan, "action": pan, "vendorDescription": f"card {pan} in transport {pan[:-1]}"}
    host.say("One", event("Common.ErrorEvent", error))
    host.say("One", event("KeyManagement.IllegalKeyAccessEvent", {"keyName": pan, "errorCode": pan}))
    host.say("One", event("CardReader.CardActionEvent", {"to": pan}))
    host.run(10)
    assert "12345678" not in repr(host.of) + repr(host.driver.transcript.read())
    assert host.last("d", "device.error").raw.endswith("card (long number) in transport (long number)")


def test_names_stay_apart_and_what_is_shown_is_printable_and_short() -> None:
    names = Names(3)
    assert [names.of(n) for n in ("a.b", "a b", "a.b", "a-b", "c")] == ["a_b", "a_b-2", "a_b", "a-b", ""]
    assert segment("") == "_"
    assert len(segment("x" * 1000)) == 32
    assert clean("\ud800\x1b[2J" + "y" * 1000) == "[2J" + "y" * 117
    clean("\ud800").encode()
