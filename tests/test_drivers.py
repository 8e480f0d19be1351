"""What every registered driver keeps, held against golden traffic that is damaged in the shapes of real lines."""

from collections.abc import Mapping
from dataclasses import fields
from itertools import pairwise
from random import Random
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from agent.drivers import DRIVERS, Driver
from agent.model import Operation, Outcome, Reading
from agent.points import lookup
from hwsim import DEVICES
from hwsim.contract import Allowed
from hwsim.wires import SHAPES, hurt
from tests import golden
from tests.virtual import Bench, values

KINDS = sorted(DRIVERS)
SETUPS = [(kind, access) for kind in KINDS for access in sorted(DRIVERS[kind].access)]
MOST_KEPT = 256

# A frame that the device may say at any time and that shows as `link.state up`, with a word to watch in it.
SPOKEN = {
    "acceptor": (bytes.fromhex("7F 80 02 F0 E9 4A 22"), "link.state", "up"),
    "card_reader": (bytes.fromhex("F2 00 00 06 50 31 30 31 31 31 03 97"), "card.stacker", "low"),
    "ups": (b"(226.0 195.0 226.0 014 49.0 27.5 30.0 00001000\r", "mains", "ok"),
    "printer": (bytes.fromhex("18 00 0F 00"), "paper.receipt", "out"),
    "epp": (
        b"\x021470" + b"EXAMPLE KIOSK".ljust(50) + b"3132331B34353608373839072E30230D4143454742444648"
        b"00001EFF011033370A0000000000ZT588 V10V2312030042\x0377",
        "key.imk.state",
        "loaded",
    ),
    "pin_pad": (
        bytes.fromhex("0F 30 36 B2 B4 36 B8 B8 30 B4 30 B1 41 30 30 B1 B2 33 B4 8E 78"),
        "device.serial",
        "246880401A001234",
    ),
    "dispenser": (
        bytes.fromhex("01 30 02 50 20 00 04 31 60 64 0C 32 60 64 0C 33 60 64 00 30 60 64 03 44"),
        "cassette.3.state",
        "low",
    ),
}

LONG_ROUND: dict[str, dict[str, Any]] = {"pin_pad": {"slots": tuple(range(10))}}
"""Options with which a driver asks most; the others always ask the same."""
UP_AGAIN = {"pin_pad": 6, "printer": 5}
"""Seconds in which a driver sees that a line is healed; the others need three."""


def make(kind: str, access: str = "own", **options: object) -> Driver:
    driver = DRIVERS[kind]
    return driver(driver.Options(**options), access)  # type: ignore[arg-type]


def replies(kind: str) -> dict[bytes, bytes]:
    """What the golden device says to each question of the host; where cases differ, the first."""
    table: dict[bytes, bytes] = {}
    for case in golden.for_driver(kind):
        if not case.listen:
            asked = b""
            answers: dict[bytes, bytes] = {}
            for mark, text in case.steps:
                if mark == ">":
                    asked = golden.octets(text)
                    if asked in answers:
                        break
                elif mark == "<" and asked:
                    answers[asked] = answers.get(asked, b"") + golden.octets(text)
            table = answers | table
    return table


def heard(kind: str) -> list[bytes]:
    """All golden bytes that a driver of this kind can meet, one item for each line of the vectors."""
    return [golden.octets(text) for case in golden.for_driver(kind) for mark, text in case.steps if mark in "<>"]


class Recorded:
    """A device that gives the golden answers, and hurts those of its writes that are listed in `hurts`."""

    BAUD: ClassVar[int] = 9600
    SETTINGS: ClassVar[Mapping[str, Allowed]] = {}

    def __init__(self, kind: str, hurts: dict[int, str] | None = None, seed: int = 0) -> None:
        self._table = replies(kind)
        self._hurts = hurts or {}
        self._rng = Random(seed)
        self.writes = 0

    def receive(self, data: bytes) -> bytes:
        said = self._table.get(data, b"")
        if said:
            self.writes += 1
            if (shape := self._hurts.get(self.writes)) is not None:
                return hurt(said, self._rng, shape)
        return said

    def tick(self, now: float) -> bytes:
        return b""


def check(items: list[Reading | Outcome]) -> None:
    """Every reading is one that the vocabulary knows."""
    for item in items:
        if isinstance(item, Reading):
            point = lookup(item.point)
            if point.kind == "word":
                value = str(item.value)
                assert value in point.words or value.startswith("vendor."), item
            elif point.kind in ("count", "tally"):
                assert type(item.value) is int, item
                assert item.value >= 0, item
            elif point.kind == "measure":
                assert type(item.value) in (int, float), item
            else:
                assert isinstance(item.value, str), item


