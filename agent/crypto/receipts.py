"""This file knows receipts: what a ceremony's rows add up to, signed by the terminal, and how they are checked.

A receipt is a text: a page for people, and below it the same facts in a signed envelope (signing.py) for everybody
who doubts the page.

    the page (receipt_page.py)

    -----BEGIN TILLWIRE RECEIPT-----
    the envelope in base64, 76 characters a line
    -----END TILLWIRE RECEIPT-----

`read` makes the page anew from what was signed and compares: whoever changes either half is found. Ends of lines
may differ (CR LF, blanks, tabs), and blank lines may follow the end, because mail programmes do that; nothing else.
The facts come from the rows up to the end of the ceremony only, and Ed25519 gives one signature for one text, so
the same receipt comes out whenever it is asked for again.
"""

import base64
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from agent.crypto import guards
from agent.crypto.ed25519 import PublicKey, SigningKey
from agent.crypto.holdings import KIND, SIGNATURES, Row, method_of
from agent.crypto.phrases import ALARMS, CAUSES
from agent.crypto.receipt_page import page
from agent.crypto.receipt_words import REFUSALS, STEPS
from agent.crypto.signing import RECEIPT, Envelope, Keyring, Rule, Signer, accept
from agent.errors import EnvelopeRefused

__all__ = ["Checked", "Head", "facts", "issue", "of_order", "page", "read"]
FORMAT = "tillwire-key-receipt/1"
BEGIN, END = "-----BEGIN TILLWIRE RECEIPT-----", "-----END TILLWIRE RECEIPT-----"
LARGEST = 65536
"""Bytes of the facts."""
LONGEST = 180_000
"""Characters of the whole text; base64 is taken twice of the facts."""
MOST_STEPS = 120
_WIDTH = 76
_ALARMS = frozenset({"slot_unknown", "destruction_overdue", "same_kcv", "unexpected_key", "left_construct"})
"""Alarms that say more than the trouble beside them."""
_DETAILS = ("person", "envelope", "number", "tries")
_ROLE = "terminal"


@dataclass(frozen=True, slots=True)
class Head:
    """What the rows of a ceremony do not say: their place in the ledger (number and hash, in hex, of the last of
    them), the software's version, and how many minutes local time is ahead of UTC."""

    epoch: str
    seq: int
    hash: str
    version: str
    utc_offset: int = 480


@dataclass(frozen=True, slots=True)
class Checked:
    """A receipt that holds."""

    facts: dict[str, Any]
    page: str


def of_order(rows: Iterable[Row], order: str) -> list[Row]:
    """The rows of one order, from the first to that which ended it: the second signature, or the end of a stop.

    All of its rows when it has not ended.
    """
    mine = [row for row in rows if row.get("kind", KIND) == KIND and row.get("order") == order]
    # A stop that comes after both signatures undoes the key, and only its end is the end then.
    stopped = any(row["event"] == "aborting" for row in mine)
    ends = [number for number, row in enumerate(mine) if row["event"] == "aborted"]
    if not (ends or stopped):
        ends = [number for number, row in enumerate(mine) if row["event"] == "signed"][SIGNATURES - 1 :]
    return mine[: ends[0] + 1] if ends else mine


