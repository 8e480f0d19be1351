"""This file knows the fleet file: TOML -> validated frozen Fleet, or one sentence that names the key.

    run_dir = "run"                   # ports and control socket, relative to the file
    [terminals.atm1.devices.ups1]
    kind = "ups"
    set = { mains = "ok" }            # initial settings, `hwsim kinds` lists them
    [terminals.atm1.devices.printer1]
    kind = "printer"
    tcp = 19100                       # 127.0.0.1:19100 instead of a pty; 0 is any free port
    [terminals.atm1.devices.dispenser1]
    kind = "dispenser"
    tapped = true                     # the payment application is its master; the pty is a passive tap
    [terminals.atm1.devices.panel1]
    kind = "modbus"
    line = "rs485"                    # run/atm1/rs485, together with every device that names the same line

and [[scenario]] steps as in hwsim/scenario.py. A scenario file holds nothing but those steps.
"""

import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hwsim import SimulatedDevice, change_setting
from hwsim.contract import medium
from hwsim.errors import Refusal
from hwsim.scenario import Act, Scalar, Step, in_time

Kinds = Mapping[str, type[SimulatedDevice]]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
"""A name that becomes a file name in the run folder; without dots, so that it cannot be the control socket's."""

BUS = "bus"
"""The kind of a line that devices share, beside those of devices."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Device(_Table):
    """One simulated device. `tcp` is a port on 127.0.0.1 instead of a pty; a server has one in any case. `line` is
    the name of a bus that it shares with others of its terminal."""

    kind: str
    line: Name | None = None
    tcp: Annotated[int, Field(ge=0, le=65535)] | None = None
    tapped: bool = False
    set: Mapping[str, Scalar] = {}


class Terminal(_Table):
    """The devices of one terminal."""

    devices: Annotated[Mapping[Name, Device], Field(min_length=1)]


class Fleet(_Table):
    """A whole fleet file. Devices are known by their full name, terminal/device."""

    run_dir: Path = Path("run")
    terminals: Annotated[Mapping[Name, Terminal], Field(min_length=1)]
    scenario: tuple[Step, ...] = ()

    @property
    def buses(self) -> dict[str, list[str]]:
        """The full name of each shared line, and of the devices on it."""
        found: dict[str, list[str]] = {}
        for full, device in self.devices.items():
            if device.line:
                found.setdefault(f"{full.partition('/')[0]}/{device.line}", []).append(full)
        return found

    @property
    def devices(self) -> dict[str, Device]:
        """All devices by full name, in the order of the file."""
        return {
            f"{t}/{d}": device for t, terminal in self.terminals.items() for d, device in terminal.devices.items()
        }


class ScenarioFile(_Table):
    """A file with nothing but steps."""

    scenario: Annotated[tuple[Step, ...], Field(min_length=1)]


Model = TypeVar("Model", bound=BaseModel)


def load(path: Path, kinds: Kinds, masters: Collection[str]) -> Fleet:
    """Read and check a fleet file; `masters` are the kinds that can be tapped. `run_dir` becomes absolute.

    Raises Refusal with one sentence: the file, the key's path, what is wrong and what would be right.
    """
    try:
        fleet = parse(Fleet, _tables(path))
        _check(fleet, kinds, masters)
    except Refusal as no:
        raise Refusal(f"{path}: {no}") from no
    return fleet.model_copy(update={"run_dir": path.resolve().parent / fleet.run_dir})


def load_scenario(path: Path) -> tuple[Step, ...]:
    """Read a scenario file. Raises Refusal as `load` does; the device names are checked by the server."""
    try:
        return parse(ScenarioFile, _tables(path)).scenario
    except Refusal as no:
        raise Refusal(f"{path}: {no}") from no


def parse(model: type[Model], tables: Any) -> Model:
    """The model of what crosses a border. Raises Refusal that names the key's path."""
    try:
        return model.model_validate(tables)
    except ValidationError as error:
        raise Refusal(_sentence(error, model)) from error


def full_name(name: str, known: Collection[str]) -> str:
    """The full name that `ups1` or `atm1/ups1` means. Raises Refusal that lists the devices."""
    found = [full for full in known if name in (full, full.partition("/")[2])]
    if len(found) == 1:
        return found[0]
    if found:
        raise Refusal(f"{name!r} is on several terminals; say which: {', '.join(found)}")
    some = sorted(known)[:20]
    more = f" and {len(known) - len(some)} more" if len(known) > len(some) else ""
    raise Refusal(f"there is no device {name!r}; there are: {', '.join(some)}{more}")


def check_kind(kind: str, kinds: Kinds) -> None:
    """Raises Refusal for a kind that does not exist."""
    if kind not in kinds:
        raise Refusal(f"there is no kind {kind!r}; it can be {', '.join(sorted(kinds))}")


def check_settings(kind: type[SimulatedDevice], settings: Mapping[str, Scalar]) -> None:
    """Try settings on a device of this kind that nobody sees. Raises Refusal that names what is allowed."""
    apply_settings(kind(), settings)


