"""Where the key room opens, and what its process gives away: nothing in argv, environment, core or swap."""

import ctypes
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from agent.crypto import enclosure
from agent.crypto.enclosure import NAMES_AN_AGENT, TERMINAL, refuse_components, scrubbed, terminal_here
from agent.errors import KeyRoomClosed
from tests.custody import AGAIN, BIN, MAY_LOCK, TYPED, Custodians, forms, found_in, memory_of

pytestmark = [MAY_LOCK]
DIGITS = "3D1F4C8A92E657B0C4D93B6E810F7A25"
SECRET = bytes.fromhex(DIGITS)
CAP_IPC_LOCK, PR_CAPBSET_DROP = 14, 24
MADE = ("--terminal", "A", "--slot", "K")
AT_THE_TABLE = [
    ("make", *MADE, "--to", "/dev/null", "--envelope", "A1", "--envelope", "A2"),
    ("check",),
    ("combine",),
    ("wrap", *MADE, "--under", "M", "--usage", "P0", "--mode", "E", "--new"),
    ("cryptogram", "--legacy", "--new"),
    ("inject", "/dev/null", "epp", "--slot", "00", "--legacy"),
    ("signer", "--to", "/dev/null/none"),
]


# where


@pytest.mark.parametrize("name", TERMINAL)
def test_whatever_belongs_to_a_terminal_closes_the_key_room(tmp_path: Path, name: str) -> None:
    assert terminal_here(tmp_path, {}) is None
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).symlink_to("nowhere")
    assert terminal_here(tmp_path, {}) == str(tmp_path / name)


@pytest.mark.parametrize("name", NAMES_AN_AGENT)
def test_an_environment_that_names_an_agent_closes_it_too(tmp_path: Path, name: str) -> None:
    assert terminal_here(tmp_path, {name: "x"}) == name


@pytest.mark.parametrize("words", AT_THE_TABLE, ids=lambda words: words[0])
def test_no_command_opens_on_a_terminal(tmp_path: Path, words: tuple[str, ...]) -> None:
    room = Custodians(tmp_path, *words, environment={"TILLWIRE_SOCKET": "/run/any.sock"})
    assert room.close() == 3, room.shown
    assert room.shown.count("\n") == 1
    assert "use a stand-alone machine" in room.shown
    assert not room.stdout


def test_without_a_terminal_to_type_at_nothing_is_read() -> None:
    environment = {key: text for key, text in os.environ.items() if not key.startswith("TILLWIRE")}
    done = subprocess.run(
        [BIN / "tillwire", "keyroom", "check"],
        input=f"Ann\n{DIGITS}\n{DIGITS}\n",
        capture_output=True,
        text=True,
        start_new_session=True,
        env=environment,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert "no terminal to type at" in done.stderr


def forget_memory_locking() -> None:
    """Become somebody who may lock no memory, also as root."""
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
    ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_IPC_LOCK, 0, 0, 0)


def test_memory_that_cannot_be_locked_closes_it(tmp_path: Path) -> None:
    room = Custodians(tmp_path, "check", before=forget_memory_locking)
    assert room.close() == 3, room.shown
    assert "ulimit -l unlimited" in room.shown


def test_on_another_system_than_linux_it_stays_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(KeyRoomClosed, match="needs Linux"):
        enclosure.enter()


# a component where none belongs


