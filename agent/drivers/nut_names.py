"""This file knows what the variables of a NUT server mean: the flags of ups.status, the numbers, the texts.

A UPS that calibrates is on battery by intention (OB CAL): then NUT does not tell whether there is mains, and
neither does this. A flag that we do not know becomes ups.state; HB, CHRG and DISCHRG add nothing.

Source: NUT 2.8.0 docs/new-drivers.txt (status data), docs/nut-names.txt; drivers/usbhid-ups.c and snmp-ups.c for
what they write into ups.test.result.
"""

import re
from collections.abc import Mapping

from agent.model import Reading

NUMBER = re.compile(r"-?[0-9]{1,9}(\.[0-9]{1,6})?")
MOST = 200

# point: NUT's variables for it; the first that is there counts. NUT 2.8.0 escapes the copies under device twice.
MEASURES: dict[str, tuple[str, ...]] = {
    "input.voltage": ("input.voltage",),
    "input.frequency": ("input.frequency",),
    "output.voltage": ("output.voltage",),
    "output.load": ("ups.load",),
    "battery.voltage": ("battery.voltage",),
    "battery.charge": ("battery.charge",),
    "battery.runtime": ("battery.runtime",),
    "temperature": ("ups.temperature",),
    "rating.voltage": ("input.voltage.nominal",),
    "rating.current": ("input.current.nominal",),
    "rating.battery_voltage": ("battery.voltage.nominal",),
    "rating.frequency": ("input.frequency.nominal",),
}
TEXTS: dict[str, tuple[str, ...]] = {
    "device.maker": ("ups.mfr", "device.mfr"),
    "device.model": ("ups.model", "device.model"),
    "device.serial": ("ups.serial", "device.serial"),
    "device.firmware": ("ups.firmware",),
}
STATUS, ALARM, RESULT, BEEPER = "ups.status", "ups.alarm", "ups.test.result", "ups.beeper.status"
WANTED = frozenset({STATUS, ALARM, RESULT, BEEPER}.union(*MEASURES.values(), *TEXTS.values()))

STATES = (("OVER", "overload"), ("OFF", "off"), ("ALARM", "failed"))
BYPASS = frozenset({"BYPASS", "TRIM", "BOOST"})
KNOWN = BYPASS | {flag for flag, _ in STATES} | {"OL", "OB", "LB", "HB", "RB", "CHRG", "DISCHRG", "CAL", "FSD"}
BEEPERS = {"enabled": "on", "disabled": "off", "muted": "off"}
RESULTS = {
    "done and passed": "passed",
    "ok": "passed",
    "done and error": "failed",
    "failed": "failed",
    "in progress": "running",
    "test in progress": "running",
    "aborted": "none",
    "no test initiated": "none",
    "test scheduled": "none",
}


def understood(values: Mapping[str, str], now: float) -> list[Reading]:
    """The readings of one list of variables."""
    out = _status(values, now) if values.get(STATUS, "").split() else []
    if beeper := values.get(BEEPER):
        out.append(Reading("ups.beeper", BEEPERS.get(beeper, code(beeper)), now, clean(beeper)))
    for point, names in MEASURES.items():
        text = next((values[name] for name in names if name in values), "")
        if NUMBER.fullmatch(text):
            out.append(Reading(point, float(text), now, text))
    for point, sources in TEXTS.items():
        if text := next((clean(values[name]) for name in sources if clean(values.get(name, ""))), ""):
            out.append(Reading(point, text, now))
    return out


def _status(values: Mapping[str, str], now: float) -> list[Reading]:
    flags = values[STATUS].split()
    raw = clean(f"{STATUS} {values[STATUS]}")
    words = {
        "battery": "low" if "LB" in flags else "replace" if "RB" in flags else "ok",
        "ups.bypass": "active" if BYPASS & {*flags} else "off",
        "ups.shutdown": "active" if "FSD" in flags else "inactive",
    }
    if "OL" in flags or ("OB" in flags and "CAL" not in flags):
        words["mains"] = "lost" if "OB" in flags else "ok"
    out = [Reading(point, word, now, raw) for point, word in words.items()]
    strange = [code(flag) for flag in flags if flag not in KNOWN]
    state = next((word for flag, word in STATES if flag in flags), "") or (strange or ["ok"])[0]
    alarm = clean(f"{raw}; {values[ALARM]}") if values.get(ALARM) else raw
    return [*out, Reading("ups.state", state, now, alarm), _selftest(flags, values.get(RESULT, ""), raw, now)]


def _selftest(flags: list[str], result: str, raw: str, now: float) -> Reading:
    if "CAL" in flags:
        return Reading("ups.selftest", "running", now, raw)
    if not result:
        return Reading("ups.selftest", "none", now, raw)
    return Reading(
        "ups.selftest", RESULTS.get(result.strip().lower(), code(result)), now, clean(f"{RESULT} {result}")
    )


def code(text: str) -> str:
    """What NUT says and we do not know, as a word."""
    return "vendor." + "_".join(clean(text).split())[:64]


def clean(text: str) -> str:
    """A text without control characters, and not without end."""
    return "".join(c for c in text if c.isprintable()).strip()[:MOST]
