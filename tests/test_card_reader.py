"""The card reader driver as the master of the simulated reader."""

import pytest

from agent.drivers.card_reader import CardReader, CardReaderOptions
from agent.drivers.framing import xor_of
from agent.model import Operation, Outcome, Reading
from hwsim import DEVICES, change_setting
from tests.virtual import Bench, perform, prepare, stays, values, wires

WIRES = wires()
ACK, NAK = b"\x06", b"\x15"


def sealed(text: bytes, front: bytes = b"\xf2\x00") -> bytes:
    body = front + len(text).to_bytes(2, "big") + text + b"\x03"
    return body + bytes((xor_of(body),))


STATUS, INIT, CAPTURE, COUNTER = sealed(b"C10"), sealed(b"C03"), sealed(b"C23"), sealed(b"C\xa50")
FINE = sealed(b"P10020")


def bench(seed: int = 0, options: CardReaderOptions | None = None, **settings: str) -> Bench:
    device = DEVICES["card_reader"]()
    prepare(device, **settings)
    return Bench(CardReader(options or CardReaderOptions()), device, seed)


def results(at: Bench) -> list[str]:
    return [outcome.result for outcome in at.outcomes]


def alone(driver: CardReader, seconds: float, begun: float = 1000.0) -> tuple[list[bytes], list[Reading | Outcome]]:
    """Let time pass without a reader: what is sent, and what is said."""
    sent, items = list[bytes](), list[Reading | Outcome]()
    for step in range(int(seconds / 0.05)):
        items += driver.tick(begun + step * 0.05)
        if data := driver.outgoing():
            sent.append(data)
    return sent, items


# as master


@pytest.mark.parametrize("wire", WIRES)
def test_every_point_is_fresh_and_true_on_a_bad_wire(wire: str) -> None:
    at = bench(media="inside", stacker="low", counter="7")
    at.run(10)
    at.faults(**WIRES[wire])
    truth = {
        "card.media": "present",
        "card.stacker": "low",
        "retain.state": "ok",
        "reader.error": "ok",
        "retain.count": 7,
    }
    stays(at, truth)


@pytest.mark.parametrize("wire", WIRES)
def test_a_customer_who_puts_a_card_in_is_seen(wire: str) -> None:
    at = bench()
    at.run(5)
    at.faults(**WIRES[wire])
    at.run(5)
    change_setting(at.device, "customer", "inserts")
    begun = at.now
    seen = [r.at - begun for r in at.run(20) if (r.point, r.value) == ("card.media", "present")]
    assert seen[0] <= (3.0 if wire == "good" else 12.0)


def test_who_the_reader_is_stays_known() -> None:
    at = bench(serial="SIM591-0042")
    at.run(310)
    for point, text in (("device.serial", "SIM591-0042"), ("device.firmware", "C591_SIM_A_260101")):
        said = [r.at for r in at.readings if (r.point, r.value) == (point, text)]
        assert max(b - a for a, b in zip(said, [*said[1:], at.now], strict=True)) < 300


def test_a_captured_card_is_in_the_bin_and_the_counter_steps() -> None:
    at = bench(media="inside", counter="7")
    at.run(7)
    perform(at, "capture")
    at.run(3)
    assert results(at) == ["done"]
    assert "card.media notPresent" in at.outcomes[0].detail
    assert (at.value("card.media"), at.value("retain.count")) == ("notPresent", 8)


@pytest.mark.parametrize("wire", WIRES)
def test_a_capture_is_never_begun_twice_and_ends_once_on_a_bad_wire(wire: str) -> None:
    for seed in range(8):
        at = bench(seed, media="inside")
        at.run(5)
        at.faults(**WIRES[wire])
        perform(at, "capture")
        at.run(0.5)
        change_setting(at.device, "media", "inside")  # so that a second capture would find a card
        at.run(3)
        change_setting(at.device, "media", "inside")
        at.run(60)
        captures = vars(at.device)["captures"]
        assert len(at.outcomes) == 1
        assert captures <= 1
        assert results(at) != ["done"] or captures == 1


