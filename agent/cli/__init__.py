"""This file knows the `tillwire` command: its groups, and how every failure becomes a sentence and an exit code.

    0  fine
    1  something is not well: a device silent, a fault open, the ledger broken, a key or push refused
    2  usage, also a configuration that is not right
    3  cannot be done here: the agent is not running, no permission, a port that is missing
    70 a bug of ours; 130 Ctrl-C

Data goes to stdout, talk to stderr. It reaches the agent only through its socket. What is slow to import (rich,
pydantic, the drivers) is imported by the command that needs it.
"""

import sys
from typing import Annotated

import typer

from agent.cli import (
    accounts,
    config,
    devices,
    diagnose,
    exposed,
    keyroom,
    keys,
    ledger,
    printing,
    probe,
    push,
    rollout,
    watch,
)
from agent.errors import ConfigError, ControlError, CryptoError, PushRefused, TillwireError

app = typer.Typer(
    name="tillwire",
    help="The technician's command line of Tillwire, the agent that watches the devices of this terminal.",
    epilog="Example: tillwire devices",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
devices.join(app)
watch.join(app)
app.add_typer(ledger.app)
diagnose.join(app)
probe.join(app)
app.add_typer(config.app)
app.add_typer(keyroom.app)
app.add_typer(keys.app)
app.add_typer(accounts.app)
rollout.join(push.app)
app.add_typer(push.app)


def _tell_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        printing.line(f"tillwire {version('tillwire')}")
        raise typer.Exit()


@app.callback()
def tillwire(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Say the version and end.")
    ] = False,
) -> None:
    """The technician's command line of Tillwire, the agent that watches the devices of this terminal."""


def main() -> None:
    """Run the command and end the process with its exit code."""
    sys.exit(run())


def run() -> int:
    """Run the command of sys.argv; returns its exit code."""
    for stream in (sys.stdout, sys.stderr):
        # a terminal that cannot show Chinese shows question marks, never a traceback
        getattr(stream, "reconfigure", lambda **_: None)(errors="replace")
    try:
        exposed.guard(sys.argv[1:])  # before anything parses a word, and repeats it
        app()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except TillwireError as error:
        printing.say(f"tillwire: {error}")
        return _status(error)
    except Exception:
        import traceback

        traceback.print_exc()
        printing.say("tillwire: this is a bug of ours: please send the lines above to those who maintain Tillwire")
        return 70
    return 0


def _status(error: TillwireError) -> int:
    match error:
        case ControlError(status=status):
            return status
        case ConfigError():
            return 2
        case CryptoError() | PushRefused():
            return 1
        case _:
            return 3
