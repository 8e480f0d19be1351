"""This file knows how key ceremonies run in a live agent: one thread that owns the ceremony and carries out what
it says. agent/keys/guard.py beside it looks at the slots while no ceremony runs.

Rows and questions go to the core's queue in their order, and the core makes rows durable before it hands a
question on; so nothing is asked of the EPP that the ledger does not know. What an abort asks first (delete the
slot) does not wait for that: it goes to the link at once, also when the disk is full.

After a start in the middle of a ceremony nothing is done before the EPP has told its serial number; then the slot
is deleted. Key blocks lie in this object's memory only.
"""

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, TypeVar

from agent.calling import PATIENCE, call
from agent.crypto import steps
from agent.crypto.asking import ENDED, QUIET, WAITING
from agent.crypto.ceremony import Ceremony
from agent.crypto.holdings import KIND, Holdings, Row, fold
from agent.crypto.orders import Order, Site
from agent.crypto.phrases import CAUSES, SERVICE, STEPS, Words
from agent.crypto.secret import wipe
from agent.crypto.steps import Action, Answer, Ask, Event, Record, State, Tell, row
from agent.errors import ControlError
from agent.keys.guard import KeyGuard
from agent.keys.surroundings import Watched
from agent.keys.table import Keys
from agent.keys.telling import Telling
from agent.model import Heard, Note, Operation, Outcome, Reading
from agent.repeats import Repeats
from agent.timepiece import wall_ms

BY = "ceremony"
"""Who asks, in the operations of a ceremony."""
TURN = 0.25
"""Seconds between two looks at the clock."""
PARTING = 4.0
"""Seconds that the EPP has for a deletion when the agent is stopped; less than agent/workers.py waits."""
IDLE = ENDED | {State.IDLE}

_STEPS = frozenset(state.value for state in State)

log = logging.getLogger(__name__)
T = TypeVar("T")


