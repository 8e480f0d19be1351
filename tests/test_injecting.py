"""Giving a clear key to a legacy pad: what goes over the wire, and every way in which a pad says no.

The pads here are written from protocols.md 5.1 and 5.2, not from injecting.py; the simulated ones of hwsim take no
clear keys outside a laboratory.
"""

import os
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce
from itertools import count
from operator import xor
from pathlib import Path

import pytest
from Crypto.Cipher import DES3

from agent.crypto.injecting import Injector
from agent.crypto.secret import Secret
from agent.errors import KeyRefused, LinkError
from tests.custody import MAY_LOCK, Custodians, found_in

SINGLE = bytes.fromhex("0123456789ABCDEF")
DOUBLE = bytes.fromhex("3D1F4C8A92E657B0C4D93B6E810F7A25")
FRAME = bytes.fromhex("0F 30 32 30 30 31 32 33 34 35 36 37 38 39 41 42 43 44 45 46 0E 3A")
"""Packet 02 with SINGLE for slot 0, as protocols.md prints it."""


def lrc(data: bytes) -> bytes:
    return bytes((reduce(xor, data, 0),))


def even(data: bytes) -> bytes:
    return bytes(b | b.bit_count() % 2 << 7 for b in data)


class Ipp:
    """A VeriFone IPP. fault: what it does wrong; it does so `often` times."""

    def __init__(self, fault: str = "", often: int = 99) -> None:
        self.fault, self.often = fault, often
        self.slots: dict[str, str] = {}
        self.offered: tuple[str, str] | None = None
        self.said = b""
        self.frames: list[bytes] = []

    def hears(self, raw: bytes) -> bytes:
        data = bytes(b & 0x7F for b in raw)
        assert even(data) == raw, "wrong parity"
        self.frames.append(data)
        wrong = self.fault if self.often > 0 else ""
        if data == b"\x06":
            if self.offered:
                self.slots[self.offered[0]] = "" if wrong == "forgets" else self.offered[1]
                self.offered = None
            return even(b"\x04")
        if data == b"\x15":
            self.often -= 1
            return self._say(self.said)
        if data == b"\x04":
            self.offered = None
            return b""
        text = data[1:-2].decode()
        assert (data[0], data[-2], lrc(data[1:-1])) == (0x0F, 0x0E, data[-1:])
        if wrong == "naks":
            self.often -= 1
            return even(b"\x15")
        if wrong == "ends":
            return even(b"\x04")
        if wrong == "silent":
            return b""
        if text.startswith("02"):
            assert len(text) == 19
            self.offered = text[2], text[3:]
            echo = text if wrong != "other" else text[:-1] + "0"
            return even(b"\x06") + self._say(self._packet(echo))
        return even(b"\x06") + self._say(self._packet("04F" if self.slots.get(text[2]) else "040"))

    def _packet(self, text: str) -> bytes:
        return b"\x0f" + text.encode() + b"\x0e" + lrc(text.encode() + b"\x0e")

    def _say(self, packet: bytes) -> bytes:
        self.said = packet
        damaged = self.fault == "damages" and self.often > 0
        return even(packet[:-1] + bytes((packet[-1] ^ 1,)) if damaged else packet)


class Zt588:
    """A ZT588. error: what it answers with; digits: how many of the check value it tells."""

    def __init__(self, error: int = 0, digits: int = 16, broken: bool = False, key: bytes = b"") -> None:
        self.error, self.digits, self.broken, self.other = error, digits, broken, key
        self.keys: dict[str, bytes] = {}

    def hears(self, frame: bytes) -> bytes:
        size = int(frame[1:4])
        text = frame[4 : 4 + size]
        assert (frame[0], frame[4 + size]) == (2, 3)
        assert int(frame[-2:], 16) == lrc(frame[1:-2])[0]
        assert text[:1] == b"1"
        index, kind, length, key = text[1:3], text[3:4], int(text[4:5]), bytes.fromhex(text[5:].decode())
        assert len(key) == 8 * (length + 1)
        if self.error:
            return self._frame(bytes((self.error,)))
        self.keys[f"{index.decode()} {kind.decode()}"] = key
        value = DES3.new(self.other or key, DES3.MODE_ECB).encrypt(bytes(8)).hex().upper()[: self.digits].encode()
        if self.broken:
            value = value.translate(bytes.maketrans(b"ABCDEF", b":;<=>?"))
        return b"5" + self._frame(b"0" + value)

    def _frame(self, text: bytes) -> bytes:
        body = b"%03d" % len(text) + text + b"\x03"
        return b"\x02" + body + b"%02X" % lrc(body)[0]


