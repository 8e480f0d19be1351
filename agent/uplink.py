"""This file knows how a terminal stays connected, from birth to last will, and that the cursor waits for PUBACK.

Each connection is given only a window of messages: what it holds when a line breaks is thrown away with it and read
again from the store. What it is given says publishing.py; which broker comes next, and when, says brokers.py.
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
from agent.brokers import Brokers
from agent.byteaccount import of_terminal
from agent.config import Config
from agent.connection import ReasonCode, refused
from agent.errors import StoreError, UplinkError, UplinkRefused
from agent.posting import Post
from agent.publishing import Publishing, StateOf
from agent.store import Reader, Store
from agent.tls import Credentials

FAREWELL = 2.0
PATIENCE = 30.0
"""Seconds to wait for a PUBACK before the connection is taken for dead."""
LOOK = 2.0
"""Seconds between two looks at the certificate files."""
TRIAL = 300.0
"""Seconds after which new certificate files are tried again, when the trial said nothing about them."""
MANY = 50
"""Sentences remembered as said."""

NOBODY = 0x10
"""PUBACK reason "no matching subscribers" (MQTT 5.0, table 3-8): a success, but nobody has the message."""

log = logging.getLogger(__name__)


class Uplink:
    """The connection of one terminal to its broker.

    store     read through a reader of this thread's own; only `settle` writes
    devices   the names whose state is published
    state_of  (reader, device, session) -> its present state
    removed   names that are not configured any more: their retained state is taken away
    trouble   what is wrong with this terminal's store, as a sentence; empty when nothing is
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
    ) -> None:
        if config.broker is None:
            raise UplinkError("the configuration names no broker")
        self._config, self._broker = config, config.broker
        self._store, self._state_of = store, state_of
        self._devices, self._removed = tuple(devices), tuple(removed)
        self._boot, self._version, self._trouble = boot, version, trouble
        self._stop = stop
        self._news: deque[bool] = deque()
        self._ear, self._bell = socket.socketpair()
        self._ear.setblocking(False)
        self._bell.setblocking(False)
        uplink = config.uplink
        self._brokers = Brokers(self._broker.addresses, uplink.retry, uplink.refused)
        self._credentials = Credentials(self._broker.tls) if self._broker.tls else None
        self._draw = SystemRandom().uniform
        self._greeting = ""
        self._told: set[str] = set()
        self._accepted: float | None = None
        self._look = 0.0
        self._account = of_terminal(config)
        self.progress = time.monotonic()
        self.status = ("connecting", "not connected yet")

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted this terminal."""
        return self.status[0] == "connected"

    def traffic(self) -> dict[str, Any]:
        """What the line has carried (agent/byteaccount.py)."""
        return self._account.shown(_wall())

    def poke(self, urgent: bool) -> None:
        """Tell the uplink that something was committed, or that it is time to look at `stop`.

        Without a connection nobody needs telling (a new one begins by reading the store), and a month of pokes
        must not pile up.
        """
        if self.connected:
            self._news.append(urgent)
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
        post = None
        try:
            # The reader first: who cannot read the store is not connected to anything.
            with self._store.reading() as reader:
                post = self._connected(session)
                with closing(self._publishing(post, reader, session)) as publishing:
                    self._serve(publishing)
            if self._stop.is_set():
                self._farewell(publishing)
                post.close()
        except StoreError as error:
            self._say("down", str(error))
            return UplinkError(str(error))
        except UplinkError as error:
            self._say("down", str(error))
            return error
        finally:
            if post:
                self._account.add(*post.used(), _wall(), time.monotonic())
                post.cut()
            self._news.clear()  # the next connection begins by reading the store
        return None

    def _connected(self, session: str) -> Post:
        """A connection that the broker has accepted."""
        self.progress = time.monotonic()
        will = messages.Death(online=False, session=session, at=_wall(), reason="lost")
        connection = self._connect_with(self._context(), "", (self._topic("session"), messages.compact(will)))
        try:
            connection.open(self._stop)
        except UplinkError as error:
            self._account.add(*connection.used(), _wall(), time.monotonic())
            connection.cut()
            if self._credentials and isinstance(error, UplinkRefused):
                self._credentials.failed()
            raise
        if self._credentials:
            self._credentials.worked()
        self._accepted = time.monotonic()
        self._greeting = f"connected to {connection.where} with MQTT {self._broker.protocol}"
        self._say("connected", self._greeting)
        return connection

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
            self._say("connected", f"{self._greeting}, but not with the new certificate files: {error}")
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

    def _publishing(self, post: Post, reader: Reader, session: str) -> Publishing:
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
        )

    def _serve(self, publishing: Publishing) -> None:
        """Publish until `stop` is set or a new connection is wanted: also when the store has another file by now.
        Raises UplinkError when this one is lost."""
        delivery, told = publishing.delivery, self._trouble()
        delivery.news(True, time.monotonic())
        while not self._stop.is_set():
            now = self.progress = time.monotonic()
            if publishing.reader.opened != self._store.opened or (delivery.quiet() and self._renewed()):
                return
            if told != (told := self._trouble()):
                publishing.first.append(("session", self._birth(publishing.session)))
            publishing.turn(now)
            if delivery.overdue(now, PATIENCE):
                raise UplinkError(f"no PUBACK for {PATIENCE:.0f} s")
            publishing.post.turn(min(PATIENCE, delivery.deadline() - time.monotonic()), self._ear)
            self._take_in(publishing)

    def _take_in(self, publishing: Publishing) -> None:
        """Act on what has come: news of the store, acknowledgements, the end of the connection."""
        events = publishing.post.events
        while self._news:
            publishing.delivery.news(self._news.popleft(), time.monotonic())
        while events:
            kind, content = events.popleft()
            if kind == "lost":
                raise refused("the connection was lost", content)
            if kind == "ack":
                self._acknowledged(publishing, *content)

    def _acknowledged(self, publishing: Publishing, mid: int, code: ReasonCode) -> None:
        delivery = publishing.delivery
        if code.is_failure:
            raise refused("the broker does not take a message", code)
        if delivery.carries_rows(mid):
            unheard = self._config.uplink.wait_for_reader and code.value == NOBODY
            note = "nobody is subscribed to the ledger: it is kept here" if unheard else self._greeting
            self._say("connected", note)
            if unheard:
                delivery.hold(time.monotonic() + self._config.uplink.retry)
                return
            self._told = {self._greeting}  # what goes wrong from now on is news
        self._store.settle(publishing.reader.epoch, delivery.acknowledged(mid))

    def _farewell(self, publishing: Publishing) -> None:
        """Say that this is a planned stop, and wait for the broker to have taken it."""
        end = time.monotonic() + FAREWELL
        last = 0
        while time.monotonic() < end:
            if not last and publishing.delivery.room():
                last = publishing.farewell()
            publishing.post.turn(FAREWELL)
            self._take_in(publishing)
            if last and not publishing.delivery.awaits(last):
                break
        self._say("off", "the agent has stopped")

    def _birth(self, session: str) -> bytes:
        return messages.compact(
            messages.Birth(
                online=True,
                session=session,
                at=_wall(),
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

    def _say(self, state: str, sentence: str) -> None:
        """What the uplink is like now. Each sentence is logged once until things are well again: a broker that
        refuses is tried many times, and may even accept us between two refusals."""
        if sentence not in self._told:
            log.log(logging.WARNING if state == "down" else logging.INFO, "uplink: %s", sentence)
            self._told = {sentence} if len(self._told) >= MANY else self._told | {sentence}
        self.status = (state, sentence)


def _wall() -> int:
    return time.time_ns() // 1_000_000
