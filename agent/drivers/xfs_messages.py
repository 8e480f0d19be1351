"""This file knows XFS4IoT messages: header and payload in either wire generation, and how to read strange JSON.

Source: XFS4IoT release 2021-1 (CWA 17852:2022) and release 2024-3, message headers and completion codes, as
KAL-ATM-Software/KAL_XFS4IoT_SP-Dev implements them, and as recorded in tests/recordings:

                  generation V1 (2021-1)            generation V2 (2023 and later)
    timeout       payload.timeout                   header.timeout
    version       -                                 header.version, of each message
    acknowledge   payload.status "ok" or an error   header.status absent or an error
    completion    payload.completionCode            header.completionCode
    unsolicited   requestId 0 or absent             requestId absent; the type is often "event"

Hybrids carry a version and still payload.completionCode, so the header is read first, then the payload. Inbound
messages are never validated strictly, as real services break the schema; what is no message at all is None.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MOST_LEAVES = 20_000
DEPTH = 8
MOST_NUMBER = 10**9
"""Every number that a service may tell is from 0 to less than this: its counts, values of notes and requestIds."""

NO_NUMBER = float("nan")
"""What stands for a number that cannot be. What is reckoned with it is none either, so no sum leaves a part out."""

NAME = re.compile(r"[A-Za-z]{1,64}\.[A-Za-z]{1,64}")
ACCEPTED = ("", "ok", "success")
CODES = {"authorisationRequired": "authorizationRequired"}
LONG_NUMBER = re.compile(r"\d{12,}|[0-9A-Fa-f]{16,}")
"""What could be a card number, or a key in hex."""

CODED = re.compile(r"(?=(?:[A-Za-z+/]*\d){3})(?=[a-z0-9+/]*[A-Z])[A-Za-z0-9+/]{24,}={0,2}")
"""What could be a key in Base64, or a key block."""

Leaf = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Message:
    """What a service says.

    kind        acknowledge, event or completion
    request_id  0 for an event that belongs to no request
    version     empty in generation V1
    code        why an acknowledge or a completion is not a good one, or empty
    """

    kind: str
    name: str
    request_id: int
    version: str
    code: str
    payload: Mapping[str, Any]


def parse(text: bytes) -> Message | None:
    """Read one message of a service; None when it is none. Never raises."""
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        return None
    header = whole.get("header") if isinstance(whole, dict) else None
    if not isinstance(header, dict):
        return None
    kind, name, version = (header.get(key) for key in ("type", "name", "version"))
    payload = whole.get("payload")
    payload = {} if payload is None else payload
    if not isinstance(kind, str) or not isinstance(name, str) or not isinstance(payload, dict):
        return None
    kind = kind.lower()
    number = header.get("requestId")
    number = 0 if number is None or kind == "unsolicited" else number
    kind = "event" if kind == "unsolicited" else kind
    if kind not in ("acknowledge", "event", "completion") or not NAME.fullmatch(name):
        return None
    if type(number) is not int or not 0 <= number < MOST_NUMBER:
        return None
    field = "status" if kind == "acknowledge" else "completionCode"
    code = _code(header.get(field)) or _code(payload.get(field))
    return Message(kind, name, number, version if isinstance(version, str) else "", code, payload)


def command(
    name: str, number: int, version: str, timeout: float, payload: Mapping[str, Any] | None = None
) -> bytes:
    """The text of a command; an empty `version` makes it one of generation V1. `timeout` in seconds."""
    header: dict[str, Any] = {"type": "command", "name": name, "requestId": number}
    limit = round(timeout * 1000)
    whole: dict[str, Any] = {"header": header}
    if version:
        header |= {"version": version, "timeout": limit}
        if payload:
            whole["payload"] = payload
    else:
        whole["payload"] = {**(payload or {}), "timeout": limit}
    return json.dumps(whole, separators=(",", ":")).encode()


def leaves(tree: Any) -> dict[str, Leaf]:
    """The values of a JSON tree by their path in lower case: `cash.status.initial.typeeur20.fit` -> 150.

    So a partial tree is merged with `|`, and names are compared without their case. A list of objects with a
    `position` is one object by position; of other lists only the objects count, by their number from 1. What is
    deeper than DEPTH or more than MOST_LEAVES is left out; a number that cannot be one is NO_NUMBER.
    """
    found: dict[str, Leaf] = {}
    for path, value in _walk(tree, "", DEPTH):
        if len(found) >= MOST_LEAVES:
            break
        cannot_be = isinstance(value, int | float) and not 0 <= value < MOST_NUMBER
        found[path] = NO_NUMBER if cannot_be else value
    return found


def _walk(value: Any, path: str, depth: int) -> Iterator[tuple[str, Leaf]]:
    if value is None or isinstance(value, str | int | float):
        yield path, value
    elif depth and isinstance(value, dict | list):
        members = value.items() if isinstance(value, dict) else _numbered(value)
        for name, member in members:
            yield from _walk(member, f"{path}.{name[:64].lower()}" if path else name[:64].lower(), depth - 1)


def _numbered(items: list[Any]) -> Iterator[tuple[str, Any]]:
    for number, item in enumerate(items, 1):
        if isinstance(item, dict):
            position = item.get("position")
            yield (position if isinstance(position, str) else str(number)), item


def member(tree: Any, *path: str) -> Any:
    """What stands at a path of a JSON tree, or None. A number goes into a list."""
    for step in path:
        if isinstance(tree, list) and step.isdigit():
            tree = tree[int(step)] if int(step) < len(tree) else None
        else:
            tree = tree.get(step) if isinstance(tree, dict) else None
    return tree


def printable(text: Any, most: int = 64) -> str:
    """A stranger's text without what cannot be shown or stored, and not too long; empty for what is no text."""
    if not isinstance(text, str):
        return ""
    return "".join(c if c.isprintable() else " " for c in text[: 4 * most]).strip()[:most]


def clean(text: Any, most: int = 120) -> str:
    """The same, without what could be a card number or a key: for words and free text, not for serial numbers."""
    return CODED.sub("(coded)", LONG_NUMBER.sub("(long number)", printable(text, 2 * most)))[:most]


def segment(text: str) -> str:
    """A stranger's name as it may be part of a point's name or of a vendor's word."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", CODED.sub("_", LONG_NUMBER.sub("_", text[:64])))[:32] or "_"


class Names:
    """Gives each name that a service uses one segment of a point's name, and different names different ones.

    most  names that are given at all; a service that floods names gets no more
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._given: dict[str, str] = {}

    def of(self, name: str) -> str:
        """The segment for a name, or empty when there are too many."""
        name = name[:64]
        if name not in self._given:
            if len(self._given) >= self._most:
                return ""
            wanted = segment(name)
            taken = self._given.values()
            turns = (f"{wanted}-{turn}" for turn in range(2, self._most + 2))
            self._given[name] = wanted if wanted not in taken else next(t for t in turns if t not in taken)
        return self._given[name]

    def known(self) -> Mapping[str, str]:
        """The names given so far."""
        return self._given


def _code(value: Any) -> str:
    if value is None:
        return ""
    text = segment(value if isinstance(value, str) else str(type(value).__name__))
    return "" if text in ACCEPTED else CODES.get(text, text)
