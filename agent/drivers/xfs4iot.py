"""This file knows XFS4IoT, the standard by which vendors' services tell of the devices that they own.

Source: XFS4IoT release 2021-1 (CWA 17852:2022) to 2024-3, ServicePublisher and Common, as
KAL-ATM-Software/KAL_XFS4IoT_SP-Dev implements them in both wire generations. Each publisher (one process of one
vendor; several on a machine are normal) lists the addresses of its services; each service is a websocket with
commands, answers and events in JSON. An address is never built, only taken from a list.

The agent only watches: nothing that it can send (xfs_connection.COMMANDS) moves anything, takes exclusive access
or changes a setting, and it never registers as a VendorMode application, for whom a service would wait before it
lets a technician in. Only an encryptor with `keys = true` gets the commands of a key ceremony besides.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from agent.drivers.contract import Access, Line
from agent.drivers.framing import Records
from agent.drivers.hearing import BadFrames
from agent.drivers.transcript import Transcript
from agent.drivers.xfs_connection import OUR_FAULT, SERVICES, Connection, last_segment
from agent.drivers.xfs_messages import clean
from agent.drivers.xfs_service import Service, XfsLineOptions
from agent.model import Heard, Operation, Outcome, Reading

LIMIT = 2 * 1024 * 1024 + 1024
"""The most bytes of one record: a message of 2 MiB and the address it came from."""

MOST_PUBLISHERS = 16
MOST_SHOWN = 32
DISCOVER = 30.0
"""Seconds between two questions to a publisher while a service is missing."""

REPEAT = 5.0
ADDRESS = re.compile(r"wss?://[!-~]{1,250}")


@dataclass(frozen=True, slots=True)
class XfsOptions:
    """service: the last part of the service's address, in any case, e.g. SimCardReader. When two publishers have
    one of that name, the first to answer is taken; give the line the full address of one publisher to choose.
    paper: XFS4IoT's paper source -> its name here, e.g. {upper = "receipt"}; one that is not listed keeps its name.
    keys: whether this is an encryptor into which keys are loaded, under dual control, through this agent.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    service: str
    paper: Mapping[str, str] = field(default_factory=dict)
    keys: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[!-~]{1,64}", self.service) or set(self.service) & set("/?#"):
            raise ValueError("service must be the last part of the service's address, e.g. SimCardReader")
        if not all(re.fullmatch(r"[A-Za-z0-9_-]{1,32}", name) for name in self.paper.values()):
            raise ValueError("paper must give names of letters, digits, '_' and '-'")


@dataclass(slots=True)
class Publisher:
    """One publisher's connection, the services that it lists, and why it does not answer. `bad`: messages of its
    former connections that were none, or that nobody had asked for."""

    connection: Connection | None = None
    asked_at: float = float("-inf")
    services: dict[str, str] | None = None
    state: str = ""
    trouble: str = ""
    bad: int = 0

    def end(self, state: str, trouble: str) -> None:
        self.bad += self.connection.bad if self.connection else 0
        self.connection, self.state, self.trouble = None, state, trouble


