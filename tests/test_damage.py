"""A store that is rotten or was changed by hand: what is found at a start, who may condemn it, what is carried
over, and which evidence is kept."""

import json
import shutil
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from agent.config import parse
from agent.disk.committing import OFTEN, WITHIN, Committing
from agent.errors import StoreCorrupt, StoreError
from agent.model import Batch, Fault, StoredPoint
from agent.mqtt.byteaccount import of_terminal
from agent.mqtt.outbox import Outbox
from agent.mqtt.publishing import Publishing
from agent.store import FILE, Reader, Store
from tests.test_disk import MIB, Core, fill, row
from tests.unplugged import Unplugged
from tests.uplinks import no_device

ANCHOR = "INSERT OR REPLACE INTO meta SELECT 'anchor_hash', lower(hex(hash)) FROM ledger WHERE seq = {0}"

DROPPED = "INSERT OR REPLACE INTO meta VALUES ('dropped', '{}')"


def change(store: Store | Path, *commands: str) -> None:
    path = store / FILE if isinstance(store, Path) else store.path
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for command in commands:
            db.execute(command)


def asides(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.aside-*") if not path.name.endswith(("-wal", "-shm")))


def meets_damage(store: Store) -> Iterator[Reader]:
    """As a request does that takes a while: what it has open may be set aside meanwhile."""
    with store.reading() as reader:
        yield reader
        raise StoreCorrupt("the same damage, later")


def publishing(store: Store, reader: Reader, folder: Path) -> Publishing:
    text = (
        '[terminal]\norg = "coop"\nid = "T1"\ndata = "data"\n[uplink]\nlinger = 0.0\n[broker]\nhost = "127.0.0.1"\n'
    )
    config = parse(text.encode(), folder)
    account, box = of_terminal(config), Outbox()
    made = Publishing(config, store, reader, Unplugged(config), "s", account, no_device, (), deque(), box, None)
    made.delivery.news(True, time.monotonic())
    return made


def refused(one: Publishing) -> str:
    """Why nothing can be published; empty when it can."""
    try:
        one.turn(time.monotonic())
    except StoreCorrupt as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    "rot",
    [
        "UPDATE meta SET value = '5x' WHERE key = 'acked'",
        "UPDATE meta SET value = '31' WHERE key = 'acked'",
        "DELETE FROM meta WHERE key = 'epoch'",
        "DELETE FROM meta WHERE key = 'terminal'",
        "INSERT INTO meta VALUES ('anchor_seq', '1z'), ('anchor_hash', '00')",
        "INSERT INTO meta VALUES ('anchor_seq', '30')",
        "INSERT INTO meta VALUES ('anchor_seq', '30'), ('anchor_hash', hex(randomblob(32)))",
        "INSERT INTO meta VALUES ('dropped', '1')",
        "INSERT INTO meta VALUES ('dropped', '1-x')",
        "INSERT INTO meta VALUES ('signed', '')",
        "INSERT INTO meta VALUES ('signed', '2-')",
        "UPDATE points SET value = 'ok\"'",
        "UPDATE points SET at = 'now'",
        "UPDATE points SET value = CAST(x'22ff22' AS TEXT)",
        "UPDATE faults SET value = 'v\"'",
        "INSERT INTO meta SELECT 'anchor_seq', 5 UNION SELECT 'anchor_hash', hex(hash) FROM ledger WHERE seq = 5",
        "DELETE FROM ledger",
        "UPDATE ledger SET hash = 'x' WHERE seq = 30",
    ],
)
def test_one_rotten_value_does_not_stop_the_agent_for_ever(tmp_path: Path, rot: str) -> None:
    store = Store(tmp_path, "T1")
    store.commit(Batch(points=[StoredPoint("d", "p", "ok", True, 1)], raised=[Fault("d", "p", "c", "v", 1)]))
    fill(store, 30)
    store.settle(store.epoch, 5)
    store.close()
    change(tmp_path, rot)
    again = Store(tmp_path, "T1")
    if rot.endswith(("'1')", "'')")):
        assert again.found == "good", "nothing was dropped or signed, in other words"
    else:
        assert (len(asides(tmp_path)), again.head, again.epoch != store.epoch) == (1, 0, True)
    assert again.acked <= again.head
    again.forget_all()
    with closing(again.reader()) as reader:
        assert "verified" in list(reader.verify())[-1]
        assert len(reader.points()) == len(reader.faults()) == (again.found == "good")
    again.close()


def test_a_file_in_which_a_start_was_cut_off_is_a_new_store(tmp_path: Path) -> None:
    Store(tmp_path, "T1").close()
    change(tmp_path, "DELETE FROM meta")
    again = Store(tmp_path, "T1")
    assert (again.found, len(again.epoch)) == ("good", 16)
    again.close()


