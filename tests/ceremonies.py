"""A terminal for ceremonies in virtual time: an EPP that does what its text says, a ledger, people, orders.

The EPP of this page holds numbers instead of keys: a component is a number, the key is the XOR of its components,
and a check value is three bytes of a hash of it. So the rules of a ceremony are tested without any cipher.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from agent.crypto import holdings, steps
from agent.crypto.ceremony import Ceremony
from agent.crypto.keyblock import Header
from agent.crypto.orders import Order, Site
from agent.crypto.steps import Action, Alarm, Answer, Ask, Event, Login, Record, State, Tell
from agent.ledger import canonical

WALL = 1_790_000_000_000
SITE = Site("ATM-0001", "EPP-77", simulated=False)
KEY_PARTS = (0x5A17, 0x1C0D, 0x7E31)
FIT = steps.Surroundings(True, True, True, "ab" * 32)
DIGEST = "cd" * 32
BLOCK = "ef" * 32
HEADER = Header("B", "P0", "T", "E", key_version="01", exportability="N")


def kcv(number: int) -> str:
    return hashlib.sha256(number.to_bytes(8, "big")).hexdigest()[:6].upper()


def whole(parts: int) -> int:
    total = 0
    for part in KEY_PARTS[:parts]:
        total ^= part
    return total


def document(**changes: Any) -> dict[str, Any]:
    """An order to load a TMK from two components; `parts=3` and the like change it."""
    count = changes.pop("count", 2)
    made: dict[str, Any] = {
        "format": "tillwire-key-order/1",
        "id": "ORD-1",
        "terminal": SITE.terminal,
        "epp_serial": SITE.epp_serial,
        "slot": "TMK",
        "kind": "load",
        "method": "components",
        "usage": "K0",
        "algorithm": "T",
        "mode": "D",
        "exportability": "N",
        "digits": 32,
        "version": 1,
        "kcv": kcv(whole(count)),
        "hierarchy": "production",
        "not_before": WALL - 1000,
        "not_after": WALL + 86_400_000,
        "parts": [
            {"envelope": f"ENV-{n}", "kcv": kcv(part), "group": f"G{n}"}
            for n, part in enumerate(KEY_PARTS[:count], 1)
        ],
    }
    return {name: value for name, value in {**made, **changes}.items() if value is not None}


def order(**changes: Any) -> Order:
    return Order.parse(document(**changes))


def block_order(**changes: Any) -> Order:
    """An order to load a PIN key as a key block under the key in slot TMK."""
    block = {"slot": "TPK", "method": "block", "under": "TMK", "form": "tr31", "block": BLOCK, "usage": "P0"}
    return order(**{**block, "mode": "E", "parts": None, "id": "ORD-B", **changes})


def destroy_order(**changes: Any) -> Order:
    gone = dict.fromkeys(
        ("method", "usage", "algorithm", "mode", "exportability", "digits", "version", "parts"), None
    )
    return order(**{"id": "ORD-D", "kind": "destroy", **gone, **changes})


PEOPLE = {
    "li": Login("li", "key-manager", "G1", "key-li", "s-li", "", SITE.terminal),
    "wang": Login("wang", "technician", "G2", "key-wang", "s-wang", "", SITE.terminal),
    "zhao": Login("zhao", "technician", "G3", "key-zhao", "s-zhao", "", SITE.terminal),
}


@dataclass
class Epp:
    """Slots of (state, number). `fails`: verbs that are answered so instead of being done; `silent`: not at all."""

    slots: dict[str, tuple[str, int]] = field(default_factory=dict)
    fails: dict[str, tuple[str, str]] = field(default_factory=dict)
    typed: dict[int, int] = field(default_factory=lambda: dict(enumerate(KEY_PARTS)))
    block: int = KEY_PARTS[0] ^ KEY_PARTS[1]
    entered: dict[str, int] = field(default_factory=dict)

    def perform(self, ask: Ask) -> Answer:
        slot = str(ask.arguments["slot"])
        state, number = self.slots.get(slot, ("missing", 0))
        facts: Mapping[str, Any] = {}
        if ask.verb in self.fails:
            result, raw = self.fails[ask.verb]
            return Answer(ask.id, result, raw)
        match ask.verb:
            case "key_enter":
                done = self.entered.get(slot, 0) if state == "construct" else 0
                typed = self.typed[done]
                self.slots[slot] = ("construct", (number if state == "construct" else 0) ^ typed)
                self.entered[slot] = done + 1
                facts = {"kcv": kcv(typed), "digits": ask.arguments["digits"]}
            case "key_complete" if state == "construct":
                self.slots[slot] = ("loaded", number)
                facts = {"kcv": kcv(number), "state": "loaded"}
            case "key_import":
                self.slots[slot] = ("loaded", self.block)
                facts = {"kcv": kcv(self.block), "state": "loaded", "usage": ask.arguments["usage"]}
            case "key_check":
                facts = {"state": state} | ({"kcv": kcv(number)} if state == "loaded" else {})
            case "key_delete":
                self.slots.pop(slot, None)
                facts = {"state": "missing"}
            case _:
                return Answer(ask.id, "failed", "sequenceError")
        return Answer(ask.id, "done", "", facts)

    def state(self, slot: str = "TMK") -> str:
        return self.slots.get(slot, ("missing", 0))[0]


@dataclass
class Terminal:
    """A ceremony, its EPP and its ledger. `answer=False`: what is asked stays unanswered until `flush`."""

    epp: Epp = field(default_factory=Epp)
    rows: list[dict[str, Any]] = field(default_factory=list)
    now: float = 100.0
    answer: bool = True
    site: Site = SITE
    actions: list[Action] = field(default_factory=list)
    last: list[Action] = field(default_factory=list)
    waiting: list[Ask] = field(default_factory=list)
    logins: int = 0

    def __post_init__(self) -> None:
        self.ceremony = Ceremony(self.site, holdings.fold(self.rows))

    def do(self, event: Event) -> list[Action]:
        """Handle an event, and let the EPP answer whatever is asked, until nothing more is. The first answer's
        actions are returned."""
        self.last = self.carry(self.ceremony.handle(event, self.now))
        if self.answer:
            self.flush()
        return self.last

    def carry(self, actions: list[Action]) -> list[Action]:
        for action in actions:
            self.actions.append(action)
            if isinstance(action, Record):
                canonical(action.row)
                self.rows.append({**action.row, "at": WALL + int(self.now * 1000)})
            elif isinstance(action, Ask):
                self.waiting.append(action)
        return actions

    def flush(self) -> None:
        while self.waiting:
            ask = self.waiting.pop(0)
            self.carry(self.ceremony.handle(self.epp.perform(ask), self.now))

    def later(self, seconds: float) -> list[Action]:
        self.now += seconds
        return self.do(steps.Tick())

    def login(self, name: str, **changes: Any) -> Login:
        self.logins += 1
        return replace(PEOPLE[name], login=f"login-{self.logins}", **changes)

    def open(self, what: Order, signers: tuple[str, ...] = ("hq1", "hq2"), **clock: int) -> list[Action]:
        times = {"wall": WALL + int(self.now * 1000), "trusted": WALL, **clock}
        return self.do(steps.Opened(what, signers, DIGEST, **times))

    def crew(self, *names: str) -> None:
        for name in names or ("li", "wang"):
            self.do(steps.Joined(self.login(name)))
        self.do(FIT)

    def part(self, name: str) -> list[Action]:
        return self.do(steps.PartBegun(self.login(name)))

    def confirm(self, name: str = "wang") -> list[Action]:
        return self.do(steps.Confirmed(self.login(name)))

    def prove(self, ok: bool = True, name: str = "li") -> list[Action]:
        return self.do(steps.Proof(self.login(name), ok, "echo", "R1"))

    def sign(self, name: str, what: Order) -> list[Action]:
        return self.do(steps.Signed(self.login(name), what.envelopes, DIGEST))

    def load(self, what: Order, until: State = State.CLOSED) -> None:
        """A ceremony in which all goes well, up to a state."""
        names = ["li", "wang", "zhao"][: what.people]
        todo: list[Callable[[], object]] = [partial(self.open, what), partial(self.crew, *names)]
        if what.method == "components":
            todo += [partial(self.part, name) for name in names]
        elif what.loads:
            todo.append(partial(self.do, steps.BlockOffered(BLOCK, HEADER)))
        todo.append(self.confirm)
        if what.loads:
            todo.append(self.prove)
        todo += [partial(self.sign, name, what) for name in names[:2]]
        todo.append(partial(self.do, steps.ReceiptMade(DIGEST)))
        for step in todo:
            if self.state() is until:
                return
            step()
        assert self.state() is until, self.state()

    def again(self) -> "Terminal":
        """The same terminal with a new ceremony, for another order."""
        return Terminal(self.epp, self.rows, self.now, site=self.site, logins=self.logins)

    def restart(self) -> list[Action]:
        """The agent starts again: only the ledger and the EPP are left."""
        held, wall = holdings.fold(self.rows), WALL + int(self.now * 1000)
        self.waiting, self.now = [], 5.0
        self.ceremony, actions = Ceremony.resume(self.site, held, held.running, self.now, wall)
        self.last = self.carry(actions)
        if self.answer:
            self.flush()
        return self.last

    def state(self) -> State:
        return self.ceremony.state

    def reason(self) -> str:
        """Why the last thing was refused."""
        assert self.rows[-1]["event"] == "refused"
        return str(self.rows[-1]["reason"])

    def words(self) -> list[str]:
        return [action.word for action in self.actions if isinstance(action, Tell)]

    def alarms(self) -> list[str]:
        return [action.word for action in self.actions if isinstance(action, Alarm)]

    def events(self) -> list[str]:
        return [row["event"] for row in self.rows]

    def ended(self) -> dict[str, Any]:
        """The row with which the ceremony was stopped."""
        return [row for row in self.rows if row["event"] == "aborted"][-1]
