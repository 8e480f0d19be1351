"""NUT's own drivers check the simulated UPS: what they make of it, and what they send."""

from pathlib import Path

import pytest

from tests.strangers import nut
from tests.whole import site, wait

pytestmark = [pytest.mark.peer("nut-server", "nut-client")]
FLEET = 'run_dir = "."\n[terminals.atm1.devices.ups1]\nkind = "ups"\n'


@pytest.mark.parametrize("driver", ["blazer_ser", "nutdrv_qx"])
def test_nut_follows_the_simulated_ups(tmp_path: Path, driver: str) -> None:
    with site(tmp_path, fleet=FLEET) as terminal:
        terminal.start("hwsim")
        port = tmp_path / "atm1" / "ups1"
        wait("the port", port.exists)
        with nut(tmp_path / "nut", driver, port) as stranger:
            assert stranger.get("ups.status") == "OL"
            assert stranger.get("input.voltage") == "230.0"
            assert stranger.get("ups.load") == "14"
            terminal.act(device="ups1", set={"mains": "lost"})
            wait("on battery", lambda: stranger.get("ups.status") == "OB")
            terminal.act(device="ups1", set={"battery": "low"})
            wait("low battery", lambda: stranger.get("ups.status") == "OB LB")
            terminal.act(device="ups1", set={"mains": "ok", "battery": "ok"})
            wait("on line", lambda: stranger.get("ups.status") == "OL")
            answer = stranger.command("test.battery.start.quick")
            assert "OK" in answer, answer
            wait("the self-test", lambda: "CAL" in stranger.get("ups.status"))
            wait("its end", lambda: stranger.get("ups.status") == "OL")
            if driver == "blazer_ser":  # nutdrv_qx reads alarms only every 30 s
                terminal.act(device="ups1", set={"health": "failed"})
                wait("the failure", lambda: "selftest failed" in stranger.get("ups.alarm"))
