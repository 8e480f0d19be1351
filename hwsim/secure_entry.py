"""This file knows how a person types a key component at the keypad of the simulated secure device.

Written from Keyboard.SecureKeyEntry of XFS4IoT (release 2024-3): digits beyond the length are not taken; Enter
before the length ends the entry without a component; the host hears that a key was pressed, never which digit.
"""

from dataclasses import dataclass, field

from hwsim.secure_des import check_value

HEX = "0123456789ABCDEF"
KEYS = ("enter", "cancel", "clear", "backspace")


@dataclass
class Entry:
    """One component being typed: `wanted` digits of a key of `algorithm`. With `auto` the last digit ends it.

    `ended` is enter, auto, cancel or timeout, and empty before. `keys` are the kinds of keys pressed since somebody
    asked: "digit" for a digit, whichever it was. `part` is the component, `check_value` its own, by `method`.
    """

    wanted: int
    auto: bool
    method: str
    algorithm: str
    last_key_at: float
    ended: str = ""
    keys: list[str] = field(default_factory=list)
    part: bytes | None = field(default=None, repr=False)
    check_value: str = ""
    _digits: str = field(default="", repr=False)

    @property
    def entered(self) -> int:
        """How many digits stand in it, or stood in it when it ended."""
        return len(self.part) * 2 if self.part is not None else len(self._digits)

    def press(self, digit: str, now: float) -> bool:
        """A hex digit; returns whether it was taken."""
        if self.ended or digit not in HEX or len(self._digits) >= self.wanted:
            return False
        self._digits += digit
        self.keys.append("digit")
        self.last_key_at = now
        if self.auto and len(self._digits) == self.wanted:
            self.end("auto")
        return True

    def press_key(self, key: str, now: float) -> None:
        """One of KEYS."""
        if self.ended:
            return
        self.keys.append(key)
        self.last_key_at = now
        if key in ("enter", "cancel"):
            self.end(key)
        else:
            self._digits = "" if key == "clear" else self._digits[:-1]

    def end(self, how: str) -> None:
        """It is over; a component comes of it only when it is whole and somebody confirmed it."""
        self.ended = how
        if how in ("enter", "auto") and len(self._digits) == self.wanted:
            self.part = bytes.fromhex(self._digits)
            self.check_value = check_value(self.algorithm, self.part, self.method)
            self._digits = ""
        elif how != "enter":
            self._digits = ""

    def asked(self) -> list[str]:
        """The kinds of keys pressed since the last time that somebody asked."""
        keys, self.keys = self.keys, []
        return keys
