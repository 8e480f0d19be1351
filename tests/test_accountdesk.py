"""What may be asked about people: who may, what becomes a row, and what is never repeated."""

import time
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from agent.errors import ControlError
from agent.model import Note
from agent.people.accounts import Accounts
from agent.people.desk import AccountDesk
from agent.people.peer import Peer

FIRST, OWN = "first password", "a password of my own"
ROOT, STRANGER = Peer(0, "session-1"), Peer(2**31 - 7, "session-2")
PASTED = ("0123456789ABCDEF", "0123 4567 89ab cdef 0123 4567 89ab cdef", "01:23:45:67:89:AB:CD:EF", "0123456789a")
WIDE = "".join(chr(ord(digit) + 0xFEE0) for digit in "0123456789ABCDEF")


class Desk:
    """A desk with its people; `rows` are what it put into the ledger."""

    def __init__(self, folder: Path) -> None:
        self.rows: list[Note] = []
        self.people = Accounts(folder / "accounts.json", lambda: 1_000_000)
        self.desk = AccountDesk(self.people, self.rows.append)

    def done(self, peer: Peer, act: object, **words: Any) -> tuple[str, str, str]:
        """The word, the English and the Chinese sentence of what was done."""
        said = self.ask(peer, act, **words)["done"]
        return said["word"], said["en"], said["zh"]

    def ask(self, peer: Peer, act: object, **words: Any) -> dict[str, Any]:
        (answer,) = self.desk.answers({"do": "accounts", "act": act, **words}, peer)
        return answer

    def refused(self, peer: Peer, act: object, **words: Any) -> ControlError:
        with pytest.raises(ControlError) as caught:
            self.ask(peer, act, **words)
        return caught.value


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    found = Desk(tmp_path)
    found.ask(ROOT, "add", name="wang", role="technician", group="G2", password=FIRST)
    found.rows.clear()
    return found


