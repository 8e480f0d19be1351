"""This file knows who can keep the key of the agent's sealed file: a TPM, systemd, or this machine's id and a salt.

What each level protects from is told in sealing.py; the TPM is in tpm.py.
"""

import base64
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from Crypto.Hash import SHA256
from Crypto.Protocol.KDF import HKDF, scrypt

from agent.crypto.secret import Secret
from agent.disk import durable
from agent.errors import SealRefused

LEVELS = ("file", "credential", "tpm2")
"""Weakest first."""
CREDENTIAL = "tillwire.seal"
BYTES = 32


class Keeper(Protocol):
    """Who keeps the key of a file. Every call may raise SealRefused."""

    @property
    def level(self) -> str:
        """One of LEVELS."""

    def make(self) -> tuple[Secret, dict[str, str]]:
        """A key of 32 bytes, and what the file must carry so that `fetch` finds it again."""

    def fetch(self, kept: Mapping[str, str]) -> Secret:
        """That key. Raises KeyError or ValueError when `kept` is not what `make` gave."""

    def count(self, key: Secret) -> int:
        """A counter that nobody can turn back; always 0 where there is none."""

    def step(self, key: Secret) -> None:
        """Move it on by one."""


class _Uncounted:
    def count(self, key: Secret) -> int:
        return 0

    def step(self, key: Secret) -> None: ...


class Credential(_Uncounted):
    """The credential that systemd put into `folder` ($CREDENTIALS_DIRECTORY; None outside of a unit)."""

    level = "credential"

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def make(self) -> tuple[Secret, dict[str, str]]:
        """A key from the credential and a salt of its own. Raises SealRefused("lost")."""
        kept = {"salt": base64.b64encode(os.urandom(BYTES)).decode()}
        return self.fetch(kept), kept

    def fetch(self, kept: Mapping[str, str]) -> Secret:
        """The key again. Raises SealRefused("lost") when systemd did not give the credential."""
        try:
            found = (self._folder / CREDENTIAL).read_bytes() if self._folder is not None else b""
        except OSError:
            found = b""
        if len(found) < BYTES:
            raise SealRefused(
                "lost", f"systemd gave no credential {CREDENTIAL}: see LoadCredentialEncrypted= in the unit"
            )
        return derived(Secret(found), base64.b64decode(kept["salt"]), b"tillwire credential")


class Machine(_Uncounted):
    """A salt file that only the agent reads, and an id of this machine that lies elsewhere."""

    level = "file"

    def __init__(self, salt: Path, machine: Path = Path("/etc/machine-id")) -> None:
        self._salt, self._machine = salt, machine

    def make(self) -> tuple[Secret, dict[str, str]]:
        """The key of this machine, with a new salt when there is none. Raises SealRefused."""
        if not self._salt.exists():
            write(self._salt, os.urandom(BYTES))
        return self.fetch({}), {}

    def fetch(self, kept: Mapping[str, str]) -> Secret:
        """The key again. Raises SealRefused("lost"): no salt, no id; "exposed": others may read the salt."""
        try:
            machine, salt, status = self._machine.read_bytes().strip(), self._salt.read_bytes(), self._salt.stat()
        except OSError as error:
            raise SealRefused("lost", f"{error.filename}: cannot be read ({error.strerror})") from None
        if os.name == "posix" and (status.st_mode & 0o077 or status.st_uid != os.geteuid()):
            raise SealRefused(
                "exposed", f"{self._salt}: is not the agent's alone; set mode 600 and renew what it protected"
            )
        if len(machine) < 16 or len(salt) != BYTES:
            raise SealRefused("lost", f"{self._machine} or {self._salt}: is too short; it was cut or never set up")
        # 16 MiB and 50 ms: what names some machines is easier to guess than 128 random bits.
        return Secret(_bytes(scrypt(machine, salt, BYTES, N=2**14, r=8, p=1)))


def provision(credential: Path, tpm: str = "auto") -> str:
    """As root, at installation: make the file for `LoadCredentialEncrypted=tillwire.seal:<path>`.

    Returns what it is bound to: "host+tpm2", or "host" where there is no TPM; never to nothing (the null key of
    systemd-creds). Raises SealRefused("exists", "lost").
    """
    program = shutil.which("systemd-creds")
    if program is None:
        raise SealRefused(
            "lost",
            "systemd-creds is missing: it comes with systemd 250 or later. Without it the agent's key is kept by a"
            " TPM or in a file",
        )
    if credential.exists():
        raise SealRefused(
            "exists", f"{credential}: exists already, and what was sealed with it would be lost: give another name"
        )
    with Secret(os.urandom(BYTES)) as key:
        for bound in ("host+tpm2", "host"):
            options = (f"--with-key={bound}", f"--name={CREDENTIAL}", f"--tpm2-device={tpm}")
            done = subprocess.run(  # noqa: S603 - our own words and a path, no shell
                [program, "encrypt", *options, "-", str(credential)],
                input=key.reveal(),
                capture_output=True,
                timeout=60.0,
                check=False,
            )
            if done.returncode == 0:
                return bound
    raise SealRefused(
        "lost",
        f"systemd-creds made no credential (status {done.returncode}): run this as root, with a file in a folder"
        " that is there",
    )


def derived(key: Secret, salt: bytes, purpose: bytes) -> Secret:
    """A key for one purpose only, 32 bytes, from another (HKDF, RFC 5869)."""
    return Secret(_bytes(HKDF(bytes(key.reveal()), BYTES, salt, SHA256, context=purpose)))


def write(path: Path, data: bytes) -> None:
    """Put a file of mode 0600 in place of another, whole or not at all, also when the power goes.

    Raises SealRefused("unwritten").
    """
    try:
        durable.write(path, data)
    except OSError as error:
        raise SealRefused("unwritten", f"{path}: cannot be written ({error.strerror})") from None


def _bytes(derived: object) -> bytes:
    # The library returns a tuple when it is asked for several keys.
    if not isinstance(derived, bytes):
        raise TypeError
    return derived
