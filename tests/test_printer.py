"""The printer driver with the simulated printer over good and bad wires."""

import pytest

from agent.drivers.printer import Printer, PrinterOptions
from agent.model import Reading
from agent.points import lookup
from hwsim import DEVICES, change_setting
from tests.virtual import Bench, perform, values, wires

WIRES = wires(merge=0.3, late=0.8, later=None)
STEADY = {
    "printer.state": "online",
    "printer.cover": "closed",
    "printer.error": "ok",
    "paper.receipt": "full",
}


def bench(seed: int = 0, options: PrinterOptions | None = None) -> Bench:
    return Bench(Printer(options or PrinterOptions()), DEVICES["printer"](), seed)


@pytest.mark.parametrize("wire", WIRES)
def test_every_point_is_fresh_and_true_on_a_bad_wire(wire: str) -> None:
    """On a damaged wire a pushed status may be wrong for a moment; a word that lasts is true."""
    at = bench()
    at.run(10)
    at.faults(**WIRES[wire])
    said = wrong = 0
    for _ in range(8):
        readings = at.run(15)
        for point, word in STEADY.items():
            assert values(readings, point), f"{point} became stale"
            said += len(values(readings, point))
            wrong += len([v for v in values(readings, point) if v != word])
        assert values(readings, "link.state")
    assert wrong <= (0 if wire in ("good", "bytewise", "merged", "late") else said * 0.02)
    at.faults()
    at.run(10)
    assert {point: at.value(point) for point in STEADY} == STEADY


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("asb", [True, False])
def test_a_paper_end_is_seen(wire: str, asb: bool) -> None:
    at = bench(options=PrinterOptions(asb=asb))
    at.run(10)
    at.faults(**WIRES[wire])
    at.run(5)
    change_setting(at.device, "paper", "out")
    begun = at.now
    readings = at.run(25)
    out = [r.at - begun for r in readings if (r.point, r.value) == ("paper.receipt", "out")]
    assert out[0] <= (0.2 if asb and wire == "good" else 5.0 if wire == "good" else 15.0)
    assert at.value("printer.state") == "offline"
    change_setting(at.device, "paper", "full")
    assert values(at.run(25), "paper.receipt")[-1] == "full"


def test_the_journal_has_a_point_of_its_own() -> None:
    at = bench(options=PrinterOptions(paper="journal"))
    change_setting(at.device, "paper", "low")
    readings = at.run(5)
    assert set(values(readings, "paper.journal")) == {"low"}
    assert values(readings, "paper.receipt") == []


def test_a_printer_that_was_switched_off_pushes_again_when_it_is_back() -> None:
    at = bench()
    at.run(10)
    change_setting(at.device, "power", "off")
    at.run(20)
    assert at.value("link.state") == "silent"
    change_setting(at.device, "power", "on")
    at.run(8)
    change_setting(at.device, "paper", "out")
    assert "out" in values(at.run(0.2), "paper.receipt")


def test_a_printer_that_was_switched_off_for_a_moment_pushes_again_within_its_minute() -> None:
    at = bench()
    at.run(10)
    change_setting(at.device, "power", "off")
    at.run(0.2)
    change_setting(at.device, "power", "on")
    at.run(62)
    change_setting(at.device, "paper", "low")
    assert "low" in values(at.run(0.2), "paper.receipt")


def test_a_printer_that_says_nothing_while_its_cover_is_open_comes_back_when_it_is_closed() -> None:
    at = bench()
    change_setting(at.device, "answers_with_cover_open", "no")
    at.run(10)
    change_setting(at.device, "cover", "open")
    at.run(15)
    assert at.value("link.state") == "silent"
    change_setting(at.device, "cover", "closed")
    assert values(at.run(5), "printer.cover")[-1:] == ["closed"]
    assert at.value("link.state") == "up"


def test_identity_is_read_and_kept_fresh() -> None:
    at = bench()
    wanted = {"device.maker", "device.model", "device.serial", "device.firmware"}
    for _ in range(4):
        assert wanted <= {r.point for r in at.run(lookup("device.serial").max_age / 2)}


def test_queued_commands_are_not_piled_up_while_the_printer_is_offline() -> None:
    driver = Printer(PrinterOptions())
    driver.receive(bytes.fromhex("38 00 00 00"), 1000.0)
    sent = b""
    for step in range(4000):
        now = 1000.0 + step * 0.05
        driver.tick(now)
        sent += driver.outgoing()
    assert b"\x10\x04\x02" in sent
    assert b"\x1d" not in sent


