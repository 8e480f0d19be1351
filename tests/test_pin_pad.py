"""The PIN pad driver with the simulated pad over good and bad wires; and that no PIN stays."""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, ClassVar

import pytest
from pydantic import TypeAdapter

from agent.drivers.framing import xor_of
from agent.drivers.ipp import packet, parity_tables
from agent.drivers.pin_pad import PinPad, PinPadOptions
from agent.model import Operation, Outcome, Reading
from hwsim import DEVICES, Allowed, change_setting
from tests import golden
from tests.remains import remains
from tests.virtual import Bench, perform, prepare, stays, wires, words

WIRES = wires() | {
    "much later": {"delay": 1.4},
    "later than anything": {"delay": 2.2},
    "late and lossy": {"delay": 2.2, "damage": 0.1},
}
ACK, NAK, EOT = b"\x06", b"\x95", b"\x84"
TO_WIRE, FROM_WIRE = parity_tables("even")


def bench(seed: int = 0, options: PinPadOptions | None = None, **changes: object) -> Bench:
    at = Bench(PinPad(options or PinPadOptions()), DEVICES["pin_pad"](), seed)
    prepare(at.device, **changes)
    return at


def asked(driver: PinPad, now: float = 1000.0) -> Iterator[tuple[bytes, float]]:
    """What a driver sends, in plain bytes, with the time."""
    while True:
        now += 0.05
        driver.tick(now)
        if sent := driver.outgoing():
            yield sent.translate(FROM_WIRE), now


@pytest.mark.parametrize("wire", [wire for wire in WIRES if WIRES[wire].get("delay", 0) < 1.4])
def test_every_point_is_fresh_and_true_on_a_bad_wire(wire: str) -> None:
    at = bench(giske="yes", key0="double")
    at.run(5)
    at.faults(**WIRES[wire])
    truth = {
        "epp.state": "ready",
        "epp.tamper": "ok",
        "epp.selftest": "none",
        "key.0.state": "loaded",
        "key.0.usage": "AN",
    }
    stays(at, truth)
    at.run(120)
    assert words(at.readings, "device.serial") == ["246880401A001234"]
    assert words(at.readings, "device.unit_serial") == ["200-123-456"]


@pytest.mark.parametrize("wire", WIRES)
def test_a_reply_is_never_taken_for_that_of_another_slot(wire: str) -> None:
    truth = {0: "loaded", 3: "missing", 5: "loaded", 9: "missing"}
    for seed in range(5):
        at = bench(key5="triple", options=PinPadOptions(slots=tuple(truth)), seed=seed)
        at.faults(**WIRES[wire])
        at.run(90)
        for slot, word in truth.items():
            assert words(at.readings, f"key.{slot}.state") in ([], [word])
            if wire in ("good", "bytewise", "merged", "noisy", "late"):
                times = [r.at for r in at.readings if r.point == f"key.{slot}.state"]
                assert max(b - a for a, b in pairwise(times)) < 15.0
        assert set(words(at.readings, "epp.tamper")) <= {"ok"}


@pytest.mark.parametrize("wire", ["good", "bytewise", "lossy", "half frames", "noisy", "late"])
def test_a_pad_that_was_opened_is_seen_and_said_to_be_inferred(wire: str) -> None:
    at = bench(key4="single", options=PinPadOptions(slots=(0, 4)))
    at.run(10)
    at.faults(**WIRES[wire])
    at.run(5)
    change_setting(at.device, "tamper", "yes")
    begun = at.now
    found = [r for r in at.run(30) if (r.point, r.value) == ("epp.tamper", "tampered")]
    assert found[0].at - begun <= (4.0 if wire == "good" else 20.0)
    assert found[0].inferred
    assert at.value("epp.state") == "notInitialized"
    change_setting(at.device, "key4", "single")
    at.run(15)
    assert at.value("epp.tamper") == "ok"
    assert at.value("epp.state") == "ready"


