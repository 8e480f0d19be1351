"""This file knows `tillwire config`: whether a configuration file is right, before an agent runs with it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli import printing
from agent.cli.options import Json
from agent.cli.printing import cell
from agent.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import RenderableType

app = typer.Typer(name="config", help="The agent's configuration file.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """The agent's configuration file."""


@app.command(epilog="Example: tillwire config check /etc/tillwire/terminal.toml")
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", readable=False, help="The TOML file.")],
    as_json: Json = False,
) -> None:
    """Check a configuration file and say what was understood. Ends with 2 when the file is not right."""
    from agent import diagnose

    try:
        found: Mapping[str, Any] = {"ok": True, **diagnose.check_config(file)}
    except ConfigError as error:
        if as_json:
            printing.line({"ok": False, "error": str(error)})
        raise
    printing.show(found, _view, as_json)


def _view(found: Mapping[str, Any]) -> "RenderableType":
    from rich.console import Group
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    for key in ("terminal", "broker", "data", "socket", "keys", "digest"):
        table.add_row(cell(f"  {key}"), cell(found[key]))
    for device in found["devices"]:
        table.add_row(
            cell(f"  {device['name']}", "bold"), cell(f"{device['kind']} at {device['port']}, {device['access']}")
        )
    return Group(cell("the configuration is right", "green"), table)
