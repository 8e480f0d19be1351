"""A running terminal takes another configuration and the old one again: what differs is exchanged, nothing else is
touched. Broker and twins of devices are processes; the agent runs in this one, so that one sees inside."""

import json
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent.config import Config, load
from agent.errors import ConfigError
from agent.messages import Reported, compact
from agent.model import Fence, Heard, Operation, Reading
from agent.pushing.inforce import begin
from agent.service import Service
from hwsim.subscriber import Account
from tests.whole import Site, answers, free_port, site, wait

pytestmark = pytest.mark.peer("mosquitto")

TCP = free_port()
FLEET = f"""
run_dir = "."
[terminals.atm1.devices]
ups1 = {{ kind = "ups" }}
ups2 = {{ kind = "ups", set = {{ version = "V9.9" }} }}
spare = {{ kind = "printer", set = {{ paper = "out" }} }}
printer1 = {{ kind = "printer", tcp = {TCP} }}
dispenser1 = {{ kind = "dispenser", tapped = true }}
"""
KEPT = f"""
[devices.printer1]
kind = "printer"
port = "socket://127.0.0.1:{TCP}"
[devices.dispenser1]
kind = "dispenser"
port = "./atm1/dispenser1"
access = "listen"
"""
UPS = '[devices.ups1]\nkind = "ups"\nport = "./atm1/ups1"\n'
SPARE = '[devices.spare]\nkind = "printer"\nport = "./atm1/spare"\n'
MOVED, ADDED = UPS.replace("/ups1", "/ups2"), SPARE.replace("devices.spare", "devices.extra")
LINE = "linger = 0.1"
NOTES = 3
OLD, NEW = KEPT + UPS + SPARE, KEPT + MOVED + ADDED


@dataclass
class Centre(Account):
    """A stranger who remembers every word of the session."""

    sessions: list[dict[str, Any]] = field(default_factory=list)

    def take(self, topic: str, payload: bytes, now: float) -> list[str]:
        if topic.endswith("/session"):
            self.sessions.append(json.loads(payload))
        return super().take(topic, payload, now)


class Opened(logging.Handler):
    """Which ports were opened, by their devices' or lines' names."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "agent.link" and " is open" in record.getMessage():
            self.names.append(record.getMessage().partition(":")[0])


@dataclass
class Running:
    """The terminal, its agent, and a centre."""

    site: Site
    service: Service
    old: Config
    centre: Centre
    opened: Opened

    def take(self, devices: str, **change: str) -> Config:
        """Have other devices in force, and other words in the rest of the file."""
        path = self.site.configure(devices, LINE)
        for was, now in change.items():
            text = path.read_text()
            assert was in text
            path.write_text(text.replace(was, now))
        config = load(path)
        self.service.reconfigure(config)
        return config

    def back(self) -> None:
        """Take all back, and see that all is as it was."""
        self.service.reconfigure(self.old)
        wait("the session", lambda: self.session().get("config") == self.old.digest)
        wait("every device", lambda: all(self.up(name) for name in self.old.devices))
        wait("every state", lambda: self.states() == self.old.devices.keys())

    def session(self) -> dict[str, Any]:
        return self.centre.sessions[-1] if self.centre.sessions else {}

    def states(self) -> set[str]:
        return {name.partition("/")[2] for name in self.centre.states}

    def up(self, device: str) -> bool:
        return bool(self.site.published(device, "link.state") == "up")

    def known(self, device: str) -> list[str]:
        """The points of which the ledger says that they are known, each time that it does."""
        return [point for row in self.site.rows("known", device=device) for point in row["values"]]

    def wire(self) -> set[int]:
        """This side of every connection to the printer, as the kernel has them."""
        found = psutil.Process().net_connections("tcp4")
        return {c.laddr.port for c in found if c.raddr and c.raddr.port == TCP and c.status == "ESTABLISHED"}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    opened = Opened()
    logger = logging.getLogger("agent.link")
    logger.addHandler(opened)
    before = logger.level
    logger.setLevel(logging.INFO)
    with site(tmp_path_factory.mktemp("till"), devices=OLD, fleet=FLEET) as terminal:
        centre = terminal.account = Centre()
        terminal.start("broker")
        terminal.start("hwsim")
        wait("the broker", terminal.broker_answers)
        terminal.start("subscriber")
        wait("hwsim", partial(answers, terminal.folder / "control.sock"))
        begun = begin(terminal.configure(OLD, LINE))
        old, service = begun.config, Service(begun)
        thread = threading.Thread(target=service.run)
        thread.start()
        try:
            one = Running(terminal, service, old, centre, opened)
            wait("every device", lambda: all(one.up(name) for name in old.devices))
            yield one
        finally:
            service.stop.set()
            thread.join(20.0)
            logger.removeHandler(opened)
            logger.setLevel(before)
        assert not thread.is_alive()
        wait("all rows", terminal.delivered)
        assert centre.mistakes == []
        assert centre.twins() == 0


def withdrawals(folder: Path, number: int) -> threading.Thread:
    """Customers who take one note each, one after the other; the thread ends with the last of them."""
    steps = [{"at": 0.0, "device": "dispenser1", "withdraw": {"position": 1, "count": 1}}] * number

    def play() -> None:
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(str(folder / "control.sock"))
            line.sendall(json.dumps({"do": "play", "steps": steps}).encode() + b"\n")
            line.makefile("rb").read()

    thread = threading.Thread(target=play)
    thread.start()
    return thread


def names() -> list[str]:
    """The agent's threads, without those that answer somebody."""
    ours = ("link:", "core", "uplink", "control")
    return sorted(t.name for t in threading.enumerate() if t.name.startswith(ours) and t.name != "control:client")


