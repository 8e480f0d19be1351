"""This file knows how pushes look to a technician: what is in force, what is tried or waits and why, how the last
one ended, each with what can be done about it here."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from agent.cli import keyviews, wording
from agent.cli.configtexts import NEXT, outcome, said, why
from agent.cli.options import Language
from agent.cli.printing import cell

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

Facts = Mapping[str, Any]

OUTCOME_STYLES = {"committed": "green", "rolled_back": "bold red", "refused": "bold red"}
SHORT = 16
"""Hex digits of a digest that are shown: enough to compare by phone."""


def show(found: Facts, lang: Language) -> "RenderableType":
    """How pushes stand at this terminal."""
    from rich.console import Group
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    parts: list[tuple[str, Text]] = [("in_force", _in_force(found, lang))]
    if found["taken"]:
        if found["pending"]:
            parts.append(("pending", _pending(found["pending"], lang)))
        if found["waiting"]:
            parts.append(("waiting", _waiting(found["waiting"], lang)))
        parts += [("last", _last(found["last"], lang)), ("freeze", _freeze(found["freeze"], lang))]
        parts.append(("trust", _trust(found["trust"], lang)))
        parts += [("trouble", cell(trouble, "bold red")) for trouble in found["troubles"]]
    for word, text in parts:
        table.add_row(said(word, lang), text)
    header = cell(f"{found['terminal']} of {found['org']}", "bold")
    if found["groups"]:
        header.append_text(cell(f"   {said('groups', lang, names=', '.join(found['groups']))}", "not bold"))
    return Group(header, table, "", _verdict(found, lang))


def unwell(found: Facts) -> list[str]:
    """The parts of `show` that somebody has to look at; empty when all is well."""
    words = ["in_force"] if found["in_force"]["file_changed"] else []
    if found["taken"]:
        last = found["last"] or {}
        is_bad = last.get("outcome") in ("rolled_back", "refused") and last["reason"] != "technician"
        words += ["waiting"] * bool(found["waiting"]) + ["last"] * is_bad + ["freeze"] * bool(found["freeze"])
        words += ["trouble"] * bool(found["troubles"])
    return words


def difference(rows: Iterable[Facts], old: str, new: str, lang: Language) -> "RenderableType":
    """What differs, key by key. old, new: words of what each is."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for word in ("where", old, new):
        table.add_column(said(word, lang), overflow="fold")
    for row in rows:
        table.add_row(
            cell(row["where"], "bold"), cell(_value(row["old"]), "red"), cell(_value(row["new"]), "green")
        )
    return table if table.row_count else cell(said("same", lang), "green")


def history(decisions: Iterable[Facts], lang: Language) -> "RenderableType":
    """What was decided here, the newest first."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for word in ("what", "outcome", "when", "reason"):
        table.add_column(said(word, lang), no_wrap=word != "reason", overflow="fold")
    for one in decisions:
        # A set of signers is decided too, and has a count of versions of its own.
        version = one["version"] or (said("signers", lang) if one["outcome"] == "committed" else "?")
        reason = why(one["reason"], one["detail"], lang) if one["reason"] else ""
        named = f"{one['reason']}: " if reason and one["detail"] else ""
        table.add_row(
            cell(version, "bold"),
            cell(outcome(one["outcome"], lang), OUTCOME_STYLES.get(one["outcome"], "")),
            cell(wording.clock(one["at"]) if one["at"] else ""),
            cell(f"{named}{reason}"),
        )
    return table if table.row_count else cell(said("no_history", lang))


def done(text: str, then: str, typed: str, lang: Language) -> "RenderableType":
    """What was done, and the next step."""
    from rich.console import Group

    return Group(cell(text), keyviews.note(then, typed, lang))


def counts(version: int, lang: Language) -> str:
    """What is in force: a version, or the terminal's own file."""
    return said("then_version", lang, version=version) if version else said("then_own", lang)


def _in_force(found: Facts, lang: Language) -> "Text":
    now = found["in_force"]
    word = "pushed" if now["pushed"] else "own_file"
    text = cell(said(word, lang, version=now["version"], id=_id(now), file=now["file"]), "bold")
    text.append_text(cell(f"\n{said('digest', lang)} {now['digest'][:SHORT]}", "not bold"))
    if now["pushed"]:
        text.append_text(cell(f"   {said('file_digest', lang)} {now['file_digest'][:SHORT]}", "not bold"))
        text.append_text(_then(said("see_diff", lang), "tillwire config diff"))
    if now["file_changed"]:
        changed = said("file_changed", lang, file=now["file"])
        text.append_text(cell(f"\n{changed}", "not bold yellow"))
        text.append_text(_then("", f"tillwire config check {now['file']}"))
    if not found["taken"]:
        text.append_text(cell(f"\n{said('not_taken', lang, file=now['file'])}", "not bold"))
    return text


