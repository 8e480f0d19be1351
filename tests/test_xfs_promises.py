"""What every driver of a line keeps, held for XFS4IoT: slicing, damage, babble, order and delay, the vocabulary."""

from collections import deque
from dataclasses import fields
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from agent.drivers import SHARED
from agent.drivers.xfs4iot import LIMIT, Xfs4iot, XfsOptions
from agent.drivers.xfs_service import XfsLineOptions
from agent.model import Heard, Operation
from hwsim.wires import hurt
from tests.recorded import (
    GENERATIONS,
    PUBLISHER,
    SERVICES,
    Host,
    Message,
    Recording,
    driver,
    event,
    recordings,
    replayed,
    unsolicited,
)
from tests.test_drivers import check


def taped(host_services: dict[str, Recording], seed: int, damage: bool) -> list[tuple[float, bytes]]:
    """What a driver hears in 20 seconds of a conversation, by time; some of it is hurt."""
    rng = Random(seed)
    host = Host(driver(**SERVICES), host_services)
    tape: list[tuple[float, bytes]] = []
    receive = host.driver.receive

    def hear(data: bytes, now: float) -> list[Heard]:
        said = hurt(data, rng) if damage and rng.random() < 0.1 else data
        tape.append((now, said))
        return receive(said, now)

    host.driver.receive = hear  # type: ignore[method-assign]
    host.publish()
    host.run(10, step=0.5)
    for service, message in unsolicited(host_services):
        host.say(service, message)
    host.run(10, step=0.5)
    return tape


@pytest.mark.parametrize("damage", [False, True])
@given(seed=st.integers(0, 2**32))
@settings(max_examples=15, deadline=None)
def test_any_slicing_gives_the_same_readings(damage: bool, seed: int) -> None:
    rng = Random(seed)
    tape = taped(recordings(rng.choice(GENERATIONS)), seed, damage)
    whole, sliced = driver(**SERVICES), driver(**SERVICES)
    for now, data in tape:
        assert whole.tick(now) == sliced.tick(now)
        wanted = whole.receive(data, now)
        cuts = sorted(rng.randint(0, len(data)) for _ in range(3))
        pieces = [data[a:b] for a, b in pairwise([0, *cuts, len(data)])]
        assert [heard for piece in pieces for heard in sliced.receive(piece, now)] == wanted
        assert whole.outgoing() == sliced.outgoing()
        check([item for heard in wanted for item in heard.items])


