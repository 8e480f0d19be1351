"""What each command of the centre does at a terminal, and what it answers."""

import base64
import hashlib
import itertools
import json
import sqlite3
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

from agent.crypto.signing import ORDER, Envelope
from agent.diagnose import as_json, collect
from agent.errors import ControlError
from agent.messages import PointState, Result, compact
from agent.model import Batch
from agent.mqtt.outbox import LARGEST
from agent.mqtt.uplinks import Uplinks
from agent.points import CASH, POINTS
from agent.pushing.commanding import LONGEST, PARTS, parts
from agent.pushing.errands import checks, counts
from agent.pushing.rebooting import reboot
from agent.store import Store
from agent.timepiece import wall_ms
from agent.workers import Workers
from tests.ceremonies import order
from tests.commanded import Till, device, fail, push, remembered
from tests.conductor import Stage
from tests.hostile_broker import HostileBroker, hostile
from tests.pushing import NOW
from tests.test_orderdesk import SIGNERS
from tests.test_orderdesk import Desk as OrderSide
from tests.uplinks import settings
from tests.whole import wait


@pytest.fixture
def till(tmp_path: Path) -> Till:
    return Till(tmp_path / "pushes")


def test_the_state_is_published_again_and_how_many_is_told(till: Till) -> None:
    till.states = {"ups1": device(), "printer1": device()}
    assert till.run("state").detail.startswith("2 states")


def test_counters_tell_what_counts_and_what_is_not_known_now(till: Till) -> None:
    till.states = {
        "dispenser1": device(
            cassette__1__state="low",
            cassette__1__dispensed=PointState(value=7, at=5, unknown=True, raw="07"),
            dispenser__state="ok",
        ),
        "ups1": device(mains="ok", of_an_older_version="1"),
        "acceptor1": device(acceptor__rejected=3),
    }
    told = json.loads(till.run("counters").data)
    assert told == {
        "dispenser1": {
            "cassette.1.state": {"value": "low", "at": NOW},
            "cassette.1.dispensed": {"value": 7, "at": 5, "unknown": True},
        },
        "acceptor1": {"acceptor.rejected": {"value": 3, "at": NOW}},
    }
    one = till.run("counters", "K-2", arguments={"device": "acceptor1"})
    assert list(json.loads(one.data)) == ["acceptor1"]
    nobody = till.run("counters", "K-3", arguments={"device": "safe"})
    assert nobody.outcome == "failed"
    assert "dispenser1, ups1, acceptor1" in nobody.detail


def test_all_that_counts_is_told_and_no_measure_is() -> None:
    names = {point.pattern.replace("*", "1"): point.kind for point in POINTS}
    told = {name for name in names if counts(name)}
    assert {name for name, kind in names.items() if kind in ("count", "tally")} <= told
    assert all(name.startswith(CASH) or names[name] in ("count", "tally") for name in told)
    assert not {"mains", "input.voltage", "card.media", "epp.state"} & told


LIVE: dict[str, Any] = {
    "threads": {"core": True},
    "deaths": {},
    "queue": 0,
    "uplink": ("connected", ""),
    "signing": "",
}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return written(tmp_path / "data", wall_ms())


def written(folder: Path, at: int) -> Path:
    """The store of a terminal with some rows that were made then."""
    store = Store(folder, "ATM-0001")
    row = {"kind": "thread", "name": "a", "error": "b", "at": at, "up": 5, "boot": "b"}
    store.commit(Batch(rows=[dict(row) for _ in range(3)]))
    store.close()
    return store.path


def test_a_self_test_names_what_is_not_well(till: Till, store: Path) -> None:
    live = dict(LIVE)
    till.more["diagnose"] = lambda: as_json(collect(None, live, store))
    till.boot()
    well = till.run("self_test")
    assert (well.outcome, well.detail) == ("done", "all is well")
    told = json.loads(well.data)
    assert told["ok"] is True
    assert {one["check"] for one in told["checks"]} == {
        *("store", "chain", "signing", "threads", "clock", "links", "disk"),
    }
    with sqlite3.connect(store) as db:
        db.execute("UPDATE ledger SET row = replace(row, '\"b\"', '\"c\"') WHERE seq = 2")
    db.close()
    live |= {"threads": {"core": True, "link:ups1": False}, "signing": "no key"}
    stale = PointState(value="up", at=5, unknown=True)
    till.states = {"a": device(link__state="silent"), "b": device(link__state=stale), "c": device(link__state="up")}
    bad = till.run("self_test", "K-2")
    assert bad.outcome == "done", "it was done, and told what is not well"
    found = {one["check"]: one["detail"] for one in json.loads(bad.data)["checks"] if not one["ok"]}
    assert set(found) == {"chain", "threads", "signing", "links"}
    assert found["links"] == "a silent, b unknown"
    assert "link:ups1" in found["threads"]
    assert json.loads(bad.data)["ok"] is False
    one = json.loads(till.run("self_test", "K-3", arguments={"device": "c"}).data)
    assert next(check for check in one["checks"] if check["check"] == "links")["ok"]


