"""People at a terminal: each is a process in a session of its own, as in a login shell of its own.

The agent asks the kernel whose session asks, so two people in one process would be one to it.
"""

import json
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

Json = dict[str, Any]
TYPIST = """
import json, socket, sys
for line in sys.stdin:
    try:
        with socket.socket(socket.AF_UNIX) as agent:
            agent.settimeout(600)
            agent.connect(sys.argv[1])
            agent.sendall(line.encode())
            for answer in agent.makefile("r"):
                print(answer, end="", flush=True)
    except OSError as error:
        print(json.dumps({"lost": str(error)}), flush=True)
    print(flush=True)
"""
"""What a person's process does: each line of its input is a request; then its answers, and an empty line."""


class Person:
    """Somebody at a terminal of their own. `password` is set by the site that made the account."""

    def __init__(self, agent: Path, name: str, password: str = "") -> None:
        self.name, self.password = name, password
        self._process = subprocess.Popen(
            [sys.executable, "-IS", "-c", TYPIST, str(agent)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            start_new_session=True,
        )
        self._lines: queue.Queue[Json | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def begin(self, act: str, **request: Any) -> None:
        """Send a request about keys; its answers come from `rest`."""
        self.send({"do": "keys", "act": act, "person": self.name, "password": self.password, **request})

    def send(self, request: Json) -> None:
        """Send any request."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")

    def rest(self, patience: float = 60.0) -> list[Json]:
        """Every answer line until the agent hangs up, without beats; {"lost": why} when there is no agent."""
        lines, until = [], time.monotonic() + patience
        while (line := self._lines.get(timeout=max(0.1, until - time.monotonic()))) is not None:
            if "beat" not in line:
                lines.append(line)
        return lines

    @property
    def answered(self) -> bool:
        """Whether an answer is there as a whole."""
        return None in self._lines.queue

    def does(self, act: str, **request: Any) -> list[Json]:
        """A request about keys, and its whole answer."""
        self.begin(act, **request)
        return self.rest()

    def asks(self, **request: Any) -> list[Json]:
        """Any request, and its whole answer."""
        self.send(request)
        return self.rest()

    def close(self) -> None:
        """They go home."""
        self._process.kill()
        self._process.communicate()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(json.loads(line) if line.strip() else None)
