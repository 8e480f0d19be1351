"""This file knows what must be true of a folder after a power cut, given what was promised before it.

The agent's own code opens each image. What it finds must be whole, and hold all that was accepted; the commit that
was under way may be there as a whole, or not at all.
"""

import json
import shutil
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.crypto import keepers
from agent.crypto.sealing import SecretStore
from agent.errors import SealRefused
from agent.ledger import Row
from agent.model import StoredPoint
from agent.people.accounts import Accounts
from agent.pushing.shelf import REJECTED, Shelf
from agent.store import FILE, KEPT, Reader, Store
from tests.powercut.cuts import Image
from tests.powercut.disk import Tree
from tests.powercut.lives import DATA, PROMISE, PUSHES, TERMINAL, batch, commit_unmarked, digest, envelope


class Lost(AssertionError):
    """The image breaks a promise."""


@dataclass(frozen=True, slots=True)
class Promises:
    """What the marks of a recording add up to."""

    epoch: str = ""
    """The newest chain that anybody was told of; empty before the first start was done."""
    head: int = 0
    hash: str = ""
    damaged: str = ""
    """epoch/head of the store that is (to be) set aside."""
    is_anew: bool = True
    """Whether that was done."""


def promises(marks: Iterable[str]) -> Promises:
    epoch, head, digest, damaged, is_anew = "", 0, "", "", True
    for text in marks:
        told = json.loads(text)
        if told["event"] == "damaged":
            damaged, is_anew = f"{told['epoch']}/{told['head']}", False
        elif told["event"] in ("opened", "anew", "accepted"):
            if told["event"] == "opened" and damaged.startswith(told["epoch"]):
                damaged = ""  # the damage itself was not synced before the cut
            if told["epoch"] != epoch:
                epoch, head, digest = told["epoch"], 0, ""
            is_anew = is_anew or told["event"] != "accepted"
            head, digest = told.get("head", head), told.get("hash", digest)
    return Promises(epoch, head, digest, damaged, is_anew)


def lay(tree: Tree, root: Path) -> None:
    """Put an image on the real disk, in place of what is there."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for path, data in sorted(tree.items()):
        if data is None:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(data)
            (root / path).chmod(0o600)


def judge_store(image: Image, root: Path, *, go_on: bool = False, ours: bool = True) -> None:
    """Open the store of an image. Raises Lost, or whatever Store raises.

    go_on: also commit to it and start again. ours: its rows are those of lives.batch, so that they tell its points.
    """
    lay(image.tree, root)
    told = promises(image.marks)
    store = Store(root / DATA, TERMINAL)
    try:
        _check(store, told, ours)
        if go_on:
            before = store.head
            commit_unmarked(store, 3)
            store.close()
            store = Store(root / DATA, TERMINAL)
            if store.found != "good" or store.head <= before:
                raise Lost(f"after a new start: {store.found}, {store.head}")
            _whole(store.reader())
    finally:
        store.close()


def _check(store: Store, told: Promises, ours: bool) -> None:
    reader = store.reader()
    rows = _whole(reader)
    if ours:
        _agree(rows, reader)
    reader.close()
    first = rows[0] if rows else {"found": store.found, "previous": store.previous}
    if told.epoch and store.epoch != told.epoch:
        if told.is_anew:
            raise Lost(f"{store.epoch} is not the chain {told.epoch}: {store.found}")
        _evidence(store, told, first)
        return
    if not told.epoch and rows:
        raise Lost("rows out of nowhere")
    if "set aside" in store.found and (rows or not told.damaged):
        raise Lost(store.found)
    if store.head < told.head:
        raise Lost(f"accepted: {told.head} rows, there: {store.head}")
    if told.hash and store.reader().hash_at(told.head).hex() != told.hash:
        raise Lost("the rows are not those that were accepted")
    if store.acked > store.head:
        raise Lost(f"the cursor is at {store.acked}, behind the head {store.head}")
    if told.damaged and told.is_anew:
        _evidence(store, told, first)


def _evidence(store: Store, told: Promises, first: Row) -> None:
    """The chain says what it follows, and that lies beside it, whole."""
    if first.get("previous") != told.damaged or "set aside" not in json.dumps(first):
        raise Lost(f"it follows {told.damaged}, but says {first}")
    folder = store.path.parent
    aside = list(folder.glob(f"{FILE}.aside-*-{told.damaged.replace('/', '-')}"))
    if not aside:
        raise Lost("nothing was set aside")
    if list(folder.glob("*.aside-*-journal")):
        raise Lost("a file of the new store lies with the old one")
    copy = folder / "copy"
    for suffix in ("", "-wal"):
        if (part := aside[-1].with_name(aside[-1].name + suffix)).exists():
            shutil.copy(part, copy.with_name(copy.name + suffix))
    with sqlite3.connect(copy) as db:
        found = db.execute("SELECT max(seq) FROM ledger").fetchone()[0]
        kept = [json.loads(row) for (row,) in db.execute("SELECT row FROM kept ORDER BY seq")]
    db.close()
    if store.reader().kept()[: len(kept)] != kept:
        raise Lost("rows of ceremonies were not carried over")
    if found != int(told.damaged.partition("/")[2]):
        raise Lost(f"of {told.damaged} only {found} rows were set aside")


def _whole(reader: Reader) -> list[Row]:
    """All rows. Raises Lost unless the chain is whole."""
    verdict = list(reader.verify())[-1]
    if "broken" in verdict:
        raise Lost(verdict["why"])
    return [json.loads(row) for _, row, _ in reader.rows(0, 1_000_000)]


def _agree(rows: list[Row], reader: Reader) -> None:
    """Raises Lost unless the points, faults and kept rows are those of the last row's commit, and that is whole."""
    points: dict[str, StoredPoint] = {}
    faults: dict[str, Any] = {}
    head = 0
    while head < len(rows):
        whole = batch(head)
        if [row["n"] for row in rows[head : head + len(whole.rows)]] != [head] * len(whole.rows):
            raise Lost(f"the commit after row {head} is there in part")
        points |= {point.point: point for point in whole.points}
        faults |= {f"{fault.point}/{fault.code}": fault for fault in whole.raised}
        for fault in whole.cleared:
            faults.pop(f"{fault.point}/{fault.code}", None)
        head += len(whole.rows)
    if {p.point: (p.value, p.at) for p in reader.points()} != {n: (p.value, p.at) for n, p in points.items()}:
        raise Lost("the points are of another commit than the rows")
    if {f"{f.point}/{f.code}": f for f in reader.faults()} != faults:
        raise Lost("the faults are of another commit than the rows")
    own, kept = [row for row in rows if row["kind"] in KEPT], reader.kept()
    if kept[len(kept) - len(own) :] != own:
        raise Lost("the kept rows are of another commit than the rows")


