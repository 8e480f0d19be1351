"""Exports of the ledger: anyone can read and recompute them, and whatever is wrong is named with its place."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent import ledger
from agent.crypto.ed25519 import PublicKey
from agent.disk.schema import transaction
from agent.errors import ControlError, StoreCorrupt
from agent.evidence.audit import MANY, Audit, parted
from agent.evidence.exports import Wanted, wanted
from agent.model import Batch
from agent.store import Reader
from tests.tampering import (
    COUNT,
    FIRST,
    LAST,
    Lines,
    Terminal,
    about,
    audited,
    edited,
    forged,
    hashed_anew,
    joined,
    move,
    parts,
    renumbered,
    swapped,
)
from tests.test_checkpoints import NOON, Agent, run


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    found = Terminal(tmp_path_factory.mktemp("terminal"))
    yield found
    found.store.close()


def test_a_whole_export_is_good_and_every_row_of_it_is_signed(terminal: Terminal) -> None:
    audit = audited(terminal.lines(), terminal.keys())
    assert (audit.findings, audit.notes) == ([], [])
    assert (audit.rows, audit.last, audit.covered) == (COUNT + 6, COUNT + 6, COUNT + 6)


def test_anyone_can_recompute_it_with_json_and_sha256(terminal: Terminal) -> None:
    head, *rows, end = terminal.lines()
    about = json.loads(head)
    digest = hashlib.sha256(f"tillwire/v1\0{about['terminal']}\0{about['epoch']}".encode()).digest()
    assert about["before"] == digest.hex()
    for line in rows:
        digest = hashlib.sha256(digest + line.split(b"\t")[0]).digest()
        assert line.rstrip(b"\n").endswith(digest.hex().encode())
    assert json.loads(end)["end"]["hash"] == digest.hex()


ATTACKS: dict[str, tuple[Callable[[Lines], Lines], list[str]]] = {
    "edited": (lambda f: edited(f, 8, n=99), ["row 7 (line 8) was changed"]),
    "edited twice": (
        lambda f: edited(edited(f, 8, n=99), 60, n=99),
        ["row 7 (line 8) was changed", "row 59 (line 60) was changed"],
    ),
    "edited and hashed anew": (
        lambda f: hashed_anew(edited(f, 60, n=99)),
        [f"row {2 * FIRST} (line {2 * FIRST + 1}) signs another hash", "a row from 41 to 81 was changed"],
    ),
    "the last row edited and hashed anew": (
        lambda f: hashed_anew(edited(f, LAST + 1, n=99)),
        [f"the signed end (line {LAST + 2}) is of another hash", f"to {LAST} was changed"],
    ),
    "deleted": (lambda f: [*f[:7], *f[8:]], ["row 7 is missing before line 8"]),
    "many deleted": (lambda f: [*f[:7], *f[20:]], ["rows 7 to 19 are missing before line 8"]),
    "deleted, renumbered and hashed anew": (
        lambda f: hashed_anew(renumbered([*f[:7], *f[8:]])),
        [f"row {FIRST - 1} (line {FIRST}) signs another hash"],
    ),
    "reordered": (lambda f: move(f, 8, 9), ["row 7 (line 9) is out of its place: it stands after row 8"]),
    "carried far": (lambda f: move(f, 8, 50), ["row 7 (line 50) is out of its place"]),
    "doubled": (lambda f: [*f[:8], f[7], *f[8:]], ["row 7 (line 9) stands there a second time"]),
    "its head cut off": (lambda f: [f[0], *f[5:]], ["rows 1 to 4 are missing before line 2"]),
    "its head cut off and line 1 corrected": (
        lambda f: about([f[0], *f[5:]], 0, lambda c: c.update({"from": 5, "before": parts(f[4])[1]})),
        ["line 1 says from 5"],
    ),
    "tail cut off": (lambda f: [*f[:100], f[-1]], [f"rows 100 to {LAST} are missing at the end"]),
    "tail and end cut off": (lambda f: f[:100], ["the tail was cut off after row 99"]),
    "cut in a line": (lambda f: [*f[:99], f[99][:40]], ["line 100 is cut off in its middle", "tail was cut off"]),
    "lengthened": (
        lambda f: hashed_anew([*f[:-1], joined(parts(f[-2])[0] | {"seq": LAST + 1}, "0" * 64), f[-1]]),
        [f"is of row {LAST}, and the file has rows up to {LAST + 1}"],
    ),
    "a row after the end": (lambda f: [*f, f[7]], [f"line {LAST + 3} stands after the end"]),
    "another terminal": (
        lambda f: about(f, 0, lambda c: c.update(terminal="ATM-0002")),
        ["line 1 was changed", "forged, or was changed", "line 1 says terminal ATM-0002"],
    ),
    "swapped key": (swapped, ["line 1 names another key", "is signed with another key", "the signed end"]),
    "forged checkpoint": (
        lambda f: forged(f, FIRST + 1),
        [f"row {FIRST} (line {FIRST + 1}), a checkpoint, is forged"],
    ),
    "a forged end": (
        lambda f: about(f, -1, lambda c: c["end"]["envelope"]["signatures"][0].update(sig="A" * 86 + "==")),
        ["the signed end", "is forged"],
    ),
    "rubbish": (lambda f: [*f[:5], b"rubbish\n", *f[5:]], ["line 6 is neither a row nor the end"]),
    "not an export": (lambda f: [b"{}\n"], ["line 1: this is no export"]),
    "empty": (lambda f: [], ["line 1: the file is empty"]),
    "re-dated": (lambda f: about(f, 0, lambda c: c.update(redated=True)), ["a re-dated copy"]),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_found_and_named_with_its_place(terminal: Terminal, name: str) -> None:
    attack, told = ATTACKS[name]
    findings = audited(attack(terminal.lines()), terminal.keys()).findings
    assert told[0] in findings[0]
    for sentence in told:
        assert any(sentence in finding for finding in findings), (sentence, findings)
    assert all("\n" not in finding and ("line " in finding or "row " in finding) for finding in findings)
    if "anew" not in name and "forged" not in name and "key" not in name and name != "another terminal":
        assert len(findings) == len(told), "one cause has one finding"


def test_without_the_key_only_the_chain_is_followed(terminal: Terminal) -> None:
    lines = terminal.lines()
    assert audited(lines).findings == []
    assert audited(lines).covered == 0
    assert audited(edited(lines, 8, n=99)).findings != []
    assert audited(swapped(lines)).findings == []


def test_without_the_agent_the_checkpoints_prove_what_is_before_them(terminal: Terminal) -> None:
    lines = terminal.offline()
    audit = audited(lines, terminal.keys(), unsigned=True)
    covered = COUNT + 2
    assert (audit.findings, audit.covered) == ([], covered)
    assert json.loads(lines[-1])["end"]["covered"] == covered
    assert f"no signature covers rows {covered + 1} to {LAST}" in " ".join(audit.notes)
    assert "cannot be told" in " ".join(audit.notes)
    changed = audited(hashed_anew(edited(lines, covered, n=99)), terminal.keys(), unsigned=True)
    assert "signs another hash" in changed.findings[0]
    bare = audited(terminal.offline(Wanted(2, 9)), terminal.keys(), unsigned=True)
    assert "nothing here is proven" in bare.findings[0]


def stripped(lines: Lines) -> Lines:
    """With an end as if nobody had signed it."""
    last, digest = parts(lines[-2])
    return [*lines[:-1], ledger.canonical({"end": {"seq": last["seq"], "hash": digest, "covered": 0}}) + b"\n"]


def test_who_takes_the_signature_away_is_not_told_that_all_is_good(terminal: Terminal) -> None:
    lines = terminal.lines()
    checkpoint = 2 * FIRST
    cut = stripped(lines[: checkpoint + 2])
    (finding,) = audited(cut, terminal.keys()).findings
    assert finding.startswith(f"the end (line {checkpoint + 2}) is not signed: whether there were rows after row")
    audit = audited(cut, terminal.keys(), unsigned=True)
    assert (audit.findings, audit.covered) == ([], checkpoint - 1)
    assert f"no signature covers row {checkpoint}: what is there may have been changed" in audit.notes
    assert audited(cut).findings == [], "without a key nothing is proven anyway"
    false = about(
        [lines[0], *cut[50:]], 0, lambda c: c.update(anchor=49, before=parts(lines[49])[1], **{"from": 50})
    )
    (note,) = [note for note in audited(false, terminal.keys(), unsigned=True).notes if "row 50" in note]
    assert "line 1 says, and nobody has signed it, that what was before it was pruned at the terminal" in note


def test_many_rows_out_of_their_places_do_not_take_long(terminal: Terminal) -> None:
    """Each is sought among all that are missing: 10,000 of them, not 10,000 times 10,000."""
    row = {"at": 1, "up": 1, "boot": "b", "kind": "account"}
    even = [joined({**row, "seq": seq}, "0" * 64) for seq in range(2, 20_002, 2)]
    odd = [joined({**row, "seq": seq}, "0" * 64) for seq in range(19_999, 0, -2)]
    audit = Audit({})
    looked: list[int] = []

    class Missing(list[tuple[int, int, int]]):
        def __getitem__(self, at: Any) -> Any:
            looked.append(1)
            return super().__getitem__(at)

        def __iter__(self) -> Iterator[tuple[int, int, int]]:
            for one in super().__iter__():
                looked.append(1)
                yield one

    audit._missing = Missing()
    assert sum(audit.read([terminal.lines()[0], *even, *odd])) > 0
    assert audit._missing == []
    assert len(looked) < 10_000 * 40


def test_what_was_changed_under_the_agent_it_does_not_sign(tmp_path: Path) -> None:
    """Rows after the last checkpoint, with all their hashes made anew: nothing but the agent's memory tells."""
    agent = Terminal(tmp_path)
    digest, rows = b"", []
    with closing(agent.store.reader()) as reader:
        digest, found = reader.hash_at(LAST - 3), reader.rows(LAST - 3, 3)
    for seq, body, _ in found:
        forged_row = ledger.canonical({**json.loads(body), "n": 99})
        digest = ledger.link(digest, forged_row)
        rows.append((forged_row, digest, seq))
    with transaction(agent.store._db) as db:
        db.executemany("UPDATE ledger SET row = ?, hash = ? WHERE seq = ?", rows)
    for asked in ({}, {"to": LAST - 1}):
        with pytest.raises(StoreCorrupt, match="was changed under the agent"):
            agent.lines(**asked)
    with pytest.raises(StoreCorrupt, match="was changed under the agent"):
        agent.write()
    agent.store.set_aside("changed")
    agent.store.close()


