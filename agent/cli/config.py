"""This file knows `tillwire config`: whether a configuration file is right, before an agent runs with it; and at
the terminal what is in force, what the centre has pushed, and how a technician holds it back or takes it back."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli import asking, configviews, printing, wording
from agent.cli.configtexts import said
from agent.cli.options import ConfigFile, Force, Json, Lang, Language, Socket, language
from agent.cli.printing import cell
from agent.errors import ConfigError, ControlError

if TYPE_CHECKING:
    from rich.console import RenderableType

app = typer.Typer(
    name="config", help="The agent's configuration, and what the centre pushes.", no_args_is_help=True
)

PATIENCE = 40.0
"""Seconds: the agent answers when it has swapped what a push changes, or refuses after 30."""
TURN = 1.0
"""Seconds between two looks at a push that is being tried."""
DAYS = 7
"""The longest freeze."""


@app.callback()
def _group() -> None:
    """The agent's configuration, and what the centre pushes."""


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


@app.command(epilog="Example: tillwire config show")
def show(as_json: Json = False, lang: Lang = None, socket: Socket = None, config: ConfigFile = None) -> None:
    """Show what is in force and where it comes from, what is being tried or waits, and how the last push ended.

    While a push is being tried it counts down, until that is over. Ends with 1 when somebody has to look: something
    was refused or rolled back, waits or is frozen, or the file was changed.
    """
    path, spoken = asking.find_socket(socket, config), language(lang)
    found = _ask(path, "show")
    if found["taken"] and found["pending"] and sys.stdout.isatty() and not as_json:
        found = _followed(path, found, spoken)
    printing.show(found, lambda facts: configviews.show(facts, spoken), as_json)
    raise typer.Exit(1 if configviews.unwell(found) else 0)


@app.command(epilog="Example: tillwire config diff --pending")
def diff(
    pending: Annotated[
        bool, typer.Option("--pending", help="Instead: what is in force, against what is being tried or waits.")
    ] = False,
    as_json: Json = False,
    lang: Lang = None,
    socket: Socket = None,
    config: ConfigFile = None,
) -> None:
    """Show what differs between the terminal's own file and what is in force. The [terminal], [control], [keys] and
    [push] tables are always those of the file."""
    path, spoken = asking.find_socket(socket, config), language(lang)
    found = _ask(path, "show")
    old, new = ("in_force", "pending") if pending else ("own", "in_force")
    rows = found["differences"]["pending" if pending else "own"] if found["taken"] else []
    is_nothing = pending and not (found["taken"] and (found["pending"] or found["waiting"]))

    def view(facts: Mapping[str, Any]) -> "RenderableType":
        if is_nothing:
            return cell(said("nothing_pending", spoken))
        return configviews.difference(facts["rows"], f"diff_{old}", f"diff_{new}", spoken)

    printing.show({"from": old, "to": new, "rows": rows}, view, as_json)
    if found["in_force"]["file_changed"]:
        printing.say(said("file_changed", spoken, file=found["in_force"]["file"]))


@app.command(epilog="Example: tillwire config history --tail 5")
def history(
    tail: Annotated[int, typer.Option("--tail", "-n", min=1, max=200, help="How many, the newest first.")] = 20,
    as_json: Json = False,
    lang: Lang = None,
    socket: Socket = None,
    config: ConfigFile = None,
) -> None:
    """Show what was decided here of what the centre pushed: version, outcome, when, and why.

    An envelope that was not signed as it must be is not among them: `tillwire ledger tail` has each event.
    """
    path, spoken = asking.find_socket(socket, config), language(lang)
    found = _ask(path, "show").get("history", [])[:tail]
    printing.show({"history": found}, lambda facts: configviews.history(facts["history"], spoken), as_json)


