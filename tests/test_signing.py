"""Signed envelopes: nothing is acted on unless the right people signed exactly this; each refusal has its name."""

import base64
import copy
import json
import pickle
import subprocess
from collections.abc import Callable
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.crypto import ed25519, signing, strictjson
from agent.crypto.ed25519 import PublicKey, SigningKey
from agent.crypto.secret import Secret
from agent.crypto.signing import ORDER, RECEIPT, Envelope, Keyring, Rule, Signer, accept, pae
from agent.errors import EnvelopeRefused, KeyRefused

VECTORS = [
    vector
    for vector in json.loads((Path(__file__).parent / "vectors/crypto_vectors.json").read_text())["vectors"]
    if vector["category"] == "signature"
]
PAYLOAD = b'{"slot":"TMK"}'


def key(number: int) -> SigningKey:
    return SigningKey(Secret(bytes([number]) * 32))


KEYS = {name: key(number) for number, name in enumerate(("ann", "bob", "cho", "stranger", "ann again"))}
KEYRING = Keyring(
    Signer(name.split()[0], KEYS[name].public, frozenset(roles.split()))
    for name, roles in {"ann": "maker", "bob": "checker", "cho": "maker", "ann again": "checker"}.items()
)
RULE = Rule(ORDER, ("maker", "checker"), largest=200)


def sealed(*names: str, kind: str = ORDER, payload: bytes = PAYLOAD) -> bytes:
    envelope = Envelope(kind, payload)
    for name in names:
        envelope = envelope.signed(KEYS[name])
    return envelope.text


def edited(change: Callable[[dict[str, Any]], object], *names: str) -> bytes:
    found = json.loads(sealed(*names))
    change(found)
    return json.dumps(found).encode()


def refused(text: bytes, rule: Rule = RULE) -> str:
    with pytest.raises(EnvelopeRefused) as caught:
        accept(text, rule, KEYRING)
    return caught.value.reason


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_rfc_8032(vector: dict[str, Any]) -> None:
    given, expected = vector["inputs"], {name: bytes.fromhex(text) for name, text in vector["expected"].items()}
    private, message = SigningKey(Secret(bytes.fromhex(given["seed"]))), bytes.fromhex(given["message"])
    assert private.public.raw == expected["public_key"]
    assert private.sign(message) == expected["signature"]
    assert PublicKey(expected["public_key"]).verifies(expected["signature"], message)


@pytest.mark.parametrize(
    ("seed", "signature"),
    [
        (
            0,
            "2WAfaHm5jluo0w+0rk8uVkluELJYWjSmU9x7EUzx+AyteDGJ4/nqyJXfmAUVFIAoQafWm7AxBZNw5M9ixNHiCA==",
        ),
        (
            1,
            "c1+67/aT0yqEpwx8PsVY3MLHsj9D0CZ014/Fv/QlG59P+9CobUZ7xECJ/V3USG0Ob9CiE5LjReEZUzNF2l7eBw==",
        ),
    ],
)
def test_we_sign_as_the_standard_s_vectors_are_signed(seed: int, signature: str) -> None:
    """DSSE testvectors/vectors.json, keys A and B, threshold-two-distinct-keys."""
    private = SigningKey(Secret(bytes.fromhex(VECTORS[seed]["inputs"]["seed"])))
    payload = b'{"_type":"https://in-toto.io/Statement/v1"}'
    envelope = Envelope("application/vnd.in-toto+json", payload).signed(private)
    assert envelope.signatures == ((private.public.id, base64.b64decode(signature)),)


def test_lengths_in_what_is_signed_are_in_bytes() -> None:
    """DSSE protocol.md, test vectors; testvectors/vectors.json, non-ascii-payload-type and empty-payload."""
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert pae("application/vnd.exämple+json", b"") == b"DSSEv1 29 application/vnd.ex\xc3\xa4mple+json 0 "


def test_maker_and_checker_are_accepted_in_any_order_and_named() -> None:
    for names in (("ann", "bob"), ("bob", "ann"), ("cho", "bob"), ("ann", "bob", "cho")):
        accepted = accept(sealed(*names), RULE, KEYRING)
        assert accepted.content() == {"slot": "TMK"}
        assert [signer.name for signer in accepted.signers] == list(names)


