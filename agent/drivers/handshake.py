"""This file knows how to ask a device that acknowledges: command, ACK or NAK, reply, our ACK or NAK, EOT."""

from collections.abc import Sequence

from agent.drivers.dialogue import Dialogue, Question

ACK, NAK, EOT = b"\x06", b"\x15", b"\x04"


class Handshake(Dialogue):
    """A Dialogue with a device that acknowledges: question, ACK or NAK, reply, our ACK or NAK, perhaps an EOT.

    gap   seconds without a byte after which a damaged reply is over, and is asked for again with NAK
    rest  seconds after our ACK that are left to the device's EOT
    least bytes that make a damaged reply; fewer are noise, and a NAK while the device moves may confuse it
    A refused question (NAK) is said again, a bad reply asked for again, TRIES times each. `outgoing` collects
    what is to be sent; its owner empties it.
    """

    TRIES = 3

    def __init__(self, questions: Sequence[Question], gap: float, rest: float, least: int) -> None:
        super().__init__(questions)
        self._gap = gap
        self._rest = rest
        self._least = least
        self._taken = False
        self._naks = 0
        self._unreadable = self._unreadable_before = 0
        self._byte_at = 0.0
        self.outgoing = b""

    def advance(self, unreadable: int, now: float) -> None:
        """Ask what is due, or for a bad reply again; `unreadable` bytes there were so far."""
        self._unreadable = unreadable
        damaged = unreadable - self._unreadable_before >= self._least and now - self._byte_at > self._gap
        if self.pending is not None and self._taken and damaged and self._naks < self.TRIES:
            self._naks += 1
            self._unreadable_before = self._unreadable
            self.outgoing += NAK
            self.wait(self.pending.reply, now)
        if question := self.next(now):
            self.outgoing += question
            self._taken, self._naks, self._unreadable_before = False, 0, self._unreadable

    def came(self, unreadable: int, now: float) -> None:
        """Bytes came, and are now to be told frame by frame. Unreadable ones where the ACK of an operation belongs
        are taken for a damaged ACK: it may well run, and only waiting tells."""
        self._byte_at, self._unreadable = now, unreadable
        operation = self.pending is not None and self.pending.operation
        if operation and not self._taken and unreadable > self._unreadable_before:
            self._acknowledged(now)

    def control(self, byte: bytes, now: float) -> None:
        """The device said ACK, NAK or EOT."""
        if byte == ACK:
            self._acknowledged(now)
        elif byte == NAK:
            self._refused(now)
        elif byte == EOT:
            self.pause(0.0, now)

    def good(self, now: float) -> None:
        """A good reply came: acknowledge it and leave the line to the device's EOT."""
        self.outgoing += ACK
        self.pause(self._rest, now)

    def _acknowledged(self, now: float) -> None:
        if self.pending is not None and self.pending.reply and not self._taken:
            self._taken, self._naks, self._unreadable_before = True, 0, self._unreadable
            self.wait(self.pending.reply, now)

    def _refused(self, now: float) -> None:
        question = self.pending
        if question is None or self._taken:
            return  # what it has taken, it cannot refuse
        self._naks += 1
        if self._naks <= self.TRIES:
            self.outgoing += question.data
            self.wait(question.timeout, now)
            return
        self.doubted()
        if question.operation:
            self.end(question.operation, "failed", "the device does not take the command", now, "NAK")
