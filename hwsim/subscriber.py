"""This file knows what a stranger makes of Tillwire's messages: plain sentences, and an account of what arrived.

It shares no code with the agent, on purpose. It knows only what the AsyncAPI document says: topics, JSON, content
types, and that a row's hash is SHA-256(hash before || the row's canonical JSON).

    python -m hwsim.subscriber --port 1883
"""

import argparse
import hashlib
import json
import signal
import sys
import threading
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

TOPICS = "tillwire/v1/#"
DEFLATED = "application/json+deflate"
SIGNED = {"config/desired": "configuration", "command": "command", "trust/desired": "list of trusted signers"}
"""What goes to a terminal, signed: a stranger cannot open it."""
Key = tuple[str, str, int]


def canonical(row: dict[str, Any]) -> bytes:
    """The bytes that were hashed: sorted keys, no spaces, UTF-8."""
    return json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def opened(payload: bytes, content_type: str) -> bytes:
    """The JSON of a message. Without a content type it is JSON as it is. Raises ValueError."""
    if content_type not in ("", "application/json", DEFLATED):
        raise ValueError(f"a content type that nobody described: {content_type}")
    try:
        return zlib.decompress(payload) if content_type == DEFLATED else payload
    except zlib.error as error:
        raise ValueError(f"not deflated ({error})") from error


