"""How a push is written: what is not exactly as this version reads it is refused, whoever signed it."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import pushes
from agent.crypto.signing import COMMAND, CONFIGURATION, RECEIPT, TRUST
from agent.errors import PushRefused
from agent.pushes import COMMANDS, LARGEST_CONFIG
from tests.pushing import DAY, KEYS, NOW, PUSHED, TOML, command, configuration, edited, sealed
from tests.test_pushes import DIGEST, GOOD, of, pushed

BAD: dict[str, list[tuple[str, Any]]] = {
    CONFIGURATION: [
        ("format", "tillwire-configuration/2"),
        ("format", "tillwire-command/1"),
        ("format", None),
        ("id", ""),
        ("id", "two words"),
        ("id", "x" * 49),
        ("id", "0123456789ABCDEF"),
        ("id", 7),
        ("org", ""),
        ("org", "a/b"),
        ("org", "coop\n"),
        ("org", None),
        ("target", None),
        ("target", {}),
        ("target", {"all": False}),
        ("target", {"all": 1}),
        ("target", {"all": True, "groups": ["north"]}),
        ("target", {"terminals": ["ATM-0001"], "groups": ["north"]}),
        ("target", {"terminals": []}),
        ("target", {"terminals": "ATM-0001"}),
        ("target", {"terminals": ["+"]}),
        ("target", {"terminals": ["ATM-0001", 7]}),
        ("target", {"terminals": ["ATM-0001", "ATM-0001"]}),
        ("target", {"terminals": [f"T-{n}" for n in range(1001)]}),
        ("target", {"branches": ["north"]}),
        ("not_before", -1),
        ("not_before", True),
        ("not_before", str(NOW)),
        ("not_before", None),
        ("expires", NOW - DAY),
        ("expires", NOW + 366 * DAY),
        ("expires", 2**53),
        ("version", 0),
        ("version", -1),
        ("version", True),
        ("version", "7"),
        ("version", 2**40),
        ("config", ""),
        ("config", " \n"),
        ("config", None),
        ("config", {"devices": {}}),
        ("config", "#" * (LARGEST_CONFIG + 1)),
        ("config", "钱" * (LARGEST_CONFIG // 3 + 1)),
    ],
    COMMAND: [
        ("command", "format_disk"),
        ("command", ""),
        ("command", None),
        ("command", ["self_test"]),
        ("arguments", None),
        ("arguments", []),
        ("arguments", {"device": None}),
        ("arguments", {"device": ["ups1"]}),
        ("arguments", {"device": {"name": "ups1"}}),
        ("arguments", {"device": "x" * 257}),
        ("arguments", {"Device": "ups1"}),
        ("arguments", {"": "ups1"}),
        ("arguments", {"device": "0123 4567 89AB CDEF"}),
        ("arguments", {f"a{n}": n for n in range(17)}),
        ("expires", NOW + 31 * DAY),
        ("version", 7),
    ],
    TRUST: [
        ("target", {"terminals": ["ATM-0001"]}),
        ("target", {"groups": ["north"]}),
        ("version", 0),
        ("signers", []),
        ("revoked", None),
        ("revoked", [KEYS["ann"].public.id]),
        ("config", TOML),
    ],
}


@pytest.mark.parametrize(
    ("kind", "name", "value"), [(k, *change) for k, changes in BAD.items() for change in changes]
)
def test_what_is_not_written_as_it_should_be_is_refused(kind: str, name: str, value: Any) -> None:
    with pytest.raises(PushRefused) as caught:
        of(kind, PUSHED[kind] | {name: value})
    assert caught.value.reason == "not_valid"
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("kind", PUSHED)
def test_no_field_may_be_missing(kind: str) -> None:
    for name in PUSHED[kind]:
        with pytest.raises(PushRefused) as caught:
            of(kind, {field: value for field, value in PUSHED[kind].items() if field != name})
        assert caught.value.reason == "not_valid"


def test_the_largest_that_is_allowed_is_read() -> None:
    assert of(CONFIGURATION, configuration(config="#" * LARGEST_CONFIG)).version == 7
    assert of(CONFIGURATION, configuration(expires=NOW + 365 * DAY)).version == 7
    assert of(COMMAND, command(expires=NOW + 30 * DAY, arguments={f"a{n}": n for n in range(16)})).command


def test_an_order_may_hold_what_looks_like_a_key_by_chance_and_nothing_else_may() -> None:
    text = "eyJwYXlsb2FkIjoi0123456789ABCDEF0123456789" * 10
    assert of(COMMAND, command(command="key_order", arguments={"order": text})).arguments == {"order": text}
    for word in set(COMMANDS) - {"key_order"}:
        with pytest.raises(PushRefused):
            of(COMMAND, command(command=word, arguments={"order": text[:100]}))


def test_what_was_kept_is_read_again_whoever_may_sign_by_now() -> None:
    assert pushes.kept(GOOD, DIGEST).version == 7
    assert pushes.kept(edited(GOOD, lambda e: e["signatures"].clear()), DIGEST).config == TOML
    other = sealed(CONFIGURATION, configuration(version=8), "ann", "bo")
    swapped = sealed(COMMAND, configuration(), "ann", "bo")
    for text in (b"", GOOD[:-1], GOOD[:100] + b"A" + GOOD[101:], other, swapped):
        with pytest.raises(PushRefused) as caught:
            pushes.kept(text, DIGEST)
        assert caught.value.reason == "not_valid"


def test_an_envelope_of_another_purpose_is_no_push() -> None:
    with pytest.raises(PushRefused):
        of(RECEIPT, configuration())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(PUSHED)), st.data())
def test_whatever_stands_in_a_field_it_is_read_as_it_is_or_refused(kind: str, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([*PUSHED[kind], "more"]))
    value = data.draw(JSON)
    content = PUSHED[kind] | {name: value}
    reason = pushed(content, kind)
    assert reason in ("", "not_valid", "wrong_target", "older", "expired", "not_yet")
    if reason != "not_valid":
        push = of(kind, content)
        found = push.target.document() if name == "target" else getattr(push, name, None)
        assert found == value or name in ("format", "signers", "revoked")


@given(st.binary(max_size=300))
def test_whatever_was_signed_the_only_error_is_a_refusal(text: bytes) -> None:
    assert pushed(text) == "not_valid"


def test_other_content_has_another_digest() -> None:
    one, other = of(CONFIGURATION, configuration()), of(CONFIGURATION, configuration(expires=NOW + DAY + 1))
    assert one.digest != other.digest
    assert replace(other, digest=one.digest, expires=one.expires) == one
