"""This file knows the wire form of XFS4IoT messages of a service: generations V1, V2 and the hybrid between them.

Written from the header rules of both releases and the recorded sessions (sources: hwsim/xfs4iot.py).

    v1      payload.status (acknowledge), payload.completionCode, payload.timeout, no header.version
    v2      header.status, header.completionCode, header.timeout, header.version; no empty payload
    hybrid  as v2, but payload.completionCode (KAL, January to July 2024)
"""

import json
from dataclasses import dataclass, field
from typing import Any

from hwsim import xfs_v1
from hwsim.xfs_services import event_version
from hwsim.xfs_units import Json

CODES = {"authorizationRequired": "authorisationRequired"}
"""Completion codes of the schema that KAL spells in its own way (trap 3)."""


@dataclass(frozen=True)
class Command:
    """A command as it was read; `wrong` tells why it is none. `timeout` in seconds, 0: none."""

    name: str = ""
    id: int = 0
    version: str | None = None
    timeout: float = 0.0
    payload: Json = field(default_factory=dict)
    wrong: str = ""


@dataclass(frozen=True)
class Dialect:
    """How a host writes. `event_type` is the type of unsolicited events (trap 1), `kal_names`: interfaces begin
    with a small letter (trap 2), `kal_words`: KAL's spellings (trap 3)."""

    generation: str
    event_type: str
    kal_names: bool
    kal_words: bool

    @property
    def v1(self) -> bool:
        """Whether this is the old generation."""
        return self.generation == "v1"

    def read(self, text: bytes) -> Command:
        """A message of a client."""
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            return Command(wrong="not JSON")
        header = message.get("header") if isinstance(message, dict) else None
        if not isinstance(header, dict):
            return Command(wrong="no header")
        name, number, payload = header.get("name"), header.get("requestId"), message.get("payload")
        if not isinstance(name, str) or type(number) is not int:
            return Command(wrong="no name, or no requestId that is a whole number")
        if header.get("type") != "command" or not isinstance(payload, dict | None):
            return Command(name, number, wrong="not a command, or a payload that is no object")
        payload = payload or {}
        timeout = payload.get("timeout", 0) if self.v1 else header.get("timeout", 0)
        if type(timeout) is not int or timeout < 0:
            return Command(name, number, wrong="a timeout that is no number of milliseconds")
        version = header.get("version")
        return Command(name, number, version if isinstance(version, str) else None, timeout / 1000, payload)

    def acknowledge(self, command: Command, status: str = "") -> str:
        """The acknowledge of a command, in the command's own version; `status` is empty when it was accepted."""
        header: Json = {"name": command.name, "requestId": command.id, "type": "acknowledge"}
        if self.v1:
            said = {"status": status or "ok"}
            return _text(header, said | ({"errorDescription": command.wrong} if status else {}))
        header |= {"version": command.version} if command.version else {}
        return _text(header | ({"status": status} if status else {}), None)

    def completion(self, command: Command, number: int, version: str, code: str, why: str, payload: Json) -> str:
        """The completion of a command under the id `number`."""
        header: Json = {"name": command.name, "requestId": number, "type": "completion"}
        ended = {"completionCode": CODES.get(code, code) if self.kal_words else code}
        ended |= {"errorDescription": why} if why or self.v1 else {}
        payload = self._spelled(payload)
        if self.v1:
            return _text(header, payload | ended)
        header["version"] = version
        if self.generation == "hybrid":
            return _text(header, payload | ended)
        return _text(header | ended, payload or None)

    def unsolicited(self, name: str, payload: Json) -> str:
        """An event that no command asked for."""
        header = {"name": name, "type": self.event_type}
        if self.v1:
            return _text(header, self._spelled(xfs_v1.payload(name, payload)))
        return _text(header | {"version": event_version(name)}, self._spelled(payload) or None)

    def event(self, command: Command, name: str, payload: Json) -> str:
        """An event on the way of a command."""
        header = {"name": name, "requestId": command.id, "type": "event"}
        return _text(header if self.v1 else header | {"version": event_version(name)}, payload)

    def _spelled(self, payload: Json) -> Json:
        """The payload in the spelling of this host."""
        if self.kal_names and "interfaces" in payload:
            interfaces = [i | {"name": i["name"][0].lower() + i["name"][1:]} for i in payload["interfaces"]]
            payload = payload | {"interfaces": interfaces}
        return dict(_as_kal(payload)) if self.kal_words else payload


def _as_kal(value: Any, above: str = "") -> Any:
    if isinstance(value, dict):
        blocks = above == "keyBlockImportFormats"
        return {(k.lower() if blocks or k == "UPS" else k): _as_kal(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [_as_kal(v) for v in value]
    return value.lower() if above == "devicePosition" and value == "Unknown" else value


def _text(header: Json, payload: Json | None) -> str:
    body = {"header": header} if payload is None else {"header": header, "payload": payload}
    return json.dumps(body, separators=(",", ":"))
