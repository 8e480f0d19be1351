"""This file knows `tillwire push status`: what became of the pushes of each terminal, as the broker has it."""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli import printing
from agent.cli.options import AtBroker, Ca, Certificate, CertificateKey, Gather, Json, MqttVersion
from agent.errors import ControlError
from agent.timepiece import wall_ms

if TYPE_CHECKING:
    from agent.centre.broker import Centre
    from agent.centre.fleet import Fleet, Seen

TURN = 0.5
"""Seconds between two looks at how much time has passed."""


def join(app: typer.Typer) -> None:
    """Add this file's command."""
    app.command(epilog="Example: tillwire push status --broker 127.0.0.1:1883 --org example-coop")(status)


def status(
    broker: AtBroker,
    org: Annotated[str, typer.Option("--org", help="Whose terminals.", show_default=False)],
    ca: Ca = None,
    certificate: Certificate = None,
    key: CertificateKey = None,
    protocol: MqttVersion = "5",
    terminal: Annotated[str, typer.Option("--terminal", help="One terminal; otherwise all.")] = "",
    watch: Annotated[bool, typer.Option("--watch", help="Go on until Ctrl-C.")] = False,
    gather: Gather = 1.0,
    as_json: Json = False,
) -> None:
    """Show what became of the pushes of each terminal, as the terminals have reported it to the broker.

    Ends with 1 when something is rolled back, refused, frozen or waits.
    """
    from agent.centre import broker as centre
    from agent.centre.fleet import Fleet
    from agent.cli.rolloutviews import UNWELL, table

    fleet = Fleet(org)
    with centre.Centre(centre.broker(broker, protocol, ca, certificate, key), fleet) as line:
        line.gather(gather)
        report = _report(fleet, terminal)
        if watch:
            _follow(line, fleet, terminal, as_json)
        printing.show(report, table, as_json)
    raise typer.Exit(int(any(facts["standing"] in UNWELL for facts in report["terminals"])))


def _report(fleet: "Fleet", terminal: str) -> dict[str, Any]:
    now = wall_ms()
    known = {name: _facts(name, seen, now) for name, seen in sorted(fleet.terminals.items())}
    if terminal and terminal not in known:
        raise ControlError(f"no terminal {terminal!r} of {fleet.org} has ever connected to this broker", 2)
    if not known:
        raise ControlError(f"no terminal of {fleet.org} has ever connected to this broker: is --org right?")
    shown = [known[terminal]] if terminal else list(known.values())
    return {"org": fleet.org, "at": now, "terminals": shown, "unreadable": sorted(fleet.unreadable)}


def _facts(name: str, seen: "Seen", now: int) -> dict[str, Any]:
    from agent.centre.fleet import standing
    from agent.messages import Reported

    said = seen.reported or Reported(at=0, outcome="none", config="")
    facts = {"terminal": name, "online": seen.online, "since": seen.since, "standing": standing(seen, now)}
    return {**facts, **said.model_dump(mode="json")}


def _follow(line: "Centre", fleet: "Fleet", terminal: str, as_json: bool) -> None:
    """Show the fleet live until Ctrl-C."""
    from agent.cli.rolloutviews import status_line, table

    def changed() -> Mapping[str, Any]:
        line.news.clear()
        return _report(fleet, terminal)

    report = changed()
    if sys.stdout.isatty() and not as_json:
        from rich.live import Live

        with Live(table(report), console=printing.console(), screen=True, auto_refresh=False) as live:
            while True:
                line.turn(TURN)
                live.update(table(changed()), refresh=True)
    told: dict[str, Any] = {}
    while True:
        for facts in report["terminals"]:
            if told.get(facts["terminal"]) != facts:
                told[facts["terminal"]] = facts
                printing.line(facts if as_json else printing.plain(status_line(facts)))
        while not line.news:
            line.turn(TURN)
        report = changed()
