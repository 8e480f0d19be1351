"""This file knows how names outlast a power cut: the store's folder, and a damaged store put out of its way.

A file that was synced is still lost while the folder that names it was not (fsync(2)). So each name that something
else relies on is synced before that is done.

    store.db.aside-<number>-<when>-<acked>-<epoch>-<head>      and beside it the same with -wal, -shm, -journal

The name carries where the old chain ended: the new chain names its end, also when the power goes between the two.
The number tells which was the last, because the clock does not: it may have been set back. Rows after `acked` are
nowhere else: of several stores the one with most of them is kept.
"""

import errno
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.disk import durable
from agent.errors import StoreError, StoreFull

BESIDE = ("-wal", "-shm", "-journal")
"""SQLite's own files. One that is left beside a new store would be taken for a part of it."""
MOST = 3
"""Stores that are kept after they were set aside."""
ROW = 512
"""Bytes of a row, about: for a store that could not even say how many it has."""
_ASIDE = re.compile(r".+\.aside-(\d+)-\d{8}T\d{6}Z-(?:(\d+)-)?(\w+)-(\d+)")


def make_folder(folder: Path) -> None:
    """Make a folder (mode 0700) and those above it, to stay. Raises StoreError."""
    with _border(f"{folder} cannot be made", "make it and give it to the agent"):
        missing = [one for one in folder.parents if not one.exists()]
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for one in (folder, *missing):
            # One that is there is synced too: who made it may have been killed before that. One that may not be
            # read was not made by the agent.
            with suppress(PermissionError):
                durable.sync(one.parent)


def put(path: Path, epoch: str, head: int, acked: int) -> str:
    """Put a store file out of the way, whole; returns its new name. Raises StoreError."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    word = epoch if re.fullmatch(r"\w{1,32}", epoch) else "unknown"
    number = 1 + max((_number(one) for one in _all(path)), default=0)
    aside = path.with_name(f"{path.name}.aside-{number}-{stamp}-{acked}-{word}-{head}")
    with _border(f"{path} cannot be set aside", "check the disk and the folder's owner"):
        if path.exists():
            path.rename(aside)
        _put_rest(path, aside)
    return aside.name


def bound(path: Path, size: int) -> str:
    """Keep the store with most rows that nobody has, and at most MOST - 1 others that fit into `size` bytes
    together. Returns what was deleted, as a sentence; empty when nothing was. Raises StoreError.

    Of the one that was set aside last at least the name stays: it tells what the new chain follows.
    """
    found, told = _all(path), []
    worth = {old: _undelivered(old) for old in found}
    with _border(f"what was set aside beside {path} cannot be deleted", "check the disk and the folder's owner"):
        for place, old in enumerate(sorted(found, key=lambda one: (worth[one], _number(one)), reverse=True)):
            parts = [part for end in ("", *BESIDE, "-shm") if (part := old.with_name(old.name + end)).exists()]
            taken = sum(part.stat().st_size for part in parts) if place else 0
            if place < MOST and taken <= size:
                size -= taken
                continue
            if old.stat().st_size:
                told.append(f"{old.name} with rows up to {_ended(old)[1]}, of which nobody has {worth[old]}")
            for part in reversed(parts):
                if old == found[-1] and part == old:
                    os.truncate(part, 0)
                else:
                    part.unlink(missing_ok=True)  # SQLite takes -shm away when nobody reads it any more
    return "; ".join(told)


def finish(path: Path) -> None:
    """Go on with a `put` that was cut off after its first step, if there was one. Raises StoreError.

    A -journal without a store is one that SQLite had begun for the new store; SQLite deletes it.
    """
    found = _all(path)
    if found and not path.exists():
        with _border(f"{path} cannot be set aside", "check the disk and the folder's owner"):
            _put_rest(path, found[-1], ("-wal", "-shm"))


def last(path: Path) -> tuple[str, str]:
    """(name, "epoch/head") of the store that was set aside last; empty when there is none."""
    found = _all(path)
    ended = _ASIDE.fullmatch(found[-1].name) if found else None
    return (ended[0], f"{ended[3]}/{ended[4]}") if ended else ("", "")


@contextmanager
def _border(what: str, todo: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull(f"{what} ({error.strerror}): make room on its disk") from error
        raise StoreError(f"{what} ({error.strerror}): {todo}") from error


def _all(path: Path) -> list[Path]:
    """The stores that were set aside, the last one last."""
    found = (one for one in path.parent.glob(f"{path.name}.aside-*") if not one.name.endswith((*BESIDE, "-shm")))
    return sorted(found, key=_number)


def _number(aside: Path) -> int:
    found = _ASIDE.fullmatch(aside.name)
    return int(found[1]) if found else 0


def _ended(aside: Path) -> tuple[str, int, int]:
    """(epoch, head, acked) as a name tells them."""
    found = _ASIDE.fullmatch(aside.name)
    return (found[3], int(found[4]), int(found[2] or 0)) if found else ("unknown", 0, 0)


def _undelivered(aside: Path) -> int:
    """How many rows of a store nobody has, as far as can be told."""
    epoch, head, acked = _ended(aside)
    size = aside.stat().st_size
    return 0 if not size else size // ROW if epoch == "unknown" else max(0, head - acked)


def _put_rest(path: Path, aside: Path, ends: tuple[str, ...] = BESIDE) -> None:
    """SQLite's files after the store's own, and never before: without its log an old store looks like a whole one
    that ends earlier, and its numbers would be given away twice."""
    durable.sync(path.parent)
    for end in ends:
        with suppress(FileNotFoundError):
            path.with_name(path.name + end).rename(aside.with_name(aside.name + end))
    durable.sync(path.parent)
