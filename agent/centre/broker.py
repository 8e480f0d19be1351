"""This file knows the centre's end of the broker: it listens to what a fleet says, and publishes to its terminals.

A rollout takes minutes or hours, and the line may break meanwhile: it is made anew, what stands retained is heard
again, and what was not acknowledged is published again. When the broker stays away, that is told.
"""

import secrets
import threading
import time
from collections import deque
from pathlib import Path
from random import SystemRandom

from agent.centre.fleet import Fleet
from agent.config import Broker, Tls
from agent.errors import ConfigError, UplinkError, UplinkRefused
from agent.lines.addresses import broker_address, is_loopback
from agent.mqtt.brokers import Brokers
from agent.mqtt.connection import Connection, ReasonCode, refused
from agent.tls import context

GIVE_UP = 120.0
"""Seconds without a broker after which nobody waits for it any longer."""
RETRY = 10.0
PATIENCE = 30.0
"""Seconds to wait for an acknowledgement before the connection is taken for dead."""
NOT_AUTHORIZED = 0x87
Message = tuple[str, bytes, bool]
"""Topic, payload, whether the broker is to keep it."""


def broker(text: str, protocol: str, ca: Path | None, certificate: Path | None, key: Path | None) -> Broker:
    """The broker at HOST:PORT. Raises ConfigError as a configuration with it would: there is no way here to
    unverified TLS, and none to plain text but to this machine."""
    if protocol not in ("5", "3.1.1"):
        raise ConfigError(f"--protocol {protocol}: there is 5 and 3.1.1")
    try:
        host, port = broker_address(text, 8883 if ca else 1883)
    except ValueError as error:
        raise ConfigError(f"--broker: {error}") from error
    if ca is None and (certificate or key):
        raise ConfigError("--ca is missing: give the file of the authority that signed the broker's certificate")
    if ca is None and not is_loopback(host):
        raise ConfigError(
            f"--ca is missing: plain text is allowed to this machine only, and {host} is another; give the file of"
            " the authority that signed the broker's certificate"
        )
    tls = Tls(ca=ca, certificate=certificate, key=key) if ca else None
    return Broker.model_validate({"host": host, "port": port, "protocol": protocol, "tls": tls})


