"""The devices, the release that each should run, and how its installation went."""
