"""Key operations over XFS4IoT: what is sent in each generation, what its answers prove, and that each ends once."""

from base64 import b64encode
from typing import Any

import pytest

from agent.drivers.xfs4iot import Xfs4iot, XfsOptions
from agent.drivers.xfs_key_steps import DIGIT_KEYS, check_value
from agent.drivers.xfs_key_words import SENTENCES, failure
from agent.drivers.xfs_service import XfsLineOptions
from agent.model import Operation, Outcome, Value
from tests.encryptor import (
    ALL,
    ATTRIBUTES,
    BLOCK,
    BLOCK_HEX,
    CAN,
    CRYPTOGRAM,
    OWN,
    PART_KCV,
    ZERO,
    Bench,
    Encryptor,
    coded,
)
from tests.recorded import GENERATIONS, Host, recordings
from tests.remains import remains
from tests.test_drivers import check

IN_JSON = {"keyUsage": "K0", "algorithm": "T", "modeOfUse": "D"}


def result(outcome: Outcome) -> tuple[str, str, dict[str, Value]]:
    return outcome.result, outcome.raw, dict(outcome.facts)


# --- what is sent, and what it proves ---


@pytest.mark.parametrize("generation", [*GENERATIONS, "hybrid"])
def test_a_key_of_two_components_is_entered_proven_and_deleted(generation: str) -> None:
    bench = Bench(Encryptor(generation=generation))
    part = bench.do("key_enter", slot="TMK", digits=32, **ATTRIBUTES)
    assert result(part) == ("done", "", {"digits": 32, "kcv": PART_KCV})
    assert bench.do("key_check", slot="TMK").facts == {"state": "construct"}
    assert bench.do("key_enter", slot="TMK", digits=32, **ATTRIBUTES).result == "done"
    whole = bench.do("key_complete", slot="TMK", **ATTRIBUTES)
    assert result(whole) == ("done", "", {"kcv": ZERO, "state": "loaded", "usage": "K0"})
    assert bench.value("epp", "key.TMK.state") == "loaded", "the reading back is a reading as well"
    checked = bench.do("key_check", slot="TMK")
    assert checked.facts == {"kcv": ZERO, "kcv_self": OWN, "state": "loaded", "usage": "K0"}
    assert result(bench.do("key_delete", slot="TMK")) == ("done", "", {"state": "missing"})
    assert result(bench.do("key_check", slot="TMK")) == ("done", "", {"state": "missing"})
    assert result(bench.do("key_delete", slot="TMK")) == ("done", "", {"state": "missing"}), "gone is gone"
    check([reading for _, reading in bench.of])


def test_the_commands_of_an_entry_and_of_its_completion() -> None:
    bench, before = Bench(), 0
    before = len(bench.sent)
    bench.do("key_enter", slot="TMK", digits=48)
    bench.do("key_complete", slot="TMK", usage="K0", algorithm="T", mode="B")
    (layout, entry, part, complete, kcv, detail) = bench.since(before)
    assert layout == ("Keyboard.GetLayout", {"entryMode": "secure"})
    keys = entry[1].pop("activeKeys")
    assert entry == (
        "Keyboard.SecureKeyEntry",
        {"keyLen": 48, "autoEnd": True, "verificationType": "zero", "cryptoMethod": "tripleDes"},
    )
    assert keys.keys() >= {"zero", "nine", "a", "f", "enter", "cancel"}
    assert [key for key, how in keys.items() if how["terminate"]] == ["enter", "cancel"]
    assert part == ("KeyManagement.ImportKey", {"key": "TMK", "keyAttributes": IN_JSON, "constructing": True})
    both = {**IN_JSON, "modeOfUse": "B"}
    assert complete == ("KeyManagement.ImportKey", {"key": "TMK", "keyAttributes": both, "constructing": False})
    assert kcv == ("KeyManagement.GenerateKCV", {"key": "TMK", "keyCheckMode": "zero"})
    assert detail == ("KeyManagement.GetKeyDetail", None)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_person_has_five_minutes_and_a_step_half_a_minute_in_the_words_of_the_generation(generation: str) -> None:
    pad = Encryptor(generation=generation, versions={"KeyManagement.ImportKey": ["1.0", "3.0"]})
    bench = Bench(pad)
    bench.do("key_enter", slot="TMK", digits=32)
    last = {m["header"]["name"]: m for m in bench.commands("Epp")}
    entry, part = last["Keyboard.SecureKeyEntry"], last["KeyManagement.ImportKey"]
    if generation == "v1":
        assert (entry["payload"]["timeout"], part["payload"]["timeout"]) == (300_000, 30_000)
        assert part["header"].keys() == {"type", "name", "requestId"}
    else:
        assert (entry["header"]["timeout"], part["header"]["timeout"]) == (300_000, 30_000)
        assert part["header"]["version"] == "3.0"
        assert "timeout" not in part["payload"]


