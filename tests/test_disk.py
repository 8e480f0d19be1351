"""A disk that is full, read-only, without inodes, deleted or damaged under the agent: real file systems.

tmpfs and ext4 on a loop device, which only root may mount; without root those tests are skipped by name
"""

import json
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from agent.disk.committing import MANY, Committing
from agent.disk.datafolder import LOW
from agent.disk.reading import Reader
from agent.disk.schema import PAGE
from agent.errors import StoreCorrupt, StoreError, StoreFull
from agent.ledger import chained
from agent.model import Batch, Fault, Heard, Note, Reading, StoredPoint
from agent.pushing.inforce import begin
from agent.service import Service
from agent.store import Store
from tests.whole import Site, site, wait

MIB = 1024 * 1024
UPS = '\n[devices.ups1]\nkind = "ups"\nport = "./atm1/ups1"\n'
FLEET = 'run_dir = "."\n[terminals.atm1.devices.ups1]\nkind = "ups"\n'

Mount = Callable[..., Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mounts a tmpfs; all are taken away in the end."""
    if os.geteuid():
        pytest.skip("needs root: only root may mount a file system")
    places: list[Path] = []

    def mounted(options: str, name: str = "disk") -> Path:
        place = tmp_path / name
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=True)
        places.append(place)
        return place

    yield mounted
    for place in places:
        subprocess.run(["umount", "-l", place], check=True)


def row(text: str, kind: str = "change") -> dict[str, Any]:
    return {"at": 1, "up": 1, "boot": "b", "kind": kind, "text": text}


def fill(store: Store, commits: int, size: int = 2000) -> None:
    for _ in range(commits):
        store.commit(Batch(rows=[row(f"{store.head} " + "~" * size)]))


def use_up(disk: Path) -> Path:
    """Fill a disk to the last page."""
    balloon = disk / "balloon"
    with balloon.open("ab", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)) == 4096:
            pass
    return balloon


def whole(store: Store) -> list[dict[str, Any]]:
    with closing(store.reader()) as reader:
        assert "verified" in list(reader.verify())[-1]
        return [json.loads(body) for _, body, _ in reader.rows(0, 1_000_000)]


class Core:
    """What a Committing needs of an agent; `notes` is what came onto the queue."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self.notes: list[Note] = []
        self.renewed = 0
        self.committing = Committing(store, self._step, self.notes.append, self._renew, clock)

    def said(self, kind: str) -> list[dict[str, Any]]:
        return [dict(note.fields) for note in self.notes if note.kind == kind]

    def _step(self, note: Note) -> Batch:
        return Batch(rows=[{"at": 1, "up": 1, "boot": "b", "kind": note.kind, **note.fields}])

    def _renew(self) -> None:
        self.renewed += 1


def test_a_disk_that_others_fill_is_said_and_delivered_rows_make_room(mount: Mount) -> None:
    disk = mount("size=24m")
    store = Store(disk / "data", "T1")
    assert store.warning == ""
    fill(store, 400)
    store.settle(store.epoch, store.head)
    balloon = use_up(disk)
    for _ in range(2000):
        fill(store, 1)
        store.settle(store.epoch, store.head)
    assert "is full" in store.warning
    with closing(store.reader()) as reader:
        assert reader.anchor > 1000, "four MB of rows went through a store of less than one"
    rows = whole(store)
    assert rows[-1]["seq"] == store.head == 2400
    balloon.unlink()
    store.flush()
    assert store.warning == ""
    assert (disk / "data/reserve").stat().st_blocks * 512 >= 2 * MIB, "there is a reserve again"
    store.close()


def test_what_nobody_has_is_not_dropped_for_a_disk_that_people_can_mend(mount: Mount) -> None:
    disk = mount("size=24m")
    store = Store(disk / "data", "T1")
    fill(store, 100)
    balloon = use_up(disk)
    before = store.head
    with pytest.raises(StoreFull, match="make room"):
        fill(store, 5000)
    assert store.head - before > 100, "the reserve takes the last rows"
    assert store.acked == 0
    last = store.head
    balloon.unlink()
    fill(store, 1)
    assert [row["seq"] for row in whole(store)] == list(range(1, last + 2))
    store.close()


def test_a_nearly_full_disk_is_said_before(mount: Mount) -> None:
    disk = mount("size=24m")
    store = Store(disk / "data", "T1")
    (disk / "other").write_bytes(bytes(24 * MIB - LOW))
    core = Core(store)
    core.committing.flush()
    core.committing.flush()
    assert "nearly full" in core.committing.trouble
    (disk / "other").unlink()
    core.committing.flush()
    assert core.committing.trouble == ""
    assert [facts["event"] for facts in core.said("disk")] == [
        f"the disk of {disk}/data is nearly full: make room",
        "there is room again",
    ]
    store.close()


def test_what_cannot_be_stored_waits_is_told_and_comes_in_order(mount: Mount) -> None:
    disk = mount("size=24m")
    store = Store(disk / "data", "T1")
    core = Core(store)
    balloon = use_up(disk)
    with pytest.raises(StoreFull):
        fill(store, 5000)
    last = store.head
    fault = Fault("d", "p", "f", "bad", 5)
    for number in range(50):
        point = StoredPoint("d", "p", number, True, number)
        assert not core.committing.take(Batch(rows=[row(f"{number}" + "~" * 5000)], points=[point], raised=[fault]))
    with closing(store.reader()) as reader:
        assert reader.points("d") == [point], "the present is told"
        assert reader.faults() == [fault]
        assert reader.head()[0] == last, "and no row that is not stored"
    assert "nothing can be stored" in core.committing.trouble
    core.committing.take(Batch(cleared=[fault]))
    assert store.reader().faults() == []
    core.committing.dropped += 7
    balloon.unlink()
    assert core.committing.take(Batch(), now=True)
    assert core.committing.trouble == ""
    assert [row["text"].rstrip("~") for row in whole(store)[last:]] == [str(number) for number in range(50)]
    with closing(store.reader()) as reader:
        assert reader.points("d") == [point]
        assert reader.faults() == []
    (said,) = (facts for facts in core.said("disk") if facts["event"] == "stored again")
    assert (said["dropped"], "there is no room" in said["why"]) == (7, True)
    store.close()


def test_memory_is_bounded_and_what_is_not_taken_up_is_counted(tmp_path: Path) -> None:
    store = Store(tmp_path / "data", "T1")
    core = Core(store)
    (tmp_path / "data").rename(tmp_path / "away")
    (tmp_path / "data").write_text("no folder")
    core.committing.take(Batch(rows=[row("x")] * (MANY - 1)))
    assert not core.committing.is_full
    core.committing.take(Batch(rows=[row("x")]))
    assert core.committing.is_full
    (tmp_path / "data").unlink()
    (tmp_path / "away").rename(tmp_path / "data")
    assert core.committing.take(Batch(), now=True)
    assert store.head == MANY
    store.close()
    service = Service(begin(Site(tmp_path, devices=UPS, fleet=FLEET).configure(UPS)))
    for number in range(MANY + 5):
        service._put(Heard("ups1", (Reading("mains", "ok", float(number)),)))
    assert service._queue.qsize() == MANY
    assert service._committing.dropped == 5


def test_without_inodes_a_damaged_store_waits_and_is_named_once(mount: Mount) -> None:
    disk = mount("size=24m,nr_inodes=64")
    store = Store(disk / "data", "T1")
    core = Core(store)
    store.commit(Batch(rows=[row("a ceremony", "ceremony"), row("more")]))
    old = f"{store.epoch}/{store.head}"
    names = []
    with suppress(OSError):
        for number in range(100):
            (disk / f"{number}").touch()
            names.append(disk / f"{number}")
    store.doubt(StoreCorrupt("a reader met damage"))
    assert not core.committing.take(Batch(rows=[row("after")]))
    assert not core.committing.take(Batch(), now=True)
    for name in names:
        name.unlink()
    assert core.committing.take(Batch(), now=True)
    rows = whole(store)
    assert [row["kind"] for row in rows] == ["store", "change"]
    assert (rows[0]["previous"], rows[0]["carried"]) == (old, "1 rows of ceremonies were carried over")
    assert core.renewed == 1
    assert len([p for p in (disk / "data").glob("*.aside-*") if not p.name.endswith(("-wal", "-shm"))]) == 1
    store.close()


def test_a_file_system_that_turns_read_only_is_survived_and_gone_on_with(tmp_path: Path) -> None:
    """As ext4 does after an error (errors=remount-ro). Its files cannot be written any more, whoever has them open;
    somebody repairs it, and mounts it again."""
    if os.geteuid():
        pytest.skip("needs root: only root may mount a file system")
    image, place = tmp_path / "image", tmp_path / "disk"
    image.write_bytes(b"")
    os.truncate(image, 24 * MIB)
    place.mkdir()
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    mounting: list[str | Path] = ["mount", "-o", "loop,errors=remount-ro", image, place]
    subprocess.run(mounting, check=True)
    store = Store(place / "data", "T1")
    try:
        core = Core(store)
        assert core.committing.take(Batch(rows=[row("before")]))
        device = next(
            line.split()[0] for line in Path("/proc/mounts").read_text().splitlines() if str(place) in line
        )
        Path("/sys/fs/ext4", Path(device).name, "trigger_fs_error").write_text("1")
        for number in range(3):
            assert not core.committing.take(Batch(rows=[row(f"while {number}")]), now=True)
        assert "nothing can be stored" in core.committing.trouble
        subprocess.run(["umount", "-l", place], check=True)
        assert core.committing.take(Batch(rows=[row("without a disk")]), now=True), "below where it was mounted"
        subprocess.run(["e2fsck", "-fy", image], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        subprocess.run(mounting, check=True)
        assert core.committing.take(Batch(rows=[row("after")]), now=True)
        assert [row["text"] for row in whole(store)] == [
            *("before", "while 0", "while 1", "while 2", "without a disk", "after")
        ]
    finally:
        with suppress(StoreError, sqlite3.Error):
            store.close()
        subprocess.run(["umount", "-l", place], check=False)


@pytest.mark.parametrize("what", ["folder", "file", "read", "exchanged", "copied back"])
def test_a_store_that_is_deleted_or_exchanged_under_the_agent_is_written_again(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "data"
    store = Store(folder, "T1")
    core = Core(store)
    core.committing.take(Batch(rows=[row("a"), row("b", "ceremony")]))
    if what == "exchanged":
        with closing(sqlite3.connect(store.path)) as db, closing(sqlite3.connect(tmp_path / "copy")) as copy:
            db.backup(copy)
    core.committing.take(Batch(rows=[row("c")]))
    epoch, opened = store.epoch, store.opened
    reader = store.reader() if what in ("folder", "read") else None  # others read while it happens
    if what == "folder":
        shutil.rmtree(folder)
    elif what == "copied back":
        folder.rename(tmp_path / "away")
        shutil.copytree(tmp_path / "away", folder)
    else:
        store.path.unlink()
    if what == "exchanged":
        (tmp_path / "copy").rename(store.path)
    assert core.committing.take(Batch(rows=[row("d")]))
    assert [row["text"] for row in whole(store)] == ["a", "b", "c", "d"]
    if reader:
        assert [seq for seq, _, _ in reader.rows(0, 10)] == [1, 2, 3], "who read the old file is not harmed"
        reader.close()
    fill(store, 2)
    # What a power cut would find, while the file is open: also the log has its name.
    shutil.copytree(folder, tmp_path / "found")
    found = Store(tmp_path / "found", "T1")
    assert (found.found, found.head) == ("good", 6)
    found.close()
    with pytest.raises(StoreError, match="another agent"):
        Store(folder, "T1")
    assert len(list(folder.glob("*.aside-*"))) == (what == "exchanged")
    assert (store.epoch, store.opened) == (epoch, opened + 1), "the same chain; readers are to open it again"
    assert [facts["event"] for facts in core.said("disk")] == ["stored again"]
    store.close()
    again = Store(folder, "T1")
    assert (again.found, again.head, len(again.reader().kept())) == ("good", 6, 1)
    again.close()


def test_a_commit_that_failed_and_is_there_after_all_does_not_come_twice(tmp_path: Path) -> None:
    """What a failed sync may leave in the log is found when the file is opened again."""
    store = Store(tmp_path / "data", "T1")
    core = Core(store)
    core.committing.take(Batch(rows=[row("a")]))
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("CREATE TRIGGER no BEFORE INSERT ON ledger BEGIN SELECT RAISE(FAIL, 'no'); END")
        assert not core.committing.take(Batch(rows=[row("b"), row("c")]))
        other.execute("DROP TRIGGER no")
        other.executemany(
            "INSERT INTO ledger VALUES (?, ?, ?)",
            [entry[:3] for entry in chained([row("b"), row("c")], store.head, store.head_hash)],
        )
    assert core.committing.take(Batch(rows=[row("d")]), now=True)
    assert [row["text"] for row in whole(store)] == ["a", "b", "c", "d"]
    store.close()


@pytest.mark.parametrize("how", ["the ledger", "everything"])
def test_rows_of_ceremonies_are_carried_over_from_a_damaged_store(tmp_path: Path, how: str) -> None:
    store = Store(tmp_path, "T1")
    first = [row(f"step {number}", "ceremony") for number in range(5)]
    store.commit(Batch(rows=first))
    fill(store, 200)
    with closing(store.reader()) as reader:
        place = reader.kept_place(reader.kept()[4])
    store.close()
    with closing(sqlite3.connect(store.path)) as db:
        roots = {name: page for name, page in db.execute("SELECT name, rootpage FROM sqlite_master")}
    with store.path.open("r+b") as file:
        for name in ("ledger",) if how == "the ledger" else ("ledger", "kept"):
            file.seek((roots[name] - 1) * PAGE)
            file.write(os.urandom(PAGE))
    again = Store(tmp_path, "T1")
    assert "set aside" in again.found
    with closing(again.reader()) as reader:
        kept = reader.kept()
        if how == "the ledger":
            assert again.carried.startswith("5 rows of ceremonies were carried over, 5 of them unchecked")
            assert [row["text"] for row in kept] == [f"step {number}" for number in range(5)]
            assert reader.kept_place(kept[4]) == place, "a receipt tells of the chain in which it happened"
        else:
            assert "may be lost" in again.carried
            assert kept == []
    again.commit(Batch(rows=[row("step 5", "ceremony")]))
    again.set_aside("damaged again")
    again.commit(Batch(rows=[row("step 6", "ceremony")]))
    steps = [5, 6] if how == "everything" else range(7)
    assert [row["text"] for row in again.reader().kept()] == [f"step {number}" for number in steps]
    again.close()


def test_rows_of_another_terminal_are_not_carried_over(tmp_path: Path) -> None:
    store = Store(tmp_path, "T1")
    store.commit(Batch(rows=[row("a step", "ceremony")]))
    store.close()
    other = Store(tmp_path, "T2")
    assert (other.carried, other.reader().kept()) == ("", [])
    other.close()


def test_what_is_set_aside_is_bounded(tmp_path: Path) -> None:
    store = Store(tmp_path, "T1")
    names = []
    for number in range(5):
        fill(store, 2)
        store.set_aside(f"damaged {number}")
        names.append(store.found.rpartition(" ")[2])
    there = [name for name in names if (tmp_path / name).exists()]
    assert there == names[2:]
    assert sum("aside-1-" in path.name for path in tmp_path.iterdir()) == 0, "with all that belongs to it"
    store.close()
    small = Store(tmp_path, "T1", cap=4 * MIB)
    for _ in range(3):
        fill(small, 400)
        small.set_aside("damaged")
    asides = [path for path in tmp_path.iterdir() if "aside" in path.name]
    assert any(path.stat().st_size for path in asides)
    older = [path for path in asides if small.found.rpartition(" ")[2] not in path.name]
    assert sum(path.stat().st_size for path in older) <= MIB, "a quarter of the cap, beside the last"
    small.close()


def test_a_store_of_another_user_is_one_sentence(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("needs root: only root may become another user")
    folder = tmp_path / "data"
    Store(folder, "T1").close()
    child = os.fork()
    if not child:
        os.setuid(65534)
        try:
            Store(folder, "T1")
        except StoreError as error:
            os._exit(0 if "user" in str(error) or "owner" in str(error) else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.peer("mosquitto")
def test_the_centre_hears_of_a_full_disk_and_the_agent_recovers_by_itself(tmp_path: Path, mount: Mount) -> None:
    disk = mount("size=24m", "data")
    with site(tmp_path, devices=UPS, fleet=FLEET) as terminal:
        terminal.start_all()
        wait("the UPS", lambda: terminal.published("ups1", "mains") == "ok")
        balloon = use_up(disk)
        wait("the warning", lambda: "full" in terminal.ask(do="devices")["trouble"], 40.0)
        wait("the row", lambda: terminal.rows("disk"))
        wait("the centre", lambda: "full" in terminal.account.troubles.get("ATM-0001", ""))
        terminal.act(device="ups1", set={"mains": "lost"})
        wait("the state", lambda: terminal.published("ups1", "mains") == "lost")
        assert terminal.alive("agent")
        balloon.unlink()
        wait("the end of it", lambda: terminal.rows("disk", event="there is room again"))
        wait("the centre", lambda: terminal.account.troubles["ATM-0001"] == "")
        (disk / "store.db").unlink()
        terminal.act(device="ups1", set={"mains": "ok"})
        wait("a row of the store as written again", lambda: terminal.rows("change", point="mains", value="ok"))
        wait("all rows", terminal.delivered)
        assert terminal.account.mistakes == []
        assert len({epoch for _, epoch, _ in terminal.account.rows}) == 1


def test_what_is_ahead_is_gone_once_it_is_stored(tmp_path: Path) -> None:
    store = Store(tmp_path, "T1")
    point = StoredPoint("d", "p", 1, True, 1)
    store.hold(Batch(points=[point]), Batch(points=[point]))
    assert store.reader().points() == [point]
    assert Reader(store.path).points() == []
    store.commit(Batch(points=[StoredPoint("d", "p", 2, True, 2)]))
    assert [p.value for p in store.reader().points()] == [2]
    store.close()
