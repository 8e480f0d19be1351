"""This file knows two custodians at a real terminal: `tillwire keyroom` on a pty, answered question by question."""

import base64
import json
import os
import pty
import re
import select
import signal
import sys
import termios
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

BIN = Path(sys.executable).parent
PATIENCE = 30.0
NAME, TYPED, AGAIN, PHRASE = r"your name: ", r"hex digits: ", r"once more: ", r"passphrase[^:\n]*: "
YES, PRESS = r"\[y/n\] ", r"Enter [^:\n]*: "
QUESTIONS = "|".join((NAME, TYPED, AGAIN, PHRASE, YES, PRESS))


MAY_LOCK = pytest.mark.skipif(
    os.geteuid() != 0, reason="the key room locks its memory, and a test looks into it: both are root's"
)


class Custodians:
    """The command, and what its terminal showed. Its stdout goes to a file: the record is there."""

    def __init__(
        self,
        folder: Path,
        *words: str,
        environment: Mapping[str, str] | None = None,
        before: Callable[[], object] = lambda: None,
    ) -> None:
        """before: what the new process does first."""
        self._stdout = folder / "stdout"
        kept = {key: text for key, text in os.environ.items() if not key.startswith("TILLWIRE")}
        self.shown = ""
        self._seen = 0
        self.status = 0
        self.pid, self._tty = pty.fork()
        if self.pid == 0:
            before()
            os.dup2(os.open(self._stdout, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 1)
            command = ["tillwire", "keyroom", *words]
            os.execve(BIN / "tillwire", command, {**kept, **(environment or {})})  # noqa: S606

    def until(self, pattern: str) -> str:
        """Wait until the terminal shows this after the last answer; returns what matched, nothing at the end."""
        while not (found := re.search(pattern, self.shown[self._seen :])):
            if not self._hear():
                return ""
        self._seen += found.end()
        return found.group()

    def says(self, text: str) -> None:
        os.write(self._tty, text.encode())

    def answer(self, pattern: str, text: str) -> None:
        """Wait for a question, then type."""
        assert self.until(pattern), f"ended before {pattern}: {self.shown}"
        self.says(text)

    def types(self, digits: str, again: str | None = None) -> None:
        """One component, twice."""
        self.answer(TYPED, digits + "\r")
        self.answer(AGAIN, (again or digits) + "\r")

    def serve(
        self, *components: str, names: Sequence[str] = ("Ann", "Bo", "Cy"), phrase: str = "", until: str = r"(?!)"
    ) -> None:
        """Answer everything, with yes where it is a question, until the terminal shows `until`, or to the end."""
        people, typed, last = iter(names), iter(components), ""
        while found := self.until(f"{until}|{QUESTIONS}"):
            if re.fullmatch(until, found):
                return
            if re.fullmatch(NAME, found):
                self.says(next(people) + "\n")
            elif re.fullmatch(PHRASE, found):
                last = phrase
                self.says(phrase + "\r")
            elif re.fullmatch(f"{TYPED}|{AGAIN}", found):
                last = next(typed) if found == TYPED else last
                self.says(last + "\r")
            else:
                self.says("y\n" if re.fullmatch(YES, found) else "\n")

    def close(self) -> int:
        """Hear it to its end; returns the exit code, negative for a signal."""
        while self._hear():
            pass
        self.status = os.waitpid(self.pid, 0)[1]
        os.close(self._tty)
        return os.waitstatus_to_exitcode(self.status)

    @property
    def echoes(self) -> bool:
        """Whether the terminal shows what is typed."""
        flags: int = termios.tcgetattr(self._tty)[3]
        return bool(flags & termios.ECHO)

    @property
    def stdout(self) -> str:
        return self._stdout.read_text()

    @property
    def record(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.stdout)
        return found

    def _hear(self) -> bool:
        """Take what the terminal shows; false when the command has ended."""
        if not select.select([self._tty], [], [], PATIENCE)[0]:
            os.kill(self.pid, signal.SIGKILL)
            raise AssertionError(f"it says nothing more: {self.shown}")
        try:
            data = os.read(self._tty, 4096)
        except OSError:  # Linux tells so that the other end is closed
            return False
        self.shown += data.decode(errors="replace")
        return bool(data)


def memory_of(pid: int) -> bytes:
    """All memory of a process that may be read, in one piece."""
    found = []
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            bounds, rights, *_ = line.split()
            start, end = (int(bound, 16) for bound in bounds.split("-"))
            if rights.startswith("r") and "[v" not in line:
                memory.seek(start)
                found.append(memory.read(end - start))
    return b"\0".join(found)


def forms(secret: bytes) -> dict[str, bytes]:
    """A secret as it could lie in memory or in a file."""
    digits = secret.hex()
    return {
        "raw": secret,
        "odd parity": bytes(byte ^ (byte.bit_count() + 1) % 2 for byte in secret),
        "without parity": bytes(byte & 0xFE for byte in secret),
        "first half": secret[:8],
        "last half": secret[-8:],
        "hex": digits.encode(),
        "HEX": digits.upper().encode(),
        "half in HEX": digits[:16].upper().encode(),
        "hex in UTF-16": digits.encode("utf-16-le"),
        "HEX in UTF-16": digits.upper().encode("utf-16-le"),
        "base64": base64.b64encode(secret).rstrip(b"="),
    }


def found_in(place: bytes, secret: bytes) -> list[str]:
    """The forms of the secret that lie there."""
    return [name for name, form in forms(secret).items() if form in place]