def test_the_digest_names_what_was_signed_whoever_signed() -> None:
    one, other = (accept(sealed(*names), RULE, KEYRING).digest for names in (("ann", "bob"), ("bob", "cho")))
    assert one == other
    alone = accept(sealed("ann", kind=RECEIPT), Rule(RECEIPT, ("maker",)), KEYRING)
    assert alone.digest != one


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("unsigned", sealed()),
        ("too_few", sealed("ann")),
        ("wrong_role", sealed("ann", "cho")),
        ("same_signer", sealed("ann", "ann again")),
        ("same_signer", sealed("ann", "bob", "ann again")),
        ("same_signer", edited(lambda e: e["signatures"].append(e["signatures"][0]), "ann", "bob")),
        ("unknown_key", sealed("ann", "stranger")),
        ("unknown_key", sealed("stranger")),
        ("wrong_type", sealed("ann", "bob", kind=RECEIPT)),
        (
            "bad_signature",
            edited(lambda e: e.update(payload="eyJzbG90IjoiUElOIn0="), "ann", "bob"),
        ),
        (
            "bad_signature",
            edited(lambda e: e["signatures"][0].update(keyid=KEYS["cho"].public.id), "ann", "bob"),
        ),
        (
            "bad_signature",
            Envelope(RECEIPT, PAYLOAD)
            .signed(KEYS["ann"])
            .signed(KEYS["bob"])
            .text.replace(RECEIPT.encode(), ORDER.encode()),
        ),
        ("too_large", sealed("ann", "bob", payload=b"x" * 201)),
        ("too_large", b"[" * 3000),
        ("not_valid", b""),
        ("not_valid", b"[]"),
        ("not_valid", b"\xff"),
        ("not_valid", b"\xef\xbb\xbf" + sealed("ann", "bob")),
        ("not_valid", sealed("ann", "bob") + b"x"),
        ("not_valid", sealed("ann", "bob").replace(b'"payload"', b'"payload":"","payload"', 1)),
        ("not_valid", edited(lambda e: e.update(alg="none"), "ann", "bob")),
        ("not_valid", edited(lambda e: e["signatures"][0].update(alg="none"), "ann", "bob")),
        ("not_valid", edited(lambda e: e["signatures"][0].pop("keyid"), "ann", "bob")),
        ("not_valid", edited(lambda e: e["signatures"][0].update(keyid=["ann"]), "ann", "bob")),
        ("not_valid", edited(lambda e: e.update(payload=None), "ann", "bob")),
        ("not_valid", edited(lambda e: e.update(payload=e["payload"].rstrip("=")), "ann", "bob")),
        ("not_valid", edited(lambda e: e.update(payload="-_" + e["payload"][2:]), "ann", "bob")),
        ("not_valid", edited(lambda e: e.update(payload=e["payload"] + "\n"), "ann", "bob")),
        ("not_valid", edited(lambda e: e.update(signatures=e["signatures"] * 5), "ann", "bob")),
        ("not_valid", edited(lambda e: e.update(signatures={"keyid": "", "sig": ""}), "ann", "bob")),
        ("not_valid", edited(lambda e: e["signatures"][0].update(sig="AAAA"), "ann", "bob")),
    ],
)
def test_a_refusal_has_its_name(reason: str, text: bytes) -> None:
    assert refused(text) == reason
    assert reason in (signing.__doc__ or "")


def test_a_signature_by_a_key_that_we_do_not_know_counts_for_nothing() -> None:
    assert len(accept(sealed("ann", "stranger", "bob"), RULE, KEYRING).signers) == 2


def test_no_changed_character_is_accepted() -> None:
    text = sealed("ann", "bob")
    accept(text, RULE, KEYRING)
    for at in range(len(text)):
        for other in (text[at] ^ 1, text[at] ^ 0x20, ord(" ")):
            changed = text[:at] + bytes([other]) + text[at + 1 :]
            if changed != text:
                refused(changed)


def test_no_repr_shows_what_was_signed() -> None:
    text = sealed("ann", "bob")
    assert "slot" not in repr(Envelope.read(text)) + repr(accept(text, RULE, KEYRING))


def test_nobody_signs_twice_with_one_key() -> None:
    with pytest.raises(EnvelopeRefused) as caught:
        Envelope.read(sealed("ann")).signed(KEYS["ann"])
    assert caught.value.reason == "same_signer"


def test_the_payload_is_parsed_only_after_the_signatures_hold() -> None:
    bomb = b"[" * 200
    assert refused(sealed("ann", payload=bomb)) == "too_few"
    accepted = accept(sealed("ann", "bob", payload=bomb), RULE, KEYRING)
    with pytest.raises(EnvelopeRefused) as caught:
        accepted.content()
    assert caught.value.reason == "not_valid"


@given(st.binary(max_size=400))
def test_whatever_comes_the_only_error_is_a_refusal(text: bytes) -> None:
    refused(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
)


@given(st.fixed_dictionaries({"payload": JSON, "payloadType": JSON, "signatures": JSON}))
def test_whatever_stands_in_the_fields_the_only_error_is_a_refusal(found: dict[str, Any]) -> None:
    refused(json.dumps(found).encode())