def facts(rows: Sequence[Row], head: Head) -> dict[str, Any]:
    """What the rows of one ended order add up to; texts, whole numbers, lists and objects only. Times in ms.

    Raises EnvelopeRefused("not_ended"), and ValueError when `head` is not the place of the last row.
    """
    by: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by[row["event"]].append(row)
    signed = len(by["signed"]) >= SIGNATURES and not by["aborting"]
    if not by["opened"] or not (by["aborted"] or signed):
        _refuse("not_ended")
    if rows[-1].get("seq") != head.seq:
        raise ValueError("the place in the ledger is not that of the ceremony's last row")
    opened = by["opened"][0]
    document: Mapping[str, Any] = opened["document"]
    loads = document["kind"] != "destroy"
    steps = [step for row in rows for step in _step(row)]
    left_out = max(0, len(steps) - MOST_STEPS)
    del steps[MOST_STEPS // 2 : MOST_STEPS // 2 + left_out]
    copied = ("algorithm", "digits", "exportability", "kcv", "kind", "method", "mode", "slot", "usage", "version")
    return {
        **{name: document.get(name, 0 if name in ("digits", "version") else "") for name in copied},
        "format": FORMAT,
        "result": "aborted" if by["aborted"] else "loaded" if loads else "destroyed",
        "cause": _cause(rows, by),
        "test": document["hierarchy"] == "test",
        "terminal": opened["terminal"],
        "serial": opened["serial"],
        "kcv_method": method_of(document),
        "order": {"id": opened["order"], "digest": opened["digest"], "signers": list(opened["signers"])}
        | {name: document[name] for name in ("not_before", "not_after")},
        "people": [{name: row[name] for name in ("person", "role", "group")} for row in by["joined"]],
        "parts": _parts(document, by),
        "block": _block(document, by),
        "verified": [{"kcv": row["kcv"], "usage": row["usage"], "at": _at(row)} for row in by["verified"]],
        "proof": _proof(by),
        "clocks": _clocks(document, by, head.utc_offset),
        "erased": [{"slot": row["slot"], "at": _at(row), "deleted": _deleted(row)} for row in by["erased"]],
        "signed": [{"person": r["person"], "at": _at(r), "digest": r["digest"]} for r in by["signed"]],
        "refused": dict(Counter(str(row["reason"]) for row in by["refused"])),
        "steps": steps,
        "steps_left_out": left_out,
        "ledger": {"epoch": head.epoch, "seq": head.seq, "hash": head.hash},
        "software": head.version,
        "utc_offset": head.utc_offset,
    }


def issue(facts: Mapping[str, Any], key: SigningKey) -> str:
    """The receipt. Raises EnvelopeRefused("too_large") for facts that nobody would read again."""
    payload = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    if len(payload) > LARGEST:
        _refuse("too_large")
    return _whole(facts, Envelope(RECEIPT, payload).signed(key))


def read(text: str, public: PublicKey) -> Checked:
    """A receipt, once the signature holds and the page is the one that was signed.

    Raises EnvelopeRefused with a word of `receipt_words.REFUSALS`.
    """
    if len(text) > LONGEST:
        _refuse("too_large")
    lines = [line.rstrip(" \t\r") for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    if BEGIN not in lines:
        _refuse("not_valid")
    try:
        sealed = base64.b64decode("".join(lines[lines.index(BEGIN) + 1 : -1]), validate=True)
        envelope = Envelope.read(sealed)
        if len(envelope.signatures) != 1:
            _refuse("not_valid")
        signer = Signer(_ROLE, public, frozenset({_ROLE}))
        found = accept(sealed, Rule(RECEIPT, (_ROLE,), LARGEST), Keyring([signer])).content()
    except ValueError:
        _refuse("not_valid")
    except EnvelopeRefused as error:
        _refuse(error.reason)
    if found.get("format") != FORMAT:
        _refuse("other_format")
    # The block as well: there is one spelling of it, and whoever changed that had something in mind.
    if _whole(found, envelope).split("\n")[:-1] != lines:
        _refuse("page_changed")
    return Checked(found, page(found))


def _whole(facts: Mapping[str, Any], envelope: Envelope) -> str:
    sealed = base64.b64encode(envelope.text).decode()
    block = [sealed[at : at + _WIDTH] for at in range(0, len(sealed), _WIDTH)]
    return "\n".join([page(facts), "", BEGIN, *block, END, ""])


def _at(row: Row) -> int:
    return int(row.get("at", 0))


def _step(row: Row) -> list[dict[str, Any]]:
    """The step that a row tells of, or none. A sentence of another file goes in whole: it may change there."""
    event = str(row["event"])
    if event not in STEPS or (event == "alarm" and row["word"] not in _ALARMS):
        return []
    step = {"at": _at(row), "event": event, **{name: row[name] for name in _DETAILS if name in row}}
    if event == "erased":
        step |= {"slot": row["slot"], "event": event if _deleted(row) else "empty"}
    elif event == "trouble":
        step |= CAUSES[row["cause"]]._asdict()
    elif event == "alarm":
        step |= ALARMS[row["word"]].filled(**row["facts"])._asdict()
    return [step]


def _deleted(row: Row) -> bool:
    """Whether a slot is empty because this order deleted it: at the first look it was empty already."""
    return row.get("state") != "looking"


def _cause(rows: Sequence[Row], by: Mapping[str, list[Row]]) -> dict[str, str]:
    """Why it was stopped, and by whom when a person was it; nothing when it was not stopped."""
    if not by["aborted"]:
        return {}
    word, raw = by["aborted"][-1]["cause"], ""
    for row in rows:
        if row["event"] == "answered":
            raw = row["raw"] or row["result"]
        elif row["event"] in ("aborting", "aborted") and row["cause"] == word:
            break
    who = [row["person"] for row in by["trouble"] if row["cause"] == word]
    # What a device says goes into a sentence: plain characters only.
    said = "".join(char if char.isascii() and char.isprintable() else "?" for char in raw)
    return {"word": word, **CAUSES[word].filled(raw=said)._asdict(), "by": who[-1] if who else ""}


def _parts(document: Mapping[str, Any], by: Mapping[str, list[Row]]) -> list[dict[str, Any]]:
    spoiled = by["aborted"][-1]["spoiled"] if by["aborted"] else []
    parts = []
    for number, part in enumerate(document.get("parts", []), 1):
        holders = [row["person"] for row in by["envelope"] if row["number"] == number]
        told = {
            "opened_by": holders[-1] if holders else "",
            "entered": any(row["number"] == number for row in by["part"]),
            "wrong": sum(row["number"] == number for row in by["wrong"]),
            "spoiled": part["envelope"] in spoiled,
        }
        parts.append({**part, **told})
    return parts


def _block(document: Mapping[str, Any], by: Mapping[str, list[Row]]) -> dict[str, str]:
    if document.get("method") != "block":
        return {}
    header = by["block"][-1]["header"] if by["block"] else ""
    return {"digest": document["block"], "form": document["form"], "under": document["under"], "header": header}


def _proof(by: Mapping[str, list[Row]]) -> dict[str, Any]:
    if not by["active"]:
        return {}
    row = by["active"][-1]
    return {"at": _at(row), **{name: row.get(name, "") for name in ("method", "reference", "person")}}


def _clocks(document: Mapping[str, Any], by: Mapping[str, list[Row]], utc_offset: int) -> dict[str, Any]:
    """The clocks of 5 and of 2 days, as guards.py counts them. within: met, late, or not_done: it was stopped."""
    if document["kind"] == "destroy":
        return {"applied": {}, "installed": {}}
    came = _at((by["received"] or by["opened"])[0])
    asked = _at(by["applied"][0]) if by["applied"] else int(document.get("applied", 0))
    works = _at(by["active"][-1]) if by["active"] and not by["aborted"] else 0

    def clock(begun: int, done: int, days: int) -> dict[str, Any]:
        due = guards.due(begun, days, utc_offset)
        within = "not_done" if not done else "met" if done < due else "late"
        return {"from": begun, "done": done, "due": due, "within": within}

    return {
        "applied": clock(asked, came, guards.RECEIVED_DAYS) if asked else {},
        "installed": clock(came, works, guards.INSTALLED_DAYS),
    }


def _refuse(reason: str) -> NoReturn:
    raise EnvelopeRefused(reason, REFUSALS[reason].en)
