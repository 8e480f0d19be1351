"""This file knows the payment application that owns a dispenser's line: the host side of Puloon LCDM-4000.

It stands in for the customer's side of the terminal, so that an agent can listen on a tap. Written from the same
document as the simulated dispenser. Between withdrawals it asks for the status once a second. A status without
an ACK is asked for again; a dispense is not, because the notes may be on their way and a second command would
pay twice.
"""

from collections import deque

from agent.drivers.framing import BAD, MORE, Deframer, xor_of

ACK, NAK, EOT = b"\x06", b"\x15", b"\x04"
STATUS, DISPENSE = 0x50, 0x52
RESPONSE_SIZE = {STATUS: 24, DISPENSE: 29}
POLL = 1.0
ACK_PATIENCE = 0.55
RESPONSE_PATIENCE = 60.0
TRIES = 3
MOST = 40
NO_ANSWER = -1


def _measure(buffer: bytes) -> int:
    """A single ACK, NAK or EOT, or a whole response."""
    if not buffer:
        return MORE
    if buffer[:1] in (ACK, NAK, EOT):
        return 1
    if buffer[:3] != b"\x01\x30\x02"[: len(buffer)]:
        return BAD
    if len(buffer) < 4:
        return MORE
    size = RESPONSE_SIZE.get(buffer[3])
    if size is None:
        return BAD
    return size if len(buffer) >= size else MORE


class Teller:
    """The master of a tapped line. `dispensed` is what it was told was paid, by position.

    `last_error` is how the last withdrawal ended: 0 good, else the raw code, or NO_ANSWER.
    """

    def __init__(self) -> None:
        self.dispensed = dict.fromkeys(range(1, 5), 0)
        self.last_error = 0
        self._wanted: deque[bytes] = deque()
        self._sent = b""
        self._tries = 0
        self._acknowledged = self._refused = False
        self._deadline = 0.0
        self._next_poll = 0.0
        self._now = 0.0
        self._deframer = Deframer(_measure, 64, gap=0.2)

    @property
    def busy(self) -> bool:
        """Whether a withdrawal waits or runs."""
        return bool(self._wanted) or self._sent[3:4] == bytes((DISPENSE,))

    def withdraw(self, position: int, count: int) -> None:
        """A customer wants `count` notes from the cassette at `position`. Raises ValueError with a sentence."""
        if position not in self.dispensed:
            raise ValueError(f"there is no cassette {position}: there are 1 to 4")
        if not 1 <= count <= MOST:
            raise ValueError(f"one withdrawal is 1 to {MOST} notes, not {count}")
        quantities = bytes(0x20 + (count if n == position else 0) for n in self.dispensed)
        self._wanted.append(_frame(DISPENSE, quantities + b" " * 11))

    def receive(self, data: bytes) -> bytes:
        """What the application answers at once to the dispenser."""
        return b"".join(self._take(frame) for frame in self._deframer.feed(data, self._now))

    def tick(self, now: float) -> bytes:
        """The next command, or the same again when it was not acknowledged."""
        self._now = now
        if self._sent:
            if now < self._deadline:
                return b""
            if (self._refused or self._sent[3] == STATUS) and not self._acknowledged and self._tries < TRIES:
                return self._send(self._sent)
            if self._sent[3] == DISPENSE:
                self.last_error = NO_ANSWER
            self._sent = b""
        if self._wanted:
            self._tries = 0
            return self._send(self._wanted.popleft())
        if now >= self._next_poll:
            self._next_poll = now + POLL
            self._tries = 0
            return self._send(_frame(STATUS, b""))
        return b""

    def _send(self, frame: bytes) -> bytes:
        self._sent, self._acknowledged, self._refused = frame, False, False
        self._tries += 1
        self._deadline = self._now + ACK_PATIENCE
        return frame

    def _take(self, frame: bytes) -> bytes:
        if frame == ACK:
            self._acknowledged = True
            self._deadline = self._now + RESPONSE_PATIENCE
            return b""
        if frame == NAK and not self._acknowledged:
            self._refused, self._deadline = True, self._now
            return b""
        if frame == EOT or not self._sent:
            return b""
        if xor_of(frame):
            return NAK
        if frame[3] != self._sent[3]:
            return b""
        if frame[3] == DISPENSE:
            self.last_error = frame[4] - 0x20
            for position in self.dispensed:
                self.dispensed[position] += frame[3 + 3 * position] - 0x20
        self._sent = b""
        self._next_poll = min(self._next_poll, self._now + POLL)
        return ACK


def _frame(command: int, data: bytes) -> bytes:
    head = bytes((0x04, 0x30, 0x02, command)) + data + b"\x03"
    return head + bytes((xor_of(head),))
