"""This file knows which dark devices a lost supply explains: one fault for the mains instead of ten behind it.

Behind the mains of a terminal are all its devices but the one that reports the loss. A device is explained when it
went dark from BEFORE seconds before the loss to AFTER seconds after it; before, because a device that dies at once
can be missed sooner than the UPS says why. Once the supply is back, only LATE seconds are left, which silence takes
to be noticed: who goes dark after that has another cause. What is explained stays so while the supply is lost, and
for RETURN seconds after that: time to start again. What is dark even then has another cause, too. A supply that can
no longer be seen (the UPS itself is silent) counts as it was last seen. Which faults are a loss, and which a loss
can explain, says the catalogue.
"""

from dataclasses import dataclass

from agent.model import Change

BEFORE, AFTER, LATE, RETURN = 10.0, 120.0, 20.0, 60.0
NEVER = float("inf")

Key = tuple[str, str]
"""(device, point): here, of who reports a supply."""


@dataclass(slots=True)
class _Loss:
    """A supply that is lost, or was until `back`. One that fails again before its devices had time to return is
    still the same loss: it failed first at `begun` and last at `again` (monotonic seconds)."""

    begun: float
    again: float
    back: float = NEVER


class Outages:
    """The supplies that the devices of one terminal report, as far as they are or were lost."""

    def __init__(self) -> None:
        self._losses: dict[Key, _Loss] = {}

    def take(self, change: Change, lost: bool) -> bool:
        """Note what a point says of a supply; True when a loss begins. Other points may be given too."""
        key = (change.device, change.point)
        loss = self._losses.get(key)
        if lost and (loss is None or loss.back < NEVER):
            same = loss and change.at < self.over(key)
            self._losses[key] = _Loss(loss.begun if loss and same else change.at, change.at)
            return True
        if loss and not lost and change.value is not None:
            loss.back = min(loss.back, change.at)
        return False

    def explaining(self, device: str, dark: float, now: float) -> Key | None:
        """Whose loss explains that `device` is dark since `dark`, or None."""
        for key, loss in self._losses.items():
            in_time = loss.begun - BEFORE <= dark <= min(loss.again + AFTER, loss.back + LATE)
            if key[0] != device and in_time and now < self.over(key):
                return key
        return None

    def forget(self, device: str) -> None:
        """Nobody hears any more what this device says of a supply: what it has reported lost explains nothing."""
        self._losses = {key: loss for key, loss in self._losses.items() if key[0] != device}

    def over(self, key: Key) -> float:
        """When a loss stops to explain anything: NEVER while it stands (monotonic seconds)."""
        return self._losses[key].back + RETURN if key in self._losses else -NEVER

    def begun(self, key: Key) -> float:
        """When a loss began (monotonic seconds)."""
        return self._losses[key].begun
