"""This file knows how to spread many terminals over processes that are asked through pipes."""

import logging
import multiprocessing
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection as Pipe
from typing import Any


@contextmanager
def processes(work: Callable[..., None], terminals: int, share: int, *more: Any) -> Iterator[list[Pipe]]:
    """So many terminals, `share` in a process; a pipe to each. A process does work(pipe, numbers, *more) until it
    is told "end"."""
    spawn = multiprocessing.get_context("spawn")
    pipes, started = [], []
    for first in range(0, terminals, share):
        mine, theirs = spawn.Pipe()
        numbers = range(first, min(first + share, terminals))
        process = spawn.Process(target=work, args=(theirs, numbers, *more), daemon=True)
        process.start()
        pipes.append(mine)
        started.append(process)
    try:
        yield pipes
    finally:
        for pipe in pipes:
            pipe.send("end")
        for process in started:
            process.join(10)
            if process.is_alive():
                process.kill()


def settle() -> None:
    """What a process of many terminals needs: small stacks, no log, and all the open files that it may have."""
    threading.stack_size(512 * 1024)
    logging.disable()
    open_files()


def open_files() -> None:
    """Let this process have as many open files as it may."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
