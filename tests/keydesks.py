"""A key desk at a conductor whose thread does only what the desk asks of it; of people any password is right."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

from agent.crypto.signing import Keyring
from agent.keys.desk import KeyDesk
from agent.people.accounts import WRONG, Account, Accounts, WrongPassword
from agent.people.peer import Peer
from tests.ceremonies import DIGEST, PEOPLE, SITE
from tests.conductor import Stage


class Desk:
    """`ask` is answered with all lines, or raises what refuses it."""

    def __init__(self, stage: Stage) -> None:
        kept = threading.Event()
        kept.set()
        # Who has joined before did so here.
        stage.conducting.rows = [
            {**row, "credential": f"account.{row['person']}"} if "credential" in row else row
            for row in stage.conducting.rows
        ]
        self.stage = stage
        self.desk = KeyDesk(
            SITE.terminal,
            stage.conducting,
            cast("Accounts", SimpleNamespace(person=self._person, names=lambda: sorted(PEOPLE))),
            Keyring(()),
            lambda: 0,
            lambda order: (order, "the receipt", DIGEST),
            lambda: {},
            lambda: kept,
        )

    @staticmethod
    def _person(name: str, _: str) -> Account:
        if name not in PEOPLE:
            raise WrongPassword(WRONG)
        return Account(name, PEOPLE[name].role, PEOPLE[name].group, "")

    def ask(self, act: str, name: str = "", **more: Any) -> list[dict[str, Any]]:
        who = {"person": name, "password": "-"} if name else {}
        return list(self.desk.answers({"do": "keys", "act": act, **who, **more}, Peer(1000, f"s-{name}")))

    def rows(self, *events: str) -> list[dict[str, Any]]:
        return [dict(row) for row in self.stage.conducting.rows if row["event"] in events]


@contextmanager
def keydesk(stage: Stage) -> Iterator[Desk]:
    """A desk whose conductor runs meanwhile."""
    stop, made = threading.Event(), Desk(stage)

    def run() -> None:
        while not stop.is_set():
            stage.conducting.drain(0.02)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        stop.set()
        thread.join()
