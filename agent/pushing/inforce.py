"""This file knows which configuration an agent begins with: the terminal's own file, or that with the newest push
that counts; and whose signatures count on the next.

What happened to a push in between (a crash, a power cut, a damaged file) was decided by agent/pushing/shelf.py when
this returns. A push that counts and yet cannot be used any more, because a technician changed the local tables that
it must fit to, is not taken back: the file counts alone, and a sentence says so at every start. So it is with a
push that was meant for another terminal: the data folder was copied.

Signers that were pushed count as long as the set in the terminal's own file of signers is the one they followed: a
technician who puts another there has the last word, but for keys that were revoked. Those never count again.
"""

import hashlib
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from agent.config import Config, load, merged, parse
from agent.crypto.signing import CONFIGURATION, Accepted, Envelope
from agent.crypto.trust import Trust
from agent.disk.datafolder import Folder
from agent.errors import ConfigError, EnvelopeRefused, PushRefused, StoreError
from agent.pushes import Push, Site, kept, meant
from agent.pushing.shelf import Kept, Recovered, Shelf

FOLDER = "pushes"


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a terminal that takes pushes has of them.

    trust     whose signatures count; None when that is not known, for the reason `distrust`
    signers   SHA-256 (hex) of the set in the terminal's own file of them; empty when that cannot be read
    troubles  sentences for people
    unfit     the one of these that says why what was committed is not in force all the same
    """

    shelf: Shelf
    recovered: Recovered
    trust: Trust | None
    distrust: str
    signers: str
    troubles: tuple[str, ...]
    unfit: str = ""

    def with_trust(self, trust: Trust) -> "Pushed":
        """The same with other signers, which are on disk when this returns. Raises StoreError."""
        self.shelf.memory.keep_trust(f"{self.signers}\n{trust.text}")
        return replace(self, trust=trust)


@dataclass(frozen=True, slots=True)
class Begun:
    """config: what is in force. file, text: the terminal's own file as it was read. push: in force; None when the
    file is. pushed: None when the file has no [push]. folder: the data folder, which is this agent's alone from the
    first look at what was pushed; None when nothing was looked at."""

    config: Config
    file: Path
    text: bytes
    push: Push | None = None
    pushed: Pushed | None = None
    folder: Folder | None = None

    def with_push(self, text: str) -> Config:
        """What would be in force with this pushed text. Raises ConfigError."""
        return merged(self.text, text.encode(), self.file.parent)

    def back_to(self, found: Kept | None) -> tuple[Config, Push | None]:
        """What is in force with what is kept, or without any push; the file alone when it does not fit any more."""
        try:
            push = self._ours(found) if found else None
            return (self.with_push(push.config) if push else self.own), push
        except (ConfigError, PushRefused):
            return self.own, None

    def _ours(self, found: Kept) -> Push:
        """A push that is kept. Raises PushRefused when it is damaged, or meant for another terminal."""
        push, terminal = kept(found.envelope, found.digest), self.config.terminal
        if not meant(push, Site(terminal.org, terminal.id, terminal.groups)):
            who = ", ".join((terminal.id, *terminal.groups))
            raise PushRefused("wrong_target", f"it is for {push.target} of {push.org}, and this is {who}")
        return push

    @property
    def own(self) -> Config:
        """The terminal's own file, as it was read."""
        return parse(self.text, self.file.parent)


def begin(file: Path) -> Begun:
    """Read what is to be in force. Raises ConfigError for the terminal's own file alone, and StoreError when the
    data folder cannot be used, or another agent uses it."""
    own = load(file)
    begun = Begun(own, file, file.read_bytes())
    if own.push is None:
        return begun
    # Before anything is looked at: what another agent is trying looks like what was interrupted.
    folder = Folder(own.terminal.data)
    shelf = Shelf(own.terminal.data / FOLDER)
    trust, signers, why = _trust(own.push.signers, shelf)
    recovered = shelf.recover(lambda envelope: _is_whole(envelope, trust, shelf))
    troubles = [*recovered.troubles, *([why] if why else [])]
    config, push, unfit = own, None, ""
    if found := recovered.in_force:
        try:
            push = begun._ours(found)
            config = begun.with_push(push.config)
        except (ConfigError, PushRefused) as error:
            push, copied = None, ""
            if isinstance(error, PushRefused) and error.reason == "wrong_target":
                copied = f"; if the data folder is a copy of another terminal's, move {shelf.folder} away, too"
            unfit = (
                f"version {found.version} was pushed and does not fit to {file} as it is now ({error}): the file"
                f" counts alone; put it right and restart the agent, or `tillwire config rollback`{copied}"
            )
            troubles.append(unfit)
    pushed = Pushed(shelf, recovered, trust, "" if trust else why, signers, tuple(troubles), unfit)
    return Begun(config, file, begun.text, push, pushed, folder)


def _trust(path: Path, shelf: Shelf) -> tuple[Trust | None, str, str]:
    """Whose signatures count; SHA-256 (hex) of the own set; and a sentence: why nobody's count, or what has become
    of the set that was pushed."""
    try:
        own = Trust.local(path.read_text("utf-8"))
        signers = hashlib.sha256(own.text.encode()).hexdigest()
        followed, _, text = (shelf.memory.trust() or "").partition("\n")
        if not text:
            return own, signers, ""
        pushed = Trust.parse(text)
        if followed == signers:
            return pushed, signers, ""
        trust = own.revoking(pushed.revoked)
        with suppress(StoreError):  # else it is told, and done, at the next start
            shelf.memory.keep_trust(f"{signers}\n{trust.text}")
        return trust, signers, _replaced(path, own, pushed)
    except OSError as error:
        why = f"the file of signers {path} cannot be read ({error.strerror}): put it there"
    except (ConfigError, UnicodeError) as error:
        why = f"{path}: {error}"
    except (StoreError, EnvelopeRefused) as error:
        why = str(error)
    return None, "", f"no push is taken: {why}"


def _replaced(path: Path, own: Trust, pushed: Trust) -> str:
    """What is to be known when another file of signers takes the place of a set."""
    left_out = sorted({signer.name for signer in own.signers if signer.key.id in pushed.revoked})
    keys = f"; the key there of {', '.join(left_out)} was revoked and does not count" if left_out else ""
    gone = f", and version {pushed.version}, which was pushed, counts no more" if pushed.version else ""
    return (
        f"{path} has other signers than before{gone}{keys}: if nobody here has changed it, ask who has, and put the"
        " old one back"
    )


def _is_whole(envelope: bytes, trust: Trust | None, shelf: Shelf) -> bool:
    """Whether an envelope that was accepted once is as it was: it is remembered under its digest. Where that was
    lost, those who sign today must have signed it."""
    try:
        read = Envelope.read(envelope)
        if shelf.memory.known(Accepted(read.kind, read.unverified, ()).digest):
            return True
        return trust is not None and bool(trust.accept(envelope, CONFIGURATION))
    except EnvelopeRefused:
        return False
