"""A real `hwsim serve` process with real ptys and sockets, asked over its control socket."""

import json
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import serial

from hwsim.control import ask, socket_of
from tests.serving import FLEET, Running, running, wait_for


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path) as server:
        yield server


def test_ready_tells_every_port_and_the_names_are_links_to_ptys(server: Running) -> None:
    assert server.lines[0] == f"atm1/e1 echo {server.run}/atm1/e1"
    assert server.lines[2].startswith("atm1/net echo socket://127.0.0.1:")
    assert server.lines[-1] == f"READY {server.run}"
    assert os.readlink(server.run / "atm1/e1").startswith("/dev/pts/")
    assert stat.S_IMODE(socket_of(server.run).stat().st_mode) == 0o600


def test_a_device_answers_and_hosts_may_come_and_go(server: Running) -> None:
    for word in (b"one", b"two"):
        with server.open("atm1/e1") as port:
            port.write(word + b"\n")
            assert port.readline() == b"red:" + word + b"\n"


def test_initial_settings_hold_and_show_tells_them(server: Running) -> None:
    shown = server.shown("e2")
    assert shown["settings"] == {"colour": "green", "level": 0}
    assert shown["plugged"] is True
    assert shown["baud"] == shown["speed"] == 9600


def test_a_changed_setting_is_pushed_at_once(server: Running) -> None:
    with server.open("atm1/e1") as port:
        took = []
        for colour in ("green", "red") * 5:
            begun = time.time()
            at = server.act("e2", set={"colour": "red"})["at"]
            assert begun <= at <= time.time()
            at = server.act("atm1/e1", set={"colour": colour})["at"]
            assert port.readline() == b"now " + colour.encode() + b"\n"
            took.append(time.time() - at)
    # Far below the tick of 0.1 s that it must not wait for; the machine may be busy, so the best ones count.
    assert sorted(took)[len(took) // 2] < 0.02


def test_unplug_ends_readers_and_replug_gives_a_fresh_port_under_the_same_name(server: Running) -> None:
    name = server.run / "atm1/e1"
    host = os.open(name, os.O_RDWR | os.O_NOCTTY)
    try:
        server.act("atm1/e1", line="unplug")
        assert not name.is_symlink()
        assert server.shown("atm1/e1")["port"] is None
        readable, _, _ = select.select([host], [], [], 3)
        assert readable
        with suppress(OSError):  # EIO or end of file, as the system likes
            assert os.read(host, 10) == b""
        with pytest.raises(OSError, match="Input/output error"):
            os.write(host, b"x")
        server.act("atm1/e1", set={"colour": "green"})  # the device lives on without its cable
        server.act("atm1/e1", line="replug")
        with server.open("atm1/e1") as port:
            port.write(b"back\n")
            assert port.readline() == b"green:back\n"
    finally:
        os.close(host)


def test_a_host_that_reads_is_woken_by_the_unplugging(server: Running) -> None:
    pull = threading.Timer(0.1, lambda: server.act("atm1/e1", line="unplug"))
    with server.open("atm1/e1") as port:
        pull.start()
        begun = time.monotonic()
        with pytest.raises(serial.SerialException):
            port.read(10)
        assert time.monotonic() - begun < 2
    pull.join()


def test_replug_can_put_another_kind_behind_the_same_name(server: Running) -> None:
    server.act("atm1/e1", line="replug", kind="shout")
    with server.open("atm1/e1", 2400) as port:
        port.write(b"who\n")
        assert port.readline() == b"RED:WHO\n"
    assert server.shown("atm1/e1")["kind"] == "shout"


def test_tcp_answers_ends_at_unplug_and_comes_back_on_the_same_port(server: Running) -> None:
    url = server.shown("net")["port"]
    address = ("127.0.0.1", int(url.rpartition(":")[2]))
    with socket.create_connection(address, timeout=3) as host, host.makefile("rb") as lines:
        host.sendall(b"hel")
        host.sendall(b"lo\n")
        assert lines.readline() == b"red:hello\n"
        server.act("net", line="unplug")
        assert lines.readline() == b""
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, timeout=3)
    server.act("net", line="replug")
    assert server.shown("net")["port"] == url
    with socket.create_connection(address, timeout=3) as host, host.makefile("rb") as lines:
        host.sendall(b"again\n")
        assert lines.readline() == b"red:again\n"


