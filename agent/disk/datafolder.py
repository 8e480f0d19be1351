"""This file knows the agent's data folder: one agent alone in it, whether its store is still the file that was
opened, and a reserve of space for the last rows before a disk is full.

    lock      held by the running agent
    reserve   a file of RESERVE bytes that holds nothing; it is deleted when a commit finds no room
"""

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import IO

from agent.disk import aside
from agent.errors import StoreError

RESERVE = 2 * 1024 * 1024
"""Enough to take the store's log into its file, and then for as much again of rows."""
AMPLE = 3 * RESERVE
"""Free bytes at which the reserve is taken (again): it must not be what fills the disk."""
LOW, ENOUGH = 4 * RESERVE, 6 * RESERVE
"""Free bytes below which the disk is nearly full, and at which it is not any more."""


class Folder:
    """The folder, locked. `warning`: what is wrong with its disk, as a sentence; empty when nothing is.

    Raises StoreError when it cannot be used, or another agent uses it.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.warning = path, ""
        self._reserve = path / "reserve"
        self._lock: IO[str] | None = None
        self._opened: tuple[int, int] | None = None
        self._beside: dict[Path, tuple[int, int] | None] = {}
        self.make()
        self.look()

    def make(self) -> None:
        """Make the folder unless it is there, and lock it. Raises StoreError."""
        aside.make_folder(self.path)
        path = self.path / "lock"
        try:
            if self._lock and path.exists() and os.path.samestat(path.stat(), os.fstat(self._lock.fileno())):
                return
            lock = path.open("w")
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreError(f"{self.path} is in use by another agent: stop that one first") from error
        except OSError as error:
            todo = "make room on its disk" if error.errno in (errno.ENOSPC, errno.EDQUOT) else _OWNER
            raise StoreError(f"{self.path} cannot be written ({error.strerror}): {todo}") from error
        self.close()
        self._lock = lock

    def opened(self, file: Path) -> bool:
        """This file has just been opened; returns whether it is another one than before."""
        before, self._opened = self._opened, _id(file)
        self._beside = {part: _id(part) for part in _beside(file)}
        return before != self._opened

    def part(self, file: Path) -> bool:
        """Take away the log and its index if they are still those of the file that was opened last, which has lost
        its name: SQLite would take them for the ones of whatever has that name now. Returns whether they were."""
        left = [part for part in _beside(file) if (found := _id(part)) and found == self._beside.get(part)]
        for part in left:
            part.unlink(missing_ok=True)
        return bool(left)

    def has(self, file: Path) -> bool:
        """Whether the file that was opened last still has its name: who writes to one that was deleted or exchanged
        is told by nobody, and loses all."""
        return self._opened is not None and _id(file) == self._opened

    def look(self) -> None:
        """See how much room there is, and take the reserve when there is enough."""
        try:
            found = os.statvfs(self.path)
        except OSError:
            return  # a commit will say so
        free = found.f_bavail * found.f_frsize
        if free >= AMPLE and not self.has_reserve:
            self._take()
        if not self.has_reserve:
            self.warning = f"the disk of {self.path} is full, rows are stored in the last reserve: make room"
        elif free < (ENOUGH if self.warning else LOW):
            self.warning = f"the disk of {self.path} is nearly full: make room"
        else:
            self.warning = ""

    def give_reserve(self) -> None:
        """Give the reserve back to the disk."""
        with suppress(OSError):
            self._reserve.unlink()
        self.look()

    def close(self) -> None:
        """Let another agent have it."""
        if self._lock:
            self._lock.close()

    @property
    def has_reserve(self) -> bool:
        """Whether there is space in reserve."""
        try:
            return self._reserve.stat().st_size == RESERVE  # a power cut may leave less
        except OSError:
            return False

    def _take(self) -> None:
        try:
            with self._reserve.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, RESERVE)
        except OSError:
            with suppress(OSError):
                self._reserve.unlink()


_OWNER = "give it to the agent's user"


def _beside(file: Path) -> tuple[Path, Path]:
    return file.with_name(f"{file.name}-wal"), file.with_name(f"{file.name}-shm")


def _id(file: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_dev, found.st_ino
