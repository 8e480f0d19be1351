"""This file knows hwsim's command line: it reads files, asks the running server, and prints.

Data goes to stdout, talk to stderr. Exit statuses are those of hwsim/errors.py.
"""

import asyncio
import json
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from hwsim import DEVICES, Allowed
from hwsim.contract import medium
from hwsim.control import Data, ask
from hwsim.errors import NOT_HERE, NOT_WELL, Refusal
from hwsim.fleet import Kinds, load, load_scenario, parse
from hwsim.line import LINE_FAULTS
from hwsim.scenario import Act
from hwsim.secure_cli import add_to
from hwsim.server import MASTERS, Masters, Server


@dataclass
class Scope:
    """What all commands share: the kinds that can be served, and the run folder if one was given."""

    kinds: Kinds
    masters: Masters
    run: Path | None = None


RUN_HELP = "Folder of the running server: its ports and its control socket. [default: run]"
Run = Annotated[Path | None, typer.Option("--run", metavar="DIR", help=RUN_HELP)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
DeviceName = Annotated[str, typer.Argument(metavar="DEVICE", help="As in `hwsim show`: ups1, or atm1/ups1.")]

app = typer.Typer(
    help="An ATM without the hardware: devices on ports that a program opens like real ones.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def common(
    ctx: typer.Context,
    run: Annotated[Path | None, typer.Option("--run", metavar="DIR", envvar="HWSIM_RUN", help=RUN_HELP)] = None,
) -> None:
    ctx.obj.run = run


@app.command("serve")
def serve_fleet(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The fleet file (TOML).")],
    run: Run = None,
    log: Annotated[
        Path | None,
        typer.Option("--log", metavar="FILE", help="Append each act to this file, one JSON object a line."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Serve the devices of a fleet file until stopped (Ctrl-C).

    Prints a line for each device with its port, then READY. The folder is the --run given, else the file's run_dir.
    """
    scope: Scope = ctx.obj
    fleet = load(file, scope.kinds, scope.masters)
    folder = run or scope.run or fleet.run_dir

    def ready(devices: list[Data]) -> None:
        for device in devices:
            name = f"{device['terminal']}/{device['device']}"
            print(json.dumps(device) if as_json else f"{name} {device['kind']} {device['port']}")
        print(json.dumps({"ready": True, "run": str(folder)}) if as_json else f"READY {folder}", flush=True)

    with ExitStack() as files:
        try:
            out = files.enter_context(log.open("a", encoding="utf-8")) if log else None
        except OSError as error:
            raise Refusal(
                f"{log} cannot be written ({error.strerror}); give another --log file", NOT_HERE
            ) from error
        asyncio.run(_until_stopped(Server(fleet, folder, scope.kinds, scope.masters, out), ready))
    _say("stopped")


async def _until_stopped(server: Server, ready: Any) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await server.run(stop, ready)


@app.command()
def show(
    ctx: typer.Context,
    device: Annotated[str | None, typer.Argument(metavar="DEVICE", help="Only this one.")] = None,
    run: Run = None,
    as_json: Json = False,
) -> None:
    """Show each device: its port, what is wrong with its line, and its settings."""
    found = list(ask(_folder(ctx, run), {"do": "show", "device": device}))
    if as_json:
        _print_json(found)
        return
    for one in found:
        line = ", ".join(one["faults"]) or "good"
        port = one["port"] or "(unplugged)"
        print(f"{one['terminal']}/{one['device']}  {one['kind']}  {port}  line {line}")
        if one["speed"] not in (None, one["baud"]):
            print(f"    the port is set to {one['speed'] or 'an odd speed'}, the device to {one['baud']}: rubbish")
        if one.get("tapped"):
            print(f"    tapped by its payment application; writes that were ignored: {one['violations']}")
        print("    " + " ".join(f"{name}={value}" for name, value in one["settings"].items()))


@app.command("set")
def set_settings(
    ctx: typer.Context,
    device: DeviceName,
    settings: Annotated[list[str], typer.Argument(metavar="NAME=VALUE...", help="As in `hwsim kinds`.")],
    run: Run = None,
    as_json: Json = False,
) -> None:
    """Change what a device is in: hwsim set printer1 paper=out cover=open."""
    wanted = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise Refusal(f"{setting!r} is not a setting; write NAME=VALUE, for example paper=out")
        wanted[name] = value
    _act(ctx, run, as_json, {"device": device, "set": wanted})


FAULT_LIST = "\b\nFAULT is one of\n" + "\n".join(f"  {word:10}{fault.text}" for word, fault in LINE_FAULTS.items())


@app.command(epilog=FAULT_LIST)
def line(
    ctx: typer.Context,
    device: DeviceName,
    fault: Annotated[str, typer.Argument(metavar="FAULT", help="What is to be wrong, see below.")],
    value: Annotated[float | None, typer.Argument(metavar="VALUE", help="How much of it.")] = None,
    kind: Annotated[
        str | None, typer.Option("--kind", metavar="KIND", help="With replug: another device behind the same name.")
    ] = None,
    run: Run = None,
    as_json: Json = False,
) -> None:
    """Make a device's line bad, pull its cable, or make all good again. Faults add up until `good`."""
    _act(ctx, run, as_json, {"device": device, "line": fault, "value": value, "kind": kind})


@app.command()
def withdraw(
    ctx: typer.Context,
    device: DeviceName,
    position: Annotated[int, typer.Argument(metavar="POSITION", help="Cassette, 1 is the topmost.")],
    count: Annotated[int, typer.Argument(metavar="COUNT", help="How many notes.")],
    run: Run = None,
    as_json: Json = False,
) -> None:
    """Let a customer withdraw notes from a tapped dispenser."""
    _act(ctx, run, as_json, {"device": device, "withdraw": {"position": position, "count": count}})


@app.command()
def play(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="SCENARIO", help="A file of [[scenario]] steps (TOML).")],
    run: Run = None,
    as_json: Json = False,
) -> None:
    """Play a scenario on the running server; each step is printed when it is done. Ctrl-C ends it."""
    steps = [step.model_dump(exclude_none=True) for step in load_scenario(file)]
    all_done = True
    for record in ask(_folder(ctx, run), {"do": "play", "steps": steps}):
        print(json.dumps(record) if as_json else _sentence(record), flush=True)
        all_done &= record["act"] != "refused"
    if not all_done:
        raise Refusal("not every step was done; the lines that say refused tell why", NOT_WELL)


@app.command()
def log(ctx: typer.Context, run: Run = None, as_json: Json = False) -> None:
    """Print what was done to the devices since the server started."""
    records = list(ask(_folder(ctx, run), {"do": "log"}))
    if as_json:
        _print_json(records)
    else:
        for record in records:
            print(_sentence(record))


@app.command()
def kinds(ctx: typer.Context, as_json: Json = False) -> None:
    """List the kinds of devices, their settings and the words these can have."""
    scope: Scope = ctx.obj
    found = {
        name: {
            "baud": kind.BAUD,
            "medium": medium(kind),
            "can_be_tapped": name in scope.masters,
            "settings": {setting: _allowed(allowed) for setting, allowed in kind.SETTINGS.items()},
        }
        for name, kind in sorted(scope.kinds.items())
    }
    if as_json:
        _print_json(found)
        return
    for name, kind in sorted(scope.kinds.items()):
        line = f"{kind.BAUD} baud" if medium(kind) in ("serial", "bus") else medium(kind)
        print(f"{name}  {line}" + ("  can be tapped" if name in scope.masters else ""))
        for setting, allowed in kind.SETTINGS.items():
            words = _allowed(allowed)
            print(f"    {setting} = {words if isinstance(words, str) else ' | '.join(words)}")


@app.command("fleet")
def fleet_of_uplinks(
    terminals: Annotated[int, typer.Option("--terminals", min=1, help="How many.")] = 100,
    processes: Annotated[int, typer.Option("--processes", min=1, help="Processes that share them, at least.")] = 4,
    retry: Annotated[float, typer.Option("--retry", min=0.1, help="[uplink] retry of each, seconds.")] = 60.0,
    ramp: Annotated[float, typer.Option("--ramp", min=0.0, help="Seconds in which they are switched on.")] = 60.0,
    work: Annotated[float, typer.Option("--work", min=0.1, help="Seconds that they work in peace.")] = 60.0,
    away: Annotated[float, typer.Option("--away", min=0.0, help="Seconds without a broker.")] = 3.0,
) -> None:
    """Let many terminals with the agent's own uplink work, restart their broker, and show how they return.

    Needs a checkout with mosquitto: hwsim shares no code with the agent, so a program of the checkout does it
    (bench/fleet.py, which has more options).
    """
    root = Path(__file__).parent.parent
    if not (root / "bench/fleet.py").exists():
        raise Refusal("bench/fleet.py is not here: run this in a checkout of the source", NOT_HERE)
    options = {
        "terminals": terminals,
        "processes": processes,
        "retry": retry,
        "ramp": ramp,
        "work": work,
        "away": away,
    }
    words = [f"--{name}={value}" for name, value in options.items()]
    done = subprocess.run([sys.executable, "-m", "bench.fleet", *words], cwd=root, check=False)
    if done.returncode:
        raise Refusal("the fleet did not come to its end; what it printed tells why", NOT_WELL)


add_to(app)


def main(kinds: Kinds = DEVICES, masters: Masters = MASTERS) -> None:
    """The command `hwsim`."""
    try:
        app(obj=Scope(kinds, masters))
    except Refusal as no:
        _say(str(no))
        sys.exit(no.status)
    except KeyboardInterrupt:
        sys.exit(130)


def _folder(ctx: typer.Context, run: Path | None) -> Path:
    scope: Scope = ctx.obj
    return run or scope.run or Path("run")


def _act(ctx: typer.Context, run: Path | None, as_json: bool, act: dict[str, Any]) -> None:
    # Checked here too, so that a mistake is told even when no server runs.
    parse(Act, act)
    for record in ask(_folder(ctx, run), {"do": "act", "act": act}):
        print(json.dumps(record) if as_json else _sentence(record))


def _allowed(allowed: Allowed) -> str | list[str]:
    if isinstance(allowed, tuple):
        return list(allowed)
    return {int: "a whole number", float: "a number", str: "a text"}[allowed]


def _sentence(record: Data) -> str:
    """A record for people: 12:00:05.123 atm1/ups1 set mains=lost."""
    at = record["at"]
    deed = {key: value for key, value in record.items() if key not in ("at", "terminal", "device", "act", "by")}
    deed |= deed.pop("set", {})
    words = " ".join(f"{key}={value}" for key, value in deed.items())
    name = "/".join(part for part in (record["terminal"], record["device"]) if part)
    return (
        f"{time.strftime('%H:%M:%S', time.localtime(at))}.{int(at % 1 * 1000):03d} {name} {record['act']} {words}"
    )


def _print_json(data: Any) -> None:
    print(json.dumps(data, indent=2))


def _say(text: str) -> None:
    print(f"hwsim: {text}", file=sys.stderr)


if __name__ == "__main__":
    main()
