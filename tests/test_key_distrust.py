"""What the store keeps of keys is believed only if it is what the ledger has. Real processes, one terminal."""

import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interrupting import Terminal
from tests.keysite import running
from tests.whole import wait

pytestmark = [pytest.mark.peer("mosquitto"), pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def site() -> Iterator[Terminal]:
    """A terminal at which an order was opened and stopped, so that it is used up."""
    with tempfile.TemporaryDirectory(prefix="kd") as name, running(Terminal(Path(name), lab=True)) as terminal:
        order = terminal.order(version=1, id="KO-USED")
        terminal.receive(order)
        terminal.join(order)
        terminal.li.asks(do="keys", act="abort")
        wait("the end", lambda: terminal.ledger_has("aborted"))
        yield terminal


@pytest.mark.parametrize(
    "damage",
    ["DELETE FROM kept WHERE CAST(row AS TEXT) LIKE '%\"opened\"%'", "UPDATE kept SET row = X'FF' WHERE seq > 9"],
    ids=["an order forgotten", "a bad byte"],
)
def test_a_damaged_memory_of_keys_stops_the_service_and_nothing_else(site: Terminal, damage: str) -> None:
    site.end("agent")
    with sqlite3.connect(site.data / "store.db") as db:
        before = db.execute("SELECT * FROM kept").fetchall()
        assert db.execute(damage).rowcount
    db.close()
    site.start("agent")
    wait("the agent", site.agent_answers)
    status = site.status()
    assert status["service"] == "stopped"
    assert "cannot be believed" in status["why"]["en"]
    wait("the point", lambda: site.shown("epp1", "keys.service") == "stopped")
    wait("the devices", lambda: site.shown("panel1", "safe_door") == "closed")
    refusal = site.li.does("begin", order="KO-USED")[-1]
    assert "cannot be believed" in refusal["error"]
    assert "broken" in site.li.asks(do="verify")[-1]
    site.end("agent")
    with sqlite3.connect(site.data / "store.db") as db:
        db.execute("DELETE FROM kept")
        db.executemany("INSERT INTO kept VALUES (?, ?, ?, ?)", before)
        db.execute(
            "INSERT INTO kept SELECT seq, row, hash, '' FROM ledger WHERE seq NOT IN (SELECT seq FROM kept)"
            ' AND instr(CAST(row AS BLOB), CAST(\'"kind":"ceremony"\' AS BLOB))'
        )
    db.close()
    site.start("agent")
    wait("the agent", site.agent_answers)
    wait("the service", lambda: site.status()["service"] == "ok")
    assert site.verified()
