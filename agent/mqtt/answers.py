"""This file knows what the broker's answers and messages mean for one connection: which rows count as delivered,
what is heard, what is refused.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agent.mqtt.connection import ReasonCode, refused
from agent.mqtt.inbox import Inbox
from agent.mqtt.publishing import Publishing
from agent.mqtt.refusals import Refusal, of_code
from agent.mqtt.saying import Saying

NOBODY = 0x10
"""PUBACK reason "no matching subscribers" (MQTT 5.0, table 3-8): a success, but nobody has the message."""


@dataclass(slots=True)
class Answers:
    """One connection's. `take_in` is called after each turn of it."""

    publishing: Publishing
    inbox: Inbox | None
    saying: Saying

    def take_in(self) -> None:
        """Act on what has come. Raises UplinkError when the connection is over, or must be."""
        events = self.publishing.post.events
        while events:
            kind, content = events.popleft()
            if kind == "lost":
                raise refused("the connection was lost", content)
            if kind == "ack":
                self._acked(*content)
            elif kind == "subscribed":
                self._subscribed(*content)
            elif kind == "message":
                self._heard(*content)

    def check(self, now: float, patience: float) -> None:
        """Look at what the broker has left unanswered for `patience` seconds. Raises UplinkError when that is more
        than a hindrance."""
        self.publishing.check(now, patience)
        if self.inbox and (late := self.inbox.late(now, patience)):
            self.saying.hinder(late)

    def _heard(self, topic: str, payload: bytes, _retained: bool) -> None:
        if mid := self.publishing.came_back(topic, payload):
            self._taken(mid)
        if self.inbox:
            self.inbox.take(topic, payload)

    def _subscribed(self, mid: int, codes: Sequence[Any]) -> None:
        self.publishing.answered(mid, [code.is_failure for code in codes])
        if self.inbox and (refusal := self.inbox.answered(mid, [code.value for code in codes])):
            self.saying.hinder(refusal)

    def _acked(self, mid: int, code: ReasonCode) -> None:
        if not code.is_failure:
            if not self.publishing.puts_off(mid):
                self._taken(mid, nobody=code.value == NOBODY)
        elif suffix := self.publishing.refused(mid):
            found = of_code(code.value) or Refusal(str(code), "see the broker's log for why")
            self.saying.hinder(Refusal(f"the broker does not take {suffix} ({found.cause})", found.next))
        else:
            raise refused("the broker does not take a message", code)

    def _taken(self, mid: int, nobody: bool = False) -> None:
        """The broker has a message; `nobody`: but nobody else will."""
        publishing, uplink = self.publishing, self.publishing.config.uplink
        if publishing.delivery.carries_rows(mid):
            if nobody and uplink.wait_for_reader:
                self.saying.say("connected", "nobody is subscribed to the ledger: it is kept here")
                publishing.delivery.hold(time.monotonic() + uplink.retry)
                return
            self.saying.well()
        publishing.store.settle(publishing.reader.epoch, publishing.acknowledged(mid))
