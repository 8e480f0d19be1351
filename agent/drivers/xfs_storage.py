"""This file knows XFS4IoT storage units: cassettes, retain bins and the like, from GetStorage and its events.

Source: XFS4IoT release 2024-3, Storage.GetStorage and the storage part of CashManagement, CardReader, Printer,
Deposit and BanknoteNeutralization; release 2021-1 has the same places. Events carry the changed members only
(release 2024-3) or the whole unit (2021-1), so both are merged.

What is in a cash unit is not transmitted: it is initial + in - out, summed over the items and their quality levels.
Notes that are still under way in the device (stacked, diverted, in the transport) are told in `out` as well, and
count here only when they have arrived somewhere: a service of release 2021-1 goes on telling of notes as stacked
after they were presented (tests/recordings/generation-v1.jsonl), so that each withdrawal would count twice. That is
also how the `count` of the previews before 2021-1 was defined; where a service still sends it, it is taken.
"""

from collections.abc import Mapping
from typing import Any

from agent.drivers.xfs_messages import MOST_NUMBER, Leaf, Names, clean, leaves, printable
from agent.drivers.xfs_status import word
from agent.model import Reading

MOST_UNITS = 64
MOST_KEPT = 20_000
"""Values kept of all units together; a service with more is read from GetStorage only, not from its events."""

TYPES = ("cashIn", "cashOut", "replenishment", "cashInRetract", "cashOutRetract", "reject")
KINDS = ("cash", "card", "printer", "check")
WAYS_IN = ("deposited", "retracted", "rejected", "distributed")
WAYS_OUT = ("presented", "rejected", "distributed", "unknown")
UNDER_WAY = ("stacked", "diverted", "transport")
NOT_A_STATE = ("", "unknown", "notsupported")

Unit = dict[str, Leaf]
"""One unit's values by their path, as of xfs_messages.leaves."""


class Storage:
    """The units of one service. At most MOST_UNITS units and MOST_KEPT values are kept."""

    def __init__(self) -> None:
        self._names = Names(MOST_UNITS)
        self._units: dict[str, Unit] = {}
        self._newer: set[str] = set()

    def asked(self) -> None:
        """A whole answer is asked for; what events tell from now on may be newer than it."""
        self._newer.clear()

    def replace(self, units: Any, now: float) -> list[Reading]:
        """Readings of a whole answer: what it does not list is gone. A unit that an event has told of since the
        answer was asked for stays as the event left it; the event has made the service ask again."""
        before, self._units = self._units, {}
        room = MOST_KEPT
        out: list[Reading] = []
        for name, tree in list(units.items())[:MOST_UNITS] if isinstance(units, dict) else []:
            if not isinstance(tree, dict):
                continue
            unit = before[name] if name in self._newer and name in before else _unit(tree)
            room -= len(unit)
            if room >= 0:
                self._units[name] = unit
            out += self._readings(name, unit, now)
        return out

    def merge(self, units: Mapping[str, Any], now: float) -> list[Reading]:
        """Readings of the units that an event speaks of, as far as a whole answer has told of them before."""
        out: list[Reading] = []
        for name, tree in units.items():
            if name not in self._units or not isinstance(tree, dict):
                continue
            unit = self._units[name] | _unit(tree)
            others = sum(len(kept) for other, kept in self._units.items() if other != name)
            if others + len(unit) <= MOST_KEPT:
                self._units[name] = unit
                self._newer.add(name)
                out += self._readings(name, unit, now)
        return out

    def forget(self) -> None:
        """The connection is gone, and with it what its events built upon."""
        self._units = {}

    def _readings(self, name: str, unit: Unit, now: float) -> list[Reading]:
        segment = self._names.of(name)
        if not segment:
            return []
        if unit.get("card.capabilities.type") == "retain" and name == self._retain():
            return _retained(unit, now)
        base = f"cassette.{segment}"
        said = [
            _state(f"{base}.state", unit, now),
            *_counts(base, unit, now),
            _number(f"{base}.capacity", unit.get("capacity") or None, now),
            _text(f"{base}.type", ", ".join(t for t in TYPES if _is(unit, "types", t)), now),
            _text(f"{base}.note", _note(unit), now),
            _text(f"{base}.serial", unit.get("serialnumber"), now),
            _lock(f"{base}.lock", unit, now),
            _word(f"{base}.accuracy", unit.get("cash.status.accuracy"), now),
            _word(f"{base}.neutralization", unit.get("banknoteneutralization.protection"), now),
        ]
        return [reading for reading in said if reading is not None]

    def _retain(self) -> str:
        """The reader's bin of retained cards: the first unit that says so."""
        return next((n for n, u in self._units.items() if u.get("card.capabilities.type") == "retain"), "")


