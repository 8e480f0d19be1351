"""The XFS4IoT driver and publishers that answer badly: their devices get a link.state in time all the same."""

from collections import deque
from itertools import pairwise
from typing import Any

import pytest

from agent.drivers.framing import record
from agent.points import lookup
from tests.recorded import (
    ONLINE,
    PUBLISHER,
    Host,
    Message,
    Recording,
    answer,
    driver,
    event,
    publisher,
    scripted,
    uri,
)

SERVICES = "ServicePublisher.GetServices"
NOTHING = "no publisher lists a service One; the services here are none"


def refused(code: str, generation: str) -> list[Message]:
    """An acknowledge that takes nothing on."""
    header: Message = {"type": "acknowledge", "name": SERVICES, "requestId": 0}
    if generation == "v1":
        return [{"header": header, "payload": {"status": code}}]
    return [{"header": {**header, "version": "2.0", "status": code}}]


def without_payload() -> list[Message]:
    ack, done = answer(SERVICES)
    del done["payload"]
    return [ack, done]


@pytest.mark.parametrize(
    ("said", "state", "raw"),
    [
        (answer(SERVICES, code="internalError"), "rubbish", f"{PUBLISHER} refuses {SERVICES}: internalError"),
        (
            answer(SERVICES, None, "v1", "deviceNotReady"),
            "rubbish",
            f"{PUBLISHER} refuses {SERVICES}: deviceNotReady",
        ),
        (refused("tooManyRequests", "v2"), "rubbish", f"{PUBLISHER} refuses {SERVICES}: tooManyRequests"),
        (refused("tooManyRequests", "v1"), "rubbish", f"{PUBLISHER} refuses {SERVICES}: tooManyRequests"),
        (refused("invalidMessage", "v2"), "rubbish", f"{PUBLISHER} refuses {SERVICES}: invalidMessage"),
        (without_payload(), "missing", NOTHING),
        (answer(SERVICES), "missing", NOTHING),
        (answer(SERVICES, {}), "missing", NOTHING),
        (answer(SERVICES, None, "v1"), "missing", NOTHING),
        (answer(SERVICES, {"services": None}), "missing", NOTHING),
        (answer(SERVICES, {"services": []}), "missing", NOTHING),
        (answer(SERVICES, {"services": "One"}), "missing", NOTHING),
        (answer(SERVICES, {"services": {"serviceURI": uri("One")}}), "missing", NOTHING),
    ],
)
def test_a_publisher_that_answers_without_a_list_is_told_of_until_it_gives_one(
    said: list[Message], state: str, raw: str
) -> None:
    host = Host(driver(d="One"), {"": Recording({SERVICES: deque([said])}), "One": scripted(Common_Status=ONLINE)})
    host.publish()
    begun = host.now
    host.run(60)
    states = [r for _, r in host.of if r.point == "link.state"]
    assert {(r.value, r.raw) for r in states} == {(state, raw)}
    assert max(b - a for a, b in pairwise([begun, *(r.at for r in states)])) < lookup("link.state").max_age
    assert host.hung_up == []
    host.services = {**host.services, "": publisher("One")}
    host.run(32)
    assert host.last("d", "link.state").value == "up"


def test_a_refusal_takes_no_list_back_and_its_reason_is_told_until_a_good_answer() -> None:
    host = Host(driver(one="One", other="Two"), {"": publisher("One"), "One": scripted(Common_Status=ONLINE)})
    host.publish()
    host.run(20)
    table: Any = host.services
    table[""] = Recording({SERVICES: deque([refused("tooManyRequests", "v2")])})
    host.run(40)
    refusal = f"{PUBLISHER} refuses {SERVICES}: tooManyRequests"
    why = f"no publisher lists a service Two; the services here are One; {refusal}"
    assert (host.last("other", "link.state").value, host.last("other", "link.state").raw) == ("missing", why)
    assert host.value("one", "link.state") == "up"
    table[""] = publisher("One")
    host.run(40)
    assert "refuses" not in host.last("other", "link.state").raw


def test_an_event_of_a_publisher_that_lists_nothing_is_no_list() -> None:
    host = Host(driver(d="One"), {"": Recording({SERVICES: deque([refused("tooManyRequests", "v2")])})})
    host.publish()
    host.run(1)
    for _ in range(200):
        host.say(
            "", event("Common.StatusChangedEvent", {"common": {"device": "online"}}), event("Common.ErrorEvent")
        )
        host.say("", event("Common.ErrorEvent", {"completionCode": "invented"}))
        host.run(0.1)
    raw = f"{PUBLISHER} refuses {SERVICES}: tooManyRequests"
    assert {(r.value, r.raw) for _, r in host.of if r.point == "link.state"} == {("rubbish", raw)}


def test_the_port_s_reason_for_not_opening_a_listed_address_is_told() -> None:
    listed = {"services": [{"serviceURI": "ws://localhost:5846/xfs4iot/v1.0/One"}]}
    host = Host(driver(d="One"), {"": scripted(ServicePublisher_GetServices=listed)})
    host.publish()
    host.run(0.2)
    why = b"it names another machine than the line's port"
    host.hear(record("c", "ws://localhost:5846/xfs4iot/v1.0/One", why))
    assert host.last("d", "link.state").value == "silent"
    assert host.last("d", "link.state").raw.endswith(
        f"localhost:5846/xfs4iot/v1.0/One does not hold the connection: {why.decode()}"
    )


def test_a_publisher_that_takes_the_question_in_another_version_is_no_trouble() -> None:
    particular = publisher("One")
    particular.answers[SERVICES].appendleft(refused("unsupportedCommand", "v2"))
    host = Host(driver(d="One"), {"": particular, "One": scripted(Common_Status=ONLINE)})
    host.publish()
    host.run(8)
    assert [r.value for _, r in host.of if r.point == "link.state"][:1] == ["up"]
