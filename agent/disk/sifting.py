"""This file knows what of a batch could never be stored, and takes it out, so that all else can be.

A driver, or a person on the control socket, may bring half a character, or a number with a fraction where the
ledger takes none. One such row must not cost those that wait with it.
"""

from collections.abc import Iterator
from typing import TypeVar

from agent.ledger import canonical
from agent.model import Batch, Fault, StoredPoint

MOST = 1024 * 1024
"""Bytes of a row: the smallest store takes one of them (agent/disk/pruning.py)."""
T = TypeVar("T", StoredPoint, Fault)


def sift(batch: Batch) -> list[tuple[str, str, str]]:
    """Take out what cannot be spelled; returns (what it is, its id if it has one, why) of each."""
    lost: list[tuple[str, str, str]] = []
    for row in list(batch.rows):
        try:
            if len(canonical({**row, "kind": row["kind"]})) > MOST:
                raise ValueError(f"it is longer than {MOST} bytes")
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            batch.rows[:] = (other for other in batch.rows if other is not row)
            lost.append((f"a row {row.get('kind')!a}", str(row.get("id", "")), str(error)))
    return [*lost, *_sift(batch.points), *_sift(batch.raised), *_sift(batch.cleared)]


def _sift(items: list[T]) -> Iterator[tuple[str, str, str]]:
    for item in tuple(items):
        if why := "; ".join(_wrong(item)):
            items.remove(item)
            yield f"{item.device!a} {item.point!a}", "", why


def _wrong(item: StoredPoint | Fault) -> Iterator[str]:
    if not isinstance(item.value, bool | int | float | str):
        yield f"{item.value!a} is no value"
    for text in (item.device, item.point, item.raw, item.code if isinstance(item, Fault) else ""):
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError as error:
                yield str(error)
