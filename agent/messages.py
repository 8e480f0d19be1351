"""This file knows every MQTT message: topics and pydantic models. docs/asyncapi.yaml is generated from them.

All times are wall clock in milliseconds since 1970 UTC, all payloads compact JSON. Topics start with
`tillwire/v1/<org>/<terminal>/`. Delivery is at least once: receivers drop repeats by (terminal, epoch, seq).
"""

import json
from collections.abc import Iterable
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
    published again when `trouble` changes."""

    online: Literal[True]
    session: str
    at: int
    boot: str
    version: str
    config: str = Field(description="SHA-256 of the configuration file, hex")
    epoch: str
    head: int
    acked: int
    devices: tuple[SessionDevice, ...]
    trouble: str = Field(default="", description="what is wrong with the terminal's own store, a sentence")
    certificate: int = Field(default=0, description="when this terminal's certificate ends; 0 when it has none")


class Death(_Message):
    """`session`, retained, also the last will: every value of this terminal is unknown from now on."""

    online: Literal[False]
    session: str
    at: int = Field(description="when the agent stopped; in a last will, when the connection was made")
    reason: Literal["lost", "stopped"]


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


def ledger_batch(epoch: str, before: bytes, rows: Iterable[tuple[int, bytes, bytes]]) -> bytes:
    """The payload of a LedgerBatch. The rows travel as the bytes that were hashed, so they are joined, not parsed
    and written again."""
    taken = list(rows)
    head = json.dumps({"epoch": epoch, "before": before.hex(), "hash": taken[-1][2].hex()}, separators=(",", ":"))
    return head[:-1].encode() + b',"rows":[' + b",".join(row for _, row, _ in taken) + b"]}"


def compact(message: BaseModel) -> bytes:
    """The payload of a message: JSON without what is at its default."""
    return message.model_dump_json(exclude_defaults=True).encode()


CHANNELS: dict[str, tuple[tuple[type[BaseModel], ...], bool]] = {
    "session": ((Birth, Death), True),
    "state/{device}": ((DeviceState,), True),
    "ledger": ((LedgerBatch,), False),
    "traffic": ((Traffic,), True),
}
"""Topic below the terminal -> (models, retained). All QoS 1."""


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3.0 description of everything above."""
    schemas: dict[str, Any] = {}
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for suffix, (models, retained) in CHANNELS.items():
        key = suffix.partition("/")[0]
        for model in models:
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}", mode="serialization")
            schemas.update(schema.pop("$defs", {}))
            schemas[model.__name__] = schema
        names = ["org", "terminal"] + (["device"] if "{device}" in suffix else [])
        channels[key] = {
            "address": topic("{org}", "{terminal}", suffix),
            "description": " ".join(f"{m.__name__}: {' '.join((m.__doc__ or '').split())}" for m in models),
            "parameters": {name: {} for name in names},
            "bindings": {"mqtt": {"qos": 1, "retain": retained, "bindingVersion": "0.2.0"}},
            "messages": {
                m.__name__: {
                    "contentType": "application/json",
                    **({"x-also": DEFLATED} if m is LedgerBatch else {}),
                    "payload": {"$ref": f"#/components/schemas/{m.__name__}"},
                }
                for m in models
            },
        }
        operations[f"publish_{key}"] = {"action": "send", "channel": {"$ref": f"#/channels/{key}"}}
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Tillwire", "version": str(VERSION), "description": (__doc__ or "").strip()},
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"schemas": dict(sorted(schemas.items()))},
    }
