"""This file knows which facts help a person to find a cause, and collects them; it never raises.

Every look turns its own failure into text and names the next step. The last section is a marker, so that a bundle
that was cut is seen. No secret is ever among the facts: of keys and certificates only their paths and whether they
can be read.
"""

import json
import os
import platform
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agent import ledger
from agent.config import Config, Device, load, merged
from agent.errors import ConfigError, LedgerError, StoreError, TillwireError
from agent.evidence import exports
from agent.evidence.exports import Wanted
from agent.evidence.exports import wanted as wanted
from agent.facts import Fact as Fact
from agent.facts import Section as Section
from agent.facts import Verdict
from agent.lines.addresses import without_login
from agent.lines.probing import TRACE as TRACE
from agent.lines.probing import holders
from agent.lines.probing import probe as probe
from agent.mqtt.brokerlook import look, resolves
from agent.mqtt.byteaccount import of_terminal
from agent.store import FILE, TAIL, Reader
from agent.timepiece import synced, wall_ms

USUAL_CONFIG = Path("/etc/tillwire/terminal.toml")
ANY_TERMINAL = b'[terminal]\norg = "any"\nid = "any"\ndata = "/data"\n'
END = "end of diagnosis"
PACKAGES = ("tillwire", "pyserial", "paho-mqtt", "pydantic", "pycryptodome", "tenacity")
DISK_BAD, DISK_LOW = 50, 500
"""Free megabytes below which the store will soon fail, and below which one should look."""
SANE_YEAR = 2024
MANY = 1000


def collect(config: Config | None, live: Mapping[str, Any] | None, store_path: Path | None) -> list[Section]:
    """Every fact, in sections; the last one is the marker.

    config      of the terminal; without it, ports and broker are not looked at
    live        what only the running agent knows: threads {name: alive}, deaths {name: count}, queue (length),
                uplink (state, note), hindrance (what keeps pushes from passing, with `cause` and `next`), store
                (how it was found); None when it is looked at from outside
    store_path  the store's file
    """
    sections = [_section("software", _software)]
    if live is not None:
        sections.append(_section("agent", partial(_running, live)))
    if config is not None:
        sections.append(_section("configuration", partial(_configuration, config)))
        for name, device in config.devices.items():
            sections.append(_section(f"port of {name}", partial(_port, device, live is not None)))
        sections.append(_section("broker", partial(look, config.broker, config.terminal)))
        if config.broker:
            sections.append(_section("line to the centre", partial(_traffic, config)))
    if store_path is not None:
        sections.append(_section("folder", partial(_folder, store_path.parent)))
        sections.append(_section("store", partial(_store, store_path)))
    sections.append(_section("clock", _clock))
    count = sum(len(section.facts) for section in sections)
    return [*sections, Section(END, (Fact("complete", f"{len(sections)} sections, {count} facts"),))]


def collect_offline(config_path: Path | None, store: Path | None) -> list[dict[str, Any]]:
    """The facts for an agent that does not run, ready for JSON. A configuration that is not right is a fact too."""
    config, wrong = None, []
    named = config_path or _usual_config()
    try:
        config = load(named)
    except ConfigError as error:
        wrong = [Section("configuration", (Fact("file", str(error), "bad", f"correct {named}, or give --config"),))]
    path = _file(store) if store else (config.terminal.data / FILE if config else None)
    return as_json([*wrong, *collect(config, None, path)])


def as_json(sections: Sequence[Section]) -> list[dict[str, Any]]:
    """Sections as plain objects."""
    return [asdict(section) for section in sections]


def check_config(path: Path) -> dict[str, Any]:
    """What a configuration file says, without secrets. Raises ConfigError when it is not right."""
    config = load(path)
    return {
        "terminal": f"{config.terminal.id} of {config.terminal.org}",
        "data": str(config.terminal.data),
        "socket": str(config.control.socket),
        "keys": config.keys.described() if config.keys else "none are loaded here",
        "groups": ", ".join(config.terminal.groups) or "none",
        "push": f"signed by those in {config.push.signers}" if config.push else "none is taken here",
        "digest": config.digest,
        **_parts(config),
    }


def check_pushed(text: str) -> dict[str, Any]:
    """What a configuration says that shall be pushed; it has no local tables, and is taken as any terminal would.

    Raises ConfigError when no terminal could. What only a terminal knows is not looked at: its files, its ports,
    whether its own tables fit.
    """
    return _parts(merged(ANY_TERMINAL, text.encode(), Path("/")))


def _parts(config: Config) -> dict[str, Any]:
    broker = config.broker
    return {
        "broker": f"{', '.join(f'{h}:{p}' for h, p in broker.addresses)}, {'TLS' if broker.tls else 'plain text'}"
        if broker
        else "none",
        "devices": [
            {"name": d.name, "kind": d.kind, "port": without_login(d.port), "access": d.access}
            for d in config.devices.values()
        ],
    }