def test_nothing_is_asked_and_nothing_resent_while_a_card_moves() -> None:
    at = bench(media="inside", capture_seconds="20")
    at.run(5)
    perform(at, "capture")
    at.run(0.5)
    assert {r.point for r in at.run(18)} <= {"link.bad_frames"}
    at.run(5)
    assert results(at) == ["done"]


def test_a_capture_whose_response_never_comes_is_unanswered_and_said_once() -> None:
    driver = CardReader(CardReaderOptions())
    driver.receive(FINE, 1000.0)
    driver.outgoing()
    driver.perform(Operation("op", "card1", "capture", "someone"), 1000.1)
    driver.tick(1000.1)
    assert driver.outgoing() == CAPTURE
    driver.receive(ACK, 1000.2)
    sent, items = alone(driver, 60, 1000.2)
    assert [o.result for o in items if isinstance(o, Outcome)] == ["unanswered"]
    assert CAPTURE not in sent


def test_a_capture_whose_acknowledgement_is_damaged_may_well_run_and_is_waited_for() -> None:
    driver = CardReader(CardReaderOptions())
    driver.perform(Operation("op", "card1", "capture", "someone"), 1000.0)
    driver.tick(1000.0)
    driver.receive(b"\x26", 1000.1)
    sent, items = alone(driver, 10, 1000.1)
    items += driver.receive(sealed(b"P23020"), 1010.1)
    assert sent == [CAPTURE]
    assert [o.result for o in items if isinstance(o, Outcome)] == ["done"]


def test_half_a_response_is_asked_for_again_when_the_line_is_quiet() -> None:
    driver = CardReader(CardReaderOptions())
    driver.tick(1000.0)
    driver.receive(ACK + FINE[:8], 1000.1)
    assert alone(driver, 0.2, 1000.1)[0] == [STATUS]
    assert alone(driver, 0.2, 1000.3)[0] == [NAK]


def test_a_full_bin_refuses_a_card() -> None:
    at = bench(media="inside", bin_cards="20")
    at.run(5)
    assert at.value("retain.state") == "full"
    perform(at, "capture")
    at.run(5)
    assert [(o.result, o.raw) for o in at.outcomes] == [("failed", "A1")]
    assert "bin_full" in at.outcomes[0].detail
    assert at.value("reader.error") == "bin_full"


@pytest.mark.parametrize("cure", ["capture", "initialise"])
def test_a_jam_is_not_over_because_the_reader_answers_the_next_question(cure: str) -> None:
    at = bench(media="inside", next_error="10")
    at.run(5)
    perform(at, "capture")
    at.run(30)
    assert set(values(at.run(10), "reader.error")) == {"jam"}
    assert [r.raw for r in at.readings if r.point == "reader.error"][-1] == "10"
    perform(at, cure)
    at.run(5)
    assert at.value("reader.error") == "ok"


def test_a_reader_that_was_not_reset_is_reset_only_when_somebody_says_so() -> None:
    at = bench(initialised="no")
    at.driver.transcript.on = True
    at.run(60)
    assert {line[-10:] for line in at.driver.transcript.read() if line.endswith("?")} == {"status 30?"}
    assert set(values(at.readings, "reader.error")) == {"not_reset"}
    assert set(values(at.readings, "link.state")) == {"up"}
    assert not values(at.readings, "card.media")
    assert vars(at.device)["initialised"] == "no"
    perform(at, "initialise")
    at.run(6)
    assert results(at) == ["done"]
    assert (at.value("reader.error"), at.value("device.model")) == ("ok", "CRT-591-M001")
    assert (at.value("card.media"), at.value("retain.count")) == ("notPresent", 0)


def test_a_reset_leaves_the_card_where_it_is() -> None:
    at = bench(media="inside", initialised="no", options=CardReaderOptions(initialise=True))
    at.run(10)
    assert at.value("card.media") == "present"
    assert at.outcomes == []