def test_only_keys_that_the_pad_has_are_active() -> None:
    fks = [{"fk": name} for name in (*DIGIT_KEYS[:10], "clear", "oem01", "fdk03")]
    shifted = [{"fk": "Enter", "shiftFK": letter} for letter in "abcdef"]
    pad = Encryptor(changes={"Keyboard.GetLayout": {"layout": [{"frames": [{"fks": [*fks, *shifted]}]}]}})
    bench = Bench(pad)
    bench.do("key_enter", slot="TMK", digits=32)
    (entry,) = [m for m in bench.commands("Epp") if m["header"]["name"] == "Keyboard.SecureKeyEntry"]
    active = entry["payload"]["activeKeys"]
    assert "clear" in active
    assert not {"cancel", "shift", "backspace", "oem01", "fdk03"} & active.keys()
    assert len(active) == 10 + 6 + 2


@pytest.mark.parametrize("why", ["not listed", "refused", "strange"])
def test_without_a_layout_the_usual_keys_are_active(why: str) -> None:
    pad = Encryptor()
    if why == "not listed":
        pad.lists = tuple(name for name in pad.lists if name != "Keyboard.GetLayout")
    elif why == "refused":
        pad.fails["Keyboard.GetLayout"] = "modeNotSupported"
    else:
        pad.changes["Keyboard.GetLayout"] = {"layout": [{"fk": 7}, None, {"key": "one"}]}
    bench = Bench(pad)
    assert bench.do("key_enter", slot="TMK", digits=32).result == "done"
    (entry,) = [m for m in bench.commands("Epp") if m["header"]["name"] == "Keyboard.SecureKeyEntry"]
    assert len(entry["payload"]["activeKeys"]) == 18


def test_a_block_is_relayed_with_the_attributes_of_its_header_and_a_cryptogram_with_those_of_its_usage() -> None:
    bench = Bench()
    before = len(bench.sent)
    outcome = bench.do("key_import", BLOCK, slot="TPK", usage="K0", under="TMK", form="tr31")
    assert result(outcome) == ("done", "", {"kcv": ZERO, "state": "loaded", "usage": "K0"})
    bench.do("key_import", CRYPTOGRAM, slot="TPK", usage="P0", under="TMK", form="ecb")
    nowhere = b"B0096P0TN00N0000" + BLOCK[16:]
    bench.do("key_import", nowhere, slot="TPK", usage="P0", under="TMK", form="tr31")
    imports = [payload for name, payload in bench.since(before) if name == "KeyManagement.ImportKey"]
    assert imports == [
        {"key": "TPK", "decryptKey": "TMK", "keyAttributes": IN_JSON, "value": b64encode(BLOCK).decode()},
        {
            "key": "TPK",
            "decryptKey": "TMK",
            "decryptMethod": "ecb",
            "keyAttributes": {"keyUsage": "P0", "algorithm": "T", "modeOfUse": "E"},
            "value": b64encode(CRYPTOGRAM).decode(),
        },
        {"key": "TPK", "decryptKey": "TMK", "value": b64encode(nowhere).decode()},
    ]


def test_a_wipe_tells_what_remains_and_does_not_count_the_makers_own_pair() -> None:
    bench = Bench()
    outcome = bench.do("key_wipe")
    assert result(outcome) == ("done", "", {"remaining": 1, "named": "MASTERKEY"})


