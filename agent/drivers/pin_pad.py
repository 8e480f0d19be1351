"""This file knows a VeriFone PIN pad as its master: who it is, which key slots are filled, and its self-test. What
its packets look like stands in ipp.py.

    host: packet; pad: ACK (NAK: say it again); pad: reply; host: ACK (NAK: say it again, three times at most, then
    EOT); pad: EOT

    06    serial number: version(3) release date(6) facility(1) batch(2) number(4); sixteen zeros: none is stored
    M04   permanent unit serial number xxx-xxx-xxx; only younger pads (IPP8) know it
    04 n  whether slot n holds a master key: 0 no, F yes; a pad in mixed or 3DES mode adds key usage(2), mode of
          use(1), version(2), length(1)
    01 d  self-test d: 14RAM TST BEGIN, then 14RAM TST OK or 14BAD RAM; 14xx the PROM checksum; 14 and the serial
          number; 09, then our loopback text comes back

Source: see ipp.py. The protocol has no check value of a key and no state of the battery. Errors are told only in
reply to PIN entry, which this driver never begins; nor does it load or choose a key. PIN packets that pass are
thrown away unread.

A reply to 04 does not name its slot. Where several are watched, it is believed only when the pad has acknowledged
the question before, and after a reply that did not come the same slot is asked for again: see dialogue.Alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from agent.drivers.contract import Access, Line, refusal
from agent.drivers.dialogue import LONGEST, SOON, Alike, Question
from agent.drivers.framing import Deframer
from agent.drivers.handshake import ACK, EOT, Handshake
from agent.drivers.hearing import BadFrames
from agent.drivers.ipp import (
    CHECK_KEY,
    LIMIT,
    LOOPBACK,
    LOOPBACK_TEXT,
    SERIAL,
    STX,
    TEST,
    TEST_REPLY,
    UNIT_SERIAL,
    Picture,
    meaning,
    measure,
    packet,
    parity_tables,
    printable,
    split,
)
from agent.drivers.transcript import Transcript
from agent.model import Operation, Outcome, Reading

ACK_WAIT, REPLY_WAIT, TEST_WAIT = 1.0, 2.0, 30.0
EOT_WAIT, BYTE_GAP = 0.3, 0.3
IDENTITY_EVERY = 60.0
TESTS = {1: "RAM", 3: "PROM checksum", 6: "serial number", 7: "serial line"}
RAM, LINE = 1, 7
RAM_BEGIN = TEST_REPLY + "RAM TST BEGIN"
GOOD = {RAM: TEST_REPLY + "RAM TST OK", LINE: LOOPBACK_TEXT}


@dataclass(frozen=True, slots=True)
class PinPadOptions:
    """poll: seconds between two checks of a key slot, more than 0 and at most 5.
    slots: the key slots to watch, each 0 to 9.
    parity: "even" or "odd" with 7 data bits, or "none" with 8."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    poll: float = 1.0
    slots: tuple[int, ...] = (0,)
    parity: Literal["even", "odd", "none"] = "even"

    def __post_init__(self) -> None:
        if not 0 < self.poll <= 5:
            raise ValueError("poll must be more than 0 and at most 5 seconds")
        if not self.slots or not set(self.slots) <= set(range(10)) or len(set(self.slots)) < len(self.slots):
            raise ValueError("slots must be different numbers from 0 to 9, at least one")
        if self.parity not in ("even", "odd", "none"):
            raise ValueError('parity must be "even", "odd" or "none"')


