"""This file knows how a receipt looks: one A4 page of text in both languages, the same for the same facts.

What an examiner asks first stands first. No line is wider than 88 columns, a Chinese character being two, and there
are never more than 66 lines: long names go on in a second line and are then cut, and steps that find no room are
counted. The signed part has all of them, whole.
"""

import unicodedata
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from agent.crypto import receipt_words as words
from agent.crypto.kcv import Kcv
from agent.crypto.phrases import Words

LINES, COLUMNS = 66, 88
LABEL = 24
Facts = Mapping[str, Any]


def page(facts: Facts) -> str:
    """The page, without a line end at its end. Raises KeyError and the like for facts that are not of a receipt."""
    head = [*_title(facts), *_what(facts), *_who(facts), *_how(facts), *_where(facts), ""]
    zone = _zone(facts)
    foot = ["", *(line.format(zone=zone) for line in words.FOOT)]
    steps = [_step(step, facts) for step in facts["steps"]]
    left_out, room = facts["steps_left_out"], LINES - len(head) - len(foot) - 1
    if left_out or len(steps) > room:
        # Both ends are worth more than the middle: how it began, and how it ended.
        first = max(1, (min(room, len(steps)) - 1) // 2)
        last = max(1, min(room, len(steps)) - 1 - first)
        more = words.MORE.format(count=left_out + len(steps) - first - last)
        steps = [*steps[:first], more, *steps[-last:]]
    return "\n".join([*head, _label("steps"), *steps, *foot])


def columns(text: str) -> int:
    """How wide a text is on a terminal or a line printer."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def _title(facts: Facts) -> list[str]:
    rule = "=" * COLUMNS
    gap = " " * (COLUMNS - columns("".join(words.TITLE)))
    lines = [rule, gap.join(words.TITLE), rule]
    if facts["test"]:
        banner = words.SIMULATOR * 3 + "***"
        lines += [banner, banner, banner, rule]
    return lines


def _what(facts: Facts) -> list[str]:
    key = ""
    if facts["usage"]:
        algorithm = words.ALGORITHMS[facts["algorithm"]]
        key = (
            f"{facts['usage']}, {algorithm}, {facts['digits']} hex 位, mode 方式 {facts['mode']},"
            f" export 导出 {facts['exportability']}, version 版本 {facts['version']}"
        )
    lines = _row("result", _both(words.RESULTS[facts["result"]]))
    if facts["cause"]:
        by = f" ({facts['cause']['by']})" if facts["cause"]["by"] else ""
        lines += _row("cause", _both(Words(facts["cause"]["en"], facts["cause"]["zh"])) + by, most=4)
    lines += _row("kcv", f"{_kcv(facts['kcv'], facts)} ({words.KCV_METHODS[facts['kcv_method']]})")
    lines += _row("slot", facts["slot"])
    lines += _row("key", key) if key else []
    lines += _row("terminal", facts["terminal"]) + _row("serial", facts["serial"])
    return lines


def _who(facts: Facts) -> list[str]:
    order = facts["order"]
    lines = _row("order", f"{order['id']}: {words.KINDS[facts['kind']]}{words.METHODS[facts['method']]}")
    lines += _row("digest", order["digest"]) + _row("signers", ", ".join(order["signers"]))
    for number, who in enumerate(facts["people"]):
        text = f"{who['person']}, {words.ROLES[who['role']]}, group 组 {who['group']}"
        lines += _row("" if number else "people", text)
    return lines if facts["people"] else [*lines, *_row("people", words.NONE)]


def _how(facts: Facts) -> list[str]:
    lines = _row("parts", words.PARTS) if facts["parts"] else []
    for part in facts["parts"]:
        state = words.ENTERED if part["entered"] else words.OPENED if part["opened_by"] else words.SEALED
        state += f", {words.SPOILED}" if part["spoiled"] else ""
        text = [part["envelope"], _kcv(part["kcv"], facts), part["group"], part["opened_by"] or "-", state]
        lines += _row("", " | ".join(text))
    if facts["block"]:
        block = facts["block"]
        lines += _row(
            "block", f"{block['digest']} {block['form']} {block['header']}, under 保护密钥 {block['under']}"
        )
    if facts["kind"] != "destroy":
        lines += _row("proof", _proof(facts))
        lines += _clock("applied", facts) + _clock("installed", facts)
    erased = [
        f"{one['slot']} {_time(one['at'], facts)}{'' if one['deleted'] else words.EMPTY_BEFORE}"
        for one in facts["erased"]
    ]
    lines += _row("erased", ", ".join(erased) or words.NONE, most=3)
    signed = [f"{who['person']} {_time(who['at'], facts)}" for who in facts["signed"]]
    unsigned = words.NOBODY + (words.LEFT if any(part["spoiled"] for part in facts["parts"]) else "")
    lines += _row("papers", ", ".join(signed) or unsigned, most=3)
    refused = [f"{reason} x{count}" for reason, count in sorted(facts["refused"].items())]
    return lines + (_row("refused", ", ".join(refused)) if refused else [])


def _where(facts: Facts) -> list[str]:
    place = facts["ledger"]
    lines = _row("ledger", f"row 行 {place['seq']}, epoch 纪元 {place['epoch']}") + _row("hash", place["hash"])
    return lines + _row("software", f"tillwire {facts['software']}")


def _proof(facts: Facts) -> str:
    proof = facts["proof"]
    if not proof:
        return words.NONE
    method = words.PROOFS.get(proof["method"], proof["method"])
    by = f", told by 报告人 {proof['person']}" if proof["person"] else ""
    return f"{method}, reference 参考号 {proof['reference'] or '-'}{by}, {_time(proof['at'], facts)}"


def _clock(name: str, facts: Facts) -> list[str]:
    clock = facts["clocks"][name]
    if not clock:
        return []
    begun, done = ("asked 申请", "came 收到") if name == "applied" else ("came 收到", "works 可用")
    times = [words.WITHIN[clock["within"]], f"{begun} {_time(clock['from'], facts)}"]
    times += [f"{done} {_time(clock['done'], facts)}"] if clock["done"] else []
    return _row(name, "; ".join([*times, f"limit 期限 {_time(clock['due'], facts)}"]))


def _step(step: Facts, facts: Facts) -> str:
    return _cut(f"{_time(step['at'], facts)}  {_both(words.STEPS[step['event']].filled(**step))}", COLUMNS)


def _label(name: str) -> str:
    return " ".join(words.LABELS[name])


def _row(name: str, text: str, most: int = 2) -> list[str]:
    """A label and its text, on as many lines as it needs but no more than `most`."""
    label = _label(name) if name else ""
    lines = _wrapped(text, COLUMNS - LABEL)
    if len(lines) > most:
        lines = [*lines[: most - 1], _cut(f"{lines[most - 1]} ...", COLUMNS - LABEL)]
    labels = [label, *[""] * (len(lines) - 1)]
    return [f"{left}{' ' * (LABEL - columns(left))}{right}" for left, right in zip(labels, lines, strict=True)]


def _wrapped(text: str, room: int) -> list[str]:
    """A text on lines of so many columns, broken at a space where there is one."""
    lines, line = [], ""
    for char in _plain(text):
        line += char
        if columns(line) > room:
            kept, space, rest = line.rpartition(" ")
            if not (space and kept.strip()):
                kept, rest = line[:-1], line[-1]
            lines.append(kept.rstrip())
            line = rest.lstrip()
    return [*lines, line.rstrip()] if line.strip() or not lines else lines


def _cut(text: str, room: int) -> str:
    text = _plain(text)
    if columns(text) <= room:
        return text
    while columns(text) > room - 3:
        text = text[:-1]
    return text.rstrip() + "..."


def _plain(text: str) -> str:
    """Without anything that a terminal, a printer or a mail programme would take for more than a character."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _both(said: Words) -> str:
    return f"{said.en} / {said.zh}"


def _kcv(digits: str, facts: Facts) -> str:
    return str(Kcv.parse(digits, facts["kcv_method"]))


def _time(at: int, facts: Facts) -> str:
    local = datetime(1970, 1, 1) + timedelta(milliseconds=at, minutes=facts["utc_offset"])
    return f"{local:%Y-%m-%d %H:%M:%S}"


def _zone(facts: Facts) -> str:
    hours, minutes = divmod(abs(facts["utc_offset"]), 60)
    return f"UTC{'-' if facts['utc_offset'] < 0 else '+'}{hours:02}:{minutes:02}"
