"""Programs that others wrote check Modbus: mbpoll and minimalmodbus our panel, and pymodbus's server our driver."""

import json
import os
import re
import subprocess
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from agent.drivers.modbus import Modbus, ModbusLineOptions
from agent.drivers.panel import Input, PanelOptions, Register
from tests.shared import Live
from tests.strangers import PEERS, PROGRAMS, run_peer
from tests.whole import Site, site, wait

FLEET = """
run_dir = "."
[terminals.atm1.devices.panel1]
kind = "modbus"
set = { safe_door = "open", tamper = "on", seismic = "on", smoke = "on", temperature = 23.5, humidity = -1.0 }
"""
MASTER = """
import json, sys, minimalmodbus
from minimalmodbus import IllegalRequestError, LocalEchoError, ModbusException
panel = minimalmodbus.Instrument(sys.argv[1], int(sys.argv[2]))
panel.serial.baudrate, panel.serial.timeout = 9600, 1.0
try:
    print(json.dumps(getattr(panel, sys.argv[3])(*json.loads(sys.argv[4]))))
except ModbusException as error:
    print(json.dumps(type(error).__name__))
"""
# Two slaves, 1 and 7. A line `1 2 0 1` on its standard input: slave, function, place, value.
SERVER = """
import asyncio, sys
from pymodbus import FramerType
from pymodbus.server import ModbusSerialServer
from pymodbus.simulator import DataType, SimData, SimDevice

def slave(number):
    bits = [[SimData(0, values=[False] * 16, datatype=DataType.BITS)] for _ in "cd"]
    words = [[SimData(0, values=[0] * 8, datatype=DataType.REGISTERS)] for _ in "hi"]
    return SimDevice(number, (*bits, *words))

async def main():
    server = ModbusSerialServer([slave(1), slave(7)], framer=FramerType.RTU, port=sys.argv[1], baudrate=9600)
    await server.serve_forever(background=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        number, function, place, value = map(int, line.split())
        await server.async_setValues(number, function, place, [value if function == 4 else bool(value)])

asyncio.run(main())
"""


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path, fleet=FLEET) as running:
        running.start("hwsim")
        wait("the port", (tmp_path / "atm1" / "panel1").exists)
        yield running