def test_an_export_while_rows_come_is_signed(tmp_path: Path) -> None:
    agent = Terminal(tmp_path)
    pieces = agent.notary.answers({"to": 50}, None)  # type: ignore[arg-type]
    text = next(pieces)["text"]
    agent.write(1200)
    text += "".join(piece.get("text", "") for piece in pieces)
    audit = audited(text.encode().splitlines(keepends=True), agent.keys())
    assert (audit.findings, audit.covered) == ([], 50)
    agent.store.close()


def test_a_row_that_is_no_text_any_more_is_named(tmp_path: Path) -> None:
    agent = Terminal(tmp_path, 30)
    with transaction(agent.store._db) as db:
        db.execute("UPDATE ledger SET row = CAST(x'ff' || substr(row, 2) AS BLOB) WHERE seq = 20")
    for asked in ({}, {"from_at": 1}):
        with pytest.raises(ControlError, match="row 20 is damaged"):
            agent.lines(**asked)
    assert audited(agent.lines(**{"from": 21}), agent.keys()).findings == []
    assert audited(agent.offline(Wanted(last=19)), agent.keys(), unsigned=True).findings == []
    agent.store.close()


def test_a_clock_that_was_set_back_and_that_no_row_tells_is_found(tmp_path: Path) -> None:
    agent = Agent(tmp_path)
    agent.write(5)
    for back, row in ((3600, {}), (7200, {"kind": "clock", "jump_ms": -7_200_000, "quality": "free"})):
        at = {"at": agent.look().wall_ms - back * 1000, "up": round(agent.now * 1000), "boot": "b1"}
        agent.store.commit(Batch(rows=[{**at, "kind": "account", **row}]))
    agent.notary.turn(agent.look(), stopping=True)
    pieces = agent.notary.answers({"to": 7}, None)  # type: ignore[arg-type]
    audit = audited(
        "".join(p.get("text", "") for p in pieces).encode().splitlines(True), {agent.key().id: agent.key()}
    )
    assert audit.findings == ["row 6 (line 7): the clock was set back by 3600 s, and no row says so"]
    assert audit.notes == ["row 7 (line 8): the clock was set back by 3600 s"]


