"""The NUT driver: golden lines, and with a simulated server, over lines that bring messages whole, late, or not."""

from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from agent.drivers.framing import record
from agent.drivers.nut import LIMIT, Nut, NutLineOptions, NutOptions
from agent.drivers.nut_names import understood
from agent.model import Heard, Operation, Outcome, Reading
from agent.points import lookup
from hwsim import change_setting
from hwsim.nut import Nut as Server
from hwsim.wires import SHAPES, hurt
from tests import golden
from tests.shared import Alone, Caller, SharedBench
from tests.test_drivers import check

WIRES: dict[str, dict[str, float]] = {
    "good": {},
    "bytewise": {"chunk": 1, "gap": 0.0005},
    "merged": {"merge": 0.3},
    "late": {"delay": 0.8},
}
LIST = b'BEGIN LIST VAR ups0\nVAR ups0 ups.status "OB LB"\nVAR ups0 ups.load "14"\nEND LIST VAR ups0\n'


def client(**devices: str) -> Nut:
    named = devices or {"ups1": "ups0"}
    return Nut(NutLineOptions(), {name: NutOptions(ups) for name, ups in named.items()})


def bench(**devices: str) -> tuple[SharedBench, Server]:
    server = Server()
    return SharedBench(client(**devices), Caller(server)), server


def seen(heard: list[Heard], point: str) -> list[object]:
    return [i.value for h in heard for i in h.items if isinstance(i, Reading) and i.point == point]


def checked(heard: list[Heard]) -> list[Heard]:
    check([item for one in heard for item in one.items])
    return heard


def asked(driver: Nut, wanted: bytes, now: float = 1000.0) -> tuple[float, list[Heard]]:
    """Let time pass until the driver asks this; nobody answers the rest."""
    heard: list[Heard] = []
    while driver.outgoing() != wanted:
        now += 0.05
        heard += driver.tick(now)
        assert now < 1060.0
    return now, heard


@pytest.mark.parametrize("case", list(golden.for_driver("nut")), ids=lambda case: case.name)
def test_golden_lines(case: golden.Case) -> None:
    golden.check_driver(case, Alone(client()))  # type: ignore[arg-type]


# ---- what the flags mean


@pytest.mark.parametrize(
    ("flags", "point", "word"),
    [
        ("OL", "mains", "ok"),
        ("OB DISCHRG", "mains", "lost"),
        ("OB LB", "battery", "low"),
        ("OL RB", "battery", "replace"),
        ("OB LB RB", "battery", "low"),
        ("OL HB CHRG", "battery", "ok"),
        ("OL CHRG", "ups.state", "ok"),
        ("OL OVER", "ups.state", "overload"),
        ("OL OFF", "ups.state", "off"),
        ("ALARM OL", "ups.state", "failed"),
        ("OL ECO", "ups.state", "vendor.ECO"),
        ("OL ECO OVER", "ups.state", "overload"),
        ("OL BYPASS", "ups.bypass", "active"),
        ("OL TRIM", "ups.bypass", "active"),
        ("OL BOOST", "ups.bypass", "active"),
        ("OL", "ups.bypass", "off"),
        ("OL CAL", "ups.selftest", "running"),
        ("FSD OB LB", "ups.shutdown", "active"),
        ("OL", "ups.shutdown", "inactive"),
    ],
)
def test_each_flag_is_one_word_and_its_own_words_travel_beside(flags: str, point: str, word: str) -> None:
    [reading] = [r for r in understood({"ups.status": flags}, 1.0) if r.point == point]
    assert reading.value == word
    assert reading.raw == f"ups.status {flags}"
    check([reading])


def test_a_calibration_on_battery_does_not_say_that_the_mains_are_lost() -> None:
    points = [r.point for r in understood({"ups.status": "OB CAL"}, 1.0)]
    assert "mains" not in points
    assert "battery" in points


def test_the_text_of_an_alarm_and_the_result_of_a_test_are_told() -> None:
    said = understood(
        {"ups.status": "ALARM OL", "ups.alarm": "Fan failure!", "ups.test.result": "Done and error"}, 1.0
    )
    assert [r.raw for r in said if r.point == "ups.state"] == ["ups.status ALARM OL; Fan failure!"]
    assert [(r.value, r.raw) for r in said if r.point == "ups.selftest"] == [
        ("failed", "ups.test.result Done and error")
    ]
    [odd] = [r for r in understood({"ups.status": "OL", "ups.test.result": "so so"}, 1.0) if "test" in r.point]
    assert odd.value == "vendor.so_so"


