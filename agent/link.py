"""This file knows one device line on one thread: it opens the port, moves bytes between it and a driver, and opens
it again when it is lost. The only user of pyserial.

A port that cannot be opened is reported with one word and a sentence a technician can act on, again at every
attempt, so that the reason is never stale. Each opening gets a new driver: no half-frame survives a pulled cable.
"""

import errno
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import serial
from tenacity import (
    RetryCallState,
    RetryError,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_when_event_set,
    wait_random_exponential,
)

from agent.config import Device
from agent.drivers import DRIVERS, Driver
from agent.errors import LinkError
from agent.model import Heard, Operation, Outcome, Reading

try:
    from termios import error as TermiosError
except ImportError:  # Windows has no termios, and raises nothing else than OSError
    TermiosError = OSError  # type: ignore[assignment, misc]

READ_TIMEOUT = 0.2
REOPEN_MAX = 3.0
"""Seconds between attempts to open a port, at the most: looking is cheap, and a technician is waiting."""

log = logging.getLogger(__name__)


def open_port(device: Device) -> serial.Serial:
    """Open a device's port, alone. Raises LinkError with the cause and the next step."""
    line = DRIVERS[device.kind].line
    port = device.port
    try:
        opened = serial.serial_for_url(
            port,
            do_not_open=True,
            baudrate=device.baud or line.baud,
            bytesize=line.bits,
            parity=line.parity,
            stopbits=line.stop,
            timeout=READ_TIMEOUT,
            write_timeout=1.0,
        )
        if "://" not in port:
            opened.exclusive = True
            opened.dtr, opened.rts = line.dtr, line.rts
        opened.open()
    except (OSError, TermiosError, ValueError) as error:
        raise _explain(port, error) from error
    return opened


def _explain(port: str, error: Exception) -> LinkError:
    number = getattr(error, "errno", None)
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return LinkError(
            "missing", f"{port} is not there: is the cable in, and is the adapter found by the system?"
        )
    if number in (errno.EBUSY, errno.EAGAIN, errno.EWOULDBLOCK):
        return LinkError(
            "busy", f"{port} is in use by another program: close it, or give one of the two another port"
        )
    if number in (errno.EACCES, errno.EPERM):
        return LinkError(
            "denied", f"{port} may not be opened by this user: add the agent's user to the port's group"
        )
    if "://" in port and "refused" in str(error):
        return LinkError("missing", f"{port} refuses the connection: is the device on, and is the address right?")
    return LinkError("unusable", f"{port} cannot be used ({error}): is it a serial port?")


class Link:
    """The line of one device. `put` takes what was heard; `progress` is when the loop last went round."""

    def __init__(
        self,
        device: Device,
        put: Callable[[Heard], None],
        stop: threading.Event,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.device = device
        self.progress = clock()
        self._put = put
        self._stop = stop
        self._clock = clock
        self._asked: deque[Operation] = deque()
        self._running: set[str] = set()
        self._said = ""

    def perform(self, operation: Operation) -> None:
        """Hand an operation to the driver at the loop's next turn. Its Outcome is put like any reading."""
        self._asked.append(operation)

    def run(self) -> None:
        """Serve the line until `stop` is set."""
        while not self._stop.is_set():
            try:
                port = self._open()
            except RetryError:
                return
            driver = DRIVERS[self.device.kind](self.device.options, self.device.access)
            try:
                self._converse(port, driver)
            except (OSError, TermiosError) as error:
                self._say("lost", f"the port {self.device.port} was lost ({error})")
            finally:
                _close(port)
                self._abandon(
                    "the line was lost while the device was at it: look at the device before you repeat it"
                )

    def _open(self) -> serial.Serial:
        for attempt in Retrying(
            wait=wait_random_exponential(multiplier=0.1, max=REOPEN_MAX),
            stop=stop_when_event_set(self._stop),
            sleep=sleep_using_event(self._stop),
            retry=retry_if_exception_type(LinkError),
            before_sleep=self._report,
        ):
            with attempt:
                port = open_port(self.device)
        self._say("open", f"the port {self.device.port} is open")
        return port

    def _report(self, state: RetryCallState) -> None:
        """An attempt to open the port has failed."""
        error = state.outcome.exception() if state.outcome else None
        self.progress = self._clock()
        if isinstance(error, LinkError):
            self._say(error.cause, str(error))
            self._hand_over([Reading("link.state", error.cause, self._clock(), raw=str(error))])
            self._abandon(str(error))

    def _converse(self, port: serial.Serial, driver: Driver) -> None:
        while not self._stop.is_set():
            data = port.read(1)
            if data:
                data += port.read(port.in_waiting)
            now = self.progress = self._clock()
            while self._asked:
                operation = self._asked.popleft()
                self._running.add(operation.id)
                driver.perform(operation, now)
            items = [*driver.receive(data, now)] if data else []
            items += driver.tick(now)
            outgoing = driver.outgoing()
            if outgoing:
                try:
                    port.write(outgoing)
                except serial.SerialTimeoutException:
                    log.debug("%s: the line takes no bytes", self.device.name)
            self._hand_over(items)

    def _hand_over(self, items: Sequence[Reading | Outcome]) -> None:
        if items:
            self._running -= {item.operation for item in items if isinstance(item, Outcome)}
            self._put(Heard(self.device.name, tuple(items)))

    def _abandon(self, why: str) -> None:
        """Every operation that is waiting or running gets its Outcome, also when there is no line."""
        waiting = {self._asked.popleft().id for _ in range(len(self._asked))}
        now = self._clock()
        self._hand_over(
            [Outcome(id_, "unanswered", why, now) for id_ in sorted(self._running)]
            + [Outcome(id_, "refused", f"nothing was sent: {why}", now) for id_ in sorted(waiting)]
        )

    def _say(self, state: str, sentence: str) -> None:
        """Log a state of the port once, however often it is met again."""
        if state != self._said:
            self._said = state
            log.log(logging.INFO if state == "open" else logging.WARNING, "%s: %s", self.device.name, sentence)


def _close(port: serial.Serial) -> None:
    try:
        port.close()
    except (OSError, TermiosError):
        log.debug("a lost port cannot even be closed")
