"""This file knows a run: a life is recorded, its recording is checked and cut, and each image is judged."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.powercut.cuts import Image, images
from tests.powercut.disk import UNSEEN, Disk, Tree
from tests.powercut.judging import judge_accounts, judge_pushes, judge_secrets, judge_store, lay
from tests.powercut.lives import MACHINE
from tests.powercut.recording import Op, Step, compiled, found, record

FAST = Path("/dev/shm") if Path("/dev/shm").is_dir() else None  # noqa: S108 - for a folder with a name of chance
"""Thousands of images are laid on a disk: one in memory, where there is one."""
AGAIN = 10
"""Of so many images one is also gone on with."""
BEFORE: Tree = {"machine-id": MACHINE}
JUDGES: dict[str, Callable[[Image, Path], None]] = {
    "ledgering": judge_store,
    "damaged": judge_store,
    "serving": partial(judge_store, ours=False),
    "counting": judge_accounts,
    "sealing": judge_secrets,
    "pushing": judge_pushes,
}


@dataclass(slots=True)
class Run:
    """A recorded life, and what was there when it began."""

    life: str
    steps: list[Step]
    begin: Image
    folder: Path

    @property
    def syncs(self) -> int:
        return sum(step.op is Op.SYNC for step in self.steps)

    def images(
        self, chance: random.Random, each: int, *, between: bool = False, deaf: tuple[str, ...] = ()
    ) -> Iterator[Image]:
        """As cuts.images."""
        return images(self.steps, Disk(self.begin.tree, self.begin.marks, deaf), chance, each, between=between)

    def judged(
        self, chance: random.Random, each: int, *, between: bool = False, deaf: tuple[str, ...] = ()
    ) -> "Verdict":
        """Judge the images of all cuts."""
        verdict = Verdict()
        for image in self.images(chance, each, between=between, deaf=deaf):
            verdict.add(self.judge(image, verdict.count % AGAIN == 0))
        return verdict

    def judge(self, image: Image, go_on: bool = False) -> str:
        """What is wrong with an image; empty when nothing is."""
        judge = JUDGES[self.life]
        if go_on and judge in (judge_store, judge_pushes):
            judge = partial(judge, go_on=True)
        try:
            judge(image, self.folder / "image")
        except Exception as error:
            return f"{image.name}, after {image.marks[-1:]}: {type(error).__name__}: {error}"
        return ""


@dataclass(slots=True)
class Verdict:
    """How many images were judged, and what was wrong with some."""

    count: int = 0
    wrong: list[str] = field(default_factory=list)

    def add(self, wrong: str) -> None:
        self.count += 1
        if wrong:
            self.wrong.append(wrong)


class Recorder:
    """Records lives below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._library = compiled(folder)
        self._count = 0

    def run(self, life: str, begin: Image | None = None, **wishes: Any) -> Run:
        """Record a life that begins with what an earlier cut has left. Raises AssertionError when the recording
        does not lead to what is on the real disk."""
        begin = begin or Image("nothing", BEFORE, ())
        self._count += 1
        root = self.folder / f"life{self._count}"
        lay(begin.tree, root)
        steps = record(self._library, root, self.folder / f"log{self._count}", life, **wishes)
        disk = Disk(begin.tree)
        for step in steps:
            disk.take(step)
        assert _seen(disk.now()) == _seen(found(root)), "the recorder has missed something"
        return Run(life, steps, begin, self.folder)


def _seen(tree: Tree) -> Tree:
    return {path: data for path, data in tree.items() if not path.endswith(UNSEEN)}