@pytest.mark.parametrize("allowed", [False, True])
def test_a_silent_reader_is_reset_every_half_minute_where_that_is_allowed(allowed: bool) -> None:
    sent, items = alone(CardReader(CardReaderOptions(initialise=allowed)), 100)
    assert sent.count(INIT) == (4 if allowed else 0)
    assert values(items, "link.state")[-1] == "silent"


def test_a_reset_goes_into_silence_too_because_a_reader_just_switched_on_hears_nothing_else() -> None:
    driver = CardReader(CardReaderOptions(counting=True))
    alone(driver, 20)
    for verb in ("capture", "initialise"):
        driver.perform(Operation(verb, "card1", verb, "someone"), 1020.0)
    sent, items = alone(driver, 20, 1020.0)
    assert sealed(b"C07") in sent, "INIT 37, with the counter of retained cards"
    assert CAPTURE not in sent
    assert [o.result for o in items if isinstance(o, Outcome)] == ["unanswered"] * 2


def test_the_counter_is_cleared_by_its_operation() -> None:
    at = bench(counter="12")
    at.run(8)
    assert at.value("retain.count") == 12
    perform(at, "clear_counter")
    at.run(3)
    assert results(at) == ["done"]
    assert at.value("retain.count") == 0


@pytest.mark.parametrize(
    ("digits", "count"), [(b"007", [7]), (b"07", []), (b"0007", []), (b"9" * 80, []), (b"0x7", [])]
)
def test_a_counter_has_three_digits(digits: bytes, count: list[int]) -> None:
    driver = CardReader(CardReaderOptions(), "listen")
    assert values(driver.receive(COUNTER + ACK + sealed(b"P\xa50020" + digits), 1000.0), "retain.count") == count


def test_what_a_model_does_not_know_is_asked_once_and_is_no_error_of_the_reader() -> None:
    driver, asked, items = CardReader(CardReaderOptions()), list[bytes](), list[Reading | Outcome]()
    for step in range(2400):
        now = 1000.0 + step * 0.05
        items += driver.tick(now)
        if question := driver.outgoing():
            asked.append(question)
            unknown = sealed(b"N" + question[5:7] + b"03")
            items += driver.receive(ACK + (FINE if question == STATUS else unknown), now)
            assert driver.outgoing() == ACK
    assert asked.count(COUNTER) == 1
    assert len(asked) - asked.count(STATUS) == 3
    assert set(values(items, "reader.error")) == {"ok"}


# a reader into which a card is put by hand


def test_a_crt288_has_no_address_and_tells_its_hook_and_card() -> None:
    at = bench(options=CardReaderOptions(framing="crt288"), framing="crt288", media="inside", hook="locked")
    at.run(5)
    assert at.value("card.media") == "latched"
    for hook, media, word in (("released", "inside", "present"), ("released", "gate", "entering")):
        prepare(at.device, hook=hook, media=media)
        at.run(3)
        assert at.value("card.media") == word
    assert not values(at.readings, "retain.state") + values(at.readings, "retain.count")
    for verb in ("capture", "clear_counter", "initialise"):
        perform(at, verb)
    at.run(3)
    assert sorted(results(at)) == ["done", "refused", "refused"]


def test_the_transcript_tells_what_was_said() -> None:
    at = bench(media="gate")
    at.driver.transcript.on = True
    at.run(0.5)
    lines = at.driver.transcript.read()
    assert lines[:4] == [
        "> F2 00 00 03 43 31 30 03 B0 status 30?",
        "< 06 acknowledged",
        "< F2 00 00 06 50 31 30 31 32 30 03 95 status 30: card.media entering, card.stacker ok, retain.state ok,"
        " reader.error ok",
        "> 06 acknowledged",
    ]
    at = bench(initialised="no")
    at.driver.transcript.on = True
    at.run(0.5)
    assert at.driver.transcript.read()[2].endswith("status 30: reader.error not_reset")


@pytest.mark.parametrize("wrong", [{"address": 16}, {"address": -1}, {"framing": "crt310"}, {"quiet": 15.0}])
def test_options_that_no_reader_can_have_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CardReaderOptions(**wrong)  # type: ignore[arg-type]
