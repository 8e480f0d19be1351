"""This file knows what is kept of a conversation for a technician who traces it: decoded frames, in order.

Only a driver knows what its frames mean and which of them are secret, so each driver writes its own transcript. It
is empty unless somebody has asked for it: the daemon never does, `tillwire probe --trace` does.
"""

MOST = 1000


class Transcript:
    """What was said on one line. `on` begins and ends the keeping; at most MOST entries wait to be read."""

    def __init__(self) -> None:
        self.on = False
        self._entries: list[str] = []

    def sent(self, meaning: str, frame: bytes = b"") -> None:
        """The agent said something. A frame with anything secret in it is left out."""
        self._note(">", meaning, frame)

    def heard(self, meaning: str, frame: bytes = b"") -> None:
        """The device said something; see `sent`."""
        self._note("<", meaning, frame)

    def read(self) -> list[str]:
        """The entries since the last call: `< 06  the device acknowledges`."""
        entries, self._entries = self._entries, []
        return entries

    def _note(self, direction: str, meaning: str, frame: bytes) -> None:
        if self.on and len(self._entries) < MOST:
            self._entries.append(" ".join(part for part in (direction, frame.hex(" ").upper(), meaning) if part))
