"""What a terminal hears from the centre, over brokers that are right, wrong and hostile: only what is its own, and
bounded; what hinders that never stops a row; and with MQTT 3.1.1 no row counts that a broker drops."""

import logging
import os
import resource
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent import messages, uplink
from agent.config import Config, Tls
from agent.diagnose import collect
from agent.errors import UplinkError
from agent.mqtt.connection import BESIDE, CHUNK, LARGEST, MOST, Connection
from agent.tls import context
from tests.authority import Authority
from tests.hostile_broker import HostileBroker, Message, Session, hostile
from tests.uplinks import Mosquitto, Terminal, centre, settings, terminal
from tests.whole import wait

BOTH = pytest.mark.parametrize("protocol", ["5", "3.1.1"])
OWN = "tillwire/v1/coop/ATM-0001/"
DESIRED, COMMAND = f"{OWN}config/desired", f"{OWN}command"
SIGNERS = 'signers = "signers.toml"'


def configured(folder: Path, broker: HostileBroker, protocol: str = "5", push: str = SIGNERS) -> Config:
    config = settings(folder, broker.port, f'protocol = "{protocol}"', push=push)
    return config.model_copy(update={"uplink": config.uplink.model_copy(update={"refused": 0.1})})


def connected(folder: Path, broker: HostileBroker, protocol: str) -> Connection:
    """A connection that listens to its configuration, and the broker's side of it is the last session."""
    config = configured(folder, broker, protocol)
    assert config.broker is not None
    one = Connection(config.broker, config.broker.addresses[0], "ATM-0001", None)
    one.open(threading.Event())
    one.subscribe([DESIRED])
    turns(one, lambda: bool(one.events))
    assert one.events.popleft()[0] == "subscribed"
    return one


def turns(one: Connection, done: Callable[[], bool]) -> None:
    """Turn it until something is so."""
    end = time.monotonic() + 20.0
    while not done():
        assert time.monotonic() < end
        one.turn(0.05)


@BOTH
def test_what_is_too_large_too_much_or_a_strangers_is_dropped_and_counted(tmp_path: Path, protocol: str) -> None:
    with hostile() as broker:
        one = connected(tmp_path, broker, protocol)
        session = broker.sessions[0]
        assert session.limit == (LARGEST + BESIDE if protocol == "5" else 0), "a broker of MQTT 5 is told"
        threading.Thread(target=session.say, args=(DESIRED, bytes(10_000_000)), daemon=True).start()
        turns(one, lambda: one.dropped == 1)
        session.say(DESIRED, bytes(LARGEST + 1))
        session.say(f"{OWN}config/desire", b"another topic")
        session.say("tillwire/v1/coop/ATM-0002/config/desired", b"another terminal")
        session.say(DESIRED, b"of QoS 0, retained", qos=0, retain=True)
        session.say(DESIRED, bytes(LARGEST))
        turns(one, lambda: len(one.events) == 2)
        assert one.dropped == 4
        assert [content for _, content in one.events] == [
            (DESIRED, b"of QoS 0, retained", True),
            (DESIRED, bytes(LARGEST), False),
        ]
        for number in range(MOST + 8):
            session.say(DESIRED, b"%d" % number)
        turns(one, lambda: one.dropped == 4 + 10)
        assert len(one.events) == MOST
        turns(one, lambda: session.answered == 4 + 1 + MOST + 8)
        for number in range(MOST + 2):
            session.say(DESIRED, b"x", mid=number + 1, qos=2)
        with pytest.raises(UplinkError, match="QoS 2"):
            turns(one, lambda: False)
        one.cut()


@BOTH
def test_a_packet_that_is_too_large_does_not_fill_the_memory_while_it_arrives(
    tmp_path: Path, protocol: str
) -> None:
    with hostile() as broker:
        one = connected(tmp_path, broker, protocol)
        head = (
            struct.pack(">H", len(DESIRED)) + DESIRED.encode() + b"\x00\x01" + (b"\0" if protocol == "5" else b"")
        )
        announced = b"\x32\xff\xff\xff\x7f" + head  # 256 MB, as many as MQTT knows
        threading.Thread(target=broker.sessions[0].send, args=(announced + bytes(8_000_000),), daemon=True).start()
        held = one._client._in_packet
        turns(
            one, lambda: held["have_remaining"] == 1 and held["remaining_length"] - held["to_process"] > 7_900_000
        )
        assert LARGEST < len(held["packet"]) <= LARGEST + BESIDE + CHUNK
        one.cut()


