"""Pushes on disk: whatever happens in between, the last good configuration or the new one is in force, never none.

The power cuts are those of tests/powercut: each sync of a run is cut, and what was not synced may be lost.
"""

import json
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import StoreError
from agent.pushing.probation import TRANSITIONS
from agent.pushing.remembered import COMMANDS, DECISIONS, Command, Commands, Decision, Decisions
from agent.pushing.shelf import BEFORE, EVIDENCE, IN_FORCE, REJECTED, STAGED, STEP, Recovered, Shelf, Step
from tests.powercut.lives import digest, envelope
from tests.powercut.runs import FAST, Recorder

DAY = 24 * 3600 * 1000
LIFE = {
    "idle": [],
    "staged": ["staged"],
    "applying": ["staged", "applying"],
    "probation": ["staged", "applying", "probation"],
    "rolling_back": ["staged", "applying", "probation", "rolling_back"],
}
"""How a push gets to each step at which the power may go."""
STEPS = sorted(LIFE)


def ours(text: bytes) -> bool:
    """Whether an envelope is as it was pushed; stands for its signatures, which cover every byte of it."""
    return any(text == envelope(version).text for version in range(1, 30))


def opened(folder: Path) -> tuple[Shelf, Recovered]:
    shelf = Shelf(folder)
    return shelf, shelf.recover(ours)


def stage(shelf: Shelf, version: int) -> None:
    shelf.stage(envelope(version).text, version, digest(version))


def push(shelf: Shelf, version: int, to: str = "") -> None:
    """A push that gets as far as a step; or, without one, is committed."""
    stage(shelf, version)
    for word in LIFE[to or "probation"][1:]:
        shelf.step(word)
    if not to:
        shelf.commit()


def counts(shelf: Shelf) -> int:
    found = shelf.in_force()
    return found.version if found else 0


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    """A place in memory: each push syncs a dozen times, and a disk takes its time for that."""
    with tempfile.TemporaryDirectory(dir=FAST) as place:
        yield Path(place)


@pytest.fixture
def folder(memory: Path) -> Path:
    """Version 2 is in force, 1 was before it, 3 was rolled back; all of it is told."""
    folder = Path(tempfile.mkdtemp(dir=memory)) / "data" / "pushes"
    shelf, _ = opened(folder)
    push(shelf, 1)
    push(shelf, 2)
    push(shelf, 3, "probation")
    shelf.reject("silent", "ups1 did not answer")
    shelf.told()
    return folder


def test_without_any_push_the_local_file_counts(tmp_path: Path) -> None:
    shelf, found = opened(tmp_path / "pushes")
    assert (found.in_force, found.troubles, found.unended, found.last.told) == (None, (), (), True)
    assert (shelf.before(), shelf.memory.newest, shelf.memory.trust()) == (None, 0, None)
    assert shelf.memory.frozen(0) is None


def test_a_committed_push_counts_and_the_one_before_stands_behind_it(folder: Path) -> None:
    shelf, found = opened(folder)
    assert found.in_force
    assert (found.in_force.envelope, found.in_force.digest) == (envelope(2).text, digest(2))
    assert found.in_force == shelf.in_force()
    assert (behind := shelf.before())
    assert behind.version == 1
    assert (folder / IN_FORCE).read_bytes() == envelope(2).text, "as it came"
    assert not found.troubles
    assert shelf.memory.newest == 3, "a version that was tried is not tried again"


def test_an_outcome_is_news_until_it_was_told_also_for_a_later_start(folder: Path) -> None:
    shelf, _ = opened(folder)
    push(shelf, 4)
    for _ in range(2):
        shelf, found = opened(folder)
        assert (found.last.outcome, found.last.version, found.last.told) == ("committed", 4, False)
    shelf.told()
    assert opened(folder)[1].last.told


