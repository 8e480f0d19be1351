"""This file knows `tillwire watch`: a live screen of devices and ledger rows; piped, a line per event."""

import sys
from collections import deque
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli import asking, printing, wording
from agent.cli.devices import content, details, fault, header, link, only
from agent.cli.options import ConfigFile, Json, Lang, Language, Socket, language
from agent.cli.printing import cell
from agent.errors import ControlError
from agent.points import lookup
from agent.timepiece import wall_ms

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

Facts = Mapping[str, Any]

PATIENCE = 20.0
"""Seconds: the agent sends at least a beat every 5."""
ROWS = 200


def join(app: typer.Typer) -> None:
    """Add this file's command."""
    app.command(epilog="Example: tillwire watch")(watch)


def watch(
    name: Annotated[str, typer.Argument(help="One device; otherwise all.", show_default=False)] = "",
    as_json: Json = False,
    lang: Lang = None,
    socket: Socket = None,
    config: ConfigFile = None,
) -> None:
    """Watch the devices live until Ctrl-C.

    Piped, or with --json, it prints one line for each event.
    """
    events = asking.ask(asking.find_socket(socket, config), {"do": "watch"}, PATIENCE)
    first = next(events, None)
    if first is None:
        raise asking.cut_short()
    report = only(first, name)
    events = (_narrowed(event, name) for event in events if _concerns(event, name))
    if as_json:
        _lines(report, events)
    elif sys.stdout.isatty():
        _screen(report, events, bool(name), language(lang))
    else:
        _sentences(report, events)
    raise ControlError("the agent has stopped: `systemctl status tillwire`")


def _concerns(event: Facts, name: str) -> bool:
    """Whether an event is about the device called `name`, or about the agent as a whole."""
    if "device" in event:
        return name in ("", event["device"]["name"])
    return name in ("", event.get("row", {}).get("device", name))


def _narrowed(event: dict[str, Any], name: str) -> dict[str, Any]:
    """The report of another configuration with the one device only. Raises ControlError when it has none."""
    return only(event, name) if "devices" in event else event


def _lines(report: Facts, events: Iterator[Facts]) -> None:
    printing.line(report)
    for event in events:
        printing.line(event)


def _sentences(report: Facts, events: Iterator[Facts]) -> None:
    printing.say(f"watching {report['terminal']}; Ctrl-C ends")
    for event in events:
        if row := event.get("row"):
            printing.line(printing.plain(_sentence(row)))


def _sentence(row: Facts) -> str:
    return f"{wording.clock(row['at'])}  {row.get('device', ''):12}  {wording.sentence(row)}"


def _screen(report: dict[str, Any], events: Iterator[Facts], one: bool, lang: Language) -> None:
    from rich.live import Live

    drawing = printing.console()
    rows: deque[Facts] = deque(maxlen=ROWS)
    live = Live(_picture(report, rows, one, lang, drawing), console=drawing, screen=True, auto_refresh=False)
    try:  # not `with`: a Ctrl-C during the first drawing must give the old screen back too
        live.start(refresh=True)
        for event in events:
            report = {**report, "at": event.get("beat", wall_ms())}
            if "row" in event:
                rows.append(event["row"])
            if "devices" in event:
                report = {**event, "at": report["at"]}
            if new := event.get("device"):
                report["devices"] = [new if d["name"] == new["name"] else d for d in report["devices"]]
            live.update(_picture(report, rows, one, lang, drawing), refresh=True)
    finally:
        live.stop()


def _picture(report: Facts, rows: deque[Facts], one: bool, lang: Language, drawing: "Console") -> "RenderableType":
    """The devices above, and as many of the last rows as the screen has room for."""
    from rich.console import Group

    above = Group(
        header(report),
        *(details(d, lang) for d in report["devices"] if one),
        *((_compact(report, lang),) if not one else ()),
        "",
    )
    room = drawing.size.height - len(drawing.render_lines(above)) - 1
    last = list(rows)[-room:] if room > 0 else []
    return Group(above, *(_cut(_sentence(row)) for row in last))


def _cut(text: str) -> "RenderableType":
    row = cell(text)
    row.no_wrap, row.overflow = True, "ellipsis"
    return row


def _compact(report: Facts, lang: Language) -> "RenderableType":
    """One line for each device with what matters of it, and its faults below."""
    from rich.console import Group
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column()
    for device in report["devices"]:
        state = link(device)
        good = state is not None and state["value"] == "up"
        table.add_row(
            cell(device["name"], "bold"),
            content(state) if state and good else cell(_why(state), "bold red"),
            _key_points(device),
        )
    faults = (fault(open_fault, lang) for device in report["devices"] for open_fault in device["faults"])
    return Group("", table, *faults)


def _why(state: Facts | None) -> str:
    return "UNKNOWN" if state is None or state["unknown"] else str(state["value"]).upper()


def _key_points(device: Facts) -> "RenderableType":
    """The words and counts of a device; wandering measures and names are for `tillwire devices`."""
    text = cell("")
    for point in device["points"]:
        if point["point"] == "link.state" or not _matters(point["point"]):
            continue
        text.append_text(cell(f"{', ' if text else ''}{point['point']} "))
        text.append_text(
            cell("UNKNOWN", "bold yellow") if point["unknown"] else cell(wording.value(point["value"]))
        )
    return text


def _matters(point: str) -> bool:
    try:
        return lookup(point).kind in ("word", "count", "tally")
    except KeyError:
        return True  # a newer agent may know more points than this command
