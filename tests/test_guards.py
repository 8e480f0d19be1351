"""Guards that need no secret: what each finds, and what it leaves in peace."""

import pytest

from agent.crypto import guards
from agent.crypto.guards import Finding, Seen
from agent.crypto.holdings import DAY_MS, Holdings, Slot, fold
from agent.crypto.kcv import KNOWN, Kcv
from agent.crypto.steps import State, Trouble
from agent.ledger import canonical
from tests.ceremonies import SITE, WALL, Terminal, destroy_order, order

A, B, C = Kcv.parse("A1B2C3"), Kcv.parse("B1B2C3"), Kcv.parse("C1B2C3")
TMK = Slot("loaded", A, "K0", "T", 32, 1, since=WALL)
TPK = Slot("loaded", B, "P0", "T", 32, 4, under="TMK", since=WALL)


def held(**slots: Slot) -> Holdings:
    return Holdings(serial="EPP-77", slots={"TMK": TMK, "TPK": TPK, **slots}, versions={"TMK": 1, "TPK": 4})


def seen(**slots: Seen) -> dict[str, Seen]:
    return {"TMK": Seen("loaded", A, "K0"), "TPK": Seen("loaded", B, "P0"), **slots}


def words(findings: list[Finding]) -> list[str]:
    return [found.word for found in findings]


def compared(ours: Holdings, **slots: Seen) -> list[str]:
    return words(guards.slots(seen(**slots), ours, production=True))


def test_slots_that_are_as_the_ledger_says_are_left_in_peace() -> None:
    assert not compared(held())
    assert not compared(held(OLD=Slot("missing")), EMPTY=Seen("missing"))
    assert not guards.slots({"TMK": Seen("loaded"), "TPK": Seen("loaded")}, held(), production=True)


@pytest.mark.parametrize(
    ("slot", "there", "found"),
    [
        ("TPK", Seen("missing"), ["missing_key"]),
        ("TPK", Seen("loaded", C, "P0"), ["wrong_kcv"]),
        ("TPK", Seen("loaded", B, "D0"), ["other_usage"]),
        ("TPK", Seen("loaded", A, "P0"), ["wrong_kcv", "same_kcv"]),
        ("TPK", Seen("construct"), ["left_construct"]),
        ("NEW", Seen("construct"), ["left_construct"]),
        ("NEW", Seen("loaded", C), ["unexpected_key"]),
        ("NEW", Seen("loaded"), ["unexpected_key"]),
    ],
)
def test_a_slot_that_differs_from_the_ledger_is_found(slot: str, there: Seen, found: list[str]) -> None:
    assert compared(held(), **{slot: there}) == found
    ours = held()
    assert all(
        one.critical for one in guards.slots(seen(**{slot: there}), ours, production=True) if one.word != "same_kcv"
    )


def test_all_keys_gone_at_once_is_one_incident_and_every_slot_is_unknown_after_it() -> None:
    findings = guards.slots({}, held(), production=True)
    assert words(findings) == ["tamper"]
    terminal = Terminal()
    terminal.load(order())
    made = guards.rows(findings, SITE.terminal, SITE.epp_serial)
    for row in made:
        canonical(row)
    after = fold([*terminal.rows, *made])
    assert after.slots["TMK"].state == "unknown"
    again = guards.slots({"TMK": Seen("loaded", after.slots["TMK"].kcv)}, after, production=True)
    assert words(again) == ["unknown_slot"], "nothing comes back by itself"


def test_another_serial_number_stops_the_terminal_and_a_new_order_starts_it_again() -> None:
    assert not guards.serial("EPP-77", held())
    assert not guards.serial("EPP-77", Holdings())
    findings = guards.serial("EPP-78", held())
    assert words(findings) == ["serial_changed"]
    assert findings[0].critical
    terminal = Terminal()
    terminal.load(order())
    rows = [*terminal.rows, *guards.rows(findings, SITE.terminal, "EPP-78")]
    assert fold(rows).slots["TMK"].state == "unknown"


def test_keys_of_a_sign_on_are_not_expected_but_their_check_values_are_judged() -> None:
    there = seen(TAK=Seen("loaded", C, "M1"))
    assert not guards.slots(there, held(), production=True, working=["TAK"])
    there = seen(TAK=Seen("loaded", A, "M1"))
    assert words(guards.slots(there, held(), production=True, working=["TAK"])) == ["same_kcv"]


def test_two_keys_of_a_sign_on_with_one_check_value_are_found() -> None:
    there = seen(TAK=Seen("loaded", C, "M1"), TPK2=Seen("loaded", C, "P0"))
    found = guards.slots(there, held(), production=True, working=["TAK", "TPK2"])
    assert [(one.word, one.slot, one.facts) for one in found] == [("same_kcv", "TPK2", {"other": "TAK"})]


@pytest.mark.parametrize("known", sorted(KNOWN))
def test_published_keys_are_found_in_production_only(known: str) -> None:
    test_key = Kcv.parse(known)
    assert words(guards.value("TMK", test_key, test_key, Holdings(), production=True)) == ["test_key"]
    assert not guards.value("TMK", test_key, test_key, Holdings(), production=False)


def test_a_check_value_is_compared_with_the_expected_the_other_slots_and_the_destroyed() -> None:
    ours = held()
    ours.destroyed.add(C)
    assert not guards.value("TMK", A, A, ours, production=True)
    assert words(guards.value("TMK", A, B, ours, production=True)) == ["wrong_kcv"]
    assert words(guards.value("NEW", A, None, ours, production=True)) == ["same_kcv"]
    assert words(guards.value("NEW", C, None, ours, production=True)) == ["destroyed_kcv"]
    assert not guards.value("NEW", Kcv.parse("A1B2C3", "cmac"), None, ours, production=True)


