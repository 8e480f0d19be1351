"""This file knows how a simulated XFS4IoT host passes key commands on to the secure device behind it.

Written from Keyboard.SecureKeyEntry and KeyManagement.ImportKey, GenerateKCV, GetKeyDetail, DeleteKey and
Initialization of release 2024-3 and 2021-1, and from the checks that KAL's framework makes before it asks a device
(sources: hwsim/xfs4iot.py). A component never comes here: what is typed at the pad reaches the host as events
without a digit, a count and a check value. A key block or a cryptogram goes through once and is not kept.
"""

from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from hwsim.contract import Json, Unreachable
from hwsim.xfs_wire import Command

COMMANDS = ("ImportKey", "DeleteKey", "GenerateKCV", "Initialization", "GetKeyDetail")
HANDLED = {f"KeyManagement.{name}" for name in COMMANDS}
SECURE_ENTRY = "Keyboard.SecureKeyEntry"
ALL_DIGITS = {"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", *"abcdef"}
OTHER_KEYS = {"enter", "cancel", "clear", "backspace", "shift", "help"}
ALGORITHMS = {"des": "D", "tripleDes": "T", "aes": "A"}
COMPLETION_CODES = {
    "sequenceError": "sequenceError",
    "invalidData": "invalidData",
    "hardwareError": "hardwareError",
    "tampered": "fraudAttempt",
}
"""Error words of the device that are completion codes here; every other is the errorCode of a commandErrorCode."""

Ask = Callable[[Json], Json]
"""Asks the secure device. Raises Unreachable."""


class Completed(NamedTuple):
    """How a command ended."""

    code: str = "success"
    payload: Json = {}  # noqa: RUF012 - never changed
    why: str = ""


UNREACHABLE = Completed("hardwareError", why="The pad does not answer.")


class _Ended(Exception):
    """The command has ended here, otherwise than well."""

    def __init__(self, code: str, payload: Json | None = None, why: str = "") -> None:
        super().__init__(code)
        self.completed = Completed(code, payload or {}, why)


def answer(ask: Ask, command: Command, *, always_self: bool) -> Completed:
    """Do what one of HANDLED wants. `always_self`: GenerateKCV gives the self value whatever it was asked for."""
    payload = command.payload
    try:
        match command.name.partition(".")[2]:
            case "GetKeyDetail":
                return Completed(payload={"keyDetails": _details(ask, payload.get("keyName"))})
            case "GenerateKCV":
                method = "self" if always_self else payload.get("keyCheckMode")
                told = _asked(ask, {"do": "check", "slot": _name(payload), "method": method})
                return Completed(payload={"kcv": _base64(told["check_value"])})
            case "DeleteKey":
                # Every key when none is named: so the standard says.
                for name in [_name(payload)] if payload.get("key") is not None else _details(ask, None):
                    _asked(ask, {"do": "delete", "slot": name})
                return Completed()
            case "Initialization":
                _asked(ask, {"do": "wipe"})
                return Completed()
            case _:
                return _imported(_asked(ask, _import(payload)))
    except _Ended as ended:
        return ended.completed
    except Unreachable:
        return UNREACHABLE


def key_details(state: Json) -> Json:
    """The slots of the device's state as GetKeyDetail tells them: never a value."""
    details = {}
    for name, slot in state["slots"].items():
        block = {"keyUsage": slot["usage"], "algorithm": slot["algorithm"], "modeOfUse": slot["mode"]}
        block |= {"keyVersionNumber": slot["version"], "exportability": slot["exportability"]}
        details[name] = {
            "loaded": "yes" if slot["loaded"] else "construct",
            "keyBlockInfo": block | {"keyLength": slot["bits"]},
        }
    return details


class Typing:
    """A Keyboard.SecureKeyEntry: somebody is typing at the pad."""

    def __init__(self, ask: Ask, command: Command) -> None:
        self._ask, self._command = ask, command
        self._begun = False

    def go_on(self) -> tuple[list[Json], Completed | None]:
        """The payloads of the KeyEvents since the last time, and how it ended when it has ended."""
        try:
            if not self._begun:
                _asked(self._ask, _entry(self._command.payload))
                self._begun = True
            told = _asked(self._ask, {"do": "entry"})
        except _Ended as ended:
            return [], ended.completed
        except Unreachable:
            return [], UNREACHABLE
        return list(_key_events(told["keys"])), _typed(told)

    def stop(self) -> None:
        """Nobody waits for it any more: what was typed is forgotten."""
        if self._begun:
            with suppress(Unreachable):  # without power it has forgotten already
                self._ask({"do": "cancel"})


