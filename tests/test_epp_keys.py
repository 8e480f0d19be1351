"""Key operations of the ZT588: golden frames, replies of every sort, each ends once, nothing of a key remains."""

from collections.abc import Mapping
from random import Random
from typing import Any, ClassVar

import pytest

from agent.drivers.epp import INFO, Epp, EppOptions
from agent.model import Operation, Outcome
from hwsim.contract import Allowed
from tests import golden
from tests.remains import remains
from tests.test_drivers import check
from tests.virtual import Bench

KEY = "A1B2C3D4E5F60718293A4B5C6D7E8F90"
LOAD = b"\x020392004032" + KEY.encode() + b"\x030E"  # "2", under 00, slot 40, type 3 (TPK), length 2 (double)
ERASE = b"\x0200720040" + b"00\x0302"
DONE, LOADED = b"\x0200" + b"10\x0302", b"\x02" + b"017008D7B4AABBCCDDEE\x0308"
REPLY = next(golden.octets(text) for mark, text in golden.cases("epp")[0].steps if mark == "<")
IMPORT = {"slot": "40", "usage": "P0", "under": "00", "form": "ecb"}


def framed(text: bytes) -> bytes:
    """A frame of the pad."""
    body = b"%03d%s\x03" % (len(text), text)
    check = 0
    for byte in body:
        check ^= byte
    return b"\x02%s%02X" % (body, check)


class Pad:
    """Gives the golden answers, or `reply` to a key. heard: every command for keys; mute: they are not answered."""

    BAUD: ClassVar[int] = 9600
    SETTINGS: ClassVar[Mapping[str, Allowed]] = {}

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.reply = LOADED
        self.mute = False
        self._buffer = b""

    def receive(self, data: bytes) -> bytes:
        self._buffer += data
        said = b""
        while len(self._buffer) >= 4 and len(self._buffer) >= (size := 7 + int(self._buffer[1:4])):
            frame, self._buffer = self._buffer[:size], self._buffer[size:]
            said += self.answer(frame)
        return said

    def answer(self, frame: bytes) -> bytes:
        if frame == INFO:
            return REPLY
        self.heard.append(frame)
        return b"" if self.mute else (self.reply if frame[4:5] == b"2" and len(frame) > 20 else DONE)

    def tick(self, now: float) -> bytes:
        return b""


def joined(seed: int = 0) -> tuple[Bench, Pad]:
    """A driver that may load keys, joined to a pad, and up."""
    pad = Pad()
    bench = Bench(Epp(EppOptions(keys=True)), pad, seed)
    bench.run(5)
    return bench, pad


def begin(bench: Bench, verb: str, opaque: bytes = b"", **arguments: Any) -> str:
    name = f"{verb}{len(bench.outcomes)}{bench.now}"
    bench.driver.perform(Operation(name, "epp", verb, "ceremony", arguments, opaque), bench.now)
    return name


def do(bench: Bench, verb: str, opaque: bytes = b"", **arguments: Any) -> Outcome:
    name = begin(bench, verb, opaque, **arguments)
    bench.run(10)
    (outcome,) = [one for one in bench.outcomes if one.operation == name]
    return outcome


def test_golden_frames_of_loading_and_erasing() -> None:
    bench, pad = joined()
    loaded = do(bench, "key_import", bytes.fromhex(KEY), **IMPORT)
    assert (loaded.result, loaded.raw, loaded.facts) == ("done", "", {"kcv": "08D7B4", "state": "loaded"})
    erased = do(bench, "key_delete", slot="40")
    assert (erased.result, erased.facts) == ("done", {"state": "missing"})
    assert "cannot be read back" in erased.detail
    assert pad.heard == [LOAD, ERASE]
    triple = do(
        bench, "key_import", bytes.fromhex(KEY[:16] * 3), **{**IMPORT, "slot": "00", "usage": "K0", "under": "80"}
    )
    assert triple.result == "done"
    assert pad.heard[-1][4:].startswith(b"2800023" + KEY[:16].encode())


@pytest.mark.parametrize(("frame", "size"), [(LOAD, 46), (ERASE, 14), (DONE, 8), (LOADED, 24)])
def test_the_golden_frames_obey_the_rule_of_their_checksum(frame: bytes, size: int) -> None:
    assert framed(frame[4:-3]) == frame
    assert len(frame) == size


def test_a_pad_that_writes_broken_hex_is_written_to_in_the_same_way() -> None:
    bench, pad = joined()
    said = next(
        golden.octets(t) for c in golden.cases("epp") for m, t in c.steps if m == "<" and "broken" in c.name
    )
    bench.driver.receive(said, bench.now)
    begin(bench, "key_import", bytes.fromhex(KEY), **IMPORT)
    sent = b""
    while not sent:
        bench.now += 0.05
        bench.driver.tick(bench.now)
        sent = bench.driver.outgoing().replace(INFO, b"")
        bench.driver.receive(said if not sent else b"", bench.now)
    assert sent == b"\x020392004032:1;2<3=4>5?60718293:4;5<6=7>8?90\x030>"
    assert pad.heard == []
    reply = framed(b"008=7;4")
    reply = reply[:-2] + bytes(0x30 + int(chr(digit), 16) for digit in reply[-2:])
    (outcome,) = [item for item in bench.driver.receive(reply, bench.now) if isinstance(item, Outcome)]
    assert outcome.facts["kcv"] == "08D7B4"


