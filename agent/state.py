"""This file knows the present state of a device: the stored points joined with when each was last seen."""

from collections.abc import Iterable, Mapping
from typing import Any

from agent.catalogue import Catalogue
from agent.faults import flaps
from agent.messages import DeviceState, FaultState, PointState
from agent.model import Fault, StoredPoint
from agent.points import lookup

LATE = 2.0
"""Seconds that the core may need to make a point unknown; until then it is the one to say so."""


def published(
    points: Iterable[StoredPoint],
    seen: Mapping[str, int],
    faults: Iterable[Fault],
    catalogue: Catalogue,
    session: str,
    wall_ms: int,
) -> DeviceState:
    """The retained message of a device. `seen`: {point: wall clock in ms} of this run of the agent."""
    return DeviceState(
        session=session,
        at=wall_ms,
        points={
            p.point: PointState(
                value=p.value, at=_at(p, seen), unknown=not _known(p, seen, wall_ms), raw=p.raw, inferred=p.inferred
            )
            for p in points
        },
        faults=tuple(
            FaultState(
                code=f.code,
                point=f.point,
                severity=catalogue.by_code(f.code).severity,
                since=f.since,
                raw=f.raw,
                flapping=flaps(f),
            )
            for f in faults
        ),
    )


def shown(
    points: Iterable[StoredPoint],
    seen: Mapping[str, int],
    faults: Iterable[Fault],
    catalogue: Catalogue,
    wall_ms: int,
) -> dict[str, Any]:
    """The same for a person on site: ages instead of times, and of each fault its cause, owner and first step."""
    return {
        "points": [
            {
                "point": p.point,
                "value": p.value if _known(p, seen, wall_ms) else None,
                "was_value": None if _known(p, seen, wall_ms) else p.value,
                "unknown": not _known(p, seen, wall_ms),
                "age": max(0.0, round((wall_ms - _at(p, seen)) / 1000, 1)),
                "at": _at(p, seen),
                "raw": p.raw,
                "inferred": p.inferred,
                "unit": lookup(p.point).unit,
            }
            for p in points
        ],
        "faults": [_explained(f, catalogue) for f in faults],
    }


def _explained(fault: Fault, catalogue: Catalogue) -> dict[str, Any]:
    rule = catalogue.by_code(fault.code)
    also_en, also_zh = ("; it comes and goes", "（时有时无）") if flaps(fault) else ("", "")
    return {
        "code": fault.code,
        "severity": rule.severity,
        "device": fault.device,
        "point": fault.point,
        "since": fault.since,
        "cause": {"en": rule.cause.en + also_en, "zh": rule.cause.zh + also_zh},
        "hint": {"en": rule.hint.en, "zh": rule.hint.zh},
        "owner": rule.owner,
        "raw": fault.raw,
        "flapping": flaps(fault),
    }


def _known(point: StoredPoint, seen: Mapping[str, int], wall_ms: int) -> bool:
    """Whether a point may be believed. Its age is looked at here too: the core, which makes points unknown, stands
    still when nothing can be stored, and then least of all may an old value pass for a new one."""
    return point.known and wall_ms - _at(point, seen) <= (lookup(point.point).max_age + LATE) * 1000


def _at(point: StoredPoint, seen: Mapping[str, int]) -> int:
    """When a point was last seen: by this run, or when its stored value was made."""
    return max(point.at, seen.get(point.point, 0))
