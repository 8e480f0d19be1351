"""An agent with a ledger to export, and what somebody who has the file can do to it."""

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from agent import ledger
from agent.crypto.ed25519 import PublicKey, SigningKey
from agent.evidence import checkpoints
from agent.evidence.audit import Audit
from agent.evidence.checkpoints import Place
from agent.evidence.exports import Wanted, export
from tests.test_checkpoints import Agent

Lines = list[bytes]
OTHER = SigningKey.generate()
COUNT = 120
ALL = Wanted()
MOMENT = ("at", "up", "boot", "version")
FIRST = COUNT // 3 + 1
"""The row of the first checkpoint; its line is one more."""
LAST = COUNT + 6


class Terminal(Agent):
    """An agent with some rows and three checkpoints among them."""

    def __init__(self, folder: Path, rows: int = COUNT) -> None:
        folder.mkdir(exist_ok=True)
        super().__init__(folder)
        for count in (rows // 3, rows // 3, rows - 2 * (rows // 3)):
            self.write(count)
            self.sign()
        self.write(3)

    def sign(self) -> None:
        self.notary.turn(self.look(), stopping=True)

    def lines(self, **asked: Any) -> Lines:
        pieces = self.notary.answers(asked, None)  # type: ignore[arg-type]  # nobody's rights are asked for
        return "".join(piece.get("text", "") for piece in pieces).encode().splitlines(keepends=True)

    def offline(self, rows: Wanted = ALL) -> Lines:
        with closing(self.store.reader()) as reader:
            pieces = list(export(reader, rows, "1", "", None))
        return "".join(piece.get("text", "") for piece in pieces).encode().splitlines(keepends=True)

    def keys(self) -> dict[str, PublicKey]:
        return {self.key().id: self.key()}


def audited(lines: Lines, keys: dict[str, PublicKey] | None = None, *, unsigned: bool = False) -> Audit:
    audit = Audit(keys or {}, unsigned)
    assert sum(audit.read(lines)) <= sum(map(len, lines))
    return audit


def parts(line: bytes) -> tuple[dict[str, Any], str]:
    row, _, digest = line.rstrip(b"\n").rpartition(b"\t")
    return json.loads(row), digest.decode()


def joined(row: dict[str, Any], digest: str) -> bytes:
    return ledger.canonical(row) + b"\t" + digest.encode() + b"\n"


def hashed_anew(lines: Lines) -> Lines:
    """The same with a chain that fits again, as whoever knows how it is made would do it."""
    digest = bytes.fromhex(json.loads(lines[0])["before"])
    new = [lines[0]]
    for line in lines[1:-1]:
        row = line.rpartition(b"\t")[0]
        digest = ledger.link(digest, row)
        new.append(row + b"\t" + digest.hex().encode() + b"\n")
    end = json.loads(lines[-1])
    end["end"]["hash"] = digest.hex()
    return [*new, ledger.canonical(end) + b"\n"]


def renumbered(lines: Lines) -> Lines:
    new = []
    for number, line in enumerate(lines[1:-1], json.loads(lines[0])["from"]):
        row, digest = parts(line)
        row["seq"] = number
        if row["kind"] == "checkpoint":
            row["covers"] = number - 1
        new.append(joined(row, digest))
    return [lines[0], *new, lines[-1]]


def edited(lines: Lines, at: int, **new: Any) -> Lines:
    """With line `at` (from 1; line n is row n - 1) changed."""
    row, digest = parts(lines[at - 1])
    return [*lines[: at - 1], joined(row | new, digest), *lines[at:]]


def about(lines: Lines, at: int, change: Callable[[dict[str, Any]], Any]) -> Lines:
    """With the head (at 0) or the end (at -1) changed."""
    content = json.loads(lines[at])
    change(content)
    lines = list(lines)
    lines[at] = ledger.canonical(content) + b"\n"
    return lines


def move(lines: Lines, source: int, target: int) -> Lines:
    rest = [*lines[: source - 1], *lines[source:]]
    return [*rest[: target - 1], lines[source - 1], *rest[target - 1 :]]


def forged(lines: Lines, at: int) -> Lines:
    """A checkpoint that is good but for its signature."""
    row, digest = parts(lines[at - 1])
    other = checkpoints.fields(Place("ATM-0001", "x", 1, "00" * 32), {**row, "version": "1"}, OTHER)["sig"]
    return hashed_anew([*lines[: at - 1], joined(row | {"sig": other}, digest), *lines[at:]])


def swapped(lines: Lines) -> Lines:
    """A whole chain, made anew and signed with a key of one's own."""
    head = json.loads(lines[0])
    head["key"] = OTHER.public.id
    digest = bytes.fromhex(head["before"])
    new: Lines = [ledger.canonical(head) + b"\n"]
    for line in lines[1:-1]:
        row, _ = parts(line)
        place = Place(head["terminal"], head["epoch"], row["seq"] - 1, digest.hex())
        if row["kind"] == "checkpoint":
            row = {"seq": row["seq"], **checkpoints.fields(place, {k: row[k] for k in MOMENT}, OTHER)}
        body = ledger.canonical(row)
        digest = ledger.link(digest, body)
        new.append(body + b"\t" + digest.hex().encode() + b"\n")
    moment = {**{k: parts(lines[1])[0].get(k, "1") for k in MOMENT}, "from": 1}
    place = Place(head["terminal"], head["epoch"], row["seq"], digest.hex())
    envelope = json.loads(checkpoints.envelope(place, moment).signed(OTHER).text)
    end = {"end": {"seq": row["seq"], "hash": digest.hex(), "envelope": envelope}}
    return [*new, ledger.canonical(end) + b"\n"]
