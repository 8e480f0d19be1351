"""This file knows who is let in at the local socket: how long a request may take to come, and how many at once are
answered. A stop must always come through, so nobody may hold the door.

Whoever has connected waits in the lobby until the request is whole, at most PATIENCE seconds in all, however slowly
it comes; that takes no thread. One user has MINE seats there: who takes one more loses the oldest. Only then is
there a question of a place (Places), because only then is it known whether somebody wants to stop a ceremony.
"""

import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from agent.errors import ControlError
from agent.people.peer import Peer, peer

REQUEST_LIMIT = 64 * 1024
PATIENCE = 5.0
"""Seconds in which a request must have come."""
SEATS, MINE = 64, 16
"""Connections whose request has not come: of all, and of one user."""
CLIENTS = 8
"""Requests that are answered at once."""
OWN, STOPS = 2, 2
"""Places beyond these: for root and the agent's own user, and again beyond for who stops a ceremony. When those are
taken as well, it is being stopped."""
USER = 4
"""Requests of one user that are answered at once; root and the agent's own user have no limit of their own."""


@dataclass(slots=True, eq=False)
class Caller:
    """Who has connected. until: monotonic seconds. said: what has come of the request."""

    connection: socket.socket
    peer: Peer
    until: float
    said: bytes = b""


class Places:
    """How many requests are answered now, and of whom."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: Counter[int] = Counter()

    def take(self, who: Peer, *, stops: bool) -> None:
        """Take a place. Raises ControlError when there is none for this user and this request."""
        own = who.owns_agent
        with self._lock:
            if self._taken.total() >= CLIENTS + (OWN if own or stops else 0) + (STOPS if stops else 0):
                raise ControlError(f"{self._taken.total()} commands are talking to the agent already: close one")
            if not (own or stops) and self._taken[who.uid] >= USER:
                raise ControlError(f"{USER} commands of user {who.name} are talking to the agent: close one")
            self._taken[who.uid] += 1

    def leave(self, who: Peer) -> None:
        """Give a place back."""
        with self._lock:
            self._taken[who.uid] -= 1
            self._taken += Counter()  # forgets who has none


class Lobby:
    """Those who have connected to `server` and whose request has not come yet. For one thread."""

    def __init__(self, server: socket.socket, clock: Callable[[], float] = time.monotonic) -> None:
        self._server, self._clock = server, clock
        self._waiting: list[Caller] = []
        self._selector = selectors.DefaultSelector()
        server.setblocking(False)
        self._selector.register(server, selectors.EVENT_READ)

    def turn(self, patience: float) -> list[Caller]:
        """Wait so many seconds for something to come. Returns those whose request is whole, or too long, or ended
        early; they are the caller's own from then on."""
        ready: list[Caller] = []
        for key, _ in self._selector.select(patience):
            for caller in [key.data] if key.data else self._let_in():
                if caller in self._waiting and self._has_said(caller):
                    self._dismiss(caller)
                    ready.append(caller)
        for caller in [one for one in self._waiting if self._clock() >= one.until]:
            self._hang_up(caller)
        return ready

    def shut(self) -> None:
        """Let nobody in any more; who waits in `turn` returns at once. For any thread."""
        with suppress(OSError):  # it is closed already
            self._server.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Send everybody away."""
        for caller in list(self._waiting):
            self._hang_up(caller)
        self._selector.close()
        self._server.close()

    def _let_in(self) -> Iterator[Caller]:
        """All who knock; a crowd does not keep those out who wait already."""
        for _ in range(SEATS):
            try:
                connection, _ = self._server.accept()
            except OSError:
                return  # nobody more, or one who has left already
            yield self._seat(connection)

    def _seat(self, connection: socket.socket) -> Caller:
        connection.setblocking(False)
        caller = Caller(connection, peer(connection), self._clock() + PATIENCE)
        mine = [one for one in self._waiting if one.peer.uid == caller.peer.uid]
        if len(mine) >= MINE:
            self._hang_up(mine[0])
        elif len(self._waiting) >= SEATS:
            self._hang_up(self._waiting[0])
        self._waiting.append(caller)
        self._selector.register(connection, selectors.EVENT_READ, caller)
        return caller

    def _has_said(self, caller: Caller) -> bool:
        """Hear what has come; whether there is nothing more to wait for."""
        try:
            more = caller.connection.recv(REQUEST_LIMIT)
        except BlockingIOError:
            return False
        except OSError:
            more = b""
        caller.said += more
        return not more or b"\n" in more or len(caller.said) > REQUEST_LIMIT

    def _hang_up(self, caller: Caller) -> None:
        self._dismiss(caller)
        caller.connection.close()

    def _dismiss(self, caller: Caller) -> None:
        self._waiting.remove(caller)
        self._selector.unregister(caller.connection)
