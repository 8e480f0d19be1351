"""This file knows the local socket: who asks, what they may, what is answered, and which operation it becomes.

One request a connection, one JSON object a line; then one or more answer lines, then the end.

    {"do": "devices"}                            the terminal, its uplink, every device with points and faults
    {"do": "watch"}                              the same, then {"row"}, {"device"} and {"beat"} lines for ever
    {"do": "ledger", "tail": n}                  {"row", "hash"} lines, then {"end", "head", "hash"}
    {"do": "ledger", "after": seq, "limit": n}   the same from a place
    {"do": "verify"}                             {"progress": [done, total]} lines, then {"verified"} or {"broken"}
    {"do": "diagnose"}                           {"sections"}
    {"do": "perform", "device", "verb", "arguments"}   {"operation": id}, later {"outcome"}
    {"do": "accounts", …} {"do": "keys", …}      agent/accountdesk.py, agent/keydesk.py

Whatever cannot be met is {"error": sentence, "status": exit code}. Reads come from a read-only connection of their
own. Who may connect is the socket's owner and group (mode 0660); who may change something is root and the agent's
own user, by the peer credentials of the kernel.
"""

import json
import logging
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.catalogue import Catalogue
from agent.config import Config
from agent.drivers import driver_class
from agent.errors import ControlError, StoreCorrupt, TillwireError
from agent.model import Operation
from agent.peer import Peer, peer
from agent.state import shown
from agent.store import Reader, Store

REQUEST_LIMIT = 64 * 1024
CLIENTS = 8
CLIENT_PATIENCE = 30.0
"""Seconds that a client may take to send its request, or to take an answer."""
BEAT = 5.0
OUTCOME_PATIENCE = 90.0
"""Seconds to wait for the outcome of an operation; a dispenser may take 60 for one."""
CHUNK = 1000

KEY_LIKE = re.compile(r"[0-9A-Fa-f]{11}|(?:[0-9A-Fa-f][\s:._-]*){16}")
"""What somebody may have pasted who holds a component: no refusal repeats it."""

log = logging.getLogger(__name__)
Answer = dict[str, Any]
Desk = Callable[[Mapping[str, Any], Peer], Iterator[Answer]]
"""Whoever answers requests of one kind."""


