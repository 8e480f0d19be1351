"""This file knows the options that commands share, each written once.

Paths are `readable=False`, which means unchecked: what cannot be read is told by the one who reads it, with the
next step.
"""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

Language = Literal["en", "zh"]

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text.")]
Socket = Annotated[
    Path | None,
    typer.Option("--socket", metavar="PATH", readable=False, help="The agent's socket. [env TILLWIRE_SOCKET]"),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", readable=False, help="The agent's configuration file. [env TILLWIRE_CONFIG]"
    ),
]
Lang = Annotated[
    Language | None,
    typer.Option("--lang", help="Language of causes and hints; otherwise that of LANG.", show_default=False),
]
Offline = Annotated[bool, typer.Option("--offline", help="Look at the files of an agent that does not run.")]
StoreFile = Annotated[
    Path | None,
    typer.Option(
        "--store", metavar="PATH", readable=False, help="The agent's data folder, or its store file; for --offline."
    ),
]
Redated = Annotated[
    bool,
    typer.Option("--redated", help="Times by the last good clock of each boot, for rows made while it was wrong."),
]
Force = Annotated[bool, typer.Option("--force", help="Do not ask.")]

AtBroker = Annotated[str, typer.Option("--broker", metavar="HOST:PORT", help="The broker.", show_default=False)]
MqttVersion = Annotated[str, typer.Option("--protocol", help="MQTT version: 5 or 3.1.1.")]
Ca = Annotated[
    Path | None,
    typer.Option("--ca", metavar="FILE", readable=False, help="Authority of the broker's certificate: use TLS."),
]
Certificate = Annotated[
    Path | None, typer.Option("--certificate", metavar="FILE", readable=False, help="The centre's certificate.")
]
CertificateKey = Annotated[
    Path | None, typer.Option("--key", metavar="FILE", readable=False, help="The key to the certificate.")
]
Gather = Annotated[
    float,
    typer.Option(
        "--gather",
        min=0.1,
        help="Seconds without a message after which all that stands at the broker counts as heard.",
    ),
]


def language(lang: Language | None) -> Language:
    """The language to use: the one given, else Chinese where the locale is Chinese, else English."""
    if lang:
        return lang
    locale = next((os.environ[key] for key in ("LC_ALL", "LC_MESSAGES", "LANG") if os.environ.get(key)), "")
    return "zh" if locale.startswith("zh") else "en"
