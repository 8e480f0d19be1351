"""Every driver that listens: what it says of a line on which nobody asks, and of one on which nobody answers."""

import pytest

from agent.drivers import DRIVERS, Driver
from agent.drivers.crt591 import DIALECTS, frame_of
from agent.drivers.ssp import seal
from agent.model import Reading

ASKED = {
    "acceptor": seal(0, True, b"\x07"),
    "card_reader": frame_of(DIALECTS["crt591"], 0, 0x31, 0x30),
    "dispenser": bytes.fromhex("04 30 02 50 03 65"),
}


def tap(kind: str) -> Driver:
    return DRIVERS[kind](DRIVERS[kind].Options(), "listen")


def states(kind: str, piece: bytes, seconds: float = 30.0) -> list[tuple[object, str]]:
    """What is said of the line, where this piece comes every second."""
    driver, now, items = tap(kind), 1000.0, []
    for step in range(int(seconds / 0.05)):
        now += 0.05
        items += driver.receive(piece, now) if step % 20 == 0 and piece else []
        items += driver.tick(now)
    return [(i.value, i.raw) for i in items if isinstance(i, Reading) and i.point == "link.state"]


def test_every_driver_that_listens_is_here() -> None:
    assert {kind for kind, driver in DRIVERS.items() if "listen" in driver.access} == ASKED.keys()


@pytest.mark.parametrize("kind", ASKED)
def test_a_line_on_which_nobody_asks_is_not_blamed_on_the_device(kind: str) -> None:
    said = states(kind, b"")
    assert {value for value, _ in said} == {"silent"}
    assert all("nobody asks the device: does its payment application run?" in raw for _, raw in said)
    assert not any("switched on" in raw for _, raw in said)


@pytest.mark.parametrize("kind", ASKED)
def test_a_device_that_is_asked_and_does_not_answer_is_what_to_look_at(kind: str) -> None:
    said = states(kind, ASKED[kind])
    assert {value for value, _ in said} == {"silent"}
    assert all("is it switched on" in raw for _, raw in said)


@pytest.mark.parametrize("kind", ASKED)
def test_rubbish_on_a_tap_names_speed_and_cable(kind: str) -> None:
    said = states(kind, bytes.fromhex("99 E7 31 B2 00 55"))
    assert {value for value, _ in said} == {"rubbish"}
    assert all("speed" in raw and "cable" in raw for _, raw in said)