def test_what_a_self_test_could_not_look_at_is_not_well(tmp_path: Path, store: Path) -> None:
    def bad(sections: list[dict[str, Any]]) -> set[str]:
        return {one["check"] for one in checks(sections, {}, "synced") if not one["ok"]}

    sections = as_json(collect(None, LIVE, store))
    assert bad(sections) == set()
    assert bad(as_json(collect(None, LIVE | {"trouble": "nothing can be stored"}, store))) == {"store"}
    ahead = written(tmp_path / "ahead", wall_ms() + 10**9)
    assert bad(as_json(collect(None, LIVE, ahead))) == {"clock"}
    assert bad([]) == {"store", "chain", "signing", "threads", "disk"}
    assert bad(as_json(collect(None, LIVE, store.with_name("none.db")))) >= {"store", "chain"}
    store.write_bytes(b"no database at all" * 100)
    assert bad(as_json(collect(None, LIVE, store))) >= {"store", "chain"}
    assert [one["check"] for one in checks(sections, {}, "unset") if not one["ok"]] == ["clock"]


def test_without_a_journal_that_is_said_and_with_one_a_piece_of_it_comes(till: Till) -> None:
    none = till.run("journal")
    assert (none.outcome, none.detail) == ("failed", "this version keeps no electronic journal yet")
    till.more["journals"] = {"atm": lambda begin, end: f"from {begin} to {end} 钞票"}
    till.boot()
    assert unpacked([till.run("journal", "K-2", arguments={"from": 5, "to": 9})]) == "from 5 to 9 钞票"
    assert unpacked([till.run("journal", "K-3")]) == f"from 0 to {NOW} 钞票"
    assert till.run("journal", "K-4", arguments={"source": "pos"}).outcome == "failed"
    till.more["journals"]["pos"] = str
    which = till.run("journal", "K-5")
    assert which.outcome == "failed"
    assert "atm, pos" in which.detail


def unpacked(results: list[Result]) -> str:
    """What a long answer says, as a stranger puts it together."""
    assert [one.part for one in results] == list(range(1, len(results) + 1))
    text = zlib.decompress(base64.b64decode("".join(one.data for one in results)))
    assert hashlib.sha256(text).hexdigest() in results[0].detail
    return text.decode()


def test_diagnostics_come_whole_in_parts(till: Till, store: Path) -> None:
    sections = as_json(collect(None, LIVE, store))
    noise = itertools.chain.from_iterable(hashlib.sha256(str(n).encode()).hexdigest() for n in range(3000))
    sections.append({"title": "noise", "facts": ["".join(noise)]})
    till.more["diagnose"] = lambda: sections
    till.boot()
    till.run("diagnostics")
    assert len(till.told) > 1
    assert {one.parts for one in till.told} == {len(till.told)}
    assert json.loads(unpacked(till.told)) == json.loads(json.dumps(sections))
    assert till.outbox.lost == 0


def test_an_answer_that_is_too_long_is_not_told_in_part(till: Till) -> None:
    till.more["journals"] = {"atm": lambda begin, end: random_text(PARTS * 40_000)}
    till.boot()
    result = till.run("journal")
    assert (result.outcome, result.data, result.parts) == ("failed", "", 1)
    assert "ask for less" in result.detail
    assert len(till.told) == 1


