"""This file knows where to cut a recording, and which of the images that each cut may leave are looked at.

A cut lies before each sync (there the most is pending, and an image in which the latest calls are lost is that of
an earlier cut), at each mark, and at the end; the long form also cuts between any two calls.
"""

import hashlib
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations

from tests.powercut.disk import ALL, NONE, RUBBISH, ZEROS, Disk, Fate, Tree
from tests.powercut.recording import Op, Step

Fates = dict[int, Fate]
NAMES = 4
"""Of so many pending names, the latest, each choice is looked at."""


@dataclass(frozen=True, slots=True)
class Image:
    """What a power cut left: `marks` are the promises made before it, `name` says which cut and what was lost."""

    name: str
    tree: Tree
    marks: tuple[str, ...]


def images(
    steps: Iterable[Step], disk: Disk, chance: random.Random, each: int, *, between: bool = False
) -> Iterator[Image]:
    """Different images of all cuts: the plain ones of each cut, and `each` more drawn from the others."""
    seen = set()
    steps = list(steps)
    for number in range(len(steps) + 1):
        last = number == len(steps)
        if last or between or steps[number].op in (Op.SYNC, Op.MARK):
            for name, fates in fates_of(disk, chance, each):
                tree = disk.image(fates, random.Random(number))
                if (digest := _digest(tree, disk.marks)) not in seen:
                    seen.add(digest)
                    yield Image(f"before step {number}: {name}", tree, tuple(disk.marks))
        if not last:
            disk.take(steps[number])


def fates_of(disk: Disk, chance: random.Random, each: int) -> Iterator[tuple[str, Fates]]:
    """What may become of the pending calls, with a name for each."""
    pending, names = disk.pending(), disk.names()
    yield "nothing pending is kept", {}
    if not pending:
        return
    yield "all is kept", dict.fromkeys(pending, ALL)
    data: Fates = {n: ALL for n in pending if n not in names}
    latest = sorted(names)[-NAMES:]
    for count in range(len(latest) + 1):
        for kept in combinations(latest, count):
            lost = set(latest) - set(kept)
            yield f"all is kept but {sorted(lost)}", data | dict.fromkeys(names - lost, ALL)
    if names:
        yield "names only", dict.fromkeys(names, ALL)
    for word in (ZEROS, RUBBISH):
        yield f"lengths with {word}", {n: ALL if n in names else word for n in pending}
    last = next((n for n in reversed(pending) if n not in names), None)
    if last is not None:
        yield "the last write is torn", {n: _torn(disk, n, chance) if n == last else ALL for n in pending}
    for _ in range(each):
        yield _drawn(disk, pending, chance)


def _drawn(disk: Disk, pending: list[int], chance: random.Random) -> tuple[str, Fates]:
    one, at = chance.choice(pending), chance.randrange(len(pending))
    match chance.randrange(6):
        case 0:
            return f"the first {at}", dict.fromkeys(pending[:at], ALL)
        case 1:
            begun = {pending[at]: _torn(disk, pending[at], chance)}
            return f"the first {at} and some of the next", dict.fromkeys(pending[:at], ALL) | begun
        case 2:
            return f"all but the first {at}", dict.fromkeys(pending[at:], ALL)
        case 3:
            return f"all but {one}", {n: ALL for n in pending if n != one}
        case 4:
            return f"only {one}", {one: ALL}
        case _:
            likely = chance.choice((0.2, 0.5, 0.8))
            fates = {n: _any(disk, n, chance) for n in pending if chance.random() < likely}
            return f"any: {fates}", fates


def _any(disk: Disk, number: int, chance: random.Random) -> Fate:
    return chance.choice((ALL, ALL, NONE, ZEROS, RUBBISH, _torn(disk, number, chance)))


def _torn(disk: Disk, number: int, chance: random.Random) -> Fate:
    """Some sectors of a write: the first ones, as a disk that writes in order leaves them, or any."""
    size = chance.choice((512, 512, 4096))
    sectors = disk.sectors(number, size)
    if not sectors:
        return ALL
    if chance.random() < 0.5:
        return size, frozenset(sectors[: chance.randrange(len(sectors))])
    return size, frozenset(sector for sector in sectors if chance.random() < 0.5)


def _digest(tree: Tree, marks: list[str]) -> bytes:
    found = hashlib.blake2b(str(len(marks)).encode())
    for path, data in sorted(tree.items()):
        found.update(f"{path}\0{-1 if data is None else len(data)}\0".encode())
        found.update(data or b"")
    return found.digest()
