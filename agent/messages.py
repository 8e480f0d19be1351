"""This file knows every MQTT message: topics and pydantic models. docs/asyncapi.yaml is generated from them.

All times are wall clock in milliseconds since 1970 UTC, all payloads compact JSON. Topics start with
`tillwire/v1/<org>/<terminal>/`. Delivery is at least once: receivers drop repeats by (terminal, epoch, seq).
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

VERSION = 1
DEFLATED = "application/json+deflate"
"""The content type of a deflated message."""


def topic(org: str, terminal: str, *rest: str) -> str:
    """The full topic of a message of this terminal."""
    return "/".join((f"tillwire/v{VERSION}", org, terminal, *rest))


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SessionDevice(_Message):
    """A device as the configuration names it."""

    name: str
    kind: str
    access: Literal["own", "listen", "service"]


class Birth(_Message):
    """`session`, retained: the agent is connected. `session` is an id of this connection: a death with another
    id is of an older connection and means nothing. `head` is the last ledger row, `acked` the last delivered. It is
    published again when `trouble` or `config` changes."""

    online: Literal[True]
    session: str
    at: int
    boot: str
    version: str
    config: str = Field(
        description="what is in force, hex: the SHA-256 of the configuration file, or that of the SHA-256 of the"
        " file and the SHA-256 of the pushed text, one after the other"
    )
    epoch: str
    head: int
    acked: int
    devices: tuple[SessionDevice, ...]
    trouble: str = Field(default="", description="what is wrong with the terminal's own store, a sentence")
    certificate: int = Field(default=0, description="when this terminal's certificate ends; 0 when it has none")


Parting = Literal["stopped", "changing"]
"""How a connection ends that nobody has broken."""


class Death(_Message):
    """`session`, retained, also the last will: every value of this terminal is unknown from now on. `lost`: the
    broker says it; `stopped`: the agent has; `changing`: it takes another configuration and comes back at once, at
    that one's broker."""

    online: Literal[False]
    session: str
    at: int = Field(description="when the agent stopped; in a last will, when the connection was made")
    reason: Literal["lost", "stopped", "changing"]


class PointState(_Message):
    """One point. `value` is what was last seen at `at`; with `unknown` true it is too old to be believed."""

    value: bool | int | float | str
    at: int
    unknown: bool = False
    raw: str = ""
    inferred: bool = False


class FaultState(_Message):
    """An open fault. `since`: when its cause was first seen. `flapping`: it comes and goes."""

    code: str
    point: str
    severity: Literal["info", "warning", "minor", "major", "critical", "unknown"]
    since: int
    raw: str = ""
    flapping: bool = False


class DeviceState(_Message):
    """`state/<device>`, retained: all points of a device as of `at`, and its open faults. An empty message takes
    away the state of a device that is not configured any more."""

    session: str
    at: int
    points: dict[str, PointState]
    faults: tuple[FaultState, ...] = ()


class LedgerRow(BaseModel):
    """One ledger row, exactly the bytes that were hashed; further keys depend on `kind` (agent/ledger.py)."""

    model_config = ConfigDict(extra="allow", frozen=True)
    seq: Annotated[int, Field(ge=1)]
    at: int = Field(description="when it was seen")
    up: int = Field(description="monotonic milliseconds of this boot")
    boot: str
    kind: str


class LedgerBatch(_Message):
    """`ledger`: consecutive rows in order. With the content type application/json+deflate (MQTT 5) the payload is
    the JSON, deflated as RFC 1950 says (zlib); without a content type it is the JSON. `before` and `hash` are the
    chain's hashes (hex) before the first and after the last of them: SHA-256(hash before || bytes of the row), row
    by row."""

    epoch: str
    before: str
    hash: str
    rows: tuple[LedgerRow, ...]


class Traffic(_Message):
    """`traffic`, retained, once a day: what the line has carried, in bytes with TCP and TLS. `day` is the last that
    is over, by the terminal's calendar; `up` and `down` are of its month until then. `saving` says what is told
    less often because the month's `budget` (0: none) comes to its end."""

    at: int
    day: str
    day_up: int
    day_down: int
    up: int
    down: int
    budget: int = 0
    saving: Literal["no", "refresh", "rows"] = "no"


class Reported(_Message):
    """`config/reported`, retained: what became of the newest push, and what is in force now. `version` and `digest`
    (SHA-256 of the payload that was signed, hex) and `id` are those of that push; `config` is the digest of the
    configuration in force."""

    at: int
    version: int = 0
    digest: str = ""
    id: str = ""
    outcome: Literal["none", "committed", "rolled_back", "refused", "waiting", "applying"]
    reason: str = Field(default="", description="one word, when it was refused, rolled back, or waits")
    detail: str = Field(default="", description="the same as a sentence, with the next step")
    config: str
    in_force: int = Field(default=0, description="pushed version in force; 0: the terminal's own file")
    frozen_until: int = Field(default=0, description="the technician takes no pushes until then; 0 when he does")
    trust: int = Field(default=0, description="version of the trusted signers; 0 are those of the local file")
    groups: tuple[str, ...] = ()
    trust_reason: str = Field(
        default="",
        description="one word, when the newest rotation of the signers was refused, or waits; empty when it counts",
    )
    trust_detail: str = Field(default="", description="the same as a sentence, with the next step")
    trust_digest: str = Field(default="", description="digest of that rotation, of a chain the last")


