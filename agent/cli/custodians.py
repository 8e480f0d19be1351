"""This file knows the table at which custodians sit: it asks them, and reads what they type without showing it.

Everything goes through the terminal of the process itself (/dev/tty), never through stdin: what is piped came from
a file or a history. Keys are read one by one into a buffer that is wiped; no text of them ever comes to be.
"""

import os
import select
import termios
from collections.abc import Iterator
from contextlib import contextmanager

from agent.crypto.enclosure import enter, refuse_components
from agent.crypto.secret import HEX, Secret, wipe
from agent.errors import KeyRefused, KeyRoomClosed

IDLE = 300.0
"""Seconds after which an unanswered question ends the session: a key must not lie open on an empty table."""
TRIES = 3
LONGEST_ANSWER = 256
ENTER, BACK, CLEAR, BELL, RUB_OUT = b"\r\n", b"\x08\x7f", b"\x15", b"\a", b"\b \b"
SEPARATORS = b" -"
GROUP = 4
PRINTABLE = frozenset(range(0x20, 0x7F))


class Table:
    """The terminal at which the custodians are. tty: its file descriptor; patience: see IDLE.

    Everything raises KeyRoomClosed when nobody answers in time, or the terminal is lost.
    """

    def __init__(self, tty: int, patience: float = IDLE) -> None:
        self._tty = tty
        self._patience = patience

    @classmethod
    def open(cls) -> "Table":
        """Make this process fit for a key, and take its terminal. Raises KeyRoomClosed."""
        enter()
        try:
            return cls(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
        except OSError:
            raise KeyRoomClosed("there is no terminal to type at: start it by hand, in a terminal") from None

    def say(self, text: str) -> None:
        """Tell those at the table."""
        self._write(text.encode(errors="replace") + b"\n")

    def line(self, question: str) -> str:
        """An answer that everybody may see. Raises KeyRoomClosed when it looks like a component."""
        termios.tcflush(self._tty, termios.TCIFLUSH)
        self._write(question.encode() + b" ")
        answer = self._read(LONGEST_ANSWER).decode(errors="replace").strip()
        refuse_components([answer])
        return answer

    def agreed(self, question: str) -> bool:
        """Whether the answer is yes; only a y or an n is an answer."""
        while (answer := self.line(f"{question} [y/n]").lower()[:1]) not in ("y", "n"):
            self.say("y or n, please")
        return answer == "y"

    def people(self, count: int) -> list[str]:
        """The names of so many different people. Raises KeyRefused when one person gives two."""
        names: list[str] = []
        while len(names) < count:
            name = " ".join(self.line(f"Custodian {len(names) + 1}, your name:").split())
            if name.casefold() in (known.casefold() for known in names):
                raise KeyRefused("one person may not hold two components: begin again with another custodian")
            names += [name] if name else []
        return names

    def component(self, title: str, digits: int, person: str) -> Secret:
        """One component of so many hex digits, typed twice by its custodian while the others look away.

        Raises KeyRefused after three times without the same digits twice.
        """
        self.say(f"\n{person}: {title}. Everybody else looks away now.")
        for _ in range(TRIES):
            with (
                self.hidden(f"{digits} hex digits:", HEX, digits) as first,
                self.hidden("once more:", HEX, digits) as second,
            ):
                if len(first) != digits:
                    self.say(f"that were {len(first)} digits and not {digits}: both again, please")
                    continue
                if len(second) == digits:
                    found = Secret.from_hex(first.reveal())
                    with Secret.from_hex(second.reveal()) as check:
                        if found == check:
                            return found
                    found.wipe()
                self.say("the two differ: both again, please")
        raise KeyRefused(f"{TRIES} times without the same digits twice: everything typed was wiped, begin again")

    def hidden(self, question: str, allowed: frozenset[int] = PRINTABLE, most: int = LONGEST_ANSWER) -> Secret:
        """The characters that somebody types, each shown as a star; blanks between hex digits do not count."""
        typed, count = bytearray(most), 0
        with self._silent():
            self._write(question.encode() + b" ")
            while (key := self._read(1)) not in ENTER:
                if key in BACK + CLEAR:
                    for _ in range(min(count, count if key in CLEAR else 1)):
                        self._write(RUB_OUT * (1 + (count % GROUP == 0)))
                        count -= 1
                elif key[0] in allowed and count < most:
                    typed[count] = key[0]
                    count += 1
                    self._write(b"* " if count % GROUP == 0 else b"*")
                elif key not in SEPARATORS:
                    self._write(BELL)
        with memoryview(typed) as view:
            secret = Secret(view[:count])
        wipe(typed)
        self._write(b"\n")
        return secret

    @contextmanager
    def _silent(self) -> Iterator[None]:
        """Keys come one by one and unseen; what was typed ahead is thrown away."""
        before = termios.tcgetattr(self._tty)
        silent = termios.tcgetattr(self._tty)
        silent[3] &= ~(termios.ECHO | termios.ICANON)
        termios.tcsetattr(self._tty, termios.TCSAFLUSH, silent)
        try:
            yield
        finally:
            termios.tcsetattr(self._tty, termios.TCSAFLUSH, before)

    def _read(self, most: int) -> bytes:
        ready, _, _ = select.select([self._tty], [], [], self._patience)
        if not ready:
            raise KeyRoomClosed("nobody typed for too long: everything was wiped, begin again")
        try:
            data = os.read(self._tty, most)
        except OSError:
            data = b""
        if not data:
            raise KeyRoomClosed("the terminal was closed: everything was wiped, begin again")
        return data

    def _write(self, data: bytes) -> None:
        os.write(self._tty, data)
