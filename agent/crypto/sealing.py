"""This file knows where the agent's own secrets rest: its signing key, its TLS key; never a payment key.

They lie in one file, encrypted with AES-256-GCM. Who keeps the key of that file is its level, best first:

    tpm2        a TPM 2.0 (tpm.py): the file opens on this chip only, and an older file is told from the newest
    credential  systemd: root makes a credential once (`tillwire keys credential`), the unit has
                LoadCredentialEncrypted=, and systemd gives it to the agent alone, in memory, at each start
                (systemd.exec(5), systemd-creds(1))
    file        nobody: the key is computed (scrypt) from this machine's id and a salt file of mode 0600. A stolen
                copy of the folder without the machine's id, or of the disk without the salt, is of no use; whoever
                is root here opens it

The level is chosen once, by `create`, which says why each better one was passed over. From then on the file names
its level, and nothing goes down by itself: when the keeper is gone the file does not open, with the reason.
`mark` is public. Whoever publishes it and writes it into the ledger can give it back to `open`, which then tells a
file of a lower level and an older file. With a TPM the chip's counter tells the older file without that.

    {"format": "tillwire-sealed/1", "terminal", "level", "generation", "count", "kept": {…}, "nonce", "sealed"}
    additional data: all of that but `sealed`, as JSON with sorted keys and no spaces

What is refused, `SealRefused.reason`:

    missing   no file, or no secret of that name         exists   there is a file already
    lost      who keeps the key is not here (any more)    exposed  others can read the salt
    damaged   the file was changed, cut, or is another terminal's
    older     the file was replaced by an older one       lowered  the level is lower than it was
    unwritten the disk does not take the file, or it would become larger than 1 MiB
"""

import base64
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from Crypto.Cipher import AES

from agent.crypto import strictjson
from agent.crypto.keepers import LEVELS, Credential, Keeper, Machine, derived, write
from agent.crypto.secret import Secret, wipe
from agent.crypto.tpm import DEVICE, Tpm
from agent.errors import SealRefused

FILE = "secrets.sealed"
"""Its name, in the agent's data folder."""
FORMAT = "tillwire-sealed/1"
LARGEST = 1 << 20
TAG = 16
_FIELDS = {
    "format": str,
    "terminal": str,
    "level": str,
    "generation": int,
    "count": int,
    "kept": dict,
    "nonce": str,
}
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Mark:
    """What may be known of a store: its level, and a number that grows by one with each change."""

    level: str
    generation: int


def keepers(folder: Path, tcti: str = DEVICE) -> tuple[Keeper, ...]:
    """All that this machine may have, best first; `folder` takes the salt."""
    given = os.environ.get("CREDENTIALS_DIRECTORY")
    return Tpm(tcti), Credential(Path(given) if given else None), Machine(folder / "seal.salt")


