"""Agents that are started again whenever they are killed, as a service manager does.

    python -m tests.dying FOLDER...        each has a terminal.toml

Each is all of `python -m agent`, forked, so that a life costs little. One more thing: where the first line of
FOLDER/die says so ("before committing", "after probation", "before ended"), it kills itself with -9 before or after
a step of a push, or the end of a command, is on disk; the next life goes on with the next line. FOLDER/pid is the
present one.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent import __main__ as agent
from agent.pushing.memory import Memory
from agent.pushing.shelf import Shelf, Step


def mortal(folder: Path) -> None:
    """Have the file's first line come true."""
    die = folder / "die"

    def due(moment: str) -> None:
        lines = die.read_text().splitlines() if die.exists() else []
        if lines[:1] == [moment]:
            die.write_text("\n".join(lines[1:]))
            os.kill(os.getpid(), signal.SIGKILL)

    def around(what: str, write: Callable[..., None], *arguments: Any) -> None:
        due(f"before {what}")
        write(*arguments)
        due(f"after {what}")

    take, ended = Shelf._take, Memory.ended

    def take_mortally(self: Shelf, step: Step) -> None:
        around(step.word, take, self, step)

    def end_mortally(self: Memory, *arguments: Any) -> None:
        around("ended", ended, self, *arguments)

    setattr(Shelf, "_take", take_mortally)  # noqa: B010 - mypy lets nobody put another method there
    setattr(Memory, "ended", end_mortally)  # noqa: B010


def born(folder: Path) -> int:
    """One life; returns its process."""
    child = os.fork()
    if child:
        (folder / "pid").write_text(str(child))
        return child
    try:
        with (folder / "agent.log").open("ab") as log:
            os.dup2(log.fileno(), 2)
        mortal(folder)
        os._exit(agent.main(["--config", str(folder / "terminal.toml")]))
    finally:
        os._exit(70)


def main(folders: list[Path]) -> None:
    """Keep them alive until SIGTERM."""
    lives: dict[int, Path] = {}
    ending: list[int] = []

    def end(*_: object) -> None:
        ending.append(1)
        for process in lives:
            os.kill(process, signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)
    for folder in folders:
        lives[born(folder)] = folder
    while lives:
        process, status = os.wait()
        folder = lives.pop(process)
        if os.WIFSIGNALED(status) and not ending:
            lives[born(folder)] = folder


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
