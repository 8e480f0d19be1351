"""Writes docs/points.md, docs/asyncapi.yaml and the pictures in docs/keys.md and docs/operations.md from the code;
tests keep them so."""

import re
import sys
from pathlib import Path

import yaml

from agent.crypto.steps import picture
from agent.messages import asyncapi
from agent.points import POINTS
from agent.pushing import probation

HERE = Path(__file__).parent


def points() -> str:
    """The vocabulary as a table."""
    lines = [
        "# Points",
        "",
        "Generated from `agent/points.py` by `make docs`. A `*` stands for a position number or a supply's name.",
        "A word that is not listed here arrives as `vendor.<code>`. A value older than its max age is unknown.",
        "",
        "| point | kind | words or unit | max age | meaning |",
        "|---|---|---|---|---|",
    ]
    for p in POINTS:
        lines.append(
            f"| `{p.pattern}` | {p.kind} | {' '.join(p.words) or p.unit or '-'} | {p.max_age:g} s | {p.text} |"
        )
    return "\n".join(lines) + "\n"


def messages() -> str:
    """The MQTT messages as AsyncAPI 3."""
    head = "# Generated from agent/messages.py by `make docs`.\n"
    return head + yaml.safe_dump(asyncapi(), sort_keys=False, allow_unicode=True, width=110)


def keys() -> str:
    """docs/keys.md with its picture drawn again; the rest of the page is written by hand."""
    page = (HERE / "keys.md").read_text(encoding="utf-8")
    return re.sub(r"```mermaid\n.*?```", lambda _: f"```mermaid\n{picture()}```", page, count=1, flags=re.S)


def operations() -> str:
    """docs/operations.md with its picture "How a push is applied" drawn again; the rest is written by hand."""
    page = (HERE / "operations.md").read_text(encoding="utf-8")
    drawn = f"```mermaid\n{probation.picture()}```"
    place = r"(## How a push is applied\n(?:(?!\n## ).)*?)```mermaid\n.*?```"
    return re.sub(place, lambda found: found[1] + drawn, page, count=1, flags=re.S)


GENERATED = {"points.md": points, "asyncapi.yaml": messages, "keys.md": keys, "operations.md": operations}


def main() -> int:
    """Write every generated page."""
    for name, make in GENERATED.items():
        (HERE / name).write_text(make(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
