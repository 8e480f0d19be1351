"""The port of a device, for real: missing, busy, not permitted, another device behind it, the wrong speed."""

import logging
import os
import pty
import socket
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import serial

from agent.config import Device
from agent.drivers import DRIVERS
from agent.errors import LinkError
from agent.lines.ports import open_port
from agent.link import Link
from agent.model import Heard, Operation, Outcome, Reading
from tests.whole import Site, site, wait

UPS = '\n[devices.ups1]\nkind = "ups"\nport = "./atm1/ups1"\n'
FLEET = 'run_dir = "."\n[terminals.atm1.devices.ups1]\nkind = "ups"\n'


def device(port: str, kind: str = "ups") -> Device:
    return Device(name="d", kind=kind, port=port, options=DRIVERS[kind].Options())


@pytest.fixture
def port() -> Iterator[str]:
    master, slave = pty.openpty()
    tty.setraw(slave)
    yield os.ttyname(slave)
    os.close(slave)
    os.close(master)


def cause(port: str) -> tuple[str, str]:
    with pytest.raises(LinkError) as caught:
        open_port(device(port))
    return caught.value.cause, str(caught.value)


def test_a_port_that_is_not_there(tmp_path: Path) -> None:
    word, sentence = cause(str(tmp_path / "none"))
    assert (word, "is the cable in" in sentence) == ("missing", True)
    assert cause("socket://127.0.0.1:1")[0] == "missing"


def test_a_port_that_another_program_has_open(port: str) -> None:
    with serial.Serial(port, exclusive=True):
        word, sentence = cause(port)
    assert (word, "in use by another program" in sentence) == ("busy", True)
    open_port(device(port)).close()


def test_a_port_that_this_user_may_not_open(port: str) -> None:
    Path(port).chmod(0)
    me = os.geteuid()
    if me == 0:
        os.seteuid(65534)  # root may open any port
    try:
        word, sentence = cause(port)
    finally:
        os.seteuid(me)
    assert (word, "port's group" in sentence) == ("denied", True)


