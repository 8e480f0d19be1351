"""This file knows how to serve a fleet: asyncio, hundreds of terminals, one process.

    RUN_DIR/<terminal>/<device>   a symlink to the device's pty; it stays the same over unplug and replug
    RUN_DIR/<terminal>/<line>     the same, of a bus that several devices share
    RUN_DIR/control.sock          JSON lines, see hwsim/control.py

Every device is ticked ten times a second, and at once after bytes arrived or something was changed. Each act
(settings, line faults, withdrawals) is recorded with its wall-clock time.
"""

import asyncio
import fcntl
import json
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, TextIO

from hwsim import DEVICES
from hwsim.contract import SimulatedDevice, medium
from hwsim.control import Data, Request, serve, socket_of
from hwsim.endpoints import Endpoint, Pty, Tcp
from hwsim.errors import NOT_HERE, NOT_WELL, USAGE, Refusal
from hwsim.fleet import BUS, Device, Fleet, Kinds, ScenarioFile, apply_settings, check_acts, full_name, parse
from hwsim.line import Bus, Line, Master
from hwsim.scenario import Act, Scenario, Step, in_time
from hwsim.secure_link import SecureLink
from hwsim.servers import TcpServer, WebSockets
from hwsim.teller import Teller

TICK = 0.1
MOST_RECORDS = 100_000

Masters = Mapping[str, Callable[[], Master]]
"""Kind -> the payment application that can own a device of this kind."""

SERVERS: dict[str, type[TcpServer] | type[WebSockets]] = {"server": TcpServer, "websocket": WebSockets}
"""What a device with clients can be reached at, by its MEDIUM."""

MASTERS: dict[str, Callable[[], Master]] = {"dispenser": Teller}


@dataclass
class Station:
    """A device, its line and, while it is plugged in, where it can be reached. A bus has a station of its own, and
    the devices on it name it."""

    name: str
    kind: str
    device: SimulatedDevice | None
    line: Line
    endpoint: Endpoint | None = None
    tcp: int | None = None
    timer: asyncio.TimerHandle | None = None
    bus: "Station | None" = None


