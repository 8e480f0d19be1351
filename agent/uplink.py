"""This file knows how a terminal stays connected, from birth to last will, and that the cursor waits for PUBACK.

Each connection is given only a window of messages: what it holds when a line breaks is thrown away with it and read
again from the store. What it is given says publishing.py, what comes back means what answers.py says; which broker
comes next, and when, says brokers.py.
"""

import logging
import secrets
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import closing
from random import SystemRandom
from typing import Any

from agent import messages
from agent.config import Config
from agent.errors import StoreError, UplinkError, UplinkRefused
from agent.mqtt.answers import Answers
from agent.mqtt.brokers import Brokers
from agent.mqtt.byteaccount import of_terminal
from agent.mqtt.inbox import Inbox
from agent.mqtt.outbox import Outbox
from agent.mqtt.posting import Post
from agent.mqtt.proof import Proof
from agent.mqtt.publishing import Publishing, StateOf
from agent.mqtt.refusals import Refusal
from agent.mqtt.saying import Saying
from agent.store import Reader, Store
from agent.timepiece import wall_ms
from agent.tls import Credentials

FAREWELL = 2.0
PATIENCE = 30.0
"""Seconds to wait for a PUBACK before the connection is taken for dead."""
LOOK = 2.0
"""Seconds between two looks at the certificate files."""
TRIAL = 300.0
"""Seconds after which new certificate files are tried again, when the trial said nothing about them."""

log = logging.getLogger(__name__)


