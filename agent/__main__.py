"""The daemon: python -m agent --config FILE. It imports neither typer nor rich."""

import argparse
import logging
import os
import signal
import sys
import threading
from pathlib import Path

from agent.config import load
from agent.errors import ConfigError, TillwireError
from agent.service import Service

FINE, USAGE, CANNOT = 0, 2, 3


def main(arguments: list[str] | None = None) -> int:
    """Run the agent until SIGTERM or SIGINT. Returns the exit code: 0 fine, 2 bad configuration, 3 cannot start."""
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
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        service = Service(load(chosen.config), stop=stop)
    except TillwireError as error:
        print(error, file=sys.stderr)
        return USAGE if isinstance(error, ConfigError) else CANNOT
    service.run()
    return FINE


if __name__ == "__main__":
    sys.exit(main())