class Centre:
    """One centre's program at the broker. What it hears goes to `fleet`; `news` are the terminals of which there
    was some, until whoever looks at them takes them out.

    Raises UplinkRefused when people have to act, UplinkError when the broker stays away.
    """

    def __init__(self, broker: Broker, fleet: Fleet, give_up: float = GIVE_UP) -> None:
        self._broker, self._fleet, self._give_up = broker, fleet, give_up
        self._name = f"centre-{secrets.token_hex(4)}"
        self._stop = threading.Event()
        self._connection: Connection | None = None
        self._waiting: deque[Message] = deque()
        self._flying: dict[int, Message] = {}
        self._since, self._listens = 0.0, False
        self.news: set[str] = set()

    def __enter__(self) -> "Centre":
        self._open()
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection:
            self._connection.close()
            self._connection.cut()

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """Where the broker is."""
        return self._broker.addresses

    @property
    def busy(self) -> bool:
        """Whether something is published that the broker has not acknowledged."""
        return bool(self._waiting or self._flying)

    def publish(self, topic: str, payload: bytes, retain: bool) -> None:
        """Have a message published, and again until it is acknowledged."""
        if not self._waiting and not self._flying:
            self._since = time.monotonic()
        self._waiting.append((topic, payload, retain))

    def gather(self, quiet: float) -> None:
        """Hear what stands retained, until nothing came for `quiet` seconds: MQTT does not say when it is all."""
        end = time.monotonic() + quiet
        while (now := time.monotonic()) < end:
            if self.turn(end - now):
                end = time.monotonic() + quiet

    def drop(self) -> list[str]:
        """Publish nothing of what still waits; returns its topics."""
        topics = [topic for topic, _, _ in self._waiting]
        self._waiting.clear()
        return topics

    def flush(self) -> None:
        """Wait until everything is acknowledged."""
        while self.busy:
            self.turn(1.0)

    def turn(self, patience: float) -> bool:
        """Publish what waits, and hear what comes within `patience` seconds. Returns whether a message came."""
        try:
            return self._turned(patience)
        except UplinkRefused:
            raise
        except UplinkError as error:
            self._again(error)
            return True

    def _turned(self, patience: float) -> bool:
        if self._connection is None:
            raise UplinkError("the connection was lost")
        while self._waiting and len(self._flying) < self._connection.window:
            mid = self._connection.publish(*self._waiting[0])
            self._flying[mid] = self._waiting.popleft()
        if self.busy and time.monotonic() > self._since + PATIENCE:
            raise UplinkError(f"no PUBACK for {PATIENCE:.0f} s")
        self._connection.turn(patience)
        return self._take_in(self._connection)

    def _take_in(self, connection: Connection) -> bool:
        came = False
        while connection.events:
            kind, content = connection.events.popleft()
            if kind == "lost":
                raise refused("the connection was lost", content)
            if kind == "ack":
                self._acknowledged(*content)
            elif kind == "subscribed":
                self._listens = True
                _heard_out(content[1], self._fleet)
            elif kind == "message":
                came = True
                if terminal := self._fleet.take(content[0], content[1]):
                    self.news.add(terminal)
        return came

    def _acknowledged(self, mid: int, code: ReasonCode) -> None:
        topic, _, _ = self._flying.pop(mid, ("", b"", False))
        self._since = time.monotonic()
        if code.is_failure:
            raise _denied(f"the broker does not take a message to {topic}", code)

    def _open(self) -> None:
        self._waiting.extendleft(reversed(self._flying.values()))
        self._flying.clear()
        address = self._broker.addresses[0]
        try:
            tls = context(self._broker.tls) if self._broker.tls else None
        except OSError as error:
            raise UplinkRefused(
                f"the certificates cannot be used: {error}", "do --ca, --certificate and --key exist and fit?"
            ) from error
        self._connection = connection = Connection(self._broker, address, self._name, tls)
        connection.open(self._stop)
        connection.subscribe(self._fleet.topics)
        self._since, self._listens = time.monotonic(), False
        while not self._listens:
            connection.turn(1.0)
            self._take_in(connection)
            if time.monotonic() > self._since + PATIENCE:
                raise UplinkError(f"{connection.where} does not answer a subscription for {PATIENCE:.0f} s")

    def _again(self, error: UplinkError) -> None:
        """Make the connection anew, with growing waits. Raises when the broker stays away."""
        brokers = Brokers(self._broker.addresses, RETRY, RETRY)
        draw, end = SystemRandom().uniform, time.monotonic() + self._give_up
        while (left := end - time.monotonic()) > 0:
            if self._connection:
                self._connection.cut()
            self._stop.wait(min(left, brokers.failed(time.monotonic(), draw)))
            try:
                return self._open()
            except UplinkRefused:
                raise
            except UplinkError as failed:
                error = failed
        raise UplinkError(f"there was no broker for {self._give_up:.0f} s: {error}")


def _heard_out(codes: list[ReasonCode], fleet: Fleet) -> None:
    """Whether the broker lets us hear the fleet."""
    for topic, code in zip(fleet.topics, codes, strict=False):
        if code.is_failure:
            raise _denied(f"the broker does not let the centre read {topic}", code)


def _denied(sentence: str, code: ReasonCode) -> UplinkError:
    if code.value in (NOT_AUTHORIZED, 0x80):
        acl = (
            "let the centre's identity read session, config/reported and command/result, and write config/desired,"
        )
        return UplinkRefused(sentence, f"correct the broker's access list: {acl} command and trust/desired")
    return refused(sentence, code)