class Server:
    """Serves one fleet in one run folder. `log` gets each record as a JSON line; `seed` rules all bad luck."""

    def __init__(
        self,
        fleet: Fleet,
        run: Path,
        kinds: Kinds = DEVICES,
        masters: Masters = MASTERS,
        log: TextIO | None = None,
        seed: int = 0,
    ) -> None:
        self._fleet, self._run, self._kinds, self._log = fleet, run, kinds, log
        self._records: deque[Data] = deque(maxlen=MOST_RECORDS)
        self._secure_link = SecureLink()
        self._stations: dict[str, Station] = {}
        for bus, members in fleet.buses.items():
            devices = [self._made(fleet.devices[member]) for member in members]
            line = Line(Bus(devices), Random(f"{seed}/{bus}"), baud=devices[0].BAUD)
            station = self._stations[bus] = Station(bus, BUS, None, line)
            for name, device in zip(members, devices, strict=True):
                kind = fleet.devices[name].kind
                self._stations[name] = Station(name, kind, device, line, bus=station)
        for name, table in fleet.devices.items():
            if not table.line:
                device = self._made(table)
                master = masters[table.kind]() if table.tapped else None
                whole = medium(device) in SERVERS
                line = Line(device, Random(f"{seed}/{name}"), master, device.BAUD, whole)
                tcp = table.tcp if not whole else table.tcp or 0
                self._stations[name] = Station(name, table.kind, device, line, tcp=tcp)

    def _made(self, table: Device) -> SimulatedDevice:
        device = self._new(table.kind)
        apply_settings(device, table.set)
        return device

    def _new(self, kind: str) -> SimulatedDevice:
        device = self._kinds[kind]()
        if hasattr(device, "ask_epp"):
            device.ask_epp = self._secure_link
        return device

    @property
    def _lines(self) -> list[Station]:
        """The stations with a line of their own."""
        return [station for station in self._stations.values() if station.bus is None]

    async def run(self, stop: asyncio.Event, ready: Callable[[list[Data]], None]) -> None:
        """Serve until `stop`; `ready` gets what `hwsim show` shows, once every port is there. Raises Refusal."""
        with _taken(self._run, self._fleet.terminals):
            control = None
            try:
                for station in self._lines:
                    self._plug(station)
                control = await serve(self._run, self._answer)
                ready([self._shown(station) for station in self._stations.values()])
                tasks = [asyncio.ensure_future(w) for w in (stop.wait(), self._tick_all(), self._play_own())]
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    task.cancel()
                for task in done:
                    task.result()
            finally:
                for station in self._lines:
                    self._unplug(station)
                if control is not None:
                    control.close()

    async def _tick_all(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            for station in self._lines:
                self._step(station)
            due = max(due + TICK, loop.time())
            await asyncio.sleep(due - loop.time())

    def _step(self, station: Station) -> None:
        """Let time pass on one line, and come back when the next byte on it is due."""
        loop = asyncio.get_running_loop()
        pieces = station.line.step(loop.time())
        if pieces and station.endpoint:
            speed = station.endpoint.speed
            for piece in pieces:
                station.endpoint.write(station.line.at_speed(piece, speed))
        if station.timer:
            station.timer.cancel()
        due = station.line.next_due
        station.timer = None if due is None else loop.call_at(due, self._step, station)

    def _plug(self, station: Station) -> None:
        def hear(data: bytes) -> None:
            if station.endpoint:
                data = station.line.at_speed(data, station.endpoint.speed)
                station.line.hear(data, asyncio.get_running_loop().time())
                self._step(station)

        if station.tcp is None:
            station.endpoint = Pty(self._run / station.name, station.line.baud, hear)
            return
        kind = SERVERS.get(medium(station.device) if station.device else "", Tcp)
        station.endpoint = tcp = kind(station.tcp, hear)
        station.tcp = tcp.port
        if station.device is not None and hasattr(station.device, "authority"):
            station.device.authority = f"127.0.0.1:{tcp.port}"

    def _unplug(self, station: Station) -> None:
        station.line.disconnect()
        if station.timer:
            station.timer.cancel()
        if station.endpoint:
            station.endpoint.close()
        station.timer = station.endpoint = None

    def _perform(self, act: Act, by: str) -> Data:
        """Do one act and record it. Raises Refusal."""
        station = self._station(act.device)
        self._check([act])
        if act.set is not None:
            if station.device is not None:
                apply_settings(station.device, act.set)
            deed = {"act": "set", "set": dict(act.set)}
        elif act.withdraw is not None:
            self._withdraw(station, act.withdraw.position, act.withdraw.count)
            deed = {"act": "withdraw", **act.withdraw.model_dump()}
        else:
            self._set_line(station.bus or station, act)
            deed = {"act": "line", **act.model_dump(include={"line", "value", "kind"}, exclude_none=True)}
        record = self._record(station.name, deed, by)
        self._step(station.bus or station)
        return record

    def _record(self, name: str, deed: Data, by: str) -> Data:
        terminal, _, device = name.rpartition("/")
        record = {"at": time.time(), "terminal": terminal, "device": device, **deed, "by": by}
        self._records.append(record)
        if self._log:
            self._log.write(json.dumps(record) + "\n")
            self._log.flush()
        return record

    def _set_line(self, station: Station, act: Act) -> None:
        match act.line:
            case "unplug":
                self._unplug(station)
            case "replug":
                self._unplug(station)
                if act.kind is not None:
                    station.device = station.line.device = self._new(act.kind)
                    station.kind, station.line.baud = act.kind, station.device.BAUD
                self._plug(station)
            case str(word):
                try:
                    station.line.set_fault(word, act.value)
                except ValueError as error:
                    raise Refusal(str(error)) from error

    def _withdraw(self, station: Station, position: int, count: int) -> None:
        master = station.line.master
        if master is None or master.busy:
            raise Refusal(f"{station.name} is still paying out; ask again in a moment", NOT_WELL)
        try:
            master.withdraw(position, count)
        except ValueError as error:
            raise Refusal(str(error)) from error

    async def _play_own(self) -> None:
        async for _ in self._play(self._fleet.scenario):
            pass
        await asyncio.Event().wait()  # an ended time line does not end the server

    async def _play(self, steps: tuple[Step, ...]) -> AsyncIterator[Data]:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        scenario = Scenario(steps)
        while (at := scenario.next) is not None:
            await asyncio.sleep(begun + at - loop.time())
            for step in scenario.due(loop.time() - begun):
                try:
                    yield await self._patiently(step)
                except Refusal as no:
                    yield self._record(step.device, {"act": "refused", "why": str(no)}, by="scenario")

    async def _patiently(self, step: Step) -> Data:
        """A step's act; a withdrawal waits until the one before it has ended."""
        while True:
            try:
                return self._perform(step, by="scenario")
            except Refusal as no:
                if no.status != NOT_WELL:
                    raise
            await asyncio.sleep(TICK)

    async def _answer(self, request: Request) -> AsyncIterator[Data]:
        match request.get("do"):
            case "show":
                name = request.get("device")
                for station in self._stations.values() if name is None else [self._station(str(name))]:
                    yield self._shown(station)
            case "act":
                yield self._perform(parse(Act, request.get("act")), by="control")
            case "play":
                steps = parse(ScenarioFile, {"scenario": request.get("steps")}).scenario
                self._check(in_time(steps))
                async for record in self._play(steps):
                    yield record
            case "log":
                for record in list(self._records):
                    yield record
            case other:
                raise Refusal(f"no request {other!r}; there are: show, act, play, log", USAGE)

    def _check(self, acts: Sequence[Act]) -> None:
        cast = {name: station.kind for name, station in self._stations.items()}
        tapped = {name for name, station in self._stations.items() if station.line.master}
        check_acts(acts, cast, tapped, self._kinds)

    def _station(self, name: str) -> Station:
        return self._stations[full_name(name, self._stations)]

    def _shown(self, station: Station) -> Data:
        """What `hwsim show` tells of a device. `speed` in baud is the host's, None where there is no such thing."""
        device, terminal = station.device, station.name.partition("/")[0]
        endpoint = (station.bus or station).endpoint
        shown: dict[str, Any] = {
            "terminal": terminal,
            "device": station.name.removeprefix(f"{terminal}/"),
            "kind": station.kind,
            "port": endpoint.address if endpoint else None,
            "plugged": endpoint is not None,
            "faults": station.line.faults,
            "baud": station.line.baud,
            "speed": endpoint.speed if endpoint else None,
            "settings": {name: getattr(device, name) for name in device.SETTINGS} if device else {},
        }
        if station.line.master:
            shown |= {"tapped": True, "busy": station.line.master.busy, "violations": station.line.violations}
        return shown


@contextmanager
def _taken(run: Path, terminals: Collection[str]) -> Iterator[None]:
    """Holds the run folder: one server at a time; sweeps what a killed one left behind. Raises Refusal."""
    try:
        run.mkdir(parents=True, exist_ok=True)
        folder = os.open(run, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise Refusal(
            f"{run} cannot be the run folder ({error.strerror}); give another with --run", NOT_HERE
        ) from error
    try:
        # The lock goes with the process, so a killed server's folder is free at once and a live one's never.
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(folder)
        raise Refusal(
            f"another hwsim serves {run}; stop it, or give another folder with --run", NOT_HERE
        ) from error
    try:
        _sweep(run, terminals)
        yield
    finally:
        _sweep(run, terminals)
        os.close(folder)


def _sweep(run: Path, terminals: Collection[str]) -> None:
    """Remove the control socket, every symlink to a pty, and terminals' folders that are then empty."""
    socket_of(run).unlink(missing_ok=True)
    for folder in [path for path in run.iterdir() if path.is_dir() and not path.is_symlink()]:
        ports = [path for path in folder.iterdir() if path.is_symlink() and _leads_to_pty(path)]
        for port in ports:
            port.unlink()
        if (ports or folder.name in terminals) and not any(folder.iterdir()):
            folder.rmdir()


def _leads_to_pty(link: Path) -> bool:
    return os.readlink(link).startswith("/dev/pts/")
