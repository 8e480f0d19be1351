"""Who may push: two different people with the right role, and a set of them that only its own people replace."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.crypto import trust as trusting
from agent.crypto.signing import COMMAND, CONFIGURATION, ORDER, TRUST, Envelope, Signer
from agent.crypto.trust import LARGEST, ROLES, Trust, met
from agent.errors import ConfigError, EnvelopeRefused
from tests.pushing import KEYS, PUSHED, TRUSTED, Json, edited, payload, person, rotation, sealed

KINDS = (CONFIGURATION, COMMAND, TRUST)
PAIR = {CONFIGURATION: ("ann", "di"), COMMAND: ("bo", "cy"), TRUST: ("ann", "bo")}


def refused(text: bytes, kind: str = CONFIGURATION, trust: Trust = TRUSTED) -> str:
    with pytest.raises(EnvelopeRefused) as caught:
        trust.accept(text, kind)
    return caught.value.reason


def not_rotated(text: bytes, trust: Trust = TRUSTED) -> str:
    with pytest.raises(EnvelopeRefused) as caught:
        trust.rotated(text)
    assert not {*re.findall(r"\w+", str(caught.value))} & {*KEYS, "PUBLIC"}, "it repeats nothing"
    return caught.value.reason


# two people


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        *PAIR.items(),
        (CONFIGURATION, ("bo", "ann")),
        (CONFIGURATION, ("ann again", "bo")),
        (CONFIGURATION, ("ann", "cy", "bo")),
        (COMMAND, ("cy", "di")),
        (CONFIGURATION, ("ann", "stranger", "bo")),
    ],
)
def test_two_people_with_the_role_are_enough(kind: str, names: tuple[str, ...]) -> None:
    accepted = TRUSTED.accept(sealed(kind, PUSHED[kind], *names), kind)
    assert accepted.content() == PUSHED[kind]
    assert [s.name for s in accepted.signers] == [name.split()[0] for name in names if name != "stranger"]


def test_which_roles_two_have_is_told() -> None:
    def roles(*names: str) -> set[str]:
        return set(met(TRUSTED.accept(sealed(COMMAND, PUSHED[COMMAND], *names), COMMAND).signers))

    assert roles("bo", "cy") == {"commands"}
    assert roles("cy", "di") == {"keys"}
    assert roles("bo", "cy", "di") == {"commands", "keys", "config"}


def test_one_person_with_two_keys_is_no_two_people() -> None:
    assert met([person("ann"), person("ann again"), person("cy")]) == frozenset()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("reason", "names"),
    [
        ("unsigned", ()),
        ("too_few", ("ann",)),
        ("too_few", ("cy",)),
        ("same_signer", ("ann", "ann again")),
        ("same_signer", ("ann", "bo", "ann again")),
        ("unknown_key", ("ann", "stranger")),
        ("unknown_key", ("stranger", "newcomer")),
        ("revoked_key", ("robbed", "stranger")),
        ("revoked_key", ("ann", "robbed")),
        ("revoked_key", ("ann", "bo", "cy", "di", "robbed")),
        ("wrong_role", ("ann", "cy")),
    ],
)
def test_anybody_else_is_refused_by_name(kind: str, reason: str, names: tuple[str, ...]) -> None:
    assert refused(sealed(kind, PUSHED[kind], *names), kind) == reason


@pytest.mark.parametrize(
    ("kind", "names"),
    [(COMMAND, ("bo", "di")), (COMMAND, ("ann", "bo")), (CONFIGURATION, ("bo", "cy")), (TRUST, ("ann", "di"))],
)
def test_one_of_each_role_is_not_two_of_one(kind: str, names: tuple[str, str]) -> None:
    assert refused(sealed(kind, PUSHED[kind], *names), kind) == "wrong_role"


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_does_not_pass_for_another(kind: str) -> None:
    everybody = ("ann", "bo", "cy", "di")
    for other in {*KINDS, ORDER} - {kind}:
        text = sealed(other, PUSHED[kind], *everybody)
        assert refused(text, kind) == "wrong_type"
        assert refused(text.replace(other.encode(), kind.encode()), kind) == "bad_signature"


def test_other_bytes_under_a_good_signature_are_refused() -> None:
    text, other = (sealed(CONFIGURATION, PUSHED[CONFIGURATION] | {"version": n}, "ann", "bo") for n in (7, 8))
    swapped = edited(text, lambda found: found.update(payload=json.loads(other)["payload"]))
    assert refused(swapped) == "bad_signature"
    assert refused(edited(text, lambda f: f["signatures"].append(f["signatures"][0]))) == "same_signer"


@pytest.mark.parametrize("kind", KINDS)
def test_the_largest_is_told_before_anything_is_parsed(kind: str) -> None:
    fits = b" " * LARGEST[kind]
    TRUSTED.accept(sealed(kind, fits, *PAIR[kind]), kind)
    assert refused(sealed(kind, fits + b" ", *PAIR[kind]), kind) == "too_large"
    for bomb in (b"[" * 10_000_000, b'{"payload":"' + b"A" * 10_000_000 + b'"}'):
        assert refused(bomb, kind) == "too_large"


def test_what_is_no_envelope_is_refused() -> None:
    good = sealed(CONFIGURATION, PUSHED[CONFIGURATION], "ann", "bo")
    for text in (
        b"",
        b"{}",
        b"[" * 10_000,
        b'{"payload":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        good.replace(b'"payload"', b'"payload":"","payload"', 1),
        edited(good, lambda found: found.update(alg="none")),
    ):
        assert refused(text) == "not_valid"


GOOD = {kind: sealed(kind, PUSHED[kind], *PAIR[kind]) for kind in KINDS}


@given(st.sampled_from(KINDS), st.data())
def test_no_single_changed_byte_changes_what_is_accepted(kind: str, data: st.DataObject) -> None:
    text = bytearray(GOOD[kind])
    at = data.draw(st.integers(0, len(text) - 1))
    text[at] = data.draw(st.integers(0, 255))
    try:
        accepted = TRUSTED.accept(bytes(text), kind)
    except EnvelopeRefused:
        assert text != GOOD[kind]
    else:
        assert accepted.payload == payload(PUSHED[kind])


def test_who_signs_next_learns_who_signed_first() -> None:
    text = sealed(CONFIGURATION, PUSHED[CONFIGURATION], "ann")
    assert [signer.name for signer in TRUSTED.begun(text, CONFIGURATION).signers] == ["ann"]
    for reason, names in (("unknown_key", ("stranger",)), ("wrong_role", ("cy",)), ("unsigned", ())):
        with pytest.raises(EnvelopeRefused) as caught:
            TRUSTED.begun(sealed(CONFIGURATION, PUSHED[CONFIGURATION], *names), CONFIGURATION)
        assert caught.value.reason == reason


# rotation


def set_of(version: int, *people: Signer, revoked: tuple[str, ...] = ()) -> Trust:
    return Trust(version, people, frozenset(KEYS[name].public.id for name in revoked))


NEW = (person("newcomer", "config trust"), person("bo"), person("cy"))


def test_a_rotation_is_signed_under_the_set_before_it() -> None:
    after = TRUSTED.rotated(sealed(TRUST, rotation(set_of(3, *NEW, revoked=("ann",))), "ann", "bo"))
    assert after.version == 3
    assert {signer.name for signer in after.signers} == {"newcomer", "bo", "cy"}
    text = PUSHED[CONFIGURATION]
    after.accept(sealed(CONFIGURATION, text, "newcomer", "bo"), CONFIGURATION)
    assert refused(sealed(CONFIGURATION, text, "ann", "bo"), trust=after) == "revoked_key"
    assert refused(sealed(CONFIGURATION, text, "di", "bo"), trust=after) == "unknown_key"
    assert not_rotated(sealed(TRUST, rotation(set_of(4, *TRUSTED.signers)), "ann", "di"), after) == "revoked_key"


def test_the_new_set_alone_cannot_make_itself_the_set() -> None:
    new = rotation(set_of(1, person("newcomer", "config trust"), person("eve", "config trust"), person("bo")))
    assert not_rotated(sealed(TRUST, new, "newcomer", "eve")) == "unknown_key"
    assert not_rotated(sealed(TRUST, new, "newcomer", "bo")) == "unknown_key"
    assert not_rotated(sealed(TRUST, new, "bo")) == "too_few"
    assert TRUSTED.rotated(sealed(TRUST, new, "newcomer", "bo", "eve", "ann")).version == 1


@pytest.mark.parametrize("version", [0, 1, 4, 5])
def test_a_rotation_goes_forward_only(version: int) -> None:
    now = set_of(5, *TRUSTED.signers)
    content = rotation(set_of(9, *NEW), version=version)
    assert not_rotated(sealed(TRUST, content, "ann", "bo"), now) == ("older" if version else "not_valid")


def test_what_was_revoked_stays_revoked() -> None:
    after = TRUSTED.rotated(sealed(TRUST, rotation(set_of(1, *NEW)), "ann", "bo"))
    assert KEYS["robbed"].public.id in after.revoked
    back = set_of(2, *NEW, person("robbed", "config"))
    assert not_rotated(sealed(TRUST, rotation(back), "newcomer", "bo"), after) == "not_valid"


LAST: dict[str, tuple[Signer, ...]] = {
    "nobody": (),
    "one with trust": (person("ann"), person("di")),
    "one with trust, who has two keys": (person("ann"), person("ann again"), person("di")),
    "one with config": (person("ann"), person("bo", "trust"), person("cy")),
    "a key twice": (person("ann"), person("bo"), Signer("eve", KEYS["bo"].public, frozenset({"keys"}))),
    "a name in two spellings": (person("ann"), person("bo"), Signer("Ann", KEYS["di"].public, frozenset({"keys"}))),
}


@pytest.mark.parametrize("case", LAST)
def test_a_set_that_would_be_the_last_is_refused(case: str) -> None:
    assert not_rotated(sealed(TRUST, rotation(set_of(1, *LAST[case])), "ann", "bo")) == "not_valid"


def signer(**other: Any) -> Json:
    return {"name": "eve", "roles": ["keys"], "key": KEYS["eve"].public.pem} | other


@pytest.mark.parametrize(
    "change",
    [
        {"format": "tillwire-trust/2"},
        {"more": 1},
        {"version": True},
        {"version": "1"},
        {"version": 2**40},
        {"revoked": "none"},
        {"revoked": ["short"]},
        {"revoked": [1]},
        {"revoked": [KEYS["bo"].public.id]},
        {"signers": {}},
        {"signers": ["eve"]},
        *(
            {"signers": [*rotation(TRUSTED)["signers"], one]}
            for one in (
                signer(more=1),
                signer(name="e v e"),
                signer(name=1),
                signer(name="0123456789ABCDEF"),
                signer(roles=[]),
                signer(roles="keys"),
                signer(roles=["maker"]),
                signer(roles=["keys", "keys"]),
                signer(roles=[["keys"]]),
                signer(key=""),
                signer(key=1),
                signer(key="-----BEGIN PRIVATE KEY-----"),
            )
        ),
    ],
)
def test_a_set_that_is_not_as_it_should_be_is_refused(change: Json) -> None:
    good = rotation(set_of(1, *TRUSTED.signers))
    TRUSTED.rotated(sealed(TRUST, good, "ann", "bo"))
    assert not_rotated(sealed(TRUST, good | change, "ann", "bo")) == "not_valid"


def test_a_terminal_that_was_away_follows_the_chain() -> None:
    one, two = set_of(1, *NEW), set_of(2, NEW[0], person("eve", "config trust"))
    first, second = sealed(TRUST, rotation(one), "ann", "bo"), sealed(TRUST, rotation(two), "newcomer", "bo")
    assert TRUSTED.followed(first + b"\n" + second + b"\n").version == 2
    assert not_rotated(second) == "unknown_key"
    after = TRUSTED.rotated(first)
    assert after.followed(first + b"\n" + second).version == 2
    for chain, reason in ((second, "unknown_key"), (b"", "not_valid"), (b"\n".join([first] * 65), "too_large")):
        with pytest.raises(EnvelopeRefused) as caught:
            TRUSTED.followed(chain)
        assert caught.value.reason == reason
    with pytest.raises(EnvelopeRefused):
        after.followed(first)


# kept and read


@given(
    st.integers(0, 10**9),
    st.dictionaries(st.sampled_from(sorted(KEYS)), st.sets(st.sampled_from(ROLES), min_size=1)),
)
def test_a_set_is_kept_in_its_one_spelling(version: int, roles: dict[str, set[str]]) -> None:
    people = [Signer(f"p{n}", KEYS[name].public, frozenset(of)) for n, (name, of) in enumerate(roles.items())]
    always = [Signer(name, KEYS[name].public, frozenset({"config", "trust"})) for name in ("ann", "bo")]
    everybody = [p for p in people if p.key not in (KEYS["ann"].public, KEYS["bo"].public)] + always
    made = Trust(version, tuple(everybody), frozenset())
    again = Trust.parse(made.text)
    assert Trust.parse(again.text.encode()) == again
    assert (again.version, set(again.signers), again.revoked) == (version, set(everybody), frozenset())
    assert Trust(version, tuple(reversed(again.signers))).document()["revoked"] == []


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "nonsense", TRUSTED.text[:-1], TRUSTED.text.replace('":0', '":-1')]
)
def test_a_damaged_set_is_not_read(text: str) -> None:
    with pytest.raises(EnvelopeRefused) as caught:
        Trust.parse(text)
    assert caught.value.reason == "not_valid"


def local(*people: Signer, more: str = "") -> str:
    entries = [
        f"[[signer]]\nname = \"{p.name}\"\nroles = {json.dumps(sorted(p.roles))}\nkey = '''{p.key.pem}'''\n"
        for p in people
    ]
    return more + "\n".join(entries)


def test_the_file_of_a_technician_is_version_0() -> None:
    found = Trust.local(local(*TRUSTED.signers, more=f'revoked = ["{KEYS["robbed"].public.id}"]\n'))
    assert (found.version, set(found.signers), found.revoked) == (0, set(TRUSTED.signers), TRUSTED.revoked)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "fewer than 2 people have the role config"),
        ("x =", "Invalid value"),
        (local(person("ann"), person("di")), "fewer than 2 people have the role trust"),
        (local(person("ann"), person("bo"), person("bo")), "a key stands twice"),
        (local(*TRUSTED.signers, more="owner = 1\n"), "owner is not a known key"),
        (local(*TRUSTED.signers, more=f'revoked = ["{KEYS["bo"].public.id}"]\n'), "revoked: take the signer out"),
        (local(person("ann"), person("bo", "maker")), "signer 2: roles must be a list of config"),
        (local(person("ann")).replace("BEGIN PUBLIC", "BEGIN PRIVATE"), "signer 1: the key must be a public one"),
    ],
)
def test_a_mistake_in_the_file_is_told(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Trust.local(text)


def test_nothing_is_accepted_by_a_rule_that_is_not_there() -> None:
    with pytest.raises(KeyError):
        TRUSTED.accept(sealed(ORDER, b"{}", "ann", "bo"), ORDER)
    assert set(trusting.SIGNED_BY) == set(KINDS)
    assert LARGEST == {CONFIGURATION: 64 * 1024, COMMAND: 16 * 1024, TRUST: 32 * 1024}
    assert Envelope.read(GOOD[TRUST]).kind == TRUST
