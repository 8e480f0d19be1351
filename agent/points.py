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


def _count(pattern: str, unit: str, text: str) -> Point:
    return Point(pattern, "count", text, unit=unit)


def _tally(pattern: str, unit: str, text: str) -> Point:
    return Point(pattern, "tally", text, unit=unit, urgent=True)


def _identity(pattern: str, text: str) -> Point:
    return Point(pattern, "text", text, max_age=300.0)


DOOR = "closed open locked bolted tampered"
UNIT = "ok full high low empty missing inoperative notConfigured manipulated"
SWITCH = "off on"
CASH = ("cassette.", "reject.", "acceptor.", "cashbox.", "retain.")
"""Beginnings of the points that tell of the cash; a ceremony writes down their values, as a digest, at first."""

POINTS: tuple[Point, ...] = (
    _word(
        "link.state",
        "up silent rubbish stale missing busy denied unusable",
        "whether the device answers; rubbish: it says something, but nothing that this kind says; stale: who"
        " answers for it has lost it; the others: why its port cannot be opened",
    ),
    _measure("link.bad_frames", "frames", 9.0, "unreadable frames since the line was opened", 60.0),
    _identity("device.maker", "maker, as the device says it"),
    _identity("device.model", "model, as the device says it"),
    _identity("device.serial", "serial number; another one means another device"),
    _identity(
        "device.unit_serial", "serial number that the maker burnt in, where device.serial can be loaded again"
    ),
    _identity("device.firmware", "firmware version"),
    _word(
        "device.state",
        "online offline powerOff noDevice hardwareError userError deviceBusy fraudAttempt potentialFraud starting",
        "the device, as its service says (XFS4IoT common.device)",
    ),
    _word("device.antifraud", "ok inoperable deviceDetected", "anti-fraud module: skimmer or fishing device"),
    _word("device.position", "inPosition notInPosition", "whether the device is pushed in", urgent=False),
    _word("device.error", "none hardware software user fraudAttempt", "last Common.ErrorEvent, until cleared"),
    _word("exchange", "inactive active", "whether somebody is exchanging cash units"),
    # UPS and power
    _word("mains", "ok lost", "utility power at the input"),
    _word("battery", "ok low replace", "UPS battery"),
    _word("ups.state", "ok failed overload off", "UPS self-diagnosis"),
    _word("ups.bypass", "off active", "bypass, boost or buck", urgent=False),
    _word("ups.selftest", "none running passed failed", "battery test; passed is inferred from the test bit"),
    _word("ups.shutdown", "inactive active", "UPS shutdown in progress"),
    _word("ups.beeper", "on off", "UPS beeper", urgent=False),
    _measure("input.voltage", "V", 3.0, "mains voltage"),
    _measure("input.frequency", "Hz", 0.5, "mains frequency"),
    _measure("output.voltage", "V", 3.0, "UPS output voltage"),
    _measure("output.load", "%", 5.0, "UPS load"),
    _measure("battery.voltage", "V", 0.2, "battery voltage, of the pack or of a cell as the UPS reports it"),
    _measure("battery.charge", "%", 2.0, "battery charge"),
    _measure("battery.runtime", "s", 60.0, "time left on battery"),
    _measure("temperature", "°C", 1.0, "temperature inside the device"),
    _measure("rating.voltage", "V", 0.0, "nominal voltage", 300.0),
    _measure("rating.current", "A", 0.0, "nominal current", 300.0),
    _measure("rating.battery_voltage", "V", 0.0, "nominal battery voltage", 300.0),
    _measure("rating.frequency", "Hz", 0.0, "nominal frequency", 300.0),
    _word("power.in", "powering noPower", "power at the device's input"),
    _word("power.out", "powering noPower", "power at the device's output"),
    _word("power.battery", "full low operational critical failure", "the device's own battery"),
    _word("power.charging", "charging discharging notCharging", "charging of that battery", urgent=False),
    # printers
    _word("printer.state", "online offline", "whether the printer accepts data"),
    _word("paper.*", "full low out jammed", "paper supply: receipt, journal, or as XFS4IoT names it"),
    _word("printer.cover", "closed open", "printer cover"),
    _word(
        "printer.error",
        "ok mechanical cutter unrecoverable head_hot",
        "printer error; head_hot recovers by itself",
    ),
    _word("printer.feed_button", "released pressed", "paper feed button", urgent=False),
    _word("drawer_signal", "low high", "drawer kick-out connector pin 3", urgent=False),
    _word(
        "printer.media",
        "present notPresent jammed entering retracted",
        "paper or card in the printer",
        urgent=False,
    ),
    _word("printer.toner", "full low out", "toner"),
    _word("printer.ink", "full low out", "ink"),
    _word("printer.lamp", "ok fading inop", "imaging lamp"),
    # cash: what pays out
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
    _word(
        "dispenser.stacker",
        "empty notEmpty notEmptyCustomer notEmptyUnknown",
        "intermediate stacker of what pays out",
        urgent=False,
    ),
    _word("reject.tray", "ok missing", "reject tray; missing is known only from error 26"),
    _tally("reject.events", "events", "notes sent to the reject tray, as reject events"),
    # cash: what takes in
    _word("acceptor.state", "ok attention stop", "whether notes can be taken in"),
    _word("acceptor.enabled", "yes no", "whether notes are being accepted now", urgent=False),
    _word("acceptor.jam", "none safe unsafe", "a note is stuck; unsafe: where a customer can reach it"),
    _word("acceptor.path", "closed open", "note path, as opened by a person"),
    _word("acceptor.reader", "ok inoperable", "banknote reader"),
    _word("acceptor.stacker", "empty notEmpty full", "intermediate stacker of what takes in", urgent=False),
    _word("acceptor.fraud", "none attempt", "an attempt to pull a note back, or the like; shown for a while"),
    _word(
        "acceptor.last_reject",
        "none accepted length validation channel_inhibited second_note host cross_channel rear_sensor too_long"
        " disabled_by_host slow_mechanism strimming no_note escrow_timeout barcode no_cam slot oversample width"
        " short payout_note double unable_to_stack credit_card",
        "why the last note was given back",
        urgent=False,
    ),
    _word("cashbox.state", "ok full missing", "where accepted notes end; full is latched until it is emptied"),
    _tally("acceptor.channel.*.accepted", "notes", "notes credited, by channel, as seen"),
    _tally("acceptor.rejected", "notes", "notes given back, as seen"),
    _tally("acceptor.frauds", "events", "fraud attempts, as seen"),
    _count(
        "acceptor.counter.*", "notes", "the acceptor's own counter: stacked, stored, dispensed, moved, rejected"
    ),
    _identity("acceptor.channel.*.note", "what a channel takes: value and currency"),
    # cash units: by position, or by the name that XFS4IoT's service gives
    _word("cassette.*.state", UNIT, "cash unit; of a plain dispenser, empty is inferred"),
    Point("cassette.*.type", "text", "cassette type code, as coded on the cassette; or what the unit is for"),
    _tally("cassette.*.dispensed", "notes", "notes that left through the exit, as seen"),
    _tally("cassette.*.rejected", "events", "reject events, as seen"),
    _count("cassette.*.count", "notes", "notes in the unit: initial + in - out"),
    _count("cassette.*.initial", "notes", "notes in the unit when it was last filled"),
    _count("cassette.*.presented", "notes", "notes presented out of the unit since it was filled"),
    _count("cassette.*.retracted", "notes", "notes taken back into the unit"),
    _count("cassette.*.capacity", "notes", "room of the unit"),
    Point("cassette.*.note", "text", "value and currency of the unit's notes"),
    Point("cassette.*.serial", "text", "serial number of the unit"),
    _word(
        "cassette.*.accuracy", "accurate accurateSet inaccurate", "how far its counts can be trusted", urgent=False
    ),
    _word("cassette.*.lock", "none in out both", "whether the application has locked the unit"),
    _word(
        "cassette.*.neutralization", "armed disarmed fault neutralizationTriggered", "ink protection of the unit"
    ),
    _word(
        "position.*.shutter",
        "closed open jammedOpen jammedPartiallyOpen jammedClosed jammedUnknown jammed",
        "shutter where customers take or give",
        urgent=False,
    ),
    _word("position.*.items", "empty notEmpty foreignItems", "whether anything lies there", urgent=False),
    _word("position.*.transport", "ok inoperative", "transport to that position"),
    _word(
        "position.*.transport_items", "empty notEmpty notEmptyCustomer", "what lies in that transport", urgent=False
    ),
    # card reader
    _word("card.media", "present notPresent jammed entering latched", "a card in the reader", urgent=False),
    _word("card.stacker", "ok low empty", "cards to be issued"),
    _word(
        "reader.error",
        "ok undefined_command parameter sequence not_supported data contact_not_released jam sensor too_long"
        " too_short cannot_recycle magnet cannot_reach_contact moved_by_hand counter_overflow motor chip_short"
        " chip_activation chip_not_supported chip_not_activated chip_transmission chip_timeout not_emv"
        " stacker_empty bin_full not_reset",
        "the reader's last error",
    ),
    _word("reader.entry", "enabled disabled", "whether the reader takes cards", urgent=False),
    _word("reader.security", "notReady open", "security module of the reader"),
    _word(
        "reader.chip_power", "online busy poweredOff noDevice hardwareError noCard", "chip contacts", urgent=False
    ),
    _word("reader.chip", "ok inoperable", "chip module"),
    _word("reader.magnetic_writer", "ok inoperable", "magnetic stripe writer"),
    _word("retain.state", UNIT, "bin of retained cards"),
    _count("retain.count", "cards", "cards in the retain bin, as the reader counts them"),
    _count("retain.capacity", "cards", "room of the retain bin"),
    # EPP and PIN pad: states, names and check values; never a key, a PIN or a digit
    _word("epp.state", "ready notReady notInitialized busy undefined initialized", "encryptor (KeyManagement)"),
    _word("epp.certificate", "primary secondary notReady", "certificate state"),
    _word("epp.tamper", "ok tampered", "whether the pad has erased its keys because somebody opened it"),
    _word("epp.battery", "ok low", "battery that keeps the keys"),
    _word("epp.input", SWITCH, "whether the keypad takes input", urgent=False),
    _word(
        "epp.error",
        "ok low_battery imk_required tmk_required key_size key_not_found incompatible parity not_valid length data"
        " parameter authorisation locked timeout general no_master_key account pin_long pin_short key_attributes",
        "the pad's last error",
    ),
    _word("epp.selftest", "none running passed failed", "self-test of the pad"),
    # A pad answers questions about its keys between other commands: a PIN that is being typed holds them up.
    Point(
        "key.*.state",
        "word",
        "key slot; construct: only some of its parts are in",
        words=("loaded", "missing", "construct"),
        max_age=120.0,
        urgent=True,
    ),
    Point("key.*.kcv", "text", "check value of a key, 3 bytes in hex", max_age=300.0),
    Point("key.*.usage", "text", "what a key may be used for (X9.143 code)", max_age=300.0),
    _word(
        "keys.service",
        "ok ceremony stopped unknown",
        "whether the keys let the terminal serve customers: stopped when the slots are not as the ledger says",
    ),
    _word("keys.duty", "ok due overdue", "a key, or a duty of 2 or 5 days, that is due or over its time"),
    _word(
        "keys.sealing",
        "tpm2 credential file none",
        "who keeps the agent's own secrets: the TPM, systemd, a sealed file, or nobody, because they do not open",
    ),
    _tally("epp.illegal_access", "events", "uses of a key against its purpose, as seen"),
    # doors, alarms, surroundings: never debounced
    _word("safe_door", DOOR, "safe door"),
    _word("cabinet_door", DOOR, "cabinet door"),
    _word("cabinet_door.*", DOOR, "cabinet door: front, rear, left, right"),
    _word("vandal_shield", "closed open locked service keyboard partiallyOpen jammed tampered", "vandal shield"),
    _word("tamper", SWITCH, "tamper contact"),
    _word("tamper.internal", SWITCH, "tamper contact inside"),
    _word("seismic", SWITCH, "vibration or seismic sensor"),
    _word("heat", SWITCH, "heat sensor"),
    _word("smoke", SWITCH, "smoke sensor"),
    _word("tilt", SWITCH, "tilt sensor"),
    _word("earth_fault", SWITCH, "earth fault"),
    _word("video", "ok lost", "video signal of the camera"),
    _word("armed", "armed disarmed", "alarm panel"),
    _word("siren", SWITCH, "siren, or audible alarm"),
    _word("operator_switch", "run maintenance supervisor", "operator switch"),
    _word("operator_call", SWITCH, "operator call button"),
    _word("boot_switch", SWITCH, "boot switch"),
    _word("proximity", "present notPresent", "somebody stands in front", urgent=False),
    _word("open_closed", "closed open", "open/closed indicator", urgent=False),
    _word("input.*", SWITCH, "another input of the panel, by its name in the configuration"),
    _measure("ambient.temperature", "°C", 1.0, "temperature around the terminal"),
    _measure("ambient.humidity", "%", 3.0, "relative humidity around the terminal"),
    _word("ibns.mode", "fault armed disarmed neutralizationTriggered", "banknote neutralization system"),
    _word(
        "ibns.gas", "notDetected partialWarningLevel warningLevel partialCriticalLevel criticalLevel fault", "gas"
    ),
    _word("vendor_mode.service", "inactive enterPending active exitPending", "a vendor's technician is at work"),
    _word("vendor_mode.device", "online offline", "vendor mode", urgent=False),
)

_GUARDED = (
    "safe_door cabinet_door cabinet_door.* vandal_shield tamper tamper.internal seismic heat smoke tilt video armed"
    " siren acceptor.path acceptor.fraud device.antifraud epp.tamper ibns.mode ibns.gas cassette.*.neutralization"
)
GUARDED = frozenset(_GUARDED.split())
"""Doors, alarms and traces of fraud: never debounced, and every change is a ledger row, however fast they come."""


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
