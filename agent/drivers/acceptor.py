"""This file knows an ITL note acceptor as its master and from a passive tap; what it says stands in ssp.py.

    host: command; unit: reply, within a second; else the host says it again with the same flag, 20 times at most
    SYNC sets the flag: it always carries 1, and the next command 0

Source: the vendor's "SSP Protocol Manual" GA138, transport layer, and the command tables.

POLL hands each event out once, to whoever asks, and a POLL accepts the note in escrow. So the master of an acceptor
is the one that credits notes: where a payment application is, the agent can only listen on a tap.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from agent.drivers import ssp
from agent.drivers.contract import Access, Line, refusal
from agent.drivers.dialogue import Dialogue, Question
from agent.drivers.framing import Deframer
from agent.drivers.hearing import BadFrames, Overhearing
from agent.drivers.transcript import Transcript
from agent.model import Operation, Outcome, Reading

GREATEST_VERSION = 8
RESET_TIME = 6.0  # seconds that a unit needs to restart, about; it says nothing then
BYTE_GAP = 0.5
INHIBITS = bytes((ssp.INHIBITS, 0xFF, 0xFF))
"""Lets all channels in. A unit that has not accepted it takes no note, and need not say so when it is enabled."""
VERBS = {"reset": ssp.RESET, "enable": ssp.ENABLE, "disable": ssp.DISABLE}
UNREADABLE = (
    "the host and the acceptor speak encrypted, which a tap cannot read: take the status from the application"
)


@dataclass(frozen=True, slots=True)
class AcceptorOptions:
    """poll: seconds between two polls, more than 0 and at most 5 (not used with access "listen").
    address: the unit's address, 0 to 125; note acceptors leave the factory with 0.
    accept: with access "own", whether the agent lets the acceptor take notes. The default is no, and then the agent
    keeps it disabled: a note that is taken while nobody credits it is a customer's loss. Say true where the agent
    is who counts, as on a deposit safe. The operations enable and disable overrule it while the line is open.
    floor: the lowest version of the protocol to agree on, 4 to 8; the highest that the unit knows is taken.
    quiet: with access "listen", seconds without a reply after which the acceptor is silent; less than 15, the age
    at which its values become unknown."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    poll: float = 0.5
    address: int = 0
    accept: bool = False
    floor: int = 4
    quiet: float = 12.0

    def __post_init__(self) -> None:
        if not 0 < self.poll <= 5:
            raise ValueError("poll must be more than 0 and at most 5 seconds")
        if not 0 <= self.address <= ssp.GREATEST_ADDRESS:
            raise ValueError("address must be 0 to 125")
        if not 4 <= self.floor <= GREATEST_VERSION:
            raise ValueError("floor must be 4 to 8")
        if not 0 < self.quiet < 15:
            raise ValueError("quiet must be more than 0 and less than 15 seconds")

    def clash(self, access: Access) -> str:
        """See the contract."""
        if access == "listen" and self.accept:
            return 'accept = true and access = "listen": who only listens cannot let it take notes; leave one out'
        return ""


