"""This file knows how a small file is changed so that a power cut leaves the old one or the new one, whole.

A file that was synced is still lost while the folder that names it was not (fsync(2)), so each call here syncs both
before it returns. All raise OSError. After one, the file is still the old one, unless it was the sync of the folder
that failed: then the new one is seen, and may not last.
"""

import os
from contextlib import suppress
from pathlib import Path


def write(path: Path, data: bytes) -> None:
    """Put a file of mode 0600 in place of another."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)  # of a write that was cut off
    try:
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError:
        with suppress(OSError):
            new.unlink(missing_ok=True)  # on a full disk half a file is in everybody's way
        raise
    sync(path.parent)


def move(path: Path, to: Path) -> None:
    """Give a file another name in the same folder, in place of the file that had it. Needs no room on the disk."""
    path.replace(to)
    sync(path.parent)


def remove(path: Path) -> None:
    """Take a file away; one that is not there is no mistake."""
    with suppress(FileNotFoundError):
        path.unlink()
        sync(path.parent)


def sync(folder: Path) -> None:
    """Make the names in a folder last."""
    if os.name != "posix":
        return  # elsewhere a folder cannot be opened
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
