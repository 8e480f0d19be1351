"""This file knows a CREATOR CRT-591 card reader as its master and from a passive tap; what it says is in crt591.py.

    host: command; reader: ACK 06 within 0.3 s (NAK 15: say it again)
    reader: response; host: ACK (NAK: say it again)

Source: "CRT-591-M001 communication protocol" v1.0, sections 1.4 and 3.1.1. INIT must be the first command after
power-on: until then the reader answers everything with error B0, or with nothing, because it finds the line speed
by INIT too. But INIT stops a reader from taking cards, so a monitor sends it only when it is told to: by the
operation `initialise`, or once and for all by the option of that name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from agent.drivers.contract import Access, Line, refusal
from agent.drivers.crt591 import (
    ASK,
    COMMAND,
    COUNTER,
    DIALECTS,
    HIGHEST_ADDRESS,
    INIT,
    LIMIT,
    MOVE,
    NOT_KNOWN,
    SERIAL,
    SET_COUNTER,
    STATUS,
    TO_BIN,
    VERSION,
    Picture,
    described,
    frame_of,
    measure_for,
    telegram,
)
from agent.drivers.dialogue import Question
from agent.drivers.framing import Deframer
from agent.drivers.handshake import ACK, Handshake
from agent.drivers.hearing import BadFrames, Overhearing
from agent.drivers.transcript import Transcript
from agent.model import Operation, Outcome, Reading

ACK_WAIT, REPLY_WAIT = 0.5, 1.0  # the reader acknowledges within 0.3 s and answers a question at once
# A motion is never said twice, so nothing is lost by patience.
MOTION_ACK_WAIT, MOTION_WAIT = 2.0, 30.0
RESET_EVERY = 30.0
TURN, BYTE_GAP, TAP_GAP = 0.05, 0.3, 1.0  # seconds: the line is half duplex
LEAST = 6  # bytes that make a damaged response, not noise
RARE = {COUNTER: ("retained cards", 5.0), SERIAL: ("serial number", 100.0), VERSION: ("version", 100.0)}
"""What not every model knows, and is asked every so many seconds once it is known to be well."""


@dataclass(frozen=True, slots=True)
class CardReaderOptions:
    """poll: seconds between two status queries, more than 0 and at most 5 (not used with access "listen").
    framing: "crt591" (motorised, with bins), or "crt288" (a card is put in by hand; frames without address).
    address: the reader's address, 0 to 15, as its DIP switches say; without meaning for "crt288".
    initialise: whether the agent may reset the reader by itself, at most every 30 s, when it says that it was not
    reset or when it does not answer; a card stays where it is, but no more cards are taken until it is told to.
    counting: whether a reset also switches the reader's counter of retained cards on (INIT 37 instead of 33).
    quiet: with access "listen", seconds without a response after which the reader is silent; less than 15, the age
    at which its values become unknown."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    poll: float = 1.0
    framing: Literal["crt591", "crt288"] = "crt591"
    address: int = 0
    initialise: bool = False
    counting: bool = False
    quiet: float = 12.0

    def __post_init__(self) -> None:
        if not 0 < self.poll <= 5:
            raise ValueError("poll must be more than 0 and at most 5 seconds")
        if self.framing not in DIALECTS:
            raise ValueError(f"framing must be one of {', '.join(DIALECTS)}")
        if not 0 <= self.address <= HIGHEST_ADDRESS:
            raise ValueError("address must be 0 to 15")
        if not 0 < self.quiet < 15:
            raise ValueError("quiet must be more than 0 and less than 15 seconds")

    def clash(self, access: Access) -> str:
        """See the contract."""
        if access == "listen" and (self.initialise or self.counting):
            return 'initialise and counting send INIT, which access = "listen" forbids; leave one of them out'
        return ""


