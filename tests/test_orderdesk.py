"""What becomes of an order that is handed over: what is counted, what waits, and who may open it."""

import json
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
from agent.orderdesk import MINUTE, WAITED_FOR, OrderDesk, Tally, waiting_orders
from agent.peer import Peer
from agent.timepiece import wall_ms
from tests.ceremonies import SITE, order
from tests.conductor import Stage, begun, destroy_today, today

SIGNERS = {role: SigningKey.generate() for role in ("maker", "checker")}
KEYRING = Keyring(Signer(f"hq-{role}", key.public, frozenset({role})) for role, key in SIGNERS.items())
ANYBODY = Peer(1000, "7")


class Desk:
    """A desk at a conductor whose thread does nothing but what the desk asks of it."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.stop = stage, threading.Event()
        self.desk = OrderDesk(SITE.terminal, stage.conducting, KEYRING, lambda: 0, lambda: None, lambda where: None)
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
    tally, told = Tally(), []
    for second in range(151):
        tally.add("a")
        told += [(second, *due) for due in tally.due(float(second))]
    tally.add("b")
    told += [(151, *due) for due in tally.due(151.0)]
    assert told == [(0, "a", 1), (60, "a", 60), (120, "a", 60), (151, "b", 1)]
    assert tally.due(120 + MINUTE) == [("a", 30)]
    assert tally.due(1000.0) == []


def test_what_anybody_hands_over_a_thousand_times_is_one_row(desk: Desk) -> None:
    for _ in range(1000):
        with pytest.raises(ControlError, match="not a signed envelope"):
            desk.take("x")
    assert [(row["reason"], row["count"]) for row in desk.rows("refused")] == [("not_valid", 1)]


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
