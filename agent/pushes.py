"""This file knows what the centre pushes: what it says, whether it is meant for this terminal, and if it counts.

Who signed it was told before (crypto/trust.py), and what is done with it comes after. No I/O.

A payload is a JSON object. Every kind has

    format       "tillwire-configuration/1", "tillwire-command/1" or "tillwire-trust/1", as the envelope's type says
    id           a name by which people speak of it
    org, target  the organisation, and {"terminals": [...]}, {"groups": [...]} or {"all": true}
    not_before, expires   wall clock, ms

and beside these

    configuration   version (only grows), config (TOML text of all tables that are not local)
    command         command (a word of COMMANDS), arguments (an object of texts, integers, true and false)
    trust           version, signers, revoked: the next set of signers; its target is always all

What is refused, `PushRefused.reason`; the sentences stand in REASONS:

    not_valid       the payload is not as this version reads it, or what it asks for is not possible here
    wrong_target    for another organisation, terminal or group
    older           a greater version was decided already
    same_version    other content was decided under this version
    replayed        this very content was decided; quiet: the broker brings what is retained at each connect
    expired, not_yet
    clock_suspect   this terminal's clock cannot tell whether it has expired
    frozen          the technician holds pushes back
    busy            a key ceremony or another push is under way

What is in WAITING is judged again; any other reason stays true of this content, and is remembered under its
digest. The reasons of an `EnvelopeRefused` (signing.py) never are: they are true of one envelope under one set of
signers, and the same content may come again with the right signatures. That two who signed a command may not order
it is such a case.
"""

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from agent.clock import Quality
from agent.crypto import signing
from agent.crypto.signing import COMMAND, CONFIGURATION, TRUST, Accepted
from agent.crypto.trust import COMMON, LARGEST_VERSION, Trust, met
from agent.errors import EnvelopeRefused, PushRefused
from agent.pasted import is_name, like_a_key

