"""Whatever a component looks like, and whatever stands around it: no question and no command line takes it."""

import json
import os
import re
import select
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.cli.exposed import Exposed
from agent.cli.keyboard import Keyboard
from tests.clerk import Clerk

digits = st.text("0123456789abcdefABCDEF", min_size=16, max_size=48)
groups = st.tuples(digits, st.sampled_from([1, 2, 4, 8]), st.sampled_from([" ", "-", ":", ".", "_", " - "])).map(
    lambda made: made[2].join(made[0][at : at + made[1]] for at in range(0, len(made[0]) // 8 * 8, made[1]))
)
components = st.one_of(digits, groups)
around = st.text(st.characters(min_codepoint=0x20, blacklist_categories=("Cs", "Cc")), max_size=12)


def long_pieces(key: str) -> list[str]:
    """Pieces of a component that do not come about by chance."""
    plain = "".join(re.findall("[0-9A-Fa-f]", key)).lower()
    return [plain[at : at + 7] for at in range(len(plain) - 6)]


def shown(text: str) -> str:
    return re.sub("[^0-9a-z]", "", text.lower())


@settings(max_examples=150, deadline=None)
@given(before=around, key=components, after=around, seen=st.booleans())
def test_no_component_gets_past_a_question(before: str, key: str, after: str, seen: bool) -> None:
    hand, tty = os.openpty()
    declared: list[bool] = []

    def declare() -> Exposed:
        declared.append(True)
        return Exposed("spoiled")

    try:
        mode = termios.tcgetattr(tty)
        mode[3] &= ~(termios.ECHO | termios.ICANON)
        termios.tcsetattr(tty, termios.TCSANOW, mode)
        keyboard = Keyboard(tty, "en", declare, patience=5)
        asked = keyboard.line if seen else keyboard.password
        threading.Thread(target=answer_once_asked, args=(hand, f"{before} {key} {after}\r")).start()
        with pytest.raises(Exposed, match="spoiled"):
            asked("Question:")
        assert declared == [True]
        assert not select.select([tty], [], [], 0)[0], "the shell would get the rest"
        screen = b""
        while select.select([hand], [], [], 0)[0]:
            screen += os.read(hand, 4096)
        assert not any(piece in shown(screen.decode(errors="replace")) for piece in long_pieces(key))
    finally:
        os.close(hand)
        os.close(tty)


def answer_once_asked(hand: int, text: str) -> None:
    with suppress(OSError):
        os.read(hand, 64)
        os.write(hand, text.encode())


RUNNER = """
import contextlib, io, json, sys
import agent.cli
for line in sys.stdin:
    sys.argv = json.loads(line)
    sys.orig_argv = ["python", *sys.argv]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = agent.cli.run()
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""
commands = st.sampled_from(
    [
        ["keys"],
        ["keys", "part"],
        ["keys", "order"],
        ["keys", "begin", "--person"],
        ["keys", "receipt", "--to"],
        ["keys", "status", "--lang"],
        ["keys", "-x"],
        ["accounts", "add"],
        ["accounts", "password"],
        ["accounts", "--"],
    ]
)


@pytest.fixture(scope="module")
def runner() -> Iterator["subprocess.Popen[str]"]:
    """A process that runs one command after another, without a terminal."""
    with subprocess.Popen(
        [sys.executable, "-c", RUNNER], stdin=-1, stdout=-1, text=True, bufsize=1, start_new_session=True
    ) as process:
        yield process
        process.kill()


@pytest.fixture(scope="module")
def one_clerk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clerk]:
    found = Clerk(tmp_path_factory.mktemp("clerk") / "s")
    yield found
    found.close()


@settings(max_examples=150, deadline=None)
@given(words=commands, before=around, key=components, after=around, split=st.booleans(), at_end=st.booleans())
def test_no_component_gets_past_the_command_line(
    runner: "subprocess.Popen[str]",
    one_clerk: Clerk,
    words: list[str],
    before: str,
    key: str,
    after: str,
    split: bool,
    at_end: bool,
) -> None:
    one_clerk.requests.clear()
    assert runner.stdin is not None
    assert runner.stdout is not None
    typed = key.split(" ") if split else [f"{before}{key}{after}"]
    place = ["--socket", str(one_clerk.path)]
    line = ["tillwire", *words, *typed, *place] if at_end else ["tillwire", *words, *place, *typed]
    runner.stdin.write(json.dumps(line) + "\n")
    code, out, err = json.loads(runner.stdout.readline())
    assert (code, out) == (1, ""), err
    assert one_clerk.requests == [{"do": "keys", "act": "exposed", "where": "argv"}]
    assert not any(piece in shown(err) for piece in long_pieces(key))
