"""The acceptor driver as master of the simulated acceptor. test_acceptor_tap.py: from a tap."""

import pytest

from agent.drivers.acceptor import Acceptor, AcceptorOptions
from agent.drivers.framing import Deframer
from agent.drivers.ssp import LIMIT, measure, seal
from agent.model import Outcome, Reading
from hwsim import DEVICES
from tests.virtual import Bench, perform, prepare, stays, total, values, wires

WIRES = wires()
TAKING = AcceptorOptions(accept=True)


def bench(seed: int = 0, options: AcceptorOptions = TAKING, **changes: object) -> Bench:
    at = Bench(Acceptor(options), DEVICES["acceptor"](), seed)
    prepare(at.device, **changes)
    return at


@pytest.mark.parametrize("wire", WIRES)
def test_every_point_is_fresh_and_true_on_a_bad_wire(wire: str) -> None:
    at = bench(stacked=17, rejected=3, serial=42)
    at.run(10)
    at.faults(**WIRES[wire])
    truth = {
        "acceptor.state": "ok",
        "acceptor.enabled": "yes",
        "acceptor.jam": "none",
        "acceptor.path": "closed",
        "acceptor.fraud": "none",
        "acceptor.last_reject": "accepted",
        "acceptor.channel.2.accepted": 0,
        "acceptor.rejected": 0,
        "acceptor.frauds": 0,
        "acceptor.counter.stacked": 17,
        "cashbox.state": "ok",
    }
    stays(at, truth, quarters=20)
    identity = {"device.serial": "42", "acceptor.channel.2.note": "10 EUR", "device.model": "note validator"}
    for point, value in identity.items():
        assert set(values(at.readings, point)) == {value}, point


@pytest.mark.parametrize("wire", WIRES)
def test_every_note_counts_exactly_once_on_a_bad_wire(wire: str) -> None:
    """A reply that was damaged is asked for again with the same flag: the unit says its events again, and once."""
    for seed in range(5):
        at = bench(seed)
        at.run(5)
        at.faults(**WIRES[wire])
        for n in range(12):
            prepare(at.device, insert=2 if n % 3 else 9)
            at.run(9)
            prepare(at.device, cheat=1)
            at.run(9)
        at.faults()
        at.run(25)
        device = vars(at.device)
        assert total(at.readings, "acceptor.channel.2.accepted") == device["stacked"] == 8
        assert total(at.readings, "acceptor.rejected") == device["rejected"] == 4
        assert total(at.readings, "acceptor.frauds") == 12


def test_a_late_reply_that_was_repeated_is_not_the_reply_to_the_next_question() -> None:
    at = bench()
    at.run(5)
    at.faults(delay=0.8)
    at.run(10)
    prepare(at.device, insert=1)
    at.run(20)
    assert total(at.readings, "acceptor.channel.1.accepted") == 1
    assert "silent" not in values(at.readings, "link.state")


def test_a_note_after_a_long_cut_counts_once() -> None:
    for phase in range(4):
        at = bench()
        at.run(10 + phase * 0.3)
        at.faults(cut=True)
        at.run(75)
        at.faults()
        at.run(3)
        prepare(at.device, insert=3)
        at.run(10)
        assert total(at.readings, "acceptor.channel.3.accepted") == 1


def test_events_of_a_short_cut_are_not_lost() -> None:
    at = bench()
    at.run(5)
    prepare(at.device, insert=1)
    at.run(1.6)
    at.faults(cut=True)
    at.run(12)
    at.faults()
    at.run(10)
    assert total(at.readings, "acceptor.channel.1.accepted") == 1


def test_the_highest_version_that_the_unit_knows_is_taken_and_none_below_the_floor() -> None:
    for known, floor, wanted in ((8, 4, 8), (6, 4, 6), (3, 5, 6)):
        at = bench(options=AcceptorOptions(floor=floor), protocol=known)
        at.run(10)
        assert vars(at.device)["version"] == wanted
        assert at.value("acceptor.state") == "ok"


