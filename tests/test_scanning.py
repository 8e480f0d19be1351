"""The search for secrets: it finds each form of a planted one wherever it can lie, and nothing where none is."""

import os
import resource
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.scanning import CHUNK, Capture, Find, Search, chunks, core, files, forms, memory
from tests.whole import wait

SECRET = secrets.token_hex(16)
"""Made anew in each run: so it stands in no file, and what is found was planted."""
SEARCH = Search({"planted": SECRET})
HOLDER = """
import mmap, os, sys
text = bytearray(200_000)
size = os.readv(0, [text])
print("holds", flush=True)
os.read(0, 1)
text[:] = bytes(len(text))
print("wiped", flush=True)
os.read(0, 1)
"""
"""A process that reads bytes into one buffer, and wipes it when it is told to."""


def found(where: str, data: bytes) -> set[str]:
    """The forms in which the secret is found."""
    return {find.form for find in SEARCH.finds(chunks(where, data))}


@pytest.mark.parametrize("form", forms(SECRET))
def test_a_secret_is_found_in_each_form(form: str) -> None:
    planted = forms(SECRET)[form]
    noise = os.urandom(997)
    assert found("noise", noise * 2) == set()
    assert found("plant", noise + b'{"x":"' + planted + b'"}' + noise)


@pytest.mark.parametrize("digits", [16, 32, 48, 64])
def test_secrets_of_all_lengths_are_found(digits: int) -> None:
    secret = secrets.token_hex(digits // 2)
    search = Search({"it": secret})
    for form, planted in forms(secret).items():
        assert search.finds([("here", b"\0\0\0" + planted + b"\0")]), form
        assert search.finds([("here", forms(secrets.token_hex(digits // 2))[form])]) == [], form


@given(st.integers(0, 6), st.integers(9, 16), st.binary(max_size=9))
def test_a_part_of_the_bytes_is_enough(start: int, size: int, before: bytes) -> None:
    part = bytes.fromhex(SECRET)[start : start + size]
    if len(part) >= 9:
        assert found("part", before + part)
        assert found("part", before + part.hex(" ").encode())


@given(st.binary(min_size=16, max_size=16))
def test_bytes_are_found_whatever_their_parity(flips: bytes) -> None:
    assert found("plant", bytes(b ^ flip & 1 for b, flip in zip(bytes.fromhex(SECRET), flips, strict=True)))


@given(st.text("ABCxyz09+/", max_size=9), st.integers(0, 2))
def test_base64_is_found_wherever_its_groups_begin(before: str, shift: int) -> None:
    assert found("plant", f"{before}-{before}".encode() + forms(SECRET)[f"Base64 {shift}"])


@pytest.mark.parametrize("at", [-40, -16, -1, 0, 300])
def test_a_secret_at_the_border_of_two_pieces_is_found(at: int) -> None:
    for form in ("raw", "hex utf-32-le", "HEX by 2 with blanks", "list"):
        planted = forms(SECRET)[form]
        data = bytearray(2 * CHUNK)
        data[CHUNK + at : CHUNK + at + len(planted)] = planted
        assert found("border", bytes(data)), form


def test_what_is_found_is_told_without_its_value() -> None:
    finds = SEARCH.finds([("file x", bytes.fromhex(SECRET))])
    assert finds == [Find("planted", "raw", "file x")]
    assert SECRET not in repr(finds)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(
        [sys.executable, "-IS", "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path
    ) as process:
        yield process
        process.kill()


def give(process: "subprocess.Popen[bytes]", data: bytes) -> None:
    """Let the holder hold bytes."""
    tell(process, data, b"holds\n")


def tell(process: "subprocess.Popen[bytes]", data: bytes, answer: bytes) -> None:
    assert process.stdin
    assert process.stdout
    process.stdin.write(data)
    process.stdin.flush()
    assert process.stdout.readline() == answer


def test_a_secret_in_the_memory_of_a_live_process_is_found_until_it_is_wiped(
    holder: "subprocess.Popen[bytes]",
) -> None:
    assert SEARCH.finds(memory(holder.pid)) == []
    give(holder, bytes.fromhex(SECRET) + b"   " + SECRET.encode("utf-16-le"))
    assert {find.form for find in SEARCH.finds(memory(holder.pid))} == {"raw", "hex"}
    tell(holder, b"\n", b"wiped\n")
    assert SEARCH.finds(memory(holder.pid)) == []
    status = Path(f"/proc/{holder.pid}/status").read_text()
    assert "(stopped)" not in status, "it goes on after it was looked at"


@pytest.mark.parametrize("wiped", [False, True])
def test_a_secret_in_a_core_dump_is_found(holder: "subprocess.Popen[bytes]", tmp_path: Path, wiped: bool) -> None:
    give(holder, SECRET.encode())
    if wiped:
        tell(holder, b"\n", b"wiped\n")

    def end(number: signal.Signals) -> None:
        holder.send_signal(number)
        holder.wait(30)

    dump = core(holder.pid, tmp_path, end)
    if dump is None:
        pytest.skip("gdb is not installed, and core dumps of this machine go to another program")
    assert dump.read_bytes()[:4] == b"\x7fELF"
    assert dump.stat().st_size > resource.getpagesize()
    assert {find.name for find in SEARCH.finds(files(dump))} == (set() if wiped else {"planted"})


def test_a_secret_in_a_store_is_found_before_and_after_the_log_is_written_back(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "store.db")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("CREATE TABLE ledger (row TEXT)")
    db.commit()
    assert SEARCH.finds(files(tmp_path)) == []
    db.execute("INSERT INTO ledger VALUES (?)", (f'{{"raw":"{SECRET.upper()}"}}',))
    db.commit()
    assert {find.where for find in SEARCH.finds(files(tmp_path))} == {"file store.db-wal"}
    db.execute("DELETE FROM ledger")
    db.close()
    assert {find.where for find in SEARCH.finds(files(tmp_path))} == {"file store.db"}, "a row that was deleted"


def test_a_secret_in_a_folder_of_folders_is_found(tmp_path: Path) -> None:
    (tmp_path / "deep/er").mkdir(parents=True)
    (tmp_path / "deep/er/some.log").write_bytes(forms(SECRET)["HEX by 4 with blanks"])
    (tmp_path / "some.txt").write_text("nothing")
    assert SEARCH.finds(files(tmp_path)) == [Find("planted", "hex", "file some.log")]


def test_a_secret_in_traffic_is_found_either_way_and_the_traffic_is_not_changed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        capture = Capture(server.getsockname()[1])
        with socket.create_connection(("127.0.0.1", capture.port)) as client:
            at_server, _ = server.accept()
            with at_server:
                client.sendall(b"asked " + SECRET[:20].encode())
                time_of = at_server.recv(100)
                client.sendall(SECRET[20:].encode())
                assert time_of + at_server.recv(100) == b"asked " + SECRET.encode()
                assert {find.where for find in SEARCH.finds(capture.pieces())} == {"traffic sent"}
                at_server.sendall(forms(SECRET)["Base64 1"])
                assert client.recv(100) == forms(SECRET)["Base64 1"]
                wheres = {find.where for find in SEARCH.finds(capture.pieces())}
                assert wheres == {"traffic sent", "traffic received"}
        capture.close()


def test_a_capture_of_nobody_hangs_up_and_serves_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    capture = Capture(port)
    with socket.create_connection(("127.0.0.1", capture.port)) as client:
        assert client.recv(1) == b""
    with (
        socket.create_server(("127.0.0.1", port)) as server,
        socket.create_connection(("127.0.0.1", capture.port)) as client,
    ):
        there, _ = server.accept()
        with there:
            client.sendall(b"x")
            wait("a byte", lambda: bytes(capture.sent) == b"x", 5)
    capture.close()


def test_a_big_memory_is_searched_in_seconds() -> None:
    begun = time.monotonic()
    assert SEARCH.finds(chunks("noise", os.urandom(8 << 20))) == []
    assert time.monotonic() - begun < 20