def test_what_is_no_number_is_no_reading() -> None:
    said = understood(
        {"ups.load": "1,2", "battery.charge": "", "input.voltage": "1e3", "ups.temperature": "-4"}, 1.0
    )
    assert [(r.point, r.value) for r in said] == [("temperature", -4.0)]
    for text in ("9" * 400, "1" * 10, "1." + "1" * 7, "\u0662\u0663\u0660", "1.\uff15", "+1", "1.", "nan"):
        assert understood({"ups.load": text}, 1.0) == [], text
    [reading] = understood({"ups.load": "123456789.123456"}, 1.0)
    assert reading.value == 123456789.123456


# ---- with the simulated server


@pytest.mark.parametrize("wire", WIRES)
def test_every_point_is_fresh_and_a_mains_failure_is_seen(wire: str) -> None:
    at, server = bench()
    at.faults(**WIRES[wire])
    at.run(10)
    for _ in range(4):
        begun = at.now
        at.run(15)
        for point in ("mains", "battery", "ups.state", "output.load", "device.serial", "link.state"):
            assert at.of("ups1", point, begun), f"{point} became stale"
    change_setting(server, "status", "OB LB")
    begun = at.now
    at.run(6)
    assert at.of("ups1", "mains", begun)[-1] == "lost"
    assert at.of("ups1", "battery", begun)[-1] == "low"
    assert set(at.of("ups1", "link.state")) == {"up"}
    check([*at.readings])


def test_the_agent_never_logs_in() -> None:
    at, server = bench()
    sent = b""
    for _ in range(600):
        at.now += 0.05
        at.driver.tick(at.now)
        asking = at.driver.outgoing()
        sent += asking
        at.driver.receive(at.device.receive(asking), at.now)
    assert server.logins == 0
    assert {line.split()[0] for line in sent.splitlines()} == {b"LIST"}


@pytest.mark.parametrize(
    ("setting", "word", "hint"), [("stale", "yes", "cable"), ("driver", "lost", "upsdrvctl start")]
)
def test_what_nut_has_lost_is_stale_and_nothing_else_is_said(setting: str, word: str, hint: str) -> None:
    at, server = bench()
    at.run(5)
    change_setting(server, setting, word)
    at.run(3)
    begun = at.now
    at.run(30)
    assert set(at.of("ups1", "link.state", begun)) == {"stale"}
    assert hint in at.last("ups1", "link.state").raw
    assert {r.point for r in at.readings if r.at >= begun} <= {"link.state", "link.bad_frames"}
    times = [r.at for r in at.readings if r.point == "link.state"]
    assert max(b - a for a, b in pairwise(times)) < lookup("link.state").max_age
    change_setting(server, setting, "no" if setting == "stale" else "connected")
    at.run(3)
    assert at.last("ups1", "link.state").value == "up"


def test_a_ups_that_the_server_does_not_have_is_unusable_and_the_names_are_told() -> None:
    at, server = bench(ups1="ups9", ups2="ups0")
    at.run(10)
    wrong = at.last("ups1", "link.state")
    assert wrong.value == "unusable"
    assert "has no UPS ups9; it has ups0" in wrong.raw
    assert set(at.of("ups2", "link.state")) == {"up"}
    assert at.of("ups1", "mains") == []
    change_setting(server, "name", "ups7")
    at.run(10)
    assert "it has ups7" in at.last("ups1", "link.state").raw


def test_a_variable_of_another_ups_or_outside_of_its_list_is_not_taken() -> None:
    driver = client()
    other = LIST.replace(b"\nVAR ups0 ups.status", b"\nVAR ups1 ups.status")
    heard = driver.receive(b'VAR ups0 ups.status "OB"\n' + other, 1000.0)
    assert seen(heard, "output.load") == [14.0]
    assert seen(heard, "mains") == []


def test_an_error_belongs_to_the_oldest_question_also_when_it_comes_late() -> None:
    driver = client(ups1="ups0", ups2="ups9")
    now, _ = asked(driver, b"LIST VAR ups0\n")
    now, _ = asked(driver, b"LIST VAR ups9\n", now)  # ups0 was not answered in its time
    driver.receive(b"BEGIN LIST UPS\nEND LIST UPS\n", now)
    [late] = driver.receive(b"ERR DATA-STALE\n", now)
    driver.tick(now + 2.1)
    assert driver.outgoing() == b"", "ups9 has still time to be answered"
    [other] = driver.receive(b"ERR UNKNOWN-UPS\n", now)
    assert (late.device, seen([late], "link.state")) == ("ups1", ["stale"])
    assert (other.device, seen([other], "link.state")) == ("ups2", ["unusable"])


