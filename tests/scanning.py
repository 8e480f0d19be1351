"""A search for secrets in bytes: memory, core dumps, files, traffic; in every form in which one could stand there.

`forms` spells a secret in every way; tests plant those. `Search` looks for it in another way, so that neither
vouches for itself: it brings bytes, hex and Base64 into one shape each, and looks there for any piece of a secret,
8 bytes or 12 hex digits. A secret of 16 bytes has several pieces, so what is cut is found too.
What is found is told by name and place and never by value.

What it does not find: a secret that is encrypted, compressed, or XORed with something.
"""

import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import threading
import zlib
from base64 import b64encode, urlsafe_b64encode
from binascii import a2b_base64
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

CHUNK, OVERLAP = 1 << 18, 1 << 10
PIECE, DIGITS = 8, 12
_NO_PARITY = bytes(byte & 0xFE for byte in range(256))
_FOR_URLS = bytes.maketrans(b"-_", b"+/")
_BETWEEN = b"\0 :.,\t\r\n-"
"""What stands between hex digits: separators, and the zeros of characters of 16 and 32 bits."""
_HEX = re.compile(rb"[0-9A-Fa-f]{%d,}" % DIGITS)
_BASE64 = re.compile(rb"[A-Za-z0-9+/]{10,}")
Name = tuple[str, str]
"""Which secret, and how it is written."""
Piece = tuple[str, bytes]
"""Where it comes from, and the bytes."""


def odd(key: bytes) -> bytes:
    """A key with the parity that DES keys have."""
    return bytes(b & 0xFE | (1 - (b & 0xFE).bit_count() % 2) for b in key)


def forms(secret: str) -> dict[str, bytes]:
    """Every spelling of a secret given in hex: its name -> the bytes."""
    raw = bytes.fromhex(secret)
    adjusted = odd(raw)
    found: dict[str, bytes] = {}
    for parity, key in {"": raw, "odd ": adjusted, "even ": bytes(b ^ 1 for b in adjusted)}.items():
        found[parity + "raw"] = key
        found[parity + "reversed"] = key[::-1]
        found[parity + "escaped"] = repr(key)[2:-1].encode()
        found[parity + "json"] = json.dumps(key.decode("latin-1"))[1:-1].encode()
        found[parity + "list"] = str(list(key))[1:-1].encode()
        for order in ("big", "little"):
            found[f"{parity}int {order}"] = _python_int(int.from_bytes(key, "big" if order == "big" else "little"))
        for case, text in {"HEX": key.hex().upper(), "hex": key.hex()}.items():
            found[parity + case] = text.encode()
            for code in ("utf-16-le", "utf-16-be", "utf-32-le"):
                found[f"{parity}{case} {code}"] = text.encode(code)
            pairs = [text[at : at + 2] for at in range(0, len(text), 2)]
            found[f"{parity}{case} as a list"] = ", ".join(f"0x{pair}" for pair in pairs).encode()
            found[f"{parity}{case} all escaped"] = "".join(f"\\x{pair}" for pair in pairs).encode()
            for size in (2, 4, 8):
                for name, between in (("blanks", " "), ("colons", ":"), ("lines", "\n")):
                    rows = between.join(text[at : at + size] for at in range(0, len(text), size))
                    found[f"{parity}{case} by {size} with {name}"] = rows.encode()
            for shift in range(3):
                found[f"{parity}Base64 of {case} {shift}"] = b64encode(b"x" * shift + text.encode())
        for shift in range(3):
            found[f"{parity}Base64 {shift}"] = b64encode(b"x" * shift + key)
            found[f"{parity}Base64 for URLs {shift}"] = urlsafe_b64encode(b"x" * shift + key)
    return found


def _python_int(number: int) -> bytes:
    """How Python keeps a number in memory: digits of 30 bits, the least first, in 4 bytes each."""
    digits = []
    while number:
        digits.append((number & 0x3FFF_FFFF).to_bytes(4, "little"))
        number >>= 30
    return b"".join(digits)


@dataclass(frozen=True, slots=True)
class Find:
    """A secret, or a piece of it: which one, how it is written, and where."""

    name: str
    form: str
    where: str