def test_what_a_reader_of_the_old_file_meets_is_no_word_against_the_new_one(tmp_path: Path) -> None:
    store = Store(tmp_path, "T1")
    fill(store, 3)
    core = Core(store)
    answers = meets_damage(store)
    old = next(answers)
    store.doubt(StoreCorrupt("damage"), old.opened)
    assert core.committing.take(Batch(rows=[row("after")]), now=True)
    assert "damage" in store.found
    epoch = store.epoch
    assert old.opened != store.opened
    with pytest.raises(StoreCorrupt):
        next(answers)
    assert core.committing.take(Batch(rows=[row("more")]), now=True)
    assert (store.epoch, len(asides(tmp_path))) == (epoch, 1)
    store.close()


def test_who_publishes_from_a_file_that_was_written_again_changes_to_the_new_one(tmp_path: Path) -> None:
    store = Store(tmp_path / "data", "T1")
    fill(store, 3)
    core = Core(store)
    with closing(store.reader()) as old, closing(publishing(store, old, tmp_path)) as one:
        one.turn(time.monotonic())
        assert one.delivery.taken == 3
        store.path.unlink()
        assert core.committing.take(Batch(rows=[row("after")]), now=True)
        one.delivery.news(True, time.monotonic())
        one.turn(time.monotonic())
        assert (one.delivery.taken, store.head) == (3, 4), "the next connection has it"
    store.close()


def test_rows_that_went_are_passed_over_only_as_far_as_the_agent_dropped_them(tmp_path: Path) -> None:
    store = Store(tmp_path / "data", "T1")
    fill(store, 20)
    away = ("INSERT INTO meta VALUES ('anchor_seq', '15')", ANCHOR.format(15), "DELETE FROM ledger WHERE seq <= 15")
    change(store, *away)
    for told in ("DELETE FROM meta WHERE key = 'dropped'", DROPPED.format("6-15"), DROPPED.format("1-14")):
        change(store, told)
        with closing(store.reader()) as reader, closing(publishing(store, reader, tmp_path)) as one:
            assert refused(one) == f"{store.path} has no row 1, which is not delivered yet"
    change(store, DROPPED.format("1-15"))
    with closing(store.reader()) as reader, closing(publishing(store, reader, tmp_path)) as one:
        one.turn(time.monotonic())
        assert one.delivery.taken == 20
    store.close()


def test_a_row_that_does_not_fit_its_hash_is_not_published(tmp_path: Path) -> None:
    store = Store(tmp_path / "data", "T1")
    fill(store, 20)
    change(store, "UPDATE ledger SET row = CAST(x'ff' || substr(row, 2) AS BLOB) WHERE seq = 7")
    with closing(store.reader()) as reader, closing(publishing(store, reader, tmp_path)) as one:
        assert "does not fit" in refused(one)
        assert one.delivery.taken == 0
    store.close()


FORGE = "UPDATE kept SET row = CAST(replace(CAST(row AS TEXT), 'destroyed', 'completed') AS BLOB) WHERE seq = 2"


@pytest.mark.parametrize(
    ("changes", "carried", "told"),
    [
        ([], ["created", "destroyed"], "2 rows of ceremonies were carried over"),
        ([FORGE], ["created"], "1 rows of ceremonies were carried over, not those of 2: "),
        (["UPDATE kept SET row = x'7b' WHERE seq = 2"], ["created"], "1 rows of ceremonies were carried over, not"),
        (["UPDATE ledger SET row = x'00' WHERE seq = 2"], ["created", "destroyed"], "2 rows"),
        ([FORGE, "UPDATE ledger SET row = x'00' WHERE seq = 2"], ["created"], "1 rows"),
        ([FORGE, "DELETE FROM ledger WHERE seq = 2"], ["created"], "1 rows"),
        (
            ["DELETE FROM meta WHERE key = 'terminal'"],
            [],
            "0 rows of ceremonies were carried over, not those of 1, 2",
        ),
        (["UPDATE kept SET hash = x'00' WHERE seq = 2"], ["created", "destroyed"], "2 rows"),
    ],
)
def test_no_false_copy_of_a_ceremony_is_carried_over(
    tmp_path: Path, changes: list[str], carried: list[str], told: str
) -> None:
    store = Store(tmp_path, "T1")
    store.commit(Batch(rows=[row("created", "ceremony"), row("destroyed", "ceremony")]))
    fill(store, 20)
    store.close()
    change(tmp_path, *changes, "UPDATE ledger SET hash = x'00' WHERE seq = 21")
    again = Store(tmp_path, "T1")
    assert again.carried.startswith(told)
    assert again.fate()["carried"] == again.carried
    with closing(again.reader()) as reader:
        assert [kept["text"] for kept in reader.kept()] == carried
    again.commit(Batch(rows=[row("after", "ceremony")]))
    again.set_aside("once more")
    with closing(again.reader()) as reader:
        assert [kept["text"] for kept in reader.kept()] == [*carried, "after"], "what was carried once stays"
    again.close()


