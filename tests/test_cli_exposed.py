"""Nobody can give a component to `tillwire keys` or `tillwire accounts`: it is refused, wiped, and told.

Real commands on real pseudo-terminals; at the other end of the socket a clerk writes down what is asked.
"""

import json
import os
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from agent.cli import app
from agent.cli.exposed import GUARDED, KEY_ROOM, OTHERS, Exposed
from agent.cli.keyboard import Keyboard
from agent.crypto import receipts
from agent.errors import ControlError
from tests.clerk import END, ORDER, STATUS, Clerk, tillwire
from tests.typing_people import BIN, Typist

Json = dict[str, Any]
KEY = "0123456789ABCDEFFEDCBA9876543210"
"""The public test key."""


@pytest.fixture
def clerk(tmp_path: Path) -> Iterator[Clerk]:
    found = Clerk(tmp_path / "s")
    yield found
    found.close()


def pieces(key: str = KEY) -> list[str]:
    """Every five digits of a key: none may be seen anywhere."""
    return [key[at : at + 5].lower() for at in range(len(key) - 4)]


def nowhere(*texts: str, key: str = KEY) -> bool:
    return not any(piece in text.lower() for piece in pieces(key) for text in texts)


# on the command line


@pytest.mark.parametrize(
    "words",
    [
        ["keys", "part", KEY],
        ["keys", "part", *(KEY[at : at + 4] for at in range(0, 32, 4))],
        ["keys", KEY],
        ["keys", f"--{KEY}"],
        [f"--{KEY}", "keys", "status"],
        [KEY],
        [f"--{KEY}"],
        ["key", *(KEY[at : at + 4] for at in range(0, 32, 4))],
        ["keys", "part", f"--person={KEY[:16]}"],
        ["keys", "order", f"{KEY}.order"],
        ["keys", "begin", KEY[:11]],
        ["keys", "status", "--lang", KEY],
        ["keys", "status", "--json", "--", KEY, "--help"],
        ["accounts", "add", "li", "--role", KEY],
        ["accounts", KEY.lower()],
        ["keys", "status", "--config", KEY],
    ],
)
def test_a_component_on_the_command_line_is_refused_before_anything_repeats_it(
    clerk: Clerk, words: list[str]
) -> None:
    done = tillwire(*words, clerk=clerk)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert clerk.requests == [{"do": "keys", "act": "exposed", "where": "argv"}]
    assert nowhere(done.stdout, done.stderr)
    for sentence in ("it is spoiled", "history of the shell", "The agent has noted it", "该分量作废", "历史记录"):
        assert sentence in done.stderr


def test_every_command_is_guarded_or_is_known_to_be_about_other_things() -> None:
    commands = set(get_command(app).commands)  # type: ignore[attr-defined]
    assert commands - {KEY_ROOM} - GUARDED == OTHERS


