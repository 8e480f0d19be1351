"""What remains of a secret in an object: looks through every attribute and item for it, in any usual form."""

import re
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum

RUN = 5
"""So many characters of the secret in a row are a find."""
_ADDRESS = re.compile(r"(?<= at )0x[0-9a-f]+(?=>)")
"""Where an object lies, in its repr: digits of chance, in which five of a secret's stand in a row now and then."""


def remains(thing: object, secret: str) -> list[str]:
    """The pieces of `secret` that can be read in `thing`: as text, bytes, hex, or a row of items or numbers."""
    text = re.sub(r"[^0-9A-Za-z]", "", "".join(_leaves(thing, set()))).upper()
    pieces = [secret[at : at + RUN] for at in range(len(secret) - RUN + 1)]
    return [piece for piece in pieces if any(form in text for form in _forms(piece))]


def _forms(piece: str) -> tuple[str, ...]:
    codes = piece.encode("ascii")
    return piece.upper(), codes.hex().upper(), "".join(str(code) for code in codes)


def _leaves(thing: object, met: set[int]) -> Iterator[str]:
    if isinstance(thing, bytes | bytearray):
        yield thing.decode("latin-1")
    elif isinstance(thing, str | int | float | Enum) or thing is None:
        yield f"{thing}"
    elif id(thing) not in met:
        met.add(id(thing))
        if isinstance(thing, Mapping):
            for key, value in thing.items():
                yield from _leaves(key, met)
                yield from _leaves(value, met)
        elif isinstance(thing, Iterable):
            for item in thing:
                yield from _leaves(item, met)
        else:
            slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
            for name in [*getattr(thing, "__dict__", {}), *slots]:
                yield from _leaves(getattr(thing, name, None), met)
            yield _ADDRESS.sub("", repr(thing))
