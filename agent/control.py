"""This file knows the local socket: who asks, what they may, what is answered, and which operation it becomes.

One request a connection, one JSON object a line; then one or more answer lines, then the end.

    {"do": "devices"}                            the terminal, its uplink, every device with points and faults
    {"do": "watch"}                              the same, then {"row"}, {"device"} and {"beat"} lines for ever; and
                                                 the first again when another configuration is in force
    {"do": "ledger", "tail": n}                  {"row", "hash"} lines, then {"end", "head", "hash"}
    {"do": "ledger", "after": seq, "limit": n}   the same from a place
    {"do": "ledger", "redated": true, …}         the same, and "redated" in each line (agent/clock.py)
    {"do": "export", "from", "to", …}            pieces of the file (agent/evidence/exports.py)
    {"do": "signer"}                             {"key_id", "public_key"}: who signs the checkpoints
    {"do": "verify"}                             {"progress": [done, total]} lines, then {"verified"} or {"broken"}
    {"do": "diagnose"}                           {"sections"}
    {"do": "perform", "device", "verb", "arguments"}   {"operation": id}, later {"outcome"}
    {"do": "accounts", …} {"do": "keys", …}      agent/people/desk.py, agent/keys/desk.py

Whatever cannot be met is {"error": sentence, "status": exit code}. Reads come from a read-only connection of their
own. Who may connect is the socket's owner and group (mode 0660); who may change something is root and the agent's
own user, by the peer credentials of the kernel. How many are answered at once: agent/people/lobby.py.
"""

import json
import logging
import secrets
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.catalogue import Catalogue
from agent.config import Config, Device
from agent.drivers import driver_class
from agent.errors import ControlError, TillwireError
from agent.evidence.exports import redating
from agent.model import Operation
from agent.mqtt.byteaccount import of_terminal
from agent.pasted import REFUSED, too_much_hex
from agent.people.lobby import REQUEST_LIMIT, Caller, Lobby, Places
from agent.people.peer import Peer
from agent.state import shown
from agent.store import Reader, Store
from agent.timepiece import look, wall_ms

CLIENT_PATIENCE = 30.0
"""Seconds that a client may take to take an answer."""
BEAT = 5.0
OUTCOME_PATIENCE = 90.0
"""Seconds to wait for the outcome of an operation; a dispenser may take 60 for one."""
CHUNK = 1000

QUEUE = 64
"""Connections that the kernel holds until they are let in."""

log = logging.getLogger(__name__)
Answer = dict[str, Any]
Desk = Callable[[Mapping[str, Any], Peer], Iterator[Answer]]
"""Whoever answers requests of one kind."""


