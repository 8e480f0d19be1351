"""This file knows where a key room may open, and how its process is made fit to hold a clear key. Linux only.

It may not open where the agent, its service or a terminal's configuration is: that machine is a terminal's
controller, and PCI PIN 13-2 forbids clear keys and components on its keyboard.

A process that may hold a clear key
- was started again by itself, with nothing in its environment but a terminal's language and type, and with
  PYTHONMALLOC=debug: Python then overwrites every block of memory that it frees, so that the copies which nobody
  can wipe by hand (pycryptodome's, pyserial's) go too. GLIBC_TUNABLES asks the same of what C libraries free, all
  but the last bytes of a block;
- leaves no core: a limit of zero, and not dumpable, which also holds where cores go to a program instead of a file,
  and keeps other processes of the same user out of its memory;
- has its memory locked, all of it and what comes, so that nothing goes to a swap file. Hibernation would still
  write it: the machine of a key room has none.

What stays in registers and on the stack nobody wipes: so the process lives for one command only.
"""

import ctypes
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from agent.errors import KeyRoomClosed
from agent.pasted import like_a_key

TERMINAL = (
    "etc/tillwire/terminal.toml",
    "etc/systemd/system/tillwire.service",
    "run/systemd/system/tillwire.service",
    "usr/local/lib/systemd/system/tillwire.service",
    "usr/lib/systemd/system/tillwire.service",
    "lib/systemd/system/tillwire.service",
    "run/tillwire/control.sock",
    "var/lib/tillwire",
)
"""What a terminal has, below the root of the file system."""
NAMES_AN_AGENT = ("TILLWIRE_SOCKET", "TILLWIRE_CONFIG")
KEPT = re.compile(r"PATH|HOME|TERM|TZ|COLUMNS|LINES|NO_COLOR|LANG|LANGUAGE|LC_[A-Z]+")
OVERWRITING = {
    "PYTHONMALLOC": "debug",
    "GLIBC_TUNABLES": "glibc.malloc.perturb=90:glibc.malloc.tcache_count=0",
}

PR_SET_DUMPABLE = 4
MCL_CURRENT, MCL_FUTURE = 1, 2


def enter() -> None:
    """Make this process fit for a clear key; call it before anything secret is read.

    The first call starts the program again and does not return. Raises KeyRoomClosed with the reason.
    """
    if sys.platform != "linux":
        raise KeyRoomClosed("the key room needs Linux: it locks its memory, and forbids core files")
    if found := terminal_here(Path("/"), os.environ):
        raise KeyRoomClosed(
            f"the key room does not open on a terminal's controller ({found} is here): use a stand-alone machine"
        )
    wanted = scrubbed(os.environ)
    if wanted != dict(os.environ):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], wanted)  # noqa: S606
    _protect()


def terminal_here(root: Path, environment: Mapping[str, str]) -> str | None:
    """What shows that this machine is a terminal's controller; None on any other machine."""
    for name in NAMES_AN_AGENT:
        if name in environment:
            return name
    for path in (root / name for name in TERMINAL):
        try:
            path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return str(path)  # what may not be looked at is taken for there
        return str(path)
    return None


def scrubbed(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that may hold a clear key."""
    return {name: text for name, text in environment.items() if KEPT.fullmatch(name)} | OVERWRITING


def refuse_components(words: Iterable[str]) -> None:
    """Raise KeyRoomClosed when one of the words may be a key or a component: it stands in a history by now."""
    for word in words:
        if like_a_key(word):
            raise KeyRoomClosed(
                "that looks like a component, and it was not asked for here: if it is one it is spoiled, because a"
                " history or a screen holds it. Destroy its envelope, clear the shell's history, order a new one"
            )


def _protect() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise KeyRoomClosed("this system does not let a process forbid its core file: use another one")
    hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
    if libc.mlockall(MCL_CURRENT | MCL_FUTURE) != 0:
        raise KeyRoomClosed(
            "this user may not lock memory, so a key could reach the swap file: start it as root, or raise the"
            " limit (`ulimit -l unlimited`)"
        )
