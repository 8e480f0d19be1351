"""What the conductor sees of changes that are short, and what a store that cannot be read does not stop."""

import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.crypto import steps
from agent.crypto.steps import State
from agent.errors import StoreError
from agent.keys.parts import KeyParts
from agent.model import Heard, Reading
from tests.ceremonies import SITE
from tests.conductor import COUNTERS, Stage, begun, today


@pytest.mark.parametrize(
    ("device", "point", "words", "cause"),
    [
        ("panel1", "safe_door", ("open", "closed"), "mode_changed"),
        ("panel1", "operator_switch", ("run", "maintenance"), "mode_changed"),
        ("epp1", "device.serial", ("EPP-78", SITE.epp_serial), "serial_changed"),
        ("epp1", "epp.tamper", ("tampered", "ok"), "tamper"),
        ("epp1", "link.state", ("silent", "up"), "device_lost"),
    ],
)
@pytest.mark.parametrize("until", [State.PART, State.VERIFIED])
@pytest.mark.parametrize("at_once", [False, True])
def test_a_change_that_is_over_before_anybody_looks_ends_the_ceremony(
    device: str, point: str, words: tuple[str, str], cause: str, until: State, at_once: bool
) -> None:
    stage = begun(until)
    readings = [Reading(point, word, time.monotonic()) for word in words]
    for items in [readings] if at_once else [[reading] for reading in readings]:
        stage.conducting.heard(Heard(device, tuple(items)))
    stage.conducting.drain()
    assert stage.conducting.ceremony.cause == cause


def test_a_store_that_cannot_be_read_stops_no_ceremony_and_no_conductor(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unreadable:
        def reading(self) -> None:
            raise StoreError("disk full")

    parts = cast("KeyParts", SimpleNamespace(_store=Unreadable()))
    stage = Stage()
    monkeypatch.setattr(stage.conducting, "_counters", lambda: KeyParts._counters(parts))
    stage.ready().load(today(), State.VERIFIED)
    assert next(row for row in stage.conducting.rows if row["event"] == "ready")["counters"] == ""


def test_the_cash_counters_are_read_only_where_a_ceremony_writes_them_down() -> None:
    stage = Stage().ready()
    assert stage.counted == 0
    stage.load(today(), State.PART)
    assert stage.counted == 1
    assert next(row for row in stage.conducting.rows if row["event"] == "ready")["counters"] == COUNTERS


def test_while_the_last_ceremony_is_not_cleaned_up_nobody_is_told_to_open_an_order() -> None:
    stage = begun(State.CONFIRM).restarted()
    assert stage.conducting.next_step().word == "resuming"
    assert "its slot is deleted" in stage.conducting.next_step().en
    stage.hear(link_state="up", device_serial=SITE.epp_serial)
    stage.turn()
    assert stage.conducting.next_step().word == "aborted"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda stage: {"session": "s-wang"}, "session_of_other"),
        (lambda stage: {"login": "login-1"}, "login_reused"),
        (lambda stage: {"person": "zhao", "session": "s-zhao"}, "not_crew"),
    ],
)
def test_only_the_crew_says_what_the_host_said_and_with_a_login_of_its_own(change: Any, reason: str) -> None:
    stage = begun(State.VERIFIED)
    login = stage.login("li")
    changed = {
        f: getattr(login, f) for f in ("person", "role", "group", "credential", "session", "login", "terminal")
    }
    stage.do(steps.Proof(steps.Login(**{**changed, **change(stage)}), True, "echo", "R1"))
    assert stage.conducting.rows[-1]["reason"] == reason
    assert stage.state() is State.VERIFIED
    # Nobody else stops it either.
    stage.do(steps.Proof(steps.Login(**{**changed, **change(stage)}), False, "echo", "R1"))
    assert stage.state() is State.VERIFIED
    stage.do(steps.Proof(login, True, "echo", "R1"))
    active = next(row for row in stage.conducting.rows if row["event"] == "active")
    assert [active[name] for name in ("person", "credential", "session", "login")] == [
        *("li", "key-li", "s-li", login.login)
    ]