def _pending(push: Facts, lang: Language) -> "Text":
    left = max(0, round(push["left"]))
    text = cell(said("tried", lang, version=push["version"], id=_id(push), left=left), "bold yellow")
    if push["silent"]:
        text.append_text(cell(f"\n{said('silent', lang, devices=', '.join(push['silent']))}", "not bold"))
    else:
        text.append_text(cell(f"\n{said('await_broker', lang)}", "not bold"))
    text.append_text(_then(said("see_pending", lang), "tillwire config diff --pending"))
    text.append_text(_then(said("take_back", lang), "tillwire config rollback"))
    return text


def _waiting(push: Facts, lang: Language) -> "Text":
    word = "signers_wait" if push["kind"] == "trust" else "version"
    text = cell(said(word, lang, version=push["version"], id=_id(push)), "bold")
    text.append_text(cell(f" ({push['reason']})\n{why(push['reason'], push['sentence'], lang)}", "not bold"))
    if push["reason"] == "not_yet":
        text.append_text(cell(f"\n{wording.clock(push['not_before'])}", "not bold"))
    if push["objection"]:
        text.append_text(cell(f"\n{said('not_fit', lang, why=push['objection'])}", "not bold red"))
    if push["reason"] in NEXT:
        text.append_text(_then("", NEXT[push["reason"]]))
    return text


def _last(last: Facts | None, lang: Language) -> "Text":
    if last is None:
        return cell(said("none_yet", lang))
    version = f"{said('version', lang, version=last['version'], id='')}: " if last["version"] else ""
    when = f"   {wording.clock(last['at'])}" if last["at"] else ""
    text = cell(f"{version}{outcome(last['outcome'], lang)}", OUTCOME_STYLES.get(last["outcome"], ""))
    named = f" ({last['reason']})" if last["reason"] else ""
    text.append_text(cell(f"{named}{when}", "default not bold"))
    if last["reason"] or last["detail"]:
        text.append_text(cell(f"\n{why(last['reason'], last['detail'], lang)}", "default not bold"))
    if last["outcome"] in ("refused", "rolled_back") and last["reason"] != "technician":
        text.append_text(cell(f"\n{said('tell_centre', lang)}", "default not bold"))
        text.append_text(_then(said("history", lang), "tillwire config history"))
    return text


def _freeze(freeze: Facts | None, lang: Language) -> "Text":
    if freeze is None:
        return cell(said("not_frozen", lang))
    text = cell(said("frozen", lang, until=wording.clock(freeze["until"]), by=freeze["by"]), "bold yellow")
    text.append_text(_then(said("to_thaw", lang), "tillwire config thaw"))
    return text


def _trust(trust: Facts | None, lang: Language) -> "Text":
    if trust is None:
        return cell(said("nobody", lang), "bold red")
    people: dict[str, set[str]] = {}
    for signer in trust["signers"]:
        people.setdefault(signer["name"], set()).update(signer["roles"])
    text = cell("\n".join(f"{name}: {', '.join(sorted(roles))}" for name, roles in people.items()))
    word = "pushed_signers" if trust["version"] else "own_signers"
    text.append_text(cell(f"\n{said(word, lang, version=trust['version'])}", "dim"))
    if trust["revoked"]:
        text.append_text(cell(f"   {said('revoked', lang, number=len(trust['revoked']))}", "dim"))
    return text


def _verdict(found: Facts, lang: Language) -> "RenderableType":
    words = unwell(found)
    if not words and found.get("pending"):
        return cell(said("not_yet_known", lang), "yellow")
    if not words:
        return cell(said("well", lang), "green")
    return cell(said("not_well", lang, what=", ".join(said(word, lang) for word in words)), "bold red")


def _then(text: str, typed: str) -> "Text":
    """What can be typed about it, and what for."""
    found = cell("\n→ ", "not bold dim")
    found.append_text(cell(typed, "bold not dim"))
    if text:
        found.append_text(cell(f"   {text}", "not bold dim"))
    return found


def _id(push: Facts) -> str:
    return f" ({push['id']})" if push["id"] else ""


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
