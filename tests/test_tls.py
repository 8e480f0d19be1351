"""TLS and access lists, for real: who is not to be trusted is refused, in both directions, before anything is sent;
it is said once, with the next step, and tried less and less often; and certificates are renewed while we run.
"""

import logging
import os
import shutil
import signal
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from agent import diagnose, uplink
from agent.config import Config, Tls
from agent.mqtt.brokerlook import look
from agent.mqtt.connection import Connection
from agent.tls import DAYS_LEFT, Credentials, context, days_left, ends
from tests.authority import Authority
from tests.uplinks import SHIPPED, Mosquitto, centre, settings, terminal
from tests.whole import site, wait

pytestmark = [pytest.mark.peer("mosquitto", "openssl")]
HERE = ("localhost", "DNS:localhost", "IP:127.0.0.1")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority that everybody trusts."""
    authority = Authority(tmp_path_factory.mktemp("pki"))
    authority.sign("broker", *HERE)
    authority.sign("centre", "centre")
    authority.sign("atm", "ATM-0001")
    return authority


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that nobody knows."""
    authority = Authority(tmp_path_factory.mktemp("other"), "other")
    authority.sign("broker", *HERE)
    authority.sign("atm", "ATM-0001")
    return authority


@pytest.fixture
def brokers(tmp_path: Path) -> Iterator[list[Mosquitto]]:
    """Brokers that a test has started; they end with it."""
    started: list[Mosquitto] = []
    yield started
    for broker in started:
        broker.stop()


def tls(ca: Authority, mine: Authority | None = None, name: str = "atm", more: str = "") -> str:
    """The table [broker.tls]."""
    ours = f'certificate = "{mine.folder}/{name}.pem"\nkey = "{mine.folder}/{name}.key"\n' if mine else ""
    return f'ca = "{ca.ca}"\n{ours}{more}'


def refused(config: Config, broker: Mosquitto, caplog: pytest.LogCaptureFixture, *says: str) -> None:
    """The uplink does not connect, says why and what to do, once; and so does a diagnosis."""
    caplog.clear()
    with caplog.at_level(logging.INFO), terminal(config) as one:
        wait("four attempts", lambda: broker.attempts() >= 4)
        assert one.says(*says), one.uplink.status
        assert one.uplink.status[0] == "down"
        assert one.store.acked == 0
    said = [record.message for record in caplog.records if "uplink:" in record.message]
    assert len(said) == 1, said
    for part in says:
        assert part in said[0]
    facts = {fact.label: fact for fact in look(config.broker, config.terminal)}
    assert facts["TLS"].verdict == "bad"
    for part in says:
        assert part in f"{facts['TLS'].value}; {facts['TLS'].next}"
    assert facts["TLS"].next


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("expired", ("the broker's certificate has expired", "clock")),
        ("not yet", ("the broker's certificate is not valid yet", "clock")),
        ("wrong host", ("the broker's certificate is for another host name", "write the name")),
        ("wrong ca", ("not signed by the authority in `ca`", "give the authority")),
        ("revoked", ("the broker's certificate is revoked", "must not be trusted")),
        ("old list", ("the list of revoked certificates has expired", "newest list")),
    ],
)
def test_a_broker_that_is_not_to_be_trusted_is_refused(
    case: str,
    says: tuple[str, ...],
    tmp_path: Path,
    good: Authority,
    other: Authority,
    brokers: list[Mosquitto],
    caplog: pytest.LogCaptureFixture,
) -> None:
    authority, more = good, ""
    if case == "wrong ca":
        authority = other
    elif case == "old list":
        authority = Authority(tmp_path, "lists")
        authority.sign("broker", *HERE)
        authority.list_revoked(end=-1)
    else:
        days = {"expired": (-3, -1), "not yet": (1, 2)}.get(case, (-1, 2))
        host = ("elsewhere", "DNS:elsewhere.example.org") if case == "wrong host" else HERE
        good.sign(case.replace(" ", ""), *host, begin=days[0], end=days[1])
    name = "broker" if authority is not good else case.replace(" ", "")
    if case == "revoked":
        good.revoke(name)
    if case in ("revoked", "old list"):
        more = f'crl = "{authority.crl}"\n'
    brokers.append(Mosquitto(tmp_path / "broker", authority, name))
    trusted = good if authority is other else authority
    refused(settings(tmp_path, brokers[0].port, tls=tls(trusted, good, more=more)), brokers[0], caplog, *says)


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("expired", ("this terminal's certificate has expired", "without a restart")),
        ("not yet", ("the broker does not take this terminal's certificate", "valid already")),
        ("wrong ca", ("does not know the authority of this terminal's certificate", "that the broker trusts")),
        ("revoked", ("this terminal's certificate is revoked", "ask why")),
        ("none", ("wants a certificate of this terminal", "add certificate and key")),
    ],
)
def test_a_terminal_that_is_not_to_be_trusted_is_refused(
    case: str,
    says: tuple[str, ...],
    tmp_path: Path,
    good: Authority,
    other: Authority,
    brokers: list[Mosquitto],
    caplog: pytest.LogCaptureFixture,
) -> None:
    days = {"expired": (-3, -1), "not yet": (1, 2)}.get(case, (-1, 2))
    good.sign("mine", "ATM-0001", begin=days[0], end=days[1])
    if case == "revoked":
        good.revoke("mine")
    brokers.append(Mosquitto(tmp_path / "broker", good))
    mine = {"wrong ca": tls(good, other), "none": tls(good)}.get(case, tls(good, good, "mine"))
    refused(settings(tmp_path, brokers[0].port, tls=mine), brokers[0], caplog, *says)


