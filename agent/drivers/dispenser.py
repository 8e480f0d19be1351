"""This file knows a Puloon LCDM-4000 as its master and from a passive tap; what it says stands in lcdm.py.

    host: command; device: ACK 06 within 0.5 s (NAK 15: say it again); device: response within 60 s;
    host: ACK (NAK: say it again, three times at most); device: EOT 04, which not every unit sends

Source: the vendor's "LCDM-1000T Interface Specification V3.3" for timing, the client library `puloon` for the EOT.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from agent.drivers.contract import Access, Line, refusal
from agent.drivers.dialogue import Question
from agent.drivers.framing import Deframer, xor_of
from agent.drivers.handshake import ACK, Handshake
from agent.drivers.hearing import BadFrames, Overhearing
from agent.drivers.lcdm import (
    HOST,
    LAST_STATUS,
    LIMIT,
    MOTIONS,
    PURGE,
    RESET,
    STATUS,
    TEST_DISPENSE,
    Picture,
    error_word,
    meaning,
    measure_for,
    quantities,
)
from agent.drivers.transcript import Transcript
from agent.model import Operation, Outcome, Reading

ACK_WAIT, STATUS_WAIT = 0.55, 5.0
# A motion command is never said twice, so nothing is lost by patience.
MOTION_ACK_WAIT, MOTION_WAIT = 2.0, 60.0
RESET_WAIT, EOT_WAIT, BYTE_GAP = 2.0, 0.2, 0.3  # the vendor allows 0.2 s within a frame
CODES = {"purge": PURGE, "test_dispense": TEST_DISPENSE, "reset": RESET}
LIMITS = {"position": 4, "count": 10}


@dataclass(frozen=True, slots=True)
class DispenserOptions:
    """poll: seconds between two status queries, more than 0 and at most 5 (not used with access "listen").
    unit_id: the unit's id byte, 0x30 on an LCDM-4000.
    quiet: with access "listen", seconds without a response after which the dispenser is silent; less than 15,
    the age at which its values become unknown."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    poll: float = 1.0
    unit_id: int = 0x30
    quiet: float = 12.0

    def __post_init__(self) -> None:
        if not 0 < self.poll <= 5:
            raise ValueError("poll must be more than 0 and at most 5 seconds")
        if not 0 <= self.unit_id <= 0xFF:
            raise ValueError("unit_id must be one byte, 0 to 255")
        if not 0 < self.quiet < 15:
            raise ValueError("quiet must be more than 0 and less than 15 seconds")


