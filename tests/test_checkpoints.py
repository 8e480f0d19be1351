"""Checkpoints: when one is due, that it holds for anyone with the public key, and that its absence is told."""

import base64
import json
import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent import ledger
from agent.cli import asking
from agent.clock import Instant
from agent.config import load
from agent.crypto.ed25519 import PublicKey, SigningKey
from agent.crypto.signing import pae
from agent.errors import EnvelopeRefused
from agent.evidence import checkpoints
from agent.evidence.checkpoints import DAY_MS, HOUR, ROWS, Calendar, Place
from agent.evidence.identity import open_identity
from agent.evidence.notary import Notary
from agent.model import Batch
from agent.pushing.inforce import begin
from agent.service import Service
from agent.store import Reader, Store
from tests.whole import wait

KEY, OTHER = SigningKey.generate(), SigningKey.generate()
PLACE = Place("ATM-0001", "e1", 41, "ab" * 32, 7)
MOMENT = {"at": 1_780_000_000_000, "up": 5000, "boot": "b1", "version": "1"}
NOON = 20_600 * DAY_MS + 4 * 3_600_000
"""Noon in UTC+8."""


def calendar(epoch: str = "e1", covered: int = 0) -> Calendar:
    found = Calendar(480)
    found.made(epoch, covered)
    return found


def test_it_is_due_after_so_many_rows() -> None:
    due = calendar(covered=500)
    assert not due.due("e1", 500 + ROWS - 1, 0.0, NOON)
    assert due.due("e1", 500 + ROWS, 0.0, NOON)


def test_it_is_due_an_hour_after_the_first_row_that_is_not_covered() -> None:
    due = calendar()
    assert not due.due("e1", 0, 0.0, NOON)
    assert not due.due("e1", 1, 5000.0, NOON)
    assert not due.due("e1", 9, 5000.0 + HOUR - 1, NOON)
    assert due.due("e1", 9, 5000.0 + HOUR, NOON)


@pytest.mark.parametrize(("utc_offset", "hours"), [(480, 12), (0, 20), (-300, 25)])
def test_it_is_due_at_the_end_of_the_terminals_own_day(utc_offset: int, hours: int) -> None:
    due = Calendar(utc_offset)
    due.made("e1", 0)
    midnight = NOON + hours * 3_600_000
    assert not due.due("e1", 1, 0.0, midnight - 60_000)
    assert not due.due("e1", 1, 1.0, midnight - 1)
    assert due.due("e1", 1, 2.0, midnight)


def test_it_is_due_at_a_planned_stop_and_never_when_there_is_nothing_to_cover() -> None:
    due = calendar()
    assert due.due("e1", 1, 0.0, NOON, stopping=True)
    due.made("e1", 2)
    for now, wall in ((0.0, NOON), (HOUR * 30, NOON + 9 * DAY_MS)):
        assert not due.due("e1", 2, now, wall, stopping=True)


def test_a_new_chain_is_covered_from_its_first_row() -> None:
    due = calendar(covered=5000)
    assert not due.due("e2", 3, 0.0, NOON)
    assert due.due("e2", 3, HOUR, NOON)


def test_it_is_a_dsse_envelope_that_anyone_can_make_again_from_the_row() -> None:
    row = checkpoints.fields(PLACE, MOMENT, KEY)
    payload = json.dumps(
        {**MOMENT, "terminal": "ATM-0001", "epoch": "e1", "seq": 41, "hash": "ab" * 32, "anchor": 7},
        sort_keys=True,
        separators=(",", ":"),
    ).encode()
    kind = "application/vnd.tillwire.checkpoint+json"
    assert KEY.public.verifies(base64.b64decode(row["sig"]), pae(kind, payload))
    keys = {KEY.public.id: KEY.public}
    assert checkpoints.content(checkpoints.of_row("ATM-0001", "e1", row), keys) == json.loads(payload)


@pytest.mark.parametrize("change", ["terminal", "epoch", "covers", "hash", "anchor", "at", "up", "boot", "version"])
def test_no_part_of_it_can_be_changed(change: str) -> None:
    row = checkpoints.fields(PLACE, MOMENT, KEY)
    about = {"terminal": "ATM-0001", "epoch": "e1", **row}
    about[change] = about[change] + 1 if isinstance(about[change], int) else about[change] + "0"
    changed = checkpoints.of_row(about["terminal"], about["epoch"], about)
    with pytest.raises(EnvelopeRefused) as caught:
        checkpoints.content(changed, {KEY.public.id: KEY.public})
    assert caught.value.reason == "bad_signature"


