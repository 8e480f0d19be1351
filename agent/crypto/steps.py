"""This file knows the table of a key ceremony: its states, what can happen, and where that leads.

`TABLE` is the whole of it: for each state the events that mean something there, the method of `Ceremony` that
deals with each, and the only states it may lead to (`Ceremony` goes nowhere else). Whatever is not in the table is
refused and changes nothing. `picture` draws it.

    up to VERIFIED      a failure of any kind leads to ABORTING
    ACTIVE and DESTROY  the key works and stays: only tamper and another serial number undo it
    ERASING             of an order to destroy: whatever happens, the deletion is tried until the device has done it
    ABORTING            left only when the device says that the slot is empty
    another EPP         leads from anywhere to ABORTED, with the slot unknown: nothing may be deleted in that one
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple, get_args

from agent.crypto.holdings import KIND
from agent.crypto.keyblock import Header
from agent.crypto.orders import Order

TROUBLES = ("device_lost", "tamper", "serial_changed", "abandoned", "exposed", "agent_stopped")


class State(Enum):
    """Where a ceremony stands."""

    IDLE = "idle"
    OPENED = "opened"
    CREWED = "crewed"
    LOOKING = "looking"
    CLEARING = "clearing"
    PART = "part"
    ENTERING = "entering"
    BLOCK = "block"
    CONFIRM = "confirm"
    LOADING = "loading"
    VERIFIED = "verified"
    ACTIVE = "active"
    ERASING = "erasing"
    DESTROY = "destroy"
    RECEIPT = "receipt"
    CLOSED = "closed"
    ABORTING = "aborting"
    ABORTED = "aborted"


@dataclass(frozen=True, slots=True)
class Login:
    """A person who has just proved who they are; the caller has checked the credential.

    role: key-manager or technician. group: of custodians. credential: names the credential, and is not it.
    session: the terminal session in which it was typed. login: unique, so that each step needs a new one.
    """

    person: str
    role: str
    group: str
    credential: str
    session: str
    login: str
    terminal: str


@dataclass(frozen=True, slots=True)
class Opened:
    """A person opens an order. signers: of its valid signatures. digest: SHA-256 of the signed payload, hex.
    wall, trusted: see `orders.check`."""

    order: Order
    signers: tuple[str, ...]
    digest: str
    wall: int
    trusted: int


@dataclass(frozen=True, slots=True)
class Joined:
    """A person takes part."""

    login: Login


@dataclass(frozen=True, slots=True)
class Surroundings:
    """How switch, service and doors stand; sent at first and at every change. counters: SHA-256 of a snapshot."""

    maintenance: bool
    service_stopped: bool
    doors_as_ordered: bool
    counters: str = ""

    @property
    def fit(self) -> bool:
        """Whether a key may be loaded so."""
        return self.maintenance and self.service_stopped and self.doors_as_ordered


@dataclass(frozen=True, slots=True)
class PartBegun:
    """The holder of the next envelope has logged in and is at the EPP's keypad."""

    login: Login


@dataclass(frozen=True, slots=True)
class Digits:
    """The EPP says that another digit was typed (not which)."""


@dataclass(frozen=True, slots=True)
class BlockOffered:
    """The key block has come. Its bytes stay with the caller, until `Forget`. header: None for form ecb."""

    digest: str
    header: Header | None = None


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A person confirms that the key is to be completed, loaded or destroyed."""

    login: Login


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of what was asked; `result` done, refused, failed or unanswered. facts: those of the device."""

    id: str
    result: str
    raw: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Proof:
    """What the host says of the new key, and who of the crew reports it. method: echo, sign_on or mac; reference:
    its number in the host's log."""

    login: Login
    ok: bool
    method: str
    reference: str = ""


@dataclass(frozen=True, slots=True)
class Signed:
    """A person signs that all papers and files of the order are destroyed. digest: SHA-256 of what was signed."""

    login: Login
    envelopes: tuple[str, ...]
    digest: str


@dataclass(frozen=True, slots=True)
class ReceiptMade:
    """The receipt is signed and kept. digest: its SHA-256."""

    digest: str


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that ends a ceremony; `exposed`: somebody typed a component where it does not belong."""

    cause: str
    person: str = ""

    def __post_init__(self) -> None:
        if self.cause not in TROUBLES:
            raise ValueError("a trouble is one of " + ", ".join(TROUBLES))


@dataclass(frozen=True, slots=True)
class WrongLogin:
    """Somebody could not prove to be this person. wall: when, wall clock in ms; 0 when nobody knows, and then every
    earlier try counts as one of this day."""

    person: str
    wall: int = 0


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Event = (
    Opened
    | Joined
    | Surroundings
    | PartBegun
    | Digits
    | BlockOffered
    | Confirmed
    | Answer
    | Proof
    | Signed
    | ReceiptMade
    | Trouble
    | WrongLogin
    | Tick
)


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask the EPP. The caller sends each once, and answers with the same id. block: the SHA-256 of the block that
    goes with it as `Operation.opaque`."""

    id: str
    verb: str
    arguments: Mapping[str, str | int]
    block: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """A ledger row. Where it stands before an `Ask` it must be on disk before the device is asked."""

    row: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Tell:
    """What the people see: why something was refused, or the next step."""

    word: str
    en: str
    zh: str


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something for the centre, at once."""

    word: str
    en: str
    zh: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Delete the key block with this SHA-256 from wherever it is kept."""

    block: str


