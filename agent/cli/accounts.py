"""This file knows `tillwire accounts`: who may take part in a key ceremony at this terminal, and their passwords.

Passwords are typed at the terminal, twice, and are never words of a command.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from agent.cli import asking, keyviews, printing
from agent.cli.keytexts import said
from agent.cli.moving import Moving, at_keyboard
from agent.cli.options import ConfigFile, Json, Lang, Language, Socket, language
from agent.timepiece import wall_ms

if TYPE_CHECKING:
    from rich.console import RenderableType

app = typer.Typer(
    name="accounts",
    help="The people who load keys at this terminal: at least two, of two groups.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(help="The person's name: letters, digits and '_'.")]
Role = Literal["technician", "key-manager", "auditor", "operator"]


@app.command(name="list", epilog="Example: tillwire accounts list")
def list_(
    as_json: Json = False,
    lang: Lang = None,
    socket: Socket = None,
    config: ConfigFile = None,
) -> None:
    """Show the people: role, custodian group, and whether they may log in."""
    found = asking.ask_once(asking.find_socket(socket, config), {"do": "accounts", "act": "list"})
    spoken, now = language(lang), wall_ms()
    printing.show(found, lambda known: _people(known, now, spoken), as_json)


@app.command(epilog="Example: tillwire accounts add li --role key-manager --group G1")
def add(
    name: Name,
    role: Annotated[
        Role, typer.Option(help="What the person is. A ceremony needs a key-manager and a technician.")
    ],
    group: Annotated[
        str, typer.Option(help="Custodian group; two people of one group count once. [default: the name]")
    ] = "",
    as_json: Json = False,
    lang: Lang = None,
    socket: Socket = None,
    config: ConfigFile = None,
) -> None:
    """Add a person, with a first password that only opens its own change. Root, or the agent's user."""
    with at_keyboard(socket, config, language(lang)) as moving:
        password = _twice(moving, said("first_password", moving.lang, name=name))
        request = {"act": "add", "name": name, "role": role, "group": group, "password": password}
        answer = asking.ask_once(moving.path, {"do": "accounts", **request})
    _show(
        answer,
        said("change_first", moving.lang, name=name),
        f"tillwire accounts password {name}",
        moving.lang,
        as_json,
    )


@app.command(epilog="Example: tillwire accounts remove li")
def remove(
    name: Name, as_json: Json = False, lang: Lang = None, socket: Socket = None, config: ConfigFile = None
) -> None:
    """Take a person's account away. What they did stays in the ledger. Root, or the agent's user."""
    _change("remove", name, as_json, lang, socket, config)


@app.command(epilog="Example: tillwire accounts unlock li")
def unlock(
    name: Name, as_json: Json = False, lang: Lang = None, socket: Socket = None, config: ConfigFile = None
) -> None:
    """Let a person try again who had five wrong passwords; ask first who typed them. Root, or the agent's user."""
    _change("unlock", name, as_json, lang, socket, config)


@app.command(epilog="Example: tillwire accounts password li")
def password(
    name: Name, as_json: Json = False, lang: Lang = None, socket: Socket = None, config: ConfigFile = None
) -> None:
    """Change your own password, also the first one that somebody gave you."""
    with at_keyboard(socket, config, language(lang)) as moving:
        old = moving.keyboard.password(said("password", moving.lang, name=name))
        new = _twice(moving, said("new_password", moving.lang, name=name))
        request = {"act": "password", "name": name, "old": old, "new": new}
        answer = asking.ask_once(moving.path, {"do": "accounts", **request})
    _show(
        answer,
        said("may_begin", moving.lang, name=name),
        f"tillwire keys begin --person {name}",
        moving.lang,
        as_json,
    )


def _change(
    act: str, name: str, as_json: bool, lang: Language | None, socket: Path | None, config: Path | None
) -> None:
    spoken = language(lang)
    answer = asking.ask_once(asking.find_socket(socket, config), {"do": "accounts", "act": act, "name": name})
    _show(answer, said("look", spoken), "tillwire accounts list", spoken, as_json)


def _twice(moving: Moving, question: str) -> str:
    """A new password, typed twice."""
    while True:
        first = moving.keyboard.password(question)
        if moving.keyboard.password(said("once_more", moving.lang)) == first:
            return first
        moving.keyboard.say(said("differ", moving.lang))


def _show(answer: dict[str, Any], then: str, typed: str, lang: Language, as_json: bool) -> None:
    def view(found: dict[str, Any]) -> "RenderableType":
        from rich.console import Group

        return Group(printing.cell(found["done"][lang]), keyviews.note(then, typed, lang))

    printing.show(answer, view, as_json)


def _people(known: dict[str, Any], now: int, lang: Language) -> "RenderableType":
    from rich.console import Group

    then = (
        ("look_keys", "tillwire keys status")
        if known["accounts"]
        else ("first_account", "tillwire accounts add NAME")
    )
    return Group(keyviews.people(known["accounts"], now, lang), keyviews.note(said(then[0], lang), then[1], lang))
