"""The bad wires, in virtual time: what each fault does to bytes, and what it must not do."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.wires import SHAPES, Faults, Wire, hurt

WRITES = st.lists(st.tuples(st.binary(min_size=1, max_size=40), st.floats(0, 2)), max_size=20)
"""Writes with the seconds that pass before each."""


def carry(wire: Wire, writes: list[tuple[bytes, float]], every: float = 0.01) -> list[tuple[float, bytes]]:
    """Send the writes, look every so often, wait until nothing is under way; returns arrivals and their times."""
    now, arrived = 0.0, list[tuple[float, bytes]]()
    for data, pause in writes:
        end = now + pause
        while now < end:
            now = min(now + every, end)
            arrived += [(now, piece) for piece in wire.arrive(now)]
        wire.send(data, now)
    while wire.next_due is not None:
        now = max(now, wire.next_due)
        arrived += [(now, piece) for piece in wire.arrive(now)]
    return arrived


def joined(arrived: list[tuple[float, bytes]]) -> bytes:
    return b"".join(piece for _, piece in arrived)


@given(WRITES)
def test_a_good_wire_delivers_each_write_whole_at_once_and_in_order(writes: list[tuple[bytes, float]]) -> None:
    wire = Wire(Random(0))
    for data, pause in writes:
        wire.send(data, pause)
        assert wire.arrive(pause) == [data]
    assert wire.next_due is None
    assert wire.damaged == 0


@given(
    WRITES,
    st.builds(
        Faults, chunk=st.integers(0, 5), gap=st.floats(0, 0.01), merge=st.floats(0, 1), delay=st.floats(0, 3)
    ),
)
def test_slow_wires_lose_nothing_and_keep_the_order(writes: list[tuple[bytes, float]], faults: Faults) -> None:
    arrived = carry(Wire(Random(0), faults), writes)
    assert joined(arrived) == b"".join(data for data, _ in writes)
    assert [at for at, _ in arrived] == sorted(at for at, _ in arrived)


@given(
    st.lists(st.tuples(st.binary(min_size=1, max_size=9), st.floats(0, 3), st.floats(0, 1)), min_size=1, max_size=9)
)
def test_the_order_survives_faults_that_change_while_bytes_travel(writes: list[tuple[bytes, float, float]]) -> None:
    wire = Wire(Random(0))
    for data, delay, merge in writes:
        wire.faults = Faults(delay=delay, merge=merge)
        wire.send(data, 0.0)
    wire.faults = Faults()
    assert b"".join(wire.arrive(1000.0)) == b"".join(data for data, _, _ in writes)


@given(st.binary(min_size=1, max_size=64), st.sampled_from(SHAPES), st.integers(0, 2**32))
def test_damage_changes_exactly_one_byte(data: bytes, shape: str, seed: int) -> None:
    after = hurt(data, Random(seed), shape)
    match shape:
        case "flip":
            assert [bin(a ^ b).count("1") for a, b in zip(data, after, strict=True) if a != b] == [1]
        case "drop":
            assert after in {data[:i] + data[i + 1 :] for i in range(len(data))}
        case "double":
            assert after in {data[: i + 1] + data[i:] for i in range(len(data))}
        case _:
            assert data in {after[:i] + after[i + 1 :] for i in range(len(after))}
            assert len(after) == len(data) + 1


def test_damage_strikes_as_often_as_its_chance_says() -> None:
    wire = Wire(Random(1), Faults(damage=0.3))
    for _ in range(2000):
        wire.send(b"0123456789", 0.0)
    assert 500 < wire.damaged < 700
    hit = [piece for piece in wire.arrive(0.0) if piece != b"0123456789"]
    assert len(hit) == wire.damaged


def test_the_same_seed_makes_the_same_luck() -> None:
    def luck(seed: int) -> list[bytes]:
        wire = Wire(Random(seed), Faults(damage=0.5, half=0.2, noise=5))
        for i in range(50):
            wire.send(b"message %d" % i, 0.0)
        return wire.arrive(0.0)

    assert luck(7) == luck(7)
    assert luck(7) != luck(8)


@given(st.floats(0.001, 100), st.floats(0, 1000))
def test_delay_makes_everything_exactly_so_late(delay: float, now: float) -> None:
    wire = Wire(Random(0), Faults(delay=delay))
    wire.send(b"late", now)
    assert wire.next_due == now + delay
    assert wire.arrive(now + delay * 0.99) == []
    assert wire.arrive(now + delay) == [b"late"]


def test_merge_joins_the_writes_of_its_window_and_no_others() -> None:
    wire = Wire(Random(0), Faults(merge=0.5))
    for at, data in ((0.0, b"a"), (0.2, b"b"), (0.4, b"c"), (0.9, b"d")):
        if at == 0.9:
            assert wire.arrive(0.49) == []
            assert wire.arrive(0.5) == [b"abc"]
        wire.send(data, at)
    assert wire.arrive(1.3) == []
    assert wire.arrive(1.4) == [b"d"]


@given(WRITES, st.floats(0.01, 1), st.floats(0, 1))
def test_merge_and_delay_together_are_never_too_early(
    writes: list[tuple[bytes, float]], merge: float, delay: float
) -> None:
    wire = Wire(Random(0), Faults(merge=merge, delay=delay))
    now = 0.0
    for data, pause in writes:
        now += pause
        wire.send(data, now)
        early = b"".join(wire.arrive(now + delay - 1e-6))
        assert wire.next_due is not None, f"{data!r} came early, with {early!r}"


def test_half_lets_only_the_first_half_through() -> None:
    wire = Wire(Random(0), Faults(half=1.0))
    wire.send(b"12345678", 0.0)
    wire.send(b"x", 0.0)
    assert wire.arrive(0.0) == [b"1234"]
    assert wire.damaged == 2


@given(st.integers(1, 20), st.integers(0, 999))
def test_noise_comes_before_a_whole_message(most: int, seed: int) -> None:
    wire = Wire(Random(seed), Faults(noise=most))
    wire.send(b"message", 0.0)
    [piece] = wire.arrive(0.0)
    assert piece.endswith(b"message")
    assert len(piece) <= most + len(b"message")


def test_bytewise_delivers_single_bytes_a_gap_apart() -> None:
    wire = Wire(Random(0), Faults(chunk=1, gap=0.001))
    wire.send(b"abc", 0.0)
    wire.send(b"d", 0.0)
    assert [(round(at, 6), piece) for at, piece in carry(wire, [])] == [
        (0.0, b"a"),
        (0.001, b"b"),
        (0.002, b"c"),
        (0.003, b"d"),
    ]


def test_a_cut_wire_delivers_nothing_and_forgets_what_was_under_way() -> None:
    wire = Wire(Random(0), Faults(delay=1.0))
    wire.send(b"before", 0.0)
    wire.faults = Faults(cut=True)
    wire.send(b"during", 0.5)
    assert wire.arrive(2.0) == []
    wire.faults = Faults()
    assert wire.arrive(3.0) == []
    wire.send(b"after", 3.0)
    assert wire.arrive(3.0) == [b"after"]


@pytest.mark.parametrize("seed", range(3))
def test_an_empty_write_is_no_write(seed: int) -> None:
    wire = Wire(Random(seed), Faults(noise=9, damage=1.0))
    wire.send(b"", 0.0)
    assert wire.arrive(0.0) == []
