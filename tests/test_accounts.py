"""The people of a terminal: right and wrong passwords, locking, and what survives a restart."""

import hashlib
import json
import unicodedata
from pathlib import Path

import pytest

from agent.crypto.passwords import fits, hashed
from agent.errors import ControlError
from agent.people.accounts import LOCKED_MS, TRIES, Accounts

FIRST, OWN = "first password", "a password of my own"


class People(Accounts):
    """Accounts at a time that the test sets; `set`: by how many ms the wall clock was set meanwhile."""

    def __init__(self, path: Path) -> None:
        self.now, self.set = 1_000_000, 0
        super().__init__(path, lambda: self.now + self.set, lambda: self.now / 1000)


@pytest.fixture
def people(tmp_path: Path) -> People:
    found = People(tmp_path / "accounts.json")
    found.add("wang", "key-manager", "blue", FIRST)
    found.change("wang", FIRST, OWN)
    return found


def test_the_right_password_opens_and_a_wrong_one_does_not(people: People) -> None:
    assert people.person("wang", OWN).group == "blue"
    for name, password in (("wang", "something else"), ("nobody", OWN), ("wang", "")):
        with pytest.raises(ControlError, match="name or password is wrong"):
            people.person(name, password)


def test_a_first_password_opens_nothing_but_its_change(tmp_path: Path) -> None:
    people = People(tmp_path / "a.json")
    people.add("li", "technician", "", FIRST)
    with pytest.raises(ControlError, match="must be changed"):
        people.person("li", FIRST)
    with pytest.raises(ControlError, match="choose another"):
        people.change("li", FIRST, FIRST)
    people.change("li", FIRST, OWN)
    assert people.person("li", OWN).role == "technician"


def test_five_wrong_tries_lock_for_a_day_also_over_a_restart(people: People, tmp_path: Path) -> None:
    for _ in range(5):
        with pytest.raises(ControlError, match="wrong"):
            people.person("wang", "no")
    for again in (people, People(tmp_path / "accounts.json")):
        with pytest.raises(ControlError, match="is locked for"):
            again.person("wang", OWN)
    people.now += LOCKED_MS
    assert people.person("wang", OWN)


@pytest.mark.parametrize("jump", [2 * LOCKED_MS, -LOCKED_MS])
def test_a_wall_clock_that_is_set_neither_opens_a_lock_nor_makes_it_longer(people: People, jump: int) -> None:
    for _ in range(TRIES):
        with pytest.raises(ControlError, match="wrong"):
            people.person("wang", "no")
    people.set += jump
    people.now += LOCKED_MS - 60_000
    with pytest.raises(ControlError, match="is locked for"):
        people.person("wang", OWN)
    people.now += 60_000
    assert people.person("wang", OWN)


def test_a_lock_made_while_the_clock_was_a_year_ahead_is_no_longer_than_others(
    people: People, tmp_path: Path
) -> None:
    people.set += 365 * LOCKED_MS
    for _ in range(TRIES):
        with pytest.raises(ControlError, match="wrong"):
            people.person("wang", "no")
    again = People(tmp_path / "accounts.json")
    with pytest.raises(ControlError, match=r"is locked for 144[01] more"):
        again.person("wang", OWN)
    again.now += LOCKED_MS
    assert again.person("wang", OWN)


def test_a_right_password_forgives_the_wrong_ones_before_it(people: People) -> None:
    for _ in range(3):
        for _ in range(TRIES - 1):
            with pytest.raises(ControlError, match="wrong"):
                people.person("wang", "no")
        assert people.person("wang", OWN)


def test_a_try_is_counted_before_it_is_judged(
    people: People, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plug(password: str, kept: str) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr("agent.people.accounts.fits", plug)
    for _ in range(TRIES):
        with pytest.raises(KeyboardInterrupt):
            people.person("wang", "no")
    monkeypatch.undo()
    with pytest.raises(ControlError, match="locked"):
        People(tmp_path / "accounts.json").person("wang", OWN)


def test_a_role_is_asked_for(people: People) -> None:
    with pytest.raises(ControlError, match="wang is key-manager; this is for technician"):
        people.person("wang", OWN, ("technician",))


def test_unlocking_removing_and_mistakes(people: People) -> None:
    for _ in range(TRIES):
        with pytest.raises(ControlError):
            people.person("wang", "no")
    people.unlock("wang")
    assert people.person("wang", OWN)
    for wrong, says in (
        (("wang", "technician", "", FIRST), "already"),
        (("x y", "technician", "", FIRST), "letters"),
        (("zhao", "boss", "", FIRST), "no role"),
        (("zhao", "technician", "", "short"), "at least 10"),
    ):
        with pytest.raises(ControlError, match=says):
            people.add(*wrong)
    people.remove("wang")
    assert people.names() == []
    with pytest.raises(ControlError, match="there is no wang"):
        people.remove("wang")


def test_the_file_is_private_and_holds_no_password(people: People, tmp_path: Path) -> None:
    path = tmp_path / "accounts.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert OWN not in path.read_text()
    assert OWN not in repr(people.person("wang", OWN))
    assert "scrypt" not in repr(people.person("wang", OWN))
    assert json.loads(path.read_text())[0]["password"].startswith("scrypt$15$8$1$")


def test_a_damaged_file_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[{]")
    with pytest.raises(ControlError, match="put it aside"):
        People(path).names()


@pytest.mark.parametrize(
    "kept",
    [
        *("", "scrypt$15$8$1$00", "scrypt$99$8$1$00$00", "md5$15$8$1$00$00", "scrypt$15$8$1$zz$00"),
        *("scrypt$15$0$1$00$00", "scrypt$15$8$0$00$00"),
    ],
)
def test_what_is_no_hash_fits_nothing(kept: str) -> None:
    assert not fits("a long password", kept)


def test_each_hash_has_its_own_salt() -> None:
    one, other = hashed("a long password"), hashed("a long password")
    assert one != other
    assert fits("a long password", one)
    assert not fits("a long passwore", one)


@pytest.mark.parametrize("password", ["密码密码密码密码密码", "пароль пароль", "passw\u00f6rd of m\u00fcller"])
def test_a_password_may_be_in_any_script_and_typed_at_any_keyboard(password: str) -> None:
    kept = hashed(unicodedata.normalize("NFD", password))
    assert fits(unicodedata.normalize("NFC", password), kept)
    assert not fits(password[:-1], kept)
    assert not fits("\ud800" + password, kept)


def test_a_hash_is_what_rfc_7914_says() -> None:
    salt = "00112233445566778899aabbccddeeff"
    digest = hashlib.scrypt(b"a long password", salt=salt.encode(), n=2**14, r=8, p=1, dklen=32).hex()
    assert fits("a long password", f"scrypt$14$8$1${salt}${digest}")


def test_what_could_not_be_written_does_not_come_to_be_with_the_next_write(people: People, tmp_path: Path) -> None:
    (tmp_path / "accounts.json.new").mkdir()  # so that nothing can be written, also for root
    with pytest.raises(ControlError, match="cannot be written"):
        people.add("mal", "technician", "G2", FIRST)
    with pytest.raises(ControlError, match="cannot be written"):
        people.change("wang", OWN, FIRST)
    with pytest.raises(ControlError, match="cannot be written"):
        people.remove("wang")
    assert people.names() == ["wang"]
    (tmp_path / "accounts.json.new").rmdir()
    people.add("li", "technician", "", FIRST)
    again = People(tmp_path / "accounts.json")
    assert again.names() == ["li", "wang"]
    assert again.person("wang", OWN)