def test_a_file_is_not_a_port(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert cause(str(tmp_path / "file"))[0] == "unusable"
    assert cause("nonsense://x")[0] == "unusable"


@contextmanager
def tcp_server(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that does the same to every client; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            try:
                while True:
                    client, _ = listener.accept()
                    serve(client)
            except OSError:
                return

        threading.Thread(target=run, daemon=True).start()
        yield f"socket://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def test_a_port_that_is_lost_as_soon_as_it_is_open_is_said_once_and_not_hammered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clients: list[float] = []

    def busy(client: socket.socket) -> None:
        clients.append(time.monotonic())
        client.sendall(b"Port already in use\r\n")
        client.close()

    caplog.set_level(logging.INFO)
    with tcp_server(busy) as port:
        heard: list[Heard] = []
        stop = threading.Event()
        one = device(port)
        link = Link(one, [one], heard.append, stop)
        thread = threading.Thread(target=link.run)
        thread.start()
        wait("many tries", lambda: len(clients) >= 8)
        stop.set()
        thread.join(10.0)
    states = [i for h in heard for i in h.items if isinstance(i, Reading) and i.point == "link.state"]
    assert "unusable" in [state.value for state in states]
    assert any("as soon as it is open" in state.raw for state in states)
    assert sum("is open" in r.message for r in caplog.records) <= 3, "once, not at each try"


def test_what_waits_on_a_socket_is_read_at_once() -> None:
    def talk(client: socket.socket) -> None:
        client.recv(1)  # opening a port throws away what came before
        client.sendall(b"x" * 4000)

    with tcp_server(talk) as address:
        port = open_port(device(address))
        port.write(b"?")
        data, reads = b"", 0
        while len(data) < 4000:
            data += port.read()
            reads += 1
        port.close()
    assert reads < 100


def test_a_server_that_nobody_can_find_is_missing() -> None:
    word, sentence = cause("socket://no-such-host.invalid:9100")
    assert (word, "is the name right" in sentence) == ("missing", True)


def test_every_operation_gets_an_outcome_also_without_a_line(tmp_path: Path) -> None:
    heard: list[Heard] = []
    stop = threading.Event()
    one = device(str(tmp_path / "none"))
    link = Link(one, [one], heard.append, stop)
    link.perform(Operation("id1", "d", "self_test", "root"))
    thread = threading.Thread(target=link.run)
    thread.start()
    try:
        found = wait("the outcome", lambda: [i for h in heard for i in h.items if isinstance(i, Outcome)])
        assert [(o.operation, o.result) for o in found] == [("id1", "refused")]
        assert "nothing was sent" in found[0].detail
    finally:
        stop.set()
        thread.join(5.0)
    assert not thread.is_alive()


def test_what_is_asked_of_a_link_that_has_ended_is_refused_at_once(port: str) -> None:
    heard: list[Heard] = []
    stop = threading.Event()
    one = device(port)
    link = Link(one, [one], heard.append, stop)
    thread = threading.Thread(target=link.run)
    thread.start()
    link.perform(Operation("running", "d", "self_test", "root"))
    wait("it is under way", lambda: "running" in link._running)
    stop.set()
    thread.join(10.0)
    link.perform(Operation("late", "d", "self_test", "root"))
    found = [i for h in heard for i in h.items if isinstance(i, Outcome)]
    assert [(o.operation, o.result) for o in found] == [("running", "unanswered"), ("late", "refused")]
    assert all("the agent has closed the line" in outcome.detail for outcome in found)
    assert "look at the device" in found[0].detail
    assert found[1].detail.startswith("nothing was sent")


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path, devices=UPS, fleet=FLEET) as one:
        yield one


def begin(terminal: Site) -> None:
    terminal.start("broker")
    wait("the broker", terminal.broker_answers)
    terminal.start("subscriber")
    terminal.start("hwsim")
    wait("the port", (terminal.folder / "atm1/ups1").exists)


def faults(terminal: Site) -> list[str]:
    return [row["code"] for row in terminal.rows("fault.raised")]


@pytest.mark.peer("mosquitto")
def test_a_busy_port_is_said_once_and_taken_when_it_is_free(terminal: Site) -> None:
    begin(terminal)
    with serial.Serial(str(terminal.folder / "atm1/ups1"), exclusive=True):
        terminal.start("agent")
        wait("the fault", lambda: faults(terminal) == ["link.busy"])
    wait("the UPS", lambda: terminal.published("ups1", "mains") == "ok")
    assert faults(terminal) == ["link.busy"]
    assert terminal.log("agent").count("is in use by another program") == 1


@pytest.mark.peer("mosquitto")
def test_the_wrong_speed_is_rubbish_and_says_what_to_compare(tmp_path: Path) -> None:
    tap = '\n[devices.cash]\nkind = "dispenser"\nport = "./atm1/cash"\naccess = "listen"\n'
    fleet = 'run_dir = "."\n[terminals.atm1.devices.cash]\nkind = "dispenser"\ntapped = true\n'
    with site(tmp_path, devices=tap + "baud = 19200\n", fleet=fleet) as terminal:
        terminal.start_all()
        wait("the fault", lambda: faults(terminal) == ["link.rubbish"])
        (row,) = terminal.rows("fault.raised")
        assert "line speed" in row["raw"]
        terminal.end("agent")
        terminal.configure(tap)
        terminal.start("agent")
        wait("the end of the fault", lambda: terminal.rows("fault.cleared", code="link.rubbish"))
        assert faults(terminal) == ["link.rubbish"]


@pytest.mark.peer("mosquitto")
def test_another_device_behind_the_same_name_is_not_taken_for_the_old_one(terminal: Site) -> None:
    begin(terminal)
    terminal.start("agent")
    wait("the UPS", lambda: terminal.published("ups1", "mains") == "ok")
    wait("its version", lambda: terminal.published("ups1", "device.firmware"))
    terminal.act(device="ups1", line="unplug")
    wait("missing", lambda: terminal.published("ups1", "link.state") == "missing")
    terminal.act(device="ups1", line="replug", kind="printer")
    wait("not a UPS", lambda: terminal.published("ups1", "link.state") in ("silent", "rubbish"))
    terminal.act(device="ups1", line="unplug")
    wait("missing", lambda: terminal.published("ups1", "link.state") == "missing")
    terminal.act(device="ups1", line="replug", kind="ups")
    wait("a UPS", lambda: terminal.published("ups1", "mains") == "ok")
    terminal.act(device="ups1", line="unplug")
    wait("missing", lambda: terminal.published("ups1", "link.state") == "missing")
    terminal.act(device="ups1", set={"version": "V9.9"})
    terminal.act(device="ups1", line="replug")
    wait("another UPS", lambda: terminal.rows("change", point="device.firmware", value="V9.9"))
