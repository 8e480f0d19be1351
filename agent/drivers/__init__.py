"""This file knows the registry: kind -> class. What a driver is stands in agent/drivers/contract.py."""

from agent.drivers.contract import Access, Driver, Line
from agent.drivers.dispenser import Dispenser
from agent.drivers.printer import Printer
from agent.drivers.ups import Ups

__all__ = ["DRIVERS", "Access", "Driver", "Line"]

DRIVERS: dict[str, type[Driver]] = {
    "dispenser": Dispenser,
    "printer": Printer,
    "ups": Ups,
}
