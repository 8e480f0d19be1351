"""This file knows how an agent comes to an uplink, takes leave of it, and changes to another configuration's."""

import threading
import time
from collections.abc import Callable, Iterable

from agent.config import Config
from agent.messages import Parting, SessionDevice, too_large
from agent.mqtt.outbox import Outbox
from agent.mqtt.publishing import StateOf
from agent.store import Store
from agent.uplink import Uplink
from agent.workers import Worker, Workers

HANG_UP = 2.0
"""Seconds that a planned stop waits for the broker to acknowledge the last rows."""
TURN = 0.02


class Uplinks:
    """The uplinks of one agent, one after the other. `now`: the one in force; None when no broker is named.

    hear     what takes what the centre sends (agent/mqtt/inbox.py), if anything does; to be set before `begin`
    outbox   what is to be told to the centre, over whichever of them
    """

    def __init__(
        self,
        store: Store,
        state_of: StateOf,
        boot: str,
        version: str,
        trouble: Callable[[], str],
        workers: Workers,
    ) -> None:
        self._store, self._state_of, self._trouble = store, state_of, trouble
        self._boot, self._version, self._workers = boot, version, workers
        self.outbox = Outbox(too_large)
        self.hear: Callable[[str, bytes], None] | None = None
        self.now: Uplink | None = None

    def begin(self, config: Config, removed: Iterable[str]) -> None:
        """Connect to the broker that is named. removed: devices whose retained state is taken away there."""
        if config.broker is None:
            self.now = None
            return
        devices = [SessionDevice(name=d.name, kind=d.kind, access=d.access) for d in config.devices.values()]
        stop = threading.Event()
        self.now = uplink = Uplink(
            config,
            self._store,
            devices,
            self._state_of,
            self._boot,
            self._version,
            stop,
            removed,
            self._trouble,
            self.hear,
            self.outbox,
        )
        self._workers.add(Worker("uplink", uplink.run, stop, lambda: uplink.poke(True)))

    def end(self, parting: Parting) -> None:
        """Take leave of the broker, and wait for it a little."""
        if self.now:
            self.now.parting = parting
        self._workers.end(["uplink"])

    def deliver(self) -> None:
        """Wait a little for the broker to have every row."""
        end = time.monotonic() + HANG_UP
        while self._store.acked < self._store.head and self.connected and time.monotonic() < end:
            time.sleep(TURN)

    @property
    def connected(self) -> bool:
        """Whether a broker has accepted this terminal."""
        uplink = self.now
        return uplink is not None and uplink.connected

    @property
    def status(self) -> tuple[str, str]:
        """(state, sentence), for people."""
        uplink = self.now
        return uplink.status if uplink else ("off", "the configuration names no broker")

    def refresh(self) -> None:
        """Publish every state again at once, changed or not. Without a connection, the next one does so anyway."""
        if uplink := self.now:
            uplink.poke(True, afresh=True)

    def poke(self, urgent: bool) -> None:
        """Something was committed."""
        if uplink := self.now:
            uplink.poke(urgent)
