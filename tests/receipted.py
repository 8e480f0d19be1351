"""Ceremonies in virtual time of every kind that ends, their rows as the store gives them, and their receipts."""

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

from agent.crypto import receipts, steps
from agent.crypto.ed25519 import SigningKey
from agent.crypto.orders import Site
from agent.crypto.secret import Secret
from agent.crypto.steps import State
from tests.ceremonies import SITE, WALL, Epp, Terminal, block_order, destroy_order, order

KEY = SigningKey(Secret(bytes(range(32))))
OTHER = SigningKey(Secret(bytes(range(1, 33))))
HOUR = 3_600_000
SIMULATOR = Site(SITE.terminal, SITE.epp_serial, simulated=True)


def by_components() -> Terminal:
    terminal = Terminal()
    terminal.load(order())
    return terminal


def by_block() -> Terminal:
    terminal = by_components().again()
    terminal.load(block_order())
    return terminal


def destroyed() -> Terminal:
    terminal = by_components().again()
    terminal.load(destroy_order())
    return terminal


def aborted_after_two_parts() -> Terminal:
    terminal = Terminal()
    terminal.load(order(count=3), State.PART)
    terminal.part("li")
    terminal.part("wang")
    terminal.do(steps.Trouble("abandoned", "wang"))
    return terminal


def aborted_after_a_restart() -> Terminal:
    terminal = Terminal()
    terminal.load(order(), State.VERIFIED)
    terminal.restart()
    return terminal


def on_the_simulator() -> Terminal:
    terminal = Terminal(site=SIMULATOR)
    terminal.load(order(hierarchy="test"))
    return terminal


def with_every_trouble() -> Terminal:
    """Slots cleared first, a wrong entry, refusals, and a restart between the two signatures."""
    what = order(kind="compromise", compromised=["TMK", "TPK"], count=3)
    terminal = Terminal(Epp({"TMK": ("loaded", 5), "TPK": ("loaded", 6)}))
    terminal.load(what, State.PART)
    terminal.epp.typed[1] += 1
    terminal.part("wang")
    terminal.part("li")
    terminal.part("wang")
    terminal.epp.typed[1] -= 1
    for name in ("li", "wang", "zhao"):
        terminal.part(name)
    terminal.do(steps.WrongLogin("wang"))
    terminal.confirm()
    terminal.do(steps.Proof(terminal.login("li"), True, "sign_on", "R2"))
    terminal.sign("li", what)
    terminal.restart()
    terminal.sign("wang", what)
    return terminal


CASES: dict[str, tuple[Callable[[], Terminal], str]] = {
    "components": (by_components, "ORD-1"),
    "block": (by_block, "ORD-B"),
    "destroyed": (destroyed, "ORD-D"),
    "aborted": (aborted_after_two_parts, "ORD-1"),
    "restarted": (aborted_after_a_restart, "ORD-1"),
    "simulator": (on_the_simulator, "ORD-1"),
    "troubled": (with_every_trouble, "ORD-1"),
}


def kept(terminal: Terminal, came: int = 2 * HOUR) -> list[dict[str, Any]]:
    """The rows as the store gives them; the order came so many ms before anything else."""
    opened = next(row for row in terminal.rows if row["event"] == "opened")
    before = {**opened, "event": "received", "state": "idle", "at": WALL - came}
    return [{**row, "seq": seq} for seq, row in enumerate([before, *terminal.rows], 400)]


def facts_of(rows: list[dict[str, Any]], order: str = "ORD-1", version: str = "0.1.0") -> dict[str, Any]:
    mine = receipts.of_order(rows, order)
    return receipts.facts(mine, receipts.Head("0123456789abcdef", mine[-1]["seq"], "5e" * 32, version))


@cache
def _facts(name: str) -> dict[str, Any]:
    play, order = CASES[name]
    return facts_of(kept(play()), order)


def facts(name: str) -> dict[str, Any]:
    return copy.deepcopy(_facts(name))


@cache
def issued(name: str = "components") -> str:
    return receipts.issue(facts(name), KEY)
