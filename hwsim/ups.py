"""This file knows a simulated UPS that speaks Megatec Q1 (2400 8N1).

Written from networkupstools/nut v2.8.0 (drivers/blazer_ser.c, blazer.c): queries Q1, F and I are answered by one
line of fixed length; an accepted command is answered by silence, and whatever the UPS does not know by its echo.

    (MMM.M NNN.N PPP.P QQQ RR.R SS.S TT.T b7b6b5b4b3b2b1b0 CR    Q1, 47 bytes
    #MMM.M QQQ SSS.S RR.R CR                                     F, 22 bytes
    #maker(15) model(10) version(10) CR                          I, 39 bytes
"""

import re
from collections.abc import Mapping
from typing import ClassVar

from hwsim.contract import Allowed

TEST_SECONDS = 10.0
LINE_LIMIT = 64
SHUTDOWN = re.compile(r"S(\.[2-9]|0[1-9]|10|00)(R\d{4})?")
TEST_MINUTES = re.compile(r"T(0[1-9]|[1-9]\d)")


class Ups:
    """A UPS on a serial line. `test` is when a running self-test ends (inf: until low), None when none runs."""

    BAUD: ClassVar[int] = 2400
    SETTINGS: ClassVar[Mapping[str, Allowed]] = {
        "mains": ("ok", "lost"),
        "battery": ("ok", "low"),
        "health": ("ok", "failed"),
        "bypass": ("off", "active"),
        "shutdown": ("inactive", "active"),
        "beeper": ("on", "off"),
        "type": ("standby", "online"),
        "test_fails": ("no", "yes"),
        "input_voltage": float,
        "fault_voltage": float,
        "output_voltage": float,
        "load": int,
        "frequency": float,
        "battery_voltage": float,
        "temperature": float,
        "rating_voltage": float,
        "rating_current": int,
        "rating_battery": float,
        "rating_frequency": float,
        "maker": str,
        "model": str,
        "version": str,
    }

    def __init__(self) -> None:
        self.mains, self.battery, self.health = "ok", "ok", "ok"
        self.bypass, self.shutdown, self.beeper = "off", "inactive", "on"
        self.type, self.test_fails = "standby", "no"
        self.input_voltage, self.fault_voltage, self.output_voltage = 230.0, 195.0, 230.0
        self.load, self.frequency, self.battery_voltage, self.temperature = 14, 50.0, 27.3, 28.0
        self.rating_voltage, self.rating_current, self.rating_battery, self.rating_frequency = 220.0, 4, 24.0, 50.0
        self.maker, self.model, self.version = "EXAMPLE POWER", "SIM-1000", "V1.0"
        self.test: float | None = None
        self._now = 0.0
        self._line = b""

    def receive(self, data: bytes) -> bytes:
        """The answers to every line that these bytes complete."""
        *lines, self._line = (self._line + data).split(b"\r")
        self._line = self._line[-LINE_LIMIT:]
        return b"".join(self._answer(line.lstrip(b"\n")) for line in lines)

    def tick(self, now: float) -> bytes:
        """Megatec never speaks unasked; a self-test ends."""
        self._now = now
        if self.test is not None and (now >= self.test or (self.test == float("inf") and self.battery == "low")):
            self.test = None
            # b4 after the test is its only result on the wire, so a passed one must clear it.
            self.health = "failed" if self.test_fails == "yes" else "ok"
        return b""

    def _answer(self, line: bytes) -> bytes:
        match line:
            case b"Q1":
                return self._status()
            case b"F":
                volts, amperes = self.rating_voltage, self.rating_current
                battery, hertz = self.rating_battery, self.rating_frequency
                text = f"#{_number(volts, 5)} {_number(amperes, 3, 0)} {_number(battery, 5)} {_number(hertz, 4)}\r"
                return text.encode()
            case b"I":
                return f"#{self.maker:<15.15} {self.model:<10.10} {self.version:<10.10}\r".encode(
                    "ascii", "replace"
                )
        return b"" if self._obey(line.decode("latin-1")) else line + b"\r"

    def _obey(self, command: str) -> bool:
        """Whether the UPS knows the command; it has then been done."""
        if command == "T":
            self.test = self._now + TEST_SECONDS
        elif command == "TL":
            self.test = float("inf")
        elif minutes := TEST_MINUTES.fullmatch(command):
            self.test = self._now + 60.0 * int(minutes[1])
        elif command == "CT":
            self.test = None
        elif command == "Q":
            self.beeper = "off" if self.beeper == "on" else "on"
        elif command == "C":
            self.shutdown = "inactive"
        elif SHUTDOWN.fullmatch(command):
            self.shutdown = "active"
        else:
            return False
        return True

    def _status(self) -> bytes:
        lost = self.mains == "lost"
        flags = (
            lost,
            self.battery == "low",
            self.bypass == "active",
            self.health == "failed",
            self.type == "standby",
            self.test is not None,
            self.shutdown == "active",
            self.beeper == "on",
        )
        bits = "".join("1" if flag else "0" for flag in flags)
        volts = 0.0 if lost else self.input_voltage
        hertz = 0.0 if lost else self.frequency
        battery = _number(self.battery_voltage, 4, 2 if self.battery_voltage < 10 else 1)
        return (
            f"({_number(volts, 5)} {_number(self.fault_voltage, 5)} {_number(self.output_voltage, 5)}"
            f" {_number(self.load, 3, 0)} {_number(hertz, 4)} {battery} {_number(self.temperature, 4)} {bits}\r"
        ).encode()


def _number(value: float, width: int, decimals: int = 1) -> str:
    """A number in its field; one that does not fit is shown as the nearest that does."""
    most = (10 ** (width - bool(decimals)) - 1) / 10**decimals
    return f"{min(max(0.0, value), most):0{width}.{decimals}f}"
