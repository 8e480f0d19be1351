"""This file knows what the people of a ceremony were told, one after the other, and who waits for more."""

import threading
from collections import deque
from collections.abc import Callable, Iterable

from agent.crypto.steps import Tell

KEPT = 100


class Telling:
    """One thread tells, any may wait. settled: whether nobody need wait, because people have to act, or nobody has.

    last: the number of the newest; numbers only grow.
    """

    def __init__(self, settled: Callable[[], bool]) -> None:
        self._settled, self._news = settled, threading.Condition()
        self._told: deque[tuple[int, Tell]] = deque(maxlen=KEPT)
        self.last = 0

    def tell(self, tells: Iterable[Tell]) -> None:
        with self._news:
            for tell in tells:
                self.last += 1
                self._told.append((self.last, tell))
            self._news.notify_all()

    def since(self, last: int, patience: float) -> tuple[bool, list[tuple[int, Tell]]]:
        """Whether all is settled, and what was told after number `last`; waits so many seconds for either."""
        with self._news:
            self._news.wait_for(lambda: self._settled() or self.last > last, patience)
            return self._settled(), [told for told in self._told if told[0] > last]
