"""This file knows `tillwire diagnose`: the facts that agent/diagnose.py collects, for a person."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from agent.cli import asking, printing
from agent.cli.options import ConfigFile, Json, Offline, Socket, StoreFile
from agent.cli.printing import cell
from agent.errors import ControlError

if TYPE_CHECKING:
    from rich.console import RenderableType

STYLES = {"ok": "green", "warn": "yellow", "bad": "bold red"}


def join(app: typer.Typer) -> None:
    """Add this file's command."""
    app.command(epilog="Example: tillwire diagnose --offline --config /etc/tillwire/terminal.toml")(diagnose)


def diagnose(
    offline: Offline = False,
    store: StoreFile = None,
    as_json: Json = False,
    socket: Socket = None,
    config: ConfigFile = None,
) -> None:
    """Collect the facts that help to find a cause; never a secret.

    Ports, broker, disk, clock, store, versions. Each line that is not ok names the next step. Ends with 1 when
    something is bad.
    """
    sections: Sequence[Mapping[str, Any]]
    if offline or store:
        from agent import diagnose as facts

        sections = facts.collect_offline(config, store)
    else:
        try:
            sections = asking.ask_once(asking.find_socket(socket, config), {"do": "diagnose"})["sections"]
        except ControlError as error:
            raise ControlError(f"{error}; --offline looks without the agent", error.status) from error
    printing.show({"sections": sections}, lambda found: _view(found["sections"]), as_json)
    bad = any(fact["verdict"] == "bad" for section in sections for fact in section["facts"])
    raise typer.Exit(1 if bad else 0)


def _view(sections: Sequence[Mapping[str, Any]]) -> "RenderableType":
    from rich.console import Group
    from rich.table import Table

    parts: list[RenderableType] = []
    for section in sections:
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column()
        for fact in section["facts"]:
            text = cell(fact["value"])
            if fact["next"]:
                text.append_text(cell(f"\n→ {fact['next']}", "bold"))
            table.add_row(
                cell(f"  {fact['verdict']:4}", STYLES.get(fact["verdict"], "")), cell(fact["label"]), text
            )
        parts += [cell(section["title"], "bold"), table]
    return Group(*parts)
