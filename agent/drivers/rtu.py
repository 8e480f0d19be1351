"""This file knows Modbus RTU frames as the master of a line sees them, and which reads fetch given places.

    read      slave FC(01 02 03 04) first(2) count(2) CRC    ->  slave FC bytes data CRC
    switch    slave 05 coil(2) FF00|0000 CRC                 ->  the same frame
    refusal                                                  ->  slave FC+80 code CRC

Inputs come eight to a byte, the first in its lowest bit; a register is two bytes, the high one first. The CRC
(polynomial A001, start FFFF) travels low byte first. A frame ends with 3.5 characters of silence.

Source: "MODBUS Application Protocol Specification V1.1b3", sections 4.2, 6.1 to 6.5, 7; "MODBUS over Serial Line
Specification and Implementation Guide V1.02", sections 2.4 and 2.5.1.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from agent.drivers.framing import BAD, MORE, Measure

LIMIT = 256
COILS, INPUTS, HOLDING, REGISTERS = 1, 2, 3, 4
SWITCH = 5
REFUSED = 0x80
NAMES = {COILS: "coil", INPUTS: "input", HOLDING: "holding register", REGISTERS: "input register"}
BIT_FUNCTIONS, WORD_FUNCTIONS = (INPUTS, COILS), (REGISTERS, HOLDING)
MOST_BITS, MOST_WORDS = 2000, 125

# code: (word of device.error, what a person can do about it)
CODES = {
    0x01: ("software", "it has no such function: look at `function` in the configuration"),
    0x02: ("software", "it has no such address: look at `at`, and set bridge = 0 if its addresses have gaps"),
    0x03: ("software", "it does not take such a number: look at the map in its manual"),
    0x04: ("hardware", "it failed: switch it off and on; if this stays, replace it"),
    0x08: ("hardware", "its memory is damaged: replace it"),
    0x0A: ("hardware", "the gateway does not reach it: look at the gateway's settings"),
    0x0B: ("hardware", "the gateway gets no answer from it: is it switched on, is its address right?"),
}
BUSY = frozenset({0x05, 0x06})
NOBODY = frozenset({0x0A, 0x0B})
"""A gateway answers for a slave that it cannot reach."""


def checksum(data: bytes) -> bytes:
    """The two CRC bytes of a frame; over a whole good frame they are zero."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc.to_bytes(2, "little")


def switch(slave: int, coil: int, on: bool) -> bytes:
    """The frame that switches a coil; the slave answers with the same."""
    body = bytes((slave, SWITCH)) + coil.to_bytes(2, "big") + (b"\xff\x00" if on else b"\x00\x00")
    return body + checksum(body)


@dataclass(frozen=True, slots=True)
class Block:
    """Neighbouring places of a slave, fetched by one read."""

    function: int
    first: int
    count: int

    def __str__(self) -> str:
        name, last = NAMES[self.function], self.first + self.count - 1
        return f"{name} {self.first}" if self.count == 1 else f"{name}s {self.first} to {last}"

    def request(self, slave: int) -> bytes:
        """The frame that asks for it."""
        body = bytes((slave, self.function)) + self.first.to_bytes(2, "big") + self.count.to_bytes(2, "big")
        return body + checksum(body)

    def values(self, frame: bytes) -> dict[tuple[int, int], int] | None:
        """(function, place) -> number; None when the frame is no answer to this request."""
        data = frame[3:-2]
        if frame[1] != self.function or len(data) != self._bytes():
            return None
        if self.function in BIT_FUNCTIONS:
            numbers = [data[i // 8] >> i % 8 & 1 for i in range(self.count)]
        else:
            numbers = [data[2 * i] << 8 | data[2 * i + 1] for i in range(self.count)]
        return {(self.function, self.first + i): number for i, number in enumerate(numbers)}

    def _bytes(self) -> int:
        return (self.count + 7) // 8 if self.function in BIT_FUNCTIONS else 2 * self.count


def plan(places: Iterable[tuple[int, int]], bridge: int) -> list[Block]:
    """The fewest reads that fetch all (function, place); up to `bridge` places between two are read along."""
    blocks: list[Block] = []
    for function, place in sorted(set(places)):
        most = MOST_BITS if function in BIT_FUNCTIONS else MOST_WORDS
        last = blocks[-1] if blocks else None
        if last and last.function == function:
            count = place - last.first + 1
            if count <= min(most, last.count + bridge + 1):
                blocks[-1] = Block(function, last.first, count)
                continue
        blocks.append(Block(function, place, 1))
    return blocks


def measure_for(slaves: Collection[int]) -> Measure:
    """A framing.Measure of what these slaves say."""

    def measure(data: bytes) -> int:
        size = _size(data) if data[0] in slaves else BAD
        if size <= 0 or len(data) < size:
            return min(size, MORE)
        return BAD if any(checksum(data[:size])) else size

    return measure


def _size(data: bytes) -> int:
    """How long the frame at the start of the buffer says it is; MORE or BAD."""
    if len(data) < 3:
        return MORE if len(data) < 2 or data[1] & ~REFUSED in (*NAMES, SWITCH) else BAD
    if data[1] == SWITCH:
        return 8
    if data[1] & ~REFUSED not in (*NAMES, SWITCH):
        return BAD
    if data[1] & REFUSED:
        return 5
    odd = data[1] in WORD_FUNCTIONS and data[2] % 2
    return BAD if odd or not 0 < data[2] <= LIMIT - 6 else data[2] + 5
