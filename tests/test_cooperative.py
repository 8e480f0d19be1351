"""A whole ATM of ten devices and a POS of three, on one fleet file: what they show is true, dark or not."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from agent.config import load
from agent.drivers import DRIVERS, SHARED
from hwsim import DEVICES
from tests.cooperative import ATM, DEPLOYED, LINES, POS, Cooperative, cooperative
from tests.life import SERIAL, Life, unexplained
from tests.whole import wait

pytestmark = [pytest.mark.peer("mosquitto"), pytest.mark.timeout(240)]


def test_the_deployed_files_describe_ten_devices_and_three(tmp_path: Path) -> None:
    atm, pos = load(DEPLOYED / "atm.toml"), load(DEPLOYED / "pos.toml")
    assert tuple(atm.devices) == ATM
    assert tuple(pos.devices) == POS
    assert sum(device.line == "vendor" for device in atm.devices.values()) == 4


def test_every_kind_has_a_driver_and_a_twin() -> None:
    assert set(DRIVERS) | set(SHARED) == set(DEVICES)


def test_an_ordinary_day_in_short(tmp_path: Path) -> None:
    with cooperative(tmp_path, linger=0.1) as both:
        life = Life(both, random.Random(7))
        for _ in range(25):
            life.something()
        for line in SERIAL:
            both.act(line, line="damage", value=0.1)
        for _ in range(5):
            life.something()
            time.sleep(0.5)
        for line in SERIAL:
            both.act(line, line="good")
        life.settle()
        assert life.wrong == []
        raised = len(both.rows("fault.raised"))
        for line in LINES:
            life.pull(line)
        for line in LINES:
            life.dark(line)
        assert life.wrong == []
        links = [r for r in both.rows("fault.raised")[raised:] if r["code"].startswith("link.")]
        assert sorted(r["device"] for r in links) == sorted((*ATM, *POS)), [
            (r["device"], r["code"], r["raw"]) for r in links
        ]
        for line in LINES:
            life.put_back(line)
        life.settle()
        assert life.wrong == []
        for name in ("atm", "pos"):
            assert "verified" in both.tillwire(name, "ledger", "verify")
            assert both.end(name) == 0
            assert unexplained(both.log(name)) == []
        wait("the last rows", lambda: len(both.rows("stop")) == 2)
        assert both.account.mistakes == []
        assert both.account.twins() == 0
        assert both.account.missing() == []


@pytest.fixture(scope="module")
def peaceful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cooperative]:
    """Both terminals; whoever does harm makes peace again."""
    with cooperative(tmp_path_factory.mktemp("peace"), linger=0.1) as both:
        yield both


@pytest.mark.parametrize(
    "spite",
    [
        {"deep_json": "on"},
        {"huge": 6},  # tests/test_sockets.py has fifty; here the simulator itself must keep up
        {"wrong_request_id": "on"},
        {"flood": 200},
    ],
    ids=lambda spite: next(iter(spite)),
)
def test_a_hostile_publisher_harms_nobody_else(peaceful: Cooperative, spite: dict[str, str | int]) -> None:
    both, known = peaceful, len(peaceful.rows("fault.raised"))
    agent = psutil.Process(both.processes["atm"].pid)
    before = agent.memory_info().rss
    both.act("vendor", set=spite)
    end = time.monotonic() + 8.0
    most = before
    while time.monotonic() < end:
        most = max(most, agent.memory_info().rss)
        assert all(both.up(device) for device in ATM if device not in LINES["atm1/vendor"])
        time.sleep(0.1)
    assert most - before < 40_000_000, f"{(most - before) / 1e6:.0f} MB more"
    raised = [(r["device"], r["code"]) for r in both.rows("fault.raised")[known:]]
    assert len(raised) == len(set(raised)), "each fault is raised once, however often the spite comes"
    assert {device for device, _ in raised} <= set(LINES["atm1/vendor"])
    kind = {name: "off" if value == "on" else 0 for name, value in spite.items()}
    both.act("vendor", set=kind)
    life = Life(both, random.Random(1))
    life.settle()
    assert life.wrong == []
