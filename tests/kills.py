"""Kills the agent with -9, again and again, while the broker comes and goes, and says what became of the rows.

    python -m tests.kills --kills 1000 [--seed 1] [--folder DIR]

The long form, which is run by hand (make soak SOAK=kills); tests/test_kills.py runs the short one. It ends with 1
when a row was lost, doubled, out of order, or changed.
"""

import argparse
import random
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from agent import ledger
from tests.whole import Site, answers, site, wait

PANEL = """
[lines.rs485]
kind = "modbus"
port = "./atm1/rs485"
[devices.panel1]
line = "rs485"
address = 1
poll = 0.02
[devices.panel1.inputs]
safe_door = { at = 0 }
"""
FLEET = """
run_dir = "."
[terminals.atm1.devices.panel1]
kind = "modbus"
line = "rs485"
"""
"""A door, because each of its changes is a row, however fast they come."""
SOON, ROWS = 0.4, 5
"""A life ends within so many seconds, about as many as a start takes, or once it has brought so many rows."""


@dataclass
class Toll:
    """What was done. `wrong`: what must not be, in words."""

    kills: int = 0
    early: int = 0
    brokers: int = 0
    rows: int = 0
    repeats: int = 0
    wrong: list[str] = field(default_factory=list)


def toll(folder: Path, kills: int, seed: int) -> Toll:
    """Kill the agent `kills` times, then let it deliver everything, and look."""
    chance, done, end = random.Random(seed), Toll(), threading.Event()
    with site(folder, devices=PANEL, fleet=FLEET) as one:
        one.start("broker")
        wait("the broker", one.broker_answers)
        one.start("subscriber")
        one.start("hwsim")
        wait("hwsim", partial(answers, folder / "control.sock"))
        door = threading.Thread(target=_open_and_close, args=(one, end), daemon=True)
        door.start()
        try:
            while done.kills < kills:
                _one_life(one, chance, done)
        finally:
            end.set()
            door.join()
        for name in ("broker", "agent"):
            if not one.alive(name):
                one.start(name)
        wait("the broker", one.broker_answers)
        wait("a last change", lambda: one.shown("panel1", "safe_door"))
        wait("every row", one.delivered)
        one.end("agent")
        wait("the last row", one.delivered)
        _judge(one, done)
    return done


def _open_and_close(one: Site, end: threading.Event) -> None:
    opened = False
    while not end.wait(0.03):
        opened = not opened
        one.act(device="panel1", set={"safe_door": "open" if opened else "closed"})


def _one_life(one: Site, chance: random.Random, done: Toll) -> None:
    """From a start of the agent to its end, with the broker lost or back somewhere in between."""
    before = head(one)
    one.start("agent")
    _wait_for_some(one, before, chance)
    if chance.random() < 0.4:
        if one.alive("broker"):
            one.end("broker", chance.choice([signal.SIGKILL, signal.SIGTERM]))
            done.brokers += 1
        else:
            one.start("broker")
        _wait_for_some(one, head(one), chance)
    one.end("agent", signal.SIGKILL)
    done.kills += 1
    done.early += head(one) == before
    if not one.alive("broker") and chance.random() < 0.5:
        one.start("broker")


def _wait_for_some(one: Site, before: int, chance: random.Random) -> None:
    """Until any moment after a start, or any moment after some more rows."""
    if chance.random() < 0.25:
        threading.Event().wait(chance.uniform(0.0, SOON))
        return
    rows = chance.randint(1, ROWS)
    wait("some rows", lambda: head(one) >= before + rows)
    threading.Event().wait(chance.uniform(0.0, 0.05))


def head(one: Site) -> int:
    """The last row of the store; 0 where there is none yet, or not even a table."""
    try:
        return one.made()[0][1]
    except (sqlite3.Error, TypeError):
        return 0


def _judge(one: Site, done: Toll) -> None:
    """Nothing is missing, doubled, out of order, or other than it was stored, and the chain is whole."""
    account = one.account
    with sqlite3.connect(f"file:{one.folder}/data/store.db?mode=ro", uri=True) as db:
        (epoch,) = db.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()
        rows = db.execute("SELECT seq, CAST(row AS BLOB), hash FROM ledger ORDER BY seq").fetchall()
    ledger.verify(rows, ledger.genesis("ATM-0001", epoch))
    stored = {seq: digest.hex() for seq, _, digest in rows}
    arrived = {seq: digest for (_, of, seq), digest in account.hashes.items() if of == epoch}
    done.rows, done.repeats = len(rows), account.repeats
    done.wrong += account.mistakes
    if len({of for _, of, _ in account.rows}) != 1:
        done.wrong.append("there is more than one epoch")
    if lost := sorted(stored.keys() - arrived.keys()):
        done.wrong.append(f"{len(lost)} rows were accepted and did not arrive, the first is {lost[0]}")
    if unknown := sorted(seq for seq, digest in arrived.items() if stored.get(seq) != digest):
        done.wrong.append(f"{len(unknown)} rows arrived that are not in the store, the first is {unknown[0]}")
    if account.twins():
        done.wrong.append(f"{account.twins()} rows tell the same again")


def main() -> int:
    """Kill, and print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path)
    chosen = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as spare:
        done = toll(chosen.folder or Path(spare), chosen.kills, chosen.seed)
    print(f"{done.kills} kills ({done.early} before the first row of a life), {done.brokers} ends of the broker")
    print(f"{done.rows} rows accepted, {done.repeats} repeats dropped, {time.monotonic() - begun:.0f} s")
    print("\n".join(done.wrong) or "nothing lost, nothing doubled, in order, the chain is whole")
    return 1 if done.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
