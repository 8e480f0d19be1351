"""This file knows the simulated secure device inside an encrypting PIN pad: its slots, and how a key gets into one.

It computes on clear keys, so it runs in a process of its own (hwsim/secure_process.py) and shares no code with
agent/. It does no I/O; `tick` brings the time. Full-length components are combined by XOR (PCI PIN 8-1); a key has
one purpose (a protection key K1 opens key blocks, a key encrypting key K0 opens cryptograms). Which keys it holds
stands in hwsim/secure_rules.py, how a component is typed in hwsim/secure_entry.py.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from hwsim.secure_block import BlockError, open_block
from hwsim.secure_des import LENGTHS, Cipher, check_value, odd, xor
from hwsim.secure_entry import KEYS, Entry
from hwsim.secure_rules import Refused, check_carrier, check_key, check_use

FEWEST_PARTS, MOST_SLOTS, LONGEST_NAME = 2, 64, 64


class NoPower(Exception):
    """Nobody answers: the device has no power."""


@dataclass
class Slot:
    """One key, or one that is being put together: then `key` is the sum of `parts` components so far."""

    usage: str
    algorithm: str
    mode: str
    key: bytes = field(repr=False)
    version: str = "00"
    exportability: str = "N"
    parts: int = 0

    @property
    def loaded(self) -> bool:
        """Whether the key can be used."""
        return self.parts == 0

    @property
    def use(self) -> tuple[str, str, str]:
        """Usage, algorithm and mode."""
        return self.usage, self.algorithm, self.mode


class SecureDevice:
    """One device. `serial` is its number. `laboratory`: it takes any sound key, also in clear; `single`: also keys
    of 8 bytes. After `idle_seconds` of nothing an entry ends, and what was typed and not stored is forgotten.
    `kept` is called when a loaded key came or went."""

    def __init__(
        self, serial: str, *, laboratory: bool = False, single: bool = False, idle_seconds: float = 60.0
    ) -> None:
        self.serial, self.laboratory, self.single, self.idle_seconds = serial, laboratory, single, idle_seconds
        self.tampered, self.power = False, True
        self.slots: dict[str, Slot] = {}
        self.entry: Entry | None = None
        self.kept: Callable[[], None] = lambda: None
        self._now = 0.0

    def tick(self, now: float) -> None:
        """Time passes."""
        self._now = now
        if self.entry and now - self.entry.last_key_at >= self.idle_seconds:
            self.entry.part = None
            if not self.entry.ended:
                self.entry.end("timeout")

    # What a service provider asks.

    def begin_entry(self, digits: int, *, auto: bool, method: str, algorithm: str) -> None:
        """Let a person type a component of so many hex digits. What was typed before and not stored is forgotten.

        Raises Refused.
        """
        self._awake()
        if algorithm not in LENGTHS or digits % 2 or digits // 2 not in LENGTHS[algorithm]:
            raise Refused("invalidKeyLength", f"a component of {digits} digits is not supported")
        check_use("K0", algorithm, "D", single=self.single)
        if method not in ("zero", "self"):
            raise Refused("modeNotSupported", "the check value can be zero or self")
        if self.entry and not self.entry.ended:
            raise Refused("accessDenied", "somebody is typing already")
        self.entry = Entry(digits, auto, method, algorithm, self._now)

    def cancel_entry(self) -> None:
        """End an entry, and forget what was typed."""
        self.must_have_power()
        self.entry = None

    def store_part(self, name: str, usage: str, algorithm: str, mode: str) -> Slot:
        """Add the typed component to a slot. A key that was in it is gone. Raises Refused."""
        self._awake()
        check_use(usage, algorithm, mode, single=self.single)
        if self.entry is None or (part := self.entry.part) is None:
            raise Refused("keyNoValue", "no component was typed")
        self._one_construction(name)
        self.entry = None  # from here on it is in the slot, or gone
        slot = self.slots.get(name)
        if slot is None or slot.loaded:
            if len(part) not in LENGTHS[algorithm]:
                raise Refused("invalidKeyLength", "the component has a length that a key of this kind cannot have")
            self._put(name, fresh := Slot(usage, algorithm, mode, bytes(len(part))))
            slot = fresh
        if slot.use != (usage, algorithm, mode):
            raise Refused("useViolation", "the components of one key are all for the same use")
        if len(slot.key) != len(part):
            raise Refused("invalidKeyLength", "the components of one key all have the same length")
        slot.key, slot.parts = xor(slot.key, part), slot.parts + 1
        self.kept()
        return slot

    def complete(self, name: str, usage: str, algorithm: str, mode: str) -> Slot:
        """Make a key of the components in a slot; one that was typed and not stored yet is the last of them.

        Raises Refused; when the components are at fault, they are gone.
        """
        self._awake()
        if self.entry and self.entry.part is not None:
            self.store_part(name, usage, algorithm, mode)
        slot = self.slots.get(name)
        if slot is None or slot.loaded:
            raise Refused("keyNoValue", f"no component of {name} is stored")
        if slot.use != (usage, algorithm, mode):
            raise Refused("useViolation", "the key is to be used otherwise than its components")
        if slot.parts < FEWEST_PARTS:
            raise Refused("accessDenied", f"a key is made of at least {FEWEST_PARTS} components, of two people")
        del self.slots[name]
        return self._load(name, Slot(usage, algorithm, mode, slot.key))

    def import_block(self, name: str, under: str, text: str) -> Slot:
        """Load a TR-31 key block that the protection key `under` opens. Raises Refused."""
        self._awake()
        self._one_construction()
        protection = self._usable(under, "K1")
        try:
            found = open_block(text, protection.algorithm, protection.key)
        except BlockError as no:
            raise Refused(no.code, str(no)) from None
        if found.version.startswith("c"):
            raise Refused("useViolation", "the key block holds a component, and a component is typed at the pad")
        # A single-length key in a block of triple DES is what it is.
        algorithm = "D" if found.algorithm == "T" and len(found.key) == 8 else found.algorithm
        check_use(found.usage, algorithm, found.mode, single=self.single)
        check_carrier(protection.algorithm, protection.key, algorithm, found.key)
        made = Slot(found.usage, algorithm, found.mode, found.key, found.version, found.exportability)
        return self._load(name, made)

    def import_cryptogram(
        self, name: str, usage: str, algorithm: str, mode: str, under: str, sealed: bytes, expected: str = ""
    ) -> Slot:
        """Load a key that the key encrypting key `under` has encrypted (ECB). `expected` is its check value, or the
        first 3 bytes and more of it, in hex. Raises Refused."""
        self._awake()
        self._one_construction()
        check_use(usage, algorithm, mode, single=self.single)
        carrier = self._usable(under, "K0")
        cipher = Cipher(carrier.algorithm, carrier.key)
        if len(sealed) not in LENGTHS[algorithm] or len(sealed) % cipher.size:
            raise Refused("invalidKeyLength", "the cryptogram has a wrong length")
        key = cipher.ecb_decrypt(sealed)
        check_carrier(carrier.algorithm, carrier.key, algorithm, key)
        if expected and check_value(algorithm, key) != expected[:6].upper():
            raise Refused("contentInvalid", "the check value is another one")
        return self._load(name, Slot(usage, algorithm, mode, key))

    def import_clear(self, name: str, usage: str, algorithm: str, mode: str, key: bytes) -> Slot:
        """Load a key in clear: in a laboratory only. Raises Refused."""
        self._awake()
        self._one_construction()
        if not self.laboratory:
            raise Refused("accessDenied", "this pad takes no key in clear; a laboratory starts it with --lab")
        check_use(usage, algorithm, mode, single=self.single)
        return self._load(name, Slot(usage, algorithm, mode, key))

    def check(self, name: str, method: str) -> str:
        """The check value of a loaded key: zero, self or cmac. Raises Refused."""
        self._awake()
        if method not in ("zero", "self", "cmac"):
            raise Refused("modeNotSupported", "the check value can be zero, self or cmac")
        slot = self._loaded(name)
        return check_value(slot.algorithm, slot.key, method)

    def delete(self, name: str) -> None:
        """Erase a slot, also one that is being put together. Raises Refused."""
        self._awake()
        slot = self.slots.pop(name, None)
        if slot is None:
            raise Refused("keyNotFound", f"there is no key {name}")
        if not slot.loaded:
            self.entry = None
        self.kept()

    def wipe(self) -> None:
        """Erase everything. Raises Refused."""
        self._awake()
        self._forget_all()

    # What somebody does to the device itself.

    def press(self, digits: str) -> int:
        """Hex digits are typed at the pad; returns how many it took."""
        entry = self._typing()
        return sum([entry.press(digit, self._now) for digit in digits.upper()]) if entry else 0

    def press_key(self, key: str) -> None:
        """One of enter, cancel, clear and backspace is pressed. Raises Refused for another."""
        if key not in KEYS:
            raise Refused("keyNotSupported", f"the pad has the keys {', '.join(KEYS)}")
        if entry := self._typing():
            entry.press_key(key, self._now)

    def tamper(self) -> None:
        """Somebody opens the case: everything is erased, at once, also without power."""
        self.tampered = True
        self._forget_all()

    def close_case(self) -> None:
        """The case is closed again and the device put back into service. The keys do not come back."""
        self.tampered = False

    def cut_power(self) -> None:
        """The power goes. Loaded keys have a battery; an entry and what is half put together have none."""
        self.power = False
        self.entry = None
        self.slots = {name: slot for name, slot in self.slots.items() if slot.loaded}

    def restore_power(self) -> None:
        """The power is back."""
        self.power = True

    def swap(self, serial: str) -> None:
        """Another device is built in, with another number and no keys."""
        self.serial, self.tampered, self.power = serial, False, True
        self._forget_all()

    # Rules.

    def must_have_power(self) -> None:
        """Raises NoPower."""
        if not self.power:
            raise NoPower

    def _awake(self) -> None:
        self.must_have_power()
        if self.tampered:
            raise Refused("tampered", "the pad was opened; it does nothing until somebody has looked after it")

    def _typing(self) -> Entry | None:
        return self.entry if self.power and not self.tampered else None

    def _forget_all(self) -> None:
        self.slots, self.entry = {}, None
        self.kept()

    def _one_construction(self, name: str = "") -> None:
        for other, slot in self.slots.items():
            if not slot.loaded and other != name:
                raise Refused("sequenceError", f"the components of {other} are not complete; delete it first")

    def _loaded(self, name: str) -> Slot:
        slot = self.slots.get(name)
        if slot is None:
            raise Refused("keyNotFound", f"there is no key {name}")
        if not slot.loaded:
            raise Refused("keyNoValue", f"{name} is not complete")
        return slot

    def _usable(self, name: str, usage: str) -> Slot:
        slot = self._loaded(name)
        if slot.usage != usage or slot.mode not in "BD":
            raise Refused(
                "useViolation", f"{name} opens nothing of this kind; that would be a {usage} of mode D or B"
            )
        return slot

    def _put(self, name: str, slot: Slot) -> None:
        if not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
            raise Refused("keyNotFound", f"a key has a name of at most {LONGEST_NAME} characters")
        if name not in self.slots and len(self.slots) >= MOST_SLOTS:
            raise Refused("noKeyRam", f"all {MOST_SLOTS} slots are in use")
        self.slots[name] = slot

    def _load(self, name: str, slot: Slot) -> Slot:
        """The last question of every way in: is it a key that this device may hold?"""
        check_key(slot.algorithm, slot.key, laboratory=self.laboratory)
        slot.key = slot.key if slot.algorithm == "A" else odd(slot.key)
        self._put(name, slot)
        self.kept()
        return slot
