"""The configuration: every mistake is one sentence with the key's path and what would be right."""

from pathlib import Path

import pytest

from agent.config import load, merged, parse
from agent.errors import ConfigError

GOOD = """
[terminal]
org = "coop"
id = "ATM-0001"
data = "data"

[broker]
host = "127.0.0.1"

[devices.ups1]
kind = "ups"
port = "/dev/ttyS0"
"""

BUS = """
[terminal]
org = "coop"
id = "ATM-0001"
data = "data"
[lines.bus]
kind = "modbus"
port = "/dev/ttyS4"
[devices.p1]
line = "bus"
address = 1
"""
XFS = """
[terminal]
org = "coop"
id = "ATM-0001"
data = "data"
[lines.v]
kind = "xfs4iot"
port = "ws://127.0.0.1"
[devices.d]
line = "v"
service = "SimPrinter"
"""


def test_devices_on_a_line_have_its_kind_and_its_port(tmp_path: Path) -> None:
    config = parse((BUS + '[devices.p2]\nline = "bus"\naddress = 2\n').encode(), tmp_path)
    assert [(d.kind, d.port, d.access, d.options.address) for d in config.devices.values()] == [
        ("modbus", "/dev/ttyS4", "own", 1),
        ("modbus", "/dev/ttyS4", "own", 2),
    ]
    assert parse(XFS.encode(), tmp_path).devices["d"].access == "service"


def test_tls_of_a_line_is_below_the_file(tmp_path: Path) -> None:
    secure = XFS.replace("ws://", "wss://").replace("[devices.d]", '[lines.v.tls]\nca = "ca.pem"\n[devices.d]')
    tls = parse(secure.encode(), tmp_path).lines["v"].tls
    assert tls is not None
    assert tls.ca == tmp_path / "ca.pem"


