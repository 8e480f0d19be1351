"""A broker behind TLS, for real: only the right authority and host name are trusted, before anything is sent."""

import os
import pwd
import subprocess
from pathlib import Path

import pytest

from tests.whole import Site, site, wait

pytestmark = [pytest.mark.peer("mosquitto", "openssl")]


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def authority(folder: Path, name: str) -> None:
    """A test authority of its own: <name>.pem and its key."""
    subject = ("-subj", f"/CN=test authority {name}", "-days", "2")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    openssl(folder, "req", "-x509", "-nodes", *subject, *key, "-keyout", f"{name}.key", "-out", f"{name}.pem")


def certificate(folder: Path, name: str, host: str) -> None:
    """A broker's certificate for `host`, signed by the authority `good`."""
    (folder / "san").write_text(f"subjectAltName=DNS:{host},IP:127.0.0.1\n")
    subject = ("-nodes", "-subj", f"/CN={host}", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    openssl(folder, "req", *subject, "-keyout", f"{name}.key", "-out", f"{name}.csr")
    signed = ("-CA", "good.pem", "-CAkey", "good.key", "-CAcreateserial", "-days", "2", "-extfile", "san")
    openssl(folder, "x509", "-req", "-in", f"{name}.csr", *signed, "-out", f"{name}.pem")


def behind_tls(terminal: Site, ca: str) -> None:
    folder = terminal.folder
    (folder / "broker.conf").write_text(
        f"user {pwd.getpwuid(os.getuid()).pw_name}\nlistener {terminal.port} 127.0.0.1\nallow_anonymous true\n"
        f"certfile {folder}/broker.pem\nkeyfile {folder}/broker.key\n"
    )
    path = terminal.configure("")
    path.write_text(path.read_text().replace("[uplink]", f'tls = {{ ca = "{ca}.pem" }}\n[uplink]'))
    path.write_text(path.read_text().replace("wait_for_reader = true", ""))  # nobody subscribes here


def uplink(terminal: Site) -> dict[str, str]:
    try:
        answer: dict[str, str] = terminal.ask(do="devices")["uplink"]
    except OSError:
        return {"state": "", "note": ""}
    return answer


@pytest.mark.parametrize(("ca", "state", "says"), [("good", "connected", ""), ("other", "down", "TLS check")])
def test_only_the_right_authority_is_trusted(tmp_path: Path, ca: str, state: str, says: str) -> None:
    authority(tmp_path, "good")
    authority(tmp_path, "other")
    certificate(tmp_path, "broker", "broker.example.org")
    with site(tmp_path, devices="") as terminal:
        behind_tls(terminal, ca)
        terminal.start("broker")
        wait("the broker", terminal.broker_answers)
        terminal.start("agent")
        wait("the uplink", lambda: uplink(terminal)["state"] == state)
        assert says in uplink(terminal)["note"]
        if state == "connected":
            wait("delivery", lambda: terminal.ask(do="devices")["uplink"]["backlog"] == 0)
        else:
            assert terminal.ask(do="devices")["uplink"]["backlog"] > 0


def test_a_certificate_for_another_host_is_refused(tmp_path: Path) -> None:
    authority(tmp_path, "good")
    certificate(tmp_path, "broker", "other.example.org")
    with site(tmp_path, devices="") as terminal:
        behind_tls(terminal, "good")
        path = tmp_path / "terminal.toml"
        path.write_text(path.read_text().replace('host = "127.0.0.1"', 'host = "localhost"'))
        terminal.start("broker")
        wait("the broker", terminal.broker_answers)
        terminal.start("agent")
        wait("the refusal", lambda: "TLS check" in uplink(terminal)["note"])
        assert terminal.log("agent").count("TLS check") == 1, "said once, however often it is tried"


def test_a_missing_authority_file_is_said(tmp_path: Path) -> None:
    with site(tmp_path, devices="") as terminal:
        behind_tls(terminal, "none")
        terminal.start("agent")
        wait("the reason", lambda: "certificates in [broker.tls] cannot be used" in uplink(terminal)["note"])