KINDS = {CONFIGURATION: "configuration", COMMAND: "command", TRUST: "trust"}
COMMANDS = {
    "self_test": "commands",
    "counters": "commands",
    "state": "commands",
    "journal": "commands",
    "diagnostics": "commands",
    "maintenance": "commands",
    "restart": "commands",
    "reboot": "commands",
    "key_order": "keys",
}
"""Command -> the role that two of its signers must have."""
LARGEST_CONFIG = 48 * 1024
"""Bytes of a configuration's text."""
MOST_TARGETS = 1000
MOST_ARGUMENTS, LONGEST_ARGUMENT = 16, 256
DAY = 86_400_000
LONGEST = {"configuration": 366 * DAY, "command": 31 * DAY, "trust": 366 * DAY}
"""Milliseconds from not_before to expires: a command is remembered as long, so that it runs once."""
REASONS = {
    **signing.SENTENCES,
    "not_valid": "what was signed cannot be used here: correct it, and have it signed with a greater version",
    "wrong_target": "this is for another terminal, group or organisation: compare its target with [terminal]",
    "older": "a newer version was decided here already: have this signed anew with a greater version",
    "same_version": "this version was used for other content: have this signed anew with a greater version",
    "replayed": "this was decided here before: nothing is to be done",
    "expired": "its time is over: have it signed anew with a later end",
    "not_yet": "its time has not come: nothing is to be done, it is looked at again then",
    "clock_suspect": "the clock of this terminal cannot be trusted: set it, and this is looked at again",
    "frozen": "the technician holds pushes back: `tillwire config show` says until when, it is judged again then",
    "busy": "a key ceremony or another push is under way: nothing is to be done, it is looked at again after",
}
"""Reason -> one sentence with the next step; also those of an envelope."""
WAITING = frozenset({"not_yet", "clock_suspect", "frozen", "busy"})
"""Reasons that go away by themselves, or by somebody at the terminal: the same push is judged again."""
FINAL = frozenset(REASONS) - WAITING
"""Reasons with which this very envelope has ended."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_WORD = re.compile(r"[a-z][a-z0-9_]{0,31}")


@dataclass(frozen=True, slots=True)
class Target:
    """For whom: one of the three is given."""

    terminals: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    all: bool = False

    def document(self) -> dict[str, Any]:
        """As a payload has it."""
        if self.all:
            return {"all": True}
        return {"terminals": list(self.terminals)} if self.terminals else {"groups": list(self.groups)}

    def __str__(self) -> str:
        if self.all:
            return "all terminals"
        return f"terminals {', '.join(self.terminals)}" if self.terminals else f"groups {', '.join(self.groups)}"


@dataclass(frozen=True, slots=True)
class Push:
    """One push, its shape checked; `judge` tells whether it counts here and now. `roles`: of which two signed."""

    kind: str
    id: str
    digest: str
    signers: tuple[str, ...]
    roles: frozenset[str]
    org: str
    target: Target
    not_before: int
    expires: int
    version: int = 0
    config: str = field(default="", repr=False)
    command: str = ""
    arguments: Mapping[str, str | int | bool] = field(default_factory=dict)
    trust: Trust | None = None


@dataclass(frozen=True, slots=True)
class Site:
    """Who this terminal is."""

    org: str
    terminal: str
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Standing:
    """What was decided here before.

    version   of the newest configuration that was decided
    trust     version of the set of signers in force
    decided   digests of what was decided, well or not
    commands  ids of commands that were begun
    frozen, busy   whether the technician holds pushes back, or something else is under way
    """

    version: int = 0
    trust: int = 0
    decided: Container[str] = frozenset()
    commands: Container[str] = frozenset()
    frozen: bool = False
    busy: bool = False


def refuse(reason: str, what: str = "") -> NoReturn:
    """Raise PushRefused with the sentence of REASONS; what: says more, such as the sentence of a ConfigError."""
    raise PushRefused(reason, f"{what}; {REASONS[reason]}" if what else REASONS[reason])


def read(accepted: Accepted) -> Push:
    """What an accepted envelope says. Raises PushRefused("not_valid")."""
    try:
        content = accepted.content()
    except EnvelopeRefused:
        refuse("not_valid", "it is not JSON with one meaning only")
    kind = KINDS.get(accepted.kind, "")
    if not kind or content.get("format") != f"tillwire-{kind}/1":
        refuse("not_valid", "its format is not that of a push of this version")
    own = {"configuration": _configuration, "command": _command, "trust": _trust}[kind](content)
    if not isinstance(content["id"], str) or not is_name(content["id"]):
        refuse("not_valid", "id must be a short name such as C-0042")
    begin, end = (_number(content, name, 2**53 - 1) for name in ("not_before", "expires"))
    if not begin < end <= begin + LONGEST[kind]:
        refuse("not_valid", f"expires must come after not_before, by {LONGEST[kind] // DAY} days at the most")
    return Push(
        kind=kind,
        id=content["id"],
        digest=accepted.digest,
        signers=tuple(signer.name for signer in accepted.signers),
        roles=met(accepted.signers),
        org=_name(content["org"], "org"),
        target=_target(content["target"], kind),
        not_before=begin,
        expires=end,
        **own,
    )


def kept(text: bytes, digest: str) -> Push:
    """A push that was accepted once, and was kept as it came. Who signed it is not asked again: the set of signers
    may have been replaced since, and what is in force stays so. Raises PushRefused("not_valid") unless its content
    has this digest."""
    try:
        envelope = signing.Envelope.read(text)
    except EnvelopeRefused:
        refuse("not_valid", "what was kept is damaged")
    accepted = Accepted(envelope.kind, envelope.unverified, ())
    if accepted.digest != digest:
        refuse("not_valid", "what was kept is not what was accepted")
    return read(accepted)


def judge(push: Push, site: Site, standing: Standing, wall_ms: int, quality: Quality) -> None:
    """Raise PushRefused unless this push may be acted on at this terminal now; EnvelopeRefused("wrong_role") when
    those who signed may not order this command.

    wall_ms, quality: of this terminal's clock. One that stands before the newest row of the ledger was set back,
    and what has expired would hold again: its quality is unset (agent/clock.py).
    """
    if push.kind == "command" and COMMANDS[push.command] not in push.roles:
        raise EnvelopeRefused("wrong_role", REASONS["wrong_role"])
    if not meant(push, site):
        refuse("wrong_target")
    _refuse_repeated(push, standing)
    if quality == "unset":
        refuse("clock_suspect")
    if wall_ms > push.expires:
        refuse("expired")
    if wall_ms < push.not_before:
        refuse("not_yet")
    # Signers who were robbed of their keys must be replaced in any case.
    if push.kind != "trust" and standing.frozen:
        refuse("frozen")
    if push.kind != "trust" and standing.busy:
        refuse("busy")


def meant(push: Push, site: Site) -> bool:
    """Whether a push is for this terminal."""
    target = push.target
    of_us = target.all or site.terminal in target.terminals or bool(set(target.groups) & set(site.groups))
    return push.org == site.org and of_us


def _refuse_repeated(push: Push, standing: Standing) -> None:
    if push.kind == "command":
        if push.digest in standing.decided or push.id in standing.commands:
            refuse("replayed")
        return
    newest = standing.trust if push.kind == "trust" else standing.version
    # What is older is told as that, also when it was in force once: somebody may want it back who should not.
    if push.version < newest:
        refuse("older")
    if push.digest in standing.decided:
        refuse("replayed")
    if push.version == newest:
        refuse("same_version")


def _configuration(content: Mapping[str, Any]) -> dict[str, Any]:
    _exactly(content, "version", "config")
    text = content["config"]
    if not isinstance(text, str) or not text.strip():
        refuse("not_valid", "config must be the TOML text of the tables that are pushed")
    if len(text.encode()) > LARGEST_CONFIG:
        refuse("not_valid", f"config is longer than {LARGEST_CONFIG} bytes")
    return {"version": _version(content), "config": text}


def _command(content: Mapping[str, Any]) -> dict[str, Any]:
    _exactly(content, "command", "arguments")
    word, arguments = content["command"], content["arguments"]
    if not isinstance(word, str) or word not in COMMANDS:
        refuse("not_valid", f"this version knows no such command; it knows {', '.join(sorted(COMMANDS))}")
    if not isinstance(arguments, dict) or len(arguments) > MOST_ARGUMENTS:
        refuse("not_valid", f"arguments must be an object of {MOST_ARGUMENTS} at the most")
    # A key order is itself signed, and base64 may look like a key by chance; orders.py looks into it.
    fits = _any_text if COMMANDS[word] == "keys" else _short_text
    for name, value in arguments.items():
        if not _WORD.fullmatch(name) or like_a_key(name):
            refuse("not_valid", "the name of an argument has small letters, digits and '_'")
        if not (type(value) in (int, bool) or (isinstance(value, str) and fits(value))):
            refuse(
                "not_valid", f"an argument is a number, true, false or at most {LONGEST_ARGUMENT} letters, no key"
            )
    return {"command": word, "arguments": arguments}


def _trust(content: Mapping[str, Any]) -> dict[str, Any]:
    _exactly(content, "version", "signers", "revoked")
    try:
        trust = Trust.of(content)
    except EnvelopeRefused as error:
        refuse("not_valid", str(error))
    return {"version": trust.version, "trust": trust}


def _exactly(content: Mapping[str, Any], *own: str) -> None:
    """Raise PushRefused unless these are the fields, and those that every payload has."""
    wanted = COMMON | set(own)
    if missing := wanted - set(content):
        refuse("not_valid", f"{', '.join(sorted(missing))} is missing")
    if set(content) - wanted:
        refuse("not_valid", f"there are fields beside {', '.join(sorted(wanted))}")


def _version(content: Mapping[str, Any]) -> int:
    found = _number(content, "version", LARGEST_VERSION)
    return found or refuse("not_valid", "versions begin with 1")


def _number(content: Mapping[str, Any], name: str, most: int) -> int:
    found = content[name]
    if type(found) is not int or not 0 <= found <= most:
        refuse("not_valid", f"{name} must be a whole number up to {most}")
    return found


def _target(found: Any, kind: str) -> Target:
    match found:
        case {"all": True, **more} if not more:
            return Target(all=True)
        case {"terminals": [_, *_] as names, **more} if not more and kind != "trust":
            return Target(terminals=_names(names, "target.terminals"))
        case {"groups": [_, *_] as names, **more} if not more and kind != "trust":
            return Target(groups=_names(names, "target.groups"))
    right = '{"all": true}' if kind == "trust" else '{"terminals": […]}, {"groups": […]} or {"all": true}'
    refuse("not_valid", f"target must be {right}")


def _names(found: list[Any], where: str) -> tuple[str, ...]:
    if len(found) > MOST_TARGETS:
        refuse("not_valid", f"{where} has more than {MOST_TARGETS} names")
    names = tuple(_name(one, where) for one in found)
    if len(set(names)) < len(names):
        refuse("not_valid", f"a name stands twice in {where}")
    return names


def _name(found: Any, where: str) -> str:
    if not isinstance(found, str) or not _NAME.fullmatch(found):
        refuse("not_valid", f"{where}: a name has letters, digits, '.', '_' and '-', at most 64")
    return found


def _short_text(text: str) -> bool:
    return len(text) <= LONGEST_ARGUMENT and not like_a_key(text)


def _any_text(text: str) -> bool:
    return bool(text)