class Acceptor:
    """A note acceptor, as its master or from a passive tap. At most 256 bytes are buffered."""

    line: ClassVar[Line] = Line(baud=9600, stop=2)
    access: ClassVar[frozenset[Access]] = frozenset({"own", "listen"})
    why_not: ClassVar[Mapping[Access, str]] = {}
    operations: ClassVar[Mapping[str, str]] = {
        "reset": "restart the acceptor; it moves its transport, and a note in it goes to the cashbox or comes back",
        "enable": "take notes, until the line is opened again: at a start of the agent, or after a pulled cable",
        "disable": "take no notes, until the line is opened again",
    }
    moving: ClassVar[frozenset[str]] = frozenset({"reset", "enable"})
    Options: ClassVar[type[AcceptorOptions]] = AcceptorOptions

    def __init__(self, options: AcceptorOptions, access: Access = "own") -> None:
        self.transcript = Transcript()
        self._address = options.address
        self._listening = access == "listen"
        self._accept = options.accept
        self._session = _Session(
            (
                # before the first poll, because a poll accepts the note that waits
                Question("disable", bytes((ssp.DISABLE,)), every=10.0),
                Question("reject", bytes((ssp.REJECT,))),
                Question("inhibits", INHIBITS, every=10.0),
                Question("enable", bytes((ssp.ENABLE,)), every=10.0),
                Question("poll", bytes((ssp.POLL,)), options.poll),
                Question("counters", bytes((ssp.COUNTERS,)), every=5.0),
                Question("last reject", bytes((ssp.LAST_REJECT,))),
                Question("setup", bytes((ssp.SETUP,)), every=60.0),
                Question("serial", bytes((ssp.SERIAL,)), every=60.0),
                Question("firmware", bytes((ssp.FIRMWARE,)), every=60.0),
            ),
            options.address,
            options.floor,
        )
        self._deframer = Deframer(ssp.measure, ssp.LIMIT, BYTE_GAP)
        self._bad_frames = BadFrames()
        self._picture = ssp.Picture()
        self._overhearing = Overhearing(options.quiet)
        self._request: tuple[bool, bytes] | None = None
        self._exchange: tuple[bool, bytes, bytes] | None = None
        self._encrypted = self._let_in = False
        self._outgoing = b""

    def receive(self, data: bytes, now: float) -> list[Reading | Outcome]:
        """Readings of whole replies; see the contract."""
        return self._frames(self._deframer.feed(data, now), now) + self._session.outcomes()

    def tick(self, now: float) -> list[Reading | Outcome]:
        """Ask what is due, say again what was not answered, and judge silence."""
        out = self._frames(self._deframer.expire(now), now)
        out += self._judge(now) if self._listening else self._ask(now)
        out += self._bad_frames.report(self._deframer.bad, now)
        return out + self._session.outcomes()

    def outgoing(self) -> bytes:
        """Bytes to send since the last call; always none with access "listen"."""
        data, self._outgoing = self._outgoing, b""
        return data

    def perform(self, operation: Operation, now: float) -> None:
        """Begin one of `operations`; none takes arguments."""
        why = refusal(operation, VERBS)
        if self._listening:
            why = "the agent only listens on this line; it may not write"
        # A reset is not said twice: a unit that restarts has forgotten the flag, and would restart again.
        mute = operation.verb == "reset"
        data = INHIBITS if operation.verb == "enable" else bytes((VERBS.get(operation.verb, 0),))
        self._session.undertake(Question(operation.verb, data, mute=mute, operation=operation.id), why, now)

    def _frames(self, frames: Sequence[bytes], now: float) -> list[Reading | Outcome]:
        understand = self._overheard if self._listening else self._told
        out: list[Reading | Outcome] = []
        for frame in frames:
            address, flag, data = ssp.unseal(frame)
            if address == self._address:
                out += understand(frame, flag, data, now)
        return out

    # as master

    def _ask(self, now: float) -> list[Reading]:
        taking, refusing = {"inhibits", "enable"}, {"disable"}
        wanted, other = (taking, refusing) if self._accept else (refusing, taking)
        settled = self._picture.enabled == ("yes" if self._accept else "no")
        settled = settled and (self._let_in or not self._accept)
        self._session.held = other | wanted if settled else other
        if self._accept:
            self._session.held |= {"reject"} if self._let_in else {"reject", "enable"}
        if frame := self._session.next(now):
            self._outgoing += frame
            self.transcript.sent(ssp.meaning(self._session.command), frame)
        if self._session.lapsed is not None:
            self._begin_anew()
        if (lapsed := self._session.lapsed) is not None and lapsed.mute:
            self._session.pause(RESET_TIME, now)  # the reply to a reset: the restart will tell whether it was heard
            return []
        return self._session.link_state(now, self._deframer.skipped) if self._session.missed else []

    def _told(self, frame: bytes, flag: bool, reply: bytes, now: float) -> list[Reading]:
        if reply[0] < ssp.OK:
            return []  # the echo of our own command, or something encrypted that nobody has asked for
        question = self._session.reply_to(flag)
        self.transcript.heard(
            ssp.meaning(question.data, reply) if question else "a reply that came too late", frame
        )
        out = self._session.link_state(now, self._deframer.skipped)
        if question is None:
            return out
        out += self._picture.reply(question.data, reply, now)
        if question.data[0] == ssp.INHIBITS:
            self._let_in = reply[0] == ssp.OK
        if question.data[0] == ssp.VERSION and reply[0] != ssp.OK:
            self._session.agree_on_less()
        if question.data[0] == ssp.POLL and reply[0] == ssp.OK:
            self._react(now)
        if question.operation:
            self._conclude(question, reply[0], now)
        return out

    def _react(self, now: float) -> None:
        """What the events of a poll make us ask next."""
        if ssp.REJECTED in self._picture.codes:
            self._session.hurry("last reject")
        if ssp.INHIBITED in self._picture.codes:
            self._let_in = False
        if ssp.F1 in self._picture.codes:
            self._begin_anew()
            self._session.open(sync=False)
            for name in ("setup", "serial", "firmware", "inhibits", "enable"):
                self._session.hurry(name)
            for question in self._session.proven():
                self._session.end(question.operation, "done", "the acceptor has restarted", now, "F1")

    def _conclude(self, question: Question, status: int, now: float) -> None:
        raw = f"{status:02X}"
        if status != ssp.OK:
            detail = f"the acceptor answers: {ssp.STATUS.get(status, f'status {raw}')}"
            self._session.end(question.operation, "failed", detail, now, raw)
            return
        if question.data[0] == ssp.INHIBITS:
            enable = bytes((ssp.ENABLE,))
            self._session.go_on(Question("enable", enable, operation=question.operation))
            return
        detail = "the acceptor restarts" if question.name == "reset" else "the acceptor accepted it"
        self._session.end(question.operation, "done", detail, now, raw)
        if question.name == "reset":
            self._begin_anew()
            self._session.open()
            self._session.pause(RESET_TIME, now)
        else:
            self._accept = question.name == "enable"

    def _begin_anew(self) -> None:
        """What the unit was told may be forgotten, and a note may wait in it that a poll would accept."""
        self._let_in = False
        self._session.hurry("reject")

    # from a tap

    def _judge(self, now: float) -> list[Reading]:
        out = self._overhearing.judge(now, self._deframer.skipped)
        if out and self._encrypted:
            out, self._encrypted = [replace(out[0], value="rubbish", raw=UNREADABLE)], False
        return out

    def _overheard(self, frame: bytes, flag: bool, data: bytes, now: float) -> list[Reading]:
        if data[0] == ssp.ENCRYPTED:
            self._encrypted = True
            self.transcript.heard("something encrypted")
            return []
        if data[0] < ssp.OK:
            self._overhearing.asked(now)
            self._request = (flag, data)
            self.transcript.heard(f"host: {ssp.meaning(data)}", frame if data[0] in ssp.COMMANDS else b"")
            return []
        out: list[Reading] = self._overhearing.heard(now, self._deframer.skipped)
        request, self._request = self._request, None
        if request is None or request[0] != flag:
            self.transcript.heard("a reply to what was not heard")
            if self._exchange is not None and self._exchange[0] != flag:
                self._exchange = None  # the flag has gone on: what looks like the last command is a new one
            return out
        command = request[1]
        self.transcript.heard(f"unit: {ssp.meaning(command, data)}", frame if command[0] in ssp.COMMANDS else b"")
        before, self._exchange = self._exchange, (flag, command, data)
        if before == self._exchange:  # the host has asked for it again
            return out + (self._picture.again(now) if command[0] == ssp.POLL else [])
        return out + self._picture.reply(command, data, now)


