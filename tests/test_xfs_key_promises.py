"""Key operations over XFS4IoT, with services and lines of every sort: each ends once, and nothing remains."""

from base64 import b64encode
from collections import deque
from itertools import count
from random import Random
from typing import Any

import pytest

from agent.drivers.xfs_connection import COMMANDS, KEY_COMMANDS, KEYS
from agent.model import Operation, Reading
from hwsim.wires import hurt
from tests.encryptor import ALL, BLOCK, BLOCK_HEX, Bench, Encryptor
from tests.recorded import GENERATIONS, uri
from tests.remains import remains
from tests.test_drivers import check


@pytest.mark.parametrize("verb", sorted(ALL))
def test_without_keys_true_nothing_of_it_exists(verb: str) -> None:
    bench = Bench(keys=False)
    outcome = bench.do(verb, **ALL[verb])
    assert outcome.result == "refused"
    assert "only watched" in outcome.detail
    arguments = {name: value for name, value in ALL[verb].items() if name != "opaque"}
    operation = Operation("op", "epp", verb, "ceremony", arguments, ALL[verb].get("opaque", b""))
    vars(bench.driver)["_services"]["epp"].perform(operation, bench.now)  # nor behind its back
    bench.run(60)
    assert [o.result for o in bench.outcomes] == ["refused", "refused"]
    assert set(bench.names()) <= set(COMMANDS)
    assert remains(bench.driver, BLOCK_HEX) == []


def test_with_keys_true_nothing_of_it_is_sent_before_it_is_asked_for_and_no_list_offers_it() -> None:
    bench = Bench()
    bench.run(300)
    assert set(bench.names()) <= set(COMMANDS)
    assert bench.driver.operations == {}
    assert not set(KEY_COMMANDS) & set(COMMANDS)


def test_one_operation_at_a_time() -> None:
    bench = Bench(Encryptor(typing=True))
    first = bench.begin("key_enter", slot="TMK", digits=32)
    outcome = bench.do("key_check", slot="TMK")
    assert outcome.result == "refused"
    assert "key_enter is under way" in outcome.detail
    bench.say("Epp", *bench.pad.reply("Keyboard.SecureKeyEntry", bench.pad.entry, {"digits": 32, "kcv": "AAAA"}))
    bench.run(1)
    assert [o.result for o in bench.outcomes if o.operation == first] == ["done"]


def test_a_deletion_ends_an_entry_and_runs_then() -> None:
    bench = Bench(Encryptor(typing=True))
    entry = bench.begin("key_enter", slot="TMK", digits=32)
    bench.run(20)
    number = bench.pad.entry
    deletion = bench.begin("key_delete", slot="TMK")
    second = bench.do("key_delete", slot="TMK")
    bench.run(1)
    assert [m["payload"] for m in bench.commands("Epp") if m["header"]["name"] == "Common.Cancel"] == [
        {"requestIds": [number]}
    ]
    assert [(o.operation, o.result, o.raw) for o in bench.outcomes] == [
        (entry, "failed", "canceled"),
        (deletion, "done", ""),
        (second.operation, "done", ""),
    ]


@pytest.mark.parametrize("verb", ["key_enter", "key_import"])
def test_an_operation_gives_way_to_a_deletion_at_its_next_step(verb: str) -> None:
    pad = Encryptor()
    bench = Bench(pad)
    bench.silent.add(uri("Epp"))
    first = bench.begin(verb, **ALL[verb])
    deletion = bench.begin("key_delete", slot="TMK")
    bench.silent.clear()
    bench.answer(uri("Epp"), bench.commands("Epp")[-1])
    bench.run(1)
    assert [(o.operation, o.result) for o in bench.outcomes] == [(first, "failed"), (deletion, "done")]
    assert "Keyboard.SecureKeyEntry" not in bench.names("Epp")


def test_an_entry_at_which_nobody_types_any_more_is_cancelled_but_not_before_the_first_key() -> None:
    bench = Bench(Encryptor(typing=True))
    bench.begin("key_enter", slot="TMK", digits=32)
    bench.run(100)
    for _ in range(3):
        bench.say("Epp", bench.pad.press())
        bench.run(50)
    assert bench.outcomes == []
    bench.run(12)
    assert [(o.result, o.raw) for o in bench.outcomes] == [("failed", "canceled")]
    assert remains([bench.of, bench.outcomes, bench.driver], "seven") == []


