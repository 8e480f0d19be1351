"""The EPP driver: the simulated pad over good and bad wires; and that no key press remains."""

from collections import deque
from dataclasses import dataclass

import pytest

from agent.drivers.epp import INFO, WHOLE_WITHIN, Epp, EppOptions
from agent.model import Operation, Outcome, Reading
from hwsim import DEVICES, change_setting
from tests import golden
from tests.remains import remains
from tests.virtual import Bench, prepare, stays, wires, words

WIRES = wires(merge=0.3, late=0.4, later=0.9)
PIN = "4821390756"
REPLY = next(golden.octets(text) for mark, text in golden.cases("epp")[0].steps if mark == "<")


def bench(seed: int = 0, **changes: object) -> Bench:
    at = Bench(Epp(EppOptions()), DEVICES["epp"](), seed)
    prepare(at.device, **changes)
    return at


@pytest.mark.parametrize("wire", WIRES)
def test_every_point_is_fresh_and_true_on_a_bad_wire(wire: str) -> None:
    at = bench(input="on")
    at.faults(**WIRES[wire])
    at.run(10)
    truth = {
        "epp.state": "initialized",
        "epp.tamper": "ok",
        "epp.battery": "ok",
        "epp.error": "ok",
        "epp.input": "on",
        "key.imk.state": "loaded",
        "device.serial": "1203-0042",
        "device.model": "ZT588",
    }
    stays(at, truth)


@pytest.mark.parametrize("wire", WIRES)
def test_a_pad_that_was_opened_is_seen_and_said_to_be_inferred(wire: str) -> None:
    at = bench()
    at.run(10)
    at.faults(**WIRES[wire])
    at.run(5)
    change_setting(at.device, "tamper", "yes")
    begun = at.now
    found = [r for r in at.run(20) if (r.point, r.value) == ("epp.tamper", "tampered")]
    assert found[0].at - begun <= (2.5 if wire == "good" else 8.0)
    assert found[0].inferred
    assert "blank" in found[0].raw
    assert at.value("epp.state") == "notInitialized"
    assert at.value("key.imk.state") == "missing"
    change_setting(at.device, "imk", "loaded")
    at.run(10)
    assert at.value("epp.tamper") == "ok"


def test_a_pad_that_is_blank_from_the_beginning_tells_nothing_about_tampering() -> None:
    at = bench(imk="missing")
    readings = at.run(30)
    assert words(readings, "epp.state") == ["notInitialized"]
    assert words(readings, "epp.tamper") == []


def test_a_blank_pad_in_the_place_of_another_is_a_new_serial_number_and_no_tampering() -> None:
    at = bench()
    at.run(10)
    change_setting(at.device, "number", "0077")
    change_setting(at.device, "imk", "missing")
    readings = at.run(10)
    assert words(readings, "device.serial") == ["1203-0077"]
    assert words(readings, "epp.tamper") == []


def test_a_low_battery_is_an_error_and_its_end_is_inferred() -> None:
    at = bench(battery="low")
    readings = at.run(10)
    assert words(readings, "epp.battery") == ["low"]
    assert words(readings, "epp.error") == ["low_battery"]
    assert {r.raw for r in readings if r.point == "epp.error"} == {"E0"}
    assert words(readings, "epp.state") == [], "a state that nobody told"
    change_setting(at.device, "battery", "ok")
    good = [r for r in at.run(10) if r.point == "epp.battery"][-1]
    assert (good.value, good.inferred) == ("ok", True)


def test_a_device_that_answers_otherwise_is_up_and_the_reason_says_what_it_is_not() -> None:
    driver = Epp(EppOptions())
    items = driver.receive(b"\x020010\x0302", 1000.0)
    (state,) = [item for item in items if isinstance(item, Reading)]
    assert (state.point, state.value) == ("link.state", "up")
    assert "ZT588" in state.raw


def test_nothing_is_ever_sent_but_the_question_for_information() -> None:
    at, sent = bench(), set()
    at.faults(damage=0.1)
    for verb in ("self_test", "load_key", "wipe", "reset"):
        at.driver.perform(Operation(verb, "epp1", verb, "someone"), at.now)
    for _ in range(2400):
        at.now += 0.05
        at.driver.tick(at.now)
        sent.add(at.driver.outgoing())
        at.driver.receive(REPLY, at.now)
    assert sent == {b"", INFO}
    assert not Epp.operations


