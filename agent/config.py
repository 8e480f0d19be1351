"""This file knows the configuration: TOML -> validated frozen Config, or ConfigError naming the bad key.

Paths in the file are relative to the file. The keys of a device's table that are not listed in `Device` are the
options of its driver (agent/drivers/<kind>.py, class Options).
"""

import hashlib
import ipaddress
import os
import tomllib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from agent.drivers import DRIVERS, Access
from agent.errors import ConfigError

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""A name that may stand in an MQTT topic and in a file name."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Terminal(_Table):
    """Who this terminal is, and where it keeps what must survive. `data` is a folder that only the agent writes."""

    org: Name
    id: Name
    data: Path


class Tls(_Table):
    """`ca` verifies the broker and is never optional; certificate and key are this terminal's identity."""

    ca: Path
    certificate: Path | None = None
    key: Path | None = None


class Broker(_Table):
    """The MQTT broker. Without `tls` only a broker on this machine is allowed. `keepalive` in seconds."""

    host: str
    port: Annotated[int, Field(ge=1, le=65535)] = 1883
    protocol: Literal["5", "3.1.1"] = "5"
    keepalive: Annotated[int, Field(ge=5, le=3600)] = 60
    tls: Tls | None = None

    @model_validator(mode="before")
    @classmethod
    def _usual_port(cls, table: Any) -> Any:
        if isinstance(table, dict) and "port" not in table:
            return {**table, "port": 8883 if "tls" in table else 1883}  # the registered MQTT ports
        return table


class Uplink(_Table):
    """How delivery spends the line. `linger`: seconds that rows which are not urgent wait for company;
    `catch_up`: rows a second after an outage, 0 for as fast as the broker acknowledges;
    `refresh`: seconds after which unchanged state is published again with newer times; `retry`: the longest
    wait in seconds before the next attempt to connect; `wait_for_reader`: a PUBACK that says that nobody is
    subscribed does not count as delivered (MQTT 5 only; leave it off where a broker's own rules take the rows)."""

    linger: Annotated[float, Field(ge=0, le=60)] = 1.0
    catch_up: Annotated[int, Field(ge=0)] = 5000
    refresh: Annotated[float, Field(ge=1, le=3600)] = 60.0
    retry: Annotated[float, Field(ge=0.1, le=3600)] = 60.0
    wait_for_reader: bool = False


class Control(_Table):
    """The local socket of the technician's command line."""

    socket: Path = Path("/run/tillwire/control.sock")


class Device(_Table):
    """One device. `options` is the driver's own Options object."""

    name: Name
    kind: str
    port: Annotated[str, Field(min_length=1)]
    access: Access = "own"
    baud: Annotated[int, Field(ge=50, le=4_000_000)] | None = None
    options: Any = None


class Config(_Table):
    """A whole terminal. `digest` is the SHA-256 of the file, in hex: what `session` says is running."""

    terminal: Terminal
    broker: Broker | None = None
    uplink: Uplink = Uplink()
    control: Control = Control()
    devices: Mapping[str, Device] = {}
    digest: str = ""


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
    devices = tables.get("devices", {})
    if not isinstance(devices, dict):
        raise ConfigError("devices must be tables like [devices.ups1]")
    if "digest" in tables:
        raise ConfigError("digest is not a key of the file: it is computed from it")
    tables["devices"] = {name: _device(name, table, folder) for name, table in devices.items()}
    try:
        config = Config.model_validate(tables)
    except ValidationError as error:
        raise ConfigError(_sentence(error, "", Config)) from error
    _no_shared_port(config)
    _no_open_plain_text(config)
    return _absolute(config, folder).model_copy(update={"digest": hashlib.sha256(text).hexdigest()})