@pytest.mark.parametrize("after", [False, True])
def test_a_push_that_somebody_took_away_while_it_was_tried_is_written_again(folder: Path, after: bool) -> None:
    shelf, _ = opened(folder)
    push(shelf, 4, "probation")
    take = shelf._take

    def decided(step: Step) -> None:
        take(step)
        (folder / STAGED).unlink(missing_ok=True)

    if after:
        shelf._take = decided  # type: ignore[method-assign]
    else:
        (folder / STAGED).unlink()
        shelf._finish = lambda: None  # type: ignore[method-assign]  # the power goes right after it is decided
    shelf.commit()
    shelf, found = opened(folder)
    assert (counts(shelf), found.last.outcome, found.troubles) == (4, "committed", ())
    assert (behind := shelf.before())
    assert behind.version == 2


@pytest.mark.parametrize("word", STEPS)
def test_a_start_in_any_step_before_the_decision_goes_with_the_last_good_one(folder: Path, word: str) -> None:
    shelf, _ = opened(folder)
    if word != "idle":
        push(shelf, 4, word)
    shelf, found = opened(folder)
    assert counts(shelf) == 2
    assert not (folder / STAGED).exists()
    outcomes = {"idle": ("rolled_back", "silent", True), "staged": ("dropped", "interrupted", False)}
    expected = outcomes.get(word, ("rolled_back", "interrupted", False))
    assert (found.last.outcome, found.last.reason, found.last.told) == expected
    known = shelf.memory.known(digest(4))
    is_final = word not in ("idle", "staged")
    assert (known is not None) == is_final, "what changed nothing may come again; what crashed us may not"
    assert ((folder / REJECTED / f"4-{digest(4)[:12]}.json").exists()) == is_final
    push(shelf, 5)
    assert counts(opened(folder)[0]) == 5


def test_why_a_push_was_being_rolled_back_is_told_after_a_start(folder: Path) -> None:
    shelf, _ = opened(folder)
    push(shelf, 4, "probation")
    shelf.step("rolling_back", detail="ups1 did not answer")
    assert opened(folder)[1].last.detail == "ups1 did not answer"


def test_the_one_that_is_taken_back_gives_way_to_the_one_before_and_then_to_the_local_file(folder: Path) -> None:
    shelf, _ = opened(folder)
    shelf.recall("local", "a technician took it back")
    assert counts(shelf) == counts(opened(folder)[0]) == 1
    assert (known := shelf.memory.known(digest(2)))
    assert (known.outcome, known.reason) == ("rolled_back", "local")
    assert (folder / REJECTED / f"2-{digest(2)[:12]}.json").read_bytes() == envelope(2).text
    shelf.recall("local")
    assert counts(shelf) == counts(opened(folder)[0]) == 0
    with pytest.raises(ValueError, match="nothing that was pushed"):
        shelf.recall("local")


@pytest.mark.parametrize("word", STEPS)
def test_a_step_out_of_turn_is_refused_and_changes_nothing(folder: Path, word: str) -> None:
    shelf, _ = opened(folder)
    if word != "idle":
        push(shelf, 4, word)
    before = {path.name: path.read_bytes() for path in folder.glob("*.json")}
    calls: dict[str, Callable[[], None]] = {
        "staged": lambda: stage(shelf, 5),
        "applying": lambda: shelf.step("applying"),
        "probation": lambda: shelf.step("probation"),
        "committing": shelf.commit,
    }
    for to, call in calls.items():
        if to not in TRANSITIONS[word]:
            with pytest.raises(ValueError, match=r"cannot be|by itself"):
                call()
    assert {path.name: path.read_bytes() for path in folder.glob("*.json")} == before


def test_the_newest_five_rejected_ones_are_kept_and_the_last_in_any_case(folder: Path) -> None:
    shelf, _ = opened(folder)
    for version in range(4, 12):
        push(shelf, version, "probation")
        shelf.reject("silent")
    shelf.recall("local")
    found = sorted(int(path.name.partition("-")[0]) for path in (folder / REJECTED).iterdir())
    assert found == [2, 8, 9, 10, 11]
    assert len(found) == EVIDENCE


# What is damaged