@app.command(epilog="Example: tillwire config freeze --hours 8")
def freeze(
    hours: Annotated[int, typer.Option(min=0, help="For so many hours.", show_default=False)] = 0,
    minutes: Annotated[int, typer.Option(min=0, help="For so many minutes.", show_default=False)] = 0,
    as_json: Json = False,
    lang: Lang = None,
    socket: Socket = None,
    config: ConfigFile = None,
) -> None:
    """Take no configuration and no command from the centre for a while, at most 7 days. The centre sees it.

    What is being tried already goes on. For root and the agent's own user.
    """
    if bool(hours) == bool(minutes):
        raise typer.BadParameter("give one of --hours and --minutes")
    if (wanted := hours * 60 + minutes) > DAYS * 24 * 60:
        raise typer.BadParameter(f"pushes are frozen for {DAYS} days at the most: freeze them again then")
    spoken = language(lang)
    answer = _ask(asking.find_socket(socket, config), "freeze", minutes=wanted)
    _done(
        answer,
        said("froze", spoken, until=wording.clock(answer["frozen_until"])),
        (said("to_thaw", spoken), "tillwire config thaw"),
        spoken,
        as_json,
    )


@app.command(epilog="Example: tillwire config thaw")
def thaw(as_json: Json = False, lang: Lang = None, socket: Socket = None, config: ConfigFile = None) -> None:
    """End a freeze: what the centre has pushed meanwhile is looked at. For root and the agent's own user."""
    spoken = language(lang)
    answer = _ask(asking.find_socket(socket, config), "thaw")
    _done(answer, said("thawed", spoken), (said("look", spoken), "tillwire config show"), spoken, as_json)


@app.command(epilog="Example: tillwire config rollback")
def rollback(
    force: Force = False,
    as_json: Json = False,
    lang: Lang = None,
    socket: Socket = None,
    config: ConfigFile = None,
) -> None:
    """Take back what is being tried, else what was pushed last: says what will count then, and asks.

    Once back at the terminal's own file there is nothing more to take back. For root and the agent's own user.
    """
    path, spoken = asking.find_socket(socket, config), language(lang)
    found = _ask(path, "show")
    planned = found.get("rollback")
    if found["taken"] and planned is None:
        raise ControlError(said("nothing_pushed", spoken), 1)
    if planned:  # else the agent says that it takes no pushes
        gone, then = planned["gone"], configviews.counts(planned["then"], spoken)
        printing.say(said("will_count", spoken, gone=gone, then=then))
        drawing = printing.console(stderr=True)
        drawing.print(configviews.difference(planned["difference"], "diff_now", "diff_then", spoken))
        if not force:
            _confirm(said("ask_rollback", spoken, gone=gone), spoken)
    answer = _ask(path, "rollback", version=planned["gone"] if planned else 0)
    then = configviews.counts(answer.get("in_force", planned["then"] if planned else 0), spoken)
    _done(
        answer,
        said("rolled_back", spoken, gone=answer["rolled_back"], then=then),
        (said("never_again", spoken), "tillwire config show"),
        spoken,
        as_json,
    )


def _ask(path: Path, act: str, **more: Any) -> asking.Answer:
    for answer in asking.ask(path, {"do": "pushes", "act": act, **more}, PATIENCE):
        return answer
    raise asking.cut_short()


def _followed(path: Path, found: asking.Answer, lang: Language) -> asking.Answer:
    """Count down while a push is being tried; how things stand after it."""
    from rich.live import Live

    drawing = printing.console()
    with Live(configviews.show(found, lang), console=drawing, auto_refresh=False, transient=True) as live:
        while found["pending"]:
            time.sleep(TURN)
            found = _ask(path, "show")
            live.update(configviews.show(found, lang), refresh=True)
    return found


def _confirm(question: str, lang: Language) -> None:
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    if not answer:
        raise ControlError(said("no_answer", lang))
    if answer.strip().lower() not in ("y", "yes"):
        raise ControlError(said("not_changed", lang))


def _done(answer: asking.Answer, text: str, then: tuple[str, str], lang: Language, as_json: bool) -> None:
    printing.show(answer, lambda _: configviews.done(text, *then, lang), as_json)


def _view(found: Mapping[str, Any]) -> "RenderableType":
    from rich.console import Group
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    for key in ("terminal", "groups", "broker", "data", "socket", "keys", "push", "digest"):
        table.add_row(cell(f"  {key}"), cell(found[key]))
    for device in found["devices"]:
        table.add_row(
            cell(f"  {device['name']}", "bold"), cell(f"{device['kind']} at {device['port']}, {device['access']}")
        )
    return Group(cell("the configuration is right", "green"), table)
