"""The Modbus driver: golden frames, and with simulated panels on one line over good and bad wires."""

from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.drivers.modbus import Modbus, ModbusLineOptions
from agent.drivers.panel import Input, PanelOptions, Register
from agent.model import Heard, Operation, Outcome
from agent.points import lookup
from hwsim import change_setting
from hwsim.line import Bus
from hwsim.modbus import INPUTS
from hwsim.modbus import Modbus as Panel
from hwsim.wires import SHAPES, hurt
from tests import golden
from tests.shared import Alone, SharedBench
from tests.test_drivers import check
from tests.virtual import wires

WIRES = wires(noise=2, later=0.4)
WORDS = {"safe_door": "closed", "cabinet_door": "closed", "mains": "ok"}
ANSWER = bytes.fromhex("01 02 01 8D 61 ED")


def options(address: int = 1, **changes: Any) -> PanelOptions:
    table: dict[str, Any] = {
        "inputs": {name: Input(at) for at, name in enumerate(INPUTS)},
        "registers": {
            "ambient.temperature": Register(0, scale=0.1, signed=True),
            "ambient.humidity": Register(1, scale=0.1, signed=True),
        },
        "outputs": {"siren": 2},
    }
    return PanelOptions(address=address, **{**table, **changes})


def master(count: int = 1, **line: float) -> Modbus:
    return Modbus(ModbusLineOptions(**line), {f"panel{n}": options(n) for n in range(1, count + 1)})


def bench(count: int = 1, seed: int = 0, **line: float) -> tuple[SharedBench, list[Panel]]:
    panels = [Panel() for _ in range(count)]
    for number, panel in enumerate(panels, 1):
        panel.address = number
    return SharedBench(master(count, **line), Bus(panels), seed), panels


def seen(heard: list[Heard], point: str) -> list[object]:
    return [
        item.value for one in heard for item in one.items if not isinstance(item, Outcome) and item.point == point
    ]


def checked(heard: list[Heard]) -> list[Heard]:
    check([item for one in heard for item in one.items])
    return heard


def play(driver: Modbus, pieces: list[bytes]) -> list[Heard]:
    """Each piece comes as the answer to a question for the inputs."""
    heard: list[Heard] = []
    now = 1000.0
    for piece in pieces:
        asked = b""
        while asked[:2] != b"\x01\x02":
            heard += driver.tick(now)
            asked = driver.outgoing()
            now += 0.05
        heard += driver.receive(piece, now)
    return checked(heard)


@pytest.mark.parametrize("case", list(golden.for_driver("modbus")), ids=lambda case: case.name)
def test_golden_frames(case: golden.Case) -> None:
    golden.check_driver(case, Alone(master()))  # type: ignore[arg-type]


# ---- over bad wires


@pytest.mark.parametrize("wire", WIRES)
def test_every_point_is_fresh_and_true_on_a_bad_wire(wire: str) -> None:
    at, _ = bench(2)
    at.run(5)
    at.faults(**WIRES[wire])
    if wire == "later than the timeout":
        at.run(30)  # what was known before is stale by then
    for _ in range(8):
        begun = at.now
        at.run(15)
        for device in ("panel1", "panel2"):
            for point in INPUTS:
                said = set(at.of(device, point, begun))
                assert said <= {WORDS.get(point, "off")}, f"a false {point}"
                assert said or wire == "later than the timeout", f"{point} became stale"
            assert set(at.of(device, "ambient.temperature", begun)) <= {23.5}
            assert at.of(device, "link.state", begun)
            if wire == "later than the timeout":
                assert set(at.of(device, "link.state", begun)) == {"silent"}
                assert "raise timeout" in at.last(device, "link.state").raw
            else:
                assert "up" in at.of(device, "link.state", begun)


@pytest.mark.parametrize("wire", sorted(WIRES.keys() - {"later than the timeout"}))
def test_a_door_that_opens_is_seen_at_once(wire: str) -> None:
    at, (_, second) = bench(2)
    at.run(5)
    at.faults(**WIRES[wire])
    at.run(5)
    change_setting(second, "safe_door", "open")
    begun = at.now
    while "open" not in at.of("panel2", "safe_door"):
        at.run(0.05)
        assert at.now - begun < (1.0 if wire == "good" else 6.0)
    assert "open" not in at.of("panel1", "safe_door"), "the other panel's door was never opened"


