"""This file knows the long form: lives drawn at random, cut between any two calls, and lives after the cut.

    python -m tests.powercut --minutes 10 [--seed 1]

Each seed is one story: up to four lives, each (but the first) begun with what a cut of the one before has left.
It stops at the first image that breaks a promise, and says which seed finds it again.
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.powercut.cuts import Image
from tests.powercut.runs import FAST, Recorder, Verdict

LIVES = 4
EACH = 12


def story(recorder: Recorder, seed: int) -> Verdict:
    """Some lives with a cut between them."""
    chance = random.Random(seed)
    verdict = Verdict()
    if chance.random() < 0.2:
        run = recorder.run(chance.choice(("counting", "sealing", "serving", "pushing")))
        return run.judged(chance, EACH, between=True)
    begin: Image | None = None
    for _ in range(chance.randint(1, LIVES)):
        if chance.random() < 0.7:
            wishes = {"commits": chance.randint(1, 40), "pages": chance.choice((2, 7, 12, 1000))}
            run = recorder.run("ledgering", begin, **wishes)
        else:
            run = recorder.run("damaged", begin, how=chance.choice(("row", "running")))
        left = []
        for image in run.images(chance, EACH, between=chance.random() < 0.3):
            left.append(image)
            verdict.add(run.judge(image, chance.random() < 0.1))
        if verdict.wrong:
            break
        begin = chance.choice(left)
    return verdict


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.powercut", description="Power cuts, the long form.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1, help="the first story")
    chosen = parser.parse_args()
    end = time.monotonic() + chosen.minutes * 60
    seed, count = chosen.seed, 0
    while time.monotonic() < end:
        with tempfile.TemporaryDirectory(dir=FAST) as folder:
            verdict = story(Recorder(Path(folder)), seed)
        count += verdict.count
        if verdict.wrong:
            print(f"seed {seed}:", *verdict.wrong[:5], sep="\n  ")
            return 1
        seed += 1
        print(f"\r{seed - chosen.seed} stories, {count} images, all whole", end="", flush=True)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
