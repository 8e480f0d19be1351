"""`tillwire keys` and `tillwire accounts`: what people see, what the agent is asked, and how a command ends.

At first with a clerk at the socket, who answers as agent/keys/desk.py does; at the end with the agent itself.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent.cli import keyviews, printing
from agent.cli.moving import followed
from agent.crypto.ed25519 import SigningKey
from agent.crypto.phrases import STEPS
from agent.crypto.signing import ORDER as ORDER_TYPE
from agent.crypto.signing import Envelope
from agent.crypto.steps import State
from agent.errors import ControlError
from tests.clerk import END, STATUS, Clerk, Json, tillwire
from tests.typing_people import Typist

if TYPE_CHECKING:
    from rich.console import RenderableType

DOCUMENT = {
    **{"format": "tillwire-key-order/1", "id": "KO-7", "terminal": "ATM-0001", "epp_serial": "2411-0001"},
    **{"slot": "TMK", "kind": "load", "method": "components", "usage": "K0", "algorithm": "T", "mode": "D"},
    **{"exportability": "N", "digits": 32, "version": 3, "kcv": "08D7B4", "hierarchy": "test"},
    **{"not_before": 1_800_000_000_000, "not_after": 1_800_600_000_000},
    "parts": [
        {"envelope": "ENV-71", "kcv": "8CA64D", "group": "G1"},
        {"envelope": "ENV-72", "kcv": "D5D44F", "group": "G2"},
    ],
}
VERIFIED = {"end": "verified", "step": {"word": "verified", "en": "08 D7 B4 is right: sign on", "zh": "请签到"}}
DESTROY = {"end": "destroy", "step": {"word": "destroy", "en": "shred the papers", "zh": "请粉碎"}}
ABORTED = {"end": "aborted", "step": {"word": "aborted", "en": "stopped: a person stopped it", "zh": "已中止"}}


@pytest.fixture
def clerk(tmp_path: Path) -> Iterator[Clerk]:
    found = Clerk(tmp_path / "s")
    yield found
    found.close()


def keys(**changes: Any) -> list[Json]:
    """What the agent says of keys, with some of it changed."""
    return [{"keys": {**STATUS["keys"], **changes}}]


def state(end: Json) -> Json:
    """The part of a status that is so after this end of an answer."""
    return {"state": end["end"], "step": end["step"]}


def tell(word: str, en: str = "", zh: str = "") -> Json:
    return {"tell": {"word": word, "en": en or f"sentence of {word}", "zh": zh or f"{word}的句子"}}


def run(clerk: Clerk, *words: str, answers: list[tuple[str, str]]) -> tuple[int, str, str]:
    """A command at a terminal, its questions answered."""
    with Typist(*words, TILLWIRE_SOCKET=str(clerk.path)) as typist:
        for question, answer in answers:
            typist.answer(question, answer)
        return typist.rest()


# status


def test_the_next_step_is_the_first_line_and_then_what_is_typed_for_it(clerk: Clerk) -> None:
    done = tillwire("keys", "status", clerk=clerk)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == ["next: component 1 of 2", "  tillwire keys part"]
    done = tillwire("keys", "status", "--lang", "zh", clerk=clerk)
    assert done.stdout.splitlines()[0] == "下一步: 第1/2个分量"


def test_status_shows_slots_findings_clocks_and_how_secrets_are_kept(clerk: Clerk) -> None:
    slot = {
        "slot": "TPK",
        "state": "loaded",
        "seen": "missing",
        "kcv": "08 D7 B4",
        "usage": "P0",
        "version": 4,
        "since": 0,
    }
    finding = {
        "word": "missing_key",
        "slot": "TPK",
        "critical": True,
        "en": "slot TPK should hold a key",
        "zh": "槽空",
    }
    waiting = {
        "order": "KO-9",
        "slot": "TAK",
        "kind": "load",
        "kcv": "8CA64D",
        "not_after": 5,
        "received": 1,
        "due": 1_800_000_000_000,
    }
    why = {"en": "slot TPK", "zh": "TPK槽"}
    clerk.answers["status"] = keys(
        **{"state": "idle", "order": None, "service": "stopped", "why": why, "slots": [slot]},
        **{"findings": [finding], "orders": [{**waiting, "late": True}]},
        ended=[{"order": "KO-8", "result": "closed", "at": 1}],
    )
    done = tillwire("keys", "status", clerk=clerk)
    assert done.returncode == 1
    for shown in (
        "keys begin KO-9",
        "CRITICAL slot TPK",
        "2027-01",
        "LATE",
        "KO-8",
        "SIMULATOR",
        "level file",
        "stopped",
    ):
        assert shown in done.stdout, shown
    assert "槽空" in tillwire("keys", "status", "--lang", "zh", clerk=clerk).stdout
    assert (
        json.loads(tillwire("keys", "status", "--json", clerk=clerk).stdout) == clerk.answers["status"][0]["keys"]
    )


@pytest.mark.parametrize(
    "ill",
    [
        {"service": "unknown"},
        {"sealing": {"error": "the file was put back"}},
        {
            "orders": [
                {"order": "K", "slot": "S", "kind": "load", "kcv": "", "not_after": 1, "received": 1, "late": True}
            ]
        },
        {"findings": [{"word": "age_due", "slot": "T", "critical": False, "en": "old", "zh": "旧"}]},
    ],
)
def test_status_ends_with_1_when_anything_needs_somebody(clerk: Clerk, ill: Json) -> None:
    clerk.answers["status"] = keys(service="ok")
    assert tillwire("keys", "status", clerk=clerk).returncode == 0
    clerk.answers["status"] = keys(**{"service": "ok", **ill})
    assert tillwire("keys", "status", clerk=clerk).returncode == 1


def test_the_public_key_stands_alone(clerk: Clerk) -> None:
    pem = SigningKey.generate().public.pem
    clerk.answers["status"] = keys(public_key=pem)
    assert tillwire("keys", "status", "--public-key", clerk=clerk).stdout == pem.strip() + "\n"
    clerk.answers["status"] = keys(sealing={"error": "the file was put back"})
    done = tillwire("keys", "status", "--public-key", clerk=clerk)
    assert (done.returncode, done.stdout) == (1, "")
    assert "put back" in done.stderr


def drawn(view: "RenderableType") -> str:
    screen = printing.console()
    with screen.capture() as found:
        screen.print(view)
    return found.get()


def test_in_chinese_nothing_is_left_in_english_but_names_and_commands() -> None:
    slots = [
        {"slot": "S1", "state": state, "seen": seen, "kcv": "08 D7 B4", "usage": "P0", "version": 1, "since": 1}
        for state, seen in (("loaded", "construct"), ("missing", ""), ("unknown", "loaded"))
    ]
    order = {"order": "KO-9", "slot": "S1", "kcv": "8CA64D", "not_after": 5, "received": 1, "late": True}
    [status] = keys(
        **{
            "service": "stopped",
            "why": {"en": "slot", "zh": "槽"},
            "slots": slots,
            "serial": "",
            "order": DOCUMENT,
        },
        people=[{"person": "li", "role": role, "group": "G1"} for role in ("key-manager", "technician")],
        lacking=[{"en": "the door", "zh": "门"}],
        findings=[{"word": "x", "slot": "S1", "critical": True, "en": "lost", "zh": "丢失"}],
        orders=[{**order, "kind": kind} for kind in ("load", "compromise", "destroy")],
        ended=[{"order": "KO-8", "result": result, "at": 1} for result in ("closed", "aborted")],
    )
    quiet = status["keys"] | {"order": None, "sealing": {"error": "丢"}, "serial": "1"}
    roles = ("technician", "key-manager", "auditor", "operator")
    person = {"name": "li", "group": "G1"}
    people = [{**person, "role": role, "fresh": role < "l", "locked": 2 * (role > "o")} for role in roles]
    shown = drawn(keyviews.status(status["keys"], "zh"))
    shown += "".join(drawn(keyviews.status({**quiet, "state": state.value}, "zh")) for state in State)
    shown += drawn(keyviews.people(people, 1, "zh")) + drawn(keyviews.people([], 1, "zh"))
    shown += drawn(keyviews.step({"state": "receipt", "step": STEPS["receipt"]._asdict()}, "zh"))
    taken = {"order": DOCUMENT, "signers": ["HQ"], "already": True, **state(END)}
    shown += drawn(keyviews.order(taken, "zh"))
    left = set(re.findall("[A-Za-z]{3,}", re.sub(r"tillwire.*|KO-\d|ENV-\d+|ATM-\d+|epp1|TMK", "", shown)))
    # Three words of the order stand beside their meaning: people compare them with the paper.
    assert left == {"load", "components", "test"}
    for meant in ("load 装载", "components 分量", "test 测试", "密钥管理员", "已逾期", "须修改初始密码", "锁定至"):
        assert meant in shown, meant


# orders


def test_an_order_is_handed_over_as_it_is_and_shown_whole(clerk: Clerk, tmp_path: Path) -> None:
    envelope = Envelope(ORDER_TYPE, json.dumps(DOCUMENT).encode()).signed(SigningKey.generate())
    (tmp_path / "KO-7.order").write_bytes(envelope.text)
    clerk.answers["order"] = [{"order": DOCUMENT, "signers": ["hq-maker", "hq-checker"], "already": False}]
    waiting = {"order": "KO-7", "slot": "TMK", "kind": "load", "kcv": "", "not_after": 1, "received": 1}
    clerk.answers["status"] = keys(**{"state": "idle", "order": None, "orders": [waiting]})
    done = tillwire("keys", "order", tmp_path / "KO-7.order", clerk=clerk)
    assert done.returncode == 0, done.stderr
    [request] = clerk.asked("order")
    assert request["text"] == envelope.text.decode()
    for shown in (
        "KO-7",
        "ATM-0001",
        "2411-0001",
        "TMK",
        "08D7B4",
        "ENV-71",
        "8CA64D",
        "G2",
        "hq-maker, hq-checker",
    ):
        assert shown in done.stdout, shown
    assert done.stdout.splitlines()[-1] == "  tillwire keys begin KO-7"
    chinese = tillwire("keys", "order", tmp_path / "KO-7.order", "--lang", "zh", clerk=clerk).stdout
    for shown in ("校验值", "信封ENV-71", "签发人", "有效期"):
        assert shown in chinese, shown
    assert "check value" not in chinese


def test_a_key_was_asked_for(clerk: Clerk) -> None:
    clerk.answers["applied"] = [{"applied": "KO-7"}]
    done = tillwire("keys", "order", "--applied", "KO-7", clerk=clerk)
    assert (done.returncode, clerk.requests) == (0, [{"do": "keys", "act": "applied", "order": "KO-7"}])
    assert "tillwire keys order FILE" in done.stdout
    clerk.answers["applied"] = [{"withdrawn": "KO-7"}]
    done = tillwire("keys", "order", "--withdraw", "KO-7", clerk=clerk)
    assert clerk.requests[1:] == [{"do": "keys", "act": "applied", "order": "KO-7", "withdrawn": True}]
    assert "nobody waits" in done.stdout
    assert tillwire("keys", "order", "--withdraw", "KO-7", "--applied", "KO-7", clerk=clerk).returncode == 2
    assert tillwire("keys", "order", clerk=clerk).returncode == 2
    assert tillwire("keys", "order", "f", "--applied", "KO-7", clerk=clerk).returncode == 2


# a ceremony


@pytest.mark.parametrize(
    ("lines", "code", "said"),
    [
        ([tell("opened"), END], 0, ""),
        (
            [tell("opened"), tell("looking"), {"beat": 1}, {"beat": 2}, tell("part"), END],
            0,
            "sentence of opened\nsentence of looking\n",
        ),
        ([tell("same_person"), END], 1, "sentence of same_person\n"),
        ([tell("again"), tell("clearing"), tell("part"), END], 1, "sentence of again\nsentence of clearing\n"),
        ([tell("looking"), ABORTED], 1, "sentence of looking\n"),
        ([{"error": "which order?", "status": 2}], 2, "tillwire: which order?\n"),
        ([tell("looking")], 3, "sentence of looking\ntillwire: the agent stopped before"),
    ],
)
def test_what_the_agent_tells_is_said_once_and_decides_the_exit_code(
    clerk: Clerk, lines: list[Json], code: int, said: str
) -> None:
    clerk.answers["begin"] = lines
    ended, out, err = run(clerk, "keys", "begin", "--person", "li", answers=[("Password of li:", "lantern")])
    assert (ended, err[: len(said) or None]) == (code, said)
    if code < 2:
        assert out.splitlines()[0] == f"next: {lines[-1]['step']['en']}"
    else:
        assert out == ""


def test_it_is_said_in_the_language_that_was_asked_for(clerk: Clerk) -> None:
    clerk.answers["part"] = [tell("entering"), {"beat": 1}, END]
    words = ("keys", "part", "--lang", "zh")
    code, out, err = run(clerk, *words, answers=[("您的姓名：", "li"), ("li的密码：", "lantern")])
    assert (code, out.splitlines()[0], err) == (0, "下一步: 第1/2个分量", "entering的句子\n")
    [request] = clerk.asked("part")
    assert (request["person"], request["password"]) == ("li", "lantern")


def test_a_step_is_told_before_the_agent_has_ended() -> None:
    told: list[str] = []

    def answers() -> Iterator[Json]:
        yield tell("entering", "type at the pad")
        told.append(capture())
        yield END

    import contextlib
    import io

    stream = io.StringIO()
    capture = stream.getvalue
    with contextlib.redirect_stderr(stream):
        result = followed(answers(), "en")
    assert told == ["type at the pad\n"]
    assert result == {"state": "part", "step": END["step"], "wrong": []}
    with pytest.raises(ControlError, match="before its answer was whole"):
        followed(iter([tell("part")]), "en")


def test_completing_asks_what_the_host_says_and_wants_a_login_for_it(clerk: Clerk) -> None:
    clerk.answers |= {"complete": [tell("loading"), tell("verified"), VERIFIED], "prove": [DESTROY]}
    code, out, err = run(
        clerk,
        *("keys", "complete", "--person", "wang"),
        answers=[
            ("Password of wang:", "lantern"),
            ("[yes/no/later]", "y"),
            ("[echo/sign_on/mac]", "sign"),
            ("longer):", "REF 1"),
            ("longer):", "REF-1"),
            ("Password of wang:", "lantern"),
        ],
    )
    assert code == 0, err
    proof = {"ok": True, "method": "sign_on", "reference": "REF-1", "person": "wang", "password": "lantern"}
    assert clerk.asked("prove") == [{"do": "keys", "act": "prove", **proof}]
    assert out.splitlines() == ["next: shred the papers", "  tillwire keys destroy"]


def test_when_only_the_proof_is_missing_only_that_is_asked(clerk: Clerk) -> None:
    clerk.answers |= {"status": keys(**state(VERIFIED)), "prove": [ABORTED]}
    answers = [("[yes/no/later]", "no"), ("[echo/sign_on/mac]", "mac"), ("longer):", ""), ("Your name:", "li")]
    code, out, _ = run(clerk, "keys", "complete", answers=[*answers, ("Password of li:", "lantern")])
    assert (code, clerk.asked("complete")) == (1, [])
    [proof] = clerk.asked("prove")
    assert (proof["ok"], proof["method"], proof["reference"], proof["person"]) == (False, "mac", "", "li")
    assert out.startswith("next: stopped")


def test_the_proof_may_wait(clerk: Clerk) -> None:
    clerk.answers["status"] = keys(**state(VERIFIED))
    code, out, _ = run(
        clerk, "keys", "complete", answers=[("[yes/no/later]", "maybe"), ("[yes/no/later]", "later")]
    )
    assert (code, clerk.asked("prove")) == (0, [])
    assert out.splitlines()[-1] == "  tillwire keys complete"


def test_a_refused_completion_asks_for_no_proof(clerk: Clerk) -> None:
    for end in (END, VERIFIED):
        clerk.answers["complete"] = [tell("not_second"), end]
        code, _, err = run(clerk, "keys", "complete", "--person", "li", answers=[("Password of li:", "lantern")])
        assert (code, err) == (1, "sentence of not_second\n")


def test_stopping_asks_nothing(clerk: Clerk) -> None:
    clerk.answers["abort"] = [tell("aborting"), {"beat": 1}, tell("aborted"), ABORTED]
    done = tillwire("keys", "abort", clerk=clerk)
    assert (done.returncode, clerk.requests) == (0, [{"do": "keys", "act": "abort"}])
    assert done.stdout.splitlines() == ["next: stopped: a person stopped it", "  tillwire keys receipt"]
    assert done.stderr == "sentence of aborting\n"


def test_signing_shows_the_envelopes_and_wants_a_yes(clerk: Clerk) -> None:
    clerk.answers |= {"status": keys(order=DOCUMENT, **state(DESTROY)), "sign": [DESTROY]}
    words = ("keys", "destroy", "--person", "li")
    with Typist(*words, TILLWIRE_SOCKET=str(clerk.path)) as typist:
        typist.answer("Password of li:", "lantern")
        typist.until("KO-7")
        typist.until("ENV-71, ENV-72")
        typist.answer("[yes/no]", "n")
        assert typist.rest()[0] == 1
    assert not clerk.asked("sign")
    code, _, _ = run(clerk, *words, answers=[("Password of li:", "lantern"), ("[yes/no]", "yes")])
    assert (code, len(clerk.asked("sign"))) == (0, 1)


def test_papers_that_another_order_has_passed_are_signed_for_by_its_id(clerk: Clerk) -> None:
    older = {**DOCUMENT, "id": "KO-6", "parts": [{"envelope": "ENV-61", "kcv": "8CA64D", "group": "G1"}]}
    clerk.answers |= {"status": keys(order=DOCUMENT, papers=[older], **state(DESTROY)), "sign": [DESTROY]}
    signing = [("Password of li:", "lantern"), ("[yes/no]", "yes")]
    assert run(clerk, "keys", "destroy", "KO-6", "--person", "li", answers=signing)[0] == 0
    assert run(clerk, "keys", "destroy", "--person", "li", answers=signing)[0] == 0
    assert [request["order"] for request in clerk.asked("sign")] == ["KO-6", "KO-7"]


def test_there_is_a_time_to_sign(clerk: Clerk) -> None:
    code, _, err = run(clerk, "keys", "destroy", answers=[])
    assert (code, err) == (1, "tillwire: that is not the next step: component 1 of 2\n")


def test_a_sign_on_of_the_host(clerk: Clerk) -> None:
    clerk.answers["signed_on"] = [{"looking": True}]
    done = tillwire("keys", "signed-on", clerk=clerk)
    assert (done.returncode, clerk.requests) == (0, [{"do": "keys", "act": "signed_on"}])
    assert "tillwire keys status" in done.stdout


# receipts


def test_a_receipt_is_printed_as_a_page_and_written_whole(clerk: Clerk, tmp_path: Path) -> None:
    page = "RECEIPT 回执" + "  x" * 30 + "\nKO-7"
    text = f"{page}\n\n-----BEGIN TILLWIRE RECEIPT-----\nAAAA\n-----END TILLWIRE RECEIPT-----\n"
    clerk.answers |= {"receipt": [{"order": "KO-7", "receipt": text}], "status": keys(state="idle", order=None)}
    words = ("keys", "receipt", "KO-7", "--to", tmp_path / "r")
    for _ in range(2):
        done = tillwire(*words, clerk=clerk)
        assert (done.returncode, done.stdout) == (0, page + "\n"), done.stderr
    assert done.stderr.splitlines()[-1] == "  tillwire keys order FILE"
    assert (tmp_path / "r").read_text() == text
    for ended, then in (("closed", "keys receipt --check FILE --key PEM"), ("aborted", "keys order FILE")):
        step = {"word": ended, "en": "all is done", "zh": "全部完成"}
        clerk.answers["status"] = keys(state=ended, step=step, order=None)
        done = tillwire("keys", "receipt", "KO-7", clerk=clerk)
        told = ["this is the page alone: --to FILE writes it with its signature, by which it can be checked"]
        assert done.stderr.splitlines() == [*told, "next: all is done", f"  tillwire {then}"]
    assert clerk.asked("receipt")[0]["order"] == "KO-7"
    (tmp_path / "r").write_text("something else")
    assert tillwire(*words, clerk=clerk).returncode == 2
    assert (tmp_path / "r").read_text() == "something else"
    assert tillwire("keys", "receipt", "--check", tmp_path / "r", clerk=clerk).returncode == 2


# people


def test_a_person_is_added_with_a_password_typed_twice(clerk: Clerk) -> None:
    clerk.answers["add"] = [{"done": {"en": "li may log in once the password is changed", "zh": "请改密码"}}]
    words = ("accounts", "add", "li", "--role", "key-manager", "--group", "G1")
    answers = [
        ("or more:", "lantern-one"),
        ("once more:", "lantern-two"),
        ("or more:", "lantern-one"),
        ("once more:", "lantern-one"),
    ]
    code, out, err = run(clerk, *words, answers=answers)
    assert (code, err) == (0, "")
    person = {"name": "li", "role": "key-manager", "group": "G1", "password": "lantern-one"}
    assert clerk.requests == [{"do": "accounts", "act": "add", **person}]
    assert out.splitlines()[-1] == "  tillwire accounts password li"
    assert tillwire("accounts", "add", "li", "--role", "guest", clerk=clerk).returncode == 2


def test_a_person_changes_the_password(clerk: Clerk) -> None:
    clerk.answers["password"] = [{"done": {"en": "li has a new password", "zh": "li的密码已更改"}}]
    answers = [("li的密码：", "lantern-one"), ("li的新密码", "lantern-two"), ("再输入一次：", "lantern-two")]
    code, out, _ = run(clerk, "accounts", "password", "li", "--lang", "zh", answers=answers)
    change = {"name": "li", "old": "lantern-one", "new": "lantern-two"}
    assert (code, clerk.requests) == (0, [{"do": "accounts", "act": "password", **change}])
    assert out.splitlines()[0] == "li的密码已更改"


def test_people_are_listed_unlocked_and_removed(clerk: Clerk) -> None:
    person = {"name": "li", "role": "key-manager", "group": "G1", "fresh": True, "locked": 0}
    locked = {**person, "name": "wang", "fresh": False, "locked": 4_000_000_000_000}
    clerk.answers |= {"list": [{"accounts": [person, locked]}], "unlock": [{"done": {"en": "wang may try again"}}]}
    clerk.answers["remove"] = [{"error": "there is no wang", "status": 2}]
    shown = tillwire("accounts", "list", clerk=clerk).stdout
    assert "must change the first password" in shown
    assert "locked until 2096" in shown
    done = tillwire("accounts", "unlock", "wang", clerk=clerk)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "wang may try again")
    done = tillwire("accounts", "remove", "wang", clerk=clerk)
    assert (done.returncode, done.stderr) == (2, "tillwire: there is no wang\n")
    assert [request.get("name") for request in clerk.requests] == [None, "wang", "wang"]
