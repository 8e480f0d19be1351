"""The collected facts: never raises, never tells a secret, names the next step, and ends with its marker."""

import json
import os
import pty
import shutil
import socket
import sqlite3
import subprocess
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent import diagnose
from agent.config import Config, load
from agent.diagnose import Fact, Section
from agent.errors import ConfigError, LinkError, StoreError
from agent.lines.probing import holders, probe
from agent.model import Batch
from agent.mqtt.brokerlook import REACH_PATIENCE
from agent.store import Store

LIVE = {"threads": {"core": True}, "deaths": {}, "queue": 0, "uplink": ("connected", "to nowhere"), "store": "good"}


def config(folder: Path, more: str = "") -> Config:
    file = folder / "agent.toml"
    file.write_text(f'[terminal]\norg = "coop"\nid = "ATM-0001"\ndata = "data"\n{more}')
    return load(file)


def filled(folder: Path, rows: int = 5, at: int | None = None) -> Path:
    """A real store with a few rows, closed again; returns its file."""
    store = Store(folder, "ATM-0001")
    when = time.time_ns() // 1_000_000 if at is None else at
    for number in range(rows):
        row = {"kind": "thread", "name": f"core-{number}", "error": "none", "at": when, "up": number, "boot": "b"}
        store.commit(Batch(rows=[row]))
    store.close()
    return store.path


def facts(sections: list[Section], title: str) -> dict[str, Fact]:
    return {fact.label: fact for section in sections if section.title == title for fact in section.facts}


@contextmanager
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_healthy_terminal_has_nothing_bad(tmp_path: Path) -> None:
    path = filled(tmp_path / "data")
    with listening() as port:
        found = diagnose.collect(config(tmp_path, f'[broker]\nhost = "127.0.0.1"\nport = {port}\n'), LIVE, path)
    assert [f for s in found for f in s.facts if f.verdict == "bad"] == []
    assert facts(found, "store")["chain"].value == "the last 5 rows fit their hashes"
    assert facts(found, "store")["undelivered"].value == "5 rows"
    assert facts(found, "broker")["reached"].verdict == "ok"


def test_the_marker_is_last_and_counts_what_stands_before_it(tmp_path: Path) -> None:
    found = diagnose.collect(config(tmp_path), LIVE, filled(tmp_path / "data"))
    assert found[-1].title == diagnose.END
    count = sum(len(section.facts) for section in found[:-1])
    assert found[-1].facts[0].value == f"{len(found) - 1} sections, {count} facts"
    assert [s.title for s in found].count(diagnose.END) == 1


@pytest.mark.parametrize("content", [b"", b"not a database" * 300, None, "folder"])
def test_a_store_in_any_shape_is_a_fact_and_not_a_failure(tmp_path: Path, content: bytes | str | None) -> None:
    path = tmp_path / "store.db"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "folder":
        path.mkdir()
    found = diagnose.collect(None, None, path)
    assert any(fact.verdict != "ok" for fact in facts(found, "store").values())
    assert found[-1].title == diagnose.END


def test_strange_live_facts_do_not_stop_the_rest(tmp_path: Path) -> None:
    found = diagnose.collect(config(tmp_path), {"threads": 7, "uplink": None}, None)
    assert "not seen" in facts(found, "agent")
    assert found[-1].title == diagnose.END