def test_what_differs_is_exchanged_and_taken_back_and_nothing_else_is_touched(running: Running) -> None:
    one, terminal, service = running, running.site, running.service
    wait("a known printer", lambda: one.known("printer1"))
    wait("a known dispenser", lambda: one.known("dispenser1"))
    wait("its lack of paper", lambda: terminal.rows("fault.raised", code="paper.out", device="spare"))
    wait("the first firmware", lambda: terminal.published("ups1", "device.firmware"))
    firmware = terminal.published("ups1", "device.firmware")
    wire, links, threads = one.wire(), [service._links.of(name) for name in ("printer1", "dispenser1")], names()
    known, rows = one.known("dispenser1"), len(terminal.rows(device="printer1"))
    opened, parted = list(one.opened.names), len(one.centre.sessions) - 1
    dispensed = terminal.shown("dispenser1", "cassette.1.dispensed")
    heard: list[Heard] = []
    service.hearing.append(heard.append)
    customers = withdrawals(terminal.folder, NOTES)

    config = one.take(NEW)
    change = (service.config, service.config.digest, sorted(service.config.devices))
    assert change == (config, config.digest, ["dispenser1", "extra", "printer1", "ups1"])
    heard.clear()
    wait("the moved UPS", lambda: terminal.published("ups1", "device.firmware") == "V9.9")
    wait("the new printer", lambda: one.up("extra") and terminal.rows("fault.raised", device="extra"))
    cleared = wait("the end of a fault", lambda: terminal.rows("fault.cleared", device="spare"))
    assert cleared[-1]["why"] == "the device is not configured any more"
    wait("no state of what is gone", lambda: one.states() == config.devices.keys())
    wait("each to be heard", lambda: {h.device for h in heard} >= config.devices.keys())
    assert {h.device for h in heard} == config.devices.keys(), "and none that is gone"
    assert any(i == Reading("link.state", "up", i.at, i.raw) for h in heard for i in h.items)
    assert {d["name"] for d in terminal.ask(do="devices")["devices"]} == config.devices.keys()
    assert [d["name"] for d in one.session()["devices"]] == list(config.devices)

    wait("what came is known", lambda: one.known("extra"))
    terminal.act(device="spare", set={"cover": "open"})
    one.back()
    wait("what changed while nobody looked", lambda: terminal.rows("change", device="spare", value="open"))
    terminal.act(device="spare", set={"cover": "closed"})
    wait("the first UPS", lambda: terminal.published("ups1", "device.firmware") == firmware)
    wait("its lack of paper", lambda: len(terminal.rows("fault.raised", code="paper.out", device="spare")) == 2)
    customers.join(30.0)
    wait("every note", lambda: terminal.shown("dispenser1", "cassette.1.dispensed") == dispensed + NOTES)
    assert one.wire() == wire, "the same connection all the time"
    assert len(wire) == 1
    assert [service._links.of(name) for name in ("printer1", "dispenser1")] == links
    assert sorted(one.opened.names[len(opened) :]) == ["extra", "spare", "ups1", "ups1"]
    assert names() == threads
    assert len(terminal.rows(device="printer1")) == rows, "what goes on is not new to anybody"
    again = one.known("dispenser1")[len(known) :]
    assert not set(again) & set(known)
    # The session: each parting was said, each birth tells what is in force, and no last will was needed.
    words = [s["reason"] if not s["online"] else s["config"] for s in one.centre.sessions[parted:]]
    assert [word for word in words if len(word) < 64] == ["changing", "changing"]
    assert [word for word in words if len(word) == 64] == [one.old.digest, config.digest, one.old.digest]
    service.hearing.clear()


def test_a_port_that_is_not_there_is_missing_and_nothing_else_happens(running: Running) -> None:
    one, terminal, service = running, running.site, running.service
    uplink, sessions, wire = service.uplink, len(one.centre.sessions), one.wire()
    config = one.take(OLD.replace("./atm1/ups1", "./atm1/nowhere"))
    wait("missing", lambda: terminal.published("ups1", "link.state") == "missing")
    assert service.uplink is uplink
    wait("its digest", lambda: one.session().get("config") == config.digest)
    assert {s["session"] for s in one.centre.sessions[sessions - 1 :]} == {one.session()["session"]}, "no reconnect"
    assert (one.wire(), one.up("dispenser1"), one.up("spare")) == (wire, True, True)
    one.back()
    assert service.uplink is uplink
    (row,) = terminal.rows("change", point="link.state", value="missing")
    assert row["device"] == "ups1"