def test_a_good_file_is_absolute_frozen_and_has_a_digest(tmp_path: Path) -> None:
    path = tmp_path / "terminal.toml"
    path.write_text(GOOD + '[devices.p]\nkind = "printer"\nport = "./run/p"\npaper = "journal"\n')
    config = load(path)
    assert config.terminal.data == tmp_path / "data"
    assert config.devices["p"].port == str(tmp_path / "run/p")
    assert config.devices["p"].options.paper == "journal"
    assert config.broker is not None
    assert (config.broker.port, config.broker.protocol) == (1883, "5")
    assert len(config.digest) == 64
    with pytest.raises(ValueError, match="frozen"):
        config.terminal.id = "other"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (GOOD.replace('id = "ATM-0001"', ""), ["terminal.id is missing"]),
        (GOOD.replace("kind =", "knid ="), ["devices.ups1.kind is missing", "printer"]),
        (GOOD.replace('"ups"', '"usp"'), ["devices.ups1.kind", "'usp'", "printer", "ups"]),
        (GOOD.replace("port = ", "prot = "), ["devices.ups1.prot is not a known key", "did you mean port"]),
        (GOOD + "pol = 1\n", ["devices.ups1.pol is not a known key", "did you mean poll"]),
        (GOOD + 'poll = "often"\n', ["devices.ups1.poll", "number", "'often'"]),
        (GOOD + 'access = "share"\n', ["devices.ups1.access cannot be 'share'", "it can be own"]),
        (GOOD + 'access = "listen"\n', ["devices.ups1.access cannot be 'listen'"]),
        (GOOD + "baud = 12\n", ["devices.ups1.baud", "50"]),
        (GOOD + '[devices."a/b"]\nkind = "ups"\nport = "x"\n', ["letters, digits"]),
        (GOOD + "[broken\n", ["not valid TOML", "line"]),
        (GOOD + "[brokers]\nhost = 'x'\n", ["brokers is not a known key", "did you mean broker"]),
        (GOOD.replace('id = "ATM-0001"', 'id = "ATM/1"'), ["terminal.id cannot be 'ATM/1'"]),
        (GOOD + '[devices.u2]\nkind = "ups"\nport = "/dev/ttyS0"\n', ["devices.u2.port", "devices.ups1"]),
        (GOOD.replace("127.0.0.1", "broker.example.org"), ["broker.tls is missing", "broker.example.org"]),
        (GOOD.replace("127.0.0.1", "10.1.2.3"), ["broker.tls is missing"]),
        (GOOD.replace('host = "127.0.0.1"', ""), ["broker: give host", "hosts"]),
        (GOOD.replace("host = ", 'hosts = ["127.0.0.1"]\nhost = '), ["broker: give host", "hosts"]),
        (GOOD.replace('host = "127.0.0.1"', "hosts = []"), ["broker: give host", "hosts"]),
        (
            GOOD.replace('host = "127.0.0.1"', 'hosts = ["127.0.0.1"]\nport = 1883'),
            ["broker: port belongs to host"],
        ),
        (
            GOOD.replace('host = "127.0.0.1"', 'hosts = ["mqtt://a"]'),
            ["broker: 'mqtt://a' is no broker", "HOST:PORT"],
        ),
        (GOOD.replace('host = "127.0.0.1"', 'hosts = ["a:99999"]'), ["broker: 'a:99999' is no broker"]),
        (
            GOOD.replace('host = "127.0.0.1"', 'hosts = ["127.0.0.1", "b:1"]'),
            ["broker.tls is missing", "and b is another"],
        ),
        (GOOD + 'digest = "x"\n', ["devices.ups1.digest"]),
        ('digest = "x"\n' + GOOD, ["digest is not a key"]),
        ("devices = 3\n", ["devices must be tables"]),
        ("devices.ups1 = 3\n", ["devices.ups1 must be a table"]),
        (GOOD + "poll = 0\n", ["devices.ups1: poll must be more than 0"]),
        (BUS + '[devices.bus]\nkind = "ups"\nport = "x"\n', ["lines.bus and devices.bus have the same name"]),
        (BUS.replace('line = "bus"', 'line = "buss"'), ["devices.p1.line: there is no [lines.buss]", "bus"]),
        (BUS.replace('line = "bus"', 'line = "bus"\nport = "/dev/x"'), ["devices.p1.port belongs to [lines.bus]"]),
        (BUS.replace("address = 1\n", ""), ["devices.p1.address is missing"]),
        (BUS.replace("address = 1\n", "address = 300\n"), ["devices.p1: address must be 1 to 247"]),
        (BUS + '[devices.p2]\nline = "bus"\naddress = 1\n', ["lines.bus:", "address 1"]),
        (BUS + '[lines.spare]\nkind = "modbus"\nport = "/dev/s"\n', ["lines.spare has no device"]),
        (BUS + '[devices.x]\nkind = "modbus"\nport = "x"\n', ["devices.x.kind: modbus serves several devices"]),
        (BUS.replace('kind = "modbus"', 'kind = "ups"'), ["lines.bus.kind: a ups is alone on its line"]),
        (BUS.replace('kind = "modbus"', 'kind = "bus"'), ["lines.bus.kind: there is no kind 'bus'", "modbus"]),
        (
            BUS + "[devices.p1.inputs]\ntamper = { at = 0, activ = 'on' }\n",
            ["activ is not a known key", "did you mean active"],
        ),
        (BUS + "[devices.p1.inputs]\ntampr = { at = 0 }\n", ["devices.p1:", "tampr"]),
        (
            BUS.replace("/dev/ttyS4", "ws://127.0.0.1"),
            ["lines.bus.port: ws://127.0.0.1 cannot be the port of a modbus"],
        ),
        (XFS.replace("ws://127.0.0.1", "/dev/ttyS4"), ["lines.v.port: /dev/ttyS4 is no address of a xfs4iot"]),
        (XFS.replace("127.0.0.1", "10.1.2.3"), ["lines.v.port: plain text is allowed to this machine only"]),
        (XFS.replace("ws://", "wss://"), ["lines.v.tls is missing"]),
        (
            XFS.replace("ws://127.0.0.1", "ws://127.0.0.1:99999"),
            ["lines.v.port: ws://127.0.0.1:99999 is no address"],
        ),
        (XFS.replace("ws://127.0.0.1", "ws://[::1"), ["lines.v.port: ws://[::1 is no address"]),
        (
            XFS.replace("[devices.d]", '[lines.v.tls]\nca = "x"\n[devices.d]'),
            ["lines.v.tls: ws://127.0.0.1 does not"],
        ),
        (XFS.replace('"xfs4iot"', '"xfs4iot"\nbaud = 9600'), ["lines.v.baud: a xfs4iot is on no serial line"]),
        (
            GOOD.replace("/dev/ttyS0", "spy:///dev/ttyS0?file=x"),
            ["devices.ups1.port", "is no address"],
        ),
        (GOOD.replace('"ups"', '["ups"]'), ["devices.ups1.kind must be a text"]),
        (
            GOOD + '[devices.a]\nkind = "acceptor"\nport = "x"\naccess = "listen"\naccept = true\n',
            ["devices.a: accept"],
        ),
        (
            GOOD + '[devices.r]\nkind = "card_reader"\nport = "x"\naccess = "listen"\ncounting = true\n',
            ["devices.r:"],
        ),
        (GOOD + 'access = ["own"]\n', ["devices.ups1.access must be a text"]),
        (XFS.replace('line = "v"', 'line = ["v"]'), ["devices.d.line must be a text"]),
        (XFS + 'access = "own"\n', ["devices.d.access cannot be 'own'"]),
        (GOOD + "[uplink]\nlinger = -1\n", ["uplink.linger", "-1"]),
        ("", ["terminal is missing"]),
    ],
)
def test_a_mistake_is_one_sentence_that_names_the_key(text: str, says: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text.encode(), tmp_path)
    sentence = str(caught.value)
    for part in says:
        assert part in sentence, sentence
    assert "\n" not in sentence
    assert "pydantic" not in sentence
    assert len(sentence) < 250


