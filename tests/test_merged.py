"""A pushed text: it replaces every table but the local ones, or is refused with one sentence that names the key."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.config import LOCAL, LONGEST, Config, merged, parse
from agent.errors import ConfigError

OWN = """
[terminal]
org = "coop"
id = "ATM-0001"
data = "data"
groups = ["atm", "north"]

[push]
signers = "push-signers.toml"
probation = 60

[broker]
host = "127.0.0.1"
port = 1

[devices.old]
kind = "no kind at all"
"""
PUSHED = """
[broker]
host = "127.0.0.1"
port = 2

[devices.ups1]
kind = "ups"
port = "./run/ups1"
"""
KEYS = """
[keys]
epp = "epp1"
hierarchy = "test"
signers = "signers.toml"
maintenance = { "panel1.operator_switch" = "maintenance" }
stopped = { "panel1.operator_switch" = "maintenance" }
"""


def made(pushed: str, own: str = OWN, folder: Path = Path("/etc/till")) -> Config:
    return merged(own.encode(), pushed.encode(), folder)


def refused(pushed: str, own: str = OWN) -> str:
    with pytest.raises(ConfigError) as caught:
        made(pushed, own)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert len(sentence) <= LONGEST + 1
    return sentence


def test_the_local_tables_are_the_file_s_and_all_others_are_pushed() -> None:
    config = made(PUSHED)
    assert config.terminal.groups == ("atm", "north")
    assert config.push is not None
    assert (config.push.signers, config.push.probation) == (Path("/etc/till/push-signers.toml"), 60)
    assert config.broker is not None
    assert config.broker.port == 2
    assert list(config.devices) == ["ups1"], "none of the file's own devices, however they are"
    assert config.devices["ups1"].port == "/etc/till/run/ups1"
    assert made("").devices == {}, "an empty push has no devices and no broker"


def test_the_digest_is_of_what_is_in_force() -> None:
    text = (OWN.partition("[devices.old]")[0]).encode()
    assert parse(text, Path()).digest == hashlib.sha256(text).hexdigest()
    both = hashlib.sha256(OWN.encode()).digest() + hashlib.sha256(PUSHED.encode()).digest()
    assert made(PUSHED).digest == hashlib.sha256(both).hexdigest()
    assert len({made(PUSHED).digest, made(PUSHED + "#").digest, made(PUSHED, OWN + "#").digest}) == 3


@pytest.mark.parametrize("table", LOCAL)
def test_a_local_table_cannot_be_pushed(table: str) -> None:
    for text in (f"[{table}]\n", f"{table} = 3\n", f'[{table}.x]\ny = "z"\n'):
        assert refused(text + PUSHED).startswith(f"{table}: the table [{table}] is the terminal's own")


@pytest.mark.parametrize(
    ("pushed", "says"),
    [
        (PUSHED.replace('"ups"', '"usp"'), ["devices.ups1.kind", "there is no kind 'usp'"]),
        (PUSHED + '[devices.b]\nkind = "ups"\nport = "./run/ups1"\n', ["devices.b.port", "devices.ups1"]),
        (PUSHED.replace("127.0.0.1", "10.1.2.3"), ["broker.tls is missing"]),
        (PUSHED + "[brokers]\n", ["brokers is not a known key", "did you mean broker"]),
        (PUSHED + "[x\n", ["not valid TOML"]),
        ("[devices.ups1]\n" + PUSHED, ["not valid TOML"]),
        ("x = " + "[" * 10_000 + "]" * 10_000, ["not valid TOML", "nested too deeply"]),
        ("x = " + "[" * 100 + "]" * 100, ["x is nested too deeply"]),
        ("devices" + ".a" * 1000 + " = 1", ["devices.a is nested too deeply"]),
        (PUSHED + 'poll = "' + "long " * 5000 + '"\n', ["devices.ups1.poll"]),
        (PUSHED.replace("./run/ups1", "/dev/tty\\u0000S0"), ["devices.ups1.port", "\\u0000"]),
        (PUSHED.replace("ups1]", '"u\\u0000"]'), ["\\u0000"]),
        ('digest = "x"\n', ["digest is not a key"]),
        ("devices = 3\n", ["devices must be tables"]),
    ],
)
def test_a_mistake_in_a_pushed_text_is_one_bounded_sentence(pushed: str, says: list[str]) -> None:
    sentence = refused(pushed)
    for part in says:
        assert part in sentence, sentence


def test_keys_that_do_not_fit_the_pushed_devices_are_named() -> None:
    assert refused(PUSHED, OWN + KEYS).startswith("keys.epp: there is no [devices.epp1]; there is ups1")


def test_what_looks_like_a_key_is_refused_and_not_repeated_but_ports_may_look_like_one() -> None:
    pasted = "0123456789ABCDEF0123456789ABCDEF"
    for text in (f'poll = "{pasted}"\n', f'note = ["{pasted}"]\n', f'"{pasted}" = 1\n', f'x.y.z = "{pasted}"\n'):
        assert "is that a component?" in (sentence := refused(PUSHED + text))
        assert "0123456789" not in sentence
    assert "0123456789" not in refused(f'[devices.{pasted}]\nkind = "ups"\n')
    assert (
        made(PUSHED.replace("./run/ups1", f"/dev/serial/by-id/usb-x-{pasted}"))
        .devices["ups1"]
        .port.endswith(pasted)
    )


@pytest.mark.parametrize(
    ("own", "says"),
    [
        (OWN.replace("probation = 60", "probation = 9"), ["push.probation", "10"]),
        (OWN.replace("probation = 60", 'reboot = "yes"'), ["push.reboot", "boolean"]),
        (OWN.replace("probation = 60", 'commands = ["restat"]'), ["push.commands.0 cannot be 'restat'", "restart"]),
        (OWN.replace('signers = "push-signers.toml"', ""), ["push.signers is missing"]),
        (OWN.replace('"north"', '"n/orth"'), ["terminal.groups.1 cannot be 'n/orth'"]),
        (OWN.replace('["atm", "north"]', '"atm"'), ["terminal.groups must be a list"]),
        (OWN + "[", ["not valid TOML"]),
    ],
)
def test_a_mistake_in_a_local_table_is_named_too(own: str, says: list[str]) -> None:
    sentence = refused(PUSHED, own)
    for part in says:
        assert part in sentence, sentence


words = st.sampled_from(
    (
        *("kind", "port", "line", "access", "baud", "poll", "address", "inputs", "ups", "modbus", "bus", "/dev/a"),
        *("tls", "ca", "host", "hosts", "127.0.0.1", "socket://h:1", "ws://[::1", "x\0", "\ud7ff", "", "0" * 40),
    )
)
scalars = words | st.booleans() | st.integers(-1, 70000) | st.floats(allow_nan=True) | st.text(max_size=8)
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(words, v, max_size=3), max_leaves=8
)
device = st.dictionaries(words, values, max_size=5) | st.just({"kind": "ups", "port": "/dev/a"}) | values
tops = st.fixed_dictionaries(
    {},
    optional={
        "broker": device,
        "uplink": device,
        "lines": st.dictionaries(words, device, max_size=2) | values,
        "devices": st.dictionaries(words, device, max_size=3) | values,
    },
)


def toml(value: Any) -> str:
    """An inline TOML value."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(c):08x}" for c in value) + '"'
    return str(value)


@settings(max_examples=80, deadline=None)
@given(tops)
def test_whatever_is_pushed_is_a_configuration_or_one_sentence(pushed: dict[str, Any]) -> None:
    text = "".join(f"{toml(name)} = {toml(table)}\n" for name, table in pushed.items())
    sentence = ""
    try:
        assert made(text).terminal.id == "ATM-0001"
    except ConfigError as error:
        sentence = str(error)
    assert len(sentence) <= LONGEST + 1