def test_a_host_that_hung_up_costs_nothing(server: Running) -> None:
    port = int(server.shown("net")["port"].rpartition(":")[2])
    for _ in range(5):
        socket.create_connection(("127.0.0.1", port), timeout=3).close()
    process = psutil.Process(server.process.pid)
    before, begun = sum(process.cpu_times()[:2]), time.monotonic()
    server.ask(do="play", steps=[{"at": 1.0, "device": "net", "set": {"level": 1}}])
    share = (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - begun)
    assert share < 0.3, "a closed connection makes the loop spin"


def test_a_tap_shows_both_directions_and_a_write_into_it_is_a_violation(server: Running) -> None:
    with server.open("atm1/tap") as port:
        port.write(b"hello\n")
        wait_for(lambda: server.shown("tap")["violations"] == 1)
        server.act("tap", withdraw={"position": 1, "count": 5})
        assert port.readline() == b"pay 1 5\n"
        assert port.readline() == b"red:pay 1 5\n"
        assert port.readline() == b"thanks\n"
        assert port.readline() == b"red:thanks\n"
    assert server.shown("tap")["busy"] is False


def test_at_another_speed_both_directions_are_rubbish(server: Running) -> None:
    with server.open("atm1/e1", 2400) as port:
        port.timeout = 0.3
        port.write(b"hello hello hello\n")
        assert b"red" not in port.read(100)
        assert server.shown("atm1/e1")["speed"] == 2400
        port.reset_input_buffer()
        server.act("atm1/e1", set={"colour": "green"})
        pushed = port.read(len(b"now green\n"))
        assert len(pushed) == len(b"now green\n")
        assert pushed != b"now green\n"
        port.baudrate = 9600
        port.write(b"\n")  # the end of what the device took for the beginning of a line
        port.timeout = 3
        port.readline()
        port.write(b"hello\n")
        assert port.readline().endswith(b"green:hello\n")


def test_line_faults_on_a_real_port(server: Running) -> None:
    with server.open("atm1/e1") as port:

        def answer(wait: float = 0.3) -> bytes:
            port.timeout = wait
            port.reset_input_buffer()
            port.write(b"0123456789\n")
            return bytes(port.read(100))

        good = b"red:0123456789\n"
        server.act("atm1/e1", line="bytewise")
        pieces = list[bytes]()
        port.write(b"0123456789\n")
        while len(b"".join(pieces)) < len(good):
            assert select.select([port], [], [], 3)[0]
            pieces.append(os.read(port.fileno(), 100))
        assert b"".join(pieces) == good
        assert len(pieces) > len(good) // 2, "the bytes came together"
        checks: list[tuple[str, float | None, Callable[[bytes], bool]]] = [
            ("silent", None, lambda got: got == b""),
            ("cut", None, lambda got: got == b""),
            ("half", None, lambda got: got != good),
            ("damage", None, lambda got: got != good),
            ("noise", 50, lambda got: got != good and b"0123456789\n" in got),
            ("merge", 0.05, lambda got: got == good),
            ("good", None, lambda got: got == good),
        ]
        for word, value, check in checks:
            server.act("atm1/e1", line="good")
            server.act("atm1/e1", line=word, value=value)
            got = answer()
            assert check(got), f"{word}: {got!r}"
            server.act("atm1/e1", line="good")
            port.write(b"\n")  # ends a line that the fault has cut
            wait_for(lambda: port.readline())
        server.act("atm1/e1", line="delay", value=0.2)
        begun = time.monotonic()
        port.timeout = 3
        port.reset_input_buffer()
        port.write(b"late\n")
        assert port.readline() == b"red:late\n"
        assert time.monotonic() - begun >= 0.4, "both directions are late"


