"""This file knows key orders: what a signed order says, and every reason to refuse one before anybody acts on it.

An order is a JSON object, signed by two people; signing.py verifies that, and hands over the object and the
signers. It is addressed to one terminal, one EPP by serial number and one slot, holds for a time, and is used
once. It names slots, envelopes and check values: all of it is public, and no field can hold a component, because
whatever looks like one (agent/pasted.py) is refused wherever it stands.

    format       "tillwire-key-order/1"                     kind      load, compromise, destroy
    id, terminal, epp_serial, slot                          method    components, block (none to destroy)
    usage, algorithm, mode, exportability   X9.143 codes    digits    length of the key in hex: 16, 32, 48, 64
    version      1 to 99, greater than that of any key before it in the slot; equal to that in a key block
    kcv          of the whole key; of the key to be destroyed          hierarchy   production, test
    parts        [{envelope, kcv, group}]: one for each component; only people of that group may open the envelope
    under, form, block      of a block: the slot of its protection key, "tr31" or "ecb", and its SHA-256
    replaces     slot whose key is deleted when the new one works, or before it when it is the same slot
    compromised  slots that are deleted before anything is loaded: the suspected key and every key below it
    exceptions   rules that the signers relax by name: naked (a bare cryptogram), single_des, weak_wrapping,
                 unrecorded_kek (the protection key was there before the ledger), unread_slot (the device cannot
                 tell what a slot holds, so it is deleted unseen)
    applied, not_before, not_after          wall clock in milliseconds; applied 0: nobody said when it was asked for

No id, slot or group has more than 10 hex digits in a row, and no slot more than 32 letters: nobody could type it,
and no driver would take it. Keys are DES or 3DES keys: no driver can load an AES key yet.
The kind `compromise` is a load whose protection key must not be one of the suspected (crypto.md 1.7).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from agent.crypto.holdings import Holdings
from agent.crypto.kcv import Kcv, Method
from agent.crypto.keyblock import EXPORTABILITY, MODES_OF_USAGE
from agent.crypto.phrases import REFUSALS
from agent.errors import CryptoError, EnvelopeRefused
from agent.pasted import is_name, long_row

FORMAT = "tillwire-key-order/1"
KINDS = ("load", "compromise", "destroy")
METHODS = ("components", "block")
EXCEPTIONS = ("naked", "single_des", "weak_wrapping", "unrecorded_kek", "unread_slot")
SIGNERS = 2
LONGEST_ORDER_MS = 31 * 86_400_000
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SLOT = 32  # letters of a slot that a driver takes
_LENGTHS = {"T": (32, 48), "D": (16,), "A": (32, 48, 64)}
_ENTERED = (32, 48)  # what the EPP's keypad takes for one component
T = TypeVar("T")


def is_digest(text: str) -> bool:
    """Whether it can be a SHA-256 in lower-case hex, the only long hex that is allowed anywhere."""
    return _DIGEST.fullmatch(text) is not None


def refuse(reason: str) -> NoReturn:
    """Raise EnvelopeRefused with the sentence for a word of REFUSALS."""
    raise EnvelopeRefused(reason, REFUSALS[reason].en)


@dataclass(frozen=True, slots=True)
class EnvelopeId:
    """The number printed on a sealed envelope. Raises EnvelopeRefused for anything like a component."""

    text: str

    def __post_init__(self) -> None:
        if not is_name(self.text):
            refuse("malformed")

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Part:
    """One line of the manifest: the envelope of a component, the component's check value, and who may open it."""

    envelope: EnvelopeId
    kcv: Kcv
    group: str


