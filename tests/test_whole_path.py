"""Bytes on a serial line to a subscriber elsewhere and to the technician's screen, in real processes."""

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from agent.link import STABLE
from tests.whole import Site, answers, site, wait

pytestmark = [pytest.mark.peer("mosquitto"), pytest.mark.timeout(120)]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Site]:
    """A site where all three devices have answered and been published."""
    with site(tmp_path) as terminal:
        terminal.start_all()
        everything_known(terminal)
        wait("first contact", lambda: len(terminal.rows("known")) == 3)
        yield terminal


def reads(terminal: Site, paper: str) -> bool:
    return bool(terminal.shown("printer1", "paper.receipt") == paper)


def everything_known(terminal: Site) -> None:
    wait("the UPS", lambda: terminal.published("ups1", "mains") == "ok")
    wait("the printer", lambda: terminal.published("printer1", "paper.receipt") is not None)
    wait("the dispenser", lambda: terminal.published("dispenser1", "cassette.1.state") is not None)


def test_one_change_is_seen_by_subscriber_state_ledger_and_technician(running: Site) -> None:
    running.act(device="printer1", set={"paper": "out"})
    wait("the row", lambda: running.rows("change", device="printer1", point="paper.receipt", value="out"))
    wait("the fault", lambda: running.rows("fault.raised", code="paper.out"))
    wait("the state", lambda: running.published("printer1", "paper.receipt") == "out")
    assert running.shown("printer1", "paper.receipt") == "out"
    shown = running.tillwire("devices", "printer1", "--json")
    assert shown.returncode == 1, "something is not well"
    assert "paper.out" in shown.stdout
    tail = running.tillwire("ledger", "tail", "--json")
    assert '"paper.receipt"' in tail.stdout
    running.act(device="printer1", set={"paper": "full"})
    wait("the end of the fault", lambda: running.rows("fault.cleared", code="paper.out"))
    assert running.account.mistakes == []


def test_a_cassette_runs_low_then_empty_by_what_the_tap_hears(running: Site) -> None:
    for _ in range(4):
        running.act(device="dispenser1", withdraw={"position": 1, "count": 20})
    wait("low", lambda: running.rows("change", point="cassette.1.state", value="low"))
    for _ in range(4):
        running.act(device="dispenser1", withdraw={"position": 1, "count": 20})
    empty = wait("empty", lambda: running.rows("change", point="cassette.1.state", value="empty"))
    assert empty[0]["inferred"] is True
    wait("the count", lambda: running.published("dispenser1", "cassette.1.dispensed") == 130)
    assert running.published("dispenser1", "cassette.2.dispensed") == 0


