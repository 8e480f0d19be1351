"""This file knows the closed vocabulary of point names: what each means, its words, unit and max_age.

Words are XFS4IoT's wherever it has one (Common.Status, Storage.GetStorage). A `*` in a pattern stands for
one name segment, usually a position number. docs/points.md is generated from this list.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Kind = Literal["word", "text", "count", "tally", "measure"]


@dataclass(frozen=True, slots=True)
class Point:
    """One entry of the vocabulary.

    kind      word: one of `words`, or `vendor.<code>` for what a vendor says and we do not know;
              text: free text (a serial number); count: a number that the device keeps and that steps;
              tally: each reading is an increment, the core adds it up; measure: a wandering number
    max_age   seconds after which an unrepeated value is unknown
    deadband  a measure changes only when it moves by more than this
    urgent    a change is published at once, not with the next batch (faults, doors, cash)
    """

    pattern: str
    kind: Kind
    text: str
    words: tuple[str, ...] = ()
    unit: str = ""
    max_age: float = 15.0
    deadband: float = 0.0
    urgent: bool = False

    @property
    def ledgered(self) -> bool:
        """Whether a change becomes a ledger row. Wandering measures live in the retained state only."""
        return self.kind != "measure"


def _word(pattern: str, words: str, text: str, *, urgent: bool = True) -> Point:
    return Point(pattern, "word", text, words=tuple(words.split()), urgent=urgent)


def _measure(pattern: str, unit: str, deadband: float, text: str, max_age: float = 15.0) -> Point:
    return Point(pattern, "measure", text, unit=unit, deadband=deadband, max_age=max_age)


def _identity(pattern: str, text: str) -> Point:
    return Point(pattern, "text", text, max_age=300.0)


POINTS: tuple[Point, ...] = (
    _word(
        "link.state",
        "up silent rubbish missing busy denied unusable",
        "whether the device answers; rubbish: it says something, but nothing that this kind says; the others:"
        " why its port cannot be opened",
    ),
    _measure("link.bad_frames", "frames", 9.0, "unreadable frames since the line was opened", 60.0),
    _identity("device.maker", "maker, as the device says it"),
    _identity("device.model", "model, as the device says it"),
    _identity("device.serial", "serial number; another one means another device"),
    _identity("device.firmware", "firmware version"),
    # UPS
    _word("mains", "ok lost", "utility power at the UPS input"),
    _word("battery", "ok low", "UPS battery charge"),
    _word("ups.state", "ok failed", "UPS self-diagnosis"),
    _word("ups.bypass", "off active", "bypass, boost or buck", urgent=False),
    _word("ups.selftest", "none running passed failed", "battery test; passed is inferred from the test bit"),
    _word("ups.shutdown", "inactive active", "UPS shutdown in progress"),
    _word("ups.beeper", "on off", "UPS beeper", urgent=False),
    _measure("input.voltage", "V", 3.0, "mains voltage"),
    _measure("input.frequency", "Hz", 0.5, "mains frequency"),
    _measure("output.voltage", "V", 3.0, "UPS output voltage"),
    _measure("output.load", "%", 5.0, "UPS load"),
    _measure("battery.voltage", "V", 0.2, "battery voltage, of the pack or of a cell as the UPS reports it"),
    _measure("temperature", "°C", 1.0, "temperature inside the device"),
    _measure("rating.voltage", "V", 0.0, "nominal voltage", 300.0),
    _measure("rating.current", "A", 0.0, "nominal current", 300.0),
    _measure("rating.battery_voltage", "V", 0.0, "nominal battery voltage", 300.0),
    _measure("rating.frequency", "Hz", 0.0, "nominal frequency", 300.0),
    # printers
    _word("printer.state", "online offline", "whether the printer accepts data"),
    _word("paper.*", "full low out jammed", "paper supply: receipt or journal"),
    _word("printer.cover", "closed open", "printer cover"),
    _word(
        "printer.error",
        "ok mechanical cutter unrecoverable head_hot",
        "printer error; head_hot recovers by itself",
    ),
    _word("printer.feed_button", "released pressed", "paper feed button", urgent=False),
    _word("drawer_signal", "low high", "drawer kick-out connector pin 3", urgent=False),
    # cash dispenser
    _word("dispenser.state", "ok attention stop", "whether notes can be paid out"),
    _word(
        "dispenser.error",
        "ok pick_up jam_check_divert jam_divert_eject jam_eject_exit note_in_exit suspect_ejected"
        " count_mismatch reject_passed_eject note_too_long_eject note_too_long_exit notes_in_path"
        " too_many_notes too_many_rejects purge_failed sensor solenoid motor cassette_absent"
        " near_end_refused no_reject_tray overpaid bad_command bad_parameter memory foreign_note",
        "the dispenser's last error",
    ),
    _word("dispenser.path", "clear blocked", "note path sensors"),
    _word("reject.tray", "ok missing", "reject tray; missing is known only from error 26"),
    Point(
        "reject.events",
        "tally",
        "notes sent to the reject tray, as reject events",
        unit="events",
        urgent=True,
    ),
    _word("cassette.*.state", "ok low empty missing", "cassette; empty is inferred"),
    Point("cassette.*.type", "text", "cassette type code, as coded on the cassette"),
    Point(
        "cassette.*.dispensed",
        "tally",
        "notes that left through the exit, as seen",
        unit="notes",
        urgent=True,
    ),
    Point("cassette.*.rejected", "tally", "reject events, as seen", unit="events", urgent=True),
)


def matches(pattern: str, name: str) -> bool:
    """Whether `name` is an instance of `pattern`; a `*` stands for exactly one segment."""
    wanted, given = pattern.split("."), name.split(".")
    return len(wanted) == len(given) and all(w in ("*", g) for w, g in zip(wanted, given, strict=True))


@lru_cache(maxsize=4096)
def lookup(name: str) -> Point:
    """The vocabulary's entry for a point name.

    Raises KeyError for a name that is not in the vocabulary: a driver's bug, not a device's.
    """
    for point in POINTS:
        if matches(point.pattern, name):
            return point
    raise KeyError(f"{name!r} is not in the vocabulary of points")


def exists(name: str) -> bool:
    """Whether the vocabulary knows a point; a store may hold names of an older version."""
    return any(matches(point.pattern, name) for point in POINTS)
