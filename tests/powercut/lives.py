"""This file knows what the recorded processes do: short lives of whatever writes files that must survive.

    python -m tests.powercut.lives LIFE ROOT WISHES     with recorder.c preloaded

What a process has promised to others by now goes into the recording as a mark: {"event", …}. The content of each
commit follows from the head before it, so that an image can be judged without knowing its past.
"""

import ctypes
import json
import queue
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent.crypto import keepers
from agent.crypto.sealing import SecretStore
from agent.crypto.secret import Secret
from agent.crypto.signing import CONFIGURATION, Accepted, Envelope
from agent.errors import StoreCorrupt
from agent.model import Batch, Fault, Note, StoredPoint
from agent.people.accounts import Accounts
from agent.pushing.inforce import begin
from agent.pushing.shelf import Shelf, Step
from agent.service import Service
from agent.store import Store

DATA = "till/data"
TERMINAL = "T1"
MACHINE = b"00112233445566778899aabbccddeeff\n"
PAGES = 12
"""A checkpoint of the log after so many pages, so that a short life has some."""


def mark(event: str, **facts: Any) -> None:
    """Write a promise into the recording."""
    ctypes.CDLL(None).powercut_mark(json.dumps({"event": event, **facts}).encode())


def batch(head: int, found: str = "", previous: str = "") -> Batch:
    """The commit that follows row `head`; every fifth is large. The first of a chain says where it comes from."""
    kind = "ceremony" if head % 4 == 1 else "change"
    text = "~" * (9000 if head % 5 == 3 else head * 37 % 400)
    first = {"kind": "start", "found": found, "previous": previous, "n": head}
    rows = [{"kind": kind, "n": head, "text": text} for _ in range(1 + head * 7 % 3)]
    fault = Fault("d", f"p{head % 6}", f"f{head % 4}", head, head)
    is_raised = head // 4 % 2 == 0
    return Batch(
        rows=rows if head else [first, *rows],
        points=[StoredPoint("d", f"p{head % 6}", head, True, head)],
        raised=[fault] if is_raised else [],
        cleared=[] if is_raised else [Fault("d", f"p{p}", f"f{head % 4}", 0, 0) for p in range(6)],
    )


def opened(root: Path, synchronous: str = "FULL", pages: int = PAGES) -> Store:
    store = Store(root / DATA, TERMINAL)
    small(store, synchronous, pages)
    mark("opened", epoch=store.epoch)
    return store


def small(store: Store, synchronous: str = "FULL", pages: int = PAGES) -> None:
    """Make this connection checkpoint early, and (a control) not sync as it should."""
    store._db.execute(f"PRAGMA wal_autocheckpoint = {pages}")
    if synchronous != "FULL":
        store._db.execute(f"PRAGMA synchronous = {synchronous}")


def commit_unmarked(store: Store, commits: int) -> None:
    for _ in range(commits):
        store.commit(batch(store.head, store.found, store.previous))


def commit(store: Store, commits: int) -> None:
    """Commit, and mark each as accepted; now and then the broker acknowledges."""
    for number in range(commits):
        commit_unmarked(store, 1)
        mark("accepted", epoch=store.epoch, head=store.head, hash=store.head_hash.hex())
        if number % 4 == 2:
            store.settle(store.epoch, store.head - 1)


def ledgering(root: Path, commits: int = 30, synchronous: str = "FULL", pages: int = PAGES) -> None:
    """Open, commit, close."""
    store = opened(root, synchronous, pages)
    store.forget_all()
    commit(store, commits)
    store.close()
    mark("closed")


def damaged(root: Path, how: str, commits: int = 4, pages: int = 1000) -> None:
    """A store that is found damaged at a start ("row") or while the agent runs; somebody reads it, so that its log
    is not taken into the file, and holds all rows."""
    store = opened(root, pages=pages)
    commit(store, commits)
    reader = store.reader()
    mark("damaged", epoch=store.epoch, head=store.head)
    if how == "row":
        store._db.execute("UPDATE ledger SET row = row || ' ' WHERE seq = ?", (store.head,))
        store.close()
        store = Store(root / DATA, TERMINAL)
    else:
        store.doubt(StoreCorrupt("a reader met damage"))
        with suppress(StoreCorrupt):
            commit(store, 1)
        store.set_aside("a reader met damage")
    small(store)
    mark("anew", epoch=store.epoch)
    commit(store, commits)
    reader.close()
    store.close()


class _Marked(Service):
    """The whole agent; it marks what it accepts, and tells who waits here."""

    def __init__(self, config: Path) -> None:
        super().__init__(begin(config))
        self.store = self._store
        self.store.set_aside = self._set_aside  # type: ignore[method-assign]
        self.commits: queue.SimpleQueue[None] = queue.SimpleQueue()
        mark("opened", epoch=self.store.epoch)
        small(self.store)

    def note(self, text: str) -> None:
        """Have a row written, and wait until it is accepted."""
        before = self.store.epoch, self.store.head
        self._queue.put(Note("thread", {"name": text, "error": ""}))
        while (self.store.epoch, self.store.head) == before:
            self.commits.get(timeout=30.0)

    def _committed(self, urgent: bool) -> None:
        mark("accepted", epoch=self.store.epoch, head=self.store.head, hash=self.store.head_hash.hex())
        super()._committed(urgent)
        self.commits.put(None)

    def _set_aside(self, why: str) -> None:
        mark("damaged", epoch=self.store.epoch, head=self.store.head)
        Store.set_aside(self.store, why)
        mark("anew", epoch=self.store.epoch)


