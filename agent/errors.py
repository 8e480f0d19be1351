"""This file knows every way in which Tillwire fails, one sentence each.

TillwireError
├── ConfigError     the configuration cannot be used: names the key and what would be right
├── LinkError       a device's port cannot be opened or was lost: carries one word for the cause
├── StoreError      the store cannot be opened or written
│   ├── StoreCorrupt    the store's content is damaged
│   └── StoreFull       there is no room for more, on the disk or below the store's own cap
├── LedgerError     the hash chain does not hold: names the row
├── UplinkError     the broker cannot be reached, or refuses
│   └── UplinkRefused   it refuses what only people can mend
├── ControlError    a request on the local socket cannot be met
├── PushRefused     what the centre pushed is not done: carries one word for the reason
├── KeyRoomClosed   the key room does not open on this machine, or not in this way
└── CryptoError     a key, key block, component, check value or PIN block cannot be used
    ├── BlockRefused    a key block breaks a rule that anyone can see without a key
    ├── KeyRefused      a key is weak, public, too short, too strong for its wrapping, or the wrong one
    ├── NotAuthentic    a MAC or what it protects does not hold: always the same sentence
    ├── EnvelopeRefused what came signed must not be acted on: carries one word for the reason
    └── SealRefused     the agent's own secrets cannot be opened or kept: carries one word for the reason

Third-party errors are translated at the three borders (link, store, uplink) and on the control socket;
inside, ours travel unchanged. Bad bytes from a device are never an exception.
The text of a CryptoError never repeats any of its input: somebody may have pasted a component there.
"""


class TillwireError(Exception):
    """Anything that a person can act on; its text is one sentence that says the next step."""


class ConfigError(TillwireError):
    """The configuration cannot be used."""


class LinkError(TillwireError):
    """A port cannot be opened, or was lost; `cause` is one of missing, busy, denied, unusable."""

    def __init__(self, cause: str, sentence: str) -> None:
        super().__init__(sentence)
        self.cause = cause


class StoreError(TillwireError):
    """The store cannot be opened or written."""


class StoreCorrupt(StoreError):
    """The store's content is damaged."""


class StoreFull(StoreError):
    """There is no room for more, on the disk or below the store's own cap."""


class LedgerError(TillwireError):
    """The hash chain does not hold; `seq` is the first row that proves it."""

    def __init__(self, seq: int, sentence: str) -> None:
        super().__init__(sentence)
        self.seq = seq


class UplinkError(TillwireError):
    """The broker cannot be reached, or refuses."""


class UplinkRefused(UplinkError):
    """The broker, or this terminal's check of it, refuses what only people can mend: trying soon does not help.
    The sentence is `cause; next`."""

    def __init__(self, cause: str, next_step: str) -> None:
        super().__init__(f"{cause}; {next_step}")
        self.cause, self.next = cause, next_step


class ControlError(TillwireError):
    """A request on the local socket cannot be met; `status` is the exit code of the command that asked."""

    def __init__(self, sentence: str, status: int = 3) -> None:
        super().__init__(sentence)
        self.status = status


class PushRefused(TillwireError):
    """What was pushed, and rightly signed, is not done here or not now; `reason` is a word of pushes.py or of
    commanding.py. Unlike that of an EnvelopeRefused its sentence may repeat names and values: two people have
    signed them."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


class KeyRoomClosed(TillwireError):
    """The key room does not open on this machine, or not in this way."""


class CryptoError(TillwireError):
    """A key, key block, component, check value or PIN block cannot be used; the text repeats none of it."""


class BlockRefused(CryptoError):
    """A key block breaks a rule of its format or of our policy that needs no key to see."""


class KeyRefused(CryptoError):
    """A key, or the parts it is made of, must not be used."""


class NotAuthentic(CryptoError):
    """Wrong key or damaged content. One sentence for a bad MAC, bad length and bad padding, so that the
    difference cannot be used to guess at the content."""

    def __init__(self) -> None:
        super().__init__("wrong key or damaged content: check the key's check value, then ask the sender again")


class EnvelopeRefused(CryptoError):
    """A signed envelope must not be acted on; `reason` is a word of signing.py, or of who reads the payload."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


class SealRefused(CryptoError):
    """The agent's own secrets cannot be opened or kept; `reason` is a word of sealing.py."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason
