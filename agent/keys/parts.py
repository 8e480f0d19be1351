"""This file knows the parts of an agent into which keys are loaded: who it is, who conducts, who answers, and what
may be seen of all that.
"""

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from typing import Any

from agent.config import Config
from agent.crypto import receipts
from agent.crypto.asking import QUIET
from agent.crypto.guards import due
from agent.crypto.holdings import Holdings, Slot
from agent.crypto.phrases import SERVICE, STEPS, Words
from agent.crypto.steps import Tell
from agent.errors import ControlError, CryptoError, LedgerError, StoreCorrupt, StoreError
from agent.evidence.identity import Identity
from agent.keys.conducting import IDLE, TURN, Conducting
from agent.keys.desk import KeyDesk
from agent.keys.orderdesk import waiting_orders
from agent.keys.table import Keys, keyring
from agent.model import Fence, Heard, Note, Operation
from agent.pasted import is_name
from agent.people.accounts import Accounts
from agent.people.peer import Peer
from agent.points import CASH
from agent.store import Store
from agent.timepiece import wall_ms

ALWAYS = frozenset({"status", "exposed"})
"""What may be asked though nothing that is kept of keys can be believed."""
PATIENCE, BUSY = 30.0, 5.0
"""Seconds to wait for the comparison with the ledger; for whether a ceremony is under way."""

log = logging.getLogger(__name__)


