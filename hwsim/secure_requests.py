"""This file knows what may be asked of the simulated secure device in JSON: by a service provider, and by hands.

Two sides, because two kinds of people stand at them. The device side is what the pad's maker gives a computer:

    {"do": "state"}                          its number, whether it was opened, its slots without their keys
    {"do": "begin", "digits": 32}            let a person type a component: also auto, method, algorithm
    {"do": "entry"} {"do": "cancel"}         how far the person is; end it
    {"do": "part", "slot": "TMK", "usage": "K0", "algorithm": "T", "mode": "D"}      and "complete", likewise
    {"do": "block", "slot": "TPK", "under": "TMK", "value": "B0096..."}              a TR-31 key block
    {"do": "cryptogram", ..., "under": "TMK", "value": HEX, "expected": "08D7B4"}    and "clear", with --lab
    {"do": "check", "slot": "TMK", "method": "zero"} {"do": "delete", "slot": "TMK"} {"do": "wipe"}

The keypad side is what hands can do at the pad itself, and the only one that takes a digit of a component:

    {"press": "0123456789ABCDEF"} {"key": "enter"} {"look": true}
    {"act": "tamper"} close, cut, restore, swap with "serial": a number
    {"act": "cut_at", "step": "after complete"}     the power goes there: before it is done, or before it is said

The answer is {"ok": {...}} or {"refused": word, "why": sentence}; nothing in it is secret. A device without power
does not answer, and raises NoPower.
"""

from collections.abc import Callable, Mapping

from hwsim.contract import Json
from hwsim.secure_des import check_value
from hwsim.secure_device import NoPower, SecureDevice, Slot
from hwsim.secure_rules import Refused

MOMENTS = ("before", "after")


class Desk:
    """Answers requests for one device."""

    def __init__(self, device: SecureDevice) -> None:
        self.device = device
        self._cut_at = ("", "")
        self._verbs: Mapping[str, Callable[[Json], Json | None]] = {
            "state": self._state,
            "begin": self._begin,
            "entry": self._entry,
            "cancel": lambda _: self.device.cancel_entry(),
            "part": lambda asked: _told(self.device.store_part(*_use(asked))),
            "complete": lambda asked: _told(self.device.complete(*_use(asked))),
            "block": self._block,
            "cryptogram": self._cryptogram,
            "clear": lambda asked: _told(self.device.import_clear(*_use(asked), _bytes(asked))),
            "check": lambda asked: {"check_value": self.device.check(_text(asked, "slot"), _text(asked, "method"))},
            "delete": lambda asked: self.device.delete(_text(asked, "slot")),
            "wipe": lambda _: self.device.wipe(),
        }

    def ask(self, asked: Json) -> Json:
        """What a service provider asks. Raises NoPower."""
        verb = asked.get("do")
        if not isinstance(verb, str) or verb not in self._verbs:
            return {
                "refused": "invalidData",
                "why": f"there is no such request; there are: {', '.join(self._verbs)}",
            }
        self._cut("before", verb)
        answer = _answered(lambda: self._verbs[verb](asked))
        self._cut("after", verb)
        return answer

    def touch(self, asked: Json) -> Json:
        """What somebody does at the pad. Power or none: hands can always do it, and the display is seen."""
        return _answered(lambda: self._touched(asked))

    def _touched(self, asked: Json) -> Json:
        device = self.device
        if "press" in asked:
            return {"taken": device.press(_text(asked, "press"))} | self._display()
        if "key" in asked:
            device.press_key(_text(asked, "key"))
            return self._display()
        match asked.get("act"):
            case "tamper":
                device.tamper()
            case "close":
                device.close_case()
            case "cut":
                device.cut_power()
            case "restore":
                device.restore_power()
            case "swap":
                device.swap(_text(asked, "serial"))
            case "cut_at":
                moment, _, verb = _text(asked, "step").partition(" ")
                if moment not in MOMENTS or verb not in self._verbs:
                    raise Refused("invalidData", f"step is before or after one of {', '.join(self._verbs)}")
                self._cut_at = moment, verb
            case None if "look" in asked:
                pass
            case _:
                raise Refused("invalidData", "act is tamper, close, cut, restore, swap or cut_at")
        return self._display()

    def _cut(self, moment: str, verb: str) -> None:
        if self._cut_at == (moment, verb):
            self._cut_at = ("", "")
            self.device.cut_power()
            raise NoPower

    def _display(self) -> Json:
        """What somebody before the pad sees."""
        device, entry = self.device, self.device.entry
        seen = {"serial": device.serial, "power": device.power, "tampered": device.tampered}
        if entry is None or not device.power:
            return seen | {"typing": False}
        return seen | {"typing": not entry.ended, "entered": entry.entered, "wanted": entry.wanted}

    def _state(self, _: Json) -> Json:
        device = self.device
        device.must_have_power()
        slots = {name: _told(slot) for name, slot in device.slots.items()}
        return {"serial": device.serial, "tampered": device.tampered, "slots": slots}

    def _begin(self, asked: Json) -> Json:
        digits = asked.get("digits")
        if type(digits) is not int:
            raise Refused("invalidKeyLength", "digits is a whole number")
        algorithm = _option(asked, "algorithm") or ("D" if digits == 16 else "T")
        method = _option(asked, "method") or "zero"
        self.device.begin_entry(digits, auto=asked.get("auto") is True, method=method, algorithm=algorithm)
        return {}

    def _entry(self, _: Json) -> Json:
        self.device.must_have_power()
        entry = self.device.entry
        if entry is None:
            raise Refused("keyNoValue", "nobody types")
        told: Json = {"entered": entry.entered, "keys": entry.asked(), "ended": entry.ended}
        return told | ({"check_value": entry.check_value} if entry.check_value else {})

    def _block(self, asked: Json) -> Json:
        name, under = _text(asked, "slot"), _text(asked, "under")
        return _told(self.device.import_block(name, under, _text(asked, "value")))

    def _cryptogram(self, asked: Json) -> Json:
        under, expected = _text(asked, "under"), _option(asked, "expected")
        return _told(self.device.import_cryptogram(*_use(asked), under, _bytes(asked), expected))


def _answered(work: Callable[[], Json | None]) -> Json:
    try:
        return {"ok": work() or {}}
    except Refused as no:
        return {"refused": no.code, "why": str(no)}


def _told(slot: Slot) -> Json:
    """What may be known of a slot."""
    told: Json = {"loaded": slot.loaded, "usage": slot.usage, "algorithm": slot.algorithm, "mode": slot.mode}
    told |= {"version": slot.version, "exportability": slot.exportability, "bits": 8 * len(slot.key)}
    # The sum of some components is nobody's key: its check value is not told.
    return told | ({"check_value": check_value(slot.algorithm, slot.key)} if slot.loaded else {"parts": slot.parts})


def _text(asked: Json, name: str) -> str:
    value = asked.get(name)
    if not isinstance(value, str):
        raise Refused("invalidData", f"{name} is missing, or no text")
    return value


def _option(asked: Json, name: str) -> str:
    return _text(asked, name) if asked.get(name) is not None else ""


def _use(asked: Json) -> tuple[str, str, str, str]:
    return _text(asked, "slot"), _text(asked, "usage"), _text(asked, "algorithm"), _text(asked, "mode")


def _bytes(asked: Json) -> bytes:
    try:
        return bytes.fromhex(_text(asked, "value"))
    except ValueError:
        raise Refused("invalidValue", "value is no hex text") from None
