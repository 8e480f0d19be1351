"""Whatever people, devices, clocks and restarts do, in any order, the rules of a ceremony hold.

`advance` does the right next step, so that a run comes far; before each it lets somebody try who may be the wrong
one, and one answer of the device may be to something else. Every other rule does something that may be wrong. The
model keeps its own book of who did what, and compares it with what the ceremony let happen (hypothesis, stateful).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent.crypto import steps
from agent.crypto.holdings import fold
from agent.crypto.orders import Order
from agent.crypto.steps import Action, Answer, Ask, Event, Login, Record, State
from tests.ceremonies import (
    BLOCK,
    DIGEST,
    FIT,
    HEADER,
    KEY_PARTS,
    PEOPLE,
    SITE,
    WALL,
    Epp,
    Terminal,
    block_order,
    destroy_order,
    kcv,
    order,
    whole,
)

NAMES = st.sampled_from(list(PEOPLE))
OLD = ("loaded", 0x77)
ORDERS: list[tuple[Order, dict[str, tuple[str, int]]]] = [
    (order(), {}),
    (order(count=3), {}),
    (order(replaces="TMK"), {"TMK": OLD}),
    (order(replaces="OLD"), {"OLD": OLD}),
    (order(kind="compromise", compromised=["TMK", "TPK"]), {"TMK": OLD, "TPK": OLD}),
    (block_order(slot="TMK", under="KEK", exceptions=["unrecorded_kek"]), {"KEK": OLD}),
    (destroy_order(kcv=kcv(OLD[1])), {"TMK": OLD}),
]
CHANGES: list[dict[str, Any]] = [
    {},
    {"credential": "key-li"},
    {"group": "G1"},
    {"group": "G2"},
    {"role": "key-manager"},
    {"session": "s-li"},
    {"session": "s-9"},
    {"login": "login-1"},
    {"terminal": "ATM-9"},
]
SLIP = st.tuples(NAMES, st.sampled_from(CHANGES))
"""Who tries a step before the right person does it."""
FAILURES = (("failed", "hardwareError"), ("refused", "busy"), ("unanswered", ""))


def missing(book: list[Login]) -> str:
    """Who comes next, of those who are not in this book."""
    here = {login.person for login in book}
    return next((name for name in PEOPLE if name not in here), "li")


class CeremonyMachine(RuleBasedStateMachine):
    """One terminal, one order at a time; `typed`, `confirmed` and `proved` are the model's own book."""

    @initialize(which=st.sampled_from(ORDERS), ahead=st.integers(0, 20), slip=SLIP, another=st.integers(1, 20))
    def begin(
        self,
        which: tuple[Order, dict[str, tuple[str, int]]],
        ahead: int,
        slip: tuple[str, dict[str, Any]],
        another: int,
    ) -> None:
        self.order, slots = which
        self.terminal = Terminal(Epp(dict(slots)), answer=False)
        self.clear_book()
        self.ready = False
        self.answers, self.another = 0, another
        self.advance(ahead, slip)

    def take(self, login: Login, book: list[Login]) -> None:
        """A step was let happen with this login: it is written down, if it was this person's to do."""
        assert login.login not in self.used, "each step has a login of its own"
        assert login.terminal == SITE.terminal
        if book is self.joined:
            others = self.joined
            for unique in ("person", "credential", "group", "session"):
                assert getattr(login, unique) not in {getattr(other, unique) for other in others}
        else:
            who = next(other for other in self.joined if other.person == login.person)
            assert (login.credential, login.group, login.role) == (who.credential, who.group, who.role)
            assert login.session not in {o.session for o in self.joined if o.person != login.person}
            assert login.person not in {other.person for other in book}
        self.used.add(login.login)
        book.append(login)

    def clear_book(self) -> None:
        self.typed: list[Login] = []
        self.joined: list[Login] = []
        self.confirmed: list[Login] = []
        self.signed: list[Login] = []
        self.used: set[str] = set()
        self.proved = False

    def send(self, event: Event) -> list[Action]:
        return self.judge(self.terminal.do(event))

    def judge(self, actions: list[Action]) -> list[Action]:
        rows = [action.row for action in actions if isinstance(action, Record)]
        if any(row["event"] == "aborting" for row in rows):
            first = actions[0]
            assert isinstance(first, Ask)
            assert (first.verb, first.arguments["slot"]) == ("key_delete", self.order.slot)
        for place, action in enumerate(actions):
            if isinstance(action, Ask) and place:
                before = actions[place - 1]
                assert isinstance(before, Record)
                assert before.row["id"] == action.id, "what is asked is in the ledger before it is asked"
        changed = [row["event"] for row in rows if row.get("cause") == "serial_changed"]
        if "tampered" in changed:
            # Whatever was asked before the other EPP was seen, nothing is asked after it.
            at = next(n for n, a in enumerate(actions) if isinstance(a, Record) and a.row["event"] == "tampered")
            assert not [action for action in actions[at:] if isinstance(action, Ask)]
            assert "erased" not in [action.row["event"] for action in actions[at:] if isinstance(action, Record)]
            assert "aborting" not in changed, "what an abort asks comes first"
        if any(row["event"] == "wrong" for row in rows):
            self.typed.clear()
        if any(row["event"] == "ready" for row in rows):
            assert self.ready
        return actions

    def did(self, actions: list[Action], event: str) -> bool:
        return any(isinstance(action, Record) and action.row["event"] == event for action in actions)

    @precondition(lambda self: self.terminal.state() is State.IDLE)
    @rule(signers=st.sampled_from([("hq1", "hq2")] * 3 + [("hq1", "hq1"), ("hq1",)]), early=st.booleans())
    def opens(self, signers: tuple[str, ...], early: bool) -> None:
        used = self.order.id in fold(self.terminal.rows).orders
        wall = WALL - 10_000 if early else WALL + int(self.terminal.now * 1000)
        actions = self.send(steps.Opened(self.order, signers, DIGEST, wall, 0))
        if self.did(actions, "opened"):
            assert not used
            assert not early
            assert len(set(signers)) > 1
            self.clear_book()

    @precondition(lambda self: self.terminal.state() is State.OPENED)
    @rule(name=NAMES, changes=st.sampled_from(CHANGES))
    def joins(self, name: str, changes: dict[str, Any]) -> None:
        login = replace(self.terminal.login(name), **changes)
        if self.did(self.send(steps.Joined(login)), "joined"):
            self.take(login, self.joined)

    @rule(fit=st.booleans())
    def surroundings_change(self, fit: bool) -> None:
        self.ready = fit
        self.send(replace(FIT, maintenance=fit))

    @precondition(lambda self: self.terminal.state() is State.PART)
    @rule(name=NAMES, changes=st.sampled_from(CHANGES))
    def begins_a_part(self, name: str, changes: dict[str, Any]) -> None:
        login = replace(self.terminal.login(name), **changes)
        if self.did(self.send(steps.PartBegun(login)), "envelope"):
            self.take(login, self.typed)
            assert login.group == self.order.parts[len(self.typed) - 1].group

    @precondition(lambda self: self.terminal.state() is State.CONFIRM)
    @rule(name=NAMES, changes=st.sampled_from(CHANGES))
    def confirms(self, name: str, changes: dict[str, Any]) -> None:
        login = replace(self.terminal.login(name), **changes)
        if self.did(self.send(steps.Confirmed(login)), "confirmed"):
            self.take(login, self.confirmed)
            assert login.person != self.joined[0].person, "the second person confirms"
            assert len(self.typed) == len(self.order.parts)

    @precondition(lambda self: self.terminal.state() is State.DESTROY)
    @rule(name=NAMES, changes=st.sampled_from(CHANGES))
    def signs(self, name: str, changes: dict[str, Any]) -> None:
        login = replace(self.terminal.login(name), **changes)
        if self.did(self.send(steps.Signed(login, self.order.envelopes, DIGEST)), "signed"):
            self.take(login, self.signed)

    @precondition(lambda self: self.terminal.state() is State.VERIFIED)
    @rule(ok=st.booleans(), name=NAMES, changes=st.sampled_from(CHANGES))
    def host_answers(self, ok: bool, name: str, changes: dict[str, Any]) -> None:
        login = replace(self.terminal.login(name), **changes)
        if self.did(self.send(steps.Proof(login, ok, "echo")), "active"):
            assert ok
            self.proved = True
            self.take(login, [])

    @precondition(lambda self: self.terminal.state() is State.BLOCK)
    @rule(right=st.booleans())
    def block_comes(self, right: bool) -> None:
        self.send(steps.BlockOffered(BLOCK if right else DIGEST, HEADER if right else None))

    @precondition(lambda self: self.terminal.waiting)
    @rule()
    def device_does_it(self) -> None:
        self.answers += 1
        if self.answers == self.another:
            self.somebody_mistypes_or_the_block_is_another()
        else:
            self.send(self.terminal.epp.perform(self.terminal.waiting.pop(0)))

    @precondition(lambda self: len(self.terminal.waiting) > 1)
    @rule()
    def device_does_the_newest_first(self) -> None:
        self.send(self.terminal.epp.perform(self.terminal.waiting.pop()))

    @precondition(lambda self: self.terminal.waiting)
    @rule()
    def device_says_done_and_is_not(self) -> None:
        self.send(Answer(self.terminal.waiting.pop(0).id, "done"))

    @precondition(lambda self: self.terminal.waiting)
    @rule()
    def somebody_mistypes_or_the_block_is_another(self) -> None:
        epp = self.terminal.epp
        epp.typed, epp.block = dict.fromkeys(range(3), 0x999), 0x998
        self.send(epp.perform(self.terminal.waiting.pop(0)))
        epp.typed, epp.block = dict(enumerate(KEY_PARTS)), whole(2)

    @precondition(lambda self: self.terminal.waiting)
    @rule(failure=st.sampled_from(FAILURES), done_all_the_same=st.booleans())
    def device_fails(self, failure: tuple[str, str], done_all_the_same: bool) -> None:
        ask = self.terminal.waiting.pop(0)
        if done_all_the_same:
            self.terminal.epp.perform(ask)
        self.send(Answer(ask.id, *failure))

    @precondition(lambda self: self.terminal.waiting)
    @rule()
    def device_does_it_twice_told(self) -> None:
        answer = self.terminal.epp.perform(self.terminal.waiting.pop(0))
        self.send(answer)
        self.send(answer)

    @rule(cause=st.sampled_from(steps.TROUBLES))
    def trouble(self, cause: str) -> None:
        if self.did(self.send(steps.Trouble(cause)), "aborted") and cause == "serial_changed":
            self.terminal.epp = Epp()  # the other one, and what was asked is lost with the old one
            self.terminal.waiting.clear()

    @rule(name=NAMES)
    def wrong_login(self, name: str) -> None:
        self.send(steps.WrongLogin(name))

    @rule(seconds=st.sampled_from([0.5, 11.0, 61.0, 301.0]))
    def time_passes(self, seconds: float) -> None:
        self.judge(self.terminal.later(seconds))

    @rule()
    def digit(self) -> None:
        self.send(steps.Digits())

    @precondition(lambda self: bool(fold(self.terminal.rows).running))
    @rule()
    def agent_restarts(self) -> None:
        touched = any(isinstance(a, Ask) and a.verb != "key_check" for a in self.terminal.actions)
        active = self.terminal.ceremony.active
        actions = self.judge(self.terminal.restart())
        if touched and self.order.loads and not active:
            first = actions[0]
            assert isinstance(first, Ask)
            assert (first.verb, first.arguments["slot"]) == ("key_delete", self.order.slot)

    @precondition(lambda self: self.terminal.state() in (State.CLOSED, State.ABORTED))
    @rule()
    def same_order_again(self) -> None:
        """It must be refused, which `opens` looks at."""
        self.terminal = self.terminal.again()
        self.terminal.answer = self.ready = False
        self.opens(("hq1", "hq2"), False)

    @precondition(lambda self: self.terminal.state() in (State.IDLE, State.CLOSED, State.ABORTED))
    @rule(which=st.sampled_from(ORDERS), ahead=st.integers(8, 20), slip=SLIP, another=st.integers(1, 20))
    def another_terminal(
        self,
        which: tuple[Order, dict[str, tuple[str, int]]],
        ahead: int,
        slip: tuple[str, dict[str, Any]],
        another: int,
    ) -> None:
        self.begin(which, ahead, slip, another)

    @rule(
        kind=st.sampled_from(["join", "part", "confirm", "sign", "proof", "receipt", "block", "open"]), name=NAMES
    )
    def out_of_turn(self, kind: str, name: str) -> None:
        """Any event in any state. What it may bring about is what the rules above look at."""
        rules: dict[str, Callable[[], None]] = {
            "join": lambda: self.joins(name, {}),
            "part": lambda: self.begins_a_part(name, {}),
            "confirm": lambda: self.confirms(name, {}),
            "sign": lambda: self.signs(name, {}),
            "proof": lambda: self.host_answers(True, name, {}),
            "receipt": lambda: self.closes(),
            "block": lambda: self.block_comes(True),
            "open": lambda: self.opens(("hq1", "hq2"), False),
        }
        rules[kind]()

    def closes(self) -> None:
        self.send(steps.ReceiptMade(DIGEST))

    @rule(ahead=st.integers(1, 8), slip=SLIP, newest=st.booleans())
    def advance(self, ahead: int, slip: tuple[str, dict[str, Any]], newest: bool = False) -> None:
        """newest: of several questions the device answers the newest first."""
        for _ in range(ahead):
            if newest and len(self.terminal.waiting) > 1:
                self.device_does_the_newest_first()
            elif self.terminal.waiting:
                self.device_does_it()
            else:
                self.step(*slip)

    def step(self, name: str, changes: dict[str, Any]) -> None:
        match self.terminal.state():
            case State.IDLE:
                for signers, early in ((("hq1",), False), (("hq1", "hq1"), False), (("hq1", "hq2"), True)):
                    self.opens(signers, early)
                self.opens(("hq1", "hq2"), False)
            case State.OPENED:
                self.joins(name, changes)
                self.joins(missing(self.joined), {})
            case State.CREWED:
                self.surroundings_change(True)
            case State.PART:
                self.begins_a_part(name, changes)
                self.begins_a_part(list(PEOPLE)[self.terminal.ceremony._part], {})
            case State.BLOCK:
                self.block_comes(False)
                self.block_comes(True)
            case State.CONFIRM:
                self.confirms(name, changes)
                self.confirms("wang", {})
            case State.VERIFIED:
                self.host_answers(True, name, changes)
                self.host_answers(True, "li", {})
            case State.DESTROY:
                self.signs(name, changes)
                self.signs(missing(self.signed), {})
            case State.RECEIPT:
                self.closes()

    @invariant()
    def active_only_by_two_people_two_credentials_and_every_step(self) -> None:
        if not hasattr(self, "terminal") or not self.terminal.ceremony.active:
            return
        people = {login.person for login in self.joined}
        assert self.proved
        assert len(people) == len({login.credential for login in self.joined}) == self.order.people >= 2
        assert {"key-manager", "technician"} <= {login.role for login in self.joined}
        assert self.confirmed
        if self.order.parts:
            assert [login.group for login in self.typed] == [part.group for part in self.order.parts]
            assert len({login.person for login in self.typed}) == len(self.order.parts)
        assert self.terminal.epp.slots[self.order.slot] == ("loaded", whole(len(self.order.parts) or 2))

    @invariant()
    def closed_only_with_two_signatures_and_the_old_key_gone(self) -> None:
        if not hasattr(self, "terminal") or self.terminal.state() not in (State.RECEIPT, State.CLOSED):
            return
        assert len({login.person for login in self.signed}) == 2
        assert {login.person for login in self.signed} <= {login.person for login in self.joined}
        gone = {*self.order.compromised, self.order.replaces} - {self.order.slot, ""}
        if not self.order.loads:
            gone.add(self.order.slot)
        assert not gone & set(self.terminal.epp.slots)

    @invariant()
    def a_half_built_slot_means_out_of_service_and_an_end_means_none(self) -> None:
        if not hasattr(self, "terminal"):
            return
        built = self.terminal.epp.state(self.order.slot)
        if built == "construct":
            assert self.terminal.ceremony.out_of_service
        if self.terminal.state() is State.ABORTED:
            touched = {row["verb"] for row in self.terminal.rows if row["event"] == "asked"} - {"key_check"}
            assert built == "missing" if touched else built != "construct"
        if built == "loaded" and self.order.loads and self.terminal.epp.slots[self.order.slot] != OLD:
            assert self.terminal.ceremony.active or self.terminal.ceremony.out_of_service or not self.here()

    def here(self) -> bool:
        """Whether the ceremony of this order is the running one, and not a later one that was refused."""
        return bool(fold(self.terminal.rows).running)


TestCeremony = CeremonyMachine.TestCase
TestCeremony.settings = settings(max_examples=300, stateful_step_count=60, deadline=None)
