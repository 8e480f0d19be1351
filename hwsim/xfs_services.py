"""This file knows the services of a simulated XFS4IoT host: their interfaces, commands, events and capabilities.

Written from Common.Capabilities and the message versions of release 2024-3 (sources: hwsim/xfs4iot.py). A command
is listed with the version that it must be sent in and that of its completion; generation V1 has "1.0" everywhere.
"""

from hwsim.xfs_machine import (
    ACCEPTOR,
    AUXILIARIES,
    CARD_READER,
    DISPENSER,
    ENCRYPTOR,
    PRINTER,
    VENDOR_MODE,
)
from hwsim.xfs_units import Json

PUBLISHER = ""
"""The name of the service that only tells where the others are."""
ROOT = "/xfs4iot/v1.0"

INTERFACES = {
    CARD_READER: ("Common", "CardReader", "Storage"),
    DISPENSER: ("Common", "CashDispenser", "CashManagement", "Storage"),
    ACCEPTOR: ("Common", "CashManagement", "Storage", "CashAcceptor"),
    ENCRYPTOR: ("Common", "KeyManagement"),
    PRINTER: ("Common", "Printer"),
    AUXILIARIES: ("Common", "Auxiliaries"),
    VENDOR_MODE: ("Common", "VendorMode"),
}
COMMANDS = {
    "ServicePublisher": {"GetServices": ("2.0", "2.0")},
    "Common": {"Capabilities": ("2.0", "3.0"), "Status": ("2.0", "3.0"), "Cancel": ("2.0", "2.0")},
    "CardReader": {"Reset": ("2.0", "2.0")},
    "CashDispenser": {},
    "CashManagement": {"Reset": ("2.0", "2.0")},
    "CashAcceptor": {},
    "Storage": {"GetStorage": ("2.0", "2.1")},
    "KeyManagement": {"GetKeyDetail": ("2.0", "2.0"), "Reset": ("2.0", "2.0")},
    "Printer": {"Reset": ("3.0", "2.0")},
    "Auxiliaries": {},
    "VendorMode": {},
}
"""Interface -> command -> version of the command and of its completion in V2."""
KEY_COMMANDS = {
    "KeyManagement": {
        **{"ImportKey": ("3.0", "3.0"), "GenerateKCV": ("2.0", "3.0")},
        **{"DeleteKey": ("3.0", "2.0"), "Initialization": ("3.0", "2.0")},
    },
    "Keyboard": {"SecureKeyEntry": ("2.1", "3.0")},
}
"""What an encryptor serves beside that when a secure device is behind it."""
ONLY_V1 = {"Auxiliaries": ("Register",)}
UNHANDLED = {
    *("Common.SetVersions", "Common.SetTransactionState", "Common.GetCommandNonce", "Common.ClearCommandNonce"),
    *("Storage.SetStorage", "Storage.StartExchange", "Storage.EndExchange", "Auxiliaries.Register"),
    *("CashDispenser.Dispense", "CashDispenser.Present", "CashDispenser.Reject", "CashManagement.Retract"),
    *("CardReader.ReadRawData", "CardReader.Move", "Printer.PrintRaw", "Printer.SupplyReplenish"),
    *("Printer.ResetCount", "KeyManagement.ImportKey", "KeyManagement.DeleteKey", "KeyManagement.Initialization"),
    *("KeyManagement.GenerateKCV", "Keyboard.SecureKeyEntry"),
    *("VendorMode.Register", "VendorMode.EnterModeRequest", "VendorMode.ExitModeRequest"),
}
"""Names that the framework knows and no service here serves."""
EVENTS = {
    "Common": {"StatusChangedEvent": "3.0", "ErrorEvent": "2.0"},
    "CardReader": {"MediaRemovedEvent": "2.0"},
    "CashDispenser": {},
    "CashManagement": dict.fromkeys(
        ("ItemsPresentedEvent", "ItemsTakenEvent", "ItemsInsertedEvent", "ShutterStatusChangedEvent"), "2.0"
    ),
    "CashAcceptor": {},
    "Storage": {"StorageChangedEvent": "2.1", "StorageThresholdEvent": "2.1", "CountsChangedEvent": "2.0"},
    "KeyManagement": dict.fromkeys(("InitializedEvent", "IllegalKeyAccessEvent", "CertificateChangeEvent"), "2.0"),
    "Keyboard": {"KeyEvent": "2.0"},
    "Printer": {"PaperThresholdEvent": "2.0", "TonerThresholdEvent": "2.0"},
    "Auxiliaries": {},
    "VendorMode": dict.fromkeys(
        ("EnterModeRequestEvent", "ModeEnteredEvent", "ExitModeRequestEvent", "ModeExitedEvent"), "2.0"
    ),
}
"""Interface -> event -> its version in V2."""
ONLY_V2 = {"CountsChangedEvent"}
EVENTS_V1 = {
    "Auxiliaries": ("AuxiliaryStatusEvent",),
    "CashManagement": ("SafeDoorOpenEvent", "SafeDoorClosedEvent"),
}


def service_at(path: str) -> str | None:
    """The service at a request path, with or without the slash at its end; None where there is none."""
    for service in (PUBLISHER, *INTERFACES):
        if path.rstrip("/") == f"{ROOT}/{service}".rstrip("/"):
            return service
    return None


def uri_of(service: str, authority: str) -> str:
    """Where a service is reached, as GetServices tells it."""
    return f"ws://{authority}{ROOT}/{service}/"