def test_a_key_under_a_weaker_one_is_found() -> None:
    assert not guards.wrapping(held())
    assert words(guards.wrapping(held(TPK=Slot("loaded", B, "P0", "T", 48, 1, under="TMK")))) == ["weak_wrapping"]
    assert words(guards.wrapping(held(TPK=Slot("loaded", B, "P0", "A", 32, 1, under="TMK")))) == ["weak_wrapping"]


@pytest.mark.parametrize(
    ("days", "found"),
    [(0, []), (334, []), (335, [("age_due", 30)]), (365, [("age_due", 0)]), (366, [("age_over", 1)])],
)
def test_the_age_of_a_key_is_told_before_and_after_its_end(days: int, found: list[tuple[str, int]]) -> None:
    ours = Holdings(slots={"TMK": TMK, "GONE": Slot("missing", since=0)})
    findings = guards.age(ours, WALL + days * DAY_MS, 365)
    assert [(one.word, one.facts["days"]) for one in findings] == found


def test_a_sign_on_that_changes_nothing_is_found() -> None:
    assert words(guards.unchanged({"TPK": A, "TAK": B}, {"TPK": A, "TAK": C}, ["TPK", "TAK"])) == ["unchanged"]
    assert not guards.unchanged({"TPK": A}, {}, ["TPK"])
    assert not guards.unchanged({}, {"TPK": A}, ["TPK"])


DAY_1 = 1_789_228_800_000  # 2026-09-13 00:00 in China
MINUTE = 60_000


def days_of(**given: int) -> Holdings:
    days = Holdings()
    for name, at in given.items():
        getattr(days, name)["ORD-1"] = at
    return days


@pytest.mark.parametrize("asked_at", [DAY_1, DAY_1 + DAY_MS - MINUTE])
def test_a_key_must_have_come_by_the_end_of_the_fifth_day_after_it_was_asked_for(asked_at: int) -> None:
    end = DAY_1 + 6 * DAY_MS
    assert guards.due(asked_at, 5, 480) == end
    assert not guards.clocks(days_of(applied=asked_at), end - MINUTE)
    assert words(guards.clocks(days_of(applied=asked_at), end)) == ["received_late"]
    for came in (end - MINUTE, end):
        done = days_of(applied=asked_at, received=came, installed=came)
        assert not guards.clocks(done, end + 99 * DAY_MS), "what is done is not due, also when it was late"


def test_a_key_must_work_by_the_end_of_the_second_day_after_it_came() -> None:
    end = DAY_1 + 3 * DAY_MS
    assert not guards.clocks(days_of(received=DAY_1 + MINUTE), end - MINUTE)
    assert words(guards.clocks(days_of(received=DAY_1 + MINUTE), end)) == ["installed_late"]
    assert words(guards.clocks(days_of(received=DAY_1 + MINUTE, expires=end), end)) == ["installed_late"]
    assert not guards.clocks(days_of(received=DAY_1 + MINUTE, installed=end + MINUTE), end + DAY_MS)
    assert not guards.clocks(days_of(received=DAY_1 + MINUTE, expires=end), end + 1), "it can not be used any more"


def test_the_clocks_run_from_the_rows_of_the_ledger() -> None:
    asked = {"kind": "ceremony", "event": "applied", "order": "ORD-1", "at": WALL - 4 * DAY_MS}
    terminal = Terminal(rows=[asked])
    terminal.load(order())
    ours = fold(terminal.rows)
    assert (ours.applied["ORD-1"], ours.received["ORD-1"]) == (WALL - 4 * DAY_MS, WALL + 100_000)
    assert ours.installed["ORD-1"] == WALL + 100_000
    assert not guards.clocks(ours, WALL + 99 * DAY_MS)
    named = {**terminal.rows[1], "document": {**order().document(), "applied": WALL - 9 * DAY_MS}}
    assert fold([named]).applied["ORD-1"] == WALL - 9 * DAY_MS


def test_what_was_asked_for_by_mistake_stopped_or_needs_no_key_is_not_waited_for() -> None:
    asked = {"kind": "ceremony", "event": "applied", "order": "ORD-1", "at": WALL - 9 * DAY_MS}
    assert words(guards.clocks(fold([asked]), WALL)) == ["received_late"]
    assert not guards.clocks(fold([asked, {**asked, "event": "withdrawn"}]), WALL)
    stopped = Terminal(rows=[asked])
    stopped.load(order(), State.OPENED)
    stopped.do(Trouble("abandoned"))
    assert not guards.clocks(fold(stopped.rows), WALL)
    document = {**destroy_order(id="ORD-1").document(), "applied": WALL}
    gone = {**asked, "event": "received", "document": document}
    assert not guards.clocks(fold([asked, gone]), WALL)


def test_a_finding_is_told_in_both_languages_and_has_a_row() -> None:
    found = Finding("same_kcv", "TPK", {"other": "TMK"})
    assert found.en == "slots TPK and TMK have the same check value"
    assert "TPK" in found.zh
    [row] = guards.rows([found], "ATM-0001", "EPP-77")
    assert (row["event"], row["word"], row["slot"]) == ("alarm", "same_kcv", "TPK")
