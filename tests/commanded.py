"""The commands of a terminal around which the rest of the agent is callables that write down what they did; what is
remembered is on a real disk."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agent.crypto.signing import COMMAND, Accepted, Signer
from agent.disk.slips import Slips
from agent.messages import DeviceState, PointState, Result
from agent.mqtt.outbox import Outbox
from agent.pushes import COMMANDS, Push, read
from agent.pushing.commanding import Commanding
from agent.pushing.errands import Reach
from agent.pushing.memory import Memory
from agent.tables import Push as Table
from tests.pushing import KEYS, NOW, command, payload

PEOPLE = ("bo", "cy")
ALL = Table(signers=Path("signers.toml"), reboot=True)
RIGHT: dict[str, dict[str, Any]] = {
    **{word: {} for word in COMMANDS},
    "maintenance": {"minutes": 30, "reason": "belt of the dispenser"},
    "key_order": {"order": "{}"},
}
"""Arguments that each command takes."""


def push(word: str = "state", id: str = "K-0001", /, **more: Any) -> Push:
    """A command as it comes out of an envelope; `arguments` are those that are right unless others are given."""
    arguments = more.pop("arguments", RIGHT.get(word, {}))
    content = command(id=id, command=word, arguments=arguments, **more)
    people = tuple(Signer(name, KEYS[name].public, frozenset({"commands"})) for name in PEOPLE)
    return read(Accepted(COMMAND, payload(content), people))


def remembered(folder: Path) -> Memory:
    slips = Slips(folder)
    slips.make()
    memory = Memory(slips)
    memory.load()
    memory.rebuild([])
    return memory


def device(**points: Any) -> DeviceState:
    """A state whose points are known, or a PointState."""
    found = {
        name: one if isinstance(one, PointState) else PointState(value=one, at=NOW) for name, one in points.items()
    }
    return DeviceState(session="s", at=NOW, points={name.replace("__", "."): one for name, one in found.items()})


@dataclass
class Till:
    """An agent around the commands: `did` is what happened, in order."""

    folder: Path
    table: Table = ALL
    did: list[str] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    told: list[Result] = field(default_factory=list)
    now: float = 100.0
    wall: int = NOW
    keeps: bool = True
    busy: str = ""
    more: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.outbox = Outbox()
        self.states: Mapping[str, DeviceState] = {"ups1": device(link__state="up")}
        self.boot()

    def boot(self, boot: str = "boot-1") -> None:
        """The agent begins, or begins again."""
        self.memory = remembered(self.folder)
        self.reach = Reach(
            note=self._note,
            keep=self._keep,
            tell=self._tell,
            clock=lambda: (self.wall, "free"),
            diagnose=lambda: [],
            states=lambda: self.states,
            refresh=lambda: self.does("refresh"),
            restart=lambda: self.does("restart"),
            reboot=lambda: self.does("reboot"),
            boot=boot,
            busy=lambda: self.busy,
            now=lambda: self.now,
        )
        self.reach = replace(self.reach, **self.more)
        self.commanding = Commanding(self.memory, self.table, self.reach)

    def does(self, what: str) -> None:
        """Something was done."""
        self.did.append(what)

    def _keep(self) -> bool:
        self.does("keep")
        return self.keeps

    def _note(self, event: str, **facts: Any) -> None:
        self.did.append(f"row {event}")
        self.rows.append({"event": event, **facts})

    def _tell(self, topic: str, payload: bytes, retain: bool) -> None:
        assert (topic, retain) == ("command/result", False)
        self.outbox.put(topic, payload, retain)
        self.did.append("tell")
        self.told.append(Result.model_validate_json(payload))

    def take(self, one: Push) -> None:
        self.commanding.begin(one, self.wall)

    def run(self, word: str = "state", id: str = "K-0001", /, **more: Any) -> Result:
        """A command from its begin to its end; the last that was told."""
        self.take(push(word, id, **more))
        self.settle()
        return self.told[-1]

    def settle(self) -> None:
        """Wait until nothing runs any more."""
        while True:
            for thread in _running():
                thread.join()
            seen = len(self.did)
            self.commanding.turn()
            if not _running() and len(self.did) == seen:
                return

    def outcomes(self) -> list[str]:
        return [one.outcome for one in self.told]

    def row(self, event: str) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["event"] == event]


def _running() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name.startswith("command:")]


def fail(error: Exception) -> None:
    """What a callable does that fails."""
    raise error