class Control:
    """The server of the socket. `poke` is called after each commit; `ask` puts an operation on the core's queue."""

    def __init__(
        self,
        config: Config,
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
        self._places = threading.BoundedSemaphore(CLIENTS)
        self.progress = time.monotonic()
        self._server = self._listen(config.control.socket)

    def poke(self) -> None:
        """Something was committed, or it is time to look at `stop`."""
        with self._news:
            self._news.notify_all()

    def run(self) -> None:
        """Answer until `stop` is set."""
        try:
            while not self._stop.is_set():
                self.progress = time.monotonic()
                try:
                    connection, _ = self._server.accept()
                except TimeoutError:
                    continue
                if self._places.acquire(timeout=0.2):
                    threading.Thread(
                        target=self._serve, args=(connection,), name="control:client", daemon=True
                    ).start()
                else:
                    _refuse(connection, f"{CLIENTS} commands are talking to the agent already: close one", 3)
                    connection.close()
        finally:
            self._server.close()
            self._config.control.socket.unlink(missing_ok=True)

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
        server.listen(CLIENTS)
        server.settimeout(0.5)
        return server

    def _serve(self, connection: socket.socket) -> None:
        try:
            connection.settimeout(CLIENT_PATIENCE)
            request = _request(connection)
            for answer in self._answers(request, peer(connection)):
                connection.sendall(json.dumps(answer, ensure_ascii=False).encode() + b"\n")
        except TillwireError as error:
            if isinstance(error, StoreCorrupt):
                self._store.doubt(error)
            _refuse(connection, str(error), getattr(error, "status", 3))
        except OSError:
            log.debug("a client of the control socket has left")
        finally:
            connection.close()
            self._places.release()

    def _answers(self, request: Mapping[str, Any], who: Peer) -> Iterator[Answer]:
        if request.get("do") not in self._desks and any(map(_like_a_key, request.values())):
            raise ControlError("nothing here takes more than 10 hex digits in a row: is that a component?", 2)
        reader = self._store.reader()
        try:
            match request.get("do"):
                case "devices":
                    yield self._overview(reader)
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
                case str(kind) if kind in self._desks:
                    yield from self._desks[kind](request, who)
                case "keys":
                    raise ControlError("no keys are loaded here: the configuration has no [keys] table", 1)
                case _:
                    raise ControlError("the agent does not know the request: is it older than this command?")
        finally:
            reader.close()

    def _overview(self, reader: Reader) -> Answer:
        state, note = self._uplink()
        return {
            "terminal": self._config.terminal.id,
            "org": self._config.terminal.org,
            "at": _wall(),
            "trouble": self._trouble(),
            "uplink": {"state": state, "note": note, "backlog": self._store.head - self._store.acked},
            "devices": [self._device(reader, name) for name in self._config.devices],
        }

    def _device(self, reader: Reader, name: str) -> Answer:
        device = self._config.devices[name]
        faults = [f for f in reader.faults() if f.device == name]
        facts = shown(reader.points(name), self._store.seen(name), faults, self._catalogue, _wall())
        moving = sorted(driver_class(device.kind).moving)
        own = {"name": name, "kind": device.kind, "port": device.port, "access": device.access, "moving": moving}
        return {**own, **facts}

    def _watch(self, reader: Reader) -> Iterator[Answer]:
        yield self._overview(reader)
        last = reader.head()[0]
        revisions = {name: self._store.revision(name) for name in self._config.devices}
        while not self._stop.is_set():
            if not self._wait(last, revisions, BEAT):
                yield {"beat": _wall()}
            for row in self._rows(reader, last):
                last = row["seq"]
                yield {"row": row}
            for name, was in revisions.items():
                revisions[name] = self._store.revision(name)
                if revisions[name] != was:
                    yield {"device": self._device(reader, name)}

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
        if "tail" in request:
            after, limit = max(0, head - _number(request, "tail")), head
        else:
            after, limit = _number(request, "after"), _number(request, "limit")
        while limit > 0 and (rows := reader.rows(after, min(limit, CHUNK))):
            for _, row, row_hash in rows:
                yield {"row": json.loads(row), "hash": row_hash.hex()}
            after = rows[-1][0]
            limit -= len(rows)
        yield {"end": True, "head": head, "hash": digest.hex()}

    def _perform(self, reader: Reader, request: Mapping[str, Any], who: Peer) -> Iterator[Answer]:
        name, verb = str(request.get("device")), str(request.get("verb"))
        arguments = request.get("arguments") or {}
        if not who.owns_agent:
            raise ControlError(f"user {who.name} may look but not act here: ask root or the agent's own user")
        if name not in self._config.devices:
            raise ControlError(f"there is no device {name!r}: there are {', '.join(self._config.devices)}", 2)
        verbs = driver_class(self._config.devices[name].kind).operations
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


def _request(connection: socket.socket) -> dict[str, Any]:
    data = b""
    while b"\n" not in data:
        more = connection.recv(4096)
        if not more or len(data) + len(more) > REQUEST_LIMIT:
            raise ControlError("a request is one line of JSON", 2)
        data += more
    try:
        request = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ControlError(f"a request is one line of JSON ({error})", 2) from error
    if not isinstance(request, dict):
        raise ControlError("a request is a JSON object", 2)
    return request


def _refuse(connection: socket.socket, sentence: str, status: int) -> None:
    try:
        connection.sendall(json.dumps({"error": sentence, "status": status}, ensure_ascii=False).encode() + b"\n")
    except OSError:
        log.debug("a client of the control socket has left before its answer")


def _like_a_key(value: object) -> bool:
    return isinstance(value, str) and KEY_LIKE.search(value) is not None


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


def _wall() -> int:
    return time.time_ns() // 1_000_000
