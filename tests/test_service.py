"""The daemon: threads that die are started again and said; bad beginnings are one sentence and an exit code."""

import ctypes
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from agent.disk.schema import PAGE
from agent.pushing.inforce import begin
from agent.service import Service
from agent.store import Reader
from tests.whole import Site, site, wait

UPS = '\n[devices.ups1]\nkind = "ups"\nport = "./atm1/ups1"\n'
FLEET = 'run_dir = "."\n[terminals.atm1.devices.ups1]\nkind = "ups"\n'


def kill(thread: threading.Thread) -> None:
    """End a thread as a bug would: an exception out of nowhere."""
    assert thread.ident
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(MemoryError))


def threads(name: str) -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == name]


@pytest.mark.peer("mosquitto")
@pytest.mark.parametrize("name", ["link:ups1", "core", "uplink"])
def test_a_thread_that_dies_is_started_again_and_is_a_row(tmp_path: Path, name: str) -> None:
    with site(tmp_path, devices=UPS, fleet=FLEET) as terminal:
        terminal.configure(UPS, "linger = 1.0\nrefresh = 1.0")  # a thread that waits dies when it wakes
        terminal.start("broker")
        wait("the broker", terminal.broker_answers)
        terminal.start("subscriber")
        terminal.start("hwsim")
        wait("the port", (tmp_path / "atm1/ups1").exists)
        service = Service(begin(tmp_path / "terminal.toml"))
        running = threading.Thread(target=service.run)
        running.start()
        try:
            wait("the UPS", lambda: terminal.published("ups1", "mains") == "ok")
            (victim,) = threads(name)
            kill(victim)
            wait("its death", lambda: not victim.is_alive())
            wait("another", lambda: threads(name))
            wait("the row", lambda: terminal.rows("thread", name=name))
            terminal.act(device="ups1", set={"mains": "lost"})
            wait("a change", lambda: terminal.rows("change", point="mains", value="lost"))
        finally:
            service.stop.set()
            running.join(15.0)
        assert not running.is_alive()
        wait("all rows", terminal.delivered)
        assert terminal.account.mistakes == []


def daemon(config: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "agent", "--config", str(config)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        (lambda text: text.replace("kind", "knid"), 2, "devices.ups1.kind is missing"),
        (lambda text: text + "[", 2, "not valid TOML"),
        (lambda text: text.replace('"data"', '"terminal.toml/data"'), 3, "make it and give it to the agent"),
        (lambda text: text.replace('"tw.sock"', '"' + "x" * 120 + '"'), 3, "shorter than 100 characters"),
    ],
)
def test_a_bad_beginning_is_one_sentence(
    tmp_path: Path, change: Callable[[str], str], status: int, says: str
) -> None:
    path = Site(tmp_path, devices=UPS, fleet=FLEET).configure(UPS)
    path.write_text(change(path.read_text()))
    done = daemon(path)
    assert done.returncode == status, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_missing_configuration_is_one_sentence(tmp_path: Path) -> None:
    done = daemon(tmp_path / "none.toml")
    assert (done.returncode, "cannot be read" in done.stderr) == (2, True)


@pytest.mark.peer("mosquitto")
def test_a_corrupt_store_is_kept_as_evidence_and_named_in_the_new_ledger(tmp_path: Path) -> None:
    with site(tmp_path, devices=UPS, fleet=FLEET) as terminal:
        terminal.start_all()
        wait("the UPS", lambda: terminal.published("ups1", "mains") == "ok")
        terminal.end("agent", signal.SIGKILL)
        (old_epoch, _), *_ = terminal.made()
        store = tmp_path / "data/store.db"
        with sqlite3.connect(store) as db:
            db.execute("UPDATE ledger SET row = '{}' WHERE seq = 1")
        db.close()
        terminal.start("agent")
        row = wait("a new start", lambda: terminal.rows("start")[1:])[0]
        assert "set aside as store.db.aside-" in row["store"]
        assert row["previous"].startswith(old_epoch)
        wait("the UPS", lambda: terminal.published("ups1", "mains") == "ok")
        assert terminal.made()[0][0] != old_epoch


