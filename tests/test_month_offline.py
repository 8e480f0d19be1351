"""Thirty days without a line, in virtual time, and then the drain: nothing is lost, and the present comes first.

A real core and a real store; what is delivered in the end goes through a real uplink to mosquitto. Only the store's
syncs are left out (tests/test_power_cuts.py has them), and half an hour of changes is one commit.
"""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt import publish

from agent import catalogue
from agent.clock import Instant
from agent.core import Core
from agent.disk.reading import Reader
from agent.faults import Faults
from agent.messages import DeviceState, SessionDevice
from agent.model import Heard, Reading
from agent.state import published
from agent.store import FILE, Store
from agent.uplink import Uplink
from agent.watch import Watch
from hwsim.subscriber import Account, follow
from tests.hostile_broker import Message, Session, hostile
from tests.uplinks import settings
from tests.whole import Site, site, wait

CATALOGUE = catalogue.parse(resources.files("agent").joinpath("faults.toml").read_text("utf-8"))
SMALL = 2 * 1024 * 1024
CAP = 28 * 1024 * 1024
DAY, STEP, GAP = 86_400, 1800, 30
PROBE = "tillwire/v1/coop/another/traffic"
BEGIN = 1_700_000_000_000
POINTS = ("cassette.1.count", "cassette.2.count", "paper.receipt")
WORDS = ("full", "low", "out")


class Stranger(Account):
    """What the stranger has heard, and in which order: topic by topic."""

    def __init__(self) -> None:
        super().__init__()
        self.order: list[str] = []

    def take(self, topic: str, payload: bytes, now: float) -> list[str]:
        self.order.append(topic.split("/")[4])
        return super().take(topic, payload, now)


class Till:
    """A cash dispenser that changes twice a minute, and the agent that watches it."""

    def __init__(self, folder: Path, cap: int = CAP) -> None:
        self.store = Store(folder, "ATM-0001", cap=cap)
        self.store._db.execute("PRAGMA synchronous = OFF")
        self.core = Core(Watch({}), Faults(CATALOGUE), "boot1")
        self.now, self.changes, self.most = 0.0, 0, 0
        self.values: dict[str, Any] = {"cassette.1.count": 0, "cassette.2.count": 0, "paper.receipt": "full"}

    def live(self, days: float, *, is_online: bool) -> None:
        for _ in range(round(days * DAY / STEP)):
            readings = []
            for at in range(GAP, STEP + 1, GAP):
                point = POINTS[self.changes % 3]
                self.changes += 1
                self.values[point] = WORDS[self.changes // 3 % 3] if point == "paper.receipt" else self.changes
                readings.append(Reading(point, self.values[point], self.now + at))
            self.now += STEP
            # All are polled all the time: what did not change is not old.
            readings += [Reading(point, value, self.now) for point, value in self.values.items()]
            batch = self.core.step([Heard("till", tuple(readings))], self.now, self.wall())
            self.store.commit(batch)
            self.store.saw("till", {point: round(self.now * 1000) for point in POINTS})
            if is_online:
                self.store.settle(self.store.epoch, self.store.head)
            files = (self.store.path, self.store.path.with_name(FILE + "-wal"))
            self.most = max(self.most, sum(path.stat().st_size for path in files))

    def wall(self) -> int:
        return BEGIN + round(self.now * 1000)

    def state(self, reader: Reader, device: str, session: str) -> DeviceState:
        moment = Instant(self.now, self.wall())
        faults = reader.faults()
        return published(reader.points(device), self.store.seen(device), faults, CATALOGUE, session, moment)


@contextmanager
def delivering(folder: Path, till: Till, port: int) -> Iterator[Uplink]:
    """The till's uplink, which runs."""
    stop, config = threading.Event(), settings(folder, port)
    config = config.model_copy(update={"uplink": config.uplink.model_copy(update={"catch_up": 0})})
    devices = [SessionDevice(name="till", kind="dispenser", access="own")]
    uplink = Uplink(config, till.store, devices, till.state, "boot1", "test", stop)
    till.store.on_commit = uplink.poke
    thread = threading.Thread(target=uplink.run, daemon=True)
    thread.start()
    try:
        yield uplink
    finally:
        stop.set()
        uplink.poke(True)
        thread.join(10.0)


@contextmanager
def listening(site: Site) -> Iterator[Stranger]:
    """A centre that hears all that reaches the broker from now on."""
    account, stop = Stranger(), threading.Event()
    arguments = ("127.0.0.1", site.port, "5", account, lambda line: None, stop)
    thread = threading.Thread(target=follow, args=arguments, daemon=True)
    thread.start()
    try:
        wait("the centre", lambda: _heard(account, site.port))
        yield account
    finally:
        stop.set()
        thread.join(10.0)


@pytest.mark.peer("mosquitto")
def test_thirty_days_offline_lose_nothing_and_the_newest_state_comes_first(tmp_path: Path) -> None:
    till = Till(tmp_path / "data")
    till.live(7, is_online=True)
    begin, told = till.store.head, till.changes
    till.live(30, is_online=False)
    with closing(till.store.reader()) as reader:
        assert reader.anchor > 0, "what was delivered before has made room"
        assert reader.anchor <= begin == till.store.acked
        assert "verified" in list(reader.verify())[-1]
    assert till.most <= CAP
    assert till.changes - told == 30 * DAY // GAP

    with site(tmp_path, devices="") as centre:
        centre.start("broker")
        wait("the broker", centre.broker_answers)
        with listening(centre) as account, delivering(tmp_path, till, centre.port):
            wait("all rows", lambda: till.store.acked == till.store.head)
            wait("all rows at the centre", lambda: len(account.rows) >= till.store.head - begin)
    assert account.order.index("state") < account.order.index("ledger")
    points = account.states["ATM-0001/till"]["points"]
    assert {point: points[point]["value"] for point in POINTS} == till.values
    assert not any(points[point].get("unknown") for point in POINTS)
    sequence = [seq for _, _, seq in account.rows]
    assert sequence == list(range(begin + 1, till.store.head + 1)), "none lost, in order"
    changed = [row for row in account.rows.values() if row["kind"] == "change" and row["device"] == "till"]
    assert len(changed) == till.changes - told
    till.store.close()


def test_rows_for_which_there_was_no_room_are_a_gap_that_a_row_names(tmp_path: Path) -> None:
    till, gate = Till(tmp_path / "data", SMALL), threading.Event()

    def behave(session: Session, message: Message) -> None:
        if message.rows:
            gate.wait(30.0)
        session.ack(message)

    with hostile(Session.accept, behave) as broker, delivering(tmp_path, till, broker.port):
        till.live(0.1, is_online=False)
        wait("the first rows", lambda: broker.arrived.rows)
        till.live(6, is_online=False)
        assert till.store.reader().anchor > 300, "also what is on its way has been dropped"
        gate.set()
        wait("all rows", lambda: till.store.acked == till.store.head)
    account = broker.arrived
    assert till.most <= SMALL
    dropped = [(row["first"], row["last"]) for row in account.rows.values() if row["kind"] == "dropped"]
    with closing(till.store.reader()) as reader:
        assert dropped[-1] == (1, reader.anchor)
    assert account.missing() == []
    assert account.mistakes == [], "the chain goes on where the row says"
    till.store.close()


def _heard(account: Stranger, port: int) -> bool:
    """Whether the stranger hears what is published."""
    publish.single(PROBE, '{"up": 0, "down": 0}', port=port)
    return bool(account.order)
