"""How long a push takes from `tillwire push send` until the last of its terminals has committed, and its bytes.

    python -m bench.push --terminals 200

The terminals are the simulated ones of tests/terminals.py: they verify nothing and swap nothing, so that what is
measured is the centre's tool and the broker.
"""

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.drain import broker
from tests.terminals import ORG, Terminals, signed
from tests.whole import free_port, wait

Row = tuple[str, str, str, str]
BIN = Path(sys.executable).parent


def run(folder: Path, terminals: int, stages: str) -> tuple[float, float, int]:
    """Seconds from the start of the command to its end, from the first sent to the last committed; bytes sent."""
    port = free_port()
    with broker(folder, f"broker{terminals}", port, "set_tcp_nodelay true") as _, Terminals(port) as fleet:
        names = [f"ATM-{number:04}" for number in range(terminals)]
        wait("the broker", lambda: _answers(port))
        fleet.add(*names)
        envelope = folder / f"push{terminals}.json"
        envelope.write_bytes(signed({"all": True}, config=_config()))
        where = ["--broker", f"127.0.0.1:{port}", "--stages", stages, "--yes", "--json"]
        begun = time.monotonic()
        done = subprocess.run(
            [BIN / "tillwire", "push", "send", envelope, *where], capture_output=True, text=True, check=True
        )
        took = time.monotonic() - begun
        events = [json.loads(line) for line in done.stdout.splitlines()]
        assert events[-1]["committed"] == terminals
        sent = [event["at"] for event in events if event["event"] == "sent"]
        told = [event["at"] for event in events if event.get("word") == "committed"]
        size = len(envelope.read_bytes()) + len(f"tillwire/v1/{ORG}/{names[0]}/config/desired") + 7
        return took, (max(told) - min(sent)) / 1000, size


def push(folder: Path, terminals: float) -> list[Row]:
    """Send -> all committed, on one terminal and on many."""
    rows = []
    for many, stages in ((1, "rest"), (int(terminals), "1,5,rest")):
        took, until, size = run(folder, many, stages)
        rows.append(
            (
                f"push: send -> committed, {many} simulated terminal{'s' if many > 1 else ''}, stages {stages}",
                f"{until * 1000:.0f} ms",
                f"the whole command {took:.2f} s, of which 1 s is listening for who is there",
                f"{size / 1000:.1f} kB a terminal",
            )
        )
    return rows


def _config() -> str:
    """A configuration as an ATM with ten devices has it, about."""
    device = '[devices.ups{0}]\nkind = "ups"\nport = "/dev/serial/by-path/pci-0000:00:14.0-usb-0:{0}:1.0-port0"\n'
    return "[uplink]\nlinger = 0.0\n" + "".join(device.format(number) for number in range(10))


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.push", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--terminals", type=int, default=200)
    with tempfile.TemporaryDirectory() as folder:
        for row in push(Path(folder), parser.parse_args().terminals):
            print(" | ".join(part for part in row if part))
    return 0


MEASURES = ((push, 200, 20),)

if __name__ == "__main__":
    sys.exit(main())
