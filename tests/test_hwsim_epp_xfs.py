"""The XFS4IoT face of the simulated secure device, against the words of the standard and never our driver."""

import base64
from typing import Any

import pytest

from hwsim import DEVICES
from hwsim.contract import Unreachable
from hwsim.secure_des import check_value, odd
from hwsim.server import Server
from tests.secure import ANSI, ANSI_KCV, BLOCK, BLOCK_KBPK, BLOCK_KCV, BLOCK_KEY, TWO, Pad, split
from tests.xfs_host import Host, Message

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", *"abcdef")
ACTIVE: Message = {key: {} for key in DIGITS} | {"enter": {"terminate": True}, "cancel": {"terminate": True}}
ENTRY = {"keyLen": 32, "autoEnd": False, "activeKeys": ACTIVE, "verificationType": "zero"}
ATTRIBUTES = {"keyUsage": "K0", "algorithm": "T", "modeOfUse": "D"}
VERSIONS = {
    "SecureKeyEntry": "2.1",
    "ImportKey": "3.0",
    "GenerateKCV": "2.0",
    "GetKeyDetail": "2.0",
    "DeleteKey": "3.0",
    "Initialization": "3.0",
}


def b64(digits: str) -> str:
    return base64.b64encode(bytes.fromhex(digits)).decode()


class Encryptor:
    """A connection to the encryptor of a host with a pad behind it."""

    def __init__(self, pad: Pad | None = None, **settings: object) -> None:
        self.pad = pad or Pad()
        self.host = Host(**settings)
        self.v1 = settings.get("generation") == "v1"
        self.host.twin.ask_epp = self.pad
        self.host.set(epp="/run/pad.sock")
        self.channel = self.host.open("SimEncryptor")

    def send(self, name: str, payload: Message | None = None, **header: Any) -> list[Message]:
        interface = "Keyboard" if name == "SecureKeyEntry" else "KeyManagement"
        version = {} if self.v1 else {"version": VERSIONS[name]}
        return self.host.ask(self.channel, f"{interface}.{name}", payload, **version | header)

    def done(self, name: str, payload: Message | None = None) -> tuple[str, Message]:
        """Completion code and payload of a command that ends at once."""
        acknowledge, *said = self.send(name, payload)
        assert acknowledge["header"]["type"] == "acknowledge"
        return ended(said)

    def typed(self, component: str) -> tuple[str, Message]:
        """A person types a component; how SecureKeyEntry ended."""
        assert len(self.send("SecureKeyEntry", ENTRY | {"keyLen": len(component)})) == 1
        self.pad.hands(press=component)
        self.pad.hands(key="enter")
        return ended(self.host.wait(0.2))

    def part(self, name: str = "TMK", **attributes: str) -> tuple[str, Message]:
        asked = {"key": name, "keyAttributes": ATTRIBUTES | attributes, "constructing": True}
        return self.done("ImportKey", asked)

    def loaded(self, name: str, components: tuple[str, ...], **attributes: str) -> tuple[str, Message]:
        for component in components:
            assert self.typed(component)[0] == "success"
            assert self.part(name, **attributes)[0] == "success"
        return self.done(
            "ImportKey", {"key": name, "keyAttributes": ATTRIBUTES | attributes, "constructing": False}
        )


def ended(said: list[Message]) -> tuple[str, Message]:
    completion = next(m for m in said if m["header"]["type"] == "completion")
    payload = completion.get("payload") or {}
    code = completion["header"].get("completionCode") or payload["completionCode"]
    return code, {key: value for key, value in payload.items() if key not in ("completionCode", "errorDescription")}


def error(word: str) -> tuple[str, Message]:
    return "commandErrorCode", {"errorCode": word}


VERIFY = {"keyUsage": "00", "algorithm": "T", "modeOfUse": "V", "cryptoMethod": "kcvZero"}