@given(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=4),
    st.lists(st.frozensets(st.sampled_from("abc")), max_size=5),
)
def test_a_rule_is_met_when_no_set_of_its_roles_lacks_people(
    needs: list[str], people: list[frozenset[str]]
) -> None:
    """Hall's marriage theorem, beside our trying of every assignment."""
    signers = [Signer(str(i), KEYS["ann"].public, roles) for i, roles in enumerate(people)]
    subsets = chain.from_iterable(combinations(needs, size) for size in range(1, len(needs) + 1))
    enough = all(sum(1 for roles in people if roles & set(subset)) >= len(subset) for subset in subsets)
    assert Rule(ORDER, tuple(needs)).met_by(signers) is enough


def test_a_rule_that_asks_for_nobody_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Rule(ORDER, ())


def test_a_key_belongs_to_one_signer_only() -> None:
    with pytest.raises(KeyRefused, match="two signers"):
        Keyring(Signer(name, KEYS["ann"].public, frozenset({"maker"})) for name in ("ann", "bob"))


D = -121665 * pow(121666, -1, ed25519.P) % ed25519.P
Point = tuple[int, int]


def add(one: Point, other: Point) -> Point:
    """The curve's addition law (RFC 8032 5.1.4, affine), apart from any library."""
    (x1, y1), (x2, y2), p = one, other, ed25519.P
    product = D * x1 * x2 * y1 * y2
    return (x1 * y2 + x2 * y1) * pow(1 + product, -1, p) % p, (y1 * y2 + x1 * x2) * pow(1 - product, -1, p) % p


def points(y: int) -> list[Point]:
    """The points with this y."""
    p = ed25519.P
    square = (y * y - 1) * pow(D * y * y + 1, -1, p) % p
    root = pow(square, (p + 3) // 8, p)
    if root * root % p != square:
        root = root * pow(2, (p - 1) // 4, p) % p
    return sorted({(root, y), (p - root if root else 0, y)}) if root * root % p == square else []


def test_the_list_of_small_orders_holds_all_eight_points() -> None:
    found = [point for y in ed25519.SMALL_ORDER for point in points(y)]
    assert len(found) == 8
    for point in found:
        for _ in range(3):
            point = add(point, point)
        assert point == (0, 1)


def spki(raw: bytes) -> str:
    """Any 32 bytes in the PEM file of a public key, in which keys come in everywhere (RFC 8410, 4)."""
    der = base64.b64encode(bytes.fromhex("302A300506032B6570032100") + raw).decode()
    return f"-----BEGIN PUBLIC KEY-----\n{der}\n-----END PUBLIC KEY-----\n"


def test_no_file_brings_in_a_key_that_is_refused_as_bytes() -> None:
    assert PublicKey.from_pem(spki(KEYS["ann"].public.raw)) == KEYS["ann"].public
    for y in (*ed25519.SMALL_ORDER, *range(ed25519.P, 2**255)):
        for sign in (0, 1):
            with pytest.raises(KeyRefused):
                PublicKey.from_pem(spki((y | sign << 255).to_bytes(32, "little")))


@pytest.mark.parametrize("sign", [0, 1])
@pytest.mark.parametrize("y", sorted(ed25519.SMALL_ORDER))
def test_a_public_key_of_small_order_is_refused(y: int, sign: int) -> None:
    with pytest.raises(KeyRefused, match="small order"):
        PublicKey((y | sign << 255).to_bytes(32, "little"))


@pytest.mark.parametrize("sign", [0, 1])
def test_a_public_key_has_one_spelling(sign: int) -> None:
    for y in range(ed25519.P, 2**255):
        with pytest.raises(KeyRefused, match="one allowed way"):
            PublicKey((y | sign << 255).to_bytes(32, "little"))


def test_what_is_no_key_is_refused() -> None:
    for raw in (b"", bytes(31), bytes(33), (2).to_bytes(32, "little")):
        with pytest.raises(KeyRefused):
            PublicKey(raw)
    for text in ("", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "x" * 50):
        with pytest.raises(KeyRefused, match="give its whole file") as caught:
            PublicKey.from_pem(text)
        assert "passphrase" not in str(caught.value), "a public key has none"
        with pytest.raises(KeyRefused, match="or the passphrase is wrong"):
            SigningKey.from_pem(text)
    with pytest.raises(KeyRefused, match="32 bytes"):
        SigningKey(Secret(bytes(31)))


def test_a_signature_has_one_spelling() -> None:
    order = 2**252 + 27742317777372353535851937790883648493
    signature = KEYS["ann"].sign(b"x")
    again = signature[:32] + (int.from_bytes(signature[32:], "little") + order).to_bytes(32, "little")
    assert KEYS["ann"].public.verifies(signature, b"x")
    assert not KEYS["ann"].public.verifies(again, b"x")
    assert not KEYS["ann"].public.verifies(b"", b"x")


def test_a_private_key_does_not_show_and_travels_under_a_passphrase_only() -> None:
    private, words = KEYS["ann"], Secret(b"four words of mine")
    seed = private.seed()
    again = SigningKey.from_pem(private.pem(words), words)
    assert again.public == private.public
    assert again.seed() == seed
    assert "ENCRYPTED" in private.pem(words)
    digits = bytes(seed.reveal()).hex()
    assert digits not in repr(private) + str([private])
    for keep in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            keep(private)
    with pytest.raises(KeyRefused) as caught:
        SigningKey.from_pem(private.pem(words), Secret(b"five"))
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    with pytest.raises(KeyRefused):
        SigningKey.from_pem(private.pem(words))
    with pytest.raises(KeyRefused):
        PublicKey.from_pem(private.pem(words))
    assert SigningKey.generate().public != SigningKey.generate().public


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":1,"a":1}',
        b'{"a":{"b":1,"b":2}}',
        b'{"a":1.0}',
        b'{"a":1e3}',
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"a":9007199254740992}',
        b'{"a":' + b"9" * 60000 + b"}",
        b'{"a":"\\ud800"}',
        b'{"\\udc00":1}',
        b'{"a":"\xff"}',
        b'\xef\xbb\xbf{"a":1}',
        b"[1]",
        b'"a"',
        b"{} {}",
        b'{"a":1,}',
        b"{'a':1}",
        b'{"a":' + b"[" * 16 + b"]" * 16 + b"}",
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' * 100_000,
        '{"a":1}'.encode("utf-16"),
    ],
    ids=lambda text: repr(text[:24]),
)
def test_json_with_two_meanings_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"^[a-zA-Z0-9 ,:-]*$"):
        strictjson.read(text)


