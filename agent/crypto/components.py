"""This file knows how a key comes from its components. For the key room only.

Two or three components of the full key length, combined by XOR: each alone says nothing about any bit of the key
(PCI PIN 8-1, 12-4). Halves that are put side by side are not components and there is no way to do that here.
Each component has its own check value; so has the key. A component need not be a sound key, and its parity does
not matter: two components of odd parity give even parity in every byte. So parity is set, and weakness asked
for, on the result only. But a component that everybody knows, such as all zeros, leaves the key to who holds the
other one.
"""

from agent.crypto import des, wrapping
from agent.crypto.kcv import Kcv
from agent.crypto.keyblock import Policy
from agent.crypto.secret import Secret, xor_into
from agent.errors import KeyRefused

LEAST, MOST = 2, 3


class Assembly:
    """A key being put together. Each part is combined at once and wiped: only the running XOR stays.

    parts: how many components the order names, 2 or 3. single: accept 8 bytes, for a signed legacy order.
    aes: the key is for AES: 16, 24 or 32 bytes, no parity, check values by CMAC.
    Any refusal wipes what was gathered: a ceremony starts again from the first part.
    """

    def __init__(self, parts: int, *, single: bool = False, test_keys: bool = False, aes: bool = False) -> None:
        if not LEAST <= parts <= MOST:
            raise KeyRefused("a key is made of two or three components")
        self._parts = parts
        self._policy = Policy(single=single, test_keys=test_keys)
        self._aes = aes
        self._sum = Secret(b"")
        self._seen: list[Kcv] = []

    def add(self, part: Secret) -> Kcv:
        """Combine the next component, wipe it, and return its check value. Raises KeyRefused."""
        with part:
            lengths = (16, 24, 32) if self._aes else (8, 16, 24) if self._policy.single else (16, 24)
            if len(self._seen) == self._parts:
                self._refuse("there is one component too many")
            if len(part) not in lengths or (self._seen and len(part) != len(self._sum)):
                self._refuse("every component has the full length of the key, 16 or 24 bytes (32 for AES)")
            if not self._policy.test_keys and des.is_public(part):
                self._refuse("this component is known to everybody, so one person alone would hold the key")
            kcv = wrapping.check_value(part, "A", "cmac") if self._aes else des.zero_kcv(part)
            # The same envelope twice cancels out. Equal check values of two different ones: once in 16 million.
            if kcv in self._seen:
                self._refuse("this component was given before: look at the envelope numbers")
            if not self._seen:
                self._sum = Secret(bytes(len(part)))
            xor_into(self._sum.reveal(), part.reveal())
        self._seen.append(kcv)
        return kcv

    def complete(self) -> Secret:
        """The key, with odd parity unless it is for AES; the assembly is empty afterwards. Raises KeyRefused."""
        if len(self._seen) < self._parts:
            self._refuse("a component is missing")
        try:
            key = Secret(self._sum.reveal()) if self._aes else des.odd_parity(self._sum)
            try:
                wrapping.refuse_unsound(key, "A" if self._aes else "T", self._policy)
            except KeyRefused:
                key.wipe()
                raise
            return key
        finally:
            self.abort()

    def abort(self) -> None:
        """Forget everything; nothing can be completed after it."""
        self._sum.wipe()
        self._seen = []

    def _refuse(self, sentence: str) -> None:
        self.abort()
        raise KeyRefused(sentence)

    def __repr__(self) -> str:
        return f"<Assembly with {len(self._seen)} of {self._parts} components>"