@pytest.mark.parametrize("generation", ["v1", "v2", "hybrid"])
def test_a_ceremony_over_xfs4iot(generation: str) -> None:
    at = Encryptor(generation=generation)
    assert at.typed(TWO[0]) == ("success", {"digits": 32, "completion": "enter", "kcv": b64("4D8439")})
    assert at.part() == ("success", {"keyLength": 128})
    assert at.done("GetKeyDetail")[1]["keyDetails"]["TMK"]["loaded"] == "construct"
    assert at.done("GenerateKCV", {"key": "TMK", "keyCheckMode": "zero"}) == error("keyNoValue")
    assert at.typed(TWO[1])[1]["kcv"] == b64("E8F05D")
    at.part()
    whole = {"key": "TMK", "keyAttributes": ATTRIBUTES, "constructing": False}
    told = {"verificationData": b64(ANSI_KCV), "verifyAttributes": VERIFY, "keyLength": 128}
    assert at.done("ImportKey", whole) == ("success", told)
    assert at.done("GenerateKCV", {"key": "TMK", "keyCheckMode": "zero"}) == ("success", {"kcv": b64(ANSI_KCV)})
    block = {"keyUsage": "K0", "algorithm": "T", "modeOfUse": "D", "keyVersionNumber": "00"}
    details = {"loaded": "yes", "keyBlockInfo": block | {"exportability": "N", "keyLength": 128}}
    assert at.done("GetKeyDetail") == ("success", {"keyDetails": {"TMK": details}})
    assert at.done("GetKeyDetail", {"keyName": "TMK"}) == ("success", {"keyDetails": {"TMK": details}})
    assert at.done("GetKeyDetail", {"keyName": "TPK"}) == error("keyNotFound")
    assert at.done("DeleteKey", {"key": "TMK"}) == ("success", {})
    assert at.done("DeleteKey", {"key": "TMK"}) == error("keyNotFound")
    assert at.done("GetKeyDetail") == ("success", {"keyDetails": {}})


def test_key_events_tell_that_a_key_was_pressed_and_never_which_digit() -> None:
    at = Encryptor()
    at.send("SecureKeyEntry", ENTRY)
    at.pad.hands(press="04F")
    at.pad.hands(key="backspace")
    said = at.host.wait(0.1)
    assert [m["header"]["name"] for m in said] == ["Keyboard.KeyEvent"] * 4
    assert {m["header"]["requestId"] for m in said} == {1}
    digit = {"completion": "continue"}
    assert [m["payload"] for m in said] == [digit, digit, digit, {"completion": "backspace", "digit": "backspace"}]
    assert at.host.wait(1.0) == []


@pytest.mark.parametrize(
    ("change", "ending"),
    [
        ({"keyLen": 33}, error("invalidKeyLength")),
        ({"keyLen": 16}, error("invalidKeyLength")),
        ({"activeKeys": {}}, error("noActiveKeys")),
        ({"activeKeys": ACTIVE | {"enter": {}, "cancel": {}}}, error("noTerminatekeys")),
        ({"activeKeys": {"enter": {"terminate": True}, "one": {}}}, error("missingKeys")),
        ({"activeKeys": ACTIVE | {"doubleZero": {}}}, error("keyNotSupported")),
        ({"verificationType": "none"}, error("modeNotSupported")),
        ({"verificationType": None}, ("invalidData", {})),
        ({"keyLen": None}, ("invalidData", {})),
        ({"keyLen": "32"}, ("invalidData", {})),
        ({"cryptoMethod": "rot13"}, ("invalidData", {})),
        ({"cryptoMethod": ["aes"]}, ("invalidData", {})),
    ],
)
def test_an_entry_that_cannot_be(change: Message, ending: tuple[str, Message]) -> None:
    at = Encryptor()
    assert at.done("SecureKeyEntry", ENTRY | change) == ending


def test_how_an_entry_ends() -> None:
    at = Encryptor(Pad(idle_seconds=30))
    at.send("SecureKeyEntry", ENTRY | {"autoEnd": True, "activeKeys": {key: {} for key in DIGITS}})
    at.pad.hands(press=TWO[0])
    told = {"digits": 32, "completion": "auto", "kcv": b64("4D8439")}
    assert ended(at.host.wait(0.1)) == ("success", told)
    at.send("SecureKeyEntry", ENTRY)
    at.pad.hands(press="0452")
    at.pad.hands(key="enter")
    assert ended(at.host.wait(0.1)) == ("success", {"digits": 4, "completion": "enter"})
    assert at.part() == error("keyNoValue")
    at.send("SecureKeyEntry", ENTRY)
    at.pad.hands(press="0452")
    at.pad.hands(key="cancel")
    assert ended(at.host.wait(0.1)) == ("success", {"digits": 0, "completion": "cancel"})
    at.send("SecureKeyEntry", ENTRY)
    at.pad.wait(31)
    assert ended(at.host.wait(0.1)) == error("entryTimeout")


