"""Websockets as a port, against a real server: what is opened, refused, lost, and how large a thing may get."""

import socket
import ssl
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request
from websockets.sync.server import Server, ServerConnection, serve

from agent.config import Tls
from agent.drivers.framing import Records, record
from agent.errors import LinkError
from agent.lines.sockets import LARGEST, Sockets
from tests.authority import Authority
from tests.whole import free_port

BIG = b"x" * (50 * 1024 * 1024)


def answer(connection: ServerConnection) -> None:
    """Echo, with words that make the server misbehave."""
    try:
        for message in connection:
            match message:
                case "big":
                    connection.send(BIG)
                case "parts":
                    connection.send(["one ", "mess", "age"])
                case "leave":
                    return
                case "rude":
                    connection.socket.shutdown(socket.SHUT_RDWR)
                case _:
                    connection.send(f"{connection.request.path if connection.request else ''} {message!s}")
    except ConnectionClosed:
        return


@contextmanager
def serving(context: ssl.SSLContext | None = None, greets_after: float = 0.0) -> Iterator[Server]:
    def late(connection: ServerConnection, request: Request) -> None:
        threading.Event().wait(greets_after)

    with serve(answer, "127.0.0.1", 0, max_size=None, ssl=context, process_request=late) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(5.0)


@pytest.fixture
def uri() -> Iterator[str]:
    with serving() as server:
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}/xfs4iot/v1.0"


def opened(uri: str) -> Sockets:
    return Sockets(uri, None, 0.2, 1.0)


class Said:
    """What a port said so far, record by record."""

    def __init__(self, port: Sockets) -> None:
        self._port, self._records = port, Records(LARGEST + 4096)
        self.all: list[tuple[str, str, bytes]] = []

    def until(self, act: str, channel: str) -> bytes:
        """The text of the next record of this sort."""
        end = time.monotonic() + 10.0
        while time.monotonic() < end:
            for number, (a, c, text) in enumerate(self.all):
                if (a, c) == (act, channel):
                    del self.all[number]
                    return text
            self.all += self._records.feed(self._port.read())
        raise AssertionError(f"no {act} of {channel}: {[(a, c, t[:100]) for a, c, t in self.all]}")


def test_the_publisher_is_open_at_once_and_a_service_when_it_is_spoken_to(uri: str) -> None:
    port = opened(uri)
    said = Said(port)
    said.until("o", uri)
    port.write(record("t", uri, b"hello") + record("t", f"{uri}/Card/", b"you"))
    assert said.until("t", uri) == b"/xfs4iot/v1.0 hello"
    said.until("o", f"{uri}/Card/")
    assert said.until("t", f"{uri}/Card/") == b"/xfs4iot/v1.0/Card/ you"
    port.close()


def test_a_message_in_parts_is_one_message(uri: str) -> None:
    port = opened(uri)
    port.write(record("t", uri, b"parts"))
    assert Said(port).until("t", uri) == b"one message"
    port.close()


def test_a_message_of_50_megabytes_closes_its_connection_and_is_never_kept(uri: str) -> None:
    port = opened(uri)
    said = Said(port)
    port.write(record("t", f"{uri}/other", b"hello"))
    said.until("t", f"{uri}/other")
    tracemalloc.start()
    port.write(record("t", uri, b"big"))
    why = said.until("c", uri)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert b"limit" in why
    assert peak < len(BIG) + 3 * LARGEST, "the server's own copy is in this process too"
    port.write(record("t", f"{uri}/other", b"unharmed"))
    assert said.until("t", f"{uri}/other").endswith(b"unharmed")
    port.close()


@pytest.mark.parametrize("word", [b"leave", b"rude"])
def test_a_lost_connection_is_told_and_opened_again_when_it_is_spoken_to(uri: str, word: bytes) -> None:
    port = opened(uri)
    said = Said(port)
    port.write(record("t", f"{uri}/Card/", word))
    said.until("c", f"{uri}/Card/")
    port.write(record("t", f"{uri}/Card/", b"again"))
    assert said.until("t", f"{uri}/Card/").endswith(b"again")
    port.close()


def test_when_nothing_is_open_any_more_the_port_is_lost(uri: str) -> None:
    port = opened(uri)
    said = Said(port)
    port.write(record("t", f"{uri}/Card/", b"hello"))
    said.until("t", f"{uri}/Card/")
    port.write(record("t", uri, b"leave") + record("t", f"{uri}/Card/", b"leave"))
    with pytest.raises(OSError, match="closed"):
        said.until("c", "the loss of all is told as one")


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ("ws://192.0.2.1:5846/xfs4iot/v1.0/Card/", b"another machine"),
        ("wss://localhost:5846/xfs4iot/v1.0/Card/", b"TLS"),
        ("file:///etc/passwd", b"no websocket address"),
        ("ws://127.0.0.1:99999/x", b"no websocket address"),
    ],
)
def test_a_publisher_cannot_send_us_anywhere_else(uri: str, other: str, why: bytes) -> None:
    port = opened(uri)
    port.write(record("t", other, b"hello"))
    assert why in Said(port).until("c", other)
    port.close()


def test_a_service_that_is_not_there_is_told_and_harms_nobody(uri: str) -> None:
    port = opened(uri)
    said = Said(port)
    gone = f"ws://127.0.0.1:{free_port()}/x"
    port.write(record("t", gone, b"hello") + record("t", uri, b"still"))
    assert b"refused" in said.until("c", gone)
    assert said.until("t", uri).endswith(b"still")
    port.close()


