"""This file knows a simulated NUT server (upsd) that watches one UPS.

Written from NUT 2.8.0 docs/net-protocol.txt and from what upsd 2.8.0 said when it was asked: one line a request,
one line or one list an answer, values in quotes with \\" and \\\\ escaped, ERR and one word for what cannot be.

    LIST UPS, LIST VAR ups, LIST CMD ups, LIST CLIENT ups, GET VAR ups name, VER, NETVER, LOGOUT
    USERNAME, PASSWORD and LOGIN are taken from everybody; `logins` counts who has done LOGIN, as a shutdown would
"""

from collections.abc import Mapping
from typing import ClassVar

from agent.drivers.framing import Records, record
from hwsim.contract import Allowed

LONGEST = 1024
VERSION = "Network UPS Tools upsd 2.8.0 - simulated"


class Nut:
    """A server with one UPS. `status` holds the flags of ups.status."""

    BAUD: ClassVar[int] = 9600
    MEDIUM: ClassVar[str] = "server"
    SETTINGS: ClassVar[Mapping[str, Allowed]] = {
        "name": str,
        "status": str,
        "stale": ("no", "yes"),
        "driver": ("connected", "lost"),
        "answers": ("yes", "no"),
        "alarm": str,
        "test_result": str,
        "charge": int,
        "runtime": int,
        "load": int,
        "input_voltage": float,
        "output_voltage": float,
        "battery_voltage": float,
        "temperature": float,
        "maker": str,
        "model": str,
        "serial": str,
        "firmware": str,
    }

    def __init__(self) -> None:
        self.name, self.status = "ups0", "OL"
        self.stale, self.driver, self.answers = "no", "connected", "yes"
        self.alarm, self.test_result = "", "No test initiated"
        self.charge, self.runtime, self.load = 100, 1800, 14
        self.input_voltage, self.output_voltage = 230.0, 230.0
        self.battery_voltage, self.temperature = 27.3, 28.0
        self.maker, self.model = "EXAMPLE POWER", "SIM-2000"
        self.serial, self.firmware = "SN-0001", "V2.0"
        self.logins = 0
        self._records = Records(1 << 20)
        self._lines: dict[str, bytes] = {}

    def receive(self, data: bytes) -> bytes:
        """The answers to every line that these records complete, to who has asked."""
        said = b""
        for act, channel, text in self._records.feed(data):
            if act == "c":
                self._lines.pop(channel, None)
                continue
            *lines, rest = (self._lines.get(channel, b"") + text).split(b"\n")
            self._lines[channel] = rest[-LONGEST:]
            for line in lines:
                if self.answers == "yes":
                    said += self._told(channel, line.decode("utf-8", "replace").split())
        return said

    def tick(self, now: float) -> bytes:
        """A server never speaks unasked."""
        return b""

    def _told(self, channel: str, words: list[str]) -> bytes:
        if words == ["LOGOUT"]:
            return record("t", channel, b"OK Goodbye\n") + record("c", channel)
        lines = self._answer(words)
        return record("t", channel, "".join(f"{line}\n" for line in lines).encode())

    def _answer(self, words: list[str]) -> list[str]:
        match words:
            case ["VER"]:
                return [VERSION]
            case ["NETVER" | "PROTVER"]:
                return ["1.3"]
            case ["USERNAME" | "PASSWORD", _]:
                return ["OK"]
            case ["LOGIN", ups]:
                self.logins += ups == self.name
                return ["OK"] if ups == self.name else ["ERR UNKNOWN-UPS"]
            case ["LIST", "UPS"]:
                return _listed("UPS", [f'UPS {self.name} "Description unavailable"'])
            case ["LIST" | "GET", _, ups, *_] if ups != self.name:
                return ["ERR UNKNOWN-UPS"]
            case ["LIST", "CLIENT", ups]:
                return _listed(f"CLIENT {ups}", [])
            case ["LIST" | "GET", "VAR" | "CMD", _, *_] if self.driver == "lost":
                return ["ERR DRIVER-NOT-CONNECTED"]
            case ["LIST" | "GET", "VAR" | "CMD", _, *_] if self.stale == "yes":
                return ["ERR DATA-STALE"]
            case ["LIST", "CMD", ups]:
                return _listed(f"CMD {ups}", [])
            case ["LIST", "VAR", ups]:
                return _listed(f"VAR {ups}", [self._variable(name) for name in self._variables()])
            case ["GET", "VAR", _, name]:
                return [self._variable(name) if name in self._variables() else "ERR VAR-NOT-SUPPORTED"]
            case ["LIST" | "GET", *_]:
                return ["ERR INVALID-ARGUMENT"]
        return ["ERR UNKNOWN-COMMAND"]

    def _variable(self, name: str) -> str:
        value = self._variables()[name].replace("\\", "\\\\").replace('"', '\\"')
        return f'VAR {self.name} {name} "{value}"'

    def _variables(self) -> dict[str, str]:
        alarm = {"ups.alarm": self.alarm} if self.alarm else {}
        return {
            "battery.charge": str(self.charge),
            "battery.runtime": str(self.runtime),
            "battery.voltage": f"{self.battery_voltage:.1f}",
            "device.type": "ups",
            "input.voltage": f"{self.input_voltage:.1f}",
            "output.voltage": f"{self.output_voltage:.1f}",
            **alarm,
            "ups.firmware": self.firmware,
            "ups.load": str(self.load),
            "ups.mfr": self.maker,
            "ups.model": self.model,
            "ups.serial": self.serial,
            "ups.status": f"ALARM {self.status}" if self.alarm else self.status,
            "ups.temperature": f"{self.temperature:.1f}",
            "ups.test.result": self.test_result,
        }


def _listed(what: str, lines: list[str]) -> list[str]:
    return [f"BEGIN LIST {what}", *lines, f"END LIST {what}"]
