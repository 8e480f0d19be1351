"""What the looks at the EPP's slots find: keys that nobody ordered, keys that are gone, another pad.

Real processes. A slot of which nobody has told the agent is looked at once the EPP itself tells of it, which an XFS
service is asked every ten seconds; here the configuration names it.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.interrupting import Terminal
from tests.keysite import KEYS, running
from tests.secure import ANSI, split
from tests.whole import wait

pytestmark = [pytest.mark.peer("mosquitto"), pytest.mark.timeout(120)]
WORKING = KEYS + 'working = ["TPK"]\nslots = ["TMK9"]\n'


@pytest.fixture
def site() -> Iterator[Terminal]:
    with (
        tempfile.TemporaryDirectory(prefix="kl") as name,
        running(Terminal(Path(name), lab=True, keys=WORKING)) as terminal,
    ):
        yield terminal


def finds(site: Terminal, *words: str) -> None:
    """The next looks at the slots find this and nothing else."""
    site.must(do="keys", act="signed_on")
    wait(str(words), lambda: {finding["word"] for finding in site.status()["findings"]} == set(words))


def test_a_look_finds_what_no_order_explains(site: Terminal) -> None:
    use = {"slot": "TMK9", "usage": "K0", "algorithm": "T", "mode": "D"}
    for component, do, found in zip(
        split(ANSI), ("part", "complete"), ("left_construct", "unexpected_key"), strict=True
    ):
        site.asks_pad({"do": "begin", "digits": 32})
        site.type(component)
        site.asks_pad({"do": do, **use})
        finds(site, found)
        assert site.status()["service"] == "stopped"
    wait("the point", lambda: site.published("epp1", "keys.service") == "stopped")
    words = ("left_construct", "unexpected_key")
    wait("the rows", lambda: [site.ledger_has("alarm", word=word) for word in words] == [1, 1])
    site.asks_pad({"do": "delete", "slot": "TMK9"})
    finds(site)
    wait("the point", lambda: site.published("epp1", "keys.service") == "ok")


def test_a_working_key_that_a_sign_on_did_not_change_is_found(site: Terminal) -> None:
    def put() -> None:
        use: dict[str, Any] = {"slot": "TPK", "usage": "P0", "algorithm": "T", "mode": "E"}
        site.asks_pad({"do": "clear", "value": site.a_key(), **use})

    put()
    finds(site)
    wait("the key to be seen", lambda: [slot for slot in site.status()["slots"] if slot["seen"] == "loaded"])
    finds(site, "unchanged")
    assert site.status()["service"] == "ok", "the old working key still works"
    put()
    finds(site)


def test_a_key_that_is_gone_is_missed(site: Terminal) -> None:
    site.load(site.order())
    site.asks_pad({"do": "delete", "slot": "TMK"})
    finds(site, "missing_key")
    assert site.status()["service"] == "stopped"


def test_another_pad_and_an_opened_one_stop_the_terminal(site: Terminal) -> None:
    site.load(site.order())
    site.hands(act="tamper")
    wait("it to be told", lambda: site.status()["service"] == "stopped")
    finds(site, "unknown_slot")
    site.hands(act="close")
    wait("it to be told", lambda: site.shown("epp1", "device.state") == "online")
    assert site.status()["service"] == "stopped", "the keys do not come back"
    site.hands(act="swap", serial="2411-0009")
    wait("it to be found", lambda: "serial_changed" in {finding["word"] for finding in site.status()["findings"]})
    assert {slot["slot"]: slot["state"] for slot in site.status()["slots"]}["TMK"] == "unknown"
    assert site.status()["service"] == "stopped"
    wait("the point", lambda: site.published("epp1", "keys.service") == "stopped")
    wait("the fault", lambda: site.rows("fault.raised", device="epp1", point="keys.service"))
    order = site.order(epp_serial="2411-0001", version=2)
    site.receive(order)
    told = site.li.does("begin", order=order["id"])
    assert "wrong_target" in [line["tell"]["word"] for line in told if "tell" in line]
