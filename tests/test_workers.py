"""Threads that are kept running, and end when they are told to: none comes back, none begins after the end."""

import threading

from agent.model import Note
from agent.workers import Worker, Workers
from tests.whole import wait


def waiting(name: str, begun: list[str]) -> Worker:
    """A thread that waits for its own stop."""
    stop = threading.Event()

    def run() -> None:
        begun.append(name)
        stop.wait()

    return Worker(name, run, stop)


def test_one_ends_alone_and_stays_so() -> None:
    notes: list[Note] = []
    begun: list[str] = []
    workers = Workers(notes.append)
    workers.add(waiting("a", begun))
    assert begun == [], "nothing begins before the start"
    workers.start()
    workers.add(waiting("b", begun))
    wait("both", lambda: sorted(begun) == ["a", "b"])
    workers.end(["a"])
    workers.revive()
    assert workers.seen() == {"threads": {"b": True}, "deaths": {}}
    workers.end(["b"])
    workers.revive()
    assert (sorted(begun), notes) == (["a", "b"], [])


def test_the_end_wakes_who_sleeps_elsewhere() -> None:
    bell, stop = threading.Event(), threading.Event()
    workers = Workers(lambda note: None)
    one = Worker("a", lambda: _sleep(bell), stop, bell.set)
    workers.add(one)
    workers.start()
    workers.end(["a"])
    assert one.thread is not None
    assert not one.thread.is_alive()


def test_nothing_begins_once_the_agent_ends() -> None:
    notes: list[Note] = []
    begun: list[str] = []
    workers = Workers(notes.append)
    dead = Worker("dead", lambda: begun.append("dead"))
    workers.add(dead)
    workers.start()
    assert dead.thread is not None
    dead.thread.join(10.0)
    workers.close()
    workers.revive()
    workers.add(waiting("late", begun))
    assert (begun, notes) == (["dead"], [])


def _sleep(bell: threading.Event) -> None:
    bell.wait()
