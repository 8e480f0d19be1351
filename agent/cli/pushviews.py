"""This file knows how a push is shown to those who sign it: what it is, for whom, until when, each line of it."""

from collections.abc import Iterator, Mapping, Sequence
from difflib import unified_diff
from typing import TYPE_CHECKING, Any

from agent.cli import printing, wording
from agent.cli.printing import cell

if TYPE_CHECKING:
    from rich.console import RenderableType

    from agent.crypto.trust import Trust
    from agent.pushes import Push

STYLES = {"+": "green", "-": "red", "@": "cyan"}
LEAP, HIGH = 1000, 10**8
"""How much a version may be above the one before, and how high, before somebody is asked."""


def facts(push: "Push") -> dict[str, Any]:
    """A push for programs, without its body."""
    found: dict[str, Any] = {
        "kind": push.kind,
        "id": push.id,
        "org": push.org,
        "target": push.target.document(),
        "not_before": push.not_before,
        "expires": push.expires,
        "digest": push.digest,
    }
    if push.kind == "command":
        return {**found, "command": push.command, "arguments": dict(push.arguments)}
    return {**found, "version": push.version}


def body(push: "Push") -> list[str]:
    """What a push brings, line by line."""
    if push.trust is not None:
        return people(push.trust)
    if push.kind == "command":
        return [push.command, *(f"{name} = {content!r}" for name, content in push.arguments.items())]
    return push.config.splitlines()


def people(trust: "Trust") -> list[str]:
    """A set of signers, line by line."""
    signers = [f"{s.name}: {', '.join(sorted(s.roles))}; key {s.key.id}" for s in trust.signers]
    return [*signers, *(f"revoked: key {key_id}" for key_id in sorted(trust.revoked))]


def difference(before: Sequence[str], after: Sequence[str]) -> list[str]:
    """What is new and what is gone, with a few lines around it; all is new after nothing."""
    return list(unified_diff(before, after, lineterm="", n=2))[2:]


def leap(version: int, before: int) -> str:
    """That a version can hardly be meant, as a sentence. before: the version in force, 0 when it is not known."""
    if version <= HIGH and (not before or version - before <= LEAP):
        return ""
    was = f", and what is in force is version {before}" if before else ""
    return f"this is version {version}{was}: who takes it never takes one below it again"


def tell(push: "Push", understood: Mapping[str, Any] | None, before: Sequence[str] = ()) -> None:
    """Show a push to the person who is about to sign it. understood: what its configuration says."""
    out = printing.console(stderr=True)
    for name, text in rows(push, understood):
        printing.say(f"  {name:11}{text}")
    for line in difference(before, body(push)) or ["  nothing differs from what was given with --against"]:
        out.print(cell(line, STYLES.get(line[:1], "")))


def rows(push: "Push", understood: Mapping[str, Any] | None = None) -> Iterator[tuple[str, str]]:
    """What it is, for whom and until when."""
    yield "what", push.kind + (f" {push.command}" if push.command else f" version {push.version}")
    yield "id", push.id
    yield "for", f"{push.target}, of {push.org}"
    yield "holds", f"from {wording.clock(push.not_before)} to {wording.clock(push.expires)}, local time"
    yield "digest", push.digest
    if understood is not None:
        yield "broker", understood["broker"]
        for device in understood["devices"]:
            yield device["name"], f"{device['kind']} at {device['port']}, {device['access']}"


def verdict(found: Mapping[str, Any], push: "Push | None") -> "RenderableType":
    """What `verify` found."""
    from rich.console import Group
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    for name in found["signers"]:
        table.add_row(cell("  signed by"), cell(name, "bold"))
    if push and not found["signers"]:
        table.add_row(cell("  careful"), cell("nobody whose signature counts has signed what follows", "yellow"))
    for name, text in rows(push) if push else ():
        table.add_row(cell(f"  {name}"), cell(text))
    lines = [cell(line) for line in body(push)] if push else []
    if found["ok"]:
        head = [cell("two people signed it, and it would be taken", "green")]
    else:
        head = [cell(f"refused ({one['reason']}): {one['sentence']}", "red") for one in found["reasons"]]
    return Group(*head, table, *lines)
