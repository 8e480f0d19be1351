"""A broker that breaks, lies, stalls and refuses: no row is lost, none doubled, the order is kept, and a person is
told once. Real sockets, no broker of others."""

import logging
import random
import threading
from pathlib import Path

import pytest

from agent.config import Config
from agent.mqtt.answers import NOBODY
from agent.store import Store
from agent.uplink import Uplink
from tests.hostile_broker import HostileBroker, Message, Session, hostile
from tests.uplinks import Terminal, no_device, settings, terminal
from tests.whole import free_port, wait

CONNECT_FIVE = (
    *(0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C),
    *(0x90, 0x95, 0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F),
)
"""Every reason with which a CONNACK may refuse (MQTT 5.0, table 3-1)."""
CONNECT_THREE = (1, 2, 3, 4, 5)
PUBACK_FIVE = (0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99)
"""Every reason with which a PUBACK may refuse (MQTT 5.0, table 3-4)."""
GOODBYES = (
    *(0x00, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97),
    *(0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2),
)
"""Every reason with which a broker may end a connection (MQTT 5.0, table 3-13)."""

BOTH = pytest.mark.parametrize("protocol", ["5", "3.1.1"])
ROWS = 700


def configured(folder: Path, broker: HostileBroker, protocol: str = "5", **uplink: float) -> Config:
    config = settings(folder, broker.port, f'protocol = "{protocol}"')
    table = config.uplink.model_copy(update={"refused": 0.1, "catch_up": 0, **uplink})
    return config.model_copy(update={"uplink": table})


def all_arrive(broker: HostileBroker, one: Terminal) -> None:
    wait("every row", one.delivered)
    assert broker.kept >= {(one.store.epoch, seq) for seq in range(1, one.store.head + 1)}, "nothing is lost"
    assert broker.arrived.mistakes == [], "the order is kept, and a repeat is the same"
    assert broker.arrived.twins() == 0, "nothing is doubled"
    assert len(broker.arrived.rows) == one.store.head
    assert broker.broken == []


def said(caplog: pytest.LogCaptureFixture, part: str = "uplink:") -> list[str]:
    return [record.message for record in caplog.records if part in record.message]


@BOTH
def test_the_connection_breaks_before_each_puback(tmp_path: Path, protocol: str) -> None:
    """Each message arrives once without being acknowledged, and then again."""
    seen: set[bytes] = set()

    def behave(session: Session, message: Message) -> None:
        if message.rows and message.payload not in seen:
            seen.add(message.payload)
            session.cut()
        elif session.waiting[-1] is message:
            session.ack(message)

    with hostile(behave=behave) as broker, terminal(configured(tmp_path, broker, protocol), ROWS) as one:
        all_arrive(broker, one)
        assert broker.arrived.repeats >= ROWS


