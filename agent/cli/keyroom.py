"""This file knows `tillwire keyroom`: the work of a stand-alone machine at which two people handle clear keys.

Every command is a sitting (sitting.py): the process is made fit or the command refuses, custodians type, check
values are compared with paper, and at the end there is a record without a secret.
"""

import re
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from agent.cli import keyorders
from agent.cli.options import Json
from agent.errors import CryptoError, LinkError

if TYPE_CHECKING:
    from agent.cli.sitting import Sitting

app = typer.Typer(
    name="keyroom",
    help="Clear keys, by two people at a stand-alone machine; never on a terminal.",
    no_args_is_help=True,
)

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,47}"


def _name(text: str | None) -> str | None:
    if text is not None and not re.fullmatch(NAME, text):
        raise typer.BadParameter("letters, digits, dots and dashes, at most 48")
    return text


def _names(texts: list[str]) -> list[str]:
    for text in texts:
        _name(text)
    if len(set(texts)) < len(texts):
        raise typer.BadParameter("each envelope has a number of its own")
    return texts


def _value(text: str | None) -> str | None:
    if text is not None and not re.fullmatch(r"([0-9A-Fa-f]{2} ?){3,5}", text):
        raise typer.BadParameter("a check value is 6 hex digits, up to 10 for AES")
    return text


Parts = Annotated[int, typer.Option(min=2, max=3, help="How many components make the key.")]
Digits = Annotated[
    int, typer.Option(metavar="32|48", help="Hex digits of the key and of each component; 64 for AES only.")
]
Aes = Annotated[bool, typer.Option("--aes", help="The components are of an AES key: check values by CMAC.")]
Single = Annotated[
    bool, typer.Option("--single", help="Single DES, 16 digits: only for a signed legacy order, never for PINs.")
]
Drill = Annotated[bool, typer.Option("--drill", help="Practise: published test keys are taken, and marked.")]
Legacy = Annotated[bool, typer.Option("--legacy", help="There is a signed order that allows this old way.")]
Expect = Annotated[
    str | None,
    typer.Option(callback=_value, metavar="KCV", help="The check value that it must have.", show_default=False),
]
Terminal = Annotated[str, typer.Option(callback=_name, help="The terminal that the key is for.")]
Slot = Annotated[str, typer.Option(callback=_name, help="The key's name or slot there, such as TMK.")]


def _sitting(act: str, drill: bool, as_json: bool) -> "AbstractContextManager[Sitting]":
    from agent.cli.sitting import sitting_for

    return sitting_for(act, drill, as_json)


def _length(digits: int, *, aes: bool = False, single: bool = False) -> int:
    allowed = (16,) if single else (32, 48, 64) if aes else (32, 48)
    if digits not in allowed:
        raise typer.BadParameter(f"--digits is {' or '.join(map(str, allowed))} here")
    return digits // 2


def _want_legacy(legacy: bool, what: str) -> None:
    if not legacy:
        raise typer.BadParameter(f"{what}: give --legacy when a signed order allows it, else ask for a key block")


@app.command(
    epilog="Example: tillwire keyroom make --terminal ATM-0001 --slot TMK --envelope A000123 --envelope A000124"
    " --to /dev/usb/lp0"
)
def make(
    terminal: Terminal,
    slot: Slot,
    envelope: Annotated[
        list[str],
        typer.Option(callback=_names, help="The number of a tamper-evident envelope; one for each component."),
    ],
    to: Annotated[Path, typer.Option(help="The printer's device, or a tmpfs folder for one file a page.")],
    digits: Digits = 32,
    aes: Aes = False,
    drill: Drill = False,
    as_json: Json = False,
) -> None:
    """Make a new key as two or three components, and print each on a page of its own."""
    length = _length(digits, aes=aes)
    if len(envelope) not in (2, 3):
        raise typer.BadParameter("give --envelope two or three times")
    with _sitting("make", drill, as_json) as sitting:
        from agent.cli import pages
        from agent.crypto.keyroom import Page, draw

        pages.refuse_place(to)
        table, people = sitting.table, sitting.table.people(len(envelope))
        made = datetime.now(UTC).date().isoformat()
        parts: list[dict[str, str]] = []
        with draw(len(envelope), length, aes=aes) as drawn:
            for i, (number, component, value) in enumerate(
                zip(envelope, drawn.components, drawn.values, strict=True)
            ):
                table.line(
                    f"\n{people[i]} alone at the printer, with envelope {number}. Enter prints component {i + 1}:"
                )
                page = Page(number, terminal, slot, i + 1, len(envelope), made, value, drill)
                with page.around(component) as text:
                    pages.write(to, number, text)
                component.wipe()
                sitting.compare(value, f"component {i + 1}")
                table.line(f"{people[i]} seals the page in envelope {number}. Enter when it is closed:")
                parts.append({"envelope": number, "kcv": str(value), "custodian": people[i]})
            table.say(f"\nThe check value of the key is {drawn.kcv}. Send it by another way than the envelopes.")
            sitting.facts |= {"terminal": terminal, "slot": slot, "digits": digits}
            sitting.facts |= {"algorithm": "A" if aes else "T", "kcv": str(drawn.kcv), "parts": parts}


