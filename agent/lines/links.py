"""This file knows which link serves which device, and how links begin and end while others go on."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping

from agent.link import Link
from agent.model import Heard, Operation, Outcome
from agent.pushing.swapping import Wired
from agent.workers import Worker, Workers


class Links:
    """The links of one agent. `put` takes what they hear. `begun`: when the line of each device was opened last
    (monotonic seconds)."""

    def __init__(self, put: Callable[[Heard], None], workers: Workers) -> None:
        self._put, self._workers = put, workers
        self._of: dict[str, Link] = {}
        self.begun: Mapping[str, float] = {}

    def begin(self, wired: Mapping[str, Wired]) -> None:
        """Open these lines."""
        for name, (line, devices) in wired.items():
            stop = threading.Event()
            link = Link(line, devices.values(), self._put, stop)
            self._of = self._of | dict.fromkeys(devices, link)
            self.begun = {**self.begun, **dict.fromkeys(devices, time.monotonic())}
            self._workers.add(Worker(_thread(name), link.run, stop))

    def end(self, names: Iterable[str]) -> None:
        """Close these lines; what their devices were asked has its outcome when this returns."""
        leaving = {link.name: link for link in self._of.values() if link.name in set(names)}
        self._of = {device: link for device, link in self._of.items() if link.name not in leaving}
        self._workers.end(map(_thread, leaving))
        for link in leaving.values():
            link.end()

    def end_all(self) -> None:
        """Close every line."""
        self.end([link.name for link in self._of.values()])

    def of(self, device: str) -> Link | None:
        """The link that serves a device, if it has one now."""
        return self._of.get(device)

    def perform(self, operation: Operation) -> None:
        """Hand an operation to its link. Its Outcome is put in any case."""
        if link := self.of(operation.device):
            link.perform(operation)
            return
        why = "nothing was sent: the device has another configuration just now, or is none any more; ask again"
        self._put(Heard(operation.device, (Outcome(operation.id, "refused", why, time.monotonic()),)))


def _thread(name: str) -> str:
    return f"link:{name}"
