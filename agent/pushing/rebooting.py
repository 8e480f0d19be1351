"""This file knows how the machine is started again: systemd does it, where polkit lets the agent's user ask."""

import subprocess
from collections.abc import Sequence

from agent.errors import ControlError

PATIENCE = 30.0
ASK = ("systemctl", "--no-ask-password", "reboot")
NEXT = (
    "let polkit allow org.freedesktop.login1.reboot and its -multiple-sessions and -ignore-inhibit to the agent's "
    "user (deploy/terminal.toml), or start the machine again by hand"
)
"""What to do when it is refused: with somebody logged in, logind asks for another permission than without."""


def reboot(ask: Sequence[str] = ASK) -> None:
    """Ask for it; the machine goes down while this process goes on for some seconds. Raises ControlError."""
    try:
        done = subprocess.run(ask, capture_output=True, timeout=PATIENCE, check=False)  # noqa: S603 - our own words
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ControlError(f"{ask[0]} cannot be asked ({error}): start the machine again by hand") from error
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").split())[:200]
        raise ControlError(
            f"the machine does not let the agent start it again ({said or 'no reason given'}): {NEXT}"
        )
