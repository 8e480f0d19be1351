"""This file knows `tillwire push send`: a signed push on its way to a fleet, stage by stage, with a broker only."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli import pushstatus
from agent.cli.options import AtBroker, Ca, Certificate, CertificateKey, Gather, Json, MqttVersion
from agent.errors import ControlError
from agent.timepiece import wall_ms

if TYPE_CHECKING:
    from agent.centre.fleet import Fleet
    from agent.centre.parcel import Parcel
    from agent.centre.rollout import Rollout


def join(app: typer.Typer) -> None:
    """Add the commands that talk to the broker."""
    app.command(epilog="Example: tillwire push send new.json --broker centre.example:8883 --ca ca.pem")(send)
    pushstatus.join(app)


def send(
    envelope: Annotated[Path, typer.Argument(metavar="ENVELOPE", readable=False, help="What was signed.")],
    broker: AtBroker,
    ca: Ca = None,
    certificate: Certificate = None,
    key: CertificateKey = None,
    protocol: MqttVersion = "5",
    org: Annotated[str, typer.Option("--org", help="Whose terminals; must be as in the push.")] = "",
    stages: Annotated[
        str, typer.Option("--stages", help="How many at a time: numbers, parts like 10%, and `rest` at the end.")
    ] = "1,5,rest",
    patience: Annotated[
        float, typer.Option("--patience", min=0.1, help="Seconds in which a terminal must say what became of it.")
    ] = 300.0,
    state: Annotated[
        Path | None,
        typer.Option(
            "--state", metavar="FILE", readable=False, help="Where it stands. Otherwise ENVELOPE.rollout.json."
        ),
    ] = None,
    skip_offline: Annotated[
        bool, typer.Option("--skip-offline", help="Do not wait for who is offline: the broker keeps it for them.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before a large stage.")] = False,
    gather: Gather = 1.0,
    as_json: Json = False,
) -> None:
    """Send a signed push to the terminals that it is for, stage by stage.

    A stage begins when everybody of the one before has committed. At the first that rolls back, refuses or stays
    silent it stops, names the terminal and what to do, and ends with 1. The same command goes on where it stopped.
    """
    from agent.centre import broker as centre
    from agent.centre import parcel
    from agent.centre.fleet import Fleet
    from agent.cli.rolloutviews import view_for
    from agent.cli.sending import Sending, alone, earlier

    found = parcel.read(_content(envelope, parcel.LARGEST), wall_ms())
    push = found.push
    if org and org != push.org:
        raise ControlError(f"this push is for {push.org}, not for {org}: sign another, or leave --org out", 2)
    file = state or envelope.with_name(envelope.name + ".rollout.json")
    fleet = Fleet(push.org, push.id if push.kind == "command" else "")
    at = centre.broker(broker, protocol, ca, certificate, key)
    with alone(file):
        before = earlier(file, found)
        with centre.Centre(at, fleet) as line:
            line.gather(gather)
            rollout = _planned(found, fleet, before, stages, patience, skip_offline)
            status = Sending(found, line, fleet, rollout, file, view_for(found.title, as_json), yes).run()
    raise typer.Exit(status)


def _planned(
    found: "Parcel",
    fleet: "Fleet",
    before: tuple[list[list[str]], list[str]] | None,
    plan: str,
    patience: float,
    skip_offline: bool,
) -> "Rollout":
    """The rollout to do, or to go on with: who came since then is in stages of their own after the earlier ones."""
    from agent.centre.rollout import Offline, Rollout, staged

    stages, committed = before or ([], [])
    known = {name for stage in stages for name in stage}
    try:
        new = staged([name for name in fleet.members(found.push.target) if name not in known], plan)
    except ValueError as error:
        raise ControlError(f"--stages: {error}", 2) from error
    if not stages and not new:
        raise ControlError(
            f"no terminal that this push is for has reported to this broker: is the organisation {found.push.org}"
            " right, and have they [push] in their configuration?"
        )
    offline: Offline = "leave" if not found.retained else "send" if skip_offline else "wait"
    rollout = Rollout([*stages, *new], patience, offline)
    rollout.resume(committed)
    return rollout


def _content(envelope: Path, most: int) -> bytes:
    """The envelope, and no more of the file than shows that it is too large."""
    try:
        with envelope.open("rb") as file:
            return file.read(most + 1)
    except OSError as error:
        raise ControlError(f"{envelope} cannot be read ({error.strerror}): give what was signed", 2) from error