class CardReader:
    """A CRT-591 or CRT-288, as its master or from a passive tap. At most 524 bytes are buffered."""

    line: ClassVar[Line] = Line(baud=9600)
    access: ClassVar[frozenset[Access]] = frozenset({"own", "listen"})
    why_not: ClassVar[Mapping[Access, str]] = {}
    operations: ClassVar[Mapping[str, str]] = {
        "capture": "move the card in the reader to the bin of retained cards",
        "initialise": "reset the reader; a card stays where it is, and no more cards are taken until it is told to",
        "clear_counter": "set the reader's counter of retained cards to 0, after its bin was emptied",
    }
    moving: ClassVar[frozenset[str]] = frozenset({"capture", "initialise"})
    Options: ClassVar[type[CardReaderOptions]] = CardReaderOptions

    def __init__(self, options: CardReaderOptions, access: Access = "own") -> None:
        self.transcript = Transcript()
        self._listening = access == "listen"
        self._dialect = DIALECTS[options.framing]
        self._address = options.address if self._dialect.addressed else 0
        self._may_reset = options.initialise
        self._reset = self._frame(INIT, self._dialect.count if options.counting else self._dialect.leave)
        questions = [
            Question("status", self._frame(STATUS, ASK), options.poll, ACK_WAIT, reply=REPLY_WAIT),
            Question("initialise", self._reset, RESET_EVERY, MOTION_ACK_WAIT, reply=MOTION_WAIT),
        ]
        for code, (name, every) in RARE.items():
            questions.append(Question(name, self._frame(code, ASK), every, ACK_WAIT, mute=True, reply=REPLY_WAIT))
        self._dialogue = Handshake(questions, BYTE_GAP, TURN, LEAST)
        self._unknown = set() if self._dialect.has_bin else {"retained cards"}
        self._resets: list[Question] = []
        measure = measure_for(self._dialect)
        self._deframer = Deframer(measure, LIMIT, TAP_GAP if self._listening else BYTE_GAP)
        self._own_words = Deframer(measure, LIMIT)
        self._bad_frames = BadFrames()
        self._picture = Picture(self._dialect)
        self._overhearing = Overhearing(options.quiet)
        self._motion = self._moving = False

    def receive(self, data: bytes, now: float) -> list[Reading | Outcome]:
        """Readings of whole responses; see the contract."""
        understand = self._overheard if self._listening else self._told
        out: list[Reading | Outcome] = []
        for at in range(len(data)):  # bytewise: what is a damaged ACK must not depend on slicing
            frames = self._deframer.feed(data[at : at + 1], now)
            self._dialogue.came(self._deframer.skipped, now)
            out += [reading for frame in frames for reading in understand(frame, now)]
        return out + self._dialogue.outcomes()

    def tick(self, now: float) -> list[Reading | Outcome]:
        """Ask what is due, ask for a bad response again, and judge silence."""
        understand = self._overheard if self._listening else self._told
        out: list[Reading | Outcome] = []
        for frame in self._deframer.expire(now):
            out += understand(frame, now)
        if self._listening:
            patience = MOTION_WAIT if self._moving else 0.0
            out += self._overhearing.judge(now, self._deframer.skipped, patience)
        else:
            out += self._converse(now)
        out += self._bad_frames.report(self._deframer.bad, now)
        return out + self._dialogue.outcomes()

    def outgoing(self) -> bytes:
        """Bytes to send since the last call; always none with access "listen"."""
        data, self._dialogue.outgoing = self._dialogue.outgoing, b""
        for frame in self._own_words.feed(data, 0.0):
            self.transcript.sent(*described(frame, self._dialect))
        return data

    def perform(self, operation: Operation, now: float) -> None:
        """Begin one of `operations`."""
        why = refusal(operation, self.operations)
        if self._listening:
            why = "the agent only listens on this line; it may not write"
        elif not self._dialect.has_bin and operation.verb in ("capture", "clear_counter"):
            why = "this reader has no bin for cards"
        frame = self._reset
        if operation.verb == "capture":
            frame = self._frame(MOVE, TO_BIN)
        elif operation.verb == "clear_counter":
            frame = self._frame(COUNTER, SET_COUNTER, b"000")
        question = Question(operation.verb, frame, 0.0, MOTION_ACK_WAIT, operation=operation.id, reply=MOTION_WAIT)
        if operation.verb == "initialise" and not why:
            self._resets.append(question)
        else:
            self._dialogue.undertake(question, why, now)

    def _frame(self, command: int, parameter: int, data: bytes = b"") -> bytes:
        return frame_of(self._dialect, self._address, command, parameter, data)

    def _converse(self, now: float) -> list[Reading]:
        # A reset is also sent into silence: a reader that was just switched on hears nothing else.
        if self._resets and self._dialogue.pending is None:
            self._dialogue.ask(self._resets.pop(0))
        self._dialogue.held = self._not_now()
        self._dialogue.advance(self._deframer.skipped, now)
        return [] if self._dialogue.lapsed is None else self._dialogue.link_state(now, self._deframer.skipped)

    def _not_now(self) -> set[str]:
        """The questions that are not to be asked: a reader that was not reset refuses everything."""
        held = set(self._unknown)
        if self._picture.error in ("", "not_reset"):
            held |= {name for name, _ in RARE.values()}
        if not (self._may_reset and (self._picture.error == "not_reset" or self._dialogue.silent)):
            held.add("initialise")
        return held

    def _told(self, frame: bytes, now: float) -> list[Reading]:
        self._note(frame)
        if len(frame) == 1:
            self._dialogue.control(frame, now)
            return self._dialogue.link_state(now, self._deframer.skipped) if self._dialogue.silent else []
        said = telegram(frame, self._dialect)
        if said.head == COMMAND or said.address != self._address:
            return []  # our own echo, or another reader on the line
        self._dialogue.good(now)
        pending = self._dialogue.pending
        asked = None if pending is None else telegram(pending.data, self._dialect)
        fits = asked is not None and (asked.command, asked.parameter) == (said.command, said.parameter)
        self._dialogue.answered() if fits else self._dialogue.heard()
        if said.command in RARE and said.error(self._dialect) in NOT_KNOWN:
            self._unknown.add(RARE[said.command][0])
        out = self._dialogue.link_state(now, self._deframer.skipped) + self._picture.say(said, now)
        if fits and pending is not None and pending.operation:
            result = "failed" if said.code else "done"
            detail = f"the reader says {described(frame, self._dialect)[0]}"
            self._dialogue.end(pending.operation, result, detail, now, said.code)
            self._dialogue.hurry("status")
            self._dialogue.hurry("retained cards")
        return out

    def _overheard(self, frame: bytes, now: float) -> list[Reading]:
        self._note(frame)
        if frame == ACK:
            self._moving = self._motion
        if len(frame) == 1:
            return []
        said = telegram(frame, self._dialect)
        if said.address != self._address:
            return []
        self._motion, self._moving = said.head == COMMAND and said.command in (INIT, MOVE), False
        if said.head == COMMAND:
            self._overhearing.asked(now)
            return []
        return self._overhearing.heard(now, self._deframer.skipped) + self._picture.say(said, now)

    def _note(self, frame: bytes) -> None:
        if self.transcript.on:
            self.transcript.heard(*described(frame, self._dialect))