def cut_off(data: bytes) -> bytes:
    return data[: len(data) // 2]


def emptied(data: bytes) -> bytes:
    return b""


def zeroed(data: bytes) -> bytes:
    return bytes(len(data))


def one_digit(data: bytes) -> bytes:
    """Still JSON, with another number or digest in it."""
    at = next(at for at, byte in enumerate(data) if chr(byte) in "0123456789" and at > 90)
    return data[:at] + (b"1" if data[at : at + 1] != b"1" else b"2") + data[at + 1 :]


def deep(data: bytes) -> bytes:
    return b"[" * 100_000


def large(data: bytes) -> bytes:
    return data + b" " * (2 << 20)


DAMAGES = [cut_off, emptied, zeroed, one_digit, deep, large]
Damage = Callable[[bytes], bytes]


def damage(path: Path, how: Damage) -> None:
    path.write_bytes(how(path.read_bytes()))


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_one_in_force_gives_way_to_the_one_before_and_is_kept(folder: Path, how: Damage) -> None:
    damage(folder / IN_FORCE, how)
    wrong = (folder / IN_FORCE).read_bytes()
    shelf, found = opened(folder)
    assert counts(shelf) == 1
    assert IN_FORCE in found.troubles[0]
    assert (folder / f"{IN_FORCE}.damaged").read_bytes() == wrong
    assert (found.last.outcome, found.last.reason, found.last.version) == ("rolled_back", "damaged", 2)
    assert "version 1 counts" in found.last.detail
    shelf, found = opened(folder)
    assert (counts(shelf), found.troubles) == (1, ())


def test_what_was_lost_is_named_also_when_something_else_was_decided_since(folder: Path) -> None:
    shelf, _ = opened(folder)
    shelf.memory.remember("a rotation of the signers", 0, "committed")
    damage(folder / IN_FORCE, zeroed)
    _, found = opened(folder)
    assert (found.last.version, found.last.digest) == (2, digest(2))


def test_when_both_are_damaged_the_local_file_counts(folder: Path) -> None:
    damage(folder / IN_FORCE, cut_off)
    damage(folder / BEFORE, zeroed)
    shelf, found = opened(folder)
    assert counts(shelf) == 0
    assert [name for name in (IN_FORCE, BEFORE) if any(name in trouble for trouble in found.troubles)]
    assert len(found.troubles) == 2
    assert "the local file counts" in found.last.detail
    push(shelf, 4)
    assert counts(opened(folder)[0]) == 4


def test_a_damaged_one_before_is_told_and_changes_nothing(folder: Path) -> None:
    damage(folder / BEFORE, cut_off)
    shelf, found = opened(folder)
    assert (counts(shelf), shelf.before()) == (2, None)
    assert BEFORE in found.troubles[0]


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("word", STEPS)
def test_a_damaged_step_rolls_back_what_was_tried(folder: Path, word: str, how: Damage) -> None:
    shelf, _ = opened(folder)
    if word != "idle":
        push(shelf, 4, word)
    damage(folder / STEP, how)
    shelf, found = opened(folder)
    assert counts(shelf) == 2
    assert STEP in found.troubles[0]
    assert (folder / f"{STEP}.damaged").exists()
    if word != "idle":
        assert (found.last.outcome, found.last.version) == ("rolled_back", 4)
    assert opened(folder)[1].troubles == ()


def test_a_damaged_push_that_was_decided_leaves_the_last_good_one(folder: Path) -> None:
    """The power went right after the decision, and the envelope is not what it was."""
    shelf, _ = opened(folder)
    push(shelf, 4, "probation")
    decided = shelf.last.decided("committing", "committed")
    shelf._take(decided)
    for is_moved in (False, True):
        copy = folder.with_name(f"copy{is_moved}")
        shutil.copytree(folder, copy)
        damage(copy / STAGED, cut_off)
        if is_moved:
            (copy / IN_FORCE).replace(copy / BEFORE)
        shelf, found = opened(copy)
        assert counts(shelf) == 2
        assert (found.last.outcome, found.last.reason) == ("rolled_back", "damaged")


def test_a_damaged_one_that_cannot_be_put_aside_does_not_take_the_place_of_the_one_before(folder: Path) -> None:
    shelf, _ = opened(folder)
    push(shelf, 4, "probation")
    shelf._take(shelf.last.decided("committing", "committed"))
    damage(folder / IN_FORCE, cut_off)
    (folder / f"{IN_FORCE}.damaged").mkdir()
    for _ in range(2):
        shelf, _ = opened(folder)
        assert counts(shelf) == 4
        assert (behind := shelf.before())
        assert behind.version == 1


@pytest.mark.parametrize("how", [*DAMAGES, None])
def test_damaged_knowledge_is_built_again_from_the_envelopes(folder: Path, how: Damage | None) -> None:
    if how:
        damage(folder / "known.json", how)
    else:
        (folder / "known.json").unlink()
    for _ in range(2):
        shelf, found = opened(folder)
        assert shelf.memory.newest == 3
        decided = {version: shelf.memory.known(digest(version)) for version in (1, 2, 3)}
        outcomes = {version: one.outcome for version, one in decided.items() if one}
        assert outcomes == {1: "committed", 2: "committed", 3: "rolled_back"}
        damage_told = any("known.json" in trouble for trouble in found.troubles)
        assert damage_told == (how is not None)
        if how:
            break


@pytest.mark.parametrize("how", DAMAGES)
def test_damaged_commands_let_nothing_run_that_may_have_run(folder: Path, how: Damage) -> None:
    shelf, _ = opened(folder)
    assert shelf.memory.begun("c1", 10, 10 * DAY, 20)
    written = 1_800_000_000
    damage(folder / "commands.json", how)
    for path in folder.iterdir():
        os.utime(path, (written, written))
    for start in range(2):
        shelf, found = opened(folder)
        assert len(found.troubles) == 1 - start, "what is taken in its place stays as it is"
        assert not shelf.memory.begun("c1", 10, 10 * DAY, 20), "it has run"
        assert not shelf.memory.begun("c2", written * 1000, written * 1000 + DAY, 20), "it may have run"
        assert shelf.memory.command("c2") is None
    assert shelf.memory.begun("c3", written * 1000 + DAY, written * 1000 + 2 * DAY, 20), "it was signed later"


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_freeze_holds_as_long_as_any_may(folder: Path, how: Damage) -> None:
    shelf, _ = opened(folder)
    shelf.memory.freeze(1_800_000_000_000 + DAY, "li")
    damage(folder / "freeze.json", how)
    for path in folder.iterdir():
        os.utime(path, (1_800_000_000, 1_800_000_000))
    shelf, _ = opened(folder)
    assert shelf.memory.frozen(1_800_000_000_000 + 7 * DAY - 1)
    assert not shelf.memory.frozen(1_800_000_000_000 + 7 * DAY)
    assert counts(shelf) == 2
    shelf.memory.thaw()
    assert not opened(folder)[0].memory.frozen(1_800_000_000_000)


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", ["trust.json", "trust.copy.json"])
def test_a_damaged_chain_of_trust_is_read_from_its_copy(folder: Path, name: str, how: Damage) -> None:
    shelf, _ = opened(folder)
    chain = '{"chain": ["an envelope", "another one, 0123456789"]}' * 3
    shelf.memory.keep_trust(chain)
    damage(folder / name, how)
    shelf = Shelf(folder)
    assert shelf.memory.trust() == chain, "also before recover, which needs it"
    assert any(name in trouble for trouble in shelf.recover(ours).troubles)
    assert opened(folder)[1].troubles == (), "the copy was mended"


def test_without_its_copy_a_damaged_chain_of_trust_refuses_until_a_person_has_seen_to_it(folder: Path) -> None:
    shelf, _ = opened(folder)
    shelf.memory.keep_trust("a chain that revokes a key")
    for name in ("trust.json", "trust.copy.json"):
        damage(folder / name, cut_off)
    for _ in range(2):
        shelf, _ = opened(folder)
        assert counts(shelf) == 2
        with pytest.raises(StoreError, match="no revoked key"):
            shelf.memory.trust()
    for name in ("trust.json", "trust.copy.json"):
        (folder / name).unlink()
    assert shelf.memory.trust() is None


@pytest.mark.parametrize("name", [IN_FORCE, STEP, "known.json", "commands.json", "freeze.json", "trust.json"])
def test_a_folder_in_place_of_a_file_stops_nobody(folder: Path, name: str) -> None:
    (folder / name).unlink(missing_ok=True)
    (folder / name).mkdir()
    shelf, found = opened(folder)
    assert counts(shelf) == (1 if name == IN_FORCE else 2)
    assert any(name in trouble for trouble in found.troubles)


# What is not forgotten


def test_refusals_do_not_push_out_what_was_in_use_and_are_bounded() -> None:
    decisions = Decisions().joined(Decision("d7", 7, "committed")).joined(Decision("d8", 8, "rolled_back"))
    for number in range(3 * DECISIONS):
        decisions = decisions.joined(Decision(f"refused{number}", 99, "refused", "wrong_target"))
    assert len(decisions.all) == DECISIONS
    assert decisions.find("d7")
    assert decisions.find(f"refused{3 * DECISIONS - 1}")
    assert decisions.newest == 8, "a version that was refused is not the newest one here"
    for number in range(DECISIONS):
        decisions = decisions.joined(Decision(f"c{number}", 100 + number, "committed"))
    assert (len(decisions.all), decisions.newest) == (DECISIONS, 99 + DECISIONS)


def test_a_command_runs_once_also_after_a_start_and_its_end_is_known(folder: Path) -> None:
    shelf, _ = opened(folder)
    assert shelf.memory.begun("c1", 0 + 1, 5000, 100)
    assert not shelf.memory.begun("c1", 1, 5000, 100)
    shelf, found = opened(folder)
    assert [one.id for one in found.unended] == ["c1"]
    assert not shelf.memory.begun("c1", 1, 5000, 100)
    shelf.memory.ended("c1", "done", "all is well", 7)
    shelf, found = opened(folder)
    assert not found.unended
    assert shelf.memory.command("c1") == Command("c1", 5000, "done", "all is well", 7, at=100)


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.integers(0, 50 * DAY)),
        max_size=40,
    )
)
def test_no_command_runs_twice_however_the_clock_is_set(told: list[tuple[str, int]]) -> None:
    commands, ran = Commands(), []
    for id, wall in told:
        new = commands.begun(Command(id, (ord(id) - 96) * 7 * DAY), 1, wall)
        if new:
            ran.append(id)
            commands = Commands.read(json.loads(json.dumps(new.ended(id, "done", "", 1).content())))
    assert len(ran) == len(set(ran))