@given(
    st.dictionaries(
        st.text(),
        st.recursive(
            st.none() | st.booleans() | st.text() | st.integers(1 - 2**53, 2**53 - 1),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
            max_leaves=10,
        ),
        max_size=4,
    )
)
def test_json_with_one_meaning_is_read(found: dict[str, Any]) -> None:
    assert strictjson.read(json.dumps(found, ensure_ascii=False).encode(), deepest=100) == found


def openssl(folder: Path, *arguments: str, given: bytes = b"") -> bytes:
    done = subprocess.run(["openssl", *arguments], input=given, capture_output=True, cwd=folder, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.mark.peer("openssl")
def test_openssl_signs_what_we_verify_and_verifies_what_we_sign(tmp_path: Path) -> None:
    openssl(tmp_path, "genpkey", "-algorithm", "ed25519", "-out", "theirs.pem")
    theirs = SigningKey.from_pem((tmp_path / "theirs.pem").read_text())
    public = openssl(tmp_path, "pkey", "-in", "theirs.pem", "-pubout")
    assert PublicKey.from_pem(public.decode()) == theirs.public
    assert public.decode() == theirs.public.pem

    (tmp_path / "message").write_bytes(pae(ORDER, PAYLOAD))
    signature = openssl(tmp_path, "pkeyutl", "-sign", "-rawin", "-inkey", "theirs.pem", "-in", "message")
    assert Envelope(ORDER, PAYLOAD).signed(theirs).signatures == ((theirs.public.id, signature),)

    ours = KEYS["ann"]
    (tmp_path / "ours.pem").write_text(ours.public.pem)
    (tmp_path / "signature").write_bytes(ours.sign(pae(ORDER, PAYLOAD)))
    verify = ("pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", "ours.pem", "-sigfile", "signature")
    assert b"Success" in openssl(tmp_path, *verify, "-in", "message")

    der = openssl(tmp_path, "pkey", "-pubin", "-in", "ours.pem", "-outform", "DER")
    digest = openssl(tmp_path, "dgst", "-sha256", "-binary", given=der)
    assert base64.urlsafe_b64encode(digest).decode() == ours.public.id


@pytest.mark.peer("openssl")
def test_openssl_opens_a_private_key_of_ours(tmp_path: Path) -> None:
    (tmp_path / "ours.pem").write_text(KEYS["bob"].pem(Secret(b"four words of mine")))
    public = openssl(
        tmp_path, "pkey", "-in", "ours.pem", "-passin", "stdin", "-pubout", given=b"four words of mine\n"
    )
    assert public.decode() == KEYS["bob"].public.pem
