"""This file knows a sitting: the frame of every key room command, from the first custodian to the record of it.

A key comes from components that its custodians type, and each check value is compared with paper before anything
goes on. The record holds nothing secret; it is for the paper file, and for the order.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from agent.cli import printing
from agent.cli.custodians import Table
from agent.cli.printing import cell
from agent.errors import ControlError, KeyRefused

if TYPE_CHECKING:
    from rich.console import RenderableType

    from agent.crypto.kcv import Kcv
    from agent.crypto.secret import Secret


ORDERED = "keep this record: it is what `tillwire keyroom order` takes"
NEXT = {
    "make": ORDERED,
    "wrap": ORDERED,
    "check": "seal the component again, or shred it before a witness",
    "combine": "seal the components again, or shred them before a witness",
    "cryptogram": "load it at the pad, and compare the check value that the pad tells",
    "inject": "seal the pad, write this record into its book, shred or seal the components",
}
"""What those at the table do when a command is done."""
FOR_PAPER = "keep this record with the papers; no order can be made of it"


@dataclass(slots=True)
class Sitting:
    """One command at the table: who is there, and the record that grows of it."""

    table: Table
    act: str
    drill: bool
    people: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def key(self, of: str, parts: int, digits: int, *, aes: bool = False, single: bool = False) -> "Secret":
        """A key from components that custodians type, each check value compared with paper. Raises KeyRefused."""
        from agent.crypto.components import Assembly
        from agent.crypto.keyroom import check_value

        self._sit_down(parts)
        assembly = Assembly(parts, single=single, test_keys=self.drill, aes=aes)
        values = []
        try:
            for part, person in enumerate(self.people[:parts], 1):
                value = assembly.add(self.table.component(f"component {part} of {parts} of {of}", digits, person))
                self.compare(value, f"component {part}")
                values.append(str(value))
            key = assembly.complete()
        finally:
            assembly.abort()
        value = check_value(key, aes=aes)
        self.facts[of] = {"kcv": str(value), "components": values, "custodians": self.people[:parts]}
        self.table.say(f"\nThe check value of {of} is {value}.")
        return key

    def _sit_down(self, parts: int) -> None:
        if len(self.people) < parts:
            self.people = self.table.people(parts)

    def compare(self, value: "Kcv", of: str) -> None:
        """Have a check value compared with the printed one. Raises KeyRefused when it is another."""
        if known := value.known():
            self.table.say(f"Careful: {value} is a known check value, {known}.")
        if not self.table.agreed(f"The check value of {of} is {value}. Is it the same on paper?"):
            raise KeyRefused(
                "the check value is not the one on paper: a wrong envelope, or one that was tampered with. Nothing"
                " was made; lock the envelopes away and report their numbers"
            )

    def expect(self, of: str, value: "Kcv", wanted: str | None) -> None:
        """Compare with a check value that was given on the command line. Raises KeyRefused when it differs."""
        from agent.crypto.kcv import Kcv

        if wanted is not None and not value.agrees(Kcv.parse(wanted, value.method)):
            raise KeyRefused(f"{of} has not the expected check value: look at the envelope numbers, begin again")


@contextmanager
def sitting_for(act: str, drill: bool, as_json: bool) -> Iterator[Sitting]:
    """The frame of every command: the table, then the record on stdout. Whatever fails leaves no record."""
    sitting = Sitting(Table.open(), act, drill)
    if drill:
        sitting.table.say("This is a drill: nothing made here may go to a real terminal.")
    for_paper = NEXT[act] == ORDERED and not as_json
    if for_paper:
        _ask_for_no_record(sitting.table)
    try:
        yield sitting
    except KeyboardInterrupt:
        sitting.table.say("\nended: what was typed is forgotten, and there is no record. Shred what was printed.")
        raise
    at = datetime.now(UTC).isoformat(timespec="seconds")
    record = {"act": act, "at": at, **({"drill": True} if drill else {}), **sitting.facts}
    printing.show(record, _view, as_json)
    sitting.table.say(f"\nnext: {FOR_PAPER if for_paper else NEXT[act]}")


def _ask_for_no_record(table: Table) -> None:
    """Before anything is made: afterwards nobody can make the same key again. Raises ControlError."""
    table.say("Without --json there will be no record of which `tillwire keyroom order` can make an order.")
    if not table.agreed("Is that what you want?"):
        raise ControlError("nothing was made: begin again with --json > FILE", 1)


def _view(record: Mapping[str, Any]) -> "RenderableType":
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, content in record.items():
        for row in content if isinstance(content, list) else [content]:
            table.add_row(cell(name), cell(_line(row)))
    return table


def _line(content: Any) -> str:
    if isinstance(content, Mapping):
        return ", ".join(f"{name} {_line(value)}" for name, value in content.items())
    if isinstance(content, Sequence) and not isinstance(content, str):
        return " and ".join(map(_line, content))
    return "-" if content is None else str(content)