def test_a_host_that_does_not_read_stops_nobody(server: Running) -> None:
    with server.open("atm1/e1") as deaf, server.open("atm1/e2") as port:
        for _ in range(50):
            deaf.write(b"x" * 500 + b"\n")
        wait_for(lambda: server.shown("atm1/e1"))
        port.write(b"hello\n")
        # e2 is set to green by the fleet file, and may still be saying so
        assert port.read_until(b"green:hello\n").endswith(b"green:hello\n")


def test_the_scenario_of_the_fleet_file_runs_by_itself_and_is_recorded(tmp_path: Path) -> None:
    scenario = """
[[scenario]]
at = 0.2
device = "e2"
set = { level = 1 }
repeat_every = 0.1
times = 3
[[scenario]]
at = 0.1
device = "e2"
line = "unplug"
"""
    log = tmp_path / "log.jsonl"
    with running(tmp_path, FLEET + scenario, "--log", str(log)) as server:
        begun = time.time()
        records = wait_for(lambda: len(r := server.ask(do="log")) >= 4 and r)
        assert [r["act"] for r in records] == ["line", "set", "set", "set"]
        assert records[0] | {"at": 0} == {
            "at": 0,
            "terminal": "atm1",
            "device": "e2",
            "act": "line",
            "line": "unplug",
            "by": "scenario",
        }
        assert all(abs(r["at"] - begun) < 5 for r in records)
        assert records[3]["at"] - records[1]["at"] == pytest.approx(0.2, abs=0.15)
        assert not (server.run / "atm1/e2").is_symlink()
        assert [json.loads(line) for line in log.read_text().splitlines()] == records


def test_play_tells_each_step_and_ends_when_who_asked_hangs_up(server: Running) -> None:
    steps = [{"at": 0.01 * i, "device": "e2", "set": {"level": i}} for i in range(3)]
    assert [r["set"]["level"] for r in server.ask(do="play", steps=steps)] == [0, 1, 2]
    steps = [{"at": 0, "device": "e2", "line": "good"}, {"at": 0.2, "device": "e2", "set": {"level": 9}}]
    left = ask(server.run, {"do": "play", "steps": steps})
    assert next(left)["act"] == "line"
    left.close()
    list(server.ask(do="play", steps=[{"at": 0.4, "device": "net", "line": "good"}]))
    assert server.shown("e2")["settings"]["level"] == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path) as server, server.open("atm1/e1"):
        server.process.send_signal(number)
        assert server.process.wait(5) == 0
        assert list(server.run.iterdir()) == []


def test_the_folder_of_a_killed_server_is_taken_over_and_that_of_a_live_one_is_not(tmp_path: Path) -> None:
    with running(tmp_path) as killed:
        killed.process.kill()
        killed.process.wait()
    assert (killed.run / "atm1/e2").is_symlink()
    (killed.run / "notes.txt").write_text("mine")
    (killed.run / "data").mkdir()
    smaller = "[terminals.atm1.devices.e1]\nkind = 'echo'\n"
    with running(tmp_path, smaller) as server:
        assert not (server.run / "atm1/e2").is_symlink(), "a stale name may lead to somebody else's pty"
        with server.open("atm1/e1") as port:
            port.write(b"hello\n")
            assert port.readline() == b"red:hello\n"
        second = subprocess.run(
            [sys.executable, "-m", "tests.echo", "serve", str(server.file)],
            capture_output=True,
            text=True,
            timeout=20,
        )
        assert second.returncode == 3
        assert second.stderr == (
            f"hwsim: another hwsim serves {server.run}; stop it, or give another folder with --run\n"
        )
        assert server.shown("e1")["plugged"] is True
    assert sorted(path.name for path in killed.run.iterdir()) == ["data", "notes.txt"], "the rest is not ours"


def test_the_port_starts_raw(server: Running) -> None:
    host = os.open(server.run / "atm1/e1", os.O_RDWR | os.O_NOCTTY)
    try:
        _, output, _, local, _, _, _ = termios.tcgetattr(host)
        assert not output & termios.OPOST
        assert not local & (termios.ECHO | termios.ICANON | termios.ISIG)
    finally:
        os.close(host)
