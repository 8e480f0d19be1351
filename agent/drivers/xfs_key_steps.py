"""This file knows the steps of a key operation over XFS4IoT: what each one sends, and what its answer means.

Source: XFS4IoT release 2024-3 and 2021-1, KeyManagement and Keyboard, as KAL-ATM-Software/KAL_XFS4IoT_SP-Dev
implements them (ImportKeyHandler, SecureKeyEntryHandler, DeleteKeyHandler). Both generations have these payloads.

    layout    Keyboard.GetLayout: a key that the pad does not have must not be active
    entry     Keyboard.SecureKeyEntry: the person types, the pad keeps the digits and tells a check value
    part      KeyManagement.ImportKey constructing=true: what was typed is joined to the slot
    complete  ImportKey constructing=false: the parts become the key
    block     ImportKey with a block; KAL wants keyAttributes of it as well, so they are those of its clear header
    zero self KeyManagement.GenerateKCV; the service of release 2021-1 gives the self value for both (seen)
    detail    KeyManagement.GetKeyDetail, always of all keys, as a list of one would make the others missing
    delete    KeyManagement.DeleteKey; without a name KAL deletes every key, so a slot is never empty here
    wipe      KeyManagement.Initialization; keys that the maker has put in stay

Of a check value 3 bytes are looked at, of a block nothing but its header, of a key press event nothing at all.
"""

import binascii
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.drivers.xfs_connection import CHECK, DELETE, ENTRY, IMPORT, INITIALIZE, KEYS, LAYOUT
from agent.drivers.xfs_keys import LOADED
from agent.drivers.xfs_messages import leaves, member, segment
from agent.model import Operation, Value

STEPS = {
    "key_enter": ("layout", "entry", "part"),
    "key_complete": ("complete", "zero", "self", "detail"),
    "key_import": ("block", "zero", "self", "detail"),
    "key_check": ("detail", "zero", "self"),
    "key_delete": ("delete", "detail"),
    "key_wipe": ("wipe", "detail"),
}
COMMAND = {
    "layout": LAYOUT,
    "entry": ENTRY,
    "part": IMPORT,
    "complete": IMPORT,
    "block": IMPORT,
    "zero": CHECK,
    "self": CHECK,
    "detail": KEYS,
    "delete": DELETE,
    "wipe": INITIALIZE,
}

DIGIT_KEYS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", *"abcdef")
OTHER_KEYS = {"enter": True, "cancel": True, "clear": False, "backspace": False, "shift": False}
"""Key -> whether it ends the entry."""

ENDINGS = frozenset({"auto", "enter", ""})
MODES = {"K": "D", "P": "E", "D": "B", "M": "C"}
"""Head of a usage -> mode of use, when an operation does not say it."""

KCV_BYTES = 3
MOST_NAMED = 8


@dataclass(slots=True)
class Job:
    """A key operation under way. `operation` is without its block.

    steps    what is still to be done; the first one is under way
    number   requestId of the first one
    keys     keys that the pad has; empty when it does not say
    zero, own, imported   check values: of GenerateKCV for zero and for self, and what ImportKey gave as zero
    """

    operation: Operation
    steps: deque[str]
    number: int = 0
    keys: frozenset[str] = frozenset()
    zero: str = ""
    own: str = ""
    imported: str = ""
    facts: dict[str, Value] = field(default_factory=dict)

    @property
    def slot(self) -> str:
        return str(self.operation.arguments.get("slot", ""))

    def skip(self, *steps: str) -> None:
        """Leave steps out."""
        self.steps = deque(step for step in self.steps if step not in steps)


Failure = tuple[str, str]
"""Why an operation has failed, in one sentence, and the public word for it."""


def payload(job: Job, step: str, block: bytes) -> Mapping[str, Any] | None:
    """What a step sends. `block` goes into the message of the step of that name."""
    key = {"key": job.slot}
    match step:
        case "layout":
            return {"entryMode": "secure"}
        case "entry":
            return _entry(job)
        case "part":
            return key | {"keyAttributes": _attributes(job.operation.arguments), "constructing": True}
        case "complete":
            return key | {"keyAttributes": _attributes(job.operation.arguments), "constructing": False}
        case "block":
            return key | _under(job.operation.arguments, block) | {"value": b64encode(block).decode()}
        case "zero" | "self":
            return key | {"keyCheckMode": step}
        case "delete":
            return key
    return None


def told(job: Job, step: str, said: Mapping[str, Any]) -> Failure | None:
    """Take a good answer to a step; what is wrong with it nevertheless, or None."""
    match step:
        case "layout":
            ends = (".fk", ".key", ".shiftfk", ".shiftkey")
            names = (str(value).lower() for path, value in leaves(said).items() if path.endswith(ends))
            job.keys = frozenset(names) & {*DIGIT_KEYS, *OTHER_KEYS}
        case "entry":
            return _entered(job, said)
        case "complete" | "block":
            if str(member(said, "verifyAttributes", "cryptoMethod")).lower() == "kcvzero":
                job.imported = check_value(said.get("verificationData"))
        case "zero":
            job.zero = check_value(said.get("kcv"))
            if job.zero and job.zero == job.imported:
                job.skip("self")
        case "self":
            job.own = check_value(said.get("kcv"))
        case "detail":
            return _detail(job, said.get("keyDetails"))
    return None


