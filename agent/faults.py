"""This file knows when something is not well: changes in, faults raised and cleared. The catalogue is data
(agent/faults.toml), so that a new cause text needs no new code.

A fault is raised when a point has shown one of its words for `after` seconds, and cleared when the point shows
another word. While a point is unknown its faults stay as they are: not seeing is not the same as being well.
Cleared is not closed: closing wants a cause and a person.
"""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from agent.errors import ConfigError
from agent.model import Change, Fault, Value
from agent.points import POINTS, matches

Severity = Literal["info", "warning", "minor", "major", "critical", "unknown"]
SEVERITIES = ("info", "warning", "minor", "major", "critical", "unknown")
OWNERS = ("branch", "cash", "network", "power", "security", "vendor", "keys")
UNKNOWN = "unknown"
"""In a rule's `when`: the point has become stale."""


@dataclass(frozen=True, slots=True)
class Text:
    """One sentence in the two languages of those who read it."""

    en: str
    zh: str


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of the catalogue. `after`: seconds that the word must last. A word `vendor.*` stands for every
    code that we do not know, and each code is a fault of its own."""

    code: str
    point: str
    when: tuple[str, ...]
    severity: Severity
    owner: str
    cause: Text
    hint: Text
    after: float = 0.0

    def applies(self, point: str, value: Value | None) -> bool:
        """Whether the rule speaks of this point showing this value."""
        if not matches(self.point, point) and self.point != "*":
            return False
        word = UNKNOWN if value is None else str(value)
        return word in self.when or ("vendor.*" in self.when and word.startswith("vendor."))

    def same(self, fault: Fault, value: Value | None) -> bool:
        """Whether an open fault still is this one, now that the point shows `value`."""
        return fault.code == self.code and ("vendor.*" not in self.when or fault.value == value)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All rules; the first that applies counts."""

    rules: tuple[Rule, ...]

    def rule(self, point: str, value: Value | None) -> Rule | None:
        """The rule for a point that shows a value (None: unknown), or None when that is harmless."""
        return next((r for r in self.rules if r.applies(point, value)), None)

    def by_code(self, code: str) -> Rule:
        """The rule of an open fault. A code of an older catalogue gets a rule that says just that."""
        return next((r for r in self.rules if r.code == code), _forgotten(code))


def parse(text: str) -> Catalogue:
    """Read faults.toml. Raises ConfigError naming the entry that is not usable."""
    rules = []
    for entry in tomllib.loads(text).get("fault", ()):
        code = entry.get("code", "?")
        try:
            cause = Text(entry.pop("cause_en"), entry.pop("cause_zh"))
            hint = Text(entry.pop("hint_en"), entry.pop("hint_zh"))
            entry["when"] = tuple(entry["when"])
            rule = Rule(**entry, cause=cause, hint=hint)
        except (KeyError, TypeError) as error:
            raise ConfigError(f"faults.toml: the entry {code} lacks or does not know {error}") from error
        if rule.severity not in SEVERITIES or rule.owner not in OWNERS:
            raise ConfigError(f"faults.toml: {code}: severity is one of {SEVERITIES}, owner one of {OWNERS}")
        if rule.point != "*" and all(p.pattern != rule.point for p in POINTS):
            raise ConfigError(f"faults.toml: {code}: {rule.point} is not in the vocabulary of points")
        rules.append(rule)
    return Catalogue(tuple(rules))


class Faults:
    """The open faults of a terminal, and those that wait for their `after`."""

    def __init__(self, catalogue: Catalogue, open_faults: Iterable[Fault] = ()) -> None:
        self._catalogue = catalogue
        self._open = {(f.device, f.point): f for f in open_faults}
        self._waiting: dict[tuple[str, str], tuple[float, Change, Rule]] = {}

    def take(self, change: Change, now: float) -> list[Fault]:
        """The faults that a change clears. Those that it raises come from `due`, at once where `after` is 0."""
        key = (change.device, change.point)
        rule = self._catalogue.rule(change.point, change.value)
        self._waiting.pop(key, None)
        fault = self._open.get(key)
        if fault and rule and rule.same(fault, change.value):
            return []
        if fault and rule is None and change.value is None:
            return []
        if rule:
            self._waiting[key] = (now + rule.after, change, rule)
        if fault:
            del self._open[key]
            return [fault]
        return []

    def due(self, now: float, wall_ms: int) -> list[Fault]:
        """The faults to raise by `now`; `wall_ms` is the wall clock at `now`."""
        ripe = [(key, change, rule) for key, (when, change, rule) in self._waiting.items() if when <= now]
        raised = []
        for key, change, rule in ripe:
            del self._waiting[key]
            since = wall_ms - round((now - change.at) * 1000)
            value = UNKNOWN if change.value is None else change.value
            fault = Fault(change.device, change.point, rule.code, value, since, change.raw)
            self._open[key] = fault
            raised.append(fault)
        return raised

    def deadline(self) -> float:
        """When `due` will next have something to raise."""
        return min((when for when, _, _ in self._waiting.values()), default=float("inf"))

    def severity(self, fault: Fault) -> Severity:
        """How bad a fault is, by the catalogue."""
        return self._catalogue.by_code(fault.code).severity

    def open(self) -> list[Fault]:
        """Every open fault, oldest first."""
        return sorted(self._open.values(), key=lambda f: f.since)


def _forgotten(code: str) -> Rule:
    text = Text(f"{code}: raised by an older version", f"{code}：由旧版本产生")
    ask = Text("call the vendor with this code", "将此代码报给厂商")
    return Rule(code, "*", (), "unknown", "vendor", text, ask)
