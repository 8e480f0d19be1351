"""This file knows who the terminals of an organisation are, as the centre sees them through the broker: who is
connected, what each last said of its pushes, and what commands have answered.

What a terminal says was published by it (the broker's access list sees to that), but it may be newer than this
program: a field that is not known is passed over. What cannot be read at all is remembered by its topic.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from agent.messages import Reported, Result, topic
from agent.pushes import Target

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
LARGEST = 131072
"""Bytes of a message that is looked at."""
MANY_PARTS = 10_000
TOPICS = ("session", "config/reported", "command/result")

Model = TypeVar("Model", bound=BaseModel)


@dataclass(slots=True)
class Seen:
    """What one terminal has said. online: None when it never connected. since: wall ms of its birth or death.
    reported: None when it takes no pushes, as far as anybody knows. result: its answer to the command that matters,
    of which it sends `parts`."""

    online: bool | None = None
    since: int = 0
    session: str = ""
    reported: Reported | None = None
    result: Result | None = None
    parts: dict[int, str] = field(default_factory=dict)


class Fleet:
    """The terminals of one organisation. command: the id of the command whose results are kept; others are not."""

    def __init__(self, org: str, command: str = "") -> None:
        self.org, self.command = org, command
        self.terminals: dict[str, Seen] = {}
        self.unreadable: set[str] = set()

    @property
    def topics(self) -> tuple[str, ...]:
        """What the centre subscribes to."""
        return tuple(topic(self.org, "+", suffix) for suffix in (TOPICS if self.command else TOPICS[:2]))

    def take(self, name: str, payload: bytes) -> str:
        """A message; returns the terminal of which it tells something new, else nothing."""
        before = topic(self.org, "")
        terminal, _, suffix = name.removeprefix(before).partition("/")
        if not name.startswith(before) or not NAME.fullmatch(terminal) or suffix not in TOPICS:
            return ""
        seen = self.terminals.get(terminal, Seen())
        try:
            news = self._taken(seen, suffix, payload)
        except (ValueError, TypeError, KeyError, RecursionError):
            self.unreadable.add(f"{terminal}/{suffix}")
            return ""
        self.terminals[terminal] = seen
        return terminal if news else ""

    def members(self, target: Target) -> list[str]:
        """The terminals that a push is for, in the order in which they are to have it.

        Those listed by name come in the order of the list, known or not. Else it is everybody who takes pushes and
        is of a group, or of all: who is connected comes first, because it tells soonest whether the push is good.
        """
        if target.terminals:
            return list(target.terminals)
        found = [
            name
            for name, seen in self.terminals.items()
            if seen.reported and (target.all or set(target.groups) & set(seen.reported.groups))
        ]
        return sorted(found, key=lambda name: (not self.terminals[name].online, name))

    def deaf(self) -> list[str]:
        """Terminals that are known, but take no pushes: [push] is not configured there."""
        return sorted(
            name for name, seen in self.terminals.items() if seen.online is not None and not seen.reported
        )

    def _taken(self, seen: Seen, suffix: str, payload: bytes) -> bool:
        if not payload:  # somebody took the retained message away
            changed = seen.reported is not None if suffix == "config/reported" else seen.online is not None
            if suffix == "config/reported":
                seen.reported = None
            elif suffix == "session":
                seen.online, seen.session = None, ""
            return changed
        if len(payload) > LARGEST:
            raise ValueError("larger than any message of a terminal")
        found = json.loads(payload)
        if suffix == "session":
            return _session(seen, found)
        if suffix == "config/reported":
            before, seen.reported = seen.reported, _known(Reported, found)
            return before != seen.reported
        result = _known(Result, found)
        return result.id == self.command and _result(seen, result)


def _session(seen: Seen, found: Mapping[str, Any]) -> bool:
    """A birth or a death; the death of an older connection means nothing."""
    online, session = found["online"] is True, str(found["session"])
    if not online and seen.online and session != seen.session:
        return False
    changed = seen.online is not online
    seen.online, seen.session, seen.since = online, session, int(found["at"])
    return changed


def _result(seen: Seen, result: Result) -> bool:
    """An answer, or a part of one: it counts when all are here. One that comes again tells nothing new."""
    if seen.result or not 1 <= result.part <= result.parts <= MANY_PARTS:
        return False
    seen.parts[result.part] = result.data
    if len(seen.parts) < result.parts:
        return False
    whole = "".join(seen.parts[part] for part in sorted(seen.parts))
    seen.result = result.model_copy(update={"data": whole, "part": 1, "parts": 1})
    return True


def _known(model: type[Model], found: Any) -> Model:
    """A message as its model has it, without the fields that it has not. Raises ValueError."""
    if not isinstance(found, dict):
        raise ValueError("not an object")
    try:
        return model.model_validate({key: value for key, value in found.items() if key in model.model_fields})
    except ValidationError as error:
        raise ValueError(str(error)) from error


def standing(seen: Seen, now: int) -> str:
    """How a terminal stands with its pushes: the outcome of the newest, `frozen` when it takes none for a time, or
    `deaf` when it never takes any. now: wall ms."""
    if seen.reported is None:
        return "deaf"
    is_decided = seen.reported.outcome in ("none", "committed")
    return "frozen" if is_decided and seen.reported.frozen_until > now else seen.reported.outcome
