"""What a message costs, what the line has carried, and how less is spent near the budget."""

import json
import socket
import struct
import threading
from pathlib import Path

import pytest

from agent import messages
from agent.config import Config, parse
from agent.errors import ConfigError
from agent.mqtt.byteaccount import DAYS, KEEP_BYTES, ByteAccount, spent
from agent.mqtt.delivery import AGAIN, Delivery
from agent.mqtt.posting import OVERHEAD, of_kernel, of_tcp_info
from hwsim.subscriber import DEFLATED, opened
from tests.hostile_broker import HostileBroker, Message, Session, hostile
from tests.test_docs import validator
from tests.unplugged import lived
from tests.uplinks import settings, terminal
from tests.whole import wait

DAY = 86_400_000
NOON = 20_000 * DAY + DAY // 2
"""Of 2024-10-04, ms."""


def configured(folder: Path, broker: HostileBroker, protocol: str = "5", **uplink: float) -> Config:
    config = settings(folder, broker.port, f'protocol = "{protocol}"')
    return config.model_copy(update={"uplink": config.uplink.model_copy(update={"catch_up": 0, **uplink})})


@pytest.mark.parametrize(("protocol", "offered"), [("5", 10), ("5", 1), ("5", 0), ("3.1.1", 0)])
def test_a_topic_is_sent_once_where_the_broker_takes_aliases(tmp_path: Path, protocol: str, offered: int) -> None:
    heard: list[Message] = []

    def behave(session: Session, message: Message) -> None:
        heard.append(message)
        session.ack(message)

    def greet(session: Session) -> None:
        session.accept(**({"topic_alias_maximum": offered} if offered else {}))

    with hostile(greet, behave) as broker:
        with terminal(configured(tmp_path, broker, protocol), 0) as one:
            for _ in range(3):
                one.commit(1)
                wait("the row", one.delivered)
        assert broker.broken == []
        ledger = [message for message in heard if message.rows]
        assert [message.aliased for message in ledger] == [False, *[offered > 1] * 2]
        assert {message.topic for message in heard} == {
            f"tillwire/v1/coop/ATM-0001/{t}" for t in ("session", "ledger")
        }


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_many_rows_are_deflated_where_that_can_be_said_and_one_is_not(tmp_path: Path, protocol: str) -> None:
    heard: list[Message] = []

    def behave(session: Session, message: Message) -> None:
        heard.append(message)
        session.ack(message)

    with hostile(behave=behave) as broker, terminal(configured(tmp_path, broker, protocol), 200) as one:
        wait("the rows", one.delivered)
        one.commit(1)
        wait("the row", one.delivered)
        assert broker.arrived.mistakes == []
        *first, many, alone = [message for message in heard if message.rows]
        assert [len(one.payload) < 3000 for one in first] == [True] * (protocol == "3.1.1"), "what is to come back"
        assert alone.content_type == ""
        assert json.loads(alone.payload)["rows"]
        if protocol == "5":
            assert many.content_type == DEFLATED == messages.DEFLATED
            assert len(many.payload) < len(opened(many.payload, many.content_type)) / 3
        else:
            assert many.content_type == ""
            assert len(json.loads(many.payload)["rows"]) == 200 - len(first[0].rows)


def test_a_stranger_says_what_he_cannot_open() -> None:
    assert opened(b"{}", "") == opened(b"{}", "application/json") == b"{}"
    for payload, content_type in ((b"{}", DEFLATED), (b"{}", "application/cbor")):
        with pytest.raises(ValueError, match=r"deflated|described"):
            opened(payload, content_type)


def test_the_brokers_largest_packet_and_smallest_window_are_kept(tmp_path: Path) -> None:
    """Also by a farewell in the middle of a backlog, while a message still waits for its PUBACK."""

    def greet(session: Session) -> None:
        session.accept(receive_maximum=1, maximum_packet_size=1200)

    def behave(session: Session, message: Message) -> None:
        if broker.stalls and message.rows:
            threading.Timer(0.2, session.ack, (message,)).start()
        else:
            session.ack(message)

    with hostile(greet, behave) as broker:
        with terminal(configured(tmp_path, broker), 2000) as one:
            wait("some rows", lambda: one.store.acked > 50)
            broker.stalls = True
            wait("a message on its way", lambda: any(message.rows for message in broker.sessions[0].waiting))
        assert broker.broken == []
        assert broker.arrived.online == {"ATM-0001": False}
        assert broker.arrived.mistakes == []
        assert len(broker.sessions) == 1


