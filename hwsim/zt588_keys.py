"""This file knows how a simulated ZT588 passes its key commands on to the secure device behind it.

Written from the commands of the kiosk program smartkiosk/smartware (zt588.rb), which it uses on real pads:

    "1" kk t n HEX      load key kk of type t in clear; n: 0 single, 1 double, 2 triple length
    "2" uu kk t n HEX   load key kk, encrypted under key uu; n is one more, and 0 without data erases key kk
    reply               status and the check value in hex, or one byte E1 to EF

kk and uu are two hex digits: 00 the TMK, 80 the IMK, from 40 on the PIN keys. Assumed: the check value is the first
3 bytes of the encrypted zeros, a pad without any key that carries others answers E1, and the types map to usages as
below. The slot of key kk in the secure device is called kk.
"""

import re
from collections.abc import Callable

from hwsim.contract import Json

IMK_REQUIRED, KEY_SIZE, NOT_FOUND, INCOMPATIBLE, NOT_VALID = 0xE1, 0xE3, 0xE4, 0xE5, 0xE7
LENGTH, DATA, PARAMETER, AUTHORISATION, GENERAL = 0xE8, 0xE9, 0xEB, 0xEC, 0xEF
USES = {
    "1": ("K0", "D"),
    "2": ("K0", "D"),
    "3": ("P0", "E"),
    "5": ("M3", "C"),
    "6": ("D0", "E"),
    "7": ("D0", "E"),
    "8": ("D0", "D"),
}
"""Type of a key -> its usage and mode: IMK, TMK, PIN, MAC, track data, encryption, decryption."""
ERRORS = {
    "keyNotFound": NOT_FOUND,
    "keyNoValue": INCOMPATIBLE,
    "useViolation": INCOMPATIBLE,
    "invalidKeyLength": KEY_SIZE,
    "contentInvalid": NOT_VALID,
    "accessDenied": AUTHORISATION,
}
BROKEN = str.maketrans(":;<=>?", "ABCDEF")
_HEX = re.compile(r"[0-9A-F]*")

Ask = Callable[[Json], Json]
"""Asks the secure device. Raises Unreachable."""


def blank(state: Json) -> bool:
    """Whether the pad has no key that could carry another one."""
    return not any(slot["loaded"] and slot["usage"] == "K0" for slot in state["slots"].values())


def load(ask: Ask, text: bytes) -> bytes:
    """The reply to a command 1 or 2, from the first byte on. Raises Unreachable."""
    said = text.decode("latin-1").translate(BROKEN)
    under, said = (said[1:3], said[3:]) if said[0] == "2" else ("", said[1:])
    name, kind, size, data = said[:2], said[2:3], said[3:4], said[4:]
    if not size:
        return bytes((LENGTH,))
    if not _HEX.fullmatch(under + name + data) or not size.isdecimal():
        return bytes((DATA,))
    if under and size == "0":
        return bytes((LENGTH,)) if data else _reply(ask({"do": "delete", "slot": name}))
    if kind not in USES or int(size) - bool(under) not in (0, 1, 2):
        return bytes((PARAMETER,))
    length = 8 * (int(size) + (not under))
    if len(data) != 2 * length:
        return bytes((LENGTH,))
    usage, mode = USES[kind]
    request = {"slot": name, "usage": usage, "mode": mode, "algorithm": "D" if length == 8 else "T", "value": data}
    if not under:
        return _reply(ask({"do": "clear", **request}))
    state = ask({"do": "state"})["ok"]
    if state["tampered"] or blank(state):
        return bytes((IMK_REQUIRED,))
    return _reply(ask({"do": "cryptogram", **request, "under": under}))


def _reply(said: Json) -> bytes:
    if "refused" in said:
        return bytes((ERRORS.get(said["refused"], GENERAL),))
    return b"0" + str(said["ok"].get("check_value", "")).encode()
