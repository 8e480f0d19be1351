"""This file knows how to reach the simulated secure device: one JSON line there and one back, on a Unix socket.

A pad's twin asks from the server's event loop and waits for the answer. That is bounded: the answer is computed
from memory, the wait ends after PATIENCE, and a device that did not answer in time is left alone for a while.
"""

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path

from hwsim.contract import Json, Unreachable
from hwsim.errors import NOT_HERE, Refusal

PATIENCE, PAUSE = 0.25, 2.0
LONGEST = 1 << 16
"""Bytes of a line at the most."""


class SecureLink:
    """Asks secure devices on behalf of twins; see hwsim/contract.py, AskEpp."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._not_before: dict[str, float] = {}

    def __call__(self, path: str, request: Json) -> Json:
        if self._clock() < self._not_before.get(path, 0.0):
            raise Unreachable(path)
        try:
            with socket.socket(socket.AF_UNIX) as line:
                line.settimeout(PATIENCE)
                line.connect(path)
                return say(line, request)
        except TimeoutError:
            self._not_before[path] = self._clock() + PAUSE
            raise Unreachable(path) from None
        except (OSError, ValueError):
            raise Unreachable(path) from None


def say(line: socket.socket, request: Json) -> Json:
    """One request and its answer. Raises OSError, and ValueError when there is none."""
    line.sendall(json.dumps(request, separators=(",", ":")).encode() + b"\n")
    heard = b""
    while not heard.endswith(b"\n"):
        piece = line.recv(LONGEST)
        if not piece or len(heard) > LONGEST:
            raise ValueError("no answer")
        heard += piece
    answer = json.loads(heard)
    if not isinstance(answer, dict):
        raise ValueError("no answer")
    return answer


def keypad(path: Path) -> socket.socket:
    """An open line to a keypad. Raises Refusal."""
    line = socket.socket(socket.AF_UNIX)
    try:
        line.connect(str(path))
    except OSError as error:
        line.close()
        raise Refusal(
            f"there is no keypad at {path} ({error.strerror}); start one with `hwsim epp --keypad`", NOT_HERE
        ) from error
    return line