@pytest.mark.parametrize("end", ["timeout", "cancel", "hang up", "host gone"])
def test_whoever_no_longer_waits_leaves_nothing_typed_behind(end: str) -> None:
    at = Encryptor()
    at.send("SecureKeyEntry", ENTRY, timeout=5000)
    at.pad.hands(press=TWO[0])
    match end:
        case "timeout":
            assert ended(at.host.wait(5.1))[0] == "timeOut"
        case "cancel":
            said = at.host.ask(at.channel, "Common.Cancel")
            assert [m["header"]["completionCode"] for m in said[1:]] == ["success", "canceled"]
        case "hang up":
            at.host.close(at.channel)
            at.channel = at.host.open("SimEncryptor")
        case "host gone":
            at.host.set(trap5="on")
            at.host.send(at.channel, "nonsense")
            at.host.wait(2.1)
            at.channel = at.host.open("SimEncryptor")
    at.host.wait(0.1)
    assert at.pad.device.entry is None
    assert at.typed(TWO[1])[1]["kcv"] == b64("E8F05D"), "and the next one can type"


def test_commands_wait_while_somebody_types() -> None:
    at = Encryptor()
    at.send("SecureKeyEntry", ENTRY)
    assert len(at.send("DeleteKey", {"key": "TMK"})) == 1
    assert at.host.wait(1.0) == []
    at.pad.hands(key="cancel")
    codes = [m["header"].get("completionCode") for m in at.host.wait(0.1)]
    assert codes == [None, "success", "commandErrorCode"]


def test_key_blocks_and_cryptograms() -> None:
    at = Encryptor()
    at.loaded("KBPK", split(BLOCK_KBPK), keyUsage="K1")
    block = {"key": "TPK", "decryptKey": "KBPK", "value": base64.b64encode(BLOCK.encode()).decode()}
    told = {"verificationData": b64(BLOCK_KCV), "verifyAttributes": VERIFY, "keyLength": 128}
    assert at.done("ImportKey", block) == ("success", told)
    assert at.done("GetKeyDetail")[1]["keyDetails"]["TPK"]["keyBlockInfo"]["exportability"] == "E"
    assert at.done("ImportKey", block | {"decryptKey": "NONE"}) == error("keyNotFound")
    bad = base64.b64encode(BLOCK[:-1].encode() + b"F").decode()
    assert at.done("ImportKey", block | {"value": bad}) == error("contentInvalid")
    tmk = "CA5D92598DCA48CE8A4C76361A9269E9"
    at.loaded("TMK", split(tmk))
    sealed: Message = {
        "key": "PIK",
        "decryptKey": "TMK",
        "decryptMethod": "ecb",
        "value": b64("6701EAD6A9AD51E51AA406E2C27FCFA9"),
    }
    sealed["keyAttributes"] = {"keyUsage": "P0", "algorithm": "T", "modeOfUse": "E"}
    assert at.done("ImportKey", sealed)[1]["verificationData"] == b64("8D0A74")
    right = {"verificationData": b64("8D0A74B8"), "verifyAttributes": {"cryptoMethod": "kcvZero"}}
    assert at.done("ImportKey", sealed | right)[0] == "success"
    wrong = right | {"verificationData": b64("8D0A75")}
    assert at.done("ImportKey", sealed | wrong) == error("contentInvalid")
    assert at.done("ImportKey", sealed | {"decryptMethod": "cbc"}) == error("cryptoMethodNotSupported")
    assert at.done("ImportKey", sealed | {"decryptKey": "KBPK"}) == error("useViolation")
    assert at.done("ImportKey", sealed | {"value": "?"}) == ("invalidData", {})


def test_a_key_in_clear_is_refused_outside_a_laboratory() -> None:
    clear = {"key": "TMK", "keyAttributes": ATTRIBUTES, "value": b64("00112233445566778899AABBCCDDEEFF")}
    assert Encryptor().done("ImportKey", clear) == error("accessDenied")
    told = Encryptor(Pad(laboratory=True)).done("ImportKey", clear)
    # As recorded (xfs4iot: KCV zero of the sample key).
    assert told == ("success", {"verificationData": "+wl1", "verifyAttributes": VERIFY, "keyLength": 128})


