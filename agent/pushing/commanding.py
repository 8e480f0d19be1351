"""This file knows what becomes of a command that counts here: whether this terminal does it, that it is done once,
and that its end is told. What each command does says agent/pushing/errands.py.

    refused   not_allowed: the terminal's own file does not let it; not_valid: its arguments are not right; busy:
              too many wait, or what is under way must not be disturbed; same_id: another command had its id;
              forgotten: it may have run. It was not begun, and but for the last two the same may be sent again
    begun     that it was, and a row that says what it is, are on disk before anything is done; one after the other
    ended     what came of it is on disk, in a row, and told; when the agent has ended meanwhile, at the next start
    repeated  it was begun before: what came of it is told again, and nothing is done. While it is under way nothing
              is told: its end will be

What is told of messages that nothing is done for is rationed: a flood fills neither the ledger nor the line.
"""

import logging
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from agent.errors import EnvelopeRefused, PushRefused, StoreError, TillwireError
from agent.messages import Result, compact
from agent.pushes import Push
from agent.pushing.errands import ERRANDS, Arguments, Done, Reach
from agent.pushing.memory import Memory
from agent.pushing.remembered import Command
from agent.ration import Ration
from agent.tables import Push as Table

RESULT = "command/result"
WAITS = 8
"""Commands that wait for their turn, at most."""
LONGEST = 300.0
"""Seconds after which a command has failed; what it still does is left to itself."""
LATE = f"it has not ended within {LONGEST:.0f} s, and may yet: `tillwire diagnose` shows how the terminal is"
SAME_ID = "another command was begun under this id: have this one signed anew with another id"
FORGOTTEN = "it may have run, and what ran is not known any more: have it signed anew with another id"
A_MINUTE = 10
"""Messages of which nothing came that are told in a minute, at most."""
AGAIN = 5.0
"""Seconds after which the disk is tried again."""
PART = 40_000
"""Bytes of an answer's part as JSON has it."""
PARTS = 32
KEPT_LETTERS = 240
"""Letters of a sentence that are remembered: some 500 commands must fit into one small file."""
LONGEST_DETAIL = 2000

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Job:
    """A command that was begun. since: when its turn came; end: how it ended, once it has."""

    push: Push
    since: float = 0.0
    end: list[Done | None] = field(default_factory=list)


