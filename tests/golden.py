"""Golden frames: tests/vectors/<kind>.txt, taken from the protocol documents, check driver and simulator apart.

A file holds cases. A case begins with `## name`, and its lines are steps in order:

    only driver | only device   the case holds for one side only (anything else holds for both)
    listen                      the driver is a passive tap: it sees both directions and writes nothing
    set paper=out               the state of the simulated device
    > 10 04 04                  host to device, hex (two digits a byte) or "text"
    < 7E                        device to host
    = paper.receipt out         what the driver must have read since the last step of this sort
    # comment                   the source: document and section
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from agent.drivers import Driver
from agent.model import Outcome, Reading
from hwsim import SimulatedDevice, change_setting

VECTORS = Path(__file__).parent / "vectors"


@dataclass
class Case:
    name: str
    only: str = ""
    listen: bool = False
    steps: list[tuple[str, str]] = field(default_factory=list)


def cases(kind: str) -> list[Case]:
    """The cases of one kind of device."""
    found: list[Case] = []
    for line in (VECTORS / f"{kind}.txt").read_text().splitlines():
        text = line.split(" #")[0].strip()
        if text.startswith("## "):
            found.append(Case(text[3:]))
        elif text and not text.startswith("#"):
            mark, _, rest = text.partition(" ")
            if mark == "only":
                found[-1].only = rest
            elif mark == "listen":
                found[-1].listen = True
            else:
                assert mark in ("set", ">", "<", "="), line
                found[-1].steps.append((mark, rest))
    return found


def octets(text: str) -> bytes:
    """Bytes of a step: `10 04 "text" 0D`."""
    out = b""
    for i, part in enumerate(text.split('"')):
        out += part.encode("ascii") if i % 2 else bytes.fromhex(part)
    return out


def _until_sent(driver: Driver, wanted: bytes, now: float) -> tuple[float, list[Reading | Outcome]]:
    """Let time pass until the driver sends `wanted`; every other question stays unanswered."""
    items: list[Reading | Outcome] = []
    for _ in range(12_000):
        if (sent := driver.outgoing()) == wanted:
            return now, items
        assert wanted not in sent or sent == wanted, (
            f"{wanted.hex(' ')} was sent together with more: {sent.hex(' ')}"
        )
        now += 0.05
        items += driver.tick(now)
    raise AssertionError(f"the driver never sent {wanted.hex(' ')}")


def check_driver(case: Case, driver: Driver) -> None:
    """Play the device's side of a case to a driver and compare what it reads."""
    now, items = 1000.0, list[Reading | Outcome]()
    for mark, rest in case.steps:
        match mark:
            case ">" if case.listen:
                items += driver.receive(octets(rest), now)
            case ">":
                now, more = _until_sent(driver, octets(rest), now)
                items += more
            case "<":
                items += driver.receive(octets(rest), now)
            case "=":
                point, _, word = rest.partition(" ")
                got = [i for i in items if isinstance(i, Reading) and i.point == point]
                assert got, f"{case.name}: nothing read for {point}"
                assert str(got[-1].value) == word, f"{case.name}: {point} is {got[-1].value}, not {word}"
        if case.listen:
            assert driver.outgoing() == b"", "a passive tap wrote something"


def check_device(case: Case, device: SimulatedDevice) -> None:
    """Play the host's side of a case to a simulated device and compare what it answers, byte for byte."""
    now, said = 1000.0, device.tick(1000.0)
    for mark, rest in case.steps:
        match mark:
            case "set":
                name, _, text = rest.partition("=")
                change_setting(device, name, text)
                said += device.tick(now)
            case ">":
                assert said == b"", f"{case.name}: the device also said {said.hex(' ')}"
                said = device.receive(octets(rest))
            case "<":
                wanted = octets(rest)
                for _ in range(1200):
                    if len(said) >= len(wanted):
                        break
                    now += 0.05
                    said += device.tick(now)
                assert said[: len(wanted)] == wanted, f"{case.name}: {said.hex(' ')} instead of {wanted.hex(' ')}"
                said = said[len(wanted) :]
    assert said == b"", f"{case.name}: the device also said {said.hex(' ')}"


def for_driver(kind: str) -> Iterator[Case]:
    return (c for c in cases(kind) if c.only != "device")


def for_device(kind: str) -> Iterator[Case]:
    return (c for c in cases(kind) if c.only != "driver")
