"""This file knows the story of a training drill (deploy/drill/story.toml): its steps, when one is done, lessons.

It judges by what the agent's ledger and the run folder say, never by what was typed: a step is ticked off when it
has really happened, in whichever way the two people did it.
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from hwsim.fleet import parse

Row = Mapping[str, Any]
Names = Mapping[str, str]
Terminal = Literal["A", "B", "C"]
MISTAKEN = ("refused", "login", "wrong", "trouble", "aborted")
"""Events of ledger rows that a drill counts as a mistake, unless they were planned."""
FOLLOWS = ("tamper", "serial_changed", "exposed", "abandoned", "device_lost")
"""Causes of an end that a row of trouble has told before."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Done(_Table):
    """What must be so: every field that is given."""

    row: Mapping[str, str | int] = {}
    file: str = ""
    gone: tuple[str, ...] = ()
    changed: str = ""
    switch: str = ""
    dark: str = ""


class Command(NamedTuple):
    """What somebody types, and at which terminal."""

    terminal: Terminal
    text: str


class Step(_Table):
    """One step. `pad`: which component is typed at the pad meanwhile: one, two, or "one wrong"."""

    do: Annotated[tuple[Command, ...], Field(min_length=1)]
    en: Annotated[str, Field(min_length=1)]
    zh: Annotated[str, Field(min_length=1)]
    done: Done
    pad: Literal["", "one", "two", "one wrong"] = ""


class Scene(_Table):
    """Steps that belong together. kind: of the order that it is about, if any. cut: the pad's power fails at the
    second component. loads: a key is in the slot at the end."""

    en: str
    zh: str
    step: Annotated[tuple[Step, ...], Field(min_length=1)]
    kind: Literal["", "load", "destroy"] = ""
    cut: bool = False
    loads: bool = False
    planned: tuple[Mapping[str, str | int], ...] = ()


class Lesson(_Table):
    """What a mistake teaches, in both languages."""

    en: str
    zh: str


class Story(_Table):
    """A whole drill."""

    scene: Annotated[tuple[Scene, ...], Field(min_length=1)]
    lessons: Mapping[str, Lesson]

    def lesson(self, word: str) -> Lesson:
        """Of a mistake; the general one where there is none of its own."""
        return self.lessons.get(word, self.lessons["other"])


def load(path: Path) -> Story:
    """Read a story. Raises hwsim.errors.Refusal with what is wrong, OSError, and ValueError for what is no TOML."""
    return parse(Story, tomllib.loads(path.read_text("utf-8")))


@dataclass
class Seen:
    """What is known of the terminal so far. fresh: whose first password was not replaced yet. folder: where the
    drill's files are. rows: of key ceremonies, in the order of the ledger. dark: orders during which the pad's
    power failed."""

    folder: Path
    rows: list[Row] = field(default_factory=list)
    fresh: set[str] = field(default_factory=set)
    switch: str = ""
    dark: set[str] = field(default_factory=set)

    def has(self, row: Mapping[str, str | int], names: Names) -> bool:
        """Whether there is a row with these fields."""
        return any(fits(found, row, names) for found in self.rows)

    def done(self, step: Step, names: Names) -> bool:
        """Whether a step has really happened."""
        want = step.done
        return (
            (not want.row or self.has(want.row, names))
            and (not want.file or (self.folder / want.file.format_map(names)).is_file())
            and not any((self.folder / path.format_map(names)).exists() for path in want.gone)
            and want.changed not in self.fresh
            and want.switch in ("", self.switch)
            and want.dark.format_map(names) in ("", *self.dark)
        )


def fits(row: Row, wanted: Mapping[str, str | int], names: Names) -> bool:
    """Whether a row has all these fields."""
    return all(row.get(key) == _filled(value, names) for key, value in wanted.items())


def mistake(row: Row, planned: Iterable[tuple[Mapping[str, str | int], Names]]) -> str:
    """The word of the mistake that a row tells of, or nothing."""
    event = row["event"]
    if event not in MISTAKEN or any(fits(row, wanted, names) for wanted, names in planned):
        return ""
    match event:
        case "refused":
            return str(row["reason"])
        case "login":
            return "locked" if row["result"] == "locked" else "login"
        case "aborted":
            return "" if row["cause"] in FOLLOWS else str(row["cause"])
        case "trouble":
            return str(row["cause"])
    return str(event)


def _filled(value: str | int, names: Names) -> str | int:
    return value.format_map(names) if isinstance(value, str) else value
