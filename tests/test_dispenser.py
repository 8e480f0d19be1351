"""The dispenser driver with the simulated dispenser as its master and from a tap."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.drivers.dispenser import Dispenser, DispenserOptions
from agent.drivers.framing import xor_of
from agent.model import Operation, Outcome, Reading
from agent.points import lookup
from hwsim import DEVICES, SimulatedDevice, change_setting
from hwsim.wires import SHAPES, hurt
from tests.virtual import Bench, overhear, perform, prepare, stays, total, values, wires

WIRES = wires()
ACK, NAK, EOT = b"\x06", b"\x15", b"\x04"
STATUS_COMMAND = bytes.fromhex("04 30 02 50 03 65")
STATUS_RESPONSE = bytes.fromhex("01 30 02 50 20 00 04 31 60 64 0C 32 60 64 0C 33 60 64 00 30 60 64 03 44")


def bench(seed: int = 0) -> Bench:
    return Bench(Dispenser(DispenserOptions()), DEVICES["dispenser"](), seed)


def sealed(text: bytes) -> bytes:
    body = text + b"\x03"
    return body + bytes((xor_of(body),))


def dispense(*counts: int) -> bytes:
    return sealed(b"\x04\x30\x02\x52" + bytes(0x20 + n for n in counts) + b"\x20" * 11)


def dispensed(error: int, *cells: tuple[int, int, int]) -> bytes:
    """A DISPENSE response; a cell is notes, reject events, type."""
    body = b"".join(bytes((0x20 + gone, 0x20 + rejects, kind)) for gone, rejects, kind in cells)
    return sealed(b"\x01\x30\x02\x52" + bytes((error, 0x30)) + body + b"\x20" * 9)


# as master


@pytest.mark.parametrize("wire", WIRES)
def test_every_point_is_fresh_and_true_on_a_bad_wire(wire: str) -> None:
    at = bench()
    prepare(at.device, near_end="50", notes1="500", notes2="20", notes3="500", notes4="500", cassette4="out")
    at.run(10)
    at.faults(**WIRES[wire])
    truth = {
        "cassette.1.state": "ok",
        "cassette.2.state": "low",
        "cassette.4.state": "missing",
        "dispenser.state": "attention",
        "dispenser.error": "ok",
        "dispenser.path": "clear",
        "reject.tray": "ok",
        "cassette.1.dispensed": 0,
        "cassette.1.type": "1",
    }
    stays(at, truth)


@pytest.mark.parametrize("wire", WIRES)
def test_a_cassette_that_is_taken_out_is_seen(wire: str) -> None:
    at = bench()
    at.run(5)
    at.faults(**WIRES[wire])
    at.run(5)
    change_setting(at.device, "cassette2", "out")
    begun = at.now
    seen = [r.at - begun for r in at.run(20) if (r.point, r.value) == ("cassette.2.state", "missing")]
    assert seen[0] <= (2.5 if wire == "good" else 12.0)


def test_a_missing_reject_tray_stops_the_dispenser_and_its_return_is_inferred() -> None:
    at = bench()
    change_setting(at.device, "tray", "out")
    at.run(5)
    perform(at, "purge")
    at.run(30)
    assert "missing" in values(at.readings, "reject.tray")
    stopped = [r for r in at.readings if (r.point, r.value) == ("dispenser.state", "stop")]
    assert stopped[0].raw == "no_reject_tray"
    change_setting(at.device, "tray", "in")
    perform(at, "purge")
    at.run(30)
    assert at.value("reject.tray") == "ok"
    assert [r for r in at.readings if r.point == "reject.tray"][-1].inferred
    assert [o.result for o in at.outcomes] == ["failed", "done"]


def test_a_test_dispense_sends_its_notes_to_the_reject_tray_and_counts_them_once() -> None:
    at = bench()
    prepare(at.device, notes2="500")
    at.run(5)
    perform(at, "test_dispense", position=2, count=3)
    at.run(30)
    assert [o.result for o in at.outcomes] == ["done"]
    assert total(at.readings, "cassette.2.dispensed") == 0
    assert total(at.readings, "cassette.2.rejected") == total(at.readings, "reject.events") > 0
    assert total(at.readings, "cassette.1.rejected") == 0


@pytest.mark.parametrize("wire", WIRES)
def test_a_motion_is_never_counted_twice_and_ends_once_on_a_bad_wire(wire: str) -> None:
    for seed in range(5):
        at = bench(seed)
        prepare(at.device, notes1="500", seconds_per_note="0.3")
        at.run(5)
        at.faults(**WIRES[wire])
        perform(at, "test_dispense", count=4)
        at.run(80)
        assert len(at.outcomes) == 1
        moved = 500 - int(vars(at.device)["notes1"])
        assert moved in (0, 4), "a motion command was said twice"
        assert total(at.readings, "cassette.1.rejected") in (0, moved)
        if at.outcomes[0].result == "done":
            assert total(at.readings, "cassette.1.rejected") == moved == 4


@pytest.mark.parametrize("late", [False, True])
def test_the_result_of_a_motion_counts_once_also_when_it_is_late_or_said_again(late: bool) -> None:
    driver, now, items = Dispenser(DispenserOptions()), 1000.0, list[Reading | Outcome]()
    driver.perform(Operation("op", "dispenser1", "test_dispense", "someone", {"count": 2}), now)
    driver.tick(now)
    assert driver.outgoing()[3] == 0x53
    result = dispensed(0x20, (0, 2, 0x31), (0, 0, 0x32), (0, 0, 0x33), (0, 0, 0x34))
    result = sealed(b"\x01\x30\x02\x53" + result[4:-2])
    items += driver.receive(ACK, now)
    for _ in range(1210 if late else 2):
        now += 0.05
        items += driver.tick(now)
    driver.outgoing()
    for _ in range(2):
        items += driver.receive(result, now)
        assert driver.outgoing() == ACK
    readings = [item for item in items if isinstance(item, Reading)]
    assert values(readings, "cassette.1.rejected") == [2]
    assert [o.result for o in items if isinstance(o, Outcome)] == ["unanswered" if late else "done"]


def test_nothing_else_is_asked_while_notes_move() -> None:
    at = bench()
    prepare(at.device, notes1="500", seconds_per_note="1.0")
    at.run(5)
    perform(at, "test_dispense", count=6)
    at.run(0.5)
    assert {r.point for r in at.run(4.0)} <= {"link.bad_frames"}
    at.run(10)
    assert [o.result for o in at.outcomes] == ["done"]


def test_an_empty_cassette_is_inferred_from_our_own_test_dispense_and_latched() -> None:
    at = bench()
    prepare(at.device, near_end="50", notes1="500", notes2="2")
    at.run(5)
    assert at.value("cassette.2.state") == "low"
    perform(at, "test_dispense", position=2, count=5)
    at.run(20)
    assert at.outcomes[0].result == "failed"
    assert at.value("cassette.2.state") == "empty"
    (last,) = [r for r in at.readings if r.point == "cassette.2.state"][-1:]
    assert last.inferred
    assert "2 of 5" in last.raw
    change_setting(at.device, "notes2", "1000")
    at.run(5)
    assert at.value("cassette.2.state") == "ok"


def test_a_reset_is_done_when_the_dispenser_answers_again() -> None:
    at = bench()
    at.run(5)
    perform(at, "reset")
    at.run(8)
    assert [o.result for o in at.outcomes] == ["done"]
    at.faults(cut=True)
    perform(at, "reset")
    at.run(20)
    assert [o.result for o in at.outcomes] == ["done", "unanswered"]


@pytest.mark.parametrize("wrong", [{"position": 5}, {"count": 0}, {"count": 11}, {"position": True}, {"speed": 1}])
def test_wrong_arguments_are_refused(wrong: dict[str, int]) -> None:
    at = bench()
    at.run(5)
    perform(at, "test_dispense", **wrong)
    perform(at, "purge", count=1)
    at.run(5)
    assert [o.result for o in at.outcomes] == ["refused", "refused"]


@pytest.mark.parametrize(
    ("status", "wanted"),
    [
        # one near-end cassette; then two; then the last command was a purge; then its error was another
        (("04", "0C", "04", "04"), "empty"),
        (("0C", "0C", "04", "04"), "low"),
    ],
)
def test_an_empty_cassette_is_inferred_from_the_last_status_only_when_it_is_the_only_candidate(
    status: tuple[str, ...], wanted: str
) -> None:
    cells = b"".join(bytes((int(stat, 16), 0x31 + place, 0x60, 0x64)) for place, stat in enumerate(status))
    answers = {
        0x50: sealed(b"\x01\x30\x02\x50\x21\x00" + cells),
        0x55: sealed(bytes.fromhex("01 30 02 55 52 21 30 20 20 31 20 20 32 20 20 33 20 20 34")),
    }
    driver, now, readings = Dispenser(DispenserOptions()), 1000.0, list[Reading | Outcome]()
    for _ in range(40):
        now += 0.05
        readings += driver.tick(now)
        if (asked := driver.outgoing()) and asked[0] == 0x04:
            readings += driver.receive(ACK + answers[asked[3]] + EOT, now)
    (state,) = [r for r in readings if isinstance(r, Reading) and r.point == "cassette.2.state"][-1:]
    assert state.value == wanted
    assert state.inferred == (wanted == "empty")


# from a tap


def tap(options: DispenserOptions | None = None) -> Dispenser:
    return Dispenser(options or DispenserOptions(), "listen")


TWO = dispensed(0x20, (2, 1, 0x31), (0, 0, 0x32), (0, 0, 0x33), (0, 0, 0x30))
EXCHANGE = (dispense(2, 0, 0, 0), ACK, TWO, ACK, EOT)


def test_two_equal_withdrawals_count_twice() -> None:
    readings = overhear(tap(), *EXCHANGE, *EXCHANGE)
    assert values(readings, "cassette.1.dispensed") == [2, 2]
    assert values(readings, "cassette.1.rejected") == [1, 1]
    assert values(readings, "reject.events") == [1, 1]


@pytest.mark.parametrize("between", [(NAK,), (), (b"\x17",), (NAK, b"\xff")], ids=["nak", "none", "hurt", "noise"])
def test_a_response_that_is_said_again_counts_once(between: tuple[bytes, ...]) -> None:
    readings = overhear(tap(), dispense(2, 0, 0, 0), ACK, TWO, *between, TWO, ACK, EOT)
    assert values(readings, "cassette.1.dispensed") == [2]


def test_a_command_that_is_said_again_after_a_nak_counts_once() -> None:
    readings = overhear(tap(), dispense(2, 0, 0, 0), NAK, *EXCHANGE)
    assert values(readings, "cassette.1.dispensed") == [2]


def test_an_equal_withdrawal_whose_command_was_damaged_on_the_tap_counts() -> None:
    damaged = dispense(2, 0, 0, 0)[:-1] + b"\xff"
    status = (STATUS_COMMAND, ACK, STATUS_RESPONSE, ACK, EOT)
    for middle in ((), status):
        readings = overhear(tap(), *EXCHANGE, *middle, damaged, *EXCHANGE[1:])
        assert total(readings, "cassette.1.dispensed") == 4


def test_empty_is_latched_until_notes_come_again_the_flag_goes_or_the_cassette_is_taken() -> None:
    def after(*later: bytes) -> object:
        failed = dispensed(0x21, (0, 0, 0x31), (0, 0, 0x32), (2, 0, 0x33), (0, 0, 0x30))
        pieces = (STATUS_RESPONSE, dispense(0, 0, 5, 0), ACK, failed, ACK, STATUS_RESPONSE, *later)
        return values(overhear(tap(), *pieces), "cassette.3.state")[-1]

    full = sealed(STATUS_RESPONSE[:14] + b"\x04" + STATUS_RESPONSE[15:-2])
    gone = sealed(STATUS_RESPONSE[:14] + b"\x00\x30" + STATUS_RESPONSE[16:-2])
    came = dispensed(0x20, (0, 0, 0x31), (0, 0, 0x32), (1, 0, 0x33), (0, 0, 0x30))
    assert after() == "empty"
    assert after(STATUS_RESPONSE, STATUS_RESPONSE) == "empty"
    assert after(full) == "ok"
    assert after(gone) == "missing"
    assert after(full, STATUS_RESPONSE) == "low"
    assert after(dispense(0, 0, 1, 0), ACK, came) == "low"


def test_a_short_dispense_from_a_cassette_that_is_not_near_its_end_is_a_pick_up_error_only() -> None:
    failed = dispensed(0x21, (2, 0, 0x31), (0, 0, 0x32), (0, 0, 0x33), (0, 0, 0x30))
    readings = overhear(tap(), STATUS_RESPONSE, dispense(5, 0, 0, 0), ACK, failed)
    assert values(readings, "cassette.1.state")[-1] == "ok"
    assert values(readings, "dispenser.state")[-1] == "attention"


def test_a_tap_is_silent_after_its_quiet_time_also_when_the_host_goes_on_asking() -> None:
    driver = tap(DispenserOptions(quiet=10.0))
    overhear(driver, STATUS_COMMAND, ACK, STATUS_RESPONSE, ACK, EOT)
    states = []
    for step in range(400):
        now = 1000.0 + step * 0.05
        if step % 20 == 0:
            overhear(driver, STATUS_COMMAND, now=now)
        states += [(r.value, now) for r in driver.tick(now) if isinstance(r, Reading) and r.point == "link.state"]
    assert states[0][0] == "silent"
    assert states[0][1] == pytest.approx(1010.0, abs=0.1)
    assert values(overhear(driver, STATUS_RESPONSE, now=1030.0), "link.state") == ["up"]


def test_a_tap_waits_for_a_motion_that_the_dispenser_has_acknowledged() -> None:
    driver = tap()
    driver.tick(1000.0)
    overhear(driver, dispense(40, 0, 0, 0), ACK)
    assert not [r for r in driver.tick(1040.0) if isinstance(r, Reading) and r.point == "link.state"]
    assert [r for r in driver.tick(1061.0) if isinstance(r, Reading) and r.point == "link.state"]


def test_a_tap_refuses_every_operation_and_writes_nothing() -> None:
    driver = tap()
    for verb in driver.operations:
        driver.perform(Operation(verb, "dispenser1", verb, "someone"), 1000.0)
    outcomes = [item for item in driver.tick(1000.0) if isinstance(item, Outcome)]
    assert [o.result for o in outcomes] == ["refused"] * 3
    assert "listen" in outcomes[0].detail
    assert driver.outgoing() == b""


def traffic(device: SimulatedDevice, rng: Random, days: int) -> tuple[list[bytes], int]:
    """What both directions say while a host polls and pays out; and the notes that left cassette 1."""
    said: list[bytes] = []
    now, notes = 1000.0, 0
    for _ in range(days):
        count = rng.randint(1, 9)
        for command in (STATUS_COMMAND, dispense(count, 0, 0, 0)):
            answer = device.receive(command)
            while not answer.endswith(EOT):
                now += 0.1
                answer += device.tick(now)
                if len(answer) > 1 and answer[-1:] != EOT:
                    said += [command, answer[:1], answer[1:], ACK]
                    answer = device.receive(ACK)
                    said.append(answer)
                    break
        notes += count
    return said, notes


@given(seed=st.integers(0, 2**32), shape=st.sampled_from(SHAPES), merged=st.booleans())
@settings(max_examples=60, deadline=None)
def test_damage_on_the_tap_never_counts_a_note_that_did_not_move(seed: int, shape: str, merged: bool) -> None:
    rng = Random(seed)
    device = DEVICES["dispenser"]()
    prepare(device, notes1="2000", seconds_per_note="0.0")
    said, notes = traffic(device, rng, 6)
    clean = overhear(tap(), *said)
    assert total(clean, "cassette.1.dispensed") == notes
    victim = rng.randrange(len(said))
    while not said[victim]:
        victim = rng.randrange(len(said))
    hurt_traffic = [*said]
    hurt_traffic[victim] = hurt(said[victim], rng, shape)
    damaged = overhear(tap(), *([b"".join(hurt_traffic)] if merged else hurt_traffic), *said[:5])
    words = {(r.point, r.value) for r in damaged if lookup(r.point).kind != "measure"}
    assert words <= {(r.point, r.value) for r in clean}, "a false reading"
    assert notes - 18 <= total(damaged, "cassette.1.dispensed") <= notes