class Uplink:
    """The connection of one terminal to its broker.

    store     read through a reader of this thread's own; only `settle` writes
    devices   the names whose state is published
    state_of  (reader, device, session) -> its present state
    removed   names that are not configured any more: their retained state is taken away
    trouble   what is wrong with this terminal's store, as a sentence; empty when nothing is
    hear      is given what the centre sends (agent/mqtt/inbox.py); without it, or without [push] in the
              configuration, nothing is subscribed to
    outbox    what an uplink before this one had still to tell
    inbox     whether anything is heard; None when nothing is subscribed to

    proven    when the newest message was sent that the broker has taken, by the monotonic clock
    parting   what its last message says when `stop` is set: the agent has stopped, or it changes to another uplink
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        devices: Iterable[messages.SessionDevice],
        state_of: StateOf,
        boot: str,
        version: str,
        stop: threading.Event,
        removed: Iterable[str] = (),
        trouble: Callable[[], str] = str,
        hear: Callable[[str, bytes], None] | None = None,
        outbox: Outbox | None = None,
    ) -> None:
        if config.broker is None:
            raise UplinkError("the configuration names no broker")
        self._config, self._broker = config, config.broker
        self._store, self._state_of = store, state_of
        self._devices, self._removed = tuple(devices), tuple(removed)
        self._boot, self._version, self._trouble = boot, version, trouble
        self._stop = stop
        self._news: deque[tuple[bool, bool]] = deque()
        self._ear, self._bell = socket.socketpair()
        self._ear.setblocking(False)
        self._bell.setblocking(False)
        uplink = config.uplink
        self._brokers = Brokers(self._broker.addresses, uplink.retry, uplink.refused)
        self._credentials = Credentials(self._broker.tls) if self._broker.tls else None
        self._draw = SystemRandom().uniform
        self._saying = Saying()
        self._accepted: float | None = None
        self._look = 0.0
        self._account = of_terminal(config)
        self.inbox = Inbox(config.terminal.org, config.terminal.id, hear) if hear and config.push else None
        self.outbox = Outbox() if outbox is None else outbox
        self.proven = float("-inf")
        self.parting: messages.Parting = "stopped"
        self.progress = time.monotonic()

    @property
    def status(self) -> tuple[str, str]:
        """(state, sentence), for people."""
        return self._saying.status

    @property
    def hindrance(self) -> Refusal | None:
        """What keeps pushes, or reports of them, from passing this broker; rows and states go on."""
        return self._saying.hindrance

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted this terminal."""
        return self.status[0] == "connected"

    def traffic(self) -> dict[str, Any]:
        """What the line has carried (agent/mqtt/byteaccount.py)."""
        return self._account.shown(wall_ms())

    def adopt(self, config: Config) -> None:
        """Another configuration is in force, with the same broker, uplink and devices: the birth says so."""
        self._config = config
        if self.connected:
            self._ring()

    def poke(self, urgent: bool, afresh: bool = False) -> None:
        """Tell the uplink that something was committed, that every state is wanted `afresh`, or to look at `stop`.

        Without a connection nobody needs telling (a new one begins by reading the store), and a month of pokes
        must not pile up.
        """
        if self.connected:
            self._news.append((urgent, afresh))
            self._ring()

    def tell(self, suffix: str, payload: bytes, retain: bool) -> None:
        """Publish this below the terminal's topic, before states and rows, until the broker has it. For any thread.
        Raises UplinkError when it is too large (agent/mqtt/outbox.py)."""
        self.outbox.put(suffix, payload, retain)
        if self.connected:
            self._ring()

    def _ring(self) -> None:
        try:
            self._bell.send(b"!")
        except BlockingIOError:
            return  # it rings already

    def run(self) -> None:
        """Stay connected until `stop` is set."""
        while not self._stop.is_set():
            error = self._connection()
            if error and not self._stop.is_set():
                now, accepted = time.monotonic(), self._accepted
                if accepted is None or isinstance(error, UplinkRefused):
                    wait = self._brokers.failed(now, self._draw, refused=isinstance(error, UplinkRefused))
                else:
                    wait = self._brokers.lost(now, self._draw, now - accepted)
                self._rest(now + wait)
        self._account.keep()

    def _rest(self, end: float) -> None:
        """Wait until `end`, or until there are new certificate files: somebody is here and mends something."""
        while (now := time.monotonic()) < end and not self._stop.wait(min(LOOK, end - now)):
            self.progress = time.monotonic()
            if self._credentials and self._credentials.changed():
                self._brokers.mended()
                return

    def _connection(self) -> UplinkError | None:
        """One connection from CONNECT to its end. Returns why it ended, None when we wanted it to."""
        session = secrets.token_hex(4)
        self._accepted = None
        post = proof = None
        try:
            # The reader first: who cannot read the store is not connected to anything.
            with self._store.reading() as reader:
                post = self._connected(session)
                proof = self._listen(post)  # before the birth
                with closing(self._publishing(post, reader, session, proof)) as publishing:
                    answers = Answers(publishing, self.inbox, self._saying)
                    self._serve(answers)
            if self._stop.is_set():
                self._farewell(answers)
                post.close()
        except StoreError as error:
            self._saying.say("down", str(error))
            return UplinkError(str(error))
        except UplinkError as error:
            # Mosquitto hangs up after it has acknowledged and dropped a message: that is no loss of the line.
            why = proof.refusal() if proof and proof.is_missed else error
            self._saying.say("down", str(why))
            return why
        finally:
            if post:
                self._account.add(*post.used(), wall_ms(), time.monotonic())
                post.cut()
            self._news.clear()  # the next connection begins by reading the store
        return None

    def _connected(self, session: str) -> Post:
        """A connection that the broker has accepted."""
        self.progress = time.monotonic()
        will = messages.Death(online=False, session=session, at=wall_ms(), reason="lost")
        connection = self._connect_with(self._context(), "", (self._topic("session"), messages.compact(will)))
        try:
            connection.open(self._stop)
        except UplinkError as error:
            self._account.add(*connection.used(), wall_ms(), time.monotonic())
            connection.cut()
            if self._credentials and isinstance(error, UplinkRefused):
                self._credentials.failed()
            raise
        if self._credentials:
            self._credentials.worked()
        self._accepted = time.monotonic()
        self._saying.greet(f"connected to {connection.where} with MQTT {self._broker.protocol}")
        return connection

    def _listen(self, post: Post) -> Proof | None:
        """Subscribe to what is for this terminal and, where that must be shown, to what it is about to write."""
        now = time.monotonic()
        if self.inbox:
            self.inbox.asked(post.subscribe(self.inbox.topics), now)
        if self._broker.protocol == "5":
            return None
        own = self._topic("ledger")
        return Proof(own, post.subscribe([own], qos=0), now)

    def _connect_with(self, tls: ssl.SSLContext | None, suffix: str, will: tuple[str, bytes] | None = None) -> Post:
        name = f"{self._config.terminal.org}-{self._config.terminal.id}{suffix}"
        return Post(self._broker, self._brokers.address, name, tls, will)

    def _context(self) -> ssl.SSLContext | None:
        try:
            return self._credentials.context() if self._credentials else None
        except OSError as error:
            cause = f"the certificates in [broker.tls] cannot be used: {error}"
            raise UplinkRefused(cause, "put right what it names: the files are looked at again") from error

    def _renewed(self) -> bool:
        """Whether there are new certificate files and the broker takes them: shown by a second connection, while
        the first one stays. Called when nothing is under way."""
        now = time.monotonic()
        if self._credentials is None or now < self._look:
            return False
        self._look = now + LOOK
        trial = None
        try:
            fresh = self._credentials.fresh()
            if fresh is None:
                return False
            trial = self._connect_with(fresh, "-trial")
            trial.open(self._stop)
        except (OSError, UplinkError) as error:
            self._saying.say(
                "connected", f"{self._saying.greeting}, but not with the new certificate files: {error}"
            )
            if isinstance(error, UplinkError) and not isinstance(error, UplinkRefused):
                self._credentials.acquit()
                self._look = now + TRIAL
            return False
        finally:
            if trial:
                trial.close()
        self._credentials.acquit()
        log.info("uplink: the broker takes the new certificate files: changing to them")
        return True

    def _publishing(self, post: Post, reader: Reader, session: str, proof: Proof | None) -> Publishing:
        first = [("session", self._birth(session)), *((f"state/{device}", b"") for device in self._removed)]
        names = [device.name for device in self._devices]
        return Publishing(
            self._config,
            self._store,
            reader,
            post,
            session,
            self._account,
            self._state_of,
            names,
            deque(first),
            self.outbox,
            proof,
        )

    def _serve(self, answers: Answers) -> None:
        """Publish until `stop` is set or a new connection is wanted: also when the store has another file by now.
        Raises UplinkError when this one is lost."""
        publishing, told = answers.publishing, (self._trouble(), self._config.digest)
        delivery = publishing.delivery
        delivery.news(True, time.monotonic())
        while not self._stop.is_set():
            now = self.progress = time.monotonic()
            if publishing.reader.opened != self._store.opened or (delivery.quiet() and self._renewed()):
                return
            if told != (told := (self._trouble(), self._config.digest)):
                publishing.first.append(("session", self._birth(publishing.session)))
            publishing.turn(now)
            answers.check(now, PATIENCE)
            publishing.post.turn(min(PATIENCE, delivery.deadline() - time.monotonic()), self._ear)
            self._take_in(answers)

    def _take_in(self, answers: Answers) -> None:
        """Act on what has come: news of the store, and what the broker sent."""
        while self._news:
            urgent, afresh = self._news.popleft()
            answers.publishing.delivery.news(urgent, time.monotonic(), afresh)
        answers.take_in()
        self.proven = max(self.proven, answers.publishing.proven)

    def _farewell(self, answers: Answers) -> None:
        """Say that this end is planned, and wait for the broker to have taken it."""
        publishing, last = answers.publishing, 0
        end = time.monotonic() + FAREWELL
        while time.monotonic() < end:
            if not last and publishing.delivery.room():
                last = publishing.farewell(self.parting)
            publishing.post.turn(FAREWELL)
            self._take_in(answers)
            if last and not publishing.delivery.awaits(last):
                break
        stopped = self.parting == "stopped"
        self._saying.say("off", "the agent has stopped" if stopped else "another configuration is being taken")

    def _birth(self, session: str) -> bytes:
        return messages.compact(
            messages.Birth(
                online=True,
                session=session,
                at=wall_ms(),
                boot=self._boot,
                version=self._version,
                config=self._config.digest,
                epoch=self._store.epoch,
                head=self._store.head,
                acked=self._store.acked,
                devices=self._devices,
                trouble=self._trouble(),
                certificate=self._credentials.until() if self._credentials else 0,
            )
        )

    def _topic(self, suffix: str) -> str:
        return messages.topic(self._config.terminal.org, self._config.terminal.id, suffix)
