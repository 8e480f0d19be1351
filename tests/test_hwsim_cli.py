"""The command `hwsim` as a technician and a script meet it."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hwsim.cli import main
from tests.echo import KINDS, MASTERS
from tests.serving import Running, running

Mistake = Callable[..., tuple[int, str, str]]


def hwsim(*words: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.echo", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, **(env or {})},
    )


@pytest.fixture
def mistake(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Mistake:
    """A command that cannot be done, in this process: its exit status, and what it wrote to stdout and stderr."""

    def made(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hwsim", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main(KINDS, MASTERS)
        return int(ended.value.code or 0), *capsys.readouterr()

    return made


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("cli")) as server:
        yield server


def test_the_run_folder_may_stand_before_or_after_the_command_or_in_the_environment(server: Running) -> None:
    wrong = {"HWSIM_RUN": "/nowhere"}
    for done in (
        hwsim("--run", server.run, "show", "--json", env=wrong),
        hwsim("show", "--run", server.run, "--json", env=wrong),
        hwsim("show", "--json", env={"HWSIM_RUN": str(server.run)}),
    ):
        assert done.returncode == 0, done.stderr
        assert [d["device"] for d in json.loads(done.stdout)] == ["e1", "e2", "net", "tap", "e1"]


def test_show_is_one_readable_block_a_device(server: Running) -> None:
    done = hwsim("--run", server.run, "show", "e2")
    assert done.stdout.splitlines() == [
        f"atm1/e2  echo  {server.run}/atm1/e2  line good",
        "    colour=green level=0",
    ]
    assert "writes that were ignored: 0" in hwsim("--run", server.run, "show", "tap").stdout


def test_set_line_withdraw_and_log(server: Running) -> None:
    for words, act in (
        (("set", "atm2/e1", "colour=green", "level=3"), {"act": "set", "set": {"colour": "green", "level": "3"}}),
        (("line", "atm2/e1", "delay", "0.5"), {"act": "line", "line": "delay", "value": 0.5}),
        (("line", "atm2/e1", "replug", "--kind", "echo"), {"act": "line", "line": "replug", "kind": "echo"}),
        (("withdraw", "tap", "1", "5"), {"act": "withdraw", "position": 1, "count": 5}),
    ):
        done = hwsim(*words, "--run", server.run, "--json")
        assert done.returncode == 0, done.stderr
        record = json.loads(done.stdout)
        assert {k: v for k, v in record.items() if k not in ("at", "terminal", "device", "by")} == act
        assert json.loads(hwsim("--run", server.run, "log", "--json").stdout)[-1] == record
    assert (
        hwsim("--run", server.run, "log").stdout.splitlines()[-1].endswith("atm1/tap withdraw position=1 count=5")
    )


def test_play_shows_its_progress(server: Running, tmp_path: Path) -> None:
    file = tmp_path / "drill.toml"
    file.write_text('[[scenario]]\nat = 0\ndevice = "e2"\nset = { level = 4 }\nrepeat_every = 0.1\ntimes = 2\n')
    done = hwsim("play", file, "--run", server.run, "--json")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["set"] for line in done.stdout.splitlines()] == [{"level": 4}] * 2
    assert server.shown("e2")["settings"]["level"] == 4


def test_a_step_that_fails_on_the_way_is_told_and_ends_in_1(server: Running, tmp_path: Path) -> None:
    file = tmp_path / "drill.toml"
    # Only the payment application knows how many cassettes there are, so this passes the check of the file.
    file.write_text('[[scenario]]\nat = 0\ndevice = "tap"\nwithdraw = { position = 9, count = 1 }\n')
    done = hwsim("play", file, "--run", server.run)
    assert done.returncode == 1
    assert "refused why=there is no position 9" in done.stdout
    assert done.stderr == "hwsim: not every step was done; the lines that say refused tell why\n"


def test_kinds_needs_no_server() -> None:
    found = json.loads(hwsim("kinds", "--json").stdout)
    assert found["echo"] == {
        "baud": 9600,
        "medium": "serial",
        "can_be_tapped": True,
        "settings": {"colour": ["red", "green"], "level": "a whole number"},
    }
    assert "    colour = red | green" in hwsim("kinds").stdout.splitlines()


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (("show", "ups9"), 2, "hwsim: there is no device 'ups9'; there are: atm1/e1, atm1/e2, atm1/net, atm1/tap"),
        (("set", "e2", "colour=blue"), 2, "hwsim: colour cannot be 'blue'; it can be: red, green"),
        (("set", "e2", "colour"), 2, "hwsim: 'colour' is not a setting; write NAME=VALUE"),
        (("line", "e2", "explode"), 2, "hwsim: there is no line fault 'explode'; there are: unplug, replug"),
        (("line", "e2", "delay"), 2, "hwsim: delay wants a value in seconds"),
        (("withdraw", "e2", "1", "5"), 2, "hwsim: atm1/e2 has no payment application"),
        (("withdraw", "tap", "0", "5"), 2, "hwsim: withdraw.position: input should be greater than or equal to 1"),
        (("play", "none.toml"), 2, "hwsim: none.toml: cannot be read (No such file or directory)"),
    ],
)
def test_a_mistake_is_one_sentence_on_stderr(
    server: Running, mistake: Mistake, words: tuple[str, ...], status: int, sentence: str
) -> None:
    ended, out, err = mistake("--run", server.run, *words)
    assert (ended, out) == (status, "")
    assert err.startswith(sentence)
    assert err.count("\n") == 1


def test_usage_errors_end_in_2_and_no_server_in_3(tmp_path: Path) -> None:
    assert hwsim("set").returncode == 2
    assert hwsim("fly").returncode == 2
    done = hwsim("show", "--run", tmp_path)
    assert done.returncode == 3
    assert done.stderr == (
        f"hwsim: no hwsim server in {tmp_path};"
        " start one with `hwsim serve FILE`, or give its folder with --run DIR\n"
    )
    assert done.stdout == ""


ONE = '[terminals.atm1.devices.e1]\nkind = "echo"\n'


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[terminals", "not valid TOML"),
        (b"\xff\xfe", "not valid TOML"),
        ("", "terminals is missing"),
        ("[terminals]", "terminals: "),
        ("[terminals.atm1.devices]", "terminals.atm1.devices: "),
        (
            '[terminals.atm1.devices.e1]\nkind = "fax"',
            "terminals.atm1.devices.e1.kind: there is no kind 'fax'; it can be",
        ),
        ("[terminals.atm1.devices.e1]\n", "terminals.atm1.devices.e1.kind is missing"),
        (ONE + "tpc = 1", "terminals.atm1.devices.e1.tpc is not a known key; did you mean tcp?"),
        (ONE + "speed = 1", "known keys are kind, line, set, tapped, tcp"),
        (
            ONE + "tcp = 70000",
            "terminals.atm1.devices.e1.tcp: input should be less than or equal to 65535, not 70000",
        ),
        (
            ONE + "set = { colour = 'blue' }",
            "terminals.atm1.devices.e1.set: colour cannot be 'blue'; it can be: red",
        ),
        (ONE + "set = { size = 1 }", "terminals.atm1.devices.e1.set: no setting 'size'; there are: colour, level"),
        (ONE.replace("e1", '"e 1"'), "'e 1' cannot be a name; use letters"),
        (ONE.replace("e1", '"../e1"'), "'../e1' cannot be a name; use letters"),
        (ONE.replace("echo", "shout") + "tapped = true", "no payment application owns a shout; it can own: echo"),
        (
            ONE + "tcp = 19100\n" + ONE.replace("e1", "e2") + "tcp = 19100",
            "terminals.atm1.devices.e2.tcp: 19100 is already the port of atm1/e1",
        ),
        (ONE + "[[scenario]]\nat = 1\ndevice = 'e9'\nline = 'cut'", "scenario: there is no device 'e9'"),
        (
            ONE + "[[scenario]]\nat = 1\ndevice = 'e1'\nline = 'cutt'",
            "scenario step 1: there is no line fault 'cutt'",
        ),
        (ONE + "[[scenario]]\ndevice = 'e1'\nline = 'cut'", "scenario step 1.at is missing"),
        (
            ONE + "[[scenario]]\nat = 1\ndevice = 'e1'\nset = { colour = 'blue' }",
            "scenario: colour cannot be 'blue'",
        ),
        (ONE + "[[scenario]]\nat = 1\ndevice = 'e1'\nrepeat = 2\nline = 'cut'", "did you mean repeat_every?"),
    ],
)
def test_a_bad_fleet_file_is_one_sentence(
    tmp_path: Path, mistake: Mistake, text: str | bytes, sentence: str
) -> None:
    file = tmp_path / "fleet.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    ended, _, err = mistake("serve", file)
    assert ended == 2
    assert err.startswith(f"hwsim: {file}: ")
    assert sentence in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_missing_fleet_file_and_a_taken_port(tmp_path: Path) -> None:
    done = hwsim("serve", tmp_path / "none.toml")
    assert done.returncode == 2
    assert "cannot be read (No such file or directory)" in done.stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        file = tmp_path / "fleet.toml"
        file.write_text(ONE + f"tcp = {port}\n")
        done = hwsim("serve", file)
    assert done.returncode == 3
    assert done.stderr.startswith(f"hwsim: port {port} cannot be served (Address already in use); free it")
    assert list((tmp_path / "run").iterdir()) == []


def test_a_run_folder_that_cannot_be_used(tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(ONE)
    for run, reason in ((file, "cannot be the run folder"), (tmp_path / ("x" * 120), "AF_UNIX path too long")):
        done = hwsim("serve", file, "--run", run)
        assert done.returncode == 3
        assert reason in done.stderr
        assert done.stderr.count("\n") == 1


def test_ctrl_c_ends_a_play_quietly_and_the_server_lives_on(server: Running, tmp_path: Path) -> None:
    file = tmp_path / "endless.toml"
    file.write_text('[[scenario]]\nat = 0\ndevice = "net"\nset = { level = 1 }\nrepeat_every = 0.05\n')
    player = subprocess.Popen(
        [sys.executable, "-m", "tests.echo", "--run", server.run, "play", file],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert player.stdout is not None
    assert player.stdout.readline()
    player.send_signal(signal.SIGINT)
    _, errors = player.communicate(timeout=10)
    assert b"Traceback" not in errors
    assert player.returncode == 130
    assert server.shown("net")["kind"] == "echo"


def test_every_command_has_help() -> None:
    commands = ("serve", "show", "set", "line", "withdraw", "play", "log", "kinds")
    listed = hwsim("--help").stdout
    for command in commands:
        assert f"  {command} " in listed
    done = hwsim("line", "--help")
    assert "    unplug    pull the cable" in done.stdout
    assert "[default: run]" in done.stdout
