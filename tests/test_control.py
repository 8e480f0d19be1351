"""The control socket under clients that are wrong, slow, many or rude."""

import json
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.people.lobby import CLIENTS, MINE, OWN
from tests.whole import Site, site, wait

UPS = '\n[devices.ups1]\nkind = "ups"\nport = "./none"\n'


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Site]:
    with agent_in(tmp_path) as terminal:
        yield terminal


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One that no test ends, and to which nobody talks any more when a test is over."""
    with agent_in(tmp_path_factory.mktemp("control")) as terminal:
        yield terminal


@contextmanager
def agent_in(folder: Path) -> Iterator[Site]:
    with site(folder, devices=UPS) as terminal:
        terminal.start("agent")
        wait("the socket", (folder / "tw.sock").exists)
        yield terminal


def connect(terminal: Site) -> socket.socket:
    line = socket.socket(socket.AF_UNIX)
    line.settimeout(10.0)
    line.connect(str(terminal.folder / "tw.sock"))
    return line


@pytest.mark.parametrize(
    ("request_line", "says"),
    [
        (b"nonsense\n", "one line of JSON"),
        (b"[1]\n", "JSON object"),
        (b"{}\n", "does not know the request"),
        (b'{"do": "ledger", "tail": -1}\n', "tail wants a whole number"),
        (b'{"do": "ledger", "after": "x", "limit": 1}\n', "after wants a whole number"),
        (b'{"do": "perform", "device": "nobody", "verb": "x"}\n', "there is no device 'nobody': there are ups1"),
        (
            b'{"do": "perform", "device": "ups1", "verb": "explode"}\n',
            "does not know 'explode': it knows self_test",
        ),
        (
            b'{"do": "perform", "device": "ups1", "verb": "self_test", "arguments": {"a": [1]}}\n',
            "whole number each",
        ),
        (b"[" * 60_000 + b"\n", "one line of JSON"),
        (b"x" * 70_000, "one line of JSON"),
        (b'{"do": "accounts", "act": "remove", "name": "\\ud800"}\n', "one line of JSON"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_wrong_request_is_a_sentence(lasting: Site, request_line: bytes, says: str) -> None:
    with connect(lasting) as line:
        line.sendall(request_line)
        answer = json.loads(line.makefile("rb").readline())
    assert says in answer["error"]
    assert answer["status"] in (2, 3)
    assert lasting.ask(do="devices")["terminal"] == "ATM-0001"


def test_a_bug_is_a_sentence_and_a_line_of_the_log_without_the_request(lasting: Site) -> None:
    with connect(lasting) as line:
        line.sendall(b'{"do": [], "password": "lantern"}\n')
        answer = json.loads(line.makefile("rb").readline())
    assert answer["status"] == 70
    assert "bug" in answer["error"]
    assert "a request met a bug: TypeError" in lasting.log("agent")
    assert "lantern" not in lasting.log("agent")


def test_clients_that_only_hang_on_keep_nobody_out(agent: Site) -> None:
    idle = [connect(agent) for _ in range(2 * MINE)]
    for line in idle[-MINE:]:
        line.sendall(b"{")
    for _ in range(20):
        assert "devices" in agent.ask(do="devices")
    for line in idle:
        line.close()


def test_stopping_a_ceremony_has_a_place_when_all_others_are_taken(agent: Site) -> None:
    lines = [connect(agent) for _ in range(CLIENTS + OWN)]
    for line in lines:
        line.sendall(b'{"do": "watch"}\n')
        assert line.recv(1)
    assert "talking to the agent already" in agent.ask(do="devices")["error"]
    assert "no keys are loaded here" in agent.ask(do="keys", act="abort")["error"]
    for line in lines:
        line.close()
    wait("a place", lambda: "devices" in agent.ask(do="devices"))


def test_a_client_that_never_reads_does_not_hold_up_the_agent(agent: Site) -> None:
    lines = [connect(agent) for _ in range(CLIENTS - 1)]
    for line in lines:
        line.sendall(b'{"do": "watch"}\n')
    begun = time.monotonic()
    for _ in range(50):
        agent.ask(do="devices")
    assert agent.end("agent") == 0
    assert time.monotonic() - begun < 20.0
    for line in lines:
        line.close()


def test_the_socket_is_for_owner_and_group_and_the_data_for_the_owner(lasting: Site) -> None:
    assert stat.S_IMODE((lasting.folder / "tw.sock").stat().st_mode) == 0o660
    assert stat.S_IMODE((lasting.folder / "data").stat().st_mode) == 0o700
    for name in os.listdir(lasting.folder / "data"):
        assert stat.S_IMODE((lasting.folder / "data" / name).stat().st_mode) & 0o077 == 0, name


def test_an_operation_without_a_line_is_refused_and_both_are_rows(agent: Site) -> None:
    with connect(agent) as line:
        line.sendall(b'{"do": "perform", "device": "ups1", "verb": "self_test"}\n')
        first, second = (json.loads(text) for text in line.makefile("rb"))
    assert second["outcome"]["result"] == "refused"
    with connect(agent) as line:
        line.sendall(b'{"do": "ledger", "tail": 50}\n')
        rows = [json.loads(text).get("row", {}) for text in line.makefile("rb")]
    kinds = [row.get("kind") for row in rows]
    assert kinds.index("operation") < kinds.index("outcome")
    assert next(r for r in rows if r.get("kind") == "outcome")["id"] == first["operation"]
