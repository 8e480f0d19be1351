"""This file knows how a key operation runs at a service: one at a time, step by step, and ended exactly once.

What the steps are stands in xfs_key_steps.py. None is ever repeated by itself: a step that was not answered may
have been done. So a lost connection ends the operation as unanswered, and whoever asked for it deletes the slot.

An entry takes as long as a person needs. It ends early when the person stops typing, as far as the service tells of
key presses, or when a deletion is asked for, which waits for that end and then runs; both need Common.Cancel.

A service of KAL forgets which components are in only when the key is complete or after Initialization
(SecureKeyEntryStatusClass): after DeleteKey of half a key it may take the first component of the next attempt for
the second. It takes two components and no third. In both cases the key is refused, or its check value is wrong.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from agent.drivers.key_operations import refusal
from agent.drivers.xfs_connection import CANCEL, KEYS, LAYOUT, Connection
from agent.drivers.xfs_key_steps import COMMAND, STEPS, Job, payload, proof, told
from agent.drivers.xfs_key_words import failure
from agent.drivers.xfs_messages import Message, member
from agent.model import Operation, Outcome

URGENT = ("key_delete", "key_wipe")
IN_PARTS = ("key_enter", "key_complete")

STEP_TIME, ENTRY_TIME = 30.0, 300.0
"""Seconds that a service has for a step, and a person for a component."""

IDLE = 60.0
"""Seconds after a key press in which the next one must come."""


class KeyLoading:
    """The key operations of one service. `busy`: one is under way."""

    def __init__(self) -> None:
        self._job: Job | None = None
        self._waiting: Operation | None = None
        self._can: Mapping[str, Any] = {}
        self._pressed_at: float | None = None
        self._cancelled = False
        self._outcomes: list[Outcome] = []

    @property
    def busy(self) -> bool:
        return self._job is not None

    def outcomes(self) -> list[Outcome]:
        """What has ended since the last call."""
        ended, self._outcomes = self._outcomes, []
        return ended

    def learn(self, capabilities: Mapping[str, Any]) -> None:
        """What the service can do, as Common.Capabilities says."""
        said = capabilities.get("keyManagement")
        self._can = said if isinstance(said, dict) else {}

    def begin(self, operation: Operation, connection: Connection | None, now: float) -> None:
        """Begin an operation, or say why not. A deletion waits for the end of another, and hastens it."""
        why = refusal(operation) or self._lacks(operation, connection)
        if not why and self._job is not None:
            if operation.verb in URGENT and self._waiting is None:
                self._waiting = operation
                self._cancel(connection, now)
                return
            why = f"{self._job.operation.verb} is under way, and one key operation at a time is done"
        if why or connection is None:
            self._outcomes.append(Outcome(operation.id, "refused", f"nothing was sent: {why}", now))
        else:
            self._start(operation, connection, now)

    def owns(self, message: Message) -> bool:
        """Whether a message belongs to the step under way."""
        return self._job is not None and message.request_id == self._job.number > 0

    def take(self, message: Message, connection: Connection, now: float) -> None:
        """An event, a refusal or a completion of the step under way."""
        job = self._job
        if job is None:
            return
        if message.kind == "event":
            if message.name.lower() == "keyboard.keyevent":
                self._pressed_at = now
            return
        step, code = job.steps.popleft(), message.code
        job.number, self._pressed_at = 0, None
        if code == "commandErrorCode":
            code = str(member(message.payload, "errorCode") or code)
        wrong = None
        if code and not _matters_not(step, code):
            wrong = failure(code)
        elif not code:
            wrong = told(job, step, message.payload)
        if not wrong and not job.steps and "zero" in STEPS[job.operation.verb] and job.facts["state"] == "loaded":
            wrong = proof(job)
        if wrong:
            self._end("failed", wrong[0], connection, now, wrong[1])
        elif job.steps and self._waiting is not None:
            self._end("failed", "it gave way to a deletion", connection, now, "canceled")
        elif job.steps:
            self._ask(job, connection, now)
        else:
            self._end("done", f"the EPP has done it: {_facts(job)}", connection, now)

    def tick(self, connection: Connection, now: float) -> None:
        """End an entry at which nobody types any more."""
        if self._pressed_at is not None and now - self._pressed_at > IDLE:
            self._cancel(connection, now)

    def lost(self, why: str, now: float) -> None:
        """The connection is gone, and with it every answer."""
        for operation in (self._job.operation if self._job else None, self._waiting):
            if operation is not None:
                detail = f"what the EPP has done is not known, delete the slot: {why or 'the connection was lost'}"
                self._outcomes.append(Outcome(operation.id, "unanswered", detail, now))
        self._job = self._waiting = self._pressed_at = None
        self._can = {}

    def _lacks(self, operation: Operation, connection: Connection | None) -> str:
        """What the service would need for the operation, or nothing."""
        if connection is None or not connection.can(KEYS):
            return "the EPP's service does not answer, or has no key slots"
        wanted = {COMMAND[step] for step in STEPS[operation.verb]} - {LAYOUT}
        if lacking := sorted(name for name in wanted if not connection.can(name)):
            return f"the EPP's service does not list {', '.join(lacking)}"
        if operation.verb in IN_PARTS and self._says("keyImportThroughParts") is not True:
            return "the EPP does not take a key in parts (keyImportThroughParts)"
        if operation.arguments.get("form") == "tr31" and self._says("keyBlockImportFormats") is not None:
            version = operation.opaque[:1].decode("ascii")
            if self._says("keyBlockImportFormats", version) is not True:
                return f"the EPP does not take key blocks of version {version}"
        return ""

    def _says(self, *path: str) -> Any:
        """What the capabilities say at a path; the case of its last name does not matter (trap: `a` for `A`)."""
        found = member(self._can, *path[:-1]) if path[:-1] else self._can
        names = found if isinstance(found, dict) else {}
        return next((value for name, value in names.items() if name.lower() == path[-1].lower()), None)

    def _start(self, operation: Operation, connection: Connection, now: float) -> None:
        job = self._job = Job(replace(operation, opaque=b""), deque(STEPS[operation.verb]))
        self._cancelled = False
        job.skip(*(mode for mode in ("zero", "self") if self._says("keyCheckModes", mode) is False))
        if not connection.can(LAYOUT):
            job.skip("layout")
        self._ask(job, connection, now, operation.opaque)

    def _ask(self, job: Job, connection: Connection, now: float, block: bytes = b"") -> None:
        step = job.steps[0]
        within = ENTRY_TIME if step == "entry" else STEP_TIME
        job.number = connection.ask(COMMAND[step], now, payload(job, step, block), within)

    def _cancel(self, connection: Connection | None, now: float) -> None:
        job = self._job
        entering = job is not None and job.steps[0] == "entry" and not self._cancelled
        if job is not None and entering and connection is not None and connection.can(CANCEL):
            self._cancelled = True
            connection.ask(CANCEL, now, {"requestIds": [job.number]})

    def _end(self, result: str, detail: str, connection: Connection, now: float, raw: str = "") -> None:
        job, self._job = self._job, None
        if job is not None:
            self._outcomes.append(Outcome(job.operation.id, result, detail, now, raw, dict(job.facts)))
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self._start(waiting, connection, now)


def _matters_not(step: str, code: str) -> bool:
    """Whether the operation goes on although a step was refused."""
    if step == "delete":
        return code == "keyNotFound"  # what is gone is gone; the slot is read back in any case
    return step in ("layout", "self")  # then with the usual keys, or with the zero value alone


def _facts(job: Job) -> str:
    return ", ".join(f"{name} {value}" for name, value in job.facts.items()) or "nothing more is known of it"
