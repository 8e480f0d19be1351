"""This file knows the pad behind the encryptor of a simulated XFS4IoT host: its keys lie in a process of their own.

The host looks at it twice a second: a pad that does not answer is offline, one that was opened a fraudAttempt and
not ready, and for one with another number, built in anew, the host starts again. Without `epp` nothing of this is
there, and the plain settings (key_tmk, encryption_state, ...) tell what the encryptor is in.
"""

from collections.abc import Mapping
from typing import ClassVar

from hwsim.contract import Allowed, AskEpp, Json, Unreachable, no_epp
from hwsim.xfs_machine import Machine

LOOK_SECONDS = 0.5


class Pad(Machine):
    """`epp` is the socket of the pad's device side, `ask_epp` asks there; `pad_serial` its number as last seen."""

    SETTINGS: ClassVar[Mapping[str, Allowed]] = {**Machine.SETTINGS, "epp": str}

    def __init__(self) -> None:
        super().__init__()
        self.epp = ""
        self.ask_epp: AskEpp = no_epp
        self.pad_serial = ""
        self._pad_seen = ""
        self._look_at = 0.0

    def ask(self, request: Json) -> Json:
        """Ask the pad. Raises Unreachable."""
        return self.ask_epp(self.epp, request)

    def look_again(self) -> None:
        """Tell the pad's condition anew, whatever was said of it."""
        self._pad_seen, self._look_at = "", 0.0

    def look_at_pad(self) -> bool:
        """Look whether the pad answers and how it is, when it is time to; returns whether it is another one."""
        if not self.epp or self._now < self._look_at:
            return False
        self._look_at = self._now + LOOK_SECONDS
        try:
            state = self.ask({"do": "state"})["ok"]
        except Unreachable:
            self.pad_serial = self.pad_serial or "unknown"
            self._condition("offline")
            return False
        self._condition("fraudAttempt" if state["tampered"] else "online")
        if state["tampered"]:
            self.encryption_state = "notReady"
        elif self.encryption_state == "notReady" or any(slot["loaded"] for slot in state["slots"].values()):
            self.encryption_state = "ready"
        before, self.pad_serial = self.pad_serial, state["serial"]
        return before not in ("", state["serial"])

    def initialized(self) -> None:
        """Every key was erased by command. The event comes of the state, or alone when that is no other."""
        if self.encryption_state == "initialized":
            self._happens("SimEncryptor", "KeyManagement.InitializedEvent")
        self.encryption_state = "initialized"

    def _condition(self, word: str) -> None:
        if word != self._pad_seen:
            self._pad_seen = self.encryptor_device = word
