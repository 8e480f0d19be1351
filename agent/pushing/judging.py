"""This file knows what becomes of each message that the centre sends: it is acted on, waits, or is refused; and
what is told of that.

What waits for something that goes away by itself (a freeze, a key ceremony, the clock, its own time, devices that
were not heard yet) is judged again until it counts, is overtaken or is taken away by its sender. What is refused is
a row of the ledger and a report; the same bytes that come again with each connection are neither.

What an envelope says is believed once two people have signed it: of another a report has no more than its digest,
and a copy of what was decided or is under way, with a signature less, changes no report.
"""

import logging
import time
from collections.abc import Callable

from agent.crypto.signing import COMMAND, CONFIGURATION
from agent.crypto.trust import Trust
from agent.errors import ConfigError, EnvelopeRefused, PushRefused, StoreError
from agent.lines import nodes
from agent.pushes import WAITING, Push, Site, Standing, judge, read, refuse
from agent.pushing.applying import Applying, Ended, Hands
from agent.pushing.commanding import Commanding
from agent.pushing.inforce import Begun, Pushed
from agent.pushing.pending import Pending, Waiting
from agent.pushing.reports import Reports, content_of, digest_of
from agent.timepiece import up_ms

DESIRED, ORDER, SIGNERS = "config/desired", "command", "trust/desired"
AGAIN = 5.0
"""Seconds after which what waits is judged again."""
NAMED = 5
"""Devices that a sentence names."""

Refused = EnvelopeRefused | PushRefused

log = logging.getLogger(__name__)


