"""The agent's own secrets at rest: a level never falls silently, and no changed, cut or older file opens."""

import base64
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli.credential import credential
from agent.cli.options import Language
from agent.crypto import keepers, sealing
from agent.crypto.keepers import CREDENTIAL, Credential, Keeper, Machine, provision
from agent.crypto.sealing import Mark, SecretStore
from agent.crypto.secret import Secret
from agent.errors import ControlError, CryptoError, SealRefused
from tests.strangers import chip

SEED = b"not a seed of any terminal, 32 b"


class Place:
    """One terminal's folder and what can keep keys there."""

    def __init__(self, folder: Path) -> None:
        self.path, self.salt = folder / "secrets", folder / "seal.salt"
        self.machine, self.given = folder / "machine-id", folder / "given"
        self.machine.write_text("0123456789abcdef0123456789abcdef\n")
        self.given.mkdir()
        (self.given / CREDENTIAL).write_bytes(bytes(range(32)))
        self.credential, self.file = Credential(self.given), Machine(self.salt, self.machine)

    def create(self, keeper: Keeper) -> SecretStore:
        store = SecretStore.create(self.path, "t1", [keeper])
        store.put("signing", Secret(SEED))
        return store

    def open(self, *others: Keeper, expected: Mark | None = None) -> SecretStore:
        return SecretStore.open(self.path, "t1", [*others, self.credential, self.file], expected)


HEAD = '{"format": "tillwire-sealed/1", "terminal": "t1", "generation": 2, "count": 1, '
OF_BEFORE = {
    "file": HEAD + '"level": "file", "kept": {}, "nonce": "ACNm6de+9nhSYnR5", "sealed": "aSysu+VR+at36bpLkHH8cFAjKb'
    'GJi2Aa5e/23AD8N63Ukz19cj23p9GMy+5DlpO3Um2RQmJb6GNfAg=="}',
    "credential": HEAD + '"level": "credential", "kept": {"salt": "K9YK+4WJ33Wve8XpRdS0bTgeWR5KTIqqvFsoj/ijgr4="}, '
    '"nonce": "EmxkwvUrffuc6Fyc", "sealed": "/GuGbF7ogv3IjSb1Tojv5pJofXClIDGgKiC1wJ2CMh23rm7YM9j1I0uUUnptJ4SYr3cl/'
    'AfwGBkNsA=="}',
}
"""Files as the first version of this format wrote them."""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(SealRefused) as caught:
        call()
    assert caught.value.reason in (sealing.__doc__ or "")
    return caught.value.reason


@pytest.mark.parametrize("level", ["credential", "file"])
def test_what_is_put_is_there_again_and_not_in_the_file(place: Place, level: str) -> None:
    with place.create(getattr(place, level)) as store:
        store.put("tls.key", Secret(b"\x00" * 5000))
        store.put("signing", Secret(SEED))
        assert store.mark == Mark(level, 4)
    with place.open(expected=store.mark) as again:
        assert again.mark == store.mark
        assert again.names() == ("signing", "tls.key")
        assert again.get("signing") == Secret(SEED)
        assert again.get("tls.key") == Secret(b"\x00" * 5000)
    text = place.path.read_bytes()
    for form in (SEED, SEED.hex().encode(), SEED.hex().upper().encode(), base64.b64encode(SEED), b"signing"):
        assert form not in text
    assert place.path.stat().st_mode & 0o777 == 0o600
    assert refused(lambda: place.open().get("tls.crt")) == "missing"


@pytest.mark.parametrize("level", OF_BEFORE)
def test_a_file_of_an_earlier_version_opens(place: Place, level: str) -> None:
    place.path.write_text(OF_BEFORE[level])
    place.salt.write_bytes(bytes(range(32)))
    place.salt.chmod(0o600)
    assert place.open(expected=Mark(level, 2)).get("signing") == Secret(SEED)


