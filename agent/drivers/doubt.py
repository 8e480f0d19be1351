"""This file knows when to believe a protocol that has no checksum: what differs must be said twice."""

from collections.abc import Callable
from operator import eq
from typing import Any


class Twice:
    """Holds back a value that differs from the accepted one until it comes twice in a row.

    Megatec and ESC/POS replies have no checksum: one flipped bit turns "mains ok" into "mains lost". The same
    flip twice running is unlikely, so what differs is asked for again before it is believed.
    """

    def __init__(self, same: Callable[[Any, Any], bool] = eq) -> None:
        self._same = same
        self._accepted: dict[str, Any] = {}
        self._doubted: dict[str, Any] = {}

    def doubted(self, name: str) -> bool:
        """Whether a differing value of `name` waits for its confirmation."""
        return name in self._doubted

    def accept(self, name: str, value: Any, first: bool = True) -> bool:
        """Whether to believe `value`. `first`: believe it when nothing was accepted for `name` before."""
        known = name in self._accepted and self._same(self._accepted[name], value)
        again = name in self._doubted and self._same(self._doubted[name], value)
        if known or again or (first and name not in self._accepted and name not in self._doubted):
            self.settle(name, value)
            return True
        self._doubted[name] = value
        return False

    def settle(self, name: str, value: Any) -> None:
        """Believe `value` without a confirmation."""
        self._accepted[name] = value
        self._doubted.pop(name, None)
