"""The Modbus driver on lines whose replies are late, and on adapters that say again what is sent."""

from collections.abc import Mapping
from random import Random
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.drivers.modbus import SETTLE, Modbus, ModbusLineOptions
from agent.drivers.panel import Input, PanelOptions
from agent.drivers.rtu import checksum
from agent.model import Heard, Operation, Outcome
from hwsim import Allowed
from hwsim.line import Bus
from hwsim.modbus import INPUTS
from hwsim.modbus import Modbus as Panel
from tests.shared import SharedBench

TIMEOUT = ModbusLineOptions().timeout
LATENCIES = (0.0, 0.3, 0.45, 0.55, 0.7, 0.9, 1.1, TIMEOUT + SETTLE + 0.2, 1.4, 1.8, 2.3, 3.1, 4.6, 5.7, 7.5)
READ = {latency for latency in LATENCIES if latency % (TIMEOUT + SETTLE) < TIMEOUT and latency < 3}
"""Other replies come while nothing is asked: then the slave is silent, and its timeout is to be raised."""
OPEN = frozenset({100})


def seal(body: str) -> bytes:
    return bytes.fromhex(body) + checksum(bytes.fromhex(body))


def converse(
    latency: float, jitter: float, lost: float, rng: Random, seconds: float, **own: Any
) -> dict[str, set[Any]]:
    """What was read of two blocks of one function and one length: input 0 is closed, input 100 is open."""
    inputs = {"safe_door": Input(0), "cabinet_door": Input(100)}
    driver, now = Modbus(ModbusLineOptions(), {"panel1": PanelOptions(1, inputs=inputs, **own)}), 1000.0
    flying: list[tuple[float, bytes]] = []
    said: dict[str, set[Any]] = {"safe_door": set(), "cabinet_door": set(), "link.state": set()}
    while now < 1000.0 + seconds:
        now += 0.05
        heard = [h for due, piece in flying if due <= now for h in driver.receive(piece, now)]
        flying = [(due, piece) for due, piece in flying if due > now]
        heard += driver.tick(now)
        for item in (item for one in heard for item in one.items):
            if not isinstance(item, Outcome) and item.point in said:
                said[item.point].add(item.value)
        asked = driver.outgoing()
        if asked and rng.random() >= lost:
            answer = seal(f"01 {asked[1]:02X} 01 {int(asked[3] in OPEN):02X}")
            due = now + latency + rng.random() * jitter
            flying.append((max([due, *(due for due, _ in flying)]), answer))
    return said


@pytest.mark.parametrize("function", [1, 2])
@pytest.mark.parametrize("latency", LATENCIES)
def test_a_late_reply_is_not_taken_for_that_of_another_block(latency: float, function: int) -> None:
    said = converse(latency, 0.0, 0.0, Random(1), 120.0, function=function)
    assert said["safe_door"] <= {"closed"}
    assert said["cabinet_door"] <= {"open"}
    if latency in READ:
        assert said["safe_door"], "it was never read"
        assert said["cabinet_door"], "it was never read"


@given(
    latency=st.sampled_from(LATENCIES) | st.floats(0, 7.5),
    jitter=st.floats(0, 0.4),
    lost=st.sampled_from((0.0, 0.1, 0.4)),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=100, deadline=None)
def test_nor_where_replies_are_lost_or_not_equally_late(
    latency: float, jitter: float, lost: float, seed: int
) -> None:
    said = converse(latency, jitter, lost, Random(seed), 60.0)
    assert said["safe_door"] <= {"closed"}
    assert said["cabinet_door"] <= {"open"}


def test_a_block_that_is_never_answered_does_not_hide_the_others() -> None:
    inputs = {"safe_door": Input(0), "cabinet_door": Input(100)}
    driver, now, read_at = Modbus(ModbusLineOptions(), {"panel1": PanelOptions(1, inputs=inputs)}), 1000.0, [1000.0]
    while now < 1120.0:
        now += 0.05
        driver.tick(now)
        if (asked := driver.outgoing()) and asked[3] == 0:
            driver.receive(seal("01 02 01 00"), now)
            read_at.append(now)
    assert max(b - a for a, b in zip(read_at, [*read_at[1:], now], strict=True)) < 15.0