def test_both_ends_of_the_wiring_may_be_inverted() -> None:
    at, (panel,) = bench()
    change_setting(panel, "polarity", "active_is_0")
    at.driver = Modbus(  # type: ignore[assignment]
        ModbusLineOptions(), {"panel1": options(inputs={n: Input(i, invert=True) for i, n in enumerate(INPUTS)})}
    )
    at.run(2)
    assert at.last("panel1", "safe_door").value == "closed"
    change_setting(panel, "safe_door", "open")
    at.run(2)
    assert at.last("panel1", "safe_door").value == "open"
    assert at.last("panel1", "safe_door").raw == "input 0 = 0"


# ---- several slaves


def test_a_slave_without_power_is_silent_alone_and_does_not_slow_the_others() -> None:
    at, panels = bench(3)
    at.run(10)
    change_setting(panels[0], "power", "off")
    begun = at.now
    at.run(60)
    assert at.of("panel1", "link.state", begun)[-1] == "silent"
    times = [r.at for name, r in at._of if (name, r.point, r.value) == ("panel1", "link.state", "silent")]
    assert times[0] - begun <= 15.0
    assert max(b - a for a, b in pairwise(times)) < lookup("link.state").max_age
    for other in ("panel2", "panel3"):
        assert set(at.of(other, "link.state", begun)) == {"up"}
        polls = [r.at for name, r in at._of if (name, r.point) == (other, "safe_door") and r.at >= begun + 15]
        assert max(b - a for a, b in pairwise(polls)) <= 1.5
        assert len(polls) >= 45 / 0.8, "a silent slave takes the line from the others"
    change_setting(panels[0], "power", "on")
    at.run(6)
    assert at.last("panel1", "link.state").value == "up"


def test_a_dead_line_of_as_many_slaves_as_it_may_have_is_silent_in_time() -> None:
    at, _ = bench(8)
    at.faults(cut=True)
    at.run(120)
    for number in range(1, 9):
        times = [r.at for name, r in at._of if (name, r.value) == (f"panel{number}", "silent")]
        assert times[0] - 1000.0 <= 15.0
        assert max(b - a for a, b in pairwise(times)) < lookup("link.state").max_age
    at.faults()
    begun = at.now
    at.run(10)
    assert all(at.of(f"panel{n}", "link.state", begun)[-1] == "up" for n in range(1, 9))


def test_noise_in_one_slaves_turn_is_not_blamed_on_another() -> None:
    driver, now = master(2), 1000.0
    blamed: set[tuple[str, object]] = set()
    for step in range(400):
        now += 0.05
        heard = driver.tick(now)
        if driver.outgoing()[:1] == b"\x01":
            heard += driver.receive(Random(step).randbytes(5), now)
        blamed |= {(h.device, value) for h in checked(heard) for value in seen([h], "link.state")}
    assert blamed == {("panel1", "rubbish"), ("panel2", "silent")}


def test_only_one_question_is_on_the_line_and_the_pause_is_kept() -> None:
    driver, now, free_at = master(3, pause=0.2), 1000.0, 0.0
    at, _ = bench(3)
    for _ in range(2000):
        now += 0.01
        driver.tick(now)
        if asked := driver.outgoing():
            assert len(asked) == 8
            assert now >= free_at
            if answer := at.device.receive(asked):
                now += 0.03
                driver.receive(answer, now)
                assert driver.outgoing() == b""
                free_at = now + 0.2


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_reply_that_comes_too_late_is_never_taken_for_another(data: st.DataObject) -> None:
    """Two reads of the same shape: input 0 is closed, input 100 is open, and answers come after their time."""
    own = options(inputs={"safe_door": Input(0), "cabinet_door": Input(100)}, registers={})
    driver, now = Modbus(ModbusLineOptions(), {"panel1": own}), 1000.0
    closed, opened = bytes.fromhex("01 02 01 00 A1 88"), bytes.fromhex("01 02 01 01 60 48")
    flying: list[tuple[float, bytes]] = []
    for _ in range(300):
        now += 0.05
        heard = [h for due, piece in flying if due <= now for h in driver.receive(piece, now)]
        flying = [(due, piece) for due, piece in flying if due > now]
        heard += driver.tick(now)
        assert set(seen(heard, "safe_door")) <= {"closed"}
        assert set(seen(heard, "cabinet_door")) <= {"open"}
        if asked := driver.outgoing():
            delay = data.draw(st.sampled_from((0.0, 0.1, 0.45, 0.55, 0.7, 0.9)))
            flying.append((now + delay, opened if asked[3] == 100 else closed))


