"""This file knows whose signature counts on what the centre pushes, and how that set of people is replaced.

Three kinds are pushed, and each needs two different people (maker and checker):

    configuration   two with the role config
    command         two with commands, or two with keys; pushes.py says which command needs which
    trust           two with trust under the set that is in force before it

The set that a technician installs is version 0. It is a TOML file:

    revoked = ["2b0N…"]                            # ids of keys that count no more
    [[signer]]
    name = "ann"
    roles = ["config", "trust"]                    # also "commands", "keys"
    key = '''-----BEGIN PUBLIC KEY----- ...'''     # Ed25519, as `tillwire push keygen` prints it

A rotation brings the next set. It is signed under the set before it, so that nobody makes themselves a signer, and
what was revoked once stays revoked in every later set. A set that could not be replaced again, or under which
nothing could be configured any more, is refused: with fewer than two people of the role trust, or of the role
config. Who has two keys is one person; names that differ in capitals only are refused.
"""

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from agent.crypto import signing, strictjson
from agent.crypto.ed25519 import PublicKey
from agent.crypto.signing import COMMAND, CONFIGURATION, TRUST, Accepted, Keyring, Rule, Signer
from agent.errors import ConfigError, EnvelopeRefused, KeyRefused
from agent.pasted import is_name

FORMAT = "tillwire-trust/1"
ROLES = ("config", "commands", "keys", "trust")
NEEDED = ("config", "trust")
"""Roles of which a set must have two people, else it would be the last one."""
PEOPLE = 2
LARGEST = {CONFIGURATION: 65536, COMMAND: 16384, TRUST: 32768}
"""Bytes of payload."""
SIGNED_BY = {CONFIGURATION: ("config",), COMMAND: ("commands", "keys"), TRUST: ("trust",)}
"""Kind -> the roles of which any one, held by two people, will do."""
LARGEST_VERSION = 1_000_000_000
COMMON = frozenset({"format", "id", "org", "target", "not_before", "expires"})
"""Fields that every payload has."""
FIELDS = COMMON | {"version", "signers", "revoked"}
MOST_SIGNERS, MOST_STEPS = 64, 64
_KEY_ID = re.compile(r"[A-Za-z0-9_-]{43}=")
_OLDER = "a set of signers as new, or newer, is in force: have the new one signed with a greater version"


@dataclass(frozen=True, slots=True)
class Trust:
    """A set of signers. `revoked`: ids of keys with which nothing counts any more."""

    version: int
    signers: tuple[Signer, ...]
    revoked: frozenset[str] = frozenset()

    @classmethod
    def local(cls, text: str) -> "Trust":
        """Version 0, from the technician's file. Raises ConfigError; name the file before its sentence."""
        try:
            found = tomllib.loads(text)
            if unknown := set(found) - {"signer", "revoked"}:
                raise ValueError(f"{min(unknown)} is not a known key; known keys are revoked, signer")
            return _set(0, found.get("signer", []), found.get("revoked", []))
        except ValueError as error:
            raise ConfigError(str(error)) from error

    @classmethod
    def parse(cls, text: str | bytes) -> "Trust":
        """From what `text` gave. Raises EnvelopeRefused("not_valid")."""
        try:
            found = strictjson.read(text.encode() if isinstance(text, str) else text)
            if set(found) != {"version", "signers", "revoked"}:
                raise ValueError("it is no set of signers")
            return _set(_version(found["version"], least=0), found["signers"], found["revoked"])
        except ValueError as error:
            raise _not_valid(error) from None

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "Trust":
        """The set that a rotation brings. Raises EnvelopeRefused("not_valid"), which repeats nothing of it."""
        try:
            if set(content) != FIELDS or content["format"] != FORMAT:
                raise ValueError("a field is missing, or unknown")
            return _set(_version(content["version"], least=1), content["signers"], content["revoked"])
        except ValueError as error:
            raise _not_valid(error) from None

    @property
    def text(self) -> str:
        """The set in its one spelling, to be kept; `parse` gives it back."""
        return json.dumps(
            {"version": self.version, **self.document()}, sort_keys=True, separators=(",", ":"), ensure_ascii=False
        )

    def document(self) -> dict[str, Any]:
        """`signers` and `revoked` as a rotation's payload has them."""
        entries = [{"name": s.name, "roles": sorted(s.roles), "key": s.key.pem} for s in self.signers]
        return {"signers": entries, "revoked": sorted(self.revoked)}

    @property
    def keyring(self) -> Keyring:
        """Whose signature counts."""
        return Keyring(self.signers, self.revoked)

    def accept(self, text: bytes, kind: str) -> Accepted:
        """Verify what was pushed as `kind` (signing.CONFIGURATION, COMMAND, TRUST): two people signed it, with a
        role that the kind asks for; `met` tells which. Raises EnvelopeRefused with a reason of signing.py."""
        return self._accept(text, kind, PEOPLE)

    def begun(self, text: bytes, kind: str) -> Accepted:
        """The same for what only the first has signed: for the one who signs next, and never to act on."""
        return self._accept(text, kind, 1)

    def revoking(self, more: frozenset[str]) -> "Trust":
        """The same, in which these keys count no more either. Raises ConfigError when too few people are left."""
        left = Trust(self.version, tuple(signer for signer in self.signers if signer.key.id not in more))
        try:
            return _set(self.version, left.document()["signers"], sorted(self.revoked | more))
        except ValueError as error:
            why = "some of the keys there were revoked: give their owners new ones"
            raise ConfigError(f"{why} ({error})") from error

    def rotated(self, text: bytes) -> "Trust":
        """The set that a rotation brings, which must be signed under this one.

        Raises EnvelopeRefused; beside the reasons of signing.py "older", for a version that is not greater. To whom
        and until when it is sent is not told here: pushes.py does, before.
        """
        found = Trust.of(self.accept(text, TRUST).content())
        if found.version <= self.version:
            raise EnvelopeRefused("older", _OLDER)
        revoked = found.revoked | self.revoked
        if any(signer.key.id in revoked for signer in found.signers):
            raise _not_valid(ValueError("it names a signer with a key that was revoked"))
        return Trust(found.version, found.signers, revoked)

    def followed(self, chain: bytes) -> "Trust":
        """The set at the end of a chain of rotations, one envelope a line, the oldest first: so a terminal that was
        away while the set was replaced twice finds the step that was signed under the set it has.

        Raises EnvelopeRefused, of the last line, when none of them leads on from this set. The chain that led to it
        does not either: when it comes again, know it by its text.
        """
        return self.led(chain)[0]

    def led(self, chain: bytes) -> tuple["Trust", bytes]:
        """The same, and the envelope that brought the last step: nobody has signed the other lines, perhaps, and
        only what stands in this one counts. Raises as `followed`."""
        trust, last, lines = self, b"", chain.strip().split(b"\n")
        refused = EnvelopeRefused("too_large", signing.SENTENCES["too_large"])
        for line in lines if len(lines) <= MOST_STEPS else ():
            try:
                trust, last = trust.rotated(line), line
            except EnvelopeRefused as error:
                refused = error
        if trust is self:
            raise refused
        return trust, last

    def _accept(self, text: bytes, kind: str, people: int) -> Accepted:
        keyring, (first, *others) = self.keyring, SIGNED_BY[kind]
        for role in others:
            with suppress(EnvelopeRefused):  # if it is not for the role, it is told again below
                return signing.accept(text, Rule(kind, (role,) * people, LARGEST[kind]), keyring)
        return signing.accept(text, Rule(kind, (first,) * people, LARGEST[kind]), keyring)


