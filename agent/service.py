"""This file knows how the parts of a terminal are built, started, watched and stopped; it decides nothing else.

Threads: one per link, one core, one uplink, one control. They share the queue and the store. A thread that dies is
started again, and its death is a row of the ledger.
"""

import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata, resources
from typing import TYPE_CHECKING, Any

from agent import catalogue, points
from agent.accountdesk import AccountDesk
from agent.accounts import Accounts
from agent.clock import Clock, Instant
from agent.committing import MANY, RETRY, Committing
from agent.config import Config
from agent.control import Control, Desk
from agent.core import Core, Item
from agent.diagnose import as_json, collect
from agent.errors import StoreError
from agent.faults import Faults
from agent.link import Link
from agent.messages import DeviceState, SessionDevice
from agent.model import Batch, Fence, Heard, Note, Operation, Outcome, Reading
from agent.notary import Notary
from agent.state import published
from agent.store import TAIL, Reader, Store
from agent.timepiece import boot_id, look
from agent.uplink import Uplink
from agent.watch import Watch

if TYPE_CHECKING:
    from agent.keyparts import KeyParts

SUPERVISE = 1.0
RESTART_MAX, RESTART_STABLE = 30.0, 600.0
DRAIN = 4000
"""Most items that become one commit: the store's log has its bounds."""
HANG_UP = 2.0
"""Seconds that a planned stop waits for the broker to acknowledge the last rows."""
FLUSH = 5.0
"""Seconds after which an idle core writes a delivery cursor that has moved."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Worker:
    """A thread that is kept running. `again` is when a dead one may be started, `deaths` how often it has died."""

    name: str
    target: Callable[[], None]
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


class Service:
    """One terminal. `run` returns after `stop` was set. Raises StoreError or ControlError when it cannot begin.

    look   tells the time; the monotonic clock in it is this process's own"""

    def __init__(
        self, config: Config, look: Callable[[], Instant] = look, stop: threading.Event | None = None
    ) -> None:
        self.stop, self._hang_up = stop or threading.Event(), threading.Event()
        self._config, self._look = config, look
        self._catalogue = catalogue.parse(resources.files("agent").joinpath("faults.toml").read_text("utf-8"))
        self._queue: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        cap = config.terminal.disk * 1024 * 1024
        self._store = Store(config.terminal.data, config.terminal.id, cap=cap)
        self._store.forget_all()
        self._accounts = Accounts(config.terminal.data / "accounts.json", lambda: look().wall_ms)
        self._boot = boot_id()
        self._version = metadata.version("tillwire")
        self._committing = Committing(self._store, self._said, self._queue.put, self._renew)
        self._removed: list[str] = []
        self._notary = Notary(config, self._store, look, self._boot, self._version)
        self._core = self._make_core()
        self._links = self._make_links()
        self._keys = self._make_keys()
        self._uplink = self._make_uplink()
        self._control = Control(
            config,
            self._store,
            self._catalogue,
            self._queue.put,
            self._uplink_status,
            self._diagnose,
            self._trouble,
            self._desks(),
            self.stop,
        )
        self._store.on_commit = self._committed
        workers = [("core", self._run_core), ("control", self._control.run)]
        if self._uplink:
            workers.append(("uplink", self._uplink.run))
        if self._keys:
            workers.append(("keys", self._keys.run))
        workers += [(f"link:{link.name}", link.run) for link in dict.fromkeys(self._links.values())]
        self._workers = [_Worker(name, target) for name, target in workers]

    def run(self) -> None:
        """Start everything, keep it running, and stop it cleanly once `stop` is set."""
        for note in (Note("start", self._start_facts()), *self._notary.notes):
            self._queue.put(note)
        for worker in self._workers:
            worker.start()
        while not self.stop.wait(SUPERVISE):
            self._revive()
        self._finish()

    def _make_core(self) -> Core:
        with self._store.reading() as reader:
            stored, faults, end = reader.points(), reader.faults(), reader.rows(reader.head()[0] - TAIL, TAIL)
        last = {
            (p.device, p.point): p.value
            for p in stored
            if p.device in self._config.devices and points.exists(p.point)
        }
        ours = [f for f in faults if f.device in self._config.devices]
        removed = [f for f in faults if f.device not in self._config.devices]
        self._removed = sorted({p.device for p in stored} - self._config.devices.keys())
        clock = Clock(self._boot, [json.loads(row) for _, row, _ in end])
        return Core(Watch(last), Faults(self._catalogue, ours), self._boot, removed, clock)

    def _make_links(self) -> dict[str, Link]:
        """Device -> its link; devices that share a line share the link."""
        links = {}
        for line in self._config.lines.values():
            devices = [d for d in self._config.devices.values() if d.line == line.name]
            links.update(dict.fromkeys((d.name for d in devices), Link(line, devices, self._put, self.stop)))
        alone = [d for d in self._config.devices.values() if not d.line]
        return links | {d.name: Link(d, [d], self._put, self.stop) for d in alone}

    def _make_keys(self) -> "KeyParts | None":
        if self._config.keys is None:
            return None
        # Imported here: a terminal into which no keys are loaded needs none of it in its memory.
        from agent.keyparts import KeyParts

        table, identity = self._config.keys, self._notary.identity
        take, perform = self._queue.put, self._perform
        return KeyParts(self._config, table, self._store, self._accounts, identity, take, perform, self.stop)

    def _desks(self) -> Mapping[str, Desk]:
        people = AccountDesk(self._accounts, self._queue.put, self._keys.forgive if self._keys else None)
        desks: dict[str, Desk] = {"accounts": people.answers}
        desks |= {"export": self._notary.answers, "signer": self._notary.signer}
        return desks | ({"keys": self._keys.answers} if self._keys else {})

    def _perform(self, operation: Operation) -> None:
        """Hand an operation to its link."""
        self._links[operation.device].perform(operation)

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
            self._perform(operation)

    def _put(self, heard: Heard) -> None:
        """Queue what a link heard, unless the core is so far behind that only outcomes matter."""
        if self._keys:
            heard = self._keys.conducting.heard(heard)
        if self._queue.qsize() < MANY or any(isinstance(item, Outcome) for item in heard.items):
            self._queue.put(heard)
        else:
            self._committing.dropped += len(heard.items)

    def _make_uplink(self) -> Uplink | None:
        if self._config.broker is None:
            return None
        devices = [SessionDevice(name=d.name, kind=d.kind, access=d.access) for d in self._config.devices.values()]
        return Uplink(
            self._config,
            self._store,
            devices,
            self._state_of,
            self._boot,
            self._version,
            self._hang_up,
            self._removed,
            self._trouble,
        )

    def _start_facts(self) -> dict[str, Any]:
        facts = {"version": self._version, "config": self._config.digest, "store": self._store.found}
        facts |= {**self._store.fate(), **self._notary.facts}
        return {**facts, "previous": self._store.previous} if self._store.previous else facts

    def _state_of(self, reader: Reader, device: str, session: str) -> DeviceState:
        faults = [f for f in reader.faults() if f.device == device]
        return published(
            reader.points(device), self._store.seen(device), faults, self._catalogue, session, self._look()
        )

    def _committed(self, urgent: bool) -> None:
        if self._uplink:
            self._uplink.poke(urgent)
        self._control.poke()

    def _trouble(self) -> str:
        return self._committing.trouble or self._notary.trouble

    def _uplink_status(self) -> tuple[str, str]:
        return self._uplink.status if self._uplink else ("off", "the configuration names no broker")

    def _diagnose(self) -> list[dict[str, Any]]:
        live = {
            "threads": {w.name: bool(w.thread and w.thread.is_alive()) for w in self._workers},
            "deaths": {w.name: w.deaths for w in self._workers if w.deaths},
            "queue": self._queue.qsize(),
            "uplink": self._uplink_status(),
            "store": self._store.found,
            "trouble": self._committing.trouble,
            "signing": self._notary.trouble,
        }
        return as_json(collect(self._config, live, self._store.path))

    def _run_core(self) -> None:
        """Drain what is there, make it one transaction, hand operations on once they are in the ledger."""
        asked: list[Operation | Fence] = []
        while True:
            items = self._drain()
            moment = self._look()
            real = [item for item in items if item is not None]
            self._note_seen(real)
            is_stored = self._committing.take(self._core.step(real, moment.now, moment.wall_ms, moment.synced))
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

    def _said(self, note: Note) -> Batch:
        """What a note becomes now."""
        moment = self._look()
        return self._core.step([note], moment.now, moment.wall_ms, moment.synced)

    def _renew(self) -> None:
        """A new store knows what its first rows say. Nothing else may pass for unchanged: all is read afresh."""
        self._core = self._make_core()

    def _drain(self) -> list[Item | None]:
        """Everything that is on the queue now, up to DRAIN; waits for the first of it until something is due."""
        if self._committing.is_full:
            return [None] if self.stop.wait(RETRY) else []
        patience = RETRY if self._committing.waits else FLUSH
        items: list[Item | None] = []
        try:
            items.append(self._queue.get(timeout=min(patience, max(0.0, self._core.deadline() - time.monotonic()))))
            while len(items) < DRAIN:
                items.append(self._queue.get_nowait())
        except queue.Empty:
            pass
        return items

    def _note_seen(self, items: Sequence[Item]) -> None:
        for item in items:
            if isinstance(item, Heard):
                seen = {r.point: round(r.at * 1000) for r in item.items if isinstance(r, Reading)}
                self._store.saw(item.device, seen)

    def _revive(self) -> None:
        """Start dead threads again, the later the more often they die."""
        now = time.monotonic()
        for worker in self._workers:
            if worker.thread and not worker.thread.is_alive():
                worker.thread = None
                worker.deaths = 1 if now - worker.begun > RESTART_STABLE else worker.deaths + 1
                worker.again = now + min(RESTART_MAX, 0.5 * 2 ** min(worker.deaths, 10))
                self._queue.put(Note("thread", {"name": worker.name, "error": worker.error or "ended"}))
            if worker.thread is None and now >= worker.again:
                worker.start()

    def _finish(self) -> None:
        """Links first, then the core takes what they have left, then the uplink delivers it, then all is closed."""
        self._join("link:")
        self._queue.put(None)
        self._join("core")
        moment, note = self._look(), Note("stop", {"reason": "asked"})
        try:
            last = self._core.finish(moment.now, moment.wall_ms, note, moment.synced)
            if self._committing.take(last, now=True):
                self._notary.turn(moment, stopping=True)
        except StoreError as error:
            log.error("%s", error)
        if self._uplink:
            end = time.monotonic() + HANG_UP
            while self._store.acked < self._store.head and self._uplink.connected and time.monotonic() < end:
                self._hang_up.wait(0.02)
            self._hang_up.set()
        self._committed(True)
        self._join("uplink")
        self._join("control")
        try:
            self._store.close()
        except StoreError as error:
            log.error("%s", error)

    def _join(self, name: str) -> None:
        for worker in self._workers:
            if worker.name.startswith(name) and worker.thread:
                worker.thread.join(5.0)
