"""Simulated terminals: each an MQTT client of its own that takes pushes from a broker and answers as an agent does.

They share one thread, and no code with the agent's uplink. What one makes of a push is a word: `commits`,
`rolls back`, `refuses`, `waits`, `applies` (and says no more) or `says nothing`. As an agent does, it decides each
content once, and is quiet when that comes again.
"""

import json
import select
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from agent.crypto.ed25519 import SigningKey
from agent.crypto.signing import COMMAND, CONFIGURATION, TRUST, Accepted, Envelope
from agent.messages import Birth, Death, Reported, Result, compact, topic
from agent.pushes import Push, read

ORG = "coop"
FORMATS = {
    CONFIGURATION: "tillwire-configuration/1",
    COMMAND: "tillwire-command/1",
    TRUST: "tillwire-trust/1",
}
PEOPLE = (SigningKey.generate(), SigningKey.generate(), SigningKey.generate())
HOUR = 3_600_000


def signed(
    target: Mapping[str, Any], version: int = 1, kind: str = CONFIGURATION, people: int = 2, **fields: Any
) -> bytes:
    """An envelope for a target, signed by people whom nobody knows."""
    own: dict[str, Any] = {"version": version, "config": "[uplink]\nlinger = 0.0\n"}
    if kind == COMMAND:
        own = {"command": "counters", "arguments": {}}
    if kind == TRUST:
        signers = [
            {"name": name, "roles": ["config", "trust"], "key": key.public.pem}
            for name, key in zip(("ann", "bob"), PEOPLE, strict=False)
        ]
        own = {"version": version, "signers": signers, "revoked": []}
    common = {"format": FORMATS[kind], "id": f"P-{version:04}", "org": ORG, "target": dict(target)}
    times = {"not_before": _wall() - HOUR, "expires": _wall() + HOUR}
    envelope = Envelope(kind, json.dumps({**common, **times, **own, **fields}).encode())
    for key in PEOPLE[:people]:
        envelope = envelope.signed(key)
    return envelope.text


class Terminal:
    """One simulated terminal. heard: the payloads that came, in order."""

    def __init__(self, port: int, name: str, groups: Iterable[str], does: str, pushes: bool = True) -> None:
        self.name, self.groups, self.does, self.pushes = name, tuple(groups), does, pushes
        self.heard: list[bytes] = []
        self.ready = False
        self.report = Reported(at=_wall(), outcome="none", config="local", groups=self.groups)
        self._port, self._decided, self._session = port, set[str](), 0
        self.client: mqtt.Client | None = None

    def connect(self) -> None:
        """Connect and be born."""
        self._session += 1
        self.ready = False
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=self.name, protocol=mqtt.MQTTv5)
        death = Death(online=False, session=str(self._session), at=_wall(), reason="lost")
        client.will_set(self._topic("session"), compact(death), qos=1, retain=True)
        client.on_connect = lambda *_: self._born(client)
        client.on_subscribe = lambda *_: setattr(self, "ready", True)
        client.on_message = lambda c, u, message: self._take(bytes(message.payload))
        client.connect("127.0.0.1", self._port)
        line = client.socket()
        assert isinstance(line, socket.socket)
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.client = client

    def say(self, **fields: Any) -> None:
        """Report something else."""
        self.report = self.report.model_copy(update={"at": _wall(), **fields})
        self._publish("config/reported", compact(self.report), True)

    def _born(self, client: mqtt.Client) -> None:
        client.subscribe([(self._topic(s), 1) for s in ("config/desired", "command", "trust/desired")])
        birth = Birth(
            online=True,
            session=str(self._session),
            at=_wall(),
            boot="boot",
            version="simulated",
            config=self.report.config,
            epoch="e",
            head=0,
            acked=0,
            devices=(),
        )
        self._publish("session", compact(birth), True)
        if self.pushes:
            self._publish("config/reported", compact(self.report), True)

    def _take(self, payload: bytes) -> None:
        self.heard.append(payload)
        envelope = Envelope.read(payload)
        push = read(Accepted(envelope.kind, envelope.unverified, ()))
        if push.kind == "command":
            self._perform(push)
        elif push.digest not in self._decided and self.does != "says nothing":
            self._decide(push)

    def _perform(self, push: Push) -> None:
        outcome = {"commits": "done", "refuses": "refused", "says nothing": ""}.get(self.does, "failed")
        for part, data in enumerate(("12 notes, ", "3 cards"), 1) if outcome else ():
            answer = Result(
                at=_wall(),
                id=push.id,
                command=push.command,
                outcome=outcome,  # type: ignore[arg-type]
                duration_ms=40,
                data=data,
                part=part,
                parts=2,
            )
            self._publish("command/result", compact(answer), False)

    def _decide(self, push: Push) -> None:
        known = {"version": push.version, "digest": push.digest, "id": push.id, "reason": "", "detail": ""}
        if push.kind == "trust":
            return self.say(trust=push.version)
        if self.does == "waits":
            return (
                self.say(**{**known, "reason": "frozen"}, outcome="waiting")
                if self.report.digest != push.digest
                else None
            )
        if self.does == "refuses":
            why = {"reason": "not_valid", "detail": "devices.ups1.kind: there is no kind 'usp'"}
            self._decided.add(push.digest)
            return self.say(**{**known, **why}, outcome="refused")
        self.say(**known, outcome="applying")
        if self.does == "commits":
            self._decided.add(push.digest)
            self.say(**known, outcome="committed", config=push.digest, in_force=push.version)
        elif self.does == "rolls back":
            why = {"reason": "silent", "detail": "ups1 did not answer any more"}
            self._decided.add(push.digest)
            self.say(**{**known, **why}, outcome="rolled_back")

    def _publish(self, suffix: str, payload: bytes, retain: bool) -> None:
        assert self.client
        self.client.publish(self._topic(suffix), payload, qos=1, retain=retain)

    def _topic(self, suffix: str) -> str:
        return topic(ORG, self.name, suffix)


