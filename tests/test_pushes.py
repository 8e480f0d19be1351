"""What is pushed is acted on when it is meant for here and counts now; whatever else has its named refusal."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import pushes
from agent.clock import Quality
from agent.crypto import signing
from agent.crypto.signing import COMMAND, CONFIGURATION, TRUST, Accepted
from agent.crypto.trust import Trust
from agent.errors import EnvelopeRefused, PushRefused
from agent.pushes import FINAL, REASONS, WAITING, Push, Site, Standing, judge, read
from tests.pushing import (
    DAY,
    NOW,
    PUSHED,
    TOML,
    TRUSTED,
    Json,
    command,
    configuration,
    edited,
    payload,
    sealed,
)

SITE = Site("coop", "ATM-0001", ("atm", "north"))
PAIR = {CONFIGURATION: ("ann", "bo"), COMMAND: ("bo", "cy"), TRUST: ("ann", "bo")}


NOTHING = Standing()


def come(
    text: bytes,
    kind: str = CONFIGURATION,
    site: Site = SITE,
    standing: Standing = NOTHING,
    trust: Trust = TRUSTED,
    now: int = NOW,
    quality: Quality = "synced",
) -> str:
    """What becomes of an envelope on its whole way: empty when it is acted on, else the reason."""
    try:
        judge(read(trust.accept(text, kind)), site, standing, now, quality)
    except (EnvelopeRefused, PushRefused) as error:
        return error.reason
    return ""


def pushed(content: Json | bytes, kind: str = CONFIGURATION, **more: Any) -> str:
    return come(sealed(kind, content, *PAIR[kind]), kind, **more)


def of(kind: str, content: Json) -> Push:
    return read(Accepted(kind, payload(content), ()))


GOOD = sealed(CONFIGURATION, configuration(), "ann", "bo")
DIGEST = TRUSTED.accept(GOOD, CONFIGURATION).digest


@pytest.mark.parametrize("kind", PUSHED)
def test_what_is_right_is_acted_on(kind: str) -> None:
    assert pushed(PUSHED[kind], kind) == ""


def test_a_push_says_what_was_signed() -> None:
    push = read(TRUSTED.accept(GOOD, CONFIGURATION))
    assert (push.kind, push.id, push.version, push.config) == ("configuration", "C-0007", 7, TOML)
    assert push.signers == ("ann", "bo")
    assert push.roles == {"config", "trust"}
    assert push.target.document() == {"groups": ["north"]}
    assert push.digest == DIGEST
    assert "mqtt.example.org" not in repr(push)
    order = of(COMMAND, command())
    assert (order.command, order.arguments) == ("self_test", {"device": "ups1", "times": 2, "loud": False})
    trust = of(TRUST, PUSHED[TRUST]).trust
    assert trust is not None
    assert set(trust.signers) == set(TRUSTED.signers)


NESTED = b'{"format":' + b"[" * 10_000 + b"]" * 10_000 + b"}"
TWICE = payload(configuration()).replace(b'"version":7', b'"version":7,"version":8')
ATTACKS: dict[str, tuple[str, Callable[[], str]]] = {
    "unsigned": ("unsigned", lambda: come(sealed(CONFIGURATION, configuration()))),
    "one of two signatures": ("too_few", lambda: come(sealed(CONFIGURATION, configuration(), "ann"))),
    "the same signer twice": (
        "same_signer",
        lambda: come(sealed(CONFIGURATION, configuration(), "ann", "ann again")),
    ),
    "unknown key": ("unknown_key", lambda: come(sealed(CONFIGURATION, configuration(), "ann", "stranger"))),
    "revoked key": ("revoked_key", lambda: come(sealed(CONFIGURATION, configuration(), "ann", "bo", "robbed"))),
    "wrong role": ("wrong_role", lambda: come(sealed(CONFIGURATION, configuration(), "ann", "cy"))),
    "other bytes": ("bad_signature", lambda: come(edited(GOOD, lambda e: e.update(payload="e30=")))),
    "command as configuration": ("wrong_type", lambda: come(sealed(COMMAND, command(), "bo", "cy"))),
    "type swapped": (
        "bad_signature",
        lambda: come(
            sealed(COMMAND, configuration(), "ann", "bo").replace(COMMAND.encode(), CONFIGURATION.encode())
        ),
    ),
    "command in a configuration's envelope": ("not_valid", lambda: pushed(command())),
    "older version": ("older", lambda: come(GOOD, standing=Standing(8))),
    "older version that was in force": (
        "older",
        lambda: come(GOOD, standing=Standing(8, decided=frozenset({DIGEST}))),
    ),
    "same version, other content": ("same_version", lambda: come(GOOD, standing=Standing(7))),
    "the same again": ("replayed", lambda: come(GOOD, standing=Standing(7, decided=frozenset({DIGEST})))),
    "the same again, refused before": (
        "replayed",
        lambda: come(GOOD, standing=Standing(5, decided=frozenset({DIGEST}))),
    ),
    "a command twice": ("replayed", lambda: pushed(command(), COMMAND, standing=Standing(commands={"K-0001"}))),
    "a command twice, otherwise signed": (
        "replayed",
        lambda: come(
            sealed(COMMAND, command(), "cy", "bo"),
            COMMAND,
            standing=Standing(decided={of(COMMAND, command()).digest}),
        ),
    ),
    "older signers": ("older", lambda: pushed(PUSHED[TRUST], TRUST, standing=Standing(trust=2))),
    "other signers, same version": (
        "same_version",
        lambda: pushed(PUSHED[TRUST], TRUST, standing=Standing(trust=1)),
    ),
    "signers by the new set only": (
        "unknown_key",
        lambda: come(sealed(TRUST, PUSHED[TRUST], "newcomer", "eve"), TRUST),
    ),
    "expired": ("expired", lambda: pushed(configuration(expires=NOW - 1))),
    "not yet": ("not_yet", lambda: pushed(configuration(not_before=NOW + 1))),
    "a clock that was never set": ("clock_suspect", lambda: come(GOOD, quality="unset")),
    "for another terminal": (
        "wrong_target",
        lambda: pushed(configuration(target={"terminals": ["ATM-0002", "ATM-00011"]})),
    ),
    "for another group": ("wrong_target", lambda: pushed(configuration(target={"groups": ["south"]}))),
    "of another organisation": ("wrong_target", lambda: pushed(configuration(org="other", target={"all": True}))),
    "10 MB": ("too_large", lambda: come(b"x" * 10_000_000)),
    "nested 10,000 deep, in front": ("not_valid", lambda: come(b"[" * 10_000)),
    "nested 10,000 deep, signed": ("not_valid", lambda: pushed(NESTED)),
    "a key twice, in front": (
        "not_valid",
        lambda: come(GOOD.replace(b'"payload"', b'"payload":"","payload"', 1)),
    ),
    "a key twice, signed": ("not_valid", lambda: pushed(TWICE)),
    "an unknown field, in front": ("not_valid", lambda: come(edited(GOOD, lambda e: e.update(more=1)))),
    "an unknown field, signed": ("not_valid", lambda: pushed(configuration(more=1))),
    "a key order by those who give commands": (
        "wrong_role",
        lambda: come(sealed(COMMAND, command(command="key_order", arguments={}), "bo", "cy"), COMMAND),
    ),
    "a command by those who order keys": (
        "wrong_role",
        lambda: come(sealed(COMMAND, command(), "cy", "di"), COMMAND),
    ),
    "held back by the technician": ("frozen", lambda: come(GOOD, standing=Standing(frozen=True))),
    "in the middle of another": ("busy", lambda: come(GOOD, standing=Standing(busy=True))),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_has_its_named_refusal(attack: str) -> None:
    reason, attempt = ATTACKS[attack]
    assert attempt() == reason


def test_every_reason_is_met_here_and_says_the_next_step() -> None:
    assert {reason for reason, _ in ATTACKS.values()} == set(REASONS)
    for reason, sentence in REASONS.items():
        assert ":" in sentence, f"{reason} says what is wrong, and after the colon what to do"
        assert len(sentence) <= 120
    for reason in set(REASONS) - set(signing.SENTENCES) | {"not_valid"}:
        assert reason in (pushes.__doc__ or "")


def test_what_goes_away_by_itself_is_not_final() -> None:
    assert {"not_yet", "clock_suspect", "frozen", "busy"} == WAITING
    assert set(REASONS) == WAITING | FINAL
    assert not WAITING & FINAL


def test_who_may_not_order_a_command_does_not_spoil_its_content() -> None:
    """It comes as an EnvelopeRefused, which nobody remembers under the digest of the content."""
    text = sealed(COMMAND, command(command="key_order", arguments={}), "bo", "cy")
    with pytest.raises(EnvelopeRefused, match="have not the roles"):
        judge(read(TRUSTED.accept(text, COMMAND)), SITE, Standing(), NOW, "synced")
    assert come(sealed(COMMAND, command(command="key_order", arguments={}), "di", "cy"), COMMAND) == ""


# which reason comes first


def test_what_was_decided_is_quiet_even_when_the_clock_is_wrong() -> None:
    done = Standing(7, decided=frozenset({DIGEST}))
    assert come(GOOD, standing=done, quality="unset") == "replayed"
    assert come(GOOD, standing=done, now=NOW + 2 * DAY) == "replayed"


def test_what_is_not_for_us_says_nothing_of_us() -> None:
    other = Site("coop", "ATM-0009", ("south",))
    assert come(GOOD, site=other, standing=Standing(8, frozen=True), quality="unset") == "wrong_target"


def test_what_can_never_be_done_is_not_waited_for() -> None:
    held = Standing(frozen=True, busy=True)
    assert come(GOOD, standing=held, now=NOW + 2 * DAY) == "expired"
    assert come(GOOD, standing=held) == "frozen"
    assert come(GOOD, standing=held, now=NOW - DAY - 1) == "not_yet"


def test_a_wrong_clock_never_ends_a_push() -> None:
    for now in (0, NOW - 2 * DAY, NOW + 2 * DAY):
        assert come(GOOD, quality="unset", now=now) == "clock_suspect"


def test_signers_who_were_robbed_are_replaced_in_any_case() -> None:
    assert pushed(PUSHED[TRUST], TRUST, standing=Standing(frozen=True, busy=True)) == ""
    assert pushed(command(), COMMAND, standing=Standing(frozen=True)) == "frozen"


@given(st.integers(-2 * DAY, 2 * DAY), st.sampled_from(["synced", "free", "unset"]))
def test_only_a_good_clock_within_the_time_acts(ahead: int, quality: Quality) -> None:
    reason = come(GOOD, now=NOW + ahead, quality=quality)
    if quality == "unset":
        assert reason == "clock_suspect"
    else:
        assert reason == ("expired" if ahead > DAY else "not_yet" if ahead < -DAY else "")


@given(st.integers(1, 9), st.integers(0, 9), st.booleans())
def test_a_version_goes_forward_only_and_nothing_is_decided_twice(version: int, decided: int, known: bool) -> None:
    digest = of(CONFIGURATION, configuration(version=version)).digest
    standing = Standing(decided, decided=frozenset({digest} if known else ()))
    wanted = "older" if version < decided else "replayed" if known else "same_version" if version == decided else ""
    assert pushed(configuration(version=version), standing=standing) == wanted


# whom it is for


@pytest.mark.parametrize(
    ("target", "ours"),
    [
        ({"all": True}, True),
        ({"terminals": ["ATM-0002", "ATM-0001"]}, True),
        ({"terminals": ["atm-0001"]}, False),
        ({"groups": ["south", "atm"]}, True),
        ({"groups": ["ATM-0001"]}, False),
        ({"terminals": ["north"]}, False),
        ({"terminals": [f"T-{n}" for n in range(999)] + ["ATM-0001"]}, True),
    ],
)
def test_a_push_reaches_whom_it_names(target: Json, ours: bool) -> None:
    push = of(CONFIGURATION, configuration(target=target))
    assert push.target.document() == target
    assert str(push.target)
    if ours:
        judge(push, SITE, Standing(), NOW, "free")
    else:
        with pytest.raises(PushRefused):
            judge(push, SITE, Standing(), NOW, "free")
