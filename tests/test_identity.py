"""The agent's own key: made once, the same ever after, and never made anew because the old one cannot be had."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.crypto.ed25519 import SigningKey
from agent.crypto.keepers import CREDENTIAL, Credential, Keeper, Machine
from agent.crypto.sealing import FILE, Mark, SecretStore
from agent.crypto.tpm import Tpm
from agent.evidence import identity
from agent.evidence.identity import Identity, open_identity
from tests.strangers import chip

BOTH = """
import sys
from pathlib import Path
from agent.crypto.keepers import Machine
from agent.evidence.identity import open_identity

folder = Path(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
found = open_identity(folder, "t1", None, [Machine(folder / "seal.salt", folder / "machine-id")])
print(found.created, found.key.public.id if found.key else found.why)
"""


class Place:
    """One agent's folder, and what can keep a key there."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path, self.salt = folder, folder / FILE, folder / "seal.salt"
        (folder / "machine-id").write_text("0123456789abcdef0123456789abcdef\n")
        self.file = Machine(self.salt, folder / "machine-id")
        (folder / "given").mkdir()
        (folder / "given" / CREDENTIAL).write_bytes(bytes(range(32)))
        self.credential = Credential(folder / "given")

    def open(self, expected: Mark | None = None, terminal: str = "t1") -> Identity:
        return open_identity(self.folder, terminal, expected, [self.file])


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def key_of(found: Identity) -> SigningKey:
    assert found.why == ""
    assert found.key is not None
    return found.key


def refused(found: Identity) -> str:
    assert found.key is None
    assert found.mark is None
    assert not found.created
    return found.why


def test_the_first_start_makes_a_key_and_every_other_finds_it(place: Place) -> None:
    first = place.open()
    assert (first.created, first.mark) == (True, Mark("file", 2))
    for expected in (None, first.mark):
        again = place.open(expected)
        assert (again.created, again.mark) == (False, first.mark)
        assert key_of(again).public == key_of(first).public
    assert key_of(first).public.verifies(key_of(place.open()).sign(b"said"), b"said")
    assert place.path.stat().st_mode & 0o777 == 0o600


def test_two_agents_have_two_keys(tmp_path: Path) -> None:
    keys = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        keys.append(key_of(Place(tmp_path / name).open()).public)
    assert keys[0] != keys[1]


def test_it_says_why_the_level_is_no_better(place: Place) -> None:
    found = open_identity(place.folder, "t1", None, [Credential(None), place.file])
    assert found.mark == Mark("file", 2)
    assert [sentence.partition(":")[0] for sentence in found.passed_over] == ["credential"]
    assert place.open(found.mark).passed_over == ()


def test_a_first_start_that_was_cut_short_is_finished_by_the_next(place: Place) -> None:
    SecretStore.create(place.path, "t1", [place.file]).wipe()
    found = place.open()
    assert (found.created, found.mark) == (True, Mark("file", 2))
    assert key_of(place.open(found.mark)).public == key_of(found).public


def test_other_secrets_of_the_file_stay(place: Place) -> None:
    key_of(place.open())
    with SecretStore.open(place.path, "t1", [place.file]) as store:
        with SigningKey.generate().seed() as other:
            store.put("tls.key", other)
        mark = store.mark
    assert key_of(place.open(mark)).public == key_of(place.open()).public
    with SecretStore.open(place.path, "t1", [place.file]) as store:
        assert store.names() == ("identity", "tls.key")


def _older(place: Place) -> Mark:
    text = place.path.read_bytes()
    with SecretStore.open(place.path, "t1", [place.file]) as store, SigningKey.generate().seed() as other:
        store.put("tls.key", other)
        place.path.write_bytes(text)
        return store.mark


def _lowered(place: Place) -> Mark:
    place.path.unlink()
    mark = open_identity(place.folder, "t1", None, [place.credential]).mark
    assert mark is not None
    assert mark.level == "credential"
    place.path.unlink()
    assert place.open().mark == Mark("file", mark.generation)
    return mark


def _without_the_key(place: Place) -> Mark:
    place.path.unlink()
    with SecretStore.create(place.path, "t1", [place.file]) as store, SigningKey.generate().seed() as other:
        store.put("tls.key", other)
        return store.mark


def _removed(place: Place) -> Mark:
    place.path.unlink()
    return Mark("file", 2)


def _without_its_salt(place: Place) -> Mark:
    place.salt.unlink()
    return Mark("file", 2)


def _damaged(place: Place) -> Mark:
    content = json.loads(place.path.read_text())
    place.path.write_text(json.dumps({**content, "sealed": content["sealed"][:-8] + "AAAAAAA="}))
    return Mark("file", 2)


def _unreadable(place: Place) -> Mark:
    place.path.unlink()
    place.path.mkdir()
    return Mark("file", 2)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_older, "replaced by an older one"),
        (_lowered, "is kept as file and was kept as credential"),
        (_without_the_key, "holds no secret identity"),
        (_removed, "there is no such file"),
        (_without_its_salt, "seal.salt: cannot be read"),
        (_damaged, "was changed or cut"),
        (_unreadable, "cannot be read"),
    ],
)
def test_what_cannot_be_trusted_is_refused_and_nothing_takes_its_place(
    place: Place, spoil: Callable[[Place], Mark], said: str
) -> None:
    key_of(place.open())
    expected = spoil(place)
    before = {path: path.read_bytes() for path in place.folder.iterdir() if path.is_file()}
    assert said in refused(place.open(expected))
    assert before == {path: path.read_bytes() for path in place.folder.iterdir() if path.is_file()}


