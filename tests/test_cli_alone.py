"""`tillwire` without an agent: failing, help, printing and wording, with the real command."""

import io
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import agent.cli
from agent.cli import asking, printing, wording
from agent.cli.devices import overview
from agent.cli.options import language
from agent.errors import ConfigError, ControlError

BIN = Path(sys.executable).parent
PATIENCE = 25.0
CONFIG = """
[terminal]
org = "coop"
id = "ATM-0001"
data = "data"
[control]
socket = "c.sock"
[devices.ups1]
kind = "ups"
port = "run/atm1/ups1"
[devices.dispenser1]
kind = "dispenser"
port = "run/atm1/dispenser1"
"""


def tillwire(*words: str | Path, said: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "tillwire", *map(str, words)],
        input=said or "",
        capture_output=True,
        text=True,
        timeout=60,
        env=clean(**env),
    )


def clean(**env: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("TILLWIRE", "LC_", "LANG"))}
    return {**kept, "LANG": "C.UTF-8", "TERM": "xterm-256color", **env}


def until(look: Callable[[], object]) -> None:
    """Wait until `look` is true."""
    end = time.monotonic() + PATIENCE
    while not look():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


# failing


def test_no_agent_is_one_sentence_with_the_next_step(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(tmp_path / "dead.sock"))
    for path in ("none.sock", "file", "dead.sock", "x" * 200):
        done = tillwire("devices", "--socket", tmp_path / path)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1), done.stderr
        assert "--socket" in done.stderr
    assert "systemctl status tillwire" in tillwire("watch", "--socket", tmp_path / "none.sock").stderr


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"[]\n", b'{"error": "not today", "status": 3}\n', b'{"a":'],
)
def test_strange_answers_are_told_and_not_a_traceback(tmp_path: Path, answer: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        env = clean(TILLWIRE_SOCKET=str(tmp_path / "s"))
        command = subprocess.Popen([BIN / "tillwire", "devices"], env=env, stderr=subprocess.PIPE, text=True)
        line, _ = server.accept()
        line.recv(1000)
        line.sendall(answer)
        line.close()
        said = command.communicate(timeout=PATIENCE)[1]
    assert command.returncode == 3, said
    assert said.count("\n") == 1


def test_an_agent_that_says_nothing_is_not_waited_for_without_end(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        begun = time.monotonic()
        with pytest.raises(ControlError, match="has said nothing"):
            list(asking.ask(tmp_path / "s", {"do": "devices"}, patience=0.1))
        assert time.monotonic() - begun < 2


def test_a_socket_that_this_user_may_not_use_is_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Not below tmp_path, which nobody may enter: the socket is to be seen, and refused.
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:
        path = Path(folder) / "s"
        server.bind(str(path))
        server.listen()
        path.chmod(0)
        path.parent.chmod(0o755)
        # Once as ourselves: what is imported on first use may not be readable for nobody.
        monkeypatch.setattr(sys, "argv", ["tillwire", "devices", "--socket", str(tmp_path / "none")])
        assert agent.cli.run() == 3
        monkeypatch.setattr(sys, "argv", ["tillwire", "devices", "--socket", str(path)])
        me = os.geteuid()
        if me == 0:
            os.setresuid(65534, 65534, 0)  # root may use any socket
        try:
            assert agent.cli.run() == 3
        finally:
            os.setresuid(me, me, me)
    assert "this user may not talk to the agent" in capsys.readouterr().err


def test_usage_is_2(tmp_path: Path) -> None:
    for words in (["nope"], ["devices", "--lang", "fr"], ["devices", "a", "b"], ["ledger", "show", "0"]):
        done = tillwire(*words)
        assert (done.returncode, done.stdout) == (2, ""), words
        assert "Traceback" not in done.stderr
    assert tillwire("devices", "--config", tmp_path / "none.toml").returncode == 2


def test_checking_a_configuration(tmp_path: Path) -> None:
    right = tmp_path / "right.toml"
    right.write_text(CONFIG)
    assert json.loads(tillwire("config", "check", right, "--json").stdout)["ok"] is True
    good = tillwire("config", "check", right)
    assert (good.returncode, good.stdout.splitlines()[0]) == (0, "the configuration is right")
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(CONFIG.replace('kind = "ups"', 'kind = "usp"'))
    done = tillwire("config", "check", wrong, "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["ok"] is False
    assert "devices.ups1.kind" in done.stderr


def test_a_bug_of_ours_is_70_with_a_traceback_to_send(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(sys, "argv", ["tillwire", "devices"])
    monkeypatch.setattr(asking, "find_socket", broken)
    assert agent.cli.run() == 70
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "ZeroDivisionError" in captured.err
    assert captured.err.endswith("please send the lines above to those who maintain Tillwire\n")


# where the agent is, and which language


def test_what_was_typed_counts_before_the_environment(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('[control]\nsocket = "a.sock"\n')
    (tmp_path / "b.toml").write_text('[control]\nsocket = "/b.sock"\n')
    (tmp_path / "plain.toml").write_text("")
    env = {"TILLWIRE_SOCKET": "/env.sock", "TILLWIRE_CONFIG": str(tmp_path / "b.toml")}
    find = asking.find_socket
    assert find(Path("/x"), tmp_path / "a.toml", env) == Path("/x")
    assert find(None, tmp_path / "a.toml", env) == tmp_path / "a.sock"
    assert find(None, None, env) == Path("/env.sock")
    assert find(None, None, {**env, "TILLWIRE_SOCKET": ""}) == Path("/b.sock")
    assert find(None, tmp_path / "plain.toml", {}) == find(None, None, {}) == asking.USUAL_SOCKET
    for text in ("[control", "control = 1", "[control]\nsocket = 1"):
        (tmp_path / "a.toml").write_text(text)
        with pytest.raises(ConfigError, match="config check"):
            find(None, tmp_path / "a.toml", {})


def test_the_language_is_that_of_the_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    assert language(None) == "en"
    monkeypatch.setenv("LANG", "zh_CN.UTF-8")
    assert (language(None), language("en")) == ("zh", "en")
    monkeypatch.setenv("LC_ALL", "C")
    assert language(None) == "en"


values = st.one_of(st.none(), st.booleans(), st.integers(), st.text())


@given(
    st.sampled_from(["change", "known", "unknown", "fault.raised", "fault.cleared", "operation", "outcome", "new"]),
    st.dictionaries(st.sampled_from(["point", "value", "was", "raw", "code", "verb", "result", "other"]), values),
)
def test_any_row_has_a_sentence(kind: str, fields: dict[str, Any]) -> None:
    assert wording.sentence({"seq": 1, "at": 0, "kind": kind, **fields})


def test_ages_in_one_unit() -> None:
    ages = [wording.age(s) for s in (None, 0.4, 119, 120, 7199, 7200, 172799, 172800)]
    assert ages == ["", "0 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 d"]


# help


def commands() -> list[str]:
    """Every command, as it is typed after `tillwire`."""
    app = agent.cli.app
    found = [str(command.callback.__name__) for command in app.registered_commands if command.callback]
    for group in app.registered_groups:
        inner = group.typer_instance
        assert inner
        found += [
            f"{inner.info.name} {c.name or c.callback.__name__}" for c in inner.registered_commands if c.callback
        ]
    return sorted(found)


GIVES_A_DOCUMENT = {"keyroom order", "keyroom sign", "push sign", "push cosign"}


@pytest.mark.parametrize("command", commands())
def test_each_command_has_help_an_example_and_json(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["tillwire", *command.split(), "--help"])
    assert agent.cli.run() == 0
    said = capsys.readouterr().out
    assert f"Example: tillwire {command}" in said
    assert "--json" in said or command in GIVES_A_DOCUMENT
    assert len(said.splitlines()[2].strip()) > 20, "it says what it does"


@pytest.mark.parametrize("command", commands())
def test_each_command_is_in_the_readme_or_on_its_page(command: str) -> None:
    pages = {"keyroom": "docs/keyroom.md", "keys": "docs/keys.md", "accounts": "docs/keys.md"}
    pages |= {"push": "docs/operations.md", "config": "docs/operations.md"}
    page = pages.get(command.split()[0], "README.md")
    assert f"tillwire {command}" in (Path(__file__).parent.parent / page).read_text("utf-8")


def test_the_version() -> None:
    assert re.fullmatch(r"tillwire \d+\.\d+\.\d+\n", tillwire("--version").stdout)


def test_help_needs_neither_rich_nor_pydantic_nor_drivers() -> None:
    slow = ("rich", "pydantic", "serial", "agent.drivers")
    code = f"import agent.cli, sys; print([m for m in {slow} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# what is printed


def test_what_a_device_sends_cannot_steer_the_terminal() -> None:
    assert printing.plain("a\x1b[2Jb\x07\x9b\n") == "a\\x1b[2Jb\\x07\\x9b\n"


def test_json_cannot_either(capsys: pytest.CaptureFixture[str]) -> None:
    sent = {"serial": "\x1b[2J\x9b2J\x7f 设备"}
    printing.line(sent)
    out = capsys.readouterr().out
    assert out.rstrip("\n").isprintable()
    assert json.loads(out) == sent


@given(st.text())
def test_whatever_is_printed_is_printable(text: str) -> None:
    assert all(c.isprintable() or c == "\n" for c in printing.plain(text))


def test_many_devices_are_shown_in_short_and_what_is_not_well_is_named() -> None:
    def point(name: str, value: str, unknown: bool = False) -> dict[str, Any]:
        facts = {"point": name, "value": None if unknown else value, "was_value": value if unknown else None}
        return {**facts, "unknown": unknown, "age": 1.0, "at": 0, "raw": "", "inferred": False, "unit": ""}

    def device(name: str, *points: dict[str, Any]) -> dict[str, Any]:
        facts = {"name": name, "kind": "ups", "port": "/dev/x", "access": "own", "faults": []}
        return {**facts, "points": [point("link.state", "up"), *points]}

    hidden = [point(f"p{number}", "on", unknown=True) for number in range(9)]
    report = {
        "terminal": "ATM-0001",
        "org": "coop",
        "at": 0,
        "uplink": {"state": "connected", "note": "", "backlog": 0},
        "devices": [device("a", point("mains", "lost")), device("b", *hidden)],
    }
    page = Console(file=io.StringIO(), width=100)
    page.print(overview(report, "en", every_point=False))
    assert isinstance(page.file, io.StringIO)
    short = page.file.getvalue()
    assert "mains" not in short, "what is well is not listed"
    assert "9 UNKNOWN: p0, p1, p2, p3, p4, p5 and 3 more" in short
    assert "not well: b" in short
    assert "--all" in short
