"""The simulated XFS4IoT host's queue, its traps (hwsim/xfs_traps.py) and its hostile switches."""

import json

import pytest

from hwsim.xfs4iot import Xfs4iot
from hwsim.xfs_traps import COMPLETION_CODES
from tests.xfs_host import Host, Message, named

OPEN = {"auxiliaries": {"safeDoor": "open"}}


def code(message: Message) -> str:
    return str(message["header"]["completionCode"])


def test_the_defaults_are_those_of_the_standard() -> None:
    twin = Xfs4iot()
    assert [getattr(twin, f"trap{n}") for n in range(1, 11)] == ["off"] * 9 + ["on"]


@pytest.mark.parametrize("generation", ["v1", "v2"])
@pytest.mark.parametrize(("trap", "kind"), [("off", "unsolicited"), ("on", "event")])
def test_trap_1_what_unsolicited_events_are_called(generation: str, trap: str, kind: str) -> None:
    host = Host(generation=generation, trap1=trap)
    host.open("SimCardReader")
    [event] = host.set(card_reader_device="offline")
    assert event["header"]["type"] == kind
    assert "requestId" not in event["header"]


@pytest.mark.parametrize(("trap", "name"), [("off", "KeyManagement"), ("on", "keyManagement")])
def test_trap_2_the_first_letter_of_interfaces(trap: str, name: str) -> None:
    told = Host(trap2=trap).payload("SimEncryptor", "Common.Capabilities")
    assert told["interfaces"][1]["name"] == name
    assert "KeyManagement.GetKeyDetail" in told["interfaces"][1]["commands"], "commands are spelled one way only"


@pytest.mark.parametrize(
    ("trap", "ups", "form", "forbidden", "position"),
    [
        ("off", "UPS", "A", "authorizationRequired", "Unknown"),
        ("on", "ups", "a", "authorisationRequired", "unknown"),
    ],
)
def test_trap_3_spellings(trap: str, ups: str, form: str, forbidden: str, position: str) -> None:
    host = Host(trap3=trap, ups_low="on")
    assert host.payload("SimAuxiliaries")["auxiliaries"][ups]["low"] is True
    told = host.payload("SimEncryptor", "Common.Capabilities")["keyManagement"]
    assert told["keyBlockImportFormats"][form] is True
    channel = host.open("SimEncryptor")
    host.set(completes_with="authorizationRequired")
    assert code(host.ask(channel, "KeyManagement.Reset")[1]) == forbidden
    old = Host(generation="v1", trap3=trap, card_reader_position="unknown")
    assert old.payload("SimCardReader")["common"]["devicePosition"] == position


@pytest.mark.parametrize("generation", ["v1", "v2"])
@pytest.mark.parametrize("trap", ["off", "on"])
def test_trap_4_members_that_break_the_schema(generation: str, trap: str) -> None:
    host = Host(generation=generation, trap4=trap)
    cash = host.payload("SimCashDispenser", "Storage.GetStorage")["storage"]["unit6"]["cash"]
    configuration = cash["configuration"]
    broken = [
        configuration.get("currency"),
        configuration.get("lowThreshold"),
        cash["capabilities"].get("retractAreas"),
    ]
    assert broken == (["", 0, 0] if trap == "on" else [None] * 3)
    keys = host.payload("SimEncryptor", "KeyManagement.GetKeyDetail")["keyDetails"]
    assert keys["TMK"]["keyBlockInfo"].get("restrictedKeyUsage") == ("" if trap == "on" else None)
    assert configuration["appLockOut"] is False


UNLISTED = '{"header":{"type":"command","name":"Storage.GetStorage","version":"2.0","requestId":1}}'
NO_ID = '{"header":{"type":"command","name":"Common.Status","version":"2.0"}}'
WRONG_PAYLOAD = '{"header":{"type":"command","name":"Common.Status","version":"2.0","requestId":1},"payload":[]}'
FATAL = [UNLISTED, NO_ID, WRONG_PAYLOAD, "{", "[]", "null", "[" * 50_000]


