"""This file knows the hash chain: canonical bytes, linking, verification, and what the rows say about the points.

    hash(0) = SHA-256("tillwire/v1" 0 terminal 0 epoch)
    hash(n) = SHA-256(hash(n-1) || row(n))          row(n): the canonical bytes of row n, which hold its seq

Canonical bytes are UTF-8 JSON with sorted keys and no spaces, made of objects, arrays, strings, integers, true,
false and null only. Numbers with a fraction have no one spelling, so they are refused. Anyone can recompute the
chain with a JSON parser and SHA-256; nothing here needs a key.

Kinds of rows and the keys they carry beside seq, at (wall clock, ms), up (monotonic, ms), boot and kind:

    start, stop     version, config (digest), store (how the store was found), clock (its quality), and key (the id
                    of the key that signs) or unsigned (why nothing is signed) | reason
    clock           was, now, jump_ms, quality      the wall clock was set, or its quality changed (agent/clock.py)
    checkpoint      covers, hash, anchor, version, key, sig   signs the row before it (evidence/checkpoints.py)
    change          device, point, value, was, and when there is any: raw, inferred
    known           device, values {point: value}   points that are known again, unchanged, or for the first time
    unknown         device, points [point]          points whose value is older than its max_age
    flapping        device, point, value, was, count   the point goes there and back; from here on its changes are
                    counted, not written (but those of doors, tamper and what security owns always are)
    steady          device, point, value, since, count, raw   it has come to rest on `value`, after `count` changes
    fault.raised    device, point, code, severity, value, raw, since
    fault.cleared   as above, `count` when it flapped: the changes of its point in all; `why` if nobody saw its end
    fault.flapping  as above, and count   the fault is open and comes and goes; it stays open until that ends
    fault.steady    as above, and count   it has stopped to come and go, and is there
    fault.explained as above, and by   no fault of its own: device `by` reports that mains power is lost; raised
                    if it outlives that
    operation       device, verb, by, id, arguments
    outcome         device, id, result, detail, raw, and facts where more may be known (a check value)
    ceremony        event, order, slot, and more by event: a key ceremony (agent/crypto/holdings.py)
    slots           serial, slots {slot: what the EPP says}, silent [slot], findings [word slot]   a look at them
    sealed          level, generation, key          who keeps the agent's own secrets (agent/crypto/sealing.py)
    account         event (added, removed, unlocked, changed, wrong), name, by, and role and group when it is new
    push            event, and more by event: what the centre sent and what became of it: staged (changes),
                    applying, rolling_back, committed, rolled_back, refused (of, reason, count), signers; frozen,
                    thawed (by); command, command_ended, maintenance (until); trouble (agent/pushing/desk.py)
    thread          name, error                     a thread that died and was started again
    store           event, clock, previous, carried, deleted   a store that was set aside, the head of its chain,
                    what became of its rows of ceremonies, and which older stores went for it
    disk            event, and why, seconds, dropped   the disk is full, or not any more; nothing could be
                    stored for so long, and so many items were not taken up meanwhile
    dropped         first, last, hash               rows that nobody has, for which there was no room any more, and
                    the hash after them; the same first again in a later row: that one counts

Anchors. Old rows may be pruned, from the oldest end and only up to a row that a checkpoint covers. The store then
remembers the last pruned row and the hash after it (anchor_seq, anchor_hash), and the chain begins with that hash.
Nobody has to believe the store: whoever had changed the hash could not meet the first checkpoint after it, which
signs the hash of a later row (or of the anchor itself), and later checkpoints name the anchor. So at least the
checkpoint stays whose row is at or after the anchor, and what was pruned was signed before it went.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from agent.errors import LedgerError
from agent.model import Value

Row = dict[str, Any]
View = dict[str, dict[str, Value | None]]


_spell = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode
_PLAIN = frozenset({str, int, bool, type(None)})
"""Types that cannot hold a fraction: what most rows are made of is looked at once, not value by value."""


def canonical(row: Mapping[str, Any]) -> bytes:
    """The one spelling of a row. Raises ValueError for a number with a fraction."""
    if not _PLAIN.issuperset(map(type, row.values())):
        _refuse_fractions(row)
    return _spell(row).encode("utf-8")


def genesis(terminal: str, epoch: str) -> bytes:
    """The hash before the first row: it binds the chain to its terminal and epoch. 32 bytes."""
    return hashlib.sha256(b"\0".join((b"tillwire/v1", terminal.encode(), epoch.encode()))).digest()


Linked = tuple[int, bytes, bytes, str]
"""seq, canonical bytes, hash and kind of a row."""


def chained(rows: Iterable[Row], seq: int, digest: bytes) -> list[Linked]:
    """Rows as they follow row `seq`, after which the hash is `digest`."""
    linked = []
    for row in rows:
        seq += 1
        body = canonical({**row, "seq": seq})
        digest = link(digest, body)
        linked.append((seq, body, digest, row["kind"]))
    return linked


def link(before: bytes, row: bytes) -> bytes:
    """The hash after a row, from the hash before it (32 bytes each)."""
    return hashlib.sha256(before + row).digest()


def verify(rows: Iterable[tuple[int, bytes, bytes]], before: bytes, after_seq: int = 0) -> tuple[int, bytes]:
    """Follow the chain over rows of (seq, canonical bytes, stored hash), in order, from the hash `before`.

    Returns (seq, hash) of the last row. Raises LedgerError naming the first row that does not fit.
    """
    seq = after_seq
    for number, row, stored in rows:
        seq += 1
        if number != seq:
            raise LedgerError(seq, f"row {seq} is missing: the next row found is {number}")
        before = link(before, row)
        if before != stored:
            raise LedgerError(seq, f"row {seq} does not fit its hash: it, or the row before it, was changed")
        try:
            content = json.loads(row)
        except ValueError:
            content = None
        if not isinstance(content, dict) or content.get("seq") != seq:
            raise LedgerError(seq, f"row {seq} holds another number inside: rows were exchanged")
    return seq, before


def view(rows: Iterable[Row]) -> View:
    """What the rows say of every point at their end: {device: {point: value}}, None where unknown.

    After a start nothing is known: an agent that did not run saw nothing. Of a point that flaps the rows do not
    tell which of its two words holds at a time, so it is unknown until it is steady.
    """
    seen: View = {}
    for row in rows:
        match row["kind"]:
            case "start" | "stop":
                for points in seen.values():
                    points.update(dict.fromkeys(points))
            case "change" | "steady":
                seen.setdefault(row["device"], {})[row["point"]] = row["value"]
            case "known":
                seen.setdefault(row["device"], {}).update(row["values"])
            case "flapping":
                seen.setdefault(row["device"], {})[row["point"]] = None
            case "unknown":
                seen.setdefault(row["device"], {}).update(dict.fromkeys(row["points"]))
    return seen


def _refuse_fractions(value: Any) -> None:
    if isinstance(value, float):
        raise ValueError(f"{value!r} has no canonical spelling; give an integer in a smaller unit, or text")
    if isinstance(value, Mapping):
        for inner in value.values():
            _refuse_fractions(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _refuse_fractions(inner)
