"""This file knows what people may ask of key ceremonies over the control socket, and what becomes of it.

    {"do": "keys", "act": "status"}                         {"keys"}
    {… "order", "text"}  {… "applied", "order"}             take a signed order; a key was asked for, or, with
                                                            "withdrawn": true, it was not
    {… "begin", "order", "person", "password"}              open an order, or join the one that is open
    {… "part", "person", "password"}                        open the next envelope: what is in it goes to the pad
    {… "block", "data"}                                     hand over the key block of the order, in Base64
    {… "complete", "person", "password"}                    the second person confirms
    {… "prove", "person", "password", "ok", "method", "reference"}     what the host says of the key
    {… "sign", "order", "person", "password"}               the papers of the order are destroyed
    {… "abort"}  {… "exposed", "where"}                     stop; a component was typed in the wrong place
    {… "receipt", "order"}  {… "signed_on"}                 the receipt; the host has just given new working keys

What moves a ceremony is answered by {"tell"} lines until people have to act again, {"beat"} lines meanwhile, and an
{"end"} line. No text of a request may hold more than 10 hex digits in a row, except a signed order and a key block:
then somebody has pasted a component, which is declared spoiled and repeated nowhere.
"""

import base64
import binascii
import hashlib
import json
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping

from agent.crypto import steps
from agent.crypto.asking import QUIET
from agent.crypto.ceremony import Ceremony
from agent.crypto.keyblock import KeyBlock
from agent.crypto.orders import Order
from agent.crypto.phrases import REFUSALS
from agent.crypto.signing import Keyring
from agent.crypto.steps import Login, State, Tell
from agent.errors import BlockRefused, ControlError, CryptoError
from agent.keys.conducting import IDLE, Conducting
from agent.keys.fields import SPOILED, Answer, Request, name_in, text_in
from agent.keys.orderdesk import OrderDesk
from agent.pasted import LONGEST_HEX, REFUSED, is_name, like_a_part, too_much_hex
from agent.people.accounts import Account, Accounts, WrongPassword
from agent.people.peer import Peer
from agent.timepiece import wall_ms

BEAT, PATIENCE = 2.0, 30.0
"""Seconds between two signs of life; to wait for the disk."""
METHODS = ("echo", "sign_on", "mac")
PAST_STOPPING = QUIET | {State.ACTIVE, State.ERASING, State.ABORTING}
"""States in which nothing is ended by who wants to stop."""
_EXEMPT = {"order": "text", "block": "data"}
_WHERE = ("argv", "prompt", "file", "socket")