def test_a_person_comes_changes_the_password_is_unlocked_and_goes(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    added = desk.done(ROOT, "add", name="li", role="key-manager", group="", password=FIRST)
    assert added == ("added", "li may log in once the password is changed", "li修改初始密码后方可登录")
    changed = desk.done(STRANGER, "password", name="li", old=FIRST, new=OWN)
    assert changed == ("changed", "li has a new password", "li的密码已更改")
    assert desk.people.person("li", OWN).role == "key-manager"
    for _ in range(5):
        assert "wrong" in str(desk.refused(STRANGER, "password", name="li", old="no", new=FIRST))
    assert desk.ask(STRANGER, "list")["accounts"][0]["locked"]
    assert desk.done(ROOT, "unlock", name="li")[:2] == ("unlocked", "li may try again")
    assert desk.people.person("li", OWN)
    assert desk.done(ROOT, "remove", name="li")[:2] == ("removed", "li cannot log in any more")
    assert desk.people.names() == []
    about = {"role": "key-manager", "group": "li"}
    number = STRANGER.name
    assert desk.rows == [
        Note("account", {"event": "added", "name": "li", "by": "root", **about}),
        Note("account", {"event": "changed", "name": "li", "by": number}),
        *[Note("account", {"event": "wrong", "name": "li", "by": number})] * 5,
        Note("account", {"event": "unlocked", "name": "li", "by": "root"}),
        Note("account", {"event": "removed", "name": "li", "by": "root"}),
    ]


def test_who_is_unlocked_may_try_again_in_ceremonies_too(desk: Desk) -> None:
    forgiven: list[str] = []
    desk.desk = AccountDesk(desk.people, desk.rows.append, forgiven.append)
    desk.refused(ROOT, "unlock", name="nobody")
    assert forgiven == []
    desk.ask(ROOT, "unlock", name="wang")
    assert forgiven == ["wang"]


def test_a_list_holds_no_password(desk: Desk) -> None:
    shown = {"name": "wang", "role": "technician", "group": "G2", "fresh": True, "locked": 0}
    assert desk.ask(STRANGER, "list") == {"accounts": [shown]}
    assert desk.rows == []


@pytest.mark.parametrize(
    ("act", "words"),
    [
        ("add", {"name": "zhao", "role": "technician", "group": "G3", "password": FIRST}),
        ("remove", {"name": "wang"}),
        ("unlock", {"name": "wang"}),
    ],
)
def test_only_root_and_the_agents_own_user_change_people(desk: Desk, act: str, words: dict[str, str]) -> None:
    error = desk.refused(STRANGER, act, **words)
    assert f"user {STRANGER.name} may not change accounts" in str(error)
    assert desk.people.names() == ["wang"]
    assert desk.rows == []


@pytest.mark.parametrize("act", ["drop", "", None, 3, ["list"], PASTED[0]])
def test_another_act_is_a_sentence_that_does_not_repeat_it(desk: Desk, act: object) -> None:
    error = desk.refused(ROOT, act)
    assert str(error) == "of accounts one may ask list, add, remove, unlock and password"
    assert error.status == 2


@pytest.mark.parametrize("value", [3, None, True, ["wang"], {"wang": 1}])
def test_whatever_is_no_text_is_refused(desk: Desk, value: object) -> None:
    assert "is a text" in str(desk.refused(ROOT, "remove", name=value))
    assert desk.people.names() == ["wang"]


def test_a_pasted_component_is_refused_wherever_it_stands_and_not_repeated(desk: Desk) -> None:
    words = {"name": "zhao", "role": "technician", "group": "G3", "password": FIRST, "old": FIRST, "new": OWN}
    everywhere = product(("add", "remove", "password"), (*words, "something"), (*PASTED, WIDE))
    for act, where, pasted in everywhere:
        error = desk.refused(ROOT, act, **{**words, where: pasted})
        assert str(error) == "nothing here takes more than 10 hex digits in a row: is that a component?"
        assert error.status == 1
    assert desk.people.names() == ["wang"]
    assert desk.rows == []


def test_a_wrong_password_is_a_row_that_repeats_no_unknown_name(desk: Desk) -> None:
    for name in ("wang", "nobody"):
        desk.refused(STRANGER, "password", name=name, old="no", new=OWN)
    told = [(row.fields["event"], row.fields["name"]) for row in desk.rows]
    assert told == [("wrong", "wang"), ("wrong", "withheld")]


def test_who_guesses_names_does_not_fill_the_ledger(desk: Desk) -> None:
    for n in range(3):
        desk.refused(STRANGER, "password", name=f"nobody{n}", old="no", new=OWN)
    assert [row.fields["name"] for row in desk.rows] == ["withheld"]


def test_tries_that_were_counted_are_told_when_they_are_due_and_when_the_agent_stops(desk: Desk) -> None:
    for peer, tries in ((STRANGER, 3), (ROOT, 2)):
        for n in range(tries):
            desk.refused(peer, "password", name=f"nobody{n}", old="no", new=OWN)
    desk.desk.tell(time.monotonic())
    counts = [(row.fields["by"], row.fields["count"]) for row in desk.rows]
    assert counts == [(STRANGER.name, 1), ("root", 1)], "not due yet"
    for _ in range(2):
        desk.desk.tell()
        counts = [(row.fields["by"], row.fields["count"]) for row in desk.rows]
        assert counts == [(STRANGER.name, 1), ("root", 1), (STRANGER.name, 2), ("root", 1)]


@pytest.mark.parametrize("password", ["dad bade a cab feed", "0123456789 horses", "2026-01-31 08:30"])
def test_a_password_may_have_some_hex_digits(desk: Desk, password: str) -> None:
    assert desk.ask(STRANGER, "password", name="wang", old=FIRST, new=password)


def test_what_is_refused_by_the_accounts_is_no_row(desk: Desk) -> None:
    assert "there is no nobody" in str(desk.refused(ROOT, "remove", name="nobody"))
    assert "there is no role" in str(desk.refused(ROOT, "add", name="zhao", role="boss", password=FIRST))
    assert "a name is letters" in str(desk.refused(ROOT, "add", name="x y", role="operator", password=FIRST))
    assert "at least 10" in str(desk.refused(ROOT, "add", name="zhao", role="operator", password="short"))  # noqa: S106
    assert "there is no role" in str(desk.refused(ROOT, "add"))
    assert desk.rows == []


def test_no_row_and_no_answer_holds_a_password(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    answers = [
        desk.ask(ROOT, "add", name="li", role="key-manager", group="G1", password=FIRST),
        desk.ask(ROOT, "password", name="li", old=FIRST, new=OWN),
        desk.refused(ROOT, "password", name="li", old=FIRST, new=OWN),
        desk.ask(ROOT, "list"),
    ]
    assert FIRST not in repr((answers, desk.rows))
    assert OWN not in repr((answers, desk.rows))
    assert "scrypt" not in repr((answers, desk.rows))
