"""This file knows the machine behind a simulated XFS4IoT host: its state, and what people do to it.

State words are the values of the standard's Common.Status (sources: hwsim/xfs4iot.py); a property whose word is
"none" does not exist on this machine. What no property can tell (notes taken, a key misused) stands in `happened`
until the host has told it.
"""

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

from hwsim.contract import Allowed
from hwsim.xfs_units import UNIT_STATUS, CardBin, CashUnit, Json, read_move

CARD_READER, DISPENSER, ACCEPTOR = "SimCardReader", "SimCashDispenser", "SimCashAcceptor"
ENCRYPTOR, PRINTER, AUXILIARIES, VENDOR_MODE = "SimEncryptor", "SimPrinter", "SimAuxiliaries", "SimVendorMode"

DEVICE = (
    *("online", "offline", "powerOff", "noDevice", "hardwareError", "userError", "deviceBusy"),
    *("fraudAttempt", "potentialFraud", "starting"),
)
POSITION = ("inPosition", "notInPosition", "unknown")
CASH_STATE = ("ok", "attention", "stop", "unknown")
SHUTTER = ("closed", "open", "jammedOpen", "jammedPartiallyOpen", "jammedClosed", "jammedUnknown", "unknown")
PAPER = ("full", "low", "out", "jammed", "unknown")
LOADED = ("yes", "no", "unknown", "construct")
DOOR = ("closed", "open", "locked", "bolted", "tampered")
SENSOR = ("off", "on")
ACTIONS = ("reset", "softwareError", "configuration", "clear", "maintenance", "suspend")
MISUSES = ("keyNotFound", "keyNoValue", "useViolation", "algorithmNotSupported", "dukptOverflow")
CASSETTES = ("unit1", "unit2", "unit3", "unit4")
CASH_IN, REJECT, BIN = "unit5", "unit6", "unitBIN1"
UNITS = {DISPENSER: (*CASSETTES, REJECT), ACCEPTOR: (CASH_IN,), CARD_READER: (BIN,)}

DEVICE_OF = {
    CARD_READER: "card_reader_device",
    DISPENSER: "dispenser_device",
    ACCEPTOR: "acceptor_device",
    ENCRYPTOR: "encryptor_device",
    PRINTER: "printer_device",
    AUXILIARIES: "auxiliaries_device",
    VENDOR_MODE: "vendor_mode_device",
}
KEYS = {"key_tmk": ("TMK", "K0", "D"), "key_tpk": ("TPK", "P0", "E"), "key_tak": ("TAK", "M0", "C")}
EXTRA_KEY = ("EXTRA", "D0", "E")
UNIT_SETTINGS: dict[str, tuple[str, str, Allowed]] = {
    **{f"{unit}_{field}": (unit, field, int) for unit in CASSETTES for field in ("count", "initial", "low")},
    **{f"{CASH_IN}_{field}": (CASH_IN, field, int) for field in ("count", "initial", "high")},
    **{f"{unit}_status": (unit, "status", UNIT_STATUS) for unit in (*CASSETTES, CASH_IN)},
    "reject_count": (REJECT, "count", int),
    "reject_status": (REJECT, "status", UNIT_STATUS),
    "retain_count": (BIN, "count", int),
    "retain_bin": (BIN, "status", UNIT_STATUS),
}
"""Settings that are a field of a storage unit: setting -> unit, field, what it can be."""


class Happening(NamedTuple):
    """An event that no property tells, in its V2 form."""

    service: str
    name: str
    payload: Json