def test_a_trusted_terminal_delivers_through_the_shipped_files_and_diagnosis_is_content(
    tmp_path: Path, good: Authority, brokers: list[Mosquitto]
) -> None:
    brokers.append(Mosquitto(tmp_path / "broker", good))
    config = settings(tmp_path, brokers[0].port, tls=tls(good, good, more=f'crl = "{good.crl}"\n'))
    with centre(brokers[0], good) as heard, terminal(config) as one:
        wait("delivery", one.delivered)
        wait("the centre", lambda: any(topic == "ATM-0001/ledger" for topic, _ in heard))
        facts = {fact.label: fact for fact in look(config.broker, config.terminal)}
        assert (facts["TLS"].verdict, facts["TLS"].value[:4]) == ("ok", "TLSv")
        assert one.uplink.connected, "the look has not thrown the agent out"


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_terminal_cannot_write_below_anothers_topic(
    protocol: str, tmp_path: Path, good: Authority, brokers: list[Mosquitto], caplog: pytest.LogCaptureFixture
) -> None:
    brokers.append(Mosquitto(tmp_path / "broker", good))
    more, ours = f'protocol = "{protocol}"', tls(good, good)
    config = settings(tmp_path, brokers[0].port, more, terminal="ATM-0002", tls=ours)
    with centre(brokers[0], good) as heard, caplog.at_level(logging.INFO), terminal(config) as one:
        wait("four attempts", lambda: brokers[0].attempts() >= 5)
        assert heard == []
        assert one.store.acked == 0
        if protocol == "5":
            assert one.says("not authorized", "access list")
            assert len([r for r in caplog.records if "not authorized" in r.message]) == 1


WRITES = ("session", "state/ups1", "ledger", "traffic", "service", "config/reported", "command/result", "report/1")
READS = ("config/desired", "command", "trust/desired")


