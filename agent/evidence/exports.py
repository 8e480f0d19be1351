"""This file knows what an export of the ledger is: a text file that anyone can read and recompute.

    {"ledger": 1, "terminal", "epoch", "from", "before", "anchor", "key", "software"}
    <row: its canonical bytes> TAB <hash after it, hex>                                    one line for each row
    {"end": {"seq", "hash", "envelope"}}            or, without the agent:  {"end": {"seq", "hash", "covered"}}

`before` is the hash before the first row, `from` that row's number, `key` the id of the agent's public key; a tab
never stands inside a row, so `cut -f1` gives the bytes that were hashed. The hashes make no row true: they tell in
which line a change is. What proves the file is the envelope: a checkpoint over its last row, which names its first
row too (agent/evidence/checkpoints.py). Only the running agent can sign; without it the checkpoints among the rows
prove what is before them, `covered` names the last such row, and whether the ledger went on after it cannot be
told.

A re-dated copy has `at` as it would be by each boot's last good clock (agent/clock.py), and `at_said` as it was
written. It is for reading, has no hashes, and proves nothing.
"""

import json
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agent.clock import Offsets
from agent.crypto.signing import Envelope
from agent.errors import ControlError
from agent.evidence import checkpoints
from agent.evidence.checkpoints import Place
from agent.ledger import canonical
from agent.store import Reader

CHUNK, SIZE = 1000, 256 * 1024
"""Rows, and about how many bytes, of one piece of an export."""

Answer = dict[str, Any]
Sign = Callable[[int, Place], Envelope | None]
"""The signed end of an export from a row on: agent/evidence/notary.py."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rows: from one to another, each by its number or a time (wall clock, ms); 0 and None: all there are."""

    first: int = 0
    last: int | None = None
    first_at: int | None = None
    last_at: int | None = None
    redated: bool = False


def wanted(request: Mapping[str, Any]) -> Wanted:
    """A request's numbers: from, to, from_at, to_at, redated. Raises ControlError."""
    numbers = {key: request.get(key) for key in ("from", "to", "from_at", "to_at")}
    for key, value in numbers.items():
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            raise ControlError(f"{key} wants a whole number that is not negative, not {value!r}", 2)
    return Wanted(
        numbers["from"] or 0, numbers["to"], numbers["from_at"], numbers["to_at"], request.get("redated") is True
    )


def export(reader: Reader, rows: Wanted, software: str, key_id: str, sign: Sign | None) -> Iterator[Answer]:
    """The file in pieces: {"text", "progress": [done, total]}, and {"progress"} alone while rows are looked for; at
    last {"exported": rows, "from", "to", "anchor"}. Raises ControlError when there is nothing to export."""
    anchor = reader.anchor
    head, _ = reader.head()
    first, last = max(rows.first, anchor + 1), head if rows.last is None else min(rows.last, head)
    if rows.first_at is not None or rows.last_at is not None:
        found = yield from _between(reader, anchor, head, rows)
        first, last = max(first, found[0]), min(last, found[1])
    if first > last:
        raise ControlError(f"no row is in that range: the ledger has the rows {anchor + 1} to {head}", 2)
    offsets = Offsets()
    if rows.redated:
        yield from _gather(reader, anchor, head, offsets)
    before = reader.hash_at(first - 1)
    about = {"terminal": reader.terminal, "epoch": reader.epoch, "from": first, "anchor": anchor}
    shape = {"redated": True} if rows.redated else {"before": before.hex(), "key": key_id}
    yield {"text": _line({"ledger": 1, **about, **shape, "software": software})}
    done, covered, digest = first - 1, 0, before
    for piece in _pieces(reader, first - 1, last):
        done, _, digest = piece[-1]
        if last_signed := checkpoints.newest(piece):
            covered = last_signed - 1
        if rows.redated:
            text = "".join(_line(_redated(_content(seq, row), offsets)) for seq, row, _ in piece)
        else:
            text = "".join(f"{_text(seq, row)}\t{after.hex()}\n" for seq, row, after in piece)
        yield {"text": text, "progress": [done - first + 1, last - first + 1]}
    if not rows.redated:
        place = Place(reader.terminal, reader.epoch, last, digest.hex(), anchor)
        signed = sign(first, place) if sign else None
        proof = {"envelope": json.loads(signed.text)} if signed else {"covered": covered if covered >= first else 0}
        yield {"text": _line({"end": {"seq": last, "hash": digest.hex(), **proof}})}
    yield {"exported": last - first + 1, "from": first, "to": last, "anchor": anchor}


def redating(reader: Reader) -> Offsets:
    """What all rows of a store tell of the clock."""
    offsets = Offsets()
    head, _ = reader.head()
    for _ in _gather(reader, reader.anchor, head, offsets):
        pass
    return offsets


def _redated(row: dict[str, Any], offsets: Offsets) -> dict[str, Any]:
    return {**row, "at": offsets.redated(row), "at_said": row["at"]}


def _gather(reader: Reader, after: int, last: int, offsets: Offsets) -> Iterator[Answer]:
    for piece in _pieces(reader, after, last):
        for seq, row, _ in piece:
            if b'"clock"' in row or b'"start"' in row:
                offsets.take(_content(seq, row))
        yield {"progress": [piece[-1][0] - after, last - after]}


def _between(reader: Reader, anchor: int, head: int, rows: Wanted) -> Generator[Answer, None, tuple[int, int]]:
    """The first row at or after one time, and the last before another. All are looked at: where a clock was set,
    times go back and forth."""
    first, last = head + 1, 0
    for piece in _pieces(reader, anchor, head):
        for seq, row, _ in piece:
            at = _content(seq, row)["at"]
            if at >= (rows.first_at or 0):
                first = min(first, seq)
            if rows.last_at is None or at <= rows.last_at:
                last = seq
        yield {"progress": [piece[-1][0] - anchor, head - anchor]}
    return first, last


def _pieces(reader: Reader, after: int, last: int) -> Iterator[list[tuple[int, bytes, bytes]]]:
    """The rows after one up to another, a piece at a time: never all in memory."""
    while after < last:
        piece = reader.batch(after, min(CHUNK, last - after), SIZE)
        if not piece or piece[0][0] != after + 1:
            raise ControlError(f"row {after + 1} is not there any more: it was pruned meanwhile, export again")
        yield piece
        after = piece[-1][0]


def _text(seq: int, row: bytes) -> str:
    try:
        return row.decode()
    except UnicodeDecodeError as error:
        raise _damaged(seq) from error


def _content(seq: int, row: bytes) -> dict[str, Any]:
    """A row whose clocks can be used. Raises ControlError for one that was changed so that they cannot."""
    try:
        content: dict[str, Any] = json.loads(row)
        if type(content["at"]) is type(content["up"]) is int:
            return content
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise _damaged(seq)


def _damaged(seq: int) -> ControlError:
    return ControlError(
        f"row {seq} is damaged and is no text any more: `ledger verify` tells more, --from and --to leave it out"
    )


def _line(content: Mapping[str, Any]) -> str:
    return canonical(content).decode() + "\n"
