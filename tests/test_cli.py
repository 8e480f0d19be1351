"""`tillwire` as a technician meets it: the real command against the real agent and the real simulator."""

import hashlib
import json
import os
import pty
import re
import select
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.cli import asking
from agent.cli.devices import well
from agent.errors import ControlError
from hwsim.control import ask
from tests.test_cli_alone import BIN, CONFIG, PATIENCE, clean, tillwire, until

COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-7][0-9;]*m")

FLEET = """
run_dir = "run"
[terminals.atm1.devices.ups1]
kind = "ups"
[terminals.atm1.devices.dispenser1]
kind = "dispenser"
[terminals.atm1.devices.spare]
kind = "ups"
"""


class Site:
    """A simulator, an agent, and the command line pointed at it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.config = folder, folder / "agent.toml"
        self.config.write_text(CONFIG)
        (folder / "fleet.toml").write_text(FLEET)
        self.simulator = self._start("hwsim", BIN / "hwsim", "serve", folder / "fleet.toml")
        self.start_agent()

    def start_agent(self) -> None:
        self.agent = self._start("agent", sys.executable, "-m", "agent", "--config", self.config)

    def _start(self, name: str, *command: str | Path) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)

    def stop(self) -> None:
        for process in (self.agent, self.simulator):
            process.terminate()
            process.wait(20)

    def __call__(self, *words: str | Path, said: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        return tillwire(*words, said=said, TILLWIRE_CONFIG=str(self.config), **env)

    def data(self, *words: str, **env: str) -> Any:
        return json.loads(self(*words, "--json", **env).stdout)

    def rows(self) -> list[dict[str, Any]]:
        return [entry["row"] for entry in self.data("ledger", "tail", "-n", "100000")["rows"]]

    def report(self) -> list[dict[str, Any]]:
        """Every device as the agent tells of it now, empty without one. Whoever waits asks here: a command takes a
        hundred times as long."""
        try:
            return list(asking.ask_once(self.folder / "c.sock", {"do": "devices"})["devices"])
        except ControlError:
            return []

    def known(self) -> set[str]:
        """The devices of which the ledger has the first contact."""
        answers = asking.ask(self.folder / "c.sock", {"do": "ledger", "tail": 100})
        rows = (answer.get("row", {}) for answer in answers)
        return {row["device"] for row in rows if row.get("kind") == "known"}

    def is_well(self) -> bool:
        """Whether `tillwire devices` would end with 0."""
        return bool(report := self.report()) and all(map(well, report))

    def point(self, device: str, point: str) -> dict[str, Any]:
        [found] = (one for one in self.report() if one["name"] == device)
        return next(known for known in found["points"] if known["point"] == point)

    def act(self, **what: Any) -> None:
        """One act on a simulated device."""
        list(ask(self.folder / "run", {"do": "act", "act": what}))

    def popen(self, *words: str, **streams: Any) -> subprocess.Popen[str]:
        env = clean(TILLWIRE_CONFIG=str(self.config))
        return subprocess.Popen([BIN / "tillwire", *words], text=True, env=env, stderr=subprocess.PIPE, **streams)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("site"))
    try:
        until(site.is_well)
        until(lambda: {"ups1", "dispenser1"} <= site.known())
        yield site
    finally:
        site.stop()


# what a technician sees


def test_a_healthy_terminal_at_a_glance(site: Site) -> None:
    done = site("devices")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^ATM-0001 of coop ", done.stdout)
    assert re.search(r"^ups1  ups at .*   link up$", done.stdout, re.M)
    assert re.search(r"^  mains +ok +\d+ s", done.stdout, re.M)
    assert re.search(r"^  input.voltage +[\d.]+ V +\d+ s", done.stdout, re.M)
    assert done.stdout.endswith("all is well\n")
    one = site("devices", "ups1")
    assert "dispenser1" not in one.stdout


def test_a_silent_device_is_unknown_and_its_fault_is_explained_in_both_languages(site: Site) -> None:
    site.act(device="ups1", line="cut")
    try:
        until(lambda: site.point("ups1", "mains")["unknown"])
        english, chinese = site("devices", "ups1"), site("devices", LANG="zh_CN.UTF-8")
        assert english.returncode == chinese.returncode == 1
        assert re.search(r"link silent$", english.stdout, re.M)
        assert re.search(r"^  mains +UNKNOWN \(was ok\)", english.stdout, re.M)
        assert "MAJOR the device does not answer" in english.stdout
        assert "owner: branch   do: check that it is switched on" in english.stdout
        assert english.stdout.endswith("not well: ups1\n")
        assert "设备无应答" in chinese.stdout
        assert "负责: 网点" in chinese.stdout
        assert "设备无应答" not in site("devices", "--lang", "en", LANG="zh_CN.UTF-8").stdout
        [device] = site.data("devices", "ups1")["devices"]
        mains = next(point for point in device["points"] if point["point"] == "mains")
        assert (mains["value"], mains["was_value"], mains["unknown"]) == (None, "ok", True)
        assert site("devices", "dispenser1").returncode == 0
    finally:
        site.act(device="ups1", line="good")
        until(site.is_well)


def test_a_terminal_that_knows_no_unicode_gets_question_marks_and_no_traceback(site: Site) -> None:
    done = site("ledger", "tail", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")


# the ledger


def test_the_ledger_as_rows_and_as_a_chain_that_anyone_can_recompute(site: Site) -> None:
    found = site.data("ledger", "tail", "-n", "100000")
    assert [entry["row"]["seq"] for entry in found["rows"]] == list(range(1, found["head"] + 1))
    before = b""
    for entry in found["rows"]:
        row = json.dumps(entry["row"], sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        if before:
            assert hashlib.sha256(before + row).hexdigest() == entry["hash"]
        before = bytes.fromhex(entry["hash"])
    assert found["hash"] == before.hex()
    assert len(site.data("ledger", "tail", "-n", "2")["rows"]) == 2
    text = site("ledger", "tail", "-n", "100000").stdout
    assert re.search(r"^ +1  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d +start: ", text, re.M)


def test_one_row(site: Site) -> None:
    assert site.data("ledger", "show", "1")["row"]["kind"] == "start"
    assert re.search(r"^hash +[0-9a-f]{64}$", site("ledger", "show", "1").stdout, re.M)
    done = site("ledger", "show", "99999999")
    assert done.returncode == 2
    assert "there is no row 99999999: the last is" in done.stderr


def test_verify_with_and_without_the_agent(site: Site, tmp_path: Path) -> None:
    assert site("ledger", "verify").stdout.startswith("good: ")
    copy = tmp_path / "store.db"
    with sqlite3.connect(site.folder / "data/store.db") as db, sqlite3.connect(copy) as other:
        db.backup(other)
    good = tillwire("ledger", "verify", "--offline", "--store", tmp_path, "--json")
    assert good.returncode == 0, good.stderr
    assert json.loads(good.stdout)["verified"] >= 3
    with sqlite3.connect(copy) as other:
        other.execute("UPDATE ledger SET row = replace(row, 'known', 'knawn') WHERE seq = 2")
        other.execute("UPDATE ledger SET row = replace(row, '\"boot\"', '\"bOOt\"') WHERE seq = 3")
    broken = tillwire("ledger", "verify", "--store", copy)
    assert broken.returncode == 1
    assert re.match(r"BROKEN at row [23]: ", broken.stdout)
    assert "evidence" in broken.stdout


# watching


def test_watching_through_a_pipe_is_a_line_per_event(site: Site) -> None:
    with (
        site.popen("watch", "ups1", "--json", stdout=subprocess.PIPE) as machine,
        site.popen("watch", stdout=subprocess.PIPE) as person,
    ):
        assert machine.stdout
        assert person.stdout
        assert person.stderr
        first = json.loads(machine.stdout.readline())
        assert [device["name"] for device in first["devices"]] == ["ups1"]
        assert "watching ATM-0001" in person.stderr.readline()
        site.act(device="dispenser1", set={"cassette4": "out"})
        until(lambda: site.point("dispenser1", "cassette.4.state")["value"] == "missing")
        site.act(device="ups1", set={"mains": "lost"})
        wanted = {"kind": "change", "device": "ups1", "point": "mains", "value": "lost", "was": "ok"}
        for line in machine.stdout:
            assert "dispenser1" not in line
            if wanted.items() <= json.loads(line).get("row", {}).items():
                break
        for line in person.stdout:
            if "mains: ok → lost" in line:
                break
        site.act(device="ups1", set={"mains": "ok"})
        site.act(device="dispenser1", set={"cassette4": "in"})
        for process in (machine, person):
            process.send_signal(signal.SIGINT)
            process.stdout.read()  # type: ignore[union-attr]
            assert process.wait(PATIENCE) == 130
            assert process.stderr.read() == ""  # type: ignore[union-attr]
    until(site.is_well)


def on_a_terminal(site: Site, *words: str, end: bytes = b"", **env: str) -> tuple[int, str]:
    """Run the command on a terminal of its own; Ctrl-C once `end` was seen. Returns (exit code, screen)."""
    pid, master = pty.fork()
    if pid == 0:
        os.execve(BIN / "tillwire", ["tillwire", *words], clean(TILLWIRE_CONFIG=str(site.config), **env))  # noqa: S606
    seen, deadline, asked = b"", time.monotonic() + PATIENCE, False
    while time.monotonic() < deadline:
        if select.select([master], [], [], 0.1)[0]:
            try:
                seen += os.read(master, 65536)
            except OSError:
                break
        if end and end in seen and not asked:
            os.write(master, b"\x03")
            asked = True
    os.close(master)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), seen.decode()


def test_the_live_screen_comes_and_goes(site: Site) -> None:
    status, screen = on_a_terminal(site, "watch", end=b"dispenser1")
    assert status == 130
    assert "\x1b[?1049h" in screen
    assert "mains" in screen
    assert screen.rindex("\x1b[?1049l") > screen.rindex("\x1b[?1049h"), "the old screen is back"
    assert "\x1b[?25h" in screen, "and the cursor too"
    assert "Traceback" not in screen


def test_colour_is_for_terminals_without_no_color(site: Site) -> None:
    assert COLOUR.search(on_a_terminal(site, "devices")[1])
    assert not COLOUR.search(on_a_terminal(site, "devices", NO_COLOR="1")[1])
    assert "\x1b" not in site("devices").stdout


def test_nobody_reads_any_more(site: Site) -> None:
    for words in (["ledger", "tail"], ["ledger", "tail", "--json"], ["devices"], ["watch", "--json"]):
        read, write = os.pipe()
        os.close(read)
        with site.popen(*words, stdout=write) as process:
            os.close(write)
            assert process.stderr
            assert process.stderr.read() == "", words
            assert process.wait(PATIENCE) == 0, words


# acting


def test_an_operation_and_its_outcome(site: Site) -> None:
    done = site("perform", "ups1", "self_test")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("done: ")
    assert "waiting for the outcome" in done.stderr
    result = site.data("perform", "ups1", "cancel_test")
    assert result["outcome"]["result"] == "done"
    [asked] = [row for row in site.rows() if row["kind"] == "operation" and row["id"] == result["operation"]]
    assert asked["verb"] == "cancel_test"
    until(site.is_well)


def test_an_unknown_operation_names_the_known_ones(site: Site) -> None:
    done = site("perform", "ups1", "explode")
    assert done.returncode == 2
    assert "self_test" in done.stderr
    assert site("perform", "ups1", "self_test", "loose").returncode == 2


def test_notes_move_only_after_a_yes(site: Site) -> None:
    def purges() -> int:
        return sum(row["kind"] == "operation" and row["verb"] == "purge" for row in site.rows())

    for answer in ("n\n", "", "\n"):
        done = site("perform", "dispenser1", "purge", said=answer)
        assert (done.returncode, done.stdout) == (3, ""), answer
        assert "nothing was sent" in done.stderr
    assert purges() == 0
    assert site("perform", "dispenser1", "purge", said="y\n").returncode == 0
    assert site("perform", "dispenser1", "purge", "--force").returncode == 0
    assert purges() == 2
    until(site.is_well)


# diagnosing and probing


def test_diagnose_with_the_agent_and_without(site: Site) -> None:
    done = site("diagnose")
    assert done.returncode == 0, done.stdout
    assert re.search(r"^  ok    threads +\d+ alive$", done.stdout, re.M)
    assert re.search(r"^end of diagnosis\n  ok    complete +\d+ sections, \d+ facts\n$", done.stdout, re.M)
    offline = site.data("diagnose", "--offline")
    assert offline["sections"][-1]["title"] == "end of diagnosis"
    assert "agent" not in [section["title"] for section in offline["sections"]]


def test_probing_a_free_port_finds_the_device(site: Site) -> None:
    spare = site.folder / "run/atm1/spare"
    done = tillwire("probe", spare, "ups", "--trace", "--seconds", "1.5")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("a ups answers\n")
    assert re.search(r"^  mains +ok", done.stdout, re.M)
    assert "line: > 51 31 0D asks Q1" in done.stderr
    assert "line: < 28 32" in done.stderr
    assert (
        json.loads(tillwire("probe", spare, "ups", "--seconds", "1", "--json").stdout)["points"]["mains"]["value"]
        == "ok"
    )


def test_probing_for_another_kind_or_on_a_cut_line_says_so(site: Site) -> None:
    spare = site.folder / "run/atm1/spare"
    wrong = tillwire("probe", spare, "printer", "--seconds", "1")
    assert (wrong.returncode, wrong.stdout.split(":")[0] in ("silent", "rubbish")) == (1, True)
    site.act(device="spare", line="cut")
    cut = tillwire("probe", spare, "ups", "--seconds", "1", "--json")
    site.act(device="spare", line="good")
    assert cut.returncode == 1
    assert {"link": "silent", "received": 0, "points": {}}.items() <= json.loads(cut.stdout).items()


def test_probing_a_port_that_cannot_be_had_names_why(site: Site) -> None:
    busy = tillwire("probe", site.folder / "run/atm1/ups1", "ups")
    assert busy.returncode == 3
    assert f"({site.agent.pid})" in busy.stderr, "the program that has it is named"
    missing = tillwire("probe", "/dev/no-such-port", "ups")
    assert (missing.returncode, missing.stderr.count("\n")) == (3, 1)
    assert "is not there" in missing.stderr
    assert "there is no kind 'toaster'; it can be" in tillwire("probe", "/dev/null", "toaster").stderr
    assert "printer, ups" in tillwire("probe", "/dev/null", "toaster").stderr


def test_when_the_agent_stops_the_files_still_speak(site: Site) -> None:
    with site.popen("watch", stdout=subprocess.DEVNULL) as watching:
        assert watching.stderr
        assert "watching" in watching.stderr.readline()
        site.agent.terminate()
        assert watching.wait(PATIENCE) == 3
        assert "the agent has stopped" in watching.stderr.read()
    site.agent.wait(PATIENCE)
    try:
        online = site("diagnose")
        assert online.returncode == 3
        assert "--offline" in online.stderr
        offline = site("diagnose", "--offline")
        assert re.search(r"^  warn  control socket .* is not there$", offline.stdout, re.M)
        assert re.search(r"^  ok    chain ", offline.stdout, re.M)
        assert site("ledger", "verify", "--offline").stdout.startswith("good: ")
    finally:
        site.start_agent()
        until(site.is_well)