def test_of_the_stores_set_aside_the_one_with_most_that_nobody_has_is_kept(tmp_path: Path) -> None:
    store = Store(tmp_path, "T1", cap=4 * MIB)
    first = store.epoch
    for _ in range(2):
        store.commit(Batch(rows=[row("~" * 700) for _ in range(600)]))
    store.set_aside("damaged")
    assert (tmp_path / asides(tmp_path)[0]).stat().st_size > MIB, "alone it is too large"
    for _ in range(3):
        fill(store, 3, 10)
        store.set_aside("damaged")
    assert any(name.endswith(f"-{first}-1200") for name in asides(tmp_path))
    assert len(asides(tmp_path)) == 3
    assert "with rows up to 3, of which nobody has 3" in store.deleted
    assert store.fate()["deleted"] == store.deleted
    # A larger one takes its place, and what that was is told.
    for _ in range(2):
        store.commit(Batch(rows=[row("~" * 700) for _ in range(650)]))
    store.set_aside("damaged")
    assert f"-{first}-1200 with rows up to 1200, of which nobody has 1200" in store.deleted
    # One that was delivered goes itself; its name stays until there is a newer one, for the new chain names it.
    for _ in range(2):
        store.commit(Batch(rows=[row("~" * 700) for _ in range(650)]))
    store.settle(store.epoch, 1290)
    store.set_aside("damaged")
    name = store.found.rpartition(" ")[2]
    assert f"{name} with rows up to 1300, of which nobody has 10" in store.deleted
    assert (tmp_path / name).stat().st_size == 0
    store.close()
    store = Store(tmp_path, "T1", cap=4 * MIB)
    assert name in store.found
    fill(store, 1)
    store.set_aside("damaged")
    assert name not in asides(tmp_path)
    store.close()


def test_a_disk_that_damages_all_does_not_take_one_store_after_the_other(tmp_path: Path) -> None:
    store = Store(tmp_path, "T1")
    now = 0.0
    core = Core(store, lambda: now)
    for number in range(OFTEN):
        store.doubt(StoreCorrupt("rotten"))
        assert core.committing.take(Batch(rows=[row(f"{number}")]), now=True)
    store.doubt(StoreCorrupt("rotten"))
    for _ in range(3):
        assert not core.committing.take(Batch(rows=[row("waits")]), now=True)
    assert len(asides(tmp_path)) == OFTEN
    assert f"rotten; {OFTEN} stores were set aside within an hour: exchange the disk" in core.committing.trouble
    now = WITHIN
    assert core.committing.take(Batch(), now=True)
    assert core.committing.trouble == ""
    with closing(store.reader()) as reader:
        rows = [json.loads(body) for _, body, _ in reader.rows(0, 10)]
    assert [entry["kind"] for entry in rows] == ["store", "change", "change", "change"]
    assert "deleted" in rows[0], "there are never more than three"
    store.close()


def test_a_new_chain_is_read_afresh_though_that_fails_at_first(tmp_path: Path) -> None:
    store = Store(tmp_path, "T1")
    tried: list[Callable[[], None]] = []

    def renew() -> None:
        tried.append(renew)
        if len(tried) < 3:
            raise StoreError("it cannot be read just now")

    core = Core(store)
    committing = Committing(store, core._step, core.notes.append, renew)
    store.doubt(StoreCorrupt("rotten"))
    assert not committing.take(Batch(rows=[row("a")]), now=True)
    assert "cannot be read just now" in committing.trouble
    while not committing.take(Batch(), now=True):
        assert committing.waits
    assert (len(tried), committing.trouble, store.head) == (3, "", 2)
    store.close()


def test_what_went_is_said_to_be_delivered_in_the_same_moment(tmp_path: Path) -> None:
    """Else the next start would take a good store for one whose anchor was moved: the cursor is written seldom."""
    store = Store(tmp_path / "data", "T1", cap=MIB)
    with closing(store.reader()) as reader:
        while not reader.anchor:
            fill(store, 10, 6000)
            store.settle(store.epoch, store.head)
        assert reader.anchor <= reader.number("acked")
    shutil.copytree(tmp_path / "data", tmp_path / "found")  # as a power cut leaves it
    found = Store(tmp_path / "found", "T1", cap=MIB)
    assert (found.found, found.head) == ("good", store.head)
    found.close()
    store.close()