def test_the_access_list_lets_a_terminal_write_each_topic_of_its_own_but_not_what_it_is_sent_and_none_of_anothers(
    tmp_path: Path, good: Authority, brokers: list[Mosquitto]
) -> None:
    brokers.append(Mosquitto(tmp_path / "broker", good))
    config = settings(tmp_path, brokers[0].port, tls=tls(good, good))
    assert config.broker is not None
    assert config.broker.tls is not None
    for below, suffixes in (
        ("coop/ATM-0001", (*WRITES, *READS)),
        ("coop/ATM-0002", (*WRITES, *READS)),
        ("x/ATM-0001", WRITES),
    ):
        for suffix in suffixes:
            one = Connection(config.broker, config.broker.addresses[0], "writer", context(config.broker.tls))
            one.open(threading.Event())
            one.publish(f"tillwire/v1/{below}/{suffix}", b"{}", retain=False)
            while not one.events:
                one.turn(1.0)
            kind, (_, code) = one.events.popleft()
            is_its_own = below == "coop/ATM-0001" and suffix in WRITES
            assert (kind, code.is_failure) == ("ack", not is_its_own), f"{below}/{suffix}: {code}"
            one.cut()


def test_the_access_list_lets_a_terminal_hear_what_is_for_it_only(
    tmp_path: Path, good: Authority, brokers: list[Mosquitto]
) -> None:
    brokers.append(Mosquitto(tmp_path / "broker", good))
    heard: list[str] = []
    ready = threading.Event()
    curious = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="curious", protocol=mqtt.MQTTv5)
    ours = Tls(ca=good.ca, certificate=good.folder / "atm.pem", key=good.folder / "atm.key")
    curious.tls_set_context(context(ours))
    curious.on_connect = lambda c, *_: c.subscribe("#", qos=1)
    curious.on_subscribe = lambda *_: ready.set()
    curious.on_message = lambda c, u, message: heard.append(message.topic)
    curious.connect("127.0.0.1", brokers[0].port)
    curious.loop_start()
    try:
        assert ready.wait(10.0)
        theirs = Tls(ca=good.ca, certificate=good.folder / "centre.pem", key=good.folder / "centre.key")
        config = settings(tmp_path, brokers[0].port)
        assert config.broker is not None
        speaker = Connection(config.broker, config.broker.addresses[0], "speaker", context(theirs))
        speaker.open(threading.Event())
        for name in ("ATM-0002", "ATM-0001"):
            for suffix in READS:
                speaker.publish(f"tillwire/v1/coop/{name}/{suffix}", b"{}", retain=False)
        while len(heard) < len(READS):
            speaker.turn(0.1)
        assert heard == [f"tillwire/v1/coop/ATM-0001/{suffix}" for suffix in READS]
        speaker.close()
    finally:
        curious.disconnect()
        curious.loop_stop()


SESSION_ONLY = "pattern write tillwire/v1/coop/%u/session\nuser centre\ntopic read #\n"


def test_a_ledger_that_is_refused_is_not_delivered_and_leaves_the_terminal_as_gone(
    tmp_path: Path, good: Authority, brokers: list[Mosquitto]
) -> None:
    # With a limit (the shipped file has none) mosquitto 2.0.11 leaves the connection open after a refusal.
    brokers.append(Mosquitto(tmp_path / "broker", good, acl=SESSION_ONLY, more="max_queued_messages 1000"))
    config = settings(tmp_path, brokers[0].port, tls=tls(good, good))
    with centre(brokers[0], good) as heard, terminal(config) as one:
        wait("the refusal", lambda: one.says("not authorized"))
        wait("the last will", lambda: [m["online"] for _, m in heard][:2] == [True, False])
        assert heard[1][1]["reason"] == "lost"
        assert one.store.acked == 0