class _Session(Dialogue):
    """A Dialogue whose commands carry the flag, and are said again with the same one.

    command  the data of what was sent last
    missed   whether the last call of `next` found a reply overdue
    """

    TRIES = 21

    def __init__(self, questions: Sequence[Question], address: int, floor: int) -> None:
        super().__init__(questions)
        self._address, self._floor = address, floor
        self._opening: deque[Question] = deque()
        self._flag, self._tries, self._frame = False, 0, b""
        self.command = b""
        self.missed = False
        self.open()

    def open(self, sync: bool = True) -> None:
        """Begin anew, before all else: SYNC, and the version of the protocol."""
        self._version = GREATEST_VERSION
        self._opening = deque([Question("sync", bytes((ssp.SYNC,)))] if sync else ())
        self._opening.append(self._propose())

    def agree_on_less(self) -> None:
        """The unit does not know the version: propose the one below, or at the floor go on without."""
        if self._version > self._floor:
            self._version -= 1
            self._opening.append(self._propose())

    def go_on(self, question: Question) -> None:
        """Ask the second half of an operation, before all others that wait."""
        self._wanted.appendleft(question)

    def reply_to(self, flag: bool) -> Question | None:
        """The question that a reply with this flag answers, or None where it is a repeated one that came late."""
        if self.pending is not None and flag == self._flag:
            return self.answered()
        self.heard()
        return None

    def next(self, now: float) -> bytes:
        """The frame to send now, if any."""
        self.missed = self.pending is not None and now >= self._deadline
        if self.missed and self.pending is not None and not self.pending.mute and self._tries < self.TRIES:
            self._tries += 1
            self._misses += 1
            self.wait(self.pending.timeout, now)
            return self._frame
        command = super().next(now)
        if self.lapsed is not None:
            self.open()
        if not command:
            return b""
        self.command, self._tries = command, 1
        self._flag = command[0] == ssp.SYNC or not self._flag
        self._frame = ssp.seal(self._address, self._flag, command)
        return self._frame

    def _propose(self) -> Question:
        return Question("version", bytes((ssp.VERSION, self._version)))

    def _choose(self, now: float) -> Question | None:
        return self._opening.popleft() if self._opening else super()._choose(now)
