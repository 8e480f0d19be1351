"""What becomes of what the centre sends, message by message: the agent around it is callables that write down what
they did, the signatures and the disk are real."""

import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.centre.fleet import Seen
from agent.centre.parcel import read as parcel
from agent.clock import Quality
from agent.config import Config, parse
from agent.crypto.signing import CONFIGURATION, TRUST, Envelope
from agent.crypto.trust import Trust
from agent.errors import ControlError, PushRefused, StoreError
from agent.messages import Reported
from agent.model import Heard, Reading
from agent.pushes import kept
from agent.pushing.applying import Applying, Ended, Hands
from agent.pushing.desk import PushDesk
from agent.pushing.inforce import Begun, Pushed
from agent.pushing.judging import DESIRED, SIGNERS, Judging
from agent.pushing.pending import A_MINUTE
from agent.pushing.reports import Reports, digest_of
from agent.pushing.shelf import Shelf
from agent.pushing.swapping import difference
from agent.ration import MINUTE
from tests.commanded import Till
from tests.pushing import DAY, NOW, TRUSTED, configuration, person, rotation, sealed

OWN = """
[terminal]
org = "coop"
id = "ATM-0001"
data = "data"
groups = ["north"]
[push]
signers = "signers.toml"
[broker]
host = "127.0.0.1"
[devices.ups1]
kind = "ups"
port = "/dev/ttyS0"
"""
NEXT = '[broker]\nhost = "127.0.0.1"\n[devices.ups1]\nkind = "ups"\nport = "/dev/ttyS{}"\n'
NEW = Trust(1, (person("newcomer", "config trust"), person("eve", "config trust"), person("bo")))
TURNED = sealed(TRUST, rotation(NEW), "ann", "bo")


