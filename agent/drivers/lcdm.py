"""This file knows what a Puloon LCDM-4000 says: its frames and codes, and what its responses mean together.

Sources: the client library `puloon` and two independent host programs for commands and codes; the vendor's
"LCDM-1000T Interface Specification V3.3" for framing and timing. The LCDM-4000's own specification is not
public, so unknown upper bits are masked.

    command   04 id 02 CMD data 03 BCC        BCC: XOR from the first byte to 03
    response  01 id 02 CMD data 03 BCC        counts and ERR are value + 20h

There is no "empty" bit: a cassette is empty when its near-end flag is set and a dispense ended with error 01
and fewer notes than were asked from it, until the flag goes, the cassette is taken out, or notes come again.
When the request is unknown (a LAST STATUS from before our time), only a single near-end cassette is a clear
case. A missing reject tray is known from error 26, its return from a response without error.
"""

import re
from dataclasses import dataclass

from agent.drivers.framing import BAD, MORE, Measure, xor_of
from agent.model import Reading

HOST, DEVICE = 0x04, 0x01
RESET, STATUS, PURGE, DISPENSE, TEST_DISPENSE, LAST_STATUS = 0x44, 0x50, 0x51, 0x52, 0x53, 0x55
MOTIONS = (PURGE, DISPENSE, TEST_DISPENSE)

# Data bytes after CMD. The rest of the codes: sensor diagnosis, opacity, order and length settings, version.
REQUEST_SIZE = {RESET: 0, STATUS: 0, PURGE: 0, DISPENSE: 15, TEST_DISPENSE: 15, LAST_STATUS: 0}
REQUEST_SIZE |= {0x58: 1, 0x5A: 8, 0x5B: 0, 0x5C: 4, 0x5D: 0, 0x5E: 8, 0x5F: 0, 0x71: 4}
RESPONSE_SIZE = {STATUS: 18, PURGE: 14, DISPENSE: 23, TEST_DISPENSE: 23, LAST_STATUS: 15}
RESPONSE_SIZE |= {0x58: 5, 0x5A: 1, 0x5B: 9, 0x5C: 1, 0x5D: 5, 0x5E: 1, 0x5F: 9}
LIMIT = 29

NEAR_END, PATH_SENSORS, ABSENT = 0x08, 0x1F, 0x30

# A mark ! stands at those after which the dispenser cannot go on without a person.
_TABLE = """
    00 ok  01 pick_up  02 jam_check_divert!  03 jam_divert_eject!  04 jam_eject_exit!  05 note_in_exit!
    06 suspect_ejected  07 count_mismatch  08 reject_passed_eject  09 note_too_long_eject!  0A note_too_long_exit!
    0B notes_in_path!  0C too_many_notes  0D too_many_rejects  0E purge_failed!  20 sensor!  21 sensor!
    22 solenoid!  23 motor!  24 cassette_absent  25 near_end_refused  26 no_reject_tray!  29 overpaid
    30 bad_command  31 bad_parameter  32 memory!  33 memory!  34 memory!  35 memory!  36 memory!
    40 foreign_note  41 foreign_note  42 foreign_note  43 foreign_note"""
ERRORS: dict[int, str] = {int(code, 16): word for code, word in re.findall(r"(\w\w) (\w+)", _TABLE)}
STOPPING = frozenset(re.findall(r"(\w+)!", _TABLE))


NAMES = {
    RESET: "reset",
    STATUS: "status",
    PURGE: "purge",
    DISPENSE: "dispense",
    TEST_DISPENSE: "test dispense",
    LAST_STATUS: "last status",
}
CONTROLS = {0x04: "end", 0x06: "acknowledged", 0x15: "say it again"}


def meaning(frame: bytes) -> str:
    """What a frame or a control character is, for the transcript."""
    if len(frame) == 1:
        return CONTROLS.get(frame[0], "")
    name = NAMES.get(frame[3], f"command {frame[3]:02X}") if len(frame) > 3 else ""
    return f"command: {name}" if frame[0] == HOST else f"response: {name}"


@dataclass(slots=True)
class _Cassette:
    """One position. `empty` tells from what we concluded it; there is no emptiness without the near-end flag."""

    there: bool = False
    near_end: bool = False
    empty: str = ""

    def see(self, kind: int, near_end: bool) -> None:
        """Take TYPE and the near-end flag."""
        self.there = kind != ABSENT
        self.near_end = self.there and near_end
        if not self.near_end:
            self.empty = ""

    def reading(self, place: int, raw: str, now: float) -> Reading:
        """Its state, with `raw` when the device itself said so."""
        word = "empty" if self.empty else "low" if self.near_end else "ok" if self.there else "missing"
        return Reading(f"cassette.{place}.state", word, now, self.empty or raw, inferred=word == "empty")