def test_a_day_that_is_not_yet_does_not_end_the_account(tmp_path: Path) -> None:
    """The clock was a year ahead, and its day was told."""
    account = ByteAccount(tmp_path / "traffic.json")
    account.add(7, 7, NOON, 0.0)
    account.told = account.day(NOON + 365 * 86_400_000)
    assert account.untold(NOON + 86_400_000) == account.day(NOON)
    account.told = account.day(NOON)
    assert account.untold(NOON + 86_400_000) == ""


def test_the_kernel_tells_what_a_connection_has_carried() -> None:
    server = socket.create_server(("127.0.0.1", 0))
    with server, socket.create_connection(server.getsockname()) as client, server.accept()[0] as other:
        client.sendall(b"x" * 10_000)
        other.sendall(b"y" * 20_000)
        there = 0
        while there < 20_000:
            there += len(client.recv(65536))
        found = of_kernel(client)
        assert found is not None, "this test is for Linux"
        assert found[0] > 10_000 + OVERHEAD
        assert found[1] > 20_000 + OVERHEAD
    assert of_kernel(client) is None, "a closed socket tells nothing"
    assert of_tcp_info(b"short") is None
    told = bytearray(208)
    struct.pack_into("=QII", told, 128, 1000, 3, 2)
    struct.pack_into("=Q", told, 200, 500)
    assert of_tcp_info(bytes(told)) == (500 + 3 * OVERHEAD, 1000 + 2 * OVERHEAD)


def test_the_account_is_by_day_and_month_and_outlives_the_agent(tmp_path: Path) -> None:
    account = ByteAccount(tmp_path / "traffic.json", utc_offset=480)
    late = NOON - NOON % DAY + DAY - 7 * 3_600_000
    account.add(1000, 100, NOON, 0.0)
    account.add(10, 1, late, 1.0)
    account.keep()
    again = ByteAccount(tmp_path / "traffic.json", utc_offset=480)
    assert again.of_day("2024-10-04") == (1000, 100)
    assert again.of_day("2024-10-05") == (10, 1), "its calendar is eight hours ahead"
    assert again.of_month("2024-10-31") == (1010, 101)
    assert again.of_month("2024-11-01") == (0, 0)
    for day in range(2 * DAYS):
        again.add(1, 1, NOON + day * DAY, 2.0)
    again.keep()
    assert len(json.loads((tmp_path / "traffic.json").read_bytes())["days"]) == DAYS


def test_the_account_is_written_seldom_and_a_damaged_one_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "traffic.json"
    account = ByteAccount(path)
    account.add(1, 1, NOON, 0.0)
    first = path.read_bytes()
    account.add(KEEP_BYTES - 10, 0, NOON, 1.0)
    assert path.read_bytes() == first
    account.add(10, 0, NOON, 2.0)
    assert path.read_bytes() != first
    for damage in (b"", b"[]", b'{"days": {"2024-10-04": 5}, "told": ""}', b'{"days": []}', b"\xff"):
        path.write_bytes(damage)
        assert ByteAccount(path).of_month("2024-10-04") == (0, 0)
    ByteAccount(tmp_path / "nowhere" / "traffic.json").add(1, 1, NOON, 0.0)


def test_near_the_budget_less_is_spent_and_the_next_month_begins_fresh(tmp_path: Path) -> None:
    account = ByteAccount(tmp_path / "traffic.json", budget=7_750_000)
    told = []
    for _ in range(12):
        told.append(account.saving(NOON))
        account.add(60_000, 40_000, NOON, 0.0)
    assert told == ["no"] * 8 + ["refresh"] * 2 + ["rows"] * 2, "four of the 31 days allow a million bytes"
    assert account.saving(NOON + DAY) == "rows"
    assert account.saving(NOON + 2 * DAY) == "refresh", "each day allows more"
    assert account.saving(NOON + 3 * DAY) == "no"
    account.add(20_000_000, 0, NOON, 0.0)
    assert account.saving(NOON + 27 * DAY) == "rows", "beyond the whole budget, too"
    assert account.saving(NOON + 28 * DAY) == "no"
    assert ByteAccount(tmp_path / "other", budget=0).saving(NOON) == "no"
    assert account.shown(NOON)["month"] == (20_720_000, 480_000)
    assert account.shown(NOON)["expected"] == 21_200_000 * 28, "if each of the 28 days until the 31st is like this"


