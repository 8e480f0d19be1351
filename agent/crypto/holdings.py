"""This file knows what the ledger says of a terminal's keys: slots, orders, envelopes, and who touched what.

`fold` reads the rows of kind `ceremony` and nothing else; `at` (wall clock, ms) is what the store gave each row.
The rows are written by ceremony.py. Each carries order, event, state, slot, terminal and serial, and what its event
has; "by whom" is person, credential (its name), session and login (its number):

    applied     nothing more                       a key was asked for; the order's id is known before the order is
    withdrawn   nothing more                       that was a mistake, or the key will not come
    received    document, signers, digest, keys    an order has come to this terminal; keys: ids of those it is
                                                   signed with
    opened      document, signers, digest, serial, software, utc_offset
                                                   it is being carried out; from here on it is used up
    refused     reason                             of an order, or of what a person tried; count: of so many orders
                                                   that did not even come in, since the row before
    login       person, result: wrong, locked or unlocked    five wrong ones within a day lock for a day
    joined      role, group, and by whom
    ready       counters
    asked       id, verb, arguments                written before the device is asked
    answered    id, verb, result, raw, facts
    envelope    number, envelope, and by whom      somebody is about to open it, for this order
    part        number, envelope, kcv             it was entered, and its check value is that of the manifest
    wrong       number, envelope, tries, raw or kcv
    block       digest, header                     a key block has come and its header was accepted
    confirmed   by whom
    verified    kcv, usage
    active      kcv, method, reference, person     the host has proved it, and who says so
    erased      slot, kcv                          the device says that the slot is empty
    signed      envelopes, digest, and by whom     that the paper, or the file, is destroyed
    papers_due  nothing more                       that was not signed for in time: another order is opened before
    trouble     cause, person                      what happened, and ended the ceremony or did not
    tampered    cause                              every slot of the EPP is unknown
    alarm       word, facts
    aborting, aborted   cause, spoiled             closed   receipt: "" when none was made yet
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agent.crypto.kcv import Kcv, Method

KIND = "ceremony"
DAY_MS = 86_400_000
SIGNATURES = 2
"""Of people who say that the papers of an order are destroyed."""
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Slot:
    """What should be in a slot. state: loaded, missing, construct (half-built) or unknown; `since` is when it was
    proved by the host, wall clock in ms."""

    state: str
    kcv: Kcv | None = None
    usage: str = ""
    algorithm: str = ""
    digits: int = 0
    version: int = 0
    under: str = ""
    method: str = ""
    since: int = 0


@dataclass(slots=True)
class Holdings:
    """Everything that the rows so far say. `custody`: check value of a key -> person -> components they saw."""

    serial: str = ""
    slots: dict[str, Slot] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    destroyed: set[Kcv] = field(default_factory=set)
    orders: set[str] = field(default_factory=set)
    envelopes: set[str] = field(default_factory=set)
    custody: dict[Kcv, dict[str, set[Kcv]]] = field(default_factory=dict)
    wrong: dict[str, list[int]] = field(default_factory=dict)
    locked: dict[str, int] = field(default_factory=dict)
    received: dict[str, int] = field(default_factory=dict)
    applied: dict[str, int] = field(default_factory=dict)
    installed: dict[str, int] = field(default_factory=dict)
    expires: dict[str, int] = field(default_factory=dict)
    papers: dict[str, int] = field(default_factory=dict)
    """Orders whose papers are not signed for yet, and since when they are due."""
    running: list[Row] = field(default_factory=list)
    """The rows of a ceremony that has not ended: what `ceremony.resume` needs."""
    owed: dict[str, list[Row]] = field(default_factory=dict)
    """The same of orders that another one has passed, because only their papers were due: for `ceremony.owing`."""

    def holds_too_much(self, person: str, key: Kcv, part: Kcv) -> bool:
        """Whether this person has seen another component of the same key, whenever that was (PCI PIN 25)."""
        return bool(self.custody.get(key, {}).get(person, set()) - {part})


def method_of(document: Row) -> Method:
    """The method of every check value in an order's document."""
    return "cmac" if document.get("algorithm") == "A" else "zero"


def fold(rows: Iterable[Row]) -> Holdings:
    """What the rows say, in their order. Rows of other kinds are passed over."""
    held = Holdings()
    for row in rows:
        if row.get("kind") == KIND:
            _take(held, row)
    return held


