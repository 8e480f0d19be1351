"""This file knows small files that tell when they were damaged: {"sha256": of the content, "content": {…}}.

They are read at a start, where a damaged one must neither be taken for a good one nor stop the agent. Envelopes lie
among them as they came: whether one is damaged says its signature.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from agent.disk import aside, durable
from agent.errors import StoreError

LARGEST = 1 << 20
"""Bytes of a file that is read at all."""
Found = TypeVar("Found")


class Damaged(Exception):
    """The file is there, and is not what was written. Its text is the cause."""


class Slips:
    """The files of one folder. troubles: sentences about what was found damaged; damaged: the names of those.

    What writes raises StoreError, and then nothing is changed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.troubles: list[str] = []
        self.damaged: set[str] = set()

    def make(self) -> None:
        """Make the folder, unless it is there."""
        aside.make_folder(self.folder)

    def newest_ms(self) -> int:
        """When something here was written last, by the clock of that time; 0 when nothing is here."""
        times = [0.0]
        with suppress(OSError):
            for path in self.folder.iterdir():
                with suppress(OSError):
                    times.append(path.stat().st_mtime)
        return int(max(times) * 1000)

    def read(self, name: str, build: Callable[[dict[str, Any]], Found]) -> Found | None:
        """The content as `build` makes it (which raises KeyError, TypeError or ValueError for another one); None
        when there is none. Raises Damaged."""
        text = self.data(name)
        if text is None:
            return None
        try:
            found = json.loads(text)
            if found["sha256"] != _digest(found["content"]):
                raise ValueError
            return build(found["content"])
        except (ValueError, TypeError, KeyError, RecursionError):
            raise Damaged("it is not as it was written") from None

    def found(self, name: str, build: Callable[[dict[str, Any]], Found]) -> Found | None:
        """The same at a start: None also for a damaged one, whose bytes are copied into <name>.damaged. It stays
        where it is until something better is written there, so that it is damaged again for a start after this."""
        try:
            return self.read(name, build)
        except Damaged as error:
            self.mourn(name, str(error))
            with suppress(OSError), (self.folder / name).open("rb") as file:
                durable.write(self.folder / f"{name}.damaged", file.read(LARGEST))
            return None

    def mourn(self, name: str, why: str) -> None:
        """A file is damaged: have it told."""
        self.damaged.add(name)
        self.troubles.append(f"{self.folder / name} is damaged ({why}): it is kept beside it; check the disk")

    def data(self, name: str) -> bytes | None:
        """All bytes of a file; None when there is none. Raises Damaged when it cannot be read or is too large."""
        try:
            with (self.folder / name).open("rb") as file:
                found = file.read(LARGEST + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Damaged(f"it cannot be read, {error.strerror}") from None
        if len(found) > LARGEST:
            raise Damaged("it is larger than what is written here")
        return found

    def write(self, name: str, content: dict[str, Any]) -> None:
        """Put a content in place of another, to last."""
        content = json.loads(json.dumps(content))  # as it will be read, where all keys are text
        self.put(name, json.dumps({"sha256": _digest(content), "content": content}).encode())

    def put(self, name: str, data: bytes) -> None:
        """Put a file in place of another, to last."""
        with self._border(name):
            durable.write(self.folder / name, data)

    def move(self, name: str, to: str) -> None:
        """Give a file another name, in place of the one that had it."""
        with self._border(to):
            durable.move(self.folder / name, self.folder / to)

    def remove(self, name: str) -> None:
        """Take a file away, if it is there."""
        with self._border(name):
            durable.remove(self.folder / name)

    @contextmanager
    def _border(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"{self.folder / name} cannot be written ({error.strerror}): make room on its disk, and see that "
                "the agent's user may write there"
            ) from error


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
