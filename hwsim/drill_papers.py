"""This file knows what the key room would send for a training drill: test keys, their papers, and orders for them.

Every key is a published test key, parted anew for each drill into two random components of full length (XOR). It
protects nothing, and the simulated pad takes no other. An order is signed by deploy/drill/sign_orders.py, a process
of its own, because nothing here may sign; order and papers lie in the folder only from when they are needed.
"""

import json
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hwsim.secure_des import check_value, xor
from hwsim.secure_entry import HEX

PUBLISHED = (
    "0123456789ABCDEFFEDCBA9876543210",
    "3F419E1CB7079442AA37474C2EFBF8B8",
    "1D22BF32387C600AD97F9B97A51311AC",
    "CA5D92598DCA48CE8A4C76361A9269E9",
    "5DB50B454F8389ADCE573BE50861F2BF",
    "EDB380DD340BC2620247D445F5B8D678",
)
"""Test keys of standards and test suites (tests/vectors/crypto_vectors.json); one for each order to load."""
SPARES = 2
"""Orders to destroy each of them: one may be used up by a mistake."""
DAY_MS = 86_400_000
GROUPS = ("managers", "technicians")
PAPER = """\
TRAINING ONLY: a published test key, it protects nothing.   仅供培训：公开测试密钥，不具任何保护作用。

  envelope 信封      {envelope}
  order 指令         {order}
  component 分量     {number} of 2, for the group {group}
  check value 校验值 {kcv}

      {groups}

Type it at the pad only: terminal C, `hwsim type keypad.sock`. Nobody else looks.
只在密码键盘上录入：终端C，hwsim type keypad.sock。他人回避。
"""
EXERCISE = """
EXERCISE 练习: the first time, begin with {wrong} instead of {right}; all other digits as above.
               第一次录入时，首位故意输入 {wrong} 代替 {right}，其余数字照上。
"""


@dataclass
class Paper:
    """An order with its papers. components: of an order to load, in the order of its envelopes."""

    order: str
    document: dict[str, Any]
    components: tuple[str, ...] = field(default=(), repr=False)
    signed: str = field(default="", repr=False)

    @property
    def envelopes(self) -> list[str]:
        return [part["envelope"] for part in self.document.get("parts", [])]

    def names(self) -> dict[str, str]:
        """What a story's braces may stand for."""
        one, two = self.envelopes or ("", "")
        return {"order": self.order, "kcv": self.document["kcv"], "one": one, "two": two}

    def deliver(self, folder: Path, *, exercise: bool) -> None:
        """Put the order and its papers into the run folder, the papers for their owner alone to read."""
        (folder / f"{self.order}.order").write_text(self.signed, encoding="utf-8")
        for number, (part, component) in enumerate(
            zip(self.document.get("parts", []), self.components, strict=True), 1
        ):
            told = part | {"order": self.order, "number": number, "groups": grouped(component)}
            text = PAPER.format(**told)
            if exercise and number == 1:
                text += EXERCISE.format(wrong=mistyped(component)[0], right=component[0])
            path = self.path(folder, part["envelope"])
            path.parent.mkdir(mode=0o700, exist_ok=True)
            path.touch(mode=0o600)
            path.write_text(text, encoding="utf-8")

    def left(self, folder: Path) -> list[Path]:
        """The papers that are still there."""
        return [path for name in self.envelopes if (path := self.path(folder, name)).exists()]

    @staticmethod
    def path(folder: Path, envelope: str) -> Path:
        return folder / "paper" / f"{envelope}.txt"


def mistyped(component: str) -> str:
    """A component with another first digit. It has no parity bit in it, so the check value differs."""
    return HEX[(HEX.index(component[0]) + 1) % 16] + component[1:]


def grouped(component: str) -> str:
    """A component as a paper shows it."""
    return " ".join(component[at : at + 4] for at in range(0, len(component), 4))


def make(
    terminal: str, serial: str, scenes: Path, signers: Path
) -> tuple[Iterator[Paper], dict[str, Iterator[Paper]]]:
    """All orders that a drill may need, signed: those to load, and by check value those to destroy what they load.

    signers: the file that is written for the agent. Raises OSError and subprocess.CalledProcessError.
    """
    now = time.time_ns() // 1_000_000
    every = {"format": "tillwire-key-order/1", "terminal": terminal, "epp_serial": serial, "slot": "TMK"}
    every |= {"hierarchy": "test", "not_before": now, "not_after": now + DAY_MS}  # type: ignore[dict-item]
    loads = [_to_load(number, key, every) for number, key in enumerate(PUBLISHED, 1)]
    ends = [
        Paper(name, {**every, "id": name, "kind": "destroy", "kcv": paper.document["kcv"]})
        for number, paper in enumerate(loads, 1)
        for name in [f"KO-DESTROY-{number}{'ABC'[spare]}" for spare in range(SPARES)]
    ]
    papers = [*loads, *ends]
    done = subprocess.run(
        [sys.executable, str(scenes / "sign_orders.py"), str(signers)],
        input=json.dumps([paper.document for paper in papers]),
        capture_output=True,
        text=True,
        check=True,
    )
    for paper, signed in zip(papers, json.loads(done.stdout), strict=True):
        paper.signed = signed
    by_key = {
        paper.document["kcv"]: [e for e in ends if e.document["kcv"] == paper.document["kcv"]] for paper in loads
    }
    return iter(loads), {kcv: iter(found) for kcv, found in by_key.items()}


def _to_load(number: int, key: str, every: dict[str, Any]) -> Paper:
    name, whole = f"KO-DRILL-{number}", bytes.fromhex(key)
    one = secrets.token_bytes(len(whole))
    components = tuple(part.hex().upper() for part in (one, xor(whole, one)))
    parts = [
        {"envelope": f"ENV-{number}{letter}", "kcv": _kcv(component), "group": group}
        for letter, component, group in zip("AB", components, GROUPS, strict=True)
    ]
    use = {"method": "components", "usage": "K0", "algorithm": "T", "mode": "D", "exportability": "N"}
    about = {"id": name, "kind": "load", "kcv": _kcv(key), "digits": len(key), "version": number, "parts": parts}
    return Paper(name, {**every, **use, **about}, components)


def _kcv(key: str) -> str:
    return check_value("T", bytes.fromhex(key))
