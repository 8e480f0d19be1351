"""The hash chain: one spelling, every sort of tampering found and placed, and the view that the rows give."""

import hashlib
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import ledger
from agent.errors import LedgerError

BEGIN = ledger.genesis("ATM-0001", "e1")
Rows = list[tuple[int, bytes, bytes]]
Tamper = Callable[[Rows], Rows]


def chain(count: int) -> Rows:
    rows, before = [], BEGIN
    for seq in range(1, count + 1):
        row = ledger.canonical({"seq": seq, "kind": "change", "value": f"v{seq}"})
        before = ledger.link(before, row)
        rows.append((seq, row, before))
    return rows


def test_a_whole_chain_holds() -> None:
    rows = chain(20)
    assert ledger.verify(rows, BEGIN) == (20, rows[-1][2])
    assert ledger.verify(rows[10:], rows[9][2], 10) == (20, rows[-1][2])


def test_anyone_can_recompute_it_with_json_and_sha256() -> None:
    digest = hashlib.sha256(b"tillwire/v1\0ATM-0001\0e1").digest()
    for _, row, stored in chain(5):
        again = json.dumps(json.loads(row), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        digest = hashlib.sha256(digest + again).digest()
        assert digest == stored


def changed(rows: Rows) -> Rows:
    seq, row, digest = rows[6]
    return [*rows[:6], (seq, row.replace(b"v7", b"v8"), digest), *rows[7:]]


def relinked(rows: Rows) -> Rows:
    seq, row, _ = rows[6]
    row = row.replace(b"v7", b"v8")
    return [*rows[:6], (seq, row, ledger.link(rows[5][2], row)), *rows[7:]]


@pytest.mark.parametrize(
    ("tamper", "found"),
    [
        (changed, 7),
        (relinked, 8),
        (lambda rows: rows[:6] + rows[7:], 7),
        (lambda rows: [*rows[:6], rows[7], rows[6], *rows[8:]], 7),
        (lambda rows: [*rows[:6], rows[6], *rows[6:]], 8),
    ],
    ids=["edited", "edited and relinked", "deleted", "exchanged", "doubled"],
)
def test_tampering_is_found_and_placed(tamper: Tamper, found: int) -> None:
    with pytest.raises(LedgerError) as caught:
        ledger.verify(tamper(chain(12)), BEGIN)
    assert caught.value.seq == found


def test_another_terminal_or_epoch_is_another_chain() -> None:
    for before in (ledger.genesis("ATM-0002", "e1"), ledger.genesis("ATM-0001", "e2")):
        with pytest.raises(LedgerError):
            ledger.verify(chain(1), before)


def test_numbers_with_a_fraction_have_no_spelling() -> None:
    with pytest.raises(ValueError, match="canonical"):
        ledger.canonical({"kind": "change", "deep": [{"value": 1.5}]})


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.booleans() | st.none()))
def test_canonical_bytes_do_not_depend_on_the_order_of_keys(row: dict[str, object]) -> None:
    assert ledger.canonical(row) == ledger.canonical(dict(reversed(list(row.items()))))
    assert json.loads(ledger.canonical(row)) == row


def test_the_view_follows_changes_and_forgets_at_a_start() -> None:
    rows: list[ledger.Row] = [
        {"kind": "start"},
        {"kind": "known", "device": "p", "values": {"paper.receipt": "full", "link.state": "up"}},
        {"kind": "change", "device": "p", "point": "paper.receipt", "value": "low"},
        {"kind": "unknown", "device": "p", "points": ["paper.receipt"]},
    ]
    assert ledger.view(rows) == {"p": {"paper.receipt": None, "link.state": "up"}}
    assert ledger.view([*rows, {"kind": "start"}]) == {"p": {"paper.receipt": None, "link.state": None}}
