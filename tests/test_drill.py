"""The training drill, whole: the pad, the simulated ATM, the agent, and two people in terminals of their own."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hwsim.demo import Failed
from hwsim.drill import Drill
from hwsim.drill_papers import PUBLISHED, grouped, mistyped
from hwsim.drill_players import Shell
from hwsim.drill_site import Site
from hwsim.drill_story import load
from tests.whole import wait

ROOT = Path(__file__).parent.parent
COMPONENT = re.compile(r"(?<![0-9A-F])([0-9A-F]{4} ?){8}(?![0-9A-F])", re.I)
"""32 hex digits, in a row or as a paper shows them."""
pytestmark = [pytest.mark.timeout(150)]


def command(run: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "hwsim.drill", str(ROOT / "deploy/drill"), "--run", str(run), *more]


def test_the_drill_plays_both_people_through_the_real_commands(tmp_path: Path) -> None:
    run = tmp_path / "r"
    done = subprocess.run(command(run, "--auto"), capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr
    for said in ("The power of the pad fails", "电源恢复", "29 of 29", "The drill is done."):
        assert said in done.stdout, f"{said!r} is not in\n{done.stdout}"
    assert len(re.findall(r"receipt .* verified offline", done.stdout)) == 3
    assert re.search(r"mistakes 失误 +none", done.stdout)
    assert re.search(r"ledger .* verified .* [1-9][0-9]+ rows", done.stdout)
    assert all(COMPONENT.search(form) for form in (PUBLISHED[0], PUBLISHED[0].lower(), grouped(PUBLISHED[0])))
    assert not COMPONENT.search(done.stdout)
    assert not list((run / "paper").iterdir()), "every paper was destroyed"
    stopped, loaded = (run / f"KO-DRILL-{number}.receipt" for number in (1, 2))
    assert stopped.read_text("utf-8").count("SPOILED") == 2
    assert "SPOILED" not in loaded.read_text("utf-8")


class Practising:
    """A drill for people, and the people: `see` waits for what the drill's screen says."""

    def __init__(self, run: Path) -> None:
        self.run, self.screen = run, run.with_suffix(".txt")
        with self.screen.open("wb") as out:
            self.process = subprocess.Popen(
                command(run), stdout=out, stderr=out, env={**os.environ, "PYTHONUTF8": "1"}
            )
        self.see("1. ")
        self.shells = {name: Shell(name, run) for name in "ABC"}
        for name in self.shells:
            self.do(name, ". ./here.sh")

    def see(self, text: str, times: int = 1) -> None:
        def seen() -> bool:
            return self.screen.read_text("utf-8").count(text) >= times

        wait(text, lambda: seen() or self.process.poll() is not None)
        assert seen(), self.screen.read_text("utf-8")

    def do(self, name: str, line: str, *answers: str) -> str:
        """Type a command and the answers to its questions; what it has shown after the last of them."""
        shell = self.shells[name]
        self._until(shell, lambda: shell.idle)
        shell.type(line + "\n")
        for answer in answers:
            self._until(shell, lambda: bool(shell.question))
            shell.type(answer + "\n")
        self._until(shell, lambda: shell.idle)
        return shell.heard

    def enter(self, name: str, password: str, envelope: str, *, wrong: bool) -> None:
        """Log in for an envelope, and type its component at the pad."""
        self.shells[name].type("tillwire keys part --person li\n")
        self._until(self.shells[name], lambda: bool(self.shells[name].question))
        self.shells[name].type(password + "\n")
        self._until(self.shells[name], lambda: "own keypad" in self.shells[name].heard)
        found = COMPONENT.search((self.run / f"paper/{envelope}.txt").read_text("utf-8"))
        assert found
        component = found[0].replace(" ", "")
        pad = self.shells["C"]
        pad.type("hwsim type keypad.sock\n")
        self._until(pad, lambda: "not shown" in pad.heard)
        pad.type((mistyped(component) if wrong else component) + "\r")
        for shell in (pad, self.shells[name]):
            self._until(shell, lambda shell=shell: shell.idle)  # type: ignore[misc]

    @staticmethod
    def _until(shell: Shell, ready: Callable[[], bool]) -> None:
        def listen() -> bool:
            shell.listen(0.05)
            return ready()

        wait(f"terminal {shell.name}", listen)

    def end(self) -> str:
        """Ctrl-C; the whole screen."""
        for shell in self.shells.values():
            shell.close()
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(20) == 130
        return self.screen.read_text("utf-8")