@pytest.mark.parametrize("generation", GENERATIONS)
def test_the_recorded_sessions(generation: str) -> None:
    """The service of release 2021-1 gives the self value whatever it is asked for; what ImportKey gives is zero."""
    services = recordings(generation)
    services["SimEncryptor"].answers["KeyManagement.GenerateKCV"].popleft()  # of a key that was not there
    host = Host(Xfs4iot(XfsLineOptions(), {"epp": XfsOptions("SimEncryptor", {}, True)}), services)
    host.publish()
    host.run(2)
    steps: list[tuple[str, dict[str, Any], bytes]] = [
        ("key_import", {"slot": "KeyTMK", "usage": "K0", "under": "MASTERKEY", "form": "ecb"}, CRYPTOGRAM),
        ("key_check", {"slot": "KeyTMK"}, b""),
        ("key_check", {"slot": "Key01"}, b""),
        ("key_wipe", {}, b""),
        ("key_delete", {"slot": "KeyTMK"}, b""),
        ("key_enter", {"slot": "KeyTMK", "digits": 32}, b""),
    ]
    for verb, arguments, opaque in steps:
        host.driver.perform(Operation(verb, "epp", verb, "ceremony", arguments, opaque), host.now)
        host.run(1)
    imported, checked, absent, wiped, deleted, entered = host.outcomes
    if generation == "v1":
        assert imported.facts == {"kcv": "FB0975", "kcv_self": "BB315E", "state": "loaded", "usage": "K0"}
        assert checked.facts == {"kcv_self": "BB315E", "state": "loaded", "usage": "K0"}
    else:
        assert imported.facts == {"kcv": "FB0975", "state": "loaded", "usage": "K0"}
    assert absent.facts == {"state": "missing"}
    assert (wiped.result, wiped.facts["remaining"]) == ("done", 2), "the record's last list is from before"
    assert result(deleted) == ("failed", "state=loaded", {"state": "loaded"})
    assert entered.result == "refused", "this service has no keyboard"
    assert "Keyboard.SecureKeyEntry" in entered.detail


@pytest.mark.parametrize(
    ("imported", "zero", "own", "wanted"),
    [
        (ZERO, ZERO, None, {"kcv": ZERO}),
        (ZERO, OWN, OWN, {"kcv": ZERO, "kcv_self": OWN}),
        ("", ZERO, OWN, {"kcv": ZERO, "kcv_self": OWN}),
        ("", OWN, OWN, {"kcv_self": OWN}),
        (ZERO, "123456", OWN, "kcv differs"),
        ("", "", "", "no kcv"),
        ("", "", OWN, {"kcv_self": OWN}),
    ],
)
def test_a_check_value_is_a_zero_value_only_when_it_is_known_to_be(
    imported: str, zero: str, own: str | None, wanted: Any
) -> None:
    pad = Encryptor()
    values = {"zero": coded(zero) if zero else "", "self": coded(own) if own else "AAAA" if own is None else "AA=="}
    pad.changes["KeyManagement.ImportKey"] = {"verificationData": coded(imported) if imported else None}
    whole, asked = pad.answer, []

    def answering(command: Any) -> Any:
        if command["header"]["name"] == "KeyManagement.GenerateKCV":
            asked.append(command["payload"]["keyCheckMode"])
            pad.changes["KeyManagement.GenerateKCV"] = {"kcv": values[asked[-1]]}
        return whole(command)

    pad.answer = answering  # type: ignore[method-assign]
    outcome = Bench(pad).do("key_import", BLOCK, slot="TPK", usage="K0", under="TMK", form="tr31")
    if isinstance(wanted, str):
        assert (outcome.result, outcome.raw) == ("failed", wanted)
        assert "kcv" not in outcome.facts
    else:
        assert {k: v for k, v in outcome.facts.items() if "kcv" in k} == wanted
    assert asked == (["zero"] if own is None else ["zero", "self"])


def test_a_self_value_that_import_gave_is_no_zero_value() -> None:
    pad = Encryptor()
    pad.changes["KeyManagement.ImportKey"] = {
        "verificationData": coded(OWN),
        "verifyAttributes": {"cryptoMethod": "kcvSelf"},
    }
    outcome = Bench(pad).do("key_import", BLOCK, slot="TPK", usage="K0", under="TMK", form="tr31")
    assert (outcome.result, outcome.facts["kcv"], outcome.facts["kcv_self"]) == ("done", ZERO, OWN)