def _entry(payload: Json) -> Json:
    """The device's request for a SecureKeyEntry."""
    length, method = payload.get("keyLen"), payload.get("verificationType")
    if type(length) is not int or not isinstance(method, str):
        raise _Ended("invalidData", why="keyLen or verificationType is missing.")
    auto, keys, crypto = payload.get("autoEnd") is True, payload.get("activeKeys"), payload.get("cryptoMethod")
    if not isinstance(keys, dict) or not keys:
        raise _Ended("commandErrorCode", {"errorCode": "noActiveKeys"})
    if set(keys) - ALL_DIGITS - OTHER_KEYS:
        raise _Ended("commandErrorCode", {"errorCode": "keyNotSupported"})
    if not set(keys) >= ALL_DIGITS:
        raise _Ended("commandErrorCode", {"errorCode": "missingKeys"})
    if not auto and not any(isinstance(key, dict) and key.get("terminate") is True for key in keys.values()):
        raise _Ended("commandErrorCode", {"errorCode": "noTerminatekeys"})
    if crypto is not None and not (isinstance(crypto, str) and crypto in ALGORITHMS):
        raise _Ended("invalidData", why="The cryptoMethod is not known.")
    asked = {"do": "begin", "digits": length, "auto": auto, "method": method}
    return asked | ({} if crypto is None else {"algorithm": ALGORITHMS[crypto]})


def _key_events(keys: list[str]) -> Iterator[Json]:
    for key in keys:
        # no digit: the host learns that one was pressed, and never which
        yield {"completion": "continue"} if key == "digit" else {"completion": key, "digit": key}


def _typed(told: Json) -> Completed | None:
    if not told["ended"]:
        return None
    if told["ended"] == "timeout":
        return Completed("commandErrorCode", {"errorCode": "entryTimeout"})
    payload: Json = {"digits": told["entered"], "completion": told["ended"]}
    return Completed(payload=payload | ({"kcv": _base64(told["check_value"])} if "check_value" in told else {}))


def _details(ask: Ask, name: Any) -> Json:
    details = key_details(_asked(ask, {"do": "state"}))
    if name is None:
        return details
    if not isinstance(name, str) or name not in details:
        raise _Ended("commandErrorCode", {"errorCode": "keyNotFound"})
    return {name: details[name]}


def _import(payload: Json) -> Json:
    """The device's request for an ImportKey: a part, the end of parts, a block, a cryptogram or a key in clear."""
    slot, under, value = {"slot": _name(payload)}, payload.get("decryptKey"), payload.get("value")
    if payload.get("constructing") is True:
        return {"do": "part", **slot, **_attributes(payload)}  # a value would be ignored
    if value is None:
        return {"do": "complete", **slot, **_attributes(payload)}
    given = _decoded(value)
    if under is None:
        return {"do": "clear", **slot, **_attributes(payload), "value": given.hex()}
    method = payload.get("decryptMethod")
    if method is None:
        return {"do": "block", **slot, "under": under, "value": given.decode("latin-1")}
    if method != "ecb":
        raise _Ended("commandErrorCode", {"errorCode": "cryptoMethodNotSupported"})
    sealed = {"under": under, "value": given.hex(), **_expected(payload)}
    return {"do": "cryptogram", **slot, **_attributes(payload), **sealed}


def _attributes(payload: Json) -> Json:
    found = payload.get("keyAttributes")
    found = found if isinstance(found, dict) else {}
    asked = {"usage": found.get("keyUsage"), "algorithm": found.get("algorithm"), "mode": found.get("modeOfUse")}
    if not all(isinstance(word, str) and word for word in asked.values()):
        raise _Ended("invalidData", why="No key attribute specified.")
    return asked


def _expected(payload: Json) -> Json:
    """The check value that the key must have, when the command brings one."""
    method = payload.get("verifyAttributes")
    if payload.get("verificationData") is None or not isinstance(method, dict):
        return {}
    if method.get("cryptoMethod") != "kcvZero":
        raise _Ended("commandErrorCode", {"errorCode": "cryptoMethodNotSupported"})
    return {"expected": _decoded(payload["verificationData"]).hex()}


def _imported(slot: Json) -> Completed:
    told: Json = {"keyLength": slot["bits"]}
    if slot["loaded"]:
        told["verificationData"] = _base64(slot["check_value"])
        verify = {"keyUsage": "00", "algorithm": slot["algorithm"], "modeOfUse": "V", "cryptoMethod": "kcvZero"}
        told["verifyAttributes"] = verify
    return Completed(payload=told)


def _name(payload: Json) -> str:
    name = payload.get("key")
    if not isinstance(name, str) or not name:
        raise _Ended("invalidData", why="No key name specified.")
    return name


def _decoded(value: Any) -> bytes:
    try:
        return b64decode(value, validate=True)
    except (ValueError, TypeError):
        raise _Ended("invalidData", why="The value is not Base64.") from None


def _base64(digits: str) -> str:
    return b64encode(bytes.fromhex(digits)).decode()


def _asked(ask: Ask, request: Json) -> Json:
    """What the device says. Raises _Ended when it refuses."""
    said = ask(request)
    if "refused" not in said:
        told: Json = said["ok"]
        return told
    word, why = str(said["refused"]), str(said["why"])
    if word in COMPLETION_CODES:
        raise _Ended(COMPLETION_CODES[word], why=why)
    raise _Ended("commandErrorCode", {"errorCode": word}, why)
