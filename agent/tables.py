"""This file knows the tables of a configuration: their keys, what each may be, and which of them cannot be pushed.

How a file becomes a Config says agent/config.py.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from agent.drivers import Access
from agent.keys.table import Keys
from agent.lines.addresses import broker_address, broker_table

LOCAL = ("terminal", "control", "keys", "push")
"""The tables that are the technician's alone: who the terminal is, who may do what to it. No push changes them."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""A name that may stand in an MQTT topic and in a file name."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Terminal(_Table):
    """Who this terminal is, and where it keeps what must survive. `data` is a folder that only the agent writes,
    `disk` the MiB that its store may take; `utc_offset`: minutes that its calendar is ahead of UTC; `groups`: names
    by which the centre means several terminals at once."""

    org: Name
    id: Name
    data: Path
    disk: Annotated[int, Field(ge=16)] = 256
    utc_offset: Annotated[int, Field(ge=-720, le=840)] = 480
    groups: Annotated[tuple[Name, ...], Field(max_length=32)] = ()


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


Command = Literal["self_test", "counters", "state", "journal", "restart", "diagnostics", "maintenance", "key_order"]
"""What the centre may ask a terminal to do. "reboot" is not among them: it has a key of its own."""


class Push(_Table):
    """What the centre may do here; without this table nothing that it sends is taken. `signers`: the file of those
    whose signatures count; `probation`: seconds in which a pushed configuration must have shown that it works;
    `commands`: what may be asked for; `reboot`: whether that may be, too."""

    signers: Path
    probation: Annotated[int, Field(ge=10, le=3600)] = 120
    commands: tuple[Command, ...] = get_args(Command)
    reboot: Annotated[bool, Field(strict=True)] = False


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
    """A whole terminal. `digest` tells what is in force, as `session` says it: the SHA-256 (hex) of the file, or of
    the SHA-256 of the file and that of the pushed text, one after the other."""

    terminal: Terminal
    broker: Broker | None = None
    uplink: Uplink = Uplink()
    control: Control = Control()
    keys: Keys | None = None
    push: Push | None = None
    lines: Mapping[str, Line] = {}
    devices: Mapping[str, Device] = {}
    digest: str = ""

    def on(self, line: Line) -> dict[str, Any]:
        """The devices that share a line, with their options."""
        return {d.name: d.options for d in self.devices.values() if d.line == line.name}
