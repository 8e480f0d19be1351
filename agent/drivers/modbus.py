"""This file knows how to be the master of a Modbus RTU line: alarm panels and input modules on an RS-485 bus.

One question at a time, and `pause` before the next. A reply carries no number of its question: it is known by its
slave and function alone. So a slave that let its time pass is left alone for a while, and then asked for the same
block again before any other of that function, and replies that may still be under way are waited for: see
dialogue.Alike. A slave that does not answer is silent alone, and is asked less often, so that it costs the others
little. What the frames say stands in rtu.py, what the places mean in panel.py.

The reply to a switching is the very frame that was sent, and many RS-485 adapters say again what they send. So it
proves nothing, not even that the slave lives: the coil is read back, and that counts.

    [lines.rs485]
    kind = "modbus"
    port = "/dev/ttyS4"

Source: "MODBUS over Serial Line Specification and Implementation Guide V1.02", sections 2.1, 2.4.1 (one master,
response timeout) and 2.5.1 (3.5 characters of silence between frames).
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from agent.drivers.contract import Access, Line, refusal
from agent.drivers.dialogue import Alike, Dialogue, Question
from agent.drivers.framing import Deframer
from agent.drivers.hearing import BadFrames
from agent.drivers.panel import PanelOptions
from agent.drivers.rtu import (
    BUSY,
    CODES,
    COILS,
    LIMIT,
    NOBODY,
    REFUSED,
    SWITCH,
    Block,
    measure_for,
    plan,
    switch,
)
from agent.drivers.transcript import Transcript
from agent.model import Heard, Operation, Outcome, Reading

BYTE_GAP = 0.2  # adapters and gateways hold bytes back for far longer than the 3.5 characters of the document
SETTLE, REST = 0.5, 4.0
"""Seconds for which a slave is asked nothing after a question without a reply; and when it is silent."""
PATIENCE = 12.0
VERBS = {"switch_on": True, "switch_off": False}


@dataclass(frozen=True, slots=True)
class ModbusLineOptions:
    """timeout: seconds in which a slave must answer, 0.05 to 2. pause: seconds of silence before the next question,
    0.004 to 1; the protocol wants 3.5 characters, which are 4 ms at 9600 baud."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    timeout: float = 0.5
    pause: float = 0.01

    def __post_init__(self) -> None:
        if not 0.05 <= self.timeout <= 2:
            raise ValueError("timeout must be 0.05 to 2 seconds")
        if not 0.004 <= self.pause <= 1:
            raise ValueError("pause must be 0.004 to 1 second")