class KeyDesk:
    """The requests about keys of one terminal.

    known: the latest time that it is known to have been (wall clock, ms)
    kept: an event that is set once every row so far is on disk
    """

    def __init__(
        self,
        terminal: str,
        conducting: Conducting,
        accounts: Accounts,
        keyring: Keyring,
        known: Callable[[], int],
        receipt: Callable[[str], tuple[str, str, str]],
        status: Callable[[], Answer],
        kept: Callable[[], threading.Event],
    ) -> None:
        self._terminal, self._conducting, self._accounts = terminal, conducting, accounts
        self._receipt, self._status, self._kept = receipt, status, kept
        self._orders = OrderDesk(terminal, conducting, keyring, known, self._keep, self.spoiled)
        self._acts: Mapping[str, Callable[[Request, Peer], Iterator[Answer]]] = {
            "status": lambda request, peer: iter([{"keys": self._status()}]),
            "order": self._orders.take,
            "applied": self._orders.applied,
            "begin": self._begin,
            "part": self._part,
            "block": self._block,
            "complete": self._complete,
            "prove": self._prove,
            "sign": self._sign,
            "abort": self._abort,
            "exposed": self._exposed,
            "receipt": self._give_receipt,
            "signed_on": self._signed_on,
        }

    def answers(self, request: Request, peer: Peer) -> Iterator[Answer]:
        """Answer one request. Raises ControlError with a sentence that repeats nothing of it."""
        act = request.get("act")
        if not isinstance(act, str) or act not in self._acts:
            raise ControlError(f"of keys one may ask {', '.join(self._acts)}", 2)
        self._no_component(request, _EXEMPT.get(act, ""))
        yield from self._acts[act](request, peer)

    def spoiled(self, where: str) -> None:
        """A component was typed where it does not belong."""
        self._conducting.call(lambda: self._stop("exposed", where))

    def _stop(self, cause: str, person: str) -> list[Tell]:
        """What ends a ceremony, and needs no login; where it ends none, anybody could fill the ledger with it."""
        conducting = self._conducting
        if conducting.ceremony.state in PAST_STOPPING and conducting.repeats.counts(
            "trouble", cause=cause, person=person
        ):
            return []
        return conducting.handle(steps.Trouble(cause, person))

    def _no_component(self, request: Request, exempt: str) -> None:
        texts = [text for name, text in request.items() if name != exempt and isinstance(text, str)]
        if any(map(like_a_part, texts)):
            self.spoiled("socket")
            raise ControlError(SPOILED, 1)
        if any(map(too_much_hex, texts)):
            raise ControlError(REFUSED, 2)

    # The ceremony.

    def _begin(self, request: Request, peer: Peer) -> Iterator[Answer]:
        named = name_in(request, "order") if request.get("order") else ""
        login = self._login(request, peer)
        opening = self._orders.open(named, login)

        def act() -> list[Tell]:
            tells = opening()
            if self._conducting.ceremony.state not in IDLE and not only_refusals(tells):
                tells = [*tells, *self._conducting.handle(steps.Joined(login))]
            return tells

        yield from self._moving(act)

    def _part(self, request: Request, peer: Peer) -> Iterator[Answer]:
        login = self._login(request, peer)
        yield from self._moving(lambda: self._conducting.handle(steps.PartBegun(login)))

    def _block(self, request: Request, peer: Peer) -> Iterator[Answer]:
        try:
            data = base64.b64decode(text_in(request, "data"), validate=True)
        except (binascii.Error, ValueError):
            raise ControlError("the key block did not arrive whole: hand it over again", 2) from None

        def act() -> list[Tell]:
            conducting, ceremony = self._conducting, self._conducting.ceremony
            if ceremony.state is not State.BLOCK:
                raise ControlError("not the time for a key block: `tillwire keys status` tells the next step", 1)
            block = data.strip() if ceremony.order.form == "tr31" else data
            digest, header = hashlib.sha256(block).hexdigest(), None
            if ceremony.order.form == "tr31":
                try:
                    header = KeyBlock.parse(block.decode("ascii")).header
                except (BlockRefused, UnicodeDecodeError):
                    raise ControlError(
                        "this is no key block of TR-31: hand over the file of this order", 1
                    ) from None
            if digest == ceremony.order.block:
                conducting.offer(digest, block)
            elif conducting.repeats.counts("refused", order=ceremony.order.id, reason="other_block"):
                return [Tell("other_block", *REFUSALS["other_block"])]
            return conducting.handle(steps.BlockOffered(digest, header))

        yield from self._moving(act)

    def _complete(self, request: Request, peer: Peer) -> Iterator[Answer]:
        login = self._login(request, peer)
        yield from self._moving(lambda: self._conducting.handle(steps.Confirmed(login)))

    def _prove(self, request: Request, peer: Peer) -> Iterator[Answer]:
        ok, method, reference = request.get("ok"), request.get("method"), text_in(request, "reference")
        if not isinstance(ok, bool) or method not in METHODS or (reference and not is_name(reference)):
            raise ControlError(f"a proof is ok or not, by {', '.join(METHODS)}, with a short reference number", 2)
        login = self._login(request, peer)

        yield from self._moving(lambda: self._conducting.handle(steps.Proof(login, ok, method, reference)))

    def _sign(self, request: Request, peer: Peer) -> Iterator[Answer]:
        named = name_in(request, "order") if request.get("order") else ""
        login, conducting = self._login(request, peer), self._conducting
        order, is_passed = conducting.call(lambda: self._papers_of(named))

        def signed() -> steps.Signed:
            said = {"order": order.id, "envelopes": order.envelopes, "person": login.person, "destroyed": True}
            digest = hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
            return steps.Signed(login, order.envelopes, digest)

        if not is_passed:
            yield from self._moving(lambda: conducting.handle(signed()))
            return

        def late() -> tuple[Ceremony, list[steps.Tell]]:
            if order.id not in conducting.held().owed:
                raise ControlError(f"the papers of {order.id} are signed by now: `tillwire keys status`", 1)
            return conducting.afterwards(order.id, signed())

        ceremony, tells = conducting.call(late)
        yield from self._kept_meanwhile()
        yield from map(_told, tells)
        yield _end(ceremony.state, ceremony.next_step())

    def _papers_of(self, named: str) -> tuple[Order, bool]:
        """The order whose papers somebody signs for, and whether another one has passed it. Raises ControlError."""
        ceremony, held = self._conducting.ceremony, self._conducting.held()
        if ceremony.state is State.DESTROY and named in ("", ceremony.order.id):
            return ceremony.order, False
        due = [order for order in held.owed if order in held.papers and named in ("", order)]
        if not due:
            raise ControlError("now is not the time to sign: `tillwire keys status` tells the next step", 1)
        if len(due) > 1:
            raise ControlError(f"of which order? There are {', '.join(due)}", 2)
        return Order.parse(held.owed[due[0]][0]["document"]), True

    def _abort(self, request: Request, peer: Peer) -> Iterator[Answer]:
        person = request.get("person")
        who = person if isinstance(person, str) and self._known(person) else peer.name

        def act() -> list[Tell]:
            if self._conducting.ceremony.state in IDLE:
                raise ControlError("no ceremony is running: there is nothing to stop", 1)
            return self._stop("abandoned", who)

        yield from self._moving(act)

    def _exposed(self, request: Request, peer: Peer) -> Iterator[Answer]:
        where = request.get("where")
        yield from self._moving(lambda: self.spoiled(where if where in _WHERE else "prompt"), inside=False)

    def _signed_on(self, request: Request, peer: Peer) -> Iterator[Answer]:
        self._conducting.call(lambda: self._conducting.guard.look(signed_on=True))
        yield {"looking": True}

    def _give_receipt(self, request: Request, peer: Peer) -> Iterator[Answer]:
        self._keep()
        order, text, digest = self._receipt(name_in(request, "order") if request.get("order") else "")

        def close() -> None:
            ceremony = self._conducting.ceremony
            if ceremony.state is State.RECEIPT and ceremony.order.id == order:
                self._conducting.handle(steps.ReceiptMade(digest))
            elif order in (held := self._conducting.held()).owed and order not in held.papers:
                self._conducting.afterwards(order, steps.ReceiptMade(digest))

        self._conducting.call(close)
        yield {"order": order, "receipt": text}

    # Who, and how it goes on.

    def _login(self, request: Request, peer: Peer) -> Login:
        """Who has proved to be who. Raises ControlError; a wrong try counts in the ceremony as well."""
        person, password = text_in(request, "person"), text_in(request, "password")
        if not peer.session:
            raise ControlError("the command that asks is gone already", 3)
        try:
            account: Account = self._accounts.person(person, password)
        except WrongPassword as error:
            self._conducting.call(lambda: self._wrong(person))
            raise ControlError(str(error), 1) from None
        number, named = secrets.token_hex(LONGEST_HEX // 2), f"account.{account.name}"
        return Login(account.name, account.role, account.group, named, peer.session, number, self._terminal)

    def _wrong(self, person: str) -> None:
        """A wrong try; of somebody whom nobody knows the name stands nowhere: it may be a password, typed there."""
        conducting = self._conducting
        if self._known(person):
            conducting.handle(steps.WrongLogin(person, wall_ms()))
        elif not conducting.repeats.counts("login", person="withheld", result="wrong"):
            conducting.record("login", person="withheld", result="wrong")

    def _known(self, person: str) -> bool:
        """Whether this is the name of somebody."""
        try:
            return is_name(person) and person in self._accounts.names()
        except ControlError:  # nobody can be read, and a stop must not wait for that
            return False

    def _moving(self, act: Callable[[], list[Tell] | None], *, inside: bool = True) -> Iterator[Answer]:
        """Do something to the ceremony, and tell what follows until people have to act again; when nothing was
        done, only why: what others do meanwhile is theirs."""
        conducting = self._conducting
        last = conducting.told.last
        try:
            at_once = (conducting.call(act) if inside else act()) or []
        except CryptoError as error:
            raise ControlError(str(error), 1) from error
        refused = only_refusals(at_once)
        if refused:
            yield from self._kept_meanwhile()
            yield from map(_told, at_once)
        while not refused:
            settled, tells = conducting.told.since(last, BEAT)
            # Whoever hears that a key works shreds its papers, so that is on disk first; a stop waits for no disk.
            if any(tell.word != State.ABORTING.value for _, tell in tells):
                yield from self._kept_meanwhile()
            for number, tell in tells:
                last = number
                yield _told(tell)
            if settled and not tells:
                break
            if not tells:
                yield _beat()
        state, step = conducting.call(lambda: (conducting.ceremony.state, conducting.next_step()))
        yield _end(state, step)

    def _kept_meanwhile(self) -> Iterator[Answer]:
        """Signs of life until all so far is on disk."""
        kept = self._kept()
        while not kept.wait(BEAT):
            yield _beat()

    def _keep(self) -> None:
        """Wait until all is on disk. Raises ControlError."""
        if not self._kept().wait(PATIENCE):
            raise ControlError("nothing can be stored now, so this was not done: see `tillwire diagnose`")


def _beat() -> Answer:
    return {"beat": wall_ms()}


def _told(tell: Tell) -> Answer:
    return {"tell": {"word": tell.word, "en": tell.en, "zh": tell.zh}}


def _end(state: State, step: Tell) -> Answer:
    return {"end": state.value, "step": {"word": step.word, "en": step.en, "zh": step.zh}}


def only_refusals(tells: list[Tell]) -> bool:
    """Whether something was told, and it is only why nothing was done."""
    return bool(tells) and all(tell.word in REFUSALS for tell in tells)
