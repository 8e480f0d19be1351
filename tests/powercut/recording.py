"""This file knows how to record a life: a process with recorder.c preloaded, and its log read back.

The recorder is compiled for each run with the machine's `cc` (Debian: gcc and libc6-dev).
"""

import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("recorder.c")
ROOT = SOURCE.parent.parent.parent
_HEAD = struct.Struct("=IiqIIII")


class Op(IntEnum):
    OPEN = 1
    WRITE = 2
    TRUNCATE = 3
    SYNC = 4
    RENAME = 5
    UNLINK = 6
    MKDIR = 7
    LINK = 8
    CLOSE = 9
    DUP = 10
    MAP = 11
    MARK = 12
    OTHER = 13


@dataclass(frozen=True, slots=True)
class Step:
    """One call, as the struct in recorder.c has it; of a MARK `path` is its text."""

    op: Op
    fd: int
    offset: int
    flags: int
    path: str
    other: str
    data: bytes


def compiled(folder: Path) -> Path:
    """The recorder, ready to be preloaded. Raises CalledProcessError."""
    library = folder / "recorder.so"
    cc = shutil.which("cc") or "cc"
    subprocess.run(
        [cc, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, SOURCE, "-ldl", "-lpthread"], check=True
    )
    return library


def record(library: Path, root: Path, log: Path, life: str, **wishes: Any) -> list[Step]:
    """What a life (a function of lives.py) does to the files below `root`. Raises CalledProcessError."""
    environment = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "POWERCUT_ROOT": str(root),
        "POWERCUT_LOG": str(log),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-m", "tests.powercut.lives", life, str(root), json.dumps(wishes)]
    subprocess.run(command, env=environment, cwd=ROOT, check=True, timeout=100)
    return list(_read(log.read_bytes()))


def _read(log: bytes) -> Iterator[Step]:
    at = 0
    while at < len(log):
        op, fd, offset, flags, path, other, data = _HEAD.unpack_from(log, at)
        at += _HEAD.size
        texts = log[at : at + path].decode(), log[at + path : at + path + other].decode()
        at += path + other
        yield Step(Op(op), fd, offset, flags, *texts, log[at : at + data])
        at += data


def found(root: Path) -> "dict[str, bytes | None]":
    """What is below a folder: path -> bytes, None for a folder."""
    return {
        str(path.relative_to(root)): None if path.is_dir() else path.read_bytes()
        for path in sorted(root.rglob("*"))
    }
