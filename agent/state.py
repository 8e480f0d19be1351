"""This file knows the present state of a device: the stored points joined with when each was last seen.

Whether a value is too old is told by the monotonic clock: a wall clock that was set must neither make a fresh value
unknown nor keep an old one believed.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from agent.catalogue import Catalogue
from agent.clock import Instant
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
    moment: Instant,
) -> DeviceState:
    """The retained message of a device. `seen`: {point: monotonic ms} of this run of the agent; moment: now."""
    return DeviceState(
        session=session,
        at=moment.wall_ms,
        points={
            p.point: PointState(
                value=p.value,
                at=_at(p, seen, moment),
                unknown=not _known(p, seen, moment),
                raw=p.raw,
                inferred=p.inferred,
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
    moment: Instant,
) -> dict[str, Any]:
    """The same for a person on site: ages instead of times, and of each fault its cause, owner and first step."""
    return {
        "points": [
            {
                "point": p.point,
                "value": p.value if _known(p, seen, moment) else None,
                "was_value": None if _known(p, seen, moment) else p.value,
                "unknown": not _known(p, seen, moment),
                "age": max(0.0, round((moment.wall_ms - _at(p, seen, moment)) / 1000, 1)),
                "at": _at(p, seen, moment),
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


def _known(point: StoredPoint, seen: Mapping[str, int], moment: Instant) -> bool:
    """Whether a point may be believed. Its age is looked at here too: the core, which makes points unknown, stands
    still when nothing can be stored, and then least of all may an old value pass for a new one."""
    last = seen.get(point.point)
    return (
        point.known and last is not None and moment.now * 1000 - last <= (lookup(point.point).max_age + LATE) * 1000
    )


def _at(point: StoredPoint, seen: Mapping[str, int], moment: Instant) -> int:
    """When a point was last seen by this run, or when its stored value was made: wall clock as it is now, ms."""
    last = seen.get(point.point)
    return point.at if last is None else moment.wall_ms - round(moment.now * 1000) + last