class Search:
    """Looks for secrets: name -> hex."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self._raw: dict[bytes, Name] = {}
        self._masked: dict[bytes, Name] = {}
        self._hex: dict[bytes, Name] = {}
        self._known: dict[bytes, list[Name]] = {}
        for name, secret in secrets.items():
            for form, spelled in forms(secret).items():
                kind = form.removeprefix("odd ").removeprefix("even ")
                if kind in ("raw", "reversed"):
                    bare = spelled.translate(_NO_PARITY)
                    for at in range(0, len(bare) - PIECE + 1, 2 if kind == "raw" else PIECE):
                        self._masked[bare[at : at + PIECE]] = name, kind
                elif kind == "HEX":
                    for at in range(len(spelled) - DIGITS + 1):
                        self._hex[spelled[at : at + DIGITS]] = name, "hex"
                elif kind.startswith("int"):
                    self._raw[spelled[:PIECE]] = name, "int"
                elif kind in ("escaped", "json", "list"):
                    self._raw[spelled] = name, kind

    def finds(self, pieces: Iterable[Piece]) -> list[Find]:
        """Everything that is found, each secret and form once for each place."""
        finds = (Find(*name, where) for where, data in pieces for name in self._look(data))
        return list(dict.fromkeys(finds))

    def _look(self, data: bytes) -> list[Name]:
        # Two looks at one process see the same bytes for the most part.
        digest = sha256(data).digest()
        if digest not in self._known:
            self._known[digest] = sorted(self._search(data)) if data.strip(b"\0") else []
        return self._known[digest]

    def _search(self, data: bytes) -> set[Name]:
        found = _in(data, self._raw) | self._plain(data)
        # Runs of Base64 letters, one after the other: where in a group of four one begins, is tried.
        letters = b"".join(_BASE64.findall(data.translate(_FOR_URLS, b"\0\r\n"))) + b"AAA"
        for at in range(4):
            group = letters[at : at + (len(letters) - at) // 4 * 4]
            found |= {(secret, f"Base64 of {form}") for secret, form in self._plain(a2b_base64(group))}
        return found

    def _plain(self, data: bytes) -> set[Name]:
        """What is found as bytes, of any parity, and as hex."""
        digits = data.replace(b"0x", b"").replace(b"\\x", b"").translate(None, _BETWEEN)
        runs = b"\n".join(_HEX.findall(digits)).upper()
        return _in(data.translate(_NO_PARITY), self._masked) | _in(runs, self._hex)


def _in(data: bytes, wanted: Mapping[bytes, Name]) -> set[Name]:
    return {name for spelled, name in wanted.items() if spelled in data}


def chunks(where: str, data: bytes) -> Iterator[Piece]:
    """Bytes in pieces that overlap, so that nothing is hidden by a border."""
    for at in range(0, max(1, len(data)), CHUNK):
        yield where, data[at : at + CHUNK + OVERLAP]


def carried(where: str, data: bytes) -> Iterator[Piece]:
    """What a line carried, as it was sent and inflated."""
    for part in (data, *inflated(data)):
        yield from chunks(where, part)


def inflated(data: bytes) -> Iterator[bytes]:
    """What was deflated (RFC 1950) anywhere in it: rows that share a message are, and would hide what they tell."""
    for at in range(len(data) - 1):
        first, second = data[at], data[at + 1]
        if first & 0x0F == 8 and first < 0x80 and not second & 0x20 and (first << 8 | second) % 31 == 0:
            stream = zlib.decompressobj()
            with suppress(zlib.error):
                found = stream.decompress(data[at : at + 100_000])
                if stream.eof:
                    yield found


def memory(pid: int) -> list[Piece]:
    """All that can be read of a process's memory, while it stands still."""
    os.kill(pid, signal.SIGSTOP)
    try:
        with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as mem:
            return [piece for line in maps for piece in _region(line.split(), mem.fileno())]
    finally:
        os.kill(pid, signal.SIGCONT)


def _region(line: list[str], mem: int) -> Iterator[Piece]:
    name = line[5] if len(line) > 5 else "anonymous"
    if not line[1].startswith("r") or name in ("[vvar]", "[vvar_vclock]", "[vsyscall]"):
        return
    start, end = (int(number, 16) for number in line[0].split("-"))
    yield from chunks(
        f"memory {name}", b"".join(_read(mem, at, min(CHUNK, end - at)) for at in range(start, end, CHUNK))
    )


def _read(mem: int, at: int, size: int) -> bytes:
    """Of pages that a file has no bytes for, nothing."""
    try:
        return os.pread(mem, size, at)
    except OSError:
        step = resource.getpagesize()
        return b"" if size <= step else b"".join(_read(mem, at + n, step) for n in range(0, size, step))


def files(*paths: Path) -> Iterator[Piece]:
    """Files, and those below folders, as they are now."""
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                yield from chunks(f"file {file.name}", file.read_bytes())


def core(pid: int, folder: Path, end: Callable[[signal.Signals], object]) -> Path | None:
    """Let a process die as of a bad memory access, and return its core dump; None where this machine gives core
    dumps to another program and has no gdb. folder: where it works. end: sends a signal, waits for its death."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    if pattern.startswith("|") or "/" in pattern:
        if not shutil.which("gcore"):
            return None
        subprocess.run(["gcore", "-o", str(folder / "core"), str(pid)], check=True, capture_output=True)
    resource.prlimit(pid, resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    end(signal.SIGSEGV)
    return next(iter(sorted(folder.glob("core*"))))


class Capture:
    """What goes over a TCP line both ways: a relay to a port of this machine, which writes down every byte."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self.sent, self.received = bytearray(), bytearray()
        threading.Thread(target=self._serve, daemon=True).start()

    def pieces(self) -> Iterator[Piece]:
        """What was captured so far."""
        yield from carried("traffic sent", bytes(self.sent))
        yield from carried("traffic received", bytes(self.received))

    def close(self) -> None:
        """Take no further connection."""
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _serve(self) -> None:
        while True:
            try:
                here, _ = self._server.accept()
            except OSError:
                return  # closed
            try:
                there = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                here.close()  # nobody is there: neither are we
                continue
            for one, other, kept in ((here, there, self.sent), (there, here, self.received)):
                threading.Thread(target=_relay, args=(one, other, kept), daemon=True).start()


def _relay(source: socket.socket, target: socket.socket, kept: bytearray) -> None:
    try:
        while data := source.recv(65536):
            kept += data
            target.sendall(data)
    except OSError:
        pass  # one side is gone: so is the other
    for line in (source, target):
        try:
            line.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue
