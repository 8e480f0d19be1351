"""This file knows how to carry bytes badly: bytewise, merged, lossy, doubled, noisy, late, cut.

A wire is one direction of one line. It does no I/O and takes time as a parameter, so that the same wire serves
a test in virtual time and the server on a real pty. All its luck comes from the `random.Random` it is given.
"""

from dataclasses import dataclass
from random import Random

SHAPES = ("flip", "drop", "double", "insert")


@dataclass
class Faults:
    """What is wrong with a wire; all zero is a good one. May be changed while bytes travel.

    chunk    bytes per delivery; 0 delivers each write whole, 1 is bytewise
    gap      seconds between the deliveries that one write was cut into
    merge    seconds that bytes are held back, so that separate writes arrive as one
    damage   chance that a write has exactly one byte flipped, dropped, doubled or inserted
    half     chance that only the first half of a write arrives
    noise    random bytes put before each write, at the most
    delay    seconds that everything is late
    cut      nothing arrives, and what was under way is lost
    """

    chunk: int = 0
    gap: float = 0.0
    merge: float = 0.0
    damage: float = 0.0
    half: float = 0.0
    noise: int = 0
    delay: float = 0.0
    cut: bool = False


class Wire:
    """Carries bytes in order from `send` to `arrive`, with the given faults. `damaged` counts hurt writes."""

    def __init__(self, rng: Random, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self.damaged = 0
        self._rng = rng
        self._flying: list[tuple[float, bytes]] = []

    @property
    def next_due(self) -> float | None:
        """When the next piece arrives, or None when nothing is under way."""
        return self._flying[0][0] if self._flying else None

    def send(self, data: bytes, now: float) -> None:
        """Put bytes on the wire."""
        faults = self.faults
        if not data or faults.cut:
            return
        if self._rng.random() < faults.damage:
            data = hurt(data, self._rng)
            self.damaged += 1
        if self._rng.random() < faults.half:
            data = data[: len(data) // 2]
            self.damaged += 1
        if faults.noise:
            data = self._rng.randbytes(self._rng.randint(0, faults.noise)) + data
        due = now + faults.delay
        if self._flying and due <= self._flying[-1][0]:
            due = self._flying[-1][0] + faults.gap
        else:
            due += faults.merge
        step = faults.chunk or len(data) or 1
        self._flying += [(due + i // step * faults.gap, data[i : i + step]) for i in range(0, len(data), step)]

    def arrive(self, now: float) -> list[bytes]:
        """The pieces that have reached the other end by `now`, in order."""
        if self.faults.cut:
            self.clear()
        here = [piece for due, piece in self._flying if due <= now]
        self._flying = self._flying[len(here) :]
        return [b"".join(here)] if here and self.faults.merge else here

    def clear(self) -> None:
        """Lose what is under way."""
        self._flying = []


def hurt(data: bytes, rng: Random, shape: str = "") -> bytes:
    """The same bytes with one of them flipped, dropped, doubled, or with one inserted: shaped damage."""
    at = rng.randrange(len(data))
    match shape or rng.choice(SHAPES):
        case "flip":
            return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
        case "drop":
            return data[:at] + data[at + 1 :]
        case "double":
            return data[: at + 1] + data[at:]
        case _:
            return data[:at] + rng.randbytes(1) + data[at:]
