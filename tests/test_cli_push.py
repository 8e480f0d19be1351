"""`tillwire push` at the centre: keys, two signatures and a look at them, all without a network."""

import base64
import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import agent.cli
from agent.cli import pushkeys
from agent.crypto.ed25519 import PublicKey
from agent.crypto.signing import COMMAND, CONFIGURATION, ORDER, TRUST, Envelope
from agent.crypto.trust import Trust
from agent.pushes import Site, Standing, judge, read
from tests.pushing import TOML, sealed
from tests.typing_people import Typist

WORDS = "four words of mine"
WHOM = ("--id", "C-0042", "--org", "coop", "--key", "ann.pem", "--password-file", "words")


class Done(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the keys of three people, their file of signers, and a configuration."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "words").write_text(WORDS + "\n")
    (folder / "words").chmod(0o600)
    (folder / "north.toml").write_text(TOML)
    return folder


@pytest.fixture
def tillwire(desk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """The command, in this process and in that folder."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    monkeypatch.chdir(desk)

    def run(*words: str, to: str = "") -> Done:
        monkeypatch.setattr(sys, "argv", ["tillwire", "push", *words])
        status = agent.cli.run()
        done = Done(status, *capsys.readouterr())
        assert "Traceback" not in done.err
        assert WORDS not in done.out + done.err
        if to:
            Path(to).write_text(done.out)
        return done

    if not Path("signers.toml").exists():
        people = {"ann": "config trust commands", "bo": "config trust commands", "cy": "commands"}
        made = ""
        for name, roles in people.items():
            given = [word for role in roles.split() for word in ("--role", role)]
            made += run("keygen", name, "--to", f"{name}.pem", *given, "--password-file", "words").out
        Path("signers.toml").write_text(made)
        run("sign", "north.toml", "--version", "7", "--group", "north", *WHOM, to="one.json")
        run("cosign", "one.json", *SECOND, "--yes", to="two.json")
    yield run
    resource.setrlimit(resource.RLIMIT_CORE, before)


SECOND = ("--key", "bo.pem", "--password-file", "words", "--signers", "signers.toml")
VERIFY = ("--signers", "signers.toml")


def trust() -> Trust:
    return Trust.local(Path("signers.toml").read_text())


# the way of a configuration


def test_what_two_people_signed_is_what_a_terminal_takes(tillwire: Run) -> None:
    push = read(trust().accept(Path("two.json").read_bytes().strip(), CONFIGURATION))
    judge(push, Site("coop", "ATM-0001", ("north",)), Standing(6), push.not_before, "free")
    assert (push.id, push.version, push.config) == ("C-0042", 7, TOML)
    assert push.expires - push.not_before == 7 * 86_400_000
    assert push.signers == ("ann", "bo")


def test_who_signs_sees_all_of_it(tillwire: Run) -> None:
    first = tillwire("sign", "north.toml", "--version", "7", "--group", "north", *WHOM)
    second = tillwire("cosign", "one.json", *SECOND, "--yes")
    for done in (first, second):
        assert done.status == 0
        for word in ("configuration version 7", "C-0042", "groups north, of coop", "mqtt.example.org:8883, TLS"):
            assert word in done.err
        assert "ups at /dev/ttyS0, own" in done.err
        assert all(f"+{line}" in done.err for line in TOML.splitlines())
    assert "signed by ann" in second.err


def test_a_key_is_kept_under_a_password_and_its_entry_names_the_person(tillwire: Run) -> None:
    assert [signer.name for signer in trust().signers] == ["ann", "bo", "cy"]
    assert trust().signers[2].roles == {"commands"}
    for name in ("ann", "bo", "cy"):
        assert "BEGIN ENCRYPTED PRIVATE KEY" in Path(f"{name}.pem").read_text()
        assert Path(f"{name}.pem").stat().st_mode & 0o777 == 0o600
    before = Path("ann.pem").read_text()
    again = tillwire("keygen", "ann", "--to", "ann.pem", "--role", "config", "--password-file", "words")
    assert again.status == 2
    assert not again.out
    assert tillwire("keygen", "ann", "--to", "ann.pem", "--role", "config").status == 2, "and nobody is asked"
    assert Path("ann.pem").read_text() == before
    told = tillwire("keygen", "di", "--to", "di.pem", "--role", "keys", "--password-file", "words", "--json")
    found = json.loads(told.out)
    assert PublicKey.from_pem(found["key"]).id == found["id"]


@pytest.mark.peer("openssl")
def test_openssl_finds_the_same_signatures_good(tillwire: Run, tmp_path: Path) -> None:
    found = json.loads(Path("two.json").read_text())
    kind, payload = found["payloadType"], base64.b64decode(found["payload"])
    spelled = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    pems = re.findall(r"'''(-----BEGIN.*?)'''", Path("signers.toml").read_text(), re.S)
    for one, pem in zip(found["signatures"], pems, strict=False):
        (tmp_path / "pem").write_text(pem)
        (tmp_path / "sig").write_bytes(base64.b64decode(one["sig"]))
        for text, good in ((spelled, True), (spelled + b" ", False)):
            (tmp_path / "text").write_bytes(text)
            words = "pkeyutl -verify -rawin -pubin -inkey pem -sigfile sig -in text"
            done = subprocess.run(["openssl", *words.split()], cwd=tmp_path, capture_output=True, timeout=60)
            assert (done.returncode == 0) is good, done.stderr


# verify


def test_verify_tells_who_signed_and_what_it_says(tillwire: Run) -> None:
    done = tillwire("verify", "two.json", *VERIFY)
    assert done.status == 0
    for word in ("ann", "bo", "configuration version 7", "groups north, of coop", 'port = "/dev/ttyS0"'):
        assert word in done.out
    found = json.loads(tillwire("verify", "two.json", *VERIFY, "--group", "north", "--org", "coop", "--json").out)
    assert (found["ok"], found["signers"], found["reasons"]) == (True, ["ann", "bo"], [])
    assert found["says"]["target"] == {"groups": ["north"]}


def test_verify_tells_every_reason_and_ends_with_1(tillwire: Run) -> None:
    def reasons(text: bytes, *words: str) -> dict[str, str]:
        Path("seen.json").write_bytes(text)
        done = tillwire("verify", "seen.json", *VERIFY, *words, "--json")
        found = json.loads(done.out)
        assert done.status == 1
        assert not found["ok"]
        shown = " ".join(tillwire("verify", "seen.json", *VERIFY, *words).out.split())
        assert all(one["sentence"] in shown for one in found["reasons"])
        return {one["reason"]: one["sentence"] for one in found["reasons"]}

    one, two = (Path(name).read_bytes() for name in ("one.json", "two.json"))
    assert set(reasons(one)) == {"too_few"}
    assert set(reasons(one, "--terminal", "ATM-0001")) == {"too_few", "wrong_target"}
    assert set(reasons(two, "--group", "south")) == {"wrong_target"}
    assert set(reasons(two, "--org", "other", "--group", "north")) == {"wrong_target"}
    assert set(reasons(two.replace(b'"sig":"', b'"sig":"AAAA', 1))) == {"not_valid"}
    assert set(reasons(two.replace(b"A", b"B", 1))) & {"bad_signature", "not_valid"}
    assert set(reasons(sealed(ORDER, b"{}", "ann"))) == {"wrong_type"}
    assert set(reasons(b"[" * 10_000)) == {"not_valid"}
    old = {"not_before": 1, "expires": 2, "id": "C-1", "org": "coop", "target": {"all": True}, "version": 1}
    content = {
        **old,
        "format": "tillwire-configuration/1",
        "config": '[devices.x]\nkind = "toaster"\nport = "/dev/x"',
    }
    found = reasons(sealed(CONFIGURATION, content, "stranger"))
    assert set(found) == {"unknown_key", "expired", "not_valid"}
    assert "there is no kind 'toaster'" in found["not_valid"]


# sign


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[terminal]\norg = "coop"', "terminal"),
        ('[push]\nsigners = "x"', "push"),
        ("[keys]", "keys"),
        ("[control]", "control"),
        ("devices =", "TOML"),
        ("", "config must be"),
        ('[devices.a]\nkind = "toaster"\nport = "/dev/a"', "toaster"),
        (
            '[devices.a]\nkind = "ups"\nport = "/dev/a"\n[devices.b]\nkind = "ups"\nport = "/dev/a"',
            "already the port",
        ),
        ('[broker]\nhost = "mqtt.example.org"\nport = 1883', "broker.tls is missing"),
        ("#" * 50_000, "longer than"),
    ],
)
def test_nobody_can_sign_a_configuration_that_no_terminal_could_take(
    tillwire: Run, text: str, sentence: str
) -> None:
    Path("bad.toml").write_text(text)
    done = tillwire("sign", "bad.toml", "--version", "7", "--all", *WHOM)
    assert done.status == 1
    assert sentence in done.err
    assert not done.out


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("north.toml", "--all"), 2),
        (("--all", "--version", "1"), 2),
        (("north.toml", "--version", "1"), 2),
        (("north.toml", "--version", "1", "--all", "--group", "north"), 2),
        (("north.toml", "--version", "1", "--all", "--command", "state"), 2),
        (("north.toml", "--version", "1", "--all", "--expires", "soon"), 2),
        (("north.toml", "--version", "1", "--all", "--expires", "0d"), 1),
        (("north.toml", "--version", "1", "--all", "--expires", "367d"), 1),
        (("north.toml", "--version", "1", "--all", "--argument", "a=1"), 2),
        (("north.toml", "--version", "1", "--group", "no rth"), 1),
        (("missing.toml", "--version", "1", "--all"), 2),
        (("--command", "state", "--all", "--version", "1"), 2),
        (("--command", "explode", "--all"), 1),
        (("--command", "self_test", "--all", "--argument", "device"), 2),
        (("--trust", "signers.toml", "--version", "1", "--group", "north"), 2),
        (("--trust", "north.toml", "--version", "1"), 2),
        (("--trust", "signers.toml", "--version", "1", "--revoke=short"), 1),
    ],
)
def test_what_cannot_be_meant_is_told_and_not_signed(tillwire: Run, words: tuple[str, ...], status: int) -> None:
    done = tillwire("sign", *words, *WHOM)
    assert done.status == status, done.err
    assert not done.out


def test_a_key_that_others_could_have_read_signs_nothing(tillwire: Run) -> None:
    meant = ("sign", "--command", "state", "--all", "--id", "K-1", "--org", "coop")
    given = ("--key", "ann.pem", "--password-file")
    Path("wrong").write_text("another phrase entirely\n")
    Path("wrong").chmod(0o600)
    assert tillwire(*meant, *given, "wrong").status == 1
    Path("wrong").chmod(0o644)
    assert "others can read" in tillwire(*meant, *given, "wrong").err
    Path("open.pem").write_text(Path("ann.pem").read_text())
    Path("open.pem").chmod(0o640)
    assert "others can read" in tillwire(*meant, "--key", "open.pem", "--password-file", "words").err
    Path("clear.pem").write_text("-----BEGIN PRIVATE KEY-----\n")
    Path("clear.pem").chmod(0o600)
    done = tillwire(*meant, "--key", "clear.pem", "--password-file", "words")
    assert done.status == 2
    assert "under a password" in done.err
    assert not done.out


# cosign


def test_the_second_signs_only_what_another_of_them_signed(tillwire: Run) -> None:
    def refused(text: bytes, key: str = "bo.pem") -> str:
        Path("seen.json").write_bytes(text)
        words = ("--key", key, "--password-file", "words", "--signers", "signers.toml", "--yes")
        done = tillwire("cosign", "seen.json", *words)
        assert done.status == 1
        assert not done.out
        return done.err

    one = Path("one.json").read_bytes()
    assert "one person signed twice" in refused(one, "ann.pem")
    assert "have not the roles" in refused(one, "cy.pem")
    envelope = Envelope.read(one.strip())
    changed = Envelope(
        envelope.kind, envelope.unverified.replace(b'"version":7', b'"version":8'), envelope.signatures
    )
    assert "does not hold" in refused(changed.text)
    assert "nobody signed this" in refused(Envelope(envelope.kind, envelope.unverified).text)
    assert "does not know" in refused(sealed(envelope.kind, envelope.unverified, "stranger"))
    assert "another purpose" in refused(sealed(ORDER, b"{}", "stranger"))
    Path("seen.json").write_bytes(Envelope(envelope.kind, envelope.unverified).text)
    done = tillwire("cosign", "seen.json", *SECOND[:4], "--yes")
    assert (done.status, done.out) == (1, "")


def test_the_second_sees_the_difference_to_what_is_in_force(tillwire: Run) -> None:
    Path("next.toml").write_text(TOML.replace("ttyS0", "ttyS7"))
    tillwire("sign", "next.toml", "--version", "8", "--group", "north", *WHOM, to="next.json")
    for before in ("north.toml", "two.json"):
        told = tillwire("cosign", "next.json", *SECOND, "--yes", "--against", before).err
        assert '-port = "/dev/ttyS0"' in told
        assert '+port = "/dev/ttyS7"' in told
        assert "+[broker]" not in told
    done = tillwire("cosign", "next.json", *SECOND[:4], "--yes", "--against", "next.toml")
    assert "nothing differs" in done.err
    assert "was not checked" in done.err


def test_who_does_not_know_the_version_has_not_looked(tillwire: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for typed in ("8", "", "C-0042", "y"):
        monkeypatch.setattr(pushkeys, "ask", lambda _, typed=typed: typed)
        done = tillwire("cosign", "one.json", *SECOND)
        assert done.status == 1
        assert "nothing was signed" in done.err
        assert not done.out


def test_a_version_that_leaps_is_asked_for(tillwire: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    typed: list[str] = []

    def ask(question: str) -> str:
        asked.append(question)
        return typed[-1]

    monkeypatch.setattr(pushkeys, "ask", ask)
    sign = ("sign", "north.toml", "--group", "north", *WHOM, "--version")
    against = ("--against", "two.json")
    for words in (("1007", *against), ("5000",), ("100000000",)):
        assert tillwire(*sign, *words).status == 0
    assert not asked
    for words in (("1008", *against), ("100000001",)):
        for word, status in (("7", 1), (words[0], 0)):
            typed.append(word)
            done = tillwire(*sign, *words)
            assert (done.status, bool(done.out)) == (status, not status)
            assert "never takes one below it again" in done.err
        assert tillwire(*sign, *words, "--yes").status == 0
    assert len(asked) == 4


def test_signers_hold_for_a_year_and_a_configuration_for_a_week(tillwire: Run) -> None:
    days = []
    for words in (("north.toml", "--group", "north"), ("--trust", "signers.toml")):
        done = tillwire("sign", *words, "--version", "9", *WHOM)
        content = json.loads(Envelope.read(done.out.strip().encode()).unverified)
        days.append((content["expires"] - content["not_before"]) / 86_400_000)
    assert days == [7, 366]


def test_at_the_keyboard_a_key_is_made_and_the_version_is_typed(tillwire: Run, desk: Path) -> None:
    make = ("push", "keygen", "eve", "--to", desk / "eve.pem", "--role", "config")
    with Typist(*make) as eve:
        eve.answer("a password for the new key:", "a phrase of eve")
        eve.answer("once more:", "a phrase of eve")
        status, out, _ = eve.rest()
        assert status == 0
        assert 'name = "eve"' in out
        assert "phrase" not in eve.screen
    sign = ("push", "cosign", desk / "one.json", "--key", desk / "eve.pem")
    with Typist(*sign) as eve:
        eve.answer("To sign, type the version:", "7")
        eve.answer("the password of eve.pem:", "a phrase of eve")
        status, out, _ = eve.rest()
        assert status == 0
        assert len(Envelope.read(out.strip().encode()).signatures) == 2


# commands and signers


def test_a_command_goes_the_same_way(tillwire: Run) -> None:
    Path("note.txt").write_text("from a file\n")
    given = (
        "--argument",
        "device=ups1",
        "--argument",
        "times=2",
        "--argument",
        "loud=true",
        "--argument",
        "a=@note.txt",
    )
    words = ("--command", "self_test", *given, "--terminal", "ATM-0001", "--expires", "1h")
    tillwire("sign", *words, *WHOM, to="command.one.json")
    cosign = ("--key", "cy.pem", "--password-file", "words", "--signers", "signers.toml", "--yes")
    tillwire("cosign", "command.one.json", *cosign, to="command.json")
    done = tillwire("verify", "command.json", *VERIFY, "--terminal", "ATM-0001")
    assert done.status == 0
    assert "device = 'ups1'" in done.out
    push = read(trust().accept(Path("command.json").read_bytes().strip(), COMMAND))
    assert push.arguments == {"device": "ups1", "times": 2, "loud": True, "a": "from a file"}
    assert push.expires - push.not_before == 3_600_000


def test_signers_are_replaced_and_a_key_is_revoked(tillwire: Run) -> None:
    old = trust()
    lost = next(signer.key.id for signer in old.signers if signer.name == "cy")
    text = Path("signers.toml").read_text()
    Path("new.toml").write_text(text[: text.index('[[signer]]\nname = "cy"')])
    words = ("--trust", "new.toml", f"--revoke={lost}", "--version", "1")
    tillwire("sign", *words, *WHOM, to="trust.one.json")
    done = tillwire("cosign", "trust.one.json", *SECOND, "--yes", "--against", "signers.toml", to="trust.json")
    assert f"-cy: commands; key {lost}" in done.err
    assert f"+revoked: key {lost}" in done.err
    assert tillwire("verify", "trust.json", *VERIFY).status == 0
    after = old.rotated(Path("trust.json").read_bytes().strip())
    assert after.version == 1
    assert {signer.name for signer in after.signers} == {"ann", "bo"}
    assert after.revoked == {lost}
    assert Envelope.read(Path("trust.json").read_bytes().strip()).kind == TRUST


def test_a_chain_of_rotations_is_verified_from_the_set_that_a_terminal_has(tillwire: Run) -> None:
    for version in ("1", "2"):
        tillwire("sign", "--trust", "signers.toml", "--version", version, *WHOM, to="one.part")
        tillwire("cosign", "one.part", *SECOND, "--yes", to=f"{version}.set")
    Path("chain.json").write_text(Path("1.set").read_text() + Path("2.set").read_text())
    assert "version 2" in tillwire("verify", "chain.json", *VERIFY).out
    assert tillwire("verify", "chain.json", *VERIFY).status == 0
    Path("chain.json").write_text(Path("2.set").read_text() + Path("1.set").read_text())
    assert tillwire("verify", "chain.json", *VERIFY).status == 1


def test_a_role_or_name_that_is_none_makes_no_key(tillwire: Run) -> None:
    given = ("--password-file", "words", "--to", "none.pem")
    assert tillwire("keygen", "eve", "--role", "maker", *given).status == 2
    assert tillwire("keygen", "e v e", "--role", "config", *given).status == 2
    Path("short").write_text("short\n")
    os.chmod("short", 0o600)
    assert tillwire("keygen", "eve", "--role", "config", "--to", "none.pem", "--password-file", "short").status == 2
    assert not Path("none.pem").exists()
