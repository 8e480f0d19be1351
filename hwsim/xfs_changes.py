"""This file knows what a simulated XFS4IoT service tells unasked when its state has changed.

Written from the events of Common, Storage and Auxiliaries (sources: hwsim/xfs4iot.py; traps: xfs_traps). A view is
what Common.Status and Storage.GetStorage would answer; two views give the events between them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from hwsim import xfs_v1
from hwsim.xfs_units import Json

THRESHOLDS = ("full", "low", "out")
VENDOR_MODE = {
    "enterPending": "EnterModeRequestEvent",
    "active": "ModeEnteredEvent",
    "exitPending": "ExitModeRequestEvent",
    "inactive": "ModeExitedEvent",
}


class View(NamedTuple):
    """The status and the storage units of one service, in the generation's own form."""

    status: Json
    storage: Json


class Event(NamedTuple):
    """`auxiliary` is what a V1 connection must have registered for to hear of it."""

    name: str
    payload: Json
    auxiliary: str = ""


@dataclass(frozen=True)
class Manners:
    """How talkative a service is. `whole`: a changed unit or interface is told in full, not only its changed
    members; `counts`: also changed counts and crossed thresholds are told; `cards`: also a retained card is."""

    v1: bool
    whole: bool
    counts: bool
    cards: bool


def events(before: View, after: View, manners: Manners) -> Iterator[Event]:
    """What a service tells about the way from one view to the next."""
    changed = differences(before.status, after.status)
    if manners.v1:
        yield from _status_v1(changed, after)
    elif changed:
        told = {name: after.status[name] for name in changed} if manners.whole else changed
        yield Event("Common.StatusChangedEvent", told)
    units = {name: differences(before.storage[name], unit) for name, unit in after.storage.items()}
    yield from _typed(changed, before, retained=any("card" in unit for unit in units.values()))
    for name, unit in units.items():
        if unit:
            yield from _unit(name, unit, after.storage[name], manners)


def differences(before: Json, after: Json) -> Json:
    """The members of `after` that differ, in depth; None for those that are gone. A UPS is always told in full."""
    found: Json = {}
    for key in [*after, *(key for key in before if key not in after)]:
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict) and key != "UPS":
            found[key] = differences(old, new)
        elif key == "positions" and isinstance(old, list) and isinstance(new, list):
            found[key] = _positions(old, new)
        else:
            found[key] = new
    return found


def _positions(before: list[Json], after: list[Json]) -> list[Json]:
    pairs = zip(before, after, strict=True)
    return [{"position": new["position"], **differences(old, new)} for old, new in pairs if old != new]


def _status_v1(changed: Json, after: View) -> Iterator[Event]:
    if common := changed.get("common"):
        yield Event("Common.StatusChangedEvent", common)
    for name in changed.get("auxiliaries", {}):
        state = {xfs_v1.auxiliary(name): after.status["auxiliaries"][name]}
        yield Event("Auxiliaries.AuxiliaryStatusEvent", state, auxiliary=name)
    match changed.get("cashManagement", {}).get("safeDoor"):
        case "doorOpen":
            yield Event("CashManagement.SafeDoorOpenEvent", {})
        case "doorClosed":
            yield Event("CashManagement.SafeDoorClosedEvent", {})


def _typed(changed: Json, before: View, *, retained: bool) -> Iterator[Event]:
    """Events of one interface that both generations have."""
    for source, state in changed.get("printer", {}).get("paper", {}).items():
        if state in THRESHOLDS:
            yield Event("Printer.PaperThresholdEvent", {"paperSource": source, "threshold": state})
    toner = changed.get("printer", {}).get("toner")
    if toner in THRESHOLDS:
        yield Event("Printer.TonerThresholdEvent", {"state": toner})
    media = changed.get("cardReader", {}).get("media")
    if media == "notPresent" and before.status["cardReader"]["media"] == "present" and not retained:
        yield Event("CardReader.MediaRemovedEvent", {})
    for position in _moved(changed):
        shutter = "jammed" if position["shutter"].startswith("jammed") else position["shutter"]
        told = {"position": position["position"], "shutter": shutter}
        yield Event("CashManagement.ShutterStatusChangedEvent", told)
    keys = changed.get("keyManagement", {})
    if keys.get("encryptionState") == "initialized":
        yield Event("KeyManagement.InitializedEvent", {})
    if keys.get("certificateState") == "secondary":
        yield Event("KeyManagement.CertificateChangeEvent", {"certificateChange": "secondary"})
    if mode := changed.get("vendorMode", {}).get("service"):
        told = {"connectedApplications": []} if mode == "inactive" else {}
        yield Event(f"VendorMode.{VENDOR_MODE[mode]}", told)


def _moved(changed: Json) -> Iterator[Json]:
    for interface in ("cashDispenser", "cashAcceptor"):
        for position in changed.get(interface, {}).get("positions", ()):
            if "shutter" in position:
                yield position


def _unit(name: str, changed: Json, unit: Json, manners: Manners) -> Iterator[Event]:
    """Storage events of one unit: its counts, its thresholds, everything else (in that order)."""
    kind = "cash" if "cash" in unit else "card"
    states: Json = changed.get(kind, {}).get("status", {})
    level = {key: state for key, state in states.items() if key == "replenishmentStatus"}
    counts = {key: state for key, state in states.items() if key not in level}
    told = manners.counts if kind == "cash" else manners.cards
    # Only cash counts, and only since V2, have an event of their own.
    apart = kind == "cash" and not manners.v1
    if counts and told and apart:
        yield Event("Storage.CountsChangedEvent", _told(name, unit, {kind: {"status": counts}}, manners))
    if any(level.values()) and told:
        yield Event("Storage.StorageThresholdEvent", _told(name, unit, {kind: {"status": level}}, manners))
    kept = (counts if told and not apart else {}) | level
    inner = {key: value for key, value in (changed.get(kind, {}) | {"status": kept}).items() if value}
    rest = {key: value for key, value in (changed | {kind: inner}).items() if value != {}}
    if rest:
        yield Event("Storage.StorageChangedEvent", _told(name, unit, rest, manners))


def _told(name: str, unit: Json, changed: Json, manners: Manners) -> Json:
    return {name: unit if manners.v1 or manners.whole else changed}
