"""This file knows the training drill: two people practise a whole key ceremony on a simulated ATM.

    python -m hwsim.drill FOLDER [--auto]

FOLDER holds fleet.toml, terminal.toml, story.toml and sign_orders.py. The screen tells what each of the two types
in which terminal, in English and Chinese; a step is ticked off when the agent's ledger says that it has happened.
A wrong check value and a power cut are part of it. At the end there is a score. With --auto the drill plays both
people itself. Exit code 0: every step done, receipts and ledger verified; 1: not; 3: it cannot run here.
"""

import argparse
import json
import signal
import subprocess
import sys
import textwrap
import time
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from hwsim import drill_papers
from hwsim.demo import Failed, free_port
from hwsim.drill_papers import Paper
from hwsim.drill_players import Players
from hwsim.drill_site import PEOPLE, SERIAL, TERMINAL, Site, first_password
from hwsim.drill_story import Names, Row, Scene, Seen, Step, Story, load, mistake
from hwsim.errors import Refusal

TURN = 0.25
"""Seconds between two looks at the ledger."""
DARK = {False: 6.0, True: 1.0}
"""Seconds for which the pad stays without power, with people and without."""
STUCK = 60.0
"""Seconds after which a step that the drill plays itself counts as failed."""
BEFORE_IT_IS_STORED = "before part"
"""The pad's power fails here: the second component is typed, and joined to nothing yet."""
CUT_SHORT: tuple[Mapping[str, str | int], ...] = (
    {"event": "wrong", "order": "{order}", "raw": "hardwareError"},
    *(
        {"event": event, "order": "{order}", "cause": cause}
        for event in ("trouble", "aborted")
        for cause in ("device_lost", "device_refused", "no_answer")
    ),
)
"""What the ledger may tell of that: it depends on which the agent meets first, the answer or the silence."""
NEVER = "before wipe"
"""No ceremony wipes the pad: a power cut that was arranged for this moment does not happen."""
ROLES = {"A": "li 密钥管理员 key manager", "B": "wang 技术员 technician", "C": "密码键盘与面板 pad and panel"}
Planned = tuple[Mapping[str, str | int], Names]