@pytest.mark.peer("mosquitto")
def test_damage_while_running_is_survived(tmp_path: Path) -> None:
    with site(tmp_path, devices=UPS, fleet=FLEET) as terminal:
        terminal.start_all()
        wait("the UPS", lambda: terminal.published("ups1", "mains") == "ok")
        wait("first contact", lambda: terminal.rows("known"))
        with sqlite3.connect(tmp_path / "data/store.db") as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.close()
        with (tmp_path / "data/store.db").open("r+b") as file:
            file.seek(PAGE)
            file.write(os.urandom(40_000))
        answer = terminal.ask(do="ledger", tail=100)
        assert "damaged" in answer.get("error", ""), answer
        terminal.act(device="ups1", set={"mains": "lost"})
        wait("the new ledger", lambda: terminal.rows("store"))
        wait("the state", lambda: terminal.published("ups1", "mains") == "lost")
        assert terminal.tillwire("ledger", "verify").returncode == 0


@pytest.mark.parametrize("what", ["no broker", "no devices", "no port"])
def test_a_stop_is_quick_and_tells_what_was_only_counted_whatever_is_missing(tmp_path: Path, what: str) -> None:
    with site(tmp_path, devices="" if what == "no devices" else UPS, fleet=FLEET) as terminal:
        terminal.start("agent")
        wait("the agent", lambda: (tmp_path / "tw.sock").exists())
        for _ in range(3):
            terminal.ask(do="accounts", act="password", name="nobody", old="a", new="b")
        assert terminal.end("agent") == 0
        assert not (tmp_path / "tw.sock").exists()
    with closing(Reader(tmp_path / "data/store.db")) as reader:
        rows = [json.loads(row) for _, row, _ in reader.rows(0, 100)]
    assert [row["count"] for row in rows if row["kind"] == "account"] == [1, 2]


@pytest.mark.peer("mosquitto")
def test_when_nothing_can_be_stored_the_present_is_shown_and_published_and_all_rows_come_after(
    tmp_path: Path,
) -> None:
    with site(tmp_path, devices=UPS, fleet=FLEET) as terminal:
        terminal.start_all()
        wait("the UPS", lambda: terminal.published("ups1", "mains") == "ok")
        agent = terminal.process("agent")
        _, most = resource.prlimit(agent, resource.RLIMIT_FSIZE)
        resource.prlimit(agent, resource.RLIMIT_FSIZE, (1, most))
        terminal.act(device="ups1", set={"mains": "lost"})
        told = wait("the trouble", lambda: terminal.ask(do="devices")["trouble"])
        assert "nothing can be stored" in told
        wait("the present on site", lambda: terminal.shown("ups1", "mains") == "lost")
        wait("the present at the centre", lambda: terminal.published("ups1", "mains") == "lost")
        assert terminal.rows("change", point="mains", value="lost") == [], "a row is delivered once it is stored"
        wait("the fault", lambda: terminal.account.states["ATM-0001/ups1"].get("faults"))
        said = terminal.tillwire("diagnose").stdout
        assert "nothing can be stored" in said
        resource.prlimit(agent, resource.RLIMIT_FSIZE, (most, most))
        wait("the change", lambda: terminal.rows("change", point="mains", value="lost"))
        (row,) = wait("how long", lambda: terminal.rows("disk", event="stored again"))
        assert (row["dropped"], "cannot be used" in row["why"]) == (0, True)
        assert terminal.ask(do="devices")["trouble"] == ""
        assert terminal.account.mistakes == []


@pytest.mark.peer("mosquitto")
def test_a_device_that_is_taken_out_of_the_configuration_leaves_nothing_behind(tmp_path: Path) -> None:
    with site(tmp_path, devices=UPS, fleet=FLEET) as terminal:
        terminal.start_all()
        terminal.act(device="ups1", set={"health": "failed"})
        wait("the fault", lambda: terminal.rows("fault.raised", device="ups1"))
        wait("the state", lambda: "ATM-0001/ups1" in terminal.account.states)
        terminal.end("agent")
        terminal.configure("")
        terminal.start("agent")
        cleared = wait("the end of its fault", lambda: terminal.rows("fault.cleared", device="ups1"))
        assert cleared[-1]["why"] == "the device is not configured any more"
        wait("no state", lambda: "ATM-0001/ups1" not in terminal.account.states)
        assert terminal.account.mistakes == []