def _unit(tree: Mapping[str, Any]) -> Unit:
    return {path: printable(leaf) if isinstance(leaf, str) else leaf for path, leaf in leaves(tree).items()}


def _state(point: str, unit: Unit, now: float) -> Reading | None:
    """A unit that is not ok is that, however full it is."""
    status, filled = _said(unit, "status"), ""
    for kind in KINDS:
        filled = filled or _said(unit, f"{kind}.status.replenishmentstatus")
    filled = filled or _said(unit, "deposit.status.depcontainer")
    broken = _said(unit, "cash.status.operationstatus")
    if status not in ("", "ok"):
        chosen = status
    elif broken:
        chosen = "inoperative"
    else:
        chosen = filled or status
    if not chosen:
        return None
    parts = (("status", status), ("replenishmentStatus", filled), ("operationStatus", broken))
    return Reading(point, word(point, chosen), now, raw=clean(" ".join(f"{n}={v}" for n, v in parts if v)))


def _counts(base: str, unit: Unit, now: float) -> list[Reading | None]:
    if (initial := _total(unit, "cash.status.initial")) is not None:
        into = sum(_total(unit, f"cash.status.in.{way}") or 0 for way in WAYS_IN)
        out = sum(_total(unit, f"cash.status.out.{way}") or 0 for way in WAYS_OUT)
        going = sum(_total(unit, f"cash.status.out.{way}") or 0 for way in UNDER_WAY)
        told = _figure(unit.get("cash.status.count"))
        raw = f"initial {initial} + in {into} - out {out}, under way {going}" if told is None else ""
        return [
            _number(f"{base}.count", initial + into - out if told is None else told, now, raw),
            _number(f"{base}.initial", initial, now),
            _number(f"{base}.presented", _total(unit, "cash.status.out.presented"), now),
            _number(f"{base}.retracted", _total(unit, "cash.status.in.retracted"), now),
        ]
    if (printed := _number(f"{base}.initial", unit.get("printer.status.initial"), now)) is not None:
        total = int(printed.value) + (_figure(unit.get("printer.status.in")) or 0)
        return [_number(f"{base}.count", total, now), printed]
    return [
        _number(f"{base}.count", unit.get("card.status.count", unit.get("deposit.status.numofdeposits")), now),
        _number(f"{base}.initial", unit.get("card.status.initialcount"), now),
    ]


def _retained(unit: Unit, now: float) -> list[Reading]:
    said = (
        _state("retain.state", unit, now),
        _number("retain.count", unit.get("card.status.count"), now),
        _number("retain.capacity", unit.get("capacity") or None, now),
    )
    return [reading for reading in said if reading is not None]


def _figure(leaf: Leaf) -> float | None:
    """A number, be it NO_NUMBER."""
    return leaf if isinstance(leaf, int | float) and not isinstance(leaf, bool) else None


def _total(unit: Unit, path: str) -> float | None:
    """The sum of what stands below a path; None when nothing does, no whole number when a part of it is none."""
    below = (_figure(leaf) for name, leaf in unit.items() if name.startswith(f"{path}."))
    numbers = [number for number in below if number is not None]
    return sum(numbers) if numbers else None


def _note(unit: Unit) -> str:
    """Currency and value; services write an empty currency and 0 where there is none."""
    currency, value = unit.get("cash.configuration.currency"), _figure(unit.get("cash.configuration.value")) or 0
    return f"{currency} {value:g}" if isinstance(currency, str) and currency and value > 0 else ""


def _lock(point: str, unit: Unit, now: float) -> Reading | None:
    ways = {way: unit.get(f"cash.configuration.applock{way}") for way in ("in", "out")}
    if not any(isinstance(locked, bool) for locked in ways.values()):
        return None
    locked = [way for way, value in ways.items() if value is True]
    return Reading(point, "both" if len(locked) == 2 else (*locked, "none")[0], now)


def _is(unit: Unit, group: str, name: str) -> bool:
    return unit.get(f"cash.configuration.{group}.{name.lower()}") is True


def _said(unit: Unit, path: str) -> str:
    leaf = unit.get(path)
    return leaf if isinstance(leaf, str) and leaf.lower() not in NOT_A_STATE else ""


def _word(point: str, leaf: Leaf, now: float) -> Reading | None:
    if not isinstance(leaf, str) or leaf.lower() in NOT_A_STATE:
        return None
    return Reading(point, word(point, leaf), now, raw=clean(leaf))


def _text(point: str, leaf: Leaf, now: float) -> Reading | None:
    return Reading(point, leaf, now) if isinstance(leaf, str) and leaf else None


def _number(point: str, leaf: Leaf, now: float, raw: str = "") -> Reading | None:
    """A count; what cannot be one (negative: the unit was never told what is in it) is no reading."""
    return Reading(point, leaf, now, raw) if type(leaf) is int and 0 <= leaf < MOST_NUMBER else None