class Drill:
    """One drill. loads, ends: the orders to load, and to destroy by check value; paper: the one at hand."""

    def __init__(self, site: Site, story: Story, *, auto: bool) -> None:
        self.site, self.story, self._auto = site, story, auto
        self.loads, self.ends = drill_papers.make(TERMINAL, SERIAL, site.scenes, site.run / "signers.toml")
        self.seen = Seen(site.run, fresh=set(PEOPLE))
        self.players: Players | None = None
        self.paper: Paper | None = None
        self.done, self.mistakes, self.receipts = 0, list[tuple[float, str]](), list[str]()
        self.total = sum(len(scene.step) for scene in story.scene)
        self._began = time.monotonic()
        self._planned: list[Planned] = []
        self._loaded = ""
        self._to_cut = False
        self._dark_since: float | None = None
        self._step = ("", "")
        self._looked_at = 0.0

    def play(self) -> None:
        """Play the whole story. Raises Failed."""
        if self._auto:
            self.players = Players(self.site.run, self.pump, lambda: bool(self.site.hands(look=True)["typing"]))
        for scene in self.story.scene:
            before = self.done
            while not self._scene(scene):
                self.done = before
                self._say(
                    "The order is used up. The scene begins again with a new one.",
                    "指令已作废。本节以新指令重新开始。",
                )

    def pump(self) -> None:
        """Look at everything when it is time to, and do to the hardware what is planned. Raises Failed."""
        now = time.monotonic()
        if now - self._looked_at < TURN:
            return
        self._looked_at = now
        self.site.check()
        for row in self.site.look(self.seen):
            if word := self.word(row):
                self._note(word)
        self._power(now)
        step = self.site.next_step()
        if step != self._step:
            self._step = step
            print(f"         agent: {step[0]}\n         代理: {step[1]}", flush=True)

    def word(self, row: Row) -> str:
        """The mistake that a row of the ledger tells of, or nothing."""
        paper = self.paper
        if row["event"] == "signed" and paper and row["order"] == paper.order and paper.left(self.site.run):
            return "paper_left"
        return mistake(row, self._planned)

    def close(self) -> None:
        """The people that the drill plays go home."""
        if self.players:
            self.players.close()

    # One scene, one step.

    def _scene(self, scene: Scene) -> bool:
        """Play a scene with an order of its own; False when the order came to its end before its time."""
        paper = self.paper = self._new_paper(scene)
        print(f"\n=== {scene.en}   {scene.zh}")
        names: Names = paper.names() if paper else {}
        names = {**names, **{f"first_{name}": first_password(name) for name in PEOPLE}}
        self._planned = [(row, names) for row in scene.planned]
        self._to_cut = scene.cut
        if paper:
            paper.deliver(self.site.run, exercise=scene.cut)
            self._say(
                f"The courier brings {paper.order}.order"
                + f" and {len(paper.envelopes)} envelopes" * bool(paper.envelopes),
                f"送达：{paper.order}.order" + f"及{len(paper.envelopes)}个信封" * bool(paper.envelopes),
            )
        for number, step in enumerate(scene.step):
            self._show(step, names)
            if self.players:
                self.players.perform(step, paper)
            if not self._until(step, scene.step[number:], names):
                self._take_back(paper)
                return False
            self.done += 1
            print(f"  {_clock(self._elapsed)}  ✓ {self.done}/{self.total}", flush=True)
        if paper:
            self.receipts.append(paper.order)
            self._loaded = paper.document["kcv"] if scene.loads else self._loaded
        return True

    def _new_paper(self, scene: Scene) -> Paper | None:
        orders: Mapping[str, Iterator[Paper]] = {
            "load": self.loads,
            "destroy": self.ends.get(self._loaded, iter(())),
        }
        if not scene.kind:
            return None
        try:
            return next(orders[scene.kind])
        except StopIteration:
            raise Failed("every order that was signed for this drill is used up: begin again") from None

    def _until(self, step: Step, rest: tuple[Step, ...], names: Names) -> bool:
        """Wait until a step is done; False when the ceremony has ended, and what is left can never be."""
        end = time.monotonic() + STUCK
        while True:
            self.pump()
            if self.seen.done(step, names):
                return True
            if self._has("aborted") and any(later.done.row and not self.seen.done(later, names) for later in rest):
                return False
            if self._auto and time.monotonic() > end:
                raise Failed(f"this step was not done in {STUCK:.0f} s: {step.en}")
            time.sleep(TURN)

    def _take_back(self, paper: Paper | None) -> None:
        """Clear away what an order has left that ended before its time."""
        for path in paper.left(self.site.run) if paper else ():
            path.unlink()
        if self._dark_since is not None:
            self.site.hands(act="cut_at", step=NEVER)
            self._dark_since = None

    def _show(self, step: Step, names: Names) -> None:
        number, gap = f"\n{self.done + 1:>3}. ", " " * 5
        print(textwrap.fill(step.en.format_map(names), 112, initial_indent=number, subsequent_indent=gap))
        print(f"{gap}{step.zh.format_map(names)}")
        for terminal, text in step.do:
            print(f"       {terminal} ({ROLES[terminal]}):  {text.format_map(names)}")
        sys.stdout.flush()

    # Power.

    def _power(self, now: float) -> None:
        """Let the pad's power fail when it is time to, and give it back when the agent has met that."""
        names = self.paper.names() if self.paper else {}
        if self._to_cut and self._has("part", number=1):
            self._to_cut = False
            self.site.hands(act="cut_at", step=BEFORE_IT_IS_STORED)
            self._planned += [(row, names) for row in CUT_SHORT]
            self._dark_since = 0.0
        if self._dark_since is None or self.site.hands(look=True)["power"]:
            return
        if not self._dark_since:
            self._dark_since = now
            self.seen.dark.add(names["order"])
            self._say("*** The power of the pad fails.", "*** 密码键盘断电。")
        met = self._has("aborting") or self._has("aborted")
        if met and now - self._dark_since > DARK[self._auto]:
            self._dark_since = None
            self.site.hands(act="restore")
            self._say("*** The power is back.", "*** 电源恢复。")

    def _has(self, event: str, **fields: str | int) -> bool:
        """Whether the ledger has such a row of the order at hand."""
        return self.paper is not None and self.seen.has({"event": event, "order": self.paper.order, **fields}, {})

    # The end.

    def verify(self) -> bool:
        """Verify every receipt with the terminal's public key alone, and the ledger; print the score."""
        run = self.site.run
        key = run / "terminal.pem"
        key.write_text(self.site.tillwire("keys", "status", "--public-key").stdout, encoding="utf-8")
        ledger = self.site.tillwire("ledger", "verify", "--json")
        self.close()
        self.site.stop_all()  # a receipt needs no agent
        verdicts = []
        for order in self.receipts:
            checked = self.site.tillwire("keys", "receipt", "--check", f"{run}/{order}.receipt", "--key", str(key))
            verdicts.append((f"receipt 回执 {order}", checked, "verified offline 已离线验证"))
        verdicts.append(("ledger 台账", ledger, f"verified 已验证: {_rows(ledger)} rows"))
        good = self.done == self.total and all(done.returncode == 0 for _, done, _ in verdicts)
        self.score([(label, _verdict(done, said)) for label, done, said in verdicts])
        print(f"\n  {'The drill is done.  演练完成。' if good else 'The drill is NOT done.  演练未完成。'}")
        return good

    def score(self, more: Iterable[tuple[str, str]] = ()) -> None:
        """Print the score, and what the mistakes teach."""
        lines = [
            ("steps done 完成步骤", f"{self.done} of {self.total}"),
            ("time 用时", _clock(self._elapsed)),
            *more,
        ]
        lines.append(("mistakes 失误", str(len(self.mistakes)) if self.mistakes else "none 无"))
        print()
        for label, value in lines:
            print(f"  {label}{' ' * (32 - _width(label))} {value}")
        for elapsed, word in self.mistakes:
            lesson = self.story.lesson(word)
            print(f"    {_clock(elapsed)}  {word}: {lesson.en}\n           {lesson.zh}")

    def _note(self, word: str) -> None:
        self.mistakes.append((self._elapsed, word))
        lesson = self.story.lesson(word)
        self._say(f"!   {word}: {lesson.en}", f"!   {lesson.zh}")

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _say(self, en: str, zh: str) -> None:
        print(f"  {_clock(self._elapsed)}  {en}\n         {zh}", flush=True)