def test_nobody_at_the_address_is_missing() -> None:
    with pytest.raises(LinkError) as caught:
        opened(f"ws://127.0.0.1:{free_port()}/xfs4iot/v1.0")
    assert caught.value.cause == "missing"
    assert "no publisher answers" in str(caught.value)


def test_what_is_no_websocket_server_is_missing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf, pytest.raises(LinkError) as caught:
        opened(f"ws://127.0.0.1:{deaf.getsockname()[1]}/")
    assert caught.value.cause == "missing"


def test_a_publisher_that_starts_late_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.lines.sockets.LOOK", 0.3)
    try:
        first, late = serve(answer, "127.0.0.1", 5850), serve(answer, "127.0.0.1", 5853)
    except OSError:
        pytest.skip("another program has these ports")
    with first:
        threading.Thread(target=first.serve_forever, daemon=True).start()
        late.shutdown()
        port = opened("ws://127.0.0.1")
        said = Said(port)
        said.until("o", "ws://127.0.0.1:5850/xfs4iot/v1.0")
        with serve(answer, "127.0.0.1", 5853) as second:
            threading.Thread(target=second.serve_forever, daemon=True).start()
            said.until("o", "ws://127.0.0.1:5853/xfs4iot/v1.0")
            assert "c" not in [act for act, _, _ in said.all], "ports where nobody is are no news"
            port.close()
            second.shutdown()
        first.shutdown()


def test_without_a_port_number_the_list_of_the_standard_is_tried() -> None:
    try:
        server = serve(answer, "127.0.0.1", 5849)
    except OSError:
        pytest.skip("another program has port 5849")
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = opened("ws://127.0.0.1")
        Said(port).until("o", "ws://127.0.0.1:5849/xfs4iot/v1.0")
        port.close()
        server.shutdown()


def behind_tls(folder: Path, host: str = "vendor.example.org", wants_client: bool = False) -> ssl.SSLContext:
    """What a service needs for wss, signed by the authority `good` in `folder`, which signs for `agent` too."""
    Authority(folder, "other")
    good = Authority(folder, "good")
    good.sign("agent", "agent.example.org")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*good.sign("service", host, f"DNS:{host}", "IP:127.0.0.1"))
    if wants_client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(good.ca)
    return context


def secure(server: Server, tls: Tls, host: str = "127.0.0.1") -> Sockets:
    return Sockets(f"wss://{host}:{server.socket.getsockname()[1]}/xfs4iot/v1.0", tls, 0.2, 1.0)


@pytest.mark.peer("openssl")
@pytest.mark.parametrize("greets_after", [0.0, 1.5])
def test_a_service_behind_tls_is_verified_and_may_take_its_time(tmp_path: Path, greets_after: float) -> None:
    with serving(behind_tls(tmp_path), greets_after) as server:
        port = secure(server, Tls(ca=tmp_path / "good/ca.pem"))
        said = Said(port)
        uri = f"wss://127.0.0.1:{server.socket.getsockname()[1]}/xfs4iot/v1.0"
        port.write(record("t", uri, b"hello"))
        assert said.until("t", uri) == b"/xfs4iot/v1.0 hello"
        assert port.read() == b"", "what TLS says to itself is no news, and nothing is waited for"
        port.close()


@pytest.mark.peer("openssl")
def test_a_service_that_tls_refuses_is_unusable_and_says_why(tmp_path: Path) -> None:
    with serving(behind_tls(tmp_path)) as server:
        for tls, host, why in (
            (Tls(ca=tmp_path / "other/ca.pem"), "127.0.0.1", "certificate verify failed"),
            (Tls(ca=tmp_path / "good/ca.pem"), "localhost", "certificate is not valid for 'localhost'"),
        ):
            with pytest.raises(LinkError, match=why) as caught:
                secure(server, tls, host)
            assert caught.value.cause == "unusable"
    with pytest.raises(LinkError, match="cannot be used"):
        Sockets("wss://127.0.0.1:1/", Tls(ca=tmp_path / "none.pem"), 0.2, 1.0)


@pytest.mark.peer("openssl")
def test_a_service_may_want_a_certificate_of_ours(tmp_path: Path) -> None:
    with serving(behind_tls(tmp_path, wants_client=True)) as server:
        with pytest.raises(LinkError) as caught:
            secure(server, Tls(ca=tmp_path / "good/ca.pem"))
        assert caught.value.cause == "unusable"
        ours = Tls(
            ca=tmp_path / "good/ca.pem", certificate=tmp_path / "good/agent.pem", key=tmp_path / "good/agent.key"
        )
        secure(server, ours).close()


def test_services_that_swallow_the_first_packet_hold_up_nobody(uri: str) -> None:
    with ExitStack() as deaf, socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):  # fill the backlog: whoever comes now gets no answer at all
            one = deaf.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        port = opened(uri)
        said = Said(port)
        lost = [f"ws://127.0.0.1:{full.getsockname()[1]}/{number}" for number in range(6)]
        port.write(b"".join(record("t", other, b"hello") for other in lost))
        port.write(record("t", uri, b"still"))
        assert said.until("t", uri).endswith(b"still")
        assert "c" not in [act for act, _, _ in said.all], "none of them was waited for"
        for other in lost:
            assert said.until("c", other) == b"it cannot be reached"
        port.close()