# ---- outputs


class Echoing:
    """A line whose adapter says again what is sent, before the answer; FC 05 is met as `switch` says."""

    BAUD: ClassVar[int] = 9600
    SETTINGS: ClassVar[Mapping[str, Allowed]] = {}

    def __init__(self, panel: Panel, switch: str, echo: bool = True) -> None:
        self._bus, self._switch, self._echo = Bus([panel]), switch, echo
        self.said: list[tuple[float, bytes]] = []
        self._now = 0.0

    def receive(self, data: bytes) -> bytes:
        self.said.append((self._now, data))
        answer = b""
        if data[1] != 5 or self._switch == "obeyed":
            answer = self._bus.receive(data)
        elif self._switch == "refused":
            answer = seal("01 85 04")
        elif self._switch == "claimed":
            answer = data
        return (data if self._echo else b"") + answer

    def tick(self, now: float) -> bytes:
        self._now = now
        return self._bus.tick(now)


def switched(switch: str, echo: bool, power: str = "on") -> tuple[list[Outcome], SharedBench, Echoing]:
    panel = Panel()
    inputs = {name: Input(at) for at, name in enumerate(INPUTS)}
    driver = Modbus(ModbusLineOptions(), {"panel1": PanelOptions(1, inputs=inputs, outputs={"siren": 2})})
    line = Echoing(panel, switch, echo)
    at = SharedBench(driver, line)
    at.run(3)
    panel.power = power
    at.perform("panel1", "switch_on", output="siren")
    at.run(20)
    assert (panel.coil2 == "on") == (switch == "obeyed" and power == "on")
    return at.outcomes, at, line


@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize(
    ("switch", "result", "detail"),
    [
        ("obeyed", "done", "the device says that coil 2 is on"),
        ("refused", "failed", "the device refuses it"),
        ("claimed", "failed", "the device says that coil 2 is off: it did not switch"),
        ("ignored", "failed", "the device says that coil 2 is off: it did not switch"),
    ],
)
def test_only_the_coil_that_is_read_back_proves_a_switching(
    switch: str, result: str, detail: str, echo: bool
) -> None:
    if switch == "ignored" and not echo:
        result, detail = "unanswered", "the device did not say what became of it; look before trying again"
    [outcome], _, _ = switched(switch, echo)
    assert (outcome.result, outcome.detail) == (result, detail)


def test_the_echo_of_a_switching_is_no_sign_of_life() -> None:
    [outcome], at, _ = switched("ignored", echo=True, power="off")
    assert outcome.result == "unanswered"
    assert "up" not in at.of("panel1", "link.state", since=1004.0)
    assert at.of("panel1", "link.state")[-1] in ("silent", "rubbish")


def test_after_what_may_be_an_echo_the_line_is_left_to_the_answer() -> None:
    _, _, line = switched("ignored", echo=True)
    at = next(now for now, data in line.said if data[1] == 5)
    assert min(now for now, _ in line.said if now > at) - at >= TIMEOUT


def test_what_cannot_be_read_back_is_not_called_done() -> None:
    driver, now, ended = (
        Modbus(ModbusLineOptions(), {"p": PanelOptions(1, outputs={"siren": 2})}),
        1000.0,
        list[Any](),
    )
    driver.perform(Operation("op", "p", "switch_on", "someone", {"output": "siren"}), now)
    heard: list[Heard] = []
    while now < 1010.0:
        now += 0.05
        heard += driver.tick(now)
        if asked := driver.outgoing():
            answers = {5: asked, 1: seal("01 81 01"), 2: seal("01 02 01 00")}
            heard += driver.receive(answers[asked[1]], now)
    ended = [item for one in heard for item in one.items if isinstance(item, Outcome)]
    assert [(o.result, "look before trying again" in o.detail) for o in ended] == [("unanswered", True)]
    assert "exception 01" in ended[0].raw


