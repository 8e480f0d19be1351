"""This file knows what a core begins with: what the store remembers of values, faults and the clock."""

import json
import logging
from collections.abc import Container, Sequence
from contextlib import closing

from agent import points
from agent.catalogue import Catalogue
from agent.clock import Clock
from agent.core import Core
from agent.errors import StoreError
from agent.faults import Faults
from agent.model import Value
from agent.store import TAIL, Reader, Store
from agent.watch import Watch

log = logging.getLogger(__name__)


def recalled(reader: Reader, devices: Container[str], catalogue: Catalogue, boot: str) -> Core:
    """A core that goes on where the store's last row left off; `devices` are configured. Open faults of others end
    with its first step."""
    faults = reader.faults()
    ours = [fault for fault in faults if fault.device in devices]
    removed = [fault for fault in faults if fault.device not in devices]
    clock = Clock(boot, [json.loads(row) for _, row, _ in reader.rows(reader.head()[0] - TAIL, TAIL)])
    return Core(Watch(last(reader, devices)), Faults(catalogue, ours), boot, removed, clock)


def relearn(core: Core, store: Store, devices: Sequence[str]) -> None:
    """Have a core go on with devices that come back; it knows nothing of them when the store cannot be read."""
    try:
        with closing(store.reader()) as reader:
            core.learn(last(reader, devices))
    except StoreError as error:
        log.error("what is stored of %s cannot be read: %s", ", ".join(devices), error)


def answered(store: Store) -> frozenset[str]:
    """The devices that answered when they last said anything of their line; none when the store cannot be read."""
    try:
        with closing(store.reader()) as reader:
            return frozenset(p.device for p in reader.points() if (p.point, p.value) == ("link.state", "up"))
    except StoreError as error:
        log.error("which devices answered last cannot be read: %s", error)
        return frozenset()


def last(reader: Reader, devices: Container[str]) -> dict[tuple[str, str], Value]:
    """The stored values of these devices."""
    stored = reader.points()
    return {(p.device, p.point): p.value for p in stored if p.device in devices and points.exists(p.point)}
