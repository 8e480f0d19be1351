"""Who is let in at the local socket, in virtual time over real sockets: slow, many and greedy clients."""

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import ControlError
from agent.people.lobby import CLIENTS, MINE, OWN, PATIENCE, REQUEST_LIMIT, STOPS, USER, Lobby, Places
from agent.people.peer import Peer

ROOT, OWNER = Peer(0, "session-1"), Peer(os.getuid(), "session-2")
LI, WANG, SUN = (Peer(2**31 - number, f"session-{number}") for number in (7, 8, 9))


class Door:
    """A lobby at a time that the test sets."""

    def __init__(self, folder: Path) -> None:
        self.now, self.path = 0.0, str(folder / "s")
        server = socket.socket(socket.AF_UNIX)
        server.bind(self.path)
        server.listen(8)
        self.lobby = Lobby(server, lambda: self.now)
        self.lines: list[socket.socket] = []

    def knock(self, said: bytes = b"") -> socket.socket:
        line = socket.socket(socket.AF_UNIX)
        line.settimeout(5.0)
        line.connect(self.path)
        line.sendall(said)
        self.lines.append(line)
        return line

    def turn(self) -> list[bytes]:
        """What the callers have said whose request has come."""
        found = self.lobby.turn(0.0)
        for caller in found:
            caller.connection.close()
        return [caller.said for caller in found]


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    found = Door(tmp_path)
    yield found
    found.lobby.close()
    for line in found.lines:
        line.close()


@pytest.mark.timeout(20)
def test_who_waits_at_the_door_goes_on_at_once_when_nobody_is_let_in_any_more(door: Door) -> None:
    waiting = threading.Thread(target=door.lobby.turn, args=(600.0,), daemon=True)
    waiting.start()
    door.lobby.shut()
    waiting.join()
    with pytest.raises(ConnectionRefusedError):
        door.knock()
    door.lobby.close()
    door.lobby.shut()


def test_a_request_may_come_in_pieces(door: Door) -> None:
    line = door.knock(b'{"do"')
    assert door.turn() == []
    line.sendall(b": 1}\n")
    assert door.turn() == [b'{"do": 1}\n']


def test_a_request_that_comes_too_slowly_is_dropped_however_steadily_it_comes(door: Door) -> None:
    line = door.knock(b"{")
    door.turn()
    while door.now < PATIENCE - 1:
        door.now += 1
        line.sendall(b" ")
        assert door.turn() == []
    door.now = PATIENCE
    door.turn()
    assert line.recv(1) == b""


def test_a_request_without_end_is_not_kept(door: Door) -> None:
    line = door.knock()
    line.setblocking(False)
    said: list[bytes] = []
    for _ in range(20):
        try:
            line.send(b"x" * 16_384)
        except (BlockingIOError, BrokenPipeError):
            break
        said += door.turn()
    assert len(said) == 1
    assert REQUEST_LIMIT < len(said[0]) <= 2 * REQUEST_LIMIT


def test_who_has_too_many_waiting_loses_the_oldest_and_never_the_newest(door: Door) -> None:
    idle = [door.knock()]
    for _ in range(MINE):
        idle.append(door.knock())
        door.turn()
    assert idle[0].recv(1) == b""
    assert door.turn() == []
    door.knock(b"{}\n")
    assert door.turn() == [b"{}\n"]


def taken(places: Places, who: Peer, *, stops: bool = False) -> int:
    """How many places this user gets until there is none."""
    for count in range(100):
        try:
            places.take(who, stops=stops)
        except ControlError:
            return count
    raise AssertionError("no limit at all")


def test_one_user_cannot_take_all_places_and_some_are_kept_for_the_owner_and_some_for_a_stop() -> None:
    places = Places()
    assert taken(places, LI) == USER
    assert taken(places, WANG) == CLIENTS - USER
    assert taken(places, SUN) == 0
    assert taken(places, OWNER) == OWN
    assert taken(places, ROOT) == 0
    assert taken(places, LI, stops=True) == STOPS
    places.leave(LI)
    assert taken(places, LI) == 0
    assert taken(places, SUN, stops=True) == 1


def test_a_place_that_was_left_is_free_again() -> None:
    places = Places()
    for _ in range(3):
        assert taken(places, LI) == USER
        for _ in range(USER):
            places.leave(LI)
    assert taken(places, ROOT) == CLIENTS + OWN
