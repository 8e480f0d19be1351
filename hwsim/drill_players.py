"""This file knows how a drill plays both people itself: a shell for each terminal, in a session of its own.

Each shell has a pseudo-terminal (pty(7)) and types exactly what the story shows to people. So what is proved is
what people do: the real commands, their questions, their answers, and the kernel's idea of who sits where.
"""

import codecs
import os
import pty
import re
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path

from hwsim.demo import Failed
from hwsim.drill_papers import Paper, mistyped
from hwsim.drill_site import PEOPLE, first_password
from hwsim.drill_story import Command, Step

PATIENCE = 60.0
"""Seconds in which a command must come to its next question, or to its end."""
TURN = 0.1
OWNER = {"A": "li", "B": "wang"}
"""Terminal -> whose it is; C is at the pad."""
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""What a terminal is told beside text (ECMA-48, CSI)."""
INVITED = "not shown"
"""What `hwsim type` says when it takes keys."""
ANSWERS = (
    (r"New password|once more", "<new>"),
    (r"Password", "<present>"),
    (r"\[yes/no", "yes"),
    (r"\[echo/", "echo"),
    (r"Reference", "ECHO-1"),
)
"""A question, and the answer to it: a word, or which password."""


class Shell:
    """A shell at a terminal. shown: all that it has shown; heard: that since something was typed last."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.heard, self.shown, self.prompt = name, "", "", f"<{name}> "
        self._still = False
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            try:
                os.chdir(folder)
                environment = {**os.environ, "PS1": self.prompt, "ENV": "", "LC_ALL": "C.UTF-8", "COLUMNS": "100"}
                os.execvpe("sh", ["sh", "-i"], environment)  # noqa: S606 - the shell that a person would have
            finally:
                os._exit(127)

    def type(self, text: str) -> None:
        """Type, and forget what was shown before."""
        self.heard = ""
        os.write(self._fd, text.encode())

    def listen(self, seconds: float) -> None:
        """Take what it shows, for so long at the most."""
        ready, _, _ = select.select([self._fd], [], [], seconds)
        self._still = not ready
        if ready:
            try:
                data = self._decode(os.read(self._fd, 65536))
            except OSError:
                raise Failed(f"the shell of terminal {self.name} has ended") from None
            self.heard, self.shown = self.heard + data, self.shown + data

    @property
    def idle(self) -> bool:
        """Whether it waits for a command."""
        return self.heard.endswith(self.prompt)

    @property
    def question(self) -> str:
        """What stands before the cursor, when it is a question and nothing has followed it; a long one is answered
        on a line of its own, after ">"."""
        shown = ESCAPE.sub("", self.heard).rstrip(" ").removesuffix("\n>").rstrip("\r")
        last = shown.rpartition("\n")[2].rpartition("\r")[2]
        return last if self._still and re.search(r"[:?：？\]]$", last) else ""

    def close(self) -> None:
        """The person goes home."""
        os.kill(self._pid, signal.SIGHUP)
        os.close(self._fd)
        os.waitpid(self._pid, 0)


class Players:
    """The people of terminals A and B, and whoever stands at the pad. `meanwhile` is called while they wait."""

    def __init__(self, folder: Path, meanwhile: Callable[[], None], typing: Callable[[], bool]) -> None:
        self._meanwhile, self._typing = meanwhile, typing
        self._shells = {name: Shell(name, folder) for name in "ABC"}
        self._passwords = {name: first_password(name) for name in PEOPLE}
        for shell in self._shells.values():
            self._wait(shell, lambda shell=shell: shell.idle)  # type: ignore[misc]
            shell.type(". ./here.sh\n")
            self._wait(shell, lambda shell=shell: shell.idle)  # type: ignore[misc]

    def perform(self, step: Step, paper: Paper | None) -> None:
        """Do what a step says, and print what the terminals show meanwhile. Raises Failed."""
        names = paper.names() if paper else {}
        before = {name: len(shell.shown) for name, shell in self._shells.items()}
        for command in step.do:
            shell = self._shells[command.terminal]
            shell.type(command.text.format_map(names) + "\n")
            if command.terminal == "C" and step.pad and paper:
                self._type_at_pad(shell, step.pad, paper)
            else:
                self._answer(shell, command, at_pad=bool(step.pad))
        for command in step.do:
            shell = self._shells[command.terminal]
            self._wait(shell, lambda shell=shell: shell.idle)  # type: ignore[misc]
        for name, begin in before.items():
            for line in _lines(self._shells[name].shown[begin:]):
                print(f"         {name}| {line}")

    def close(self) -> None:
        """Everybody goes home."""
        while self._shells:
            self._shells.popitem()[1].close()

    def _type_at_pad(self, shell: Shell, which: str, paper: Paper) -> None:
        component = paper.components[0 if which.startswith("one") else 1]
        self._wait(shell, lambda: INVITED in shell.heard or shell.idle)
        if shell.idle:
            raise Failed(f"nobody can type at the pad: {shell.heard.strip()[-600:]}")
        shell.type((mistyped(component) if which.endswith("wrong") else component) + "\r")

    def _answer(self, shell: Shell, command: Command, *, at_pad: bool) -> None:
        """Answer the questions of a command until it ends, or until the pad waits for digits."""
        person = OWNER.get(command.terminal, "")
        while True:
            self._wait(shell, lambda: shell.idle or (at_pad and self._typing()) or bool(shell.question))
            question = shell.question
            if not question or shell.idle:
                return
            reply = next((reply for pattern, reply in ANSWERS if re.search(pattern, question)), None)
            if reply is None:
                raise Failed(f"terminal {shell.name} asks what the story does not tell: {question}")
            shell.type(self._words(reply, person) + "\n")

    def _words(self, reply: str, person: str) -> str:
        if reply == "<new>":
            self._passwords[person] = f"only-mine-{person}-77"
        return self._passwords[person] if reply.startswith("<") else reply

    def _wait(self, shell: Shell, ready: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not ready():
            shell.listen(TURN)
            self._meanwhile()
            if time.monotonic() > end:
                raise Failed(f"terminal {shell.name} came to no end: {shell.heard.strip()[-600:]}")


def _lines(shown: str) -> list[str]:
    """What stands on the screen in the end: of a line that was written over, what was written last."""
    plain = ESCAPE.sub("", shown)
    lines = [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in plain.split("\n")]
    return [line for line in lines if line and not re.fullmatch(r"<[ABC]>", line)]
