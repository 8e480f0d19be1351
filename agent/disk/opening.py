"""This file knows what must be true of a store's file before its chain is gone on with, at each start.

A start must not depend on the length of the ledger: of the chain only the last rows are computed. But all else is
looked at here that could stop the agent or keep rows from the broker, rotten or changed by hand: who finds that
later may have no way on.
"""

from agent import ledger
from agent.disk.reading import Reader
from agent.errors import StoreCorrupt

TAIL = 64
"""Rows whose chain is checked at every start."""


def check(reader: Reader, head: int) -> None:
    """Look at a store whose last row is `head`. Raises StoreCorrupt or LedgerError when it cannot be as the agent
    left it."""
    if not reader.epoch or not reader.terminal:
        raise StoreCorrupt(f"{reader.path} does not say any more of which terminal and chain it is")
    reader.check_begin()
    anchor, acked = reader.anchor, reader.number("acked")
    start = max(anchor, head - TAIL)
    ledger.verify(reader.rows(start, TAIL), reader.hash_at(start), start)
    if not anchor <= acked <= head:
        raise StoreCorrupt(
            f"{reader.path} has the rows {anchor + 1} to {head}, but says that {acked} are delivered"
        )
    reader.number("signed")
    reader.dropped()
    reader.points()
    reader.faults()