class Control:
    """The server of the socket. `poke` is called after each commit; `ask` puts an operation on the core's queue;
    `config` tells what is in force now."""

    def __init__(
        self,
        config: Callable[[], Config],
        store: Store,
        catalogue: Catalogue,
        ask: Callable[[Operation], None],
        uplink: Callable[[], tuple[str, str]],
        diagnose: Callable[[], Sequence[Mapping[str, Any]]],
        trouble: Callable[[], str],
        desks: Mapping[str, Desk],
        stop: threading.Event,
    ) -> None:
        self._desks = desks
        self._config, self._store, self._catalogue = config, store, catalogue
        self._ask, self._uplink, self._diagnose, self._trouble = ask, uplink, diagnose, trouble
        self._stop = stop
        self._news = threading.Condition()
        self._places = Places()
        self.progress = time.monotonic()
        self._path = config().control.socket
        self._lobby = Lobby(self._listen(self._path))

    def poke(self) -> None:
        """Something was committed."""
        with self._news:
            self._news.notify_all()

    def wake(self) -> None:
        """It is time to look at `stop`."""
        self._lobby.shut()
        self.poke()

    def run(self) -> None:
        """Answer until `stop` is set."""
        try:
            while not self._stop.is_set():
                self.progress = time.monotonic()
                for caller in self._lobby.turn(0.5):
                    self._admit(caller)
        finally:
            self._lobby.close()
            self._path.unlink(missing_ok=True)

    @staticmethod
    def _listen(path: Path) -> socket.socket:
        server = socket.socket(socket.AF_UNIX)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_socket() and not _answers(path):
                path.unlink()
            server.bind(str(path))
            path.chmod(0o660)
        except OSError as error:
            server.close()
            raise ControlError(
                f"the control socket {path} cannot be made ({error}): is another agent running, may this user"
                " write there, and is the path shorter than 100 characters?"
            ) from error
        server.listen(QUEUE)
        return server

    def _admit(self, caller: Caller) -> None:
        try:
            request = _request(caller.said)
            self._places.take(caller.peer, stops=_stops(request))
        except ControlError as error:
            _refuse(caller.connection, str(error), error.status)
            caller.connection.close()
            return
        threading.Thread(target=self._serve, args=(caller, request), name="control:client", daemon=True).start()

    def _serve(self, caller: Caller, request: Mapping[str, Any]) -> None:
        connection = caller.connection
        try:
            connection.settimeout(CLIENT_PATIENCE)
            for answer in self._answers(request, caller.peer):
                if not _tell(connection, answer):
                    break
        except TillwireError as error:
            _refuse(connection, str(error), getattr(error, "status", 3))
        except Exception as error:
            # Where, not what: the text of an exception may hold a part of the request, and that a password.
            place = traceback.extract_tb(error.__traceback__)[-1]
            log.error("a request met a bug: %s in %s:%s", type(error).__name__, place.filename, place.lineno)
            _refuse(connection, "the agent met a bug of its own: see `journalctl -u tillwire`", 70)
        finally:
            connection.close()
            self._places.leave(caller.peer)

    def _answers(self, request: Mapping[str, Any], who: Peer) -> Iterator[Answer]:
        if request.get("do") in self._desks:
            # Before the store is opened: a ceremony can be stopped though there is none.
            yield from self._desks[request["do"]](request, who)
            return
        if any(map(too_much_hex, request.values())):
            raise ControlError(REFUSED, 2)
        with self._store.reading() as reader:
            match request.get("do"):
                case "devices":
                    yield self._overview(reader, self._config())
                case "watch":
                    yield from self._watch(reader)
                case "ledger":
                    yield from self._ledger(reader, request)
                case "verify":
                    yield from reader.verify()
                case "diagnose":
                    yield {"sections": list(self._diagnose())}
                case "perform":
                    yield from self._perform(reader, request, who)
                case "keys":
                    raise ControlError("no keys are loaded here: the configuration has no [keys] table", 1)
                case _:
                    raise ControlError("the agent does not know the request: is it older than this command?")

    def _overview(self, reader: Reader, config: Config) -> Answer:
        state, note = self._uplink()
        return {
            "terminal": config.terminal.id,
            "org": config.terminal.org,
            "at": wall_ms(),
            "trouble": self._trouble(),
            "uplink": {"state": state, "note": note, "backlog": self._store.head - self._store.acked},
            "traffic": of_terminal(config).shown(wall_ms()) if config.broker else None,
            "devices": [self._device(reader, device) for device in config.devices.values()],
        }

    def _device(self, reader: Reader, device: Device) -> Answer:
        name = device.name
        faults = [f for f in reader.faults() if f.device == name]
        facts = shown(reader.points(name), self._store.seen(name), faults, self._catalogue, look())
        moving = sorted(driver_class(device.kind).moving)
        own = {"name": name, "kind": device.kind, "port": device.port, "access": device.access, "moving": moving}
        return {**own, **facts}

    def _watch(self, reader: Reader) -> Iterator[Answer]:
        config: Config | None = None
        last, revisions = reader.head()[0], dict[str, int]()
        while not self._stop.is_set():
            if config is not (config := self._config()):
                revisions = {name: self._store.revision(name) for name in config.devices}
                yield self._overview(reader, config)
            if not self._wait(last, revisions, BEAT):
                yield {"beat": wall_ms()}
            for row in self._rows(reader, last):
                last = row["seq"]
                yield {"row": row}
            for name, was in revisions.items():
                revisions[name] = self._store.revision(name)
                if revisions[name] != was:
                    yield {"device": self._device(reader, config.devices[name])}

    def _wait(self, last: int, revisions: Mapping[str, int], patience: float) -> bool:
        """Wait for a commit; False when none came in time."""

        def changed() -> bool:
            moved = any(self._store.revision(name) != was for name, was in revisions.items())
            return self._stop.is_set() or self._store.head != last or moved

        with self._news:
            return self._news.wait_for(changed, patience)

    @staticmethod
    def _rows(reader: Reader, after: int) -> list[dict[str, Any]]:
        return [json.loads(row) for _, row, _ in reader.rows(after, CHUNK)]

    def _ledger(self, reader: Reader, request: Mapping[str, Any]) -> Iterator[Answer]:
        head, digest = reader.head()
        offsets = redating(reader) if request.get("redated") else None
        if "tail" in request:
            after, limit = max(0, head - _number(request, "tail")), head
        else:
            after, limit = _number(request, "after"), _number(request, "limit")
        while limit > 0 and (rows := reader.rows(after, min(limit, CHUNK))):
            for _, row, row_hash in rows:
                entry = {"row": json.loads(row), "hash": row_hash.hex()}
                yield entry if offsets is None else {**entry, "redated": offsets.redated(entry["row"])}
            after = rows[-1][0]
            limit -= len(rows)
        yield {"end": True, "head": head, "hash": digest.hex()}

    def _perform(self, reader: Reader, request: Mapping[str, Any], who: Peer) -> Iterator[Answer]:
        name, verb, devices = str(request.get("device")), str(request.get("verb")), self._config().devices
        arguments = request.get("arguments") or {}
        if not who.owns_agent:
            raise ControlError(f"user {who.name} may look but not act here: ask root or the agent's own user")
        if name not in devices:
            raise ControlError(f"there is no device {name!r}: there are {', '.join(devices)}", 2)
        verbs = driver_class(devices[name].kind).operations
        if verb not in verbs:
            raise ControlError(f"{name} does not know {verb!r}: it knows {', '.join(verbs) or 'no operation'}", 2)
        if not isinstance(arguments, dict) or not all(isinstance(v, str | int | bool) for v in arguments.values()):
            raise ControlError("arguments are names with a text or a whole number each", 2)
        last = reader.head()[0]
        operation = Operation(secrets.token_hex(8), name, verb, who.name, arguments)
        self._ask(operation)
        yield {"operation": operation.id}
        end = time.monotonic() + OUTCOME_PATIENCE
        while (left := end - time.monotonic()) > 0 and not self._stop.is_set():
            self._wait(last, {}, left)
            for row in self._rows(reader, last):
                last = row["seq"]
                if row["kind"] == "outcome" and row["id"] == operation.id:
                    yield {"outcome": {key: row[key] for key in ("result", "detail", "raw")}}
                    return
        raise ControlError(
            f"{name} has not finished {verb} in {OUTCOME_PATIENCE:.0f} s; the ledger will show the outcome"
        )