def commands(service: str, *, v1: bool, keys: bool = False) -> dict[str, tuple[str, str]]:
    """The commands that a service lists: name -> version of the command and of its completion. `keys`: there is a
    secure device behind the encryptor."""
    found: dict[str, tuple[str, str]] = {}
    for interface in _interfaces(service, keys=keys):
        served = COMMANDS.get(interface, {}) | (KEY_COMMANDS.get(interface, {}) if keys else {})
        found |= {f"{interface}.{name}": versions for name, versions in served.items()}
        if v1:
            found |= {f"{interface}.{name}": ("1.0", "1.0") for name in ONLY_V1.get(interface, ())}
    return dict.fromkeys(found, ("1.0", "1.0")) if v1 else found


def _interfaces(service: str, *, keys: bool) -> tuple[str, ...]:
    more = ("Keyboard",) if keys and service == ENCRYPTOR else ()
    return (*INTERFACES.get(service, ("ServicePublisher",)), *more)


def is_known(name: str) -> bool:
    """Whether some service somewhere could serve a command of this name."""
    listed = {name for v1 in (True, False) for service in INTERFACES for name in commands(service, v1=v1)}
    return name in listed | UNHANDLED | {"ServicePublisher.GetServices"}


def event_version(name: str) -> str:
    """The version of an event in V2."""
    interface, _, event = name.partition(".")
    return EVENTS.get(interface, {}).get(event, "2.0")


def capabilities(service: str, *, v1: bool, keys: bool = False, pad: str = "") -> Json:
    """The payload of Common.Capabilities, with the interfaces spelled as in the schema. `keys`: there is a secure
    device behind the encryptor, and `pad` is its number."""
    keys = keys and service == ENCRYPTOR
    listed = commands(service, v1=v1, keys=keys)
    interfaces = []
    for interface in _interfaces(service, keys=keys):
        events = dict.fromkeys(_events_v1(interface), "1.0") if v1 else EVENTS[interface]
        entry: Json = {
            "name": interface,
            "commands": {n: {"versions": [v]} for n, (v, _) in listed.items() if n.startswith(f"{interface}.")},
            "events": {f"{interface}.{n}": {"versions": [v]} for n, v in events.items()},
            "maximumRequests": 0,
        }
        # an interface without events has no such member (recorded)
        interfaces.append({key: value for key, value in entry.items() if value != {}})
    told = {"interfaces": interfaces, "common": _common(service, v1=v1), **_DETAILS.get(service, {})}
    if keys:
        told["common"]["deviceInformation"][0]["serialNumber"] = pad
        formats = dict.fromkeys("ABCD", True)
        told["keyManagement"] = told["keyManagement"] | {"keyBlockImportFormats": formats}
    return told


def _events_v1(interface: str) -> list[str]:
    return [name for name in (*EVENTS[interface], *EVENTS_V1.get(interface, ())) if name not in ONLY_V2]


def _common(service: str, *, v1: bool) -> Json:
    version = "1.0" if v1 else "2.0"
    device = {
        "modelName": f"Example {service.removeprefix('Sim')}",
        "serialNumber": f"SIM-{1001 + list(INTERFACES).index(service)}",
        "revisionNumber": "1.0",
        "modelDescription": "simulated device",
        "firmware": [{"firmwareName": "SIM FW", "firmwareVersion": "1.0", "hardwareRevision": "1.0"}],
        "software": [{"softwareName": "SIM SP", "softwareVersion": "1.0"}],
    }
    said = {"serviceVersion": version, "deviceInformation": [device], "powerSaveControl": False}
    return said | {"antiFraudModule": service == CARD_READER}


def _only(*having: str, of: tuple[str, ...]) -> dict[str, bool]:
    return {name: name in having for name in of}


_DOORS = ("closed", "open", "locked", "bolted", "tampered")
_DETAILS: dict[str, Json] = {
    CARD_READER: {"cardReader": {"type": "motor", "positions": {"exit": True, "transport": True}}},
    DISPENSER: {
        "cashDispenser": {
            "type": "selfServiceBill",
            "maxDispenseItems": 40,
            "intermediateStacker": True,
            "itemsTakenSensor": True,
            "positions": _only("center", of=("left", "right", "center", "top", "bottom", "front", "rear")),
        },
        "cashManagement": {"exchangeType": {"byHand": True}},
    },
    ACCEPTOR: {
        "cashAcceptor": {"type": "selfServiceBill", "maxCashInItems": 200, "shutter": True},
        "cashManagement": {"exchangeType": {"byHand": True}},
    },
    ENCRYPTOR: {
        "keyManagement": {
            "keyNum": 100,
            "keyCheckModes": {"self": True, "zero": True},
            "keyBlockImportFormats": _only("A", "B", "C", of=("A", "B", "C", "D")),
            "keyImportThroughParts": True,
        }
    },
    PRINTER: {
        "printer": {
            "type": _only("receipt", of=("receipt", "passbook", "journal", "document", "scanner")),
            "paperSources": _only("upper", "lower", of=("upper", "lower", "external", "aux", "aux2", "park")),
        }
    },
    AUXILIARIES: {
        "auxiliaries": {
            "operatorSwitch": _only(*(of := ("run", "maintenance", "supervisor")), of=of),
            "tamperSensor": True,
            "seismicSensor": True,
            "safeDoor": _only(*_DOORS, of=_DOORS),
            "cabinetDoor": _only(*_DOORS, of=_DOORS),
            "UPS": _only(*(ups := ("low", "engaged", "powering", "recovered")), of=ups),
        }
    },
}
