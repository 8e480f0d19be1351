"""This file knows what may be asked about the people of a terminal over the control socket, and who may ask it.

    {"do": "accounts", "act": "list"}                                   {"accounts"}
    {… "add", "name", "role", "group", "password"}                      {"done"}; root or the agent's own user
    {… "remove", "name"}  {… "unlock", "name"}                          {"done"}; likewise
    {… "password", "name", "old", "new"}                                {"done"}; anybody, for themselves

Each change is a row of the ledger, without any password.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from agent.accounts import Accounts, WrongPassword
from agent.errors import ControlError
from agent.model import Note
from agent.pasted import REFUSED, like_a_key
from agent.peer import Peer


class AccountDesk:
    """The requests about accounts. put: takes rows for the ledger. forgive: lets a person whose account was
    unlocked try again in key ceremonies too, which count wrong tries by themselves; there are none without it."""

    def __init__(
        self, accounts: Accounts, put: Callable[[Note], None], forgive: Callable[[str], None] | None = None
    ) -> None:
        self._accounts, self._put, self._forgive = accounts, put, forgive

    def answers(self, request: Mapping[str, Any], peer: Peer) -> Iterator[dict[str, Any]]:
        """Answer one request. Raises ControlError."""
        words = {name: value for name, value in request.items() if name not in ("do", "act")}
        if not all(isinstance(value, str) for value in words.values()):
            raise ControlError("everything about an account is a text", 2)
        if any(map(like_a_key, words.values())):
            raise ControlError(REFUSED, 1)
        get = {name: str(words.get(name, "")) for name in ("name", "role", "group", "password", "old", "new")}
        match act := request.get("act"):
            case "list":
                yield {"accounts": [_shown(account) for account in self._accounts.people()]}
            case "password":
                try:
                    self._accounts.change(get["name"], get["old"], get["new"])
                except WrongPassword:
                    known = get["name"] in self._accounts.names()
                    self._done("wrong", get["name"] if known else "withheld", peer, "")
                    raise
                yield self._done("changed", get["name"], peer, f"{get['name']} has a new password")
            case "add" | "remove" | "unlock":
                if not peer.owns_agent:
                    raise ControlError(
                        f"user {peer.name} may not change accounts: ask root, or the agent's own user"
                    )
                yield self._change(act, get, peer)
            case _:
                raise ControlError("of accounts one may ask list, add, remove, unlock and password", 2)

    def _change(self, act: str, get: Mapping[str, str], peer: Peer) -> dict[str, Any]:
        name = get["name"]
        match act:
            case "add":
                self._accounts.add(name, get["role"], get["group"], get["password"])
                about = {"role": get["role"], "group": get["group"] or name}
                return self._done("added", name, peer, f"{name} may log in once the password is changed", **about)
            case "remove":
                self._accounts.remove(name)
                return self._done("removed", name, peer, f"{name} cannot log in any more")
        self._accounts.unlock(name)
        if self._forgive is not None:
            self._forgive(name)
        return self._done("unlocked", name, peer, f"{name} may try again")

    def _done(self, event: str, name: str, peer: Peer, sentence: str, **more: str) -> dict[str, Any]:
        self._put(Note("account", {"event": event, "name": name, "by": peer.name, **more}))
        return {"done": sentence}


def _shown(account: Any) -> dict[str, Any]:
    return {
        "name": account.name,
        "role": account.role,
        "group": account.group,
        "fresh": account.fresh,
        "locked": account.locked,
    }
