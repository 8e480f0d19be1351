"""What the centre sends: a chain of rotations goes as one, named by its last, and only if it is one."""

from typing import Any

import pytest

from agent.centre import parcel
from agent.centre.fleet import Seen
from agent.crypto.signing import COMMAND, CONFIGURATION, TRUST, Envelope, Signer
from agent.crypto.trust import Trust
from agent.errors import EnvelopeRefused, PushRefused
from agent.messages import Result
from tests.pushing import DAY, NOW, TRUSTED, command, configuration, person, rotation, sealed


def next_set(version: int, *signers: Signer, names: tuple[str, str], **other: Any) -> bytes:
    return sealed(TRUST, rotation(Trust(version, signers), id=f"T-{version}", **other), *names)


NEWCOMER, EVE, BO = person("newcomer", "config trust"), person("eve", "config trust"), person("bo")
ONE = next_set(1, NEWCOMER, BO, names=("ann", "bo"), expires=NOW - 1)
TWO = next_set(2, NEWCOMER, EVE, names=("newcomer", "bo"))
THREE = next_set(3, NEWCOMER, BO, names=("eve", "newcomer"))


def refused(*lines: bytes) -> tuple[str, str]:
    try:
        found = parcel.read(b"\n".join(lines), NOW)
    except (EnvelopeRefused, PushRefused) as error:
        return error.reason, str(error)
    return "", found.title


def test_a_chain_of_rotations_is_named_by_its_last_and_followed_from_each_set_on_its_way() -> None:
    found = parcel.read(b"\n\n".join((ONE, TWO, THREE)) + b"\n", NOW)
    assert (found.push.version, found.push.id, found.suffix) == (3, "T-3", "trust/desired")
    assert TRUSTED.followed(found.text).version == 3
    assert TRUSTED.rotated(ONE).followed(found.text).version == 3, "also where the first is in force already"


@pytest.mark.parametrize(
    ("lines", "reason", "part"),
    [
        ((ONE, THREE), "unknown_key", "rotation 2 does not follow"),
        ((TWO, ONE), "unknown_key", "rotation 2 does not follow"),
        ((THREE, TWO), "older", "rotation 2 does not follow"),
        ((ONE, next_set(1, NEWCOMER, EVE, names=("newcomer", "bo"))), "older", "rotation 2"),
        ((ONE, next_set(2, EVE, BO, names=("newcomer", "bo"), org="others")), "not_valid", "one organisation"),
        ((sealed(CONFIGURATION, configuration(), "ann", "bo"), ONE), "not_valid", "rotations"),
        ((ONE, sealed(CONFIGURATION, configuration(), "newcomer", "bo")), "not_valid", "rotations"),
        ((sealed(TRUST, rotation(Trust(1, (NEWCOMER, BO))), "ann"), TWO), "too_few", "cosign"),
        ((ONE,), "expired", "time is over"),
        ((ONE, b"{}"), "not_valid", "not a signed envelope"),
        ((ONE,) * 65, "too_large", "64"),
    ],
)
def test_what_no_terminal_could_follow_is_not_sent(lines: tuple[bytes, ...], reason: str, part: str) -> None:
    found, sentence = refused(*lines)
    assert found == reason
    assert part in sentence


def test_one_rotation_that_was_spelled_over_many_lines_goes_as_a_terminal_reads_it() -> None:
    spelled = TWO.replace(b',"', b',\n"')
    assert Envelope.read(spelled) == Envelope.read(TWO)
    assert parcel.read(spelled, NOW).text == TWO
    assert parcel.read(sealed(CONFIGURATION, configuration(expires=NOW + DAY), "ann", "bo"), NOW).push.version == 7


@pytest.mark.parametrize(
    ("outcome", "was", "word"),
    [
        ("done", "", "committed"),
        ("repeated", "done", "committed"),
        ("repeated", "failed", "failed"),
        ("repeated", "expired", "failed"),
        ("repeated", "", "failed"),
        ("refused", "", "failed"),
    ],
)
def test_a_command_counts_as_done_only_where_it_was(outcome: str, was: str, word: str) -> None:
    found = parcel.read(sealed(COMMAND, command(), "bo", "cy"), NOW)
    result = Result.model_validate({"at": NOW, "id": "K-0001", "command": "", "outcome": outcome, "was": was})
    answer = found.answer(Seen(result=result))
    assert answer
    assert answer.word == word
