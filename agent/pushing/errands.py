"""This file knows what each command of the centre does at a terminal, and which arguments it takes.

    self_test    device?          are store, chain, signing, threads, disk, clock and links well: {"ok", "checks"}
    counters     device?          {device: {point: {"value", "at", "unknown"?}}} of what counts, and of the cash
    state                         every state is published again
    journal      source?, from?, to?      a piece of an electronic journal, packed; from, to: wall clock, ms
    diagnostics                   what `tillwire diagnose` tells, packed
    maintenance  minutes, reason  a row says that people are at work here until then
    key_order    order            the envelope of a key order, for the ceremony of agent/keys/desk.py
    restart                       the agent ends and begins again: the next start tells the end
    reboot                        the same with the whole machine

Packed: JSON or text, deflated (RFC 1950), base64; the detail has the SHA-256 of what was packed.
"""

import base64
import hashlib
import json
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from agent.clock import Quality
from agent.messages import DeviceState
from agent.pasted import too_much_hex
from agent.people.peer import Peer
from agent.points import CASH, exists, lookup
from agent.pushes import Push
from agent.pushing.rebooting import reboot

Arguments = Mapping[str, str | int | bool]
Json = dict[str, Any]
MINUTE_MS = 60_000
LONGEST_MAINTENANCE = 1440
"""Minutes."""
UNSEEN: Json = {
    "label": "",
    "value": "it was not looked at",
    "verdict": "bad",
    "next": "`tillwire diagnose` says why",
}
LAST = "last row"
"""The fact that is bad when the newest row was made in what is the future now: that tells of the clock."""
NOT_SEEN = "not seen"
"""The fact of a section that could not be looked at."""
CHECKS = {
    "threads": ("agent", "threads"),
    "signing": ("agent", "signature"),
    "disk": ("folder", "disk"),
    "chain": ("store", "chain"),
}
"""Name of a check -> section and label of the fact of agent/diagnose.py that it is."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What commands need of the rest of the agent.

    note      a row of the ledger: event, facts
    keep      waits until every row so far is on disk; whether it is. For any thread
    tell      (topic below the terminal, payload, retained): to the centre
    clock     wall clock (ms), and how good it is
    diagnose  the sections of a diagnosis, as `tillwire diagnose` has them
    states    every device's state, as it is published
    refresh   has them all published again
    restart   ends this process, and has it begin again. Raises TillwireError, with nothing done, when it could not
    reboot    the same for the machine
    busy      what is under way that neither may disturb (a ceremony, a push), as a sentence; empty when nothing is
    keys      the key desk; None when no keys are loaded here
    journals  {name of a source: what reads it from one time to another (wall clock, ms)}
    boot      id of this boot of the machine
    now       the monotonic clock
    """

    note: Callable[..., None]
    keep: Callable[[], bool]
    tell: Callable[[str, bytes, bool], None]
    clock: Callable[[], tuple[int, Quality]]
    diagnose: Callable[[], Sequence[Mapping[str, Any]]]
    states: Callable[[], Mapping[str, DeviceState]]
    refresh: Callable[[], None]
    restart: Callable[[], None]
    boot: str
    busy: Callable[[], str] = str
    reboot: Callable[[], None] = reboot
    keys: Callable[[Mapping[str, Any], Peer], Iterator[Json]] | None = None
    journals: Mapping[str, Callable[[int, int], str]] = field(default_factory=dict)
    now: Callable[[], float] = time.monotonic


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended. detail: a sentence; data: the answer, if there is one."""

    outcome: Literal["done", "failed", "expired"]
    detail: str
    data: str = ""


@dataclass(frozen=True, slots=True)
class Errand:
    """What a command does. `do` runs in a thread of its own; None: the process ends over it. Raises TillwireError.

    takes     {argument: whether a value is right}
    optional  arguments that may be left out
    disturbs  whether what is under way, such as a key ceremony, would suffer from it
    says      what it takes, for a sentence
    """

    do: Callable[[Push, Reach], Done | None]
    takes: Mapping[str, Callable[[object], bool]] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()
    says: str = "no argument"
    disturbs: bool = False

    def fits(self, arguments: Arguments) -> bool:
        """Whether these arguments are all that it needs, and nothing else."""
        missing = self.takes.keys() - arguments.keys() - self.optional
        known = arguments.keys() <= self.takes.keys()
        return known and not missing and all(self.takes[name](value) for name, value in arguments.items())


def packed(text: str) -> tuple[str, str]:
    """A long answer as it travels, and the sentence that says how to read it."""
    raw = text.encode()
    data = base64.b64encode(zlib.compress(raw, 9)).decode()
    return data, f"{len(raw)} bytes, deflated, in base64; SHA-256 {hashlib.sha256(raw).hexdigest()}"


def checks(
    sections: Iterable[Mapping[str, Any]], states: Mapping[str, DeviceState], quality: Quality
) -> list[Json]:
    """What a self-test found: {"check", "ok", "detail"} each. The detail of what is well may be empty."""
    found = {section["title"]: section["facts"] for section in sections}
    facts = {
        name: next((fact for fact in found.get(title, ()) if fact["label"] == label), UNSEEN)
        for name, (title, label) in CHECKS.items()
    }
    bad = [fact for fact in found.get("store", (UNSEEN,)) if fact["verdict"] == "bad" or fact["label"] == NOT_SEEN]
    bad += [fact for fact in found.get("agent", ()) if fact["label"] == "store now"]
    store = [_sentence(fact) for fact in bad if fact["label"] not in ("chain", LAST)]
    told = [_check(name, fact["verdict"] != "bad", _sentence(fact)) for name, fact in facts.items()]
    down = [f"{name} {word}" for name, state in states.items() if (word := _link(state)) != "up"]
    is_set = quality != "unset" and all(fact["label"] != LAST for fact in bad)
    clock = f"its time is {quality}" if is_set else "it is wrong, or was: set it, and see to its battery"
    return [
        _check("store", not store, "; ".join(store)),
        *told,
        _check("clock", is_set, clock),
        _check("links", not down, ", ".join(down)),
    ]


def _check(name: str, ok: bool, detail: str) -> Json:
    return {"check": name, "ok": ok, "detail": detail}


def _sentence(fact: Mapping[str, Any]) -> str:
    return f"{fact['value']}; {fact['next']}" if fact["next"] else str(fact["value"])


def _link(state: DeviceState) -> str:
    point = state.points.get("link.state")
    return "unknown" if point is None or point.unknown else str(point.value)


def _chosen(push: Push, reach: Reach) -> Mapping[str, DeviceState]:
    """The devices that are meant: one, or all."""
    states = reach.states()
    named = push.arguments.get("device")
    return states if named is None else {name: state for name, state in states.items() if name == named}


def _nobody(push: Push, reach: Reach) -> Done:
    names = ", ".join(reach.states()) or "none"
    return Done("failed", f"there is no device {push.arguments['device']} here; there are {names}")


def _self_test(push: Push, reach: Reach) -> Done:
    states = _chosen(push, reach)
    if "device" in push.arguments and not states:
        return _nobody(push, reach)
    found = checks(reach.diagnose(), states, reach.clock()[1])
    bad = [f"{one['check']}: {one['detail']}" for one in found if not one["ok"]]
    return Done("done", "; ".join(bad) or "all is well", _json({"ok": not bad, "checks": found}))


def _counters(push: Push, reach: Reach) -> Done:
    states = _chosen(push, reach)
    if "device" in push.arguments and not states:
        return _nobody(push, reach)
    counted = {
        name: {
            point: one.model_dump(include={"value", "at", "unknown"}, exclude_defaults=True)
            for point, one in state.points.items()
            if counts(point)
        }
        for name, state in states.items()
    }
    counted = {name: points for name, points in counted.items() if points}
    every = [one for points in counted.values() for one in points.values()]
    unknown = sum("unknown" in one for one in every)
    return Done("done", f"{len(every)} counters and cash points, {unknown} of them unknown now", _json(counted))


def counts(point: str) -> bool:
    """Whether a point counts something, or tells of the cash that is counted."""
    return point.startswith(CASH) or (exists(point) and lookup(point).kind in ("count", "tally"))


def _state(push: Push, reach: Reach) -> Done:
    reach.refresh()
    return Done("done", f"{len(reach.states())} states are published again")


def _journal(push: Push, reach: Reach) -> Done:
    sources = reach.journals
    if not sources:
        return Done("failed", "this version keeps no electronic journal yet")
    named = str(push.arguments.get("source", next(iter(sources))))
    if named not in sources or ("source" not in push.arguments and len(sources) > 1):
        return Done("failed", f"say the source of the journal; there are {', '.join(sources)}")
    begin, end = int(push.arguments.get("from", 0)), int(push.arguments.get("to", reach.clock()[0]))
    data, how = packed(sources[named](begin, end))
    return Done("done", f"journal {named}: {how}", data)


def _diagnostics(push: Push, reach: Reach) -> Done:
    sections = reach.diagnose()
    data, how = packed(_json(list(sections)))
    return Done("done", f"{len(sections)} sections: {how}", data)


def _maintenance(push: Push, reach: Reach) -> Done:
    until = reach.clock()[0] + int(push.arguments["minutes"]) * MINUTE_MS
    reach.note("maintenance", id=push.id, until=until, reason=push.arguments["reason"])
    if not reach.keep():
        return Done("failed", "the ledger cannot be written now: `tillwire devices` says why")
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(until / 1000))
    return Done("done", f"maintenance until {when}", _json({"until": until}))


def _key_order(push: Push, reach: Reach) -> Done:
    if reach.keys is None:
        return Done("failed", "no keys are loaded here: the configuration has no [keys] table")
    request = {"do": "keys", "act": "order", "text": push.arguments["order"]}
    (answer,) = reach.keys(request, Peer(os.getuid(), ""))
    order = answer["order"]["id"]
    what = "was here already" if answer["already"] else "was taken in"
    return Done("done", f"the order {order} {what}: `tillwire keys begin` carries it out at the terminal")


def _restart(push: Push, reach: Reach) -> Done | None:
    return _undisturbed(reach, reach.restart)


def _reboot(push: Push, reach: Reach) -> Done | None:
    return _undisturbed(reach, reach.reboot)


def _undisturbed(reach: Reach, act: Callable[[], None]) -> Done | None:
    if why := reach.busy():
        return Done("failed", f"{why}: have it signed anew when that has ended")
    act()
    return None


def _json(content: object) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def _text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _plain(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and value.isprintable() and not too_much_hex(value)


def _whole(value: object) -> bool:
    return type(value) is int and value >= 0


def _minutes(value: object) -> bool:
    return type(value) is int and 1 <= value <= LONGEST_MAINTENANCE


_DEVICE: Mapping[str, Any] = {
    "takes": {"device": _plain},
    "optional": frozenset({"device"}),
    "says": "no argument, or device=NAME for one of them",
}
ERRANDS: Mapping[str, Errand] = {
    "self_test": Errand(_self_test, **_DEVICE),
    "counters": Errand(_counters, **_DEVICE),
    "state": Errand(_state),
    "journal": Errand(
        _journal,
        {"source": _plain, "from": _whole, "to": _whole},
        frozenset({"source", "from", "to"}),
        "source=NAME, and from and to in ms since 1970, all of which may be left out",
    ),
    "diagnostics": Errand(_diagnostics),
    "maintenance": Errand(
        _maintenance,
        {"minutes": _minutes, "reason": _plain},
        says=f"minutes=1 to {LONGEST_MAINTENANCE}, and reason=TEXT, which has no long row of digits",
    ),
    "key_order": Errand(_key_order, {"order": _text}, says="order=TEXT, which is the envelope of a key order"),
    "restart": Errand(_restart, disturbs=True),
    "reboot": Errand(_reboot, disturbs=True),
}
"""What each command of agent/pushes.py does."""
