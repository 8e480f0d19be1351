"""This file knows the desk of `tillwire push`: keys, signatures and a look at what was signed; it needs no network.

Two people sign. The first says what shall be pushed (`sign`), the second looks at it (`cosign`); what both have
signed goes to the terminals with `tillwire push send`.
"""

import re
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from agent.cli import printing, pushkeys, pushviews
from agent.cli.options import Json
from agent.cli.pushkeys import Against, Key, PasswordFile, Signers
from agent.errors import ControlError, EnvelopeRefused, PushRefused
from agent.timepiece import wall_ms

if TYPE_CHECKING:
    from agent.pushes import Push

app = typer.Typer(
    name="push", help="What the centre pushes: configurations, commands, signers.", no_args_is_help=True
)

T = TypeVar("T")
UNITS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000}
EnvelopeFile = Annotated[Path, typer.Argument(metavar="ENVELOPE", readable=False, help="What was signed.")]


@app.callback()
def _group() -> None:
    """What the centre pushes: configurations, commands, signers."""


@app.command(epilog="Example: tillwire push keygen ann --to ann.pem --role config --role trust >> signers.toml")
def keygen(
    name: Annotated[str, typer.Argument(help="Whose key it is: one name for one person.")],
    to: Annotated[Path, typer.Option(help="A new file for the private key, under a password.")],
    role: Annotated[
        list[str], typer.Option(help="What the person may sign: config, commands, keys, trust; can be given again.")
    ],
    password_file: PasswordFile = None,
    as_json: Json = False,
) -> None:
    """Make a signing key for one person, and print its entry for the file of signers."""
    from agent.crypto.trust import ROLES
    from agent.pasted import is_name

    if not set(role) <= set(ROLES):
        raise typer.BadParameter(f"a role is one of {', '.join(ROLES)}")
    if not is_name(name):
        raise typer.BadParameter("a name has letters, digits, '.', '_' and '-', at most 48")
    public = pushkeys.make(to, password_file).public
    roles = sorted(set(role))
    printing.say(f"key id {public.id}; keep {to} where only {name} can read it")
    if as_json:
        printing.line({"name": name, "roles": roles, "id": public.id, "key": public.pem})
        return
    spelled = ", ".join(f'"{one}"' for one in roles)
    printing.line(f"[[signer]]\nname = \"{name}\"\nroles = [{spelled}]\nkey = '''{public.pem}'''\n")


