"""This file knows how pushes stand at a terminal, as a technician's command asks for it: what is in force and where
it comes from, what is tried or waits and why, how the last one ended, and what a rollback would bring.

    {"do": "pushes", "act": "show"}   one answer, `shown`; where no pushes are taken `without` answers

Of the disk it looks at nothing but the terminal's own file: whether it is still what the agent began with.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent.crypto.trust import Trust
from agent.errors import ConfigError, ControlError
from agent.messages import Reported
from agent.people.peer import Peer
from agent.pushes import REASONS, Push
from agent.pushing.inforce import Begun, Pushed
from agent.pushing.remembered import Decision, Freeze
from agent.pushing.swapping import Row, difference
from agent.tables import Config

Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Seen:
    """How things stand now.

    begun      what the agent began with                 config     what its parts run with now
    push       in force; None: the own file counts       trying     on probation; None: nothing is
    left       seconds of the probation that are left    silent     devices that it still waits for
    waiting    what is judged again; None: nothing is    reason     the word why it waits
    report     what the centre was told last             freeze     the one that holds now
    decisions  the last one last                         pushed     whose signatures count, and the disk
    """

    begun: Begun
    config: Config
    push: Push | None
    trying: Push | None
    left: float
    silent: tuple[str, ...]
    waiting: Push | None
    reason: str
    report: Reported
    freeze: Freeze | None
    decisions: tuple[Decision, ...]
    pushed: Pushed


def shown(seen: Seen) -> Answer:
    """All of it as JSON."""
    begun, own = seen.begun, seen.begun.own
    counts = _counts(seen, own)
    differences = {"own": _rows(own, counts), "pending": []}
    waiting = _waiting(seen)
    if seen.trying:
        differences["pending"] = _rows(counts, seen.config)
    elif waiting and seen.waiting and seen.waiting.kind == "configuration":
        try:
            differences["pending"] = _rows(counts, begun.with_push(seen.waiting.config))
        except ConfigError as error:
            waiting["objection"] = str(error)
    troubles = [*seen.pushed.troubles]
    if seen.pushed.distrust and seen.pushed.distrust not in troubles:
        troubles.append(seen.pushed.distrust)
    return {
        "taken": True,
        **_place(begun, counts, seen.push),
        "pending": _pending(seen),
        "waiting": waiting,
        "last": _last(seen),
        "freeze": {"until": seen.freeze.until, "by": seen.freeze.by} if seen.freeze else None,
        "trust": _trust(seen.pushed.trust),
        "troubles": troubles,
        "probation": own.push.probation if own.push else 0,
        "history": [asdict(decision) for decision in reversed(seen.decisions)],
        "differences": differences,
        "rollback": _rollback(seen, counts),
    }


def without(begun: Begun) -> Callable[[Mapping[str, Any], Peer], Iterator[Answer]]:
    """Who answers at a terminal that takes no pushes."""

    def answers(request: Mapping[str, Any], peer: Peer) -> Iterator[Answer]:
        if request.get("act") != "show":
            raise ControlError(f"no push is taken here: {begun.file} has no [push] table", 1)
        yield {"taken": False, **_place(begun, begun.config, None)}

    return answers


def _place(begun: Begun, counts: Config, push: Push | None) -> Answer:
    """Which terminal it is, and what is in force there; version 0 is its own file."""
    terminal = begun.config.terminal
    in_force = {
        "version": push.version if push else 0,
        "id": push.id if push else "",
        "signers": list(push.signers) if push else [],
        "digest": counts.digest,
        "pushed": push is not None,
        "file": str(begun.file),
        "file_digest": hashlib.sha256(begun.text).hexdigest(),
        "file_changed": _on_disk(begun.file) != begun.text,
    }
    return {
        "terminal": terminal.id,
        "org": terminal.org,
        "groups": list(terminal.groups),
        "in_force": in_force,
    }


def _on_disk(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except OSError:
        return None


def _counts(seen: Seen, own: Config) -> Config:
    """What is in force; what is on probation is not yet."""
    if not seen.trying:
        return seen.config
    return seen.begun.with_push(seen.push.config) if seen.push else own


def _pending(seen: Seen) -> Answer | None:
    """What is tried. Who looks sees it on probation only: before and after, the desk answers late."""
    push = seen.trying
    if push is None:
        return None
    facts = {"version": push.version, "id": push.id, "digest": push.digest, "signers": list(push.signers)}
    return {**facts, "word": "probation", "left": round(seen.left, 1), "silent": list(seen.silent)}


def _waiting(seen: Seen) -> Answer | None:
    push, report = seen.waiting, seen.report
    if push is None:
        return None
    is_told = report.outcome == "waiting" and report.digest == push.digest and report.detail
    facts: Answer = {"kind": push.kind, "version": push.version, "id": push.id, "not_before": push.not_before}
    sentence = report.detail if is_told else REASONS.get(seen.reason, "")
    return {**facts, "reason": seen.reason, "sentence": sentence, "objection": ""}


def _last(seen: Seen) -> Answer | None:
    """How the last push ended. What a wrong signature ended is not remembered: of that the last report tells, and
    the ledger tells when."""
    report = seen.report
    if report.outcome in ("committed", "rolled_back", "refused"):
        at = next((one.at for one in seen.decisions if one.digest == report.digest), 0)
        told = {"version": report.version, "outcome": report.outcome, "reason": report.reason}
        return {**told, "detail": report.detail, "at": at}
    ended = [one for one in seen.decisions if one.version]
    if not ended:
        return None
    last = asdict(ended[-1])
    del last["digest"]
    return last


def _trust(trust: Trust | None) -> Answer | None:
    if trust is None:
        return None
    signers = [{"name": s.name, "roles": sorted(s.roles), "key": s.key.id} for s in trust.signers]
    return {"version": trust.version, "signers": signers, "revoked": sorted(trust.revoked)}


def _rollback(seen: Seen, counts: Config) -> Answer | None:
    """What a rollback now would take back, and what counts then; version 0 is the own file."""
    if seen.trying:
        then = seen.push.version if seen.push else 0
        return {"gone": seen.trying.version, "then": then, "difference": _rows(seen.config, counts)}
    shelf = seen.pushed.shelf
    gone = shelf.in_force()
    if gone is None:
        return None
    config, push = seen.begun.back_to(shelf.before())
    return {
        "gone": gone.version,
        "then": push.version if push else 0,
        "difference": _rows(seen.config, config),
    }


def _rows(old: Config, new: Config) -> list[Row]:
    return list(difference(old, new).rows)
