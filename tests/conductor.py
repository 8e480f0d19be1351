"""A conductor whose methods are called in the test's own thread, with an EPP that answers when it is told to.

The ceremony's clock is the real one, and nothing here waits for it.
"""

import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.crypto import steps
from agent.crypto.orders import Order
from agent.crypto.steps import Ask, Login, State
from agent.keys.conducting import Conducting
from agent.keys.table import Keys
from agent.model import Heard, Note, Operation, Outcome, Reading
from agent.timepiece import wall_ms
from tests.ceremonies import BLOCK, DIGEST, HEADER, PEOPLE, SITE, Epp, destroy_order, order

SWITCH = {"panel1.operator_switch": "maintenance"}
TABLE = Keys.model_validate(
    {
        "epp": "epp1",
        "hierarchy": "production",
        "signers": Path("signers.toml"),
        "maintenance": SWITCH,
        "stopped": SWITCH,
        "doors": {"panel1.safe_door": "closed"},
    }
)
COUNTERS = "ab" * 32
Gone = tuple[str, Heard | Operation | Note]


class Stage:
    """A conductor and what it gave away, in order: ("put", item) to the core, ("now", operation) to the link.

    rows: what the ledger has. core: whether the core hands on what was put; a stuck one does not.
    """

    def __init__(self, rows: Iterable[dict[str, Any]] = (), epp: Epp | None = None) -> None:
        self.gone: list[Gone] = []
        self.epp, self.core, self.tried = epp or Epp(), True, ""
        self.answered: set[str] = set()
        self.counted = self.logins = 0
        self.conducting = Conducting(
            TABLE,
            SITE.terminal,
            rows,
            lambda item: self.gone.append(("put", item)),
            lambda item: self.gone.append(("now", item)),
            self._counters,
            threading.Event(),
            tried=lambda: self.tried,
        )

    def _counters(self) -> str:
        self.counted += 1
        return COUNTERS

    # What links hear.

    def hear(self, **points: str) -> None:
        """Readings of the pad; the first "_" in a name stands for ".", as in `link_state`."""
        at = time.monotonic()
        readings = tuple(Reading(name.replace("_", ".", 1), value, at) for name, value in points.items())
        self.conducting.heard(Heard("epp1", readings))
        self.conducting.drain()

    def panel(self, switch: str = "maintenance", door: str = "closed") -> None:
        at = time.monotonic()
        self.conducting.heard(
            Heard("panel1", (Reading("operator_switch", switch, at), Reading("safe_door", door, at)))
        )
        self.conducting.drain()

    def ready(self) -> "Stage":
        """The pad answers, switch and door are as they must be, and the slots were looked at."""
        self.hear(link_state="up", device_serial=SITE.epp_serial)
        self.panel()
        self.turn()
        return self

    def turn(self, later: float = 0.0) -> None:
        """A turn, and whatever the EPP answers to what it brings."""
        self.conducting.drain()
        self.conducting.turn(time.monotonic() + later)
        self.settle()

    def settle(self) -> None:
        """Let the EPP answer whatever has reached it, until nothing more is asked."""
        while waiting := [op for op in self.reached() if op.id not in self.answered]:
            for operation in waiting:
                if self.conducting.withdrawn(operation):
                    self.answered.add(operation.id)
                else:
                    self.answer(operation)
            self.conducting.turn(time.monotonic())

    def answers_at_once(self) -> None:
        """From now on the EPP answers as soon as it is asked; so a conductor that waits for it can."""
        self.conducting._perform = lambda operation: self.conducting._inbox.put(lambda: self.answer(operation))

    def answer(self, operation: Operation) -> None:
        self.answered.add(operation.id)
        arguments: Any = dict(operation.arguments)
        told = self.epp.perform(Ask(operation.id, operation.verb, arguments))
        outcome = Outcome(told.id, told.result, "", time.monotonic(), told.raw, told.facts)
        self.conducting.heard(Heard("epp1", (outcome,)))
        self.conducting.drain()

    def reached(self) -> list[Operation]:
        """The questions that have come to the pad."""
        return [item for how, item in self.gone if isinstance(item, Operation) and (self.core or how == "now")]

    # What people do.

    def do(self, event: steps.Event) -> list[steps.Tell]:
        tells = self.conducting.handle(event)
        self.settle()
        return tells

    def login(self, name: str) -> Login:
        self.logins += 1
        return replace(PEOPLE[name], login=f"login-{self.logins}")

    def open(self, what: Order) -> None:
        self.conducting.open(what, ("hq1", "hq2"), DIGEST, wall_ms())
        self.settle()

    def load(self, what: Order, until: State) -> None:
        """A ceremony in which all goes well, up to a state."""
        todo: list[Any] = [steps.Joined(self.login(name)) for name in ("li", "wang")]
        if what.method == "components":
            todo += [steps.PartBegun(self.login(name)) for name in ("li", "wang")]
        elif what.loads:
            todo.append(steps.BlockOffered(BLOCK, HEADER))
        todo.append(steps.Confirmed(self.login("wang")))
        if what.loads:
            todo.append(steps.Proof(self.login("li"), True, "echo", "R1"))
        todo += [steps.Signed(self.login(name), what.envelopes, DIGEST) for name in ("li", "wang")]
        todo.append(steps.ReceiptMade(DIGEST))
        self.open(what)
        for event in todo:
            if self.state() is until:
                return
            self.do(event)
        assert self.state() is until, self.state()

    # What has become of it.

    def state(self) -> State:
        return self.conducting.ceremony.state

    def events(self) -> list[str]:
        return [str(row["event"]) for row in self.conducting.rows]

    def verbs(self, how: str) -> list[str]:
        """What was asked so, without looks."""
        return [
            item.verb for was, item in self.gone if was == how and isinstance(item, Operation) if item.by != "agent"
        ]

    def restarted(self) -> "Stage":
        """The agent begins again: the ledger and the EPP are left."""
        again = Stage([dict(row) for row in self.conducting.rows], self.epp)
        again.conducting._stop.set()
        again.conducting.run()  # no turn of it: what it does at first
        return again


def begun(until: State, **changes: Any) -> Stage:
    """A terminal in a ceremony of `today` that has gone well so far."""
    stage = Stage().ready()
    stage.load(today(**changes), until)
    return stage


def fresh(what: Order) -> Order:
    """The same order for today."""
    now = wall_ms()
    return replace(what, not_before=now - 60_000, not_after=now + 86_400_000)


def today(**changes: Any) -> Order:
    """An order to load a TMK from two components that holds now."""
    return fresh(order(**changes))


def destroy_today(**changes: Any) -> Order:
    return fresh(destroy_order(**changes))
