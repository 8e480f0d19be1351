"""This file knows whether exports of a ledger are whole, and names what is not, with the row and the line.

It reads files as agent/evidence/exports.py writes them, a line at a time, and needs SHA-256 and the agent's public
key: no store, no agent, no network. A finding is one sentence. Where a row and its hash do not fit, that row was
changed; whoever also made all hashes anew is found by the next checkpoint, and then only the rows between two
checkpoints can be named. After a finding the hashes count as they are written, so that the next one is found as
well.

Several files are one history, oldest first: each goes on where the one before it ended, or begins a new epoch whose
first row of kind `start` or `store` names the end of the old one.
"""

import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from agent import ledger
from agent.clock import Trail
from agent.crypto.ed25519 import PublicKey
from agent.crypto.signing import Envelope
from agent.errors import EnvelopeRefused
from agent.evidence import checkpoints

MANY = 50
"""Findings of one file that are told: the first ones say what there is to say."""
_HEAD = {"terminal": str, "epoch": str, "from": int, "before": str, "key": str, "anchor": int}
_ROW = {"seq": int, "at": int, "up": int, "boot": str, "kind": str}

Content = dict[str, Any]


@dataclass(slots=True)
class Audit:
    """One file, line by line.

    keys       {key id: key} of the agent; empty: only the chain is followed
    unsigned   the end need not be signed: the file is known to come from an agent that did not run

    findings   what is broken, one sentence each; empty: nothing is
    notes      what is not broken, and must be known
    covered    the last row that a signature covers, 0 when none does
    previous   the end of an older epoch that this one names, "epoch/row"; None: no row said anything of that
    """

    keys: Mapping[str, PublicKey]
    unsigned: bool = False
    findings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    head: Content = field(default_factory=dict)
    rows: int = 0
    last: int = 0
    hash: str = ""
    covered: int = 0
    previous: str | None = None
    _line: int = 0
    _end: Content = field(default_factory=dict)
    _sure: bool = False
    """Whether `hash` is the hash before the next row: not after rows that are missing."""
    _missing: list[tuple[int, int, int]] = field(default_factory=list)
    """(first, last, line before which they should stand)."""
    _trail: Trail = field(default_factory=Trail)

    def read(self, lines: Iterable[bytes]) -> Iterable[int]:
        """Follow all lines, with their line ends; gives each one's length once it is done with."""
        for text in lines:
            self._line += 1
            self._take(text)
            yield len(text)
            if not self.head:
                return
        for first, last, line in self._missing:
            self._find(f"{_are(first, last)} missing before line {line}: deleted")
        if self.head:
            self._finish()
        elif not self.findings:
            self._find("line 1: the file is empty")

    def _take(self, text: bytes) -> None:
        body = text.removesuffix(b"\n")
        row, _, stored = body.rpartition(b"\t")
        if self._line == 1:
            self._begin(_object(body))
        elif self._end:
            self._find(f"line {self._line} stands after the end of the export")
        elif body == text:
            self._find(f"line {self._line} is cut off in its middle")
        elif row:
            self._row(row, stored)
        elif not (end := _object(body).get("end")) or not isinstance(end, dict):
            self._find(f"line {self._line} is neither a row nor the end of an export")
        else:
            self._end = end

    def _begin(self, head: Content) -> None:
        if head.get("redated"):
            self._find("line 1: this is a re-dated copy for reading; give the export made without --redated")
        elif head.get("ledger") != 1 or not _shaped(head, _HEAD):
            self._find("line 1: this is no export as `tillwire ledger export` writes it")
        else:
            self.head, self.hash, self.last, self._sure = head, head["before"], head["from"] - 1, True
            origin = ledger.genesis(head["terminal"], head["epoch"]).hex()
            if head["from"] == 1 and head["before"] != origin:
                self._find("line 1 was changed: the chain of this terminal and epoch does not begin with that hash")
            if self.keys and head["key"] and head["key"] not in self.keys:
                self._find(f"line 1 names another key, {head['key']}: not the one that was given")

    def _row(self, body: bytes, stored: bytes) -> None:
        row, digest = _object(body), stored.decode("latin-1")
        if not _shaped(row, _ROW) or len(digest) != 64:
            self._find(f"line {self._line} is not a row of a ledger")
            self._sure = False
            return
        place = f"row {row['seq']} (line {self._line})"
        if not self._follows(row["seq"], place):
            return
        if self._sure and _link(self.hash, body) != digest:
            self._find(f"{place} was changed: it does not fit its hash")
        if row["kind"] == checkpoints.KIND:
            self._checkpoint(row, place)
        self._clock(row, place)
        if self.previous is None and row["kind"] in ("start", "store"):
            self.previous = str(row.get("previous", ""))
        self.hash, self.last, self.rows, self._sure = digest, row["seq"], self.rows + 1, True

    def _follows(self, seq: int, place: str) -> bool:
        """Whether a row is news. What is left out before it is missing, unless it comes later."""
        if seq > self.last:
            if seq > self.last + 1:
                self._missing.append((self.last + 1, seq - 1, self._line))
                self._sure = False
            return True
        index = bisect_right(self._missing, seq, key=itemgetter(0)) - 1  # they stay in order
        if index >= 0 and seq <= self._missing[index][1]:
            first, last, line = self._missing[index]
            rest = ((first, seq - 1, line), (seq + 1, last, line))
            self._missing[index : index + 1] = [part for part in rest if part[0] <= part[1]]
            self._find(f"{place} is out of its place: it stands after row {self.last}")
            return False
        self._find(f"{place} stands there a second time")
        return False

    def _checkpoint(self, row: Content, place: str) -> None:
        """It signs the row before it: the hash that the rows give must be the one that it signs."""
        if row.get("covers") != row["seq"] - 1:
            self._find(f"{place} is a checkpoint, and not of the row before it")
        elif self._sure and row.get("hash") != self.hash:
            self._find(
                f"{place} signs another hash than the rows give: {self._since()} was changed and hashed anew"
            )
        elif self.keys:
            try:
                checkpoints.content(checkpoints.of_row(self.head["terminal"], self.head["epoch"], row), self.keys)
                self.covered = row["seq"] - 1
            except EnvelopeRefused as error:
                self._find(_refused(f"{place}, a checkpoint,", error, row.get("key")))

    def _clock(self, row: Content, place: str) -> None:
        what, jump = self._trail.take(row)
        moved = f"the clock was set {'back' if jump < 0 else 'ahead'} by {abs(jump) / 1000:.0f} s"
        match what:
            case "told":
                self.notes.append(f"{place}: {moved}")
            case "untold":
                self._find(f"{place}: {moved}, and no row says so")
            case "restart":
                self._find(f"{place}: {moved} while the machine was started again, and no row says so")

    def _finish(self) -> None:
        end, place = self._end, f"the signed end (line {self._line})"
        if not end:
            self._find(f"the end of the export is missing: the tail was cut off after row {self.last}")
            return
        signed = end
        if "envelope" not in end:
            told = f"the end (line {self._line}) is not signed: whether there were rows after row {self.last}"
            if self.keys and not self.unsigned:
                # Whoever has the file can take a signature away.
                self._find(f"{told} cannot be told; if it was made with --offline, check it with --unsigned")
            else:
                self.notes.append(f"{told} cannot be told")
        elif self.keys:
            text = json.dumps(end["envelope"], separators=(",", ":"), ensure_ascii=False).encode()
            try:
                signed = checkpoints.content(Envelope.read(text), self.keys)
            except EnvelopeRefused as error:
                self._find(_refused(place, error, _signer(end["envelope"])))
                return
            for name in ("terminal", "epoch", "from", "anchor"):
                if signed.get(name) != self.head[name]:
                    self._find(f"line 1 says {name} {self.head[name]}, and {place} says {signed.get(name)}")
        if self.head["from"] > 1:
            why = "what was before it is not in this file"
            if self.head["anchor"] == self.head["from"] - 1:
                why = "what was before it was pruned at the terminal"
                why = why if signed is not end else f"line 1 says, and nobody has signed it, that {why}"
            self.notes.append(f"the file begins with row {self.head['from']}: {why}")
        self._compare(signed, place)
        if self.keys and "envelope" in end and not self.findings:
            self.covered = self.last
        elif self.keys and not self.findings and self.covered < self.last:
            self._uncovered()

    def _compare(self, signed: Content, place: str) -> None:
        seq = signed.get("seq")
        if isinstance(seq, int) and seq > self.last:
            self._find(
                f"{_are(self.last + 1, seq)} missing at the end: the tail was cut off before line {self._line}"
            )
        elif seq != self.last:
            self._find(f"{place} is of row {seq}, and the file has rows up to {self.last}: they were added later")
        elif signed.get("hash") != self.hash:
            self._find(
                f"{place} is of another hash than the rows give: {self._since()} was changed and hashed anew"
            )

    def _uncovered(self) -> None:
        if self.covered:
            self.notes.append(
                f"no signature covers {_rows(self.covered + 1, self.last)}: what is there may have been changed"
            )
        else:
            self._find("no checkpoint is among the rows, and the end is not signed: nothing here is proven")

    def _since(self) -> str:
        return f"a row from {self.covered + 1 if self.covered else self.head['from']} to {self.last}"

    def _find(self, sentence: str) -> None:
        if len(self.findings) < MANY:
            self.findings.append(sentence)


