"""This file knows how a store gets the room that a commit needs: by rows that go first, and on a full disk by what
is held in reserve.

    room to spare       nothing is looked at: that costs as much as a small commit
    none                rows go, slice by slice, SLICES of them with one commit, or as many as this one needs
    the disk is full    the reserve is given up, and from then on the store lives within the file that it has
    the cap was lowered with each commit, and each look at an idle store, as many slices go of the rows, and then of
                        the free pages. All at once would keep the agent from its work, and take as much of the
                        disk again

What can never fit is refused before anything goes for it.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

from agent.disk import pruning
from agent.disk.datafolder import Folder
from agent.disk.pruning import Cut, Size
from agent.disk.reading import border, is_full
from agent.errors import StoreError, StoreFull

SLICES = 4
"""Slices that go with one commit at most, if it does not need more."""


class Room:
    """For the one writer of a store, whose connection it is given. `size`: how large the store may be now."""

    def __init__(self, path: Path, folder: Folder, cap: int) -> None:
        self._path, self._folder, self.size = path, folder, Size(cap)
        self._spare = 0
        self.is_passed = False
        """Whether the file is larger than its cap allows, and something is still to be done about it."""

    def opened(self, db: sqlite3.Connection) -> None:
        """The store was opened: what is known of it is known no more."""
        self._spare = 0
        with border(self._path):
            self.is_passed = self.size.is_passed(db)

    def cuts(self, db: sqlite3.Connection, more: int, items: int, acked: int, *, may_drop: bool) -> Iterator[Cut]:
        """What is to go, slice by slice, for a commit of rows of `more` bytes and so many points and faults. Each
        is to be carried out before the next is asked for. may_drop: whether rows that nobody has may go.

        Raises StoreFull when that commit could never fit, StoreError when the log cannot be emptied for it.
        """
        cost = pruning.cost(more, items)
        self._spare -= cost
        if self._spare >= 0:
            return
        if 2 * more > self.size.log:
            raise StoreFull(self._sentence())
        with border(self._path):
            self.size.empty_log(db, self._path, more)
            aim = pruning.due(db, self.size, more, acked, may_drop=may_drop)
            for number in count(1):
                if aim is None:
                    break
                cut = pruning.piece(db, aim, self.size.slice, acked)
                yield cut
                acked = max(acked, cut.last)
                pruning.into_file(db)
                self.size.empty_log(db, self._path, self.size.slice)
                if cut.last >= aim.last or (number >= SLICES and self.size.room(db) >= cost):
                    break
            self._spare = self.size.spare(db, self._path) - cost

    def make(self, db: sqlite3.Connection) -> None:
        """A commit found no room: give up the reserve when it was the disk's. Raises StoreFull when it was not."""
        if not self.size.held and not is_full(self._path):
            raise StoreFull(self._sentence())
        self._folder.give_reserve()
        self._spare = 0
        with border(self._path):
            self.size = self.size.hold(db)

    def look(self, db: sqlite3.Connection) -> None:
        """See how the disk is, and use it again when it is not full any more."""
        self._folder.look()
        if self.size.held and self._folder.has_reserve:
            self.size, self._spare = Size(self.size.cap), 0
            with suppress(StoreError), border(self._path):
                self.size.bound(db)

    def shrink(self, db: sqlite3.Connection) -> None:
        """Make a file smaller that is too large, some slices further."""
        with suppress(StoreError), border(self._path):
            for _ in range(SLICES):
                if self.is_passed:
                    self.is_passed = self.size.shrink(db)

    def _sentence(self) -> str:
        if self.size.held:
            return f"there is no room for {self._path}: make room on its disk"
        most = self.size.cap // (1024 * 1024)
        return f"{self._path} may take {most} MiB, and what is to be stored does not fit: raise [terminal] disk"
