"""This file knows what may be asked about the people of a terminal over the control socket, and who may ask it.

    {"do": "accounts", "act": "list"}                                   {"accounts"}
    {… "add", "name", "role", "group", "password"}                      {"done"}; root or the agent's own user
    {… "remove", "name"}  {… "unlock", "name"}                          {"done"}; likewise
    {… "password", "name", "old", "new"}                                {"done"}; anybody, for themselves

"done" says it in both languages: {"word", "en", "zh"}.
Each change is a row of the ledger, without any password. Tries under names that nobody has are rows too, but no
more than one a minute with how many there were: anybody may make them.
"""

from collections.abc import Callable, Iterator, Mapping
from math import inf
from threading import Lock
from typing import Any

from agent.crypto.phrases import Words
from agent.errors import ControlError
from agent.model import Note
from agent.pasted import REFUSED, too_much_hex
from agent.people.accounts import Accounts, WrongPassword
from agent.people.peer import Peer
from agent.repeats import Repeats

DONE = {
    "added": Words("{name} may log in once the password is changed", "{name}修改初始密码后方可登录"),
    "changed": Words("{name} has a new password", "{name}的密码已更改"),
    "removed": Words("{name} cannot log in any more", "{name}已不能登录"),
    "unlocked": Words("{name} may try again", "{name}可以再次尝试登录"),
}


class AccountDesk:
    """The requests about accounts. put: takes rows for the ledger. forgive: lets a person whose account was
    unlocked try again in key ceremonies too, which count wrong tries by themselves; there are none without it."""

    def __init__(
        self, accounts: Accounts, put: Callable[[Note], None], forgive: Callable[[str], None] | None = None
    ) -> None:
        self._accounts, self._put, self._forgive = accounts, put, forgive
        self._unknown, self._lock = Repeats(self._record), Lock()

    def answers(self, request: Mapping[str, Any], peer: Peer) -> Iterator[dict[str, Any]]:
        """Answer one request. Raises ControlError."""
        words = {name: value for name, value in request.items() if name not in ("do", "act")}
        if not all(isinstance(value, str) for value in words.values()):
            raise ControlError("everything about an account is a text", 2)
        if any(map(too_much_hex, words.values())):
            raise ControlError(REFUSED, 1)
        get = {name: str(words.get(name, "")) for name in ("name", "role", "group", "password", "old", "new")}
        match act := request.get("act"):
            case "list":
                yield {"accounts": [_shown(account) for account in self._accounts.people()]}
            case "password":
                try:
                    self._accounts.change(get["name"], get["old"], get["new"])
                except WrongPassword:
                    self._wrong(get["name"], peer)
                    raise
                yield self._done("changed", get["name"], peer)
            case "add" | "remove" | "unlock":
                if not peer.owns_agent:
                    raise ControlError(
                        f"user {peer.name} may not change accounts: ask root, or the agent's own user"
                    )
                yield self._change(act, get, peer)
            case _:
                raise ControlError("of accounts one may ask list, add, remove, unlock and password", 2)

    def tell(self, now: float = inf) -> None:
        """Write how many tries were counted, where that is due; with no time, all that is not told yet."""
        with self._lock:
            self._unknown.tell(now)

    def _change(self, act: str, get: Mapping[str, str], peer: Peer) -> dict[str, Any]:
        name = get["name"]
        match act:
            case "add":
                self._accounts.add(name, get["role"], get["group"], get["password"])
                about = {"role": get["role"], "group": get["group"] or name}
                return self._done("added", name, peer, **about)
            case "remove":
                self._accounts.remove(name)
                return self._done("removed", name, peer)
        self._accounts.unlock(name)
        if self._forgive is not None:
            self._forgive(name)
        return self._done("unlocked", name, peer)

    def _wrong(self, name: str, peer: Peer) -> None:
        """A wrong try. A name that nobody has may be a password, typed there, so it stands nowhere."""
        if name in self._accounts.names():
            self._record("wrong", name=name, by=peer.name)
            return
        with self._lock:
            self._unknown.note("wrong", name="withheld", by=peer.name)

    def _done(self, event: str, name: str, peer: Peer, **more: str) -> dict[str, Any]:
        self._record(event, name=name, by=peer.name, **more)
        return {"done": {"word": event, **DONE[event].filled(name=name)._asdict()}}

    def _record(self, event: str, **fields: str | int) -> None:
        self._put(Note("account", {"event": event, **fields}))


def _shown(account: Any) -> dict[str, Any]:
    return {
        "name": account.name,
        "role": account.role,
        "group": account.group,
        "fresh": account.fresh,
        "locked": account.locked,
    }
