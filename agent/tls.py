"""This file knows TLS as Tillwire uses it: always verified, with the reason kept when the other side hangs up, and
with certificates that are renewed while we run.
"""

import select
import ssl
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from agent.config import Tls
from agent.lines.nodes import not_regular

DAYS_LEFT = 30
"""Days before its end at which a certificate is to be renewed: as long as a terminal may be offline."""

_Seen = tuple[tuple[int, int, int] | None, ...]


class Line(ssl.SSLSocket):
    """A TLS connection that keeps the error of reading: paho tells nothing of it but that there was one."""

    refused: ssl.SSLError | None = None

    def await_verdict(self, patience: float) -> None:
        """Let the other side say, within `patience` seconds, that it does not take our certificate.

        With TLS 1.3 that comes only after our handshake is done, and what we had sent by then would make a broker
        that hangs up reset the line, and the reason be lost. Most that accept us send a session ticket: no waiting.
        """
        if self.version() == "TLSv1.3":
            watch = select.poll()
            watch.register(self, select.POLLIN)
            watch.poll(patience * 1000)
            with suppress(OSError):
                self.recv(1)

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        try:
            return super().recv(buflen, flags)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            self.refused = error
            raise


def context(tls: Tls) -> ssl.SSLContext:
    """Verified TLS; there is no way here to switch verification off.

    With `crl` the other side's certificate must also be on no list of revoked ones, and the list must be in date.
    Raises OSError when a file cannot be used.
    """
    for _, file in tls:
        if file is not None and (sentence := not_regular(file)):
            raise OSError(sentence)
    made = ssl.create_default_context(cafile=str(tls.ca))
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.sslsocket_class = Line
    if tls.crl:
        made.load_verify_locations(cafile=str(tls.crl))
        made.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
    if tls.certificate:
        made.load_cert_chain(str(tls.certificate), str(tls.key) if tls.key else None)
    return made


class Credentials:
    """The files of a `tls` table over the life of the agent.

    New files are used at the next connection. Should they be no good, the last ones that were are still in memory.
    """

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._good: tuple[_Seen, ssl.SSLContext] | None = None
        self._taken: tuple[_Seen, ssl.SSLContext] | None = None
        self._bad: _Seen | None = None

    def context(self) -> ssl.SSLContext:
        """For the next connection: the files as they are now, or those that worked when these are known not to.

        Raises OSError when the files cannot be used and none has worked yet.
        """
        seen = self._seen()
        if self._good and seen in (self._good[0], self._bad):
            self._taken = self._good
        else:
            try:
                self._taken = (seen, context(self._tls))
            except OSError:
                self._bad = seen
                if self._good is None:
                    raise
                self._taken = self._good
        return self._taken[1]

    def fresh(self) -> ssl.SSLContext | None:
        """When there are new files that have not been found bad: a context of them, else None.

        Raises OSError when they cannot be used; they are then left alone until they change again.
        """
        seen = self._seen()
        if seen == self._bad or (self._taken and seen == self._taken[0]):
            return None
        self._bad = seen
        return context(self._tls)

    def worked(self) -> None:
        """The broker accepted us with what `context` gave last."""
        self._good = self._taken

    def failed(self) -> None:
        """TLS came to nothing with what `context` gave last."""
        if self._taken and self._taken is not self._good:
            self._bad = self._taken[0]
        self._good = None if self._taken is self._good else self._good

    def acquit(self) -> None:
        """What `fresh` gave last has passed its trial, or there was none: the next connection may use it."""
        self._bad = None

    def changed(self) -> bool:
        """Whether there are new files that nobody has tried yet."""
        return self._seen() not in (self._bad, self._taken[0] if self._taken else None)

    def until(self) -> int:
        """When this terminal's certificate ends, in milliseconds since 1970; 0 without one that can be read."""
        try:
            return round(ends(self._tls.certificate) * 1000) if self._tls.certificate else 0
        except (OSError, ValueError):
            return 0

    def _seen(self) -> _Seen:
        """What tells a file from its successor."""
        return tuple(_stat(path) for _, path in self._tls if path is not None)


def _stat(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def ends(certificate: Path) -> float:
    """When the first certificate of a PEM file ends, in seconds since 1970.

    Raises OSError when the file cannot be read, ValueError when there is no certificate in it. The standard library
    shows the dates of the other side's certificate only, so here are the steps to the field `validity` (RFC 5280,
    section 4.1): certificate, its first part, and of that the fifth item after an optional version.
    """
    text = certificate.read_text("ascii", "replace")
    start, stop = text.find("-----BEGIN CERTIFICATE-----"), text.find("-----END CERTIFICATE-----")
    if start < 0 or stop < start:
        raise ValueError(f"{certificate} holds no certificate")
    der = ssl.PEM_cert_to_DER_cert(text[start : stop + len("-----END CERTIFICATE-----")])
    try:
        body = _items(_items(_items(der)[0][1])[0][1])
        tag, after = _items(body[4 if body[0][0] == 0xA0 else 3][1])[1]
    except IndexError as error:
        raise ValueError(f"{certificate} holds no certificate") from error
    form = "%y%m%d%H%M%SZ" if tag == 0x17 else "%Y%m%d%H%M%SZ"
    return datetime.strptime(after.decode("ascii"), form).replace(tzinfo=UTC).timestamp()


def days_left(certificate: Path) -> float:
    """Days until a certificate ends; raises as `ends` does."""
    return (ends(certificate) - time.time()) / 86400


def _items(der: bytes) -> list[tuple[int, bytes]]:
    """The (tag, content) pairs that DER consists of, in their order. Raises ValueError when it is cut short."""
    found: list[tuple[int, bytes]] = []
    at = 0
    while at < len(der):
        head = der[at : at + 2]
        long = head[1] & 0x7F if len(head) == 2 and head[1] & 0x80 else 0
        size = int.from_bytes(der[at + 2 : at + 2 + long]) if long else head[-1]
        begin = at + 2 + long
        if len(head) < 2 or begin + size > len(der):
            raise ValueError("the certificate is cut short")
        found.append((head[0], der[begin : begin + size]))
        at = begin + size
    return found