@pytest.mark.parametrize("latency", LATENCIES)
def test_two_switchings_each_end_with_their_own_truth(latency: float) -> None:
    """On, then off, of one coil: a late reply to the first reading must not be taken for the second's."""
    panel = Panel()
    driver = Modbus(ModbusLineOptions(), {"panel1": PanelOptions(1, outputs={"siren": 2})})
    at = SharedBench(driver, Bus([panel]))
    at.run(3)
    at.to_host.faults.delay = latency
    for _ in range(3):
        for verb, state in (("switch_on", "on"), ("switch_off", "off")):
            before = len(at.outcomes)
            at.perform("panel1", verb, output="siren")
            while len(at.outcomes) == before:
                at.run(0.05)
            if at.outcomes[-1].result == "done":
                assert at.outcomes[-1].detail.endswith(state)
            else:
                assert at.outcomes[-1].result == "unanswered", at.outcomes[-1]


@pytest.mark.parametrize("latency", [*LATENCIES, 0.65, 0.8, 1.0, 1.25, 1.7])
@pytest.mark.parametrize("inputs", [{}, {"safe_door": Input(2)}])
def test_a_late_reading_is_not_taken_for_that_of_the_coil_where_the_adapter_echoes(
    latency: float, inputs: dict[str, Input]
) -> None:
    own = PanelOptions(1, function=1, inputs=inputs, outputs={"siren": 1})
    driver, now, coil = Modbus(ModbusLineOptions(), {"p": own}), 1000.0, False
    flying: list[tuple[float, bytes]] = []
    ended: list[Outcome] = []
    for step in range(2400):
        now += 0.05
        if step % 400 == 200:
            for verb in ("switch_on", "switch_off"):
                driver.perform(Operation(f"{step} {verb}", "p", verb, "someone", {"output": "siren"}), now)
        heard = [h for due, piece in flying if due <= now for h in driver.receive(piece, now)]
        flying = [(due, piece) for due, piece in flying if due > now]
        heard += driver.tick(now)
        if asked := driver.outgoing():
            answer = asked
            if asked[1] == 5:
                coil = bool(asked[4])
                heard += driver.receive(asked, now)
            else:  # the door, which is coil 2, is always as the siren is not
                answer = seal(f"01 01 01 {coil if asked[3] == 1 else not coil:02X}")
            flying.append((now + (latency if step > 150 else 0.0), answer))
        ended += [item for one in heard for item in one.items if isinstance(item, Outcome)]
    assert len(ended) == 12
    assert {outcome.result for outcome in ended} <= {"done", "unanswered"}, "it always did as it was told"
    assert latency >= TIMEOUT or {outcome.result for outcome in ended} == {"done"}


def test_an_echo_for_ever_does_not_keep_a_dead_slave_from_being_silent() -> None:
    inputs = {name: Input(at) for at, name in enumerate(INPUTS)}
    driver, now = Modbus(ModbusLineOptions(), {"p": PanelOptions(1, inputs=inputs, outputs={"siren": 1})}), 1000.0
    states: list[object] = []
    for step in range(300):
        now += 0.05
        if step % 10 == 0:
            driver.perform(Operation(f"op-{step}", "p", "switch_on", "someone", {"output": "siren"}), now)
        heard = driver.tick(now)
        if asked := driver.outgoing():
            heard += driver.receive(asked, now)
        states += [
            i.value for h in heard for i in h.items if not isinstance(i, Outcome) and i.point == "link.state"
        ]
    assert states[0] in ("silent", "rubbish")
    assert "up" not in states


def test_our_own_question_that_comes_back_is_no_answer_though_it_looks_like_one() -> None:
    """18 inputs from place 800 on: the echo of the question has the form of an answer of three bytes."""
    inputs = {"safe_door": Input(800), "cabinet_door": Input(817)}
    driver, now = Modbus(ModbusLineOptions(), {"panel1": PanelOptions(1, inputs=inputs)}), 1000.0
    read: set[object] = set()
    for _ in range(200):
        now += 0.05
        heard = driver.tick(now)
        if asked := driver.outgoing():
            assert asked[2:3] == b"\x03"
            heard += driver.receive(asked + seal("01 02 03 01 00 00"), now)
        read |= {
            (i.point, i.value) for h in heard for i in h.items if not isinstance(i, Outcome) and "door" in i.point
        }
    assert read == {("safe_door", "open"), ("cabinet_door", "closed")}
