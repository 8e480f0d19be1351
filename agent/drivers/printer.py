"""This file knows the receipt or journal printer that speaks ESC/POS status.

Sources: Epson TM-U220A manual (DLE EOT, ASB), Epson TM-L60II technical information, and an independent
encoder for the values. Three kinds of bytes come back on one stream, told apart by fixed bits:

    status byte   b & 93h = 12h                      reply to DLE EOT n (10 04 n), n = 1..4
    ASB           b & 93h = 10h, then 3 x b & 90h = 0   pushed on a change, after GS a (1D 61 n)
    block         5Fh text 00h                       reply to GS I (1D 49 n)

XON and XOFF (11h, 13h) fit none of them and mean nothing here.

A status byte does not say which question it answers, there is no checksum, and one byte of noise in sixteen
looks like one. So:
- it belongs to the question that waits; after an unanswered question the driver pauses and asks the same
  again, so that a late reply is not taken for the reply to another;
- what differs from the last reply is asked again at once and believed when it comes twice. The first reply of
  all is believed at once, if nothing unreadable came before it;
- within a second of unreadable bytes, only a byte after which the line is quiet can be a reply;
- only what is believed is a sign of life.
A pushed ASB is believed at once, because a paper end cannot wait, if nothing unreadable came just before and
it does not contradict itself: an open cover or an error means offline, and paper bits come in pairs. DLE EOT
is then asked at once to confirm it, and corrects it if it disagrees. A damaged ASB can thus be wrong for the
time of two questions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from agent.drivers.contract import Access, Line, refusal
from agent.drivers.dialogue import Dialogue, Question
from agent.drivers.doubt import Twice
from agent.drivers.framing import BAD, MORE, Deframer
from agent.drivers.hearing import BadFrames
from agent.drivers.transcript import Transcript
from agent.model import Operation, Outcome, Reading

LIMIT = 100
STATUS_TIMEOUT = 2.0
LATE = 0.5  # seconds that a reply may come too late and still do no harm
RUBBISH_LASTS = 1.0  # seconds for which unreadable bytes throw doubt on what follows
QUIET = 0.1  # seconds without a byte that end a burst

STATUS = ("printer", "offline cause", "error cause", "paper")  # DLE EOT 1, 2, 3, 4
ASB = "automatic status"
# Every documented class: drawer 01h, online 02h, error 04h, paper 08h, panel 40h.
ENABLE_ASB = Question(ASB, b"\x1d\x61\x4f", every=60.0, timeout=STATUS_TIMEOUT, mute=True)
# The intervals differ, so that a printer without GS I is not waited for four times in a row.
IDENTITY = {
    "device.maker": Question("device.maker", b"\x1d\x49\x42", 70.0, STATUS_TIMEOUT, mute=True),
    "device.model": Question("device.model", b"\x1d\x49\x43", 80.0, STATUS_TIMEOUT, mute=True),
    "device.serial": Question("device.serial", b"\x1d\x49\x44", 90.0, STATUS_TIMEOUT, mute=True),
    "device.firmware": Question("device.firmware", b"\x1d\x49\x41", 100.0, STATUS_TIMEOUT, mute=True),
}
# GS commands wait in the print buffer while the printer is offline: asked then, they would pile up.
QUEUED = frozenset((ASB, *IDENTITY))

COMMANDS = {
    "retry": (b"\x10\x05\x01", "after a cutter or mechanical error was put right: go on with the same line"),
    "clear": (b"\x10\x05\x02", "after a cutter or mechanical error was put right: go on with an empty buffer"),
}

RECOVERABLE = ("cutter", "mechanical")

Words = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class PrinterOptions:
    """poll: seconds between two rounds of the four status questions, more than 0 and at most 5. The default
    is slow because automatic status pushes what is urgent; without it the poll is what finds a paper end.
    paper: which supply this printer's paper is, receipt or journal.
    asb: let the printer push its status by itself."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    poll: float = 3.0
    paper: Literal["receipt", "journal"] = "receipt"
    asb: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.poll <= 5:
            raise ValueError("poll must be more than 0 and at most 5 seconds")


