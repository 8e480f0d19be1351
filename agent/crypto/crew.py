"""This file knows who may take part in a ceremony, and who may do which step of it. It answers with a word.

Two people at least, for components one for each, of different groups, with a credential and a session each; a key
manager and a technician among them. Each step asks for a login of its own. Nobody meets two components of one key,
not even in different years: what the ledger says of that is in `Holdings.custody`.
"""

from agent.crypto.holdings import DAY_MS, Holdings
from agent.crypto.orders import Order, Part, Site, is_digest
from agent.crypto.steps import Login
from agent.pasted import is_name

ROLES = frozenset({"key-manager", "technician"})
WRONG_LOGINS = 5


class Crew:
    """The people of one order, in the order in which they joined."""

    def __init__(self, order: Order, site: Site, held: Holdings, wall: int) -> None:
        self._order, self._site, self._held = order, site, held
        self.people: dict[str, Login] = {}
        self._logins: set[str] = set()
        self._locked = {name for name, at in held.locked.items() if wall - at < DAY_MS}
        self._sessions: dict[str, str] = {}

    @property
    def missing(self) -> int:
        """How many people have yet to join."""
        return self._order.people - len(self.people)

    def join(self, login: Login) -> str:
        """Take somebody in; what stands against it, as a word, or ""."""
        objection = self.objection(login)
        if not objection:
            self.spend(login.person, login.session, login.login)
            self.people[login.person] = login
        return objection

    def objection(self, login: Login) -> str:
        """What stands against taking somebody in, or ""; the login is not used for that."""
        return self._objection(login) or self._no_seat(login)

    def restore(self, login: Login) -> None:
        """Take somebody in again of whom the ledger says that they had joined."""
        self.people[login.person] = login

    def lock(self, person: str) -> None:
        """Let this person do nothing more today."""
        self._locked.add(person)

    def unlock(self, person: str) -> None:
        """Let this person try again."""
        self._locked.discard(person)

    def act(self, login: Login, part: Part | None = None, *, second: bool = False) -> str:
        """Let one of the crew do a step; what stands against it, or "". part: whose envelope they would open.
        second: the step is for somebody else than who joined first."""
        objection = self._objection(login) or self._stranger(login)
        if not objection and part is not None:
            if login.group != part.group:
                objection = "wrong_group"
            elif self._held.holds_too_much(login.person, self._order.kcv, part.kcv):
                objection = "holds_too_much"
        if not objection and second and login.person == next(iter(self.people)):
            objection = "not_second"
        if not objection:
            self.spend(login.person, login.session, login.login)
        return objection

    def spend(self, person: str, session: str, login: str) -> None:
        """A login was used for a step: it serves for no other one, and the session is this person's."""
        self._logins.add(login)
        self._sessions[session] = person

    def _objection(self, login: Login) -> str:
        names = (login.person, login.group, login.session, login.login)
        if not all(map(is_name, names)) or not (is_name(login.credential) or is_digest(login.credential)):
            return "malformed_login"
        if login.terminal != self._site.terminal:
            return "wrong_terminal"
        if login.person in self._locked:
            return "locked"
        if login.login in self._logins:
            return "login_reused"
        if self._sessions.get(login.session, login.person) != login.person:
            return "session_of_other"
        return ""

    def _no_seat(self, login: Login) -> str:
        if login.person in self.people:
            return "same_person"
        others = list(self.people.values())
        if any(login.credential == other.credential for other in others):
            return "same_credential"
        if any(login.group == other.group for other in others):
            return "same_group"
        if login.role not in ROLES:
            return "role_missing"
        if self._order.parts and login.group not in {part.group for part in self._order.parts}:
            return "wrong_group"
        roles = {login.role, *(other.role for other in others)}
        if len(ROLES - roles) > self.missing - 1:
            return "role_missing"
        return ""

    def _stranger(self, login: Login) -> str:
        joined = self.people.get(login.person)
        if joined is None:
            return "not_crew"
        same = (login.role, login.group, login.credential) == (joined.role, joined.group, joined.credential)
        return "" if same else "changed"
