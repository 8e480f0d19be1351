"""Which broker comes next and how long to wait before: in virtual time."""

import random

from hypothesis import given
from hypothesis import strategies as st

from agent.mqtt.brokers import STABLE, Brokers
from agent.mqtt.refusals import of_alert, of_code

A, B, C = ("a", 1), ("b", 2), ("c", 3)


def longest(low: float, high: float) -> float:
    return high


def shortest(low: float, high: float) -> float:
    return low


def test_after_a_failure_it_is_the_next_ones_turn_and_the_last_is_followed_by_the_first() -> None:
    brokers = Brokers([A, B, C], retry=60.0, refused=900.0)
    seen = [brokers.address]
    for second in range(4):
        brokers.failed(float(second), shortest)
        seen.append(brokers.address)
    assert seen == [A, B, C, A, B]


def test_the_waiting_doubles_up_to_its_longest_and_can_always_be_nothing() -> None:
    brokers = Brokers([A], retry=60.0, refused=900.0)
    assert [brokers.failed(0.0, longest) for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
    assert brokers.failed(0.0, shortest) == 0.0, "full jitter"


def test_after_a_connection_that_lasted_the_first_is_tried_again_and_the_waiting_starts_short() -> None:
    brokers = Brokers([A, B, C], retry=60.0, refused=900.0)
    for _ in range(7):
        brokers.failed(0.0, longest)
    assert brokers.address == B
    brokers.lost(1000.0, longest, STABLE)
    assert brokers.address == A
    assert brokers.failed(1000.0, longest) == 0.5


def test_a_short_connection_is_followed_by_the_next_broker_and_forgives_nothing() -> None:
    brokers = Brokers([A, B, C], retry=60.0, refused=900.0)
    for _ in range(7):
        brokers.failed(0.0, longest)
    brokers.lost(1000.0, longest, STABLE - 1)
    assert brokers.address == C
    assert brokers.failed(1000.0, longest) == 60.0


def test_when_the_first_itself_is_lost_it_is_not_asked_again_at_once() -> None:
    brokers = Brokers([A, B], retry=60.0, refused=900.0)
    brokers.lost(1000.0, longest, STABLE)
    assert brokers.address == B


def test_a_fleet_that_lost_its_broker_comes_back_spread_over_the_whole_wait() -> None:
    """2,000 terminals: no second sees more than twice its share of them."""
    draw = random.Random(6).uniform
    waits = [Brokers([A], retry=60.0, refused=900.0).lost(1000.0, draw, 86400.0) for _ in range(2000)]
    share = [sum(second <= wait < second + 1 for wait in waits) for second in range(60)]
    assert sum(share) == 2000
    assert max(share) <= 2 * 2000 / 60
    assert min(share) > 0


def test_a_broker_that_refuses_is_left_alone_longer_each_time() -> None:
    brokers = Brokers([A], retry=60.0, refused=900.0)
    now, waits = 0.0, []
    for _ in range(6):
        waits.append(brokers.failed(now, shortest, refused=True))
        now += waits[-1]
    assert waits == [60.0, 120.0, 240.0, 450.0, 450.0, 450.0], "never soon, however the draw falls"
    assert brokers.failed(now, longest, refused=True) == 900.0


def test_the_others_are_tried_as_usual_meanwhile() -> None:
    brokers = Brokers([A, B], retry=1.0, refused=900.0)
    now, asked = 0.0, {A: 0, B: 0}
    while now < 900.0:
        asked[brokers.address] += 1
        now += brokers.failed(now, longest, refused=brokers.address == A)
    assert asked[B] > 400
    assert asked[A] < 12


def test_mended_files_end_the_rest() -> None:
    brokers = Brokers([A], retry=1.0, refused=900.0)
    for _ in range(12):
        brokers.failed(0.0, longest, refused=True)
    brokers.mended()
    assert brokers.failed(0.0, longest) == 1.0


@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.sampled_from(["failed", "refused", "lost"]), st.floats(0.0, 500.0)), max_size=60),
    st.integers(),
)
def test_whatever_happens_the_wait_is_bounded_and_no_broker_is_forgotten(
    count: int, story: list[tuple[str, float]], seed: int
) -> None:
    addresses = [("host", port) for port in range(count)]
    brokers = Brokers(addresses, retry=10.0, refused=100.0)
    draw, now = random.Random(seed).uniform, 0.0
    for what, lasted in story:
        wait = (
            brokers.lost(now, draw, lasted)
            if what == "lost"
            else brokers.failed(now, draw, refused=what == "refused")
        )
        assert 0.0 <= wait <= 100.0
        now += wait + lasted
    seen = set()
    for _ in range(60 * count):
        seen.add(brokers.address)
        now += brokers.failed(now, draw)
    assert seen == set(addresses)


def test_what_may_pass_by_itself_is_no_refusal() -> None:
    busy, unavailable, quota, shutting_down = 0x89, 0x88, 0x97, 0x8B
    assert [of_code(code) for code in (busy, unavailable, quota, shutting_down)] == [None] * 4
    assert of_alert("[SSL: UNEXPECTED_EOF_WHILE_READING] unexpected eof while reading") is None
    assert of_alert("[SSL: TLSV1_ALERT_INTERNAL_ERROR] tlsv1 alert internal error") is None
