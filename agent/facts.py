"""This file knows what a fact of a diagnosis is."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warn", "bad"]


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact. `next` is what to do when the verdict is not ok."""

    label: str
    value: str
    verdict: Verdict = "ok"
    next: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """Facts about one thing."""

    title: str
    facts: tuple[Fact, ...]
