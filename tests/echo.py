"""Tiny kinds of devices for tests of the simulator itself, a master, and `hwsim` with nothing but these kinds.

An echo answers each line `X\\n` with `<colour>:X\\n`, and pushes `now <colour>\\n` when its colour has changed. A
named one, on a bus, answers only `<name> X\\n`. A server answers each client alone.
"""

from collections.abc import Mapping
from typing import ClassVar

from agent.drivers.framing import Records, record
from hwsim import Allowed, SimulatedDevice
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


class Named(Echo):
    """One of several on a bus."""

    MEDIUM = "bus"
    SETTINGS: ClassVar[Mapping[str, Allowed]] = {**Echo.SETTINGS, "name": str}

    def __init__(self) -> None:
        super().__init__()
        self.name = "n"

    def receive(self, data: bytes) -> bytes:
        *lines, self._heard = (self._heard + data).split(b"\n")
        mine = [line for line in lines if line.startswith(self.name.encode() + b" ")]
        return b"".join(self.colour.encode() + b":" + line + b"\n" for line in mine)


class Desk:
    """A server: answers `X` with `<colour>:X` to the client that said it, and hangs up after `bye`."""

    BAUD: ClassVar[int] = 0
    MEDIUM = "server"
    SETTINGS: ClassVar[Mapping[str, Allowed]] = {"colour": ("red", "green")}

    def __init__(self) -> None:
        self.colour = "red"
        self._heard = Records(4096)

    def receive(self, data: bytes) -> bytes:
        said = b""
        for act, channel, text in self._heard.feed(data):
            if act == "t":
                said += record("t", channel, self.colour.encode() + b":" + text)
            if text.startswith(b"bye"):
                said += record("c", channel)
        return said

    def tick(self, now: float) -> bytes:
        return b""


class WebDesk(Desk):
    """The same on websockets; it also answers with the path that was asked for."""

    MEDIUM = "websocket"

    def __init__(self) -> None:
        super().__init__()
        self.authority = ""

    def receive(self, data: bytes) -> bytes:
        paths = b"".join(
            record("t", channel, f"{self.authority} {channel.partition(' ')[2]}".encode())
            for act, channel, _ in Records(4096).feed(data)
            if act == "o"
        )
        return paths + super().receive(data)


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


KINDS: dict[str, type[SimulatedDevice]] = {
    "echo": Echo,
    "shout": Shout,
    "named": Named,
    "desk": Desk,
    "web": WebDesk,
}
MASTERS = {"echo": Payer}

if __name__ == "__main__":
    main(KINDS, MASTERS)