def _take(held: Holdings, row: Row) -> None:
    event, order, at = str(row["event"]), str(row.get("order", "")), int(row.get("at", 0))
    if event == "opened":
        held.running = []
    if event == "opened" or (held.running and order == held.running[0].get("order")):
        held.running.append(row)
    elif order in held.owed:
        held.owed[order].append(row)
    document: Row = held.running[0]["document"] if held.running else {}
    match event:
        case "applied":
            held.applied.setdefault(order, at)
        case "withdrawn":
            held.applied.pop(order, None)
        case "received":
            _receive(held, row["document"], order, at)
        case "opened":
            held.orders.add(order)
            _receive(held, document, order, at)
            _bind(held, str(row["serial"]))
        case "login" if row["result"] == "unlocked":
            held.wrong.pop(row["person"], None)
            held.locked.pop(row["person"], None)
        case "login":
            tries = [*held.wrong.get(row["person"], []), at]
            held.wrong[row["person"]] = [when for when in tries if at - when < DAY_MS]
            if row["result"] == "locked":
                held.locked[row["person"]] = at
        case "joined":
            held.wrong.pop(row["person"], None)
        case "envelope":
            held.envelopes.add(row["envelope"])
            _remember(held, document, row)
        case "asked" if row["verb"] in ("key_enter", "key_complete", "key_import"):
            held.slots[row["slot"]] = Slot("construct")
        case "active":
            _install(held, document, row, at)
        case "erased":
            _erase(held, row["slot"], row.get("kcv"), method_of(document))
            if document.get("kind") == "destroy" and row["slot"] == document["slot"]:
                held.papers[order] = at
        case "tampered":
            held.slots = {name: replace(slot, state="unknown") for name, slot in held.slots.items()}
        case "alarm" if row["word"] == "slot_unknown":
            held.slots[row["slot"]] = replace(held.slots.get(row["slot"], Slot("unknown")), state="unknown")
        case "signed":
            mine = held.owed.get(order, held.running)
            if sum(one["event"] == "signed" for one in mine) >= SIGNATURES:
                held.papers.pop(order, None)
        case "papers_due":
            held.owed[order], held.running = held.running, []
        case "aborted":
            held.received.pop(order, None)
            held.applied.pop(order, None)
            held.papers.pop(order, None)
            held.envelopes.update(row["spoiled"])
            held.running = []
        case "closed" if order in held.owed:
            del held.owed[order]
        case "closed":
            held.running = []


def _receive(held: Holdings, document: Row, order: str, at: int) -> None:
    held.expires[order] = int(document["not_after"])
    if document["kind"] == "destroy":
        held.applied.pop(order, None)  # no key comes
        return
    held.received.setdefault(order, at)
    if document.get("applied"):
        held.applied.setdefault(order, int(document["applied"]))


def _bind(held: Holdings, serial: str) -> None:
    """Another EPP: whatever was in the old one is not in this one, and nobody knows what is."""
    if held.serial not in ("", serial):
        held.slots = {name: replace(slot, state="unknown") for name, slot in held.slots.items()}
    held.serial = serial


def _remember(held: Holdings, document: Row, row: Row) -> None:
    method = method_of(document)
    part = Kcv.parse(document["parts"][row["number"] - 1]["kcv"], method)
    seen = held.custody.setdefault(Kcv.parse(document["kcv"], method), {})
    seen.setdefault(row["person"], set()).add(part)


def _install(held: Holdings, document: Row, row: Row, at: int) -> None:
    slot, version = document["slot"], int(document["version"])
    held.slots[slot] = Slot(
        "loaded",
        Kcv.parse(row["kcv"], method_of(document)),
        document["usage"],
        document["algorithm"],
        document["digits"],
        version,
        document.get("under", ""),
        document["method"],
        at,
    )
    held.versions[slot] = max(version, held.versions.get(slot, 0))
    held.installed[row["order"]] = held.papers[row["order"]] = at


def _erase(held: Holdings, slot: str, kcv: str | None, method: Method) -> None:
    before = held.slots.get(slot)
    if before is not None and before.kcv is not None:
        held.destroyed.add(before.kcv)
    if kcv:
        held.destroyed.add(Kcv.parse(kcv, method))
    held.slots[slot] = Slot("missing")