def parted(old: Audit, new: Audit) -> str:
    """Why one file does not go on where another ends, as a sentence; empty when it does."""
    ended = f"{old.head['epoch']}/{old.last}"
    if new.head["terminal"] != old.head["terminal"]:
        return (
            f"line 1: this is of terminal {new.head['terminal']}, and the file before it of {old.head['terminal']}"
        )
    if new.head["epoch"] == old.head["epoch"]:
        if new.head["from"] != old.last + 1:
            return (
                f"line 1: this begins with row {new.head['from']}, and the file before it ends with row {old.last}"
            )
        return (
            "" if new.head["before"] == old.hash else "line 1: this goes on from another chain than the file before"
        )
    if new.head["from"] != 1:
        return f"line 1: this is of another epoch, {new.head['epoch']}, and does not begin with its row 1"
    if new.previous is None or "/".join(new.previous.split("/")[:2]) != ended:
        named = f"{new.previous} as the end of the old one" if new.previous else "no older one"
        return f"the epoch changes, and its first row names {named}: the file before it ends at {ended}"
    return ""


def _object(text: bytes) -> Content:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _shaped(content: Content, shape: Mapping[str, type]) -> bool:
    return all(type(content.get(name)) is kind for name, kind in shape.items())


def _link(before: str, row: bytes) -> str:
    try:
        return ledger.link(bytes.fromhex(before), row).hex()
    except ValueError:
        return ""


def _rows(first: int, last: int) -> str:
    return f"row {first}" if first == last else f"rows {first} to {last}"


def _are(first: int, last: int) -> str:
    return f"{_rows(first, last)} {'is' if first == last else 'are'}"


def _signer(envelope: Any) -> Any:
    """The key id that an envelope names, whether it is true or not."""
    try:
        return envelope["signatures"][0]["keyid"]
    except (KeyError, IndexError, TypeError):
        return "unknown"


def _refused(what: str, error: EnvelopeRefused, key_id: Any) -> str:
    match error.reason:
        case "unknown_key":
            return f"{what} is signed with another key, {key_id}: not the one that was given"
        case "bad_signature":
            return f"{what} is forged, or was changed: its signature does not hold"
    return f"{what} is not what the agent writes: {error}"
