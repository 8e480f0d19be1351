"""Recorded and scripted XFS4IoT services for tests, and the other end of an Xfs4iot driver's connections."""

import json
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.drivers.framing import Records, record
from agent.drivers.xfs4iot import Xfs4iot, XfsOptions
from agent.drivers.xfs_service import XfsLineOptions
from agent.model import Heard, Outcome, Reading

FOLDER = Path(__file__).parent / "recordings"
PUBLISHER = "ws://127.0.0.1:5846/xfs4iot/v1.0"
GENERATIONS = ("v1", "v2")
SERVICES = {
    "card": "SimCardReader",
    "dispenser": "SimCashDispenser",
    "acceptor": "SimCashAcceptor",
    "epp": "SimEncryptor",
    "printer": "SimPrinter",
    "sensors": "SimAuxiliaries",
    "vendor": "SimVendorMode",
}

Message = dict[str, Any]

ONLINE: Message = {"common": {"device": "online"}}
UNIT: Message = {
    "status": "ok",
    "cash": {
        "status": {
            "initial": {"unrecognized": 0, "typeEUR20": {"fit": 150, "unfit": 3}},
            "out": {"presented": {"typeEUR20": {"fit": 2}}},
            "in": {"retractOperations": 9, "retracted": {"unrecognized": 1}},
            "replenishmentStatus": "ok",
        }
    },
}
"""What scripted services say of themselves, and of a storage unit."""


def uri(service: str) -> str:
    """The address of a service of the usual publisher; of the publisher itself for an empty name."""
    return f"{PUBLISHER}/{service}/" if service else PUBLISHER


@dataclass
class Recording:
    """What one service says: its answers by command name, oldest first, and its unsolicited events in order."""

    answers: dict[str, deque[list[Message]]] = field(default_factory=dict)
    events: list[Message] = field(default_factory=list)

    def answer(self, command: Message) -> list[Message]:
        """The acknowledge, events and completion of a command, with the command's own requestId. The last answer of
        each name is given for ever; a command that has none is not answered."""
        header = command["header"]
        turns = self.answers.get(header["name"])
        if not turns:
            return []
        messages = turns.popleft() if len(turns) > 1 else turns[0]
        return [{**m, "header": {**m["header"], "requestId": header["requestId"]}} for m in messages]


def recordings(generation: str) -> dict[str, Recording]:
    """Every service of a recorded session by its name; the publisher's name is empty."""
    found: dict[str, Recording] = {}
    asked: dict[tuple[str, int], list[Message]] = {}
    for text in (FOLDER / f"generation-{generation}.jsonl").read_text().splitlines():
        line = json.loads(text)
        one, message = found.setdefault(line["service"], Recording()), line["msg"]
        number = message["header"].get("requestId")
        if line["dir"] == ">":
            asked[line["service"], number] = []
            turns = one.answers.setdefault(message["header"]["name"], deque())
            turns.append(asked[line["service"], number])
        elif number:
            asked[line["service"], number].append(message)
        else:
            one.events.append(message)
    return found


def event(name: str, payload: Any = None, kind: str = "unsolicited") -> Message:
    """An unsolicited event of generation V2."""
    return {"header": {"type": kind, "name": name, "version": "2.0"}, "payload": payload}


def answer(name: str, payload: Any = None, generation: str = "v2", code: str = "success") -> list[Message]:
    """An acknowledge and a completion as a service of a generation, or a hybrid, writes them."""
    header: Message = {"name": name, "requestId": 0} | ({} if generation == "v1" else {"version": "2.0"})
    ack: Message = {"header": {**header, "type": "acknowledge"}}
    done: Message = {"header": {**header, "type": "completion"}, "payload": payload}
    if generation == "v1":
        ack["payload"] = {"status": "ok"}
    if generation == "v2":
        done["header"]["completionCode"] = code
    else:
        done["payload"] = {**(payload or {}), "completionCode": code}
    return [ack, done]


def scripted(generation: str = "v2", /, versions: Any = None, **answers: Any) -> Recording:
    """A service that has these commands and gives these payloads: scripted(Common_Status={...}). `versions`: a
    command -> the versions that it lists, where they are not ["2.0"]."""
    given = {name.replace("_", "."): payload for name, payload in answers.items()}
    listed = {name: {"versions": (versions or {}).get(name, ["2.0"])} for name in ("Common.Capabilities", *given)}
    capabilities = {"interfaces": [{"name": "Common", "commands": listed}]}
    table = {"Common.Capabilities": capabilities} | given
    return Recording({name: deque([answer(name, payload, generation)]) for name, payload in table.items()})


def publisher(*services: str, generation: str = "v2") -> Recording:
    """A publisher that lists services of the usual address."""
    listed = {"services": [{"serviceURI": uri(service)} for service in services]}
    return scripted(generation, ServicePublisher_GetServices=listed)