def mbpoll(terminal: Site, *arguments: str) -> tuple[dict[int, int], str]:
    """{place: value} and all that mbpoll says. Its references are those on the wire (-0)."""
    line = ["-m", "rtu", "-b", "9600", "-P", "none", "-0", "-1", "-o", "1"]
    port = str(terminal.folder / "atm1" / "panel1")
    command = [str(PROGRAMS["mbpoll"][0]), *line, *arguments[:-1], port, *arguments[-1].split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    said = done.stdout + done.stderr
    values = re.findall(r"^\[(\d+)\]:\s+(-?\d+)(?: \((-?\d+)\))?", said, re.MULTILINE)
    return {int(place): int(signed or value) for place, value, signed in values}, said


def ask(terminal: Site, slave: int, method: str, *arguments: int) -> object:
    """What minimalmodbus makes of the panel's answer; the name of its error if it is one."""
    port = str(terminal.folder / "atm1" / "panel1")
    return json.loads(run_peer(MASTER, port, str(slave), method, json.dumps(arguments)))


@pytest.mark.peer("mbpoll")
def test_mbpoll_reads_the_simulated_panel_and_switches_a_coil(terminal: Site) -> None:
    assert mbpoll(terminal, "-t", "1", "-r", "0", "-c", "8", "")[0] == dict(enumerate((1, 0, 1, 1, 0, 0, 0, 1)))
    assert mbpoll(terminal, "-t", "3", "-r", "0", "-c", "2", "")[0] == {0: 235, 1: -10}
    assert mbpoll(terminal, "-t", "4", "-r", "0", "-c", "2", "")[0] == {0: 235, 1: -10}
    assert "Written 1 reference" in mbpoll(terminal, "-t", "0", "-r", "2", "1")[1]
    assert mbpoll(terminal, "-t", "0", "-r", "0", "-c", "4", "")[0] == {0: 0, 1: 0, 2: 1, 3: 0}
    assert "Illegal data address" in mbpoll(terminal, "-t", "4", "-r", "99", "-c", "1", "")[1]
    assert "timed out" in mbpoll(terminal, "-a", "2", "-t", "1", "-r", "0", "-c", "1", "")[1]
    terminal.act(device="panel1", set={"safe_door": "closed"})
    assert mbpoll(terminal, "-t", "1", "-r", "0", "-c", "1", "")[0] == {0: 0}


@pytest.mark.peer(".venv-peers")
def test_minimalmodbus_reads_the_simulated_panel_and_switches_a_coil(terminal: Site) -> None:
    assert ask(terminal, 1, "read_bits", 0, 8, 2) == [1, 0, 1, 1, 0, 0, 0, 1]
    assert ask(terminal, 1, "read_registers", 0, 2, 4) == [235, 65526]
    assert ask(terminal, 1, "write_bit", 2, 1, 5) is None
    assert ask(terminal, 1, "read_bits", 0, 4, 1) == [0, 0, 1, 0]
    assert ask(terminal, 1, "read_registers", 99, 1, 3) == "IllegalRequestError"
    assert ask(terminal, 1, "write_register", 0, 1, 0, 6) == "IllegalRequestError"
    assert ask(terminal, 2, "read_bits", 0, 1, 2) == "NoResponseError"


@pytest.mark.peer(".venv-peers")
def test_our_driver_reads_and_switches_two_slaves_of_a_pymodbus_server(tmp_path: Path) -> None:
    own = {
        "inputs": {"safe_door": Input(0), "seismic": Input(7, invert=True)},
        "registers": {"ambient.temperature": Register(0, scale=0.1, signed=True)},
        "outputs": {"siren": 2},
    }
    wrong = {"inputs": {"safe_door": Input(0)}, "registers": {"ambient.humidity": Register(90, function=3)}}
    devices = {
        "panel1": PanelOptions(1, **own),  # type: ignore[arg-type]
        "panel7": PanelOptions(7, **wrong),  # type: ignore[arg-type]
    }
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    log = (tmp_path / "server.log").open("ab")
    server = subprocess.Popen(
        [str(PEERS), "-c", SERVER, os.ttyname(theirs)], stdin=subprocess.PIPE, text=True, stderr=log, stdout=log
    )
    assert server.stdin
    try:
        _converse(Live(Modbus(ModbusLineOptions(), devices), ours), server.stdin)
    finally:
        server.kill()
        server.communicate()
        os.close(ours)
        os.close(theirs)


def _converse(live: Live, server: IO[str]) -> None:
    def tell(*numbers: int) -> None:
        print(*numbers, file=server, flush=True)

    live.until("the first answer", lambda: live.value("panel1", "link.state") == "up")
    live.until("a closed door", lambda: live.value("panel1", "safe_door") == "closed")
    live.until("the sensor", lambda: live.value("panel1", "seismic") == "on")
    tell(1, 2, 0, 1)
    tell(1, 2, 7, 1)
    tell(1, 4, 0, 65526)
    live.until("an open door", lambda: live.value("panel1", "safe_door") == "open")
    live.until("a quiet sensor", lambda: live.value("panel1", "seismic") == "off")
    live.until("the cold", lambda: live.value("panel1", "ambient.temperature") == -1.0)
    assert live.value("panel7", "safe_door") == "closed"
    live.until("the refusal", lambda: live.value("panel7", "device.error") == "software")
    assert "exception 02 to holding register 90" in live.raw("panel7", "device.error")
    live.perform("panel1", "switch_on", output="siren")
    live.until("the siren", lambda: live.outcomes)
    assert [outcome.result for outcome in live.outcomes] == ["done"]
    assert live.value("panel1", "link.state") == "up"
    assert live.value("panel7", "link.state") == "up"