def test_keys_are_not_polled_during_an_entry_and_status_is() -> None:
    bench = Bench(Encryptor(typing=True))
    bench.begin("key_enter", slot="TMK", digits=32)
    before = len(bench.sent)
    bench.run(100)
    names = [m["header"]["name"] for _, m in bench.sent[before:]]
    assert "KeyManagement.GetKeyDetail" not in names
    assert names.count("Common.Status") in (19, 20)
    assert set(bench.values("epp", "link.state")) == {"up"}


def test_an_entry_that_the_service_never_ends_is_unanswered_a_little_after_its_time() -> None:
    bench = Bench(Encryptor(typing=True))
    begun = bench.now
    bench.begin("key_enter", slot="TMK", digits=32)
    bench.run(320)
    (outcome,) = bench.outcomes
    assert outcome.result == "unanswered"
    assert 310 <= outcome.at - begun < 312
    assert "delete the slot" in outcome.detail


@pytest.mark.parametrize("way", ["lost", "mute", "acknowledged only"])
@pytest.mark.parametrize("verb", sorted(ALL))
def test_whatever_step_the_connection_is_lost_at_the_operation_is_unanswered_once(verb: str, way: str) -> None:
    for step in count():
        bench = Bench()
        bench.run(1)
        stop_at(bench, step, way)
        name = bench.begin(verb, **ALL[verb])
        if way == "lost":
            bench.lose("Epp")
        bench.run(320)
        assert [o.operation for o in bench.outcomes] == [name]
        assert bench.names("Epp").count("KeyManagement.ImportKey") <= 1, "nothing is said twice"
        if bench.outcomes[0].result == "done":
            assert step >= 2, "every operation has two steps at least"
            return
        assert bench.outcomes[0].result == "unanswered"


def stop_at(bench: Bench, step: int, way: str) -> None:
    """From a step on the encryptor answers no command about keys."""
    whole, numbers = bench.answer, count()

    def answering(address: str, command: Any) -> None:
        name = command["header"]["name"]
        number = next(numbers) if name in (*KEY_COMMANDS, KEYS) else -1
        if number < step:
            whole(address, command)
        elif number == step and way == "acknowledged only":
            bench.say("Epp", bench.pad.answer(command)[0])

    bench.answer = answering  # type: ignore[method-assign]


def test_a_deletion_that_waits_ends_with_the_connection() -> None:
    bench = Bench(Encryptor(typing=True))
    bench.pad.lists = tuple(name for name in bench.pad.lists if name != "Common.Cancel")
    bench = Bench(bench.pad)
    bench.begin("key_enter", slot="TMK", digits=32)
    bench.begin("key_wipe")
    bench.lose("Epp")
    bench.run(1)
    assert [(o.operation, o.result) for o in bench.outcomes] == [("op1", "unanswered"), ("op2", "unanswered")]
    outcome = bench.do("key_delete", slot="TMK")
    assert outcome.result == "refused", "it has not told again what it can do"
    bench.run(5)
    assert bench.do("key_delete", slot="TMK").result == "done"


@pytest.mark.parametrize("seed", range(30))
def test_on_a_bad_line_every_operation_ends_once_and_no_command_is_repeated(seed: int) -> None:
    rng = Random(seed)
    bench = Bench(Encryptor(generation=rng.choice(["v1", "v2", "hybrid"])))
    deliver = bench.deliver
    bench.deliver = lambda data: deliver(hurt(data, rng) if rng.random() < 0.15 else data)  # type: ignore[method-assign]
    begun: list[str] = []
    for _ in range(12):
        verb = rng.choice(sorted(ALL))
        before = len(bench.sent)
        begun.append(bench.begin(verb, **ALL[verb]))
        bench.run(60)
        imports = [name for name, _ in bench.since(before) if name == "KeyManagement.ImportKey"]
        assert len(imports) <= 1
    assert sorted(o.operation for o in bench.outcomes) == sorted(begun)
    assert {o.result for o in bench.outcomes} <= {"done", "failed", "unanswered", "refused"}
    check([reading for _, reading in bench.of])


# --- nothing of a block remains ---


