"""This file knows what changes between two configurations of one terminal: which links, whether the uplink, and
each key that differs as a row for people and for the ledger.

A link is what has a port: a shared line with its devices, or a device that is alone. It is kept when nothing about
it has changed; when anything has, it goes with all its devices. What stays the same is never touched.

Pure. What is done with it: agent/service.py.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

from pydantic import BaseModel

from agent.lines.addresses import without_login
from agent.pasted import too_much_hex
from agent.tables import LOCAL, Config, Device, Line

MOST = 40
"""Rows of a difference."""
LONG = 100
"""Characters of a key's path, or of its value, in a row."""
WITHHELD = "(withheld)"

Scalar = bool | int | str | None
Row = dict[str, Scalar]
"""{"where": "devices.ups1.port", "old": …, "new": …}; None is a key or a table that is not there. A fraction is
text: the ledger has none."""
Wired = tuple[Line | Device, Mapping[str, Device]]
"""What has the port of a link, and the devices behind it by their names."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What changes from one configuration to another.

    added, removed  names of devices; one that is of another kind now is in both: it has only the old one's name
    changed         devices that differ, or whose line does
    restarted       devices that are the same, on a line that changes
    kept            all others
    ended, begun    names of links to stop, and of links to start
    uplink          whether a new connection to the broker is wanted
    rows            what differs, at most MOST
    local           tables of LOCAL that differ: they are read at the start of the agent only
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    restarted: tuple[str, ...]
    kept: tuple[str, ...]
    ended: tuple[str, ...]
    begun: tuple[str, ...]
    uplink: bool
    rows: tuple[Row, ...]
    local: tuple[str, ...]

    @property
    def sentences(self) -> list[str]:
        """The rows in words."""
        return [_sentence(row) for row in self.rows]


def links(config: Config) -> dict[str, Wired]:
    """Name -> what is behind each link. No line has the name of a device."""
    shared: dict[str, Wired] = {
        line.name: (line, {d.name: d for d in config.devices.values() if d.line == line.name})
        for line in config.lines.values()
    }
    return shared | {d.name: (d, {d.name: d}) for d in config.devices.values() if not d.line}


def difference(old: Config, new: Config) -> Difference:
    """What changes from `old` to `new`."""
    before, after = links(old), links(new)
    ended = tuple(name for name, wired in before.items() if after.get(name) != wired)
    begun = tuple(name for name, wired in after.items() if before.get(name) != wired)
    added = _other(new.devices, old.devices)
    both = [name for name in new.devices if name not in added]
    changed = tuple(name for name in both if _wired(old, name) != _wired(new, name))
    started = {device for name in begun for device in after[name][1]}
    same = [name for name in both if name not in changed]
    return Difference(
        added=added,
        removed=_other(old.devices, new.devices),
        changed=changed,
        restarted=tuple(name for name in same if name in started),
        kept=tuple(name for name in same if name not in started),
        ended=ended,
        begun=begun,
        uplink=(old.broker, old.uplink, _session(old)) != (new.broker, new.uplink, _session(new)),
        rows=_bounded(_rows(old, new)),
        local=tuple(name for name in LOCAL if getattr(old, name) != getattr(new, name)),
    )


def _other(these: Mapping[str, Device], those: Mapping[str, Device]) -> tuple[str, ...]:
    """Names of devices that are not among those, or are another kind there."""
    return tuple(name for name, d in these.items() if name not in those or those[name].kind != d.kind)


def _wired(config: Config, name: str) -> tuple[Device, Line | None]:
    device = config.devices[name]
    return device, config.lines.get(device.line)


def _session(config: Config) -> set[tuple[str, str, str]]:
    """The devices as the terminal's birth tells them."""
    return {(d.name, d.kind, d.access) for d in config.devices.values()}


def _rows(old: Config, new: Config) -> Iterator[Row]:
    for name in ("broker", "uplink"):
        yield from _of_table(name, getattr(old, name), getattr(new, name))
    for group in ("lines", "devices"):
        mine, other = getattr(old, group), getattr(new, group)
        for name in dict.fromkeys((*mine, *other)):
            yield from _of_table(f"{group}.{name}", mine.get(name), other.get(name))


def _of_table(where: str, old: BaseModel | None, new: BaseModel | None) -> Iterator[Row]:
    """The keys that differ; of a table that comes or goes one row."""
    if old is None or new is None:
        if old is not new:
            yield {"where": where, "old": _told(old), "new": _told(new)}
        return
    was, now = _flat(old), _flat(new)
    keys = [key for key in dict.fromkeys((*was, *now)) if was.get(key) != now.get(key)]
    yield from ({"where": f"{where}.{key}", "old": was.get(key), "new": now.get(key)} for key in keys)
    if old != new and not keys:  # a password, or what looks like a key
        yield {"where": where, "old": WITHHELD, "new": WITHHELD}


def _told(table: BaseModel | None) -> str | None:
    if table is None:
        return None
    return ", ".join(f"{key} = {_value(value)}" for key, value in _flat(table).items())


def _flat(table: BaseModel) -> dict[str, Scalar]:
    """The keys of a table as they stand in a file, with those of the tables within it as `table.key`. What a device
    on a line has from the line is not its own."""
    found: dict[str, Scalar] = {}
    of_line = ("kind", "port", "baud") if getattr(table, "line", "") else ()
    for key, value in dict(table).items():
        if key not in ("name", "options", *of_line):
            found.update(_leaves(key, value))
    if is_dataclass(options := getattr(table, "options", None)) and not isinstance(options, type):
        for key, value in asdict(options).items():
            found.update((path, WITHHELD if too_much_hex(leaf) else leaf) for path, leaf in _leaves(key, value))
    return found


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Scalar]]:
    """The keys below a value, without those that say nothing."""
    if isinstance(value, BaseModel):
        value = dict(value)
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(f"{path}.{key}", inner)
    elif isinstance(value, tuple | list | set | frozenset):
        inner = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        if inner:
            yield path, ", ".join(str(_plain(one)) for one in inner)
    elif value not in (None, ""):
        yield path, _plain(value)


def _plain(value: Any) -> Scalar:
    if isinstance(value, bool | int):
        return value
    return without_login(value) if isinstance(value, str) else str(value)


def _bounded(rows: Iterable[Row]) -> tuple[Row, ...]:
    found = [{key: _cut(value) for key, value in row.items()} for row in rows]
    if len(found) <= MOST:
        return tuple(found)
    return (*found[: MOST - 1], {"where": f"and {len(found) - MOST + 1} more", "old": None, "new": None})


def _cut(value: Scalar) -> Scalar:
    return f"{value[: LONG - 1]}…" if isinstance(value, str) and len(value) > LONG else value


def _sentence(row: Row) -> str:
    where, old, new = row["where"], row["old"], row["new"]
    match old, new:
        case None, None:
            return str(where)
        case None, _:
            return f"{where} is new: {_value(new)}"
        case _, None:
            return f"{where} is gone, was {_value(old)}"
    return f"{where} is {_value(new)}, was {_value(old)}"


def _value(value: Scalar) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
