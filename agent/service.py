"""This file knows how the parts of a terminal are built, started, watched, exchanged for those of another
configuration, and stopped; it decides nothing else.

Threads: one per link, one core, one uplink, one control. They share the queue and the store. What of the
configuration is in force is `Service.config`, which changes in the core's thread only.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import metadata, resources
from typing import TYPE_CHECKING, Any

from agent import catalogue
from agent.calling import insist
from agent.clock import Instant
from agent.config import Config
from agent.control import Control, Desk
from agent.core import Core, Item
from agent.diagnose import as_json, collect
from agent.disk.committing import MANY, RETRY, Committing
from agent.errors import ConfigError, StoreError
from agent.evidence.notary import Notary
from agent.intake import drained, seen
from agent.lines.links import Links
from agent.messages import DeviceState
from agent.model import Batch, Fence, Heard, Note, Operation, Outcome, Turn
from agent.mqtt.uplinks import Uplinks
from agent.people.accounts import Accounts
from agent.people.desk import AccountDesk
from agent.pushing.inforce import Begun
from agent.pushing.swapping import Difference, difference, links
from agent.pushing.view import without
from agent.recalling import answered, recalled, relearn
from agent.state import published
from agent.store import Reader, Store
from agent.timepiece import boot_id, look
from agent.uplink import Uplink
from agent.workers import Worker, Workers

if TYPE_CHECKING:
    from agent.keys.parts import KeyParts
    from agent.pushing.parts import PushParts

SUPERVISE = 1.0
FLUSH = 5.0
"""Seconds after which an idle core writes a delivery cursor that has moved."""

log = logging.getLogger(__name__)


class Service:
    """One terminal. `run` returns after `stop` was set. Raises StoreError or ControlError when it cannot begin.

    look     tells the time; the monotonic clock in it is this process's own
    config   what is in force
    hearing  called with all that a link hears, in the link's thread: they neither wait nor raise
    again    once it has ended: whether it is to begin again
    """

    def __init__(
        self, begun: Begun, look: Callable[[], Instant] = look, stop: threading.Event | None = None
    ) -> None:
        self.stop = stop or threading.Event()
        config = begun.config
        self.config, self._begun, self._look = config, begun, look
        self.hearing: list[Callable[[Heard], None]] = []
        self.again = False
        self._changing = threading.Lock()
        self._catalogue = catalogue.parse(resources.files("agent").joinpath("faults.toml").read_text("utf-8"))
        self._queue: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        cap = config.terminal.disk * 1024 * 1024
        self._store = Store(config.terminal.data, config.terminal.id, cap=cap, locked=begun.folder)
        self._store.forget_all()
        self._accounts = Accounts(config.terminal.data / "accounts.json", lambda: look().wall_ms)
        self._boot = boot_id()
        self._version = metadata.version("tillwire")
        self._committing = Committing(self._store, self._said, self._queue.put, self._renew)
        self._removed: list[str] = []
        self._notary = Notary(config, self._store, look, self._boot, self._version)
        self._workers = Workers(self._queue.put)
        self._links = Links(self._put, self._workers)
        self._uplinks = Uplinks(
            self._store, self._state_of, self._boot, self._version, self._trouble, self._workers
        )
        self._core = self._make_core()
        self._keys = self._make_keys()
        self._pushes = self._make_pushes()
        self._people = AccountDesk(self._accounts, self._queue.put, self._keys.forgive if self._keys else None)
        self._control = Control(
            lambda: self.config,
            self._store,
            self._catalogue,
            self._queue.put,
            lambda: self._uplinks.status,
            self._diagnose,
            self._trouble,
            self._desks(),
            self.stop,
        )
        self._store.on_commit = self._committed
        self._workers.add(Worker("core", self._run_core), Worker("control", self._control.run))
        self._uplinks.begin(config, self._removed)
        if self._keys:
            self._workers.add(Worker("keys", self._keys.run))
        if self._pushes:
            self._workers.add(Worker("pushes", self._pushes.desk.run))
        self._links.begin(links(config))

    @property
    def uplink(self) -> Uplink | None:
        """The uplink as `config` has it; None when that names no broker."""
        return self._uplinks.now

    def run(self) -> None:
        """Start everything, keep it running, and stop it cleanly once `stop` is set."""
        for note in (Note("start", self._start_facts()), *self._notary.notes):
            self._queue.put(note)
        self._workers.start()
        while not self.stop.wait(SUPERVISE):
            self._workers.revive()
            self._people.tell(time.monotonic())
        self._finish()

    def restart(self) -> None:
        """End as when `stop` is set, and have this process begin anew."""
        self.again = True
        self.stop.set()

    def reconfigure(self, config: Config) -> Difference:
        """Take another configuration, while all that it leaves as it was goes on. Returns what has changed, once
        the new parts have begun; whether they work, time will tell. The same with the old one takes all back.

        For a thread of the caller's own: it waits for links and core. Once `stop` is set nothing is begun any more.
        Raises ConfigError, with nothing done, when a table differs that is read at a start only. Whatever else it
        raises, it may have done a part: take the old one.
        """
        with self._changing:
            change = difference(self.config, config)
            if change.local:
                tables = " and ".join(f"[{name}]" for name in change.local)
                raise ConfigError(f"{tables}: the file is not what the agent was started with; restart the agent")
            self._links.end(change.ended)
            if not insist(lambda do: self._queue.put(Turn(do)), lambda: self._exchange(config, change), self.stop):
                return change
            wired = links(config)
            self._links.begin({name: wired[name] for name in change.begun})
            if change.uplink:
                self._uplinks.end("changing")
                self._uplinks.begin(config, self._removed)
            elif self.uplink:
                self.uplink.adopt(config)
            self._control.poke()
            return change

    def _exchange(self, config: Config, change: Difference) -> None:
        """The core's part: what was known of devices that are gone, and what is stored of those that come."""
        self.config = config
        self._removed = sorted({*self._removed, *change.removed} - config.devices.keys())
        self._core.forget(change.removed)
        self._committing.take(self._said())
        relearn(self._core, self._store, change.added)

    def _make_core(self) -> Core:
        devices = self.config.devices
        with self._store.reading() as reader:
            self._removed = sorted({p.device for p in reader.points()} - devices.keys())
            return recalled(reader, devices, self._catalogue, self._boot)

    def _make_keys(self) -> "KeyParts | None":
        if self.config.keys is None:
            return None
        # Imported here: a terminal into which no keys are loaded needs none of it in its memory.
        from agent.keys.parts import KeyParts

        identity, perform, config = self._notary.identity, self._links.perform, self.config
        take, keys, tried = self._queue.put, self.config.keys, lambda: self._pushes.tried if self._pushes else ""
        parts = keys, self._store, self._accounts, identity, take, perform, self.stop
        return KeyParts(config, *parts, lambda: self._core.known, tried)

    def _make_pushes(self) -> "PushParts | None":
        if self._begun.pushed is None:
            return None
        from agent.pushing.parts import Agent, PushParts  # as above

        keys = self._keys
        agent = Agent(
            lambda: self.config,
            self.reconfigure,
            self._queue.put,
            lambda: self.uplink,
            self._uplinks.outbox,
            lambda: self._core.quality,
            lambda: keys is not None and keys.busy,
            self._diagnose,
            self._states,
            self.restart,
            keys.answers if keys else None,
            self._boot,
            lambda: self._links.begun,
            answered(self._store),
        )
        parts = PushParts(self._begun, agent, self.stop)
        self._uplinks.hear = parts.desk.hear
        self.hearing.append(parts.heard)
        return parts

    def _states(self) -> dict[str, DeviceState]:
        with self._store.reading() as reader:
            return {name: self._state_of(reader, name, "") for name in self.config.devices}

    def _desks(self) -> Mapping[str, Desk]:
        desks: dict[str, Desk] = {"accounts": self._people.answers}
        desks |= {"export": self._notary.answers, "signer": self._notary.signer}
        desks["pushes"] = self._pushes.desk.answers if self._pushes else without(self._begun)
        return desks | ({"keys": self._keys.answers} if self._keys else {})

    def _perform_late(self, operation: Operation, now: float) -> None:
        """Hand on what has waited for its row, unless who asked has given it up meanwhile."""
        why = ""
        if operation.id in self._committing.unspelled:
            why = "it cannot be ledgered: it holds what has no spelling there"
        elif self._keys and self._keys.conducting.withdrawn(operation):
            why = "it was given up before it could be ledgered"
        if why:
            self._put(Heard(operation.device, (Outcome(operation.id, "refused", why, now),)))
        else:
            self._links.perform(operation)

    def _put(self, heard: Heard) -> None:
        """Queue what a link heard, unless the core is so far behind that only outcomes matter; or the device is not
        configured any more, and its link would not end."""
        if heard.device not in self.config.devices:
            heard = replace(heard, items=tuple(item for item in heard.items if isinstance(item, Outcome)))
        for hear in tuple(self.hearing):
            hear(heard)
        if self._keys:
            heard = self._keys.conducting.heard(heard)
        if self._queue.qsize() < MANY or any(isinstance(item, Outcome) for item in heard.items):
            self._queue.put(heard)
        else:
            self._committing.dropped += len(heard.items)

    def _start_facts(self) -> dict[str, Any]:
        facts = {"version": self._version, "config": self.config.digest, "store": self._store.found}
        facts |= {**self._store.fate(), **self._notary.facts}
        return {**facts, "previous": self._store.previous} if self._store.previous else facts

    def _state_of(self, reader: Reader, device: str, session: str) -> DeviceState:
        faults = [f for f in reader.faults() if f.device == device]
        return published(
            reader.points(device), self._store.seen(device), faults, self._catalogue, session, self._look()
        )

    def _committed(self, urgent: bool) -> None:
        self._uplinks.poke(urgent)
        self._control.poke()

    def _trouble(self) -> str:
        return self._committing.trouble or self._notary.trouble

    def _diagnose(self) -> list[dict[str, Any]]:
        live = {
            **self._workers.seen(),
            "queue": self._queue.qsize(),
            "uplink": self._uplinks.status,
            "hindrance": self.uplink and self.uplink.hindrance,
            "store": self._store.found,
            "trouble": self._committing.trouble,
            "signing": self._notary.trouble,
        }
        return as_json(collect(self.config, live, self._store.path))

    def _run_core(self) -> None:
        """Drain what is there, make it one transaction, hand operations on once they are in the ledger."""
        asked: list[Operation | Fence] = []
        while True:
            items = self._drain()
            moment = self._look()
            real = [item for item in items if item is not None]
            for device, points in seen(real):
                self._store.saw(device, points)
            is_stored = self._committing.take(self._core.step(real, moment.now, moment.wall_ms, moment.synced))
            for item in real:
                if isinstance(item, Turn):
                    item.do()
            asked += [item for item in real if isinstance(item, Operation | Fence)]
            if is_stored:
                for item in asked:
                    if isinstance(item, Operation):
                        self._perform_late(item, moment.now)
                    else:
                        item.reached()
                asked.clear()
                self._notary.turn(moment)
            if None in items:
                return
            if not items:
                self._committing.flush()

    def _said(self, *notes: Note) -> Batch:
        """What notes, and the time that has passed, become now."""
        moment = self._look()
        return self._core.step(notes, moment.now, moment.wall_ms, moment.synced)

    def _renew(self) -> None:
        """A new store knows what its first rows say. Nothing else may pass for unchanged: all is read afresh."""
        self._core = self._make_core()

    def _drain(self) -> list[Item | None]:
        if self._committing.is_full:
            return [None] if self.stop.wait(RETRY) else []
        patience = RETRY if self._committing.waits else FLUSH
        return drained(self._queue, min(patience, self._core.deadline() - time.monotonic()))

    def _finish(self) -> None:
        """Half a key is deleted while there are links. Then they end, the core takes what they have left, the
        uplink delivers it, and all is closed."""
        self._workers.close()
        self._workers.end(["keys"])
        self._links.end_all()
        self._people.tell()
        self._queue.put(None)
        self._workers.end(["core"])
        moment, note = self._look(), Note("stop", {"reason": "restart" if self.again else "asked"})
        try:
            rest = self._core.finish(moment.now, moment.wall_ms, note, moment.synced)
            if self._committing.take(rest, now=True):
                self._notary.turn(moment, stopping=True)
        except StoreError as error:
            log.error("%s", error)
        self._uplinks.deliver()
        self._uplinks.end("stopped")
        self._control.wake()
        self._workers.end(["control"])
        try:
            self._store.close()
        except StoreError as error:
            log.error("%s", error)
