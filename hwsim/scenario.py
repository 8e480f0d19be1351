"""This file knows timed faults: a time line of acts, and which of them are due. It does no I/O.

[[scenario]]
at = 5.0                      # seconds from the start
device = "ups1"               # or "atm1/ups1"
set = { mains = "lost" }      # or: line = "delay", value = 0.5   or: withdraw = { position = 1, count = 5 }
repeat_every = 60.0           # seconds; without `times` for ever
times = 10                    # how often in all
"""

import heapq
from collections.abc import Iterable, Mapping
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hwsim.line import fault_value

Scalar = bool | int | float | str


class Withdrawal(BaseModel):
    """A customer: `count` notes from the cassette at `position`, top first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    position: Annotated[int, Field(ge=1)]
    count: Annotated[int, Field(ge=1)]


class Act(BaseModel):
    """One thing done to one device: settings, a line fault (`kind` with replug only), or a withdrawal."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: str
    set: Mapping[str, Scalar] | None = None
    line: str | None = None
    value: float | None = None
    kind: str | None = None
    withdraw: Withdrawal | None = None

    @model_validator(mode="after")
    def _one_deed(self) -> Self:
        if sum(deed is not None for deed in (self.set, self.line, self.withdraw)) != 1:
            raise ValueError("give exactly one of set, line, withdraw")
        if self.line is not None:
            fault_value(self.line, self.value)
        elif self.value is not None:
            raise ValueError("value belongs to line")
        if self.kind is not None and self.line != "replug":
            raise ValueError('kind belongs to line = "replug"')
        return self


class Step(Act):
    """An act at its time. `at` and `repeat_every` in seconds; `times` counts all its runs."""

    at: Annotated[float, Field(ge=0)]
    repeat_every: Annotated[float, Field(gt=0)] | None = None
    times: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _times_need_an_interval(self) -> Self:
        if self.times is not None and self.repeat_every is None:
            raise ValueError("times needs repeat_every, the seconds between two runs")
        return self


def in_time(steps: Iterable[Step]) -> list[Step]:
    """Steps in the order of their first runs."""
    return sorted(steps, key=lambda step: step.at)


class Scenario:
    """A time line under way. Each run of each step is due once, in the order of time, then of the file."""

    def __init__(self, steps: Iterable[Step]) -> None:
        self._waiting = [(step.at, place, 1, step) for place, step in enumerate(steps)]
        heapq.heapify(self._waiting)

    @property
    def next(self) -> float | None:
        """Seconds from the start to the next run, or None when all is done."""
        return self._waiting[0][0] if self._waiting else None

    def due(self, now: float) -> list[Step]:
        """The steps whose time has come by `now`, in seconds from the start."""
        due = []
        while self._waiting and self._waiting[0][0] <= now:
            _, place, run, step = heapq.heappop(self._waiting)
            due.append(step)
            if step.repeat_every is not None and run < (step.times or float("inf")):
                heapq.heappush(self._waiting, (step.at + run * step.repeat_every, place, run + 1, step))
        return due
