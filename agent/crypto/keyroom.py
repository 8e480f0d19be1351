"""This file knows what a key room makes: new components and the pages they are printed on, and wrapped keys.

Besides injecting.py, which hands a key to a legacy pad, this is where clear keys are used. Nothing here asks,
prints or opens a file; agent/cli/keyroom.py does, in a process that enclosure.py has made fit.

A page is plain ASCII text that ends in a form feed. So it can be written straight to a printer's device: no spooler
that keeps a copy on a disk, no driver, no fonts, no code page; and an impact printer without a ribbon prints it
through the carbonless layers of a sealed key mailer, so that even who stands beside it sees nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass

from Crypto.Random import get_random_bytes

from agent.crypto import des, wrapping
from agent.crypto.components import Assembly
from agent.crypto.kcv import Kcv
from agent.crypto.keyblock import Header, KeyBlock, Policy
from agent.crypto.secret import Secret
from agent.errors import KeyRefused

Random = Callable[[int], bytes]

DIGITS = b"0123456789ABCDEF"
GROUP, ROW = 4, 16
DRILL = "DRILL - NOT FOR A REAL TERMINAL"


@dataclass(frozen=True, slots=True)
class Page:
    """What stands on the page of one component besides the component. All of it is public."""

    envelope: str
    terminal: str
    slot: str
    part: int
    parts: int
    made: str
    kcv: Kcv
    drill: bool = False

    def around(self, component: Secret) -> Secret:
        """The whole page; the component stays as it is. Raises KeyRefused when the check value is not its own."""
        head = [
            "TILLWIRE KEY COMPONENT" + (f"   {DRILL}" if self.drill else ""),
            "",
            f"Envelope      {self.envelope}",
            f"Terminal      {self.terminal}",
            f"Key           {self.slot}",
            f"Component     {self.part} of {self.parts}",
            f"Made on       {self.made}",
            "",
        ]
        tail = [
            "",
            f"Check value   {self.kcv}",
            "",
            "For one custodian only. Nobody else may read this page, at any time.",
            "Type it at the keypad of the secure device, never on a computer's keyboard.",
            "Then shred it before a witness; both sign.",
        ]
        page = bytearray("\r\n".join(head).encode("ascii", "replace") + b"\r\n")
        page += bytes(2 * len(component) * 2)  # room: a buffer that grows leaves copies of itself behind
        at = len(page) - 4 * len(component)
        for i, byte in enumerate(component.reveal()):
            for digit, nibble in ((2 * i, byte >> 4), (2 * i + 1, byte & 0x0F)):
                lead = b"\r\n      " if digit % ROW == 0 else b" " if digit % GROUP == 0 else b""
                page[at : at + len(lead)] = lead
                at += len(lead)
                page[at] = DIGITS[nibble]
                at += 1
        del page[at:]
        end = ("\r\n" + "\r\n".join(tail) + "\r\n\f").encode("ascii", "replace")
        with Secret.taking(page) as front:
            whole = bytearray(len(front) + len(end))
            whole[: len(front)], whole[len(front) :] = front.reveal(), end
        return Secret.taking(whole)


@dataclass(slots=True)
class Drawn:
    """A new key as its components, each with its check value, and the check value of the key."""

    components: list[Secret]
    values: list[Kcv]
    kcv: Kcv

    def __enter__(self) -> "Drawn":
        return self

    def __exit__(self, *error: object) -> None:
        for component in self.components:
            component.wipe()


def draw(parts: int, length: int, *, aes: bool = False, random: Random = get_random_bytes) -> Drawn:
    """A new key of `length` bytes as two or three random components. The key itself is made, measured and wiped.

    random: gives n random bytes; only tests give another one than the operating system's.
    Raises KeyRefused for a number or length that no key has, or when the draw is not sound.
    """
    assembly = Assembly(parts, aes=aes)
    drawn = Drawn([], [], Kcv(bytes(3)))
    try:
        for _ in range(parts):
            with Secret.taking(bytearray(random(length))) as raw:
                component = Secret(raw.reveal()) if aes else des.odd_parity(raw)
            drawn.components.append(component)
            drawn.values.append(assembly.add(Secret(component.reveal())))
        with assembly.complete() as key:
            drawn.kcv = check_value(key, aes=aes)
    except KeyRefused:
        drawn.__exit__()
        raise
    return drawn


def new_key(length: int, *, aes: bool = False, random: Random = get_random_bytes) -> Secret:
    """A new key that nobody ever sees: only its wrapped form will leave. Raises KeyRefused as `draw` does."""
    with Secret.taking(bytearray(random(length))) as raw:
        key = Secret(raw.reveal()) if aes else des.odd_parity(raw)
    wrapping.refuse_unsound(key, "A" if aes else "T", Policy())
    return key


def check_value(key: Secret, *, aes: bool = False) -> Kcv:
    """The check value of a key or a component: by the zero method, for AES by CMAC."""
    return wrapping.check_value(key, "A" if aes else "T", "cmac" if aes else "zero")


def wrap(header: Header, key: Secret, kek: Secret, *, drill: bool = False, legacy: bool = False) -> KeyBlock:
    """A key block for a terminal. legacy: also the versions A and C, and single DES. Raises as wrapping.wrap."""
    policy = Policy(versions="ABCD" if legacy else "BD", single=legacy, test_keys=drill)
    return wrapping.wrap(header, key, kek, policy)


def cryptogram(key: Secret, kek: Secret) -> bytes:
    """A key under another in ECB mode, as pads and sign-on messages from before key blocks take it.

    Nothing ties it to a use or shows that it was changed, so it is for a signed legacy order only.
    Raises KeyRefused when the key is stronger than the one above it.
    """
    if des.strength(key) > des.strength(kek):
        raise KeyRefused("the key is stronger than the protection key above it")
    return des.encrypt(kek, key.reveal())
