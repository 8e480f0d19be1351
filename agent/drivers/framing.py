"""This file knows how to cut a byte stream into frames: one deframer with a hard limit, and the checksums.

A protocol brings one pure function, `measure`, that looks at the bytes collected so far and says what
stands at their beginning. After a bad frame the deframer moves on by a single byte, so that whatever good
frame hides in or behind the damage is still found.
"""

from collections.abc import Callable
from functools import reduce
from operator import xor

MORE = 0
BAD = -1

Measure = Callable[[bytes], int]
"""Length of the good frame at the start of the buffer, MORE (cannot tell yet) or BAD (no frame starts here)."""


class Deframer:
    """Collects bytes and hands out whole frames.

    limit  the most bytes ever kept. A `measure` that still wants more at the limit is taken for BAD.
    gap    seconds of silence after which an unfinished frame is given up; 0 means never.

    `bad` counts damaged stretches: a run of skipped bytes is one, however long; `skipped` counts the bytes.
    """

    def __init__(self, measure: Measure, limit: int, gap: float = 0.0) -> None:
        self._measure = measure
        self._limit = limit
        self._gap = gap
        self._buffer = b""
        self._last = 0.0
        self._in_bad_run = False
        self.bad = 0
        self.skipped = 0

    @property
    def kept(self) -> int:
        """Bytes of an unfinished frame."""
        return len(self._buffer)

    def feed(self, data: bytes, now: float) -> list[bytes]:
        """The whole frames that `data` completes, in order. Any slicing of a stream gives the same frames."""
        frames = self.expire(now)
        if data:
            self._last = now
        return frames + self._cut(data)

    def expire(self, now: float) -> list[bytes]:
        """Give up an unfinished frame whose line has been silent for longer than the gap.

        Returns the frames that hid behind its beginning: a damaged head may have asked for more than there was.
        """
        frames: list[bytes] = []
        if self._gap and now - self._last > self._gap:
            while self._buffer:
                self._skip()
                frames += self._cut(b"")
            self._in_bad_run = False
        return frames

    def drop(self) -> None:
        """Forget an unfinished frame; it counts as damage."""
        while self._buffer:
            self._skip()
        self._in_bad_run = False

    def _cut(self, data: bytes) -> list[bytes]:
        frames: list[bytes] = []
        at = 0
        while True:
            piece = data[at : at + self._limit - len(self._buffer)]
            at += len(piece)
            self._buffer += piece
            if not self._buffer:
                return frames
            size = self._measure(self._buffer)
            if size > 0:
                frames.append(self._buffer[:size])
                self._buffer = self._buffer[size:]
                self._in_bad_run = False
            elif size == BAD or len(self._buffer) >= self._limit:
                self._skip()
            else:
                return frames

    def _skip(self) -> None:
        if not self._in_bad_run:
            self.bad += 1
        self._in_bad_run = True
        self.skipped += 1
        self._buffer = self._buffer[1:]


def xor_of(data: bytes) -> int:
    """The block check character of most serial devices: XOR of all bytes (BCC, LRC)."""
    return reduce(xor, data, 0)


class Records:
    """Messages of several channels as one stream of bytes, for media that carry messages (websockets).

        1E act channel 1F text 1D

    act is "o" (the channel is open), "t" (a message), or "c" (it is closed; the text tells why). JSON holds none of
    these three control characters, and whoever writes a record takes them out of anything else.

    limit  the most bytes of one record; a longer one is skipped and counted in `bad`, as is a damaged one
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._lost = False
        self.bad = 0
        self.skipped = 0

    @property
    def kept(self) -> int:
        """Bytes of an unfinished record."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[tuple[str, str, bytes]]:
        """The (act, channel, text) of each record that `data` completes, in order."""
        *whole, rest = data.split(b"\x1d")
        records = []
        for piece in whole:
            self._keep(piece)
            record, self._lost = None if self._lost else _record(bytes(self._buffer)), False
            if record is None:
                self.bad += 1
                self.skipped += len(self._buffer) + 1
            else:
                records.append(record)
            self._buffer.clear()
        self._keep(rest)
        return records

    def _keep(self, piece: bytes) -> None:
        room = self._limit - len(self._buffer)
        if len(piece) > room:
            self.skipped += len(piece) + len(self._buffer)
            self._lost = True
            self._buffer.clear()
        else:
            self._buffer += piece


def _record(data: bytes) -> tuple[str, str, bytes] | None:
    # What stands before the last 1E is the rest of a record that was cut.
    head, mark, text = data[data.rfind(b"\x1e") + 1 :].partition(b"\x1f")
    if b"\x1e" not in data or not mark or head[:1] not in (b"o", b"t", b"c"):
        return None
    return chr(head[0]), head[1:].decode("utf-8", "replace"), text


def record(act: str, channel: str, text: bytes = b"") -> bytes:
    """The bytes of one record; see Records."""
    clean = text.translate(None, b"\x1d\x1e\x1f")
    return b"\x1e" + act.encode() + channel.encode() + b"\x1f" + clean + b"\x1d"
