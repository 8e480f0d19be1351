"""People who sign for the centre, and what they push: signed for real, with keys that are made for tests only."""

import json
from collections.abc import Callable
from typing import Any

from agent.crypto.ed25519 import SigningKey
from agent.crypto.secret import Secret
from agent.crypto.signing import COMMAND, CONFIGURATION, TRUST, Envelope, Signer
from agent.crypto.trust import Trust

Json = dict[str, Any]
NOW = 1_800_000_000_000
DAY = 86_400_000
ROLES = {
    "ann": "config trust",
    "bo": "config commands trust",
    "cy": "commands keys",
    "di": "keys config",
    "ann again": "config trust",
}
NAMES = (*ROLES, "stranger", "robbed", "newcomer", "eve")
KEYS = {name: SigningKey(Secret(bytes([number]) * 32)) for number, name in enumerate(NAMES, 1)}
TOML = """
[broker]
host = "mqtt.example.org"
[broker.tls]
ca = "ca.pem"
[devices.ups1]
kind = "ups"
port = "/dev/ttyS0"
"""


def person(name: str, roles: str = "") -> Signer:
    """Somebody of the set; who comes again has another key, and is the same person."""
    return Signer(name.split()[0], KEYS[name].public, frozenset((roles or ROLES[name]).split()))


TRUSTED = Trust(0, tuple(map(person, ROLES)), frozenset({KEYS["robbed"].public.id}))


def payload(content: Json) -> bytes:
    """An object as `tillwire push sign` spells it."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def sealed(kind: str, content: Json | bytes, *names: str) -> bytes:
    """An envelope that these people have signed."""
    envelope = Envelope(kind, content if isinstance(content, bytes) else payload(content))
    for name in names:
        envelope = envelope.signed(KEYS[name])
    return envelope.text


def edited(text: bytes, change: Callable[[Json], object]) -> bytes:
    """An envelope that somebody changed on the way."""
    found = json.loads(text)
    change(found)
    return json.dumps(found).encode()


def configuration(**other: Any) -> Json:
    """A configuration for the group north."""
    return {
        "format": "tillwire-configuration/1",
        "id": "C-0007",
        "org": "coop",
        "target": {"groups": ["north"]},
        "not_before": NOW - DAY,
        "expires": NOW + DAY,
        "version": 7,
        "config": TOML,
    } | other


def command(**other: Any) -> Json:
    """A command for one terminal."""
    return {
        "format": "tillwire-command/1",
        "id": "K-0001",
        "org": "coop",
        "target": {"terminals": ["ATM-0001"]},
        "not_before": NOW - DAY,
        "expires": NOW + DAY,
        "command": "self_test",
        "arguments": {"device": "ups1", "times": 2, "loud": False},
    } | other


def rotation(trust: Trust, **other: Any) -> Json:
    """The next set of signers."""
    return {
        "format": "tillwire-trust/1",
        "id": "T-0001",
        "org": "coop",
        "target": {"all": True},
        "not_before": NOW - DAY,
        "expires": NOW + DAY,
        "version": trust.version,
        **trust.document(),
    } | other


PUSHED = {CONFIGURATION: configuration(), COMMAND: command(), TRUST: rotation(Trust(1, TRUSTED.signers))}