class Wire:
    """A pad on a line that gives one byte at a time. `sent`: all that went to the pad."""

    def __init__(self, pad: Ipp | Zt588) -> None:
        self.pad, self.sent, self._coming = pad, b"", b""

    def write(self, data: bytes) -> None:
        self.sent += data
        self._coming += self.pad.hears(data)

    def read(self) -> bytes:
        byte, self._coming = self._coming[:1], self._coming[1:]
        return byte


def injector(pad: Ipp | Zt588, parity: str = "even") -> tuple[Injector, Wire]:
    wire, ticks = Wire(pad), count()
    return Injector(wire, parity, lambda: next(ticks) / 100), wire


def test_an_ipp_gets_the_packet_of_the_page_and_keeps_the_key() -> None:
    pad = Ipp()
    injector(pad)[0].ipp(Secret(SINGLE), 0)
    assert pad.frames[0] == FRAME
    assert pad.slots == {"0": SINGLE.hex().upper()}
    assert pad.frames[1:] == [b"\x06", bytes.fromhex("0F 30 34 30 0E 3A"), b"\x06"]


@pytest.mark.parametrize("fault", ["naks", "damages"])
def test_an_ipp_that_misheard_is_told_again(fault: str) -> None:
    pad = Ipp(fault, often=2)
    injector(pad)[0].ipp(Secret(SINGLE), 7)
    assert pad.slots == {"7": SINGLE.hex().upper()}


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("naks", "speed and parity"),
        ("damages", "damaged"),
        ("ends", "another mode"),
        ("other", "keeps the old one"),
        ("forgets", "out of service"),
        ("silent", "says nothing"),
    ],
)
def test_an_ipp_that_fails_is_told_with_what_to_do(fault: str, why: str) -> None:
    pad = Ipp(fault)
    with pytest.raises((KeyRefused, LinkError), match=why) as refused:
        injector(pad)[0].ipp(Secret(SINGLE), 0)
    assert not pad.slots.get("0")
    assert not found_in(str(refused.value).encode(), SINGLE)
    if fault == "other":
        assert pad.frames[-1] == b"\x04"


def test_an_ipp_takes_no_longer_key() -> None:
    pad = Ipp()
    with pytest.raises(KeyRefused, match="single-length"):
        injector(pad)[0].ipp(Secret(DOUBLE), 0)
    assert not pad.frames


@pytest.mark.parametrize("digits", [6, 8, 16])
@pytest.mark.parametrize("broken", [False, True])
def test_a_zt588_is_believed_by_its_check_value(digits: int, broken: bool) -> None:
    pad = Zt588(digits=digits, broken=broken)
    load, wire = injector(pad, "none")
    load.zt588(Secret(DOUBLE), 0x80, 1)
    assert pad.keys == {"80 1": DOUBLE}
    assert wire.sent == b"\x02037180113D1F4C8A92E657B0C4D93B6E810F7A25\x03" + b"%02X" % lrc(wire.sent[1:-2])[0]


@pytest.mark.parametrize(
    ("pad", "why"),
    [
        (Zt588(error=0xEC), "EC: it wants to be authorised"),
        (Zt588(error=0xE9), "E9: its maker knows"),
        (Zt588(key=DOUBLE[::-1]), "does not say the key's check value"),
        (Zt588(digits=4), "does not say the key's check value"),
    ],
)
def test_a_zt588_that_fails_is_told_with_what_to_do(pad: Zt588, why: str) -> None:
    with pytest.raises(KeyRefused, match=why) as refused:
        injector(pad, "none")[0].zt588(Secret(DOUBLE), 0, 2)
    assert not found_in(str(refused.value).encode(), DOUBLE)