@app.command(
    epilog="Example: tillwire push sign north.toml --version 7 --id C-0042 --org example-coop --group north"
    " --key ann.pem > north.ann.json"
)
def sign(
    id_: Annotated[str, typer.Option("--id", help="A name by which people speak of it.")],
    org: Annotated[str, typer.Option(help="The organisation that terminals have in [terminal].")],
    key: Key,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]",
            readable=False,
            help="A configuration: the TOML text of the tables that are not local.",
        ),
    ] = None,
    command: Annotated[str, typer.Option(help="Instead: a command, such as self_test.")] = "",
    argument: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Of the command; VALUE can be @FILE.", show_default=False),
    ] = None,
    trust: Annotated[
        Path | None,
        typer.Option(metavar="FILE", readable=False, help="Instead: the next file of signers.", show_default=False),
    ] = None,
    revoke: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEYID", help="With --trust: a key that counts no more, --revoke=KEYID.", show_default=False
        ),
    ] = None,
    version: Annotated[int, typer.Option(min=0, help="Grows with each configuration, or set of signers.")] = 0,
    terminal: Annotated[list[str] | None, typer.Option(help="For whom; can be given again.")] = None,
    group: Annotated[list[str] | None, typer.Option(help="For the terminals of a group.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="For all terminals of the organisation.")] = False,
    begins: Annotated[str, typer.Option(metavar="TIME", help="From now: 30m, 12h, 7d.")] = "0m",
    expires: Annotated[
        str,
        typer.Option(
            metavar="TIME", help="After it begins: 7d, signers 366d; a command rather 1h.", show_default=False
        ),
    ] = "",
    against: Against = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask about a version that leaps.")] = False,
    password_file: PasswordFile = None,
) -> None:
    """Say what shall be pushed, look at it, and sign it as the first. The envelope goes to stdout."""
    from agent.crypto.signing import COMMAND, CONFIGURATION, TRUST, Envelope

    if sum((file is not None, bool(command), trust is not None)) != 1:
        raise typer.BadParameter("give one of: FILE for a configuration, --command, --trust")
    if (argument and not command) or (revoke and trust is None):
        raise typer.BadParameter("--argument belongs to --command, and --revoke to --trust")
    if bool(command) == bool(version):
        raise typer.BadParameter("a configuration or a set of signers has a --version from 1, a command has none")
    begin = wall_ms() + _duration(begins)
    content: dict[str, Any] = {
        "id": id_,
        "org": org,
        "target": _target(terminal, group, all_ or trust is not None),
        "not_before": begin,
        "expires": begin + _duration(expires or ("366d" if trust is not None else "7d")),
    }
    if file is not None:
        kind, word, own = CONFIGURATION, "configuration", {"version": version, "config": pushkeys.text_of(file)}
    elif trust is not None:
        kind, word, own = TRUST, "trust", {"version": version, **_signers(trust, revoke or [])}
    else:
        kind, word = COMMAND, "command"
        own = {"command": command, "arguments": dict(_argument(text) for text in argument or [])}
    payload = _payload({**content, "format": f"tillwire-{word}/1", **own})
    push = _read(kind, payload)
    pushviews.tell(push, _understood(push), _before(against, push) if against else ())
    if (leap := _leap(against, push)) and not yes:
        printing.say(f"careful: {leap}")
        if pushkeys.ask("To sign all the same, type the version:") != str(version):
            raise ControlError("that is not the version: nothing was signed", 1)
    signed = Envelope(kind, payload).signed(pushkeys.opened(key, password_file))
    sys.stdout.write(signed.text.decode() + "\n")
    printing.say("signed by one: the second person looks at it, and signs, with `tillwire push cosign`")


@app.command(epilog="Example: tillwire push cosign north.ann.json --key bo.pem --signers signers.toml > north.json")
def cosign(
    envelope: EnvelopeFile,
    key: Key,
    signers: Signers = None,
    against: Against = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask: you looked at it with `verify`.")] = False,
    password_file: PasswordFile = None,
) -> None:
    """Look at what somebody signed, and sign it as the second. The envelope goes to stdout."""
    from agent.crypto.signing import SENTENCES, Envelope

    text = pushkeys.read(envelope).strip()
    found = Envelope.read(text)
    if not found.signatures:
        raise EnvelopeRefused("unsigned", SENTENCES["unsigned"])
    push = _read(found.kind, found.unverified)
    trust = pushkeys.trusted(signers) if signers else None
    if trust:
        first = trust.begun(text, found.kind)
        printing.say(f"signed by {', '.join(signer.name for signer in first.signers)}")
    else:
        printing.say("who signed before you was not checked: give --signers with the file that terminals have")
    pushviews.tell(push, _understood(push), _before(against, push) if against else ())
    if push.expires < wall_ms():
        printing.say("careful: its time is over, no terminal will take it")
    if leap := _leap(against, push):
        printing.say(f"careful: {leap}")
    if not yes:
        what, wanted = ("id", push.id) if push.kind == "command" else ("version", str(push.version))
        if pushkeys.ask(f"To sign, type the {what}:") != wanted:
            raise ControlError(f"that is not the {what}: nothing was signed", 1)
    signed = found.signed(pushkeys.opened(key, password_file)).text
    if trust:
        trust.accept(signed, found.kind)
    sys.stdout.write(signed.decode() + "\n")
    printing.say("signed: `tillwire push send` brings it to the terminals")


@app.command(epilog="Example: tillwire push verify north.json --signers signers.toml --terminal ATM-0042")
def verify(
    envelope: EnvelopeFile,
    signers: Signers,
    terminal: Annotated[str, typer.Option(help="Would this terminal take it?")] = "",
    group: Annotated[list[str] | None, typer.Option(help="A group that the terminal is of.")] = None,
    org: Annotated[str, typer.Option(help="Its organisation; without it, that of the push.")] = "",
    as_json: Json = False,
) -> None:
    """Show who signed, what it says, and whether a terminal would take it. Ends with 1 when it would not."""
    from agent.crypto.signing import Envelope, Signer
    from agent.crypto.trust import ROLES, steps
    from agent.pushes import Site, Standing, judge

    if signers is None:
        raise typer.BadParameter("give --signers, the file that terminals have")
    (*before, text), trust = steps(pushkeys.read(envelope)), pushkeys.trusted(signers)
    push: Push | None = None
    people: tuple[Signer, ...] = ()
    first: tuple[Signer, ...] = ()
    objections: dict[str, str] = {}

    def look(at: Callable[[], T]) -> T | None:
        try:
            return at()
        except (EnvelopeRefused, PushRefused) as error:
            objections.setdefault(error.reason, str(error))
            return None

    for step in before:
        with suppress(EnvelopeRefused):  # of a chain of rotations only those count that lead on from the set
            trust = trust.rotated(step)
    found = look(lambda: Envelope.read(text))
    if found:
        accepted = look(lambda: trust.accept(text, _kind(found.kind)))
        people = accepted.signers if accepted else ()
        with suppress(EnvelopeRefused):
            first = people or trust.begun(text, _kind(found.kind)).signers
        push = look(lambda: _read(found.kind, found.unverified, people))
    if push:
        # Who signed was told above; without it, the rest is looked at as if it were in order.
        meant = push if people else replace(push, roles=frozenset(ROLES))
        somebody = Site(push.org, next(iter(push.target.terminals), ""), push.target.groups)
        named = Site(org or push.org, terminal, tuple(group or ()))
        site = named if terminal or group or org else somebody
        look(lambda: judge(meant, site, Standing(), wall_ms(), "free"))
        look(lambda: _understood(meant))
        if people and push.trust:
            look(lambda: trust.rotated(text))
    reasons = [{"reason": reason, "sentence": sentence} for reason, sentence in objections.items()]
    report = {
        "ok": not reasons,
        "reasons": reasons,
        "signers": [signer.name for signer in first],
        "says": pushviews.facts(push) if push else None,
    }
    printing.show(report, lambda found: pushviews.verdict(found, push), as_json)
    if reasons:
        raise typer.Exit(1)


def _read(kind: str, payload: bytes, people: Any = ()) -> "Push":
    """What a payload says, whoever signed it. Raises PushRefused, or EnvelopeRefused for what is no push at all."""
    from agent.crypto.signing import SENTENCES, Accepted
    from agent.crypto.trust import LARGEST
    from agent.pushes import read

    if len(payload) > LARGEST[_kind(kind)]:
        raise EnvelopeRefused("too_large", SENTENCES["too_large"])
    return read(Accepted(kind, payload, tuple(people)))


def _kind(kind: str) -> str:
    """The same, when it is of a push. Raises EnvelopeRefused."""
    from agent.crypto.signing import SENTENCES
    from agent.crypto.trust import LARGEST

    if kind not in LARGEST:
        raise EnvelopeRefused("wrong_type", SENTENCES["wrong_type"])
    return kind


def _understood(push: "Push") -> dict[str, Any] | None:
    """What the configuration in a push says. Raises PushRefused("not_valid") when no terminal could take it."""
    from agent import diagnose
    from agent.errors import ConfigError
    from agent.pushes import refuse

    if push.kind != "configuration":
        return None
    try:
        return diagnose.check_pushed(push.config)
    except ConfigError as error:
        refuse("not_valid", str(error))


def _before(file: Path, push: "Push") -> list[str]:
    """The lines of what a push replaces: an envelope, or the file that was signed."""
    from agent.crypto.signing import Envelope

    text = pushkeys.text_of(file)
    try:
        found = Envelope.read(text.strip().encode())
        return pushviews.body(_read(found.kind, found.unverified))
    except EnvelopeRefused:
        return pushviews.people(pushkeys.trusted(file)) if push.trust else text.splitlines()


def _leap(against: Path | None, push: "Push") -> str:
    """That a version can hardly be meant: no terminal that takes it takes one below it, ever."""
    from agent.crypto.signing import Envelope

    before = 0
    with suppress(EnvelopeRefused, PushRefused):
        found = Envelope.read(pushkeys.read(against).strip()) if against else None
        before = _read(found.kind, found.unverified).version if found else 0
    return pushviews.leap(push.version, before)


def _signers(file: Path, revoke: list[str]) -> dict[str, Any]:
    """A file of signers as a payload has it, with more keys revoked."""
    document = pushkeys.trusted(file).document()
    return {**document, "revoked": sorted({*document["revoked"], *revoke})}


def _target(terminals: list[str] | None, groups: list[str] | None, everybody: bool) -> dict[str, Any]:
    if sum((bool(terminals), bool(groups), everybody)) != 1:
        raise typer.BadParameter("give one of --terminal, --group or --all; signers are for all")
    return {"all": True} if everybody else {"terminals": terminals} if terminals else {"groups": groups}


def _argument(text: str) -> tuple[str, str | int | bool]:
    name, equals, given = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"{name}: write an argument like device=ups1")
    if given.startswith("@"):
        return name, pushkeys.text_of(Path(given[1:])).strip()
    if given in ("true", "false"):
        return name, given == "true"
    return name, int(given) if re.fullmatch(r"-?(0|[1-9]\d{0,14})", given) else given


def _duration(text: str) -> int:
    """Milliseconds of a time such as 7d."""
    found = re.fullmatch(r"(\d{1,5})([mhd])", text)
    if not found:
        raise typer.BadParameter(f"{text!r}: write a time like 30m, 12h or 7d")
    return int(found[1]) * UNITS[found[2]]


def _payload(content: dict[str, Any]) -> bytes:
    import json

    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