@pytest.mark.parametrize(
    ("reply", "raw"),
    [
        (b"\xe1", "imk_required"),
        (b"\xe6", "parity"),
        (b"\xec", "authorisation"),
        (b"\xea", "vendor.EA"),
        (b"0", "no kcv"),
        (b"008D7", "no kcv"),
        (b"0zzzzzz", "no kcv"),
    ],
)
def test_an_error_or_no_check_value_fails_the_operation_and_is_no_error_of_the_pad(reply: bytes, raw: str) -> None:
    bench, pad = joined()
    pad.reply = framed(reply)
    outcome = do(bench, "key_import", bytes.fromhex(KEY), **IMPORT)
    assert (outcome.result, outcome.raw, outcome.facts) == ("failed", raw, {})
    assert {r.value for r in bench.readings if r.point == "epp.error"} == {"ok"}
    assert bench.value("link.state") == "up"


def test_a_low_battery_that_a_key_command_tells_is_a_reading() -> None:
    bench, pad = joined()
    pad.reply = framed(b"\xe0")
    do(bench, "key_import", bytes.fromhex(KEY), **IMPORT)
    assert "low" in [r.value for r in bench.readings if r.point == "epp.battery"]


def test_the_initial_key_can_be_checked_and_no_other_slot() -> None:
    bench, pad = joined()
    checked = do(bench, "key_check", slot="80")
    assert (checked.result, checked.facts) == ("done", {"state": "loaded"})
    other = do(bench, "key_check", slot="40")
    assert other.result == "refused"
    assert "cannot be asked" in other.detail
    assert other.facts == {"state": "untold"}
    assert do(bench, "key_check", slot="TMK").facts == {}, "it has no such slot"
    assert pad.heard == []


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"verb": "key_enter", "slot": "40", "digits": 32}, "none but"),
        ({"verb": "key_complete", "slot": "40", "usage": "K0", "algorithm": "T", "mode": "D"}, "none but"),
        ({"verb": "key_wipe"}, "none but"),
        ({"verb": "key_delete", "slot": "TMK"}, "two hex digits"),
        ({"verb": "key_delete", "slot": "4a"}, "two hex digits"),
        ({"verb": "key_import", **IMPORT, "under": "1"}, "two hex digits"),
        ({"verb": "key_import", **IMPORT, "usage": "V0"}, "type of key"),
        ({"verb": "key_import", **IMPORT, "opaque": b"12345678"}, "16 or 24"),
        (
            {"verb": "key_import", **IMPORT, "form": "tr31", "opaque": b"B0032K0TD00N0000" + b"A" * 16},
            "no key blocks",
        ),
    ],
)
def test_what_is_refused_is_not_sent(asked: dict[str, Any], why: str) -> None:
    bench, pad = joined()
    outcome = do(bench, **{"opaque": bytes.fromhex(KEY) if asked["verb"] == "key_import" else b"", **asked})
    assert outcome.result == "refused"
    assert why in outcome.detail
    assert pad.heard == []


def test_without_keys_true_nothing_of_it_exists() -> None:
    pad = Pad()
    bench = Bench(Epp(EppOptions()), pad)
    bench.run(5)
    for verb, arguments, opaque in (
        ("key_import", IMPORT, bytes.fromhex(KEY)),
        ("key_delete", {"slot": "40"}, b""),
    ):
        outcome = do(bench, verb, opaque, **arguments)
        assert (outcome.result, "only reads" in outcome.detail) == ("refused", True)
    assert pad.heard == []
    assert Epp.operations == {}


# each once


def test_before_the_pad_has_answered_nothing_is_sent() -> None:
    driver = Epp(EppOptions(keys=True))
    driver.perform(Operation("op", "epp", "key_delete", "ceremony", {"slot": "40"}), 1000.0)
    (outcome,) = [item for item in driver.tick(1000.0) if isinstance(item, Outcome)]
    assert outcome.result == "refused"
    assert driver.outgoing() == INFO


def test_one_at_a_time_and_a_deletion_waits() -> None:
    bench, pad = joined()
    pad.mute = True
    first = begin(bench, "key_import", bytes.fromhex(KEY), **IMPORT)
    deletion = begin(bench, "key_delete", slot="40")
    for verb, arguments, opaque in (("key_import", IMPORT, bytes.fromhex(KEY)), ("key_check", {"slot": "80"}, b"")):
        bench.now += 0.001
        refused = begin(bench, verb, opaque, **arguments)
        bench.run(0.05)
        assert [(o.operation, o.result) for o in bench.outcomes if o.operation == refused] == [(refused, "refused")]
    bench.run(30)
    ended = [(o.operation, o.result) for o in bench.outcomes if o.result != "refused"]
    assert ended == [(first, "unanswered"), (deletion, "unanswered")]
    assert pad.heard == [LOAD, ERASE], "nothing is said twice"