class Host:
    """The other end of a driver: what it sends is answered at once by `services`, and what it reads is kept.

    silent   addresses that do not answer any more
    refused  addresses that cannot be opened
    """

    def __init__(self, driver: Xfs4iot, services: Mapping[str, Recording] | None = None) -> None:
        self.driver = driver
        self.services = services or {}
        self.now = 1000.0
        self.open: set[str] = set()
        self.silent: set[str] = set()
        self.refused: set[str] = set()
        self.sent: list[tuple[str, Message]] = []
        self.hung_up: list[str] = []
        self.of: list[tuple[str, Reading]] = []
        self.outcomes: list[Outcome] = []
        self._records = Records(1 << 22)

    def publish(self, address: str = PUBLISHER) -> None:
        """A publisher has accepted the port's connection."""
        self.open.add(address)
        self.hear(record("o", address))

    def say(self, service: str, *messages: Message | bytes) -> None:
        """A service says something."""
        for message in messages:
            text = message if isinstance(message, bytes) else json.dumps(message).encode()
            self.hear(record("t", uri(service), text))

    def lose(self, service: str, reason: bytes = b"the service has closed it") -> None:
        """A connection has ended."""
        self.open.discard(uri(service))
        self.hear(record("c", uri(service), reason))

    def hear(self, data: bytes) -> None:
        self.keep(self.driver.receive(data, self.now))
        self.serve()

    def run(self, seconds: float, step: float = 0.1) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self.now < end:
            self.now += step
            self.keep(self.driver.tick(self.now))
            self.serve()

    def serve(self) -> None:
        """Act as the port does on what the driver sends, and answer it."""
        while data := self.driver.outgoing():
            for act, address, text in self._records.feed(data):
                if act == "c":
                    self.hung_up.append(address)
                    self.open.discard(address)
                elif address in self.refused:
                    self.keep(self.driver.receive(record("c", address, b"it cannot be reached"), self.now))
                else:
                    if address not in self.open:
                        self.open.add(address)
                        self.keep(self.driver.receive(record("o", address), self.now))
                    self.sent.append((address, json.loads(text)))
                    if address not in self.silent:
                        self.answer(address, self.sent[-1][1])

    def answer(self, address: str, command: Message) -> None:
        service = self.services.get(address.removeprefix(PUBLISHER).strip("/"))
        for message in service.answer(command) if service else []:
            self.deliver(record("t", address, json.dumps(message).encode()))

    def deliver(self, data: bytes) -> None:
        self.keep(self.driver.receive(data, self.now))

    def keep(self, heard: list[Heard]) -> None:
        for one in heard:
            assert one.items
            for item in one.items:
                if isinstance(item, Reading):
                    self.of.append((one.device, item))
                else:
                    self.outcomes.append(item)

    def commands(self, service: str | None = None) -> list[Message]:
        """The commands sent to a service (empty: the publisher), or to all."""
        return [c for address, c in self.sent if service is None or address == uri(service)]

    def names(self, service: str | None = None) -> list[str]:
        """Their names."""
        return [command["header"]["name"] for command in self.commands(service)]

    def last(self, device: str, point: str) -> Reading:
        """The last reading of a point."""
        return [r for name, r in self.of if (name, r.point) == (device, point)][-1]

    def value(self, device: str, point: str) -> Any:
        """The last value read for a point, or None."""
        return self.points(device).get(point)

    def values(self, device: str, point: str, since: float = 0.0) -> list[Any]:
        """Every value read for a point."""
        return [r.value for name, r in self.of if (name, r.point) == (device, point) and r.at >= since]

    def points(self, device: str) -> dict[str, object]:
        """The last value of every point of a device."""
        return {r.point: r.value for name, r in self.of if name == device}


def driver(paper: Mapping[str, str] | None = None, /, **devices: str) -> Xfs4iot:
    """A driver of some devices: name -> service."""
    return Xfs4iot(XfsLineOptions(), {name: XfsOptions(service, paper or {}) for name, service in devices.items()})


def replayed(generation: str) -> Host:
    """A driver of all recorded services, joined to a recorded session and up."""
    host = Host(driver(**SERVICES), recordings(generation))
    host.publish()
    host.run(2)
    return host


def alone(service: Recording, paper: Mapping[str, str] | None = None) -> Host:
    """A driver of one scripted service, named "d" and "One", joined to it and up."""
    host = Host(driver(paper or {}, d="One"), {"": publisher("One"), "One": service})
    host.publish()
    host.run(1)
    return host


def unsolicited(services: Mapping[str, Recording]) -> Iterator[tuple[str, Message]]:
    """Every event of every service."""
    for name, one in services.items():
        for message in one.events:
            yield name, message