def apply_settings(device: SimulatedDevice, settings: Mapping[str, Scalar]) -> None:
    """Change settings. Raises Refusal that names what is allowed; those before the wrong one are changed."""
    for name, value in settings.items():
        try:
            change_setting(device, name, str(value).lower() if isinstance(value, bool) else str(value))
        except ValueError as error:
            raise Refusal(str(error)) from error


def check_acts(acts: Iterable[Act], cast: Mapping[str, str], tapped: Collection[str], kinds: Kinds) -> None:
    """Check acts, in their order, against the devices they name. `cast`: full name -> kind.

    Raises Refusal with one sentence.
    """
    now = dict(cast)
    for act in acts:
        full = full_name(act.device, now)
        if act.kind is not None:
            check_kind(act.kind, kinds)
            if full in tapped:
                raise Refusal(f"{full} is tapped: its payment application wants a {now[full]}; leave out kind")
            if now[full] == BUS or {medium(kinds[act.kind]), medium(kinds[now[full]])} != {"serial"}:
                raise Refusal(f"{full}: only a device alone on a serial line can be another kind; leave out kind")
            now[full] = act.kind
        if act.set is not None and now[full] == BUS:
            raise Refusal(f"{full} is a line; settings are those of its devices")
        if act.set is not None:
            check_settings(kinds[now[full]], act.set)
        if act.withdraw is not None and full not in tapped:
            raise Refusal(f"{full} has no payment application; withdraw wants a device with tapped = true")


def _tables(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise Refusal(f"cannot be read ({error.strerror}); give a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Refusal(f"not valid TOML: {error}") from error


def _check(fleet: Fleet, kinds: Kinds, masters: Collection[str]) -> None:
    """What no single table can tell: kinds, settings, shared ports, the names in the scenario."""
    ports: dict[int, str] = {}
    for full, device in fleet.devices.items():
        where = "terminals.{}.devices.{}".format(*full.split("/"))
        with _named(f"{where}.kind"):
            check_kind(device.kind, kinds)
        with _named(f"{where}.set"):
            check_settings(kinds[device.kind], device.set)
        on = medium(kinds[device.kind])
        if device.line and (on != "bus" or device.tcp is not None or device.tapped):
            raise Refusal(f"{where}.line: only devices of a bus share a line, and a {device.kind} here is none")
        if device.tapped and device.kind not in masters:
            can = ", ".join(sorted(masters)) or "no kind"
            raise Refusal(f"{where}.tapped: no payment application owns a {device.kind}; it can own: {can}")
        if device.tcp:
            if device.tcp in ports:
                raise Refusal(
                    f"{where}.tcp: {device.tcp} is already the port of {ports[device.tcp]};"
                    " every device needs a port of its own, and 0 is any free one"
                )
            ports[device.tcp] = full
    for bus, members in fleet.buses.items():
        if bus in fleet.devices:
            raise Refusal(f"{bus} is the name of a device and of a line; rename one of them")
        if len({kinds[fleet.devices[member].kind].BAUD for member in members}) > 1:
            raise Refusal(f"{bus}: {', '.join(members)} have different speeds, and cannot share a line")
    cast = {full: device.kind for full, device in fleet.devices.items()} | dict.fromkeys(fleet.buses, BUS)
    tapped = {full for full, device in fleet.devices.items() if device.tapped}
    with _named("scenario"):
        check_acts(in_time(fleet.scenario), cast, tapped, kinds)


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Puts the key's path before a sentence."""
    try:
        yield
    except Refusal as no:
        raise Refusal(f"{where}: {no}") from no


def _sentence(error: ValidationError, model: type[BaseModel]) -> str:
    """The first mistake of a pydantic report as one sentence, and how many more there are."""
    first, *more = error.errors()
    path = ""
    for part in first["loc"]:
        if isinstance(part, int):
            path += f" step {part + 1}"  # the only list is [[scenario]]; people count from one
        elif part != "[key]":
            path += f".{part}" if path else part
    match first["type"]:
        case "missing":
            text = f"{path} is missing"
        case "extra_forbidden":
            known = sorted(_keys(model, first["loc"][:-1]))
            close = get_close_matches(str(first["loc"][-1]), known, 1)
            hint = f"did you mean {close[0]}?" if close else f"known keys are {', '.join(known)}"
            text = f"{path} is not a known key; {hint}"
        case "string_pattern_mismatch":
            text = f"{path}: {first['input']!r} cannot be a name; use letters, digits, '_' and '-', at most 64"
        case "value_error":
            text = f"{path}: {first['ctx']['error']}" if path else str(first["ctx"]["error"])
        case _:
            text = f"{path}: {first['msg'][0].lower()}{first['msg'][1:]}, not {first['input']!r}"
    return text + (f" (and {len(more)} more)" if more else "")


def _keys(model: type[BaseModel], path: tuple[int | str, ...]) -> Iterable[str]:
    """The keys of the table at `path` below a model: the deepest model that its annotations lead to."""
    for part in path:
        field = model.model_fields.get(str(part))
        waiting = [field.annotation] if field else []
        while waiting:
            kind = waiting.pop()
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                model = kind
            waiting += getattr(kind, "__args__", ())
    return model.model_fields
