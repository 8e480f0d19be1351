"""This file knows `tillwire devices` and `tillwire perform`: the state of each device, and operations on one."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli import asking, printing, wording
from agent.cli.options import ConfigFile, Force, Json, Lang, Language, Socket, language
from agent.cli.printing import cell
from agent.errors import ControlError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

Facts = Mapping[str, Any]

SEVERITY_STYLES = {"critical": "bold red", "major": "bold red", "minor": "yellow", "warning": "yellow", "info": ""}
RAW_WIDTH = 48

SOME = 6
"""Unknown points that a summary names."""
FEW = 4
"""Devices of which every point still fits on a screen or two."""
OUTCOME_PATIENCE = 150.0
"""Seconds: longer than the agent itself waits for an outcome."""

STATUSES = {"done": 0, "failed": 1, "unanswered": 1, "refused": 3}


def join(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command(epilog="Example: tillwire devices ups1")(devices)
    app.command(epilog="Example: tillwire perform ups1 self_test")(perform)


def devices(
    name: Annotated[str, typer.Argument(help="One device; otherwise all.", show_default=False)] = "",
    whole: Annotated[
        bool,
        typer.Option("--all", help=f"Every point, also of more than {FEW} devices. JSON has them in any case."),
    ] = False,
    as_json: Json = False,
    lang: Lang = None,
    socket: Socket = None,
    config: ConfigFile = None,
) -> None:
    """Show each device: its state, its faults, and what to do first.

    Ends with 1 when something is not well: a device that does not answer, a value that is unknown, an open fault.
    """
    report = only(asking.ask_once(asking.find_socket(socket, config), {"do": "devices"}), name)
    spoken, every_point = language(lang), whole or len(report["devices"]) <= FEW
    printing.show(report, lambda facts: overview(facts, spoken, every_point), as_json)
    raise typer.Exit(0 if all(well(device) for device in report["devices"]) else 1)


def perform(
    device: Annotated[str, typer.Argument(help="The device's name, as `tillwire devices` shows it.")],
    verb: Annotated[str, typer.Argument(help="The operation. An unknown one is answered with the known ones.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(help="Its arguments, as name=value.", show_default=False)
    ] = None,
    force: Force = False,
    as_json: Json = False,
    socket: Socket = None,
    config: ConfigFile = None,
) -> None:
    """Have a device do something, and wait for the outcome. Asks first for whatever may move notes or cards.

    The ledger keeps who asked and what came of it. Ends with 1 when the device failed or did not answer, with 3
    when nothing was sent.
    """
    path = asking.find_socket(socket, config)
    request = {"do": "perform", "device": device, "verb": verb, "arguments": parsed(arguments or [])}
    if not force and may_move(path, device, verb):
        _confirm(f"{verb} on {device} may move notes or cards. Is every hand out of the machine?")
    result: dict[str, Any] = {}
    try:
        for answer in asking.ask(path, request, OUTCOME_PATIENCE):
            result.update(answer)
            if "outcome" not in result:
                printing.say(f"asked {device} for {verb}; waiting for the outcome ...")
    except KeyboardInterrupt:
        printing.say("the device goes on; `tillwire ledger tail` will show the outcome")
        raise
    if "outcome" not in result:
        raise asking.cut_short()
    printing.show(result, _outcome, as_json)
    raise typer.Exit(STATUSES.get(result["outcome"]["result"], 1))


def only(report: dict[str, Any], name: str) -> dict[str, Any]:
    """The report with one device only; with all of them when `name` is empty."""
    if not name:
        return report
    chosen = [device for device in report["devices"] if device["name"] == name]
    if not chosen:
        names = ", ".join(device["name"] for device in report["devices"]) or "none"
        raise ControlError(f"there is no device {name!r}: there are {names}", 2)
    return {**report, "devices": chosen}


def link(device: Facts) -> Facts | None:
    """The point that tells whether the device answers, if the agent has ever heard or missed it."""
    return next((point for point in device["points"] if point["point"] == "link.state"), None)


def well(device: Facts) -> bool:
    """Whether a device answers, has no open fault and no unknown value."""
    state = link(device)
    return (
        state is not None
        and state["value"] == "up"
        and not device["faults"]
        and not any(point["unknown"] for point in device["points"])
    )


def parsed(arguments: list[str]) -> dict[str, str | int | bool]:
    """name=value words as a mapping; whole numbers, true and false are what they look like."""
    found: dict[str, str | int | bool] = {}
    for word in arguments:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise ControlError(f"an argument is written name=value, not {word!r}", 2)
        if text in ("true", "false"):
            found[name] = text == "true"
        elif text.removeprefix("-").isdecimal():
            found[name] = int(text)
        else:
            found[name] = text
    return found


def may_move(path: Path, device: str, verb: str) -> bool:
    """Whether an operation may move notes or cards."""
    [facts] = only(asking.ask_once(path, {"do": "devices"}), device)["devices"]
    return verb in facts.get("moving", ())


def overview(report: Facts, lang: Language, every_point: bool = True) -> "RenderableType":
    """The whole report, for a person; without `every_point` what is well in a line for each device."""
    from rich.console import Group

    unwell = [device["name"] for device in report["devices"] if not well(device)]
    verdict = cell(f"not well: {', '.join(unwell)}", "bold red") if unwell else cell("all is well", "green")
    if not report["devices"]:
        verdict = cell("no devices are configured: add [devices.NAME] tables to the configuration")
    shown = [details(device, lang) if every_point else summary(device, lang) for device in report["devices"]]
    more = [] if every_point else [cell("every point: tillwire devices NAME, or --all", "dim")]
    return Group(header(report), *shown, "", verdict, *more)


def header(report: Facts) -> "RenderableType":
    """Which terminal this is, and whether its centre hears it."""
    uplink = report["uplink"]
    note = f" ({uplink['note']})" if uplink["note"] else ""
    text = cell(f"{report['terminal']} of {report['org']}", "bold")
    text.append_text(cell(f"   {wording.clock(report['at'])}   uplink {uplink['state']}{note}"))
    if uplink["backlog"]:
        text.append_text(cell(f", {uplink['backlog']} ledger rows wait"))
    if traffic := report.get("traffic"):
        text.append_text(cell(f", {sum(traffic['month']) / 1e6:.1f} MB{_of_budget(traffic)} this month"))
    if report.get("trouble"):
        text.append_text(cell(f"\n{report['trouble']}", "bold red"))
    return text


def details(device: Facts, lang: Language) -> "RenderableType":
    """One device: its line, every point with its age, its faults."""
    from rich.console import Group

    parts: list[RenderableType] = ["", title(device)]
    if device["points"]:
        parts.append(_points(device))
    else:
        parts.append(cell("  nothing is known of it yet"))
    parts += [fault(open_fault, lang) for open_fault in device["faults"]]
    return Group(*parts)


def summary(device: Facts, lang: Language) -> "RenderableType":
    """One device in short: its line, how much of it is known, its faults."""
    from rich.console import Group

    points = device["points"]
    unknown = [point["point"] for point in points if point["unknown"]]
    text = title(device)
    text.append_text(cell(f"   {len(points) - len(unknown)} points", "dim"))
    if unknown:
        named = ", ".join(unknown[:SOME]) + (f" and {len(unknown) - SOME} more" if len(unknown) > SOME else "")
        text.append_text(cell(f"\n  {len(unknown)} UNKNOWN: ", "bold yellow"))
        text.append_text(cell(named))
    return Group(text, *(fault(open_fault, lang) for open_fault in device["faults"]))


def title(device: Facts) -> "Text":
    """The device's name, kind, port, and whether it answers."""
    state = link(device)
    answer = "UNKNOWN" if state is None or state["unknown"] else str(state["value"])
    text = cell(device["name"], "bold")
    listen = ", listening only" if device["access"] == "listen" else ""
    text.append_text(cell(f"  {device['kind']} at {device['port']}{listen}   link "))
    text.append_text(cell(answer, "green" if answer == "up" else "bold red"))
    return text


