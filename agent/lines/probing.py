"""This file knows how to ask one port once, without a running agent: which device answers there, if any.

It uses the driver and the line border of the agent itself, so what works here works there.
"""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.config import single
from agent.drivers import Shared, driver_class
from agent.errors import LinkError
from agent.lines.ports import open_port
from agent.link import Alone, driver_for
from agent.model import Reading
from agent.points import lookup

TRACE = "line: "
"""What the text of a traced frame begins with."""
SETTLE = 2.0
"""Seconds that an answering device is asked on: it may have more to say than that it is there."""

Say = Callable[[str], None]


def probe(
    port: str,
    kind: str,
    settings: Mapping[str, Any] | None = None,
    *,
    baud: int | None = None,
    seconds: float = 10.0,
    say: Say = lambda text: None,
    trace: bool = False,
) -> dict[str, Any]:
    """Ask at `port` as a device of `kind` is asked, for at most `seconds`; less when it answers.

    settings  the device's own keys, as they would stand in its table in the configuration
    say       is told the progress, about once a second, and with `trace` every frame and what it means, as far as
              nothing in it is secret

    Returns {"port", "kind", "link", "verdict", "sent", "received", "points": {point: {"value", "unit", "raw",
    "inferred"}}}; `link` is a word of the point link.state, `sent` and `received` count bytes. Raises ConfigError
    for a kind or a setting that does not exist, LinkError when the port cannot be opened or is lost.
    """
    line, device = single(kind, port, baud, settings or {})
    driver = driver_for(line, {device.name: device})
    driver.transcript.on = trace
    try:
        opened = open_port(line)
    except LinkError as error:
        raise _named(error, port) from error
    talk = _Talk(driver, say, driver_class(kind).line.medium == "serial")
    begun = said = time.monotonic()
    end = begun + seconds
    try:
        while (now := time.monotonic()) < end:
            data = opened.read()
            outgoing = talk.turn(data, time.monotonic())
            if outgoing:
                opened.write(outgoing)
            if talk.up_since is not None:
                end = min(end, talk.up_since + SETTLE)
            if now - said >= 1.0:
                said = now
                say(f"asking at {port}: {now - begun:.0f} of {seconds:.0f} s, {talk.received} bytes came")
    except OSError as error:
        raise LinkError("unusable", f"{port} was lost while asking ({error}): is the cable in?") from error
    finally:
        opened.close()
    return talk.result(port, kind)


def _named(error: LinkError, port: str) -> LinkError:
    """The same failure, with the name of the program that has the port where it can be seen."""
    names = [name for _, name in holders(Path(port))] if error.cause == "busy" else []
    return LinkError("busy", f"{port} is held by {', '.join(names)}: stop it before you probe") if names else error


def holders(path: Path) -> list[tuple[int, str]]:
    """(process id, "name (id)") of every process that has the file open, as far as this user may see (Linux)."""
    real = os.path.realpath(path)
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.path.realpath(handle) == real for handle in (process / "fd").iterdir()):
                name = (process / "comm").read_text().strip()
                found.append((int(process.name), f"{name} ({process.name})"))
        except OSError:
            continue  # it has ended, or is another user's
    return found


@dataclass(slots=True)
class _Talk:
    """What was said and heard. `up_since`: when the device first answered (monotonic seconds)."""

    driver: Alone | Shared
    say: Say
    serial: bool
    sent: int = 0
    received: int = 0
    up_since: float | None = None
    readings: dict[str, Reading] = field(default_factory=dict)

    def turn(self, data: bytes, now: float) -> bytes:
        """Give the driver what came, and return what it wants to send."""
        heard = self.driver.receive(data, now) if data else []
        for one in (*heard, *self.driver.tick(now)):
            self.readings.update({item.point: item for item in one.items if isinstance(item, Reading)})
        if self.link == "up" and self.up_since is None:
            self.up_since = now
        outgoing = self.driver.outgoing()
        self.received += len(data)
        self.sent += len(outgoing)
        for entry in self.driver.transcript.read():
            self.say(TRACE + entry)
        return outgoing

    @property
    def link(self) -> str:
        """What can be said of the line so far: a word of link.state."""
        state = self.readings.get("link.state")
        if state is not None and (state.value != "silent" or (state.raw and not self.serial)):
            return str(state.value)
        return "rubbish" if self.received and self.serial else "silent"

    def result(self, port: str, kind: str) -> dict[str, Any]:
        points = {
            name: {"value": r.value, "unit": lookup(name).unit, "raw": r.raw, "inferred": r.inferred}
            for name, r in sorted(self.readings.items())
            if not name.startswith("link.")
        }
        facts = {"port": port, "kind": kind, "link": self.link, "verdict": self._verdict(kind)}
        return {**facts, "sent": self.sent, "received": self.received, "points": points}

    def _verdict(self, kind: str) -> str:
        state = self.readings.get("link.state")
        match self.link:
            case "up":
                return f"a {kind} answers" + (f", but {state.raw}" if state and state.raw else "")
            case "silent" if state and state.raw and not self.serial:
                return f"silent: {state.raw}"
            case "silent":
                sent = f"{self.sent} bytes were sent and " if self.sent else ""
                return f"silent: {sent}nothing came back; is it switched on, and is the cable in?"
            case word if word != "rubbish" or not self.serial:
                return f"{word}: {state.raw if state else ''}"
            case _:
                return (
                    f"rubbish: {self.received} bytes came, but not from a {kind} at this line speed; try --baud,"
                    " or another kind"
                )
