"""What is published next, and where the cursor stands: in virtual time, without a broker."""

from hypothesis import given
from hypothesis import strategies as st

from agent.mqtt.delivery import Delivery


def test_the_cursor_waits_for_the_oldest_message() -> None:
    delivery = Delivery(acked=10)
    delivery.sent(1, 0.0, rows=5)
    delivery.sent(2, 0.0, rows=5)
    delivery.sent(3, 0.0)
    assert delivery.taken == 20
    assert delivery.acknowledged(2) == 10
    assert delivery.acknowledged(3) == 10
    assert delivery.acknowledged(1) == 20


@given(st.lists(st.integers(0, 9), max_size=30), st.randoms(use_true_random=False))
def test_the_cursor_never_passes_an_unacknowledged_row(sizes: list[int], rng: object) -> None:
    delivery = Delivery(acked=0, window=1000)
    spans: dict[int, tuple[int, int]] = {}
    for mid, rows in enumerate(sizes):
        spans[mid] = (delivery.taken + 1, delivery.taken + rows)
        delivery.sent(mid, 0.0, rows)
    waiting = set(spans)
    order = list(spans)
    rng.shuffle(order)  # type: ignore[attr-defined]
    for mid in order:
        waiting.discard(mid)
        cursor = delivery.acknowledged(mid)
        assert all(cursor < spans[other][0] for other in waiting if spans[other][1] >= spans[other][0])
    assert delivery.acked == sum(sizes)


def test_the_window_is_kept() -> None:
    delivery = Delivery(acked=0, window=2)
    assert delivery.rows_due(0.0)
    delivery.sent(1, 0.0, rows=1)
    delivery.sent(2, 0.0, rows=1)
    assert not delivery.rows_due(0.0)
    delivery.acknowledged(2)
    assert delivery.rows_due(0.0)


def test_what_is_not_urgent_waits_for_company() -> None:
    delivery = Delivery(acked=0, linger=1.0)
    delivery.idle(0.0)
    delivery.news(False, 10.0)
    assert not delivery.rows_due(10.5)
    delivery.news(False, 10.9)
    assert delivery.rows_due(11.0), "later news does not put off what is waiting"
    delivery.idle(10.95)
    assert delivery.deadline() == 11.0, "what lingers is not forgotten"
    delivery.idle(11.0)
    delivery.news(False, 20.0)
    delivery.news(True, 20.1)
    assert delivery.rows_due(20.1)


def test_every_device_is_published_after_a_connect_then_only_when_it_changes_or_ages() -> None:
    delivery = Delivery(acked=0, refresh=60.0)
    assert delivery.stale_states([("a", 0), ("b", 4)], 0.0) == ["a", "b"]
    delivery.published("a", 0, 0.0)
    delivery.published("b", 4, 0.0)
    delivery.idle(0.0)
    assert delivery.stale_states([("a", 0), ("b", 4)], 1.0) == []
    delivery.news(True, 2.0)
    assert delivery.stale_states([("a", 0), ("b", 5)], 2.0) == ["b"]
    delivery.published("b", 5, 2.0)
    assert delivery.stale_states([("a", 0), ("b", 5)], 60.0) == ["a"]


def test_a_state_that_changes_often_is_published_at_once_and_then_once_per_linger() -> None:
    delivery = Delivery(acked=0, linger=1.0)
    delivery.published("a", 1, 0.0)
    delivery.idle(0.0)
    published = []
    for tenth in range(100, 131):
        now, revision = tenth / 10, tenth
        if tenth <= 120:
            delivery.news(True, now)
        else:
            revision = 120
        if delivery.stale_states([("a", revision)], now):
            delivery.published("a", revision, now)
            published.append(now)
        delivery.idle(now)
        if published[-1] != now and revision != round(published[-1] * 10):
            assert delivery.deadline() == published[-1] + 1.0, "it is looked at again in time"
    assert published == [10.0, 11.0, 12.0], "the last change is not left out"


def test_catching_up_is_paced() -> None:
    delivery = Delivery(acked=0, window=10_000, pace=1000)
    sent, now = 0, 0.0
    while now < 5.0:
        if delivery.rows_due(now):
            delivery.sent(sent, now, rows=100)
            sent += 1
        now += 0.01
    assert 5000 <= sent * 100 <= 6100, "a second's worth at once, then the pace"


def test_a_message_without_puback_is_noticed() -> None:
    delivery = Delivery(acked=0)
    delivery.sent(1, 0.0, rows=1)
    assert not delivery.overdue(29.0, 30.0)
    assert delivery.overdue(30.1, 30.0)


def test_rows_that_nobody_took_are_taken_back_and_sent_again_later() -> None:
    delivery = Delivery(acked=10)
    delivery.sent(1, 0.0, rows=5)
    delivery.sent(2, 0.0, rows=5)
    delivery.sent(3, 0.0)
    delivery.told(0.0)
    delivery.hold(30.0)
    assert (delivery.taken, delivery.acked) == (10, 10)
    assert not delivery.rows_due(29.9)
    assert delivery.acknowledged(2) == 10, "a late acknowledgement moves nothing"
    assert delivery.acknowledged(3) == 10
    assert delivery.deadline() == 30.0
    assert delivery.rows_due(30.0)
    delivery.sent(4, 30.0, rows=5)
    assert delivery.acknowledged(4) == 15