def test_what_has_expired_is_pruned_and_new_commands_run() -> None:
    commands = Commands()
    for number in range(5 * COMMANDS):
        new = commands.begun(Command(f"c{number}", number + 10), number + 1, number)
        assert new, "a command with a later end than all before it always runs"
        commands = new.ended(f"c{number}", "done", "", 0)
    assert len(commands.all) < 20
    for number in range(2 * COMMANDS):
        new = commands.begun(Command(f"k{number}", DAY + number), 1, 6 * COMMANDS)
        assert new
        commands = new
    assert len(commands.all) == COMMANDS, "bounded, also when nothing expires"
    assert commands.begun(Command("k0", DAY), 1, 6 * COMMANDS) is None


def test_a_freeze_ends_by_its_time_or_by_hand_and_outlives_a_start(folder: Path) -> None:
    shelf, _ = opened(folder)
    shelf.memory.freeze(5000, "li")
    shelf, _ = opened(folder)
    assert (frozen := shelf.memory.frozen(4999))
    assert frozen.by == "li"
    assert shelf.memory.frozen(5000) is None
    shelf.memory.thaw()
    assert not opened(folder)[0].memory.frozen(0)


# The disk


@pytest.fixture(scope="module")
def recorder() -> Iterator[Recorder]:
    with tempfile.TemporaryDirectory(dir=FAST) as place:
        yield Recorder(Path(place))