def find_store(store: Path | None, config_path: Path | None) -> Path:
    """The store's file: as given (file or folder), else as the configuration says.

    Raises ConfigError when neither can be used, StoreError when there is no such file or it may not be read.
    """
    path = _file(store) if store else data_folder(config_path) / FILE
    try:
        path.stat()
    except FileNotFoundError as error:
        raise StoreError(f"there is no store at {path}: give its folder with --store") from error
    except OSError as error:
        raise StoreError(f"{path} may not be read by this user ({error.strerror}): use sudo") from error
    return path


def data_folder(config_path: Path | None) -> Path:
    """Where the configuration says that the agent's data lie. Raises ConfigError."""
    return load(config_path or _usual_config()).terminal.data


def verify(path: Path) -> Iterator[dict[str, Any]]:
    """Compute the whole chain again from the file: {"progress": [done, total]} and at last {"verified"} or
    {"broken"}, as the control socket answers. Raises StoreError when the file cannot be read."""
    with closing(Reader(path)) as reader:
        yield from reader.verify()


def export(path: Path, rows: Wanted) -> Iterator[dict[str, Any]]:
    """An export from the file, in pieces as the control socket gives them; nobody can sign its end. Raises
    StoreError when the file cannot be read, ControlError when there is nothing to export."""
    with closing(Reader(path)) as reader:
        yield from exports.export(reader, rows, metadata.version("tillwire"), "", None)


def _section(title: str, look: Callable[[], Iterable[Fact]]) -> Section:
    """The facts of one look, as many as there were before it failed, and the failure."""
    facts = []
    try:
        for fact in look():
            facts.append(fact)
    except TillwireError as error:
        facts.append(Fact("failed", str(error), "bad", "do what the sentence says, then diagnose again"))
    except PermissionError as error:
        facts.append(Fact("not seen", f"this user may not look ({error})", "warn", "diagnose again as root"))
    except Exception as error:  # a diagnosis that stops at the first surprise is of no use
        text = f"{type(error).__name__}: {error}"
        facts.append(Fact("not seen", text, "warn", "send this line to those who maintain Tillwire"))
    return Section(title, tuple(facts))


def _software() -> Iterator[Fact]:
    yield Fact("system", f"{platform.platform()}, Python {platform.python_version()}, user {os.getuid()}")
    yield Fact("packages", ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES))


def _running(live: Mapping[str, Any]) -> Iterator[Fact]:
    dead = sorted(name for name, alive in live.get("threads", {}).items() if not alive)
    if dead:
        yield Fact("threads", f"dead: {', '.join(dead)}", "bad", "see `journalctl -u tillwire`; it restarts them")
    else:
        yield Fact("threads", f"{len(live.get('threads', {}))} alive")
    for name, count in live.get("deaths", {}).items():
        yield Fact(name, f"died {count} times", "warn", "see `journalctl -u tillwire` for why, and report it")
    waiting = live.get("queue", 0)
    late = waiting > MANY
    todo = "is the disk slow or full? see `folder` below" if late else ""
    yield Fact("queue", f"{waiting} items wait", "warn" if late else "ok", todo)
    state, note = live.get("uplink", ("off", ""))
    todo = "" if state == "connected" else "see `broker` below; nothing is lost meanwhile"
    yield Fact("uplink", f"{state}: {note}", "warn" if todo else "ok", todo)
    if hindrance := live.get("hindrance"):
        yield Fact("pushes", f"rows and states go on, but {hindrance.cause}", "bad", hindrance.next)
    yield Fact("store at start", str(live.get("store", "?")))
    unsigned = live.get("signing", "")
    todo = "see `secrets.sealed` in the data folder, or the disk; the ledger goes on meanwhile" if unsigned else ""
    yield Fact("signature", unsigned or "checkpoints are signed", "bad" if unsigned else "ok", todo)
    if trouble := live.get("trouble"):
        yield Fact("store now", str(trouble), "bad", "make room, or give the folder back to the agent's user")


def _configuration(config: Config) -> Iterator[Fact]:
    yield Fact("terminal", f"{config.terminal.id} of {config.terminal.org}")
    yield Fact("digest", config.digest)
    here = config.control.socket
    if here.is_socket():
        yield Fact("control socket", f"{here} is there")
    else:
        todo = "the agent does not run: `systemctl status tillwire`"
        yield Fact("control socket", f"{here} is not there", "warn", todo)


