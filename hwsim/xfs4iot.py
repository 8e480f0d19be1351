"""This file knows a simulated XFS4IoT host: one vendor's process, a publisher and seven services on websockets.

Written from XFS4IoT releases 2021-1 (CWA 17852:2022, here V1) and 2024-3 (V2) as the public framework of KAL
(KAL-ATM-Software/KAL_XFS4IoT_SP-Dev e2a0306 and 083d652) implements them, and from sessions that were recorded with
it (tests/recordings). Where hosts differ stands in xfs_traps. This one hears and says records (channel = connection
number, space, request path); `authority` is the host:port at which it is reached, set by whoever serves it. The
acknowledge of the hybrid generation is not on record: here it is that of V2.

Status, Capabilities, GetStorage, Cancel and Register run at once, every other command one at a time per service.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import ClassVar

from agent.drivers.framing import Records, record
from hwsim import xfs_status, xfs_v1
from hwsim.contract import Allowed
from hwsim.xfs_changes import Event, View, events
from hwsim.xfs_keys import HANDLED, SECURE_ENTRY, Typing, answer
from hwsim.xfs_machine import DEVICE_OF, ENCRYPTOR
from hwsim.xfs_pad import Pad
from hwsim.xfs_services import INTERFACES, capabilities, commands, is_known, service_at, uri_of
from hwsim.xfs_traps import SWITCH, Traps
from hwsim.xfs_units import Json
from hwsim.xfs_wire import Command

LIMIT = 2 * 1024 * 1024
"""The most bytes of a message that is read (KAL's limit)."""
RESTART_SECONDS = 2.0
HOLD_SECONDS = 0.5
AT_ONCE = {
    *("ServicePublisher.GetServices", "Common.Capabilities", "Common.Status", "Common.Cancel"),
    *("Storage.GetStorage", "Auxiliaries.Register"),
}
NEVER_FAIL = {"ServicePublisher.GetServices", "Common.Capabilities"}


@dataclass(eq=False)
class Connection:
    """One websocket. `registered` are the auxiliaries whose V1 events it wants, in small letters."""

    channel: str
    service: str
    last_id: int = 0
    registered: set[str] = field(default_factory=set)


@dataclass(eq=False)
class Job:
    """A queued command. `ends` is when it is done (inf: it still waits), `due` when its timeout has run out."""

    connection: Connection
    command: Command
    ends: float
    due: float


class Xfs4iot(Pad, Traps):
    """The host. `command_seconds` is how long a queued command takes, `maximum_requests` how many a queue holds
    (0: any number); with `late_services` half of the services are told in an event before the completion."""

    BAUD: ClassVar[int] = 0
    MEDIUM: ClassVar[str] = "websocket"
    SETTINGS: ClassVar[Mapping[str, Allowed]] = {
        **Pad.SETTINGS,
        **Traps.SETTINGS,
        "vendor": str,
        "command_seconds": float,
        "maximum_requests": int,
        "reset_fails": SWITCH,
        "late_services": SWITCH,
    }

    def __init__(self) -> None:
        Pad.__init__(self)
        Traps.__init__(self)
        self.authority = "127.0.0.1:5846"
        self.vendor, self.command_seconds, self.maximum_requests = "Example Vendor", 0.0, 0
        self.reset_fails, self.late_services = "off", "off"
        self._records = Records(LIMIT)
        self._connections: dict[str, Connection] = {}
        self._jobs: dict[str, list[Job]] = {service: [] for service in INTERFACES}
        self._typing: tuple[Job, Typing] | None = None
        self._held: list[tuple[Connection, str]] = []
        self._let_go_at = inf
        self._down_until = -inf
        self._views: dict[str, View] = {}
        self._stamp: tuple[object, ...] = ()
        self._written_in = ("", "")

    def receive(self, data: bytes) -> bytes:
        """What the host says at once to these records."""
        return b"".join(self._take(act, channel, text) for act, channel, text in self._records.feed(data))

    def tick(self, now: float) -> bytes:
        """Events, and how queued commands end."""
        self.passes(now)
        said = self._abort() if self.look_at_pad() else b""
        said += b"".join([self._work(service) for service in self._jobs])
        said += b"".join([_say(connection, text) for connection, text in [*self._news(), *self._late()]])
        if flood := self.events_at_a_tick:
            said += b"".join([_say(c, self._common(c)) * flood for c in self._connections.values() if c.service])
        return b"" if self.mute == "on" else said

    def _take(self, act: str, channel: str, text: bytes) -> bytes:
        if act in ("o", "c"):
            self._forget(channel)  # after a pulled cable the numbers begin again
        if act == "c":
            return b""
        if channel not in self._connections:
            service = service_at(channel.partition(" ")[2])
            if service is None or self._now < self._down_until:
                return record("c", channel)
            self._connections[channel] = Connection(channel, service)
        return b"" if act == "o" or self.mute == "on" else self._hear(self._connections[channel], text)

    def _forget(self, channel: str) -> None:
        """A connection is gone, and with it what it had asked for."""
        gone = self._connections.pop(channel, None)
        for jobs in self._jobs.values():
            jobs[:] = [job for job in jobs if job.connection is not gone]
        self._held = [held for held in self._held if held[0] is not gone]

    def _abort(self) -> bytes:
        """The host process ends, and is started again."""
        self._down_until = self._now + RESTART_SECONDS
        channels = list(self._connections)
        for channel in channels:
            self._forget(channel)
        return b"".join(record("c", channel) for channel in channels)

    def _hear(self, connection: Connection, text: bytes) -> bytes:
        """The answer to one message of a client."""
        command, v1 = self.dialect.read(text), self.dialect.v1
        if command.wrong:
            return self._abort() if self.trap5 == "on" else self._refuse(connection, command, "invalidMessage")
        if self.strict_ids == "on" and command.id <= connection.last_id:
            return self._refuse(connection, command, "invalidRequestID")
        connection.last_id = command.id
        listed = commands(connection.service, v1=v1, keys=bool(self.epp)).get(command.name)
        if listed is None:
            known = is_known(command.name)
            if (self.trap5 if known else self.trap6) == "on":
                return self._abort() if known or v1 else b""
            code = "unsupportedCommand" if known else "invalidCommand"
            return self._decline(connection, command, code, f"{command.name} is not served here.")
        if not v1 and command.version is None and self.trap7 == "off":
            return self._refuse(connection, replace(command, wrong="no version"), "invalidMessage")
        if not v1 and command.version != listed[0]:
            why = f"{command.name} Command version ({command.version}) is not supported by the service."
            return self._decline(connection, command, "unsupportedCommand", why)
        if command.name in AT_ONCE:
            return self._accept(connection, command) + self._perform(connection, command)
        jobs = self._jobs[connection.service]
        if 0 < self.maximum_requests <= len(jobs):
            return self._refuse(connection, command, "tooManyRequests")
        due = self._now + command.timeout if command.timeout else inf
        jobs.append(Job(connection, command, inf if jobs else self._now + self.command_seconds, due))
        return self._accept(connection, command) + self._work(connection.service)

    def _accept(self, connection: Connection, command: Command) -> bytes:
        return _say(connection, self.dialect.acknowledge(command))

    def _refuse(self, connection: Connection, command: Command, status: str) -> bytes:
        return _say(connection, self.dialect.acknowledge(command, status))

    def _decline(self, connection: Connection, command: Command, code: str, why: str) -> bytes:
        return self._accept(connection, command) + self._complete(connection, command, code, {}, why)

    def _work(self, service: str) -> bytes:
        """End the commands of one queue whose time has come, and start the next."""
        jobs, said = self._jobs[service], b""
        if service == ENCRYPTOR and self._typing and self._typing[0] not in jobs:
            self._typing[1].stop()  # whoever asked for it has gone, or waits no longer
            self._typing = None
        while jobs and jobs[0].ends <= self._now:
            if jobs[0].command.name == SECURE_ENTRY and self.completes_with == "success":
                said += self._type(jobs[0])
                if self._typing:
                    break
                jobs.pop(0)
                continue
            job = jobs.pop(0)
            said += self._perform(job.connection, job.command)
        for job in [job for job in jobs if job.due <= self._now]:
            jobs.remove(job)
            said += self._complete(job.connection, job.command, "timeOut", {}, "The time has run out.")
        if jobs and jobs[0].ends == inf:
            jobs[0].ends = self._now + self.command_seconds
        return said

    def _type(self, job: Job) -> bytes:
        """Somebody types at the pad: what the host tells of it, at the end the completion."""
        if self._typing is None:
            self._typing = job, Typing(self.ask, job.command)
        keys, done = self._typing[1].go_on()
        said = [_say(job.connection, self.dialect.event(job.command, "Keyboard.KeyEvent", key)) for key in keys]
        if done:
            self._typing = None
            said.append(self._complete(job.connection, job.command, *done))
        return b"".join(said)

    def _perform(self, connection: Connection, command: Command) -> bytes:
        """Do what an accepted command wants."""
        if self.completes_with != "success" and command.name not in NEVER_FAIL:
            return self._complete(connection, command, self.completes_with, {}, "The simulator was told so.")
        match command.name:
            case "ServicePublisher.GetServices":
                return self._tell_services(connection, command)
            case "Common.Cancel":
                return self._cancel(connection, command)
            case "Auxiliaries.Register":
                wanted = {name.lower() for name, word in command.payload.items() if word == "register"}
                left = {name.lower() for name, word in command.payload.items() if word == "deregister"}
                connection.registered = connection.registered - left | wanted
                return self._complete(connection, command)
            case "Common.Capabilities":
                v1, keys = self.dialect.v1, bool(self.epp)
                payload = capabilities(connection.service, v1=v1, keys=keys, pad=self.pad_serial)
            case "Common.Status":
                payload = self._view(connection.service).status
            case "Storage.GetStorage":
                payload = {"storage": self._view(connection.service).storage}
            case name if self.epp and name in HANDLED:
                done = answer(self.ask, command, always_self=self.trap12 == "on")
                if name == "KeyManagement.Initialization" and done.code == "success":
                    self.initialized()
                return self._complete(connection, command, *done)
            case "KeyManagement.GetKeyDetail":
                payload = {"keyDetails": xfs_status.keys(self, loose=self.trap4 == "on")}
            case _:
                return self._reset(connection, command)
        return self._complete(connection, command, payload=payload)

    def _tell_services(self, connection: Connection, command: Command) -> bytes:
        services = [{"serviceURI": uri_of(service, self.authority)} for service in INTERFACES]
        half = len(services) // 2 if self.late_services == "on" else 0
        told = b""
        if half:
            early = {"vendorName": self.vendor, "services": services[:half]}
            told = _say(connection, self.dialect.event(command, "ServicePublisher.ServiceDetailEvent", early))
        payload: Json = {"vendorName": self.vendor, "services": services[half:]}
        return told + self._complete(connection, command, payload=payload)

    def _cancel(self, connection: Connection, command: Command) -> bytes:
        """Its own completion comes first, then those of the cancelled commands."""
        jobs = self._jobs[connection.service]
        wanted = command.payload.get("requestIds") or []
        if not isinstance(wanted, list):
            return self._complete(connection, command, "invalidData", {}, "requestIds is no list.")
        mine = [j for j in jobs if j.connection is connection and (not wanted or j.command.id in wanted)]
        if wanted and not mine:
            return self._complete(connection, command, "commandErrorCode", {"errorCode": "noMatchingRequestIDs"})
        said = self._complete(connection, command)
        for job in mine:
            jobs.remove(job)
            said += self._complete(connection, job.command, "canceled")
        return said

    def _reset(self, connection: Connection, command: Command) -> bytes:
        """A Reset of some interface: the device works again, unless `reset_fails`."""
        if self.reset_fails == "on":
            return self._complete(connection, command, "hardwareError", {}, "Reset failed.")
        setattr(self, DEVICE_OF[connection.service], "online")
        self.look_again()
        if command.name == "CardReader.Reset" and self.card_media == "jammed":
            self.card_media = "notPresent"
        return self._complete(connection, command)

    def _complete(
        self,
        connection: Connection,
        command: Command,
        code: str = "success",
        payload: Json | None = None,
        why: str = "",
    ) -> bytes:
        """The completion of a command, now or, out of order, later."""
        if self.no_completion == "on":
            return b""
        number = command.id + 1000 if self.wrong_request_id == "on" else command.id
        listed = commands(connection.service, v1=False, keys=True).get(command.name, ("2.0", "2.0"))
        text = self.dialect.completion(command, number, listed[1], code, why, payload or {})
        text = self.spoilt(text) if command.name == "Common.Status" else text
        if self.out_of_order == "off":
            return _say(connection, text)
        self._let_go_at = min(self._let_go_at, self._now + HOLD_SECONDS)
        self._held.append((connection, text))
        return b""

    def _late(self) -> Iterator[tuple[Connection, str]]:
        """What was held back, last first, and an event before each."""
        if self._now >= self._let_go_at:
            held, self._held, self._let_go_at = self._held, [], inf
            for connection, text in reversed(held):
                if connection.service:
                    yield connection, self._common(connection)
                yield connection, text

    def _common(self, connection: Connection) -> str:
        """An event that tells nothing new."""
        device = {"device": getattr(self, DEVICE_OF[connection.service])}
        payload = device if self.dialect.v1 else {"common": device}
        return self.dialect.unsolicited("Common.StatusChangedEvent", payload)

    def _view(self, service: str) -> View:
        v1 = self.dialect.v1
        status = xfs_status.status(self, service)
        storage = xfs_status.storage(self, service, v1=v1, loose=self.trap4 == "on")
        return View(xfs_v1.status(status, self.safe_door) if v1 else status, storage)

    def _news(self) -> Iterator[tuple[Connection, str]]:
        """What every open connection must be told of what has changed since the last tick."""
        happened, self.happened = self.happened, []
        stamp = (self.notes_out, *(getattr(self, name) for name in self.SETTINGS))
        if stamp == self._stamp and not happened:
            return
        # Another form of the same state is no news.
        same_form = self._views and self._written_in == (self.generation, self.trap4)
        before = self._views if same_form else {}
        self._views = {service: self._view(service) for service in INTERFACES}
        self._stamp, self._written_in = stamp, (self.generation, self.trap4)
        for service, view in self._views.items():
            told = list(events(before[service], view, self.manners)) if before else []
            told += [Event(name, payload) for where, name, payload in happened if where == service]
            listeners = [c for c in self._connections.values() if c.service == service]
            for name, payload, auxiliary in told:
                text = self.dialect.unsolicited(name, payload)
                for connection in listeners:
                    if not auxiliary or auxiliary.lower() in connection.registered:
                        yield connection, text


def _say(connection: Connection, text: str) -> bytes:
    return record("t", connection.channel, text.encode())
