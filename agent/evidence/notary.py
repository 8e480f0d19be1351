"""This file knows how a live agent signs its ledger: with which key, and the checkpoints when they are due.

An agent whose key cannot be had still watches and delivers; then its `start` row says why there are no checkpoints.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from agent.clock import Instant
from agent.config import Config
from agent.crypto.signing import Envelope
from agent.errors import ControlError, LedgerError, StoreCorrupt, StoreError
from agent.evidence import checkpoints
from agent.evidence.checkpoints import Calendar, Place
from agent.evidence.exports import CHUNK, SIZE, export, wanted
from agent.evidence.identity import Identity, open_identity, remembered
from agent.ledger import link
from agent.model import Batch, Note
from agent.people.peer import Peer
from agent.store import Reader, Store

log = logging.getLogger(__name__)


class Notary:
    """Signs for one agent. `identity` is opened here, once.

    `turn` is for the core's thread alone: nobody may commit between its look at the head and its row. What answers
    requests is for any thread.
    """

    def __init__(self, config: Config, store: Store, look: Callable[[], Instant], boot: str, version: str) -> None:
        self._store, self._look, self._boot, self._version = store, look, boot, version
        self._terminal = config.terminal.id
        self._calendar = Calendar(config.terminal.utc_offset)
        self._failed = ""
        self.notes: tuple[Note, ...] = ()
        """Rows to be made after the start: a new mark of the sealed file, by which an older file is told later."""
        try:
            with store.reading() as reader:
                self.identity = self._who(config, reader)
                self._begin(reader)
        except StoreCorrupt as error:
            # The next commit sets the store aside. Without its rows an old or missing key cannot be told.
            self.identity = Identity(why=f"what the ledger knows of the key cannot be read: {error}")
        except LedgerError as error:
            self.identity = Identity(why=f"what the ledger knows of the key cannot be believed: {error}")

    @property
    def facts(self) -> dict[str, Any]:
        """What the `start` row says of it: the key's id, or why there is none."""
        key = self.identity.key
        return {"key": key.public.id} if key else {"unsigned": self.identity.why}

    @property
    def trouble(self) -> str:
        """Why nothing is signed, as a sentence; empty when all is well."""
        if self.identity.key is None:
            return f"the ledger is not signed, no checkpoints are made: {self.identity.why}"
        return f"the last checkpoint could not be stored: {self._failed}" if self._failed else ""

    def turn(self, moment: Instant, stopping: bool = False) -> None:
        """Make the checkpoint that is due, if one is. What cannot be stored now is due again the next time."""
        store, key = self._store, self.identity.key
        if key is None or not self._calendar.due(store.epoch, store.head, moment.now, moment.wall_ms, stopping):
            return
        try:
            with store.reading() as reader:
                place = Place(self._terminal, store.epoch, store.head, store.head_hash.hex(), reader.anchor)
            store.commit(Batch(rows=[checkpoints.fields(place, self._said(moment), key)]))
        except StoreCorrupt as error:
            store.doubt(error)
        except StoreError as error:
            if not self._failed:
                log.error("no checkpoint: %s", error)
            self._failed = str(error)
        else:
            self._failed = ""
            self._calendar.made(store.epoch, store.head)

    def answers(self, request: Mapping[str, Any], peer: Peer) -> Iterator[dict[str, Any]]:
        """An export of the ledger, as the control socket asks for it. Raises ControlError."""
        rows = wanted(request)
        key = self.identity.key
        with self._store.reading() as reader:
            sign = partial(self._end, reader)
            yield from export(reader, rows, self._version, key.public.id if key else "", sign)

    def signer(self, request: Mapping[str, Any], peer: Peer) -> Iterator[dict[str, Any]]:
        """The public key: {"key_id", "public_key"}. Raises ControlError."""
        if self.identity.key is None:
            raise ControlError(self.trouble, 1)
        yield {"key_id": self.identity.key.public.id, "public_key": self.identity.key.public.pem}

    def _end(self, reader: Reader, first: int, place: Place) -> Envelope | None:
        """The signed end of an export that begins with row `first`; None when nothing can be signed."""
        if self.identity.key is None:
            return None
        self._follow(reader, place)
        said = {**self._said(self._look()), "from": first}
        return checkpoints.envelope(place, said).signed(self.identity.key)

    def _follow(self, reader: Reader, place: Place) -> None:
        """Only what this agent wrote is signed: from the hash that the file has at a place, its rows must lead to
        the hash that the agent itself holds. Raises StoreCorrupt when they do not, ControlError when that cannot be
        told."""
        epoch, head, tip = self._store.tip()
        seq, digest = place.seq, bytes.fromhex(place.hash)
        while seq < head and (rows := reader.batch(seq, CHUNK, SIZE)) and rows[0][0] == seq + 1:
            for seq, row, _ in rows:
                digest = link(digest, row)
                if seq == head:
                    break
        if epoch != place.epoch or seq != head:
            raise ControlError("the store has changed while it was exported: export again")
        if digest != tip:
            raise StoreCorrupt(f"{reader.path} is damaged or was changed under the agent, after row {place.seq}")

    def _said(self, moment: Instant) -> dict[str, Any]:
        return {
            "at": moment.wall_ms,
            "up": round(moment.now * 1000),
            "boot": self._boot,
            "version": self._version,
        }

    def _who(self, config: Config, reader: Reader) -> Identity:
        expected, key_id = remembered(reader.kept())
        found = open_identity(config.terminal.data, self._terminal, expected, key_id=key_id)
        if found.key is not None and found.mark is not None:
            own = found.key.public.id
            if (found.mark, own) != (expected, key_id):
                facts = {"level": found.mark.level, "generation": found.mark.generation, "key": own}
                self.notes = (Note("sealed", facts),)
        return found

    def _begin(self, reader: Reader) -> None:
        """Go on from the last checkpoint; when that is further back than ROWS, the next one is due."""
        head = reader.head()[0]
        before = max(0, head - checkpoints.ROWS)
        self._calendar.made(reader.epoch, checkpoints.newest(reader.rows(before, checkpoints.ROWS)) or before)
