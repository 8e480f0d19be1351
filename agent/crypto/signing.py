"""This file knows signed envelopes: DSSE, who must have signed, and every reason to refuse.

One envelope carries key orders, receipts, configuration, commands and ledger checkpoints. It is DSSE 1.0.2
(github.com/secure-systems-lab/dsse, protocol.md and envelope.md):

    {"payload": base64, "payloadType": type, "signatures": [{"keyid": id, "sig": base64}, ...]}
    each signature is over  "DSSEv1" SP length(type) SP type SP length(payload) SP payload

Signatures are Ed25519 (RFC 8032 5.1), without its context, which other libraries lack: the type says what a
signature is for, and it is signed. No field names an algorithm, so none can be swapped.
We read a narrower DSSE than the standard asks for: base64 in the standard alphabet and padded, a key id with each
signature, no other field; one envelope has one spelling. As there, a signature by a key that we do not know counts
for nothing; but one by a key that we know must hold, and nobody may sign twice, with another key neither.

What is refused, `EnvelopeRefused.reason`:

    too_large      longer than its rule allows; told before anything is parsed
    not_valid      no envelope, or a payload that is not strict JSON
    wrong_type     for another purpose
    unsigned       without a signature
    bad_signature  by a key that we know, and it does not hold: something was changed
    same_signer    one person signed twice
    revoked_key    by a key that was revoked: whatever else was signed, somebody may have stolen it
    unknown_key    too few signatures count, because we do not know the key of others
    too_few        too few people signed
    wrong_role     enough people signed, but they have not the roles that the rule asks for
"""

import base64
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any, NoReturn

from agent.crypto import strictjson
from agent.crypto.ed25519 import PublicKey, SigningKey
from agent.errors import EnvelopeRefused, KeyRefused

ORDER = "application/vnd.tillwire.key-order+json"
RECEIPT = "application/vnd.tillwire.key-receipt+json"
CONFIGURATION = "application/vnd.tillwire.configuration+json"
COMMAND = "application/vnd.tillwire.command+json"
CHECKPOINT = "application/vnd.tillwire.checkpoint+json"
TRUST = "application/vnd.tillwire.trust+json"

MOST_SIGNATURES = 8
SENTENCES = {
    "too_large": "the signed envelope is larger than is allowed here: ask its sender for a smaller one",
    "not_valid": "this is not a signed envelope as we read it: ask its sender for the original file",
    "wrong_type": "the signed envelope is for another purpose: give the one that was made for this",
    "unsigned": "nobody signed this: ask its sender for the signed one",
    "bad_signature": "a signature does not hold, something was changed on the way: ask its sender for the original",
    "revoked_key": "a signature is by a key that was revoked: have it signed anew, and ask who used that key",
    "same_signer": "one person signed twice: each signature must come from another person",
    "unknown_key": "a signature is by a key that this terminal does not know: ask who signed, and with which key",
    "too_few": "too few people signed this: ask for the missing signature",
    "wrong_role": "those who signed have not the roles that this needs: ask for a signature by the right person",
}


def pae(kind: str, payload: bytes) -> bytes:
    """What a signature is over; `kind` is the payload's type."""
    spelled = kind.encode("utf-8")
    return b"DSSEv1 %d %s %d %s" % (len(spelled), spelled, len(payload), payload)


@dataclass(frozen=True, slots=True)
class Signer:
    """A person, or a machine, that may sign; with another key the same `name` is still the same person."""

    name: str
    key: PublicKey
    roles: frozenset[str]


@dataclass(frozen=True, slots=True)
class Rule:
    """What an envelope of one type needs: one different person for each role in `needs`, which may name a role
    more than once. `largest`: bytes of payload."""

    kind: str
    needs: tuple[str, ...]
    largest: int = 65536

    def __post_init__(self) -> None:
        if not 0 < len(self.needs) <= MOST_SIGNATURES:
            raise ValueError("a rule asks for at least one signature, and for no more than an envelope can hold")

    def met_by(self, signers: Iterable[Signer]) -> bool:
        """Whether these people, each taken once, have all the roles."""
        return any(
            all(role in signer.roles for role, signer in zip(self.needs, chosen, strict=True))
            for chosen in permutations(signers, len(self.needs))
        )


class Keyring:
    """Whose signature counts. Raises KeyRefused when a key stands in it twice: it would be two people.

    revoked: ids of keys, known or not, with which nothing may be signed that is acted on.
    """

    def __init__(self, signers: Iterable[Signer], revoked: Iterable[str] = ()) -> None:
        self.revoked = frozenset(revoked)
        self._signers: dict[str, Signer] = {}
        for signer in signers:
            if signer.key.id in self._signers:
                raise KeyRefused(f"the key {signer.key.id} was given to two signers: each must have their own")
            self._signers[signer.key.id] = signer

    def find(self, key_id: str) -> Signer | None:
        """Who signs with the key of this id; None when we do not know it."""
        return self._signers.get(key_id)


