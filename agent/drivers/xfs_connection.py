"""This file knows one XFS4IoT connection: request numbers, what is waited for, which form and version to write.

Source: XFS4IoT release 2024-3 and 2021-1: a command is acknowledged at once, then come events with its requestId,
then exactly one completion; requestIds begin with 1 on each connection and grow. Completions come in any order,
with unsolicited events between, so only the requestId tells what a message answers.

A service may abort (KAL's whole host process does, with every service of the machine) on a command that it does not
have, so nothing is asked that it has not listed; the two exceptions are the questions for the lists themselves.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from agent.drivers.framing import record
from agent.drivers.transcript import Transcript
from agent.drivers.xfs_messages import Message, command, parse

SERVICES = "ServicePublisher.GetServices"
CAPABILITIES = "Common.Capabilities"
STATUS = "Common.Status"
STORAGE = "Storage.GetStorage"
KEYS = "KeyManagement.GetKeyDetail"
REGISTER = "Auxiliaries.Register"

COMMANDS = (SERVICES, CAPABILITIES, STATUS, STORAGE, KEYS, REGISTER)
"""All that a connection may send that only watches. The last one changes only what is told to itself."""

LAYOUT = "Keyboard.GetLayout"
ENTRY = "Keyboard.SecureKeyEntry"
IMPORT = "KeyManagement.ImportKey"
CHECK = "KeyManagement.GenerateKCV"
DELETE = "KeyManagement.DeleteKey"
INITIALIZE = "KeyManagement.Initialization"
CANCEL = "Common.Cancel"

KEY_COMMANDS = (LAYOUT, ENTRY, IMPORT, CHECK, DELETE, INITIALIZE, CANCEL)
"""What may be sent besides to an encryptor whose table in the config says `keys = true`."""

UNLISTED = (SERVICES, CAPABILITIES)
QUEUED = (KEYS, REGISTER)
"""Commands that wait until the device has done what others asked of it, e.g. until a PIN is typed."""

QUEUE_TIME = 300.0
GRACE = 10.0
"""Seconds that a service has to say that the time it was given has run out."""

VERSIONS = ("2.0", "1.0", "3.0")
"""What to try, in this order, before the service has listed the versions it takes."""

OUR_FAULT = frozenset(
    {"invalidMessage", "unsupportedCommand", "internalError", "invalidCommand", "unsupportedData", "invalidData"}
)
"""Codes that another version of the same command may not get."""


@dataclass(slots=True)
class Asked:
    """A command that is not completed. within: seconds that it was given; 0 is as usual."""

    name: str
    at: float
    within: float
    acknowledged: bool = False


class Connection:
    """One connection to one service or publisher.

    acknowledge, completion   seconds that the service has for each
    commands   what may be sent
    bad      messages that were none, or that nobody had asked for
    doubtful bad messages since the last good one
    """

    def __init__(
        self,
        uri: str,
        acknowledge: float,
        completion: float,
        transcript: Transcript,
        commands: tuple[str, ...] = COMMANDS,
    ) -> None:
        self.uri = uri
        self._commands = commands
        self.bad = self.doubtful = 0
        self.outgoing = b""
        self._acknowledge = acknowledge
        self._completion = completion
        self._transcript = transcript
        self._label = last_segment(uri)
        self._listed: Mapping[str, tuple[str, ...]] = {}
        self._is_open = False
        self._versioned = True
        self._turns = dict.fromkeys(commands, 0)
        self._number = 0
        self._asked: dict[int, Asked] = {}

    def learn(self, listed: Mapping[str, tuple[str, ...]]) -> None:
        """What the service has: command in lower case -> versions, as its capabilities say."""
        self._listed = {name: listed[name.lower()] for name in self._commands if name.lower() in listed}
        self._turns = dict.fromkeys(self._commands, 0)

    def can(self, name: str) -> bool:
        """Whether a command may be sent."""
        return name in UNLISTED or name in self._listed

    def untried(self, name: str) -> bool:
        """Whether a version of a command is left that has not been refused yet."""
        return self._turns[name] < len(self._listed.get(name) or VERSIONS)

    def waits_for(self, name: str) -> bool:
        """Whether a command of this name is under way; one at a time is asked of each."""
        return any(asked.name == name for asked in self._asked.values())

    def ask(self, name: str, now: float, payload: Mapping[str, Any] | None = None, within: float = 0.0) -> int:
        """Send one of `commands` and return its requestId. within: seconds for it, where the usual are too few."""
        versions = self._listed.get(name) or VERSIONS
        version = versions[self._turns[name] % len(versions)] if self._versioned else ""
        self._number += 1
        self._asked[self._number] = Asked(name, now, within)
        text = command(name, self._number, version, within or self._completion, payload)
        self.outgoing += record("t", self.uri, text)
        self._transcript.sent(f"{self._label}: {name} #{self._number}")
        return self._number

    def opened(self, now: float) -> None:
        """The port says that the connection stands, so what waited for it is sent only now."""
        self._is_open = True
        for asked in self._asked.values():
            asked.at = now

    def hang_up(self) -> None:
        """Close the connection; the service forgets what it still had to do for it."""
        self.outgoing += record("c", self.uri)

    def take(self, text: bytes) -> Message | None:
        """An event, an answer to a command of ours (a completion, or an acknowledge that refuses), or nothing."""
        message = parse(text)
        if message is None:
            self._transcript.heard(f"{self._label}: something that is no XFS4IoT message")
            self._doubt()
            return None
        asked = self._asked.get(message.request_id)
        # What answers a key command may hold in any field what the command held.
        said = "refused" if asked is not None and asked.name in KEY_COMMANDS else message.code
        code = f" ({said})" if message.code else ""
        number = f" #{message.request_id}" if message.request_id else ""
        self._transcript.heard(f"{self._label}: {message.kind} {message.name}{number}{code}")
        if message.kind == "event" and message.request_id == 0:
            self.doubtful = 0
            return message
        if asked is None or (message.kind != "event" and message.name.lower() != asked.name.lower()):
            self._doubt()
            return None
        self.doubtful = 0
        if message.kind == "event":
            return message
        return self._answer(asked, message)

    def trouble(self, now: float) -> tuple[str, str]:
        """("silent" or "rubbish", why) when an answer is overdue, or nothing twice."""
        for asked in self._asked.values():
            limit, what = self._completion, "completed"
            if not self._is_open:
                what = "sent, as the connection does not open"
            elif not asked.acknowledged:
                limit, what = self._acknowledge, "acknowledged"
            elif asked.within:
                limit = asked.within + GRACE
            elif asked.name in QUEUED:
                limit = QUEUE_TIME
            if now - asked.at > limit:
                why = f"{self.uri}: {asked.name} is not {what} within {limit:g} s"
                if not self.doubtful:
                    return "silent", why
                strange = f"{self.doubtful} messages that are no answer came"
                return "rubbish", f"{why}, but {strange}: is it an XFS4IoT service?"
        return "", ""

    def _answer(self, asked: Asked, message: Message) -> Message | None:
        self._versioned = bool(message.version)
        if message.kind == "acknowledge" and not message.code:
            if asked.acknowledged:
                self._doubt()
            asked.acknowledged = True
            return None
        if message.kind == "completion" and not asked.acknowledged:
            self._doubt()  # the acknowledge was lost, or comes when it is of no use any more
        del self._asked[message.request_id]
        if message.code in OUR_FAULT and asked.name not in KEY_COMMANDS:
            self._turns[asked.name] += 1
            self._versioned = True
        return replace(message, name=asked.name)

    def _doubt(self) -> None:
        self.bad += 1
        self.doubtful += 1


def versions_of(listed: Any) -> tuple[str, ...]:
    """The versions of a command in the order in which to try them: the one that this client knows, the newest."""
    texts = listed.get("versions") if isinstance(listed, dict) else None
    numbers = []
    for text in texts[:16] if isinstance(texts, list) else []:
        major, dot, minor = text.partition(".") if isinstance(text, str) else ("", "", "")
        if dot and len(text) <= 9 and (major + minor).isascii() and major.isdigit() and minor.isdigit():
            numbers.append((int(major), int(minor)))
    newest_first = [f"{major}.{minor}" for major, minor in sorted(set(numbers), reverse=True)]
    return tuple(sorted(newest_first, key=lambda version: version != VERSIONS[0]))


def last_segment(uri: str) -> str:
    """What names a service in its address: `SimCardReader` of `ws://127.0.0.1:5846/xfs4iot/v1.0/SimCardReader/`."""
    return uri.partition("?")[0].rstrip("/").rpartition("/")[2]