@dataclass
class Account:
    """Everything that has arrived. `mistakes` are broken promises, in words; there should be none."""

    rows: dict[Key, dict[str, Any]] = field(default_factory=dict)
    hashes: dict[Key, str] = field(default_factory=dict)
    repeats: int = 0
    arrived: dict[Key, float] = field(default_factory=dict)
    mistakes: list[str] = field(default_factory=list)
    online: dict[str, bool] = field(default_factory=dict)
    states: dict[str, dict[str, Any]] = field(default_factory=dict)
    traffic: dict[str, dict[str, Any]] = field(default_factory=dict)
    reported: dict[str, dict[str, Any]] = field(default_factory=dict)
    results: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    troubles: dict[str, str] = field(default_factory=dict)
    dropped: set[Key] = field(default_factory=set)
    gaps: dict[Key, str] = field(default_factory=dict)
    """The row after each gap that no row has named yet, and the hash before it. It is a mistake until one does."""

    def take(self, topic: str, payload: bytes, now: float) -> list[str]:
        """A message; returns what there is to say about it. `now`: wall clock, seconds."""
        _, _, _, terminal, kind, *rest = topic.split("/")
        if kind == "state" and not payload:
            self.states.pop(f"{terminal}/{rest[0]}", None)
            return [f"{terminal} {rest[0]}: not configured any more"]
        if (what := "/".join((kind, *rest))) in SIGNED:
            return [f"{terminal} is sent a {SIGNED[what]}" if payload else f"{what} of {terminal} is taken away"]
        message = json.loads(payload)
        if kind == "session":
            self.online[terminal] = message["online"]
            self.troubles[terminal] = message.get("trouble", "")
            if message.get("trouble"):
                return [f"{terminal} is connected, but {message['trouble']}"]
            return [f"{terminal} is connected" if message["online"] else f"{terminal} is gone: {message['reason']}"]
        if kind == "state":
            return self._state(terminal, rest[0], message)
        if kind == "ledger":
            return self._ledger(terminal, message, now)
        if kind == "traffic":
            self.traffic[terminal] = message
            return [f"{terminal} has used {(message['up'] + message['down']) / 1e6:.2f} MB this month"]
        if what == "config/reported":
            self.reported[terminal] = message
            why = f": {message['reason']}" if message.get("reason") else ""
            return [f"{terminal} reports configuration {message.get('version', 0)}: {message['outcome']}{why}"]
        if what == "command/result":
            self.results.append((terminal, message))
            return [f"{terminal} answers {message['command']}: {message['outcome']}"]
        return [f"a message on a topic that nobody described: {topic}"]

    def missing(self) -> list[Key]:
        """Rows that must exist because a later one does, but have not arrived."""
        last: dict[tuple[str, str], int] = {}
        for terminal, epoch, seq in self.rows:
            last[terminal, epoch] = max(seq, last.get((terminal, epoch), 0))
        return [
            (t, e, seq)
            for (t, e), end in last.items()
            for seq in range(1, end + 1)
            if (t, e, seq) not in self.rows and (t, e, seq) not in self.dropped
        ]

    def twins(self) -> int:
        """Rows that tell the same event again under another number."""
        told = [
            json.dumps({k: v for k, v in row.items() if k != "seq"}, sort_keys=True) for row in self.rows.values()
        ]
        return len(told) - len(set(told))

    def _state(self, terminal: str, device: str, message: dict[str, Any]) -> list[str]:
        before = self.states.get(f"{terminal}/{device}", {}).get("points", {})
        self.states[f"{terminal}/{device}"] = message
        gone = [p for p, s in message["points"].items() if s.get("unknown") and not before.get(p, s).get("unknown")]
        return [f"{terminal} {device}: no longer to be believed: {', '.join(sorted(gone))}"] if gone else []

    def _ledger(self, terminal: str, batch: dict[str, Any], now: float) -> list[str]:
        said, digest = [], batch["before"]
        for row in batch["rows"]:
            key = (terminal, batch["epoch"], row["seq"])
            before = self.hashes.get((terminal, batch["epoch"], row["seq"] - 1), digest)
            if before != digest:
                self.mistakes.append(f"row {row['seq']} does not follow the row before it")
            digest = hashlib.sha256(bytes.fromhex(digest) + canonical(row)).hexdigest()
            if key in self.rows:
                self.repeats += 1
                if self.rows[key] != row:
                    self.mistakes.append(f"row {row['seq']} came twice with different content")
                continue
            if row["seq"] > 1 and (terminal, batch["epoch"], row["seq"] - 1) not in self.rows:
                self.mistakes.append(_gap(row["seq"]))
                self.gaps[key] = before
            if row["kind"] == "dropped":
                self._dropped(terminal, batch["epoch"], row)
            self.rows[key], self.hashes[key], self.arrived[key] = row, digest, now
            said.append(f"{terminal} {sentence(row)} ({max(0.0, now * 1000 - row['at']):.0f} ms ago)")
        if digest != batch["hash"]:
            self.mistakes.append(f"the hash after row {batch['rows'][-1]['seq']} is not what the rows give")
        return said

    def _dropped(self, terminal: str, epoch: str, row: dict[str, Any]) -> None:
        """The terminal had no room for some rows, and says so: that gap is no mistake if its far side fits."""
        if self.gaps.pop((terminal, epoch, row["last"] + 1), None) == row["hash"]:
            self.mistakes.remove(_gap(row["last"] + 1))
        self.dropped |= {(terminal, epoch, seq) for seq in range(row["first"], row["last"] + 1)}

    def report(self) -> dict[str, Any]:
        """The account as JSON."""
        return {
            "rows": [
                {
                    "terminal": t,
                    "epoch": e,
                    "arrived": self.arrived[t, e, s],
                    "hash": self.hashes[t, e, s],
                    "row": row,
                }
                for (t, e, s), row in self.rows.items()
            ],
            "repeats": self.repeats,
            "missing": len(self.missing()),
            "twins": self.twins(),
            "mistakes": self.mistakes,
            "online": self.online,
            "states": self.states,
        }


def _gap(seq: int) -> str:
    return f"row {seq} came before the row in front of it"