def test_ranges_by_row_and_by_time(terminal: Terminal) -> None:
    lines = terminal.lines(**{"from": 30, "to": 60})
    assert [parts(line)[0]["seq"] for line in lines[1:-1]] == list(range(30, 61))
    audit = audited(lines, terminal.keys())
    assert (audit.findings, audit.covered) == ([], 60)
    assert audit.notes == ["the file begins with row 30: what was before it is not in this file"]
    first, last = (parts(terminal.lines()[at])[0]["at"] for at in (1, -2))
    assert len(terminal.lines(from_at=first, to_at=last)) == LAST + 2
    for nothing in ({"from": LAST + 1}, {"to_at": first - 1}, {"from_at": last + 1}, {"from": 9, "to": 8}):
        with pytest.raises(ControlError, match="no row is in that range"):
            terminal.lines(**nothing)
    with pytest.raises(ControlError, match="whole number"):
        wanted({"from": "1"})


def test_a_re_dated_copy_has_both_times_and_is_no_export(tmp_path: Path) -> None:
    agent = Terminal(tmp_path, 12)
    at = {"at": NOON * 2, "up": round(agent.now * 1000), "boot": "b1"}
    agent.store.commit(Batch(rows=[{**at, "kind": "clock", "quality": "synced", "jump_ms": NOON}]))
    head, first, *_ = map(json.loads, agent.lines(redated=True))
    assert (head["redated"], first["at"], first["at_said"]) == (True, NOON * 2, agent.look().wall_ms)
    assert "re-dated copy" in audited(agent.lines(redated=True)).findings[0]


