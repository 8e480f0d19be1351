"""The daemon: python -m agent --config FILE. It imports neither typer nor rich."""

import argparse
import logging
import os
import signal
import sys
import threading
from pathlib import Path

from agent.errors import ConfigError, TillwireError
from agent.pushing.inforce import begin
from agent.service import Service

FINE, USAGE, CANNOT = 0, 2, 3
TO_END = (signal.SIGTERM, signal.SIGINT)


def main(arguments: list[str] | None = None) -> int:
    """Run the agent until SIGTERM or SIGINT. Returns the exit code: 0 fine, 2 bad configuration, 3 cannot start, 75
    it should have begun again, and could not. If it does, this does not return: the process is a new agent then."""
    parser = argparse.ArgumentParser(prog="python -m agent", description="The Tillwire agent of one terminal.")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the terminal's TOML file")
    parser.add_argument("--verbose", action="store_true", help="log more than changes and failures")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(
        level=logging.DEBUG if chosen.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
    )
    os.umask(0o077)
    stop, told = threading.Event(), threading.Event()

    def end(*_: object) -> None:
        told.set()
        stop.set()

    for number in TO_END:
        signal.signal(number, end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, TO_END)  # one that came while this process began again
    try:
        service = Service(begin(chosen.config), stop=stop)
    except TillwireError as error:
        print(error, file=sys.stderr)
        return USAGE if isinstance(error, ConfigError) else CANNOT
    service.run()
    if service.again:
        signal.pthread_sigmask(signal.SIG_BLOCK, TO_END)  # from now on it is for the new agent, which ends at once
        if not told.is_set():
            return _begin_again()
    return FINE


def _begin_again() -> int:
    """Make a new agent of this process, which keeps its id: nobody has to start it. Returns only if that fails."""
    logging.shutdown()
    try:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - what we were started with
    except OSError as error:
        print(f"the agent cannot begin again ({error}): start it", file=sys.stderr)
        return os.EX_TEMPFAIL


if __name__ == "__main__":
    sys.exit(main())
