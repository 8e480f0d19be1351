"""This file knows the commands of the simulated secure device: hwsim epp, hwsim type and hwsim pad.

What a person types at the pad is never shown, and each digit leaves this process as soon as it is pressed.
"""

import asyncio
import os
import sys
import termios
import tty
from pathlib import Path
from typing import Annotated, Any

import typer

from hwsim import secure_process
from hwsim.errors import NOT_WELL, Refusal
from hwsim.secure_device import SecureDevice
from hwsim.secure_link import keypad, say

SERIAL = "2411-0001"
NAMED = {"\r": "enter", "\n": "enter", "\x7f": "backspace", "\x08": "backspace", "\x15": "clear", "\x1b": "cancel"}
"""What a person presses on a computer, and the pad's key that it stands for."""
ACTS = ("tamper", "close", "cut", "restore", "swap", "cut_at")
Keypad = Annotated[Path, typer.Argument(metavar="KEYPAD", help="The keypad's socket, as given to `hwsim epp`.")]


def epp(
    at: Annotated[Path, typer.Option("--socket", metavar="PATH", help="Socket of the device side; set epp=PATH.")],
    pad: Annotated[Path, typer.Option("--keypad", metavar="PATH", help="Socket of the keypad, for `hwsim type`.")],
    slots: Annotated[
        Path | None, typer.Option("--slots", metavar="FILE", help="Keep the keys in this file, in clear.")
    ] = None,
    serial: Annotated[
        str, typer.Option("--serial", metavar="NUMBER", help=f"The device's number. [default: {SERIAL}]")
    ] = "",
    lab: Annotated[
        bool, typer.Option("--lab", help="Take any key, also in clear, not only public test keys.")
    ] = False,
    single: Annotated[bool, typer.Option("--single", help="Take single-length DES keys.")] = False,
    idle: Annotated[
        float, typer.Option("--idle", metavar="SECONDS", min=0.1, help="An entry ends after so long without a key.")
    ] = 60.0,
) -> None:
    """Be a simulated secure device: slots and a keypad, in a process of its own. Prints READY when it can be used.

    It holds public test keys only, protects nothing, and is no secure device.
    """
    device = SecureDevice(serial or SERIAL, laboratory=lab, single=single, idle_seconds=idle)
    if slots:
        secure_process.furnish(device, slots, serial_given=bool(serial))
    asyncio.run(secure_process.run(device, at, pad, lambda: print(f"READY {device.serial}", flush=True)))


def type_digits(pad: Keypad) -> None:
    """Type at the pad: hex digits, Enter, Backspace, Ctrl-U to clear, Esc to cancel. Nothing is shown but how many.

    Ends after Enter or Esc. From a pipe it reads the same keys.
    """
    with keypad(pad) as line:
        if not sys.stdin.isatty():
            for letter in sys.stdin.read():
                _touch(line, _key(letter))
            return
        before = termios.tcgetattr(sys.stdin)
        try:
            # First no echo, then the invitation; what was typed before it is thrown away.
            tty.setcbreak(sys.stdin, termios.TCSAFLUSH)
            print("Type the digits, then Enter. They are not shown.", file=sys.stderr)
            while letter := os.read(sys.stdin.fileno(), 1).decode("latin-1"):
                key = _key(letter)
                seen = _touch(line, key)
                told = (
                    f"{seen['entered']} of {seen['wanted']} digits"
                    if "wanted" in seen
                    else "the pad waits for none"
                )
                print(f"\r{told}      ", end="", file=sys.stderr, flush=True)
                if key.get("key") in ("enter", "cancel"):
                    break
        finally:
            termios.tcsetattr(sys.stdin, termios.TCSAFLUSH, before)
            print(file=sys.stderr)


def pad_act(
    pad: Keypad,
    act: Annotated[str | None, typer.Argument(metavar="ACT", help=f"{', '.join(ACTS)}; none: only look.")] = None,
    value: Annotated[
        str, typer.Argument(metavar="VALUE", help="swap: the new number. cut_at: a step, e.g. 'after complete'.")
    ] = "",
) -> None:
    """Do something to the pad itself: open it, close it, cut its power, restore it, swap it for another."""
    asked: dict[str, Any] = {"look": True} if act is None else {"act": act, "serial": value, "step": value}
    if act == "swap" and not value:
        raise Refusal("swap wants the number of the other pad, for example 2411-0002")
    with keypad(pad) as line:
        seen = _touch(line, asked)
    print(" ".join(f"{name}={str(word).lower()}" for name, word in seen.items()))


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command("epp")(epp)
    app.command("type")(type_digits)
    app.command("pad")(pad_act)


def _key(letter: str) -> dict[str, Any]:
    return {"key": NAMED[letter]} if letter in NAMED else {"press": letter}


def _touch(line: Any, asked: dict[str, Any]) -> dict[str, Any]:
    try:
        answer = say(line, asked)
    except (OSError, ValueError):
        raise Refusal("the pad does not answer any more; look whether `hwsim epp` still runs", NOT_WELL) from None
    if "refused" in answer:
        raise Refusal(str(answer["why"]))
    seen: dict[str, Any] = answer["ok"]
    return seen
