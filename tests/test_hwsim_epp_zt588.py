"""The ZT588 face of the simulated secure device, against its protocol page and never our driver."""

from typing import Any

import pytest

from hwsim import change_setting
from hwsim.epp import Epp
from tests.secure import ANSI, ANSI_KCV, TMK, TWO, Pad, split

STX, ETX = b"\x02", b"\x03"


def frame(text: str | bytes) -> bytes:
    body = text if isinstance(text, bytes) else text.encode("latin-1")
    inner = f"{len(body):03d}".encode() + body + ETX
    check = 0
    for byte in inner:
        check ^= byte
    return STX + inner + f"{check:02X}".encode()


class Serial:
    """A ZT588 with a secure device behind it, for one that knows its frames."""

    def __init__(self, pad: Pad) -> None:
        self.pad = pad
        self.twin = Epp()
        self.twin.ask_epp = pad
        change_setting(self.twin, "epp", "/run/pad.sock")

    def __call__(self, text: str) -> bytes:
        """The text of the reply; empty when there is none."""
        reply = self.twin.receive(frame(text))
        if not reply:
            return b""
        assert reply == frame(reply[4:-3])
        return reply[4:-3]


def master(slot: str, key: tuple[str, ...] = TWO, **options: Any) -> Serial:
    pad = Pad(**options)
    pad.assembled(TMK | {"slot": slot}, key)
    return Serial(pad)


PIK = "6701EAD6A9AD51E51AA406E2C27FCFA9"
SIGN_ON = split("CA5D92598DCA48CE8A4C76361A9269E9")


def test_a_key_under_the_master_key_answers_with_its_check_value() -> None:
    at = master("00", SIGN_ON)
    assert at(f"2004032{PIK}") == b"08D0A74"
    assert at.pad.ask("state")["slots"]["40"]["usage"] == "P0"
    assert at("20040" + "00") == b"0", "erased"
    assert list(at.pad.ask("state")["slots"]) == ["00"]
    assert at("20040" + "00") == b"\xe4", "not found"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (f"2994032{PIK}", 0xE4),
        (f"2003032{PIK}0", 0xE8),
        ("2004032", 0xE8),
        ("2", 0xE8),
        ("20040", 0xE8),
        (f"2004042{PIK}", 0xEB),
        (f"2004039{PIK}", 0xEB),
        (f"20040x2{PIK}", 0xEB),
        (f"200403x{PIK}", 0xE9),
        ("2004032" + "ZZ" * 16, 0xE9),
        ("2004031" + PIK[:16], 0xE3),
        ("2004032" + "00" * 16, 0xE7),
        (f"2004032{PIK}", 0xEC),
        (f"1001{1}{ANSI}", 0xEC),
        (f"2004000{PIK}", 0xE8),
    ],
)
def test_error_codes(text: str, code: int) -> None:
    at = master("00")
    assert at(text) == bytes((code,))
    assert list(at.pad.ask("state")["slots"]) == ["00"]


def test_a_blank_pad_wants_its_first_key_and_a_laboratory_gives_it_in_clear() -> None:
    at = Serial(Pad())
    assert at(f"2004032{PIK}") == b"\xe1"
    assert settings(at) & 1
    assert at(f"10011{ANSI}") == b"\xec"
    at = Serial(Pad(laboratory=True))
    assert at(f"10011{ANSI}") == b"0" + ANSI_KCV.encode()
    assert not settings(at) & 1
    assert at("10011" + "0123456789ABCDEF" * 2) == b"\xe7", "equal halves"


def settings(at: Serial) -> int:
    """The first byte of the settings in the answer to command 3."""
    return int(at("3")[1 + 50 + 48 :][:2], 16)


def test_the_information_is_that_of_the_device_behind_and_without_it_there_is_no_pad() -> None:
    at = master("00")
    assert at("3").endswith(b"24110001")
    at.pad.hands(act="swap", serial="2411-0002")
    assert at("3").endswith(b"24110002")
    assert settings(at) & 1
    at.pad.hands(act="cut")
    assert at("3") == b""
    assert at.twin.tick(1.0) == b""


def test_an_opened_pad_and_a_wiped_one_are_blank() -> None:
    at = master("00")
    at.pad.hands(act="tamper")
    assert settings(at) & 1
    assert at(f"2004032{PIK}") == b"\xe1"
    at = master("00")
    assert at("5031") == b"0"
    assert not at.pad.ask("state")["slots"]


def test_the_face_keeps_no_cryptogram() -> None:
    at = master("00", SIGN_ON)
    at(f"2004032{PIK}")
    assert PIK not in repr(vars(at.twin)).upper()
