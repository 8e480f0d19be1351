"""This file knows whether the EPP's slots are as the ledger says: it looks at every start and every hour, judges,
and tells three points of the EPP: keys.service (may the terminal serve customers), keys.duty (is anything due)
and keys.sealing (who keeps the agent's own secrets).

It looks only while no ceremony runs. What it finds anew becomes rows; what it asks is not ledgered question by
question, but as one row `slots` for each look.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from agent.crypto import guards
from agent.crypto.holdings import Holdings
from agent.crypto.kcv import Kcv
from agent.crypto.phrases import SERVICE, Words
from agent.keys.surveying import AGAIN, HOURLY, SOON, Survey
from agent.keys.table import Keys
from agent.model import Heard, Note, Operation, Outcome, Reading
from agent.ration import Ration

REPEAT = 5.0
"""Seconds after which the points are told again."""
SIGN_ONS = 10
"""Looks in a minute that begin because somebody says that there was a sign-on; one more waits for the next."""
PREFIX = "~look-"
"""Of the ids of questions; no order's id can begin so."""
_OVERDUE = {"received_late", "installed_late", "papers_late", "age_over"}

log = logging.getLogger(__name__)


class KeyGuard:
    """The looks of one terminal. findings: what the last good one found. seen: what it saw; None before it."""

    def __init__(
        self,
        table: Keys,
        terminal: str,
        put: Callable[[Heard | Operation | Note], None],
        perform: Callable[[Operation], None],
    ) -> None:
        self._table, self._terminal, self._put, self._perform = table, terminal, put, perform
        self._survey: Survey | None = None
        self._given_up: Survey | None = None
        self._looks, self._look_at, self._worthless = 0, 0.0, 0
        self._signed_on = self._told_on = False
        self._sign_ons = Ration(SIGN_ONS)
        self._before: dict[str, Kcv] = {}
        self._said, self._say_at = ("", ""), 0.0
        self.findings: list[guards.Finding] = []
        self.seen: dict[str, guards.Seen] | None = None
        self._serial = ""
        """The serial number that was judged last."""
        self.sealing = ("none", "")
        """At which level the agent's own secrets are kept, and why not at another."""

    @staticmethod
    def asked(outcome: Outcome) -> bool:
        """Whether an outcome answers a question of a look, which no row tells of."""
        return outcome.operation.startswith(PREFIX)

    def take(self, outcome: Outcome) -> bool:
        """Take such an outcome; whether it was one."""
        for survey in (self._survey, self._given_up):
            if survey is not None:
                survey.take(outcome)
        return self.asked(outcome)

    def give_way(self) -> None:
        """Ask no more: a ceremony begins. What was asked is still `pending` until it is answered."""
        self._given_up, self._survey = self._survey or self._given_up, None
        self._serial = ""

    def pending(self, now: float) -> bool:
        """Whether the EPP is busy with a question of a look; it does one thing at a time."""
        return any(survey is not None and survey.pending(now) for survey in (self._survey, self._given_up))

    def look(self, *, signed_on: bool = False, anew: bool = False) -> None:
        """Look as soon as possible. signed_on: the host has just given new working keys; anybody may say so, and
        the look waits for the next minute when that was too often in this one. anew: it may be another EPP, or one
        that was opened, so what was seen before counts no more."""
        if signed_on:
            self._told_on = True
            return
        # A look that is under way began before whatever has happened: half of it would be of an older time.
        self.give_way()
        self._look_at = 0.0
        if anew:
            self.seen = None

    def service(self, answers: bool = True) -> tuple[str, Words]:
        """Whether the slots let the terminal serve customers: ok, stopped or unknown; and why. answers: whether the
        EPP can be asked."""
        if critical := [found for found in self.findings if found.critical]:
            said = "; ".join(found.en for found in critical), "；".join(found.zh for found in critical)
            return "stopped", Words(*said)
        if not answers:
            return "unknown", SERVICE["silent"]
        if self.seen is None:
            return "unknown", SERVICE["unseen"]
        return "ok", SERVICE["well"]

    def turn(
        self, now: float, wall: int, serial: str, slots: Iterable[str], held: Callable[[], Holdings]
    ) -> list[dict[str, Any]]:
        """Go on with a look, or begin one that is due. slots: what the EPP told of by itself. Returns new rows."""
        rows: list[dict[str, Any]] = []
        if self._told_on and self._sign_ons.take(now):
            self._told_on, self._signed_on = False, True
            self.look()
        if serial != self._serial:
            # Before any slot, and not only by a good look: another EPP may never tell of its slots.
            self._serial = serial
            rest = [old for old in self.findings if old.word != "serial_changed"]
            rows = self._note([*guards.serial(serial, held()), *rest], serial)
        if self._survey is None:
            if now < self._look_at or self.pending(now):
                return rows
            self._looks += 1
            table = self._table
            ours = held().slots
            every = {*ours, *table.slots, *table.working, *table.inherited, *slots}
            cmac = [slot for slot, key in ours.items() if key.kcv is not None and key.kcv.method == "cmac"]
            self._survey = Survey(f"{PREFIX}{self._looks}", every, cmac)
        survey = self._survey
        if slot := survey.next(now):
            self._perform(Operation(survey.id_of(slot), self._table.epp, "key_check", "agent", {"slot": slot}))
        if not survey.done:
            return rows
        self._worthless = 0 if survey.good else self._worthless + 1
        wait = HOURLY if survey.good else min(AGAIN, SOON * 2.0 ** (self._worthless - 1))
        self._survey, self._look_at = None, now + wait
        return rows + (self._judge(survey, wall, serial, held()) if survey.good else [])

    def say(self, now: float, service: str, why: Words) -> None:
        """Tell the points. service, why: what holds, a ceremony included."""
        words = {found.word for found in self.findings}
        duty = "overdue" if words & _OVERDUE else "due" if "age_due" in words else "ok"
        if (service, duty) != self._said or now >= self._say_at:
            self._said, self._say_at = (service, duty), now + REPEAT
            late = "; ".join(found.en for found in self.findings if found.word in {*_OVERDUE, "age_due"})
            readings = (
                Reading("keys.service", service, now, why.en),
                Reading("keys.duty", duty, now, late),
                Reading("keys.sealing", self.sealing[0], now, self.sealing[1]),
            )
            self._put(Heard(self._table.epp, readings))

    def _judge(self, survey: Survey, wall: int, serial: str, held: Holdings) -> list[dict[str, Any]]:
        table = self._table
        known = {slot for slot, key in held.slots.items() if key.state == "loaded"}
        unread = {slot: guards.Seen("loaded") for slot in survey.silent if slot in known}
        others = (*table.working, *table.inherited)
        production = table.hierarchy == "production"
        found = guards.serial(serial, held)
        found += guards.slots(survey.seen | unread, held, production=production, working=others)
        found += guards.wrapping(held) + guards.clocks(held, wall, table.utc_offset) + guards.papers(held, wall)
        found += guards.age(held, wall, table.age_days) if table.age_days else []
        after = {slot: seen.kcv for slot, seen in survey.seen.items() if slot in table.working and seen.kcv}
        if self._signed_on:
            found += guards.unchanged(self._before, after, table.working)
        self._signed_on, self._before = False, after
        self.seen = survey.seen
        self._put(Note("slots", _row(survey, found, serial)))
        return self._note(found, serial)

    def _note(self, found: list[guards.Finding], serial: str) -> list[dict[str, Any]]:
        """Take over what was found; the rows of what was not found before."""
        before = {_which(old) for old in self.findings}
        fresh = [new for new in found if _which(new) not in before]
        self.findings = found
        for finding in fresh:
            log.warning("keys: %s", finding.en)
        return guards.rows(fresh, self._terminal, serial)


def _which(found: guards.Finding) -> tuple[str, str, str]:
    """What makes it another finding: also the order, or the other slot, that it names; not the days that pass."""
    return found.word, found.slot, str(found.facts.get("order", found.facts.get("other", "")))


def _row(survey: Survey, found: Iterable[guards.Finding], serial: str) -> Mapping[str, Any]:
    slots = {
        slot: " ".join(filter(None, (seen.state, seen.kcv.value.hex().upper() if seen.kcv else "", seen.usage)))
        for slot, seen in survey.seen.items()
    }
    words = sorted(f"{one.word} {one.slot}".strip() for one in found)
    return {"serial": serial, "slots": slots, "silent": survey.silent, "findings": words}
