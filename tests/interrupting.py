"""This file knows how a key ceremony goes in real processes, step by step, how each step can be cut short, and what
must be so afterwards, whatever was cut.
"""

import json
import signal
import socket
import sqlite3
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

from agent.crypto.holdings import fold
from hwsim.secure_link import say
from tests.keysite import KeySite, block_of, good
from tests.people import Person
from tests.secure import split
from tests.whole import wait

Json = dict[str, Any]
ENDED = ("idle", "aborted", "closed")


class Terminal(KeySite):
    """A site whose ceremonies are interrupted, each for a key of its own, in a slot that is empty."""

    keys = 0
    slot = 1
    kbpk = ""

    def a_key(self) -> str:
        """A key that was never here."""
        self.keys += 1
        return sha256(f"key {self.keys}".encode()).hexdigest()[:32].upper()

    def ledger(self, kind: str = "ceremony", order: str = "") -> list[Json]:
        """The rows that are on disk, also when there is no agent."""
        with sqlite3.connect(f"file:{self.data}/store.db?mode=ro", uri=True) as db:
            rows = [json.loads(row) for (row,) in db.execute("SELECT row FROM ledger ORDER BY seq")]
        return [row for row in rows if row["kind"] == kind and order in ("", row.get("order"))]

    def ledger_has(self, event: str, **fields: str) -> int:
        """How many rows of a kind there are that have these fields."""
        return sum(row["event"] == event and row.items() >= fields.items() for row in self.ledger())

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        """Nothing can be made durable meanwhile."""
        with sqlite3.connect(self.data / "store.db", isolation_level=None) as db:
            wait("the store", lambda: _locks(db), 5.0)
            yield
            db.execute("ROLLBACK")

    def change_shifts(self) -> None:
        """The same people, who wait for no answer."""
        for name, person in self.people.items():
            person.close()
            self.people[name] = Person(self.folder / "tw.sock", name, person.password)

    def state(self) -> str:
        try:
            return str(self.status()["state"])
        except (OSError, ValueError):
            return ""

    def asks_pad(self, request: Json) -> None:
        """Somebody asks the pad behind the agent's back."""
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(5)
            line.connect(str(self.folder / "epp.sock"))
            answer = say(line, request)
        assert "ok" in answer, answer

    def verified(self) -> bool:
        """Whether the chain of the whole ledger holds."""
        return "verified" in self.li.asks(do="verify")[-1]

    def until(self, *states: str) -> str:
        """Wait until the ceremony is in one of these states."""
        return str(wait(" or ".join(states), lambda: (now := self.state()) in states and now))


class Story:
    """One order and its people. `walk` is what is done, by the step that it leads to."""

    def __init__(self, site: Terminal, slot: str = "", **changes: Any) -> None:
        self.site, self.key = site, site.a_key()
        self.slot = slot or f"TMK{site.slot}"
        self.components = split(self.key)
        self.order = self._order(changes)
        self.id = self.order["id"]
        self.asking: list[Person] = []
        """Who has asked for something and has not got the whole answer."""
        self.done = 0
        site.receive(self.order)

    def _order(self, changes: Json) -> Json:
        return self.site.order(self.components, **{"slot": self.slot, "version": 1, **changes})

    walk: Mapping[str, Callable[["Story"], None]] = {
        "opened": lambda self: self._says(self.site.li, "begin", order=self.id),
        "part": lambda self: self._says(self.site.wang, "begin", order=self.id),
        "entering": lambda self: self._opens(self.site.li),
        "part2": lambda self: self._types(self.site.li, self.components[0]),
        "entering2": lambda self: self._opens(self.site.wang),
        "confirm": lambda self: self._types(self.site.wang, self.components[1]),
        "verified": lambda self: self._says(self.site.wang, "complete"),
        "destroy": lambda self: self._proves(),
        "signed": lambda self: self._says(self.site.li, "sign"),
        "receipt": lambda self: self._says(self.site.wang, "sign"),
    }

    def to(self, step: str) -> "Story":
        """Go on from where it is until this step."""
        steps = list(self.walk)
        for name in steps[self.done : steps.index(step) + 1]:
            self.walk[name](self)
            self.done += 1
        return self

    def closes(self) -> None:
        """The receipt is made. The key stays, so the next one goes into another slot."""
        self.site.receipt(self.id)
        assert self.site.state() == "closed"
        self.site.slot += 1

    @property
    def envelopes(self) -> list[str]:
        return [part["envelope"] for part in self.order.get("parts", [])]

    def rows(self, event: str = "") -> list[Json]:
        """What the disk has of the order, or one kind of it."""
        return [row for row in self.site.ledger(order=self.id) if event in ("", row["event"])]

    def begins(self, person: Person, act: str, **request: Any) -> None:
        """Ask for something whose answer will not come."""
        person.begin(act, **request)
        self.asking.append(person)

    def press(self, digits: int) -> None:
        """Type some digits of the component that is being entered."""
        which = self.components[0 if self.asking[-1] is self.site.li else 1]
        self.site.hands(press=which[:digits])

    def _says(self, person: Person, act: str, **request: Any) -> None:
        good(person.does(act, **request))

    def _proves(self) -> None:
        self._says(self.site.wang, "prove", ok=True, method="echo", reference="REF-1")

    def _opens(self, person: Person) -> None:
        self.begins(person, "part")
        self.site.wait_for_entry(person)

    def _types(self, person: Person, component: str) -> None:
        self.site.hands(press=component)
        self.asking.remove(person)
        good(person.rest())