class Dispenser:
    """An LCDM-4000, as its master or from a passive tap. At most 29 bytes are buffered."""

    line: ClassVar[Line] = Line(baud=9600)
    access: ClassVar[frozenset[Access]] = frozenset({"own", "listen"})
    why_not: ClassVar[Mapping[Access, str]] = {}
    operations: ClassVar[Mapping[str, str]] = {
        "purge": "move all notes from the path to the reject tray",
        "test_dispense": "feed notes to the reject tray; position=1..4, count=1..10 (1 when not given)",
        "reset": "restart the dispenser's controller",
    }
    moving: ClassVar[frozenset[str]] = frozenset({"purge", "test_dispense", "reset"})
    Options: ClassVar[type[DispenserOptions]] = DispenserOptions

    def __init__(self, options: DispenserOptions, access: Access = "own") -> None:
        self.transcript = Transcript()
        self._unit = options.unit_id
        self._listening = access == "listen"
        status = Question("status", self._command(STATUS), options.poll, ACK_WAIT, reply=STATUS_WAIT)
        last = Question("last status", self._command(LAST_STATUS), 0.0, ACK_WAIT, reply=STATUS_WAIT)
        self._dialogue = Handshake((status, last), BYTE_GAP, EOT_WAIT, least=7)
        # On a tap nothing waits for us, and a merged stream shows its own seams: no gap.
        gap = 0.0 if self._listening else BYTE_GAP
        self._deframer = Deframer(measure_for(self._unit, self._listening), LIMIT, gap)
        self._bad_frames = BadFrames()
        self._picture = Picture()
        self._requests: dict[int, tuple[int, ...]] = {}
        self._overhearing = Overhearing(options.quiet)
        self._acks = 0
        self._moving = False
        self._result = b""

    def receive(self, data: bytes, now: float) -> list[Reading | Outcome]:
        """Readings of whole responses; see the contract."""
        understand = self._overheard if self._listening else self._told
        out: list[Reading | Outcome] = []
        for at in range(len(data)):  # bytewise: what is a damaged ACK must not depend on slicing
            frames = self._deframer.feed(data[at : at + 1], now)
            self._dialogue.came(self._deframer.skipped, now)
            for frame in frames:
                self.transcript.heard(meaning(frame), frame)
                out += understand(frame, now)
        return out + self._dialogue.outcomes()

    def tick(self, now: float) -> list[Reading | Outcome]:
        """Ask what is due, ask for a bad response again, and judge silence."""
        out: list[Reading | Outcome] = []
        if self._listening:
            patience = MOTION_WAIT if self._moving else 0.0
            out += self._overhearing.judge(now, self._deframer.skipped, patience)
        else:
            for frame in self._deframer.expire(now):
                out += self._told(frame, now)
            out += self._converse(now)
        out += self._bad_frames.report(self._deframer.bad, now)
        return out + self._dialogue.outcomes()

    def outgoing(self) -> bytes:
        """Bytes to send since the last call; always none with access "listen"."""
        data, self._dialogue.outgoing = self._dialogue.outgoing, b""
        if data:
            self.transcript.sent(meaning(data), data)
        return data

    def perform(self, operation: Operation, now: float) -> None:
        """Begin one of `operations`. All notes that an operation moves go to the reject tray, never out."""
        why = refusal(operation, CODES, LIMITS if operation.verb == "test_dispense" else None)
        if self._listening:
            why = "the agent only listens on this line; it may not write"
        data = self._command(CODES.get(operation.verb, 0))
        if operation.verb == "test_dispense" and not why:
            position, count = operation.arguments.get("position", 1), int(operation.arguments.get("count", 1))
            wanted = bytes(0x20 + (count if place == position else 0) for place in (1, 2, 3, 4))
            data = self._command(TEST_DISPENSE, wanted + b"\x20" * 11)
        question = Question(operation.verb, data, 0.0, MOTION_ACK_WAIT, False, operation.id, MOTION_WAIT)
        if operation.verb == "reset":
            question = Question("reset", data, timeout=RESET_WAIT, mute=True, operation=operation.id)
        self._dialogue.undertake(question, why, now)

    def _command(self, code: int, data: bytes = b"") -> bytes:
        frame = bytes((HOST, self._unit, 0x02, code)) + data + b"\x03"
        return frame + bytes((xor_of(frame),))

    def _converse(self, now: float) -> list[Reading]:
        self._dialogue.advance(self._deframer.skipped, now)
        if (asked := self._dialogue.pending) is not None and asked.data[3] in MOTIONS:
            self._requests[asked.data[3]] = quantities(asked.data)
        if self._dialogue.lapsed is None:
            return []
        if self._dialogue.lapsed.name == "last status":
            self._dialogue.hurry("last status", now)
        return self._dialogue.link_state(now, self._deframer.skipped)

    def _told(self, frame: bytes, now: float) -> list[Reading]:
        if len(frame) == 1:
            self._dialogue.control(frame, now)
            return self._dialogue.link_state(now, self._deframer.skipped) if self._dialogue.silent else []
        self._dialogue.good(now)
        pending = self._dialogue.pending
        meant = pending if pending is not None and pending.data[3] == frame[3] else None
        self._dialogue.heard() if meant is None else self._dialogue.answered()
        out = self._dialogue.link_state(now, self._deframer.skipped)
        for question in self._dialogue.proven():
            self._dialogue.end(question.operation, "done", "the dispenser answers again", now)
        before = self._picture.error
        # The result of a motion counts once, also when it comes too late to be the reply.
        wanted = self._requests.pop(frame[3], None)
        if wanted is not None or frame[3] not in MOTIONS:
            out += self._picture.say(frame, wanted, now)
        if self._picture.error not in ("ok", before):
            self._dialogue.hurry("last status")
        if meant is not None and meant.operation:
            error, detail = error_word(frame[4]), "the notes went to the reject tray"
            if error != "ok":
                detail = f"the dispenser ended it with {error}"
            result = "done" if error == "ok" else "failed"
            self._dialogue.end(meant.operation, result, detail, now, f"{frame[4]:02X}")
        return out

    def _overheard(self, frame: bytes, now: float) -> list[Reading]:
        if frame == ACK:
            self._acks += 1
            self._moving = bool(self._requests)
        if len(frame) == 1:
            return []
        self._moving = False
        if frame[0] == HOST:
            self._overhearing.asked(now)
            self._requests = {frame[3]: quantities(frame)} if frame[3] in MOTIONS else {}
            return []
        out = self._overhearing.heard(now, self._deframer.skipped)
        if frame[3] not in MOTIONS:
            return out + self._picture.say(frame, None, now)
        # One ACK (the host's) follows a result. A second one can only acknowledge a command that the tap missed.
        if frame[3] not in self._requests and frame == self._result and self._acks < 2:
            return out
        self._result, self._acks = frame, 0
        return out + self._picture.say(frame, self._requests.pop(frame[3], None), now)
