"""What an agent begins with: one agent alone decides what was pushed, for the terminal that it was meant for, and a
changed file of signers brings no revoked key back."""

import json
import threading
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from agent.crypto.signing import CONFIGURATION, TRUST
from agent.crypto.trust import Trust
from agent.errors import StoreError
from agent.pushing.applying import Applying, Hands
from agent.pushing.commanding import Commanding
from agent.pushing.desk import PushDesk
from agent.pushing.inforce import Begun, Pushed, begin
from agent.pushing.judging import SIGNERS, Judging
from agent.pushing.reports import Reports, digest_of
from tests.commanded import Till
from tests.pushing import KEYS, NOW, TRUSTED, configuration, person, rotation, sealed

NEWCOMER = person("newcomer", "config trust")
REVOKED = Trust(2, (*(one for one in TRUSTED.signers if one.name != "bo"), NEWCOMER))
REVOKED = Trust.parse(replace(REVOKED, revoked=TRUSTED.revoked | {KEYS["bo"].public.id}).text)
"""A set without bo, whose key was stolen."""
TERMINAL = """
[terminal]
org = "coop"
id = "ATM-0001"
groups = ["north"]
data = "data"
[push]
signers = "signers.toml"
"""


def listed(trust: Trust) -> str:
    """A set as a technician's file has it."""
    entries = (
        f'[[signer]]\nname = "{s.name}"\nroles = {json.dumps(sorted(s.roles))}\nkey = """{s.key.pem}"""\n'
        for s in trust.signers
    )
    return f"revoked = {json.dumps(sorted(trust.revoked))}\n" + "".join(entries)


class Place:
    """A terminal's folder. An agent that begins there ends the one before."""

    def __init__(self, folder: Path) -> None:
        self.file, self.signers = folder / "terminal.toml", folder / "signers.toml"
        self.file.write_text(TERMINAL)
        self.signers.write_text(listed(TRUSTED))
        self.begun: Begun | None = None

    def begin(self) -> tuple[Begun, Pushed]:
        self.end()
        self.begun = begin(self.file)
        assert self.begun.pushed
        return self.begun, self.begun.pushed

    def end(self) -> None:
        if self.begun and self.begun.folder:
            self.begun.folder.close()

    def names(self, them: Trust) -> Pushed:
        """The technician's file names them, and the agent begins again."""
        self.signers.write_text(listed(them))
        return self.begin()[1]


def tried(pushed: Pushed, **fields: Any) -> None:
    """A push that is on probation."""
    envelope = sealed(CONFIGURATION, configuration(**fields), "ann", "bo")
    pushed.shelf.stage(envelope, 7, digest_of(envelope))
    pushed.shelf.step("applying")
    pushed.shelf.step("probation")


def names(trust: Trust | None) -> set[str]:
    return {signer.name for signer in trust.signers} if trust else set()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    found = Place(tmp_path)
    yield found
    found.end()


def test_a_second_agent_touches_nothing_of_what_the_first_one_tries(place: Place) -> None:
    _, pushed = place.begin()
    tried(pushed)
    with pytest.raises(StoreError, match="another agent"):
        begin(place.file)
    pushed.shelf.commit()
    begun, _ = place.begin()
    assert begun.push
    assert begun.push.version == 7


@pytest.mark.parametrize(("old", "new"), [('id = "ATM-0001"', 'id = "ATM-0002"'), ('org = "coop"', 'org = "bank"')])
def test_a_copied_data_folder_brings_no_other_terminals_configuration(place: Place, old: str, new: str) -> None:
    _, pushed = place.begin()
    tried(pushed, target={"terminals": ["ATM-0001"]})
    pushed.shelf.commit()
    place.file.write_text(TERMINAL.replace(old, new))
    begun, pushed = place.begin()
    assert begun.push is None
    assert not begun.config.devices
    assert begun.back_to(pushed.shelf.in_force()) == (begun.own, None)
    (trouble,) = pushed.troubles
    assert trouble == pushed.unfit
    assert "it is for terminals ATM-0001 of coop" in trouble
    place.file.write_text(TERMINAL)
    assert place.begin()[0].push


def test_a_push_for_a_group_counts_as_long_as_the_terminal_is_of_it(place: Place) -> None:
    tried(pushed := place.begin()[1])
    pushed.shelf.commit()
    assert place.begin()[0].push
    place.file.write_text(TERMINAL.replace("north", "south"))
    assert place.begin()[0].push is None


