"""The simulated secure device: what it refuses, how a component is typed, and what happens to it.

It shares no code with agent/: both answer to the vectors (test_hwsim_epp_vectors), and neither to the other.
"""

import ast
from pathlib import Path
from typing import Any

import pytest

import hwsim
from hwsim.secure_des import Cipher, check_value
from hwsim.secure_device import NoPower
from tests.secure import (
    ANSI,
    ANSI_KCV,
    BLOCK,
    BLOCK_KBPK,
    BLOCK_KCV,
    KBPK,
    TMK,
    TWO,
    Pad,
    split,
)

Json = dict[str, Any]


# Who may do what.


def test_it_holds_public_test_keys_only_unless_it_is_in_a_laboratory() -> None:
    private = "5E10A2C4D86B37F19D2C4E80B3F5A761"
    pad = Pad()
    answer = pad.assembled(TMK, split(private))
    assert answer["refused"] == "accessDenied"
    assert "--lab" in answer["why"]
    assert not pad.ask("state")["slots"]
    pad.assembled(TMK, TWO)
    under = Cipher("T", bytes.fromhex(ANSI))
    sealed = b"".join(under.encrypt(block) for block in under.blocks(bytes.fromhex(private))).hex()
    use = TMK | {"slot": "NEW", "under": "TMK", "value": sealed}
    assert pad.refused("cryptogram", **use) == "accessDenied"
    laboratory = Pad(laboratory=True)
    laboratory.assembled(TMK, split(private))
    assert laboratory.ask("check", slot="TMK", method="zero")["check_value"] == check_value(
        "T", bytes.fromhex(private)
    )


def test_a_key_in_clear_is_for_a_laboratory_only() -> None:
    assert Pad().refused("clear", **TMK, value=ANSI) == "accessDenied"
    assert Pad(laboratory=True).ask("clear", **TMK, value=ANSI)["check_value"] == ANSI_KCV
    assert Pad(laboratory=True).refused("clear", **TMK, value="00" * 16) == "contentInvalid"


def test_a_key_has_one_purpose() -> None:
    pad = Pad()
    pad.assembled(TMK, TWO)
    pad.assembled(KBPK, split(BLOCK_KBPK))
    assert pad.refused("block", slot="NEW", under="TMK", value=BLOCK) == "useViolation"
    sealed = TMK | {"slot": "NEW", "under": "KBPK", "value": "00" * 16}
    assert pad.refused("cryptogram", **sealed) == "useViolation"
    pad.ask("block", slot="TPK", under="KBPK", value=BLOCK)
    assert pad.ask("state")["slots"]["TPK"] == {
        "loaded": True,
        "usage": "P0",
        "algorithm": "T",
        "mode": "E",
        "version": "00",
        "exportability": "E",
        "bits": 128,
        "check_value": BLOCK_KCV,
    }
    assert pad.refused("block", slot="NEW", under="TPK", value=BLOCK) == "useViolation"


def test_a_key_has_a_use_that_there_is() -> None:
    pad = Pad()
    pad.typed(ANSI)
    assert pad.refused("part", **TMK | {"usage": "Q0"}) == "useViolation"
    assert pad.refused("part", **TMK | {"mode": "Q"}) == "modeNotSupported"


def test_no_key_is_carried_by_a_weaker_one() -> None:
    pad = Pad(laboratory=True)
    pad.ask("clear", **TMK, value=ANSI)
    triple = TMK | {"slot": "NEW", "under": "TMK", "value": BLOCK_KBPK + "1122334455667788"}
    assert pad.refused("cryptogram", **triple) == "useViolation"
    assert pad.refused("cryptogram", **triple | {"algorithm": "A", "value": "11" * 16}) == "useViolation"


# Components.


def test_one_component_is_no_key() -> None:
    pad = Pad()
    pad.typed(ANSI)
    assert pad.refused("complete", **TMK) == "accessDenied"
    pad.ask("delete", slot="TMK")
    pad.typed(ANSI)
    pad.ask("part", **TMK)
    assert pad.refused("complete", **TMK) == "accessDenied"
    assert pad.refused("check", slot="TMK", method="zero") == "keyNoValue"


def test_the_last_component_may_come_with_the_completion() -> None:
    pad = Pad()
    pad.typed(TWO[0])
    pad.ask("part", **TMK)
    pad.typed(TWO[1])
    assert pad.ask("complete", **TMK)["check_value"] == ANSI_KCV


