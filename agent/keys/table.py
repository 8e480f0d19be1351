"""This file knows the [keys] table: into which device keys are loaded, who may order it, and how things must stand.

    [keys]
    epp = "epp1"                                   # the device; its own table has keys = true
    hierarchy = "production"                       # "test": the device is a simulator, and only test orders count
    signers = "signers.toml"                       # whose signatures count on orders
    maintenance = { "panel1.operator_switch" = "maintenance" }
    stopped = { "panel1.operator_switch" = "maintenance" }
    doors = { "panel1.safe_door" = "closed" }

The file of signers has a table for each person, and an order needs one of each role:

    [[signer]]
    name = "hq-li"
    roles = ["maker"]                              # or ["checker"]
    key = '''-----BEGIN PUBLIC KEY----- ...'''     # Ed25519, as `tillwire keyroom signer` prints it
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from agent import points
from agent.errors import ConfigError, CryptoError
from agent.mistakes import one_of, sentence

ROLES = ("maker", "checker")
Conditions = Mapping[str, str]
"""Point of a device, as `device.point` -> the word that it must have."""
_SLOT = re.compile(r"(?![0-9A-Fa-f]{11})[A-Za-z0-9][A-Za-z0-9._-]{0,47}")


class Keys(BaseModel):
    """The table.

    epp         the device
    slots       slots that are looked at beside the ones that the ledger knows
    working     slots of keys that a sign-on changes
    inherited   slots of keys that were there before the ledger
    age_days    crypto-period of a key; 0: not watched
    utc_offset  minutes that the terminal's calendar is ahead of UTC
    maintenance, stopped, doors   what must be so before a ceremony and as long as it lasts: the operator switch,
                the service to customers, the doors
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epp: str
    hierarchy: Literal["production", "test"]
    signers: Path
    maintenance: Annotated[Conditions, Field(min_length=1)]
    stopped: Annotated[Conditions, Field(min_length=1)]
    doors: Conditions = {}
    slots: tuple[str, ...] = ()
    working: tuple[str, ...] = ()
    inherited: tuple[str, ...] = ()
    age_days: Annotated[int, Field(ge=0, le=10_000)] = 0
    utc_offset: Annotated[int, Field(ge=-720, le=840)] = 480

    @field_validator("slots", "working", "inherited")
    @classmethod
    def _named(cls, slots: tuple[str, ...]) -> tuple[str, ...]:
        # Not repeated: somebody may have pasted a component here.
        if not all(_SLOT.fullmatch(slot) for slot in slots):
            raise ValueError("the name of a slot has letters, digits, '.', '_' and '-', and is no number in hex")
        return slots

    def check(self, devices: Mapping[str, Any]) -> None:
        """Whether the other tables have what this one names. Raises ConfigError."""
        if self.epp not in devices:
            raise ConfigError(f"keys.epp: there is no [devices.{self.epp}]; there is {one_of(devices)}")
        loads = getattr(devices[self.epp].options, "keys", None)
        if loads is None:
            raise ConfigError(f"keys.epp: {self.epp} is a {devices[self.epp].kind}: no keys can be loaded into it")
        if not loads:
            raise ConfigError(
                f"keys.epp: {self.epp} is only read: an encryptor into which keys are loaded needs keys = true"
                f" in [devices.{self.epp}]"
            )
        for group in ("maintenance", "stopped", "doors"):
            for name, word in getattr(self, group).items():
                _check_condition(f"keys.{group}", name, word, devices)

    def described(self) -> str:
        """The table in one line, once the file of signers was found to be good. Raises ConfigError."""
        keyring(self.signers)
        names = ", ".join(signer["name"] for signer in signers(self.signers))
        return f"into {self.epp}, {self.hierarchy}, ordered by {names}"

    @property
    def conditions(self) -> dict[str, dict[tuple[str, str], str]]:
        """The three groups, with (device, point) for each name."""
        groups = {"maintenance": self.maintenance, "stopped": self.stopped, "doors": self.doors}
        return {
            group: {parted(name): word for name, word in conditions.items()} for group, conditions in groups.items()
        }


def parted(name: str) -> tuple[str, str]:
    """Device and point of `device.point`: the longest end that is a point; a device's name may have dots too."""
    at = name.find(".")
    while at > 0:
        if points.exists(name[at + 1 :]):
            return name[:at], name[at + 1 :]
        at = name.find(".", at + 1)
    return name, ""


def signers(path: Path) -> list[dict[str, Any]]:
    """The entries of a file of signers: name, roles, key (PEM text). Raises ConfigError."""
    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(
            f"keys.signers: {path} cannot be read ({error.strerror}): give the file of those who sign orders"
        ) from error
    except ValueError as error:
        raise ConfigError(f"keys.signers: {path} is not valid TOML: {error}") from error
    try:
        return [signer.model_dump() for signer in _Signers.model_validate(found).signer]
    except ValidationError as error:
        raise ConfigError(f"{path}: {sentence(error, '', _Signers)}") from error


class _Signer(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,47}$")]
    roles: Annotated[tuple[Literal["maker", "checker"], ...], Field(min_length=1)]
    key: str


class _Signers(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    signer: tuple[_Signer, ...]


def keyring(path: Path) -> Any:
    """Whose signatures count on orders (`signing.Keyring`). Raises ConfigError for a file or a key that is bad."""
    # Imported here: a terminal into which no keys are loaded needs no cipher in its memory.
    from agent.crypto.ed25519 import PublicKey
    from agent.crypto.signing import Keyring, Signer

    people = []
    for entry in signers(path):
        try:
            people.append(Signer(entry["name"], PublicKey.from_pem(entry["key"]), frozenset(entry["roles"])))
        except CryptoError as error:
            raise ConfigError(f"{path}: the key of {entry['name']}: {error}") from error
    missing = [role for role in ROLES if not any(role in person.roles for person in people)]
    if missing:
        raise ConfigError(f"{path}: there is no {' and no '.join(missing)}: an order needs one of each")
    if len({person.name for person in people}) < len(ROLES):
        raise ConfigError(f"{path}: {people[0].name} is maker and checker: an order needs two people")
    try:
        return Keyring(people)
    except CryptoError as error:
        raise ConfigError(f"{path}: {error}") from error


def _check_condition(where: str, name: str, word: str, devices: Mapping[str, Any]) -> None:
    device, point = parted(name)
    if not point:
        raise ConfigError(f'{where}: "{name}" is no point of a device; write it like "panel1.operator_switch"')
    if device not in devices:
        raise ConfigError(f"{where}: there is no [devices.{device}]; there is {one_of(devices)}")
    words = points.lookup(point).words
    if not words:
        raise ConfigError(f"{where}: {point} has no words to choose from; write a switch, a state or a door")
    if word not in words:
        raise ConfigError(f"{where}: {point} is never {word!r}; it can be {one_of(words)}")