def sentence(row: dict[str, Any]) -> str:
    """One ledger row in plain words."""
    device = row.get("device", "")
    match row["kind"]:
        case "change":
            why = " (inferred)" if row.get("inferred") else ""
            return f"{device}: {row['point']} is {row['value']}{why}, was {row['was']}"
        case "known":
            return f"{device}: {len(row['values'])} points are known"
        case "unknown":
            return f"{device}: {len(row['points'])} points are unknown"
        case "fault.raised":
            return f"{device}: FAULT {row['code']} ({row['severity']})"
        case "fault.cleared":
            return f"{device}: fault {row['code']} is over"
        case "fault.flapping":
            return f"{device}: FAULT {row['code']} comes and goes ({row['severity']})"
        case "fault.steady":
            return f"{device}: fault {row['code']} stands, after {row['count']} changes"
        case "fault.explained":
            return f"{device}: {row['code']} is explained by the mains that {row['by']} has lost"
        case "flapping":
            return f"{device}: {row['point']} flaps between {row['was']} and {row['value']}"
        case "steady":
            return f"{device}: {row['point']} is steady at {row['value']}, after {row['count']} changes"
        case "start":
            return f"agent {row['version']} has started"
        case "clock":
            return f"the wall clock moved by {row['jump_ms']} ms and is {row['quality']}"
        case "checkpoint":
            return f"signed up to row {row['covers']}"
        case "dropped":
            return f"rows {row['first']} to {row['last']} are lost: there was no room for them"
        case "stop":
            return f"agent stops: {row['reason']}"
        case "operation":
            return f"{device}: {row['by']} asks for {row['verb']}"
        case "outcome":
            return f"{device}: {row['result']}: {row['detail']}"
        case kind:
            return f"{kind}: {json.dumps({k: v for k, v in row.items() if k not in ('seq', 'at', 'up', 'boot')})}"


def follow(host: str, port: int, protocol: str, account: Account, say: Any, stop: threading.Event) -> None:
    """Stay subscribed until `stop` is set; a lost broker is tried again at once and often."""
    five = protocol == "5"
    client = mqtt.Client(
        CallbackAPIVersion.VERSION2,
        client_id="a-stranger",
        protocol=mqtt.MQTTv5 if five else mqtt.MQTTv311,
        clean_session=None if five else False,
    )
    client.on_connect = lambda c, *_: c.subscribe(TOPICS, qos=1)
    # A message that our own code stumbles over must not end the connection's thread unseen.
    lock = threading.Lock()

    def take(_client: mqtt.Client, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        now = time.time()
        content_type = getattr(message.properties, "ContentType", "")
        try:
            with lock:
                lines = account.take(message.topic, opened(bytes(message.payload), content_type), now)
        except (ValueError, KeyError, TypeError) as error:
            account.mistakes.append(f"{message.topic}: not as described ({error!r})")
            return
        for line in lines:
            say(time.strftime("%H:%M:%S", time.localtime(now)) + f".{int(now * 1000) % 1000:03d}  {line}")

    client.on_message = take
    client.reconnect_delay_set(1, 1)
    while not stop.is_set():
        try:
            client.connect(host, port, keepalive=30)
        except OSError:
            stop.wait(0.02)
            continue
        while not stop.is_set() and client.loop(timeout=0.5) == mqtt.MQTT_ERR_SUCCESS:
            pass
    client.disconnect()


def main() -> int:
    """Subscribe, say what arrives, and at SIGTERM write the account to --report FILE."""
    parser = argparse.ArgumentParser(prog="python -m hwsim.subscriber", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--protocol", choices=["5", "3.1.1"], default="5")
    parser.add_argument("--report", type=Path, help="where the account goes, as JSON, each second and at the end")
    parser.add_argument("--quiet", action="store_true", help="only keep the account")
    chosen = parser.parse_args()
    account, stop = Account(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    say = (lambda line: None) if chosen.quiet else (lambda line: print(line, flush=True))
    worker = threading.Thread(
        target=follow, args=(chosen.host, chosen.port, chosen.protocol, account, say, stop), daemon=True
    )
    worker.start()
    while not stop.wait(0.5):
        _write(chosen.report, account)
    worker.join(5.0)
    _write(chosen.report, account)
    return 0


def _write(path: Path | None, account: Account) -> None:
    if path is not None:
        part = path.with_suffix(".part")
        part.write_text(json.dumps(account.report(), ensure_ascii=False))
        part.rename(path)


if __name__ == "__main__":
    sys.exit(main())
