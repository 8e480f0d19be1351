"""Many real uplinks on one broker, in several processes; the long form is `hwsim fleet --terminals 2000`."""

import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent


@pytest.mark.peer("mosquitto")
def test_a_fleet_connects_and_comes_back_after_its_broker_was_restarted() -> None:
    command = [str(BIN / "hwsim"), "fleet", "--terminals", "6", "--processes", "2", "--retry", "1"]
    command += ["--ramp", "0.5", "--work", "1", "--away", "0.5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "6 terminals are connected" in done.stdout
    assert "seconds  connections" in done.stdout
    made, acknowledged = next(
        line.split("|")[1].split(" made, ") for line in done.stdout.splitlines() if line.startswith("fleet: rows")
    )
    assert int(made) == int(acknowledged.split()[0]) > 0
