"""This file knows how the key room's records become signed orders: `tillwire keyroom order`, `signer` and `sign`.

An order names envelopes and check values, and no secret. Two people sign it, each with a key of their own that is
kept under a passphrase; a terminal carries out nothing else.
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from agent.cli import printing, wording
from agent.cli.options import Json
from agent.errors import ControlError, CryptoError
from agent.timepiece import wall_ms

DAY_MS = 86_400_000
LEAST_PASSPHRASE = 12
TIMES = ("applied", "not_before", "not_after")
NEXT = {
    1: "the second person looks at it and signs:"
    " `tillwire keyroom sign SIGNED --key THEIRS.pem --signed-by YOURS.pub`",
    2: "carry it to the terminal: `tillwire keys order SIGNED`",
}
"""By the number of signatures: what becomes of a signed order."""
FROM_BLOCK = ("under", "usage", "mode", "algorithm", "exportability", "digits")


def join(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command(
        epilog="Example: tillwire keyroom order made.json --id KO-0001 --epp-serial EPP-0001 --usage K0 --mode B"
        " --group tellers --group audit"
    )(order)
    app.command(epilog="Example: tillwire keyroom signer --to ann.pem")(signer)
    app.command(epilog="Example: tillwire keyroom sign order.json --key ann.pem")(sign)


def order(
    record: Annotated[Path, typer.Argument(readable=False, help="What `make` or `wrap` printed with --json.")],
    id_: Annotated[str, typer.Option("--id", help="The order's number; it can be used once.")],
    epp_serial: Annotated[str, typer.Option(help="The serial number that the EPP itself reports.")],
    usage: Annotated[str, typer.Option(help="Key usage; of a block, its own.")] = "",
    mode: Annotated[str, typer.Option(help="Mode of use; of a block, its own.")] = "",
    version: Annotated[int, typer.Option(min=1, max=99, help="Grows with each key of the slot.")] = 1,
    group: Annotated[
        list[str] | None, typer.Option(help="Who may open an envelope; one group for each component.")
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=31, help="How long it holds.")] = 14,
) -> None:
    """Make an order, still unsigned, of what `make` or `wrap` recorded. It goes to stdout."""
    from agent.crypto.orders import FORMAT, Order
    from agent.crypto.signing import ORDER, Envelope

    made = _json(record)
    now = wall_ms()
    fields: dict[str, Any] = {
        "format": FORMAT,
        "id": id_,
        "epp_serial": epp_serial,
        "kind": "load",
        "version": version,
        "hierarchy": "test" if made.get("drill") else "production",
        "exportability": "N",
        "usage": usage,
        "mode": mode,
        "not_before": now,
        "not_after": now + days * DAY_MS,
        **{name: made.get(name) for name in ("terminal", "slot", "kcv")},
    }
    match made.get("act"):
        case "make":
            parts = made.get("parts", [])
            if group is None or len(group) != len(parts):
                raise typer.BadParameter(f"give --group {len(parts)} times: who may open which envelope")
            fields |= {"method": "components", "algorithm": made.get("algorithm"), "digits": made.get("digits")}
            fields["parts"] = [
                {"envelope": part["envelope"], "kcv": part["kcv"], "group": name}
                for part, name in zip(parts, group, strict=True)
            ]
        case "wrap":
            fields |= {name: made.get(name) for name in FROM_BLOCK}
            fields |= {"method": "block", "form": "tr31", "block": made.get("sha256")}
            fields["version"] = int(made.get("key_version", 0))
        case _:
            raise ControlError(f"{record} is no record of `make` or `wrap`: run that with --json and keep it", 2)
    try:
        checked = Order.parse(fields)
    except CryptoError as error:
        raise typer.BadParameter(f"no order can be made of this: {error}") from error
    payload = json.dumps(checked.document(), sort_keys=True, separators=(",", ":")).encode()
    printing.line(Envelope(ORDER, payload).text.decode())
    printing.say("next: two people look at it and sign, each with `tillwire keyroom sign ORDER --key THEIRS.pem`")


def signer(
    to: Annotated[Path, typer.Option(help="A new file for the private key, under a passphrase.")],
    as_json: Json = False,
) -> None:
    """Make a signing key for one person, under a passphrase; the public key goes to stdout."""
    from agent.cli.custodians import Table
    from agent.crypto.ed25519 import SigningKey

    table = Table.open()
    with (
        table.hidden(f"a passphrase for it, {LEAST_PASSPHRASE} characters or more:") as phrase,
        table.hidden("once more:") as again,
    ):
        if phrase != again or len(phrase) < LEAST_PASSPHRASE:
            raise ControlError(
                f"the passphrase is too short ({LEAST_PASSPHRASE} at the least), or the two differ", 2
            )
        key = SigningKey.generate()
        text = key.pem(phrase)
    try:
        handle = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ControlError(f"{to} cannot be made ({error.strerror}): give a file that is not there yet") from error
    with open(handle, "w", encoding="ascii") as file:
        file.write(text)
    table.say(f"key id {key.public.id}")
    printing.line({"id": key.public.id, "pem": key.public.pem} if as_json else key.public.pem.rstrip())
    table.say("next: the public key goes into the terminals' file of signers; the key id is compared by telephone")


def sign(
    order_file: Annotated[Path, typer.Argument(metavar="ORDER", readable=False, help="The order.")],
    key: Annotated[Path, typer.Option(readable=False, help="Your private key.")],
    signed_by: Annotated[
        Path | None,
        typer.Option(readable=False, help="The public key of who signed before you.", show_default=False),
    ] = None,
) -> None:
    """Look at an order, and sign it. The signed order goes to stdout; two different people must sign."""
    from agent.cli.custodians import Table
    from agent.crypto import strictjson
    from agent.crypto.ed25519 import PublicKey, SigningKey
    from agent.crypto.orders import Order
    from agent.crypto.signing import ORDER, Envelope, Keyring, Rule, Signer, accept

    text = _bytes(order_file)
    envelope = Envelope.read(text)
    if envelope.signatures:
        if signed_by is None:
            raise typer.BadParameter("somebody signed it before: give their public key with --signed-by")
        first = Signer(
            "first", PublicKey.from_pem(_bytes(signed_by).decode("ascii", "replace")), frozenset(("maker",))
        )
        accept(text, Rule(ORDER, ("maker",)), Keyring((first,)))
    try:
        found = Order.parse(strictjson.read(envelope.unverified))
    except ValueError:
        raise ControlError(f"{order_file} holds no order: ask its maker for the original", 2) from None
    table = Table.open()
    for name, content in found.document().items():
        told = wording.clock(content) if name in TIMES and content else _told(content)
        table.say(printing.plain(f"  {name:14}{told}"))
    if not table.agreed("Is this what was asked for, and do you sign it?"):
        raise ControlError("not signed", 1)
    with table.hidden("your passphrase:") as phrase:
        signed = envelope.signed(SigningKey.from_pem(_bytes(key).decode("ascii", "replace"), phrase))
    sys.stdout.write(signed.text.decode() + "\n")
    table.say(f"next: {NEXT[min(len(signed.signatures), 2)]}")


def _told(content: Any) -> str:
    if isinstance(content, list):
        return "; ".join(_told(one) for one in content)
    return " ".join(map(str, content.values())) if isinstance(content, Mapping) else str(content)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ControlError(f"{path} cannot be read ({error.strerror}): is the name right?", 2) from error


def _json(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(_bytes(path))
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}
