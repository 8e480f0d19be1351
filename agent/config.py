"""This file knows the configuration: TOML -> validated frozen Config, or ConfigError naming the bad key.

What keys there are says agent/tables.py. Paths in the file are relative to the file. The keys of a device's table
that are not listed in `Device` are the options of its driver (agent/drivers/<kind>.py, class Options). A device has
a kind and a port of its own, or names the line that it shares with others:

    [devices.ups1]                    [lines.rs485]              [devices.panel1]
    kind = "ups"                      kind = "modbus"            line = "rs485"
    port = "/dev/ttyS0"               port = "/dev/ttyS4"        address = 1
"""

import hashlib
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from agent.drivers import DRIVERS, SHARED
from agent.errors import ConfigError
from agent.lines.addresses import check_port, is_loopback, without_login, without_logins
from agent.mistakes import one_of, sentence
from agent.pasted import REFUSED, too_much_hex
from agent.tables import LOCAL as LOCAL
from agent.tables import Broker as Broker
from agent.tables import Config as Config
from agent.tables import Device as Device
from agent.tables import Line as Line
from agent.tables import Name as Name
from agent.tables import Push as Push
from agent.tables import Terminal as Terminal
from agent.tables import Tls as Tls

DEPTH = 12
"""Most tables within one another; a configuration has 4."""
LONGEST = 400
"""Characters of a sentence about a pushed text: it goes into the ledger and to the centre."""


def load(path: Path) -> Config:
    """Read and check a configuration file.

    Raises ConfigError with one sentence: the file, the key's path, what is wrong and what would be right.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give the agent's TOML file") from error
    try:
        return parse(text, path.parent)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def parse(text: bytes, folder: Path) -> Config:
    """Check a configuration's text; relative paths in it start at `folder`."""
    try:
        config = _checked(_tables(text), folder)
    except ConfigError as error:
        raise ConfigError(without_logins(str(error))) from error
    return config.model_copy(update={"digest": hashlib.sha256(text).hexdigest()})


def merged(local: bytes, pushed: bytes, folder: Path) -> Config:
    """What is in force when a text was pushed: the LOCAL tables of the terminal's own file, and all others as
    pushed; how those are in the file does not matter. Relative paths start at `folder`, the file's.

    Raises ConfigError with one sentence of bounded length: the key's path, what is wrong and what would be right.
    """
    try:
        own, theirs = _tables(local), _tables(pushed)
        for name in LOCAL:
            if name in theirs:
                raise ConfigError(
                    f"{name}: the table [{name}] is the terminal's own, no push can change it: leave it out"
                )
        _no_keys(theirs)
        config = _checked({name: own[name] for name in LOCAL if name in own} | theirs, folder)
    except ConfigError as error:
        text = without_logins(str(error))
        raise ConfigError(text if len(text) <= LONGEST else f"{text[:LONGEST]}…") from error
    both = hashlib.sha256(local).digest() + hashlib.sha256(pushed).digest()
    return config.model_copy(update={"digest": hashlib.sha256(both).hexdigest()})


def _tables(text: bytes) -> dict[str, Any]:
    """A text as TOML reads it."""
    try:
        tables = tomllib.loads(text.decode("utf-8"))
    except ValueError as error:
        raise ConfigError(f"not valid TOML: {error}") from error
    except RecursionError as error:
        raise ConfigError("not valid TOML: it is nested too deeply") from error
    for path, found in _texts(tables):
        if "\0" in found:
            raise ConfigError(f"{'.'.join(path[:DEPTH])!r} has a character that is in no name: take \\u0000 out")
    for key, example in (("lines", "[lines.rs485]"), ("devices", "[devices.ups1]")):
        if not isinstance(tables.get(key, {}), dict):
            raise ConfigError(f"{key} must be tables like {example}")
    if "digest" in tables:
        raise ConfigError("digest is not a key of the file: it is computed from it")
    return tables