class Picture:
    """What the responses say together: which cassettes are there, which gave out, what the last error was."""

    def __init__(self) -> None:
        self.error = ""
        self._blocked = False
        self._witnessed = False
        self._cassettes = tuple(_Cassette() for _ in range(4))

    def say(self, frame: bytes, wanted: tuple[int, ...] | None, now: float) -> list[Reading]:
        """Readings of one response; `wanted` are the notes asked from each cassette, where known."""
        code, data = frame[3], frame[4:-2]
        if code in MOTIONS:
            return self._moved(code, data, wanted or (0, 0, 0, 0), now)
        if code == STATUS:
            return self._status(data, now)
        return self._last(data, now) if code == LAST_STATUS else []

    def _status(self, data: bytes, now: float) -> list[Reading]:
        """ERR DISP [STAT TYPE OPAC LENG] x 4. The zeros keep the tallies fresh: nothing moved, and we know it."""
        self._blocked = bool(data[1] & PATH_SENSORS)
        out = self._fault(data[0], now)
        out.append(Reading("dispenser.path", "blocked" if self._blocked else "clear", now, f"DISP {data[1]:02X}"))
        out.append(Reading("reject.events", 0, now))
        for place, cassette in enumerate(self._cassettes, 1):
            stat, kind = data[4 * place - 2 : 4 * place]
            cassette.see(kind, bool(stat & NEAR_END))
            out.append(cassette.reading(place, f"TYPE {kind:02X} STAT {stat:02X}", now))
            if cassette.there:
                out.append(Reading(f"cassette.{place}.type", chr(kind), now, f"{kind:02X}"))
                out.append(Reading(f"cassette.{place}.dispensed", 0, now))
                out.append(Reading(f"cassette.{place}.rejected", 0, now))
        return [*out, self._state(now)]

    def _moved(self, code: int, data: bytes, wanted: tuple[int, ...], now: float) -> list[Reading]:
        """ERR MISS [EXIT REJ TYPE] x 4: only a DISPENSE lets notes out; else what left its cassette is rejected."""
        self._witnessed = True
        out = self._fault(data[0], now)
        events = 0
        for place, cassette in enumerate(self._cassettes, 1):
            gone, rejects, kind = data[3 * place - 1 : 3 * place + 2]
            came, rejects = max(0, gone - 0x20), max(0, rejects - 0x20)
            if code != DISPENSE:
                came = rejects = rejects + came
            elif came:
                out.append(Reading(f"cassette.{place}.dispensed", came, now, f"EXIT {gone:02X}"))
            if rejects:
                events += rejects
                out.append(Reading(f"cassette.{place}.rejected", rejects, now, f"{data[3 * place]:02X}"))
            cassette.see(kind, cassette.near_end)
            if self.error == "pick_up" and came < wanted[place - 1] and cassette.near_end:
                cassette.empty = f"near end, error {data[0]:02X}, {came} of {wanted[place - 1]} notes came"
            elif self.error == "ok" and came:
                cassette.empty = ""
            out.append(cassette.reading(place, f"TYPE {kind:02X}", now))
        if events:
            out.append(Reading("reject.events", events, now))
        return [*out, self._state(now)]

    def _last(self, data: bytes, now: float) -> list[Reading]:
        """LASTCMD ERR MISS [EXIT REJ TYPE] x 4: only of use for a motion that we did not see ourselves."""
        low = [(place, cassette) for place, cassette in enumerate(self._cassettes, 1) if cassette.near_end]
        dispensed = data[0] in (DISPENSE, TEST_DISPENSE) and error_word(data[1]) == "pick_up"
        if self._witnessed or not dispensed or len(low) != 1:
            return []
        ((place, cassette),) = low
        cassette.empty = f"last error {data[1]:02X}, and it is the only cassette near its end"
        return [cassette.reading(place, "", now), self._state(now)]

    def _fault(self, wire: int, now: float) -> list[Reading]:
        self.error = error_word(wire)
        out = [Reading("dispenser.error", self.error, now, f"{wire:02X}")]
        if self.error in ("ok", "no_reject_tray"):
            word = "ok" if self.error == "ok" else "missing"
            out.append(Reading("reject.tray", word, now, f"error {wire:02X}", inferred=word == "ok"))
        return out

    def _state(self, now: float) -> Reading:
        unwell = self.error != "ok" or any(c.near_end or not c.there for c in self._cassettes)
        word = "attention" if unwell else "ok"
        if self._blocked or self.error in STOPPING or not any(c.there and not c.empty for c in self._cassettes):
            word = "stop"
        return Reading("dispenser.state", word, now, self.error)


def error_word(wire: int) -> str:
    return ERRORS.get(wire - 0x20) or f"vendor.{wire - 0x20 & 0xFF:02X}"


def quantities(command: bytes) -> tuple[int, ...]:
    """The notes that the frame of a motion command asks from each position."""
    return tuple(max(0, byte - 0x20) for byte in command[4:8]) if command[3] != PURGE else (0, 0, 0, 0)


def measure_for(unit: int, merged: bool) -> Measure:
    """See framing.Measure. `merged`: host frames are on the line too, so 04 may be one's beginning, not EOT."""

    def measure(data: bytes) -> int:
        first = data[0]
        if first in b"\x06\x15" or (first == HOST and not merged):
            return 1
        if first not in (HOST, DEVICE) or not bytes((first, unit, 0x02)).startswith(data[:3]):
            return 1 if first == HOST else BAD
        if len(data) < 4:
            return MORE
        sizes = REQUEST_SIZE if first == HOST else RESPONSE_SIZE
        if data[3] not in sizes:
            return BAD
        size = 6 + sizes[data[3]]
        if len(data) < size:
            return MORE
        return size if data[size - 2] == 0x03 and xor_of(data[: size - 1]) == data[size - 1] else BAD

    return measure
