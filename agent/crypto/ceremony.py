"""This file knows how a key ceremony goes, step by step. No I/O; `now` is monotonic seconds.

    order -> people -> switch, service, doors -> look at the slot -> parts or block -> second person -> check value
    -> proof by the host -> old key deleted, papers destroyed, two signatures -> receipt

The host conducts and the EPP performs: nothing here can hold a component or a key, only slots, envelopes and check
values. `steps.TABLE` is the whole machine, conduct.py ends every failure; here is one method for each step.
A key that the new one replaces in its slot is deleted only when the new one is at hand: before the first component
is typed, or the block goes to the EPP. Suspected keys go as soon as both people are there.
A wrong check value of a component is seen when the EPP has already combined it, so the slot is deleted and all
components are typed again; the third time at one component ends the ceremony (crypto.md 1.4).
"""

from collections.abc import Callable, Iterable

from agent.crypto import steps
from agent.crypto.conduct import Conduct, digits_of
from agent.crypto.holdings import SIGNATURES, Holdings, Row
from agent.crypto.kcv import ZERO_BYTES
from agent.crypto.keyblock import Header, Policy
from agent.crypto.orders import Order, Site, check
from agent.crypto.phrases import REFUSALS, STEPS
from agent.crypto.steps import Action, Answer, Login, State
from agent.errors import BlockRefused, EnvelopeRefused

TRIES = 3