class Commanding:
    """The commands of one terminal, for one thread.

    table   what the terminal's own file allows
    """

    def __init__(self, memory: Memory, table: Table, reach: Reach) -> None:
        self._memory, self._reach = memory, reach
        self._allowed = {*table.commands, *(["reboot"] if table.reboot else [])}
        self._waiting: deque[_Job] = deque()
        self._running: _Job | None = None
        self._unkept: dict[str, tuple[str, str, int]] = {}
        self._again = 0.0
        self._refusals, self._repeats = Ration(A_MINUTE), Ration(A_MINUTE)

    def begin(self, push: Push, wall_ms: int) -> None:
        """Take up a command that was verified and judged. Raises StoreError, with nothing begun."""
        memory, reach = self._memory, self._reach
        known = memory.command(push.id)
        if known and known.digest == push.digest:
            self.repeat(push.id)
            return
        try:
            if known:
                raise PushRefused("same_id", SAME_ID)
            self._object(push)
            terms = push.not_before, push.expires, wall_ms
            if not memory.begun(push.id, *terms, push.command, reach.boot, push.digest):
                raise PushRefused("forgotten", f"{FORGOTTEN}, {memory.doubt}")
        except PushRefused as error:
            if self.refuse(push.digest, error, push):
                facts = {"id": push.id, "digest": push.digest, "reason": error.reason, "detail": str(error)}
                reach.note("refused", of="command", **facts)
            return
        reach.note(
            "command",
            id=push.id,
            command=push.command,
            arguments=dict(_open(push.arguments)),
            signers=list(push.signers),
            digest=push.digest,
        )
        self._waiting.append(_Job(push))
        self._go_on()

    def turn(self) -> None:
        """Take up what has ended; to be called often."""
        now, job = self._reach.now(), self._running
        if job and job.end and job.end[0]:
            self._running = None
            self._ended(job, job.end[0], now)
        elif job and now - job.since >= LONGEST:
            self._running = None
            self._ended(job, Done("failed", LATE), now)
        self._go_on()
        self._keep_ends(now)
        if count := self._refusals.passed(now):
            self._reach.note("refused", of="command", reason="too_many", count=count)

    def repeat(self, id: str) -> None:
        """A command that was begun before came again: tell what came of it."""
        known = self._memory.command(id)
        if (known and not known.outcome and id not in self._unkept) or not self._repeats.take(self._reach.now()):
            return
        if known is None:
            self._tell(id, "", "repeated", FORGOTTEN)
            return
        end = known.outcome, known.detail, known.duration_ms
        outcome, detail, duration = self._unkept.get(id, end)
        self._tell(id, known.command, "repeated", f"it ended before, {outcome}: {detail}", duration, was=outcome)

    def refuse(self, digest: str, error: EnvelopeRefused | PushRefused, push: Push | None = None) -> bool:
        """Tell that a command is not done; whether that was told, and a row of it is due. What is not told is
        counted, and a later row says how often. push: what it says, if that can be read; perhaps nobody has signed
        it."""
        if not self._refusals.take(self._reach.now()):
            return False
        log.warning("the command %s is refused (%s): %s", push.id if push else digest[:12], error.reason, error)
        outcome = "expired" if error.reason == "expired" else "refused"
        id, command = (push.id, push.command) if push else ("", "")
        self._tell(id, command, outcome, f"{error} ({error.reason})")
        return True

    def greet(self, unended: Iterable[Command]) -> None:
        """At a start: tell the end of what was under way when the agent ended."""
        now, wall = self._reach.now(), self._reach.clock()[0]
        ours = {job.push.id for job in (*self._waiting, self._running) if job}
        for command in unended:
            known = self._memory.command(command.id)
            if known and not known.outcome and known.id not in {*ours, *self._unkept}:
                self._end(known.id, known.command, _at_start(known, self._reach.boot), max(0, wall - known.at), now)

    def _object(self, push: Push) -> None:
        """Raise PushRefused unless this terminal does it, now and in this way."""
        word = push.command
        if word not in self._allowed:
            how = "reboot = true" if word == "reboot" else f'"{word}" to commands'
            todo = f"add {how} in [push] of its own file, and restart the agent"
            raise PushRefused("not_allowed", f"this terminal does not do {word} for the centre: {todo}")
        if not ERRANDS[word].fits(push.arguments):
            raise PushRefused("not_valid", f"{word} takes {ERRANDS[word].says}: have it signed so")
        why = f"{WAITS} commands wait here for their turn" if len(self._waiting) >= WAITS else ""
        if ERRANDS[word].disturbs:
            why = why or self._reach.busy()
        if why:
            raise PushRefused("busy", f"{why}: send it again when that has ended")

    def _go_on(self) -> None:
        if self._running is None and self._waiting:
            job = self._running = self._waiting.popleft()
            job.since = self._reach.now()
            threading.Thread(target=self._do, args=(job,), name=f"command:{job.push.id}", daemon=True).start()

    def _do(self, job: _Job) -> None:
        """In the command's own thread."""
        try:
            if self._reach.clock()[0] > job.push.expires:
                job.end.append(Done("expired", "its time was over before its turn came: have it signed anew"))
            elif self._reach.keep():
                job.end.append(ERRANDS[job.push.command].do(job.push, self._reach))
            else:
                why = "the ledger cannot be written now (`tillwire devices` says why)"
                job.end.append(Done("failed", f"{why}, so nothing was done: have it signed anew then"))
        except TillwireError as error:
            job.end.append(Done("failed", str(error)))
        except Exception:
            log.exception("the command %s met a bug", job.push.id)
            job.end.append(Done("failed", "the agent met a bug of its own: see `journalctl -u tillwire`"))

    def _ended(self, job: _Job, done: Done, now: float) -> None:
        self._end(job.push.id, job.push.command, done, round((now - job.since) * 1000), now)

    def _end(self, id: str, command: str, done: Done, duration_ms: int, now: float) -> None:
        pieces = parts(done.data[: PARTS * PART + 1])
        if len(pieces) > PARTS:
            much = f"the answer has {len(done.data)} letters, too much for one command: ask for less at a time"
            done, pieces = Done("failed", much), [""]
        self._unkept[id] = done.outcome, done.detail[:KEPT_LETTERS], duration_ms
        self._keep_ends(now, at_once=True)
        facts = {"id": id, "command": command, "outcome": done.outcome, "detail": done.detail[:LONGEST_DETAIL]}
        self._reach.note("command_ended", **facts, duration_ms=duration_ms)
        for number, piece in enumerate(pieces, 1):
            self._tell(id, command, done.outcome, done.detail, duration_ms, piece, number, len(pieces))

    def _keep_ends(self, now: float, *, at_once: bool = False) -> None:
        """Remember how commands ended; what the disk does not take is tried again."""
        if not self._unkept or (now < self._again and not at_once):
            return
        try:
            for id, end in list(self._unkept.items()):
                self._memory.ended(id, *end)
                del self._unkept[id]
        except StoreError as error:
            self._again = now + AGAIN
            log.error("%s", error)

    def _tell(
        self,
        id: str,
        command: str,
        outcome: str,
        detail: str,
        duration_ms: int = 0,
        data: str = "",
        part: int = 1,
        of: int = 1,
        was: str = "",
    ) -> None:
        said = {
            "outcome": outcome,
            "was": was,
            "detail": detail[:LONGEST_DETAIL],
            "duration_ms": duration_ms,
            "data": data,
        }
        at = self._reach.clock()[0]
        result = Result.model_validate({"at": at, "id": id, "command": command, "part": part, "parts": of, **said})
        try:
            self._reach.tell(RESULT, compact(result), False)
        except TillwireError as error:
            log.error("what came of the command %s cannot be told: %s", id, error)


def parts(text: str) -> list[str]:
    """An answer in pieces that each fit into a message; one that is empty when there is nothing."""
    pieces: list[str] = []
    begin = 0
    while begin < len(text) or not pieces:
        size = PART
        while len(compact(Result(at=0, id="", command="", outcome="done", data=text[begin : begin + size]))) > PART:
            size //= 2
        pieces.append(text[begin : begin + size])
        begin += size
    return pieces


def _at_start(command: Command, boot: str) -> Done:
    """What came of a command that had not ended when the agent did."""
    if command.command == "restart":
        return Done("done", "the agent has ended and begun again")
    if command.command == "reboot" and command.boot != boot:
        return Done("done", "the machine has ended and begun again")
    return Done(
        "failed", "the agent ended while it was at it, and does not do it again: see what is done, and sign it anew"
    )


def _open(arguments: Arguments) -> Arguments:
    """Arguments as everybody may read them; a key order has rows of its own, when it is taken in."""
    return {name: f"{len(str(value))} letters" if name == "order" else value for name, value in arguments.items()}
