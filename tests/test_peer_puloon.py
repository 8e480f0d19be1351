"""The client library `puloon` checks the simulated dispenser: status, dispense, last status, purge, one error."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.strangers import run_peer
from tests.whole import Site, site, wait

pytestmark = [pytest.mark.peer(".venv-peers")]
FLEET = """
run_dir = "."
[terminals.atm1.devices.dispenser1]
kind = "dispenser"
set = { notes1 = 500, notes2 = 500, notes3 = 2, near_end = 50, cassette4 = "out", rejects = 1 }
"""
SCRIPT = """
import json, sys, serial
from puloon import PuloonException, PuloonLCDM4000
dispenser = PuloonLCDM4000(serial.Serial(sys.argv[1], 9600))
try:
    print(json.dumps(getattr(dispenser, sys.argv[2])(*map(int, sys.argv[3:])).as_dict()))
except PuloonException as error:
    print(json.dumps({"refused": str(error), **vars(error)["response"].as_dict()}))
"""


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path, fleet=FLEET) as running:
        running.start("hwsim")
        wait("the port", (tmp_path / "atm1" / "dispenser1").exists)
        yield running


def ask(terminal: Site, method: str, *counts: int) -> dict[str, Any]:
    port = terminal.folder / "atm1" / "dispenser1"
    answer: dict[str, Any] = json.loads(run_peer(SCRIPT, str(port), method, *map(str, counts)))
    return answer


def counts(answer: dict[str, Any]) -> list[tuple[int, int]]:
    return [(answer[f"exit{n}"], answer[f"reject{n}"]) for n in (1, 2, 3, 4)]


def test_puloon_sees_present_near_end_and_absent_cassettes(terminal: Site) -> None:
    seen = ask(terminal, "status")
    assert [seen[f"type{n}"] for n in (1, 2, 3, 4)] == [1, 2, 3, 0]
    assert [seen[f"stat{n}"] & 0x0C for n in (1, 2, 3, 4)] == [0x04, 0x04, 0x0C, 0x00]
    assert (seen["error"], seen["disp"] & 0x1F) == (0, 0)


def test_puloon_dispenses_asks_for_the_last_result_and_purges(terminal: Site) -> None:
    paid = ask(terminal, "dispense", 10, 3)
    assert counts(paid) == [(10, 1), (3, 1), (0, 0), (0, 0)]
    assert counts(ask(terminal, "last_status")) == counts(paid)
    assert counts(ask(terminal, "purge")) == [(0, 0)] * 4


def test_puloon_is_told_of_a_partial_delivery(terminal: Site) -> None:
    terminal.act(device="dispenser1", set={"rejects": "0"})
    partial = ask(terminal, "dispense", 0, 0, 5)
    assert "Bill Pick Up Error" in partial["refused"]
    assert counts(partial) == [(0, 0), (0, 0), (2, 0), (0, 0)]
    assert counts(ask(terminal, "last_status")) == counts(partial)
