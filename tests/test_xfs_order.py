"""The XFS4IoT driver and answers that are older than an event: no value goes back, not for a moment."""

from itertools import groupby
from typing import Any

import pytest

from agent.drivers.framing import Records, record
from hwsim import change_setting
from hwsim.xfs4iot import Xfs4iot as Twin
from tests.recorded import GENERATIONS, PUBLISHER, Host, Message, answer, driver, event, publisher, scripted, uri

STATUS, STORAGE = "Common.Status", "Storage.GetStorage"
DOOR = "Common.StatusChangedEvent"
COUNTS = "Storage.CountsChangedEvent"


def status(door: str, device: str = "online") -> Message:
    return {"common": {"device": device}, "auxiliaries": {"safeDoor": door, "seismicSensor": "off"}}


def unit(presented: int, **more: Any) -> Message:
    counts = {"initial": {"typeEUR20": {"fit": 100}}, "out": {"presented": {"typeEUR20": {"fit": presented}}}}
    return {"status": "ok", "cash": {"status": {**counts, "replenishmentStatus": "ok"}}, **more}


class Held(Host):
    """One service, up, that completes what `held` names only when it is let go, as it stood when it was asked."""

    def __init__(self, **answers: Any) -> None:
        super().__init__(driver(d="One"), {"": publisher("One"), "One": scripted(**answers)})
        self.held: set[str] = set()
        self.late: list[Message] = []
        self.publish()
        self.run(3)

    def answer(self, address: str, command: Message) -> None:
        if command["header"]["name"] not in self.held:
            return super().answer(address, command)
        ack, done = self.services["One"].answer(command)
        self.late.append(done)
        return self.say("One", ack)

    def turns(self, name: str, payload: Any) -> None:
        """From now on it answers so."""
        self.services["One"].answers[name][0] = answer(name, payload)

    def wait_for(self, name: str) -> None:
        """Until it is asked this, and holds the answer back."""
        self.held.add(name)
        while not self.late:
            self.run(0.1)

    def let_go(self) -> None:
        self.held.clear()
        late, self.late = self.late, []
        self.say("One", *late)

    def steps(self, point: str) -> list[Any]:
        """The values of a point, one after the other."""
        return [value for value, _ in groupby(self.values("d", point))]


def test_a_status_that_is_older_than_an_event_does_not_take_it_back_and_is_asked_again() -> None:
    host = Held(Common_Status=status("closed"))
    host.wait_for(STATUS)
    host.say("One", event(DOOR, {"auxiliaries": {"safeDoor": "open"}}))
    host.turns(STATUS, status("open"))
    begun, asked = host.now, len(host.sent)
    host.let_go()
    assert host.steps("safe_door") == ["closed", "open"]
    assert host.values("d", "seismic", since=begun) == ["off"], "what no event has told of is read as ever"
    assert host.values("d", "device.state", since=begun) == ["online"]
    host.run(1.2)
    assert [c["header"]["name"] for _, c in host.sent[asked:]].count(STATUS) == 1
    host.run(10)
    assert host.steps("safe_door") == ["closed", "open"]


def test_a_status_that_is_newer_than_an_event_is_believed_a_second_later_at_most() -> None:
    host = Held(Common_Status=status("closed"))
    host.wait_for(STATUS)
    host.say("One", event(DOOR, {"auxiliaries": {"safeDoor": "open"}}))
    host.let_go()
    host.run(1.2)
    assert host.steps("safe_door") == ["closed", "open", "closed"]
    host.say("One", event(DOOR, {"auxiliaries": {"safeDoor": "open"}}))  # while nothing is under way
    host.run(6)
    assert host.steps("safe_door") == ["closed", "open", "closed", "open", "closed"]


def test_a_status_does_not_clear_an_error_that_is_newer_than_it() -> None:
    host = Held(Common_Status=status("closed", "hardwareError"))
    host.turns(STATUS, status("closed"))
    host.wait_for(STATUS)
    host.say("One", event("Common.ErrorEvent", {"eventId": "hardware"}))
    host.turns(STATUS, status("closed", "hardwareError"))
    host.let_go()
    host.run(20)
    assert host.steps("device.error") == ["none", "hardware"]
    host.turns(STATUS, status("closed"))
    host.run(6)
    assert host.steps("device.error") == ["none", "hardware", "none"]


