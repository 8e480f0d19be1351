"""This file knows the fault catalogue: which words are not well, how bad, whose they are, and what to do first.

The catalogue is data (agent/faults.toml), so that a new cause text needs no new code. Every word of the vocabulary
is either in a [[fault]] rule or declared in a [[harmless]] entry; tests/test_catalogue.py finds the gaps. Drivers
turn each vendor code into a word of the vocabulary or into `vendor.<code>`, so this covers the codes too.
Severities: ITU-T X.733 with `info` below them.
"""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from agent.errors import ConfigError
from agent.model import Change, Fault, Value
from agent.points import GUARDED, POINTS, lookup

Severity = Literal["info", "warning", "minor", "major", "critical", "unknown"]
SEVERITIES = ("unknown", "info", "warning", "minor", "major", "critical")
"""Least bad first; `unknown` displaces nothing."""
OWNERS = ("branch", "cash", "network", "power", "security", "vendor", "keys")
UNKNOWN = "unknown"
"""In a rule's `when`: the point has become stale."""
UNMAPPED = "vendor.*"
"""In a rule's `when`: every code that we do not know; each code is a fault of its own."""


@dataclass(frozen=True, slots=True)
class Text:
    """One sentence in the two languages of those who read it."""

    en: str
    zh: str


@dataclass(frozen=True, slots=True)
class Rule:
    """One fault of the catalogue: it is there when one of `points` ("*": any) shows one of the words in `when`.

    after      seconds that the word must last; 0 for all that `security` owns: doors are never debounced
    explains   a lost supply: it explains the faults marked `explained` of the other devices (agent/outage.py)
    """

    code: str
    points: tuple[str, ...]
    when: tuple[str, ...]
    severity: Severity
    owner: str
    cause: Text
    hint: Text
    after: float = 0.0
    explains: bool = False
    explained: bool = False

    def applies(self, value: Value | None) -> bool:
        """Whether one of its points with this value (None: unknown) is this fault."""
        word = UNKNOWN if value is None else str(value)
        return word in self.when or (UNMAPPED in self.when and word.startswith("vendor."))

    def same(self, fault: Fault, value: Value | None) -> bool:
        """Whether an open fault still is this one, now that the point shows `value`."""
        return fault.code == self.code and (UNMAPPED not in self.when or fault.value == value)

    @property
    def badness(self) -> int:
        """Its severity as a number: more is worse."""
        return SEVERITIES.index(self.severity)


@dataclass(frozen=True, slots=True)
class Harmless:
    """Words of some points that are no fault, and why."""

    points: tuple[str, ...]
    words: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class Catalogue:
    """All rules; the first that applies counts."""

    rules: tuple[Rule, ...]
    harmless: tuple[Harmless, ...] = ()

    def rule(self, point: str, value: Value | None) -> Rule | None:
        """The rule for a point that shows a value (None: unknown), or None when that is harmless."""
        return next((r for r in self._by_point.get(lookup(point).pattern, self._any) if r.applies(value)), None)

    def by_code(self, code: str) -> Rule:
        """The rule of an open fault. A code of an older catalogue gets a rule that says just that."""
        return next((r for r in self.rules if r.code == code), _forgotten(code))

    def guarded(self, change: Change) -> bool:
        """Whether a change is never debounced nor counted away: doors, alarms, and whatever comes to or goes from
        a fault that security owns."""
        if lookup(change.point).pattern in GUARDED:
            return True
        rules = (self.rule(change.point, change.was), self.rule(change.point, change.value))
        return any(rule is not None and rule.owner == "security" for rule in rules)

    @cached_property
    def _any(self) -> list[Rule]:
        return [rule for rule in self.rules if "*" in rule.points]

    @cached_property
    def _by_point(self) -> dict[str, list[Rule]]:
        named = {pattern for rule in self.rules for pattern in rule.points}
        return {p: [r for r in self.rules if p in r.points or "*" in r.points] for p in named}


def parse(text: str) -> Catalogue:
    """Read faults.toml. Raises ConfigError naming the entry that is not usable."""
    content = tomllib.loads(text)
    rules = tuple(_rule(entry) for entry in content.get("fault", ()))
    harmless = tuple(_harmless(entry) for entry in content.get("harmless", ()))
    return Catalogue(rules, harmless)


def _rule(entry: dict[str, Any]) -> Rule:
    code = entry.get("code", "?")
    try:
        cause = Text(entry.pop("cause_en"), entry.pop("cause_zh"))
        hint = Text(entry.pop("hint_en"), entry.pop("hint_zh"))
        entry["points"], entry["when"] = tuple(entry["points"]), tuple(entry["when"])
        rule = Rule(**entry, cause=cause, hint=hint)
    except (KeyError, TypeError) as error:
        raise ConfigError(f"faults.toml: the entry {code} lacks or does not know {error}") from error
    if rule.severity not in SEVERITIES or rule.owner not in OWNERS:
        raise ConfigError(f"faults.toml: {code}: severity is one of {SEVERITIES}, owner one of {OWNERS}")
    if rule.owner == "security" and (rule.after or rule.explained):
        raise ConfigError(f"faults.toml: {code}: what security owns is neither debounced nor explained away")
    _known(code, rule.points, [word for word in rule.when if word not in (UNKNOWN, UNMAPPED)])
    return rule


def _harmless(entry: dict[str, Any]) -> Harmless:
    try:
        found = Harmless(tuple(entry["points"]), tuple(entry["words"]), entry["why"])
    except KeyError as error:
        raise ConfigError(f"faults.toml: a harmless entry lacks {error}: it has {entry}") from error
    _known("harmless", found.points, found.words)
    return found


def _known(code: str, points: Iterable[str], words: Iterable[str]) -> None:
    """Each point is in the vocabulary, and each word is a word of one of them."""
    vocabulary: set[str] = set()
    for pattern in points:
        entries = [p for p in POINTS if pattern in (p.pattern, "*")]
        if not entries:
            raise ConfigError(f"faults.toml: {code}: {pattern} is not in the vocabulary of points")
        vocabulary.update(word for entry in entries for word in entry.words)
    strange = [word for word in words if word not in vocabulary]
    if strange:
        raise ConfigError(f"faults.toml: {code}: {', '.join(strange)} is no word of {', '.join(points)}")


def _forgotten(code: str) -> Rule:
    text = Text(f"{code}: raised by an older version", f"{code}：由旧版本产生")
    ask = Text("call the vendor with this code", "将此代码报给厂商")
    return Rule(code, ("*",), (), "unknown", "vendor", text, ask)