def test_another_key_is_another_key() -> None:
    row = checkpoints.fields(PLACE, MOMENT, OTHER)
    with pytest.raises(EnvelopeRefused) as caught:
        checkpoints.content(checkpoints.of_row("ATM-0001", "e1", row), {KEY.public.id: KEY.public})
    assert caught.value.reason == "unknown_key"


@pytest.mark.parametrize("lacking", ["covers", "hash", "anchor", "key", "sig", "at"])
def test_a_row_that_is_none_is_refused(lacking: str) -> None:
    row = checkpoints.fields(PLACE, MOMENT, KEY)
    del row[lacking]
    with pytest.raises(EnvelopeRefused):
        checkpoints.content(checkpoints.of_row("ATM-0001", "e1", row), {KEY.public.id: KEY.public})


class Agent:
    """The parts of an agent that sign, on a folder, with a clock that is moved by hand."""

    def __init__(self, folder: Path) -> None:
        path = folder / "terminal.toml"
        path.write_text('[terminal]\norg = "coop"\nid = "ATM-0001"\ndata = "data"\n')
        self.now = 100.0
        self.config = load(path)
        self.start()

    def start(self) -> None:
        self.store = Store(self.config.terminal.data, "ATM-0001")
        self.urgent: list[bool] = []
        self.store.on_commit = self.urgent.append
        self.notary = Notary(self.config, self.store, self.look, "b1", "1")

    def look(self) -> Instant:
        return Instant(self.now, NOON + round(self.now * 1000))

    def write(self, rows: int = 1) -> None:
        at = {"at": self.look().wall_ms, "up": round(self.now * 1000), "boot": "b1"}
        self.store.commit(Batch(rows=[{**at, "kind": "account", "n": n} for n in range(rows)]))

    def made(self) -> list[dict[str, Any]]:
        with closing(self.store.reader()) as reader:
            rows = [json.loads(row) for _, row, _ in reader.rows(0, 100_000)]
        return [row for row in rows if row["kind"] == "checkpoint"]

    def key(self) -> PublicKey:
        key = self.notary.identity.key
        assert key is not None, self.notary.identity.why
        return key.public


def test_an_agent_signs_the_row_before_and_the_chain_holds(tmp_path: Path) -> None:
    agent = Agent(tmp_path)
    agent.write(ROWS)
    agent.urgent.clear()
    agent.notary.turn(agent.look())
    (row,) = agent.made()
    assert (row["seq"], row["covers"], agent.urgent) == (ROWS + 1, ROWS, [False])
    with closing(agent.store.reader()) as reader:
        assert row["hash"] == reader.hash_at(ROWS).hex()
        assert list(reader.verify())[-1]["verified"] == ROWS + 1
    said = checkpoints.content(
        checkpoints.of_row("ATM-0001", agent.store.epoch, row), {agent.key().id: agent.key()}
    )
    assert (said["seq"], said["hash"]) == (ROWS, row["hash"])


def test_a_sealed_file_that_was_made_anew_signs_nothing_because_the_ledger_remembers_the_key(
    tmp_path: Path,
) -> None:
    agent = Agent(tmp_path)
    (note,) = agent.notary.notes
    assert note.fields["key"] == agent.key().id
    agent.store.commit(Batch(rows=[{"kind": note.kind, "at": NOON, "up": 0, "boot": "b1", **note.fields}]))
    agent.store.close()
    agent.start()
    assert agent.notary.notes == ()
    folder = agent.config.terminal.data
    (folder / "secrets.sealed").unlink()
    assert open_identity(folder, "ATM-0001", None).mark == agent.notary.identity.mark
    agent.store.close()
    agent.start()
    assert agent.notary.identity.key is None
    assert "another key" in agent.notary.trouble


def test_a_quiet_terminal_makes_none_and_a_busy_one_few(tmp_path: Path) -> None:
    agent = Agent(tmp_path)
    agent.write()
    for _ in range(24 * 6):
        agent.now += 600
        agent.notary.turn(agent.look())
    quiet = len(agent.made())
    for _ in range(24 * 6):
        agent.now += 600
        agent.write(20)
        agent.notary.turn(agent.look())
    busy = agent.made()[quiet:]
    assert quiet == 1
    assert 20 <= len(busy) <= 25
    assert sum(len(ledger.canonical(row)) for row in busy) < 15_000


def test_it_goes_on_after_a_start_where_it_was(tmp_path: Path) -> None:
    agent = Agent(tmp_path)
    agent.write(ROWS)
    agent.notary.turn(agent.look())
    agent.write(ROWS - 1)
    for _ in range(3):
        agent.store.close()
        agent.start()
        agent.notary.turn(agent.look())
    assert len(agent.made()) == 1
    agent.write()
    agent.notary.turn(agent.look())
    assert [row["covers"] for row in agent.made()] == [ROWS, 2 * ROWS + 1]


def test_an_agent_that_dies_again_and_again_signs_all_the_same(tmp_path: Path) -> None:
    agent = Agent(tmp_path)
    for _ in range(4):
        agent.write(ROWS // 3)
        agent.store.close()
        agent.start()
        agent.notary.turn(agent.look())
    assert len(agent.made()) == 1


def test_a_chain_whose_beginning_was_pruned_is_proven_by_the_next_checkpoint(tmp_path: Path) -> None:
    """The rule of anchors in agent/ledger.py, on a store whose rows were deleted."""
    agent = Agent(tmp_path)
    for _ in range(2):
        agent.write(ROWS)
        agent.notary.turn(agent.look())
    path = agent.store.path
    with closing(agent.store.reader()) as reader:
        anchor = reader.hash_at(ROWS)
    agent.store.close()
    with sqlite3.connect(path) as db:
        db.execute("DELETE FROM ledger WHERE seq <= ?", (ROWS,))
        db.executemany(
            "INSERT OR REPLACE INTO meta VALUES (?, ?)",
            [("anchor_seq", str(ROWS)), ("anchor_hash", anchor.hex()), ("acked", str(ROWS))],
        )
    db.close()
    agent.start()
    agent.write(5)
    agent.notary.turn(agent.look(), stopping=True)
    keys = {agent.key().id: agent.key()}
    with closing(Reader(path)) as reader:
        rows = reader.rows(0, 5000)
        ledger.verify(rows, anchor, ROWS)
        for seq, row, _ in rows:
            if checkpoints.is_checkpoint(row):
                said = checkpoints.content(checkpoints.of_row("ATM-0001", reader.epoch, json.loads(row)), keys)
                before = anchor if said["seq"] == ROWS else reader.hash_at(said["seq"])
                assert (said["seq"], said["hash"]) == (seq - 1, before.hex())
        assert said["anchor"] == ROWS


CONFIG = '[terminal]\norg = "coop"\nid = "ATM-0001"\ndata = "data"\n[control]\nsocket = "tw.sock"\n'


def run(folder: Path) -> tuple[Service, threading.Thread]:
    (folder / "terminal.toml").write_text(CONFIG)
    service = Service(begin(folder / "terminal.toml"))
    thread = threading.Thread(target=service.run)
    thread.start()
    wait("the agent", (folder / "tw.sock").exists)
    return service, thread


def test_a_planned_stop_is_signed_and_a_key_that_is_lost_is_told_and_stops_nothing(tmp_path: Path) -> None:
    service, thread = run(tmp_path)
    signer = asking.ask_once(tmp_path / "tw.sock", {"do": "signer"})
    service.stop.set()
    thread.join(15.0)
    with closing(Reader(tmp_path / "data/store.db")) as reader:
        rows = [json.loads(row) for _, row, _ in reader.rows(0, 100)]
    assert [row["kind"] for row in rows] == ["start", "sealed", "stop", "checkpoint"]
    assert rows[0]["key"] == rows[-1]["key"] == signer["key_id"] == PublicKey.from_pem(signer["public_key"]).id

    shutil.move(tmp_path / "data/secrets.sealed", tmp_path / "elsewhere")
    service, thread = run(tmp_path)
    told = asking.ask_once(tmp_path / "tw.sock", {"do": "devices"})["trouble"]
    facts = asking.ask_once(tmp_path / "tw.sock", {"do": "diagnose"})["sections"]
    service.stop.set()
    thread.join(15.0)
    assert "the ledger is not signed" in told
    (fact,) = [f for section in facts for f in section["facts"] if f["label"] == "signature"]
    assert (fact["verdict"], "secrets.sealed" in fact["value"]) == ("bad", True)
    with closing(Reader(tmp_path / "data/store.db")) as reader:
        rows = [json.loads(row) for _, row, _ in reader.rows(4, 100)]
    assert [row["kind"] for row in rows] == ["start", "stop"]
    assert "secrets.sealed" in rows[0]["unsigned"]