@app.command(epilog="Example: tillwire keyroom check --digits 32")
def check(
    digits: Digits = 32,
    expect: Expect = None,
    aes: Aes = False,
    single: Single = False,
    drill: Drill = False,
    as_json: Json = False,
) -> None:
    """Tell the check value of one component, before a witness. Ends with 1 when it is not the expected one."""
    length = _length(digits, aes=aes, single=single)
    with _sitting("check", drill, as_json) as sitting:
        from agent.crypto.keyroom import check_value

        person, witness = sitting.table.people(2)
        with sitting.table.component("one component", 2 * length, person) as component:
            value = check_value(component, aes=aes)
        sitting.table.say(f"The check value is {value}.")
        sitting.facts |= {"custodian": person, "witness": witness, "kcv": str(value), "known": value.known()}
        sitting.expect("the component", value, expect)


@app.command(epilog="Example: tillwire keyroom combine --parts 2 --expect 08D7B4 --drill")
def combine(
    parts: Parts = 2,
    digits: Digits = 32,
    expect: Expect = None,
    aes: Aes = False,
    single: Single = False,
    drill: Drill = False,
    as_json: Json = False,
) -> None:
    """Put a key together from its components, tell its check value, and forget it."""
    _length(digits, aes=aes, single=single)
    with _sitting("combine", drill, as_json) as sitting:
        from agent.crypto.keyroom import check_value

        with sitting.key("the key", parts, digits, aes=aes, single=single) as key:
            value = check_value(key, aes=aes)
        sitting.expect("the key", value, expect)
        sitting.compare(value, "the key")


@app.command(
    epilog="Example: tillwire keyroom wrap --terminal ATM-0001 --slot TPK --under TMK --usage P0 --mode E --new"
)
def wrap(
    terminal: Terminal,
    slot: Slot,
    under: Annotated[str, typer.Option(callback=_name, help="The slot of the protection key there.")],
    usage: Annotated[str, typer.Option(help="Key usage of the new key, X9.143: K0, P0, M3, D0 ...")],
    mode: Annotated[str, typer.Option(help="Mode of use: E, B, C, G, V, N ...")],
    version: Annotated[Literal["A", "B", "C", "D"], typer.Option(help="B under 3DES, D under AES.")] = "B",
    key_version: Annotated[str, typer.Option(help="Two digits that only grow for a slot.")] = "01",
    exportability: Annotated[Literal["N", "E", "S"], typer.Option(help="N: the pad never gives it out.")] = "N",
    new: Annotated[bool, typer.Option("--new", help="A new random key that nobody ever sees.")] = False,
    parts: Parts = 2,
    digits: Digits = 32,
    kek_digits: Annotated[int, typer.Option(metavar="32|48", help="Hex digits of the protection key.")] = 32,
    aes: Annotated[bool, typer.Option("--aes", help="The new key is an AES key (version D only).")] = False,
    legacy: Legacy = False,
    drill: Drill = False,
    as_json: Json = False,
) -> None:
    """Wrap a key in a TR-31 block under a terminal's protection key, which custodians type in components.

    The block is on stdout; it is opaque to everybody but the pad, and its fingerprint is what an order names.
    """
    from agent.crypto.keyblock import Header

    length = _length(digits, aes=aes)
    _length(kek_digits, aes=version == "D")
    if version in ("A", "C"):
        _want_legacy(legacy, f"version {version} is an old kind of key block")
    try:
        header = Header(version, usage, "A" if aes else "T", mode, key_version, exportability)
    except CryptoError as error:
        raise typer.BadParameter(str(error)) from error
    with _sitting("wrap", drill, as_json) as sitting:
        from agent.crypto import keyroom

        with (
            sitting.key("the protection key", parts, kek_digits, aes=version == "D") as kek,
            keyroom.new_key(length, aes=aes) if new else sitting.key("the key", parts, digits, aes=aes) as key,
        ):
            value = keyroom.check_value(key, aes=aes)
            block = keyroom.wrap(header, key, kek, drill=drill, legacy=legacy)
        sitting.facts |= {"terminal": terminal, "slot": slot, "under": under, "digits": digits, "usage": usage}
        sitting.facts |= {"mode": mode, "algorithm": header.algorithm, "exportability": exportability}
        sitting.facts |= {"key_version": key_version, "kcv": str(value)}
        sitting.facts |= {"block": block.text, "sha256": block.fingerprint}