def test_a_storage_answer_that_is_older_than_an_event_does_not_take_it_back_and_is_asked_again() -> None:
    storage = {"unit1": unit(0), "unit2": unit(0)}
    host = Held(Common_Status=status("closed"), Storage_GetStorage={"storage": storage})
    host.turns(STORAGE, {"storage": {"unit1": unit(0), "unit2": unit(3)}})
    host.wait_for(STORAGE)
    presented = {"cash": {"status": {"out": {"presented": {"typeEUR20": {"fit": 7}}}}}}
    host.say("One", event(COUNTS, {"unit1": presented}))
    host.say("One", event("Storage.StorageChangedEvent", {"unit1": {"status": "missing"}}))
    host.turns(STORAGE, {"storage": {"unit1": unit(7) | {"status": "missing"}, "unit2": unit(3)}})
    asked = len(host.sent)
    host.let_go()
    assert host.steps("cassette.unit1.count") == [100, 93]
    assert host.steps("cassette.unit2.count") == [100, 97], "what no event has told of is read as ever"
    host.say("One", event("Storage.StorageChangedEvent", {"unit1": {"cash": {}}}))
    host.run(1.2)
    assert [c["header"]["name"] for _, c in host.sent[asked:]].count(STORAGE) == 1
    host.turns(STORAGE, {"storage": {"unit1": unit(9), "unit2": unit(3)}})
    host.run(20)
    assert host.steps("cassette.unit1.count") == [100, 93, 91]
    assert host.steps("cassette.unit1.state") == ["ok", "missing", "ok"]


def test_the_first_storage_answer_is_read_whatever_events_came_before_it() -> None:
    host = Held(Common_Status=status("closed"), Storage_GetStorage={"storage": {"unit1": unit(0)}})
    host.lose("One")
    host.wait_for(STORAGE)
    host.say("One", event(COUNTS, {"unit1": unit(7)}))
    begun = host.now
    host.let_go()
    assert host.values("d", "cassette.unit1.count", since=begun) == [100]


class Joined(Host):
    """The driver and a simulated host."""

    def __init__(self, **settings: str) -> None:
        super().__init__(driver(sensors="SimAuxiliaries", dispenser="SimCashDispenser"))
        self.twin, self._heard = Twin(), Records(1 << 22)
        for name, value in settings.items():
            change_setting(self.twin, name, value)

    def answer(self, address: str, command: Message) -> None:
        raise AssertionError("the simulated host answers")

    def run(self, seconds: float, step: float = 0.05) -> None:
        for _ in range(round(seconds / step)):
            self.now += step
            self._hear(self.twin.tick(self.now))
            self.keep(self.driver.tick(self.now))
            self.serve()

    def serve(self) -> None:
        while data := self.driver.outgoing():
            for act, address, text in self._records.feed(data):
                if address not in self.open:
                    self.open.add(address)
                    self.twin.receive(record("o", self._path(address)))
                    self.keep(self.driver.receive(record("o", address), self.now))
                self._hear(self.twin.receive(record(act, self._path(address), text)))

    def _path(self, address: str) -> str:
        return f"1 {address.removeprefix(PUBLISHER.partition('/xfs4iot')[0])}"

    def _hear(self, said: bytes) -> None:
        for act, channel, text in self._heard.feed(said):
            service = channel.rpartition("/v1.0")[2].strip("/")
            self.keep(self.driver.receive(record(act, uri(service), text), self.now))


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_simulated_host_that_answers_late_and_out_of_order_makes_nothing_go_back(generation: str) -> None:
    host = Joined(generation=generation, safe_door="closed")
    host.publish()
    host.run(5)
    change_setting(host.twin, "out_of_order", "on")
    doors, counts = ["closed"], [host.value("dispenser", "cassette.unit1.count")]
    for turn in range(60):
        doors.append("open" if turn % 2 == 0 else "closed")
        counts.append(counts[-1] - 1)
        change_setting(host.twin, "safe_door", doors[-1])
        change_setting(host.twin, "unit1_count", str(counts[-1]))
        host.run(0.3 + 0.05 * (turn % 37))
    assert [value for value, _ in groupby(host.values("sensors", "safe_door"))] == doors
    assert [value for value, _ in groupby(host.values("dispenser", "cassette.unit1.count"))] == counts
    assert host.hung_up == []
