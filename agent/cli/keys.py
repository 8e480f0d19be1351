"""This file knows `tillwire keys`: what the people of a key ceremony do at the terminal, step by step.

A component is never typed here but at the EPP's own keypad; whatever looks like one is refused (exposed.py). Each
command ends with the next step.
"""

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli import asking, credential, keyfiles, keyviews, printing
from agent.cli.keytexts import LOOK, said
from agent.cli.moving import STOPPED, Moving, at_keyboard, followed, step_now
from agent.cli.options import ConfigFile, Json, Lang, Language, Socket, language
from agent.cli.printing import cell
from agent.crypto.phrases import REFUSALS
from agent.errors import ControlError

if TYPE_CHECKING:
    from rich.console import RenderableType

app = typer.Typer(
    name="keys",
    help="Keys of this terminal's EPP: orders, ceremonies, receipts. No key or component is ever typed here.",
    no_args_is_help=True,
)
credential.join(app)

METHODS = ("echo", "sign_on", "mac")
Person = Annotated[
    str,
    typer.Option("--person", metavar="NAME", help="Who you are; otherwise it is asked for.", show_default=False),
]


@app.command(epilog="Example: tillwire keys status")
def status(
    public_key: Annotated[
        bool, typer.Option("--public-key", help="Print the key with which receipts are checked, and nothing else.")
    ] = False,
    as_json: Json = False,
    lang: Lang = None,
    socket: Socket = None,
    config: ConfigFile = None,
) -> None:
    """Show the next step of a ceremony, and what the EPP's slots hold.

    Ends with 1 when something is not well: a slot that is not as the ledger says, an order that is late.
    """
    keys = asking.ask_once(asking.find_socket(socket, config), {"do": "keys", "act": "status"})["keys"]
    if public_key:
        if not keys["public_key"]:
            raise ControlError(f"there is no key for receipts: {keys['sealing'].get('error', 'it is not open')}", 1)
        printing.line({"public_key": keys["public_key"]} if as_json else keys["public_key"].strip())
        return
    spoken = language(lang)
    printing.show(keys, lambda found: keyviews.status(found, spoken), as_json)
    raise typer.Exit(0 if keyviews.well(keys) else 1)


@app.command(epilog="Example: tillwire keys order KO-2026-17.order")
def order(
    file: Annotated[
        Path | None, typer.Argument(readable=False, help="The signed order, as it came.", show_default=False)
    ] = None,
    applied: Annotated[
        str,
        typer.Option(metavar="ID", help="Instead: the key of this order was asked for today.", show_default=False),
    ] = "",
    withdraw: Annotated[
        str,
        typer.Option(metavar="ID", help="Instead: it was not, or the key will not come.", show_default=False),
    ] = "",
    as_json: Json = False,
    lang: Lang = None,
    socket: Socket = None,
    config: ConfigFile = None,
) -> None:
    """Hand over a signed order. It is shown as it is written: compare it with the paper.

    From now on its 2 days run; --applied begins the 5 days in which a key must come, --withdraw ends them.
    """
    if [file is not None, bool(applied), bool(withdraw)].count(True) != 1:
        raise typer.BadParameter("give the file of an order, or --applied or --withdraw with an order's id")
    path, spoken = asking.find_socket(socket, config), language(lang)
    if file is None:
        about = {"order": applied} if applied else {"order": withdraw, "withdrawn": True}
        asked = asking.ask_once(path, {"do": "keys", "act": "applied", **about})
        then = said("applied" if applied else "withdrawn", spoken, order=applied or withdraw)
        printing.show(asked, lambda _: keyviews.note(then, "tillwire keys order FILE", spoken), as_json)
        return
    text = keyfiles.order(file, path)
    taken = asking.ask_once(path, {"do": "keys", "act": "order", "text": text}) | step_now(path)
    printing.show(taken, lambda found: keyviews.order(found, spoken), as_json)


@app.command(epilog="Example: tillwire keys begin KO-2026-17 --person li")
def begin(
    order: Annotated[
        str, typer.Argument(help="The order's id; not needed when only one waits.", show_default=False)
    ] = "",
    person: Person = "",
    as_json: Json = False,
    lang: Lang = None,
    socket: Socket = None,
    config: ConfigFile = None,
) -> None:
    """Log in to a ceremony. The first person opens the order, which uses it up; the second joins.

    Each person does this in a terminal session of their own.
    """
    with at_keyboard(socket, config, language(lang)) as moving:
        result = moving.move("begin", **({"order": order} if order else {}), **moving.login(person))
    _end(result, moving.lang, as_json)


