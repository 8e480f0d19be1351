"""The store: durable commits, the cursor, damage set aside, and what a killed process leaves behind."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from agent import ledger
from agent.disk.cursor import AGE, ROWS, Cursor
from agent.disk.schema import PAGE
from agent.errors import LedgerError, StoreCorrupt, StoreError
from agent.model import Batch, Fault, StoredPoint
from agent.store import FILE, TAIL, Reader, Store


def row(text: str) -> dict[str, object]:
    return {"at": 1, "up": 1, "boot": "b", "kind": "change", "device": "p", "point": "x", "value": text, "was": ""}


def fill(store: Store, count: int) -> None:
    for number in range(count):
        store.commit(Batch(rows=[row(f"v{number}")]))


def test_rows_points_and_faults_are_one_commit(tmp_path: Path) -> None:
    store = Store(tmp_path, "T1")
    point = StoredPoint("p", "paper.receipt", "out", True, 123, "7E", False)
    fault = Fault("p", "paper.receipt", "paper.out", "out", 120, "7E")
    store.commit(Batch(rows=[row("a"), row("b")], points=[point], raised=[fault]))
    reader = store.reader()
    assert [seq for seq, _, _ in reader.rows(0, 10)] == [1, 2]
    assert reader.points("p") == reader.points() == [point]
    assert reader.faults() == [fault]
    store.commit(Batch(cleared=[fault]))
    assert reader.faults() == []
    bad = Batch(rows=[row("c")], points=[point, StoredPoint("q", "x", object(), True, 1)])  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        store.commit(bad)
    assert reader.head()[0] == store.head == 2, "nothing of a batch that cannot be written whole"


def test_each_commit_is_synced_before_it_returns(tmp_path: Path) -> None:
    store = Store(tmp_path, "T1")
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,), "FULL"
    assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_the_chain_goes_on_over_a_restart(tmp_path: Path) -> None:
    store = Store(tmp_path, "T1")
    assert store.found == "new"
    fill(store, 150)
    store.close()
    again = Store(tmp_path, "T1")
    assert (again.found, again.epoch, again.head) == ("good", store.epoch, 150)
    fill(again, 3)
    reader = again.reader()
    assert ledger.verify(reader.rows(0, 1000), reader.hash_at(0))[0] == 153


def test_the_cursor_moves_only_forward_and_is_written_at_a_planned_end(tmp_path: Path) -> None:
    store = Store(tmp_path, "T1")
    fill(store, 5)
    store.settle(store.epoch, 3)
    store.settle(store.epoch, 2)
    store.settle(store.epoch, 99)
    assert store.acked == 5
    assert store.reader().meta("acked") == ""
    fill(store, 1)
    store.flush()
    assert store.reader().meta("acked") == "", "a few rows and seconds are not worth a write"
    store.settle(store.epoch, 6)
    store.close()
    assert Store(tmp_path, "T1").acked == 6


def test_the_cursor_rides_with_a_commit_once_a_message_of_rows_would_be_repeated(tmp_path: Path) -> None:
    store = Store(tmp_path, "T1")
    fill(store, ROWS + 1)
    store.settle(store.epoch, ROWS - 1)
    fill(store, 1)
    assert store.reader().meta("acked") == ""
    store.settle(store.epoch, ROWS)
    fill(store, 1)
    assert store.reader().meta("acked") == f"{ROWS}"
    store.settle(store.epoch, 2 * ROWS)
    fill(store, 1)
    assert store.reader().meta("acked") == f"{ROWS}"


def test_a_cursor_that_moves_slowly_is_written_once_in_a_while() -> None:
    now = 0.0
    cursor = Cursor(0, 0, lambda: now)
    assert not cursor.due(0), "it has not moved"
    cursor.at = 1
    now = AGE - 1
    assert not cursor.due()
    assert cursor.due(AGE - 1)
    now = AGE
    assert cursor.due()
    cursor.wrote(1)
    cursor.at = 2
    now = 2 * AGE - 1
    assert not cursor.due()
    now = 2 * AGE
    assert cursor.due()


def test_nothing_is_known_after_a_restart(tmp_path: Path) -> None:
    store = Store(tmp_path, "T1")
    store.commit(Batch(points=[StoredPoint("p", "paper.receipt", "full", True, 5)]))
    store.saw("p", {"paper.receipt": 9})
    assert store.seen("p") == {"paper.receipt": 9}
    store.close()
    again = Store(tmp_path, "T1")
    again.forget_all()
    assert again.reader().points("p") == [StoredPoint("p", "paper.receipt", "full", False, 5)]
    assert again.seen("p") == {}


@pytest.mark.parametrize("how", ["rubbish", "zeros", "cut", "flipped row", "another terminal"])
def test_a_damaged_store_is_set_aside_whole_and_the_agent_goes_on(tmp_path: Path, how: str) -> None:
    store = Store(tmp_path, "T1")
    fill(store, 30)
    store.close()
    path = tmp_path / FILE
    if how == "rubbish":
        path.write_bytes(os.urandom(5000))
    elif how == "zeros":
        path.write_bytes(bytes(path.stat().st_size))
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:6000])
    elif how == "flipped row":
        with sqlite3.connect(path) as db:
            db.execute("UPDATE ledger SET row = replace(row, 'v20', 'v99') WHERE seq = 21")
        db.close()
    evidence = path.read_bytes()
    again = Store(tmp_path, "T2" if how == "another terminal" else "T1")
    assert again.head == 0
    assert again.epoch != store.epoch
    assert "set aside" in again.found
    aside = next(p for p in tmp_path.iterdir() if "aside" in p.name and not p.name.endswith(("-wal", "-shm")))
    assert aside.read_bytes() == evidence
    if how in ("flipped row", "another terminal"):
        assert again.previous == f"{store.epoch}/30"
    fill(again, 2)
    assert again.reader().head()[0] == 2


def test_damage_while_running_is_reported_as_damage(tmp_path: Path) -> None:
    store = Store(tmp_path, "T1")
    fill(store, 300)
    store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with (tmp_path / FILE).open("r+b") as file:
        file.seek(PAGE)
        file.write(os.urandom(200_000))
    with pytest.raises(StoreCorrupt), store.reading() as reader:
        reader.rows(0, 1000)
    with pytest.raises(StoreCorrupt):
        fill(store, 1)
    old = store.epoch
    store.set_aside("damaged while running")
    fill(store, 1)
    assert store.head == 1
    store.settle(old, 300)
    assert store.acked == 0, "an acknowledgement of the old epoch says nothing of the new"


def test_a_store_that_cannot_be_set_aside_takes_no_commit_until_it_was(tmp_path: Path) -> None:
    folder, away = tmp_path / "data", tmp_path / "away"
    store = Store(folder, "T1")
    fill(store, 3)
    old = store.epoch
    store.doubt(StoreCorrupt("a reader met damage"))
    folder.rename(away)
    with pytest.raises(StoreError, match="cannot be set aside"):
        store.set_aside("a reader met damage")
    with pytest.raises(StoreCorrupt):
        fill(store, 1)
    away.rename(folder)
    store.set_aside("a reader met damage")
    assert store.previous == f"{old}/3"
    fill(store, 1)
    assert store.head == store.reader().head()[0] == 1


def test_the_last_store_that_was_set_aside_is_named_though_the_clock_was_set_back(tmp_path: Path) -> None:
    store = Store(tmp_path, "T1")
    (tmp_path / f"{FILE}.aside-9-20990101T000000Z-0123456789abcdef-7").touch()
    for rows in (3, 4):
        fill(store, rows)
        old = store.epoch
        store.set_aside("damaged")
    store.close()
    again = Store(tmp_path, "T1")
    assert again.head == 0
    assert again.previous == f"{old}/4"
    assert f"{FILE}.aside-11-" in again.found
    fill(again, 1)
    again.close()
    assert (third := Store(tmp_path, "T1")).found == "good"
    assert third.previous == ""


def test_two_agents_never_share_a_store(tmp_path: Path) -> None:
    store = Store(tmp_path, "T1")
    with pytest.raises(StoreError, match="another agent"):
        Store(tmp_path, "T1")
    store.close()
    Store(tmp_path, "T1").close()


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="make it and give it"):
        Store(tmp_path / "file" / "data", "T1")


def test_a_batch_of_rows_is_bounded_by_number_and_size_but_never_empty(tmp_path: Path) -> None:
    store = Store(tmp_path, "T1")
    fill(store, 20)
    reader = Reader(store.path)
    assert len(reader.batch(0, 5, 10_000)) == 5
    size = len(reader.rows(0, 1)[0][1])
    assert len(reader.batch(0, 100, size * 3)) == 3
    assert len(reader.batch(0, 100, 1)) == 1


def test_what_was_accepted_is_there_after_kill_9(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom agent.model import Batch\nfrom agent.store import Store\n"
        f"store = Store(Path({str(tmp_path)!r}), 'T1')\n"
        "for n in range(100000):\n"
        "    store.commit(Batch(rows=[{'at': n, 'up': n, 'boot': 'b', 'kind': 'change', 'n': n}]))\n"
        "    print(n, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    accepted = -1
    for line in process.stdout:
        accepted = int(line)
        if accepted == 200:
            process.send_signal(signal.SIGKILL)
    process.wait()
    store = Store(tmp_path, "T1")
    rows = store.reader().rows(0, 1_000_000)
    assert len(rows) >= accepted + 1
    assert [json.loads(r)["n"] for _, r, _ in rows] == list(range(len(rows)))


def test_who_moves_the_anchor_over_rows_does_not_hide_them_from_a_check(tmp_path: Path) -> None:
    store = Store(tmp_path, "T1")
    fill(store, 30)
    reader = store.reader()
    whole = list(reader.verify())[-1]
    assert (whole["verified"], whole["from"], whole["head"]) == (30, 1, 30)
    with sqlite3.connect(store.path) as db:
        db.execute("UPDATE ledger SET row = '{}' WHERE seq < 20")
        db.execute("INSERT INTO meta SELECT 'anchor_hash', lower(hex(hash)) FROM ledger WHERE seq = 20")
        db.execute("INSERT INTO meta VALUES ('anchor_seq', '20')")
    found = list(reader.verify())[-1]
    assert (found["broken"], "said to begin after row 20" in found["why"]) == (1, True)
    with sqlite3.connect(store.path) as db:
        db.execute("DELETE FROM ledger WHERE seq <= 20")
    db.close()
    rest = list(reader.verify())[-1]
    assert (rest["verified"], rest["from"]) == (10, 21), "it is said what was computed"


TOLD: dict[str, object] = {"at": 1, "up": 1, "boot": "b", "kind": "ceremony", "event": "opened", "order": "KO-1"}
ASKED: dict[str, object] = {**TOLD, "kind": "operation", "arguments": {"kind": "ceremony"}}


def broken(path: Path) -> int:
    """The row at which a whole check ends; 0 when all is well."""
    reader = Reader(path)
    end = list(reader.verify())[-1]
    reader.close()
    return int(end.get("broken", 0))


@pytest.mark.parametrize(
    ("damage", "row"),
    [
        ("DELETE FROM kept WHERE seq = 3", 3),
        ("DELETE FROM kept", 3),
        ("UPDATE kept SET row = replace(row, 'KO-1', 'KO-2') WHERE seq = 3", 3),
        ("UPDATE kept SET row = '{' WHERE seq = 5", 5),
        ("UPDATE kept SET seq = 4 WHERE seq = 3", 4),
        ("INSERT INTO kept SELECT 99, row, hash, epoch FROM kept WHERE seq = 3", 99),
    ],
)
def test_what_is_kept_of_keys_is_what_the_ledger_has(tmp_path: Path, damage: str, row: int) -> None:
    store = Store(tmp_path, "T1")
    fill(store, 2)
    store.commit(Batch(rows=[TOLD, ASKED, TOLD]))
    fill(store, TAIL)
    reader = store.reader()
    assert [kept["seq"] for kept in reader.kept()] == [3, 5]
    reader.compare_kept()
    assert broken(store.path) == 0
    store.close()
    with sqlite3.connect(store.path) as db:
        db.execute(damage)
    db.close()
    with pytest.raises(LedgerError) as met:
        reader.compare_kept()
    assert met.value.seq == broken(store.path) == row


def test_of_rows_that_were_pruned_the_copy_is_all_there_is(tmp_path: Path) -> None:
    store = Store(tmp_path, "T1")
    store.commit(Batch(rows=[TOLD]))
    store.commit(Batch(rows=[TOLD]))
    reader = store.reader()
    digest = reader.hash_at(1).hex()
    with sqlite3.connect(store.path) as db:
        db.execute("DELETE FROM ledger WHERE seq = 1")
        db.executemany("INSERT INTO meta VALUES (?, ?)", [("anchor_seq", "1"), ("anchor_hash", digest)])
    db.close()
    assert [kept["seq"] for kept in reader.kept()] == [1, 2]
    assert broken(store.path) == 0
    with sqlite3.connect(store.path) as db:
        db.execute("UPDATE kept SET row = '{' WHERE seq = 1")
    db.close()
    with pytest.raises(LedgerError, match="pruned"):
        reader.kept()
