"""`kill -9` of the agent, again and again, while the broker comes and goes: real processes. Not a power cut."""

import signal
import sqlite3
import sys
from pathlib import Path

import pytest

from tests import feeding
from tests.kills import FLEET, PANEL, head, toll
from tests.whole import Site, site, wait

pytestmark = [pytest.mark.peer("mosquitto"), pytest.mark.timeout(120)]


def test_nothing_is_lost_or_doubled_however_often_the_agent_is_killed(tmp_path: Path) -> None:
    done = toll(tmp_path, kills=12, seed=6)
    assert done.wrong == []
    assert done.rows > 25
    assert done.brokers > 1
    assert done.early < done.kills, "some lives were long enough to do something"


def _has(one: Site, text: str) -> bool:
    """Whether a row with this text is in the store."""
    with sqlite3.connect(f"file:{one.folder}/data/store.db?mode=ro", uri=True) as db:
        found = db.execute("SELECT 1 FROM ledger WHERE instr(CAST(row AS TEXT), ?)", (f'"{text}"',)).fetchone()
    return found is not None


def test_what_was_accepted_before_there_ever_was_a_broker_arrives(tmp_path: Path) -> None:
    """No broker at the first boot, 20,000 rows are accepted, the agent is killed, a broker comes up."""
    with site(tmp_path, devices=PANEL, fleet=FLEET) as one:
        config = one.configure(PANEL, "catch_up = 0\nlinger = 1.0")
        one.launch("agent", sys.executable, feeding.__file__, str(config), "20000")
        wait("20,000 rows", lambda: head(one) >= 20_000 and _has(one, "row 19999"))
        one.end("agent", signal.SIGKILL)
        [(_, accepted)] = one.made()
        one.start("broker")
        wait("the broker", one.broker_answers)
        one.start("subscriber")
        one.start("agent")
        wait("all rows", lambda: len(one.account.rows) >= accepted and one.delivered())
        assert one.account.mistakes == []
        assert one.account.missing() == []
        assert {f"row {number}" for number in range(20_000)} <= {row.get("name") for row in one.rows("thread")}
        assert len(one.rows("thread")) == 20_000