class BlockStory(Story):
    """A key that comes as a block, under the key in slot KBPK."""

    def _order(self, changes: Json) -> Json:
        self.block = block_of(self.key, self.site.kbpk)
        return self.site.block_order(self.block, self.key, **{"slot": self.slot, "version": 1, **changes})

    walk: Mapping[str, Callable[[Any], None]] = {
        "opened": Story.walk["opened"],
        "block": Story.walk["part"],
        "confirm": lambda self: self._says(self.site.li, "block", data=b64encode(self.block).decode()),
        **{step: Story.walk[step] for step in ("verified", "destroy", "signed", "receipt")},
    }


class DestroyStory(Story):
    """The end of the key of another story."""

    def __init__(self, loaded: Story) -> None:
        self.loaded = loaded
        super().__init__(loaded.site, loaded.slot)

    def _order(self, changes: Json) -> Json:
        return self.site.destroy_order(self.loaded.key, self.slot)

    walk: Mapping[str, Callable[[Story], None]] = {
        "opened": Story.walk["opened"],
        "confirm": Story.walk["part"],
        "destroy": Story.walk["verified"],
        **{step: Story.walk[step] for step in ("signed", "receipt")},
    }


# What cuts a ceremony short.


def killed(site: Terminal) -> None:
    """Kill -9 of the agent."""
    site.end("agent", signal.SIGKILL)


def stopped(site: Terminal) -> None:
    """A planned stop of the agent: what is half-built is gone before it has ended."""
    assert site.end("agent") == 0
    assert not _half_built(site)


def cut(site: Terminal) -> None:
    """The pad has no power, until the agent has seen that."""
    site.hands(act="cut")
    wait("the agent to miss the pad", lambda: site.shown("epp1", "device.state") == "offline")


def pad_killed(site: Terminal) -> None:
    """Kill -9 of the pad's process."""
    site.end("epp", signal.SIGKILL)
    wait("the agent to miss the pad", lambda: site.shown("epp1", "device.state") == "offline")


def blackout(site: Terminal) -> None:
    """No power at all."""
    site.hands(act="cut")
    site.end("agent", signal.SIGKILL)


def as_it_is(site: Terminal) -> None:
    """Nothing more: what was to be cut short is already."""


def as_the_ledger_says(site: Terminal) -> None:
    """Nothing was done to the pad that is not on disk: half a key, and every key, was asked for before it came."""
    rows, pad = site.ledger(), site.slots()
    held = fold(rows)
    for slot, there in pad.items():
        assert slot in held.slots, f"{slot} is in the pad, and the ledger does not know it"
        assert held.slots[slot].state in (("loaded", "construct") if there["loaded"] else ("construct",)), slot
    for slot, key in held.slots.items():
        if key.state == "loaded" and slot not in pad:
            asked = [row for row in rows if row["event"] == "asked" and row["arguments"]["slot"] == slot]
            assert asked[-1]["verb"] == "key_delete", slot


def bring_back(site: Terminal) -> None:
    """Power, pad and agent are there again, and the agent has heard of the pad."""
    if not site.alive("epp"):
        site.start("epp")
    site.hands(act="restore")
    if not site.alive("agent"):
        site.start("agent")
    wait("the agent to hear of the pad", lambda: site.shown("epp1", "device.state") == "online")


def struck(story: Story, blow: Callable[[Terminal], None]) -> None:
    """Cut a ceremony short, bring everything back, and wait until the terminal serves customers."""
    site = story.site
    blow(site)
    if blow in (killed, stopped) and site.hands(look=True)["power"]:
        as_the_ledger_says(site)
    bring_back(site)
    settled(site)
    for person in story.asking:
        person.rest()
    story.asking.clear()


def settled(site: Terminal) -> Json:
    """Wait until people have to act, or nobody has; all the while half a key in the pad means no service."""
    end = time.monotonic() + 30.0
    while True:
        before = _half_built(site)
        try:
            status = site.status()
        except (OSError, ValueError):
            status = {"state": "", "service": "unknown", "step": {}}
        if before & _half_built(site) and status["service"] not in ("ceremony", "stopped"):
            assert status["service"] == "unknown", status
            assert not status["state"], status
        if status["state"] in (*ENDED, "destroy", "receipt") and status["service"] == "ok":
            assert not _half_built(site), status
            return status
        assert time.monotonic() < end, status
        time.sleep(0.02)


def _half_built(site: Terminal) -> set[str]:
    try:
        return {slot for slot, there in site.slots().items() if not there["loaded"]}
    except (OSError, ValueError):
        return set()


def _locks(db: sqlite3.Connection) -> bool:
    try:
        db.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        return False
    return True