def play(driver: Driver, pieces: list[bytes], spacing: float = 0.3) -> list[Reading | Outcome]:
    """Give pieces to a driver, `spacing` seconds apart, with the ticks between them."""
    items: list[Reading | Outcome] = []
    now = 1000.0
    for piece in pieces:
        items += driver.tick(now)
        driver.outgoing()
        items += driver.receive(piece, now)
        for _ in range(3):
            now += spacing / 3
            items += driver.tick(now)
            driver.outgoing()
    return items


@pytest.mark.parametrize(
    ("kind", "case"),
    [pytest.param(kind, case, id=f"{kind}-{case.name}") for kind in KINDS for case in golden.for_driver(kind)],
)
def test_golden_frames(kind: str, case: golden.Case) -> None:
    golden.check_driver(case, make(kind, "listen" if case.listen else "own"))


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_damage_costs_the_damaged_frame_and_at_most_the_next(kind: str, data: st.DataObject) -> None:
    frame, point, word = SPOKEN[kind]
    shape = data.draw(st.sampled_from(SHAPES))
    rng = Random(data.draw(st.integers(0, 2**32)))
    damaged = hurt(frame, rng, shape)
    if data.draw(st.booleans()):
        damaged = frame[: data.draw(st.integers(1, len(frame) - 1))]
    for access in sorted(DRIVERS[kind].access):
        # in one delivery with the next frame, or with a whole crowd where the protocol can check itself
        crowd = data.draw(st.integers(1, 2 if kind == "printer" else 5))
        pieces = [frame] * 4 + [damaged + frame * (crowd - 1)] + [frame] * 4
        items = play(make(kind, access), pieces, spacing=2.1)
        check(items)
        assert values(items, "link.state").count("up") >= 4 + crowd + 4 - 2
        assert values(items, point)[-1] == word


@pytest.mark.parametrize(("kind", "access"), SETUPS)
@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_any_slicing_gives_the_same_readings(kind: str, access: str, data: st.DataObject) -> None:
    pieces = data.draw(st.lists(st.sampled_from(heard(kind)) | st.binary(max_size=12), max_size=12))
    rng = Random(data.draw(st.integers(0, 2**32)))
    pieces = [hurt(piece, rng) if piece and rng.random() < 0.3 else piece for piece in pieces]
    whole, sliced = make(kind, access), make(kind, access)
    now = 1000.0
    for piece in pieces:
        now += data.draw(st.sampled_from((0.05, 0.2, 0.6, 1.1)))
        assert whole.tick(now) == sliced.tick(now)
        assert whole.outgoing() == sliced.outgoing()
        wanted = whole.receive(piece, now)
        cuts = sorted(rng.randint(0, len(piece)) for _ in range(3))
        got = [
            i for a, b in zip([0, *cuts], [*cuts, len(piece)], strict=True) for i in sliced.receive(piece[a:b], now)
        ]
        assert got == wanted
        check(got)


@pytest.mark.parametrize(("kind", "access"), SETUPS)
@given(pieces=st.lists(st.binary(max_size=200), max_size=20))
@settings(max_examples=40, deadline=None)
def test_nothing_that_a_line_says_raises_or_leaves_the_vocabulary(
    kind: str, access: str, pieces: list[bytes]
) -> None:
    check(play(make(kind, access), pieces))


@pytest.mark.parametrize(("kind", "access"), SETUPS)
def test_babble_for_ever_fills_no_buffer_and_the_next_good_frame_is_read(kind: str, access: str) -> None:
    driver = make(kind, access)
    rng = Random(1)
    frame, point, word = SPOKEN[kind]
    opening = frame[:3]
    for step in range(300):
        babble = rng.randbytes(200) + opening
        check(driver.receive(babble, 1000.0 + step * 0.1))
        assert vars(driver)["_deframer"].kept <= MOST_KEPT
    items = play(driver, [frame] * 4, spacing=2.1)
    assert values(items, point)[-1:] == [word]


@pytest.mark.parametrize(("kind", "access"), SETUPS)
def test_a_line_with_nothing_but_noise_is_rubbish_and_names_speed_and_cable(kind: str, access: str) -> None:
    driver, rng = make(kind, access), Random(7)
    items: list[Reading | Outcome] = []
    for step in range(1200):
        now = 1000.0 + step * 0.05
        items += driver.tick(now)
        driver.outgoing()
        items += driver.receive(rng.randbytes(rng.randint(0, 20)), now)
    check(items)
    states = [item for item in items if isinstance(item, Reading) and item.point == "link.state"]
    assert states[-1].value == "rubbish"
    assert "speed" in states[-1].raw
    assert "cable" in states[-1].raw
    assert states[0].at - 1000.0 <= 15.0
    assert "up" not in [state.value for state in states]
    others = {item.point for item in items if isinstance(item, Reading)} - {"link.state", "link.bad_frames"}
    assert others == set(), "noise became a reading"
    assert values(items, "link.bad_frames")[-1] != 0


