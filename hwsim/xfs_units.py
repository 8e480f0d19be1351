"""This file knows the storage units of a simulated XFS4IoT terminal: what lies in them and how GetStorage tells it.

Written from Storage.GetStorage (sources: hwsim/xfs4iot.py). The total of a cash unit is not on the
wire: it is initial + in - out, summed over items and quality levels. Setting `initial` resets the other counters.
"""

from collections.abc import Sequence
from typing import Any

Json = dict[str, Any]

UNIT_STATUS = ("ok", "inoperative", "missing", "notConfigured", "manipulated")
TYPES = ("cashIn", "cashOut", "replenishment", "cashInRetract", "cashOutRetract", "reject")
ITEMS = ("fit", "unfit", "unrecognized", "counterfeit", "suspect", "inked", "coupon", "document")
LEVELS = ("fit", "unfit", "suspect", "counterfeit", "inked")
OUT = ("presented", "rejected", "distributed", "unknown", "stacked", "diverted", "transport")
IN = ("deposited", "retracted", "rejected", "distributed", "transport")
CURRENCY = "CNY"


class CashUnit:
    """A cassette or the reject bin. `kind` is cashOut, cashIn or reject; `value` is one note's, 0: any note.

    `low` and `high` are the thresholds, in notes; 0: none.
    """

    def __init__(self, index: int, kind: str, value: int, capacity: int, initial: int, low: int, high: int) -> None:
        self.index, self.kind, self.value, self.capacity = index, kind, value, capacity
        self.low, self.high, self.status = low, high, "ok"
        self._initial, self._in, self._presented, self._rejected = initial, 0, 0, 0

    @property
    def initial(self) -> int:
        """The notes that were put in at the last replenishment."""
        return self._initial

    @initial.setter
    def initial(self, notes: int) -> None:
        self._initial, self._in, self._presented, self._rejected = max(0, notes), 0, 0, 0

    @property
    def count(self) -> int:
        """The notes in it: initial + in - out. Setting it to more than `initial` fills a cassette that pays out."""
        return self._initial + self._in - self._presented - self._rejected

    @count.setter
    def count(self, notes: int) -> None:
        more = max(0, notes) - self._initial
        self.initial = self._initial
        if more < 0:
            self._presented = -more
        elif self.kind == "cashOut":
            self._initial += more
        else:
            self._in = more

    def give(self, presented: int, rejected: int = 0) -> tuple[int, int]:
        """Take notes out; returns how many were presented and how many were rejected on the way."""
        presented = max(0, min(presented, self.count))
        self._presented += presented
        rejected = max(0, min(rejected, self.count))
        self._rejected += rejected
        return presented, rejected

    def put(self, notes: int) -> int:
        """Put notes in; returns how many it had room for."""
        notes = max(0, min(notes, self.capacity - self.count))
        self._in += notes
        return notes

    @property
    def level(self) -> str | None:
        """replenishmentStatus; None where there is nothing to replenish (CEN/XFS STATCUMISSING, STATCUNOVAL)."""
        if self.status in ("missing", "notConfigured"):
            return None
        if self.kind == "cashOut":
            return "empty" if not self.count else "low" if self.count < self.low else "ok"
        if self.count >= self.capacity:
            return "full"
        return "high" if self.high and self.count > self.high else "ok"

    def told(self, *, v1: bool, loose: bool) -> Json:
        """The unit as GetStorage tells it. `loose`: members that break the schema (trap 4)."""
        types = {name: name == self.kind for name in TYPES}
        capabilities: Json = {
            "types": types,
            "items": _items("fit", "unfit"),
            "hardwareSensors": True,
            "retractThresholds": False,
            "cashItems": self._notes,
        }
        configuration: Json = {
            "types": types,
            "items": _items("fit", "unfit") if not self.value else _items("fit"),
            "currency": CURRENCY if self.value else "",
            "value": self.value,
            "highThreshold": self.high,
            "lowThreshold": self.low,
            "appLockIn": False,
            "appLockOut": False,
            "cashItems": self._notes,
        }
        if loose:
            capabilities["retractAreas"] = 0
        else:
            # a threshold of 0 and an empty currency break the schema: what there is not is left out
            configuration = {key: value for key, value in configuration.items() if value or value is False}
        into = "rejected" if self.kind == "reject" else "deposited"
        out = {"presented": self._presented, "rejected": self._rejected}
        status: Json = {
            "index": self.index,
            "initial": self._counts(self._initial),
            "out": {name: self._counts(out.get(name, 0)) for name in OUT},
            "in": {"retractOperations": 0} | {name: self._counts(self._in if name == into else 0) for name in IN},
            "accuracy": "accurate",
        }
        if self.level:
            status["replenishmentStatus"] = self.level
        unit: Json = {"id": f"LOG{self.index}"} if v1 else {}
        unit |= {
            "positionName": f"SLOT{self.index}",
            "capacity": self.capacity,
            "status": self.status,
            "serialNumber": f"SIM-CU-{self.index:04}",
            "cash": {"capabilities": capabilities, "configuration": configuration, "status": status},
        }
        return unit

    @property
    def _notes(self) -> list[str]:
        return [f"type{CURRENCY}{value}" for value in ([self.value] if self.value else (10, 50, 100))]

    def _counts(self, notes: int) -> Json:
        """Counts by cash item; notes of a unit for any note are told as not recognised."""
        if not self.value:
            return {"unrecognized": notes}
        return {"unrecognized": 0, self._notes[0]: dict.fromkeys(LEVELS, 0) | {"fit": notes}}


def _items(*having: str) -> dict[str, bool]:
    return {name: name in having for name in ITEMS}


class CardBin:
    """The retain bin of a card reader."""

    def __init__(self, capacity: int, threshold: int) -> None:
        self.capacity, self.threshold, self.status, self.count = capacity, threshold, "ok", 0

    @property
    def level(self) -> str | None:
        """replenishmentStatus; None where there is no bin."""
        if self.status in ("missing", "notConfigured"):
            return None
        if self.count >= self.capacity:
            return "full"
        return "high" if self.count >= self.threshold else "ok"

    def told(self) -> Json:
        """The unit as GetStorage tells it."""
        status: Json = {"initialCount": 0, "count": max(0, self.count), "retainCount": 0}
        if self.level:
            status["replenishmentStatus"] = self.level
        return {
            "positionName": "BIN1",
            "capacity": self.capacity,
            "status": self.status,
            "serialNumber": "SIM-BIN-0001",
            "card": {
                "capabilities": {"type": "retain", "hardwareSensors": False},
                "configuration": {"threshold": self.threshold},
                "status": status,
            },
        }


def read_move(text: str, units: Sequence[str], name: str) -> tuple[str, int]:
    """Unit and notes of "unit1:5", "1:5" or "5" (then the first unit). Raises ValueError with a sentence."""
    which, colon, notes = text.rpartition(":")
    unit = (which if which.startswith("unit") else f"unit{which}") if colon else units[0]
    if unit not in units or not (notes.isascii() and notes.isdigit() and len(notes) < 7):
        raise ValueError(f"{name} cannot be {text!r}; it can be UNIT:NOTES, with the unit {' or '.join(units)}")
    return unit, int(notes)
