"""This file knows the configuration: TOML -> validated frozen Config, or ConfigError naming the bad key.

Paths in the file are relative to the file. The keys of a device's table that are not listed in `Device` are the
options of its driver (agent/drivers/<kind>.py, class Options). A device has a kind and a port of its own, or names
the line that it shares with others:

    [devices.ups1]                    [lines.rs485]              [devices.panel1]
    kind = "ups"                      kind = "modbus"            line = "rs485"
    port = "/dev/ttyS0"               port = "/dev/ttyS4"        address = 1
"""

import hashlib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from agent.addresses import broker_address, broker_table, check_port, is_loopback
from agent.drivers import DRIVERS, SHARED, Access
from agent.errors import ConfigError
from agent.keytable import Keys
from agent.mistakes import one_of, sentence

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""A name that may stand in an MQTT topic and in a file name."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Terminal(_Table):
    """Who this terminal is, and where it keeps what must survive. `data` is a folder that only the agent writes,
    `disk` the MiB that its store may take; `utc_offset`: minutes that its calendar is ahead of UTC."""

    org: Name
    id: Name
    data: Path
    disk: Annotated[int, Field(ge=16)] = 256
    utc_offset: Annotated[int, Field(ge=-720, le=840)] = 480


class Tls(_Table):
    """`ca` verifies the broker and is never optional; certificate and key are this terminal's identity. With `crl`
    (a file of the authority) the broker's certificate must also not be revoked, and the list be in date."""

    ca: Path
    certificate: Path | None = None
    key: Path | None = None
    crl: Path | None = None


class Broker(_Table):
    """The MQTT broker: `host` and `port`, or `hosts` = ["HOST:PORT", …] for several that stand for one another.
    Without `tls` only brokers on this machine are allowed. A lost terminal is missed after 1.5 `keepalive`."""

    host: str = ""
    hosts: Annotated[tuple[str, ...], Field(max_length=16)] = ()
    port: Annotated[int, Field(ge=1, le=65535)] = 1883
    protocol: Literal["5", "3.1.1"] = "5"
    keepalive: Annotated[int, Field(ge=5, le=3600)] = 180
    tls: Tls | None = None

    @model_validator(mode="before")
    @classmethod
    def _usual_port(cls, table: Any) -> Any:
        return broker_table(table) if isinstance(table, dict) else table

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """(host, port) of every broker, in the order of preference."""
        return tuple(broker_address(text, self.port) for text in self.hosts) or ((self.host, self.port),)


class Uplink(_Table):
    """How delivery spends the line. `linger`: seconds that rows wait for company which are not urgent, and a state
    that only they have changed six times as long; `catch_up`: rows a second after an outage, 0 for no limit;
    `refresh`: seconds after which unchanged state is published again with newer times; `retry`: the longest
    wait in seconds before the next attempt to connect; `refused`: the same for a broker that refuses what only
    people can mend; `wait_for_reader`: a PUBACK that says that nobody is subscribed does not count as delivered
    (MQTT 5 only; leave it off where a broker's own rules take the rows); `budget`: MB a month, 0 for no limit."""

    linger: Annotated[float, Field(ge=0, le=3600)] = 300.0
    catch_up: Annotated[int, Field(ge=0)] = 5000
    refresh: Annotated[float, Field(ge=1, le=3600)] = 3600.0
    retry: Annotated[float, Field(ge=0.1, le=3600)] = 60.0
    refused: Annotated[float, Field(ge=0.1, le=86400)] = 900.0
    wait_for_reader: bool = False
    budget: Annotated[float, Field(ge=0)] = 0.0


class Control(_Table):
    """The local socket of the technician's command line."""

    socket: Path = Path("/run/tillwire/control.sock")


class Device(_Table):
    """One device. `options` is the driver's own Options object; `line` the name of the line that it shares with
    others, or empty."""

    name: Name
    kind: str
    port: Annotated[str, Field(min_length=1)]
    access: Access = "own"
    baud: Annotated[int, Field(ge=50, le=4_000_000)] | None = None
    line: str = ""
    options: Any = None


class Line(_Table):
    """A line that several devices share. `options` is the driver's own LineOptions object; `tls` is for wss://."""

    name: Name
    kind: str
    port: Annotated[str, Field(min_length=1)]
    baud: Annotated[int, Field(ge=50, le=4_000_000)] | None = None
    tls: Tls | None = None
    options: Any = None


class Config(_Table):
    """A whole terminal. `digest` is the SHA-256 of the file, in hex: what `session` says is running."""

    terminal: Terminal
    broker: Broker | None = None
    uplink: Uplink = Uplink()
    control: Control = Control()
    keys: Keys | None = None
    lines: Mapping[str, Line] = {}
    devices: Mapping[str, Device] = {}
    digest: str = ""

    def on(self, line: Line) -> dict[str, Any]:
        """The devices that share a line, with their options."""
        return {d.name: d.options for d in self.devices.values() if d.line == line.name}


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
        tables = tomllib.loads(text.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"not valid TOML: {error}") from error
    for key, example in (("lines", "[lines.rs485]"), ("devices", "[devices.ups1]")):
        if not isinstance(tables.get(key, {}), dict):
            raise ConfigError(f"{key} must be tables like {example}")
    if "digest" in tables:
        raise ConfigError("digest is not a key of the file: it is computed from it")
    return _checked(tables, folder).model_copy(update={"digest": hashlib.sha256(text).hexdigest()})


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
                f"{where}.port: {port} is already the port of {seen[line]};"
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
