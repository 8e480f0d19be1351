"""This file knows JSON that has one meaning only: what is signed, or stands beside a seal, is read with it.

RFC 8259 leaves open what a repeated key, a huge number or half a surrogate pair means, and readers differ
(section 4: "the behavior of software that receives such an object is unpredictable"). What two readers could take
for two things is refused here, so that everybody acts on what was signed.
"""

import json
from typing import Any, NoReturn

DEEPEST = 16
LARGEST_NUMBER = 2**53 - 1
"""Beyond it JSON readers in other languages round (RFC 8259 section 6)."""


def read(text: bytes, deepest: int = DEEPEST) -> dict[str, Any]:
    """The one object in `text`; `deepest` counts objects and arrays within each other.

    Raises ValueError, whose sentence repeats nothing of the text, for: no UTF-8, a byte order mark, anything but
    one object, the same key twice, a number with a fraction or exponent or beyond 2^53, NaN, half a surrogate
    pair, too deep. Whoever calls limits the length.
    """
    try:
        found = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_each_key_once,
            parse_float=_no_fraction,
            parse_constant=_no_fraction,
            parse_int=_exact,
        )
        if not isinstance(found, dict):
            raise ValueError("this is not a JSON object")
        _check(found, deepest)
        return found
    except UnicodeError:
        raise ValueError("this is not text in UTF-8") from None
    except json.JSONDecodeError:
        raise ValueError("this is not JSON") from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None


_TOO_DEEP = "the JSON is nested too deep"


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key stands twice in the same JSON object")
    return dict(pairs)


def _no_fraction(_: str) -> NoReturn:
    raise ValueError("a JSON number has a fraction or an exponent: give an integer in a smaller unit, or text")


def _exact(digits: str) -> int:
    # Minus sign and 16 digits; a longer number would cost time to convert before it is refused.
    number = int(digits) if len(digits) <= 17 else LARGEST_NUMBER + 1
    if abs(number) > LARGEST_NUMBER:
        raise ValueError("a JSON number is too large for every reader to hold")
    return number


def _check(value: Any, depth: int) -> None:
    if isinstance(value, str):
        value.encode("utf-8")
    elif isinstance(value, dict | list):
        if depth == 0:
            raise ValueError(_TOO_DEEP)
        for inner in value:
            _check(inner, depth - 1)
        for inner in value.values() if isinstance(value, dict) else ():
            _check(inner, depth - 1)