class Judging:
    """For one thread.

    ended    called with how a push ended that was taken up here
    push     in force; None: the terminal's own file is
    pushed   whose signatures count
    """

    def __init__(
        self,
        begun: Begun,
        pushed: Pushed,
        hands: Hands,
        reports: Reports,
        commanding: Commanding,
        applying: Applying,
        ended: Callable[[Ended], None],
    ) -> None:
        terminal = begun.config.terminal
        self.push, self.pushed = begun.push, pushed
        self._begun, self._memory = begun, pushed.shelf.memory
        self._hands, self._reports, self._ended = hands, reports, ended
        self._commanding, self._applying = commanding, applying
        self._site = Site(terminal.org, terminal.id, terminal.groups)
        self._pending = Pending()
        self._objected: set[str] = set()
        """Digests of what was not valid here, since the start: after the next one it may be."""
        self._late: dict[str, tuple[bytes, Refused]] = {}
        """Of each kind a refusal that was not told, because of too many others."""
        self._again = 0.0
        self._listens = False
        """Whether something waits for devices that were not heard yet."""

    @property
    def waits(self) -> Waiting | None:
        """The first that waits."""
        return next(iter(self._pending), None)

    def take(self, kind: str, payload: bytes) -> None:
        """Act on a message, have it wait, or refuse it."""
        if not payload:
            self._taken_away(kind)
            return
        if self._pending.is_known(payload):
            return
        waited = self._pending.take(kind)
        try:
            if kind == SIGNERS:
                self._rotate(payload)
            else:
                self._accept(kind, payload)
            return
        except PushRefused as error:
            if error.reason in WAITING and kind != ORDER:
                self._put_off(kind, payload, waited, error.reason, str(error))
            elif error.reason != "replayed":
                self._refuse(kind, payload, error, waited)
            elif push := content_of(payload):
                self._repeat(push)
        except EnvelopeRefused as error:
            self._refuse(kind, payload, error, waited)
        except StoreError as error:
            self._put_off(kind, payload, waited, "busy", str(error))
        self._pending.put_back(waited, payload)

    def turn(self, now: float) -> None:
        """Do what is due; to be called often."""
        for kind, count in self._pending.untold(now):
            self._hands.note("refused", of=kind, reason="too_many", count=count)
            if late := self._late.pop(kind, None):
                self._tell_refused(kind, *late, self._pending.of(kind))
        if self._pending and (now >= self._again or (self._listens and not self._hands.unheard())):
            self.again()

    def again(self) -> None:
        """Judge what waits."""
        self._again, self._listens = time.monotonic() + AGAIN, False
        for one in self._pending:
            self.take(one.kind, one.payload)

    def soon(self) -> None:
        """Judge it with the next turn."""
        self._again = 0.0

    def _accept(self, kind: str, payload: bytes) -> None:
        """Act on an order or a configuration. Raises EnvelopeRefused, PushRefused or StoreError."""
        push = read(self._trusted().accept(payload, COMMAND if kind == ORDER else CONFIGURATION))
        wall, quality = self._hands.clock()
        standing = Standing(
            version=self._memory.newest,
            trust=self.pushed.trust.version if self.pushed.trust else 0,
            decided=frozenset({push.digest} if self._is_decided(push.digest) else ()),
            frozen=self._memory.frozen(wall, self._hands.boot, up_ms()) is not None,
            busy=push.kind == "configuration" and bool(self._applying.push or self._hands.busy()),
        )
        if self._applying.push and self._applying.push.digest == push.digest:
            return  # it comes again over the connection that it has brought
        judge(push, self._site, standing, wall, quality)
        if kind == ORDER:
            self._commanding.begin(push, wall)
            return
        try:
            new = self._begun.with_push(push.config)
            if new.broker is None:
                raise ConfigError("[broker] is missing: nobody could reach this terminal any more; push it, too")
            nodes.check(new)
        except ConfigError as error:
            refuse("not_valid", str(error))
        if unheard := self._hands.unheard():
            self._listens = True
            names = ", ".join(unheard[:NAMED])
            raise PushRefused(
                "busy",
                f"not heard yet since their lines were opened: {names}; it is looked at again within a minute",
            )
        if ended := self._applying.begin(push, payload, new):
            self._ended(ended)

    def _is_decided(self, digest: str) -> bool:
        known = self._memory.known(digest)
        if known and (known.outcome, known.reason) == ("refused", "not_valid"):
            return digest in self._objected  # by an agent, a file and a disk that may have been put right since
        return known is not None

    def _rotate(self, payload: bytes) -> None:
        """Take a chain of rotations. Raises as `_accept`."""
        trust, last = self._trusted(), _named(SIGNERS, payload)
        if self._memory.known(digest_of(last)) and (known := content_of(last)) and known.version <= trust.version:
            return  # else it was followed, and another file of signers has taken the set away since
        new, step = trust.led(payload)
        push = content_of(step) or refuse("not_valid")
        wall, quality = self._hands.clock()
        judge(push, self._site, Standing(trust=trust.version), wall, quality)
        self.pushed = self.pushed.with_trust(new)
        self._hands.note("signers", version=new.version, signers=[s.name for s in new.signers])
        self._reports.rotation()
        try:
            self._memory.remember(push.digest, 0, "committed")
        except StoreError as trouble:  # the set is on disk: it counts
            log.error("%s", trouble)
        for refused in self._pending.forgive():  # under the old set: it may count now
            self.take(DESIRED, refused)

    def _trusted(self) -> Trust:
        if self.pushed.trust is None:
            raise StoreError(self.pushed.distrust)
        return self.pushed.trust

    def _taken_away(self, kind: str) -> None:
        """Whoever may write there has taken away what is retained: it does not wait any more."""
        gone = self._pending.take(kind)
        if gone is None:
            return
        self._hands.note("withdrawn", of=kind, digest=digest_of(_named(kind, gone.payload)), version=gone.version)
        if kind == SIGNERS:
            self._reports.rotation()
        elif self._reports.now.outcome == "waiting":
            self._reports.tell("committed" if self.push else "none", self.push)

    def _put_off(self, kind: str, payload: bytes, waited: Waiting | None, reason: str, why: str) -> None:
        """What cannot be acted on now is kept, and judged again; but a command may be sent again by its sender."""
        named = _named(kind, payload)
        if kind == ORDER:
            self._commanding.refuse(digest_of(named), PushRefused(reason, why), content_of(named))
            return
        push = content_of(named) if self.pushed.trust else None  # else nobody knows who has signed it
        if not self._pending.put(Waiting(kind, payload, reason, push.version if push else 0), waited):
            return
        self._again = time.monotonic() + AGAIN
        now, digest = self._reports.now, digest_of(named)
        if kind == DESIRED and (now.outcome, now.digest, now.reason) != ("waiting", digest, reason):
            self._reports.tell("waiting", push, reason, why, digest=digest)
        if kind == SIGNERS and (now.trust_digest, now.trust_reason) != (digest, reason):
            self._reports.rotation(reason, why, digest)

    def _refuse(self, kind: str, payload: bytes, error: Refused, waited: Waiting | None) -> None:
        if not self._pending.refuse(payload, error.reason, isinstance(error, EnvelopeRefused) and kind == DESIRED):
            return  # it was looked at again, and nothing has changed
        named = _named(kind, payload)
        digest = digest_of(named)
        if kind == ORDER:
            if self._commanding.refuse(digest, error, content_of(named)):
                self._hands.note("refused", of=kind, digest=digest, reason=error.reason)
            return
        # Not those of an envelope: its content may come with the right signatures. And a clock may be put right.
        lasts = isinstance(error, PushRefused) and error.reason not in ("expired", "wrong_target", "older")
        if not lasts and not self._pending.may_tell(kind, time.monotonic()):
            before = self._late.get(kind)
            if digest and (
                before is None or isinstance(error, PushRefused) or isinstance(before[1], EnvelopeRefused)
            ):
                self._late[kind] = payload, error
            return
        if kind == DESIRED and lasts:
            self._remember(digest, content_of(named), error)
        self._tell_refused(kind, payload, error, waited)

    def _remember(self, digest: str, push: Push | None, error: Refused) -> None:
        """Know the content of what was refused for good."""
        if error.reason == "not_valid":
            self._objected.add(digest)
        try:
            self._memory.remember(digest, push.version if push else 0, "refused", error.reason, str(error))
        except StoreError as trouble:
            log.error("%s", trouble)

    def _tell_refused(self, kind: str, payload: bytes, error: Refused, waited: Waiting | None) -> None:
        """As a row and in a report."""
        named = _named(kind, payload)
        digest, is_ours = digest_of(named), isinstance(error, PushRefused)
        log.warning("%s is refused (%s): %s", kind, error.reason, error)
        self._hands.note("refused", of=kind, digest=digest, reason=error.reason, detail=str(error))
        if kind == SIGNERS:
            self._reports.rotation(error.reason, str(error), digest)
            return
        open_ones = {
            digest_of(waited.payload) if waited else "",
            self._applying.push and self._applying.push.digest,
        }
        if not is_ours and digest and (digest in open_ones or self._memory.known(digest)):
            return  # a copy with a signature less: what became of the content stays told
        self._reports.tell(
            "refused", content_of(named) if is_ours else None, error.reason, str(error), digest=digest
        )

    def _repeat(self, push: Push) -> None:
        """What was decided before was sent again: its sender may not have heard of it."""
        now = self._reports.now
        if push.kind == "command":
            self._commanding.repeat(push.id)
        elif (known := self._memory.known(push.digest)) and (now.digest, now.outcome, now.reason) != (
            *(push.digest, known.outcome, known.reason),
        ):
            self._reports.decided(known, push)


def _named(kind: str, payload: bytes) -> bytes:
    """The envelope by which a message is named: of a chain of rotations the last."""
    return payload.strip().rpartition(b"\n")[2] if kind == SIGNERS else payload