@pytest.mark.parametrize("text", FATAL)
@pytest.mark.parametrize("generation", ["v1", "v2"])
def test_trap_5_a_mistake_ends_the_host_and_it_is_back_after_two_seconds(generation: str, text: str) -> None:
    host = Host(generation=generation, trap5="on")
    victim, other = host.open("SimAuxiliaries"), host.open("SimPrinter")
    host.wait(1.0)
    assert host.send(victim, text) == []
    assert host.gone == [victim, other]
    assert host.set(paper_upper="out") == [], "nobody is there"
    early = host.open("SimPrinter")
    assert host.gone[-1] == early
    host.wait(2.0)
    assert named(host.ask(host.open("SimPrinter"), "Common.Status")) == ["Status"] * 2


@pytest.mark.parametrize("text", FATAL)
def test_trap_5_off_a_mistake_is_refused(text: str) -> None:
    host = Host()
    channel = host.open("SimAuxiliaries")
    said = host.send(channel, text)
    assert not host.gone
    if text == UNLISTED:
        assert code(said[1]) == "unsupportedCommand"
    else:
        assert [m["header"]["status"] for m in said] == ["invalidMessage"]


def test_trap_6_an_unknown_command_is_never_answered() -> None:
    for trap, generation, answers in (("off", "v2", 2), ("off", "v1", 2), ("on", "v2", 0), ("on", "v1", 0)):
        host = Host(trap6=trap, generation=generation)
        channel = host.open("SimPrinter")
        said = host.ask(channel, "Common.Dance")
        assert len(said) == answers
        assert host.gone == ([channel] if (trap, generation) == ("on", "v1") else [])
        if said and generation == "v2":
            assert code(said[1]) == "invalidCommand"
        if not host.gone:
            assert len(host.ask(channel, "Common.Status")) == 2


def test_trap_7_without_a_version() -> None:
    host = Host(trap7="on")
    acknowledge, completion = host.ask(host.open("SimPrinter"), "Common.Status", version=None)
    assert acknowledge["header"] == {"name": "Common.Status", "requestId": 1, "type": "acknowledge"}
    assert code(completion) == "unsupportedCommand"
    [refused] = Host().ask(host.open("SimPrinter"), "Common.Status", version=None)
    assert refused["header"]["status"] == "invalidMessage"


@pytest.mark.parametrize(
    ("trap", "generation", "few", "crossing"),
    [
        (
            "off",
            "v2",
            ["CountsChangedEvent"],
            ["CountsChangedEvent", "StorageThresholdEvent", "StorageChangedEvent"],
        ),
        ("on", "v2", [], ["StorageChangedEvent"]),
        ("off", "v1", ["StorageChangedEvent"], ["StorageThresholdEvent", "StorageChangedEvent"]),
        ("on", "v1", [], ["StorageChangedEvent"]),
    ],
)
def test_trap_8_counts_that_change_in_silence(
    trap: str, generation: str, few: list[str], crossing: list[str]
) -> None:
    host = Host(trap8=trap, generation=generation)
    host.open("SimCashDispenser")

    def storage(said: list[Message]) -> list[str]:
        return [name for name in named(said) if name.startswith(("Storage", "Counts"))]

    assert storage(host.set(dispense="1:5")) == few
    said = host.set(dispense="1:1800")
    assert storage(said) == crossing
    last = next(m for m in reversed(said) if m["header"]["name"] == "Storage.StorageChangedEvent")
    unit = last["payload"]["unit1"]
    assert unit["cash"]["status"]["replenishmentStatus"] == "low"
    assert ("positionName" in unit) == (generation == "v1"), "V1 tells the whole unit"


@pytest.mark.parametrize("generation", ["v1", "v2"])
@pytest.mark.parametrize("trap", ["off", "on"])
def test_trap_9_a_card_that_is_retained_in_silence(trap: str, generation: str) -> None:
    host = Host(trap9=trap, generation=generation, card_media="present")
    host.open("SimCardReader")
    said = host.set(retain=1)
    assert "MediaRemovedEvent" not in named(said), "nobody took it"
    assert named(said).count("StorageChangedEvent") == (trap == "off")
    bin_ = host.payload("SimCardReader", "Storage.GetStorage")["storage"]["unitBIN1"]
    assert bin_["card"]["status"]["count"] == 1
    assert host.payload("SimCardReader")["cardReader"]["media"] == "notPresent"