def steps(text: bytes) -> list[bytes]:
    """The envelopes of a file: those of a chain stand one a line, and one alone may be spelled over many lines.
    Whether they are envelopes is told by who reads them."""
    lines = [line.strip() for line in text.split(b"\n") if line.strip()]
    try:
        signing.Envelope.read(text)
    except EnvelopeRefused:
        return lines or [text]
    return [text.strip()]


def met(signers: Iterable[Signer]) -> frozenset[str]:
    """The roles that two of those who signed have."""
    everyone = {signer.name: signer.roles for signer in signers}
    return frozenset(role for role in ROLES if sum(role in roles for roles in everyone.values()) >= PEOPLE)


def _set(version: int, entries: Any, revoked: Any) -> Trust:
    """A set that can be used and replaced. Raises ValueError, whose sentence repeats nothing that was given."""
    if not isinstance(entries, list) or len(entries) > MOST_SIGNERS:
        raise ValueError(f"the signers must be a list of tables [[signer]], {MOST_SIGNERS} at the most")
    if not isinstance(revoked, list) or not all(isinstance(i, str) and _KEY_ID.fullmatch(i) for i in revoked):
        raise ValueError('revoked must be a list of key ids, as `tillwire push keygen` tells them: ["2b0N…="]')
    signers = sorted((_signer(n, entry) for n, entry in enumerate(entries, 1)), key=lambda s: (s.name, s.key.id))
    ids = {signer.key.id for signer in signers}
    if len(ids) < len(signers):
        raise ValueError("a key stands twice among the signers: each must have their own")
    if ids & set(revoked):
        raise ValueError("a signer has a key that is revoked: take the signer out, or give the new key")
    if len({signer.name.casefold() for signer in signers}) < len({signer.name for signer in signers}):
        raise ValueError("two names of signers differ in capitals only: a person has one name")
    for role in NEEDED:
        if len({signer.name for signer in signers if role in signer.roles}) < PEOPLE:
            raise ValueError(f"fewer than {PEOPLE} people have the role {role}: it would be the last set ever")
    return Trust(version, tuple(signers), frozenset(revoked))


def _signer(number: int, entry: Any) -> Signer:
    where = f"signer {number}"
    if not isinstance(entry, dict) or set(entry) != {"name", "roles", "key"}:
        raise ValueError(f"{where} must have name, roles and key, and nothing else")
    name, roles, key = entry["name"], entry["roles"], entry["key"]
    if not isinstance(name, str) or not is_name(name):
        raise ValueError(f"{where}: the name has letters, digits, '.', '_' and '-', at most 48")
    if not isinstance(roles, list) or not roles or not all(isinstance(r, str) and r in ROLES for r in roles):
        raise ValueError(f"{where}: roles must be a list of {', '.join(ROLES)}")
    if len(set(roles)) < len(roles):
        raise ValueError(f"{where}: a role stands twice")
    if not isinstance(key, str) or "PRIVATE" in key:
        raise ValueError(f"{where}: the key must be a public one, as `tillwire push keygen` prints it")
    try:
        return Signer(name, PublicKey.from_pem(key), frozenset(roles))
    except KeyRefused as error:
        raise ValueError(f"{where}: {error}") from None


def _version(value: Any, least: int) -> int:
    if type(value) is not int or not least <= value <= LARGEST_VERSION:
        raise ValueError(f"a version is a number from {least} to {LARGEST_VERSION}")
    return value


def _not_valid(error: ValueError) -> EnvelopeRefused:
    return EnvelopeRefused("not_valid", f"the set of signers cannot be used: {error}; have a right one signed")
