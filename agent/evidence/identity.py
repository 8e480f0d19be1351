"""This file knows who this agent is: its signing key, sealed, and at which level.

The key (Ed25519, RFC 8032) lies in `secrets.sealed` under the name `identity`; agent/crypto/sealing.py tells what
each level protects from. It is made once, at the first start. From then on the ledger remembers the file's mark and
the key's id, and a file that is gone, older, damaged, another terminal's, at a lower level or with another key is
refused with a sentence. Nothing is made anew then: a new key would sign receipts that do not hold under the old
one, and nobody would know why.
"""

import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.crypto.ed25519 import SigningKey
from agent.crypto.keepers import Keeper
from agent.crypto.sealing import FILE, Mark, SecretStore, keepers
from agent.errors import CryptoError

NAME = "identity"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this agent is. why: why the key cannot be had; then key and mark are None.

    created: the key was made just now; passed_over: why each better level is not the one of a file just made.
    """

    key: SigningKey | None = field(default=None, repr=False)
    mark: Mark | None = None
    created: bool = False
    passed_over: tuple[str, ...] = ()
    why: str = ""


def remembered(rows: Iterable[Mapping[str, Any]]) -> tuple[Mark | None, str]:
    """The newest mark and key id in rows of the ledger, oldest row first; None and "": they know of none."""
    found = [
        (Mark(row["level"], row["generation"]), str(row.get("key", ""))) for row in rows if row["kind"] == "sealed"
    ]
    return found[-1] if found else (None, "")


def open_identity(
    folder: Path,
    terminal: str,
    expected: Mark | None,
    kept_by: Sequence[Keeper] | None = None,
    key_id: str = "",
) -> Identity:
    """Open the sealed file in `folder`, or make it when there was none before.

    expected: the newest mark that is remembered; None: there never was one. kept_by: who may keep the file's key,
    best first; otherwise whatever this machine has. key_id: of the key that is remembered; "": none is. Raises
    nothing that the disk or a keeper can cause: an agent without its key still watches its devices.
    """
    path, able = folder / FILE, keepers(folder) if kept_by is None else kept_by
    try:
        with _alone(folder), _opened(path, terminal, expected, able) as store:
            created = NAME not in store.names() and expected is None
            if created:
                with SigningKey.generate().seed() as seed:
                    store.put(NAME, seed)
            with store.get(NAME) as seed:
                key = SigningKey(seed)
            if key_id and key.public.id != key_id:
                return Identity(why=f"{path}: holds another key than the ledger remembers; put the right file back")
            return Identity(key, store.mark, created, store.passed_over)
    except CryptoError as error:
        return Identity(why=str(error))
    except OSError as error:
        return Identity(why=f"{path}: cannot be used ({error.strerror}); give the folder to the agent's user")


def _opened(path: Path, terminal: str, expected: Mark | None, able: Sequence[Keeper]) -> SecretStore:
    # A first start may have been cut short before the key was in the file: then it is there without the key.
    if expected is None and not path.exists():
        return SecretStore.create(path, terminal, able)
    return SecretStore.open(path, terminal, able, expected)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """While no other process makes a key here: the later file would replace the earlier one, and its key."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
