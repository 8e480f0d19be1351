"""This file knows what looks like a key that somebody pasted where none belongs: nothing may repeat it.

One rule for whatever comes in. A key, or a component of one, has KEY hex digits or more: in a row, in groups, with
anything between them, in wide digits as a Chinese keyboard may give them. A SHA-256 is one too: who may be given
such digests asks `holds_a_key`. What people type at the terminal has no more than LONGEST_HEX hex digits in a row.

What was accepted once is judged again at every start, orders and pushes by their ids among it: for names there are
`in_a_row` and `long_row`, narrower rules that must never become wider.
"""

import re
import unicodedata
from string import hexdigits

KEY = 16
"""Hex digits of the shortest key, or component."""
LONGEST_HEX = 10
"""Hex digits in a row that anything may have which people type; a check value has no more."""
LONGEST_NAME = 48
REFUSED = f"nothing here takes more than {LONGEST_HEX} hex digits in a row: is that a component?"
"""What is said of such a text, when nothing is spoiled by it."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_ROW = re.compile(rf"[0-9A-Fa-f]{{{LONGEST_HEX + 1},}}")
_GROUPED = "|".join(rf"[0-9A-F]{{{n}}}(?:[\s:._-]+[0-9A-F]{{{n}}}){{{KEY // n - 1},}}" for n in (1, 2, 4, 8))
_IN_A_ROW = re.compile(rf"[0-9A-F]{{{KEY},}}|(?<![0-9A-F])(?:{_GROUPED})", re.I)
_WORD = re.compile(r"[^\W_]+")
_HEX_WORD = re.compile(r"(?:0x)?([0-9a-f]+)", re.I)
_DIGEST = re.compile(r"(?<![0-9A-Za-z])[0-9a-f]{64}(?![0-9A-Za-z])")
_STRUCTURE = re.compile(r"[\"'<>=(){}\[\]]")


def in_a_row(value: object) -> bool:
    """Whether KEY hex digits or more stand in a text in a row, or in equal groups."""
    return _IN_A_ROW.search(_plain(value)) is not None


def long_row(value: object) -> bool:
    """Whether more than LONGEST_HEX hex digits stand in a text in a row."""
    return _ROW.search(_plain(value)) is not None


def is_name(text: str) -> bool:
    """Whether it can be an id, a slot, a person or a serial number: short, plain, and not like a key."""
    return bool(_NAME.fullmatch(text)) and len(text) <= LONGEST_NAME and not in_a_row(text)


def like_a_key(value: object) -> bool:
    """Whether a text may hold a key or a component: KEY hex digits or more in a row or in equal groups, or in words
    that are nothing but hex digits, whatever stands between them, and in what is glued to the first and last of
    these. Words of nothing but decimal digits are dates, times and counters; as a component in unequal groups they
    would need luck: one in 2,000 of 16 digits has no letter, and one in 3 million of 32."""
    plain = _plain(value)
    if _IN_A_ROW.search(plain):
        return True
    before, words = "", ""
    for word in _WORD.findall(plain):
        if found := _HEX_WORD.fullmatch(word):
            words += found[1]
        if _is_key(before, words, "" if found else word[: len(word) - len(word.lstrip(hexdigits))]):
            return True
        if not found:
            before, words = word[len(word.rstrip(hexdigits)) :], ""
    return False


def like_a_part(value: object) -> bool:
    """Whether something that a person typed may be a key, a component, or the greater part of one.

    Digits that are all decimal, and fewer than KEY, are none: a host's reference number may have 12. They are too
    much all the same, but spoil nothing.
    """
    return like_a_key(value) or any(not row.isdecimal() for row in _ROW.findall(_plain(value)))


def too_much_hex(value: object) -> bool:
    """Whether a text has more hex digits than anything that people type: in a row, or in all that are together."""
    return like_a_key(value) or long_row(value)


def holds_a_key(text: str) -> bool:
    """Whether a file, such as an order, holds one: a SHA-256 may stand in it, and quotes, brackets and signs of
    equality part what does not belong together (a name, and a time in milliseconds)."""
    return any(map(like_a_key, _STRUCTURE.split(_DIGEST.sub(" . ", text))))


def _is_key(before: str, words: str, after: str) -> bool:
    """Whether these are as many hex digits as a key has; letters that are glued to nothing but decimal digits are
    none, and decimal digits alone are no key."""
    glued = [text for text in (before, after) if not (words.isdecimal() and text.isalpha())]
    return len(words) + sum(map(len, glued)) >= KEY and not (words + "".join(glued)).isdecimal()


def _plain(value: object) -> str:
    return unicodedata.normalize("NFKC", value) if isinstance(value, str) else ""
