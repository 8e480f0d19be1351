"""The simulated secure device against every published vector that a pad can answer."""

from typing import Any

import pytest

from hwsim.secure_block import BlockError, block_keys, open_block
from hwsim.secure_des import LENGTHS, WEAK, Cipher, check_value, odd, unsound
from hwsim.secure_rules import PUBLIC
from tests.secure import (
    FILE,
    KBPK,
    TMK,
    Pad,
    split,
    vectors,
)

Json = dict[str, Any]


def of(*categories: str) -> pytest.MarkDecorator:
    found = [v for category in categories for v in vectors(category)]
    return pytest.mark.parametrize("vector", found, ids=[v["name"] for v in found])


def algorithm(key: str) -> str:
    return "D" if len(key) == 16 else "T"


def halves(part: str) -> str:
    """A key of double length with this part and a sound one, in parity that hides the part."""
    return bytes(byte ^ 1 for byte in bytes.fromhex(part)).hex() + "0E329232EA6D0D73"


@of("tdes")
def test_ciphers(vector: Json) -> None:
    given, expected = vector["inputs"], vector["expected"]
    if "x0" in given:
        x = bytes.fromhex(given["x0"])
        for i in range(16):
            cipher = Cipher("D", x)
            x = cipher.decrypt(x) if i % 2 else cipher.encrypt(x)
        assert x.hex().upper() == expected["x16"]
        return
    cipher = Cipher(algorithm(given["key"]), bytes.fromhex(given["key"]))
    sealed, clear = bytes.fromhex(expected["ciphertext"]), bytes.fromhex(given["plaintext"])
    opened = cipher.cbc_decrypt(bytes.fromhex(given["iv"]), sealed) if "iv" in given else cipher.ecb_decrypt(sealed)
    assert opened == clear
    if "iv" not in given:
        assert b"".join(cipher.encrypt(block) for block in cipher.blocks(clear)) == sealed


@of("parity")
def test_parity(vector: Json) -> None:
    assert odd(bytes.fromhex(vector["inputs"]["key"])).hex().upper() == vector["expected"]["adjusted"]


@of("weak")
def test_weak_parts_are_refused_in_any_parity(vector: Json) -> None:
    given = vector["inputs"]
    pad = Pad(laboratory=True)
    for part in (given.get("key1", given.get("key")), given.get("key2", given.get("key"))):
        for key in (halves(part), halves(part)[16:] + halves(part)[:16]):
            assert pad.assembled(TMK, split(key))["refused"] == "contentInvalid"
            assert not pad.ask("state")["slots"]


def test_the_weak_keys_are_the_published_ones() -> None:
    tables = FILE["tables"]
    published = [*tables["des_weak_keys"], *(part for pair in tables["des_semi_weak_pairs"] for part in pair)]
    assert {bytes(b & 0xFE for b in bytes.fromhex(part)) for part in published} == WEAK


@of("degenerate")
def test_degenerate_keys_are_refused(vector: Json) -> None:
    answer = Pad().assembled(TMK, split(vector["inputs"]["key"]))
    if vector["expected"]["pycryptodome"] == "accepted":
        assert answer["ok"]["loaded"]
    else:
        assert answer["refused"] == "contentInvalid"


@of("kcv")
def test_check_values(vector: Json) -> None:
    given, expected = vector["inputs"], vector["expected"]["kcv"]
    aes = given["method"].startswith("AES")
    use = TMK | {"algorithm": "A" if aes else algorithm(given["key"])}
    pad = Pad(single=True)
    assert pad.assembled(use, split(given["key"]))["ok"]["loaded"]
    method = "cmac" if "CMAC" in given["method"] else "zero"
    found = pad.ask("check", slot="TMK", method=method)["check_value"]
    if given["method"] == "AES-ZERO":
        assert found != expected, "PCI PIN 15-1 does not allow it: the pad gives CMAC"
    else:
        assert found[: len(expected)] == expected
        assert len(found) == (10 if method == "cmac" else 6), "never more than 3 bytes of the encrypted zeros"


@of("components")
def test_components(vector: Json) -> None:
    components, expected = vector["inputs"]["components"], vector["expected"]
    pad = Pad(single=True)
    use = TMK | {"algorithm": algorithm(components[0])}
    for component, kcv in zip(components, expected["component_kcvs"], strict=True):
        assert pad.typed(component)["check_value"] == kcv
        part = pad.ask("part", **use)
        assert not part["loaded"]
        assert "check_value" not in part, "nobody learns the check value of half a key"
    answer = pad.desk.ask({"do": "complete", **use})
    if "refused" in vector["name"]:
        assert answer["refused"] == "contentInvalid"
        assert not pad.ask("state")["slots"], "and the components are gone"
        return
    assert answer["ok"]["check_value"] == expected["key_kcv"]
    assert pad.device.slots["TMK"].key.hex().upper() == expected["key_odd_parity"]


@of("tr31")
def test_key_blocks(vector: Json) -> None:
    given, expected = vector["inputs"], vector["expected"]
    block, key = given["key_block"], bytes.fromhex(given["kbpk"])
    kind = "A" if block[0] in "DE" else "T"
    if block[0] == "E":
        with pytest.raises(BlockError, match="version"):
            open_block(block, kind, key)
        return
    opened = open_block(block, kind, key)
    assert opened.key.hex().upper() == expected["key"]
    assert opened.usage + opened.algorithm + opened.mode + opened.version + opened.exportability == block[5:12]
    pad = Pad(laboratory=True, single=True)
    loaded = pad.assembled(KBPK | {"algorithm": kind}, split(given["kbpk"]))
    if unsound(kind, key):
        assert loaded["refused"] == "contentInvalid"
        return
    answer = pad.desk.ask({"do": "block", "slot": "NEW", "under": "KBPK", "value": block})
    if opened.algorithm not in "TA":
        assert answer["refused"] == "algorithmNotSupported", "a pad holds no private keys of others"
    else:
        assert answer["ok"]["bits"] == 4 * len(expected["key"])
        letter = "D" if len(expected["key"]) == 16 else opened.algorithm
        assert answer["ok"]["check_value"] == check_value(letter, bytes.fromhex(expected["key"]))
        strict = Pad(laboratory=True)
        strict.assembled(KBPK | {"algorithm": kind}, split(given["kbpk"]))
        if letter == "D":
            assert strict.refused("block", slot="NEW", under="KBPK", value=block) == "invalidKeyLength"


@of("tr31-kdf")
def test_keys_of_a_block(vector: Json) -> None:
    version = next(word for word in vector["name"].replace("(A/C)", "A").split() if word in {"A", "B", "D", "E"})
    if version == "E":
        return  # counter mode has another derivation, and no pad here
    key = bytes.fromhex(vector["inputs"]["kbpk"])
    found = block_keys(version, "A" if version == "D" else "T", key)
    assert [part.hex().upper() for part in found] == [vector["expected"]["kbek"], vector["expected"]["kbmk"]]


@of("tr31-negative")
def test_bad_key_blocks_are_refused_and_nothing_is_loaded(vector: Json) -> None:
    given = vector["inputs"]
    pad = Pad()
    assert pad.assembled(KBPK, split(given["kbpk"]))["ok"]["loaded"]
    word = pad.refused("block", slot="NEW", under="KBPK", value=given["key_block"])
    assert word in ("contentInvalid", "formatInvalid", "algorithmNotSupported")
    assert list(pad.ask("state")["slots"]) == ["KBPK"]


@pytest.mark.parametrize(
    ("under", "key", "sealed", "expected"),
    [
        ("CA5D92598DCA48CE8A4C76361A9269E9", "pik", slice(0, 32), "8D0A74B8"),
        ("CA5D92598DCA48CE8A4C76361A9269E9", "mak", slice(40, 56), "AB7153CA"),
    ],
)
def test_sign_on_keys_under_the_terminal_master_key(under: str, key: str, sealed: slice, expected: str) -> None:
    vector = next(v for v in vectors("unionpay") if "field 62" in v["name"])
    pad = Pad(single=True)
    pad.assembled(TMK, split(under))
    value = vector["inputs"]["field62"][sealed]
    use = {"slot": key, "usage": "P0", "algorithm": algorithm(value), "mode": "E", "under": "TMK", "value": value}
    assert pad.ask("cryptogram", **use, expected=expected)["check_value"] == expected[:6]
    assert pad.device.slots[key].key == odd(bytes.fromhex(vector["expected"][key]))
    assert pad.refused("cryptogram", **use, expected="000000") == "contentInvalid"


def test_a_published_encryption_of_two_blocks() -> None:
    vector = next(v for v in vectors("unionpay") if "pgate" in v["source"])
    cipher = Cipher("T", bytes.fromhex(vector["inputs"]["key"]))
    sealed = b"".join(cipher.encrypt(block) for block in cipher.blocks(bytes.fromhex(vector["inputs"]["data"])))
    assert sealed.hex().upper() == vector["expected"]["result"]


def test_the_public_keys_are_those_of_the_vectors() -> None:
    found = set()
    for vector in FILE["vectors"]:
        given, expected = vector["inputs"], vector["expected"]
        match vector["category"]:
            case "kcv":
                found.add(("A" if given["method"].startswith("AES") else "T", given["key"]))
            case "components":
                found.add(("T", expected["key"]))
            case "degenerate":
                found.add(("T", given["key"]))
            case "tr31":
                found.add(("A" if given["key_block"][0] in "DE" else "T", given["kbpk"]))
                found.add((given["key_block"][7], expected["key"]))
            case "unionpay":
                names = ("tmk", "pik", "mak", "tak", "key")
                found |= {("T", fields[name]) for fields in (given, expected) for name in names if name in fields}
    found |= {("T", key) for key in FILE["tables"]["public_test_keys"]}
    values = set()
    for letter, digits in found:
        key = bytes.fromhex(digits)
        kind = "D" if letter == "T" and len(key) == 8 else letter
        if kind in LENGTHS and not unsound(kind, key):
            values.add(kind + check_value(kind, key))
    assert values == PUBLIC
