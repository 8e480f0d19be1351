"""What a terminal tells the centre: reports and results, before rows and until the broker has them; and what it has
shown of a broker that took them."""

import json
import time
from pathlib import Path

import pytest

from agent import messages
from agent.centre.fleet import Fleet
from agent.errors import UplinkError
from agent.messages import Result, compact, too_large, topic
from agent.mqtt.outbox import LARGEST as LARGEST_LETTER
from agent.mqtt.outbox import MOST as MOST_LETTERS
from agent.mqtt.outbox import Outbox
from hwsim.subscriber import Account
from tests.hostile_broker import Message, Session, hostile
from tests.test_docs import validator
from tests.uplinks import Terminal, settings, terminal
from tests.whole import wait

OWN = "tillwire/v1/coop/ATM-0001/"


def result(name: str) -> bytes:
    return messages.compact(messages.Result(at=1, id=name, command="counters", outcome="done"))


def report(version: int) -> bytes:
    return messages.compact(messages.Reported(at=1, version=version, outcome="committed", config="c"))


def test_proven_is_when_what_the_broker_has_taken_was_sent(tmp_path: Path) -> None:
    """So a PUBACK that comes now, of something sent before, says nothing about what is so since."""
    held: list[tuple[Session, Message]] = []

    def behave(session: Session, message: Message) -> None:
        if message.rows:
            held.append((session, message))
        else:
            session.ack(message)

    with hostile(behave=behave) as broker, terminal(settings(tmp_path, broker.port), 1) as one:
        wait("the row", lambda: held)
        moment = time.monotonic()
        held[0][0].ack(held[0][1])
        wait("its PUBACK", one.delivered)
        assert one.uplink.proven < moment
        one.uplink.tell("command/result", result("one"), retain=False)
        wait("the later PUBACK", lambda: one.uplink.proven > moment)


def test_what_is_told_comes_before_rows_and_again_until_the_broker_has_it(tmp_path: Path) -> None:
    order: list[tuple[int, str, bytes, bool]] = []

    def behave(session: Session, message: Message) -> None:
        suffix = message.topic.removeprefix(OWN)
        order.append((session.number, suffix, message.payload, message.retain))
        if session.number == 0 and suffix == "command/result":
            session.cut()
        elif session.number == 1 and suffix == "command/result" and message.payload == result("two"):
            session.ack(message, 0x87)
        else:
            session.ack(message)

    with hostile(lambda session: session.accept(receive_maximum=1), behave) as broker:
        outbox = Outbox()
        for version in (1, 2):
            outbox.put("config/reported", report(version), retain=True)
        one = Terminal(settings(tmp_path, broker.port), 1, outbox)
        try:
            wait("the row", one.delivered)
            for name in ("one", "two", "three"):
                one.uplink.tell("command/result", result(name), retain=False)
            wait("the third", lambda: order[-1][2] == result("three"))
            one.commit(1)
            wait("the row", one.delivered)
            assert one.says("does not take command/result", "access list")
            assert [told for told in order if told[1] != "ledger" and told[1] != "session"] == [
                (0, "config/reported", report(2), True),
                (0, "command/result", result("one"), False),
                (1, "command/result", result("one"), False),
                (1, "command/result", result("two"), False),
                (1, "command/result", result("three"), False),
            ]
            first = [suffix for number, suffix, *_ in order if number == 0]
            assert first[:3] == ["session", "config/reported", "ledger"]
            assert len(broker.sessions) == 2
        finally:
            one.close()
        assert broker.broken == []


def test_of_an_answer_that_the_broker_cannot_take_its_sender_hears(tmp_path: Path) -> None:
    box = Outbox(too_large)
    for part in (1, 2):
        answer = Result(at=1, id="K-7", command="diagnostics", outcome="done", data="x" * 900, part=part, parts=2)
        box.put("command/result", compact(answer), retain=False)
    fleet = Fleet("coop", "K-7")
    while letter := box.next(500):
        fleet.take(topic("coop", "ATM-1", letter.suffix), letter.payload)
        box.sent(letter, 1)
        box.taken(1)
    result = fleet.terminals["ATM-1"].result
    assert result
    assert (result.outcome, result.command, result.data) == ("failed", "diagnostics", "")
    assert "larger than what the broker takes" in result.detail
    assert box.lost == 0


def test_the_outbox_is_bounded(tmp_path: Path) -> None:
    box = Outbox()
    with pytest.raises(UplinkError, match="in parts"):
        box.put("command/result", bytes(LARGEST_LETTER + 1), retain=False)
    for number in range(MOST_LETTERS + 3):
        box.put("command/result", b"%d" % number, retain=False)
    assert box.lost == 3
    first = box.next(LARGEST_LETTER)
    assert first is not None
    assert first.payload == b"3", "the oldest are given up"
    box.sent(first, 7)
    box.put("config/reported", b"large" * 100, retain=True)
    assert box.next(400) is not None
    assert box.lost == 5, "one was on its way, and one is too large for this broker"
    box.begin()
    again = box.next(LARGEST_LETTER)
    assert again is not None
    assert again.payload == b"4"


def test_a_stranger_understands_what_is_told_and_what_is_sent() -> None:
    account = Account()
    told = messages.Reported(at=1, version=7, outcome="rolled_back", reason="silent", config="c")
    assert account.take(f"{OWN}config/reported", messages.compact(told), 1.0) == [
        "ATM-0001 reports configuration 7: rolled_back: silent"
    ]
    assert account.reported["ATM-0001"]["version"] == 7
    answer = messages.Result(at=1, id="i", command="counters", outcome="done")
    assert account.take(f"{OWN}command/result", messages.compact(answer), 1.0) == [
        "ATM-0001 answers counters: done"
    ]
    for kind in messages.HEARD:
        assert "is sent a" in account.take(OWN + kind, b"\xff is not ours to open", 1.0)[0]
    assert account.take(f"{OWN}config/desired", b"", 1.0) == ["config/desired of ATM-0001 is taken away"]
    assert account.mistakes == []
    assert json.loads(messages.compact(told)).keys() == {"at", "version", "outcome", "reason", "config"}
    for message in (told, answer):
        validator(type(message).__name__).validate(json.loads(messages.compact(message)))
