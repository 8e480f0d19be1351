"""This file knows `tillwire ledger export`, and how exports are checked on any machine that has the public key."""

import os
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from agent.cli import asking, printing
from agent.cli.options import ConfigFile, Json, Offline, Redated, Socket, StoreFile
from agent.cli.printing import cell
from agent.errors import ControlError, CryptoError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from agent.crypto.ed25519 import PublicKey
    from agent.evidence.audit import Audit

Facts = Mapping[str, Any]

LONGEST = 16 * 1024 * 1024
"""Bytes of a line: what is longer is no row of ours, and must not fill the memory."""
OLDEST = 1_000_000_000
"""A whole number is a row below this, and no year either way."""


def join(app: typer.Typer) -> None:
    """Add the commands of this file to `tillwire ledger`."""
    app.command(epilog="Example: tillwire ledger export --from 2026-03-01 --to 2026-03-31 --out march.ledger")(
        export
    )
    app.command(epilog="Example: tillwire ledger key > atm-0001.pem")(key)


def export(
    begin: Annotated[str, typer.Option("--from", metavar="ROW|DATE", help="The first row, or its day.")] = "",
    to: Annotated[str, typer.Option("--to", metavar="ROW|DATE", help="The last row, or its day.")] = "",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", writable=False, help="Where to; otherwise stdout.")
    ] = None,
    redated: Redated = False,
    offline: Offline = False,
    store: StoreFile = None,
    as_json: Json = False,
    socket: Socket = None,
    config: ConfigFile = None,
) -> None:
    """Write rows into a file that anyone can read and check; its end is signed by the agent.

    A date is of this computer's calendar: 2026-03-01, or 2026-03-01T08:30. With --redated the file is for reading
    only, and cannot be checked.
    """
    wanted = {**_bound("from", begin), **_bound("to", to), "redated": redated}
    pieces: Iterable[Facts]
    if offline or store:
        from agent import diagnose

        pieces = diagnose.export(diagnose.find_store(store, config), diagnose.wanted(wanted))
    else:
        pieces = asking.ask(asking.find_socket(socket, config), {"do": "export", **wanted})
    with _target(out) as file:
        done = _written(pieces, file)
    if out and as_json:
        printing.line(done)
    printing.say(f"{done['exported']} rows, {done['from']} to {done['to']}{f', are in {out}' if out else ''}")
    if offline or store:
        printing.say(
            "the end is not signed, the agent alone can do that: rows after the last checkpoint are not proven"
        )


def key(as_json: Json = False, socket: Socket = None, config: ConfigFile = None) -> None:
    """Show the public key by which this agent's exports are checked. Take it from here, not with the export."""
    found = asking.ask_once(asking.find_socket(socket, config), {"do": "signer"})
    printing.line(found if as_json else found["public_key"].rstrip("\n"))


def check(files: Sequence[Path], keys: Sequence[Path], as_json: bool, *, unsigned: bool = False) -> int:
    """Check exports, oldest first; returns the exit code: 0 good, 1 broken."""
    from agent.evidence.audit import Audit, parted

    known = {found.id: found for found in map(_key, keys)}
    audits: list[Audit] = []
    for path in files:
        audit = Audit(known, unsigned)
        _read(path, audit)
        if audits and audit.head and audits[-1].head and (why := parted(audits[-1], audit)):
            audit.findings.insert(0, why)
        audits.append(audit)
    good = not any(audit.findings for audit in audits)
    facts = {
        "good": good,
        "proven": good and all(audit.covered == audit.last for audit in audits),
        "files": [_facts(*one) for one in zip(files, audits, strict=True)],
    }
    printing.show(facts, _verdict, as_json)
    return 0 if good else 1


def _bound(name: str, text: str) -> dict[str, int]:
    """A row's number, or a moment in ms; a day as `to` includes all of it. Raises ControlError."""
    if not text:
        return {}
    if text.isascii() and text.isdigit() and int(text) < OLDEST:
        return {name: int(text)}
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ControlError(f"--{name} wants a row's number or a date like 2026-03-01, not {text!r}", 2) from None
    if name == "to" and len(text) <= len("2026-03-01"):
        moment += timedelta(days=1, milliseconds=-1)
    return {f"{name}_at": max(0, round(moment.timestamp() * 1000))}


@contextmanager
def _target(out: Path | None) -> Iterator[IO[bytes]]:
    """Where the file goes: half of one never has its name."""
    if out is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = out.with_name(f"{out.name}.part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            yield file
        part.replace(out)
    except OSError as error:
        raise ControlError(f"{part} cannot be written ({error.strerror}): give another --out") from error


def _written(pieces: Iterable[Facts], file: IO[bytes]) -> Facts:
    """Write the pieces as they come; a bar on stderr, if a person looks."""
    with _bar("exporting rows") as move:
        for piece in pieces:
            file.write(piece.get("text", "").encode())
            if "progress" in piece:
                move(*piece["progress"])
            if "exported" in piece:
                return piece
    raise asking.cut_short()


def _read(path: Path, audit: "Audit") -> None:
    try:
        with path.open("rb") as file, _bar(f"checking {path.name}") as move:
            done, size = 0, os.fstat(file.fileno()).st_size
            for count, length in enumerate(audit.read(iter(lambda: file.readline(LONGEST), b""))):
                done += length
                if count % 1000 == 0:
                    move(done, size)
    except OSError as error:
        raise ControlError(
            f"{path} cannot be read ({error.strerror}): give a file made by `ledger export`", 2
        ) from error


def _key(path: Path) -> "PublicKey":
    from agent.crypto.ed25519 import PublicKey

    try:
        return PublicKey.from_pem(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ControlError(
            f"{path} cannot be read as a key ({type(error).__name__}): give a PEM file", 2
        ) from error
    except CryptoError as error:
        raise ControlError(f"{path}: {error}", 2) from error


@contextmanager
def _bar(what: str) -> Generator[Any, None, None]:
    from rich.progress import Progress

    drawing = printing.console(stderr=True)
    with Progress(console=drawing, transient=True, disable=not drawing.is_terminal) as progress:
        bar = progress.add_task(what)
        yield lambda done, total: progress.update(bar, completed=done, total=total)


def _facts(path: Path, audit: "Audit") -> dict[str, Any]:
    return {
        "file": str(path),
        "terminal": audit.head.get("terminal", ""),
        "epoch": audit.head.get("epoch", ""),
        "from": audit.head.get("from", 0),
        "to": audit.last,
        "rows": audit.rows,
        "hash": audit.hash,
        "covered": audit.covered,
        "findings": audit.findings,
        "notes": audit.notes,
    }


def _verdict(facts: Facts) -> "RenderableType":
    from rich.console import Group

    lines = []
    for one in facts["files"]:
        for finding in one["findings"]:
            lines.append(cell(f"BROKEN: {one['file']}: {finding}", "bold red"))
        if not one["findings"]:
            signed = f", signed up to row {one['covered']}" if one["covered"] else ""
            lines.append(cell(f"good: {one['file']}: {one['rows']} rows, {one['from']} to {one['to']}{signed}"))
            lines.append(cell(f"  terminal {one['terminal']}, epoch {one['epoch']}, hash {one['hash']}"))
        lines += [cell(f"  note: {note}", "yellow") for note in one["notes"]]
    if facts["good"] and not any(one["covered"] for one in facts["files"]):
        text = (
            "Without --key only the chain was followed. That proves that the rows fit one another, and not who"
            " wrote them: whoever has the file can change a row and make every hash anew."
        )
        lines.append(cell(text, "yellow"))
    return Group(*lines)