def test_a_driver_that_has_told_nothing_yet_is_stale_and_no_battery_is_well() -> None:
    [heard] = client().receive(LIST.replace(b"OB LB", b"WAIT"), 1000.0)
    assert [(i.point, i.value) for i in heard.items if isinstance(i, Reading)] == [("link.state", "stale")]
    assert {r.point for r in understood({"ups.status": "", "ups.load": "1"}, 1.0)} == {"output.load"}


def test_other_errors_are_told_in_words() -> None:
    driver = client()
    now, _ = asked(driver, b"LIST VAR ups0\n")
    driver.receive(b"BEGIN LIST UPS\nEND LIST UPS\n", now)
    [denied] = driver.receive(b"ERR ACCESS-DENIED\n", now)
    assert seen([denied], "link.state") == ["denied"]
    now, _ = asked(driver, b"LIST VAR ups0\n", now)
    [odd] = driver.receive(b"ERR TOO-LONG\n", now)
    assert seen([odd], "link.state") == ["rubbish"]
    check([*denied.items, *odd.items])


@pytest.mark.parametrize("how", ["cut", "no answers"])
def test_a_server_that_does_not_answer_is_silent_for_all_its_devices_in_time(how: str) -> None:
    at, server = bench(ups1="ups0", ups2="ups1")
    at.run(5)
    at.faults(cut=how == "cut")
    change_setting(server, "answers", "no")
    begun = at.now
    at.run(60)
    for device in ("ups1", "ups2"):
        times = [r.at for name, r in at._of if (name, r.point, r.value) == (device, "link.state", "silent")]
        assert times[0] - begun <= 15.0
        assert max(b - a for a, b in pairwise(times)) < lookup("link.state").max_age
    assert "restart upsd" in at.last("ups1", "link.state").raw
    at.faults()
    change_setting(server, "answers", "yes")
    at.run(6)
    assert at.last("ups1", "link.state").value == "up"


def test_what_is_no_nut_server_is_rubbish() -> None:
    driver, now, states = client(), 1000.0, []
    for step in range(400):
        now += 0.05
        heard = driver.tick(now)
        driver.outgoing()
        if step % 10 == 0:
            heard += driver.receive(b"HTTP/1.1 400 Bad Request\r\n\r\n", now)
        states += [i for h in checked(heard) for i in h.items if isinstance(i, Reading) and i.point == "link.state"]
    assert {state.value for state in states} == {"rubbish"}
    assert states[0].at - 1000.0 <= 15.0
    assert "3493" in states[0].raw


# ---- damage


@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_any_slicing_gives_the_same_readings(data: st.DataObject) -> None:
    lines = [*LIST.splitlines(keepends=True), LIST, b"ERR DATA-STALE\n", b"ERR UNKNOWN-UPS\n", b"OK\n"]
    pieces = data.draw(st.lists(st.sampled_from(lines) | st.binary(max_size=12), max_size=12))
    rng = Random(data.draw(st.integers(0, 2**32)))
    pieces = [hurt(piece, rng) if piece and rng.random() < 0.3 else piece for piece in pieces]
    whole, sliced, now = client(), client(), 1000.0
    for piece in pieces:
        now += data.draw(st.sampled_from((0.05, 0.6, 2.1, 3.1)))
        assert whole.tick(now) == sliced.tick(now)
        assert whole.outgoing() == sliced.outgoing()
        wanted = checked(whole.receive(piece, now))
        cuts = sorted(rng.randint(0, len(piece)) for _ in range(3))
        slices = zip([0, *cuts], [*cuts, len(piece)], strict=True)
        assert [h for a, b in slices for h in sliced.receive(piece[a:b], now)] == wanted


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_damage_costs_the_damaged_list_and_at_most_the_next(data: st.DataObject) -> None:
    damaged = hurt(LIST, Random(data.draw(st.integers(0, 2**32))), data.draw(st.sampled_from(SHAPES)))
    if data.draw(st.booleans()):
        damaged = LIST[: data.draw(st.integers(1, len(LIST) - 1))]
    driver = client()
    heard = checked(driver.receive(LIST * 2 + damaged + LIST * 2, 1000.0))
    assert seen(heard, "mains").count("lost") >= 3
    assert seen(heard, "mains")[-1] == "lost"
    assert seen(heard, "link.state")[-1] == "up"


