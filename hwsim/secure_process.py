"""This file knows the process of the simulated secure device: two Unix sockets, and the slots in a file.

    hwsim epp --socket run/epp/device.sock --keypad run/pad/keypad.sock

The device side and the keypad side (hwsim/secure_requests.py) are sockets of their own, open to user and group, so
that two folders can keep a terminal's programs from the keys of the pad. Many requests may follow on one
connection, each a JSON line. Nothing is logged. A device without power hangs up on the device side.

The slots live as long as the process, or in a file when one is given: mode 0600, in clear, and saying that it is a
simulator's. It is written before an import is answered, so that what was answered is still there after kill -9.
"""

import asyncio
import json
import os
import resource
import signal
import socket
import stat
from collections.abc import Callable
from pathlib import Path

from hwsim.contract import Json
from hwsim.errors import NOT_HERE, Refusal
from hwsim.secure_device import NoPower, SecureDevice, Slot
from hwsim.secure_link import LONGEST
from hwsim.secure_requests import Desk
from hwsim.secure_rules import Refused

WARNING = "This is a simulator's file. Its keys lie here in clear; it protects nothing."
SLOT = ("usage", "algorithm", "mode", "version", "exportability")
TICK = 0.5


def read_slots(path: Path) -> tuple[str, dict[str, Slot]]:
    """Serial number and slots of a slots file; an empty number when there is none yet. Raises Refusal."""
    try:
        with path.open(encoding="utf-8") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise Refusal(f"{path} can be read by others; make it private with chmod 600", NOT_HERE)
            kept = json.load(file)
        slots = {
            name: Slot(slot["usage"], slot["algorithm"], slot["mode"], bytes.fromhex(slot["key"]))
            for name, slot in kept["slots"].items()
        }
        for name, slot in slots.items():
            slot.version = kept["slots"][name]["version"]
            slot.exportability = kept["slots"][name]["exportability"]
        return str(kept["serial"]), slots
    except FileNotFoundError:
        return "", {}
    except OSError as error:
        raise Refusal(f"{path} cannot be read ({error.strerror}); give another --slots file", NOT_HERE) from error
    except (ValueError, KeyError, TypeError, AttributeError):
        # without the cause: it could quote the file
        raise Refusal(f"{path} is no slots file; give another one, or remove it", NOT_HERE) from None


def write_slots(path: Path, device: SecureDevice) -> None:
    """Keep the loaded keys, whole or not at all. Raises OSError."""
    slots = {
        name: {word: getattr(slot, word) for word in SLOT} | {"key": slot.key.hex().upper()}
        for name, slot in device.slots.items()
        if slot.loaded
    }
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump({"warning": WARNING, "serial": device.serial, "slots": slots}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def furnish(device: SecureDevice, path: Path, *, serial_given: bool) -> None:
    """Give a device the slots of a file, and keep them there from now on. Raises Refusal."""
    serial, slots = read_slots(path)
    if serial and serial_given and serial != device.serial:
        raise Refusal(f"{path} holds the slots of {serial}; leave out --serial, or give another --slots file")

    def keep() -> None:
        try:
            write_slots(path, device)
        except OSError as error:
            raise Refused("hardwareError", f"{path} cannot be written ({error.strerror})") from None

    device.serial, device.slots, device.kept = serial or device.serial, slots, keep
    try:
        keep()
    except Refused as no:
        raise Refusal(f"{no}; give another --slots file", NOT_HERE) from None


async def run(device: SecureDevice, at: Path, keypad: Path, ready: Callable[[], None]) -> None:
    """Serve until a signal says stop. Raises Refusal."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    stop, loop, desk = asyncio.Event(), asyncio.get_running_loop(), Desk(device)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    servers: list[asyncio.Server] = []
    try:
        for path, answer in ((at, desk.ask), (keypad, desk.touch)):
            servers.append(await _serve(path, device, answer))
        ready()
        while not stop.is_set():
            device.tick(loop.time())
            try:
                await asyncio.wait_for(stop.wait(), TICK)
            except TimeoutError:
                continue
    finally:
        for server, path in zip(servers, (at, keypad), strict=False):
            server.close()
            path.unlink(missing_ok=True)


async def _serve(path: Path, device: SecureDevice, answer: Callable[[Json], Json]) -> asyncio.Server:
    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                device.tick(asyncio.get_running_loop().time())
                writer.write(json.dumps(answer(_request(line)), separators=(",", ":")).encode() + b"\n")
                await writer.drain()
        except (NoPower, ValueError, ConnectionError):
            pass  # no power, no JSON line, nobody there any more: hang up
        finally:
            writer.close()

    _clear_away(path)
    mask = os.umask(0o117)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return await asyncio.start_unix_server(converse, path, limit=LONGEST)
    except OSError as error:
        raise Refusal(f"{path} cannot be made ({error}); give another path", NOT_HERE) from error
    finally:
        os.umask(mask)


def _request(line: bytes) -> Json:
    try:
        request = json.loads(line)
    except RecursionError:
        request = None
    if not isinstance(request, dict):
        raise ValueError
    return request


def _clear_away(path: Path) -> None:
    """Remove a socket that a killed process left behind. Raises Refusal when somebody still serves it."""
    if not path.is_socket():
        if path.exists():
            raise Refusal(f"{path} is there already, and no socket; give another path", NOT_HERE)
        return
    with socket.socket(socket.AF_UNIX) as line:
        try:
            line.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise Refusal(f"another process serves {path}; stop it, or give another path", NOT_HERE)
