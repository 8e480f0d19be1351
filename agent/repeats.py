"""This file knows the rows that anybody may cause without a login, as often as they like: the first is written at
once, the next ones are counted, and a row a minute says how many there were.
"""

import time
from collections.abc import Callable
from math import inf

from agent.ration import Tally


class Repeats:
    """For one thread. record: writes a row."""

    def __init__(self, record: Callable[..., None]) -> None:
        self._record, self._tally = record, Tally[tuple[tuple[str, str], ...]]()

    def counts(self, event: str, **fields: str) -> bool:
        """Whether this one is only counted; if not, whoever asks writes its row."""
        return not self._tally.take((("event", event), *fields.items()), time.monotonic())

    def note(self, event: str, **fields: str) -> None:
        """Write its row, or only count it."""
        if not self.counts(event, **fields):
            self._record(event, **fields, count=1)

    def tell(self, now: float = inf) -> None:
        """Write what is due; with no time, all that is not told yet."""
        for word, count in self._tally.due(now):
            self._record(**dict(word), count=count)
