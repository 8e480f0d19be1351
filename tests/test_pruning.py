"""The size of a store: it stays below its cap whatever comes, what goes goes from the oldest end, and says so."""

import json
import sqlite3
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent.config import parse
from agent.disk.room import SLICES
from agent.errors import ConfigError, StoreError, StoreFull
from agent.model import Batch, StoredPoint
from agent.store import FILE, Reader, Store

KIB = 1024
CAP = 2 * KIB * KIB
Rows = list[dict[str, Any]]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    one = Store(tmp_path, "T1", cap=CAP)
    # The space that rows take is looked at here, not whether they survive a power cut: tests/test_power_cuts.py.
    one._db.execute("PRAGMA synchronous = OFF")
    yield one
    one.close()


def row(number: int, kind: str = "change") -> dict[str, Any]:
    text = "~" * (number * 37 % 300)
    return {"at": number * 1000, "up": number * 1000, "boot": "b", "kind": kind, "n": number, "text": text}


def fill(store: Store, commits: int, rows: int = 20, *, is_acked: bool = False, signs: int = 0) -> int:
    """Commit; returns the most bytes that the file and its log took together. signs: a checkpoint after so many."""
    most = 0
    for number in range(commits):
        store.commit(Batch(rows=[row(store.head + n) for n in range(rows)]))
        if signs and number % signs == signs - 1:
            store.commit(Batch(rows=[{**row(store.head), "kind": "checkpoint", "covers": store.head}]))
        if is_acked:
            store.settle(store.epoch, store.head)
        most = max(most, taken(store))
    return most


def taken(store: Store) -> int:
    return sum(path.stat().st_size for path in (store.path, store.path.with_name(FILE + "-wal")))


def all_rows(reader: Reader) -> Rows:
    return [json.loads(body) for _, body, _ in reader.rows(0, 1_000_000)]


def whole(reader: Reader) -> bool:
    return "verified" in list(reader.verify())[-1]


def test_the_store_stays_below_its_cap_and_its_chain_begins_at_the_anchor(store: Store) -> None:
    assert fill(store, 600, is_acked=True) <= CAP
    with closing(store.reader()) as reader:
        rows = all_rows(reader)
        assert 0 < reader.anchor == rows[0]["seq"] - 1
        assert store.head == rows[-1]["seq"] == 12_000
        assert len(rows) > 3000, "it is used"
        assert whole(reader)
        assert {row["kind"] for row in rows} == {"change"}, "what was delivered goes without a word"


def test_rows_go_in_bulk_and_seldom(store: Store) -> None:
    anchors = set()
    for _ in range(60):
        fill(store, 10, is_acked=True)
        anchors.add(int(store.reader().meta("anchor_seq") or 0))
    assert 3 < len(anchors) < 30, "600 commits"


def test_only_up_to_a_checkpoint_as_long_as_there_is_one(store: Store) -> None:
    fill(store, 10, is_acked=True, signs=10)
    signed = store.head
    while not store.reader().anchor:
        fill(store, 1, is_acked=True)
    with closing(store.reader()) as reader:
        assert reader.anchor == signed - 1, "the checkpoint stays that proves the anchor"
        assert json.loads(reader.rows(signed - 1, 1)[0][1])["kind"] == "checkpoint"
    fill(store, 150, is_acked=True)
    assert store.reader().anchor > signed, "an agent that signs no more still has its cap"
    fill(store, 400, is_acked=True, signs=10)
    with closing(store.reader()) as reader:
        assert any(row["kind"] == "checkpoint" for row in all_rows(reader))
        assert reader.anchor > signed


def test_rows_that_the_broker_has_go_before_those_that_nobody_has(store: Store) -> None:
    fill(store, 150, is_acked=True)
    acked = store.head
    fill(store, 130)
    with closing(store.reader()) as reader:
        assert 0 < reader.anchor <= acked
        assert not [row for row in all_rows(reader) if row["kind"] == "dropped"]


