"""This file knows how often something may be told, however often it happens. Pure: `now` is monotonic seconds."""

MINUTE = 60.0


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
