"""A test authority: certificates of any age for any name, and lists of revoked ones, made with openssl."""

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

CONFIG = """
[ca]
default_ca = own
[own]
dir = .
database = ./index
new_certs_dir = .
serial = ./serial
crlnumber = ./crlnumber
certificate = ./ca.pem
private_key = ./ca.key
default_md = sha256
default_days = 2
default_crl_days = 2
policy = any
unique_subject = no
copy_extensions = copy
[any]
organizationName = optional
commonName = supplied
"""
KEY = ("-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")


class Authority:
    """An authority in a folder of its own: ca.pem, ca.crl, and what it has signed as NAME.pem and NAME.key."""

    def __init__(self, folder: Path, name: str = "good") -> None:
        self.folder = folder / name
        self.folder.mkdir()
        (self.folder / "ca.cnf").write_text(CONFIG)
        (self.folder / "index").write_text("")
        for number in ("serial", "crlnumber"):
            (self.folder / number).write_text("1000\n")
        about = ("-subj", f"/CN=test authority {name}", "-days", "30")
        self._openssl("req", "-x509", *KEY, *about, "-keyout", "ca.key", "-out", "ca.pem")
        self.list_revoked()

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def crl(self) -> Path:
        return self.folder / "ca.crl"

    def sign(self, file: str, name: str, *hosts: str, begin: float = -1, end: float = 2) -> tuple[Path, Path]:
        """Certificate and key for a common name and host names; `begin` and `end` in days from now."""
        san = ("-addext", "subjectAltName=" + ",".join(hosts)) if hosts else ()
        self._openssl("req", *KEY, "-subj", f"/CN={name}", *san, "-keyout", f"{file}.key", "-out", f"{file}.csr")
        dates = ("-startdate", _date(begin), "-enddate", _date(end))
        self._openssl(
            "ca", "-config", "ca.cnf", "-batch", "-notext", *dates, "-in", f"{file}.csr", "-out", f"{file}.pem"
        )
        return self.folder / f"{file}.pem", self.folder / f"{file}.key"

    def revoke(self, file: str) -> None:
        self._openssl("ca", "-config", "ca.cnf", "-revoke", f"{file}.pem")
        self.list_revoked()

    def list_revoked(self, end: float = 2) -> None:
        """Write ca.crl anew; `end` in days from now."""
        dates = ("-crl_lastupdate", _date(-3), "-crl_nextupdate", _date(end))
        self._openssl("ca", "-config", "ca.cnf", "-gencrl", *dates, "-out", "ca.crl")

    def _openssl(self, *arguments: str) -> None:
        done = subprocess.run(["openssl", *arguments], cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def _date(days: float) -> str:
    return (datetime.now(UTC) + timedelta(days=days)).strftime("%Y%m%d%H%M%SZ")
