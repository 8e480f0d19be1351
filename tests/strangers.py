"""This file knows how to start the programs that others wrote, and where they are."""

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.whole import free_port, wait

ROOT = Path(__file__).parent.parent
PEERS = ROOT / ".venv-peers/bin/python"
NPM_PEERS = ROOT / ".npm-peers/node_modules"
NUT = Path("/lib/nut")
SOFTHSM = Path("/usr/lib/softhsm/libsofthsm2.so")
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/local/sbin"
FAKETIME = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)
NATS = shutil.which("nats-server", path=PATH) or "nats-server"
PROGRAMS = {
    "mosquitto": [shutil.which("mosquitto", path=PATH)],
    "gcc": [shutil.which("cc", path=PATH)],
    "libc6-dev": ["stdio.h" if Path("/usr/include/stdio.h").exists() else None],
    "mosquitto-clients": [shutil.which("mosquitto_sub", path=PATH)],
    "nats-server": [shutil.which("nats-server", path=PATH)],
    "faketime": [str(FAKETIME) if FAKETIME else None],
    "openssl": [shutil.which("openssl", path=PATH)],
    "mbpoll": [shutil.which("mbpoll", path=PATH)],
    "nut-server": [
        str(NUT / name) if (NUT / name).exists() else None
        for name in ("blazer_ser", "nutdrv_qx", "dummy-ups", "upsd")
    ],
    "nut-client": [shutil.which("upsc", path=PATH), shutil.which("upscmd", path=PATH)],
    "softhsm2": [
        shutil.which("softhsm2-util", path=PATH),
        str(SOFTHSM) if SOFTHSM.exists() else None,
    ],
    "swtpm": [shutil.which("swtpm", path=PATH)],
    "tpm2-tools": [shutil.which("tpm2_unseal", path=PATH)],
    "systemd": [shutil.which("systemd-creds", path=PATH)],
    ".venv-peers": [str(PEERS) if PEERS.exists() else None],
    ".npm-peers": [
        shutil.which("node", path=PATH) if (NPM_PEERS / "encrypted-smiley-secure-protocol").exists() else None
    ],
}


def available(package: str) -> bool:
    """Whether every program that we use of a package is here."""
    return all(PROGRAMS[package])


def run_peer(script: str, *arguments: str) -> str:
    """Run a script with the libraries that others wrote, in their own environment; returns what it prints."""
    done = subprocess.run(
        [str(PEERS), "-c", script, *arguments], capture_output=True, text=True, check=False, timeout=60, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class Nut:
    """NUT's driver and server on one UPS port, configured below one folder (NUT 2.8: docs/man/ups.conf.txt)."""

    def __init__(self, folder: Path, driver: str, port: Path) -> None:
        self.port = free_port()
        self._folder, self._driver = folder, driver
        self._user = pwd.getpwuid(os.getuid()).pw_name
        self._environment = {**os.environ, "NUT_CONFPATH": str(folder), "NUT_STATEPATH": str(folder)}
        self._environment["NUT_ALTPIDPATH"] = str(folder)
        self._processes: list[subprocess.Popen[bytes]] = []
        more = {"nutdrv_qx": "    protocol = megatec\n", "dummy-ups": "    mode = dummy-loop\n"}.get(driver, "")
        files = {
            "ups.conf": f"[ups0]\n    driver = {driver}\n    port = {port}\n{more}    pollinterval = 1\n",
            "upsd.conf": f"LISTEN 127.0.0.1 {self.port}\n",
            "upsd.users": "[admin]\n    password = pw\n    actions = SET\n    instcmds = ALL\n",
        }
        for name, text in files.items():
            path = folder / name
            path.write_text(text)
            path.chmod(0o640)

    def start(self) -> None:
        log = (self._folder / "nut.log").open("ab")
        for command in (
            [str(NUT / self._driver), "-a", "ups0", "-u", self._user, "-D"],
            [str(NUT / "upsd"), "-u", self._user, "-D"],
        ):
            self._processes.append(subprocess.Popen(command, env=self._environment, stdout=log, stderr=log))
            if "upsd" not in command[0]:
                wait("NUT's driver", lambda: (self._folder / f"{self._driver}-ups0").exists())
        wait("upsd", lambda: self.get("ups.status") != "")

    def get(self, variable: str) -> str:
        """upsc's answer; empty while there is none."""
        done = subprocess.run(
            ["upsc", f"ups0@127.0.0.1:{self.port}", variable],
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    def command(self, name: str) -> str:
        """upscmd's answer."""
        target = f"ups0@127.0.0.1:{self.port}"
        done = subprocess.run(
            ["upscmd", "-u", "admin", "-p", "pw", target, name],
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )
        return done.stdout + done.stderr

    def logins(self) -> int:
        """How many clients upsd counts for whose shutdown it would wait."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10.0) as line:
            line.sendall(b"GET NUMLOGINS ups0\n")
            return int(line.makefile("rb").readline().split()[-1].strip(b'"'))

    def kill_driver(self) -> None:
        """The driver dies, upsd lives."""
        self._processes[0].kill()

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
            process.wait(10.0)


@contextmanager
def nut(folder: Path, driver: str, port: Path) -> Iterator[Nut]:
    """NUT with one driver, stopped whatever happens; its log is shown when the test fails."""
    folder.mkdir()
    stranger = Nut(folder, driver, port)
    try:
        stranger.start()
        yield stranger
    except BaseException:
        print((folder / "nut.log").read_text(errors="replace")[-3000:], file=sys.stderr)
        raise
    finally:
        stranger.stop()


class Chip:
    """swtpm, a TPM 2.0 in software; what it remembers lies below one folder and survives a restart.

    `tcti` names it to programs. The sockets have a folder with a short name: a path may have 107 bytes.
    """

    def __init__(self, folder: Path) -> None:
        self._state = folder
        self._sockets = tempfile.TemporaryDirectory()
        self.socket = Path(self._sockets.name) / "tpm"
        self.tcti = f"swtpm:path={self.socket}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._state.mkdir(exist_ok=True)
        sockets = ("--server", f"type=unixio,path={self.socket}", "--ctrl", f"type=unixio,path={self.socket}.ctrl")
        flags = ("--flags", "not-need-init,startup-clear")
        self._process = subprocess.Popen(
            ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self._state}", *sockets, *flags]
        )
        wait("swtpm", self.socket.exists)

    def stop(self) -> None:
        """As a power cut: nothing is said to it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10.0)
            self._process = None
            for name in self.socket.parent.iterdir():
                name.unlink()

    def tool(self, name: str, *arguments: str) -> str:
        """What a program of tpm2-tools prints about it."""
        command = [f"tpm2_{name}", "-T", self.tcti, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def chip(folder: Path) -> Iterator[Chip]:
    """A running TPM, stopped whatever happens."""
    stranger = Chip(folder)
    try:
        stranger.start()
        yield stranger
    finally:
        stranger.stop()