def random_text(size: int) -> str:
    """What no deflating makes small."""
    digests = (hashlib.sha512(str(number).encode()).hexdigest() for number in itertools.count())
    return "".join(itertools.islice(digests, 2 * size // 128))


@pytest.mark.parametrize(
    "text", ["", "a", "x" * 100_001, '"' * 60_000, "\x01" * 30_000, "钞\n" * 40_000, "💶" * 30_000]
)
def test_parts_fit_and_make_the_whole(text: str) -> None:
    pieces = parts(text)
    assert "".join(pieces) == text
    for piece in pieces:
        told = Result(at=NOW, id="K" * 48, command="diagnostics", outcome="done", detail="钞" * 2000, data=piece)
        assert len(compact(told)) <= LARGEST


def test_maintenance_is_a_row_that_says_until_when(till: Till) -> None:
    result = till.run("maintenance")
    (row,) = till.row("maintenance")
    assert row == {
        "event": "maintenance",
        "id": "K-0001",
        "until": NOW + 30 * 60_000,
        "reason": "belt of the dispenser",
    }
    assert json.loads(result.data) == {"until": row["until"]}
    assert (
        till.did.index("row maintenance")
        < len(till.did) - 1 - till.did[::-1].index("keep")
        < till.did.index("tell")
    )


def test_a_key_order_comes_to_the_key_desk_and_its_text_nowhere_else(till: Till) -> None:
    text = Envelope(ORDER, json.dumps(order().document()).encode())
    for key in SIGNERS.values():
        text = text.signed(key)
    spoken = text.text.decode()
    no_keys = till.run("key_order", "K-1", arguments={"order": spoken})
    assert no_keys.outcome == "failed"
    assert "[keys]" in no_keys.detail
    side = OrderSide(Stage().ready())
    try:
        till.more["keys"] = side.desk.take
        till.boot()
        taken = till.run("key_order", "K-2", arguments={"order": spoken})
        refused = till.run("key_order", "K-3", arguments={"order": spoken.replace('"sig":"', '"sig":"A')})
    finally:
        side.close()
    assert taken.outcome == "done"
    assert order().id in taken.detail
    assert [row["order"] for row in side.rows("received")] == [order().id]
    assert refused.outcome == "failed"
    assert "the order is refused: " in refused.detail
    assert spoken[:40] not in str(till.rows)


def test_a_restart_has_no_end_before_the_next_start(till: Till) -> None:
    till.take(push("restart"))
    till.settle()
    assert till.did == ["row command", "keep", "restart"]
    assert [one.id for one in remembered(till.folder).unended()] == ["K-0001"]


@pytest.mark.parametrize("word", ["restart", "reboot"])
def test_neither_agent_nor_machine_goes_down_in_a_key_ceremony(till: Till, word: str) -> None:
    till.busy = "a key ceremony is under way"
    refused = till.run(word)
    assert refused.outcome == "refused"
    assert refused.detail.startswith("a key ceremony is under way: ")
    assert till.run("state", "K-2").outcome == "done"
    till.busy = ""

    def keep() -> bool:
        till.busy = "a key ceremony is under way"
        return True

    till.more["keep"] = keep
    till.boot()
    assert till.run(word).outcome == "failed", "it began while this one waited for its turn"
    assert word not in till.did


def test_a_restart_that_cannot_be_is_said(till: Till) -> None:
    till.more["restart"] = lambda: fail(ControlError("the file is not right: correct it"))
    till.boot()
    assert till.run("restart").detail == "the file is not right: correct it"
    assert remembered(till.folder).unended() == ()


def test_a_machine_that_does_not_go_down_is_told(till: Till) -> None:
    till.take(push("reboot"))
    till.settle()
    assert till.told == []
    till.now += LONGEST
    till.settle()
    assert till.outcomes() == ["failed"]


def test_what_the_system_says_to_a_reboot_is_told_with_the_next_step() -> None:
    reboot(["true"])
    with pytest.raises(ControlError, match=r"Interactive authentication required\..*polkit"):
        reboot(["sh", "-c", "echo Interactive authentication required. >&2; exit 1"])
    with pytest.raises(ControlError, match="by hand"):
        reboot(["/nowhere/systemctl"])


def test_states_go_out_again_over_the_connection_that_is(tmp_path: Path) -> None:
    came: list[str] = []

    def behave(session: Any, message: Any) -> None:
        came.append(message.topic.rpartition("/")[2])
        session.ack(message)

    with hostile(behave=behave) as broker:
        uplinks, store, workers = _uplinks(tmp_path, broker)
        workers.start()
        try:
            wait("the state", lambda: came.count("ups1") == 1 and uplinks.connected)
            uplinks.refresh()
            wait("the state again", lambda: came.count("ups1") == 2)
        finally:
            uplinks.end("stopped")
            store.close()


def _uplinks(folder: Path, broker: HostileBroker) -> tuple[Uplinks, Store, Workers]:
    ups = 'signers = "signers.toml"\n[devices.ups1]\nkind = "ups"\nport = "/dev/ttyS0"'
    config = settings(folder, broker.port, push=ups)
    store, workers = Store(config.terminal.data, "ATM-0001"), Workers(lambda note: None)
    uplinks = Uplinks(store, lambda *_: device(mains="ok"), "boot", "test", str, workers)
    uplinks.begin(config, [])
    return uplinks, store, workers


AGAIN = """
import os, signal, sys, threading
from pathlib import Path
from agent import __main__, service
class Asked(service.Service):
    def run(self):
        with Path("lives").open("a") as file:
            file.write(f"{os.getpid()} ")
        life = len(Path("lives").read_text().split())
        if life > 2:
            sys.exit(9)
        threading.Thread(target=self.restart).start()
        super().run()
        if life == 2:
            os.kill(os.getpid(), signal.SIGTERM)
__main__.Service = Asked
sys.exit(__main__.main(sys.argv[1:]))
"""


def test_the_agent_ends_cleanly_and_begins_again_unless_it_is_told_to_end(tmp_path: Path) -> None:
    (tmp_path / "terminal.toml").write_text(
        '[terminal]\norg = "coop"\nid = "ATM-0001"\ndata = "data"\n[control]\nsocket = "tw.sock"\n'
    )
    command = [sys.executable, "-c", AGAIN, "--config", "terminal.toml"]
    agent = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE)
    _, said = agent.communicate(timeout=60)
    assert agent.returncode == 0, said
    assert (tmp_path / "lives").read_text().split() == [str(agent.pid)] * 2
    with sqlite3.connect(tmp_path / "data/store.db") as db:
        rows = [json.loads(row) for (row,) in db.execute("SELECT row FROM ledger ORDER BY seq")]
    db.close()
    lives = [(row["kind"], row.get("reason", "")) for row in rows if row["kind"] in ("start", "stop")]
    assert lives == [("start", ""), ("stop", "restart")] * 2
