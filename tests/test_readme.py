"""Every command of the README is run, in the order of the page, beside the demo that it describes."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.whole import wait

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", README, re.S) for line in block.strip().splitlines()]
MAKE = {"make demo", "make test"}
"""The demo has a test of its own (tests/test_demo.py), and this is the other one."""
GOES_ON = ("tillwire watch", "python -m agent")
"""What runs until it is stopped; here after two seconds."""
NOT_WELL = {"tillwire devices": {0, 1}, "tillwire diagnose": {0, 1}, "tillwire probe": {3}}
NOT_WELL |= {"tillwire keys status": {1}}
"""Exit codes other than 0 that the page itself explains: the demo's devices have faults, the port is in use, and
no keys are loaded there."""

pytestmark = [pytest.mark.peer("mosquitto"), pytest.mark.timeout(150)]


@pytest.fixture
def beside_the_demo(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of somebody who has run `make demo ARGS=--serve` in an empty clone."""
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    environment = {k: v for k, v in os.environ.items() if k != "HWSIM_RUN"}
    environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HERE": str(tmp_path)}
    command = [sys.executable, "-m", "hwsim.demo", str(ROOT / "deploy/demo"), "--serve"]
    demo = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, env=environment, text=True)
    assert demo.stdout
    try:
        wait("the demo", lambda: "Everything runs" in demo.stdout.readline())  # type: ignore[union-attr]
        yield environment
    finally:
        demo.terminate()
        demo.communicate(timeout=20)


def test_the_readme_names_the_two_commands() -> None:
    assert set(COMMANDS) >= MAKE


def test_every_command_of_the_readme_runs(beside_the_demo: dict[str, str]) -> None:
    here = Path(beside_the_demo["HERE"])
    exported = {}
    for line in COMMANDS:
        if line in MAKE:
            continue
        if line.startswith("export "):
            name, _, value = line.removeprefix("export ").partition("=")
            exported[name] = value
            continue
        command = line.replace("/etc/tillwire/terminal.toml", "own.toml")
        if command != line:
            own = (here / "run/demo/terminal.toml").read_text().replace("./atm1", "./run/demo/atm1")
            own = own.replace('"data"', '"own"').replace("tillwire.sock", "own.sock")
            (here / "own.toml").write_text(own)
        if line.startswith(GOES_ON):
            command = f"timeout --preserve-status --signal=INT 2 {command}"
        done = subprocess.run(
            command.split(),
            cwd=here,
            env=beside_the_demo | exported,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        allowed = next((codes for start, codes in NOT_WELL.items() if line.startswith(start)), {0})
        if line.startswith(GOES_ON):
            allowed = {0, 130}
        assert done.returncode in allowed, f"{line}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, line