class Result(_Message):
    """`command/result`: what became of a command. A long answer comes in `parts` messages, numbered from 1; their
    `data`, joined, is the answer."""

    at: int
    id: str
    command: str
    outcome: Literal["done", "failed", "refused", "expired", "repeated"]
    was: Literal["", "done", "failed", "expired"] = Field(
        default="", description="how it ended the first time, when it is repeated; empty when that is not known"
    )
    detail: str = Field(default="", description="a sentence, with the next step when there is one")
    duration_ms: int = 0
    data: str = ""
    part: int = 1
    parts: int = 1


class Signature(_Message):
    """One signature of an envelope: the id of the key, and the Ed25519 signature, base64."""

    keyid: str
    sig: str


class Envelope(_Message):
    """A signed message to the terminal: DSSE 1.0.2 (agent/crypto/signing.py); the signed payload is base64. Below
    `config/desired` and `trust/desired` it is retained; a `command` is not, for it runs once. No more than 128 KiB
    are taken."""

    payload: str
    payloadType: str
    signatures: tuple[Signature, ...]


def ledger_batch(epoch: str, before: bytes, rows: Iterable[tuple[int, bytes, bytes]]) -> bytes:
    """The payload of a LedgerBatch. The rows travel as the bytes that were hashed, so they are joined, not parsed
    and written again."""
    taken = list(rows)
    head = json.dumps({"epoch": epoch, "before": before.hex(), "hash": taken[-1][2].hex()}, separators=(",", ":"))
    return head[:-1].encode() + b',"rows":[' + b",".join(row for _, row, _ in taken) + b"]}"


def compact(message: BaseModel) -> bytes:
    """The payload of a message: JSON without what is at its default."""
    return message.model_dump_json(exclude_defaults=True).encode()


def too_large(suffix: str, payload: bytes) -> bytes:
    """What is told in place of an answer, or a part of one, that the broker cannot take; empty for all else."""
    if suffix != "command/result":
        return b""
    answer = Result.model_validate_json(payload)
    detail = "the answer is larger than what the broker takes: ask for less at a time, or raise the broker's limit"
    told = {"at", "id", "command", "duration_ms"}
    return compact(Result(outcome="failed", detail=detail, **answer.model_dump(include=told)))


@dataclass(frozen=True, slots=True)
class Channel:
    """A topic's models, whether the broker keeps the last message, and whether the terminal receives it."""

    models: tuple[type[BaseModel], ...]
    retained: bool
    received: bool = False


CHANNELS: dict[str, Channel] = {
    "session": Channel((Birth, Death), True),
    "state/{device}": Channel((DeviceState,), True),
    "ledger": Channel((LedgerBatch,), False),
    "traffic": Channel((Traffic,), True),
    "trust/desired": Channel((Envelope,), True, received=True),
    "config/desired": Channel((Envelope,), True, received=True),
    "config/reported": Channel((Reported,), True),
    "command": Channel((Envelope,), False, received=True),
    "command/result": Channel((Result,), False),
}
"""By topic below the terminal. All QoS 1."""
HEARD = tuple(suffix for suffix, channel in CHANNELS.items() if channel.received)
"""What a terminal listens to, where pushes are configured. The signers come first: the rest may be signed by those
who are new."""


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3.0 description of everything above."""
    schemas: dict[str, Any] = {}
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for suffix, channel in CHANNELS.items():
        models = channel.models
        key = suffix.removesuffix("/{device}").replace("/", "_")
        for model in models:
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}", mode="serialization")
            schemas.update(schema.pop("$defs", {}))
            schemas[model.__name__] = schema
        names = ["org", "terminal"] + (["device"] if "{device}" in suffix else [])
        channels[key] = {
            "address": topic("{org}", "{terminal}", suffix),
            "description": " ".join(f"{m.__name__}: {' '.join((m.__doc__ or '').split())}" for m in models),
            "parameters": {name: {} for name in names},
            "bindings": {"mqtt": {"qos": 1, "retain": channel.retained, "bindingVersion": "0.2.0"}},
            "messages": {
                m.__name__: {
                    "contentType": "application/json",
                    **({"x-also": DEFLATED} if m is LedgerBatch else {}),
                    "payload": {"$ref": f"#/components/schemas/{m.__name__}"},
                }
                for m in models
            },
        }
        verb, action = ("hear", "receive") if channel.received else ("publish", "send")
        operations[f"{verb}_{key}"] = {"action": action, "channel": {"$ref": f"#/channels/{key}"}}
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Tillwire", "version": str(VERSION), "description": (__doc__ or "").strip()},
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"schemas": dict(sorted(schemas.items()))},
    }