def test_a_store_is_made_once_and_opened_only_where_it_is(place: Place) -> None:
    assert refused(place.open) == "missing"
    place.create(place.file)
    before = place.path.read_bytes()
    assert refused(lambda: place.create(place.file)) == "exists"
    assert place.path.read_bytes() == before


def test_creating_takes_the_best_level_and_says_why_it_is_no_better(place: Place, tmp_path: Path) -> None:
    without = sealing.keepers(tmp_path, tcti="swtpm:path=/nowhere")
    store = SecretStore.create(place.path, "t1", [*without[:2], place.file])
    assert store.mark.level == "file"
    assert [sentence.partition(":")[0] for sentence in store.passed_over] == ["tpm2", "credential"]
    assert "TPM" in store.passed_over[0]
    assert "LoadCredentialEncrypted" in store.passed_over[1]
    place.path.unlink()
    best = SecretStore.create(place.path, "t1", [without[0], place.credential, place.file])
    assert best.mark.level == "credential"
    place.path.unlink()
    assert refused(lambda: SecretStore.create(place.path, "t1", without[:2])) == "lost"
    assert not place.path.exists()


def test_a_lost_level_is_said_and_nothing_takes_its_place(place: Place) -> None:
    place.create(place.credential)
    before = place.path.read_bytes()
    (place.given / CREDENTIAL).rename(place.given / "elsewhere")
    assert refused(place.open) == "lost"
    assert refused(lambda: SecretStore.open(place.path, "t1", [place.file])) == "lost"
    assert place.path.read_bytes() == before
    assert not place.salt.exists()
    (place.given / "elsewhere").rename(place.given / CREDENTIAL)
    assert place.open().get("signing") == Secret(SEED)


def test_a_cut_credential_is_a_lost_one(place: Place) -> None:
    (place.given / CREDENTIAL).write_bytes(bytes(31))
    assert refused(lambda: place.create(place.credential)) == "lost"


def test_another_credential_opens_nothing(place: Place) -> None:
    place.create(place.credential)
    (place.given / CREDENTIAL).write_bytes(bytes(32))
    assert refused(place.open) == "damaged"


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("lost", lambda place: place.salt.unlink()),
        ("lost", lambda place: place.machine.unlink()),
        ("lost", lambda place: place.machine.write_text("\n")),
        ("lost", lambda place: place.salt.write_bytes(place.salt.read_bytes()[:31])),
        ("exposed", lambda place: place.salt.chmod(0o640)),
        ("exposed", lambda place: place.salt.chmod(0o604)),
        ("damaged", lambda place: place.salt.write_bytes(bytes(32))),
        ("damaged", lambda place: place.machine.write_text("f" * 32)),
    ],
)
def test_the_file_level_needs_its_salt_its_machine_and_privacy(
    place: Place, reason: str, change: Callable[[Place], object]
) -> None:
    place.create(place.file)
    assert place.salt.stat().st_mode & 0o777 == 0o600
    change(place)
    assert refused(place.open) == reason


def test_no_changed_or_cut_file_opens(place: Place) -> None:
    place.create(place.credential)
    text = place.path.read_bytes()
    for at in range(len(text)):
        for other in (text[:at], text[:at] + bytes([text[at] ^ 1]) + text[at + 1 :]):
            place.path.write_bytes(other)
            assert refused(place.open) in ("damaged", "lost")
    place.path.write_bytes(text)
    place.open()


@pytest.mark.parametrize(
    "change",
    [
        {"terminal": "t2"},
        {"level": "file"},
        {"level": "none"},
        {"generation": 3},
        {"generation": True},
        {"count": 0},
        {"kept": {}},
        {"kept": {"salt": 5}},
        {"kept": {"salt": "!"}},
        {"nonce": ""},
        {"nonce": "!"},
        {"sealed": ""},
        {"sealed": "AAAA"},
        {"sealed": None},
        {"format": "tillwire-sealed/2"},
        {"more": 1},
    ],
    ids=repr,
)
def test_no_edited_field_is_believed(place: Place, change: dict[str, Any]) -> None:
    place.create(place.credential)
    place.path.write_text(json.dumps({**json.loads(place.path.read_text()), **change}))
    # Whoever writes another level into it asks for a key that was never made.
    assert refused(place.open) == ("lost" if change == {"level": "file"} else "damaged")


