"""This file knows the keyboard of this terminal: names, answers and passwords are typed here, and nothing else.

Everything goes through the terminal of the process itself (/dev/tty), never through stdin, a command line or the
environment: those come from files and histories. The terminal echoes nothing by itself, from the first question to
the end of the command: what should be seen is drawn here, once it is known to be no component.

Keys are read one by one, so that a pasted component is refused while most of it is still in the kernel's queue,
which is thrown away then. Also between two questions, while the agent talks, the keyboard is watched: that is when
a component is typed here that belongs on the EPP's keypad.
"""

import os
import queue
import resource
import select
import termios
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from agent.cli import printing
from agent.cli.exposed import Exposed
from agent.cli.keytexts import said
from agent.cli.options import Language
from agent.crypto.secret import wipe
from agent.errors import ControlError
from agent.pasted import like_a_part

IDLE = 300.0
"""Seconds after which an unanswered question ends the command."""
LONGEST = 256
"""Bytes of an answer."""
SHORT = 56
"""Bytes of a question that is answered on its own line; a line that is drawn again must not be broken into two."""
ENTER, BACK, CLEAR = b"\r\n", b"\x08\x7f", b"\x15"
REDRAW = b"\r\x1b[K"

Answer = dict[str, Any]


class Keyboard:
    """The keyboard and screen of one person.

    tty       file descriptor of the terminal, which is silent
    lang      of what it asks
    declare   tells the agent that a component was typed; gives what to raise
    patience  see IDLE
    """

    def __init__(self, tty: int, lang: Language, declare: Callable[[], Exposed], patience: float = IDLE) -> None:
        self._tty, self._lang, self._declare, self._patience = tty, lang, declare, patience

    @classmethod
    @contextmanager
    def open(cls, lang: Language, declare: Callable[[], Exposed]) -> "Iterator[Keyboard]":
        """The terminal of this process. Raises ControlError when there is none."""
        try:
            tty = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            raise ControlError(said("no_terminal", lang)) from None
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a password is in this process
        try:
            with _silent(tty):
                yield cls(tty, lang, declare)
        finally:
            os.close(tty)

    def line(self, question: str) -> str:
        """An answer that everybody may see; empty when only Enter was pressed. Raises Exposed."""
        return self._read(question, seen=True)

    def password(self, question: str) -> str:
        """An answer of which nothing is seen. Raises Exposed."""
        return self._read(question, seen=False)

    def one_of(self, question: str, answers: Iterable[str]) -> str:
        """One of these answers, or the beginning of one. Raises Exposed."""
        known = list(answers)
        while True:
            typed = self.line(f"{question} [{'/'.join(known)}]").lower()
            found = [answer for answer in known if typed and answer.startswith(typed)]
            if len(found) == 1 or typed in found:
                return typed if typed in found else found[0]
            self.say(said("one_of", self._lang, answers=", ".join(known)))

    def agreed(self, question: str) -> bool:
        """Whether the answer is yes. Raises Exposed."""
        return self.one_of(question, ("yes", "no")) == "yes"

    def say(self, text: str) -> None:
        """Tell the person something."""
        self._write(printing.plain(text).encode(errors="replace") + b"\n")

    def watched(self, answers: Iterable[Answer]) -> Iterator[Answer]:
        """What the agent answers, as it comes, while the keyboard is watched.

        Raises Exposed as soon as a component is typed here, and what `answers` raises.
        """
        came: queue.SimpleQueue[Answer | BaseException | None] = queue.SimpleQueue()
        bell, ring = os.pipe()
        fetching = threading.Thread(target=_fetch, args=(answers, came, ring), name="agent", daemon=True)
        fetching.start()
        stray = bytearray()
        try:
            while True:
                ready, _, _ = select.select([self._tty, bell], [], [])
                if self._tty in ready:
                    self._take_stray(stray)
                if bell in ready:
                    os.read(bell, 1)
                    if (item := came.get()) is None:
                        return
                    if isinstance(item, BaseException):
                        raise item
                    yield item
        finally:
            wipe(stray)
            os.close(bell)

    def _read(self, question: str, seen: bool) -> str:
        """What is typed up to Enter, without blanks around it when it is seen."""
        self._discard_typed_ahead()
        if len(question.encode()) > SHORT:
            self.say(question)
            question = ">"
        prompt = printing.plain(question).encode(errors="replace") + b" "
        typed, drawn, overlong = bytearray(), "", False
        try:
            self._write(prompt)
            while (key := self._key()) not in ENTER:
                if key in BACK:
                    _drop_last(typed)
                elif key in CLEAR:
                    wipe(typed)
                    typed.clear()
                elif key[0] >= 0x20:
                    typed += key
                overlong = self._look_at(typed) or overlong  # what comes after is still looked at
                if seen and not self._pending():
                    drawn = self._draw(prompt, drawn, _text(typed))
            answer = _text(typed)
            if seen:
                self._draw(prompt, drawn, answer)
            self._write(b"\n")
            self._take_pasted(typed)
            if overlong:
                raise ControlError(said("too_long", self._lang, longest=LONGEST), 2)
            return answer.strip() if seen else answer
        except KeyboardInterrupt:
            self._write(b"\n")  # what is said next stands on a line of its own
            raise
        finally:
            wipe(typed)

    def _draw(self, prompt: bytes, drawn: str, text: str) -> str:
        """Draw what was typed after the prompt; drawn: what stands there. Returns what stands there now."""
        text = printing.plain(text)
        if text.startswith(drawn):
            self._write(text.removeprefix(drawn).encode())
        else:
            self._write(REDRAW + prompt + text.encode())
        return text

    def _take_pasted(self, typed: bytearray) -> None:
        """Whatever came in one go with an answer was pasted, and counts with it; then it is thrown away."""
        typed += b"\n"
        self._read_pending(typed)

    def _discard_typed_ahead(self) -> None:
        ahead = bytearray()
        self._read_pending(ahead)
        wipe(ahead)

    def _read_pending(self, typed: bytearray) -> None:
        while self._pending():
            typed += self._key()
            self._look_at(typed)

    def _take_stray(self, stray: bytearray) -> None:
        if not stray:
            self.say(said("not_here", self._lang))
        stray += self._key()
        self._look_at(stray)
        self._read_pending(stray)

    def _look_at(self, typed: bytearray) -> bool:
        """Raise Exposed when what was typed so far may be a component; not even its beginning stays on the line.
        Of what is too long for an answer the older half is dropped; whether it was."""
        if like_a_part(_text(typed)):
            wipe(typed)
            termios.tcflush(self._tty, termios.TCIFLUSH)
            self._write(REDRAW)
            raise self._declare() from None
        if len(typed) <= LONGEST:
            return False
        del typed[: LONGEST // 2]
        return True

    def _pending(self) -> bool:
        return bool(select.select([self._tty], [], [], 0)[0])

    def _key(self) -> bytes:
        ready, _, _ = select.select([self._tty], [], [], self._patience)
        if not ready:
            raise ControlError(said("too_late", self._lang))
        try:
            key = os.read(self._tty, 1)
        except OSError:
            key = b""
        if not key:
            raise ControlError(said("terminal_closed", self._lang))
        return key

    def _write(self, data: bytes) -> None:
        with suppress(OSError):  # a terminal that is gone is told by the next key
            os.write(self._tty, data)


@contextmanager
def _silent(tty: int) -> Iterator[None]:
    """Keys come one by one and are not echoed. What was typed ahead before is still there, to be looked at; what is
    still there after is thrown away, so that no shell gets it."""
    before = termios.tcgetattr(tty)
    silent = termios.tcgetattr(tty)
    silent[3] &= ~(termios.ECHO | termios.ICANON)
    # A command that stands still, or dies with a core file, would leave its terminal in the shell's hands.
    silent[6][termios.VSUSP] = silent[6][termios.VQUIT] = b"\0"
    termios.tcsetattr(tty, termios.TCSANOW, silent)
    try:
        yield
    finally:
        with suppress(termios.error):
            termios.tcsetattr(tty, termios.TCSAFLUSH, before)


def _fetch(answers: Iterable[Answer], came: "queue.SimpleQueue[Answer | BaseException | None]", ring: int) -> None:
    """Take answers from the agent in a thread of their own; each comes with a stroke of the bell."""

    def put(item: Answer | BaseException | None) -> None:
        came.put(item)
        os.write(ring, b".")

    with suppress(BrokenPipeError):  # nobody listens any more
        try:
            for answer in answers:
                put(answer)
            put(None)
        except BrokenPipeError:
            raise
        except BaseException as error:
            put(error)
    os.close(ring)


def _text(typed: bytearray) -> str:
    return typed.decode(errors="ignore")


def _drop_last(typed: bytearray) -> None:
    kept = _text(typed)[:-1].encode()
    wipe(typed)
    typed[:] = kept
