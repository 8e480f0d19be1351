"""This file knows how to look at the brokers for a diagnosis: name, line, TLS, whether this terminal is let in, and
how long its certificate still lasts. It connects under a name of its own, so the agent's connection stays.
"""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from agent.config import Broker, Terminal
from agent.errors import UplinkError, UplinkRefused
from agent.facts import Fact
from agent.mqtt.brokers import Address
from agent.mqtt.connection import Connection
from agent.tls import DAYS_LEFT, context, days_left

REACH_PATIENCE = 2.0
ANSWER_PATIENCE = 4.0
RENEW = "have a new certificate made for this terminal and put it in place: it is used without a restart"


def look(broker: Broker | None, terminal: Terminal) -> Iterator[Fact]:
    """The facts about every broker of the configuration. The private key goes to the TLS library only."""
    if broker is None:
        yield Fact("broker", "none is configured", "warn", "add [broker] if the centre is to see this terminal")
        return
    named = ", ".join(f"{host}:{port}" for host, port in broker.addresses)
    yield Fact("broker", f"{named}, MQTT {broker.protocol}, {'TLS' if broker.tls else 'plain text'}")
    if broker.tls and broker.tls.certificate:
        yield _certificate(broker.tls.certificate)
    for address in broker.addresses:
        several = f"{address[0]}:{address[1]} " if len(broker.addresses) > 1 else ""
        for fact in _one(broker, address, f"{terminal.org}-{terminal.id}-look"):
            yield Fact(several + fact.label, fact.value, fact.verdict, fact.next)


def resolves(host: str) -> Fact:
    """Whether a host name has an address."""
    try:
        found = sorted({str(entry[4][0]) for entry in socket.getaddrinfo(host, None)})
    except (OSError, UnicodeError) as error:
        return Fact("name", f"{host} is not found ({error})", "bad", "is the name right, and does DNS answer here?")
    return Fact("name", f"{host} is {', '.join(found)}")


def _one(broker: Broker, address: Address, name: str) -> Iterator[Fact]:
    yield (named := resolves(address[0]))
    if named.verdict != "ok":
        return
    begun = time.monotonic()
    try:
        socket.create_connection(address, REACH_PATIENCE).close()
    except OSError as error:
        text = f"no: {error.strerror or error}"
        yield Fact("reached", text, "bad", "is the line up, the broker running, the firewall open for this port?")
        return
    yield Fact("reached", f"in {(time.monotonic() - begun) * 1000:.0f} ms")
    if broker.tls:
        yield _greeting(broker, address, name)


def _greeting(broker: Broker, address: Address, name: str) -> Fact:
    """Whether a verified connection comes about and the broker lets this terminal in."""
    try:
        connection = Connection(broker, address, name, context(broker.tls) if broker.tls else None)
    except OSError as error:
        return Fact("TLS", str(error), "bad", "do ca, certificate, key and crl of [broker.tls] exist and fit?")
    try:
        connection.open(threading.Event(), ANSWER_PATIENCE)
        return Fact("TLS", f"{connection.security}, the broker's certificate is good, and it lets this terminal in")
    except UplinkRefused as error:
        return Fact("TLS", error.cause, "bad", error.next)
    except UplinkError as error:
        return Fact("TLS", str(error), "bad", "does a broker with TLS answer there? see its log")
    finally:
        connection.close()


def _certificate(path: Path) -> Fact:
    """How long this terminal's certificate lasts."""
    try:
        days = days_left(path)
    except (OSError, ValueError) as error:
        return Fact("certificate", f"{path}: {error}", "bad", "put this terminal's certificate there, as PEM")
    if days < 0:
        return Fact("certificate", f"has expired {-days:.0f} days ago by this machine's clock", "bad", RENEW)
    return Fact("certificate", f"{days:.0f} days left", *(("warn", RENEW) if days < DAYS_LEFT else ()))