def test_another_terminal_s_file_does_not_open(place: Place) -> None:
    place.create(place.credential)
    assert refused(lambda: SecretStore.open(place.path, "t2", [place.credential])) == "damaged"


@given(st.binary(max_size=200))
def test_whatever_the_file_holds_the_only_error_is_a_refusal(tmp_path_factory: Any, text: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "secrets"
    path.write_bytes(text)
    assert refused(lambda: SecretStore.open(path, "t1", [])) == "damaged"


def test_a_file_without_end_is_not_read(place: Place) -> None:
    place.path.symlink_to("/dev/zero")
    assert refused(place.open) == "damaged"


def test_an_older_file_is_told_by_the_mark_that_is_remembered(place: Place) -> None:
    store = place.create(place.credential)
    older = place.path.read_bytes()
    store.put("signing", Secret(bytes(32)))
    place.path.write_bytes(older)
    assert place.open().get("signing") == Secret(SEED)  # nothing remembers, nothing tells
    assert refused(lambda: place.open(expected=store.mark)) == "older"


def test_a_file_of_a_lower_level_is_told_by_the_mark_that_is_remembered(place: Place) -> None:
    store = place.create(place.credential)
    place.path.unlink()
    place.create(place.file).put("more", Secret(b"x"))
    assert refused(lambda: place.open(expected=store.mark)) == "lowered"


def test_what_a_power_cut_left_beside_the_file_is_in_nobody_s_way(place: Place) -> None:
    store = place.create(place.credential)
    beside = place.path.with_name("secrets.new")
    beside.write_bytes(b"half a fi")
    assert place.open().get("signing") == Secret(SEED)
    store.put("more", Secret(b"x"))
    assert place.open().names() == ("more", "signing")
    assert not beside.exists()


def test_a_write_that_fails_changes_nothing(place: Place) -> None:
    store = place.create(place.credential)
    place.path.with_name("secrets.new").mkdir()  # where the new file would be written first
    assert refused(lambda: store.put("signing", Secret(bytes(32)))) == "unwritten"
    assert store.get("signing") == Secret(SEED)
    assert place.open().mark == store.mark == Mark("credential", 2)


def test_no_more_is_written_than_is_read_again(place: Place) -> None:
    store = place.create(place.credential)
    names = [f"large.{number}" for number in range(20)]

    def fill() -> None:
        for name in names:
            store.put(name, Secret(bytes(65535)))

    assert refused(fill) == "unwritten"
    assert place.open().names() == store.names()


def test_a_name_is_plain_and_a_secret_is_not_endless(place: Place) -> None:
    store = place.create(place.credential)
    for name, secret in (("", b"x"), ("Signing", b"x"), ("a/b", b"x"), ("a" * 65, b"x"), ("a", bytes(65536))):
        with pytest.raises(ValueError, match="secret's name"):
            store.put(name, Secret(secret))


def test_a_store_that_was_left_holds_nothing_any_more(place: Place) -> None:
    with place.create(place.credential) as store:
        store.put("signing", Secret(SEED))
    with pytest.raises(CryptoError, match="wiped"):
        store.get("signing")


def test_two_files_under_one_credential_have_different_keys(place: Place) -> None:
    assert place.credential.make()[0] != place.credential.make()[0]
    key = Secret(SEED)
    assert keepers.derived(key, b"", b"one") != keepers.derived(key, b"", b"other")


def test_keepers_are_named_best_first(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(place.given))
    found = sealing.keepers(tmp_path)
    assert tuple(keeper.level for keeper in found) == tuple(reversed(keepers.LEVELS))
    assert found[1].fetch({"salt": ""}) == place.credential.fetch({"salt": ""})


@pytest.fixture
def host_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host key of the test's own, not the one of the machine that runs it."""
    path = tmp_path / "credential.secret"
    monkeypatch.setenv("SYSTEMD_CREDENTIAL_SECRET", str(path))
    return path


def handed_over(place: Place, sealed: Path, tpm: str = "auto") -> None:
    """What systemd does at the start of a unit with LoadCredentialEncrypted=."""
    target = place.given / CREDENTIAL
    target.unlink(missing_ok=True)
    command = ["systemd-creds", "decrypt", f"--name={CREDENTIAL}", f"--tpm2-device={tpm}", str(sealed), str(target)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


@pytest.mark.peer("systemd")
@pytest.mark.usefixtures("host_key")
def test_a_credential_that_systemd_creds_made_keeps_a_store(place: Place, tmp_path: Path) -> None:
    assert provision(tmp_path / "sealed", tpm="swtpm:path=/nowhere") == "host"
    handed_over(place, tmp_path / "sealed")
    place.create(place.credential)
    handed_over(place, tmp_path / "sealed")
    assert place.open().get("signing") == Secret(SEED)
    assert (place.given / CREDENTIAL).read_bytes() not in base64.b64decode((tmp_path / "sealed").read_bytes())
    assert refused(lambda: provision(tmp_path / "sealed")) == "exists"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration of an agent that was not started yet, and who reads it is root."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    path = tmp_path / "terminal.toml"
    path.write_text('[terminal]\nid = "t1"\norg = "bank"\ndata = "data"\n')
    return path


@pytest.mark.peer("systemd")
@pytest.mark.usefixtures("host_key")
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_root_makes_the_credential_by_command_and_is_told_the_line_of_the_unit(
    installed: Path, tmp_path: Path, lang: Language, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "seal.cred"
    credential(made, lang=lang, config=installed)
    shown = capsys.readouterr().out
    assert f"\n  LoadCredentialEncrypted={CREDENTIAL}:{made}\n" in shown
    assert ("首次启动前" if lang == "zh" else "before its first start") in shown
    assert made.exists()


def test_no_credential_is_made_that_nobody_would_take(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, sealed = tmp_path / "seal.cred", tmp_path / "data" / sealing.FILE
    sealed.parent.mkdir()
    sealed.write_text("whatever its level")
    with pytest.raises(ControlError, match="would not take another credential"):
        credential(made, lang="en", config=installed)
    sealed.unlink()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SealRefused, match="systemd-creds is missing"):
        credential(made, config=installed)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ControlError, match="只有root"):
        credential(made, lang="zh", config=installed)
    assert not made.exists()


@pytest.mark.peer("systemd", "swtpm", "tpm2-tools")
@pytest.mark.usefixtures("host_key")
def test_a_credential_is_bound_to_host_and_tpm_where_there_is_one(place: Place, tmp_path: Path) -> None:
    with chip(tmp_path / "chip") as tpm:
        assert provision(tmp_path / "sealed", tpm=tpm.tcti) == "host+tpm2"
        tpm.tool("flushcontext", "-t")
        handed_over(place, tmp_path / "sealed", tpm=tpm.tcti)
        place.create(place.credential)
    with pytest.raises(subprocess.CalledProcessError):
        handed_over(place, tmp_path / "sealed", tpm="swtpm:path=/nowhere")


def test_random_damage_is_never_a_traceback(place: Place) -> None:
    place.create(place.credential)
    text, draw = place.path.read_bytes(), Random(4711)
    for _ in range(300):
        cut = sorted(draw.sample(range(len(text)), 2))
        place.path.write_bytes(text[: cut[0]] + draw.randbytes(draw.randrange(4)) + text[cut[1] :])
        assert refused(place.open) in ("damaged", "lost")