@given(seed=st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_any_order_and_delay_of_a_service_s_messages_gives_the_same_state(seed: int) -> None:
    """Acknowledges come in order, completions when they like, events between."""
    rng = Random(seed)
    services = recordings(rng.choice(GENERATIONS))
    for one in services.values():  # a state that does not change: the last answer of each
        one.answers = {name: deque([turns[-1]]) for name, turns in one.answers.items()}
    prompt, late = Host(driver(**SERVICES), services), Host(driver(**SERVICES), services)
    flying: list[tuple[float, str, Message]] = []

    def delay(address: str, command: Message) -> None:
        service = services.get(address.removeprefix(PUBLISHER).strip("/"))
        due = late.now
        for message in service.answer(command) if service else []:
            due += rng.random() * (1 if message["header"]["type"] == "acknowledge" else 5)
            flying.append((due, address, message))

    late.answer = delay  # type: ignore[method-assign]
    prompt.publish()
    prompt.run(30)
    late.publish()
    for _ in range(400):
        late.run(0.1)
        for item in sorted((f for f in flying if f[0] <= late.now), key=lambda f: f[0]):
            flying.remove(item)
            late.say(item[1].removeprefix(PUBLISHER).strip("/"), item[2])
            late.say("SimCardReader", event("CardReader.MediaDetectedEvent", {"position": "exit"}))
    assert late.hung_up == []
    for device in SERVICES:
        assert late.points(device) == prompt.points(device)


@pytest.mark.parametrize("seed", range(25))
def test_one_damaged_message_costs_itself_and_the_next_and_no_more(seed: int) -> None:
    rng = Random(seed)
    host = replayed(rng.choice(GENERATIONS))
    host.run(10)
    deliver, left = host.deliver, rng.randint(1, 60)

    def hurt_one(data: bytes) -> None:
        nonlocal left
        left -= 1
        deliver(hurt(data, rng) if left == 0 else data)

    host.deliver = hurt_one  # type: ignore[method-assign]
    host.run(30)
    assert left < 0
    assert len(host.hung_up) <= 2
    for name in SERVICES:
        assert host.value(name, "link.state") == "up"
        assert host.values(name, "link.state").count("up") >= 7
    check([reading for _, reading in host.of])


@given(pieces=st.lists(st.binary(max_size=200), max_size=30))
@settings(max_examples=40, deadline=None)
def test_nothing_that_a_line_says_raises_or_leaves_the_vocabulary(pieces: list[bytes]) -> None:
    host = replayed("v2")
    for piece in pieces:
        host.hear(piece)
        host.say("SimCardReader", piece)
        host.run(0.2)
    check([reading for _, reading in host.of])


def test_babble_for_ever_fills_no_buffer_and_the_next_good_message_is_read() -> None:
    host = replayed("v2")
    rng = Random(1)
    for _ in range(40):
        host.hear(rng.randbytes(200_000).replace(b"\x1d", b""))
        assert vars(host.driver)["_records"].kept <= LIMIT
    host.hear(b"\x1d")
    host.say("SimPrinter", event("Printer.PaperThresholdEvent", {"paperSource": "upper", "threshold": "out"}))
    assert host.value("printer", "paper.upper") == "out"
    host.run(2)
    assert host.value("printer", "link.bad_frames") != 0


def test_an_operation_is_refused_exactly_once() -> None:
    host = replayed("v2")
    host.driver.perform(Operation("op1", "dispenser", "reset", "someone"), host.now)
    host.run(1)
    assert [(o.operation, o.result) for o in host.outcomes] == [("op1", "refused")]
    assert "only watched" in host.outcomes[0].detail


def test_the_transcript_names_messages_and_holds_none_of_their_content() -> None:
    plain = replayed("v2")
    assert plain.driver.transcript.read() == []
    host = Host(driver(**SERVICES), recordings("v2"))
    host.driver.transcript.on = True
    host.publish()
    host.run(2)
    entries = host.driver.transcript.read()
    assert "> SimEncryptor: KeyManagement.GetKeyDetail #3" in entries
    assert "< SimEncryptor: completion KeyManagement.GetKeyDetail #3" in entries
    assert not [e for e in entries if "MASTERKEY" in e or "{" in e]


def test_options_and_the_reasons_of_the_contract() -> None:
    assert SHARED["xfs4iot"] is Xfs4iot
    assert Xfs4iot.access == {"service"}
    assert Xfs4iot.why_not.keys() == {"own", "listen"}
    for options in (XfsLineOptions, XfsOptions):
        assert all(f"{field.name}:" in (options.__doc__ or "") for field in fields(options))
        with pytest.raises(ValidationError, match="unexpected"):
            TypeAdapter(options).validate_python({"service": "One", "polll": 1})
    wrong: list[dict[str, Any]] = [
        {"poll": 0},
        {"poll": 100},
        {"reread": 60},
        {"acknowledge": 0},
        {"completion": 60},
    ]
    for table in wrong:
        with pytest.raises(ValueError, match=next(iter(table))):
            XfsLineOptions(**table)
    for service in ("", "a/b", "a b", "x" * 65):
        with pytest.raises(ValueError, match="service must be"):
            XfsOptions(service)
    with pytest.raises(ValueError, match="paper must"):
        XfsOptions("One", {"upper": "a.b"})
    with pytest.raises(ValueError, match="a and b are the same service"):
        driver(a="One", b="ONE")
