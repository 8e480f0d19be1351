"""This file knows how a ceremony is conducted, whatever its step: it goes only where the table leads, asks the EPP,
writes rows, and ends every failure.

From the first question to the EPP that can change a slot, a failure makes the first action a `key_delete` of the
order's slot, and nothing but the EPP's word that it is empty ends that. A deletion counts only when it was asked
after everything else had ended: a component that is typed late must not build the slot again. Until then the slot
is unknown, an alarm stands, the terminal stays out of service, and it is tried again, for ever.
A failure before that deletes nothing: a key that this order has not touched may be in use. And another EPP is asked
nothing at all: its keys are not this order's, and the slot of the one that was taken away stays unknown.
"""

from collections import Counter
from collections.abc import Callable
from math import inf
from typing import Any

from agent.crypto import steps
from agent.crypto.asking import Asking, believed, parsed
from agent.crypto.crew import WRONG_LOGINS, Crew
from agent.crypto.holdings import DAY_MS, Holdings, method_of
from agent.crypto.kcv import Kcv
from agent.crypto.orders import Order, Site, is_digest
from agent.crypto.phrases import ALARMS, CAUSES, REFUSALS, STEPS, Words
from agent.crypto.steps import TABLE, Action, Answer, Event, State, Tick
from agent.pasted import is_name, like_a_key

WHOLE, ONE_PART, IDLE_PAD = 1800.0, 300.0, 60.0
"""Seconds from the order to the proof, and from there to the destruction of papers; for one component; between two
digits, on a pad that tells of them."""
RETRY, RETRY_MOST = 10.0, 300.0
"""Seconds before a deletion is tried again; the pause doubles."""
_DELETING = {State.ACTIVE, State.ERASING, State.ABORTING}
_PAPERS = {State.ACTIVE, State.DESTROY, State.RECEIPT}
_TIMED = set(State) - _DELETING - _PAPERS - {State.IDLE, State.CLOSED, State.ABORTED}
_FATAL = ("tamper", "serial_changed")


