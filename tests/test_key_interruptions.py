"""Whatever ends, by kill -9, a planned stop or a power cut, at whatever step of a ceremony: no slot stays
half-built once the terminal serves customers again, a key that works stays, and the ledger tells what happened.

Real processes, and one terminal for all cases; each has an order and a key of its own. In `struck` half a key in
the pad and a service that says "ok" never go together.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.crypto.steps import State
from tests.ceremonies import SITE
from tests.conductor import begun
from tests.interrupting import (
    ENDED,
    BlockStory,
    DestroyStory,
    Story,
    Terminal,
    as_it_is,
    as_the_ledger_says,
    blackout,
    bring_back,
    cut,
    killed,
    pad_killed,
    stopped,
    struck,
)
from tests.keysite import running
from tests.secure import kcv
from tests.whole import wait

pytestmark = [
    pytest.mark.peer("mosquitto"),
    pytest.mark.timeout(120),
]
UNTOUCHED, TOUCHED = ("opened", "part"), ("entering", "part2", "entering2", "confirm", "verified")
ENDINGS = ("aborting", "erased", "aborted")
OPENED = {"opened": 0, "part": 0, "entering": 1, "part2": 1, "entering2": 2, "confirm": 2, "verified": 2}
"""Step -> how many envelopes were opened until then."""


@pytest.fixture(scope="module")
def terminal() -> Iterator[Terminal]:
    with tempfile.TemporaryDirectory(prefix="ki") as name, running(Terminal(Path(name), lab=True)) as terminal:
        yield terminal


@pytest.fixture
def site(terminal: Terminal) -> Terminal:
    """The terminal, with everything running and nothing under way, also after a test that has failed."""
    bring_back(terminal)
    terminal.change_shifts()
    if terminal.state() not in ENDED:
        terminal.li.asks(do="keys", act="abort")
    return terminal


def endings(story: Story) -> list[str]:
    """What the ledger says of the end, from where it was stopped."""
    told = [row["event"] for row in story.rows() if row["event"] in ENDINGS]
    # Erased before it was stopped: a key that was replaced, or what came of a wrong component.
    return [event for n, event in enumerate(told) if event != "erased" or "aborting" in told[:n]]


def came_to_nothing(story: Story, *causes: str, opened: int, touched: bool = True) -> None:
    """The order is used up, what was opened is spoiled, the slot is empty: in the ledger and in the pad."""
    site = story.site
    wait("the last row", lambda: story.rows("aborted"))
    rows = story.rows()
    told = endings(story)
    # Each life of the agent stops it anew.
    assert list(dict.fromkeys(told)) == ([*ENDINGS] if touched else ["aborted"]), told
    assert (told.count("erased"), told[-1]) == (int(touched), "aborted"), told
    (end,) = (row for row in rows if row["event"] == "aborted")
    assert end["cause"] in causes, end
    assert end["spoiled"] == story.envelopes[:opened]
    assert story.slot not in site.slots()
    assert story.slot not in {slot["slot"] for slot in site.status()["slots"] if slot["state"] != "missing"}
    (answer,) = site.li.does("begin", order=story.id)
    assert "carried out already, or stopped" in answer["error"]
    assert site.verified()


def another_goes_through(story: Story, *, whole: bool = False) -> None:
    """A new order for the same slot, but none with an envelope that was opened."""
    site, opened = story.site, story.rows("aborted")[0]["spoiled"]
    if opened:
        again = Story(site, story.slot, parts=story.order["parts"], kcv=story.order["kcv"])
        told = site.li.does("begin", order=again.id)
        assert "envelope_used" in [line["tell"]["word"] for line in told if "tell" in line]
    new = Story(site, story.slot)
    new.to("receipt" if whole else "part")
    if whole:
        new.closes()
    else:
        assert site.li.asks(do="keys", act="abort")[-1]["end"] == "aborted"


@pytest.mark.parametrize("step", UNTOUCHED + TOUCHED)
def test_a_pad_without_power_ends_what_was_not_proved_and_cleans_up_as_soon_as_it_is_back(
    site: Terminal, step: str
) -> None:
    story = Story(site).to(step)
    struck(story, cut)
    came_to_nothing(story, "device_lost", "device_refused", opened=OPENED[step], touched=step in TOUCHED)
    if step == "entering2":
        another_goes_through(story)


@pytest.mark.parametrize(
    ("step", "blow"),
    [("entering", stopped), ("verified", stopped), ("entering2", pad_killed), ("confirm", blackout)],
    ids=lambda word: getattr(word, "__name__", word),
)
def test_other_ends_lead_to_the_same(site: Terminal, step: str, blow: object) -> None:
    story = Story(site).to(step)
    struck(story, blow)  # type: ignore[arg-type]
    causes = ("agent_stopped",) if blow is stopped else ("device_lost", "device_refused")
    came_to_nothing(story, *causes, *(("agent_restarted",) if blow is blackout else ()), opened=OPENED[step])


@pytest.mark.parametrize("digits", [7, 32])
def test_what_was_typed_of_a_component_does_not_outlive_the_agent(site: Terminal, digits: int) -> None:
    story = Story(site).to("entering")
    story.press(digits)
    struck(story, killed)
    came_to_nothing(story, "agent_restarted", opened=1)
    assert not site.hands(look=True)["typing"]


def test_nothing_is_done_to_the_pad_before_it_is_on_disk(site: Terminal) -> None:
    story = Story(site).to("part")
    with site.full_disk():
        first = site.ask(do="keys", act="part", person="li", password=site.li.password)
        assert "beat" in first, "nobody is told to open an envelope before that is on disk"
        assert site.state() == "entering"
        assert not site.hands(look=True)["typing"], "the question waits for its row"
        killed(site)
    assert not story.rows("envelope")
    struck(story, as_it_is)
    came_to_nothing(story, "agent_restarted", opened=0, touched=False)


def test_a_key_of_which_no_life_of_the_agent_has_heard_is_deleted(site: Terminal) -> None:
    story = Story(site).to("confirm")
    site.hands(act="cut_at", step="after complete")
    story.begins(site.wang, "complete")
    wait("the cut", lambda: not site.hands(look=True)["power"])
    killed(site)
    site.hands(act="restore")
    assert site.slots()[story.slot]["loaded"]
    as_the_ledger_says(site)
    struck(story, as_it_is)
    came_to_nothing(story, "agent_restarted", "device_refused", "device_lost", opened=2)


@pytest.mark.parametrize("moment", ["before part", "after part", "before complete"])
def test_a_power_cut_in_the_middle_of_a_step_of_the_pad(site: Terminal, moment: str) -> None:
    entering = moment.endswith("part")
    story = Story(site).to("entering" if entering else "confirm")
    site.hands(act="cut_at", step=moment)
    if entering:
        story.press(32)
    else:
        story.begins(site.wang, "complete")
    wait("the cut", lambda: not site.hands(look=True)["power"])
    struck(story, cut)
    came_to_nothing(story, "device_lost", "device_refused", opened=1 if entering else 2)


def test_an_abort_that_cannot_delete_goes_on_in_the_agents_next_life(site: Terminal) -> None:
    story = Story(site).to("part2")
    site.hands(act="cut_at", step="before delete")
    story.begins(site.li, "abort")
    wait("the deletion to fail", lambda: [row for row in story.rows("alarm") if row["word"] == "slot_unknown"])
    killed(site)
    site.start("agent")
    site.until("resuming")
    assert site.status()["service"] == "ceremony"
    new = Story(site, story.slot)
    (answer,) = site.wang.does("begin", order=new.id)
    assert "cut short" in answer["error"]
    struck(story, as_it_is)
    came_to_nothing(story, "abandoned", opened=1)
    new.to("part")  # it was not used up
    assert site.li.asks(do="keys", act="abort")[-1]["end"] == "aborted"


@pytest.mark.parametrize("step", UNTOUCHED + TOUCHED)
def test_kill_9_of_the_agent_ends_what_was_not_proved_and_the_next_life_cleans_up(
    site: Terminal, step: str
) -> None:
    story = Story(site).to(step)
    struck(story, killed)
    came_to_nothing(story, "agent_restarted", opened=OPENED[step], touched=step in TOUCHED)
    assert [row["cause"] for row in story.rows("trouble")] == ["agent_restarted"]
    if step in ("entering", "verified"):  # after the others the next case's order is the new one
        another_goes_through(story, whole=step == "verified")


def test_a_key_that_was_proved_stays_and_its_papers_are_still_signed_whatever_ends(site: Terminal) -> None:
    story = Story(site)
    for step, second in (("destroy", cut), ("signed", blackout), ("receipt", cut)):
        story.to(step)
        for blow in (killed, second):
            struck(story, blow)
            assert site.state() == ("receipt" if step == "receipt" else "destroy")
            assert site.slots()[story.slot]["check_value"][:6] == kcv(story.key)
    story.closes()
    assert not story.rows("erased")[1:], "only that it was empty at first"
    assert site.verified()
    (answer,) = site.li.does("begin", order=story.id)
    assert "carried out already" in answer["error"]


def test_an_old_key_that_is_cleared_is_gone_and_its_slot_is_empty(site: Terminal) -> None:
    old = Story(site).to("receipt")
    old.closes()
    story = Story(site, old.slot, replaces=old.slot, version=2).to("opened")
    with site.full_disk():
        story.begins(site.wang, "begin", order=story.id)
        site.until("looking")
        killed(site)
    assert site.slots()[old.slot]["loaded"]
    struck(story, as_it_is)
    assert story.rows("aborted")[0]["cause"] == "agent_restarted"
    assert site.slots()[old.slot]["loaded"], "it was not touched yet"
    story = Story(site, old.slot, replaces=old.slot, version=2).to("part")
    assert site.slots()[old.slot]["loaded"], "no envelope was opened yet"
    site.hands(act="cut_at", step="after delete")
    story.begins(site.li, "part")
    wait("the cut", lambda: not site.hands(look=True)["power"])
    struck(story, killed)
    assert list(dict.fromkeys(endings(story))) == [*ENDINGS]
    assert old.slot not in site.slots()


def test_an_old_key_in_another_slot_goes_once_the_new_one_works_whatever_ends(site: Terminal) -> None:
    old = Story(site).to("receipt")
    old.closes()
    story = Story(site, replaces=old.slot).to("verified")
    site.hands(act="cut_at", step="before delete")
    story.begins(site.wang, "prove", ok=True, method="echo", reference="REF-1")
    wait("the cut", lambda: not site.hands(look=True)["power"])
    assert site.until("active")
    killed(site)
    struck(story, as_it_is)
    assert site.state() == "destroy"
    assert old.slot not in site.slots()
    assert site.slots()[story.slot]["loaded"]
    story.done = list(story.walk).index("signed")
    story.to("receipt").closes()
    assert [row["slot"] for row in story.rows("erased")] == [story.slot, old.slot]


def test_a_destruction_is_finished_whatever_ends(site: Terminal) -> None:
    old = Story(site).to("receipt")
    old.closes()
    story = DestroyStory(old).to("confirm")
    struck(story, cut)
    assert story.rows("aborted")[0]["cause"] == "device_lost"
    assert site.slots()[old.slot]["loaded"], "nobody had confirmed"
    story = DestroyStory(old).to("confirm")
    site.hands(act="cut_at", step="before delete")
    story.begins(site.wang, "complete")
    wait("the cut", lambda: not site.hands(look=True)["power"])
    struck(story, killed)
    assert old.slot not in site.slots()
    story.done = list(story.walk).index("signed")
    story.to("receipt")
    site.receipt(story.id)
    assert [row["kcv"] for row in story.rows("erased")] == [kcv(old.key)]
    assert not story.rows("aborted")
    (answer,) = site.li.does("begin", order=story.id)
    assert "carried out already" in answer["error"]


def test_a_key_block_is_forgotten_or_deleted(site: Terminal) -> None:
    carrier = Story(site, "KBPK", usage="K1")
    site.kbpk = carrier.key
    carrier.to("receipt").closes()
    story = BlockStory(site, "TPK").to("confirm")
    struck(story, killed)
    came_to_nothing(story, "agent_restarted", opened=0, touched=False)
    for moment, blow in (("before block", cut), ("after block", killed)):
        story = BlockStory(site, "TPK").to("confirm")
        site.hands(act="cut_at", step=moment)
        story.begins(site.wang, "complete")
        wait("the cut", lambda: not site.hands(look=True)["power"])
        struck(story, blow)
        came_to_nothing(story, "device_refused", "device_lost", "agent_restarted", opened=0)
    story = BlockStory(site, "TPK").to("destroy")
    struck(story, killed)
    assert site.slots()["TPK"]["loaded"]
    story.to("receipt").closes()


def test_a_receipt_that_cannot_be_printed_now_keeps_no_other_order_waiting(site: Terminal) -> None:
    story = Story(site).to("receipt")
    site.slot += 1
    next_one = Story(site).to("opened")
    assert [row["receipt"] for row in story.rows("closed")] == [""]
    assert story.id in site.receipt(story.id)
    assert site.slots()[story.slot]["loaded"]
    assert site.li.does("abort")[-1]["end"] == "aborted"
    assert next_one.rows("opened")


def test_what_could_not_be_deleted_is_tried_as_soon_as_the_pad_answers_again() -> None:
    stage = begun(State.CONFIRM)
    stage.hear(device_state="offline")
    stage.turn()
    assert stage.conducting.ceremony.stuck
    stage.turn()
    assert "key_delete" not in stage.verbs("now") + stage.verbs("put"), "there is no pad to ask"
    # It may be another one, until it has told its serial number again.
    stage.hear(device_state="online", device_serial=SITE.epp_serial)
    stage.turn()
    assert stage.state() is State.ABORTED
    assert stage.epp.state() == "missing"
