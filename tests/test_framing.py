"""The deframer: any slicing, a hard limit, and no good frame lost behind damage."""

from hypothesis import given
from hypothesis import strategies as st

from agent.drivers.framing import BAD, MORE, Deframer, xor_of

LIMIT = 12


def measure(data: bytes) -> int:
    """A toy protocol: 02, length of the text, text, XOR of all before."""
    if data[0] != 0x02:
        return BAD
    if len(data) < 2:
        return MORE
    size = data[1] + 3
    if len(data) < size:
        return MORE
    return size if xor_of(data[: size - 1]) == data[size - 1] else BAD


def frame(text: bytes) -> bytes:
    body = bytes((0x02, len(text))) + text
    return body + bytes((xor_of(body),))


texts = st.binary(max_size=8)


@given(st.lists(st.binary(max_size=3) | texts.map(frame), max_size=8), st.lists(st.integers(1, 5), min_size=1))
def test_any_slicing_gives_the_same_frames(pieces: list[bytes], sizes: list[int]) -> None:
    stream = b"".join(pieces)
    whole = Deframer(measure, LIMIT)
    wanted = whole.feed(stream, 0.0)
    sliced, got, at = Deframer(measure, LIMIT), list[bytes](), 0
    while at < len(stream):
        for size in sizes:
            got += sliced.feed(stream[at : at + size], 0.0)
            at += size
    assert got == wanted
    assert (sliced.bad, sliced.skipped, sliced.kept) == (whole.bad, whole.skipped, whole.kept)


def wounds(victim: bytes) -> list[bytes]:
    """The same frame with any one bit flipped, any one byte lost or doubled, or cut anywhere."""
    flipped = [
        victim[:i] + bytes((victim[i] ^ (1 << b),)) + victim[i + 1 :] for i in range(len(victim)) for b in range(8)
    ]
    lost = [victim[:i] + victim[i + 1 :] for i in range(len(victim))]
    doubled = [victim[: i + 1] + victim[i:] for i in range(len(victim))]
    return flipped + lost + doubled + [victim[:i] for i in range(1, len(victim))]


def test_damage_costs_the_damaged_frame_and_at_most_the_next() -> None:
    frames = [frame(text) for text in (b"first", b"second", b"third", b"", b"fifth")]
    for damaged in wounds(frames[0]):
        # what a damaged head still asks for at the end of the stream is not lost, only not yet given
        got = Deframer(measure, LIMIT).feed(damaged + b"".join(frames[1:]) + b"\xff" * LIMIT, 0.0)
        assert got[-3:] == frames[2:], damaged.hex(" ")


@given(st.binary(max_size=300))
def test_the_limit_is_never_passed(babble: bytes) -> None:
    deframer = Deframer(lambda data: MORE, LIMIT)
    assert deframer.feed(babble, 0.0) == []
    assert deframer.kept < LIMIT


def test_a_run_of_rubbish_counts_once_and_bytes_are_counted_too() -> None:
    deframer = Deframer(measure, LIMIT)
    assert deframer.feed(b"\xff\xfe\xfd" + frame(b"a") + b"\xff", 0.0) == [frame(b"a")]
    assert (deframer.bad, deframer.skipped) == (2, 4)


def test_two_bursts_of_rubbish_count_twice_when_the_line_was_quiet_between() -> None:
    deframer = Deframer(measure, LIMIT, gap=0.5)
    deframer.feed(b"\xff", 0.0)
    deframer.feed(b"\xff", 1.0)
    assert deframer.bad == 2


def test_an_unfinished_frame_is_given_up_after_the_gap_and_uncovers_what_it_hid() -> None:
    deframer = Deframer(measure, LIMIT, gap=0.5)
    assert deframer.feed(b"\x02\x09" + frame(b"a"), 0.0) == []
    assert deframer.expire(0.5) == []
    assert deframer.expire(0.6) == [frame(b"a")]
    assert deframer.kept == 0


def test_a_frame_that_comes_in_two_parts_within_the_gap_is_whole() -> None:
    deframer = Deframer(measure, LIMIT, gap=0.5)
    whole = frame(b"abc")
    assert deframer.feed(whole[:3], 0.0) == []
    assert deframer.feed(whole[3:], 0.4) == [whole]
    assert deframer.bad == 0


def test_a_dropped_frame_counts_as_damage() -> None:
    deframer = Deframer(measure, LIMIT)
    deframer.feed(frame(b"abc")[:3], 0.0)
    deframer.drop()
    assert (deframer.bad, deframer.kept) == (1, 0)
    assert deframer.feed(frame(b"abc"), 0.0) == [frame(b"abc")]


def test_xor_of_nothing_is_zero() -> None:
    assert xor_of(b"") == 0
    assert xor_of(bytes.fromhex("04 30 02 50 03")) == 0x65  # STATUS of the LCDM-4000
