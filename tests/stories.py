"""Stories of terminals that are sent what takes their broker or a device from them, or what cannot be judged yet.

Each is of a terminal of its own; they run at once, while others do something else, since each of them mostly waits.
"""

import os
import pwd
import socket
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path

from tests.attacking import ORDER, PROBATION, Ground, Till, now, printer, tap, ups
from tests.authority import Authority
from tests.keysite import KEYS as KEY_TABLE
from tests.keysite import KeySite, good
from tests.keysite import running as keys
from tests.strangers import FAKETIME
from tests.whole import free_port, wait

HERE = ("localhost", "DNS:localhost", "IP:127.0.0.1")
SECURE = free_port()
TWINS = 'tap0 = { kind = "dispenser", tapped = true }\n' + "".join(
    f'ups{n} = {{ kind = "ups", set = {{ version = "V{n}" }} }}\nprinter{n} = {{ kind = "printer" }}\n'
    for n in range(7)
)
HOUR = 3_600_000
Story = Callable[["Till"], None]


def the_broker_does_not_answer(till: Till) -> None:
    port = till.ground.port
    text = till.own
    till.ready("ups1")
    # The dispenser, to which only others talk, has just been heard; now nobody asks it anything.
    till.ready("dispenser1")
    till.ground.site.act(device="tap0", line="silent")
    till.push(1, text + printer(port("printer0")))
    till.reported(outcome="committed", version=1)
    with socket.create_server(("127.0.0.1", 0)) as nobody:  # takes connections, and never says a word
        config = till.ground.broker(nobody.getsockname()[1]) + text.partition("[uplink]")[2].join(["[uplink]", ""])
        digest = till.push(2, config + printer(port("printer0")))
        told = till.reported(outcome="rolled_back", version=2)
    assert (told["reason"], told["digest"], told["in_force"]) == ("unreachable", digest, 1)
    assert "no broker acknowledged anything" in told["detail"]
    till.row("rolled_back", version=2)
    assert [row["event"] for row in till.rows(version=2)] == ["staged", "applying", "rolling_back", "rolled_back"]
    (began,), (ended,) = till.rows("applying", version=2), till.rows("rolled_back", version=2)
    assert began["uplink"] is True
    assert ended["up"] - began["up"] >= PROBATION * 1000, "it was given its time"
    # Neither a commit nor a rollback was noticed by a device that they left alone.
    assert [till.opened(name) for name in ("ups1", "printer1", "dispenser1")] == [1, 1, 1]
    assert till.up("ups1", "printer1")
    assert [path.name[:2] for path in (till.path / "data/pushes/rejected").iterdir()] == ["2-"]


def the_authority_does_not_match(till: Till) -> None:
    folder = till.ground.folder
    till.ready("ups1")
    assert (folder / "other/ca.pem").exists()
    till.push(1, till.own.replace("good/ca.pem", "other/ca.pem"))
    told = till.reported(outcome="rolled_back", version=1)
    assert (told["reason"], "in_force" in told) == ("unreachable", False)
    assert "is not signed by the authority in `ca`" in till.log()
    assert till.opened("ups1") == 1
    assert till.ask(do="pushes", act="show")["last"]["outcome"] == "rolled_back"


def a_port_does_not_exist_and_the_next_push_waits_for_the_end(till: Till) -> None:
    port = till.ground.port
    text = till.own
    till.ready("ups1")
    till.push(1, text + printer(port("nowhere")))
    till.reported(outcome="applying", version=1)
    till.push(2, text + printer(port("printer2")))
    waits = till.reported(outcome="waiting", version=2)
    assert (waits["reason"], "in_force" in waits) == ("busy", False)
    seen = till.ask(do="pushes", act="show")
    assert (seen["pending"]["version"], "printer1" in seen["pending"]["silent"]) == (1, True)
    assert seen["waiting"]["version"] == 2
    told = till.reported(outcome="rolled_back", version=1)
    assert (told["reason"], "printer1 did not answer" in told["detail"]) == ("silent", True)
    till.reported(outcome="committed", version=2)
    till.row("committed", version=2)
    events = [(row["event"], row["version"]) for row in till.rows() if row["event"] in ("applying", "rolled_back")]
    assert events == [("applying", 1), ("rolled_back", 1), ("applying", 2)]
    assert (till.opened("ups1"), till.opened("printer1")) == (1, 1)
    assert till.up("printer1")


def a_device_is_silent_after_the_swap(till: Till) -> None:
    till.ground.site.act(device="ups4", line="silent")
    till.ready("ups1", "printer1")
    till.push(1, till.own.replace("ups3", "ups4"))
    told = till.reported(outcome="rolled_back", version=1)
    assert told["reason"] == "silent"
    assert told["detail"].startswith("ups1 did not answer: ")
    wait("the first one", lambda: till.published("ups1", "device.firmware") == "V3" and till.up("ups1"))
    assert till.opened("printer1") == 1
    assert till.sessions() == 1, "the broker was not touched"