def judge_accounts(image: Image, root: Path) -> None:
    """The people are those of the last change, or of the one under way. Raises Lost, or what Accounts raises."""
    lay(image.tree, root)
    told = [json.loads(mark)["names"] for mark in image.marks]
    found = Accounts(root / DATA / "accounts.json", lambda: 0).names()
    if told and not _one_change(told[-1], found):
        raise Lost(f"people: {told[-1]}, found: {found}")


def _one_change(before: list[str], after: list[str]) -> bool:
    return len(set(before) ^ set(after)) <= 1


def judge_secrets(image: Image, root: Path) -> None:
    """Every secret that was put is there. Raises Lost, or what SecretStore raises."""
    lay(image.tree, root)
    machine = keepers.Machine(root / DATA / "seal.salt", root / "machine-id")
    try:
        store = SecretStore.open(root / DATA / "secrets", TERMINAL, [machine])
    except SealRefused as error:
        if error.reason == "missing" and not image.marks:
            return
        raise
    told = json.loads(image.marks[-1])["count"] if image.marks else 0
    if not told <= len(store.names()) <= told + 1:
        raise Lost(f"{told} secrets were put, found: {store.names()}")
    for number, name in enumerate(store.names()):
        if bytes(store.get(name).reveal()) != bytes([number]) * 40:
            raise Lost(f"{name} is another")


def judge_pushes(image: Image, root: Path, *, go_on: bool = False) -> None:
    """What is in force is what was decided, or one of two while that was being decided; what was on probation is
    not, and is evidence; no command runs twice. Raises Lost, or what Shelf raises.

    go_on: also start again, and push again.
    """
    lay(image.tree, root)
    told = json.loads(image.marks[-1]) if image.marks else PROMISE
    shelf = Shelf(root / PUSHES)
    found = shelf.recover(_is_ours)
    if found.troubles:
        raise Lost(f"damaged by a power cut: {found.troubles}")
    counts, before = (kept.version if kept else 0 for kept in (found.in_force, shelf.before()))
    if [counts, before] not in told["may"]:
        raise Lost(f"in force is {counts}, behind it {before}, and that is not of {told['may']}")
    last = found.last
    if last.outcome and (last.outcome == "committed") != (last.version == counts):
        raise Lost(f"{last.version} is {last.outcome}, but in force is {counts}")
    if found.in_force and not _is_ours(found.in_force.envelope):
        raise Lost("in force is something else")
    if tried := told["tried"]:
        _is_rolled_back(shelf, tried, root / PUSHES / REJECTED)
    if again := [id for id in told["begun"] if shelf.memory.begun(id, 1, 1000 + int(id[1:]), 0)]:
        raise Lost(f"would run again: {again}")
    if shelf.memory.trust() not in told["trust"]:
        raise Lost(f"the chain of trust is {shelf.memory.trust()}")
    if (shelf.memory.frozen(4999) is not None) not in told["frozen"]:
        raise Lost(f"the freeze is {shelf.memory.frozen(4999)}")
    if go_on:
        _goes_on(shelf, counts, root)


def _is_rolled_back(shelf: Shelf, version: int, evidence: Path) -> None:
    decision = shelf.memory.known(digest(version))
    if decision is None or decision.outcome != "rolled_back":
        raise Lost(f"{version} was on probation and would be tried again")
    if not (evidence / f"{version}-{digest(version)[:12]}.json").exists():
        raise Lost(f"of {version} there is no evidence")


def _goes_on(shelf: Shelf, counts: int, root: Path) -> None:
    """A start after this one finds the same, and the next push finds its way."""
    again = Shelf(root / PUSHES).recover(_is_ours)
    if (again.in_force.version if again.in_force else 0) != counts or again.troubles:
        raise Lost(f"another start finds {again}")
    shelf.stage(envelope(9).text, 9, digest(9))
    shelf.step("applying")
    shelf.step("probation")
    shelf.commit()
    last = Shelf(root / PUSHES).recover(_is_ours)
    if last.in_force is None or last.in_force.version != 9:
        raise Lost("the next push is not in force")


def _is_ours(text: bytes) -> bool:
    return any(text == envelope(version).text for version in range(1, 10))
