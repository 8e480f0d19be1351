"""The acceptor driver as master: when the unit takes notes, and that no note is swallowed which nobody counts."""

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from agent.drivers.acceptor import Acceptor, AcceptorOptions
from agent.drivers.ssp import seal
from agent.model import Outcome
from hwsim import DEVICES, Allowed, change_setting
from hwsim.wires import Faults
from tests.test_acceptor import bench
from tests.virtual import Bench, perform, prepare, total


def in_escrow(at: float = 1000.0) -> Any:
    """A unit that another host has enabled, with a note that waits for that host's next poll."""
    device: Any = DEVICES["acceptor"]()
    flag = True
    for command in (b"\x11", b"\x02\xff\xff", b"\x0a"):
        device.receive(seal(0, flag, command))
        flag = not flag
    change_setting(device, "insert", "2")
    for now in (at, at + 0.4):
        device.tick(now)
    reply = device.receive(seal(0, flag, b"\x07"))
    assert b"\xef\x02" in reply
    return device


@pytest.mark.parametrize("dead", [0.0, 30.0])
def test_a_note_in_escrow_is_given_back_before_the_first_poll_of_an_agent_that_does_not_count(dead: float) -> None:
    device = in_escrow()
    at = Bench(Acceptor(AcceptorOptions()), device)
    at.now = 1001.0
    if dead:  # the agent starts on a dead line; the other host's note comes while it is dead
        at.faults(cut=True)
        for _ in range(int(dead / 0.05)):
            at.now += 0.05
            at._take(at.driver.tick(at.now))
            at.driver.outgoing()
        at.faults()
        at.device = device = in_escrow(at.now)
    at.run(10)
    assert (device.stacked, device.rejected, device.enabled) == (0, 1, "no")
    assert total(at.readings, "acceptor.channel.2.accepted") == 0


def test_a_note_in_escrow_is_given_back_also_after_a_pulled_cable() -> None:
    at = bench(options=AcceptorOptions())
    at.run(10)
    at.faults(cut=True)
    at.run(40)
    device = in_escrow(at.now)
    at.device = device
    at.now += 1.0
    at.faults()
    at.run(10)
    assert (device.stacked, device.rejected) == (0, 1)


def test_an_agent_that_counts_takes_the_note_in_escrow() -> None:
    device = in_escrow()
    at = Bench(Acceptor(AcceptorOptions(accept=True)), device)
    at.now = 1001.0
    at.run(10)
    assert (device.stacked, device.rejected) == (1, 0)
    assert total(at.readings, "acceptor.channel.2.accepted") == 1


@pytest.mark.parametrize("says_b5", ["yes", "no"])
@pytest.mark.parametrize("accept", [True, False])
def test_enabled_means_that_the_channels_are_let_in(says_b5: str, accept: bool) -> None:
    at = bench(options=AcceptorOptions(accept=accept), says_b5=says_b5)
    at.run(10)
    if not accept:
        assert vars(at.device)["inhibits"] == 0
        perform(at, "enable")
        at.run(2)
        assert [o.result for o in at.outcomes] == ["done"]
    assert vars(at.device)["inhibits"] == 0xFFFF
    prepare(at.device, insert=3)
    at.run(5)
    assert total(at.readings, "acceptor.channel.3.accepted") == 1
    prepare(at.device, power="off")
    at.run(3)
    prepare(at.device, power="on")
    at.run(12)
    assert vars(at.device)["inhibits"] == 0xFFFF, "a unit that restarts has forgotten it"
    assert at.value("acceptor.enabled") == "yes"


def test_after_a_long_silence_the_channels_are_let_in_again() -> None:
    """Another host may have used the unit meanwhile; that it is enabled says nothing of its channels."""
    at = bench(says_b5="no")
    at.run(10)
    at.faults(cut=True)
    at.run(40)
    vars(at.device)["inhibits"] = 0
    at.faults()
    at.run(15)
    assert vars(at.device)["inhibits"] == 0xFFFF


class Closed:
    """An acceptor that refuses SET INHIBITS until `opens`."""

    BAUD: ClassVar[int] = 9600
    SETTINGS: ClassVar[Mapping[str, Allowed]] = DEVICES["acceptor"].SETTINGS

    def __init__(self) -> None:
        self.unit: Any = DEVICES["acceptor"]()
        change_setting(self.unit, "says_b5", "no")
        self.opens, self.now = float("inf"), 0.0
        self.enables: list[int] = []

    def receive(self, data: bytes) -> bytes:
        self.enables += [self.unit.inhibits] if data[3] == 0x0A else []
        if data[3] == 0x02 and self.now < self.opens:
            return seal(0, bool(data[1] & 0x80), b"\xf5")
        answer: bytes = self.unit.receive(data)
        return answer

    def tick(self, now: float) -> bytes:
        self.now = now
        answer: bytes = self.unit.tick(now)
        return answer


@pytest.mark.parametrize("accept", [True, False])
def test_a_unit_that_lets_no_channel_in_is_not_called_enabled(accept: bool) -> None:
    device = Closed()
    at = Bench(Acceptor(AcceptorOptions(accept=accept)), device)
    at.run(10)
    if not accept:
        perform(at, "enable")
    at.run(15)
    assert "yes" not in {r.value for r in at.readings if r.point == "acceptor.enabled"}
    assert [(o.result, o.raw) for o in at.outcomes] == ([] if accept else [("failed", "F5")])
    device.opens = at.now
    if not accept:
        perform(at, "enable")
    at.run(25)
    assert at.value("acceptor.enabled") == "yes"
    assert set(device.enables) == {0xFFFF}


def test_what_was_ordered_last_is_done_last() -> None:
    for accept in (True, False):
        at = bench(options=AcceptorOptions(accept=accept))
        at.run(5)
        for verb in ("enable", "disable"):
            perform(at, verb)
        at.run(15)
        assert [(o.operation.split("-")[1], o.result) for o in at.outcomes] == [
            ("enable", "done"),
            ("disable", "done"),
        ]
        assert (vars(at.device)["enabled"], at.value("acceptor.enabled")) == ("no", "no")


@pytest.mark.parametrize("faults", [Faults(damage=0.3), Faults(cut=True), Faults(delay=0.8), Faults(half=0.3)])
def test_an_enable_in_two_steps_ends_exactly_once_on_a_bad_wire(faults: Faults) -> None:
    for seed in range(6):
        at = bench(seed, AcceptorOptions())
        at.run(5 + seed * 0.1)
        at.to_device.faults = at.to_host.faults = faults
        perform(at, "enable")
        at.run(60)
        assert len(at.outcomes) == 1
        assert isinstance(at.outcomes[0], Outcome)
        assert at.outcomes[0].operation
        assert at.outcomes[0].result == ("unanswered" if faults.cut else "done")
