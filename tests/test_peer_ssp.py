"""The host library `encrypted-smiley-secure-protocol` checks the simulated note acceptor: who it is, a note, one
that is given back, a full stacker, fraud, jams, the cashbox, and a reset."""

import json
import os
import queue
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.strangers import NPM_PEERS, PROGRAMS, ROOT
from tests.whole import Site, site, wait

pytestmark = [pytest.mark.peer(".npm-peers")]
FLEET = """
run_dir = "."
[terminals.atm1.devices.acceptor1]
kind = "acceptor"
set = { serial = 1223551, values = "5 10 20", stacked = 17, rejected = 3, seconds = 1.2 }
"""


class Host:
    """The library as a process: tests/peers/ssp/host.js says each reply and each event as a line of JSON."""

    def __init__(self, port: Path) -> None:
        script = str(ROOT / "tests/peers/ssp/host.js")
        self.process = subprocess.Popen(
            [str(PROGRAMS[".npm-peers"][0]), script, str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "NODE_PATH": str(NPM_PEERS)},
        )
        # The library misses a reply that comes too soon, and asks again after half a second: events may come late.
        self._replies: queue.Queue[dict[str, Any]] = queue.Queue()
        self._events: queue.Queue[dict[str, Any]] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.reply("open")

    def ask(self, command: str, **options: Any) -> Any:
        """The library's reply to a command."""
        assert self.process.stdin
        print(command, json.dumps(options) if options else "", file=self.process.stdin, flush=True)
        return self.reply(command)

    def reply(self, command: str) -> Any:
        return self._replies.get(timeout=20)[command]

    def event(self, name: str) -> dict[str, Any]:
        """The next event of that name; those before it are passed over."""
        while (event := self._events.get(timeout=20))["name"] != name:
            pass
        return event

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            said = json.loads(line)
            if "event" in said:
                self._events.put(said["event"])
            else:
                self._replies.put(said)


@contextmanager
def host(terminal: Site) -> Iterator[Host]:
    running = Host(terminal.folder / "atm1" / "acceptor1")
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait(10)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path, fleet=FLEET) as running:
        running.start("hwsim")
        wait("the port", (tmp_path / "atm1" / "acceptor1").exists)
        yield running


def test_the_library_reads_who_the_acceptor_is(terminal: Site) -> None:
    with host(terminal) as library:
        assert library.ask("SYNC")["success"]
        assert not library.ask("HOST_PROTOCOL_VERSION", version=9)["success"]
        assert library.ask("HOST_PROTOCOL_VERSION", version=6)["success"]
        setup = library.ask("SETUP_REQUEST")["info"]
        assert (setup["unit_type"], setup["protocol_version"]) == ("Banknote validator", 6)
        assert (setup["channel_value"], setup["expanded_channel_value"]) == ([5, 10, 20], [5, 10, 20])
        assert setup["expanded_channel_country_code"] == ["EUR"] * 3
        assert library.ask("GET_SERIAL_NUMBER")["info"]["serial_number"] == 1223551  # 0012AB7F: stuffed
        assert library.ask("GET_FIRMWARE_VERSION")["info"]["version"] == "NV02004141498000"
        counters = library.ask("GET_COUNTERS")["info"]
        assert (counters["stacked"], counters["rejected"]) == (17, 3)


def test_the_library_takes_a_note_and_hears_of_every_trouble(terminal: Site) -> None:
    with host(terminal) as library:
        for command, options in (
            ("SYNC", {}),
            ("HOST_PROTOCOL_VERSION", {"version": 6}),
            ("SETUP_REQUEST", {}),
            ("SET_CHANNEL_INHIBITS", {"channels": [1, 1, 1]}),
            ("ENABLE", {}),
        ):
            assert library.ask(command, **options)["success"], command
        library.event("SLAVE_RESET")
        terminal.act(device="acceptor1", set={"insert": 2})
        assert library.event("CREDIT_NOTE")["channel"] == 2
        library.event("NOTE_STACKED")
        terminal.act(device="acceptor1", set={"reject": "1D"})
        library.event("NOTE_REJECTING")
        library.event("NOTE_REJECTED")
        assert library.ask("LAST_REJECT_CODE")["info"]["name"] == "UNABLE_TO_STACK"
        terminal.act(device="acceptor1", set={"insert": 9})
        library.event("NOTE_REJECTED")
        terminal.act(device="acceptor1", set={"cheat": 3})
        assert library.event("FRAUD_ATTEMPT")["channel"] == 3
        for changes, event in (
            ({"stacker": "full"}, "STACKER_FULL"),
            ({"cashbox": "out"}, "CASHBOX_REMOVED"),
            ({"cashbox": "in"}, "CASHBOX_REPLACED"),
            ({"jam": "safe"}, "SAFE_NOTE_JAM"),
            ({"jam": "unsafe"}, "UNSAFE_NOTE_JAM"),
            ({"jam": "none", "path": "open"}, "NOTE_PATH_OPEN"),
        ):
            terminal.act(device="acceptor1", set=changes)
            library.event(event)
        counters = library.ask("GET_COUNTERS")["info"]
        assert (counters["stacked"], counters["rejected"]) == (18, 5)
        assert library.ask("RESET")["success"]
        library.event("SLAVE_RESET")
        library.event("DISABLED")