@pytest.fixture
def practising(tmp_path: Path) -> Iterator[Practising]:
    drill = Practising(tmp_path / "r")
    try:
        yield drill
    finally:
        drill.process.terminate()  # it ends what it has started
        drill.process.wait(30)


def test_mistakes_are_told_with_their_lesson_and_a_stopped_order_is_replaced(practising: Practising) -> None:
    drill = practising
    for name, terminal in (("li", "A"), ("wang", "B")):
        own = f"mine-alone-{name}"
        drill.do(terminal, f"tillwire accounts password {name}", f"first-visit-of-{name}", own, own)
    drill.do("C", "hwsim set vendor operator_switch=maintenance")
    drill.see("KO-DRILL-1.order")
    drill.do("A", "tillwire keys order KO-DRILL-1.order")
    drill.do("A", "tillwire keys begin KO-DRILL-1 --person li", "not-her-password")
    drill.see("login: A wrong password.")
    drill.do("A", "tillwire keys begin KO-DRILL-1 --person li", "mine-alone-li")
    drill.do("A", "tillwire keys begin KO-DRILL-1 --person wang", "mine-alone-wang")
    drill.see("session_of_other: Each person works in a terminal session of their own")
    drill.do("B", "tillwire keys begin KO-DRILL-1 --person wang", "mine-alone-wang")
    for wrong in (True, False):
        drill.enter("A", "mine-alone-li", "ENV-1A", wrong=wrong)
    drill.see("✓ 8/29")
    drill.do("A", "tillwire keys abort --person li")
    drill.see("KO-DRILL-2.order")
    assert [path.name for path in sorted((drill.run / "paper").iterdir())] == ["ENV-2A.txt", "ENV-2B.txt"]
    drill.do("A", "tillwire keys order KO-DRILL-2.order")
    for name, terminal in (("li", "A"), ("wang", "B")):
        drill.do(terminal, f"tillwire keys begin KO-DRILL-2 --person {name}", f"mine-alone-{name}")
    for wrong in (True, False):  # the power cut that was arranged for the first order does not happen now
        drill.enter("A", "mine-alone-li", "ENV-2A", wrong=wrong)
    drill.see("✓ 8/29", times=2)
    score = drill.end().rpartition("steps done")[2]
    assert "8 of 29" in score, "the scene of the stopped order counts from its beginning"
    assert re.findall(r"\d\d:\d\d  (\w+):", score) == ["login", "session_of_other", "abandoned"]


def test_what_does_not_hold_is_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drill = alone(tmp_path / "r")
    drill.done, drill.receipts = drill.total, ["KO-DRILL-1"]
    (tmp_path / "r/KO-DRILL-1.receipt").write_text("no receipt")
    assert not drill.verify(), "there is neither an agent nor a receipt"
    said = capsys.readouterr().out
    assert re.search(r"KO-DRILL-1 +NOT VERIFIED", said)
    assert re.search(r"ledger 台账 +NOT VERIFIED", said)
    assert "NOT done" in said


def test_who_signs_for_a_paper_that_is_still_there_is_told(tmp_path: Path) -> None:
    drill = alone(tmp_path / "r")
    paper = drill.paper = next(drill.loads)
    signed = {"kind": "ceremony", "event": "signed", "order": paper.order, "person": "li"}
    paper.deliver(tmp_path / "r", exercise=False)
    assert drill.word(signed) == "paper_left"
    paper.left(tmp_path / "r")[0].unlink()
    assert drill.word(signed) == "paper_left"
    paper.left(tmp_path / "r")[0].unlink()
    assert drill.word(signed) == ""


def alone(run: Path) -> Drill:
    """A drill whose processes were not started."""
    site = Site(ROOT / "deploy/drill", run, 1)
    site.prepare()
    return Drill(site, load(ROOT / "deploy/drill/story.toml"), auto=True)


def test_an_agent_that_ended_is_told_with_where_to_look(tmp_path: Path) -> None:
    with pytest.raises(Failed, match=r"the agent does not answer .*agent\.log"):
        Site(ROOT / "deploy/drill", tmp_path, 0).next_step()