class Printer:
    """An ESC/POS printer. At most 100 bytes are buffered."""

    line: ClassVar[Line] = Line(baud=9600)
    access: ClassVar[frozenset[Access]] = frozenset({"own"})
    why_not: ClassVar[Mapping[Access, str]] = {
        "listen": "a status byte does not tell its question, and a tap that misses one would guess"
    }
    operations: ClassVar[Mapping[str, str]] = {verb: text for verb, (_, text) in COMMANDS.items()}
    moving: ClassVar[frozenset[str]] = frozenset()
    Options: ClassVar[type[PrinterOptions]] = PrinterOptions

    def __init__(self, options: PrinterOptions, access: Access = "own") -> None:
        self.transcript = Transcript()
        polls = [
            Question(name, bytes((0x10, 0x04, n)), every=options.poll, timeout=STATUS_TIMEOUT)
            for n, name in enumerate(STATUS, 1)
        ]
        self._dialogue = Dialogue([*polls, *([ENABLE_ASB] if options.asb else []), *IDENTITY.values()])
        self._paper = f"paper.{options.paper}"
        self._deframer = Deframer(_measure, LIMIT, gap=0.5)
        self._bad_frames = BadFrames()
        self._twice = Twice()
        self._was_silent = False
        self._asked_again = ""
        self._owed_blocks = 0
        self._rubbish_at = float("-inf")
        self._last_byte: tuple[int, float] | None = None
        self._state = self._error = ""
        self._outgoing = b""

    def receive(self, data: bytes, now: float) -> list[Reading | Outcome]:
        """Readings of status bytes, pushed status and identity; see the contract."""
        out: list[Reading | Outcome] = []
        for at in range(len(data)):  # bytewise: whether a reply came after rubbish must not depend on slicing
            self._last_byte = None
            skipped = self._deframer.skipped
            frames = self._deframer.feed(data[at : at + 1], now)
            if self._deframer.skipped > skipped:
                self._rubbish_at = now
            for frame in frames:
                out += self._frame(frame, now)
        return out + self._dialogue.outcomes()

    def tick(self, now: float) -> list[Reading | Outcome]:
        """Ask what is due, and judge silence."""
        out: list[Reading | Outcome] = []
        for frame in self._deframer.expire(now):
            out += self._frame(frame, now)
        if self._last_byte is not None and now - self._last_byte[1] >= QUIET:
            out += self._status_byte(self._last_byte[0], now)
            self._last_byte = None
        self._dialogue.held = QUEUED if self._state == "offline" else frozenset()
        if data := self._dialogue.next(now):
            self._outgoing += data
            self.transcript.sent(f"asks {self._dialogue.pending.name}" if self._dialogue.pending else "", data)
        if (lapsed := self._dialogue.lapsed) is not None:
            out += self._lapsed(lapsed, now)
        out += self._bad_frames.report(self._deframer.bad, now)
        return out + self._dialogue.outcomes()

    def outgoing(self) -> bytes:
        """Bytes to send since the last call."""
        data, self._outgoing = self._outgoing, b""
        return data

    def perform(self, operation: Operation, now: float) -> None:
        """Begin one of `operations`. DLE ENQ has no reply: the error cause that is asked next tells the outcome.

        Epson allows it for errors of the cutter and the mechanism only, so anything else is refused.
        """
        why = refusal(operation, COMMANDS)
        if not why and self._error not in RECOVERABLE:
            why = f"it recovers cutter and mechanical errors only, and the error is {self._error or 'not known'}"
        data, _ = COMMANDS.get(operation.verb, (b"", ""))
        question = Question(operation.verb, data, timeout=1.0, mute=True, operation=operation.id)
        self._dialogue.undertake(question, why, now)

    def _lapsed(self, lapsed: Question, now: float) -> list[Reading]:
        if lapsed.operation:
            self._dialogue.hurry("error cause")
            return []
        self._owed_blocks += lapsed.name in IDENTITY
        if lapsed.mute:
            return []
        self._dialogue.pause(LATE, now)
        if lapsed.name != self._asked_again:
            self._dialogue.hurry(lapsed.name)
        self._asked_again = "" if lapsed.name == self._asked_again else lapsed.name
        self._was_silent = self._dialogue.silent
        return self._dialogue.link_state(now, self._deframer.skipped)

    def _frame(self, frame: bytes, now: float) -> list[Reading]:
        clean = now - self._rubbish_at > RUBBISH_LASTS
        self.transcript.heard(_meaning(frame), frame)
        if frame[0] == 0x5F:
            return self._block(frame[1:-1].decode("ascii"), now)
        if frame[0] & 0x93 == 0x10:
            return self._pushed(frame, clean, now)
        if frame[0] & 0x93 == 0x12 and clean:
            return self._status_byte(frame[0], now)
        if frame[0] & 0x93 == 0x12:
            self._last_byte = frame[0], now
        return []

    def _status_byte(self, byte: int, now: float) -> list[Reading]:
        pending = self._dialogue.pending
        if pending is None or pending.name not in STATUS:
            return []  # too late: nobody knows which question it answers
        words = self._words(STATUS.index(pending.name) + 1, byte)
        doubted = self._twice.doubted(pending.name)
        if not self._twice.accept(pending.name, words, first=self._deframer.bad == 0):
            self._dialogue.doubted()
            if not doubted:  # once: what never says the same twice must not starve the other questions
                self._dialogue.hurry(pending.name)
            return self._dialogue.link_state(now, self._deframer.skipped) if self._dialogue.silent else []
        self._dialogue.answered()
        if pending.name == "error cause":
            self._judge_recovery(dict(words)["printer.error"], now)
        return self._alive(now) + self._readings(words, f"DLE EOT {pending.data[2]}: {byte:02X}", now)

    def _pushed(self, quad: bytes, clean: bool, now: float) -> list[Reading]:
        first, error, paper, _ = quad
        pairs = paper & 0x03 in (0, 0x03) and paper & 0x0C in (0, 0x0C)
        if not clean or not pairs or (not first & 0x08 and (first & 0x20 or error & 0x6C)):
            for name in STATUS:
                self._dialogue.hurry(name)
            return []
        if self._dialogue.pending is not None and self._dialogue.pending.name == ASB:
            self._dialogue.answered()
        # The same news in the bits of DLE EOT: the second byte already has those of n = 3.
        same = (
            first & 0x0C | (error & 0x02) << 5,
            (first & 0x20) >> 3,
            error,
            (paper & 0x03) << 2 | (paper & 0x0C) << 3,
        )
        out = self._alive(now)
        for n, (name, byte) in enumerate(zip(STATUS, same, strict=True), 1):
            words = self._words(n, byte)
            if not self._twice.accept(name, words):
                self._dialogue.hurry(name)
            self._twice.settle(name, words)
            out += self._readings(words, f"ASB: {quad.hex(' ').upper()}", now)
        return out

    def _block(self, text: str, now: float) -> list[Reading]:
        pending = self._dialogue.pending
        if self._owed_blocks or pending is None or pending.name not in IDENTITY:
            # GS I is queued: after an unanswered one, the next block may be its late reply.
            self._owed_blocks = max(0, self._owed_blocks - 1)
            return []
        self._dialogue.answered()
        if not text or not self._twice.accept(pending.name, text):
            return []
        return [*self._alive(now), Reading(pending.name, text, now)]

    def _alive(self, now: float) -> list[Reading]:
        """The line is up. A printer that was silent may have been switched off, and has forgotten GS a."""
        self._dialogue.heard()
        if self._was_silent:
            self._was_silent = False
            self._dialogue.hurry(ASB)
        return self._dialogue.link_state(now, self._deframer.skipped)

    def _words(self, n: int, byte: int) -> Words:
        """What the status byte of DLE EOT n says."""
        match n:
            case 1:
                return (
                    ("printer.state", "offline" if byte & 0x08 else "online"),
                    ("drawer_signal", "high" if byte & 0x04 else "low"),
                    ("printer.feed_button", "pressed" if byte & 0x40 else "released"),
                )
            case 2:
                return (("printer.cover", "open" if byte & 0x04 else "closed"),)
            case 3:
                causes = ((0x20, "unrecoverable"), (0x08, "cutter"), (0x04, "mechanical"), (0x40, "head_hot"))
                return (("printer.error", next((word for bit, word in causes if byte & bit), "ok")),)
            case _:
                return ((self._paper, "out" if byte & 0x60 else "low" if byte & 0x0C else "full"),)

    def _readings(self, words: Words, raw: str, now: float) -> list[Reading]:
        said = dict(words)
        self._state = said.get("printer.state", self._state)
        self._error = said.get("printer.error", self._error)
        return [Reading(point, word, now, raw=raw) for point, word in words]

    def _judge_recovery(self, error: str, now: float) -> None:
        for question in self._dialogue.proven():
            if error in RECOVERABLE:
                why = "the error is still there; put its cause right"
                self._dialogue.end(question.operation, "failed", why, now, error)
            else:
                self._dialogue.end(question.operation, "done", "the error is gone", now, error)


def _meaning(frame: bytes) -> str:
    """What kind of thing the printer says, for the transcript."""
    if frame[0] == 0x5F:
        return f"identity {frame[1:-1].decode('ascii')}"
    return "automatic status" if len(frame) == 4 else "status byte" if frame[0] & 0x93 == 0x12 else "flow control"


def _measure(data: bytes) -> int:
    """See framing.Measure."""
    first = data[0]
    if first & 0x93 == 0x12 or first in (0x11, 0x13):
        return 1
    if first & 0x93 == 0x10:
        if any(byte & 0x90 for byte in data[1:4]):
            return BAD
        return 4 if len(data) >= 4 else MORE
    if first == 0x5F:
        end = data.find(0)
        text = data[1:end] if end > 0 else data[1:]
        if any(not 0x20 <= byte < 0x7F for byte in text):
            return BAD
        return end + 1 if end > 0 else MORE
    return BAD
