"""What may be sent to a terminal that nobody should send: each is refused by its name, in the ledger and to the
centre, nothing of it is tried, and the terminal goes on. Against the real agent."""

import json
import signal
from collections.abc import Callable, Iterator

import psutil
import pytest

from agent.crypto.signing import CONFIGURATION, TRUST, Envelope
from agent.crypto.trust import Trust
from agent.pushing.pending import A_MINUTE
from agent.pushing.reports import digest_of
from tests.attacking import ORDER, SIGNERS, Ground, Till, ground, now, printer, ups
from tests.pushing import DAY, KEYS, configuration, payload, person, rotation, sealed
from tests.whole import wait

pytestmark = pytest.mark.peer("mosquitto")
TWINS = 'ups1 = { kind = "ups" }\nprinter1 = { kind = "printer" }\n'
OLD, NEW = 4, 5
"""Versions that were in force before any test; the second is."""
Attack = Callable[[Till, str], bytes]


def _many(till: Till, text: str) -> bytes:
    """A push that is right but for one thing is made from this."""
    return payload(
        configuration(
            target={"terminals": [till.name]}, not_before=now() - 1000, expires=now() + DAY, version=9, config=text
        )
    )


def _edited(till: Till, text: str, old: str, new: str) -> bytes:
    """What two people signed though it is not as it should be."""
    found = _many(till, text).decode()
    assert old in found
    return sealed(CONFIGURATION, found.replace(old, new).encode(), "ann", "bo")


def _swapped(till: Till, text: str) -> bytes:
    """A command that two people signed, which somebody sends as a configuration."""
    return till.ordered()


def _relabelled(till: Till, text: str) -> bytes:
    """The same, with the type of a configuration written over it."""
    order = Envelope.read(till.ordered("ann", "bo"))
    return Envelope(CONFIGURATION, order.unverified, order.signatures).text


def _other_bytes(till: Till, text: str) -> bytes:
    """Other content under the signatures of what was good."""
    good = Envelope.read(till.signed(version=9, config=text))
    return Envelope(good.kind, good.unverified.replace(b"0.1", b"0.2"), good.signatures).text


def _deep(till: Till, text: str) -> bytes:
    return b'{"a":' * 10_000 + b"1" + b"}" * 10_000


def _deep_config(till: Till, text: str) -> bytes:
    return till.signed(version=9, config=text + "x = " + "[" * 10_000 + "]" * 10_000)


ATTACKS: dict[str, tuple[str, Attack]] = {
    "unsigned": ("unsigned", lambda t, text: sealed(CONFIGURATION, _many(t, text))),
    "one of two signatures": ("too_few", lambda t, text: sealed(CONFIGURATION, _many(t, text), "ann")),
    "the same signer twice": (
        "same_signer",
        lambda t, text: sealed(CONFIGURATION, _many(t, text), "ann", "ann again"),
    ),
    "unknown key": ("unknown_key", lambda t, text: sealed(CONFIGURATION, _many(t, text), "ann", "stranger")),
    "revoked key": ("revoked_key", lambda t, text: sealed(CONFIGURATION, _many(t, text), "ann", "bo", "robbed")),
    "wrong role": ("wrong_role", lambda t, text: sealed(CONFIGURATION, _many(t, text), "ann", "cy")),
    "other bytes": ("bad_signature", _other_bytes),
    "a command as a configuration": ("wrong_type", _swapped),
    "its type written over": ("bad_signature", _relabelled),
    "an older version": ("older", lambda t, text: t.signed(version=OLD, config=text + "# again\n")),
    "same version, other content": ("same_version", lambda t, text: t.signed(version=NEW, config=text + "# new\n")),
    "expired": (
        "expired",
        lambda t, text: t.signed(version=9, config=text, not_before=now() - DAY, expires=now() - 1000),
    ),
    "another terminal": (
        "wrong_target",
        lambda t, text: t.signed(version=9, config=text, target={"terminals": ["ATM-0002"]}),
    ),
    "wrong group": (
        "wrong_target",
        lambda t, text: t.signed(version=9, config=text, target={"groups": ["south"]}),
    ),
    "another organisation": ("wrong_target", lambda t, text: t.signed(version=9, config=text, org="other")),
    "100 kB": ("too_large", lambda t, text: t.signed(version=9, config="#" * 75_000)),
    "nested 10,000 deep": ("not_valid", _deep),
    "a configuration nested 10,000 deep": ("not_valid", _deep_config),
    "duplicate keys": ("not_valid", lambda t, text: _edited(t, text, '"org"', '"org":"coop","org"')),
    "unknown fields": ("not_valid", lambda t, text: t.signed(version=9, config=text, more=1)),
    "unknown device kind": (
        "not_valid",
        lambda t, text: t.signed(version=9, config=text.replace('"ups"', '"usp"')),
    ),
    "two devices on one port": (
        "not_valid",
        lambda t, text: t.signed(version=9, config=text + ups(t.ground.port("printer1")).replace("ups1", "ups2")),
    ),
    "a local table": ("not_valid", lambda t, text: t.signed(version=9, config=text + '[control]\nsocket = "x"\n')),
    "no broker": ("not_valid", lambda t, text: t.signed(version=9, config=ups("a"))),
    "rubbish": ("not_valid", lambda t, text: b"\x00rubbish"),
}
SAYS = {
    "unknown device kind": "there is no kind 'usp'",
    "two devices on one port": "is already the port of devices.printer1",
    "a local table": "is the terminal's own",
    "no broker": "[broker] is missing",
}
"""What the sentence says beside the name."""


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with ground(tmp_path_factory.mktemp("field"), TWINS) as one:
        yield one
        one.all_is_told()