def test_trap_10_events_carry_changed_members_or_the_whole() -> None:
    host = Host()
    for service in ("SimCashDispenser", "SimAuxiliaries"):
        host.open(service)
    assert host.set(safe_door="open")[0]["payload"] == OPEN
    assert host.set(shutter="jammedOpen")[0]["payload"] == {
        "cashDispenser": {"positions": [{"position": "outCenter", "shutter": "jammedOpen"}]}
    }
    assert host.set(unit2_status="missing")[0]["payload"] == {
        "unit2": {"status": "missing", "cash": {"status": {"replenishmentStatus": None}}}
    }
    host.set(trap10="off")
    assert host.set(tamper="on")[0]["payload"] == {"auxiliaries": host.payload("SimAuxiliaries")["auxiliaries"]}
    units = host.payload("SimCashDispenser", "Storage.GetStorage")["storage"]
    said = host.set(unit2_status="manipulated")
    assert said[-1]["payload"]["unit2"] == units["unit2"] | {
        "status": "manipulated",
        "cash": said[-1]["payload"]["unit2"]["cash"],
    }


@pytest.mark.parametrize("version", ["3.0", "2", "02.0", "1.0"])
def test_a_version_that_is_not_listed_exactly_is_unsupported(version: str) -> None:
    host = Host()
    channel = host.open("SimPrinter")
    acknowledge, completion = host.ask(channel, "Common.Status", version=version)
    assert acknowledge["header"]["version"] == version
    assert code(completion) == "unsupportedCommand"
    assert completion["header"]["errorDescription"].startswith(f"Common.Status Command version ({version})")
    assert "payload" not in completion


def test_late_services_are_told_in_an_event_before() -> None:
    host = Host(late_services="on")
    _, event, completion = host.ask(host.open(), "ServicePublisher.GetServices")
    assert event["header"] == {
        "name": "ServicePublisher.ServiceDetailEvent",
        "requestId": 1,
        "type": "event",
        "version": "2.0",
    }
    told = [*event["payload"]["services"], *completion["payload"]["services"]]
    assert len({s["serviceURI"] for s in told}) == len(told) == 7


def test_a_request_id_must_grow_unless_told_otherwise() -> None:
    host = Host()
    channel = host.open("SimPrinter")
    host.ask(channel, "Common.Status", requestId=5)
    for number in (5, 4, 0, -1):
        [refused] = host.ask(channel, "Common.Status", requestId=number)
        assert refused["header"] == {
            **{"name": "Common.Status", "requestId": number, "type": "acknowledge"},
            **{"version": "2.0", "status": "invalidRequestID"},
        }
    assert len(host.ask(host.open("SimPrinter"), "Common.Status", requestId=1)) == 2, (
        "each connection counts for itself"
    )
    host.set(strict_ids="off")
    assert len(host.ask(channel, "Common.Status", requestId=0)) == 2


def test_status_overtakes_what_is_queued_and_a_queue_is_done_in_order() -> None:
    host = Host(command_seconds=1.0, printer_device="hardwareError")
    channel = host.open("SimPrinter")
    for _ in range(2):
        assert [m["header"]["type"] for m in host.ask(channel, "Printer.Reset", version="3.0")] == ["acknowledge"]
    assert host.ask(channel, "Common.Status")[1]["payload"]["common"]["device"] == "hardwareError"
    assert [m["header"].get("requestId") for m in host.wait(1.5)] == [1, None]
    assert [m["header"]["requestId"] for m in host.wait(1.0)] == [2]
    assert host.payload("SimPrinter")["common"]["device"] == "online"


def test_a_command_whose_time_has_run_out_and_one_that_fails() -> None:
    host = Host(command_seconds=2.0, reset_fails="on")
    channel = host.open("SimCardReader")
    host.ask(channel, "CardReader.Reset", timeout=0)
    host.ask(channel, "CardReader.Reset", timeout=500)
    said = host.wait(3.0)
    assert [(m["header"]["requestId"], code(m)) for m in said] == [(2, "timeOut"), (1, "hardwareError")]