def test_a_reply_of_another_length_or_to_another_command_is_not_taken() -> None:
    longer, other = bytes.fromhex("01 02 02 8D 00 DC E8"), bytes.fromhex("01 05 00 03 FF 00 7C 3A")
    assert seen(play(master(), [longer, longer]), "safe_door") == []
    driver, now = master(), 1000.0
    ended: list[str] = []
    driver.perform(Operation("op-1", "panel1", "switch_on", "someone", {"output": "siren"}), now)
    while not ended:
        now += 0.05
        heard = driver.tick(now)
        heard += driver.receive(other, now) if driver.outgoing()[1:2] == b"\x05" else []
        ended = [i.result for h in heard for i in h.items if isinstance(i, Outcome)]
    assert ended == ["unanswered"], "coil 3 is not the siren"


# ---- damage


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_damage_costs_the_damaged_frame_and_at_most_the_next(data: st.DataObject) -> None:
    damaged = hurt(ANSWER, Random(data.draw(st.integers(0, 2**32))), data.draw(st.sampled_from(SHAPES)))
    if data.draw(st.booleans()):
        damaged = ANSWER[: data.draw(st.integers(1, len(ANSWER) - 1))]
    heard = play(master(), [ANSWER] * 4 + [damaged] + [ANSWER] * 4)
    assert seen(heard, "safe_door").count("open") >= 7
    assert set(seen(heard, "safe_door")) == {"open"}
    assert set(seen(heard, "cabinet_door")) == {"closed"}


@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_any_slicing_gives_the_same_readings(data: st.DataObject) -> None:
    frames = [ANSWER, bytes.fromhex("01 04 04 00 EB FF F6 4A 06"), bytes.fromhex("01 82 02 C1 61")]
    pieces = data.draw(st.lists(st.sampled_from(frames) | st.binary(max_size=12), max_size=12))
    rng = Random(data.draw(st.integers(0, 2**32)))
    pieces = [hurt(piece, rng) if piece and rng.random() < 0.3 else piece for piece in pieces]
    whole, sliced, now = master(2), master(2), 1000.0
    for piece in pieces:
        now += data.draw(st.sampled_from((0.05, 0.2, 0.6, 1.1)))
        assert whole.tick(now) == sliced.tick(now)
        assert whole.outgoing() == sliced.outgoing()
        wanted = checked(whole.receive(piece, now))
        cuts = sorted(rng.randint(0, len(piece)) for _ in range(3))
        slices = zip([0, *cuts], [*cuts, len(piece)], strict=True)
        assert [i for a, b in slices for i in sliced.receive(piece[a:b], now)] == wanted


def test_babble_for_ever_fills_no_buffer_and_is_rubbish_that_names_speed_and_cable() -> None:
    driver, rng, now, states = master(), Random(1), 1000.0, []
    for _ in range(600):
        now += 0.1
        heard = checked(driver.tick(now) + driver.receive(rng.randbytes(200) + ANSWER[:3], now))
        driver.outgoing()
        assert vars(driver)["_deframer"].kept <= 256
        states += [i for h in heard for i in h.items if not isinstance(i, Outcome) and i.point == "link.state"]
        assert seen(heard, "safe_door") == [], "noise became a reading"
    assert {state.value for state in states} == {"rubbish"}
    assert states[0].at - 1000.0 <= 15.0
    assert "speed" in states[-1].raw
    assert "cable" in states[-1].raw
    assert seen(play(driver, [ANSWER] * 2), "safe_door")[-1] == "open"


# ---- errors and outputs


def test_a_refused_read_names_the_code_and_the_place_and_the_rest_is_read_on() -> None:
    at, (panel,) = bench()
    at.driver = Modbus(ModbusLineOptions(), {"panel1": options(registers={"ambient.humidity": Register(7)})})  # type: ignore[assignment]
    at.run(5)
    error = at.last("panel1", "device.error")
    assert set(at.of("panel1", "device.error")[3:]) == {"software"}
    assert error.raw.startswith("exception 02 to input register 7: it has no such address")
    assert at.last("panel1", "link.state").value == "up"
    assert at.last("panel1", "safe_door").value == "closed"
    change_setting(panel, "refuses", "4")
    at.run(2)
    assert at.last("panel1", "device.error").value == "hardware"