def _port(device: Device, running: bool) -> Iterator[Fact]:
    port = without_login(device.port)
    yield Fact("port", f"{port}, {device.kind}, {device.access}")
    if "://" in device.port:
        yield resolves(urlsplit(device.port).hostname or "")
        return
    path = Path(device.port)
    try:
        found = path.stat()
    except FileNotFoundError:
        yield Fact("present", "no", "bad", "is the cable in? `ls -l /dev/serial/by-id` shows the adapters found")
        return
    if not stat.S_ISCHR(found.st_mode):
        yield Fact("present", "it is not a serial port", "bad", "correct `port` in the configuration")
        return
    yield Fact("present", f"{stat.filemode(found.st_mode)} user {found.st_uid} group {found.st_gid}")
    if not os.access(path, os.R_OK | os.W_OK):
        yield Fact("allowed", "no", "bad", "add the agent's user to the port's group, then restart the agent")
    others = [name for pid, name in holders(path) if pid != os.getpid()]
    if not others:
        yield Fact("in use", "by the agent alone" if running else "by no program this user can see")
    elif os.path.realpath(path).startswith("/dev/pts/"):
        yield Fact("in use", f"a simulated port, held by {', '.join(others)}")
    elif running or len(others) > 1:
        yield Fact("in use", f"by {', '.join(others)}", "bad", "two readers steal each other's bytes: stop one")
    else:
        yield Fact("in use", f"by {', '.join(others)}")


def _traffic(config: Config) -> Iterator[Fact]:
    told = of_terminal(config).shown(wall_ms())
    for label in ("day", "month"):
        up, down = told[label]
        yield Fact(f"this {label}", f"{up / 1e6:.2f} MB up, {down / 1e6:.2f} MB down")
    if told["budget"]:
        much = told["saving"] != "no" or told["expected"] > told["budget"]
        todo = "does the line break often, or a point change often? else the budget is too small" if much else ""
        value = f"{told['budget'] / 1e6:g} MB a month; {told['expected'] / 1e6:.1f} MB if it goes on like this"
        yield Fact("budget", value, "warn" if much else "ok", todo)


def _folder(folder: Path) -> Iterator[Fact]:
    found = folder.stat()
    mode = stat.filemode(found.st_mode)
    open_to_all = found.st_mode & 0o077
    todo = f"chmod 700 {folder}: whoever can write the store can rewrite history" if open_to_all else ""
    yield Fact("folder", f"{folder} {mode} user {found.st_uid}", "bad" if open_to_all else "ok", todo)
    megabytes = shutil.disk_usage(folder).free // 1_000_000
    verdict: Verdict = "bad" if megabytes < DISK_BAD else "warn" if megabytes < DISK_LOW else "ok"
    yield Fact(
        "disk", f"{megabytes} MB free", verdict, "" if verdict == "ok" else f"make room on the disk of {folder}"
    )
    aside = sorted(path.name for path in folder.glob(f"{FILE}.aside-*") if not path.name.endswith(("-wal", "-shm")))
    if aside:
        todo = "copy them off this machine: they are evidence of a damaged store"
        yield Fact("set aside", ", ".join(aside), "warn", todo)


def _store(path: Path) -> Iterator[Fact]:
    size = path.stat().st_size
    wal = path.with_name(path.name + "-wal")
    yield Fact("file", f"{path}, {size // 1000} kB, log {wal.stat().st_size // 1000 if wal.exists() else 0} kB")
    reader = Reader(path)
    try:
        head, digest = reader.head()
        yield from _newest(reader, head)
        yield Fact("ledger", f"epoch {reader.epoch}, head {head}, hash {digest.hex()[:16]}…")
        acked = int(reader.meta("acked") or 0)
        yield Fact("undelivered", f"{head - acked} rows")
        yield Fact("open faults", str(len(reader.faults())))
        start = max(reader.anchor, head - TAIL)
        try:
            ledger.verify(reader.rows(start, TAIL), reader.hash_at(start), start)
            yield Fact("chain", f"the last {head - start} rows fit their hashes")
        except LedgerError as error:
            yield Fact(
                "chain", str(error), "bad", "keep the file as evidence; `tillwire ledger verify` says how far"
            )
    finally:
        reader.close()


def _newest(reader: Reader, head: int) -> Iterator[Fact]:
    for _, row, _ in reader.rows(head - 1, 1):
        last = json.loads(row)
        ago = time.time() - last["at"] / 1000
        todo = "the clock was set back, or was wrong then: compare it with a good clock" if ago < -1 else ""
        when = f"{ago:.0f} s ago" if ago >= 0 else f"{-ago:.0f} s in the future"
        yield Fact("last row", f"{last['kind']}, {when}", "bad" if todo else "ok", todo)


def _clock() -> Iterator[Fact]:
    now = time.gmtime()
    mad = (
        "set the clock; is its battery empty, and does time synchronisation run?" if now.tm_year < SANE_YEAR else ""
    )
    yield Fact("now", time.strftime("%Y-%m-%d %H:%M:%S UTC", now), "bad" if mad else "ok", mad)
    follows = "follows a time source" if synced() else "runs on its own: no time source, or none for hours"
    yield Fact("source", follows)
    boot = Path("/proc/sys/kernel/random/boot_id")
    if boot.exists():
        yield Fact("boot", f"{boot.read_text().strip()}, up {time.monotonic() / 3600:.1f} h")


def _usual_config() -> Path:
    return Path(os.environ.get("TILLWIRE_CONFIG") or USUAL_CONFIG)


def _file(store: Path) -> Path:
    return store / FILE if store.is_dir() else store
