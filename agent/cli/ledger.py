"""This file knows `tillwire ledger`: its last rows, one row, and whether the chain of hashes holds.

What leaves the terminal as a file, and is checked elsewhere, is agent/cli/ledgerfile.py.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli import asking, ledgerfile, printing, wording
from agent.cli.options import ConfigFile, Json, Offline, Redated, Socket, StoreFile
from agent.cli.printing import cell
from agent.errors import ControlError

if TYPE_CHECKING:
    from rich.console import RenderableType

Facts = Mapping[str, Any]

app = typer.Typer(name="ledger", help="The terminal's log that nobody can quietly change.", no_args_is_help=True)
ledgerfile.join(app)


@app.command(epilog="Example: tillwire ledger tail -n 50")
def tail(
    count: Annotated[int, typer.Option("-n", "--number", min=1, max=100_000, help="How many rows.")] = 20,
    redated: Redated = False,
    as_json: Json = False,
    socket: Socket = None,
    config: ConfigFile = None,
) -> None:
    """Show the last rows, the newest at the end."""
    printing.show(
        _read(asking.find_socket(socket, config), {"do": "ledger", "tail": count, "redated": redated}),
        _table,
        as_json,
    )


@app.command(epilog="Example: tillwire ledger show 42")
def show(
    seq: Annotated[int, typer.Argument(min=1, metavar="SEQ", help="The row's number.")],
    redated: Redated = False,
    as_json: Json = False,
    socket: Socket = None,
    config: ConfigFile = None,
) -> None:
    """Show all of one row, with the hash that ties it to the rows before it."""
    request = {"do": "ledger", "after": seq - 1, "limit": 1, "redated": redated}
    found = _read(asking.find_socket(socket, config), request)
    if not found["rows"] or found["rows"][0]["row"]["seq"] != seq:
        raise ControlError(f"there is no row {seq}: the last is {found['head']}", 2)
    printing.show(found["rows"][0], _row, as_json)


@app.command(epilog="Example: tillwire ledger verify --offline --store /var/lib/tillwire")
def verify(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE]...", readable=False, help="Exports to check, oldest first, on any machine."),
    ] = None,
    key: Annotated[
        list[Path] | None,
        typer.Option(
            "--key", metavar="PEM", readable=False, help="The agent's public key: see `tillwire ledger key`."
        ),
    ] = None,
    unsigned: Annotated[
        bool, typer.Option("--unsigned", help="Of exports made with --offline: nobody has signed their ends.")
    ] = False,
    offline: Offline = False,
    store: StoreFile = None,
    as_json: Json = False,
    socket: Socket = None,
    config: ConfigFile = None,
) -> None:
    """Compute the whole chain of hashes again. Ends with 1 when a row is missing or was changed.

    Write the head and its hash down: a later check that starts from them shows that nothing was cut off.
    With FILE: exports are checked, without any agent, against its public key; each thing that is wrong is named.
    """
    if files:
        raise typer.Exit(ledgerfile.check(files, key or [], as_json, unsigned=unsigned))
    answers: Iterable[Facts]
    if offline or store:
        from agent import diagnose

        answers = diagnose.verify(diagnose.find_store(store, config))
    else:
        answers = asking.ask(asking.find_socket(socket, config), {"do": "verify"})
    result = _last(answers)
    printing.show(result, _verdict, as_json)
    raise typer.Exit(0 if "verified" in result else 1)


def _read(path: Path, request: Facts) -> dict[str, Any]:
    rows: list[asking.Answer] = []
    for answer in asking.ask(path, request):
        if "end" in answer:
            return {"rows": rows, "head": answer["head"], "hash": answer["hash"]}
        rows.append(answer)
    raise asking.cut_short()


def _last(answers: Iterable[Facts]) -> Facts:
    """The verdict; on the way to it a bar on stderr, if a person looks."""
    from rich.progress import Progress

    drawing = printing.console(stderr=True)
    with Progress(console=drawing, transient=True, disable=not drawing.is_terminal) as progress:
        bar = progress.add_task("checking rows")
        for answer in answers:
            if "progress" not in answer:
                return answer
            done, total = answer["progress"]
            progress.update(bar, completed=done, total=total)
    raise asking.cut_short()


def _table(found: Facts) -> "RenderableType":
    from rich.table import Table

    if not found["rows"]:
        return cell("the ledger is empty")
    table = Table(box=None, pad_edge=False)
    table.add_column("row", justify="right", no_wrap=True)
    table.add_column("when", no_wrap=True)
    table.add_column("device", no_wrap=True)
    table.add_column("what")
    for entry in found["rows"]:
        row = entry["row"]
        when = wording.clock(entry.get("redated", row["at"]))
        table.add_row(str(row["seq"]), when, cell(row.get("device", "")), cell(wording.sentence(row)))
    return table


def _row(entry: Facts) -> "RenderableType":
    from rich.table import Table

    row = entry["row"]
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column()
    table.add_row("what", cell(wording.sentence(row), "bold"))
    table.add_row("when", wording.clock(row["at"]))
    if "redated" in entry:
        table.add_row("re-dated", wording.clock(entry["redated"]))
    for key, content in row.items():
        table.add_row(cell(key), cell(content))
    table.add_row("hash", entry["hash"])
    return table


def _verdict(result: Facts) -> "RenderableType":
    if "verified" not in result:
        return cell(
            f"BROKEN at row {result['broken']}: {result['why']}\nKeep the store as it is: it is evidence. Copy it,"
            " and tell the centre.",
            "bold red",
        )
    return cell(
        f"good: {result['verified']} rows were computed, and each fits its hash\n{_begin(result)}\n"
        f"epoch {result['epoch']}, head {result['head']}, hash {result['hash']}"
    )


def _begin(result: Facts) -> str:
    if (first := result["from"]) == 1:
        return "the chain begins with row 1"
    return f"the chain begins after row {first - 1}: what was before it is said to be pruned, and was not computed"