def test_a_typed_component_is_used_once() -> None:
    pad = Pad()
    pad.typed(TWO[0])
    pad.ask("part", **TMK)
    assert pad.refused("part", **TMK) == "keyNoValue"


def test_the_components_of_a_key_go_together() -> None:
    pad = Pad()
    pad.typed(TWO[0])
    pad.ask("part", **TMK)
    pad.typed(TWO[1])
    assert pad.refused("part", **TMK | {"slot": "OTHER"}) == "sequenceError"
    assert pad.refused("block", slot="OTHER", under="TMK", value=BLOCK) == "sequenceError"
    assert pad.refused("part", **TMK | {"usage": "P0"}) == "useViolation"
    pad.typed(TWO[1] + "0" * 16)
    assert pad.refused("part", **TMK) == "invalidKeyLength"
    pad.typed(TWO[1])
    pad.ask("part", **TMK)
    assert pad.refused("complete", **TMK | {"mode": "B"}) == "useViolation"
    assert pad.ask("complete", **TMK)["check_value"] == ANSI_KCV


def test_the_first_component_takes_the_place_of_a_loaded_key() -> None:
    pad = Pad()
    pad.assembled(TMK, TWO)
    pad.typed(TWO[0])
    pad.ask("part", **TMK)
    assert pad.refused("check", slot="TMK", method="zero") == "keyNoValue"
    assert pad.ask("state")["slots"]["TMK"]["parts"] == 1


def test_typing() -> None:
    pad = Pad()
    assert pad.hands(press="123")["taken"] == 0, "nobody has asked"
    pad.ask("begin", digits=32)
    assert pad.refused("begin", digits=32) == "accessDenied"
    seen = pad.hands(press="0452xyz")
    assert (seen["taken"], seen["entered"], seen["wanted"]) == (4, 4, 32)
    pad.hands(key="backspace")
    pad.hands(key="clear")
    pad.hands(press=TWO[0] + "FFFF")
    told = pad.ask("entry")
    assert (told["entered"], told["ended"]) == (32, "")
    assert told["keys"] == [*["digit"] * 4, "backspace", "clear", *["digit"] * 32]
    pad.hands(key="enter")
    assert pad.ask("entry") == {"entered": 32, "keys": ["enter"], "ended": "enter", "check_value": "4D8439"}
    assert pad.hands(press="1")["taken"] == 0


@pytest.mark.parametrize("end", ["short", "cancel", "idle", "host", "idle afterwards", "tamper", "power"])
def test_an_entry_that_did_not_end_well_leaves_no_component(end: str) -> None:
    pad = Pad(idle_seconds=60.0)
    pad.ask("begin", digits=32)
    pad.hands(press=TWO[0] if end != "short" else TWO[0][:31])
    match end:
        case "short":
            pad.hands(key="enter")
            assert pad.ask("entry") == {"entered": 31, "keys": [*["digit"] * 31, "enter"], "ended": "enter"}
        case "cancel":
            pad.hands(key="cancel")
            assert pad.ask("entry")["ended"] == "cancel"
        case "idle":
            pad.wait(59.9)
            assert pad.ask("entry")["ended"] == ""
            pad.wait(0.2)
            assert pad.ask("entry")["ended"] == "timeout"
        case "host":
            pad.ask("cancel")
        case "idle afterwards":
            pad.hands(key="enter")
            pad.wait(61)
        case "tamper":
            pad.hands(act="tamper")
            pad.hands(act="close")
        case "power":
            pad.hands(key="enter")
            pad.hands(act="cut")
            pad.hands(act="restore")
    assert pad.refused("part", **TMK) == "keyNoValue"


def test_lengths() -> None:
    pad = Pad()
    for digits in (0, -32, 16, 31, 33, 64, 1 << 70):
        assert pad.refused("begin", digits=digits) == "invalidKeyLength"
    assert pad.refused("begin", digits=32, method="cmac") == "modeNotSupported"
    pad.ask("begin", digits=64, algorithm="A")


# What happens to the device.


def half_and_whole() -> Pad:
    """KBPK is loaded, of TMK there is one component."""
    pad = Pad()
    pad.assembled(KBPK, split(BLOCK_KBPK))
    pad.typed(TWO[0])
    pad.ask("part", **TMK)
    return pad


def test_a_power_cut_keeps_keys_and_loses_what_is_half_built() -> None:
    pad = half_and_whole()
    pad.hands(act="cut")
    for do in ("state", "entry", "cancel", "wipe", "begin"):
        with pytest.raises(NoPower):
            pad.desk.ask({"do": do, "digits": 32})
    pad.hands(act="restore")
    assert list(pad.ask("state")["slots"]) == ["KBPK"]
    assert pad.refused("complete", **TMK) == "keyNoValue"


