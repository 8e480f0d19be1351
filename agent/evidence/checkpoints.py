"""This file knows checkpoints: when one is due, what it says, and whether one holds.

A checkpoint is a row of the ledger by which the agent signs the hash of the row before it, and with that hash all
rows up to there. What is signed is a DSSE envelope (agent/crypto/signing.py) with this payload, as canonical bytes:

    {"anchor", "at", "boot", "epoch", "hash", "seq", "terminal", "up", "version"}
    seq, hash   the row that is covered, and the chain's hash after it (hex)
    anchor      the last row that was pruned, 0 when none was: what the agent still had when it signed

The row holds all of that but terminal and epoch, which every row of a chain has in common, and the signature: the
envelope is made again from it, in its one spelling. The end of an export (agent/evidence/exports.py) is such an
envelope on its own; its payload has `from` too, the first row of the export.

Due: after ROWS rows, an hour after the first row that is not covered, at the end of the terminal's day, and at a
planned stop; never when there is nothing to cover, so that a quiet terminal stays quiet.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.crypto.ed25519 import PublicKey, SigningKey
from agent.crypto.signing import CHECKPOINT, Envelope, Keyring, Rule, Signer, accept
from agent.errors import EnvelopeRefused
from agent.ledger import canonical

KIND = "checkpoint"
ROWS = 1000
HOUR = 3600.0
DAY_MS = 86_400_000
RULE = Rule(CHECKPOINT, ("agent",), 4096)

Row = Mapping[str, Any]


class Calendar:
    """When a checkpoint is due. utc_offset: minutes that the terminal's calendar is ahead of UTC."""

    def __init__(self, utc_offset: int) -> None:
        self._ahead = utc_offset * 60_000
        self._epoch, self._covered = "", 0
        self._since: float | None = None
        self._day = 0

    def made(self, epoch: str, seq: int) -> None:
        """Row `seq` is a checkpoint, or there is nothing to cover up to it."""
        self._epoch, self._covered, self._since = epoch, seq, None

    def due(self, epoch: str, head: int, now: float, wall_ms: int, stopping: bool = False) -> bool:
        """Whether a checkpoint is due over row `head` at `now` (monotonic seconds)."""
        if epoch != self._epoch:
            self.made(epoch, 0)
        if head <= self._covered:
            return False
        day = (wall_ms + self._ahead) // DAY_MS
        if self._since is None:
            self._since, self._day = now, day
        hour, rows = now - self._since >= HOUR, head - self._covered >= ROWS
        return stopping or rows or hour or day != self._day


@dataclass(frozen=True, slots=True)
class Place:
    """A row of a chain: what a checkpoint covers."""

    terminal: str
    epoch: str
    seq: int
    hash: str
    anchor: int = 0


def envelope(place: Place, moment: Row) -> Envelope:
    """What is to be signed, unsigned. moment: at, up, boot and version; an export's end has `from` too."""
    said = {key: moment[key] for key in ("at", "up", "boot", "version", "from") if key in moment}
    about = {"terminal": place.terminal, "epoch": place.epoch, "seq": place.seq, "hash": place.hash}
    return Envelope(CHECKPOINT, canonical({**about, "anchor": place.anchor, **said}))


def fields(place: Place, moment: Row, key: SigningKey) -> dict[str, Any]:
    """A checkpoint as the fields of its row, which adds its own seq."""
    ((key_id, signature),) = envelope(place, moment).signed(key).signatures
    own = {"covers": place.seq, "hash": place.hash, "anchor": place.anchor}
    return {**moment, "kind": KIND, **own, "key": key_id, "sig": base64.b64encode(signature).decode()}


def of_row(terminal: str, epoch: str, row: Row) -> Envelope:
    """The envelope of a checkpoint's row. Raises EnvelopeRefused when the row cannot be one."""
    try:
        place = Place(terminal, epoch, row["covers"], row["hash"], row["anchor"])
        signature = base64.b64decode(row["sig"], validate=True)
        return Envelope(CHECKPOINT, envelope(place, row).unverified, ((str(row["key"]), signature),))
    except (KeyError, ValueError, TypeError):
        raise EnvelopeRefused("not_valid", "this row is no checkpoint as the agent writes it") from None


def content(signed: Envelope, keys: Mapping[str, PublicKey]) -> dict[str, Any]:
    """What a checkpoint says, once the signature by one of `keys` ({key id: key}) holds. Raises EnvelopeRefused."""
    ring = Keyring(Signer(name, key, frozenset({"agent"})) for name, key in keys.items())
    return accept(signed.text, RULE, ring).content()


def newest(rows: list[tuple[int, bytes, bytes]]) -> int:
    """The seq of the last checkpoint among some rows of a store, 0 when there is none."""
    return next((seq for seq, row, _ in reversed(rows) if is_checkpoint(row)), 0)


def is_checkpoint(row: bytes) -> bool:
    """Whether canonical bytes are a checkpoint's row; quick, because most are not."""
    return b'"kind":"checkpoint"' in row and json.loads(row).get("kind") == KIND
