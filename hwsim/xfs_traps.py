"""This file knows how a simulated XFS4IoT host can differ from the standard, and how it can be hostile.

What KAL's framework was seen to do and the standard does not want is a trap (sources: hwsim/xfs4iot.py). The
defaults are those of a service that keeps to the standard: every trap off, but trap10. KAL's V2 has all of them on.

    trap1   unsolicited events have the type "event" instead of "unsolicited"
    trap2   interfaces are called "common", "cardReader" instead of "Common", "CardReader"
    trap3   KAL's spellings: ups, keyBlockImportFormats a, authorisationRequired, unknown (V1 schema: Unknown)
    trap4   members that break the schema: empty currency and restrictedKeyUsage, lowThreshold and retractAreas 0
    trap5   an unlisted command, bad JSON or a missing requestId ends the whole host for 2 s (off: it is refused)
    trap6   an unknown command is never acknowledged, and ends a V1 host (off: it completes with invalidCommand)
    trap7   without a version: acknowledged without one, then unsupportedCommand (off: invalidMessage). V2 only
    trap8   changed counts raise no event, a crossed threshold raises StorageChangedEvent only
    trap9   a retained card raises no storage event
    trap10  V2 events carry changed members only (off: whole units and interfaces; V1 always tells whole units)
    trap12  GenerateKCV gives the self value also when asked for zero (K1; only with a secure device)

    strict_ids        a requestId must be larger than the one before (off: any will do, as with KAL)
    wrong_request_id  completions carry the id of nobody
    no_completion     acknowledges only
    out_of_order      completions wait up to 0.5 s, then come last first, an event before each
    mute              accepts connections and commands, says nothing at all
    deep_json, huge   a Common.Status nested 10,000 deep, or with so many MB of padding
    flood             so many events on every connection at each tick
    completes_with    the code of every completion but those of GetServices and Capabilities
"""

from collections.abc import Mapping
from typing import ClassVar

from hwsim.contract import Allowed
from hwsim.xfs_changes import Manners
from hwsim.xfs_wire import Dialect

SWITCH = ("off", "on")
COMPLETION_CODES = (
    *("success", "canceled", "timeOut", "deviceNotReady", "hardwareError", "userError", "fraudAttempt"),
    *("internalError", "invalidCommand", "unsupportedCommand", "unsupportedData", "invalidData", "sequenceError"),
    *("authorizationRequired", "noCommandNonce", "invalidToken", "invalidTokenNonce", "invalidTokenHMAC"),
    *("invalidTokenFormat", "invalidTokenKeyNoValue", "notEnoughSpace", "invalidRequestID"),
)
"""What a command can end with, but commandErrorCode, which wants an error code of its own."""
DEEP = 10_000
MEGABYTE = 1_000_000
MOST_PADDING, MOST_FLOOD = 64, 10_000


class Traps:
    """The switches, as plain attributes."""

    SETTINGS: ClassVar[Mapping[str, Allowed]] = {
        "generation": ("v1", "v2", "hybrid"),
        **{f"trap{n}": SWITCH for n in (*range(1, 11), 12)},
        "strict_ids": SWITCH,
        "wrong_request_id": SWITCH,
        "no_completion": SWITCH,
        "out_of_order": SWITCH,
        "mute": SWITCH,
        "deep_json": SWITCH,
        "huge": int,
        "flood": int,
        "completes_with": COMPLETION_CODES,
    }

    def __init__(self) -> None:
        self.generation = "v2"
        self.trap1 = self.trap2 = self.trap3 = self.trap4 = self.trap5 = "off"
        self.trap6 = self.trap7 = self.trap8 = self.trap9 = self.trap12 = "off"
        self.trap10 = self.strict_ids = "on"
        self.wrong_request_id = self.no_completion = self.out_of_order = "off"
        self.mute = self.deep_json = "off"
        self.huge = self.flood = 0
        self.completes_with = "success"

    @property
    def dialect(self) -> Dialect:
        """How this host writes now."""
        event_type = "event" if self.trap1 == "on" else "unsolicited"
        return Dialect(self.generation, event_type, self.trap2 == "on", self.trap3 == "on")

    @property
    def manners(self) -> Manners:
        """What this host tells unasked now."""
        return Manners(
            v1=self.generation == "v1",
            whole=self.trap10 == "off",
            counts=self.trap8 == "off",
            cards=self.trap9 == "off",
        )

    @property
    def events_at_a_tick(self) -> int:
        """How many needless events each connection gets."""
        return max(0, min(self.flood, MOST_FLOOD))

    def spoilt(self, status: str) -> str:
        """A status message as this host sends it."""
        nested = "[" * DEEP + "]" * DEEP if self.deep_json == "on" else ""
        padding = '"' + "x" * (MEGABYTE * min(self.huge, MOST_PADDING)) + '"' if self.huge > 0 else ""
        more = "".join(f',"vendor{n}":{value}' for n, value in enumerate((nested, padding)) if value)
        return f"{status[:-1]}{more}}}"