@BOTH
def test_the_terminal_listens_before_its_birth_and_hears_what_comes_before_the_suback(
    tmp_path: Path, protocol: str
) -> None:
    order: list[str] = []

    def grant(session: Session, mid: int, topics: list[str]) -> None:
        order.extend(topic.removeprefix(OWN) for topic in topics)
        if DESIRED in topics:
            session.say(DESIRED, b"early", retain=True)
        session.grant(mid, topics)

    def behave(session: Session, message: Message) -> None:
        order.append(message.topic.removeprefix(OWN))
        session.ack(message)

    with hostile(behave=behave) as broker:
        broker.grant = grant
        with terminal(configured(tmp_path, broker, protocol)) as one:
            wait("the rows", one.delivered)
            wait("the message", lambda: one.heard)
            broker.sessions[0].say(COMMAND, b"late")
            wait("the command", lambda: len(one.heard) == 2)
            assert one.uplink.inbox
            assert one.uplink.inbox.deaf == ""
        assert one.heard == [("config/desired", b"early"), ("command", b"late")]
        own = ["ledger"] if protocol == "3.1.1" else []
        assert order[: 5 + len(own)] == [*messages.HEARD, *own, "session", "ledger"]
        assert len(broker.sessions) == 1
        assert broker.broken == []


def test_without_the_table_push_nothing_is_subscribed_to(tmp_path: Path) -> None:
    with hostile() as broker:
        with terminal(configured(tmp_path, broker, push="")) as one:
            wait("the rows", one.delivered)
            broker.sessions[0].say(DESIRED, b"unasked")
            wait("its PUBACK", lambda: broker.sessions[0].answered)
        assert one.heard == []
        assert broker.sessions[0].listens == set()


@BOTH
def test_a_flood_stops_no_row_and_a_message_of_10_mb_no_other(tmp_path: Path, protocol: str) -> None:
    with hostile() as broker, terminal(configured(tmp_path, broker, protocol)) as one:
        wait("the rows", one.delivered)

        def flood() -> None:
            broker.sessions[0].say(DESIRED, bytes(10_000_000))
            for number in range(600):
                topic = COMMAND if number % 2 else f"tillwire/v1/coop/ATM-0002/{number}"
                broker.sessions[0].say(topic, b"%d" % number)

        threading.Thread(target=flood, daemon=True).start()
        for _ in range(5):
            one.commit(100)
            wait("the rows", one.delivered)
        wait("the last", lambda: ("command", b"599") in one.heard)
        assert [content for _, content in one.heard] == [b"%d" % number for number in range(1, 600, 2)]
        assert len(broker.sessions) == 1
        assert broker.arrived.mistakes == []


def test_what_is_heard_may_fail_and_what_is_malformed_ends_one_connection_only(tmp_path: Path) -> None:
    malformed = [b"\x32\x05\x00\x03\xff\xfe\xfd", b"\x36\x02\x00\x00", b"\x32\x00", b"\x32\x04\x00\x00\x00\x01"]
    malformed += [b"\x32\x07\x00\x01a\x00\x01\x7f\x01", b"\x90\x02\x00\x01", b"\x90\x04\x00\x01\x00\x99"]
    malformed += [b"\x62\x01\x00"]

    def grant(session: Session, mid: int, topics: list[str]) -> None:
        session.grant(mid, topics)
        if session.number < len(malformed):
            session.send(malformed[session.number])
            session.cut()

    with hostile() as broker:
        broker.grant = grant
        one = Terminal(configured(tmp_path, broker), 3)
        try:
            wait("the rows", one.delivered)
            session = broker.sessions[-1]
            one.heard = None  # type: ignore[assignment]  # what it hears cannot be taken in
            session.say(COMMAND, b"1")
            wait("its PUBACK", lambda: session.answered == 1)
            one.heard = []
            session.say(COMMAND, b"2")
            wait("the next", lambda: one.heard == [("command", b"2")])
            assert session is broker.sessions[-1]
        finally:
            one.close()