class SecretStore:
    """Secrets by name (a-z 0-9 . _ -). In a `with` they are wiped from memory at its end."""

    def __init__(self, path: Path, terminal: str, keeper: Keeper, key: Secret, kept: dict[str, str]) -> None:
        self._path, self._terminal, self._keeper, self._key, self._kept = path, terminal, keeper, key, kept
        self._secrets: dict[str, Secret] = {}
        self._generation = 0
        self.passed_over: tuple[str, ...] = ()
        """Of a store just created: why each better level is not the one in use."""

    @classmethod
    def create(cls, path: Path, terminal: str, keepers: Iterable[Keeper]) -> "SecretStore":
        """A new, empty store with the first keeper that can. Raises SealRefused("exists"), "lost": none can."""
        if path.exists():
            raise SealRefused("exists", f"{path}: there are secrets already; move the file away to begin anew")
        passed_over = []
        for keeper in keepers:
            try:
                store = cls(path, terminal, keeper, *keeper.make())
            except SealRefused as error:
                passed_over.append(f"{keeper.level}: {error}")
                continue
            store._save({})
            store.passed_over = tuple(passed_over)
            return store
        raise SealRefused("lost", f"nothing here can keep a key ({'; '.join(passed_over)})")

    @classmethod
    def open(
        cls, path: Path, terminal: str, keepers: Iterable[Keeper], expected: Mark | None = None
    ) -> "SecretStore":
        """An existing store, with the keeper that its file names. `expected`: the newest mark that is remembered.

        Raises SealRefused; nothing is changed or made anew then.
        """
        head, sealed = _read(path, terminal)
        mark = Mark(head["level"], head["generation"])
        if expected is not None and LEVELS.index(mark.level) < LEVELS.index(expected.level):
            raise SealRefused(
                "lowered", f"{path}: is kept as {mark.level} and was kept as {expected.level}: who changed that?"
            )
        older = SealRefused(
            "older", f"{path}: was replaced by an older one; put the newest back, or renew the secrets"
        )
        if expected is not None and mark.generation < expected.generation:
            raise older
        keeper = next((keeper for keeper in keepers if keeper.level == mark.level), None)
        if keeper is None:
            raise SealRefused("lost", f"{path}: is kept as {mark.level}, and that is not set up here any more")
        try:
            store = cls(path, terminal, keeper, keeper.fetch(head["kept"]), head["kept"])
        except (KeyError, TypeError, ValueError):
            raise _damaged(path) from None
        store._secrets, store._generation = _opened(path, store._key, head, sealed), mark.generation
        count = keeper.count(store._key)
        if count > head["count"]:
            raise older
        if count < head["count"] - 1:
            raise _damaged(path)
        if count == head["count"] - 1:
            # The power went between the file and the counter, which is moved last.
            keeper.step(store._key)
        return store

    @property
    def mark(self) -> Mark:
        """The level in use and the number of the last change: public, to be ledgered and published."""
        return Mark(self._keeper.level, self._generation)

    def names(self) -> tuple[str, ...]:
        """The names of the secrets."""
        return tuple(sorted(self._secrets))

    def get(self, name: str) -> Secret:
        """A copy of a secret. Raises SealRefused("missing")."""
        if name not in self._secrets:
            raise SealRefused("missing", f"{self._path}: holds no secret {name}")
        return Secret(self._secrets[name].reveal())

    def put(self, name: str, secret: Secret) -> None:
        """Keep a secret (at most 65535 bytes), in place of an older one. It is on disk when this returns.

        Raises SealRefused("unwritten"), and ValueError for another name or length.
        """
        if not _NAME.fullmatch(name) or len(secret) > 65535:
            raise ValueError("a secret's name is 1 to 64 of a-z 0-9 . _ -, and its length below 64 KiB")
        before = self._secrets.get(name)
        self._save({**self._secrets, name: Secret(secret.reveal())})
        if before is not None:
            before.wipe()

    def wipe(self) -> None:
        """Overwrite in memory what was opened; the file stays."""
        for secret in (self._key, *self._secrets.values()):
            secret.wipe()

    def __enter__(self) -> "SecretStore":
        return self

    def __exit__(self, *error: object) -> None:
        self.wipe()

    def _save(self, secrets: dict[str, Secret]) -> None:
        """The file first, then the counter: between the two the new file is one ahead, and `open` knows that."""
        head = {
            "format": FORMAT,
            "terminal": self._terminal,
            "level": self._keeper.level,
            "generation": self._generation + 1,
            "count": self._keeper.count(self._key) + 1,
            "kept": self._kept,
            "nonce": _base64(os.urandom(12)),
        }
        clear = bytearray()
        for name, secret in sorted(secrets.items()):
            clear += bytes([len(name)]) + name.encode() + len(secret).to_bytes(2, "big") + secret.reveal()
        sealed, tag = _cipher(self._key, head).encrypt_and_digest(clear)
        wipe(clear)
        text = json.dumps({**head, "sealed": _base64(sealed + tag)}).encode()
        if len(text) > LARGEST:
            raise SealRefused("unwritten", f"{self._path}: would become larger than is read again")
        write(self._path, text)
        self._secrets, self._generation = secrets, self._generation + 1
        self._keeper.step(self._key)


def _read(path: Path, terminal: str) -> tuple[dict[str, Any], bytes]:
    """The head of a file, and what is sealed."""
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST)
    except FileNotFoundError:
        raise SealRefused("missing", f"{path}: there is no such file; create it, or put it back") from None
    except OSError as error:
        raise SealRefused("missing", f"{path}: cannot be read ({error.strerror})") from None
    try:
        head = strictjson.read(text, deepest=2)
        sealed = base64.b64decode(head.pop("sealed"), validate=True)
    except (KeyError, TypeError, ValueError):
        raise _damaged(path) from None
    if {name: type(value) for name, value in head.items()} != _FIELDS or head["format"] != FORMAT:
        raise _damaged(path)
    if head["terminal"] != terminal or head["level"] not in LEVELS:
        raise _damaged(path)
    return head, sealed


def _opened(path: Path, key: Secret, head: dict[str, Any], sealed: bytes) -> dict[str, Secret]:
    """The secrets, once the tag holds."""
    clear = bytearray(max(0, len(sealed) - TAG))
    try:
        _cipher(key, head).decrypt_and_verify(sealed[:-TAG], sealed[-TAG:], output=clear)
    except ValueError:
        wipe(clear)
        raise _damaged(path) from None
    secrets, at = {}, 0
    while at < len(clear):
        start = at + 1 + clear[at] + 2
        name, length = clear[at + 1 : start - 2].decode(), int.from_bytes(clear[start - 2 : start], "big")
        with memoryview(clear) as view:
            secrets[name] = Secret(view[start : start + length])
        at = start + length
    wipe(clear)
    return secrets


def _cipher(key: Secret, head: Mapping[str, Any]) -> Any:
    with derived(key, b"", b"tillwire sealed file") as own:
        cipher = AES.new(bytes(own.reveal()), AES.MODE_GCM, nonce=base64.b64decode(head["nonce"]), mac_len=TAG)
    return cipher.update(json.dumps(head, sort_keys=True, separators=(",", ":")).encode())


def _damaged(path: Path) -> SealRefused:
    return SealRefused(
        "damaged", f"{path}: was changed or cut, or is another terminal's or machine's; put the right one back"
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
