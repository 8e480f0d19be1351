"""The demo keeps its promises, whole, with the broker that is installed; and begins with the embedded one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.whole import BIN

ROOT = Path(__file__).parent.parent
pytestmark = [pytest.mark.timeout(150)]


@pytest.mark.peer("mosquitto")
def test_the_demo_ends_with_nothing_lost_and_nothing_doubled(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hwsim.demo", str(ROOT / "deploy/demo"), "--run", str(tmp_path / "r")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    for said in (
        "paper.receipt is low, was full",
        "paper.receipt is out, was low",
        "cassette.1.state is low, was ok",
        "cassette.1.state is empty (inferred), was low",
        "mains is lost, was ok",
        "mains is ok, was lost",
        "FAULT link.missing",
        "no longer to be believed",
        "broker: mosquitto",
        "verified: ",
        "All promises kept.",
    ):
        assert said in done.stdout, f"{said!r} is not in\n{done.stdout}"
    assert "no answer" not in done.stdout
    [made], [verified] = (re.findall(rf"{what} +(\d+)", done.stdout) for what in ("rows made", "ledger +verified:"))
    assert made == verified, "the rows with which an agent ends are verified too"


def test_without_mosquitto_the_embedded_broker_does(tmp_path: Path) -> None:
    script = (
        "import hwsim.demo, sys; hwsim.demo.MOSQUITTO = None; hwsim.demo.END = 4.0; hwsim.demo.OUTAGE = (1.0, 2.0);"
    )
    command = [sys.executable, "-c", script + " sys.exit(hwsim.demo.main())", str(ROOT / "deploy/demo")]
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run(
        [*command, "--run", str(tmp_path / "r")],
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
        env=environment,
    )
    assert "embedded (amqtt, MQTT 3.1.1)" in done.stdout, done.stderr
    assert "printer1: paper.receipt is low, was full" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0, done.stdout + done.stderr
