"""This file knows a TPM 2.0 as keeper of one sealing key and of a counter, through the programs of tpm2-tools 5.

The key is sealed under the owner hierarchy's ECC primary key, which never leaves the chip: the blob opens on this
chip only, and no more once it was cleared. It crosses the wires to the chip inside a session that encrypts it (TCG
TPM 2.0 Library, Part 1, "Session-based encryption"), so that a listener on the bus reads nothing. It is not bound
to PCRs: a firmware update would lock the terminal out.
The counter is an NV index of type counter (Part 1, "NV Counter"): it only grows, also when somebody deletes the
index and makes another. Its password is derived from the sealed key, so that nobody else can read or step it.

What is needed: a user in the group `tss`, and an owner hierarchy without a password, as Linux leaves it. Secrets go
to the programs on stdin; neither arguments nor environment hold any.
"""

import base64
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.crypto.keepers import derived
from agent.crypto.secret import Secret
from agent.errors import SealRefused

DEVICE = "device:/dev/tpmrm0"
INDEX = 0x01847711
"""In the owner's range (TCG Registry of Reserved TPM 2.0 Handles and Localities), picked at random."""
SECONDS = 60.0


class Tpm:
    """A TPM at `tcti` (tss2-tctildr syntax). `index` is its counter's: one store for each index."""

    level = "tpm2"

    def __init__(self, tcti: str = DEVICE, index: int = INDEX) -> None:
        self._tcti, self._index = tcti, hex(index)

    def make(self) -> tuple[Secret, dict[str, str]]:
        """A new key and the blobs from which `fetch` gets it back. An older counter of ours ends with this.

        Raises SealRefused("lost") when there is no TPM that does all this.
        """
        key = Secret(os.urandom(32))
        with self._session() as folder:
            self._run("create -C primary -P session:session -i- -u public -r private", folder, key.reveal())
            kept = {name: base64.b64encode((folder / name).read_bytes()).decode() for name in ("public", "private")}
        with suppress(SealRefused):
            self._run(f"nvundefine -C o {self._index}")
        attributes = "nt=counter|authread|authwrite|no_da"
        self._run(f"nvdefine -C o -s 8 -a {attributes} -p file:- {self._index}", given=_password(key))
        self.step(key)
        return key, kept

    def fetch(self, kept: Mapping[str, str]) -> Secret:
        """The key of these blobs. Raises SealRefused("lost"): no TPM, another or a cleared one, changed blobs."""
        with self._session() as folder:
            for name in ("public", "private"):
                (folder / name).write_bytes(base64.b64decode(kept[name]))
            self._run("load -C primary -u public -r private -c sealed", folder)
            return Secret(self._run("unseal -c sealed -p session:session", folder))

    def count(self, key: Secret) -> int:
        """Where the counter stands. Raises SealRefused("lost")."""
        found = self._run(f"nvread -C {self._index} -P file:- -s 8 {self._index}", given=_password(key))
        return int.from_bytes(found, "big")

    def step(self, key: Secret) -> None:
        """Move the counter on by one. Raises SealRefused("lost")."""
        self._run(f"nvincrement -C {self._index} -P file:- {self._index}", given=_password(key))

    @contextmanager
    def _session(self) -> Iterator[Path]:
        """A folder with the contexts of the primary key and of a session which encrypts; it is gone afterwards."""
        with tempfile.TemporaryDirectory(prefix="tillwire-") as name:
            folder = Path(name)
            self._run("createprimary -C o -G ecc -c primary", folder)
            # -c salts the session with the primary key, and turns encryption on in both directions.
            self._run("startauthsession --hmac-session -c primary -S session", folder)
            try:
                yield folder
            finally:
                # Nobody else does: a session outlives the program that began it, and the chip holds few.
                self._run("flushcontext session", folder)

    def _run(self, line: str, folder: Path | None = None, given: bytes | bytearray = b"") -> bytes:
        """What one program of tpm2-tools prints; `folder` holds its contexts, which also fill the chip's few slots
        where no resource manager empties them."""
        try:
            return self._call(line, folder, given)
        finally:
            if folder is not None:
                with suppress(SealRefused):
                    self._call("flushcontext --transient-object", folder)

    def _call(self, line: str, folder: Path | None, given: bytes | bytearray = b"") -> bytes:
        tool, *arguments = line.split()
        program = shutil.which(f"tpm2_{tool}")
        if program is None:
            raise SealRefused("lost", f"no TPM can be asked, because tpm2_{tool} is missing: install tpm2-tools")
        command = [program, "-T", self._tcti, *arguments]
        try:
            done = subprocess.run(  # noqa: S603 - our own words, no shell
                command, cwd=folder, input=given, capture_output=True, timeout=SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SealRefused("lost", f"the TPM did not answer tpm2_{tool} ({type(error).__name__})") from None
        if done.returncode:
            words = done.stderr.decode(errors="replace").strip().splitlines()
            reason = next((line for line in words if line.startswith("ERROR: ")), f"status {done.returncode}")
            raise SealRefused("lost", f"the TPM refused tpm2_{tool} ({reason.removeprefix('ERROR: ')[:120]})")
        return done.stdout


def _password(key: Secret) -> bytes:
    """The counter's password: 32 hex digits, the longest that every TPM takes."""
    with derived(key, b"", b"tillwire counter") as password:
        return password.reveal()[:16].hex().encode()
