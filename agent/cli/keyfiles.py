"""This file knows the files that the commands about keys read and write: orders, key blocks and receipts.

Nothing of a file that is not what it should be is ever shown, and one that holds a component spoils it: it is told
to the agent, and refused.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.cli.exposed import declared
from agent.crypto.phrases import REFUSALS
from agent.errors import BlockRefused, ControlError, EnvelopeRefused
from agent.pasted import holds_a_key

LARGEST = 200_000
"""Bytes of a file; a signed order of the largest size is smaller."""
RECEIPT_BLOCK = "-----BEGIN"
"""Where the page of a receipt ends."""


def order(file: Path, socket: Path) -> str:
    """The text of a signed order. Raises Exposed, EnvelopeRefused or ControlError; none repeats any of it."""
    from agent.crypto.receipts import BEGIN
    from agent.crypto.signing import Envelope

    text = _read(file).decode("utf-8", errors="replace")
    try:
        Envelope.read(text.strip().encode())
    except EnvelopeRefused:
        if BEGIN in text:  # its hashes look like keys
            raise ControlError("this is a receipt and no order: give the order, as it came signed", 2) from None
        if _is_block(text):
            raise ControlError(
                "this is a key block and no order: `tillwire keys part --block FILE`, once its order asks for it", 2
            ) from None
        _refuse_component(text, socket)
        raise
    return text


def block(file: Path, document: Mapping[str, Any] | None, socket: Path) -> bytes:
    """The key block that an order names by its SHA-256; document: of that order. Raises as `order` does."""
    wanted = (document or {}).get("block")
    if not wanted:
        raise ControlError(
            "no order that asks for a key block is running: `tillwire keys status` tells the next step", 1
        )
    data = _read(file)
    if wanted not in (hashlib.sha256(data).hexdigest(), hashlib.sha256(data.strip()).hexdigest()):
        text = data.decode("utf-8", errors="replace")
        if not _is_block(text):
            _refuse_component(text, socket)
        raise ControlError(REFUSALS["other_block"].en, 1)
    return data


def checked(file: Path, key: Path) -> Any:
    """A receipt that holds, as `receipts.Checked`: with the terminal's public key alone, and without any agent.

    Raises EnvelopeRefused, CryptoError or ControlError.
    """
    from agent.crypto import receipts
    from agent.crypto.ed25519 import PublicKey

    public = PublicKey.from_pem(_read(key).decode("ascii", errors="replace"))
    return receipts.read(_read(file).decode("utf-8", errors="replace"), public)


def page(receipt: str) -> str:
    """The readable part of a receipt."""
    return receipt.partition(RECEIPT_BLOCK)[0].rstrip()


def keep(receipt: str, file: Path) -> None:
    """Write a receipt; the same receipt may be there already. Raises ControlError."""
    data = receipt.encode()
    try:
        with file.open("xb") as new:
            new.write(data)
    except FileExistsError:
        if _read(file) != data:
            raise ControlError(f"{file} is there and is something else: give another name", 2) from None
    except OSError as error:
        raise ControlError(f"{file} cannot be written ({error.strerror}): give another name", 2) from error


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            data = opened.read(LARGEST + 1)
    except OSError as error:
        raise ControlError(
            f"{file} cannot be read ({error.strerror}): give the file as you received it", 2
        ) from error
    if len(data) > LARGEST:
        raise ControlError(f"{file} is larger than anything that belongs here: give the file as you received it", 2)
    return data


def _is_block(text: str) -> bool:
    from agent.crypto.keyblock import KeyBlock

    try:
        KeyBlock.parse(text.strip())
    except BlockRefused:
        return False
    return True


def _refuse_component(text: str, socket: Path) -> None:
    if holds_a_key(text):
        raise declared("file", socket) from None