def proof(job: Job) -> Failure | None:
    """Make the check values that were told one fact, at the end of an operation that asked for them.

    `kcv` is a zero value and nothing else. Without one there is `kcv_self`, which compares with no other value."""
    if job.own:
        job.facts["kcv_self"] = job.own
    zero = "" if job.zero == job.own else job.zero  # it has given the self value for both
    if zero and job.imported and zero != job.imported:
        return "the EPP gives two different check values for one key", "kcv differs"
    if known := zero or job.imported:
        job.facts["kcv"] = known
    elif not job.own:
        return "the EPP gives no check value of at least 3 bytes, so nothing proves the key", "no kcv"
    return None


def check_value(said: Any) -> str:
    """The first 3 bytes of a check value in Base64, as hex; empty when there are not so many."""
    try:
        value = b64decode(said[:64], validate=True) if isinstance(said, str) else b""
    except (binascii.Error, ValueError):
        return ""
    return value[:KCV_BYTES].hex().upper() if len(value) >= KCV_BYTES else ""


def _attributes(arguments: Mapping[str, Value]) -> dict[str, str]:
    usage = str(arguments.get("usage", "K0"))
    mode = str(arguments.get("mode") or MODES.get(usage[0], "B"))
    return {"keyUsage": usage, "algorithm": str(arguments.get("algorithm", "T")), "modeOfUse": mode}


def _under(arguments: Mapping[str, Value], block: bytes) -> dict[str, Any]:
    under = {"decryptKey": arguments["under"]}
    if arguments["form"] == "ecb":
        return under | {"decryptMethod": "ecb", "keyAttributes": _attributes(arguments)}
    usage, algorithm, mode = (block[at].decode("ascii") for at in (slice(5, 7), slice(7, 8), slice(8, 9)))
    if mode == "N":  # no attribute can say it, and a block needs none
        return under
    return under | {"keyAttributes": {"keyUsage": usage, "algorithm": algorithm, "modeOfUse": mode}}


def _entry(job: Job) -> Mapping[str, Any]:
    there = job.keys if job.keys >= set(DIGIT_KEYS) else frozenset({*DIGIT_KEYS, "enter", "cancel"})
    ends = dict.fromkeys(DIGIT_KEYS, False) | OTHER_KEYS
    return {
        "keyLen": job.operation.arguments["digits"],
        "autoEnd": True,
        "activeKeys": {key: {"terminate": end} for key, end in ends.items() if key in there},
        "verificationType": "zero",
        "cryptoMethod": "tripleDes",
    }


def _entered(job: Job, said: Mapping[str, Any]) -> Failure | None:
    wanted, typed = job.operation.arguments["digits"], said.get("digits")
    ending = segment(str(said.get("completion") or ""))[:16]
    if ending.lower() not in ENDINGS | {"_"}:
        return "the entry was ended at the keypad before the last digit", f"completion={ending}"
    if type(typed) is not int or typed != wanted:
        count = typed if type(typed) is int and 0 <= typed <= 64 else "?"
        return f"{count} digits were typed instead of {wanted}", f"digits={count}"
    job.facts["digits"] = typed
    kcv = check_value(said.get("kcv"))
    if not kcv:
        return "the EPP gives no check value of the component, so nobody can tell what was typed", "no kcv"
    job.facts["kcv"] = kcv
    if job.operation.arguments.get("expect", kcv) != kcv:
        return "the check value is not that of the component, which was not joined to the key", f"kcv={kcv}"
    return None


def _detail(job: Job, details: Any) -> Failure | None:
    """Whether the slots are as the operation should have left them."""
    if not isinstance(details, dict):
        return "the EPP does not tell which slots hold a key", "no keyDetails"
    if job.operation.verb == "key_wipe":
        held = [str(name) for name, detail in details.items() if _holds(detail)]
        job.facts["remaining"] = len(held)
        job.facts["named"] = ", ".join(segment(name) for name in held[:MOST_NAMED])
        return None
    detail = details.get(job.slot)
    state = LOADED.get(str(member(detail, "loaded")).lower(), "unknown") if detail is not None else "missing"
    job.facts["state"] = state
    if job.operation.verb == "key_check":
        if state != "loaded":
            job.skip("zero", "self")
            return None
    else:
        wanted = "missing" if job.operation.verb == "key_delete" else "loaded"
        if state != wanted:
            return f"the EPP says that it is done, and that the slot is {state}", f"state={state}"
    usage = member(detail, "keyBlockInfo", "keyUsage")
    if isinstance(usage, str) and len(usage) == 2:
        job.facts["usage"] = segment(usage)
    return None


def _holds(detail: Any) -> bool:
    """Whether a slot holds a symmetric key, or parts of one."""
    asymmetric = member(detail, "keyBlockInfo", "algorithm") == "R"
    return not asymmetric and str(member(detail, "loaded")).lower() in ("yes", "construct")