@app.command(epilog="Example: tillwire keyroom cryptogram --legacy --new")
def cryptogram(
    new: Annotated[bool, typer.Option("--new", help="A new random key that nobody ever sees.")] = False,
    parts: Parts = 2,
    digits: Digits = 32,
    kek_digits: Annotated[int, typer.Option(metavar="32|48", help="Hex digits of the master key.")] = 32,
    legacy: Legacy = False,
    drill: Drill = False,
    as_json: Json = False,
) -> None:
    """Encrypt a key under a terminal's master key the old way, without a key block. Needs --legacy."""
    _want_legacy(legacy, "a bare cryptogram is bound to no use of the key")
    length = _length(digits)
    _length(kek_digits)
    with _sitting("cryptogram", drill, as_json) as sitting:
        from agent.crypto import keyroom

        with (
            sitting.key("the master key", parts, kek_digits) as kek,
            keyroom.new_key(length) if new else sitting.key("the key", parts, digits) as key,
        ):
            value = keyroom.check_value(key)
            sealed = keyroom.cryptogram(key, kek)
        sitting.facts |= {"kcv": str(value), "cryptogram": sealed.hex().upper()}


@app.command(epilog="Example: tillwire keyroom inject /dev/ttyUSB0 epp --slot 00 --type 2 --legacy")
def inject(
    port: Annotated[str, typer.Argument(help="The pad's serial port.")],
    kind: Annotated[Literal["pin_pad", "epp"], typer.Argument(help="pin_pad: VeriFone IPP; epp: SZZT ZT588.")],
    slot: Annotated[str, typer.Option(help="pin_pad: 0 to 9; epp: 00 to FF.")],
    key_type: Annotated[
        int, typer.Option("--type", min=1, max=9, help="epp only: 1 IMK, 2 TMK, 3 TPK, 5 TAK, 6 TDK.")
    ] = 2,
    baud: Annotated[
        int | None, typer.Option(min=50, max=4_000_000, help="Line speed, if not the maker's.", show_default=False)
    ] = None,
    parity: Annotated[Literal["even", "odd", "none"], typer.Option(help="pin_pad only.")] = "even",
    parts: Parts = 2,
    digits: Digits = 32,
    single: Single = False,
    legacy: Legacy = False,
    drill: Drill = False,
    as_json: Json = False,
) -> None:
    """Give a key in clear to a pad that takes it no other way, over its own cable. Needs --legacy.

    Only here, where nobody else can reach the cable; the pad is blank before and sealed afterwards.
    """
    _want_legacy(legacy, "this pad takes its key in clear")
    _length(digits, single=single)
    try:
        number = int(slot, 10 if kind == "pin_pad" else 16)
        if not 0 <= number <= (9 if kind == "pin_pad" else 0xFF):
            raise ValueError
    except ValueError:
        raise typer.BadParameter("--slot is 0 to 9 for a pin_pad, 00 to FF for an epp") from None
    with _sitting("inject", drill, as_json) as sitting:
        from agent.config import single as one_device
        from agent.crypto.injecting import Injector
        from agent.crypto.keyroom import check_value
        from agent.lines.ports import open_port

        wire = open_port(one_device(kind, port, baud, {})[0])  # before anybody types: is the port there at all?
        try:
            with sitting.key("the key", parts, digits, single=single) as key:
                sitting.compare(check_value(key), "the key")
                try:
                    pad = Injector(wire, parity if kind == "pin_pad" else "none")
                    if kind == "pin_pad":
                        pad.ipp(key, number)
                    else:
                        pad.zt588(key, number, key_type)
                except OSError as error:
                    raise LinkError(
                        "unusable", f"{port} was lost: whether the pad kept the key is unknown"
                    ) from error
        finally:
            wire.close()
        proof = "it echoed the key, and says that it has one" if kind == "pin_pad" else "it told the check value"
        sitting.facts |= {"port": port, "kind": kind, "slot": slot, "proof": proof}


keyorders.join(app)
