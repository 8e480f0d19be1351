"""This file knows how far the broker has a store's rows, and when that is worth a write.

To lose the cursor only repeats rows, and receivers drop repeats. So it is not written for each acknowledgement, but
when it is ROWS on or AGE old, and at a planned end. It rides with a commit where there is one.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

ROWS, AGE = 250, 600.0
"""What a power cut may repeat, in rows (one message of them) and in seconds."""


@dataclass(slots=True)
class Cursor:
    """at: the last row that the broker has acknowledged, with all before it. on_disk: what the store says of it."""

    at: int
    on_disk: int
    clock: Callable[[], float] = time.monotonic
    _since: float = field(init=False)

    def __post_init__(self) -> None:
        self._since = self.clock()

    def wrote(self, seq: int) -> None:
        """The store says `seq` from now on."""
        if seq != self.on_disk:
            self.at, self.on_disk, self._since = max(self.at, seq), seq, self.clock()

    def due(self, age: float = AGE) -> bool:
        """Whether it is to be written, if the last time is `age` seconds ago."""
        ahead = self.at - self.on_disk
        return ahead >= ROWS or (ahead > 0 and self.clock() - self._since >= age)