class KeyParts:
    """Everything about keys in one agent. Raises ConfigError when the signers' file is not good.

    What the store keeps of keys is believed only if it is what the ledger has. If not, the service is stopped with
    the reason, no ceremony runs and the EPP is asked nothing; the devices are watched all the same.

    known: the latest time that it is known to have been (wall clock, ms); tried: see agent/keys/conducting.py
    """

    def __init__(
        self,
        config: Config,
        table: Keys,
        store: Store,
        accounts: Accounts,
        identity: Identity,
        put: Callable[[Heard | Operation | Note | Fence], None],
        perform: Callable[[Operation], None],
        stop: threading.Event,
        known: Callable[[], int],
        tried: Callable[[], str] = str,
    ) -> None:
        self._table, self._store, self.identity = table, store, identity
        self._terminal = config.terminal.id
        self._stop, self._compared = stop, threading.Event()
        self._damage: Words | None = None
        self.conducting = Conducting(
            table,
            self._terminal,
            self._kept(),
            put,
            perform,
            self._counters,
            stop,
            metadata.version("tillwire"),
            tried,
        )
        level = self.identity.mark.level if self.identity.mark else "none"
        self.conducting.guard.sealing = (level, "; ".join(self.identity.passed_over) or self.identity.why)
        ring = keyring(table.signers)

        def fence() -> threading.Event:
            reached = threading.Event()
            put(Fence(reached.set))
            return reached

        self.desk = KeyDesk(
            self._terminal, self.conducting, accounts, ring, known, self._receipt, self._status, fence
        )

    @property
    def busy(self) -> bool:
        """Whether keys are being loaded, or destroyed; not while only papers and receipt are due, nor while a slot
        waits after a restart to be deleted: the push may be what brings the EPP back. It is asked where orders are
        opened, so that no order and no push can each pass the other. Raises ControlError."""
        return self.conducting.call(lambda: self.conducting.ceremony.state not in QUIET, BUSY)

    def forgive(self, name: str) -> None:
        """Let a person whose account was unlocked take part in ceremonies again. Raises ControlError."""

        def act() -> None:
            self.conducting.record("login", person=name, result="unlocked")
            self.conducting.ceremony.forgive(name)

        if is_name(name):  # nobody else can take part, and what they tried stands under no name
            self.conducting.call(act)

    def run(self) -> None:
        """Compare what is kept with the ledger, then conduct until `stop` is set."""
        if not self._damage:
            self._compare()
        self._compared.set()
        if not self._damage:
            self.conducting.run()
        while self._damage and not self._stop.is_set():
            self.conducting.drain(TURN)
            self.conducting.guard.say(time.monotonic(), "stopped", self._damage)

    def answers(self, request: Mapping[str, Any], peer: Peer) -> Iterator[dict[str, Any]]:
        """Answer one request. Raises ControlError."""
        if not self._compared.wait(PATIENCE):
            raise ControlError("what is kept of keys is still being compared with the ledger: wait a little")
        if self._damage and request.get("act") not in ALWAYS:
            raise ControlError(self._damage.en, 1)
        yield from self.desk.answers(request, peer)

    def _kept(self) -> list[dict[str, Any]]:
        """The rows about keys; none when they cannot be believed."""
        try:
            with self._store.reading() as reader:
                return reader.kept()
        except (LedgerError, StoreCorrupt) as error:
            self._distrust(error)
            return []

    def _compare(self) -> None:
        try:
            with self._store.reading() as reader:
                reader.compare_kept()
        except (LedgerError, StoreError) as error:
            self._distrust(error)

    def _distrust(self, error: Exception) -> None:
        self._damage = SERVICE["distrusted"].filled(error=error)
        log.error("keys: %s", self._damage.en)

    def _counters(self) -> str:
        """SHA-256 (hex) of the cash counters as the store has them. One that cannot be read stops nothing."""
        try:
            with self._store.reading() as reader:
                points = [[p.device, p.point, p.value] for p in reader.points() if p.point.startswith(CASH)]
        except StoreError as error:
            log.warning("keys: the cash counters are not written down: %s", error)
            return ""
        return hashlib.sha256(json.dumps(points, sort_keys=True).encode()).hexdigest()

    def _receipt(self, named: str) -> tuple[str, str, str]:
        """Order, text and digest of a receipt. Raises ControlError."""
        if self.identity.key is None:
            raise ControlError(f"no receipt can be signed: {self.identity.why}")
        with self._store.reading() as reader:
            kept = [row for row in reader.kept() if row["kind"] == "ceremony" and row.get("order")]
            ended = [row["order"] for row in kept if row["event"] in ("aborted", "signed", "closed")]
            if not ended or (named and named not in ended):
                what = f"the order {named} has not come to an end" if named else "no order has come to an end yet"
                raise ControlError(f"{what}: `tillwire keys status` tells the next step", 1)
            order = named or ended[-1]
            rows = receipts.of_order(kept, order)
            # As it was when the order was opened: whenever the receipt is asked for again, it is the same text.
            opened: Mapping[str, Any] = next((row for row in rows if row["event"] == "opened"), {})
            seq, offset = int(rows[-1]["seq"]), int(opened.get("utc_offset", self._table.utc_offset))
            epoch, digest = reader.kept_place(rows[-1])
            head = receipts.Head(epoch, seq, digest, str(opened.get("software", "")), offset)
        try:
            text = receipts.issue(receipts.facts(rows, head), self.identity.key)
        except CryptoError as error:
            raise ControlError(f"there is no receipt of {order} yet: {error}", 1) from error
        return order, text, hashlib.sha256(text.encode()).hexdigest()

    def _status(self) -> dict[str, Any]:
        return self.conducting.call(self._seen)

    def _seen(self) -> dict[str, Any]:
        """Everything that may be seen. In the conductor's thread."""
        conducting, held = self.conducting, self.conducting.held()
        ceremony, identity = conducting.ceremony, self.identity
        running = ceremony.state not in IDLE
        step, (service, why) = conducting.next_step(), self._service()
        waiting = waiting_orders(conducting, held)
        if waiting and not running and not conducting.resuming:
            step = Tell("waiting", *STEPS["waiting"].filled(order=waiting[0]["order"]))
        return {
            "epp": self._table.epp,
            "serial": conducting.serial,
            "hierarchy": self._table.hierarchy,
            "public_key": identity.key.public.pem if identity.key else "",
            "key_id": identity.key.public.id if identity.key else "",
            "sealing": _sealing(identity),
            "service": service,
            "why": why._asdict(),
            "state": "resuming" if conducting.resuming else ceremony.state.value,
            "step": {"word": step.word, "en": step.en, "zh": step.zh},
            "order": ceremony.order.document() if running else None,
            "people": ceremony.people() if running else [],
            "part": ceremony.part if running else 0,
            "papers": [rows[0]["document"] for order, rows in held.owed.items() if order in held.papers],
            "lacking": [words._asdict() for words in conducting.lacking()],
            "slots": self._slots(held),
            "findings": [
                {"word": found.word, "slot": found.slot, "critical": found.critical, "en": found.en, "zh": found.zh}
                for found in conducting.guard.findings
            ],
            "orders": [self._order(row, held) for row in waiting],
            "ended": [
                {"order": row["order"], "result": row["event"], "at": row.get("at", 0)}
                for row in conducting.rows
                if row["event"] in ("closed", "aborted")
            ],
        }

    def _service(self) -> tuple[str, Words]:
        return ("stopped", self._damage) if self._damage else self.conducting.service()

    def _slots(self, held: Holdings) -> list[dict[str, Any]]:
        seen, out = self.conducting.guard.seen or {}, []
        for slot in sorted({*held.slots, *seen}):
            key = held.slots.get(slot, Slot("missing"))
            there = seen.get(slot)
            kcv = key.kcv or (there.kcv if there else None)
            out.append(
                {
                    "slot": slot,
                    "state": key.state,
                    "seen": there.state if there else "",
                    "kcv": str(kcv) if kcv else "",
                    "usage": key.usage or (there.usage if there else ""),
                    "version": key.version,
                    "since": key.since,
                }
            )
        return out

    def _order(self, row: Mapping[str, Any], held: Holdings) -> dict[str, Any]:
        document, received = row["document"], int(row.get("at", 0))
        by = due(received, 2, self._table.utc_offset) if document["kind"] != "destroy" else document["not_after"]
        return {
            "order": row["order"],
            "kind": document["kind"],
            "slot": document["slot"],
            "kcv": document["kcv"],
            "not_after": document["not_after"],
            "received": received,
            "due": min(by, document["not_after"]),
            "late": wall_ms() > by,
        }


def _sealing(identity: Identity) -> dict[str, Any]:
    if identity.mark is None:
        return {"error": identity.why}
    return {
        "level": identity.mark.level,
        "generation": identity.mark.generation,
        "passed_over": list(identity.passed_over),
    }
