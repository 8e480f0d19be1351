"""This file knows one line on one thread: it has its port opened, moves bytes between it and a driver, and has it
opened again when it is lost.

A port that cannot be opened is reported for each device behind it, again at every attempt, so that the reason is
never stale. Each opening gets a new driver: no half-frame survives a pulled cable.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

from tenacity import (
    RetryCallState,
    RetryError,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_when_event_set,
    wait_random_exponential,
)

from agent.config import Device, Line
from agent.drivers import DRIVERS, SHARED, Driver, Shared
from agent.errors import LinkError
from agent.lines.ports import Port, open_port
from agent.model import Heard, Operation, Outcome, Reading

REOPEN_MAX = 3.0
"""Seconds between attempts to open a port, at the most: looking is cheap, and a technician is waiting."""
STABLE = 3.0
"""Seconds after which an opening counts as good, so that losing it is not another failed attempt."""
TAKEN = "does another program or client have it?"
LOST = "the line was lost"
ENDED = "the agent has closed the line, to stop or for another configuration"

log = logging.getLogger(__name__)


class Alone:
    """A driver that is alone on its line, spoken to like one that is shared."""

    def __init__(self, device: str, driver: Driver) -> None:
        self._device, self._driver = device, driver
        self.outgoing, self.perform = driver.outgoing, driver.perform
        self.transcript = driver.transcript

    def receive(self, data: bytes, now: float) -> list[Heard]:
        return self._of_device(self._driver.receive(data, now))

    def tick(self, now: float) -> list[Heard]:
        return self._of_device(self._driver.tick(now))

    def _of_device(self, items: Sequence[Reading | Outcome]) -> list[Heard]:
        return [Heard(self._device, tuple(items))] if items else []


def driver_for(line: Line | Device, devices: Mapping[str, Device]) -> Alone | Shared:
    """A fresh driver for one opening of a line."""
    if isinstance(line, Device):
        return Alone(line.name, DRIVERS[line.kind](line.options, line.access))
    return SHARED[line.kind](line.options, {name: device.options for name, device in devices.items()})


class Link:
    """One line: a device's own, or one that several share. `put` takes what was heard; `progress` is when the loop
    last went round."""

    def __init__(
        self,
        line: Line | Device,
        devices: Iterable[Device],
        put: Callable[[Heard], None],
        stop: threading.Event,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = line.name
        self._line = line
        self._devices = {device.name: device for device in devices}
        self.progress = clock()
        self._put = put
        self._stop = stop
        self._clock = clock
        self._asked: deque[Operation] = deque()
        self._running: dict[str, str] = {}
        self._said = ""
        self._has_ended = False

    def perform(self, operation: Operation) -> None:
        """Hand an operation to the driver at the loop's next turn. Its Outcome is put like any reading, also when
        the link has come to its end."""
        self._asked.append(operation)
        if self._has_ended:
            self._refuse(ENDED)

    def run(self) -> None:
        """Serve the line until `stop` is set."""
        while not self._stop.is_set():
            try:
                for attempt in Retrying(
                    wait=wait_random_exponential(multiplier=0.1, max=REOPEN_MAX),
                    stop=stop_when_event_set(self._stop),
                    sleep=sleep_using_event(self._stop),
                    retry=retry_if_exception_type(LinkError),
                    before_sleep=self._report,
                ):
                    with attempt:
                        self._opening()
            except RetryError:
                break
        self.end()

    def end(self) -> None:
        """Nobody serves this line any more: what waits, and what is asked from now on, is refused at once."""
        self._has_ended = True
        self._refuse(ENDED)

    def _opening(self) -> None:
        """One opening of the port, from its begin to its end. Raises LinkError unless it ended by our stop or after
        some time: a port that is lost as soon as it is open is no better than one that cannot be opened."""
        port = open_port(self._line)
        begun = self._clock()
        if self._said != "short":
            self._say("open", f"the port {self._line.port} is open")
        try:
            self._converse(port, driver_for(self._line, self._devices))
        except OSError as error:
            if self._clock() - begun < STABLE:
                raise LinkError(
                    "unusable", f"{self._line.port} is lost as soon as it is open ({error}): {TAKEN}"
                ) from error
            self._say("lost", f"the port {self._line.port} was lost ({error})")
        finally:
            port.close()
            self._abandon(ENDED if self._stop.is_set() else LOST)

    def _report(self, state: RetryCallState) -> None:
        """An attempt to open the port has failed."""
        error = state.outcome.exception() if state.outcome else None
        self.progress = self._clock()
        if isinstance(error, LinkError):
            self._say("short" if TAKEN in str(error) else error.cause, str(error))
            reading = Reading("link.state", error.cause, self._clock(), raw=str(error))
            self._hand_over([Heard(name, (reading,)) for name in self._devices])
            self._abandon(str(error))

    def _converse(self, port: Port, driver: Alone | Shared) -> None:
        while not self._stop.is_set():
            data = port.read()
            now = self.progress = self._clock()
            while self._asked:
                operation = self._asked.popleft()
                self._running[operation.id] = operation.device
                driver.perform(operation, now)
                del operation  # it may carry a key block, which nobody keeps
            heard = [*driver.receive(data, now)] if data else []
            heard += driver.tick(now)
            if outgoing := driver.outgoing():
                port.write(outgoing)
            self._hand_over(heard)

    def _hand_over(self, heard: Iterable[Heard]) -> None:
        for one in heard:
            for item in one.items:
                if isinstance(item, Outcome):
                    self._running.pop(item.operation, None)
            self._put(one)

    def _abandon(self, why: str) -> None:
        """Every operation that is waiting or running gets its Outcome, also when there is no line."""
        now, unsure = self._clock(), f"{why} while the device was at it: look at the device before you repeat it"
        running = sorted(self._running.items())
        self._hand_over([Heard(d, (Outcome(id_, "unanswered", unsure, now),)) for id_, d in running])
        self._refuse(why)

    def _refuse(self, why: str) -> None:
        with suppress(IndexError):  # who asks may empty it at the same time
            while True:
                waiting = self._asked.popleft()
                outcome = Outcome(waiting.id, "refused", f"nothing was sent: {why}", self._clock())
                self._hand_over([Heard(waiting.device, (outcome,))])

    def _say(self, state: str, sentence: str) -> None:
        """Log a state of the port once, however often it is met again."""
        if state != self._said:
            self._said = state
            log.log(logging.INFO if state == "open" else logging.WARNING, "%s: %s", self._line.name, sentence)
