"""A tiny kind of device for tests of the simulator itself, its master, and `hwsim` with nothing but this kind.

It answers each line `X\\n` with `<colour>:X\\n`, and pushes `now <colour>\\n` when its colour has changed.
"""

from collections.abc import Mapping
from typing import ClassVar

from hwsim import Allowed
from hwsim.cli import main


class Echo:
    BAUD: ClassVar[int] = 9600
    SETTINGS: ClassVar[Mapping[str, Allowed]] = {"colour": ("red", "green"), "level": int}

    def __init__(self) -> None:
        self.colour = self._told = "red"
        self.level = 0
        self._heard = b""

    def receive(self, data: bytes) -> bytes:
        *lines, self._heard = (self._heard + data).split(b"\n")
        return b"".join(self.colour.encode() + b":" + line + b"\n" for line in lines)

    def tick(self, now: float) -> bytes:
        if self.colour == self._told:
            return b""
        self._told = self.colour
        return b"now " + self.colour.encode() + b"\n"


class Shout(Echo):
    """Another kind, at another speed: it shouts."""

    BAUD: ClassVar[int] = 2400

    def receive(self, data: bytes) -> bytes:
        return super().receive(data).upper()


class Payer:
    """A master that asks `pay <position> <count>` and is done at the answer."""

    def __init__(self) -> None:
        self.busy = False
        self._order = b""

    def withdraw(self, position: int, count: int) -> None:
        if position > 4:
            raise ValueError(f"there is no position {position}; there are 1 to 4")
        self.busy, self._order = True, b"pay %d %d\n" % (position, count)

    def tick(self, now: float) -> bytes:
        order, self._order = self._order, b""
        return order

    def receive(self, data: bytes) -> bytes:
        if b"pay" not in data:
            return b""
        self.busy = False
        return b"thanks\n"


KINDS = {"echo": Echo, "shout": Shout}
MASTERS = {"echo": Payer}

if __name__ == "__main__":
    main(KINDS, MASTERS)
