"""This file knows what is to be told to the centre beside states and rows: reports and results, kept until the
broker has each.

Any thread may put something in; the uplink takes it out. It outlives a connection: what the broker has not
acknowledged goes out again over the next one, in the same order. It does not outlive the process: each report is
of something that the ledger has, too.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from agent.errors import UplinkError

MOST = 100
"""Messages that wait at most; the oldest are given up first."""
LARGEST = 60_000
"""Bytes of one message, as of a batch of rows (agent/mqtt/publishing.py): a longer answer goes in parts."""


@dataclass(slots=True)
class Letter:
    """One message. `suffix`: its topic below the terminal; `mid`: the id under which it is on its way, or None."""

    suffix: str
    payload: bytes
    retain: bool
    mid: int | None = None


class Outbox:
    """What waits to be told, oldest first. `lost`: how many were given up, because too many waited or the broker
    refused them. instead: what is told in place of a message that the broker cannot take, from its suffix and its
    payload; empty when nothing is."""

    def __init__(self, instead: Callable[[str, bytes], bytes] = lambda suffix, payload: b"") -> None:
        self._instead = instead
        self._letters: list[Letter] = []
        self._lock = threading.Lock()
        self.lost = 0

    def put(self, suffix: str, payload: bytes, retain: bool) -> None:
        """Tell this, after all that waits already. Of a retained topic only the newest counts: it takes the place
        of one that is not on its way yet. Raises UplinkError for a payload above LARGEST."""
        if len(payload) > LARGEST:
            raise UplinkError(f"{suffix} has {len(payload)} bytes, at most {LARGEST} go out: send it in parts")
        with self._lock:
            if retain:
                self._letters = [one for one in self._letters if one.suffix != suffix or one.mid is not None]
            self._letters.append(Letter(suffix, payload, retain))
            self.lost += len(self._letters[:-MOST])
            del self._letters[:-MOST]

    def begin(self) -> None:
        """A new connection: nothing is on its way any more."""
        with self._lock:
            for letter in self._letters:
                letter.mid = None

    def next(self, largest: int) -> Letter | None:
        """The oldest that is not on its way. Those that the broker cannot take, above `largest` bytes, are given
        up, and something else is told."""
        with self._lock:
            for letter in self._letters:
                if len(letter.payload) > largest:
                    letter.payload = self._instead(letter.suffix, letter.payload) or letter.payload
            fit = [one for one in self._letters if len(one.payload) <= largest]
            self.lost += len(self._letters) - len(fit)
            self._letters = fit
            return next((one for one in fit if one.mid is None), None)

    def sent(self, letter: Letter, mid: int) -> None:
        """It is on its way with this id."""
        with self._lock:
            letter.mid = mid

    def taken(self, mid: int) -> None:
        """The broker has the message of this id, which may be none of ours."""
        with self._lock:
            self._letters = [one for one in self._letters if one.mid != mid]

    def refused(self, mid: int) -> str:
        """The broker does not take the message of this id: give it up. Returns its suffix; empty when it is none of
        ours."""
        with self._lock:
            found = next((one for one in self._letters if one.mid == mid), None)
            if found is None:
                return ""
            self._letters.remove(found)
            self.lost += 1
            return found.suffix
