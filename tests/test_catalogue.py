"""The fault catalogue: every word of the vocabulary is a fault or declared harmless, in two languages, and what
security owns is never delayed."""

import re
from importlib import resources

import pytest

from agent import points
from agent.catalogue import OWNERS, SEVERITIES, UNKNOWN, UNMAPPED, Catalogue, parse
from agent.errors import ConfigError
from agent.model import Change
from agent.points import GUARDED, POINTS

CATALOGUE = parse(resources.files("agent").joinpath("faults.toml").read_text("utf-8"))
WORDS = [(p.pattern, word) for p in POINTS if p.kind == "word" for word in p.words]
NEVER_DELAYED = ("door", "tamper", "seismic", "smoke", "fraud")
CJK = re.compile("[\u4e00-\u9fff]")
ENTRY = """
[[fault]]
code = "x"
points = ["mains"]
when = ["lost"]
severity = "major"
owner = "power"
cause_en = "c"
cause_zh = "c"
hint_en = "h"
hint_zh = "h"
"""


def declared(pattern: str, word: str) -> list[str]:
    """Every entry that speaks of a word: the codes of faults, and "harmless"."""
    faults = [r.code for r in CATALOGUE.rules if pattern in r.points and word in r.when]
    return faults + ["harmless" for h in CATALOGUE.harmless if pattern in h.points and word in h.words]


def test_every_word_is_a_fault_or_declared_harmless_and_only_once() -> None:
    wrong = {f"{pattern} {word}": found for pattern, word in WORDS if len(found := declared(pattern, word)) != 1}
    assert not wrong, "words without an entry in faults.toml, or with several"


def test_a_link_that_nobody_hears_of_is_a_fault() -> None:
    assert declared("link.state", UNKNOWN) == ["link.stale"]


def test_a_code_that_nobody_knows_is_a_fault_at_every_point() -> None:
    for pattern in {pattern for pattern, _ in WORDS}:
        rule = CATALOGUE.rule(pattern.replace("*", "1"), "vendor.5E")
        assert rule is not None, pattern
        assert rule.code == "unmapped", pattern


def test_no_entry_speaks_of_a_word_or_a_point_that_there_is_not() -> None:
    words = {word for _, word in WORDS} | {UNKNOWN, UNMAPPED}
    patterns = {pattern for pattern, _ in WORDS} | {"*"}
    for rule in CATALOGUE.rules:
        assert set(rule.when) <= words, rule.code
        assert set(rule.points) <= patterns, rule.code
        for pattern in rule.points:
            assert pattern == "*" or any((pattern, w) in WORDS for w in rule.when) or UNKNOWN in rule.when, (
                rule.code
            )
    for harmless in CATALOGUE.harmless:
        assert set(harmless.words) <= words
        assert set(harmless.points) <= patterns


def test_codes_are_unique_and_each_text_is_there_in_both_languages() -> None:
    codes = [rule.code for rule in CATALOGUE.rules]
    assert len(set(codes)) == len(codes)
    for rule in CATALOGUE.rules:
        for text in (rule.cause, rule.hint):
            assert text.en.strip(), rule.code
            assert not CJK.search(text.en), rule.code
            assert CJK.search(text.zh), rule.code
            assert "  " not in text.en + text.zh, rule.code
        assert rule.severity in SEVERITIES
        assert rule.owner in OWNERS
        assert len(rule.cause.zh) <= 40, f"{rule.code}: a technician reads this on a small screen"
    assert all(harmless.why.strip() for harmless in CATALOGUE.harmless)


def test_doors_tamper_and_fraud_are_never_debounced_nor_explained_away() -> None:
    for rule in CATALOGUE.rules:
        spoken_of = (rule.code, *rule.points)
        never = rule.owner == "security" or any(n in s for n in NEVER_DELAYED for s in spoken_of)
        if never or GUARDED & set(rule.points):
            assert rule.after == 0, rule.code
            assert not rule.explained, rule.code
    assert {r.points[0] for r in CATALOGUE.rules if r.explained} == {"link.state", "device.state"}


def test_guarded_points_are_in_the_vocabulary() -> None:
    assert {p.pattern for p in POINTS} >= GUARDED


@pytest.mark.parametrize(
    ("point", "was", "value", "guarded"),
    [
        ("safe_door", "closed", "locked", True),
        ("cabinet_door.rear", "closed", "open", True),
        ("cassette.1.state", "ok", "manipulated", True),
        ("device.state", "fraudAttempt", "online", True),
        ("cassette.1.state", "ok", "low", False),
        ("device.state", "online", "deviceBusy", False),
        ("mains", "ok", "lost", False),
    ],
)
def test_what_security_owns_is_guarded(point: str, was: str, value: str, guarded: bool) -> None:
    assert points.exists(point)
    assert CATALOGUE.guarded(Change("d", point, value, was, 0.0)) is guarded


def test_a_code_of_an_older_catalogue_still_has_a_text() -> None:
    assert "older version" in Catalogue(()).by_code("gone").cause.en


@pytest.mark.parametrize(
    ("right", "wrong", "names"),
    [
        ('cause_en = "c"\n', "", "cause_en"),
        ('"mains"', '"mians"', "mians"),
        ('"lost"', '"gone"', "gone"),
        ('"major"', '"bad"', "severity"),
        ('owner = "power"', 'owner = "nobody"', "owner"),
        ('owner = "power"', 'owner = "security"\nafter = 2.0', "security"),
        ('code = "x"', 'code = "x"\ncolour = "red"', "colour"),
        ("[[fault]]", '[[harmless]]\npoints = ["mains"]\nwords = ["ok"]\n[[fault]]', "why"),
        ("[[fault]]", '[[harmless]]\npoints = ["mains"]\nwords = ["fine"]\nwhy = "w"\n[[fault]]', "fine"),
    ],
)
def test_a_mistake_in_the_catalogue_is_named(right: str, wrong: str, names: str) -> None:
    assert len(parse(ENTRY).rules) == 1
    with pytest.raises(ConfigError, match=names):
        parse(ENTRY.replace(right, wrong))
