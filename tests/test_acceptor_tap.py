"""The acceptor driver from a tap: both directions of a line, whose host is somebody else."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.drivers.acceptor import Acceptor, AcceptorOptions
from agent.drivers.ssp import seal
from agent.model import Operation, Outcome, Reading
from agent.points import lookup
from hwsim import DEVICES, SimulatedDevice, change_setting
from hwsim.wires import SHAPES, hurt
from tests.virtual import overhear, total


class Talk:
    """Both directions of a line, with the flags in order."""

    def __init__(self) -> None:
        self._flag = True

    def __call__(self, command: str, reply: str, address: int = 0) -> list[bytes]:
        self._flag = not self._flag
        return [seal(address, self._flag, bytes.fromhex(text)) for text in (command, reply)]


def tap(options: AcceptorOptions | None = None) -> Acceptor:
    return Acceptor(options or AcceptorOptions(), "listen")


def test_two_equal_notes_count_twice_and_a_repeated_reply_once() -> None:
    talk = Talk()
    first, second, third = talk("07", "F0 EE 01 EB"), talk("07", "F0 EE 01 EB"), talk("07", "F0")
    readings = overhear(tap(), *first, *first, first[0], *first, *second, second[1], *second, *third)
    assert total(readings, "acceptor.channel.1.accepted") == 2
    for between in (second, second[1:]):  # a whole exchange, or one whose command was damaged on the tap
        readings = overhear(tap(), *first, *between, *third[:1], first[1])
        assert total(readings, "acceptor.channel.1.accepted") == (3 if between is second else 2)
    assert total(overhear(tap(), *talk("07", "F0 EE 01 EB EE 01 EB")), "acceptor.channel.1.accepted") == 2


def test_a_note_counts_also_when_a_reply_between_was_damaged_on_the_tap() -> None:
    talk = Talk()
    first, second, third = talk("07", "F0"), talk("07", "F0"), talk("07", "F0 EE 01 EB")
    assert total(overhear(tap(), *first, second[1], *third), "acceptor.channel.1.accepted") == 1
    assert total(overhear(tap(), *first, second[0], *third), "acceptor.channel.1.accepted") == 1
    assert total(overhear(tap(), *first, *third), "acceptor.channel.1.accepted") == 1


def test_a_reply_is_not_taken_for_that_to_another_command() -> None:
    talk = Talk()
    poll, counters = talk("07", "F0"), talk("58", "F0 05 EE 01 00 00" + "00" * 16)
    readings = overhear(tap(), poll[0], counters[1])  # two frames between them were damaged on the tap
    assert [(r.point, r.value) for r in readings] == [("link.state", "up")]


def test_the_reason_of_an_earlier_reject_is_not_said_of_a_new_one() -> None:
    driver, talk = tap(), Talk()
    readings = overhear(driver, *talk("17", "F0 07"), *talk("07", "F0"))
    assert [r.value for r in readings if r.point == "acceptor.last_reject"] == ["second_note"]
    readings = overhear(driver, *talk("07", "F0 EC"), *talk("07", "F0"))
    assert not [r for r in readings if r.point == "acceptor.last_reject"]


def test_values_of_a_payout_unit_are_passed_over_by_their_length() -> None:
    value, paid = "F4 01 00 00 45 55 52", "F4 01 00 00 E8 03 00 00 45 55 52"
    for version, unit, events in (
        (8, 6, f"DA 01 {value} DC 01 {paid} B1 01 {value} 00 C9 {value} CE {value} E6 02 {value} {value}"),
        (6, 6, f"D2 02 {value} {value} CD {value} CA B1 00 E6 01 {value}"),
        (5, 6, "D2 F4 01 00 00 DD F4 01 00 00 E8 03 00 00 C9 E6 F4 01 00 00"),
        (8, 0, "E6 03 EF 01 E2 02"),
    ):
        setup = f"F0 {unit:02X}" + "30 31 30 30 45 55 52 00 00 01 01 05 02 00 00 64" + f"{version:02X}"
        talk = Talk()
        known = talk(f"06 {version:02X}", "F0") + talk("05", setup)
        readings = overhear(tap(), *known, *talk("07", f"F0 {events} EE 01"))
        assert total(readings, "acceptor.channel.1.accepted") == 1, (version, unit)
        assert total(readings, "acceptor.frauds") == (0 if "E6" not in events else 1)
        if version == 8 and unit == 6:  # a tap that does not know version and unit does not guess
            guess = overhear(tap(), *talk("07", f"F0 {events} EE 01"))
            assert total(guess, "acceptor.channel.1.accepted") == 0


def test_a_tap_knows_what_the_host_asks_and_nothing_of_another_address() -> None:
    talk = Talk()
    exchanges = (
        *talk("0A", "F0"),
        *talk("17", "F0 13"),
        *talk("0C", "F0 00 00 00 2A"),
        *talk("07", "F0 E6 01", address=0x10),
        *talk("07", "F0"),
    )
    readings = overhear(tap(), *exchanges)
    said = {r.point: r.value for r in readings}
    assert said["acceptor.enabled"] == "yes"
    assert said["acceptor.last_reject"] == "escrow_timeout"
    assert said["device.serial"] == "42"
    assert total(readings, "acceptor.frauds") == 0


def test_a_tap_is_silent_after_its_quiet_time_also_when_the_host_goes_on_asking() -> None:
    driver, talk = tap(AcceptorOptions(quiet=10.0)), Talk()
    overhear(driver, *talk("07", "F0"))
    states = []
    for step in range(400):
        now = 1000.0 + step * 0.05
        if step % 20 == 0:
            overhear(driver, seal(0, True, b"\x07"), now=now)
        states += [(r.value, now) for r in driver.tick(now) if isinstance(r, Reading) and r.point == "link.state"]
    assert states[0][0] == "silent"
    assert states[0][1] == pytest.approx(1010.0, abs=0.1)


def test_a_tap_that_hears_only_encrypted_frames_says_so() -> None:
    driver = tap()
    driver.tick(1000.0)
    for step in range(30):
        overhear(driver, seal(0, bool(step & 2), b"\x7e" + bytes(16)), now=1000.0 + step * 0.5)
    (state,) = [r for r in driver.tick(1015.0) if isinstance(r, Reading) and r.point == "link.state"]
    assert state.value == "rubbish"
    assert "encrypted" in state.raw


def test_a_tap_refuses_every_operation_and_writes_nothing() -> None:
    driver = tap()
    for verb in driver.operations:
        driver.perform(Operation(verb, "acceptor1", verb, "someone"), 1000.0)
    outcomes = [item for item in driver.tick(1000.0) if isinstance(item, Outcome)]
    assert [o.result for o in outcomes] == ["refused"] * 3
    assert "listen" in outcomes[0].detail
    assert driver.outgoing() == b""


def test_a_transcript_tells_what_was_said_and_shows_no_keys_and_no_tickets() -> None:
    driver, talk = tap(), Talk()
    driver.transcript.on = True
    overhear(
        driver, *talk("07", "F0 EE 01 EB"), *talk("4A 11 22 33 44 55 66 77 88", "F0"), *talk("27", "F0 01 02 39 38")
    )
    text = "\n".join(driver.transcript.read())
    assert "7F 00 04 F0 EE 01 EB" in text
    assert "credit 1, stacked" in text
    assert "command 4A" in text
    assert "11 22 33" not in text
    assert "39 38" not in text


def traffic(seed: int) -> tuple[list[bytes], SimulatedDevice]:
    """What both directions say while a host polls and notes come; and the unit that took them."""
    rng, device, now, flag = Random(seed), DEVICES["acceptor"](), 1000.0, True
    said: list[bytes] = []
    for step, command in enumerate([b"\x02\xff\xff", b"\x0a"] + [b"\x07"] * 60):
        if step % 8 == 4:
            change_setting(device, "insert", str(rng.randint(1, 5)))
        now += 0.3
        device.tick(now)
        flag = not flag
        asked = seal(0, flag, command)
        said += [asked, device.receive(asked)]
    return said, device


@given(seed=st.integers(0, 2**32), shape=st.sampled_from(SHAPES), merged=st.booleans())
@settings(max_examples=60, deadline=None)
def test_damage_on_the_tap_never_counts_a_note_that_did_not_come(seed: int, shape: str, merged: bool) -> None:
    rng = Random(seed)
    said, device = traffic(seed)
    counted = [f"acceptor.channel.{n}.accepted" for n in range(1, 6)] + ["acceptor.rejected"]
    clean = overhear(tap(), *said)
    moved = sum(total(clean, point) for point in counted)
    assert moved == vars(device)["stacked"] + vars(device)["rejected"] > 4
    victim = rng.randrange(len(said))
    wounded = [*said[:victim], hurt(said[victim], rng, shape), *said[victim + 1 :]]
    damaged = overhear(tap(), *([b"".join(wounded)] if merged else wounded))
    words = {(r.point, r.value) for r in damaged if lookup(r.point).kind != "measure"}
    assert words <= {(r.point, r.value) for r in clean}, "a false reading"
    assert moved - 2 <= sum(total(damaged, point) for point in counted) <= moved