@dataclass(frozen=True, slots=True)
class Accepted:
    """What came out of an envelope that holds. `digest` (SHA-256, hex) names what was signed, whoever signed it."""

    kind: str
    payload: bytes = field(repr=False)
    signers: tuple[Signer, ...]

    @property
    def digest(self) -> str:
        return hashlib.sha256(pae(self.kind, self.payload)).hexdigest()

    def content(self) -> dict[str, Any]:
        """The payload's JSON object. Raises EnvelopeRefused("not_valid") when it is not strict JSON."""
        try:
            return strictjson.read(self.payload)
        except ValueError:
            _refuse("not_valid")


@dataclass(frozen=True, slots=True)
class Envelope:
    """An envelope as it is; nothing is known of its payload before `accept`. `signatures`: (key id, 64 bytes)."""

    kind: str
    unverified: bytes = field(repr=False)
    signatures: tuple[tuple[str, bytes], ...] = ()

    def signed(self, key: SigningKey) -> "Envelope":
        """The same with one more signature. Accept what others signed before you add yours.

        Raises EnvelopeRefused("same_signer") when the key has signed already.
        """
        if any(key_id == key.public.id for key_id, _ in self.signatures):
            _refuse("same_signer")
        signature = (key.public.id, key.sign(pae(self.kind, self.unverified)))
        return Envelope(self.kind, self.unverified, (*self.signatures, signature))

    @property
    def text(self) -> bytes:
        """The envelope as it travels."""
        signatures = [{"keyid": key_id, "sig": _base64(signature)} for key_id, signature in self.signatures]
        found = {"payload": _base64(self.unverified), "payloadType": self.kind, "signatures": signatures}
        return json.dumps(found, separators=(",", ":"), ensure_ascii=False).encode("utf-8")

    @classmethod
    def read(cls, text: bytes) -> "Envelope":
        """Read without believing anything. Raises EnvelopeRefused("not_valid")."""
        try:
            found = strictjson.read(text, deepest=3)
            if set(found) != {"payload", "payloadType", "signatures"} or not isinstance(found["payloadType"], str):
                raise ValueError
            signatures = tuple(map(_signature, found["signatures"]))
            if len(signatures) > MOST_SIGNATURES:
                raise ValueError
            return cls(found["payloadType"], _bytes(found["payload"]), signatures)
        except (ValueError, TypeError):
            raise EnvelopeRefused("not_valid", SENTENCES["not_valid"]) from None


def accept(text: bytes, rule: Rule, keyring: Keyring) -> Accepted:
    """Verify an envelope before its payload is looked at. Raises EnvelopeRefused; its reason is one of the above.

    Time, target and repetition are not told here: they stand in the payload, and who acts on it checks them.
    """
    # Base64 needs four characters for three bytes; each signature about 170, and the rest less than 1000.
    if len(text) > (rule.largest + 2) // 3 * 4 + 200 * MOST_SIGNATURES + 1000:
        _refuse("too_large")
    envelope = Envelope.read(text)
    if len(envelope.unverified) > rule.largest:
        _refuse("too_large")
    if envelope.kind != rule.kind:
        _refuse("wrong_type")
    if not envelope.signatures:
        _refuse("unsigned")
    if any(key_id in keyring.revoked for key_id, _ in envelope.signatures):
        _refuse("revoked_key")
    signed, signers = pae(envelope.kind, envelope.unverified), []
    for key_id, signature in envelope.signatures:
        signer = keyring.find(key_id)
        if signer is not None:
            if not signer.key.verifies(signature, signed):
                _refuse("bad_signature")
            signers.append(signer)
    if len({signer.name for signer in signers}) < len(signers):
        _refuse("same_signer")
    if len(signers) < len(rule.needs):
        _refuse("unknown_key" if len(signers) < len(envelope.signatures) else "too_few")
    if not rule.met_by(signers):
        _refuse("wrong_role")
    return Accepted(envelope.kind, envelope.unverified, tuple(signers))


def _refuse(reason: str) -> NoReturn:
    raise EnvelopeRefused(reason, SENTENCES[reason])


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: Any) -> bytes:
    """The bytes of a base64 text in its one spelling. Raises ValueError or TypeError."""
    if not isinstance(text, str):
        raise ValueError
    data = base64.b64decode(text, validate=True)
    if _base64(data) != text:
        raise ValueError
    return data


def _signature(found: Any) -> tuple[str, bytes]:
    if not isinstance(found, dict) or set(found) != {"keyid", "sig"} or not isinstance(found["keyid"], str):
        raise ValueError
    signature = _bytes(found["sig"])
    if len(signature) != 64:
        raise ValueError
    return found["keyid"], signature
