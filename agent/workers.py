"""This file knows the threads of an agent: a dead one is started again, the later the more often it dies, and its
death is a row of the ledger; those that are no longer wanted are told to end, and waited for.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from agent.model import Note

RESTART_MAX, RESTART_STABLE = 30.0, 600.0
PATIENCE = 5.0
"""Seconds that threads may take to end. One that takes longer is left to itself."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Worker:
    """A thread that is kept running. `stop`, if it has one of its own, makes `target` return; `wake` is called once
    that is set. `again` is when a dead one may be started, `deaths` how often it has died."""

    name: str
    target: Callable[[], None]
    stop: threading.Event | None = None
    wake: Callable[[], object] = bool
    thread: threading.Thread | None = None
    error: str = ""
    again: float = 0.0
    deaths: int = 0
    begun: float = 0.0

    def start(self) -> None:
        self.begun = time.monotonic()
        self.thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.target()
        except BaseException as error:
            self.error = f"{type(error).__name__}: {error}"
            log.exception("%s died", self.name)


class Workers:
    """The threads of one agent. `put` takes the rows about dead ones. What is added before `start` waits for it."""

    def __init__(self, put: Callable[[Note], None]) -> None:
        self._put = put
        self._lock = threading.Lock()
        self._all: list[Worker] = []
        self._is_running = self._is_closed = False

    def add(self, *workers: Worker) -> None:
        """Keep these running from now on; nothing is begun any more once `close` was called."""
        with self._lock:
            if not self._is_closed:
                self._all = [*self._all, *workers]
                for worker in workers if self._is_running else ():
                    worker.start()

    def start(self) -> None:
        """Begin."""
        with self._lock:
            self._is_running = True
            for worker in self._all:
                worker.start()

    def close(self) -> None:
        """Begin nothing any more: from now on threads only end."""
        with self._lock:
            self._is_closed = True

    def revive(self) -> None:
        """Start dead threads again, the later the more often they die."""
        with self._lock:
            now = time.monotonic()
            for worker in self._all if not self._is_closed else ():
                if worker.thread and not worker.thread.is_alive():
                    worker.thread = None
                    worker.deaths = 1 if now - worker.begun > RESTART_STABLE else worker.deaths + 1
                    worker.again = now + min(RESTART_MAX, 0.5 * 2 ** min(worker.deaths, 10))
                    self._put(Note("thread", {"name": worker.name, "error": worker.error or "ended"}))
                if worker.thread is None and now >= worker.again:
                    worker.start()

    def end(self, names: Iterable[str]) -> None:
        """Have these threads end, and wait for it, PATIENCE seconds for all of them."""
        wanted = set(names)
        with self._lock:
            ending = [worker for worker in self._all if worker.name in wanted]
            self._all = [worker for worker in self._all if worker.name not in wanted]
        for worker in ending:
            if worker.stop:
                worker.stop.set()
                worker.wake()
        until = time.monotonic() + PATIENCE
        for worker in ending:
            if worker.thread:
                worker.thread.join(max(0.0, until - time.monotonic()))
                if worker.thread.is_alive():
                    log.warning("%s has not ended within %.0f s: it is left to itself", worker.name, PATIENCE)

    def seen(self) -> dict[str, Any]:
        """For a person: "threads" {name: whether it is alive}, "deaths" {name: how often, if it has died}."""
        workers = self._all
        return {
            "threads": {w.name: bool(w.thread and w.thread.is_alive()) for w in workers},
            "deaths": {w.name: w.deaths for w in workers if w.deaths},
        }