def test_a_remark_in_the_file_of_signers_changes_nobody(place: Place) -> None:
    place.begin()[1].with_trust(REVOKED)
    place.signers.write_text("# looked at\n" + place.signers.read_text())
    _, pushed = place.begin()
    assert pushed.trust == REVOKED
    assert not pushed.troubles


def test_another_file_of_signers_counts_and_brings_no_revoked_key_back(place: Place) -> None:
    place.begin()[1].with_trust(REVOKED)
    again = replace(TRUSTED, signers=(*TRUSTED.signers, NEWCOMER))
    pushed = place.names(again)
    assert pushed.trust
    assert pushed.trust.version == 0
    assert names(pushed.trust) == names(again) - {"bo"}
    assert pushed.trust.revoked == REVOKED.revoked
    (trouble,) = pushed.troubles
    assert "version 2, which was pushed, counts no more; the key there of bo was revoked" in trouble
    assert not place.begin()[1].troubles, "it is told once"
    third = replace(again, signers=tuple(s for s in again.signers if s.name != "cy"))
    assert names(place.names(third).trust) == {"ann", "di", "newcomer"}, "nor with the file after that"
    new_key = replace(NEWCOMER, name="bo")
    with_bo = replace(TRUSTED, signers=(*(s for s in TRUSTED.signers if s.name != "bo"), new_key))
    assert "bo" in names(place.names(with_bo).trust), "who has a new key counts"


def test_a_file_that_is_left_with_too_few_people_takes_no_push(place: Place) -> None:
    place.begin()[1].with_trust(REVOKED)
    pushed = place.names(replace(TRUSTED, signers=(person("ann"), person("bo"))))
    assert pushed.trust is None
    assert "were revoked: give their owners new ones" in pushed.distrust
    assert place.names(TRUSTED).trust == REVOKED, "with the old file back, nothing was lost"
    place.names(replace(TRUSTED, signers=(person("ann"), person("bo"))))
    assert place.names(replace(TRUSTED, signers=(person("ann"), NEWCOMER))).trust


def judging(place: Place, folder: Path) -> Judging:
    """What judges what the centre sends; of the rest of the agent it needs its clock only."""
    begun, pushed = place.begin()
    till = Till(folder)
    nothing: dict[str, Any] = {field.name: lambda *_, **__: None for field in fields(Hands)}
    hands = Hands(**{**nothing, "clock": lambda: (NOW, "synced")})
    reports = Reports((), hands.clock, lambda _: None, lambda: 0, lambda: "", lambda: 0, lambda *_: None)
    commanding = Commanding(till.memory, till.table, till.reach)
    return Judging(begun, pushed, hands, reports, commanding, Applying(pushed.shelf, hands, 10), lambda _: None)


def test_a_rotation_that_stands_at_the_broker_counts_again_after_the_file_was_changed(
    place: Place, tmp_path: Path
) -> None:
    chain = [sealed(TRUST, rotation(REVOKED), "ann", "bo")]
    chain.append(sealed(TRUST, rotation(replace(REVOKED, version=3)), "ann", "newcomer"))
    first = judging(place, tmp_path / "one")
    first.take(SIGNERS, b"\n".join(chain))
    assert first.pushed.trust
    assert first.pushed.trust.version == 3
    place.signers.write_text(listed(replace(TRUSTED, signers=(*TRUSTED.signers, NEWCOMER))))
    second = judging(place, tmp_path / "two")
    assert second.pushed.trust
    assert second.pushed.trust.version == 0
    second.take(SIGNERS, b"\n".join(chain))
    assert second.pushed.trust.version == 3


def test_the_centre_hears_that_what_was_committed_does_not_count(place: Place, tmp_path: Path) -> None:
    tried(pushed := place.begin()[1], target={"terminals": ["ATM-0001"]})
    pushed.shelf.commit()
    told = []
    for text in (TERMINAL, TERMINAL.replace("ATM-0001", "ATM-0002")):
        place.file.write_text(text)
        begun, pushed = place.begin()
        till, stop = Till(tmp_path / "till"), threading.Event()
        nothing: dict[str, Any] = {field.name: lambda *_, **__: None for field in fields(Hands)}
        hands = Hands(**{**nothing, "clock": lambda: (NOW, "synced")})
        reports = Reports((), hands.clock, lambda _: None, lambda: 0, lambda: "", lambda: 0, lambda *_: None)
        stop.set()
        PushDesk(begun, pushed, hands, reports, Commanding(till.memory, till.table, till.reach), stop).run()
        told.append((reports.now.outcome, reports.now.version, reports.now.reason))
    assert told == [("committed", 7, ""), ("rolled_back", 7, "unfit")]