def test_modes_that_the_device_does_not_have_are_not_asked_for() -> None:
    for modes, asked in (({"zero": True, "self": False}, ["zero"]), ({"zero": False, "self": True}, ["self"])):
        bench = Bench(Encryptor(can={**CAN, "keyCheckModes": modes}))
        bench.do("key_check", slot="MASTERKEY")
        sent = [m["payload"] for m in bench.commands("Epp") if m["header"]["name"] == "KeyManagement.GenerateKCV"]
        assert [payload["keyCheckMode"] for payload in sent] == asked


def test_a_check_value_is_three_bytes_of_what_was_said_and_nothing_less() -> None:
    assert check_value(coded(ZERO)) == ZERO
    assert check_value("+wl1") == "FB0975"
    for short in ("", "+wk=", "!!!!", None, 7, ["+wl1"], "é" * 40):
        assert check_value(short) == ""


# --- what goes wrong ---


@pytest.mark.parametrize(
    ("changed", "raw"),
    [
        ({"digits": 16}, "digits=16"),
        ({"digits": None}, "digits=?"),
        ({"digits": "32"}, "digits=?"),
        ({"completion": "cancel"}, "completion=cancel"),
        ({"kcv": None}, "no kcv"),
        ({"kcv": "+w=="}, "no kcv"),
    ],
)
def test_a_component_that_was_not_wholly_typed_is_not_joined(changed: Any, raw: str) -> None:
    bench = Bench(Encryptor(changes={"Keyboard.SecureKeyEntry": changed}))
    outcome = bench.do("key_enter", slot="TMK", digits=32)
    assert (outcome.result, outcome.raw) == ("failed", raw)
    assert "KeyManagement.ImportKey" not in bench.names("Epp")


def test_a_component_with_another_check_value_than_expected_is_not_joined() -> None:
    bench = Bench()
    outcome = bench.do("key_enter", slot="TMK", digits=32, expect="000000")
    assert result(outcome) == ("failed", f"kcv={PART_KCV}", {"digits": 32, "kcv": PART_KCV})
    assert "KeyManagement.ImportKey" not in bench.names("Epp")
    assert bench.do("key_enter", slot="TMK", digits=32, expect=PART_KCV).result == "done"


@pytest.mark.parametrize("verb", ["key_complete", "key_delete"])
def test_done_means_that_the_slot_was_read_back(verb: str) -> None:
    pad = Encryptor()
    pad.changes["KeyManagement.GetKeyDetail"] = {"keyDetails": {"TMK": {"loaded": "construct"}}}
    outcome = Bench(pad).do(verb, **ALL[verb])
    assert (outcome.result, outcome.raw) == ("failed", "state=construct")
    pad.changes["KeyManagement.GetKeyDetail"] = {"keyDetails": None}
    assert Bench(pad).do(verb, **ALL[verb]).raw == "no keyDetails"


def test_what_is_not_there_is_deleted_and_what_cannot_be_deleted_is_not() -> None:
    bench = Bench(Encryptor(fails={"KeyManagement.DeleteKey": "keyNotFound"}))
    assert result(bench.do("key_delete", slot="TMK")) == ("done", "", {"state": "missing"})
    assert bench.do("key_delete", slot="MASTERKEY").raw == "state=loaded", "the list is believed, not the word"
    bench.pad.fails["KeyManagement.DeleteKey"] = "accessDenied"
    assert result(bench.do("key_delete", slot="TMK")) == ("failed", "accessDenied", {})


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("word", sorted(SENTENCES))
def test_every_error_word_fails_the_operation_in_words_for_a_person(generation: str, word: str) -> None:
    bench = Bench(Encryptor(generation=generation, fails={"KeyManagement.ImportKey": word}))
    outcome = bench.do("key_import", BLOCK, slot="TPK", usage="K0", under="TMK", form="tr31")
    assert (outcome.result, outcome.raw, outcome.detail) == ("failed", word, SENTENCES[word])
    assert bench.do("key_check", slot="MASTERKEY").result == "done", "and the next one is not hindered"
    assert bench.hung_up == []


def test_an_error_of_which_the_standard_knows_nothing() -> None:
    assert failure("KEYNOVALUE")[1] == "keyNoValue", "whatever the case"
    assert failure("keyExpired") == ("the EPP does not do it (keyExpired)", "keyExpired")
    for strange in (BLOCK_HEX, b64encode(BLOCK).decode(), "ABCDEFABCDEF", "", "17", "{'a': 1}", "x" * 99):
        assert failure(strange)[1] == "unknown"
    names = {"formatInvalid", "contentInvalid", "invalidValue", "signatureInvalid", "macInvalid"}
    assert len({SENTENCES[name] for name in names}) == 1, "which check failed is not said"