@pytest.mark.parametrize(("serial", "tampered"), [("246880401A009999", False), ("0000000000000000", True)])
def test_an_empty_pad_with_another_serial_number_is_not_one_that_was_opened(serial: str, tampered: bool) -> None:
    at = bench()
    at.run(10)
    prepare(at.device, key0="none", serial=serial)
    readings = at.run(15)
    assert ("tampered" in words(readings, "epp.tamper")) == tampered
    assert words(readings, "key.0.state") == ["missing"]
    assert (serial in words(readings, "device.serial")) != tampered, "sixteen zeros are no serial number"


def test_a_pad_that_is_empty_from_the_beginning_tells_nothing_about_tampering() -> None:
    at = bench(key0="none")
    assert words(at.run(90), "epp.tamper") == []


def test_a_pad_without_a_unit_serial_number_is_well() -> None:
    at = bench(unit_serial="")
    readings = at.run(300)
    assert words(readings, "link.state") == ["up"]
    assert words(readings, "device.unit_serial") == []
    assert words(readings, "device.serial") == ["246880401A001234"]


class Forgetful:
    """A pad that gives no answer to the first of the questions with this text."""

    BAUD: ClassVar[int] = 1200
    SETTINGS: ClassVar[Mapping[str, Allowed]] = {}

    def __init__(self, text: str) -> None:
        self._pad = DEVICES["pin_pad"]()
        self._lost = packet(text).translate(TO_WIRE)

    def receive(self, data: bytes) -> bytes:
        answer = self._pad.receive(data)
        if data == self._lost:
            self._lost = answer = b""
        return answer

    def tick(self, now: float) -> bytes:
        return self._pad.tick(now)


@pytest.mark.parametrize(("text", "point"), [("06", "device.serial"), ("M04", "device.unit_serial")])
def test_an_identity_whose_reply_was_lost_is_asked_for_again_soon(text: str, point: str) -> None:
    at = Bench(PinPad(PinPadOptions()), Forgetful(text))
    assert len(words(at.run(10), point)) == 1


@pytest.mark.parametrize("parity", ["odd", "none"])
def test_a_pad_with_another_parity_needs_the_option(parity: str) -> None:
    right = bench(parity=parity, options=PinPadOptions(parity=parity))  # type: ignore[arg-type]
    right.run(10)
    assert right.value("key.0.state") == "loaded"
    wrong = bench(parity=parity)
    assert "up" not in words(wrong.run(30), "link.state")


# self-test


@pytest.mark.parametrize(
    ("test", "changes", "result", "selftest", "told"),
    [
        (1, {}, "done", ["none", "running", "passed"], "RAM is good"),
        (1, {"ram": "bad"}, "failed", ["none", "running", "failed"], "RAM is bad"),
        (3, {}, "done", ["none"], "PROM checksum of the pad: 5A"),
        (6, {}, "done", ["none"], "246880401A001234"),
        (7, {}, "done", ["none", "running", "passed"], "serial line is good"),
        (7, {"uart": "bad"}, "failed", ["none", "running", "failed"], "serial line is bad"),
    ],
)
def test_a_self_test_ends_with_what_the_pad_said(
    test: int, changes: dict[str, Any], result: str, selftest: list[str], told: str
) -> None:
    at = bench(**changes)
    at.run(5)
    perform(at, "self_test", test=test)
    at.run(10)
    assert [o.result for o in at.outcomes] == [result]
    assert told in at.outcomes[0].detail
    assert words(at.readings, "epp.selftest") == selftest
    assert words(at.run(15), "epp.selftest") == selftest[-1:]


@pytest.mark.parametrize("wrong", [{"test": 2}, {"test": 0}, {"test": 8}, {"slot": 1}, {"test": True}])
def test_wrong_arguments_are_refused(wrong: dict[str, int]) -> None:
    at = bench()
    at.run(5)
    perform(at, "self_test", **wrong)
    at.run(5)
    assert [o.result for o in at.outcomes] == ["refused"]


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("test", [1, 7])
def test_a_self_test_ends_once_on_a_bad_wire(wire: str, test: int) -> None:
    for seed in range(3):
        at = bench(seed=seed)
        at.run(5)
        at.faults(**WIRES[wire])
        perform(at, "self_test", test=test)
        at.run(60)
        at.faults()
        at.run(15)
        assert len(at.outcomes) == 1
        wanted = {"done": ["passed"], "unanswered": ["none"], "failed": ["none"]}[at.outcomes[0].result]
        assert words(at.run(10), "epp.selftest") == wanted


