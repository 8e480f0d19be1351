"""The card reader driver from a passive tap: what it reads there, and that card data is never read nor kept."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.drivers.card_reader import CardReader, CardReaderOptions
from agent.drivers.crt591 import DIALECTS, telegram
from agent.model import Operation, Outcome, Reading
from hwsim.wires import SHAPES, hurt
from tests.test_card_reader import ACK, CAPTURE, COUNTER, FINE, NAK, STATUS, sealed
from tests.virtual import overhear, values

# A stripe reading (CRT-591-(R02): its normal answer has a negative head) and a chip's answer, with invented data.
NUMBER = b"9999123412341234"
CARD_DATA = (sealed(b"C67"), ACK, sealed(b"N67" + NUMBER + b"~" + NUMBER + b"=9912?"), ACK)
CHIP_DATA = (sealed(b"C\x513" + NUMBER), ACK, sealed(b"P\x513220" + NUMBER + b"\x90\x00"), ACK)


def tap(address: int = 0) -> CardReader:
    return CardReader(CardReaderOptions(address=address), "listen")


@pytest.mark.parametrize(
    ("refusal", "status", "error"),
    [
        (b"N23A1", b"P10020", "ok"),
        (b"N23A1", b"P10021", "bin_full"),
        (b"N21A0", b"P10010", "ok"),
        (b"N21A0", b"P10000", "stacker_empty"),
        (b"N21B0", b"P10020", "ok"),
        (b"N2310", b"P10020", "jam"),
    ],
)
def test_an_error_is_over_when_the_status_shows_it(refusal: bytes, status: bytes, error: str) -> None:
    readings = overhear(tap(), sealed(refusal), ACK, STATUS, ACK, sealed(status), ACK)
    assert values(readings, "reader.error")[-1] == error


def test_the_frames_of_the_crt288_document_are_whole_and_its_card_data_is_not_shown() -> None:
    driver = CardReader(CardReaderOptions(framing="crt288"), "listen")
    driver.transcript.on = True
    command = bytes.fromhex("F2 00 08 43 51 33 00 84 00 00 08 03 54")
    chip = bytes.fromhex("F2 00 0F 50 51 33 31 32 22 53 85 FF EC B5 9F B4 90 00 03 26")
    stripe = bytes.fromhex("F2 00 10 4E 36 31 31 32 4E 32 36 7E 4E 32 36 7E 4E 32 36 03 E1")
    items = driver.receive(command + ACK + chip + ACK + stripe + ACK, 1000.0)
    assert values(items, "link.state") == ["up", "up"]
    assert len(items) == 2
    assert driver.transcript.read().count("< card data, not shown") == 3


@given(seed=st.integers(0, 2**32), shape=st.sampled_from(("", *SHAPES)), chip=st.booleans())
@settings(max_examples=150, deadline=None)
def test_card_data_on_the_line_is_in_no_reading_and_no_trace(seed: int, shape: str, chip: bool) -> None:
    rng = Random(seed)
    driver = tap()
    driver.transcript.on = True
    said = [*(CHIP_DATA if chip else CARD_DATA)]
    victim = rng.choice((0, 2))
    if shape:
        said[victim] = hurt(said[victim], rng, shape)
    readings = overhear(driver, STATUS, ACK, FINE, ACK, *said, STATUS, ACK, FINE, ACK)
    readings += [item for item in driver.tick(1005.0) if isinstance(item, Reading)]
    told = repr(readings) + " ".join(driver.transcript.read())
    for secret in (NUMBER[:6].decode(), NUMBER[-6:].decode(), NUMBER[:6].hex(" "), NUMBER[-6:].hex(" ")):
        assert secret not in told
    assert set(values(readings, "reader.error")) == {"ok"}
    assert set(values(readings, "link.state")) == {"up"}
    assert vars(driver)["_deframer"].kept == 0


def test_a_response_inside_card_data_is_not_read() -> None:
    forged = sealed(b"P10201") + bytes(400)
    readings = overhear(tap(), sealed(b"C\x513"), ACK, sealed(b"P\x513220" + forged + b"\x90\x00"), ACK)
    assert {r.point for r in readings} == {"link.state"}


def test_of_card_data_nothing_is_kept() -> None:
    assert telegram(CARD_DATA[2], DIALECTS["crt591"]).body == b""
    driver = tap()
    overhear(driver, CARD_DATA[2][:-4])
    assert vars(driver)["_deframer"].kept
    driver.tick(1001.1)
    assert vars(driver)["_deframer"].kept == 0


def test_other_readers_on_the_line_are_not_taken_for_ours() -> None:
    other = sealed(b"P10221", b"\xf2\x03")
    assert overhear(tap(address=5), other, sealed(b"C10", b"\xf2\x03")) == []
    assert values(overhear(tap(address=3), other), "retain.state") == ["full"]
    driver = CardReader(CardReaderOptions(address=3))
    assert driver.receive(FINE, 1000.0) == []
    assert driver.outgoing() == b""


def test_a_tap_is_silent_after_its_quiet_time_but_waits_for_a_card_that_moves() -> None:
    driver = tap()
    overhear(driver, FINE)
    assert not values(driver.tick(1011.9), "link.state")
    assert values(driver.tick(1012.1), "link.state") == ["silent"]
    overhear(driver, FINE, ACK, CAPTURE, NAK, now=1020.0)
    assert values(driver.tick(1033.0), "link.state") == ["silent"], "it did not take the command"
    overhear(driver, FINE, ACK, CAPTURE, ACK, now=1040.0)
    assert not values(driver.tick(1069.0), "link.state")
    assert values(driver.tick(1071.0), "link.state") == ["silent"]


def test_a_tap_refuses_every_operation_and_writes_nothing() -> None:
    driver = tap()
    for verb in driver.operations:
        driver.perform(Operation(verb, "card1", verb, "someone"), 1000.0)
    outcomes = [item for item in driver.tick(1000.0) if isinstance(item, Outcome)]
    assert [o.result for o in outcomes] == ["refused"] * 3
    assert "listen" in outcomes[0].detail
    assert driver.outgoing() == b""


@given(seed=st.integers(0, 2**32), shape=st.sampled_from(SHAPES), merged=st.booleans())
@settings(max_examples=100, deadline=None)
def test_damage_on_the_tap_makes_no_false_word_and_loses_at_most_two_responses(
    seed: int, shape: str, merged: bool
) -> None:
    rng = Random(seed)
    exchanges = (
        (STATUS, ACK, sealed(b"P10221"), ACK),
        (CAPTURE, ACK, sealed(b"N23A1"), ACK),
        (COUNTER, ACK, sealed(b"P\xa50221007"), ACK),
        CHIP_DATA,
    )
    said = [*exchanges[0], *(piece for _ in range(6) for piece in rng.choice(exchanges)), *exchanges[0] * 2]
    clean = overhear(tap(), *said)
    victim = rng.randrange(4, len(said) - 8)
    damaged = [*said[:victim], hurt(said[victim], rng, shape), *said[victim + 1 :]]
    driver = tap()
    readings = overhear(driver, *([b"".join(damaged)] if merged else damaged))
    readings += [item for item in driver.tick(1002.0) if isinstance(item, Reading)]
    words = {(r.point, r.value) for r in readings if r.point != "link.bad_frames"}
    assert words <= {(r.point, r.value) for r in clean}
    assert len(values(readings, "link.state")) >= len(values(clean, "link.state")) - 2
