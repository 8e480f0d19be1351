"""This file knows what the centre has sent and is not done with: what waits to be judged again, and what was
refused and is known when it comes again.

Of each kind one message waits. Whoever sends something that counts for nothing, or an older version of what is
signed, does not take away what waits: only what is taken up in its place does, a newer one that waits as well, or
whoever takes away what is retained (agent/pushing/judging.py). Nor does anybody fill the ledger or the line: what
is told of refusals is rationed, for each kind by itself.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from agent.ration import Ration

REMEMBERED = 64
"""Envelopes that were refused and are known when they come again."""
KEPT = 4
"""Of those the ones that are kept as they came."""
A_MINUTE = 20
"""Refusals of one kind that are told in a minute, at most."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message that is judged again. version: 0 when it has none."""

    kind: str
    payload: bytes = field(repr=False)
    reason: str
    version: int = 0


class Pending:
    """For one thread."""

    def __init__(self) -> None:
        self._waiting: dict[str, Waiting] = {}
        self._refused: dict[str, str] = {}
        self._unsigned: dict[str, bytes] = {}
        self._told: dict[str, Ration] = {}

    def __iter__(self) -> Iterator[Waiting]:
        return iter([self._waiting[kind] for kind in sorted(self._waiting)])

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def of(self, kind: str) -> Waiting | None:
        """What waits of a kind."""
        return self._waiting.get(kind)

    def is_known(self, payload: bytes) -> bool:
        """Whether these very bytes were refused, and would be again. A clock that was ahead may be right by now."""
        return self._refused.get(_name(payload), "expired") != "expired"

    def refuse(self, payload: bytes, reason: str, unsigned: bool = False) -> bool:
        """Know these bytes when they come again; whether this is news. unsigned: others may sign for it one day, so
        it is kept as it came."""
        name = _name(payload)
        is_news = self._refused.pop(name, "") != reason
        self._refused[name] = reason
        if unsigned:
            self._unsigned[name] = payload
        for kept, most in ((self._refused, REMEMBERED), (self._unsigned, KEPT)):
            while len(kept) > most:
                del kept[next(iter(kept))]
        return is_news

    def forgive(self) -> list[bytes]:
        """What was refused may count by now, for others may sign: returns what came of that kind last."""
        found = list(self._unsigned.values())
        self._refused.clear()
        self._unsigned.clear()
        return found

    def take(self, kind: str) -> Waiting | None:
        """What waits of a kind, to be overtaken."""
        return self._waiting.pop(kind, None)

    def put(self, new: Waiting, was: Waiting | None) -> bool:
        """Have a message wait, in place of what waited; whether it does: an older version does not."""
        is_older = was is not None and was.version > new.version
        self._waiting[new.kind] = was if was and is_older else new
        return not is_older

    def put_back(self, was: Waiting | None, refused: bytes) -> None:
        """What came in its place was refused: it goes on waiting, unless it was that itself."""
        if was and was.payload != refused:
            self._waiting.setdefault(was.kind, was)

    def may_tell(self, kind: str, now: float) -> bool:
        """Whether one more refusal of this kind may be told; if not, it is counted."""
        return self._told.setdefault(kind, Ration(A_MINUTE)).take(now)

    def untold(self, now: float) -> list[tuple[str, int]]:
        """Once a minute is over: of which kind how many were counted in it."""
        return [(kind, count) for kind, ration in self._told.items() if (count := ration.passed(now))]


def _name(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()