def test_a_test_whose_end_nobody_heard_is_not_running_for_ever() -> None:
    at = bench(test_seconds="5")
    at.run(5)
    perform(at, "self_test")
    at.run(2)
    assert at.value("epp.selftest") == "running"
    at.faults(cut=True)
    at.run(40)
    assert [o.result for o in at.outcomes] == ["unanswered"]
    at.faults()
    assert words(at.run(10), "epp.selftest") == ["none"]


def test_a_pad_that_ends_a_test_without_a_result_has_failed_it() -> None:
    driver = PinPad(PinPadOptions())
    driver.perform(Operation("op", "pad1", "self_test", "someone"), 1000.0)
    sent, now = next(asked(driver))
    assert sent == packet("0101")
    items = driver.receive(ACK + EOT, now)
    assert [item.result for item in items if isinstance(item, Outcome)] == ["failed"]


# what goes over the line


def test_nothing_is_ever_sent_that_changes_the_pad() -> None:
    at = bench(options=PinPadOptions(slots=tuple(range(10))))
    at.driver.transcript.on = True
    told = []
    for damage in (0.0, 0.1):
        at.faults(damage=damage)
        for test in (1, 3, 6, 7):
            perform(at, "self_test", test=test)
            at.run(70)
            told += at.driver.transcript.read()
    kinds = {bytes.fromhex(line[5:10]).decode() for line in told if line.startswith("> 0F")}
    assert kinds == {"04", "06", "M0", "01", "09"}
    assert list(PinPad.operations) == ["self_test"]


def test_a_reply_that_stays_bad_is_refused_three_times_and_then_ended() -> None:
    driver, said = PinPad(PinPadOptions()), b""
    for sent, now in asked(driver):
        said += sent
        if len(said) > len(packet("040")) + 3:
            break
        driver.receive((ACK if sent == packet("040") else b"") + golden.octets("0F 30 B4 C6 8E 4D"), now)
    assert said == packet("040") + bytes.fromhex("15 15 15 04")


def test_options_come_from_a_configuration_file() -> None:
    options = TypeAdapter(PinPadOptions).validate_python({"slots": [0, 7], "parity": "odd"})
    assert options == PinPadOptions(slots=(0, 7), parity="odd")
    cases: tuple[dict[str, object], ...] = ({"slots": []}, {"slots": [10]}, {"slots": [1, 1]}, {"parity": "mark"})
    for wrong in cases:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            TypeAdapter(PinPadOptions).validate_python(wrong)


# PINs

BLOCK = "8F31D27A60B5C94E"
PIN_PACKETS = {
    "a PIN block": ("\x02", f"71.00401{BLOCK}", "\x03"),
    "a PIN request with an account": ("\x02", f"Z60.{BLOCK}", "\x03"),
    "the echo of a key": ("\x0f", f"020{BLOCK}", "\x0e"),
}


@pytest.mark.parametrize("name", PIN_PACKETS)
def test_of_a_packet_with_a_secret_nothing_remains(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    at = bench()
    at.driver.transcript.on = True
    at.run(3)
    start, text, end = PIN_PACKETS[name]
    body = (text + end).encode()
    secret = (start.encode() + body + bytes((xor_of(body),))).translate(TO_WIRE)
    for _ in range(3):
        at.readings += [item for item in at.driver.receive(secret, at.now) if isinstance(item, Reading)]
        assert remains(at.driver, BLOCK) == []
        at.run(1)
    told = at.driver.transcript.read()
    assert [line for line in told if "packet" in line]
    assert remains([told, at.readings, at.outcomes, caplog.text, repr(at.driver)], BLOCK) == []
    vars(at.driver)["_planted"] = secret.translate(FROM_WIRE)
    assert remains(at.driver, BLOCK)