def test_cancelling_is_answered_before_what_it_cancels() -> None:
    host = Host(command_seconds=60)
    channel, other = host.open("SimPrinter"), host.open("SimPrinter")
    for c in (channel, other, channel):
        host.ask(c, "Printer.Reset", version="3.0")
    said = host.ask(channel, "Common.Cancel", {"requestIds": [2]})
    assert [(m["header"]["requestId"], m["header"].get("completionCode")) for m in said] == [
        (3, None),
        (3, "success"),
        (2, "canceled"),
    ]
    unknown = host.ask(channel, "Common.Cancel", {"requestIds": [77]})[1]
    assert (code(unknown), unknown["payload"]) == ("commandErrorCode", {"errorCode": "noMatchingRequestIDs"})
    assert code(host.ask(channel, "Common.Cancel", {"requestIds": 5})[1]) == "invalidData"
    assert [m["header"]["requestId"] for m in host.ask(channel, "Common.Cancel")[1:]] == [6, 1]
    host.close(other)
    assert host.wait(120.0) == [], "a closed connection's commands are cancelled with it"


def test_too_many_requests_are_refused() -> None:
    host = Host(command_seconds=60, maximum_requests=2)
    channel = host.open("SimPrinter")
    said = [host.ask(channel, "Printer.Reset", version="3.0") for _ in range(3)]
    assert [s[0]["header"].get("status") for s in said] == [None, None, "tooManyRequests"]
    assert len(host.ask(channel, "Common.Status")) == 2


@pytest.mark.parametrize("word", COMPLETION_CODES)
def test_any_completion_code_can_be_had(word: str) -> None:
    host = Host(completes_with=word)
    assert code(host.ask(host.open("SimPrinter"), "Common.Status")[1]) == word
    assert code(host.ask(host.open("SimPrinter"), "Common.Capabilities")[1]) == "success"


def test_completions_of_nobody_none_and_out_of_order() -> None:
    host = Host(wrong_request_id="on")
    channel = host.open("SimPrinter")
    acknowledge, completion = host.ask(channel, "Common.Status")
    assert acknowledge["header"]["requestId"] == 1
    assert completion["header"]["requestId"] != 1
    host.set(wrong_request_id="off", no_completion="on")
    assert [m["header"]["type"] for m in host.ask(channel, "Common.Status")] == ["acknowledge"]
    host.set(no_completion="off", out_of_order="on")
    for name in ("Common.Status", "Common.Capabilities"):
        assert [m["header"]["type"] for m in host.ask(channel, name)] == ["acknowledge"]
    said = host.wait(1.0)
    assert [m["header"].get("requestId") for m in said] == [None, 4, None, 3]
    assert said[0]["payload"] == {"common": {"device": "online"}}


def test_a_mute_host_accepts_and_says_nothing() -> None:
    host = Host(mute="on", flood=3)
    channel = host.open("SimPrinter")
    assert host.ask(channel, "Common.Status") == host.set(paper_upper="out") == host.wait(5.0) == []
    assert not host.gone


def test_a_status_nested_very_deep_and_one_that_is_very_large() -> None:
    host = Host(deep_json="on")
    channel = host.open("SimPrinter")
    command = {"header": {"type": "command", "name": "Common.Status", "version": "2.0", "requestId": 1}}
    said = host.twin.receive(b"\x1et" + channel.encode() + b"\x1f" + json.dumps(command).encode() + b"\x1d")
    text = said.rpartition(b"\x1f")[2].rstrip(b"\x1d")
    assert text.count(b"[") == text.count(b"]") == 10_000
    json.loads(text.replace(b"[" * 10_000 + b"]" * 10_000, b"0"))
    host.set(deep_json="off", huge=3)
    completion = host.ask(channel, "Common.Status", requestId=2)[1]
    assert 3_000_000 < len(json.dumps(completion)) < 3_001_000


def test_a_flood_is_on_every_connection_at_every_tick() -> None:
    host = Host(flood=5)
    for service in ("", "SimPrinter", "SimCardReader"):
        host.open(service)
    assert named(host.wait(0.0)) == ["StatusChangedEvent"] * 10
    assert host.set(flood=0) == []


def test_a_cable_pulled_and_put_back_begins_anew() -> None:
    host = Host(command_seconds=1.0)
    channel = host.open("SimPrinter")
    host.ask(channel, "Printer.Reset", requestId=9, version="3.0")
    host._count = 0
    assert host.open("SimPrinter") == channel
    assert host.wait(2.0) == [], "what the old connection had asked for is gone"
    assert len(host.ask(channel, "Common.Status", requestId=1)) == 2
