"""This file knows a simulated alarm panel on a Modbus RTU line (9600 8N1); several may share the line.

Written from "MODBUS Application Protocol Specification V1.1b3" (sections 6.1 to 6.5 and 7) and "MODBUS over Serial
Line Specification and Implementation Guide V1.02" (sections 2.2 and 2.5.1).

    slave FC address(2) number(2) CRC(2, low byte first)     FC 01 02 read bits, 03 04 read registers, 05 one coil
    slave FC+80 code CRC                                     01 function, 02 address, 03 value, 04 failure

    inputs 0 to 7      safe_door cabinet_door tamper seismic heat tilt mains smoke   1: open, on, lost
    coils 0 to 3       coil0 to coil3
    registers 0 and 1  temperature, humidity: tenths, signed; the same as input and as holding registers

It is silent to a bad CRC, to another slave's address and to a broadcast, and it hears what the others answer.
"""

from collections.abc import Mapping
from typing import ClassVar

from agent.drivers.framing import BAD, MORE, Deframer
from hwsim.contract import Allowed

INPUTS = ("safe_door", "cabinet_door", "tamper", "seismic", "heat", "tilt", "mains", "smoke")
WORDS = {"safe_door": ("closed", "open"), "cabinet_door": ("closed", "open"), "mains": ("ok", "lost")}
COILS = ("coil0", "coil1", "coil2", "coil3")
REGISTERS = ("temperature", "humidity")
SWITCH = ("off", "on")
FUNCTION, ADDRESS, VALUE = 1, 2, 3
MOST = {1: 2000, 2: 2000, 3: 125, 4: 125}


def _crc(data: bytes) -> bytes:
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc, carry = crc >> 1, crc & 1
            if carry:
                crc ^= 0xA001
    return bytes((crc & 0xFF, crc >> 8))


def _measure(buffer: bytes) -> int:
    """A request of eight bytes; one of a function that we do not know ends where its CRC says so."""
    if len(buffer) < 2:
        return MORE
    if buffer[1] in (1, 2, 3, 4, 5, 6):
        return (8 if _is_whole(buffer[:8]) else BAD) if len(buffer) >= 8 else MORE
    if not 1 <= buffer[1] <= 0x7F:
        return BAD
    return next((size for size in range(4, len(buffer) + 1) if _is_whole(buffer[:size])), MORE)


def _is_whole(frame: bytes) -> bool:
    return _crc(frame[:-2]) == frame[-2:]


class Modbus:
    """One panel. `refuses` is the exception code that it answers everything with."""

    BAUD: ClassVar[int] = 9600
    MEDIUM: ClassVar[str] = "bus"
    SETTINGS: ClassVar[Mapping[str, Allowed]] = {
        "address": int,
        "power": ("on", "off"),
        "polarity": ("active_is_1", "active_is_0"),
        "refuses": ("no", "1", "2", "3", "4", "6"),
        **{name: WORDS.get(name, SWITCH) for name in INPUTS},
        **{name: SWITCH for name in COILS},
        **{name: float for name in REGISTERS},
    }

    def __init__(self) -> None:
        self._address = 1
        self.power, self.polarity, self.refuses = "on", "active_is_1", "no"
        self.safe_door = self.cabinet_door = "closed"
        self.tamper = self.seismic = self.heat = self.tilt = self.smoke = "off"
        self.mains = "ok"
        self.coil0 = self.coil1 = self.coil2 = self.coil3 = "off"
        self.temperature, self.humidity = 23.5, 45.0
        self._deframer = Deframer(_measure, 256, gap=0.1)
        self._now = 0.0

    @property
    def address(self) -> int:
        """The slave address, 1 to 247."""
        return self._address

    @address.setter
    def address(self, number: int) -> None:
        if not 1 <= number <= 247:
            raise ValueError(f"address cannot be {number}; it can be 1 to 247")
        self._address = number

    def receive(self, data: bytes) -> bytes:
        """The answers to the requests in these bytes that are for this panel."""
        return b"".join(self._take(frame) for frame in self._deframer.feed(data, self._now))

    def tick(self, now: float) -> bytes:
        """A slave never speaks unasked; an unfinished request is forgotten."""
        self._now = now
        return b"".join(self._take(frame) for frame in self._deframer.expire(now))

    def _take(self, frame: bytes) -> bytes:
        if frame[0] != self._address or self.power == "off":
            return b""
        body = bytes((self._address,)) + self._answer(frame[1], frame[2:-2])
        return body + _crc(body)

    def _answer(self, function: int, data: bytes) -> bytes:
        def refuse(code: int) -> bytes:
            return bytes((function | 0x80, code))

        if self.refuses != "no":
            return refuse(int(self.refuses))
        if function not in (1, 2, 3, 4, 5) or len(data) != 4:
            return refuse(FUNCTION)
        first, number = int.from_bytes(data[:2], "big"), int.from_bytes(data[2:], "big")
        if function == 5:
            if number not in (0x0000, 0xFF00):
                return refuse(VALUE)
            if first >= len(COILS):
                return refuse(ADDRESS)
            setattr(self, COILS[first], "on" if number else "off")
            return bytes((5,)) + data
        if not 1 <= number <= MOST[function]:
            return refuse(VALUE)
        there = {1: COILS, 2: INPUTS, 3: REGISTERS, 4: REGISTERS}[function]
        if first + number > len(there):
            return refuse(ADDRESS)
        names = there[first : first + number]
        content = self._bits(names) if function in (1, 2) else self._words(names)
        return bytes((function, len(content))) + content

    def _bits(self, names: tuple[str, ...]) -> bytes:
        packed = 0
        for place, name in enumerate(names):
            idle, _ = WORDS.get(name, SWITCH)
            active = getattr(self, name) != idle
            if name in INPUTS and self.polarity == "active_is_0":
                active = not active
            packed |= active << place
        return packed.to_bytes((len(names) + 7) // 8, "little")

    def _words(self, names: tuple[str, ...]) -> bytes:
        tenths = (round(max(-3276.8, min(getattr(self, name), 3276.7)) * 10) for name in names)
        return b"".join(number.to_bytes(2, "big", signed=True) for number in tenths)
