"""This file knows which addresses a port can have: serial lines, servers and websockets have their own."""

import ipaddress
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from agent.drivers import driver_class
from agent.drivers.contract import Medium
from agent.errors import ConfigError

SCHEMES: Mapping[Medium, tuple[str, ...]] = {
    "serial": ("socket", "rfc2217"),
    "tcp": ("socket",),
    "messages": ("ws", "wss"),
}
"""What may stand before :// in a port. pyserial knows more; one of them writes all that passes into a file."""
ADDRESSES: Mapping[Medium, str] = {
    "serial": "a serial port, socket://HOST:PORT or rfc2217://HOST:PORT",
    "tcp": "socket://HOST:PORT",
    "messages": "ws://127.0.0.1 or wss://HOST",
}


def check_port(where: str, kind: str, port: str, baud: int | None, tls: bool) -> None:
    """Whether a port can carry a kind. `where` is the path of its table, `tls` whether that has a table tls.

    Raises ConfigError with the key, what is wrong, and what would be right.
    """
    shown = without_login(port)  # sentences go into the ledger and to the centre
    scheme, mark, rest = shown.partition("://")
    medium = driver_class(kind).line.medium
    try:
        host = urlsplit(port).hostname if mark else ""
        valid = not mark or (bool(host) and urlsplit(port).port != 0)
    except ValueError:
        valid = False
    if not valid:
        raise ConfigError(f"{where}.port: {shown} is no address; write {ADDRESSES[medium]}")
    if mark and scheme not in SCHEMES[medium]:
        raise ConfigError(f"{where}.port: {shown} cannot be the port of a {kind}; write {ADDRESSES[medium]}")
    if not mark and medium != "serial":
        raise ConfigError(f"{where}.port: {shown} is no address of a {kind}; write {ADDRESSES[medium]}")
    if baud is not None and medium != "serial":
        raise ConfigError(f"{where}.baud: a {kind} is on no serial line; leave it out")
    if scheme == "ws" and not is_loopback(host or ""):
        raise ConfigError(
            f"{where}.port: plain text is allowed to this machine only, and {rest} is another; use wss://"
        )
    if scheme == "wss" and not tls:
        raise ConfigError(f"{where}.tls is missing: add [{where}.tls] with ca = the authority of {rest}")
    if scheme != "wss" and tls:
        raise ConfigError(f"{where}.tls: {shown} does not use TLS; write wss:// or leave the table out")


def broker_table(table: Mapping[str, Any]) -> dict[str, Any]:
    """A [broker] table with its usual port, MQTT's registered one. Raises ValueError with what would be right."""
    if bool(table.get("host")) == bool(table.get("hosts")):
        raise ValueError('give host = "NAME", or hosts = ["NAME:PORT", …] for several')
    if "hosts" in table and "port" in table:
        raise ValueError("port belongs to host; in hosts it stands behind each name, as NAME:PORT")
    for text in table["hosts"] if isinstance(table.get("hosts"), list) else ():
        broker_address(str(text), 0)
    return {"port": 8883 if "tls" in table else 1883, **table}


def broker_address(text: str, usual: int) -> tuple[str, int]:
    """Host and port of HOST, HOST:PORT or [IPv6]:PORT; `usual` is the port where none is given.

    Raises ValueError with what would be right.
    """
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, 0
    if not host or port == 0 or parts.netloc != text or "@" in text or text.endswith(":"):
        shown = text.rpartition("@")[2]
        raise ValueError(f"{shown!r} is no broker; write HOST, HOST:PORT or [IPv6 address]:PORT")
    return host, usual if port is None else port


def without_login(port: str) -> str:
    """A port without the user name and the password that a URL may hold."""
    scheme, mark, rest = port.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if mark else port


def without_logins(sentence: str) -> str:
    """A sentence that may repeat what somebody wrote, without what stands before an @ there."""
    return re.sub(r"(\w+://)?[^\s'\"]*@", r"\1", sentence)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine: plain text is allowed to it, and to no other."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
