"""This file knows what stands behind the name of a file before anybody opens it: opening alone can start a
watchdog, and reading never ends with some. Whoever may push a configuration names files, and the agent opens them.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from agent.errors import ConfigError
from agent.tables import Config, Tls

DRIVERS = Path("/proc/tty/drivers")
"""Of Linux: a line for each kind of serial port, with the device numbers in its third and fourth column."""


def not_serial(port: str) -> str:
    """That a port is no serial line, as a sentence; empty when it is one, an address, or not there."""
    if "://" in port:
        return ""
    try:
        found = os.stat(port)
    except (OSError, ValueError):
        return ""
    if not stat.S_ISCHR(found.st_mode) or not _is_serial(os.major(found.st_rdev), os.minor(found.st_rdev)):
        return f"{port} is no serial port: give the one that the device is at"
    return ""


def not_regular(file: Path) -> str:
    """That a file is none that can be read to its end, as a sentence; empty when it is one, or not there."""
    try:
        found = os.stat(file)
    except (OSError, ValueError):
        return ""
    return "" if stat.S_ISREG(found.st_mode) else f"{file} is no regular file: give the file with the certificate"


def check(config: Config) -> None:
    """Raise ConfigError when a file that a configuration names is there and is not what it must be."""
    ports = {f"devices.{name}": device.port for name, device in config.devices.items() if not device.line}
    for where, port in (ports | {f"lines.{name}": line.port for name, line in config.lines.items()}).items():
        if sentence := not_serial(port):
            raise ConfigError(f"{where}.port: {sentence}")
    for where, file in _files(config):
        if sentence := not_regular(file):
            raise ConfigError(f"{where}: {sentence}")


def _files(config: Config) -> Iterator[tuple[str, Path]]:
    tables: dict[str, Tls | None] = {f"lines.{name}": line.tls for name, line in config.lines.items()}
    for where, tls in (tables | {"broker": config.broker and config.broker.tls}).items():
        yield from ((f"{where}.tls.{key}", file) for key, file in (tls or ()) if file is not None)


def _is_serial(major: int, minor: int) -> bool:
    """Whether a character device is a terminal, as a serial port is; also where that cannot be told."""
    try:
        lines = DRIVERS.read_text().splitlines()
    except OSError:
        return True
    for columns in (line.split() for line in lines):
        first, _, last = columns[3].partition("-")
        if int(columns[2]) == major and int(first) <= minor <= int(last or first):
            return True
    return False
