"""What a push costs by itself: bytes on the line with TLS, and the time that its signatures and its disk take."""

import logging
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from agent.config import merged
from agent.crypto import signing
from agent.crypto.signing import CONFIGURATION
from agent.pushes import Site, Standing, judge, read
from agent.pushing.shelf import Shelf
from bench.agents import Agent, Centre, Twins, alone, envelope, tables
from bench.line import Toll
from tests.authority import Authority
from tests.pushing import KEYS, TRUSTED
from tests.uplinks import Mosquitto

Row = tuple[str, str, str, str]
QUIET = 6.0
"""Seconds in which what a push has caused has been sent: linger is 1 s, and a link settles within three polls."""


def octets(folder: Path, times: float) -> list[Row]:
    """Bytes on the line with TLS, of one push that changes one device, by the size of its configuration."""
    (folder / "pki").mkdir()
    authority = Authority(folder / "pki")
    authority.sign("broker", "localhost", "DNS:localhost", "IP:127.0.0.1")
    for name in ("ATM-0001", "centre"):
        authority.sign(name, name)
    mosquitto = Mosquitto(folder / "broker", authority)
    toll, at = Toll(mosquitto.port), authority.folder
    tls = f'ca = "{authority.ca}"\ncertificate = "{at}/ATM-0001.pem"\nkey = "{at}/ATM-0001.key"\n'
    centre = Centre(mosquitto.port, tls=(authority.ca, at / "centre.pem", at / "centre.key"))
    rows, version = [], 0
    with alone(folder, toll.port, tls=tls) as agent:
        time.sleep(QUIET)

        def during(do: Callable[[], object]) -> tuple[int, int, int]:
            before, own = toll.taken(), _own(agent)
            do()
            time.sleep(QUIET)
            after = toll.taken()
            return after[0] - before[0], after[1] - before[1], _own(agent) - own

        for size in (1000, 8000):
            found, text = [], b""
            for _ in range(int(times)):
                version += 1
                base = tables(toll.port, poll=1.0 + version % 2, tls=tls)
                text = envelope(version, base + _filling(size - len(base)))

                def one(text: bytes = text, version: int = version) -> None:
                    centre.send(agent.name, text)
                    assert centre.outcome(version)[0] == "committed"

                found.append(during(one))
            idle = during(lambda: None)
            above, below, own = (statistics.median(column) for column in zip(*found, strict=True))
            rows.append(
                (
                    f"push, TLS: bytes of a configuration of {size / 1000:.0f} kB that changes one device",
                    f"{(above + below) / 1000:.1f} kB: {below / 1000:.1f} down, {above / 1000:.1f} up"
                    " (PUBACKs, two reports, birth, rows, states)",
                    f"its envelope {len(text) / 1000:.1f} kB; the agent's own account {own / 1000:.1f} kB;"
                    f" nothing pushed, as long: {sum(idle[:2])} bytes",
                    f"{(above + below) / len(text):.2f} x",
                )
            )
    centre.close()
    mosquitto.stop()
    return rows


def _filling(size: int) -> str:
    line = "# what a technician wrote about this line of the terminal, 0123456789\n"
    return (line * (size // len(line) + 1))[: max(0, size - 1)] + "\n"


def _own(agent: Agent) -> int:
    assert agent.service.uplink
    return sum(agent.service.uplink.traffic()["day"])


def parts(folder: Path, times: float) -> list[Row]:
    """Milliseconds of what is done at the terminal before and after a push is tried."""
    logging.disable()
    twins = Twins()
    agent = Agent(folder, 1, twins, 1)
    agent.end()
    twins.close()
    text, own = envelope(1, tables(1)), agent.file.read_bytes()
    site, found = Site("coop", agent.name), signing.Envelope.read(envelope(1, tables(1)))
    signed = signing.pae(found.kind, found.unverified)
    signatures = [(KEYS[name].public, sig) for name, (_, sig) in zip(("ann", "bo"), found.signatures, strict=True)]

    def verify() -> None:
        push = read(TRUSTED.accept(text, CONFIGURATION))
        judge(push, site, Standing(), time.time_ns() // 1_000_000, "free")

    shelf = Shelf(folder / "pushes")
    shelf.recover(lambda envelope: True)
    made = [envelope(version, tables(1)) for version in range(1, int(times) + 1)]
    pushes = iter([(text, read(TRUSTED.accept(text, CONFIGURATION))) for text in made])

    def store() -> None:
        new, push = next(pushes)
        shelf.stage(new, push.version, push.digest)
        shelf.step("applying")
        shelf.step("probation")
        shelf.commit()

    mine, bare = _ms(verify, times), _ms(lambda: [key.verifies(sig, signed) for key, sig in signatures], times)
    config, disk = _ms(lambda: merged(own, tables(1).encode(), agent.folder), times), _ms(store, times)
    one = _ms(lambda: _kept(folder / "bare", text), times)
    return [
        (
            "push: verifying, reading and judging it",
            f"{mine:.2f} ms",
            f"two Ed25519 verifications alone {bare:.2f} ms; reading the TOML and checking it {config:.2f} ms",
            f"{mine / bare:.1f} x",
        ),
        (
            "push: its steps on disk, staged to committed",
            f"{disk:.1f} ms",
            f"the envelope once: write, fsync, rename, fsync of the folder {one:.1f} ms",
            f"{disk / one:.1f} x",
        ),
    ]


def _ms(do: Callable[[], object], times: float) -> float:
    taken = []
    for _ in range(int(times)):
        begun = time.perf_counter()
        do()
        taken.append((time.perf_counter() - begun) * 1000)
    return statistics.median(taken)


def _kept(path: Path, text: bytes) -> None:
    fresh = path.with_suffix(".new")
    with fresh.open("wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


MEASURES: tuple[tuple[Callable[[Path, float], list[Row]], float, float], ...] = ((octets, 3, 1), (parts, 200, 20))
