"""This file knows which addresses a port can have: serial lines, servers and websockets have their own."""

import ipaddress
from collections.abc import Mapping
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
    scheme, mark, rest = port.partition("://")
    medium = driver_class(kind).line.medium
    try:
        host = urlsplit(port).hostname if mark else ""
        valid = not mark or (bool(host) and urlsplit(port).port != 0)
    except ValueError:
        valid = False
    if not valid:
        raise ConfigError(f"{where}.port: {port} is no address; write {ADDRESSES[medium]}")
    if mark and scheme not in SCHEMES[medium]:
        raise ConfigError(f"{where}.port: {port} cannot be the port of a {kind}; write {ADDRESSES[medium]}")
    if not mark and medium != "serial":
        raise ConfigError(f"{where}.port: {port} is no address of a {kind}; write {ADDRESSES[medium]}")
    if baud is not None and medium != "serial":
        raise ConfigError(f"{where}.baud: a {kind} is on no serial line; leave it out")
    if scheme == "ws" and not is_loopback(host or ""):
        raise ConfigError(
            f"{where}.port: plain text is allowed to this machine only, and {rest} is another; use wss://"
        )
    if scheme == "wss" and not tls:
        raise ConfigError(f"{where}.tls is missing: add [{where}.tls] with ca = the authority of {rest}")
    if scheme != "wss" and tls:
        raise ConfigError(f"{where}.tls: {port} does not use TLS; write wss:// or leave the table out")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine: plain text is allowed to it, and to no other."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
