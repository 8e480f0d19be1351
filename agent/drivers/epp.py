"""This file knows the encrypting PIN pad SZZT ZT588, as far as a monitor may: who it is, is it blank, what ails it.

    02 LEN(3 decimal digits) TEXT 03 CK(2 hex digits)     CK: XOR of LEN, TEXT and 03; 9600 8N1
    ask    "3"
    reply  status(1) user(50) scan codes(48) settings(20) function(8) model(6) hardware(3) software(3) made(4)
           number(4); settings are 10 bytes in hex, of the first of which bit 0 says blank (no initial key, IMK)
           and bit 1 that the keypad takes input
    error  a text that begins with E0 to EF

Source: the kiosk program smartkiosk/smartware, lib/smartware/drivers: pin_pad/zt588.rb (commands, fields, errors)
and common/szzt_connection.rb (frames), which served real pads. No text of the maker is public, so all of it is
unproven, the two ways to write hex (digits above 9 as A to F, or as 3A to 3F, "broken hex") above all.

Key presses arrive as single bytes outside the frames. They are PIN digits or may be, so each is forgotten at once:
nothing is kept, counted or said of them. Only a frame that lost its end could keep keys that are pressed behind
it, and such a frame is thrown away after WHOLE_WITHIN seconds. The scan code table and the user's area of the
reply are never read, so that frame stands in no transcript.

The protocol has no question for key slots: presence and check value of a key are told only in reply to loading it.
So the one slot that shows is key.imk, from the blank bit. That the pad was opened is inferred: it held its initial
key and is blank now, within one life of this driver and with the same serial number; a wipe by its owner looks the
same. A pad that was blank from the beginning tells nothing about tampering.

With `keys = true` it loads a key under a key and erases one (zt588.py). Such a command is said once and never
repeated: without a reply, nobody knows whether the pad has done it. What follows a reply that did not come is left
for a while to a late one, which could not be told from its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import ClassVar

from agent.drivers.contract import Access, Line
from agent.drivers.dialogue import Dialogue, Question
from agent.drivers.framing import BAD, MORE, Deframer, xor_of
from agent.drivers.hearing import BadFrames
from agent.drivers.key_operations import refusal
from agent.drivers.transcript import Transcript
from agent.drivers.zt588 import (
    ERRORS,
    LOW_BATTERY,
    UNTOLD,
    VERBS,
    check_value,
    erase,
    load,
    octet,
    unsuited,
)
from agent.model import Operation, Outcome, Reading

STX, ETX = 0x02, 0x03
LIMIT = 207
INFO = b"\x020013\x0301"
INFO_WAIT, BYTE_GAP, WHOLE_WITHIN = 1.5, 0.2, 1.5  # at 1200 baud a reply takes 1.3 s
KEY_WAIT, DRAIN = 5.0, 2.5

# Scan codes are the host's choice: characters, the four function keys, and what masks a PIN digit.
KEYS = frozenset(range(0x20, 0x7F)) | {0x07, 0x08, 0x0D, 0x1B, 0x80, 0xFF}

INFO_SIZE = 147
SETTINGS, MODEL, HARDWARE = slice(99, 101), slice(127, 133), slice(133, 136)
SOFTWARE, MADE, NUMBER = slice(136, 139), slice(139, 143), slice(143, 147)
BLANK, INPUT = 0x01, 0x02
HEX = slice(113, 115)
BROKEN_HEX = 0x30


@dataclass(frozen=True, slots=True)
class EppOptions:
    """poll: seconds between two questions for its information, more than 0 and at most 5.
    keys: whether keys are loaded into this pad, under dual control, through this agent.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    poll: float = 1.0
    keys: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.poll <= 5:
            raise ValueError("poll must be more than 0 and at most 5 seconds")


