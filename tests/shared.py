"""A Shared driver where tests want a Driver, or on a real line; a simulated server where they want a device."""

import os
import select
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from agent.drivers import Shared
from agent.drivers.framing import Records, record
from agent.model import Heard, Operation, Outcome, Reading
from hwsim import Allowed, SimulatedDevice
from tests.virtual import Bench


class Alone:
    """The only device of a Shared driver, as a Driver: for golden.check_driver."""

    def __init__(self, driver: Shared) -> None:
        self._driver = driver

    def receive(self, data: bytes, now: float) -> list[Reading | Outcome]:
        return [item for heard in self._driver.receive(data, now) for item in heard.items]

    def tick(self, now: float) -> list[Reading | Outcome]:
        return [item for heard in self._driver.tick(now) for item in heard.items]

    def outgoing(self) -> bytes:
        return self._driver.outgoing()


class SharedBench(Bench):
    """A Bench whose driver speaks for several devices; `readings` and `value` are those of all of them."""

    def __init__(self, driver: Shared, device: Any, seed: int = 0) -> None:
        super().__init__(driver, device, seed)  # type: ignore[arg-type]
        self._of: list[tuple[str, Reading]] = []

    def of(self, device: str, point: str, since: float = 0.0) -> list[object]:
        """Every value that was read for a point of one device."""
        return [r.value for name, r in self._of if (name, r.point) == (device, point) and r.at >= since]

    def last(self, device: str, point: str) -> Reading:
        """The last reading of a point of one device."""
        return [r for name, r in self._of if (name, r.point) == (device, point)][-1]

    def perform(self, device: str, verb: str, **arguments: str) -> None:
        self.driver.perform(Operation(f"op-{verb}", device, verb, "someone", arguments), self.now)

    def _take(self, items: list[Any]) -> None:
        for heard in items:
            assert isinstance(heard, Heard)
            assert heard.items
            self._of += [(heard.device, item) for item in heard.items if isinstance(item, Reading)]
            super()._take(list(heard.items))


class Live:
    """A Shared driver at one end of a real line, in real time; `fd` is a pty or a socket."""

    def __init__(self, driver: Shared, fd: int) -> None:
        self.driver = driver
        self._fd = fd
        self._last: dict[tuple[str, str], Reading] = {}
        self.outcomes: list[Outcome] = []

    def value(self, device: str, point: str) -> object:
        """The last value of a point, or None."""
        reading = self._last.get((device, point))
        return reading and reading.value

    def raw(self, device: str, point: str) -> str:
        return self._last[device, point].raw

    def perform(self, device: str, verb: str, **arguments: str) -> None:
        self.driver.perform(Operation("op-1", device, verb, "someone", arguments), time.monotonic())

    def until(self, what: str, ready: Callable[[], Any], patience: float = 30.0) -> None:
        """Converse until something is so."""
        end = time.monotonic() + patience
        while not ready():
            assert time.monotonic() < end, f"waited {patience} s in vain for {what}: {self._last}"
            there, _, _ = select.select([self._fd], [], [], 0.02)
            data = os.read(self._fd, 4096) if there else b""
            now = time.monotonic()
            for heard in [*(self.driver.receive(data, now) if data else []), *self.driver.tick(now)]:
                for item in heard.items:
                    if isinstance(item, Outcome):
                        self.outcomes.append(item)
                    else:
                        self._last[heard.device, item.point] = item
            if outgoing := self.driver.outgoing():
                os.write(self._fd, outgoing)


class Caller:
    """One client's connection to a simulated server, as a device on a line of its own. `hung_up`: by the server."""

    BAUD: ClassVar[int] = 9600
    SETTINGS: ClassVar[Mapping[str, Allowed]] = {}

    def __init__(self, server: SimulatedDevice, channel: str = "1") -> None:
        vars(self).update(_server=server, _channel=channel, _heard=Records(1 << 20), hung_up=False)
        vars(self)["SETTINGS"] = server.SETTINGS
        self._ours(server.receive(record("o", channel)))

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["_server"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(vars(self)["_server"], name, value)

    def receive(self, data: bytes) -> bytes:
        server: SimulatedDevice = vars(self)["_server"]
        return self._ours(server.receive(record("t", vars(self)["_channel"], data)))

    def tick(self, now: float) -> bytes:
        server: SimulatedDevice = vars(self)["_server"]
        return self._ours(server.tick(now))

    def _ours(self, said: bytes) -> bytes:
        texts = b""
        for act, channel, text in vars(self)["_heard"].feed(said):
            assert channel == vars(self)["_channel"], "the server told somebody else"
            texts += text
            vars(self)["hung_up"] |= act == "c"
        return texts