def _texts(tables: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every key and every text in it, with its path. Raises ConfigError for what is nested too deeply."""
    todo: list[tuple[tuple[str, ...], int, Any]] = [((), 0, tables)]
    while todo:
        path, depth, value = todo.pop()
        if depth > DEPTH:
            raise ConfigError(f"{'.'.join(path[:2])} is nested too deeply: a configuration has no tables like that")
        if isinstance(value, str):
            yield path, value
        elif isinstance(value, list):
            todo += ((path, depth + 1, one) for one in value)
        elif isinstance(value, dict):
            yield from (((*path, key), key) for key in value)
            todo += (((*path, key), depth + 1, inner) for key, inner in value.items())


def _no_keys(tables: dict[str, Any]) -> None:
    """No name, and no option of a driver, may be a key or a part of one that somebody has pasted: nothing repeats
    it. Ports and files may look like one."""
    for path, text in _texts(tables):
        if path[0] not in ("lines", "devices") or not too_much_hex(text):
            continue
        ours = (Line if path[0] == "lines" else Device).model_fields
        if len(path) == 2:
            raise ConfigError(f"{path[0]}: {REFUSED}")
        if len(path) > 2 and path[2] not in ours:
            raise ConfigError(f"{path[0]}.{path[1]}: {REFUSED}")


def single(kind: str, port: str, baud: int | None, settings: Mapping[str, Any]) -> tuple[Line | Device, Device]:
    """One device at a port, and the line it is on, as a configuration with these settings would have them.

    Raises ConfigError as `load` does.
    """
    name = "probe"
    line = {"kind": kind, "port": port} | ({} if baud is None else {"baud": baud})
    tables: dict[str, Any] = {"terminal": {"org": name, "id": name, "data": name}}
    if kind in SHARED:
        of_line = {"tls", *(option.name for option in fields(SHARED[kind].LineOptions))}
        lines = {"port": line | {key: value for key, value in settings.items() if key in of_line}}
        own = {key: value for key, value in settings.items() if key not in of_line}
        config = _checked(tables | {"lines": lines, "devices": {name: {"line": "port", **own}}}, Path())
        return config.lines["port"], config.devices[name]
    device = _checked(tables | {"devices": {name: {**line, **settings}}}, Path()).devices[name]
    return device, device


def _checked(tables: dict[str, Any], folder: Path) -> Config:
    tables["lines"] = {name: _line(name, table, folder) for name, table in tables.get("lines", {}).items()}
    tables["devices"] = {
        name: _device(name, table, tables["lines"], folder) for name, table in tables.get("devices", {}).items()
    }
    try:
        config = Config.model_validate(tables)
    except ValidationError as error:
        raise ConfigError(sentence(error, "", Config)) from error
    _check_lines(config)
    _no_shared_port(config)
    _no_open_plain_text(config)
    if config.keys:
        config.keys.check(config.devices)
    return _absolute(config, folder)


def _line(name: str, table: Any, folder: Path) -> Any:
    """The table of a shared line with the driver's options parted from the rest, and checked by the driver."""
    where = f"lines.{name}"
    kind = _kind(where, table, SHARED)
    if kind in DRIVERS:
        raise ConfigError(f"{where}.kind: a {kind} is alone on its line: give its port in its own [devices.NAME]")
    return _parted(where, {**table, "name": name}, Line, SHARED[kind].LineOptions, folder)


def _device(name: str, table: Any, lines: Mapping[str, Any], folder: Path) -> Any:
    """The table of one device with the driver's options parted from the rest, and checked by the driver."""
    where = f"devices.{name}"
    if isinstance(table, dict):
        for key in ("kind", "line", "access"):
            if not isinstance(table.get(key, ""), str):
                raise ConfigError(f"{where}.{key} must be a text, not {table[key]!r}")
    if isinstance(table, dict) and "line" in table:
        if table["line"] not in lines:
            raise ConfigError(f"{where}.line: there is no [lines.{table['line']}]; there is {one_of(lines)}")
        line = lines[table["line"]]
        for key in ("kind", "port", "baud"):
            if key in table:
                raise ConfigError(f"{where}.{key} belongs to [lines.{table['line']}], which the device is on")
        table = {**table, "kind": line["kind"], "port": line.get("port")}
        driver: Any = SHARED[line["kind"]]
    else:
        kind = _kind(where, table, DRIVERS)
        if kind in SHARED:
            raise ConfigError(
                f'{where}.kind: {kind} serves several devices: give it a [lines.NAME] table, and here line = "NAME"'
            )
        driver = DRIVERS[kind]
    usual = "own" if "own" in driver.access else min(driver.access)
    access = table.get("access", usual)
    if access not in driver.access:
        why = driver.why_not.get(access, f"it can be {one_of(driver.access)}")
        raise ConfigError(f"{where}.access cannot be {access!r}: {why}")
    parted = _parted(where, {**table, "name": name, "access": access}, Device, driver.Options, folder)
    if clash := getattr(parted["options"], "clash", lambda access: "")(access):
        raise ConfigError(f"{where}: {clash}")
    return parted


def _kind(where: str, table: Any, registry: Mapping[str, Any]) -> str:
    """The kind that a table names."""
    if not isinstance(table, dict):
        raise ConfigError(f"{where} must be a table like [{where}]")
    kind = table.get("kind")
    if kind is None:
        raise ConfigError(f"{where}.kind is missing; it can be {one_of(registry)}")
    if not isinstance(kind, str):
        raise ConfigError(f"{where}.kind must be a text, not {kind!r}")
    if kind not in DRIVERS and kind not in SHARED:
        raise ConfigError(f"{where}.kind: there is no kind {kind!r}; it can be {one_of(registry)}")
    return str(kind)


def _parted(
    where: str, table: dict[str, Any], model: type[BaseModel], options: Any, folder: Path
) -> dict[str, Any]:
    """A table with what is not ours checked as the driver's options."""
    ours = model.model_fields.keys() - {"options"}
    own = {key: value for key, value in table.items() if key in ours}
    rest = {key: value for key, value in table.items() if key not in own}
    try:
        own["options"] = TypeAdapter(options).validate_python(rest)
    except ValidationError as error:
        raise ConfigError(sentence(error, where, options, extra=tuple(ours - {"name"}))) from error
    if isinstance(own.get("port"), str):
        own["port"] = _port(own["port"], folder)
    return own


def _check_lines(config: Config) -> None:
    """What no single table can tell of a line: its devices together, and whether its port can carry its kind."""
    for line in config.lines.values():
        if line.name in config.devices:
            raise ConfigError(f"lines.{line.name} and devices.{line.name} have the same name: rename one of them")
        on_it = config.on(line)
        if not on_it:
            raise ConfigError(f'lines.{line.name} has no device: add one with line = "{line.name}"')
        try:
            SHARED[line.kind](line.options, on_it)
        except ValueError as error:
            raise ConfigError(f"lines.{line.name}: {error}") from error
        check_port(f"lines.{line.name}", line.kind, line.port, line.baud, line.tls is not None)
    for device in config.devices.values():
        if not device.line:
            check_port(f"devices.{device.name}", device.kind, device.port, device.baud, tls=False)


def _port(port: str, folder: Path) -> str:
    """A port name; a relative path (run/ups1) starts at the folder, URLs and COM3 stay."""
    if "://" in port or "/" not in port or port.startswith("/"):
        return port
    return os.path.normpath(folder.resolve() / port)


def _no_shared_port(config: Config) -> None:
    seen: dict[str, str] = {}
    alone = {f"devices.{d.name}": d.port for d in config.devices.values() if not d.line}
    for where, port in (alone | {f"lines.{line.name}": line.port for line in config.lines.values()}).items():
        line = port if "://" in port else os.path.realpath(port)
        if line in seen:
            raise ConfigError(
                f"{where}.port: {without_login(port)} is already the port of {seen[line]};"
                " every device needs a port of its own, or both share a line"
            )
        seen[line] = where


def _no_open_plain_text(config: Config) -> None:
    for host, _ in config.broker.addresses if config.broker and config.broker.tls is None else ():
        if not is_loopback(host):
            raise ConfigError(
                f"broker.tls is missing: plain text is allowed to this machine only, and {host} is another;"
                " add [broker.tls] with ca = the file of the authority that signed the broker's certificate"
            )


def _absolute(config: Config, folder: Path) -> Config:
    base = folder.resolve()
    update: dict[str, Any] = {
        "terminal": config.terminal.model_copy(update={"data": _below(base, config.terminal.data)}),
        "control": config.control.model_copy(update={"socket": _below(base, config.control.socket)}),
    }
    if config.broker:
        update["broker"] = _absolute_tls(config.broker, base)
    if config.keys:
        update["keys"] = config.keys.model_copy(update={"signers": _below(base, config.keys.signers)})
    if config.push:
        update["push"] = config.push.model_copy(update={"signers": _below(base, config.push.signers)})
    update["lines"] = {name: _absolute_tls(line, base) for name, line in config.lines.items()}
    return config.model_copy(update=update)


def _below(base: Path, path: Path) -> Path:
    return Path(os.path.normpath(base / path))


def _absolute_tls(table: Any, base: Path) -> Any:
    """The same table, with the files of its `tls` below `base`."""
    if table.tls is None:
        return table
    files = {key: _below(base, path) for key, path in table.tls if path is not None}
    return table.model_copy(update={"tls": table.tls.model_copy(update=files)})
