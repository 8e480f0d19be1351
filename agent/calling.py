"""This file knows how one thread has something done by another, which takes callables off a queue, and waits."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from agent.errors import ControlError, TillwireError

PATIENCE = 30.0
AGAIN = 10.0
"""Seconds after which a thread is asked again: it may have died with what was on its queue."""
T = TypeVar("T")


def call(
    put: Callable[[Callable[[], None]], object], what: Callable[[], T], late: str, patience: float = PATIENCE
) -> T:
    """Have something done in the thread that takes what is `put`; its result, or its TillwireError.

    late: the sentence of the ControlError when that thread has not begun within `patience` seconds; it does nothing
    then. Its bug is a ControlError here, and goes on there.
    """
    future: Future[T] = Future()

    def task() -> None:
        if not future.set_running_or_notify_cancel():
            return  # who asked was told that nothing came of it
        try:
            future.set_result(what())
        except TillwireError as error:
            future.set_exception(error)
        except BaseException:
            future.set_exception(ControlError("the agent met a bug of its own: see `journalctl -u tillwire`"))
            raise

    put(task)
    try:
        return future.result(patience)
    except TimeoutError:
        future.cancel()
        raise ControlError(late) from None


def insist(put: Callable[[Callable[[], None]], object], what: Callable[[], object], stop: threading.Event) -> bool:
    """Have something done in the thread that takes what is `put`, however late; False when `stop` is set instead.
    What it raises is raised here, and not there."""
    done = threading.Event()
    failed: list[Exception] = []

    def task() -> None:
        try:
            if not done.is_set():
                what()
        except Exception as error:
            failed.append(error)
        finally:
            done.set()

    while not stop.is_set():
        put(task)
        if done.wait(AGAIN):
            if failed:
                raise failed[0]
            return True
    return False