class Ceremony(Conduct):
    """One order, from its opening to its receipt; for the next one, make another."""

    @classmethod
    def resume(
        cls, site: Site, held: Holdings, rows: Iterable[Row], now: float, wall: int
    ) -> tuple["Ceremony", list[Action]]:
        """The ceremony that these rows tell of (`Holdings.running`, not empty), after the agent was stopped in it,
        and what is to be done: delete the slot, unless it was not touched, or the key had become active before."""
        ceremony = cls(site, held)
        ceremony._resume(list(rows), now, wall)
        return ceremony, ceremony._out

    @classmethod
    def owing(cls, site: Site, held: Holdings, order: str, wall: int) -> "Ceremony":
        """The ceremony of an order of `Holdings.owed`: its papers can still be signed for, and its receipt made.
        wall: the clock of now, ms."""
        ceremony = cls(site, held)
        ceremony._restore(held.owed[order], wall)
        ceremony.overdue = True  # that was told before another order was opened
        ceremony.state = State.RECEIPT if len(ceremony._signed) >= SIGNATURES else State.DESTROY
        return ceremony

    def _resume(self, rows: list[Row], now: float, wall: int) -> None:
        self._now, self._leads_to = now, frozenset(State)
        stopped = self._restore(rows, wall)
        if self.order.epp_serial != self._site.epp_serial:
            stopped = "serial_changed"
            self._note_trouble(steps.Trouble("serial_changed"))
        self._record("trouble", cause="agent_restarted", person="")
        if stopped or not (self.active if self.order.loads else self._pad.touched):
            self._abort(stopped or "agent_restarted")
        elif len(self._signed) >= SIGNATURES:
            self._go(State.RECEIPT)
        else:
            self._retire()

    def _restore(self, rows: list[Row], wall: int) -> str:
        """Know again what these rows tell; why it was being stopped, if it was."""
        self._take_up(Order.parse(rows[0]["document"]), wall)
        stopped = ""
        for row in rows:
            if "session" in row:
                self._crew.spend(row["person"], row["session"], row["login"])
            match row["event"]:
                case "joined":
                    self._crew.restore(
                        Login(row["person"], row["role"], row["group"], row["credential"], "", "", "")
                    )
                case "asked":
                    self._pad.resume(row["verb"])
                case "envelope":
                    self._begun[row["envelope"]] = None
                case "erased":
                    self._erased.add(row["slot"])
                case "active":
                    self.active = True
                case "signed":
                    self._signed[row["person"]] = None
                case "aborting":
                    stopped = row["cause"]
        return stopped

    def _open(self, event: steps.Opened) -> None:
        try:
            check(event.order, event.signers, self._site, self._held, event.wall, event.trusted)
        except EnvelopeRefused as error:
            self._out.append(steps.Record(steps.row("refused", order=event.order.id, reason=error.reason)))
            self._tell(error.reason, REFUSALS[error.reason])
            return
        self._take_up(event.order, event.wall)
        document, signers = event.order.document(), list(event.signers)
        self._record("opened", document=document, signers=signers, digest=event.digest)
        self._go(State.OPENED)

    def _join(self, event: steps.Joined) -> None:
        who = event.login
        if self._objected(self._crew.join(who)):
            return
        self._wrong.pop(who.person, None)
        self._record("joined", role=who.role, group=who.group, **_by(who))
        if self._crew.missing:
            self._out.append(self.next_step())
            return
        self._go(State.CREWED)
        self._look()

    def _look_around(self, event: steps.Surroundings) -> None:
        self._around = event
        if self.state is State.CREWED:
            self._look()

    def _look(self) -> None:
        if self._around is None:
            return
        if not self._around.fit:
            self._refuse("not_ready")
            return
        self._record("ready", counters=self._around.counters)
        self._ask("key_check", slot=self.order.slot)
        self._go(State.LOOKING)

    def _looked(self, answer: Answer) -> None:
        order, found, kcv = self.order, answer.facts.get("state"), self._kcv(answer)
        if found == "missing":
            self._record("erased", kcv="")
        if found == "construct":
            self._pad.touched = True
            self._alarm("left_construct", slot=order.slot)
            self._abort("left_construct")
        elif found is None and answer.result == "refused" and "unread_slot" in order.exceptions:
            self._queue = list(dict.fromkeys((order.slot, *order.cleared_first)))
            self._await_key() if order.loads else self._go(State.CONFIRM)
        elif found is None:
            self._abort_on(answer)
        elif not order.loads and found == "missing":
            self._abort("slot_empty")
        elif not order.loads and kcv is not None and kcv.agrees(order.kcv):
            self._go(State.CONFIRM)
        elif found == "loaded" and order.slot not in order.cleared_first:
            self._alarm("unexpected_key", slot=order.slot)
            self._abort("unexpected_key")
        else:
            self._queue = [slot for slot in order.cleared_first if slot != order.slot or found == "loaded"]
            self._await_key()

    def _await_key(self) -> None:
        if self.order.compromised:
            self._clear(self._from_the_first)
        else:
            self._from_the_first()

    def _from_the_first(self) -> None:
        self._part, self._part_since = 0, self._now
        self._go(State.PART if self.order.method == "components" else State.BLOCK)

    def _clear(self, then: Callable[[], None]) -> None:
        """Delete what has to go, and then go on."""
        if self._queue:
            self._then = then
            self._delete()
            self._go(State.CLEARING)
        else:
            then()

    def _cleared(self, answer: Answer) -> None:
        if answer.facts.get("state") == "missing":
            self._note_erased()
            self._clear(self._then)
        else:
            self._abort_on(answer)

    def _begin_part(self, event: steps.PartBegun) -> None:
        part, who = self.order.parts[self._part], event.login
        if self._objected(self._crew.act(who, part)):
            return
        self._begun[str(part.envelope)] = None
        self._record("envelope", **_by(who), **self._this_part())
        self._clear(self._enter)

    def _enter(self) -> None:
        expect = digits_of(self.order.parts[self._part].kcv)[: 2 * ZERO_BYTES]
        self._ask("key_enter", slot=self.order.slot, digits=self.order.digits, expect=expect, **self._attributes())
        self._go(State.ENTERING)

    def _digits(self, event: steps.Digits) -> None:
        self._digit = self._now

    def _entered(self, answer: Answer) -> None:
        self._digit = float("inf")
        if answer.result not in ("done", "failed"):
            self._abort_on(answer)
            return
        expected, kcv = self.order.parts[self._part].kcv, self._kcv(answer)
        whole = answer.facts.get("digits", self.order.digits) == self.order.digits
        if answer.result == "done" and whole and kcv is not None and kcv.agrees(expected):
            self._record("part", kcv=digits_of(expected), **self._this_part())
            self._part, self._part_since = self._part + 1, self._now
            self._go(State.PART if self._part < len(self.order.parts) else State.CONFIRM)
            return
        self._tries[self._part] += 1
        tries = self._tries[self._part]
        told = {"raw": answer.raw, "kcv": answer.facts.get("kcv", "")}
        self._record("wrong", tries=tries, **told, **self._this_part())
        if tries == TRIES:
            self._abort("wrong_part")
            return
        self._tell("again", STEPS["again"].filled(tries=tries))
        self._queue = [self.order.slot]
        self._clear(self._from_the_first)

    def _take_block(self, event: steps.BlockOffered) -> None:
        order, head = self.order, event.header
        if event.digest != order.block or (head is None) != (order.form == "ecb"):
            self._refuse("other_block")
        elif head is not None and not _fits(head, order):
            self._refuse("block_refused")
        else:
            words = (head.version, head.usage, head.algorithm, head.mode, head.key_version) if head else ()
            self._record("block", digest=event.digest, header=" ".join(words))
            self._go(State.CONFIRM)

    def _confirm(self, event: steps.Confirmed) -> None:
        order, who = self.order, event.login
        if self._objected(self._crew.act(who, second=True)):
            return
        self._record("confirmed", **_by(who))
        if not order.loads:
            self._retire()
        else:
            self._clear(self._complete)

    def _complete(self) -> None:
        order = self.order
        if order.method == "components":
            self._ask("key_complete", slot=order.slot, **self._attributes())
        else:
            named = {"usage": order.usage} if order.form == "tr31" else self._attributes()
            self._ask("key_import", order.block, slot=order.slot, under=order.under, form=order.form, **named)
        self._go(State.LOADING)

    def _loaded(self, answer: Answer) -> None:
        order, kcv = self.order, self._kcv(answer)
        if answer.result != "done":
            self._abort_on(answer)
        elif answer.facts.get("state") != "loaded" or kcv is None or not kcv.agrees(order.kcv):
            self._abort("wrong_key")
        elif answer.facts.get("usage", order.usage) != order.usage:
            self._abort("wrong_usage")
        else:
            self._forget()
            for name, slot in self._held.slots.items():
                if name not in (order.slot, *self._erased) and slot.kcv is not None and slot.kcv.agrees(kcv):
                    self._alarm("same_kcv", slot=order.slot, other=name)
            self._record("verified", kcv=digits_of(kcv), usage=order.usage)
            self._go(State.VERIFIED)

    def _prove(self, event: steps.Proof) -> None:
        if self._objected(self._crew.act(event.login)):
            return
        if not event.ok:
            self._abort("proof_failed")
            return
        self.active, self._since = True, self._now
        told = {"method": event.method, "reference": event.reference, **_by(event.login)}
        self._record("active", kcv=digits_of(self.order.kcv), **told)
        self._retire()

    def _retire(self) -> None:
        """Delete what this order ends: the key to be destroyed, or the one that was replaced in another slot."""
        slot = self.order.replaces if self.order.loads else self.order.slot
        if slot and slot not in (*self.order.cleared_first, *self._erased):
            self._queue = [slot]
            self._delete()
            self._go(State.ACTIVE if self.order.loads else State.ERASING)
        else:
            self._since = self._now
            self._go(State.DESTROY)

    def _retired(self, answer: Answer) -> None:
        if self._gone(answer):
            self._retire()

    def _sign(self, event: steps.Signed) -> None:
        who = event.login
        objection = "signed_before" if who.person in self._signed else ""
        if event.envelopes != self.order.envelopes:
            objection = "wrong_statement"
        if self._objected(objection or self._crew.act(who)):
            return
        self._signed[who.person] = None
        self._record("signed", envelopes=list(event.envelopes), digest=event.digest, **_by(who))
        if len(self._signed) < SIGNATURES:
            self._out.append(self.next_step())
        else:
            self._go(State.RECEIPT)

    def _close(self, event: steps.ReceiptMade) -> None:
        self._record("closed", receipt=event.digest)
        self._go(State.CLOSED)

    def _objected(self, objection: str) -> bool:
        if objection:
            self._refuse(objection)
        return bool(objection)

    def _attributes(self) -> dict[str, str]:
        return {"usage": self.order.usage, "algorithm": self.order.algorithm, "mode": self.order.mode}

    def _this_part(self) -> dict[str, str | int]:
        part = self.order.parts[self._part]
        return {"number": self._part + 1, "envelope": str(part.envelope)}


def _by(who: Login) -> dict[str, str]:
    return {"person": who.person, "credential": who.credential, "session": who.session, "login": who.login}


def _fits(head: Header, order: Order) -> bool:
    """Whether a block's header may pass, and says what the order says."""
    policy = Policy(
        usages=frozenset({order.usage}),
        algorithms=order.algorithm,
        single="single_des" in order.exceptions,
        weak_wrapping="weak_wrapping" in order.exceptions,
    )
    try:
        policy.check(head)
    except BlockRefused:
        return False
    stated = (head.mode, head.exportability, head.key_version)
    return stated == (order.mode, order.exportability, f"{order.version:02}")