@pytest.mark.parametrize("limit", ["", "max_queued_messages 1000"])
def test_with_3_1_1_a_ledger_that_mosquitto_drops_is_not_delivered(
    limit: str,
    tmp_path: Path,
    good: Authority,
    brokers: list[Mosquitto],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It acknowledges what it drops, and hangs up or does not; but nothing comes back. A list that is put right
    ends it, without a restart."""
    monkeypatch.setattr(uplink, "PATIENCE", 0.3)
    brokers.append(Mosquitto(tmp_path / "broker", good, acl=SESSION_ONLY, more=limit))
    shipped = (SHIPPED / "acl").read_text().replace("example-coop", "coop")
    config = settings(tmp_path, brokers[0].port, 'protocol = "3.1.1"', tls=tls(good, good))
    with centre(brokers[0], good) as heard, caplog.at_level(logging.INFO), terminal(config) as one:
        wait("the refusal", lambda: one.says("does not pass them on to tillwire/v1/coop/ATM-0001/ledger", "read"))
        wait("two more attempts", lambda: len([m for _, m in list(heard) if m.get("online")]) > 2)
        assert one.store.acked == 0
        assert [topic for topic, _ in heard if topic.endswith("ledger")] == []
        assert len([r for r in caplog.records if "does not pass them on" in r.message]) == 1
        (brokers[0].folder / "acl").write_text(shipped)
        brokers[0].process.send_signal(signal.SIGHUP)
        wait("delivery", one.delivered)
        wait("the centre", lambda: any(topic.endswith("ledger") for topic, _ in list(heard)))
        assert one.uplink.proven > 0


def renew(authority: Authority, source: str, target: Path) -> None:
    """Put NAME.pem and NAME.key where a terminal's certificate is, one after the other, as a tool does."""
    for ending in ("pem", "key"):
        shutil.copy(authority.folder / f"{source}.{ending}", target / f"new.{ending}")
        os.replace(target / f"new.{ending}", target / f"mine.{ending}")


def test_a_new_certificate_is_used_without_a_restart(
    tmp_path: Path, good: Authority, brokers: list[Mosquitto]
) -> None:
    brokers.append(Mosquitto(tmp_path / "broker", good))
    good.sign("next", "ATM-0001", end=60)
    renew(good, "atm", tmp_path)
    ours = f'ca = "{good.ca}"\ncertificate = "mine.pem"\nkey = "mine.key"\n'
    config = settings(tmp_path, brokers[0].port, tls=ours)
    with centre(brokers[0], good) as heard, terminal(config) as one:

        def told() -> list[float]:
            return [m["certificate"] / 1000 for _, m in list(heard) if m.get("online")]

        wait("delivery", one.delivered)
        renew(good, "next", tmp_path)
        wait("the new certificate", lambda: len(told()) == 2)
        assert told() == [ends(good.folder / "atm.pem"), ends(good.folder / "next.pem")]
        one.commit(3)
        wait("delivery again", one.delivered)


def test_a_new_certificate_that_is_no_good_takes_nothing_away(
    tmp_path: Path, good: Authority, other: Authority, brokers: list[Mosquitto]
) -> None:
    brokers.append(Mosquitto(tmp_path / "broker", good))
    renew(good, "atm", tmp_path)
    ours = f'ca = "{good.ca}"\ncertificate = "mine.pem"\nkey = "mine.key"\n'
    config = settings(tmp_path, brokers[0].port, tls=ours)
    with centre(brokers[0], good) as heard, terminal(config) as one:
        wait("delivery", one.delivered)
        renew(other, "atm", tmp_path)
        wait("the trial", lambda: one.says("but not with the new certificate files", "does not know the authority"))
        assert one.uplink.connected
        assert [m for _, m in heard if m.get("online") is False] == [], "the old connection has stayed"
        brokers[0].stop()
        wait("the loss", lambda: not one.uplink.connected)
        one.commit(3)
        brokers[0].start()
        wait("the old certificate again", one.delivered)


def test_half_a_renewal_is_no_renewal(tmp_path: Path, good: Authority) -> None:
    """Certificate and key are two files: between the two writes they do not fit each other."""
    good.sign("next", "ATM-0001")
    renew(good, "atm", tmp_path)
    files = Credentials(Tls(ca=good.ca, certificate=tmp_path / "mine.pem", key=tmp_path / "mine.key"))
    first = files.context()
    files.worked()
    assert files.fresh() is None
    shutil.copy(good.folder / "next.pem", tmp_path / "mine.pem")
    assert files.context() is first, "a lost connection comes back with what worked"
    assert files.context() is first
    assert files.fresh() is None, "they are known not to fit"
    os.utime(tmp_path / "mine.pem", ns=(0, 0))
    with pytest.raises(ssl.SSLError):
        files.fresh()
    assert files.fresh() is None, "it is said once"
    shutil.copy(good.folder / "next.key", tmp_path / "mine.key")
    assert files.fresh() is not None
    files.acquit()
    assert files.context() is not first


def test_mended_files_end_a_long_wait(
    tmp_path: Path, good: Authority, other: Authority, brokers: list[Mosquitto]
) -> None:
    brokers.append(Mosquitto(tmp_path / "broker", good))
    renew(other, "atm", tmp_path)
    ours = f'ca = "{good.ca}"\ncertificate = "mine.pem"\nkey = "mine.key"\n'
    config = settings(tmp_path, brokers[0].port, tls=ours)
    slow = config.model_copy(
        update={"uplink": config.uplink.model_copy(update={"retry": 3600.0, "refused": 3600.0})}
    )
    with terminal(slow) as one:
        wait("the refusal", lambda: one.says("does not know the authority"))
        renew(good, "atm", tmp_path)
        wait("delivery", one.delivered)


def test_the_days_left_are_told(tmp_path: Path) -> None:
    """Dates of both forms: to 2049 two digits of the year, later four (RFC 5280, 4.1.2.5)."""
    authority = Authority(tmp_path)
    for days, verdict in ((DAYS_LEFT + 1, "ok"), (DAYS_LEFT - 1, "warn"), (-1, "bad"), (36500, "ok")):
        hosts = HERE[1:] if verdict == "warn" else ()  # with extensions it is of version 3, without of version 1
        path, _ = authority.sign(f"c{days}", "ATM-0001", *hosts, begin=-3, end=days)
        assert days - 0.01 < days_left(path) <= days
        config = settings(tmp_path, 1, tls=f'ca = "{authority.ca}"\ncertificate = "{path}"\n')
        fact = next(f for f in look(config.broker, config.terminal) if f.label == "certificate")
        assert fact.verdict == verdict
        assert bool(fact.next) == (verdict != "ok")
    path.write_text(ssl.DER_cert_to_PEM_cert(b"0\x00"))
    with pytest.raises(ValueError, match="no certificate"):
        ends(path)
    path.write_text(path.read_text()[:40])
    sections = diagnose.collect(config, None, None)
    fact = next(f for s in sections for f in s.facts if f.label == "certificate")
    assert fact.verdict == "bad", "half a file is a fact and not a failure"


def test_the_whole_agent_says_what_is_wrong_with_its_files(tmp_path: Path) -> None:
    with site(tmp_path, devices="") as whole:
        path = whole.configure("")
        path.write_text(path.read_text().replace("[uplink]", 'tls = { ca = "none.pem" }\n[uplink]'))
        whole.start("agent")
        wait("the socket", lambda: (tmp_path / "tw.sock").exists())
        wait(
            "the reason",
            lambda: "certificates in [broker.tls] cannot be used" in whole.ask(do="devices")["uplink"]["note"],
        )


def test_there_is_no_way_around_verification(good: Authority, other: Authority, tmp_path: Path) -> None:
    made = context(Tls(ca=good.ca, certificate=good.folder / "atm.pem", key=good.folder / "atm.key", crl=good.crl))
    assert made.verify_mode == ssl.CERT_REQUIRED
    assert made.check_hostname
    assert made.minimum_version >= ssl.TLSVersion.TLSv1_2
