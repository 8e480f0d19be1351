"""This file knows one XFS4IoT service: what it is asked and when, and what its answers and events mean.

Source: XFS4IoT release 2024-3 and 2021-1: Common, Storage, KeyManagement, Auxiliaries. A service may tell by events
what has changed, but some tell it late or not at all (counts after a dispense, a card that was retained), so
everything is asked again, and soon after any event that hints at a change.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from agent.drivers.transcript import Transcript
from agent.drivers.xfs_connection import (
    CAPABILITIES,
    COMMANDS,
    KEY_COMMANDS,
    KEYS,
    OUR_FAULT,
    REGISTER,
    STATUS,
    STORAGE,
    Connection,
    versions_of,
)
from agent.drivers.xfs_keyloading import KeyLoading
from agent.drivers.xfs_keys import Keys, misused
from agent.drivers.xfs_messages import Message, Names, clean, member, printable
from agent.drivers.xfs_status import readings, registration, told, word
from agent.drivers.xfs_storage import Storage
from agent.model import Operation, Outcome, Reading

IDENTITY_EVERY = 120.0
RETRY = 3.0
"""Seconds after which a lost or a silent service is tried again."""

HURRY = 1.0
"""Seconds at least between two commands of one name, however many events hint at a change."""

ERROR_TIME = 600.0
"""Seconds that a Common.ErrorEvent is shown when nothing says that it is over."""

MOST_NAMES = 64
NEVER = float("-inf")

CASH = (STATUS, STORAGE)
HINTS = {
    "common": CASH,
    "storage": (STORAGE,),
    "cashdispenser": CASH,
    "cashacceptor": CASH,
    "cashmanagement": CASH,
    "cardreader": CASH,
    "printer": CASH,
    "deposit": CASH,
    "check": CASH,
    "banknoteneutralization": CASH,
    "keymanagement": (STATUS, KEYS),
    "auxiliaries": (STATUS,),
    "vendormode": (STATUS,),
    "powermanagement": (STATUS,),
}
"""Interface -> what is asked again when an event tells of it."""


@dataclass(frozen=True, slots=True)
class XfsLineOptions:
    """poll: seconds between two Common.Status, more than 0 and at most 5.
    reread: seconds between two Storage.GetStorage and between two KeyManagement.GetKeyDetail, from 1 to 10.
    acknowledge: seconds that a service has to acknowledge a command, from 1 to 5.
    completion: seconds that it has to complete one that it need not queue, from 2 to 9.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    poll: float = 5.0
    reread: float = 10.0
    acknowledge: float = 3.0
    completion: float = 8.0

    def __post_init__(self) -> None:
        if not 0 < self.poll <= 5:
            raise ValueError("poll must be more than 0 and at most 5 seconds")
        for name, least, most in (("reread", 1, 10), ("acknowledge", 1, 5), ("completion", 2, 9)):
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} must be from {least} to {most} seconds")


