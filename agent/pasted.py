"""This file knows what looks like a key that somebody pasted where none belongs: nothing may repeat it."""

import re
import unicodedata

KEY_LIKE = re.compile(r"[0-9A-Fa-f]{11}|(?:[0-9A-Fa-f][\s:._-]*){16}")
"""More than 10 hex digits in a row, or as many as a component has, in groups."""


REFUSED = "nothing here takes more than 10 hex digits in a row: is that a component?"
"""What is said of such a text."""


def like_a_key(value: object) -> bool:
    """Whether it is such a text, also in wide digits, as a Chinese keyboard may give them."""
    return isinstance(value, str) and KEY_LIKE.search(unicodedata.normalize("NFKC", value)) is not None
