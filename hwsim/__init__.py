"""Tillwire's simulator: the same terminal without the hardware. This file knows the registry: kind -> class.

What a simulated device is stands in hwsim/contract.py.
"""

from hwsim.acceptor import Acceptor
from hwsim.card_reader import CardReader
from hwsim.contract import Allowed, SimulatedDevice, change_setting
from hwsim.dispenser import Dispenser
from hwsim.epp import Epp
from hwsim.modbus import Modbus
from hwsim.nut import Nut
from hwsim.pin_pad import PinPad
from hwsim.printer import Printer
from hwsim.ups import Ups
from hwsim.xfs4iot import Xfs4iot

__all__ = ["DEVICES", "Allowed", "SimulatedDevice", "change_setting"]

DEVICES: dict[str, type[SimulatedDevice]] = {
    "acceptor": Acceptor,
    "card_reader": CardReader,
    "dispenser": Dispenser,
    "epp": Epp,
    "modbus": Modbus,
    "nut": Nut,
    "pin_pad": PinPad,
    "printer": Printer,
    "ups": Ups,
    "xfs4iot": Xfs4iot,
}
