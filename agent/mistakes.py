"""This file knows how a mistake in a configuration becomes one sentence: the key, what is wrong, what is right."""

import re
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any, get_args, get_type_hints

from pydantic import ValidationError

_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")


def one_of(words: Iterable[str]) -> str:
    """The words that would be right, in order."""
    return ", ".join(sorted(words)) or "(none)"


def sentence(error: ValidationError, prefix: str, table: Any, extra: tuple[str, ...] = ()) -> str:
    """The first mistake of a pydantic report as one sentence, and how many more there are."""
    # A key that is spelled wrong is told before the one that is missing because of that.
    first, *more = sorted(error.errors(), key=lambda mistake: mistake["type"] not in _UNKNOWN)
    path = ".".join(str(part) for part in (*([prefix] if prefix else []), *first["loc"]))
    match first["type"]:
        case "missing":
            text = f"{path} is missing"
        case word if word in _UNKNOWN:
            known = sorted({*_keys(table, first["loc"][:-1]), *extra})
            close = get_close_matches(str(first["loc"][-1]), known, 1)
            hint = f"did you mean {close[0]}?" if close else f"known keys are {', '.join(known)}"
            text = f"{path} is not a known key; {hint}"
        case "literal_error":
            text = f"{path} cannot be {first['input']!r}; it can be {first['ctx']['expected']}"
        case "string_pattern_mismatch":
            rest = re.search(r"\{0,(\d+)\}", first["ctx"]["pattern"])
            most = f", at most {int(rest[1]) + 1}" if rest else ""
            text = f"{path} cannot be {first['input']!r}; use letters, digits, '.', '_' and '-'{most}"
        case "too_short" if first["ctx"]["min_length"] == 1:
            text = f"{path} must not be empty"
        case "dict_type" | "mapping_type" | "model_type" | "dataclass_type":
            text = f"{path} must be a table, not {first['input']!r}"
        case "tuple_type":
            text = f'{path} must be a list like ["…"], not {first["input"]!r}'
        case "path_type":
            text = f"{path} must be a text that names a file, not {first['input']!r}"
        case "value_error":
            text = f"{path}: {first['ctx']['error']}"
        case _:
            text = f"{path}: {first['msg'][0].lower()}{first['msg'][1:]}, not {first['input']!r}"
    return text + (f" (and {len(more)} more)" if more else "")


def _keys(table: Any, path: tuple[int | str, ...]) -> list[str]:
    """The keys that the table at `path` below a model or a dataclass knows."""
    for part in path:
        # A part that is no field is the key of a mapping: its tables are of the class found before.
        waiting = [get_type_hints(table).get(str(part))]
        while waiting:
            kind = waiting.pop()
            if hasattr(kind, "model_fields") or is_dataclass(kind):
                table = kind
            waiting += get_args(kind)
    return [f.name for f in fields(table)] if is_dataclass(table) else list(getattr(table, "model_fields", ()))
