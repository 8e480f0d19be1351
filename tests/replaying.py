"""A recorded XFS4IoT host behind real websockets on 127.0.0.1, for the end-to-end tests."""

import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from tests.recorded import Message, recordings

RECORDED_AUTHORITY = "127.0.0.1:5846"


class Replay:
    """The host: `address` of its publisher, `asked` names of commands by service (the publisher: an empty name)."""

    def __init__(self, generation: str) -> None:
        self.asked: dict[str, list[str]] = defaultdict(list)
        self._recordings = recordings(generation)
        self._clients: dict[str, list[ServerConnection]] = defaultdict(list)
        self._lock = threading.Lock()
        self._server = serve(self._converse, "127.0.0.1", 0, compression=None)
        self._authority = f"127.0.0.1:{self._server.socket.getsockname()[1]}"

    @property
    def address(self) -> str:
        return f"ws://{self._authority}/xfs4iot/v1.0"

    def tell(self, service: str) -> int:
        """Say every recorded unsolicited event of a service to each of its clients; returns how many there were."""
        events = self._recordings[service].events
        with self._lock:
            for client in self._clients[service]:
                for message in events:
                    self._say(client, message)
        return len(events)

    def serve_forever(self) -> None:
        self._server.serve_forever()

    def stop(self) -> None:
        """Stop listening and hang up on everybody."""
        self._server.shutdown()
        for clients in self._clients.values():
            for client in clients:
                client.close()

    def _converse(self, client: ServerConnection) -> None:
        path = client.request.path if client.request else ""
        service = path.removeprefix("/xfs4iot/v1.0").strip("/")
        with self._lock:
            self._clients[service].append(client)
        try:
            for text in client:
                command = json.loads(text)
                with self._lock:
                    self.asked[service].append(command["header"]["name"])
                    for message in self._recordings[service].answer(command):
                        self._say(client, message)
        except ConnectionClosed:
            pass  # it left without a goodbye
        finally:
            with self._lock:
                self._clients[service].remove(client)

    def _say(self, client: ServerConnection, message: Message) -> None:
        client.send(json.dumps(message).replace(RECORDED_AUTHORITY, self._authority))


@contextmanager
def replaying(generation: str) -> Iterator[Replay]:
    """A host that replays a recorded session (v1 or v2) while the block runs."""
    host = Replay(generation)
    thread = threading.Thread(target=host.serve_forever, daemon=True)
    thread.start()
    try:
        yield host
    finally:
        host.stop()
        thread.join(5)