Action = Ask | Record | Tell | Alarm | Forget


class Arc(NamedTuple):
    """What is done about an event, and every state in which that may end."""

    handler: str
    leads_to: frozenset[State]


def _arcs(state: State, **arcs: tuple[str, str]) -> dict[type, Arc]:
    """The arcs of a state: event name -> handler, and the states it leads to beside staying."""
    return {
        EVENTS[event]: Arc(handler, frozenset({state, *(State(word) for word in words.split())}))
        for event, (handler, words) in arcs.items()
    }


EVENTS: dict[str, type] = {kind.__name__: kind for kind in get_args(Event)}
_STOPPING = {
    "Opened": "_second",
    "Surroundings": "_watch",
    "Trouble": "_trouble",
    "WrongLogin": "_wrong_login",
    "Tick": "_pass",
}
# A slot that was not touched yet is left as it is; one that was is deleted first, unless another EPP is in place.
_UNTOUCHED = {event: (handler, "aborted") for event, handler in _STOPPING.items()}
_TOUCHED = {event: (handler, "aborting") for event, handler in _STOPPING.items()}
_TOUCHED["Trouble"] = ("_trouble", "aborting aborted")
_EITHER = {event: (handler, "aborting aborted") for event, handler in _STOPPING.items()}
_STAYS = {
    "Trouble": ("_note_trouble", ""),
    "WrongLogin": ("_wrong_login", ""),
    "Tick": ("_pass", ""),
}
_UNDOES = {**_STAYS, "Trouble": ("_late_trouble", "aborting aborted")}
_DELETES = {**_STAYS, "Trouble": ("_trouble_deleting", "aborted")}
_ARCS: dict[State, dict[str, tuple[str, str]]] = {
    State.IDLE: {**_STAYS, "Opened": ("_open", "opened"), "Surroundings": ("_look_around", "")},
    State.OPENED: {**_UNTOUCHED, "Surroundings": ("_look_around", ""), "Joined": ("_join", "crewed looking")},
    State.CREWED: {**_UNTOUCHED, "Surroundings": ("_look_around", "looking")},
    State.LOOKING: {**_UNTOUCHED, "Answer": ("_looked", "clearing part block confirm aborting aborted")},
    State.CLEARING: {**_TOUCHED, "Answer": ("_cleared", "part block entering loading aborting")},
    State.PART: {**_EITHER, "PartBegun": ("_begin_part", "clearing entering")},
    State.ENTERING: {
        **_TOUCHED,
        "Digits": ("_digits", ""),
        "Answer": ("_entered", "part confirm clearing aborting"),
    },
    State.BLOCK: {**_EITHER, "BlockOffered": ("_take_block", "confirm")},
    State.CONFIRM: {**_EITHER, "Confirmed": ("_confirm", "clearing loading erasing")},
    State.LOADING: {**_TOUCHED, "Answer": ("_loaded", "verified aborting")},
    State.VERIFIED: {**_TOUCHED, "Proof": ("_prove", "active destroy aborting")},
    State.ACTIVE: {**_UNDOES, "Answer": ("_retired", "destroy"), "Tick": ("_pass", "")},
    State.ERASING: {**_DELETES, "Answer": ("_retired", "destroy")},
    State.DESTROY: {**_UNDOES, "Signed": ("_sign", "receipt")},
    State.RECEIPT: {**_UNDOES, "ReceiptMade": ("_close", "closed")},
    State.CLOSED: {},
    State.ABORTING: {**_DELETES, "Answer": ("_aborted", "aborted")},
    State.ABORTED: {},
}
TABLE: dict[State, dict[type, Arc]] = {state: _arcs(state, **arcs) for state, arcs in _ARCS.items()}


def row(event: str, **fields: Any) -> dict[str, Any]:
    """A ledger row of a ceremony; the store adds its number and its times."""
    return {"kind": KIND, "event": event, **fields}


def picture() -> str:
    """The table as a Mermaid state diagram: arcs with the same ends are one arrow, and staying is not drawn.

    "a stop": a second order, surroundings that do not fit, trouble, five wrong logins, or a time that ran out.
    Trouble that leads to ABORTED by itself is another EPP.
    """
    lines = ["stateDiagram-v2", "    [*] --> idle"]
    for state, arcs in TABLE.items():
        names: dict[State, list[str]] = {}
        for kind, arc in arcs.items():
            for to in arc.leads_to - {state}:
                names.setdefault(to, []).append(kind.__name__)
        for to in (other for other in State if other in names):
            stops = [name for name in names[to] if _STOPPING.get(name) == arcs[EVENTS[name]].handler]
            stops = stops if len(stops) > 1 else []
            rest = [name for name in names[to] if name not in stops]
            label = ", ".join((["a stop"] if stops else []) + rest)
            lines.append(f"    {state.value} --> {to.value}: {label}")
    lines += [f"    {end.value} --> [*]" for end in (State.CLOSED, State.ABORTED)]
    return "\n".join(lines) + "\n"
