"""Generated pages are what the code says, and the README's commands exist."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from jsonschema import Draft202012Validator

from agent import messages
from agent.config import parse
from agent.drivers import DRIVERS, SHARED, driver_class
from agent.ledger import canonical, genesis, link

ROOT = Path(__file__).parent.parent


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["points.md", "asyncapi.yaml"])
def test_a_generated_page_is_up_to_date(name: str) -> None:
    made = generator().GENERATED[name]()
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == made, "run `make docs`"


def validator(model: str) -> Draft202012Validator:
    page = yaml.safe_load((ROOT / "docs/asyncapi.yaml").read_text(encoding="utf-8"))
    schemas = page["components"]["schemas"]
    return Draft202012Validator({**schemas[model], "components": {"schemas": schemas}})


def test_a_ledger_batch_is_what_the_page_says_and_can_be_recomputed() -> None:
    body = canonical({"seq": 1, "at": 5, "up": 6, "boot": "b", "kind": "change", "device": "钞箱", "value": "low"})
    begin = genesis("ATM-0001", "e")
    payload = messages.ledger_batch("e", begin, [(1, body, link(begin, body))])
    validator("LedgerBatch").validate(json.loads(payload))
    batch = messages.LedgerBatch.model_validate_json(payload)
    assert link(bytes.fromhex(batch.before), body).hex() == batch.hash
    assert body in payload, "the rows travel as the bytes that were hashed"


def test_births_deaths_and_states_are_what_the_page_says() -> None:
    device = messages.SessionDevice(name="ups1", kind="ups", access="own")
    birth = messages.Birth(
        online=True,
        session="s",
        at=1,
        boot="b",
        version="1",
        config="c",
        epoch="e",
        head=2,
        acked=1,
        devices=(device,),
    )
    death = messages.Death(online=False, session="s", at=1, reason="lost")
    state = messages.DeviceState(
        session="s", at=1, points={"mains": messages.PointState(value="ok", at=1, unknown=True)}
    )
    for message in (birth, death, state):
        content = json.loads(messages.compact(message))
        validator(type(message).__name__).validate(content)
        assert type(message).model_validate(content) == message
    assert json.loads(messages.compact(birth))["online"] is True


DEVICES_PAGE = (ROOT / "docs/devices.md").read_text(encoding="utf-8")
TERMINAL = '[terminal]\norg = "coop"\nid = "ATM-0001"\ndata = "data"\n'


def sections() -> dict[str, str]:
    """Each kind's section of docs/devices.md, by kind."""
    parts = re.split(r"^## (\w+): ", DEVICES_PAGE, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_page_of_devices_has_every_kind() -> None:
    assert set(sections()) == set(DRIVERS) | set(SHARED)


@pytest.mark.parametrize("kind", sorted(sections()))
def test_a_configuration_on_the_page_of_devices_can_be_loaded(kind: str, tmp_path: Path) -> None:
    examples = re.findall(r"```toml\n(.*?)```", sections()[kind], re.S)
    assert examples
    for text in examples:
        config = parse((TERMINAL + text).encode(), tmp_path)
        assert {device.kind for device in config.devices.values()} == {kind}


@pytest.mark.parametrize("kind", sorted(sections()))
def test_the_page_of_devices_names_every_operation_and_what_is_not_proven(kind: str) -> None:
    section = sections()[kind]
    assert not [verb for verb in driver_class(kind).operations if f"`{verb}`" not in section]
    assert "ot proven" in section
