"""`tillwire push send` with a real broker, and simulated terminals that answer."""

import signal

import pytest

from agent.centre.broker import Centre, broker
from agent.centre.fleet import Fleet
from agent.cli.sending import alone
from agent.crypto.signing import COMMAND, TRUST
from agent.errors import UplinkError
from agent.messages import topic
from tests.pushsite import Site, kept
from tests.pushsite import site as site
from tests.terminals import ORG
from tests.whole import wait

pytestmark = pytest.mark.peer("mosquitto")


# sending


def test_each_stage_waits_until_all_of_the_one_before_have_committed(site: Site) -> None:
    site.terminals.add(*(f"ATM-{number}" for number in range(6)), groups=["north"])
    site.terminals.add("POS-1", groups=["south"])
    site.terminals.add("OLD-1", pushes=False)
    envelope = site.envelope({"groups": ["north"]})
    code, events = site.events(envelope, "--stages", "1,2,rest")
    assert code == 0
    assert [len(stage) for stage in events[0]["stages"]] == [1, 2, 3]
    committed = 0
    for event in events:
        if event["event"] == "sent":
            assert committed >= {1: 0, 2: 1, 3: 3}[event["stage"]]
        committed += event.get("word") == "committed"
    assert events[-1]["result"] == "done"
    assert events[-1]["committed"] == committed == 6
    assert site.times() == {**{f"ATM-{number}": 1 for number in range(6)}, "POS-1": 0, "OLD-1": 0}
    desired = site.broker.retained("config/desired")
    assert desired == {f"ATM-{number}": envelope.read_bytes() for number in range(6)}
    assert "OLD-1" in events[1]["text"], "who takes no pushes is named"
    code, events = site.events(envelope)
    assert (code, events[0]["committed"]) == (0, [f"ATM-{number}" for number in range(6)])
    assert sum(site.times().values()) == 6, "nobody is sent to again"


def test_the_first_rollback_stops_it_and_leaves_the_others_as_they_are(site: Site) -> None:
    site.terminals.add("A", "C", "D")
    site.terminals.add("B", does="rolls back")
    site.send(site.envelope({"terminals": ["D"]}, name="before.json"))
    before = site.broker.retained("config/desired")
    code, out, err = site.send(
        site.envelope({"terminals": ["A", "B", "C", "D"]}, version=2), "--stages", "1,2,rest"
    )
    assert (code, err) == (1, "")
    assert "B has rolled back (silent): ups1 did not answer any more; put right what it names, sign a" in out
    assert "stopped: 2 of 4 terminals have it; 1 were not sent to" in out or "stopped: 1 of 4" in out
    desired = site.broker.retained("config/desired")
    assert desired["D"] == before["D"], "what stands for a terminal that was not reached is not touched"
    assert site.times()["D"] == 1
    assert kept(site)["failed"]["B"]["word"] == "rolled_back"
    code, out, _ = site.send(site.folder / "push.json")
    assert (code, site.times()["B"], site.times()["D"]) == (1, 1, 1), "it is as bad as before: nobody is sent to"


def test_silence_stops_it_and_the_same_command_goes_on(site: Site) -> None:
    site.terminals.add("A", "D")
    site.terminals.add("B", does="says nothing")
    site.terminals.add("C", does="waits")
    envelope = site.envelope({"terminals": ["A", "B", "C", "D"]})
    code, out, _ = site.send(envelope, "--stages", "3,rest", "--patience", "0.4")
    assert code == 1
    assert "B has not said what became of it" in out
    assert "C has not said what became of it (frozen); ask the technician there to thaw it" in out
    assert "run the same command again" in out
    assert (site.times()["A"], site.times()["D"]) == (1, 0)
    site.terminals["B"].does = site.terminals["C"].does = "commits"
    code, events = site.events(envelope)
    assert code == 0
    assert [e["terminal"] for e in events if e["event"] == "sent"] == ["B", "C", "D"]
    assert site.times()["A"] == 1, "who has committed is not sent to again"


def test_who_comes_later_is_taken_by_the_next_run_in_stages_of_its_own(site: Site) -> None:
    site.terminals.add("A", "B")
    envelope = site.envelope({"all": True})
    assert site.send(envelope)[0] == 0
    site.terminals.add("C", "D")
    code, events = site.events(envelope)
    assert (code, events[0]["stages"]) == (0, [["A"], ["B"], ["C"], ["D"]])
    assert site.times() == dict.fromkeys("ABCD", 1)


def test_an_offline_terminal_is_waited_for_or_skipped_and_gets_it_when_it_comes(site: Site) -> None:
    site.terminals.add("A", "B")
    site.terminals.cut("B")
    wait("the last will", lambda: b'"online":false' in site.broker.retained("session")["B"])
    envelope = site.envelope({"terminals": ["A", "B", "C-typo"]})
    code, out, _ = site.send(envelope, "--patience", "0.2")
    assert code == 1
    assert "never connected to this broker: C-typo; is the name right?" in out
    assert "B has not said what became of it (offline); bring it online" in out
    code, out, _ = site.send(envelope, "--skip-offline")
    assert code == 0
    assert "2 were offline and get it when they connect: B, C-typo" in out
    site.terminals.back("B")
    wait("the push at B", lambda: site.terminals["B"].report.outcome == "committed")


