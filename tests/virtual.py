"""A driver and a simulated device, joined by two bad wires in virtual time: 600 seconds pass in well under one."""

from random import Random

from agent.drivers import Driver
from agent.model import Outcome, Reading
from hwsim import SimulatedDevice
from hwsim.wires import Faults, Wire


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
