"""This file knows `tillwire probe`: open one port, ask, and say what answers there."""

import tomllib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli import printing, wording
from agent.cli.options import Json
from agent.cli.printing import cell
from agent.errors import ControlError

if TYPE_CHECKING:
    from rich.console import RenderableType


def join(app: typer.Typer) -> None:
    """Add this file's command."""
    app.command(epilog="Example: tillwire probe /dev/ttyS0 ups --seconds 5")(probe)


def probe(
    port: Annotated[str, typer.Argument(help="The port, such as /dev/ttyS0 or socket://host:port.")],
    kind: Annotated[str, typer.Argument(help="The kind of device that should be there, such as ups.")],
    baud: Annotated[
        int | None,
        typer.Option(min=50, max=4_000_000, help="Line speed; otherwise the kind's.", show_default=False),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.5, max=600.0, help="How long to ask at the most.")] = 10.0,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A key of the device's table, such as address=1."),
    ] = None,
    trace: Annotated[
        bool, typer.Option("--trace", help="Show each frame and its meaning on stderr; never a keypad or a card.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Open a port, ask there, and say what answers.

    Asks as the agent would ask a device of this kind, and needs no running agent.
    A port that the agent or another program holds is refused. Ends with 1 when nothing or something else answers.
    """
    from agent import diagnose

    drawing = printing.console(stderr=True)
    with drawing.status(f"asking at {port} ...") as status:

        def say(text: str) -> None:
            if drawing.is_terminal and not text.startswith(diagnose.TRACE):
                status.update(cell(text))
            else:
                printing.say(text)

        found = diagnose.probe(
            port, kind, _parsed(settings or []), baud=baud, seconds=seconds, say=say, trace=trace
        )
    printing.show(found, _view, as_json)
    raise typer.Exit(0 if found["link"] == "up" else 1)


def _parsed(settings: list[str]) -> dict[str, Any]:
    """NAME=VALUE pairs as the configuration would read them; a value that is no TOML is a text."""
    parsed: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name:
            raise ControlError(f"{setting!r} is not a setting: write NAME=VALUE, for example address=1", 2)
        try:
            parsed[name] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            parsed[name] = text
    return parsed


def _view(found: Mapping[str, Any]) -> "RenderableType":
    from rich.console import Group
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    for point, reading in found["points"].items():
        inferred = " (inferred)" if reading["inferred"] else ""
        table.add_row(
            cell(f"  {point}"),
            cell(wording.value(reading["value"], reading["unit"]) + inferred),
            cell(reading["raw"], "dim"),
        )
    return Group(cell(found["verdict"], "green" if found["link"] == "up" else "bold red"), table)