def serving(root: Path, rows: int = 6) -> None:
    """The whole agent, whose store is set aside while it runs; its devices do not answer."""
    config = root.parent / "terminal.toml"
    config.write_text(
        f'[terminal]\norg = "coop"\nid = "{TERMINAL}"\ndata = "{root / DATA}"\n[control]\nsocket = "tw.sock"\n'
        '[devices.ups1]\nkind = "ups"\nport = "./nowhere"\n'
    )
    service = _Marked(config)
    running = threading.Thread(target=service.run)
    running.start()
    for number in range(rows):
        service.note(f"row {number}")
    service.store.doubt(StoreCorrupt("a reader met damage"))
    for number in range(rows):
        service.note(f"row {number} of the new chain")
    service.stop.set()
    running.join()


def counting(root: Path, changes: int = 4) -> None:
    """Accounts: a person whose wrong tries are counted."""
    Store(root / DATA, TERMINAL).close()
    accounts = Accounts(root / DATA / "accounts.json", lambda: 0)
    for number in range(changes):
        accounts.add(f"person{number}", "technician", "", "a first password")
        mark("people", names=accounts.names())
        accounts.remove(f"person{number // 2}") if number % 2 else None
        mark("people", names=accounts.names())


def sealing(root: Path, changes: int = 4) -> None:
    """Secrets at rest, kept by this machine's id and a salt."""
    Store(root / DATA, TERMINAL).close()
    machine = keepers.Machine(root / DATA / "seal.salt", root / "machine-id")
    store = SecretStore.create(root / DATA / "secrets", TERMINAL, [machine])
    mark("secrets", count=0)
    for number in range(changes):
        store.put(f"secret{number}", Secret(bytes([number]) * 40))
        mark("secrets", count=number + 1)


PUSHES = "till/data/pushes"
PROMISE: dict[str, Any] = {"may": [[0, 0]], "tried": 0, "begun": [], "trust": [None], "frozen": [False]}
"""What was promised of pushes before anything happened."""


def envelope(version: int) -> Envelope:
    """A configuration that was pushed; who signed it is not of interest here."""
    text = f"# {version}\n" + "~" * (version * 700)
    return Envelope(CONFIGURATION, json.dumps({"version": version, "config": text}).encode())


def digest(version: int) -> str:
    return Accepted(CONFIGURATION, envelope(version).unverified, ()).digest


class _MarkedShelf(Shelf):
    """It marks what it has decided, and then what others were told.

    may: pairs of which one counts, the version in force and the one before (0: the local file); tried: what is on
    probation; begun, trust, frozen: what `memory` must know, of the last two also one of two.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root / PUSHES)
        self.promise = dict(PROMISE)

    def say(self, **facts: Any) -> None:
        self.promise |= facts
        mark("shelf", **self.promise)

    def counts(self) -> list[int]:
        return [kept.version if kept else 0 for kept in (self.in_force(), self.before())]

    def _take(self, step: Step) -> None:
        super()._take(step)
        if step.word == "committing" or (step.is_recall and step.word == "rolling_back"):
            self.say(may=self.promise["may"][1:], tried=0)

    def push(self, version: int, end: str) -> None:
        self.stage(envelope(version).text, version, digest(version))
        if end == "dropped":
            self.drop()
            return
        self.step("applying")
        self.say(tried=version)
        self.step("probation")
        if end == "committed":
            self.say(may=[self.counts(), [version, self.counts()[0]]], tried=0)
            self.commit()
        else:
            self.step("rolling_back", detail="ups1 did not answer")
            self.say(tried=0)
            self.reject("silent", "ups1 did not answer")
        self.told()


def pushing(root: Path) -> None:
    """Pushes that are committed, rolled back, dropped and recalled, and what else is remembered of the centre."""
    shelf = _MarkedShelf(root)
    shelf.recover(lambda envelope: True)
    shelf.push(1, "committed")
    shelf.push(2, "rolled back")
    shelf.push(3, "committed")
    for number in range(3):
        shelf.memory.begun(f"c{number}", 1, 1000 + number, 1000 * number)
        shelf.say(begun=[*shelf.promise["begun"], f"c{number}"])
        shelf.memory.ended(f"c{number}", "done")
    shelf.say(may=[[3, 1], [1, 0]])
    shelf.recall("a technician")
    shelf.push(4, "dropped")
    for chain in ("first", "second"):
        shelf.say(trust=[shelf.promise["trust"][-1], chain])
        shelf.memory.keep_trust(chain)
        shelf.say(trust=[chain])
    shelf.say(frozen=[False, True])
    shelf.memory.freeze(5000, "li")
    shelf.say(frozen=[True])
    shelf.say(frozen=[True, False])
    shelf.memory.thaw()
    shelf.say(frozen=[False])
    shelf.push(5, "committed")
    shelf.push(6, "committed")


if __name__ == "__main__":
    lives = {life.__name__: life for life in (ledgering, damaged, serving, counting, sealing, pushing)}
    lives[sys.argv[1]](Path(sys.argv[2]), **json.loads(sys.argv[3]))
