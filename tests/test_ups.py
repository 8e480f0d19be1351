"""The UPS driver with the simulated UPS over good and bad wires."""

import pytest

from agent.drivers.ups import Ups, UpsOptions
from agent.model import Operation, Outcome, Reading
from agent.points import lookup
from hwsim import DEVICES, change_setting
from tests.virtual import Bench, perform, wires, words

WIRES = wires(merge=0.3, noise=2, late=0.4)


def bench(seed: int = 0) -> Bench:
    return Bench(Ups(UpsOptions()), DEVICES["ups"](), seed)


def line(bits: str, volts: str = "226.0") -> bytes:
    return f"({volts} 195.0 226.0 014 49.0 27.5 30.0 {bits}\r".encode("ascii")


@pytest.mark.parametrize("wire", WIRES)
def test_every_point_is_fresh_and_true_on_a_bad_wire(wire: str) -> None:
    at = bench()
    at.run(10)
    at.faults(**WIRES[wire])
    for _ in range(8):
        readings = at.run(15)
        for point in ("mains", "battery", "ups.state", "ups.selftest", "link.state", "output.load"):
            assert words(readings, point), f"{point} became stale"
        for point in ("mains", "battery", "ups.state", "ups.shutdown"):
            assert words(readings, point) in (["ok"], ["inactive"]), f"a false {point}"
        for point in ("input.voltage", "battery.voltage", "temperature"):
            true = float(str(next(r.value for r in at.readings if r.point == point)))
            values = [float(str(r.value)) for r in readings if r.point == point]
            assert all(abs(v - true) <= max(1.0, 0.12 * true) for v in values), f"{point}: {values}"


@pytest.mark.parametrize("wire", WIRES)
def test_a_mains_failure_is_seen(wire: str) -> None:
    at = bench()
    at.run(10)
    at.faults(**WIRES[wire])
    at.run(5)
    change_setting(at.device, "mains", "lost")
    begun = at.now
    readings = at.run(15)
    lost = [r.at - begun for r in readings if (r.point, r.value) == ("mains", "lost")]
    assert lost[0] <= (2.5 if wire == "good" else 8.0)
    change_setting(at.device, "mains", "ok")
    assert words(at.run(15), "mains")[-1] == "ok"


def test_identity_and_ratings_are_read_and_kept_fresh() -> None:
    at = bench()
    for _ in range(3):
        readings = at.run(lookup("rating.voltage").max_age / 3)
        assert {"rating.voltage", "rating.battery_voltage", "device.maker"} <= {r.point for r in readings}


@pytest.mark.parametrize(("fails", "result"), [("no", "passed"), ("yes", "failed")])
def test_a_self_test_runs_and_its_result_is_concluded_from_the_bits(fails: str, result: str) -> None:
    at = bench()
    change_setting(at.device, "test_fails", fails)
    at.run(5)
    perform(at, "self_test")
    at.run(30)
    assert words(at.readings, "ups.selftest") == ["none", "running", result]
    assert [o.result for o in at.outcomes] == ["done"]
    assert "ups.selftest" in at.outcomes[0].detail
    last = [r for r in at.readings if r.point == "ups.selftest"][-1]
    assert last.inferred
    assert "b4" in last.raw


def test_a_cancelled_test_has_neither_passed_nor_failed() -> None:
    at = bench()
    at.run(5)
    perform(at, "self_test_until_low")
    assert words(at.run(5), "ups.selftest")[-1] == "running"
    perform(at, "cancel_test")
    assert "passed" not in words(at.run(10), "ups.selftest")
    assert at.value("ups.selftest") == "none"
    assert [o.result for o in at.outcomes] == ["done", "done"]


def test_the_beeper_is_switched() -> None:
    at = bench()
    at.run(5)
    before = at.value("ups.beeper")
    perform(at, "toggle_beeper")
    at.run(5)
    assert {before, at.value("ups.beeper")} == {"on", "off"}


def test_silence_of_a_line_that_died_just_now_is_not_taken_for_consent() -> None:
    at = bench()
    at.run(10)
    at.faults(cut=True)
    perform(at, "self_test")
    at.run(20)
    assert [o.result for o in at.outcomes] == ["unanswered"]