@dataclass(frozen=True, slots=True)
class Order:
    """One order, its shape checked; `check` asks whether it may be carried out here and now."""

    id: str
    terminal: str
    epp_serial: str
    slot: str
    kind: str
    kcv: Kcv
    hierarchy: str
    not_before: int
    not_after: int
    method: str = ""
    usage: str = ""
    algorithm: str = ""
    mode: str = ""
    exportability: str = ""
    digits: int = 0
    version: int = 0
    parts: tuple[Part, ...] = ()
    under: str = ""
    form: str = ""
    block: str = ""
    replaces: str = ""
    compromised: tuple[str, ...] = ()
    exceptions: tuple[str, ...] = ()
    applied: int = 0

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> "Order":
        """From the object that was signed. Raises EnvelopeRefused, which repeats nothing of it."""
        fields = dict(document)
        if fields.pop("format", None) != FORMAT:
            refuse("malformed")
        unknown = set(fields) - set(cls.__slots__)
        missing = _REQUIRED - set(fields)
        if unknown or missing:
            refuse("malformed")
        try:
            method: Method = "cmac" if fields.get("algorithm") == "A" else "zero"
            fields["kcv"] = Kcv.parse(_typed(fields["kcv"], str), method)
            fields["parts"] = tuple(_part(part, method) for part in _typed(fields.get("parts", []), list))
            for name in ("compromised", "exceptions"):
                fields[name] = tuple(_typed(word, str) for word in _typed(fields.get(name, []), list))
        except CryptoError:
            refuse("malformed")
        order = cls(**fields)
        order._check_shape()
        return order

    def document(self) -> dict[str, Any]:
        """The object again, without what is at its default; `parse` gives an equal order."""
        out: dict[str, Any] = {"format": FORMAT}
        for name in self.__slots__:
            value = getattr(self, name)
            if name == "kcv":
                value = value.value.hex().upper()
            elif name == "parts":
                value = [
                    {"envelope": p.envelope.text, "kcv": p.kcv.value.hex().upper(), "group": p.group} for p in value
                ]
            elif isinstance(value, tuple):
                value = list(value)
            if value not in ("", 0, []):
                out[name] = value
        return out

    @property
    def loads(self) -> bool:
        """Whether a key is loaded, as opposed to destroyed."""
        return self.kind != "destroy"

    @property
    def people(self) -> int:
        """How many people must come: one for each component, and never fewer than two."""
        return max(2, len(self.parts))

    @property
    def cleared_first(self) -> tuple[str, ...]:
        """The slots that are deleted before anything is loaded, the order's own first."""
        first = self.compromised + ((self.replaces,) if self.replaces == self.slot else ())
        return tuple(dict.fromkeys(sorted(first, key=lambda slot: slot != self.slot)))

    @property
    def envelopes(self) -> tuple[str, ...]:
        """The envelope numbers of the manifest, as text."""
        return tuple(str(part.envelope) for part in self.parts)

    def _check_shape(self) -> None:
        """Raise EnvelopeRefused unless every field is of its type and fits the others."""
        names = (
            self.id,
            self.terminal,
            self.epp_serial,
            self.slot,
            *(p.group for p in self.parts),
            *self.compromised,
        )
        optional = (self.under, self.replaces)
        slots = (self.slot, *optional, *self.compromised)
        words = (self.kind, self.method, self.usage, self.algorithm, self.mode, self.exportability, self.form)
        numbers = (self.digits, self.version, self.applied, self.not_before, self.not_after)
        texts = (*names, *optional, *words, self.block, self.hierarchy)
        if not all(isinstance(text, str) for text in texts) or not all(type(n) is int and n >= 0 for n in numbers):
            refuse("malformed")
        if not all(map(is_name, (*names, *filter(None, optional)))):
            refuse("malformed")
        # What people type and what drivers are asked: neither takes more than 10 hex digits in a row. A serial
        # number may have more, it is only compared.
        typed = (self.id, *slots, *(part.group for part in self.parts))
        if any(map(long_row, typed)) or any(len(slot) > _SLOT for slot in slots):
            refuse("long_name")
        if self.kind not in KINDS or self.hierarchy not in ("production", "test"):
            refuse("malformed")
        if not self.not_before < self.not_after or not set(self.exceptions) <= set(EXCEPTIONS):
            refuse("malformed")
        if self.not_after - self.not_before > LONGEST_ORDER_MS:
            refuse("too_long")
        if self.loads:
            self._check_load()
            return
        unfit = (*words[1:3], *words[4:], *optional, self.block, self.digits, self.version, *self.compromised)
        if any(unfit) or self.parts or self.algorithm not in ("", *_LENGTHS):
            refuse("malformed")

    def _check_load(self) -> None:
        if self.algorithm == "A":
            refuse("aes")
        if self.method not in METHODS or not 1 <= self.version <= 99:
            refuse("malformed")
        if self.mode not in MODES_OF_USAGE.get(self.usage, "") or self.exportability not in tuple(EXPORTABILITY):
            refuse("wrong_usage")
        if self.digits not in _LENGTHS.get(self.algorithm, ()):
            refuse("wrong_length")
        if self.algorithm == "D" and ("single_des" not in self.exceptions or not self.usage.startswith("M")):
            refuse("single_des")
        if (self.kind == "compromise") != bool(self.compromised):
            refuse("malformed")
        if self.method == "components":
            self._check_parts()
        else:
            self._check_block()

    def _check_parts(self) -> None:
        if self.under or self.form or self.block or self.digits not in _ENTERED:
            refuse("malformed")
        if len(self.parts) not in (2, 3):
            refuse("part_count")
        values = [self.kcv, *(part.kcv for part in self.parts)]
        # Two equal components cancel out, and one that equals the key makes all the others together zero.
        if len(set(values)) < len(values) or len(set(self.envelopes)) < len(self.parts):
            refuse("same_part_twice")
        if len({part.group for part in self.parts}) < len(self.parts):
            refuse("one_group")

    def _check_block(self) -> None:
        if self.parts or not self.under or not is_digest(self.block) or self.form not in ("tr31", "ecb"):
            refuse("malformed")
        if self.form == "ecb" and "naked" not in self.exceptions:
            refuse("naked")
        if self.under in (*self.compromised, self.slot):
            refuse("suspected_kek")