@pytest.mark.parametrize("verb", ["retry", "clear"])
def test_recovery_is_for_cutter_and_mechanical_errors(verb: str) -> None:
    at = bench()
    at.run(5)
    perform(at, verb)
    at.run(1)
    change_setting(at.device, "error", "unrecoverable")
    at.run(5)
    perform(at, verb)
    at.run(1)
    assert [o.result for o in at.outcomes] == ["refused", "refused"]
    change_setting(at.device, "error", "cutter")
    at.run(5)
    perform(at, verb)
    at.run(5)
    assert at.outcomes[-1].result in ("done", "failed")
    assert (at.outcomes[-1].result == "done") == (at.value("printer.error") == "ok")


def test_a_recovery_on_a_line_that_died_just_now_is_unanswered() -> None:
    at = bench()
    change_setting(at.device, "error", "cutter")
    at.run(5)
    at.faults(cut=True)
    perform(at, "retry")
    at.run(30)
    assert [o.result for o in at.outcomes] == ["unanswered"]


def said(driver: Printer, data: str, now: float) -> list[tuple[str, object]]:
    readings = driver.receive(bytes.fromhex(data), now)
    return [(r.point, r.value) for r in readings if isinstance(r, Reading) and r.point != "link.state"]


def asked(driver: Printer, now: float) -> bytes:
    driver.tick(now)
    return driver.outgoing()


def settled() -> tuple[Printer, float]:
    """A printer that has answered all its first questions, and the time when the next are due."""
    driver, now = Printer(PrinterOptions(asb=False)), 1000.0
    for _ in range(20):
        now += 0.05
        question = asked(driver, now)
        if question.startswith(b"\x10"):
            driver.receive(b"\x12", now)
        elif question:
            driver.receive(b"_TEXT\x00", now)
    return driver, now + 3.0


def test_one_flipped_bit_of_a_status_byte_is_asked_again_at_once_and_not_believed() -> None:
    driver, now = settled()
    assert asked(driver, now) == b"\x10\x04\x01"
    assert said(driver, "1A", now) == []
    assert asked(driver, now + 0.05) == b"\x10\x04\x01"
    assert ("printer.state", "online") in said(driver, "12", now + 0.05)
    assert asked(driver, now + 0.1) == b"\x10\x04\x02"
    assert said(driver, "16", now + 0.1) == []
    assert asked(driver, now + 0.15) == b"\x10\x04\x02"
    assert said(driver, "16", now + 0.15) == [("printer.cover", "open")]


def test_a_pushed_status_is_confirmed_and_corrected_when_the_printer_denies_it() -> None:
    driver, now = settled()
    now -= 2.0
    assert ("drawer_signal", "high") in said(driver, "14 00 00 00", now)
    assert asked(driver, now + 0.05) == b"\x10\x04\x01"
    assert said(driver, "12", now + 0.05) == []
    assert asked(driver, now + 0.1) == b"\x10\x04\x01"
    assert ("drawer_signal", "low") in said(driver, "12", now + 0.1)


@pytest.mark.parametrize("quad", ["10 00 01 00", "10 00 04 00", "30 00 00 00", "10 20 00 00"])
def test_a_pushed_status_that_contradicts_itself_is_asked_and_not_believed(quad: str) -> None:
    driver = Printer(PrinterOptions())
    assert said(driver, quad, 1000.0) == []


def test_rubbish_before_a_pushed_status_makes_it_doubtful() -> None:
    driver = Printer(PrinterOptions())
    assert said(driver, "FF 18 00 0F 00", 1000.0) == []
    assert said(driver, "18 00 0F 00", 1002.0) != []


def test_a_late_reply_is_not_taken_for_the_reply_to_the_next_question() -> None:
    driver = Printer(PrinterOptions())
    assert asked(driver, 1000.0) == b"\x10\x04\x01"
    asked(driver, 1002.1)
    assert said(driver, "1A", 1002.3) == []
    assert asked(driver, 1002.3) == b"", "the driver pauses after an unanswered question"
    assert asked(driver, 1002.7) == b"\x10\x04\x01", "and asks the same again"
    asked(driver, 1004.8)
    assert asked(driver, 1005.4) == b"\x10\x04\x02", "once"


def test_flow_control_bytes_mean_nothing() -> None:
    driver = Printer(PrinterOptions())
    asked(driver, 1000.0)
    assert said(driver, "13 11", 1000.0) == []
    assert ("printer.state", "online") in said(driver, "12", 1000.1)


def test_a_block_that_may_be_the_late_reply_to_an_older_question_is_dropped() -> None:
    driver = Printer(PrinterOptions(asb=False))
    questions: list[bytes] = []
    now = 1000.0
    while not questions or questions[-1] != b"\x1d\x49\x43":
        now += 0.05
        if question := asked(driver, now):
            questions.append(question)
            if question.startswith(b"\x10"):
                driver.receive(b"\x12", now)
    assert questions[-2] == b"\x1d\x49\x42", "the maker was asked before, in vain"
    assert driver.receive(b"_EXAMPLE\x00", now) == []
    assert "TM-SIM" in [r.value for r in driver.receive(b"_TM-SIM\x00", now) if isinstance(r, Reading)]