class Conducting:
    """The conductor of one terminal.

    rows     what the store keeps of earlier ceremonies
    put      takes rows and questions for the core, in order
    perform  asks the EPP at once
    counters the SHA-256 (hex) of the cash counters as they stand
    version  of this software
    tried    that a push is being tried, which may take the EPP's line, as a sentence; empty when none is
    """

    def __init__(
        self,
        table: Keys,
        terminal: str,
        rows: Iterable[Row],
        put: Callable[[Heard | Operation | Note], None],
        perform: Callable[[Operation], None],
        counters: Callable[[], str],
        stop: threading.Event,
        version: str = "",
        tried: Callable[[], str] = str,
    ) -> None:
        self.table, self._terminal, self._version, self._tried = table, terminal, version, tried
        self._put, self._perform, self._counters, self._stop = put, perform, counters, stop
        self._inbox: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._watched = Watched(table.epp, table.conditions)
        self.guard = KeyGuard(table, terminal, put, perform)
        self.rows: list[Row] = [kept for kept in rows if kept.get("kind") == KIND]
        self._blocks: dict[str, bytearray] = {}
        self._deferred: deque[Operation] = deque()
        self._around: tuple[bool, bool, bool] | None = None
        self._trouble = ""
        self._looked_at = self._watched.identity
        self.resuming = False
        self.told = Telling(lambda: self.settled)
        self.repeats = Repeats(self.record)
        self.ceremony = self._fresh()

    # What other threads may call.

    def heard(self, heard: Heard) -> Heard:
        """What a link has heard, on its way to the core; returned without the answers to our own looks."""
        if not self._watched.wants(heard.device):
            return heard
        self._inbox.put(lambda: self._take(heard))
        rest = tuple(item for item in heard.items if not (isinstance(item, Outcome) and self.guard.asked(item)))
        return replace(heard, items=rest)

    def call(self, what: Callable[[], T], patience: float = PATIENCE) -> T:
        """Have something done in this object's thread; its result or its exception."""
        return call(
            self._inbox.put,
            what,
            "the conductor of key ceremonies does not answer: see `tillwire diagnose`",
            patience,
        )

    def withdrawn(self, operation: Operation) -> bool:
        """Whether a ceremony has given up a question that waited for its row: asked late, it would build the slot
        again after its deletion. As long as it is not given up, no deletion before its answer counts. Or whether it
        would come to another EPP."""
        return operation.by == BY and not (self.ceremony.awaits(operation.id) and self._in_place(time.monotonic()))

    def run(self) -> None:
        """Conduct until `stop` is set."""
        self.resuming = bool(self.held().running)
        self.ceremony = self._fresh()
        while not self._stop.is_set():
            self.drain(TURN)
            self.turn(time.monotonic())
        self.part()

    def part(self) -> None:
        """The agent is stopped: what is half-built is deleted first. If the EPP does not do that soon, the next
        start does."""
        if self.ceremony.state not in QUIET:
            self.handle(steps.Trouble("agent_stopped"))
        until = time.monotonic() + PARTING
        while self.ceremony.state in WAITING and not self.ceremony.stuck and time.monotonic() < until:
            self.drain(TURN)
            self.turn(time.monotonic())
        self.repeats.tell()

    # What runs in the own thread.

    def drain(self, patience: float = 0.0) -> None:
        """Do what other threads have brought; wait so many seconds for the first of it."""
        try:
            self._inbox.get(timeout=patience)()
            while True:
                self._inbox.get_nowait()()
        except queue.Empty:
            pass

    @property
    def settled(self) -> bool:
        """Whether people have to act, or nobody has."""
        return self.ceremony.stuck or not (self.resuming or self.ceremony.state in WAITING)

    def next_step(self) -> Tell:
        """What people have to do now."""
        return Tell("resuming", *STEPS["resuming"]) if self.resuming else self.ceremony.next_step()

    @property
    def serial(self) -> str:
        """The serial number that the EPP has told last."""
        return self._watched.serial

    def service(self) -> tuple[str, Words]:
        """Whether the keys let the terminal serve customers: ok, ceremony, stopped, unknown; and why."""
        if self.resuming or self.ceremony.out_of_service:
            return "ceremony", SERVICE["ceremony"]
        if self._watched.opened(now := time.monotonic()):
            return "stopped", CAUSES["tamper"]
        return self.guard.service(self._watched.answers(now))

    @property
    def free(self) -> bool:
        """Whether an order may be opened: nothing runs, or nothing is missing but a receipt, or signatures that are
        overdue. Who never comes to sign must not keep the terminal from its keys."""
        ceremony = self.ceremony
        return ceremony.state in IDLE | {State.RECEIPT} or (ceremony.state is State.DESTROY and ceremony.overdue)

    def lacking(self) -> list[Words]:
        """What is not as it must be for a ceremony."""
        return self._watched.lacking(time.monotonic())

    def open(self, order: Order, signers: tuple[str, ...], digest: str, trusted: int) -> list[Tell]:
        """Carry out an order; what is told at once. A ceremony that is running is stopped by that, unless it is
        `free`: then its receipt can be made, and its papers can be signed for, at any time after."""
        if self.resuming:
            raise ControlError("the last ceremony was cut short and its slot is not deleted yet: wait", 1)
        if self.free:
            # Not begun: an order that was opened is used up.
            if trouble := self._watched.trouble(time.monotonic()):
                raise ControlError(f"no ceremony can begin: {CAUSES[trouble].en}", 1)
            if tried := self._tried():
                raise ControlError(f"no ceremony can begin: {tried}; wait for its end, or take it back", 1)
            if self.ceremony.state is State.RECEIPT:
                self.handle(steps.ReceiptMade(""))
            elif self.ceremony.state is State.DESTROY:
                self.record("papers_due", order=self.ceremony.order.id, slot=self.ceremony.order.slot)
            self.guard.look()
            self.ceremony = self._fresh()
            self._around, self._trouble = None, ""
        tells = self.handle(steps.Opened(order, signers, digest, wall_ms(), trusted))
        self._look_around(time.monotonic())
        return tells

    def handle(self, event: Event) -> list[Tell]:
        """Give an event to the ceremony; what it tells at once."""
        before = self.ceremony.state
        late = before in ENDED and isinstance(event, steps.Trouble | steps.WrongLogin)
        # What happens after the end of a ceremony is not its own, and is a row all the same.
        ceremony = self._fresh() if late else self.ceremony
        tells = self._carry(ceremony.handle(event, time.monotonic()))
        if self.ceremony.state in IDLE and before not in IDLE:
            self.guard.look()
        return tells

    def afterwards(self, order: str, event: Event) -> tuple[Ceremony, list[Tell]]:
        """Give an event to the ceremony of an order in `Holdings.owed`; what it tells is for who asks alone."""
        ceremony = Ceremony.owing(self._site(), self.held(), order, wall_ms())
        actions = ceremony.handle(event, time.monotonic())
        self._carry([action for action in actions if isinstance(action, Record)])
        self.guard.look()
        return ceremony, [action for action in actions if isinstance(action, Tell)]

    def offer(self, digest: str, block: bytes) -> None:
        """Keep a key block until the ceremony forgets it."""
        wipe(self._blocks.get(digest, bytearray()))
        self._blocks[digest] = bytearray(block)

    def record(self, event: str, **fields: Any) -> None:
        """Write a row that belongs to no running ceremony."""
        self._carry([Record(row(event, terminal=self._terminal, serial=self.serial, **fields))])

    def turn(self, now: float) -> None:
        """What the clock and the surroundings ask for."""
        self.repeats.tell(now)
        if self.resuming:
            self._resume(now)
        self._look_around(now)
        if self.ceremony.state not in IDLE:
            self.handle(steps.Tick())
        self._ask_deferred()
        if self._watched.identity != self._looked_at:
            self._looked_at = self._watched.identity
            self.guard.look(anew=True)
        quiet = self.ceremony.state in QUIET and not self.resuming
        if quiet and self.serial and self._watched.answers(now):
            findings = self.guard.turn(now, wall_ms(), self.serial, self._watched.slots, self.held)
            self._carry([Record(found) for found in findings])
        self.guard.say(now, *self.service())

    def held(self) -> Holdings:
        """What the ledger says of keys now."""
        return fold(self.rows)

    def _fresh(self) -> Ceremony:
        return Ceremony(self._site(), self.held())

    def _site(self) -> Site:
        return Site(self._terminal, self.serial, self.table.hierarchy == "test")

    def _take(self, heard: Heard) -> None:
        for reading in [item for item in heard.items if isinstance(item, Reading)]:
            if self._watched.take(replace(heard, items=(reading,))):
                # A row at once, in a ceremony or not: the keys are not to be trusted again when the pad says "ok".
                self._trouble = "tamper"
                self.handle(steps.Trouble("tamper"))
                self.guard.look(anew=True)
            # At each thing that is heard: a door that was open for a moment was open.
            if self.ceremony.state not in (State.OPENED, State.CREWED):
                self._look_around(time.monotonic())
        self._look_around(time.monotonic())
        for item in heard.items:
            if isinstance(item, Outcome) and not self.guard.take(item):
                self.handle(Answer(item.operation, item.result, item.raw, item.facts))
        self._ask_deferred()

    def _ask_deferred(self) -> None:
        """Ask what had to wait for the answer to a look: the EPP does one thing at a time."""
        while self._deferred and not self.guard.pending(time.monotonic()):
            self._put(self._deferred.popleft())

    def _resume(self, now: float) -> None:
        if not (self.serial and self._watched.answers(now)):
            return
        held = self.held()
        self.ceremony, actions = Ceremony.resume(self._site(), held, held.running, now, wall_ms())
        self.resuming = False
        self._around, self._trouble = None, ""
        self._carry(actions)

    def _look_around(self, now: float) -> None:
        """Tell the ceremony how things stand, at first and at every change."""
        if self.ceremony.state in IDLE:
            return
        stands = self._watched.stands
        around = stands("maintenance", now), stands("stopped", now), stands("doors", now)
        if around != self._around:
            self._around = around
            counts = all(around) and self.ceremony.state in (State.OPENED, State.CREWED)
            self.handle(steps.Surroundings(*around, self._counters() if counts else ""))
        trouble = self._watched.trouble(now)
        if self.serial != self.ceremony.order.epp_serial and not trouble:
            trouble = "serial_changed"
        if trouble != self._trouble:
            self._trouble = trouble
            if trouble:
                self.handle(steps.Trouble(trouble))
            else:
                self.ceremony.hasten()

    def _in_place(self, now: float) -> bool:
        """Whether the EPP that answers is the one of the order."""
        return self._watched.answers(now) and self.serial == self.ceremony.order.epp_serial

    def _carry(self, actions: list[Action]) -> list[Tell]:
        written = False
        tells: list[Tell] = []
        for action in actions:
            match action:
                case Record(new):
                    written = True
                    if new["event"] == "opened":
                        new = {**new, "software": self._version, "utc_offset": self.table.utc_offset}
                    self.rows.append({**new, "at": wall_ms()})
                    self._put(Note(KIND, {name: value for name, value in new.items() if name != "kind"}))
                case Ask():
                    self._ask(action, at_once=not written)
                case Tell():
                    tells.append(action)
                case steps.Alarm():
                    log.warning("keys: %s", action.en)
                case steps.Forget(digest) if digest in self._blocks:
                    wipe(self._blocks.pop(digest))
        steps_told = [tell for tell in tells if tell.word in _STEPS]
        # Of steps that were passed at once people see only the last.
        tells = [tell for tell in tells if tell not in steps_told[:-1]]
        self.told.tell(tells)
        return tells

    def _ask(self, ask: Ask, *, at_once: bool) -> None:
        opaque = bytes(self._blocks.get(ask.block, b""))
        operation = Operation(ask.id, self.table.epp, ask.verb, BY, dict(ask.arguments), opaque)
        if not self._in_place(time.monotonic()):
            self._inbox.put(lambda: self.handle(Answer(ask.id, "unanswered", "not in place")))
        elif at_once:
            self._perform(operation)
            told = {"device": operation.device, "id": operation.id, "verb": operation.verb, "by": operation.by}
            self._put(Note("operation", {**told, "arguments": dict(operation.arguments)}))
        elif self.guard.pending(time.monotonic()):
            self._deferred.append(operation)
        else:
            self._put(operation)
