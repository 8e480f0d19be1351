"""This file knows how facts read to a person: times, ages, values, and ledger rows as sentences."""

import time
from collections.abc import Mapping
from typing import Any

STANDARD_KEYS = frozenset({"seq", "at", "up", "boot", "kind", "device"})

OWNERS_ZH = {
    "branch": "网点",
    "cash": "现金",
    "network": "网络",
    "power": "电力",
    "security": "安保",
    "vendor": "厂商",
    "keys": "密钥",
}


def clock(wall_ms: int) -> str:
    """Local date and time of a wall clock in milliseconds."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(wall_ms / 1000))


def age(seconds: float | None) -> str:
    """How long ago, in one unit; empty when nobody knows."""
    if seconds is None:
        return ""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"


def value(content: Any, unit: str = "") -> str:
    """A point's value with its unit."""
    if isinstance(content, bool):
        return "yes" if content else "no"
    if isinstance(content, float):
        content = f"{content:g}"
    return f"{content} {unit}".rstrip()


def said(point: Mapping[str, Any]) -> str:
    """The device's own code or words for a value, where they are not the value itself."""
    return "" if str(point["raw"]) in (str(point["value"]), str(point["was_value"])) else str(point["raw"])


def sentence(row: Mapping[str, Any]) -> str:
    """What a ledger row says."""
    match row:
        case {"kind": "change", "point": point, "value": now, "was": was}:
            inferred = " (inferred)" if row.get("inferred") else ""
            return f"{point}: {value(was)} → {value(now)}{inferred}{_said(row)}"
        case {"kind": "flapping", "point": point, "value": now, "was": was}:
            return f"{point} flaps between {value(was)} and {value(now)}: from here on its changes are counted"
        case {"kind": "steady", "point": point, "value": now, "count": count}:
            return f"{point} is steady at {value(now)} after {count} changes{_said(row)}"
        case {"kind": "known", "values": values}:
            return "known: " + ", ".join(f"{point} {value(now)}" for point, now in values.items())
        case {"kind": "unknown", "points": points}:
            return "UNKNOWN: " + ", ".join(points)
        case {"kind": "fault.raised", "code": code, "point": point}:
            return f"fault {code} ({row.get('severity', 'unknown')}): {point} {value(row.get('value'))}{_said(row)}"
        case {"kind": "fault.cleared", "code": code, "point": point}:
            return f"cleared {code}: {point}{_flapped(row)}"
        case {"kind": "fault.flapping", "code": code, "point": point}:
            return f"fault {code} ({row.get('severity', 'unknown')}) comes and goes: {point}{_flapped(row)}"
        case {"kind": "fault.steady", "code": code, "point": point}:
            return f"fault {code} stands: {point} {value(row.get('value'))}{_flapped(row)}"
        case {"kind": "fault.explained", "code": code, "by": by}:
            return f"{code} is no fault of its own: {by} has lost its mains"
        case {"kind": "operation", "verb": verb}:
            arguments = "".join(f" {name}={given}" for name, given in row.get("arguments", {}).items())
            return f"{row.get('by', 'somebody')} asked for {verb}{arguments}"
        case {"kind": "clock", "jump_ms": int(jump), "quality": quality}:
            moved = f"the clock was set {'back' if jump < 0 else 'ahead'} by {abs(jump) / 1000:.0f} s"
            return f"{moved} and is {quality}" if abs(jump) >= 1000 else f"the clock is {quality}"
        case {"kind": "checkpoint", "covers": covers}:
            return f"signed up to row {covers}"
        case {"kind": "outcome", "result": result}:
            return f"{result}: {row.get('detail', '')}{_said(row)}"
        case _:
            rest = ", ".join(f"{key} {content}" for key, content in row.items() if key not in STANDARD_KEYS)
            return f"{row.get('kind', '?')}: {rest}" if rest else str(row.get("kind", "?"))


def _flapped(row: Mapping[str, Any]) -> str:
    return f" (flapping, {row['count']} changes)" if row.get("count") else ""


def _said(row: Mapping[str, Any]) -> str:
    return f"  [device said: {row['raw']}]" if row.get("raw") else ""