def test_a_line_full_of_rubbish_ends_with_silence() -> None:
    class Rubbish:
        def write(self, data: bytes) -> None: ...

        def read(self) -> bytes:
            return os.urandom(50)

    ticks = count()
    for parity in ("even", "none"):
        pad = Injector(Rubbish(), parity, lambda: next(ticks) / 10)
        with pytest.raises((KeyRefused, LinkError)):
            pad.zt588(Secret(DOUBLE), 0, 2)
        with pytest.raises((KeyRefused, LinkError)):
            pad.ipp(Secret(SINGLE), 0)


# the real command over a real port


@contextmanager
def plugged_in(pad: Ipp | Zt588, whole: Callable[[bytes], int]) -> Iterator[str]:
    """The pad at a serial port; gives the port's name. whole: length of the first message, or 0."""
    ours, port = os.openpty()
    tty.setraw(port)

    def serve() -> None:
        heard = b""
        try:
            while True:
                heard += os.read(ours, 4096)
                while size := whole(heard):
                    os.write(ours, pad.hears(heard[:size]))
                    heard = heard[size:]
        except OSError:
            return  # unplugged

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield os.ttyname(port)
    finally:
        os.close(port)
        thread.join(5)
        os.close(ours)


def ipp_message(heard: bytes) -> int:
    if heard[:1] and heard[0] & 0x7F != 0x0F:
        return 1
    end = bytes(b & 0x7F for b in heard).find(b"\x0e")
    return end + 2 if 0 <= end <= len(heard) - 2 else 0


def zt588_message(heard: bytes) -> int:
    size = int(heard[1:4]) + 7 if len(heard) >= 4 else 0
    return size if len(heard) >= size else 0


PARTS = ("9E3B60D5147FA82C", "52C8A1F60BD4937E")
LONG_PARTS = ("3D1F4C8A92E657B0C4D93B6E810F7A25", "7AE5D03C18F92B64915EC7A2F4680BD3")


def odd(key: bytes) -> bytes:
    return bytes(byte ^ (byte.bit_count() + 1) % 2 for byte in key)


def whole_key(parts: tuple[str, str]) -> bytes:
    return odd(bytes(a ^ b for a, b in zip(*map(bytes.fromhex, parts), strict=True)))


@MAY_LOCK
def test_custodians_load_an_ipp_over_a_port(tmp_path: Path) -> None:
    pad = Ipp()
    with plugged_in(pad, ipp_message) as port:
        room = Custodians(
            tmp_path, "inject", port, "pin_pad", "--slot", "3", "--single", "--digits", "16", "--legacy", "--json"
        )
        room.serve(*PARTS)
        assert room.close() == 0, room.shown
    assert pad.slots == {"3": whole_key(PARTS).hex().upper()}
    assert "says that it has one" in room.record["proof"]
    assert not found_in((room.shown + room.stdout).encode(), whole_key(PARTS))


@MAY_LOCK
def test_custodians_load_a_zt588_over_a_port(tmp_path: Path) -> None:
    pad = Zt588()
    with plugged_in(pad, zt588_message) as port:
        room = Custodians(tmp_path, "inject", port, "epp", "--slot", "0A", "--type", "2", "--legacy", "--json")
        room.serve(*LONG_PARTS)
        assert room.close() == 0, room.shown
    assert pad.keys == {"0A 2": whole_key(LONG_PARTS)}


@MAY_LOCK
def test_a_pad_that_refuses_leaves_no_record(tmp_path: Path) -> None:
    with plugged_in(Zt588(error=0xE1), zt588_message) as port:
        room = Custodians(tmp_path, "inject", port, "epp", "--slot", "0A", "--legacy")
        room.serve(*LONG_PARTS)
        assert room.close() == 1
    assert "E1" in room.shown
    assert not room.stdout


@MAY_LOCK
def test_a_port_that_is_not_there_is_told_before_anybody_types(tmp_path: Path) -> None:
    room = Custodians(tmp_path, "inject", str(tmp_path / "none"), "epp", "--slot", "0A", "--legacy")
    assert room.close() == 3
    assert "is not there" in room.shown
    assert "name:" not in room.shown