@BOTH
def test_acknowledgements_come_out_of_order_and_then_the_line_breaks(tmp_path: Path, protocol: str) -> None:
    """What is acknowledged behind a gap does not count: the gap was never vouched for."""
    chance = random.Random(6)
    last = 14 * 400

    def behave(session: Session, message: Message) -> None:
        if not message.rows:
            session.ack(message)
        elif len(session.waiting) == 4 or message.rows[-1][1] == last:
            first, *rest = session.waiting
            chance.shuffle(rest)
            for late in rest:
                session.ack(late)
            if chance.random() < 0.5:
                session.ack(first)
            else:
                session.cut()

    with hostile(behave=behave) as broker, terminal(configured(tmp_path, broker, protocol), 0) as one:
        for _ in range(14):
            one.commit(last // 14)
        all_arrive(broker, one)


@BOTH
def test_the_line_breaks_at_any_byte(tmp_path: Path, protocol: str) -> None:
    chance = random.Random(7)
    with hostile() as broker, terminal(configured(tmp_path, broker, protocol), 0) as one:
        broker.torn = lambda number: chance.randint(1, 30_000) if number < 25 else None
        one.commit(ROWS)
        wait("an end of it", lambda: len(broker.sessions) > 20 or one.delivered())
        one.commit(ROWS)
        all_arrive(broker, one)


def test_rows_that_nobody_is_subscribed_to_are_taken_back_though_the_next_are_made_ready(tmp_path: Path) -> None:
    """The broker has nobody for the second message of a backlog; the rows after it were deflated already."""
    told: list[Message] = []

    def behave(session: Session, message: Message) -> None:
        told.extend([message] if message.rows else [])
        session.ack(message, NOBODY if len(told) == 2 and message.rows else 0)

    with hostile(behave=behave) as broker:
        with terminal(configured(tmp_path, broker, wait_for_reader=True), 6 * ROWS) as one:
            all_arrive(broker, one)
            assert any(thread.name.startswith("deflating") for thread in threading.enumerate())
        assert not any(thread.name.startswith("deflating") for thread in threading.enumerate())
        assert [message.rows[0][1] for message in told].count(told[1].rows[0][1]) == 2


def test_who_cannot_read_the_store_does_not_say_that_all_is_well(tmp_path: Path) -> None:
    with hostile() as broker, terminal(configured(tmp_path, broker), ROWS) as one:
        wait("all", one.delivered)
        away = one.store.path.with_name("away")
        one.store.path.rename(away)
        one.store.opened += 1  # as after another file was opened
        one.uplink.poke(True)
        wait("the end of the connection", lambda: one.uplink.status[0] == "down")
        assert not one.uplink.connected
        assert one.says("store.db cannot be used")
        away.rename(one.store.path)
        wait("the store again", lambda: one.uplink.connected)
        one.commit(2)
        wait("all", one.delivered)


def test_who_cannot_read_the_store_goes_to_no_broker_and_gathers_no_news(tmp_path: Path) -> None:
    config = settings(tmp_path, free_port())  # where nobody answers
    store = Store(config.terminal.data, config.terminal.id)
    uplink = Uplink(config, store, [], no_device, "boot", "test", threading.Event())
    uplink._saying.say("connected", "until now")
    uplink.poke(True)
    store.path.rename(store.path.with_name("away"))
    assert "store.db cannot be used" in str(uplink._connection())
    assert (uplink.status[0], list(uplink._news)) == ("down", [])


def test_a_slow_broker_is_waited_for_and_its_window_is_kept(tmp_path: Path) -> None:
    """With a receive maximum of 1 there is never a second message on the way, a farewell included."""

    def behave(session: Session, message: Message) -> None:
        threading.Timer(0.005, session.ack, (message,)).start()

    def greet(session: Session) -> None:
        session.accept(receive_maximum=1)

    with hostile(greet, behave) as broker:
        with terminal(configured(tmp_path, broker), ROWS) as one:
            all_arrive(broker, one)
            one.commit(1)
        assert broker.broken == []
        assert broker.arrived.online == {"ATM-0001": False}
        assert len(broker.sessions) == 1


@pytest.mark.parametrize(("protocol", "codes"), [("5", CONNECT_FIVE), ("3.1.1", CONNECT_THREE)])
def test_every_refusal_of_a_connection_is_said_once(
    tmp_path: Path, protocol: str, codes: tuple[int, ...], caplog: pytest.LogCaptureFixture
) -> None:
    twice = [code for code in codes for _ in range(2)]

    def greet(session: Session) -> None:
        session.accept(twice[session.number] if session.number < len(twice) else 0)

    with (
        caplog.at_level(logging.INFO),
        hostile(greet) as broker,
        terminal(configured(tmp_path, broker, protocol), ROWS) as one,
    ):
        all_arrive(broker, one)
        assert len(broker.sessions) == len(twice) + 1
        *refusals, greeting = [line for line in said(caplog) if "stopped" not in line]
        assert "connected to" in greeting
        assert len(refusals) == len(set(refusals)) == len(codes)


@pytest.mark.parametrize("code", PUBACK_FIVE)
def test_a_message_that_the_broker_refuses_is_not_delivered_and_is_said_once(
    tmp_path: Path, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    def behave(session: Session, message: Message) -> None:
        session.ack(message, code if message.rows and session.number < 2 else 0)

    with caplog.at_level(logging.INFO), hostile(behave=behave) as broker:
        with terminal(configured(tmp_path, broker), ROWS) as one:
            all_arrive(broker, one)
        assert len(broker.sessions) == 3
        assert len(said(caplog, "does not take a message")) == 1


@pytest.mark.parametrize("code", GOODBYES)
def test_a_goodbye_with_a_reason_is_said_once(tmp_path: Path, code: int, caplog: pytest.LogCaptureFixture) -> None:
    def behave(session: Session, message: Message) -> None:
        if message.rows and session.number < 2:
            session.bye(code)
        else:
            session.ack(message)

    with caplog.at_level(logging.INFO), hostile(behave=behave) as broker:
        with terminal(configured(tmp_path, broker), 1) as one:
            all_arrive(broker, one)
        assert len(broker.sessions) == 3
        assert len(said(caplog, "the connection was lost")) == 1


@BOTH
def test_rubbish_ends_a_connection_and_nothing_else(tmp_path: Path, protocol: str) -> None:
    """Bytes of all kinds, as an answer to CONNECT and later; a thread that dies of them is seen by the close."""
    chance = random.Random(8)
    rubbish = [chance.randbytes(chance.randint(1, 40)) for _ in range(12)]
    rubbish += [b"\x20\xff\xff\xff\xff\xff", b"\x40\x00", b"\x40\x02\xff\xff", b"\x20\x02\x00\x00", b"\xe0\x00"]
    rubbish += [b"\x90\x03\x00\x01\x00", b"\x30\x05\x00\x09abc", b"\x40\x03\x00\x01\x77", b"\xd0\x00", b"\x00\x00"]

    def greet(session: Session) -> None:
        if session.number < len(rubbish) and session.number % 2:
            session.send(rubbish[session.number])
            session.cut()
        else:
            session.accept()

    def behave(session: Session, message: Message) -> None:
        if message.rows and session.number < len(rubbish):
            session.send(rubbish[session.number])
            session.cut()
        else:
            session.ack(message)

    with hostile(greet, behave) as broker, terminal(configured(tmp_path, broker, protocol), ROWS) as one:
        all_arrive(broker, one)


def test_the_brokers_own_keep_alive_is_kept(tmp_path: Path) -> None:
    """The configuration says 5 seconds; this broker wants to hear something each second."""

    def greet(session: Session) -> None:
        session.accept(server_keep_alive=1)

    with hostile(greet) as broker, terminal(configured(tmp_path, broker, refresh=3600.0), 1) as one:
        all_arrive(broker, one)
        wait("two pings", lambda: broker.pings >= 2, 4.0)
        assert len(broker.sessions) == 1