@pytest.mark.parametrize("wire", WIRES)
def test_a_command_ends_once_on_a_bad_wire(wire: str) -> None:
    for seed in range(5):
        at = bench(seed)
        at.run(10)
        at.faults(**WIRES[wire])
        perform(at, "toggle_beeper")
        at.run(30)
        assert len(at.outcomes) == 1


def test_no_command_switches_anything_off() -> None:
    assert not [verb for verb in Ups.operations if "shut" in verb or "off" in verb]


def play(*steps: bytes) -> list[Reading | Outcome]:
    """Give lines to a driver right after its questions, ignoring what it asks."""
    driver, now, items = Ups(UpsOptions()), 1000.0, list[Reading | Outcome]()
    driver.perform(Operation("op", "ups1", "self_test", "someone"), now)
    for step in steps:
        items += driver.tick(now)
        driver.outgoing()
        items += driver.receive(step, now)
        now += 0.2
    return items


def results(items: list[Reading | Outcome]) -> list[str]:
    return [item.result for item in items if isinstance(item, Outcome)]


def test_an_echo_refuses_a_command_and_an_acknowledgement_accepts_it() -> None:
    assert results(play(b"T\r")) == ["failed"]
    assert results(play(b"(ACK\r")) == ["done"]
    assert results(play(b"ACK\r")) == ["done"]


def test_a_late_status_is_a_status_and_not_the_answer_to_a_command() -> None:
    items = play(line("00001000"))
    assert results(items) == []
    assert [i.value for i in items if isinstance(i, Reading) and i.point == "mains"] == ["ok"]


def test_a_ups_that_only_echoes_is_up_and_says_nothing_else() -> None:
    driver, items = Ups(UpsOptions()), list[Reading | Outcome]()
    for step in range(400):
        now = 1000.0 + step * 0.05
        items += driver.tick(now)
        items += driver.receive(driver.outgoing(), now)
    states = [i for i in items if isinstance(i, Reading) and i.point == "link.state"]
    assert {state.value for state in states} == {"up"}
    assert "echo" in states[0].raw
    assert {i.point for i in items if isinstance(i, Reading)} == {"link.state", "link.bad_frames"}


def test_one_flipped_status_bit_is_not_believed_and_a_lasting_one_is() -> None:
    driver, now, said, at = Ups(UpsOptions()), 1000.0, list[object](), list[float]()
    for bits in ("00001000", "10001000", "00001000", "10001000", "10001000"):
        while not (asked := driver.outgoing()):
            now += 0.05
            driver.tick(now)
        while asked != b"Q1\r":
            driver.receive(asked, now)  # it knows no F and no I
            now += 0.05
            driver.tick(now)
            asked = driver.outgoing()
        at.append(now)
        said += [i.value for i in driver.receive(line(bits), now) if isinstance(i, Reading) and i.point == "mains"]
    assert said == ["ok", "ok", "lost"]
    assert at[2] - at[1] < 0.2, "a doubted change is asked for again at once"
    assert at[3] - at[2] > 0.8


def test_a_leaping_number_is_believed_when_it_comes_twice() -> None:
    driver = Ups(UpsOptions())
    said = []
    for volts in ("226.0", "626.0", "226.0", "000.0", "000.0"):
        items = driver.receive(line("00001000", volts), 1000.0)
        said += [i.value for i in items if isinstance(i, Reading) and i.point == "input.voltage"]
    assert said == [226.0, 226.0, 0.0]


@pytest.mark.parametrize("bits", ["p0001000", "0000100", "000010000", "00001 00"])
def test_a_line_whose_status_is_not_eight_bits_is_damage(bits: str) -> None:
    driver = Ups(UpsOptions())
    assert driver.receive(line(bits), 1000.0) == []
    assert driver.receive(line("00001000"), 1000.0) != []


def test_a_line_feed_after_the_carriage_return_is_no_damage() -> None:
    driver = Ups(UpsOptions())
    driver.receive(line("00001000") + b"\n" + line("00001000"), 1000.0)
    (bad,) = [i for i in driver.tick(1000.0) if isinstance(i, Reading) and i.point == "link.bad_frames"]
    assert bad.value == 0