def test_what_is_spent_less_never_touches_what_is_urgent() -> None:
    assert spent("no", 1.0, 60.0) == (1.0, 60.0, 6.0)
    assert spent("refresh", 1.0, 60.0) == (1.0, 600.0, 6.0)
    assert spent("rows", 1.0, 60.0) == spent("rows", 300.0, 3600.0) == (900.0, 3600.0, 3600.0)
    assert spent("refresh", 1.0, 3600.0) == (1.0, 3600.0, 6.0), "it is never more often than configured"
    delivery = Delivery(acked=0, linger=1.0)
    delivery.published("a", 1, 0.0)
    delivery.idle(0.0)
    delivery.spare(*spent("rows", 1.0, 60.0))
    delivery.news(False, 10.0)
    assert not delivery.rows_due(909.0)
    assert delivery.rows_due(910.0)
    assert delivery.stale_states([("a", 1)], 910.0) == [], "an unchanged state is not told again"
    assert delivery.stale_states([("a", 2)], 910.0) == [], "nor one whose change was told by its row"
    assert delivery.deadline() == 910.0
    delivery.idle(910.0)
    assert delivery.deadline() == 3600.0
    assert delivery.stale_states([("a", 2)], 3610.0) == ["a"]
    delivery.published("a", 2, 3610.0)
    delivery.news(False, 3610.5)
    delivery.told(3611.0)
    assert delivery.deadline() == 4510.5, "rows that wait do not make it look again all the time"
    delivery.news(True, 3615.0)
    assert delivery.rows_due(3615.0), "a fault goes at once"
    assert delivery.stale_states([("a", 3)], 3615.0) == [], "the state was told five seconds ago"
    assert delivery.stale_states([("a", 3)], 3620.0) == ["a"], "and is told again ten seconds after that"


def test_a_day_costs_little_as_it_is_configured_and_the_centre_learns_soon_what_matters(tmp_path: Path) -> None:
    """The aims of the line: 0.3 MB when nothing changes, 0.5 MB at two changes a minute; and what is saved is never
    the truth about a fault, a door, cash, or a terminal that is gone."""
    quiet = lived(tmp_path / "quiet", 0, hours=6)
    assert quiet.spent < 300_000
    busy = lived(tmp_path / "busy", 2, hours=6)
    assert busy.spent < 500_000
    assert busy.rows_late <= 300, "five minutes for what is not urgent"
    assert busy.states_late <= 1800
    urgent = lived(tmp_path / "urgent", 2, urgent=True, hours=1)
    assert urgent.rows_late == 0
    assert urgent.states_late <= AGAIN <= 10
    found = parse(b'[terminal]\norg = "a"\nid = "b"\ndata = "d"\n[broker]\nhost = "127.0.0.1"\n', tmp_path)
    assert found.broker
    assert 1.5 * found.broker.keepalive <= 300, "five minutes until the broker says that a terminal is lost"


def test_a_budget_holds_from_the_first_day_except_for_what_is_urgent(tmp_path: Path) -> None:
    """15 MB a month are 0.48 MB a day. The first day may already have cost more when the saving begins."""
    chatty = "linger = 1\nrefresh = 60\n"
    free = lived(tmp_path / "free", 2, chatty, hours=1)
    assert free.spent > 5_000_000, "without a budget, that is what it costs"
    first, second = lived(tmp_path / "chatty", 2, chatty + "budget = 15\n", hours=48).days
    assert first < 1_000_000
    assert second < 15_000_000 / 31 * 1.05
    tight = lived(tmp_path / "tight", 2, "budget = 10\n")
    assert tight.spent < 1.3 * 10_000_000 / 31, "the defaults do not need much saving"
    urgent = lived(tmp_path / "urgent", 2, "budget = 1\n", urgent=True, hours=2)
    assert urgent.spent > 1_000_000 / 31
    assert urgent.rows_late == 0
    assert urgent.states_late <= AGAIN


def test_yesterdays_account_is_published_once_and_stays(tmp_path: Path) -> None:
    with hostile() as broker:
        config = configured(tmp_path, broker, budget=2.0)
        config.terminal.data.mkdir()
        account = ByteAccount(config.terminal.data / "traffic.json", 2_000_000, config.terminal.utc_offset)
        account.add(900_000, 800_000, NOON, 0.0)
        account.keep()
        told = []
        for _ in range(2):
            with terminal(config, 1) as one:
                wait("the row", one.delivered)
                assert one.uplink.traffic()["day"][0] > 0, "today's is counted, too"
            told.append(broker.arrived.traffic.pop("ATM-0001", None))
        first, again = told
        assert first is not None
        assert again is None
        assert (first["day"], first["day_up"], first["down"]) == ("2024-10-04", 900_000, 800_000)
        assert first.get("saving", "no") == "no"
        assert first["budget"] == 2_000_000
        validator("Traffic").validate(first)


def test_a_budget_is_not_negative(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"uplink\.budget"):
        parse(b'[terminal]\norg = "a"\nid = "b"\ndata = "d"\n[uplink]\nbudget = -1\n', tmp_path)
