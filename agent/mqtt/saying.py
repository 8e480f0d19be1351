"""This file knows what the uplink says of itself: how things are now, and each sentence once in the log."""

import logging

from agent.mqtt.refusals import Refusal

MANY = 50
"""Sentences remembered as said."""

log = logging.getLogger("agent.uplink")


class Saying:
    """What there is to say.

    status      (one of connecting, connected, down, off; a sentence)
    greeting    of this connection, when it works
    hindrance   what keeps pushes, or reports of them, from passing this broker; rows and states go on
    """

    def __init__(self) -> None:
        self.status = ("connecting", "not connected yet")
        self.greeting = ""
        self.hindrance: Refusal | None = None
        self._told: set[str] = set()

    def say(self, state: str, sentence: str) -> None:
        """How things are now. Each sentence is logged once until things are well again: a broker that refuses is
        tried many times, and may even accept us between two refusals."""
        if sentence not in self._told:
            log.log(logging.WARNING if state == "down" else logging.INFO, "uplink: %s", sentence)
            self._told = {sentence} if len(self._told) >= MANY else self._told | {sentence}
        self.status = (state, sentence)

    def greet(self, greeting: str) -> None:
        """A broker has accepted us."""
        self.greeting, self.hindrance = greeting, None
        self.say("connected", greeting)

    def hinder(self, refusal: Refusal) -> None:
        """This broker keeps something from passing that rows and states do not need."""
        self.hindrance = refusal
        self.say("connected", self._note)

    def well(self) -> None:
        """Rows are delivered: what goes wrong from now on is news."""
        self.say("connected", self._note)
        self._told = {self.greeting, self._note}

    @property
    def _note(self) -> str:
        """What there is to say of a connection that works."""
        found = self.hindrance
        return f"{self.greeting}, but {found.cause}; {found.next}" if found else self.greeting