def the_clock_cannot_be_trusted_and_the_time_has_not_come(till: Till) -> None:
    moved = till.path / "moved"
    moved.write_text("-20y")
    fake = {"LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(moved), "FAKETIME_NO_CACHE": "1"}
    till.ground.start(till, fake | {"FAKETIME_DONT_FAKE_MONOTONIC": "1"})
    till.ready("ups1")
    begin = now() - HOUR
    till.push(1, f"{till.own}# new\n", not_before=begin)
    assert till.reported(outcome="waiting", version=1)["reason"] == "clock_suspect"
    till.send(till.ordered(id="K-1", command="state"), ORDER)
    wait("a refusal", lambda: [r for r in till.results(id="K-1") if "(clock_suspect)" in r["detail"]])
    moved.write_text("-2h")
    waits = till.reported(outcome="waiting", version=1, reason="not_yet")
    assert waits["at"] < begin
    assert till.rows("staged") == []
    moved.write_text("+0")
    assert till.reported(outcome="committed", version=1)["at"] > begin
    assert till.rows("refused", reason="not_yet") == [], "what waits was not refused"


def a_push_is_there_before_the_devices_were_heard(till: Till) -> None:
    """Retained at the broker when the agent begins: it is tried against devices that answer, not against none."""
    file = till.path / "terminal.toml"
    file.write_text(file.read_text().replace("poll = 0.1\n", ""))  # else it is heard before the push is
    till.push(1, till.own.replace("ups6", "nowhere"))
    till.ground.start(till)
    told = till.reported(outcome="rolled_back", version=1)
    assert (told["reason"], told["detail"].startswith("ups1 did not answer")) == ("silent", True)
    wait("its UPS", lambda: till.up("ups1"))


def keys_are_being_loaded(till: Till) -> None:
    """On a site of its own, with a pad, and two people who load a key."""
    (till.path / "push-signers.toml").write_text((till.path / "signers.toml").read_text())
    table = f'\n[push]\nsigners = "push-signers.toml"\nprobation = {PROBATION}\n'
    site = KeySite(till.path, keys=KEY_TABLE + table)  # which puts those who sign orders into signers.toml
    field = Ground(site)
    own = (till.path / "terminal.toml").read_text()
    tables = own[own.index("[broker]") : own.index("[control]")] + own[own.index("[devices") : own.index("[keys]")]
    with keys(site):
        field.connect()
        loading = Till(field, "ATM-0001", till.path)
        order = site.order()
        site.receive(order)
        good(site.li.does("begin", order=order["id"]))
        loading.push(1, tables + "# new\n")
        told = loading.reported(outcome="waiting", version=1)
        assert (told["reason"], told["detail"].startswith("a key ceremony")) == ("busy", True)
        good(site.wang.does("begin", order=order["id"]))
        assert loading.rows("staged") == []
        site.li.does("abort")
        loading.reported(outcome="committed", version=1)
        field.close()
        field.all_is_told()


KEPT: dict[Story, tuple[str, ...]] = {
    the_broker_does_not_answer: ("ups0", "tap0"),
    the_authority_does_not_match: ("ups1",),
    a_port_does_not_exist_and_the_next_push_waits_for_the_end: ("ups2",),
    a_device_is_silent_after_the_swap: ("ups3", "printer3"),
}
"""Story -> the devices of its terminal's own file. Their agents are tests.dying's."""
OTHERS: dict[Story, tuple[str, ...]] = {
    the_clock_cannot_be_trusted_and_the_time_has_not_come: ("ups5",),
    a_push_is_there_before_the_devices_were_heard: ("ups6",),
    keys_are_being_loaded: (),
}


DEVICES = {"ups": ups, "printer": printer, "tap": tap}


def authorities(folder: Path) -> str:
    """Make the one that signs for the broker, and one that does not; returns what the broker needs of it."""
    right, _ = Authority(folder), Authority(folder, "other")
    right.sign("broker", *HERE)
    files = f"certfile {right.folder}/broker.pem\nkeyfile {right.folder}/broker.key\n"
    return f"listener {SECURE} 127.0.0.1\n{files}user {pwd.getpwuid(os.getuid()).pw_name}\n"


def told(field: Ground, pool: Executor) -> dict[str, "Future[None]"]:
    """Begin them all, by their names."""
    stories, tills = {**KEPT, **OTHERS}, {}
    for number, (story, devices) in enumerate(stories.items(), 2):
        till = tills[story] = Till(field, f"ATM-{number:04}")
        secure = field.broker(SECURE, f'[broker.tls]\nca = "{field.folder}/good/ca.pem"\n')
        tables = [DEVICES[name.rstrip("0123456789")](field.port(name)) for name in devices]
        till.configure("".join(tables), secure if story is the_authority_does_not_match else "")
    field.keep(*(tills[story] for story in KEPT))
    return {story.__name__: pool.submit(story, till) for story, till in tills.items()}