def test_two_names_of_one_port_are_found(tmp_path: Path) -> None:
    (tmp_path / "tty").write_text("")
    (tmp_path / "by-id").symlink_to("tty")
    text = GOOD.replace("/dev/ttyS0", "./tty") + '[devices.u2]\nkind = "ups"\nport = "./by-id"\n'
    with pytest.raises(ConfigError, match=r"already the port of devices\.ups1"):
        parse(text.encode(), tmp_path)


def test_with_tls_a_distant_broker_is_fine_and_files_are_absolute(tmp_path: Path) -> None:
    text = GOOD.replace('host = "127.0.0.1"', 'host = "broker.example.org"\ntls = { ca = "ca.pem" }')
    config = parse(text.encode(), tmp_path)
    assert config.broker is not None
    assert config.broker.tls is not None
    assert config.broker.tls.ca == tmp_path / "ca.pem"
    assert config.broker.port == 8883


def test_several_brokers_have_the_usual_port_where_none_is_given(tmp_path: Path) -> None:
    several = 'hosts = ["mqtt1.example.org", "mqtt2.example.org:8884", "[fd00::5]:8885"]\ntls = { ca = "ca.pem" }'
    config = parse(GOOD.replace('host = "127.0.0.1"', several).encode(), tmp_path)
    assert config.broker is not None
    assert config.broker.addresses == (("mqtt1.example.org", 8883), ("mqtt2.example.org", 8884), ("fd00::5", 8885))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.toml: cannot be read \(No such file"):
        load(tmp_path / "nowhere.toml")
    (tmp_path / "latin.toml").write_bytes(b'[terminal]\nid = "\xe9"\n')
    with pytest.raises(ConfigError, match=r"latin\.toml: not valid TOML"):
        load(tmp_path / "latin.toml")


@pytest.mark.parametrize(
    "text",
    [
        '[devices.x]\nkind = "ups"\nport = "ws://joe:Pass.9@192.0.2.1/"\n',
        '[devices.x]\nkind = "ups"\nport = "socket://joe:Pass.9@192.0.2.1:99999"\n',
        '[devices.x]\nkind = "ups"\nport = ["ws://joe:Pass.9@192.0.2.1/"]\n',
        "".join(f'[devices.{x}]\nkind = "ups"\nport = "socket://joe:Pass.9@h:9"\n' for x in "xy"),
        '[broker]\nhosts = ["joe:Pass.9@h"]\n',
        '[broker]\nhosts = "joe:Pass.9@h"\n',
        '[broker]\nhost = "joe:Pass.9@h"\n',
        'broker = "mqtt://joe:Pass.9@h"\n',
    ],
)
def test_no_sentence_repeats_a_login(text: str, tmp_path: Path) -> None:
    own = '[terminal]\norg = "coop"\nid = "A"\ndata = "data"\n'
    for local, pushed in ((own, text), (text + own, "")):
        with pytest.raises(ConfigError) as error:
            merged(local.encode(), pushed.encode(), tmp_path) if pushed else parse(local.encode(), tmp_path)
        assert "Pass" not in str(error.value)
        assert "joe" not in str(error.value)
