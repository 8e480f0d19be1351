"""Files that a configuration names: what would harm by being opened or read is neither."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.config import Tls, merged, single
from agent.errors import ConfigError, LinkError
from agent.lines import nodes
from agent.lines.ports import open_port
from agent.tls import context

OWN = b'[terminal]\norg = "coop"\nid = "ATM-0001"\ndata = "data"\n'
UPS = '[devices.ups1]\nkind = "ups"\nport = "{}"\n'


@pytest.fixture
def line() -> Iterator[str]:
    """A serial line without a device, as tests have it."""
    here, there = os.openpty()
    yield os.ttyname(there)
    os.close(here)
    os.close(there)


@pytest.fixture(params=["a file", "a folder", "a pipe", "/dev/zero", "/dev/null", "a link to one"])
def other(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """What is no serial line."""
    path = tmp_path / "port"
    match request.param:
        case "a file":
            path.write_bytes(b"")
        case "a folder":
            path.mkdir()
        case "a pipe":
            os.mkfifo(path)
        case "a link to one":
            path.symlink_to("/dev/zero")
        case name:
            return Path(name)
    return path


def pushed(text: str, folder: Path) -> None:
    nodes.check(merged(OWN, text.encode(), folder))


def test_no_port_but_a_serial_line_is_taken_or_opened(other: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"devices.ups1.port: .* is no serial port"):
        pushed(UPS.format(other), tmp_path)
    with pytest.raises(LinkError, match="is no serial port"):
        open_port(single("ups", str(other), None, {})[0])


def test_a_serial_line_is_taken_and_so_is_what_may_come(line: str, tmp_path: Path) -> None:
    pushed(UPS.format(line), tmp_path)
    pushed(UPS.format(tmp_path / "not there yet"), tmp_path)
    pushed(UPS.format("socket://192.0.2.1:4001"), tmp_path)
    open_port(single("ups", line, None, {})[0]).close()


def test_a_certificate_is_a_file_that_ends(tmp_path: Path) -> None:
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    broker = '[broker]\nhost = "mqtt.example.org"\n[broker.tls]\nca = "ca.pem"\ncrl = "{}"\n'
    for name in (fifo, "/dev/zero"):
        with pytest.raises(ConfigError, match=r"broker.tls.crl: .* is no regular file"):
            pushed(broker.format(name), tmp_path)
        with pytest.raises(OSError, match="is no regular file"):
            context(Tls(ca=Path(name)))
    pushed(broker.format("not-there-yet.pem"), tmp_path)