class Conduct:
    """What a ceremony is beside its steps. active: the host has proved the key. stuck: a deletion has failed, the
    slot is unknown. overdue: so is what follows the proof. cause: why it was stopped."""

    def __init__(self, site: Site, held: Holdings) -> None:
        self.state = State.IDLE
        self.active = self.stuck = False
        self.cause = ""
        self._cause_words = Words("", "")
        self._site, self._held = site, held
        self._now = self._since = self._part_since = 0.0
        self._digit = inf
        self._part, self._tries, self._wrong = 0, Counter[int](), dict[str, list[int]]()
        self._begun: dict[str, None] = {}
        self._signed: dict[str, None] = {}
        self._queue: list[str] = []
        self._then: Callable[[], None] = lambda: None
        self._erased: set[str] = set()
        self._again, self._pause, self.overdue = inf, RETRY, False
        self._leads_to = frozenset[State]()
        self._out: list[Action] = []
        self._order: Order | None = None
        self._around: steps.Surroundings | None = None

    @property
    def order(self) -> Order:
        """The order that is carried out; there is none before it was opened."""
        if self._order is None:
            raise ValueError("no order was opened")
        return self._order

    @property
    def part(self) -> int:
        """The number of the component that is next, or that is being typed; 0 when none is."""
        return self._part + 1 if self.state in (State.PART, State.ENTERING) else 0

    def awaits(self, id: str) -> bool:
        """Whether the answer to this question would still count."""
        return self._order is not None and self._pad.awaits(id)

    def people(self) -> list[dict[str, str]]:
        """Who takes part, with role and group."""
        crew = self._crew.people.values() if self._order is not None else ()
        return [{"person": who.person, "role": who.role, "group": who.group} for who in crew]

    @property
    def crew(self) -> tuple[str, ...]:
        """Who takes part, in the order in which they joined."""
        return tuple(self._crew.people) if self._order is not None else ()

    @property
    def out_of_service(self) -> bool:
        """Whether the terminal must not serve customers because of this ceremony."""
        return self.state in _DELETING or self.state in _TIMED - {State.OPENED, State.CREWED}

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take an event and say what is to be done. Whatever time has run out by `now` is dealt with first."""
        self._out = []
        self._now = max(now, self._now)
        for answer in self._pad.overdue(self._now) if self._order else ():
            self._dispatch(answer)
        self._dispatch(Tick())
        if not isinstance(event, Tick):
            self._dispatch(event)
        return self._out

    def hasten(self) -> None:
        """The EPP answers again: what it could not delete is tried at the next tick, not after the pause."""
        if self._again < inf:
            self._again = self._now

    def next_step(self) -> steps.Tell:
        """What the people have to do now."""
        facts: dict[str, Any] = {}
        if self._order is not None:
            order, at = self._order, min(self._part, len(self._order.parts) - 1)
            facts = {"slot": order.slot, "digits": order.digits, "kcv": order.kcv, "number": self._part + 1}
            facts |= {"of": len(order.parts), "envelope": order.parts[at].envelope if order.parts else ""}
            facts |= {"missing": self._crew.missing, "signed": ", ".join(self._signed) or "-"}
        en, zh = STEPS[self.state.value]
        return steps.Tell(
            self.state.value,
            en.format(cause=self._cause_words.en, **facts),
            zh.format(cause=self._cause_words.zh, **facts),
        )

    def _dispatch(self, event: Event) -> None:
        if isinstance(event, Answer):
            if self._order is None or not self._pad.settle(event.id):
                return
            event = believed(event)
            self._record("answered", id=event.id, result=event.result, raw=event.raw, facts=dict(event.facts))
            if event.id != self._pad.current:
                # What was asked before a deletion has ended only now: the deletion is asked once more.
                if self.state in _DELETING and not self._pad.waiting:
                    self._delete()
                return
        arc = TABLE[self.state].get(type(event))
        if arc is not None:
            self._leads_to = arc.leads_to
            getattr(self, arc.handler)(event)
        elif not isinstance(event, Tick | Answer | steps.Digits | steps.Surroundings | steps.Trouble):
            self._refuse("not_now")

    # What can happen at almost any time.

    def _pass(self, event: Tick) -> None:
        if self.state in _TIMED:
            at_the_pad = self.state in (State.PART, State.ENTERING)
            if self._now - self._since >= WHOLE:
                self._abort("ceremony_time")
            elif at_the_pad and self._now - self._part_since >= ONE_PART:
                self._abort("part_time")
            elif self.state is State.ENTERING and self._now - self._digit >= IDLE_PAD:
                self._abort("idle")
        if self.state in _PAPERS and self._now - self._since >= WHOLE and not self.overdue:
            self.overdue = True
            self._alarm("destruction_overdue")
        if self.state in _DELETING and self._now >= self._again and not self._pad.waiting:
            self._delete()

    def _second(self, event: steps.Opened) -> None:
        self._out.append(steps.Record(steps.row("refused", order=event.order.id, reason="busy")))
        self._tell("busy", REFUSALS["busy"])
        self._abort("second_session")

    def _watch(self, event: steps.Surroundings) -> None:
        if not event.fit:
            self._abort("mode_changed")

    def _trouble(self, event: steps.Trouble) -> None:
        self._note_trouble(event)
        self._abort(event.cause)

    def _late_trouble(self, event: steps.Trouble) -> None:
        self._note_trouble(event)
        if event.cause in _FATAL and self.order.loads:
            self._abort(event.cause)

    def _trouble_deleting(self, event: steps.Trouble) -> None:
        self._note_trouble(event)
        if event.cause == "serial_changed":
            self._abort(event.cause)

    def _note_trouble(self, event: steps.Trouble) -> None:
        self._record("trouble", cause=event.cause, person=event.person)
        if event.cause in _FATAL:
            self._record("tampered", cause=event.cause)
            self._alarm(event.cause)
        elif event.cause == "exposed":
            if self._order is not None and self._part < len(self._order.parts):
                self._begun[str(self._order.parts[self._part].envelope)] = None
            self._alarm("exposed")

    def _wrong_login(self, event: steps.WrongLogin) -> None:
        person = event.person if is_name(event.person) else "withheld"
        tries = [*self._held.wrong.get(person, []), *self._wrong.get(person, []), event.wall]
        self._wrong.setdefault(person, []).append(event.wall)
        # By the clock of now, and not of the newest row: a day after it, all are forgotten.
        locked = sum(event.wall - when < DAY_MS for when in tries) >= WRONG_LOGINS
        self._record("login", person=person, result="locked" if locked else "wrong")
        if locked:
            self._alarm("locked", person=person)
        if locked and self._order is not None:
            self._crew.lock(person)
            if person in self._crew.people and State.ABORTING in self._leads_to:
                self._abort("locked_out")

    def forgive(self, person: str) -> None:
        """Somebody in charge of the accounts lets this person try again."""
        self._wrong.pop(person, None)
        self._held.wrong.pop(person, None)
        if self._order is not None:
            self._crew.unlock(person)

    # How a failure ends, and how a slot is emptied.

    def _abort(self, cause: str, raw: str = "") -> None:
        self.cause, self._cause_words, self.active = cause, CAUSES[cause].filled(raw=raw), False
        if not self._pad.touched or cause == "serial_changed":
            self._leave()
            return
        slot = self.order.slot
        rest = [other for other in self.order.cleared_first if other != slot and other not in self._erased]
        self._queue = [slot, *rest]
        self._delete(before_all=True)
        self._record("aborting", cause=cause)
        self._forget()
        self._alarm("aborted", cause=self._cause_words)
        self._go(State.ABORTING)

    def _abort_on(self, answer: Answer) -> None:
        if answer.result == "unanswered":
            self._abort("no_answer")
        else:
            self._abort("device_refused", answer.raw or answer.result)

    def _aborted(self, answer: Answer) -> None:
        if self._gone(answer):
            if self._queue:
                self._delete()
            else:
                self._end()

    def _leave(self) -> None:
        """End without a deletion: the slot was not touched, or it is in an EPP that was taken away."""
        self._again, deleting = inf, self.state is State.ABORTING
        if self._pad.touched:
            self._pad.give_up()
            self._alarm("slot_unknown", slot=self.order.slot)
        if not deleting:
            self._forget()
            self._alarm("aborted", cause=self._cause_words)
        self._end()

    def _end(self) -> None:
        self._go(State.ABORTED)
        self._record("aborted", cause=self.cause, spoiled=list(self._begun))

    def _delete(self, *, before_all: bool = False) -> None:
        self._again = inf
        arguments: dict[str, str | int] = {"slot": self._queue[0]}
        ask = self._pad.ask("key_delete", arguments, self._now)
        # Before all: that the slot was touched is in the ledger already, so a restart would delete it too.
        if before_all:
            self._out.insert(0, ask)
        self._record("asked", slot=self._queue[0], id=ask.id, verb=ask.verb, arguments=arguments)
        if not before_all:
            self._out.append(ask)

    def _gone(self, answer: Answer) -> bool:
        """Whether the slot that was being deleted is empty now; if not, another try is planned."""
        if answer.facts.get("state") != "missing":
            self._again, self._pause = self._now + self._pause, min(2 * self._pause, RETRY_MOST)
            if not self.stuck:
                self.stuck = True
                self._alarm("slot_unknown", slot=self._queue[0])
            return False
        if not self._pad.alone:
            if not self._pad.pending:
                self._delete()
            return False
        self.stuck, self._pause = False, RETRY
        self._note_erased()
        return True

    def _note_erased(self) -> None:
        slot = self._queue.pop(0)
        self._erased.add(slot)
        destroyed = not self.order.loads and slot == self.order.slot
        self._record("erased", slot=slot, kcv=digits_of(self.order.kcv) if destroyed else "")

    # Smaller things.

    def _take_up(self, order: Order, wall: int) -> None:
        self._order, self._since = order, self._now
        self._crew, self._pad = Crew(order, self._site, self._held, wall), Asking(order.id)

    def _go(self, state: State) -> None:
        if state not in self._leads_to:
            raise ValueError(f"the table leads from {self.state.value} not to {state.value}")
        self.state = state
        self._out.append(self.next_step())

    def _ask(self, verb: str, block: str = "", **arguments: str | int) -> None:
        ask = self._pad.ask(verb, arguments, self._now, block)
        self._record("asked", id=ask.id, verb=verb, arguments=arguments)
        self._out.append(ask)

    def _record(self, event: str, **fields: Any) -> None:
        about: dict[str, Any] = {"terminal": self._site.terminal, "serial": self._site.epp_serial}
        if self._order is not None:
            about |= {"order": self._order.id, "slot": self._order.slot, "state": self.state.value}
        self._out.append(steps.Record(steps.row(event, **_public({**about, **fields}))))

    def _refuse(self, reason: str) -> None:
        self._record("refused", reason=reason)
        self._tell(reason, REFUSALS[reason])

    def _tell(self, word: str, words: Words) -> None:
        self._out.append(steps.Tell(word, *words))

    def _alarm(self, word: str, **facts: Any) -> None:
        cause = facts.pop("cause", Words("", ""))
        en, zh = ALARMS[word]
        self._record(
            "alarm", word=word, facts=facts, slot=facts.get("slot", self._order.slot if self._order else "")
        )
        self._out.append(steps.Alarm(word, en.format(cause=cause.en, **facts), zh.format(cause=cause.zh, **facts)))

    def _forget(self) -> None:
        if self.order.block:
            self._out.append(steps.Forget(self.order.block))

    def _kcv(self, answer: Answer) -> Kcv | None:
        return parsed(answer.facts.get("kcv"), method_of(self.order.document()))


def digits_of(kcv: Kcv) -> str:
    """A check value as rows and documents spell it."""
    return kcv.value.hex().upper()


def _public(value: Any) -> Any:
    """The last fence before the ledger: whatever looks like a key and is no digest is withheld."""
    if isinstance(value, str):
        return "withheld" if like_a_key(value) and not is_digest(value) else value
    if isinstance(value, dict):
        return {name: _public(inner) for name, inner in value.items()}
    return [_public(inner) for inner in value] if isinstance(value, list) else value
