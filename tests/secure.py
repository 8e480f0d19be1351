"""The simulated secure device for tests: in this process, and in one of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hwsim.contract import Unreachable
from hwsim.secure_block import block_keys
from hwsim.secure_des import Cipher, check_value, xor
from hwsim.secure_device import NoPower, SecureDevice
from hwsim.secure_link import SecureLink, say
from hwsim.secure_requests import Desk

Json = dict[str, Any]
FILE: Json = json.loads((Path(__file__).parent / "vectors/crypto_vectors.json").read_text())
TWO = ("0452DDB661F7DCDC1046C2F044CAAAD5", "057198D1E85C1133EE9A7868329E98C5")
"""Components of the ANSI test key."""
ANSI, ANSI_KCV = "0123456789ABCDEFFEDCBA9876543210", "08D7B4"
TMK = {"slot": "TMK", "usage": "K0", "algorithm": "T", "mode": "D"}
KBPK = {"slot": "KBPK", "usage": "K1", "algorithm": "T", "mode": "D"}
BLOCK = "B0080P0TE00E000094B420079CC80BA3461F86FE26EFC4A3B8E4FA4C5F5341176EED7B727B8A248E"
BLOCK_KBPK, BLOCK_KEY, BLOCK_KCV = "DD7515F2BFC17F85CE48F3CA25CB21F6", "3F419E1CB7079442AA37474C2EFBF8B8", "57C409"
"""TR-31:2018 A.7.2.2."""


def vectors(category: str) -> list[Json]:
    return [vector for vector in FILE["vectors"] if vector["category"] == category]


def split(key: str) -> tuple[str, str]:
    """Two components of a key."""
    other = bytes.fromhex("A7") * (len(key) // 2)
    return other.hex().upper(), bytes(a ^ b for a, b in zip(bytes.fromhex(key), other, strict=True)).hex().upper()


def kcv(key: str) -> str:
    """The check value of a key or a component, given and told in hex."""
    return check_value("T", bytes.fromhex(key))


def xored(components: Sequence[str]) -> str:
    """The key that components make."""
    whole = 0
    for component in components:
        whole ^= int(component, 16)
    return f"{whole:0{len(components[0])}X}"


def wrapped(header: str, clear: bytes, kbpk: str) -> str:
    """A TR-31 block of version A or B as whoever has the protection key can make it: its MAC is always good.

    `clear` is what is encrypted: length in bits, key and padding. "????" in the header becomes the right length."""
    digits = 8 if header[0] == "A" else 16
    header = header.replace("????", f"{len(header) + 2 * len(clear) + digits:04d}")
    kbek, kbmk = block_keys(header[0], "T", bytes.fromhex(kbpk))
    cipher, head = Cipher("T", kbek), header.encode("latin-1")
    tag = head[:8] if header[0] == "A" else Cipher("T", kbmk).cmac(head + clear)
    sealed = [tag]
    for block in cipher.blocks(clear):
        sealed.append(cipher.encrypt(xor(block, sealed[-1])))
    payload = b"".join(sealed[1:])
    tag = Cipher("T", kbmk).cbc_mac(head + payload)[:4] if header[0] == "A" else tag
    return header + payload.hex().upper() + tag.hex().upper()


class Pad:
    """A device in this process, asked as a service provider and as hands would; `now` is its clock."""

    def __init__(self, serial: str = "2411-0001", **options: Any) -> None:
        self.device = SecureDevice(serial, **options)
        self.desk = Desk(self.device)
        self.now = 0.0

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.device.tick(self.now)

    def ask(self, do: str, **asked: Any) -> Json:
        """The answer of a request that is granted."""
        answer = self.desk.ask({"do": do, **asked})
        assert "ok" in answer, answer
        told: Json = answer["ok"]
        return told

    def refused(self, do: str, **asked: Any) -> str:
        """The word in which a request is refused."""
        answer = self.desk.ask({"do": do, **asked})
        assert set(answer) == {"refused", "why"}, answer
        return str(answer["refused"])

    def hands(self, **asked: Any) -> Json:
        told: Json = self.desk.touch(asked)["ok"]
        return told

    def typed(self, component: str, **asked: Any) -> Json:
        """A person types a component; what is known of it afterwards."""
        self.ask("begin", digits=len(component), **asked)
        self.hands(press=component)
        self.hands(key="enter")
        return self.ask("entry")

    def assembled(self, use: Json, components: tuple[str, ...] | list[str]) -> Json:
        """The answer of `complete`, whatever it is."""
        for component in components:
            self.typed(component, algorithm=use["algorithm"])
            self.ask("part", **use)
        return self.desk.ask({"do": "complete", **use})

    def __call__(self, path: str, request: Json) -> Json:
        """As `ask_epp` of a twin."""
        try:
            return self.desk.ask(request)
        except NoPower:
            raise Unreachable(path) from None


class Process:
    """`hwsim epp` in a process of its own, its sockets and slots in a folder. With `user` it becomes that number
    before it does anything, and only root can ask for that."""

    def __init__(self, folder: Path, *options: str, user: int | None = None) -> None:
        self.at, self.keypad, self.slots = folder / "device.sock", folder / "keypad.sock", folder / "slots.json"
        become = f"os.setgroups([]), os.setgid({user}), os.setuid({user}), " if user is not None else ""
        program = f"import os, hwsim.cli; {become}hwsim.cli.main()"
        words = ["epp", "--socket", str(self.at), "--keypad", str(self.keypad), *options]
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.first = self.process.stdout.readline()
        self.link = SecureLink()

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self, number: int = signal.SIGTERM) -> str:
        """Stop it, and return what it has printed."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=20)
        return self.first + out + err

    def ask(self, do: str, **asked: Any) -> Json:
        return self.link(str(self.at), {"do": do, **asked})

    def hands(self, **asked: Any) -> Json:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(5)
            line.connect(str(self.keypad))
            return say(line, asked)

    def assembled(self, use: Json, components: tuple[str, ...]) -> Json:
        for component in components:
            assert "ok" in self.ask("begin", digits=len(component))
            self.hands(press=component)
            self.hands(key="enter")
            assert "ok" in self.ask("part", **use)
        return self.ask("complete", **use)


def run_hwsim(*words: str | Path, typed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hwsim.cli", *map(str, words)],
        input=typed,
        capture_output=True,
        text=True,
        timeout=30,
        env=dict(os.environ),
    )