@pytest.mark.parametrize("code", ["timeOut", "hardwareError", "invalidData", "authorizationRequired"])
def test_a_completion_code_is_a_word_as_well_and_changes_no_version(code: str) -> None:
    pad = Encryptor(versions={"KeyManagement.DeleteKey": ["2.0", "3.0"]})
    bench = Bench(pad)
    whole = pad.answer

    def answering(command: Any) -> Any:
        name, number = command["header"]["name"], command["header"]["requestId"]
        return pad.reply(name, number, {}, code) if name == "KeyManagement.DeleteKey" else whole(command)

    pad.answer = answering  # type: ignore[method-assign]
    for _ in range(2):
        outcome = bench.do("key_delete", slot="TMK")
        assert (outcome.result, outcome.raw) == ("failed", code)
    sent = [m["header"]["version"] for m in bench.commands("Epp") if m["header"]["name"].endswith("DeleteKey")]
    assert sent == ["2.0", "2.0"]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"verb": "self_test"}, "can do none but"),
    ({"verb": "key_enter", "slot": "TMK"}, "needs digits"),
    ({"verb": "key_enter", "slot": "TMK", "digits": 16}, "digits"),
    ({"verb": "key_enter", "slot": "TMK", "digits": 32.0}, "digits"),
    ({"verb": "key_enter", "slot": "TMK", "digits": 32, "key": BLOCK_HEX}, "takes only"),
    ({"verb": "key_enter", "slot": "TMK", "digits": 32, "expect": BLOCK_HEX[:16]}, "expect"),
    ({"verb": "key_enter", "slot": BLOCK_HEX[:32], "digits": 32}, "looks like a key"),
    ({"verb": "key_delete", "slot": ""}, "slot"),
    ({"verb": "key_delete", "slot": "TMK", "opaque": b"1"}, "carries no key"),
    ({"verb": "key_complete", "slot": "TMK", **ATTRIBUTES, "algorithm": "A"}, "DES"),
    ({**ALL["key_import"], "verb": "key_import", "opaque": b""}, "no key block"),
    ({**ALL["key_import"], "verb": "key_import", "opaque": BLOCK[:-1]}, "no key block"),
    ({**ALL["key_import"], "verb": "key_import", "opaque": b"E" + BLOCK[1:]}, "no key block"),
    ({**ALL["key_import"], "verb": "key_import", "opaque": b"A" + BLOCK[1:]}, "version A"),
    ({**ALL["key_import"], "verb": "key_import", "opaque": CRYPTOGRAM[:8], "form": "ecb"}, "16 or 24"),
    ({**ALL["key_import"], "verb": "key_import", "form": "plain"}, "form"),
]


@pytest.mark.parametrize(("asked", "why"), REFUSED)
def test_what_is_refused_is_not_sent_and_not_quoted(asked: dict[str, Any], why: str) -> None:
    bench = Bench()
    before = len(bench.sent)
    outcome = bench.do(**asked)
    assert outcome.result == "refused"
    assert why in outcome.detail
    assert bench.since(before) == []
    assert remains([outcome, bench.of], BLOCK_HEX) == []


@pytest.mark.parametrize("verb", sorted(ALL))
def test_a_service_that_does_not_list_what_is_needed_is_not_asked(verb: str) -> None:
    wanted = {name for name, _ in sent_by(verb)} - {"Keyboard.GetLayout"}
    assert wanted
    for lacking in wanted:
        pad = Encryptor()
        pad.lists = tuple(name for name in pad.lists if name != lacking)
        bench = Bench(pad)
        before = len(bench.sent)
        outcome = bench.do(verb, **ALL[verb])
        assert outcome.result == "refused"
        assert bench.since(before) == []
    for parts in (False, None):
        outcome = Bench(Encryptor(can={**CAN, "keyImportThroughParts": parts})).do(verb, **ALL[verb])
        assert outcome.result == ("refused" if verb in ("key_enter", "key_complete") else "done")


def sent_by(verb: str) -> list[tuple[str, Any]]:
    bench = Bench()
    before = len(bench.sent)
    bench.do(verb, **ALL[verb])
    return bench.since(before)