class PinPad:
    """A VeriFone IPP with master/session keys. At most 64 bytes are buffered. A pad that was set to another speed
    needs `baud` in the config."""

    line: ClassVar[Line] = Line(baud=1200)
    access: ClassVar[frozenset[Access]] = frozenset({"own"})
    why_not: ClassVar[Mapping[Access, str]] = {
        "listen": "PIN blocks travel on a PIN pad's line; nobody listens there"
    }
    operations: ClassVar[Mapping[str, str]] = {
        "self_test": "test the pad, its keys stay; test=1 RAM (when not given), 3 PROM checksum, 6 serial number,"
        " 7 serial line"
    }
    moving: ClassVar[frozenset[str]] = frozenset()
    Options: ClassVar[type[PinPadOptions]] = PinPadOptions

    def __init__(self, options: PinPadOptions, access: Access = "own") -> None:
        self.transcript = Transcript()
        self._slot_of = {_check(slot).name: slot for slot in options.slots}
        self._dialogue = Handshake(
            (
                *(_check(slot, options.poll) for slot in options.slots),
                Question(SERIAL, packet(SERIAL), IDENTITY_EVERY, ACK_WAIT, reply=REPLY_WAIT),
                Question(UNIT_SERIAL, packet(UNIT_SERIAL), IDENTITY_EVERY, ACK_WAIT, mute=True, reply=REPLY_WAIT),
            ),
            BYTE_GAP,
            EOT_WAIT,
            least=2,
        )
        self._to_wire, self._from_wire = parity_tables(options.parity)
        self._deframer = Deframer(measure, LIMIT, BYTE_GAP)
        self._bad_frames = BadFrames()
        self._acknowledged = False
        self._checks = Alike(self._slot_of)
        self._lapsed_at = float("-inf")
        self._selftest = ("none", "")
        self._picture = Picture(options.slots)

    def receive(self, data: bytes, now: float) -> list[Reading | Outcome]:
        """Readings of whole packets; see the contract."""
        out: list[Reading | Outcome] = []
        plain = data.translate(self._from_wire)
        for at in range(len(plain)):  # bytewise: what is a damaged ACK must not depend on slicing
            frames = self._deframer.feed(plain[at : at + 1], now)
            self._dialogue.came(self._deframer.skipped, now)
            out += [reading for frame in frames for reading in self._told(frame, now)]
        return out + self._dialogue.outcomes()

    def tick(self, now: float) -> list[Reading | Outcome]:
        """Ask what is due, ask for a bad reply again, and judge silence."""
        out: list[Reading | Outcome] = []
        for frame in self._deframer.expire(now):
            out += self._told(frame, now)
        before = self._dialogue.pending
        if before is None:
            self._dialogue.held = self._checks.held(now)
        self._dialogue.advance(self._deframer.skipped, now)
        asked = self._dialogue.pending
        if before is None and asked is not None and asked.name in self._slot_of:
            self._checks.asked(asked.name, now)
        if self._dialogue.lapsed is not None:
            out += self._lapsed(self._dialogue.lapsed, now)
        out += self._bad_frames.report(self._deframer.bad, now)
        return out + self._dialogue.outcomes()

    def outgoing(self) -> bytes:
        """Bytes to send since the last call, with their parity bits."""
        data, self._dialogue.outgoing = self._dialogue.outgoing, b""
        for frame in split(data):
            self.transcript.sent(*meaning(frame))
        return data.translate(self._to_wire)

    def perform(self, operation: Operation, now: float) -> None:
        """Begin a self-test."""
        why = refusal(operation, self.operations, {"test": max(TESTS)})
        test = RAM if why else int(operation.arguments.get("test", RAM))
        if test not in TESTS:
            why = f"test must be one of {', '.join(f'{number} ({name})' for number, name in TESTS.items())}"
        text = f"{TEST}{test:02d}"
        question = Question(text, packet(text), 0.0, ACK_WAIT, False, operation.id, TEST_WAIT)
        self._dialogue.undertake(question, why, now)

    def _lapsed(self, question: Question, now: float) -> list[Reading]:
        self._lapsed_at = now
        if self._acknowledged:
            self._dialogue.outgoing += EOT  # the pad may still wait for us
        self._acknowledged = False
        if question.operation:
            self._selftest = ("none", "")
        if question.name == SERIAL:
            self._dialogue.hurry(SERIAL, now + SOON)
        return [] if question.mute else self._dialogue.link_state(now, self._deframer.skipped)

    def _told(self, frame: bytes, now: float) -> list[Reading]:
        self.transcript.heard(*meaning(frame))
        if len(frame) == 1:
            return self._controlled(frame, now)
        if frame[0] == STX:
            self._dialogue.heard()
            return self._dialogue.link_state(now, self._deframer.skipped)
        return self._packet(frame[1:-2].decode("ascii"), now)

    def _controlled(self, byte: bytes, now: float) -> list[Reading]:
        asked = self._dialogue.pending
        if byte == ACK and asked is not None:
            self._acknowledged = True
        if byte == EOT and asked is not None and self._acknowledged:
            self._acknowledged = False
            self._dialogue.doubted()
            if asked.name in self._slot_of and now - self._lapsed_at > LONGEST:
                self._checks.ended()
            if asked.operation:
                self._selftest = ("none", "")
                self._dialogue.end(asked.operation, "failed", "the pad ended it without a result", now, "EOT")
        self._dialogue.control(byte, now)
        given_up = asked is not None and self._dialogue.pending is None and self._dialogue.silent
        return self._dialogue.link_state(now, self._deframer.skipped) if given_up else []

    def _packet(self, text: str, now: float) -> list[Reading]:
        pending = self._dialogue.pending
        if pending is not None and pending.operation and text.startswith((TEST_REPLY, LOOPBACK)):
            return self._tested(pending, text, now)
        slot = self._slot_meant() if text.startswith(CHECK_KEY) else None
        if text.startswith(CHECK_KEY):
            self._checks.came(now, answer=slot is not None)
        self._dialogue.good(now)
        asked = pending is not None and not pending.operation and text.startswith(pending.name[:2])
        if asked and (slot is not None or not text.startswith(CHECK_KEY)):
            self._dialogue.answered()
            self._acknowledged = False
        else:
            self._dialogue.heard()
        up = self._dialogue.link_state(now, self._deframer.skipped)
        if text.startswith(UNIT_SERIAL):
            return [*up, Reading("device.unit_serial", printable(text[3:]), now)]
        if text.startswith(SERIAL):
            return [*up, *self._picture.identity(printable(text[2:]), now)]
        if slot is None:
            return up
        up += self._picture.slot(slot, printable(text[2:]), now)
        if self._picture.suspected:
            self._dialogue.hurry(SERIAL)  # the same pad?
        return [*up, Reading("epp.selftest", self._selftest[0], now, self._selftest[1])]

    def _slot_meant(self) -> int | None:
        """The slot that a reply to 04 is about, if that is sure."""
        if len(self._slot_of) == 1:
            return next(iter(self._slot_of.values()))
        pending = self._dialogue.pending
        return self._slot_of.get(pending.name) if pending is not None and self._acknowledged else None

    def _tested(self, question: Question, text: str, now: float) -> list[Reading]:
        """One packet of a running self-test."""
        test, said = int(question.name.removeprefix(TEST)), printable(text[2:])
        if (test, text) in ((RAM, RAM_BEGIN), (LINE, LOOPBACK)):
            self._dialogue.outgoing += ACK + (packet(LOOPBACK_TEXT) if test == LINE else b"")
            self._dialogue.wait(TEST_WAIT, now)
            self._selftest = ("running", TESTS[test])
            return [Reading("epp.selftest", "running", now, TESTS[test])]
        self._dialogue.good(now)
        self._dialogue.answered()
        self._acknowledged = False
        if test not in GOOD:
            detail = f"{TESTS[test]} of the pad: {said}; compare it with what the maker or the register says"
            self._dialogue.end(question.operation, "done", detail, now, said)
            return []
        passed = text == GOOD[test]
        self._selftest = ("passed" if passed else "failed", said)
        detail = f"{TESTS[test]} is good" if passed else f"{TESTS[test]} is bad: have the pad replaced"
        self._dialogue.end(question.operation, "done" if passed else "failed", detail, now, said)
        return [Reading("epp.selftest", self._selftest[0], now, said)]


def _check(slot: int, every: float = 0.0) -> Question:
    return Question(f"{CHECK_KEY}{slot}", packet(f"{CHECK_KEY}{slot}"), every, ACK_WAIT, reply=REPLY_WAIT)
