"""Tillwire: the open edge agent for ATM and POS hardware."""