def test_words_of_a_wrong_order() -> None:
    at = Encryptor()
    assert at.done("ImportKey", {"key": "TMK", "keyAttributes": ATTRIBUTES, "constructing": False}) == error(
        "keyNoValue"
    )
    assert at.done("ImportKey", {"key": "TMK", "constructing": True}) == ("invalidData", {})
    assert at.done("ImportKey", {"keyAttributes": ATTRIBUTES}) == ("invalidData", {})
    at.typed(TWO[0])
    at.part("TMK")
    at.typed(TWO[1])
    assert at.part("OTHER")[0] == "sequenceError"
    nonsense: object
    for nonsense in (None, 1, [], {}, "", "\x00"):
        for name in ("ImportKey", "GenerateKCV", "DeleteKey", "GetKeyDetail"):
            if (name, nonsense) != ("DeleteKey", None):
                asked: Message = {"key": nonsense, "keyName": nonsense or "?", "keyCheckMode": nonsense}
                assert at.done(name, asked)[0] in ("invalidData", "commandErrorCode")
    assert list(at.pad.ask("state")["slots"]) == ["TMK"]


def test_deleting_no_key_by_name_deletes_all_of_them() -> None:
    at = Encryptor()
    at.loaded("TMK", TWO)
    at.loaded("KBPK", split(BLOCK_KBPK), keyUsage="K1")
    assert at.done("DeleteKey") == ("success", {})
    assert not at.pad.ask("state")["slots"]


def test_initialization_erases_and_is_told_each_time() -> None:
    at = Encryptor()
    at.loaded("TMK", TWO)
    for _ in range(2):
        assert at.done("Initialization") == ("success", {})
        told = [m["header"]["name"] for m in at.host.wait(0.2)]
        assert told.count("KeyManagement.InitializedEvent") == 1
    assert not at.pad.ask("state")["slots"]
    assert at.host.payload("SimEncryptor")["keyManagement"]["encryptionState"] == "initialized"
    at.loaded("TMK", TWO)
    at.host.wait(1.0)
    assert at.host.payload("SimEncryptor")["keyManagement"]["encryptionState"] == "ready"


def test_trap_12_gives_the_self_value() -> None:
    at = Encryptor()
    at.loaded("TMK", TWO)
    asked = {"key": "TMK", "keyCheckMode": "zero"}
    itself = check_value("T", bytes.fromhex(ANSI), "self")
    assert at.done("GenerateKCV", asked)[1]["kcv"] == b64(ANSI_KCV)
    assert at.done("GenerateKCV", asked | {"keyCheckMode": "self"})[1]["kcv"] == b64(itself)
    at.host.set(trap12="on")
    assert at.done("GenerateKCV", asked)[1]["kcv"] == b64(itself)


def test_the_self_value_is_the_recorded_one_where_parity_is_not_fixed() -> None:
    """K1 answered BB315E for the sample key, whose parity is not odd. A pad that fixes parity cannot: the value
    encrypts the bytes of the key itself, parity bits and all."""
    sample = bytes.fromhex("00112233445566778899AABBCCDDEEFF")
    assert check_value("T", sample, "self") == "BB315E"
    assert check_value("T", odd(sample), "self") != "BB315E"
    assert check_value("T", odd(sample)) == check_value("T", sample) == "FB0975"


def test_a_pad_without_power_and_one_that_was_opened() -> None:
    at = Encryptor()
    at.loaded("TMK", TWO)
    at.host.wait(1.0)

    def state() -> tuple[str, str]:
        told = at.host.payload("SimEncryptor")
        return told["common"]["device"], told["keyManagement"]["encryptionState"]

    assert state() == ("online", "ready")
    at.pad.hands(act="cut")
    at.host.wait(1.0)
    assert state() == ("offline", "ready")
    for name in ("GetKeyDetail", "Initialization", "SecureKeyEntry"):
        assert at.done(name, ENTRY if name == "SecureKeyEntry" else None) == ("hardwareError", {})
    at.pad.hands(act="restore")
    at.host.wait(1.0)
    assert state() == ("online", "ready")
    at.pad.hands(act="tamper")
    told = [m["payload"]["common"]["device"] for m in at.host.wait(1.0) if "common" in m["payload"]]
    assert told == ["fraudAttempt"]
    assert state() == ("fraudAttempt", "notReady")
    assert at.done("SecureKeyEntry", ENTRY) == ("fraudAttempt", {})
    assert at.done("GetKeyDetail") == ("success", {"keyDetails": {}})
    at.host.ask(at.channel, "KeyManagement.Reset")
    at.host.wait(1.0)
    assert state() == ("fraudAttempt", "notReady"), "a reset heals nothing"
    at.pad.hands(act="close")
    at.host.wait(1.0)
    assert state() == ("online", "ready")