def test_ctrl_c_leaves_what_the_same_command_goes_on_from(site: Site) -> None:
    site.terminals.add("A", "C")
    site.terminals.add("B", does="applies")
    envelope = site.envelope({"all": True})
    with site.start(envelope) as process:
        assert process.stdout
        for line in process.stdout:
            if "B: applying" in line:
                break
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "the same command goes on from here" in err
    assert "A" in kept(site)["committed"]
    assert "B" in kept(site)["sent"]
    site.terminals["B"].does = "commits"
    assert site.send(envelope)[0] == 0
    assert site.times()["A"] == 1


def test_a_broker_that_was_away_is_no_end(site: Site) -> None:
    site.terminals.add("A")
    site.terminals.add("B", does="says nothing")
    envelope = site.envelope({"terminals": ["A", "B"]})
    with site.start(envelope) as process:
        wait("the push at B", lambda: site.terminals["B"].heard)
        site.broker.stop()
        site.terminals["B"].does = "commits"
        site.broker.start()
        site.terminals.back("A")
        site.terminals.back("B")
        site.terminals.await_ready("A", "B")
        site.terminals.say("B", outcome="committed", digest=kept(site)["digest"], version=1)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "done: 2 of 2" in out


def test_what_was_not_acknowledged_is_published_again_and_a_broker_that_stays_away_is_told(site: Site) -> None:
    at, fleet = broker(f"127.0.0.1:{site.broker.port}", "5", None, None, None), Fleet(ORG)
    with Centre(at, fleet) as line:
        site.broker.process.send_signal(signal.SIGSTOP)
        line.publish(topic(ORG, "A", "config/desired"), b"push", True)
        line.turn(0.0)
        site.broker.stop()
        site.broker.start()
        line.flush()
        assert site.broker.retained("config/desired") == {"A": b"push"}
    with Centre(at, fleet, give_up=0.1) as line:
        site.broker.stop()
        with pytest.raises(UplinkError, match=r"no broker for 0 s: .*cannot be reached"):
            line.gather(60.0)


def test_a_large_stage_is_asked_for(site: Site) -> None:
    site.terminals.add(*(f"T{number:02}" for number in range(52)))
    envelope = site.envelope({"all": True})
    code, out, err = site.send(envelope, "--stages", "1,rest", typed="n\n")
    assert (code, sum(site.times().values())) == (1, 1)
    assert "1 have it. Stage 2 is 51 terminals at once. Send to them? [y/N]" in err
    assert "51 were not sent to" in out
    code, out, err = site.send(envelope)
    assert code == 1
    assert "--yes" in err
    assert site.send(envelope, typed="y\n")[0] == 0
    assert set(site.times().values()) == {1}


# commands and signers


def test_a_command_is_sent_to_who_is_online_and_its_answer_is_shown(site: Site) -> None:
    site.terminals.add("A", "B", "C")
    site.terminals.cut("A")
    wait("the last will", lambda: b'"online":false' in site.broker.retained("session")["A"])
    code, out, _ = site.send(site.envelope({"all": True}, kind=COMMAND))
    assert code == 0, "who is online comes first, or nobody would show that it does no harm"
    assert "B:\n12 notes, 3 cards" in out
    assert "1 were offline and did not get it: A" in out
    assert site.broker.retained("command") == {}
    site.terminals["C"].does = "refuses"
    code, out, _ = site.send(site.envelope({"terminals": ["C", "B"]}, kind=COMMAND, id="C-2", name="second.json"))
    assert code == 1
    assert "C did not do it (refused)" in out
    assert site.times() == {"A": 0, "B": 1, "C": 2}


def test_new_signers_go_to_their_own_topic(site: Site) -> None:
    site.terminals.add("A", "B")
    envelope = site.envelope({"all": True}, kind=TRUST, version=3)
    assert site.send(envelope)[0] == 0
    assert site.broker.retained("trust/desired") == dict.fromkeys("AB", envelope.read_bytes())
    assert site.broker.retained("config/desired") == {}


def test_two_that_send_from_the_same_state_lock_each_other_out(site: Site) -> None:
    site.terminals.add("A")
    envelope = site.envelope({"terminals": ["A"]})
    with alone(site.folder / "push.json.rollout.json"):
        code, out, err = site.send(envelope)
        assert (code, out) == (3, "")
        assert "another `tillwire push send` works with" in err
        assert site.times() == {"A": 0}
    assert site.send(envelope)[0] == 0
    assert not list(site.folder.glob("*.lock"))


def test_another_broker_is_named_before_anything_is_sent(site: Site) -> None:
    site.terminals.add("A")
    here = f'[broker]\nhost = "127.0.0.1"\nport = {site.broker.port}\n'
    there = f'[broker]\nhosts = ["127.0.0.1:{site.broker.port + 1}", "127.0.0.1:{site.broker.port + 2}"]\n'
    for version, (config, told) in enumerate(((here, 0), (there, 1)), 1):
        envelope = site.envelope({"terminals": ["A"]}, f"{version}.json", version=version, config=config)
        _, events = site.events(envelope)
        notes = [event["text"] for event in events if event["event"] == "note"]
        assert sum("names the broker" in note for note in notes) == told
    assert f":{site.broker.port + 1}" in notes[0]
