"""This file knows what a command does when it is given a component: refuse, wipe, tell the agent, tell the people.

A component belongs on the EPP's own keypad. What was typed into this computer stands in a history or on a screen by
now, so it is spoiled, whatever becomes of it here. The value is repeated nowhere: not in the sentence, not in a
traceback, not in what the agent is told.
"""

import os
import sys
import termios
from collections.abc import Sequence
from pathlib import Path

from agent.cli import asking
from agent.errors import ControlError, TillwireError
from agent.pasted import like_a_key, like_a_part

PATIENCE = 10.0
"""Seconds to wait for the agent: the people must be told in any case."""
KEY_ROOM = "keyroom"
GUARDED = frozenset({"keys", "accounts"})
OTHERS = frozenset({"config", "devices", "diagnose", "ledger", "perform", "probe", "push", "watch"})
"""Commands at which nobody has a component in the hand; ports, files and digests may look like one."""

KNOWS = (
    "The agent has noted it, without its value; a ceremony that was running is stopped.",
    "终端代理已记录此事（不含其值）；正在进行的密钥操作已中止。",
)
DOES_NOT_KNOW = (
    "The agent could not be told: stop a running ceremony (`tillwire keys abort`), and report it yourselves.",
    "未能通知终端代理：如有密钥操作正在进行，请中止（tillwire keys abort），并自行上报。",
)
SPOILED = (
    "that looks like a component of a key, and it was not asked for here: it is spoiled, whole or not. Both of you:"
    " clear the history of the shell and this screen, destroy the envelope, ask for a new order.",
    "输入内容疑似密钥分量，此处不得输入：无论是否完整，该分量作废。请两位：清除命令行历史记录和屏幕，销毁信封，申请新的密钥指令。",
)


class Exposed(ControlError):
    """Somebody gave a component to a command; the agent was told, if it answers."""


def guard(words: Sequence[str]) -> None:
    """Raise Exposed when a component stands in the words of a command about keys or accounts, in the key room, or
    where no command is.

    To be called before anything parses them: a parser repeats the word that it does not like.
    """
    given, text = set(words), " ".join(words)
    if words[:1] == [KEY_ROOM]:
        if like_a_key(text):  # the serial number of an EPP may be like a part
            _hide_words()
            raise Exposed("\n".join(SPOILED), 3)
    elif (GUARDED & given or not OTHERS & given) and like_a_part(text):
        socket, config = _given(words, "--socket"), _given(words, "--config")
        _hide_words()
        raise declared("argv", socket, config)


def declared(where: str, socket: Path | None = None, config: Path | None = None) -> Exposed:
    """Declare a component spoiled; returns what to raise. where: argv, prompt or file."""
    try:
        path = asking.find_socket(socket, config)
        request = {"do": "keys", "act": "exposed", "where": where}
        told = next(asking.ask(path, request, PATIENCE), None) is not None
    except TillwireError:
        told = False
    finally:
        _forget_typed()  # at the end: a long paste takes its time to arrive
    then = KNOWS if told else DOES_NOT_KNOW
    return Exposed("\n".join(f"{what} {how}" for what, how in zip(SPOILED, then, strict=True)), 1)


def _given(words: Sequence[str], option: str) -> Path | None:
    """The path given with an option, if it is not itself the component."""
    for word, after in zip(words, [*words[1:], ""], strict=True):
        name, equals, text = word.partition("=")
        path = text if equals else after
        if name == option and path and not like_a_part(path):
            return Path(path)
    return None


def _forget_typed() -> None:
    """Throw away what was typed ahead: the rest of a paste must not reach the shell, and with it a history."""
    try:
        tty = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        termios.tcflush(tty, termios.TCIFLUSH)
    except termios.error:
        pass  # the terminal is gone, and its queue with it
    finally:
        os.close(tty)


def _hide_words() -> None:
    """Overwrite the command line where `ps` reads it. proc(5), /proc/PID/stat: arg_start and arg_end."""
    del sys.argv[1:], sys.orig_argv[1:]
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[45]), int(fields[46])
    except (OSError, ValueError, IndexError):
        return
    if 0 < start < end:
        import ctypes

        ctypes.memset(start, 0, end - start)