class Terminals:
    """Many of them, served by one thread. `self[name]` is one."""

    def __init__(self, port: int) -> None:
        self._port, self.all, self._end = port, dict[str, Terminal](), False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __getitem__(self, name: str) -> Terminal:
        return self.all[name]

    def __enter__(self) -> "Terminals":
        return self

    def __exit__(self, *_: object) -> None:
        self._end = True
        self._thread.join(10.0)
        for terminal in self.all.values():
            if terminal.client:
                terminal.client.disconnect()

    def add(self, *names: str, groups: Iterable[str] = (), does: str = "commits", pushes: bool = True) -> None:
        """Connect terminals; returns when the broker has them."""
        for name in names:
            terminal = Terminal(self._port, name, groups, does, pushes)
            with self._lock:
                terminal.connect()
                self.all[name] = terminal
        self.await_ready(*names)

    def cut(self, name: str) -> None:
        """Break one's line: its last will is published."""
        with self._lock:
            client = self.all[name].client
            line = client.socket() if client else None
            if line:
                line.close()
            self.all[name].client = None

    def back(self, name: str) -> None:
        """Connect one again."""
        with self._lock:
            self.all[name].connect()

    def say(self, name: str, **fields: Any) -> None:
        with self._lock:
            self.all[name].say(**fields)

    def await_ready(self, *names: str) -> None:
        end = time.monotonic() + 30.0
        while not all(self.all[name].ready for name in names):
            assert time.monotonic() < end, "the simulated terminals connect"
            time.sleep(0.005)

    def _serve(self) -> None:
        while not self._end:
            with self._lock:
                lines = {}
                watch = select.poll()
                for terminal in self.all.values():
                    client = terminal.client
                    if client and (line := client.socket()):
                        lines[line.fileno()] = client
                        watch.register(line, select.POLLIN | (select.POLLOUT if client.want_write() else 0))
            found = watch.poll(5)
            with self._lock:
                for number, event in found:
                    if event & select.POLLOUT:
                        lines[number].loop_write()
                    if event & ~select.POLLOUT:
                        lines[number].loop_read()


def _wall() -> int:
    return time.time_ns() // 1_000_000