@app.command(epilog="Example: tillwire keys part --person li")
def part(
    block: Annotated[
        Path | None,
        typer.Option(
            readable=False, metavar="FILE", help="Hand over the key block of the order instead of typing."
        ),
    ] = None,
    person: Person = "",
    as_json: Json = False,
    lang: Lang = None,
    socket: Socket = None,
    config: ConfigFile = None,
) -> None:
    """Open your envelope and type its component at the EPP's own keypad, and nowhere else.

    Log in here first; then this shows what the EPP says, until the component is in.
    """
    if block is not None:
        path, spoken = asking.find_socket(socket, config), language(lang)
        document = asking.ask_once(path, {"do": "keys", "act": "status"})["keys"]["order"]
        data = base64.b64encode(keyfiles.block(block, document, path)).decode()
        answers = asking.ask(path, {"do": "keys", "act": "block", "data": data})
        _end(followed(answers, spoken), spoken, as_json)
    with at_keyboard(socket, config, language(lang)) as moving:
        result = moving.move("part", **moving.login(person))
    _end(result, moving.lang, as_json)


@app.command(epilog="Example: tillwire keys complete --person wang")
def complete(
    person: Person = "",
    as_json: Json = False,
    lang: Lang = None,
    socket: Socket = None,
    config: ConfigFile = None,
) -> None:
    """The second person confirms; then sign on to the host, and say here whether it accepted the key.

    When only that answer is missing, the same command asks for it.
    """
    with at_keyboard(socket, config, language(lang)) as moving:
        result = step_now(moving.path)
        if result["state"] != "verified":
            login = moving.login(person)
            person = login["person"]
            result = moving.move("complete", **login)
        if result["state"] == "verified" and not result.get("wrong"):
            result = _prove(moving, person, result)
    _end(result, moving.lang, as_json)


@app.command(epilog="Example: tillwire keys abort")
def abort(
    person: Person = "",
    as_json: Json = False,
    lang: Lang = None,
    socket: Socket = None,
    config: ConfigFile = None,
) -> None:
    """Stop the ceremony, at once and without a question. Everybody may, at any time.

    What was built of the key is deleted; the order is used up, and opened envelopes are spoiled.
    """
    request = {"do": "keys", "act": "abort", **({"person": person} if person else {})}
    spoken = language(lang)
    result = followed(asking.ask(asking.find_socket(socket, config), request), spoken)
    _show(result, spoken, as_json)


@app.command(epilog="Example: tillwire keys destroy --person li")
def destroy(
    order: Annotated[
        str,
        typer.Argument(help="The order's id; not needed when the papers of only one are due.", show_default=False),
    ] = "",
    person: Person = "",
    as_json: Json = False,
    lang: Lang = None,
    socket: Socket = None,
    config: ConfigFile = None,
) -> None:
    """Sign that the papers and files of the order are destroyed. Two people do, one after the other.

    Who does not come within 30 minutes can still sign when another order is carried out already.
    """
    with at_keyboard(socket, config, language(lang)) as moving:
        keys = asking.ask_once(moving.path, {"do": "keys", "act": "status"})["keys"]
        due = [*([keys["order"]] if keys["state"] == "destroy" else []), *keys["papers"]]
        due = [document for document in due if order in ("", document["id"])]
        if not due:
            raise ControlError(f"{_in(REFUSALS['not_now'], moving.lang)}: {keys['step'][moving.lang]}", 1)
        login = moving.login(person)
        document, lang_of = due[0], moving.lang
        moving.keyboard.say(said("papers", lang_of, order=document["id"], papers=_papers(document, lang_of)))
        if not moving.keyboard.agreed(said("destroyed", lang_of)):
            raise ControlError(said("not_signed", lang_of), 1)
        result = moving.move("sign", order=document["id"], **login)
    _end(result, moving.lang, as_json)


