"""The control socket: what it refuses, and that nothing is changed then."""

import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from hwsim.control import socket_of
from hwsim.errors import Refusal
from tests.serving import Running, running


@pytest.mark.parametrize(
    ("request_", "status", "sentence"),
    [
        ({"do": "dance"}, 2, "there are: show, act, play, log"),
        ({"do": "show", "device": "e9"}, 2, "there is no device 'e9'; there are: atm1/e1, atm1/e2, atm1/net"),
        ({"do": "show", "device": "e1"}, 2, "on several terminals; say which: atm1/e1, atm2/e1"),
        ({"do": "act", "act": {"device": "e2", "set": {"colour": "blue"}}}, 2, "it can be: red, green"),
        ({"do": "act", "act": {"device": "e2", "set": {"level": "low"}}}, 2, "level wants int"),
        ({"do": "act", "act": {"device": "e2", "set": {"size": 1}}}, 2, "there are: colour, level"),
        ({"do": "act", "act": {"device": "e2", "line": "explode"}}, 2, "there are: unplug"),
        ({"do": "act", "act": {"device": "e2", "line": "replug", "kind": "fax"}}, 2, "it can be desk, echo"),
        ({"do": "act", "act": {"device": "tap", "line": "replug", "kind": "shout"}}, 2, "tapped"),
        ({"do": "act", "act": {"device": "e2", "withdraw": {"position": 1, "count": 1}}}, 2, "tapped = true"),
        ({"do": "act", "act": {"device": "tap", "withdraw": {"position": 9, "count": 1}}}, 2, "there are 1 to 4"),
        ({"do": "act"}, 2, "Act"),
        ({"do": "play", "steps": [{"at": 0, "device": "e9", "line": "cut"}]}, 2, "no device 'e9'"),
        ({"do": "play", "steps": "all"}, 2, "scenario"),
    ],
)
def test_a_wrong_request_gets_one_sentence_and_changes_nothing(
    asked: Running, request_: dict[str, Any], status: int, sentence: str
) -> None:
    before = asked.ask(do="show")
    with pytest.raises(Refusal) as caught:
        asked.ask(**request_)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.status == status
    assert asked.ask(do="show") == before


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for all requests that change nothing."""
    with running(tmp_path_factory.mktemp("asked")) as server:
        yield server


def test_settings_are_changed_all_or_none(asked: Running) -> None:
    with pytest.raises(Refusal):
        asked.act("e2", set={"level": 7, "colour": "blue"})
    assert asked.shown("e2")["settings"]["level"] == 0


@pytest.mark.parametrize("rubbish", [b"\n", b"[]\n", b"\xff\xfe\n", b"{\n", b"x" * 2_000_000 + b"\n"])
def test_rubbish_on_the_control_socket_is_refused_and_harms_nobody(asked: Running, rubbish: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(5)
        line.connect(str(socket_of(asked.run)))
        with suppress(OSError):
            line.sendall(rubbish)
            assert b'"status":2' in line.recv(1000)
    assert asked.shown("e2")["kind"] == "echo"
