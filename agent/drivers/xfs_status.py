"""This file knows what an XFS4IoT status means: the tree of Common.Status, and the events that carry a part of it.

Source: XFS4IoT release 2024-3, Common.Status (each interface's status properties and their values), with the words
and names of release 2021-1 beside them; the events of Common, Auxiliaries, CashManagement, Printer, KeyManagement
and VendorMode. Null, missing, notSupported and notAvailable say that the device has no such thing, unknown that
nobody knows: neither is a reading. In an event, what is missing is unchanged.
"""

import re
from collections.abc import Mapping
from typing import Any

from agent.drivers.xfs_messages import Leaf, Names, clean, leaves, segment
from agent.model import Reading
from agent.points import lookup

STATES = {
    "common.device": "device.state",
    "common.deviceposition": "device.position",
    "common.antifraudmodule": "device.antifraud",
    "common.exchange": "exchange",
    "cardreader.media": "card.media",
    "cardreader.security": "reader.security",
    "cardreader.chippower": "reader.chip_power",
    "cardreader.chipmodule": "reader.chip",
    "cardreader.magwritemodule": "reader.magnetic_writer",
    "cashdispenser.intermediatestacker": "dispenser.stacker",
    "cashmanagement.dispenser": "dispenser.state",
    "cashmanagement.acceptor": "acceptor.state",
    "cashmanagement.safedoor": "safe_door",
    "cashacceptor.intermediatestacker": "acceptor.stacker",
    "cashacceptor.banknotereader": "acceptor.reader",
    "printer.media": "printer.media",
    "printer.toner": "printer.toner",
    "printer.ink": "printer.ink",
    "printer.lamp": "printer.lamp",
    "keymanagement.encryptionstate": "epp.state",
    "keymanagement.certificatestate": "epp.certificate",
    "vendormode.device": "vendor_mode.device",
    "vendormode.service": "vendor_mode.service",
    "powermanagement.info.powerinstatus": "power.in",
    "powermanagement.info.poweroutstatus": "power.out",
    "powermanagement.info.batterystatus": "power.battery",
    "powermanagement.info.batterychargingstatus": "power.charging",
    "banknoteneutralization.state.mode": "ibns.mode",
    "banknoteneutralization.gas": "ibns.gas",
    "banknoteneutralization.safedoor": "safe_door",
    "banknoteneutralization.tilt": "tilt",
    "banknoteneutralization.seismic": "seismic",
    "banknoteneutralization.temperature": "heat",
    "auxiliaries.operatorswitch": "operator_switch",
    "auxiliaries.tampersensor": "tamper",
    "auxiliaries.internaltampersensor": "tamper.internal",
    "auxiliaries.seismicsensor": "seismic",
    "auxiliaries.heatsensor": "heat",
    "auxiliaries.proximitysensor": "proximity",
    "auxiliaries.bootswitchsensor": "boot_switch",
    "auxiliaries.operatorcallbuttonsensor": "operator_call",
    "auxiliaries.safedoor": "safe_door",
    "auxiliaries.cabinetdoor": "cabinet_door",
    "auxiliaries.cabinetfrontdoor": "cabinet_door.front",
    "auxiliaries.cabinetreardoor": "cabinet_door.rear",
    "auxiliaries.cabinetleftdoor": "cabinet_door.left",
    "auxiliaries.cabinetrightdoor": "cabinet_door.right",
    "auxiliaries.vandalshield": "vandal_shield",
    "auxiliaries.openclosedindicator": "open_closed",
    "auxiliaries.audiblealarm": "siren",
}

# UPS bits: `powering` says that the UPS carries the terminal now, `engaged` only that it is there to do so.
BITS = {
    "auxiliaries.ups.low": ("battery", "ok", "low"),
    "auxiliaries.ups.powering": ("mains", "ok", "lost"),
}

# Paths with a name of the service's own in them.
NAMED = (
    (re.compile(r"cash(?:dispenser|acceptor)\.positions\.([^.]+)\.shutter"), "position.*.shutter"),
    (re.compile(r"cash(?:dispenser|acceptor)\.positions\.([^.]+)\.positionstatus"), "position.*.items"),
    (re.compile(r"cash(?:dispenser|acceptor)\.positions\.([^.]+)\.transport"), "position.*.transport"),
    (re.compile(r"cash(?:dispenser|acceptor)\.positions\.([^.]+)\.transportstatus"), "position.*.transport_items"),
    (re.compile(r"printer\.paper\.([^.]+)"), "paper.*"),
    (re.compile(r"printer\.retractbins\.([^.]+)\.state"), "cassette.*.state"),
    (re.compile(r"printer\.retractbins\.([^.]+)\.count"), "cassette.*.count"),
)

# Words that mean one of ours and are spelled otherwise, by path.
DOOR = {"dooropen": "open", "dooropened": "open", "doorclosed": "closed"}
ALARM = {"notdetected": "off", "warninglevel": "on", "criticallevel": "on"}
MEANINGS = {
    "cashmanagement.safedoor": DOOR,
    "banknoteneutralization.safedoor": DOOR,
    "banknoteneutralization.tilt": {"nottilted": "off", "tilted": "on"},
    "banknoteneutralization.seismic": ALARM,
    "banknoteneutralization.temperature": {"ok": "off", "toocold": "off", "toohot": "on"},
    "auxiliaries.vandalshield": {"ajar": "partiallyOpen"},
}
SAYS_NOTHING = frozenset(
    {
        *("unknown", "notsupported", "notavailable", "doornotsupported", "doorunknown"),
        *("notconfigured", "disabled", "initializing"),  # of banknote neutralization
    }
)

