"""The simulated secure device as a process of its own: sockets, keypad, slots, death, and that nothing leaks."""

import base64
import json
import os
import pty
import select
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hwsim.contract import Unreachable
from hwsim.secure_link import PATIENCE, SecureLink
from tests.secure import (
    ANSI,
    ANSI_KCV,
    BLOCK,
    BLOCK_KBPK,
    BLOCK_KCV,
    BLOCK_KEY,
    KBPK,
    TMK,
    TWO,
    Process,
    run_hwsim,
    split,
)
from tests.xfs_host import Host


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short: the path of a Unix socket has room for 107 characters."""
    with tempfile.TemporaryDirectory(prefix="pad") as name:
        yield Path(name)


def spellings(key: str) -> list[bytes]:
    """A key in every form in which it could stand somewhere."""
    raw = bytes.fromhex(key)
    odd = bytes(b & 0xFE | (1 - (b & 0xFE).bit_count() % 2) for b in raw)
    found: list[bytes] = []
    for value in (raw, odd):
        for text in (value.hex(), value.hex().upper()):
            found += [text.encode(), text.encode("utf-16-le"), base64.b64encode(text.encode())]
        found += [value, base64.b64encode(value), repr(value)[2:-1].encode()]
    return found


def holds(text: bytes, keys: tuple[str, ...]) -> list[str]:
    """Which keys stand in a text, in some form, by their first four digits."""
    return [key[:4] for key in keys if any(form in text for form in spellings(key))]


def test_a_person_types_at_the_pad_and_the_key_is_there(folder: Path) -> None:
    with Process(folder) as pad:
        assert pad.first == "READY 2411-0001\n"
        assert pad.ask("begin", digits=32) == {"ok": {}}
        done = run_hwsim("type", pad.keypad, typed=TWO[0] + "\n")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert pad.ask("entry")["ok"]["check_value"] == "4D8439"
        pad.ask("part", **TMK)
        pad.ask("begin", digits=32)
        run_hwsim("type", pad.keypad, typed=TWO[1] + "\n")
        pad.ask("part", **TMK)
        assert pad.ask("complete", **TMK)["ok"]["check_value"] == ANSI_KCV


def test_a_person_at_a_terminal_sees_how_many_digits_and_none_of_them(folder: Path) -> None:
    with Process(folder) as pad:
        pad.ask("begin", digits=32)
        master, slave = pty.openpty()
        command = [sys.executable, "-m", "hwsim.cli", "type", str(pad.keypad)]
        person = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        shown = b""

        def see(wanted: bytes) -> None:
            nonlocal shown
            end = time.monotonic() + 20
            while wanted not in shown and time.monotonic() < end:
                if select.select([master], [], [], 0.1)[0]:
                    shown += os.read(master, 4096)
            assert wanted in shown

        see(b"Type the digits")
        digits = "0452DDB661F7DCDC1046C2F044CAAAD"
        os.write(master, digits.encode() + b"7\x7f5")
        see(b"32 of 32 digits")
        os.write(master, b"\r")
        assert person.wait(20) == 0
        os.close(master)
        assert pad.ask("entry")["ok"]["check_value"] == "4D8439"
        text = shown.replace(b"32", b"").replace(b"31", b"")
        assert not any(digit in text for digit in (b"B", b"C", b"D", b"F")), shown


def test_sockets_are_for_user_and_group_and_go_with_the_process(folder: Path) -> None:
    with Process(folder) as pad:
        for path in (pad.at, pad.keypad):
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
        pad.end()
        assert not pad.at.exists()
        assert not pad.keypad.exists()


def test_the_device_side_takes_no_digit_and_the_keypad_side_gives_no_key(folder: Path) -> None:
    with Process(folder) as pad:
        pad.ask("begin", digits=32)
        assert pad.link(str(pad.at), {"press": TWO[0]})["refused"] == "invalidData"
        assert pad.ask("entry")["ok"]["entered"] == 0
        assert pad.hands(do="wipe")["refused"] == "invalidData"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_it_can_run_under_its_own_user(folder: Path) -> None:
    user = 65534
    folder.chmod(0o711)
    own = folder / "own"
    own.mkdir(mode=0o700)
    os.chown(own, user, user)
    with Process(own, "--slots", str(own / "slots.json"), user=user) as pad:
        assert pad.assembled(TMK, TWO)["ok"]["check_value"] == ANSI_KCV
        assert {path.stat().st_uid for path in (pad.at, pad.keypad, pad.slots)} == {user}
        status = Path(f"/proc/{pad.process.pid}/status").read_text()
        assert f"Uid:\t{user}\t{user}\t{user}\t{user}" in status


@pytest.mark.parametrize("death", [signal.SIGTERM, signal.SIGKILL])
def test_loaded_keys_outlive_the_process_and_half_a_key_does_not(folder: Path, death: int) -> None:
    slots = folder / "slots.json"
    with Process(folder, "--slots", str(slots), "--serial", "2411-0007") as pad:
        assert pad.assembled(KBPK, split(BLOCK_KBPK))["ok"]["loaded"]
        assert pad.ask("block", slot="TPK", under="KBPK", value=BLOCK)["ok"]["version"] == "00"
        pad.ask("begin", digits=32)
        pad.hands(press=TWO[0])
        pad.hands(key="enter")
        assert pad.ask("part", **TMK)["ok"]["parts"] == 1
        before = pad.ask("state")["ok"]
        pad.end(death)
    assert stat.S_IMODE(slots.stat().st_mode) == 0o600
    kept = json.loads(slots.read_text())
    assert "simulator" in kept["warning"]
    assert set(kept["slots"]) == {"KBPK", "TPK"}
    with Process(folder, "--slots", str(slots)) as pad:
        assert pad.first == "READY 2411-0007\n"
        del before["slots"]["TMK"]
        assert pad.ask("state")["ok"] == before
        assert pad.ask("complete", **TMK)["refused"] == "keyNoValue"
        pad.hands(act="tamper")
        assert pad.ask("state")["ok"]["slots"] == {}
        pad.end(signal.SIGKILL)
    assert json.loads(slots.read_text())["slots"] == {}


def test_a_slots_file_that_cannot_be_used_is_said_in_one_sentence_without_its_content(folder: Path) -> None:
    slots = folder / "slots.json"
    words: list[str | Path] = ["epp", "--socket", folder / "d", "--keypad", folder / "k", "--slots", slots]
    good = {"serial": "1", "slots": {"A": {"usage": "K0", "algorithm": "T", "mode": "D", "key": ANSI}}}
    for content, mode, told in (
        ("{", 0o600, "is no slots file"),
        ('{"serial": "1", "slots": {"A": {"key": "' + ANSI + 'Z"}}}', 0o600, "is no slots file"),
        (json.dumps(good), 0o600, "is no slots file"),
        (json.dumps(good), 0o644, "chmod 600"),
        (json.dumps(good | {"slots": {}}), 0o600, "holds the slots of 1"),
    ):
        slots.write_text(content)
        slots.chmod(mode)
        done = run_hwsim(*words, "--serial", "2")
        assert done.returncode != 0
        assert len(done.stderr.splitlines()) == 1
        assert told in done.stderr
        assert ANSI not in done.stdout + done.stderr


def test_two_processes_never_serve_one_socket_and_a_killed_one_is_followed(folder: Path) -> None:
    with Process(folder) as pad:
        words = ("epp", "--socket", pad.at, "--keypad", folder / "other")
        assert "another process serves" in run_hwsim(*words).stderr
        assert pad.ask("state")["ok"]["serial"] == "2411-0001"
        pad.end(signal.SIGKILL)
        assert pad.at.exists()
        with Process(folder, "--serial", "2411-0002") as next_one:
            assert next_one.ask("state")["ok"]["serial"] == "2411-0002"
    plain = folder / "plain"
    plain.write_text("keep me")
    assert "no socket" in run_hwsim("epp", "--socket", plain, "--keypad", folder / "k2").stderr
    assert plain.read_text() == "keep me"


def test_hands_at_the_pad(folder: Path) -> None:
    with Process(folder) as pad:
        assert "serial=2411-0001 power=true tampered=false typing=false" in run_hwsim("pad", pad.keypad).stdout
        assert pad.hands(act="cut")["ok"]["power"] is False
        with pytest.raises(Unreachable):
            pad.ask("state")
        pad.hands(act="restore")
        assert "serial=2411-0002" in run_hwsim("pad", pad.keypad, "swap", "2411-0002").stdout
        assert pad.ask("state")["ok"]["serial"] == "2411-0002"
        assert run_hwsim("pad", pad.keypad, "swap").returncode == 2
        assert "act is tamper" in run_hwsim("pad", pad.keypad, "kick").stderr
        pad.hands(act="cut_at", step="after wipe")
        with pytest.raises(Unreachable):
            pad.ask("wipe")
    assert "there is no keypad" in run_hwsim("pad", folder / "nothing").stderr


def test_a_device_that_hangs_is_waited_for_once_and_not_for_long(folder: Path) -> None:
    clock = [0.0]
    link = SecureLink(lambda: clock[0])
    with Process(folder) as pad:
        path = str(pad.at)
        link(path, {"do": "state"})
        os.kill(pad.process.pid, signal.SIGSTOP)
        begun = time.monotonic()
        for _ in range(50):
            with pytest.raises(Unreachable):
                link(path, {"do": "state"})
        assert time.monotonic() - begun < 4 * PATIENCE
        os.kill(pad.process.pid, signal.SIGCONT)
        clock[0] += 2.1
        assert link(path, {"do": "state"})["ok"]["serial"] == "2411-0001"


def test_nonsense_on_a_socket_ends_that_connection_only(folder: Path) -> None:
    with Process(folder) as pad:
        for junk in (
            b"\n",
            b"[]\n",
            b"nonsense\n",
            b'"x"\n',
            b"\xff\xfe\n",
            b"[" * 60_000 + b"\n",
            b"x" * 200_000,
        ):
            for path in (pad.at, pad.keypad):
                with socket.socket(socket.AF_UNIX) as line:
                    line.settimeout(5)
                    line.connect(str(path))
                    try:
                        line.sendall(junk)
                        line.shutdown(socket.SHUT_WR)
                        assert line.recv(100) == b""
                    except (BrokenPipeError, ConnectionResetError):
                        pass
        assert pad.ask("state")["ok"]["slots"] == {}
        assert pad.end() == "READY 2411-0001\n", "and says nothing of it"


def ceremony(host: Host, pad: Process, wire: list[bytes]) -> None:
    """Load a protection key at the pad and a key block over XFS4IoT, and look at them in every way there is."""
    active: dict[str, Any] = {key: {} for key in ("zero", "one", "two", "three", "four", "five", "six", "seven")}
    active |= {key: {} for key in ("eight", "nine", *"abcdef")} | {"enter": {"terminate": True}}
    channel = host.open("SimEncryptor")
    attributes = {"keyUsage": "K1", "algorithm": "T", "modeOfUse": "D"}
    for component in split(BLOCK_KBPK):
        entry = {"keyLen": 32, "autoEnd": False, "activeKeys": active, "verificationType": "zero"}
        wire.append(json.dumps(host.ask(channel, "Keyboard.SecureKeyEntry", entry, version="2.1")).encode())
        for digit in component:
            pad.hands(press=digit)
        pad.hands(key="enter")
        wire.append(json.dumps(host.wait(0.2)).encode())
        part = {"key": "KBPK", "keyAttributes": attributes, "constructing": True}
        wire.append(json.dumps(host.ask(channel, "KeyManagement.ImportKey", part, version="3.0")).encode())
    whole = {"key": "KBPK", "keyAttributes": attributes, "constructing": False}
    block = {"key": "TPK", "decryptKey": "KBPK", "value": base64.b64encode(BLOCK.encode()).decode()}
    for command, payload, version in (
        ("KeyManagement.ImportKey", whole, "3.0"),
        ("KeyManagement.ImportKey", block, "3.0"),
        ("KeyManagement.ImportKey", block | {"value": block["value"][:-8]}, "3.0"),
        ("KeyManagement.GenerateKCV", {"key": "TPK", "keyCheckMode": "zero"}, "2.0"),
        ("KeyManagement.GenerateKCV", {"key": "TPK", "keyCheckMode": "self"}, "2.0"),
        ("KeyManagement.GetKeyDetail", None, "2.0"),
        ("Common.Status", None, "2.0"),
        ("Common.Capabilities", None, "2.0"),
    ):
        wire.append(json.dumps(host.ask(channel, command, payload, version=version)).encode())


def test_no_key_and_no_component_leaves_the_device(folder: Path) -> None:
    keys = (*split(BLOCK_KBPK), BLOCK_KBPK, BLOCK_KEY)
    wire: list[bytes] = []
    with Process(folder) as pad:
        host = Host()

        def overheard(path: str, request: dict[str, Any]) -> dict[str, Any]:
            answer = pad.link(path, request)
            wire.append(json.dumps([request, answer]).encode())
            return answer

        host.twin.ask_epp = overheard
        host.set(epp=str(pad.at))
        ceremony(host, pad, wire)
        said = b"\n".join(wire)
        assert base64.b64encode(bytes.fromhex(BLOCK_KCV)) in said, "the ceremony did end"
        assert said.count(b'"name": "Keyboard.KeyEvent"') == 66
        hands = json.dumps([pad.hands(look=True), pad.hands(press="12"), pad.hands(key="clear")]).encode()
        process = Path(f"/proc/{pad.process.pid}")
        around = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        assert not holds(said + hands + around, keys)
        assert not holds(repr(host.twin.__dict__).encode() + repr(host.heard).encode(), keys)
        limits = (process / "limits").read_text()
        assert next(line.split()[4] for line in limits.splitlines() if line.startswith("Max core")) == "0"
        assert not holds(pad.end(signal.SIGTERM).encode(), keys)
    assert not [path for path in folder.rglob("*") if path.is_file()]


def test_the_search_for_a_leak_finds_one_in_every_form() -> None:
    for form in spellings(ANSI):
        assert holds(b"before" + form + b"after", (ANSI,)) == [ANSI[:4]]
    assert not holds(b"nothing", (ANSI,))


def test_nothing_shows_a_key_when_it_is_printed() -> None:
    from hwsim.secure_block import open_block
    from tests.secure import Pad

    pad = Pad()
    pad.typed(TWO[0])
    shown = repr(pad.device.entry)
    pad.ask("part", **TMK)
    shown += repr(pad.device.slots) + repr(pad.device) + repr(pad.desk)
    shown += repr(open_block(BLOCK, "T", bytes.fromhex(BLOCK_KBPK)))
    pad.ask("begin", digits=32)
    pad.hands(press=TWO[1])
    shown += repr(pad.device.entry)
    assert not holds(shown.encode(), (*TWO, ANSI, BLOCK_KEY))