@app.command(epilog="Example: tillwire keys receipt KO-2026-17 --to KO-2026-17.receipt")
def receipt(
    order: Annotated[
        str, typer.Argument(help="The order's id; otherwise the newest that has ended.", show_default=False)
    ] = "",
    to: Annotated[
        Path | None, typer.Option(readable=False, metavar="FILE", help="Write the receipt, page and signature.")
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(readable=False, metavar="FILE", help="Check this receipt instead. Needs --key, and no agent."),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(readable=False, metavar="PEM", help="What `tillwire keys status --public-key` printed there."),
    ] = None,
    as_json: Json = False,
    lang: Lang = None,
    socket: Socket = None,
    config: ConfigFile = None,
) -> None:
    """Print the receipt of a ceremony that has ended, or check one. The same receipt may be printed again."""
    if (check is None) != (key is None):
        raise typer.BadParameter("--check and --key belong together")
    spoken = language(lang)
    if check is not None and key is not None:
        found = keyfiles.checked(check, key)
        seq = found.facts.get("ledger", {}).get("seq", "?")
        then = said("receipt_holds", spoken), said("compare_key", spoken, seq=seq)
        _show_page({"good": True, "facts": found.facts}, found.page, as_json)
        printing.say(f"{then[0]}\n{said('next', spoken)}: {then[1]}\n  tillwire ledger show {seq}")
        return
    path = asking.find_socket(socket, config)
    given = asking.ask_once(path, {"do": "keys", "act": "receipt", **({"order": order} if order else {})})
    if to is not None:
        keyfiles.keep(given["receipt"], to)
    _show_page(given, keyfiles.page(given["receipt"]), as_json)
    printing.say(said("page_alone", spoken) if to is None else said("kept", spoken, file=to))
    now = step_now(path)
    # Of an order that was stopped the receipt was all that was left to print.
    typed = keyviews.next_command({**now, "state": "idle"} if now["state"] == "aborted" else now)
    printing.say(f"{said('next', spoken)}: {now['step'][spoken]}\n  {typed}")


@app.command(name="signed-on", epilog="Example: tillwire keys signed-on")
def signed_on(
    as_json: Json = False,
    lang: Lang = None,
    socket: Socket = None,
    config: ConfigFile = None,
) -> None:
    """Say that the host has just given new working keys: the slots are compared with those before."""
    answer = asking.ask_once(asking.find_socket(socket, config), {"do": "keys", "act": "signed_on"})
    spoken = language(lang)
    printing.show(answer, lambda _: keyviews.note(said("wait_look", spoken), LOOK, spoken), as_json)


def _prove(moving: Moving, person: str, result: dict[str, Any]) -> dict[str, Any]:
    """Ask what the host says of the key, and tell the agent; the result as it was when nobody knows yet."""
    from agent.pasted import is_name

    keyboard, lang = moving.keyboard, moving.lang
    keyboard.say(result["step"][lang])
    accepted = keyboard.one_of(said("accepted", lang), ("yes", "no", "later"))
    if accepted == "later":
        return result
    method = keyboard.one_of(said("method", lang), METHODS)
    while (reference := keyboard.line(said("reference", lang))) and not is_name(reference):
        keyboard.say(said("plain_reference", lang))
    keyboard.say(said("who_says", lang))
    proof = {"ok": accepted == "yes", "method": method, "reference": reference}
    return moving.move("prove", **proof, **moving.login(person))


def _papers(document: dict[str, Any], lang: Language) -> str:
    if envelopes := [part["envelope"] for part in document.get("parts", ())]:
        return said("envelopes", lang, envelopes=", ".join(envelopes))
    return said("block_file" if document.get("block") else "no_papers", lang)


def _in(words: Any, lang: Language) -> str:
    return str(getattr(words, lang))


def _show(result: dict[str, Any], lang: Language, as_json: bool) -> None:
    def view(found: dict[str, Any]) -> "RenderableType":
        return keyviews.step(found, lang)

    printing.show(result, view, as_json)


def _show_page(data: dict[str, Any], page: str, as_json: bool) -> None:
    """A page as it is: no table may break its lines."""
    if as_json:
        printing.show(data, cell, as_json)
    else:
        printing.line(printing.plain(page))


def _end(result: dict[str, Any], lang: Language, as_json: bool) -> None:
    """Show the next step, and end the command: with 1 when something was refused, or stopped."""
    _show(result, lang, as_json)
    raise typer.Exit(1 if result.get("wrong") or result["state"] in STOPPED else 0)
