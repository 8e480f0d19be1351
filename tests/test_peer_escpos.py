"""python-escpos checks the simulated printer, on a pty and on TCP."""

import json
from functools import partial
from pathlib import Path

import pytest

from tests.strangers import run_peer
from tests.whole import answers, free_port, site, wait

pytestmark = [pytest.mark.peer(".venv-peers")]

SCRIPT = """
import json, sys
from escpos.printer import Network, Serial
where = sys.argv[1]
printer = Network("127.0.0.1", port=int(where)) if where.isdigit() else Serial(where, 9600, timeout=0.3)
raw = [printer.query_status(bytes((0x10, 0x04, n))).hex() for n in (1, 2, 3, 4)] if not where.isdigit() else []
print(json.dumps([printer.is_online(), printer.paper_status(), raw]))
printer.close()
"""


@pytest.mark.parametrize("line", ["pty", "tcp"])
def test_python_escpos_reads_the_simulated_printer(tmp_path: Path, line: str) -> None:
    port = free_port()
    fleet = 'run_dir = "."\n[terminals.atm1.devices.printer1]\nkind = "printer"\n'
    with site(tmp_path, fleet=fleet + (f"tcp = {port}\n" if line == "tcp" else "")) as terminal:
        terminal.start("hwsim")
        wait("hwsim", partial(answers, tmp_path / "control.sock"))
        where = str(port) if line == "tcp" else str(tmp_path / "atm1" / "printer1")
        for settings, online, paper, raw in (
            ({"paper": "full"}, True, 2, ["12", "12", "12", "12"]),
            ({"paper": "low"}, True, 1, ["12", "12", "12", "1e"]),
            ({"paper": "out"}, False, 0, ["1a", "32", "12", "7e"]),
            ({"paper": "full", "cover": "open"}, False, 2, ["1a", "16", "12", "12"]),
            ({"cover": "closed", "error": "cutter"}, False, 2, ["1a", "52", "1a", "12"]),
        ):
            terminal.act(device="printer1", set=settings)
            seen = json.loads(run_peer(SCRIPT, where))
            assert seen == [online, paper, raw if line == "pty" else []], settings