class Epp:
    """A ZT588. At most 207 bytes are buffered. A pad that was set to another speed needs `baud` in the config; the
    maker's are 1200 to 115200."""

    line: ClassVar[Line] = Line(baud=9600)
    access: ClassVar[frozenset[Access]] = frozenset({"own"})
    why_not: ClassVar[Mapping[Access, str]] = {
        "listen": "key presses and PIN blocks travel on a PIN pad's line; nobody listens there"
    }
    operations: ClassVar[Mapping[str, str]] = {}
    moving: ClassVar[frozenset[str]] = frozenset()
    Options: ClassVar[type[EppOptions]] = EppOptions

    def __init__(self, options: EppOptions, access: Access = "own") -> None:
        self.transcript = Transcript()
        self._dialogue = Dialogue((Question("info", INFO, options.poll, INFO_WAIT),))
        self._deframer = Deframer(_measure, LIMIT, BYTE_GAP)
        self._unfinished_since = inf
        self._bad_frames = BadFrames()
        self._serial = ""
        self._held = False
        self._keys = options.keys
        self._jobs: dict[str, Operation] = {}
        self._broken: bool | None = None
        self._outgoing = b""

    def receive(self, data: bytes, now: float) -> list[Reading | Outcome]:
        """Readings of whole replies; key presses are forgotten. See the contract."""
        self._drop_what_never_ends(now)
        frames = self._deframer.feed(data, now)
        if not self._deframer.kept:
            self._unfinished_since = inf
        elif frames or self._unfinished_since == inf:
            self._unfinished_since = now
        return [*self._replies(frames, now), *self._ended()]

    def tick(self, now: float) -> list[Reading | Outcome]:
        """Ask what is due, and judge silence."""
        self._drop_what_never_ends(now)
        out = self._replies(self._deframer.expire(now), now)
        if question := self._dialogue.next(now):
            self._sent(question)
            self._outgoing += question
        if self._dialogue.lapsed is not None:
            self._dialogue.pause(DRAIN if self._keys else 0.0, now)
            out += self._dialogue.link_state(now, self._deframer.skipped)
        return [*out, *self._bad_frames.report(self._deframer.bad, now), *self._ended()]

    def outgoing(self) -> bytes:
        """Bytes to send since the last call."""
        data, self._outgoing = self._outgoing, b""
        return data

    def perform(self, operation: Operation, now: float) -> None:
        """Begin a key operation; there are no others."""
        if not self._keys:
            detail = f"this device has no operation {operation.verb}: the agent only reads this pad"
            self._dialogue.end(operation.id, "refused", detail, now)
            return
        why = refusal(operation, VERBS) or unsuited(operation) or self._busy(operation)
        if why == UNTOLD:
            self._dialogue.end(operation.id, "refused", why, now, facts={"state": "untold"})
            return
        if not (why or self._dialogue.silent):
            self._jobs[operation.id] = replace(operation, opaque=b"")
        question = Question(operation.verb, b"" if why else self._command(operation), 0.0, KEY_WAIT)
        self._dialogue.undertake(replace(question, operation=operation.id), why, now)

    def _busy(self, operation: Operation) -> str:
        """A deletion may wait for the end of another operation, nothing else may."""
        if len(self._jobs) > (operation.verb == "key_delete"):
            return "one key operation at a time is done"
        return "" if self._broken is not None else "the pad has not told yet how it writes hex"

    def _command(self, operation: Operation) -> bytes:
        if operation.verb == "key_check":
            return INFO
        command = load if operation.verb == "key_import" else erase
        return command(operation, broken=bool(self._broken))

    def _sent(self, data: bytes) -> None:
        """Note what goes to the port; of a key nothing is kept, neither in the transcript nor for a repetition."""
        pending = self._dialogue.pending
        if pending is None or not pending.operation:
            self.transcript.sent("who are you, and how?", data)
            return
        self._dialogue.pending = replace(pending, data=b"")
        self.transcript.sent(f"{pending.name} of slot {self._jobs[pending.operation].arguments['slot']}")

    def _ended(self) -> list[Outcome]:
        outcomes = self._dialogue.outcomes()
        for outcome in outcomes:
            self._jobs.pop(outcome.operation, None)
        return outcomes

    def _drop_what_never_ends(self, now: float) -> None:
        if now - self._unfinished_since > WHOLE_WITHIN:
            self._deframer.drop()
            self._unfinished_since = inf

    def _replies(self, frames: list[bytes], now: float) -> list[Reading]:
        return [reading for frame in frames if frame[0] == STX for reading in self._reply(frame, now)]

    def _reply(self, frame: bytes, now: float) -> list[Reading]:
        text, pending = frame[4:-3], self._dialogue.pending
        job = self._jobs.get(pending.operation) if pending else None
        if job is not None and job.verb != "key_check" and len(text) >= INFO_SIZE:
            job = None  # a late information, and the reply is still to come
            self._dialogue.heard()
        else:
            self._dialogue.answered()
        up = self._dialogue.link_state(now, self._deframer.skipped)
        if job is not None and (job.verb != "key_check" or len(text) < INFO_SIZE):
            return up + self._key_reply(job, text, now)
        if 0xE0 <= text[0] <= 0xEF:
            return up + self._error(text[0], now)
        settings = octet(text[SETTINGS]) if len(text) >= INFO_SIZE else None
        if settings is None:
            self.transcript.heard("a reply that is not a ZT588's information")
            return [Reading("link.state", "up", now, raw="it answers, but not as a ZT588 does")]
        self._broken = octet(text[HEX]) == BROKEN_HEX
        if job is not None:
            state = "missing" if settings & BLANK else "loaded"
            self._dialogue.end(job.id, "done", f"the initial key is {state}", now, facts={"state": state})
        return up + self._information(text, settings, now)

    def _key_reply(self, job: Operation, text: bytes, now: float) -> list[Reading]:
        """The reply to a key command. Its error is not the pad's: it says what is wrong with the command."""
        result, detail, raw, facts = "done", "the pad has erased the slot; it cannot be read back", "", {}
        kcv = check_value(text[1:])
        if 0xE0 <= text[0] <= 0xEF:
            raw = ERRORS.get(text[0], f"vendor.{text[0]:02X}")
            result, detail = "failed", f"the pad does not do it: {raw}"
        elif job.verb == "key_delete":
            facts = {"state": "missing"}
        elif job.verb == "key_import" and kcv:
            detail, facts = f"the pad has loaded the key with check value {kcv}", {"kcv": kcv, "state": "loaded"}
        else:
            result, raw = "failed", "no kcv" if job.verb == "key_import" else "no information"
            detail = "the pad does not answer this as a ZT588 does, so nothing proves what it has done"
        self.transcript.heard(f"{job.verb} {result} {raw}".rstrip())
        self._dialogue.end(job.id, result, detail, now, raw, facts)
        if text[0] == LOW_BATTERY:
            return [Reading("epp.battery", "low", now, f"{LOW_BATTERY:02X}")]
        return []

    def _error(self, code: int, now: float) -> list[Reading]:
        word, raw = ERRORS.get(code, f"vendor.{code:02X}"), f"{code:02X}"
        self.transcript.heard(f"error {raw}, {word}")
        low = [Reading("epp.battery", "low", now, raw)] if code == LOW_BATTERY else []
        return [Reading("epp.error", word, now, raw), *low]

    def _information(self, text: bytes, settings: int, now: float) -> list[Reading]:
        blank, raw = bool(settings & BLANK), f"settings {settings:02X}"
        model, hardware, software = (_plain(text[field]) for field in (MODEL, HARDWARE, SOFTWARE))
        made, number = _plain(text[MADE]), _plain(text[NUMBER])
        serial = f"{made}-{number}".strip("-")  # four digits alone would not tell two pads apart
        known = (
            Reading("device.model", model, now, f"hardware {hardware}"),
            Reading("device.firmware", software, now),
            Reading("device.serial", serial, now, f"made {made}, number {number}"),
        )
        self.transcript.heard(f"{model} {serial}, {'blank' if blank else 'initial key loaded'}, {raw}")
        return [
            Reading("epp.state", "notInitialized" if blank else "initialized", now, raw),
            Reading("key.imk.state", "missing" if blank else "loaded", now, raw),
            Reading("epp.input", "on" if settings & INPUT else "off", now, raw),
            Reading("epp.error", "ok", now),
            Reading("epp.battery", "ok", now, "it answers without error E0", inferred=True),
            *self._tamper(blank, serial, now),
            *(reading for reading in known if reading.value),
        ]

    def _tamper(self, blank: bool, serial: str, now: float) -> list[Reading]:
        if serial != self._serial:
            self._serial, self._held = serial, False  # another pad: its past is not known
        self._held = self._held or not blank
        if not self._held:
            return []
        word, why = "ok", "it holds its initial key"
        if blank:
            word, why = "tampered", "it held its initial key and is blank now"
        return [Reading("epp.tamper", word, now, why, inferred=True)]


def _measure(data: bytes) -> int:
    """See framing.Measure. A key press is a frame of its own, so it neither stays in a buffer nor counts as bad."""
    if data[0] in KEYS:
        return 1
    digits = data[1:4]
    if data[0] != STX or (digits and not digits.isdigit()):
        return BAD
    if len(digits) < 3:
        return MORE
    size = 7 + int(digits)
    if not 8 <= size <= LIMIT:
        return BAD
    if len(data) < size:
        return MORE
    good = data[size - 3] == ETX and octet(data[size - 2 : size]) == xor_of(data[1 : size - 2])
    return size if good else BAD


def _plain(field: bytes) -> str:
    """A field as text without its padding, or in hex when it is no text."""
    text = field.strip(b" \x00")
    return text.decode("ascii") if all(0x20 <= byte < 0x7F for byte in text) else field.hex().upper()
