"""What becomes of an order that is handed over: what is counted, what waits, and who may open it."""

import json
import math
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from agent.crypto.ed25519 import SigningKey
from agent.crypto.holdings import Row
from agent.crypto.orders import Order
from agent.crypto.signing import ORDER, Envelope, Keyring, Signer
from agent.crypto.steps import Login, State
from agent.errors import ControlError
from agent.keys.orderdesk import CHANGES, WAITED_FOR, OrderDesk, waiting_orders
from agent.people.peer import Peer
from agent.ration import MINUTE, Tally
from agent.timepiece import wall_ms
from tests.ceremonies import SITE, order
from tests.conductor import Stage, begun, destroy_today, today

SIGNERS = {role: SigningKey.generate() for role in ("maker", "checker")}
KEYRING = Keyring(Signer(f"hq-{role}", key.public, frozenset({role})) for role, key in SIGNERS.items())
ANYBODY = Peer(1000, "7")


class Desk:
    """A desk at a conductor whose thread does nothing but what the desk asks of it."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.stop, self.spoiled = stage, threading.Event(), list[str]()
        self.desk = OrderDesk(
            SITE.terminal, stage.conducting, KEYRING, lambda: 0, lambda: None, self.spoiled.append
        )
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while not self.stop.is_set():
            self.stage.conducting.drain(0.02)

    def close(self) -> None:
        self.stop.set()
        self.thread.join()

    def take(self, what: Order | str) -> None:
        text = what
        if isinstance(what, Order):
            envelope = Envelope(ORDER, json.dumps(what.document()).encode())
            for key in SIGNERS.values():
                envelope = envelope.signed(key)
            text = envelope.text.decode()
        list(self.desk.take({"text": text}, ANYBODY))

    def applied(self, order: str, *, withdrawn: bool = False) -> None:
        list(self.desk.applied({"order": order, "withdrawn": withdrawn}, ANYBODY))

    def begin(self, login: Login, named: str = "") -> list[str]:
        return [tell.word for tell in self.stage.conducting.call(self.desk.open(named, login))]

    def rows(self, event: str) -> list[Row]:
        return [row for row in self.stage.conducting.rows if row["event"] == event]

    def waiting(self) -> list[str]:
        conducting = self.stage.conducting
        return [row["order"] for row in conducting.call(lambda: waiting_orders(conducting, conducting.held()))]


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk(Stage().ready())
    yield made
    made.close()


def test_a_word_is_told_at_once_and_then_once_a_minute_with_its_count() -> None:
    tally, told = Tally[str](), []
    for second in range(151):
        told += [(second, "a", 1)] if tally.take("a", float(second)) else []
        told += [(second, *due) for due in tally.due(float(second))]
    assert told == [(0, "a", 1), (60, "a", 60), (120, "a", 60)]
    assert tally.take("b", 151.0), "another word is another matter"
    assert tally.due(120 + MINUTE) == [("a", 30)]
    assert tally.due(1000.0) == []
    assert tally.take("a", 1000.0)
    assert not tally.take("a", 1001.0)
    assert tally.due(math.inf) == [("a", 1)], "what is not due yet is told at the end"


def test_what_anybody_hands_over_a_thousand_times_is_one_row(desk: Desk) -> None:
    for _ in range(1000):
        with pytest.raises(ControlError, match="not a signed envelope"):
            desk.take("x")
    assert [(row["reason"], row["count"]) for row in desk.rows("refused")] == [("not_valid", 1)]


def test_an_order_that_nobody_signed_spoils_nothing_for_its_digest_and_a_component_in_it_does(desk: Desk) -> None:
    unsigned = {"id": "KO-7", "block": "ab" * 32}
    with pytest.raises(ControlError, match="refused"):
        desk.take(json.dumps(unsigned))
    assert not desk.spoiled
    with pytest.raises(ControlError, match="spoiled"):
        desk.take(json.dumps({**unsigned, "part": "0123 4567 89AB CDEF"}))
    assert desk.spoiled == ["file"]


def test_what_is_not_told_yet_is_told_when_the_agent_is_stopped(desk: Desk) -> None:
    for _ in range(3):
        with pytest.raises(ControlError, match="not a signed envelope"):
            desk.take("x")
    desk.stage.conducting.call(desk.stage.conducting.part)
    assert [row["count"] for row in desk.rows("refused")] == [1, 2]


def test_what_is_asked_for_and_withdrawn_in_turn_does_not_fill_the_disk(desk: Desk) -> None:
    for _ in range(CHANGES // 2):
        desk.applied("KO-1")
        desk.applied("KO-1", withdrawn=True)
    for withdrawn in (False, True):
        with pytest.raises(ControlError, match=r"within a day is enough|nobody waits"):
            desk.applied("KO-1", withdrawn=withdrawn)
    assert len(desk.rows("applied") + desk.rows("withdrawn")) == CHANGES


def test_no_more_than_a_hundred_keys_are_waited_for_and_each_is_one_row(desk: Desk) -> None:
    for n in range(WAITED_FOR):
        desk.applied(f"KO-{n}")
        desk.applied(f"KO-{n}")
    with pytest.raises(ControlError, match="are waited for"):
        desk.applied("KO-X")
    assert len(desk.rows("applied")) == WAITED_FOR
    desk.applied("KO-1", withdrawn=True)
    desk.applied("KO-X")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"role": "operator"}, "role_missing"),
        ({"group": "G9"}, "wrong_group"),
        ({"person": "李"}, "malformed_login"),
        ({"person": "sun"}, "locked"),
    ],
)
def test_whoever_could_not_take_part_does_not_use_an_order_up(
    desk: Desk, changes: dict[str, str], word: str
) -> None:
    desk.stage.conducting.record("login", person="sun", result="locked")
    desk.take(today())
    login = desk.stage.login("li")
    assert desk.begin(replace(login, **changes), "ORD-1") == [word]
    assert desk.stage.state() is State.IDLE
    assert desk.waiting() == ["ORD-1"]
    assert desk.rows("opened") == []
    assert desk.begin(login, "ORD-1") == ["opened"]
    assert desk.waiting() == []


def test_another_order_under_the_same_id_is_refused_and_the_same_one_is_not(desk: Desk) -> None:
    first = today()
    desk.take(first)
    desk.take(first)
    with pytest.raises(ControlError, match="another order came under this id"):
        desk.take(replace(first, version=7))
    assert [row["document"] for row in desk.rows("received")] == [first.document()]
    assert [row["reason"] for row in desk.rows("refused")] == ["same_id"]


def test_an_order_that_waits_is_not_opened_once_a_signers_key_does_not_count(desk: Desk) -> None:
    desk.take(today())
    others = [Signer("hq-maker", SIGNERS["maker"].public, frozenset({"maker"}))]
    others += [Signer("hq-checker", SigningKey.generate().public, frozenset({"checker"}))]
    desk.desk._keyring = Keyring(others)
    assert desk.begin(desk.stage.login("li"), "ORD-1") == ["signer_gone"]
    assert (desk.stage.state(), desk.waiting()) == (State.IDLE, ["ORD-1"])
    desk.desk._keyring = KEYRING
    assert desk.begin(desk.stage.login("li"), "ORD-1") == ["opened"]


def test_an_order_that_is_signed_anew_by_those_who_count_waits_in_place_of_the_old_one(desk: Desk) -> None:
    first, anew = today(), SigningKey.generate()
    desk.take(first)
    desk.desk._keyring = Keyring(
        Signer(name, key.public, frozenset({role}))
        for name, key, role in (("hq-new", anew, "maker"), ("hq-checker", SIGNERS["checker"], "checker"))
    )
    assert desk.begin(desk.stage.login("li")) == ["signer_gone"]
    envelope = Envelope(ORDER, json.dumps(first.document()).encode()).signed(anew).signed(SIGNERS["checker"])
    for _ in range(2):
        desk.take(envelope.text.decode())
    assert [row["signers"] for row in desk.rows("received")] == [
        ["hq-maker", "hq-checker"],
        ["hq-new", "hq-checker"],
    ]
    assert desk.waiting() == ["ORD-1"]
    assert desk.begin(desk.stage.login("li")) == ["opened"]
    assert desk.rows("opened")[0]["signers"] == ["hq-new", "hq-checker"]


def test_an_order_that_has_expired_waits_no_longer(desk: Desk) -> None:
    now = wall_ms()
    desk.take(today())
    desk.take(order(id="ORD-2", not_before=now - 2000, not_after=now - 1000))
    assert desk.waiting() == ["ORD-1"]
    login = desk.stage.login("li")
    assert desk.begin(login, "ORD-2") == ["expired"]
    assert desk.begin(login) == ["opened"], "the other one is the only one"


@pytest.mark.parametrize("named", ["", "ORD-D"])
def test_a_receipt_that_cannot_be_made_keeps_no_other_order_waiting(named: str) -> None:
    desk = Desk(begun(State.RECEIPT))
    try:
        desk.take(destroy_today())
        assert desk.begin(desk.stage.login("li"), named) == ["opened"]
        assert [row["receipt"] for row in desk.rows("closed")] == [""]
        assert desk.rows("aborted") == []
        assert desk.stage.conducting.ceremony.order.id == "ORD-D"
    finally:
        desk.close()


def test_papers_that_are_not_signed_for_do(desk: Desk) -> None:
    desk.stage.load(today(), State.DESTROY)
    desk.take(destroy_today())
    assert desk.begin(desk.stage.login("li"), "ORD-D") == ["not_now"]
    assert desk.stage.state() is State.DESTROY
