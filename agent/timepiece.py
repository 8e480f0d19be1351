"""This file knows how this machine tells the time: both clocks, whether one follows a source, and the boot."""

import ctypes
import time
from functools import cache
from pathlib import Path
from typing import Any

from agent.clock import Instant

TIME_ERROR = 5
"""What adjtimex(2) returns while the clock follows no source: never disciplined, or for hours not any more."""
MARK = Path("/run/systemd/timesync/synchronized")
"""systemd-timesyncd's own mark, for where adjtimex is forbidden (ProtectClock= of a unit)."""
NARROW = 0.05
"""Seconds between two looks at the monotonic clock within which a look at the wall clock counts for both."""


def look() -> Instant:
    """The time now. Both clocks are read as one: a busy machine must not look like a clock that jumps."""
    now = time.monotonic()
    for _ in range(5):
        wall, after = wall_ms(), time.monotonic()
        if after - now <= NARROW:
            break
        now = after
    return Instant(now, wall, synced())


def synced() -> bool:
    """Whether the kernel says that the wall clock follows a time source (adjtimex(2), read only)."""
    try:
        state = int(_libc().adjtimex(ctypes.create_string_buffer(512)))
    except (OSError, AttributeError):  # no libc, or none with adjtimex
        state = -1
    return MARK.exists() if state < 0 else state != TIME_ERROR


@cache
def _libc() -> Any:
    return ctypes.CDLL(None)


def wall_ms() -> int:
    """The wall clock in milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000


def up_ms() -> int:
    """The monotonic clock in milliseconds: nobody can set it, and it begins anew with each boot."""
    return time.monotonic_ns() // 1_000_000


def boot_id() -> str:
    """An id of this boot of the machine: the kernel's where there is one."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")[:12]
    except OSError:
        return f"{wall_ms() - round(time.monotonic() * 1000):x}"
