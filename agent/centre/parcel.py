"""This file knows a signed push as the centre sends it: where it goes, and what a terminal has said of it.

Whether its signatures hold is for the terminals to say, who have the keys: here only what no terminal would take is
refused. Pure: `now` is a parameter, wall clock in milliseconds.
"""

import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agent import pushes
from agent.centre.fleet import Seen
from agent.centre.rollout import Answer
from agent.crypto.signing import Accepted, Envelope
from agent.crypto.trust import MOST_STEPS, steps
from agent.errors import EnvelopeRefused, PushRefused
from agent.messages import Reported
from agent.pushes import REASONS, Push
from agent.tables import Broker

TOPICS: Mapping[str, tuple[str, bool]] = {
    "configuration": ("config/desired", True),
    "command": ("command", False),
    "trust": ("trust/desired", True),
}
"""The topic below a terminal, and whether the broker keeps it, by the kind of a push."""
Address = tuple[str, int]
LARGEST = 128 * 1024
"""Bytes of an envelope; terminals take no larger ones."""
PEOPLE = 2
LASTING = frozenset({"not_valid", "wrong_target", "older", "same_version", "expired"})
"""Reasons that a terminal remembers of this content, whoever signs it."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """One push. names: what its digest may be in a terminal's words. text: the envelope, or the chain of them."""

    push: Push
    names: frozenset[str]
    text: bytes = field(repr=False)

    @property
    def suffix(self) -> str:
        return TOPICS[self.push.kind][0]

    @property
    def retained(self) -> bool:
        return TOPICS[self.push.kind][1]

    @property
    def title(self) -> str:
        """What it is, for people."""
        push = self.push
        what = f"command {push.command}" if push.command else f"{push.kind} version {push.version}"
        return f"{what} ({push.id})"

    def elsewhere(self, used: Sequence[Address]) -> str:
        """That this configuration has its terminals connect to another broker than one of `used`, as a sentence;
        empty when it does not."""
        try:
            found = Broker.model_validate(tomllib.loads(self.push.config).get("broker"))
        except (ValueError, RecursionError):
            return ""
        if set(found.addresses) & set(used):
            return ""
        new, old = (", ".join(f"{host}:{port}" for host, port in them) for them in (found.addresses, used))
        return (
            f"this configuration names the broker {new}, and it is sent over {old}: if these are two, whoever takes"
            " it answers at the new one, and is silent or offline here. Send it to one terminal first, and see at"
            " the new one what became of it (docs/operations.md, Another broker)"
        )

    def answer(self, seen: Seen) -> Answer | None:
        """What a terminal says of this push; None when it has said nothing of it."""
        if self.push.kind != "command":
            return self._of_report(seen.reported) if seen.reported else None
        if seen.result is None:
            return None
        outcome = seen.result.outcome
        end = (seen.result.was or "unknown") if outcome == "repeated" else outcome
        return Answer("committed" if end == "done" else "failed", outcome, seen.result.detail)

    def _of_report(self, report: Reported) -> Answer | None:
        if self.push.kind == "trust":
            return self._of_signers(report)
        if report.digest in self.names:
            lasts = report.outcome != "refused" or report.reason in LASTING
            answer = Answer(report.outcome, report.reason, report.detail, report.at, lasts)
            return None if report.outcome == "none" else answer
        if report.outcome == "committed" and report.version >= self.push.version:
            return Answer("overtaken", "older", f"version {report.version} ({report.id}) is in force there")
        return None

    def _of_signers(self, report: Reported) -> Answer | None:
        """A rotation has fields of its own in a report: what became of the configuration stays told."""
        reason = report.trust_reason
        if report.trust >= self.push.version:
            return Answer("committed")
        if not reason or report.trust_digest not in self.names:
            return None
        word = "waiting" if reason in pushes.WAITING else "refused"
        lasts = word == "waiting" or reason in LASTING
        return Answer(word, reason, report.trust_detail, report.at, lasts)


def read(text: bytes, now: int) -> Parcel:
    """Read what is to be sent: an envelope, or a chain of rotations, which is named by its last.

    Raises EnvelopeRefused or PushRefused for what no terminal takes.
    """
    if len(text) > LARGEST:
        raise EnvelopeRefused("too_large", REASONS["too_large"])
    *before, last = steps(text)
    envelope, push = _opened(last)
    if before or push.kind == "trust":
        text = _chain([*before, last])
    if push.expires <= now:
        raise PushRefused("expired", REASONS["expired"])
    if push.not_before > now:
        raise PushRefused("not_yet", "its time has not come: send it then, or have another signed")
    # a terminal may name what it cannot read by the bytes that came, and the rest by what was signed
    bytes_of_it = (hashlib.sha256(part).hexdigest() for part in (text, envelope.unverified))
    return Parcel(push, frozenset({push.digest, *bytes_of_it}), text)


def _opened(text: bytes) -> tuple[Envelope, Push]:
    """An envelope and what it says. Nothing here takes it for accepted: it is read to know where it is to go."""
    envelope = Envelope.read(text)
    if envelope.kind not in pushes.KINDS:
        raise EnvelopeRefused("wrong_type", REASONS["wrong_type"])
    if len({key for key, _ in envelope.signatures}) < PEOPLE:
        raise EnvelopeRefused("too_few", f"{REASONS['too_few']} (`tillwire push cosign`)")
    return envelope, pushes.read(Accepted(envelope.kind, envelope.unverified, ()))


def _chain(lines: Sequence[bytes]) -> bytes:
    """Rotations as a terminal reads them: one a line, the oldest first, each signed under the set before it.

    Raises EnvelopeRefused or PushRefused. Which set the first needs is for the terminals to say.
    """
    if len(lines) > MOST_STEPS:
        raise EnvelopeRefused("too_large", f"a terminal follows {MOST_STEPS} rotations: leave the oldest out")
    spelled, org, trust = [], "", None
    for number, line in enumerate(lines, 1):
        envelope, push = _opened(line)
        if push.trust is None or push.org != (org or push.org):
            raise PushRefused(
                "not_valid", "several envelopes in one file must be rotations of one organisation: send them singly"
            )
        try:
            trust = trust.rotated(line) if trust else push.trust
        except EnvelopeRefused as error:
            raise EnvelopeRefused(
                error.reason, f"rotation {number} does not follow from the one on the line above it: {error}"
            ) from error
        org = push.org
        spelled.append(envelope.text)
    return b"\n".join(spelled)
