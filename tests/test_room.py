"""Room for what is to be stored: a disk that is full at any moment, a backlog above the cap, a row no store takes.

The small disks are tmpfs, which only root may mount; without root those tests are skipped by name.
"""

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent.disk.committing import MANY, PIECE
from agent.disk.pruning import LOG, SLICE
from agent.disk.sifting import MOST
from agent.errors import StoreCorrupt, StoreFull
from agent.model import Batch, Fault, Heard, Operation, Outcome, StoredPoint
from agent.pushing.inforce import begin
from agent.service import Service
from agent.store import FILE, Store
from tests.test_disk import FLEET, MIB, UPS, Core, fill, row, use_up, whole
from tests.whole import Site


@pytest.fixture
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A disk of so many MiB (24)."""
    if os.geteuid():
        pytest.skip("needs root: only root may mount a file system")
    place, size = tmp_path / "disk", getattr(request, "param", 24)
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def log(store: Store) -> int:
    return store.path.with_name(FILE + "-wal").stat().st_size


def large(folder: Path) -> Store:
    """Thirty MB of rows that the broker has."""
    store = Store(folder, "T1")
    store._db.execute("PRAGMA synchronous = OFF")
    for _ in range(30):
        store.commit(Batch(rows=[row("~" * 1000) for _ in range(1000)]))
    store.settle(store.epoch, store.head)
    store.close()
    return Store(folder, "T1")


@pytest.mark.parametrize("disk", [64], indirect=True)
def test_a_large_store_makes_room_on_a_full_disk(disk: Path) -> None:
    store = large(disk / "data")
    use_up(disk)
    for number in range(3 * LOG // SLICE):
        store.commit(Batch(rows=[row("~" * 200) for _ in range(100)]))
        store.settle(store.epoch, store.head)
        assert log(store) <= LOG, number
    with closing(store.reader()) as reader:
        assert 0 < reader.anchor <= reader.number("acked"), "no power cut may find rows gone that are not delivered"
    assert len(whole(store)) > 20_000, "what need not go stays"
    store.close()


@pytest.mark.parametrize("disk", [64], indirect=True)
def test_a_lower_cap_needs_no_room_on_a_full_disk(disk: Path) -> None:
    large(disk / "data").close()
    with closing(sqlite3.connect(disk / "data" / FILE)) as db:
        db.execute("CREATE TABLE gone AS SELECT zeroblob(6000000)")
        db.execute("DROP TABLE gone")  # much of the file may be free from the beginning
    use_up(disk)
    with closing(Store(disk / "data", "T1", cap=16 * MIB)) as store:
        was = store.path.stat().st_size
        store.forget_all()
        for _ in range(20):
            store.commit(Batch(rows=[row("x")]))
            assert log(store) <= LOG
        assert store.path.stat().st_size <= store.room.size.file < was / 2
        assert whole(store)[-1]["seq"] == store.head


def test_a_terminal_starts_on_a_full_disk_as_long_as_there_is_the_reserve(disk: Path) -> None:
    store = Store(disk / "data", "T1")
    fill(store, 400)
    store.commit(Batch(points=[StoredPoint(f"d{n % 10}", f"p{n}", "ok", True, 1) for n in range(200)]))
    store.settle(store.epoch, store.head)
    store.close()
    use_up(disk)
    with closing(Store(disk / "data", "T1")) as again:
        assert (again.found, again.head) == ("good", 400)
        assert "is full" in again.warning
        again.forget_all()
        fill(again, 1)
        with closing(again.reader()) as reader:
            assert not any(point.known for point in reader.points())
    use_up(disk)
    with pytest.raises(StoreFull, match="make room on its disk"):
        Store(disk / "data", "T1")


def test_a_damaged_store_is_set_aside_on_a_full_disk(disk: Path) -> None:
    store = Store(disk / "data", "T1")
    fill(store, 100)
    core = Core(store)
    store.commit(Batch(rows=[row("a step", "ceremony")]))
    use_up(disk)
    store.doubt(StoreCorrupt("page 7 is rotten"))
    assert core.committing.take(Batch(rows=[row("after")]))
    assert [one["kind"] for one in whole(store)] == ["store", "change"]
    with closing(store.reader()) as reader:
        assert [one["text"] for one in reader.kept()] == ["a step"]
    store.close()
    # And at a start: nothing is left of the reserve, but there is room for a new one.
    (disk / "balloon").unlink()
    store = Store(disk / "data", "T1")
    store.close()
    store.path.write_bytes(os.urandom(store.path.stat().st_size))
    use_up(disk)
    with closing(Store(disk / "data", "T1")) as again:
        assert "set aside" in again.found
        fill(again, 1)


def test_a_backlog_larger_than_the_cap_is_stored_and_the_reserve_is_not_for_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "data", "T1", cap=16 * MIB)
    store._db.execute("PRAGMA synchronous = OFF")
    core = Core(store)
    assert core.committing.take(Batch(rows=[row(f"{number} " + "~" * 700) for number in range(MANY)]))
    rows = whole(store)
    assert rows[-1]["text"].startswith(f"{MANY - 1} ")
    dropped = [one for one in rows if one["kind"] == "dropped"]
    assert (dropped[-1]["first"], dropped[-1]["last"]) == (1, rows[0]["seq"] - 1)
    assert len(rows) > 2 * MANY // 5, "and no more than has to"
    assert log(store) <= store.room.size.log
    assert (tmp_path / "data/reserve").exists()
    store.close()


def test_what_is_held_is_told_until_the_last_piece_of_it_is_stored(tmp_path: Path) -> None:
    store = Store(tmp_path / "data", "T1")
    store._db.execute("PRAGMA synchronous = OFF")
    core = Core(store)
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("CREATE TRIGGER no BEFORE INSERT ON ledger BEGIN SELECT RAISE(FAIL, 'no'); END")
        for number in range(10):
            rows = [row(f"{number}.{n}") for n in range(PIECE // 2)]
            core.committing.take(Batch(rows=rows, points=[StoredPoint("d", "p", number, True, number)]))
            assert store._tried[2] <= PIECE, "a try does not spell all that waits"
        other.execute("DROP TRIGGER no")
    told: list[Any] = []
    with closing(store.reader()) as reader:
        store.on_commit = lambda urgent: told.append((reader.head()[0], reader.points()[0].value))
        assert core.committing.take(Batch(), now=True)
    assert told == [(PIECE * n, 9) for n in range(1, 6)], "no old value passes for a new one"
    assert [one["text"] for one in whole(store)] == [f"{k}.{n}" for k in range(10) for n in range(PIECE // 2)]
    store.close()


@pytest.mark.parametrize("what", ["doubted", "deleted"])
def test_a_terminal_at_rest_acts_on_what_a_busy_one_would(tmp_path: Path, what: str) -> None:
    store = Store(tmp_path / "data", "T1")
    fill(store, 5)
    core, epoch = Core(store), store.epoch
    core.committing.flush()
    if what == "doubted":
        store.doubt(StoreCorrupt("a reader met damage"))
    else:
        store.path.unlink()
    core.committing.flush()
    if what == "doubted":
        assert "a reader met damage" in store.found
        assert [one["kind"] for one in whole(store)] == ["store"]
        assert (store.epoch != epoch, core.renewed) == (True, 1)
    else:
        assert [one["seq"] for one in whole(store)] == [1, 2, 3, 4, 5]
        assert [said["event"] for said in core.said("disk")] == ["stored again"]
    assert (core.committing.trouble, core.committing.waits) == ("", False)
    store.close()


def test_a_terminal_at_rest_that_cannot_mend_it_says_so_and_tries_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "data", "T1")
    fill(store, 1)
    core = Core(store)
    (tmp_path / "data").rename(tmp_path / "away")
    (tmp_path / "data").write_text("no folder")
    core.committing.flush()
    assert "nothing can be stored" in core.committing.trouble
    assert core.committing.waits
    (tmp_path / "data").unlink()
    (tmp_path / "away").rename(tmp_path / "data")
    assert core.committing.take(Batch(), now=True)
    assert core.committing.trouble == ""
    store.close()


BAD = [
    Batch(rows=[{**row("bad"), "value": 0.5}]),
    Batch(rows=[{**row("bad"), "raw": "\ud800"}]),
    Batch(rows=[{**row("bad"), "facts": {"inside": [{1}]}}]),
    Batch(rows=[{"at": 1}]),
    Batch(rows=[row("~" * MOST)]),
    Batch(points=[StoredPoint("d", "bad", 1, True, 1, "\ud800")]),
    Batch(points=[StoredPoint("d", "bad", [1], True, 1)]),  # type: ignore[arg-type]
    Batch(raised=[Fault("d", "p", "bad", "x", 1, "\ud800")]),
]


@pytest.mark.parametrize("bad", BAD)
def test_what_cannot_be_spelled_costs_nothing_else(
    tmp_path: Path, bad: Batch, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path / "data", "T1")
    core = Core(store)
    point, fault = StoredPoint("d", "p", "好", True, 1, "é"), Fault("d", "p", "f", 0.5, 1, "好")
    for _ in range(2):
        batch = Batch(
            rows=[row("good"), *bad.rows, row("better")],
            points=[*bad.points, point],
            raised=[*bad.raised, fault],
        )
        assert core.committing.take(batch)
    assert [one["text"] for one in whole(store)] == ["good", "better"] * 2
    with closing(store.reader()) as reader:
        assert (reader.points(), reader.faults()) == ([point], [fault])
    assert core.committing.dropped == 2
    assert sum("cannot be stored, it is dropped" in message for message in caplog.messages) == 1
    store.close()


def test_an_operation_that_cannot_be_ledgered_is_not_performed(tmp_path: Path) -> None:
    service = Service(begin(Site(tmp_path, devices=UPS, fleet=FLEET).configure(UPS)))
    operation = Operation("o-1", "ups1", "test", "\udcff", {})
    batch = service._core.step([operation], 1.0, 1000)
    assert service._committing.take(batch)
    service._perform_late(operation, 1.0)
    told = [service._queue.get_nowait() for _ in range(service._queue.qsize())]
    said = [one for item in told if isinstance(item, Heard) for one in item.items if isinstance(one, Outcome)]
    assert [(one.operation, one.result) for one in said] == [("o-1", "refused")]
