"""This file knows the key commands of the SZZT ZT588, its error codes, and its two ways to write hex.

    "2" UNDER(2) SLOT(2) TYPE LENGTH KEY    load a key that is encrypted under another: slots as two hex digits,
                                            type as below, length 1 single 2 double 3 triple, cryptogram in hex
    "2" "00" SLOT(2) "0" "0"                erase a slot
    reply  status(1) and, after loading, the check value in hex; or one byte E0 to EF

Source: the kiosk program smartkiosk/smartware, pin_pad/zt588.rb (load_encrypted_key, erase_key, the key types). No
text of the maker is public, so all of it is unproven. Slots there: 00 the TMK, 80 the IMK, 40 + 8 n the TPK of set
n. The commands that load a key in clear and that wipe the pad are not even written down here.

The pad has no question for a slot, so what was loaded or erased cannot be read back. It takes no key blocks, and
components only in clear over the line, which is for the key room.
"""

import re

from agent.drivers.framing import xor_of
from agent.model import Operation

VERBS = ("key_import", "key_delete", "key_check")
IMK = "80"
SLOT = re.compile(r"[0-9A-F]{2}")
TYPES = {"K0": 2, "P0": 3, "D0": 6, **dict.fromkeys(("M0", "M1", "M2", "M3", "M4", "M5", "M6"), 5)}
KCV_BYTES = 3
UNTOLD = "this pad cannot be asked about a slot: it tells a check value only when it loads a key"

LOW_BATTERY = 0xE0
ERRORS = {
    LOW_BATTERY: "low_battery",
    0xE1: "imk_required",
    0xE2: "tmk_required",
    0xE3: "key_size",
    0xE4: "key_not_found",
    0xE5: "incompatible",
    0xE6: "parity",
    0xE7: "not_valid",
    0xE8: "length",
    0xE9: "data",
    0xEB: "parameter",
    0xEC: "authorisation",
    0xED: "locked",
    0xEE: "timeout",
    0xEF: "general",
}


def unsuited(operation: Operation) -> str:
    """Why this kind of pad cannot do an operation that is otherwise in order, or nothing."""
    given = operation.arguments
    if not all(SLOT.fullmatch(str(given[name])) for name in ("slot", "under") if name in given):
        return "this pad's slots are two hex digits in capitals, e.g. 00 for the TMK and 40 for the first TPK"
    if operation.verb == "key_check" and given["slot"] != IMK:
        return UNTOLD
    if operation.verb == "key_import" and given["form"] != "ecb":
        return "this pad takes no key blocks, only a key under a key"
    if operation.verb == "key_import" and given["usage"] not in TYPES:
        return f"this pad has no type of key for this usage; it has {', '.join(TYPES)}"
    return ""


def load(operation: Operation, *, broken: bool) -> bytes:
    """The frame that loads the key of a key_import. broken: how the pad writes hex."""
    given = operation.arguments
    length = len(operation.opaque) // 8
    text = f"2{_digits(given['under'], broken)}{_digits(given['slot'], broken)}{TYPES[str(given['usage'])]}{length}"
    return _frame(text + _digits(operation.opaque.hex(), broken), broken)


def erase(operation: Operation, *, broken: bool) -> bytes:
    """The frame that erases the slot of a key_delete."""
    return _frame(f"200{_digits(operation.arguments['slot'], broken)}00", broken)


def check_value(digits: bytes) -> str:
    """The first 3 bytes of a check value as hex; empty when there are not so many."""
    pairs = [octet(digits[at : at + 2]) for at in range(0, 2 * KCV_BYTES, 2)]
    whole = len(digits) >= 2 * KCV_BYTES and None not in pairs
    return "".join(f"{value:02X}" for value in pairs) if whole else ""


def octet(pair: bytes) -> int | None:
    """The byte that two hex digits mean, in either way to write them; None if they are none."""
    high, low = (_nibble(digit) for digit in pair.ljust(2))
    return None if high is None or low is None else high << 4 | low


def _nibble(digit: int) -> int | None:
    if 0x30 <= digit <= 0x3F:
        return digit - 0x30
    return digit - 0x37 if 0x41 <= digit <= 0x46 else None


def _digits(text: object, broken: bool) -> str:
    """Hex digits as the pad writes them."""
    plain = str(text).upper()
    return "".join(chr(0x30 + int(digit, 16)) for digit in plain) if broken else plain


def _frame(text: str, broken: bool) -> bytes:
    body = f"{len(text):03d}{text}\x03".encode("ascii")
    return b"\x02" + body + _digits(f"{xor_of(body):02X}", broken).encode("ascii")
