"""This file knows how to ask the agent: where its socket is, one request a connection, one JSON object a line."""

import json
import os
import socket as sockets
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agent.errors import ConfigError, ControlError

Answer = dict[str, Any]

USUAL_SOCKET = Path("/run/tillwire/control.sock")
PATIENCE = 30.0
"""Seconds without any line after which the agent counts as stuck."""


def find_socket(socket: Path | None, config: Path | None, environment: Mapping[str, str] | None = None) -> Path:
    """The agent's socket: as given, else as the configuration says, else the usual place.

    What was typed counts before what the environment says (TILLWIRE_SOCKET, TILLWIRE_CONFIG).
    Raises ConfigError when the configuration cannot be read.
    """
    environment = os.environ if environment is None else environment
    if socket:
        return socket
    if config:
        return _configured(config)
    if named := environment.get("TILLWIRE_SOCKET"):
        return Path(named)
    if named := environment.get("TILLWIRE_CONFIG"):
        return _configured(Path(named))
    return USUAL_SOCKET


def ask(path: Path, request: Mapping[str, Any], patience: float = PATIENCE) -> Iterator[Answer]:
    """Send one request; gives the answer lines as they come, until the agent closes.

    Raises ControlError with the next step when there is no agent, when it is silent for `patience` seconds, and
    when it refuses.
    """
    with sockets.socket(sockets.AF_UNIX) as line:
        line.settimeout(patience)
        try:
            line.connect(str(path))
            line.sendall(json.dumps(request).encode() + b"\n")
            with line.makefile("rb") as answers:
                for text in answers:
                    yield _checked(json.loads(text))
        except OSError as error:
            raise _explain(path, error, patience) from error
        except ValueError as error:
            raise ControlError(f"what answers at {path} is not the agent: give another --socket") from error


def ask_once(path: Path, request: Mapping[str, Any]) -> Answer:
    """The one answer line of a request that has one."""
    for answer in ask(path, request):
        return answer
    raise cut_short()


def cut_short() -> ControlError:
    """The failure of an answer without its end."""
    return ControlError("the agent stopped before its answer was whole: see `journalctl -u tillwire`")


def _checked(answer: Any) -> Answer:
    if not isinstance(answer, dict):
        raise ValueError("not an object")
    if "error" in answer:
        raise ControlError(str(answer["error"]), int(answer.get("status", 3)))
    return answer


def _configured(config: Path) -> Path:
    try:
        tables = tomllib.loads(config.read_text("utf-8"))
        return config.parent.resolve() / Path(tables.get("control", {}).get("socket", USUAL_SOCKET))
    except OSError as error:
        raise ConfigError(f"{config} cannot be read ({error.strerror}): give the agent's TOML file") from error
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"{config} is not right: `tillwire config check {config}` says more") from error


def _explain(path: Path, error: OSError, patience: float) -> ControlError:
    match error:
        case FileNotFoundError() | ConnectionRefusedError():
            return ControlError(
                f"the agent is not running here (nobody answers at {path}): `systemctl status tillwire`, or give"
                " --socket"
            )
        case PermissionError():
            return ControlError(
                f"this user may not talk to the agent ({path}): join the socket's group, or use sudo"
            )
        case TimeoutError():
            return ControlError(
                f"the agent runs but has said nothing for {patience:.0f} s: `tillwire diagnose --offline` looks at"
                " it from outside"
            )
        case ConnectionResetError() | BrokenPipeError():
            return cut_short()
        case _:
            return ControlError(f"{path} cannot be used ({error.strerror or error}): give another --socket")
