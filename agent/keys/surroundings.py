"""This file knows how a terminal stands around a key ceremony: switch, service, doors, and the EPP itself.

It hears what all links hear. A point that is older than its max_age says nothing, so it is not as it must be. The
EPP counts as lost when its link or its service says so, or when nothing was heard of it for SILENT seconds; and
from then on until it has told its serial number again, because it may be another one.

Pure: time is a parameter, in monotonic seconds.
"""

from collections.abc import Mapping
from math import inf

from agent.crypto.phrases import LACKING, Words
from agent.model import Heard, Reading, Value
from agent.points import lookup

SILENT = 60.0
"""Seconds; longer than a pad may be busy with one step of its own."""
GONE = frozenset({"offline", "powerOff", "noDevice"})
"""Words of device.state that mean that the device cannot be asked."""
OPENED = (("epp.tamper", "tampered"), ("device.state", "fraudAttempt"))
Group = Mapping[tuple[str, str], str]


class Watched:
    """What is known of the EPP and of the conditions. conditions: group -> (device, point) -> the right word."""

    def __init__(self, epp: str, conditions: Mapping[str, Group]) -> None:
        self._epp, self._conditions = epp, conditions
        self._wanted = {key for group in conditions.values() for key in group}
        self._last: dict[tuple[str, str], tuple[Value, float]] = {}
        self._heard_at = -inf
        self._told = False  # its serial number, since it was lost last
        self.serial = ""
        self.slots: set[str] = set()
        """Slots that the EPP has told of by itself."""

    def wants(self, device: str) -> bool:
        """Whether anything of this device matters here."""
        return device == self._epp or any(device == name for name, _ in self._wanted)

    def take(self, heard: Heard) -> bool:
        """Remember what was heard; whether the EPP says that it was opened and did not say so before."""
        before = self._said_opened
        readings = [item for item in heard.items if isinstance(item, Reading)]
        for reading in readings:
            self._take(heard.device, reading)
        ours = heard.device == self._epp
        return not before and ours and any((reading.point, reading.value) in OPENED for reading in readings)

    def _take(self, device: str, reading: Reading) -> None:
        key = (device, reading.point)
        if key in self._wanted or device == self._epp:
            self._last[key] = (reading.value, reading.at)
        if device != self._epp:
            return
        gone = reading.point == "link.state" and reading.value != "up"
        gone = gone or (reading.point == "device.state" and reading.value in GONE)
        if gone or reading.at - self._heard_at > SILENT:
            self._told = False
        if reading.point == "device.serial":
            self.serial, self._told = str(reading.value), True
        first, _, rest = reading.point.partition(".")
        if first == "key" and rest.endswith(".state"):
            self.slots.add(rest.removesuffix(".state"))
        self._heard_at = max(self._heard_at, reading.at)

    def stands(self, group: str, now: float) -> bool:
        """Whether everything of a group is as it must be."""
        return not self._lacking(group, now)

    def lacking(self, now: float) -> list[Words]:
        """What is not as it must be, each as `panel1.safe_door is open and must be closed`."""
        return [words for group in self._conditions for words in self._lacking(group, now)]

    def trouble(self, now: float) -> str:
        """What ends a ceremony, in a word of `steps.TROUBLES`: tamper, device_lost, or nothing."""
        if self.opened(now):
            return "tamper"
        return "" if self.answers(now) else "device_lost"

    @property
    def identity(self) -> tuple[str, bool, frozenset[tuple[str, Value]]]:
        """Serial number, whether it said last that it was opened, and how it said that its slots stand: when any of
        these changes, so may have all slots."""
        states = ((slot, self._last.get((self._epp, f"key.{slot}.state"), ("", 0.0))[0]) for slot in self.slots)
        return self.serial, self._said_opened, frozenset(states)

    @property
    def _said_opened(self) -> bool:
        return any(self._last.get((self._epp, point), ("", 0.0))[0] == word for point, word in OPENED)

    def opened(self, now: float) -> bool:
        """Whether it says that it was opened: a ZT588 as epp.tamper, XFS as the state of the device."""
        return any(self._now(point, now) == word for point, word in OPENED)

    def answers(self, now: float) -> bool:
        """Whether the EPP can be asked, and is known to be the one with this serial number."""
        state = self._last.get((self._epp, "link.state"), ("", 0.0))[0]
        there = state == "up" and now - self._heard_at <= SILENT and self._now("device.state", now) not in GONE
        return there and self._told

    def _now(self, point: str, now: float) -> Value | None:
        value, at = self._last.get((self._epp, point), (None, -inf))
        return value if now - at <= lookup(point).max_age else None

    def _lacking(self, group: str, now: float) -> list[Words]:
        out = []
        for (device, point), word in self._conditions[group].items():
            value, at = self._last.get((device, point), (None, -inf))
            if now - at > lookup(point).max_age:
                out.append(LACKING["unknown"].filled(point=f"{device}.{point}", word=word))
            elif value != word:
                out.append(LACKING["other"].filled(point=f"{device}.{point}", value=value, word=word))
        return out