def test_the_agent_is_told_at_the_socket_that_was_given(clerk: Clerk, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(f'[control]\nsocket = "{clerk.path}"\n')
    for words in (["--socket", clerk.path], [f"--socket={clerk.path}"], ["--config", tmp_path / "c.toml"]):
        clerk.requests.clear()
        tillwire("keys", "part", KEY, *words)
        assert clerk.asked("exposed"), words


def test_without_an_agent_the_people_are_told_to_report_it_themselves(tmp_path: Path) -> None:
    done = tillwire("keys", "part", KEY, "--socket", tmp_path / "none")
    assert done.returncode == 1
    assert "tillwire keys abort" in done.stderr
    assert "报" in done.stderr
    assert nowhere(done.stderr)


def test_the_command_line_is_overwritten_while_the_agent_is_told(clerk: Clerk) -> None:
    clerk.answers["exposed"] = [{"wait": True}, END]
    environment = {**os.environ, "TILLWIRE_SOCKET": str(clerk.path)}
    with subprocess.Popen([BIN / "tillwire", "keys", "part", KEY], env=environment, stderr=-1) as command:
        wait_for(lambda: clerk.asked("exposed"))
        shown = Path(f"/proc/{command.pid}/cmdline").read_bytes()
        clerk.release()
        command.communicate(timeout=30)
    assert KEY[:5].encode() not in shown


def test_the_rest_of_a_paste_does_not_reach_the_shell(clerk: Clerk) -> None:
    clerk.answers["exposed"] = [{"wait": True}, END]
    with Typist("keys", "part", KEY, TILLWIRE_SOCKET=str(clerk.path)) as typist:
        wait_for(lambda: clerk.asked("exposed"))
        typist.type(KEY)
        wait_for(typist.left)
        clerk.release()
        assert typist.rest()[0] == 1
        assert not typist.left()


def test_what_is_typed_while_the_agent_is_asked_does_not_reach_the_shell(clerk: Clerk) -> None:
    clerk.answers["add"] = [{"wait": True}, {"done": {"en": "li is there", "zh": "li已添加"}}]
    words = ("accounts", "add", "li", "--role", "technician")
    with Typist(*words, TILLWIRE_SOCKET=str(clerk.path)) as typist:
        typist.answer("or more:", "lantern-one")
        typist.answer("once more:", "lantern-one")
        wait_for(lambda: clerk.asked("add"))
        typist.type(KEY)
        wait_for(typist.left)
        clerk.release()
        assert typist.rest()[0] == 0
        assert not typist.left()
        assert nowhere(typist.screen)


def wait_for(ready: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not ready():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


# at the keyboard


def spoiled(typist: Typist, clerk: Clerk, key: str = KEY) -> bool:
    """The command refused what was typed, told the agent, and left nothing of it anywhere."""
    code, out, err = typist.rest()
    assert (code, out) == (1, ""), err
    assert clerk.asked("exposed") == [{"do": "keys", "act": "exposed", "where": "prompt"}]
    assert "it is spoiled" in err
    assert "该分量作废" in err
    assert not typist.left(), "the shell would get the rest"
    assert termios.tcgetattr(typist.tty) == typist.before
    return nowhere(out, err, typist.screen, key=key)


def test_a_component_at_the_question_for_a_name(clerk: Clerk) -> None:
    with Typist("keys", "begin", TILLWIRE_SOCKET=str(clerk.path)) as typist:
        typist.answer("Your name:", KEY)
        assert spoiled(typist, clerk)
        assert not clerk.asked("begin")


@pytest.mark.parametrize("key", [KEY, "0123 4567 89AB CDEF FEDC BA98 7654 3210", KEY.lower()[:16]])
def test_a_component_in_place_of_a_password(clerk: Clerk, key: str) -> None:
    with Typist("keys", "part", "--person", "li", TILLWIRE_SOCKET=str(clerk.path)) as typist:
        typist.answer("Password of li:", key)
        assert spoiled(typist, clerk, key)
        assert not clerk.asked("part")


def test_a_component_as_a_first_password_of_an_account(clerk: Clerk) -> None:
    words = ("accounts", "add", "li", "--role", "technician")
    with Typist(*words, TILLWIRE_SOCKET=str(clerk.path)) as typist:
        typist.answer("First password for li", KEY)
        assert spoiled(typist, clerk)
        assert not clerk.asked("add")


def test_a_component_at_a_question_of_yes_or_no(clerk: Clerk) -> None:
    clerk.answers["status"] = [{"keys": {**STATUS["keys"], "state": "destroy"}}]
    with Typist("keys", "destroy", "--person", "li", TILLWIRE_SOCKET=str(clerk.path)) as typist:
        typist.answer("Password of li:", "lantern-of-li")
        typist.answer("[yes/no]", KEY)
        assert spoiled(typist, clerk)
        assert not clerk.asked("sign")


@pytest.mark.parametrize("length", [16, 32])
def test_a_component_that_is_pasted_in_lines(clerk: Clerk, length: int) -> None:
    with Typist("keys", "begin", TILLWIRE_SOCKET=str(clerk.path)) as typist:
        typist.answer("Your name:", "\r".join(KEY[at : at + 8] for at in range(0, length, 8)))
        typist.rest()
        assert clerk.asked("exposed")
        assert nowhere(typist.screen.replace(KEY[:8], ""))
        assert not typist.left()


def test_a_component_that_is_typed_here_while_the_pad_waits(clerk: Clerk) -> None:
    """The mistake that a host invites: the agent waits for the pad, and the person types at this keyboard."""
    clerk.answers["part"] = [{"tell": {"word": "entering", "en": "type at the pad", "zh": ""}}, {"wait": True}]
    with Typist("keys", "part", "--person", "li", TILLWIRE_SOCKET=str(clerk.path)) as typist:
        typist.answer("Password of li:", "lantern-of-li")
        wait_for(lambda: clerk.asked("part"))
        typist.type(KEY[:4], enter=False)
        typist.until("not at this keyboard")
        typist.type(KEY[4:])
        code, out, err = typist.rest()
        assert (code, out) == (1, "")
        assert clerk.asked("exposed")
        assert "it is spoiled" in err
        assert nowhere(out, err, typist.screen)
        assert not typist.left()


def test_a_component_that_was_typed_ahead_of_the_question(clerk: Clerk) -> None:
    with Typist("keys", "begin", "--person", "li", TILLWIRE_SOCKET=str(clerk.path)) as typist:
        typist.type(KEY)
        typist.rest()
        # whether it was refused at the question or thrown away before it: it is not in the queue, nor in a request
        assert not typist.left()
        assert nowhere(json.dumps(clerk.requests))
        assert clerk.asked("exposed")


def test_digit_by_digit_not_more_than_ten_are_ever_seen_and_the_line_is_wiped(clerk: Clerk) -> None:
    with Typist("keys", "begin", TILLWIRE_SOCKET=str(clerk.path)) as typist:
        typist.until("Your name:")
        for at in range(1, 11):
            typist.type(KEY[at - 1], enter=False)
            typist.until(KEY[:at])
        typist.type(KEY[10], enter=False)
        code, _, err = typist.rest()
        assert code == 1
        assert nowhere(err)
        assert KEY[:11] not in typist.screen
        assert typist.screen.endswith("\r\x1b[K")


def test_backspace_and_ctrl_u_take_back(clerk: Clerk) -> None:
    with Typist("keys", "begin", TILLWIRE_SOCKET=str(clerk.path)) as typist:
        typist.answer("Your name:", "wamg\x7f\x7fng李\x7f")
        typist.answer("Password of wang:", "no\x15lantern")
        typist.rest()
    assert clerk.asked("begin") == [{"do": "keys", "act": "begin", "person": "wang", "password": "lantern"}]


def test_a_password_is_not_echoed(clerk: Clerk) -> None:
    with Typist("keys", "begin", "KO-1", "--person", "li", TILLWIRE_SOCKET=str(clerk.path)) as typist:
        typist.answer("Password of li:", "lantern-of-li")
        code, out, err = typist.rest()
        assert code == 0, err
        assert "lantern" not in typist.screen + out + err
    [request] = clerk.asked("begin")
    assert (request["order"], request["password"]) == ("KO-1", "lantern-of-li")


def test_ctrl_c_gives_the_terminal_back(clerk: Clerk) -> None:
    with Typist("keys", "begin", TILLWIRE_SOCKET=str(clerk.path)) as typist:
        typist.until("Your name:")
        typist.type("\x03", enter=False)
        code, _, err = typist.rest()
        assert code == 130
        assert "`tillwire keys status` tells the next step" in err
        assert typist.screen.endswith("\n")
        assert termios.tcgetattr(typist.tty) == typist.before
    assert not clerk.asked("begin")


@pytest.mark.parametrize("words", [["keys", "begin", "--person", "li"], ["accounts", "password", "li"]])
def test_a_password_comes_from_a_terminal_only(clerk: Clerk, words: list[str]) -> None:
    done = tillwire(*words, clerk=clerk, said="lantern-of-li\nlantern-of-li\n")
    assert done.returncode == 3
    assert "there is no terminal to type at" in done.stderr
    assert not clerk.asked("begin")
    assert not clerk.asked("password")
    assert tillwire(*words, "--password", "lantern", clerk=clerk).returncode == 2


# in a file


def test_a_component_in_the_file_of_an_order(clerk: Clerk, tmp_path: Path) -> None:
    for text in (KEY, f"TMK part 1: {KEY}\n", "0123 4567 89AB CDEF\n", '{"payload": "' + KEY + '"'):
        clerk.requests.clear()
        (tmp_path / "o").write_text(text)
        done = tillwire("keys", "order", tmp_path / "o", clerk=clerk)
        assert done.returncode == 1
        assert clerk.requests == [{"do": "keys", "act": "exposed", "where": "file"}]
        assert nowhere(done.stdout, done.stderr)


def test_other_files_are_refused_without_a_word_of_them_and_are_no_component(clerk: Clerk, tmp_path: Path) -> None:
    unsigned = json.dumps({"format": "tillwire-key-order/1", "block": "ab" * 32, "id": "KO-lamp"})
    for content in (b"lamp", unsigned.encode(), bytes(range(256)), b"", b"{}"):
        (tmp_path / "o").write_bytes(content)
        done = tillwire("keys", "order", tmp_path / "o", clerk=clerk)
        assert done.returncode == 1, done.stderr
        assert done.stderr.count("\n") == 1
        assert "lamp" not in done.stderr + done.stdout
    (tmp_path / "o").write_text(f"epoch {KEY[:16].lower()}\n\n{receipts.BEGIN}\nAAAA\n{receipts.END}\n")
    assert "a receipt and no order" in tillwire("keys", "order", tmp_path / "o", clerk=clerk).stderr
    (tmp_path / "o").write_bytes(bytes(300_000))
    for file in ("o", "none", "."):
        assert tillwire("keys", "order", tmp_path / file, clerk=clerk).returncode == 2
    assert not clerk.requests


def test_a_key_block_goes_only_where_its_order_waits_for_it(clerk: Clerk, tmp_path: Path) -> None:
    block = "B0096P0TE00N0000" + "C6F2A1" * 10 + "AB" * 10
    (tmp_path / "b").write_text(block + "\n")
    assert "--block" in tillwire("keys", "order", tmp_path / "b", clerk=clerk).stderr
    done = tillwire("keys", "part", "--block", tmp_path / "b", clerk=clerk)
    assert (done.returncode, len(clerk.asked("block"))) == (1, 0), "the order is by components"
    wanting = {**ORDER, "block": sha256(block.encode()).hexdigest()}
    clerk.answers["status"] = [{"keys": {**STATUS["keys"], "order": wanting}}]
    assert tillwire("keys", "part", "--block", tmp_path / "b", clerk=clerk).returncode == 0
    assert len(clerk.asked("block")) == 1
    (tmp_path / "b").write_text(block.replace("C6F2A1", "C6F2A2"))
    done = tillwire("keys", "part", "--block", tmp_path / "b", clerk=clerk)
    assert "not the block that the order names" in done.stderr
    assert not clerk.asked("exposed")
    (tmp_path / "b").write_text(KEY)
    done = tillwire("keys", "part", "--block", tmp_path / "b", clerk=clerk)
    assert clerk.asked("exposed")
    assert nowhere(done.stderr)
    assert len(clerk.asked("block")) == 1


def test_a_terminal_that_is_closed_is_told() -> None:
    hand, tty = os.openpty()
    keyboard = Keyboard(tty, "en", lambda: Exposed("x"), patience=0.05)
    with pytest.raises(ControlError, match="nobody answered"):
        keyboard.line("Question:")
    os.close(hand)
    with pytest.raises(ControlError, match="closed"):
        keyboard.line("Question:")
    os.close(tty)
