"""The [keys] table and the file of signers: every mistake is one sentence that tells what would be right."""

from pathlib import Path
from typing import Any

import pytest

from agent.config import Config, load
from agent.crypto.ed25519 import PublicKey, SigningKey
from agent.crypto.secret import Secret
from agent.crypto.signing import ORDER, Rule
from agent.errors import ConfigError
from agent.keys.table import ROLES, Keys, keyring, parted, signers

TABLES = """
[terminal]
org = "coop"
id = "ATM-0001"
data = "data"
[devices.epp1]
kind = "epp"
port = "/dev/ttyS0"
keys = true
[devices.epp2]
kind = "epp"
port = "/dev/ttyS1"
[lines.bus]
kind = "modbus"
port = "/dev/ttyS4"
[devices.panel1]
line = "bus"
address = 1
[devices."hall.panel"]
line = "bus"
address = 2
"""
GOOD = {
    "epp": '"epp1"',
    "hierarchy": '"test"',
    "signers": '"hq/signers.toml"',
    "maintenance": '{ "panel1.operator_switch" = "maintenance" }',
    "stopped": '{ "hall.panel.operator_switch" = "maintenance" }',
}
PASTED = "0123456789ABCDEF0123456789ABCDEF"
MAKER, CHECKER = (SigningKey(Secret(bytes([number]) * 32)).public.pem for number in (1, 2))


def table(folder: Path, **changes: str) -> Config:
    """A terminal with this [keys] table; a change to nothing leaves a key out."""
    lines = [f"{name} = {text}" for name, text in {**GOOD, **changes}.items() if text]
    path = folder / "terminal.toml"
    path.write_text(TABLES + "\n".join(["[keys]", *lines]))
    return load(path)


def keys(folder: Path, **changes: str) -> Keys:
    found = table(folder, **changes).keys
    assert found is not None
    return found


def signer(name: str, role: str, key: str) -> str:
    return f'[[signer]]\nname = "{name}"\nroles = ["{role}"]\nkey = """{key}"""\n'


GOOD_SIGNERS = signer("hq-li", "maker", MAKER) + signer("hq-wang", "checker", CHECKER)


def test_a_good_table_has_absolute_paths_and_parted_conditions(tmp_path: Path) -> None:
    found = keys(tmp_path, doors='{ "panel1.cabinet_door.rear" = "locked" }')
    assert found.signers == tmp_path / "hq/signers.toml"
    assert found.conditions == {
        "maintenance": {("panel1", "operator_switch"): "maintenance"},
        "stopped": {("hall.panel", "operator_switch"): "maintenance"},
        "doors": {("panel1", "cabinet_door.rear"): "locked"},
    }
    assert (found.age_days, found.utc_offset, found.slots) == (0, 480, ())


