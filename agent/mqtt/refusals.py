"""This file knows the refusals that only people can mend: what each means, and what to do next.

Three parties refuse: this terminal does not trust the broker's certificate (OpenSSL's verify codes), the broker's
TLS does not take ours (alerts, RFC 8446 section 6.2), and the broker itself (reason codes, MQTT 5.0 section 2.4;
paho translates the return codes of 3.1.1 into them). What is not here may pass by itself and is tried again soon.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refusal:
    """What is wrong, and what to do next: two halves of one sentence."""

    cause: str
    next: str


_CLOCK = "if this machine's clock is right, the broker needs a new certificate"
_AUTHORITY = Refusal(
    "the broker's certificate is not signed by the authority in `ca`",
    "give the authority of this broker; if that is right already, somebody else answers there",
)
_NAME = Refusal(
    "the broker's certificate is for another host name",
    "write the name that is in the certificate into [broker], or have the certificate made for this name",
)
CERTIFICATE: Mapping[int, Refusal] = {
    2: _AUTHORITY,
    3: Refusal("the list in `crl` is not of the authority in `ca`", "fetch the authority's own list"),
    9: Refusal("the broker's certificate is not valid yet", _CLOCK),
    10: Refusal("the broker's certificate has expired", _CLOCK),
    11: Refusal("the list of revoked certificates is not valid yet", "is this machine's clock right?"),
    12: Refusal("the list of revoked certificates has expired", "put the authority's newest list where `crl` says"),
    18: _AUTHORITY,
    19: _AUTHORITY,
    20: _AUTHORITY,
    21: _AUTHORITY,
    23: Refusal(
        "the broker's certificate is revoked", "tell the network department: it must not be trusted any more"
    ),
    62: _NAME,
    64: _NAME,
}
"""By OpenSSL's X509_V_ERR_ numbers, which ssl.SSLCertVerificationError carries as verify_code."""

_RENEW = "have a new certificate made for this terminal and put it in place: it is used without a restart"
ALERTS: Mapping[str, Refusal] = {
    "CERTIFICATE REQUIRED": Refusal(
        "the broker wants a certificate of this terminal", "add certificate and key to [broker.tls]"
    ),
    "CERTIFICATE EXPIRED": Refusal("the broker says that this terminal's certificate has expired", _RENEW),
    "CERTIFICATE REVOKED": Refusal(
        "the broker says that this terminal's certificate is revoked", f"ask why it was; if by mistake, {_RENEW}"
    ),
    "UNKNOWN CA": Refusal(
        "the broker does not know the authority of this terminal's certificate",
        "take a certificate of the authority that the broker trusts",
    ),
    "BAD CERTIFICATE": Refusal(
        "the broker does not take this terminal's certificate",
        f"is it valid already, and for this broker? {_RENEW}",
    ),
    "UNSUPPORTED CERTIFICATE": Refusal("the broker cannot use this kind of certificate", _RENEW),
    "CERTIFICATE UNKNOWN": Refusal("the broker does not take this terminal's certificate", _RENEW),
    "ACCESS DENIED": Refusal("the broker denies this terminal's certificate", "see the broker's log for why"),
    "HANDSHAKE FAILURE": Refusal(
        "the broker ends the TLS handshake", "does it want a certificate of this terminal? see the broker's log"
    ),
    "PROTOCOL VERSION": Refusal("the broker's TLS is older than 1.2", "update the broker"),
}
"""By a part of OpenSSL's text for the alert."""

_ACL = "correct the broker's access list: this terminal writes below its own topic only"
CODES: Mapping[int, Refusal] = {
    0x84: Refusal("it does not speak this MQTT version", "set `protocol` in [broker] to the other one"),
    0x85: Refusal("it does not take this terminal's client id", "see the broker's log for what it expects"),
    0x86: Refusal("it does not take this terminal's identity", "see the broker's log for what it expects"),
    0x87: Refusal("this terminal is not authorized", _ACL),
    0x8A: Refusal("this terminal is banned", "ask the network department why"),
    0x8C: Refusal("it wants another kind of login", "let it take the certificate for the identity"),
    0x8E: Refusal(
        "another client took over this terminal's session", "find the second terminal with the same org and id"
    ),
    0x90: Refusal("it does not take this terminal's topic", _ACL),
    0x99: Refusal("it does not take this terminal's messages", "see the broker's log, and report it"),
    0x9A: Refusal("it keeps no retained messages", "allow them at the broker"),
    0x9B: Refusal("it does not take QoS 1", "allow it at the broker"),
    0x9D: Refusal("it has moved", "write the new address into [broker]"),
}
"""By reason code, of a CONNACK, a PUBACK or a DISCONNECT."""


def of_certificate(code: int, message: str) -> Refusal:
    """Why this terminal does not trust the broker; `message` is OpenSSL's."""
    other = Refusal(
        f"the broker's certificate is not good ({message})", "have it made anew by the authority in `ca`"
    )
    return CERTIFICATE.get(code, other)


def of_alert(text: str) -> Refusal | None:
    """Why the broker's TLS hung up, from the text of the error."""
    words = text.upper().replace("_", " ")
    return next((refusal for part, refusal in ALERTS.items() if part in words), None)


def of_code(code: int) -> Refusal | None:
    """Why the broker refuses a connection or a message."""
    return CODES.get(code)