def _device(name: str, table: Any, folder: Path) -> Any:
    """The table of one device with the driver's options parted from the rest, and checked by the driver."""
    where = f"devices.{name}"
    if not isinstance(table, dict):
        raise ConfigError(f"{where} must be a table like [{where}]")
    kind = table.get("kind")
    if kind is None:
        raise ConfigError(f"{where}.kind is missing; it can be {_one_of(DRIVERS)}")
    if kind not in DRIVERS:
        raise ConfigError(f"{where}.kind: there is no kind {kind!r}; it can be {_one_of(DRIVERS)}")
    driver = DRIVERS[kind]
    access = table.get("access", "own")
    if access in ("own", "listen") and access not in driver.access:
        raise ConfigError(f"{where}.access cannot be {access!r}: {driver.why_not[access]}")
    ours = Device.model_fields.keys() - {"name", "options"}
    own = {key: value for key, value in table.items() if key in ours}
    rest = {key: value for key, value in table.items() if key not in own}
    try:
        options = TypeAdapter(driver.Options).validate_python(rest)
    except ValidationError as error:
        raise ConfigError(_sentence(error, where, driver.Options, extra=tuple(ours))) from error
    if "port" in own and isinstance(own["port"], str):
        own["port"] = _port(own["port"], folder)
    return {**own, "name": name, "options": options}


def _port(port: str, folder: Path) -> str:
    """A port name; a relative path (run/ups1) starts at the folder, URLs and COM3 stay."""
    if "://" in port or "/" not in port or port.startswith("/"):
        return port
    return str(folder.resolve() / port)


def _no_shared_port(config: Config) -> None:
    seen: dict[str, str] = {}
    for device in config.devices.values():
        line = device.port if "://" in device.port else os.path.realpath(device.port)
        if line in seen:
            raise ConfigError(
                f"devices.{device.name}.port: {device.port} is already the port of devices.{seen[line]};"
                " every device needs a port of its own"
            )
        seen[line] = device.name


def _no_open_plain_text(config: Config) -> None:
    broker = config.broker
    if broker is None or broker.tls is not None:
        return
    try:
        loopback = broker.host == "localhost" or ipaddress.ip_address(broker.host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ConfigError(
            f"broker.tls is missing: plain text is allowed to this machine only, and {broker.host} is another;"
            " add [broker.tls] with ca = the file of the authority that signed the broker's certificate"
        )


def _absolute(config: Config, folder: Path) -> Config:
    base = folder.resolve()
    update: dict[str, Any] = {
        "terminal": config.terminal.model_copy(update={"data": base / config.terminal.data}),
        "control": config.control.model_copy(update={"socket": base / config.control.socket}),
    }
    if config.broker and config.broker.tls:
        files = {key: base / path for key, path in config.broker.tls if path is not None}
        update["broker"] = config.broker.model_copy(update={"tls": config.broker.tls.model_copy(update=files)})
    return config.model_copy(update=update)


def _one_of(words: Any) -> str:
    return ", ".join(sorted(words)) or "(none)"


def _sentence(error: ValidationError, prefix: str, table: Any, extra: tuple[str, ...] = ()) -> str:
    """The first mistake of a pydantic report as one sentence, and how many more there are."""
    first, *more = error.errors()
    path = ".".join(str(part) for part in (*([prefix] if prefix else []), *first["loc"]))
    match first["type"]:
        case "missing":
            text = f"{path} is missing"
        case "extra_forbidden" | "unexpected_keyword_argument":
            known = sorted({*_keys(table, first["loc"][:-1]), *extra})
            close = get_close_matches(str(first["loc"][-1]), known, 1)
            hint = f"did you mean {close[0]}?" if close else f"known keys are {', '.join(known)}"
            text = f"{path} is not a known key; {hint}"
        case "literal_error":
            text = f"{path} cannot be {first['input']!r}; it can be {first['ctx']['expected']}"
        case "string_pattern_mismatch":
            text = f"{path} cannot be {first['input']!r}; use letters, digits, '.', '_' and '-', at most 64"
        case _:
            text = f"{path}: {first['msg'][0].lower()}{first['msg'][1:]}, not {first['input']!r}"
    return text + (f" (and {len(more)} more)" if more else "")


def _keys(table: Any, path: tuple[int | str, ...]) -> list[str]:
    """The keys that the table at `path` below a model knows."""
    for part in path:
        field = getattr(table, "model_fields", {}).get(str(part))
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())] if field else []
        table = next((kind for kind in kinds if hasattr(kind, "model_fields")), None)
    return [f.name for f in fields(table)] if is_dataclass(table) else list(getattr(table, "model_fields", ()))
