"""This file knows how a rollout and what became of pushes look: live on a screen, as lines, as lines of JSON."""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from agent.cli import printing, wording
from agent.cli.printing import cell
from agent.timepiece import wall_ms

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from agent.centre.rollout import Answer, Place, Rollout

Facts = Mapping[str, Any]

AGAIN = "then run the same command again: it goes on from here"
NEXT = {
    "rolled_back": "put right what it names, sign a greater version, and send that",
    "refused": "do as it says, sign anew, and send that",
    "failed": "do as it says; to have it done again, sign the command with another id",
    "overtaken": "ask who pushed that; to replace it, sign a greater version",
    "offline": f"bring it online, {AGAIN}; or add --skip-offline",
    "frozen": f"ask the technician there to thaw it (`tillwire config show` says until when), {AGAIN}",
    "clock_suspect": f"have its clock set right, {AGAIN}",
    "busy": f"it was in the middle of something else: wait for its end, {AGAIN}",
    "not_yet": f"wait until the push is valid, {AGAIN}",
    "applying": f"its probation may be longer than --patience: see `tillwire push status`, {AGAIN}",
    "unproven": "nobody of an earlier stage was online, so nothing shows that this push does no harm: bring one"
    f" online, {AGAIN}",
    "silent": f"does the broker let the centre write to it, and has it [push] in its configuration? {AGAIN}",
}
WORDS = {
    "rolled_back": "has rolled back",
    "refused": "refuses",
    "failed": "did not do it",
    "overtaken": "has another already",
    "silent": "has not said what became of it",
}
STYLES = {"committed": "green", "failed": "bold red", "sent": "yellow", "skipped": "yellow"}
UNWELL = ("rolled_back", "refused", "waiting", "frozen")
"""How a terminal can stand with its pushes so that somebody has to look."""
ROWS = 12
"""Terminals that the live view names at most."""
BAR = 40
OFTEN = 0.1
"""Seconds between two drawings."""


class View(Protocol):
    """Where a rollout is shown."""

    def tell(self, event: Facts) -> None: ...
    def draw(self, rollout: "Rollout", now: float) -> None: ...
    def close(self) -> None: ...


class Documents:
    """A line of JSON for each event."""

    def tell(self, event: Facts) -> None:
        printing.line(event)

    def draw(self, rollout: "Rollout", now: float) -> None:
        pass

    def close(self) -> None:
        pass


class Lines:
    """A sentence for each event."""

    def tell(self, event: Facts) -> None:
        printing.line(printing.plain(f"{wording.clock(event['at'])}  {sentence(event)}"))

    def draw(self, rollout: "Rollout", now: float) -> None:
        pass

    def close(self) -> None:
        pass


class Screen:
    """A bar, and a line for each terminal that is not done; a sentence for what stays."""

    def __init__(self, title: str) -> None:
        self._title, self._drawing = title, printing.console()
        self._live: Live | None = None
        self._drawn = 0.0

    def tell(self, event: Facts) -> None:
        if event["event"] not in ("sent", "told"):
            self.close()
            printing.line(printing.plain(sentence(event)))

    def draw(self, rollout: "Rollout", now: float) -> None:
        from rich.live import Live

        if self._live is None:
            self._live = Live(console=self._drawing, auto_refresh=False, transient=True)
            self._live.start()
        elif now < self._drawn + OFTEN:
            return
        self._drawn = now
        self._live.update(picture(self._title, rollout, now), refresh=True)

    def close(self) -> None:
        if self._live:
            self._live.stop()
            self._live = None


def view_for(title: str, as_json: bool) -> View:
    """The view that fits where stdout goes."""
    if as_json:
        return Documents()
    return Screen(title) if sys.stdout.isatty() else Lines()