class Xfs4iot:
    """The services of one machine. A message of at most 2 MiB is buffered."""

    line: ClassVar[Line] = Line(medium="messages")
    access: ClassVar[frozenset[Access]] = frozenset({"service"})
    why_not: ClassVar[Mapping[Access, str]] = {
        "own": "an XFS4IoT service owns the device, and tells its status to whoever asks",
        "listen": "an XFS4IoT service answers each client on a connection of its own; there is nothing to overhear",
    }
    operations: ClassVar[Mapping[str, str]] = {}
    LineOptions: ClassVar[type[XfsLineOptions]] = XfsLineOptions
    moving: ClassVar[frozenset[str]] = frozenset()
    Options: ClassVar[type[XfsOptions]] = XfsOptions

    def __init__(self, options: XfsLineOptions, devices: Mapping[str, XfsOptions]) -> None:
        self.transcript = Transcript()
        self._timing = options
        self._records = Records(LIMIT)
        self._publishers: dict[str, Publisher] = {}
        self._wanted: dict[str, str] = {}
        for name, device in devices.items():
            if (other := self._wanted.setdefault(device.service.lower(), name)) != name:
                raise ValueError(f"{other} and {name} are the same service {device.service}; remove one of them")
        self._services = {name: Service(d.paper, options, self.transcript, d.keys) for name, d in devices.items()}
        self._keyed = {name for name, device in devices.items() if device.keys}
        self._bad_frames = {name: BadFrames() for name in devices}
        self._named = {name: d.service for name, d in devices.items()}
        self._judged_at = float("-inf")
        self._outgoing = b""
        self._outcomes: list[Heard] = []

    def receive(self, data: bytes, now: float) -> list[Heard]:
        """What whole records mean; see the contract."""
        out: list[Heard] = []
        for act, channel, text in self._records.feed(data):
            by_uri = {service.uri: name for name, service in self._services.items() if service.uri}
            name = by_uri.get(channel, "")
            if not name:
                self._publisher(act, channel, text, now)
            elif act == "o":
                self._services[name].opened(now)
            elif act == "t":
                out += _heard(name, self._services[name].take(text, now))
            else:
                out += _heard(name, self._services[name].lost(_reason(text), now))
        return out

    def tick(self, now: float) -> list[Heard]:
        """Ask what is due, and judge silence."""
        out, self._outcomes = self._outcomes, []
        for uri, publisher in self._publishers.items():
            self._discover(uri, publisher, now)
        # What cannot be told to be of one service counts for each.
        publishers = self._publishers.values()
        bad = self._records.bad + sum(p.bad + (p.connection.bad if p.connection else 0) for p in publishers)
        for name, service in self._services.items():
            counted = self._bad_frames[name].report(service.bad + bad, now)
            out += _heard(name, [*service.tick(now), *service.outcomes(), *counted])
        return out + self._judge(now)

    def outgoing(self) -> bytes:
        """Records to send since the last call."""
        data, self._outgoing = self._outgoing, b""
        for publisher in self._publishers.values():
            if publisher.connection is not None:
                data += publisher.connection.outgoing
                publisher.connection.outgoing = b""
        return data + b"".join(service.outgoing() for service in self._services.values())

    def perform(self, operation: Operation, now: float) -> None:
        """Begin a key operation. There are no others: who owns the device performs them."""
        if operation.device in self._keyed:
            self._services[operation.device].perform(operation, now)
            return
        why = "a device behind XFS4IoT is only watched; the program that owns it operates it"
        self._outcomes += [Heard(operation.device, (Outcome(operation.id, "refused", why, now),))]

    def _publisher(self, act: str, channel: str, text: bytes, now: float) -> None:
        """A record of a publisher's channel; one that opens by itself is a publisher."""
        publisher = self._publishers.get(channel)
        if publisher is None:
            if act != "o" or len(self._publishers) >= MOST_PUBLISHERS:
                return
            publisher = self._publishers[channel] = Publisher()
            self._discover(channel, publisher, now)
        connection = publisher.connection
        if connection is None:
            return
        if act == "o":
            connection.opened(now)
        elif act == "t":
            message = connection.take(text)
            if message is None:
                return
            if message.code in OUR_FAULT and connection.untried(SERVICES):
                publisher.asked_at = float("-inf")  # it may take another version of the same question
            elif message.kind != "event" and message.code:
                publisher.state, publisher.trouble = "rubbish", f"{channel} refuses {message.name}: {message.code}"
            elif message.kind != "event" or "services" in message.payload:
                publisher.state = publisher.trouble = ""
                self._list(channel, publisher, message.payload.get("services"))
        else:
            publisher.end("silent", f"{channel} does not hold the connection: {_reason(text) or 'it was closed'}")

    def _discover(self, uri: str, publisher: Publisher, now: float) -> None:
        connection = publisher.connection
        state, why = connection.trouble(now) if connection else ("", "")
        if connection is not None and state:
            connection.hang_up()
            self._outgoing += connection.outgoing
            publisher.end(state, why)
            connection = None
        wait = DISCOVER if publisher.services is not None else REPEAT
        lacking = not all(service.connected for service in self._services.values())
        if lacking and now - publisher.asked_at >= wait and not (connection and connection.waits_for(SERVICES)):
            publisher.asked_at = now
            if connection is None:
                timing = self._timing
                connection = Connection(uri, timing.acknowledge, timing.completion, self.transcript)
                publisher.connection = connection
            connection.ask(SERVICES, now)

    def _list(self, uri: str, publisher: Publisher, listed: Any) -> None:
        """Merge what a publisher lists, be it its answer or an event about late services."""
        publisher.services = publisher.services or {}
        for item in listed if isinstance(listed, list) else []:
            address = item.get("serviceURI") if isinstance(item, dict) else None
            if not isinstance(address, str) or not ADDRESS.fullmatch(address) or address in self._publishers:
                continue
            if uri.startswith("wss:") and not address.startswith("wss:"):
                continue  # what is protected leads to nothing that is not
            segment = last_segment(address)
            if len(publisher.services) < MOST_SHOWN:
                publisher.services[segment] = address
            service = self._services.get(self._wanted.get(segment.lower(), ""))
            if service is not None and not service.connected:
                service.uri = address

    def _judge(self, now: float) -> list[Heard]:
        """What is to be said of the services that no publisher has listed yet."""
        lost = [name for name, service in self._services.items() if not service.uri]
        answered = [p for p in self._publishers.values() if p.services is not None]
        trouble = [p for p in self._publishers.values() if p.trouble]
        if not lost or now - self._judged_at < REPEAT or not (answered or trouble):
            return []
        self._judged_at = now
        state = "missing" if answered else min(p.state for p in trouble)  # rubbish tells more than silent
        there = sorted({segment for p in answered for segment in p.services or {}})[:MOST_SHOWN]
        why = "; ".join(p.trouble for p in trouble)[:300]
        found = f"the services here are {', '.join(clean(name, 64) for name in there) or 'none'}"
        out = []
        for name in lost:
            raw = f"no publisher lists a service {self._named[name]}; {found}" if answered else ""
            both = "; ".join(part for part in (raw, why) if part)
            out += _heard(name, [Reading("link.state", state, now, raw=both)])
        return out


def _heard(device: str, said: Sequence[Reading | Outcome]) -> list[Heard]:
    return [Heard(device, tuple(said))] if said else []


def _reason(text: bytes) -> str:
    return clean(text.decode("utf-8", "replace"))