def test_a_chain_that_begins_at_an_anchor(tmp_path: Path) -> None:
    """Its beginning was pruned; what is left is proven by the checkpoint after it."""
    agent = Terminal(tmp_path)
    path, anchor = agent.store.path, FIRST - 1
    with closing(agent.store.reader()) as reader:
        digest = reader.hash_at(anchor).hex()
    with transaction(agent.store._db) as db:
        db.execute("DELETE FROM ledger WHERE seq <= ?", (anchor,))
        db.executemany(
            "INSERT INTO meta VALUES (?, ?)", [("anchor_seq", anchor), ("anchor_hash", digest), ("acked", anchor)]
        )
    lines = agent.lines()
    audit = audited(lines, agent.keys())
    assert audit.findings == []
    assert audit.notes == [f"the file begins with row {anchor + 1}: what was before it was pruned at the terminal"]
    false = about(lines, 0, lambda c: c.update(before="00" * 32))
    assert f"row {FIRST} (line 2)" in audited(hashed_anew(false), agent.keys()).findings[0]
    with closing(Reader(path)) as reader:
        assert list(reader.verify())[-1].get("head") == LAST
    agent.store.close()
    agent.start()
    assert agent.store.found == "good"


def two_epochs(folder: Path, named: str) -> tuple[Lines, Lines, dict[str, PublicKey]]:
    """A terminal's exports before and after its store was set aside; `named`: what the new chain says of that."""
    agent = Terminal(folder)
    old, end = agent.lines(), f"{agent.store.epoch}/{agent.store.head}"
    agent.store.set_aside("damaged")
    row = {"at": agent.look().wall_ms, "up": round(agent.now * 1000), "boot": "b1", "kind": "store"}
    agent.store.commit(Batch(rows=[{**row, "event": "set aside", "previous": named.format(end=end)}]))
    agent.write(4)
    return old, agent.lines(), agent.keys()


@pytest.mark.parametrize(
    ("named", "why"),
    [
        ("{end}", ""),
        ("", "the epoch changes, and its first row names no older one"),
        ("0123456789abcdef/7", "the epoch changes, and its first row names 0123456789abcdef/7"),
    ],
)
def test_a_new_epoch_must_name_the_end_of_the_old_one(tmp_path: Path, named: str, why: str) -> None:
    old, new, keys = two_epochs(tmp_path, named)
    first, second = audited(old, keys), audited(new, keys)
    assert (first.findings, second.findings) == ([], [])
    found = parted(first, second)
    assert found.startswith(why) if why else found == ""


