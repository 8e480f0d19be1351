"""This file knows how keys, orders and people look to a person: the next step first, then what it rests on."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from agent.cli import wording
from agent.cli.keytexts import command, said
from agent.cli.options import Language
from agent.cli.printing import cell

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

Facts = Mapping[str, Any]

ENDED = 5
"""Ended ceremonies that are shown, the newest last."""
SERVICE_STYLES = {"ok": "green", "ceremony": "bold yellow"}
ORDER_FIELDS = (
    ("order", "id"),
    ("kind", "kind"),
    ("terminal", "terminal"),
    ("EPP", "epp_serial"),
    ("slot", "slot"),
    ("check value", "kcv"),
    ("method", "method"),
    ("usage", "usage"),
    ("algorithm", "algorithm"),
    ("mode", "mode"),
    ("exportability", "exportability"),
    ("hex digits", "digits"),
    ("version", "version"),
    ("under", "under"),
    ("form", "form"),
    ("block, SHA-256", "block"),
    ("replaces", "replaces"),
    ("compromised", "compromised"),
    ("exceptions", "exceptions"),
    ("hierarchy", "hierarchy"),
)


def step(result: Facts, lang: Language) -> "RenderableType":
    """What people do next, and what is typed for it. result: state, step; waiting: orders that were not opened."""
    text = cell(f"{said('next', lang)}: {result['step'][lang]}", "bold reverse")
    text.append_text(cell(f"\n  {next_command(result)}", "not reverse bold"))
    return text


def next_command(result: Facts) -> str:
    """What is typed for the next step."""
    waiting = result.get("waiting") or []
    if waiting and result["state"] in ("idle", "closed", "aborted"):
        return f"tillwire keys begin {waiting[-1]}"
    return command(result["state"])


def note(text: str, then: str, lang: Language) -> "RenderableType":
    """A next step that is not one of a ceremony, and what is typed for it."""
    return cell(f"{said('next', lang)}: {text}\n  {then}", "bold")


def status(keys: Facts, lang: Language) -> "RenderableType":
    """The state of keys and of a ceremony; the next step is the first line."""
    from rich.console import Group

    waiting = [order["order"] for order in keys["orders"]]
    parts: list[RenderableType] = [step({**keys, "waiting": waiting}, lang), "", _place(keys), *_ceremony(keys)]
    if keys["slots"]:
        parts += ["", _slots(keys["slots"])]
    for found in keys["findings"]:
        style, mark = ("bold red", "CRITICAL ") if found["critical"] else ("yellow", "")
        parts.append(cell(f"{mark}{found[lang]}", style))
    if keys["orders"]:
        parts += ["", _orders(keys["orders"])]
    if keys["ended"]:
        parts += ["", _ended(keys["ended"][-ENDED:])]
    return Group(*parts)


def well(keys: Facts) -> bool:
    """Whether nothing about the keys needs anybody, a running ceremony apart."""
    found = keys["findings"] or any(order.get("late") for order in keys["orders"])
    return keys["service"] in ("ok", "ceremony") and not found and "error" not in keys["sealing"]


def order(taken: Facts, lang: Language) -> "RenderableType":
    """An order that was handed over, whole, and the next step. taken: order, signers, already, and the step."""
    from rich.console import Group

    document = taken["order"]
    table = _pairs()
    for name, field in ORDER_FIELDS:
        if content := document.get(field):
            table.add_row(name, cell(", ".join(content) if isinstance(content, list) else content))
    for part in document.get("parts", ()):
        table.add_row(
            "component", cell(f"envelope {part['envelope']}, check value {part['kcv']}, group {part['group']}")
        )
    table.add_row("valid", f"{wording.clock(document['not_before'])} to {wording.clock(document['not_after'])}")
    table.add_row("signed by", cell(", ".join(taken["signers"])))
    if taken.get("already"):
        table.add_row("", "it came before; nothing was changed")
    return Group(table, "", step(taken, lang))


def people(found: Iterable[Facts], now: int) -> "RenderableType":
    """The accounts of a terminal. now: wall clock in ms."""
    table = _columns("name", "role", "group", "")
    for person in found:
        locked = person["locked"] > now
        state = f"locked until {wording.clock(person['locked'])}" if locked else ""
        state = state or ("must change the first password" if person["fresh"] else "")
        table.add_row(
            cell(person["name"], "bold"), cell(person["role"]), cell(person["group"]), cell(state, "yellow")
        )
    return table if table.row_count else cell("there are no accounts")


def _place(keys: Facts) -> "Table":
    table = _pairs()
    test = "   SIMULATOR 模拟: test keys only" if keys["hierarchy"] == "test" else ""
    table.add_row("EPP", cell(f"{keys['epp']}, serial number {keys['serial'] or 'UNKNOWN'}{test}"))
    why = f": {keys['why']}" if keys.get("why") else ""
    table.add_row("service", cell(f"{keys['service']}{why}", SERVICE_STYLES.get(keys["service"], "bold red")))
    sealing = keys["sealing"]
    if "error" in sealing:
        table.add_row("secrets", cell(sealing["error"], "bold red"))
    else:
        passed = "; ".join(sealing.get("passed_over", ()))
        kept = f"sealed at level {sealing['level']}, generation {sealing['generation']}"
        table.add_row("secrets", cell(f"{kept} ({passed})" if passed else kept))
    return table


def _ceremony(keys: Facts) -> list["RenderableType"]:
    document = keys["order"]
    if document is None:
        return [cell(f"no ceremony is running ({keys['state']})")]
    table = _pairs()
    what = f"{document['id']}: {document['kind']} slot {document['slot']}, check value {document['kcv']}"
    table.add_row("ceremony", cell(f"{what}   {keys['state']}", "bold"))
    if keys["part"]:
        table.add_row("component", f"{keys['part']} of {len(document.get('parts', ()))}")
    for person in keys["people"]:
        table.add_row("person", cell(f"{person['person']}, {person['role']}, group {person['group']}"))
    if keys.get("lacking"):
        table.add_row("not as ordered", cell("; ".join(keys["lacking"]), "bold yellow"))
    return [table]


def _slots(slots: Iterable[Facts]) -> "Table":
    table = _columns("slot", "ledger", "EPP", "check value", "usage", "version", "since")
    for slot in slots:
        seen = slot["seen"] or "not looked at"
        style = "" if slot["seen"] in ("", slot["state"]) else "bold red"
        table.add_row(
            cell(slot["slot"], "bold"),
            cell(slot["state"]),
            cell(seen, style),
            cell(slot["kcv"]),
            cell(slot["usage"]),
            str(slot["version"] or ""),
            wording.clock(slot["since"]) if slot["since"] else "",
        )
    return table


def _orders(orders: Iterable[Facts]) -> "Table":
    table = _columns("order received", "kind", "slot", "check value", "received", "to be done by")
    for found in orders:
        by = wording.clock(found.get("due") or found["not_after"])
        late = cell(f"{by}  LATE", "bold red") if found.get("late") else cell(by)
        table.add_row(
            cell(found["order"], "bold"),
            cell(found["kind"]),
            cell(found["slot"]),
            cell(found["kcv"]),
            wording.clock(found["received"]),
            late,
        )
    return table


def _ended(ended: Iterable[Facts]) -> "Table":
    table = _columns("order ended", "how", "when")
    for found in ended:
        table.add_row(cell(found["order"]), cell(found["result"]), wording.clock(found["at"]))
    return table


def _pairs() -> "Table":
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    return table


def _columns(*names: str) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(name)
    return table
