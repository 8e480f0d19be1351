"""This file knows the keys of those who sign for the centre: private ones under a password, and who may sign.

A password is typed at the terminal of the process itself, or stands in a file that only its owner can read; it is
never a word of a command.
"""

import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli.exposed import Exposed
from agent.errors import ConfigError, ControlError

if TYPE_CHECKING:
    from agent.crypto.ed25519 import SigningKey
    from agent.crypto.secret import Secret
    from agent.crypto.trust import Trust

LEAST_PASSWORD = 12
LARGEST = 200_000
"""Bytes of a file; an envelope of the largest size is smaller."""

Key = Annotated[Path, typer.Option("--key", metavar="FILE", readable=False, help="Your private key.")]
PasswordFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        readable=False,
        help="A file of yours with the password of the key, where nobody can type it.",
        show_default=False,
    ),
]
Signers = Annotated[
    Path | None,
    typer.Option(
        "--signers",
        metavar="FILE",
        readable=False,
        help="Whose signatures count: the file that terminals have.",
        show_default=False,
    ),
]
Against = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        readable=False,
        help="What is in force: its file, or its envelope. Only the difference is shown.",
        show_default=False,
    ),
]


def make(to: Path, password_file: Path | None) -> "SigningKey":
    """A new key in a new file, under a password. Raises ControlError."""
    from agent.crypto.ed25519 import SigningKey

    if os.path.lexists(to):
        raise ControlError(f"{to} is there already: give a new file", 2)
    with _password(password_file, "a password for the new key:", twice=True) as words:
        if len(words) < LEAST_PASSWORD:
            raise ControlError(f"the password is too short: {LEAST_PASSWORD} characters at the least", 2)
        key = SigningKey.generate()
        text = key.pem(words)
    try:
        handle = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(handle, "w", encoding="ascii") as file:
            file.write(text)
    except OSError as error:
        raise ControlError(f"{to} cannot be made ({error.strerror}): give another place", 2) from error
    return key


def opened(file: Path, password_file: Path | None) -> "SigningKey":
    """A private key. Raises KeyRefused for another one or a wrong password, ControlError for one in clear."""
    from agent.crypto.ed25519 import SigningKey

    text = read(file, private=True).decode("ascii", "replace")
    if "ENCRYPTED" not in text:
        raise ControlError(
            f"{file} holds no key under a password: `tillwire push keygen` makes one, and"
            f" `openssl pkey -in {file.name} -aes256 -out NEW` puts one under a password",
            2,
        )
    with _password(password_file, f"the password of {file.name}:") as words:
        return SigningKey.from_pem(text, words)


def trusted(file: Path) -> "Trust":
    """The set of signers in a file. Raises ConfigError."""
    from agent.crypto.trust import Trust

    try:
        return Trust.local(text_of(file))
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error


def text_of(file: Path) -> str:
    """A file of text. Raises ControlError."""
    try:
        return read(file).decode("utf-8")
    except UnicodeDecodeError:
        raise ControlError(f"{file} is not text in UTF-8: is the name right?", 2) from None


def read(file: Path, private: bool = False) -> bytes:
    """A file as it is; private: others must not be able to read it. Raises ControlError."""
    try:
        with file.open("rb") as opened:
            found = os.fstat(opened.fileno())
            data = opened.read(LARGEST + 1)
    except OSError as error:
        raise ControlError(f"{file} cannot be read ({error.strerror}): is the name right?", 2) from error
    if private and stat.S_ISREG(found.st_mode) and found.st_mode & 0o077:
        raise ControlError(f"others can read {file}: `chmod 600 {file}`, and think about a new one", 2)
    if len(data) > LARGEST:
        raise ControlError(f"{file} is larger than anything that belongs here: is the name right?", 2)
    return data


def ask(question: str) -> str:
    """What somebody types at the terminal. Raises ControlError when there is none."""
    from agent.cli.keyboard import Keyboard

    with Keyboard.open("en", _exposed) as keyboard:
        return keyboard.line(question)


@contextmanager
def _password(file: Path | None, question: str, twice: bool = False) -> "Iterator[Secret]":
    from agent.cli.keyboard import Keyboard
    from agent.crypto.secret import Secret

    # The password and the key are in this process.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if file is not None:
        typed = read(file, private=True).partition(b"\n")[0].rstrip(b"\r").decode("utf-8", "replace")
    else:
        with Keyboard.open("en", _exposed) as keyboard:
            typed = keyboard.password(question)
            if twice and keyboard.password("once more:") != typed:
                raise ControlError("the two differ: nothing was made, run the command again", 2)
    with Secret(typed.encode()) as words:
        yield words


def _exposed() -> Exposed:
    return Exposed(
        "that looks like a component of a key, which is never typed here: it is spoiled, tell its custodians. If it"
        " was your password, choose another one; nothing was signed",
        1,
    )
