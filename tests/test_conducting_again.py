"""How a conductor goes on after a restart, after a bug, and when whoever asked has left."""

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from agent.crypto import steps
from agent.crypto.ceremony import Ceremony
from agent.crypto.steps import State
from agent.errors import BlockRefused, ControlError
from agent.keys.conducting import BY
from agent.model import Heard, Operation, Outcome
from agent.pushing.inforce import Begun
from agent.pushing.parts import PushParts
from agent.service import Service
from agent.workers import Worker
from tests.ceremonies import SITE
from tests.conductor import Stage, begun, today
from tests.test_keytable import GOOD_SIGNERS, table


def test_a_question_that_waited_too_long_for_its_row_is_not_asked_any_more() -> None:
    stage = begun(State.PART)
    stage.core = False
    stage.do(steps.PartBegun(stage.login("li")))
    entry = stage.gone[-1][1]
    assert isinstance(entry, Operation)
    assert entry.verb == "key_enter"
    assert not stage.conducting.withdrawn(entry)
    stage.do(steps.Trouble("abandoned", "li"))
    # It may still reach the pad, so the deletion does not count yet.
    assert stage.state() is State.ABORTING
    assert not stage.conducting.withdrawn(entry)
    stage.conducting.heard(Heard("epp1", (Outcome(entry.id, "unanswered", "", time.monotonic()),)))
    stage.conducting.drain()
    assert stage.conducting.withdrawn(entry)
    stage.core = True
    stage.settle()
    assert stage.state() is State.ABORTED
    assert stage.epp.state() == "missing"


def test_after_a_restart_of_the_thread_what_was_asked_before_is_not_asked() -> None:
    stage = begun(State.PART)
    stage.core = False
    stage.do(steps.PartBegun(stage.login("li")))
    entry = stage.gone[-1][1]
    assert isinstance(entry, Operation)
    again = stage.restarted()
    assert again.conducting.withdrawn(entry)
    others = Operation("x-1", "epp1", "self_test", "wang")
    assert not again.conducting.withdrawn(others)


def test_after_a_restart_nothing_is_done_before_the_epp_has_told_who_it_is() -> None:
    stage = begun(State.CONFIRM).restarted()
    stage.turn()
    stage.hear(link_state="up")
    stage.turn()
    assert [item for _, item in stage.gone if isinstance(item, Operation)] == []
    assert stage.conducting.service()[0] == "ceremony"
    assert not stage.conducting.settled
    with pytest.raises(ControlError, match="is not deleted yet"):
        stage.open(today(id="ORD-2"))
    assert stage.epp.state() == "construct"
    stage.hear(device_serial=SITE.epp_serial)
    stage.turn()
    assert stage.verbs("now") == ["key_delete"]
    assert stage.epp.state() == "missing"
    assert stage.state() is State.ABORTED
    assert stage.conducting.settled
    assert stage.conducting.ceremony.cause == "agent_restarted"


def test_after_a_restart_a_serial_number_alone_is_not_enough() -> None:
    stage = begun(State.CONFIRM).restarted()
    stage.hear(device_serial=SITE.epp_serial, link_state="silent")
    stage.turn()
    assert stage.gone[:-1] == []
    assert stage.conducting.resuming


def test_after_a_restart_another_epp_is_told() -> None:
    stage = begun(State.CONFIRM).restarted()
    stage.hear(link_state="up", device_serial="EPP-78")
    stage.turn()
    assert stage.conducting.ceremony.cause == "serial_changed"
    assert stage.verbs("now") == stage.verbs("put") == []
    assert stage.conducting.held().slots["TMK"].state == "unknown"
    assert stage.conducting.service()[0] == "stopped"


def test_what_nobody_waits_for_any_more_is_not_done() -> None:
    stage, done = Stage(), list[int]()
    with pytest.raises(ControlError, match="does not answer"):
        stage.conducting.call(lambda: done.append(1), patience=0.0)
    stage.conducting.drain()
    assert done == []


def test_a_bug_in_a_task_reaches_who_asked_and_the_thread_goes_on_once_it_is_started_again() -> None:
    stage = begun(State.CONFIRM)
    conducting = stage.conducting
    worker = Worker("keys", conducting.run)
    worker.start()

    def wrong(error: Exception) -> None:
        raise error

    try:
        with pytest.raises(BlockRefused, match="not ours"):
            conducting.call(lambda: wrong(BlockRefused("not ours")))
        assert conducting.call(lambda: 5) == 5
        with pytest.raises(ControlError, match="a bug of its own"):
            conducting.call(lambda: wrong(KeyError("x")))
        assert worker.thread is not None
        worker.thread.join(10.0)
        assert not worker.thread.is_alive()
        assert "KeyError" in worker.error
        stage.hear(link_state="up", device_serial=SITE.epp_serial)
        worker.start()
        # The ceremony that was cut short so ends as after any restart: its slot is deleted.
        assert conducting.call(lambda: conducting.resuming or conducting.ceremony.cause == "agent_restarted")
    finally:
        conducting._stop.set()
        assert worker.thread is not None
        worker.thread.join(10.0)
    assert ("now", "key_delete") in [(how, item.verb) for how, item in stage.gone if isinstance(item, Operation)]


def test_the_core_hands_on_no_question_that_was_given_up_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "hq").mkdir()
    (tmp_path / "hq/signers.toml").write_text(GOOD_SIGNERS)
    service = Service(Begun(table(tmp_path, age_days='0\n[control]\nsocket = "s"'), Path(), b""))
    try:
        for number, by in ((1, BY), (2, "wang")):
            service._perform_late(Operation(f"o-{number}", "epp1", "key_enter", by), 5.0)
        told = service._queue.get_nowait()
        while not isinstance(told, Heard):
            told = service._queue.get_nowait()
        (outcome,) = told.items
        assert isinstance(outcome, Outcome)
        assert (told.device, outcome.operation, outcome.result) == ("epp1", "o-1", "refused")
        link = service._links.of("epp1")
        assert link
        assert [asked.id for asked in link._asked] == ["o-2"]
    finally:
        service._store.close()
        service._control._lobby.close()


def test_the_conductor_of_an_agent_knows_when_a_push_is_tried(tmp_path: Path) -> None:
    (tmp_path / "hq").mkdir()
    (tmp_path / "hq/signers.toml").write_text(GOOD_SIGNERS)
    service = Service(Begun(table(tmp_path, age_days='0\n[control]\nsocket = "s"'), Path(), b""))
    try:
        assert service._keys
        assert not service._keys.conducting._tried()
        service._pushes = cast("PushParts", SimpleNamespace(tried="a push is being tried"))
        assert service._keys.conducting._tried() == "a push is being tried"
        service._core._clock._floor = 10**15
        assert service._keys.desk._orders._known() == 10**15, "an order is for no time before that"
        # Whether one is under way is asked where orders are opened: neither of the two passes the other.
        conducting, where, states = (
            service._keys.conducting,
            list[str](),
            [State.RECEIPT, State.DESTROY, State.PART],
        )

        class Elsewhere:
            @property
            def state(self) -> State:
                where.append(threading.current_thread().name)
                return states.pop()

        conducting.ceremony = cast("Ceremony", Elsewhere())

        def conduct() -> None:
            for _ in range(3):
                conducting.drain(5.0)

        thread = threading.Thread(target=conduct, name="keys")
        thread.start()
        busy = [service._keys.busy for _ in range(3)]
        thread.join()
        assert where == ["keys"] * 3
        assert busy == [True, False, False], "papers and receipts that are due keep no push waiting"
    finally:
        service._store.close()
        service._control._lobby.close()