def fault(facts: Facts, lang: Language) -> "RenderableType":
    """An open fault: cause, since when, who mends it, what to do first."""
    text = cell(f"  {facts['severity'].upper()} ", SEVERITY_STYLES.get(facts["severity"], "bold"))
    text.append_text(cell(facts["cause"][lang], "bold"))
    text.append_text(cell(f"   {facts['point']}, {facts['code']}, since {wording.clock(facts['since'])}"))
    if lang == "zh":
        owner = f"负责: {wording.OWNERS_ZH.get(facts['owner'], facts['owner'])}   先做"
    else:
        owner = f"owner: {facts['owner']}   do"
    text.append_text(cell(f"\n    {owner}: {facts['hint'][lang]}"))
    return text


def _points(device: Facts) -> "Table":
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column()
    table.add_column(justify="right", no_wrap=True)
    table.add_column(max_width=RAW_WIDTH, style="dim")
    for point in device["points"]:
        table.add_row(
            cell(f"  {point['point']}"), content(point), cell(wording.age(point["age"])), cell(wording.said(point))
        )
    return table


def content(point: Facts) -> "RenderableType":
    """A point's value, or that it is unknown and what it last was."""
    if not point["unknown"]:
        inferred = " (inferred)" if point["inferred"] else ""
        return cell(wording.value(point["value"], point["unit"]) + inferred)
    text = cell("UNKNOWN", "bold yellow")
    if point["was_value"] is not None:
        text.append_text(cell(f" (was {wording.value(point['was_value'], point['unit'])})", "not bold"))
    return text


def _confirm(question: str) -> None:
    # typer.confirm(err=True) still writes a space to stdout, which is for data only
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    if not answer:
        raise ControlError("nothing was sent: there was no answer; --force does it without asking")
    if answer.strip().lower() not in ("y", "yes"):
        raise ControlError("nothing was sent")


def _outcome(result: Facts) -> "RenderableType":
    outcome = result["outcome"]
    text = cell(outcome["result"], "green" if outcome["result"] == "done" else "bold red")
    text.append_text(cell(f": {outcome['detail']}" if outcome["detail"] else ""))
    text.append_text(cell(f"  [device said: {outcome['raw']}]" if outcome["raw"] else ""))
    return text


def _of_budget(traffic: Facts) -> str:
    """Of how much, and what is told less often because of it."""
    saved = {"refresh": ", states are told less often", "rows": ", only what is urgent goes at once"}
    return f" of {traffic['budget'] / 1e6:g}{saved.get(traffic['saving'], '')}" if traffic["budget"] else ""
