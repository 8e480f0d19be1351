"""This file knows what can be seen of keys without any secret: check values, ages, serials, clocks.

Each guard compares what a device or the clock says with what the ledger says (`Holdings`), and returns findings. A
finding is an alarm, not a proof: two check values are equal by chance once in 16 million. `rows` are the ledger's
rows of findings, and `holdings.fold` takes what follows from them into account: after another serial number, or
when all keys are gone at once, every slot is unknown, until an order loads it anew; nothing is reloaded by itself.
Sources: PCI PIN 15-1, 18, 20-1.c, 31, 33; TR-31 key version; crypto.md 1.6 and 1.7. Times are wall clock in ms.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.crypto.holdings import DAY_MS, Holdings, Slot
from agent.crypto.kcv import Kcv
from agent.crypto.phrases import ALARMS
from agent.crypto.steps import row

RECEIVED_DAYS, INSTALLED_DAYS = 5, 2
NOTICE_DAYS = 30
PAPERS_MS = 30 * 60_000
"""As long as from an order to its proof (conduct.py)."""
_CRITICAL = {"tamper", "serial_changed", "test_key", "wrong_kcv", "unexpected_key", "left_construct"}
_CRITICAL |= {"destroyed_kcv", "missing_key", "unknown_slot", "other_usage"}
_ALL_UNKNOWN = ("tamper", "serial_changed")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be. critical: the terminal must not serve customers."""

    word: str
    slot: str = ""
    facts: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def critical(self) -> bool:
        """Whether the terminal must stop."""
        return self.word in _CRITICAL

    @property
    def en(self) -> str:
        """One sentence in English."""
        return ALARMS[self.word].en.format(slot=self.slot, **self.facts)

    @property
    def zh(self) -> str:
        """The same in Chinese."""
        return ALARMS[self.word].zh.format(slot=self.slot, **self.facts)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a device says of a slot: loaded, missing or construct; what it does not say is None or empty."""

    state: str
    kcv: Kcv | None = None
    usage: str = ""


def rows(findings: Iterable[Finding], terminal: str, serial: str) -> list[dict[str, Any]]:
    """The ledger rows of findings."""
    out = []
    for found in findings:
        about = {"terminal": terminal, "serial": serial, "slot": found.slot}
        if found.word in _ALL_UNKNOWN:
            out.append(row("tampered", cause=found.word, **about))
        out.append(row("alarm", word=found.word, facts=dict(found.facts), **about))
    return out


def serial(seen: str, held: Holdings) -> list[Finding]:
    """Whether this still is the EPP into which the keys were loaded."""
    return [Finding("serial_changed")] if held.serial and seen != held.serial else []


def value(slot: str, kcv: Kcv, expected: Kcv | None, held: Holdings, *, production: bool) -> list[Finding]:
    """What a key's check value tells: not the expected one, a published key, another slot's, a destroyed one."""
    found = []
    if expected is not None and not kcv.agrees(expected):
        found.append(Finding("wrong_kcv", slot))
    if production and (what := kcv.known()):
        found.append(Finding("test_key", slot, {"what": what}))
    for other, key in held.slots.items():
        if other != slot and key.state == "loaded" and key.kcv is not None and key.kcv.agrees(kcv):
            found.append(Finding("same_kcv", slot, {"other": other}))
    if any(kcv.agrees(gone) for gone in held.destroyed):
        found.append(Finding("destroyed_kcv", slot))
    return found


def slots(
    seen: Mapping[str, Seen], held: Holdings, *, production: bool, working: Iterable[str] = ()
) -> list[Finding]:
    """What the EPP says it holds, against the ledger: at every start and hourly, but not during a ceremony.

    Slots that the ledger does not know are looked at too: a key without an order is a substitution attempt. When
    every key is gone at once, that is one incident and not many. working: slots of keys that come with a sign-on,
    which no order loads; only their check values are judged.
    """
    others = frozenset(working)
    ours = {slot for slot, key in held.slots.items() if key.state == "loaded"}
    gone = {slot for slot in ours if seen.get(slot, Seen("missing")).state == "missing"}
    found = (
        [Finding("tamper")] if len(gone) > 1 and gone == ours else [Finding("missing_key", s) for s in sorted(gone)]
    )
    for slot in sorted({*seen, *held.slots} - gone):
        there = seen.get(slot, Seen("missing"))
        if slot not in others:
            found += _one(slot, there, held, production)
        elif there.state == "loaded" and there.kcv is not None:
            found += value(slot, there.kcv, None, held, production=production)
    return found + _twins({slot: there.kcv for slot, there in seen.items() if slot not in ours and there.kcv})


def wrapping(held: Holdings) -> list[Finding]:
    """Keys that are protected by a weaker key (PCI PIN 10)."""
    found = []
    for slot, key in held.slots.items():
        kek = held.slots.get(key.under)
        if key.state == "loaded" and kek is not None and kek.digits and strength(key) > strength(kek):
            found.append(Finding("weak_wrapping", slot))
    return found


def strength(key: Slot) -> tuple[bool, int]:
    """An order of strength: AES above 3DES, then the length. A 3DES key of 48 digits may be weaker than it says."""
    return key.algorithm == "A", key.digits


def age(held: Holdings, now: int, days: int, notice: int = NOTICE_DAYS) -> list[Finding]:
    """Keys whose crypto-period of so many days ends within the notice, or has ended."""
    found = []
    for slot, key in held.slots.items():
        if key.state == "loaded" and key.since:
            left = days - (now - key.since) // DAY_MS
            if left < 0:
                found.append(Finding("age_over", slot, {"days": -left}))
            elif left <= notice:
                found.append(Finding("age_due", slot, {"days": left}))
    return found


def unchanged(before: Mapping[str, Kcv], after: Mapping[str, Kcv], expected: Iterable[str]) -> list[Finding]:
    """Working keys that a sign-on should have changed and did not; a slot that cannot be read is not judged."""
    return [
        Finding("unchanged", slot)
        for slot in expected
        if slot in before and slot in after and before[slot].agrees(after[slot])
    ]


def clocks(held: Holdings, now: int, utc_offset_minutes: int = 480) -> list[Finding]:
    """The duties of 5 days from application to receipt, and of 2 days from receipt to the first good sign-on.

    Whole days of the local calendar: what is asked for on the 1st must be there by the end of the 6th. Only what is
    still open is late: of what was done late the receipt tells, and an order that has expired can not be used.
    """
    late = {
        "received_late": (held.applied, held.received, RECEIVED_DAYS),
        "installed_late": (held.received, held.installed, INSTALLED_DAYS),
    }
    return [
        Finding(word, facts={"order": order})
        for word, (begun, done, days) in late.items()
        for order, start in begun.items()
        if order not in done and due(start, days, utc_offset_minutes) <= now <= held.expires.get(order, now)
    ]


def papers(held: Holdings, now: int) -> list[Finding]:
    """Papers and files of a key that works, or is gone, for which two people have not signed in time."""
    late = [order for order, since in held.papers.items() if now - since >= PAPERS_MS]
    return [Finding("papers_late", facts={"order": order}) for order in late]


def due(start: int, days: int, utc_offset_minutes: int) -> int:
    """The midnight that ends the local day which is so many days after that of `start`."""
    offset = utc_offset_minutes * 60_000
    return ((start + offset) // DAY_MS + days + 1) * DAY_MS - offset


def _twins(kcvs: Mapping[str, Kcv]) -> list[Finding]:
    """Equal check values among slots of which the ledger says nothing; `value` compares with those it knows."""
    names = sorted(kcvs)
    first = {name: next(other for other in names if kcvs[other].agrees(kcvs[name])) for name in names}
    return [Finding("same_kcv", name, {"other": other}) for name, other in first.items() if other != name]


def _one(slot: str, seen: Seen, held: Holdings, production: bool) -> list[Finding]:
    key = held.slots.get(slot, Slot("missing"))
    if seen.state == "construct":
        return [Finding("left_construct", slot)]
    if key.state == "unknown":
        return [Finding("unknown_slot", slot)]
    if seen.state != "loaded":
        return []
    if key.state != "loaded":
        named = value(slot, seen.kcv, None, held, production=production) if seen.kcv else []
        return [Finding("unexpected_key", slot), *named]
    found = value(slot, seen.kcv, key.kcv, held, production=production) if seen.kcv else []
    return found + ([Finding("other_usage", slot)] if seen.usage not in ("", key.usage) else [])
