"""This file knows what becomes of an order that is handed over: it is taken in or refused, it waits, it is opened.

Anybody who may talk to the agent may hand something over, without a login. So what is refused is counted: a row at
once, and then one a minute that says how often; no more than WAITED_FOR keys are waited for at a time, and that is
changed no more than CHANGES times within a day.
"""

from collections.abc import Callable, Iterator

from agent.crypto.crew import Crew
from agent.crypto.holdings import DAY_MS, Holdings, Row
from agent.crypto.orders import Order, Site
from agent.crypto.phrases import REFUSALS
from agent.crypto.signing import ORDER, Keyring, Rule, accept
from agent.crypto.steps import Login, Tell
from agent.errors import ControlError, EnvelopeRefused
from agent.keys.conducting import Conducting
from agent.keys.fields import SPOILED, Answer, Request, name_in, text_in
from agent.keys.table import ROLES
from agent.pasted import holds_a_key
from agent.people.peer import Peer
from agent.timepiece import wall_ms

WAITED_FOR = 100
"""Keys that were asked for and have not come, at most."""
CHANGES = 2 * WAITED_FOR
"""Rows within a day that say that a key was asked for, or was not."""


class OrderDesk:
    """The orders of one terminal, from their arrival to their opening.

    known: the latest time that it is known to have been (wall clock, ms). keep: waits until every row so far is on
    disk. spoiled: declares a component spoiled that was typed there.
    """

    def __init__(
        self,
        terminal: str,
        conducting: Conducting,
        keyring: Keyring,
        known: Callable[[], int],
        keep: Callable[[], None],
        spoiled: Callable[[str], None],
    ) -> None:
        self._terminal, self._conducting, self._keyring = terminal, conducting, keyring
        self._known, self._keep, self._spoiled = known, keep, spoiled

    def take(self, request: Request, peer: Peer) -> Iterator[Answer]:
        """An order is handed over. Raises ControlError."""
        text, conducting = text_in(request, "text"), self._conducting
        try:
            accepted = accept(text.strip().encode(), Rule(ORDER, ROLES), self._keyring)
            order = Order.parse(accepted.content())
            if order.terminal != self._terminal:
                raise EnvelopeRefused("wrong_target", REFUSALS["wrong_target"].en)
        except EnvelopeRefused as error:
            reason = error.reason
            # Not before: Base64 may look like a key by chance.
            if reason == "not_valid" and holds_a_key(text):
                self._spoiled("file")
                raise ControlError(SPOILED, 1) from None
            conducting.call(lambda: self._refuse(reason))
            raise ControlError(f"the order is refused: {error}", 1) from None
        signers = [signer.name for signer in accepted.signers]
        about = {"order": order.id, "slot": order.slot, "document": order.document(), "signers": signers}
        keys = [signer.key.id for signer in accepted.signers]

        def take() -> bool:
            came = ("received", "opened")
            known = [row for row in conducting.rows if row["event"] in came and row["order"] == order.id]
            if any(row["digest"] != accepted.digest for row in known):
                self._refuse("same_id")
                raise ControlError(f"the order is refused: {REFUSALS['same_id'].en}", 1)
            # Signed anew, by those who count now: that is what waits from here on.
            is_anew = not any(row["event"] == "opened" or self._counts(row) for row in known)
            if is_anew:
                conducting.record("received", digest=accepted.digest, keys=keys, **about)
            return not is_anew

        already = conducting.call(take)
        self._keep()
        yield {"order": order.document(), "signers": signers, "already": already}

    def _counts(self, row: Row) -> bool:
        """Whether those who signed an order that came still count: who was robbed of a key, and is taken off the
        file of signers, has not signed what waits here."""
        return all(map(self._keyring.find, row.get("keys", ())))

    def _refuse(self, reason: str) -> None:
        self._conducting.repeats.note("refused", reason=reason)

    def applied(self, request: Request, peer: Peer) -> Iterator[Answer]:
        """A key was asked for, or that is taken back. Raises ControlError."""
        order, word = name_in(request, "order"), "withdrawn" if request.get("withdrawn") is True else "applied"

        def note() -> None:
            held = self._conducting.held()
            waited_for = held.applied.keys() - held.received.keys()
            if word == "withdrawn" and order not in held.applied:
                raise ControlError(f"nobody waits for the key of {order}", 1)
            if word == "applied" and order in held.applied:
                return
            if word == "applied" and len(waited_for) >= WAITED_FOR:
                raise ControlError(f"{WAITED_FOR} keys are waited for: `tillwire keys order --withdraw ID`", 1)
            since, asked = wall_ms() - DAY_MS, ("applied", "withdrawn")
            if sum(row["event"] in asked and row["at"] >= since for row in self._conducting.rows) >= CHANGES:
                raise ControlError(f"{CHANGES} times within a day is enough: note this one tomorrow", 1)
            self._conducting.record(word, order=order)

        self._conducting.call(note)
        self._keep()
        yield {word: order}

    def open(self, named: str, login: Login) -> Callable[[], list[Tell]]:
        """What opens the order that is meant, in the conductor's thread, when none is open: its tells.

        An order that was opened is used up, so whoever could not take part in it does not open it.
        """
        known = self._known()

        def act() -> list[Tell]:
            conducting = self._conducting
            free = conducting.free
            if not free and named in ("", conducting.ceremony.order.id):
                return []
            row = self._meant(named)
            order, site = Order.parse(row["document"]), Site(self._terminal, conducting.serial)
            crew = Crew(order, site, conducting.held(), wall_ms())
            objection = "signer_gone" if not self._counts(row) else crew.objection(login) if free else ""
            if objection:
                conducting.record("refused", order=order.id, reason=objection)
                return [Tell(objection, *REFUSALS[objection])]
            return conducting.open(order, tuple(row["signers"]), row["digest"], known)

        return act

    def _meant(self, named: str) -> Row:
        """The row of the order that is meant. Raises ControlError."""
        conducting = self._conducting
        held = conducting.held()
        if named:
            for row in _unopened(conducting, held):
                if row["order"] == named:
                    return row
            why = (
                "was carried out already, or stopped: ask for a new one"
                if named in held.orders
                else "has not come: `tillwire keys order FILE`"
            )
            raise ControlError(f"the order {named} {why}", 1)
        waiting = waiting_orders(conducting, held)
        if not waiting:
            raise ControlError("there is no order to carry out: `tillwire keys order FILE` hands one over", 1)
        if len(waiting) > 1:
            raise ControlError(f"which order? There are {', '.join(sorted(row['order'] for row in waiting))}", 2)
        return waiting[0]


def waiting_orders(conducting: Conducting, held: Holdings) -> list[Row]:
    """The rows of orders that came, were not opened, and have not expired. In the conductor's thread."""
    now = wall_ms()
    return [row for row in _unopened(conducting, held) if now <= row["document"]["not_after"]]


def _unopened(conducting: Conducting, held: Holdings) -> list[Row]:
    came = {row["order"]: row for row in conducting.rows if row["event"] == "received"}  # the newest of each
    return [row for order, row in came.items() if order not in held.orders]
