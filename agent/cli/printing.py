"""This file knows how to print: data as a view for people or as JSON on stdout, talk on stderr.

Whatever a device said is shown with its control characters spelled out: a serial number must not be able to move
the cursor of a technician's terminal.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import typer

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

PIPED_WIDTH = 160
"""Columns when nobody's terminal says how wide it is."""

Data = TypeVar("Data")


def show(data: Data, view: "Callable[[Data], RenderableType]", as_json: bool) -> None:
    """Print data: as one JSON document, or as `view` draws it."""
    if as_json:
        line(_json(data, indent=2))
        return
    drawing = console()
    with drawing.capture() as drawn:
        drawing.print(view(data))
    line("\n".join(row.rstrip() for row in drawn.get().rstrip("\n").split("\n")))


def line(data: Any) -> None:
    """Print one line at once: a text as it is, anything else as JSON."""
    text = data if isinstance(data, str) else _json(data)
    with _unread():
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def say(text: str) -> None:
    """Talk to the person on stderr."""
    print(plain(text), file=sys.stderr, flush=True)


def console(stderr: bool = False) -> "Console":
    """A rich console: colours only on a terminal and without NO_COLOR."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else PIPED_WIDTH
    return Console(stderr=stderr, width=width, highlight=False, emoji=False, markup=False)


def cell(value: Any, style: str = "") -> "Text":
    """A piece of text for a view, safe to show."""
    from rich.text import Text

    return Text(plain(str(value)), style)


def plain(text: str) -> str:
    """The text with everything that is not printable spelled out; line ends stay."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def _json(data: Any, indent: int | None = None) -> str:
    """JSON as readable as the stream allows; JSON itself does not spell out DEL and the C1 controls."""
    readable = (sys.stdout.encoding or "").lower() in ("utf-8", "utf8")
    text = json.dumps(data, ensure_ascii=not readable, indent=indent)
    return re.sub("[\x7f-\x9f]", lambda found: f"\\u{ord(found[0]):04x}", text)


@contextmanager
def _unread() -> Iterator[None]:
    """End quietly when nobody reads stdout any more."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit() from None