def main() -> int:
    """Run the drill."""
    parser = argparse.ArgumentParser(prog="make drill ARGS=...", description="Two people practise a key ceremony.")
    parser.add_argument(
        "scenes", type=Path, help="folder with fleet.toml, terminal.toml, story.toml, sign_orders.py"
    )
    parser.add_argument("--auto", action="store_true", help="play both people, through terminals of their own")
    parser.add_argument("--run", type=Path, default=Path("run/drill"), help="where everything is written")
    chosen = parser.parse_args()
    for stream in (sys.stdout, sys.stderr):
        getattr(stream, "reconfigure", lambda **_: None)(errors="replace")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    site, drill = Site(chosen.scenes, chosen.run.absolute(), free_port()), None
    try:
        story = load(chosen.scenes / "story.toml")
        site.prepare()
        drill = Drill(site, story, auto=chosen.auto)
        site.start_all()
        if not chosen.auto:
            here = f". {chosen.run}/here.sh"
            print(f"Open three terminals, A for li, B for wang, C for the pad, and say in each:  {here}")
            print(f"打开三个终端（A：li，B：wang，C：密码键盘），分别执行：  {here}", flush=True)
        drill.play()
        return 0 if drill.verify() else 1
    except (Failed, Refusal, OSError, ValueError, subprocess.SubprocessError) as error:
        print(f"the drill cannot go on: {error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        if drill:
            drill.score()
        return 130
    finally:
        if drill:
            drill.close()
        site.stop_all()


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60:02}:{int(seconds) % 60:02}"


def _width(text: str) -> int:
    """Columns on a screen: a Chinese character takes two."""
    return sum(1 + (unicodedata.east_asian_width(letter) in "WF") for letter in text)


def _verdict(done: "subprocess.CompletedProcess[str]", good: str) -> str:
    return good if done.returncode == 0 else f"NOT VERIFIED 未通过: {(done.stderr or done.stdout).strip()}"


def _rows(verify: "subprocess.CompletedProcess[str]") -> str:
    try:
        return str(json.loads(verify.stdout)["verified"])
    except (ValueError, KeyError):
        return "?"


if __name__ == "__main__":
    sys.exit(main())