def test_whatever_is_not_ok_names_the_next_step(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    bad = config(
        tmp_path,
        '[broker]\nhost = "no-such-host.invalid"\n[broker.tls]\nca = "none.pem"\n'
        '[devices.a]\nkind = "ups"\nport = "./none"\n[devices.b]\nkind = "ups"\nport = "./plain"\n'
        '[devices.c]\nkind = "ups"\nport = "socket://no-such-host.invalid:1"\n',
    )
    dead = {**LIVE, "threads": {"core": False}, "deaths": {"core": 3}, "queue": 5000, "uplink": ("down", "refused")}
    found = diagnose.collect(bad, dead, tmp_path / "data" / "store.db")
    wrong = [fact for section in found for fact in section.facts if fact.verdict != "ok"]
    assert len(wrong) >= 9
    assert [fact for fact in wrong if not fact.next] == []
    assert facts(found, "agent")["threads"].value == "dead: core"
    for title, label in (
        ("port of a", "present"),
        ("port of b", "present"),
        ("port of c", "name"),
        ("broker", "name"),
    ):
        assert facts(found, title)[label].verdict == "bad", title


def test_no_secret_is_among_the_facts(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("SECRET-KEY-TEXT")
    (tmp_path / "ca.pem").write_text("SECRET-CA-TEXT")
    with listening() as port:
        used = config(
            tmp_path,
            f'[broker]\nhost = "127.0.0.1"\nport = {port}\n'
            '[broker.tls]\nca = "ca.pem"\ncertificate = "ca.pem"\nkey = "key.pem"\n'
            '[devices.a]\nkind = "ups"\nport = "rfc2217://clerk:SECRET-LOGIN@127.0.0.1:1"\n',
        )
        said = json.dumps(diagnose.as_json(diagnose.collect(used, LIVE, None)))
    said += json.dumps(diagnose.check_config(tmp_path / "agent.toml"))
    assert "rfc2217://127.0.0.1:1" in said
    assert "SECRET" not in said


def test_a_broker_that_nobody_serves_is_told_within_the_patience(tmp_path: Path) -> None:
    with listening() as port:
        pass
    begun = time.monotonic()
    found = diagnose.collect(config(tmp_path, f'[broker]\nhost = "127.0.0.1"\nport = {port}\n'), None, None)
    assert time.monotonic() - begun < REACH_PATIENCE + 1
    assert facts(found, "broker")["reached"].verdict == "bad"


def certificate(folder: Path, name: str) -> None:
    """NAME.pem and NAME.key: a certificate for 127.0.0.1 that signs itself."""
    options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    about = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")]
    subprocess.run(["openssl", *options.split(), *about, *files], check=True, capture_output=True)


def greeting(folder: Path, port: int, name: str) -> Fact:
    """What is said of TLS when NAME.pem is the authority; waits for the broker to listen."""
    text = f'[broker]\nhost = "127.0.0.1"\nport = {port}\n[broker.tls]\nca = "{name}.pem"\n'
    end = time.monotonic() + 10
    while time.monotonic() < end:
        found = facts(diagnose.collect(config(folder, text), None, None), "broker")
        if "TLS" in found:
            return found["TLS"]
    raise AssertionError(f"the broker does not listen: {found['reached']}")


def test_tls_is_tried_for_real_and_a_stranger_is_seen(tmp_path: Path) -> None:
    for name in ("good", "other"):
        certificate(tmp_path, name)
    with listening() as port:
        pass
    (tmp_path / "broker.conf").write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\n"
        f"cafile {tmp_path}/good.pem\ncertfile {tmp_path}/good.pem\nkeyfile {tmp_path}/good.key\n"
    )
    mosquitto = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    broker = subprocess.Popen([mosquitto, "-c", tmp_path / "broker.conf"], stderr=subprocess.DEVNULL)
    try:
        assert greeting(tmp_path, port, "good").verdict == "ok"
        stranger = greeting(tmp_path, port, "other")
        assert stranger.verdict == "bad"
        assert "not signed by the authority" in stranger.value
    finally:
        broker.terminate()
        broker.wait(10)


def test_a_simulated_port_is_present_and_its_holder_known() -> None:
    master, slave = pty.openpty()
    try:
        held = dict(holders(Path(os.ttyname(slave))))
        assert held[os.getpid()].endswith(f"({os.getpid()})")
    finally:
        os.close(master)
        os.close(slave)


def test_a_folder_open_to_others_is_bad(tmp_path: Path) -> None:
    path = filled(tmp_path / "data")
    path.parent.chmod(0o750)
    assert facts(diagnose.collect(None, None, path), "folder")["folder"].verdict == "bad"


def test_a_store_that_was_set_aside_is_told(tmp_path: Path) -> None:
    path = filled(tmp_path / "data")
    path.write_bytes(b"x" * 5000)
    Store(path.parent, "ATM-0001").close()
    assert facts(diagnose.collect(None, None, path), "folder")["set aside"].value.startswith("store.db.aside-")


def test_a_row_from_the_future_makes_the_clock_suspect(tmp_path: Path) -> None:
    path = filled(tmp_path / "data", at=time.time_ns() // 1_000_000 + 3_600_000)
    last = facts(diagnose.collect(None, None, path), "store")["last row"]
    assert last.verdict == "bad"
    assert "in the future" in last.value


def test_the_whole_chain_is_followed_and_a_changed_row_is_named(tmp_path: Path) -> None:
    path = filled(tmp_path / "data", rows=2500)
    *progress, good = diagnose.verify(path)
    assert [line["progress"] for line in progress] == [[1000, 2500], [2000, 2500], [2500, 2500]]
    assert (good["verified"], good["head"]) == (2500, 2500)
    change(path, "UPDATE ledger SET row = replace(row, 'core-41', 'core-42') WHERE seq = 42")
    assert next(line for line in diagnose.verify(path) if "progress" not in line)["broken"] == 42
    tail = facts(diagnose.collect(None, None, path), "store")["chain"]
    assert tail.verdict == "ok", "only the tail is looked at by a diagnosis"
    change(path, "DELETE FROM ledger WHERE seq = 2490")
    assert facts(diagnose.collect(None, None, path), "store")["chain"].verdict == "bad"


def change(path: Path, command: str) -> None:
    with sqlite3.connect(path) as db:
        db.execute(command)
    db.close()


def test_where_the_store_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TILLWIRE_CONFIG", raising=False)
    used = config(tmp_path)
    with pytest.raises(StoreError, match="--store"):
        diagnose.find_store(None, tmp_path / "agent.toml")
    path = filled(used.terminal.data)
    assert diagnose.find_store(path, None) == path
    assert diagnose.find_store(path.parent, None) == path
    assert diagnose.find_store(None, tmp_path / "agent.toml") == path
    monkeypatch.setenv("TILLWIRE_CONFIG", str(tmp_path / "agent.toml"))
    assert diagnose.find_store(None, None) == path
    with pytest.raises(ConfigError):
        diagnose.find_store(None, tmp_path / "none.toml")


def test_offline_a_wrong_configuration_is_the_first_fact_and_the_store_is_still_looked_at(tmp_path: Path) -> None:
    path = filled(tmp_path / "data")
    (tmp_path / "agent.toml").write_text("[terminal\n")
    found: list[dict[str, Any]] = diagnose.collect_offline(tmp_path / "agent.toml", path.parent)
    assert found[0]["facts"][0]["verdict"] == "bad"
    assert "TOML" in found[0]["facts"][0]["value"]
    assert "store" in [section["title"] for section in found]
    assert found[-1]["title"] == diagnose.END
    json.dumps(found)


def test_a_trace_shows_what_the_driver_says_of_the_line_and_never_its_bytes() -> None:
    master, slave = pty.openpty()
    tty.setraw(slave)
    heard: list[str] = []

    def hear(line: str) -> None:
        heard.append(line)
        if "asks Q1" in line:
            os.write(master, b"4711 is no frame of a UPS\r")

    try:
        found = probe(os.ttyname(slave), "ups", seconds=1.0, say=hear, trace=True)
    finally:
        os.close(master)
        os.close(slave)
    assert found["received"] > 0
    assert any("asks Q1" in line for line in heard)
    assert not any("34 37 31 31" in line or "4711" in line for line in heard)


def test_a_port_that_is_not_there_is_told_before_anything_is_asked() -> None:
    heard: list[str] = []
    with pytest.raises(LinkError) as refused:
        probe("/no/such/port", "ups", say=heard.append)
    assert refused.value.cause == "missing"
    assert heard == []