@pytest.mark.peer("gcc", "libc6-dev")
def test_a_power_cut_at_any_sync_leaves_a_decided_state(recorder: Recorder) -> None:
    run = recorder.run("pushing")
    assert run.syncs > 100
    verdict = run.judged(random.Random(7), 1)
    assert verdict.wrong == []
    assert verdict.count > 250
    deaf = run.images(random.Random(7), 0, deaf=("till/data/pushes",))
    assert any(run.judge(image) for image in deaf), "the control: each sync of the folder is needed"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid():
        pytest.skip("needs root: only root may mount a file system")
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def fill(disk: Path, leave: int = 0) -> Path:
    """Use up a disk, but for some pages."""
    balloon = disk / "balloon"
    with balloon.open("ab", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)) == 4096:
            pass
    os.truncate(balloon, max(0, balloon.stat().st_size - leave * 4096))
    return balloon


def alone(disk: Path) -> Path:
    """The pushes on a disk of their own, with version 2 in force."""
    folder = disk / "pushes"
    shelf, _ = opened(folder)
    push(shelf, 1)
    push(shelf, 2)
    shelf.told()
    return folder


@pytest.mark.parametrize("leave", range(6))
def test_a_full_disk_never_leaves_a_push_half_applied(disk: Path, leave: int) -> None:
    folder = alone(disk)
    shelf, _ = opened(folder)
    balloon = fill(disk, leave)
    is_committed, why = False, ""
    try:
        stage(shelf, 4)
        shelf.step("applying")
        fill(disk)
        shelf.step("probation")
        shelf.commit()
        is_committed = True
    except StoreError as error:
        why = str(error)
        if shelf.last.word == "staged":
            with suppress(StoreError):
                shelf.drop()
        elif shelf.last.word != "idle":
            with suppress(StoreError):
                shelf.reject("unwritten", str(error))
    assert is_committed or "make room" in why
    assert not (folder / STAGED).exists() or shelf.last.word != "idle", "nothing lies about on a full disk"
    assert counts(shelf) == (4 if is_committed else 2)
    again, _ = opened(folder)
    assert counts(again) == counts(shelf), "a start on the full disk finds the same"
    balloon.unlink()
    assert counts(opened(folder)[0]) == counts(shelf)
    push(shelf, 5)
    assert counts(opened(folder)[0]) == 5


