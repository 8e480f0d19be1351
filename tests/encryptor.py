"""A scripted encryptor behind XFS4IoT, for tests of key operations: it keeps slots, and does what it is told to do.

It knows no cipher: check values are given to it, and blocks are not opened.
"""

from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from agent.drivers.xfs4iot import Xfs4iot, XfsOptions
from agent.drivers.xfs_connection import COMMANDS, KEY_COMMANDS
from agent.drivers.xfs_service import XfsLineOptions
from agent.model import Operation, Outcome, Value
from tests.recorded import Host, Message, Recording, answer, event, publisher

CAN = {
    "keyImportThroughParts": True,
    "keyBlockImportFormats": {"a": False, "b": True, "c": False, "d": True},
    "keyCheckModes": {"self": True, "zero": True},
}
PART_KCV, ZERO, OWN = "E2F243", "08D7B4", "5B8C1F"
BLOCK_HEX = "7F3A9C51E0D24B68A1C7F95E3B0D8264F1A6C83D507E9B24"
BLOCK = b"B0096K0TD00N0000" + BLOCK_HEX.encode() + b"9D41C6E2B7508F3A5E91D0C4A7B2F683"
CRYPTOGRAM = bytes.fromhex("A1B2C3D4E5F60718293A4B5C6D7E8F90")

ATTRIBUTES: dict[str, Any] = {"usage": "K0", "algorithm": "T", "mode": "D"}
"""Of a terminal master key."""

ALL: dict[str, dict[str, Any]] = {
    "key_enter": {"slot": "TMK", "digits": 32},
    "key_complete": {"slot": "TMK", **ATTRIBUTES},
    "key_import": {"slot": "TPK", "usage": "P0", "under": "TMK", "form": "tr31", "opaque": BLOCK},
    "key_check": {"slot": "MASTERKEY"},
    "key_delete": {"slot": "TMK"},
    "key_wipe": {},
}
"""Verb -> its arguments, and what it carries."""


def coded(kcv: str, more: str = "0011223344") -> str:
    """A check value as a service writes it, here longer than 3 bytes."""
    return b64encode(bytes.fromhex(kcv + more)).decode()


@dataclass
class Encryptor(Recording):
    """generation   v1, v2 or hybrid
    can          capabilities of KeyManagement
    lists        commands that the service has
    fails        command -> error word that it ends with
    changes      command -> what is changed in its payload
    typing       whether an entry waits until `type` is called
    """

    generation: str = "v2"
    can: Message = field(default_factory=lambda: dict(CAN))
    lists: tuple[str, ...] = (*COMMANDS[1:], *KEY_COMMANDS)
    versions: dict[str, list[str]] = field(default_factory=dict)
    fails: dict[str, str] = field(default_factory=dict)
    changes: dict[str, Message] = field(default_factory=dict)
    typing: bool = False
    slots: dict[str, str] = field(default_factory=lambda: {"MASTERKEY": "yes", "EPPVendorSign": "yes"})
    entry: int = 0

    def answer(self, command: Message) -> list[Message]:
        name = command["header"]["name"]
        number = command["header"]["requestId"]
        said = command.get("payload") or {}
        if name not in self.lists:
            return []
        does: dict[str, Callable[[Message], Message]] = {
            "Common.Capabilities": self.capabilities,
            "Common.Status": lambda _: {"common": {"device": "online"}},
            "KeyManagement.GetKeyDetail": self.details,
            "Keyboard.SecureKeyEntry": lambda said: {"digits": said["keyLen"], "kcv": coded(PART_KCV)},
            "KeyManagement.ImportKey": self.take_key,
            "KeyManagement.GenerateKCV": lambda said: {
                "kcv": coded({"zero": ZERO, "self": OWN}[said["keyCheckMode"]])
            },
            "KeyManagement.DeleteKey": self.delete,
            "KeyManagement.Initialization": self.wipe,
        }
        code = self.fails.get(name, "success")
        payload = does[name](said) if name in does and code == "success" else {}
        payload |= {"errorCode": code} if code != "success" else {}
        payload |= self.changes.get(name, {})
        done = self.reply(name, number, payload, code if code == "success" else "commandErrorCode")
        if name == "Keyboard.SecureKeyEntry" and self.typing:
            self.entry = number
            return done[:1]
        if name == "Common.Cancel" and self.entry in said["requestIds"]:
            number, self.entry = self.entry, 0
            return done + self.reply("Keyboard.SecureKeyEntry", number, {}, "canceled")[1:]
        return done

    def press(self) -> Message:
        """A key was pressed. A good pad says no digit; this one does."""
        message = event("Keyboard.KeyEvent", {"digit": "seven", "completion": None}, "event")
        return {**message, "header": {**message["header"], "requestId": self.entry}}

    def reply(self, name: str, number: int, payload: Message, code: str = "success") -> list[Message]:
        """Acknowledge and completion in the words of the generation."""
        messages = answer(name, payload, self.generation, code)
        return [{**m, "header": {**m["header"], "requestId": number}} for m in messages]

    def capabilities(self, _: Message) -> Message:
        listed = {name: {"versions": self.versions.get(name, ["2.0"])} for name in self.lists}
        return {"interfaces": [{"name": "common", "commands": listed}], "keyManagement": self.can}

    def details(self, _: Message) -> Message:
        def one(name: str, loaded: str) -> Message:
            return {
                "loaded": loaded,
                "keyBlockInfo": {"keyUsage": "K0", "algorithm": "R" if "Sign" in name else "T"},
            }

        return {"keyDetails": {name: one(name, loaded) for name, loaded in self.slots.items()}}

    def take_key(self, said: Message) -> Message:
        self.slots[said["key"]] = "construct" if said.get("constructing") else "yes"
        return {"verificationData": coded(ZERO), "verifyAttributes": {"cryptoMethod": "kcvZero"}}

    def delete(self, said: Message) -> Message:
        assert said["key"], "a real one would delete every key"
        self.slots.pop(said["key"], None)
        return {}

    def wipe(self, _: Message) -> Message:
        self.slots = {"EPPVendorSign": "yes", "MASTERKEY": "yes"}
        return {}


class Bench(Host):
    """A driver with one encryptor that may be loaded, joined and up."""

    def __init__(self, pad: Encryptor | None = None, keys: bool = True) -> None:
        self.pad = pad or Encryptor()
        options = XfsOptions("Epp", {}, keys)
        services = {"": publisher("Epp"), "Epp": self.pad}
        super().__init__(Xfs4iot(XfsLineOptions(), {"epp": options}), services)
        self.publish()
        self.run(1)
        self.asked = 0

    def begin(self, verb: str, opaque: bytes = b"", **arguments: Value) -> str:
        """Ask for an operation; returns its id."""
        self.asked += 1
        name = f"op{self.asked}"
        self.driver.perform(Operation(name, "epp", verb, "ceremony", arguments, opaque), self.now)
        self.serve()
        return name

    def do(self, verb: str, opaque: bytes = b"", **arguments: Value) -> Outcome:
        """Ask for an operation and wait for its end."""
        name = self.begin(verb, opaque, **arguments)
        self.run(1)
        (outcome,) = [one for one in self.outcomes if one.operation == name]
        return outcome

    def since(self, number: int) -> list[tuple[str, Any]]:
        """Name and payload of what was sent after `number` commands; not what is polled."""
        polled = ("Common.Status", "Common.Capabilities")
        messages = [m for _, m in self.sent[number:]]
        return [(m["header"]["name"], m.get("payload")) for m in messages if m["header"]["name"] not in polled]
