"""A clerk at the agent's socket: gives prepared answers to commands about keys, and writes down what is asked."""

import json
import os
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.typing_people import BIN

Json = dict[str, Any]
ORDER = {"id": "KO-1", "slot": "TMK", "kind": "load", "kcv": "08D7B4", "parts": [{"envelope": "ENV-1"}]}
STEP = {"word": "part", "en": "component 1 of 2", "zh": "第1/2个分量"}
STATUS: Json = {
    "keys": {
        **{"epp": "epp1", "serial": "2411-0001", "hierarchy": "test", "public_key": "", "service": "ceremony"},
        **{
            "sealing": {"level": "file", "generation": 1},
            "why": {"en": "", "zh": ""},
            "state": "part",
            "step": STEP,
            "part": 1,
        },
        **{
            "order": ORDER,
            "people": [],
            "papers": [],
            "lacking": [],
            "slots": [],
            "findings": [],
            "orders": [],
            "ended": [],
        },
    }
}
END = {"end": "part", "step": STEP}


class Clerk:
    """Answers each act of keys with these lines, and keeps the requests; "wait" in place of lines keeps a command
    waiting until `release`."""

    def __init__(self, path: Path, answers: Mapping[str, Sequence[Json]] | None = None) -> None:
        self.path, self.answers = path, {"status": [STATUS], "exposed": [END], **(answers or {})}
        self.requests: list[Json] = []
        self._release = threading.Event()
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def asked(self, act: str) -> list[Json]:
        return [request for request in self.requests if request.get("act") == act]

    def release(self) -> None:
        self._release.set()

    def close(self) -> None:
        self.release()
        self._server.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._answer, args=(self._server.accept()[0],), daemon=True).start()

    def _answer(self, line: socket.socket) -> None:
        with suppress(OSError), line:
            request = json.loads(line.makefile("rb").readline())
            self.requests.append(request)
            for answer in self.answers.get(request["act"], [END]):
                if "wait" in answer:
                    self._release.wait(30)
                else:
                    line.sendall(json.dumps(answer).encode() + b"\n")


def tillwire(*words: str | Path, clerk: Clerk | None = None, said: str = "") -> "subprocess.CompletedProcess[str]":
    """A command without any terminal."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TILLWIRE")}
    return subprocess.run(
        [BIN / "tillwire", *map(str, words)],
        input=said,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment | ({"TILLWIRE_SOCKET": str(clerk.path)} if clerk else {}) | {"LANG": "C.UTF-8"},
        start_new_session=True,
    )