@pytest.mark.parametrize(("protocol", "code"), [("5", 0x87), ("5", 0x80), ("3.1.1", 0x80)])
def test_a_subscription_that_is_refused_is_said_once_and_stops_nothing(
    tmp_path: Path, protocol: str, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    def grant(session: Session, mid: int, topics: list[str]) -> None:
        session.grant(mid, topics, code if DESIRED in topics else 0)

    with caplog.at_level(logging.INFO), hostile() as broker:
        broker.grant = grant
        with terminal(configured(tmp_path, broker, protocol)) as one:
            for _ in range(3):
                wait("the rows", one.delivered)
                wait("the refusal", lambda: one.says("does not let it hear", "correct the broker's access list"))
                broker.sessions[-1].cut()
                one.commit(2)
            wait("the rows", one.delivered)
            wait("the refusal", lambda: one.uplink.hindrance)
            assert one.uplink.connected
            assert one.uplink.inbox
            assert "correct the broker's access list" in one.uplink.inbox.deaf
            live = {"uplink": one.uplink.status, "hindrance": one.uplink.hindrance}
            facts = {fact.label: fact for section in collect(None, live, None) for fact in section.facts}
            assert facts["pushes"].verdict == "bad"
            assert "config/desired" in facts["pushes"].value
            assert "access list" in facts["pushes"].next
        assert len([r for r in caplog.records if "does not let it hear" in r.message]) == 1


@BOTH
def test_a_broker_that_never_answers_a_subscription(
    tmp_path: Path, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With MQTT 5 rows go on; with 3.1.1 nothing shows that they would arrive, so they stay."""
    monkeypatch.setattr(uplink, "PATIENCE", 0.2)
    with hostile() as broker:
        broker.grant = lambda *_: None
        with terminal(configured(tmp_path, broker, protocol)) as one:
            if protocol == "5":
                wait("the rows", one.delivered)
                wait(
                    "the sentence",
                    lambda: one.says("does not answer when it wants to hear", "see the broker's log"),
                )
                assert len(broker.sessions) == 1
                assert one.uplink.inbox
                assert "does not answer" in one.uplink.inbox.deaf
            else:
                wait("the sentence", lambda: one.says("does not answer", "write and to read"))
                wait("another attempt", lambda: len(broker.sessions) > 1)
                assert one.store.acked == 0
                assert broker.arrived.rows == {}


def test_with_3_1_1_no_row_counts_before_the_first_batch_has_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor when something else comes back; a second batch is not even sent. And at each connection anew."""
    monkeypatch.setattr(uplink, "PATIENCE", 0.3)

    def behave(session: Session, message: Message) -> None:
        session.ack(message)
        if message.rows and not broker.echoes:
            session.say(message.topic, message.payload.replace(b"row", b"raw"), qos=0)

    def grant(session: Session, mid: int, topics: list[str]) -> None:
        session.grant(mid, topics, 0x80 if session.number == 0 else 0)

    with hostile(behave=behave) as broker:
        broker.echoes, broker.grant = False, grant
        with terminal(configured(tmp_path, broker, "3.1.1", push=""), 60) as one:
            wait("the refusal", lambda: one.says("does not pass them on"))
            wait("another attempt", lambda: len(broker.sessions) > 3)
            assert one.store.acked == 0
            assert one.uplink.proven == float("-inf"), "a birth that is acknowledged proves nothing"
            first = {seq for _, _, seq in broker.arrived.rows}
            assert max(first) < 60, "what must come back is small"
            broker.echoes = True
            wait("the rows", one.delivered)
            wait("an end of listening", lambda: broker.sessions[-1].listens == set())
            assert one.uplink.proven > 0
            assert broker.arrived.mistakes == []
            broker.echoes, before = False, one.store.acked
            broker.sessions[-1].cut()
            one.commit(1)
            wait("the refusal", lambda: one.says("does not pass them on"))
            assert one.store.acked == before


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    authority = Authority(tmp_path_factory.mktemp("pki"))
    for file, name in (("broker", "localhost"), ("centre", "centre"), ("atm", "ATM-0001")):
        authority.sign(file, name, "DNS:localhost", "IP:127.0.0.1")
    return authority


def certified(good: Authority) -> str:
    return f'ca = "{good.ca}"\ncertificate = "{good.folder}/atm.pem"\nkey = "{good.folder}/atm.key"\n'


@pytest.mark.peer("mosquitto", "openssl")
@BOTH
def test_a_real_broker_carries_it_both_ways_and_keeps_what_is_retained(
    tmp_path: Path, protocol: str, good: Authority
) -> None:
    broker = Mosquitto(tmp_path / "broker", good)
    ours = certified(good)
    theirs = Tls(ca=good.ca, certificate=good.folder / "centre.pem", key=good.folder / "centre.key")
    config = settings(tmp_path, broker.port, f'protocol = "{protocol}"', tls=ours, push=SIGNERS)
    try:
        with centre(broker, good) as heard:
            with terminal(config) as one:
                wait("the rows", one.delivered)
                assert config.broker is not None
                speaker = Connection(config.broker, config.broker.addresses[0], "speaker", context(theirs))
                speaker.open(threading.Event())
                for suffix, retain in (("config/desired", True), ("trust/desired", True), ("command", False)):
                    speaker.publish(f"{OWN}{suffix}", b"7", retain)
                turns(speaker, lambda: len(speaker.events) == 3)
                speaker.close()
                wait("all three", lambda: len(one.heard) == 3)
                one.uplink.tell("config/reported", b'{"outcome":"committed"}', retain=True)
                wait("the report", lambda: ("ATM-0001/config/reported", {"outcome": "committed"}) in heard)
            with terminal(config) as again:
                wait("the retained", lambda: len(again.heard) == 2)
                again.commit(1)
                wait("the rows", again.delivered)
                assert {kind for kind, _ in again.heard} == {"config/desired", "trust/desired"}
    finally:
        broker.stop()


@pytest.mark.peer("mosquitto", "openssl")
def test_a_terminal_with_more_than_1023_open_files_delivers(tmp_path: Path, good: Authority) -> None:
    """`select` cannot watch a descriptor above that."""
    most, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit < 1200:
        pytest.skip("this machine does not allow so many")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(most, 1200), limit))
    broker, crowd = Mosquitto(tmp_path / "broker", good), [os.open(os.devnull, os.O_RDONLY)]
    try:
        while crowd[-1] <= 1023:
            crowd.append(os.dup(crowd[0]))
        with terminal(settings(tmp_path, broker.port, tls=certified(good), push=SIGNERS)) as one:
            wait("the rows", one.delivered)
    finally:
        for each in crowd:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, limit))
        broker.stop()
