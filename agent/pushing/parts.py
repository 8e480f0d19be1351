"""This file knows how what takes pushes (agent/pushing/desk.py) is built, and what it is given of the agent."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.clock import Quality
from agent.config import Config, load
from agent.errors import ConfigError, ControlError, TillwireError
from agent.messages import DeviceState
from agent.model import Fence, Heard, Note
from agent.mqtt.outbox import Outbox
from agent.people.peer import Peer
from agent.pushing.answering import Answering
from agent.pushing.applying import Hands
from agent.pushing.commanding import Commanding
from agent.pushing.desk import PushDesk
from agent.pushing.errands import Reach
from agent.pushing.inforce import Begun
from agent.pushing.reports import Reports
from agent.pushing.swapping import difference
from agent.timepiece import up_ms, wall_ms
from agent.uplink import Uplink

PATIENCE = 10.0
"""Seconds to wait until what was said is on disk."""


@dataclass(frozen=True, slots=True)
class Agent:
    """The agent, as the service has it.

    config, take   what is in force, and what takes another one (agent/service.py: reconfigure)
    put            puts something on the core's queue
    uplink         the connection; None when no broker is named
    outbox         what is to be told to the centre
    quality        how good the wall clock is
    ceremony       whether keys are being loaded; none are as long as `PushParts.tried` was said before that
    keys           the key desk; None when no keys are loaded here
    opened         when the line of each device was opened last (monotonic seconds)
    answered       the devices that answered when the agent was last there
    """

    config: Callable[[], Config]
    take: Callable[[Config], object]
    put: Callable[[Note | Fence], None]
    uplink: Callable[[], Uplink | None]
    outbox: Outbox
    quality: Callable[[], Quality]
    ceremony: Callable[[], bool]
    diagnose: Callable[[], Sequence[Mapping[str, Any]]]
    states: Callable[[], Mapping[str, DeviceState]]
    restart: Callable[[], None]
    keys: Callable[[Mapping[str, Any], Peer], Iterator[dict[str, Any]]] | None
    boot: str
    opened: Callable[[], Mapping[str, float]]
    answered: frozenset[str]


class PushParts:
    """What takes pushes at one terminal. `desk` is to be run, and to be given what `hear` and `heard` name."""

    def __init__(self, begun: Begun, agent: Agent, stop: threading.Event) -> None:
        if begun.pushed is None or begun.config.push is None:
            raise ConfigError("the configuration has no [push]: nothing that is sent is taken")
        self._agent = agent
        self._answering = answering = Answering(agent.answered, agent.opened)
        memory = begun.pushed.shelf.memory
        hands = Hands(
            agent.config,
            agent.take,
            difference,
            answering.answers,
            lambda: answering.unheard(agent.config().devices, time.monotonic()),
            answering.back,
            self._deaf,
            self._proven,
            self._note,
            self._keep,
            lambda push: self.desk.applying(push),
            self._clock,
            self._busy,
            agent.restart,
            agent.boot,
        )
        reports = Reports(
            begun.config.terminal.groups,
            self._clock,
            lambda wall: memory.frozen(wall, agent.boot, up_ms()),
            lambda: self.desk.trust,
            lambda: agent.config().digest,
            lambda: self.desk.in_force,
            self._tell,
        )
        reach = Reach(
            self._note,
            self._keep,
            self._tell,
            self._clock,
            agent.diagnose,
            agent.states,
            self._refresh,
            lambda: self._restart(begun.file),
            agent.boot,
            keys=agent.keys,
            busy=lambda: self._busy() or self.tried,
        )
        commanding = Commanding(memory, begun.config.push, reach)
        self.desk = PushDesk(begun, begun.pushed, hands, reports, commanding, stop)

    @property
    def tried(self) -> str:
        """That a push is being tried, as a sentence; empty when none is."""
        return "a push is being tried, or taken back (`tillwire config show`)" if self.desk.is_trying else ""

    def heard(self, heard: Heard) -> None:
        """A device has said something. Returns at once."""
        self._answering.heard(heard)
        self.desk.heard(heard)

    def _proven(self) -> float:
        uplink = self._agent.uplink()
        return uplink.proven if uplink else float("-inf")

    def _deaf(self) -> str:
        uplink = self._agent.uplink()
        return uplink.inbox.deaf if uplink and uplink.inbox else ""

    def _note(self, event: str, **facts: Any) -> None:
        self._agent.put(Note("push", {"event": event, **facts}))

    def _keep(self) -> bool:
        reached = threading.Event()
        self._agent.put(Fence(reached.set))
        return reached.wait(PATIENCE)

    def _tell(self, suffix: str, payload: bytes, retain: bool) -> None:
        uplink = self._agent.uplink()
        (uplink.tell if uplink else self._agent.outbox.put)(suffix, payload, retain)

    def _refresh(self) -> None:
        uplink = self._agent.uplink()
        if uplink is None or not uplink.connected:
            raise TillwireError("no broker has this terminal now: look at `tillwire devices`")
        uplink.poke(True, afresh=True)

    def _restart(self, file: Path) -> None:
        load(file)  # what cannot be read would end the new agent as soon as it begins: a ConfigError says so now
        self._agent.restart()

    def _clock(self) -> tuple[int, Quality]:
        return wall_ms(), self._agent.quality()

    def _busy(self) -> str:
        try:
            return "keys are being loaded (`tillwire keys status`)" if self._agent.ceremony() else ""
        except ControlError as error:  # nobody knows
            return str(error)
