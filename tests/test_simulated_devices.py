"""Simulated devices against golden frames and against the teller; never against our drivers."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.drivers.framing import record, xor_of
from hwsim import DEVICES, SimulatedDevice, change_setting
from hwsim.contract import medium
from hwsim.dispenser import Dispenser
from hwsim.printer import Printer
from hwsim.teller import NO_ANSWER, Teller
from tests.golden import Case, check_device, for_device
from tests.shared import Caller

# A websocket carries messages, not frames: tests/test_hwsim_xfs4iot.py plays recorded sessions instead.
FRAMED = [kind for kind in DEVICES if medium(DEVICES[kind]) != "websocket"]
CASES = [(kind, case) for kind in FRAMED for case in for_device(kind)]


def simulated(kind: str) -> SimulatedDevice:
    """A device as one host meets it: a server is met over one connection."""
    device = DEVICES[kind]()
    return Caller(device) if medium(device) == "server" else device


@pytest.mark.parametrize(("kind", "case"), CASES, ids=[f"{k}: {c.name}" for k, c in CASES])
def test_a_device_says_what_the_document_says(kind: str, case: Case) -> None:
    check_device(case, simulated(kind))


@pytest.mark.parametrize("kind", DEVICES)
@given(rng=st.randoms(use_true_random=False))
def test_any_slicing_of_the_questions_gives_the_same_answers(kind: str, rng: Random) -> None:
    questions = {
        "acceptor": bytes.fromhex(
            "7f8001116582 7f0001071188 7f8001071202 7f8001071202 7f7f 7f00010c2808 7f8001071203"
        ),
        "ups": b"Q1\rF\rXYZ\rI\rT\rQ1\r",
        "xfs4iot": b"".join(
            [
                record("o", "1 /xfs4iot/v1.0"),
                record("t", "1 /xfs4iot/v1.0", b"{"),
                record("o", "2 /nowhere"),
                record("c", "1 /xfs4iot/v1.0"),
            ]
        ),
        "printer": bytes.fromhex("1004 04 1b40 1d7201 1d610f 1d4942 1d763000 0200 0100 1004 100401"),
        "epp": b"\x020013\x0301" + b"7\x02\x020013\x0302" + b"\x020045033\x0332" + b"\x020013\x0301",
        "pin_pad": bytes.fromhex("0f3036 8e88 95 06 ff 0f30b430 8e3a 06 0f30b130 b78e88 06 84 0f4d30b4 8e47"),
        "modbus": bytes.fromhex("010200000008 79cc 010200000008 79cd 050200 010400000002 71cb 01050002ff00 2dfa"),
        "nut": b"LIST UPS\nVER\nLIST VAR ups0\nGET VAR ups0 nosuch\nFOO\n\nGET VAR ups0 ups.status\n",
        "dispenser": bytes.fromhex("04300250 0365 06 04300255 0360 15 06 ff 04300251 0364 06"),
        "card_reader": bytes.fromhex(
            "f2000003433130 03b0 15 06 ff f200000343a53003 24 06 f200000343363703b0 06 04"
        ),
    }[kind]
    whole, sliced = simulated(kind), simulated(kind)
    answer, at = b"", 0
    while at < len(questions):
        step = rng.randint(1, 4)
        answer += sliced.receive(questions[at : at + step])
        at += step
    assert answer == whole.receive(questions)
    assert answer


@pytest.mark.parametrize("kind", DEVICES)
def test_every_word_of_every_setting_is_accepted_and_no_other(kind: str) -> None:
    for name, allowed in DEVICES[kind].SETTINGS.items():
        device = DEVICES[kind]()
        assert hasattr(device, name)
        for word in allowed if isinstance(allowed, tuple) else ("07",) if allowed is str else ("7",):
            change_setting(device, name, word)
            assert str(getattr(device, name)) in (word, word + ".0")
        if isinstance(allowed, tuple):
            with pytest.raises(ValueError, match="it can be"):
                change_setting(device, name, "nonsense")
    with pytest.raises(ValueError, match="there are"):
        change_setting(DEVICES[kind](), "nonsense", "x")


@pytest.mark.parametrize(
    ("setting", "word", "place", "bit"),
    [
        ("mains", "lost", 38, b"1"),
        ("battery", "low", 39, b"1"),
        ("bypass", "active", 40, b"1"),
        ("health", "failed", 41, b"1"),
        ("type", "online", 42, b"0"),
        ("shutdown", "active", 44, b"1"),
        ("beeper", "off", 45, b"0"),
    ],
)
def test_each_word_of_the_ups_is_one_bit_of_its_status(setting: str, word: str, place: int, bit: bytes) -> None:
    ups = DEVICES["ups"]()
    before = ups.receive(b"Q1\r")[38:46]
    change_setting(ups, setting, word)
    after = ups.receive(b"Q1\r")[38:46]
    assert after[place - 38 : place - 37] == bit
    assert [i for i in range(8) if before[i] != after[i]] == [place - 38]


def test_a_passed_ups_test_clears_the_failure_of_the_one_before() -> None:
    ups = DEVICES["ups"]()
    now = 0.0
    for fails, bit in (("yes", b"1"), ("no", b"0")):
        change_setting(ups, "test_fails", fails)
        assert ups.receive(b"T\r") == b""
        assert ups.receive(b"Q1\r")[43:44] == b"1"
        now += 11.0
        ups.tick(now)
        assert ups.receive(b"Q1\r")[41:42] == bit
        assert ups.receive(b"Q1\r")[43:44] == b"0"


@pytest.mark.parametrize("value", ["-5", "0", "2.27", "99.97", "1000", "1e308"])
def test_a_ups_status_has_its_length_whatever_the_numbers(value: str) -> None:
    ups = DEVICES["ups"]()
    for name, allowed in ups.SETTINGS.items():
        if allowed is float:
            change_setting(ups, name, value)
    assert (len(ups.receive(b"Q1\r")), len(ups.receive(b"F\r"))) == (47, 22)


@pytest.mark.parametrize("kind", DEVICES)
@pytest.mark.parametrize("text", ["inf", "-inf", "nan", "1e999"])
def test_a_number_that_is_not_finite_is_refused(kind: str, text: str) -> None:
    device = DEVICES[kind]()
    for name, allowed in device.SETTINGS.items():
        if allowed is float:
            with pytest.raises(ValueError, match=f"{name} wants a number that is finite"):
                change_setting(device, name, text)


@pytest.mark.parametrize(("text", "word"), [("1e308", "7FFF"), ("-1e308", "8000"), ("-1.0", "FFF6")])
def test_a_register_takes_what_its_16_bits_can_hold(text: str, word: str) -> None:
    panel = DEVICES["modbus"]()
    change_setting(panel, "temperature", text)
    assert panel.receive(bytes.fromhex("01 04 00 00 00 02 71 CB"))[3:5] == bytes.fromhex(word)


DISPENSE_1 = bytes.fromhex("04300252 21 202020 202020202020202020202003")
DISPENSE_1 += bytes((xor_of(DISPENSE_1),))


@pytest.mark.parametrize(("name", "value"), [("rejects", "300"), ("rejects", "-3"), ("notes1", "-100")])
def test_no_number_stops_the_dispenser(name: str, value: str) -> None:
    dispenser = Dispenser()
    change_setting(dispenser, name, value)
    answer = dispenser.receive(DISPENSE_1)
    assert (len(answer), xor_of(answer[1:])) == (30, 0)


@pytest.mark.parametrize("code", ["zz", "F0", "00", "1", "011"])
def test_an_error_that_no_dispenser_could_report_is_refused(code: str) -> None:
    with pytest.raises(ValueError, match="next_error"):
        change_setting(Dispenser(), "next_error", code)


def test_purging_clears_a_blocked_path() -> None:
    dispenser = Dispenser()
    dispenser.path = "blocked"
    assert dispenser.receive(DISPENSE_1)[5] == 0x2B
    assert dispenser.receive(bytes.fromhex("043002510364"))[5] == 0x20
    assert dispenser.path == "clear"


def test_a_dispense_whose_acknowledgement_is_lost_is_not_said_again() -> None:
    teller, dispenser = Teller(), Dispenser()
    teller.withdraw(1, 20)
    for tenth in range(1, 60):
        dispenser.receive(teller.tick(tenth / 10))
    assert dispenser.notes1 == 980
    assert (teller.busy, teller.last_error) == (False, NO_ANSWER)


def test_data_in_a_picture_is_not_a_question() -> None:
    printer = Printer()
    picture = bytes.fromhex("1d763000 0300 0100") + bytes.fromhex("100404")
    assert printer.receive(picture) == b""
    assert printer.receive(bytes.fromhex("100404")) == b"\x12"


def test_a_printer_that_was_off_has_forgotten_automatic_status_back() -> None:
    printer = Printer()
    printer.tick(0.0)
    assert printer.receive(bytes.fromhex("1d610f")) == bytes.fromhex("10000000")
    printer.power = "off"
    printer.tick(1.0)
    assert printer.receive(bytes.fromhex("100401")) == b""
    printer.power = "on"
    printer.paper = "out"
    assert printer.tick(2.0) == b""
    assert printer.receive(bytes.fromhex("100404")) == b"\x7e"


def join(teller: Teller, dispenser: Dispenser, seconds: float, now: float = 0.0) -> float:
    """Let the two talk over a good line."""
    end = now + seconds
    while now < end:
        now += 0.05
        to_device = teller.tick(now)
        to_host = dispenser.tick(now)
        while to_device or to_host:
            to_host += dispenser.receive(to_device)
            to_device, to_host = teller.receive(to_host), b""
    return now


def test_notes_are_neither_made_nor_lost_in_a_hundred_withdrawals() -> None:
    teller, dispenser, rng = Teller(), Dispenser(), Random(7)
    dispenser.rejects = 1
    dispenser.seconds_per_note = 0.01
    now = 0.0
    for _ in range(100):
        teller.withdraw(rng.randint(1, 4), rng.randint(1, 40))
        now = join(teller, dispenser, 1.0, now)
    join(teller, dispenser, 5.0, now)
    assert not teller.busy
    for position in range(1, 5):
        left = getattr(dispenser, f"notes{position}")
        assert left + dispenser.delivered[position] + dispenser.rejected[position] == 1000
        assert teller.dispensed[position] == dispenser.delivered[position]


def test_the_teller_is_told_when_a_cassette_runs_out_and_goes_on() -> None:
    teller, dispenser = Teller(), Dispenser()
    dispenser.notes1 = 7
    teller.withdraw(1, 10)
    now = join(teller, dispenser, 2.0)
    assert (teller.dispensed[1], teller.last_error) == (7, 1)
    teller.withdraw(2, 10)
    join(teller, dispenser, 2.0, now)
    assert (teller.dispensed[2], teller.last_error) == (10, 0)


def test_a_silent_dispenser_does_not_keep_the_teller_busy_for_ever() -> None:
    teller = Teller()
    teller.withdraw(1, 1)
    for tenth in range(100):
        teller.tick(tenth / 10)
    assert not teller.busy


def test_a_withdrawal_that_cannot_be_is_refused_with_a_sentence() -> None:
    for position, count in ((5, 1), (1, 0), (1, 41)):
        with pytest.raises(ValueError, match=r"there are 1 to 4|1 to 40 notes"):
            Teller().withdraw(position, count)
