"""The map of a Modbus module: what a technician writes, what it means, and what is refused."""

from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from agent.drivers.panel import PAIRS, Input, PanelOptions, Register
from agent.drivers.rtu import Block, plan
from agent.points import POINTS


def test_places_are_fetched_by_as_few_reads_as_the_bridge_allows() -> None:
    places = [(2, 3), (2, 0), (4, 0), (2, 9), (2, 40), (4, 1)]
    assert plan(places, 16) == [Block(2, 0, 10), Block(2, 40, 1), Block(4, 0, 2)]
    assert plan(places, 0) == [Block(2, 0, 1), Block(2, 3, 1), Block(2, 9, 1), Block(2, 40, 1), Block(4, 0, 2)]
    assert plan([(2, 0), (2, 2)], 0) == [Block(2, 0, 1), Block(2, 2, 1)]
    assert plan([(2, 0), (2, 2)], 1) == [Block(2, 0, 3)]
    assert [block.count for block in plan([(4, n) for n in range(300)], 0)] == [125, 125, 50]
    assert [block.count for block in plan([(2, n) for n in range(2001)], 0)] == [2000, 1]


def test_a_register_is_signed_scaled_and_may_be_absent() -> None:
    assert Register(0, signed=True, scale=0.1).value(0xFFF6) == -1.0
    assert Register(0).value(0xFFF6) == 65526
    assert Register(0, scale=0.1).value(3) == 0.3
    assert Register(0, scale=0.5, offset=-40).value(130) == 25.0
    assert Register(0, signed=True, absent=-32768).value(0x8000) is None


@pytest.mark.parametrize("point", [p for p in POINTS if p.kind == "word" and "*" not in p.pattern])
def test_the_usual_words_of_a_point_are_its_own(point: Any) -> None:
    if any({*pair.split()} <= {*point.words} for pair in PAIRS):
        idle, active = Input(0).words(point)
        assert f"{idle} {active}" in PAIRS
        assert Input(0, invert=True).words(point) == (active, idle)
    else:
        with pytest.raises(ValueError, match="idle is missing; it can be"):
            Input(0).words(point)


def parse(**table: Any) -> Any:
    return TypeAdapter(PanelOptions).validate_python({"address": 1, "inputs": {"safe_door": {"at": 0}}, **table})


def test_a_table_as_a_technician_writes_it_is_understood() -> None:
    table: Mapping[str, Any] = {
        "inputs": {
            "safe_door": {"at": 0, "active": "open", "idle": "closed"},
            "operator_switch": {"at": 3, "idle": "run", "active": "supervisor"},
            "input.water": {"at": 7},
        },
        "registers": {"ambient.temperature": {"at": 0, "scale": 0.1, "signed": True, "function": 4}},
    }
    own = parse(**table)
    said = own.understand({(2, 0): 1, (2, 3): 1, (2, 7): 0, (4, 0): 235}, 1.0)
    assert [(r.point, r.value, r.raw) for r in said] == [
        ("safe_door", "open", "input 0 = 1"),
        ("operator_switch", "supervisor", "input 3 = 1"),
        ("input.water", "off", "input 7 = 0"),
        ("ambient.temperature", 23.5, "input register 0 = 235"),
    ]


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"address": 0}, "address must be 1 to 247"),
        ({"poll": 0}, "poll must be"),
        ({"poll": 100}, "poll must be"),
        ({"function": 3}, "function must be 2"),
        ({"bridge": -1}, "bridge must be"),
        ({"polll": 1.0}, "unexpected"),
        (
            {"inputs": {"safe_dor": {"at": 0}}},
            "inputs.safe_dor: safe_dor is no word of the vocabulary; write safe_door",
        ),
        ({"inputs": {"link.state": {"at": 0}}}, "inputs.link.state: .* no word"),
        ({"inputs": {"ambient.temperature": {"at": 0}}}, "no word"),
        (
            {"inputs": {"safe_door": {"at": 0, "active": "opened"}}},
            "inputs.safe_door: active cannot be 'opened'; it can",
        ),
        ({"inputs": {"safe_door": {"at": 0, "active": "closed"}}}, "both 'closed'"),
        ({"inputs": {"operator_switch": {"at": 0}}}, "idle is missing; it can be run, maintenance"),
        ({"inputs": {"safe_door": {"at": 0}, "tamper": {"at": 0}}}, "input 0 is already inputs.safe_door"),
        ({"inputs": {"safe_door": {"at": 65536}}}, "at must be 0 to 65535"),
        ({"inputs": {"safe_door": {"at": 0, "activ": "open"}}}, "unexpected"),
        ({"registers": {"safe_door": {"at": 0}}}, "no measure or count"),
        ({"registers": {"ambient.humidity": {"at": 0, "function": 2}}}, "function must be 4"),
        ({"registers": {"ambient.humidity": {"at": 0, "scale": float("nan")}}}, "scale and offset must be finite"),
        (
            {"registers": {"ambient.humidity": {"at": 0, "offset": float("-inf")}}},
            "scale and offset must be finite",
        ),
        ({"registers": {"ambient.humidity": {"at": 0, "scale": 1e307}}}, "no value greater than 1e"),
        ({"outputs": {"siren": -1}}, "outputs.siren: at must be"),
    ],
)
def test_a_mistake_in_the_table_is_one_sentence(table: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        parse(**table)
