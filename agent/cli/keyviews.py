"""This file knows how keys, orders and people look to a person: the next step first, then what it rests on."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from agent.cli import wording
from agent.cli.keytexts import command, said, state, worded
from agent.cli.options import Language
from agent.cli.printing import cell
from agent.crypto.phrases import Words

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

Facts = Mapping[str, Any]

ENDED = 5
"""Ended ceremonies that are shown, the newest last."""
SERVICE_STYLES = {"ok": "green", "ceremony": "bold yellow"}
ORDER_FIELDS = {
    "id": Words("order", "指令"),
    "kind": Words("kind", "类别"),
    "terminal": Words("terminal", "终端"),
    "epp_serial": Words("EPP", "密码键盘"),
    "slot": Words("slot", "密钥槽"),
    "kcv": Words("check value", "校验值"),
    "method": Words("method", "方式"),
    "usage": Words("usage", "用途"),
    "algorithm": Words("algorithm", "算法"),
    "mode": Words("mode", "使用模式"),
    "exportability": Words("exportability", "导出"),
    "digits": Words("hex digits", "十六进制位数"),
    "version": Words("version", "版本"),
    "under": Words("under", "保护密钥"),
    "form": Words("form", "形式"),
    "block": Words("block, SHA-256", "密钥块SHA-256"),
    "replaces": Words("replaces", "替换"),
    "compromised": Words("compromised", "疑似泄露"),
    "exceptions": Words("exceptions", "例外"),
    "hierarchy": Words("hierarchy", "密钥体系"),
}
"""What an order says of its key, and what it is called: people compare it with the paper."""
_WORDS = frozenset({"kind", "method", "hierarchy"})
"""Those of them that hold words, and no names."""


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
    parts: list[RenderableType] = [
        step({**keys, "waiting": waiting}, lang),
        "",
        _place(keys, lang),
        *_ceremony(keys, lang),
    ]
    if keys["slots"]:
        parts += ["", _slots(keys["slots"], lang)]
    for found in keys["findings"]:
        critical = said("critical", lang, what=found[lang])
        parts.append(cell(critical, "bold red") if found["critical"] else cell(found[lang], "yellow"))
    if keys["orders"]:
        parts += ["", _orders(keys["orders"], lang)]
    if keys["ended"]:
        parts += ["", _ended(keys["ended"][-ENDED:], lang)]
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
    for field, name in ORDER_FIELDS.items():
        if content := document.get(field):
            table.add_row(getattr(name, lang), cell(_content(field, content, lang)))
    for part in document.get("parts", ()):
        table.add_row(said("component", lang), cell(said("envelope", lang, **part)))
    begin, end = (wording.clock(document[name]) for name in ("not_before", "not_after"))
    table.add_row(said("valid", lang), said("from_to", lang, begin=begin, end=end))
    table.add_row(said("signed_by", lang), cell(", ".join(taken["signers"])))
    if taken.get("already"):
        table.add_row("", said("came_before", lang))
    return Group(table, "", step(taken, lang))


def people(found: Iterable[Facts], now: int, lang: Language) -> "RenderableType":
    """The accounts of a terminal. now: wall clock in ms."""
    table = _columns(lang, "who", "role", "group", "")
    for person in found:
        locked = person["locked"] > now
        hindered = said("account_locked", lang, until=wording.clock(person["locked"])) if locked else ""
        hindered = hindered or (said("account_fresh", lang) if person["fresh"] else "")
        role = cell(worded(person["role"], lang))
        table.add_row(cell(person["name"], "bold"), role, cell(person["group"]), cell(hindered, "yellow"))
    return table if table.row_count else cell(said("no_accounts", lang))


def _content(field: str, content: Any, lang: Language) -> str:
    """What stands in a field of an order, as on the paper; in Chinese with what the word means."""
    if isinstance(content, list):
        return ", ".join(map(str, content))
    meant = worded(str(content), lang) if field in _WORDS else str(content)
    return meant if meant == str(content) else f"{content} {meant}"


def _place(keys: Facts, lang: Language) -> "Table":
    table = _pairs()
    serial = said("serial", lang, epp=keys["epp"], serial=keys["serial"] or said("no_serial", lang))
    test = f"   {said('simulator', lang)}" if keys["hierarchy"] == "test" else ""
    table.add_row(said("epp", lang), cell(f"{serial}{test}"))
    service, why = keys["service"], keys["why"][lang]
    shown = f"{worded(service, lang)}: {why}" if why else worded(service, lang)
    table.add_row(said("service", lang), cell(shown, SERVICE_STYLES.get(service, "bold red")))
    sealing = keys["sealing"]
    if "error" in sealing:
        table.add_row(said("secrets", lang), cell(said("not_open", lang, why=sealing["error"]), "bold red"))
    else:
        passed = "; ".join(sealing.get("passed_over", ()))
        level, generation = worded(sealing["level"], lang), sealing["generation"]
        kept = said("sealed", lang, level=level, generation=generation)
        table.add_row(said("secrets", lang), cell(f"{kept} ({passed})" if passed else kept))
    return table


def _ceremony(keys: Facts, lang: Language) -> list["RenderableType"]:
    document, now = keys["order"], state(keys["state"], lang)
    if document is None:
        return [cell(said("no_ceremony", lang, state=now))]
    table = _pairs()
    about = {name: document[name] for name in ("id", "slot", "kcv")}
    what = said("of_key", lang, kind=worded(document["kind"], lang), **about)
    table.add_row(said("ceremony", lang), cell(f"{what}   {now}", "bold"))
    if keys["part"]:
        parts = len(document.get("parts", ()))
        table.add_row(said("component", lang), said("of_parts", lang, part=keys["part"], parts=parts))
    for person in keys["people"]:
        who = {name: person[name] for name in ("person", "group")}
        table.add_row(said("person", lang), cell(said("in_group", lang, role=worded(person["role"], lang), **who)))
    if keys.get("lacking"):
        lacking = "; ".join(words[lang] for words in keys["lacking"])
        table.add_row(said("not_ordered", lang), cell(lacking, "bold yellow"))
    return [table]


def _slots(slots: Iterable[Facts], lang: Language) -> "Table":
    table = _columns(lang, "slot", "ledger", "epp", "kcv", "usage", "version", "since")
    for slot in slots:
        seen = worded(slot["seen"], lang) or said("not_looked_at", lang)
        style = "" if slot["seen"] in ("", slot["state"]) else "bold red"
        table.add_row(
            cell(slot["slot"], "bold"),
            cell(worded(slot["state"], lang)),
            cell(seen, style),
            cell(slot["kcv"]),
            cell(slot["usage"]),
            str(slot["version"] or ""),
            wording.clock(slot["since"]) if slot["since"] else "",
        )
    return table


def _orders(orders: Iterable[Facts], lang: Language) -> "Table":
    table = _columns(lang, "order_received", "kind", "slot", "kcv", "received", "done_by")
    for found in orders:
        by = wording.clock(found.get("due") or found["not_after"])
        late = cell(said("late", lang, by=by), "bold red") if found.get("late") else cell(by)
        table.add_row(
            cell(found["order"], "bold"),
            cell(worded(found["kind"], lang)),
            cell(found["slot"]),
            cell(found["kcv"]),
            wording.clock(found["received"]),
            late,
        )
    return table


def _ended(ended: Iterable[Facts], lang: Language) -> "Table":
    table = _columns(lang, "order_ended", "how", "when")
    for found in ended:
        table.add_row(cell(found["order"]), cell(state(found["result"], lang)), wording.clock(found["at"]))
    return table


def _pairs() -> "Table":
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    return table


def _columns(lang: Language, *names: str) -> "Table":
    """A table whose headings are those of TEXTS; "" has none."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(said(name, lang) if name else "")
    return table
