"""This file knows where the page of a component may be written: a printer's device, or a folder in memory.

Straight to a device, so that no spooler keeps a copy. Where a printer needs a driver, a folder on tmpfs takes each
page as a file of its own that only its owner may read; it is gone with the power. A disk never gets a page: nobody
can wipe one for sure.
"""

import os
import stat
from pathlib import Path

from agent.crypto.secret import Secret
from agent.errors import KeyRoomClosed

IN_MEMORY = {"tmpfs", "ramfs"}
CONSOLES = {(5, 0), (5, 1)}


def refuse_place(to: Path) -> None:
    """Raise KeyRoomClosed unless pages may be written there; nothing is written yet."""
    try:
        found = to.stat()
    except OSError as error:
        raise KeyRoomClosed(f"{to} is not there or not open to you ({error.strerror}): give a printer") from error
    if stat.S_ISCHR(found.st_mode):
        if found.st_rdev in _screens():
            raise KeyRoomClosed(f"{to} is a screen: a component is printed, never shown")
    elif not stat.S_ISDIR(found.st_mode):
        raise KeyRoomClosed(f"{to} is neither a printer's device, such as /dev/usb/lp0, nor a folder in memory")
    elif _file_system(found.st_dev) not in IN_MEMORY:
        raise KeyRoomClosed(f"{to} is on a disk, which nobody can wipe for sure: give a printer, or a tmpfs folder")


def write(to: Path, envelope: str, page: Secret) -> str:
    """Write one page; returns where it is. Raises KeyRoomClosed."""
    refuse_place(to)
    flags = os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC
    if to.is_dir():
        to = to / f"{envelope}.txt"
        flags |= os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        handle = os.open(to, flags, 0o600)
        try:
            with memoryview(page.reveal()) as rest:
                at = 0
                while at < len(rest):
                    at += os.write(handle, rest[at:])
        finally:
            os.close(handle)
    except OSError as error:
        raise KeyRoomClosed(
            f"{to} does not take the page ({error.strerror}): what came out of it must be shredded, and the"
            " pages before it too"
        ) from error
    return str(to)


def _screens() -> set[int]:
    """The device numbers of what a person looks at."""
    seen = {os.fstat(handle).st_rdev for handle in (0, 1, 2) if os.isatty(handle)}
    return seen | {os.makedev(*numbers) for numbers in CONSOLES}


def _file_system(device: int) -> str:
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        if fields.split()[2] == number:
            return rest.split()[0]
    return "unknown"