@pytest.mark.parametrize(("moment", "left"), [("before", []), ("after", ["TMK"])])
def test_the_power_can_go_at_any_step(moment: str, left: list[str]) -> None:
    pad = Pad()
    for component in TWO:
        pad.typed(component)
        pad.ask("part", **TMK)
    pad.hands(act="cut_at", step=f"{moment} complete")
    with pytest.raises(NoPower):
        pad.desk.ask({"do": "complete", **TMK})
    pad.hands(act="restore")
    assert list(pad.ask("state")["slots"]) == left


def test_an_opened_pad_forgets_everything_and_does_nothing() -> None:
    pad = half_and_whole()
    pad.hands(act="cut")
    pad.hands(act="tamper")
    pad.hands(act="restore")
    assert pad.ask("state") == {"serial": "2411-0001", "tampered": True, "slots": {}}
    assert pad.refused("begin", digits=32) == "tampered"
    pad.hands(act="close")
    assert not pad.ask("state")["slots"]
    assert pad.assembled(TMK, TWO)["ok"]["loaded"]


def test_another_pad_has_another_number_and_no_keys() -> None:
    pad = half_and_whole()
    assert pad.hands(act="swap", serial="2411-0002")["serial"] == "2411-0002"
    assert pad.ask("state") == {"serial": "2411-0002", "tampered": False, "slots": {}}


def test_deleting_and_wiping() -> None:
    pad = half_and_whole()
    assert pad.refused("delete", slot="NONE") == "keyNotFound"
    pad.ask("delete", slot="TMK")
    assert list(pad.ask("state")["slots"]) == ["KBPK"]
    pad.ask("wipe")
    assert not pad.ask("state")["slots"]


def test_slots_come_to_an_end() -> None:
    pad = Pad(laboratory=True)
    for n in range(64):
        pad.ask("clear", **TMK | {"slot": f"K{n}"}, value=ANSI)
    assert pad.refused("clear", **TMK | {"slot": "ONE MORE"}, value=ANSI) == "noKeyRam"
    pad.ask("clear", **TMK | {"slot": "K0"}, value=ANSI)
    for name in ("", "x" * 65, "a\nb"):
        assert Pad(laboratory=True).refused("clear", **TMK | {"slot": name}, value=ANSI) == "keyNotFound"


NONSENSE: tuple[Any, ...] = (None, 0, -1, 1e300, "", "zz", [], {}, [1], {"a": 1}, True, "\x00", "٣" * 32)


@pytest.mark.parametrize(
    "field", ["do", "slot", "usage", "algorithm", "mode", "under", "value", "digits", "method"]
)
def test_nonsense_is_refused_with_a_word(field: str) -> None:
    pad = half_and_whole()
    verbs = ("begin", "part", "complete", "block", "cryptogram", "clear", "check", "delete")
    for nonsense in NONSENSE:
        for do in verbs:
            asked = {"do": do, **TMK, "slot": "X", "under": "KBPK", "value": "00" * 16, "digits": 32}
            answer = pad.desk.ask(asked | {"method": "zero", field: nonsense})
            assert set(answer) in ({"ok"}, {"refused", "why"})
            if "ok" in answer:
                pad.ask("cancel")
        assert set(pad.desk.touch({field: nonsense, "act": nonsense})) in ({"ok"}, {"refused", "why"})
    for nonsense in NONSENSE:
        for touched in ("press", "key", "act", "look"):
            assert set(pad.desk.touch({touched: nonsense})) in ({"ok"}, {"refused", "why"})


# The house.

FILES = {path.stem: path for path in Path(hwsim.__file__).parent.glob("*.py")}


def imports(name: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def test_it_shares_no_code_with_the_agent_and_only_one_file_holds_the_ciphers() -> None:
    for name in FILES:
        found = imports(name)
        if name.startswith("secure_"):
            assert not {i for i in found if i.partition(".")[0] == "agent"}, name
        if any(i.startswith("Crypto") for i in found):
            assert name == "secure_des"


def test_no_twin_of_a_pad_computes_on_keys_or_does_input_and_output() -> None:
    for name in ("epp", "zt588_keys", "xfs4iot", "xfs_keys", "xfs_pad"):
        found = imports(name)
        assert not {i for i in found if i.startswith("hwsim.secure")}, name
        assert not found & {"socket", "asyncio", "os", "subprocess", "time", "threading"}, name
