"""What `tillwire push` does not send, what `push status` shows, and what is believed of a fleet."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from agent.centre.fleet import Fleet, standing
from agent.centre.rollout import Answer, Rollout
from agent.cli.rolloutviews import picture
from agent.crypto.signing import CHECKPOINT, Envelope
from agent.messages import Birth, Death, Reported, compact, topic
from tests.authority import Authority
from tests.pushsite import Site, kept, tillwire
from tests.pushsite import site as site
from tests.terminals import ORG, signed
from tests.uplinks import Mosquitto

pytestmark = pytest.mark.peer("mosquitto")


# what is not sent at all


def test_what_no_terminal_would_take_is_not_sent(site: Site) -> None:
    site.terminals.add("A")
    target = {"terminals": ["A"]}
    alone = site.envelope(target, name="alone", people=1)
    old = site.envelope(target, name="old", expires=2, not_before=1)
    early = site.envelope(target, name="early", not_before=10**13, expires=10**13 + 1)
    spread = site.envelope({"terminals": ["+"]}, name="spread")
    junk, large, other = (site.folder / name for name in ("junk", "large", "other"))
    junk.write_bytes(b"{}")
    large.write_bytes(b"x" * 200_000)
    other.write_bytes(Envelope(CHECKPOINT, b"{}").text)
    for path, part in (
        (alone, "cosign"),
        (old, "time is over"),
        (early, "not come"),
        (spread, "a name has letters"),
        (junk, "not a signed envelope"),
        (large, "larger"),
        (other, "another purpose"),
    ):
        code, out, err = site.send(path)
        assert (code, out) == (1, ""), path
        assert part in err
    assert site.times() == {"A": 0}
    good = site.envelope(target)
    assert site.send(good, "--org", "others")[0] == 2
    assert site.send(good, "--stages", "1")[0] == 2
    assert site.send(site.folder / "missing")[0] == 2
    assert site.times() == {"A": 0}


def test_who_has_a_newer_version_keeps_it(site: Site) -> None:
    site.terminals.add("A")
    assert site.send(site.envelope({"all": True}, version=8))[0] == 0
    code, out, _ = site.send(site.envelope({"all": True}, version=7, name="older.json"))
    assert code == 1
    assert "A has another already (older): version 8 (P-0008) is in force there" in out
    assert site.times() == {"A": 1}


def test_a_state_of_another_push_is_not_gone_on_with(site: Site) -> None:
    site.terminals.add("A")
    assert site.send(site.envelope({"all": True}))[0] == 0
    code, _, err = site.send(site.envelope({"all": True}, version=2))
    assert code == 3
    assert "is the state of another push, configuration version 1 (P-0001)" in err
    (site.folder / "push.json.rollout.json").write_text("[]")
    assert site.send(site.folder / "push.json")[0] == 3
    assert site.send(site.folder / "push.json", "--state", site.folder / "other.json")[0] == 0
    assert kept(site, "other.json")["committed"] == ["A"]


def test_the_broker_is_verified_or_on_this_machine(site: Site) -> None:
    envelope = site.envelope({"all": True})
    for where, part in (("centre.example:1883", "--ca is missing"), ("127.0.0.1:x", "no broker")):
        code, _, err = tillwire("push", "send", str(envelope), "--broker", where)
        assert code == 2
        assert part in err
    code, _, err = site.send(envelope)
    assert code == 3
    assert "no terminal that this push is for has reported" in err


def test_with_the_shipped_access_list_only_the_centre_may_send(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.sign("broker", "broker", "IP:127.0.0.1")
    for name in ("centre", "ATM-0001"):
        authority.sign(name, name)
    one = Mosquitto(tmp_path / "broker", authority)
    envelope = tmp_path / "push.json"
    envelope.write_bytes(signed({"terminals": ["ATM-0002"]}))

    def send(name: str) -> tuple[int, str, str]:
        files = [str(authority.folder / f"{name}.{kind}") for kind in ("pem", "key")]
        words = ["--ca", str(authority.ca), "--certificate", files[0], "--key", files[1], "--gather", "0.1"]
        where = ["--broker", f"127.0.0.1:{one.port}", "--patience", "0.3"]
        return tillwire("push", "send", str(envelope), *where, *words)

    try:
        code, _, err = send("ATM-0001")
        assert code == 3
        assert "does not take a message to tillwire/v1/coop/ATM-0002/config/desired" in err
        assert "access list" in err
        code, out, err = send("centre")
        assert (code, err) == (1, "")
        assert "ATM-0002 has not said what became of it (offline)" in out
    finally:
        one.stop()


# status


def test_status_says_who_has_what_and_ends_with_1_when_somebody_has_to_look(site: Site) -> None:
    site.terminals.add("A", "B")
    site.terminals.add("OLD", pushes=False)
    assert site.send(site.envelope({"terminals": ["A"]}, version=4))[0] == 0
    code, out, _ = tillwire(*site.words("status", "--org", ORG))
    assert code == 0
    assert "version 4" in out
    assert "takes no pushes" in out
    site.terminals["B"].does = "rolls back"
    site.send(site.envelope({"terminals": ["B"]}, version=5, name="five.json"))
    code, out, _ = tillwire(*site.words("status", "--org", ORG))
    assert code == 1
    assert "rolled back (silent): ups1 did not answer any more" in out
    assert "not well: B" in out
    code, out, _ = tillwire(*site.words("status", "--org", ORG, "--terminal", "B", "--json"))
    [facts] = json.loads(out)["terminals"]
    assert (code, facts["terminal"], facts["online"], facts["outcome"]) == (1, "B", True, "rolled_back")
    assert tillwire(*site.words("status", "--org", ORG, "--terminal", "A"))[0] == 0
    assert tillwire(*site.words("status", "--org", ORG, "--terminal", "X"))[0] == 2
    assert tillwire(*site.words("status", "--org", "nobody"))[0] == 3


def test_how_a_terminal_stands() -> None:
    fleet = Fleet(ORG)

    def said(**fields: Any) -> str:
        report = Reported(at=1, config="c", **fields)
        fleet.take(topic(ORG, "A", "config/reported"), compact(report))
        return standing(fleet.terminals["A"], 1000)

    fleet.take(topic(ORG, "A", "session"), compact(Death(online=False, session="1", at=1, reason="lost")))
    assert standing(fleet.terminals["A"], 1000) == "deaf"
    assert said(outcome="none") == "none"
    assert said(outcome="committed", frozen_until=999) == "committed"
    assert said(outcome="committed", frozen_until=1001) == "frozen"
    assert said(outcome="rolled_back", frozen_until=1001) == "rolled_back"


# the fleet as the broker shows it


def test_a_death_of_an_older_connection_means_nothing() -> None:
    fleet, name = Fleet(ORG), topic(ORG, "A", "session")
    born: dict[str, Any] = {"boot": "b", "version": "1", "config": "c", "epoch": "e", "head": 0, "acked": 0}
    birth = compact(Birth(online=True, session="2", at=2, devices=(), **born))
    assert fleet.take(name, birth) == "A"
    assert fleet.take(name, compact(Death(online=False, session="1", at=1, reason="lost"))) == ""
    assert fleet.terminals["A"].online
    assert fleet.take(name, compact(Death(online=False, session="2", at=3, reason="lost"))) == "A"
    assert not fleet.terminals["A"].online


def test_strangers_and_rubbish_neither_count_nor_hurt() -> None:
    fleet = Fleet(ORG)
    good = compact(Reported(at=1, config="c", outcome="none"))
    for name in (
        "others/A/session",
        f"{ORG}/A/state/ups1",
        f"{ORG}/\x1b[2J/config/reported",
        f"{ORG}//session",
        ORG,
    ):
        assert fleet.take(f"tillwire/v1/{name}", good) == ""
    assert not fleet.terminals
    large = good + b" " * 200_000
    for payload in (b"x", b"[]", b"[" * 50_000, b"{}", b"1", b'{"at": "x"}', b"\xff", large):
        for suffix in ("session", "config/reported"):
            assert fleet.take(topic(ORG, "B", suffix), payload) == ""
    assert not fleet.terminals
    assert fleet.unreadable == {"B/session", "B/config/reported"}
    newer = json.dumps({**json.loads(good), "of_next_year": [1]}).encode()
    assert fleet.take(topic(ORG, "C", "config/reported"), newer) == "C"
    assert fleet.take(topic(ORG, "C", "config/reported"), b"") == "C"
    assert fleet.terminals["C"].reported is None


def test_the_live_view_names_who_is_not_done() -> None:
    one = Rollout(["A", [f"B{number}" for number in range(20)]], 60.0)
    one.seen("A", True)
    one.advance(0.0)
    one.heard("A", Answer("committed"), 0.0)
    one.advance(0.0)
    one.heard("B3", Answer("waiting", "frozen"), 0.0)
    one.heard("B4", Answer("refused", "not_valid"), 0.0)
    drawing = Console(file=io.StringIO(), width=100, record=True)
    drawing.print(picture("configuration version 7 (P-7)", one, 12.0))
    text = drawing.export_text()
    assert "configuration version 7 (P-7)" in text
    assert "1 of 21, stage 2 of 2" in text
    rows = text.splitlines()
    assert rows[1].split() == ["B4", "offline", "refused"], "who failed comes first"
    assert "waiting (frozen)" in text
    assert "48 s left" in text
    assert "and 8 more" in text
