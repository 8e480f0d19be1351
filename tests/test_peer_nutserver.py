"""NUT's own server checks our NUT driver: upsd and the driver dummy-ups, whose state is a file."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.drivers.nut import Nut, NutLineOptions, NutOptions
from tests.shared import Live
from tests.strangers import Nut as Stranger
from tests.strangers import nut

pytestmark = [pytest.mark.peer("nut-server", "nut-client")]
USUAL = {
    "ups.mfr": 'Example \\"Power\\"',
    "ups.model": "back\\\\slash",
    "ups.serial": "SN-0002",
    "input.voltage": "229.5",
    "ups.load": "23",
    "battery.charge": "100",
}


@contextmanager
def terminal(folder: Path, **devices: str) -> Iterator[tuple[Live, Stranger, Path]]:
    state = folder / "ups.dev"
    write(state, "OL")
    with nut(folder / "nut", "dummy-ups", state) as stranger:
        named = {name: NutOptions(ups, poll=0.5) for name, ups in devices.items()}
        with socket.create_connection(("127.0.0.1", stranger.port)) as line:
            yield Live(Nut(NutLineOptions(), named), line.fileno()), stranger, state


def write(state: Path, status: str, **more: str) -> None:
    """The file of dummy-ups, replaced as a whole: it reads it again and again."""
    table = {**USUAL, **{name.replace("_", "."): value for name, value in more.items()}, "ups.status": status}
    fresh = state.with_suffix(".new")
    fresh.write_text("".join(f"{name}: {value}\n" for name, value in table.items()))
    fresh.replace(state)


def test_our_driver_follows_what_upsd_says(tmp_path: Path) -> None:
    with terminal(tmp_path, ups1="ups0", ups2="nosuch") as (live, _, state):
        live.until("the mains", lambda: live.value("ups1", "mains") == "ok")
        assert live.value("ups1", "link.state") == "up"
        assert live.value("ups1", "input.voltage") == 229.5
        assert live.value("ups1", "output.load") == 23.0
        assert live.value("ups1", "battery.charge") == 100.0
        assert live.value("ups1", "device.serial") == "SN-0002"
        write(state, "OB LB DISCHRG", battery_charge="17")
        live.until("the failure", lambda: live.value("ups1", "mains") == "lost")
        live.until("the charge", lambda: live.value("ups1", "battery.charge") == 17.0)
        assert live.value("ups1", "battery") == "low"
        write(state, "OL RB BYPASS OVER CAL")
        live.until("the mains again", lambda: live.value("ups1", "mains") == "ok")
        words = {p: live.value("ups1", p) for p in ("battery", "ups.bypass", "ups.state", "ups.selftest")}
        assert words == {
            "battery": "replace",
            "ups.bypass": "active",
            "ups.state": "overload",
            "ups.selftest": "running",
        }
        live.until("the refusal", lambda: live.value("ups2", "link.state") == "unusable")
        assert "UNKNOWN-UPS: the NUT server has no UPS nosuch; it has ups0" in live.raw("ups2", "link.state")


def test_the_texts_of_a_maker_keep_their_quotes_and_backslashes(tmp_path: Path) -> None:
    with terminal(tmp_path, ups1="ups0") as (live, stranger, _):
        live.until("the maker", lambda: live.value("ups1", "device.maker"))
        assert live.value("ups1", "device.maker") == stranger.get("ups.mfr") == 'Example "Power"'
        assert live.value("ups1", "device.model") == stranger.get("ups.model") == "back\\slash"


def test_a_dead_ups_driver_is_stale_and_the_agent_is_no_client_that_holds_up_a_shutdown(tmp_path: Path) -> None:
    with terminal(tmp_path, ups1="ups0") as (live, stranger, _):
        live.until("the mains", lambda: live.value("ups1", "mains") == "ok")
        assert stranger.logins() == 0
        stranger.kill_driver()
        live.until("the trouble", lambda: "NOT-CONNECTED" in live.raw("ups1", "link.state"))
        assert live.value("ups1", "link.state") == "stale"
