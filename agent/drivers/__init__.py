"""This file knows the registries: kind -> class. What a driver is stands in agent/drivers/contract.py."""

from agent.drivers.acceptor import Acceptor
from agent.drivers.card_reader import CardReader
from agent.drivers.contract import Access, Driver, Line, Shared
from agent.drivers.dispenser import Dispenser
from agent.drivers.epp import Epp
from agent.drivers.modbus import Modbus
from agent.drivers.nut import Nut
from agent.drivers.pin_pad import PinPad
from agent.drivers.printer import Printer
from agent.drivers.ups import Ups
from agent.drivers.xfs4iot import Xfs4iot

__all__ = ["DRIVERS", "SHARED", "Access", "Driver", "Line", "Shared", "driver_class"]

DRIVERS: dict[str, type[Driver]] = {
    "acceptor": Acceptor,
    "card_reader": CardReader,
    "dispenser": Dispenser,
    "epp": Epp,
    "pin_pad": PinPad,
    "printer": Printer,
    "ups": Ups,
}

SHARED: dict[str, type[Shared]] = {
    "modbus": Modbus,
    "nut": Nut,
    "xfs4iot": Xfs4iot,
}


def driver_class(kind: str) -> type[Driver] | type[Shared]:
    """The class of a kind of either shape. Raises KeyError."""
    return DRIVERS[kind] if kind in DRIVERS else SHARED[kind]
