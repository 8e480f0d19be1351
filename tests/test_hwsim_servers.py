"""What more than one can use: a bus that devices share, and servers that answer each client alone."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from agent.drivers.framing import Records
from hwsim.errors import Refusal
from hwsim.servers import TcpServer
from tests.serving import Running, running

FLEET = """
[terminals.atm1.devices.a]
kind = "named"
line = "rs485"
set = { name = "a" }
[terminals.atm1.devices.b]
kind = "named"
line = "rs485"
set = { name = "b" }
[terminals.atm1.devices.desk]
kind = "desk"
[terminals.atm1.devices.web]
kind = "web"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("servers"), FLEET) as one:
        yield one


def reach(server: Running) -> socket.socket:
    host, _, port = server.shown("desk")["port"].removeprefix("socket://").partition(":")
    return socket.create_connection((host, int(port)), 3)


def test_devices_on_a_bus_share_one_port_and_each_answers_for_itself(server: Running) -> None:
    with server.open("atm1/rs485") as port:
        port.write(b"b one\na two\nc three\nb four\n")
        answers = [port.readline() for _ in range(3)]
        assert sorted(answers) == [b"red:a two\n", b"red:b four\n", b"red:b one\n"]
        server.act("b", set={"colour": "green"})
        assert port.read_until(b"now green\n").endswith(b"now green\n")
        port.write(b"b again\n")
        assert port.readline() == b"green:b again\n"
    assert server.shown("a")["port"] == server.shown("b")["port"]
    assert not (server.run / "atm1/a").exists()


def test_pulling_the_cable_of_one_pulls_that_of_all_on_the_bus(server: Running) -> None:
    server.act("a", line="unplug")
    assert not (server.run / "atm1/rs485").is_symlink()
    assert not server.shown("b")["plugged"]
    server.act("atm1/rs485", line="replug")
    with server.open("atm1/rs485") as port:
        port.write(b"a back\n")
        assert port.readline() == b"red:a back\n"


@pytest.mark.parametrize(
    ("act", "says"),
    [
        ({"device": "atm1/rs485", "set": {"colour": "red"}}, "settings are those of its devices"),
        ({"device": "a", "line": "replug", "kind": "echo"}, "only a device alone on a serial line"),
        ({"device": "desk", "line": "noise"}, "is for serial lines"),
    ],
)
def test_what_makes_no_sense_is_refused(server: Running, act: dict[str, object], says: str) -> None:
    with pytest.raises(Refusal, match=says):
        server.ask(do="act", act=act)


def test_a_device_that_is_on_no_bus_cannot_share_a_line(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="only devices of a bus share a line"):
        Running(tmp_path, '[terminals.atm1.devices.e]\nkind = "echo"\nline = "x"\n')


def test_each_client_of_a_server_is_answered_alone(server: Running) -> None:
    with reach(server) as one, reach(server) as other:
        one.sendall(b"first")
        assert one.recv(100) == b"red:first"
        other.sendall(b"second")
        assert other.recv(100) == b"red:second"
        one.sendall(b"bye")
        assert one.recv(100) == b"red:bye"
        assert one.recv(100) == b"", "it hangs up on the one"
        other.sendall(b"still")
        assert other.recv(100) == b"red:still", "and not on the other"


def test_a_server_is_told_who_comes_and_who_leaves() -> None:
    told: list[tuple[str, str, bytes]] = []
    heard = Records(100)

    async def visited() -> None:
        left = asyncio.Event()

        def hear(data: bytes) -> None:
            told.extend(heard.feed(data))
            if told[-1][0] == "c":
                left.set()

        server = TcpServer(0, hear)
        _, visitor = await asyncio.open_connection("127.0.0.1", server.port)
        visitor.write(b"hello")
        await visitor.drain()
        visitor.close()
        await asyncio.wait_for(left.wait(), 10)
        server.close()

    asyncio.run(visited())
    assert told == [("o", "1", b""), ("t", "1", b"hello"), ("c", "1", b"")]


def test_websockets_carry_messages_and_tell_the_path(server: Running) -> None:
    address = server.shown("web")["port"]
    with connect(f"{address}/one") as one, connect(f"{address}/two") as other:
        assert one.recv(3) == f"{address.removeprefix('ws://')} /one"
        assert other.recv(3) == f"{address.removeprefix('ws://')} /two"
        one.send("hello")
        assert one.recv(3) == "red:hello"
        one.send("bye")
        assert one.recv(3) == "red:bye"
        with pytest.raises(ConnectionClosed):
            one.recv(3)
        other.send("still")
        assert other.recv(3) == "red:still"


def test_an_unplugged_server_is_gone_and_comes_back_at_the_same_port(server: Running) -> None:
    before = server.shown("web")["port"]
    with connect(f"{before}/x") as client:
        client.recv(3)
        server.act("web", line="unplug")
        with pytest.raises(ConnectionClosed):
            client.recv(3)
    with pytest.raises(OSError, match="refused"):
        connect(f"{before}/x")
    server.act("web", line="replug")
    assert server.shown("web")["port"] == before
    with connect(f"{before}/x") as client:
        assert str(client.recv(3)).endswith("/x")