def test_a_late_information_is_not_taken_for_the_reply_to_a_key() -> None:
    bench, pad = joined()
    pad.mute = True
    name = begin(bench, "key_import", bytes.fromhex(KEY), **IMPORT)
    bench.run(2)
    assert pad.heard == [LOAD]
    for late in (REPLY, LOADED):
        bench.outcomes += [i for i in bench.driver.receive(late, bench.now) if isinstance(i, Outcome)]
    assert [(o.operation, o.result) for o in bench.outcomes] == [(name, "done")]


def test_a_late_error_is_not_taken_for_the_reply_to_a_key() -> None:
    driver, now = Epp(EppOptions(keys=True)), 1000.0
    driver.tick(now)
    driver.receive(REPLY, now)
    driver.outgoing()
    driver.tick(now + 1.05)
    assert driver.outgoing() == INFO
    now += 2.6
    driver.tick(now)  # no reply in time
    driver.perform(Operation("op", "epp", "key_delete", "ceremony", {"slot": "40"}), now)
    driver.tick(now + 0.1)
    assert driver.outgoing() == b"", "first it is waited"
    driver.receive(framed(b"\xed"), now + 1)
    driver.tick(now + 3)
    assert driver.outgoing() == ERASE


@pytest.mark.parametrize(
    "wire",
    [
        {"chunk": 1, "gap": 0.005},
        {"merge": 0.3},
        {"damage": 0.2},
        {"half": 0.2},
        {"noise": 3},
        {"delay": 0.4},
        {"cut": True},
    ],
)
@pytest.mark.parametrize("seed", range(5))
def test_on_a_bad_line_each_ends_once_and_is_said_once(wire: dict[str, Any], seed: int) -> None:
    bench, pad = joined(seed)
    bench.faults(**wire)
    rng, begun, answers = Random(seed), [], pad.answer

    def spoiling(frame: bytes) -> bytes:
        try:
            return answers(frame)
        except ValueError:
            return b""

    pad.answer = spoiling  # type: ignore[method-assign]
    pad.receive = whole_frames(pad)  # type: ignore[method-assign]
    for _ in range(10):
        verb = rng.choice(("key_import", "key_delete", "key_check"))
        opaque = bytes.fromhex(KEY) if verb == "key_import" else b""
        arguments = {"key_import": IMPORT, "key_delete": {"slot": "40"}, "key_check": {"slot": "80"}}[verb]
        heard = len(pad.heard)
        begun.append(begin(bench, verb, opaque, **arguments))
        bench.run(15)
        assert len(pad.heard) - heard <= 1
    assert sorted(o.operation for o in bench.outcomes) == sorted(begun)
    assert {o.result for o in bench.outcomes} <= {"done", "failed", "unanswered"}
    check([*bench.readings])


def whole_frames(pad: Pad) -> Any:
    """Hears only frames that came whole and undamaged, as a pad does."""
    held = b""

    def receive(data: bytes) -> bytes:
        nonlocal held
        held, said = (held + data)[-200:], b""
        for frame in (INFO, LOAD, ERASE):
            while frame in held:
                held = held[held.index(frame) + len(frame) :]
                said += pad.answer(frame)
        return said

    return receive


# nothing remains


@pytest.mark.parametrize("way", ["answered", "mute", "error"])
def test_nothing_of_a_key_remains_after_it_went_to_the_port(way: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    bench, pad = joined()
    bench.driver.transcript.on = True
    pad.mute, pad.reply = way == "mute", framed(b"\xe6") if way == "error" else LOADED
    key = "Q7xK2mP9vR4tW8zB"  # letters and digits, so that the bytes themselves are found as well
    operation = Operation("op", "epp", "key_import", "ceremony", IMPORT, key.encode())
    bench.driver.perform(operation, bench.now)
    assert remains(bench.driver, key), "it waits for its turn"
    while not pad.heard:
        bench.run(0.05)
    assert remains(bench.driver, key) == []
    bench.run(20)
    told = bench.driver.transcript.read()
    assert "> key_import of slot 40" in told
    assert remains([bench.driver, bench.outcomes, bench.readings, told, caplog.text, repr(operation)], key) == []
    assert len(bench.outcomes) == 1


def test_a_pad_that_repeats_the_key_spreads_nothing() -> None:
    bench, pad = joined()
    bench.driver.transcript.on = True
    for reply in (b"0" + KEY.encode(), b"\xe6" + KEY.encode(), KEY.encode()):
        pad.reply = framed(reply)
        do(bench, "key_import", bytes.fromhex(KEY), **IMPORT)
    said = [*bench.readings, *bench.outcomes, *bench.driver.transcript.read()]
    assert {*remains(said, KEY)} <= {KEY[at : at + 5] for at in range(3)}, "more than 3 bytes as a check value"
    check([*bench.readings])