def test_a_file_that_was_made_anew_at_the_same_level_is_told_by_its_key(place: Place) -> None:
    first = place.open()
    rows = [
        {"kind": "sealed", "level": "file", "generation": 1},
        {"kind": "sealed", "level": "file", "generation": 2, "key": key_of(first).public.id},
    ]
    mark, key_id = identity.remembered(rows)
    assert (mark, key_id) == (first.mark, key_of(first).public.id)
    assert identity.remembered(rows[:1]) == (Mark("file", 1), "")
    assert identity.remembered([]) == (None, "")
    place.path.unlink()
    assert place.open().mark == mark
    assert "holds another key" in refused(open_identity(place.folder, "t1", mark, [place.file], key_id))


def test_a_damaged_or_saltless_file_is_refused_also_when_no_mark_is_remembered(place: Place) -> None:
    key_of(place.open())
    text = place.path.read_bytes()
    _damaged(place)
    assert "was changed or cut" in refused(place.open())
    place.path.write_bytes(text)
    place.salt.unlink()
    assert "cannot be read" in refused(place.open())
    assert not place.salt.exists()


def test_another_terminal_s_file_is_refused(place: Place) -> None:
    mark = place.open().mark
    assert "another terminal's" in refused(place.open(mark, terminal="t2"))


def test_a_folder_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")
    assert "give the folder to the agent's user" in refused(open_identity(tmp_path / "data", "t1", None, []))


def test_nothing_that_can_keep_a_key_is_said(place: Place) -> None:
    assert "nothing here can keep a key" in refused(open_identity(place.folder, "t1", None, [Credential(None)]))
    assert not place.path.exists()


def test_the_key_is_in_no_repr_and_not_in_the_file(place: Place) -> None:
    found = place.open()
    with key_of(found).seed() as seed:
        raw = bytes(seed.reveal())
    shown = repr(found) + str(found)
    assert "key" not in shown
    for form in (raw.hex(), raw.hex().upper(), str(raw), repr(bytearray(raw))):
        assert form not in shown
    text = place.path.read_bytes()
    assert raw not in text
    assert raw.hex().encode() not in text.lower()


def test_two_processes_that_start_at_once_agree_on_one_key(place: Place) -> None:
    command = [sys.executable, "-c", BOTH, str(place.folder)]
    agents = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for agent in agents:
        assert agent.stdout is not None
        assert agent.stdout.readline() == "ready\n"
    for agent in agents:
        assert agent.stdin is not None
        agent.stdin.write("go\n")
        agent.stdin.flush()
    said = [agent.communicate(timeout=60)[0].split() for agent in agents]
    assert sorted(created for created, _ in said) == ["False", "False", "True"]
    assert {key for _, key in said} == {key_of(place.open()).public.id}


@pytest.mark.peer("swtpm", "tpm2-tools")
def test_on_a_tpm_the_chip_tells_the_older_file_without_any_mark(place: Place, tmp_path: Path) -> None:
    with chip(tmp_path / "chip") as tpm:
        able: list[Keeper] = [Tpm(tpm.tcti), place.file]
        first = open_identity(place.folder, "t1", None, able)
        assert first.mark == Mark("tpm2", 2)
        assert first.passed_over == ()
        assert key_of(open_identity(place.folder, "t1", first.mark, able)).public == key_of(first).public
        _older_on(place, able)
        assert "older" in refused(open_identity(place.folder, "t1", None, able))
    assert refused(open_identity(place.folder, "t1", first.mark, able))


def _older_on(place: Place, able: list[Keeper]) -> None:
    text = place.path.read_bytes()
    with SecretStore.open(place.path, "t1", able) as store, SigningKey.generate().seed() as other:
        store.put("tls.key", other)
    place.path.write_bytes(text)
