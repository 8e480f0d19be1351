"""This file knows the UPS that speaks Megatec Q1 (2400 8N1, ASCII, every line ends in CR).

Source: networkupstools/nut v2.8.0, drivers/blazer.c, blazer_ser.c and nutdrv_qx_megatec.c. Query lines and
what comes back, lengths with CR:

    Q1  47  (MMM.M NNN.N PPP.P QQQ RR.R SS.S TT.T b7b6b5b4b3b2b1b0
    F   22  #MMM.M QQQ SSS.S RR.R       ratings: volts, amperes, battery volts, hertz
    I   39  #maker(15) model(10) version(10)

A command is accepted by silence and refused by its echo; some makers answer (ACK or ACK. Silence proves
nothing on a dead line, so a command counts as accepted only when the UPS answers a query after it.

There is no checksum. The fixed layout finds a lost or an added byte. A flipped status bit does not stand
out, so a change of the status bits is asked for again at once and believed when it comes twice; a number
that leaps must come twice too. What can still pass is one damaged digit that stays near the truth. Nor can the
UPS tell: a Q1 that loses its 1 on the way is Q, and switches the beeper.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from agent.drivers.contract import Access, Line, refusal
from agent.drivers.dialogue import Dialogue, Question
from agent.drivers.doubt import Twice
from agent.drivers.framing import BAD, MORE, Deframer
from agent.drivers.hearing import BadFrames
from agent.drivers.transcript import Transcript
from agent.model import Operation, Outcome, Reading

STATUS = re.compile(rb"\(([ -~]{5}) ([ -~]{5}) ([ -~]{5}) ([ -~]{3}) ([ -~]{4}) ([ -~]{4}) ([ -~]{4}) ([01]{8})\r")
RATING = re.compile(rb"#([ -~]{5}) ([ -~]{3}) ([ -~]{5}) ([ -~]{4})\r")
IDENTITY = re.compile(rb"#([ -~]{15}) ([ -~]{10}) ([ -~]{10})\r")
LIMIT = 47

STATUS_POINTS = (
    "input.voltage",
    "",  # the voltage of the last fault: a memory, not a state
    "output.voltage",
    "output.load",
    "input.frequency",
    "battery.voltage",
    "temperature",
)
RATING_POINTS = ("rating.voltage", "rating.current", "rating.battery_voltage", "rating.frequency")
IDENTITY_POINTS = ("device.maker", "device.model", "device.firmware")

# bit name, place in the string, point, word for 0, word for 1. b3 (type) is no state; b2 has its own rule.
BITS = (
    ("b7", 0, "mains", "ok", "lost"),
    ("b6", 1, "battery", "ok", "low"),
    ("b5", 2, "ups.bypass", "off", "active"),
    ("b4", 3, "ups.state", "ok", "failed"),
    ("b1", 6, "ups.shutdown", "inactive", "active"),
    ("b0", 7, "ups.beeper", "off", "on"),
)
FAILED, TESTING = 3, 5

# The shutdown commands are left out on purpose: a monitor has no business switching a terminal off.
COMMANDS = {
    "self_test": (b"T\r", "test the battery for 10 seconds"),
    "self_test_until_low": (b"TL\r", "test the battery until it is low"),
    "cancel_test": (b"CT\r", "end a running battery test"),
    "toggle_beeper": (b"Q\r", "switch the beeper on or off"),
}
QUERIES = ("Q1", "F", "I")
SHORT = (*(q.encode() + b"\r" for q in QUERIES), *(data for data, _ in COMMANDS.values()), b"ACK\r", b"(ACK\r")


@dataclass(frozen=True, slots=True)
class UpsOptions:
    """poll: seconds between two status queries, more than 0 and at most 5."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    poll: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.poll <= 5:
            raise ValueError("poll must be more than 0 and at most 5 seconds")