def test_what_is_decided_is_finished_later_when_the_disk_fills_right_then(disk: Path) -> None:
    folder = disk / "pushes"
    shelf, _ = opened(folder)
    push(shelf, 1)
    push(shelf, 4, "probation")
    take = shelf._take

    def take_and_fill(step: object) -> None:
        take(step)  # type: ignore[arg-type]
        fill(disk)

    shelf._take = take_and_fill  # type: ignore[method-assign]
    shelf.commit()
    assert counts(shelf) == 4
    shelf, found = opened(folder)
    assert (counts(shelf), found.last.outcome) == (4, "committed")
    assert found.troubles, "the disk is full, and that is said"
    (disk / "balloon").unlink()
    shelf, found = opened(folder)
    assert (counts(shelf), found.last.outcome, found.troubles) == (4, "committed", ())


def test_a_disk_that_may_only_be_read_refuses_a_push_and_rolls_one_back(disk: Path) -> None:
    folder = alone(disk)
    shelf, _ = opened(folder)
    push(shelf, 4, "probation")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(StoreError, match="see that"):
        shelf.commit()
    with pytest.raises(StoreError):
        shelf.step("rolling_back")
    with pytest.raises(StoreError):
        shelf.reject("unwritten")
    assert shelf.last.outcome == "rolled_back"
    with pytest.raises(StoreError):
        stage(shelf, 5)
    with pytest.raises(StoreError):
        shelf.memory.begun("c1", 1, 5000, 100)
    again, found = opened(folder)
    assert (counts(again), found.last.outcome, found.last.reason) == (2, "rolled_back", "interrupted")
    assert found.troubles
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    assert counts(opened(folder)[0]) == 2
    stage(shelf, 5)
    assert (known := shelf.memory.known(digest(4)))
    assert known.reason == "unwritten"
    assert shelf.memory.begun("c1", 1, 5000, 100), "what could not be written has not begun"