def _request(said: bytes) -> dict[str, Any]:
    if b"\n" not in said or len(said) > REQUEST_LIMIT:
        raise ControlError("a request is one line of JSON", 2)
    try:
        request = json.loads(said)
        json.dumps(request, ensure_ascii=False).encode()  # half a character cannot be stored nor answered
    except (ValueError, RecursionError) as error:
        raise ControlError(f"a request is one line of JSON ({error})", 2) from error
    if not isinstance(request, dict):
        raise ControlError("a request is a JSON object", 2)
    return request


def _stops(request: Mapping[str, Any]) -> bool:
    return request.get("do") == "keys" and request.get("act") in ("abort", "exposed")


def _refuse(connection: socket.socket, sentence: str, status: int) -> None:
    _tell(connection, {"error": sentence, "status": status})


def _tell(connection: socket.socket, answer: Answer) -> bool:
    """Send one line; whether there is still somebody who takes it."""
    line = json.dumps(answer, ensure_ascii=False).encode() + b"\n"
    try:
        connection.sendall(line)
    except OSError:
        log.debug("a client of the control socket has left")
        return False
    return True


def _number(request: Mapping[str, Any], key: str) -> int:
    value = request.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ControlError(f"{key} wants a whole number that is not negative, not {value!r}", 2)
    return value


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
