"""This file knows which broker comes next, and how long to wait before.

After a failed or lost connection it is the next of the list; after one that lasted, the first again. The waiting
has full jitter, so that a fleet that lost its broker in one moment does not come back in one. A broker that refuses
what only people can mend (agent/mqtt/refusals.py) is left alone for longer each time, and the others are tried as
usual.

Pure: time is a parameter, in monotonic seconds, and so is the draw of random numbers.
"""

from collections.abc import Callable, Sequence

FIRST = 0.5
"""Seconds within which a first failure is followed by the next attempt."""
STABLE = 120.0
"""Seconds after which a connection counts as good, so that losing it is not another failed attempt."""

Address = tuple[str, int]
"""Host and port."""
Draw = Callable[[float, float], float]
"""A number between two others, each as likely as any."""


class Brokers:
    """The brokers of one terminal, in the order in which it prefers them.

    retry     seconds: the longest wait before an attempt to connect
    refused   seconds: the longest wait for a broker that refuses what only people can mend
    """

    def __init__(self, addresses: Sequence[Address], retry: float, refused: float) -> None:
        self._addresses = tuple(addresses)
        self._retry, self._refused = retry, max(refused, retry)
        self._at = 0
        self._failures = 0
        self._refusals = [0] * len(self._addresses)
        self._rests = [float("-inf")] * len(self._addresses)

    @property
    def address(self) -> Address:
        """The broker whose turn it is."""
        return self._addresses[self._at]

    def failed(self, now: float, draw: Draw, *, refused: bool = False) -> float:
        """An attempt came to nothing: the next broker's turn; returns the seconds to wait before."""
        bound = min(self._retry, FIRST * 2.0 ** min(self._failures, 30))
        self._failures += 1
        if refused:
            self._refusals[self._at] += 1
            rest = min(self._refused, self._retry * 2.0 ** min(self._refusals[self._at], 30))
            self._rests[self._at] = now + draw(rest / 2, rest)
        return self._turn(self._at + 1, now, draw(0.0, bound))

    def lost(self, now: float, draw: Draw, lasted: float) -> float:
        """A broker had accepted this terminal, and the connection broke after `lasted` seconds.

        All who were connected lose it in the same moment, so they spread their return over the whole of `retry`,
        however good the connection had been.
        """
        stable = lasted >= STABLE
        if stable:
            self._failures = self._refusals[self._at] = 0
        return self._turn(0 if stable and self._at else self._at + 1, now, draw(0.0, self._retry))

    def mended(self) -> None:
        """Something was mended on this side: no broker is left alone any longer."""
        self._rests = [float("-inf")] * len(self._rests)

    def _turn(self, start: int, now: float, wait: float) -> float:
        """Choose the first from `start` on that is not left alone, else the one that will be so no more first."""
        order = [(start + step) % len(self._addresses) for step in range(len(self._addresses))]
        rested = [at for at in order if self._rests[at] <= now + wait]
        self._at = rested[0] if rested else min(order, key=lambda at: self._rests[at])
        return max(wait, self._rests[self._at] - now)