def test_a_full_stacker_is_latched_until_the_cashbox_comes_back() -> None:
    at = bench()
    at.run(5)
    prepare(at.device, stacker="full")
    at.run(60)
    full = [r for r in at.readings if (r.point, r.value) == ("cashbox.state", "full")]
    assert len(full) > 100
    assert full[0].raw == "E7 stacker full"
    assert at.value("acceptor.state") == "stop"
    prepare(at.device, cashbox="out")
    at.run(3)
    assert at.value("cashbox.state") == "missing"
    prepare(at.device, cashbox="in")
    at.run(3)
    assert (at.value("cashbox.state"), at.value("acceptor.state")) == ("ok", "ok")


def test_a_full_stacker_is_forgotten_when_a_note_is_stacked_or_the_unit_restarts() -> None:
    for cause in ({"insert": 1}, {"power": "off"}):
        at = bench()
        at.run(5)
        prepare(at.device, stacker="full")
        at.run(3)
        assert at.value("cashbox.state") == "full"
        prepare(at.device, stacker="ok", **cause)
        at.run(3)
        prepare(at.device, power="on")
        at.run(10)
        last = [r for r in at.readings if r.point == "cashbox.state"][-1]
        assert (last.value, last.inferred) == ("ok", True), cause


def test_nothing_is_said_of_the_cashbox_before_the_unit_has_said_something() -> None:
    device = DEVICES["acceptor"]()
    first = Bench(Acceptor(TAKING), device)
    first.run(5)
    again = Bench(Acceptor(TAKING), device)
    again.run(30)
    assert again.value("cashbox.state") is None
    assert again.value("acceptor.state") == "ok"


def test_jams_and_the_open_path_come_and_go() -> None:
    at = bench()
    at.run(5)
    for change, point, word in (
        ({"jam": "unsafe"}, "acceptor.jam", "unsafe"),
        ({"jam": "none"}, "acceptor.jam", "none"),
        ({"path": "open"}, "acceptor.path", "open"),
        ({"path": "closed"}, "acceptor.path", "closed"),
        ({"jam": "safe"}, "acceptor.jam", "safe"),
    ):
        prepare(at.device, **change)
        at.run(5)
        assert at.value(point) == word
        assert at.value("acceptor.state") == ("ok" if word in ("none", "closed") else "stop")
    prepare(at.device, jam="none", insert=1)  # a unit that says EA once does not say that it is over
    at.run(5)
    assert at.value("acceptor.jam") == "none"


def test_a_safe_jam_that_is_said_at_every_poll_ends_with_it() -> None:
    at = bench(repeat="EA")
    at.run(5)
    prepare(at.device, jam="safe")
    at.run(5)
    assert at.value("acceptor.jam") == "safe"
    prepare(at.device, jam="none")
    at.run(2)
    assert at.value("acceptor.jam") == "none"


def test_a_fraud_attempt_counts_once_and_is_shown_for_a_minute() -> None:
    at = bench(repeat="E6")
    at.run(5)
    prepare(at.device, cheat=2)
    at.run(50)
    assert at.value("acceptor.fraud") == "attempt"
    assert at.value("acceptor.state") == "attention"
    at.run(15)
    assert (at.value("acceptor.fraud"), at.value("acceptor.state")) == ("none", "ok")
    assert total(at.readings, "acceptor.frauds") == 1


def test_a_rejected_note_has_its_reason() -> None:
    at = bench()
    at.run(5)
    for code, word in (("07", "second_note"), ("1F", "credit_card"), ("0F", "vendor.0F")):
        prepare(at.device, reject=code)
        at.run(5)
        last = [r for r in at.readings if r.point == "acceptor.last_reject"][-1]
        assert (last.value, last.raw) == (word, code)
    assert total(at.readings, "acceptor.rejected") == 3


def test_an_unknown_event_is_named_and_the_rest_of_that_reply_is_not_guessed_at() -> None:
    at = bench()
    at.run(5)
    prepare(at.device, event="A7 EE 01 E7")
    readings = at.run(1)
    assert "vendor.A7" in values(readings, "acceptor.state")
    assert total(at.readings, "acceptor.channel.1.accepted") == 0
    prepare(at.device, jam="unsafe")
    at.run(5)
    prepare(at.device, event="A7")
    assert set(values(at.run(1), "acceptor.jam")) == {"unsafe"}