def test_busy_is_no_error_and_a_code_that_nobody_knows_is_told() -> None:
    busy, odd = bytes.fromhex("01 82 06 C0 A2"), bytes.fromhex("01 82 07 01 62")
    heard = play(master(), [busy, busy, ANSWER, odd])
    assert seen(heard, "device.error") == ["none", "none", "none", "vendor.07"]


def test_a_gateway_that_finds_nobody_is_silence() -> None:
    driver = Modbus(ModbusLineOptions(), {"panel1": options(registers={})})
    heard = play(driver, [bytes.fromhex("01 82 0B 01 67")] * 4)
    items = [i for h in heard for i in h.items if not isinstance(i, Outcome) and i.point != "link.bad_frames"]
    assert [(i.point, i.value) for i in items] == [("link.state", "silent")] * 2
    assert "the gateway gets no answer" in items[0].raw


@pytest.mark.parametrize("wire", WIRES)
def test_an_output_is_switched_and_ends_once_on_a_bad_wire(wire: str) -> None:
    for seed in range(5):
        at, (panel,) = bench(seed=seed)
        at.run(5)
        at.faults(**WIRES[wire])
        at.perform("panel1", "switch_on", output="siren")
        at.run(30)
        [outcome] = at.outcomes
        assert outcome.result in ("done", "unanswered") if wire != "good" else outcome.result == "done"
        assert outcome.detail == "the device says that coil 2 is on" or outcome.result == "unanswered"
        assert panel.coil2 == "on" or outcome.result == "unanswered"


def test_an_output_that_is_refused_or_not_configured_says_so() -> None:
    at, (panel,) = bench()
    at.run(5)
    at.perform("panel1", "switch_on", output="lamp")
    at.perform("panel1", "switch_off")
    at.perform("panel1", "open_door")
    at.run(2)
    assert [o.result for o in at.outcomes] == ["refused"] * 3
    assert "siren" in at.outcomes[0].detail
    change_setting(panel, "refuses", "4")
    at.perform("panel1", "switch_on", output="siren")
    at.run(2)
    assert (at.outcomes[-1].result, panel.coil2) == ("failed", "off")
    assert "exception 04" in at.outcomes[-1].raw


def test_every_operation_ends_exactly_once_on_a_dead_line() -> None:
    driver, now, ended = master(2), 1000.0, []
    for turn in range(2):
        for device in ("panel1", "panel2"):
            driver.perform(Operation(f"{turn}{device}", device, "switch_on", "someone", {"output": "siren"}), now)
        for _ in range(1200):
            now += 0.05
            for heard in driver.tick(now):
                ended += [(i.operation, i.result, heard.device) for i in heard.items if isinstance(i, Outcome)]
            driver.outgoing()
    expected = [(f"{turn}{d}", "unanswered", d) for turn in range(2) for d in ("panel1", "panel2")]
    assert sorted(ended) == sorted(expected)


def test_a_panel_without_a_map_is_asked_for_its_first_inputs_and_says_that_it_is_there() -> None:
    driver = Modbus(ModbusLineOptions(), {"panel1": PanelOptions(1)})
    driver.transcript.on = True
    heard = play(driver, [ANSWER])
    assert [i.point for h in heard for i in h.items if not isinstance(i, Outcome)][-2:] == [
        "link.state",
        "device.error",
    ]
    assert driver.transcript.read()[-1].endswith("panel1: inputs 0 to 7 = 1 0 1 1 0 0 0 1")


def test_the_transcript_is_kept_for_who_asks_for_it() -> None:
    driver = master()
    play(driver, [ANSWER])
    assert driver.transcript.read() == []
    driver.transcript.on = True
    play(driver, [ANSWER])
    said = driver.transcript.read()
    assert "> 01 02 00 00 00 08 79 CC panel1: inputs 0 to 7?" in said
    assert "< 01 02 01 8D 61 ED panel1: inputs 0 to 7 = 1 0 1 1 0 0 0 1" in said


def test_slaves_that_cannot_share_a_line_are_refused() -> None:
    with pytest.raises(ValueError, match="a and b both have address 3"):
        Modbus(ModbusLineOptions(), {"a": options(3), "b": options(3)})
    with pytest.raises(ValueError, match="at most 2 slaves"):
        master(3, timeout=2)
    for wrong in ({"timeout": 0}, {"pause": 0}, {"pause": 2}):
        with pytest.raises(ValueError, match="must be"):
            ModbusLineOptions(**wrong)
