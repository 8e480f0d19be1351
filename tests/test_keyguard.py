"""The hourly look at the key slots: what is asked, judged, told and written. Time is a number, the EPP a page."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.crypto.holdings import DAY_MS, Holdings, fold
from agent.crypto.kcv import Kcv
from agent.crypto.phrases import Words
from agent.crypto.steps import Ask
from agent.keys.guard import PREFIX, REPEAT, SIGN_ONS, KeyGuard
from agent.keys.surveying import AGAIN, HOURLY, PATIENCE, SOON
from agent.keys.table import Keys
from agent.model import Heard, Note, Operation, Outcome
from agent.pasted import is_name
from agent.ration import MINUTE
from tests.ceremonies import SITE, WALL, Epp, Terminal, kcv, order, whole

TMK = ("loaded", whole(2))
SWITCH = {"panel1.operator_switch": "maintenance"}


class Watch:
    """A guard with its EPP and its ledger. put, performed: what it gave away. alarms: word and slot of its rows."""

    def __init__(self, rows: list[dict[str, Any]] | None = None, **table: Any) -> None:
        usual = {"epp": "epp1", "hierarchy": "production", "signers": Path("s"), "maintenance": SWITCH}
        self.table = Keys.model_validate({**usual, "stopped": SWITCH, **table})
        self.put: list[Heard | Operation | Note] = []
        self.performed: list[Operation] = []
        self.guard = KeyGuard(self.table, SITE.terminal, self.put.append, self.performed.append)
        self.epp = Epp({"TMK": TMK})
        self.rows = loaded() if rows is None else rows
        self.alarms: list[tuple[str, str]] = []
        self.serial, self.now, self.wall = SITE.epp_serial, 100.0, WALL

    def held(self) -> Holdings:
        return fold(self.rows)

    def turn(self, slots: Iterable[str] = ()) -> None:
        found = self.guard.turn(self.now, self.wall, self.serial, slots, self.held)
        self.rows += [{**row, "at": self.wall} for row in found]
        self.alarms += [(row["word"], row["slot"]) for row in found if row["event"] == "alarm"]

    def answer(self, change: Callable[[Outcome], Outcome] = lambda outcome: outcome) -> None:
        """Let the EPP answer what was asked last."""
        asked = self.performed[-1]
        told = self.epp.perform(Ask(asked.id, asked.verb, {"slot": str(asked.arguments["slot"])}))
        outcome = change(Outcome(told.id, told.result, "", self.now, told.raw, told.facts))
        assert self.guard.take(outcome)

    def look(self, later: float = 0.0, slots: Iterable[str] = ()) -> list[tuple[str, str]]:
        """A whole look after so many seconds; the alarms that it raised."""
        self.now += later
        before, asked = len(self.alarms), len(self.performed)
        self.turn(slots)
        while len(self.performed) > asked:
            asked = len(self.performed)
            self.answer()
            self.turn(slots)
        return self.alarms[before:]

    def asked(self) -> list[object]:
        return [operation.arguments["slot"] for operation in self.performed]

    def readings(self) -> list[dict[str, Any]]:
        """Point -> value, of each time that the points were told."""
        told = [item for item in self.put if isinstance(item, Heard)]
        return [{item.point: item.value for item in heard.items if not isinstance(item, Outcome)} for heard in told]


def loaded() -> list[dict[str, Any]]:
    """The rows of a terminal into whose slot TMK a key was loaded."""
    terminal = Terminal()
    terminal.load(order())
    return terminal.rows


def test_a_look_asks_every_slot_and_is_one_row() -> None:
    watch = Watch(slots=["ZMK"], working=["TPK"], inherited=["OLD"])
    watch.epp.slots["OLD"] = ("loaded", 5)
    assert watch.look(slots=["MAK"]) == []
    assert watch.asked() == ["MAK", "OLD", "TMK", "TPK", "ZMK"]
    assert {(asked.device, asked.verb, asked.by) for asked in watch.performed} == {("epp1", "key_check", "agent")}
    slots = {"MAK": "missing", "OLD": f"loaded {kcv(5)}", "TMK": f"loaded {kcv(TMK[1])}"}
    slots |= {"TPK": "missing", "ZMK": "missing"}
    about = {"serial": SITE.epp_serial, "slots": slots, "silent": [], "findings": []}
    assert watch.put == [Note("slots", about)]
    assert watch.guard.service() == ("ok", ("", ""))


def test_it_is_looked_at_the_start_and_every_hour() -> None:
    watch = Watch()
    watch.look()
    watch.look(HOURLY - 1.0)
    assert len(watch.performed) == 1
    watch.look(1.0)
    assert len(watch.performed) == 2
    assert len({asked.id for asked in watch.performed}) == 2


def test_the_ids_of_its_questions_are_its_own() -> None:
    watch = Watch()
    watch.turn()
    assert KeyGuard.asked(Outcome(watch.performed[0].id, "done", "", 0.0))
    assert not KeyGuard.asked(Outcome("KO-1.1", "done", "", 0.0))
    assert not watch.guard.take(Outcome("KO-1.1", "done", "", 0.0))
    assert not is_name(PREFIX + "1")  # so no order can have such an id


@pytest.mark.parametrize("ceremony", [False, True])
@pytest.mark.parametrize("wait", [0.0, PATIENCE])
def test_a_question_that_was_given_up_is_waited_for_and_its_answer_means_nothing(
    wait: float, ceremony: bool
) -> None:
    watch = Watch()
    watch.turn()
    old = watch.performed[-1].id
    if ceremony:
        watch.guard.give_way()
    watch.guard.look()
    watch.turn()
    assert watch.guard.pending(watch.now)
    assert len(watch.performed) == 1  # the EPP does one thing at a time
    watch.now += wait
    if not wait:
        assert watch.guard.take(Outcome(old, "done", "", 0.0, facts={"state": "missing"}))
    assert not watch.guard.pending(watch.now)
    assert watch.look() == []
    assert watch.guard.service() == ("ok", ("", ""))
    assert KeyGuard.asked(Outcome(old, "done", "", 0.0))


def test_before_the_first_good_look_nothing_is_known() -> None:
    watch = Watch()
    assert watch.guard.service()[0] == "unknown"
    watch.turn()
    assert watch.guard.service()[0] == "unknown"


def test_what_is_wrong_stops_the_terminal_and_is_a_row_once() -> None:
    watch = Watch()
    watch.look()
    watch.epp.slots.clear()
    assert watch.look(HOURLY) == [("missing_key", "TMK")]
    assert watch.guard.service() == ("stopped", ("slot TMK should hold a key and does not", "TMK槽应有密钥但为空"))
    assert watch.look(HOURLY) == []
    assert watch.guard.service()[0] == "stopped"
    watch.epp.slots["TMK"] = TMK
    assert watch.look(HOURLY) == []
    assert watch.guard.service() == ("ok", ("", ""))
    watch.epp.slots.clear()
    assert watch.look(HOURLY) == [("missing_key", "TMK")]


def test_a_worthless_look_judges_nothing_and_is_soon_repeated() -> None:
    watch = Watch()
    watch.look()
    watch.epp.slots.clear()
    watch.epp.fails["key_check"] = ("unanswered", "")
    assert watch.look(HOURLY) == []
    assert watch.guard.service() == ("ok", ("", ""))
    assert len([item for item in watch.put if isinstance(item, Note)]) == 1
    watch.epp.fails.clear()
    assert watch.look(SOON - 1.0) == []
    assert watch.look(1.0) == [("missing_key", "TMK")]


def test_looks_that_stay_worthless_are_repeated_ever_later_up_to_a_minute() -> None:
    watch = Watch()
    watch.epp.fails["key_check"] = ("unanswered", "")
    watch.look()
    for wait in (5.0, 10.0, 20.0, 40.0, AGAIN, AGAIN):
        asked = len(watch.performed)
        watch.look(wait - 1.0)
        assert len(watch.performed) == asked
        watch.look(1.0)
        assert len(watch.performed) > asked
    watch.epp.fails.clear()
    watch.look(AGAIN)
    watch.epp.fails["key_check"] = ("unanswered", "")
    watch.look(HOURLY)
    asked = len(watch.performed)
    watch.look(SOON)
    assert len(watch.performed) > asked


def test_a_question_without_an_answer_ends_the_look() -> None:
    watch = Watch()
    watch.turn()
    watch.now += PATIENCE
    watch.turn()
    assert watch.put == []
    assert watch.look(AGAIN) == []
    assert watch.guard.service() == ("ok", ("", ""))


def test_a_slot_that_the_device_does_not_show_is_not_missing() -> None:
    watch = Watch(slots=["ZMK"])
    watch.turn()
    watch.answer(lambda outcome: Outcome(outcome.operation, "refused", "", watch.now, facts={"state": "untold"}))
    watch.turn()
    watch.answer()
    watch.turn()
    assert watch.alarms == []
    assert isinstance(watch.put[0], Note)
    assert watch.put[0].fields["silent"] == ["TMK"]


def test_of_a_pad_that_can_never_tell_of_its_slots_the_serial_number_decides() -> None:
    watch = Watch()
    for serial, service in ((SITE.epp_serial, "ok"), ("EPP-78", "stopped")):
        watch.serial = serial
        watch.guard.look(anew=True)
        watch.turn()
        watch.answer(lambda outcome: replace(outcome, result="refused", facts={"state": "untold"}))
        watch.turn()
        assert watch.guard.service()[0] == service
    assert watch.alarms == [("serial_changed", ""), ("unknown_slot", "TMK")]


def test_another_epp_makes_every_slot_unknown() -> None:
    watch = Watch()
    watch.serial = "EPP-78"
    assert watch.look() == [("serial_changed", ""), ("unknown_slot", "TMK")]
    assert watch.held().slots["TMK"].state == "unknown"
    assert watch.look(HOURLY) == []
    assert watch.guard.service()[0] == "stopped"


@pytest.mark.parametrize("result", ["refused", "failed", "unanswered", ""])
def test_another_epp_that_tells_of_no_slot_is_judged_by_its_serial_number(result: str) -> None:
    watch = Watch()
    watch.look()
    assert watch.guard.service() == ("ok", ("", ""))
    watch.serial = "EPP-78"
    watch.guard.look(anew=True)
    assert watch.guard.service()[0] == "unknown"
    watch.turn()
    assert watch.alarms == [("serial_changed", "")]
    for _ in range(3):
        if result:
            watch.answer(lambda outcome: Outcome(outcome.operation, result, "", watch.now))
        watch.now += PATIENCE
        watch.turn()
        watch.now += AGAIN
        watch.turn()
    assert watch.guard.service()[0] == "stopped"
    assert watch.alarms == [("serial_changed", "")]
    assert watch.held().slots["TMK"].state == "unknown"


def test_an_epp_that_may_be_another_counts_only_once_it_was_looked_at() -> None:
    watch = Watch()
    watch.look()
    watch.guard.look(anew=True)
    watch.epp.fails["key_check"] = ("failed", "")
    watch.look()
    assert watch.guard.service()[0] == "unknown"
    watch.epp.fails.clear()
    watch.look(AGAIN)
    assert watch.guard.service() == ("ok", ("", ""))


def test_nothing_is_known_of_an_epp_that_does_not_answer_and_what_is_wrong_stays_so() -> None:
    watch = Watch()
    watch.look()
    assert watch.guard.service(answers=False)[0] == "unknown"
    watch.epp.slots.clear()
    watch.look(HOURLY)
    assert watch.guard.service(answers=False)[0] == "stopped"


def test_keys_that_no_order_loads_are_not_unexpected_but_others_are() -> None:
    watch = Watch(slots=["ZMK"], working=["TPK"], inherited=["OLD"])
    watch.epp.slots |= {"TPK": ("loaded", 6), "OLD": ("loaded", 5)}
    assert watch.look() == []
    watch.epp.slots["ZMK"] = ("loaded", 7)
    assert watch.look(HOURLY) == [("unexpected_key", "ZMK")]


def test_a_sign_on_must_change_the_working_keys() -> None:
    watch = Watch(working=["TPK"])
    watch.epp.slots["TPK"] = ("loaded", 6)
    watch.look()
    assert watch.look(HOURLY) == []  # nobody said that there was a sign-on
    watch.guard.look(signed_on=True)
    assert watch.look() == [("unchanged", "TPK")]
    watch.epp.slots["TPK"] = ("loaded", 8)
    watch.guard.look(signed_on=True)
    assert watch.look() == []
    assert watch.look(HOURLY) == []


def test_a_sign_on_is_remembered_until_a_good_look() -> None:
    watch = Watch(working=["TPK"])
    watch.epp.slots["TPK"] = ("loaded", 6)
    watch.look()
    watch.guard.look(signed_on=True)
    watch.epp.fails["key_check"] = ("failed", "")
    watch.look()
    watch.epp.fails.clear()
    assert watch.look(AGAIN) == [("unchanged", "TPK")]


def test_a_look_that_began_before_a_sign_on_is_not_judged_by_it() -> None:
    watch = Watch(working=["A", "B"])
    watch.epp.slots |= {"A": ("loaded", 6), "B": ("loaded", 7)}
    watch.look()
    watch.now += HOURLY
    watch.turn()
    watch.answer()  # A, as it was before the sign-on
    watch.epp.slots |= {"A": ("loaded", 8), "B": ("loaded", 9)}
    watch.guard.look(signed_on=True)
    assert watch.look() == []


def test_who_says_again_and_again_that_there_was_a_sign_on_keeps_no_look_from_its_end() -> None:
    watch = Watch(slots=["ZMK"])
    watch.epp.slots["ZMK"] = ("loaded", 7)
    for _ in range(100):
        watch.guard.look(signed_on=True)
        watch.turn()
        if watch.guard.pending(watch.now):
            watch.answer()
    assert watch.alarms == [("unexpected_key", "ZMK")]
    looks = len([note for note in watch.put if isinstance(note, Note) and note.kind == "slots"])
    watch.look()
    assert looks <= SIGN_ONS
    watch.look(MINUTE)
    assert len([note for note in watch.put if isinstance(note, Note) and note.kind == "slots"]) == looks + 1


def test_a_look_that_began_before_a_ceremony_is_begun_anew_after_it() -> None:
    watch = Watch(rows=[], slots=["TMK", "ZMK"])
    watch.epp.slots.clear()
    watch.turn()
    watch.answer()  # TMK: missing, and then it is loaded
    watch.rows, watch.epp.slots = loaded(), {"TMK": TMK}
    watch.guard.look()
    assert watch.look() == []
    assert watch.guard.service() == ("ok", ("", ""))


def test_each_order_that_is_late_is_a_row() -> None:
    applied = [
        {"kind": "ceremony", "event": "applied", "order": f"KO-{n}", "at": WALL + n * DAY_MS} for n in (0, 3)
    ]
    watch = Watch(rows=[*loaded(), *applied])
    assert watch.look() == []
    watch.wall += 7 * DAY_MS
    assert watch.look(HOURLY) == [("received_late", "")]
    watch.wall += 3 * DAY_MS
    assert watch.look(HOURLY) == [("received_late", "")]
    late = [row["facts"]["order"] for row in watch.rows if row.get("word") == "received_late"]
    assert late == ["KO-0", "KO-3"]


def test_a_key_that_grows_old_is_told_once_and_not_every_day() -> None:
    watch = Watch(age_days=60)
    watch.wall += 31 * DAY_MS
    assert watch.look() == [("age_due", "TMK")]
    watch.wall += DAY_MS
    assert watch.look(HOURLY) == []
    watch.guard.say(watch.now, "ok", Words("", ""))
    assert watch.readings()[-1]["keys.duty"] == "due"
    watch.wall += 40 * DAY_MS
    assert watch.look(HOURLY) == [("age_over", "TMK")]
    watch.guard.say(watch.now, "ok", Words("", ""))
    assert watch.readings()[-1]["keys.duty"] == "overdue"
    assert watch.guard.service() == ("ok", ("", ""))


def test_a_period_of_no_days_is_not_watched() -> None:
    watch = Watch()
    watch.wall += 9999 * DAY_MS
    assert watch.look() == []


def test_check_values_by_cmac_are_compared_as_such() -> None:
    terminal = Terminal()
    aes = order()
    parts = tuple(replace(part, kcv=Kcv(part.kcv.value, "cmac")) for part in aes.parts)
    terminal.load(replace(aes, algorithm="A", kcv=Kcv(aes.kcv.value, "cmac"), parts=parts))
    watch = Watch(rows=terminal.rows)
    assert watch.look() == []
    watch.epp.slots["TMK"] = ("loaded", 9)
    assert watch.look(HOURLY) == [("wrong_kcv", "TMK")]


@pytest.mark.parametrize(("word", "again"), [("ok", REPEAT), ("stopped", 0.1)])
def test_the_points_are_told_at_a_change_and_from_time_to_time(word: str, again: float) -> None:
    watch = Watch()
    watch.guard.sealing = ("file", "no TPM")
    watch.guard.say(100.0, "ok", Words("", ""))
    watch.guard.say(100.0 + REPEAT - 0.1, "ok", Words("", ""))
    assert watch.readings() == [{"keys.service": "ok", "keys.duty": "ok", "keys.sealing": "file"}]
    watch.guard.say(100.0 + again, word, Words("why", "原因"))
    assert [told["keys.service"] for told in watch.readings()] == ["ok", word]
    assert isinstance(watch.put[-1], Heard)
    assert watch.put[-1].device == "epp1"