def test_mosquitto_sub_sees_the_same(running: Site) -> None:
    command = ["mosquitto_sub", "-p", str(running.port), "-V", "5", "-C", "1", "-W", "20", "-t"]
    topic = "tillwire/v1/coop/ATM-0001/state/ups1"
    done = subprocess.run([*command, topic], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["points"]["mains"]["value"] == "ok"


def test_an_operation_goes_to_the_device_and_into_the_ledger(running: Site) -> None:
    done = running.tillwire("perform", "ups1", "self_test", "--json")
    assert done.returncode == 0, done.stderr
    wait("operation", lambda: running.rows("operation", verb="self_test", device="ups1"))
    wait("outcome", lambda: running.rows("outcome", result="done", device="ups1"))
    wait("the test", lambda: running.published("ups1", "ups.selftest") == "running")


@pytest.mark.parametrize("how", ["unplug", "silent", "stop the simulator"])
def test_what_nobody_sees_is_unknown_everywhere_with_one_fault_and_returns_without_a_flood(
    running: Site, how: str
) -> None:
    if how == "unplug":
        begun = time.monotonic()  # a line that is lost right after it was opened is unusable first
        wait("a line that is open for good", lambda: time.monotonic() > begun + STABLE)
    before = len(running.rows())
    if how == "stop the simulator":
        running.end("hwsim")
    else:
        running.act(device="printer1", line=how)
    wait("unknown on the wire", lambda: running.published("printer1", "paper.receipt") is None)
    assert running.shown("printer1", "paper.receipt") is None
    unknown = wait("the ledger's view", lambda: running.rows("unknown", device="printer1"))
    assert "paper.receipt" in unknown[0]["points"]
    raised = [r for r in running.rows("fault.raised", device="printer1") if r["code"].startswith("link.")]
    assert len(raised) == 1
    if how == "stop the simulator":
        running.start("hwsim")
    else:
        running.act(device="printer1", line="replug" if how == "unplug" else "good")
    wait("fresh on the wire", lambda: running.published("printer1", "paper.receipt") == "full")
    wait("recovery", lambda: running.rows("fault.cleared", device="printer1", code=raised[0]["code"]))
    wait("the return", lambda: len(running.rows("known", device="printer1")) == 2)
    assert running.shown("printer1", "paper.receipt") == "full"
    mine = [r for r in running.rows()[before:] if r.get("device") == "printer1"]
    most = 7 if how == "stop the simulator" else 6  # its port may be unusable before it is missing
    assert len(mine) <= most, [r["kind"] for r in mine]


def test_after_a_broker_outage_the_present_state_comes_first_and_then_every_row(running: Site) -> None:
    running.end("broker")
    for word in ("low", "out", "full", "low"):
        running.act(device="printer1", set={"paper": word})
        wait("the agent", partial(reads, running, word))
    order: list[str] = []
    take = running.account.take

    def noting(topic: str, payload: bytes, now: float) -> list[str]:
        order.append(topic.split("/", 4)[4])
        return take(topic, payload, now)

    running.account.take = noting  # type: ignore[method-assign]
    running.start("broker")
    wait("all rows", running.delivered)
    fresh = order[order.index("session") :]
    assert fresh.index("ledger") > max(fresh.index(f"state/{d}") for d in ("ups1", "printer1", "dispenser1"))
    assert [r["value"] for r in running.rows("change", point="paper.receipt")] == ["low", "out", "full", "low"]
    assert running.account.mistakes == []


def test_the_broker_says_when_the_agent_is_gone(running: Site) -> None:
    running.end("agent", signal.SIGKILL)
    wait("the last will", lambda: running.account.online.get("ATM-0001") is False)
    running.start("agent")
    wait("the birth", lambda: running.account.online.get("ATM-0001") is True)
    assert running.end("agent") == 0
    wait("a planned stop", lambda: running.rows("stop"))
    wait("death", lambda: running.account.online.get("ATM-0001") is False)


def test_mqtt_3_1_1_carries_the_same(tmp_path: Path) -> None:
    with site(tmp_path, protocol="3.1.1") as terminal:
        terminal.start_all()
        everything_known(terminal)
        terminal.act(device="ups1", set={"mains": "lost"})
        wait("the row", lambda: terminal.rows("change", point="mains", value="lost"))
        terminal.end("agent")
        wait("all rows", terminal.delivered)
        assert terminal.account.mistakes == []


def test_everything_accepted_before_the_first_connect_arrives(tmp_path: Path) -> None:
    with site(tmp_path) as terminal:
        terminal.start("hwsim")
        wait("hwsim", partial(answers, tmp_path / "control.sock"))
        terminal.start("agent")
        wait("the printer", lambda: terminal.shown("printer1", "paper.receipt") == "full")
        terminal.act(device="printer1", set={"paper": "out"})
        wait("the agent", lambda: terminal.shown("printer1", "paper.receipt") == "out")
        terminal.end("agent", signal.SIGKILL)
        terminal.start("broker")
        wait("the broker", terminal.broker_answers)
        terminal.start("subscriber")
        terminal.start("agent")
        wait("the row", lambda: terminal.rows("change", point="paper.receipt", value="out"))
        wait("all rows", terminal.delivered)
        assert terminal.account.mistakes == []


@pytest.mark.parametrize("seed", [1, 2])
def test_any_part_may_be_killed_in_any_order(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    with site(tmp_path) as terminal:
        terminal.start_all()
        everything_known(terminal)
        words = ["low", "out", "full"]
        for _ in range(10):
            victim = rng.choice(["agent", "hwsim", "broker"])
            how = rng.choice([signal.SIGKILL, signal.SIGTERM])
            if terminal.alive("hwsim"):
                terminal.act(device="printer1", set={"paper": rng.choice(words)})
            pause = threading.Event()
            pause.wait(rng.uniform(0.0, 0.5))
            terminal.end(victim, how)
            pause.wait(rng.uniform(0.0, 0.5))
            terminal.start(victim)
            if victim == "hwsim":
                wait("hwsim", lambda: (tmp_path / "atm1" / "printer1").exists() and terminal.alive("hwsim"))
                wait("its socket", partial(answers, tmp_path / "control.sock"))
        everything_known(terminal)
        verified = terminal.tillwire("ledger", "verify", "--json")
        assert verified.returncode == 0, verified.stdout + verified.stderr
        terminal.end("agent")
        wait("all rows", terminal.delivered)
        assert terminal.account.mistakes == []
        assert terminal.account.twins() == 0
        assert len({epoch for _, epoch, _ in terminal.account.rows}) == 1


def test_a_second_agent_of_the_same_terminal_is_refused(running: Site) -> None:
    config = str(running.folder / "terminal.toml")
    other = subprocess.run(
        [sys.executable, "-m", "agent", "--config", config], capture_output=True, text=True, check=False
    )
    assert other.returncode == 3
    assert "in use by another agent" in other.stderr
    assert "Traceback" not in other.stderr
