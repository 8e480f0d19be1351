"""This file knows a day of a terminal's line in virtual time: the real store, delivery, publishing and post, and no
socket. What a message takes of the line is the agent's own estimate; `python -m bench --only line` compares it with
what the kernel counts.
"""

import random
import ssl
from collections import deque
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent.config import Config, parse
from agent.messages import DeviceState, PointState
from agent.model import Batch, StoredPoint
from agent.mqtt import publishing
from agent.mqtt.byteaccount import of_terminal
from agent.mqtt.outbox import Outbox
from agent.mqtt.posting import OVERHEAD, Post
from agent.mqtt.publishing import Publishing
from agent.store import Reader, Store

MORNING = 20_089 * 86_400_000
"""The first midnight of January 2025, UTC, ms."""
DEVICES, UNITS = 6, 7
"""42 values."""
PACE = "catch_up = 0\n"
"""The pace of catching up is measured by the real clock."""


class Unplugged(Post):
    """A post whose messages go nowhere and are acknowledged at once. It offers as many aliases as mosquitto."""

    def __init__(self, config: Config) -> None:
        assert config.broker
        super().__init__(config.broker, config.broker.addresses[0], "unplugged", ssl.create_default_context())
        self._answered(None, SimpleNamespace(TopicAliasMaximum=10))  # type: ignore[arg-type]
        self.messages = 0

    def publish(
        self, topic: str, payload: bytes, retain: bool, *, content_type: str = "", alias: int | None = None
    ) -> int:
        self.messages += 1
        return self.messages

    def ping(self) -> None:
        """Two bytes, the same back, and what acknowledges them."""
        self._guessed(2 * OVERHEAD + 2, OVERHEAD + 2)

    def spent(self) -> int:
        """Bytes until now, both ways."""
        return sum(self._guess)


@dataclass
class Day:
    """What a day has cost, in bytes, messages and pings, and how late the centre was told, in seconds at most: of a
    row by `ledger`, and of a value by `state`."""

    spent: float = 0.0
    messages: float = 0.0
    pings: float = 0.0
    rows_late: float = 0.0
    states_late: float = 0.0
    days: list[float] = field(default_factory=list)


def lived(
    folder: Path, changes: float, uplink: str = "", *, urgent: bool = False, hours: float = 24.0, keepalive: int = 0
) -> Day:
    """So many changes a minute, for so many hours from the first midnight of a month on, with `uplink` as lines of
    [uplink]; the costs are those of 24 hours, and `days` has each whole one."""
    text = (
        '[terminal]\norg = "coop"\nid = "ATM-0001"\ndata = "data"\nutc_offset = 0\n[broker]\nhost = "127.0.0.1"\n'
    )
    text += f"keepalive = {keepalive}\n" if keepalive else ""
    text += f"[uplink]\n{PACE}{uplink}"
    with pytest.MonkeyPatch.context() as patch, closing(_Life(parse(text.encode(), folder), urgent)) as life:
        patch.setattr(publishing, "wall_ms", life.wall)
        return life.live(changes, hours)


class _Life:
    def __init__(self, config: Config, urgent: bool) -> None:
        assert config.broker
        self._keepalive, self._urgent, self._now = config.broker.keepalive, urgent, 0.0
        self._sent = 0.0
        self._store = Store(config.terminal.data, config.terminal.id)
        self._store._db.execute("PRAGMA synchronous = OFF")
        self._reader = self._store.reader()
        self._post = Unplugged(config)
        names = [f"dispenser{number}" for number in range(1, DEVICES + 1)]
        self._counts = {(name, f"cassette.{unit}.count"): 0 for name in names for unit in range(1, UNITS + 1)}
        self._changed: dict[str, float] = {}
        self._made: deque[float] = deque()
        self._day = Day()
        self._publishing = Publishing(
            config,
            self._store,
            self._reader,
            self._post,
            "0123abcd",
            of_terminal(config),
            self._state,
            names,
            deque(),
            Outbox(),
            None,
        )
        self._store.on_commit = lambda urgent: self._publishing.delivery.news(urgent, self._now)
        self._store.commit(Batch(points=[StoredPoint(d, p, 0, True, MORNING) for d, p in self._counts]))

    def wall(self) -> int:
        return MORNING + round(self._now * 1000)

    def close(self) -> None:
        self._publishing.close()
        self._reader.close()
        self._store.close()

    def live(self, changes: float, hours: float) -> Day:
        day, chance, gap = self._day, random.Random(3), 60 / changes if changes else float("inf")
        self._until(1.0)
        begun, dawn, messages, due = self._post.spent(), self._post.spent(), self._post.messages, gap
        for hour in range(1, round(hours) + 1):
            while due < hour * 3600:
                self._until(due)
                self._change(*chance.choice(list(self._counts)))
                due += gap
            self._until(hour * 3600.0)
            if hour % 24 == 0:
                day.days.append(self._post.spent() - dawn)
                dawn = self._post.spent()
        scale = 24 / hours
        day.spent, day.messages = (self._post.spent() - begun) * scale, (self._post.messages - messages) * scale
        day.pings *= scale
        return day

    def _change(self, device: str, point: str) -> None:
        count = self._counts[device, point] = self._counts[device, point] + 1
        row = {"kind": "change", "at": self.wall(), "up": round(self._now * 1000), "device": device, "point": point}
        row |= {"boot": "a9f1b0a2-5a5e-4a55-9e0f-64d1b8a4bb3e", "value": count, "was": count - 1}
        self._changed.setdefault(device, self._now)
        self._made.append(self._now)
        stored = [StoredPoint(device, point, count, True, self.wall())]
        self._store.commit(Batch(rows=[row], points=stored, urgent=self._urgent))

    def _state(self, reader: Reader, device: str, session: str) -> DeviceState:
        if device in self._changed:
            self._day.states_late = max(self._day.states_late, self._now - self._changed.pop(device))
        points = {p.point: PointState(value=p.value, at=self.wall() - 137) for p in reader.points(device)}
        return DeviceState(session=session, at=self.wall(), points=points)

    def _until(self, end: float) -> None:
        """Let the uplink do what it does until then: look when something is due, and ping when nothing was."""
        delivery = self._publishing.delivery
        while True:
            handed = self._post.messages
            self._publishing.turn(self._now)
            for mid in range(handed + 1, self._post.messages + 1):
                acked = delivery.acknowledged(mid)
                while self._made and len(self._made) > self._store.head - acked:
                    self._day.rows_late = max(self._day.rows_late, self._now - self._made.popleft())
                self._store.settle(self._reader.epoch, acked)
            if self._post.messages > handed:
                self._sent = self._now
                continue
            if (ping := self._sent + self._keepalive) <= min(delivery.deadline(), end):
                self._post.ping()
                self._day.pings += 1
                self._sent = self._now = ping
            elif delivery.deadline() <= end:
                self._now = max(self._now + 0.001, delivery.deadline())
            else:
                self._now = max(self._now, end)
                return