@pytest.mark.parametrize(("kind", "access"), SETUPS)
def test_a_dead_line_is_silent_within_15_seconds_and_silence_never_gets_stale(kind: str, access: str) -> None:
    driver = make(kind, access)
    at = []
    for step in range(2400):
        now = 1000.0 + step * 0.05
        items = driver.tick(now)
        driver.outgoing()
        at += [i.at for i in items if isinstance(i, Reading) and (i.point, i.value) == ("link.state", "silent")]
    assert at[0] - 1000.0 <= 15.0
    gaps = [b - a for a, b in pairwise(at)]
    assert max(gaps) < lookup("link.state").max_age


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_line_is_silent_within_15_seconds_and_all_is_read_again_soon_after_it_is_healed(kind: str) -> None:
    for phase in range(4):  # wherever in a round the cut falls
        at = Bench(make(kind, **LONG_ROUND.get(kind, {})), DEVICES[kind]())
        known = {(r.point, r.value) for r in at.run(10 + phase * 0.3) if lookup(r.point).kind == "word"}
        at.faults(cut=True)
        at.run(15)
        assert at.value("link.state") == "silent"
        at.run(60)
        at.faults()
        assert values(at.run(UP_AGAIN.get(kind, 3)), "link.state")[-1] == "up"
        assert known <= {(r.point, r.value) for r in at.run(5)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_one_damaged_write_never_makes_a_false_word(kind: str, shape: str) -> None:
    """After the first exchange of each question: what differs must come twice, or has a checksum."""
    good = Bench(make(kind), Recorded(kind))
    good.run(30)
    truth = {(r.point, r.value) for r in good.readings if lookup(r.point).kind in ("word", "tally", "text")}
    for seed in range(40):
        device = Recorded(kind, {12 + seed % 17: shape}, seed)
        bench = Bench(make(kind), device, seed)
        bench.run(30)
        assert device.writes > 30 - 2
        check([*bench.readings])
        said = {(r.point, r.value) for r in bench.readings if lookup(r.point).kind in ("word", "tally", "text")}
        assert said == truth
        assert bench.value("link.state") == "up"


@pytest.mark.parametrize(("kind", "access"), SETUPS)
def test_every_operation_ends_exactly_once_also_on_a_dead_line(kind: str, access: str) -> None:
    driver = make(kind, access)
    verbs = [*driver.operations, "fly_to_the_moon"]
    ended: list[str] = []
    sent = b""
    now = 1000.0
    for turn in range(2):  # before the silence is known, and after
        for verb in verbs:
            driver.perform(Operation(f"{turn}:{verb}", "d", verb, "someone"), now)
        for _ in range(8000):
            now += 0.05
            items = driver.tick(now)
            sent += driver.outgoing()
            check(items)
            ended += [item.operation for item in items if isinstance(item, Outcome)]
            for item in items:
                if isinstance(item, Outcome):
                    # a printer recovers known errors only, and here none is known
                    refused = access == "listen" or item.operation.endswith("moon") or kind == "printer"
                    assert item.result == ("refused" if refused else "unanswered"), item
                    assert item.detail
    assert sorted(ended) == sorted(f"{turn}:{verb}" for turn in range(2) for verb in verbs)
    if access == "listen":
        assert sent == b""


@pytest.mark.parametrize("kind", KINDS)
def test_options_have_defaults_and_their_text_names_each(kind: str) -> None:
    options = DRIVERS[kind].Options
    assert options() == options()
    names = [field.name for field in fields(options)]
    assert "poll" in names
    for name in names:
        assert f"{name}:" in (options.__doc__ or "")
    for poll in (0, -1, 100):
        with pytest.raises(ValueError, match="poll"):
            options(poll=poll)


@pytest.mark.parametrize("kind", KINDS)
def test_each_missing_access_has_its_reason(kind: str) -> None:
    driver = DRIVERS[kind]
    assert {"own", "listen"} - driver.access == driver.why_not.keys()
    assert all(driver.why_not.values())


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_option_is_an_error(kind: str) -> None:
    with pytest.raises(ValidationError, match="unexpected"):
        TypeAdapter(DRIVERS[kind].Options).validate_python({"polll": 1.0})
