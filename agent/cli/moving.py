"""This file knows how a person moves a ceremony from this terminal: logs in, asks the agent, sees what follows.

Every step is a login of its own. What the agent tells on the way is talk, for stderr; where it ends, and what
people do next, is the result.
"""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cli import asking, printing
from agent.cli.exposed import declared
from agent.cli.keytexts import said
from agent.cli.options import Language
from agent.crypto.phrases import REFUSALS

if TYPE_CHECKING:
    from agent.cli.keyboard import Keyboard

ACTING = frozenset({"opened", "crewed", "part", "block", "confirm", "verified", "destroy", "receipt"})
ENDS = frozenset({"idle", "closed", "aborted"})
"""Steps with which an answer ends: such a tell waits, because it is most often the result, which is shown then."""
STOPPED = frozenset({"aborting", "aborted"})


class Moving:
    """One person at the keyboard of one command. lang: what they read. path: the agent's socket."""

    def __init__(self, path: Path, lang: Language, keyboard: "Keyboard") -> None:
        self.path, self.lang, self.keyboard = path, lang, keyboard

    def login(self, person: str) -> dict[str, str]:
        """A person's name, asked for unless it is given, and password."""
        while not person:
            person = self.keyboard.line(said("name", self.lang))
        return {
            "person": person,
            "password": self.keyboard.password(said("password", self.lang, name=person)),
        }

    def move(self, act: str, **request: Any) -> dict[str, Any]:
        """Ask the agent to move the ceremony, and follow it until people have to act again."""
        answers = asking.ask(self.path, {"do": "keys", "act": act, **request})
        return followed(self.keyboard.watched(answers), self.lang)


@contextmanager
def at_keyboard(socket: Path | None, config: Path | None, lang: Language) -> Iterator[Moving]:
    """The frame of every command at which somebody types."""
    from agent.cli.keyboard import Keyboard

    path = asking.find_socket(socket, config)
    with Keyboard.open(lang, lambda: declared("prompt", path)) as keyboard:
        try:
            yield Moving(path, lang, keyboard)
        except KeyboardInterrupt:
            printing.say(said("left", lang))
            raise


def followed(answers: Iterable[asking.Answer], lang: Language) -> dict[str, Any]:
    """Show what the agent tells; returns state, step, and the words of what went wrong on the way.

    A refusal comes from phrases.REFUSALS; "again" is a component that was typed wrongly.
    """
    wrong: list[str] = []
    held = ""
    progress = _Progress(lang)
    try:
        for answer in answers:
            if "end" in answer:
                return {"state": answer["end"], "step": answer["step"], "wrong": wrong}
            progress.say(held)
            held = ""
            if "beat" in answer:
                progress.beat(answer["beat"])
            elif tell := answer.get("tell"):
                if tell["word"] in REFUSALS or tell["word"] == "again":
                    wrong.append(tell["word"])
                if tell["word"] in ACTING | ENDS:
                    held = tell[lang]
                else:
                    progress.say(tell[lang])
    finally:
        progress.clear()
    raise asking.cut_short()


def step_now(path: Path) -> dict[str, Any]:
    """State and next step as the agent says them now; `waiting`: orders that came and were not opened."""
    keys = asking.ask_once(path, {"do": "keys", "act": "status"})["keys"]
    return {"state": keys["state"], "step": keys["step"], "waiting": [order["order"] for order in keys["orders"]]}


class _Progress:
    """A line that says how long the agent has been at work, while a person looks on."""

    def __init__(self, lang: Language) -> None:
        self._lang, self._first, self._drawn = lang, 0, False

    def beat(self, now: int) -> None:
        """The agent is at work; now: its wall clock in ms."""
        self._first = self._first or now
        self._draw(said("waiting", self._lang, seconds=(now - self._first) // 1000))

    def clear(self) -> None:
        self._draw("")

    def say(self, text: str) -> None:
        """Tell something that stays."""
        if text:
            self.clear()
            printing.say(text)

    def _draw(self, text: str) -> None:
        if sys.stderr.isatty() and (text or self._drawn):
            self._drawn = bool(text)
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()