@pytest.mark.parametrize(
    ("name", "device", "point"),
    [
        ("panel1.safe_door", "panel1", "safe_door"),
        ("a.b.safe_door", "a.b", "safe_door"),
        ("panel1.cabinet_door.rear", "panel1", "cabinet_door.rear"),
        ("panel1.tamper.internal", "panel1", "tamper.internal"),
        ("panel1.door", "panel1.door", ""),
        ("safe_door", "safe_door", ""),
        (".safe_door", ".safe_door", ""),
    ],
)
def test_the_longest_end_that_is_a_point_is_the_point(name: str, device: str, point: str) -> None:
    assert parted(name) == (device, point)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"epp": ""}, "keys.epp is missing"),
        ({"hierarchy": ""}, "keys.hierarchy is missing"),
        ({"signers": ""}, "keys.signers is missing"),
        ({"maintenance": ""}, "keys.maintenance is missing"),
        ({"stopped": ""}, "keys.stopped is missing"),
        ({"slot": '["TMK"]'}, "keys.slot is not a known key; did you mean slots?"),
        ({"hierarchy": '"live"'}, "keys.hierarchy cannot be 'live'; it can be 'production' or 'test'"),
        ({"signers": "3"}, "keys.signers must be a text that names a file, not 3"),
        ({"maintenance": "{}"}, "keys.maintenance must not be empty"),
        ({"stopped": "{}"}, "keys.stopped must not be empty"),
        ({"doors": "3"}, "keys.doors must be a table, not 3"),
        ({"slots": '"TMK"'}, "keys.slots must be a list like"),
        ({"slots": '["T MK"]'}, "keys.slots: the name of a slot has letters"),
        ({"working": f'["{PASTED}"]'}, "keys.working: the name of a slot has letters"),
        ({"inherited": '["TMK", ""]'}, "keys.inherited: the name of a slot has letters"),
        ({"age_days": "-1"}, "keys.age_days: input should be greater than or equal to 0, not -1"),
        ({"utc_offset": "841"}, "keys.utc_offset: input should be less than or equal to 840, not 841"),
        (
            {"epp": '"epp"'},
            "keys.epp: there is no [devices.epp]; there is epp1, epp2, hall.panel, panel1",
        ),
        (
            {"epp": '"epp2"'},
            "keys.epp: epp2 is only read: an encryptor into which keys are loaded needs keys = true",
        ),
        ({"epp": '"panel1"'}, "keys.epp: panel1 is a modbus: no keys can be loaded into it"),
        ({"doors": '{ "panel1.door" = "closed" }'}, 'keys.doors: "panel1.door" is no point of a device'),
        ({"doors": '{ "panel2.safe_door" = "closed" }'}, "keys.doors: there is no [devices.panel2]; there is"),
        ({"stopped": '{ "panel1.operator_switch" = "on" }'}, "keys.stopped: operator_switch is never 'on'; it can"),
        ({"maintenance": '{ "panel1.ambient.humidity" = "9" }'}, "keys.maintenance: ambient.humidity has no words"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_mistake_in_the_table_is_one_sentence(changes: dict[str, str], says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        table(tmp_path, **changes)
    sentence = str(caught.value)
    assert sentence.startswith(f"{tmp_path / 'terminal.toml'}: {says}"), sentence
    assert "\n" not in sentence
    assert "class" not in sentence
    assert PASTED not in sentence


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[broken\n", "is not valid TOML"),
        ("", "signer is missing"),
        ("signer = 3\n", "signer must be a list like"),
        ("signer = []\n", "there is no maker and no checker: an order needs one of each"),
        (signer("hq-li", "maker", MAKER), "there is no checker: an order needs one of each"),
        (signer("hq-li", "boss", MAKER), "signer.0.roles.0 cannot be 'boss'; it can be 'maker' or 'checker'"),
        (GOOD_SIGNERS.replace('["checker"]', "[]"), "signer.1.roles must not be empty"),
        (GOOD_SIGNERS.replace("hq-li", "hq li"), "signer.0.name cannot be 'hq li'; use letters, digits"),
        (GOOD_SIGNERS.replace("hq-li", "l" * 49), "and '-', at most 48"),
        (GOOD_SIGNERS.replace("roles", "role", 1), "signer.0.role is not a known key; did you mean roles?"),
        (GOOD_SIGNERS.replace(MAKER, "a key"), "the key of hq-li:"),
        (GOOD_SIGNERS.replace(CHECKER, MAKER), "was given to two signers: each must have their own"),
        (GOOD_SIGNERS.replace("hq-wang", "hq-li"), "hq-li is maker and checker: an order needs two people"),
        (
            signer("hq-li", "maker", MAKER).replace('["maker"]', '["maker", "checker"]'),
            "hq-li is maker and checker: an order needs two people",
        ),
    ],
    ids=lambda value: value[-40:],
)
def test_a_mistake_in_the_file_of_signers_is_one_sentence(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "signers.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        keyring(path)
    sentence = str(caught.value)
    assert says in sentence, sentence
    assert str(path) in sentence
    assert "\n" not in sentence


def test_a_file_of_signers_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"keys\.signers: .*nowhere\.toml cannot be read \(No such file"):
        signers(tmp_path / "nowhere.toml")
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory"):
        signers(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'[[signer]]\nname = "\xe9"\n')
    with pytest.raises(ConfigError, match=r"latin\.toml is not valid TOML"):
        signers(tmp_path / "latin.toml")


def test_a_private_key_in_the_file_is_refused_and_not_repeated(tmp_path: Path) -> None:
    private = SigningKey.generate().pem(Secret(b"a phrase for this test"))
    (tmp_path / "signers.toml").write_text(GOOD_SIGNERS.replace(MAKER, private))
    with pytest.raises(ConfigError) as caught:
        keyring(tmp_path / "signers.toml")
    assert private.splitlines()[1] not in str(caught.value)


def test_signers_that_are_enough_for_an_order_make_a_ring(tmp_path: Path) -> None:
    (tmp_path / "hq").mkdir()
    (tmp_path / "hq/signers.toml").write_text(GOOD_SIGNERS)
    found = keys(tmp_path)
    assert found.described() == "into epp1, test, ordered by hq-li, hq-wang"
    ring: Any = keyring(found.signers)
    people = [ring.find(PublicKey.from_pem(key).id) for key in (MAKER, CHECKER)]
    assert [person.name for person in people] == ["hq-li", "hq-wang"]
    assert Rule(ORDER, ROLES).met_by(people)
