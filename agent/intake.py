"""This file knows what the core takes up in one go, of all that the other threads put on its queue."""

import queue
from collections.abc import Iterable, Iterator

from agent.core import Item
from agent.model import Heard, Reading

MOST = 4000
"""Most items that become one commit: the store's log has its bounds."""


def drained(items: "queue.SimpleQueue[Item | None]", patience: float) -> list[Item | None]:
    """Everything that is there now, up to MOST; waits `patience` seconds for the first. None: the last of all."""
    taken: list[Item | None] = []
    try:
        taken.append(items.get(timeout=max(0.0, patience)))
        while len(taken) < MOST:
            taken.append(items.get_nowait())
    except queue.Empty:
        pass
    return taken


def seen(items: Iterable[Item]) -> Iterator[tuple[str, dict[str, int]]]:
    """Device, and when each of its points was seen (monotonic ms)."""
    for item in items:
        if isinstance(item, Heard):
            yield item.device, {r.point: round(r.at * 1000) for r in item.items if isinstance(r, Reading)}