def test_the_agent_takes_notes_only_when_it_is_told_to() -> None:
    at = bench(options=AcceptorOptions(), enabled="yes")
    at.run(5)
    assert vars(at.device)["enabled"] == "no"
    assert at.value("acceptor.enabled") == "no"
    perform(at, "enable")
    at.run(5)
    prepare(at.device, insert=4)
    at.run(10)
    assert total(at.readings, "acceptor.channel.4.accepted") == 1
    perform(at, "disable")
    at.run(15)
    assert (vars(at.device)["enabled"], at.value("acceptor.enabled")) == ("no", "no")
    assert [o.result for o in at.outcomes] == ["done", "done"]


@pytest.mark.parametrize("seconds", [5, 30])
def test_an_acceptor_that_was_off_takes_notes_again_with_the_same_version(seconds: int) -> None:
    at = bench()
    at.run(5)
    prepare(at.device, power="off")
    at.run(seconds)
    assert at.value("link.state") == "silent"
    prepare(at.device, power="on")
    at.run(5)
    device = vars(at.device)
    assert (at.value("acceptor.enabled"), device["enabled"], device["version"]) == ("yes", "yes", 8)
    assert device["inhibits"] == 0xFFFF


def test_a_command_is_said_21_times_with_its_flag_and_then_the_agent_begins_with_sync() -> None:
    driver, now, sent = Acceptor(TAKING), 1000.0, list[bytes]()
    while len(sent) < 30:
        now += 0.05
        driver.tick(now)
        if asked := driver.outgoing():
            sent.append(asked)
            if asked[3] != 0x07:
                driver.receive(seal(0, bool(asked[1] & 0x80), b"\xf0"), now)
    first = next(n for n, frame in enumerate(sent) if frame[3] == 0x07)
    assert set(sent[first : first + 21]) == {sent[first]}
    assert sent[first + 21 : first + 23] == [seal(0, True, b"\x11"), seal(0, False, b"\x06\x08")]


def test_a_good_frame_right_after_a_torn_one_is_not_waited_for() -> None:
    torn, good = seal(0, True, b"\xf0" + bytes(100))[:20], seal(0, True, b"\xf0")
    assert Deframer(measure, LIMIT).feed(torn + good, 0.0) == [good]


def test_enable_fails_with_the_units_own_reason() -> None:
    at = bench(options=AcceptorOptions())
    at.run(5)
    prepare(at.device, jam="unsafe")
    perform(at, "enable")
    at.run(5)
    (outcome,) = at.outcomes
    assert (outcome.result, outcome.raw) == ("failed", "F5")
    assert "cannot be done now" in outcome.detail
    prepare(at.device, jam="none")
    at.run(30)
    assert at.value("acceptor.enabled") == "no", "what failed must not happen later by itself"


def test_a_reset_is_said_once_and_is_done_also_when_its_reply_is_lost() -> None:
    for lost in (False, True):
        at = bench()
        at.run(5)
        perform(at, "reset")
        at.to_host.faults.cut = lost
        at.run(0.5)
        at.to_host.faults.cut = False
        readings = at.run(20)
        assert [(o.result, o.raw) for o in at.outcomes] == [("done", "F1" if lost else "F0")]
        assert "silent" not in values(readings, "link.state")
        assert at.value("acceptor.enabled") == "yes"


def test_a_unit_that_speaks_only_encrypted_says_so() -> None:
    driver, now, items = Acceptor(AcceptorOptions()), 1000.0, list[Reading | Outcome]()
    for _ in range(100):
        now += 0.05
        items += driver.tick(now)
        if asked := driver.outgoing():
            items += driver.receive(seal(0, bool(asked[1] & 0x80), b"\xfa" if asked[3] == 0x07 else b"\xf0"), now)
    states = [i for i in items if isinstance(i, Reading) and i.point == "acceptor.state"]
    assert (states[0].value, states[0].raw) == ("vendor.FA", "FA key not set: it speaks only encrypted")