class Machine:
    """State of one terminal. `retain`, `dispense`, `deposit`, `error_event` and `illegal_key_access` are acts:
    setting them does something, and they show what was set last."""

    SETTINGS: ClassVar[Mapping[str, Allowed]] = {
        **dict.fromkeys(DEVICE_OF.values(), DEVICE),
        "card_reader_position": POSITION,
        "anti_fraud": ("ok", "inoperable", "deviceDetected", "unknown", "none"),
        "card_media": ("notPresent", "present", "jammed", "entering", "latched", "unknown"),
        "retain": int,
        "dispenser_state": CASH_STATE,
        "stacker": ("empty", "notEmpty", "notEmptyCustomer", "notEmptyUnknown", "unknown"),
        "shutter": SHUTTER,
        "transport": ("ok", "inoperative", "unknown"),
        "exchange": ("inactive", "active"),
        "dispense": str,
        **{name: allowed for name, (_, _, allowed) in UNIT_SETTINGS.items()},
        "rejects": int,
        "take_seconds": float,
        "acceptor_state": CASH_STATE,
        "acceptor_stacker": ("empty", "notEmpty", "full", "unknown"),
        "acceptor_shutter": SHUTTER,
        "note_reader": ("ok", "inoperable", "unknown"),
        "deposit": str,
        "printer_media": ("notPresent", "present", "jammed", "entering", "retracted", "unknown"),
        "paper_upper": PAPER,
        "paper_lower": (*PAPER, "none"),
        "toner": ("full", "low", "out", "unknown", "none"),
        "encryption_state": ("ready", "notReady", "notInitialized", "busy", "undefined", "initialized"),
        "certificate_state": ("unknown", "primary", "secondary", "notReady"),
        **dict.fromkeys(KEYS, LOADED),
        "extra_key": ("absent", *LOADED),
        "illegal_key_access": MISUSES,
        "safe_door": DOOR,
        "cabinet_door": DOOR,
        "tamper": SENSOR,
        "seismic": SENSOR,
        "operator_switch": ("run", "maintenance", "supervisor"),
        "ups_low": SENSOR,
        "ups_engaged": SENSOR,
        "ups_powering": SENSOR,
        "ups_recovered": SENSOR,
        "vendor_mode": ("inactive", "enterPending", "active", "exitPending"),
        "error_service": tuple(DEVICE_OF),
        "error_kind": ("hardware", "software", "user", "fraudAttempt"),
        "error_action": (*ACTIONS, "none"),
        "error_event": str,
    }

    def __init__(self) -> None:
        self.happened: list[Happening] = []
        self.units = {
            name: CashUnit(i, "cashOut", value, capacity=2500, initial=2000, low=200, high=0)
            for i, (name, value) in enumerate(zip(CASSETTES, (100, 100, 50, 10), strict=True), 1)
        }
        self.units[CASH_IN] = CashUnit(5, "cashIn", 0, capacity=2000, initial=0, low=0, high=1800)
        self.units[REJECT] = CashUnit(6, "reject", 0, capacity=300, initial=0, low=0, high=250)
        self.bin = CardBin(capacity=50, threshold=40)
        for setting in DEVICE_OF.values():
            setattr(self, setting, "online")
        self.card_reader_position, self.anti_fraud, self.card_media = "inPosition", "ok", "notPresent"
        self.dispenser_state, self.stacker, self.shutter, self.transport = "ok", "empty", "closed", "ok"
        self.exchange, self.rejects, self.take_seconds = "inactive", 0, 2.0
        self.acceptor_state, self.acceptor_stacker = "ok", "empty"
        self.acceptor_shutter, self.note_reader = "closed", "ok"
        self.printer_media, self.paper_upper, self.paper_lower, self.toner = "notPresent", "full", "none", "none"
        self.encryption_state, self.certificate_state = "ready", "primary"
        self.key_tmk = self.key_tpk = self.key_tak = "yes"
        self.extra_key = "absent"
        self.safe_door, self.cabinet_door = "closed", "closed"
        self.tamper, self.seismic, self.operator_switch = "off", "off", "run"
        self.ups_low, self.ups_engaged, self.ups_powering, self.ups_recovered = "off", "off", "off", "off"
        self.vendor_mode = "inactive"
        self.error_service, self.error_kind, self.error_action = DISPENSER, "hardware", "clear"
        self.notes_out = "empty"
        self._said: dict[str, str] = {}
        self._retained = 0
        self._take_at: float | None = None
        self._now = 0.0

    @property
    def retain(self) -> int:
        """The application moves so many cards into the bin."""
        return self._retained

    @retain.setter
    def retain(self, cards: int) -> None:
        self._retained = cards
        if moved := max(0, min(cards, self.bin.capacity - self.bin.count)):
            self.bin.count += moved
            self.card_media = "notPresent"

    @property
    def dispense(self) -> str:
        """ "unit1:5": the application pays out; the customer takes the notes after `take_seconds`.

        `rejects` notes more go into the reject bin each time. Raises ValueError with a sentence.
        """
        return self._said.get("dispense", "")

    @dispense.setter
    def dispense(self, text: str) -> None:
        unit, notes = read_move(text, CASSETTES, "dispense")
        self._said["dispense"] = text
        presented, rejected = self.units[unit].give(notes, self.rejects)
        self.units[REJECT].put(rejected)
        if not presented:
            return
        self.notes_out = "notEmpty"
        self.shutter = "open" if self.shutter == "closed" else self.shutter
        self._happens(DISPENSER, "CashManagement.ItemsPresentedEvent", position="outCenter", additionalBunches="0")
        self._take_at = self._now + self.take_seconds

    @property
    def deposit(self) -> str:
        """ "unit5:3": a customer pays in. Raises ValueError with a sentence."""
        return self._said.get("deposit", "")

    @deposit.setter
    def deposit(self, text: str) -> None:
        unit, notes = read_move(text, (CASH_IN,), "deposit")
        self._said["deposit"] = text
        if self.units[unit].put(notes):
            self._happens(ACCEPTOR, "CashManagement.ItemsInsertedEvent", position="inCenter")

    @property
    def error_event(self) -> str:
        """A Common.ErrorEvent of `error_service` with this text, `error_kind` and `error_action`."""
        return self._said.get("error_event", "")

    @error_event.setter
    def error_event(self, text: str) -> None:
        self._said["error_event"] = text
        action = {} if self.error_action == "none" else {"action": self.error_action}
        self._happens(
            self.error_service, "Common.ErrorEvent", eventId=self.error_kind, **action, vendorDescription=text
        )

    @property
    def illegal_key_access(self) -> str:
        """Somebody uses the extra key in a way that it is not for."""
        return self._said.get("illegal_key_access", "")

    @illegal_key_access.setter
    def illegal_key_access(self, code: str) -> None:
        self._said["illegal_key_access"] = code
        name = "KeyManagement.IllegalKeyAccessEvent"
        self._happens(ENCRYPTOR, name, keyName=EXTRA_KEY[0], errorCode=code)

    def passes(self, now: float) -> None:
        """Time passes: the customer takes the notes."""
        self._now = now
        if self._take_at is not None and now >= self._take_at:
            self._take_at, self.notes_out = None, "empty"
            self.shutter = "closed" if self.shutter == "open" else self.shutter
            self._happens(DISPENSER, "CashManagement.ItemsTakenEvent", position="outCenter")

    def _happens(self, service: str, name: str, **payload: str) -> None:
        self.happened.append(Happening(service, name, payload))


def _setting_of(unit: str, field: str) -> property:
    def holder(machine: Machine) -> CashUnit | CardBin:
        return machine.bin if unit == BIN else machine.units[unit]

    return property(
        lambda machine: getattr(holder(machine), field),
        lambda machine, value: setattr(holder(machine), field, value),
    )


for _setting, (_unit, _field, _) in UNIT_SETTINGS.items():
    setattr(Machine, _setting, _setting_of(_unit, _field))
