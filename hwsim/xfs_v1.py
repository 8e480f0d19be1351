"""This file knows what generation V1 of XFS4IoT (2021-1 to 2022) says differently from V2.

Written from release 2021-1 and the recorded V1 session (sources: hwsim/xfs4iot.py): what a device does not have is
said aloud, the cash modules tell the safe door, and doors and sensors come as events of Auxiliaries.
"""

from hwsim.xfs_units import Json

ABSENT: dict[str, Json] = {
    "common": {"antiFraudModule": "unknown", "exchange": "notSupported"},
    "cardReader": {
        "security": "notSupported",
        "frontImageModule": "notSupported",
        "backImageModule": "notSupported",
    },
    "printer": dict.fromkeys(("toner", "ink", "lamp", "blackMarkMode"), "notSupported"),
    "auxiliaries": {
        **dict.fromkeys(
            (
                *("internalTamperSensor", "heatSensor", "proximitySensor", "ambientLightSensor"),
                *("enhancedAudioSensor", "bootSwitchSensor", "displaySensor", "operatorCallButtonSensor"),
                *("handsetSensor", "headsetMicrophoneSensor", "fasciaMicrophoneSensor", "vandalShield"),
                *("cabinetRearDoor", "cabinetLeftDoor", "cabinetRightDoor", "openClosedIndicator", "heating"),
                *("consumerDisplayBacklight", "signageDisplay", "audibleAlarm", "enhancedAudioControl"),
                "enhancedMicrophoneControl",
            ),
            "notAvailable",
        ),
        "audio": {"rate": "off", "signal": "keypress"},
        "volume": {"volumeLevel": 1},
        "microphoneVolume": {"available": False, "volumeLevel": 1},
    },
}
SAFE_DOOR = {"open": "doorOpen", "tampered": "doorUnknown"}
"""cashManagement.safeDoor; every other state is doorClosed."""
PLAIN = {"operatorSwitch", "tamperSensor", "internalTamperSensor"}
"""Auxiliaries whose name in AuxiliaryStatusEvent has no "State" at its end."""
NESTED = {f"CashManagement.{name}Event" for name in ("ItemsPresented", "ItemsTaken", "ItemsInserted")}


def status(told: Json, safe_door: str) -> Json:
    """A V2 status in V1 form."""
    said = {interface: ABSENT.get(interface, {}) | members for interface, members in told.items()}
    if said["common"]["devicePosition"] == "unknown":
        said["common"]["devicePosition"] = "Unknown"  # the one word that the schema of 2021-1 writes like this
    if "auxiliaries" in said:
        # V1 has no door that is simply the cabinet's.
        said["auxiliaries"]["cabinetFrontDoor"] = said["auxiliaries"].pop("cabinetDoor")
    if "cashManagement" in said:
        said["cashManagement"] = {"safeDoor": SAFE_DOOR.get(safe_door, "doorClosed"), **said["cashManagement"]}
    return said


def payload(event: str, told: Json) -> Json:
    """The payload of an event in V1 form: a position stands in a `position` of its own."""
    return {"position": told} if event in NESTED else told


def auxiliary(name: str) -> str:
    """What AuxiliaryStatusEvent calls an auxiliary."""
    return name if name in PLAIN else f"{'ups' if name == 'UPS' else name}State"
