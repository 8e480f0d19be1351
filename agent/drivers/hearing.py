"""This file knows what a driver says of its line: up, silent or rubbish, and how many frames were bad."""

from agent.model import Reading


def no_answer(now: float, unreadable: int, asked: bool = True) -> Reading:
    """The `link.state` of a device that does not answer, with what a technician should look at. `asked`: somebody
    asks it."""
    if unreadable:
        why = f"{unreadable} unreadable bytes and no answer: wrong line speed, wrong cable or another device"
        return Reading("link.state", "rubbish", now, raw=why)
    why = "no answer: is it switched on, is the cable in, is the line speed right?"
    if not asked:
        why = "nobody asks the device: does its payment application run? If it does: is the cable of the tap in?"
    return Reading("link.state", "silent", now, raw=why)


class Overhearing:
    """What a passive tap says of its line: `quiet` seconds without a good frame mean silent."""

    def __init__(self, quiet: float) -> None:
        self._quiet = quiet
        self._heard_at: float | None = None
        self._asked_at = float("-inf")
        self._said_at = float("-inf")
        self._skipped = 0

    def heard(self, now: float, skipped: int) -> list[Reading]:
        """The device said something good; see Dialogue.link_state for `skipped`."""
        self._heard_at, self._said_at, self._skipped = now, now, skipped
        return [Reading("link.state", "up", now)]

    def asked(self, now: float) -> None:
        """The host said something good."""
        self._asked_at = now

    def judge(self, now: float, skipped: int, patience: float = 0.0) -> list[Reading]:
        """That the device is silent, every 5 s; `patience` overrules `quiet` when it is longer."""
        if self._heard_at is None:
            self._heard_at = now
        quiet = max(self._quiet, patience)
        if now - self._heard_at < quiet or now - self._said_at < 5.0:
            return []
        fresh, self._skipped, self._said_at = skipped - self._skipped, skipped, now
        return [no_answer(now, fresh, asked=now - self._asked_at < quiet)]


class BadFrames:
    """Says `link.bad_frames` when the number has stepped, at most once a second, and every 20 s in any case."""

    def __init__(self) -> None:
        self._said = -1
        self._at = float("-inf")

    def report(self, count: int, now: float) -> list[Reading]:
        """The reading, when it is time for one."""
        if now - self._at < (20.0 if count == self._said else 1.0):
            return []
        self._said, self._at = count, now
        return [Reading("link.bad_frames", count, now)]
