"""A driver and a simulated device, joined by two bad wires in virtual time: 600 seconds pass in well under one."""

from collections.abc import Mapping, Sequence
from random import Random

from agent.drivers import Driver
from agent.model import Operation, Outcome, Reading
from hwsim import SimulatedDevice, change_setting
from hwsim.wires import Faults, Wire


def wires(
    merge: float = 0.1, noise: int = 3, late: float = 0.2, later: float | None = 0.8
) -> dict[str, dict[str, float]]:
    """The faults that a driver must bear, by name. `late` is within its timeout, and `later` beyond it."""
    bad: dict[str, dict[str, float]] = {
        "good": {},
        "bytewise": {"chunk": 1, "gap": 0.005},
        "merged": {"merge": merge},
        "lossy": {"damage": 0.1},
        "half frames": {"half": 0.1},
        "noisy": {"noise": noise},
        "late": {"delay": late},
    }
    return bad if later is None else bad | {"later than the timeout": {"delay": later}}


def prepare(device: SimulatedDevice, **settings: object) -> None:
    """Change settings of a simulated device."""
    for name, value in settings.items():
        change_setting(device, name, str(value))


def values(items: Sequence[Reading | Outcome], point: str) -> list[object]:
    """Every value that was read for a point."""
    return [item.value for item in items if isinstance(item, Reading) and item.point == point]


def words(items: Sequence[Reading | Outcome], point: str) -> list[object]:
    """The different values of a point, in the order of their first appearance."""
    return list(dict.fromkeys(values(items, point)))


def total(items: Sequence[Reading | Outcome], point: str) -> int:
    """What a point has counted."""
    return sum(int(value) for value in values(items, point) if isinstance(value, int))


class Bench:
    """One line with a driver at one end and a simulated device at the other. `now` is virtual time."""

    STEP = 0.05

    def __init__(self, driver: Driver, device: SimulatedDevice, seed: int = 0) -> None:
        rng = Random(seed)
        self.driver, self.device = driver, device
        self.to_device, self.to_host = Wire(rng, Faults()), Wire(rng, Faults())
        self.now = 1000.0
        self.readings: list[Reading] = []
        self.outcomes: list[Outcome] = []

    def faults(self, **changes: float | bool) -> None:
        """Give both directions the same faults, e.g. faults(damage=0.1); faults() makes the line good."""
        for wire in (self.to_device, self.to_host):
            wire.faults = Faults(**changes)  # type: ignore[arg-type]

    def run(self, seconds: float) -> list[Reading]:
        """Let `seconds` pass; returns the readings made in them."""
        begun = len(self.readings)
        end = self.now + seconds
        while self.now < end:
            self.now += self.STEP
            self._take(self.driver.tick(self.now))
            self.to_device.send(self.driver.outgoing(), self.now)
            for piece in self.to_device.arrive(self.now):
                self.to_host.send(self.device.receive(piece), self.now)
            self.to_host.send(self.device.tick(self.now), self.now)
            for piece in self.to_host.arrive(self.now):
                self._take(self.driver.receive(piece, self.now))
                # what the driver must answer at once (an ACK) does not wait for the next tick
                self.to_device.send(self.driver.outgoing(), self.now)
        return self.readings[begun:]

    def value(self, point: str) -> object:
        """The last value read for a point, or None."""
        return next((r.value for r in reversed(self.readings) if r.point == point), None)

    def _take(self, items: list[Reading | Outcome]) -> None:
        for item in items:
            if isinstance(item, Reading):
                self.readings.append(item)
            else:
                self.outcomes.append(item)


def perform(at: Bench, verb: str, **arguments: int) -> None:
    """Begin an operation. What became of it is in `at.outcomes`."""
    at.driver.perform(Operation(f"op-{verb}-{at.now}", "device1", verb, "someone", arguments), at.now)


def stays(at: Bench, truth: Mapping[str, object], quarters: int = 8) -> None:
    """Each point is read in each quarter of a minute, and never otherwise than it is."""
    for _ in range(quarters):
        readings = at.run(15)
        assert {point: words(readings, point) for point in truth} == {p: [value] for p, value in truth.items()}
        assert "up" in values(readings, "link.state")


def overhear(driver: Driver, *pieces: bytes, now: float = 1000.0) -> list[Reading]:
    """What a driver on a tap reads in these pieces; it says nothing."""
    items = [item for piece in pieces for item in driver.receive(piece, now)]
    assert driver.outgoing() == b""
    return [item for item in items if isinstance(item, Reading)]
