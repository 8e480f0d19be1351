"""This file knows which devices answer, and of which nobody can tell yet, since their line was opened a moment ago.

A configuration is tried against this picture: a device that is not known to answer is not waited for. So a push
waits until the picture is there, at a start and after what was tried was taken back. For any thread; times are
monotonic seconds.
"""

from collections.abc import Callable, Iterable, Mapping

from agent.model import Heard, Reading
from agent.tables import Device

PATIENCE = 60.0
"""Seconds after which a device whose line was opened is known to be as it is then."""


class Answering:
    """before: the devices that answered when the agent was last there. since: when the line of each was opened."""

    def __init__(self, before: Iterable[str], since: Callable[[], Mapping[str, float]]) -> None:
        self._since = since
        self._before = set(before)
        """Those that answered before their line was opened, and have not done so again."""
        self._up: set[str] = set()
        self._at: dict[str, float] = {}

    def heard(self, heard: Heard) -> None:
        """Something was said of a device."""
        for item in heard.items:
            if isinstance(item, Reading) and item.point == "link.state":
                self._at[heard.device] = item.at
                if item.value == "up":
                    self._up.add(heard.device)
                    self._before.discard(heard.device)
                else:
                    self._up.discard(heard.device)

    def back(self, answered: frozenset[str]) -> None:
        """What was tried is taken back: these answered before it."""
        self._before |= answered

    def answers(self) -> frozenset[str]:
        """The devices that answer: they said so last, or have said nothing yet and did before."""
        since = self._since()
        return frozenset(self._up) | {name for name in tuple(self._before) if not self._is_heard(name, since)}

    def unheard(self, devices: Mapping[str, Device], now: float) -> tuple[str, ...]:
        """Of these the ones that may answer yet: they have said nothing, or that they do not, and did before. Where
        others ask, silence says nothing, and nobody waits for it."""
        since, up, before = self._since(), frozenset(self._up), frozenset(self._before)
        return tuple(
            name
            for name, device in devices.items()
            if device.access != "listen"
            and now - since.get(name, float("-inf")) < PATIENCE
            and (not self._is_heard(name, since) or name in before - up)
        )

    def _is_heard(self, name: str, since: Mapping[str, float]) -> bool:
        """Since its line was opened."""
        return self._at.get(name, float("-inf")) >= since.get(name, float("-inf"))
