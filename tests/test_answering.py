"""Which devices answer is known only once they were heard: at a start, and after what was tried was taken back."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.calling import insist
from agent.model import Batch, Heard, Reading, StoredPoint
from agent.pushing.answering import PATIENCE, Answering
from agent.pushing.remembered import LONGEST_FREEZE_MS, Freeze
from agent.recalling import answered
from agent.store import Store
from agent.tables import Device

NOW = 1000.0
DEVICES = {name: Device(name=name, kind="ups", port=f"/dev/{name}") for name in ("a", "b")}
TAP = Device(name="t", kind="dispenser", port="/dev/t", access="listen")
WALL, HOUR = 1_800_000_000_000, 3_600_000


class Lines:
    """Two devices whose lines were opened at NOW."""

    def __init__(self, *before: str) -> None:
        self.since = dict.fromkeys((*DEVICES, "t"), NOW)
        self.answering = Answering(before, lambda: self.since)

    def says(self, device: str, word: str, at: float) -> None:
        self.answering.heard(Heard(device, (Reading("link.state", word, at), Reading("mains", "ok", at))))

    def unheard(self, now: float = NOW + 1) -> set[str]:
        return set(self.answering.unheard(DEVICES | {"t": TAP}, now))


def test_nobody_knows_who_answers_until_each_was_heard_or_a_minute_is_over() -> None:
    lines = Lines()
    assert lines.unheard() == {"a", "b"}, "and not who is only listened to"
    lines.says("a", "up", NOW + 0.1)
    assert lines.unheard() == {"b"}
    lines.says("b", "missing", NOW + 0.1)
    assert lines.unheard() == set()
    assert lines.answering.answers() == {"a"}
    assert Lines().unheard(NOW + PATIENCE) == set()


def test_who_answered_before_the_start_counts_until_a_minute_is_over_or_it_answers() -> None:
    lines = Lines("a", "t")
    assert lines.answering.answers() == {"a", "t"}
    lines.says("a", "missing", NOW + 0.1)  # its port may not be there yet
    assert lines.unheard() == {"a", "b"}
    lines.says("b", "up", NOW + 0.1)
    assert lines.unheard(NOW + PATIENCE - 1) == {"a"}
    assert lines.unheard(NOW + PATIENCE) == set()
    assert lines.answering.answers() == {"b", "t"}
    lines.says("a", "up", NOW + 0.2)
    assert lines.unheard() == set()
    lines.says("a", "silent", NOW + 0.3)
    assert lines.answering.answers() == {"b", "t"}, "it answered since"


def test_what_a_tried_line_said_is_not_what_the_device_says_after_a_rollback() -> None:
    lines = Lines()
    for name in DEVICES:
        lines.says(name, "up", NOW + 1)
    answered = lines.answering.answers()
    lines.since["a"] = NOW + 10  # tried at another port
    lines.says("a", "missing", NOW + 11)
    lines.since["a"] = NOW + 20  # and taken back
    lines.answering.back(answered)
    assert lines.unheard(NOW + 21) == {"a"}
    assert lines.answering.answers() == {"a", "b"}
    lines.says("a", "up", NOW + 21)
    assert lines.unheard(NOW + 21) == set()


def test_who_answered_is_known_after_a_start(tmp_path: Path) -> None:
    store = Store(tmp_path, "ATM-0001")
    states = [("a", "link.state", "up"), ("b", "link.state", "silent"), ("c", "mains", "ok")]
    store.commit(Batch(points=[StoredPoint(device, point, word, True, WALL) for device, point, word in states]))
    store.forget_all()  # as a start does: nothing was seen meanwhile
    assert answered(store) == {"a"}
    store.close()


def test_a_freeze_is_as_long_as_it_was_said_however_the_clock_is_set() -> None:
    freeze = Freeze(WALL + HOUR, "li", "boot-1", 5000 + HOUR, is_of=True)
    for wall in (0, WALL, WALL + 400 * 24 * HOUR):
        left = freeze.now(wall, 5000 + HOUR - 1)
        assert left, wall
        assert abs(left.until - wall) <= HOUR
        assert freeze.now(wall, 5000 + HOUR) is None
    assert freeze.now(WALL + 3, 5000) == freeze, "clocks wander"


def test_a_freeze_of_another_boot_ends_by_the_wall_clock_and_at_the_latest_after_the_longest() -> None:
    freeze = Freeze(WALL + HOUR, "li", "boot-1", 5000 + HOUR, is_of=True).again("boot-2", 70)
    assert freeze.now(WALL, 100)
    assert freeze.now(WALL + HOUR, 100) is None
    year = WALL - 365 * 24 * HOUR  # a clock that was set back
    assert (left := freeze.now(year, 70))
    assert left.until == year + LONGEST_FREEZE_MS
    assert freeze.now(year, 70 + LONGEST_FREEZE_MS) is None


def test_what_goes_wrong_in_another_thread_goes_wrong_here() -> None:
    def in_another(task: Callable[[], None]) -> None:
        threading.Thread(target=task).start()

    def wrong() -> None:
        raise RuntimeError("no such device")

    stop = threading.Event()
    done: list[int] = []
    assert insist(in_another, lambda: done.append(1), stop)
    with pytest.raises(RuntimeError, match="no such device"):
        insist(in_another, wrong, stop)
    stop.set()
    assert not insist(in_another, lambda: done.append(2), stop)
    assert done == [1]
