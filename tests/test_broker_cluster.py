"""Three NATS servers that lose a node in the middle of a backlog: the files of deploy/brokers/nats, real processes.

The node that is killed leads what is kept of the messages, and both centre and terminal are connected to it.
"""

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from agent.config import Config, Tls
from agent.messages import HEARD
from agent.mqtt.connection import Connection
from agent.tls import context
from hwsim.subscriber import Account
from tests.authority import Authority
from tests.strangers import NATS
from tests.uplinks import ROOT, settings, terminal
from tests.whole import free_port, wait

pytestmark = [pytest.mark.peer("nats-server", "openssl")]
SHIPPED = ROOT / "deploy/brokers/nats"
ROWS = 20_000
PAYLOAD = b'{"outcome": "none"}'


class Cluster:
    """The three nodes, all on this machine: the shipped files with other folders and ports."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.authority = folder, Authority(folder)
        for file, name in (("broker", "localhost"), ("centre", "centre"), ("atm", "ATM-0001")):
            self.authority.sign(file, name, "DNS:localhost", "IP:127.0.0.1")
        self.ports = [free_port() for _ in range(3)]
        routes = [free_port() for _ in range(3)]
        self._looks = [free_port() for _ in range(3)]
        users = (SHIPPED / "users.conf").read_text().replace("example-coop", "coop")
        self._nodes = []
        for number, port in enumerate(self.ports):
            text = (SHIPPED / "nats.conf").read_text()
            changes = {f"mqtt{n + 1}.example.org:6222": f"127.0.0.1:{route}" for n, route in enumerate(routes)} | {
                "127.0.0.1:4222": f"127.0.0.1:{free_port()}",
                "127.0.0.1:8222": f"127.0.0.1:{self._looks[number]}",
                "0.0.0.0:6222": f"127.0.0.1:{routes[number]}",
                "0.0.0.0:8883": f"127.0.0.1:{port}",
                "/var/lib/tillwire-nats": f"{folder}/node{number}",
                "/etc/tillwire-nats": str(self.authority.folder),
            }
            for what, instead in changes.items():
                assert what in text, f"nats.conf as shipped has {what}"
                text = text.replace(what, instead)
            (self.authority.folder / "users.conf").write_text(users)
            path = self.authority.folder / f"node{number}.conf"
            path.write_text(text)
            log = (folder / f"node{number}.log").open("ab")
            self._nodes.append(
                subprocess.Popen(
                    [NATS, "--config", str(path)],
                    stdout=log,
                    stderr=log,
                    env={**os.environ, "TILLWIRE_NODE": f"mqtt{number + 1}"},
                )
            )
        wait("a leader", lambda: "new metadata leader" in self.log())
        wait("every node", lambda: all(self._accepts(number) for number in range(3)))

    def log(self) -> str:
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("node*.log")))

    def holder(self) -> int:
        """The node that leads what is kept of messages: the one whose loss is the worst."""
        for look in self._looks:
            with urlopen(f"http://127.0.0.1:{look}/jsz?accounts=true&streams=true") as answer:
                accounts = json.load(answer).get("account_details", [])
            for stream in (stream for account in accounts for stream in account.get("stream_detail", [])):
                if stream["name"] == "$MQTT_msgs" and (leader := stream["cluster"].get("leader")):
                    return int(leader.removeprefix("mqtt")) - 1
        return -1

    def kill(self, number: int) -> None:
        """As a power cut of one node: it says nothing to anybody."""
        self._nodes[number].kill()
        self._nodes[number].wait()

    def close(self) -> None:
        for number in range(3):
            self.kill(number)

    def tls(self, name: str) -> Tls:
        folder = self.authority.folder
        return Tls(ca=self.authority.ca, certificate=folder / f"{name}.pem", key=folder / f"{name}.key")

    def config(self, folder: Path, nodes: tuple[int, ...], name: str = "ATM-0001") -> Config:
        hosts = ", ".join(f'"127.0.0.1:{self.ports[node]}"' for node in nodes)
        ours = self.tls("atm")
        tls = f'ca = "{ours.ca}"\ncertificate = "{ours.certificate}"\nkey = "{ours.key}"\n'
        more = f'hosts = [{hosts}]\nprotocol = "3.1.1"'
        return settings(folder, 0, more, terminal=name, tls=tls, push='signers = "signers.toml"')

    def say(self, who: str, *topics: str) -> None:
        """Publish PAYLOAD on these topics, retained, until each is acknowledged."""
        broker = self.config(self.folder, (0,)).broker
        assert broker is not None
        one = Connection(broker, broker.addresses[0], f"{who}-speaks", context(self.tls(who)))
        one.open(threading.Event())
        for topic in topics:
            one.publish(f"tillwire/v1/coop/{topic}", PAYLOAD, retain=True)
        while len(one.events) < len(topics):
            one.turn(1.0)
        one.close()

    def _accepts(self, number: int) -> bool:
        centre = Centre(self, client=f"probe{number}", nodes=(number,))
        try:
            return centre.once()
        finally:
            centre.stop.set()


class Centre:
    """A subscriber with a session that lasts; when its node is gone, it goes to the next."""

    def __init__(self, cluster: Cluster, client: str = "centre", nodes: tuple[int, ...] = (0, 1, 2)) -> None:
        self.account, self.stop, self.ready = Account(), threading.Event(), threading.Event()
        self._cluster, self._client, self._nodes = cluster, client, list(nodes)
        self.topics: set[str] = set()

    @property
    def node(self) -> int:
        return self._nodes[0]

    def once(self) -> bool:
        """One connection until it breaks or `stop`; whether it was accepted."""
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client,
            protocol=mqtt.MQTTv311,
            clean_session=self._client != "centre",
            reconnect_on_failure=False,
        )
        client.tls_set_context(context(self._cluster.tls("centre")))
        accepted: list[bool] = []

        def connected(c: mqtt.Client, _u: object, _flags: object, code: ReasonCode, _p: object) -> None:
            accepted.append(not code.is_failure)
            if self._client == "centre":
                c.subscribe("tillwire/v1/#", qos=1)

        client.on_connect = connected
        client.on_subscribe = lambda *_: self.ready.set()
        client.on_message = self._take
        try:
            client.connect("127.0.0.1", self._cluster.ports[self.node], keepalive=5)
            while not self.stop.is_set() and client.loop(0.1) == mqtt.MQTT_ERR_SUCCESS:
                if accepted and self._client != "centre":
                    break
        except OSError:
            return False
        client.disconnect()
        return any(accepted)

    def _take(self, _client: mqtt.Client, _userdata: object, message: mqtt.MQTTMessage) -> None:
        self.topics.add(message.topic.removeprefix("tillwire/v1/coop/"))
        self.account.take(message.topic, bytes(message.payload), time.time())

    def run(self) -> None:
        while not self.stop.is_set():
            self.once()
            self._nodes.append(self._nodes.pop(0))
            self.stop.wait(0.1)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    try:
        yield made
    finally:
        made.close()


def test_a_node_killed_in_the_middle_of_a_backlog_loses_nothing_and_no_order(
    cluster: Cluster, tmp_path: Path
) -> None:
    """And before, what is sent to a terminal reaches it from the centre only, not from itself or another."""
    wait("a holder", lambda: cluster.holder() >= 0)
    nodes = (cluster.holder(), (cluster.holder() + 1) % 3, (cluster.holder() + 2) % 3)
    centre = Centre(cluster, nodes=nodes)
    threading.Thread(target=centre.run, daemon=True).start()
    try:
        wait("the centre's subscription", centre.ready.is_set)
        sent = [f"ATM-000{number}/{suffix}" for number in (1, 2) for suffix in HEARD]
        cluster.say("atm", *sent, "ATM-0001/config/reported")
        cluster.say("centre", "ATM-0001/config/desired")
        wait("what may be said", lambda: len(centre.topics) == 2)
        assert centre.topics == {"ATM-0001/config/reported", "ATM-0001/config/desired"}
        with terminal(cluster.config(tmp_path, nodes), rows=ROWS) as one:
            wait("a part of the backlog", lambda: len(centre.account.rows) > ROWS / 10)
            assert centre.node == nodes[0]
            cluster.kill(centre.node)
            assert one.heard == [("config/desired", PAYLOAD)]
            assert len(centre.account.rows) < ROWS, "it was killed in the middle"
            wait("every acknowledgement", one.delivered, 60.0)
            wait("every row at the centre", lambda: len(centre.account.rows) >= ROWS, 60.0)
        assert len(centre.account.rows) == ROWS
        assert centre.account.missing() == []
        assert centre.account.twins() == 0
        assert centre.account.mistakes == [], "the order and the chain are kept"
    finally:
        centre.stop.set()