@pytest.fixture(scope="module")
def attacked(field: Ground) -> tuple[Till, str]:
    """A terminal with two pushes behind it, and the text of what is in force."""
    till = Till(field, "ATM-0001")
    text = till.configure(ups(field.port("ups1")) + printer(field.port("printer1")))
    field.start(till)
    till.ready("ups1", "printer1")
    for version in (OLD, NEW):
        till.push(version, f"{text}# {version}\n")
        till.reported(outcome="committed", version=version)
    return till, text


def in_force(till: Till) -> tuple[object, ...]:
    """What must not change by an attack: what counts, and what was ever tried."""
    seen = till.ask(do="pushes", act="show")
    tried = [row["version"] for row in till.rows("applying")]
    return seen["in_force"]["version"], seen["in_force"]["digest"], seen["pending"], tried


def refused(till: Till, envelope: bytes, reason: str) -> dict[str, object]:
    """Send it; it is refused for this reason, in a row and in a report, which is returned."""
    rows, reports = len(till.rows("refused")), len(till.reports(outcome="refused"))
    digest = till.send(envelope)
    row = till.row("refused", rows)
    report = wait(f"a report: {reason}", lambda: till.reports(outcome="refused")[reports:])[0]
    told = [(one["reason"], one.get("digest", "")) for one in (row, report)]
    assert told == [(reason, digest)] * 2
    return dict(report)


def test_each_attack_is_refused_by_its_name_and_nothing_else_happens(attacked: tuple[Till, str]) -> None:
    till, text = attacked
    before, sessions = in_force(till), till.sessions()
    sent: dict[str, bytes] = {}
    for name, (reason, attack) in ATTACKS.items():
        try:
            report = refused(till, sent.setdefault(name, attack(till, text)), reason)
        except AssertionError as error:
            raise AssertionError(name) from error
        assert SAYS.get(name, "") in str(report["detail"]), name
        assert report["in_force"] == NEW, name
    # The broker brings what is retained again with each connection: what is known makes neither row nor report.
    rows, reports = len(till.rows()), len(till.reports())
    for envelope in sent.values():
        till.send(envelope)
    digest = till.push(NEW, f"{text}# {NEW}\n")  # its sender may not have heard what became of it
    again = wait("the same once more", lambda: till.reports()[reports:])
    assert [(one["outcome"], one["digest"]) for one in again] == [("committed", digest)]
    refused(till, till.signed(version=9, config="nothing"), "not_valid")
    assert len(till.rows()) == rows + 1
    assert in_force(till) == before
    assert till.sessions() == sessions, "the connection stayed"
    assert till.up("ups1", "printer1")


def test_a_stranger_can_neither_fill_the_ledger_nor_take_away_what_waits(attacked: tuple[Till, str]) -> None:
    till, text = attacked
    before, memory = in_force(till), psutil.Process(till.ground.site.process(till.name)).memory_info().rss
    till.ask(do="pushes", act="freeze", minutes=60)
    version = till.next()
    digest = till.push(version, text + "# waits\n")
    waits = till.reported(outcome="waiting", version=version)
    assert (waits["reason"], waits["frozen_until"] > now()) == ("frozen", True)
    seen = till.ask(do="pushes", act="show")
    assert (seen["waiting"]["version"], seen["waiting"]["reason"]) == (version, "frozen")
    assert in_force(till) == before
    for number in range(2 * A_MINUTE):
        till.send(b"rubbish %d" % number)
    till.send(till.signed(version=version - 1, config=text + "# older, and waits as well\n"))
    till.send(b"#" * 10_000_000)  # the broker keeps it from us
    till.ask(do="pushes", act="thaw")
    assert till.reported(outcome="committed", version=version)["digest"] == digest
    till.row("committed", version=version)
    assert [row["event"] for row in till.rows(version=version)] == ["staged", "applying", "committed"]
    assert [row["event"] for row in till.rows() if row["event"] in ("frozen", "thawed")] == ["frozen", "thawed"]
    assert 0 < len(till.rows("refused", digest="")) <= A_MINUTE, "of all the rubbish"
    assert psutil.Process(till.ground.site.process(till.name)).memory_info().rss < memory + 10_000_000
    assert till.up("ups1", "printer1")


