"""This file knows one simulated device on its line: the two wires, their faults, and the master if it is tapped.

It does no I/O and takes time as a parameter: the server carries its bytes to a pty or a socket, a test plays
it in virtual time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Protocol

from hwsim.contract import SimulatedDevice
from hwsim.wires import Faults, Wire

MOST_ROUNDS = 64
WHOLE = ("good", "silent", "delay", "cut", "merge")
"""Line faults that leave messages whole: those that a server's connection can have."""


class Speaker(Protocol):
    """What is at the far end of a line: a device, or several on one bus."""

    def receive(self, data: bytes) -> bytes: ...

    def tick(self, now: float) -> bytes: ...


class Bus:
    """Devices on one line: each hears everything, also what the others say is not theirs to answer."""

    def __init__(self, members: Sequence[SimulatedDevice]) -> None:
        self.members = tuple(members)

    def receive(self, data: bytes) -> bytes:
        return b"".join([member.receive(data) for member in self.members])

    def tick(self, now: float) -> bytes:
        return b"".join([member.tick(now) for member in self.members])


class Master(Protocol):
    """A program that owns a tapped device, as the payment application of an ATM owns the dispenser.

    `busy` says that a withdrawal is going on. `withdraw` raises ValueError for what no device could do.
    """

    @property
    def busy(self) -> bool:
        """Whether the last withdrawal has not ended yet."""

    def receive(self, data: bytes) -> bytes:
        """What the master answers at once to these bytes of the device."""

    def tick(self, now: float) -> bytes:
        """What the master sends by itself by `now`."""

    def withdraw(self, position: int, count: int) -> None:
        """Begin to pay out `count` notes from the cassette at `position`."""


@dataclass(frozen=True, slots=True)
class LineFault:
    """A word for `hwsim line`. `field` is the one of wires.Faults that it sets, `usual` the value if none is
    given (None: it must be given), `most` the largest value (0: it takes none)."""

    text: str
    field: str = ""
    usual: float | None = 0.0
    most: float = 0.0


LINE_FAULTS = {
    "unplug": LineFault("pull the cable: the port vanishes"),
    "replug": LineFault("put the cable back: a new port under the same name, also with another kind of device"),
    "good": LineFault("end every fault below"),
    "silent": LineFault("the device hears and says nothing"),
    "half": LineFault("only the first half of a message arrives; value: chance, 0 to 1", "half", 1.0, 1.0),
    "noise": LineFault("random bytes before each message; value: at most so many", "noise", 8, 255),
    "damage": LineFault("one byte of a message is wrong; value: chance, 0 to 1", "damage", 1.0, 1.0),
    "bytewise": LineFault("every byte arrives by itself", "chunk", 1),
    "merge": LineFault("messages arrive together; value: seconds they are held back", "merge", 0.05, 60.0),
    "delay": LineFault("everything is late; value: seconds", "delay", None, 3600.0),
    "cut": LineFault("nothing arrives, though the port is there", "cut", 1),
}


def fault_value(word: str, value: float | None) -> float:
    """The value of a line fault, its usual one if None. Raises ValueError with a sentence."""
    fault = LINE_FAULTS.get(word)
    if fault is None:
        raise ValueError(f"there is no line fault {word!r}; there are: {', '.join(LINE_FAULTS)}")
    if value is None:
        if fault.usual is None:
            raise ValueError(f"{word} wants a value in {fault.text.partition('value: ')[2]}")
        return fault.usual
    if not fault.most:
        raise ValueError(f"{word} takes no value")
    if not 0 <= value <= fault.most:
        raise ValueError(f"{word} cannot be {value:g}; it can be 0 to {fault.most:g}")
    return value


class Line:
    """A device and what lies between it and its host. `violations` counts writes into a tap.

    On a tapped line the master and the device always understand each other; the faults are those of the tap.
    `baud` is the device's speed; `whole`: it carries messages, which no fault tears.
    """

    def __init__(
        self, device: Speaker, rng: Random, master: Master | None = None, baud: int = 9600, whole: bool = False
    ) -> None:
        self.device = device
        self.baud = baud
        self._whole = whole
        self.master = master
        self.silent = False
        self.violations = 0
        self._rng = rng
        self._to_device, self._to_host = Wire(rng), Wire(rng)

    @property
    def faults(self) -> list[str]:
        """The words, and values if any, of what is wrong with this line now."""
        have = self._to_host.faults
        words = ["silent"] if self.silent else []
        for word, fault in LINE_FAULTS.items():
            if fault.field and (value := getattr(have, fault.field)):
                words.append(f"{word} {value:g}" if fault.most else word)
        return words

    @property
    def next_due(self) -> float | None:
        """When the next byte reaches either end, or None when none is under way."""
        return min(
            (due for due in (self._to_device.next_due, self._to_host.next_due) if due is not None), default=None
        )

    def set_fault(self, word: str, value: float | None = None) -> None:
        """Make the line bad in one more way, or `good`. Raises ValueError as `fault_value` does."""
        field, number = LINE_FAULTS[word].field if word in LINE_FAULTS else "", fault_value(word, value)
        if self._whole and word not in WHOLE:
            raise ValueError(f"{word} is for serial lines; a server's connections can be {', '.join(WHOLE)}")
        if word == "good":
            self.silent = False
            faults = Faults()
        elif word == "silent":
            self.silent = True
            return
        else:
            kind = type(getattr(Faults(), field))
            faults = replace(self._to_host.faults, **{field: kind(number)})
            if field == "chunk":
                # Pieces written together would be read together: a byte time at 9600 baud parts them.
                faults.gap = 0.001
        self._to_device.faults = self._to_host.faults = faults

    def disconnect(self) -> None:
        """The cable is out: what was under way is lost."""
        self._to_device.clear()
        self._to_host.clear()

    def at_speed(self, data: bytes, speed: int | None) -> bytes:
        """The same bytes if the host's port runs at the device's speed (None: it has no speed), else rubbish."""
        return data if speed in (None, self.baud) else self._rng.randbytes(len(data))

    def hear(self, data: bytes, now: float) -> None:
        """The host writes. On a tapped line that is a violation and reaches nobody."""
        if self.master is None:
            self._to_device.send(data, now)
        else:
            self.violations += 1

    def step(self, now: float) -> list[bytes]:
        """Let time pass until `now`; returns the pieces that reach the host."""
        if self.master is None:
            for piece in self._to_device.arrive(now):
                self._tell(self.device.tick(now), now)
                self._tell(self.device.receive(piece), now)
            self._tell(self.device.tick(now), now)
        else:
            self._converse(self.master, now)
        return self._to_host.arrive(now)

    def _tell(self, said: bytes, now: float) -> bytes:
        said = b"" if self.silent else said
        self._to_host.send(said, now)
        return said

    def _converse(self, master: Master, now: float) -> None:
        answer, order = self._tell(self.device.tick(now), now), master.tick(now)
        # Bounded, so that two ends that refuse each other for ever cannot stop every other device.
        for _ in range(MOST_ROUNDS):
            if not answer and not order:
                break
            self._to_host.send(order, now)
            reply = self.device.receive(order) if order else b""
            order = master.receive(answer) if answer else b""
            answer = self._tell(reply, now)