class Ups:
    """A Megatec UPS. At most 47 bytes are buffered."""

    line: ClassVar[Line] = Line(baud=2400, rts=False)
    access: ClassVar[frozenset[Access]] = frozenset({"own"})
    why_not: ClassVar[Mapping[Access, str]] = {
        "listen": "a UPS says nothing unless it is asked, and usually nobody else asks; give it to the agent"
    }
    operations: ClassVar[Mapping[str, str]] = {verb: text for verb, (_, text) in COMMANDS.items()}
    moving: ClassVar[frozenset[str]] = frozenset()
    Options: ClassVar[type[UpsOptions]] = UpsOptions

    def __init__(self, options: UpsOptions, access: Access = "own") -> None:
        self.transcript = Transcript()
        self._dialogue = Dialogue(
            (
                Question("Q1", b"Q1\r", every=options.poll),
                Question("F", b"F\r", every=60.0, mute=True),
                Question("I", b"I\r", every=60.0, mute=True),
            )
        )
        self._deframer = Deframer(_measure, LIMIT, gap=1.0)
        self._bad_frames = BadFrames()
        self._bits = Twice()
        self._numbers = Twice(_near)
        self._selftest = Reading("ups.selftest", "none", 0.0)
        self._outgoing = b""

    def receive(self, data: bytes, now: float) -> list[Reading | Outcome]:
        """Readings of whole lines; see the contract."""
        out: list[Reading | Outcome] = []
        for line in self._deframer.feed(data, now):
            out += self._line(line, now)
        return out + self._dialogue.outcomes()

    def tick(self, now: float) -> list[Reading | Outcome]:
        """Ask what is due, and judge silence."""
        out: list[Reading | Outcome] = []
        for line in self._deframer.expire(now):
            out += self._line(line, now)
        if data := self._dialogue.next(now):
            self._outgoing += data
            self.transcript.sent(f"asks {self._dialogue.pending.name}" if self._dialogue.pending else "", data)
        if (lapsed := self._dialogue.lapsed) is not None:
            if lapsed.operation:
                self._dialogue.hurry("Q1")  # does it live? Then its silence was consent.
            elif not lapsed.mute:
                out += self._dialogue.link_state(now, self._deframer.skipped)
        out += self._bad_frames.report(self._deframer.bad, now)
        return out + self._dialogue.outcomes()

    def outgoing(self) -> bytes:
        """Bytes to send since the last call."""
        data, self._outgoing = self._outgoing, b""
        return data

    def perform(self, operation: Operation, now: float) -> None:
        """Begin one of `operations`; none takes arguments."""
        data, _ = COMMANDS.get(operation.verb, (b"", ""))
        question = Question(operation.verb, data, mute=True, operation=operation.id)
        self._dialogue.undertake(question, refusal(operation, COMMANDS), now)

    def _line(self, line: bytes, now: float) -> list[Reading | Outcome]:
        if line in (b"\r", b"\n"):
            return []  # some clones end a line with CR LF
        if (fields := STATUS.fullmatch(line)) is not None:
            self.transcript.heard(f"status {_text(line)}", line)
            self._answers("Q1")
            self._prove(now)
            up = self._dialogue.link_state(now, self._deframer.skipped)
            return [*up, *self._status([f.decode() for f in fields.groups()], now)]
        if (fields := RATING.fullmatch(line)) is not None:
            self.transcript.heard(f"ratings {_text(line)}", line)
            self._answers("F")
            self._prove(now)
            return [*self._measures(RATING_POINTS, [f.decode() for f in fields.groups()], now)]
        if (fields := IDENTITY.fullmatch(line)) is not None:
            self.transcript.heard(f"identity {_text(line)}", line)
            self._answers("I")
            self._prove(now)
            return [*self._identity([f.decode().strip() for f in fields.groups()], now)]
        return self._short(line, now)

    def _short(self, line: bytes, now: float) -> list[Reading | Outcome]:
        """An echo or an acknowledgement of what was asked. Both are signs of life; neither carries data."""
        acknowledged = line.endswith(b"ACK\r")
        self.transcript.heard("accepted" if acknowledged else "echo: not known, or not accepted", line)
        pending = self._dialogue.pending
        if pending is not None and (line == pending.data or (acknowledged and pending.operation)):
            meant: Question | None = self._dialogue.answered()
        else:
            meant = next((q for q in self._dialogue.unproven if acknowledged or q.data == line), None)
            if meant is None:
                return []
            self._dialogue.heard()
            self._dialogue.unproven.remove(meant)
        if meant is not None and meant.operation:
            if acknowledged:
                self._accepted(meant, now)
            else:
                self._dialogue.end(
                    meant.operation, "failed", f"the UPS does not accept {meant.name}", now, raw=_text(line)
                )
        if line == b"Q1\r":
            self._prove(now)
            why = "it echoes Q1: not a Megatec UPS, or the cable is looped"
            return [Reading("link.state", "up", now, raw=why)]
        return []

    def _answers(self, name: str) -> None:
        """A reply is known by its shape, so a late one never passes for the reply to something else."""
        if self._dialogue.pending is not None and self._dialogue.pending.name == name:
            self._dialogue.answered()
        else:
            self._dialogue.heard()

    def _status(self, fields: list[str], now: float) -> list[Reading]:
        *numbers, bits = fields
        measures = self._measures(STATUS_POINTS, numbers, now)
        doubted = self._bits.doubted("bits")
        if not self._bits.accept("bits", bits):
            if not doubted:  # once: what never says the same twice must not starve the other questions
                self._dialogue.hurry("Q1")
            return []
        words = [
            Reading(point, one if bits[at] == "1" else zero, now, raw=f"{name}={bits[at]}")
            for name, at, point, zero, one in BITS
        ]
        return [*words, self._judge_selftest(bits, now), *measures]

    def _judge_selftest(self, bits: str, now: float) -> Reading:
        """The outcome of a test is bit b4 after b2 has dropped; Megatec has no better word for it."""
        old = self._selftest
        raw = f"b4={bits[FAILED]} b2={bits[TESTING]}"
        if bits[TESTING] == "1":
            new = Reading("ups.selftest", "running", now, raw)
        elif old.value == "running":
            word = "failed" if bits[FAILED] == "1" else "passed"
            new = Reading("ups.selftest", word, now, f"b2 dropped, b4={bits[FAILED]}", inferred=True)
        else:
            new = Reading("ups.selftest", old.value, now, old.raw, old.inferred)
        self._selftest = new
        return new

    def _measures(self, points: tuple[str, ...], fields: list[str], now: float) -> list[Reading]:
        """Fields that are not numbers (`--.-`) are skipped: the UPS has no such sensor."""
        return [
            Reading(point, float(text), now, raw=text)
            for point, text in zip(points, fields, strict=True)
            if point and re.fullmatch(r"\d+(\.\d+)?", text) and self._numbers.accept(point, float(text))
        ]

    def _identity(self, texts: list[str], now: float) -> list[Reading]:
        if not self._bits.accept("identity", texts):
            return []  # the next turn confirms it
        named = zip(IDENTITY_POINTS, texts, strict=True)
        return [Reading(point, text, now) for point, text in named if any(c.isalnum() for c in text)]

    def _prove(self, now: float) -> None:
        """The UPS is alive, so its silence to these commands was consent."""
        for question in self._dialogue.proven():
            self._accepted(question, now)

    def _accepted(self, question: Question, now: float) -> None:
        detail = "the UPS accepted it"
        if question.name.startswith("self_test"):
            detail += "; watch ups.selftest for the result"
        elif question.name == "cancel_test" and self._selftest.value == "running":
            # A test that was broken off has neither passed nor failed.
            self._selftest = Reading("ups.selftest", "none", now, "cancelled", inferred=True)
        self._dialogue.end(question.operation, "done", detail, now)


def _measure(data: bytes) -> int:
    """See framing.Measure. Only lines of a known shape are frames, so noise before one is skipped."""
    if data[0] in b"\r\n":
        return 1
    for line in SHORT:
        if data.startswith(line):
            return len(line)
    end = data.find(b"\r")
    if end < 0:
        whole = data[:1] in b"(#" or any(line.startswith(data) for line in SHORT)
        return MORE if whole and len(data) < LIMIT else BAD
    shapes = (STATUS, RATING, IDENTITY)
    return end + 1 if any(shape.fullmatch(data[: end + 1]) for shape in shapes) else BAD


def _near(one: float, other: float) -> bool:
    """Whether two successive values of a slow quantity can both be true: within a tenth, or within 1."""
    return abs(one - other) <= max(1.0, 0.1 * max(one, other))


def _text(line: bytes) -> str:
    return line.decode("ascii").rstrip()