def test_an_operation_has_its_outcome_though_its_line_goes(running: Running) -> None:
    one, terminal, service = running, running.site, running.service
    terminal.act(device="ups1", line="silent")
    link = service._links.of("ups1")
    assert link
    service._queue.put(Operation("o-1", "ups1", "self_test", "test"))
    wait("it is under way", lambda: "o-1" in link._running)
    one.take(NEW)
    link.perform(Operation("o-2", "ups1", "self_test", "test"))
    service._queue.put(Operation("o-3", "spare", "recover", "test"))
    (first,) = wait("the first outcome", lambda: terminal.rows("outcome", id="o-1"))
    (second,) = wait("the second", lambda: terminal.rows("outcome", id="o-2"))
    (third,) = wait("the third", lambda: terminal.rows("outcome", id="o-3"))
    assert (first["result"], "look at the device" in first["detail"]) == ("unanswered", True)
    assert (second["result"], "closed the line" in second["detail"]) == ("refused", True)
    assert (third["result"], "another configuration" in third["detail"]) == ("refused", True)
    reached = threading.Event()
    service._put(Heard("spare", (Reading("paper.receipt", "full", time.monotonic()),)))
    service._queue.put(Fence(reached.set))
    assert reached.wait(30.0)
    assert "spare" not in service._core._watch._held, "a link that would not end brings nothing back"
    terminal.act(device="ups1", line="good")
    one.back()


def test_a_wrong_broker_loses_nothing_and_the_right_one_comes_back(running: Running) -> None:
    one, terminal, service = running, running.site, running.service
    told = Reported(at=1, id="P-7", outcome="rolled_back", config=one.old.digest)
    with socket.create_server(("127.0.0.1", 0)) as nobody:  # takes connections, and never answers
        one.take(OLD, **{f"port = {terminal.port}\n": f"port = {nobody.getsockname()[1]}\n"})
        wait("the parting", lambda: one.session().get("reason") == "changing")
        assert service.uplink
        assert not service.uplink.connected
        terminal.act(device="ups1", set={"mains": "lost"})
        wait("what happens meanwhile", lambda: terminal.shown("ups1", "mains") == "lost")
        service.uplink.tell("config/reported", compact(told), True)
        terminal.act(device="ups1", set={"mains": "ok"})
        one.back()
    wait("what the next uplink has to tell", lambda: one.centre.reported.get("ATM-0001", {}).get("id") == told.id)
    wait("what happened meanwhile", lambda: terminal.rows("change", device="ups1", point="mains", value="lost"))
    wait("all rows", terminal.delivered)


def test_hwsim_dies_in_between_and_every_link_finds_its_device_again(running: Running) -> None:
    one, terminal = running, running.site
    terminal.end("hwsim", signal.SIGKILL)
    wait("no port", lambda: terminal.published("ups1", "link.state") == "missing")
    one.take(NEW)
    terminal.start("hwsim")
    wait("all that is new", lambda: all(one.up(name) for name in ("ups1", "extra", "printer1", "dispenser1")))
    one.back()


def test_over_and_over_leaves_no_thread_and_no_file_behind(running: Running) -> None:
    one = running
    threads, files = names(), len(os.listdir("/proc/self/fd"))
    new = load(one.site.configure(NEW, LINE))
    for _ in range(2):
        one.service.reconfigure(new)
        one.service.reconfigure(one.old)
    one.back()
    assert names() == threads
    wait("closed files", lambda: len(os.listdir("/proc/self/fd")) <= files)


def test_whoever_watches_is_told_of_the_new_devices(running: Running) -> None:
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(20.0)
        line.connect(str(running.site.folder / "tw.sock"))
        line.sendall(b'{"do": "watch"}\n')
        said = map(json.loads, line.makefile("rb"))
        first = next(said)
        config = running.take(NEW)
        again = next(event for event in said if "devices" in event)
    assert {d["name"] for d in first["devices"]} == running.old.devices.keys()
    assert {d["name"] for d in again["devices"]} == config.devices.keys()
    running.back()


def test_what_is_read_at_a_start_only_is_refused_and_nothing_is_done(running: Running) -> None:
    text = running.site.configure(NEW, LINE).read_text()
    path = running.site.folder / "other.toml"
    path.write_text(text.replace("[broker]", 'groups = ["north"]\n[broker]'))
    links = [running.service._links.of(name) for name in running.old.devices]
    with pytest.raises(ConfigError, match=r"\[terminal\].*restart the agent"):
        running.service.reconfigure(load(path))
    assert running.service.config is running.old
    assert [running.service._links.of(name) for name in running.old.devices] == links