class Terminal:
    """One terminal; `begin` is a start of its agent."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.config = folder, parse(OWN.encode(), folder)
        self.wall, self.quality = NOW, "free"
        self.answering: frozenset[str] = frozenset({"ups1"})
        self.unheard: tuple[str, ...] = ()
        self.deaf, self.proven, self.fails = "", math.inf, ""
        self.starts = 0
        self.busy: Callable[[], str] = str
        self.rows: list[dict[str, Any]] = []
        self.told: list[Reported] = []
        self.ended: list[Ended] = []
        self.begin()

    def begin(self) -> None:
        self.shelf = Shelf(self.folder / "pushes")
        found = self.shelf.recover(lambda _: True)
        pushed = Pushed(self.shelf, found, TRUSTED, "", "", ())
        push = kept(found.in_force.envelope, found.in_force.digest) if found.in_force else None
        self.begun = Begun(parse(OWN.encode(), self.folder), self.folder / "own.toml", OWN.encode(), push, pushed)
        self.hands = Hands(
            config=lambda: self.config,
            take=self._take,
            change=difference,
            answers=lambda: self.answering,
            unheard=lambda: self.unheard,
            back=lambda names: self.rows.append({"event": "back", "of": sorted(names)}),
            deaf=lambda: self.deaf,
            proven=lambda: self.proven,
            note=self._note,
            keep=lambda: True,
            applying=lambda push: self.reports.tell("applying", push),
            clock=self._clock,
            busy=lambda: self.busy(),
            restart=self._restart,
            boot="boot-1",
        )
        self.reports = Reports(
            ("north",),
            self._clock,
            self.shelf.memory.frozen,
            lambda: self.judging.pushed.trust.version if self.judging.pushed.trust else 0,
            lambda: self.config.digest,
            lambda: self.judging.push.version if self.judging.push else 0,
            lambda suffix, payload, retain: self.told.append(Reported.model_validate_json(payload)),
        )
        commanding = Till(self.folder / "commands").commanding
        self.applying = Applying(self.shelf, self.hands, 60.0)
        self.judging = Judging(
            self.begun, pushed, self.hands, self.reports, commanding, self.applying, self.ended.append
        )
        self.desk = PushDesk(self.begun, pushed, self.hands, self.reports, commanding, threading.Event())

    def _take(self, config: Config) -> None:
        if self.fails:
            raise RuntimeError(self.fails)
        self.config = config

    def _note(self, event: str, **facts: Any) -> None:
        self.rows.append({"event": event, **facts})

    def _clock(self) -> tuple[int, Quality]:
        return self.wall, "unset" if self.quality == "unset" else "free"

    def _restart(self) -> None:
        self.starts += 1

    def send(self, envelope: bytes, kind: str = DESIRED) -> str:
        self.judging.take(kind, envelope)
        return digest_of(envelope)

    def commit(self, envelope: bytes) -> str:
        """Have it in force."""
        digest = self.send(envelope)
        assert self.applying.probation
        self.applying.probation.heard("ups1", time.monotonic())
        ended = self.applying.turn()
        assert ended
        assert ended.outcome == "committed"
        self.judging.push = ended.push
        self.reports.tell(ended.outcome, ended.push)
        return digest

    def events(self, *skipped: str) -> list[str]:
        return [row["event"] for row in self.rows if row["event"] not in skipped]

    @property
    def said(self) -> tuple[str, str, int, str]:
        """What the last report says: outcome, reason, version, digest."""
        now = self.told[-1]
        return now.outcome, now.reason, now.version, now.digest


@pytest.fixture
def till(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path)


def of(version: int = 7, *names: str, **fields: Any) -> bytes:
    """A configuration, whose UPS is at the port of its version."""
    content = configuration(**{"version": version, "config": NEXT.format(version)} | fields)
    return sealed(CONFIGURATION, content, *(names or ("ann", "bo")))


def copy(envelope: bytes, signatures: int) -> bytes:
    """The same with fewer signatures."""
    found = Envelope.read(envelope)
    return Envelope(found.kind, found.unverified, found.signatures[:signatures]).text


def test_nothing_is_tried_before_the_devices_were_heard(till: Terminal) -> None:
    till.unheard = ("ups1", "card1")
    digest = till.send(of())
    assert till.said == ("waiting", "busy", 7, digest)
    assert "ups1, card1" in till.told[-1].detail
    till.judging.turn(0.0)
    assert till.events() == []
    till.unheard = ()
    till.judging.turn(0.0)
    assert till.events() == ["staged", "applying"]
    assert till.applying.silent == ("ups1",)


def test_what_cannot_be_used_is_refused_without_waiting_for_devices(till: Terminal) -> None:
    till.unheard = ("ups1",)
    till.send(of(config=NEXT.format(1).replace('"ups"', '"usp"')))
    assert till.said[:2] == ("refused", "not_valid")


def test_a_rollback_tells_who_answered_before(till: Terminal) -> None:
    till.send(of())
    assert till.applying.roll_back("technician", "why")
    assert {"event": "back", "of": ["ups1"]} in till.rows


def test_who_comes_back_takes_the_new_signers_and_then_what_they_have_signed(till: Terminal) -> None:
    digest = till.send(of(7, "newcomer", "eve"))
    assert till.said == ("refused", "unknown_key", 0, digest)
    till.send(TURNED, SIGNERS)
    assert till.told[-1].trust == 1
    assert till.said == ("applying", "", 7, digest)


@pytest.mark.parametrize("signatures", [0, 1])
def test_a_copy_with_fewer_signatures_changes_no_report(till: Terminal, signatures: int) -> None:
    envelope = of(7)
    digest = till.commit(envelope)
    till.send(copy(envelope, signatures))
    assert till.said == ("committed", "", 7, digest)
    assert till.rows[-1]["event"] == "refused"
    till.unheard = ("ups1",)
    waits = of(8)
    digest = till.send(waits)
    till.send(copy(waits, signatures))
    assert till.said == ("waiting", "busy", 8, digest)
    till.unheard = ()
    till.judging.again()
    assert till.said == ("applying", "", 8, digest)
    till.send(copy(waits, signatures)[:-1] + b" }")
    assert till.said == ("applying", "", 8, digest)


def test_what_was_decided_and_comes_again_is_told_as_it_was_decided(till: Terminal) -> None:
    envelope = of(7)
    digest = till.commit(envelope)
    till.reports.tell("refused", None, "too_few", digest=digest)
    till.send(envelope)
    assert till.said == ("committed", "", 7, digest)
    told = len(till.told)
    till.send(envelope)
    assert len(till.told) == told


def test_what_nobody_signed_gives_a_report_no_version_and_no_id(till: Terminal) -> None:
    digest = till.send(of(10**8, "ann"))
    assert till.said == ("refused", "too_few", 0, digest)
    assert till.told[-1].id == ""


def test_links_that_do_not_begin_again_have_the_agent_begin_again(till: Terminal) -> None:
    digest = till.send(of())
    till.fails = "can't start new thread"
    assert till.applying.roll_back("silent", "ups1 did not answer") is None
    assert till.starts == 1
    assert [till.applying.turn() for _ in range(3)] == [None] * 3
    assert till.applying.roll_back("technician", "li") is None, "it may be asked for again"
    till.begin()
    last = till.shelf.last
    assert (last.outcome, last.reason, last.digest) == ("rolled_back", "interrupted", digest)
    assert till.applying.push is None
    assert till.shelf.in_force() is None


def test_whatever_goes_wrong_while_it_is_applied_takes_it_back(till: Terminal) -> None:
    def note(event: str, **facts: Any) -> None:
        if event == "applying":
            raise RuntimeError("a bug")
        till._note(event, **facts)

    object.__setattr__(till.hands, "note", note)
    till.send(of())
    assert (till.ended[-1].outcome, till.ended[-1].reason) == ("rolled_back", "not_applied")
    assert till.applying.push is None
    object.__setattr__(till.hands, "note", till._note)
    till.send(of(8))
    assert till.applying.push, "the next one can be tried"


def test_no_ceremony_begins_once_a_push_has_asked_for_the_last_time_whether_one_has(till: Terminal) -> None:
    till.judging, till.applying = till.desk._judging, till.desk._applying
    asked: list[bool] = []

    def busy() -> str:
        asked.append(till.desk.is_trying)
        return "keys are being loaded" if len(asked) == 2 else ""

    till.busy = busy
    digest = till.send(of(7))
    assert asked == [False, True], "one that is opened between the two is seen, a later one is not opened"
    assert till.said == ("waiting", "busy", 7, digest)
    assert not till.desk.is_trying
    assert not [row for row in till.rows if row["event"] in ("staged", "applying")]
    till.judging.again()
    assert till.said == ("applying", "", 7, digest)
    assert till.applying.push


def test_a_push_that_cannot_even_be_staged_leaves_nothing_behind_that_is_tried(
    till: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    till.judging, till.applying = till.desk._judging, till.desk._applying

    def broken(*args: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(till.shelf, "stage", broken)
    with pytest.raises(ValueError, match="a bug"):
        till.send(of(7))
    assert not till.desk.is_trying, "else no order could be opened any more"


def test_nor_once_one_is_taken_back(till: Terminal) -> None:
    till.commit(of(7))
    asked: list[bool] = []

    def busy() -> str:
        asked.append(till.desk.is_trying)
        return "keys are being loaded"

    till.busy = busy
    with pytest.raises(ControlError, match="keys are being loaded: end that first"):
        till.desk._take_back("root", None)
    assert asked == [True]
    assert not till.desk.is_trying


def test_a_broker_that_lets_nothing_be_heard_is_not_kept(till: Terminal) -> None:
    till.applying = till.judging._applying = Applying(till.shelf, till.hands, 0.0)
    till.deaf = "the broker does not let it hear command: correct its access list"
    till.send(of(7, config=NEXT.format(0).replace("127.0.0.1", "127.0.0.2")))
    assert till.applying.probation
    till.applying.probation.deadline = math.inf
    till.applying.probation.heard("ups1", 0.0)
    assert till.applying.turn() is None
    till.deaf = ""
    assert (ended := till.applying.turn())
    assert ended.outcome == "committed"
    till.deaf = "the broker does not let it hear command: correct its access list"
    till.send(of(8, config=NEXT.format(0).replace("127.0.0.1", "127.0.0.3")))
    probation = till.applying.probation
    assert probation
    probation.deadline = math.inf
    probation.heard("ups1", 0.0)
    till.applying.turn()
    probation.deadline = 0.0
    assert (ended := till.applying.turn())
    assert (ended.outcome, ended.reason) == ("rolled_back", "deaf")
    assert "correct its access list" in ended.detail


def test_an_answer_that_came_for_one_push_does_not_count_for_the_next(till: Terminal) -> None:
    till.judging = till.desk._judging
    till.applying = till.desk._applying
    till.send(of(7))
    till.desk.heard(Heard("ups1", (Reading("link.state", "up", 0.0),)))
    assert till.applying.roll_back("technician", "li")
    till.send(of(8))
    till.desk._queue.get_nowait()()
    assert ", ".join(till.applying.silent) == "ups1"
    till.desk.heard(Heard("ups1", (Reading("link.state", "up", 0.0),)))
    till.desk._queue.get_nowait()()
    assert ", ".join(till.applying.silent) == ""


def test_a_rotation_that_is_refused_is_told_and_the_configuration_stays_told(till: Terminal) -> None:
    digest = till.commit(of(7))
    refused = sealed(TRUST, rotation(NEW), "ann", "stranger")
    till.send(refused, SIGNERS)
    now = till.told[-1]
    assert till.said == ("committed", "", 7, digest)
    assert (now.trust, now.trust_reason, now.trust_digest) == (0, "unknown_key", digest_of(refused))
    answer = parcel(refused, NOW).answer(Seen(reported=now))
    assert answer
    assert (answer.word, answer.reason, answer.lasts) == ("refused", "unknown_key", False)
    assert parcel(of(7), NOW).answer(Seen(reported=now)) != answer
    till.quality = "unset"
    till.send(TURNED, SIGNERS)
    assert till.told[-1].trust_reason == "clock_suspect"
    assert (answer := parcel(TURNED, NOW).answer(Seen(reported=till.told[-1])))
    assert answer.word == "waiting"
    till.quality = "free"
    till.judging.again()
    assert (till.told[-1].trust, till.told[-1].trust_reason, till.told[-1].trust_digest) == (1, "", "")
    assert till.said == ("committed", "", 7, digest)
    assert parcel(TURNED, NOW).answer(Seen(reported=till.told[-1])) is not None


def test_a_rotation_counts_and_is_told_although_its_digest_cannot_be_remembered(
    till: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StoreError("the disk is full: make room")

    monkeypatch.setattr(till.shelf.memory, "remember", full)
    till.send(TURNED, SIGNERS)
    assert till.events() == ["signers"]
    assert till.told[-1].trust == 1
    assert till.judging.waits is None, "it is done with"


def test_a_clock_that_was_ahead_ends_nothing_for_good(till: Terminal) -> None:
    envelope = of()
    till.wall = NOW + 2 * DAY
    till.send(envelope)
    till.send(envelope)
    assert till.said[:2] == ("refused", "expired")
    assert len(till.told) == 1, "it is told once"
    assert till.events() == ["refused"]
    till.wall = NOW
    till.send(envelope)
    assert till.said[:2] == ("applying", "")


def test_what_was_not_valid_here_is_looked_at_again_after_a_start(till: Terminal) -> None:
    envelope = of(7, config=NEXT.format(7).replace("127.0.0.1", "127.0.0.1"))
    begun = till.begun

    def other(self: Begun, text: str) -> Config:
        raise PushRefused("not_valid", "this version knows no such kind")

    till.judging._begun = type("Old", (), {"with_push": other})()
    till.send(envelope)
    told = len(till.told)
    till.send(of(7) + b" ")
    assert (till.said[:2], len(till.told)) == (("refused", "not_valid"), told), "it is told once"
    till.begin()
    assert till.begun.text == begun.text
    till.send(envelope)
    assert till.said[0] == "applying"


def test_who_takes_away_what_is_retained_takes_away_what_waits(till: Terminal) -> None:
    digest = till.commit(of(7))
    till.unheard = ("ups1",)
    waits = till.send(of(8))
    till.send(b"")
    till.unheard = ()
    till.judging.again()
    assert till.said == ("committed", "", 7, digest)
    assert till.rows[-1] == {"event": "withdrawn", "of": DESIRED, "digest": waits, "version": 8}
    till.send(b"")
    assert till.rows[-1]["digest"] == waits, "nothing waits any more"
    till.send(of(8))
    till.send(b"")
    assert till.applying.push, "what is tried already goes on"


def test_what_two_people_signed_is_told_after_a_flood(till: Terminal) -> None:
    for number in range(A_MINUTE):
        till.send(b"rubbish %d" % number)
    told = len(till.told)
    digest = till.send(of(7, expires=NOW - 1))
    for number in range(A_MINUTE):
        till.send(of(8, "ann", id=f"C-{number}"))
    assert len(till.told) == told
    till.judging.turn(time.monotonic() + MINUTE)
    assert till.said[:2] == ("refused", "expired")
    assert till.said[3] == digest
    assert [row.get("count") for row in till.rows if row.get("reason") == "too_many"] == [A_MINUTE + 1]


def test_what_was_interrupted_is_explained(till: Terminal) -> None:
    till.send(of(7))
    till.begin()
    assert till.shelf.last.reason == "interrupted"
    assert "greater version" in till.shelf.last.detail
