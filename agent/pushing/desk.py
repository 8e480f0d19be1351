"""This file knows who does what with pushes: one thread judges (agent/pushing/judging.py), tries
(agent/pushing/applying.py) and does (agent/pushing/commanding.py) what the centre sends, and what a technician
asks: hold it back, take it back, show it.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from agent.calling import call
from agent.errors import ConfigError, ControlError, StoreError
from agent.model import Heard, Reading
from agent.people.peer import Peer
from agent.pushes import Push
from agent.pushing.applying import Applying, Ended, Hands
from agent.pushing.commanding import Commanding
from agent.pushing.inforce import Begun, Pushed
from agent.pushing.judging import Judging
from agent.pushing.remembered import LONGEST_FREEZE_MS
from agent.pushing.reports import Reports, content_of
from agent.pushing.view import Seen, shown
from agent.timepiece import up_ms

WAITS = 32
"""Messages that wait to be judged, at most."""
TURN = 0.2
MINUTE_MS = 60_000

log = logging.getLogger(__name__)


class PushDesk:
    """`run` is a thread's; it takes up what `hear` (the uplink), `heard` (the links) and `answers` (a technician)
    bring."""

    def __init__(
        self,
        begun: Begun,
        pushed: Pushed,
        hands: Hands,
        reports: Reports,
        commanding: Commanding,
        stop: threading.Event,
    ) -> None:
        config = begun.config
        if config.push is None:
            raise ConfigError("the configuration has no [push]: nothing that is sent is taken")
        self._begun, self._shelf, self._memory = begun, pushed.shelf, pushed.shelf.memory
        self._hands, self._reports = hands, reports
        self._commanding, self._stop = commanding, stop
        self._applying = Applying(pushed.shelf, hands, config.push.probation)
        self._judging = Judging(begun, pushed, hands, reports, commanding, self._applying, self._ended)
        self._queue: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._is_taking_back = False
        self.progress = time.monotonic()

    def hear(self, kind: str, payload: bytes) -> None:
        """The centre has sent something. Returns at once."""
        if self._queue.qsize() < WAITS:
            self._queue.put(lambda: self._judging.take(kind, payload))

    def heard(self, heard: Heard) -> None:
        """A device has said something. Returns at once."""
        probation = self._applying.probation  # of this one only: the next may wait for the device, too
        if probation is None or not probation.awaits(heard.device):
            return
        for item in heard.items:
            if isinstance(item, Reading) and item.point == "link.state" and item.value == "up":
                self._queue.put(lambda: probation.heard(heard.device, time.monotonic()))

    def answers(self, request: Mapping[str, Any], peer: Peer) -> Iterator[dict[str, Any]]:
        """Answer {"do": "pushes", "act": show | freeze (with minutes) | thaw | rollback}. Raises ControlError."""
        act = request.get("act")
        if act not in ("show", "freeze", "thaw", "rollback"):
            raise ControlError("pushes know show, freeze, thaw and rollback", 2)
        if act == "show":
            yield self._call(self._shown)
        elif not peer.owns_agent:
            raise ControlError(f"user {peer.name} may look but not act here: ask root or the agent's own user")
        elif act == "freeze":
            minutes, most = request.get("minutes"), LONGEST_FREEZE_MS // MINUTE_MS
            if type(minutes) is not int or not 0 < minutes <= most:
                raise ControlError(f"pushes are frozen for 1 to {most} minutes", 2)
            yield self._call(lambda: self._freeze(minutes, peer.name))
        elif act == "thaw":
            yield self._call(lambda: self._thaw(peer.name))
        else:
            yield self._call(lambda: self._take_back(peer.name, request.get("version")))

    def run(self) -> None:
        """Take up what comes until `stop` is set."""
        self._greet()
        while not self._stop.is_set():
            self.progress = time.monotonic()
            try:
                with suppress(queue.Empty):
                    self._queue.get(timeout=TURN)()
            except Exception:  # of one message: the next one may be what mends it
                log.exception("something that the centre sent met a bug")
            if ended := self._applying.turn():
                self._ended(ended)
            self._commanding.turn()
            self._judging.turn(time.monotonic())

    def applying(self, push: Push) -> None:
        """A push is on probation: the report goes over what it has brought."""
        self._reports.tell("applying", push)

    @property
    def trust(self) -> int:
        """The version of the signers in force; 0 are those of the terminal's own file."""
        trust = self._judging.pushed.trust
        return trust.version if trust else 0

    @property
    def is_trying(self) -> bool:
        """Whether a push is being tried, or taken back: no key ceremony begins meanwhile."""
        return self._applying.push is not None or self._is_taking_back

    @property
    def in_force(self) -> int:
        """The version that was pushed and is in force; 0: the terminal's own file is."""
        push = self._judging.push
        return push.version if push else 0

    def _ended(self, ended: Ended) -> None:
        if ended.outcome == "committed":
            self._judging.push = ended.push
        self._reports.tell(ended.outcome, ended.push, ended.reason, ended.detail)
        self._told()
        self._judging.soon()

    def _greet(self) -> None:
        """Say how things stand at a start."""
        for trouble in self._judging.pushed.troubles:
            log.error("%s", trouble)
            self._hands.note("trouble", detail=trouble)
        last, push = self._shelf.last, self._judging.push
        match last.outcome:
            case "committed" if unfit := self._judging.pushed.unfit:
                # the centre counts on what was committed: it must not go on to believe that it is in force
                self._reports.tell("rolled_back", None, "unfit", unfit, digest=last.digest, version=last.version)
            case "committed" | "rolled_back" as outcome:
                if not last.told:
                    facts = {"digest": last.digest, "reason": last.reason, "detail": last.detail}
                    self._hands.note(outcome, version=last.version, **facts)
                known = push if push and push.digest == last.digest else None
                self._reports.tell(
                    outcome, known, last.reason, last.detail, digest=last.digest, version=last.version
                )
                self._told()
            case _ if push:
                self._reports.tell("committed", push)
            case _:
                self._reports.again()
        self._commanding.greet(self._judging.pushed.recovered.unended)

    def _told(self) -> None:
        """Once the row is on disk nobody needs to tell it again."""
        try:
            if self._hands.keep():
                self._shelf.told()
        except StoreError as error:
            log.error("%s", error)

    def _freeze(self, minutes: int, by: str) -> dict[str, Any]:
        until, ends = (now + minutes * MINUTE_MS for now in (self._hands.clock()[0], up_ms()))
        self._memory.freeze(until, by, self._hands.boot, ends)
        self._hands.note("frozen", until=until, by=by)
        self._reports.again()
        return {"frozen_until": until}

    def _thaw(self, by: str) -> dict[str, Any]:
        self._memory.thaw()
        self._hands.note("thawed", by=by)
        self._reports.again()
        self._judging.soon()
        return {"frozen_until": 0}

    def _take_back(self, by: str, shown: object) -> dict[str, Any]:
        """Roll back what is on probation, else take back what is in force. shown: the version that was meant."""
        why, newest = f"{by} took it back at the terminal", self._applying.push or self._judging.push
        if shown is not None and newest and shown != newest.version:
            raise ControlError(f"version {newest.version} is there by now, not {shown}: look at it again", 1)
        if trying := self._applying.push:
            if ended := self._applying.roll_back("technician", why):
                self._ended(ended)
            return {"rolled_back": trying.version}
        gone, before = self._shelf.in_force(), self._shelf.before()
        if gone is None:
            raise ControlError("nothing that was pushed is in force: the terminal's own file counts", 1)
        self._is_taking_back = True  # before it is asked whether a ceremony has begun, as in applying.py
        try:
            if busy := self._hands.busy():
                raise ControlError(f"{busy}: end that first", 1)
            old, push = self._begun.back_to(before)
            self._shelf.recall("technician", why)
            self._judging.push = push
            facts = {"version": gone.version, "digest": gone.digest}
            self._hands.note("rolled_back", **facts, reason="technician", detail=why)
            self._applying.take_up(old)
        finally:
            self._is_taking_back = False
        self._reports.tell("rolled_back", None, "technician", why, digest=gone.digest, version=gone.version)
        self._told()
        return {"rolled_back": gone.version, "in_force": before.version if before else 0}

    def _shown(self) -> dict[str, Any]:
        waits = self._judging.waits
        return shown(
            Seen(
                begun=self._begun,
                config=self._hands.config(),
                push=self._judging.push,
                trying=self._applying.push,
                left=self._applying.left,
                silent=self._applying.silent,
                waiting=content_of(waits.payload) if waits else None,
                reason=waits.reason if waits else "",
                report=self._reports.now,
                freeze=self._memory.frozen(self._hands.clock()[0], self._hands.boot, up_ms()),
                decisions=self._memory.decisions,
                pushed=self._judging.pushed,
            )
        )

    def _call(self, do: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        return call(self._queue.put, do, "the agent is at work on a push: ask again in a minute")