class Service:
    """One configured service. It has a `uri` as soon as a publisher lists it.

    paper  XFS4IoT's paper source -> our name for it
    keys   whether key operations may be done with it
    """

    def __init__(
        self, paper: Mapping[str, str], timing: XfsLineOptions, transcript: Transcript, keys: bool = False
    ) -> None:
        self.uri = ""
        self._paper = {source.lower(): name for source, name in paper.items()}
        self._timing = timing
        self._transcript = transcript
        self._every = {
            CAPABILITIES: IDENTITY_EVERY,
            STATUS: timing.poll,
            STORAGE: timing.reread,
            KEYS: timing.reread,
        }
        self._soon: dict[str, float] = {}
        self._asked_at: dict[str, float] = {}
        self._connection: Connection | None = None
        self._left = b""
        self._retry_at = NEVER
        self._bad_before = 0
        self._registered = self._answers = False
        self._newer: set[str] = set()
        self._names = Names(MOST_NAMES)
        self._keys = Keys()
        self._loading = KeyLoading()
        self._commands = (*COMMANDS, *KEY_COMMANDS) if keys else COMMANDS
        self._storage = Storage()
        self._error: Reading | None = None
        self._was_online = True

    @property
    def connected(self) -> bool:
        """Whether a connection to the service stands or is being opened."""
        return self._connection is not None

    @property
    def bad(self) -> int:
        """Messages so far that were none, or that nobody had asked for."""
        return self._bad_before + (self._connection.bad if self._connection else 0)

    def outgoing(self) -> bytes:
        """Records to send since the last call."""
        data, self._left = self._left, b""
        if self._connection is not None:
            data += self._connection.outgoing
            self._connection.outgoing = b""
        return data

    def perform(self, operation: Operation, now: float) -> None:
        """Begin a key operation."""
        self._loading.begin(operation, self._connection, now)

    def outcomes(self) -> list[Outcome]:
        """The key operations that have ended since the last call."""
        return self._loading.outcomes()

    def opened(self, now: float) -> None:
        """The port has opened the connection."""
        if self._connection is not None:
            self._connection.opened(now)

    def lost(self, reason: str, now: float) -> list[Reading]:
        """The port has lost the connection, or cannot open it."""
        if self._connection is None:
            return []  # our own hanging up
        why = f"the service {self.uri} does not hold the connection: {reason or 'it was closed'}"
        self._end(now, why)
        return [Reading("link.state", "silent", now, raw=why)]

    def tick(self, now: float) -> list[Reading]:
        """Ask what is due, and judge silence."""
        if self._connection is None:
            if not self.uri or now < self._retry_at:
                return []
            self._begin()
        connection = self._connection
        if connection is None:
            return []
        state, why = connection.trouble(now)
        if state:
            connection.hang_up()
            self._end(now, why)
            return [Reading("link.state", state, now, raw=why)]
        self._loading.tick(connection, now)
        every = self._every | ({} if connection.can(STATUS) else {CAPABILITIES: self._timing.poll})
        for name, interval in every.items():
            due = min(self._soon.get(name, float("inf")), self._asked_at.get(name, NEVER) + interval)
            held = name == KEYS and self._loading.busy  # an answer would have to wait for the person at the pad
            if now >= due and connection.can(name) and not connection.waits_for(name) and not held:
                self._soon.pop(name, None)
                self._asked_at[name] = now
                connection.ask(name, now)
                if name == STATUS:
                    self._newer.clear()
                elif name == STORAGE:
                    self._storage.asked()
        return []

    def take(self, text: bytes, now: float) -> list[Reading]:
        """What a message of the service means."""
        connection = self._connection
        message = connection.take(text) if connection else None
        if connection is None or message is None:
            return []
        about_key = self._loading.owns(message)
        if about_key:
            self._loading.take(message, connection, now)
        if message.kind == "event":
            return self._event(message, now)
        said: list[Reading] = []
        if message.code == "invalidRequestID":
            connection.hang_up()
            self._end(now, f"{self.uri} does not take the number of a request")
        elif message.code in OUR_FAULT:
            self._hurry(message.name)  # another version of the same command
        elif not message.code:
            said = self._answer(connection, message, now)
        # Who tells what it can do, and breaks off at its status over and over, does not answer.
        self._answers |= message.name == STATUS or not connection.can(STATUS)
        raw = f"{message.name}: {message.code}" if message.code and not about_key else ""
        return [Reading("link.state", "up", now, raw=raw), *said] if self._answers else said

    def _begin(self) -> None:
        timing = self._timing
        self._connection = Connection(
            self.uri, timing.acknowledge, timing.completion, self._transcript, self._commands
        )
        self._registered = self._answers = False
        self._soon.clear()
        self._asked_at.clear()

    def _end(self, now: float, why: str) -> None:
        self._loading.lost(why, now)
        self._left = self.outgoing()
        self._bad_before, self._connection = self.bad, None
        self._retry_at = now + RETRY
        self._storage.forget()

    def _hurry(self, name: str) -> None:
        if name in self._every:
            self._soon[name] = self._asked_at.get(name, NEVER) + HURRY

    def _answer(self, connection: Connection, message: Message, now: float) -> list[Reading]:
        name, payload = message.name, message.payload
        if name == CAPABILITIES:
            connection.learn(_commands(payload.get("interfaces")))
            self._loading.learn(payload)
            return _identity(payload, now)
        if name == STATUS:
            if connection.can(REGISTER) and not self._registered and (sensors := registration(payload)):
                self._registered = True
                connection.ask(REGISTER, now, sensors)
            return [*self._status(payload, now, self._newer), self._last_error(now)]
        if name == STORAGE:
            return self._storage.replace(payload.get("storage"), now)
        return self._keys.readings(payload.get("keyDetails"), now) if name == KEYS else []

    def _event(self, message: Message, now: float) -> list[Reading]:
        name, payload = message.name.lower(), message.payload
        interface, tree = name.partition(".")[0], told(name, payload)
        for hint in tree or (interface,):
            for command in HINTS.get(hint.lower(), ()):
                self._hurry(command)
        if name == "common.errorevent":
            self._error = _error(payload, now)
            self._newer.add(self._error.point)
            return [self._error]
        if name == "keymanagement.illegalkeyaccessevent":
            return [misused(payload, now)]
        if interface == "storage":
            return self._storage.merge(payload, now)
        said = self._status(tree, now)
        self._newer.update(reading.point for reading in said)
        return said

    def _status(self, tree: Any, now: float, newer: Container[str] = ()) -> list[Reading]:
        """Readings of a tree. `newer`: points of which events have told since the tree was asked for; it may be the
        older of the two, and the events have made us ask again."""
        said = [reading for reading in readings(tree, self._names, self._paper, now) if reading.point not in newer]
        for reading in said:
            if reading.point == "device.state":
                online = reading.value == "online"
                if online and not self._was_online:
                    self._hurry(CAPABILITIES)  # it may be another device now
                if online and not self._was_online and "device.error" not in newer:
                    self._error = None
                self._was_online = online
        return said

    def _last_error(self, now: float) -> Reading:
        """The last error is shown until the device is online again after it was not, or for ERROR_TIME."""
        error = self._error
        if error is None or (self._was_online and now - error.at > ERROR_TIME):
            self._error = None
            return Reading("device.error", "none", now, raw="no Common.ErrorEvent stands", inferred=True)
        return Reading(error.point, error.value, now, error.raw)


def _commands(interfaces: Any) -> dict[str, tuple[str, ...]]:
    """Command in lower case -> its versions, of all interfaces; of those that this client does not know as well."""
    listed: dict[str, tuple[str, ...]] = {}
    for interface in interfaces[:64] if isinstance(interfaces, list) else []:
        commands = member(interface, "commands")
        for name in commands if isinstance(commands, dict) else []:
            listed[name.lower()] = versions_of(commands[name])
    return listed


def _identity(payload: Mapping[str, Any], now: float) -> list[Reading]:
    device = member(payload, "common", "deviceInformation", "0")
    texts = {
        "device.model": member(device, "modelName"),
        "device.serial": member(device, "serialNumber"),
        "device.firmware": member(device, "firmware", "0", "firmwareVersion"),
    }
    return [Reading(point, text, now) for point, said in texts.items() if (text := printable(said))]


def _error(payload: Mapping[str, Any], now: float) -> Reading:
    kind, action = clean(payload.get("eventId"), 32), clean(payload.get("action"), 32)
    said = clean(payload.get("vendorDescription"))
    raw = ", ".join(part for part in (action and f"action: {action}", said) if part)
    return Reading("device.error", word("device.error", kind or "unknown"), now, raw=raw)