SIDES = ("Default", "Left", "Right", "Center", "Top", "Bottom", "Front", "Rear")
POSITIONS = {name.lower(): name for name in (way + side for way in ("in", "out") for side in SIDES)}

# Status property -> what Auxiliaries.Register calls it (release 2021-1).
REGISTERED = {
    "operatorswitch": ("operatorSwitch",),
    "tampersensor": ("tamperSensor",),
    "internaltampersensor": ("internalTamperSensor",),
    "seismicsensor": ("seismicSensor",),
    "heatsensor": ("heatSensor",),
    "proximitysensor": ("proximitySensor",),
    "bootswitchsensor": ("bootSwitchSensor",),
    "operatorcallbuttonsensor": ("operatorCallButtonSensor",),
    "safedoor": ("safeDoor",),
    "vandalshield": ("vandalShield",),
    "cabinetfrontdoor": ("cabinetFront",),
    "cabinetreardoor": ("cabinetRear",),
    "cabinetleftdoor": ("cabinetLeft",),
    "cabinetrightdoor": ("cabinetRight",),
    "openclosedindicator": ("openCloseIndicator",),
    "audiblealarm": ("audibleAlarm",),
    "ups": ("ups", "UPS"),  # both spellings are met
}


def readings(tree: Any, names: Names, paper: Mapping[str, str], now: float) -> list[Reading]:
    """What a whole or a partial status tree says. `paper`: XFS4IoT's paper source -> our name for it."""
    found: dict[str, Reading] = {}
    for path, value in leaves(tree).items():
        reading = _bit(path, value, now) or _reading(path, value, names, paper, now)
        # Two interfaces of one service may speak of one door; the sensors' own interface knows it best.
        if reading is not None and (reading.point not in found or path.startswith("auxiliaries.")):
            found[reading.point] = reading
    return list(found.values())


def told(name: str, payload: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a status tree that an event carries; empty when it carries none. `name` in lower case."""
    match name:
        case "common.statuschangedevent":
            flat = {key: value for key, value in payload.items() if not isinstance(value, dict)}
            nested = {key: value for key, value in payload.items() if isinstance(value, dict)}
            return ({"common": flat} if flat else {}) | nested
        case "auxiliaries.auxiliarystatusevent":
            return {"auxiliaries": {key.removesuffix("State"): _inner(key, payload[key]) for key in payload}}
        case "cashmanagement.safedooropenevent":
            return {"cashManagement": {"safeDoor": "doorOpen"}}
        case "cashmanagement.safedoorclosedevent":
            return {"cashManagement": {"safeDoor": "doorClosed"}}
        case "cashmanagement.shutterstatuschangedevent":
            return {"cashDispenser": {"positions": [payload]}}
        case "printer.paperthresholdevent":
            return {"printer": {"paper": {str(payload.get("paperSource")): payload.get("threshold")}}}
        case "printer.tonerthresholdevent" | "printer.inkthresholdevent" | "printer.lampthresholdevent":
            supply = name.removeprefix("printer.").removesuffix("thresholdevent")
            return {"printer": {supply: payload.get("state")}}
        case "keymanagement.certificatechangeevent":
            return {"keyManagement": {"certificateState": payload.get("certificateChange")}}
        case "vendormode.entermoderequestevent":
            return {"vendorMode": {"service": "enterPending"}}
        case "vendormode.modeenteredevent":
            return {"vendorMode": {"service": "active"}}
        case "vendormode.exitmoderequestevent":
            return {"vendorMode": {"service": "exitPending"}}
        case "vendormode.modeexitedevent":
            return {"vendorMode": {"service": "inactive"}}
    return {}


def registration(tree: Any) -> dict[str, str]:
    """The payload of Auxiliaries.Register for the sensors that a status tree shows to be there."""
    there = {
        path.split(".")[1]
        for path, value in leaves(tree).items()
        if path.startswith("auxiliaries.") and str(value).lower() not in ("none", *SAYS_NOTHING)
    }
    return {name: "register" for sensor, names in REGISTERED.items() if sensor in there for name in names}


def word(point: str, text: str) -> str:
    """A word of a service in our spelling, or as `vendor.<word>`."""
    wanted = text.lower()
    return next((w for w in lookup(point).words if w.lower() == wanted), f"vendor.{segment(text)}")


def _inner(name: str, value: Any) -> Any:
    """Between the generations the state stood one level deeper, below its own name once more."""
    return value[name] if isinstance(value, dict) and name in value else value


def _bit(path: str, value: Leaf, now: float) -> Reading | None:
    if path not in BITS or not isinstance(value, bool):
        return None
    point, off, on = BITS[path]
    return Reading(point, on if value else off, now, raw=f"{path.rpartition('.')[2]}={str(value).lower()}")


def _reading(path: str, value: Leaf, names: Names, paper: Mapping[str, str], now: float) -> Reading | None:
    point = STATES.get(path) or _named(path, names, paper)
    if not point:
        return None
    if lookup(point).kind == "count":
        return Reading(point, value, now) if type(value) is int else None
    if not isinstance(value, str) or not value or value.lower() in SAYS_NOTHING:
        return None
    means = MEANINGS.get(path, {}).get(value.lower())
    return Reading(point, means or word(point, value), now, raw=clean(value))


def _named(path: str, names: Names, paper: Mapping[str, str]) -> str:
    for pattern, point in NAMED:
        if (found := pattern.fullmatch(path)) is not None:
            name = found[1]
            if point == "paper.*":
                name = paper.get(name, name)
            elif point.startswith("cassette"):
                name = f"retract{name}"
            given = names.of(POSITIONS.get(name, name))
            return point.replace("*", given) if given else ""
    return ""
