"""One simulated XFS4IoT host and its clients, in virtual time: what is said to it and what it says, as JSON."""

import json
from typing import Any

from agent.drivers.framing import Records, record
from hwsim import change_setting
from hwsim.xfs4iot import Xfs4iot

Message = dict[str, Any]
ROOT = "/xfs4iot/v1.0"


class Host:
    """`heard` are (service, message) pairs in order, `gone` the channels that were hung up."""

    def __init__(self, **settings: object) -> None:
        self.twin = Xfs4iot()
        self.now = 0.0
        self.heard: list[tuple[str, Message]] = []
        self.gone: list[str] = []
        self._records = Records(1 << 27)
        self._count = 0
        self._ids: dict[str, int] = {}
        self.set(**settings)

    def set(self, **settings: object) -> list[Message]:
        """Change settings; returns what is told of it at once."""
        for name, value in settings.items():
            change_setting(self.twin, name, str(value))
        return self.wait(0.0)

    def wait(self, seconds: float) -> list[Message]:
        """Let time pass, tick by tick; returns what was said in it."""
        said: list[Message] = []
        end = self.now + seconds
        while True:
            said += self._take(self.twin.tick(self.now))
            if self.now >= end:
                return said
            self.now = min(self.now + 0.1, end)

    def open(self, service: str = "", path: str | None = None) -> str:
        """A new connection; returns its channel."""
        self._count += 1
        channel = f"{self._count} {path or f'{ROOT}/{service}'}"
        self._take(self.twin.receive(record("o", channel)))
        return channel

    def close(self, channel: str) -> None:
        self._take(self.twin.receive(record("c", channel)))

    def send(self, channel: str, text: str) -> list[Message]:
        """Any text at all; returns what is said at once."""
        return self._take(self.twin.receive(record("t", channel, text.encode())))

    def ask(self, channel: str, name: str, payload: Message | None = None, **header: Any) -> list[Message]:
        """A well-formed command of the host's generation; returns what is said at once. header: other members."""
        self._ids[channel] = header.get("requestId", self._ids.get(channel, 0) + 1)
        asked: Message = {"type": "command", "name": name, "requestId": self._ids[channel]}
        if self.twin.generation == "v1":
            payload = {"timeout": 5000, **(payload or {})}
        else:
            asked |= {"version": "2.0", "timeout": 5000}
        asked = {key: value for key, value in (asked | header).items() if value is not None}
        return self.send(channel, json.dumps({"header": asked} | ({"payload": payload} if payload else {})))

    def payload(self, service: str, name: str = "Common.Status") -> Message:
        """The payload of a completion on a connection of its own."""
        channel = self.open(service)
        acknowledge, completion = self.ask(channel, name)
        self.close(channel)
        assert acknowledge["header"]["type"] == "acknowledge"
        payload: Message = completion["payload"]
        return payload

    def _take(self, said: bytes) -> list[Message]:
        messages = []
        for act, channel, text in self._records.feed(said):
            if act == "c":
                self.gone.append(channel)
                continue
            message = json.loads(text)
            assert set(message) <= {"header", "payload"} or self.twin.huge
            self.heard.append((channel.rstrip("/").rpartition("/")[2], message))
            messages.append(message)
        return messages


def named(messages: list[Message]) -> list[str]:
    """The names of messages, without the interface."""
    return [m["header"]["name"].partition(".")[2] for m in messages]
