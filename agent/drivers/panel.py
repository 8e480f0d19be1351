"""This file knows what the places of a Modbus module mean: the map that a configuration gives, checked, and read.

    [devices.panel1]
    line = "rs485"
    address = 1
    [devices.panel1.inputs]                          # point -> input
    safe_door = { at = 0 }                           # 1 is open, 0 is closed
    seismic = { at = 1, invert = true }              # 0 is on: a contact that opens when it is active
    operator_switch = { at = 2, idle = "run", active = "supervisor" }
    "input.water" = { at = 3 }
    [devices.panel1.registers]                       # point -> register
    "ambient.temperature" = { at = 0, scale = 0.1, signed = true }
    [devices.panel1.outputs]                         # name -> coil
    siren = 2

Which input is which, its polarity and the scale of a register are matters of wiring and of the module's manual, so
they stand in the configuration. Places are counted from 0, as on the wire; many manuals count from 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import ClassVar

from agent.drivers.rtu import BIT_FUNCTIONS, NAMES, WORD_FUNCTIONS
from agent.model import Reading
from agent.points import POINTS, Point, exists, lookup

PAIRS = ("off on", "closed open", "ok lost", "disarmed armed", "notPresent present", "ok low", "ok failed")
"""The usual words for 0 and 1; a point takes the first pair that it has."""
OURS = ("link.", "device.")
GREATEST = 1e12  # no number of a sensor is greater, and every store and every reader takes it


@dataclass(frozen=True, slots=True)
class Input:
    """at: the place, from 0. idle: the word for 0. active: the word for 1. invert: 0 is active and 1 is idle."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    at: int
    idle: str = ""
    active: str = ""
    invert: bool = False

    def words(self, point: Point) -> tuple[str, str]:
        """The words for 0 and 1. Raises ValueError with what is wrong."""
        pairs = [pair.split() for pair in PAIRS]
        idle, active = next((pair for pair in pairs if {*pair} <= {*point.words}), ["", ""])
        idle, active = self.idle or idle, self.active or active
        for name, word in (("idle", idle), ("active", active)):
            if word not in point.words:
                wrong = f"{name} cannot be {word!r}" if word else f"{name} is missing"
                raise ValueError(f"{wrong}; it can be {', '.join(point.words)}")
        if idle == active:
            raise ValueError(f"idle and active are both {idle!r}; then it says nothing")
        return (active, idle) if self.invert else (idle, active)


@dataclass(frozen=True, slots=True)
class Register:
    """at: the place, from 0. function: 4 input registers, 3 holding registers. signed: the number is -32768 to
    32767, else 0 to 65535. scale: and offset: the value is number * scale + offset. absent: the number that means
    that there is no sensor."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    at: int
    function: int = WORD_FUNCTIONS[0]
    signed: bool = False
    scale: float = 1.0
    offset: float = 0.0
    absent: int | None = None

    def __post_init__(self) -> None:
        if not 0x10000 * abs(self.scale) + abs(self.offset) <= GREATEST:  # nan fails this too
            raise ValueError(f"scale and offset must be finite numbers, and no value greater than {GREATEST:g}")

    def value(self, number: int) -> float | None:
        """What a register's 16 bits mean; None when there is no sensor."""
        if self.signed and number >= 0x8000:
            number -= 0x10000
        return None if number == self.absent else round(number * self.scale + self.offset, 6)


@dataclass(frozen=True, slots=True)
class PanelOptions:
    """address: of the slave, 1 to 247. poll: seconds between two questions for a place, more than 0 and at most 5.
    function: what the inputs are, 2 discrete inputs or 1 coils. inputs: point -> Input.
    registers: point -> Register.
    outputs: name -> coil that the operations switch_on and switch_off may switch.
    Without inputs and registers it is only seen whether it answers.
    bridge: how many places that nobody wants may be read along to save a question, 0 to 100."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    address: int
    poll: float = 0.5
    function: int = BIT_FUNCTIONS[0]
    inputs: Mapping[str, Input] = field(default_factory=dict)
    registers: Mapping[str, Register] = field(default_factory=dict)
    outputs: Mapping[str, int] = field(default_factory=dict)
    bridge: int = 16

    def __post_init__(self) -> None:
        if not 1 <= self.address <= 247:
            raise ValueError("address must be 1 to 247")
        if not 0 < self.poll <= 5:
            raise ValueError("poll must be more than 0 and at most 5 seconds")
        if self.function not in BIT_FUNCTIONS:
            raise ValueError("function must be 2 (discrete inputs) or 1 (coils)")
        if not 0 <= self.bridge <= 100:
            raise ValueError("bridge must be 0 to 100")
        taken: dict[tuple[int, int], str] = {}
        for name, entry in self.inputs.items():
            point = _point(f"inputs.{name}", name, "word")
            _take(taken, f"inputs.{name}", self.function, entry.at)
            try:
                entry.words(point)
            except ValueError as error:
                raise ValueError(f"inputs.{name}: {error}") from error
        for name, register in self.registers.items():
            _point(f"registers.{name}", name, "measure", "count")
            if register.function not in WORD_FUNCTIONS:
                raise ValueError(f"registers.{name}: function must be 4 (input) or 3 (holding registers)")
            _take(taken, f"registers.{name}", register.function, register.at)
        for name, coil in self.outputs.items():
            _take({}, f"outputs.{name}", BIT_FUNCTIONS[1], coil)

    @property
    def places(self) -> list[tuple[int, int]]:
        """Every (function, place) that is wanted; if there is none, the first eight inputs: does it answer?"""
        inputs = [(self.function, entry.at) for entry in self.inputs.values()]
        registers = [(register.function, register.at) for register in self.registers.values()]
        return inputs + registers or [(self.function, at) for at in range(8)]

    def understand(self, values: Mapping[tuple[int, int], int], now: float) -> list[Reading]:
        """The readings of those wanted places that are among the values."""
        out = []
        for name, entry in self.inputs.items():
            if (bit := values.get((self.function, entry.at))) is not None:
                raw = f"{NAMES[self.function]} {entry.at} = {bit}"
                out.append(Reading(name, entry.words(lookup(name))[bit], now, raw))
        for name, register in self.registers.items():
            number = values.get((register.function, register.at))
            if number is not None and (value := register.value(number)) is not None:
                counted = lookup(name).kind == "count"
                raw = f"{NAMES[register.function]} {register.at} = {number}"
                out.append(Reading(name, max(0, round(value)) if counted else value, now, raw))
        return out


def _point(where: str, name: str, *kinds: str) -> Point:
    """The point that an input or a register may be. Raises ValueError."""
    if exists(name) and lookup(name).kind in kinds and not name.startswith(OURS):
        return lookup(name)
    fit = [point.pattern for point in POINTS if point.kind in kinds and not point.pattern.startswith(OURS)]
    hint = ", ".join(get_close_matches(name, fit, 3)) or "one of docs/points.md"
    raise ValueError(f"{where}: {name} is no {' or '.join(kinds)} of the vocabulary; write {hint}")


def _take(taken: dict[tuple[int, int], str], where: str, function: int, at: int) -> None:
    if not 0 <= at <= 0xFFFF:
        raise ValueError(f"{where}: at must be 0 to 65535")
    if (function, at) in taken:
        raise ValueError(f"{where}: {NAMES[function]} {at} is already {taken[function, at]}")
    taken[function, at] = where
