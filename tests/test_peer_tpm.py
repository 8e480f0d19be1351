"""A TPM that others wrote (swtpm, tpm2-tools) keeps our key: on this chip only, and no older file opens."""

import base64
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from agent.crypto.keepers import derived
from agent.crypto.sealing import Mark, SecretStore
from agent.crypto.secret import Secret
from agent.crypto.tpm import Tpm
from agent.errors import SealRefused
from tests.strangers import Chip, chip

pytestmark = [pytest.mark.peer("swtpm", "tpm2-tools")]
SEED = b"not a seed of any terminal, 32 b"


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[Chip]:
    with chip(tmp_path / "chip") as started:
        yield started


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "secrets"


def create(path: Path, tpm: Chip) -> SecretStore:
    store = SecretStore.create(path, "t1", [Tpm(tpm.tcti)])
    store.put("signing", Secret(SEED))
    return store


def opened(path: Path, tcti: str) -> SecretStore:
    return SecretStore.open(path, "t1", [Tpm(tcti)])


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(SealRefused) as caught:
        call()
    return caught.value.reason


def test_a_store_opens_again_also_after_a_power_cut_of_the_chip(path: Path, tpm: Chip) -> None:
    assert create(path, tpm).mark == Mark("tpm2", 2)
    assert opened(path, tpm.tcti).get("signing") == Secret(SEED)
    tpm.stop()
    assert refused(lambda: opened(path, tpm.tcti)) == "lost"
    tpm.start()
    store = opened(path, tpm.tcti)
    assert store.get("signing") == Secret(SEED)
    store.put("more", Secret(b"x"))
    assert opened(path, tpm.tcti).mark == Mark("tpm2", 3)


def test_nothing_is_left_in_the_chip_s_few_slots(path: Path, tpm: Chip) -> None:
    create(path, tpm)
    path.write_bytes(path.read_bytes().replace(b'"private": "A', b'"private": "B'))
    assert refused(lambda: opened(path, tpm.tcti)) == "lost"
    for slots in ("transient", "loaded-session", "saved-session"):
        assert tpm.tool("getcap", f"handles-{slots}") == ""


def test_another_chip_and_a_cleared_one_open_nothing(path: Path, tpm: Chip, tmp_path: Path) -> None:
    create(path, tpm)
    before = path.read_bytes()
    with chip(tmp_path / "other") as other:
        assert refused(lambda: opened(path, other.tcti)) == "lost"
    tpm.tool("clear", "-c", "p")
    assert refused(lambda: opened(path, tpm.tcti)) == "lost"
    assert path.read_bytes() == before


def test_an_older_file_is_told_by_the_chip_alone(path: Path, tpm: Chip) -> None:
    store = create(path, tpm)
    older = path.read_bytes()
    store.put("signing", Secret(bytes(32)))
    newest = path.read_bytes()
    path.write_bytes(older)
    assert refused(lambda: opened(path, tpm.tcti)) == "older"
    path.write_bytes(newest)
    assert opened(path, tpm.tcti).get("signing") == Secret(bytes(32))


class Cut(Tpm):
    """The power goes before the counter moves."""

    def step(self, key: Secret) -> None:
        raise SystemExit


def test_a_power_cut_between_file_and_counter_loses_nothing_and_opens_no_older_file(path: Path, tpm: Chip) -> None:
    create(path, tpm)
    older = path.read_bytes()
    with pytest.raises(SystemExit):
        SecretStore.open(path, "t1", [Cut(tpm.tcti)]).put("signing", Secret(bytes(32)))
    assert opened(path, tpm.tcti).get("signing") == Secret(bytes(32))
    assert opened(path, tpm.tcti).mark == Mark("tpm2", 3)
    path.write_bytes(older)
    assert refused(lambda: opened(path, tpm.tcti)) == "older"


def test_who_deletes_the_counter_or_makes_another_gains_nothing(path: Path, tpm: Chip) -> None:
    store = create(path, tpm)
    older = path.read_bytes()
    store.put("signing", Secret(bytes(32)))
    tpm.tool("nvundefine", "-C", "o", "0x1847711")
    for text in (older, path.read_bytes()):
        path.write_bytes(text)
        assert refused(lambda: opened(path, tpm.tcti)) == "lost"
    tpm.tool("nvdefine", "-C", "o", "-s", "8", "-a", "nt=counter|authread|authwrite|no_da", "0x1847711")
    assert refused(lambda: opened(path, tpm.tcti)) == "lost"