def test_power_that_goes_while_somebody_types_ends_the_entry() -> None:
    at = Encryptor()
    at.send("SecureKeyEntry", ENTRY)
    at.pad.hands(press="0452")
    at.pad.hands(act="cut")
    assert ended(at.host.wait(0.2)) == ("hardwareError", {})
    at.pad.hands(act="restore")
    assert at.typed(TWO[1])[0] == "success"


def test_for_another_pad_the_host_starts_again_and_tells_its_number() -> None:
    at = Encryptor()
    at.host.wait(1.0)

    def serial() -> str:
        payload = at.host.payload("SimEncryptor", "Common.Capabilities")
        return str(payload["common"]["deviceInformation"][0]["serialNumber"])

    assert serial() == "2411-0001"
    at.pad.hands(act="swap", serial="2411-0002")
    at.host.wait(0.6)
    assert at.channel in at.host.gone
    at.host.wait(2.1)
    assert serial() == "2411-0002"


@pytest.mark.parametrize("generation", ["v1", "v2"])
def test_key_commands_are_listed_and_served_only_with_a_pad(generation: str) -> None:
    def listed(host: Host) -> dict[str, list[str]]:
        payload = host.payload("SimEncryptor", "Common.Capabilities")
        return {n: c["versions"] for i in payload["interfaces"] for n, c in i["commands"].items()}

    plain = Host(generation=generation)
    assert not [name for name in listed(plain) if "Import" in name or "SecureKey" in name]
    channel = plain.open("SimEncryptor")
    version = {} if generation == "v1" else {"version": "3.0"}
    assert ended(plain.ask(channel, "KeyManagement.ImportKey", {"key": "X"}, **version))[0] == "unsupportedCommand"
    details = ended(plain.ask(channel, "KeyManagement.GetKeyDetail"))[1]["keyDetails"]
    assert set(details) == {"TMK", "TPK", "TAK"}, "the plain settings are as they were"
    found = listed(Encryptor(generation=generation).host)
    for name, number in VERSIONS.items():
        interface = "Keyboard" if name == "SecureKeyEntry" else "KeyManagement"
        assert found[f"{interface}.{name}"] == ["1.0" if generation == "v1" else number]


def test_a_twin_that_nobody_gave_a_pad_to_says_that_it_does_not_answer() -> None:
    host = Host(epp="/nowhere")
    host.wait(0.5)
    channel = host.open("SimEncryptor")
    assert ended(host.ask(channel, "KeyManagement.GetKeyDetail"))[0] == "hardwareError"


def test_a_server_gives_its_twins_a_way_to_their_pads() -> None:
    from hwsim.fleet import Fleet

    terminal = {"devices": {"e": {"kind": "epp"}, "x": {"kind": "xfs4iot"}}}
    server = Server(Fleet.model_validate({"terminals": {"atm1": terminal}}), run=None, kinds=DEVICES)  # type: ignore[arg-type]
    for station in server._stations.values():
        with pytest.raises(Unreachable):
            station.device.ask_epp("/nowhere", {})  # type: ignore[union-attr]
        assert station.device.ask_epp is server._secure_link  # type: ignore[union-attr]


def test_the_face_keeps_no_key_and_no_block() -> None:
    at = Encryptor()
    at.loaded("KBPK", split(BLOCK_KBPK), keyUsage="K1")
    block = {"key": "TPK", "decryptKey": "KBPK", "value": base64.b64encode(BLOCK.encode()).decode()}
    at.done("ImportKey", block)
    shown = repr(vars(at.host.twin)) + repr(at.host.heard)
    for key in (*split(BLOCK_KBPK), BLOCK_KBPK, BLOCK_KEY, BLOCK):
        assert key not in shown.upper()
        assert base64.b64encode(key.encode()).decode() not in shown