# key presses


def type_pin(at: Bench, every: float, seconds: float) -> None:
    """Press the digits of the PIN one after the other, again and again; and look at the driver after each."""
    for turn in range(int(seconds / every)):
        change_setting(at.device, "press", PIN[turn % len(PIN)])
        at.run(every)


@pytest.mark.parametrize("wire", ["good", "bytewise", "merged", "late"])
@pytest.mark.parametrize("every", [0.05, 0.15, 0.4])
def test_no_key_press_remains_anywhere_after_the_call(
    wire: str, every: float, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    at = bench(input="on")
    at.driver.transcript.on = True
    at.faults(**WIRES[wire])
    for _ in range(40):
        type_pin(at, every, 1.0)
        assert remains(at.driver, PIN) == []
    assert remains([at.readings, at.outcomes, caplog.text, repr(at.driver)], PIN) == []
    assert words(at.readings, "link.bad_frames") == [0], "key presses were counted as bad bytes"
    assert words(at.readings, "epp.input") == ["on"]


@pytest.mark.parametrize("wire", ["lossy", "half frames", "noisy"])
def test_behind_a_frame_that_was_cut_key_presses_remain_no_longer_than_the_frame_may_take(wire: str) -> None:
    at = bench(input="on")
    at.driver.transcript.on = True
    for seed in range(10):
        at.faults(**{name: value * 4 for name, value in WIRES[wire].items()})
        type_pin(at, 0.1, 10.0 + seed * 0.3)
        at.faults(cut=True)
        at.run(WHOLE_WITHIN + 0.1)
        assert remains(at.driver, PIN) == []
    assert remains(at.readings, PIN) == []


def test_a_frame_that_never_ends_is_thrown_away_though_keys_go_on_being_pressed() -> None:
    driver, now = Epp(EppOptions()), 1000.0
    driver.receive(REPLY[:40], now)
    for digit in PIN * 4:
        now += 0.05
        driver.tick(now)
        driver.receive(digit.encode(), now)
        if now - 1000.0 > WHOLE_WITHIN:
            assert remains(driver, PIN) == []


def test_key_presses_are_no_sign_of_life_and_no_rubbish() -> None:
    at = bench(input="on")
    at.run(5)
    at.to_device.faults.cut = True  # the pad hears no question, and is typed on
    type_pin(at, 0.2, 15.0)
    state = [r for r in at.readings if r.point == "link.state"][-1]
    assert state.value == "silent"


def test_a_transcript_tells_what_was_said_without_the_scan_codes_and_the_users_area() -> None:
    at = bench(input="on", user=PIN, press=48)
    at.driver.transcript.on = True
    at.run(2)
    told = at.driver.transcript.read()
    assert told[0].startswith("> 02 30 30 31 33 03 30 31")
    assert "ZT588 1203-0042" in told[1]
    assert not [line for line in told if line.startswith("<") and "31 32 33" in line]
    assert remains(told, PIN) == []


@dataclass(slots=True)
class Slotted:
    kept: object


@pytest.mark.parametrize(
    "planted",
    [
        PIN,
        PIN.encode(),
        {"deep": [Slotted(bytearray(b"xx" + PIN.encode()))]},
        deque(bytes((byte,)) for byte in PIN.encode()),
        list(PIN.encode()),
        [int(digit) for digit in PIN],
        "< " + PIN.encode().hex(" ").upper() + " key presses",
        ["unreadable: " + PIN[2:7]],
    ],
    ids=["text", "bytes", "nested", "one by one", "codes", "numbers", "hex", "a part"],
)
def test_the_search_for_remains_finds_what_was_planted(planted: object) -> None:
    driver = Epp(EppOptions())
    assert remains(driver, PIN) == []
    vars(driver)["_planted"] = planted
    assert remains(driver, PIN)
    vars(driver).pop("_planted")
    vars(vars(driver)["_deframer"])["_planted"] = planted
    assert remains(driver, PIN)


def test_an_operation_is_refused_with_the_reason() -> None:
    driver = Epp(EppOptions())
    driver.perform(Operation("op", "epp1", "self_test", "someone"), 1000.0)
    (outcome,) = [item for item in driver.tick(1000.0) if isinstance(item, Outcome)]
    assert outcome.result == "refused"
    assert "only reads" in outcome.detail