@dataclass(frozen=True, slots=True)
class Site:
    """Where we are: the terminal, the serial number that its EPP reports, and whether that is a simulator."""

    terminal: str
    epp_serial: str
    simulated: bool = False


def check(order: Order, signers: Iterable[str], site: Site, held: Holdings, wall: int, trusted: int) -> None:
    """Raise EnvelopeRefused unless the order may be carried out on this terminal now.

    signers: of the valid signatures on it. wall: this machine's clock; trusted: the latest time that it is known to
    have been (a signed time, the newest ledger row), both in ms. A clock that went back freezes all orders.
    """
    if len(set(signers)) < SIGNERS:
        refuse("too_few_signers")
    if order.terminal != site.terminal or order.epp_serial != site.epp_serial:
        refuse("wrong_target")
    if (order.hierarchy == "test") != site.simulated:
        refuse("wrong_hierarchy")
    if wall < trusted:
        refuse("clock_went_back")
    if not order.not_before <= wall <= order.not_after:
        refuse("expired" if wall > order.not_after else "too_early")
    if order.id in held.orders:
        refuse("used_before")
    if order.loads:
        _check_against(order, held)


def _check_against(order: Order, held: Holdings) -> None:
    if set(order.envelopes) & held.envelopes:
        refuse("envelope_used")
    if order.version <= held.versions.get(order.slot, 0):
        refuse("older")
    if any(order.kcv.agrees(kcv) for kcv in held.destroyed):
        refuse("destroyed_before")
    if order.hierarchy == "production" and any(v.known() for v in (order.kcv, *(p.kcv for p in order.parts))):
        refuse("test_key")
    below = {slot for slot, key in held.slots.items() if key.under in order.compromised and key.state != "missing"}
    if not below <= set(order.compromised):
        refuse("keys_below")
    if order.method == "block" and "unrecorded_kek" not in order.exceptions:
        kek = held.slots.get(order.under)
        if kek is None or kek.state != "loaded":
            refuse("no_kek")
        stronger = (order.algorithm == "A", order.digits) > (kek.algorithm == "A", kek.digits)
        if stronger and "weak_wrapping" not in order.exceptions:
            refuse("weak_wrapping")


_REQUIRED = {"id", "terminal", "epp_serial", "slot", "kind", "kcv", "hierarchy", "not_before", "not_after"}


def _part(part: Any, method: Method) -> Part:
    fields = _typed(part, dict)
    if set(fields) != {"envelope", "kcv", "group"}:
        refuse("malformed")
    envelope, kcv, group = (_typed(fields[name], str) for name in ("envelope", "kcv", "group"))
    return Part(EnvelopeId(envelope), Kcv.parse(kcv, method), group)


def _typed(value: Any, kind: type[T]) -> T:
    return value if isinstance(value, kind) else refuse("malformed")
