"""This file knows who is at the other end of a local socket: user, and terminal session, as the kernel says.

Linux: SO_PEERCRED gives process and user of who connected (unix(7)), getsid(2) the session of that process. A
session begins with a login at a terminal, so two people who work one after the other in one session have one.
"""

import os
import pwd
import socket
import struct
from typing import NamedTuple


class Peer(NamedTuple):
    """uid: the user's number. session: the number of the terminal session; empty when the process is not seen."""

    uid: int
    session: str

    @property
    def name(self) -> str:
        """The user's name, or number."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)

    @property
    def owns_agent(self) -> bool:
        """Whether it is root or the agent's own user."""
        return self.uid in (0, os.getuid())


def peer(connection: socket.socket) -> Peer:
    """Who has connected."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _ = struct.unpack("3i", credentials)
    return Peer(int(uid), session_of(int(pid)))


def session_of(pid: int) -> str:
    """The session of a process; empty when it is gone, or lives where we cannot see it (another PID namespace)."""
    if pid <= 0:  # getsid(0) would be our own session
        return ""
    try:
        return f"session-{os.getsid(pid)}"
    except OSError:
        return ""