@pytest.mark.parametrize(
    "words",
    [
        ("check", DIGITS),
        ("check", DIGITS.lower()),
        ("check", f"--x={DIGITS[:16]}"),
        ("check", *["3D1F", "4C8A", "92E6", "57B0", "C4D9", "3B6E", "810F", "7A25"]),
        (DIGITS * 2,),
        (f"--{DIGITS}",),
    ],
)
def test_a_component_on_the_command_line_is_spoiled_and_not_repeated(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    room = Custodians(tmp_path, *words)
    assert room.close() == 3
    assert "spoiled" in room.shown
    assert not found_in(room.shown.encode(), SECRET)
    assert DIGITS[:8].lower() not in room.shown.lower().replace(" ", "")


def test_a_component_typed_as_a_name_is_spoiled(tmp_path: Path) -> None:
    room = Custodians(tmp_path, "check")
    room.answer("name:", DIGITS + "\n")
    assert room.close() == 3
    assert "spoiled" in room.shown


def test_check_values_and_numbers_are_no_components() -> None:
    refuse_components(["08D7B4", "08 D7 B4", "A000123", "ATM-0001", "2026-11-25", "0A82458664", "/dev/usb/lp0"])


# the process


def test_only_language_and_terminal_stay_in_the_environment() -> None:
    given = {"PATH": "/bin", "LANG": "C", "LC_ALL": "C", "LD_PRELOAD": "x.so", "PYTHONPATH": "x", "KEY": DIGITS}
    kept = scrubbed({**given, "PYTHONMALLOC": "malloc"})
    assert kept == {"PATH": "/bin", "LANG": "C", "LC_ALL": "C", **enclosure.OVERWRITING}
    assert scrubbed(kept) == kept


def test_the_process_shows_nothing_and_leaves_no_core(tmp_path: Path) -> None:
    def careless() -> None:
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))

    room = Custodians(tmp_path, "check", environment={"KEY": DIGITS, "PYTHONPATH": "/x"}, before=careless)
    room.answer("name:", "Ann\n")
    room.answer("name:", "Bo\n")
    room.answer(TYPED, DIGITS + "\r")
    room.until(AGAIN)
    process = Path(f"/proc/{room.pid}")
    for name in ("cmdline", "environ"):
        assert not found_in((process / name).read_bytes(), SECRET)
    names = {entry.partition(b"=")[0] for entry in (process / "environ").read_bytes().split(b"\0")}
    assert not names & {b"KEY", b"PYTHONPATH"}
    assert b"PYTHONMALLOC=debug" in (process / "environ").read_bytes().split(b"\0")
    limits = (process / "limits").read_text()
    assert next(line for line in limits.splitlines() if "core file" in line).split()[4:6] == ["0", "0"]
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    locked, resident = (int(status[name].split()[0]) for name in ("VmLck", "VmRSS"))
    assert locked >= resident * 0.95
    assert status["VmSwap"].split()[0] == "0"
    assert not room.echoes
    os.kill(room.pid, 6)
    assert room.close() == -6
    assert not os.WCOREDUMP(room.status)


def test_the_process_lets_no_other_of_its_user_look_in(tmp_path: Path) -> None:
    """PR_SET_DUMPABLE 0 gives the files of /proc/PID to root; a root that runs the tests sees no difference there,
    so the process itself is asked."""
    script = (
        "from agent.crypto import enclosure as e; import ctypes; e._protect(); print(ctypes.CDLL(None).prctl(3))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "0"


def test_ctrl_c_ends_it_and_the_terminal_shows_typing_again(tmp_path: Path) -> None:
    room = Custodians(tmp_path, "combine")
    room.answer("name:", "Ann\n")
    room.answer("name:", "Bo\n")
    room.answer(TYPED, DIGITS[:20])
    room.says("\x03")
    assert room.until("what was typed is forgotten")
    assert room.echoes
    assert room.close() == 130, room.shown
    assert "Traceback" not in room.shown
    assert not room.stdout


# the scanner itself, and what it sees of freed memory


def test_the_scanner_finds_every_form_of_a_planted_secret() -> None:
    for name, form in forms(SECRET).items():
        script = (
            "import sys; planted = sys.stdin.buffer.read(int(sys.argv[1])); print(flush=True); sys.stdin.read()"
        )
        planter = subprocess.Popen(
            [sys.executable, "-c", script, str(len(form))], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert planter.stdin
        assert planter.stdout
        try:
            planter.stdin.write(form)
            planter.stdin.flush()
            planter.stdout.readline()
            assert name in found_in(memory_of(planter.pid), SECRET)
        finally:
            planter.kill()
            planter.communicate()


@pytest.mark.parametrize("overwriting", [True, False])
def test_python_overwrites_what_it_frees_when_told_so(overwriting: bool) -> None:
    script = """
import sys
secret = sys.stdin.buffer.raw.read(32)
copies = [bytes.fromhex(secret.decode()) for _ in range(1000)]
del copies, secret
print(flush=True)
sys.stdin.buffer.raw.read(1)
"""
    kept = {name: text for name, text in os.environ.items() if name != "PYTHONMALLOC"}
    environment = kept | (enclosure.OVERWRITING if overwriting else {})
    careless = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )
    assert careless.stdin
    assert careless.stdout
    try:
        careless.stdin.write(DIGITS.encode())
        careless.stdin.flush()
        careless.stdout.readline()
        assert bool(found_in(memory_of(careless.pid), SECRET)) is not overwriting
    finally:
        careless.kill()
        careless.communicate()
