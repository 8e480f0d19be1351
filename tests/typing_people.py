"""A person at a terminal of their own: a real command on a pseudo-terminal, in a session of its own.

Streams are kept apart: what the person sees drawn on the terminal, what the command prints, and what it says.
"""

import fcntl
import os
import re
import select
import subprocess
import sys
import termios
import time
from pathlib import Path

BIN = Path(sys.executable).parent
PATIENCE = 30.0


class Typist:
    """`tillwire` with these words, or another program, at a terminal. `screen`: what was drawn on it so far.

    apart: what the program prints and says does not go to the terminal, and comes from `rest`.
    """

    def __init__(
        self, *words: str | Path, program: Path = BIN / "tillwire", apart: bool = True, **env: str
    ) -> None:
        self._hand, self.tty = os.openpty()
        self.before = termios.tcgetattr(self.tty)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("TILLWIRE", "LC_", "LANG"))}

        def take_terminal() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            [program, *map(str, words)],
            stdin=self.tty,
            stdout=subprocess.PIPE if apart else self.tty,
            stderr=subprocess.PIPE if apart else self.tty,
            env={**kept, "LANG": "C.UTF-8", "TERM": "xterm-256color", **env},
            start_new_session=True,
            preexec_fn=take_terminal,
        )
        self.screen = ""

    def until(self, text: str) -> None:
        """Look at the screen until this is on it."""
        end = time.monotonic() + PATIENCE
        while text not in self.screen:
            assert time.monotonic() < end, f"waited in vain for {text!r} on {self.screen!r}"
            assert self._look(0.1) or self.process.poll() is None, (text, self.screen, self.rest())

    def type(self, text: str, enter: bool = True) -> None:
        """Type, or paste: all of it at once."""
        os.write(self._hand, text.encode() + b"\r" * enter)

    def answer(self, question: str, text: str) -> None:
        """Wait for a question that was not there before, and answer it."""
        self.until(question)
        self.screen = self.screen.partition(question)[2]
        self.type(text)

    def look(self) -> None:
        """Look at the screen until something is new."""
        assert self._look(PATIENCE), f"nothing new on {self.screen!r}"

    def rest(self) -> tuple[int, str, str]:
        """Wait for the end: exit code, what was printed, what was said."""
        out, err = self.process.communicate(timeout=PATIENCE)
        while self._look(0):
            pass
        return self.process.returncode, (out or b"").decode(), (err or b"").decode()

    def left(self) -> bool:
        """Whether something is still in the terminal's input queue, for the shell to take."""
        canonical = termios.tcgetattr(self.tty)
        raw = termios.tcgetattr(self.tty)
        raw[3] &= ~termios.ICANON
        termios.tcsetattr(self.tty, termios.TCSANOW, raw)
        found = bool(select.select([self.tty], [], [], 0)[0])
        termios.tcsetattr(self.tty, termios.TCSANOW, canonical)
        return found

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._hand)
        os.close(self.tty)

    def __enter__(self) -> "Typist":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _look(self, patience: float) -> bool:
        if not select.select([self._hand], [], [], patience)[0]:
            return False
        self.screen += os.read(self._hand, 4096).decode(errors="replace")
        return True


class Seat:
    """A person's shell, at a terminal of their own: one session for all that they do, as after a login."""

    def __init__(self, folder: Path, **env: str) -> None:
        path = f"{BIN}:/usr/bin:/bin"
        self._shell = Typist("-i", program=Path("/bin/sh"), apart=False, PS1="", ENV="", PATH=path, **env)
        self._count = 0
        self.run(f"cd '{folder}'")

    def begin(self, command: str, *answers: tuple[str, str]) -> None:
        """Type a command, and answer its questions."""
        self._count += 1
        self._shell.screen = ""
        self._shell.type(f"{command}; echo end{self._count}=$?")
        self._shell.until("=$?\r\n")
        for question, text in answers:
            self._shell.answer(question, text)

    def type(self, text: str) -> None:
        """Type something at any time."""
        self._shell.type(text)

    def end(self) -> tuple[int, str]:
        """Wait for the end of the command: its exit code, and what the terminal showed since the last answer."""
        while not (found := re.search(rf"end{self._count}=(\d+)\r\n", self._shell.screen)):
            self._shell.look()
        return int(found[1]), self._shell.screen[: found.start()]

    def run(self, command: str, *answers: tuple[str, str]) -> tuple[int, str]:
        """A command from beginning to end."""
        self.begin(command, *answers)
        return self.end()

    def close(self) -> None:
        self._shell.close()
