"""This file knows how a field of a request about keys is taken, and what is said when it holds a component."""

from collections.abc import Mapping
from typing import Any

from agent.errors import ControlError
from agent.pasted import is_name

Answer = dict[str, Any]
Request = Mapping[str, Any]
SPOILED = (
    "somebody typed a component here: it is spoiled, and nothing of it was kept. Tell both people, clear the"
    " history of the shell, destroy the envelope and ask for a new order"
)


def text_in(request: Request, key: str) -> str:
    """The text of a field; empty when it is not there. Raises ControlError."""
    value = request.get(key, "")
    if not isinstance(value, str):
        raise ControlError(f"{key} must be a text", 2)
    return value


def name_in(request: Request, key: str) -> str:
    """The short name in a field. Raises ControlError."""
    value = text_in(request, key)
    if not is_name(value):
        raise ControlError(f"{key} must be a short name of letters, digits, '.', '-' and '_'", 2)
    return value
