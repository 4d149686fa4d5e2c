"""Devices: who is there, which release each should run, and how its installation went."""