def test_exports_of_one_epoch_must_go_on_where_the_last_one_ended(terminal: Terminal) -> None:
    one, two, gap = (
        audited(terminal.lines(**asked), terminal.keys()) for asked in ({"to": 50}, {"from": 51}, {"from": 60})
    )
    assert parted(one, two) == ""
    assert "begins with row 60, and the file before it ends with row 50" in parted(one, gap)


def test_a_file_that_is_all_wrong_is_not_told_without_end(terminal: Terminal) -> None:
    head, *rows, end = terminal.lines()
    assert len(audited([head, *reversed(rows), end], terminal.keys()).findings) == MANY


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """Neither where it is written nor where it is checked."""
    peaks = []
    for rows in (3000, 30_000):
        agent = Terminal(tmp_path / str(rows), rows)
        out = tmp_path / f"{rows}.ledger"
        tracemalloc.start()
        with out.open("wb") as file:
            for piece in agent.notary.answers({}, None):  # type: ignore[arg-type]
                file.write(piece.get("text", "").encode())
        with out.open("rb") as file:
            audit = Audit(agent.keys())
            for _ in audit.read(file):
                pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert (audit.findings, audit.rows) == ([], rows + 6)
        agent.store.close()
    assert peaks[1] < peaks[0] * 1.5 + 200_000


def tillwire(*arguments: str | Path, home: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", "from agent.cli import main; main()", *map(str, arguments)]
    environment = {**os.environ, "TILLWIRE_SOCKET": str(home / "tw.sock"), "LANG": "C.UTF-8"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)


def test_from_the_terminal_to_a_laptop(tmp_path: Path) -> None:
    """The commands as people use them; the laptop has the file and the key, and no agent."""
    service, thread = run(tmp_path)
    key, out = tmp_path / "key.pem", tmp_path / "all.ledger"
    key.write_text(tillwire("ledger", "key", home=tmp_path).stdout)
    done = tillwire("ledger", "export", "--out", out, home=tmp_path)
    assert (done.returncode, out.stat().st_mode & 0o777) == (0, 0o600), done.stderr
    printed = tillwire("ledger", "export", "--from", "1", home=tmp_path).stdout
    assert printed.splitlines()[:-1] == out.read_text().splitlines()[:-1]
    assert tillwire("ledger", "export", "--from", "yesterday", home=tmp_path).returncode == 2
    tail = json.loads(tillwire("ledger", "tail", "--redated", "--json", home=tmp_path).stdout)
    assert all(entry["redated"] == entry["row"]["at"] for entry in tail["rows"])
    assert "re-dated" in tillwire("ledger", "show", "1", "--redated", home=tmp_path).stdout
    service.stop.set()
    thread.join(15.0)

    laptop = tmp_path / "laptop"
    laptop.mkdir()
    shutil.move(out, laptop / "all.ledger")
    file = laptop / "all.ledger"
    good = tillwire("ledger", "verify", file, "--key", key, home=laptop)
    assert (good.returncode, "signed up to row 2" in good.stdout) == (0, True), good.stdout + good.stderr
    chain = tillwire("ledger", "verify", file, home=laptop)
    assert (chain.returncode, "Without --key only the chain" in chain.stdout) == (0, True)
    file.write_text(file.read_text().replace('"level":"file"', '"level":"tpm2"'))
    broken = tillwire("ledger", "verify", file, "--key", key, "--json", home=laptop)
    assert broken.returncode == 1
    (finding,) = json.loads(broken.stdout)["files"][0]["findings"]
    assert finding.startswith("row 2 (line 3) was changed")
    for wrong in ((file, "--key", file), (laptop / "none",), (file, "--key", laptop / "none")):
        assert tillwire("ledger", "verify", *wrong, home=laptop).returncode == 2

    offline = tillwire("ledger", "export", "--store", tmp_path / "data", "--out", laptop / "late", home=laptop)
    assert "the end is not signed" in offline.stderr
    late = tillwire("ledger", "verify", laptop / "late", "--key", key, home=laptop)
    assert (late.returncode, "--unsigned" in late.stdout) == (1, True), late.stdout
    late = tillwire("ledger", "verify", laptop / "late", "--key", key, "--unsigned", home=laptop)
    assert (late.returncode, "signed up to row 3" in late.stdout) == (0, True), late.stdout
