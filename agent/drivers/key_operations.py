"""This file knows the key operations of encrypting PIN pads: their verbs and arguments, the same for every driver.

The host conducts, the pad performs (PCI PIN 13-2). So an argument is a slot, a code of X9.143, a number of digits
or a check value, all of them public, and none can hold a key: no text with more than 10 hex digits in a row is
taken. A key block travels in Operation.opaque, to the device once and nowhere else.

These verbs stand in no driver's `operations`: nobody asks for them one by one. They belong to a ceremony, which
also compares the check values, and deletes the slot when anything else than "done" comes back.

    key_enter     slot, digits        the person types one component at the pad's own keypad, and it is joined to
                                      what the slot holds of the key. Facts: kcv (of the component), digits
    key_complete  slot, usage, algorithm, mode    the joined components become the key. Facts: kcv, state
    key_import    slot, usage, under, form        form "tr31": opaque is a key block, as text; "ecb": opaque is the
                                      key under the key of slot `under`, 16 or 24 bytes. Facts: kcv, state
    key_check     slot                Facts: state; when there is a key, kcv and usage as well. A device that can
                                      never tell of this slot refuses, with the state "untold"
    key_delete    slot                Facts: state, as read back
    key_wipe                          all keys of the pad. Facts: remaining, how many slots still hold one

Optional: `usage`, `algorithm` and `mode` with key_enter, for pads that bind a slot with its first component;
`algorithm` and `mode` with key_import of form "ecb"; `expect` with key_enter, a check value: a component with
another is not joined.
"""

import re
from collections.abc import Collection, Mapping

from agent.model import Operation

VERBS = ("key_enter", "key_complete", "key_import", "key_check", "key_delete", "key_wipe")

_ATTRIBUTES = {"usage", "algorithm", "mode"}
REQUIRED: Mapping[str, frozenset[str]] = {
    "key_enter": frozenset({"slot", "digits"}),
    "key_complete": frozenset({"slot", *_ATTRIBUTES}),
    "key_import": frozenset({"slot", "usage", "under", "form"}),
    "key_check": frozenset({"slot"}),
    "key_delete": frozenset({"slot"}),
    "key_wipe": frozenset(),
}
OPTIONAL: Mapping[str, frozenset[str]] = {
    "key_enter": frozenset({*_ATTRIBUTES, "expect"}),
    "key_import": frozenset({"algorithm", "mode"}),
}

DIGITS = (32, 48)
_CHECKS = {
    "slot": (re.compile(r"[A-Za-z0-9_.-]{1,32}"), "a slot is 1 to 32 letters, digits, '.', '-' and '_'"),
    "under": (re.compile(r"[A-Za-z0-9_.-]{1,32}"), "under names a slot"),
    "usage": (re.compile(r"[A-Z][0-9]|[0-9]{2}"), "usage is a code of X9.143, e.g. K0 or P0"),
    "algorithm": (re.compile(r"[DT]"), "algorithm is T or D: this agent loads DES and 3DES keys"),
    "mode": (re.compile(r"[BCDEGNVXY]"), "mode is one letter of X9.143, e.g. D or E"),
    "form": (re.compile(r"tr31|ecb"), 'form is "tr31" or "ecb"'),
    "expect": (re.compile(r"[0-9A-F]{6}"), "expect is a check value, 6 hex digits in capitals"),
}
KEY_LIKE = re.compile(r"[0-9A-Fa-f]{11}")
BLOCK = re.compile(rb"[A-D][0-9]{4}[\x20-\x7E]{11,9994}")


def refusal(operation: Operation, verbs: Collection[str] = VERBS) -> str:
    """Why a key operation cannot be done, or nothing. The sentence repeats no value: it may be a key in the wrong
    place. `verbs`: those of this device."""
    verb, given = operation.verb, operation.arguments
    if verb not in verbs:
        return f"this device can do none but {', '.join(verbs)}"
    if missing := sorted(REQUIRED[verb] - given.keys()):
        return f"{verb} needs {', '.join(missing)}"
    if given.keys() - REQUIRED[verb] - OPTIONAL.get(verb, frozenset()):
        return f"{verb} takes only {', '.join(sorted(REQUIRED[verb] | OPTIONAL.get(verb, frozenset())))}"
    if "digits" in given and (type(given["digits"]) is not int or given["digits"] not in DIGITS):
        return "digits is 32 or 48: a component is as long as its key, and a key has two or three parts"
    for name, value in given.items():
        if name in _CHECKS and not (isinstance(value, str) and _CHECKS[name][0].fullmatch(value)):
            return _CHECKS[name][1]
        if isinstance(value, str) and KEY_LIKE.search(value):
            return f"{name} looks like a key: more than 10 hex digits never belong there"
    return _wrong_opaque(verb, str(given.get("form", "")), operation.opaque)


def _wrong_opaque(verb: str, form: str, opaque: bytes) -> str:
    if verb != "key_import":
        return f"{verb} carries no key" if opaque else ""
    if form == "ecb":
        return "" if len(opaque) in (16, 24) else "a key under a key is 16 or 24 bytes"
    if not BLOCK.fullmatch(opaque) or int(opaque[1:5]) != len(opaque):
        return "this is no key block of TR-31 versions A to D"
    return ""
