"""This file knows how a pushed configuration is tried: each step is on disk and in the ledger before it is taken,
and what does not prove itself in time is taken back.

The steps are those of agent/pushing/probation.py, the disk is agent/pushing/shelf.py, the links are swapped by
agent/service.py. Whatever this thread meets on the way (a disk that takes nothing, a bug in a path that only the
new one takes) ends in what was in force before.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from agent.clock import Quality
from agent.config import Config
from agent.errors import PushRefused, StoreError
from agent.pushes import Push
from agent.pushing.probation import Probation, awaited
from agent.pushing.shelf import Shelf
from agent.pushing.swapping import Difference

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a push ended."""

    push: Push
    outcome: Literal["committed", "rolled_back"]
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Hands:
    """What can be done to the rest of the agent.

    config    what is in force
    take      takes another one; raises whatever went wrong
    change    what it would change
    answers   the devices whose link is up now, as far as is known
    unheard   the devices of which that is not known yet
    back      what was tried is taken back: these answered before it
    deaf      why no push is heard over the uplink as it is now, as a sentence; empty when they are
    proven    when the newest message was sent that a broker has taken, over the uplink as it is now (monotonic s)
    note      a row of the ledger: event, facts
    keep      waits until every row so far is on disk; whether it is
    applying  the centre is told that a push is being tried
    clock     wall clock (ms) and how good it is
    busy      what is under way that no push may disturb, as a sentence; empty when nothing is
    restart   the agent ends, and begins again
    boot      an id of this boot of the machine
    """

    config: Callable[[], Config]
    take: Callable[[Config], object]
    change: Callable[[Config, Config], Difference]
    answers: Callable[[], frozenset[str]]
    unheard: Callable[[], tuple[str, ...]]
    back: Callable[[frozenset[str]], None]
    deaf: Callable[[], str]
    proven: Callable[[], float]
    note: Callable[..., None]
    keep: Callable[[], bool]
    applying: Callable[[Push], None]
    clock: Callable[[], tuple[int, Quality]]
    busy: Callable[[], str]
    restart: Callable[[], None]
    boot: str


class Applying:
    """For one thread. seconds: how long a push is on probation."""

    def __init__(self, shelf: Shelf, hands: Hands, seconds: float) -> None:
        self._shelf, self._hands, self._seconds = shelf, hands, seconds
        self.push: Push | None = None
        self.probation: Probation | None = None
        self._old: Config | None = None
        self._answered: frozenset[str] = frozenset()
        self._is_wired = False
        self._since = 0.0

    @property
    def left(self) -> float:
        """Seconds of the probation that are left; 0 when there is none."""
        return max(0.0, self.probation.deadline - time.monotonic()) if self.probation else 0.0

    @property
    def silent(self) -> tuple[str, ...]:
        """The devices that have not answered yet."""
        return self.probation.silent if self.probation else ()

    def begin(self, push: Push, envelope: bytes, new: Config) -> Ended | None:
        """Try a push that was judged. Raises StoreError or PushRefused, with nothing changed, when the disk does
        not take it, or a key ceremony has begun meanwhile."""
        hands, old = self._hands, self._hands.config()
        change, answered = hands.change(old, new), hands.answers()
        facts = {"version": push.version, "id": push.id, "digest": push.digest}
        self.push = push  # before it is asked for the last time whether one has begun: from now on none begins
        try:
            if why := hands.busy():
                raise PushRefused("busy", f"{why}: it is looked at again after")
            self._stage(envelope, push, facts, change.sentences)
        except BaseException:  # whatever it is: nothing is being tried, and orders may be opened again
            self.push = None
            raise
        self._old, self._answered, self._is_wired = old, answered, change.uplink
        try:
            hands.note("applying", **facts, links=sorted({*change.ended, *change.begun}), uplink=change.uplink)
            hands.take(new)
            self._shelf.step("probation")
            self._since = time.monotonic()
            waits = awaited(new.devices, change.added, answered - _overheard(new, change.kept))
            self.probation = Probation(waits, self._since + self._seconds, hands.deaf() if change.uplink else "")
        except Exception as error:  # whatever it is: the old configuration works
            log.exception("version %d cannot be applied", push.version)
            return self.roll_back("not_applied", str(error))
        hands.applying(push)
        return None

    def turn(self) -> Ended | None:
        """See whether it is decided."""
        if self.probation is None or self.push is None:
            return None
        if self._hands.proven() >= self._since:
            self.probation.acked(time.monotonic())
        if self._is_wired:
            self.probation.listens(self._hands.deaf(), time.monotonic())
        match self.probation.due(time.monotonic()):
            case "":
                return None
            case "commit":
                return self._commit(self.push)
            case why:
                return self.roll_back(self.probation.reason, why)

    def roll_back(self, reason: str, detail: str) -> Ended | None:
        """Take back what is being tried; None when nothing is, or when a start has to do it (`take_up`)."""
        push, old = self.push, self._old
        if push is None or old is None:
            return None
        self.probation = None
        facts: dict[str, Any] = {"version": push.version, "reason": reason, "detail": detail}
        try:
            self._shelf.step("rolling_back", reason=reason, detail=detail)
        except StoreError as error:
            log.error("%s", error)  # a start decides the same
        self._hands.note("rolling_back", **facts)
        if not self.take_up(old):
            return None
        self._hands.back(self._answered)
        try:
            self._shelf.reject(reason, detail)
        except StoreError as error:
            log.error("%s", error)
        return self._end(push, "rolled_back", reason, detail)

    def take_up(self, old: Config) -> bool:
        """Run with what counts again; whether that could be done. If not, the agent begins again: a start takes
        what counts, with nothing left of what was tried."""
        try:
            self._hands.take(old)
        except Exception as error:  # whatever it is
            log.exception("what counts cannot be taken up again")
            self._hands.note("trouble", detail=f"what counts cannot be taken up ({error}): the agent begins again")
            self._hands.restart()
            return False
        return True

    def _commit(self, push: Push) -> Ended | None:
        try:
            self._shelf.commit()
        except StoreError as error:
            return self.roll_back("not_stored", str(error))
        return self._end(push, "committed")

    def _end(
        self, push: Push, outcome: Literal["committed", "rolled_back"], reason: str = "", detail: str = ""
    ) -> Ended:
        self._hands.note(
            outcome, version=push.version, id=push.id, digest=push.digest, reason=reason, detail=detail
        )
        self.push = self._old = self.probation = None
        return Ended(push, outcome, reason, detail)

    def _stage(self, envelope: bytes, push: Push, facts: Mapping[str, Any], changes: list[str]) -> None:
        self._shelf.stage(envelope, push.version, push.digest)
        try:
            self._hands.note("staged", **facts, signers=list(push.signers), changes=changes)
            self._stored()
            self._shelf.step("applying")
        except StoreError:
            self._shelf.drop()
            raise

    def _stored(self) -> None:
        if not self._hands.keep():
            raise StoreError("the ledger cannot be written now: `tillwire devices` says why")


def _overheard(config: Config, names: Iterable[str]) -> frozenset[str]:
    """Devices that only others ask: on a line that nobody touched, silence says nothing."""
    return frozenset(name for name in names if config.devices[name].access == "listen")
