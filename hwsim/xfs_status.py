"""This file knows how each service of a simulated XFS4IoT host tells the machine's state, in V2 words.

Written from Common.Status, Storage.GetStorage and KeyManagement.GetKeyDetail (sources: hwsim/xfs4iot.py).
"""

from hwsim.xfs_machine import BIN, DEVICE_OF, EXTRA_KEY, KEYS, UNITS, Machine
from hwsim.xfs_units import Json


def status(machine: Machine, service: str) -> Json:
    """The payload of Common.Status; what does not exist is left out."""
    common: Json = {"device": getattr(machine, DEVICE_OF[service]), "devicePosition": "inPosition"}
    common["powerSaveRecoveryTime"] = 0
    match service:
        case "SimCardReader":
            common["devicePosition"] = machine.card_reader_position
            common |= {} if machine.anti_fraud == "none" else {"antiFraudModule": machine.anti_fraud}
            chip = "poweredOff" if machine.card_media == "present" else "noCard"
            own = {"media": machine.card_media, "chipPower": chip, "chipModule": "ok", "magWriteModule": "ok"}
            return {"common": common, "cardReader": own}
        case "SimCashDispenser":
            out = _position("outCenter", machine.shutter, machine.notes_out, machine.transport)
            return {
                "common": common | {"exchange": machine.exchange},
                "cashDispenser": {"intermediateStacker": machine.stacker, "positions": [out]},
                "cashManagement": {"dispenser": machine.dispenser_state},
            }
        case "SimCashAcceptor":
            acceptor = {
                "intermediateStacker": machine.acceptor_stacker,
                "stackerItems": "noItems",
                "banknoteReader": machine.note_reader,
                "dropBox": False,
                "positions": [_position("inCenter", machine.acceptor_shutter)],
            }
            return {
                "common": common | {"exchange": machine.exchange},
                "cashAcceptor": acceptor,
                "cashManagement": {"acceptor": machine.acceptor_state},
            }
        case "SimEncryptor":
            states = {"encryptionState": machine.encryption_state, "certificateState": machine.certificate_state}
            return {"common": common, "keyManagement": states}
        case "SimPrinter":
            trays = {"upper": machine.paper_upper, "lower": machine.paper_lower}
            paper = {tray: word for tray, word in trays.items() if word != "none"}
            printer: Json = {"media": machine.printer_media, "paper": paper, "mediaOnStacker": 0}
            printer |= {} if machine.toner == "none" else {"toner": machine.toner}
            return {"common": common, "printer": printer}
        case "SimAuxiliaries":
            return {"common": common, "auxiliaries": _auxiliaries(machine)}
    return {"common": common, "vendorMode": {"device": "online", "service": machine.vendor_mode}}


def _position(name: str, shutter: str, notes: str = "empty", transport: str = "ok") -> Json:
    lies = {"positionStatus": notes, "transport": transport, "transportStatus": "empty"}
    return {"position": name, "shutter": shutter, **lies}


def _auxiliaries(machine: Machine) -> Json:
    return {
        "operatorSwitch": machine.operator_switch,
        "tamperSensor": machine.tamper,
        "seismicSensor": machine.seismic,
        "safeDoor": machine.safe_door,
        "cabinetDoor": machine.cabinet_door,
        "UPS": {
            "low": machine.ups_low == "on",
            "engaged": machine.ups_engaged == "on",
            "powering": machine.ups_powering == "on",
            "recovered": machine.ups_recovered == "on",
        },
    }


def storage(machine: Machine, service: str, *, v1: bool, loose: bool) -> Json:
    """The units of a service as Storage.GetStorage tells them; `loose`: with members that break the schema."""
    return {
        name: machine.bin.told() if name == BIN else machine.units[name].told(v1=v1, loose=loose)
        for name in UNITS.get(service, ())
    }


def keys(machine: Machine, *, loose: bool) -> Json:
    """The keys by name as KeyManagement.GetKeyDetail tells them: never a value."""
    loaded = {KEYS[setting]: getattr(machine, setting) for setting in KEYS}
    if machine.extra_key != "absent":
        loaded[EXTRA_KEY] = machine.extra_key
    details = {}
    for (name, usage, mode), word in loaded.items():
        block: Json = {"keyUsage": usage, "algorithm": "T", "modeOfUse": mode, "keyVersionNumber": "00"}
        block |= {"exportability": "S", "keyLength": 128}
        details[name] = {"loaded": word, "keyBlockInfo": block | ({"restrictedKeyUsage": ""} if loose else {})}
    return details
