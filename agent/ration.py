"""This file knows how often something may be told, however often it happens. Pure: `now` is monotonic seconds."""

from collections import Counter
from collections.abc import Hashable
from typing import Generic, TypeVar

MINUTE = 60.0
Word = TypeVar("Word", bound=Hashable)


class Ration:
    """So many a minute, one minute after another; what is above that is counted."""

    def __init__(self, most: int) -> None:
        self._most, self._left, self._since = most, most, float("-inf")
        self._passed = 0

    def take(self, now: float) -> bool:
        """Whether one more may be told; if not, it is counted."""
        if now - self._since >= MINUTE:
            self._since, self._left = now, self._most
        if self._left:
            self._left -= 1
            return True
        self._passed += 1
        return False

    def passed(self, now: float) -> int:
        """Once its minute is over: how many were counted in it. They are told with that."""
        if now - self._since < MINUTE:
            return 0
        count, self._passed = self._passed, 0
        return count


class Tally(Generic[Word]):
    """Of each word the first is told at once, and how often it came after that at most once a minute."""

    def __init__(self) -> None:
        self._counts = Counter[Word]()
        self._told: dict[Word, float] = {}

    def take(self, word: Word, now: float) -> bool:
        """Whether this one is told at once; if not, it is counted."""
        if word not in self._counts and now - self._told.get(word, float("-inf")) >= MINUTE:
            self._told[word] = now
            return True
        self._counts[word] += 1
        return False

    def due(self, now: float) -> list[tuple[Word, int]]:
        """The words that may be told now, with their counts, which begin anew. now: infinity when it is the end."""
        due = [(word, count) for word, count in self._counts.items() if now - self._told[word] >= MINUTE]
        for word, _ in due:
            del self._counts[word]
            self._told[word] = now
        return due