def test_a_line_that_is_none_is_counted_and_costs_nothing_else() -> None:
    driver = client()
    torn = LIST.replace(b'ups.load "14"', b'ups.load "14').replace(b"\nEND", b"\n\xff\xfe\nWHAT now\nEND")
    assert seen(driver.receive(torn, 1000.0), "mains") == ["lost"]
    assert seen(driver.tick(1000.0), "link.bad_frames") == [3]


def test_babble_for_ever_fills_no_buffer_and_the_next_list_is_read() -> None:
    driver, rng = client(), Random(1)
    for step in range(300):
        checked(driver.receive(rng.randbytes(5000).replace(b"\n", b"x"), 1000.0 + step * 0.1))
        assert vars(driver)["_deframer"].kept <= LIMIT
    many = b"".join(b'VAR ups0 x%d "%d"\n' % (n, n) for n in range(5000))
    driver.receive(b"\nBEGIN LIST VAR ups0\n" + many, 1100.0)
    assert vars(driver)["_values"] == {}
    driver.receive(b"BEGIN LIST UPS\n" + many.replace(b"VAR ups0", b"UPS"), 1100.0)
    assert len(vars(driver)["_values"]) <= 50
    assert seen(driver.receive(LIST, 1100.0), "mains") == ["lost"]
    assert seen(driver.tick(1100.0), "link.bad_frames") == [1], "one endless line is one"


# ---- the rest of the contract


def test_an_operation_is_refused_and_says_who_can_do_it() -> None:
    driver = client()
    driver.perform(Operation("op-1", "ups1", "self_test", "someone"), 1000.0)
    ended = [i for h in driver.tick(1000.0) + driver.tick(1001.0) for i in h.items if isinstance(i, Outcome)]
    assert [(o.operation, o.result) for o in ended] == [("op-1", "refused")]
    assert "upscmd" in ended[0].detail


def test_the_transcript_is_kept_for_who_asks_for_it() -> None:
    driver = client()
    driver.receive(LIST, 1000.0)
    assert driver.transcript.read() == []
    driver.transcript.on = True
    asked(driver, b"LIST VAR ups0\n")
    driver.receive(LIST, 1000.0)
    said = driver.transcript.read()
    assert said[:2] == ["> LIST UPS", "> LIST VAR ups0"]
    assert "< VAR ups0 ups.status OB LB" in said


def test_each_missing_access_has_its_reason() -> None:
    assert Nut.access == {"service"}
    assert Nut.why_not.keys() == {"own", "listen"}


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({}, "ups"),
        ({"ups": "a b"}, "ups must be a name"),
        ({"ups": "x\nLOGIN x"}, "ups must be a name"),
        ({"ups": "ups0", "poll": 0}, "poll must be"),
        ({"ups": "ups0", "poll": 100}, "poll must be"),
        ({"ups": "ups0", "polll": 1}, "unexpected"),
    ],
)
def test_a_mistake_in_the_table_is_one_sentence(table: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        TypeAdapter(NutOptions).validate_python(table)


def test_one_ups_is_one_device_and_the_timeout_has_its_limits() -> None:
    with pytest.raises(ValueError, match="a and b are both ups0"):
        client(a="ups0", b="ups0")
    with pytest.raises(ValueError, match="timeout must be"):
        NutLineOptions(timeout=10)


def test_the_simulated_server_keeps_its_clients_apart_and_bounds_a_line() -> None:
    server = Server()
    said = server.receive(
        record("t", "1", b"LIST V") + record("t", "2", b"VER\n") + record("t", "1", b"AR nosuch\n")
    )
    assert said == record("t", "2", b"Network UPS Tools upsd 2.8.0 - simulated\n") + record(
        "t", "1", b"ERR UNKNOWN-UPS\n"
    )
    server.receive(record("t", "1", b"x" * 100_000))
    assert len(vars(server)["_lines"]["1"]) <= 1024
    server.receive(record("c", "1"))
    assert "1" not in vars(server)["_lines"]
    assert server.receive(record("t", "2", b"LOGOUT\n")) == record("t", "2", b"OK Goodbye\n") + record("c", "2")
