"""Power cuts: what was accepted is there after each of them, whatever was lost of what was not synced.

How, and what this cannot show: tests/powercut/__init__.py. `kill -9` is tested elsewhere and is no power cut.
"""

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.powercut.cuts import fates_of
from tests.powercut.disk import ALL, NONE, ZEROS, Disk
from tests.powercut.recording import Op, Step
from tests.powercut.runs import FAST, Recorder, Run

pytestmark = pytest.mark.peer("gcc", "libc6-dev")
SEED = 6


@pytest.fixture(scope="module")
def recorder() -> Iterator[Recorder]:
    with tempfile.TemporaryDirectory(dir=FAST) as folder:
        yield Recorder(Path(folder))


@pytest.fixture(scope="module")
def found_damaged(recorder: Recorder) -> Run:
    return recorder.run("damaged", how="row")


def step(op: Op, fd: int = 3, offset: int = 0, path: str = "", other: str = "", data: bytes = b"") -> Step:
    return Step(op, fd, offset, 0, path, other, data)


def disk_of(*steps: Step) -> Disk:
    disk = Disk({"folder": None})
    for one in steps:
        disk.take(one)
    return disk


FOLDER = [step(Op.OPEN, 9, path="folder"), step(Op.SYNC, 9)]


def test_what_was_not_synced_may_be_lost_kept_or_torn() -> None:
    disk = disk_of(
        step(Op.OPEN, path="folder/a"),
        step(Op.WRITE, data=b"old" * 512),
        step(Op.SYNC),
        *FOLDER,
        step(Op.WRITE, offset=512, data=b"n" * 1536),
    )
    (write,) = disk.pending()
    chance = random.Random(SEED)
    old, new = (b"old" * 512).ljust(1536), b"n" * 1536
    assert disk.image({}, chance)["folder/a"] == disk.image({write: NONE}, chance)["folder/a"] == old
    assert disk.image({write: ALL}, chance)["folder/a"] == old[:512] + new
    assert disk.image({write: ZEROS}, chance)["folder/a"] == old + bytes(512)
    torn = disk.image({write: (512, frozenset({2}))}, chance)["folder/a"]
    assert torn == old[:1024] + b"n" * 512 + bytes(512)


def test_a_name_is_certain_only_once_its_folder_was_synced() -> None:
    made = [step(Op.OPEN, path="folder/a"), step(Op.WRITE, data=b"1"), step(Op.SYNC)]
    chance = random.Random(SEED)
    assert "folder/a" not in disk_of(*made).image({}, chance)
    assert disk_of(*made, *FOLDER).image({}, chance)["folder/a"] == b"1"
    moved = disk_of(*made, *FOLDER, step(Op.RENAME, path="folder/a", other="folder/b"))
    for fates, name in (({}, "folder/a"), (dict.fromkeys(moved.pending(), ALL), "folder/b")):
        assert moved.image(fates, chance) == {"folder": None, name: b"1"}
    assert {name for name, _ in fates_of(moved, chance, 0)} >= {"nothing pending is kept", "all is kept"}


def test_every_sync_of_a_run_is_cut_and_nothing_that_was_accepted_is_missing(recorder: Recorder) -> None:
    run = recorder.run("ledgering")
    assert run.syncs > 60, "thirty commits, checkpoints, and the first start"
    verdict = run.judged(random.Random(SEED), 1)
    assert verdict.wrong == []
    assert verdict.count > 300


@pytest.mark.parametrize("how", ["row", "running"])
def test_a_store_that_is_set_aside_is_whole_and_the_new_chain_names_it(recorder: Recorder, how: str) -> None:
    verdict = recorder.run("damaged", how=how).judged(random.Random(SEED), 2)
    assert verdict.wrong == []
    assert verdict.count > 150


def test_the_whole_agent_loses_nothing_and_its_new_chain_names_the_old_one_first(recorder: Recorder) -> None:
    verdict = recorder.run("serving").judged(random.Random(SEED), 1)
    assert verdict.wrong == []
    assert verdict.count > 100


def test_a_cut_after_a_cut_loses_nothing_either(recorder: Recorder) -> None:
    chance = random.Random(SEED)
    left = None
    for _ in range(3):
        run = recorder.run("ledgering", left, commits=5, pages=5)
        images = list(run.images(chance, 1))
        for image in chance.sample(images, 40):
            assert run.judge(image) == ""
        left = chance.choice(images[len(images) // 2 :])


@pytest.mark.parametrize("life", ["counting", "sealing"])
def test_accounts_and_secrets_are_those_of_before_or_of_after_a_change(recorder: Recorder, life: str) -> None:
    verdict = recorder.run(life, changes=2).judged(random.Random(SEED), 1)
    assert verdict.wrong == []
    assert verdict.count > 30


@pytest.mark.parametrize("synchronous", ["OFF", "NORMAL"])
def test_a_store_that_does_not_sync_each_commit_is_caught(recorder: Recorder, synchronous: str) -> None:
    """The control: the disk really loses what was not synced. A killed process, which loses nothing, shows none."""
    run = recorder.run("ledgering", commits=10, synchronous=synchronous)
    assert any("accepted: " in run.judge(image) for image in run.images(random.Random(SEED), 0))
    killed = [image for image in run.images(random.Random(SEED), 0) if image.name.endswith(": all is kept")]
    assert killed
    assert [run.judge(image) for image in killed] == [""] * len(killed)


@pytest.mark.parametrize("deaf", ["", "till", "till/data"])
def test_a_folder_that_is_not_synced_is_caught(found_damaged: Run, deaf: str) -> None:
    """The control: each sync of a folder, SQLite's or ours, is needed."""
    images = found_damaged.images(random.Random(SEED), 0, deaf=(deaf,))
    assert any(found_damaged.judge(image) for image in images)
