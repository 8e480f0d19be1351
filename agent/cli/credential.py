"""This file knows `tillwire keys credential`: what root does once, so that systemd keeps the key of the agent's own
secrets (agent/crypto/keepers.py). It is for a terminal without a TPM, and holds no payment key.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli import keyviews, printing
from agent.cli.keytexts import said
from agent.cli.options import ConfigFile, Json, Lang, language
from agent.errors import ControlError

if TYPE_CHECKING:
    from rich.console import RenderableType


def join(app: typer.Typer) -> None:
    """Add this file's command to `tillwire keys`."""
    app.command(epilog="Example: tillwire keys credential /etc/tillwire/seal.cred")(credential)


def credential(
    file: Annotated[Path, typer.Argument(readable=False, help="A new file for it.")],
    as_json: Json = False,
    lang: Lang = None,
    config: ConfigFile = None,
) -> None:
    """Make the systemd credential that seals the agent's own secrets. As root, before the agent's first start.

    Then the agent's unit needs the line LoadCredentialEncrypted=tillwire.seal:FILE below [Service].
    """
    from agent import diagnose
    from agent.crypto.keepers import CREDENTIAL, provision
    from agent.crypto.sealing import FILE

    spoken = language(lang)
    if os.geteuid() != 0:
        raise ControlError(said("root_only", spoken), 3)
    sealed = diagnose.data_folder(config) / FILE
    if sealed.exists():
        raise ControlError(said("sealed_before", spoken, file=sealed), 1)
    file = file.absolute()
    bound = provision(file)
    made = {"file": str(file), "bound": bound, "unit": f"LoadCredentialEncrypted={CREDENTIAL}:{file}"}

    def view(made: dict[str, Any]) -> "RenderableType":
        from rich.console import Group

        done = printing.cell(said("credential", spoken, **made))
        return Group(done, keyviews.note(said("in_unit", spoken), made["unit"], spoken))

    printing.show(made, view, as_json)