def test_whoever_takes_away_what_waits_has_nothing_else_done(attacked: tuple[Till, str]) -> None:
    till, text = attacked
    before = in_force(till)
    till.ask(do="pushes", act="freeze", minutes=60)
    version = till.next()
    digest = till.push(version, text + "# is taken away\n")
    till.reported(outcome="waiting", version=version)
    till.send(b"")
    assert till.row("withdrawn", of="config/desired")["digest"] == digest
    till.ask(do="pushes", act="thaw")
    refused(till, till.signed(version=99, config="nothing"), "not_valid")  # it was judged after the thaw
    assert in_force(till) == before
    assert till.rows("staged", version=version) == []


def test_a_command_runs_once_whoever_sends_it_again(attacked: tuple[Till, str]) -> None:
    till, _ = attacked
    order = till.ordered(id="K-1", command="self_test")
    till.send(order, ORDER)
    done = wait("its end", lambda: till.results(id="K-1", outcome="done"))[0]
    assert json.loads(done["data"])["ok"] is True
    till.send(order, ORDER)
    again = wait("its repetition", lambda: till.results(id="K-1", outcome="repeated"))[0]
    assert "it ended before, done" in again["detail"]
    for envelope, reason in (
        (till.ordered("ann", "bo", id="K-2"), "wrong_role"),
        (till.ordered("bo", id="K-3"), "too_few"),
        (till.ordered(id="K-4", command="reboot"), "not_allowed"),
        (till.ordered(id="K-5", command="key_order", arguments={"order": "x"}), "wrong_role"),
        (till.ordered(id="K-6", target={"terminals": ["ATM-0002"]}), "wrong_target"),
        (till.ordered(id="K-7", not_before=now() - DAY, expires=now() - 1000), "expired"),
        (till.signed(version=99, config="x"), "wrong_type"),
    ):
        rows = len(till.rows("refused"))
        digest = till.send(envelope, ORDER)
        row = till.row("refused", rows)
        assert (row["reason"], row["of"], row["digest"]) == (reason, "command", digest)
        till.answered(f"({reason})")
    assert till.ground.site.end(till.name, signal.SIGKILL) == -signal.SIGKILL
    till.ground.start(till)
    wait("another life", lambda: till.sessions() > 1)
    till.ready("ups1", "printer1")
    till.send(order, ORDER)
    wait("its repetition", lambda: len(till.results(id="K-1", outcome="repeated")) == 2)
    assert len(till.rows("command", id="K-1")) == 1
    assert len(till.rows("command_ended", id="K-1")) == 1
    assert {row["id"] for row in till.rows("command")} == {"K-1"}


def test_a_rotation_is_signed_by_those_who_counted_before_it(attacked: tuple[Till, str]) -> None:
    till, text = attacked
    people = [person(name, "config trust") for name in ("newcomer", "eve")]
    new = Trust(1, (*people, person("bo")), frozenset({KEYS["ann"].public.id}))
    times = {"not_before": now() - 1000, "expires": now() + DAY}

    def turned(*names: str, **fields: object) -> bytes:
        return sealed(TRUST, rotation(new, **times | fields), *names)

    gone = {"not_before": now() - DAY, "expires": now() - 1000}
    for envelope, reason in (
        (turned("newcomer", "eve"), "unknown_key"),
        (turned("ann"), "too_few"),
        (turned("ann", "cy"), "wrong_role"),
        (till.signed(version=99, config=text), "wrong_type"),
        (turned("ann", "bo", org="other"), "wrong_target"),
        (turned("ann", "bo", **gone), "expired"),
        # Nobody has signed the line that has not expired.
        (turned() + b"\n" + turned("ann", "bo", id="T-2", **gone), "expired"),
    ):
        rows = len(till.rows("refused", of="trust/desired"))  # what came before may still be told
        till.send(envelope, SIGNERS)
        assert till.row("refused", rows, of="trust/desired")["reason"] == reason
    assert till.rows("signers") == []
    later = till.signed("newcomer", "eve", version=till.next() + 10, config=text)
    refused(till, later, "unknown_key")
    till.send(turned("ann", "bo"), SIGNERS)
    till.row("signers", version=1)
    wait("the centre to know", lambda: till.reports(trust=1))
    assert till.rows("signers")[0]["signers"] == ["bo", "eve", "newcomer"]
    till.reported(outcome="committed", digest=digest_of(later))  # what was refused counts now
    refused(till, till.signed(version=till.next() + 20, config=text), "revoked_key")
