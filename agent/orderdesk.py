"""This file knows what becomes of an order that is handed over: it is taken in or refused, it waits, it is opened.

Anybody who may talk to the agent may hand something over, without a login. So what is refused is counted: a row at
once, and then one a minute that says how often; and no more than WAITED_FOR keys are waited for at a time.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator

from agent.conducting import IDLE, Conducting
from agent.crypto.crew import Crew
from agent.crypto.holdings import Holdings, Row
from agent.crypto.orders import Order, Site, looks_like_key
from agent.crypto.phrases import REFUSALS
from agent.crypto.signing import ORDER, Keyring, Rule, accept
from agent.crypto.steps import Login, State, Tell
from agent.errors import ControlError, EnvelopeRefused
from agent.fields import SPOILED, Answer, Request, name_in, text_in
from agent.keytable import ROLES
from agent.peer import Peer
from agent.timepiece import wall_ms

MINUTE = 60.0
WAITED_FOR = 100
"""Keys that were asked for and have not come, at most."""


class Tally:
    """Counts words, and says of each at most once a minute how often it came. `now` is in monotonic seconds."""

    def __init__(self) -> None:
        self._counts = Counter[str]()
        self._told: dict[str, float] = {}

    def add(self, word: str) -> None:
        self._counts[word] += 1

    def due(self, now: float) -> list[tuple[str, int]]:
        """The words that may be told now, with their counts, which begin anew."""
        last = self._told
        due = [(word, n) for word, n in self._counts.items() if word not in last or now - last[word] >= MINUTE]
        for word, _ in due:
            del self._counts[word]
            self._told[word] = now
        return due


class OrderDesk:
    """The orders of one terminal, from their arrival to their opening.

    newest: the `at` of the newest ledger row, wall clock in ms. keep: waits until every row so far is on disk.
    spoiled: declares a component spoiled that was typed there.
    """

    def __init__(
        self,
        terminal: str,
        conducting: Conducting,
        keyring: Keyring,
        newest: Callable[[], int],
        keep: Callable[[], None],
        spoiled: Callable[[str], None],
    ) -> None:
        self._terminal, self._conducting, self._keyring = terminal, conducting, keyring
        self._newest, self._keep, self._spoiled = newest, keep, spoiled
        self._refused = Tally()

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
            if reason == "not_valid" and looks_like_key(text):
                self._spoiled("file")
                raise ControlError(SPOILED, 1) from None
            conducting.call(lambda: self._refused.add(reason))
            self.tell_refused()
            raise ControlError(f"the order is refused: {error}", 1) from None
        signers = [signer.name for signer in accepted.signers]
        about = {"order": order.id, "slot": order.slot, "document": order.document(), "signers": signers}

        def take() -> bool:
            if any(r.get("order") == order.id for r in conducting.rows if r["event"] in ("received", "opened")):
                return True
            conducting.record("received", digest=accepted.digest, **about)
            return False

        already = conducting.call(take)
        self._keep()
        yield {"order": order.document(), "signers": signers, "already": already}

    def tell_refused(self) -> None:
        """Write the rows that are due of what was refused; the rest is told with a later request."""

        def tell() -> None:
            for reason, count in self._refused.due(time.monotonic()):
                self._conducting.record("refused", reason=reason, count=count)

        self._conducting.call(tell)

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
            self._conducting.record(word, order=order)

        self._conducting.call(note)
        self._keep()
        yield {word: order}

    def open(self, named: str, login: Login) -> Callable[[], list[Tell]]:
        """What opens the order that is meant, in the conductor's thread, when none is open: its tells.

        An order that was opened is used up, so whoever could not take part in it does not open it.
        """
        newest = self._newest()

        def act() -> list[Tell]:
            conducting = self._conducting
            free = conducting.ceremony.state in (*IDLE, State.RECEIPT)
            if not free and named in ("", conducting.ceremony.order.id):
                return []
            row = self._meant(named)
            order, site = Order.parse(row["document"]), Site(self._terminal, conducting.serial)
            objection = Crew(order, site, conducting.held(), wall_ms()).objection(login) if free else ""
            if objection:
                conducting.record("refused", order=order.id, reason=objection)
                return [Tell(objection, *REFUSALS[objection])]
            return conducting.open(order, tuple(row["signers"]), row["digest"], newest)

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
    return [row for row in conducting.rows if row["event"] == "received" and row["order"] not in held.orders]
