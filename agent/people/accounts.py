"""This file knows the people of a terminal: who they are, what they may, and when an account is locked.

One JSON file beside the store, mode 0600. A password is kept as a hash. Five wrong tries lock an account for a day,
and the count survives a restart: it is written before the password is looked at, so that pulling the plug between
two guesses gains nothing. A first password, given by somebody else, must be changed before the account can be used.
"""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from threading import RLock

from agent.crypto.passwords import fits, hashed
from agent.disk import durable
from agent.errors import ControlError

ROLES = ("technician", "key-manager", "auditor", "operator")
TRIES = 5
LOCKED_MS = 24 * 3600 * 1000
WRONG = "name or password is wrong: try again, and mind that the fifth wrong try locks the account for a day"


class WrongPassword(ControlError):
    """Somebody could not prove to be this person."""


@dataclass(frozen=True, slots=True)
class Account:
    """One person. `group` is the custodian group: two people of one group do not count as two for a key.
    `wrong`: tries since the last right one; `locked`: until when, wall clock in ms; `fresh`: somebody else gave the
    password, and it opens nothing but its own change."""

    name: str
    role: str
    group: str
    password: str = field(repr=False)
    fresh: bool = True
    wrong: int = 0
    locked: int = 0


class Accounts:
    """The accounts in one file. `wall` gives the wall clock in ms, `passing` monotonic seconds. Raises ControlError
    with a sentence.

    One thing at a time, whoever asks: of two guesses made at once both would count as the first.
    """

    def __init__(self, path: Path, wall: Callable[[], int], passing: Callable[[], float] = time.monotonic) -> None:
        self._path, self._wall, self._passing = path, wall, passing
        self._lock = RLock()
        self._ends: dict[str, float] = {}
        self._read: dict[str, Account] | None = None

    @property
    def _people(self) -> dict[str, Account]:
        """Read when they are needed: a damaged file must not keep the agent from watching the devices."""
        if self._read is None:
            self._read = _load(self._path)
        return self._read

    def names(self) -> list[str]:
        return sorted(self._people)

    def people(self) -> list[Account]:
        """Everybody, by name."""
        return [self._people[name] for name in self.names()]

    def add(self, name: str, role: str, group: str, password: str) -> None:
        """A new person, with a first password. Raises ControlError."""
        if role not in ROLES:
            raise ControlError(f"there is no role {role!r}: there are {', '.join(ROLES)}", 2)
        if not name.isidentifier() or len(name) > 32:
            raise ControlError("a name is letters, digits and '_', at most 32", 2)
        with self._lock:
            if name in self._people:
                raise ControlError(f"there is a {name} already: remove that account first", 2)
            self._keep(Account(name, role, group or name, _hashed(password)))

    def remove(self, name: str) -> None:
        with self._lock:
            self._one(name)
            self._write({other: person for other, person in self._people.items() if other != name})

    def unlock(self, name: str) -> None:
        """Let a locked person try again."""
        with self._lock:
            self._keep(replace(self._one(name), wrong=0, locked=0))

    def change(self, name: str, old: str, new: str) -> None:
        """A person's own change of the password; also the way to make a first one usable."""
        with self._lock:
            account = self._proven(name, old)
            if old == new:
                raise ControlError("the new password is the old one: choose another", 2)
            self._keep(replace(account, password=_hashed(new), fresh=False))

    def person(self, name: str, password: str, roles: Iterable[str] = ROLES) -> Account:
        """The person, if the password is right, the account is not locked, and the role is one of `roles`."""
        with self._lock:
            account = self._proven(name, password)
        if account.fresh:
            raise ControlError(f"the first password of {name} must be changed: tillwire accounts password {name}")
        if account.role not in roles:
            raise ControlError(f"{name} is {account.role}; this is for {' or '.join(roles)}")
        return account

    def _proven(self, name: str, password: str) -> Account:
        account = self._people.get(name)
        if account is None:
            fits(password, "")  # as long as for a name that exists, so that names cannot be found out
            raise WrongPassword(WRONG)
        if (left := self._left(account)) > 0:
            minutes = int(left / 60) + 1
            raise ControlError(f"{name} is locked for {minutes} more minutes after {TRIES} wrong tries")
        wrong = account.wrong + 1 if not account.locked else 1
        tried = replace(account, wrong=wrong, locked=self._wall() + LOCKED_MS if wrong >= TRIES else 0)
        self._keep(tried)
        self._left(tried)
        if not fits(password, account.password):
            raise WrongPassword(WRONG)
        self._keep(account := replace(account, wrong=0, locked=0))
        return account

    def _left(self, account: Account) -> float:
        """How long an account stays locked, in seconds.

        While this process runs, setting the wall clock changes nothing of it. After a restart there is only the
        wall clock, and a lock that was made while it was ahead is still no longer than others.
        """
        if not account.locked:
            self._ends.pop(account.name, None)
            return 0.0
        by_wall = max(0, min(account.locked - self._wall(), LOCKED_MS)) / 1000
        return self._ends.setdefault(account.name, self._passing() + by_wall) - self._passing()

    def _one(self, name: str) -> Account:
        if name not in self._people:
            raise ControlError(f"there is no {name}: there are {', '.join(self.names()) or 'no accounts'}", 2)
        return self._people[name]

    def _keep(self, account: Account) -> None:
        self._write({**self._people, account.name: account})

    def _write(self, people: dict[str, Account]) -> None:
        """Whole or not at all, and durable before anything that follows from it, also in memory: what could not be
        written and was refused must not come to be with the next write."""
        try:
            durable.write(self._path, json.dumps([asdict(person) for person in people.values()]).encode())
        except OSError as error:
            raise ControlError(f"{self._path} cannot be written ({error.strerror}): check the disk") from error
        self._read = people


def _load(path: Path) -> dict[str, Account]:
    try:
        return {entry["name"]: Account(**entry) for entry in json.loads(path.read_text("utf-8"))}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ControlError(
            f"{path} cannot be read ({type(error).__name__}): put it aside as evidence, and add the accounts again"
        ) from error


def _hashed(password: str) -> str:
    try:
        return hashed(password)
    except ValueError as error:
        raise ControlError(str(error), 2) from error
