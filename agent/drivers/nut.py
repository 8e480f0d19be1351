"""This file knows how to ask a NUT server (upsd, TCP port 3493) for the UPS that it watches.

    LIST VAR ups0                        every `poll` seconds, for each UPS
    BEGIN LIST VAR ups0
    VAR ups0 ups.status "OB LB"          values are quoted; \\" and \\\\ stand for " and \\
    END LIST VAR ups0
    ERR DATA-STALE                       or this: one word, without the name of what was asked

upsd answers in order, so an ERR belongs to the oldest question that it owes an answer. The agent never sends LOGIN:
upsd would count it among those for whose shutdown the UPS waits. It sends no command either: those want a password.
TCP brings what was said, so there is nothing to doubt here; a line that is none is counted and left out.
What the variables mean stands in nut_names.py.

Source: NUT 2.8.0 docs/net-protocol.txt (LIST, Error responses), server/netlist.c (what comes when data are stale).
"""

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from agent.drivers.contract import Access, Line
from agent.drivers.dialogue import Dialogue, Question
from agent.drivers.hearing import BadFrames
from agent.drivers.nut_names import STATUS, WANTED, clean, understood
from agent.drivers.transcript import Transcript
from agent.model import Heard, Operation, Outcome, Reading

LIMIT = 4096
MOST_NAMES = 50
TOKEN = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|([^\s"\\]+))(?=\s|$)')
NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
LIST_UPS = "LIST UPS"
WAIT = "WAIT"  # what upsd itself puts into ups.status of a driver that has told nothing yet

# error: (link.state, what a person can do about it)
TROUBLES = {
    "DATA-STALE": ("stale", "NUT's driver gets no answer from the UPS: look at the UPS and its cable"),
    "DRIVER-NOT-CONNECTED": (
        "stale",
        "NUT's driver does not run: start it with upsdrvctl start, and look at its log",
    ),
    WAIT: ("stale", "NUT's driver has just started and has told nothing yet; if this stays, look at its log"),
    "ACCESS-DENIED": ("denied", "the NUT server does not let this machine read: look at its upsd.conf"),
}
QUIET = {
    "silent": "the NUT server takes the connection but does not answer: restart upsd",
    "rubbish": "what answers there is no NUT server: is the address right, is the port 3493?",
}


@dataclass(frozen=True, slots=True)
class NutOptions:
    """ups: the name of the UPS in the server's ups.conf. poll: seconds between two questions, more than 0 and at
    most 5."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    ups: str
    poll: float = 2.0

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.ups):
            raise ValueError("ups must be a name of the server's ups.conf, such as ups0")
        if not 0 < self.poll <= 5:
            raise ValueError("poll must be more than 0 and at most 5 seconds")


@dataclass(frozen=True, slots=True)
class NutLineOptions:
    """timeout: seconds that the server has to answer, 0.5 to 4."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    timeout: float = 3.0

    def __post_init__(self) -> None:
        if not 0.5 <= self.timeout <= 4:
            raise ValueError("timeout must be 0.5 to 4 seconds")


class Lines:
    """Cuts a stream at line ends. A line longer than LIMIT is left out. `bad` counts lines, `skipped` bytes."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._lost = False
        self.bad = 0
        self.skipped = 0

    @property
    def kept(self) -> int:
        """Bytes of an unfinished line."""
        return len(self._line)

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that these bytes complete, without their ends."""
        *whole, rest = data.split(b"\n")
        lines = []
        for piece in whole:
            self._keep(piece)
            if not self._lost:
                lines.append(bytes(self._line))
            self._line.clear()
            self._lost = False
        self._keep(rest)
        return lines

    def refuse(self, line: bytes) -> None:
        """Count a line that says nothing."""
        self.bad += 1
        self.skipped += len(line) + 1

    def _keep(self, piece: bytes) -> None:
        room = LIMIT - len(self._line)
        self._line += piece[:room]
        if len(piece) > room and not self._lost:
            self._lost = True
            self.refuse(bytes(self._line))
        if self._lost:
            self._line.clear()


class Nut:
    """The UPS of one NUT server. At most 4096 bytes are buffered."""

    line: ClassVar[Line] = Line(medium="tcp")
    access: ClassVar[frozenset[Access]] = frozenset({"service"})
    why_not: ClassVar[Mapping[Access, str]] = {
        "own": "NUT owns the UPS and tells its status to whoever asks; leave access out",
        "listen": "the agent asks a NUT server itself, it cannot listen to what others ask; leave access out",
    }
    operations: ClassVar[Mapping[str, str]] = {}
    LineOptions: ClassVar[type[NutLineOptions]] = NutLineOptions
    moving: ClassVar[frozenset[str]] = frozenset()
    Options: ClassVar[type[NutOptions]] = NutOptions

    def __init__(self, options: NutLineOptions, devices: Mapping[str, NutOptions]) -> None:
        self._devices: dict[str, str] = {}
        questions = [Question(LIST_UPS, b"LIST UPS\n", timeout=options.timeout)]
        for name, own in devices.items():
            ask = f"LIST VAR {own.ups}"
            if ask in self._devices:
                raise ValueError(f"{self._devices[ask]} and {name} are both {own.ups}; every UPS is one device")
            self._devices[ask] = name
            questions.append(Question(ask, ask.encode() + b"\n", own.poll, options.timeout))
        self.transcript = Transcript()
        self._dialogue = Dialogue(questions)
        self._deframer = Lines()
        self._bad_frames = BadFrames()
        self._owed: deque[str] = deque(maxlen=64)
        self._list = ""
        self._values: dict[str, str] = {}
        self._names: tuple[str, ...] = ()
        self._refused: list[Heard] = []
        self._outgoing = b""

    def receive(self, data: bytes, now: float) -> list[Heard]:
        """Readings of whole lists; see the contract."""
        return [heard for line in self._deframer.feed(data) for heard in self._line(line, now)]

    def tick(self, now: float) -> list[Heard]:
        """Ask what is due, and judge silence."""
        out, self._refused = self._refused, []
        if data := self._dialogue.next(now):
            self._outgoing += data
            self._owed.append(data.decode().strip())
            self.transcript.sent(self._owed[-1])
        if self._dialogue.lapsed is not None:
            for state in self._dialogue.link_state(now, self._deframer.skipped):
                out += self._of_all([replace(state, raw=QUIET.get(str(state.value), ""))])
        return out + self._of_all(self._bad_frames.report(self._deframer.bad, now))

    def outgoing(self) -> bytes:
        """Bytes to send since the last call."""
        data, self._outgoing = self._outgoing, b""
        return data

    def perform(self, operation: Operation, now: float) -> None:
        """There is nothing that the agent may do to somebody else's UPS."""
        why = "this UPS belongs to NUT, and the agent only reads it; use upscmd"
        self._refused.append(Heard(operation.device, (Outcome(operation.id, "refused", why, now),)))

    def _of_all(self, readings: list[Reading]) -> list[Heard]:
        return [Heard(name, tuple(readings)) for name in self._devices.values()] if readings else []

    def _line(self, line: bytes, now: float) -> list[Heard]:
        words = _words(line.decode("utf-8", "replace").removesuffix("\r"))
        match words:
            case ["BEGIN", *what] if " ".join(what) in (LIST_UPS, *self._devices):
                self._list, self._values = " ".join(what), {}
            case ["END", *what] if self._list and " ".join(what) == self._list:
                self.transcript.heard(" ".join(words))
                return self._complete(now)
            case ["VAR", ups, name, value]:
                if self._list == f"LIST VAR {ups}" and name in WANTED:
                    self._values[name] = value
            case ["UPS", name, text]:
                if self._list == LIST_UPS and len(self._values) < MOST_NAMES:
                    self._values[name] = text
            case ["ERR", error, *_] if self._owed:
                self.transcript.heard(" ".join(words))
                self._answers(asked := self._owed[0])
                return self._troubled(asked, error, now)
            case _:
                self._deframer.refuse(line)
                return []
        self.transcript.heard(" ".join(words))
        return []

    def _complete(self, now: float) -> list[Heard]:
        ask, values = self._list, self._values
        self._list, self._values = "", {}
        self._answers(ask)
        if ask == LIST_UPS:
            self._names = tuple(values)
            return []
        if WAIT in values.get(STATUS, "").split():
            return self._troubled(ask, WAIT, now)
        readings = [*self._dialogue.link_state(now, self._deframer.skipped), *understood(values, now)]
        return [Heard(self._devices[ask], tuple(readings))]

    def _troubled(self, ask: str, error: str, now: float) -> list[Heard]:
        if ask not in self._devices:
            return []
        ups, word, why = ask.removeprefix("LIST VAR "), "rubbish", "the NUT server refuses to list this UPS"
        if error == "UNKNOWN-UPS":
            self._dialogue.hurry(LIST_UPS)
            have = f"; it has {', '.join(self._names)}" if self._names else ""
            word, why = "unusable", f"the NUT server has no UPS {ups}{have}: set ups to a name of its ups.conf"
        else:
            word, why = TROUBLES.get(error, (word, why))
        return [Heard(self._devices[ask], (Reading("link.state", word, now, raw=f"{clean(error)}: {why}"),))]

    def _answers(self, ask: str) -> None:
        """The server has answered a question, and so all before it."""
        if ask in self._owed:
            while self._owed.popleft() != ask:
                pass
        if self._dialogue.pending is not None and self._dialogue.pending.name == ask:
            self._dialogue.answered()
        else:
            self._dialogue.heard()


def _words(line: str) -> list[str]:
    """The words of a line, without their quotes; none when it is no line of NUT's."""
    words, at = [], 0
    while at < len(line) and (found := TOKEN.match(line, at)) is not None:
        quoted, bare = found.groups()
        words.append(bare if quoted is None else re.sub(r"\\(.)", r"\1", quoted))
        at = found.end()
    return words if at >= len(line.rstrip()) else []
