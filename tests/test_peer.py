"""Who is at the other end of a local socket, as the kernel says: real sockets and real processes."""

import os
import pwd
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from agent.people.peer import Peer, peer, session_of

CALLER = """
import os, socket, sys
line = socket.socket(socket.AF_UNIX)
line.connect(sys.argv[1])
line.sendall(b"%d %d" % (os.getpid(), os.getsid(0)))
sys.stdin.read()  # stays until the test has looked
"""


@pytest.fixture
def server(tmp_path: Path) -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "s"))
    server.listen()
    server.settimeout(20.0)
    return server


def caller(server: socket.socket, *, own_session: bool) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """A process that has connected, and our end of its connection."""
    command = [sys.executable, "-c", CALLER, server.getsockname()]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=own_session)
    return process, server.accept()[0]


def leave(process: subprocess.Popen[bytes]) -> None:
    process.communicate(timeout=20.0)


def test_both_ends_of_a_pair_are_ourselves() -> None:
    one, other = socket.socketpair()
    with one, other:
        us = Peer(os.getuid(), f"session-{os.getsid(0)}")
        assert peer(one) == peer(other) == us
        assert us.owns_agent
        assert us.name == pwd.getpwuid(os.getuid()).pw_name


def test_a_process_in_a_session_of_its_own_is_another_session(server: socket.socket) -> None:
    with server:
        process, line = caller(server, own_session=True)
        with line:
            found = peer(line)
            pid, session = line.recv(100).split()
            leave(process)
    assert (found.uid, found.session) == (os.getuid(), f"session-{int(session)}")
    assert found.session == f"session-{int(pid)}"
    assert found.session != f"session-{os.getsid(0)}"


def test_two_processes_of_one_session_are_one_session(server: socket.socket) -> None:
    with server:
        callers = [caller(server, own_session=False) for _ in range(2)]
        assert {peer(line).session for _, line in callers} == {f"session-{os.getsid(0)}"}
        for process, line in callers:
            leave(process)
            line.close()


def test_who_has_left_has_no_session_any_more(server: socket.socket) -> None:
    with server:
        process, line = caller(server, own_session=True)
        with line:
            leave(process)
            assert peer(line) == Peer(os.getuid(), "")


def test_a_process_that_the_kernel_does_not_show_is_not_taken_for_ourselves() -> None:
    assert session_of(os.getpid()) == f"session-{os.getsid(0)}"
    assert session_of(0) == ""  # what SO_PEERCRED gives for another PID namespace
    assert session_of(-1) == ""


def test_a_user_without_a_name_is_a_number_and_owns_nothing() -> None:
    nobody = Peer(2**31 - 7, "")
    assert nobody.name == str(2**31 - 7)
    assert not nobody.owns_agent
    assert Peer(0, "").owns_agent
    assert Peer(os.getuid(), "").owns_agent