class Slave:
    """One device on the line: its questions, its errors, and whether it is silent. `unreadable` bytes came in its
    turn; `late` says that a good frame of it came when its time had passed; `echoed` that what came may be our own
    frame, so that its reply may be still to come."""

    def __init__(self, name: str, options: PanelOptions, timeout: float) -> None:
        self.name, self.options = name, options
        self.unreadable, self.late, self.echoed = 0, False, False
        self._blocks = {str(block): block for block in plan(options.places, options.bridge)}
        questions = [
            Question(name, block.request(options.address), options.poll, timeout)
            for name, block in self._blocks.items()
        ]
        self.dialogue = Dialogue(questions)
        names: dict[int, set[str]] = {SWITCH: set(), COILS: {f"{coil} now" for coil in _coils(options)}}
        for name, block in self._blocks.items():
            names.setdefault(block.function, set()).add(name)
        self._alike = {function: Alike(alike) for function, alike in names.items()}
        self._timeout = timeout
        self._errors: dict[str, tuple[str, str]] = {}
        self._orders: deque[Question] = deque()
        self._order: Question | None = None
        self._unproven = False

    def undertake(self, operation: Operation, now: float) -> None:
        """Begin to switch an output."""
        output = operation.arguments.get("output")
        why = refusal(operation, VERBS) if operation.verb not in VERBS else ""
        if not why and (len(operation.arguments) != 1 or output not in self.options.outputs):
            why = f"say output=NAME; it can be {', '.join(self.options.outputs) or '(none is configured)'}"
        coil = 0 if why else self.options.outputs[str(output)]
        data = switch(self.options.address, coil, VERBS.get(operation.verb, False))
        question = Question(f"coil {coil}", data, 0.0, self._timeout, operation=operation.id)
        if why:
            self.dialogue.undertake(question, why, now)
        else:
            self._orders.append(question)

    def next(self, now: float) -> bytes:
        """What to send to it now, if anything; to be asked only while it has nothing to answer."""
        self._go_on(now)
        self.dialogue.held = {name for alike in self._alike.values() for name in alike.held(now)}
        data = self.dialogue.next(now)
        if self.dialogue.pending is not None:
            self._alike[data[1]].asked(self.dialogue.pending.name, now)
        return data

    def told(self, frame: bytes, now: float) -> tuple[str, list[Reading]]:
        """What a good frame of this slave means, in words and in readings."""
        pending, function = self.dialogue.pending, frame[1] & ~REFUSED
        again, self.echoed = self.echoed, False
        if function == SWITCH:
            return self._switched(frame, again, now)
        if pending is not None and frame == pending.data:
            return "our own question", []
        if pending is None or function != pending.data[1]:
            if function in self._alike:
                self._alike[function].came(now, answer=False)
            return self._unasked()
        if frame[1] & REFUSED:
            self._alike[function].came(now, answer=True)
            return self._refused(pending, frame[2], now)
        block = _coil(self._order) if self._order and pending.operation else self._blocks[pending.name]
        values = block.values(frame)
        if values is None:
            return self._unasked()
        self._alike[function].came(now, answer=True)
        self.dialogue.answered()
        if self._order and pending.operation:
            return self._proven(self._order, any(values.values()), now), self._state(now)
        self._errors.pop(pending.name, None)
        meaning = f"{pending.name} = {' '.join(map(str, values.values()))}"
        return meaning, [*self._state(now), *self.options.understand(values, now)]

    def lapsed(self, now: float) -> list[Reading]:
        """Its time has passed without a reply."""
        if self.dialogue.lapsed is not None and self.dialogue.lapsed.operation:
            self._order, self._unproven = None, False
        elif self._order and self.dialogue.silent:
            self._end("unanswered", f"the device does not say whether {self._order.name} is switched", now)
        self.dialogue.pause(REST if self.dialogue.silent else SETTLE, now)
        readings = self.dialogue.link_state(now, self.unreadable)
        if self.late and self.dialogue.silent:
            why = f"it answers, but later than {self._timeout:g} s: raise timeout of the line"
            readings = [replace(reading, raw=why) for reading in readings]
        self.late = False
        return readings

    def heard(self, readings: list[Reading]) -> list[Heard]:
        """These readings, and the operations that have ended, if there are any."""
        items: tuple[Reading | Outcome, ...] = (*readings, *self.dialogue.outcomes())
        return [Heard(self.name, items)] if items else []

    def _unasked(self) -> tuple[str, list[Reading]]:
        self.late = True
        return "not what was asked, or too late", []

    def _go_on(self, now: float) -> None:
        """Ask what is next of the switching that runs, or begin the one that waits."""
        if self.dialogue.pending is not None:
            return
        if self._order and self._unproven and self._alike[COILS].idle(now):
            self._unproven = False
            request = _coil(self._order).request(self.options.address)
            name = f"{self._order.name} now"
            self.dialogue.ask(Question(name, request, 0.0, self._timeout, operation=self._order.operation))
        elif self._order is None and self._orders and self._alike[SWITCH].idle(now):
            order = self._orders.popleft()
            self._order = None if self.dialogue.silent else order
            self.dialogue.undertake(order, "", now)

    def _switched(self, frame: bytes, again: bool, now: float) -> tuple[str, list[Reading]]:
        """What looks like the reply to a switching."""
        pending = self.dialogue.pending
        asked = pending if pending is not None and pending.data[1] == SWITCH else None
        self._alike[SWITCH].came(now, answer=asked is not None)
        if frame[1] & REFUSED and self._order and (asked or self._unproven):
            return self._refused(self._order, frame[2], now)
        if asked is not None and frame == asked.data:
            self.dialogue.pending = None
            self._unproven = self.echoed = True
            return f"{asked.name} is switched, or the adapter says our words again", []
        return ("switched", []) if again else self._unasked()

    def _proven(self, order: Question, on: bool, now: float) -> str:
        """The coil was read back."""
        said = f"the device says that {order.name} is {'on' if on else 'off'}"
        done = on == bool(order.data[4])
        self._end("done" if done else "failed", said if done else f"{said}: it did not switch", now)
        return f"{order.name} is {'on' if on else 'off'}"

    def _end(self, result: str, detail: str, now: float, raw: str = "") -> None:
        if self._order is not None:
            self.dialogue.end(self._order.operation, result, detail, now, raw)
        self._order, self._unproven = None, False

    def _refused(self, pending: Question, code: int, now: float) -> tuple[str, list[Reading]]:
        word, advice = CODES.get(code, (f"vendor.{code:02X}", "see its manual"))
        raw = f"exception {code:02X} to {pending.name}: {advice}"
        if pending.operation and pending.data[1] == SWITCH:
            self._end("failed", "the device refuses it", now, raw)
        elif pending.operation:
            self._end(
                "unanswered", "the device does not tell what it has switched; look before trying again", now, raw
            )
        if code in NOBODY:
            self.dialogue.doubted()
            return raw, [replace(state, raw=raw) for state in self.dialogue.link_state(now, self.unreadable)]
        self.dialogue.answered()
        if not pending.operation and code not in BUSY:
            self._errors[pending.name] = (word, raw)
        return raw, self._state(now)

    def _state(self, now: float) -> list[Reading]:
        states = self.dialogue.link_state(now, self.unreadable)
        word, raw = next(iter(self._errors.values()), ("none", ""))
        return [*states, Reading("device.error", word, now, raw)] if states else []