def test_a_store_is_made_anew_where_an_older_one_was_set_aside(path: Path, tpm: Chip) -> None:
    create(path, tpm)
    aside = path.with_name("aside")
    path.rename(aside)
    assert create(path, tpm).mark == Mark("tpm2", 2)
    assert refused(lambda: opened(aside, tpm.tcti)) == "lost"


def forms(secret: bytes) -> tuple[bytes, ...]:
    digits = secret.hex().encode()
    return secret, digits, digits.upper(), base64.b64encode(secret), base64.urlsafe_b64encode(secret)


def test_no_argument_environment_or_file_left_behind_holds_the_key(
    tpm: Chip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs, log, scratch = tmp_path / "bin", tmp_path / "log", tmp_path / "scratch"
    scratch.mkdir()
    programs.mkdir()
    for name in ("createprimary", "startauthsession", "create", "load", "unseal", "flushcontext"):
        spy(programs, log, f"tpm2_{name}")
    for name in ("nvundefine", "nvdefine", "nvincrement", "nvread"):
        spy(programs, log, f"tpm2_{name}")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr("tempfile.tempdir", None)
    keeper = Tpm(tpm.tcti)
    key, kept = keeper.make()
    assert keeper.fetch(kept) == key
    keeper.count(key)
    password = bytes(derived(key, b"", b"tillwire counter").reveal()[:16])
    seen = log.read_bytes()
    assert b"nvincrement" in seen
    assert b"TMPDIR=" in seen
    for secret in (bytes(key.reveal()), password):
        for form in forms(secret):
            assert form not in seen
    assert not list(scratch.iterdir())
    # The spy would have seen it.
    subprocess.run(
        [programs / "tpm2_flushcontext", "-T", tpm.tcti, key.reveal().hex()], capture_output=True, check=False
    )
    assert forms(bytes(key.reveal()))[1] in log.read_bytes()


def spy(programs: Path, log: Path, name: str) -> None:
    """A program that notes its arguments and environment, and then does what the real one does."""
    script = programs / name
    script.write_text(f'#!/bin/sh\n{{ echo "$0" "$@"; env; }} >> {log}\nexec {shutil.which(name)} "$@"\n')
    script.chmod(0o755)


@contextmanager
def bus(tpm: Chip, folder: Path) -> Iterator[tuple[str, bytearray]]:
    """A listener on the wires to the chip: the tcti that leads over it, and all that passed."""
    heard, tap = bytearray(), folder / "tap"
    Path(f"{tap}.ctrl").symlink_to(f"{tpm.socket}.ctrl")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tap))
        server.listen()
        threading.Thread(target=listen, args=(server, str(tpm.socket), heard), daemon=True).start()
        yield f"swtpm:path={tap}", heard
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)


def listen(server: socket.socket, chip: str, heard: bytearray) -> None:
    while True:
        try:
            line, _ = server.accept()
        except OSError:
            return
        with line, socket.socket(socket.AF_UNIX) as wires:
            wires.connect(chip)
            back = threading.Thread(target=carry, args=(wires, line, heard), daemon=True)
            back.start()
            carry(line, wires, heard)
            back.join(10.0)


def carry(source: socket.socket, target: socket.socket, heard: bytearray) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            heard += data
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def test_a_listener_on_the_bus_hears_no_key(tpm: Chip, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as short, bus(tpm, Path(short)) as (tcti, heard):
        keeper = Tpm(tcti)
        key, kept = keeper.make()
        assert keeper.fetch(kept) == key
        assert base64.b64decode(kept["private"]) in heard
        assert bytes(key.reveal()) not in heard
        # Without our session it would have heard it.
        subprocess.run(
            ["tpm2_create", "-T", tcti, "-C", "o", "-i-", "-u", "u", "-r", "r"],
            input=key.reveal(),
            cwd=tmp_path,
            capture_output=True,
            check=False,
        )
        assert bytes(key.reveal()) in heard
