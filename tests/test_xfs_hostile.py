"""The XFS4IoT driver and hostile services: strange values, foreign numbers, floods, secrets where none belong."""

import json
from random import Random
from typing import Any

import pytest

from agent.drivers.xfs_messages import Names, clean, leaves, segment
from tests.recorded import (
    GENERATIONS,
    ONLINE,
    SERVICES,
    UNIT,
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


def cash(**status: Any) -> Message:
    return {"cash": {"status": {"initial": {"unrecognized": 3}, **status}, "configuration": {"value": 20}}}


def deposit(number: int) -> Message:
    return {"deposit": {"status": {"numOfDeposits": number}}, "card": {"status": {"initialCount": number}}}


def keys(**loaded: str) -> Message:
    return {"keyDetails": {name: {"loaded": state} for name, state in loaded.items()}}


STRANGE: list[Any] = [None, True, 0, -1, 1e999, 10**30, "", "x" * 5000, "\ud800\x00\x1b[2J", [], [[]], {}, {"": {}}]
IMPOSSIBLE = [1e999, -1e999, float("nan"), 10**9, 10**399, 10**4299, -1, -(10**4299)]
"""Numbers that cannot be one. 4300 digits are the most that Python reads."""
STRANGE += IMPOSSIBLE
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


def renumbered(tree: Any, number: Any, found: list[str], path: str = "") -> Any:
    """The same JSON with every number in it replaced; `found` gets the names of what was."""
    if isinstance(tree, dict):
        return {name: renumbered(value, number, found, name) for name, value in tree.items()}
    if isinstance(tree, list):
        return [renumbered(value, number, found, path) for value in tree]
    if isinstance(tree, int | float) and not isinstance(tree, bool):
        found.append(path)
        return number
    return tree


@pytest.mark.parametrize("number", IMPOSSIBLE, ids=lambda number: str(number)[:5])
@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_number_that_cannot_be_is_no_reading_wherever_it_stands(generation: str, number: Any) -> None:
    services, found = recordings(generation), list[str]()
    status = services["SimPrinter"].answers["Common.Status"]
    for _, done in status:
        done["payload"]["printer"]["retractBins"] = [{"state": "ok", "count": 5}]
    units = services["SimCashDispenser"].answers["Storage.GetStorage"]
    for _, done in units:
        more = {"status": {"initial": 7, "in": 1}}
        done["payload"]["storage"] |= {"paper": {"printer": more}, "old": cash(count=8), "box": deposit(9)}
        done["payload"]["storage"] |= {"half": cash(), "told": cash(), "more": {"printer": {}}}
    for one in services.values():
        for turns in one.answers.values():
            for messages in turns:
                messages[-1]["payload"] = renumbered(messages[-1].get("payload"), number, found)
    for _, done in units:  # and one that is impossible in one part only
        half, more = (done["payload"]["storage"][name] for name in ("half", "more"))
        half["cash"]["status"] |= {
            "initial": {"typeEUR20": {"fit": 150}},
            "in": {"deposited": {"unrecognized": number}},
        }
        done["payload"]["storage"]["told"]["cash"]["status"] |= {"initial": {"unrecognized": 3}, "count": number}
        more["printer"]["status"] = {"initial": 7, "in": number}
    host = Host(driver(**SERVICES), services)
    host.publish()
    host.run(12, step=0.5)
    for service, message in unsolicited(services):
        host.say(service, {**message, "payload": renumbered(message.get("payload"), number, found)})
    check([reading for _, reading in host.of])
    assert {"value", "count", "capacity", "fit", "initial", "in", "numOfDeposits", "initialCount"} <= set(found)
    counted = ("count", "initial", "presented", "retracted", "capacity", "note")
    said = {point for name in SERVICES for point in host.points(name) if point.rpartition(".")[2] in counted}
    assert said == {f"cassette.{name}.initial" for name in ("half", "told", "more")}, (
        "a sum with such a part is no sum"
    )
    assert not [r for _, r in host.of for word in ("nan", "inf") if word in f"{r.value} {r.raw}".lower().split()]
    assert {host.value(name, "link.state") for name in SERVICES} == {"up"}


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 10_000 + b"]" * 10_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b'{"header":{"type":"completion","name":"Common.Status","requestId":' + b"9" * 5000 + b"}}",
        b'{"header":{"type":"event","name":"Common.StatusChangedEvent"},"payload":{"a":' + b"9" * 4301 + b"}}",
        b'{"header":{"type":"completion","name":"Common.Status","requestId":' + b"9" * 4300 + b"}}",
        b'{"header":{"type":"event","name":"Common.StatusChangedEvent","requestId":1e999}}',
        b'{"header":{"type":"event","name":"Common.StatusChangedEvent","requestId":-1}}',
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


def test_a_number_of_a_message_that_cannot_be_makes_no_long_line_in_the_transcript() -> None:
    host = alone(scripted(Common_Status=ONLINE))
    host.driver.transcript.on = True
    host.say("One", b'{"header":{"type":"event","name":"A.B","requestId":' + b"9" * 4300 + b"}}")
    assert host.driver.transcript.read() == ["< One: something that is no XFS4IoT message"]


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
