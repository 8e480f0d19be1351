"""This file knows what the line to the centre has carried, by day and month of the terminal's calendar, and when to
spend less: a SIM card has a monthly budget.

The budget is spread over the month. Near what it allows until today (SLOW of it) states that have not changed are
told less often; nearer still (RARE) rows that are not urgent, and the states that they change, wait longer than
anyhow. What is urgent, faults, doors and cash among it, goes at once whatever it costs, also beyond the budget: a
bill is better than a robbery that nobody heard of.

The account is a file of its own beside the store, written now and then: it is about money, not about evidence. What
a crash takes of it is at most KEEP_BYTES or KEEP_SECONDS of the line's use.
"""

import calendar
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from agent.config import Config
from agent.disk.durable import write

FILE = "traffic.json"
DAYS = 62
"""Days that are remembered: this month and the last."""
KEEP_BYTES, KEEP_SECONDS = 100_000, 900.0
SLOW, RARE = 0.8, 0.95
"""Shares of what the budget allows until today, from which on less is spent."""
SLOW_TIMES, SLOWEST = 10.0, 3600.0
CALM = 6.0
"""How many times as long as such a row a state waits that nothing urgent has changed: it is the larger message, and
most of it is told by the rows."""
LONG_LINGER, LONG_CALM = 900.0, 3600.0
"""Seconds that rows wait which are not urgent, and states that only they have changed. The frame of a message is
the bill, not what is in it."""

Saving = Literal["no", "refresh", "rows"]
"""What is spent less on: nothing, states that have not changed, or those and rows that are not urgent."""


def of_terminal(config: Config) -> "ByteAccount":
    """The account of a terminal, as it was last kept."""
    budget = round(config.uplink.budget * 1_000_000)
    return ByteAccount(config.terminal.data / FILE, budget, config.terminal.utc_offset)


@dataclass(slots=True)
class ByteAccount:
    """Bytes up and down, by day. One thread adds, others may look.

    path        the file; a missing or damaged one is an account that begins
    budget      bytes a month, 0 for as many as there are
    utc_offset  minutes that the terminal's calendar is ahead of UTC
    """

    path: Path
    budget: int = 0
    utc_offset: int = 0
    told: str = ""
    _days: dict[str, tuple[int, int]] = field(init=False, default_factory=dict)
    _unkept: int = field(init=False, default=0)
    _kept_at: float = field(init=False, default=float("-inf"))

    def __post_init__(self) -> None:
        try:
            found = json.loads(self.path.read_bytes())
            self._days = {str(day): (int(up), int(down)) for day, (up, down) in found["days"].items()}
            self.told = str(found["told"])
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            self._days = {}

    def day(self, wall_ms: int) -> str:
        """The day of the terminal's calendar: 2031-05-17."""
        return time.strftime("%Y-%m-%d", time.gmtime(wall_ms // 1000 + self.utc_offset * 60))

    def add(self, up: int, down: int, wall_ms: int, now: float) -> None:
        """The line has carried so many bytes more. now: monotonic seconds."""
        if up or down:
            day = self.day(wall_ms)
            before = self._days.get(day, (0, 0))
            days = {**self._days, day: (before[0] + up, before[1] + down)}
            self._days = {one: days[one] for one in sorted(days)[-DAYS:]}
            self._unkept += up + down
        if self._unkept >= KEEP_BYTES or (self._unkept and now - self._kept_at >= KEEP_SECONDS):
            self._kept_at = now
            self.keep()

    def keep(self) -> None:
        """Write the account, if there is anything new; a disk that takes none is not this file's to mend."""
        try:
            write(self.path, json.dumps({"days": self._days, "told": self.told}).encode())
        except OSError:
            return
        self._unkept = 0

    def of_day(self, day: str) -> tuple[int, int]:
        """Bytes (up, down) of a day."""
        return self._days.get(day, (0, 0))

    def of_month(self, day: str) -> tuple[int, int]:
        """Bytes (up, down) of the month of a day, until now."""
        used = [bytes_ for one, bytes_ in self._days.items() if one[:7] == day[:7]]
        return sum(up for up, _ in used), sum(down for _, down in used)

    def untold(self, wall_ms: int) -> str:
        """The last day that is over, if its account was not published yet; else nothing."""
        today = self.day(wall_ms)
        over = [day for day in self._days if day < today]
        told = self.told if self.told < today else ""  # the clock was ahead when that was told
        return over[-1] if over and over[-1] > told else ""

    def saving(self, wall_ms: int) -> Saving:
        """What is spent less on today."""
        day = self.day(wall_ms)
        used = sum(self.of_month(day))
        allowed = self.budget * int(day[8:]) / _days_of_month(day)
        if not self.budget or used < SLOW * allowed:
            return "no"
        return "refresh" if used < RARE * allowed else "rows"

    def shown(self, wall_ms: int) -> dict[str, Any]:
        """For a person: bytes of today and of this month, the budget, what is saved on, and how the month will end
        if it goes on like this."""
        day = self.day(wall_ms)
        month = self.of_month(day)
        today = int(day[8:])
        counted = sorted(one for one in self._days if one[:7] == day[:7])
        begun = int(counted[0][8:]) if counted else today
        expected = sum(month) * (_days_of_month(day) - begun + 1) // (today - begun + 1)
        return {
            "day": self.of_day(day),
            "month": month,
            "budget": self.budget,
            "saving": self.saving(wall_ms),
            "expected": expected,
        }


def _days_of_month(day: str) -> int:
    return calendar.monthrange(int(day[:4]), int(day[5:7]))[1]


def spent(saving: Saving, linger: float, refresh: float) -> tuple[float, float, float]:
    """(linger, refresh, calm) in seconds, as they are while less is spent (agent/mqtt/delivery.py)."""
    calm = linger * CALM
    if saving == "no":
        return linger, refresh, calm
    if saving == "refresh":
        return linger, max(refresh, min(SLOWEST, refresh * SLOW_TIMES)), calm
    return max(linger, LONG_LINGER), max(refresh, SLOWEST), max(calm, LONG_CALM)