def picture(title: str, rollout: "Rollout", now: float) -> "RenderableType":
    """The live view of a rollout."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    done, every = rollout.count("committed"), len(rollout.places)
    head = Table(box=None, show_header=False, pad_edge=False)
    head.add_row(
        cell(title, "bold"),
        ProgressBar(total=every, completed=done, width=BAR),
        cell(f"{done} of {every}, stage {max(1, rollout.stage)} of {len(rollout.stages)}"),
    )
    table = Table(box=None, show_header=False, pad_edge=False)
    begun = [(n, p) for n, p in rollout.places.items() if p.state in ("sent", "skipped", "failed")]
    begun.sort(key=lambda item: ("failed", "sent", "skipped").index(item[1].state))
    for name, place in begun[:ROWS]:
        left = f"{max(0, round(place.until - now))} s left" if place.state == "sent" else ""
        table.add_row(
            cell(f"  {name}", "bold"),
            cell("online" if place.online else "offline", "" if place.online else "yellow"),
            cell(_state(place), STYLES.get(place.state, "")),
            cell(left, "dim"),
        )
    more = [cell(f"  and {len(begun) - ROWS} more", "dim")] if len(begun) > ROWS else []
    return Group(head, table, *more)


def sentence(event: Facts) -> str:
    """What an event of a rollout says."""
    match event:
        case {"event": "begin", "title": title, "stages": stages, "committed": committed}:
            sizes = " → ".join(str(len(stage)) for stage in stages)
            have = f"; {len(committed)} of them have it already" if committed else ""
            return f"{title} to {sum(map(len, stages))} terminals in stages of {sizes}{have}"
        case {"event": "note", "text": text}:
            return str(text)
        case {"event": "sent", "terminal": terminal, "stage": stage}:
            return f"{terminal}: sent (stage {stage})"
        case {"event": "told", "terminal": terminal, "word": word}:
            return f"{terminal}: {word.replace('_', ' ')}{_because(event)}"
        case {"event": "failed", "terminal": terminal, "word": word, "next": then}:
            return f"{terminal} {WORDS.get(word, word)}{_because(event)}; {then}"
        case {"event": "data", "terminal": terminal, "data": data}:
            return f"{terminal}:\n{data}"
        case {"event": "end"}:
            return _end(event)
        case _:
            return str(event.get("event", ""))


def failure(terminal: str, answer: "Answer") -> dict[str, Any]:
    """The event for a terminal that stops a rollout."""
    then = NEXT.get(answer.reason if answer.word == "silent" else answer.word, NEXT["silent"])
    return {
        "event": "failed",
        "terminal": terminal,
        "word": answer.word,
        "reason": answer.reason,
        "detail": answer.detail,
        "next": then,
    }


def table(report: Facts) -> "RenderableType":
    """How the terminals of an organisation stand with their pushes."""
    from rich.console import Group
    from rich.table import Table

    rows = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("terminal", "online", "in force", "newest push", "outcome", "since", "frozen until"):
        rows.add_column(title, no_wrap=title != "outcome")
    for facts in report["terminals"]:
        rows.add_row(*_row(facts))
    unwell = [facts["terminal"] for facts in report["terminals"] if facts["standing"] in UNWELL]
    verdict = cell(f"not well: {', '.join(unwell)}", "bold red") if unwell else cell("all is well", "green")
    unreadable = (
        [cell(f"not to be read: {', '.join(report['unreadable'])}", "yellow")] if report["unreadable"] else []
    )
    return Group(rows, "", *unreadable, verdict)


def status_line(facts: Facts) -> str:
    """One terminal of `table` as a line."""
    return "  ".join(part.plain for part in _row(facts) if part.plain)


def _row(facts: Facts) -> tuple[Any, ...]:
    style = "bold red" if facts["standing"] in UNWELL else ""
    outcome = "takes no pushes" if facts["standing"] == "deaf" else facts["outcome"].replace("_", " ")
    why = f" ({facts['reason']})" if facts["reason"] else ""
    detail = f": {facts['detail']}" if facts["detail"] else ""
    newest = f"{facts['version']} {facts['id']}".strip() if facts["version"] else facts["id"]
    force = f"version {facts['in_force']}" if facts["in_force"] else "own file" if facts["config"] else ""
    return (
        cell(facts["terminal"], "bold"),
        cell(
            {True: "online", False: "offline", None: "never"}[facts["online"]], "" if facts["online"] else "yellow"
        ),
        cell(force),
        cell(newest),
        cell(f"{outcome}{why}{detail}", style),
        cell(wording.clock(facts["at"]) if facts["at"] else ""),
        cell(wording.clock(facts["frozen_until"]) if facts["frozen_until"] > wall_ms() else "", "bold red"),
    )


def _state(place: "Place") -> str:
    if place.state == "sent" and place.answer.word:
        return f"{place.answer.word}{f' ({place.answer.reason})' if place.answer.reason else ''}"
    return {"sent": "sent, no answer yet", "skipped": "skipped: it is offline"}.get(place.state, place.answer.word)


def _because(event: Facts) -> str:
    reason = f" ({event['reason']})" if event.get("reason") else ""
    return f"{reason}: {event['detail']}" if event.get("detail") else reason


def _end(event: Facts) -> str:
    have, every = event["committed"], event["terminals"]
    parts = [f"{have} of {every} terminals have it"]
    if event["skipped"]:
        what = "were offline and get it when they connect" if event["kept"] else "were offline and did not get it"
        parts.append(f"{len(event['skipped'])} {what}: {', '.join(event['skipped'])}")
    if event["untouched"]:
        parts.append(f"{event['untouched']} were not sent to: what they have stays as it is")
    if event["late"]:
        parts.append(
            f"{len(event['late'])} are meant and came later: {', '.join(event['late'])}; run the same again"
        )
    heads = {"done": "done", "stopped": "stopped", "paused": f"not gone on: {AGAIN.removeprefix('then ')}"}
    return f"{heads[event['result']]}: {'; '.join(parts)}"