def test_rows_that_nobody_has_go_last_and_a_row_names_them_and_the_hash_after_them(store: Store) -> None:
    fill(store, 20, is_acked=True)
    acked = store.head
    hashes: dict[int, str] = {}
    for _ in range(80):
        fill(store, 10)
        with closing(store.reader()) as reader:
            hashes |= {seq: digest.hex() for seq, _, digest in reader.rows(max(0, store.head - 220), 220)}
    with closing(store.reader()) as reader:
        last = [row for row in all_rows(reader) if row["kind"] == "dropped"][-1]
        assert (last["first"], last["last"]) == (acked + 1, reader.anchor), "ranges that touch are one"
        assert last["hash"] == hashes[reader.anchor] == reader.hash_at(reader.anchor).hex()
        assert (last["up"], last["boot"]) == (row(last["up"] // 1000)["up"], "b"), "with the clocks of its commit"
        assert store.acked == reader.anchor
        assert whole(reader)
    assert taken(store) <= CAP
    store.settle(store.epoch, store.head)
    fill(store, 20)
    first = store.head + 1
    store.settle(store.epoch, first - 1)
    fill(store, 400)
    with closing(store.reader()) as reader:
        again = [row for row in all_rows(reader) if row["kind"] == "dropped"][-1]
        assert again["first"] == first, "a range after a delivery is a new one"


def test_what_is_no_row_does_not_pass_the_cap_either(store: Store) -> None:
    fill(store, 10)
    points = [StoredPoint("d", f"p{number}", "~" * 400, True, 1) for number in range(10_000)]
    batches = [Batch(points=points[number : number + 100]) for number in range(0, 10_000, 100)]
    with pytest.raises(StoreFull, match=r"may take 2 MiB.* raise \[terminal\] disk"):
        deque(map(store.commit, batches))
    assert taken(store) <= CAP
    assert whole(store.reader())


def test_a_pruned_store_opens_again_and_goes_on(store: Store, tmp_path: Path) -> None:
    fill(store, 600, is_acked=True)
    before = store.head, store.head_hash, store.epoch
    store.close()
    again = Store(tmp_path, "T1", cap=CAP)
    assert (again.found, again.head, again.head_hash, again.epoch) == ("good", *before)
    fill(again, 1)
    assert whole(again.reader())
    again.close()


def test_what_goes_for_a_commit_that_then_fails_is_gone_as_it_should_be(store: Store) -> None:
    fill(store, 400, is_acked=True)
    was = 0
    while not was or store.reader().anchor == was:
        was = store.reader().anchor
        bad = StoredPoint("d", "x", object(), True, 1)  # type: ignore[arg-type]
        head = store.head
        with pytest.raises(TypeError):  # found out in the middle of the transaction
            store.commit(Batch(rows=[row(n) for n in range(20)], points=[bad]))
        with closing(store.reader()) as reader:
            assert reader.head()[0] == store.head == head, "nothing of the commit"
            assert whole(reader)
            if reader.anchor > was:
                return
        fill(store, 1, is_acked=True)


def test_rows_of_ceremonies_outlive_their_place_in_the_chain(store: Store) -> None:
    store.commit(Batch(rows=[row(1, "ceremony"), row(2, "sealed"), row(3)]))
    with closing(store.reader()) as reader:
        places = {seq: reader.hash_at(seq) for seq in (1, 2)}
    fill(store, 600, is_acked=True)
    with closing(store.reader()) as reader:
        assert reader.anchor > 3
        kept = reader.kept()
        assert [row["kind"] for row in kept] == ["ceremony", "sealed"]
        assert [reader.hash_at(row["seq"]) for row in kept] == list(places.values())
        assert reader.kept_place(kept[0]) == (store.epoch, places[1].hex()), "a receipt can still be given"


@pytest.mark.parametrize("is_acked", [True, False])
@pytest.mark.parametrize("is_idle", [True, False])
def test_a_lower_cap_shrinks_the_file_a_little_at_a_time(tmp_path: Path, is_acked: bool, is_idle: bool) -> None:
    large = Store(tmp_path, "T1", cap=4 * CAP)
    large._db.execute("PRAGMA synchronous = OFF")
    fill(large, 1100, is_acked=is_acked)
    large.close()
    was = large.path.stat().st_size
    assert was > 2 * CAP
    small = Store(tmp_path, "T1", cap=CAP)
    small._db.execute("PRAGMA synchronous = OFF")
    looks, least = 0, SLICES * small.room.size.slice
    while small.room.is_passed and looks < 50:
        looks += 1
        if is_idle and is_acked:
            small.flush()
        else:
            fill(small, 1, is_acked=is_acked)
        assert taken(small) <= was + small.room.size.log, "what goes does not take the disk again"
        assert small.path.stat().st_size >= was - 2 * least * looks, "nobody waits for all of it"
    assert small.path.stat().st_size <= small.room.size.file
    assert fill(small, 100, is_acked=is_acked) <= CAP
    assert whole(small.reader())
    small.close()


def test_no_power_cut_finds_rows_gone_that_are_not_said_to_be_delivered(tmp_path: Path) -> None:
    with closing(Store(tmp_path, "T1", cap=4 * CAP)) as large:
        large._db.execute("PRAGMA synchronous = OFF")
        fill(large, 1000)
    small = Store(tmp_path, "T1", cap=CAP)
    small.settle(small.epoch, small.head)
    bad = StoredPoint("d", "x", object(), True, 1)  # type: ignore[arg-type]
    with pytest.raises(TypeError):  # the commit itself brings nothing to the disk, also not the cursor
        small.commit(Batch(rows=[row(1)], points=[bad]))
    with closing(small.reader()) as reader:
        assert 0 < reader.anchor <= reader.number("acked")
    small.close()


def test_rows_that_nobody_has_go_slice_by_slice_and_each_slice_is_named(tmp_path: Path) -> None:
    with closing(Store(tmp_path, "T1", cap=4 * CAP)) as large:
        large._db.execute("PRAGMA synchronous = OFF")
        fill(large, 1000)
        head = large.head
    with closing(Store(tmp_path, "T1", cap=CAP)) as small:
        small.commit(Batch(rows=[{**row(9), "kind": "clock", "at": 5, "up": 7, "boot": "c"}, row(head)]))
        with closing(small.reader()) as reader:
            rows = [json.loads(body) for _, body, _ in reader.rows(head, 100)]
            said, begun = rows[:-2], rows[-2]
            assert [one["kind"] for one in said] == ["dropped"] * SLICES
            assert [one["first"] for one in said] == [1] * SLICES, "ranges that touch are one"
            assert said[-1]["last"] == reader.anchor == small.acked
            assert begun["kind"] == "clock"
            assert {(one["up"], one["boot"]) for one in said} == {(row(head - 1)["up"], "b")}, (
                "the clocks of before"
            )
            assert whole(reader)


def test_nothing_goes_for_what_could_never_fit(store: Store) -> None:
    fill(store, 100)
    with pytest.raises(StoreFull, match="does not fit"):
        store.commit(Batch(rows=[{**row(1), "text": "~" * (CAP // 3)}]))
    with closing(store.reader()) as reader:
        assert (reader.anchor, reader.head()[0]) == (0, 2000)


def test_who_reads_for_ever_cannot_make_the_log_grow_for_ever(store: Store) -> None:
    reading = sqlite3.connect(store.path, isolation_level=None)
    reading.execute("BEGIN")
    reading.execute("SELECT count(*) FROM ledger").fetchone()
    with pytest.raises(StoreError, match="end that program"):
        fill(store, 600, is_acked=True)
    assert taken(store) <= CAP
    reading.close()
    fill(store, 1)
    assert whole(store.reader())


def test_the_log_has_its_own_bound_while_the_file_has_room(tmp_path: Path) -> None:
    store = Store(tmp_path, "T1", cap=16 * CAP)
    store._db.execute("PRAGMA synchronous = OFF")
    with closing(sqlite3.connect(store.path, isolation_level=None)) as reading:
        reading.execute("BEGIN")
        reading.execute("SELECT count(*) FROM ledger").fetchone()
        with pytest.raises(StoreError, match="end that program"):
            fill(store, 400, rows=500)
    assert store.path.with_name(FILE + "-wal").stat().st_size <= store.room.size.log
    store.close()


def test_who_verifies_while_rows_are_pruned_is_not_told_of_a_break(store: Store) -> None:
    fill(store, 240, is_acked=True)
    verdict = {}
    with closing(store.reader()) as reader:
        for answer in reader.verify():
            verdict = answer
            if reader.anchor < 6000:
                fill(store, 60, is_acked=True)
        assert reader.anchor >= 6000
    assert verdict.get("head") == store.head
    assert verdict["verified"] == store.head - verdict["from"] + 1, "what was computed, and no more"


def test_the_cap_is_in_the_configuration(tmp_path: Path) -> None:
    text = '[terminal]\norg = "coop"\nid = "T1"\ndata = "data"\n'
    assert parse(text.encode(), tmp_path).terminal.disk == 256
    assert parse(f"{text}disk = 16\n".encode(), tmp_path).terminal.disk == 16
    with pytest.raises(ConfigError, match="disk"):
        parse(f"{text}disk = 15\n".encode(), tmp_path)