def traces(thing: object) -> list[str]:
    """What can be read of the block in a thing: as it is, in hex, in Base64."""
    in_base64 = b64encode(BLOCK).decode()[24:80]
    assert in_base64.isalnum()
    return remains(thing, BLOCK_HEX) + remains(thing, in_base64)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_nothing_of_a_block_remains_after_it_went_to_the_port(
    generation: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    bench = Bench(Encryptor(generation=generation))
    bench.driver.transcript.on = True
    bench.silent.add(uri("Epp"))
    operation = Operation(
        "op", "epp", "key_import", "ceremony", {k: v for k, v in ALL["key_import"].items() if k != "opaque"}, BLOCK
    )
    assert traces(repr(operation)) == []
    bench.driver.perform(operation, bench.now)
    assert traces(bench.driver) != [], "it waits for the port"
    bench.serve()
    assert traces(bench.driver) == []
    bench.silent.clear()
    bench.answer(uri("Epp"), bench.commands("Epp")[-1])
    bench.run(1)
    assert [o.result for o in bench.outcomes] == ["done"]
    told = bench.driver.transcript.read()
    assert any("KeyManagement.ImportKey #" in line for line in told)
    assert traces([bench.driver, bench.outcomes, bench.of, told, caplog.text]) == []


@pytest.mark.parametrize("kind", ["completion", "acknowledge", "event", "unsolicited"])
@pytest.mark.parametrize("echo", [BLOCK.decode(), BLOCK_HEX.lower(), b64encode(BLOCK).decode()])
def test_a_service_that_repeats_the_block_in_every_field_spreads_nothing(kind: str, echo: str) -> None:
    bench = Bench()
    bench.driver.transcript.on = True
    bench.silent.add(uri("Epp"))
    bench.begin("key_import", **ALL["key_import"])
    number = bench.commands("Epp")[-1]["header"]["requestId"]
    names = [
        "KeyManagement.ImportKey",
        "Common.ErrorEvent",
        "KeyManagement.IllegalKeyAccessEvent",
        "Keyboard.KeyEvent",
    ]
    fields = ("errorCode", "completionCode", "errorDescription", "status", "verificationData", "keyName", "eventId")
    spread = dict.fromkeys((*fields, "action", "vendorDescription", "digit", "completion", "kcv"), echo)
    for name in names:
        header = {
            "type": kind,
            "name": name,
            "requestId": number,
            "version": "2.0",
            **dict.fromkeys(fields[:4], echo),
        }
        bench.say(
            "Epp",
            {"header": header, "payload": spread},
            {"header": header, "payload": {"keyDetails": {echo: spread}}},
        )
    bench.run(1)
    bench.silent.clear()
    bench.run(20)
    read: list[Reading] = [reading for _, reading in bench.of]
    assert traces([bench.driver, bench.outcomes, read, bench.driver.transcript.read()]) == []
    assert len(bench.outcomes) == 1


def test_a_piece_of_the_block_in_the_place_of_an_error_word_is_not_shown() -> None:
    for piece in (BLOCK_HEX[:12], BLOCK_HEX[7:20].lower()):
        bench = Bench()
        bench.driver.transcript.on = True
        bench.silent.add(uri("Epp"))
        bench.begin("key_import", **ALL["key_import"])
        number = bench.commands("Epp")[-1]["header"]["requestId"]
        bench.say("Epp", *bench.pad.reply("KeyManagement.ImportKey", number, {}, piece))
        bench.run(1)
        assert [(o.result, o.raw) for o in bench.outcomes] == [("failed", "unknown")]
        assert traces([bench.outcomes, bench.of, bench.driver.transcript.read()]) == []


def test_the_search_for_traces_finds_a_block() -> None:
    for planted in (BLOCK, BLOCK.decode(), BLOCK_HEX[8:16], b64encode(BLOCK), bytes.fromhex(BLOCK_HEX).hex()):
        bench = Bench()
        assert traces(bench.driver) == []
        vars(bench.driver)["_planted"] = deque([planted])
        assert traces(bench.driver)


class Shown:
    """Something whose repr is as given, and that holds no other text."""

    def __init__(self, text: str) -> None:
        self._show = text.__str__

    def __repr__(self) -> str:
        return self._show()


def test_the_search_for_traces_is_not_misled_by_where_an_object_lies() -> None:
    piece = BLOCK_HEX[10:15].lower()
    assert traces(Shown(f"<agent.drivers.xfs_storage.Storage object at 0x7f6a77{piece}0>")) == []
    for told in (f"<Storage at {piece}>", f"<Storage object at 0x7f6a770 holds {piece}>", f"at 0x{piece}"):
        assert traces(Shown(told)) == [piece.upper()]
    assert traces([f"<Storage object at 0x{piece}>"]) == [piece.upper()], "a text is no repr"