def _coils(options: PanelOptions) -> list[str]:
    return [f"coil {coil}" for coil in options.outputs.values()]


def _coil(order: Question) -> Block:
    """The coil that an order switches."""
    return Block(COILS, int.from_bytes(order.data[2:4], "big"), 1)


class Modbus:
    """The slaves of one line. At most 256 bytes are buffered."""

    line: ClassVar[Line] = Line(baud=9600)
    access: ClassVar[frozenset[Access]] = frozenset({"own"})
    why_not: ClassVar[Mapping[Access, str]] = {
        "listen": "a Modbus line has one master, and replies do not tell what was asked; give it to the agent"
    }
    operations: ClassVar[Mapping[str, str]] = {
        "switch_on": "switch an output on; output=NAME, of those in the configuration",
        "switch_off": "switch an output off; output=NAME, of those in the configuration",
    }
    LineOptions: ClassVar[type[ModbusLineOptions]] = ModbusLineOptions
    moving: ClassVar[frozenset[str]] = frozenset()
    Options: ClassVar[type[PanelOptions]] = PanelOptions

    def __init__(self, options: ModbusLineOptions, devices: Mapping[str, PanelOptions]) -> None:
        self._by_address: dict[int, Slave] = {}
        for name, own in devices.items():
            if (other := self._by_address.get(own.address)) is not None:
                raise ValueError(
                    f"{other.name} and {name} both have address {own.address}; every slave needs its own"
                )
            self._by_address[own.address] = Slave(name, own, options.timeout)
        # Each of them must be known to be silent before its values are stale.
        if (most := int(PATIENCE / 3 / options.timeout)) < len(devices):
            raise ValueError(f"at most {most} slaves can share a line with timeout = {options.timeout:g}; lower it")
        self.transcript = Transcript()
        self._slaves = deque(self._by_address.values())
        self._deframer = Deframer(measure_for(self._by_address), LIMIT, BYTE_GAP)
        self._bad_frames = BadFrames()
        self._pause, self._timeout = options.pause, options.timeout
        self._asked: Slave | None = None
        self._free_at = float("-inf")
        self._skipped = 0
        self._outgoing = b""

    def receive(self, data: bytes, now: float) -> list[Heard]:
        """Readings of whole frames; see the contract."""
        return self._told(self._deframer.feed(data, now), now)

    def tick(self, now: float) -> list[Heard]:
        """Judge silence, and ask what is due when nobody is to answer."""
        out = self._told(self._deframer.expire(now), now)
        if self._asked is None or self._asked.dialogue.pending is None:
            if now >= self._free_at:
                self._ask(now)
        else:
            self._asked.dialogue.next(now)
            if self._asked.dialogue.lapsed is not None:
                out += self._asked.heard(self._asked.lapsed(now))
                self._free_at = now + self._pause
        bad = self._bad_frames.report(self._deframer.bad, now)
        return out + [heard for slave in self._by_address.values() for heard in slave.heard(bad)]

    def outgoing(self) -> bytes:
        """Bytes to send since the last call."""
        data, self._outgoing = self._outgoing, b""
        return data

    def perform(self, operation: Operation, now: float) -> None:
        """Begin one of `operations` on one slave."""
        next(s for s in self._slaves if s.name == operation.device).undertake(operation, now)

    def _ask(self, now: float) -> None:
        """The next question of the next slave that has one."""
        for _ in range(len(self._slaves)):
            slave = self._slaves[0]
            self._slaves.rotate(-1)
            if data := slave.next(now):
                self._asked, self._outgoing = slave, self._outgoing + data
                if (question := slave.dialogue.pending) is not None:
                    self.transcript.sent(f"{slave.name}: {question.name}?", data)
                return

    def _told(self, frames: list[bytes], now: float) -> list[Heard]:
        if self._asked is not None:
            self._asked.unreadable += self._deframer.skipped - self._skipped
        self._skipped = self._deframer.skipped
        out: list[Heard] = []
        for frame in frames:
            slave = self._by_address[frame[0]]
            meaning, readings = slave.told(frame, now)
            self.transcript.heard(f"{slave.name}: {meaning}", frame)
            out += slave.heard(readings)
            self._free_at = now + (self._timeout if slave.echoed else self._pause)
        return out
